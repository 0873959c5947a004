//! Judges where mounts go, before any path is opened. The mount itself resolves its target by descriptor once more.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;

use super::{bad, check_no_nul};
use crate::error::Result;

/// Files of /proc that may be covered: they tell the workload about its machine, and nothing trusts them.
///
/// A mount anywhere else in /proc could stand in for a file that the runtime writes to (CVE-2019-16884).
const PROC_FILES: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

pub(super) fn check(mounts: &mut [Mount], warnings: &mut Vec<String>) -> Result<()> {
    for (index, mount) in mounts.iter_mut().enumerate() {
        if !mount.destination().is_absolute() {
            if mount.destination().as_os_str().is_empty() {
                return Err(bad(format_args!("mounts[{index}].destination"), "is empty"));
            }
            warnings.push(format!(
                "mounts[{index}].destination: {:?} is relative, which is deprecated; taken from /",
                mount.destination().to_string_lossy()
            ));
            let destination = Path::new("/").join(mount.destination());
            mount.set_destination(destination);
        }
        check_mount(mount, index)?;
    }
    Ok(())
}

fn check_mount(mount: &Mount, index: usize) -> Result<()> {
    check_no_nul(format_args!("mounts[{index}].destination"), &mount.destination().to_string_lossy())?;
    let has_parents = mount.destination().components().any(|component| component == Component::ParentDir);
    let cleaned;
    let destination = if has_parents {
        cleaned = clean(mount.destination());
        &cleaned
    } else {
        mount.destination()
    };
    // The first mount may be the root file system itself: husk's engine writes its overlays so.
    if destination == Path::new("/") && index > 0 {
        return Err(bad(format_args!("mounts[{index}].destination"), "a mount may not cover the whole root"));
    }
    if destination.starts_with("/proc") && !may_be_in_proc(mount, destination) {
        let what = format!("{:?} cannot be mounted because it is inside /proc", mount.destination().to_string_lossy());
        return Err(bad(format_args!("mounts[{index}].destination"), what));
    }
    let (uids, gids) = (mount.uid_mappings(), mount.gid_mappings());
    for (name, map) in [("uidMappings", uids), ("gidMappings", gids)] {
        super::namespaces::check_map(format_args!("mounts[{index}].{name}"), map.as_deref().unwrap_or_default())?;
    }
    let has = |map: &Option<Vec<_>>| map.as_ref().is_some_and(|map| !map.is_empty());
    if has(uids) != has(gids) {
        let missing = if has(uids) { "gidMappings" } else { "uidMappings" };
        return Err(bad(format_args!("mounts[{index}].{missing}"), "uidMappings and gidMappings go together"));
    }
    if has(uids) && !is_bind(mount) {
        let what = "supported only for mounts with the option bind or rbind";
        return Err(bad(format_args!("mounts[{index}].uidMappings"), what));
    }
    Ok(())
}

/// A proc on /proc, a bind there (`--pid=host`), whose source is seen to be a procfs when it is opened, and the files of
/// the list.
fn may_be_in_proc(mount: &Mount, destination: &Path) -> bool {
    if destination != Path::new("/proc") {
        return PROC_FILES.iter().any(|file| destination == Path::new(file));
    }
    is_bind(mount) || mount.typ().as_deref() == Some("proc")
}

/// A mount is a bind by its options, whatever its type says; or by its type alone, as crun has it.
fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || mount.options().iter().flatten().any(|option| matches!(&option[..], "bind" | "rbind"))
}

/// Takes `.` and `..` out of an absolute path, as if there were no symlinks.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            _ => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, set, with};
    use serde_json::json;

    #[test]
    fn nothing_covers_proc_but_the_list() {
        let rows = [
            (json!({"destination": "/proc", "type": "proc", "source": "proc"}), true),
            (json!({"destination": "/proc/", "type": "proc", "source": "proc"}), true),
            (json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}), true),
            (json!({"destination": "/proc", "type": "proc", "source": "/tmp", "options": ["bind"]}), true),
            (json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}), false),
            (json!({"destination": "/proc", "type": "bind", "source": "/proc/1", "options": ["bind"]}), true),
            (json!({"destination": "/proc", "source": "/x", "options": ["bind"]}), true),
            (json!({"destination": "/proc"}), false),
            (json!({"destination": "/proc/self", "type": "tmpfs"}), false),
            (json!({"destination": "/proc/self/attr", "type": "tmpfs"}), false),
            (json!({"destination": "/proc/../proc/self", "type": "tmpfs"}), false),
            (json!({"destination": "/x/../proc", "type": "tmpfs"}), false),
            (json!({"destination": "//proc/./sys", "type": "tmpfs"}), false),
            (json!({"destination": "/../../proc/sys", "type": "tmpfs"}), false),
            (json!({"destination": "proc/sys", "type": "tmpfs"}), false),
            (json!({"destination": "/proc/cpuinfo", "source": "/x", "options": ["bind"]}), true),
            (json!({"destination": "/proc/cpuinfo/../kcore", "source": "/x", "options": ["bind"]}), false),
            (json!({"destination": "/proc/cpuinfo/x", "source": "/x", "options": ["bind"]}), false),
            (json!({"destination": "/proc/../etc", "source": "/x", "options": ["bind"]}), true),
            (json!({"destination": "/procs", "type": "tmpfs"}), true),
            (json!({"destination": "/", "type": "tmpfs"}), false),
            (json!({"destination": "/x/..", "type": "tmpfs"}), false),
            (json!({"destination": ".", "type": "tmpfs"}), false),
            (json!({"destination": "", "type": "tmpfs"}), false),
        ];
        for (mount, passes) in rows {
            let report = refusal("mounts", &json!([{"destination": "/ok", "type": "tmpfs"}, mount]));
            assert_eq!(report.is_empty(), passes, "{mount}: {report}");
            assert!(passes || report.starts_with("mounts[1].destination: "), "{mount}: {report}");
        }
    }

    #[test]
    fn a_relative_destination_is_taken_from_the_root_with_a_warning() {
        let mounts = json!([{"destination": "data", "type": "tmpfs"}]);
        let validated = with(|value| set(value, "mounts", &mounts)).unwrap();
        assert_eq!(validated.spec().mounts().as_ref().unwrap()[0].destination().to_str(), Some("/data"));
        assert!(validated.warnings()[0].contains("mounts[0].destination"), "{:?}", validated.warnings());
    }

    #[test]
    fn mapped_mounts_need_both_maps_and_a_bind() {
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        let rows = [
            (json!({"uidMappings": map, "gidMappings": map, "options": ["rbind"]}), ""),
            (json!({"uidMappings": [], "gidMappings": []}), ""),
            (json!({"uidMappings": map, "options": ["bind"]}), "mounts[0].gidMappings: "),
            (json!({"gidMappings": map, "options": ["bind"]}), "mounts[0].uidMappings: "),
            (json!({"uidMappings": map, "gidMappings": map}), "mounts[0].uidMappings: supported only"),
            (json!({"uidMappings": [{"size": 0}], "gidMappings": map}), "mounts[0].uidMappings[0]: "),
        ];
        for (mut mount, expected) in rows {
            mount["destination"] = json!("/x");
            let report = refusal("mounts", &json!([mount]));
            assert!(report.starts_with(expected) && report.is_empty() == expected.is_empty(), "{mount}: {report}");
        }
    }
}
