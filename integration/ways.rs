//! The ways of images in and out that need no registry: `load`, `pull` from files, `save`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::support::image::{Compression, Image, Layer, Layout, write_archive};
use super::support::registry::has_blob;
use super::support::tar::{self, Entry};
use super::support::{Invocation, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(a_docker_archive_is_loaded_and_runs).and_plain(),
        test!(an_oci_archive_is_loaded_however_it_is_packed).and_plain(),
        test!(a_layout_is_pulled_by_its_word),
        test!(an_image_without_a_name_is_known_by_its_id),
        test!(a_damaged_archive_leaves_nothing).and_plain(),
        test!(what_is_no_archive_is_refused),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn husk<'s, T: AsRef<std::ffi::OsStr>>(scene: &'s Scene, words: impl IntoIterator<Item = T>) -> Invocation<'s> {
    let mut command = scene.husk();
    command.args(words);
    command
}

/// An image with layers of every packing.
fn mixed(scene: &Scene) -> Image {
    let mut image = Image::busybox(scene);
    for (name, compression) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd), ("plain", Compression::None)]
    {
        image.layers.push(Layer::new(&tar::archive(&[Entry::file(name, name)]), compression));
    }
    image
}

#[track_caller]
fn runs(scene: &Scene, name: &str) {
    let outcome = husk(scene, ["run", "--rm", "--pull=never", name, "/bin/ls", "/"]).run().success();
    for mark in ["gzip", "zstd", "plain"] {
        assert!(outcome.stdout.contains(mark), "{mark} is not in {}", outcome.stdout);
    }
}

#[track_caller]
fn holds(scene: &Scene, layout: &Layout) {
    let manifest = layout.manifest();
    for layer in manifest["layers"].as_array().expect("layers") {
        let digest = layer["digest"].as_str().expect("a digest");
        assert!(has_blob(&scene.store(), digest), "{digest} is not in the store");
    }
}

fn packed(scene: &Scene, archive: &Path, compression: Compression) -> PathBuf {
    let layer = Layer::new(&std::fs::read(archive).expect("read an archive"), compression);
    let path = scene.path().join(format!("packed-{compression:?}"));
    std::fs::File::create(&path).and_then(|mut file| file.write_all(&layer.blob)).expect("write an archive");
    scene.account().own(&path);
    path
}

fn a_docker_archive_is_loaded_and_runs(scene: &Scene) {
    let image = mixed(scene);
    let archive = image.docker_archive(scene, "docker.tar");
    let outcome = husk(scene, ["load", "-q", "-i"]).arg(&archive).run().success();
    assert_eq!(outcome.stdout, "Loaded image: localhost/test:latest\n");
    assert_eq!(outcome.stderr, "");
    runs(scene, "localhost/test:latest");
    runs(scene, "test");
    for layer in &image.layers {
        assert!(has_blob(&scene.store(), &layer.digest), "{} is not there", layer.digest);
    }
    // Once more it is the same image, and nothing is unpacked twice.
    husk(scene, ["load", "-q", "-i"]).arg(&archive).run().success();
    let listed = husk(scene, ["images", "-q"]).run().success().stdout;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    husk(scene, ["rmi", "test"]).run().success();
    assert!(!has_blob(&scene.store(), &image.layers[1].digest), "a blob is left");
}

fn an_oci_archive_is_loaded_however_it_is_packed(scene: &Scene) {
    let mut image = mixed(scene);
    image.tag = "docker.io/library/app:1".to_owned();
    let layout = image.layout(scene, "layout");
    let archive = layout.archive(scene, "oci.tar");
    for archive in
        [archive.clone(), packed(scene, &archive, Compression::Gzip), packed(scene, &archive, Compression::Zstd)]
    {
        let (mut by_name, mut by_input) = (husk(scene, ["load", "-i"]), husk(scene, ["load", "--quiet"]));
        by_name.arg(&archive);
        by_input.input(std::fs::read(&archive).expect("read an archive"));
        for mut command in [by_name, by_input] {
            assert_eq!(command.run().success().stdout, "Loaded image: app:1\n");
            holds(scene, &layout);
            runs(scene, "app:1");
            husk(scene, ["rmi", "app:1"]).run().success();
        }
    }
}

fn a_layout_is_pulled_by_its_word(scene: &Scene) {
    let layout = mixed(scene).layout(scene, "layout");
    let archive = layout.archive(scene, "oci.tar").display().to_string();
    let docker = mixed(scene).docker_archive(scene, "docker.tar").display().to_string();
    for (word, name) in [
        (layout.reference(), "localhost/latest"),
        (format!("oci-archive:{archive}"), "localhost/latest"),
        (format!("docker-archive:{docker}:test"), "localhost/test"),
    ] {
        let id = husk(scene, ["pull", "-q", &word]).run().success().stdout;
        let listed = husk(scene, ["images", "-q", "--no-trunc"]).run().success().stdout;
        assert_eq!(listed.trim(), format!("sha256:{}", id.trim()));
        runs(scene, name);
        husk(scene, ["rmi", name]).run().success();
    }
    husk(scene, ["pull", "dir:/"]).run().exits_with(125).says("it is no image");
    husk(scene, ["pull", "oci:/nowhere"]).run().exits_with(125).says("oci:/nowhere");
    husk(scene, ["pull", &format!("oci-archive:{archive}:other")]).run().exits_with(125).says("other");
}

fn an_image_without_a_name_is_known_by_its_id(scene: &Scene) {
    let mut archive = mixed(scene).docker_archive(scene, "docker.tar");
    let text = std::fs::read(&archive).expect("read an archive");
    let named = br#"["localhost/test:latest"]"#;
    let at = text.windows(named.len()).position(|window| window == named).expect("the name in the archive");
    let mut text = text;
    text[at..at + named.len()].copy_from_slice(format!("{:<25}", "null").as_bytes());
    archive.set_extension("nameless");
    std::fs::File::create(&archive).and_then(|mut file| file.write_all(&text)).expect("write an archive");
    let said = husk(scene, ["load", "-q", "-i"]).arg(&archive).run().success().stdout;
    let id = said.trim().strip_prefix("Loaded image ID: sha256:").expect("an id").to_owned();
    runs(scene, &id[..12]);
}

fn a_damaged_archive_leaves_nothing(scene: &Scene) {
    let mut image = mixed(scene);
    image.layers[2].diff_id = image.layers[1].diff_id.replace(['0', '1'], "2");
    let docker = image.docker_archive(scene, "docker.tar");
    let oci = image.layout(scene, "layout").archive(scene, "oci.tar");
    for archive in [docker, oci] {
        husk(scene, ["load", "-i"]).arg(&archive).run().exits_with(125).says("layer 3 of 4");
        assert_eq!(husk(scene, ["images", "-q"]).run().success().stdout, "", "an image is in the store");
    }
}

fn what_is_no_archive_is_refused(scene: &Scene) {
    let other = write_archive(scene, "other.tar", &[Entry::file("etc/passwd", "x")]);
    husk(scene, ["load", "-i"]).arg(&other).run().exits_with(125).says("no archive of images");
    husk(scene, ["load"]).input("not a tar").run().exits_with(125).says("load standard input");
    husk(scene, ["load", "-i", "/dev/zero"]).run().exits_with(125).says("neither a file nor a pipe");
    husk(scene, ["load", "-i", "/nowhere"]).run().exits_with(125).says("open /nowhere");
}
