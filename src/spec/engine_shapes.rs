//! Configurations in the shapes that engines write, for tests: the fields, spellings and oddities of each, none of their
//! text.

use oci_spec::runtime::LinuxNamespaceType;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::load;
use super::mount_options::{Bind, MountOptions};
use super::validate::{Validated, validate};

/// Every document, with the name of the engine that writes such ones.
fn documents() -> Vec<(&'static str, Value)> {
    vec![
        ("an engine with a long seccomp profile", podman()),
        ("a daemon's shim", containerd()),
        ("a container of a pod", pod()),
        ("a build step", buildah()),
    ]
}

fn capabilities() -> Value {
    json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SYS_CHROOT"
    ])
}

fn seccomp() -> Value {
    let names: Vec<String> = (0..350).map(|number| format!("system_call_{number}")).collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["bdflush", "uselib"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 18_446_744_073_709_551_615_u64, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 2_114_060_288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        ],
    })
}

fn podman() -> Value {
    json!({
        "ociVersion": "1.0.2-dev",
        "process": {
            "terminal": true, "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [0]},
            "args": ["sh", "-c", "[ -e /x ] || echo '{\"linux\": [1,[2]]}'"],
            "env": ["PATH=/usr/bin:/bin", "TERM=xterm", "container=x", "HOME=/root", "EMPTY="],
            "cwd": "/",
            "capabilities": {"bounding": capabilities(), "effective": capabilities(), "permitted": capabilities()},
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": 1_048_576, "soft": 1_048_576},
                {"type": "RLIMIT_NPROC", "hard": 1_048_576, "soft": 1_048_576},
            ],
            "oomScoreAdj": 0, "noNewPrivileges": true, "apparmorProfile": "", "selinuxLabel": "",
        },
        "root": {"path": "/var/lib/engine/overlay/0123/merged"},
        "hostname": "0123456789ab",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/dev/shm", "type": "bind", "source": "/run/engine/shm",
             "options": ["bind", "rprivate", "nosuid", "noexec", "nodev"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["rprivate", "rw", "nosuid", "nodev", "tmpcopyup"]},
            {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rslave", "ro", "rbind"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["rprivate", "nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "annotations": {"io.container.manager": "engine", "org.opencontainers.image.stopSignal": "15"},
        "linux": {
            "sysctl": {"net.ipv4.ping_group_range": "0 0"},
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
                "memory": {"limit": 104_857_600, "swap": 209_715_200},
                "cpu": {"quota": 100_000, "period": 100_000},
                "pids": {"limit": 2048},
            },
            "cgroupsPath": "/engine/engine-0123",
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            // The file mode of a device comes with the bits of its type.
            "devices": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 8630, "uid": 0, "gid": 0}],
            "seccomp": seccomp(),
            "maskedPaths": ["/proc/acpi", "/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

fn containerd() -> Value {
    let mut document = podman();
    document["ociVersion"] = json!("1.1.0");
    document["process"]["terminal"] = json!(null);
    document["process"]["consoleSize"] = json!({"height": 24, "width": 80});
    document["process"]["capabilities"]["inheritable"] = json!(null);
    document["process"]["capabilities"]["bounding"] = json!(["CAP_CHOWN", "CAP_FROM_A_NEWER_KERNEL"]);
    document["hooks"] = json!({
        "prestart": [{"path": "/proc/1234/exe", "args": ["libnetwork-setkey", "x"]}],
        "createRuntime": null,
    });
    document["linux"]["resources"]["pids"] = json!({});
    document["linux"]["resources"]["blockIO"] = json!({"weight": 0});
    document["linux"]["resources"]["memory"] = json!({"disableOOMKiller": false});
    document["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"}, {"type": "cgroup"}, {"type": "time"}]);
    document
}

/// With user namespaces, the namespace's path and its map are both given.
fn pod() -> Value {
    let mut document = podman();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    document["hostname"] = json!(null);
    document["linux"]["uidMappings"] = map.clone();
    document["linux"]["gidMappings"] = map.clone();
    document["linux"]["sysctl"] = json!({});
    document["linux"]["namespaces"] = json!([
        {"type": "pid"}, {"type": "ipc", "path": "/proc/77/ns/ipc"}, {"type": "uts", "path": "/proc/77/ns/uts"},
        {"type": "mount"}, {"type": "network", "path": "/proc/77/ns/net"}, {"type": "user", "path": "/proc/77/ns/user"},
    ]);
    document["mounts"][5]["uidMappings"] = map.clone();
    document["mounts"][5]["gidMappings"] = map;
    document
}

fn buildah() -> Value {
    let mut document = podman();
    document["mounts"][5]["options"] = json!(["rbind"]);
    document["process"]["user"] = json!({"uid": 0, "gid": 0, "username": "root"});
    document["linux"]["devices"] = json!(null);
    document["annotations"] = json!(null);
    document
}

fn read(document: &Value) -> Validated {
    let text = document.to_string();
    load::parse("config.json", text.as_bytes()).and_then(validate).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

#[test]
fn what_engines_write_is_accepted() {
    for (name, document) in documents() {
        let validated = read(&document);
        let spec = validated.spec();
        let unknown = document.to_string().contains("CAP_FROM_A_NEWER_KERNEL");
        assert_eq!(validated.warnings().len(), usize::from(unknown), "{name}: {:?}", validated.warnings());
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.seccomp().as_ref().unwrap().syscalls().as_ref().unwrap()[1].names().len(), 350, "{name}");
        let mounts = spec.mounts().as_ref().unwrap();
        let options = MountOptions::parse(mounts[5].options().as_deref().unwrap()).unwrap();
        assert_eq!(options.bind, Bind::Recursive, "{name}");
    }
}

#[test]
fn shapes_keep_their_meaning() {
    let containerd = read(&containerd());
    let linux = containerd.spec().linux().as_ref().unwrap();
    assert!(linux.resources().as_ref().unwrap().pids().is_none());
    assert_eq!(linux.namespaces().as_ref().unwrap()[6].typ(), LinuxNamespaceType::Time);
    let process = containerd.spec().process().as_ref().unwrap();
    assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
    assert_eq!(process.console_size().unwrap().height(), 24);
    let pod = read(&pod());
    assert_eq!(pod.spec().mounts().as_ref().unwrap()[5].uid_mappings().as_ref().unwrap()[0].host_id(), 100_000);
}

proptest! {
    /// Whatever is cut from a good document or written over it, the answer is a document or a message.
    #[test]
    fn damage_is_answered(start in 0..12_000_usize, length in 0..40_usize, with in prop::collection::vec(prop::sample::select(b"{}[]\",:\\0a\xff\n ".to_vec()), 0..4)) {
        for (_, document) in documents() {
            let mut bytes = document.to_string().into_bytes();
            let start = start % bytes.len();
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, with.iter().copied());
            if let Err(error) = load::parse("config.json", &bytes).and_then(validate) {
                prop_assert!(!error.report().is_empty() && !error.report().contains('\n'), "{}", error.report());
            }
        }
    }
}
