//! The lower directories of an overlay, one `fsconfig(2)` each.
//!
//! A string option of the new mount API holds at most 255 bytes, and the old API at most a page for all of them: deep
//! images need neither with `lowerdir+` (kernel 6.7).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::fsconfig_set_string;

use crate::error::{Context, Result};

/// Longest value that fsconfig(2) takes for a string.
const STRING_LIMIT: usize = 255;

/// Sets the lower directories of `value`, which is `lowerdir=` of the kernel's overlayfs.rst: topmost first, separated by
/// colons, with `\:` for a colon and `\\` for a backslash in a name.
pub fn set_lower_directories(context: &OwnedFd, value: &CStr) -> Result<()> {
    for directory in split(value.to_bytes()) {
        let directory = CString::new(directory)?;
        match fsconfig_set_string(context.as_fd(), c"lowerdir+", &directory) {
            Ok(()) => {}
            // KERNEL(6.7): drop this; before it, one string holds them all.
            Err(Errno::INVAL) if value.to_bytes().len() <= STRING_LIMIT => {
                return fsconfig_set_string(context.as_fd(), c"lowerdir", value).context("set option lowerdir");
            }
            Err(errno) => {
                return Err(errno).with_context(|| format!("set option lowerdir+={}", directory.to_string_lossy()));
            }
        }
    }
    Ok(())
}

fn split(value: &[u8]) -> Vec<Vec<u8>> {
    let mut directories = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        let last = directories.len() - 1;
        match byte {
            b'\\' => directories[last].extend(bytes.next()),
            b':' => directories.push(Vec::new()),
            _ => directories[last].push(byte),
        }
    }
    directories
}

/// Escapes a path for use in [`set_lower_directories`]'s value, or as an upper or work directory.
pub fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_split_and_names_with_colons_kept() {
        let names = ["/a", "/b:c", "/d\\e"];
        let value = names.map(escape).join(":");
        assert_eq!(split(value.as_bytes()), names.map(|name| name.as_bytes().to_vec()));
    }
}
