//! The commands that show containers: `ps`, `inspect`, and what scripts ask of them.

use serde_json::{Value, json};

use super::containers_files::{husk, ran, running, stored};
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(ps_shows_each_state_in_dockers_words).and_plain(),
        test!(ps_filters_as_docker_and_podman_do),
        test!(ps_clears_and_shows_what_a_killed_supervisor_left),
        test!(inspect_has_dockers_shape).and_plain(),
        test!(inspect_finds_containers_before_images),
        test!(templates_of_scripts_work),
        test!(containers_are_measured).and_plain(),
        test!(stopped_containers_are_pruned),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

#[track_caller]
fn says(scene: &Scene, words: &[&str]) -> String {
    husk(scene, words).run().success().stdout
}

#[track_caller]
fn inspected(scene: &Scene, word: &str) -> Value {
    let text = says(scene, &["inspect", word]);
    let Value::Array(mut list) = serde_json::from_str(&text).expect("JSON") else { panic!("no list: {text}") };
    list.pop().expect("one container")
}

fn ps_shows_each_state_in_dockers_words(scene: &Scene) {
    let image = stored(scene, &[]);
    says(scene, &["create", "--name", "made", image, "/bin/true"]);
    ran(scene, "done", image, "true");
    husk(scene, ["run", "--name", "failed", image, "/bin/sh", "-c", "exit 3"]).run().exits_with(3);
    let live = running(scene, "live", &[], image, "");
    let words = |all: &[&str]| {
        let text = says(scene, &[&["ps", "--format", "{{.Names}} {{.State}} {{.Status}}"], all].concat());
        text.lines()
            .map(|line| line.split(" Less than a second").next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let up = |line: &str| line.starts_with("live running Up");
    assert!(matches!(words(&[]).as_slice(), [line] if up(line)), "{:?}", words(&[]));
    let all = words(&["-a"]);
    assert!(up(&all[0]) && all[1].starts_with("failed exited Exited (3)"), "{all:?}");
    assert!(all[2].starts_with("done exited Exited (0)") && all[3] == "made created Created", "{all:?}");
    assert_eq!(words(&["-n", "2"]).len(), 2);
    assert_eq!(words(&["--last", "-1"]).len(), 1);
    assert!(words(&["-l"])[0].starts_with("live"));
    let table = says(scene, &["ps"]);
    assert!(table.starts_with("CONTAINER ID   IMAGE            COMMAND"), "{table}");
    // The freezer takes a delegated cgroup.
    if husk(scene, ["pause", "live"]).run().code() == 0 {
        let paused = words(&[]);
        assert!(paused[0].starts_with("live paused Up") && says(scene, &["ps"]).contains(" (Paused)"), "{paused:?}");
        assert_eq!(inspected(scene, "live")["State"]["Status"], "paused");
        says(scene, &["unpause", "live"]);
    }
    live.finish().success();
}

fn ps_filters_as_docker_and_podman_do(scene: &Scene) {
    let image = stored(scene, &[]);
    let tree = scene.tree("data", &[]);
    let volume = format!("{}:/data", tree.display());
    says(scene, &["create", "--name", "web-1", "-v", &volume, image, "/bin/true"]);
    ran(scene, "web-2", image, "true");
    husk(scene, ["run", "--name", "db", "--network", "host", image, "/bin/sh", "-c", "exit 3"]).run().exits_with(3);
    let live = running(scene, "live", &[], image, "");
    let id = says(scene, &["ps", "-aq", "--no-trunc", "-f", "name=db"]);
    let beginning = format!("id=^{}", &id[..8]);
    let image_id = says(scene, &["images", "-q", "--no-trunc"]);
    let table: &[(&[&str], &str)] = &[
        (&["name=web"], "web-2 web-1"),
        (&["name=^/db$"], "db"),
        (&["name=^db$"], "db"),
        (&["name=web-1", "name=db"], "db web-1"),
        (&[&beginning], "db"),
        (&["status=created"], "web-1"),
        (&["status=configured"], "web-1"),
        (&["status=running"], "live"),
        (&["status=exited", "exited=3"], "db"),
        (&["status=exited", "exited=3", "exited=0"], "db web-2"),
        (&["ancestor=test", "status=created"], "web-1"),
        (&["ancestor=localhost/test:latest", "name=db"], "db"),
        (&[&format!("ancestor={}", image_id.trim()), "name=db"], "db"),
        (&["ancestor=nothing"], ""),
        (&["before=db"], "web-2 web-1"),
        (&["since=db"], "live"),
        (&["until=1h"], ""),
        (&["volume=/data"], "web-1"),
        (&[&format!("volume={}", tree.display())], "web-1"),
        (&["network=host"], "db"),
        (&["network=none", "name=web"], "web-2 web-1"),
        (&["health=none", "name=db"], "db"),
        (&["health=healthy"], ""),
        (&["restart-policy=no", "name=db"], "db"),
        (&["restart-policy=always"], ""),
        (&["command=true"], "web-1"),
        (&["label!=x", "name=db"], "db"),
        (&["label=x"], ""),
        (&["publish=80"], ""),
        (&["expose=80/tcp"], ""),
        (&["is-task=false", "name=db"], "db"),
    ];
    for (filters, expected) in table {
        let mut command = husk(scene, ["ps", "-a", "--format", "{{.Names}}"]);
        for filter in *filters {
            command.args(["--filter", filter]);
        }
        let found = command.run().success().stdout;
        assert_eq!(found.lines().collect::<Vec<_>>().join(" "), *expected, "{filters:?}");
    }
    // A state that is asked for is shown without -a.
    assert_eq!(says(scene, &["ps", "-f", "status=created", "--format", "{{.Names}}"]), "web-1\n");
    for (filter, words) in [
        ("colour=red", "invalid filter 'colour'"),
        ("status=asleep", "invalid filter 'status=asleep'"),
        ("health=fine", "invalid filter 'health=fine'"),
        ("exited=x", "invalid filter 'exited=x'"),
        ("name=[", "invalid filter 'name=['"),
        ("before=nobody", "no such container: nobody"),
    ] {
        husk(scene, ["ps", "-f", filter]).run().exits_with(1).says(words);
    }
    let fields = "{{.Mounts}} {{.Networks}} {{.LocalVolumes}}";
    let shown = says(scene, &["ps", "-a", "--no-trunc", "-f", "name=web-1", "--format", fields]);
    assert_eq!(shown, format!("{} none 0\n", tree.display()));
    live.finish().success();
}

fn ps_clears_and_shows_what_a_killed_supervisor_left(scene: &Scene) {
    let image = stored(scene, &[]);
    let id =
        says(scene, &["run", "-dt", "--name", "lost", image, "/bin/sh", "-c", "cat > /dev/null; while :; do :; done"]);
    let pid = says(scene, &["inspect", "-f", "{{.State.Pid}}", "lost"]);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).expect("the workload runs");
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)).expect("a parent");
    let parent = rustix::process::Pid::from_raw(parent.parse().expect("a pid")).expect("not 0");
    // The monitor of our own container.
    let monitor = rustix::process::pidfd_open(parent, rustix::process::PidfdFlags::empty()).expect("the monitor");
    rustix::process::pidfd_send_signal(&monitor, rustix::process::Signal::KILL).expect("kill the monitor");
    let mut fds = [rustix::event::PollFd::new(&monitor, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).expect("wait for its end");
    let shown = says(scene, &["ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}"]);
    assert!(shown.starts_with("lost exited Exited (255)"), "{shown}");
    let state = &inspected(scene, id.trim())["State"];
    assert_eq!((&state["ExitCode"], &state["Pid"]), (&json!(255), &json!(0)), "{state}");
    assert_eq!(state["Error"], "its supervisor was killed");
}

/// The keys of docker 28 and their types; a null stands for what docker may leave empty.
const SHAPE: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "AppArmorProfile",
            "Args",
            "Config",
            "Created",
            "Driver",
            "ExecIDs",
            "GraphDriver",
            "HostConfig",
            "HostnamePath",
            "HostsPath",
            "Id",
            "Image",
            "LogPath",
            "MountLabel",
            "Mounts",
            "Name",
            "NetworkSettings",
            "Path",
            "Platform",
            "ProcessLabel",
            "ResolvConfPath",
            "RestartCount",
            "State",
        ],
    ),
    (
        "/State",
        &[
            "Dead",
            "Error",
            "ExitCode",
            "FinishedAt",
            "OOMKilled",
            "Paused",
            "Pid",
            "Restarting",
            "Running",
            "StartedAt",
            "Status",
        ],
    ),
    (
        "/Config",
        &[
            "AttachStderr",
            "AttachStdin",
            "AttachStdout",
            "Cmd",
            "Domainname",
            "Entrypoint",
            "Env",
            "Hostname",
            "Image",
            "Labels",
            "OnBuild",
            "OpenStdin",
            "StdinOnce",
            "Tty",
            "User",
            "Volumes",
            "WorkingDir",
        ],
    ),
    (
        "/HostConfig",
        &[
            "AutoRemove",
            "Binds",
            "BlkioDeviceReadBps",
            "BlkioDeviceReadIOps",
            "BlkioDeviceWriteBps",
            "BlkioDeviceWriteIOps",
            "BlkioWeight",
            "BlkioWeightDevice",
            "CapAdd",
            "CapDrop",
            "Cgroup",
            "CgroupParent",
            "CgroupnsMode",
            "ConsoleSize",
            "ContainerIDFile",
            "CpuCount",
            "CpuPercent",
            "CpuPeriod",
            "CpuQuota",
            "CpuRealtimePeriod",
            "CpuRealtimeRuntime",
            "CpuShares",
            "CpusetCpus",
            "CpusetMems",
            "DeviceCgroupRules",
            "DeviceRequests",
            "Devices",
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "ExtraHosts",
            "GroupAdd",
            "IOMaximumBandwidth",
            "IOMaximumIOps",
            "IpcMode",
            "Isolation",
            "Links",
            "LogConfig",
            "MaskedPaths",
            "Memory",
            "MemoryReservation",
            "MemorySwap",
            "MemorySwappiness",
            "NanoCpus",
            "NetworkMode",
            "OomKillDisable",
            "OomScoreAdj",
            "PidMode",
            "PidsLimit",
            "PortBindings",
            "Privileged",
            "PublishAllPorts",
            "ReadonlyPaths",
            "ReadonlyRootfs",
            "RestartPolicy",
            "Runtime",
            "SecurityOpt",
            "ShmSize",
            "UTSMode",
            "Ulimits",
            "UsernsMode",
            "VolumeDriver",
            "VolumesFrom",
        ],
    ),
    (
        "/NetworkSettings",
        &[
            "Bridge",
            "EndpointID",
            "Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "HairpinMode",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "LinkLocalIPv6Address",
            "LinkLocalIPv6PrefixLen",
            "MacAddress",
            "Networks",
            "Ports",
            "SandboxID",
            "SandboxKey",
            "SecondaryIPAddresses",
            "SecondaryIPv6Addresses",
        ],
    ),
];

fn inspect_has_dockers_shape(scene: &Scene) {
    let image = stored(scene, &[]);
    let tree = scene.tree("data", &[]);
    let volume = format!("{}:/data:ro", tree.display());
    let flags = ["-v", &volume, "-v", "/scratch", "-m", "64m", "-e", "A=b", "-u", "5:6", "-w", "/tmp", "--read-only"];
    let live = running(scene, "live", &flags, image, "");
    let found = inspected(scene, "live");
    for (place, keys) in SHAPE {
        let object = found.pointer(place).and_then(Value::as_object).expect("an object");
        let names: Vec<&str> = object.keys().map(String::as_str).collect();
        assert_eq!(names, *keys, "{place}");
    }
    let at = |pointer: &str| found.pointer(pointer).cloned().unwrap_or_default();
    let own = format!("{}/0", &at("/Id").as_str().expect("an id")[..12]);
    for (pointer, expected) in [
        ("/Name", json!("/live")),
        ("/Path", json!("/bin/sh")),
        ("/Args/0", json!("-ec")),
        ("/State/Status", json!("running")),
        ("/State/Running", json!(true)),
        ("/State/FinishedAt", json!("0001-01-01T00:00:00Z")),
        ("/Config/Image", json!(image)),
        ("/Config/Cmd/0", json!("/bin/sh")),
        ("/Config/Entrypoint", Value::Null),
        ("/Config/User", json!("5:6")),
        ("/Config/WorkingDir", json!("/tmp")),
        ("/Config/OpenStdin", json!(true)),
        ("/Config/AttachStdin", json!(true)),
        ("/Config/Volumes", json!({ "/scratch": {} })),
        ("/HostConfig/Memory", json!(64 << 20)),
        ("/HostConfig/MemorySwap", json!(128 << 20)),
        ("/HostConfig/Binds", json!([volume])),
        ("/HostConfig/ReadonlyRootfs", json!(true)),
        ("/HostConfig/NetworkMode", json!("none")),
        ("/HostConfig/LogConfig/Type", json!("json-file")),
        ("/HostConfig/RestartPolicy", json!({ "Name": "no", "MaximumRetryCount": 0 })),
        ("/GraphDriver/Name", json!("overlay")),
        ("/Mounts/0/Type", json!("bind")),
        ("/Mounts/0/Source", json!(tree)),
        ("/Mounts/0/RW", json!(false)),
        ("/Mounts/0/Mode", json!("ro")),
        ("/Mounts/1/Type", json!("volume")),
        ("/Mounts/1/Name", json!(own)),
        ("/Mounts/1/Destination", json!("/scratch")),
        ("/Mounts/2", Value::Null),
        ("/NetworkSettings/Networks/none/IPAddress", json!("")),
    ] {
        assert_eq!(at(pointer), expected, "{pointer}");
    }
    assert!(at("/Config/Env").as_array().is_some_and(|env| env.contains(&json!("A=b"))));
    assert!(std::path::Path::new(at("/LogPath").as_str().expect("a path")).exists());
    // The pid is that of the workload: it has its name.
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", at("/State/Pid"))).expect("a process");
    assert!(["sh", "cat", "busybox"].contains(&comm.trim()), "{comm}");
    live.finish().success();
    let state = inspected(scene, "live")["State"].take();
    assert_eq!((&state["Status"], &state["Pid"], &state["ExitCode"]), (&json!("exited"), &json!(0), &json!(0)));
    assert!(state["FinishedAt"].as_str() > state["StartedAt"].as_str(), "{state}");
}

fn inspect_finds_containers_before_images(scene: &Scene) {
    let image = stored(scene, &[]);
    says(scene, &["create", "--name", "test", image, "/bin/true"]);
    let name = |words: &[&str], format: &str| says(scene, &[words, &["-f", format, "test"]].concat());
    assert_eq!(name(&["inspect"], "{{.Name}}"), "/test\n");
    assert_eq!(name(&["inspect", "--type", "container"], "{{.Name}}"), "/test\n");
    assert_eq!(name(&["container", "inspect"], "{{.Name}}"), "/test\n");
    assert_eq!(name(&["inspect", "--type=image"], "{{.Os}}"), "linux\n");
    assert_eq!(name(&["image", "inspect"], "{{.Os}}"), "linux\n");
    let mixed = husk(scene, ["inspect", "-f", "{{.Id}}", "nothing", "test", image]).run().exits_with(1);
    assert_eq!(mixed.stdout.lines().count(), 2);
    mixed.says("no such object: nothing");
    assert_eq!(husk(scene, ["inspect", "nothing"]).run().exits_with(1).stdout, "[]\n");
    husk(scene, ["inspect", "--type", "container", image]).run().exits_with(1).says("no such container");
    husk(scene, ["inspect", "--type", "planet", "x"]).run().exits_with(125);
    husk(scene, ["inspect", "-f", "{{.Name", "test"]).run().exits_with(1).says("unclosed action");
    for (word, status) in [("test", 0), ("nothing", 1)] {
        husk(scene, ["container", "exists", word]).run().exits_with(status);
    }
}

/// What scripts for docker ask, and what docker answers.
fn templates_of_scripts_work(scene: &Scene) {
    let image = stored(scene, &[]);
    says(scene, &["create", "--name", "box", "-v", "/v", "-h", "there", image, "/bin/sh", "-c", "true"]);
    let id = says(scene, &["ps", "-aq", "--no-trunc"]).trim().to_owned();
    let (short, image_id) = (&id[..12], says(scene, &["images", "-q", "--no-trunc"]));
    for (template, expected) in [
        ("{{.Id}}", id.as_str()),
        ("{{.ID}}", id.as_str()),
        ("{{.Name}}", "/box"),
        ("{{slice .Id 0 12}}", short),
        ("{{.State.Status}}", "created"),
        ("{{.State.Running}}", "false"),
        ("{{.State.Paused}}", "false"),
        ("{{.State.Pid}}", "0"),
        ("{{.State.ExitCode}}", "0"),
        ("{{.State.OOMKilled}}", "false"),
        ("{{.State.StartedAt}}", "0001-01-01T00:00:00Z"),
        ("{{json .State.Health}}", "null"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{.RestartCount}}", "0"),
        ("{{.Image}}", image_id.trim()),
        ("{{.Config.Image}}", image),
        ("{{.Config.Hostname}}", "there"),
        ("{{json .Config.Cmd}}", r#"["/bin/sh","-c","true"]"#),
        ("{{.Config.Cmd}}", "[/bin/sh -c true]"),
        ("{{index .Config.Cmd 2}}", "true"),
        ("{{json .Config.Entrypoint}}", "null"),
        ("{{.Path}} {{join .Args \" \"}}", "/bin/sh -c true"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "PATH=/bin:/usr/bin\nHOSTNAME=there\nHOME=/root\n"),
        ("{{len .Mounts}}", "1"),
        ("{{range .Mounts}}{{.Type}} {{.Destination}}{{end}}", "volume /v"),
        ("{{.HostConfig.NetworkMode}}", "none"),
        ("{{.HostConfig.RestartPolicy.Name}}", "no"),
        ("{{.HostConfig.Privileged}}", "false"),
        ("{{.HostConfig.Memory}}", "0"),
        ("{{json .HostConfig.Binds}}", "null"),
        ("{{.HostConfig.LogConfig.Type}}", "json-file"),
        ("{{.NetworkSettings.IPAddress}}", ""),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", ""),
        ("{{range $name, $n := .NetworkSettings.Networks}}{{$name}}{{end}}", "none"),
        ("{{json .NetworkSettings.Ports}}", "{}"),
        ("{{range $p, $c := .NetworkSettings.Ports}}{{$p}}{{end}}", ""),
        ("{{index .Config.Labels \"none\"}}", ""),
        ("{{with .State}}{{.Status}}{{end}}", "created"),
        ("{{.Platform}} {{.Driver}}", "linux overlay"),
        ("{{.HostConfig.ShmSize}}", "67108864"),
    ] {
        let found = says(scene, &["inspect", "--format", template, "box"]);
        assert_eq!(found, format!("{expected}\n"), "{template}");
    }
}

fn containers_are_measured(scene: &Scene) {
    let image = stored(scene, &[]);
    ran(scene, "writer", image, "dd if=/dev/zero of=/zeros bs=1024 count=100 2> /dev/null");
    let found: Value = serde_json::from_str(&says(scene, &["inspect", "-s", "writer"])).expect("JSON");
    let size = |name: &str| found[0][name].as_u64().expect("a size");
    assert!((102_400..200_000).contains(&size("SizeRw")), "{}", size("SizeRw"));
    assert!(size("SizeRootFs") > size("SizeRw"));
    let table = says(scene, &["ps", "-as"]);
    assert!(table.lines().next().is_some_and(|line| line.ends_with("SIZE")), "{table}");
    assert!(table.contains("kB (virtual "), "{table}");
}

fn stopped_containers_are_pruned(scene: &Scene) {
    let image = stored(scene, &[]);
    says(scene, &["create", "--name", "made", image, "/bin/true"]);
    ran(scene, "done", image, "true");
    let live = running(scene, "live", &[], image, "");
    husk(scene, ["container", "prune"]).input("n\n").run().exits_with(1).says("Are you sure");
    assert!(
        says(scene, &["container", "prune", "-f", "--filter", "until=1h"]).starts_with("Total reclaimed space: 0B")
    );
    let gone = says(scene, &["container", "prune", "--force"]);
    assert!(gone.starts_with("Deleted Containers:\n") && gone.lines().count() == 5, "{gone}");
    assert_eq!(says(scene, &["container", "ls", "-a", "--format", "{{.Names}}"]), "live\n");
    live.finish().success();
}
