//! Devices: `--device`, the names of the Container Device Interface, and `--device-cgroup-rule`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::support::text::serialise_as_text;

/// `--device`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceRequest {
    /// `HOST[:CONTAINER][:PERMISSIONS]`
    Node { source: PathBuf, destination: String, access: String },
    /// `vendor.com/class=name`, to be found in a CDI specification.
    Cdi { kind: String, name: String },
}

impl FromStr for DeviceRequest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |cause: &str| Error::invalid(format!("device {text:?}: {cause}"));
        if !text.starts_with('/') {
            let (kind, name) = text.split_once('=').ok_or_else(|| wrong("neither a path nor a CDI name"))?;
            return if is_cdi_kind(kind) && is_cdi_name(name) {
                Ok(Self::Cdi { kind: kind.to_owned(), name: name.to_owned() })
            } else {
                Err(wrong("not VENDOR/CLASS=NAME"))
            };
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, access) = match parts.as_slice() {
            [source] => (*source, *source, "rwm"),
            [source, access] if is_access(access) => (*source, *source, *access),
            [source, destination] => (*source, *destination, "rwm"),
            [source, destination, access] => (*source, *destination, *access),
            _ => return Err(wrong("not HOST[:CONTAINER][:PERMISSIONS]")),
        };
        if !is_access(access) {
            return Err(wrong("the permissions are not of r, w and m"));
        }
        if source == "/" || destination.trim_end_matches('/').is_empty() {
            return Err(wrong("the root directory is no device"));
        }
        if !destination.starts_with('/') || destination.split('/').any(|part| part == "..") {
            return Err(wrong("the path in the container is not absolute and clean"));
        }
        Ok(Self::Node { source: source.into(), destination: destination.to_owned(), access: access.to_owned() })
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { source, destination, access } => write!(f, "{}:{destination}:{access}", source.display()),
            Self::Cdi { kind, name } => write!(f, "{kind}={name}"),
        }
    }
}

pub fn is_access(text: &str) -> bool {
    let count = |letter| text.chars().filter(|other| *other == letter).count();
    !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter) && count(letter) == 1)
}

/// `vendor.com/class`, as the CDI specification bounds it.
pub fn is_cdi_kind(kind: &str) -> bool {
    let part = |part: &str, marks: &[u8]| {
        part.starts_with(|first: char| first.is_ascii_alphabetic())
            && part.ends_with(|last: char| last.is_ascii_alphanumeric())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
    };
    kind.split_once('/').is_some_and(|(vendor, class)| part(vendor, b"_-.") && part(class, b"_-."))
}

pub fn is_cdi_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
}

/// `--device-cgroup-rule "TYPE MAJOR:MINOR ACCESS"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a` (all), `b` (block) or `c` (character).
    pub kind: char,
    /// `None` for `*`.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: String,
}

impl FromStr for DeviceRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid(format!("device-cgroup-rule {text:?}: not TYPE MAJOR:MINOR ACCESS, as c 10:* rwm"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let [kind @ ("a" | "b" | "c"), numbers, access] = words[..] else { return Err(wrong()) };
        let number = |text: &str| match text {
            "*" => Ok(None),
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map(Some).map_err(|_| wrong()),
            _ => Err(wrong()),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
        if !is_access(access) {
            return Err(wrong());
        }
        let kind = kind.chars().next().unwrap_or('a');
        Ok(Self { kind, major: number(major)?, minor: number(minor)?, access: access.to_owned() })
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

serialise_as_text!(DeviceRequest, DeviceRule);

/// Reads `--gpus`: each becomes a device of NVIDIA's CDI specification, which its toolkit writes.
pub fn parse_gpus(text: &str) -> Result<Vec<DeviceRequest>> {
    let wrong = |cause: &str| Error::invalid(format!("gpus {text:?}: {cause}"));
    let gpu = |name: &str| format!("nvidia.com/gpu={name}").parse::<DeviceRequest>();
    let mut devices = Vec::new();
    // Docker's value is a line of CSV: `"device=0,1"` is one field.
    for field in crate::support::csv::split(text).map_err(|error| error.context(format!("gpus {text:?}")))? {
        match field.split_once('=') {
            None if field == "all" => devices.push(gpu("all")?),
            None => match field.parse::<u32>() {
                Ok(count) => {
                    devices.extend((0..count).map(|index| gpu(&index.to_string())).collect::<Result<Vec<_>>>()?);
                }
                Err(_) => return Err(wrong("neither a number nor all")),
            },
            Some(("count", "all" | "-1")) => devices.push(gpu("all")?),
            Some(("count", count)) => {
                let count: u32 = count.parse().map_err(|_| wrong("count is no number"))?;
                devices.extend((0..count).map(|index| gpu(&index.to_string())).collect::<Result<Vec<_>>>()?);
            }
            Some(("device", list)) => {
                devices.extend(list.split(',').map(gpu).collect::<Result<Vec<_>>>()?);
            }
            // The specification decides what of the driver is shown.
            Some(("capabilities", _)) => {}
            Some((key, _)) => return Err(Error::unsupported(format!("gpus {text:?}: {key} is not supported"))),
        }
    }
    if devices.is_empty() { gpu("all").map(|all| vec![all]) } else { Ok(devices) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_paths_or_names() {
        for (text, expected) in [
            ("/dev/fuse", "/dev/fuse:/dev/fuse:rwm"),
            ("/dev/fuse:r", "/dev/fuse:/dev/fuse:r"),
            ("/dev/sda:/dev/xvda", "/dev/sda:/dev/xvda:rwm"),
            ("/dev/sda:/dev/xvda:rw", "/dev/sda:/dev/xvda:rw"),
            ("nvidia.com/gpu=all", "nvidia.com/gpu=all"),
            ("vendor.com/net-card=0:1", "vendor.com/net-card=0:1"),
        ] {
            assert_eq!(text.parse::<DeviceRequest>().unwrap().to_string(), expected, "{text}");
        }
        for text in [
            "",
            "fuse",
            "/dev/a:b",
            "/dev/a:/b:rx",
            "/dev/a:/b:",
            "/dev/a:/b:r:w",
            "/dev/a:/b/../c",
            "/dev/a:/",
            "/",
            "/dev/a:rr",
            "gpu=all",
            "nvidia.com/gpu=",
            "nvidia.com/=x",
            "-a/b=c",
            "a.com/b=/etc",
        ] {
            assert!(text.parse::<DeviceRequest>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn rules_have_a_type_numbers_and_access() {
        for (text, expected) in
            [("c 1:3 mr", "c 1:3 mr"), ("a *:* rwm", "a *:* rwm"), ("b  8:*\trw", "b 8:* rw"), ("c *:1 r", "c *:1 r")]
        {
            assert_eq!(text.parse::<DeviceRule>().unwrap().to_string(), expected);
        }
        for text in ["", "c", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 x", "c 1:3 r r", "c +1:3 r"] {
            assert!(text.parse::<DeviceRule>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn gpus_are_devices() {
        for (text, expected) in [
            ("all", "all"),
            ("2", "0 1"),
            ("count=1", "0"),
            ("count=all,capabilities=utility", "all"),
            ("\"device=0,GPU-3a\"", "0 GPU-3a"),
            ("capabilities=gpu", "all"),
        ] {
            let expected: Vec<_> = expected.split(' ').map(|name| format!("nvidia.com/gpu={name}")).collect();
            let found: Vec<_> = parse_gpus(text).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{text}");
        }
        for text in ["", "some", "driver=x", "count=x", "device="] {
            assert!(parse_gpus(text).is_err(), "{text:?}");
        }
    }
}
