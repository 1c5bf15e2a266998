//! Extended attributes that a new object inherits, such as the default ACL of the directory around.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// Removes all attributes but the labels of the system (`security.*`, which nobody inherits and
/// few may remove) and NFS ACLs (which cannot be removed; Nix spares them too).
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
pub(crate) fn remove(object: BorrowedFd<'_>) -> Result<(), Errno> {
    use rustix::fs::{flistxattr, fremovexattr};

    let mut names = vec![0; 1024];
    let length = loop {
        match flistxattr(object, &mut names[..]) {
            Ok(length) => break length,
            // 64 KiB is the most that Linux lists.
            Err(Errno::RANGE) if names.len() < 65536 => names.resize(65536, 0),
            // A file system without attributes.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break 0,
            Err(errno) => return Err(errno),
        }
    };
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        if name.is_empty() || name.starts_with(b"security.") || name == b"system.nfs4_acl" {
            continue;
        }
        fremovexattr(object, name)?;
    }
    Ok(())
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(crate) fn remove(_object: BorrowedFd<'_>) -> Result<(), Errno> {
    Ok(())
}
