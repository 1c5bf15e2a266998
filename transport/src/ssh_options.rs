//! What every SSH transport is told in the same words: NIX_SSHOPTS, compression, keep-alive.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    time::Duration,
};

/// Compression of the SSH connection (zlib).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// What the user's configuration says; usually none.
    #[default]
    AsConfigured,
    /// On (`-C`), whatever the configuration says.
    On,
}

/// How often the server is asked for a sign of life when it is silent, and how often in vain before the connection is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepAlive {
    /// ServerAliveInterval, rounded up to seconds.
    pub interval: Duration,
    /// ServerAliveCountMax.
    pub count: u32,
}

impl KeepAlive {
    /// After `count` intervals without an answer the connection is dead.
    pub fn new(interval: Duration, count: u32) -> Self {
        Self { interval, count }
    }
}

impl Default for KeepAlive {
    /// 3 times 30 seconds.
    fn default() -> Self {
        Self::new(Duration::from_secs(30), 3)
    }
}

/// NIX_SSHOPTS cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SshOptionsError {
    /// A quote is not closed, or a backslash stands at the end.
    #[error("unbalanced quotes in NIX_SSHOPTS: {}", .value.escape_debug())]
    UnbalancedQuotes {
        /// The variable's value.
        value: String,
    },
    /// A word that is neither an option nor an option's value. ssh would take it for the host.
    #[error("'{}' in NIX_SSHOPTS is not an option of ssh", .word.escape_debug())]
    NotAnOption {
        /// The word.
        word: String,
    },
    /// An option with which ssh does something else than run a command.
    #[error("'-{option}' in NIX_SSHOPTS makes no sense here: {does}")]
    MakesNoSense {
        /// The option's letter.
        option: char,
        /// What ssh does with it.
        does: &'static str,
    },
    /// The last option lacks its value. It would swallow the next word on ssh's command line.
    #[error("'-{option}' at the end of NIX_SSHOPTS lacks its value")]
    MissingValue {
        /// The option's letter.
        option: char,
    },
}

/// Splits the value of NIX_SSHOPTS into words, and makes sure that they are options.
///
/// As Nix 2.26 and later do it: single and double quotes, and backslashes (within double quotes only before `$`, `` ` ``, `"` and
/// `\`). Nothing is expanded. Unlike there, a newline separates words too, as it did in older releases.
///
/// Options for a session that is no byte stream are left out, as their namesakes in a configuration file are overruled: `-n` (no
/// stdin), `-N` (no command), `-f` (in the background), `-t` and `-T` (a terminal or none, which is decided here). Those with which ssh
/// would not run a command at all are refused by name: `-s`, `-W`, `-O`, `-Q`, `-G`, `-V`.
///
/// A word that is not an option is refused. Up to Nix 2.14 it became the beginning of the remote command, so that people wrote
/// `NIX_SSHOPTS='PATH=...'` to make nix-store found; here the host comes last, and the word would be taken for the host.
///
/// ```
/// # use ncc_transport::parse_ssh_options;
/// assert_eq!(parse_ssh_options(r#"-p 2222 -o "ProxyCommand=nc %h %p""#)?, ["-p", "2222", "-o", "ProxyCommand=nc %h %p"]);
/// # Ok::<(), ncc_transport::SshOptionsError>(())
/// ```
pub fn parse_ssh_options(value: &str) -> Result<Vec<OsString>, SshOptionsError> {
    let words = split(value).ok_or_else(|| SshOptionsError::UnbalancedQuotes { value: value.to_owned() })?;
    check_options(&words)?;
    Ok(for_a_byte_stream(words))
}

/// The words, or `None` for unbalanced quotes. The crate shell-words would do, but for the comments that it knows and Nix does
/// not: `-o ProxyCommand=x #1`.
fn split(value: &str) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = value.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' => words.extend(word.take()),
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next()? {
                        b'\'' => break,
                        other => word.push(other),
                    }
                }
            }
            b'"' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next()? {
                        b'"' => break,
                        b'\\' => match bytes.next()? {
                            special @ (b'$' | b'`' | b'"' | b'\\') => word.push(special),
                            other => word.extend([b'\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            b'\\' => word.get_or_insert_default().push(bytes.next()?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words.into_iter().map(OsString::from_vec).collect())
}

/// ssh's options that take a value; OpenSSH 9.2 and 10.
const WITH_VALUE: &[u8] = b"BDEFIJLOPQRSWbceilmopw";

/// ssh's options without a value.
const WITHOUT_VALUE: &[u8] = b"1246AaCfGgKkMNnqsTtVvXxYy";

/// An option as ssh sees it: `-Cp 22` is `C`, and `p` with the value `22`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SshOption<'a> {
    /// The letter after the dash.
    pub letter: u8,
    /// What follows, in the same word or the next; `None` for an option without a value.
    pub value: Option<&'a [u8]>,
}

/// What ssh's getopt would make of the words: the options, and what it would stop at.
fn getopt(words: &[OsString]) -> (Vec<SshOption<'_>>, Option<&OsStr>) {
    let mut options = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut letters = match word.as_bytes() {
            [b'-', letters @ ..] if !letters.is_empty() && letters != b"-" => letters,
            _ => return (options, Some(word)),
        };
        while let [letter, rest @ ..] = letters {
            let takes_value = WITH_VALUE.contains(letter);
            let value = match (takes_value, rest.is_empty()) {
                (false, _) => None,
                (true, false) => Some(rest),
                (true, true) => words.next().map(|word| word.as_bytes()),
            };
            options.push(SshOption { letter: *letter, value });
            letters = if takes_value { &[] } else { rest };
        }
    }
    (options, None)
}

/// The options in words that [`parse_ssh_options`] returned, as ssh's getopt sees them.
pub fn ssh_options_in(words: &[OsString]) -> Vec<SshOption<'_>> {
    getopt(words).0
}

/// With these ssh runs no command.
const SENSELESS: &[(u8, &str)] = &[
    (b's', "ssh would start a subsystem in the place of the command"),
    (b'W', "ssh would forward to another host in the place of running the command"),
    (b'O', "ssh would only control a master that is there already"),
    (b'Q', "ssh would only list what it supports"),
    (b'G', "ssh would only print its configuration"),
    (b'V', "ssh would only print its version"),
];

/// What says how a session is to be, and would spoil a byte stream.
const OF_SESSIONS: &[u8] = b"nNftT";

/// The words without the options that would spoil a byte stream.
fn for_a_byte_stream(words: Vec<OsString>) -> Vec<OsString> {
    let mut kept = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        let value_at = bytes.iter().position(|letter| WITH_VALUE.contains(letter));
        // A word that is not understood stays as it is.
        let is_known = bytes
            .get(1..value_at.unwrap_or(bytes.len()))
            .is_some_and(|letters| letters.iter().all(|letter| WITHOUT_VALUE.contains(letter)));
        if !is_known {
            kept.push(word);
            kept.extend(words);
            return kept;
        }
        let (letters, value) = bytes.split_at(value_at.unwrap_or(bytes.len()));
        let letters = letters.iter().filter(|letter| !OF_SESSIONS.contains(letter));
        let rest: Vec<u8> = letters.chain(value).copied().collect();
        if rest != b"-" {
            kept.push(OsString::from_vec(rest));
        }
        if value.len() == 1 {
            kept.extend(words.next());
        }
    }
    kept
}

fn check_options(words: &[OsString]) -> Result<(), SshOptionsError> {
    let (options, stopped_at) = getopt(words);
    let senseless = |option: &SshOption<'_>| {
        let (_, does) = SENSELESS.iter().find(|(letter, _)| *letter == option.letter)?;
        Some(SshOptionsError::MakesNoSense { option: char::from(option.letter), does })
    };
    if let Some(error) = options.iter().find_map(senseless) {
        return Err(error);
    }
    // Of an option that is new to us it is not known whether the next word is its value: let ssh decide.
    let all_known = options
        .iter()
        .all(|option| WITH_VALUE.contains(&option.letter) || WITHOUT_VALUE.contains(&option.letter));
    match (stopped_at, options.last()) {
        (Some(word), _) if all_known => {
            Err(SshOptionsError::NotAnOption { word: word.to_string_lossy().into_owned() })
        }
        (None, Some(SshOption { letter, value: None })) if WITH_VALUE.contains(letter) => {
            Err(SshOptionsError::MissingValue { option: char::from(*letter) })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none("", &[])]
    #[case::blanks(" \t\n ", &[])]
    #[case::plain("-p 2222 -A", &["-p", "2222", "-A"])]
    #[case::single("-o 'Foo=a b'", &["-o", "Foo=a b"])]
    #[case::double(r#"-o "ProxyCommand=sh -c \"nc \$1\" \x""#, &["-o", r#"ProxyCommand=sh -c "nc $1" \x"#])]
    #[case::backslash(r"-i /my\ key", &["-i", "/my key"])]
    #[case::empty_value("-F '' -4", &["-F", "", "-4"])]
    #[case::inside_a_word("-o'User=a'\" b\"", &["-oUser=a b"])]
    #[case::nothing_expands("-i ~/key -l $USER", &["-i", "~/key", "-l", "$USER"])]
    #[case::no_comments("-o Foo=a -i #1", &["-o", "Foo=a", "-i", "#1"])]
    #[case::newlines("-4\n-C", &["-4", "-C"])]
    #[case::cluster("-4Cp 22", &["-4Cp", "22"])]
    #[case::value_looks_like_an_option("-o -v -p22", &["-o", "-v", "-p22"])]
    #[case::unknown_option("-Z value -p 22", &["-Z", "value", "-p", "22"])]
    // https://github.com/serokell/deploy-rs/issues/364
    #[case::deploy_rs_364_no_stdin("-n -p 22", &["-p", "22"])]
    #[case::no_command("-N -f -4", &["-4"])]
    #[case::terminals("-T -t -tt -4", &["-4"])]
    #[case::in_a_cluster("-nT4Np 22", &["-4p", "22"])]
    #[case::in_values("-o n -i N -ln", &["-o", "n", "-i", "N", "-ln"])]
    #[case::before_an_unknown_option("-n -Z -n", &["-Z", "-n"])]
    fn words(#[case] value: &str, #[case] expected: &[&str]) {
        assert_eq!(parse_ssh_options(value).unwrap(), expected);
    }

    #[rstest]
    #[case::single("-o 'Foo", "unbalanced quotes in NIX_SSHOPTS: -o \\'Foo")]
    #[case::double("-o \"Foo'", "unbalanced quotes in NIX_SSHOPTS: -o \\\"Foo\\'")]
    #[case::backslash("-o Foo\\", "unbalanced quotes in NIX_SSHOPTS: -o Foo\\\\")]
    #[case::path("PATH=/nix/bin", "'PATH=/nix/bin' in NIX_SSHOPTS is not an option of ssh")]
    #[case::host("-p 22 host", "'host' in NIX_SSHOPTS is not an option of ssh")]
    #[case::dashes("-4 -- -p 22", "'--' in NIX_SSHOPTS is not an option of ssh")]
    #[case::dash("-", "'-' in NIX_SSHOPTS is not an option of ssh")]
    #[case::empty("''", "'' in NIX_SSHOPTS is not an option of ssh")]
    #[case::subsystem(
        "-s",
        "'-s' in NIX_SSHOPTS makes no sense here: ssh would start a subsystem in the place of the command"
    )]
    #[case::forwarding(
        "-4W h:22",
        "'-W' in NIX_SSHOPTS makes no sense here: ssh would forward to another host in the place of running the command"
    )]
    #[case::version("-V", "'-V' in NIX_SSHOPTS makes no sense here: ssh would only print its version")]
    #[case::no_value("-4 -o", "'-o' at the end of NIX_SSHOPTS lacks its value")]
    #[case::no_value_in_a_cluster("-4Co", "'-o' at the end of NIX_SSHOPTS lacks its value")]
    fn refused(#[case] value: &str, #[case] message: &str) {
        assert_eq!(parse_ssh_options(value).unwrap_err().to_string(), message);
    }
}
