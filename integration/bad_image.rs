//! Bad images: refused with a message that names the file or field, status 125, nothing on the host touched, nothing
//! left in the store. An archive that climbs is refused or kept inside; which of the two is said at each row.

use std::path::Path;

use serde_json::{Value, json};

use super::support::image::{Compression, Image, Layer, Layout, digest, write_archive};
use super::support::scene::write;
use super::support::tar::{self, Entry};
use super::support::{Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(a_truncated_layer).and_plain(),
        test!(a_layer_of_another_digest).and_plain(),
        test!(a_layer_of_another_size),
        test!(a_layer_of_another_diff_id).and_plain(),
        test!(a_digest_that_is_none),
        test!(broken_compression),
        test!(broken_archives),
        test!(entries_that_climb).and_plain(),
        test!(links_that_climb).and_plain(),
        test!(hard_links_to_outside).and_plain(),
        test!(whiteouts_that_climb).and_plain(),
        test!(whiteouts_of_no_name),
        test!(overlay_attributes_are_not_taken).root(),
        test!(missing_parts_of_a_layout).and_plain(),
        test!(malformed_documents),
        test!(documents_that_disagree),
        test!(links_in_place_of_blobs).and_plain(),
        test!(documents_without_end),
        test!(bad_docker_archives).and_plain(),
        test!(sources_that_are_none).and_plain(),
        test!(a_directory_that_is_a_link),
        test!(an_image_for_another_machine),
        test!(a_good_image_runs_after_a_bad_one).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn run(scene: &Scene, image: &str) -> Outcome {
    scene.husk().args(["run", "--rm", image, "/bin/true"]).run()
}

/// Asserts a refusal: the status, a message that names one of these, and an empty store.
#[track_caller]
fn refused(scene: &Scene, image: &str, named: &[&str]) {
    let outcome = run(scene, image);
    assert_eq!(outcome.code(), 125, "{image} must be refused because of {named:?}");
    assert!(!outcome.stderr.contains("panicked"));
    outcome.says_one_of(named);
    nothing_is_left(scene);
}

/// No container, no layer that is half there, no temporary file. (Whole layers of a bad image may stay: they are right.)
#[track_caller]
fn nothing_is_left(scene: &Scene) {
    let count = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
    assert_eq!(count(&scene.store().join("containers")), 0, "a container is left");
    assert_eq!(count(&scene.store().join("names")), 0, "a name is left");
    let temporary = scene.store().join("store/tmp");
    let left: Vec<_> = std::fs::read_dir(&temporary)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| Path::new(name).extension().is_none_or(|extension| extension != "lock"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "half a layer is left");
}

/// A layout with one more layer.
fn with_layer(scene: &Scene, name: &str, layer: Layer) -> Layout {
    let mut image = Image::busybox(scene);
    image.layers.push(layer);
    image.layout(scene, name)
}

fn small_layer() -> Layer {
    Layer::new(&tar::archive(&[Entry::file("file", "x".repeat(5000))]), Compression::Gzip)
}

fn a_truncated_layer(scene: &Scene) {
    let layout = with_layer(scene, "layout", small_layer());
    let blob = layout.blob(&small_layer().digest);
    let whole = std::fs::read(&blob).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        write(&blob, &whole[..length]);
        refused(scene, &layout.reference(), &[&small_layer().digest[..19]]);
    }
}

fn a_layer_of_another_digest(scene: &Scene) {
    let layout = with_layer(scene, "layout", small_layer());
    let mut bytes = std::fs::read(layout.blob(&small_layer().digest)).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    write(&layout.blob(&small_layer().digest), bytes);
    refused(scene, &layout.reference(), &[&small_layer().digest[..19]]);
    // Valid in every other way.
    let other = Layer::new(&tar::archive(&[Entry::file("other", "")]), Compression::Gzip);
    write(&layout.blob(&small_layer().digest), other.blob);
    refused(scene, &layout.reference(), &[&small_layer().digest[..19]]);
}

fn a_layer_of_another_size(scene: &Scene) {
    for difference in [-1_isize, 1, 1_000_000] {
        let mut layer = small_layer();
        layer.size = layer.size.checked_add_signed(difference).unwrap();
        let layout = with_layer(scene, &format!("layout{difference}"), layer);
        refused(scene, &layout.reference(), &[&small_layer().digest[..19]]);
    }
}

fn a_layer_of_another_diff_id(scene: &Scene) {
    let mut layer = small_layer();
    layer.diff_id = digest(b"something else");
    let layout = with_layer(scene, "layout", layer.clone());
    refused(scene, &layout.reference(), &[&layer.diff_id[..19]]);
    let archive = {
        let mut image = Image::busybox(scene);
        image.layers.push(layer.clone());
        image.docker_archive(scene, "image.tar")
    };
    refused(scene, &format!("docker-archive:{}", archive.display()), &[&layer.diff_id[..19]]);
}

fn a_digest_that_is_none(scene: &Scene) {
    let sentinel = scene.sentinel();
    for bad in [
        "",
        "sha256",
        "sha256:",
        "sha256:abc",
        &format!("sha256:{}", "A".repeat(64)),
        &format!("md5:{}", "a".repeat(32)),
        "sha256:../../../../../../../../etc/passwd",
        &format!("sha256:{}/../../secret", "a".repeat(64)),
        &sentinel.join("secret").display().to_string(),
    ] {
        let layout = Image::busybox(scene).layout(scene, "layout");
        let mut manifest = layout.manifest();
        manifest["layers"][0]["digest"] = json!(bad);
        layout.set_manifest(&manifest.to_string());
        refused(scene, &layout.reference(), &["digest"]);
        std::fs::remove_dir_all(layout.directory).unwrap();
    }
}

/// The digests are right: what is inside is not.
fn broken_compression(scene: &Scene) {
    let whole = small_layer();
    let mut flipped = whole.blob.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let broken = [
        ("flipped", flipped),
        ("cut", whole.blob[..whole.blob.len() - 9].to_vec()),
        ("none", b"this is no gzip".to_vec()),
        ("zeros", vec![0; 4096]),
    ];
    for (name, blob) in broken {
        let layer = Layer { digest: digest(&blob), size: blob.len(), blob, ..whole.clone() };
        let layout = with_layer(scene, name, layer);
        refused(scene, &layout.reference(), &["layer", "gzip", "sha256:"]);
    }
}

fn broken_archives(scene: &Scene) {
    let good = tar::archive(&[Entry::file("file", "text")]);
    let mut wrong_sum = Entry::file("file", "text");
    wrong_sum.checksum = Some(1);
    let mut too_long = Entry::file("file", "text");
    too_long.claimed_size = Some(1 << 40);
    let mut negative = Entry::file("file", "text");
    negative.claimed_size = Some(u64::MAX);
    let rows = [
        ("cut-in-header", good[..300].to_vec()),
        ("cut-in-data", good[..514].to_vec()),
        ("checksum", tar::archive(&[wrong_sum])),
        ("too-long", tar::archive(&[too_long])),
        ("negative", tar::archive(&[negative])),
        (
            "bad-pax",
            tar::archive(&[
                Entry { kind: b'x', ..Entry::file("PaxHeaders/x", "99999999 path=x\n") },
                Entry::file("x", ""),
            ]),
        ),
        ("text", b"no archive at all, but longer than nothing".repeat(20)),
    ];
    for (name, archive) in rows {
        let layout = with_layer(scene, name, Layer::new(&archive, Compression::None));
        refused(scene, &layout.reference(), &["layer", "tar", "archive", "sha256:"]);
    }
}

/// Runs an image with entries that try to leave. It must be refused by name, or stay inside: the sentinel tells.
#[track_caller]
fn contained(scene: &Scene, name: &str, entries: &[Entry], must_be_refused: bool, named: &[&str]) {
    let sentinel = scene.sentinel();
    let layout = with_layer(scene, name, Layer::new(&tar::archive(entries), Compression::None));
    let outcome = run(scene, &layout.reference());
    assert!(!outcome.stderr.contains("panicked"));
    if must_be_refused || outcome.code() != 0 {
        assert_eq!(outcome.code(), 125, "{name} must be refused");
        outcome.says_one_of(named);
    }
    nothing_is_left(scene);
    std::fs::remove_dir_all(layout.directory).unwrap();
    assert!(!sentinel.join("escaped").exists());
}

fn up(path: &Path) -> String {
    format!("{}{}", "../".repeat(40), path.strip_prefix("/").unwrap().display())
}

fn entries_that_climb(scene: &Scene) {
    let escaped = scene.sentinel().join("escaped");
    let absolute = escaped.display().to_string();
    let relative = up(&escaped);
    contained(scene, "dots", &[Entry::file(&relative, "x")], true, &["escaped"]);
    contained(scene, "dots-inside", &[Entry::file(&format!("etc/{relative}"), "x")], true, &["escaped"]);
    contained(scene, "dots-only", &[Entry::file("..", "x")], true, &[".."]);
    contained(scene, "directory", &[Entry::directory(&relative)], true, &["escaped"]);
    contained(scene, "symlink", &[Entry::symlink(&relative, "x")], true, &["escaped"]);
    contained(scene, "pax", &[Entry::file("harmless", "x").pax("path", &relative)], true, &["escaped"]);
    contained(scene, "gnu", &[Entry::file(&format!("{}{relative}", "./".repeat(60)), "x").gnu()], true, &["escaped"]);
    // From the root of the layer, as every other tool has it, or refused.
    contained(scene, "absolute", &[Entry::file(&absolute, "x")], false, &["escaped"]);
    contained(scene, "nul", &[Entry::file("a", "x").pax("path", "a\0b")], true, &["path", "name", "NUL", "a"]);
    contained(scene, "empty", &[Entry::file("", "x")], false, &["name", "entry"]);
    contained(scene, "root-as-file", &[Entry::file("./", "x")], false, &["./", "entry", "."]);
}

fn links_that_climb(scene: &Scene) {
    let sentinel = scene.sentinel();
    let absolute = sentinel.display().to_string();
    let relative = up(&sentinel);
    for (name, target) in
        [("absolute", absolute.as_str()), ("relative", relative.as_str()), ("root", "/"), ("dots", "..")]
    {
        let inner = |path: &str| format!("link/{path}");
        contained(
            scene,
            name,
            &[Entry::symlink("link", target), Entry::file(&inner("escaped"), "x")],
            false,
            &["link"],
        );
        contained(scene, name, &[Entry::symlink("link", target), Entry::file(&inner("secret"), "x")], false, &["link"]);
        contained(
            scene,
            name,
            &[Entry::symlink("link", target), Entry::directory("link"), Entry::file(&inner("escaped"), "x")],
            false,
            &["link"],
        );
        contained(
            scene,
            name,
            &[Entry::symlink("link", target), Entry::directory("link/").mode(0o777)],
            false,
            &["link"],
        );
        contained(
            scene,
            name,
            &[Entry::symlink("link", target), Entry::file("link", "x").mode(0o777)],
            false,
            &["link"],
        );
        contained(
            scene,
            name,
            &[Entry::symlink("link", target), Entry::symlink(&inner("directory"), "/x")],
            false,
            &["link"],
        );
        contained(scene, name, &[Entry::symlink("link", target), Entry::fifo(&inner("escaped"))], false, &["link"]);
    }
    // The link in one layer, what goes through it in the next.
    let lower = tar::archive(&[Entry::symlink("link", &absolute)]);
    let upper = tar::archive(&[Entry::file("link/escaped", "x"), Entry::file("link/.wh.secret", "")]);
    let mut image = Image::busybox(scene);
    image.layers.extend([lower, upper].map(|archive| Layer::new(&archive, Compression::None)));
    let outcome = run(scene, &image.layout(scene, "layers").reference());
    assert!([0, 125].contains(&outcome.code()));
    // Two steps up.
    let steps =
        [Entry::symlink("a", "b/.."), Entry::symlink("b", "../.."), Entry::file(&format!("a/{relative}/escaped"), "x")];
    contained(scene, "steps", &steps, false, &["escaped"]);
}

fn hard_links_to_outside(scene: &Scene) {
    let secret = scene.sentinel().join("secret");
    let absolute = secret.display().to_string();
    for (name, target) in [("absolute", absolute.clone()), ("relative", up(&secret))] {
        contained(scene, name, &[Entry::hard_link("link", &target)], true, &["link", "secret"]);
        let then_write = [Entry::hard_link("link", &target), Entry::file("link", "overwritten").mode(0o777)];
        contained(scene, name, &then_write, true, &["link", "secret"]);
    }
    // Through a link, and to a link.
    let directory = scene.sentinel().display().to_string();
    let through = [Entry::symlink("way", &directory), Entry::hard_link("link", "way/secret")];
    contained(scene, "through", &through, true, &["link", "way/secret"]);
    let to_link =
        [Entry::symlink("way", &absolute), Entry::hard_link("link", "way"), Entry::file("link", "overwritten")];
    contained(scene, "to-link", &to_link, false, &["link", "way"]);
    contained(scene, "itself", &[Entry::hard_link("link", "link")], true, &["link"]);
    contained(scene, "missing", &[Entry::hard_link("link", "not/there")], true, &["link", "not/there"]);
    contained(scene, "directory", &[Entry::directory("d"), Entry::hard_link("link", "d")], true, &["link"]);
}

fn whiteouts_that_climb(scene: &Scene) {
    let sentinel = scene.sentinel();
    let directory = up(&sentinel);
    contained(scene, "dots", &[Entry::file(&format!("{directory}/.wh.secret"), "")], true, &["secret", ".wh."]);
    contained(scene, "opaque", &[Entry::file(&format!("{directory}/.wh..wh..opq"), "")], true, &[".wh."]);
    let link = Entry::symlink("link", &sentinel.display().to_string());
    contained(scene, "link", &[link.clone(), Entry::file("link/.wh.secret", "")], false, &["link", "secret"]);
    contained(scene, "link-opaque", &[link, Entry::file("link/.wh..wh..opq", "")], false, &["link", ".wh."]);
}

fn whiteouts_of_no_name(scene: &Scene) {
    for name in [".wh.", ".wh..", ".wh...", "etc/.wh."] {
        contained(scene, "none", &[Entry::file(name, "")], false, &[".wh."]);
    }
    let outcome = {
        let layout =
            with_layer(scene, "dots", Layer::new(&tar::archive(&[Entry::file("etc/.wh...", "")]), Compression::None));
        scene.husk().args(["run", "--rm", &layout.reference(), "/bin/ls", "/etc/passwd"]).run()
    };
    assert!([0, 125].contains(&outcome.code()), "`.wh...` must not remove the parent");
}

/// An attribute of the overlay's own in a layer could show another place (CVE-2021-3493's kin).
fn overlay_attributes_are_not_taken(scene: &Scene) {
    let sentinel = scene.sentinel();
    let target = format!("/{}", up(&sentinel));
    for prefix in ["trusted.overlay", "user.overlay"] {
        let layer = [
            Entry::directory("shown").xattr(&format!("{prefix}.redirect"), target.as_bytes()),
            Entry::directory("etc").xattr(&format!("{prefix}.opaque"), b"y"),
            Entry::file("meta", "").xattr(&format!("{prefix}.metacopy"), b""),
        ];
        let layout = with_layer(scene, prefix, Layer::new(&tar::archive(&layer), Compression::None));
        let mut command = scene.husk();
        command.args(["run", "--rm", &layout.reference(), "/bin/ls", "/shown", "/etc"]);
        let outcome = command.run();
        if outcome.code() == 0 {
            // /etc first: with the lower layer's file beside the container's own, so the foreign mark did not hide it; and
            // nothing in /shown.
            assert_eq!(outcome.stdout.trim(), "/etc:\nhostname\nhosts\npasswd\nresolv.conf\n\n/shown:", "{prefix}");
        } else {
            outcome.exits_with(125).says("overlay");
        }
    }
}

fn missing_parts_of_a_layout(scene: &Scene) {
    for missing in ["index.json", "oci-layout"] {
        let layout = Image::busybox(scene).layout(scene, missing);
        std::fs::remove_file(layout.directory.join(missing)).unwrap();
        refused(scene, &layout.reference(), &[missing]);
    }
    let layout = Image::busybox(scene).layout(scene, "layout");
    let configuration = layout.manifest()["config"]["digest"].as_str().unwrap().to_owned();
    std::fs::remove_file(layout.blob(&configuration)).unwrap();
    refused(scene, &layout.reference(), &[&configuration[..19]]);
    let layout = with_layer(scene, "other", small_layer());
    std::fs::remove_file(layout.blob(&small_layer().digest)).unwrap();
    refused(scene, &layout.reference(), &[&small_layer().digest[..19]]);
    refused(scene, &format!("oci:{}:no-such-tag", layout.directory.display()), &["no-such-tag"]);
}

fn malformed_documents(scene: &Scene) {
    for text in ["", "{", "[]", "null", "{\"schemaVersion\": \"two\"}", "{\"manifests\": 7}"] {
        let layout = Image::busybox(scene).layout(scene, "layout");
        write(&layout.directory.join("index.json"), text);
        refused(scene, &layout.reference(), &["index.json"]);
        layout.set_manifest(text);
        refused(scene, &layout.reference(), &["manifest"]);
        write(&layout.directory.join("oci-layout"), text);
        refused(scene, &layout.reference(), &["oci-layout"]);
        std::fs::remove_dir_all(layout.directory).unwrap();
    }
    for (pointer, value) in [
        ("/layers/0/size", json!(-1)),
        ("/layers/0/size", json!("large")),
        ("/layers/0/mediaType", json!("application/x-unknown")),
        ("/config", Value::Null),
        ("/config/digest", json!(5)),
    ] {
        let layout = Image::busybox(scene).layout(scene, "layout");
        let mut manifest = layout.manifest();
        *manifest.pointer_mut(pointer).unwrap() = value;
        layout.set_manifest(&manifest.to_string());
        let field = pointer.rsplit('/').next().unwrap();
        refused(scene, &layout.reference(), &[field, "x-unknown", "manifest"]);
        std::fs::remove_dir_all(layout.directory).unwrap();
    }
}

fn documents_that_disagree(scene: &Scene) {
    // More diff ids than layers, and fewer.
    let image = Image::busybox(scene).layer(&[Entry::file("a", "")]);
    let layout = image.layout(scene, "layout");
    let mut manifest = layout.manifest();
    manifest["layers"].as_array_mut().unwrap().pop();
    layout.set_manifest(&manifest.to_string());
    refused(scene, &layout.reference(), &["diff_ids", "layers"]);
    let mut manifest = image.layout(scene, "second").manifest();
    let again = manifest["layers"][1].clone();
    manifest["layers"].as_array_mut().unwrap().push(again);
    layout.set_manifest(&manifest.to_string());
    refused(scene, &layout.reference(), &["diff_ids", "layers"]);
    // Both a manifest and an index (CVE-2021-41190).
    let layout = Image::busybox(scene).layout(scene, "ambiguous");
    let mut manifest = layout.manifest();
    manifest["manifests"] = json!([]);
    layout.set_manifest(&manifest.to_string());
    refused(scene, &layout.reference(), &["manifests", "manifest"]);
}

fn links_in_place_of_blobs(scene: &Scene) {
    let secret = scene.sentinel().join("secret");
    let layout = Image::busybox(scene).layout(scene, "layout");
    std::fs::remove_file(layout.directory.join("index.json")).unwrap();
    std::os::unix::fs::symlink(&secret, layout.directory.join("index.json")).unwrap();
    let outcome = run(scene, &layout.reference()).exits_with(125).says("index.json");
    assert!(
        !outcome.stderr.contains(super::support::sentinel::SECRET),
        "the message shows the file: {}",
        outcome.stderr
    );
    let layout = with_layer(scene, "second", small_layer());
    let blob = layout.blob(&small_layer().digest);
    std::fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink(&secret, &blob).unwrap();
    refused(scene, &layout.reference(), &[&small_layer().digest[..19]]);
}

fn documents_without_end(scene: &Scene) {
    for file in ["index.json", "oci-layout"] {
        for source in ["/dev/zero", "fifo"] {
            let layout = Image::busybox(scene).layout(scene, "layout");
            let path = layout.directory.join(file);
            std::fs::remove_file(&path).unwrap();
            if source == "fifo" {
                let mode = rustix::fs::Mode::from_raw_mode(0o666);
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
            } else {
                std::os::unix::fs::symlink(source, &path).unwrap();
            }
            refused(scene, &layout.reference(), &[file]);
            std::fs::remove_dir_all(layout.directory).unwrap();
        }
    }
    // Large, and all of it white space.
    let layout = Image::busybox(scene).layout(scene, "layout");
    write(&layout.directory.join("index.json"), " ".repeat(64 << 20));
    refused(scene, &layout.reference(), &["index.json"]);
}

fn bad_docker_archives(scene: &Scene) {
    let good = std::fs::read(Image::busybox(scene).docker_archive(scene, "good.tar")).unwrap();
    let archive = |name: &str, bytes: &[u8]| {
        let path = scene.path().join(name);
        write(&path, bytes);
        format!("docker-archive:{}", path.display())
    };
    refused(scene, &archive("cut.tar", &good[..good.len() / 2]), &["manifest.json", "cut.tar"]);
    refused(scene, &archive("empty.tar", &[]), &["manifest.json", "empty.tar"]);
    refused(scene, &archive("text.tar", b"no archive"), &["text.tar", "manifest.json"]);
    let manifest = |text: &str| {
        let path = write_archive(scene, "manifest.tar", &[Entry::file("manifest.json", text)]);
        format!("docker-archive:{}", path.display())
    };
    refused(scene, &manifest("{"), &["manifest.json"]);
    refused(scene, &manifest("[]"), &["manifest.json", "image"]);
    let secret = scene.sentinel().join("secret").display().to_string();
    for layer in ["../../../../etc/passwd", secret.as_str(), "not-there.tar"] {
        let text = json!([{ "Config": "config.json", "RepoTags": [], "Layers": [layer] }]).to_string();
        let config = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}"#;
        let entries = [Entry::file("manifest.json", text), Entry::file("config.json", config)];
        let path = write_archive(scene, "layers.tar", &entries);
        refused(scene, &format!("docker-archive:{}", path.display()), &[layer]);
    }
    // A member that is a link to the host.
    let text = json!([{ "Config": "config.json", "RepoTags": [], "Layers": [] }]).to_string();
    let entries = [Entry::file("manifest.json", text), Entry::symlink("config.json", &secret)];
    let path = write_archive(scene, "links.tar", &entries);
    refused(scene, &format!("docker-archive:{}", path.display()), &["config.json"]);
}

fn sources_that_are_none(scene: &Scene) {
    let file = scene.path().join("file");
    write(&file, "text");
    for (image, named) in [
        ("oci:/no/such/directory".to_owned(), "/no/such/directory"),
        ("oci-archive:/no/such/file".to_owned(), "/no/such/file"),
        ("docker-archive:/no/such/file".to_owned(), "/no/such/file"),
        ("dir:/no/such/directory".to_owned(), "/no/such/directory"),
        (format!("dir:{}", file.display()), "file"),
        (format!("oci:{}", file.display()), "file"),
        (format!("oci-archive:{}", scene.path().display()), &scene.path().display().to_string()),
        ("docker-archive:/dev/zero".to_owned(), "/dev/zero"),
        ("oci:".to_owned(), "oci:"),
        ("dir:".to_owned(), "dir:"),
        ("Nonsense:x".to_owned(), "Nonsense"),
    ] {
        refused(scene, &image, &[named]);
    }
}

fn a_directory_that_is_a_link(scene: &Scene) {
    let link = scene.path().join("link");
    std::os::unix::fs::symlink(scene.sentinel(), &link).unwrap();
    // Followed or refused, the host's files stay.
    let outcome = run(scene, &format!("dir:{}", link.display()));
    assert_ne!(outcome.code(), 0);
}

fn an_image_for_another_machine(scene: &Scene) {
    for (field, value) in [("architecture", "s390x"), ("os", "windows")] {
        let image = Image::busybox(scene);
        let layout = image.layout(scene, field);
        let mut configuration = image.configuration();
        configuration[field] = json!(value);
        let text = configuration.to_string();
        let mut manifest = layout.manifest();
        manifest["config"]["digest"] = json!(layout.add_blob(text.as_bytes()));
        manifest["config"]["size"] = json!(text.len());
        layout.set_manifest(&manifest.to_string());
        let outcome = run(scene, &layout.reference());
        // A warning or a refusal, but never silence.
        assert!([0, 125].contains(&outcome.code()));
        outcome.says(value);
    }
}

fn a_good_image_runs_after_a_bad_one(scene: &Scene) {
    let layout = with_layer(scene, "layout", small_layer());
    let blob = layout.blob(&small_layer().digest);
    let whole = std::fs::read(&blob).unwrap();
    write(&blob, &whole[..whole.len() / 2]);
    refused(scene, &layout.reference(), &[&small_layer().digest[..19]]);
    write(&blob, &whole);
    run(scene, &layout.reference()).success();
}
