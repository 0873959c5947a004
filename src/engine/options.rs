//! What `run` and `create` can be asked for, as plain values, and the grammars of those that have one.
//!
//! Knows no command-line library and reads nothing: a name stays a name until [`config`](super::config) meets the image.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use oci_spec::runtime::PosixRlimitType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::monitor::RestartPolicy;
use crate::monitor::log::LogOptions;
use crate::support::id::ContainerName;
use crate::support::passwd::{Principal, UserSpec};
use crate::support::text::serialise_as_text;

use super::volume_option::{Tmpfs, Volume};

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
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "is_default")]
                pub $field: $type,
            )+
        }
    )+};
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
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
        /// Rows and columns of the caller's terminal.
        pub console_size: Option<(u16, u16)>,
        /// `-e` and what `--env-file` holds, in order.
        pub environment: Vec<EnvironmentEntry>,
        /// `-w`
        pub working_directory: Option<String>,
        /// `-u`
        pub user: Option<UserSpec>,
        /// `--group-add`
        pub additional_groups: Vec<Principal>,
        /// `--pull`
        pub pull: PullPolicy,
        /// `--entrypoint`; the empty list (`--entrypoint ""`) takes the image's away.
        pub entrypoint: Option<Vec<String>>,
        /// What follows the image.
        pub command: Vec<String>,
        /// `-v`
        pub volumes: Vec<Volume>,
        /// `--tmpfs`
        pub tmpfs: Vec<Tmpfs>,
        pub hostname: Option<String>,
        pub domainname: Option<String>,
        pub network: Network,
        /// `--read-only`
        pub read_only: bool,
        /// `--init`
        pub init: bool,
        /// `--shm-size`, in bytes.
        pub shm_size: Option<u64>,
        /// `--cap-add` and `--cap-drop`, as typed.
        pub added_capabilities: Vec<String>,
        pub dropped_capabilities: Vec<String>,
        pub security: SecurityOptions,
        pub limits: Limits,
        /// Fail where a limit cannot be set, instead of warning.
        pub require_limits: bool,
        /// `--ulimit`
        pub ulimits: Vec<Ulimit>,
        /// `--sysctl`
        pub sysctls: BTreeMap<String, String>,
        pub oom_score_adj: Option<i32>,
        /// `--umask`
        pub umask: Option<u32>,
        pub labels: BTreeMap<String, String>,
        pub annotations: BTreeMap<String, String>,
        /// `--log-driver`, `--log-opt`
        pub log: LogOptions,
        /// `--restart`
        pub restart: RestartPolicy,
        /// `--timeout`: how long a run may take.
        pub timeout_seconds: Option<u32>,
        /// `--detach-keys`
        pub detach_keys: Option<String>,
        pub stop_signal: Option<String>,
        pub stop_timeout_seconds: Option<u32>,
    }
}

/// The network that the container gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A namespace with nothing but a loopback device.
    #[default]
    None,
    /// The host's.
    Host,
}

sparse! {
    /// `--security-opt`
    pub struct SecurityOptions {
        pub no_new_privileges: bool,
        pub seccomp: SeccompChoice,
        /// A profile's name; `None` for what the host gives.
        pub apparmor: Option<String>,
        /// `mask=` and `unmask=` of podman, on top of the defaults.
        pub masked: Vec<String>,
        pub unmasked: Unmasked,
    }
}

/// Which system calls are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    #[default]
    Default,
    Unconfined,
    File(std::path::PathBuf),
}

/// Which of the default masks are lifted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmasked {
    #[default]
    Nothing,
    Paths(Vec<String>),
    /// `systempaths=unconfined`, `unmask=ALL`
    All,
}

sparse! {
    /// Limits of the container's cgroup.
    pub struct Limits {
        /// In bytes.
        pub memory: Option<u64>,
        pub memory_reservation: Option<u64>,
        /// Memory and swap together.
        pub memory_swap: Option<SwapLimit>,
        /// In billionths of a processor.
        pub nano_cpus: Option<u64>,
        pub cpu_shares: Option<u64>,
        pub cpu_period: Option<u64>,
        pub cpu_quota: Option<i64>,
        pub cpuset_cpus: Option<String>,
        pub cpuset_mems: Option<String>,
        /// Docker's: 0 and -1 are no limit.
        pub pids: Option<i64>,
        pub blkio_weight: Option<u16>,
    }
}

impl Limits {
    /// Says whether any is asked for.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// `--memory-swap`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapLimit {
    Unlimited,
    Bytes(u64),
}

impl FromStr for SwapLimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "-1" { Ok(Self::Unlimited) } else { crate::support::units::parse_size(text).map(Self::Bytes) }
    }
}

impl fmt::Display for SwapLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("-1"),
            Self::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

/// `-e`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvironmentEntry {
    /// `-e NAME=value`
    Set { name: String, value: String },
    /// `-e NAME`: the caller's value, and none at all where the caller has none.
    Pass { name: String },
}

impl FromStr for EnvironmentEntry {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(Error::invalid(format!("environment {text:?}: no name before the =")));
        }
        if text.contains('\0') {
            return Err(Error::invalid(format!("environment {text:?}: holds a NUL")));
        }
        let name = name.to_owned();
        Ok(match value {
            Some(value) => Self::Set { name, value: value.to_owned() },
            // Docker's client and podman differ on `-e 'A*'`: one takes it for a name, one for a pattern of the caller's
            // variables (CVE-2026-57231). Here it is a name that nobody has.
            None => Self::Pass { name },
        })
    }
}

impl fmt::Display for EnvironmentEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { name, value } => write!(f, "{name}={value}"),
            Self::Pass { name } => f.write_str(name),
        }
    }
}

/// `--ulimit TYPE=SOFT[:HARD]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ulimit {
    pub kind: PosixRlimitType,
    pub soft: u64,
    pub hard: u64,
}

impl FromStr for Ulimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |cause: &str| Error::invalid(format!("ulimit {text:?}: {cause}"));
        let (name, values) = text.split_once('=').ok_or_else(|| wrong("not TYPE=SOFT[:HARD]"))?;
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
        let kind = serde_json::from_value(kind.into()).map_err(|_| wrong("unknown type"))?;
        let number = |value: &str| match value {
            "-1" | "unlimited" => Ok(u64::MAX),
            value if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                value.parse().map_err(|_| wrong("not a number"))
            }
            _ => Err(wrong("not a number")),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err(wrong("the soft limit is above the hard one"));
        }
        Ok(Self { kind, soft, hard })
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: u64| if value == u64::MAX { "-1".to_owned() } else { value.to_string() };
        let kind = self.kind.to_string();
        let name = kind.strip_prefix("RLIMIT_").unwrap_or(&kind).to_ascii_lowercase();
        write!(f, "{name}={}:{}", number(self.soft), number(self.hard))
    }
}

serialise_as_text!(SwapLimit, EnvironmentEntry, Ulimit);

/// Parses `--umask`: octal, as the shell has it.
pub fn parse_umask(text: &str) -> Result<u32> {
    let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mask) if octal && mask <= 0o777 => Ok(mask),
        _ => Err(Error::invalid(format!("umask {text:?}: not an octal number up to 0777"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_entries_set_or_pass() {
        let set = |name: &str, value: &str| EnvironmentEntry::Set { name: name.into(), value: value.into() };
        for (text, entry) in [
            ("A=1", set("A", "1")),
            ("A=", set("A", "")),
            ("A=b=c", set("A", "b=c")),
            ("A", EnvironmentEntry::Pass { name: "A".into() }),
        ] {
            assert_eq!(text.parse::<EnvironmentEntry>().unwrap(), entry);
        }
        for text in ["", "=x", "=", "A=\0", "A\0"] {
            assert!(text.parse::<EnvironmentEntry>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ulimits_have_a_type_and_one_or_two_numbers() {
        let limit = |kind, soft, hard| Ulimit { kind, soft, hard };
        for (text, expected) in [
            ("nofile=1024:2048", limit(PosixRlimitType::RlimitNofile, 1024, 2048)),
            ("core=0", limit(PosixRlimitType::RlimitCore, 0, 0)),
            ("memlock=-1:-1", limit(PosixRlimitType::RlimitMemlock, u64::MAX, u64::MAX)),
        ] {
            assert_eq!(text.parse::<Ulimit>().unwrap(), expected);
        }
        for text in
            ["nofile", "nofile=", "nofile=2:1", "nofile=1:", "nofile=+1", "files=1", "nofile=1:2:3", "nofile=-2"]
        {
            assert!(text.parse::<Ulimit>().is_err(), "{text:?}");
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

    #[test]
    fn swap_may_be_unlimited() {
        assert_eq!("-1".parse::<SwapLimit>().unwrap(), SwapLimit::Unlimited);
        assert_eq!("1g".parse::<SwapLimit>().unwrap(), SwapLimit::Bytes(1 << 30));
        assert!("-2".parse::<SwapLimit>().is_err());
    }
}
