//! `events`, `stats`, `top`, `port`, `update`, `info` and `version`: what happens, and what is used.

use serde_json::{Value, json};

use super::containers_files::{husk, ran, running, stored};
use super::support::{Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(a_life_is_told_in_dockers_words).and_plain(),
        test!(events_are_followed_and_filtered),
        test!(events_of_images_are_told),
        test!(the_file_of_events_is_rotated).root(),
        test!(processes_are_shown_without_ps).and_plain(),
        test!(use_is_shown_in_dockers_columns),
        test!(limits_change_while_it_runs),
        test!(info_and_version_answer_scripts).and_plain(),
        test!(a_thousand_containers_are_listed).root(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

#[track_caller]
fn says(scene: &Scene, words: &[&str]) -> String {
    husk(scene, words).run().success().stdout
}

/// All that has happened, in order.
#[track_caller]
fn told(scene: &Scene, format: &str, filters: &[&str]) -> Vec<String> {
    let mut command = husk(scene, ["events", "--stream=false", "--format", format]);
    for filter in filters {
        command.args(["--filter", filter]);
    }
    command.run().success().stdout.lines().map(str::to_owned).collect()
}

fn a_life_is_told_in_dockers_words(scene: &Scene) {
    let image = stored(scene, &[]);
    let live = running(scene, "live", &[], image, "");
    husk(scene, ["exec", "live", "/bin/sh", "-c", "exit 7"]).run().exits_with(7);
    says(scene, &["rename", "live", "other"]);
    says(scene, &["stop", "-t", "0", "other"]);
    live.finish();
    husk(scene, ["run", "--rm", "--name", "short", image, "/bin/sh", "-c", "exit 3"]).run().exits_with(3);
    says(scene, &["rm", "other"]);
    let filters = ["type=container"];
    let found = told(scene, "{{.Action}} {{.Name}}", &filters);
    let expected = [
        "create live",
        "start live",
        "exec_create: /bin/sh -c exit 7 live",
        "exec_start: /bin/sh -c exit 7 live",
        "exec_die live",
        "rename other",
        // The monitor goes on with the name that it was started with.
        "kill other",
        "die live",
        "stop other",
        "create short",
        "start short",
        "die short",
        "destroy short",
        "destroy other",
    ];
    assert_eq!(found, expected);
    let codes = told(scene, "{{.Actor.Attributes.exitCode}}", &["event=die", "event=exec_die"]);
    assert_eq!(codes, ["7", "137", "3"]);
    assert_eq!(told(scene, "{{.Actor.Attributes.signal}}", &["event=kill"]).len(), 1);
    let line: Value = serde_json::from_str(&told(scene, "json", &["event=destroy"])[0]).expect("JSON");
    assert_eq!(
        (&line["Type"], &line["Action"], &line["status"]),
        (&json!("container"), &json!("destroy"), &json!("destroy"))
    );
    assert_eq!((&line["id"], &line["from"]), (&line["Actor"]["ID"], &json!(image)));
    let plain = husk(scene, ["events", "--stream=false", "--filter", "event=destroy"]).run().success().stdout;
    assert!(
        plain.contains("+00:00 container destroy ") && plain.contains("(image=localhost/test, name=short)"),
        "{plain}"
    );
}

fn events_are_followed_and_filtered(scene: &Scene) {
    let image = stored(scene, &[]);
    ran(scene, "before", image, "true");
    let mut follower =
        husk(scene, ["events", "--filter", "type=container", "--format", "{{.Action}} {{.Name}}"]).start();
    // The watch is there once something is told: other things happen until then.
    let mut probes = 0;
    let first = loop {
        probes += 1;
        says(scene, &["create", "--name", &format!("probe-{probes}"), image, "/bin/true"]);
        if probes == 20 {
            break follower.line();
        }
    };
    assert!(first.starts_with("create probe-"), "what was before is not told: {first}");
    ran(scene, "after", image, "true");
    assert_eq!(follower.line_with("start"), "start after");
    assert_eq!(follower.line_with("die"), "die after");
    drop(follower);
    for (filters, expected) in [
        (&["container=after"][..], "create start die"),
        (&["container=after", "event=die"], "die"),
        (&["container=after", "event=start", "event=create"], "create start"),
        (&["container=nothing"], ""),
        (&["image=localhost/test", "container=before", "event=die"], "die"),
        (&["type=image", "event=die"], ""),
        (&["label=x"], ""),
    ] {
        assert_eq!(told(scene, "{{.Action}}", filters).join(" "), expected, "{filters:?}");
    }
    let since =
        |words: &[&str]| says(scene, &[&["events", "--stream=false", "--format", "{{.Action}}"], words].concat());
    assert_eq!(since(&["--since", "2100-01-01T00:00:00Z"]), "");
    assert_eq!(since(&["--until", "2020-01-01T00:00:00Z"]), "");
    assert!(since(&["--since", "1h"]).lines().count() > 20);
    // An end in the past ends it, however it is asked.
    husk(scene, ["events", "--until", "2020-01-01T00:00:00Z"]).run().success();
    husk(scene, ["events", "--since", "yesterday"]).run().exits_with(1).says("not a time");
    husk(scene, ["events", "--filter", "colour=red"]).run().exits_with(1).says("invalid filter 'colour'");
}

fn events_of_images_are_told(scene: &Scene) {
    let image = stored(scene, &[]);
    says(scene, &["tag", image, "localhost/second"]);
    says(scene, &["save", "-o", &scene.path().join("saved.tar").display().to_string(), image]);
    says(scene, &["untag", image, image]);
    says(scene, &["rmi", "localhost/second"]);
    let found = told(scene, "{{.Action}} {{.Name}}", &["type=image"]);
    let tag = "localhost/test:latest";
    let second = "localhost/second:latest";
    let expected = [
        format!("load {tag}"),
        format!("tag {second}"),
        format!("save {image}"),
        format!("untag {tag}"),
        format!("untag {second}"),
        "delete localhost/second".to_owned(),
    ];
    assert_eq!(found, expected);
}

fn the_file_of_events_is_rotated(scene: &Scene) {
    let image = stored(scene, &[]);
    let file = scene.store().join("events");
    let line = std::fs::read_to_string(&file).expect("the load was told");
    super::support::scene::write(&file, line.repeat((4 << 20) / line.len() + 1));
    ran(scene, "one", image, "true");
    let older = std::fs::metadata(scene.store().join("events.1")).expect("rotated with the end");
    assert!(older.len() > 4 << 20 && !file.exists(), "what comes next begins a file");
    ran(scene, "two", image, "true");
    let told = told(scene, "{{.Action}} {{.Name}}", &["type=container"]);
    assert_eq!(told, ["create one", "start one", "die one", "create two", "start two", "die two"]);
}

fn processes_are_shown_without_ps(scene: &Scene) {
    let image = stored(scene, &[]);
    let live = running(scene, "live", &[], image, "");
    let table = husk(scene, ["top", "live"]).env("PATH", "/nonexistent").run();
    let table = table.success();
    let mut lines = table.stdout.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let pid = says(scene, &["inspect", "-f", "{{.State.Pid}}", "live"]);
    assert!(lines.any(|line| line.split_whitespace().nth(1) == Some(pid.trim())), "{}", table.stdout);
    let chosen = says(scene, &["top", "live", "pid,args"]);
    assert!(chosen.starts_with("PID                 COMMAND\n") && chosen.contains(pid.trim()), "{chosen}");
    live.finish().success();
    husk(scene, ["top", "live"]).run().exits_with(1).says("container live is not running");
    husk(scene, ["top", "nothing"]).run().exits_with(1).says("no such container: nothing");
    assert_eq!(says(scene, &["port", "live"]), "");
    husk(scene, ["port", "live", "80"]).run().exits_with(1).says("no public port '80/tcp' published for live");
}

fn use_is_shown_in_dockers_columns(scene: &Scene) {
    let image = stored(scene, &[]);
    ran(scene, "ended", image, "true");
    let live = running(scene, "live", &[], image, "");
    let table = says(scene, &["stats", "--no-stream"]);
    assert!(table.starts_with("CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT"), "{table}");
    assert!(table.lines().count() == 2 && table.contains("live"), "{table}");
    let all = says(scene, &["stats", "--no-stream", "--all", "--format", "{{.Name}} {{.PIDs}}"]);
    assert!(all.contains("ended 0\n"), "{all}");
    let line: Value =
        serde_json::from_str(&says(scene, &["stats", "--no-stream", "--format", "json", "live"])).expect("JSON");
    assert!(line["MemUsage"].as_str().is_some_and(|text| text.contains("B / ") && text.ends_with("iB")), "{line}");
    assert!(line["CPUPerc"].as_str().is_some_and(|text| text.ends_with('%')), "{line}");
    assert_eq!((&line["Container"], &line["NetIO"]), (&json!("live"), &json!("0B / 0B")));
    husk(scene, ["stats", "--no-stream", "nothing"]).run().exits_with(1).says("no such container: nothing");
    live.finish().success();
}

fn limits_change_while_it_runs(scene: &Scene) {
    let image = stored(scene, &[]);
    says(scene, &["create", "--name", "made", "-m", "32m", image, "/bin/true"]);
    assert_eq!(
        says(scene, &["update", "--memory", "64m", "--pids-limit", "50", "--restart", "on-failure:3", "made"]),
        "made\n"
    );
    let format = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(says(scene, &["inspect", "-f", format, "made"]), "67108864 50 on-failure\n");
    // The next start has them.
    let config = scene
        .store()
        .join("containers")
        .join(says(scene, &["ps", "-aq", "--no-trunc"]).trim())
        .join("bundle/config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(config).expect("the configuration")).expect("JSON");
    assert_eq!(config["linux"]["resources"]["memory"]["limit"], json!(64 << 20));
    assert_eq!(config["linux"]["resources"]["pids"]["limit"], json!(50));
    assert!(config["linux"]["resources"]["devices"].is_array(), "the rules for devices stay");
    husk(scene, ["update", "made"]).run().exits_with(1).says("you must provide one or more flags");
    husk(scene, ["update", "--memory", "1m", "made"]).run().exits_with(1).says("less than 6 MiB");
    husk(scene, ["update", "--memory", "64m", "nothing", "made"])
        .run()
        .exits_with(1)
        .says("no such container: nothing");
    if scene.who == Who::Root {
        let live = running(scene, "live", &[], image, "");
        says(scene, &["update", "-m", "128m", "live"]);
        let stats = says(scene, &["stats", "--no-stream", "--format", "{{.MemUsage}}", "live"]);
        assert!(stats.ends_with(" / 128MiB\n"), "{stats}");
        live.finish().success();
    }
}

fn info_and_version_answer_scripts(scene: &Scene) {
    let own = env!("CARGO_PKG_VERSION");
    assert!(says(scene, &["version"]).starts_with(&format!("Version:       {own}\n")));
    assert_eq!(
        says(scene, &["version", "--format", "{{.Client.Version}} {{.Server.Version}}"]),
        format!("{own} {own}\n")
    );
    let info: Value = serde_json::from_str(&says(scene, &["info", "--format", "json"])).expect("JSON");
    assert_eq!(
        (&info["Containers"], &info["OSType"], &info["Driver"]),
        (&json!(0), &json!("linux"), &json!("overlay"))
    );
    assert_eq!(info["DockerRootDir"], json!(scene.store()));
    let is_rootless = info["SecurityOptions"].as_array().is_some_and(|list| list.contains(&json!("name=rootless")));
    assert_eq!(is_rootless, scene.who != Who::Root);
    assert!(["1\n", "2\n"].contains(&says(scene, &["system", "info", "-f", "{{.CgroupVersion}}"]).as_str()));
    assert!(says(scene, &["info"]).starts_with("Containers: 0\n Running: 0\n"));
}

/// Also a bound: what takes longer with each container would be seen here. How long it takes is the bench's to say.
fn a_thousand_containers_are_listed(scene: &Scene) {
    let image = stored(scene, &[]);
    ran(scene, "first", image, "true");
    let id = says(scene, &["ps", "-aq", "--no-trunc"]).trim().to_owned();
    let folder = scene.store().join("containers");
    let record = std::fs::read_to_string(folder.join(&id).join("record.json")).expect("its record");
    for number in 0..1000 {
        let other = format!("{number:064x}");
        let place = folder.join(&other);
        std::fs::create_dir(&place).expect("make a container");
        let copy = record.replace(&id, &other).replace("\"first\"", &format!("\"copy-{number}\""));
        super::support::scene::write(&place.join("record.json"), copy);
        for file in ["supervisor", "exit.json"] {
            std::fs::copy(folder.join(&id).join(file), place.join(file)).expect("copy a file");
        }
    }
    assert_eq!(says(scene, &["ps", "-aq"]).lines().count(), 1001);
    assert_eq!(says(scene, &["ps", "-aq", "-f", "name=^/copy-99.$"]).lines().count(), 10);
    std::fs::remove_dir_all(&folder).expect("remove them all");
}
