//! `checkpoint`: saves a container's processes, by way of CRIU. The words that `restore` has, too, are here.

use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use rustix::io::Errno;

use super::{Invocation, Verb};
use crate::cli::report;
use crate::cli::status::Status;
use crate::error::{Context, Error, Result};
use crate::runtime::checkpoint::Request;
use crate::runtime::criu::{CgroupMode, NetworkLock, Options};

/// checkpoint a running container
#[derive(Debug, Parser)]
#[command(name = "checkpoint")]
pub(super) struct Checkpoint {
    #[command(flatten)]
    common: Common,
    /// Older images to build on, relative to the image path
    #[arg(long, value_name = "PATH")]
    parent_path: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    leave_running: bool,
    /// Pass over TCP connections that are being made
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Give removed files a name for the time being
    #[arg(long)]
    link_remap: bool,
    /// Descriptor that gets a zero byte when the pages of a lazy checkpoint can be asked for
    #[arg(long, value_name = "FD", default_value_t = -1, allow_negative_numbers = true)]
    status_fd: i32,
    /// Server that memory is sent to
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Save memory only, and let the container go on
    #[arg(long)]
    pre_dump: bool,
    /// Container id
    id: String,
}

// What `checkpoint` and `restore` have in common; a doc comment would become the help text of both.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Directory of the images
    #[arg(long, value_name = "PATH", default_value = "checkpoint")]
    image_path: PathBuf,
    /// Directory of the log and other work files
    #[arg(long, value_name = "PATH")]
    work_path: Option<PathBuf>,
    /// Allow established TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Allow Unix sockets that lead out of the container
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow a session that a shell outside leads
    #[arg(long)]
    shell_job: bool,
    /// Save file locks
    #[arg(long)]
    file_locks: bool,
    /// What to do with cgroups: soft, full, strict, ignore
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<String>,
    /// Namespace to make without what is in it: network
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// Drop pages from images that newer ones have
    #[arg(long)]
    auto_dedup: bool,
    /// Move memory when it is touched
    #[arg(long)]
    lazy_pages: bool,
    /// How connections are held meanwhile: iptables, nftables, skip
    #[arg(long, value_name = "METHOD")]
    network_lock: Option<String>,
}

impl Verb for Checkpoint {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self {
            common,
            parent_path,
            leave_running,
            tcp_skip_in_flight,
            link_remap,
            status_fd,
            page_server,
            pre_dump,
            id,
        } = self;
        warn_if_rootless();
        let lazy_pages = common.lazy_pages;
        let options = common.options()?;
        let request = Request {
            parent_path: parent_path.map(|parent| check_parent(&options.image_path, parent)).transpose()?,
            options,
            leave_running,
            pre_dump,
            link_remap,
            tcp_skip_in_flight,
            page_server: page_server.as_deref().map(parse_page_server).transpose()?,
            status: if lazy_pages && status_fd != -1 { Some(open_status(status_fd)?) } else { None },
        };
        invocation.runtime.checkpoint(&id, &request).map(|()| Status::Success)
    }
}

impl Common {
    /// Consults the working directory for what was not said.
    pub(super) fn options(self) -> Result<Options> {
        if let Some(name) = self.empty_ns.iter().find(|name| *name != "network") {
            return Err(Error::invalid(format!("namespace {name:?} is not supported")));
        }
        let absolute = |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
        Ok(Options {
            image_path: absolute(&self.image_path)?,
            work_path: self.work_path.as_deref().map(absolute).transpose()?,
            tcp_established: self.tcp_established,
            external_unix_sockets: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            cgroups: self.manage_cgroups_mode.as_deref().map_or(Ok(CgroupMode::Default), CgroupMode::parse)?,
            network_lock: self.network_lock.as_deref().map(NetworkLock::parse).transpose()?,
        })
    }
}

/// CRIU has to do what only root may.
pub(super) fn warn_if_rootless() {
    if !rustix::process::geteuid().is_root() {
        report::note("warning: checkpoint and restore are untested without root");
    }
}

/// CRIU makes a link to it in the images, so it is relative to them.
fn check_parent(images: &Path, parent: PathBuf) -> Result<PathBuf> {
    if parent.is_absolute() {
        return Err(Error::invalid("--parent-path must be relative"));
    }
    let path = images.join(&parent);
    let is_directory = || -> Result<(), Errno> {
        let stat = rustix::fs::stat(&path)?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if kind == rustix::fs::FileType::Directory { Ok(()) } else { Err(Errno::NOTDIR) }
    };
    is_directory().with_context(|| format!("invalid --parent-path: {}", path.display()))?;
    Ok(parent)
}

/// Takes `1.2.3.4:5`, `host:5` and `[::1]:5` apart.
fn parse_page_server(text: &str) -> Result<(String, u16)> {
    let usage = || Error::invalid("Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(usage)?;
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if bare.is_empty() || port.is_empty() || (bare == address && address.contains(':')) {
        return Err(usage());
    }
    match port.parse() {
        Ok(port) => Ok((bare.to_owned(), port)),
        Err(_) => Err(Error::invalid("Invalid port number")),
    }
}

/// Opens the caller's descriptor again, so that the caller's own is never ours to close.
fn open_status(number: i32) -> Result<std::fs::File> {
    let describe = || format!("invalid --status-fd argument {number}");
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).with_context(describe)?;
    let flags = text.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    if flags.is_none_or(|flags| flags & ACCESS_MODES == 0) {
        return Err(Error::invalid("not writable").context(describe()));
    }
    std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}")).with_context(describe)
}

/// `O_WRONLY | O_RDWR`; without either a descriptor is for reading.
const ACCESS_MODES: u32 = 0o3;

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn page_servers() {
        for (text, expected) in
            [("127.0.0.1:27277", ("127.0.0.1", 27277)), ("host:1", ("host", 1)), ("[::1]:80", ("::1", 80))]
        {
            let (address, port) = parse_page_server(text).unwrap();
            assert_eq!((address.as_str(), port), expected, "{text}");
        }
        for text in ["", "host", ":80", "host:", "::1:80", "host:x", "host:70000"] {
            assert!(parse_page_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_status_descriptor_must_be_open_for_writing() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(open_status(null.as_raw_fd()).unwrap_err().report().contains("not writable"));
        assert!(open_status(1 << 20).is_err());
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        open_status(null.as_raw_fd()).unwrap();
    }
}
