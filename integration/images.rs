//! Local images: every source, every compression, what layers can hold, and what other tools write.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::support::bundle::fill_rootfs;
use super::support::image::{Compression, Image, Layer};
use super::support::scene::write;
use super::support::tar::{self, Entry};
use super::support::{Need, Outcome, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(every_source_runs).and_plain(),
        test!(every_compression_is_read),
        test!(written_by_skopeo).and_plain().needs(Need::Program("skopeo")),
        test!(written_by_podman).needs(Need::Program("podman")),
        test!(written_by_umoci).needs(Need::Program("umoci")),
        test!(whiteouts_hide).and_plain(),
        test!(opaque_directories_hide_all).and_plain(),
        test!(kinds_may_change_between_layers).and_plain(),
        test!(hard_links_share_an_inode).and_plain(),
        test!(attributes_are_kept).and_plain(),
        test!(special_files).and_plain(),
        test!(modes_owners_and_times).and_plain(),
        test!(long_names_of_both_kinds),
        test!(sparse_files_as_gnu_tar_writes_them).needs(Need::Program("tar")),
        test!(names_in_any_encoding),
        test!(layers_of_gnu_tar).needs(Need::Program("tar")),
        test!(layers_are_unpacked_once),
        test!(writes_go_to_a_layer_of_the_containers_own).and_plain(),
        test!(two_at_once).and_plain(),
        test!(a_directory_is_not_written_to).and_plain(),
        test!(the_store_holds_the_image_by_itself),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// `husk run --rm` of an image.
fn run(scene: &Scene, image: &str, command: &[&str]) -> Outcome {
    scene.husk().args(["run", "--rm", image]).args(command).run()
}

/// A shell script in an image of the base layer and these entries.
#[track_caller]
fn script(scene: &Scene, layers: &[&[Entry]], text: &str) -> String {
    let image = layers.iter().fold(Image::probe(scene), |image, entries| image.layer(entries));
    let layout = image.layout(scene, "layout");
    run(scene, &layout.reference(), &["/bin/sh", "-c", text]).success().stdout
}

fn every_source_runs(scene: &Scene) {
    let image = Image::probe(scene).layer(&[Entry::file("mark", "of the image")]);
    let layout = image.layout(scene, "layout");
    let oci_archive = layout.archive(scene, "image.oci.tar");
    let docker_archive = image.docker_archive(scene, "image.docker.tar");
    let directory = scene.path().join("directory");
    fill_rootfs(&directory, scene.who);
    write(&directory.join("mark"), "of the image");
    scene.account().own(&directory);
    let sources = [
        format!("oci:{}:latest", layout.directory.display()),
        format!("oci:{}", layout.directory.display()),
        format!("oci-archive:{}", oci_archive.display()),
        format!("oci-archive:{}:latest", oci_archive.display()),
        format!("docker-archive:{}", docker_archive.display()),
        format!("docker-archive:{}:localhost/test:latest", docker_archive.display()),
        format!("dir:{}", directory.display()),
    ];
    for source in sources {
        let report = run(scene, &source, &["/probe", "--read", "/mark"]).success().report();
        assert_eq!(report["reads"]["/mark"], "of the image", "{source}");
        assert_eq!(report["pid"], 1, "{source}");
        run(scene, &source, &["/probe", "--quiet", "--exit", "9"]).exits_with(9);
    }
    // Relative to the caller's directory, too.
    scene.husk().args(["run", "--rm", "oci:layout", "/bin/true"]).current_directory(scene.path()).run().success();
}

fn every_compression_is_read(scene: &Scene) {
    let mut image = Image::probe(scene);
    for (name, compression) in [("plain", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)]
    {
        let archive = tar::archive(&[Entry::file(&format!("from-{name}"), name)]);
        image.layers.push(Layer::new(&archive, compression));
    }
    let read = ["/probe", "--read", "/from-plain", "--read", "/from-gzip", "--read", "/from-zstd"];
    let expected = json!({ "/from-plain": "plain", "/from-gzip": "gzip", "/from-zstd": "zstd" });
    let layout = image.layout(scene, "layout");
    assert_eq!(run(scene, &layout.reference(), &read).success().report()["reads"], expected);
    let archive = image.docker_archive(scene, "image.tar");
    let report = run(scene, &format!("docker-archive:{}", archive.display()), &read).success().report();
    assert_eq!(report["reads"], expected);
}

fn written_by_skopeo(scene: &Scene) {
    let archive = Image::probe(scene).docker_archive(scene, "image.tar");
    let skopeo = |destination: &str, flags: &[&str]| {
        let mut command = scene.program("/usr/bin/skopeo");
        command.args(["copy", "--insecure-policy", "--quiet"]).args(flags);
        command.arg(format!("docker-archive:{}", archive.display())).arg(destination).as_root().run().success();
    };
    let path = |name: &str| scene.path().join(name).display().to_string();
    skopeo(&format!("oci:{}:tagged", path("layout")), &[]);
    skopeo(&format!("oci-archive:{}", path("archive.tar")), &[]);
    skopeo(&format!("docker-archive:{}:some/name:v1", path("docker.tar")), &[]);
    skopeo(&format!("oci:{}:zstd", path("zstd")), &["--dest-compress-format", "zstd"]);
    scene.account().own(scene.path());
    for source in [
        format!("oci:{}:tagged", path("layout")),
        format!("oci-archive:{}", path("archive.tar")),
        format!("docker-archive:{}", path("docker.tar")),
        format!("docker-archive:{}:some/name:v1", path("docker.tar")),
        format!("oci:{}:zstd", path("zstd")),
    ] {
        let report = run(scene, &source, &[]).success().report();
        assert_eq!(report["argv"], json!(["/probe"]), "{source}");
    }
}

fn written_by_podman(scene: &Scene) {
    // podman takes no more than 50 characters here.
    const RUNROOT: &str = "/tmp/podman";
    let archive = Image::probe(scene).docker_archive(scene, "image.tar");
    let path = |name: &str| scene.path().join(name).display().to_string();
    let podman = |arguments: &[&str]| {
        let mut command = scene.program("/usr/bin/podman");
        command.args(["--root", &path("podman"), "--runroot", RUNROOT, "--storage-driver", "vfs"]);
        command.args(["--events-backend", "none"]).args(arguments).as_root().run().success()
    };
    podman(&["load", "--quiet", "--input", &archive.display().to_string()]);
    let name = "localhost/test:latest";
    podman(&["save", "--quiet", "--format", "docker-archive", "--output", &path("docker.tar"), name]);
    podman(&["save", "--quiet", "--format", "oci-archive", "--output", &path("oci.tar"), name]);
    podman(&["save", "--quiet", "--format", "oci-dir", "--output", &path("oci"), name]);
    std::fs::remove_dir_all(path("podman")).unwrap();
    for directory in [RUNROOT, "/run/libpod", "/run/containers", "/run/crun"] {
        _ = std::fs::remove_dir_all(directory);
    }
    _ = std::fs::remove_file("/dev/shm/libpod_lock");
    scene.account().own(scene.path());
    for source in [
        format!("docker-archive:{}", path("docker.tar")),
        format!("oci-archive:{}", path("oci.tar")),
        format!("oci:{}", path("oci")),
    ] {
        assert_eq!(run(scene, &source, &[]).success().report()["argv"], json!(["/probe"]), "{source}");
    }
}

fn written_by_umoci(scene: &Scene) {
    let layout = scene.path().join("layout").display().to_string();
    let umoci = |arguments: &[&str]| {
        scene.program("/usr/bin/umoci").args(arguments).as_root().run().success();
    };
    let rootfs = scene.path().join("layer");
    fill_rootfs(&rootfs, Who::Root);
    let archive = scene.path().join("layer.tar");
    let mut command = scene.program("/usr/bin/tar");
    command
        .arg("--create")
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(&rootfs)
        .arg(".")
        .as_root()
        .run()
        .success();
    let image = format!("{layout}:made");
    umoci(&["init", "--layout", &layout]);
    umoci(&["new", "--image", &image]);
    umoci(&["raw", "add-layer", "--image", &image, &archive.display().to_string()]);
    umoci(&[
        "config",
        "--image",
        &image,
        "--config.cmd",
        "/probe",
        "--config.cmd",
        "--report",
        "--config.env",
        "MADE=by umoci",
    ]);
    scene.account().own(scene.path());
    let report = run(scene, &format!("oci:{image}"), &[]).success().report();
    assert_eq!(report["argv"], json!(["/probe", "--report"]));
    assert_eq!(report["env"]["MADE"], "by umoci");
}

fn whiteouts_hide(scene: &Scene) {
    let lower = [
        Entry::directory("a"),
        Entry::file("a/kept", ""),
        Entry::file("a/gone", ""),
        Entry::directory("tree"),
        Entry::file("tree/inner", ""),
        Entry::symlink("link", "a/kept"),
    ];
    let upper = [Entry::file("a/.wh.gone", ""), Entry::file(".wh.tree", ""), Entry::file(".wh.link", "")];
    let output =
        script(scene, &[&lower, &upper], "ls -A /a; test -e /tree || echo no tree; test -L /link || echo no link");
    assert_eq!(output, "kept\nno tree\nno link\n");
}

fn opaque_directories_hide_all(scene: &Scene) {
    let lower =
        [Entry::directory("a"), Entry::file("a/old", ""), Entry::directory("a/deep"), Entry::file("a/deep/old", "")];
    let upper = [Entry::directory("a"), Entry::file("a/.wh..wh..opq", ""), Entry::file("a/new", "")];
    assert_eq!(script(scene, &[&lower, &upper], "ls -A /a"), "new\n");
    // The mark counts for its whole layer, wherever in the archive it stands.
    let late = [Entry::directory("a"), Entry::file("a/new", ""), Entry::file("a/.wh..wh..opq", "")];
    let scripted = Image::probe(scene).layer(&lower).layer(&late).layout(scene, "late");
    assert_eq!(run(scene, &scripted.reference(), &["/bin/ls", "-A", "/a"]).success().stdout, "new\n");
}

fn kinds_may_change_between_layers(scene: &Scene) {
    let lower = [
        Entry::file("file", "text"),
        Entry::directory("directory"),
        Entry::file("directory/inner", ""),
        Entry::symlink("link", "etc"),
        Entry::directory("again"),
        Entry::file("again/inner", ""),
    ];
    let upper = [
        Entry::directory("file"),
        Entry::file("file/inner", "now a directory"),
        Entry::file("directory", "now a file"),
        Entry::directory("link"),
        Entry::file(".wh.again", ""),
    ];
    let top = [Entry::directory("again"), Entry::file("again/new", "")];
    let text =
        "cat /file/inner; echo; cat /directory; echo; test -L /link || ls -A /link; ls -A /again; ls /etc | wc -l";
    // With hostname, hosts and resolv.conf, which are the container's own.
    assert_eq!(script(scene, &[&lower, &upper, &top], text), "now a directory\nnow a file\nnew\n5\n");
}

fn hard_links_share_an_inode(scene: &Scene) {
    let layer = [
        Entry::file("first", "shared"),
        Entry::hard_link("second", "first"),
        Entry::hard_link("third", "/first"),
        Entry::hard_link("fourth", "./first"),
    ];
    let layout = Image::probe(scene).layer(&layer).layout(scene, "layout");
    let names = ["/first", "/second", "/third", "/fourth"];
    let stats: Vec<&str> = names.iter().flat_map(|name| ["--stat", name]).collect();
    let mut command = vec!["/probe", "--read", "/third"];
    command.extend(stats);
    let report = run(scene, &layout.reference(), &command).success().report();
    assert_eq!(report["reads"]["/third"], "shared");
    for name in names {
        assert_eq!(report["stats"][name]["inode"], report["stats"]["/first"]["inode"], "{name}");
        assert_eq!(report["stats"][name]["links"], 4, "{name}");
    }
}

fn attributes_are_kept(scene: &Scene) {
    let layer = [
        Entry::file("file", "").xattr("user.mime_type", b"text/plain"),
        Entry::directory("directory").xattr("user.note", b"kept"),
    ];
    let layout = Image::probe(scene).layer(&layer).layout(scene, "layout");
    let command = ["/probe", "--xattr", "/file", "user.mime_type", "--xattr", "/directory", "user.note"];
    let report = run(scene, &layout.reference(), &command).success().report();
    assert_eq!(report["xattrs"], json!({ "/file": "text/plain", "/directory": "kept" }));
}

/// A user can't make device nodes: that may not fail the unpack.
fn special_files(scene: &Scene) {
    let layer = [Entry::fifo("pipe"), Entry::device("null-device", 1, 3)];
    let layout = Image::probe(scene).layer(&layer).layout(scene, "layout");
    let report =
        run(scene, &layout.reference(), &["/probe", "--stat", "/pipe", "--stat", "/null-device"]).success().report();
    assert_eq!(report["stats"]["/pipe"]["kind"], "fifo");
    if scene.who == Who::Root {
        let node = &report["stats"]["/null-device"];
        assert_eq!((&node["kind"], &node["device"]), (&json!("char"), &json!([1, 3])));
    }
}

fn modes_owners_and_times(scene: &Scene) {
    let layer = [
        Entry::file("suid", "").mode(0o4755),
        Entry::file("alices", "").owner(1000, 1001).mode(0o640),
        Entry::directory("sticky").mode(0o1777),
        Entry::file("high", "").owner(60_000, 60_001),
        Entry::symlink("link", "alices").owner(1000, 1001),
        Entry::directory("closed").mode(0o000),
        Entry::file("closed/inner", "").mode(0o000),
    ];
    let text = "stat -c '%n %a %u:%g %Y' /suid /alices /sticky /high /link /closed /closed/inner";
    let output = script(scene, &[&layer], text);
    let owners = |ids: &str| if scene.who == Who::Plain { "0:0".to_owned() } else { ids.to_owned() };
    // Of a user with one id, a program that sets its user would set the caller's own: only the record keeps the bit.
    let suid = if scene.who == Who::Plain { "755" } else { "4755" };
    let expected = [
        format!("/suid {suid} 0:0 1700000000"),
        format!("/alices 640 {} 1700000000", owners("1000:1001")),
        "/sticky 1777 0:0 1700000000".to_owned(),
        format!("/high 644 {} 1700000000", owners("60000:60001")),
        format!("/link 777 {} 1700000000", owners("1000:1001")),
        "/closed 0 0:0 1700000000".to_owned(),
        "/closed/inner 0 0:0 1700000000".to_owned(),
    ];
    assert_eq!(output.lines().collect::<Vec<_>>(), expected);
}

fn long_names_of_both_kinds(scene: &Scene) {
    let directories = format!("{}/{}", "d".repeat(90), "e".repeat(90));
    for gnu in [false, true] {
        let name = format!("{directories}/{}", "f".repeat(200));
        let target = "t".repeat(300);
        let mut layer =
            vec![Entry::file(&name, "found"), Entry::symlink("long-link", &target), Entry::hard_link("short", &name)];
        if gnu {
            layer = layer.into_iter().map(Entry::gnu).collect();
        }
        let layout = Image::probe(scene).layer(&layer).layout(scene, &format!("layout-{gnu}"));
        let path = format!("/{name}");
        let command = ["/probe", "--read", &path, "--stat", "/long-link", "--read", "/short"];
        let report = run(scene, &layout.reference(), &command).success().report();
        assert_eq!(report["reads"][&path], "found", "gnu: {gnu}");
        assert_eq!(report["reads"]["/short"], "found", "gnu: {gnu}");
        assert_eq!(report["stats"]["/long-link"]["target"], json!(target), "gnu: {gnu}");
    }
}

/// Packs a directory with the host's tar.
fn pack(scene: &Scene, directory: &Path, flags: &[&str]) -> Vec<u8> {
    let archive = scene.path().join("packed.tar");
    let mut command = scene.program("/usr/bin/tar");
    command.args(["--create", "--owner=0", "--group=0", "--numeric-owner"]).args(flags);
    command.arg("--file").arg(&archive).arg("--directory").arg(directory).arg(".").as_root().run().success();
    std::fs::read(archive).unwrap()
}

fn sparse_files_as_gnu_tar_writes_them(scene: &Scene) {
    use std::os::unix::fs::FileExt;
    let directory = scene.tree("sparse", &[]);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(directory.join("holes")).unwrap();
    // Data, a hole, data, a hole to the end.
    file.set_len(20 << 20).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 10 << 20).unwrap();
    drop(file);
    for flags in [
        &["--sparse", "--format=gnu"][..],
        &["--sparse", "--format=posix", "--sparse-version=1.0"],
        &["--sparse", "--format=posix", "--sparse-version=0.1"],
        &["--sparse", "--format=posix", "--sparse-version=0.0"],
        &["--format=ustar"],
    ] {
        let mut image = Image::probe(scene);
        image.layers.push(Layer::new(&pack(scene, &directory, flags), Compression::Gzip));
        let layout = image.layout(scene, &format!("layout{}", flags.join("")));
        let text =
            "stat -c %s /holes; head -c 5 /holes; echo; dd if=/holes bs=1M skip=10 count=1 2>/dev/null | head -c 6";
        let output = run(scene, &layout.reference(), &["/bin/sh", "-c", text]).success().stdout;
        assert_eq!(output, format!("{}\nbegin\nmiddle", 20 << 20), "{flags:?}");
    }
}

fn names_in_any_encoding(scene: &Scene) {
    let layer = [
        Entry::file("zażółć", "pax").pax("comment", "x"),
        Entry::file("with blank and\nnewline", "odd"),
        Entry::file("from-header", "renamed").pax("path", "from-pax-ünï"),
    ];
    let layout = Image::probe(scene).layer(&layer).layout(scene, "layout");
    let command = ["/probe", "--read", "/zażółć", "--read", "/with blank and\nnewline", "--read", "/from-pax-ünï"];
    let report = run(scene, &layout.reference(), &command).success().report();
    let read: Vec<&Value> =
        command[1..].iter().filter(|word| word.starts_with('/')).map(|path| &report["reads"][path]).collect();
    assert_eq!(read, ["pax", "odd", "renamed"]);
}

fn layers_of_gnu_tar(scene: &Scene) {
    let directory = scene.tree("tree", &[("a/b/c/file", "text"), ("other", "more")]);
    std::fs::hard_link(directory.join("other"), directory.join("a/linked")).unwrap();
    std::os::unix::fs::symlink("b/c/file", directory.join("a/link")).unwrap();
    for format in ["--format=gnu", "--format=posix", "--format=ustar", "--format=oldgnu"] {
        let mut image = Image::probe(scene);
        image.layers.push(Layer::new(&pack(scene, &directory, &[format]), Compression::Gzip));
        let layout = image.layout(scene, &format!("layout{format}"));
        let output = run(scene, &layout.reference(), &["/bin/cat", "/a/link", "/a/linked"]).success().stdout;
        assert_eq!(output, "textmore", "{format}");
    }
}

/// The unpacked layers in the store, by inode.
fn unpacked(scene: &Scene) -> Vec<(PathBuf, u64)> {
    let layers = scene.store().join("store/layers");
    let mut found: Vec<(PathBuf, u64)> = walkdir::WalkDir::new(layers)
        .max_depth(5)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_name() == "diff")
        .map(|entry| (entry.path().to_owned(), entry.metadata().unwrap().ino()))
        .collect();
    found.sort();
    found
}

fn layers_are_unpacked_once(scene: &Scene) {
    let extra = Entry::file("extra", "x");
    let first = Image::probe(scene).layer(&[extra]).layout(scene, "first");
    run(scene, &first.reference(), &["/bin/true"]).success();
    let before = unpacked(scene);
    assert_eq!(before.len(), 2, "{before:?}");
    run(scene, &first.reference(), &["/bin/true"]).success();
    assert_eq!(unpacked(scene), before);
    // Another image shares the layer that it has in common, in another form too.
    let mut second = Image::probe(scene);
    let archive = second.layers[0].blob.clone();
    second.layers[0] = Layer::new(&archive, Compression::Zstd);
    let second = second.layer(&[Entry::file("other", "y")]).layout(scene, "second");
    run(scene, &second.reference(), &["/bin/true"]).success();
    let after = unpacked(scene);
    assert_eq!(after.len(), 3, "{after:?}");
    assert!(before.iter().all(|layer| after.contains(layer)));
}

fn writes_go_to_a_layer_of_the_containers_own(scene: &Scene) {
    let layout = Image::probe(scene).layer(&[Entry::file("mark", "of the image")]).layout(scene, "layout");
    let text = "cat /mark; echo changed > /mark; rm -r /etc; mkdir /new; cat /mark";
    for _ in 0..2 {
        let output = run(scene, &layout.reference(), &["/bin/sh", "-c", text]).success().stdout;
        assert_eq!(output, "of the imagechanged\n");
    }
}

fn two_at_once(scene: &Scene) {
    let layout = Image::probe(scene).layout(scene, "layout");
    // With an empty store both unpack the same layer at the same time.
    let mut running: Vec<_> = (0..4)
        .map(|number| {
            let exit = number.to_string();
            let mut command = scene.husk();
            command.args(["run", "--rm", &layout.reference(), "/probe", "--quiet", "--catch", "--exit", &exit]).start()
        })
        .collect();
    for one in &mut running {
        one.line_with("ready");
    }
    for one in &running {
        one.signal(rustix::process::Signal::TERM);
    }
    for (number, one) in running.into_iter().enumerate() {
        one.finish().exits_with(i32::try_from(number).unwrap());
    }
    assert_eq!(unpacked(scene).len(), 1);
}

fn a_directory_is_not_written_to(scene: &Scene) {
    let directory = scene.path().join("directory");
    fill_rootfs(&directory, scene.who);
    scene.account().own(&directory);
    let before = super::support::sentinel::record(&directory);
    let text = "echo new > /etc/passwd; rm /etc/group; mkdir /made; touch /tmp/x";
    run(scene, &format!("dir:{}", directory.display()), &["/bin/sh", "-c", text]).success();
    let after = super::support::sentinel::record(&directory);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (path, line) in &before {
        assert_eq!(after[path], *line, "{}", path.display());
    }
}

/// A container that was kept starts from the store, not from the file that it was made of: removing the file is no harm
/// to one that runs.
fn the_store_holds_the_image_by_itself(scene: &Scene) {
    let archive = Image::probe(scene).docker_archive(scene, "image.tar");
    let mut command = scene.husk();
    command.args(["run", "--rm", &format!("docker-archive:{}", archive.display()), "/bin/sh", "-c"]);
    let mut running = command.arg("echo up; read line; exec /probe").start();
    running.line_with("up");
    std::fs::remove_file(archive).unwrap();
    running.write("go\n");
    running.finish().success();
}
