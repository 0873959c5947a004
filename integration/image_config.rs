//! What an image's configuration and the flags of `run` make of a process.

use serde_json::{Value, json};

use super::support::image::{Image, Layout};
use super::support::launch::Step;
use super::support::tar::Entry;
use super::support::tty::Terminal;
use super::support::{Need, Outcome, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(environment).and_plain(),
        test!(environment_of_the_caller_stays_outside).and_plain(),
        test!(malformed_environment_of_an_image),
        test!(entrypoint_and_command).and_plain(),
        test!(no_command_at_all).and_plain(),
        test!(users_by_name_and_number),
        test!(user_of_the_image),
        test!(bad_users_are_named).and_plain(),
        test!(working_directory).and_plain(),
        test!(volumes_of_the_image).and_plain(),
        test!(volumes_of_the_caller).and_plain(),
        test!(bad_volumes_are_named).and_plain(),
        test!(names).and_plain(),
        test!(bad_names_are_named).and_plain(),
        test!(removed_with_rm).and_plain(),
        test!(kept_without_rm).and_plain(),
        test!(standard_input).and_plain(),
        test!(terminal).and_plain(),
        test!(exit_statuses).and_plain(),
        test!(bad_usage_is_125).and_plain(),
        test!(signals_are_forwarded).and_plain(),
        test!(safe_defaults).and_plain(),
        test!(descriptors_of_the_caller_stay_outside).and_plain(),
        test!(umask_of_the_caller_stays_outside).and_plain(),
        test!(hostname_and_flags).and_plain(),
        test!(limits_are_set).root(),
        test!(labels_select_nothing),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// An image whose configuration is changed.
fn image(scene: &Scene, change: impl FnOnce(&mut Value)) -> Layout {
    let mut image = Image::probe(scene);
    change(&mut image.config);
    image.layout(scene, "layout")
}

fn plain(scene: &Scene) -> Layout {
    image(scene, |_| {})
}

/// `husk run --rm FLAGS IMAGE COMMAND`.
fn run(scene: &Scene, layout: &Layout, flags: &[&str], command: &[&str]) -> Outcome {
    scene.husk().args(["run", "--rm"]).args(flags).arg(layout.reference()).args(command).run()
}

fn environment(scene: &Scene) {
    let layout = image(scene, |config| config["Env"] = json!(["PATH=/bin:/x", "A=image", "B=image", "EMPTY="]));
    let mut command = scene.husk();
    command.env("FROM_CALLER", "passed").env("UNASKED", "secret").args(["run", "--rm"]);
    command.args(["-e", "A=flag", "-e", "FROM_CALLER", "-e", "NOT_SET", "--env", "C=x=y z"]).arg(layout.reference());
    let found = command.run().success().report()["env"].clone();
    for (name, value) in
        [("PATH", "/bin:/x"), ("A", "flag"), ("B", "image"), ("EMPTY", ""), ("FROM_CALLER", "passed"), ("C", "x=y z")]
    {
        assert_eq!(found[name], value, "{name}");
    }
    for name in ["UNASKED", "NOT_SET", "USER", "XDG_RUNTIME_DIR"] {
        assert_eq!(found[name], Value::Null, "{name}");
    }
    assert!(found["HOSTNAME"].is_string() && found["HOME"].is_string(), "{found}");
}

fn environment_of_the_caller_stays_outside(scene: &Scene) {
    let layout = plain(scene);
    let mut command = scene.husk();
    command.env("CANARY", "of the caller").args(["run", "--rm"]).arg(layout.reference());
    let found = command.run().success().report()["env"].clone();
    let mut names: Vec<&String> = found.as_object().unwrap().keys().collect();
    names.retain(|name| !["PATH", "HOME", "HOSTNAME", "TERM", "container"].contains(&name.as_str()));
    assert_eq!(names, Vec::<&String>::new());
}

/// CVE-2026-57231 and its kin: an entry without a value must not be filled from the host.
fn malformed_environment_of_an_image(scene: &Scene) {
    for entry in ["CANARY", "*", "=x", ""] {
        let layout = image(scene, |config| config["Env"] = json!(["PATH=/bin", entry]));
        let mut command = scene.husk();
        let outcome = command.env("CANARY", "of-the-caller").args(["run", "--rm"]).arg(layout.reference()).run();
        assert!(!outcome.stdout.contains("of-the-caller"), "{entry:?}: {}", outcome.stdout);
        if outcome.code() != 0 {
            outcome.exits_with(125).says("Env");
        }
    }
}

fn entrypoint_and_command(scene: &Scene) {
    // Entrypoint and Cmd of the image, flags, words typed, what is run.
    type Row<'a> = (&'a Value, &'a Value, &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let (probe, echo) = (json!(["/probe"]), json!(["--echo", "cmd"]));
    let none = Value::Null;
    let rows: [Row<'_>; 9] = [
        (&none, &json!(["/probe"]), &[], &[], &["/probe"]),
        (&probe, &none, &[], &[], &["/probe"]),
        (&probe, &echo, &[], &[], &["/probe", "--echo", "cmd"]),
        (&probe, &echo, &[], &["--echo", "typed"], &["/probe", "--echo", "typed"]),
        (&none, &echo, &[], &["/probe", "--echo", "typed"], &["/probe", "--echo", "typed"]),
        (&json!(["/bin/false"]), &echo, &["--entrypoint", "/probe"], &[], &["/probe"]),
        (&json!(["/bin/false"]), &echo, &["--entrypoint", "/probe"], &["--echo", "x"], &["/probe", "--echo", "x"]),
        (&json!(["/bin/false"]), &echo, &["--entrypoint", ""], &["/probe"], &["/probe"]),
        (&json!([]), &json!(["/probe", "--echo", "a b"]), &[], &[], &["/probe", "--echo", "a b"]),
    ];
    for (number, (entrypoint, command, flags, typed, expected)) in rows.into_iter().enumerate() {
        let layout = image(scene, |config| {
            config["Entrypoint"] = entrypoint.clone();
            config["Cmd"] = command.clone();
        });
        let outcome = run(scene, &layout, flags, typed).success();
        let report: Value = outcome.stdout.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap();
        assert_eq!(report["argv"], json!(expected), "row {number}");
    }
}

fn no_command_at_all(scene: &Scene) {
    let layout = image(scene, |config| config["Cmd"] = Value::Null);
    run(scene, &layout, &[], &[]).exits_with(125).says("command");
}

fn users_by_name_and_number(scene: &Scene) {
    let layout = Image::probe(scene)
        .layer(&[
            Entry::file(
                "etc/passwd",
                "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n42:x:4242:4343::/:/bin/sh\n",
            ),
            Entry::file("etc/group", "root:x:0:\nalice:x:1001:\nstaff:x:50:alice\naudio:x:29:alice,bob\n"),
        ])
        .layout(scene, "layout");
    let rows: [(&str, u32, u32, &[u32]); 9] = [
        ("0", 0, 0, &[0]),
        ("root", 0, 0, &[0]),
        ("1000", 1000, 1001, &[1001, 29, 50]),
        ("alice", 1000, 1001, &[1001, 29, 50]),
        ("alice:staff", 1000, 50, &[50]),
        ("alice:50", 1000, 50, &[50]),
        ("1000:2000", 1000, 2000, &[2000]),
        ("2000", 2000, 0, &[0]),
        // Digits are a number, whatever passwd calls a user.
        ("42", 42, 0, &[0]),
    ];
    for (user, uid, gid, groups) in rows {
        let report = run(scene, &layout, &["--user", user], &[]).success().report();
        assert_eq!(report["uid"], json!([uid, uid, uid, uid]), "{user}");
        assert_eq!(report["gid"], json!([gid, gid, gid, gid]), "{user}");
        // Whether the primary group is listed among the others is the same to the kernel.
        let mut found: Vec<u64> = report["groups"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        let mut expected: Vec<u64> = groups.iter().copied().map(u64::from).collect();
        for list in [&mut found, &mut expected] {
            list.retain(|id| *id != u64::from(gid));
            list.sort_unstable();
        }
        assert_eq!(found, expected, "{user}");
    }
    let report = run(scene, &layout, &["--user", "alice"], &[]).success().report();
    assert_eq!(report["env"]["HOME"], "/home/alice");
}

fn user_of_the_image(scene: &Scene) {
    let layout = image(scene, |config| config["User"] = json!("alice"));
    assert_eq!(run(scene, &layout, &[], &[]).success().report()["uid"][0], 1000);
    assert_eq!(run(scene, &layout, &["--user", "0"], &[]).success().report()["uid"][0], 0);
    // What is not root has no capabilities, by default.
    let report = run(scene, &layout, &[], &[]).success().report();
    assert_eq!(report["caps"]["effective"], "0000000000000000");
    assert_eq!(report["caps"]["inheritable"], "0000000000000000");
    assert_eq!(report["caps"]["ambient"], "0000000000000000");
}

/// CVE-2024-40635, CVE-2026-30892 and their kin: what is no user must never become root.
fn bad_users_are_named(scene: &Scene) {
    let layout = plain(scene);
    let bad = [
        "nobody-known",
        "4294967296",
        "4294967295",
        "-1",
        "+0",
        "0x0",
        " 0",
        "1:",
        ":1:",
        "root\n",
        "１",
        "alice:nogroup",
        "0:4294967295",
        "99999999999999999999",
        "1:1:1",
    ];
    for user in bad {
        let mut command = scene.husk();
        command.args(["run", "--rm", &format!("--user={user}")]).arg(layout.reference());
        let outcome = command.run().exits_with(125);
        assert!(["user", "group"].iter().any(|word| outcome.stderr.contains(word)), "{user:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{user:?}");
    }
}

fn working_directory(scene: &Scene) {
    let layout = image(scene, |config| config["WorkingDir"] = json!("/var/lib"));
    assert_eq!(run(scene, &layout, &[], &[]).success().report()["cwd"], "/var/lib");
    assert_eq!(run(scene, &layout, &["-w", "/etc"], &[]).success().report()["cwd"], "/etc");
    // docker and podman make one that is missing.
    assert_eq!(run(scene, &layout, &["-w", "/made/for/it"], &[]).success().report()["cwd"], "/made/for/it");
    run(scene, &layout, &["-w", "relative"], &[]).exits_with(125).says("relative");
    let layout = plain(scene);
    assert_eq!(run(scene, &layout, &[], &[]).success().report()["cwd"], "/");
}

fn volumes_of_the_image(scene: &Scene) {
    let mut image =
        Image::probe(scene).layer(&[Entry::directory("data").mode(0o1777), Entry::file("data/inside", "copied up")]);
    image.config["Volumes"] = json!({ "/data": {}, "/made/volume": {} });
    let layout = image.layout(scene, "layout");
    let probe = ["/probe", "--read", "/data/inside", "--try", "create:/data/new", "--stat", "/data"];
    for _ in 0..2 {
        let report = run(scene, &layout, &[], &probe).success().report();
        let mounts = report["mounts"].as_array().unwrap();
        for target in ["/data", "/made/volume"] {
            assert!(mounts.iter().any(|mount| mount["target"] == target), "{target} is no mount");
        }
        assert_eq!(report["reads"]["/data/inside"], "copied up");
        assert_eq!(report["stats"]["/data"]["mode"], "1777");
        assert_eq!(report["tries"]["create:/data/new"], "ok", "each container has volumes of its own");
    }
    // A volume of the caller's in the same place wins.
    let source = scene.tree("source", &[("inside", "of the caller")]);
    let flag = format!("{}:/data", source.display());
    let report = run(scene, &layout, &["-v", &flag], &probe).success().report();
    assert_eq!(report["reads"]["/data/inside"], "of the caller");
}

fn volumes_of_the_caller(scene: &Scene) {
    let source = scene.tree("source", &[("inside", "text"), ("file", "alone")]);
    let layout = plain(scene);
    let flag = |rest: &str| format!("{}{rest}", source.display());
    let probe = ["/probe", "--read", "/mnt/inside", "--try", "create:/mnt/new"];
    let report = run(scene, &layout, &["-v", &flag(":/mnt:ro")], &probe).success().report();
    assert_eq!(report["reads"]["/mnt/inside"], "text");
    assert_eq!(report["tries"]["create:/mnt/new"], "EROFS");
    let report = run(scene, &layout, &["--volume", &flag(":/mnt")], &probe).success().report();
    assert_eq!(report["tries"]["create:/mnt/new"], "ok");
    assert!(source.join("new").exists());
    let report =
        run(scene, &layout, &["-v", &flag("/file:/etc/alone")], &["/probe", "--read", "/etc/alone"]).success().report();
    assert_eq!(report["reads"]["/etc/alone"], "alone");
}

fn bad_volumes_are_named(scene: &Scene) {
    let layout = plain(scene);
    let source = scene.tree("source", &[]);
    let rows = [
        ("/no/such/source:/mnt".to_owned(), "/no/such/source"),
        (format!("{}:relative", source.display()), "relative"),
        (format!("{}:/mnt:sideways", source.display()), "sideways"),
        (format!("{}:/", source.display()), "/"),
        (":/mnt".to_owned(), ":/mnt"),
    ];
    for (volume, named) in rows {
        run(scene, &layout, &["-v", &volume], &[]).exits_with(125).says(named);
    }
}

fn names(scene: &Scene) {
    let layout = plain(scene);
    let mut command = scene.husk();
    command.args(["run", "--rm", "--name", "the-name"]).arg(layout.reference());
    let mut running = command.args(["/probe", "--quiet", "--catch"]).start();
    running.line_with("ready");
    run(scene, &layout, &["--name", "the-name"], &[]).exits_with(125).says("the-name");
    run(scene, &layout, &["--name", "another"], &["/bin/true"]).success();
    running.signal(rustix::process::Signal::TERM);
    running.finish().success();
    run(scene, &layout, &["--name", "the-name"], &["/bin/true"]).success();
}

fn bad_names_are_named(scene: &Scene) {
    let layout = plain(scene);
    for name in [".", "..", "a/b", "../../x", "a b", "a\nb", "-x", "é", &"x".repeat(300)] {
        let outcome = run(scene, &layout, &[&format!("--name={name}")], &[]).exits_with(125);
        assert!(outcome.stderr.contains("name"), "{name:?}: {}", outcome.stderr);
    }
}

/// Containers that the engine still knows.
fn kept(scene: &Scene) -> usize {
    std::fs::read_dir(scene.store().join("containers")).map_or(0, Iterator::count)
}

fn removed_with_rm(scene: &Scene) {
    let layout = plain(scene);
    for command in [&["/bin/true"][..], &["/bin/false"], &["/no/such/program"], &["/etc/passwd"]] {
        run(scene, &layout, &["--name", "again"], command);
        assert_eq!(kept(scene), 0, "{command:?}");
    }
}

fn kept_without_rm(scene: &Scene) {
    let layout = plain(scene);
    let mut command = scene.husk();
    command.args(["run", "--name", "stays"]).arg(layout.reference()).arg("/bin/false").run().exits_with(1);
    assert_eq!(kept(scene), 1);
    run(scene, &layout, &["--name", "stays"], &["/bin/true"]).exits_with(125).says("stays");
}

fn standard_input(scene: &Scene) {
    let layout = plain(scene);
    let mut command = scene.husk();
    command.args(["run", "--rm", "-i"]).arg(layout.reference()).arg("/bin/cat");
    assert_eq!(command.input("typed").run().success().stdout, "typed");
    let mut command = scene.husk();
    command.args(["run", "--rm"]).arg(layout.reference()).arg("/bin/cat");
    assert_eq!(command.input("typed").run().success().stdout, "", "without -i there is no input");
    let outcome = run(scene, &layout, &[], &["/probe", "--quiet", "--echo", "out", "--error", "err"]).success();
    assert_eq!(outcome.stdout, "out\n");
    assert!(outcome.stderr.ends_with("err\n"));
}

fn terminal(scene: &Scene) {
    let layout = plain(scene);
    let pty = Terminal::open(33, 99);
    let before = pty.modes();
    let mut command = scene.husk();
    command.args(["run", "--rm", "-t", "-i"]).arg(layout.reference());
    command.args(["/bin/sh", "-c", "stty size; tty; read line; echo got $line; exit 5"]);
    let mut running = pty.start(&mut command);
    assert_eq!(running.line_with("33"), "33 99");
    running.line_with("/dev/");
    assert!(pty.is_raw());
    pty.send("keys\r");
    running.line_with("got keys");
    running.finish().exits_with(5);
    assert_eq!(pty.modes(), before);
}

fn exit_statuses(scene: &Scene) {
    let layout = Image::probe(scene)
        .layer(&[
            Entry::file("not-executable", "#!/bin/sh\n"),
            Entry::program("bad-interpreter", "#!/no/such/interpreter\n"),
            Entry::program("garbage", "\u{7f}ELF garbage"),
        ])
        .layout(scene, "layout");
    let rows: [(&[&str], i32, &str); 8] = [
        (&["/no/such/program"], 127, "/no/such/program"),
        (&["no-such-program"], 127, "no-such-program"),
        (&["/not-executable"], 126, "/not-executable"),
        (&["/etc"], 126, "/etc"),
        (&["/garbage"], 126, "garbage"),
        (&["/bad-interpreter"], 127, "bad-interpreter"),
        (&["/etc/passwd/x"], 127, "/etc/passwd/x"),
        (&["/probe", "--quiet", "--exit", "77"], 77, ""),
    ];
    for (command, code, named) in rows {
        let outcome = run(scene, &layout, &[], command);
        // docker gives 127 for a missing interpreter too, podman 126 or 127: either tells the caller enough.
        if command == ["/bad-interpreter"] || command == ["/etc/passwd/x"] {
            assert!([126, 127].contains(&outcome.code()), "{command:?}: {}", outcome.code());
        } else {
            assert_eq!(outcome.code(), code, "{command:?}: {}", outcome.stderr);
        }
        assert!(outcome.stderr.contains(named), "{command:?}: {}", outcome.stderr);
    }
    run(scene, &layout, &[], &["/bin/sh", "-c", "/probe --quiet --signal 15; exit $?"]).exits_with(143);
}

fn bad_usage_is_125(scene: &Scene) {
    let layout = plain(scene);
    for arguments in [
        &["run"][..],
        &["run", "--no-such-flag", "host:"],
        &["run", "--rm", "no-such-transport:x"],
        &["run", "--rm", "Plain/Name:of-no-image"],
        &["run", "--rm", "oci:/no/such/layout"],
        &["run", "--memory", "lots", "host:", "true"],
        &["run", "--cpus", "-1", "host:", "true"],
        &["run", "-e", "=x", "host:", "true"],
        &["no-such-command"],
    ] {
        let outcome = scene.husk().args(arguments).run();
        assert_eq!(outcome.code(), 125, "{arguments:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.trim().is_empty(), "{arguments:?}");
        assert_eq!(outcome.stdout, "", "{arguments:?}");
    }
    scene
        .husk()
        .args(["run", "--rm", &format!("oci:{}:absent", layout.directory.display())])
        .run()
        .exits_with(125)
        .says("absent");
}

fn signals_are_forwarded(scene: &Scene) {
    use rustix::process::Signal;
    let layout = plain(scene);
    let mut command = scene.husk();
    let mut running =
        command.args(["run", "--rm"]).arg(layout.reference()).args(["/probe", "--quiet", "--catch"]).start();
    running.line_with("ready");
    for (signal, name) in
        [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")]
    {
        running.signal(signal);
        assert_eq!(running.line(), name);
    }
    running.finish().success();
}

/// What nobody asked for is not given.
fn safe_defaults(scene: &Scene) {
    let layout = plain(scene);
    let attempts = [
        "mount:/tmp",
        "unshare:268435456",
        "socket:38",
        "socket:40",
        "syscall:250:0",
        "syscall:321:0",
        "syscall:304:0",
        "open:/proc/kcore",
        "write:/proc/sys/kernel/core_pattern",
        "write:/proc/sysrq-trigger",
        "chroot:/proc/1/root/..",
        "sethostname:x",
        "mknod-block:/tmp/disk:254:0",
    ];
    let mut command = vec!["/probe", "--list", "/proc/acpi", "--list", "/sys/firmware"];
    command.extend(attempts.iter().flat_map(|attempt| ["--try", attempt]));
    let report = run(scene, &layout, &[], &command).success().report();
    for attempt in &attempts[..attempts.len() - 1] {
        if attempt.starts_with("chroot") {
            continue; // Allowed, and leads nowhere.
        }
        assert_ne!(report["tries"][attempt], "ok", "{attempt}");
    }
    assert_eq!(report["seccomp"], 2, "a filter is on by default");
    assert_eq!(report["no_new_privs"].as_bool().map(|_| ()), Some(()));
    // The fourteen of docker, or fewer.
    let docker = 0x0000_0000_a804_25fb_u64;
    let bounding = u64::from_str_radix(report["caps"]["bounding"].as_str().unwrap(), 16).unwrap();
    assert_eq!(bounding & !docker, 0, "{bounding:x}");
    assert_eq!(report["caps"]["inheritable"], "0000000000000000");
    for (name, namespace) in [("pid", "pid"), ("mnt", "mnt"), ("ipc", "ipc"), ("uts", "uts"), ("net", "net")] {
        let ours = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert_ne!(report["namespaces"][name], json!(ours), "{name}");
    }
    assert!(["EPERM", "EACCES", "ENOENT", ""].contains(&report["lists"]["/sys/firmware"].as_str().unwrap_or("")));
}

fn descriptors_of_the_caller_stay_outside(scene: &Scene) {
    let layout = plain(scene);
    let mut command = scene.husk();
    command.args(["run", "--rm"]).arg(layout.reference()).step(Step::LeakDescriptors(50));
    let report = command.run().success().report();
    let mut numbers: Vec<&String> = report["fds"].as_object().unwrap().keys().collect();
    numbers.sort();
    assert_eq!(numbers, ["0", "1", "2"]);
}

fn umask_of_the_caller_stays_outside(scene: &Scene) {
    let layout = plain(scene);
    let mut command = scene.husk();
    command.args(["run", "--rm"]).arg(layout.reference()).step(Step::Umask(0o077));
    assert_eq!(command.run().success().report()["umask"], "22");
}

fn hostname_and_flags(scene: &Scene) {
    let layout = plain(scene);
    let report = run(scene, &layout, &["--hostname", "given", "--read-only"], &["/probe", "--try", "create:/new"])
        .success()
        .report();
    assert_eq!(report["hostname"], "given");
    assert_eq!(report["tries"]["create:/new"], "EROFS");
    // Twelve digits of the id, as docker has it.
    let name = run(scene, &layout, &[], &[]).success().report()["hostname"].as_str().unwrap().to_owned();
    assert!(name.len() == 12 && name.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
}

fn limits_are_set(scene: &Scene) {
    if Need::CgroupV1("memory").missing(Who::Root).is_some() {
        return;
    }
    let layout = plain(scene);
    let flags = ["--memory", "32m", "--memory-swap", "32m", "--pids-limit", "9"];
    let outcome = run(scene, &layout, &flags, &["/probe", "--quiet", "--eat", "128"]);
    outcome.exits_with(137);
    let report = run(scene, &layout, &["--pids-limit", "1"], &["/probe", "--try", "exec:/probe"]).success().report();
    assert_eq!(report["tries"]["exec:/probe"], "EAGAIN");
}

/// CVE-2026-94603, CVE-2026-53488 and their kin: what an image says of itself steers nothing.
fn labels_select_nothing(scene: &Scene) {
    let usual = run(scene, &plain(scene), &[], &[]).success().report();
    let labelled = image(scene, |config| {
        config["Labels"] = json!({
            "io.podman.annotations.privileged": "TRUE",
            "org.systemd.property.MemoryMax": "1",
            "run.oci.handler": "krun",
            "io.container.manager": "libpod",
            "husk.privileged": "true",
            "org.opencontainers.image.title": "harmless",
        });
        config["StopSignal"] = json!("SIGQUIT");
        config["ExposedPorts"] = json!({ "80/tcp": {} });
    });
    let found = run(scene, &labelled, &[], &[]).success().report();
    for field in ["caps", "no_new_privs", "seccomp", "uid", "gid", "groups", "rlimits", "cwd", "umask", "oom_score_adj"]
    {
        assert_eq!(found[field], usual[field], "{field}");
    }
    assert_eq!(found["mounts"].as_array().unwrap().len(), usual["mounts"].as_array().unwrap().len());
}
