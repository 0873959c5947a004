//! Where an archive goes: a file that is there whole or not at all, or standard output. What is in it is the caller's affair.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Refuses to write an archive to a person.
pub(super) fn refuse_terminal(command: &str, path: Option<&Path>) -> Result<()> {
    if path.is_none() && rustix::stdio::stdout().is_terminal() {
        return Err(Error::invalid(format!("{command}: standard output is a terminal"))
            .with_hint("use --output FILE, or `> FILE`"));
    }
    Ok(())
}

/// Hands what is to be written to: the file at `path`, or standard output. A reader who leaves has what they wanted.
pub(super) fn write<T: Default>(path: Option<&Path>, write: impl FnOnce(File) -> Result<T>) -> Result<T> {
    if let Some(path) = path {
        write_file(path, write)
    } else {
        let copy = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 0).context("standard output")?;
        match write(copy.into()) {
            Err(error) if error.errno() == Some(Errno::PIPE) => Ok(T::default()),
            answer => answer.context("write to standard output"),
        }
    }
}

/// Writes a file that is there whole or not at all; into what is no file (a pipe, a device) as it is.
fn write_file<T>(path: &Path, write: impl FnOnce(File) -> Result<T>) -> Result<T> {
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let write_into = || {
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return write(File::from(rustix::fs::open(path, flags, Mode::empty())?));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".tmp-{}", std::process::id()));
        let made = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(&name, made, Mode::from_raw_mode(0o644))?);
        let written = write(file).and_then(|written| {
            rustix::fs::rename(&name, path)?;
            Ok(written)
        });
        if written.is_err() {
            let _ = rustix::fs::unlinkat(CWD, &name, AtFlags::empty());
        }
        written
    };
    write_into().with_context(|| format!("write {}", path.display()))
}

/// Reads what `SOURCE_DATE_EPOCH` says: nothing that is written is younger.
pub(super) fn latest() -> Result<Option<i64>> {
    match std::env::var_os("SOURCE_DATE_EPOCH") {
        None => Ok(None),
        Some(value) => crate::image::write::source_date_epoch(&value.to_string_lossy()),
    }
}
