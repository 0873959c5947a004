//! The flags of `run`, seen from inside the container.

use super::support::image::{Image, Layout};
use super::support::scene::write;
use super::support::{Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(environment_files_and_changes).and_plain(),
        test!(proxies_are_passed_on).and_plain(),
        test!(names_of_hosts).and_plain(),
        test!(mounts_by_key_and_value).and_plain(),
        test!(tmpfs_and_read_only).and_plain(),
        test!(layers_over_volumes),
        test!(volumes_of_the_user),
        test!(privileged_is_hidden_nothing).and_plain(),
        test!(security_options).and_plain(),
        test!(a_seccomp_profile_from_a_file).and_plain(),
        test!(devices_are_given).and_plain(),
        test!(namespaces_of_the_host).and_plain(),
        test!(limits_of_processes).and_plain(),
        test!(time_zones).and_plain(),
        test!(labels_and_annotations).and_plain(),
        test!(switches_have_values).and_plain(),
        test!(streams_are_asked_for).and_plain(),
        test!(users_get_a_line).and_plain(),
        test!(ids_in_files).and_plain(),
        test!(a_directory_as_root).root(),
        test!(platforms).and_plain(),
        test!(descriptors_are_passed_on).and_plain(),
        test!(namespaces_of_another_container).and_plain(),
        test!(what_is_not_served_is_named).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn layout(scene: &Scene) -> Layout {
    Image::probe(scene).layout(scene, "layout")
}

/// `husk run --rm FLAGS IMAGE sh -c SCRIPT`.
fn shell(scene: &Scene, layout: &Layout, flags: &[&str], script: &str) -> Outcome {
    let mut command = scene.husk();
    command.args(["run", "--rm"]).args(flags).arg(layout.reference());
    command.args(["/bin/busybox", "sh", "-c", script]).run()
}

/// What the script printed, by line.
fn lines(scene: &Scene, layout: &Layout, flags: &[&str], script: &str) -> Vec<String> {
    shell(scene, layout, flags, script).success().stdout.lines().map(str::to_owned).collect()
}

fn environment_files_and_changes(scene: &Scene) {
    let layout = layout(scene);
    let directory = scene.tree("files", &[("one", "A=file\n# comment\nB=x y\nFROM_CALLER\n"), ("two", "A=second\n")]);
    let file = |name: &str| directory.join(name).display().to_string();
    let (one, two) = (file("one"), file("two"));
    let mut command = scene.husk();
    command.env("FROM_CALLER", "passed").args(["run", "--rm", "--env-file", &one, "--env-file", &two, "-e", "C=flag"]);
    command.args(["--env-merge", "PATH=${PATH}:/more", "--unsetenv", "HOSTNAME"]).arg(layout.reference());
    let outcome = command.args(["/bin/busybox", "env"]).run().success();
    let mut found: Vec<&str> = outcome.stdout.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["A=second", "B=x y", "C=flag", "FROM_CALLER=passed", "HOME=/root", "PATH=/bin:/usr/bin:/more"]);
    shell(scene, &layout, &["--env-file", "/nowhere"], "true").exits_with(125).says("environment file /nowhere");
    // Not cut off somewhere; and one that can be read, but makes a description that nobody could.
    write(&directory.join("two"), "X=y\n".repeat(5 << 20));
    shell(scene, &layout, &["--env-file", &two], "true").exits_with(125).says("larger than 16777216 bytes");
    write(&directory.join("two"), format!("X={}\n", "\u{1}".repeat(4 << 20)));
    shell(scene, &layout, &["--env-file", &two], "true").exits_with(125).says("the container's description has");
    assert_eq!(scene.husk().args(["ps", "-aq"]).run().success().stdout, "");
}

fn proxies_are_passed_on(scene: &Scene) {
    let layout = layout(scene);
    let proxy = |flags: &[&str]| {
        let mut command = scene.husk();
        command.env("https_proxy", "http://proxy:1").args(["run", "--rm"]).args(flags).arg(layout.reference());
        command.args(["/bin/busybox", "sh", "-c", "echo $https_proxy"]).run().success().stdout
    };
    assert_eq!(proxy(&[]), "http://proxy:1\n");
    assert_eq!(proxy(&["-e", "https_proxy=http://other:2"]), "http://other:2\n");
    assert_eq!(proxy(&["--http-proxy=false"]), "\n");
}

fn names_of_hosts(scene: &Scene) {
    let layout = layout(scene);
    let flags = ["-h", "web", "--add-host", "db:10.0.0.7", "--add-host", "six=[fe80::1]", "--dns", "9.9.9.9"];
    let more = ["--dns-search", "example.org", "--dns-option", "ndots:3"];
    let script = "busybox cat /etc/hosts /etc/hostname /etc/resolv.conf && echo more >> /etc/hosts && busybox hostname";
    let found = lines(scene, &layout, &[flags.as_slice(), &more].concat(), script);
    let expected = [
        "127.0.0.1\tlocalhost",
        "127.0.1.1\tweb",
        "10.0.0.7\tdb",
        "fe80::1\tsix",
        "web",
        "nameserver 9.9.9.9",
        "search example.org",
        "options ndots:3",
    ];
    for line in expected {
        assert!(found.iter().any(|found| found == line), "{line} is not in {found:?}");
    }
    let read_only = "busybox touch /etc/hosts";
    shell(scene, &layout, &["--read-only"], read_only).exits_with(1).says("Read-only");
    let own = lines(scene, &layout, &["--no-hosts", "--no-hostname", "--dns", "none"], "busybox mount");
    assert!(!own.iter().any(|line| line.contains(" /etc/")), "{own:?}");
    shell(scene, &layout, &["--add-host", "a b:1.2.3.4"], "true").exits_with(125).says("add-host");
    shell(scene, &layout, &["--add-host", "h:host-gateway"], "true").exits_with(125).says("host-gateway");
}

fn mounts_by_key_and_value(scene: &Scene) {
    let layout = layout(scene);
    let source = scene.tree("source", &[("file", "content\n"), ("below/deep", "deep\n")]);
    let source = source.display();
    for (mount, script, expected) in [
        ("type=bind,source={},target=/m", "busybox cat /m/file && echo x > /m/new && echo written", "content written"),
        (
            "type=bind,src={},dst=/m,readonly",
            "busybox cat /m/below/deep; echo x > /m/new || echo refused",
            "deep refused",
        ),
        ("type=bind,src={}/file,dst=/m", "busybox cat /m", "content"),
        ("type=bind,src={},subpath=below,dst=/m", "busybox ls /m", "deep"),
        (
            "type=tmpfs,target=/m,tmpfs-mode=1770,tmpfs-size=1m",
            "busybox stat -c %a /m; busybox df /m | busybox awk 'END {print $2}'",
            "1770 1024",
        ),
        ("type=volume,target=/m", "echo x > /m/new && echo written", "written"),
    ] {
        let mount = mount.replace("{}", &source.to_string());
        let found = shell(scene, &layout, &["--mount", &mount], script);
        assert_eq!(found.stdout.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{mount}");
    }
    let missing = format!("type=bind,source={source}/none,target=/m");
    shell(scene, &layout, &["--mount", &missing], "true").exits_with(125).says("/none");
    let made = format!("{missing},bind-create-src");
    shell(scene, &layout, &["--mount", &made], "busybox test -d /m").success();
}

fn tmpfs_and_read_only(scene: &Scene) {
    let layout = layout(scene);
    let script = "busybox mount | busybox grep ' /scratch '; for d in /scratch /run /tmp /var/tmp /x; do \
                  busybox touch $d/new 2> /dev/null && echo $d; done; true";
    let found =
        lines(scene, &layout, &["--read-only", "--read-only-tmpfs", "--tmpfs", "/scratch:size=1m,exec"], script);
    assert!(found[0].contains("nosuid,nodev") && !found[0].contains("noexec"), "{found:?}");
    assert_eq!(found[1..], ["/scratch", "/run", "/tmp", "/var/tmp"]);
    let found = lines(scene, &layout, &["--read-only"], "busybox touch /tmp/new 2> /dev/null || echo refused");
    assert_eq!(found, ["refused"]);
}

fn layers_over_volumes(scene: &Scene) {
    let layout = layout(scene);
    let source = scene.tree("source", &[("file", "content\n")]);
    let volume = format!("{}:/m:O", source.display());
    let found =
        lines(scene, &layout, &["-v", &volume], "echo new > /m/file && echo x > /m/other && busybox cat /m/file");
    assert_eq!(found, ["new"]);
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "content\n");
    assert!(!source.join("other").exists());
}

fn volumes_of_the_user(scene: &Scene) {
    let layout = layout(scene);
    let source = scene.tree("source", &[("below/file", "content\n")]);
    let volume = format!("{}:/m:U", source.display());
    let script = "busybox stat -c %u:%g /m /m/below /m/below/file && echo x > /m/below/file";
    let found = lines(scene, &layout, &["-u", "7:8", "-v", &volume], script);
    assert_eq!(found, ["7:8", "7:8", "7:8"]);
}

fn privileged_is_hidden_nothing(scene: &Scene) {
    let layout = layout(scene);
    let script = "busybox grep Seccomp: /proc/self/status; busybox mount | busybox grep -c ' /proc/.*ro,'; \
                  busybox mount | busybox grep ' /sys '; busybox grep CapEff /proc/self/status";
    let found = lines(scene, &layout, &["--privileged"], script);
    assert_eq!(found[..2], ["Seccomp:\t0", "0"]);
    assert!(found[2].contains("(rw,"), "{}", found[2]);
    let capabilities = u64::from_str_radix(found[3].split_whitespace().last().unwrap(), 16).unwrap();
    assert_ne!(capabilities & 1 << 21, 0, "CAP_SYS_ADMIN");
    let dropped =
        lines(scene, &layout, &["--privileged", "--cap-drop", "SYS_ADMIN"], "busybox grep CapEff /proc/self/status");
    let capabilities = u64::from_str_radix(dropped[0].split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(capabilities & 1 << 21, 0, "CAP_SYS_ADMIN");
}

fn security_options(scene: &Scene) {
    let layout = layout(scene);
    let status = "busybox grep -E 'NoNewPrivs|Seccomp:' /proc/self/status";
    for (flags, expected) in [
        (&["--security-opt", "no-new-privileges", "--security-opt", "label=disable"][..], "1 2"),
        (&["--security-opt", "seccomp=unconfined"], "0 0"),
        (&["--security-opt=apparmor=unconfined", "--security-opt", "seccomp=builtin"], "0 2"),
    ] {
        let found = lines(scene, &layout, flags, status);
        let values: Vec<&str> = found.iter().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(values.join(" "), expected, "{flags:?}");
    }
    let masked = lines(scene, &layout, &["--security-opt", "mask=/probe:/etc/passwd"], "busybox wc -c < /etc/passwd");
    assert_eq!(masked[0].trim(), "0");
    let shown = "busybox mount | busybox grep -c -E ' (/proc/keys|/proc/kcore) '";
    assert_ne!(lines(scene, &layout, &[], shown), ["0"]);
    assert_eq!(shell(scene, &layout, &["--security-opt", "unmask=/proc/k*"], shown).stdout, "0\n");
    assert_eq!(shell(scene, &layout, &["--security-opt", "systempaths=unconfined"], shown).stdout, "0\n");
    shell(scene, &layout, &["--security-opt", "magic=1"], "true").exits_with(125).says("magic=1");
}

fn a_seccomp_profile_from_a_file(scene: &Scene) {
    let layout = layout(scene);
    let profile = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64"}, {"architecture": "SCMP_ARCH_AARCH64"}],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": [], "includes": {}, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["unlink", "unlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "includes": {"caps": ["CAP_SYS_ADMIN"]}}
        ]
    }"#;
    let directory = scene.tree("profiles", &[("one.json", profile), ("bad.json", "{}")]);
    let flag = |name: &str| format!("seccomp={}", directory.join(name).display());
    let script = "busybox mkdir /tmp/x; echo > /tmp/y && busybox rm /tmp/y && echo removed";
    let outcome = shell(scene, &layout, &["--security-opt", &flag("one.json")], script).success();
    assert_eq!(outcome.stdout, "removed\n");
    outcome.says("No space left");
    shell(scene, &layout, &["--security-opt", &flag("bad.json")], "true").exits_with(125).says("defaultAction");
    shell(scene, &layout, &["--security-opt", &flag("none.json")], "true").exits_with(125).says("none.json");
}

fn devices_are_given(scene: &Scene) {
    let layout = layout(scene);
    let script = "echo x > /dev/other && busybox stat -c %F /dev/other";
    assert_eq!(lines(scene, &layout, &["--device", "/dev/null:/dev/other"], script), ["character special file"]);
    shell(scene, &layout, &["--device", "/dev/no-such"], "true").exits_with(125).says("/dev/no-such");
    shell(scene, &layout, &["--device", "/etc/passwd"], "true").exits_with(125).says("not a device node");
    shell(scene, &layout, &["--device-cgroup-rule", "c 1"], "true").exits_with(125).says("device-cgroup-rule");
}

fn namespaces_of_the_host(scene: &Scene) {
    let layout = layout(scene);
    let script = "for n in pid ipc uts net; do busybox readlink /proc/self/ns/$n; done";
    let flags = ["--pid", "host", "--ipc=host", "--uts", "host", "--network", "host"];
    let ours = ["pid", "ipc", "uts", "net"].map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap());
    let found = lines(scene, &layout, &flags, script);
    assert_eq!(found, ours.map(|name| name.display().to_string()));
    let path = "ns:/proc/self/ns/uts";
    assert_eq!(lines(scene, &layout, &["--ipc", "shareable", "--pid=private"], script).len(), 4);
    shell(scene, &layout, &["--uts", path, "--hostname", "x"], "true").exits_with(125).says("hostname");
    shell(scene, &layout, &["--pid", "container:none"], "true").exits_with(125).says("none");
    shell(scene, &layout, &["--ipc", "magic"], "true").exits_with(125).says("magic");
}

fn limits_of_processes(scene: &Scene) {
    let layout = layout(scene);
    let flags =
        ["--ulimit", "nofile=99:100", "--oom-score-adj", "500", "--sysctl", "kernel.msgmax=9000", "--shm-size=1m"];
    let script = "ulimit -n; ulimit -H -n; busybox cat /proc/self/oom_score_adj /proc/sys/kernel/msgmax; \
                  busybox df /dev/shm | busybox awk 'END {print $2}'; umask";
    let found = lines(scene, &layout, &[flags.as_slice(), &["--umask", "0077"]].concat(), script);
    assert_eq!(found, ["99", "100", "500", "9000", "1024", "0077"]);
    shell(scene, &layout, &["--ulimit", "nofile=2:1"], "true").exits_with(125).says("nofile=2:1");
    shell(scene, &layout, &["--oom-score-adj", "2000"], "true").exits_with(125).says("oom-score-adj");
}

fn time_zones(scene: &Scene) {
    let layout = layout(scene);
    shell(scene, &layout, &["--tz", "Atlantis/Capital"], "true").exits_with(125).says("Atlantis/Capital");
    shell(scene, &layout, &["--tz", "../../etc/passwd"], "true").exits_with(125).says("timezone");
    if std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        let found = lines(scene, &layout, &["--tz", "Asia/Tokyo"], "busybox tail -n 1 /etc/localtime");
        assert_eq!(found, ["JST-9"]);
    }
}

fn labels_and_annotations(scene: &Scene) {
    let layout = layout(scene);
    let directory = scene.tree("files", &[("labels", "one=1\n# no\ntwo\n")]);
    let file = directory.join("labels").display().to_string();
    let flags =
        ["--label-file", &file, "-l", "three=3=3", "--label", "one=flag", "--annotation", "org.example.key=value"];
    let mut command = scene.husk();
    command.args(["run", "--name", "labelled"]).args(flags).arg(layout.reference());
    command.args(["/bin/busybox", "true"]).run().success();
    let containers = std::fs::read_dir(scene.store().join("containers")).unwrap();
    let folder = containers.map(|entry| entry.unwrap().path()).next().unwrap();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    };
    assert_eq!(read("record.json")["labels"], serde_json::json!({"one": "flag", "two": "", "three": "3=3"}));
    assert_eq!(read("bundle/config.json")["annotations"]["org.example.key"], "value");
}

fn switches_have_values(scene: &Scene) {
    let layout = layout(scene);
    let mut command = scene.husk();
    command.args(["run", "--rm=true", "-i=false", "--read-only=0", "--privileged=f"]).arg(layout.reference());
    command.args(["/bin/busybox", "touch", "/new"]).run().success();
}

fn what_is_not_served_is_named(scene: &Scene) {
    let layout = layout(scene);
    for (flags, name) in [
        (&["--network", "pasta"][..], "network pasta"),
        (&["--link-local-ip", "169.254.0.2"], "--link-local-ip"),
        (&["--link", "db"], "--link"),
        (&["--pod", "p"], "--pod"),
        (&["--secret", "s"], "no such secret: s"),
        (&["--log-driver", "syslog"], "syslog"),
        (&["--log-opt", "max-file=1001"], "not a number from 1 to 1000"),
        (&["--stop-signal", "0"], "not a signal"),
        (&["--security-opt", "label=type:x"], "label=type:x"),
        (&["--restart", "always"], "--restart and --rm"),
    ] {
        shell(scene, &layout, flags, "true").exits_with(125).says(name);
    }
}

fn streams_are_asked_for(scene: &Scene) {
    let layout = layout(scene);
    let script = "busybox cat; echo out; echo err >&2; exit 3";
    let run = |flags: &[&str]| {
        let mut command = scene.husk();
        command.args(["run", "--rm"]).args(flags).arg(layout.reference());
        let outcome = command.args(["/bin/busybox", "sh", "-c", script]).input("in\n").run().exits_with(3);
        let last = outcome.stderr.lines().last().unwrap_or_default().to_owned();
        (outcome.stdout, last.ends_with("err"))
    };
    assert_eq!(run(&["-a", "stdout"]), ("out\n".to_owned(), false));
    assert_eq!(run(&["-a", "stderr", "-a", "STDIN", "-i"]), (String::new(), true));
    assert_eq!(run(&["-i", "-a", "stdin", "-a", "stdout", "--log-driver", "none"]), ("in\nout\n".to_owned(), false));
    shell(scene, &layout, &["-d", "-a", "stdout"], "true").exits_with(125).says("--attach and --detach");
    shell(scene, &layout, &["-a", "stdlog"], "true").exits_with(125).says("stdlog");
    let mut create = scene.husk();
    create.args(["create", "--name", "streams", "-a", "stderr"]).arg(layout.reference());
    create.args(["/bin/busybox", "sh", "-c", "echo out; echo err >&2"]).run().success();
    let started = scene.husk().args(["start", "-a", "streams"]).run().success();
    assert_eq!((started.stdout.as_str(), started.stderr.lines().last()), ("", Some("err")));
    let format = "{{.Config.AttachStdout}} {{.Config.AttachStderr}}";
    assert_eq!(scene.husk().args(["inspect", "-f", format, "streams"]).run().success().stdout, "false true\n");
    assert_eq!(scene.husk().args(["logs", "streams"]).run().success().stdout, "out\n", "the log has all of it");
    scene.husk().args(["rm", "streams"]).run().success();
}

fn users_get_a_line(scene: &Scene) {
    let layout = layout(scene);
    let passwd = ["-u", "0:77", "--group-entry", "staff:x:$GID:$USERNAME"];
    let found = lines(scene, &layout, &passwd, "busybox tail -n 1 /etc/group; busybox id -gn");
    assert_eq!(found, ["staff:x:77:0", "staff"]);
    shell(scene, &layout, &["--passwd-entry", "x:y", "-u", "4242"], "true").exits_with(125).says("7 fields");
}

fn ids_in_files(scene: &Scene) {
    let layout = layout(scene);
    let file = |name: &str| scene.path().join(name).display().to_string();
    let (id, pid) = (file("id"), file("pid"));
    let script = "busybox cat /proc/self/cgroup > /dev/null; busybox hostname";
    let hostname = shell(scene, &layout, &["--cidfile", &id, "--pidfile", &pid], script).success().stdout;
    let written = std::fs::read_to_string(&id).unwrap();
    assert!(written.len() == 64 && written.starts_with(hostname.trim()), "{written} {hostname}");
    assert!(std::fs::read_to_string(&pid).unwrap().trim().parse::<u32>().unwrap() > 1);
    shell(scene, &layout, &["--cidfile", &id], "true").exits_with(125).says("container ID file found");
}

fn a_directory_as_root(scene: &Scene) {
    let root = scene.bundle();
    let path = root.rootfs("").display().to_string();
    let mut command = scene.husk();
    command.args(["run", "--rm", "--rootfs", &path, "/bin/busybox", "touch", "/written"]).run().success();
    assert!(root.rootfs("written").exists());
    scene.husk().args(["run", "--rootfs", "/nowhere", "true"]).run().exits_with(125).says("/nowhere");
}

fn platforms(scene: &Scene) {
    let layout = layout(scene);
    let own = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    shell(scene, &layout, &["--platform", own], "true").success();
    shell(scene, &layout, &["--platform", "linux/"], "true").exits_with(125).says("platform");
}

fn descriptors_are_passed_on(scene: &Scene) {
    let layout = layout(scene);
    let script = format!(
        "exec \"$0\" run --rm --preserve-fds 1 '{}' /bin/busybox sh -c 'echo passed >&3' 3>&1 > /dev/null",
        layout.reference()
    );
    let husk = &super::support::suite::kit().husk;
    let mut command = scene.program("/bin/sh");
    command.env("HUSK_DATA_ROOT", scene.store()).env("HUSK_RUN_ROOT", scene.run_root());
    assert_eq!(command.args(["-c", &script]).arg(husk).run().success().stdout, "passed\n");
}

fn namespaces_of_another_container(scene: &Scene) {
    let layout = layout(scene);
    let script = "busybox readlink /proc/self/ns/pid; busybox readlink /proc/self/ns/uts; busybox cat";
    let mut command = scene.husk();
    command.args(["run", "--rm", "-i", "--name", "first"]).arg(layout.reference());
    let mut first = command.args(["/bin/busybox", "sh", "-c", script]).start();
    let own = [first.line(), first.line()];
    let flags = ["--pid", "container:first", "--uts", "container:first"];
    let found = lines(scene, &layout, &flags, "busybox readlink /proc/self/ns/pid; busybox readlink /proc/self/ns/uts");
    assert_eq!(found, own);
    first.close_input();
    first.finish().success();
    shell(scene, &layout, &["--pid", "container:first"], "true").exits_with(125).says("first");
}
