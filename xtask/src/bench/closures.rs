//! Closures to measure with, made in a real store by its own Nix. The same bytes every time.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cases::WIDE;
use crate::exec;
use crate::instance::{Instance, LabStore};
use crate::noise::Noise;
use crate::wire;

/// Paths and bytes of the realistic closure.
pub(super) const PATHS: usize = 300;
pub(super) const BYTES: u64 = 100 << 20;

/// Nix takes its time over 100,000 registrations.
const LOAD_LIMIT: Duration = Duration::from_secs(10 * 60);

/// A path written into the store, not yet registered.
pub(super) struct Written {
    pub(super) path: String,
    pub(super) references: Vec<String>,
}

/// A link of the chain of `fixtures::chain`: its closure is itself and all before.
pub(super) fn link_of_chain(number: usize) -> String {
    wire::store_path(&format!("lab-chain-{number}"))
}

/// One path that is a file of so many incompressible bytes.
pub(super) fn big(instance: &Instance, store: &LabStore, bytes: u64) -> Result<String> {
    let path = wire::store_path("bench-big");
    write_noise(&store.real(&path), bytes, &mut Noise::new(1))?;
    register(instance, &[Written { path: path.clone(), references: Vec::new() }])?;
    Ok(path)
}

/// Something in the shape of a small system: many small paths and few large ones, folders with files of all sizes, and each
/// path refers to up to six earlier ones, near and far.
pub(crate) fn realistic(instance: &Instance, store: &LabStore, paths: usize, bytes: u64) -> Result<String> {
    let mut noise = Noise::new(42);
    // Sizes over four orders of magnitude, scaled to the total: weights of 2^0 .. 2^13.
    let weights: Vec<u64> = (0..paths).map(|_| (1 << noise.below(13)) + noise.below(4)).collect();
    let total: u64 = weights.iter().sum();
    let mut written: Vec<Written> = Vec::new();
    let mut is_referred_to = vec![false; paths];
    for (number, weight) in weights.iter().enumerate() {
        let path = wire::store_path(&format!("bench-realistic-{number}"));
        let mut chosen: Vec<usize> = Vec::new();
        if number + 1 == paths {
            // The root holds together what nothing else refers to.
            chosen.extend((0..number).filter(|&other| !is_referred_to[other]));
        } else {
            let count = noise.below(7);
            chosen.extend((0..count).filter_map(|_| usize::try_from(noise.below(number as u64 + 1)).ok()));
            chosen.retain(|&other| other < number);
        }
        chosen.sort_unstable();
        chosen.dedup();
        for &other in &chosen {
            is_referred_to[other] = true;
        }
        let references = chosen.iter().map(|&other| written[other].path.clone()).collect();
        write_tree(&store.real(&path), bytes * weight / total, &mut noise)?;
        written.push(Written { path, references });
    }
    register(instance, &written)?;
    Ok(written.pop().context("no paths")?.path)
}

/// 100,000 paths, each a tiny file that refers to about four others. Gives the root, from which all are reached in 17 steps.
pub(super) fn wide(instance: &Instance, store: &LabStore) -> Result<String> {
    let name = |number: usize| wire::store_path(&format!("bench-wide-{number}"));
    let mut noise = Noise::new(7);
    let mut text = String::new();
    for number in 0..WIDE {
        let path = name(number);
        // The two below it in a binary heap, and two anywhere further down.
        let mut references = vec![2 * number + 1, 2 * number + 2];
        for _ in 0..2 {
            references.push(number + 1 + usize::try_from(noise.below(WIDE as u64))?);
        }
        references.retain(|&other| other < WIDE);
        references.sort_unstable();
        references.dedup();
        let content = format!("{number}\n");
        exec::write_file(&store.real(&path), &content)?;
        let archive = wire::archive(&content);
        // Path, hash, size, deriver, count, references.
        let (hash, size) = (wire::sha256(&archive), archive.len());
        let _ = writeln!(text, "{path}\n{hash}\n{size}\n\n{}", references.len());
        for reference in references {
            let _ = writeln!(text, "{}", name(reference));
        }
    }
    let mut command = instance.command("nix-store");
    exec::capture_within(command.arg("--load-db"), LOAD_LIMIT, text.into_bytes())?.success()?;
    Ok(name(0))
}

/// A folder of files whose sizes sum up to about `bytes`.
fn write_tree(folder: &Path, bytes: u64, noise: &mut Noise) -> Result<()> {
    exec::make_folder(&folder.join("bin"))?;
    exec::make_folder(&folder.join("share/doc"))?;
    let mut left = bytes;
    let mut number = 0;
    // Most files are small, most bytes are in a few.
    while left > 0 && number < 200 {
        let size = if number % 8 == 0 { left / 2 + 1 } else { noise.below(8192).min(left) };
        let sub = if number % 8 == 0 { "bin" } else { "share/doc" };
        let file = folder.join(sub).join(format!("file-{number}"));
        write_noise(&file, size, noise)?;
        if number % 8 == 0 {
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&file, mode)
                .with_context(|| format!("cannot make {} executable", file.display()))?;
        }
        left -= size;
        number += 1;
    }
    Ok(())
}

fn write_noise(path: &Path, bytes: u64, noise: &mut Noise) -> Result<()> {
    const BLOCK: u64 = 1 << 20;
    let context = || format!("cannot write {}", path.display());
    let mut file = File::create(path).with_context(context)?;
    let mut left = bytes;
    let mut block = Vec::new();
    while left > 0 {
        let count = left.min(BLOCK);
        block.clear();
        while (block.len() as u64) < count {
            block.extend(noise.next().to_le_bytes());
        }
        block.truncate(usize::try_from(count)?);
        file.write_all(&block).with_context(context)?;
        left -= count;
    }
    Ok(())
}

/// Nix sets modes and times, hashes, and writes its database: all in one process.
pub(super) fn register(instance: &Instance, written: &[Written]) -> Result<()> {
    let mut text = String::new();
    for Written { path, references } in written {
        // Path, deriver, count, references.
        let _ = writeln!(text, "{path}\n\n{}", references.len());
        for reference in references {
            let _ = writeln!(text, "{reference}");
        }
    }
    let mut command = instance.command("nix-store");
    exec::capture_with_input(command.arg("--register-validity"), text.into_bytes())?.success()?;
    Ok(())
}
