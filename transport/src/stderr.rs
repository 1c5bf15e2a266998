//! A peer's messages: bounded, harmless, and at hand when something went wrong.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
    task::JoinHandle,
};

use crate::script::STARTED;

/// How much of the beginning is kept: the first complaint is usually the cause.
const HEAD: usize = 16 * 1024;

/// How much of the end is kept: the last complaint is what the peer died of.
const TAIL: usize = 48 * 1024;

/// The longest line. The rest of a longer one is only counted, so that a peer that never ends its line costs no memory and fills
/// no terminal.
const MAX_LINE: usize = 4 * 1024;

/// How many lines of a peer a person is shown within a second. Nix's most talkative level writes less.
const LINES_PER_SECOND: u32 = 1000;

/// How many bytes of a peer a person is shown within a second: about what a slow terminal can draw.
const BYTES_PER_SECOND: usize = 128 * 1024;

/// How long [`StderrTail::finish`] waits for the end of stderr. The command has ended by then, but a process that it left behind
/// may hold the pipe open for good: a master connection that OpenSSH keeps (ControlPersist) with `-v`, a proxy command.
const FINISH_GRACE: Duration = Duration::from_millis(500);

/// Is given each line as it comes, without its newline, already sanitised.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

/// Reads a stderr to its end in a task of its own, so that the peer never blocks on it; hands each line on as it comes, and keeps
/// the first 16 KiB and the last 48 KiB for error messages.
///
/// Every line has passed [`sanitize_line`]. One of more than 4 KiB is cut, and says how much is missing. Dropping this stops the
/// reading.
#[must_use = "dropping it stops the reading of stderr"]
pub struct StderrTail {
    kept: Arc<Mutex<Kept>>,
    task: JoinHandle<()>,
    done: watch::Receiver<()>,
}

impl StderrTail {
    /// Starts to read. Each complete line also goes to `sink`, which must not block. Where the lines are for a person to read,
    /// the sink should be a [`throttled`] one.
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
        lock(&self.kept).text(0)
    }

    /// The same, without what came before the program at the other end ran: notices of ssh, a banner of the server, and what
    /// the start-up files of the login shell print. None of them is the reason for which that program ended.
    ///
    /// A [`RemoteScript`](crate::RemoteScript) marks the place. `None` where it did not, or was not what was run: a greeting on
    /// stdout marks no place here, since what is said after it may arrive before it.
    pub fn since_start(&self) -> Option<String> {
        let kept = lock(&self.kept);
        kept.started_at.map(|lines| kept.text(lines))
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    head: Vec<String>,
    head_size: usize,
    /// Set once a line did not fit into the head: all later ones go to the tail.
    head_full: bool,
    tail: VecDeque<String>,
    tail_size: usize,
    /// Bytes of whole lines.
    left_out: usize,
    /// How many lines have come.
    lines: usize,
    /// How many of them came before the program at the other end ran.
    started_at: Option<usize>,
    partial: Partial,
}

impl Kept {
    /// Takes bytes from the front of `input`, up to the end of a line if there is one, and returns that line.
    fn feed(&mut self, input: &mut &[u8]) -> Option<String> {
        let newline = input.iter().position(|&byte| byte == b'\n');
        let (line, rest) = input.split_at(newline.unwrap_or(input.len()));
        self.partial.extend(line);
        *input = rest.get(1..).unwrap_or_default();
        newline.and_then(|_| self.take_line())
    }

    /// The line that was not ended, at the end of all.
    fn end_line(&mut self) -> Option<String> {
        if self.partial.is_empty() { None } else { self.take_line() }
    }

    /// The line that has ended, but for the one that is the script's own.
    fn take_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.partial).text();
        if self.started_at.is_none() && line == STARTED {
            self.started_at = Some(self.lines);
            return None;
        }
        self.lines += 1;
        self.keep(&line);
        Some(line)
    }

    fn keep(&mut self, line: &str) {
        let size = line.len() + 1;
        if !self.head_full && self.head_size + size <= HEAD {
            self.head_size += size;
            self.head.push(line.to_owned());
            return;
        }
        self.head_full = true;
        self.tail_size += size;
        self.tail.push_back(line.to_owned());
        while self.tail_size > TAIL {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_size -= oldest.len() + 1;
            self.left_out += oldest.len() + 1;
        }
    }

    /// All lines but the first `skipped`.
    fn text(&self, skipped: usize) -> String {
        let first_of_tail = self.lines - self.tail.len();
        let mut text = String::new();
        let mut add = |line: &str| text.extend([line, "\n"]);
        self.head.iter().skip(skipped).for_each(|line| add(line));
        if self.left_out > 0 && skipped < first_of_tail {
            add(&format!("[{} bytes left out]", self.left_out));
        }
        self.tail.iter().skip(skipped.saturating_sub(first_of_tail)).for_each(|line| add(line));
        let partial = self.partial.text();
        if !partial.is_empty() {
            add(&partial);
        }
        text
    }

    fn last_line(&self) -> Option<String> {
        let partial = self.partial.text();
        std::iter::once(&partial)
            .chain(self.tail.iter().rev())
            .chain(self.head.iter().rev())
            .find(|line| !line.trim().is_empty())
            .cloned()
    }
}

/// A line that has not ended.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    left_out: u64,
    /// The cursor is at the beginning of the line: what comes next is written over it, as progress is.
    returned: bool,
}

impl Partial {
    fn extend(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\r' {
                self.returned = true;
                continue;
            }
            if self.returned {
                *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
                self.bytes.clear();
            }
            if self.bytes.len() < MAX_LINE {
                self.bytes.push(byte);
            } else {
                self.left_out += 1;
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn text(&self) -> String {
        let mut text = sanitize_line(&self.bytes);
        if self.left_out > 0 {
            text.extend([" [", &self.left_out.to_string(), " bytes left out]"]);
        }
        text
    }
}

/// A sink that a flood does not get through: at most 1,000 lines and 128 KiB in a second. How many lines were left out is said in
/// a line of its own, before the next one that passes, or when the sink is dropped.
///
/// For lines that are shown. [`StderrTail`] keeps what explains a failure in any case.
pub fn throttled(sink: LineSink) -> LineSink {
    let throttled = Throttled { sink, budget: Mutex::new(Budget::new(Instant::now())) };
    Arc::new(move |line| throttled.take(line, Instant::now()))
}

struct Throttled {
    sink: LineSink,
    budget: Mutex<Budget>,
}

impl Throttled {
    fn take(&self, line: &str, now: Instant) {
        // Not locked while the sink is called.
        let Some(left_out) = lock(&self.budget).spend(line, now) else { return };
        self.say_left_out(left_out);
        (self.sink)(line);
    }

    fn say_left_out(&self, lines: u64) {
        if lines > 0 {
            (self.sink)(&format!("[{lines} lines left out]"));
        }
    }
}

impl Drop for Throttled {
    fn drop(&mut self) {
        let left_out = lock(&self.budget).left_out;
        self.say_left_out(left_out);
    }
}

/// What may still pass within the second that began at `since`.
struct Budget {
    since: Instant,
    lines: u32,
    bytes: usize,
    left_out: u64,
}

impl Budget {
    fn new(since: Instant) -> Self {
        Self { since, lines: LINES_PER_SECOND, bytes: BYTES_PER_SECOND, left_out: 0 }
    }

    /// `None` if this line is to be left out, else how many were before it.
    fn spend(&mut self, line: &str, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { left_out: self.left_out, ..Self::new(now) };
        }
        let (Some(lines), Some(bytes)) = (self.lines.checked_sub(1), self.bytes.checked_sub(line.len()))
        else {
            // Nothing smaller passes either: what is shown has one gap, not many.
            self.bytes = 0;
            self.lines = 0;
            self.left_out += 1;
            return None;
        };
        (self.lines, self.bytes) = (lines, bytes);
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Makes a line from a peer fit to be shown on a terminal, as text that says the same.
///
/// Escape sequences (colours, cursor movements, window titles) are removed whole; other control characters, and those that
/// reorder text (bidirectional overrides), become spaces, and at the end of the line nothing; what is not UTF-8 becomes U+FFFD.
/// Use it for any text that a peer has a say in, also where that is not a line of stderr.
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
        fn lines_do_not_depend_on_how_they_were_cut(text in "[ab\r\n]{0,200}", cut in 0usize..200) {
            let feed = |parts: &[&[u8]]| {
                let mut kept = Kept::default();
                let mut lines = Vec::new();
                for mut part in parts.iter().copied() {
                    while !part.is_empty() {
                        lines.extend(kept.feed(&mut part));
                    }
                }
                lines.extend(kept.end_line());
                (lines, kept.text(0))
            };
            let bytes = text.as_bytes();
            let (front, back) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(feed(&[front, back]), feed(&[bytes]));
            if !text.contains('\r') {
                prop_assert_eq!(feed(&[bytes]).0, text.lines().map(str::to_owned).collect::<Vec<_>>());
            }
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
        let text = tail.finish().await;
        assert_eq!(text, format!("{} [{} bytes left out]\n", "x".repeat(MAX_LINE), 1_000_000 - MAX_LINE));
        assert_eq!(*longest.lock().unwrap(), text.len() - 1);
    }

    #[test]
    fn a_flood_is_left_out_and_counted() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let start = Instant::now();
        let throttled = Throttled {
            sink: Arc::new(move |line: &str| sink.lock().unwrap().push(line.to_owned())),
            budget: Mutex::new(Budget::new(start)),
        };
        for number in 0..5000 {
            throttled.take(&number.to_string(), start);
        }
        assert_eq!(seen.lock().unwrap().len(), 1000);
        let later = start + Duration::from_secs(1);
        throttled.take("later", later);
        assert_eq!(seen.lock().unwrap()[999..], ["999", "[4000 lines left out]", "later"]);
        // Few long ones are a flood as well.
        for _ in 0..100 {
            throttled.take(&"x".repeat(MAX_LINE), later);
        }
        throttled.take("short", later);
        assert_eq!(seen.lock().unwrap().len(), 1002 + 31);
        drop(throttled);
        assert_eq!(seen.lock().unwrap().last().unwrap(), "[70 lines left out]");
    }

    #[tokio::test]
    async fn what_came_before_the_program_is_kept_apart() {
        let (mut peer, stderr) = tokio::io::duplex(64 * 1024);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let mut tail = StderrTail::collect(
            stderr,
            Some(Arc::new(move |line: &str| sink.lock().unwrap().push(line.to_owned()))),
        );
        peer.write_all(b"banner\nncc-started\nerror\nncc-started\nlast").await.unwrap();
        drop(peer);
        assert_eq!(tail.finish().await, "banner\nerror\nncc-started\nlast\n");
        // Once only: nobody hides a reason behind a second one.
        assert_eq!(tail.since_start().as_deref(), Some("error\nncc-started\nlast\n"));
        assert_eq!(*seen.lock().unwrap(), ["banner", "error", "ncc-started", "last"]);
    }

    #[tokio::test]
    async fn what_came_before_the_program_may_be_much() {
        let (mut peer, stderr) = tokio::io::duplex(64 * 1024);
        let mut tail = StderrTail::collect(stderr, None);
        let line = "x".repeat(1023) + "\n";
        peer.write_all(line.repeat(100).as_bytes()).await.unwrap();
        peer.write_all(b"banner\n").await.unwrap();
        while tail.last_line().as_deref() != Some("banner") {
            tokio::task::yield_now().await;
        }
        assert_eq!(tail.since_start(), None);
        peer.write_all(b"ncc-started\nthe end\n").await.unwrap();
        drop(peer);
        assert!(tail.finish().await.contains(" bytes left out]\n"));
        assert_eq!(tail.since_start().as_deref(), Some("the end\n"));
    }

    #[tokio::test]
    async fn progress_that_writes_over_itself_is_its_last_state() {
        let (mut peer, stderr) = tokio::io::duplex(64);
        let mut tail = StderrTail::collect(stderr, None);
        peer.write_all(b"10 %\r20 %\r30 %\r\nplain\r\r\n40 %\r").await.unwrap();
        peer.write_all("x".repeat(2 * MAX_LINE).as_bytes()).await.unwrap();
        peer.write_all(b"\r50 %").await.unwrap();
        drop(peer);
        assert_eq!(tail.finish().await, "30 %\nplain\n50 %\n");
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
