//! As which program this is called. Under the name `nix`, or with `copy` as its first word, it is `nix copy`; and whatever that does
//! besides copying store paths, and all that `nix` does besides, is left to Nix's own program. That is decided before anything is
//! started, and nearly always before anything is read.

mod command_line;
mod installables;
mod nixs_own;

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use command_line::CommandLine;
use nixs_own::NixsOwn;

use crate::{
    arguments::{Arguments, Task},
    environment::variable,
};

/// Why Nix's own program is to do it, as a clause that says what is asked for.
pub(crate) struct HandOn(String);

impl HandOn {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// What the program is asked to do. `Err` is for what is finished with that: help, a usage error, or nobody to hand on to.
pub(crate) fn read() -> Result<Task, ExitCode> {
    let words: Vec<OsString> = env::args_os().collect();
    let (called, words) =
        words.split_first().map_or((OsStr::new(""), &[][..]), |(called, words)| (called, words));
    let name = Path::new(called).file_name().unwrap_or_default();
    let own = if name == "nix" || words.first().is_some_and(|word| word == "copy") {
        NixsOwn::NIX
    } else {
        NixsOwn::NIX_COPY_CLOSURE
    };
    if variable("NCC_DISABLE").is_some_and(|value| value != "0") {
        return Err(own.take_over(words, &HandOn::new("NCC_DISABLE is set")));
    }
    if own == NixsOwn::NIX_COPY_CLOSURE {
        return Arguments::read([called.to_owned()].into_iter().chain(words.iter().cloned()));
    }
    let command_line = CommandLine::read(words).and_then(CommandLine::in_terms_of_nix_copy_closure);
    let (words_for_it, copy) = command_line.map_err(|reason| own.take_over(words, &reason))?;
    match Arguments::read(words_for_it)? {
        Task::Copy(mut arguments) => {
            copy.complete(&mut arguments).map_err(|reason| own.take_over(words, &reason))?;
            Ok(Task::Copy(arguments))
        }
        task => Ok(task),
    }
}
