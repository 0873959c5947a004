//! What `exec` must not give away: the host's executable, its descriptors and its files, and rights that the container does
//! not have. Rows A1, B1, B2 and B3 of the advisories that the other runtimes had to write.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::exec::{remap, set};
use super::support::launch::Step;
use super::support::leak::cgroup_v1;
use super::support::scene::write;
use super::support::suite::kit;
use super::support::{Bundle, Guest, Invocation, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(own_executable_is_out_of_reach).and_plain(),
        test!(working_directory_through_a_descriptor).and_plain(),
        test!(nobody_inside_looks_into_it).needs(Need::Busybox).needs(Need::Program("strace")),
        test!(the_mightiest_inside_finds_nothing).root().needs(Need::Busybox).needs(Need::Program("strace")),
        test!(a_container_that_is_not_ready).root().needs(Need::Busybox),
        test!(capability_sets_are_exact),
        test!(the_filter_holds).and_plain(),
        test!(the_callers_habits_stay_outside).and_plain(),
        test!(killed_at_every_turn).root().needs(Need::Program("strace")).needs(Need::CgroupV1("pids")),
    ]
}

/// The file that the runtime runs from: contents, and the times that a write or a change of mode would move.
fn executable() -> (String, i64, i64, u32) {
    let data = std::fs::metadata(&kit().husk).unwrap();
    let sum = Sha256::digest(std::fs::read(&kit().husk).unwrap());
    (format!("{:x?}", &sum[..8]), data.ctime(), data.ctime_nsec(), data.mode())
}

/// A1, CVE-2019-5736.
fn own_executable_is_out_of_reach(scene: &Scene) {
    let before = executable();
    let mut bundle = scene.bundle();
    bundle.config["root"]["readonly"] = json!(false);
    symlink("/proc/self/exe", bundle.rootfs("/link")).unwrap();
    write(&bundle.rootfs("/script"), "#!/proc/self/exe\n");
    std::fs::set_permissions(bundle.rootfs("/script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let guest = Guest::start(scene, bundle);
    for program in ["/proc/self/exe", "/link", "/script", "/proc/self/fd/3"] {
        // What it answers is its own affair, but it ends.
        guest.exec(&[], &[program, "--probe", "--try", "open-write:/proc/self/exe"]).run();
        assert_eq!(executable(), before, "{program}");
    }
}

/// B1, CVE-2024-21626: a working directory by way of a descriptor that the runtime left open.
fn working_directory_through_a_descriptor(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let mut command = guest.exec(&["--cwd", &cwd], &["/probe"]);
        command.step(Step::LeakDescriptors(3)).run().exits_with(255).says(&cwd);
    }
}

/// `exec` below strace, with something done to it.
fn traced<'a>(scene: &'a Scene, guest: &Guest<'_>, inject: &str, words: &[&str]) -> Invocation<'a> {
    let mut command = scene.program("/usr/bin/strace");
    command.args(["-f", "-q", "-o", "/dev/null", "-e", &format!("inject={inject}")]);
    command.arg(&kit().runtime).arg("--root").arg(scene.state_root()).arg("exec").arg(&guest.bundle.id).args(words);
    command
}

/// What a process of the container sees of newcomers: a line for each name, executable, and what leads out of its root.
/// `$0` is a file of the host. Ends when one that it has seen has become the probe.
const WATCH: &str = r#"echo up; last=; seen=
while :; do
    found=
    for p in /proc/[0-9]*; do
        read -r name < $p/comm || continue
        case "$name" in husk*) ;; *) continue;; esac
        found=1
        out=
        for d in $p/root $p/cwd $p/fd/*; do [ -e "$d$0" ] && out=out; [ -e "$d/1/root$0" ] && out=out; done
        line="$name $(readlink $p/exe) $out"
        [ "$line" = "$last" ] || [ ! -d $p ] || echo "$line"
        last=$line seen=1
    done
    [ -z "$seen" ] || [ -n "$found" ] || { echo gone; exit; }
done 2> /dev/null"#;

/// B2, CVE-2016-9962: between entering and the exec the process of `exec` holds what is the host's. What the container
/// sees of it is kept closed by dumpability: in a user namespace from its first moment, and without one too.
fn nobody_inside_looks_into_it(scene: &Scene) {
    let sentinel = scene.sentinel();
    for is_remapped in [true, false] {
        let mut bundle = scene.bundle();
        if is_remapped && scene.who == super::support::Who::Root {
            let all: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
            bundle.config["process"]["capabilities"] = json!({ "bounding": all, "permitted": all, "effective": all });
            remap(&mut bundle);
        }
        for line in watch(scene, bundle, &sentinel) {
            // The stub may be seen where who looks is the mightier: it is a sealed file that holds nothing of the host's.
            let is_closed = line == "husk:[2:INIT]  " || line.starts_with("husk:[2:INIT] /memfd:");
            assert!(is_closed && !line.ends_with("out"), "{line}");
        }
    }
}

/// B2 and A1 where dumpability keeps nobody out: root inside is root, and may trace all that it sees. It sees the process
/// once that is the sealed stub in the container's root, with nothing of the host's open.
fn the_mightiest_inside_finds_nothing(scene: &Scene) {
    let sentinel = scene.sentinel();
    for no_new_privileges in [true, false] {
        let mut bundle = scene.bundle();
        for set in ["bounding", "permitted", "effective"] {
            bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
        }
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["clone3", "mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
        });
        for line in watch(scene, bundle, &sentinel) {
            assert_eq!(line, "husk:[2:INIT] /memfd:husk (deleted) ", "noNewPrivileges {no_new_privileges}");
        }
    }
}

/// Has a container watch an `exec` that takes its time at the first call of its process inside, at the last before the
/// stub, and as the stub.
fn watch(scene: &Scene, bundle: Bundle<'_>, sentinel: &Path) -> Vec<String> {
    let guest = Guest::start(scene, bundle);
    let mut watching = guest.exec(&[], &["/bin/sh", "-c", WATCH, sentinel.to_str().unwrap()]).start();
    watching.line_with("up");
    let calls = "setsid,memfd_create,execve:delay_enter=200000";
    traced(scene, &guest, calls, &["/probe", "--quiet"]).run().success();
    let mut lines = Vec::new();
    loop {
        match watching.line() {
            line if line == "gone" => break,
            // Between the look at the name and that at the executable it has become the probe.
            line if line.starts_with("husk:[2:INIT] /probe ") => {}
            line => lines.push(line),
        }
    }
    watching.finish().success();
    assert!(!lines.is_empty(), "it saw nobody");
    lines
}

/// Before init has pivoted, its mount namespace is the host's files.
fn a_container_that_is_not_ready(scene: &Scene) {
    let fifo = scene.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let mut bundle = scene.bundle();
    let script = format!("echo > {0}; read line < {0}", fifo.display());
    bundle.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    bundle.args(["/probe", "--quiet"]);
    let running = bundle.command().start();
    // The hook is there: the mounts are made, and the pivot is not.
    assert_eq!(std::fs::read_to_string(&fifo).unwrap(), "\n");
    let outcome = scene.runtime().args(["exec", &bundle.id, "/probe", "--list", "/"]).run();
    write(&fifo, "go\n");
    running.finish().success();
    outcome.exits_with(255).says("cannot exec in a container that is still being created");
}

/// B3: nothing inheritable, nothing ambient that was not asked for, and with `--cap` no more than what was named.
fn capability_sets_are_exact(scene: &Scene) {
    const CHOWN: u64 = 1;
    const KILL: u64 = 1 << 5;
    let mut bundle = scene.bundle();
    let sets = json!(["CAP_KILL"]);
    bundle.config["process"]["capabilities"] = json!({ "bounding": sets, "permitted": sets, "effective": sets });
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    let guest = Guest::start(scene, bundle);
    for (flags, bounding, permitted) in [
        (&[][..], KILL, KILL),
        (&["--user", "1000"], KILL, 0),
        (&["--cap", "CAP_CHOWN"], KILL | CHOWN, KILL | CHOWN),
        (&["--cap", "CAP_CHOWN", "--user", "1000"], KILL | CHOWN, 0),
    ] {
        let report = guest.report(flags, &[]);
        let found = ["bounding", "permitted", "effective", "inheritable", "ambient"].map(|name| set(&report, name));
        assert_eq!(found, [bounding, permitted, permitted, 0, 0], "{flags:?}");
    }
}

/// The container's seccomp filter, with no_new_privs and without.
fn the_filter_holds(scene: &Scene) {
    for no_new_privileges in [true, false] {
        let mut bundle = scene.bundle();
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }],
        });
        bundle.config["root"]["readonly"] = json!(false);
        let guest = Guest::start(scene, bundle);
        let report = guest.report(&[], &["--try", "mkdir:/tmp/x"]);
        assert_eq!(report["seccomp"], 2);
        assert_eq!(report["tries"]["mkdir:/tmp/x"], "EOPNOTSUPP");
        assert_eq!(report["no_new_privs"], no_new_privileges);
        // A process of the caller's own says nothing of the filter, and has it.
        let file = scene.path().join("process.json");
        write(&file, json!({ "args": ["/probe"], "cwd": "/", "user": {} }).to_string());
        let report = guest.exec(&["-p", file.to_str().unwrap()], &[]).run().success().report();
        assert_eq!(report["seccomp"], 2);
    }
}

/// Signals that are ignored or blocked, the environment, the groups (CVE-2022-36109), the file mode mask.
fn the_callers_habits_stay_outside(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let mut command = guest.exec(&[], &["/probe", "--read", "/proc/self/status"]);
    command.env("SECRET", "1").step(Step::Ignore(1)).step(Step::Block(10)).step(Step::Umask(0o777));
    let report = command.run().success().report();
    let status = report["reads"]["/proc/self/status"].as_str().unwrap();
    for name in ["SigBlk", "SigIgn"] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        // The probe itself ignores SIGPIPE, as every Rust program does.
        let mask = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap() & !(1 << 12);
        assert_eq!(mask, 0, "{line}");
    }
    assert_eq!(report["env"]["SECRET"], Value::Null);
    assert_eq!(report["umask"], "22");
    if scene.who == super::support::Who::Root {
        assert_eq!(report["groups"], json!([]));
    }
}

/// SIGKILL at the calls where the most is half done, to whichever process makes them first: nothing of it stays.
fn killed_at_every_turn(scene: &Scene) {
    let guest = Guest::start(scene, scene.bundle());
    let members = cgroup_v1("pids").unwrap().join(&guest.bundle.id).join("cgroup.procs");
    let files = |scene: &Scene| -> Vec<String> {
        let entries = std::fs::read_dir(scene.state_root().join(&guest.bundle.id)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let before = files(scene);
    let calls = [
        "pidfd_open",
        "socketpair",
        "setns",
        "clone3",
        "recvmsg",
        "setsid",
        "keyctl",
        "setgroups",
        "setresuid",
        "capset",
        "sendmsg",
        "memfd_create",
        "execveat",
        "close_range",
    ];
    for call in calls {
        for when in [1, 2] {
            let inject = format!("{call}:signal=KILL:when={when}");
            let mut command = traced(scene, &guest, &inject, &["/probe", "--quiet"]);
            let outcome = command.start_with(Stdio::null(), Stdio::null(), Stdio::null()).finish();
            let deadline = Instant::now() + Duration::from_secs(5);
            while std::fs::read_to_string(&members).unwrap().lines().count() > 1 {
                assert!(Instant::now() < deadline, "{inject}: a process is left; the command: {}", outcome.code());
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(files(scene), before, "{inject}");
        }
    }
    assert_eq!(guest.report(&[], &[])["hostname"], "runc");
}
