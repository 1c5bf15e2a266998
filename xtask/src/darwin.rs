//! `cargo xtask darwin`: whether everything compiles for macOS, as far as types go. No Mac is needed, no linker and no headers:
//! Debian's compiler checks the standard library from its sources, and SQLite is not built along.

use anyhow::Result;

use crate::namespace;
use crate::toolchain::{self, CHECK, Toolchain};

/// The processors that there are Macs with.
const TARGETS: [&str; 2] = ["aarch64-apple-darwin", "x86_64-apple-darwin"];

/// Where the results go, below the target folder.
const TARGET_FOLDER: &str = "darwin";

/// Before the namespace: what may need the network.
pub(crate) fn prepare() -> Result<bool> {
    if !namespace::is_inside() {
        toolchain::fetch(&namespace::workspace().join("Cargo.toml"))?;
    }
    Ok(true)
}

pub(crate) fn run() -> Result<()> {
    let toolchain = Toolchain::start(&CHECK)?;
    toolchain::fetch(&toolchain::standard_library(&toolchain)?.join("Cargo.toml"))?;
    let mut cargo = toolchain.cargo(TARGET_FOLDER);
    cargo
        // -Zbuild-std is not stable yet; Debian's compiler may do it all the same.
        .env("RUSTC_BOOTSTRAP", "1")
        // cargo would have the standard library made, not only checked, which takes minutes. (Not for build scripts, which run here.)
        .env("RUSTFLAGS", "-Zno-codegen")
        // SQLite and zstd of the system's, of which only declarations are needed. Who asks where they are gets an answer without a
        // folder in it: there is none, and nothing is linked.
        .env("LIBSQLITE3_SYS_USE_PKG_CONFIG", "1")
        .env("ZSTD_SYS_USE_PKG_CONFIG", "1")
        .env("PKG_CONFIG", "echo")
        .env("PKG_CONFIG_ALLOW_CROSS", "1")
        .args(["check", "--locked", "-Zbuild-std=std,panic_abort"])
        // What ships, with the program's default features, and xtask, for the two commands of the README.
        .args(["--workspace", "--exclude", "ncc-transport-ssh2"]);
    for target in TARGETS {
        cargo.args(["--target", target]);
    }
    toolchain::run(&mut cargo)?;
    println!("everything that ships compiles for {}", TARGETS.join(" and "));
    Ok(())
}
