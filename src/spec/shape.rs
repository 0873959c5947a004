//! Finds lists that stand where an object belongs.
//!
//! serde's derived types take a list for an object, field by field: `"linux": []` would be read as an empty section and
//! a container run without what a slip of the pen hid. Go's reader refuses it, and so do we.

use super::locate;

/// Where the specification has objects of fixed fields; `[]` stands for any element of a list.
const OBJECTS: &[&str] = &[
    "",
    "hooks",
    "hooks.createContainer[]",
    "hooks.createRuntime[]",
    "hooks.poststart[]",
    "hooks.poststop[]",
    "hooks.prestart[]",
    "hooks.startContainer[]",
    "linux",
    "linux.devices[]",
    "linux.gidMappings[]",
    "linux.intelRdt",
    "linux.memoryPolicy",
    "linux.namespaces[]",
    "linux.personality",
    "linux.resources",
    "linux.resources.blockIO",
    "linux.resources.blockIO.throttleReadBpsDevice[]",
    "linux.resources.blockIO.throttleReadIOPSDevice[]",
    "linux.resources.blockIO.throttleWriteBpsDevice[]",
    "linux.resources.blockIO.throttleWriteIOPSDevice[]",
    "linux.resources.blockIO.weightDevice[]",
    "linux.resources.cpu",
    "linux.resources.devices[]",
    "linux.resources.hugepageLimits[]",
    "linux.resources.memory",
    "linux.resources.network",
    "linux.resources.network.priorities[]",
    "linux.resources.pids",
    "linux.seccomp",
    "linux.seccomp.syscalls[]",
    "linux.seccomp.syscalls[].args[]",
    "linux.uidMappings[]",
    "mounts[]",
    "mounts[].gidMappings[]",
    "mounts[].uidMappings[]",
    "process",
    "process.capabilities",
    "process.consoleSize",
    "process.execCPUAffinity",
    "process.ioPriority",
    "process.rlimits[]",
    "process.scheduler",
    "process.user",
    "root",
];

/// Objects of any keys, whose values are objects of fixed fields that hold no list.
const MAPS_OF_OBJECTS: &[&str] = &["linux.netDevices", "linux.resources.rdma", "linux.timeOffsets"];

/// Finds the first list in the place of an object; `root` is what the specification calls the whole text.
pub(super) fn misplaced_list(text: &str, root: &str) -> Option<(usize, String)> {
    // The cheap question first. It is answered by the few brackets of a document, in about a microsecond.
    let is_suspect = |(at, _)| !follows_a_list_key(&text.as_bytes()[..at]);
    if text.trim_ascii_start().starts_with('{') && !text.match_indices('[').any(is_suspect) {
        return None;
    }
    locate::find_list(text.as_bytes(), |pattern| {
        let whole = match (root, pattern) {
            ("", pattern) => pattern.to_owned(),
            (root, "") => root.to_owned(),
            (root, pattern) => format!("{root}.{pattern}"),
        };
        OBJECTS.contains(&&whole[..])
            || MAPS_OF_OBJECTS.iter().any(|map| whole.strip_prefix(map).is_some_and(|rest| !rest.is_empty()))
    })
}

/// Says whether a bracket cannot be a misplaced list: it is the value of a key that has lists, or inside of a string.
fn follows_a_list_key(before: &[u8]) -> bool {
    let before = before.trim_ascii_end();
    let before = match before.split_last() {
        Some((b':', before)) => before.trim_ascii_end(),
        // A list in a list, or the whole document.
        Some((b'[' | b',', _)) | None => return false,
        // Nothing but a string has a bracket after any other byte.
        Some(_) => return true,
    };
    let Some((b'"', before)) = before.split_last() else { return true };
    let start = before.iter().rposition(|byte| *byte == b'"').map_or(0, |quote| quote + 1);
    matches!(
        &before[start..],
        b"additionalGids"
            | b"ambient"
            | b"architectures"
            | b"args"
            | b"bounding"
            | b"createContainer"
            | b"createRuntime"
            | b"devices"
            | b"effective"
            | b"env"
            | b"flags"
            | b"gidMappings"
            | b"hugepageLimits"
            | b"inheritable"
            | b"maskedPaths"
            | b"mounts"
            | b"names"
            | b"namespaces"
            | b"options"
            | b"permitted"
            | b"poststart"
            | b"poststop"
            | b"prestart"
            | b"priorities"
            | b"readonlyPaths"
            | b"rlimits"
            | b"schemata"
            | b"startContainer"
            | b"syscalls"
            | b"throttleReadBpsDevice"
            | b"throttleReadIOPSDevice"
            | b"throttleWriteBpsDevice"
            | b"throttleWriteIOPSDevice"
            | b"uidMappings"
            | b"weightDevice"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_for_objects_are_found_at_every_place() {
        for path in OBJECTS.iter().copied().chain(["linux.timeOffsets.boottime", "linux.resources.rdma.mlx5_1"]) {
            let mut text = "[]".to_owned();
            for key in path.split('.').rev().filter(|key| !key.is_empty()) {
                text = match key.strip_suffix("[]") {
                    Some(key) => format!("{{\"{key}\" :\n[{{}}, {text}]}}"),
                    None => format!("{{\"{key}\": {text}}}"),
                };
            }
            let (offset, found) = misplaced_list(&text, "").unwrap_or_else(|| panic!("not found: {text}"));
            assert_eq!(found.replace("[1]", "[]"), path);
            assert!(text[offset..].starts_with("[]"), "{text}");
        }
    }

    #[test]
    fn parts_are_documents_of_their_own() {
        assert_eq!(misplaced_list(r#"{"user": []}"#, "process").unwrap().1, "user");
        assert_eq!(misplaced_list("[]", "process").unwrap().1, "");
        assert_eq!(misplaced_list(r#"{"args": ["[", "a: [", "\"root\": [", ", ["]}"#, "process"), None);
        assert_eq!(misplaced_list(r#"{"memory": [1]}"#, "linux.resources").unwrap().1, "memory");
    }

    #[test]
    fn lists_of_others_are_left_alone() {
        for text in [
            r#"{"x": [[1], [2]], "linux": {"y": []}, "annotations": {"z": "[[,["}}"#,
            r#"{"mounts": [], "process": {"args": ["[", ",["], "env": []}, "linux": {"seccomp": {"syscalls": [{"args": []}]}}}"#,
        ] {
            assert_eq!(misplaced_list(text, ""), None, "{text}");
        }
    }
}
