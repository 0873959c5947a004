//! The policy at `pull`: what is rejected is not fetched, and what has to be signed is.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::support::image::{Image, Layout, digest};
use super::support::registry::{Reply, Request, Scripted};
use super::support::scene::write;
use super::support::tar::Entry;
use super::support::{Invocation, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk);
    let signing = |test: Test| test.needs(Need::Program("openssl"));
    [
        test!(what_is_rejected_is_not_fetched).and_plain(),
        test!(a_policy_that_is_wrong_allows_nothing),
        test!(files_are_asked_for_as_well),
        signing(test!(what_is_signed_is_pulled)).and_plain(),
        signing(test!(what_is_not_signed_for_it_is_refused)),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

fn layout(scene: &Scene) -> Layout {
    Image::new(Vec::new()).layer(&[Entry::file("mark", "of the image")]).layout(scene, "layout")
}

fn manifest_digest(layout: &Layout) -> String {
    let index = std::fs::read(layout.path().join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

fn pull<'s>(scene: &'s Scene, policy: &Value, name: &str) -> Invocation<'s> {
    let folder = scene.tree("config/containers", &[("policy.json", &policy.to_string())]);
    let mut command = scene.husk();
    command.env("XDG_CONFIG_HOME", folder.parent().unwrap()).args(["pull", "-q", name]);
    command
}

fn asked_for_blobs(registry: &Scripted) -> bool {
    registry.log().iter().any(|request| request.path.contains("/blobs/"))
}

fn files_are_asked_for_as_well(scene: &Scene) {
    let layout = layout(scene);
    let archive = layout.archive(scene, "archive.tar");
    let rejects = |transport: &str| {
        json!({
            "default": [{ "type": "insecureAcceptAnything" }],
            "transports": { transport: { "": [{ "type": "reject" }] } },
        })
    };
    let oci_archive = format!("oci-archive:{}", archive.display());
    for (transport, image) in [("oci", layout.reference()), ("oci-archive", oci_archive.clone())] {
        let husk = |policy: &Value, words: &[&str]| {
            let folder = scene.tree("config/containers", &[("policy.json", &policy.to_string())]);
            scene.husk().env("XDG_CONFIG_HOME", folder.parent().unwrap()).args(words).run()
        };
        let other = if transport == "oci" { "oci-archive" } else { "oci" };
        for words in [&["run", "--rm", &image, "/bin/true"][..], &["pull", "-q", &image]] {
            husk(&rejects(transport), words).exits_with(125).says("reject");
            husk(&rejects(other), words);
        }
    }
    let load = |path: &std::path::Path, transport: &str| {
        let folder = scene.tree("config/containers", &[("policy.json", &rejects(transport).to_string())]);
        scene.husk().env("XDG_CONFIG_HOME", folder.parent().unwrap()).args(["load", "-q", "-i"]).arg(path).run()
    };
    load(layout.path(), "oci").exits_with(125).says("reject");
    load(layout.path(), "oci-archive").success();
    load(&archive, "oci-archive").exits_with(125).says("reject");
}

fn what_is_rejected_is_not_fetched(scene: &Scene) {
    let layout = layout(scene);
    let registry = Scripted::serve(&layout, |_| None);
    let host = registry.host();
    let policy = json!({ "default": [{ "type": "insecureAcceptAnything" }],
                         "transports": { "docker": { &host: [{ "type": "reject" }] } } });
    // A digest proves what it is, and not that it is allowed.
    for name in [registry.image(), format!("{host}/app@{}", manifest_digest(&layout))] {
        pull(scene, &policy, &name).run().exits_with(125).says("policy.json: it is rejected");
    }
    assert!(!asked_for_blobs(&registry), "{:?}", registry.log());
    scene.husk().args(["images", "-q"]).run().success();
    let other = json!({ "default": [{ "type": "reject" }],
                        "transports": { "docker": { format!("{host}/app"): [{ "type": "insecureAcceptAnything" }] } } });
    pull(scene, &other, &registry.image()).run().success();
}

fn a_policy_that_is_wrong_allows_nothing(scene: &Scene) {
    let registry = Scripted::serve(&layout(scene), |_| None);
    for policy in [
        json!({ "default": [] }),
        json!({ "default": [{ "type": "insecureAcceptAnything", "more": 1 }] }),
        json!({ "default": [{ "type": "acceptAnything" }] }),
        json!({ "default": [{ "type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x" }] }),
    ] {
        pull(scene, &policy, &registry.image()).run().exits_with(125).says("policy.json: ");
    }
    assert!(!asked_for_blobs(&registry));
}

/// A key of openssl's, and what it signs.
struct Signer<'a> {
    scene: &'a Scene,
    key: PathBuf,
}

impl<'a> Signer<'a> {
    fn new(scene: &'a Scene, name: &str) -> Self {
        let key = scene.path().join(name);
        let words = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"];
        scene.program("openssl").args(words).arg(&key).run().success();
        Self { scene, key }
    }

    fn policy(&self) -> Value {
        let public = self.key.with_extension("pub");
        self.scene
            .program("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(&self.key)
            .arg("-out")
            .arg(&public)
            .run()
            .success();
        json!({ "default": [{ "type": "sigstoreSigned", "keyPath": public }] })
    }

    /// Gives a statement about an image, and its signature in base64.
    fn sign(&self, name: &str, manifest: &str) -> (String, String) {
        let statement = json!({ "critical": {
            "identity": { "docker-reference": name },
            "image": { "docker-manifest-digest": manifest },
            "type": "cosign container image signature",
        }, "optional": null });
        let statement = statement.to_string();
        let file = self.scene.path().join("statement");
        write(&file, &statement);
        let signature = self.scene.path().join("signature");
        self.scene
            .program("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(&self.key)
            .arg("-out")
            .arg(&signature)
            .arg(&file)
            .run()
            .success();
        let words = ["base64", "-A", "-in"];
        let text = self.scene.program("openssl").args(words).arg(&signature).run().success().stdout;
        (statement, text.trim().to_owned())
    }
}

/// A script that serves one signature of a manifest, as cosign leaves it.
fn signature_of(manifest: &str, statement: String, signature: &str) -> impl Fn(&Request) -> Option<Reply> + use<> {
    let tag = format!("/manifests/{}.sig", manifest.replace(':', "-"));
    let (document, blob) = signature_manifest(&statement, signature);
    move |request| {
        if request.path.ends_with(&tag) {
            return Some(Reply::ok(MANIFEST, document.clone()));
        }
        request.path.ends_with(&blob).then(|| Reply::ok("application/octet-stream", statement.clone()))
    }
}

/// A script that serves one signature of a manifest as its referrer, beside one that is gone and one of another kind.
fn attached_signature(
    manifest: &str,
    statement: String,
    signature: &str,
) -> impl Fn(&Request) -> Option<Reply> + use<> {
    let kept = format!("/manifests/{}", manifest.replace(':', "-"));
    let (document, blob) = signature_manifest(&statement, signature);
    let place = digest(document.as_bytes());
    let gone = digest(b"gone");
    let entry =
        |digest: &str, kind: &str| json!({ "mediaType": MANIFEST, "digest": digest, "size": 7, "artifactType": kind });
    let kind = "application/vnd.dev.cosign.artifact.sig.v1+json";
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [
        entry(&gone, kind), entry(&place, kind), entry(&digest(b"other"), "application/x-sbom"),
    ]});
    move |request| match &request.path[..] {
        path if path.ends_with(&kept) => Some(Reply::ok(media_type, index.to_string())),
        path if path.ends_with(&place) => Some(Reply::ok(MANIFEST, document.clone())),
        path if path.ends_with(&gone) => Some(Reply::new(404)),
        path => path.ends_with(&blob).then(|| Reply::ok("application/octet-stream", statement.clone())),
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Gives a manifest with one signature, and the digest of the statement.
fn signature_manifest(statement: &str, signature: &str) -> (String, String) {
    let blob = digest(statement.as_bytes());
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2 },
        "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": blob,
            "size": statement.len(),
            "annotations": { "dev.cosignproject.cosign/signature": signature },
        }],
    });
    (document.to_string(), blob)
}

fn what_is_signed_is_pulled(scene: &Scene) {
    let layout = layout(scene);
    let manifest = manifest_digest(&layout);
    let signer = Signer::new(scene, "key");
    let mut policy = signer.policy();
    // The port of the registry is known only once it runs, and the name is signed before that.
    policy["default"][0]["signedIdentity"] =
        json!({ "type": "exactReference", "dockerReference": "quay.io/team/app:1" });
    let (statement, signature) = signer.sign("quay.io/team/app:1", &manifest);
    let attached = attached_signature(&manifest, statement.clone(), &signature);
    let registry = Scripted::serve(&layout, signature_of(&manifest, statement, &signature));
    pull(scene, &policy, &registry.image()).run().success();
    let another = Scripted::serve(&layout, attached);
    pull(scene, &policy, &another.image()).run().success();
    policy["default"][0]["signedIdentity"]["dockerReference"] = json!("quay.io/team/app:2");
    pull(scene, &policy, &registry.image()).run().exits_with(125).says("which is not what policy takes for");
    pull(scene, &policy, &another.image()).run().exits_with(125).says("which is not what policy takes for");
}

fn what_is_not_signed_for_it_is_refused(scene: &Scene) {
    let layout = layout(scene);
    let manifest = manifest_digest(&layout);
    let (signer, other) = (Signer::new(scene, "key"), Signer::new(scene, "other"));
    let mut policy = signer.policy();
    let name = "quay.io/team/app:1";
    policy["default"][0]["signedIdentity"] = json!({ "type": "exactReference", "dockerReference": name });

    let registry = Scripted::serve(&layout, |request| request.path.contains(".sig").then(|| Reply::new(404)));
    let nothing = "a signature is required, and there is none";
    pull(scene, &policy, &registry.image()).run().exits_with(125).says(nothing);
    assert!(!asked_for_blobs(&registry));

    let (statement, signature) = other.sign(name, &manifest);
    let registry = Scripted::serve(&layout, signature_of(&manifest, statement, &signature));
    pull(scene, &policy, &registry.image()).run().exits_with(125).says("none of the keys has made it");

    // A good signature of another image, put beside this one.
    let elsewhere = digest(b"another manifest");
    let (statement, signature) = signer.sign(name, &elsewhere);
    let registry = Scripted::serve(&layout, signature_of(&manifest, statement, &signature));
    pull(scene, &policy, &registry.image()).run().exits_with(125).says(&format!("it is for {elsewhere}"));

    // What cannot be fetched is not taken for "there is none".
    let registry = Scripted::serve(&layout, |request| request.path.contains(".sig").then(|| Reply::new(403)));
    pull(scene, &policy, &registry.image()).run().exits_with(125).says("fetch its signatures");
    let registry = Scripted::serve(&layout, |request| request.path.contains("/referrers/").then(|| Reply::new(403)));
    pull(scene, &policy, &registry.image()).run().exits_with(125).says("fetch its signatures");
}
