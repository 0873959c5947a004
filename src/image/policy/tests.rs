use super::*;
use serde_json::{Value, json};
use std::cell::Cell;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../fixtures/sigstore/", $name))
    };
}

const SIGNED: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn digest(text: &str) -> Digest {
    text.parse().unwrap()
}

fn policy(document: &Value) -> Policy {
    parse(&document.to_string()).unwrap_or_else(|error| panic!("{document}: {}", error.report()))
}

fn parse(text: &str) -> Result<Policy> {
    Policy::parse(text.as_bytes())
}

fn check_with(policy: &Policy, name: &str, signatures: &[Signature]) -> Result<()> {
    let reference = Reference::parse(name).unwrap();
    policy.check(&Subject::Registry(&reference), &[digest(SIGNED)], &|_| Ok(signatures.to_vec()))
}

fn is_allowed(policy: &Policy, name: &str) -> bool {
    check_with(policy, name, &[]).is_ok()
}

fn report(policy: &Policy, name: &str, signatures: &[Signature]) -> String {
    check_with(policy, name, signatures).unwrap_err().report()
}

fn signature(payload: &str, signature: &str) -> Signature {
    Signature { payload: payload.into(), signature: signature.to_owned() }
}

fn accept() -> Value {
    json!([{ "type": "insecureAcceptAnything" }])
}

fn reject() -> Value {
    json!([{ "type": "reject" }])
}

fn data(pem: &str) -> String {
    crate::support::base64::encode(pem.as_bytes())
}

/// Signed with the key P-256, with a rule for the name.
fn signed_with(identity: &Value) -> Policy {
    let mut requirement = json!({ "type": "sigstoreSigned", "keyData": data(fixture!("p256.pem")) });
    if !identity.is_null() {
        requirement["signedIdentity"] = identity.clone();
    }
    policy(&json!({ "default": [requirement] }))
}

#[test]
fn the_most_special_scope_decides() {
    let policy = policy(&json!({
        "default": reject(),
        "transports": {
            "docker": {
                "docker.io": accept(),
                "docker.io/library": reject(),
                "docker.io/library/alpine": accept(),
                "docker.io/library/alpine:3": reject(),
                format!("docker.io/library/debian@{SIGNED}"): accept(),
                "*.example.com": accept(),
                "*.bad.example.com": reject(),
                "reg.example.com:5000": reject(),
                "reg.example.com:5000/team/app": accept(),
            },
            "oci": { "": accept(), "/srv/images": reject(), "/srv/images/good": accept() },
        },
    }));
    for (name, allowed) in [
        ("a/b", true),
        ("busybox", false),
        ("alpine", true),
        ("alpine:3", false),
        (&format!("alpine:3@{SIGNED}")[..], false),
        (&format!("alpine@{SIGNED}"), true),
        ("debian", false),
        (&format!("debian@{SIGNED}"), true),
        (&format!("debian:1@{SIGNED}"), true),
        ("a.example.com/x", true),
        ("a.example.com:8080/x", true),
        ("a.b.example.com/x", true),
        ("example.com/x", false),
        ("a.bad.example.com/x", false),
        ("bad.example.com/x", true),
        ("reg.example.com:5000/x", false),
        ("reg.example.com:5000/team/app/part", true),
        ("reg.example.com:5000/team/apple", false),
        ("quay.io/x", false),
        ("[::1]:5000/x", false),
    ] {
        assert_eq!(is_allowed(&policy, name), allowed, "{name}");
    }
    for (transport, path, allowed) in [
        ("oci", "/srv/other", true),
        ("oci", "/srv/images/x", false),
        ("oci", "/srv/images", false),
        ("oci", "/srv/images/good/x", true),
        ("oci", "/srv/images.d", true),
        ("oci-archive", "/srv/other", false),
        ("dir", "/", false),
    ] {
        let subject = Subject::Local { transport, path: Path::new(path) };
        let answer = policy.check(&subject, &[digest(SIGNED)], &|_| Ok(Vec::new()));
        assert_eq!(answer.is_ok(), allowed, "{transport}:{path}");
    }
}

#[test]
fn a_digest_proves_no_permission() {
    let policy = policy(&json!({ "default": reject() }));
    let found = report(&policy, &format!("alpine@{SIGNED}"), &[]);
    assert_eq!(found, format!("image alpine@{SIGNED} is not allowed by policy.json: it is rejected"));
}

#[test]
fn all_requirements_count() {
    let both = |first: Value, second: Value| policy(&json!({ "default": [first[0], second[0]] }));
    assert!(is_allowed(&both(accept(), accept()), "a"));
    assert!(!is_allowed(&both(accept(), reject()), "a"));
    assert!(!is_allowed(&both(reject(), accept()), "a"));
}

#[test]
fn what_cannot_be_checked_refuses() {
    let key = data(fixture!("p256.pem"));
    for (requirement, what) in [
        (json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x" }), "GPG"),
        (json!({ "type": "sigstoreSigned", "fulcio": { "caPath": "/x" }, "rekorPublicKeyPath": "/y" }), "Fulcio"),
        (json!({ "type": "sigstoreSigned", "pki": {} }), "pki"),
        (json!({ "type": "sigstoreSigned", "keyData": key, "rekorPublicKeyData": "x" }), "Rekor"),
    ] {
        let found = report(&policy(&json!({ "default": [requirement] })), "a", &[]);
        assert!(found.contains(what) && found.ends_with("which husk cannot check"), "{found}");
    }
}

#[test]
fn a_signature_is_needed_and_verified() {
    let policy = signed_with(&Value::Null);
    let good = signature(fixture!("payload.json"), fixture!("p256.sig"));
    let name = "quay.io/team/app:1";
    check_with(&policy, name, std::slice::from_ref(&good)).unwrap();
    let by_other = signature(fixture!("payload.json"), fixture!("p384.sig"));
    check_with(&policy, name, &[by_other.clone(), good.clone()]).unwrap();
    let prefix = "image quay.io/team/app:1 is not allowed by policy.json: ";
    assert_eq!(report(&policy, name, &[]), format!("{prefix}a signature is required, and there is none"));
    let last = format!("{prefix}none of its signatures is accepted, the last since: ");
    assert_eq!(report(&policy, name, &[by_other]), format!("{last}none of the keys has made it"));
    let other = signature(fixture!("other-digest.json"), fixture!("other-digest.sig"));
    assert!(report(&policy, name, &[other]).starts_with(&format!("{last}it is for sha256:00000000")));
    let other = signature(fixture!("other-name.json"), fixture!("other-name.sig"));
    assert!(report(&policy, name, &[other]).starts_with(&format!("{last}it is for quay.io/team/other:1")));
    assert!(report(&policy, "quay.io/team/app:2", std::slice::from_ref(&good)).contains("is not what policy takes"));

    let reference = Reference::parse(name).unwrap();
    let failing =
        policy.check(&Subject::Registry(&reference), &[digest(SIGNED)], &|_| Err(Error::invalid("no network")));
    assert!(failing.unwrap_err().report().ends_with("fetch its signatures: no network"));
    let local = Subject::Local { transport: "oci", path: Path::new("/x") };
    let failing = policy.check(&local, &[digest(SIGNED)], &|_| panic!("nothing to fetch"));
    assert!(failing.unwrap_err().report().contains("local files have none"));
}

#[test]
fn who_signs_an_index_signs_what_is_in_it() {
    let policy = signed_with(&Value::Null);
    let reference = Reference::parse("quay.io/team/app:1").unwrap();
    let manifest = digest(&SIGNED.replace("e3b0", "0000"));
    // The signature is one of the index, and found there alone.
    let of_index = |asked: &Digest| {
        let is_index = *asked == digest(SIGNED);
        Ok(is_index.then(|| signature(fixture!("payload.json"), fixture!("p256.sig"))).into_iter().collect())
    };
    let check = |manifests: &[Digest]| policy.check(&Subject::Registry(&reference), manifests, &of_index);
    check(&[digest(SIGNED), manifest]).unwrap();
    assert!(check(&[manifest]).is_err());
    // One that lies beside another manifest is not good for that.
    let beside = |_: &Digest| Ok(vec![signature(fixture!("payload.json"), fixture!("p256.sig"))]);
    assert!(policy.check(&Subject::Registry(&reference), &[manifest], &beside).is_err());
}

#[test]
fn names_are_compared_by_the_rule() {
    let tagged = signature(fixture!("payload.json"), fixture!("p256.sig"));
    let bare = signature(fixture!("repository.json"), fixture!("repository.sig"));
    let by_digest = format!("quay.io/team/app@{SIGNED}");
    let app = "quay.io/team/app:1";
    let rule = |kind: &str| json!({ "type": kind });
    let remap = json!({ "type": "remapIdentity", "prefix": "mirror.io/m", "signedPrefix": "quay.io/team" });
    let exact = |name: &str| json!({ "type": "exactReference", "dockerReference": name });
    let repository = json!({ "type": "exactRepository", "dockerRepository": "quay.io/team/app" });
    for (identity, signature, name, allowed) in [
        (rule("matchExact"), &tagged, app, true),
        (rule("matchExact"), &tagged, "quay.io/team/app:2", false),
        (rule("matchExact"), &tagged, &by_digest[..], false),
        (rule("matchExact"), &bare, app, false),
        (rule("matchRepoDigestOrExact"), &tagged, app, true),
        (rule("matchRepoDigestOrExact"), &tagged, &by_digest, true),
        (rule("matchRepoDigestOrExact"), &tagged, "quay.io/team/app:2", false),
        (rule("matchRepoDigestOrExact"), &bare, &by_digest, false),
        (rule("matchRepository"), &tagged, "quay.io/team/app:2", true),
        (rule("matchRepository"), &bare, app, true),
        (rule("matchRepository"), &bare, "quay.io/team/other:1", false),
        (exact(app), &tagged, "other.io/x", true),
        (exact("quay.io/team/app:2"), &tagged, app, false),
        (repository.clone(), &bare, "other.io/x", true),
        (repository, &signature(fixture!("other-name.json"), fixture!("other-name.sig")), app, false),
        (remap.clone(), &tagged, "mirror.io/m/app:1", true),
        (remap.clone(), &tagged, app, true),
        (remap.clone(), &tagged, "mirror.io/m/app:2", false),
        (remap, &tagged, "mirror.io/mm/app:1", false),
    ] {
        let answer = check_with(&signed_with(&identity), name, std::slice::from_ref(signature));
        assert_eq!(answer.is_ok(), allowed, "{identity} {name}: {answer:?}");
    }
}

#[test]
fn keys_come_from_files_and_lists() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("key.pem");
    std::fs::write(&path, fixture!("p256.pem")).unwrap();
    let good = [signature(fixture!("payload.json"), fixture!("p256.sig"))];
    let sigstore = |key: &str, value: Value| policy(&json!({ "default": [{ "type": "sigstoreSigned", key: value }] }));
    let (p256, rsa) = (data(fixture!("p256.pem")), data(fixture!("rsa.pem")));
    for policy in [
        sigstore("keyPath", json!(path)),
        sigstore("keyPaths", json!([path])),
        sigstore("keyData", json!(p256)),
        sigstore("keyDatas", json!([rsa, p256])),
    ] {
        check_with(&policy, "quay.io/team/app:1", &good).unwrap();
    }
    let found = report(&sigstore("keyPath", json!("/nonexistent/key.pem")), "quay.io/team/app:1", &good);
    assert!(found.ends_with("key /nonexistent/key.pem: does not exist"), "{found}");
    let found = report(&sigstore("keyData", json!(data("x"))), "quay.io/team/app:1", &good);
    assert!(found.ends_with("keyData: no public key in PEM"), "{found}");
}

#[test]
fn signatures_are_fetched_once_and_only_where_they_count() {
    let fetched = Cell::new(0);
    let count = |policy: &Policy, name: &str| {
        fetched.set(0);
        let reference = Reference::parse(name).unwrap();
        let fetch = |_: &Digest| {
            fetched.set(fetched.get() + 1);
            Ok(vec![signature(fixture!("payload.json"), fixture!("p256.sig"))])
        };
        let _ = policy.check(&Subject::Registry(&reference), &[digest(SIGNED)], &fetch);
        fetched.get()
    };
    assert_eq!(count(&policy(&json!({ "default": accept() })), "a"), 0);
    assert_eq!(count(&policy(&json!({ "default": reject() })), "a"), 0);
    assert_eq!(count(&Policy(None), "a"), 0);
    let one = json!({ "type": "sigstoreSigned", "keyData": data(fixture!("p256.pem")) });
    assert_eq!(count(&policy(&json!({ "default": [one, one] })), "quay.io/team/app:1"), 1);
}

#[test]
fn mistakes_refuse_the_whole_file() {
    let docker =
        |scope: &str| json!({ "default": accept(), "transports": { "docker": { scope: accept() } } }).to_string();
    let requirement = |value: Value| json!({ "default": [value] }).to_string();
    let key = data(fixture!("p256.pem"));
    for (text, report) in [
        (String::new(), "EOF"),
        ("[]".to_owned(), "the policy is not an object"),
        ("{}".to_owned(), "default is missing"),
        ("{\"default\":[]}".to_owned(), "default: an empty list"),
        ("{\"default\":{}}".to_owned(), "default: not a list"),
        ("{\"default\":[{\"type\":\"reject\"}],\"default\":[{\"type\":\"reject\"}]}".to_owned(), "is there twice"),
        (json!({ "default": accept(), "more": 1 }).to_string(), "unknown field \"more\""),
        (requirement(json!({ "type": "reject", "x": 1 })), "default: reject: unknown field \"x\""),
        (requirement(json!({ "type": "other" })), "unknown type \"other\""),
        (requirement(json!({})), "a requirement has no type"),
        (requirement(json!({ "type": "signedBy", "x": 1 })), "unknown field \"x\""),
        (requirement(json!({ "type": "sigstoreSigned" })), "one of keyPath"),
        (requirement(json!({ "type": "sigstoreSigned", "keyData": key, "keyPath": "/x" })), "one of keyPath"),
        (requirement(json!({ "type": "sigstoreSigned", "keyPaths": [] })), "the list of keys is empty"),
        (requirement(json!({ "type": "sigstoreSigned", "keyPaths": "x" })), "keyPaths is not a list of strings"),
        (requirement(json!({ "type": "sigstoreSigned", "keyData": "%" })), "not base64"),
        (
            requirement(json!({ "type": "sigstoreSigned", "keyData": key, "signedIdentity": { "type": "x" } })),
            "default: sigstoreSigned: signedIdentity: unknown type \"x\"",
        ),
        (
            requirement(json!({ "type": "sigstoreSigned", "keyData": key,
                                "signedIdentity": { "type": "exactReference", "dockerReference": "a" } })),
            "has neither tag nor digest",
        ),
        (
            requirement(json!({ "type": "sigstoreSigned", "keyData": key,
                                "signedIdentity": { "type": "matchExact", "prefix": "a" } })),
            "unknown field \"prefix\"",
        ),
        (docker("https://quay.io"), "transports.docker[\"https://quay.io\"]"),
        (docker("quay.io/Team"), "transports.docker[\"quay.io/Team\"]"),
        (docker("*.quay.io/x"), "a wildcard stands for hosts"),
        (
            json!({ "default": accept(), "transports": { "docker": [] } }).to_string(),
            "transports.docker is not an object",
        ),
    ] {
        let found = parse(&text).unwrap_err().report();
        assert!(found.contains(report), "{text}: {found}");
    }
}

#[test]
fn the_users_file_comes_first_and_none_accepts() {
    let scratch = tempfile::tempdir().unwrap();
    let home = scratch.path().join("home");
    let load = || Policy::load(&Caller::assumed(7, scratch.path(), &[("HOME", home.to_str().unwrap())]));
    assert!(is_allowed(&load().unwrap(), "alpine"));
    let write = |name: &str, document: &Value| {
        let path = scratch.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, document.to_string()).unwrap();
    };
    write("usr/share/containers/policy.json", &json!({ "default": reject() }));
    assert!(!is_allowed(&load().unwrap(), "alpine"));
    write("etc/containers/policy.json", &json!({ "default": accept() }));
    assert!(is_allowed(&load().unwrap(), "alpine"));
    write("home/.config/containers/policy.json", &json!({ "default": reject() }));
    assert!(!is_allowed(&load().unwrap(), "alpine"));
    write("home/.config/containers/policy.json", &json!({ "default": [] }));
    let report = load().unwrap_err().report();
    assert!(report.contains("home/.config/containers/policy.json: default: an empty list"), "{report}");
}
