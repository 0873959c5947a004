//! What went wrong elsewhere and must not here: one test a family of advisories, each with a sentinel on the host.
//! (Groups, users, sysctls, ids and archives have theirs beside the feature.)

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::support::image::Image;
use super::support::scene::write;
use super::support::sentinel::SECRET;
use super::support::suite::kit;
use super::support::tar::Entry;
use super::support::{Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(own_executable_is_out_of_reach).and_plain().needs(Need::NotCrun).needs(Need::Busybox),
        test!(own_executable_is_out_of_reach_while_created).root().needs(Need::Husk),
        test!(proc_or_sys_as_a_link).and_plain().needs(Need::NotCrun),
        test!(mounts_over_proc).needs(Need::NotCrun),
        test!(false_null_devices).and_plain().needs(Need::NotRunc).needs(Need::NotCrun),
        test!(a_console_that_is_a_link).needs(Need::NotCrun),
        test!(a_dev_that_is_a_link).needs(Need::NotRunc).needs(Need::NotCrun),
        test!(false_null_device_for_the_standard_files).root(),
        test!(files_that_husk_writes_follow_no_link).and_plain().needs(Need::Husk).needs(Need::Busybox),
        test!(working_directories_of_an_image_follow_no_link).and_plain().needs(Need::Husk).needs(Need::Busybox),
        test!(volumes_of_an_image_stay_inside).and_plain().needs(Need::Husk).needs(Need::Busybox),
        test!(read_only_is_read_only).and_plain().needs(Need::NotRunc),
        test!(working_directory_through_a_descriptor).and_plain().needs(Need::NotCrun),
        test!(destination_exchanged_while_it_is_mounted).root().needs(Need::Husk),
        test!(the_hosts_propagation_is_left_alone).root(),
        test!(cgroup_files_are_out_of_reach).and_plain(),
        test!(the_store_is_closed_to_others).root().needs(Need::Husk).needs(Need::Busybox),
    ]
}

/// The file that the runtime runs from: contents, and the times that a write or a change of mode would move.
fn executable() -> (String, i64, i64, u32) {
    let data = std::fs::metadata(&kit().husk).unwrap();
    let sum = Sha256::digest(std::fs::read(&kit().husk).unwrap());
    (format!("{:x?}", &sum[..8]), data.ctime(), data.ctime_nsec(), data.mode())
}

/// A1, CVE-2019-5736: a container that starts its runtime's own executable must not get at the file.
fn own_executable_is_out_of_reach(scene: &Scene) {
    type Preparation<'a> = (&'a str, &'a dyn Fn(&Path));
    let before = executable();
    let prepare: [Preparation<'_>; 4] = [
        ("/proc/self/exe", &|_| {}),
        ("/link", &|rootfs| symlink("/proc/self/exe", rootfs.join("link")).unwrap()),
        ("/script", &|rootfs| {
            write(&rootfs.join("script"), "#!/proc/self/exe\n");
            std::fs::set_permissions(rootfs.join("script"), std::fs::Permissions::from_mode(0o755)).unwrap();
        }),
        // A descriptor of the runtime's, if one were open.
        ("/proc/self/fd/3", &|_| {}),
    ];
    for (program, prepare) in prepare {
        let mut bundle = scene.bundle();
        bundle.config["root"]["readonly"] = json!(false);
        prepare(&bundle.rootfs("/"));
        bundle.args([program, "--probe", "--try", "open-write:/proc/self/exe"]);
        // What it answers is its own affair: it may fail, or be the runtime inside the container, saying what it can't do.
        bundle.run();
        assert_eq!(executable(), before, "{program}");
    }
    let mut bundle = scene.bundle();
    bundle.args(["/bin/sh", "-c", "for p in /proc/[0-9]*/exe; do echo overwritten > $p; done; true"]);
    bundle.run();
    assert_eq!(executable(), before);
}

/// While init waits to be started it can be reached from another process: not by the file that others will run.
fn own_executable_is_out_of_reach_while_created(scene: &Scene) {
    let bundle = scene.bundle();
    bundle.write();
    let mut command = scene.runtime();
    command.arg("create").arg("--bundle").arg(&bundle.directory).arg(&bundle.id);
    let null = std::process::Stdio::null;
    command.start_with(null(), null(), null()).finish().success();
    let state = scene.runtime().args(["state", &bundle.id]).run().success();
    let state: Value = serde_json::from_str(&state.stdout).unwrap();
    let link = format!("/proc/{}/exe", state["pid"]);
    let running = std::fs::metadata(&link).unwrap();
    let ours = std::fs::metadata(&kit().husk).unwrap();
    let opened = std::fs::OpenOptions::new().write(true).open(&link).map_err(|error| error.raw_os_error());
    scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
    assert_ne!((running.dev(), running.ino()), (ours.dev(), ours.ino()), "init runs from the executable itself");
    assert!(opened.is_err(), "init's executable can be opened for writing");
}

/// A3, CVE-2019-19921 and its kin.
fn proc_or_sys_as_a_link(scene: &Scene) {
    let sentinel = scene.sentinel();
    for (name, target) in [
        ("proc", sentinel.display().to_string()),
        ("proc", "/tmp".to_owned()),
        ("sys", sentinel.display().to_string()),
        ("sys", "../../../../tmp".to_owned()),
    ] {
        let mut bundle = scene.bundle();
        bundle.config["root"]["readonly"] = json!(false);
        std::fs::remove_dir(bundle.rootfs(name)).unwrap();
        symlink(&target, bundle.rootfs(name)).unwrap();
        bundle.run().exits_with(1).says(&format!("/{name}"));
    }
}

/// A4, CVE-2019-16884: a mount over /proc hides where labels and sysctls are written.
fn mounts_over_proc(scene: &Scene) {
    let source = scene.tree("source", &[("attr/current", ""), ("file", "")]);
    for destination in ["/proc", "/proc/self", "/proc/self/attr", "/proc/../proc", "/proc/sys", "/./proc/sys/kernel"] {
        let mut bundle = scene.bundle();
        bundle.mount(destination, "bind", &source, &["bind"]);
        let outcome = bundle.run().exits_with(1);
        assert!(outcome.stderr.contains("proc"), "{destination}: {}", outcome.stderr);
    }
    // What containers are given in place of the host's figures is allowed.
    let mut bundle = scene.bundle();
    bundle.mount("/proc/meminfo", "bind", source.join("file"), &["bind"]).probe(["--read", "/proc/meminfo"]);
    assert_eq!(bundle.report()["reads"]["/proc/meminfo"], "");
}

/// A5, CVE-2025-31133: masks are made of /dev/null; whose, decides what can be read and written.
fn false_null_devices(scene: &Scene) {
    let sentinel = scene.sentinel();
    for kind in ["link", "file", "fifo"] {
        let mut bundle = scene.bundle();
        bundle.config["root"]["readonly"] = json!(false);
        let source = scene.tree(&format!("dev-{kind}"), &[]);
        match kind {
            "link" => symlink(sentinel.join("secret"), source.join("null")).unwrap(),
            "file" => write(&source.join("null"), "not the null device"),
            _ => rustix::fs::mkfifoat(rustix::fs::CWD, source.join("null"), rustix::fs::Mode::from_raw_mode(0o666))
                .unwrap(),
        }
        scene.account().own(&source);
        write(&bundle.rootfs("etc/hidden"), "hidden text");
        for mount in bundle.config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev" {
                *mount = json!({ "destination": "/dev", "type": "bind", "source": source, "options": ["bind"] });
            }
        }
        bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| {
            let destination = mount["destination"].as_str().unwrap();
            !destination.starts_with("/dev/")
        });
        bundle.config["linux"]["maskedPaths"] = json!(["/etc/hidden"]);
        bundle.probe(["--read", "/etc/hidden", "--write", "/etc/hidden", "through the mask"]);
        let outcome = bundle.run();
        assert!(!outcome.stdout.contains("hidden text") && !outcome.stdout.contains(SECRET), "{kind}");
        if outcome.code() == 0 {
            assert_eq!(outcome.report()["reads"]["/etc/hidden"], "", "{kind}");
        } else {
            outcome.says_one_of(&["/dev", "null"]);
        }
    }
}

/// A6, CVE-2025-52565.
fn a_console_that_is_a_link(scene: &Scene) {
    let sentinel = scene.sentinel();
    let source = scene.tree("dev", &[]);
    symlink(sentinel.join("console"), source.join("console")).unwrap();
    let mut bundle = scene.bundle();
    bundle.config["process"]["terminal"] = json!(true);
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            *mount = json!({ "destination": "/dev", "type": "bind", "source": source, "options": ["bind"] });
        }
    }
    let terminal = super::support::tty::Terminal::open(24, 80);
    let outcome = terminal.start(&mut bundle.command()).finish();
    assert!(!outcome.stdout.contains("panicked"));
    // Right or refused: the sentinel tells the rest.
    assert!([0, 1].contains(&outcome.code()), "{}", outcome.stdout);
}

/// A8, CVE-2026-41579: an image whose /dev leads elsewhere had files removed and links made there.
fn a_dev_that_is_a_link(scene: &Scene) {
    let sentinel = scene.sentinel();
    for with_mount in [true, false] {
        let mut bundle = scene.bundle();
        bundle.config["root"]["readonly"] = json!(false);
        std::fs::remove_dir(bundle.rootfs("dev")).unwrap();
        symlink(sentinel.join("directory"), bundle.rootfs("dev")).unwrap();
        if !with_mount {
            let keep = |mount: &Value| !mount["destination"].as_str().unwrap().starts_with("/dev");
            bundle.config["mounts"].as_array_mut().unwrap().retain(keep);
        }
        bundle.run();
    }
}

/// A9, CVE-2026-88265: the standard files are the caller's, not to be opened again or given away.
fn false_null_device_for_the_standard_files(scene: &Scene) {
    let victim = scene.path().join("victim");
    write(&victim, "");
    let before = std::fs::metadata(&victim).unwrap();
    let mut bundle = scene.bundle();
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let source = scene.tree("dev", &[]);
    symlink(&victim, source.join("null")).unwrap();
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            *mount = json!({ "destination": "/dev", "type": "bind", "source": source, "options": ["bind"] });
        }
    }
    let null = std::process::Stdio::null;
    bundle.command().start_with(null(), null(), null()).finish();
    let after = std::fs::metadata(&victim).unwrap();
    assert_eq!(
        (after.uid(), after.gid(), after.mode(), after.ctime_nsec()),
        (before.uid(), before.gid(), before.mode(), before.ctime_nsec())
    );
    let null = std::fs::metadata("/dev/null").unwrap();
    assert_eq!((null.uid(), null.gid(), null.mode() & 0o777), (0, 0, 0o666), "the host's /dev/null");
}

/// A11, CVE-2015-3629 and its kin: files that an engine writes for every container, as an image may prepare them.
fn files_that_husk_writes_follow_no_link(scene: &Scene) {
    let sentinel = scene.sentinel();
    let secret = sentinel.join("secret").display().to_string();
    let climbing = format!("{}{}", "../".repeat(30), secret.trim_start_matches('/'));
    let names = ["etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", "run/.containerenv", ".dockerenv"];
    for target in [secret.as_str(), climbing.as_str(), "/dangling/target", "loop"] {
        let mut layer: Vec<Entry> = vec![Entry::directory("run")];
        layer.extend(names.map(|name| {
            Entry::symlink(
                name,
                if target == "loop" { Path::new(name).file_name().unwrap().to_str().unwrap() } else { target },
            )
        }));
        let layout = Image::busybox(scene).layer(&layer).layout(scene, "layout");
        let outcome = scene.husk().args(["run", "--rm", &layout.reference(), "/bin/true"]).run();
        assert!(outcome.code() == 0 || outcome.code() == 125, "{target}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains(SECRET));
        std::fs::remove_dir_all(layout.directory).unwrap();
    }
    let fifos = Image::busybox(scene).layer(&names.map(Entry::fifo)).layout(scene, "fifos");
    let outcome = scene.husk().args(["run", "--rm", &fifos.reference(), "/bin/true"]).run();
    assert!(outcome.code() == 0 || outcome.code() == 125, "{}", outcome.stderr);
}

/// A11 again, CVE-2026-55686: a working directory that leads out, or is none.
fn working_directories_of_an_image_follow_no_link(scene: &Scene) {
    let sentinel = scene.sentinel();
    let directory = sentinel.join("directory").display().to_string();
    for (name, entry) in [
        ("absolute", Entry::symlink("work", &directory)),
        ("file", Entry::symlink("work", &sentinel.join("secret").display().to_string())),
        ("loop", Entry::symlink("work", "work")),
        ("fifo", Entry::fifo("work")),
        ("plain", Entry::file("work", "")),
    ] {
        let mut image = Image::busybox(scene).layer(&[entry]);
        image.config["WorkingDir"] = json!("/work/made");
        let layout = image.layout(scene, name);
        let outcome = scene.husk().args(["run", "--rm", &layout.reference(), "/bin/true"]).run();
        assert!(outcome.code() == 0 || [125, 126, 127].contains(&outcome.code()), "{name}: {}", outcome.stderr);
    }
}

/// D6, CVE-2022-23648.
fn volumes_of_an_image_stay_inside(scene: &Scene) {
    let sentinel = scene.sentinel();
    let climbing = format!("/../../../../..{}", sentinel.display());
    for volume in [climbing.as_str(), "", "/", "/lnk", "relative"] {
        let mut image = Image::busybox(scene).layer(&[Entry::symlink("lnk", &sentinel.display().to_string())]);
        image.config["Volumes"] = json!({ volume: {} });
        let layout = image.layout(scene, "layout");
        let path = if volume.is_empty() { "/" } else { volume };
        let outcome = scene.husk().args(["run", "--rm", &layout.reference(), "/bin/ls", "-A", path]).run();
        assert!(!outcome.stdout.contains("secret"), "{volume:?}: {}", outcome.stdout);
        std::fs::remove_dir_all(layout.directory).unwrap();
    }
}

/// A12, CVE-2026-115521: read-only is set on the mount before the container can interfere, and cannot be lifted.
fn read_only_is_read_only(scene: &Scene) {
    for with_proc in [true, false] {
        let mut bundle = scene.bundle();
        if !with_proc {
            bundle.without_mount("/proc");
            bundle.config["linux"]["maskedPaths"] = json!([]);
            bundle.config["linux"]["readonlyPaths"] = json!([]);
        }
        let source = scene.tree(&format!("source-{with_proc}"), &[("file", "")]);
        bundle.mount("/tmp", "bind", &source, &["rbind", "ro"]);
        bundle.tries(["create:/new", "write:/tmp/file", "chmod:/etc/passwd:777", "unlink:/etc/passwd"]);
        let tries = bundle.report()["tries"].clone();
        for (attempt, answer) in tries.as_object().unwrap() {
            assert_eq!(answer, "EROFS", "{attempt}, with /proc: {with_proc}");
        }
    }
}

/// B1, CVE-2024-21626: a working directory by way of a descriptor that the runtime left open.
fn working_directory_through_a_descriptor(scene: &Scene) {
    for number in 3..24 {
        let mut bundle = scene.bundle();
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        bundle.probe(["--list", ".", "--list", "../../../../../../.."]);
        let outcome = bundle.command().step(super::support::launch::Step::LeakDescriptors(3)).run();
        if outcome.code() == 0 {
            let report = outcome.report();
            // It can only be a directory of the container.
            assert!(!report["lists"].to_string().contains("\"boot\""), "{number}: {}", report["lists"]);
            panic!("cwd /proc/self/fd/{number} was accepted as {}", report["cwd"]);
        }
        outcome.exits_with(1).says("/proc/self/fd");
    }
}

/// A2 and A10, CVE-2021-30465, CVE-2024-45310: the destination changes between a directory and a link while husk resolves
/// it. A resolver that looks first and opens then is caught by the same exchange, or the test proves nothing.
fn destination_exchanged_while_it_is_mounted(scene: &Scene) {
    const ROUNDS: usize = 40;
    let sentinel = scene.sentinel();
    let shared = scene.tree("shared", &[("real/inside", "")]);
    symlink(sentinel.join("directory"), shared.join("link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flips = Arc::new(AtomicUsize::new(0));
    let (real, link) = (shared.join("real"), shared.join("link"));
    let flipper = {
        let (stop, flips, real, link) = (Arc::clone(&stop), Arc::clone(&flips), real.clone(), link);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &real, rustix::fs::CWD, &link, flags).unwrap();
                flips.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    // The positive control: look, then open.
    let mut caught = 0;
    for _ in 0..200_000 {
        if std::fs::symlink_metadata(&real).is_ok_and(|data| data.is_dir()) && real.join("file").exists() {
            caught += 1;
            if caught >= 3 {
                break;
            }
        }
    }
    let source = scene.tree("source", &[("inside", "")]);
    let mut problem = None;
    for _ in 0..ROUNDS {
        let mut bundle = scene.bundle();
        bundle.mount("/tmp", "bind", &shared, &["rbind"]);
        bundle.mount("/tmp/real", "bind", &source, &["bind"]);
        bundle.mount("/tmp/real/made/deep", "tmpfs", "tmpfs", &[]);
        let outcome = bundle.run();
        if outcome.code() == 0 {
            let report = outcome.report();
            let mounts = report["mounts"].as_array().unwrap();
            let outside = mounts.iter().find(|mount| {
                let target = mount["target"].as_str().unwrap();
                !["/", "/proc", "/sys", "/dev", "/tmp"]
                    .iter()
                    .any(|top| target == *top || target.starts_with(&format!("{}/", top.trim_end_matches('/'))))
            });
            problem = problem.or(outside.cloned());
        }
    }
    stop.store(true, Ordering::Relaxed);
    flipper.join().unwrap();
    assert!(flips.load(Ordering::Relaxed) > 1000, "too few exchanges to prove anything");
    assert!(caught > 0, "the control was not caught: the exchange proves nothing");
    assert_eq!(problem, None, "a mount landed outside");
}

/// A18: setting up a container must not change how the host's mounts propagate.
fn the_hosts_propagation_is_left_alone(scene: &Scene) {
    // A shared tree, as on a machine with systemd, in a namespace of its own; husk is run in it.
    let script = r#"
        mount --make-rshared / && before=$(cat /proc/self/mountinfo | cut -d' ' -f 4-9 | sort)
        "$@" > /dev/null || exit 1
        after=$(cat /proc/self/mountinfo | cut -d' ' -f 4-9 | sort)
        [ "$before" = "$after" ] || { echo "$before"; echo --; echo "$after"; exit 7; }"#;
    for propagation in ["", "shared", "slave", "private"] {
        let mut bundle = scene.bundle();
        if !propagation.is_empty() {
            bundle.config["linux"]["rootfsPropagation"] = json!(propagation);
        }
        bundle.write();
        let mut command = scene.program("/usr/bin/unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        command.arg(&kit().runtime).arg("--root").arg(scene.state_root());
        command.args(["run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id).run().success();
    }
}

/// A14, CVE-2022-0492.
fn cgroup_files_are_out_of_reach(scene: &Scene) {
    let mut bundle = scene.bundle();
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE"]);
    }
    let files = [
        "memory/release_agent",
        "systemd/release_agent",
        "pids/cgroup.procs",
        "unified/cgroup.procs",
        "cgroup.procs",
        "memory/notify_on_release",
    ];
    let attempts: Vec<String> = files.iter().map(|file| format!("write:/sys/fs/cgroup/{file}")).collect();
    bundle.tries(attempts.iter().map(String::as_str)).tries(["mkdir:/sys/fs/cgroup/memory/made"]);
    for (attempt, answer) in bundle.report()["tries"].as_object().unwrap() {
        assert_ne!(answer, "ok", "{attempt}");
    }
}

/// E9: another user finds nothing of root's to read.
fn the_store_is_closed_to_others(scene: &Scene) {
    assert_eq!(scene.who, Who::Root);
    let layout = Image::busybox(scene).layout(scene, "layout");
    scene.husk().args(["run", &layout.reference(), "/bin/true"]).run().success();
    for root in [scene.store(), scene.run_root()] {
        let path = root.display().to_string();
        let outcome = scene
            .program("/usr/bin/setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls", "-R", &path])
            .run();
        assert_eq!(outcome.stdout.trim(), "", "{path} is open to others");
    }
}
