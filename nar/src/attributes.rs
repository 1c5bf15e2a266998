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

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::print_stderr)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use rustix::fs::{IFlags, XattrFlags, fgetxattr, fsetxattr, ioctl_setflags};

    use super::*;

    /// <https://github.com/NixOS/nixpkgs/issues/29778>: some file systems list attributes that nobody may
    /// remove. An immutable file is like that, too.
    #[test]
    fn nixpkgs_29778_an_attribute_that_cannot_be_removed_is_named_and_can_be_ignored() {
        let file = tempfile::tempfile().unwrap();
        let set = fsetxattr(&file, "user.stays", b"x", XattrFlags::empty())
            .and_then(|()| ioctl_setflags(&file, IFlags::IMMUTABLE));
        if let Err(errno) = set {
            eprintln!("LEFT OUT: attributes that cannot be removed: no immutable file can be had ({errno})");
            return;
        }
        let outcome = remove(file.as_fd(), &["user.other".into()]);
        let ignored = remove(file.as_fd(), &["user.stays".into()]);
        ioctl_setflags(&file, IFlags::empty()).unwrap();
        assert_eq!(outcome, Err((Some("user.stays".into()), Errno::PERM)));
        assert_eq!(ignored, Ok(()));
        assert!(has(&file));
        remove(file.as_fd(), &[]).unwrap();
        assert!(!has(&file));
    }

    fn has(file: &File) -> bool {
        fgetxattr(file, "user.stays", &mut [0_u8; 8][..]).is_ok()
    }

    #[test]
    fn an_attribute_that_is_gone_does_not_matter() {
        assert!(is_harmless(b"user.x", Errno::NODATA));
        assert!(!is_harmless(b"user.x", Errno::PERM));
        assert!(!is_harmless(b"com.apple.provenance", Errno::PERM));
    }
}
