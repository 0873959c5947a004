//! What a container gets unless something else is asked for: the engine's defaults, in one place.
//!
//! They are docker's, but where the table says otherwise and why.
//!
//! | what | docker | husk |
//! |---|---|---|
//! | capabilities | [`CAPABILITIES`] | the same |
//! | seccomp | its profile | [`crate::seccomp::default_profile`] |
//! | no_new_privileges | off | off |
//! | masked, read-only paths | its lists | the union of docker's, containerd's and podman's |
//! | mounts | `/proc /dev /dev/pts /dev/shm /dev/mqueue /sys /sys/fs/cgroup` | the same |
//! | `/dev/shm` | 64 MiB | the same |
//! | namespaces | pid mount ipc uts network; cgroup on v2 only | cgroup on v1, too: the host's tree is nobody's business |
//! | network | `bridge` | the same; none where that cannot be, and a line that says why |
//! | limits, ulimits | none of its own; the daemon's ulimits | none of its own; the caller's ulimits |
//! | devices | null zero full random urandom tty console ptmx pts | the same |
//! | sysctls of a private network | unprivileged ports and ping | the same; ping not in a user namespace, which lacks the ids |
//! | umask | the daemon's, 022 | 022, whatever the caller's |
//! | environment | `PATH HOSTNAME`, `TERM` with a terminal, `HOME`; proxies of its configuration | the same; the caller's proxies |
//! | `/etc/hosts`, `hostname`, `resolv.conf` | its own | its own |
//! | stop | SIGTERM, 10 s | the same |
//! | missing source of a bind | made, as root | an error |

use oci_spec::runtime::Capability;

/// The search path where the image has none.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kind of terminal that `-t` gives.
pub const TERM: &str = "TERM=xterm";

/// The working directory where the image has none.
pub const WORKING_DIRECTORY: &str = "/";

/// Size of `/dev/shm`.
pub const SHM_BYTES: u64 = 64 << 20;

/// Options of a tmpfs in the place of an image's volume, and of those that a read-only container works in
/// (`--read-only-tmpfs`).
pub const TMPFS: &[&str] = &["nosuid", "nodev", "mode=1777"];

/// Where the program of `--init-path` is in the container.
pub const INIT_PATH: &str = "/sbin/docker-init";

/// What new files lack.
pub const UMASK: u32 = 0o022;

/// What `stop` sends, and how long it waits before SIGKILL.
pub const STOP_SIGNAL: &str = "SIGTERM";
pub const STOP_TIMEOUT_SECONDS: u32 = 10;

/// The cgroup that containers' cgroups are made in, where husk makes them.
pub const CGROUP_PARENT: &str = "/husk";

/// The slices that they are made in, where systemd makes them: of root's containers, and of a user's.
pub const SYSTEM_SLICE: &str = "system.slice";
pub const USER_SLICE: &str = "user.slice";

/// The period of the CPU quota that `--cpus` sets, in microseconds.
pub const CPU_PERIOD: u64 = 100_000;

/// The least that `-m` takes: below it, no process starts.
pub const MEMORY_MINIMUM: u64 = 6 << 20;

/// The bounding set; effective and permitted for user 0 as well.
pub const CAPABILITIES: &[Capability] = &[
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
];

/// What `ALL` stands for; what a kernel does not have, the runtime leaves out.
pub const ALL_CAPABILITIES: &[Capability] = &[
    Capability::AuditControl,
    Capability::AuditRead,
    Capability::AuditWrite,
    Capability::BlockSuspend,
    Capability::Bpf,
    Capability::CheckpointRestore,
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::Kill,
    Capability::Lease,
    Capability::LinuxImmutable,
    Capability::MacAdmin,
    Capability::MacOverride,
    Capability::Mknod,
    Capability::NetAdmin,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetRaw,
    Capability::Perfmon,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysChroot,
    Capability::Syslog,
    Capability::SysModule,
    Capability::SysNice,
    Capability::SysPacct,
    Capability::SysPtrace,
    Capability::SysRawio,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::WakeAlarm,
];

/// Unreadable: they tell of the host, or of other containers.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    // Energy counters of the processor are a side channel into other containers' keys (GHSA-7ww5-4wqc-m92c).
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// Of each processor: temperature events of one core tell what runs on it (GHSA-6fw5-f8r9-fgfm).
pub fn thermal_throttle_path(processor: u32) -> String {
    format!("/sys/devices/system/cpu/cpu{processor}/thermal_throttle")
}

/// Read-only: writing there changes the host.
pub const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Set in a private network namespace, where they concern nobody else.
pub const NETWORK_SYSCTLS: &[(&str, &str)] =
    &[("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The one of them that names groups, which a user namespace may not have.
pub const PING_SYSCTL: &str = "net.ipv4.ping_group_range";

/// A mount that every container has.
pub struct DefaultMount {
    pub destination: &'static str,
    pub kind: &'static str,
    pub source: &'static str,
    pub options: &'static [&'static str],
}

/// In the order in which they are made. `/dev/shm` gets its size added.
pub const MOUNTS: &[DefaultMount] = &[
    DefaultMount { destination: "/proc", kind: "proc", source: "proc", options: &["nosuid", "noexec", "nodev"] },
    DefaultMount {
        destination: "/dev",
        kind: "tmpfs",
        source: "tmpfs",
        options: &["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    DefaultMount {
        destination: "/dev/pts",
        kind: "devpts",
        source: "devpts",
        options: &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    DefaultMount { destination: "/sys", kind: "sysfs", source: "sysfs", options: &["nosuid", "noexec", "nodev", "ro"] },
    DefaultMount {
        destination: "/sys/fs/cgroup",
        kind: "cgroup",
        source: "cgroup",
        options: &["ro", "nosuid", "noexec", "nodev"],
    },
    DefaultMount {
        destination: "/dev/mqueue",
        kind: "mqueue",
        source: "mqueue",
        options: &["nosuid", "noexec", "nodev"],
    },
    DefaultMount {
        destination: "/dev/shm",
        kind: "tmpfs",
        source: "shm",
        options: &["nosuid", "noexec", "nodev", "mode=1777"],
    },
];

/// The group of terminals in every distribution's `/etc/group`, and of devpts above.
pub const TTY_GROUP: u32 = 5;

/// Devices that may be used; all others may be made (`m`), and do nothing.
pub const DEVICE_RULES: &[(char, Option<i64>, Option<i64>, &str)] = &[
    ('c', None, None, "m"),
    ('b', None, None, "m"),
    // null, zero, full, random, urandom
    ('c', Some(1), Some(3), "rwm"),
    ('c', Some(1), Some(5), "rwm"),
    ('c', Some(1), Some(7), "rwm"),
    ('c', Some(1), Some(8), "rwm"),
    ('c', Some(1), Some(9), "rwm"),
    // tty, console, ptmx
    ('c', Some(5), Some(0), "rwm"),
    ('c', Some(5), Some(1), "rwm"),
    ('c', Some(5), Some(2), "rwm"),
    // pseudo-terminals
    ('c', Some(136), None, "rwm"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What the peers mask: moby's daemon/pkg/oci, containerd's pkg/oci, podman's common/pkg/config (and, of podman 4,
    /// /sys/dev/block). A path may only ever be added.
    const MOBY_MASKED: &[&str] = &[
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];
    const CONTAINERD_MASKED: &[&str] = &[
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];
    const PODMAN_MASKED: &[&str] = &[
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/dev/block",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
        "/sys/fs/selinux",
    ];
    const PEERS_READONLY: &[&str] =
        &["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

    #[test]
    fn what_a_peer_hides_is_hidden() {
        for path in [MOBY_MASKED, CONTAINERD_MASKED, PODMAN_MASKED].concat() {
            assert!(MASKED_PATHS.contains(&path), "{path} is not masked");
        }
        for path in PEERS_READONLY {
            assert!(READONLY_PATHS.contains(path) || MASKED_PATHS.contains(path), "{path} is writable");
        }
    }

    #[test]
    fn tables_are_sorted_and_whole() {
        assert!(MASKED_PATHS.is_sorted() && READONLY_PATHS.is_sorted());
        // CAP_LAST_CAP of linux/capability.h is 40.
        let all: std::collections::HashSet<_> = ALL_CAPABILITIES.iter().collect();
        assert_eq!((all.len(), ALL_CAPABILITIES.len()), (41, 41));
        assert_eq!(CAPABILITIES.len(), 14);
    }
}
