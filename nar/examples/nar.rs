//! Packs, unpacks and lists: `nar pack PATH >FILE`, `nar unpack TARGET <FILE`, `nar ls <FILE`,
//! `nar size PATH`, `nar rm PATH`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    error::Error,
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
};

use ncc_nar::{
    Executable, ListNode, Metadata, PackOptions, UnpackOptions, list, pack, remove, size_of, unpack,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let command = arguments.first().and_then(|command| command.to_str()).unwrap_or_default();
    match (command, arguments.get(1).map(Path::new)) {
        ("pack", Some(path)) => {
            // Unbuffered: the encoder writes large blocks, `Stdout` would look for lines in them.
            let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            pack(path, &mut output, &PackOptions::default())?;
        }
        ("unpack", Some(target)) => {
            unpack(&mut input()?, target, &UnpackOptions::default())?;
        }
        ("unpack-canonical", Some(target)) => {
            let mut options = UnpackOptions::default();
            options.metadata = Metadata::Canonical;
            unpack(&mut input()?, target, &options)?;
        }
        ("size", Some(path)) => println!("{}", size_of(path, &PackOptions::default())?),
        ("rm", Some(path)) => remove(path)?,
        ("ls", None) => {
            let mut output = BufWriter::new(io::stdout().lock());
            for entry in list(input()?) {
                let entry = entry?;
                match entry.node {
                    ListNode::Directory => writeln!(output, "d {:>12} {}", "", entry.path)?,
                    ListNode::Regular { executable, size, offset } => {
                        let kind = if executable == Executable::Yes { 'x' } else { '-' };
                        writeln!(output, "{kind} {size:>12} {} @{offset}", entry.path)?;
                    }
                    ListNode::Symlink { target } => {
                        let target = String::from_utf8_lossy(&target);
                        writeln!(output, "l {:>12} {} -> {target}", "", entry.path)?;
                    }
                }
            }
            output.flush()?;
        }
        _ => return Err("usage: nar {pack|unpack|unpack-canonical|size|rm} PATH, or nar ls".into()),
    }
    Ok(())
}

fn input() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}
