use super::*;
use std::path::Path;

/// Files below a directory, read as a machine's.
fn load_as(uid: u32, variables: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Registries> {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    for (name, text) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let place = |value: &str| value.replace('~', root.join("home").to_str().unwrap());
    let mut given: Vec<(&str, String)> = variables.iter().map(|(name, value)| (*name, place(value))).collect();
    given.push(("HOME", place("~")));
    let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, &value[..])).collect();
    Registries::load(&Caller::assumed(uid, root, &given))
        .map_err(|error| Error::invalid(error.report().replace(root.to_str().unwrap(), "")))
}

fn load(files: &[(&str, &str)]) -> Registries {
    load_as(0, &[], files).unwrap_or_else(|error| panic!("{}", error.report()))
}

fn conf(text: &str) -> Registries {
    load(&[("etc/containers/registries.conf", text)])
}

fn refused(text: &str) -> String {
    load_as(0, &[], &[("etc/containers/registries.conf", text)]).err().map(|error| error.report()).unwrap_or_default()
}

/// Writes endpoints as `HOST:REPOSITORY`, with `!` for an insecure one and `m` for a mirror.
fn endpoints(registries: &Registries, name: &str) -> Vec<String> {
    let endpoints = registries.endpoints(&Reference::parse(name).unwrap()).unwrap_or_else(|e| panic!("{}", e.report()));
    let written = endpoints.iter().map(|endpoint| {
        let (mirror, insecure) =
            (if endpoint.is_mirror { "m " } else { "" }, if endpoint.is_insecure { "!" } else { "" });
        format!("{mirror}{insecure}{} {}", endpoint.host, endpoint.repository.path())
    });
    written.collect()
}

fn resolved(registries: &Registries, name: &str) -> Vec<String> {
    registries.resolve(name).unwrap_or_else(|e| panic!("{}", e.report())).iter().map(ToString::to_string).collect()
}

#[test]
fn without_any_file_it_is_as_docker_has_it() {
    let registries = load(&[]);
    for (name, endpoint) in [
        ("alpine", "registry-1.docker.io library/alpine"),
        ("docker.io/a/b:1", "registry-1.docker.io a/b"),
        ("quay.io/a/b", "quay.io a/b"),
        ("localhost:5000/a", "!localhost:5000 a"),
        ("localhost/a", "!localhost a"),
        ("127.9.9.9:5000/a", "!127.9.9.9:5000 a"),
        ("[::1]:5000/a", "![::1]:5000 a"),
        ("[::2]:5000/a", "[::2]:5000 a"),
        ("localhost.example.com/a", "localhost.example.com a"),
        ("127.0.0.1.example.com/a", "127.0.0.1.example.com a"),
    ] {
        assert_eq!(endpoints(&registries, name), [endpoint], "{name}");
    }
    for (name, meaning) in [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3"),
        ("a/b", "docker.io/a/b:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("quay.io/a:1", "quay.io/a:1"),
    ] {
        assert_eq!(resolved(&registries, name), [meaning]);
    }
    assert!(registries.resolve("a b").is_err() && registries.resolve("../x").is_err());
}

#[test]
fn the_longest_prefix_is_rewritten() {
    let registries = conf(
        r#"
        [[registry]]
        location = "example.com"
        [[registry]]
        prefix = "example.com/team"
        location = "internal.example.com/else/where"
        [[registry]]
        prefix = "example.com/team/app"
        location = "app.example.com/app"
        insecure = true
        [[registry]]
        prefix = "example.com/tagged:1"
        location = "tagged.example.com/one"
        [[registry]]
        prefix = "*.wild.example.com"
        location = "tame.example.com"
        [[registry]]
        prefix = "*.kept.example.com"
        insecure = true
        [[registry]]
        prefix = "docker.io/library"
        location = "hub.example.com/mirror"
        "#,
    );
    for (name, endpoint) in [
        ("example.com/x", "example.com x"),
        ("example.com/team/x/y:1", "internal.example.com else/where/x/y"),
        ("example.com/teams/x", "example.com teams/x"),
        ("example.com/team/app:1", "!app.example.com app"),
        ("example.com/team/app/part", "!app.example.com app/part"),
        ("example.com/team/apple", "internal.example.com else/where/apple"),
        ("example.com/tagged:1", "tagged.example.com one"),
        ("example.com/tagged:2", "example.com tagged"),
        ("a.wild.example.com/x", "tame.example.com x"),
        ("a.b.wild.example.com/x", "tame.example.com x"),
        ("wild.example.com/x", "wild.example.com x"),
        ("other.io/a.wild.example.com/x", "other.io a.wild.example.com/x"),
        ("a.kept.example.com:5000/x", "!a.kept.example.com:5000 x"),
        ("alpine", "hub.example.com mirror/alpine"),
        ("other.io/x", "other.io x"),
    ] {
        assert_eq!(endpoints(&registries, name), [endpoint], "{name}");
    }
}

#[test]
fn mirrors_come_first() {
    let digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let registries = conf(
        r#"
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "all.example.com/hub"
        insecure = true
        [[registry.mirror]]
        location = "digests.example.com"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "localhost:5000"
        pull-from-mirror = "tag-only"
        [[registry]]
        location = "quay.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "quay.example.com"
        "#,
    );
    let hub = "registry-1.docker.io library/alpine";
    let all = "m !all.example.com hub/library/alpine";
    assert_eq!(endpoints(&registries, "alpine"), [all, "m !localhost:5000 library/alpine", hub]);
    let by_digest = endpoints(&registries, &format!("alpine{digest}"));
    assert_eq!(by_digest, [all, "m digests.example.com library/alpine", hub]);
    assert_eq!(endpoints(&registries, "quay.io/x"), ["quay.io x"]);
    assert_eq!(endpoints(&registries, &format!("quay.io/x{digest}")), ["m quay.example.com x", "quay.io x"]);
}

#[test]
fn what_is_blocked_is_refused() {
    let registries = conf(
        "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n[[registry.mirror]]\nlocation = \"m.io\"\n\
                           [[registry]]\nlocation = \"docker.io/library/alpine\"\n",
    );
    let report = registries.endpoints(&Reference::parse("a/b").unwrap()).unwrap_err().report();
    assert!(report.starts_with("registry docker.io is blocked in /"), "{report}");
    assert!(report.ends_with("/etc/containers/registries.conf"), "{report}");
    assert_eq!(endpoints(&registries, "alpine"), ["registry-1.docker.io library/alpine"]);
}

#[test]
fn short_names() {
    let registries = conf(
        "unqualified-search-registries = [\"quay.io\", \"docker.io\"]\nunknown-key = 1\n\
         [aliases]\n\"fedora\" = \"registry.fedoraproject.org/fedora\"\n\"a/b\" = \"quay.io/c\"\n",
    );
    assert_eq!(resolved(&registries, "x:1"), ["quay.io/x:1", "docker.io/library/x:1"]);
    assert_eq!(resolved(&registries, "fedora:40"), ["registry.fedoraproject.org/fedora:40"]);
    assert_eq!(resolved(&registries, "a/b"), ["quay.io/c:latest"]);
    assert_eq!(resolved(&registries, "docker.io/fedora"), ["docker.io/library/fedora:latest"]);
    let strict = "short-name-mode = \"enforcing\"\nunqualified-search-registries = [\"quay.io\", \"docker.io\"]\n";
    let error = conf(strict).resolve("x").unwrap_err();
    assert_eq!(error.report(), "image name \"x\" may mean each of quay.io/x:latest, x:latest");
    let one = strict.replace(", \"docker.io\"", "");
    assert_eq!(resolved(&conf(&one), "x"), ["quay.io/x:latest"]);
    let error = conf("unqualified-search-registries = []\n").resolve("x").unwrap_err();
    assert!(
        error.report().contains("turned off") && error.hint() == Some("name the registry: docker.io/library/x:latest")
    );
}

#[test]
fn files_are_read_in_order() {
    let search =
        |name: &str| format!("unqualified-search-registries = [\"{name}\"]\n[aliases]\n\"a\" = \"{name}/a\"\n");
    let first = |registries: Result<Registries>| resolved(&registries.unwrap(), "x")[0].clone();
    let system = ("etc/containers/registries.conf", &search("system.io")[..]);
    let user = ("home/.config/containers/registries.conf", &search("user.io")[..]);
    assert_eq!(first(load_as(7, &[], &[system])), "system.io/x:latest");
    assert_eq!(first(load_as(7, &[], &[system, user])), "user.io/x:latest");
    let own = ("home/own.conf", &search("own.io")[..]);
    let variable = ("CONTAINERS_REGISTRIES_CONF", "~/own.conf");
    assert_eq!(first(load_as(7, &[variable], &[system, user, own])), "own.io/x:latest");
    assert!(load_as(7, &[variable], &[]).err().unwrap().report().contains("/home/own.conf does not exist"));

    let registry = |insecure: bool| format!("[[registry]]\nlocation = \"r.io\"\ninsecure = {insecure}\n");
    let dropped = load_as(
        7,
        &[],
        &[
            system,
            ("etc/containers/registries.conf.d/00.conf", &registry(true)),
            ("etc/containers/registries.conf.d/10.conf", "[aliases]\n\"a\" = \"ten.io/a\"\n"),
            ("etc/containers/registries.conf.d/20.conf.off", &search("off.io")),
            ("home/.config/containers/registries.conf.d/05.conf", &registry(false)),
        ],
    )
    .unwrap();
    assert_eq!(endpoints(&dropped, "r.io/x"), ["r.io x"]);
    assert_eq!(resolved(&dropped, "a"), ["ten.io/a:latest"]);
    assert_eq!(resolved(&dropped, "x"), ["system.io/x:latest"]);
}

#[test]
fn mistakes_are_named() {
    for (text, report) in [
        (
            "\n[[registry]]\nlocation = \"a.io\"\nblockd = true\n",
            "/etc/containers/registries.conf:4: unknown field `blockd`",
        ),
        (
            "[registries.search]\nregistries = [\"a.io\"]\n",
            "/etc/containers/registries.conf: [registries.…] is version 1",
        ),
        ("[[registry]]\nprefix = \"a.io\"\n", "registry \"a.io\": without a location"),
        ("[[registry]]\nlocation = \"https://a.io\"\n", "is a URL"),
        ("[[registry]]\nlocation = \"a.io/../b\"\n", "a.io/../b"),
        ("[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]\n", "missing field `location`"),
        ("[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]\nlocation = \"\"\n", "mirror \"\""),
        (
            "[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]\nlocation=\"b\"\npull-from-mirror=\"x\"\n",
            "unknown variant `x`",
        ),
        (
            "[[registry]]\nlocation = \"a.io\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation=\"b\"\n\
             pull-from-mirror=\"all\"\n",
            "cannot be used together",
        ),
        ("unqualified-search-registries = [\"a b\"]\n", "unqualified-search-registries"),
        ("short-name-mode = \"x\"\n", "unknown variant `x`"),
        ("[aliases]\n\"a\" = \"b\"\n", "alias \"a\""),
        ("[aliases]\n\"a\" = \"b.io/b:1\"\n", "alias \"a\""),
        ("[aliases]\n\"a.io/a\" = \"b.io/b\"\n", "alias \"a.io/a\""),
    ] {
        let found = refused(text);
        assert!(found.contains(report), "{text}: {found}");
    }
}

#[test]
fn dockers_file_is_asked_where_no_entry_decides() {
    let daemon = r#"{"insecure-registries":["reg.example.com:5000","10.0.0.0/8","http://plain.example.com/"],
                     "registry-mirrors":["https://mirror.example.com/","http://localhost:5001"],"log-level":"warn"}"#;
    let file = ("etc/docker/daemon.json", daemon);
    let registries = load(&[file]);
    let hub = "registry-1.docker.io library/alpine";
    let mirrored = ["m mirror.example.com library/alpine", "m !localhost:5001 library/alpine", hub];
    assert_eq!(endpoints(&registries, "alpine"), mirrored);
    for (name, endpoint) in [
        ("reg.example.com:5000/x", "!reg.example.com:5000 x"),
        ("reg.example.com/x", "reg.example.com x"),
        ("plain.example.com/x", "!plain.example.com x"),
        ("10.1.2.3:5000/x", "!10.1.2.3:5000 x"),
        ("11.1.2.3:5000/x", "11.1.2.3:5000 x"),
        ("quay.io/x", "quay.io x"),
    ] {
        assert_eq!(endpoints(&registries, name), [endpoint], "{name}");
        assert_eq!(registries.is_insecure(name.split('/').next().unwrap()), endpoint.starts_with('!'));
    }
    let conf = (
        "etc/containers/registries.conf",
        "[[registry]]\nlocation = \"docker.io\"\n[[registry]]\nlocation = \
                                                   \"reg.example.com:5000\"\ninsecure = false\n[[registry]]\nlocation = \
                                                   \"localhost\"\ninsecure = false\n",
    );
    let registries = load(&[file, conf]);
    assert_eq!(endpoints(&registries, "alpine"), [hub]);
    assert_eq!(endpoints(&registries, "reg.example.com:5000/x"), ["reg.example.com:5000 x"]);
    assert_eq!(endpoints(&registries, "localhost/x"), ["localhost x"], "what is said precedes the rule of loopback");
    assert!(!registries.is_insecure("localhost") && registries.is_insecure("127.0.0.1:80"));

    let own = ("home/.config/docker/daemon.json", "{\"insecure-registries\":[\"own.example.com\"]}");
    assert_eq!(endpoints(&load_as(7, &[], &[file, own]).unwrap(), "own.example.com/x"), ["!own.example.com x"]);
    assert_eq!(endpoints(&load_as(0, &[], &[file, own]).unwrap(), "own.example.com/x"), ["own.example.com x"]);
    let error = load_as(0, &[], &[("etc/docker/daemon.json", "{")]).err().unwrap();
    assert!(error.report().starts_with("/etc/docker/daemon.json: EOF"), "{}", error.report());
    let path = Path::new("daemon.json");
    assert!(Daemon::parse("", path).is_ok());
    assert!(Daemon::parse("{\"registry-mirrors\":[\"https://u@h/x\"]}", path).is_err());
}
