//! The kernel's settings of a network namespace, below `/proc/sys/net`: each a file of one word, and that of the namespace that
//! the process is in. Knows none of them by name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// The words of switches and small numbers.
const LONGEST: usize = 64;

/// Reads one: the kernel gives all of it at once.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = [0; LONGEST];
    let length = File::open(path)?.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).trim().to_owned())
}

/// Writes one: it is no file that a kill could leave half written.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}
