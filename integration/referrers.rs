//! What refers to an image: as a registry lists it, as clients keep it where a registry does not, and with lies in it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::support::image::{Image, Layout, digest};
use super::support::registry::{Real, Reply, Request, Scripted};
use super::support::tar::Entry;
use super::support::{Need, Outcome, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    [
        test!(a_registry_lists_referrers).and_plain(),
        test!(where_it_does_not_their_tag_does),
        test!(a_platform_has_referrers_of_its_own),
        test!(lists_that_lie_or_do_not_end_are_refused),
        test!(a_registry_that_keeps_the_list_is_left_to_it),
        test!(what_others_write_meanwhile_is_kept),
        test!(an_image_with_a_subject_is_added_to_its_referrers).needs(Need::Program("docker-registry")).and_plain(),
    ]
    .into_iter()
    .map(|test| test.needs(Need::Husk))
    .collect()
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SBOM: &str = "application/x-sbom";

fn subject() -> String {
    digest(b"the subject")
}

/// The digest as a tag.
fn tag(digest: &str) -> String {
    digest.replace(':', "-")
}

fn referrer(name: &str, kind: &str) -> Value {
    json!({ "mediaType": MANIFEST, "digest": digest(name.as_bytes()), "size": 1234, "artifactType": kind })
}

fn index(referrers: &[Value]) -> Reply {
    let text = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": referrers }).to_string();
    Reply::ok(INDEX, text)
}

fn list(scene: &Scene, name: &str, words: &[&str]) -> Outcome {
    scene.husk().args(["image", "referrers", "--retry-delay", "1ms"]).args(words).arg(name).run()
}

/// The names of referrers that a list of digests has.
fn digests(names: &[&str]) -> String {
    names.iter().map(|name| digest(name.as_bytes()) + "\n").collect()
}

fn a_registry_lists_referrers(scene: &Scene) {
    let path = format!("/v2/app/referrers/{}", subject());
    let registry = Scripted::start(move |request| {
        let Some(rest) = request.path.strip_prefix(&path) else { return Reply::ok("application/json", "{}") };
        match rest {
            "" => {
                let mut first = referrer("one", SBOM);
                first["annotations"] =
                    json!({ "org.opencontainers.image.created": "2020-01-02T03:04:05Z", "note": "a\u{1b}[31m" });
                index(&[first, referrer("two", "application/x-scan")])
                    .header("link", format!("<{path}?page=2>; rel=\"next\""))
            }
            "?page=2" => index(&[referrer("three", SBOM)]),
            "?artifactType=application%2Fx-sbom" => index(&[referrer("one", SBOM), referrer("two", "other")]),
            // What it has picked is its answer, even if it does not say of what type each is.
            "?artifactType=application%2Fx-scan" => {
                let mut picked = referrer("two", "");
                picked.as_object_mut().unwrap().remove("artifactType");
                index(&[picked]).header("oci-filters-applied", "artifactType")
            }
            _ => index(&[]),
        }
    });
    let name = format!("{}/app@{}", registry.host(), subject());
    let table = list(scene, &name, &[]).success().stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("DIGEST ") && lines[0].contains("ARTIFACT TYPE") && lines.len() == 4, "{table}");
    assert!(lines[1].starts_with(&digest(b"one")) && lines[1].contains(" 1.23kB ") && lines[1].ends_with("years ago"));
    assert!(lines[2].contains("application/x-scan") && lines[2].ends_with("N/A"), "{table}");
    assert_eq!(list(scene, &name, &["-q"]).success().stdout, digests(&["one", "two", "three"]));
    assert_eq!(list(scene, &name, &["-q", "--artifact-type", SBOM]).success().stdout, digests(&["one"]));
    let picked = list(scene, &name, &["-q", "--artifact-type", "application/x-scan"]);
    assert_eq!(picked.success().stdout, digests(&["two"]));
    assert_eq!(list(scene, &name, &["-q", "--artifact-type", "none"]).success().stdout, "");
    let told = list(scene, &name, &["--format", "json"]).success().stdout;
    let told: Value = serde_json::from_str(told.lines().next().unwrap()).expect("JSON");
    assert_eq!((&told["ArtifactType"], &told["MediaType"]), (&json!(SBOM), &json!(MANIFEST)));
    assert_eq!(
        (&told["Annotations"]["note"], &told["CreatedAt"]),
        (&json!("a\u{1b}[31m"), &json!("2020-01-02T03:04:05Z"))
    );
    let asked = registry.wait_for(|request| request.path.contains("referrers"));
    assert_eq!(asked.header("accept"), Some(INDEX));
    assert_eq!(registry.count("/manifests/"), 0);
}

fn where_it_does_not_their_tag_does(scene: &Scene) {
    let serve = |refusal: Reply, kept: Reply| {
        let path = format!("/manifests/{}", tag(&subject()));
        Scripted::start(move |request| match &request.path[..] {
            path if path.contains("/referrers/") => refusal.clone(),
            asked if asked.ends_with(&path) => kept.clone(),
            _ => Reply::ok("application/json", "{}"),
        })
    };
    let kept = || index(&[referrer("one", SBOM), referrer("two", "application/x-scan")]);
    // Some registries have a page for every question.
    for refusal in [Reply::new(404), Reply::ok("text/html", "<html>")] {
        let registry = serve(refusal, kept());
        let name = format!("{}/app@{}", registry.host(), subject());
        assert_eq!(list(scene, &name, &["-q"]).success().stdout, digests(&["one", "two"]));
        assert_eq!(list(scene, &name, &["-q", "--artifact-type", SBOM]).success().stdout, digests(&["one"]));
    }
    let manifest = json!({ "schemaVersion": 2, "config": {}, "layers": [] }).to_string();
    for (refusal, kept, says) in [
        (Reply::new(404), Reply::new(404), None),
        (Reply::new(404), Reply::new(403), Some("403")),
        (Reply::new(404), Reply::ok(MANIFEST, manifest), Some("is no index")),
        (Reply::new(404), kept().header("docker-content-digest", subject()), Some("digest")),
        (Reply::new(403), kept(), Some("403")),
    ] {
        let registry = serve(refusal, kept);
        let outcome = list(scene, &format!("{}/app@{}", registry.host(), subject()), &["-q"]);
        match says {
            None => assert_eq!(outcome.success().stdout, ""),
            Some(says) => {
                outcome.exits_with(125).says(says);
            }
        }
    }
}

fn a_platform_has_referrers_of_its_own(scene: &Scene) {
    let layout = Image::new(Vec::new()).layer(&[Entry::file("x", "x")]).layout(scene, "layout");
    let manifest = layout.manifest().to_string();
    let of_platform = digest(manifest.as_bytes());
    let many = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        { "mediaType": MANIFEST, "digest": of_platform, "size": manifest.len(),
          "platform": { "os": "linux", "architecture": "s390x" } }
    ]})
    .to_string();
    let (of_index, of_manifest) =
        (format!("/referrers/{}", digest(many.as_bytes())), format!("/referrers/{of_platform}"));
    let registry = Scripted::start(move |request| match &request.path[..] {
        path if path.ends_with("/manifests/1") => Reply::ok(INDEX, many.clone()),
        path if path.contains("/manifests/") => Reply::ok(MANIFEST, manifest.clone()),
        path if path.ends_with(&of_index) => index(&[referrer("of the index", SBOM)]),
        path if path.ends_with(&of_manifest) => index(&[referrer("of the image", SBOM)]),
        _ => Reply::ok("application/json", "{}"),
    });
    let name = format!("{}/app:1", registry.host());
    assert_eq!(list(scene, &name, &["-q"]).success().stdout, digests(&["of the index"]));
    assert_eq!(list(scene, &name, &["-q", "--platform", "linux/s390x"]).success().stdout, digests(&["of the image"]));
    list(scene, &name, &["-q", "--platform", "linux/riscv64"]).exits_with(125).says("riscv64");
}

fn lists_that_lie_or_do_not_end_are_refused(scene: &Scene) {
    let with = |field: &str, value: Value| {
        let mut wrong = referrer("one", SBOM);
        wrong[field] = value;
        index(&[wrong])
    };
    let path = format!("/v2/app/referrers/{}", subject());
    let many: Vec<_> = std::iter::repeat_n(referrer("one", SBOM), 10_001).collect();
    for (answer, says) in [
        (with("digest", json!("sha256:../../etc")), "manifests[0]"),
        (with("size", json!(-1)), "size"),
        (with("annotations", json!([])), "annotations"),
        (Reply::ok(INDEX, r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#), "an index must not have them"),
        (Reply::ok(INDEX, "{"), "EOF"),
        (Reply::ok(INDEX, " ".repeat((4 << 20) + 1)), "limit"),
        (index(&many), "limit: more than 10000 referrers"),
        (index(&[]).header("link", format!("<{path}>; rel=\"next\"")), "limit: more than 100 pages"),
    ] {
        let registry = Scripted::start(move |request| {
            let is_asked = request.path.contains("/referrers/");
            if is_asked { answer.clone() } else { Reply::ok("application/json", "{}") }
        });
        let name = format!("{}/app@{}", registry.host(), subject());
        list(scene, &name, &["-q", "--retry", "0"]).exits_with(125).says(says);
        assert_eq!(registry.count("/manifests/"), 0, "it is asked again in another way");
    }
}

/// An image that refers to another manifest, which nobody has.
fn with_subject(scene: &Scene, name: &str) -> Layout {
    let layout = Image::new(Vec::new()).layer(&[Entry::file("mark", name)]).layout(scene, name);
    let mut manifest = layout.manifest();
    manifest["subject"] = json!({ "mediaType": MANIFEST, "digest": subject(), "size": 7 });
    manifest["artifactType"] = json!(SBOM);
    manifest["annotations"] = json!({ "name": name });
    layout.set_manifest(&manifest.to_string());
    layout
}

/// Brings an image here, and sends it on as it came; gives its digest.
fn pass_on(scene: &Scene, layout: &Layout, destination: &str) -> String {
    let registry = Scripted::serve(layout, |_| None);
    scene.husk().args(["pull", "-q", &registry.image()]).run().success();
    scene.husk().args(["push", "-q", "--retry-delay", "1ms", &registry.image(), destination]).run().success();
    digest(layout.manifest().to_string().as_bytes())
}

fn a_registry_that_keeps_the_list_is_left_to_it(scene: &Scene) {
    let answer = |knows: bool| {
        move |request: &Request| match &request.method[..] {
            "HEAD" => Reply::new(200),
            "PUT" if knows => Reply::new(201).header("oci-subject", subject()),
            "PUT" => Reply::new(201),
            _ if request.path.contains("/manifests/") => Reply::new(404),
            _ => Reply::ok("application/json", "{}"),
        }
    };
    let layout = with_subject(scene, "one");
    for knows in [true, false] {
        let registry = Scripted::start(answer(knows));
        pass_on(scene, &layout, &format!("{}/copy:1", registry.host()));
        let written = registry.log().into_iter().filter(|request| request.method == "PUT");
        let paths: Vec<_> = written.map(|request| request.path).collect();
        let all = ["/v2/copy/manifests/1".to_owned(), format!("/v2/copy/manifests/{}", tag(&subject()))];
        assert_eq!(paths, all[..if knows { 1 } else { 2 }]);
    }
}

/// Somebody else's entry arrives between husk's reading and its writing: with conditions husk is refused, without them its own
/// entry is lost to a write that began before.
fn what_others_write_meanwhile_is_kept(scene: &Scene) {
    for has_conditions in [true, false] {
        let kept: Arc<Mutex<Vec<Value>>> = Arc::default();
        let writes = AtomicUsize::new(0);
        let path = format!("/v2/copy/manifests/{}", tag(&subject()));
        let script = {
            let kept = Arc::clone(&kept);
            move |request: &Request| {
                let mut kept = kept.lock().unwrap();
                let state = |kept: &[Value]| format!("\"{}\"", kept.len());
                match &request.method[..] {
                    "HEAD" => Reply::new(200),
                    "PUT" if request.path == path => {
                        let document: Value = serde_json::from_slice(&request.body).unwrap();
                        let is_first = writes.fetch_add(1, Ordering::SeqCst) == 0;
                        if is_first {
                            kept.push(referrer("other", SBOM));
                        }
                        if has_conditions && request.header("if-match") != Some(&state(&kept)) {
                            return Reply::new(412);
                        }
                        if !is_first {
                            kept.clone_from(document["manifests"].as_array().unwrap());
                        }
                        Reply::new(201)
                    }
                    "PUT" => Reply::new(201),
                    _ if request.path == path && kept.is_empty() => Reply::new(404),
                    _ if request.path == path => {
                        let reply = index(&kept);
                        if has_conditions { reply.header("etag", state(&kept)) } else { reply }
                    }
                    _ if request.path.contains("/manifests/") => Reply::new(404),
                    _ => Reply::ok("application/json", "{}"),
                }
            }
        };
        let registry = Scripted::start(script);
        let own = pass_on(
            scene,
            &with_subject(scene, &format!("own-{has_conditions}")),
            &format!("{}/copy:1", registry.host()),
        );
        let digests: Vec<_> = kept.lock().unwrap().iter().map(|entry| entry["digest"].clone()).collect();
        assert_eq!(digests, [json!(digest(b"other")), json!(own)], "{has_conditions}");
    }
}

fn an_image_with_a_subject_is_added_to_its_referrers(scene: &Scene) {
    let registry = Real::start(scene, "");
    let name = format!("{}/copy@{}", registry.host(), subject());
    assert_eq!(list(scene, &name, &["-q"]).success().stdout, "");
    let (one, two) = (with_subject(scene, "one"), with_subject(scene, "two"));
    let mut expected = Vec::new();
    for (layout, tag) in [(&one, "1"), (&two, "2"), (&one, "again")] {
        let digest = pass_on(scene, layout, &format!("{}/copy:{tag}", registry.host()));
        let line = format!("{digest} {SBOM} {}", layout.manifest()["annotations"]["name"].as_str().unwrap());
        if !expected.contains(&line) {
            expected.push(line);
        }
        let told = list(scene, &name, &["--format", "{{.Digest}} {{.ArtifactType}} {{.Annotations.name}}"]);
        assert_eq!(told.success().stdout.lines().collect::<Vec<_>>(), expected);
    }
    // Of an image without a subject nothing is written down.
    let plain = Image::new(Vec::new()).layer(&[Entry::file("x", "x")]).layout(scene, "plain");
    let digest = pass_on(scene, &plain, &format!("{}/copy:plain", registry.host()));
    assert_eq!(list(scene, &format!("{}/copy:plain", registry.host()), &["-q"]).success().stdout, "");
    assert!(!list(scene, &name, &["-q"]).success().stdout.contains(&digest));
}
