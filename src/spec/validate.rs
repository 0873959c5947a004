//! Judges a configuration: what no kernel and no host could make right is refused here, by the name of its field.
//!
//! [`Validated`] is the proof. A plan is made of nothing else, so a configuration that was not looked at cannot reach
//! `clone`. What depends on the host (does the namespace file exist, is there a cgroup controller) is the plan's to say;
//! the one exception is whether a namespace file is the host's own, since sysctls would then reach the host.

mod intel_rdt;
mod mounts;
mod namespaces;
mod process;

pub(crate) use mounts::clean;

use std::fmt::Display;
use std::path::Path;

use oci_spec::runtime::{
    Hook, Hooks, Linux, LinuxDeviceType, LinuxMemoryPolicy, LinuxResources, MemoryPolicyFlagType, MemoryPolicyModeType,
    Mount, Spec,
};

use super::load::Document;
use super::mount_options::Propagation;
use super::unimplemented;
use crate::error::{Error, Result};
use crate::support::number_set::NumberSet;

pub use process::validate_process;

/// The versions of the specification that are read in full: `features` reports them.
pub const OCI_VERSION_MIN: &str = "1.0.0";
pub const OCI_VERSION_MAX: &str = "1.3.0";

/// The longest id: it names a directory, and `NAME_MAX` is 255.
const ID_LENGTH_LIMIT: usize = 255;

/// A configuration that [`validate`] found nothing wrong with.
#[derive(Clone, Debug)]
pub struct Validated {
    spec: Spec,
    warnings: Vec<String>,
}

impl Validated {
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What a user should hear, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub fn into_spec(self) -> Spec {
        self.spec
    }
}

/// Judges a whole configuration, and makes relative mount destinations absolute.
pub fn validate(document: Document<Spec>) -> Result<Validated> {
    let Document { value: mut spec, mut warnings } = document;
    check_version(spec.version(), &mut warnings)?;
    check_root(&spec)?;
    let process = spec.process().as_ref().ok_or_else(|| Error::invalid("process property must not be empty"))?;
    validate_process(process)?;
    if let Some(list) = spec.mounts_mut() {
        mounts::check(list, &mut warnings)?;
    }
    namespaces::check(&spec)?;
    if let Some(hooks) = spec.hooks() {
        check_hooks(hooks)?;
    }
    if let Some(linux) = spec.linux() {
        check_linux(linux)?;
        warnings.extend(personality_warning(linux));
    }
    unimplemented::refuse(&spec)?;
    warnings.extend(unimplemented::ignored(&spec));
    Ok(Validated { spec, warnings })
}

/// Judges the id of a container: crun's rule, and short enough for a directory.
///
/// An id is joined to the state directory, so a slash or a leading dot must never get through (CVE-2026-33747).
pub fn validate_id(id: &str) -> Result<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    let what = if id.is_empty() {
        "is empty"
    } else if id.len() > ID_LENGTH_LIMIT {
        "is longer than 255 bytes"
    } else if id.starts_with('.') {
        "begins with a dot"
    } else if !id.bytes().all(is_allowed) {
        "may hold only A-Z a-z 0-9 _ + . -"
    } else {
        return Ok(());
    };
    // The first words are runc's.
    let shown: String = id.chars().take(64).collect();
    Err(Error::invalid(format!("invalid container ID format: {shown:?} {what}")))
}

/// Says which field is wrong, and how.
fn bad(field: impl Display, what: impl Display) -> Error {
    Error::invalid(format!("{field}: {what}"))
}

/// Refuses what cannot become a C string.
fn check_no_nul(field: impl Display, text: &str) -> Result<()> {
    if text.contains('\0') { Err(bad(field, "contains a NUL byte")) } else { Ok(()) }
}

fn check_absolute(field: impl Display, path: &Path) -> Result<()> {
    let shown = path.to_string_lossy();
    if !path.is_absolute() {
        return Err(bad(field, format_args!("{shown:?} is not an absolute path")));
    }
    check_no_nul(field, &shown)
}

/// runc looks at no version; a major version that nobody has read yet is more than a guess can carry.
fn check_version(version: &str, warnings: &mut Vec<String>) -> Result<()> {
    if version.is_empty() {
        warnings.push("ociVersion is missing".to_owned());
        return Ok(());
    }
    let mut numbers = version.splitn(3, '.');
    let (major, minor) = (numbers.next(), numbers.next());
    let minor: Option<u32> = minor.and_then(|minor| minor.parse().ok());
    match (major, minor, numbers.next()) {
        (Some("1"), Some(0..=3), Some(_)) => Ok(()),
        (Some("1"), Some(_), Some(_)) => {
            warnings.push(format!("ociVersion {version} is newer than {OCI_VERSION_MAX}: what it adds is ignored"));
            Ok(())
        }
        _ => Err(bad("ociVersion", format_args!("{version:?} is not a version from {OCI_VERSION_MIN} to 1.3.x"))),
    }
}

fn check_root(spec: &Spec) -> Result<()> {
    let path = spec.root().as_ref().map(oci_spec::runtime::Root::path);
    match path {
        Some(path) if !path.as_os_str().is_empty() => check_no_nul("root.path", &path.to_string_lossy()),
        _ => Err(bad("root.path", "is missing")),
    }
}

fn check_hooks(hooks: &Hooks) -> Result<()> {
    let lists = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (name, list) in lists {
        for (index, hook) in list.iter().flatten().enumerate() {
            check_hook(hook, &format!("hooks.{name}[{index}]"))?;
        }
    }
    Ok(())
}

fn check_hook(hook: &Hook, field: &str) -> Result<()> {
    check_absolute(format_args!("{field}.path"), hook.path())?;
    if let Some(seconds @ ..=0) = hook.timeout() {
        return Err(bad(format_args!("{field}.timeout"), format_args!("{seconds} is not above 0")));
    }
    for (list, name) in [(hook.args(), "args"), (hook.env(), "env")] {
        for text in list.iter().flatten() {
            check_no_nul(format_args!("{field}.{name}"), text)?;
        }
    }
    Ok(())
}

fn check_linux(linux: &Linux) -> Result<()> {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        check_absolute(format_args!("linux.devices[{index}].path"), device.path())?;
        if device.typ() == LinuxDeviceType::A {
            return Err(bad(format_args!("linux.devices[{index}].type"), "\"a\" is no device that can be made"));
        }
        // The kernel's dev_t has 12 bits for the major number and 20 for the minor.
        if device.typ() != LinuxDeviceType::P && !(0..1 << 12).contains(&device.major())
            || !(0..1 << 20).contains(&device.minor()) && device.typ() != LinuxDeviceType::P
        {
            let number = format!("{}:{} is not a device number", device.major(), device.minor());
            return Err(bad(format_args!("linux.devices[{index}]"), number));
        }
    }
    for (name, paths) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        for (index, path) in paths.iter().flatten().enumerate() {
            check_absolute(format_args!("linux.{name}[{index}]"), Path::new(path))?;
        }
    }
    if let Some(word) = linux.rootfs_propagation()
        && !word.is_empty()
        && Propagation::from_word(word).is_none()
    {
        return Err(bad("linux.rootfsPropagation", format_args!("{word:?} is not a propagation mode")));
    }
    if let Some(resources) = linux.resources() {
        check_resources(resources, "linux.resources")?;
    }
    linux.intel_rdt().as_ref().map_or(Ok(()), intel_rdt::check)?;
    linux.memory_policy().as_ref().map_or(Ok(()), check_memory_policy)
}

/// The rules of set_mempolicy(2) that hold on every machine.
fn check_memory_policy(policy: &LinuxMemoryPolicy) -> Result<()> {
    let nodes = NumberSet::parse(policy.nodes().as_deref().unwrap_or_default())
        .map_err(|cause| bad("linux.memoryPolicy.nodes", format_args!("invalid memory policy node: {cause}")))?;
    let mode = policy.mode();
    match mode {
        MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal if !nodes.is_empty() => {
            let what = format_args!("{mode} mode requires 0 nodes but got {}", nodes.len());
            return Err(bad("linux.memoryPolicy.nodes", what));
        }
        MemoryPolicyModeType::MpolBind
        | MemoryPolicyModeType::MpolInterleave
        | MemoryPolicyModeType::MpolPreferredMany
        | MemoryPolicyModeType::MpolWeightedInterleave
            if nodes.is_empty() =>
        {
            return Err(bad("linux.memoryPolicy.nodes", format_args!("{mode} needs at least one")));
        }
        _ => {}
    }
    let has = |flag| policy.flags().as_ref().is_some_and(|flags| flags.contains(&flag));
    if has(MemoryPolicyFlagType::MpolFStaticNodes) && has(MemoryPolicyFlagType::MpolFRelativeNodes) {
        let what = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
        return Err(bad("linux.memoryPolicy.flags", what));
    }
    Ok(())
}

/// The specification defines no flag yet, and no runtime gives one a meaning.
fn personality_warning(linux: &Linux) -> Option<String> {
    let flags = linux.personality().as_ref()?.flags().as_ref().filter(|flags| !flags.is_empty())?;
    Some(format!("linux.personality.flags: ignored, none is defined: {}", flags.join(", ")))
}

/// Judges a list of mounts for a container that runs.
pub fn validate_mounts(mounts: &mut [Mount]) -> Result<()> {
    mounts::check(mounts, &mut Vec::new())
}

/// Judges the resources of a configuration or of `update`; the ranges of limits are each controller's to know.
pub fn validate_resources(resources: &LinuxResources) -> Result<()> {
    check_resources(resources, "resources")
}

fn check_resources(resources: &LinuxResources, field: &str) -> Result<()> {
    if let Some(swappiness) = resources.memory().and_then(|memory| memory.swappiness()).filter(|value| *value > 100) {
        return Err(bad(format_args!("{field}.memory.swappiness"), format_args!("{swappiness} is above 100")));
    }
    // Both become names of files in the cgroup.
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = limit.page_size();
        let number = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
        if number.is_none_or(|number| number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit())) {
            let what = format!("{size:?} is not a page size such as \"2MB\"");
            return Err(bad(format_args!("{field}.hugepageLimits[{index}].pageSize"), what));
        }
    }
    for key in resources.unified().iter().flat_map(|unified| unified.keys()) {
        if key.contains(['/', '\0']) || matches!(&key[..], "" | "." | "..") {
            return Err(bad(format_args!("{field}.unified[{key:?}]"), "must be the name of a file (no slashes)"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::load;
    use serde_json::{Value, json};

    /// The smallest configuration, changed as a test likes.
    pub(super) fn with(change: impl FnOnce(&mut Value)) -> Result<Validated> {
        let mut value = json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"user": {}, "cwd": "/", "args": ["true"]},
            "mounts": [],
            "linux": {"namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}
            ]},
        });
        change(&mut value);
        validate(load::parse("config.json", value.to_string().as_bytes())?)
    }

    /// Says how the smallest configuration is refused with a field set to a value.
    pub(super) fn refusal(pointer: &str, new: &Value) -> String {
        match with(|value| set(value, pointer, new)) {
            Ok(_) => String::new(),
            Err(error) => error.report(),
        }
    }

    pub(super) fn set(value: &mut Value, pointer: &str, new: &Value) {
        let mut at = value;
        for key in pointer.split('.') {
            at = at.as_object_mut().unwrap().entry(key).or_insert(json!({}));
        }
        at.clone_from(new);
    }

    #[test]
    fn the_smallest_configuration_passes() {
        assert!(with(|_| ()).unwrap().warnings().is_empty());
    }

    #[test]
    fn wrong_values_are_refused_by_field() {
        let rows = [
            ("ociVersion", json!("2.0.0"), "ociVersion: \"2.0.0\""),
            ("ociVersion", json!("1.x"), "ociVersion: \"1.x\""),
            ("root", json!({}), "root.path: is missing"),
            ("root.path", json!(""), "root.path: is missing"),
            ("process", json!(null), "process property must not be empty"),
            ("hooks.prestart", json!([{"path": "bin/x"}]), "hooks.prestart[0].path: \"bin/x\" is not an absolute path"),
            ("hooks.poststop", json!([{"path": "/x"}, {"path": "/x", "timeout": 0}]), "hooks.poststop[1].timeout: 0"),
            ("linux.devices", json!([{"path": "dev/x", "type": "c"}]), "linux.devices[0].path"),
            ("linux.devices", json!([{"path": "/dev/x", "type": "a"}]), "linux.devices[0].type"),
            ("linux.devices", json!([{"path": "/dev/x", "type": "c", "major": -1}]), "linux.devices[0]: -1:0"),
            ("linux.maskedPaths", json!(["proc/x"]), "linux.maskedPaths[0]"),
            ("linux.readonlyPaths", json!(["/x", "../y"]), "linux.readonlyPaths[1]"),
            ("linux.rootfsPropagation", json!("mine"), "linux.rootfsPropagation: \"mine\""),
            (
                "linux.memoryPolicy",
                json!({"mode": "MPOL_BIND"}),
                "linux.memoryPolicy.nodes: MPOL_BIND needs at least one",
            ),
            (
                "linux.memoryPolicy",
                json!({"mode": "MPOL_LOCAL", "nodes": "0"}),
                "linux.memoryPolicy.nodes: MPOL_LOCAL mode requires 0 nodes but got 1",
            ),
            (
                "linux.memoryPolicy",
                json!({"mode": "MPOL_BIND", "nodes": "x"}),
                "linux.memoryPolicy.nodes: invalid memory policy node: \"x\" is not",
            ),
            (
                "linux.memoryPolicy",
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
                "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and",
            ),
            ("linux.resources.memory.swappiness", json!(101), "linux.resources.memory.swappiness"),
            (
                "linux.resources.hugepageLimits",
                json!([{"pageSize": "../MB", "limit": 1}]),
                "hugepageLimits[0].pageSize",
            ),
            ("linux.resources.unified", json!({"../memory.max": "1"}), "linux.resources.unified[\"../memory.max\"]"),
        ];
        for (pointer, value, expected) in rows {
            let report = refusal(pointer, &value);
            assert!(report.contains(expected), "{pointer} = {value}: {report:?} does not contain {expected:?}");
        }
    }

    #[test]
    fn odd_and_right_values_pass() {
        let rows = [
            ("ociVersion", json!("1.0.2-dev")),
            ("ociVersion", json!("1.3.0+dev")),
            ("linux.devices", json!([{"path": "/dev/fifo", "type": "p", "fileMode": 8630}])),
            ("linux.rootfsPropagation", json!("rslave")),
            ("linux.rootfsPropagation", json!("")),
            ("linux.resources.devices", json!([{"allow": false, "access": "rwa"}, {"allow": true}])),
            ("linux.resources.hugepageLimits", json!([{"pageSize": "2MB", "limit": 1}])),
            ("annotations", json!({"a": ""})),
        ];
        for (pointer, value) in rows {
            assert_eq!(refusal(pointer, &value), "", "{pointer} = {value}");
        }
    }

    #[test]
    fn a_version_that_is_missing_or_newer_is_a_warning() {
        assert_eq!(with(|value| set(value, "ociVersion", &json!(""))).unwrap().warnings().len(), 1);
        assert_eq!(with(|value| set(value, "ociVersion", &json!("1.4.0"))).unwrap().warnings().len(), 1);
    }

    #[test]
    fn flags_of_the_personality_are_a_warning() {
        let personality = json!({"domain": "LINUX32", "flags": ["X"]});
        let validated = with(|value| set(value, "linux.personality", &personality)).unwrap();
        assert_eq!(validated.warnings(), ["linux.personality.flags: ignored, none is defined: X"]);
    }

    #[test]
    fn ids_that_could_be_paths_are_refused() {
        for id in ["a", "A-b_c+d.e", "0", "-", "+", &"x".repeat(255)] {
            validate_id(id).unwrap();
        }
        for id in
            ["", ".", "..", ".a", "a/b", "../x", "/", "a\0", "a\n", "ä", "a b", &"x".repeat(256), &"x".repeat(4096)]
        {
            let error = validate_id(id).unwrap_err();
            assert!(error.report().starts_with("invalid container ID format"), "{error:?}");
        }
    }
}
