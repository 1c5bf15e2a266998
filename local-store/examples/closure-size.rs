//! Prints what the closure of store paths takes: `closure-size ROOT PATH...`, where ROOT is `/`, or
//! `/mnt` for the store with files in `/mnt/nix/store`.

#![allow(clippy::print_stdout, reason = "a program")]

use std::{env, error::Error};

use ncc_local_store::{Access, LocalStore, LocalStoreConfig};
use ncc_store::Outputs;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let config = LocalStoreConfig::chroot(arguments.next().ok_or("which store?")?);
    let store = LocalStore::open(config, Access::ReadOnly)?;
    let roots = arguments.map(|path| store.store_dir().containing(&path)).collect::<Result<Vec<_>, _>>()?;
    let closure = store.query_closure(&roots, Outputs::Exclude)?;
    for info in &closure {
        println!("{:>12}  {}", info.nar_size, store.store_dir().full(&info.path));
    }
    println!("{:>12}  in {} paths", closure.iter().map(|info| info.nar_size).sum::<u64>(), closure.len());
    Ok(())
}
