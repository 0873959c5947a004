//! Where an archive comes from: a file, or standard input.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::Path;

use crate::engine::images::load;
use crate::error::{Context, Error, Result};

/// Opens the archive at `path`; standard input without one, and for `-`. Nobody types an archive.
pub(super) fn archive(command: &str, path: Option<&Path>) -> Result<File> {
    match path.filter(|path| path.as_os_str() != "-") {
        Some(path) => load::open_input(path),
        None if std::io::stdin().is_terminal() => {
            Err(Error::invalid(format!("{command}: standard input is a terminal"))
                .with_hint("name a file, or use `< FILE`"))
        }
        None => {
            let copy = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0).context("standard input")?;
            let file = copy.into();
            load::check_input(&file).context("standard input")?;
            Ok(file)
        }
    }
}
