//! Measures this store on this machine: `cargo run --profile fast -p ncc-local-store --example measure`.
//!
//! Many tiny paths in and out, one large file, and closures out of a database of 100,000 paths. Where `nix-store` is
//! installed, its import of the same tiny paths is the yardstick.

#![allow(clippy::print_stdout, reason = "a program")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures"
)]

use std::{
    collections::HashMap,
    error::Error,
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use futures_util::StreamExt as _;
use ncc_local_store::{Access, LocalStore, LocalStoreConfig};
use ncc_store::{
    Destination as _, NarPlan, OnFailure, Outcome, Outputs, PathInfo, Source, StorePath, ValidityQuery,
    test_util::MemoryStore,
};

const TINY_PATHS: usize = 10_000;
const LARGE_FILE: u64 = 1 << 30;
const ROWS: i64 = 100_000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().canonicalize()?;
    let open = |name: &str| {
        let config = LocalStoreConfig::chroot(root.join(name));
        LocalStore::open(config, Access::ReadWrite)
    };
    tiny_paths(&root, &open("tiny")?, &open("copy")?).await?;
    large_file(&root, &open("large")?, &open("large-copy")?).await?;
    many_rows(&open("rows")?)?;
    println!("peak memory of all this: {}", peak_memory());
    Ok(())
}

async fn tiny_paths(root: &Path, store: &LocalStore, copy: &LocalStore) -> Result<()> {
    let memory = MemoryStore::new("memory").with_block_size(1 << 16);
    let chain = memory.add_chain(TINY_PATHS);
    let start = Instant::now();
    store.valid_paths(&chain, ValidityQuery::default().locking()).await?;
    say("look up and root tiny paths", start, TINY_PATHS);

    let start = Instant::now();
    add(store, &memory, memory.infos(&chain)).await?;
    say("add tiny paths", start, TINY_PATHS);
    let ours = start.elapsed();

    let start = Instant::now();
    let infos: Vec<_> = infos(store, &chain)?.into_iter().collect();
    say("compute their closure", start, TINY_PATHS);

    let start = Instant::now();
    let plan: NarPlan = infos.clone().into();
    let nars = store.nars(plan.clone());
    for info in plan.iter() {
        let mut body = nars.open(info, 0).await?;
        while let Some(block) = body.next().await {
            block?;
        }
    }
    say("pack tiny paths", start, TINY_PATHS);

    let start = Instant::now();
    add(copy, store, by_chain(infos, &chain).into()).await?;
    say("copy tiny paths from store to store", start, TINY_PATHS);

    if let Ok(export) = export(root, &chain) {
        let start = Instant::now();
        let status = Command::new("nix-store")
            .args(["--import", "--store"])
            .arg(root.join("nix"))
            .env("NIX_REMOTE", "")
            .stdin(File::open(export)?)
            .stdout(Stdio::null())
            .status()?;
        if status.success() {
            say("nix-store --import of the tiny paths", start, TINY_PATHS);
            println!("adding takes {:.2} of its time", ours.as_secs_f64() / start.elapsed().as_secs_f64());
        }
    } else {
        println!("no nix-store here to compare with");
    }
    Ok(())
}

fn by_chain(mut infos: Vec<Arc<PathInfo>>, chain: &[StorePath]) -> Vec<Arc<PathInfo>> {
    let places: HashMap<&StorePath, usize> =
        chain.iter().enumerate().map(|(place, path)| (path, place)).collect();
    infos.sort_by_key(|info| places.get(&info.path).copied());
    infos
}

fn infos(store: &LocalStore, chain: &[StorePath]) -> Result<Vec<Arc<PathInfo>>> {
    let last = chain.last().ok_or("no paths")?;
    let closure = store.query_closure(std::slice::from_ref(last), Outputs::Exclude)?;
    Ok(closure.into_iter().map(Arc::new).collect())
}

async fn add(store: &LocalStore, source: &dyn Source, plan: NarPlan) -> Result<()> {
    let nars = source.nars(plan.clone());
    let mut outcomes = store.add_all(plan, nars, OnFailure::Stop);
    while let Some(outcome) = outcomes.next().await {
        match outcome? {
            Outcome::Added(_) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

/// Lets Nix itself write its export of the tiny paths.
fn export(root: &Path, chain: &[StorePath]) -> Result<std::path::PathBuf> {
    let file = root.join("export");
    let status = Command::new("nix-store")
        .arg("--store")
        .arg(root.join("tiny"))
        .arg("--export")
        .args(chain.iter().map(|path| format!("/nix/store/{path}")))
        .env("NIX_REMOTE", "")
        .stdout(File::create(&file)?)
        .status()?;
    if status.success() { Ok(file) } else { Err("nix-store --export failed".into()) }
}

async fn large_file(root: &Path, store: &LocalStore, copy: &LocalStore) -> Result<()> {
    let path = root.join("large-file");
    let mut file = File::create(&path)?;
    let block: Vec<u8> = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
    for _ in 0..LARGE_FILE >> 20 {
        file.write_all(&block)?;
    }
    drop(file);
    let start = Instant::now();
    let info = Arc::new(store.add_tree("large", &path, [])?);
    println!("hash and add a file of 1 GiB: {:.2} s", start.elapsed().as_secs_f64());
    fs::remove_file(&path)?;
    let start = Instant::now();
    add(copy, store, [info].into()).await?;
    println!("copy it from store to store: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// A database alone: each path refers to the ten before it, so that the closure of path `n` has `n` paths.
fn many_rows(store: &LocalStore) -> Result<()> {
    let mut connection = rusqlite::Connection::open(store.state_dir().join("db/db.sqlite"))?;
    let transaction = connection.transaction()?;
    let path = |id: i64| StorePath::from_parts(&[0; 20].map(|_: u8| (id % 256) as u8), &format!("path-{id}"));
    for id in 1..=ROWS {
        let path = store.store_dir().full(&path(id)?);
        transaction
            .prepare_cached("insert into ValidPaths values (?1, ?2, ?3, 1, null, 120, null, null, null)")?
            .execute(rusqlite::params![id, path, format!("sha256:{:064x}", id)])?;
        for reference in (1..=10).map(|step| id - step).filter(|reference| *reference > 0) {
            transaction.prepare_cached("insert into Refs values (?1, ?2)")?.execute([id, reference])?;
        }
    }
    transaction.commit()?;
    for root in [ROWS, 10_000, 1_000, 100] {
        let start = Instant::now();
        let closure = store.query_closure(&[path(root)?], Outputs::Include)?;
        say(&format!("closure among {ROWS} rows"), start, closure.len());
    }
    // What a closure would cost at least if both tables were read whole.
    let start = Instant::now();
    let mut bytes = 0;
    for table in ["ValidPaths", "Refs"] {
        let mut statement = connection.prepare(&format!("select * from {table}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            bytes += match row.get_ref(1)? {
                rusqlite::types::ValueRef::Text(text) => text.to_vec().len(),
                _ => 8,
            };
        }
    }
    say(&format!("read both tables whole ({bytes} bytes)"), start, usize::try_from(ROWS)?);

    let asked = (1..=10_000).map(|id| path(id * 20)).collect::<std::result::Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let valid = store.query_valid_paths(&asked)?;
    say(&format!("look up paths ({} valid)", valid.len()), start, asked.len());
    Ok(())
}

fn say(what: &str, start: Instant, count: usize) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {count} in {seconds:.3} s, {:.1} us each", seconds * 1e6 / count as f64);
}

fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |size| size.trim().to_owned())
}
