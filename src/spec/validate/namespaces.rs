//! Judges namespaces together with what only makes sense inside of them: host names, id maps, clocks, sysctls.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Spec};

use super::{bad, check_absolute};
use crate::error::Result;

/// `__NEW_UTS_LEN` of linux/utsname.h.
const UTS_NAME_BYTES: usize = 64;

/// The longest list that the kernel takes: user_namespaces(7), since Linux 4.15.
const MAP_LENGTH_LIMIT: usize = 340;

pub(super) fn check(spec: &Spec) -> Result<()> {
    let none = Linux::default();
    let (linux, namespaces) = match spec.linux() {
        Some(linux) => (linux, linux.namespaces().as_deref().unwrap_or_default()),
        None => (&none, &[][..]),
    };
    for (index, namespace) in namespaces.iter().enumerate() {
        if namespaces[..index].iter().any(|earlier| earlier.typ() == namespace.typ()) {
            let what = format!("a second namespace of type {}", word(namespace.typ()));
            return Err(bad(format_args!("linux.namespaces[{index}]"), what));
        }
        if let Some(path) = path_of(namespace) {
            check_absolute(format_args!("linux.namespaces[{index}].path"), path)?;
        }
    }
    let find = |kind| namespaces.iter().find(|namespace| namespace.typ() == kind);

    let names = [("hostname", spec.hostname()), ("domainname", spec.domainname())];
    for (field, name) in names {
        if name.as_ref().is_some_and(|name| !name.is_empty()) && find(LinuxNamespaceType::Uts).is_none() {
            return Err(bad(field, "cannot be set without a UTS namespace of the container's own"));
        }
        if name.as_ref().is_some_and(|name| name.len() > UTS_NAME_BYTES) {
            return Err(bad(field, format_args!("is longer than {UTS_NAME_BYTES} bytes")));
        }
    }
    if spec.linux().is_none() {
        return Ok(());
    }
    if find(LinuxNamespaceType::Mount).is_none() {
        for (name, paths) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
            if paths.as_ref().is_some_and(|paths| !paths.is_empty()) {
                return Err(bad(format_args!("linux.{name}"), "needs a mount namespace"));
            }
        }
    }
    check_maps(linux, find(LinuxNamespaceType::User))?;
    check_clocks(linux, find(LinuxNamespaceType::Time))?;
    check_net_devices(linux, find(LinuxNamespaceType::Network))?;
    for (key, value) in linux.sysctl().iter().flatten() {
        check_sysctl(key, value, &find)?;
    }
    Ok(())
}

fn check_maps(linux: &Linux, user: Option<&LinuxNamespace>) -> Result<()> {
    let maps = [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())];
    for (field, map) in maps {
        let map = map.as_deref().unwrap_or_default();
        check_map(field, map)?;
        match user {
            None if !map.is_empty() => return Err(bad(field, "needs a user namespace")),
            // With a path the map is the namespace's own. One given besides is what containerd does for every container
            // of a pod; whether it is the same map is seen when the namespace is joined.
            Some(user) if map.is_empty() && path_of(user).is_none() => {
                return Err(bad(field, "a new user namespace needs a mapping"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Judges one list of ranges by itself.
pub(super) fn check_map(field: impl Display, map: &[LinuxIdMapping]) -> Result<()> {
    if map.len() > MAP_LENGTH_LIMIT {
        return Err(bad(field, format_args!("{} ranges, the kernel takes {MAP_LENGTH_LIMIT}", map.len())));
    }
    for (index, range) in map.iter().enumerate() {
        // The last id, 4294967295, stands for "no change" in system calls and is never mapped.
        let fits = |start: u32| start.checked_add(range.size()).is_some();
        if range.size() == 0 || !fits(range.host_id()) || !fits(range.container_id()) {
            let (container, host, size) = (range.container_id(), range.host_id(), range.size());
            let what = format!("{size} ids from {container} to {host} is not a range");
            return Err(bad(format_args!("{field}[{index}]"), what));
        }
    }
    Ok(())
}

fn check_clocks(linux: &Linux, time: Option<&LinuxNamespace>) -> Result<()> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else { return Ok(()) };
    match time {
        None => return Err(bad("linux.timeOffsets", "needs a time namespace")),
        Some(time) if path_of(time).is_some() => {
            return Err(bad("linux.timeOffsets", "the clocks of a namespace that is joined cannot be set"));
        }
        Some(_) => {}
    }
    for (clock, offset) in offsets {
        if !matches!(&clock[..], "monotonic" | "boottime") {
            return Err(bad(format_args!("linux.timeOffsets[{clock:?}]"), "is neither monotonic nor boottime"));
        }
        if offset.nanosecs().is_some_and(|nanoseconds| nanoseconds >= 1_000_000_000) {
            return Err(bad(format_args!("linux.timeOffsets.{clock}.nanosecs"), "is a second or more"));
        }
    }
    Ok(())
}

/// `IFNAMSIZ` of linux/if.h, with the NUL.
const INTERFACE_NAME_BYTES: usize = 16;

fn check_net_devices(linux: &Linux, network: Option<&LinuxNamespace>) -> Result<()> {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else { return Ok(()) };
    if network.is_none() {
        return Err(bad("linux.netDevices", "unable to move network devices without a NET namespace"));
    }
    for (name, device) in devices {
        let new_name = device.name().as_deref().filter(|name| !name.is_empty());
        for name in [Some(name.as_str()), new_name].into_iter().flatten() {
            // dev_valid_name() of the kernel's net/core/dev.c.
            let is_valid = !matches!(name, "" | "." | "..")
                && name.len() < INTERFACE_NAME_BYTES
                && !name.contains(['/', ':'])
                && !name.contains(|letter: char| letter.is_ascii_whitespace() || letter == '\0');
            if !is_valid {
                return Err(bad("linux.netDevices", format_args!("invalid network device name {name:?}")));
            }
        }
    }
    Ok(())
}

/// Sysctls of the IPC namespace: proc_sys_kernel(5), ipc_namespaces(7).
const IPC_SYSCTLS: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// Lets through what the kernel keeps per namespace, if the container has that namespace for itself.
///
/// The key becomes a path below /proc/sys and the value is written there, so neither may hold more than one of its kind
/// (CVE-2022-0811: `+` and `=` in a value carried a second, global sysctl).
fn check_sysctl<'a>(
    key: &str,
    value: &str,
    find: &dyn Fn(LinuxNamespaceType) -> Option<&'a LinuxNamespace>,
) -> Result<()> {
    let field = format_args!("linux.sysctl[{key:?}]");
    let is_name = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    if key.contains(['/', '=']) || !key.split('.').all(is_name) {
        return Err(bad(field, "is not the name of a sysctl, with dots between its parts"));
    }
    // Lists of numbers are separated by tabs where the kernel prints them.
    if value.chars().any(|letter| letter.is_control() && letter != '\t') {
        return Err(bad(field, "the value holds a control character"));
    }
    let kind = if key.starts_with("net.") {
        LinuxNamespaceType::Network
    } else if key.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&key) {
        LinuxNamespaceType::Ipc
    } else if key == "kernel.domainname" {
        LinuxNamespaceType::Uts
    } else if key.starts_with("user.") {
        LinuxNamespaceType::User
    } else if key == "kernel.hostname" {
        return Err(bad(field, "is not allowed as it conflicts with the field hostname"));
    } else {
        return Err(bad(field, "is not in a separate kernel namespace"));
    };
    match find(kind) {
        None => Err(bad(field, format_args!("is not allowed in the host's {} namespace", word(kind)))),
        Some(namespace) if path_of(namespace).is_some_and(|path| is_own(path, kind)) => {
            Err(bad(field, format_args!("is not allowed in the host's {} namespace", word(kind))))
        }
        Some(_) => Ok(()),
    }
}

/// Says whether a namespace file stands for the namespace that we are in ourselves.
///
/// A file that cannot be looked at is not ours; joining it will fail with the reason.
fn is_own(path: &Path, kind: LinuxNamespaceType) -> bool {
    let file = match kind {
        LinuxNamespaceType::Network => "net",
        other => word(other),
    };
    let id = |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let own = id(&Path::new("/proc/self/ns").join(file));
    own.is_some() && id(path) == own
}

/// An empty path is an absent one: callers written in Go leave out the difference.
fn path_of(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// The word of the specification for a type.
fn word(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, set, with};
    use serde_json::{Value, json};

    /// Says how the smallest configuration with these namespaces and this field is refused.
    fn refusal_with(namespaces: &Value, field: &str, value: &Value) -> String {
        with(|spec| {
            set(spec, "linux.namespaces", namespaces);
            set(spec, field, value);
        })
        .map_or_else(|error| error.report(), |_| String::new())
    }

    #[test]
    fn each_field_needs_its_namespace() {
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        let own = |kind: &str| json!([{"type": "mount"}, {"type": kind}]);
        let host = |kind: &str, file: &str| json!([{"type": "mount"}, {"type": kind, "path": format!("/proc/self/ns/{file}")}]);
        let rows = [
            (own("pid"), "hostname", json!("x"), "hostname: "),
            (own("pid"), "hostname", json!(""), ""),
            (own("uts"), "hostname", json!("x"), ""),
            (own("pid"), "domainname", json!("x"), "domainname: "),
            (own("pid"), "linux.uidMappings", map.clone(), "linux.uidMappings: needs a user namespace"),
            (own("pid"), "linux.gidMappings", map.clone(), "linux.gidMappings: needs a user namespace"),
            (own("user"), "linux.gidMappings", map.clone(), "linux.uidMappings: a new user namespace"),
            (host("user", "user"), "linux.sysctl", json!({}), ""),
            (own("pid"), "linux.timeOffsets", json!({"boottime": {"secs": 1}}), "linux.timeOffsets: needs"),
            (own("time"), "linux.timeOffsets", json!({"boottime": {"secs": -1}}), ""),
            (own("time"), "linux.timeOffsets", json!({"realtime": {"secs": 1}}), "linux.timeOffsets[\"realtime\"]"),
            (
                own("time"),
                "linux.timeOffsets",
                json!({"monotonic": {"nanosecs": 1_000_000_000}}),
                "linux.timeOffsets.monotonic",
            ),
            (
                host("time", "time"),
                "linux.timeOffsets",
                json!({"boottime": {"secs": 1}}),
                "linux.timeOffsets: the clocks",
            ),
            (own("pid"), "linux.netDevices", json!({"eth0": {}}), "linux.netDevices: unable to move network devices"),
            (own("network"), "linux.netDevices", json!({"eth0": {"name": ""}}), ""),
            (own("network"), "linux.netDevices", json!({"a-name-of-15-by": {}}), ""),
            (own("network"), "linux.netDevices", json!({"a-name-of-16-byt": {}}), "linux.netDevices: invalid network"),
            (own("network"), "linux.netDevices", json!({"eth0": {"name": "a b"}}), "linux.netDevices: invalid network"),
            (own("network"), "linux.netDevices", json!({"..": {}}), "linux.netDevices: invalid network"),
            (json!([{"type": "pid"}]), "linux.maskedPaths", json!(["/proc/kcore"]), "linux.maskedPaths: needs"),
            (json!([{"type": "pid"}, {"type": "pid"}]), "linux.sysctl", json!({}), "linux.namespaces[1]: a second"),
            (json!([{"type": "pid", "path": "x"}]), "linux.sysctl", json!({}), "linux.namespaces[0].path: "),
            (json!([{"type": "mount", "path": ""}]), "linux.sysctl", json!({}), ""),
        ];
        for (namespaces, field, value, expected) in rows {
            let report = refusal_with(&namespaces, field, &value);
            let is_right = report.starts_with(expected) && report.is_empty() == expected.is_empty();
            assert!(is_right, "{namespaces} {field} = {value}: {report:?} is not {expected:?}");
        }
    }

    #[test]
    fn maps_are_ranges() {
        for (map, passes) in [
            (json!([{"containerID": 0, "hostID": 0, "size": 4_294_967_295_u32}]), true),
            (json!([{"containerID": 1, "hostID": 0, "size": 4_294_967_295_u32}]), false),
            (json!([{"containerID": 0, "hostID": 4_294_967_295_u32, "size": 1}]), false),
            (json!([{"containerID": 0, "hostID": 0}]), false),
            (json!(vec![json!({"containerID": 0, "hostID": 0, "size": 1}); 341]), false),
        ] {
            let report = with(|spec| {
                set(spec, "linux.namespaces", &json!([{"type": "mount"}, {"type": "user"}]));
                set(spec, "linux.uidMappings", &map);
                set(spec, "linux.gidMappings", &json!([{"containerID": 0, "hostID": 0, "size": 1}]));
            })
            .map_or_else(|error| error.report(), |_| String::new());
            assert_eq!(report.is_empty(), passes, "{map}: {report}");
        }
    }

    #[test]
    fn sysctls_reach_no_further_than_the_container() {
        let all = json!([{"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}]);
        let none = json!([{"type": "mount"}]);
        let host = json!([{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/net"}]);
        let gone = json!([{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/no-such"}]);
        let rows = [
            (&all, "net.ipv4.ip_forward", "1", true),
            (&all, "net.ipv4.tcp_rmem", "4096\t87380 6291456", true),
            (&all, "net.ipv4.conf.veth0@x:1.forwarding", "1", true),
            (&none, "net.ipv4.ip_forward", "1", false),
            (&host, "net.ipv4.ip_forward", "1", false),
            (&gone, "net.ipv4.ip_forward", "1", true),
            (&all, "kernel.shm_rmid_forced", "1", true),
            (&all, "fs.mqueue.queues_max", "1", true),
            (&none, "kernel.msgmax", "1", false),
            (&all, "kernel.domainname", "x", true),
            (&none, "kernel.domainname", "x", false),
            (&all, "kernel.hostname", "x", false),
            (&all, "user.max_user_namespaces", "1", false),
            (&all, "kernel.core_pattern", "|/x", false),
            (&all, "vm.swappiness", "1", false),
            (&all, "net/ipv4/ip_forward", "1", false),
            (&all, "net.../../kernel/core_pattern", "1", false),
            (&all, "net..kernel.core_pattern", "1", false),
            (&all, "net.x=y", "1", false),
            (&all, "net.", "1", false),
            (&all, "net.a b", "1", false),
            (&all, "net.a\n", "1", false),
            (&all, "net.ipv4.ip_forward", "1\nkernel.core_pattern=x", false),
            (&all, "net.ipv4.ip_forward", "1\0", false),
        ];
        for (namespaces, key, value, passes) in rows {
            let report = refusal_with(namespaces, "linux.sysctl", &json!({key: value}));
            assert_eq!(report.is_empty(), passes, "{key:?}={value:?} in {namespaces}: {report}");
            assert!(passes || report.starts_with(&format!("linux.sysctl[{key:?}]: ")), "{report}");
        }
        let report = refusal("linux.sysctl", &json!({"user.x": "1"}));
        assert!(report.contains("host's user namespace"), "{report}");
    }
}
