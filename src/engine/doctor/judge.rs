//! What the facts mean: which of them are lacks, what each costs, what mends it. Pure.

use super::facts::{Cgroups, Facts, Place};
use super::trial::{self, Steps};
use super::{Finding, Standing};
use crate::cgroups::Mode;
use crate::support::units::human_size;

/// Less free space than a common image takes.
const LITTLE_SPACE: u64 = 1 << 30;
const FEW_INODES: u64 = 10_000;
/// What servers need, and distributions give as the hard limit.
const FEW_FILES: u64 = 65_536;
/// As many ids as images are made for.
const COMMON_IDS: u64 = 65_536;

/// Judges the facts, the vital ones first.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![ok("kernel", format!("Linux {}", facts.kernel))];
    if let Some(engine) = &facts.inside {
        findings.push(ok(
            "place",
            format!("inside of a container ({engine}): what is missing here may be its engine's doing"),
        ));
    }
    match &facts.trial {
        Err(error) => findings.push(namespaces_missing(facts, error)),
        Ok(steps) => {
            findings.push(ok(if facts.is_root { "mount namespace" } else { "user namespaces" }, "work"));
            judge_steps(steps, &facts.data_root, &mut findings);
        }
    }
    if facts.memfd_noexec == Some(2) {
        findings.push(
            missing("memory files", "vm.memfd_noexec is 2: none may be executed")
                .costs("no container starts: the last stage of a start is such a file")
                .mend("sysctl vm.memfd_noexec=1")
                .vital(),
        );
    }
    if !facts.is_root {
        findings.push(ids(facts));
    }
    findings.push(cgroups(facts));
    findings.push(if facts.has_seccomp {
        ok("seccomp", "filters work")
    } else {
        missing("seccomp", "this kernel has no filters, or a sandbox refuses them")
            .costs("containers run with --security-opt seccomp=unconfined only")
    });
    findings.push(match facts.landlock {
        0 => limited("Landlock", "this kernel has none, or it is off")
            .costs("the annotation org.husk.landlock fails, and what unpacks layers is confined by one fence less")
            .mend("boot with lsm=landlock,… (CONFIG_LANDLOCK=y)"),
        abi => ok("Landlock", format!("ABI {abi}")),
    });
    findings.push(place("data root", &facts.data_root));
    findings.push(run_root(facts));
    judge_rest(facts, &mut findings);
    findings
}

fn namespaces_missing(facts: &Facts, error: &str) -> Finding {
    if facts.is_root {
        return missing("mount namespace", error)
            .costs("no container starts: root without CAP_SYS_ADMIN is not enough")
            .mend("run husk where root may mount: in a container, with --privileged or --cap-add SYS_ADMIN")
            .vital();
    }
    let finding = missing("user namespaces", error).costs("no container of an ordinary user starts").vital();
    if facts.apparmor_restricts_userns == Some(1) {
        return finding.mend(
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for husk with `userns,`",
        );
    }
    if facts.unprivileged_userns_clone == Some(0) {
        return finding.mend("sudo sysctl kernel.unprivileged_userns_clone=1");
    }
    if facts.max_user_namespaces == Some(0) {
        return finding.mend("sudo sysctl user.max_user_namespaces=15000");
    }
    if facts.inside.is_some() {
        return finding.mend(
            "the engine around this container refuses: run it with --security-opt seccomp=unconfined, or as root",
        );
    }
    finding
}

/// A step: what it costs if it fails, and whether everything does.
fn judge_steps(steps: &Steps, data_root: &Place, findings: &mut Vec<Finding>) {
    let error_of = |name: &str| steps.get(name).and_then(Option::as_deref);
    let vital =
        trial::NAMESPACES.iter().map(|(name, _)| *name).chain([trial::OPENAT2, trial::MOUNT_ATTRIBUTES, trial::TMPFS]);
    let mut works = Vec::new();
    for name in vital {
        match error_of(name) {
            None => works.push(name),
            Some(error) => findings.push(missing(name, error).costs("no container starts").vital()),
        }
    }
    findings.push(ok("start", works.join(", ")));
    // Without a data root there was nothing to try them on.
    if data_root.problem.is_none() {
        findings.push(match error_of(trial::OVERLAY) {
        None => ok(trial::OVERLAY, "works on the data root"),
        Some(error) => limited(trial::OVERLAY, error)
            .costs("the image is copied for each container: slow, and its size each time")
            .mend("put the data root on ext4, xfs or btrfs of this machine: HUSK_DATA_ROOT, or data_root in husk.toml"),
    });
        findings.push(match error_of(trial::IDMAPPED) {
            None => ok(trial::IDMAPPED, "work on the data root"),
            Some(error) => {
                limited(trial::IDMAPPED, error).costs("-v …:idmap fails; use :U, which changes the files' owners")
            }
        });
    }
    findings.push(match error_of(trial::TIME) {
        None => ok(trial::TIME, "works"),
        Some(error) => limited(trial::TIME, error).costs("a bundle that asks for a time namespace fails"),
    });
}

fn ids(facts: &Facts) -> Finding {
    let topic = "subordinate ids";
    match &facts.lost_ids {
        Some(reason) => limited(topic, reason.clone())
            .costs("one user id only: images whose files or services belong to other users work in part")
            .mend("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER, and install uidmap (newuidmap)"),
        None if facts.ids < COMMON_IDS => limited(topic, format!("{} ids", facts.ids))
            .costs("files of images whose owners have higher ids cannot be unpacked")
            .mend("give 65536 in /etc/subuid and /etc/subgid"),
        None => ok(topic, format!("{} ids", facts.ids)),
    }
}

fn cgroups(facts: &Facts) -> Finding {
    const WANTED: [&str; 3] = ["cpu", "memory", "pids"];
    let topic = "cgroups";
    let Cgroups { mode, is_writable, has_manager, controllers } = &facts.cgroups;
    let version = match mode {
        Mode::Absent => {
            let finding = if facts.is_root {
                missing(topic, "none is mounted").vital()
            } else {
                limited(topic, "none is mounted")
            };
            return finding
                .costs(if facts.is_root {
                    "no container of root's starts"
                } else {
                    "no limits, no pause, no statistics"
                })
                .mend("mount -t cgroup2 cgroup2 /sys/fs/cgroup");
        }
        Mode::Legacy => "version 1",
        Mode::Hybrid => "version 1, with version 2 beside it",
        Mode::Unified => "version 2",
    };
    if !is_writable && !has_manager {
        let found = format!("{version}, and none where containers' could be made");
        if facts.is_root {
            return missing(topic, found)
                .costs("no container of root's starts")
                .mend("mount /sys/fs/cgroup to be written to")
                .vital();
        }
        let finding = limited(topic, found).costs("no limits, no pause, no statistics");
        return if *mode == Mode::Unified {
            finding.mend("log in by a session of systemd's, or have root delegate a cgroup to this user")
        } else {
            finding.mend("boot with version 2, which can be delegated to users: systemd.unified_cgroup_hierarchy=1")
        };
    }
    let lacking: Vec<&str> =
        WANTED.into_iter().filter(|wanted| !controllers.iter().any(|controller| controller == wanted)).collect();
    let how = if *has_manager { "by systemd" } else { "directly" };
    if lacking.is_empty() {
        return ok(topic, format!("{version}, {how}: {}", controllers.join(" ")));
    }
    let finding = limited(topic, format!("{version}, {how}, without {}", lacking.join(", ")))
        .costs("limits of these are lost, with a warning");
    if facts.is_root {
        return finding;
    }
    finding.mend("sudo systemctl edit user@.service, with [Service] Delegate=cpu cpuset io memory pids; log in anew")
}

fn place(topic: &'static str, place: &Place) -> Finding {
    let path = place.path.display();
    if let Some(problem) = &place.problem {
        return missing(topic, problem.clone()).costs("nothing can be kept: no container starts").vital();
    }
    let found = format!("{path}: {}, {} free", place.file_system, human_size(place.free_bytes));
    if place.free_bytes < LITTLE_SPACE {
        return limited(topic, found)
            .costs("pulls of common images will fail")
            .mend("husk system df, husk system prune");
    }
    match place.free_inodes {
        Some(free) if free < FEW_INODES => limited(topic, format!("{path}: {free} inodes free"))
            .costs("pulls of common images will fail")
            .mend("husk system prune, or a file system with more inodes"),
        _ => ok(topic, found),
    }
}

fn run_root(facts: &Facts) -> Finding {
    let topic = "run root";
    let place = &facts.run_root;
    let path = place.path.display();
    if let Some(problem) = &place.problem {
        return missing(topic, problem.clone()).costs("nothing can be kept while it runs: no container starts").vital();
    }
    if !place.is_memory {
        return limited(topic, format!("{path}: {}, not in memory", place.file_system))
            .costs("starts are slower; what a crash of the machine leaves there is cleared by the next command")
            .mend("log in by a session that has XDG_RUNTIME_DIR, or set HUSK_RUN_ROOT to a directory on a tmpfs");
    }
    ok(topic, format!("{path}: {}", place.file_system))
}

fn judge_rest(facts: &Facts, findings: &mut Vec<Finding>) {
    findings.push(match &facts.tun {
        None => ok("/dev/net/tun", "opens"),
        Some(error) => limited("/dev/net/tun", error.clone())
            .costs("networks of ordinary users' containers will not work (none is served yet: --network none, host)")
            .mend("sudo modprobe tun; in a container, --device /dev/net/tun"),
    });
    if !facts.is_root {
        findings.push(match facts.first_unprivileged_port {
            Some(port) if port > 80 => limited("low ports", format!("from {port} on"))
                .costs("with --network host, servers at ports 80 and 443 cannot listen")
                .mend("sudo sysctl net.ipv4.ip_unprivileged_port_start=80"),
            Some(port) => ok("low ports", format!("from {port} on")),
            None => limited("low ports", "unknown").costs("with --network host, servers at ports 80 and 443 may fail"),
        });
        findings.push(if facts.may_ping {
            ok("ping", "allowed to this user's group")
        } else {
            limited("ping", "not allowed to this user's group")
                .costs("with --network host, ping fails")
                .mend("sudo sysctl net.ipv4.ping_group_range='0 2147483647'")
        });
    }
    let (soft, hard) = facts.open_files;
    findings.push(if hard < FEW_FILES {
        limited("open files", format!("at most {hard}"))
            .costs("servers with many connections run out of descriptors, and --ulimit nofile cannot give more")
            .mend(if facts.is_root {
                "ulimit -Hn 1048576, or LimitNOFILE= of the service"
            } else {
                "a line `* hard nofile 1048576` in /etc/security/limits.conf"
            })
    } else {
        ok("open files", format!("{soft}, at most {hard}"))
    });
    match facts.lingers {
        Some(false) => findings.push(
            limited("lingering", "this user's processes end with the last session")
                .costs("detached containers end at the log-out, and none comes back with the machine")
                .mend("loginctl enable-linger"),
        ),
        Some(true) => findings.push(ok("lingering", "this user's processes outlive sessions")),
        None => {}
    }
    findings.push(if facts.reads_kernel_log {
        ok("kernel log", "readable")
    } else {
        limited("kernel log", "not for this user")
            .costs("`husk why` cannot name the system call that seccomp refused")
            .mend("ask as root, or sudo sysctl kernel.dmesg_restrict=0")
    });
}

fn ok(topic: &'static str, found: impl Into<String>) -> Finding {
    Finding { topic, standing: Standing::Ok, found: found.into(), cost: None, remedy: None, is_vital: false }
}

fn limited(topic: &'static str, found: impl Into<String>) -> Finding {
    Finding { standing: Standing::Limited, ..ok(topic, found) }
}

fn missing(topic: &'static str, found: impl Into<String>) -> Finding {
    Finding { standing: Standing::Missing, ..ok(topic, found) }
}

impl Finding {
    fn costs(self, cost: &'static str) -> Self {
        Self { cost: Some(cost), ..self }
    }

    fn mend(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    fn vital(self) -> Self {
        Self { is_vital: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::doctor::runs_containers;

    fn healthy(is_root: bool) -> Facts {
        let place = |path: &str, is_memory| Place {
            path: path.into(),
            problem: None,
            file_system: "ext4".into(),
            is_memory,
            free_bytes: 1 << 40,
            free_inodes: Some(1 << 20),
        };
        Facts {
            is_root,
            kernel: "6.18".into(),
            trial: Ok(Steps::new()),
            max_user_namespaces: Some(15000),
            unprivileged_userns_clone: None,
            apparmor_restricts_userns: Some(0),
            ids: 65537,
            lost_ids: None,
            cgroups: Cgroups {
                mode: Mode::Unified,
                is_writable: true,
                has_manager: false,
                controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
            },
            memfd_noexec: Some(0),
            has_seccomp: true,
            landlock: 7,
            tun: None,
            first_unprivileged_port: Some(80),
            may_ping: true,
            open_files: (1024, 1 << 20),
            data_root: place("/data", false),
            run_root: place("/run", true),
            lingers: Some(true),
            inside: None,
            reads_kernel_log: true,
        }
    }

    #[test]
    fn a_healthy_host_has_nothing_but_ok() {
        for is_root in [true, false] {
            let findings = judge(&healthy(is_root));
            assert!(findings.iter().all(|finding| finding.standing == Standing::Ok), "{findings:?}");
            assert!(runs_containers(&findings));
        }
    }

    /// A change of the facts, the topic, whether containers still run, and a part of the way out.
    type Row = (fn(&mut Facts), &'static str, bool, &'static str);

    #[test]
    fn each_lack_has_its_price_and_its_way_out() {
        let refuse = |facts: &mut Facts| facts.trial = Err("make a user namespace: EPERM".into());
        assert!(!runs_containers(&judge(&{
            let mut facts = healthy(false);
            refuse(&mut facts);
            facts
        })));
        let rows: &[Row] = &[
            (
                |facts| {
                    facts.trial = Err("x".into());
                    facts.apparmor_restricts_userns = Some(1);
                },
                "user namespaces",
                false,
                "apparmor",
            ),
            (
                |facts| {
                    facts.trial = Err("x".into());
                    facts.unprivileged_userns_clone = Some(0);
                },
                "user namespaces",
                false,
                "userns_clone=1",
            ),
            (
                |facts| {
                    facts.trial = Err("x".into());
                    facts.max_user_namespaces = Some(0);
                },
                "user namespaces",
                false,
                "max_user_namespaces",
            ),
            (
                |facts| facts.trial = Ok([("overlay".to_owned(), Some("EINVAL".to_owned()))].into()),
                "overlay",
                true,
                "ext4",
            ),
            (|facts| facts.memfd_noexec = Some(2), "memory files", false, "memfd_noexec=1"),
            (|facts| facts.lost_ids = Some("newuidmap is not installed".into()), "subordinate ids", true, "uidmap"),
            (|facts| facts.ids = 1000, "subordinate ids", true, "65536"),
            (|facts| facts.cgroups.mode = Mode::Absent, "cgroups", true, "cgroup2"),
            (|facts| facts.cgroups.is_writable = false, "cgroups", true, "session"),
            (|facts| facts.cgroups.controllers.clear(), "cgroups", true, "Delegate="),
            (|facts| facts.landlock = 0, "Landlock", true, "lsm=landlock"),
            (|facts| facts.tun = Some("ENOENT".into()), "/dev/net/tun", true, "modprobe"),
            (|facts| facts.first_unprivileged_port = Some(1024), "low ports", true, "port_start=80"),
            (|facts| facts.may_ping = false, "ping", true, "ping_group_range"),
            (|facts| facts.open_files = (1024, 4096), "open files", true, "nofile"),
            (|facts| facts.lingers = Some(false), "lingering", true, "enable-linger"),
            (|facts| facts.reads_kernel_log = false, "kernel log", true, "dmesg_restrict"),
            (|facts| facts.data_root.free_bytes = 1 << 20, "data root", true, "system prune"),
            (|facts| facts.run_root.is_memory = false, "run root", true, "tmpfs"),
        ];
        for (change, topic, runs, way_out) in rows {
            let mut facts = healthy(false);
            change(&mut facts);
            let findings = judge(&facts);
            let lacks: Vec<&Finding> = findings.iter().filter(|finding| finding.standing != Standing::Ok).collect();
            let [lack] = lacks[..] else { panic!("{topic}: {lacks:?}") };
            assert_eq!((lack.topic, runs_containers(&findings)), (*topic, *runs), "{lack:?}");
            assert!(lack.cost.is_some(), "{lack:?}");
            assert!(lack.remedy.as_deref().is_some_and(|remedy| remedy.contains(way_out)), "{lack:?}");
        }
    }

    #[test]
    fn root_needs_its_cgroups() {
        let mut facts = healthy(true);
        facts.cgroups.is_writable = false;
        assert!(!runs_containers(&judge(&facts)));
        facts.cgroups.has_manager = true;
        assert!(runs_containers(&judge(&facts)));
        facts.data_root.problem = Some("EROFS".into());
        assert!(!runs_containers(&judge(&facts)));
    }
}
