use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use proptest::prelude::*;
use rstest::rstest;
use tempfile::TempDir;

use super::*;
use crate::test_util::{login_shells, posix_shells};

/// Makes a program. A process of its own writes it: had this one the file open, a child that another test forks at the same
/// time would inherit it for a moment, and the program would be "busy".
fn executable(path: &Path, text: &str) {
    let script = "mkdir -p \"${1%/*}\" && printf %s \"$2\" >\"$1\" && chmod 755 \"$1\"";
    let status = Command::new("sh").args(["-c", script, "sh"]).arg(path).arg(text).status().unwrap();
    assert!(status.success());
}

/// Who runs the tests: fish sets USER itself.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A home and a `PATH` with programs.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    fn with(self, name: &str, text: &str) -> Self {
        executable(&self.at(name), text);
        self
    }

    fn path(&self) -> String {
        format!("{}:{}:{}", self.text("bin on path"), self.text("second bin"), std::env::var("PATH").unwrap())
    }

    /// Runs through a login shell, or directly where `shell` is empty: stdout, stderr and status.
    fn run(&self, shell: &str, script: &RemoteScript, input: &str) -> (String, String, Option<i32>) {
        let command = script.command();
        let mut process = if shell.is_empty() {
            let mut process = Command::new(command.program());
            process.args(command.words().skip(1));
            process
        } else {
            let mut words = shell.split(' ');
            let mut process = Command::new(words.next().unwrap());
            process.args(words).arg("-c").arg(command.to_shell());
            process
        };
        self.finish(&mut process, input)
    }

    fn finish(&self, process: &mut Command, input: &str) -> (String, String, Option<i32>) {
        process.env("HOME", self.0.path()).env("USER", user()).env("PATH", self.path());
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        // A script that ends without reading is fine.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let stderr = text(&output.stderr);
        let stderr = stderr.strip_prefix("ncc-started\n").expect("the script has started").to_owned();
        (text(&output.stdout), stderr, output.status.code())
    }
}

/// All login shells, and none.
fn ways() -> Vec<&'static str> {
    login_shells().into_iter().chain([""]).collect()
}

const SAY: &str = "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'say  1.0'\necho \"$0\"\nfor a; do echo \"[$a]\"; done\nexit 5\n";

fn look(places: &[&str]) -> RemoteScript {
    RemoteScript::new().find(Program::new("say").places(places))
}

#[test]
fn the_first_place_that_has_a_program_wins() {
    let host = Host::new()
        .with("bin on path/ncc-on-path", SAY)
        .with(".nix-profile/bin/ncc-in-home", SAY)
        .with(&format!("per-user/{}/bin/ncc-mine", user()), SAY);
    std::fs::write(host.at("not-executable"), SAY).unwrap();
    let (per_user, directory, no_program) =
        (host.text("per-user/%u/bin/ncc-mine"), host.text("bin on path"), host.text("not-executable"));
    let cases: [(&[&str], String); 5] = [
        (&["ncc-on-path"], host.text("bin on path/ncc-on-path")),
        (&["ncc-missing", "/nowhere/ncc", "ncc-on-path"], host.text("bin on path/ncc-on-path")),
        (
            &["ncc-missing", "~/.nix-profile/bin/ncc-in-home", "ncc-on-path"],
            host.text(".nix-profile/bin/ncc-in-home"),
        ),
        (&[&per_user], host.text(&format!("per-user/{}/bin/ncc-mine", user()))),
        // Neither a directory nor a file that is no program will do.
        (&[&directory, &no_program, "ncc-on-path"], host.text("bin on path/ncc-on-path")),
    ];
    for shell in ways() {
        for (places, found) in &cases {
            let script = look(places).run("say", ["--serve", "a b", "it's", "", "%u", "~/x", "*"]);
            assert_eq!(
                host.run(shell, &script, ""),
                (
                    format!("{found}\n[--serve]\n[a b]\n[it's]\n[]\n[%u]\n[~/x]\n[*]\n"),
                    String::new(),
                    Some(5)
                ),
                "{shell} {places:?}"
            );
        }
    }
}

#[test]
fn what_was_tried_is_listed() {
    let host = Host::new();
    let script = look(&["ncc-missing", "~/bin/ncc-missing", "/per/%u/ncc-missing"]).run("say", [""; 0]);
    for shell in ways() {
        let expected = format!(
            "say: command not found; looked for: ncc-missing, {}, /per/{}/ncc-missing\n",
            host.text("bin/ncc-missing"),
            user()
        );
        assert_eq!(host.run(shell, &script, ""), (String::new(), expected, Some(127)), "{shell}");
    }
}

const LOADER: &str = "say: error while loading shared libraries: libx.so.1: cannot open shared object file";

/// <https://github.com/NixOS/nix/issues/8608>
#[test]
fn nix_8608_a_program_that_cannot_run_hides_no_good_one() {
    let broken = format!("#!/bin/sh\necho '{LOADER}' >&2\nexit 127\n");
    let host = Host::new()
        .with("bin on path/ncc-twice", &broken)
        .with("second bin/ncc-twice", SAY)
        .with("bin on path/ncc-broken", &broken)
        .with("usual place/ncc-broken", SAY)
        .with("foreign/ncc-broken", "\u{7f}ELF")
        .with("knows no version/say", "#!/bin/sh\n[ \"$1\" = --version ] && exit 1\necho fine\n");
    let (usual, foreign) = (host.text("usual place/ncc-broken"), host.text("foreign/ncc-broken"));
    let must_run = |places: &[&str]| RemoteScript::new().find(Program::new("say").places(places).must_run());
    for shell in posix_shells() {
        let run = |script: &RemoteScript| {
            let mut words = shell.split(' ');
            let mut process = Command::new(words.next().unwrap());
            process.args(words).args(script.command().words().skip(1));
            host.finish(&mut process, "")
        };
        let found = |place: &str| (format!("{place}\n[x]\n"), String::new(), Some(5));
        assert_eq!(
            run(&must_run(&["ncc-twice"]).run("say", ["x"])),
            found(&host.text("second bin/ncc-twice")),
            "{shell}"
        );
        assert_eq!(
            run(&must_run(&["ncc-broken", &foreign, &usual]).run("say", ["x"])),
            found(&usual),
            "{shell}"
        );
        let plain = must_run(&[&host.text("knows no version/say")]).run("say", [""; 0]);
        assert_eq!(run(&plain), ("fine\n".to_owned(), String::new(), Some(0)), "{shell}");

        let (stdout, stderr, code) = run(&must_run(&["ncc-broken", &foreign]).run("say", ["x"]));
        let first = host.text("bin on path/ncc-broken");
        assert_eq!((stdout.as_str(), code), ("", Some(126)), "{shell}");
        let expected = format!(
            "say: cannot be run: {first} ends with status 127: {LOADER}; {foreign} ends with status 12"
        );
        assert!(stderr.starts_with(&expected) && stderr.lines().count() == 1, "{shell}: {stderr}");
    }
}

#[test]
fn what_was_found_is_reported_and_leaves_stdin_alone() {
    let host = Host::new().with("bin on path/ncc-say", SAY);
    let script = RemoteScript::new()
        .find(Program::new("say").places(["ncc-say"]).must_run())
        .find(Program::new("cat"))
        .find(Program::new("none").places(["ncc-none"]))
        .measure(Fact::Processors)
        .measure(Fact::System)
        .measure(Fact::FreeSpace("/".into()))
        .report()
        .run("cat", [""; 0]);
    for shell in ways() {
        let (stdout, stderr, code) = host.run(shell, &script, "the protocol\nand more");
        assert_eq!((stderr.as_str(), code), ("", Some(0)), "{shell}");
        let (report, rest) = stdout.split_once('\n').unwrap();
        assert_eq!(rest, "the protocol\nand more", "{shell}");
        // A login shell may print without a newline at the end.
        let noise = format!("Welcome to {shell}: ncc-found\t.\n> {report}\nnoise");
        let findings = Findings::parse(noise.as_bytes()).unwrap();
        assert_eq!(findings.program("say"), Some(host.text("bin on path/ncc-say").as_str()), "{shell}");
        assert_eq!(findings.version("say"), Some("say 1.0"), "{shell}");
        assert_eq!((findings.program("none"), findings.version("cat")), (None, None), "{shell}");
        assert!(findings.processors().is_some() && findings.free_bytes().is_some(), "{shell} {findings:?}");
        assert!(findings.system().is_some_and(|system| system.contains(' ')), "{shell} {findings:?}");
    }
}

/// Talks to whoever greets, as a client does that believes in the first choice, and then to another.
fn choosing(host: &Host) -> RemoteScript {
    let at = |name: &str| host.text(name);
    let complaints = ["*does not know*", "*no longer*"];
    RemoteScript::new()
        .find(Program::new("first").places([at("first")]).must_know(
            "--serve",
            ["* 1.[0-9]", "ours *"],
            complaints,
        ))
        .run("first", ["--serve"])
        .or_run(Program::new("second").places([at("second")]).must_run(), ["-"], Conversation::BeginsAnew)
        .or_run(Program::new("third").places([at("third")]), ["-"], Conversation::Continues)
}

/// Programs that are there: name, version, and what `--serve` says.
type There<'a> = &'a [(&'a str, &'a str, &'a str)];

#[test]
fn the_first_program_that_knows_what_it_is_needed_for_wins() {
    let speaks = |version: &str, words: &str| {
        format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && exec echo '{version}'\n\
             [ \"$1\" = --serve ] && {{ echo '{words}' >&2; cat; exit; }}\ncat\n"
        )
    };
    let sent_ahead = b"\x0a\x00\xff greeting\nquestion \\ $(x) * \x00(";
    let input = [&sent_ahead[..], b"\n", RESUME.as_bytes(), b"\nanew\x00\n"].concat();
    // What there is, and of it what is become; with what is said to be wrong with the first choice.
    let cases: [(There<'_>, Option<&str>, &str); 8] = [
        (&[("first", "nix 1.2", "does not know")], None, ""),
        (&[("first", "ours 0.1", "no longer")], None, ""),
        (&[("first", "nix 2.0", "unexpected end"), ("second", "", "")], None, ""),
        (
            &[("first", "nix 2.0", "it does not know --serve"), ("second", "", "")],
            Some("second"),
            "first does not know --serve",
        ),
        (
            &[("first", "nix 2.0", "is no longer supported"), ("second", "", "")],
            Some("second"),
            "first does not know --serve",
        ),
        (&[("second", "", ""), ("third", "", "")], Some("second"), "first: command not found; looked for: "),
        (&[("third", "", "")], Some("third"), "; no second"),
        (
            &[("first", "nix 2.0", "no longer"), ("third", "", "")],
            Some("third"),
            "first does not know --serve; no second",
        ),
    ];
    for (programs, became, why) in cases {
        let mut host = Host::new();
        for (name, version, words) in programs {
            host = host.with(name, &speaks(version, words));
        }
        let command = choosing(&host).command();
        for shell in posix_shells() {
            let mut words = shell.split(' ');
            let mut process = Command::new(words.next().unwrap());
            process.args(words).args(command.words().skip(1)).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = process.stderr(Stdio::null()).env("PATH", host.path()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(&input).unwrap();
            let stdout = child.wait_with_output().unwrap().stdout;
            let (found, rest) = match Findings::find(&stdout) {
                Some((findings, end)) => (findings, &stdout[end..]),
                None => (Findings::default(), &stdout[..]),
            };
            let heard = if became == Some("second") { b"anew\x00\n" } else { &input[..] };
            assert_eq!(rest, heard, "{shell} {programs:?}");
            assert_eq!(found.became().map(|(name, _)| name), became, "{shell} {programs:?}");
            let said = found.became().map_or("", |(_, why)| why);
            assert!(said.contains(why), "{shell} {programs:?}: {said}");
        }
    }
}

#[test]
fn what_is_wrong_with_every_choice_is_said() {
    let loader = format!("#!/bin/sh\necho '{LOADER}' >&2\nexit 127\n");
    let ignorant = "#!/bin/sh\necho does not know\nexit 1\n";
    let nothing = Host::new();
    let (_, stderr, code) = nothing.run("", &choosing(&nothing), "");
    let first = nothing.text("first");
    let expected = format!("first: command not found; looked for: {first}; no second; no third\n");
    assert_eq!((stderr, code), (expected, Some(127)));
    let broken = Host::new().with("first", ignorant).with("second", &loader);
    let (_, stderr, code) = broken.run("", &choosing(&broken), "");
    let (first, second) = (broken.text("first"), broken.text("second"));
    let expected = format!(
        "first: cannot be run: {first} does not know --serve; second: cannot be run: {second} ends with status 127: {LOADER}; \
         no third\n"
    );
    assert_eq!((stderr, code), (expected, Some(126)));
    // Whoever never says the word gives up in the middle.
    let host = Host::new().with("second", SAY);
    let (stdout, _, code) = host.run("", &choosing(&host), "a greeting\n");
    assert!(stdout.contains("became=second") && !stdout.contains("[-]"), "{stdout}");
    assert_eq!(code, Some(1));
}

#[test]
fn the_first_filter_that_is_there_is_used() {
    let host = Host::new();
    let with = |stream, filters: &[&str]| {
        let mut script = look(&["sed"]).find(Program::new("tr")).find(Program::new("ncc-none"));
        for name in filters {
            script = script.filter(stream, *name, ["a-c", "A-C"]);
        }
        script.run("sed", ["s/a/ab|/"])
    };
    let input = "abcd\nx\n";
    for shell in ways() {
        for (stream, filters, expected) in [
            (FilteredStream::Stdin, &["ncc-none", "tr"][..], "ABCd\nx\n"),
            (FilteredStream::Stdout, &["tr", "ncc-none"], "AB|BCd\nx\n"),
            (FilteredStream::Stdin, &["ncc-none"], "ab|bcd\nx\n"),
            (FilteredStream::Stdout, &["ncc-none"], "ab|bcd\nx\n"),
        ] {
            let (stdout, stderr, status) = host.run(shell, &with(stream, filters), input);
            assert_eq!(
                (stdout.as_str(), stderr.as_str(), status),
                (expected, "", Some(0)),
                "{shell} {filters:?}"
            );
        }
    }
}

#[test]
fn the_status_is_the_programs_whatever_became_of_the_filter() {
    let host = Host::new().with("bin on path/ncc-dies", "#!/bin/sh\nkill -9 $$\n");
    for shell in ways() {
        for (stream, filter) in [
            (FilteredStream::Stdin, "cat"),
            (FilteredStream::Stdin, "ncc-dies"),
            (FilteredStream::Stdout, "cat"),
            (FilteredStream::Stdout, "ncc-dies"),
        ] {
            let script = look(&[]).find(Program::new(filter)).filter(stream, filter, [""; 0]);
            let script = script.run("sh", ["-c", "cat >/dev/null; exit 7"]);
            assert_eq!(host.run(shell, &script, "").2, Some(7), "{shell} {stream:?} {filter}");
        }
    }
}

#[test]
fn sudo_and_xargs_are_given_the_file_that_was_found() {
    let host = Host::new()
        .with("bin on path/sudo", "#!/bin/sh\necho sudo \"$@\"\n")
        .with("bin on path/ncc-say", SAY);
    let script = look(&["ncc-say"]).run("say", ["--realise", "a b"]).account(Account::Sudo);
    let say = host.text("bin on path/ncc-say");
    for shell in ways() {
        let (stdout, stderr, _) = host.run(shell, &script, "");
        assert_eq!((stdout, stderr), (format!("sudo -n {say} --realise a b\n"), String::new()), "{shell}");
        let many = script.clone().input(Input::Arguments);
        let (stdout, stderr, _) = host.run(shell, &many, "one\ntwo\n");
        assert_eq!(
            (stdout, stderr),
            (format!("sudo -n {say} --realise a b one two\n"), String::new()),
            "{shell}"
        );
    }
}

#[test]
fn the_login_shell_is_replaced() {
    let host = Host::new();
    let script = RemoteScript::new().find(Program::new("sh")).run("sh", ["-c", "echo $$"]);
    for shell in ["sh", "bash"] {
        let mut process = Command::new(shell);
        let child = process
            .arg("-c")
            .arg(script.command().to_shell())
            .env("HOME", host.0.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let id = child.id();
        assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), format!("{id}\n"));
    }
}

#[test]
fn one_pair_of_quotes_carries_it() {
    let script = RemoteScript::new()
        .find(Program::new("it's!\\").places(["\n", "'"]).must_run())
        .measure(Fact::Processors)
        .measure(Fact::System)
        .measure(Fact::FreeSpace("'".into()))
        .report()
        .filter(FilteredStream::Stdin, "!", ["\\"])
        .filter(FilteredStream::Stdout, "!", ["\\"])
        .striped(FilteredStream::Stdout)
        .run("it's!\\", ["\n"])
        .or_run(Program::new("!").must_know("'", ["\\"], ["!"]), ["\n"], Conversation::BeginsAnew)
        .account(Account::Sudo)
        .input(Input::Arguments);
    let command = script.command();
    let text = command.words().nth(2).unwrap().to_str().unwrap();
    assert!(!text.contains(['\'', '\\', '!', '\n']), "{text}");
}

#[rstest]
#[case::none(b"Welcome!\n", None)]
#[case::empty(b"ncc-found\t.\n", None)]
#[case::cut(b"ncc-found\ta=b", None)]
#[case::no_end(b"ncc-found\ta=b\n", None)]
#[case::last_one(b"ncc-found\ta=1\t.\nncc-found\ta=2\t.\n", Some("2"))]
#[case::carriage_return(b"ncc-found\ta=b\t.\r\n", Some("b"))]
#[case::escape(b"ncc-found\ta=\x1b[2J/bin/a\t.\n", Some("/bin/a"))]
#[case::not_utf8(b"ncc-found\ta=\xff\t.\n", Some("\u{fffd}"))]
#[case::first_value(b"ncc-found\ta=1\ta=2\t.\n", Some("1"))]
fn reports(#[case] noise: &[u8], #[case] expected: Option<&str>) {
    assert_eq!(Findings::parse(noise).unwrap_or_default().program("a"), expected);
}

#[rstest]
#[case::nothing(b"", None)]
#[case::noise(b"Welcome\nncc-found\ta=b\t.\n\x28\xb5", Some(24))]
#[case::without_a_newline_before(b"bye ncc-found\ta=b\t.\r\n\n", Some(21))]
#[case::the_script_itself(b"printf %s \"ncc-found\ta=$p0\t.\"; echo\n", None)]
#[case::cut(b"ncc-found\ta=b\t.", None)]
fn the_end_of_a_report(#[case] noise: &[u8], #[case] expected: Option<usize>) {
    assert_eq!(Findings::end_in(noise), expected);
}

#[test]
fn a_report_without_an_end_is_none() {
    let noise = [b"ncc-found\ta=".as_slice(), &vec![b'x'; LONGEST_LINE], b"\t.\n"].concat();
    assert_eq!(Findings::parse(&noise), None);
    assert_eq!(
        Findings::parse(b"ncc-found\tcpus=0\tfree-kib=18446744073709551615\t.\n").unwrap().processors(),
        None
    );
    assert_eq!(Findings::parse(b"ncc-found\tfree-kib=18446744073709551615\t.\n").unwrap().free_bytes(), None);
}

proptest! {
    #[test]
    fn any_noise_is_read(noise: Vec<u8>, inside in "[\t=.a\u{1b}\n-]{0,40}") {
        let _ = Findings::parse(&noise);
        let _ = Findings::parse(&[noise.as_slice(), b"ncc-found\t", inside.as_bytes(), b"\n"].concat());
    }
}

/// A process with these words of a script's command, in `shell` for its `sh`; or through a login shell.
fn start(host: &Host, shell: &str, is_login: bool, command: &RemoteCommand) -> std::process::Child {
    let mut words = shell.split(' ');
    let mut process = Command::new(words.next().unwrap());
    process.args(words);
    if is_login {
        process.arg("-c").arg(command.to_shell());
    } else {
        process.args(command.words().skip(1));
    }
    process.env("HOME", host.0.path()).env("PATH", host.path()).env("TMPDIR", host.at("temporary"));
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The report of a script, read byte by byte.
fn report(child: &mut std::process::Child) -> Findings {
    let (mut came, mut byte) = (Vec::new(), [0]);
    while Findings::end_in(&came).is_none() {
        assert_eq!(child.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 1);
        came.push(byte[0]);
    }
    Findings::parse(&came).unwrap()
}

/// What comes of `content` that goes over `numbers`: as the program had it and as it came back, how many whole blocks were
/// reported, and the status.
fn through_stripes(
    host: &Host,
    (shell, is_login): (&str, bool),
    (stream, filter): (FilteredStream, bool),
    numbers: &[usize],
    content: &[u8],
) -> (Vec<u8>, Option<u64>, Option<i32>) {
    let mut script = RemoteScript::new().striped(stream).report().find(Program::new("tr"));
    if filter {
        script = script.filter(stream, "tr", ["b-za", "a-z"]);
    }
    let script = script.run("sh", ["-c", "cat; exit 7"]);
    let mut server = start(host, shell, is_login, &script.command());
    let place = report(&mut server).stripes().expect("there is room").to_owned();
    let mut stripes: Vec<_> = numbers
        .iter()
        .map(|&number| start(host, shell, is_login, &Stripes::command(stream, &place, number)))
        .collect();
    for stripe in &mut stripes {
        report(stripe);
    }
    let mut stdin = server.stdin.take().unwrap();
    stdin.write_all(&Stripes::chosen(numbers)).unwrap();
    let mut said = Vec::new();
    let came = std::thread::scope(|scope| {
        let feed: Vec<Vec<u8>> = if stream == FilteredStream::Stdin {
            let mut feeds = vec![Vec::new(); stripes.len()];
            for (at, block) in content.chunks(Stripes::BLOCK).chain([&[][..]]).enumerate() {
                let feed = &mut feeds[at % stripes.len()];
                feed.extend(Stripes::in_front(block.len()));
                feed.extend(block);
                feed.extend(Stripes::BEHIND);
            }
            feeds
        } else {
            scope.spawn(move || stdin.write_all(content));
            vec![Vec::new(); stripes.len()]
        };
        let reading: Vec<_> = stripes
            .iter_mut()
            .zip(feed)
            .map(|(stripe, feed)| {
                let (mut stdin, stdout) = (stripe.stdin.take().unwrap(), stripe.stdout.as_mut().unwrap());
                scope.spawn(move || stdin.write_all(&feed));
                scope.spawn(move || {
                    let mut came = Vec::new();
                    stdout.read_to_end(&mut came).map(|_| came).unwrap()
                })
            })
            .collect();
        server.stdout.as_mut().unwrap().read_to_end(&mut said).unwrap();
        let came: Vec<Vec<u8>> = reading.into_iter().map(|came| came.join().unwrap()).collect();
        let mut blocks: Vec<_> = came.iter().map(|came| came.chunks(Stripes::BLOCK)).collect();
        let count = blocks.len();
        (0..).map_while(|at| blocks[at % count].next()).collect::<Vec<_>>().concat()
    });
    for stripe in &mut stripes {
        stripe.wait().unwrap();
    }
    let status = server.wait().unwrap().code();
    assert!(!Path::new(&place).exists(), "{shell}");
    match stream {
        FilteredStream::Stdin => (said, None, status),
        FilteredStream::Stdout => (came, Stripes::whole_blocks(&said), status),
    }
}

fn letters(size: usize) -> Vec<u8> {
    (0..size).map(|at| b'a' + u8::try_from((at / 5 + at / Stripes::BLOCK) % 26).unwrap()).collect()
}

/// In any shell, as login shell and as `sh`, with any number of stripes, in any of their places.
#[test]
fn what_goes_over_stripes_comes_out_whole() {
    let host = Host::new();
    std::fs::create_dir(host.at("temporary")).unwrap();
    let logins = login_shells().into_iter().map(|shell| (shell, true));
    let shells: Vec<_> = logins.chain(posix_shells().into_iter().map(|shell| (shell, false))).collect();
    let content = letters(5 * Stripes::BLOCK + 77);
    for (at, &shell) in shells.iter().enumerate() {
        for stream in [FilteredStream::Stdin, FilteredStream::Stdout] {
            let (numbers, filter) = [(&[1, 2, 3, 4, 5, 6, 7][..], false), (&[3, 7], true)][at % 2];
            let (came, whole, status) = through_stripes(&host, shell, (stream, filter), numbers, &content);
            let shift = |byte: &u8| if *byte == b'a' { b'z' } else { byte - 1 };
            let expected = if filter { content.iter().map(shift).collect() } else { content.clone() };
            assert!(came == expected, "{shell:?} {stream:?}: {} bytes", came.len());
            assert_eq!(status, Some(7), "{shell:?} {stream:?}");
            assert_eq!(whole, (stream == FilteredStream::Stdout).then_some(5), "{shell:?}");
        }
    }
}

#[test]
fn the_end_may_be_anywhere() {
    let host = Host::new();
    std::fs::create_dir(host.at("temporary")).unwrap();
    for size in [0, 1, Stripes::BLOCK, 2 * Stripes::BLOCK, 2 * Stripes::BLOCK + 1] {
        let content = letters(size);
        for stream in [FilteredStream::Stdin, FilteredStream::Stdout] {
            let (came, whole, status) =
                through_stripes(&host, ("sh", false), (stream, false), &[1, 2], &content);
            assert!(came == content, "{size} {stream:?}: {} bytes", came.len());
            assert_eq!(status, Some(7), "{size} {stream:?}");
            assert!(whole.is_none_or(|whole| whole == (size / Stripes::BLOCK) as u64), "{whole:?}");
        }
    }
}

/// The script goes on as if nobody had thought of them; and where it is never told, it ends and leaves nothing.
#[test]
fn without_stripes_it_goes_on_without() {
    let host = Host::new();
    std::fs::create_dir(host.at("temporary")).unwrap();
    for shell in ways() {
        for stream in [FilteredStream::Stdin, FilteredStream::Stdout] {
            let script = RemoteScript::new().striped(stream).report().run("sh", ["-c", "cat; exit 7"]);
            let mut process = Command::new("env");
            process.arg(format!("TMPDIR={}", host.text("temporary")));
            if shell.is_empty() {
                process.args(script.command().words());
            } else {
                process.args(shell.split(' ')).arg("-c").arg(script.command().to_shell());
            }
            let (stdout, _, status) = host.finish(&mut process, "\nwhat follows\n");
            assert_eq!(&stdout[Findings::end_in(stdout.as_bytes()).unwrap()..], "what follows\n", "{shell}");
            assert_eq!(status, Some(7), "{shell}");
            assert_eq!(host.finish(&mut process, "").2, Some(1), "{shell}");
            assert_eq!(std::fs::read_dir(host.at("temporary")).unwrap().count(), 0, "{shell}");
        }
    }
}

#[rstest]
#[case(b"ncc-end 12\n", Some(12))]
#[case(b"noise\nncc-end 0\n", Some(0))]
#[case(b"ncc-end 12", None)]
#[case(b"ncc-end\n", None)]
#[case(b"ncc-end 99999999999999999999\n", None)]
#[case(b"ncc-end 1\nnoise\n", None)]
#[case(b"", None)]
fn how_many_blocks_were_whole(#[case] said: &[u8], #[case] expected: Option<u64>) {
    assert_eq!(Stripes::whole_blocks(said), expected);
}
