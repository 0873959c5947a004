//! Man pages, and the shells' completions, made from the commands' definitions (`husk internal docs DIR`, for `make install`).

use std::path::{Path, PathBuf};

use clap::Parser;

use super::complete::Shell;
use super::status::Status;
use crate::error::{Context, Result};

/// Write man pages and completions
#[derive(Debug, Parser)]
#[command(name = "husk internal docs")]
pub(super) struct Docs {
    /// Directory to write man/ and completions/ to
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes both.
pub(super) fn run(args: Docs, command: clap::Command) -> Result<Status> {
    let Docs { directory } = args;
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    for directory in [&man, &completions] {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    for (shell, name) in Shell::ALL {
        write(&completions.join(name), shell.script().as_bytes())?;
    }
    write_pages(command.disable_help_subcommand(true), "husk", &man)?;
    Ok(Status::Success)
}

/// Writes the page of a command and those of its subcommands, `husk-run.1` for `husk run`.
fn write_pages(command: clap::Command, name: &str, directory: &Path) -> Result<()> {
    // The builder wants names that live as long as the program; there are a few dozen.
    let command = command.name(&*name.to_owned().leak());
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text).context("render a man page")?;
    write(&directory.join(format!("{name}.1")), &text)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below.clone(), &format!("{name}-{}", below.get_name()), directory)?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "made anew by every install, and no state")]
fn write(path: &Path, text: &[u8]) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let directory = tempfile::tempdir().unwrap();
        run(Docs { directory: directory.path().to_owned() }, super::super::engine::command()).unwrap();
        let names = |below: &str| -> Vec<String> {
            let entries = std::fs::read_dir(directory.path().join(below)).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        for page in ["husk.1", "husk-run.1", "husk-unshare.1", "husk-oci.1", "husk-oci-create.1"] {
            assert!(names("man").contains(&page.to_owned()), "{page} is missing");
        }
        assert_eq!(names("completions").len(), Shell::ALL.len());
        let page = std::fs::read_to_string(directory.path().join("man/husk-run.1")).unwrap();
        assert!(page.contains("\\-\\-entrypoint"), "{page}");
    }
}
