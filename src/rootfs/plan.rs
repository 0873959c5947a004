//! Turns the spec's mounts, devices and paths into what init acts on. Touches nothing.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceType, Mount, Spec};
use rustix::mount::MountPropagationFlags;

use super::label::MountLabel;
use super::secrets::SecretFile;
use crate::error::{Context, Error, Result};
use crate::namespaces::idmap::IdMaps;
use crate::spec::mount_options::{Bind, MountOptions, Propagation, PropagationMode};
use crate::spec::validate::clean;

/// Everything init does to the file system tree.
pub struct RootfsPlan {
    /// Where the tree comes from.
    pub root: RootSource,
    /// `root.readonly`.
    pub is_readonly: bool,
    /// How the container's copy of the host's tree is detached from the host's, before anything is mounted: as a whole,
    /// since the mount that the root lies on need not be `/`. With `shared` it stays a peer, so that what is mounted in a
    /// shared volume shows up on the host.
    pub detachment: MountPropagationFlags,
    /// What of `linux.rootfsPropagation` is for the new `/`: given sooner, the container's mounts would show up on the
    /// host.
    pub propagation: Option<MountPropagationFlags>,
    /// The mounts, in order.
    pub mounts: Vec<MountPlan>,
    /// Device nodes; empty where `/dev` is bound from outside.
    pub devices: Vec<DevicePlan>,
    /// Whether the links and nodes that every `/dev` has are made.
    pub makes_default_dev: bool,
    /// Device nodes are bound from the host, since a user namespace may not make any.
    pub binds_devices: bool,
    /// The label of what is mounted.
    pub label: Option<MountLabel>,
    /// What the caller hands over in memory.
    pub secrets: Vec<SecretFile>,
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
    /// The user namespace that has them, where the parent is to map a tree that only init can make.
    pub maps_later: Option<OwnedFd>,
    /// Whether it is mounted on `/proc`.
    pub covers_proc: bool,
    /// The label that its root gets.
    pub label: Option<CString>,
}

/// Options for a file system itself, in order.
pub type Data = [(CString, Option<CString>)];

/// What is mounted.
pub enum MountSource {
    /// A file or directory.
    Bind {
        /// Where it is on the host.
        path: PathBuf,
        /// Who finds it there.
        origin: Origin,
    },
    /// A new instance of a file system.
    New { kind: CString, source: CString, data: Vec<(CString, Option<CString>)> },
    /// The container's cgroups.
    Cgroup,
    /// Other attributes for what is mounted there already, and other options for its file system.
    Remount { data: Vec<(CString, Option<CString>)> },
}

/// Where the tree of a bind comes from.
pub enum Origin {
    /// Init finds it by its path, before the pivot.
    Host,
    /// The parent has opened it, where init could not.
    Parent(OwnedFd),
    /// It lies at this path of the root file system, where a mount before it may have brought it.
    Root(PathBuf),
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

impl RootfsPlan {
    /// Says whether init will send trees to the parent, to have their ids mapped.
    pub fn has_late_maps(&self) -> bool {
        self.mounts.iter().any(|mount| mount.maps_later.is_some())
    }
}

impl MountPlan {
    /// Says what is being done, for messages: `mount tmpfs on /dev/shm`.
    pub fn describe(&self) -> String {
        let on = self.destination.display();
        match &self.source {
            MountSource::Bind { path, .. } => format!("bind {} on {on}", path.display()),
            MountSource::New { kind, .. } => format!("mount {} on {on}", kind.to_string_lossy()),
            MountSource::Cgroup => format!("mount cgroup on {on}"),
            MountSource::Remount { .. } => format!("remount {on}"),
        }
    }

    /// Plans one mount; relative sources of binds are taken from the bundle.
    pub(crate) fn new(mount: &Mount, bundle: &Path, container: Option<&IdMaps>) -> Result<Self> {
        let destination = Path::new("/").join(mount.destination());
        Self::with_destination(mount, bundle, container, &destination)
            .with_context(|| format!("mounts: {}", destination.display()))
    }

    fn with_destination(mount: &Mount, bundle: &Path, container: Option<&IdMaps>, destination: &Path) -> Result<Self> {
        let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default())?;
        let kind = mount.typ().as_deref().unwrap_or_default();
        let is_bind = options.bind != Bind::No || kind == "bind";
        if is_bind && !options.data.is_empty() {
            // The kernel would pass over them (and so does crun).
            return Err(Error::invalid("bind mounts cannot have any filesystem-specific options applied")
                .with_hint(format!("unknown: {}", options.data_as_text())));
        }
        let source = mount.source().as_deref();
        let source = if options.remounts {
            MountSource::Remount { data: data(&options)? }
        } else if is_bind {
            let source = source.ok_or_else(|| Error::invalid("a bind needs a source"))?;
            MountSource::Bind { path: bundle.join(source), origin: Origin::Host }
        } else if matches!(kind, "cgroup" | "cgroup2") {
            MountSource::Cgroup
        } else {
            let kind = if kind.is_empty() { "none" } else { kind };
            let name = source.map_or(kind.as_bytes(), |source| source.as_os_str().as_bytes());
            MountSource::New { kind: CString::new(kind)?, source: CString::new(name)?, data: data(&options)? }
        };
        let id_maps = IdMaps::from_mount(mount, &options, container)?;
        if (id_maps.is_some() || options.idmap.is_some()) && !matches!(source, MountSource::Bind { .. }) {
            return Err(Error::invalid("id-mapped mounts are only supported for bind-mounts"));
        }
        let covers_proc = clean(destination) == Path::new("/proc");
        Ok(Self {
            destination: destination.to_owned(),
            source,
            options,
            id_maps,
            covers_proc,
            maps_later: None,
            label: None,
        })
    }
}

fn data(options: &MountOptions) -> Result<Vec<(CString, Option<CString>)>> {
    let mut data = Vec::with_capacity(options.data.len());
    for option in &options.data {
        let value = option.value.as_deref().map(CString::new).transpose()?;
        data.push((CString::new(option.key.as_str())?, value));
    }
    Ok(data)
}

/// What the plan depends on beside the spec.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Whether the container has a new mount namespace.
    pub has_mount_namespace: bool,
    /// Whether it is in a user namespace that is not the host's, where mknod(2) is refused.
    pub has_user_namespace: bool,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// The id maps of the container's new user namespace, which an `idmap` option may count in.
    pub id_maps: Option<&'a IdMaps>,
}

/// Makes the plan.
pub fn plan(spec: &Spec, bundle: &Path, surroundings: Surroundings<'_>) -> Result<RootfsPlan> {
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("root: missing"))?;
    let directory = bundle.join(root.path());
    let linux = spec.linux().as_ref();
    let mut mounts = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let mut mount = MountPlan::new(mount, bundle, surroundings.id_maps)?;
        if let MountSource::Bind { path, origin } = &mut mount.source
            && let Some(inside) = place_in_root(path, &directory)
        {
            *origin = Origin::Root(inside);
        }
        mounts.push(mount);
    }
    let label = MountLabel::of(spec)?;
    if let Some(label) = &label {
        for mount in &mut mounts {
            if let MountSource::New { kind, data, .. } = &mut mount.source {
                label.add_to(kind, data);
                mount.label = label.attribute_for(kind).map(CStr::to_owned);
            }
        }
    }
    let is_root_mount = mounts.first().is_some_and(|mount| mount.destination == Path::new("/"));
    let root_source = if is_root_mount {
        RootSource::Mount(Box::new(mounts.remove(0)), directory)
    } else {
        RootSource::Directory(directory, None)
    };
    if !surroundings.has_mount_namespace {
        check_without_mounts(spec)?;
    }
    let binds_dev = mounts
        .iter()
        .any(|mount| matches!(mount.source, MountSource::Bind { .. }) && mount.destination == Path::new("/dev"));
    let makes_default_dev = surroundings.has_mount_namespace && !binds_dev;
    let devices = if makes_default_dev { device_plans(spec)? } else { Vec::new() };
    let switch = match surroundings {
        Surroundings { has_mount_namespace: false, .. } => Switch::Chroot,
        Surroundings { no_pivot: true, .. } => Switch::Move,
        _ => Switch::Pivot,
    };
    let word = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    let (detachment, propagation) = propagation_flags(word)?;
    Ok(RootfsPlan {
        root: root_source,
        label,
        is_readonly: root.readonly().unwrap_or(false),
        detachment,
        propagation,
        mounts,
        devices,
        makes_default_dev,
        secrets: Vec::new(),
        binds_devices: surroundings.has_user_namespace,
        masked_paths: distinct_paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
        readonly_paths: distinct_paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
        switch,
    })
}

/// In a mount namespace that others live in, every mount would be theirs, too, and would stay when the container has gone;
/// runc makes them and leaves them. So such a container is its root file system and no more.
fn check_without_mounts(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let lists = |list: Option<&Vec<String>>| list.is_some_and(|list| !list.is_empty());
    let needs = [
        ("mounts", spec.mounts().as_ref().is_some_and(|mounts| !mounts.is_empty())),
        ("root.readonly", spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false))),
        ("process.terminal", spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false))),
        ("linux.rootfsPropagation", linux.is_some_and(|linux| linux.rootfs_propagation().is_some())),
        ("linux.maskedPaths", lists(linux.and_then(|linux| linux.masked_paths().as_ref()))),
        ("linux.readonlyPaths", lists(linux.and_then(|linux| linux.readonly_paths().as_ref()))),
    ];
    match needs.iter().find(|(_, is_asked)| *is_asked) {
        Some((field, _)) => {
            Err(Error::unsupported(format!("{field}: needs a new mount namespace in linux.namespaces"))
                .with_hint("in the one of others, what the container mounts would be theirs, and would stay there"))
        }
        None => Ok(()),
    }
}

/// Gives the path inside the root file system of what lies below its directory, by the words alone.
///
/// With the host's `/` as the root everything would, so there nothing does; nor does what has `..` in it, which is the
/// kernel's to follow.
fn place_in_root(path: &Path, root: &Path) -> Option<PathBuf> {
    let inside = path.strip_prefix(root).ok()?;
    let is_plain = inside.components().all(|component| matches!(component, Component::Normal(_)));
    (root.parent().is_some() && is_plain).then(|| Path::new("/").join(inside))
}

/// A path that is named twice is covered once.
fn distinct_paths(list: Option<&Vec<String>>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in list.into_iter().flatten().map(PathBuf::from) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// Gives what is done to the copy of the host's tree, and to the new `/` after the pivot.
///
/// Only `shared` lets anything reach the host, and then only through mounts that are shared there (Kubernetes'
/// "Bidirectional"). What is private or a slave by the first step is not made so again by the second: that would take
/// their own propagation from the mounts of the list.
fn propagation_flags(word: &str) -> Result<(MountPropagationFlags, Option<MountPropagationFlags>)> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if word.is_empty() {
        return Ok((slave, None));
    }
    let propagation = Propagation::from_word(word)
        .ok_or_else(|| Error::invalid(format!("linux.rootfsPropagation: `{word}` is not a propagation")))?;
    let flags = MountPropagationFlags::from_bits_retain(propagation.as_mount_flags());
    Ok(match propagation.mode {
        PropagationMode::Shared => (flags, Some(flags)),
        PropagationMode::Slave => (slave, None),
        PropagationMode::Private => (private, None),
        PropagationMode::Unbindable => (private, Some(flags)),
    })
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
        if path == Path::new("/dev/ptmx") {
            // Always the container's own devpts instance: the host's node would make terminals there.
            continue;
        }
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
    use serde_json::json;

    use super::*;
    use crate::namespaces::idmap::IdRange;

    #[test]
    fn only_shared_leaves_the_host_a_peer() {
        for word in ["", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"] {
            let (detachment, _) = propagation_flags(word).unwrap();
            assert!(detachment.contains(MountPropagationFlags::REC), "{word}");
            assert!(!detachment.contains(MountPropagationFlags::SHARED), "{word}");
        }
        let shared = MountPropagationFlags::SHARED;
        assert_eq!(propagation_flags("shared").unwrap(), (shared, Some(shared)));
    }

    #[test]
    fn sources_in_the_root_are_found_by_their_words() {
        for (path, root, expected) in [
            ("/b/rootfs/mnt/x", "/b/rootfs", Some("/mnt/x")),
            ("/b/./rootfs//x/", "/b/rootfs", Some("/x")),
            ("/b/rootfs", "/b/rootfs", Some("/")),
            ("/b/rootfs2/x", "/b/rootfs", None),
            ("/b/rootfs/../x", "/b/rootfs", None),
            ("/x", "/", None),
        ] {
            assert_eq!(place_in_root(Path::new(path), Path::new(root)).as_deref(), expected.map(Path::new), "{path}");
        }
    }

    fn mount_plan(mount: &serde_json::Value) -> Result<MountPlan> {
        let maps = IdMaps {
            uids: vec![IdRange { inside: 0, outside: 100_000, length: 10 }],
            gids: vec![IdRange { inside: 0, outside: 200_000, length: 10 }],
        };
        MountPlan::new(&serde_json::from_value(mount.clone()).unwrap(), Path::new("/bundle"), Some(&maps))
    }

    #[test]
    fn sources_of_binds_are_taken_from_the_bundle() {
        for (source, expected) in [("data", "/bundle/data"), ("/data", "/data"), ("../x", "/bundle/../x")] {
            let plan = mount_plan(&json!({"destination": "/x", "source": source, "options": ["bind"]})).unwrap();
            let MountSource::Bind { path, .. } = &plan.source else { panic!("no bind") };
            assert_eq!(path, Path::new(expected));
        }
    }

    #[test]
    fn words_that_no_one_would_read_are_refused() {
        for options in [["bind", "size=1"], ["rbind", "bogus"], ["remount,bind", "bind"]] {
            let error = mount_plan(&json!({"destination": "/x", "source": "/y", "options": options})).err().unwrap();
            let expected = "mounts: /x: bind mounts cannot have any filesystem-specific options applied";
            assert_eq!(error.report(), expected);
        }
        let plan = mount_plan(&json!({"destination": "/x", "options": ["remount", "size=1"]})).unwrap();
        assert!(matches!(&plan.source, MountSource::Remount { data } if data.len() == 1));
        let plan = mount_plan(&json!({"destination": "/x", "options": ["bind", "remount", "ro"]})).unwrap();
        assert!(matches!(&plan.source, MountSource::Remount { .. }));
    }

    #[test]
    fn relative_maps_count_in_the_containers() {
        let idmap = |text: &str| {
            mount_plan(&json!({"destination": "/x", "source": "/y", "options": ["bind", format!("idmap={text}")]}))
        };
        let maps = idmap("uids=0-@0-1;gids=0-0-1").err().unwrap();
        assert!(maps.report().contains("expected uids="), "{maps:?}");
        let maps = idmap("uids=@0-3-2#5-6-7;gids=@1-9-1").unwrap().id_maps.unwrap();
        let range = |inside, outside, length| IdRange { inside, outside, length };
        assert_eq!(maps.uids, [range(0, 100_003, 2), range(5, 6, 7)]);
        assert_eq!(maps.gids, [range(1, 200_009, 1)]);
        let error = idmap("uids=@0-10-1;gids=0-0-1").err().unwrap();
        assert!(error.report().contains("no mapping of the container's user namespace holds"), "{error:?}");
    }
}
