//! What a container sees of the host's cgroup hierarchies.

use crate::cgroups::{Cgroup, Hierarchy, Layout, Mode};
use crate::namespaces::plan::NamespacePlan;
use crate::rootfs::cgroup_mount::{CgroupView, LegacyHierarchy};

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
