//! Nix's own programs, and how one of them takes over.

use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use ncc_progress::{Patient, printable};

use super::HandOn;
use crate::{environment::variable, exit};

/// How often in a row it has been handed on. Inside of `nix develop` and the like that is no fault; a program on the PATH that
/// leads back here, which neither name nor file tells, would do it for ever.
const MARK: &str = "NCC_HANDED_ON";

/// More shells than that, one inside of another, nobody has.
const MOST: u32 = 20;

/// One of Nix's own programs, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NixsOwn(&'static str);

impl NixsOwn {
    pub(crate) const NIX: Self = Self("nix");
    pub(crate) const NIX_COPY_CLOSURE: Self = Self("nix-copy-closure");

    /// Becomes that program, with these words; returns only where there is none. Standard input is untouched, and signals are as they
    /// were: those that are ignored stay ignored. (SIGPIPE is the exception: Rust's runtime has forgotten it.)
    pub(crate) fn take_over(self, words: &[OsString], reason: &HandOn) -> ExitCode {
        let why = match self.become_it(words) {
            Ok(never) => match never {},
            Err(why) => why,
        };
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "error: {}, which is left to Nix's own '{}': {why}", printable(&reason.0), self.0);
        let _ = writeln!(text, "hint: NCC_NIX=/path/to/nix says where that is");
        // A closed stderr is no reason to complain.
        let _ = Patient::new(io::stderr()).write_all(text.as_bytes());
        exit::ERROR.into()
    }

    fn become_it(self, words: &[OsString]) -> Result<std::convert::Infallible, String> {
        let times = variable(MARK).and_then(|times| times.parse::<u32>().ok()).unwrap_or(0);
        if times >= MOST {
            return Err(format!("what was taken for it leads back here, {times} times in a row"));
        }
        let mut why = "there is none in PATH".to_owned();
        for file in self.candidates()? {
            let error =
                Command::new(&file).arg0(self.0).args(words).env(MARK, (times + 1).to_string()).exec();
            why = printable(&format!("'{}' cannot be started: {error}", file.display())).into();
        }
        Err(why)
    }

    /// Where it may be, the best place first: what NCC_NIX names, or else what follows behind this program in PATH, and then what
    /// stands before it there.
    fn candidates(self) -> Result<Vec<PathBuf>, String> {
        let own = env::current_exe().ok().and_then(|own| identity(&own));
        if let Some(named) = env::var_os("NCC_NIX").filter(|named| !named.is_empty()) {
            // Nix's other programs are beside it.
            let file = if self == Self::NIX {
                PathBuf::from(named)
            } else {
                Path::new(&named).with_file_name(self.0)
            };
            let file = if file.parent().is_none_or(|folder| folder.as_os_str().is_empty()) {
                Path::new(".").join(file)
            } else {
                file
            };
            return if identity(&file).is_some_and(|file| Some(file) == own) {
                Err("NCC_NIX names this very program".to_owned())
            } else {
                Ok(vec![file])
            };
        }
        let path = env::var_os("PATH").unwrap_or_default();
        // An empty entry is the working directory.
        let folders = env::split_paths(&path).map(|folder| Path::new(".").join(folder));
        let mut before = Vec::new();
        let mut behind = Vec::new();
        let mut seen_own = false;
        for file in folders.map(|folder| folder.join(self.0)).filter(|file| is_program(file)) {
            if identity(&file) == own {
                seen_own = true;
            } else if seen_own {
                behind.push(file);
            } else {
                before.push(file);
            }
        }
        behind.append(&mut before);
        Ok(behind)
    }
}

/// What a file is, under whatever name.
fn identity(file: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
