//! Mounts, each with its options as the kernel shows them inside.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::{Value, json};

use super::bind_flags::with_user_namespace;
use super::support::scene::write;
use super::support::{Bundle, Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(template_mounts).and_plain(),
        test!(nothing_of_the_host_is_seen).and_plain(),
        test!(tmpfs_options).and_plain().needs(Need::NotCrun),
        test!(tmpfs_data).and_plain().needs(Need::NotRunc),
        test!(tmpfs_on_a_new_place).and_plain().needs(Need::NotRunc).needs(Need::NotCrun),
        test!(tmpfs_copies_up).needs(Need::NotCrun),
        test!(bind_of_a_directory_and_a_file).and_plain(),
        test!(bind_read_only).and_plain(),
        test!(bind_read_only_recursively).and_plain().needs(Need::NotRunc).needs(Need::Kernel(5, 12)),
        test!(bind_without_submounts).and_plain(),
        test!(bind_options).and_plain().needs(Need::NotCrun),
        test!(bind_makes_its_destination).and_plain(),
        test!(bind_propagation).root().needs(Need::NotCrun),
        test!(bind_with_mapped_ids).root().needs(Need::Husk).needs(Need::Kernel(5, 19)),
        test!(symlinks_are_bound_or_made_again).and_plain().needs(Need::Husk).needs(Need::Busybox),
        test!(destinations_stay_inside).and_plain().needs(Need::NotCrun),
        test!(order_is_kept).and_plain(),
        test!(sources_in_the_root_are_what_mounts_brought).and_plain().needs(Need::NotCrun),
        test!(sources_in_the_root_with_mapped_ids).root().needs(Need::NotCrun).needs(Need::Kernel(5, 19)),
        test!(sources_in_the_root_do_not_lead_out).and_plain().needs(Need::Husk),
        test!(destinations_named_from_the_host).and_plain().needs(Need::NotCrun),
        test!(root_read_only).and_plain(),
        test!(root_writable).and_plain(),
        test!(root_propagation).root().needs(Need::NotRunc),
        test!(fresh_proc_shows_the_containers_processes).and_plain(),
        test!(cgroup_mount_is_read_only_and_its_own).root(),
        test!(a_missing_source_is_named).and_plain(),
        test!(an_unknown_type_is_named).and_plain(),
        test!(an_unknown_option_is_refused).and_plain().needs(Need::NotCrun),
    ]
}

/// The mount that covers a path last.
#[track_caller]
pub(crate) fn find<'a>(report: &'a Value, target: &str) -> &'a Value {
    let mounts = report["mounts"].as_array().expect("the container has /proc");
    mounts
        .iter()
        .rev()
        .find(|mount| mount["target"] == target)
        .unwrap_or_else(|| panic!("nothing is mounted on {target}"))
}

/// Asserts that the options of a mount hold some and lack others.
#[track_caller]
pub(crate) fn check_options(mount: &Value, present: &[&str], absent: &[&str]) {
    let options = mount["options"].as_array().unwrap();
    let has = |name: &&str| options.iter().any(|option| option == name);
    assert!(present.iter().all(has), "{present:?} are not all in {mount}");
    assert!(!absent.iter().any(has), "one of {absent:?} is in {mount}");
}

fn template_mounts(scene: &Scene) {
    let report = scene.bundle().report();
    check_options(find(&report, "/proc"), &["rw"], &[]);
    check_options(find(&report, "/dev"), &["rw", "nosuid"], &["relatime", "noatime", "noexec"]);
    check_options(find(&report, "/dev/pts"), &["rw", "nosuid", "noexec"], &[]);
    check_options(find(&report, "/dev/shm"), &["rw", "nosuid", "noexec", "nodev"], &[]);
    check_options(find(&report, "/dev/mqueue"), &["rw", "nosuid", "noexec", "nodev"], &[]);
    check_options(find(&report, "/sys"), &["ro", "nosuid", "noexec", "nodev"], &[]);
    check_options(find(&report, "/"), &["ro"], &["rw"]);
    let kinds =
        [("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/dev/mqueue", "mqueue"), ("/sys", "sysfs")];
    for (target, kind) in kinds {
        assert_eq!(find(&report, target)["type"], kind);
    }
    let data = |target: &str, word: &str| {
        let mount = find(&report, target);
        assert!(mount["super_options"].as_array().unwrap().iter().any(|option| option == word), "{word}: {mount}");
    };
    data("/dev", "size=65536k");
    data("/dev", "mode=755");
    data("/dev/shm", "size=65536k");
    data("/dev/pts", "ptmxmode=666");
    data("/dev/pts", "mode=620");
    if scene.who == Who::Root {
        data("/dev/pts", "gid=5");
    }
}

/// After the pivot, no mount of the host may be left in the table.
fn nothing_of_the_host_is_seen(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.probe(["--list", "/"]);
    let report = bundle.report();
    let names = ["bin", "dev", "etc", "probe", "proc", "root", "sys", "tmp", "usr", "var"];
    assert_eq!(report["lists"]["/"], json!(names));
    let allowed = ["/proc", "/sys", "/dev"];
    for mount in report["mounts"].as_array().unwrap() {
        let target = mount["target"].as_str().unwrap();
        assert!(target == "/" || allowed.iter().any(|top| target.starts_with(top)), "{mount}");
    }
}

fn tmpfs_options(scene: &Scene) {
    let rows: [(&[&str], &[&str], &[&str]); 8] = [
        (&[], &["rw"], &["ro", "nosuid", "nodev", "noexec"]),
        (&["ro"], &["ro"], &["rw"]),
        (&["nosuid", "nodev", "noexec"], &["nosuid", "nodev", "noexec"], &[]),
        (&["nosuid", "suid", "nodev", "dev", "noexec", "exec"], &["rw"], &["nosuid", "nodev", "noexec"]),
        (&["ro", "rw"], &["rw"], &["ro"]),
        (&["noatime"], &["noatime"], &["relatime"]),
        (&["strictatime", "nodiratime"], &["nodiratime"], &["noatime", "relatime"]),
        (&["sync", "dirsync"], &["rw"], &[]),
    ];
    for (given, present, absent) in rows {
        let mut bundle = scene.bundle();
        bundle.mount("/tmp", "tmpfs", "tmpfs", given);
        let report = bundle.report();
        let mount = find(&report, "/tmp");
        // A user namespace adds what the mounter may not lift; what was asked for must be there all the same.
        check_options(mount, present, absent);
        if given.contains(&"sync") {
            let flags = mount["super_options"].as_array().unwrap();
            assert!(flags.contains(&json!("sync")) && flags.contains(&json!("dirsync")), "{mount}");
        }
    }
}

fn tmpfs_data(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["mode=1710", "size=128k", "nr_inodes=16"]).probe(["--stat", "/tmp"]);
    let report = bundle.report();
    assert_eq!(report["stats"]["/tmp"]["mode"], "1710");
    let options = find(&report, "/tmp")["super_options"].as_array().unwrap();
    assert!(options.contains(&json!("size=128k")) && options.contains(&json!("nr_inodes=16")), "{options:?}");
}

/// Where there is a directory the tmpfs has its mode; where there is none, the kernel's own.
fn tmpfs_on_a_new_place(scene: &Scene) {
    let mut bundle = scene.bundle();
    std::fs::create_dir(bundle.rootfs("/there")).unwrap();
    for place in ["/there", "/new/deep/place"] {
        bundle.mount(place, "tmpfs", "tmpfs", &["nosuid"]).probe(["--stat", place]);
    }
    let report = bundle.report();
    assert_eq!(report["stats"]["/there"]["mode"], "755");
    assert_eq!(report["stats"]["/new/deep/place"]["mode"], "1777");
}

fn tmpfs_copies_up(scene: &Scene) {
    let mut bundle = scene.bundle();
    write(&bundle.rootfs("var/lib/inside"), "from the root file system");
    bundle.mount("/var/lib", "tmpfs", "tmpfs", &["tmpcopyup"]);
    bundle.probe(["--read", "/var/lib/inside", "--try", "create:/var/lib/new"]);
    let report = bundle.report();
    assert_eq!(find(&report, "/var/lib")["type"], "tmpfs");
    assert_eq!(report["reads"]["/var/lib/inside"], "from the root file system");
    assert_eq!(report["tries"]["create:/var/lib/new"], "ok");
    assert!(!bundle.rootfs("var/lib/new").exists());
}

fn bind_of_a_directory_and_a_file(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "hello"), ("alone", "single")]);
    let mut bundle = scene.bundle();
    write(&bundle.rootfs("etc/target"), "covered");
    bundle.mount("/tmp", "bind", &source, &["rbind"]).mount("/etc/target", "none", source.join("alone"), &["bind"]);
    bundle.probe(["--read", "/tmp/inside", "--read", "/etc/target", "--write", "/tmp/inside", "back!"]);
    let report = bundle.report();
    assert_eq!(report["reads"], json!({ "/tmp/inside": "hello", "/etc/target": "single" }));
    assert_eq!(std::fs::read_to_string(source.join("inside")).unwrap(), "back!");
}

fn bind_read_only(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "kept")]);
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", &source, &["rbind", "ro", "nosuid"]);
    bundle.tries(["write:/tmp/inside", "create:/tmp/new", "remount-rw:/tmp"]);
    let report = bundle.report();
    check_options(find(&report, "/tmp"), &["ro", "nosuid"], &["rw"]);
    let tries = &report["tries"];
    assert_eq!((&tries["write:/tmp/inside"], &tries["create:/tmp/new"]), (&json!("EROFS"), &json!("EROFS")));
    assert_eq!(tries["remount-rw:/tmp"], "EPERM");
    // The host's own mount is not made read-only with it.
    write(&source.join("inside"), "still writable");
}

/// A source directory with a mount below it, made in a mount namespace that the runtime is started in.
fn run_with_submount(scene: &Scene, bundle: &Bundle<'_>, source: &Path) -> Value {
    std::fs::create_dir_all(source.join("sub")).unwrap();
    scene.account().own(source);
    bundle.write();
    let script = r#"mount -t tmpfs -o mode=777 tmpfs "$1/sub" && echo below > "$1/sub/file" && shift && exec "$@""#;
    let mut command = scene.program("/usr/bin/unshare");
    if scene.who == Who::Root {
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(source);
        command.arg(&super::support::suite::kit().runtime).arg("--root").arg(scene.state_root());
        command.args(["run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id).run().success().report()
    } else {
        // The suite is root: it mounts for the user.
        let target = source.join("sub");
        rustix::mount::mount("tmpfs", &target, "tmpfs", rustix::mount::MountFlags::empty(), c"mode=777").unwrap();
        write(&target.join("file"), "below\n");
        std::fs::set_permissions(target.join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        let outcome = bundle.run();
        rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).unwrap();
        outcome.success().report()
    }
}

fn bind_read_only_recursively(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "kept")]);
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", &source, &["rbind", "rro"]);
    bundle.tries(["write:/tmp/inside", "write:/tmp/sub/file"]);
    let report = run_with_submount(scene, &bundle, &source);
    assert_eq!(report["tries"], json!({ "write:/tmp/inside": "EROFS", "write:/tmp/sub/file": "EROFS" }));
}

/// `bind` alone shows the directory below a submount; a user may not look below one that it didn't make, so there the
/// kernel refuses and so must the runtime.
fn bind_without_submounts(scene: &Scene) {
    if scene.who != Who::Root {
        return;
    }
    let source = scene.tree("source", &[("inside", "kept")]);
    for (option, below) in [("bind", "ENOENT"), ("rbind", "below\n")] {
        let mut bundle = scene.bundle();
        bundle.mount("/tmp", "bind", &source, &[option]).probe(["--read", "/tmp/sub/file"]);
        assert_eq!(run_with_submount(scene, &bundle, &source)["reads"]["/tmp/sub/file"], below, "{option}");
    }
}

fn bind_options(scene: &Scene) {
    let source = scene.tree("source", &[]);
    let rows: [(&[&str], &[&str], &[&str]); 4] = [
        (&["rbind", "nosuid", "nodev", "noexec"], &["nosuid", "nodev", "noexec", "rw"], &["ro"]),
        (&["bind", "ro"], &["ro"], &["rw"]),
        (&["rbind", "noatime"], &["noatime"], &["relatime"]),
        (&["rbind", "nosymfollow"], &["nosymfollow"], &[]),
    ];
    for (given, present, absent) in rows {
        if scene.who != Who::Root && given.contains(&"noatime") {
            continue; // The kernel locks the atime flags of a mount that a user namespace inherits.
        }
        let mut bundle = scene.bundle();
        bundle.mount("/tmp", "bind", &source, given);
        check_options(find(&bundle.report(), "/tmp"), present, absent);
    }
}

fn bind_makes_its_destination(scene: &Scene) {
    let source = scene.tree("source", &[("file", "text"), ("directory/inner", "text")]);
    let mut bundle = scene.bundle();
    bundle.mount("/made/for/file", "bind", source.join("file"), &["bind"]);
    bundle.mount("/made/for/directory", "bind", source.join("directory"), &["bind"]);
    bundle.probe(["--read", "/made/for/file", "--read", "/made/for/directory/inner"]);
    let report = bundle.report();
    assert_eq!(report["reads"], json!({ "/made/for/file": "text", "/made/for/directory/inner": "text" }));
    assert!(bundle.rootfs("made/for/file").is_file());
}

fn bind_propagation(scene: &Scene) {
    for (option, shown) in [
        ("rprivate", None),
        ("rshared", Some("shared:")),
        ("rslave", Some("master:")),
        ("runbindable", Some("unbindable")),
    ] {
        let source = scene.tree("source", &[]);
        let mut bundle = scene.bundle();
        bundle.mount("/tmp", "bind", &source, &["rbind", option]);
        bundle.write();
        // A slave needs a master: the source becomes a shared mount in a namespace of the caller's.
        let script = r#"mount --bind "$1" "$1" && mount --make-shared "$1" && shift && exec "$@""#;
        let mut command = scene.program("/usr/bin/unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&source);
        command.arg(&super::support::suite::kit().runtime).arg("--root").arg(scene.state_root());
        let report = command.args(["run", "--bundle"]).arg(&bundle.directory).arg(&bundle.id).run().success().report();
        let tags = find(&report, "/tmp")["propagation"].as_array().unwrap();
        match shown {
            None => assert_eq!(*tags, Vec::<Value>::new(), "{option}"),
            Some(prefix) => {
                let found = tags.iter().any(|tag| tag.as_str().unwrap().starts_with(prefix));
                assert!(found, "{option}: {tags:?}");
            }
        }
    }
}

/// An id-mapped mount shows a file of id 0 as the id that it is mapped to.
fn bind_with_mapped_ids(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "")]);
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", &source, &["rbind"]).probe(["--stat", "/tmp/inside"]);
    let map = json!([{ "containerID": 0, "hostID": 4321, "size": 1 }]);
    let mount = bundle.config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount["uidMappings"] = map.clone();
    mount["gidMappings"] = map;
    let report = bundle.report();
    let file = &report["stats"]["/tmp/inside"];
    assert_eq!((&file["uid"], &file["gid"]), (&json!(4321), &json!(4321)));
}

/// crun's options: a link of the host's is made again, or mounted itself, or what it is mounted on is a link.
fn symlinks_are_bound_or_made_again(scene: &Scene) {
    let tree = scene.tree("links", &[("file", "of the host\n")]);
    let link = tree.join("link");
    symlink("/said/by/the/host", &link).unwrap();
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    write(&bundle.rootfs("/etc/bound"), "");
    symlink("nowhere", bundle.rootfs("/etc/covered")).unwrap();
    bundle.mount("/etc/made", "bind", &link, &["bind", "copy-symlink"]);
    bundle.mount("/etc/bound", "bind", &link, &["bind", "src-nofollow"]);
    bundle.mount("/etc/covered", "bind", tree.join("file"), &["bind", "dest-nofollow"]);
    bundle.args(["sh", "-c", "readlink /etc/made; readlink /etc/bound; cat /etc/covered"]);
    let said = "/said/by/the/host\n";
    assert_eq!(bundle.run().success().stdout, format!("{said}{said}of the host\n"));
    assert_eq!(std::fs::read_link(bundle.rootfs("/etc/made")).unwrap(), Path::new("/said/by/the/host"));
    assert!(!bundle.rootfs("/etc/nowhere").exists(), "the link was not followed");
}

fn destinations_stay_inside(scene: &Scene) {
    let sentinel = scene.sentinel();
    let source = scene.tree("source", &[("inside", "mounted")]);
    let mut bundle = scene.bundle();
    // Each of them leads to /tmp of the container, whatever it looks like from the host.
    symlink("/tmp", bundle.rootfs("absolute")).unwrap();
    symlink("../../../../../../tmp", bundle.rootfs("var/climbing")).unwrap();
    symlink(&sentinel, bundle.rootfs("outside")).unwrap();
    bundle.mount("/absolute/a", "bind", &source, &["bind"]);
    bundle.mount("/var/climbing/b", "bind", &source, &["bind"]);
    bundle.mount("/../../../tmp/c", "bind", &source, &["bind"]);
    bundle.mount("/outside/directory", "bind", &source, &["bind"]);
    bundle.probe(["--read", "/tmp/a/inside", "--read", "/tmp/b/inside", "--read", "/tmp/c/inside"]);
    let report = bundle.report();
    for path in ["/tmp/a/inside", "/tmp/b/inside", "/tmp/c/inside"] {
        assert_eq!(report["reads"][path], "mounted", "{path}");
    }
}

/// A mount of the list is what a later one of it binds; only the container's own tree has it.
fn sources_in_the_root_are_what_mounts_brought(scene: &Scene) {
    let source = scene.tree("source", &[("sub/inside", "brought")]);
    for with_namespace in [false, true] {
        let mut bundle = scene.bundle();
        if with_namespace && scene.who == Who::Root {
            // Whose root may not pass: it is by the descriptor that the source is found.
            with_user_namespace(&mut bundle);
            std::fs::set_permissions(&bundle.directory, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let [over, sub] = ["tmp/over", "tmp/over/sub"].map(|path| bundle.rootfs(path));
        bundle.mount("/tmp", "tmpfs", "tmpfs", &[]).mount("/tmp/over", "bind", &source, &["bind"]);
        bundle.mount("/var", "bind", bundle.rootfs("tmp"), &["rbind"]).mount("/etc", "bind", over, &["bind", "ro"]);
        bundle.mount("/root", "bind", sub, &["bind"]);
        let paths = ["/var/over/sub/inside", "/etc/sub/inside", "/root/inside"];
        for path in paths {
            bundle.probe(["--read", path]);
        }
        let report = bundle.report();
        for path in paths {
            assert_eq!(report["reads"][path], "brought", "{path}");
        }
        check_options(find(&report, "/etc"), &["ro"], &[]);
        assert_eq!(std::fs::read_dir(bundle.rootfs("tmp")).unwrap().count(), 0, "nothing is mounted on the host");
    }
}

/// Init alone sees the source, and in a user namespace the parent alone may map it.
fn sources_in_the_root_with_mapped_ids(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "brought")]);
    for (with_namespace, id) in [(false, 4321), (true, 5)] {
        let mut bundle = scene.bundle();
        if with_namespace {
            with_user_namespace(&mut bundle);
        }
        bundle.mount("/var", "bind", &source, &["bind"]);
        bundle.mount("/tmp", "bind", bundle.rootfs("var"), &["rbind"]).probe(["--stat", "/tmp/inside"]);
        let host_id = if with_namespace { 100_000 + id } else { id };
        let map = json!([{ "containerID": 0, "hostID": host_id, "size": 1 }]);
        let mount = bundle.config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        mount["uidMappings"] = map.clone();
        mount["gidMappings"] = map;
        let file = bundle.report()["stats"]["/tmp/inside"].clone();
        assert_eq!((&file["uid"], &file["gid"]), (&json!(id), &json!(id)), "user namespace: {with_namespace}");
    }
}

/// Whoever wrote the image wrote its links, and a bind of what they name on the host would be theirs to choose.
fn sources_in_the_root_do_not_lead_out(scene: &Scene) {
    let sentinel = scene.sentinel();
    let name = sentinel.file_name().unwrap().to_str().unwrap();
    for target in [sentinel.clone(), Path::new("../../../../../../..").join(sentinel.strip_prefix("/").unwrap())] {
        let mut bundle = scene.bundle();
        symlink(&target, bundle.rootfs("outside")).unwrap();
        bundle.mount("/tmp", "bind", bundle.rootfs("outside"), &["rbind"]);
        bundle.run().exits_with(1).says("outside").says("ENOENT");
    }
    let mut bundle = scene.bundle();
    symlink("/", bundle.rootfs("top")).unwrap();
    bundle.mount("/tmp", "bind", bundle.rootfs("top/etc"), &["bind"]).probe(["--list", "/tmp", "--list", "/etc"]);
    let lists = bundle.report()["lists"].clone();
    assert_eq!(lists["/tmp"], lists["/etc"]);
    assert!(!lists["/tmp"].to_string().contains(name));
}

/// As runc takes them; and judged as what they are then.
fn destinations_named_from_the_host(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "mounted")]);
    let mut bundle = scene.bundle();
    let place = bundle.rootfs("tmp/place");
    bundle.mount(place.to_str().unwrap(), "bind", &source, &["bind"]).probe(["--read", "/tmp/place/inside"]);
    assert_eq!(bundle.report()["reads"]["/tmp/place/inside"], "mounted");
    let mut bundle = scene.bundle();
    let place = bundle.rootfs("tmp/../proc/self/attr");
    bundle.mount(place.to_str().unwrap(), "tmpfs", "tmpfs", &[]);
    bundle.run().exits_with(1).says("cannot be mounted because it is inside /proc");
}

fn order_is_kept(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "below")]);
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", &source, &["bind"]).mount("/tmp", "tmpfs", "tmpfs", &[]);
    bundle.mount("/var", "tmpfs", "tmpfs", &[]).mount("/var/lib", "bind", &source, &["bind"]);
    bundle.probe(["--read", "/tmp/inside", "--read", "/var/lib/inside"]);
    assert_eq!(bundle.report()["reads"], json!({ "/tmp/inside": "ENOENT", "/var/lib/inside": "below" }));
}

fn root_read_only(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.tries(["create:/new", "write:/etc/passwd", "mkdir:/etc/new", "remount-rw:/"]);
    let tries = bundle.report()["tries"].clone();
    assert_eq!(tries["create:/new"], "EROFS");
    assert_eq!(tries["write:/etc/passwd"], "EROFS");
    assert_eq!(tries["mkdir:/etc/new"], "EROFS");
    assert_eq!(tries["remount-rw:/"], "EPERM");
}

fn root_writable(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.tries(["create:/new", "mkdir:/etc/made"]);
    let report = bundle.report();
    assert_eq!(report["tries"], json!({ "create:/new": "ok", "mkdir:/etc/made": "ok" }));
    assert!(bundle.rootfs("new").is_file() && bundle.rootfs("etc/made").is_dir());
}

fn root_propagation(scene: &Scene) {
    for (wanted, prefix) in [("shared", "shared:"), ("unbindable", "unbindable")] {
        let mut bundle = scene.bundle();
        bundle.config["linux"]["rootfsPropagation"] = json!(wanted);
        let report = bundle.report();
        let tags = find(&report, "/")["propagation"].as_array().unwrap();
        assert!(tags.iter().any(|tag| tag.as_str().unwrap().starts_with(prefix)), "{wanted}: {tags:?}");
    }
    let mut bundle = scene.bundle();
    bundle.config["linux"]["rootfsPropagation"] = json!("private");
    assert_eq!(find(&bundle.report(), "/")["propagation"], json!([]));
}

fn fresh_proc_shows_the_containers_processes(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.probe(["--list", "/proc"]);
    let report = bundle.report();
    let names = report["lists"]["/proc"].as_array().unwrap();
    let pids: Vec<&Value> = names.iter().filter(|name| name.as_str().unwrap().parse::<u32>().is_ok()).collect();
    assert_eq!(pids, ["1"]);
}

fn cgroup_mount_is_read_only_and_its_own(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.probe(["--list", "/sys/fs/cgroup"]);
    let controller = if Need::CgroupV1("memory").missing(scene.who).is_none() { "/memory" } else { "" };
    let path = format!("/sys/fs/cgroup{controller}");
    bundle.probe(["--read", &format!("{path}/cgroup.procs"), "--try", &format!("mkdir:{path}/escape")]);
    let report = bundle.report();
    check_options(find(&report, &path), &["ro", "nosuid", "nodev", "noexec"], &["rw"]);
    assert_eq!(report["tries"][format!("mkdir:{path}/escape")], "EROFS");
    // Its own cgroup, whose only process it is, rather than the host's tree.
    assert_eq!(report["reads"][format!("{path}/cgroup.procs")], "1\n");
}

fn a_missing_source_is_named(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bind", "/no/such/source", &["bind"]);
    bundle.run().exits_with(1).says("/no/such/source");
}

fn an_unknown_type_is_named(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "bogusfs", "bogusfs", &[]);
    bundle.run().exits_with(1).says("bogusfs");
}

fn an_unknown_option_is_refused(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["bogusoption=1"]);
    bundle.run().exits_with(1).says("/tmp");
}
