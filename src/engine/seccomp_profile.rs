//! Which system calls a container may make: the default profile, none, or a file in docker's form.
//!
//! Docker's form is the specification's with conditions: a rule holds only for some architectures, kernels and
//! capabilities. They are decided here, for this machine and this container; what is left is plain.

use std::path::Path;

use oci_spec::runtime::{Capabilities, LinuxSeccomp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::capabilities;
use super::options::{RunOptions, SeccompChoice};
use crate::error::{Context, Error, Result};
use crate::image::platform::Platform;
use crate::support::strict_json;

/// Docker's own profile has 30 KB.
const FILE_BYTES: u64 = 4 << 20;

/// Gives the profile of a container; `None` for no filter.
pub fn choose(options: &RunOptions) -> Result<Option<LinuxSeccomp>> {
    match &options.security.seccomp {
        SeccompChoice::Unconfined => Ok(None),
        // As docker: a privileged container has none, unless it is asked for.
        SeccompChoice::Default if options.privileged => Ok(None),
        SeccompChoice::Default => Ok(Some(crate::seccomp::default_profile(&capabilities(options)?))),
        SeccompChoice::File(path) => {
            let read = || parse(&read(path)?, &View::of_host(capabilities(options)?));
            read().with_context(|| format!("seccomp profile {}", path.display())).map(Some)
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_BYTES + 1), &mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(Error::invalid(format!("larger than {FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// What conditions are about.
struct View {
    /// As Go calls it: `amd64`.
    architecture: String,
    kernel: (u32, u32),
    capabilities: Capabilities,
}

impl View {
    fn of_host(capabilities: Capabilities) -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Self { architecture: Platform::host().architecture, kernel, capabilities }
    }

    /// What the profile's own words call this machine.
    fn names(&self) -> (&'static str, &[&str]) {
        match self.architecture.as_str() {
            "amd64" => ("SCMP_ARCH_X86_64", &["amd64", "x86_64"]),
            "arm64" => ("SCMP_ARCH_AARCH64", &["arm64", "aarch64"]),
            "riscv64" => ("SCMP_ARCH_RISCV64", &["riscv64"]),
            _ => ("", &[]),
        }
    }

    fn holds(&self, rule: &Rule) -> Result<bool> {
        let Rule { includes, excludes, .. } = rule;
        let has_capability = |name: &String| {
            let bare = name.strip_prefix("CAP_").unwrap_or(name);
            let capability = bare.parse().map_err(|_| Error::invalid(format!("unknown capability {name:?}")))?;
            Ok::<_, Error>(self.capabilities.contains(&capability))
        };
        let is_here = |name: &String| self.names().1.contains(&name.as_str());
        let is_new = |version: &String| Ok::<_, Error>(self.kernel >= parse_version(version)?);
        for name in &includes.caps {
            if !has_capability(name)? {
                return Ok(false);
            }
        }
        for name in &excludes.caps {
            if has_capability(name)? {
                return Ok(false);
            }
        }
        if !includes.arches.is_empty() && !includes.arches.iter().any(is_here) || excludes.arches.iter().any(is_here) {
            return Ok(false);
        }
        if let Some(version) = &includes.min_kernel
            && !is_new(version)?
        {
            return Ok(false);
        }
        match &excludes.min_kernel {
            Some(version) => Ok(!is_new(version)?),
            None => Ok(true),
        }
    }
}

fn parse_version(text: &str) -> Result<(u32, u32)> {
    let parsed = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parsed.ok_or_else(|| Error::invalid(format!("minKernel {text:?}: not a version such as 4.8")))
}

/// Docker's document.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Value,
    default_errno_ret: Option<Value>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// The older form of `names`.
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: Value,
    errno_ret: Option<Value>,
    #[serde(default)]
    args: Option<Vec<Value>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(deserialize_with = "list")]
    caps: Vec<String>,
    #[serde(deserialize_with = "list")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Go writes `null` for an empty list.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn parse(bytes: &[u8], view: &View) -> Result<LinuxSeccomp> {
    // What stands twice would be read one way by one reader and another way by the next.
    let profile: Profile = serde_json::from_value(strict_json::parse(bytes)?)?;
    let mut rules = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        if !view.holds(&rule)? {
            continue;
        }
        let names: Vec<String> = rule.name.into_iter().chain(rule.names.unwrap_or_default()).collect();
        if names.is_empty() {
            return Err(Error::invalid("a rule without names"));
        }
        rules.push(object(&[
            ("names", Some(json!(names))),
            ("action", Some(rule.action)),
            ("errnoRet", rule.errno_ret),
            ("args", rule.args.filter(|args| !args.is_empty()).map(Value::from)),
        ]));
    }
    let architectures = match (profile.architectures, profile.arch_map) {
        (Some(list), Some(map)) if !list.is_empty() && !map.is_empty() => {
            return Err(Error::invalid("both architectures and archMap"));
        }
        (_, Some(map)) if !map.is_empty() => {
            let own = map.into_iter().find(|entry| entry.architecture == view.names().0);
            own.map(|own| std::iter::once(own.architecture).chain(own.sub_architectures.unwrap_or_default()).collect())
        }
        (list, _) => list,
    };
    let profile = object(&[
        ("defaultAction", Some(profile.default_action)),
        ("defaultErrnoRet", profile.default_errno_ret),
        ("architectures", architectures.map(|list: Vec<String>| json!(list))),
        ("flags", profile.flags.filter(|flags| !flags.is_empty()).map(|flags| json!(flags))),
        ("listenerPath", profile.listener_path.map(Value::from)),
        ("listenerMetadata", profile.listener_metadata.map(Value::from)),
        ("syscalls", (!rules.is_empty()).then(|| Value::from(rules))),
    ]);
    serde_json::from_value(profile).map_err(Error::from)
}

/// Makes an object of the members that are there; `null` is Go's way to say that one is not.
fn object(members: &[(&str, Option<Value>)]) -> Value {
    let given = members.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
    Value::Object(given.filter(|(_, value)| !value.is_null()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(capabilities: &[&str]) -> View {
        let capabilities = capabilities.iter().map(|name| name.parse().unwrap()).collect();
        View { architecture: "amd64".to_owned(), kernel: (5, 10), capabilities }
    }

    fn names(profile: &Value, view: &View) -> Vec<String> {
        let profile = parse(profile.to_string().as_bytes(), view).unwrap();
        profile.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn conditions_are_decided() {
        let rule = |name: &str, includes: Value, excludes: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": includes, "excludes": excludes});
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "archMap": [
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            ],
            "syscalls": [
                {"name": "read", "action": "SCMP_ACT_ALLOW"},
                rule("here", json!({"arches": ["amd64", "s390x"]}), json!({})),
                rule("elsewhere", json!({"arches": ["arm64"]}), json!({})),
                rule("not-here", json!({}), json!({"arches": ["amd64"]})),
                rule("able", json!({"caps": ["CAP_SYS_ADMIN"]}), json!({})),
                rule("unable", json!({}), json!({"caps": ["CAP_SYS_ADMIN"]})),
                rule("old", json!({"minKernel": "4.8"}), json!({})),
                rule("new", json!({"minKernel": "5.12"}), json!({})),
            ],
        });
        assert_eq!(names(&profile, &view(&[])), ["read", "here", "unable", "old"]);
        assert_eq!(names(&profile, &view(&["SYS_ADMIN"])), ["read", "here", "able", "old"]);
        let parsed = parse(profile.to_string().as_bytes(), &view(&[])).unwrap();
        let architectures = parsed.architectures().as_ref().unwrap();
        assert_eq!(serde_json::to_value(architectures).unwrap(), json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
    }

    #[test]
    fn what_is_no_profile_is_named() {
        for (text, report) in [
            ("{}", "missing field `defaultAction`"),
            (r#"{"defaultAction":"NO"}"#, "unknown variant `NO`"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}"#, "a rule without names"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_LOG","includes":{"caps":["CAP_X"]}}]}"#,
                "unknown capability \"CAP_X\"",
            ),
        ] {
            let report_found = parse(text.as_bytes(), &view(&[])).unwrap_err().report();
            assert!(report_found.starts_with(report), "{report_found}");
        }
    }
}
