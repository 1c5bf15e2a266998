//! The form of `nix.conf`: lines of `NAME = VALUE`, comments from `#` on, `include FILE` and `!include FILE`.
//!
//! As in `parseConfigFiles` of Nix (`src/libutil/configuration.cc`), words are separated by blanks, tabs and carriage
//! returns, and a value is its words joined by single blanks. There is no quoting.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{Environment, FileSystem, SettingsError, environment::normal, error::shown};

/// Configuration is read up to this size per file. The largest in use are a few kilobytes.
const FILE_LIMIT: u64 = 4 << 20;
/// So many files are read, each as often as it is included.
const FILES_LIMIT: u64 = 1000;
/// So deep may files include each other. Nix has no limit but its stack.
const DEPTH_LIMIT: usize = 100;
/// A line in an error message is cut to this many characters.
const SHOWN: usize = 80;

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(&'static str),
    /// An option of the command line.
    CommandLine,
    /// Nothing says otherwise.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", shown(path.display())),
            Self::Variable(name) => f.write_str(name),
            Self::CommandLine => f.write_str("the command line"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// One `NAME = VALUE`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// Reads configuration, in the order in which it counts: later assignments win.
pub(crate) struct Reader<'a> {
    environment: &'a Environment,
    files: &'a dyn FileSystem,
    assignments: Vec<Assignment>,
    unreadable: Vec<(PathBuf, io::ErrorKind)>,
    /// The files that are being read, each included by the one before it.
    open: Vec<PathBuf>,
    read: u64,
}

/// Where a text is from.
#[derive(Clone, Copy)]
enum Text<'a> {
    File(&'a Path),
    Variable(&'static str),
}

impl Text<'_> {
    fn origin(self, line: usize) -> Origin {
        match self {
            Self::File(path) => Origin::File { path: path.to_owned(), line },
            Self::Variable(name) => Origin::Variable(name),
        }
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(environment: &'a Environment, files: &'a dyn FileSystem) -> Self {
        Self {
            environment,
            files,
            assignments: Vec::new(),
            unreadable: Vec::new(),
            open: Vec::new(),
            read: 0,
        }
    }

    /// What was read, and the files that are there and could not be read.
    pub(crate) fn finish(self) -> (Vec<Assignment>, Vec<(PathBuf, io::ErrorKind)>) {
        (self.assignments, self.unreadable)
    }

    /// Reads a file. As in Nix, one that does not exist or cannot be read counts as empty.
    pub(crate) fn file(&mut self, path: &Path) -> Result<(), SettingsError> {
        self.read += 1;
        let too_much = |limit, what| SettingsError::TooMuch { path: path.to_owned(), limit, what };
        if self.read > FILES_LIMIT {
            return Err(too_much(FILES_LIMIT, "files"));
        }
        if self.open.len() >= DEPTH_LIMIT {
            return Err(too_much(DEPTH_LIMIT as u64, "nested files"));
        }
        let text = match self.files.read(path, FILE_LIMIT + 1) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.unreadable.push((path.to_owned(), error.kind()));
                }
                return Ok(());
            }
        };
        if text.len() as u64 > FILE_LIMIT {
            return Err(too_much(FILE_LIMIT, "bytes"));
        }
        self.open.push(path.to_owned());
        let done = self.text(&text, Text::File(path));
        self.open.pop();
        done
    }

    /// Reads the content of an environment variable.
    pub(crate) fn variable(&mut self, name: &'static str) -> Result<(), SettingsError> {
        let environment = self.environment;
        match environment.variable(name) {
            Some(value) => self.text(value.as_encoded_bytes(), Text::Variable(name)),
            None => Ok(()),
        }
    }

    fn text(&mut self, text: &[u8], source: Text<'_>) -> Result<(), SettingsError> {
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let code = line.split(|&byte| byte == b'#').next().unwrap_or_default();
            let origin = source.origin(index + 1);
            let code = str::from_utf8(code).map_err(|_| SettingsError::NotUtf8 { origin: origin.clone() })?;
            let mut words = code.split([' ', '\t', '\r']).filter(|word| !word.is_empty());
            let syntax = |origin| SettingsError::Syntax { origin, line: shortened(code) };
            match (words.next(), words.next()) {
                (None, _) => {}
                (Some(word @ ("include" | "!include")), Some(file)) if words.next().is_none() => {
                    self.include(file, word == "!include", source, origin)?;
                }
                (Some("include" | "!include"), _) => return Err(syntax(origin)),
                (Some(name), Some("=")) => {
                    let value = words.collect::<Vec<_>>().join(" ");
                    self.assignments.push(Assignment { name: name.to_owned(), value, origin });
                }
                _ => return Err(syntax(origin)),
            }
        }
        Ok(())
    }

    fn include(
        &mut self,
        file: &str,
        may_be_missing: bool,
        source: Text<'_>,
        origin: Origin,
    ) -> Result<(), SettingsError> {
        let environment = self.environment;
        let directory = match source {
            Text::File(path) => path.parent().unwrap_or(path),
            Text::Variable(_) => &environment.working_directory,
        };
        // A tilde is an extension of Lix; in other Nixes it would be a directory of that name.
        let path = match (file.strip_prefix("~/"), &environment.home) {
            (Some(rest), Some(home)) => normal(&home.join(rest)),
            _ => normal(&directory.join(file)),
        };
        if self.open.contains(&path) {
            return Err(SettingsError::IncludeCycle { path, origin });
        }
        if self.files.exists(&path) {
            self.file(&path)
        } else if may_be_missing {
            Ok(())
        } else {
            Err(SettingsError::MissingInclude { path, origin })
        }
    }
}

fn shortened(line: &str) -> String {
    let line = line.trim();
    let mut characters = line.chars();
    let mut shown: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// Files that exist in a test only.
    #[derive(Default)]
    struct Files(BTreeMap<PathBuf, Vec<u8>>);

    impl FileSystem for Files {
        fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
            let content = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
            Ok(content.iter().copied().take(usize::try_from(limit).unwrap()).collect())
        }

        fn exists(&self, path: &Path) -> bool {
            self.0.contains_key(path)
        }

        fn is_writable(&self, _: &Path) -> bool {
            false
        }
    }

    type Read = Result<Vec<(String, String)>, SettingsError>;

    fn read(files: &[(&str, &[u8])]) -> Read {
        let files = Files(files.iter().map(|(path, text)| (path.into(), text.to_vec())).collect());
        let mut environment = Environment::empty("/w");
        environment.home = Some("/home/a".into());
        let mut reader = Reader::new(&environment, &files);
        reader.file(Path::new("/etc/nix/nix.conf"))?;
        let (assignments, _) = reader.finish();
        Ok(assignments.into_iter().map(|assignment| (assignment.name, assignment.value)).collect())
    }

    fn one(text: &str) -> Read {
        read(&[("/etc/nix/nix.conf", text.as_bytes())])
    }

    #[rstest]
    #[case::nothing("", &[])]
    #[case::comments("# a = b\n  # c\n\n", &[])]
    #[case::plain("a = b", &[("a", "b")])]
    #[case::comment_behind("a = b # c", &[("a", "b")])]
    #[case::comment_in_a_word("a = b#c", &[("a", "b")])]
    #[case::blanks(" \ta \t=  b   c\t\r\n", &[("a", "b c")])]
    #[case::empty_value("a =", &[("a", "")])]
    #[case::equals_in_a_value("a = b = c=d", &[("a", "b = c=d")])]
    #[case::several("a = 1\na = 2\nextra-a = 3", &[("a", "1"), ("a", "2"), ("extra-a", "3")])]
    fn lines_are_words(#[case] text: &str, #[case] expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(one(text).unwrap(), expected);
    }

    #[rstest]
    #[case::one_word("a")]
    #[case::no_blank_before_the_sign("a= b")]
    #[case::no_blanks("a=b")]
    #[case::no_sign("a b = c")]
    #[case::include_of_nothing("include")]
    #[case::include_of_two("include a b")]
    fn other_lines_are_errors(#[case] text: &str) {
        let expected = SettingsError::Syntax {
            origin: Origin::File { path: "/etc/nix/nix.conf".into(), line: 2 },
            line: text.to_owned(),
        };
        assert_eq!(one(&format!("x = y\n{text}\n")).unwrap_err(), expected);
    }

    #[test]
    fn errors_name_file_and_line() {
        let error = read(&[("/etc/nix/nix.conf", b"include sub/b"), ("/etc/nix/sub/b", b"\n\nbad line\n")]);
        let text = "syntax error in /etc/nix/sub/b:3: 'bad line' is not of the form 'NAME = VALUE'";
        assert_eq!(error.unwrap_err().to_string(), text);
        assert!(
            matches!(one(&"x".repeat(500)).unwrap_err(), SettingsError::Syntax { line, .. } if line.len() < 100)
        );
        let error = read(&[("/etc/nix/nix.conf", b"# caf\xe9 is fine\na = caf\xe9")]).unwrap_err();
        assert_eq!(error.to_string(), "syntax error in /etc/nix/nix.conf:2: the line is not UTF-8");
    }

    #[test]
    fn includes_are_relative_to_their_file_and_take_effect_where_they_stand() {
        let read = read(&[
            (
                "/etc/nix/nix.conf",
                b"a = 1\ninclude sub/b\na = 3\n!include ../c\ninclude ~/d\n!include nowhere\n",
            ),
            ("/etc/nix/sub/b", b"a = 2\ninclude e\n"),
            ("/etc/nix/sub/e", b"e = 1"),
            ("/etc/c", b"a = 4\ninclude /etc/nix/sub/e"),
            ("/home/a/d", b"d = 1"),
        ]);
        let values: Vec<_> =
            read.unwrap().into_iter().map(|(name, value)| format!("{name}{value}")).collect();
        assert_eq!(values, ["a1", "a2", "e1", "a3", "a4", "e1", "d1"]);
    }

    #[test]
    fn includes_that_cannot_end_well_are_errors() {
        let missing = read(&[("/etc/nix/nix.conf", b"\ninclude x")]).unwrap_err();
        let text = "file '/etc/nix/x', included by /etc/nix/nix.conf:2, does not exist";
        assert_eq!(missing.to_string(), text);
        let cycle = read(&[("/etc/nix/nix.conf", b"include a"), ("/etc/nix/a", b"!include ./nix.conf")]);
        assert!(matches!(cycle.unwrap_err(), SettingsError::IncludeCycle { .. }));
        let chain: Vec<_> =
            (0..200).map(|n| (format!("/etc/nix/{n}"), format!("include {}", n + 1).into_bytes())).collect();
        let mut files: Vec<(&str, &[u8])> = vec![("/etc/nix/nix.conf", b"include 0")];
        files.extend(chain.iter().map(|(path, text)| (path.as_str(), text.as_slice())));
        assert!(matches!(read(&files).unwrap_err(), SettingsError::TooMuch { what: "nested files", .. }));
        // Each of ten levels includes the next one twice.
        let tree: Vec<_> = (0..11)
            .map(|n| (format!("/etc/nix/{n}"), format!("!include {0}\n!include {0}", n + 1).into_bytes()))
            .collect();
        let mut files: Vec<(&str, &[u8])> = vec![("/etc/nix/nix.conf", b"include 0")];
        files.extend(tree.iter().map(|(path, text)| (path.as_str(), text.as_slice())));
        assert!(matches!(read(&files).unwrap_err(), SettingsError::TooMuch { what: "files", .. }));
        let large = vec![b'#'; usize::try_from(FILE_LIMIT).unwrap() + 1];
        let error = read(&[("/etc/nix/nix.conf", &large)]).unwrap_err();
        assert!(matches!(error, SettingsError::TooMuch { what: "bytes", .. }));
    }

    #[test]
    fn what_cannot_be_read_counts_as_empty_and_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("nix.conf");
        fs::write(&conf, "include d\na = b\n").unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        let environment = Environment::empty("/");
        let mut reader = Reader::new(&environment, &crate::Disk);
        reader.file(&conf).unwrap();
        let (assignments, unreadable) = reader.finish();
        assert_eq!(assignments.len(), 1);
        assert_eq!(unreadable, [(directory.path().join("d"), io::ErrorKind::IsADirectory)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&[("/etc/nix/nix.conf", &text)]);
        }

        #[test]
        fn what_is_written_is_read(pairs in prop::collection::vec(
            ("[a-z][a-z0-9-]{0,10}", prop::collection::vec("[!-\"$-~]{1,6}", 0..4)), 0..10,
        )) {
            let pairs: Vec<_> = pairs
                .into_iter()
                .filter(|(name, _)| name != "include")
                .map(|(name, words)| (name, words.join(" ")))
                .collect();
            let lines: Vec<_> = pairs.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            prop_assert_eq!(one(&lines.join("\n")).unwrap(), pairs);
        }
    }
}
