use super::*;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::{Command, Output};

/// A machine on paper: what each directory holds.
#[derive(Default)]
struct Paper(BTreeMap<PathBuf, Kind>);

impl Paper {
    /// Lines of `d path`, `f path`, `o path` and `l path target`.
    fn new(text: &str) -> Self {
        let mut entries = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<_> = line.split(' ').collect();
            let kind = match words[0] {
                "d" => Kind::Directory,
                "f" => Kind::File,
                "l" => Kind::Link(words[2].into()),
                _ => Kind::Other,
            };
            entries.insert(PathBuf::from(words[1]), kind);
        }
        Self(entries)
    }
}

impl Tree for Paper {
    fn entries(&self, directory: &Path) -> Result<Vec<Entry>> {
        if directory == Path::new("/locked") {
            return Err(Errno::ACCESS.into());
        }
        let inside = self.0.iter().filter(|(path, _)| path.parent() == Some(directory));
        let entry =
            |(path, kind): (&PathBuf, &Kind)| Entry { name: path.file_name().unwrap().into(), kind: kind.clone() };
        Ok(inside.map(entry).rev().collect())
    }

    fn kind(&self, path: &Path) -> Result<Kind> {
        self.0.get(path).cloned().ok_or_else(|| Errno::NOENT.into())
    }
}

const MOUNTS: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:2 / /proc rw - proc proc rw
3 1 0:3 / /sys rw - sysfs sysfs rw
4 3 0:4 / /sys/fs/cgroup rw - cgroup2 cgroup rw
5 1 0:5 / /dev rw - devtmpfs dev rw
6 1 0:6 / /run rw - tmpfs tmpfs rw
7 6 0:7 / /run/user/1000 rw - tmpfs tmpfs rw
8 1 8:2 / /home rw - xfs /dev/sda2 rw
9 1 0:9 / /mnt/nas rw - nfs4 nas:/ rw
10 1 0:10 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
11 1 8:3 / /var/lib/husk rw - ext4 /dev/sdb1 rw
12 1 8:4 /a /etc/hosts rw - ext4 /dev/sda4 rw
13 1 0:13 / /media rw - autofs systemd-1 rw
14 8 0:14 / /home/me/remote rw - fuse.sshfs you@there: rw
";

const TREE: &str = "
    l /bin usr/bin
    d /usr
    d /etc
    f /etc/hosts
    f /etc/passwd
    d /etc/ssl
    l /etc/mtab ../proc/self/mounts
    o /etc/socket
    d /home
    d /home/me
    d /home/me/remote
    d /home/me/src
    l /home/me/src/link /var
    d /home/you
    d /media
    d /mnt
    d /mnt/nas
    d /mnt/usb
    d /proc
    d /dev
    d /run
    d /sys
    d /tmp
    d /var
    d /var/lib
    d /var/lib/docker
    d /var/lib/docker/overlay2
    d /var/lib/docker/overlay2/x
    d /var/lib/docker/overlay2/x/merged
    d /var/lib/husk
    d /var/log
    d /var/log/deep
    d /var/log/deep/down
    f /swapfile
";

fn paper_plan(rights: Rights, mounts: &str, tree: &str, hidden: &[&str]) -> Result<Plan> {
    let mounts = mountinfo::parse(mounts.as_bytes()).unwrap();
    let hidden: Vec<_> = hidden.iter().map(Path::new).collect();
    let writable = ["/home/you", "/var/log/deep/down", "/var/log/deep", "/home/me/src/link/x", "/tmp"].map(Path::new);
    plan(&View {
        mounts: &mounts,
        tree: &Paper::new(tree),
        rights,
        directory: Path::new("/c"),
        hidden: &hidden,
        writable: &writable,
    })
}

/// One line a part: destination, what it is, what of.
fn describe(parts: &[Part]) -> Vec<String> {
    let line = |part: &Part| {
        let source = match &part.source {
            PartSource::Overlay { lower, upper, has_user_xattrs, .. } => {
                let mark = if *has_user_xattrs { "user" } else { "trusted" };
                format!("overlay {} {} {mark}", lower.display(), upper.display())
            }
            PartSource::ReadOnlyBind(path) => format!("file {}", path.display()),
            PartSource::Bind(path) => format!("bind {}", path.display()),
            PartSource::Tmpfs(_) => "tmpfs".to_owned(),
        };
        format!("{} {source}", part.destination.display())
    };
    parts.iter().map(line).collect()
}

fn unseen(plan: &Plan) -> Vec<String> {
    plan.unseen.iter().map(|(path, why)| format!("{} {why}", path.display())).collect()
}

#[test]
fn root_lays_one_overlay_and_one_a_local_file_system() {
    let plan = paper_plan(Rights::Root, MOUNTS, TREE, &["/var/lib/husk", "/run/husk"]).unwrap();
    assert_eq!(
        plan.root,
        RootFs::Overlay {
            lower: vec!["/".into()],
            upper: "/c/upper".into(),
            work: "/c/work".into(),
            target: "/c/rootfs".into(),
            has_user_xattrs: false,
        }
    );
    assert_eq!(
        describe(&plan.parts),
        [
            "/etc/hosts file /etc/hosts",
            "/home overlay /home /c/parts/1.upper trusted",
            "/run tmpfs",
            "/tmp bind /c/tmp"
        ]
    );
    assert_eq!(
        unseen(&plan),
        ["/home/me/remote fuse.sshfs", "/media autofs", "/mnt/nas nfs4", "/var/lib/docker/overlay2/x/merged overlay",]
            .map(str::to_owned)
    );
    // /run is the container's own, and hides the other.
    assert_eq!(plan.masked_paths, ["/var/lib/husk"]);
}

#[test]
fn a_user_lays_one_a_directory_and_goes_into_those_with_mounts() {
    let plan = paper_plan(Rights::User, MOUNTS, TREE, &["/var/lib/husk", "/home/me/.local/share/husk"]).unwrap();
    assert_eq!(plan.root, RootFs::Directory { path: "/c/rootfs".into(), parts: Vec::new() });
    assert_eq!(
        describe(&plan.parts),
        [
            "/etc/hosts file /etc/hosts",
            "/etc/passwd file /etc/passwd",
            "/etc/ssl overlay /etc/ssl /c/parts/1.upper user",
            "/home/me/src overlay /home/me/src /c/parts/2.upper user",
            "/home/you overlay /home/you /c/parts/3.upper user",
            "/mnt/usb overlay /mnt/usb /c/parts/4.upper user",
            "/swapfile file /swapfile",
            "/usr overlay /usr /c/parts/5.upper user",
            "/var/log overlay /var/log /c/parts/6.upper user",
            "/run tmpfs",
            "/tmp bind /c/tmp",
        ]
    );
    assert_eq!(
        unseen(&plan),
        ["/home/me/remote fuse.sshfs", "/media autofs", "/mnt/nas nfs4", "/var/lib/docker/overlay2/x/merged overlay"]
    );
    assert_eq!(plan.masked_paths, ["/var/lib/husk", "/home/me/.local/share/husk"]);
    let steps =
        |path: &str| plan.prepare.iter().filter(|step| format!("{step:?}").contains(&format!("\"{path}\""))).count();
    for path in ["rootfs/bin", "rootfs/etc", "rootfs/etc/mtab", "rootfs/home", "rootfs/var/lib", "rootfs/mnt/nas"] {
        assert_eq!(steps(path), 1, "{path} is made once");
    }
    for path in ["parts", "parts/6.upper", "parts/6.upper/deep", "parts/6.upper/deep/down"] {
        assert_eq!(steps(path), 1, "{path} is in the layer once");
    }
    for path in [
        "upper",
        "parts/2.upper/link",
        "parts/2.upper/link/x",
        "rootfs/proc",
        "rootfs/tmp",
        "rootfs/var/lib/husk",
        "rootfs/etc/socket",
    ] {
        assert_eq!(steps(path), 0, "{path} is not made");
    }
}

#[test]
fn what_cannot_be_laid_over_is_said() {
    let on = |kind: &str| paper_plan(Rights::Root, &format!("1 0 8:1 / / rw - {kind} x rw\n"), "d /usr", &[]);
    for kind in ["ext4", "overlay", "tmpfs"] {
        on(kind).unwrap();
    }
    let error = on("nfs4").unwrap_err();
    assert_eq!(error.report(), "host: the root file system is nfs4, which no overlay can lie over");
    assert_eq!(paper_plan(Rights::Root, "", "", &[]).unwrap_err().report(), "mountinfo: no mount on /");
    for hidden in ["/", "relative", "/a/../b"] {
        assert!(paper_plan(Rights::Root, "1 0 8:1 / / rw - ext4 x rw\n", "", &[hidden]).is_err(), "{hidden}");
    }
}

#[test]
fn a_directory_that_may_not_be_listed_is_left_out() {
    let mounts = "1 0 8:1 / / rw - ext4 x rw\n2 1 8:2 / /locked/inside rw - ext4 y rw\n";
    let plan = paper_plan(Rights::User, mounts, "d /locked", &[]).unwrap();
    assert_eq!(unseen(&plan), ["/locked may not be listed, and has mounts below"]);
}

/// Writes the plan as shell commands. The kernel is the judge, not the runtime's code.
fn script(plan: &Plan, directory: &Path) -> String {
    let mut script = String::from("set -e\n");
    let rootfs = directory.join("rootfs");
    let overlay = |lower: &Path, upper: &Path, work: &Path, has_user_xattrs: bool, on: &Path| {
        let extra = if has_user_xattrs { ",userxattr" } else { "" };
        let [lower, upper, work, on] = [lower, upper, work, on].map(Path::display);
        format!("mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work}{extra} {on}\n")
    };
    if let RootFs::Overlay { lower, upper, work, target, has_user_xattrs } = &plan.root {
        script += &overlay(&lower[0], upper, work, *has_user_xattrs, target);
    }
    for part in &plan.parts {
        let on = rootfs.join(part.destination.strip_prefix("/").unwrap());
        let place = on.display();
        match &part.source {
            PartSource::Overlay { lower, upper, work, has_user_xattrs } => {
                writeln!(script, "mkdir -p {place}").unwrap();
                script += &overlay(lower, upper, work, *has_user_xattrs, &on);
            }
            PartSource::ReadOnlyBind(path) => {
                writeln!(script, "[ -e {place} ] || : > {place}; mount --bind {} {place}", path.display()).unwrap();
            }
            PartSource::Bind(path) => {
                writeln!(script, "mkdir -p {place}; mount --bind {} {place}", path.display()).unwrap();
            }
            PartSource::Tmpfs(_) => writeln!(script, "mkdir -p {place}; mount -t tmpfs tmpfs {place}").unwrap(),
        }
    }
    for path in &plan.masked_paths {
        let place = format!("{}{path}", rootfs.display());
        writeln!(script, "if [ -d {place} ]; then mount -t tmpfs -o ro tmpfs {place}; fi").unwrap();
    }
    writeln!(script, "cd {}", rootfs.display()).unwrap();
    script
}

/// Runs a script in a mount namespace of its own: as root, or as a user in a user namespace of its own.
fn in_namespace(script: &str, rights: Rights) -> Output {
    let is_root = rustix::process::geteuid().is_root();
    let user = MADE_UP_USER.to_string();
    let mut command = Command::new("env");
    if is_root && rights == Rights::User {
        command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
    }
    command.args(["unshare", if rights == Rights::User { "-Urm" } else { "-m" }, "sh", "-c", script]);
    command.output().unwrap()
}

/// A user whom no machine has.
const MADE_UP_USER: u32 = 2_012_345;

/// A place on the machine's disk that the user of the test may use.
struct Place(PathBuf);

impl Place {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The kernel's work directories have mode 000, which stops others than root.
        let name = self.0.file_name().expect("below /var/tmp");
        let removed = crate::support::remove::remove_tree(std::fs::File::open("/var/tmp").unwrap(), name);
        assert!(std::thread::panicking() || removed.is_ok(), "{removed:?}");
    }
}

/// Makes the place; `None` where the test cannot run.
fn place(rights: Rights) -> Option<Place> {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root && rights == Rights::Root {
        skip("wants root");
        return None;
    }
    if in_namespace("true", rights).status.code() != Some(0) {
        skip("wants unshare, setpriv, and a host that allows the namespaces");
        return None;
    }
    // /tmp may be memory, and is the container's own; /var/tmp is what the overlays cover.
    let place = tempfile::Builder::new().prefix("husk-host-").tempdir_in("/var/tmp").unwrap();
    Some(Place(place.keep()))
}

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn skip(why: &str) {
    eprintln!("skipped: host: against the kernel: {why}");
}

/// Makes a real plan of this machine, mounts it, and runs a script in it.
fn on_this_machine(rights: Rights, inside: &str) -> Option<(Place, String)> {
    let scene = place(rights)?;
    let store = scene.path().join("store");
    let directory = store.join("container");
    std::fs::create_dir_all(&directory).unwrap();
    let mounts = mountinfo::parse(&std::fs::read("/proc/self/mountinfo").unwrap()).unwrap();
    let hidden: &[&Path] = &[&store];
    let writable = &[Path::new("/var/tmp")];
    let view = View { mounts: &mounts, tree: &Files, rights, directory: &directory, hidden, writable };
    let plan = plan(&view).unwrap();
    plan.prepare(std::fs::File::open(&directory).unwrap().as_fd()).unwrap();
    // A second start meets what the first made.
    plan.prepare(std::fs::File::open(&directory).unwrap().as_fd()).unwrap();
    if rights == Rights::User && rustix::process::geteuid().is_root() {
        let owner = format!("{MADE_UP_USER}:{MADE_UP_USER}");
        assert!(Command::new("chown").args(["-Rh", &owner]).arg(scene.path()).status().unwrap().success());
    }
    let script = script(&plan, &directory) + &inside.replace("SCENE", scene.path().to_str().unwrap());
    let output = in_namespace(&script, rights);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    Some((scene, text))
}

#[test]
fn root_sees_the_machine_and_writes_beside_it() {
    let inside = "
        : > usr/husk-test; : > etc/husk-test; : > husk-test; : > .SCENE/husk-test
        mkdir usr/new; mv usr/new usr/moved
        rm -rf usr/share/doc etc/passwd
        [ ! -e etc/passwd ] && [ -d usr/moved ] && [ -x bin/sh ] && echo written
        ls -A .SCENE/store | wc -l
        ls -A run tmp | wc -l
        stat -c %a tmp
    ";
    let Some((scene, text)) = on_this_machine(Rights::Root, inside) else { return };
    // An empty store; `run:`, an empty line, `tmp:`.
    assert_eq!(text, "written\n0\n3\n1777\n");
    assert!(Path::new("/etc/passwd").exists());
    for path in ["/usr/husk-test", "/etc/husk-test", "/husk-test", "/usr/moved"] {
        assert!(!Path::new(path).exists(), "{path} is on the host");
    }
    assert!(!scene.path().join("husk-test").exists());
    assert!(scene.path().join("store/container/upper/usr/husk-test").exists());
}

#[test]
fn a_user_sees_the_machine_and_writes_beside_it() {
    let inside = "
        : > husk-test; : > .SCENE/husk-test; : > var/tmp/husk-test
        [ -x bin/sh ] && [ -r etc/passwd ] && usr/bin/env true && echo seen
        rm -rf usr var etc 2>/dev/null || true
        [ ! -e .SCENE/husk-test ] && echo removed
        stat -c %a var/tmp
        ls -A .SCENE/store | wc -l
    ";
    let Some((scene, text)) = on_this_machine(Rights::User, inside) else { return };
    assert_eq!(text, "seen\nremoved\n1777\n0\n");
    for path in ["/usr/bin/env", "/etc/passwd", "/var/tmp"] {
        assert!(Path::new(path).exists(), "{path} is gone from the host");
    }
    assert!(!Path::new("/husk-test").exists() && !Path::new("/var/tmp/husk-test").exists());
    assert!(!scene.path().join("husk-test").exists());
    assert!(scene.path().join("store/container/rootfs/husk-test").exists(), "it is in the layer");
}

#[test]
fn without_a_mask_the_kernel_still_keeps_layers_apart() {
    // What husk relies on should the mask be missing: the upper directory cannot be reached through its own lower one.
    let inside = "umount .SCENE/store; ls .SCENE/store/container/upper 2>&1 | grep -c 'symbolic links'";
    let Some((_scene, text)) = on_this_machine(Rights::Root, inside) else { return };
    assert_eq!(text, "1\n");
}
