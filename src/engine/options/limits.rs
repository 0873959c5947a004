//! Limits of the container's cgroup, and ulimits.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::runtime::PosixRlimitType;

use super::sparse;
use crate::error::{Error, Result};
use crate::support::text::serialise_as_text;
use crate::support::units;

sparse! {
    /// Limits of the container's cgroup.
    pub struct Limits {
        /// In bytes.
        pub memory: Option<u64>,
        pub memory_reservation: Option<u64>,
        /// Memory and swap together.
        pub memory_swap: Option<SwapLimit>,
        /// From 0 to 100; -1 leaves it to the system.
        pub memory_swappiness: Option<i64>,
        pub oom_kill_disable: bool,
        /// In billionths of a processor.
        pub nano_cpus: Option<u64>,
        pub cpu_shares: Option<u64>,
        pub cpu_period: Option<u64>,
        pub cpu_quota: Option<i64>,
        pub cpu_realtime_period: Option<u64>,
        pub cpu_realtime_runtime: Option<i64>,
        pub cpuset_cpus: Option<String>,
        pub cpuset_mems: Option<String>,
        /// Docker's: 0 and -1 are no limit.
        pub pids: Option<i64>,
        pub blkio_weight: Option<u16>,
        pub blkio_weight_devices: Vec<DeviceWeight>,
        pub device_read_bps: Vec<DeviceRate>,
        pub device_write_bps: Vec<DeviceRate>,
        pub device_read_iops: Vec<DeviceRate>,
        pub device_write_iops: Vec<DeviceRate>,
        /// `--cgroup-conf`: files of cgroup v2 and what is written there.
        pub unified: BTreeMap<String, String>,
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
        if text == "-1" { Ok(Self::Unlimited) } else { units::parse_size(text).map(Self::Bytes) }
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

/// `--device-read-bps DEVICE:RATE` and its kin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRate {
    pub device: PathBuf,
    /// Bytes or operations a second.
    pub rate: u64,
}

impl FromStr for DeviceRate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (device, rate) = split_device(text, "RATE")?;
        Ok(Self { device, rate: units::parse_size(rate)? })
    }
}

impl fmt::Display for DeviceRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device.display(), self.rate)
    }
}

/// `--blkio-weight-device DEVICE:WEIGHT`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceWeight {
    pub device: PathBuf,
    pub weight: u16,
}

impl FromStr for DeviceWeight {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (device, weight) = split_device(text, "WEIGHT")?;
        match weight.parse() {
            Ok(weight @ (0 | 10..=1000)) => Ok(Self { device, weight }),
            _ => Err(Error::invalid(format!("{text:?}: the weight is not between 10 and 1000"))),
        }
    }
}

impl fmt::Display for DeviceWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device.display(), self.weight)
    }
}

fn split_device<'a>(text: &'a str, value: &str) -> Result<(PathBuf, &'a str)> {
    match text.rsplit_once(':') {
        Some((device, value)) if device.starts_with("/dev/") => Ok((device.into(), value)),
        _ => Err(Error::invalid(format!("{text:?}: not /dev/DEVICE:{value}"))),
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

serialise_as_text!(SwapLimit, DeviceRate, DeviceWeight, Ulimit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits_have_a_type_and_one_or_two_numbers() {
        let limit = |kind, soft, hard| Ulimit { kind, soft, hard };
        for (text, expected, printed) in [
            ("nofile=1024:2048", limit(PosixRlimitType::RlimitNofile, 1024, 2048), "nofile=1024:2048"),
            ("core=0", limit(PosixRlimitType::RlimitCore, 0, 0), "core=0:0"),
            ("memlock=-1:-1", limit(PosixRlimitType::RlimitMemlock, u64::MAX, u64::MAX), "memlock=-1:-1"),
        ] {
            let found: Ulimit = text.parse().unwrap();
            assert_eq!((found, found.to_string().as_str()), (expected, printed));
        }
        for text in
            ["nofile", "nofile=", "nofile=2:1", "nofile=1:", "nofile=+1", "files=1", "nofile=1:2:3", "nofile=-2"]
        {
            assert!(text.parse::<Ulimit>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn swap_may_be_unlimited() {
        assert_eq!("-1".parse::<SwapLimit>().unwrap(), SwapLimit::Unlimited);
        assert_eq!("1g".parse::<SwapLimit>().unwrap(), SwapLimit::Bytes(1 << 30));
        assert!("-2".parse::<SwapLimit>().is_err());
    }

    #[test]
    fn rates_and_weights_are_a_devices() {
        assert_eq!("/dev/sda:1mb".parse::<DeviceRate>().unwrap().to_string(), "/dev/sda:1048576");
        assert_eq!("/dev/mapper/a:b:10".parse::<DeviceWeight>().unwrap().to_string(), "/dev/mapper/a:b:10");
        for text in ["/dev/sda", "sda:1", "/dev/sda:", "/dev/sda:x", ":1"] {
            assert!(text.parse::<DeviceRate>().is_err(), "{text:?}");
            assert!(text.parse::<DeviceWeight>().is_err(), "{text:?}");
        }
        assert!("/dev/sda:1001".parse::<DeviceWeight>().is_err());
    }
}
