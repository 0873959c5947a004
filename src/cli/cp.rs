//! `husk cp`: files into and out of containers.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;

use super::report;
use super::status::Status;
use crate::engine::copy::{self, End, Options};
use crate::engine::engine::Engine;
use crate::engine::settings;
use crate::error::{Error, Result};

/// Copy files between a container and this machine
///
/// One of the two is CONTAINER:PATH. `-` is a tar, on standard input or output. A directory is copied with all that is in it;
/// DIR/. is what is in it alone. An existing directory gets what is copied below it, by its name. What comes into a container
/// is its root's, what comes out is the caller's. Devices and sockets are not copied.
#[derive(Debug, Args)]
#[command(
    override_usage = "husk cp [OPTIONS] CONTAINER:SOURCE DESTINATION|-\n       husk cp [OPTIONS] SOURCE|- CONTAINER:DESTINATION"
)]
pub(super) struct Cp {
    /// Keep owners, and set-user-id bits
    #[arg(long, short)]
    archive: bool,
    /// Copy what a symlink that is named as the source leads to
    #[arg(long, short = 'L')]
    follow_link: bool,
    /// Let directories give way to files, and files to directories
    #[arg(long)]
    overwrite: bool,
    /// Do not say what was left out
    #[arg(long, short)]
    quiet: bool,
    /// What to copy
    #[arg(value_name = "[CONTAINER:]SOURCE")]
    source: OsString,
    /// Where to
    #[arg(value_name = "[CONTAINER:]DESTINATION")]
    destination: OsString,
}

/// Runs `cp`.
pub(super) fn run(args: &Cp) -> Result<Status> {
    let (source, destination) = (parse(&args.source)?, parse(&args.destination)?);
    if source == End::Stream && std::io::stdin().is_terminal() {
        return Err(Error::invalid("cp: standard input is a terminal"));
    }
    if destination == End::Stream && std::io::stdout().is_terminal() {
        return Err(
            Error::invalid("cp: standard output is a terminal").with_hint("name a directory, or use `| tar -t`")
        );
    }
    let options = Options { archive: args.archive, follow: args.follow_link, overwrite: args.overwrite };
    let engine = Engine::open(settings::File::default())?;
    for line in copy::copy(&engine, &source, &destination, options)? {
        if !args.quiet {
            report::note(&line);
        }
    }
    Ok(Status::Success)
}

/// Reads an end as docker does: what begins with a slash or a dot is this machine's, whatever colons follow.
fn parse(word: &OsStr) -> Result<End> {
    if word == "-" {
        return Ok(End::Stream);
    }
    let bytes = word.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':');
    match colon.filter(|_| !matches!(bytes.first(), Some(b'/' | b'.'))) {
        None if bytes.is_empty() => Err(Error::invalid("cp: a path is empty")),
        None => Ok(End::Host(PathBuf::from(word))),
        Some(0) => Err(Error::invalid(format!("cp: {}: no container before the colon", word.display()))),
        Some(at) if at + 1 == bytes.len() => {
            Err(Error::invalid(format!("cp: {}: no path after the colon", word.display())))
        }
        Some(at) => Ok(End::Container {
            reference: String::from_utf8_lossy(&bytes[..at]).into_owned(),
            path: PathBuf::from(OsStr::from_bytes(&bytes[at + 1..])),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_as_docker_reads_them() {
        let container = |path: &str| End::Container { reference: "web".to_owned(), path: path.into() };
        for (word, end) in [
            ("-", End::Stream),
            ("web:/etc", container("/etc")),
            ("web:etc/.", container("etc/.")),
            ("web:a:b", container("a:b")),
            ("./web:x", End::Host("./web:x".into())),
            ("/tmp/web:x", End::Host("/tmp/web:x".into())),
            ("file", End::Host("file".into())),
        ] {
            assert_eq!(parse(OsStr::new(word)).unwrap(), end, "{word}");
        }
        assert!([":x", "web:", ""].iter().all(|word| parse(OsStr::new(word)).is_err()));
    }
}
