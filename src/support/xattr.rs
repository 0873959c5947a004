//! Extended attributes of open files.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::error::{Context, Result};

/// `XATTR_SIZE_MAX` of linux/limits.h: the kernel keeps none that is longer.
const MOST: usize = 64 << 10;

/// Reads an attribute; none where it is not set, or the file system has none at all.
pub fn read(fd: BorrowedFd<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::fgetxattr(fd, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if value.len() < MOST => value.resize(MOST, 0),
            Err(error) => return Err(error).with_context(|| format!("read attribute {}", name.escape_debug())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::XattrFlags;

    use super::*;

    #[test]
    fn any_length_is_read() {
        let file = tempfile::tempfile_in(std::env::current_dir().unwrap()).unwrap();
        assert_eq!(read(file.as_fd(), "user.x").unwrap(), None);
        for length in [0, 3, 256, 257, 2000] {
            let value = vec![b'v'; length];
            match rustix::fs::fsetxattr(&file, "user.x", &value, XattrFlags::empty()) {
                Ok(()) => assert_eq!(read(file.as_fd(), "user.x").unwrap(), Some(value)),
                Err(error) => assert!(matches!(error, Errno::OPNOTSUPP | Errno::NOSPC), "{length}: {error}"),
            }
        }
        assert_eq!(read(file.as_fd(), "nonsense").unwrap_or(None), None);
    }
}
