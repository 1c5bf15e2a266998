//! Advice to the system about what will be read. Without it, everything works, only slower.

use std::{os::fd::BorrowedFd, time::Duration};

use crate::directories::OnDisk;

/// A file of at most [`SMALL_FILE`] bytes whose reading takes longer than this did not come from memory.
/// (From memory, a tenth of that is usual; a fast solid-state disk takes twice as long.)
pub(crate) const FROM_DISK: Duration = Duration::from_micros(40);

/// The system reads ahead within a file by itself, but not from one small file to the next.
pub(crate) const SMALL_FILE: u64 = 128 * 1024;

/// How many files may be read ahead. Together with [`SMALL_FILE`] a limit of 8 MiB.
pub(crate) const FILES_AHEAD: usize = 64;

/// `file` will be read from start to end.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(crate) fn sequential(file: BorrowedFd<'_>, size: u64) {
    use rustix::fs::{Advice, fadvise};

    /// For smaller files telling is not worth a system call.
    const LARGE_FILE: u64 = 1024 * 1024;

    if size > LARGE_FILE {
        let _ = fadvise(file, 0, None, Advice::Sequential);
    }
}

/// The regular files among `entries` will be read soon.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(crate) fn soon(directory: BorrowedFd<'_>, entries: &[OnDisk]) {
    use rustix::fs::{Advice, FileType, Mode, fadvise, openat};

    use crate::directories::FILE;

    for entry in entries.iter().filter(|entry| entry.file_type == FileType::RegularFile) {
        if let Ok(file) = openat(directory, &entry.name, FILE, Mode::empty()) {
            let _ = fadvise(&file, 0, std::num::NonZeroU64::new(SMALL_FILE), Advice::WillNeed);
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(crate) fn sequential(_file: BorrowedFd<'_>, _size: u64) {}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(crate) fn soon(_directory: BorrowedFd<'_>, _entries: &[OnDisk]) {}
