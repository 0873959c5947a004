//! What a container sees of the host's cgroup hierarchies.

use std::path::Path;

use oci_spec::runtime::{Mount, Spec};

use crate::cgroups::{Cgroup, Hierarchy, Layout, Mode};
use crate::namespaces::idmap::IdRange;
use crate::namespaces::plan::NamespacePlan;
use crate::rootfs::cgroup_mount::{CgroupView, LegacyHierarchy};

/// Says which of the host's users is to own the container's cgroup: the one that its process is, as with runc, if the
/// container sees its own cgroup as the top and may write there.
pub(super) fn owner(spec: &Spec, namespaces: &NamespacePlan) -> Option<u32> {
    let is_writable = |mount: &Mount| {
        matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"))
            && mount.destination() == Path::new("/sys/fs/cgroup")
            && !mount.options().iter().flatten().any(|option| option == "ro")
    };
    if !namespaces.creates_cgroup_namespace || !spec.mounts().iter().flatten().any(is_writable) {
        return None;
    }
    let user = spec.process().as_ref()?.user().uid();
    let outside = match &namespaces.id_maps {
        Some(maps) => {
            let holds = |range: &&IdRange| user.checked_sub(range.inside).is_some_and(|at| at < range.length);
            maps.uids.iter().find(holds).and_then(|range| range.outside.checked_add(user - range.inside))?
        }
        None => user,
    };
    // The maker owns it already.
    (outside != rustix::process::geteuid().as_raw()).then_some(outside)
}

/// Makes the view from the host's layout and the container's own cgroup.
pub(super) fn of(layout: &Layout, cgroup: &Cgroup, namespaces: &NamespacePlan) -> CgroupView {
    // A container without a cgroup of its own is in its caller's.
    let own = |hierarchy: &Hierarchy| hierarchy.mount.join(hierarchy.own_below_mount());
    let record = cgroup.record();
    let path_in = |controllers: &str| {
        record
            .directories
            .iter()
            .find(|directory| directory.controllers == controllers)
            .map(|directory| directory.path.clone())
    };
    let legacy = layout.legacy.iter().map(|hierarchy| {
        let controllers = &hierarchy.controllers;
        let is_named = controllers.starts_with("name=");
        // The directory is called as the host calls it, which is where its own mount ends.
        let name =
            hierarchy.mount.file_name().map_or_else(|| controllers.clone(), |name| name.to_string_lossy().into_owned());
        let links =
            controllers.split(',').filter(|controller| !is_named && **controller != name).map(str::to_owned).collect();
        let mut options: Vec<String> = controllers.split(',').map(str::to_owned).collect();
        if is_named {
            options.insert(0, "none".to_owned());
        }
        LegacyHierarchy { name, options, links, path: path_in(controllers).or_else(|| Some(own(hierarchy))) }
    });
    CgroupView {
        is_unified: layout.mode() == Mode::Unified,
        unified_path: path_in("").or_else(|| layout.unified.as_ref().map(own)),
        legacy: legacy.collect(),
        has_namespace: namespaces.creates_cgroup_namespace,
    }
}
