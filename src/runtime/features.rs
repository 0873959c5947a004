//! `features`: what this build can do, in the shape of the specification's features document (features.md).
//!
//! Every list comes from the table that the code itself reads, and a field that a configuration is refused for is not
//! said to be there. Looks at no container.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxNamespaceType;
use serde::Serialize;

use super::hooks::MOMENTS;
use super::{capability, landlock};
use crate::namespaces::enter::KINDS;
use crate::seccomp;
use crate::spec::mount_options::FEATURE_MOUNT_OPTIONS;
use crate::spec::validate::{OCI_VERSION_MAX, OCI_VERSION_MIN};

/// The version of runc whose behaviour this is: callers that switch on features of runc look for it (features.md,
/// "runtimes other than runc").
pub const MOST_COMPATIBLE_RUNC: &str = "1.5.1";

/// Annotations that change what husk does: whoever lets strangers choose a container's annotations keeps these from them.
/// A dot at the end stands for all that begin so (features.md, "Unsafe annotations in `config.json`"). Its first three are
/// runc's; of crun's there are more than files and sockets of the host to be opened.
const UNSAFE_ANNOTATIONS: [&str; 5] = ["bundle", "org.systemd.property.", "org.criu.config", "run.oci.", "org.husk."];

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: &'static [&'static str],
    linux: Linux,
    annotations: BTreeMap<&'static str, String>,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<&'static str>,
    capabilities: Vec<String>,
    cgroup: CgroupFeatures,
    seccomp: SeccompFeatures,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CgroupFeatures {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SeccompFeatures {
    enabled: bool,
    actions: Vec<&'static str>,
    operators: &'static [&'static str],
    archs: &'static [&'static str],
    known_flags: &'static [&'static str],
    supported_flags: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: Vec<String>,
    flags: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

/// Fills the document.
pub fn features() -> Features {
    Features {
        oci_version_min: OCI_VERSION_MIN,
        oci_version_max: OCI_VERSION_MAX,
        hooks: &MOMENTS,
        mount_options: FEATURE_MOUNT_OPTIONS,
        linux: Linux {
            namespaces: sorted(KINDS.into_iter().map(|(kind, _)| namespace(kind))),
            capabilities: capability::known(),
            cgroup: CgroupFeatures { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
            seccomp: SeccompFeatures {
                enabled: true,
                actions: seccomp::ACTIONS.into_iter().collect(),
                operators: &seccomp::OPERATORS,
                archs: &seccomp::ARCHITECTURES,
                known_flags: &seccomp::FLAGS,
                supported_flags: seccomp::supported_flags(),
            },
            apparmor: Enabled { enabled: true },
            selinux: Enabled { enabled: true },
            intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
            memory_policy: memory_policy(),
            mount_extensions: MountExtensions { idmap: Enabled { enabled: true } },
            net_devices: Enabled { enabled: true },
        },
        annotations: annotations(),
        potentially_unsafe_config_annotations: &UNSAFE_ANNOTATIONS,
    }
}

/// A runtime that is not runc names neither runc's commit nor libraries that it does not use.
fn annotations() -> BTreeMap<&'static str, String> {
    let mut annotations = BTreeMap::from([
        ("org.husk.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("org.opencontainers.runc.checkpoint.enabled", "true".to_owned()),
        ("org.opencontainers.runc.version", MOST_COMPATIBLE_RUNC.to_owned()),
    ]);
    if let Some(abi) = landlock::abi() {
        annotations.insert("org.husk.landlock.abi", abi.to_string());
    }
    annotations
}

fn namespace(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Time => "time",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Uts => "uts",
    }
}

/// The types that `config.json` is read into are the table.
fn memory_policy() -> MemoryPolicy {
    use oci_spec::runtime::{MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};
    let modes = [
        Mode::MpolBind,
        Mode::MpolDefault,
        Mode::MpolInterleave,
        Mode::MpolLocal,
        Mode::MpolPreferred,
        Mode::MpolPreferredMany,
        Mode::MpolWeightedInterleave,
    ];
    let flags = [Flag::MpolFNumaBalancing, Flag::MpolFRelativeNodes, Flag::MpolFStaticNodes];
    MemoryPolicy { modes: sorted(modes.iter().map(word)), flags: sorted(flags.iter().map(word)) }
}

/// Gives the word that a type is written as in `config.json`.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn sorted<T: Ord>(words: impl Iterator<Item = T>) -> Vec<T> {
    let mut words: Vec<T> = words.collect();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_configuration() {
        for (kind, _) in KINDS {
            assert_eq!(word(&kind), namespace(kind));
        }
        let policy = memory_policy();
        assert!(policy.modes.contains(&"MPOL_WEIGHTED_INTERLEAVE".to_owned()), "{policy:?}");
        assert!(policy.flags.contains(&"MPOL_F_STATIC_NODES".to_owned()), "{policy:?}");
    }

    #[test]
    fn what_there_is_is_told() {
        let document = serde_json::to_value(features()).unwrap();
        let linux = &document["linux"];
        assert_eq!(linux["intelRdt"], serde_json::json!({"enabled": true, "schemata": true, "monitoring": true}));
        assert_eq!(linux["mountExtensions"]["idmap"]["enabled"], true);
        assert!(linux["seccomp"]["actions"].as_array().unwrap().contains(&"SCMP_ACT_NOTIFY".into()));
        assert_eq!(linux["capabilities"].as_array().unwrap().len(), 41);
        let unsafe_ones = document["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
        for name in [landlock::ANNOTATION, "run.oci.hooks.stdout", "org.criu.config", "bundle"] {
            let is_named = |word: &serde_json::Value| {
                word.as_str().is_some_and(|word| name == word || word.ends_with('.') && name.starts_with(word))
            };
            assert!(unsafe_ones.iter().any(is_named), "{name}");
        }
    }
}
