//! The bundles that are run: a bare one, and one as engines write them. Runs nothing.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, LinuxSeccomp, LinuxSyscall};
use serde_json::{Value, json};

use crate::Result;
use crate::environment::Scratch;

/// How much a bundle asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Namespaces, the usual file systems, and a cgroup without a limit.
    Bare,
    /// What an engine adds: a seccomp profile, limits, bind mounts, masked paths, capabilities, limits of the process.
    Engine,
}

/// Writes a bundle whose payload gets `arguments`, and gives its directory.
pub fn write(scratch: &Scratch, name: &str, style: Style, arguments: &[&str]) -> Result<PathBuf> {
    let bundle = scratch.directory.join(name);
    let root = bundle.join("rootfs");
    // Made beforehand, so that the first runtime doesn't make them for the others.
    for directory in ["proc", "dev", "sys", "etc", "tmp", "run", "data"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(&scratch.payload, root.join("payload"))?;
    for file in ["resolv.conf", "hostname", "hosts"] {
        fs::write(root.join("etc").join(file), "")?;
        fs::write(bundle.join(file), "127.0.0.1 localhost\n")?;
    }
    fs::create_dir_all(bundle.join("volume"))?;

    let cgroup = format!("{}/{name}", scratch.cgroup);
    let mut config = bare(arguments, &cgroup);
    if style == Style::Engine {
        dress(&mut config, &bundle)?;
    }
    fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    Ok(bundle)
}

/// Gives the names that the seccomp profile of an engine-style bundle allows or refuses.
pub fn profile_names(profile: &LinuxSeccomp) -> usize {
    let names: HashSet<_> = profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names).collect();
    names.len()
}

/// Gives the engine's default profile for the usual capabilities, in the words of Debian 12's libseccomp.
///
/// It would spend the peers' time on a warning for each name that it has never heard of.
pub fn profile() -> LinuxSeccomp {
    let newer = "cachestat fchmodat2 file_getattr file_setattr futex_requeue futex_wait futex_wake get_tls getxattrat \
                 listmount listns listxattrat lsm_get_self_attr lsm_list_modules lsm_set_self_attr map_shadow_stack mseal \
                 open_tree_attr removexattrat riscv_hwprobe rseq_slice_yield setxattrat statmount uprobe uretprobe";
    let newer: HashSet<_> = newer.split_whitespace().collect();
    let capabilities = usual_capabilities();
    let mut profile = husk::seccomp::default_profile(&capabilities.into_iter().collect());
    let rules = profile.syscalls().clone().unwrap_or_default();
    let rules = rules.into_iter().map(|mut rule| {
        let names = rule.names().iter().filter(|name| !newer.contains(name.as_str())).cloned().collect();
        rule.set_names(names);
        rule
    });
    profile.set_syscalls(Some(rules.collect()));
    profile
}

fn usual_capabilities() -> [Capability; 14] {
    [
        Capability::AuditWrite,
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::Mknod,
        Capability::NetBindService,
        Capability::NetRaw,
        Capability::Setfcap,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysChroot,
    ]
}

fn bare(arguments: &[&str], cgroup: &str) -> Value {
    let arguments: Vec<_> = std::iter::once("/payload").chain(arguments.iter().copied()).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": arguments,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" },
            ],
        },
    })
}

/// Adds what podman and containerd add.
fn dress(config: &mut Value, bundle: &Path) -> Result<()> {
    let capabilities: Vec<_> = usual_capabilities().iter().map(|name| format!("CAP_{name}")).collect();
    config["process"]["capabilities"] = json!({
        "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
    });
    config["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024 },
        { "type": "RLIMIT_NPROC", "soft": 4096, "hard": 4096 },
    ]);
    config["process"]["oomScoreAdj"] = json!(100);

    let mounts = config["mounts"].as_array_mut().ok_or("the bare configuration has mounts")?;
    mounts.push(json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["rprivate", "nosuid", "noexec", "nodev", "relatime", "ro"],
    }));
    for file in ["resolv.conf", "hostname", "hosts"] {
        mounts.push(json!({
            "destination": format!("/etc/{file}"), "type": "bind", "source": bundle.join(file),
            "options": ["bind", "rprivate", "nosuid", "nodev", "ro"],
        }));
    }
    mounts.push(json!({
        "destination": "/data", "type": "bind", "source": bundle.join("volume"), "options": ["rbind", "rprivate", "rw"],
    }));

    let device =
        |major: u32, minor: u32| json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    config["linux"]["resources"] = json!({
        "devices": [
            { "allow": false, "access": "rwm" },
            device(1, 3), device(1, 5), device(1, 7), device(1, 8),
            device(1, 9), device(5, 0), device(5, 2),
            { "allow": true, "type": "c", "major": 136, "access": "rwm" },
        ],
        "memory": { "limit": 268_435_456, "reservation": 134_217_728 },
        "cpu": { "shares": 512, "quota": 100_000, "period": 100_000, "cpus": "0", "mems": "0" },
        "pids": { "limit": 512 },
    });
    config["linux"]["maskedPaths"] = json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]);
    config["linux"]["readonlyPaths"] =
        json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    config["linux"]["seccomp"] = serde_json::to_value(profile())?;
    Ok(())
}
