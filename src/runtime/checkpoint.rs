//! Saves a container's processes with CRIU.
//!
//! What is not CRIU's to save is named to it: binds of the host, cgroups shown by binds, namespaces that were there
//! before. Where such a mount is comes from the kernel (the mount that the destination leads to now, inside the
//! container's root), not from putting paths together: an image can make a destination a symlink (CVE-2026-119101).

use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::cgroup_view;
use super::container::{Runtime, destroy, not_found};
use super::criu::{self, Verb};
use super::landlock;
use super::state::{State, Status};
use crate::cgroups::{self, Cgroup};
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::plan::{NamespacePlan, Privileged};
use crate::rootfs::plan::{MountSource, RootSource, RootfsPlan, Surroundings};
use crate::support::atomic;
use crate::support::mountinfo::{self, Mount};
use crate::support::root::Root;
use crate::sys::clone::CloneFlags;

/// What `checkpoint` is asked for.
#[derive(Debug, Default)]
pub struct Request {
    /// What restoring has, too.
    pub options: criu::Options,
    /// An older image, relative to this one.
    pub parent_path: Option<PathBuf>,
    /// Whether the container goes on.
    pub leave_running: bool,
    /// Whether only memory is saved, ahead of the real thing.
    pub pre_dump: bool,
    /// Whether files that have no name any more get one for the time being.
    pub link_remap: bool,
    /// Whether connections that are being made are passed over.
    pub tcp_skip_in_flight: bool,
    /// Where memory is sent instead of into files.
    pub page_server: Option<(String, u16)>,
    /// Told when the pages of a lazy dump can be asked for.
    pub status: Option<std::fs::File>,
}

/// Where the names of the standard streams are kept beside the images, as runc has it.
pub(super) const DESCRIPTORS_FILE: &str = "descriptors.json";

/// The key of what covers masked files; keys of destinations begin with a slash.
pub(super) const NULL_KEY: &str = "null";

impl Runtime {
    /// Saves a container. Unless it is to go on, it is gone afterwards.
    pub fn checkpoint(&self, id: &str, request: &Request) -> Result<()> {
        let directory = self.root.open(id)?;
        let state = directory.load()?.ok_or_else(|| not_found(id))?;
        let status = Self::status(&directory, &state)?;
        if !matches!(status, Status::Running | Status::Paused) {
            return Err(Error::new(Kind::State, format!("Container cannot be checkpointed in {status} state")));
        }
        let spec = directory.load_config()?.or(directory.load_unpublished_config()?);
        let spec = spec.ok_or_else(|| Error::new(Kind::State, format!("container {id} has no configuration")))?;
        let facts = Facts::of(&spec, &state)?;
        facts.refuse_what_would_be_lost()?;
        let verb = if request.pre_dump { Verb::PreDump } else { Verb::Dump };
        let dump = criu::Request::new(verb, &request.options)?;
        let dump = facts.describe(flags(dump, request), request)?;
        let ready = |script: &str, _| match &request.status {
            Some(file) if script == "status-ready" => (&mut &*file).write_all(&[0]).context("tell --status-fd"),
            _ => Ok(()),
        };
        dump.run(|dump, _| Ok(dump), ready)?;
        if !request.leave_running && !request.pre_dump {
            destroy(&directory, &state)?;
        }
        Ok(())
    }
}

fn flags(dump: criu::Request, request: &Request) -> criu::Request {
    let mut dump = dump.dump_flags(request.leave_running, request.link_remap, request.tcp_skip_in_flight);
    if let Some(parent) = &request.parent_path {
        dump = dump.parent_image(parent);
    }
    if let Some((address, port)) = &request.page_server {
        dump = dump.page_server(address, *port);
    }
    dump
}

/// A container's configuration beside what is there now.
struct Facts<'a> {
    spec: &'a Spec,
    state: &'a State,
    rootfs: RootfsPlan,
    namespaces: NamespacePlan,
    cgroup: Cgroup,
}

impl<'a> Facts<'a> {
    fn of(spec: &'a Spec, state: &'a State) -> Result<Self> {
        let namespaces = crate::namespaces::plan::plan(spec, Privileged::Yes)?;
        let surroundings = Surroundings {
            has_mount_namespace: namespaces.creates(CloneFlags::NEWNS),
            has_user_namespace: namespaces.has_own(LinuxNamespaceType::User),
            no_pivot: false,
            id_maps: namespaces.id_maps.as_ref(),
        };
        let rootfs = crate::rootfs::plan::plan(spec, &state.bundle, surroundings)?;
        let cgroup = Cgroup::open(state.cgroups.clone().unwrap_or_default())?;
        Ok(Self { spec, state, rootfs, namespaces, cgroup })
    }

    /// CRIU does not know of these, and would bring the container back with more rights than it has.
    fn refuse_what_would_be_lost(&self) -> Result<()> {
        let lost = |what: &str| Err(Error::unsupported(format!("checkpoint: criu does not save {what}")));
        if matches!(self.rootfs.root, RootSource::Mount(..)) {
            return lost("a root file system that is a mount of the configuration");
        }
        if let Some(mount) =
            self.rootfs.mounts.iter().find(|mount| mount.id_maps.is_some() || mount.options.idmap.is_some())
        {
            return lost(&format!("the id maps of mounts ({})", mount.destination.display()));
        }
        // Nothing shows a process's Landlock domain, so nobody can save it.
        let annotations = self.spec.annotations().as_ref();
        let rules = annotations.and_then(|annotations| annotations.get(landlock::ANNOTATION)).map(String::as_str);
        if landlock::plan(rules, &mut Vec::new())?.is_some() {
            return lost(&format!("Landlock's rules ({})", landlock::ANNOTATION));
        }
        Ok(())
    }

    /// Tells CRIU of the process and of all that is not its own.
    fn describe(&self, dump: criu::Request, request: &Request) -> Result<criu::Request> {
        let mut dump = dump.process(self.state.pid).root(&self.state.rootfs);
        if let Some(file) = config_file(self.spec) {
            dump = dump.config_file(file);
        }
        for (kind, word, key) in EXTERNAL_NAMESPACES {
            if let Some(join) = self.namespaces.join.iter().find(|join| join.kind == kind) {
                let inode = rustix::fs::fstat(&join.fd).context("inspect a namespace")?.st_ino;
                dump = dump.external_namespace(word, inode, key);
            }
        }
        let record = self.cgroup.record();
        let paths = record.cgroup_paths();
        if let Some(path) = paths.get("freezer").or_else(|| paths.get("")) {
            dump = dump.freeze_cgroup(path);
        }
        if request.pre_dump {
            return Ok(dump);
        }
        for (place, key) in self.external_mounts()? {
            dump = dump.external_mount(&place, key.as_bytes());
        }
        self.write_descriptors(dump.images())?;
        Ok(dump)
    }

    /// Finds the mounts that are the host's: where each is, and its key.
    fn external_mounts(&self) -> Result<Vec<(Vec<u8>, String)>> {
        let process = Path::new("/proc").join(self.state.pid.to_string());
        // With the dot the link is followed; it leads into the container's mount namespace.
        let root = Root::open(&process.join("root/."))?;
        let table = process.join("mountinfo");
        let table = std::fs::read(&table).with_context(|| format!("read {}", table.display()))?;
        let mounts = mountinfo::parse(&table)?;
        let mut found: Vec<(u32, Vec<u8>, String)> = Vec::new();
        let mut add = |path: &Path, key: String, accepts: fn(FileType) -> bool| -> Result<()> {
            let Some(mount) = mount_at(&root, path, &mounts, accepts)? else { return Ok(()) };
            if !found.iter().any(|(id, ..)| *id == mount.id) {
                found.push((mount.id, unambiguous(mount, &mounts)?, key));
            }
            Ok(())
        };
        for (path, _) in shown_from_host(&self.rootfs, &self.namespaces, &self.cgroup)? {
            add(&path, key_of(&path), |_| true)?;
        }
        for path in &self.rootfs.masked_paths {
            add(path, NULL_KEY.to_owned(), |kind| kind != FileType::Directory)?;
        }
        Ok(found.into_iter().map(|(_, place, key)| (place, key)).collect())
    }

    /// Writes what the standard streams are, so that pipes can be replaced by those of whoever restores.
    fn write_descriptors(&self, images: BorrowedFd<'_>) -> Result<()> {
        let mut names = Vec::with_capacity(3);
        for number in 0..3 {
            let link = format!("/proc/{}/fd/{number}", self.state.pid);
            let name = match rustix::fs::readlinkat(CWD, &link, Vec::new()) {
                Ok(name) => name.to_string_lossy().into_owned(),
                Err(Errno::NOENT) => String::new(),
                Err(errno) => return Err(errno).with_context(|| format!("read {link}")),
            };
            names.push(name);
        }
        atomic::replace(images, DESCRIPTORS_FILE, serde_json::to_string(&names)?.as_bytes())
    }
}

/// The namespaces that may stay where they are: CRIU's word for each, and its key, which runc has, too.
pub(super) const EXTERNAL_NAMESPACES: [(LinuxNamespaceType, &str, &str); 2] =
    [(LinuxNamespaceType::Network, "net", "extRootNetNS"), (LinuxNamespaceType::Pid, "pid", "extRootPidNS")];

/// The configuration file for CRIU: the annotation's, none where that is empty, or the one that all runtimes share.
pub(super) fn config_file(spec: &Spec) -> Option<&str> {
    match spec.annotations().as_ref().and_then(|annotations| annotations.get("org.criu.config")) {
        Some(file) => (!file.is_empty()).then_some(file.as_str()),
        None => Some("/etc/criu/runc.conf"),
    }
}

/// Lists what is bound from the host: the destination, and the source.
pub(super) fn shown_from_host(
    rootfs: &RootfsPlan,
    namespaces: &NamespacePlan,
    cgroup: &Cgroup,
) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut list = Vec::new();
    for mount in &rootfs.mounts {
        match &mount.source {
            MountSource::Bind { path, .. } => list.push((mount.destination.clone(), path.clone())),
            MountSource::Cgroup => {
                let view = cgroup_view::of(&cgroups::Layout::probe()?, cgroup, namespaces);
                if !view.is_unified && !view.has_namespace {
                    let each = view.legacy.into_iter();
                    list.extend(each.filter_map(|one| Some((mount.destination.join(&one.name), one.path?))));
                }
            }
            MountSource::New { .. } | MountSource::Remount { .. } => {}
        }
    }
    if rootfs.binds_devices {
        list.extend(rootfs.devices.iter().map(|device| (device.path.clone(), device.path.clone())));
    }
    Ok(list)
}

/// Names a mount by its destination. CRIU reads `mnt[key]:value`, so what could be taken for the end of the key is
/// written in hexadecimal; two destinations never have one key.
pub(super) fn key_of(destination: &Path) -> String {
    use std::fmt::Write as _;
    let mut key = String::new();
    for &byte in destination.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            key.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(key, "%{byte:02x}");
        }
    }
    key
}

/// Finds the mount that a path leads to, if the path is the mount's own place.
fn mount_at<'a>(
    root: &Root,
    path: &Path,
    mounts: &'a [Mount],
    accepts: fn(FileType) -> bool,
) -> Result<Option<&'a Mount>> {
    let describe = || format!("find the mount on {}", path.display());
    let fd = match root.open_at(path, OFlags::PATH, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno).with_context(describe),
    };
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, flags).with_context(describe)?;
    let is_top = stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT);
    if !is_top || !accepts(FileType::from_raw_mode(stat.stx_mode.into())) {
        return Ok(None);
    }
    // The root file system is the container's own, whatever leads to it.
    Ok(mounts.iter().find(|mount| u64::from(mount.id) == stat.stx_mnt_id && mount.point != Path::new("/")))
}

/// Gives a mount's place for `mnt[place]:key`. CRIU takes the first entry that begins with `mnt[PLACE]:`, so a place that
/// goes on in this way after another mount's would be taken for that one.
fn unambiguous(mount: &Mount, mounts: &[Mount]) -> Result<Vec<u8>> {
    let place = mount.point.as_os_str().as_encoded_bytes();
    let is_mistaken = mounts.iter().any(|other| {
        place.strip_prefix(other.point.as_os_str().as_encoded_bytes()).is_some_and(|rest| rest.starts_with(b"]:"))
    });
    if is_mistaken {
        return Err(Error::unsupported(format!(
            "checkpoint: criu would take the mount on {} for another",
            mount.point.display()
        )));
    }
    Ok(place.to_vec())
}
