//! The lower directories of an overlay, one `fsconfig(2)` each.
//!
//! A string option of the new mount API holds at most 255 bytes, and the old API at most a page for all of them: deep
//! images need neither with `lowerdir+` (kernel 6.7). Older kernels get the page.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, fsconfig_set_string};

use crate::error::{Context, Error, Result};
use crate::support::root::Root;

/// Longest value that fsconfig(2) takes for a string.
const STRING_LIMIT: usize = 255;

/// What mount(2) takes of options.
const PAGE_BYTES: usize = 4096;

/// Sets the lower directories of `value`, which is `lowerdir=` of the kernel's overlayfs.rst: topmost first, separated by
/// colons, with `\:` for a colon and `\\` for a backslash in a name.
pub fn set_lower_directories(context: &OwnedFd, value: &CStr) -> Result<()> {
    let directories = split(value.to_bytes());
    if let ([_], true) = (&directories[..], value.to_bytes().len() <= STRING_LIMIT) {
        // Understood by every kernel.
        return fsconfig_set_string(context.as_fd(), c"lowerdir", value).context("set option lowerdir");
    }
    for directory in directories {
        let directory = CString::new(directory)?;
        fsconfig_set_string(context.as_fd(), c"lowerdir+", &directory)
            .with_context(|| format!("set option lowerdir+={}", directory.to_string_lossy()))?;
    }
    Ok(())
}

/// Says whether this kernel's overlayfs takes its layers one by one (6.7; before 6.5 it takes any option and fails late).
fn takes_single_layers() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
}

/// Mounts an overlay on a directory by mount(2), whose options are one page for all of them; gives the new mount.
///
/// KERNEL(6.7): drop this.
fn mount_by_page(place: &Path, data: &[(CString, Option<CString>)]) -> Result<OwnedFd> {
    let mut options = Vec::new();
    for (key, value) in data {
        if !options.is_empty() {
            options.push(b',');
        }
        options.extend_from_slice(key.to_bytes());
        if let Some(value) = value {
            options.push(b'=');
            options.extend_from_slice(value.to_bytes());
        }
    }
    if options.len() >= PAGE_BYTES {
        return Err(Error::unsupported(format!("the overlay's options need {} bytes", options.len()))
            .with_hint("before kernel 6.7 they have a page: use an image with fewer layers, or a shorter data_root"));
    }
    let options = CString::new(options)?;
    rustix::mount::mount(c"overlay", place, c"overlay", MountFlags::empty(), Some(&*options))?;
    Ok(Root::open(place)?.into_fd())
}

/// Attaches a new overlay to a directory of the host's, and gives a descriptor of its root.
pub fn attach(
    place: &Path,
    data: &[(CString, Option<CString>)],
    make: impl FnOnce() -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    if !takes_single_layers() {
        return mount_by_page(place, data);
    }
    let tree = make()?;
    super::mount::attach(&tree, Root::open(place)?)?;
    Ok(tree)
}

/// Takes apart what [`escape`] and colons have put together.
pub fn split(value: &[u8]) -> Vec<Vec<u8>> {
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
