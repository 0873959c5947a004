//! What `run` and `create` can be asked for, as plain values, and the grammars of those that have one.
//!
//! Knows no command-line library and reads nothing: a name stays a name until [`config`](super::config) meets the image.
//! All of it can be recorded: `inspect` shows what was asked for.

pub mod device;
pub mod environment;
pub mod hosts;
pub mod limits;
pub mod namespaces;
pub mod network;
pub mod ports;
pub mod secret;
pub mod security;
pub mod supervision;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::monitor::RestartPolicy;
use crate::monitor::log::LogOptions;
use crate::network::egress::Policy;
use crate::support::id::ContainerName;
use crate::support::passwd::{Principal, UserSpec};

pub use device::{DeviceRequest, DeviceRule};
pub use environment::{EnvironmentEntry, EnvironmentOptions};
pub use hosts::HostFiles;
pub use limits::{Limits, SwapLimit, Ulimit};
pub use namespaces::NamespaceOptions;
pub use network::{Attachment, Network};
pub use ports::PublishedPort;
pub use secret::SecretRequest;
pub use security::{SeccompChoice, SecurityOptions, Unmasked};
pub use supervision::HealthOptions;

use super::log_attributes::LogAttributes;
use super::volume_option::{Tmpfs, Volume, VolumesFrom};

/// Declares structures of which only that is written which differs from the default: a record holds what was asked for, and
/// stays small.
macro_rules! sparse {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+
        }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "crate::engine::options::is_default")]
                pub $field: $type,
            )+
        }
    )+};
}

pub(in crate::engine) use sparse;

pub(in crate::engine) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

sparse! {
    /// Everything that can be asked for.
    pub struct RunOptions {
        pub name: Option<ContainerName>,
        /// `--rm`
        pub remove: bool,
        /// `-d`
        pub detached: bool,
        /// `-i`
        pub interactive: bool,
        /// `-t`
        pub terminal: bool,
        /// `-a`
        pub attached: Vec<Stream>,
        /// Rows and columns of the caller's terminal.
        pub console_size: Option<(u16, u16)>,
        /// `--pull`
        pub pull: PullPolicy,
        /// `--platform`
        pub platform: Option<String>,
        /// `--quiet`
        pub quiet: bool,
        /// `--rootfs`: the image is a directory that becomes the root file system itself.
        pub is_rootfs: bool,
        /// `--cidfile`
        pub id_file: Option<PathBuf>,
        /// `--pidfile`
        pub pid_file: Option<PathBuf>,
        /// `--preserve-fds`: descriptors from 3 on that the command keeps.
        pub preserved_fds: u32,

        pub environment: EnvironmentOptions,
        /// `-w`
        pub working_directory: Option<String>,
        /// `-u`
        pub user: Option<UserSpec>,
        /// `--group-add`
        pub additional_groups: Vec<Principal>,
        /// `--group-add keep-groups`
        pub keeps_groups: bool,
        /// `--entrypoint`; the empty list (`--entrypoint ""`) takes the image's away.
        pub entrypoint: Option<Vec<String>>,
        /// What follows the image.
        pub command: Vec<String>,
        /// `--init`
        pub init: bool,
        /// `--init-path`: another program than husk's own.
        pub init_path: Option<PathBuf>,
        /// `--passwd-entry`, `--group-entry`
        pub passwd_entry: Option<String>,
        pub group_entry: Option<String>,
        /// `--umask`
        pub umask: Option<u32>,
        /// `--tz`
        pub timezone: Option<String>,

        /// `-v`, `--mount`
        pub volumes: Vec<Volume>,
        /// `--tmpfs`
        pub tmpfs: Vec<Tmpfs>,
        /// `--volumes-from`
        pub volumes_from: Vec<VolumesFrom>,
        /// `--secret`: by name; what they hold is not recorded.
        pub secrets: Vec<SecretRequest>,
        /// `--image-volume`
        pub image_volumes: ImageVolumes,
        /// `--read-only`
        pub read_only: bool,
        /// `--read-only-tmpfs`
        pub read_only_tmpfs: bool,
        /// `--shm-size`, in bytes.
        pub shm_size: Option<u64>,
        /// `--device`
        pub devices: Vec<DeviceRequest>,
        /// `--device-cgroup-rule`
        pub device_rules: Vec<DeviceRule>,

        /// `--cap-add` and `--cap-drop`, as typed.
        pub added_capabilities: Vec<String>,
        pub dropped_capabilities: Vec<String>,
        /// `--privileged`
        pub privileged: bool,
        pub security: SecurityOptions,

        pub limits: Limits,
        /// Fail where a limit cannot be set, instead of warning.
        pub require_limits: bool,
        /// `--ulimit`
        pub ulimits: Vec<Ulimit>,
        /// `--sysctl`
        pub sysctls: BTreeMap<String, String>,
        pub oom_score_adj: Option<i32>,
        /// `--cgroup-parent`
        pub cgroup_parent: Option<String>,

        pub hostname: Option<String>,
        pub domainname: Option<String>,
        pub network: Network,
        /// `--egress`: what it may reach; everything, where nothing was said.
        pub egress: Option<Policy>,
        /// `-p`
        pub published: Vec<PublishedPort>,
        /// `-P`: what is exposed is published as well.
        pub publish_all: bool,
        /// `--expose`, as typed.
        pub exposed: Vec<String>,
        pub hosts: HostFiles,
        pub namespaces: NamespaceOptions,

        pub labels: BTreeMap<String, String>,
        pub annotations: BTreeMap<String, String>,
        /// A signal's name with `SIG`, or its number.
        pub stop_signal: Option<String>,
        pub stop_timeout_seconds: Option<u32>,
        /// `--restart`
        pub restart: RestartPolicy,
        pub health: HealthOptions,
        /// `--log-driver`, `--log-opt`
        pub log: LogOptions,
        pub log_attributes: LogAttributes,
        /// `--timeout`: how long a run may take.
        pub timeout_seconds: Option<u32>,
        /// `--detach-keys`
        pub detach_keys: Option<String>,
    }
}

/// When an image is fetched from its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// Where it is not here.
    #[default]
    Missing,
    /// Before each use; what is here already is not fetched again.
    Always,
    Never,
}

impl FromStr for PullPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "missing" | "ifnotpresent" | "false" => Ok(Self::Missing),
            // Asking the registry is cheap where nothing has changed: newer means the same.
            "always" | "newer" | "true" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(Error::invalid(format!("{text:?} is none of always, missing, never, newer"))),
        }
    }
}

/// A standard stream of the workload (`-a`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl FromStr for Stream {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "stdin" => Ok(Self::Stdin),
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            _ => Err(Error::invalid(format!("{text:?} is none of stdin, stdout, stderr"))),
        }
    }
}

/// What becomes of the volumes that an image names (`--image-volume`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageVolumes {
    /// Directories of the container's own, which begin with what the image has there.
    #[default]
    Bind,
    Tmpfs,
    Ignore,
}

impl FromStr for ImageVolumes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "bind" | "anonymous" | "" => Ok(Self::Bind),
            "tmpfs" => Ok(Self::Tmpfs),
            "ignore" => Ok(Self::Ignore),
            _ => Err(Error::invalid(format!("{text:?} is none of bind, tmpfs, ignore"))),
        }
    }
}

/// Parses `--umask`: octal, as the shell has it.
pub fn parse_umask(text: &str) -> Result<u32> {
    let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mask) if octal && mask <= 0o777 => Ok(mask),
        _ => Err(Error::invalid(format!("umask {text:?}: not an octal number up to 0777"))),
    }
}

/// Parses `--entrypoint`: a program, or podman's JSON list of a program and arguments.
pub fn parse_entrypoint(text: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) if text.starts_with('[') => words,
        _ if text.is_empty() => Vec::new(),
        _ => vec![text.to_owned()],
    }
}

/// Splits `NAME=VALUE`; a label without a value has the empty one.
pub fn parse_pair(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(Error::invalid(format!("{text:?}: no name before the =")));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_is_not_recorded() {
        assert_eq!(serde_json::to_string(&RunOptions::default()).unwrap(), "{}");
        let mut options = RunOptions { read_only: true, ..RunOptions::default() };
        options.user = Some("alice:staff".parse().unwrap());
        options.environment.entries = vec!["A=1".parse().unwrap(), "B".parse().unwrap()];
        options.limits.memory_swap = Some("-1".parse().unwrap());
        options.ulimits = vec!["nofile=1:-1".parse().unwrap()];
        options.volumes = vec!["/a:/b:ro,noexec".parse().unwrap()];
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(
            text,
            r#"{"environment":{"entries":["A=1","B"]},"user":"alice:staff","volumes":[{"source":{"host":"/a"},"destination":"/b","is_read_only":true,"attributes":["noexec"]}],"read_only":true,"limits":{"memory_swap":"-1"},"ulimits":["nofile=1:-1"]}"#
        );
        assert_eq!(serde_json::from_str::<RunOptions>(&text).unwrap(), options);
    }

    #[test]
    fn entry_points_are_a_word_or_a_list() {
        for (text, expected) in [
            ("", &[][..]),
            ("sh", &["sh"]),
            ("sh -c x", &["sh -c x"]),
            (r#"["sh", "-c"]"#, &["sh", "-c"]),
            ("[", &["["]),
            ("[]", &[]),
        ] {
            assert_eq!(parse_entrypoint(text), expected, "{text}");
        }
    }

    #[test]
    fn umasks_are_octal() {
        assert_eq!(parse_umask("022").unwrap(), 0o022);
        assert_eq!(parse_umask("0777").unwrap(), 0o777);
        for text in ["", "8", "1000", "-1", "+22", "0o22"] {
            assert!(parse_umask(text).is_err(), "{text:?}");
        }
    }
}
