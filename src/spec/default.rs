//! The configuration that `runc spec` writes, to the byte but for the version. Writes no file.
//!
//! It is built as text and not from the types of `oci-spec`: scripts edit this document, so the order of its fields is
//! part of it.

use serde::{Serialize, Serializer};
use serde_json::ser::{PrettyFormatter, Serializer as Printer};

use super::validate::OCI_VERSION_MAX;

/// What the default configuration depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultSpec {
    /// The user and the group to map to root, for a caller without root (`--rootless`).
    pub rootless: Option<(u32, u32)>,
    /// Whether the host has cgroups in version 2 only, where a cgroup namespace hides the rest of the tree.
    pub has_unified_cgroups: bool,
}

impl DefaultSpec {
    /// Prints the document, indented with tabs, without a newline at the end.
    pub fn to_json(self) -> String {
        let mut text = Vec::new();
        let mut printer = Printer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
        self.document().serialize(&mut printer).expect("nothing in the document can fail to print");
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    fn document(self) -> Node {
        Object(vec![
            ("ociVersion", Text(OCI_VERSION_MAX)),
            ("process", process()),
            ("root", Object(vec![("path", Text("rootfs")), ("readonly", Bool(true))])),
            ("hostname", Text("runc")),
            ("mounts", self.mounts()),
            ("linux", self.linux()),
        ])
    }

    fn mounts(self) -> Node {
        let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
        if self.rootless.is_none() {
            // The group tty is not mapped otherwise.
            pts.push("gid=5");
        }
        let sys = if self.rootless.is_none() {
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        } else {
            // Without a network namespace of its own, a user may not mount a new sysfs.
            mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
        };
        List(vec![
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &pts),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            sys,
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ])
    }

    fn linux(self) -> Node {
        let mut fields = Vec::new();
        if let Some((uid, gid)) = self.rootless {
            fields.push(("uidMappings", List(vec![map_root_to(uid)])));
            fields.push(("gidMappings", List(vec![map_root_to(gid)])));
        } else {
            let all_devices = Object(vec![("allow", Bool(false)), ("access", Text("rwm"))]);
            fields.push(("resources", Object(vec![("devices", List(vec![all_devices]))])));
        }
        let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
        if self.has_unified_cgroups {
            namespaces.push("cgroup");
        }
        if self.rootless.is_some() {
            namespaces.retain(|namespace| *namespace != "network");
            namespaces.push("user");
        }
        let namespaces = namespaces.into_iter().map(|namespace| Object(vec![("type", Text(namespace))]));
        fields.push(("namespaces", List(namespaces.collect())));
        fields.push(("maskedPaths", texts(MASKED_PATHS)));
        fields.push(("readonlyPaths", texts(READONLY_PATHS)));
        Object(fields)
    }
}

/// What tells too much about the host, or can change it.
const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

/// What root in the container may read and must not write.
const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn process() -> Node {
    let capabilities = || texts(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    Object(vec![
        ("terminal", Bool(true)),
        ("user", Object(vec![("uid", Number(0)), ("gid", Number(0))])),
        ("args", texts(&["sh"])),
        ("env", texts(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"])),
        ("cwd", Text("/")),
        (
            "capabilities",
            // Not in the inheritable set: executables with file capabilities would gain them (CVE-2022-29162).
            Object(vec![("bounding", capabilities()), ("effective", capabilities()), ("permitted", capabilities())]),
        ),
        (
            "rlimits",
            List(vec![Object(vec![("type", Text("RLIMIT_NOFILE")), ("hard", Number(1024)), ("soft", Number(1024))])]),
        ),
        ("noNewPrivileges", Bool(true)),
    ])
}

fn mount(destination: &'static str, kind: &'static str, source: &'static str, options: &[&'static str]) -> Node {
    let mut fields = vec![("destination", Text(destination)), ("type", Text(kind)), ("source", Text(source))];
    if !options.is_empty() {
        fields.push(("options", texts(options)));
    }
    Object(fields)
}

fn map_root_to(id: u32) -> Node {
    Object(vec![("containerID", Number(0)), ("hostID", Number(id)), ("size", Number(1))])
}

fn texts(values: &[&'static str]) -> Node {
    List(values.iter().copied().map(Text).collect())
}

/// JSON whose objects keep their order.
enum Node {
    Text(&'static str),
    Number(u32),
    Bool(bool),
    List(Vec<Node>),
    Object(Vec<(&'static str, Node)>),
}

use Node::{Bool, List, Number, Object, Text};

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Text(text) => serializer.serialize_str(text),
            Number(number) => serializer.serialize_u32(*number),
            Bool(value) => serializer.serialize_bool(*value),
            List(nodes) => serializer.collect_seq(nodes),
            Object(fields) => serializer.collect_map(fields.iter().map(|(key, node)| (key, node))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{load, validate};
    use oci_spec::runtime::LinuxNamespaceType;
    use std::process::Command;

    fn options() -> [DefaultSpec; 4] {
        [(None, false), (None, true), (Some((0, 0)), false), (Some((1000, 100)), true)]
            .map(|(rootless, has_unified_cgroups)| DefaultSpec { rootless, has_unified_cgroups })
    }

    #[test]
    fn every_default_is_valid_as_it_is() {
        for options in options() {
            let document = load::parse("config.json", options.to_json().as_bytes()).unwrap();
            assert_eq!(document.warnings, [""; 0], "{options:?}");
            let validated = validate::validate(document).unwrap();
            let linux = validated.spec().linux().as_ref().unwrap();
            let has = |kind| linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind);
            assert_eq!(has(LinuxNamespaceType::User), options.rootless.is_some());
            assert_eq!(has(LinuxNamespaceType::Network), options.rootless.is_none());
            assert_eq!(has(LinuxNamespaceType::Cgroup), options.has_unified_cgroups);
            assert_eq!(linux.resources().is_none(), options.rootless.is_some());
        }
    }

    /// runc before 1.2 asks for these, which the kernel does not raise: they are not inheritable.
    const AMBIENT: &str = ",\n\t\t\t\"ambient\": [\n\t\t\t\t\"CAP_AUDIT_WRITE\",\n\t\t\t\t\"CAP_KILL\",\n\t\t\t\t\
        \"CAP_NET_BIND_SERVICE\"\n\t\t\t]";

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that compares nothing says why")]
    fn runc_writes_the_same() {
        let Ok(version) = Command::new("runc").arg("--version").output() else {
            eprintln!("not compared: runc is not installed");
            return;
        };
        // runc asks for the type of this file system to tell the versions of cgroups apart.
        let has_unified_cgroups = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        for rootless in [None, Some(ids)] {
            let bundle = tempfile::tempdir().unwrap();
            let mut runc = Command::new("runc");
            runc.arg("spec").arg("--bundle").arg(bundle.path()).args(rootless.map(|_| "--rootless"));
            let output = runc.output().unwrap();
            assert!(output.status.success(), "runc spec: {}", String::from_utf8_lossy(&output.stderr));
            let theirs = std::fs::read_to_string(bundle.path().join("config.json")).unwrap();
            let theirs_with_our_version = theirs
                .lines()
                .map(|line| match line.strip_prefix("\t\"ociVersion\": ") {
                    Some(_) => format!("\t\"ociVersion\": \"{OCI_VERSION_MAX}\","),
                    None => line.to_owned(),
                })
                .collect::<Vec<_>>()
                .join("\n")
                .replace(AMBIENT, "");
            let ours = DefaultSpec { rootless, has_unified_cgroups }.to_json();
            let version = String::from_utf8_lossy(&version.stdout);
            assert_eq!(ours, theirs_with_our_version, "rootless {rootless:?}, {version}");
        }
    }
}
