//! Signals are as whoever started the program wants them.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    support::{PROGRAM, Running, World, real},
    transports::{add_big, path, stuck},
    tty::Terminal,
};

const SOON: Duration = Duration::from_secs(20);

/// A copy to `localhost` whose server waits for a file before it serves, started by a shell that runs `before` first.
fn waiting(world: &World, before: &str) -> Command {
    let body = format!(
        "#!/bin/sh\necho waiting >&2\nuntil test -e {}; do sleep 0.05; done\nexec {PROGRAM} \"$@\"\n",
        world.directory().join("go").display()
    );
    let server = world.script("server", &body);
    let copy = world.copy();
    let mut command = world.bare();
    command = {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{before}; exec \"$@\""), "sh", PROGRAM]);
        shell.args(copy.get_args()).env_clear().current_dir(world.directory());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    };
    command.env("PATH", path()).arg("--remote-program").arg(server).arg("localhost").arg(&world.top);
    command
}

/// A job under `nohup` outlives its terminal; one that a script has put into the background outlives Ctrl-C.
///
/// https://github.com/fish-shell/fish-shell/issues/4007
#[test]
fn r4007_a_signal_that_was_ignored_at_the_start_stays_ignored() {
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT), ("TERM", Signal::TERM)] {
        let world = World::new();
        let mut running = Running::start(&mut waiting(&world, &format!("trap '' {name}")));
        running.wait_for("waiting", SOON);
        running.signal(signal);
        std::fs::write(world.directory().join("go"), "").unwrap();
        running.end(&world, SOON).says(0, &["copied 3 paths"]);
        assert_eq!(world.copied(&world.all()), [true, true, true, false], "{name}");
    }
}

/// A shell ends a loop at Ctrl-C only if what it ran has died of the signal.
#[test]
fn a_signal_that_ends_the_program_is_what_it_dies_of() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let world = World::new();
        let mut running = Running::start(&mut waiting(&world, ":"));
        running.wait_for("waiting", SOON);
        running.signal(signal);
        let status = running.status(SOON);
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
        world.expect_no_process(SOON);
    }
}

/// bash goes on with a loop unless its child has died of the signal.
#[test]
fn ctrl_c_ends_a_shell_s_loop_too() {
    let world = World::new();
    let server = stuck(&world);
    let big = add_big(&world);
    let copy = world.copy();
    let mut command = Command::new("bash");
    command.args(["-c", "for i in 1 2; do echo \"round $i\"; \"$@\"; done; echo went on", "bash", PROGRAM]);
    command.args(copy.get_args()).args(["--remote-program", &server, "localhost", &big]);
    command.env("PATH", path()).env("HOME", world.directory()).current_dir(world.directory());
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("MiB");
    terminal.write("\x03");
    assert_eq!(terminal.end(SOON), 130);
    let screen = terminal.screen();
    assert!(screen.contains("round 1") && !screen.contains("round 2"), "{screen}");
    world.expect_no_process(SOON);
}

/// Ctrl-Z: the bar goes, the shell has its terminal, and the copy goes on where it was.
#[test]
fn a_copy_that_is_stopped_leaves_no_bar_and_draws_it_again_when_continued() {
    let world = World::new();
    let server = stuck(&world);
    let big = add_big(&world);
    let copy = world.copy();
    // A shell with job control, as a person has it.
    let mut command = Command::new("bash");
    command.args(["--norc", "--noprofile", "-i"]);
    command.env("PATH", path()).env("HOME", world.directory()).env("PS1", "> ");
    command.env("LC_ALL", "C.UTF-8").current_dir(world.directory());
    let words: Vec<_> = copy.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
    let line = format!("clear; {PROGRAM} {} --remote-program {server} localhost {big}", words.join(" "));
    let mut terminal = Terminal::start(&command);
    terminal.wait_for(">");
    terminal.write(&format!("{line}\r"));
    terminal.wait_for("MiB");
    terminal.write("\x1a");
    terminal.wait_for("Stopped");
    assert!(!terminal.screen().contains("MiB"), "{}", terminal.screen());
    terminal.write("fg\r");
    terminal.wait_for("MiB");
    assert!(terminal.screen().contains("Stopped"), "{}", terminal.screen());
    terminal.write("\x03");
    terminal.wait_for_change(|screen| !screen.contains("MiB"));
    terminal.write("exit\r");
    terminal.end(SOON);
    world.expect_no_process(SOON);
}

/// Ctrl-C reaches a program that is writing to a terminal, or a pager, that takes nothing.
#[test]
fn a_reader_that_does_not_read_stops_neither_the_copy_nor_ctrl_c() {
    let world = World::new();
    let chatty = world.script(
        "chatty",
        &format!("#!/bin/sh\nawk 'BEGIN {{ for (i = 0; i < 400; i++) print \"word\", i, sprintf(\"%1000s\", \"x\") }}' >&2\nexec {PROGRAM} \"$@\"\n"),
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = world.copy();
    command.env("PATH", path()).arg("--remote-program").arg(&chatty).arg("localhost").arg(&world.top);
    let mut child = command.stdin(Stdio::null()).stderr(writer).spawn().unwrap();
    // The command keeps the writing end open otherwise.
    drop(command);
    // It copies, though nobody has read a word.
    let start = std::time::Instant::now();
    while !real(&world.to(), &world.top).exists() {
        assert!(start.elapsed() < SOON, "the copy waits for its reader");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.try_wait().unwrap().is_none(), "it ended before it was read");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let start = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < SOON, "Ctrl-C does not reach it");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status}");
    drop(reader);
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
}
