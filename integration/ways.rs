//! The ways of images in and out that need no registry: `load`, `pull` from files, `save`.

use std::path::{Path, PathBuf};

use super::support::image::{Compression, Image, Layer, Layout, write_archive};
use super::support::registry::{Real, has_blob};
use super::support::scene::write;
use super::support::tar::{self, Entry};
use super::support::{Invocation, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    let real = |test: Test| test.needs(Need::Program("docker-registry")).needs(Need::Program("skopeo"));
    [
        test!(a_docker_archive_is_loaded_and_runs).and_plain(),
        test!(an_oci_archive_is_loaded_however_it_is_packed).and_plain(),
        test!(a_layout_is_loaded),
        test!(what_is_packed_otherwise_is_refused_by_name).needs(Need::Program("xz")).needs(Need::Program("bzip2")),
        test!(a_layout_is_pulled_by_its_word),
        test!(an_image_without_a_name_is_known_by_its_id),
        test!(a_damaged_archive_leaves_nothing).and_plain(),
        test!(what_is_no_archive_is_refused),
        test!(what_is_saved_is_loaded_again).and_plain(),
        test!(saving_again_gives_the_same_bytes),
        test!(several_images_are_saved_together),
        test!(what_cannot_be_saved_is_refused),
        test!(images_are_listed_in_dockers_columns),
        test!(an_image_is_inspected),
        real(test!(a_pulled_image_keeps_its_digest_through_save_and_load)),
        test!(podman_loads_what_is_saved).root().needs(Need::Program("podman")),
        test!(what_podman_saves_is_loaded).root().needs(Need::Program("podman")),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn husk<T: AsRef<std::ffi::OsStr>>(scene: &Scene, words: impl IntoIterator<Item = T>) -> Invocation<'_> {
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
    write(&path, &layer.blob);
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
    "docker.io/library/app:1".clone_into(&mut image.tag);
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

fn a_layout_is_loaded(scene: &Scene) {
    let layout = mixed(scene).layout(scene, "layout");
    let outcome = husk(scene, ["load", "-q", "-i"]).arg(layout.path()).run().success();
    assert_eq!(outcome.stdout, "Loaded image: localhost/latest:latest\n");
    holds(scene, &layout);
    let nothing = scene.tree("nothing", &[("file", "")]);
    husk(scene, ["load", "-q", "-i"]).arg(&nothing).run().exits_with(125).says("oci-layout");
}

fn what_is_packed_otherwise_is_refused_by_name(scene: &Scene) {
    let archive = mixed(scene).docker_archive(scene, "docker.tar");
    for (program, ending) in [("xz", "xz"), ("bzip2", "bz2")] {
        scene.program(program).args(["-k", "-1"]).arg(&archive).run().success();
        let packed = archive.with_extension(format!("tar.{ending}"));
        let (mut by_name, mut by_input) = (husk(scene, ["load", "-q", "-i"]), husk(scene, ["load", "-q"]));
        by_name.arg(&packed);
        by_input.input(std::fs::read(&packed).expect("read an archive"));
        for mut command in [by_name, by_input] {
            let outcome = command.run().exits_with(125).says(&format!("packed with {program}"));
            outcome.says(&format!("`{program} -dc FILE | husk load`"));
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
    write(&archive, &text);
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

/// Brings the mixed image here as `app:1`.
fn load_mixed(scene: &Scene) -> Layout {
    let mut image = mixed(scene);
    "docker.io/library/app:1".clone_into(&mut image.tag);
    let layout = image.layout(scene, "layout");
    husk(scene, ["pull", "-q", &format!("oci:{}", layout.path().display())]).run().success();
    layout
}

fn file(scene: &Scene, name: &str) -> String {
    scene.path().join(name).display().to_string()
}

fn what_is_saved_is_loaded_again(scene: &Scene) {
    let layout = load_mixed(scene);
    for (format, scheme) in [("docker-archive", "docker-archive"), ("oci-archive", "oci-archive"), ("oci-dir", "oci")] {
        let path = file(scene, format);
        husk(scene, ["save", "--format", format, "-o", &path, "app:1"]).run().success();
        husk(scene, ["rmi", "app:1"]).run().success();
        if format != "oci-dir" {
            let said = husk(scene, ["load", "-q", "-i", &path]).run().success().stdout;
            assert_eq!(said, "Loaded image: app:1\n");
            holds(scene, &layout);
            runs(scene, "app:1");
            husk(scene, ["rmi", "app:1"]).run().success();
        }
        husk(scene, ["pull", "-q", &format!("{scheme}:{path}")]).run().success();
        holds(scene, &layout);
        runs(scene, "app:1");
    }
}

fn saving_again_gives_the_same_bytes(scene: &Scene) {
    load_mixed(scene);
    for format in ["docker-archive", "oci-archive"] {
        let (one, other) = (file(scene, "one"), file(scene, "other"));
        for path in [&one, &other] {
            husk(scene, ["save", "--format", format, "-o", path, "app:1"]).run().success();
        }
        let read = |path: &str| std::fs::read(path).expect("read an archive");
        assert!(read(&one) == read(&other), "{format}: the bytes differ");
    }
    let left = std::fs::read_dir(scene.path()).expect("list").flatten().map(|entry| entry.file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().contains(".tmp-")), "a temporary file is left");
}

fn several_images_are_saved_together(scene: &Scene) {
    load_mixed(scene);
    husk(scene, ["tag", "app:1", "quay.io/me/second:2"]).run().success();
    let other = Image::busybox(scene).docker_archive(scene, "docker.tar");
    husk(scene, ["load", "-q", "-i"]).arg(&other).run().success();
    for format in ["docker-archive", "oci-archive"] {
        let path = file(scene, format);
        let words = ["save", "--format", format, "-m", "-o", &path, "app:1", "quay.io/me/second:2", "test"];
        husk(scene, words).run().success();
        husk(scene, ["rmi", "-f", "app:1", "quay.io/me/second:2", "test"]).run().success();
        let said = husk(scene, ["load", "-q", "-i", &path]).run().success().stdout;
        for name in ["app:1", "quay.io/me/second:2", "localhost/test:latest"] {
            assert!(said.contains(&format!("Loaded image: {name}\n")), "{name} is not in {said}");
        }
        runs(scene, "quay.io/me/second:2");
        let listed = husk(scene, ["images", "-q"]).run().success().stdout;
        assert_eq!(listed.lines().count(), 2, "{listed}");
    }
}

fn what_cannot_be_saved_is_refused(scene: &Scene) {
    load_mixed(scene);
    let path = file(scene, "out");
    husk(scene, ["save", "-o", &path, "nothing"]).run().exits_with(125).says("no such image");
    husk(scene, ["save", "--format", "oci-dir", "app:1"]).run().exits_with(125).says("--output DIR");
    let layout = scene.path().join("layout").display().to_string();
    husk(scene, ["save", "--format", "oci-dir", "-o", &layout, "app:1"]).run().exits_with(125).says("not empty");
    // A blob that is damaged here is not passed on.
    let blobs = std::fs::read_dir(scene.store().join("store/blobs/sha256")).expect("list the blobs");
    for blob in blobs.flatten().filter(|blob| blob.metadata().is_ok_and(|metadata| metadata.len() > 8192)) {
        let file = std::fs::File::options().write(true).open(blob.path()).expect("open a blob");
        std::os::unix::fs::FileExt::write_all_at(&file, b"damage", 4096).expect("damage a blob");
    }
    husk(scene, ["save", "-o", &path, "app:1"]).run().exits_with(125).says("digest mismatch");
    assert!(!Path::new(&path).exists(), "half an archive is left");
}

fn a_pulled_image_keeps_its_digest_through_save_and_load(scene: &Scene) {
    let registry = Real::start(scene, "");
    let name = registry.hold(scene, &mixed(scene), "some/app:1");
    husk(scene, ["pull", "-q", &name]).run().success();
    let skopeo = |place: &str| {
        let mut command = scene.program("skopeo");
        command.env("HOME", scene.path()).args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", place]);
        command.run().success().stdout
    };
    let digest = skopeo(&format!("docker://{name}"));
    for format in ["docker-archive", "oci-archive"] {
        let path = file(scene, format);
        husk(scene, ["save", "--format", format, "-o", &path, &name]).run().success();
        // Also the docker archive is an OCI archive.
        assert_eq!(skopeo(&format!("oci-archive:{path}")), digest, "{format}");
        husk(scene, ["rmi", &name]).run().success();
        husk(scene, ["load", "-q", "-i", &path]).run().success();
        let listed = husk(scene, ["images", "--digests"]).run().success().stdout;
        assert!(listed.contains(digest.trim()), "{digest} is not in {listed}");
    }
    skopeo(&format!("docker-archive:{}", file(scene, "docker-archive")));
    let copy = format!("{}/copy:1", registry.host());
    husk(scene, ["push", "-q", &name, &copy]).run().success();
    assert_eq!(skopeo(&format!("docker://{copy}")), digest);
}

/// Podman with a store of its own. The paths are short: it allows its run root no more than 50 letters.
struct Podman<'s> {
    scene: &'s Scene,
    place: tempfile::TempDir,
}

impl<'s> Podman<'s> {
    fn new(scene: &'s Scene) -> Self {
        let place = tempfile::Builder::new().prefix("husk-").tempdir_in("/var/tmp").expect("make a directory");
        Self { scene, place }
    }

    fn run(&self, words: &[&str]) -> String {
        let at = |name: &str| self.place.path().join(name).display().to_string();
        // What it leaves in /run and /dev/shm goes with its mount namespace.
        let hide = "mount -t tmpfs hide /run && mount -t tmpfs hide /dev/shm && exec podman \"$@\"";
        let mut command = self.scene.program("unshare");
        command.args(["--mount", "--", "sh", "-c", hide, "podman"]);
        command.args(["--root", &at("graph"), "--runroot", &at("run"), "--tmpdir", &at("tmp")]);
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]).args(words);
        command.run().success().stdout
    }
}

fn podman_loads_what_is_saved(scene: &Scene) {
    let podman = Podman::new(scene);
    load_mixed(scene);
    let id = husk(scene, ["images", "-q", "--no-trunc"]).run().success().stdout;
    for format in ["docker-archive", "oci-archive"] {
        let path = file(scene, format);
        husk(scene, ["save", "--format", format, "-o", &path, "app:1"]).run().success();
        let said = podman.run(&["load", "-q", "-i", &path]);
        assert!(said.contains("docker.io/library/app:1"), "{format}: {said}");
        let listed = podman.run(&["images", "-q", "--no-trunc"]);
        assert_eq!(listed, id, "{format}");
        podman.run(&["rmi", "-f", "-a"]);
    }
}

fn what_podman_saves_is_loaded(scene: &Scene) {
    let podman = Podman::new(scene);
    let mut image = Image::busybox(scene);
    image.layers.push(Layer::new(&tar::archive(&[Entry::file("mark", "m")]), Compression::Gzip));
    let from = image.docker_archive(scene, "docker.tar").display().to_string();
    podman.run(&["load", "-q", "-i", &from]);
    for format in ["docker-archive", "oci-archive"] {
        let path = file(scene, format);
        podman.run(&["save", "-q", "--format", format, "-o", &path, "localhost/test"]);
        let said = husk(scene, ["load", "-q", "-i", &path]).run().success().stdout;
        assert_eq!(said, "Loaded image: localhost/test:latest\n", "{format}");
        let outcome = husk(scene, ["run", "--rm", "--pull=never", "test", "/bin/ls", "/"]).run().success();
        assert!(outcome.stdout.contains("mark"), "{format}: {}", outcome.stdout);
        husk(scene, ["rmi", "test"]).run().success();
    }
}

/// An image whose configuration tells of its making.
fn storied(scene: &Scene) -> String {
    let mut image = mixed(scene);
    image.config["Labels"] = serde_json::json!({ "stage": "test" });
    image.docker_archive(scene, "storied.tar").display().to_string()
}

fn images_are_listed_in_dockers_columns(scene: &Scene) {
    husk(scene, ["load", "-q", "-i", &storied(scene)]).run().success();
    husk(scene, ["tag", "test", "quay.io/me/other:2"]).run().success();
    let list = |words: &[&str]| husk(scene, ["images"].iter().chain(words)).run().success().stdout;
    let table = list(&[]);
    let mut lines = table.lines();
    let header: Vec<_> = lines.next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert_eq!(lines.count(), 2, "{table}");
    assert!(table.contains("localhost/test ") && table.contains("N/A"), "{table}");
    assert!(list(&["--digests"]).contains("sha256:"));
    let names = "{{.Repository}}:{{.Tag}}";
    for (filter, expected) in [
        ("reference=quay.io/*/*", "quay.io/me/other:2\n"),
        ("reference=localhost/test:latest", "localhost/test:latest\n"),
        ("label=stage=test", "localhost/test:latest\nquay.io/me/other:2\n"),
        ("label=stage=other", ""),
        ("dangling=true", ""),
    ] {
        assert_eq!(list(&["--format", names, "--filter", filter]), expected, "{filter}");
    }
    assert_eq!(list(&["-q"]).lines().count(), 1);
    husk(scene, ["images", "--filter", "colour=red"]).run().exits_with(125).says("invalid filter");
    husk(scene, ["image", "exists", "test"]).run().success();
    husk(scene, ["image", "exists", "nothing"]).run().exits_with(1);
}

fn an_image_is_inspected(scene: &Scene) {
    husk(scene, ["load", "-q", "-i", &storied(scene)]).run().success();
    let id = husk(scene, ["images", "-q", "--no-trunc"]).run().success().stdout;
    let text = husk(scene, ["inspect", "test"]).run().success().stdout;
    let described: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(described[0]["Id"], id.trim());
    assert_eq!(described[0]["RepoTags"], serde_json::json!(["localhost/test:latest"]));
    assert_eq!(described[0]["Config"]["Labels"]["stage"], "test");
    assert_eq!(described[0]["RootFS"]["Layers"].as_array().map(Vec::len), Some(4));
    let format = "{{.Os}} {{json .Config.Cmd}} {{.Config.Entrypoint}}";
    let line = husk(scene, ["image", "inspect", "-f", format, "test"]).run().success().stdout;
    assert_eq!(line, "linux [\"/probe\"] []\n");
    let partly = husk(scene, ["inspect", "-f", "{{.Os}}", "nothing", "test"])
        .run()
        .exits_with(1)
        .says("no such object: nothing");
    assert_eq!(partly.stdout, "linux\n");
    let history =
        husk(scene, ["history", "--format", "{{.ID}} {{.Size}}", "--no-trunc", "test"]).run().success().stdout;
    assert_eq!(history.lines().count(), 4, "{history}");
    assert!(history.starts_with(&format!("{} 5B\n<missing> 4B\n", id.trim())), "{history}");
}
