//! Decides, before any clone, which namespaces a container creates and which it joins, and whether one child is enough.
//!
//! One `clone3(2)` with every flag is the usual case. Two processes are needed only where the kernel gives a namespace to
//! children alone (joining a PID namespace, a time namespace with offsets) or where joining wants rights that a new user
//! namespace would take away.

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use super::idmap::IdMaps;
use crate::error::{Context, Error, Result};
use crate::sys::clone::CloneFlags;

/// A namespace that exists and is to be entered.
pub struct Join {
    /// Its kind.
    pub kind: LinuxNamespaceType,
    /// Open on it since before anything was entered.
    pub fd: OwnedFd,
    /// Its path, for messages.
    pub path: PathBuf,
}

/// What to create and what to join.
pub struct NamespacePlan {
    /// Namespaces that init is created in, without the cgroup namespace.
    pub create: CloneFlags,
    /// Whether init makes a cgroup namespace, once it is in its cgroups: the namespace's root is where its maker stands.
    pub creates_cgroup_namespace: bool,
    /// Namespaces to enter, in order.
    pub join: Vec<Join>,
    /// Whether a child in between is needed.
    pub stages: Stages,
    /// The user namespace that a new one is to be a child of, where that is not the caller's.
    pub below: Option<OwnedFd>,
    /// Id maps of a new user namespace, as the caller numbers the ids outside.
    pub id_maps: Option<IdMaps>,
    /// Text for `/proc/self/timens_offsets`; empty for none.
    pub time_offsets: String,
}

/// How many processes stand between the parent and the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// The parent clones init.
    One,
    /// The parent clones a child, which joins, clones init as its sibling, and ends.
    Two,
}

impl NamespacePlan {
    /// Has a new user namespace be a child of this one, in which the caller has all rights. A child in between goes there.
    pub fn put_below(&mut self, user: OwnedFd) {
        if self.creates(CloneFlags::NEWUSER) {
            self.below = Some(user);
            self.stages = Stages::Two;
        }
    }

    /// Says whether a namespace of this kind is new.
    pub fn creates(&self, flag: CloneFlags) -> bool {
        self.create.contains(flag)
    }

    /// Says whether a namespace of this kind is joined.
    pub fn joins(&self, kind: LinuxNamespaceType) -> bool {
        self.join.iter().any(|join| join.kind == kind)
    }

    /// Says whether the workload is in another namespace of this kind than its parent, new or joined.
    pub fn has_own(&self, kind: LinuxNamespaceType) -> bool {
        (kind == LinuxNamespaceType::Cgroup && self.creates_cgroup_namespace)
            || self.creates(flag(kind))
            || self.joins(kind)
    }
}

/// Makes the plan, opening what is to be joined. `privileged` says whether the caller has rights over the host's namespaces.
pub fn plan(spec: &Spec, privileged: Privileged) -> Result<NamespacePlan> {
    let linux = spec.linux().as_ref();
    let wanted: &[LinuxNamespace] = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let mut create = CloneFlags::empty();
    let mut join = Vec::new();
    for namespace in wanted {
        let kind = namespace.typ();
        match namespace.path() {
            None => create |= flag(kind),
            Some(path) if path.as_os_str().is_empty() => create |= flag(kind),
            Some(path) => join.push(Join { kind, fd: open_namespace(path, kind)?, path: path.clone() }),
        }
    }
    join.sort_by_key(|join| join_order(join.kind, privileged));

    let mut time_offsets = String::new();
    if let Some(offsets) = linux.and_then(|linux| linux.time_offsets().as_ref()) {
        for (clock, offset) in offsets {
            let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            // Writing to a String cannot fail.
            let _ = writeln!(time_offsets, "{clock} {seconds} {nanoseconds}");
        }
    }
    let id_maps = if create.contains(CloneFlags::NEWUSER) { Some(IdMaps::from_spec(spec)) } else { None };
    let creates_cgroup_namespace = create.contains(CloneFlags::NEWCGROUP);
    let joins = |kind| join.iter().any(|join| join.kind == kind);
    let stages = if joins(LinuxNamespaceType::Pid)
        || joins(LinuxNamespaceType::User)
        || joins(LinuxNamespaceType::Time)
        || (create.contains(CloneFlags::NEWTIME) && !time_offsets.is_empty())
        || (create.contains(CloneFlags::NEWUSER) && !join.is_empty())
    {
        Stages::Two
    } else {
        Stages::One
    };
    create.remove(CloneFlags::NEWCGROUP);
    Ok(NamespacePlan { create, creates_cgroup_namespace, join, stages, below: None, id_maps, time_offsets })
}

/// Whether the caller may join the host's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileged {
    /// Has CAP_SYS_ADMIN where the namespaces to join are owned.
    Yes,
    /// Gains rights only by joining the user namespace that owns the others.
    No,
}

/// Enters one namespace. A PID or time namespace is entered by children only (setns(2)).
pub fn enter(join: &Join) -> Result<()> {
    rustix::thread::move_into_link_name_space(join.fd.as_fd(), Some(link_type(join.kind)))
        .with_context(|| format!("join {} namespace {}", join.kind, join.path.display()))
}

fn open_namespace(path: &Path, kind: LinuxNamespaceType) -> Result<OwnedFd> {
    let describe = || format!("open {kind} namespace {}", path.display());
    let fd =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK, Mode::empty())
            .with_context(describe)?;
    let file_system = rustix::fs::fstatfs(&fd).with_context(describe)?;
    if file_system.f_type != NSFS_MAGIC {
        return Err(Error::invalid(format!("{} is not a namespace", path.display())));
    }
    Ok(File::from(fd).into())
}

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// Without rights the user namespace comes first, since it gives them; with rights it comes last, since it takes them.
pub(super) fn join_order(kind: LinuxNamespaceType, privileged: Privileged) -> u8 {
    match (kind, privileged) {
        (LinuxNamespaceType::User, Privileged::No) => 0,
        (LinuxNamespaceType::Mount, _) => 2,
        (LinuxNamespaceType::User, Privileged::Yes) => 3,
        _ => 1,
    }
}

pub(super) fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::NEWIPC,
        LinuxNamespaceType::User => CloneFlags::NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::NEWPID,
        LinuxNamespaceType::Network => CloneFlags::NEWNET,
        LinuxNamespaceType::Time => CloneFlags::NEWTIME,
    }
}

pub(super) fn link_type(kind: LinuxNamespaceType) -> LinkNameSpaceType {
    match kind {
        LinuxNamespaceType::Mount => LinkNameSpaceType::Mount,
        LinuxNamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
        LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
        LinuxNamespaceType::User => LinkNameSpaceType::User,
        LinuxNamespaceType::Pid => LinkNameSpaceType::ProcessID,
        LinuxNamespaceType::Network => LinkNameSpaceType::Network,
        LinuxNamespaceType::Time => LinkNameSpaceType::Time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str, more: &str) -> Spec {
        let text = format!(r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":{namespaces}{more}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn one_clone_where_the_kernel_allows_it() {
        let rows = [
            ("new", r#"[{"type":"pid"},{"type":"mount"},{"type":"network"},{"type":"cgroup"}]"#, "", Stages::One),
            ("new user", r#"[{"type":"user"},{"type":"pid"},{"type":"mount"}]"#, "", Stages::One),
            ("join net", r#"[{"type":"network","path":"/proc/self/ns/net"},{"type":"pid"}]"#, "", Stages::One),
            ("join pid", r#"[{"type":"pid","path":"/proc/self/ns/pid"}]"#, "", Stages::Two),
            ("user and join", r#"[{"type":"user"},{"type":"network","path":"/proc/self/ns/net"}]"#, "", Stages::Two),
            ("time", r#"[{"type":"time"},{"type":"pid"}]"#, "", Stages::One),
            ("offsets", r#"[{"type":"time"}]"#, r#","timeOffsets":{"boottime":{"secs":5,"nanosecs":1}}"#, Stages::Two),
        ];
        for (name, namespaces, more, stages) in rows {
            let plan = plan(&spec(namespaces, more), Privileged::Yes).unwrap();
            assert_eq!(plan.stages, stages, "{name}");
            assert!(!plan.creates(CloneFlags::NEWCGROUP), "{name}: init makes the cgroup namespace itself");
        }
    }

    #[test]
    fn the_user_namespace_comes_first_without_rights_and_last_with_them() {
        let text = r#"[{"type":"network","path":"/proc/self/ns/net"},{"type":"user","path":"/proc/self/ns/user"}]"#;
        let first = |privileged| plan(&spec(text, ""), privileged).unwrap().join[0].kind;
        assert_eq!(first(Privileged::No), LinuxNamespaceType::User);
        assert_eq!(first(Privileged::Yes), LinuxNamespaceType::Network);
    }

    #[test]
    fn a_path_that_is_no_namespace_is_refused() {
        let error = plan(&spec(r#"[{"type":"network","path":"/dev/null"}]"#, ""), Privileged::Yes).err().unwrap();
        assert_eq!(error.report(), "/dev/null is not a namespace");
    }
}
