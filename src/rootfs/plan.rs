//! Turns the spec's mounts, devices and paths into what init acts on. Touches nothing.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceType, Mount, Spec};
use rustix::mount::MountPropagationFlags;

use crate::error::{Context, Error, Result};
use crate::namespaces::idmap::IdMaps;
use crate::spec::mount_options::{Bind, MountOptions, Propagation, PropagationMode};

/// Everything init does to the file system tree.
pub struct RootfsPlan {
    /// Where the tree comes from.
    pub root: RootSource,
    /// `root.readonly`.
    pub is_readonly: bool,
    /// How the host's tree is detached from the container's, before anything is mounted: as a whole, since the mount that
    /// the root lies on need not be `/`.
    pub detachment: MountPropagationFlags,
    /// `linux.rootfsPropagation`, for the new `/`: given sooner, the container's mounts would show up on the host.
    pub propagation: Option<MountPropagationFlags>,
    /// The mounts, in order.
    pub mounts: Vec<MountPlan>,
    /// Device nodes; empty where `/dev` is bound from outside.
    pub devices: Vec<DevicePlan>,
    /// Whether the links and nodes that every `/dev` has are made.
    pub makes_default_dev: bool,
    /// Device nodes are bound from the host, since a user namespace may not make any.
    pub binds_devices: bool,
    /// Paths made unreadable.
    pub masked_paths: Vec<PathBuf>,
    /// Paths made read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// How the tree becomes `/`.
    pub switch: Switch,
}

/// Where the root comes from.
pub enum RootSource {
    /// A directory of the host, opened by the parent where init could not.
    Directory(PathBuf, Option<OwnedFd>),
    /// A first mount whose destination is `/`, and a directory to attach it to.
    Mount(Box<MountPlan>, PathBuf),
}

/// How the tree becomes `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// pivot_root(2), and the host's tree is detached.
    Pivot,
    /// The tree is moved onto `/` and chroot(2)ed into, for hosts whose `/` is rootfs (`--no-pivot`).
    Move,
    /// chroot(2) alone: the container has the host's mount namespace.
    Chroot,
}

/// One mount.
pub struct MountPlan {
    /// Where, inside the container.
    pub destination: PathBuf,
    /// What.
    pub source: MountSource,
    /// Its options, parsed.
    pub options: MountOptions,
    /// Its own id maps.
    pub id_maps: Option<IdMaps>,
}

/// What is mounted.
pub enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// Where it is.
        path: PathBuf,
        /// Opened by the parent, where init could not.
        tree: Option<OwnedFd>,
    },
    /// A new instance of a file system.
    New { kind: CString, source: CString, data: Vec<(CString, Option<CString>)> },
    /// The container's cgroups.
    Cgroup,
    /// Other attributes for what is mounted there already.
    Remount,
}

/// One device node.
pub struct DevicePlan {
    /// Where, inside the container.
    pub path: PathBuf,
    /// Type bits of the mode.
    pub kind: rustix::fs::FileType,
    /// Permission bits.
    pub mode: u32,
    /// Device number.
    pub device: u64,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
}

impl MountPlan {
    /// Says what is being done, for messages: `mount tmpfs on /dev/shm`.
    pub fn describe(&self) -> String {
        let on = self.destination.display();
        match &self.source {
            MountSource::Bind { path, .. } => format!("bind {} on {on}", path.display()),
            MountSource::New { kind, .. } => format!("mount {} on {on}", kind.to_string_lossy()),
            MountSource::Cgroup => format!("mount cgroup on {on}"),
            MountSource::Remount => format!("remount {on}"),
        }
    }

    fn new(mount: &Mount, bundle: &Path) -> Result<Self> {
        let destination = Path::new("/").join(mount.destination());
        let words = mount.options().as_deref().unwrap_or_default();
        let options =
            MountOptions::parse(words).with_context(|| format!("mounts: options of {}", destination.display()))?;
        let kind = mount.typ().as_deref().unwrap_or_default();
        let source = mount.source().as_deref();
        let source = if options.bind != Bind::No || kind == "bind" {
            let source = source
                .ok_or_else(|| Error::invalid(format!("mounts: {}: a bind needs a source", destination.display())))?;
            MountSource::Bind { path: bundle.join(source), tree: None }
        } else if options.remounts {
            MountSource::Remount
        } else if matches!(kind, "cgroup" | "cgroup2") {
            MountSource::Cgroup
        } else {
            let kind = if kind.is_empty() { "none" } else { kind };
            let name = source.map_or(kind.as_bytes(), |source| source.as_os_str().as_bytes());
            let mut data = Vec::with_capacity(options.data.len());
            for option in &options.data {
                let value = option.value.as_deref().map(CString::new).transpose()?;
                data.push((CString::new(option.key.as_str())?, value));
            }
            MountSource::New { kind: CString::new(kind)?, source: CString::new(name)?, data }
        };
        let ranges = options.idmap.iter().flat_map(|idmap| idmap.uids.iter().chain(&idmap.gids));
        if { ranges }.any(|range| range.is_relative) {
            return Err(Error::unsupported(format!("mounts: {}: idmap with `@`", destination.display())));
        }
        let id_maps = IdMaps::from_mount(mount, &options);
        if (id_maps.is_some() || options.idmap.is_some()) && !matches!(source, MountSource::Bind { .. }) {
            return Err(Error::invalid(format!("mounts: {}: only a bind can have id maps", destination.display())));
        }
        Ok(Self { destination, source, options, id_maps })
    }
}

/// What the plan depends on beside the spec.
#[derive(Clone, Copy)]
pub struct Surroundings {
    /// Whether the container has a new mount namespace.
    pub has_mount_namespace: bool,
    /// Whether it is in a user namespace that is not the host's, where mknod(2) is refused.
    pub has_user_namespace: bool,
    /// `--no-pivot`.
    pub no_pivot: bool,
}

/// Makes the plan.
pub fn plan(spec: &Spec, bundle: &Path, surroundings: Surroundings) -> Result<RootfsPlan> {
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("root: missing"))?;
    let directory = bundle.join(root.path());
    let linux = spec.linux().as_ref();
    let mut mounts = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        mounts.push(MountPlan::new(mount, bundle)?);
    }
    let is_root_mount = mounts.first().is_some_and(|mount| mount.destination == Path::new("/"));
    let root_source = if is_root_mount {
        RootSource::Mount(Box::new(mounts.remove(0)), directory)
    } else {
        RootSource::Directory(directory, None)
    };
    if !surroundings.has_mount_namespace && (is_root_mount || !mounts.is_empty()) {
        return Err(Error::invalid("mounts: need a new mount namespace in linux.namespaces"));
    }
    let binds_dev = mounts
        .iter()
        .any(|mount| matches!(mount.source, MountSource::Bind { .. }) && mount.destination == Path::new("/dev"));
    let makes_default_dev = surroundings.has_mount_namespace && !binds_dev;
    let devices = if makes_default_dev { device_plans(spec)? } else { Vec::new() };
    let paths = |list: Option<&Vec<String>>| list.into_iter().flatten().map(PathBuf::from).collect();
    let switch = match surroundings {
        Surroundings { has_mount_namespace: false, .. } => Switch::Chroot,
        Surroundings { no_pivot: true, .. } => Switch::Move,
        _ => Switch::Pivot,
    };
    let word = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    let (detachment, propagation) = propagation_flags(word)?;
    Ok(RootfsPlan {
        root: root_source,
        is_readonly: root.readonly().unwrap_or(false),
        detachment,
        propagation,
        mounts,
        devices,
        makes_default_dev,
        binds_devices: surroundings.has_user_namespace,
        masked_paths: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
        readonly_paths: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
        switch,
    })
}

/// The host's tree never gets events from the container, whatever the container's own mounts are to each other.
fn propagation_flags(word: &str) -> Result<(MountPropagationFlags, Option<MountPropagationFlags>)> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    if word.is_empty() {
        return Ok((slave, None));
    }
    let propagation = Propagation::from_word(word)
        .ok_or_else(|| Error::invalid(format!("linux.rootfsPropagation: `{word}` is not a propagation")))?;
    let detachment = match propagation.mode {
        PropagationMode::Shared | PropagationMode::Slave => slave,
        PropagationMode::Private | PropagationMode::Unbindable => {
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC
        }
    };
    Ok((detachment, Some(MountPropagationFlags::from_bits_retain(propagation.as_mount_flags()))))
}

/// The nodes that the runtime spec wants in every `/dev`, beside those of `linux.devices`.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

fn device_plans(spec: &Spec) -> Result<Vec<DevicePlan>> {
    let mut plans: Vec<DevicePlan> = DEFAULT_DEVICES
        .iter()
        .map(|&(name, major, minor)| DevicePlan {
            path: Path::new("/dev").join(name),
            kind: rustix::fs::FileType::CharacterDevice,
            mode: 0o666,
            device: rustix::fs::makedev(major, minor),
            uid: 0,
            gid: 0,
        })
        .collect();
    let listed = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    for device in listed {
        let describe = || format!("linux.devices: {}", device.path().display());
        let kind = match device.typ() {
            LinuxDeviceType::B => rustix::fs::FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => rustix::fs::FileType::CharacterDevice,
            LinuxDeviceType::P => rustix::fs::FileType::Fifo,
            LinuxDeviceType::A => return Err(Error::invalid("type `a` names no device").context(describe())),
        };
        let number =
            |number: i64| u32::try_from(number).map_err(|_| Error::invalid("number out of range").context(describe()));
        let path = Path::new("/").join(device.path());
        // The spec's own entry wins over the default node of the same name.
        plans.retain(|plan| plan.path != path);
        plans.push(DevicePlan {
            path,
            kind,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            device: rustix::fs::makedev(number(device.major())?, number(device.minor())?),
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        });
    }
    Ok(plans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_detached_whatever_the_root_is_to_be() {
        for word in ["", "shared", "rshared", "slave", "private", "rprivate", "unbindable"] {
            let (detachment, _) = propagation_flags(word).unwrap();
            assert!(detachment.contains(MountPropagationFlags::REC), "{word}");
            assert!(!detachment.contains(MountPropagationFlags::SHARED), "{word}");
        }
    }
}
