//! Packs, unpacks and lists: `nar pack PATH >FILE`, `nar unpack TARGET <FILE`, `nar ls <FILE`,
//! `nar cat PATH-IN-ARCHIVE <FILE`, `nar size PATH`, `nar rm PATH`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    error::Error,
    fs::File,
    io::{self, BufWriter, Write},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
    process::ExitCode,
};

use ncc_nar::{
    DecodeOptions, Decoder, Event, Executable, Listing, Metadata, NIX_MAX_DEPTH, NarPath, NodeKind,
    PackOptions, UnpackOptions, pack, remove, size_of, unpack,
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
            unpack(input()?, target, &UnpackOptions::default())?;
        }
        ("unpack-canonical", Some(target)) => {
            let mut options = UnpackOptions::default();
            options.metadata = Metadata::Canonical;
            unpack(input()?, target, &options)?;
        }
        ("size", Some(path)) => println!("{}", size_of(path, &PackOptions::default())?),
        ("rm", Some(path)) => remove(path)?,
        ("ls", None) => ls(&Listing::read(input()?, &DecodeOptions::default())?)?,
        ("cat", Some(path)) => {
            let path = NarPath::new(path.as_os_str().as_bytes())?;
            let mut decoder = Decoder::new(input()?);
            match decoder.seek_to(&path)? {
                Some(Event::Regular { .. }) => io::copy(&mut decoder.contents(), &mut io::stdout())?,
                Some(_) => return Err(format!("'{path}' is not a regular file").into()),
                None => return Err(format!("there is no '{path}' in the archive").into()),
            };
        }
        _ => {
            let usage =
                "usage: nar {pack|unpack|unpack-canonical|size|rm} PATH, nar ls, or nar cat PATH-IN-ARCHIVE";
            return Err(usage.into());
        }
    }
    Ok(())
}

fn ls(listing: &Listing) -> io::Result<()> {
    let mut output = BufWriter::new(io::stdout().lock());
    for node in listing.nodes() {
        let path = node.path();
        match node.kind() {
            NodeKind::Directory => writeln!(output, "d {:>12} {path}", "")?,
            NodeKind::Regular { executable, size, offset } => {
                let kind = if *executable == Executable::Yes { 'x' } else { '-' };
                writeln!(output, "{kind} {size:>12} {path} @{offset}")?;
            }
            NodeKind::Symlink { target } => {
                let target = String::from_utf8_lossy(target);
                writeln!(output, "l {:>12} {path} -> {target}", "")?;
            }
        }
        if node.depth() == NIX_MAX_DEPTH + 1 {
            eprintln!("warning: '{path}' is nested too deep for current versions of Nix");
        }
    }
    output.flush()
}

fn input() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}
