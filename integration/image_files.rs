//! The files and layers of images: `image mount`, `image unmount`, `image tree`.

use std::path::Path;

use super::containers_files::{husk, stored};
use super::support::image::Image;
use super::support::tar::Entry;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(an_image_is_mounted_to_be_read).root(),
        test!(an_ordinary_user_mounts_inside_of_unshare).users(),
        test!(a_container_is_mounted_to_be_changed).root(),
        test!(an_ordinary_user_mounts_containers_inside_of_unshare).users(),
        test!(layers_are_shown_as_podman_shows_them),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn image(scene: &Scene) -> &'static str {
    stored(scene, &[Entry::file("etc/mark", "of the image\n"), Entry::file("bin/.wh.touch", "")])
}

fn an_image_is_mounted_to_be_read(scene: &Scene) {
    let image = image(scene);
    let place = husk(scene, ["image", "mount", image]).run().success().stdout;
    let path = Path::new(place.trim_end());
    assert!(path.starts_with(scene.run_root()), "{place}");
    assert_eq!(std::fs::read_to_string(path.join("etc/mark")).expect("read"), "of the image\n");
    assert!(path.join("bin/cat").is_symlink() && !path.join("bin/touch").is_symlink(), "layers are merged");
    let refused = std::fs::File::create_new(path.join("new")).expect_err("it can be written to");
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(husk(scene, ["image", "mount", image]).run().success().stdout, place, "a second time it is the same");
    let listed = husk(scene, ["image", "mount"]).run().success().stdout;
    assert!(listed.ends_with(&format!(" {place}")) && listed.lines().count() == 1, "{listed}");
    husk(scene, ["rmi", image]).run().exits_with(1).says("it is mounted");
    // Its layers are there as long as the mount is, whatever becomes of the image.
    husk(scene, ["rmi", "-f", image]).run().success();
    assert_eq!(std::fs::read_to_string(path.join("etc/mark")).expect("read"), "of the image\n");
    husk(scene, ["image", "unmount", "-a"]).run().success();
    assert!(!path.exists());
    husk(scene, ["image", "mount", image]).run().exits_with(125).says("no such image");
}

fn an_ordinary_user_mounts_inside_of_unshare(scene: &Scene) {
    let image = image(scene);
    husk(scene, ["image", "mount", image])
        .run()
        .exits_with(125)
        .says("an ordinary user cannot mount")
        .says("husk unshare");
    let script = format!(
        "place=$($HUSK image mount {image}); cat $place/etc/mark; ls $place/bin/touch 2>&1
         $HUSK image mount; $HUSK image unmount {image}; ls $place 2>&1"
    );
    let mut command = husk(scene, ["unshare", "/bin/sh", "-c", &script]);
    let told = command.env("HUSK", &super::support::suite::kit().husk).run().stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 5, "{told}");
    assert_eq!(lines[0], "of the image");
    assert!(
        lines[1].contains("No such file") && lines[2].contains("/images/") && lines[4].contains("No such file"),
        "{told}"
    );
}

fn a_container_is_mounted_to_be_changed(scene: &Scene) {
    let image = image(scene);
    husk(scene, ["create", "--name", "box", image, "/bin/busybox", "cat", "/new"]).run().success();
    let place = husk(scene, ["mount", "box"]).run().success().stdout;
    let path = Path::new(place.trim_end());
    assert_eq!(std::fs::read_to_string(path.join("etc/mark")).expect("read"), "of the image\n");
    super::support::scene::write(&path.join("new"), "from outside\n");
    assert_eq!(
        husk(scene, ["container", "mount", "box"]).run().success().stdout,
        place,
        "a second time it is the same"
    );
    let listed = husk(scene, ["mount"]).run().success().stdout;
    assert!(listed.ends_with(&format!(" {place}")) && listed.lines().count() == 1, "{listed}");
    husk(scene, ["start", "-a", "box"]).run().exits_with(1).says("is mounted").says("husk unmount");
    husk(scene, ["unmount", "box"]).run().success();
    husk(scene, ["umount", "box"]).run().exits_with(1).says("is not mounted");
    assert!(!path.exists());
    assert_eq!(husk(scene, ["start", "-a", "box"]).run().success().stdout, "from outside\n");
    // One that runs shows its own overlay, and its end takes nothing of it away.
    husk(scene, ["run", "-d", "--name", "live", image, "/bin/busybox", "sleep", "1000"]).run().success();
    let place = husk(scene, ["container", "mount", "live"]).run().success().stdout;
    super::support::scene::write(&Path::new(place.trim_end()).join("live"), "seen inside\n");
    let seen = husk(scene, ["exec", "live", "/bin/busybox", "cat", "/live"]).run().success().stdout;
    assert_eq!(seen, "seen inside\n");
    husk(scene, ["rm", "-f", "live", "box"]).run().success();
    assert!(!Path::new(place.trim_end()).exists());
    assert_eq!(husk(scene, ["mount"]).run().success().stdout, "");
}

fn an_ordinary_user_mounts_containers_inside_of_unshare(scene: &Scene) {
    let image = image(scene);
    husk(scene, ["create", "--name", "box", image, "/bin/busybox", "cat", "/new"]).run().success();
    husk(scene, ["mount", "box"]).run().exits_with(1).says("husk unshare");
    let script = "place=$($HUSK mount box); cat $place/etc/mark; echo new > $place/new";
    let mut command = husk(scene, ["unshare", "/bin/sh", "-c", script]);
    let told = command.env("HUSK", &super::support::suite::kit().husk).run().success().stdout;
    assert_eq!(told, "of the image\n");
    // What its end has left of the mount is a place, which anybody may take away.
    husk(scene, ["start", "-a", "box"]).run().exits_with(1).says("is mounted");
    husk(scene, ["unmount", "box"]).run().success();
    assert_eq!(husk(scene, ["start", "-a", "box"]).run().success().stdout, "new\n");
}

fn layers_are_shown_as_podman_shows_them(scene: &Scene) {
    let one = Image::busybox(scene).layer(&[Entry::file("one", "1")]);
    let two = Image { tag: "two".to_owned(), ..one.clone().layer(&[Entry::file("two", "22")]) };
    for (name, image) in [("one.tar", &one), ("two.tar", &two)] {
        husk(scene, ["load", "-q", "-i"]).arg(image.docker_archive(scene, name)).run().success();
    }
    let told = husk(scene, ["image", "tree", "localhost/test:two"]).run().success().stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("Image ID: ") && lines[0].len() == 22, "{told}");
    assert_eq!(lines[1], "Tags:     [localhost/test:two]");
    assert_eq!(lines[3], "Image Layers");
    let id = |index: usize| &two.layers[index].diff_id["sha256:".len()..][..12];
    assert!(lines[4].starts_with(&format!("├──  ID: {} Size: ", id(0))), "{told}");
    assert_eq!(lines[5], format!("├──  ID: {} Size:      1B Top Layer of: [localhost/test:latest]", id(1)));
    assert_eq!(lines[6], format!("└──  ID: {} Size:      2B Top Layer of: [localhost/test:two]", id(2)));
}
