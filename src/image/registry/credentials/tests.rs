use super::*;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

/// A machine in a directory, with the caller's files.
struct Machine {
    scratch: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Machine {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let machine = Self { variables: Vec::new(), scratch };
        for folder in ["home", "session", "bin"] {
            std::fs::create_dir(machine.path(folder)).unwrap();
        }
        std::fs::set_permissions(machine.path("session"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let search = format!("{}:{}", machine.text("bin"), std::env::var("PATH").unwrap());
        let (home, session) = (machine.text("home"), machine.text("session"));
        machine.set("HOME", &home).set("XDG_RUNTIME_DIR", &session).set("PATH", &search)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// Puts a helper in the PATH that keeps one login a file.
    fn helper(self, name: &str) -> Self {
        let keys = self.text("keys");
        std::fs::create_dir_all(&keys).unwrap();
        let script = format!(
            r#"#!/bin/sh
cd {keys} || exit 1
echo "$1" >>log
case $1 in
get) read server; key=$(echo "$server" | tr / +)
    [ -e "$key" ] || {{ echo "credentials not found in native keychain"; exit 1; }}
    cat "$key";;
store) read text; server=${{text#*ServerURL\":\"}}; server=${{server%%\"*}}; echo "$text" >"$(echo "$server" | tr / +)";;
erase) read server; rm -f "$(echo "$server" | tr / +)";;
list) printf '{{'; s=; for key in *:* *.*; do [ -e "$key" ] || continue; printf '%s"%s":"u"' "$s" "$(echo "$key" | tr + /)"; s=,; done; printf '}}';;
esac
"#
        );
        let path = self.path(&format!("bin/docker-credential-{name}"));
        // Written by another process: a fork in another test's thread would hold it open for writing (ETXTBSY).
        let mut writer = Command::new("sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\"", path.to_str().unwrap()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        self
    }

    fn credentials(&self) -> Credentials {
        let variables: Vec<(&str, &str)> = self.variables.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let uid = rustix::process::geteuid().as_raw();
        Credentials::load(&Caller::assumed(uid, self.scratch.path(), &variables), None)
    }

    fn lookup(&self, name: &str) -> Option<String> {
        self.try_lookup(name).unwrap_or_else(|error| panic!("{name}: {}", error.report()))
    }

    /// Gives `USER:PASSWORD`, or `:TOKEN`.
    fn try_lookup(&self, name: &str) -> Result<Option<String>> {
        let reference = crate::image::reference::Reference::parse(name).unwrap();
        Ok(self.credentials().lookup(reference.repository())?.map(|login| match login {
            Login::Basic { user, password } => format!("{user}:{}", password.expose()),
            Login::IdentityToken(token) => format!(":{}", token.expose()),
        }))
    }

    fn read(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }
}

fn auths(entries: &[(&str, &str)]) -> String {
    let entries: Vec<String> =
        entries.iter().map(|(key, auth)| format!("{key:?}:{{\"auth\":\"{}\"}}", base64(auth))).collect();
    format!("{{\"auths\":{{{}}}}}", entries.join(","))
}

fn base64(text: &str) -> String {
    crate::support::base64::encode(text.as_bytes())
}

fn scope(text: &str) -> Scope {
    Scope::parse(text).unwrap()
}

fn basic(user: &str, password: &str) -> Login {
    Login::Basic { user: user.to_owned(), password: Secret::new(password) }
}

#[test]
fn the_longest_prefix_wins() {
    let machine = Machine::new().file(
        "session/containers/auth.json",
        &auths(&[
            ("quay.io", "host:1"),
            ("quay.io/team", "team:2"),
            ("quay.io/team/app", "app:3"),
            ("quay.io:8443", "port:4"),
            ("docker.io/library", "library:5"),
            ("[::1]:5000", "six:6"),
        ]),
    );
    for (name, login) in [
        ("quay.io/x", Some("host:1")),
        ("quay.io/team/other", Some("team:2")),
        ("quay.io/teams/other", Some("host:1")),
        ("quay.io/team/app:1", Some("app:3")),
        ("quay.io/team/app/part", Some("app:3")),
        ("quay.io:8443/team/app", Some("port:4")),
        ("quay.io:443/x", None),
        ("xquay.io/x", None),
        ("alpine", Some("library:5")),
        ("other/app", None),
        ("[::1]:5000/x", Some("six:6")),
    ] {
        assert_eq!(machine.lookup(name).as_deref(), login, "{name}");
    }
}

#[test]
fn keys_of_docker_are_understood() {
    for key in [
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "https://index.docker.io/v1/",
        "https://index.docker.io/v2/",
        "http://docker.io",
    ] {
        let machine = Machine::new().file("home/.docker/config.json", &auths(&[(key, "u:p")]));
        assert_eq!(machine.lookup("alpine").as_deref(), Some("u:p"), "{key}");
        assert_eq!(machine.lookup("quay.io/x"), None);
    }
    let machine = Machine::new().file("home/.docker/config.json", &auths(&[("https://quay.io/v2/", "u:p")]));
    assert_eq!(machine.lookup("quay.io/a/b").as_deref(), Some("u:p"));
    // Only a URL's path is passed over: a namespace is not the whole host.
    let machine = Machine::new().file("home/.docker/config.json", &auths(&[("quay.io/team", "u:p")]));
    assert_eq!(machine.lookup("quay.io/other"), None);
    let old = format!("{{\"https://quay.io/v1/\":{{\"auth\":\"{}\",\"email\":\"x\"}}}}", base64("old:p"));
    assert_eq!(Machine::new().file("home/.dockercfg", &old).lookup("quay.io/x").as_deref(), Some("old:p"));
}

#[test]
fn the_first_file_with_a_login_decides() {
    let all = |machine: Machine| {
        machine
            .file("home/.dockercfg", &format!("{{\"quay.io\":{{\"auth\":\"{}\"}}}}", base64("cfg:p")))
            .file("home/.docker/config.json", &auths(&[("quay.io", "docker:p")]))
            .file("home/.config/containers/auth.json", &auths(&[("quay.io", "config:p")]))
            .file("session/containers/auth.json", &auths(&[("quay.io", "session:p")]))
            .file("named.json", &auths(&[("quay.io", "named:p")]))
            .file("folder/config.json", &auths(&[("quay.io", "folder:p")]))
    };
    let mut machine = all(Machine::new());
    for (user, gone) in [
        ("session:p", "session/containers/auth.json"),
        ("config:p", "home/.config/containers/auth.json"),
        ("docker:p", "home/.docker/config.json"),
        ("cfg:p", "home/.dockercfg"),
    ] {
        assert_eq!(machine.lookup("quay.io/x").as_deref(), Some(user));
        machine = machine.file(gone, "{\"auths\":{}}");
    }
    let machine = all(Machine::new()).set("DOCKER_AUTH_CONFIG", &auths(&[("quay.io", "variable:p")]));
    assert_eq!(machine.lookup("quay.io/x").as_deref(), Some("variable:p"));
    let machine = all(Machine::new());
    let folder = machine.text("folder");
    let machine = machine.set("DOCKER_CONFIG", &folder);
    assert_eq!(machine.lookup("quay.io/x").as_deref(), Some("folder:p"));
    let named = machine.text("named.json");
    let machine = machine.set("REGISTRY_AUTH_FILE", &named);
    assert_eq!(machine.lookup("quay.io/x").as_deref(), Some("named:p"));
    let machine = machine.file("named.json", "{}");
    assert_eq!(machine.lookup("quay.io/x"), None, "a file that is named is the only one");
    std::fs::remove_file(machine.path("named.json")).unwrap();
    assert_eq!(machine.try_lookup("quay.io/x").unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn root_without_a_session_has_a_file_in_run() {
    let scratch = tempfile::tempdir().unwrap();
    let home = scratch.path().join("home");
    let variables = [("HOME", home.to_str().unwrap())];
    let target = |uid| Credentials::load(&Caller::assumed(uid, scratch.path(), &variables), None).target;
    assert_eq!(target(0), Ok(scratch.path().join("run/containers/0/auth.json")));
    assert_eq!(target(4_000_000), Ok(home.join(".config/containers/auth.json")));
}

#[test]
fn all_forms_of_an_entry() {
    for (entry, login) in [
        (format!("{{\"auth\":\"{}\"}}", base64("u:p:q")), Some("u:p:q")),
        (format!("{{\"auth\":\"{}\"}}", base64("u:p\0\0")), Some("u:p")),
        (format!("{{\"auth\":\"{}\"}}", base64("u:")), Some("u:")),
        (format!("{{\"auth\":\"{}\",\"identitytoken\":\"t\"}}", base64("u:")), Some(":t")),
        ("{\"username\":\"u\",\"password\":\"p\"}".to_owned(), Some("u:p")),
        ("{}".to_owned(), None),
        ("{\"auth\":\"\",\"email\":null}".to_owned(), None),
    ] {
        let machine =
            Machine::new().file("session/containers/auth.json", &format!("{{\"auths\":{{\"quay.io\":{entry}}}}}"));
        assert_eq!(machine.lookup("quay.io/x").as_deref(), login, "{entry}");
    }
}

#[test]
fn messages_hold_no_secret() {
    let secret = base64("u:hunter2hunter2");
    for (content, report) in [
        (format!("{{\"auths\":{{\"quay.io\":{{\"auth\":\"{secret}\"}}}}"), "not JSON at line 1"),
        (format!("\"{secret}\""), "not a JSON object"),
        (format!("{{\"auths\":{{\"quay.io\":\"{secret}\"}}}}"), "entry \"quay.io\": not an object"),
        (format!("{{\"auths\":\"{secret}\"}}"), "auths is not an object"),
        (format!("{{\"auths\":{{\"quay.io\":{{\"auth\":\"{secret}%\"}}}}}}"), "auth is not base64"),
        (format!("{{\"auths\":{{\"quay.io\":{{\"auth\":\"{}\"}}}}}}", base64("hunter2")), "auth is not USER:PASSWORD"),
        (
            format!("{{\"auths\":{{\"quay.io\":{{\"identitytoken\":[\"{secret}\"]}}}}}}"),
            "identitytoken is not a string",
        ),
        (format!("{{\"credHelpers\":{{\"quay.io\":[\"{secret}\"]}}}}"), "\"quay.io\" is not a string"),
    ] {
        for machine in [
            Machine::new().file("session/containers/auth.json", &content),
            Machine::new().set("DOCKER_AUTH_CONFIG", &content),
        ] {
            let found = machine.try_lookup("quay.io/x").unwrap_err().report();
            assert!(found.contains(report), "{content}: {found}");
            assert!(!found.contains(&secret) && !found.contains("hunter"), "{found}");
        }
    }
    let shown = format!("{:?}", basic("u", "hunter2"));
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn helpers_are_asked_first() {
    let file = |content: &str| Machine::new().helper("keys").file("home/.docker/config.json", content);
    let answer = "{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"p\"}";
    let entry = format!("\"auths\":{{\"quay.io\":{{\"auth\":\"{}\"}},\"docker.io\":{{}}}}", base64("file:p"));
    for setting in ["\"credsStore\":\"keys\"", "\"credHelpers\":{\"quay.io\":\"keys\",\"docker.io\":\"keys\"}"] {
        let machine = file(&format!("{{{setting},{entry}}}"));
        assert_eq!(machine.lookup("quay.io/x").as_deref(), Some("file:p"), "the helper knows nothing");
        let machine = machine.file("keys/quay.io", answer);
        assert_eq!(machine.lookup("quay.io/x").as_deref(), Some("u:p"));
        assert_eq!(machine.lookup("alpine"), None);
        let machine = machine.file("keys/https:++index.docker.io+v1+", &answer.replace("\"u\"", "\"<token>\""));
        assert_eq!(machine.lookup("alpine").as_deref(), Some(":p"));
    }
    let machine = file("{\"credHelpers\":{\"quay.io\":\"keys\"}}").file("keys/quay.io", "{\"Secret\":\"hunter2\"}");
    let report = machine.try_lookup("quay.io/x").unwrap_err().report();
    assert!(report.contains("docker-credential-keys get quay.io: what it answers is no login"), "{report}");
    assert!(!report.contains("hunter"), "{report}");
    let report = file("{\"credsStore\":\"../keys\"}").try_lookup("quay.io/x").unwrap_err().report();
    assert!(report.contains("not a program's name"), "{report}");
    // A desktop that is gone does not keep others from pulling.
    assert_eq!(file("{\"credsStore\":\"husk-none\"}").lookup("quay.io/x"), None);
}

#[test]
fn a_login_is_kept_and_the_rest_of_the_file_with_it() {
    let rest = "\"psFormat\":\"table\",\"HttpHeaders\":{\"a\":[1,2.5,null]},\"currentContext\":\"x\"";
    let machine = Machine::new().file(
        "session/containers/auth.json",
        &format!(
            "{{{rest},\"auths\":{{\"docker.io\":{{\"auth\":\"{}\"}},\"quay.io\":{{\"auth\":\"a\"}}}}}}",
            base64("old:p")
        ),
    );
    let credentials = machine.credentials();
    let path = machine.path("session/containers/auth.json");
    assert_eq!(credentials.store(&scope("docker.io"), &basic("u", "p")).unwrap(), Stored::File(path.clone()));
    assert_eq!(machine.lookup("alpine").as_deref(), Some("u:p"));
    let expected = format!(
        "{{{rest},\"auths\":{{\"https://index.docker.io/v1/\":{{\"auth\":\"{}\"}},\"quay.io\":{{\"auth\":\"a\"}}}}}}",
        base64("u:p")
    );
    assert_eq!(
        machine.read("session/containers/auth.json"),
        serde_json::from_str::<serde_json::Value>(&expected).unwrap()
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    credentials.store(&scope("quay.io/team"), &Login::IdentityToken(Secret::new("t"))).unwrap();
    assert_eq!(machine.lookup("quay.io/team/app").as_deref(), Some(":t"));
    for user in ["", "a:b"] {
        assert!(credentials.store(&scope("quay.io"), &basic(user, "p")).unwrap_err().report().contains("RFC 7617"));
    }
    assert_eq!(credentials.remove(&scope("https://index.docker.io/v1/")).unwrap(), std::slice::from_ref(&path));
    assert_eq!(machine.lookup("alpine"), None);
    assert!(credentials.remove(&scope("docker.io")).unwrap().is_empty());
    assert_eq!(machine.lookup("quay.io/team/app").as_deref(), Some(":t"), "only what was named");
    assert_eq!(credentials.remove_all().unwrap(), [path]);
    assert_eq!(machine.lookup("quay.io/team/app"), None);
    assert_eq!(machine.read("session/containers/auth.json")["currentContext"], "x");
}

#[test]
fn a_new_file_is_the_users_alone() {
    let machine = Machine::new().set("DOCKER_CONFIG", "");
    std::fs::remove_dir(machine.path("session")).unwrap();
    let machine = machine.set("XDG_RUNTIME_DIR", "").set("DOCKER_CONFIG", "/nowhere");
    let folder = machine.text("home/.docker/deep");
    let machine = machine.set("DOCKER_CONFIG", &folder);
    let path = machine.path("home/.docker/deep/config.json");
    assert_eq!(machine.credentials().store(&scope("quay.io"), &basic("u", "p")).unwrap(), Stored::File(path.clone()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_link_stays_a_link() {
    let machine = Machine::new().file("dotfiles/config.json", "{\"x\":1}");
    std::fs::create_dir(machine.path("home/.docker")).unwrap();
    symlink("../../dotfiles/config.json", machine.path("home/.docker/config.json")).unwrap();
    let folder = machine.text("home/.docker");
    let machine = machine.set("DOCKER_CONFIG", &folder);
    machine.credentials().store(&scope("quay.io"), &basic("u", "p")).unwrap();
    assert!(machine.path("home/.docker/config.json").is_symlink());
    assert_eq!(machine.read("dotfiles/config.json")["x"], 1);
    assert_eq!(machine.lookup("quay.io/x").as_deref(), Some("u:p"));
    std::fs::remove_file(machine.path("dotfiles/config.json")).unwrap();
    let report = machine.credentials().store(&scope("quay.io"), &basic("u", "p")).unwrap_err().report();
    assert!(report.contains("is a link to nothing"), "{report}");
}

#[test]
fn helpers_keep_and_forget() {
    let machine = Machine::new().helper("keys").file("folder/config.json", "{\"credsStore\":\"keys\"}");
    let folder = machine.text("folder");
    let machine = machine.set("DOCKER_CONFIG", &folder);
    let credentials = machine.credentials();
    for host in ["quay.io", "docker.io", "localhost:5000"] {
        let stored = credentials.store(&scope(host), &basic("u", "hunter2")).unwrap();
        assert_eq!(stored, Stored::Helper("docker-credential-keys".to_owned()));
    }
    let text = std::fs::read_to_string(machine.path("folder/config.json")).unwrap();
    assert!(!text.contains(&base64("u:hunter2")) && text.contains("https://index.docker.io/v1/"), "{text}");
    assert_eq!(machine.lookup("alpine").as_deref(), Some("u:hunter2"));
    assert_eq!(credentials.remove(&scope("docker.io")).unwrap().len(), 1);
    assert_eq!(machine.lookup("alpine"), None);
    assert_eq!(machine.lookup("quay.io/x").as_deref(), Some("u:hunter2"));
    credentials.remove_all().unwrap();
    assert_eq!((machine.lookup("quay.io/x"), machine.lookup("localhost:5000/x")), (None, None));
}

#[test]
fn two_that_log_in_at_once_are_both_logged_in() {
    let machine = Machine::new();
    std::thread::scope(|threads| {
        for number in 0..8 {
            let machine = &machine;
            threads.spawn(move || {
                let scope = scope(&format!("host{number}.example.com"));
                machine.credentials().store(&scope, &basic("u", "p")).unwrap();
            });
        }
    });
    assert_eq!(machine.read("session/containers/auth.json")["auths"].as_object().unwrap().len(), 8);
}

#[test]
fn what_a_login_is_for() {
    for (text, written) in [
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("https://quay.io/", "quay.io"),
        ("http://localhost:5000/v2/", "localhost:5000"),
        ("quay.io/team/", "quay.io/team"),
        ("[::1]:5000", "[::1]:5000"),
    ] {
        assert_eq!(scope(text).to_string(), written, "{text}");
    }
    for text in ["", "/", "a b", "https://", "quay.io/Team", "quay.io/../x", "user@quay.io", "-x"] {
        assert!(Scope::parse(text).is_err(), "{text}");
    }
}
