//! An image's configuration: what its author wants a container to start with.
//!
//! All of it is foreign data. It is validated here and given on as plain values; nothing in it (labels least of all)
//! selects what the engine does. What is malformed but harmless to leave out is left out and said in
//! [`ImageConfig::ignored`], so that one bad entry does not make an image useless.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::error::{Context, Error, Result};
use crate::spec::load::parse_json;

use super::digest::Digest;
use super::limits;
use super::platform::Platform;

/// What an image asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageConfig {
    /// `NAME=value` each, in order, without NUL.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `user[:group]`, names or numbers; empty for root.
    pub user: String,
    /// Empty for `/`.
    pub working_dir: String,
    /// Absolute, without `..`.
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// `port[/protocol]` or a range, as written.
    pub exposed_ports: Vec<String>,
    /// Docker's extension, not read here.
    pub healthcheck: Option<serde_json::Value>,
    /// Docker's extension: what shell forms of a build run in.
    pub shell: Vec<String>,
    /// What was left out, and why: one line each.
    pub ignored: Vec<String>,
}

/// The whole document.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) platform: Platform,
    pub(crate) config: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Written {
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    config: Option<Section>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Option<Vec<String>>,
}

// Go writes `null` for what is empty, and Docker adds fields of its own, hence not the specification's crate.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Section {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    volumes: Option<Keys>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<Keys>,
    healthcheck: Option<serde_json::Value>,
    shell: Option<Vec<String>>,
}

/// Go's idea of a set: an object whose values mean nothing.
#[derive(Default)]
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        Ok(Self(object.into_keys().collect()))
    }
}

/// Reads for which platform an image is.
pub(crate) fn platform(bytes: &[u8]) -> Result<Platform> {
    parse(bytes).map(|document| document.platform)
}

/// Parses and validates a configuration.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document> {
    if bytes.len() > limits::CONFIG_BYTES {
        return Err(Error::invalid(format!("larger than {} bytes", limits::CONFIG_BYTES)));
    }
    let written: Written = parse_json(bytes)?;
    if written.rootfs.kind != "layers" {
        return Err(Error::invalid(format!("rootfs.type: {:?} is not \"layers\"", written.rootfs.kind)));
    }
    let mut diff_ids = Vec::new();
    for (index, text) in written.rootfs.diff_ids.unwrap_or_default().iter().enumerate() {
        diff_ids.push(text.parse().with_context(|| format!("rootfs.diff_ids[{index}]"))?);
    }
    // Images made by hand often leave the platform out; podman and docker take them for the host's.
    let host = Platform::host();
    let platform = Platform::named(
        written.os.as_deref().filter(|os| !os.is_empty()).unwrap_or(&host.os),
        written.architecture.as_deref().filter(|name| !name.is_empty()).unwrap_or(&host.architecture),
        written.variant.as_deref(),
    );
    Ok(Document { platform, config: validate(written.config.unwrap_or_default())?, diff_ids })
}

fn validate(section: Section) -> Result<ImageConfig> {
    let Section {
        env,
        entrypoint,
        cmd,
        user,
        working_dir,
        volumes,
        stop_signal,
        labels,
        exposed_ports,
        healthcheck,
        shell,
    } = section;
    let mut ignored = Vec::new();
    let mut keep = |field: &str, entry: &str, problem: Option<&str>| match problem {
        None => true,
        Some(problem) => {
            ignored.push(format!("config.{field}: {entry:?} is ignored: {problem}"));
            false
        }
    };
    let mut env = env.unwrap_or_default();
    env.retain(|entry| keep("Env", entry, env_problem(entry)));
    let mut volumes: Vec<String> = volumes.unwrap_or_default().0;
    volumes.retain(|path| keep("Volumes", path, volume_problem(path)));
    // What becomes an argument or a path cannot hold a NUL, and guessing at what was meant would change it.
    let entrypoint = arguments("Entrypoint", entrypoint)?;
    let cmd = arguments("Cmd", cmd)?;
    let shell = arguments("Shell", shell)?;
    let user = word("User", user)?.unwrap_or_default();
    let working_dir = word("WorkingDir", working_dir)?.unwrap_or_default();
    let stop_signal = word("StopSignal", stop_signal)?.filter(|signal| !signal.is_empty());
    Ok(ImageConfig {
        env,
        entrypoint,
        cmd,
        user,
        working_dir,
        volumes,
        stop_signal,
        labels: labels.unwrap_or_default(),
        exposed_ports: exposed_ports.unwrap_or_default().0,
        healthcheck: healthcheck.filter(|value| !value.is_null()),
        shell,
        ignored,
    })
}

/// An entry without `=` would mean "take it from the caller" to some engines and leak the caller's environment.
fn env_problem(entry: &str) -> Option<&'static str> {
    match entry.split_once('=') {
        _ if entry.contains('\0') => Some("it holds a NUL"),
        None => Some("it is not of the form NAME=value"),
        Some(("", _)) => Some("the name is empty"),
        Some(_) => None,
    }
}

fn volume_problem(path: &str) -> Option<&'static str> {
    if path.contains('\0') {
        return Some("it holds a NUL");
    }
    if !path.starts_with('/') {
        return Some("it is not absolute");
    }
    let mut names = Path::new(path).components();
    if names.clone().any(|component| component == Component::ParentDir) {
        return Some("it climbs with `..`");
    }
    if names.all(|component| component == Component::RootDir) {
        return Some("it is the root");
    }
    None
}

fn arguments(field: &str, words: Option<Vec<String>>) -> Result<Vec<String>> {
    let words = words.unwrap_or_default();
    match words.iter().position(|word| word.contains('\0')) {
        Some(index) => Err(Error::invalid(format!("config.{field}[{index}]: it holds a NUL"))),
        None => Ok(words),
    }
}

fn word(field: &str, word: Option<String>) -> Result<Option<String>> {
    match word {
        Some(word) if word.contains('\0') => Err(Error::invalid(format!("config.{field}: it holds a NUL"))),
        word => Ok(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(section: &str) -> Result<ImageConfig> {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{section}}}"#
        );
        parse(text.as_bytes()).map(|document| document.config)
    }

    #[test]
    fn everything_is_read() {
        let config = config(
            r#"{"User":"1:2","Env":["A=b","C="],"Entrypoint":["/e"],"Cmd":["c"],"WorkingDir":"/w",
                "Volumes":{"/v":{},"/a":null},"Labels":{"l":"1"},"StopSignal":"SIGINT","ExposedPorts":{"80/tcp":{}},
                "Healthcheck":{"Test":["NONE"]},"Shell":["sh"],"ArgsEscaped":true,"OnBuild":null}"#,
        )
        .unwrap();
        assert_eq!(config.env, ["A=b", "C="]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("1:2", "/w"));
        assert_eq!((config.entrypoint, config.cmd), (vec!["/e".to_owned()], vec!["c".to_owned()]));
        assert_eq!(config.volumes, ["/a", "/v"]);
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(config.exposed_ports, ["80/tcp"]);
        assert!(config.healthcheck.is_some());
        assert_eq!(config.labels["l"], "1");
        assert_eq!(config.ignored, Vec::<String>::new());
    }

    #[test]
    fn null_is_empty() {
        for section in ["null", "{}", r#"{"Env":null,"Cmd":null,"Volumes":null,"Labels":null,"Healthcheck":null}"#] {
            assert_eq!(config(section).unwrap(), ImageConfig::default(), "{section}");
        }
    }

    #[test]
    fn hostile_entries_are_left_out_and_named() {
        let config = config(
            r#"{"Env":["FOO","*","=x","A\u0000B=1","OK=HOME=/x\nr::0:0::/:"],
                "Volumes":{"":{},"rel":{},"/../..//etc":{},"/":{},"/ok":{}}}"#,
        )
        .unwrap();
        assert_eq!(config.env, ["OK=HOME=/x\nr::0:0::/:"]);
        assert_eq!(config.volumes, ["/ok"]);
        assert_eq!(config.ignored.len(), 8, "{:?}", config.ignored);
        assert_eq!(config.ignored[0], r#"config.Env: "FOO" is ignored: it is not of the form NAME=value"#);
    }

    #[test]
    fn wrong_documents_name_the_field() {
        for (text, expected) in [
            (r#"{"os":"linux"}"#, "missing field `rootfs`"),
            (r#"{"rootfs":{"type":"base"}}"#, "rootfs.type"),
            (r#"{"rootfs":{"type":"layers","diff_ids":["sha256:0"]}}"#, "rootfs.diff_ids[0]: digest \"sha256:0\""),
            (r#"{"rootfs":{"type":"layers"},"config":{"Cmd":["a","\u0000"]}}"#, "config.Cmd[1]: it holds a NUL"),
            (r#"{"rootfs":{"type":"layers"},"config":{"User":"\u0000"}}"#, "config.User: it holds a NUL"),
            (r#"{"rootfs":{"type":"layers"},"config":{"Cmd":"sh"}}"#, "invalid type"),
            (r#"{"rootfs":{"type":"layers"},"rootfs":{"type":"layers"}}"#, "duplicate field"),
            ("[", "EOF"),
        ] {
            let report = parse(text.as_bytes()).unwrap_err().report();
            assert!(report.contains(expected), "{text}: {report}");
        }
        let large = vec![b' '; limits::CONFIG_BYTES + 1];
        assert!(parse(&large).unwrap_err().report().contains("larger than"));
    }
}
