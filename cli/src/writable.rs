//! A store that is mounted read-only, as on NixOS, is made writable for this process alone.
//!
//! Nix does the same: its store is a read-only bind mount for everybody, and whoever writes as root remounts it in a
//! mount namespace of its own. A namespace is per thread, so this happens before there is a second one.

use ncc_local_store::LocalStoreConfig;

/// Makes the store writable if it is mounted read-only and this process may do so.
///
/// What goes wrong is left to the opening of the store, which says that it is read-only.
#[cfg(target_os = "linux")]
pub(crate) fn make(config: &LocalStoreConfig) {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
        sys::statvfs::{FsFlags, statvfs},
    };
    let store = &config.real_store_dir;
    let is_read_only = statvfs(store).is_ok_and(|status| status.flags().contains(FsFlags::ST_RDONLY));
    if !is_read_only || !rustix::process::geteuid().is_root() {
        return;
    }
    let none = None::<&str>;
    let result = unshare(CloneFlags::CLONE_NEWNS)
        // What is mounted here is not to be seen outside.
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| mount(none, store, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none));
    if let Err(error) = result {
        tracing::debug!(%error, store = %store.display(), "the read-only store cannot be remounted");
    }
}

/// Elsewhere there is nothing to do.
#[cfg(not(target_os = "linux"))]
pub(crate) fn make(_: &LocalStoreConfig) {}
