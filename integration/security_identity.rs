//! Identity, section B of the catalogue of advisories: what a process that enters shows of itself, whose capabilities,
//! groups, ids and keys it has, and what its hooks and helpers are given. Each test says which advisory it stands for.

use serde_json::{Value, json};

use super::support::image::Image;
use super::support::launch::Step;
use super::support::suite::kit;
use super::support::tar::Entry;
use super::support::trace::watch;
use super::support::{Bundle, Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(who_enters_can_not_be_read_from_inside)
            .and_plain()
            .needs(Need::Husk)
            .needs(Need::Busybox)
            .needs(Need::Capability(caps::Capability::CAP_SYS_PTRACE)),
        test!(exec_has_the_sets_of_the_specification).and_plain().needs(Need::Husk),
        test!(exec_keeps_no_group_of_the_caller).root().needs(Need::NotCrun),
        test!(a_user_is_exact_or_refused).needs(Need::Husk).needs(Need::Busybox),
        test!(account_files_without_end).and_plain().needs(Need::Husk).needs(Need::Busybox),
        test!(the_session_keyring_is_its_own).and_plain(),
        test!(hooks_get_their_own_environment_and_files).and_plain().needs(Need::Husk),
        test!(helpers_are_not_searched_for).user().needs(Need::Husk),
    ]
}

/// B2, CVE-2016-9962: a process that enters is not to be looked into by root of the container, who in its user namespace
/// may trace everybody; through its links to the host's files that root would come out.
fn who_enters_can_not_be_read_from_inside(scene: &Scene) {
    let mut bundle = scene.bundle();
    if scene.who == Who::Root {
        bundle.namespace("user", None);
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        bundle.config["linux"]["uidMappings"] = map.clone();
        bundle.config["linux"]["gidMappings"] = map;
    }
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_PTRACE"]);
    }
    let script =
        r#"echo up; while read line; do for p in /proc/[0-9]*; do echo "$p $(readlink $p/exe)"; done; echo end; done"#;
    bundle.args(["/bin/sh", "-c", script]);
    let mut container = bundle.command().start();
    container.line_with("up");
    let mut seen_from_inside = 0;
    let mut exec = scene.runtime();
    exec.args(["exec", &bundle.id, "/bin/true"]);
    let trace = watch(&mut exec, &mut |process, call| {
        // The command itself never enters. Every look takes a moment: not at each of some hundred calls.
        if process == 0 || call % 3 != 0 {
            return;
        }
        container.write("look\n");
        let mut links = Vec::new();
        loop {
            let line = container.line();
            if line == "end" {
                break;
            }
            links.push(line);
        }
        seen_from_inside += usize::from(links.len() > 1);
        // The container's own, and the sealed file of the last stage.
        let is_harmless = |link: &str| link.is_empty() || link.starts_with("/bin/") || link.starts_with("/memfd:");
        let open: Vec<&String> =
            links.iter().filter(|line| !is_harmless(line.split_once(' ').map_or("", |(_, link)| link))).collect();
        assert!(open.is_empty(), "process {process}, before call {call}: {open:?}");
    });
    assert_eq!(trace.status, nix::sys::wait::WaitStatus::Exited(trace.main, 0), "{}", trace.stderr);
    assert!(seen_from_inside > 0, "the process was never there to be looked at: this proves nothing");
    scene.runtime().args(["kill", &bundle.id, "KILL"]).run().success();
    container.finish();
}

/// A container that waits.
fn waiting<'a>(scene: &'a Scene, bundle: &mut Bundle<'a>) -> super::support::husk::Running<'a> {
    bundle.args(["/probe", "--quiet", "--catch"]);
    let mut running = bundle.command().start();
    running.line_with("ready");
    _ = scene;
    running
}

/// B3, CVE-2022-24769, CVE-2022-29162, CVE-2025-27612: `exec` gives what the specification says, adds to three sets
/// and not to all five, and leaves nothing to another user.
fn exec_has_the_sets_of_the_specification(scene: &Scene) {
    const CHOWN: u64 = 1;
    const KILL: u64 = 1 << 5;
    const NET_RAW: u64 = 1 << 13;
    let mut bundle = scene.bundle();
    let asked = json!(["CAP_CHOWN", "CAP_KILL"]);
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.config["process"]["capabilities"] = json!({ "bounding": asked, "permitted": asked, "effective": asked });
    let running = waiting(scene, &mut bundle);
    let row = |words: &[&str], expected: [u64; 5]| {
        let report = scene.runtime().arg("exec").args(words).args([&bundle.id, "/probe"]).run().success().report();
        let names = ["permitted", "effective", "inheritable", "bounding", "ambient"];
        let found = names.map(|name| u64::from_str_radix(report["caps"][name].as_str().unwrap(), 16).unwrap());
        assert_eq!(found.map(|set| format!("{set:x}")), expected.map(|set| format!("{set:x}")), "exec {words:?}");
    };
    let both = CHOWN | KILL;
    row(&[], [both, both, 0, both, 0]);
    row(&["--cap", "CAP_NET_RAW"], [both | NET_RAW, both | NET_RAW, 0, both | NET_RAW, 0]);
    if scene.who != Who::Plain {
        row(&["--user", "1000:1000"], [0, 0, 0, both, 0]);
    }
    running.signal(rustix::process::Signal::TERM);
    running.finish();
}

/// B4, CVE-2022-36109 and its kin, in `exec`.
fn exec_keeps_no_group_of_the_caller(scene: &Scene) {
    let mut bundle = scene.bundle();
    let running = waiting(scene, &mut bundle);
    for (words, expected) in [
        (&["--user", "1000:1001"][..], json!([])),
        (&["--user", "1000:1001", "--additional-gids", "29"], json!([29])),
        (&[], json!([])),
    ] {
        let mut command = scene.program("/usr/bin/setpriv");
        command.args(["--groups", "5,6,7"]).arg(&kit().runtime).arg("--root").arg(scene.state_root());
        let report = command.arg("exec").args(words).args([&bundle.id, "/probe"]).run().success().report();
        assert_eq!(report["groups"], expected, "{words:?}");
    }
    running.signal(rustix::process::Signal::TERM);
    running.finish();
}

/// B5, CVE-2016-3697, CVE-2024-40635, CVE-2026-30892, CVE-2026-46680: never 0 for want of a better one.
fn a_user_is_exact_or_refused(scene: &Scene) {
    // A name of digits that has been given the id 0.
    let mut layer =
        vec![Entry::file("etc/passwd", "root:x:0:0::/:/bin/sh\n4242:x:0:0::/:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n")];
    layer.push(Entry::file("etc/group", "root:x:0:\nstaff:x:50:alice\n"));
    let layout = Image::probe(scene).layer(&layer).layout(scene, "layout");
    let rows: [(&str, Option<(u32, u32)>); 19] = [
        ("1", Some((1, 0))),
        ("1:1", Some((1, 1))),
        ("alice", Some((1000, 1001))),
        ("alice:staff", Some((1000, 50))),
        ("4242", Some((4242, 0))),
        (":1", None),
        ("1:", None),
        ("4294967296", None),
        ("4294967295", None),
        ("18446744073709551616", None),
        ("-1", None),
        ("+0", None),
        ("0x0", None),
        (" 0", None),
        ("root\n", None),
        ("nobody-known", None),
        ("1:nobody-known", None),
        ("١", None),
        ("0:4294967295", None),
    ];
    for (user, expected) in rows {
        let mut command = scene.husk();
        command.args(["run", "--rm"]).arg(format!("--user={user}")).args([&layout.reference(), "/probe"]);
        let outcome = command.run();
        match expected {
            None => {
                assert_eq!(outcome.code(), 125, "{user:?}: {}", outcome.stdout);
            }
            Some((uid, gid)) => {
                let report = outcome.success().report();
                // A name of digits may be taken for the name or the number, as the peers do; not for neither.
                let by_name = user == "4242" && report["uid"][0] == 0;
                assert!(!by_name, "a number was taken for a name of id 0");
                assert_eq!(
                    (&report["uid"], &report["gid"]),
                    (&Value::from(vec![uid; 4]), &Value::from(vec![gid; 4])),
                    "{user:?}"
                );
            }
        }
    }
}

/// B6, CVE-2026-47262: account files are read by the engine, in its memory and time.
fn account_files_without_end(scene: &Scene) {
    let long_line = format!("alice:x:{}", "1".repeat(2 << 20));
    let rows = [
        ("fifo", vec![Entry::fifo("etc/passwd"), Entry::fifo("etc/group")]),
        ("link", vec![Entry::symlink("etc/passwd", "/dev/zero"), Entry::symlink("etc/group", "/proc/self/mem")]),
        ("line", vec![Entry::file("etc/passwd", long_line.clone()), Entry::file("etc/group", long_line)]),
        ("directory", vec![Entry::file("etc/.wh.passwd", ""), Entry::directory("etc/passwd")]),
    ];
    for (name, layer) in rows {
        let layout = Image::busybox(scene).layer(&layer).layout(scene, name);
        let outcome = scene.husk().args(["run", "--rm", "--user", "alice", &layout.reference(), "/bin/true"]).run();
        outcome.exits_with(125).says_one_of(&["passwd", "alice"]);
    }
}

/// B7: no key of the caller's, nor of another container's, is within reach by way of the session.
fn the_session_keyring_is_its_own(scene: &Scene) {
    // keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
    let call = if cfg!(target_arch = "x86_64") { "250:0:-3:0" } else { "219:0:-3:0" };
    let serial = |report: &Value| report["answers"][call].clone();
    let mut outside = scene.program("/usr/bin/setsid");
    outside.arg("--wait").arg(&kit().launcher).args(["--probe", "--answer", call]);
    let outside = outside.run().success().report();
    let mut serials = vec![serial(&outside)];
    for _ in 0..2 {
        let mut bundle = scene.bundle();
        bundle.probe(["--answer", call]);
        let found = serial(&bundle.report());
        assert!(found.as_i64().is_some_and(|number| number > 0), "{found}");
        assert!(!serials.contains(&found), "{found} is somebody else's, of {serials:?}");
        serials.push(found);
    }
}

/// B9, CVE-2025-23266: an image's variables must not reach a program of the host, and neither must the caller's or its files.
fn hooks_get_their_own_environment_and_files(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["env"] =
        json!(["LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil", "PATH=/evil:/bin", "BASH_ENV=/evil", "ENV=/evil"]);
    let moments = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let files = scene.tree("hooks", &[]);
    let mut hooks = json!({});
    for moment in moments {
        // Of what the shell starts: in the container's PID namespace, the host's /proc has another `$$`.
        let script =
            format!("cat /proc/self/environ > {0}; ls /proc/self/fd > {0}.files", files.join(moment).display());
        hooks[moment] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin", "A=of the hook"] }]);
    }
    bundle.config["hooks"] = hooks;
    bundle.command().env("CANARY", "of the caller").step(Step::LeakDescriptors(20)).run().success();
    for moment in moments {
        let read = |name: String| super::support::husk::read_host(files.join(name));
        let environment = read(moment.to_owned());
        let mut entries: Vec<&str> = environment.split_terminator('\0').collect();
        entries.retain(|entry| !entry.starts_with("PWD="));
        entries.sort_unstable();
        assert_eq!(entries, ["A=of the hook", "PATH=/usr/bin:/bin"], "{moment}");
        // The third is the directory that is listed; the caller's began there.
        let files = read(format!("{moment}.files"));
        let others: Vec<&str> = files.split_whitespace().filter(|fd| !["0", "1", "2", "3"].contains(fd)).collect();
        assert!(others.is_empty(), "{moment}: {others:?}");
    }
}

/// B8 and B10, CVE-2026-84042: what maps the ids of a user is a program of the system's, wherever PATH leads.
fn helpers_are_not_searched_for(scene: &Scene) {
    let marker = scene.path().join("marker");
    let script = format!("#!/bin/sh\necho \"$0\" >> {}\nexit 1\n", marker.display());
    let directory = scene.tree("evil", &[("newuidmap", &script), ("newgidmap", &script), ("sh", &script)]);
    for name in ["newuidmap", "newgidmap", "sh"] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(directory.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let bundle = scene.bundle();
    let path = format!("{}:/usr/bin:/bin", directory.display());
    let report = bundle.command().env("PATH", path).run().success().report();
    assert_ne!(report["uid_map"].as_array().map(Vec::len), Some(1), "the ids were mapped by the system's helper");
    assert!(!marker.exists(), "{}", super::support::husk::read_host(&marker));
}
