//! `--mount type=image`: the files of another image, which stays in the store as long as the container.

use super::lifecycle::Yard;
use super::support::image::Image;
use super::support::tar::Entry;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [test!(another_images_files_are_there).and_plain()].into_iter().map(engine).collect()
}

fn another_images_files_are_there(scene: &Scene) {
    let yard = Yard::new(scene);
    let low = [Entry::directory("etc"), Entry::file("etc/low", "low\n"), Entry::file("etc/gone", "gone\n")];
    let high = [Entry::file("etc/high", "high\n"), Entry::file("etc/.wh.gone", "")];
    let tools = Image::new(Vec::new()).layer(&low).layer(&high).layout(scene, "tools");
    yard.husk(&["load", "-i", &tools.path().display().to_string()]).success();
    let id = yard.husk(&["images", "-q", "--no-trunc"]).success().stdout.lines().next().unwrap_or_default().to_owned();
    let id = id.as_str();
    let mount = |more: &str| format!("type=image,source={id},target=/tools{more}");
    for (more, script, expected) in [
        ("", "busybox ls /tools/etc; echo x > /tools/new || echo refused", "high low refused"),
        (",rw=true", "echo x > /tools/etc/low && busybox cat /tools/etc/low /tools/etc/high", "x high"),
        (",subpath=etc", "busybox cat /tools/low; echo x > /tools/new || echo refused", "low refused"),
    ] {
        let outcome = yard.sh(&["run", "--rm", "--mount", &mount(more)], script);
        assert_eq!(
            outcome.stdout.split_whitespace().collect::<Vec<_>>().join(" "),
            expected,
            "{more}: {}",
            outcome.stderr
        );
    }
    yard.sh(&["run", "--rm", "--mount", &mount(",subpath=nowhere")], "true").exits_with(125).says("nowhere");
    yard.sh(&["run", "--rm", "--pull", "never", "--mount", "type=image,source=none/such,target=/x"], "true")
        .exits_with(125)
        .says("none/such");
    // As long as there is the container, the image is in use, and its layers are kept whatever becomes of it.
    yard.sh(&["create", "--name", "user", "--mount", &mount("")], "busybox cat /tools/etc/high").success();
    yard.husk(&["rmi", id]).exits_with(1).says("user");
    yard.husk(&["image", "prune", "-a", "-f"]).success();
    yard.husk(&["rmi", "-f", id]).success();
    assert_eq!(yard.husk(&["start", "-a", "user"]).success().stdout, "high\n");
    let described = yard.husk(&["inspect", "-f", "{{json .HostConfig.Mounts}}", "user"]).success().stdout;
    assert!(described.contains(r#""Type":"image""#), "{described}");
    yard.husk(&["rm", "user"]).success();
}
