//! Uploads: in pieces, and gone on with where a registry says that it is; against Debian's registry, and one that fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::support::image::{Compression, Image, Layer, Layout, digest};
use super::support::registry::{Real, Reply, Request, Scripted};
use super::support::tar::{self, Entry};
use super::support::{Invocation, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let real = |test: Test| test.needs(Need::Program("docker-registry")).needs(Need::Program("skopeo"));
    [
        real(test!(a_large_blob_goes_in_pieces)),
        real(test!(plain_layers_are_packed)).and_plain(),
        test!(an_upload_goes_on_where_the_registry_is).and_plain(),
        test!(an_upload_that_cannot_succeed_ends),
    ]
    .into_iter()
    .map(|test| test.needs(Need::Husk))
    .collect()
}

/// The least that a piece can be set to.
const PIECE: usize = 64 << 10;

/// An image of one layer that does not compress: three pieces and a bit.
fn noisy(scene: &Scene) -> Layout {
    let mut state = 7_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(3 * PIECE + 999)
    .collect();
    Image::new(Vec::new()).layer(&[Entry::file("noise", noise)]).layout(scene, "noisy")
}

/// The digest of the one layer.
fn layer(layout: &Layout) -> String {
    layout.manifest()["layers"][0]["digest"].as_str().expect("a digest").to_owned()
}

/// Brings the image here from a registry, so that it goes on byte for byte.
fn fetch(scene: &Scene, layout: &Layout) -> String {
    let registry = Scripted::serve(layout, |_| None);
    scene.husk().args(["pull", "-q", &registry.image()]).run().success();
    registry.image()
}

fn push<'s>(scene: &'s Scene, image: &str, destination: &str) -> Invocation<'s> {
    let mut command = scene.husk();
    command.env("HUSK_REGISTRY_CHUNK", "64k").args(["push", "--retry-delay", "1ms", image, destination]);
    command
}

fn a_large_blob_goes_in_pieces(scene: &Scene) {
    let registry = Real::start(scene, "");
    let layout = noisy(scene);
    let image = fetch(scene, &layout);
    let copy = format!("{}/copy:1", registry.host());
    push(scene, &image, &copy).run().success().says(": sent");
    scene
        .program("skopeo")
        .env("HOME", scene.path())
        .args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"])
        .args([format!("docker://{copy}"), format!("dir:{}", scene.path().join("there").display())])
        .run()
        .success();
    let there = std::fs::read(scene.path().join("there").join(layer(&layout).trim_start_matches("sha256:")));
    assert_eq!(digest(&there.expect("the layer is there")), layer(&layout));
}

fn plain_layers_are_packed(scene: &Scene) {
    let registry = Real::start(scene, "");
    let mut image = Image::new(Vec::new()).layer(&[Entry::file("plain", vec![b'x'; 200_000])]);
    let zstd = tar::archive(&[Entry::file("packed", vec![b'y'; 100_000])]);
    image.layers.push(Layer::new(&zstd, Compression::Zstd));
    let archive = image.docker_archive(scene, "archive.tar");
    scene.husk().args(["load", "-q", "-i"]).arg(&archive).run().success();
    let inspect = |name: &str| -> Value {
        let command = ["inspect", "--tls-verify=false", "--raw"];
        let outcome =
            scene.program("skopeo").env("HOME", scene.path()).args(command).arg(format!("docker://{name}")).run();
        serde_json::from_str(&outcome.success().stdout).expect("JSON")
    };
    let push = |tag: &str, flags: &[&str]| -> (String, Value) {
        let (name, file) = (format!("{}/app:{tag}", registry.host()), scene.path().join("digest"));
        scene
            .husk()
            .args(["push", "-q", "--digestfile"])
            .arg(&file)
            .args(flags)
            .args(["localhost/test:latest", &name])
            .run()
            .success();
        let digest = std::fs::read_to_string(&file).expect("the digest");
        let by_digest = inspect(&format!("{}/app@{digest}", registry.host()));
        assert_eq!(by_digest, inspect(&name));
        (digest, by_digest)
    };
    let types = |manifest: &Value| -> Vec<String> {
        let layers = manifest["layers"].as_array().expect("layers").iter();
        layers
            .map(|layer| layer["mediaType"].as_str().expect("a type").rsplit(['.', '+']).next().unwrap().to_owned())
            .collect()
    };
    let rows: [(&str, &[&str], [&str; 2]); 5] = [
        ("plain", &[], ["gzip", "zstd"]),
        ("again", &["--compression-format", "gzip", "--force-compression=false"], ["gzip", "zstd"]),
        ("gzip", &["--force-compression"], ["gzip", "gzip"]),
        ("zstd", &["--compression-format", "zstd", "--compression-level", "1"], ["zstd", "zstd"]),
        ("level", &["--compression-level", "1"], ["gzip", "zstd"]),
    ];
    let mut digests = Vec::new();
    for (tag, flags, expected) in rows {
        let (digest, manifest) = push(tag, flags);
        assert_eq!(types(&manifest), expected, "{tag}: {manifest}");
        digests.push(digest);
    }
    assert_eq!(digests[0], digests[1], "the same layers were packed in two ways");
    assert_ne!(digests[0], digests[4], "the level makes no difference");
    // What comes back is the same image: its id is over the configuration, which holds the diff ids.
    let ids = || scene.husk().args(["images", "-q", "--no-trunc"]).run().success().stdout;
    let id = ids();
    scene.husk().args(["rmi", "localhost/test:latest"]).run().success();
    for (tag, ..) in rows {
        scene.husk().args(["pull", "-q", &format!("{}/app:{tag}", registry.host())]).run().success();
        assert!(ids().lines().all(|line| line == id.trim()), "{tag}");
    }
    scene.husk().args(["system", "check"]).run().success();
    // What a registry gave goes as it came, whatever it is; here plain, as few registries have it.
    let layout = Image::new(Vec::new()).layer(&[Entry::file("x", "x")]).layout(scene, "layout");
    let pulled = fetch(scene, &layout);
    let copy = format!("{}/copy:1", registry.host());
    scene.husk().args(["push", "-q", &pulled, &copy]).run().success();
    assert_eq!(types(&inspect(&copy)), ["tar"]);
    for (level, named) in [("10", "gzip has those from 1 to 9"), ("-1", "gzip")] {
        scene.husk().args(["push", "--compression-level", level, &pulled, &copy]).run().exits_with(125).says(named);
    }
}

/// What goes wrong once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// So many bytes of the request are kept, and the connection ends.
    Break(usize),
    /// The request is answered so, and nothing of it is kept.
    Refuse(u16),
    /// Half of the request is kept, and the registry says so.
    TakeHalf,
    /// The upload is forgotten, and the connection ends.
    Forget,
    /// All is well, but the answer does not arrive.
    LoseAnswer,
}

/// A registry that takes uploads, strictly in order.
#[derive(Default)]
struct Uploads {
    open: HashMap<String, Vec<u8>>,
    done: HashMap<String, Vec<u8>>,
    begun: usize,
    /// Requests with this method, of which the second or only one goes wrong.
    seen: usize,
}

impl Uploads {
    fn answer(&mut self, request: &Request, large: &str, fault: Fault, at: (&str, usize)) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let last = path.rsplit('/').next().unwrap_or_default();
        let is_upload = path.contains("/blobs/uploads/");
        match &request.method[..] {
            "GET" if path == "/v2/" => return Reply::ok("application/json", "{}"),
            "HEAD" => return Reply::new(if self.done.contains_key(last) { 200 } else { 404 }),
            "PUT" if path.contains("/manifests/") => {
                self.done.insert("manifest".to_owned(), request.body.clone());
                return Reply::new(201);
            }
            "POST" if is_upload => {
                self.begun += 1;
                self.open.insert(self.begun.to_string(), Vec::new());
                return Reply::new(202).header("location", format!("/v2/app/blobs/uploads/{}", self.begun));
            }
            _ => {}
        }
        let Some(bytes) = self.open.get_mut(last).filter(|_| is_upload) else { return Reply::new(404) };
        let place = Reply::new(202).header("location", path);
        let range = |bytes: &[u8]| format!("0-{}", bytes.len().saturating_sub(1));
        if request.method == "GET" {
            return Reply { status: 204, ..place.header("range", range(bytes)) };
        }
        let start =
            request.header("content-range").map_or(0, |range| range.split('-').next().unwrap().parse().unwrap());
        if start != bytes.len() {
            return Reply::new(416);
        }
        let wanted = query.strip_prefix("digest=").map(|digest| digest.replace("%3A", ":"));
        let is_large = wanted.as_ref().is_none_or(|wanted| wanted == large);
        let mut fault = if request.method == at.0 && is_large { fault } else { Fault::Nothing };
        if fault != Fault::Nothing {
            self.seen += 1;
            if self.seen != at.1 {
                fault = Fault::Nothing;
            }
        }
        match fault {
            Fault::Break(kept) => {
                bytes.extend(&request.body[..kept]);
                return Reply::silence();
            }
            Fault::Refuse(status) => return Reply::new(status),
            Fault::TakeHalf => {
                bytes.extend(&request.body[..request.body.len() / 2]);
                return place.header("range", range(bytes));
            }
            Fault::Forget => {
                self.open.remove(last);
                return Reply::silence();
            }
            Fault::LoseAnswer | Fault::Nothing => bytes.extend(&request.body),
        }
        let Some(wanted) = wanted else { return place.header("range", range(bytes)) };
        let bytes = self.open.remove(last).expect("it was there");
        if digest(&bytes) != wanted {
            return Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID","message":"not these bytes"}]}"#);
        }
        self.done.insert(wanted, bytes);
        if fault == Fault::LoseAnswer { Reply::silence() } else { Reply::new(201) }
    }
}

/// Starts it; the fault comes with the request of this method and number that is about the large blob.
fn start(large: &str, fault: Fault, at: (&'static str, usize)) -> (Scripted, Arc<Mutex<Uploads>>) {
    let uploads = Arc::new(Mutex::new(Uploads::default()));
    let (theirs, large) = (Arc::clone(&uploads), large.to_owned());
    let registry = Scripted::start(move |request| theirs.lock().unwrap().answer(request, &large, fault, at));
    (registry, uploads)
}

fn an_upload_goes_on_where_the_registry_is(scene: &Scene) {
    let layout = noisy(scene);
    let image = fetch(scene, &layout);
    let large = layer(&layout);
    let manifest = layout.manifest();
    let rows = [
        (Fault::Nothing, ("PATCH", 1), PIECE),
        (Fault::Break(0), ("PATCH", 1), PIECE),
        (Fault::Break(PIECE), ("PATCH", 2), PIECE),
        (Fault::Break(1000), ("PATCH", 2), PIECE),
        (Fault::Break(1000), ("PATCH", 3), PIECE),
        (Fault::Refuse(416), ("PATCH", 2), PIECE),
        (Fault::Refuse(503), ("PATCH", 3), PIECE),
        (Fault::TakeHalf, ("PATCH", 2), PIECE),
        (Fault::Forget, ("PATCH", 3), 3 * PIECE),
        (Fault::Break(500), ("PUT", 1), PIECE),
        (Fault::Refuse(500), ("PUT", 1), PIECE),
        (Fault::LoseAnswer, ("PUT", 1), PIECE),
        (Fault::Forget, ("PUT", 1), 4 * PIECE),
    ];
    for (fault, at, spare) in rows {
        let (registry, uploads) = start(&large, fault, at);
        push(scene, &image, &registry.image()).run().success();
        let uploads = uploads.lock().unwrap();
        assert_eq!(digest(&uploads.done[&large]), large, "{fault:?} {at:?}");
        let pushed: Value = serde_json::from_slice(&uploads.done["manifest"]).expect("JSON");
        assert_eq!(pushed, manifest, "{fault:?} {at:?}");
        let sent: usize = registry.log().iter().map(|request| request.body.len()).sum();
        let size = std::fs::metadata(layout.blob(&large)).unwrap().len();
        let least = usize::try_from(size).unwrap();
        assert!((least..=least + spare + 4096).contains(&sent), "{fault:?} {at:?}: {sent} of {least} bytes");
        let pieces = registry.log().iter().filter(|request| request.method == "PATCH").count();
        assert!(pieces >= 3, "{fault:?} {at:?}: in one piece");
    }
}

fn an_upload_that_cannot_succeed_ends(scene: &Scene) {
    let layout = noisy(scene);
    let image = fetch(scene, &layout);
    let large = layer(&layout);
    for (fault, at, named) in [(Fault::Refuse(400), ("PATCH", 2), "400"), (Fault::Refuse(403), ("PUT", 1), "403")] {
        let (registry, _) = start(&large, fault, at);
        push(scene, &image, &registry.image()).run().exits_with(125).says(named);
        let pieces =
            registry.log().iter().filter(|request| request.method == at.0 && request.path.contains("uploads")).count();
        assert!(pieces <= 3, "{fault:?}: {pieces}");
        assert!(registry.log().iter().all(|request| !request.path.contains("/manifests/") || request.method == "HEAD"));
    }
    // A registry that takes nothing, however often it is asked.
    let registry = Scripted::start(|request| match &request.method[..] {
        "HEAD" => Reply::new(404),
        "POST" | "PATCH" => Reply::new(202).header("location", "/v2/app/blobs/uploads/1").header("range", "0-0"),
        "GET" if request.path.contains("uploads") => Reply::new(204).header("location", "/v2/app/blobs/uploads/1"),
        "PUT" => Reply::new(503),
        _ => Reply::ok("application/json", "{}"),
    });
    push(scene, &image, &registry.image()).args(["--retry", "2"]).run().exits_with(125).says("503");
    assert!(registry.log().len() < 40, "{}", registry.log().len());
}
