//! One stream of a program over several commands of one host, each of which brings or takes every so manieth block: what their
//! scripts do, and what is said between them and us.
//!
//! A login has one window for each of its commands, and a single command waits for its own on a long line while the line is
//! idle. So the script of the program makes a private directory with fifos, and further commands connect their streams with one
//! each. It is told which came, opens those, and takes the directory away again before the first block. Then a loop of `dd`
//! reads from one after the other, or writes to them.
//!
//! Whoever opens a fifo has it open for both directions for a moment: no open waits for the other end then, and none that is gone
//! leaves a process behind that waits for ever.
//!
//! *To the host* each block has a line in front with its size, and a line end behind it; the size 0 is the end of the stream. *From
//! the host* each block is [`BLOCK`](Stripes::BLOCK) bytes but for the last, and when all is out, the script says on its own stdout how many
//! whole ones there were. So a command that breaks cuts the stream, and never shifts it.

use std::fmt::Write as _;

use super::{FilteredStream, Findings, MARK};
use crate::RemoteCommand;

/// How one stream is carried by several commands.
#[derive(Debug)]
pub enum Stripes {}

/// Fifo 1 has descriptor 3. Shells know no descriptor above 9 for certain.
const FIRST_DESCRIPTOR: usize = 3;

/// What begins the line that tells of the end.
const END: &str = "ncc-end";

/// `stripes` leaves a directory with fifos in `at`, or nothing: where `dd` does not take exactly what it is told, which is tried
/// out, and where there is no `mkfifo`. `$$` is one name for all who come at once, so that is for hosts without `mktemp` only.
///
/// `join` writes to stdout what comes by `many` stripes, and `split` the other way round; it says how many blocks were whole. Both
/// end at the first thing that is wrong.
pub(super) const FUNCTIONS: &str = concat!(
    r#"tidy() { if [ "$at" ]; then rm -rf "$at"; fi; at=; }; "#,
    r#"stripes() { case $(echo ab | { dd bs=1 count=1 iflag=fullblock 2>&1 >/dev/null; read x; echo "=$x"; }) in 1+0*=b) ;; *) return 1;; esac; "#,
    r#"at=${TMPDIR:-/tmp}/ncc-stripes; "#,
    r#"if x=$(umask 077; mktemp -d "$at.XXXXXX" 2>/dev/null); then at=$x; "#,
    r#"else at=$at.$$; mkdir -m 700 "$at" 2>/dev/null || { at=; return 1; }; fi; "#,
    r#"mkfifo "$at/1" "$at/2" "$at/3" "$at/4" "$at/5" "$at/6" "$at/7" 2>/dev/null; }; "#,
    r#"next() { turn=$((turn+1)); if [ $turn -gt $((many+2)) ]; then turn=3; fi; }; "#,
    r#"join() { turn=3; while read x <&$turn && [ "$x" -gt 0 ]; do "#,
    r#"dd bs=$x count=1 iflag=fullblock <&$turn 2>/dev/null || return; read x <&$turn || return; next; done; }; "#,
    r#"split() { exec 3<>"$at/$s1"; exec 3>"$at/$s1"; tidy; turn=3; whole=0; "#,
    r#"while x=$(dd bs=1048576 count=1 iflag=fullblock 2>&1 >&$turn); do "#,
    r#"case $x in 1+0*) ;; 0+*) echo "whole=$whole"; return;; *) return;; esac; whole=$((whole+1)); next; done; }; "#,
);

impl Stripes {
    /// How many there can be.
    pub const MOST: usize = 7;

    /// How many bytes go over one stripe before it is the next one's turn.
    pub const BLOCK: usize = 1 << 20;

    /// What tells the script which stripes there are, by their numbers, in ascending order: that is their order in the stream. It
    /// waits for this if it has [said](Findings::stripes) that there can be any. What follows is for its program.
    pub fn chosen(numbers: &[usize]) -> Vec<u8> {
        let words: Vec<String> = numbers.iter().map(usize::to_string).collect();
        format!("{}\n", words.join(" ")).into_bytes()
    }

    /// Connects its streams with the stripe of this number, which begins with 1, of the script that said `place`. It says on stdout
    /// that it has, as [`Findings::end_in`] reads it; what comes behind that belongs to the stream.
    pub fn command(stream: FilteredStream, place: &str, number: usize) -> RemoteCommand {
        let script = match stream {
            FilteredStream::Stdin => format!(
                "[ -p \"$1\" ] && command -v cat >/dev/null || exit 1; exec 3<>\"$1\" 4>&1; exec >\"$1\" 3<&-; echo \"{MARK}\t\t.\" >&4; exec cat 4>&-"
            ),
            FilteredStream::Stdout => format!(
                "[ -p \"$1\" ] && command -v cat >/dev/null || exit 1; exec 3<>\"$1\"; exec <\"$1\" 3<&-; echo \"{MARK}\t\t.\"; exec cat"
            ),
        };
        let place = format!("{place}/{number}");
        RemoteCommand::in_place_of_the_shell("sh").args(["-c", script.as_str(), "sh", place.as_str()])
    }

    /// What stands in front of a block of so many bytes that goes to the host. An empty one is the end of the stream.
    pub fn in_front(size: usize) -> Vec<u8> {
        format!("{size}\n").into_bytes()
    }

    /// What stands behind each block that goes to the host.
    pub const BEHIND: &'static [u8] = b"\n";

    /// How many whole blocks came from the host, by all that the script said when it had ended. `None` if the stream was cut.
    pub fn whole_blocks(said: &[u8]) -> Option<u64> {
        let line = said.strip_suffix(b"\n")?.rsplit(|&byte| byte == b'\n').next()?;
        std::str::from_utf8(line).ok()?.strip_prefix(END)?.strip_prefix(' ')?.parse().ok()
    }
}

impl Findings {
    /// Where the script has made room for stripes, if it has: it waits to be told [which there are](Stripes::chosen).
    pub fn stripes(&self) -> Option<&str> {
        self.value("stripes")
    }
}

/// Makes room, or leaves `at` empty.
pub(super) fn prepare() -> String {
    let mut text = format!(
        "{FUNCTIONS}at=; trap tidy EXIT; trap \"exit 1\" HUP INT TERM PIPE; stripes || tidy; if [ \"$at\" ]; then exec"
    );
    for number in 1..=Stripes::MOST {
        let _ = write!(text, " {}<>\"$at/{number}\"", descriptor(number));
    }
    text.push_str("; fi; ");
    text
}

/// Learns which there are, and leaves those open for one direction. Must be followed by [`end`].
pub(super) fn begin(stream: FilteredStream) -> String {
    let direction = match stream {
        FilteredStream::Stdin => '<',
        FilteredStream::Stdout => '>',
    };
    let mut text = String::from("if [ \"$at\" ]; then read");
    for number in 1..=Stripes::MOST {
        let _ = write!(text, " s{number}");
    }
    text.push_str(" || exit 1; many=0; ");
    for number in 1..=Stripes::MOST {
        let descriptor = descriptor(number);
        // Its number is no smaller than this one, so it is still held open.
        let _ = write!(
            text,
            "if [ \"$s{number}\" ]; then many={number}; exec {descriptor}{direction}\"$at/$s{number}\"; else exec {descriptor}<&-; fi; "
        );
    }
    text.push_str("trap - HUP INT TERM PIPE EXIT; if [ $many -gt 0 ]; then ");
    if stream == FilteredStream::Stdin {
        text.push_str("tidy; ");
    }
    text
}

/// Without stripes it goes on behind this.
pub(super) const fn end() -> &'static str {
    "fi; tidy; fi; "
}

/// Runs the program, one stream of which goes through `filter` and over the stripes, and ends with its status.
pub(super) fn run(stream: FilteredStream, run: &str, filter: Option<&str>) -> String {
    let mut without = String::new();
    for number in 1..=Stripes::MOST {
        let _ = write!(without, " {}<&-", descriptor(number));
    }
    let filter = filter.map_or_else(String::new, |filter| format!("{filter}{without} | "));
    match stream {
        FilteredStream::Stdin => format!("join | {filter}exec {run}{without}; exit; "),
        // 3 leads the status past the filter, to where `split` tells of the end too: that opens the first stripe anew. Meanwhile the
        // shell in front holds it open, or whoever reads it would see its end.
        FilteredStream::Stdout => format!(
            "x=$( {{ {{ {run}{without}; echo \"status=$?\" >&3; }} | {filter}split; }} 3>&1 ); many=1 whole=; \
             for x in $x; do case $x in status=*) many=${{x#status=}};; whole=*) whole=${{x#whole=}};; esac; done; \
             if [ \"$whole\" ]; then echo \"{END} $whole\"; fi; exit $many; "
        ),
    }
}

const fn descriptor(number: usize) -> usize {
    FIRST_DESCRIPTOR + number - 1
}
