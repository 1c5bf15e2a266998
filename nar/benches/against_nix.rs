//! Speed of pack and unpack against `nix-store --dump` and `--restore`, in tmpfs, best of five,
//! in turns; and of packing files that are on the disk of the target directory and not in memory.
//!
//! `cargo bench -p ncc-nar [-- SMALL_FILES BIG_MEGABYTES]`. Both sides read and write files, so that
//! no pipe is measured; the time of starting a process is in Nix's numbers and about 10 ms.
#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use ncc_nar::{
    DecodeOptions, Decoder, Error, Metadata, PackOptions, UnpackOptions, pack, remove, size_of, unpack,
};

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
    compare_on_disk(small_files / 5)?;

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
        let file = small_file(root, number);
        if let Some(directory) = file.parent().filter(|_| number % 100 == 0) {
            fs::create_dir(directory)?;
        }
        let size = number.wrapping_mul(7919) % contents.len();
        fs::write(file, &contents[..size])?;
    }
    Ok(())
}

/// Packs small files whose contents the system was asked to forget. (It still knows the directories.)
fn compare_on_disk(count: usize) -> io::Result<()> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let root = directory.path().join("small");
    make_small_files(&root, count)?;
    rustix::fs::syncfs(File::open(&root)?)?;
    println!("{count} small files on disk, not in memory");
    let evicted = |task: &str, pack: &dyn Fn() -> io::Result<()>| {
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            for number in 0..count {
                let file = File::open(small_file(&root, number))?;
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            }
            best = best.min(timed((), |()| pack())?);
        }
        println!("  {task:<30} {best:>7.3} s");
        io::Result::Ok(())
    };
    evicted("pack", &|| Ok(pack(&root, io::sink(), &PackOptions::default()).map(drop)?))?;
    if has_nix() {
        let dump = || run(Command::new("nix-store").arg("--dump").arg(&root).stdout(Stdio::null()));
        evicted("nix-store --dump", &dump)?;
    }
    Ok(())
}

fn small_file(root: &Path, number: usize) -> PathBuf {
    root.join(format!("directory-{}", number / 100)).join(format!("file-{number}"))
}

fn has_nix() -> bool {
    let version =
        Command::new("nix-store").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok()
}

fn compare(object: &Path, what: &str, directory: &Path) -> io::Result<()> {
    let size = size_of(object, &PackOptions::default())?;
    let megabytes = size as f64 / 1e6;
    println!("{what}, {megabytes:.1} MB of archive");
    let has_nix = has_nix();
    if !has_nix {
        println!("  there is no nix-store on PATH to compare with");
    }
    // In turns, so that whatever else the machine does meets both.
    let measure =
        |task: &str, ours: &dyn Fn() -> io::Result<f64>, theirs: Option<&dyn Fn() -> io::Result<f64>>| {
            let (mut best, mut best_of_nix) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..ROUNDS {
                if let Some(theirs) = theirs.filter(|_| has_nix) {
                    best_of_nix = best_of_nix.min(theirs()?);
                }
                best = best.min(ours()?);
            }
            print!("  {task:<30} {best:>7.3} s {:>8.0} MB/s", megabytes / best);
            if best_of_nix.is_finite() {
                print!("  {:>5.2} x the speed of Nix ({best_of_nix:.3} s)", best_of_nix / best);
            }
            println!();
            io::Result::Ok(())
        };

    let nar = directory.join("nar");
    let create = || File::create(&nar);
    measure(
        "pack",
        &|| timed(create()?, |mut out| pack(object, &mut out, &PackOptions::default())),
        Some(&|| {
            timed(create()?, |out| run(Command::new("nix-store").arg("--dump").arg(object).stdout(out)))
        }),
    )?;
    measure("size_of", &|| timed((), |()| size_of(object, &PackOptions::default())), None)?;

    let target = directory.join("target");
    let open = || {
        if target.symlink_metadata().is_ok() {
            remove(&target)?;
        }
        File::open(&nar)
    };
    let mut known = DecodeOptions::default();
    known.nar_size = Some(size);
    let unpack_options = |metadata, decode: &DecodeOptions| {
        let mut options = UnpackOptions::default();
        options.metadata = metadata;
        options.decode = decode.clone();
        options
    };
    let unknown = DecodeOptions::default();
    for (task, options) in [
        ("unpack", unpack_options(Metadata::Plain, &unknown)),
        ("unpack, size known", unpack_options(Metadata::Plain, &known)),
        ("unpack, size known, canonical", unpack_options(Metadata::Canonical, &known)),
    ] {
        measure(
            task,
            &|| timed(open()?, |mut input| unpack(&mut input, &target, &options)),
            Some(&|| {
                timed(open()?, |input| {
                    run(Command::new("nix-store").arg("--restore").arg(&target).stdin(input))
                })
            }),
        )?;
    }
    for (task, options) in [("decode only", unknown), ("decode only, size known", known)] {
        let decode = |input: File| -> Result<(), Error> {
            let mut decoder = Decoder::with_options(input, &options);
            while decoder.next_event()?.is_some() {}
            Ok(())
        };
        measure(task, &|| timed(open()?, decode), None)?;
    }
    open()?;
    fs::remove_file(&nar)
}

fn run(command: &mut Command) -> io::Result<()> {
    if command.status()?.success() { Ok(()) } else { Err(io::Error::other("nix-store failed")) }
}

/// Seconds that `task` takes with what was prepared for it.
fn timed<T, R, E: Into<io::Error>>(prepared: T, task: impl FnOnce(T) -> Result<R, E>) -> io::Result<f64> {
    let start = Instant::now();
    task(prepared).map_err(Into::into)?;
    Ok(start.elapsed().as_secs_f64())
}
