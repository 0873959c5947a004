//! The shells' completions: what bash is offered, by its own function.

use super::containers_files::{husk, stored};
use super::support::tar::Entry;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(bash_is_offered_names).needs(Need::Husk).needs(Need::Busybox).needs(Need::Program("bash"))]
}

fn bash_is_offered_names(scene: &Scene) {
    let image = stored(scene, &[Entry::file("x", "x")]);
    husk(scene, ["create", "--name", "web-1", image, "true"]).run().success();
    husk(scene, ["volume", "create", "data-1"]).run().success();
    husk(scene, ["secret", "create", "token", "-"]).input("x").run().success();
    let script = "source <($HUSK completion bash)
        offer() {
            COMPREPLY=() COMP_LINE=\"$1\" COMP_POINT=${#1} COMP_WORDS=($HUSK)
            _husk; echo \"$1>${COMPREPLY[*]}\"
        }
        while read -r line; do offer \"${line%|}\"; done";
    let tagged = format!("husk rmi {image}:l");
    let lines = [
        ("husk start w", "web-1".to_owned()),
        ("husk container rm -f ", "web-1".to_owned()),
        ("husk volume rm d", "data-1".to_owned()),
        ("husk secret inspect t", "token".to_owned()),
        ("husk run -v d", "data-1:".to_owned()),
        ("husk volume ex", "exists export".to_owned()),
        ("husk secret ls --no", "--noheading".to_owned()),
        ("husk start nobody", String::new()),
        // bash parts words at a colon, and puts in what follows it.
        (tagged.as_str(), "latest".to_owned()),
    ];
    let (mut input, mut expected) = (String::new(), String::new());
    for (line, offered) in &lines {
        input.extend([*line, "|\n"]);
        expected.extend([*line, ">", offered, "\n"]);
    }
    let mut command = scene.program("bash");
    command.env("HUSK_DATA_ROOT", scene.store()).env("HUSK_RUN_ROOT", scene.run_root());
    let told =
        command.env("HUSK", &super::support::suite::kit().husk).args(["-c", script]).input(input).run().success();
    assert_eq!(told.stdout, expected);
}
