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

impl RemoteCommand {
    /// A command without arguments yet. A name without a slash is looked up on the host's `PATH`.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { words: vec![program.into()], replace_shell: false }
    }

    /// The same, but the login shell becomes it rather than waiting for it.
    pub(crate) fn in_place_of_the_shell(program: &str) -> Self {
        Self { words: vec![program.into()], replace_shell: true }
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

    /// The program to start; `sh` for a [script](crate::RemoteScript).
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

/// A word as one would type it into a shell.
pub(crate) fn quoted_for_shell(word: &str) -> String {
    let mut line = Vec::new();
    quote(word.as_bytes(), &mut line);
    String::from_utf8_lossy(&line).into_owned()
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
    use crate::test_util::login_shells;

    /// What `shell` makes of the command, run there: stdout, stderr and status.
    fn run(shell: &str, command: &RemoteCommand) -> (Vec<u8>, String, Option<i32>) {
        let mut words = shell.split(' ');
        let output = Command::new(words.next().unwrap())
            .args(words)
            .arg("-c")
            .arg(command.to_shell())
            .output()
            .expect("the shell runs");
        (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
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
        for shell in login_shells() {
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
        for shell in login_shells().into_iter().filter(|shell| !shell.ends_with("csh")) {
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
}
