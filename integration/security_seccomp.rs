//! Confinement, section C of the catalogue of advisories: labels, the default filter, closed lists of words, masks. Each
//! test says which advisory it stands for. (Single rules of a filter are tested in `seccomp`, device rules in `devices`.)

use serde_json::{Value, json};

use super::support::image::Image;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        test!(a_label_that_can_not_be_set_is_an_error).and_plain().needs(Need::Husk),
        test!(words_out_of_range_are_refused).needs(Need::Husk),
        test!(default_masks_hide).and_plain().needs(Need::Husk),
    ];
    if cfg!(target_arch = "x86_64") {
        tests.push(test!(the_default_filter_closes_dangerous_sockets).and_plain().needs(Need::Husk));
        tests.push(test!(the_default_filter_closes_x32).needs(Need::Husk));
    }
    tests
}

/// C1, CVE-2025-65105, CVE-2025-64750, CVE-2021-43816, CVE-2023-28642: confinement that was asked for and is not had.
fn a_label_that_can_not_be_set_is_an_error(scene: &Scene) {
    let rows = [
        ("/process/apparmorProfile", json!("a-profile-that-nobody-loaded"), &["apparmor", "AppArmor"][..]),
        ("/process/selinuxLabel", json!("system_u:system_r:no_such_t:s0"), &["selinux", "SELinux"]),
        ("/linux/mountLabel", json!("system_u:object_r:no_such_t:s0"), &["mountLabel", "SELinux", "selinux"]),
    ];
    for (pointer, value, names) in rows {
        let mut bundle = scene.bundle();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[field] = value;
        bundle.run().exits_with(1).says_one_of(names);
    }
}

/// C2, CVE-2026-31431, CVE-2026-112917, CVE-2026-123876: AF_ALG and AF_VSOCK, by every door into the kernel.
fn the_default_filter_closes_dangerous_sockets(scene: &Scene) {
    let layout = Image::probe(scene).layout(scene, "layout");
    let families: Vec<String> = (0..=45).map(|family| format!("socket:{family}")).collect();
    // The same of i386: socket(2) is 359 there, socketcall(2) is 102.
    let of_i386: Vec<String> = [38, 40].map(|family| format!("syscall32:359:{family}:1:0")).into();
    let mut command = scene.husk();
    command.args(["run", "--rm", &layout.reference(), "/probe"]);
    for attempt in families.iter().chain(&of_i386).map(String::as_str).chain(["syscall32:102:1:0", "syscall32:20"]) {
        command.args(["--try", attempt]);
    }
    let outcome = command.run();
    let tries = outcome.success().report()["tries"].clone();
    for family in ["socket:38", "socket:40"] {
        assert_eq!(tries[family], "EPERM", "{family} is not refused by the filter");
    }
    for family in ["socket:1", "socket:2", "socket:10", "socket:16"] {
        assert_ne!(tries[family], "EPERM", "{family} is what every program needs");
    }
    // A kernel without the i386 entry has nothing to filter.
    if tries["syscall32:20"] == "ok" {
        for attempt in &of_i386 {
            assert_eq!(tries[attempt], "EPERM", "{attempt}");
        }
        let answer = &tries["syscall32:102:1:0"];
        assert!(answer == "ENOSYS" || answer == "EPERM", "socketcall: {answer}");
    }
}

/// C2 again: x32 is x86-64 with another set of numbers, and a filter that looks at the architecture alone lets it through.
fn the_default_filter_closes_x32(scene: &Scene) {
    let layout = Image::probe(scene).layout(scene, "layout");
    // socket(2) with the bit of x32: the filter is asked before the kernel knows whether it has that ABI.
    let families = [38, 40].map(|family| format!("syscall:1073741865:{family}:1:0"));
    let mut command = scene.husk();
    command.args(["run", "--rm", &layout.reference(), "/probe"]);
    for family in &families {
        command.args(["--try", family]);
    }
    let outcome = command.run();
    if outcome.code() == 0 {
        let tries = outcome.report()["tries"].clone();
        for family in &families {
            assert_eq!(tries[family], "EPERM", "{family}");
        }
    } else {
        outcome.exits_with(128 + 31);
    }
}

/// C3, CVE-2024-23653: a word that nobody knows is not taken for the most generous one.
fn words_out_of_range_are_refused(scene: &Scene) {
    let seccomp = |field: &str, value: Value| {
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        profile[field] = value;
        profile
    };
    let rows = [
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_BLESS" }), "SCMP_ACT_BLESS"),
        ("/linux/seccomp", seccomp("architectures", json!(["SCMP_ARCH_PDP11"])), "SCMP_ARCH_PDP11"),
        ("/linux/seccomp", seccomp("flags", json!(["SECCOMP_FILTER_FLAG_OFF"])), "SECCOMP_FILTER_FLAG_OFF"),
        ("/linux/namespaces/0/type", json!("everything"), "everything"),
        ("/linux/rootfsPropagation", json!("everywhere"), "everywhere"),
        ("/linux/personality", json!({ "domain": "LINUX128" }), "LINUX128"),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }]), "type"),
        ("/process/rlimits", json!([{ "type": "RLIMIT_SOULS", "soft": 1, "hard": 1 }]), "RLIMIT_SOULS"),
        ("/process/scheduler", json!({ "policy": "SCHED_FIRST" }), "SCHED_FIRST"),
        ("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_FIRST", "priority": 1 }), "IOPRIO_CLASS_FIRST"),
        ("/ociVersion", json!("9.0.0"), "9.0.0"),
    ];
    for (pointer, value, named) in rows {
        let mut bundle = scene.bundle();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let place = if parent.is_empty() { &mut bundle.config } else { bundle.config.pointer_mut(parent).unwrap() };
        match field.parse::<usize>() {
            Ok(index) => place[index] = value,
            Err(_) => place[field] = value,
        }
        let outcome = bundle.run();
        assert_eq!(outcome.code(), 1, "{pointer}: {named} was accepted");
        assert!(outcome.stderr.contains(named), "{pointer}: {}", outcome.stderr);
    }
}

/// C5, GHSA-7ww5-4wqc-m92c, GHSA-6fw5-f8r9-fgfm: what tells of the host or of its other containers.
fn default_masks_hide(scene: &Scene) {
    let layout = Image::probe(scene).layout(scene, "layout");
    let files = ["/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"];
    let directories = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/scsi",
        "/sys/dev/block",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
        "/sys/devices/system/cpu/cpu0/thermal_throttle",
    ];
    let mut command = scene.husk();
    command.args(["run", "--rm", &layout.reference(), "/probe"]);
    for file in files {
        command.args(["--read", file]);
    }
    for directory in directories {
        command.args(["--list", directory]);
    }
    for file in ["/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"] {
        command.args(["--try", &format!("write:{file}")]);
    }
    let report = command.run().success().report();
    for file in files {
        let text = &report["reads"][file];
        assert!(text == "" || text == "ENOENT", "{file}: {text}");
    }
    for directory in directories {
        let names = &report["lists"][directory];
        assert!(*names == json!([]) || names == "ENOENT", "{directory}: {names}");
    }
    for (attempt, answer) in report["tries"].as_object().unwrap() {
        // A user is refused by the mode of some files before anybody looks at the mount.
        assert!(["EROFS", "EACCES", "ENOENT"].contains(&answer.as_str().unwrap()), "{attempt}: {answer}");
    }
}
