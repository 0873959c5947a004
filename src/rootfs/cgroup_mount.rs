//! The container's view of its cgroups.
//!
//! With a cgroup namespace each hierarchy is mounted anew and shows the container's own cgroup as its root. Without one
//! the container's cgroup is bound, and nothing of the host's tree is visible (CVE-2022-0492: a writable hierarchy).

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::attributes::change_attributes;
use super::mount::{attach, new_file_system, open_plain_directory};
use super::plan::MountPlan;
use crate::error::{Context, Result};
use crate::spec::mount_options::MountOptions;
use crate::support::root::Root;
use crate::sys::mount::{Change, Reach, attr, mount_setattr};

/// The hierarchies of the host, as a container should see them.
#[derive(Clone, Debug, Default)]
pub struct CgroupView {
    /// Pure v2: one mount, and nothing else is filled in.
    pub is_unified: bool,
    /// The container's cgroup on v2, as a path of the host.
    pub unified_path: Option<PathBuf>,
    /// v1 hierarchies.
    pub legacy: Vec<LegacyHierarchy>,
    /// Whether a new cgroup namespace makes mounts show the container's own cgroup.
    pub has_namespace: bool,
}

/// One v1 hierarchy.
#[derive(Clone, Debug)]
pub struct LegacyHierarchy {
    /// Name of its directory: `cpu,cpuacct`.
    pub name: String,
    /// What mount(8) would be given to get it: `cpu,cpuacct`, or `none,name=systemd`.
    pub options: Vec<String>,
    /// Other names that lead to it: `cpu`, `cpuacct`.
    pub links: Vec<String>,
    /// The container's cgroup in it, as a path of the host.
    pub path: Option<PathBuf>,
}

/// Mounts the view at the plan's destination.
pub fn mount(root: &Root, plan: &MountPlan, view: &CgroupView) -> Result<()> {
    let target = open_plain_directory(root, &plan.destination)?;
    if view.is_unified {
        let tree = one(c"cgroup2", &[], view.unified_path.as_ref(), view.has_namespace, &plan.options)?;
        return Ok(attach(&tree, &target)?);
    }
    // A tmpfs with a directory a hierarchy; made writable, filled, then given the attributes asked for.
    let asked = plan.options.attributes;
    let writable = asked.set & !attr::RDONLY;
    let data = [(c"mode".to_owned(), Some(c"755".to_owned()))];
    let top = new_file_system(
        &c"tmpfs".to_owned(),
        &c"tmpfs".to_owned(),
        &data,
        &MountOptions::default(),
        writable,
        None,
        None,
    )?;
    attach(&top, &target)?;
    for hierarchy in &view.legacy {
        let describe = || format!("mount cgroup {}", hierarchy.name);
        rustix::fs::mkdirat(&top, &hierarchy.name, Mode::from_raw_mode(0o755)).with_context(describe)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = rustix::fs::openat(&top, &hierarchy.name, flags, Mode::empty()).with_context(describe)?;
        let tree = one(c"cgroup", &hierarchy.options, hierarchy.path.as_ref(), view.has_namespace, &plan.options)
            .with_context(describe)?;
        attach(&tree, &place).with_context(describe)?;
        for link in &hierarchy.links {
            rustix::fs::symlinkat(&hierarchy.name, &top, link).with_context(describe)?;
        }
    }
    if asked.set & attr::RDONLY != 0 {
        let change = Change { set: attr::RDONLY, ..Change::default() };
        mount_setattr(&top, Reach::One, &change).context("make the cgroup directory read-only")?;
    }
    Ok(())
}

fn one(
    kind: &std::ffi::CStr,
    words: &[String],
    path: Option<&PathBuf>,
    has_namespace: bool,
    options: &MountOptions,
) -> Result<OwnedFd> {
    if has_namespace {
        let mut data = Vec::with_capacity(words.len());
        for word in words {
            data.push(match word.split_once('=') {
                Some((key, value)) => (CString::new(key)?, Some(CString::new(value)?)),
                None => (CString::new(word.as_str())?, None),
            });
        }
        let (attributes, plain) = (options.attributes.set, MountOptions::default());
        return new_file_system(&kind.to_owned(), &c"cgroup".to_owned(), &data, &plain, attributes, None, None);
    }
    let path =
        path.ok_or_else(|| crate::error::Error::unsupported("without a cgroup of its own and a cgroup namespace"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).with_context(|| format!("open {}", path.display()))?;
    change_attributes(&tree, options.attributes.in_place_of_all(), Reach::One)?;
    Ok(tree)
}
