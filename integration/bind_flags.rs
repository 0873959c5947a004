//! What flags a bind or a remount ends up with: those asked for and no others, unless the kernel locks what was there.
//! The rows are runc's (its tests of mounts over sshfs), with what mount(8) does otherwise.

use std::path::PathBuf;

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};

use super::mounts::{check_options, find};
use super::support::scene::write;
use super::support::{Bundle, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_bind_has_the_flags_it_asks_for).root().needs(Need::NotCrun).needs(Need::NotRunc),
        test!(in_a_user_namespace_locked_flags_stay).root().needs(Need::NotCrun).needs(Need::NotRunc),
        test!(in_a_user_namespace_locked_flags_cannot_go).root().needs(Need::NotCrun).needs(Need::NotRunc),
        test!(a_workload_cannot_take_the_hosts_flags_off).root().needs(Need::Husk),
        test!(a_remount_changes_what_is_there).and_plain().needs(Need::Husk),
        test!(words_for_no_file_system_are_refused).and_plain().needs(Need::Husk),
        test!(recursive_words_of_crun_are_taken).and_plain().needs(Need::Husk),
        test!(read_only_file_systems_are_filled_first).and_plain().needs(Need::Husk),
    ]
}

/// A tmpfs of the host's that is taken down again.
struct HostMount(PathBuf);

impl HostMount {
    fn new(place: PathBuf, flags: MountFlags) -> Self {
        rustix::mount::mount("tmpfs", &place, "tmpfs", MountFlags::STRICTATIME, c"mode=777").unwrap();
        let mount = Self(place);
        mount.set(flags);
        mount
    }

    /// Sets the flags of the mount alone, so that a bind may have others.
    fn set(&self, flags: MountFlags) {
        rustix::mount::mount_remount(&self.0, MountFlags::BIND | flags, "").unwrap();
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Gives root's container a user namespace that the host's root has no id in.
pub(crate) fn with_user_namespace(bundle: &mut Bundle<'_>) {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.namespace("user", None);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
}

fn flags(words: &str) -> MountFlags {
    let flag = |word| match word {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "strictatime" => MountFlags::STRICTATIME,
        "nosymfollow" => MountFlags::from_bits_retain(0x100),
        _ => MountFlags::empty(),
    };
    words.split(',').map(flag).fold(MountFlags::STRICTATIME, |all, flag| match flag {
        MountFlags::NOATIME | MountFlags::RELATIME | MountFlags::NODIRATIME => {
            all.difference(MountFlags::STRICTATIME) | flag
        }
        flag => all | flag,
    })
}

fn words(list: &str) -> Vec<&str> {
    list.split(',').filter(|word| !word.is_empty()).collect()
}

/// Flags of the host's mount, options of the bind, what must be there, what must not.
type Row = (&'static str, &'static str, &'static str, &'static str);

fn check_rows(scene: &Scene, in_user_namespace: bool, rows: &[Row]) {
    let source = scene.tree("source", &[]);
    let host = HostMount::new(source.clone(), MountFlags::empty());
    for (host_flags, options, present, absent) in rows {
        host.set(flags(host_flags));
        let mut bundle = scene.bundle();
        if in_user_namespace {
            with_user_namespace(&mut bundle);
        }
        bundle.mount("/tmp", "bind", &source, &words(options));
        scene.note(format!("{host_flags} bound with {options}"));
        check_options(find(&bundle.report(), "/tmp"), &words(present), &words(absent));
    }
}

fn a_bind_has_the_flags_it_asks_for(scene: &Scene) {
    check_rows(
        scene,
        false,
        &[
            ("ro,noexec,nosymfollow,nodiratime", "bind", "ro,noexec,nodiratime,nosymfollow", "rw"),
            ("ro,noexec,nosymfollow,nodiratime", "bind,dev", "rw,nodiratime", "ro,noexec,nosymfollow"),
            ("ro", "rbind,nosuid,nodev,rprivate", "rw,nosuid,nodev", "ro"),
            ("ro", "rbind,rw,nosuid", "rw,nosuid", "ro"),
            ("ro", "rbind,rw", "rw", "ro"),
            ("nosuid,nodev,noexec,noatime", "bind,dev,suid,exec,atime", "rw,noatime", "nosuid,nodev,noexec"),
            ("nodev,nosuid,noexec,noatime", "bind,ro", "ro,noatime", "nosuid,nodev,noexec"),
            ("nodev,nosymfollow", "bind,ro,symfollow", "ro", "nodev,nosymfollow"),
            ("noatime", "bind,norelatime", "noatime", "relatime"),
            ("noatime", "bind,relatime", "relatime", "noatime"),
            ("noatime", "bind,nodiratime", "nodiratime,relatime", "noatime"),
            ("nodiratime", "bind,strictatime", "rw", "noatime,relatime,nodiratime"),
            ("noatime", "bind,nodiratime,strictatime", "nodiratime", "noatime,relatime"),
        ],
    );
}

fn in_a_user_namespace_locked_flags_stay(scene: &Scene) {
    check_rows(
        scene,
        true,
        &[
            ("ro,noexec,nosymfollow,nodiratime", "bind", "ro,noexec,nodiratime,nosymfollow", "rw"),
            ("ro,noexec,nosymfollow,nodiratime", "bind,dev", "ro,noexec,nodiratime", "rw,nosymfollow"),
            ("ro", "bind,nosuid,nodev,rprivate", "ro,nosuid,nodev", "rw"),
            ("nodev,nosuid,noexec,noatime", "bind,ro", "ro,nosuid,nodev,noexec,noatime", ""),
            ("nodev,nosymfollow", "bind,ro,symfollow", "ro,nodev", "nosymfollow"),
            ("nodev,nosuid,noatime", "bind,ro,exec", "ro,nosuid,nodev,noatime", "noexec"),
            ("noatime,nodiratime", "bind,norelatime", "noatime,nodiratime", ""),
            ("strictatime", "bind,nostrictatime", "rw", "noatime,relatime,nodiratime"),
        ],
    );
}

/// A flag that is asked to go and is locked is an error: the mount would not be what was asked for.
fn in_a_user_namespace_locked_flags_cannot_go(scene: &Scene) {
    let source = scene.tree("source", &[]);
    let host = HostMount::new(source.clone(), MountFlags::empty());
    for (host_flags, options, named) in [
        ("ro", "bind,rw,nosuid", "cannot clear locked flags MS_RDONLY"),
        ("nodev,nosuid", "rbind,dev,suid", "cannot clear locked flags MS_NOSUID|MS_NODEV"),
        ("relatime", "bind,strictatime", "cannot change locked atime flags MS_RELATIME"),
        ("strictatime", "bind,noatime", "cannot change locked atime flags MS_STRICTATIME"),
        ("noatime", "bind,relatime", "cannot change locked atime flags MS_NOATIME"),
        ("relatime", "bind,nodiratime", "cannot change locked atime flags MS_RELATIME"),
    ] {
        host.set(flags(host_flags));
        let mut bundle = scene.bundle();
        with_user_namespace(&mut bundle);
        bundle.mount("/tmp", "bind", &source, &words(options));
        bundle.run().exits_with(1).says(named).says("EPERM");
    }
}

/// The source is opened where its flags are locked, not by the parent: root of the container's user namespace, with the
/// right to mount, cannot make the host's read-only mount writable, nor see what lies below a mount of the host's.
fn a_workload_cannot_take_the_hosts_flags_off(scene: &Scene) {
    let source = scene.tree("source", &[("sub/covered", "secret")]);
    let host = HostMount::new(source.clone(), MountFlags::empty());
    std::fs::create_dir(source.join("sub")).unwrap();
    let below = HostMount::new(source.join("sub"), MountFlags::empty());
    host.set(MountFlags::RDONLY);
    let mut bundle = scene.bundle();
    with_user_namespace(&mut bundle);
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
    }
    bundle.config["process"]["capabilities"]["ambient"] = json!([]);
    bundle.mount("/tmp", "bind", &source, &["rbind", "ro"]);
    bundle.tries(["remount-rw:/tmp", "create:/tmp/new", "unmount:/tmp/sub"]);
    let tries = bundle.report()["tries"].clone();
    drop(below);
    assert_eq!(tries, json!({ "remount-rw:/tmp": "EPERM", "create:/tmp/new": "EROFS", "unmount:/tmp/sub": "EINVAL" }));
}

fn a_remount_changes_what_is_there(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["size=128k", "nosuid"]);
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["remount", "size=256k", "noexec"]);
    bundle.mount("/var", "tmpfs", "tmpfs", &[]);
    bundle.mount("/var", "bind", "/nonexistent", &["bind", "remount", "ro", "nodev"]);
    let report = bundle.report();
    let options = find(&report, "/tmp")["super_options"].as_array().unwrap();
    assert!(options.contains(&json!("size=256k")), "{options:?}");
    check_options(find(&report, "/tmp"), &["noexec"], &["nosuid"]);
    check_options(find(&report, "/var"), &["ro", "nodev"], &["rw"]);
    let count = |target: &str| {
        let mounts = report["mounts"].as_array().unwrap().iter();
        mounts.filter(|mount: &&Value| mount["target"] == target).count()
    };
    assert_eq!((count("/tmp"), count("/var")), (1, 1));
}

fn words_for_no_file_system_are_refused(scene: &Scene) {
    let source = scene.tree("source", &[]);
    for word in ["size=1k", "bogus", "mode=755"] {
        let mut bundle = scene.bundle();
        bundle.mount("/tmp", "bind", &source, &["rbind", word]);
        bundle.run().exits_with(1).says("/tmp").says("bind mounts cannot have any filesystem-specific options applied");
    }
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "tmpfs", "tmpfs", &[]).mount("/tmp", "tmpfs", "tmpfs", &["remount", "bogus=1"]);
    bundle.run().exits_with(1).says("remount /tmp").says("bogus=1");
}

fn recursive_words_of_crun_are_taken(scene: &Scene) {
    let source = scene.tree("source", &[]);
    let mut bundle = scene.bundle();
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["rsync", "rdirsync"]);
    bundle.mount("/var", "bind", &source, &["rbind", "rsync", "rasync", "rnomand"]);
    let report = bundle.report();
    let flags = find(&report, "/tmp")["super_options"].as_array().unwrap();
    assert!(flags.contains(&json!("sync")) && flags.contains(&json!("dirsync")), "{flags:?}");
    assert_eq!(find(&report, "/var")["target"], "/var");
}

/// Mount points, device nodes and copies are made in what is to be read-only.
fn read_only_file_systems_are_filled_first(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "bound")]);
    let mut bundle = scene.bundle();
    write(&bundle.rootfs("var/lib/copied"), "copied");
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"].as_array_mut().unwrap().push(json!("ro"));
        }
    }
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["ro"]).mount("/tmp/made/for", "bind", &source, &["bind"]);
    bundle.mount("/var/lib", "tmpfs", "tmpfs", &["ro", "tmpcopyup"]);
    bundle.probe(["--read", "/tmp/made/for/inside", "--read", "/var/lib/copied", "--stat", "/dev/null"]);
    bundle.tries(["create:/tmp/new", "create:/var/lib/new", "create:/dev/new"]);
    let report = bundle.report();
    assert_eq!(report["reads"], json!({ "/tmp/made/for/inside": "bound", "/var/lib/copied": "copied" }));
    let expected = ["create:/dev/new", "create:/tmp/new", "create:/var/lib/new"];
    assert!(expected.iter().all(|attempt| report["tries"][attempt] == "EROFS"), "{}", report["tries"]);
}
