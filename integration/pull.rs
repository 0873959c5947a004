//! `pull` and `push`: against Debian's registry and tools, and against a registry that breaks, stalls and lies.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::support::certificate::Certificate;
use super::support::image::{Compression, Image, Layer, Layout, digest};
use super::support::registry::{Contents, Real, Reply, Request, Scripted, has_blob};
use super::support::tar::{self, Entry};
use super::support::{Invocation, Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    let real = |test: Test| test.needs(Need::Program("docker-registry")).needs(Need::Program("skopeo"));
    [
        real(test!(an_image_is_pulled_and_runs)).and_plain(),
        real(test!(what_was_pulled_is_pushed_byte_for_byte)).and_plain(),
        real(test!(a_blob_is_mounted_and_not_sent_twice)),
        real(test!(names_are_given_and_taken)),
        real(test!(a_password_is_asked_for)).needs(Need::Program("htpasswd")),
        real(test!(a_certificate_is_checked)).needs(Need::Program("openssl")),
        real(test!(an_index_is_made_and_pushed)),
        test!(zstd_and_plain_layers_are_pulled).and_plain(),
        test!(the_platform_chooses),
        test!(a_broken_connection_goes_on_where_it_was).and_plain(),
        test!(a_killed_pull_is_gone_on_with).and_plain(),
        test!(a_part_that_is_wrong_is_fetched_again),
        test!(two_pulls_share_the_work).and_plain(),
        test!(a_busy_registry_is_asked_again),
        test!(lies_about_documents_are_seen).and_plain(),
        test!(lies_of_an_index_are_seen),
        test!(lies_about_blobs_are_seen).and_plain(),
        test!(answers_without_end_are_cut),
        test!(credentials_do_not_follow_a_redirect),
        test!(credentials_are_not_for_a_foreign_realm),
        test!(a_token_is_fetched_and_used),
        test!(a_secure_registry_is_never_spoken_to_in_plain),
        test!(layers_stay_while_a_container_needs_them),
        test!(a_sweep_leaves_what_a_pull_has_brought).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// It keeps what it knows of blobs below HOME.
fn skopeo(scene: &Scene) -> Invocation<'_> {
    let mut command = scene.program("skopeo");
    command.env("HOME", scene.path());
    command
}

fn pull<'s>(scene: &'s Scene, name: &str) -> Invocation<'s> {
    let mut command = scene.husk();
    command.args(["pull", "-q", name]);
    command
}

fn layout(scene: &Scene) -> Layout {
    Image::busybox(scene).layer(&[Entry::file("mark", "of the image")]).layout(scene, "layout")
}

/// The digest and the bytes of a layer of some size.
fn last_layer(layout: &Layout) -> (String, Vec<u8>) {
    let manifest = layout.manifest();
    let layers = manifest["layers"].as_array().expect("layers");
    let digest = layers[layers.len() - 1]["digest"].as_str().expect("a digest").to_owned();
    let bytes = std::fs::read(layout.blob(&digest)).expect("read a blob");
    (digest, bytes)
}

/// An image whose last layer does not compress and is so long.
fn large(scene: &Scene, bytes: usize) -> Layout {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u8::try_from(state >> 56).expect("eight bits")
        })
        .collect();
    Image::busybox(scene).layer(&[Entry::file("noise", noise)]).layout(scene, "large")
}

fn runs(scene: &Scene, name: &str) {
    let outcome = scene.husk().args(["run", "--rm", "--pull=never", name, "/bin/ls", "/"]).run().success();
    assert!(outcome.stdout.contains("bin"), "{}", outcome.stdout);
}

#[track_caller]
fn holds_nothing(scene: &Scene) {
    let images = scene.husk().args(["images", "-q"]).run().success().stdout;
    assert_eq!(images, "", "an image is in the store");
    assert_eq!(parts(scene), Vec::<String>::new(), "a part of a blob is left");
}

/// Parts of blobs in the store, without their locks.
fn parts(scene: &Scene) -> Vec<String> {
    let entries = std::fs::read_dir(scene.store().join("store/tmp")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| Path::new(name).extension().is_none_or(|extension| extension != "lock")).collect()
}

fn an_image_is_pulled_and_runs(scene: &Scene) {
    let registry = Real::start(scene, "");
    let name = registry.hold(scene, &Image::busybox(scene).layer(&[Entry::file("mark", "m")]), "some/app:1");
    let id = pull(scene, &name).run().success().stdout;
    let listed = scene.husk().args(["images", "-q", "--no-trunc"]).run().success().stdout;
    assert_eq!(listed.trim(), format!("sha256:{}", id.trim()));
    for word in [&name, id.trim(), &id[..12], &format!("docker://{name}")] {
        let outcome = scene.husk().args(["run", "--rm", word, "/bin/ls", "/"]).run().success();
        assert!(outcome.stdout.contains("mark"), "{word}: {}", outcome.stdout);
    }
    scene.husk().args(["rmi", &name]).run().success();
    scene.husk().args(["run", "--rm", "--pull=never", &name, "/bin/true"]).run().exits_with(125).says("no such image");
    // Not here: it is fetched, and that is told as `pull` tells it.
    let pulls = |option: &str| scene.husk().args(["run", option, "--rm", &name, "/bin/true"]).run().success();
    pulls("--pull=missing").says(&format!("Pulling {name}\n")).says(": done\n");
    let is_silent = |outcome: Outcome| !outcome.stderr.contains("Pulling") && !outcome.stderr.contains(": done");
    assert!(is_silent(pulls("--pull=missing")), "nothing is pulled");
    scene.husk().args(["rmi", &name]).run().success();
    assert!(is_silent(pulls("--quiet")));
    scene.husk().args(["rmi", &name]).run().success();
    // For programs: a line an event, with docker's fields.
    let told = scene.husk().args(["pull", "--progress", "json", &name]).run().success().stderr;
    let events: Vec<Value> = told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |status: &str| events.iter().filter(|event| event["status"] == status).collect::<Vec<_>>();
    assert_eq!(of("Pulling")[0]["id"], name.as_str());
    assert_eq!(of("Pull complete").len(), 2, "{told}");
    let last = of("Downloading").last().map(|event| event["progressDetail"].clone()).unwrap_or_default();
    assert_eq!((&last["current"], last["total"].as_u64() > Some(0)), (&last["total"], true), "{told}");
    scene
        .husk()
        .args(["pull", &format!("{}/some/app:2", registry.host())])
        .run()
        .exits_with(125)
        .says("MANIFEST_UNKNOWN");
}

fn what_was_pulled_is_pushed_byte_for_byte(scene: &Scene) {
    let registry = Real::start(scene, "");
    let mut image = Image::busybox(scene);
    image.layers.push(Layer::new(&tar::archive(&[Entry::file("z", "zstd")]), Compression::Zstd));
    let name = registry.hold(scene, &image, "from:1");
    let copy = format!("{}/to/there:2", registry.host());
    pull(scene, &name).run().success();
    scene.husk().args(["push", "-q", &name, &copy]).run().success();
    let inspect = |name: &str| {
        let command = ["inspect", "--tls-verify=false", "--format", "{{.Digest}} {{.Layers}}"];
        skopeo(scene).args(command).arg(format!("docker://{name}")).run().success().stdout
    };
    assert_eq!(inspect(&name), inspect(&copy));
    scene.husk().args(["rmi", &name]).run().success();
    pull(scene, &copy).run().success();
    runs(scene, &copy);
}

fn a_blob_is_mounted_and_not_sent_twice(scene: &Scene) {
    let registry = Real::start(scene, "");
    let name = registry.hold(scene, &Image::busybox(scene), "from:1");
    pull(scene, &name).run().success();
    let copy = format!("{}/to:1", registry.host());
    let push = || scene.husk().args(["push", &name, &copy]).run().success().stderr;
    let first = push();
    assert!(first.contains(": mounted") && !first.contains(": sent"), "{first}");
    let second = push();
    assert!(second.contains(": exists already") && !second.contains(": mounted"), "{second}");
}

fn names_are_given_and_taken(scene: &Scene) {
    let registry = Real::start(scene, "");
    let name = registry.hold(scene, &Image::busybox(scene), "app:1");
    pull(scene, &name).run().success();
    let husk = |arguments: &[&str]| scene.husk().args(arguments).run();
    husk(&["tag", &name, "one", "localhost/two:x"]).success();
    let table = husk(&["images"]).success().stdout;
    assert!(table.contains("one ") && table.contains("localhost/two ") && table.contains(" x "), "{table}");
    runs(scene, "one");
    runs(scene, "two:x");
    assert_eq!(husk(&["rmi", "one"]).success().stdout, "Untagged: one:latest\n");
    let id = husk(&["images", "-q"]).success().stdout;
    husk(&["rmi", id.trim()]).exits_with(1).says("several names");
    husk(&["untag", &name, &name]).success();
    assert!(husk(&["rmi", id.trim()]).success().stdout.contains("Deleted: sha256:"));
    husk(&["rmi", "one"]).exits_with(1).says("no such image");
    holds_nothing(scene);
    assert_eq!(std::fs::read_dir(scene.store().join("store/blobs/sha256")).expect("list").count(), 0, "blobs are left");
}

fn a_password_is_asked_for(scene: &Scene) {
    let password = scene.path().join("htpasswd");
    scene.program("htpasswd").args(["-Bbc", "-C", "4"]).arg(&password).args(["user", "secret"]).run().success();
    let more = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", password.display());
    let registry = Real::start(scene, &more);
    let layout = Image::busybox(scene).layout(scene, "layout");
    let name = format!("{}/app:1", registry.host());
    skopeo(scene)
        .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", "user:secret"])
        .args([layout.reference(), format!("docker://{name}")])
        .run()
        .success();
    let file = scene.path().join("auth.json");
    super::support::scene::write(&file, "{}");
    scene.account().own(&file);
    let husk = |arguments: &[&str]| {
        let mut command = scene.husk();
        command.env("REGISTRY_AUTH_FILE", &file).args(arguments);
        command
    };
    husk(&["pull", "-q", &name]).run().exits_with(125).says("401").says("husk login");
    husk(&["login", "-u", "user", "--password-stdin", &registry.host()])
        .input("wrong")
        .run()
        .exits_with(125)
        .says("401");
    husk(&["pull", "-q", &name]).run().exits_with(125);
    husk(&["login", "-u", "user", "--password-stdin", &registry.host()]).input("secret").run().success();
    husk(&["pull", "-q", &name]).run().success();
    husk(&["push", "-q", &name, &format!("{}/copy:1", registry.host())]).run().success();
    husk(&["logout", &registry.host()]).run().success();
    husk(&["pull", "-q", &name]).run().exits_with(125).says("401");
}

fn a_certificate_is_checked(scene: &Scene) {
    let certificate = Certificate::new(scene, "registry");
    let registry = Real::start(scene, &certificate.serve(""));
    let name = registry.hold(scene, &Image::busybox(scene), "app:1");
    scene.husk().args(["pull", "--tls-verify", &name]).run().exits_with(125).says("TLS: ");
    holds_nothing(scene);
    // A certificate that the user trusts.
    scene.husk().env("SSL_CERT_FILE", &certificate.path).args(["pull", "-q", "--tls-verify", &name]).run().success();
    scene.husk().args(["rmi", &name]).run().success();
    // Loopback is insecure unless it is said otherwise, as for docker.
    pull(scene, &name).run().success();
}

fn an_index_is_made_and_pushed(scene: &Scene) {
    let registry = Real::start(scene, "");
    let ours = registry.hold(scene, &Image::busybox(scene).layer(&[Entry::file("ours", "x")]), "one:1");
    let theirs = registry.hold(scene, &Image::busybox(scene).layer(&[Entry::file("theirs", "x")]), "two:1");
    let husk = |arguments: &[&str]| scene.husk().args(arguments).run();
    pull(scene, &ours).run().success();
    husk(&["manifest", "create", "list", &ours]).success();
    husk(&["manifest", "create", "list"]).exits_with(125).says("there is an index of that name");
    husk(&["manifest", "create", &ours]).exits_with(125).says("name of an image");
    husk(&["manifest", "annotate", "list", &ours, "--arch", "arm64", "--variant", "v8"]).success();
    husk(&["manifest", "add", "list", &format!("docker://{theirs}"), "--annotation", "a=b"]).success();
    let index: Value = serde_json::from_str(&husk(&["manifest", "inspect", "list"]).success().stdout).expect("JSON");
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "arm64", "{index}");
    assert_eq!(index["manifests"][1]["annotations"]["a"], "b", "{index}");
    // The blobs of the second are not here, and another repository has them.
    let there = format!("{}/one:both", registry.host());
    husk(&["manifest", "push", "-q", "list", &there]).exits_with(125).says("not in the store");
    pull(scene, &theirs).run().success();
    let digest = husk(&["manifest", "push", "-q", "list", &there]).success().stdout;
    let found = skopeo(scene)
        .args(["inspect", "--tls-verify=false", "--override-arch", "arm64", "--format", "{{.Digest}}"])
        .arg(format!("docker://{there}"))
        .run()
        .success();
    assert_eq!(found.stdout.trim(), digest.trim());
    husk(&["manifest", "rm", "list"]).success();
    husk(&["manifest", "inspect", &format!("docker://{there}")]).success();
    husk(&["pull", "-q", &there]).success();
    let listed = scene.husk().args(["run", "--rm", &there, "/bin/ls", "/"]).run().success().stdout;
    assert!(listed.contains("theirs"), "{listed}");
}

fn zstd_and_plain_layers_are_pulled(scene: &Scene) {
    let mut image = Image::busybox(scene);
    for (name, compression) in [("z", Compression::Zstd), ("p", Compression::None)] {
        image.layers.push(Layer::new(&tar::archive(&[Entry::file(name, "x")]), compression));
    }
    let registry = Scripted::serve(&image.layout(scene, "layout"), |_| None);
    pull(scene, &registry.image()).run().success();
    runs(scene, &registry.image());
}

fn the_platform_chooses(scene: &Scene) {
    let layout = layout(scene);
    let contents = Contents::read(&layout);
    let manifest = serde_json::to_vec(&layout.manifest()).expect("JSON");
    let manifest = std::fs::read_dir(layout.blobs())
        .expect("list")
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("read"))
        .find(|blob| serde_json::from_slice::<Value>(blob).is_ok_and(|json| json == layout.manifest()))
        .unwrap_or(manifest);
    let other = digest(b"another");
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": other, "size": 7, "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(), "platform": {"os": "linux", "architecture": "amd64"}},
        ],
    })
    .to_string();
    let their_index = index.clone();
    let registry = Scripted::start(move |request: &Request| {
        if request.path == "/v2/app/manifests/latest" {
            return Reply::ok("application/vnd.oci.image.index.v1+json", their_index.clone());
        }
        contents.answer(request)
    });
    pull(scene, &registry.image()).run().success();
    assert_eq!(registry.count(&other), 0, "another platform's manifest was fetched");
    let listed = scene.husk().args(["images", "--digests"]).run().success().stdout;
    assert!(listed.contains(&digest(index.as_bytes())), "the digest is not the index's: {listed}");
    runs(scene, &format!("{}/app@{}", registry.host(), digest(index.as_bytes())));
    let arm = scene.husk().args(["pull", "--platform", "linux/arm64", &registry.image()]).run();
    arm.exits_with(125).says("no image for linux/arm64, only for linux/s390x, linux/amd64");
}

fn a_broken_connection_goes_on_where_it_was(scene: &Scene) {
    let layout = large(scene, 600_000);
    let (digest, blob) = last_layer(&layout);
    let (half, tries) = (blob.len() / 2, AtomicUsize::new(0));
    let theirs = blob.clone();
    let registry = Scripted::serve(&layout, move |request| {
        if !request.path.ends_with(&digest) || tries.fetch_add(1, Ordering::SeqCst) > 0 {
            return None;
        }
        Some(Reply { cut: Some(half), ..Reply::ok("application/octet-stream", theirs.clone()) })
    });
    pull(scene, &registry.image()).run().success();
    let ranges: Vec<_> =
        registry.log().iter().filter_map(|request| request.header("range").map(ToOwned::to_owned)).collect();
    assert_eq!(ranges, [format!("bytes={half}-")]);
    runs(scene, &registry.image());
}

fn a_killed_pull_is_gone_on_with(scene: &Scene) {
    let layout = large(scene, 900_000);
    let (digest, blob) = last_layer(&layout);
    let (half, tries) = (blob.len() / 2, AtomicUsize::new(0));
    let (theirs, wanted) = (blob.clone(), digest.clone());
    let registry = Scripted::serve(&layout, move |request| {
        if !request.path.ends_with(&wanted) || tries.fetch_add(1, Ordering::SeqCst) > 0 {
            return None;
        }
        Some(Reply { stall: Some(half), ..Reply::ok("application/octet-stream", theirs.clone()) })
    });
    let mut command = pull(scene, &registry.image());
    let running = command.start_with(Stdio::null(), Stdio::null(), Stdio::null());
    let part = scene.store().join("store/tmp").join(format!("blob.sha256.{}", digest.trim_start_matches("sha256:")));
    let start = Instant::now();
    while std::fs::metadata(&part).map_or(0, |metadata| metadata.len()) < half as u64 {
        assert!(start.elapsed() < Duration::from_secs(20), "the first half does not arrive");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_all(&running);
    drop(running);
    assert!(!has_blob(&scene.store(), &digest), "half a blob is in its place");
    assert_eq!(scene.husk().args(["images", "-q"]).run().success().stdout, "");
    pull(scene, &registry.image()).run().success();
    let range = registry.wait_for(|request| request.path.ends_with(&digest) && request.header("range").is_some());
    assert_eq!(range.header("range"), Some(&*format!("bytes={half}-")));
    assert_eq!(parts(scene), Vec::<String>::new());
    runs(scene, &registry.image());
}

/// Kills husk and the process that it has forked into its user namespace.
pub(super) fn kill_all(running: &super::support::Running<'_>) {
    let pid = running.pid();
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero())).unwrap_or_default();
    for child in children.split_whitespace() {
        let child = child.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
    running.signal(Signal::KILL);
}

fn a_part_that_is_wrong_is_fetched_again(scene: &Scene) {
    let layout = layout(scene);
    let (digest, blob) = last_layer(&layout);
    let registry = Scripted::serve(&layout, |_| None);
    let staging = scene.store().join("store/tmp");
    std::fs::create_dir_all(&staging).expect("make a directory");
    let part = staging.join(format!("blob.sha256.{}", digest.trim_start_matches("sha256:")));
    super::support::scene::write(&part, vec![b'x'; blob.len() / 2]);
    scene.account().own(&scene.store());
    pull(scene, &registry.image()).run().success();
    assert!(has_blob(&scene.store(), &digest));
    let asked: Vec<_> = registry.log().into_iter().filter(|request| request.path.ends_with(&digest)).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].header("range").is_some() && asked[1].header("range").is_none());
}

fn two_pulls_share_the_work(scene: &Scene) {
    let layout = large(scene, 3_000_000);
    let (digest, _) = last_layer(&layout);
    let registry = Scripted::serve(&layout, |_| None);
    let mut commands: Vec<_> = (0..4).map(|_| pull(scene, &registry.image())).collect();
    let running: Vec<_> = commands.iter_mut().map(Invocation::start).collect();
    for one in running {
        one.finish().success();
    }
    assert_eq!(registry.count(&digest), 1, "the layer was fetched more than once");
    runs(scene, &registry.image());
}

fn a_busy_registry_is_asked_again(scene: &Scene) {
    let layout = layout(scene);
    let tries = AtomicUsize::new(0);
    let registry = Scripted::serve(&layout, move |request| {
        match request.path.contains("/manifests/").then(|| tries.fetch_add(1, Ordering::SeqCst)) {
            Some(0) => Some(Reply::new(503)),
            Some(1) => Some(Reply::new(429).header("retry-after", "1")),
            _ => None,
        }
    });
    let start = Instant::now();
    pull(scene, &registry.image()).run().success();
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After was not kept");
    let patient = Scripted::serve(&layout, |request| {
        request.path.contains("/manifests/").then(|| {
            Reply::new(429)
                .header("retry-after", "3600")
                .body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\u001b[31m down"}]}"#)
        })
    });
    let outcome = scene.husk().args(["pull", &format!("{}/app:other", patient.host())]).run().exits_with(125);
    let outcome = outcome.says("TOOMANYREQUESTS: slow").says("3600 s");
    assert!(!outcome.stderr.contains('\u{1b}'), "the registry writes to the terminal");
    assert_eq!(patient.count("/manifests/"), 1);
}

fn lies_about_documents_are_seen(scene: &Scene) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let layout = layout(scene);
    let manifest = layout.manifest();
    let config = manifest["config"]["digest"].as_str().expect("a digest").to_owned();
    let config_size = usize::try_from(manifest["config"]["size"].as_u64().expect("a size")).expect("a small one");
    let text = manifest.to_string();
    let changed = |pointer: &str, value: Value| {
        let mut changed = manifest.clone();
        *changed.pointer_mut(pointer).expect("a field") = value;
        Reply::ok(MANIFEST, changed.to_string())
    };
    let both = text.replacen("\"layers\"", "\"manifests\":[],\"layers\"", 1);
    let wrong_digest = digest(b"something else");
    let rows: Vec<(&str, Reply, &str)> = vec![
        (
            "manifests",
            Reply::ok(MANIFEST, text.clone()).header("docker-content-digest", &*wrong_digest),
            "digest mismatch",
        ),
        ("manifests", Reply::ok(MANIFEST, text.clone()).header("docker-content-digest", "sha256:../../x"), "digest"),
        ("manifests", Reply::ok(MANIFEST, both), "manifests"),
        ("manifests", Reply::ok(INDEX, text.clone()), "mediaType"),
        ("manifests", Reply::ok("text/html", "<html>log in</html>"), "expected value"),
        ("manifests", Reply::ok("application/vnd.docker.distribution.manifest.v1+json", "{}"), "schema 1"),
        ("manifests", changed("/config/digest", "sha256:../../../etc/passwd".into()), "config"),
        ("manifests", changed("/config/size", 3.into()), "limit"),
        ("manifests", changed("/layers/0/size", u64::MAX.into()), "layers"),
        (&config, Reply::ok("application/octet-stream", "{}"), "size mismatch"),
        (&config, Reply::ok("application/octet-stream", " ".repeat(config_size)), "digest mismatch"),
        (&config, Reply::new(404), "404"),
    ];
    for (place, reply, named) in rows {
        let place = place.to_owned();
        let registry = Scripted::serve(&layout, move |request| request.path.contains(&place).then(|| reply.clone()));
        let outcome = pull(scene, &registry.image()).run();
        assert_eq!(outcome.code(), 125, "{named}");
        assert!(!outcome.stderr.contains("panicked"));
        outcome.says(named);
        holds_nothing(scene);
    }
    // By digest, nothing but that will do.
    let other = serde_json::to_string_pretty(&manifest).expect("JSON");
    let registry = Scripted::serve(&layout, move |request| {
        request.path.contains("manifests").then(|| Reply::ok(MANIFEST, other.clone()))
    });
    let name = format!("{}/app@{}", registry.host(), digest(text.as_bytes()));
    pull(scene, &name).run().exits_with(125).says("digest mismatch");
    holds_nothing(scene);
}

fn lies_of_an_index_are_seen(scene: &Scene) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let layout = layout(scene);
    let manifest = layout.manifest().to_string();
    // (what the index says of the manifest; what is wrong with it)
    for (kind, size, named) in [
        (MANIFEST, manifest.len(), ""),
        (MANIFEST, manifest.len() + 1, "another size than its index states"),
        (INDEX, manifest.len(), "another mediaType than its index states"),
    ] {
        let described = serde_json::json!({"mediaType": kind, "digest": digest(manifest.as_bytes()), "size": size});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [described]}).to_string();
        let registry = Scripted::serve(&layout, move |request| {
            request.path.ends_with("/manifests/latest").then(|| Reply::ok(INDEX, index.clone()))
        });
        match pull(scene, &registry.image()).run() {
            outcome if named.is_empty() => outcome.success(),
            outcome => outcome.exits_with(125).says(named),
        };
    }
}

fn lies_about_blobs_are_seen(scene: &Scene) {
    let layout = layout(scene);
    let (digest, blob) = last_layer(&layout);
    let octets = |bytes: Vec<u8>| Reply::ok("application/octet-stream", bytes);
    let mut flipped = blob.clone();
    flipped[blob.len() - 9] ^= 1;
    let mut longer = blob.clone();
    longer.extend([0; 4096]);
    let rows: Vec<(Reply, &[&str])> = vec![
        (octets(flipped), &["digest mismatch"]),
        (octets(longer), &["size mismatch"]),
        (octets(Vec::new()), &["ended early", "size mismatch"]),
        (Reply::new(206).header("content-range", "bytes 7-9/10").body("abc"), &["another range"]),
        (Reply::new(404), &["404"]),
        (Reply::new(500), &["500"]),
    ];
    for (reply, named) in rows {
        let (reply, wanted) = (reply.clone(), digest.clone());
        let registry = Scripted::serve(&layout, move |request| request.path.ends_with(&wanted).then(|| reply.clone()));
        let outcome = pull(scene, &registry.image()).args(["--retry-delay", "10ms"]).run();
        assert_eq!(outcome.code(), 125, "{named:?}");
        outcome.says_one_of(named);
        assert!(!has_blob(&scene.store(), &digest), "{named:?}: the lie is in the store");
        assert_eq!(scene.husk().args(["images", "-q"]).run().success().stdout, "");
    }
    let registry = Scripted::serve(&layout, |_| None);
    pull(scene, &registry.image()).run().success();
}

fn answers_without_end_are_cut(scene: &Scene) {
    let layout = layout(scene);
    let rows: Vec<(Reply, &str)> = vec![
        (Reply::ok("application/vnd.oci.image.manifest.v1+json", vec![b' '; 5 << 20]), "limit"),
        (Reply::new(307).header("location", "/v2/app/manifests/latest"), "redirects"),
        (Reply::ok("application/vnd.oci.image.manifest.v1+json", "{}").header("x", "y".repeat(80 << 10)), "ask http"),
        (Reply::new(307).header("location", "ftp://127.0.0.1/x"), "neither https nor http"),
        (Reply::new(307).header("location", "http://user:password@127.0.0.1/x"), "user's name"),
    ];
    for (reply, named) in rows {
        let registry =
            Scripted::serve(&layout, move |request| request.path.contains("manifests").then(|| reply.clone()));
        pull(scene, &registry.image()).run().exits_with(125).says(named);
        assert!(registry.count("manifests") <= 11);
    }
}

/// The authorization of user:secret.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

fn with_login(scene: &Scene, registry: &Scripted) -> std::path::PathBuf {
    let file = scene.path().join("auth.json");
    let auths = serde_json::json!({"auths": {registry.host(): {"auth": &BASIC[6..]}}});
    super::support::scene::write(&file, auths.to_string());
    scene.account().own(&file);
    file
}

fn credentials_do_not_follow_a_redirect(scene: &Scene) {
    // CVE-2020-15157 and its kin: a registry answers with the address of another host.
    let layout = layout(scene);
    let contents = Contents::read(&layout);
    let other = Scripted::start(move |request| contents.answer(request));
    let target = format!("http://localhost:{}", other.port());
    let registry = Scripted::serve(&layout, move |request| {
        if request.header("authorization") != Some(BASIC) {
            return Some(Reply::new(401).header("www-authenticate", "Basic realm=\"x\""));
        }
        let is_blob = request.path.contains("/blobs/");
        is_blob.then(|| Reply::new(307).header("location", format!("{target}{}", request.path)))
    });
    let file = with_login(scene, &registry);
    pull(scene, &registry.image()).env("REGISTRY_AUTH_FILE", &file).run().success();
    let log = other.log();
    assert!(!log.is_empty(), "the redirect was not followed");
    for request in log {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
    runs(scene, &registry.image());
}

fn credentials_are_not_for_a_foreign_realm(scene: &Scene) {
    let layout = layout(scene);
    let other = Scripted::start(|_| Reply::ok("application/json", r#"{"token":"stolen"}"#));
    let realm = format!("http://localhost:{}/token", other.port());
    let registry = Scripted::serve(&layout, move |_| {
        Some(Reply::new(401).header("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"s\"")))
    });
    let file = with_login(scene, &registry);
    let outcome = pull(scene, &registry.image()).env("REGISTRY_AUTH_FILE", &file).run();
    outcome.exits_with(125).says("localhost").says("another domain");
    assert!(other.log().is_empty(), "{:?}", other.log());
}

fn a_token_is_fetched_and_used(scene: &Scene) {
    let layout = layout(scene);
    let contents = Contents::read(&layout);
    let registry = Scripted::start(move |request| {
        if request.path.starts_with("/token") {
            let is_known = request.header("authorization") == Some(BASIC);
            let token = if is_known { "known" } else { "anonymous" };
            return Reply::ok("application/json", format!(r#"{{"token":"{token}","expires_in":300}}"#));
        }
        if request.header("authorization") == Some("Bearer known") {
            return contents.answer(request);
        }
        let host = request.header("host").unwrap_or_default();
        let challenge =
            format!("Bearer realm=\"http://{host}/token?x=y\",service=\"a b\",scope=\"repository:app:pull\"");
        Reply::new(401).header("www-authenticate", challenge)
    });
    pull(scene, &registry.image()).run().exits_with(125).says("401");
    let file = with_login(scene, &registry);
    pull(scene, &registry.image()).env("REGISTRY_AUTH_FILE", &file).run().success();
    let asked =
        registry.wait_for(|request| request.path.starts_with("/token") && request.header("authorization").is_some());
    assert_eq!(asked.path, "/token?x=y&service=a%20b&scope=repository%3Aapp%3Apull&account=user");
    let tokens = registry.log().iter().filter(|request| request.path.starts_with("/token")).count();
    assert_eq!(tokens, 2, "a token is fetched once a pull");
}

fn a_secure_registry_is_never_spoken_to_in_plain(scene: &Scene) {
    // CVE-2014-5277: what looks like a failure of TLS must not make the client try without.
    let registry = Scripted::serve(&layout(scene), |_| None);
    let outcome = scene.husk().args(["pull", "--tls-verify", &registry.image()]).run();
    outcome.exits_with(125);
    assert!(registry.log().is_empty(), "{:?}", registry.log());
}

fn layers_stay_while_a_container_needs_them(scene: &Scene) {
    let registry = Scripted::serve(&layout(scene), |_| None);
    pull(scene, &registry.image()).run().success();
    let mut command = scene.husk();
    command.args(["run", "--rm", "-i", &registry.image(), "/bin/sh", "-c", "echo up; read x; /bin/ls /"]);
    let mut running = command.start();
    assert_eq!(running.line(), "up");
    scene.husk().args(["rmi", &registry.image()]).run().exits_with(1).says("uses it");
    scene.husk().args(["rmi", "-f", &registry.image()]).run().success();
    running.write("\n");
    let outcome = running.finish().success();
    assert!(outcome.stdout.contains("mark"), "{}", outcome.stdout);
}

fn a_sweep_leaves_what_a_pull_has_brought(scene: &Scene) {
    let other =
        Scripted::serve(&Image::new(Vec::new()).layer(&[Entry::file("x", "x")]).layout(scene, "other"), |_| None);
    pull(scene, &other.image()).run().success();
    let layout = layout(scene);
    let first = layout.manifest()["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let ((last, blob), tries) = (last_layer(&layout), AtomicUsize::new(0));
    let registry = Scripted::serve(&layout, move |request| {
        let is_it = request.path.ends_with(&last) && tries.fetch_add(1, Ordering::SeqCst) == 0;
        is_it.then(|| Reply { stall: Some(9), ..Reply::ok("application/octet-stream", blob.clone()) })
    });
    let mut command = pull(scene, &registry.image());
    let running = command.env("HUSK_REGISTRY_TIMEOUT", "1s").start();
    let start = Instant::now();
    while !has_blob(&scene.store(), &first) {
        assert!(start.elapsed() < Duration::from_secs(20), "the first layer does not arrive");
        std::thread::sleep(Duration::from_millis(5));
    }
    // No record needs the first layer yet, and this one sweeps.
    scene.husk().args(["rmi", &other.image()]).run().success();
    assert!(has_blob(&scene.store(), &first), "the sweep has taken a layer that is about to be needed");
    running.finish().success();
    assert_eq!(registry.count(&first), 1);
    runs(scene, &registry.image());
}
