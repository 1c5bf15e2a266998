//! Speed of pack and unpack against `nix-store --dump` and `--restore`, in tmpfs, best of five.
//!
//! `cargo bench -p ncc-nar [-- SMALL_FILES BIG_MEGABYTES]`. Both sides read and write files, so that
//! no pipe is measured; the time of starting a process is in Nix's numbers and about 10 ms.
#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use ncc_nar::{DecodeOptions, Decoder, Metadata, PackOptions, UnpackOptions, pack, remove, size_of, unpack};

const ROUNDS: usize = 5;

fn main() -> io::Result<()> {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let small_files = numbers.first().copied().unwrap_or(50_000);
    let megabytes = numbers.get(1).copied().unwrap_or(1024);
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(parent)?;

    let small = directory.path().join("small");
    make_small_files(&small, small_files)?;
    compare(&small, &format!("{small_files} small files"), directory.path())?;
    remove(&small)?;

    let big = directory.path().join("big");
    let mut file = File::create(&big)?;
    let block: Vec<u8> =
        (0..1_u32 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for _ in 0..megabytes {
        file.write_all(&block)?;
    }
    drop(file);
    compare(&big, &format!("a file of {megabytes} MiB"), directory.path())
}

/// About 2.6 kB per file, 100 files in each directory: close to what a store holds.
fn make_small_files(root: &Path, count: usize) -> io::Result<()> {
    fs::create_dir(root)?;
    let contents = [b'x'; 5200];
    for number in 0..count {
        let directory = root.join(format!("directory-{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir(&directory)?;
        }
        let size = number.wrapping_mul(7919) % contents.len();
        fs::write(directory.join(format!("file-{number}")), &contents[..size])?;
    }
    Ok(())
}

fn compare(object: &Path, what: &str, directory: &Path) -> io::Result<()> {
    let size = size_of(object, &PackOptions::default())?;
    let megabytes = size as f64 / 1e6;
    println!("{what}, {megabytes:.1} MB of archive");
    let report = |task: &str, seconds: f64, nix: Option<f64>| {
        let ratio = nix
            .map_or(String::new(), |nix| format!("  {:>5.2} x the speed of Nix ({nix:.3} s)", nix / seconds));
        println!("  {task:<28} {seconds:>7.3} s {:>8.0} MB/s{ratio}", megabytes / seconds);
    };
    let has_nix = Command::new("nix-store").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_nix {
        println!("  there is no nix-store on PATH to compare with");
    }
    let nix = |task: &dyn Fn() -> io::Result<f64>| if has_nix { task().map(Some) } else { Ok(None) };

    let nar = directory.join("nar");
    let create = || File::create(&nar);
    let theirs =
        nix(&|| best(create, |out| run(Command::new("nix-store").arg("--dump").arg(object).stdout(out))))?;
    let ours =
        best(create, |mut out| pack(object, &mut out, &PackOptions::default()).map_err(io::Error::from))?;
    report("pack", ours, theirs);
    let ours = best(|| Ok(()), |()| size_of(object, &PackOptions::default()).map_err(io::Error::from))?;
    report("size_of", ours, None);

    let target = directory.join("target");
    let open = || {
        if target.symlink_metadata().is_ok() {
            remove(&target)?;
        }
        File::open(&nar)
    };
    let theirs = nix(&|| {
        best(open, |input| run(Command::new("nix-store").arg("--restore").arg(&target).stdin(input)))
    })?;
    let known = DecodeOptions::new().nar_size(size);
    for (task, options) in [
        ("unpack", UnpackOptions::new()),
        ("unpack, size known", UnpackOptions::new().decode(known.clone())),
        ("unpack, size known, canonical", UnpackOptions::new().decode(known).metadata(Metadata::Canonical)),
    ] {
        let ours = best(open, |mut input| unpack(&mut input, &target, &options).map_err(io::Error::from))?;
        report(task, ours, theirs);
    }
    let decode = |options: &DecodeOptions| {
        best(open, |input| {
            let mut decoder = Decoder::with_options(input, options);
            while decoder.next_event()?.is_some() {}
            Ok(())
        })
    };
    report("decode only", decode(&DecodeOptions::new())?, None);
    report("decode only, size known", decode(&DecodeOptions::new().nar_size(size))?, None);
    open()?;
    fs::remove_file(&nar)
}

fn run(command: &mut Command) -> io::Result<()> {
    if command.status()?.success() { Ok(()) } else { Err(io::Error::other("nix-store failed")) }
}

fn best<T, R>(prepare: impl Fn() -> io::Result<T>, task: impl Fn(T) -> io::Result<R>) -> io::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let prepared = prepare()?;
        let start = Instant::now();
        task(prepared)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
