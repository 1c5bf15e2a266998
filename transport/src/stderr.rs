//! A peer's messages: bounded, harmless, and at hand when something went wrong.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
    task::JoinHandle,
};

/// How much of the beginning is kept: the first complaint is usually the cause.
const HEAD: usize = 16 * 1024;

/// How much of the end is kept: the last complaint is what the peer died of.
const TAIL: usize = 48 * 1024;

/// The longest line; more is broken into several, so that a peer that never ends its line costs no memory.
const MAX_LINE: usize = 8 * 1024;

/// How long [`StderrTail::finish`] waits for the end of stderr. The command has ended by then, but a process that it left behind
/// may hold the pipe open for good: a master connection that OpenSSH keeps (ControlPersist) with `-v`, a proxy command.
const FINISH_GRACE: Duration = Duration::from_millis(500);

/// Is given each line as it comes, without its newline, already sanitised.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

/// Reads a stderr to its end in a task of its own, so that the peer never blocks on it; hands each line on as it comes, and keeps
/// the first 16 KiB and the last 48 KiB for error messages.
///
/// Every line has passed [`sanitize_line`]. Dropping this stops the reading.
#[must_use = "dropping it stops the reading of stderr"]
pub struct StderrTail {
    kept: Arc<Mutex<Kept>>,
    task: JoinHandle<()>,
    done: watch::Receiver<()>,
}

impl StderrTail {
    /// Starts to read. Each complete line also goes to `sink`, which must not block.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn collect(stderr: impl AsyncRead + Send + Unpin + 'static, sink: Option<LineSink>) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (end, done) = watch::channel(());
        let task = tokio::spawn(read_lines(stderr, Arc::clone(&kept), sink, end));
        Self { kept, task, done }
    }

    /// What has come so far, also the beginning of an unfinished line; each line with its newline. In place of what was not kept
    /// stands a line that says how much that was.
    pub fn text(&self) -> String {
        lock(&self.kept).text()
    }

    /// The last line with something on it, so far: what the peer is probably busy with, or was when it ended.
    pub fn last_line(&self) -> Option<String> {
        lock(&self.kept).last_line()
    }

    /// Waits for the end of stderr and returns [`text`](Self::text). For when the command has ended: a process that it left
    /// behind may hold stderr open, so after half a second this returns what there is. Cancel safe.
    pub async fn finish(&mut self) -> String {
        // The sender is only ever dropped; both an error and the time-out mean: take what there is.
        let _ = tokio::time::timeout(FINISH_GRACE, self.done.changed()).await;
        self.text()
    }
}

impl Drop for StderrTail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for StderrTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StderrTail").field("last_line", &self.last_line()).finish_non_exhaustive()
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_lines(
    mut stderr: impl AsyncRead + Unpin,
    kept: Arc<Mutex<Kept>>,
    sink: Option<LineSink>,
    _end: watch::Sender<()>,
) {
    let mut buffer = vec![0; 8 * 1024];
    let emit = |line: &str| {
        if let Some(sink) = &sink {
            sink(line);
        }
    };
    // An error of a pipe that is being closed is its end.
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            let line = lock(&kept).feed(&mut rest);
            line.as_deref().map(emit);
        }
    }
    let line = lock(&kept).end_line();
    line.as_deref().map(emit);
}

#[derive(Default)]
struct Kept {
    head: String,
    /// Set once a line did not fit into the head: all later ones go to the tail.
    head_full: bool,
    tail: VecDeque<String>,
    tail_size: usize,
    left_out: u64,
    partial: Vec<u8>,
}

impl Kept {
    /// Takes bytes from the front of `input`, up to the end of a line if there is one, and returns that line.
    fn feed(&mut self, input: &mut &[u8]) -> Option<String> {
        let room = MAX_LINE.saturating_sub(self.partial.len()).max(1).min(input.len());
        let (window, _) = input.split_at(room);
        let newline = window.iter().position(|&byte| byte == b'\n');
        let (line, rest) = input.split_at(newline.unwrap_or(room));
        self.partial.extend_from_slice(line);
        *input = if newline.is_some() { rest.get(1..).unwrap_or_default() } else { rest };
        if newline.is_some() || self.partial.len() >= MAX_LINE { Some(self.take_line()) } else { None }
    }

    /// The line that was not ended, at the end of all.
    fn end_line(&mut self) -> Option<String> {
        if self.partial.is_empty() { None } else { Some(self.take_line()) }
    }

    fn take_line(&mut self) -> String {
        let line = sanitize_line(&self.partial);
        self.partial.clear();
        self.keep(&line);
        line
    }

    fn keep(&mut self, line: &str) {
        let size = line.len() + 1;
        if !self.head_full && self.head.len() + size <= HEAD {
            self.head.push_str(line);
            self.head.push('\n');
            return;
        }
        self.head_full = true;
        self.tail_size += size;
        self.tail.push_back(line.to_owned());
        while self.tail_size > TAIL {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_size -= oldest.len() + 1;
            self.left_out += oldest.len() as u64 + 1;
        }
    }

    fn text(&self) -> String {
        let mut text = self.head.clone();
        if self.left_out > 0 {
            text.extend(["[", &self.left_out.to_string(), " bytes left out]\n"]);
        }
        for line in &self.tail {
            text.push_str(line);
            text.push('\n');
        }
        let partial = sanitize_line(&self.partial);
        if !partial.is_empty() {
            text.push_str(&partial);
            text.push('\n');
        }
        text
    }

    fn last_line(&self) -> Option<String> {
        let partial = sanitize_line(&self.partial);
        std::iter::once(partial.as_str())
            .chain(self.tail.iter().rev().map(String::as_str))
            .chain(self.head.lines().rev())
            .find(|line| !line.trim().is_empty())
            .map(str::to_owned)
    }
}

/// Makes a line from a peer fit to be shown on a terminal, as text that says the same.
///
/// Escape sequences (colours, cursor movements, window titles) are removed whole; other control characters, and those that
/// reorder text (bidirectional overrides), become spaces, and at the end of the line nothing; what is not UTF-8 becomes U+FFFD.
///
/// ```
/// # use ncc_transport::sanitize_line;
/// assert_eq!(sanitize_line(b"\x1b[31;1merror:\x1b[0m no space\tleft\r\n"), "error: no space left");
/// assert_eq!(sanitize_line(b"\x1b]0;title\x07caf\xc3\xa9 \xff"), "caf\u{e9} \u{fffd}");
/// ```
pub fn sanitize_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(next) = rest.chars().next() {
        let length = escape_sequence(rest);
        if length > 0 {
            rest = rest.get(length..).unwrap_or_default();
            continue;
        }
        clean.push(if is_harmful(next) { ' ' } else { next });
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
    }
    clean.truncate(clean.trim_end().len());
    clean
}

fn is_harmful(character: char) -> bool {
    // Marks, embeddings, overrides and isolates of direction; line and paragraph separators.
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of the escape sequence (ECMA-48) that `text` begins with, 0 if there is none. Of a sequence without an end only
/// the introducer counts, so that nobody hides text behind it.
fn escape_sequence(text: &str) -> usize {
    let mut characters = text.char_indices().peekable();
    let kind = match characters.next() {
        Some((_, '\u{1b}')) => match characters.next() {
            Some((_, kind @ ('\u{20}'..='\u{7e}'))) => kind,
            _ => return 1,
        },
        // The same, as one character.
        Some((_, '\u{9b}')) => '[',
        Some((_, '\u{9d}')) => ']',
        Some((_, '\u{90}')) => 'P',
        _ => return 0,
    };
    let introducer = characters.peek().map_or(text.len(), |&(index, _)| index);
    match kind {
        '[' => characters
            .find(|(_, character)| !matches!(character, '\u{20}'..='\u{3f}'))
            .filter(|(_, end)| matches!(end, '\u{40}'..='\u{7e}'))
            .map_or(introducer, |(index, end)| index + end.len_utf8()),
        // Strings: window title, links, device control; ended by BEL or ST.
        ']' | 'P' | 'X' | '^' | '_' => {
            let body = text.get(introducer..).unwrap_or_default();
            ["\u{7}", "\u{1b}\\", "\u{9c}"]
                .iter()
                .filter_map(|end| body.find(end).map(|index| introducer + index + end.len()))
                .min()
                .unwrap_or(introducer)
        }
        // Intermediate characters, then a final one: character sets.
        '\u{20}'..='\u{2f}' => characters
            .find(|(_, character)| !matches!(character, '\u{20}'..='\u{2f}'))
            .map_or(introducer, |(index, end)| index + end.len_utf8()),
        _ => introducer,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[rstest]
    #[case::plain("error: path '/nix/store/x' is not valid", "error: path '/nix/store/x' is not valid")]
    #[case::colours("\u{1b}[31;1merror:\u{1b}[0m x", "error: x")]
    #[case::carriage_return("a\rb\r", "a b")]
    #[case::title("\u{1b}]0;rm -rf\u{1b}\\x", "x")]
    #[case::unfinished_title_hides_nothing("\u{1b}]0;text", "0;text")]
    #[case::unfinished_csi_hides_nothing("\u{1b}[31", "31")]
    #[case::csi_cut_by_unicode("\u{1b}[3é", "3é")]
    #[case::c1("\u{9b}2Jx\u{85}y", "x y")]
    #[case::charset("\u{1b}(Bx", "x")]
    #[case::bell("\u{7}x", " x")]
    #[case::bidi("a\u{202e}b", "a b")]
    #[case::lone_escape("a\u{1b}", "a")]
    #[case::escape_escape("\u{1b}\u{1b}[0mx", "x")]
    #[case::keeps_indentation("    at x", "    at x")]
    fn sanitized(#[case] line: &str, #[case] expected: &str) {
        assert_eq!(sanitize_line(line.as_bytes()), expected);
    }

    proptest! {
        #[test]
        fn never_a_control_character(line: Vec<u8>) {
            let clean = sanitize_line(&line);
            prop_assert!(!clean.chars().any(is_harmful), "{clean:?}");
        }

        #[test]
        fn lines_do_not_depend_on_how_they_were_cut(text in "[ab\n]{0,200}", cut in 0usize..200) {
            let feed = |parts: &[&[u8]]| {
                let mut kept = Kept::default();
                let mut lines = Vec::new();
                for mut part in parts.iter().copied() {
                    while !part.is_empty() {
                        lines.extend(kept.feed(&mut part));
                    }
                }
                lines.extend(kept.end_line());
                (lines, kept.text())
            };
            let bytes = text.as_bytes();
            let (front, back) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(feed(&[front, back]), feed(&[bytes]));
            prop_assert_eq!(feed(&[bytes]).0, text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn keeps_both_ends_of_much() {
        let (mut peer, stderr) = tokio::io::duplex(1024);
        let seen = Arc::new(Mutex::new(0_u32));
        let counter = Arc::clone(&seen);
        let mut tail = StderrTail::collect(stderr, Some(Arc::new(move |_| *counter.lock().unwrap() += 1)));
        for number in 0..100_000 {
            peer.write_all(format!("line {number}\n").as_bytes()).await.unwrap();
        }
        peer.write_all(b"the end").await.unwrap();
        drop(peer);
        let text = tail.finish().await;
        assert!(text.starts_with("line 0\nline 1\n"), "{}", &text[..40]);
        assert!(text.ends_with("line 99999\nthe end\n"));
        assert!(text.contains(" bytes left out]\n"));
        assert!(text.len() <= HEAD + TAIL + 64, "{}", text.len());
        assert_eq!(*seen.lock().unwrap(), 100_001);
        assert_eq!(tail.last_line().as_deref(), Some("the end"));
    }

    #[tokio::test]
    async fn a_line_without_an_end_costs_no_memory() {
        let (mut peer, stderr) = tokio::io::duplex(64 * 1024);
        let longest = Arc::new(Mutex::new(0));
        let sink = Arc::clone(&longest);
        let mut tail = StderrTail::collect(
            stderr,
            Some(Arc::new(move |line: &str| {
                let mut longest = sink.lock().unwrap();
                *longest = line.len().max(*longest);
            })),
        );
        for _ in 0..100 {
            peer.write_all(&[b'x'; 10_000]).await.unwrap();
        }
        drop(peer);
        assert!(tail.finish().await.len() < 2 * (HEAD + TAIL));
        assert_eq!(*longest.lock().unwrap(), MAX_LINE);
    }

    #[tokio::test]
    async fn an_unfinished_line_is_seen_before_its_end() {
        let (mut peer, stderr) = tokio::io::duplex(64);
        let tail = StderrTail::collect(stderr, None);
        peer.write_all(b"done\n\nwaiting for the big lock...").await.unwrap();
        while tail.last_line().as_deref() != Some("waiting for the big lock...") {
            tokio::task::yield_now().await;
        }
        assert_eq!(tail.text(), "done\n\nwaiting for the big lock...\n");
    }

    #[tokio::test]
    async fn finish_does_not_wait_for_an_end_that_never_comes() {
        let (mut peer, stderr) = tokio::io::duplex(64);
        let mut tail = StderrTail::collect(stderr, None);
        peer.write_all(b"half a message").await.unwrap();
        let start = std::time::Instant::now();
        assert_eq!(tail.finish().await, "half a message\n");
        assert!(start.elapsed() >= FINISH_GRACE && start.elapsed() < Duration::from_secs(10));
        drop(peer);
    }
}
