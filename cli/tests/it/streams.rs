//! Standard input, output and error are as whoever started the program has made them.

use std::{
    io::{PipeReader, PipeWriter, Read as _},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::{
    support::{PROGRAM, World, code},
    transports::{add_big, path, stuck},
    tty::Terminal,
};

/// A small pipe whose writer does not block, as an event loop leaves it.
fn non_blocking() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    fcntl_setfl(&writer, fcntl_getfl(&writer).unwrap() | OFlags::NONBLOCK).unwrap();
    (reader, writer)
}

/// Adds paths enough that what is said of them does not fit into the pipe.
fn many(world: &World) -> Vec<String> {
    (0..60)
        .map(|number| crate::support::full(&world.add(&format!("path-{number}"), "file", "x", [])))
        .collect()
}

/// What comes through, read after the program has met a full pipe.
fn read_late(mut command: Command, mut reader: PipeReader) -> (i32, String) {
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    drop(command);
    // Full when no more comes: what comes next would not block, but fail.
    let start = std::time::Instant::now();
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let waiting = rustix::io::ioctl_fionread(&reader).unwrap();
        if waiting > 0 && waiting == before {
            break;
        }
        before = waiting;
        assert!(start.elapsed() < Duration::from_secs(20), "nothing is written");
    }
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (code(child.wait().unwrap()), text)
}

/// https://github.com/rust-lang/rust/issues/13336
#[test]
fn r13336_standard_output_that_does_not_block_gets_everything() {
    let world = World::new();
    let paths = many(&world);
    let (reader, writer) = non_blocking();
    let flags = writer.try_clone().unwrap();
    let mut command = world.copy();
    command.args(["--dry-run", "--json", "localhost"]).args(&paths).stdout(writer);
    // Of the command, not of this test.
    let before = fcntl_getfl(&flags).unwrap();
    drop(flags);
    let (code, text) = read_late(command, reader);
    assert_eq!(code, 0);
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan["toSend"]["count"], 60);
    assert!(before.contains(OFlags::NONBLOCK));
}

/// https://github.com/travis-ci/travis-ci/issues/4704
#[test]
fn r4704_standard_error_that_does_not_block_gets_everything() {
    for format in ["raw", "internal-json"] {
        let world = World::new();
        let paths = many(&world);
        world.damage(&paths[20], "file");
        let (reader, writer) = non_blocking();
        let mut command = world.copy();
        command.args(["-v", "-k", "--log-format", format, "localhost"]).args(&paths).stderr(writer);
        let (code, text) = read_late(command, reader);
        assert_eq!(code, 4, "{text}");
        let named = |text: &str| text.lines().filter(|line| line.contains("copying path '")).count();
        assert!(named(&text) >= 59, "{} of 60 paths are named: {text}", named(&text));
        let error = text.lines().find(|line| line.contains("error: ") && line.contains("path-20"));
        assert!(error.is_some(), "nobody learns which path failed: {text}");
        if format == "internal-json" {
            assert!(text.lines().all(|line| line.starts_with("@nix {") && line.ends_with('}')), "{text}");
        }
    }
}

/// Whatever is closed at the start is nothing, rather than a file that is opened later and gets what was meant for it.
#[test]
fn streams_that_are_closed_at_the_start_are_nothing() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let world = World::new();
        let copy = world.copy();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$@\" {closed}"), "sh", PROGRAM]).args(copy.get_args());
        command.arg("localhost").arg(&world.top).env_clear().env("PATH", path());
        let output = command.current_dir(world.directory()).output().unwrap();
        assert_eq!(code(output.status), 0, "{closed}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(world.copied(&world.all()), [true, true, true, false], "{closed}");
    }
}

/// A serial console, or an editor's shell.
///
/// https://github.com/NixOS/nix/issues/10131
#[test]
fn r10131_a_terminal_without_a_type_gets_plain_lines() {
    for term in [None, Some(""), Some("dumb")] {
        for words in [&[][..], &["--log-format", "bar"]] {
            let world = World::new();
            let mut command = world.copy();
            command.args(words).arg("localhost").arg(&world.top);
            let mut terminal = Terminal::start_as(&command, term, (24, 80));
            assert_eq!(terminal.end(Duration::from_secs(20)), 0, "{}", terminal.screen());
            assert!(!terminal.raw().contains('\x1b'), "{term:?} {words:?}: {:?}", terminal.raw());
            assert!(terminal.screen().contains("copied 3 paths"), "{}", terminal.screen());
        }
    }
}

/// Terminals of some containers do not know their size.
#[test]
fn a_terminal_of_no_size_gets_a_bar_of_the_usual_width() {
    let world = World::new();
    let big = add_big(&world);
    let mut command = world.copy();
    command.env("PATH", path()).args(["--remote-program", &stuck(&world), "localhost", &big]);
    let mut terminal = Terminal::start_as(&command, Some("xterm"), (0, 0));
    terminal.wait_for(" localhost [");
    terminal.write("\x03");
    assert_eq!(terminal.end(Duration::from_secs(20)), 130);
}
