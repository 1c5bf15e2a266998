//! Extended attributes that a new object inherits, such as the default ACL of the directory around.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// What went wrong, and with which attribute; `None` if they could not be listed.
pub(crate) type AttributeError = (Option<String>, Errno);

/// Removes all attributes but the labels of the system (`security.*`, which nobody inherits and
/// few may remove) and those in `ignored`.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
pub(crate) fn remove(object: BorrowedFd<'_>, ignored: &[String]) -> Result<(), AttributeError> {
    use rustix::fs::{flistxattr, fremovexattr};

    let mut names = vec![0; 1024];
    let length = loop {
        match flistxattr(object, &mut names[..]) {
            Ok(length) => break length,
            // 64 KiB is the most that Linux lists.
            Err(Errno::RANGE) if names.len() < 65536 => names.resize(65536, 0),
            // A file system without attributes.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break 0,
            Err(errno) => return Err((None, errno)),
        }
    };
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        let spared = name.starts_with(b"security.") || ignored.iter().any(|known| known.as_bytes() == name);
        if name.is_empty() || spared {
            continue;
        }
        match fremovexattr(object, name) {
            Err(errno) if !is_harmless(name, errno) => {
                return Err((Some(String::from_utf8_lossy(name).into_owned()), errno));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether an attribute is gone anyway, or belongs to the system: macOS puts `com.apple.provenance`
/// on files by itself and lets nobody remove it, and Nix removes no attributes there at all.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn is_harmless(name: &[u8], errno: Errno) -> bool {
    #[cfg(target_vendor = "apple")]
    const GONE: Errno = Errno::NOATTR;
    #[cfg(not(target_vendor = "apple"))]
    const GONE: Errno = Errno::NODATA;
    errno == GONE
        || cfg!(target_vendor = "apple") && (errno == Errno::PERM || name.starts_with(b"com.apple."))
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(crate) fn remove(_object: BorrowedFd<'_>, _ignored: &[String]) -> Result<(), AttributeError> {
    Ok(())
}
