//! A command and its quoting for the login shell on the other side.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

/// A program and its arguments, to be run on a host.
///
/// An SSH server does not take a list of words: it gives one string to the user's login shell, which may be anything.
/// [`to_shell`](Self::to_shell) makes that string such that the words arrive unharmed; a transport on this machine takes the
/// [`words`](Self::words) as they are, without any shell.
///
/// ```
/// use ncc_transport::RemoteCommand;
///
/// let plain = RemoteCommand::new("nix-store").args(["--serve", "--write"]);
/// assert_eq!(plain.to_shell(), "nix-store --serve --write");
///
/// let quoted = RemoteCommand::new("echo").args(["two words", "it's", r"back\slash", ""]);
/// assert_eq!(quoted.to_shell(), r"echo 'two words' it\'s back\\slash ''");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RemoteCommand {
    words: Vec<OsString>,
    /// Whether the login shell is to be replaced, not kept as a parent.
    replace_shell: bool,
}

/// Looks for the first of `$1` candidates, which follow it, and becomes it, with the arguments after them.
///
/// No single quote, backslash, exclamation mark or newline may appear here: then one pair of single quotes carries it through
/// sh, bash, zsh, ksh, fish, csh and tcsh alike.
const FIRST_OF: &str = concat!(
    r#"n=$1; shift; found=; tried=; "#,
    r#"while [ "$n" -gt 0 ]; do "#,
    r#"c=$1; shift; n=$((n-1)); "#,
    r#"if [ -n "$found" ]; then continue; fi; "#,
    r#"case $c in "~/"*) c=$HOME/${c#??};; esac; "#,
    r#"case $c in *%u*) c=${c%%"%u"*}${USER:-$(id -un)}${c#*"%u"};; esac; "#,
    r#"tried="$tried${tried:+, }$c"; "#,
    r#"case $c in "#,
    r#"*/*) if [ -f "$c" ] && [ -x "$c" ]; then found=$c; fi;; "#,
    r#"*) found=$(command -v "$c");; "#,
    r#"esac; "#,
    r#"done; "#,
    r#"if [ -n "$found" ]; then exec "$found" "$@"; fi; "#,
    r#"echo "$0: command not found; looked for: $tried" >&2; exit 127"#,
);

impl RemoteCommand {
    /// A command without arguments yet. A name without a slash is looked up on the host's `PATH`.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { words: vec![program.into()], replace_shell: false }
    }

    /// A command that becomes the first of `candidates` that exists on the host, with these arguments, all within the one start
    /// of a command: no round trip is spent on looking.
    ///
    /// A candidate without a slash is looked up on the host's `PATH`. In one with a slash, a leading `~/` stands for the remote
    /// user's home directory and the first `%u` for the remote user's name. If there is none of them, the command says so on
    /// stderr in one line that lists all of them, and ends with status 127.
    ///
    /// It needs a POSIX `sh` on the host, whatever the login shell is.
    ///
    /// ```
    /// # use ncc_transport::RemoteCommand;
    /// let command = RemoteCommand::first_of(
    ///     ["nix-store", "~/.nix-profile/bin/nix-store", "/etc/profiles/per-user/%u/bin/nix-store"],
    ///     ["--serve", "--write"],
    /// );
    /// assert!(command.to_shell().to_string_lossy().starts_with("exec sh -c '"));
    /// ```
    pub fn first_of<C, A>(candidates: C, args: A) -> Self
    where
        C: IntoIterator<Item: Into<OsString>>,
        A: IntoIterator<Item: Into<OsString>>,
    {
        let candidates: Vec<OsString> = candidates.into_iter().map(Into::into).collect();
        // $0 of the script is what its message begins with.
        let name = candidates.first().cloned().unwrap_or_else(|| "sh".into());
        let mut command = Self::new("sh").arg("-c").arg(FIRST_OF).arg(name).arg(candidates.len().to_string());
        command.words.extend(candidates);
        command.replace_shell = true;
        command.args(args)
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.words.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item: Into<OsString>>) -> Self {
        self.words.extend(args.into_iter().map(Into::into));
        self
    }

    /// The program to start; `sh` for [`first_of`](Self::first_of).
    pub fn program(&self) -> &OsStr {
        self.words.first().map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// The program and its arguments, for a transport without a shell in between.
    pub fn words(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.words.iter().map(OsString::as_os_str)
    }

    /// The one string for a login shell.
    ///
    /// Words of plain characters stay bare: servers with a forced command compare the string with what upstream sends, which is
    /// `nix-store --serve --write`. Others go into single quotes, but never a backslash or a single quote, which fish treats
    /// as special there, nor an exclamation mark, which csh does: each of these gets a backslash outside of quotes, which means
    /// the same to sh, bash, zsh, ksh, fish, csh and tcsh. One thing cannot be said to all of them: a newline, which csh and tcsh
    /// refuse within quotes; for all others it arrives.
    pub fn to_shell(&self) -> OsString {
        let mut line = Vec::new();
        if self.replace_shell {
            line.extend_from_slice(b"exec ");
        }
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                line.push(b' ');
            }
            quote(word.as_bytes(), &mut line);
        }
        OsString::from_vec(line)
    }
}

impl fmt::Debug for RemoteCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.words).finish()
    }
}

impl fmt::Display for RemoteCommand {
    /// The command as one would type it into a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_shell().to_string_lossy().fmt(f)
    }
}

fn quote(word: &[u8], line: &mut Vec<u8>) {
    if word.is_empty() {
        line.extend_from_slice(b"''");
        return;
    }
    let escaped = |byte: u8| matches!(byte, b'\\' | b'\'' | b'!');
    // Not '=', which means something to zsh at the start of a word and to all in the first word, nor '%': fish's %self.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+./:,@".contains(byte);
    for run in word.chunk_by(|&left, &right| escaped(left) == escaped(right)) {
        if run.first().copied().is_some_and(escaped) {
            line.extend(run.iter().flat_map(|&byte| [b'\\', byte]));
        } else if run.iter().all(plain) {
            line.extend_from_slice(run);
        } else {
            line.push(b'\'');
            line.extend_from_slice(run);
            line.push(b'\'');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// What `shell` makes of the command, run there: stdout, stderr and status.
    fn run(shell: &str, command: &RemoteCommand) -> (Vec<u8>, String, Option<i32>) {
        let output = Command::new(shell).arg("-c").arg(command.to_shell()).output().expect("the shell runs");
        (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
    }

    /// Shells that are there. sh is in every case, the others where they are installed.
    fn shells() -> Vec<&'static str> {
        ["sh", "dash", "bash", "zsh", "ksh", "mksh", "fish", "tcsh", "csh"]
            .into_iter()
            .filter(|shell| {
                Command::new(shell).args(["-c", "true"]).output().is_ok_and(|output| output.status.success())
            })
            .collect()
    }

    #[rstest]
    #[case::bare("abc", "abc")]
    #[case::path("/nix/var/nix-2.3/a_b:c,d@e+g", "/nix/var/nix-2.3/a_b:c,d@e+g")]
    #[case::empty("", "''")]
    #[case::blank("a b", "'a b'")]
    #[case::single_quote("it's", r"it\'s")]
    #[case::quote_and_blank("a 'b' c", r"'a '\'b\'' c'")]
    #[case::backslash(r"a\b", r"a\\b")]
    #[case::history("hi!", r"hi\!")]
    #[case::assignment("A=b", "'A=b'")]
    #[case::dollar("$HOME", "'$HOME'")]
    #[case::tilde("~/x", "'~/x'")]
    fn quoting(#[case] word: &str, #[case] expected: &str) {
        let mut line = Vec::new();
        quote(word.as_bytes(), &mut line);
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn words_survive_every_shell_that_is_here() {
        let words = [
            "",
            " ",
            "a b",
            "it's",
            "\"",
            "\\",
            "\\\\",
            "\\'",
            "'",
            "''",
            "!",
            "!!",
            "a!b",
            "$HOME",
            "`id`",
            "$(id)",
            "*",
            "?",
            "[a]",
            "{a,b}",
            "~",
            "~root",
            "#",
            "a#b",
            ";",
            "&",
            "|",
            "<",
            ">",
            "(",
            ")",
            "=",
            "=ls",
            "A=b",
            "%self",
            "^",
            "\t",
            "ünïcödé",
            "日本",
            "-n",
            "--",
            "\\n",
            "\u{1b}[31m",
        ];
        let command = RemoteCommand::new("printf").arg("[%s]").args(words);
        let expected = format!("[{}]", words.join("]["));
        let shells = shells();
        assert!(shells.contains(&"sh"));
        for shell in shells {
            let (stdout, stderr, code) = run(shell, &command);
            assert_eq!(
                (String::from_utf8_lossy(&stdout).as_ref(), stderr.as_str(), code),
                (expected.as_str(), "", Some(0)),
                "{shell}"
            );
        }
    }

    #[test]
    fn newlines_survive_all_but_csh() {
        let command = RemoteCommand::new("printf").args(["[%s]", "a\nb\r\n'c'\n"]);
        for shell in shells().into_iter().filter(|shell| !shell.ends_with("csh")) {
            assert_eq!(run(shell, &command).0, b"[a\nb\r\n'c'\n]", "{shell}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_survive_sh(words in proptest::collection::vec(proptest::collection::vec(1u8..=255, 0..20), 1..8)) {
            let command = RemoteCommand::new("printf").arg("%s\\0").args(words.iter().map(|word| OsString::from_vec(word.clone())));
            let expected: Vec<u8> = words.iter().flat_map(|word| word.iter().copied().chain([0])).collect();
            prop_assert_eq!(run("sh", &command).0, expected);
        }
    }

    #[test]
    fn the_script_needs_one_pair_of_quotes_only() {
        assert!(!FIRST_OF.contains(['\'', '\\', '!', '\n']), "{FIRST_OF}");
    }

    /// Makes a program. A process of its own writes it: had this one the file open, a child that another test forks at the same
    /// time would inherit it for a moment, and the program would be "busy".
    fn executable(path: &std::path::Path, text: &str) {
        let script = "mkdir -p \"${1%/*}\" && printf %s \"$2\" >\"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh").args(["-c", script, "sh"]).arg(path).arg(text).status().unwrap();
        assert!(status.success());
    }

    /// Who runs the tests: fish sets USER itself.
    fn user() -> String {
        let output = Command::new("id").arg("-un").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs through a login shell, or directly where `shell` is empty, with a PATH and a home of its own.
    fn run_in(home: &std::path::Path, shell: &str, command: &RemoteCommand) -> (String, String, Option<i32>) {
        let mut process = if shell.is_empty() {
            let mut process = Command::new(command.program());
            process.args(command.words().skip(1));
            process
        } else {
            let mut process = Command::new(shell);
            process.arg("-c").arg(command.to_shell());
            process
        };
        let path = format!("{}:{}", home.join("bin on path").display(), std::env::var("PATH").unwrap());
        let output = process.env("HOME", home).env("USER", user()).env("PATH", path).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    }

    const SAY: &str = "#!/bin/sh\necho \"$0\"\nfor a; do echo \"[$a]\"; done\nexit 5\n";

    #[test]
    fn first_of_takes_the_first_that_exists() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        executable(&home.join("bin on path/ncc-on-path"), SAY);
        executable(&home.join(".nix-profile/bin/ncc-in-home"), SAY);
        executable(&home.join(format!("per-user/{}/bin/ncc-mine", user())), SAY);
        std::fs::write(home.join("not-executable"), SAY).unwrap();
        let here = |name: &str| home.join(name).to_str().unwrap().to_owned();
        let cases: [(Vec<String>, String); 5] = [
            (vec!["ncc-on-path".into()], here("bin on path/ncc-on-path")),
            (
                vec!["ncc-missing".into(), "/nowhere/ncc".into(), "ncc-on-path".into()],
                here("bin on path/ncc-on-path"),
            ),
            (
                vec!["ncc-missing".into(), "~/.nix-profile/bin/ncc-in-home".into(), "ncc-on-path".into()],
                here(".nix-profile/bin/ncc-in-home"),
            ),
            (vec![here("per-user/%u/bin/ncc-mine")], here(&format!("per-user/{}/bin/ncc-mine", user()))),
            // Neither a directory nor a file that is no program will do.
            (
                vec![here("bin on path"), here("not-executable"), "ncc-on-path".into()],
                here("bin on path/ncc-on-path"),
            ),
        ];
        for shell in shells().into_iter().chain([""]) {
            for (candidates, found) in &cases {
                let command =
                    RemoteCommand::first_of(candidates, ["--serve", "a b", "it's", "", "%u", "~/x"]);
                let (stdout, stderr, code) = run_in(home, shell, &command);
                assert_eq!(stderr, "", "{shell} {candidates:?}");
                assert_eq!(
                    stdout,
                    format!("{found}\n[--serve]\n[a b]\n[it's]\n[]\n[%u]\n[~/x]\n"),
                    "{shell} {candidates:?}"
                );
                assert_eq!(code, Some(5));
            }
        }
    }

    #[test]
    fn first_of_lists_what_it_tried() {
        let home = tempfile::tempdir().unwrap();
        for shell in shells().into_iter().chain([""]) {
            let command = RemoteCommand::first_of(
                ["ncc-missing", "~/bin/ncc-missing", "/per/%u/ncc-missing"],
                ["--serve"],
            );
            let (stdout, stderr, code) = run_in(home.path(), shell, &command);
            let expected = format!(
                "ncc-missing: command not found; looked for: ncc-missing, {}/bin/ncc-missing, /per/{}/ncc-missing\n",
                home.path().display(),
                user()
            );
            assert_eq!((stdout.as_str(), stderr, code), ("", expected, Some(127)), "{shell}");
        }
    }

    #[test]
    fn first_of_replaces_the_login_shell() {
        let command = RemoteCommand::first_of(["sh"], ["-c", "echo $$"]);
        for shell in ["sh", "bash"] {
            let mut child = Command::new(shell);
            let Ok(child) =
                child.arg("-c").arg(command.to_shell()).stdout(std::process::Stdio::piped()).spawn()
            else {
                continue;
            };
            let id = child.id();
            let output = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{id}\n"));
        }
    }
}
