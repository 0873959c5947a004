//! Secrets: what a container gets, and where it must not be found.

use serde_json::Value;

use super::support::image::{Image, Layout};
use super::support::tar::Entry;
use super::support::{Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [test!(secrets_are_kept_and_listed).and_plain(), test!(secrets_reach_containers_and_nothing_else).and_plain()]
        .into_iter()
        .map(engine)
        .collect()
}

const CANARY: &str = "canary-4711-sings";

fn secret(scene: &Scene, words: &[&str], input: &str) -> Outcome {
    scene.husk().arg("secret").args(words).input(input).run()
}

fn secrets_are_kept_and_listed(scene: &Scene) {
    let id = secret(scene, &["create", "-l", "a=b", "token", "-"], CANARY).success().stdout.trim().to_owned();
    assert_eq!(id.len(), 25);
    secret(scene, &["create", "token", "-"], "other").exits_with(1).says("token: secret name in use");
    assert_eq!(secret(scene, &["create", "--ignore", "token", "-"], "other").success().stdout.trim(), id);
    let with_env = scene.husk().env("FROM", "other").args(["secret", "create", "--env", "fromenv", "FROM"]).run();
    with_env.success();
    for (words, cause) in [
        (&["create", "../x", "-"][..], "secret name"),
        (&["create", "--driver", "shell", "x", "-"], "only file is supported"),
        (&["create", "x", "/nowhere"], "read /nowhere"),
        (&["inspect", "nobody"], "no such secret: nobody"),
        (&["rm", "nobody"], "no such secret: nobody"),
    ] {
        secret(scene, words, "x").exits_with(1).says(cause);
    }
    secret(scene, &["create", "empty", "-"], "").exits_with(1).says("must have between 1 and 512000");
    secret(scene, &["create", "large", "-"], &"x".repeat(512_001)).exits_with(1).says("512001 bytes");
    secret(scene, &["exists", "token"], "").success();
    secret(scene, &["exists", "nobody"], "").exits_with(1);
    let rows = secret(scene, &["ls", "--format", "{{.Name}} {{.Driver}}"], "").success().stdout;
    assert_eq!(rows, "fromenv file\ntoken file\n");
    assert_eq!(secret(scene, &["ls", "-q", "-f", "label=a"], "").success().stdout, format!("{id}\n"));
    let shown = secret(scene, &["inspect", &id[..6]], "").success().stdout;
    let described: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&described[0]["Spec"]["Name"], &described[0]["Spec"]["Labels"]["a"]), (&"token".into(), &"b".into()));
    assert!(!shown.contains(CANARY));
    let data = ["inspect", "--showsecret", "-f", "{{.SecretData}}", "token"];
    assert_eq!(secret(scene, &data, "").success().stdout, format!("{CANARY}\n"));
    assert_eq!(secret(scene, &["rm", "token"], "").success().stdout, format!("{id}\n"));
    secret(scene, &["rm", "--all"], "").success();
    assert_eq!(secret(scene, &["ls", "-q"], "").success().stdout, "");
}

fn secrets_reach_containers_and_nothing_else(scene: &Scene) {
    let layout: Layout = Image::busybox(scene).layer(&[Entry::directory("run")]).layout(scene, "layout");
    secret(scene, &["create", "key", "-"], CANARY).success();
    let script = "busybox cat /run/secrets/key; echo; busybox cat /run/secrets/d/b /etc/key; echo; \
        busybox stat -c '%a %u' /run/secrets/key /run/secrets/d/b /etc/key; busybox ls -A /run/secrets; \
        busybox stat -f -c %T /run/secrets /etc/key; echo $key$KEY; echo x > /run/secrets/new";
    let flags =
        ["--secret", "key", "--secret", "key,target=d/b,mode=0400", "--secret", "key,target=/etc/key,mode=0440"];
    let variables = ["--secret", "key,type=env", "--secret", "key,type=env,target=KEY"];
    let name = ["run", "--name", "has", "--read-only"];
    let mut command = scene.husk();
    command.args(name).args(flags).args(variables).arg(layout.reference()).args(["/bin/busybox", "sh", "-c", script]);
    let found = command.run();
    let expected = format!("{CANARY}\n{CANARY}{CANARY}\n444 0\n400 0\n440 0\nd\nkey\ntmpfs\ntmpfs\n{CANARY}{CANARY}\n");
    assert_eq!(found.stdout, expected);
    found.exits_with(1).says("Read-only");

    // Nothing that describes the container has it, nor what was written: its log alone, which has what it printed.
    let log = scene.husk().args(["inspect", "-f", "{{.Id}}", "has"]).run().success().stdout;
    let folder = scene.store().join("containers").join(log.trim());
    for path in ["record.json", "exit.json", "bundle/config.json"] {
        let text = std::fs::read_to_string(folder.join(path)).unwrap();
        assert!(!text.contains(CANARY) && !text.contains("Y2FuYXJ5"), "{path}");
    }
    assert!(!scene.husk().args(["inspect", "has"]).run().success().stdout.contains(CANARY));
    assert_eq!(scene.husk().args(["diff", "has"]).run().success().stdout, "");
    let kept = std::fs::read_to_string(scene.store().join("secrets/key")).unwrap();
    assert!(kept.contains("\"id\""));

    // A running one has it in what is kept for `exec` neither, and its commands have it.
    let mut command = scene.husk();
    command.args(["run", "-d", "--name", "runs", "--secret", "key,type=env"]).arg(layout.reference());
    command.args(["/bin/busybox", "sleep", "1000"]).run().success();
    let seen = scene.husk().args(["exec", "runs", "/bin/busybox", "sh", "-c", "echo $key"]).run().success().stdout;
    assert_eq!(seen, format!("{CANARY}\n"));
    for entry in walkdir::WalkDir::new(scene.run_root()).into_iter().flatten() {
        if entry.file_type().is_file() {
            assert!(
                !std::fs::read_to_string(entry.path()).unwrap_or_default().contains(CANARY),
                "{}",
                entry.path().display()
            );
        }
    }
    scene.husk().args(["rm", "-f", "runs"]).run().success();

    secret(scene, &["create", "--replace", "key", "-"], "second").success();
    let mut command = scene.husk();
    command.args(["run", "--rm", "--secret", "key"]).arg(layout.reference()).args([
        "/bin/busybox",
        "cat",
        "/run/secrets/key",
    ]);
    assert_eq!(command.run().success().stdout, "second");
    secret(scene, &["rm", "key"], "").success();
    scene.husk().args(["start", "-a", "has"]).run().exits_with(1).says("no such secret: key");
    let mut command = scene.husk();
    command
        .args(["run", "--secret", "key"])
        .arg(layout.reference())
        .arg("true")
        .run()
        .exits_with(125)
        .says("no such secret");
    scene.husk().args(["rm", "has"]).run().success();
}
