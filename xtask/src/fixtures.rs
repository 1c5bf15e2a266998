//! Closures to copy, made by a root's own Nix in its real store; the same in every version.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::database;
use crate::exec;
use crate::instance::{Instance, LabStore};
use crate::wire::{self, Wire};

/// Signs what is built. A test key: it signs nothing but fixtures, and is fixed so that captures can be made again.
const BUILD_KEY: &str =
    "lab-build-1:rf7KZ3wRxzD189V6JWaet9i1EHR4SqJh2Yin1kQPuwOLTgVl3AEEvk2dJrNR9zciNrV6uFCHK4gN4EuNOzIQ7g==";

/// The absolute path of that key inside of the instance where the mixed closure was made.
pub(crate) const BUILD_KEY_FILE: &str = "/tmp/mixed/build-key";

/// What a store has to trust to take what that key has signed.
pub(crate) const BUILD_KEY_PUBLIC: &str = "lab-build-1:i04FZdwBBL5NnSazUfc3Ija1erhQhyuIDeBLjTsyEO4=";

/// A second test key, so that some paths carry two signatures.
const REVIEW_KEY: &str =
    "lab-review-1:dwsV+NQB8IyBw86DP9xsf7X8R4Oq37GKnaof3lkY6aZq2S0IiEnQ6FFTTs2aZyvOB3PedFGka2lTGEFOVTidiw==";

/// Paths of the chain. 2,000 is what the issue measures.
pub(crate) const CHAIN: usize = 2_000;
/// References of the wide closure's root. An old `nix-daemon --stdio` that copies bytes for a user stops for good over some 500
/// requests at once.
pub(crate) const WIDE: usize = 1_000;
/// Files of the path with many.
pub(crate) const FILES: usize = 10_000;
/// Bytes of the sparse file: just past what 32 bits count.
pub(crate) const HUGE: u64 = (4 << 30) + 12_345;

/// Paths of the mixed closure by role.
#[derive(Clone, Debug)]
pub(crate) struct Mixed {
    /// Output `out` of the top derivation: refers to everything below, and to itself.
    pub(crate) top: String,
    /// Its output `lib`.
    pub(crate) lib: String,
    /// A built dependency with every kind of object in it.
    pub(crate) dep: String,
    /// The top derivation.
    pub(crate) derivation: String,
    /// A source folder with odd names (`ca` fixed, recursive).
    pub(crate) odd: String,
    /// `builtins.toFile` (`ca` text).
    pub(crate) note: String,
    /// `--add-fixed sha256` (`ca` fixed, flat).
    pub(crate) flat: String,
    /// `--add-fixed --recursive sha1`.
    pub(crate) recursive: String,
}

impl Mixed {
    /// What the mixed case copies.
    pub(crate) fn roots(&self) -> Vec<String> {
        vec![self.top.clone(), self.flat.clone(), self.recursive.clone()]
    }
}

/// The expression behind the mixed closure. PATH is given, since no sandbox sets one up.
const EXPRESSION: &str = r#"
let
  make = attributes: derivation ({
    system = "@system@";
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
  } // attributes);
  note = builtins.toFile "lab-note" "a text object\n";
  dep = make {
    name = "lab-dep";
    args = [ "-c" ''
      set -e
      mkdir -p $out/bin $out/empty-folder $out/deep/er/still
      printf '#!/bin/sh\necho hello\n' > $out/bin/hello
      chmod 755 $out/bin/hello
      : > $out/empty-file
      : > $out/empty-executable; chmod 755 $out/empty-executable
      ln -s bin/hello $out/link
      ln -s /nowhere/at/all $out/dangling
      ln -s . $out/deep/self
      printf 12345678 > $out/deep/er/eight-bytes
      printf 1234567 > $out/deep/er/seven-bytes
      ln $out/deep/er/seven-bytes $out/deep/er/still/hard-link
    '' ];
  };
in make {
  name = "lab-top";
  outputs = [ "out" "lib" ];
  odd = ./odd;
  inherit note dep;
  args = [ "-c" ''
    set -e
    mkdir $out $lib
    echo $dep $odd $note > $lib/references
    echo $out > $out/myself
    ln -s $dep/bin/hello $out/hello
    ln -s $lib $out/lib
  '' ];
}
"#;

/// Builds the mixed closure in the instance's store.
pub(crate) fn mixed(instance: &Instance, store: &LabStore) -> Result<Mixed> {
    let work = instance.path("tmp/mixed");
    exec::make_folder(&work)?;
    odd_names(&work.join("odd"))?;
    let system = format!("{}-linux", std::env::consts::ARCH);
    exec::write_file(&work.join("default.nix"), EXPRESSION.replace("@system@", &system))?;
    exec::write_file(&instance.path(BUILD_KEY_FILE), BUILD_KEY)?;
    exec::write_file(&work.join("review-key"), REVIEW_KEY)?;
    exec::write_file(&work.join("lab-flat"), "flat content\n")?;
    exec::make_folder(&work.join("lab-recursive/sub"))?;
    exec::write_file(&work.join("lab-recursive/sub/file"), "recursive content\n")?;

    let derivation = instance
        .run("nix-instantiate", &["/tmp/mixed/default.nix", "--add-root", "/tmp/mixed/drv", "--indirect"])?;
    let derivation = resolve(instance, &derivation)?;
    instance.run("nix-store", &["--realise", &derivation, "--option", "secret-key-files", BUILD_KEY_FILE])?;
    let output = |name: &str| instance.run("nix-store", &["--query", "--binding", name, &derivation]);
    let flat = instance.run("nix-store", &["--add-fixed", "sha256", "/tmp/mixed/lab-flat"])?;
    let recursive =
        instance.run("nix-store", &["--add-fixed", "--recursive", "sha1", "/tmp/mixed/lab-recursive"])?;
    let mixed = Mixed {
        top: output("out")?,
        lib: output("lib")?,
        dep: output("dep")?,
        odd: output("odd")?,
        note: output("note")?,
        derivation,
        flat,
        recursive,
    };
    // The review key signs some: paths with one, two and no signature, content-addressed ones among them.
    let mut sign =
        if instance.release.has_nix_command() { vec!["store", "sign"] } else { vec!["sign-paths"] };
    sign.extend(["--key-file", "/tmp/mixed/review-key", &mixed.dep, &mixed.odd, &mixed.flat]);
    instance.run("nix", &sign)?;
    database::settle_registration_times(store)?;
    Ok(mixed)
}

/// `nix-instantiate --add-root` prints the link on some versions and the target on others.
fn resolve(instance: &Instance, printed: &str) -> Result<String> {
    let printed = printed.trim();
    if printed.starts_with("/nix/store/") {
        return Ok(printed.to_owned());
    }
    instance.run("readlink", &[printed])
}

/// Names are bytes: not UTF-8, with newline, blanks, quotes, and long.
fn odd_names(folder: &Path) -> Result<()> {
    exec::make_folder(folder)?;
    let long = vec![b'n'; 255];
    let names: [&[u8]; 9] = [
        b"latin-\xe9",
        b"not\xff\xfeutf8",
        b"new\nline",
        b"two  blanks",
        b"'quotes\"",
        b"-dash",
        b"$HOME",
        b"~nix~case~hack~1",
        &long,
    ];
    for name in names {
        let file = folder.join(OsStr::from_bytes(name));
        fs::write(&file, name).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let sub = folder.join(OsStr::from_bytes(b"folder \xc3\x28"));
    exec::make_folder(&sub)?;
    let link = sub.join("link");
    symlink(OsStr::from_bytes(b"../not\xff\xfeutf8"), &link)
        .with_context(|| format!("cannot create {}", link.display()))?;
    Ok(())
}

/// One path with 10,000 small files in 100 folders, some executable.
pub(crate) fn many_files(instance: &Instance) -> Result<String> {
    let folder = instance.path("tmp/lab-many");
    for number in 0..FILES {
        let sub = folder.join(format!("sub-{}", number / 100));
        if number % 100 == 0 {
            exec::make_folder(&sub)?;
        }
        let file = sub.join(format!("file-{number}"));
        exec::write_file(&file, format!("{number}\n").repeat(number % 7))?;
        if number % 10 == 0 {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
    }
    let path = instance.run("nix-store", &["--add", "/tmp/lab-many"])?;
    fs::remove_dir_all(&folder)?;
    Ok(path)
}

/// One path holding a sparse file of a little more than 4 GiB.
pub(crate) fn huge(instance: &Instance, store: &LabStore) -> Result<String> {
    // Written into the store by --load-db: --add would read it twice and write 4 GiB of zeros.
    let path = wire::store_path("lab-huge");
    let real = store.real(&path);
    exec::make_folder(&real)?;
    let file = fs::File::create(real.join("sparse"))?;
    file.set_len(HUGE)?;
    file.write_all_at(b"past four gibibytes", HUGE - 100)?;
    drop(file);
    canonicalise(&real)?;
    let dump = instance.run(
        "bash",
        &["-c", &format!("nix-store --dump {path} | tee >(sha256sum > /tmp/huge.sha256) | wc -c")],
    )?;
    let sum = fs::read_to_string(instance.path("tmp/huge.sha256"))?;
    let hash = sum.split_whitespace().next().context("no sum")?.to_owned();
    let registration = format!("{path}\n{hash}\n{}\n\n0\n", dump.trim());
    let mut load = instance.command("nix-store");
    exec::capture_with_input(load.arg("--load-db"), registration.into_bytes())?.success()?;
    Ok(path)
}

/// Modes and times as Nix leaves them.
fn canonicalise(path: &Path) -> Result<()> {
    exec::run("chmod", [OsStr::new("-R"), OsStr::new("a-w,a+rX"), path.as_os_str()])?;
    exec::run(
        "find",
        [
            path.as_os_str(),
            OsStr::new("-exec"),
            OsStr::new("touch"),
            OsStr::new("-h"),
            OsStr::new("-d"),
            OsStr::new("@1"),
            OsStr::new("{}"),
            OsStr::new("+"),
        ],
    )?;
    Ok(())
}

/// 2,000 tiny paths, each referring to the one before. Gives the last.
///
/// Written as one export stream by us: Nix imports it in a fraction of the time that 2,000 `nix-store --add` would take.
pub(crate) fn chain(instance: &Instance, length: usize) -> Result<String> {
    let mut stream = Wire::default();
    let mut last: Option<String> = None;
    for number in 0..length {
        let path = wire::store_path(&format!("lab-chain-{number}"));
        let content = format!("{} link {number}\n", last.as_deref().unwrap_or("no"));
        let references: Vec<String> = last.into_iter().collect();
        stream = stream.number(1).raw(wire::export_record(&path, &references, &content).0);
        last = Some(path);
    }
    import(instance, stream)?;
    let last = last.context("an empty chain")?;
    let closure = instance.run("nix-store", &["--query", "--requisites", &last])?;
    ensure!(closure.lines().count() == length, "the chain has {} paths", closure.lines().count());
    Ok(last)
}

/// Tiny paths without references, and one that refers to all of them, which it gives.
pub(crate) fn wide(instance: &Instance, references: usize) -> Result<String> {
    let mut stream = Wire::default();
    let mut leaves = Vec::new();
    for number in 0..references {
        let path = wire::store_path(&format!("lab-leaf-{number}"));
        stream = stream.number(1).raw(wire::export_record(&path, &[], &format!("leaf {number}\n")).0);
        leaves.push(path);
    }
    let root = wire::store_path(&format!("lab-wide-{references}"));
    let record = wire::export_record(&root, &leaves, &leaves.join("\n"));
    import(instance, stream.number(1).raw(record.0))?;
    Ok(root)
}

fn import(instance: &Instance, stream: Wire) -> Result<()> {
    let mut import = instance.command("nix-store");
    exec::capture_with_input(import.arg("--import"), stream.number(0).0)?.success()?;
    Ok(())
}
