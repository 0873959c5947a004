//! The options of the driver `local`: `type`, `device`, `o` and `size` of `volume create --opt`, and of `volume-opt`.
//!
//! Without a type a volume is a directory of the data root, maybe with an owner and a quota. With one it is a mount, and is
//! mounted where it is used: in each container's own mount namespace, where it goes with the container. Nothing is mounted
//! on the host, so there is nobody who would have to count its users and unmount it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::support::units::parse_size;

/// What a volume's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A directory of the data root.
    Directory(Bounds),
    /// A directory from elsewhere on the host.
    Bind { source: PathBuf, options: Vec<String> },
    /// A file system.
    Mount { kind: String, device: String, options: Vec<String> },
}

/// How much a directory may take, and whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub bytes: Option<u64>,
    pub inodes: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Backing {
    /// Reads the options. What is not known is refused by name.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self> {
        let (mut kind, mut device, mut words, mut size) = (None, None, Vec::new(), None);
        for (name, value) in options {
            match name.to_ascii_lowercase().as_str() {
                "type" => kind = Some(value.as_str()),
                "device" => device = Some(value.as_str()),
                "o" => words.extend(value.split(',').filter(|word| !word.is_empty())),
                "size" => size = Some(value.as_str()),
                _ => {
                    return Err(Error::invalid(format!("volume option {name:?}: unknown"))
                        .with_hint("the driver local has type, device, o and size"));
                }
            }
        }
        let kind = kind.filter(|kind| !kind.is_empty());
        let is_bind = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
        match (kind, device) {
            (None, None) => bounds(&words, size).map(Self::Directory),
            // podman's habit, and docker's documentation has it with `type=none`.
            (None | Some("none" | "bind"), Some(source)) if is_bind || kind == Some("bind") => {
                without_size(size)?;
                if !source.starts_with('/') {
                    return Err(Error::invalid(format!("volume option device={source}: not an absolute path")));
                }
                Ok(Self::Bind { source: source.into(), options: owned(&words) })
            }
            (Some("tmpfs"), device) => {
                without_size(size)?;
                Ok(Self::Mount {
                    kind: "tmpfs".to_owned(),
                    device: device.unwrap_or("tmpfs").to_owned(),
                    options: owned(&words),
                })
            }
            (Some(kind), Some(device)) => {
                without_size(size)?;
                check_address(kind, &words)?;
                Ok(Self::Mount { kind: kind.to_owned(), device: device.to_owned(), options: owned(&words) })
            }
            (None, Some(_)) => Err(Error::invalid("missing required option: \"type\"")),
            (Some(_), None) => Err(Error::invalid("missing required option: \"device\"")),
        }
    }

    /// Says whether it is read-only by its own options.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Directory(_) => false,
            Self::Bind { options, .. } | Self::Mount { options, .. } => options.iter().any(|option| option == "ro"),
        }
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// `o` without a type: what a directory can have.
fn bounds(words: &[&str], size: Option<&str>) -> Result<Bounds> {
    let mut bounds = Bounds { bytes: size.map(parse_size).transpose()?, ..Bounds::default() };
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let wrong = || Error::invalid(format!("volume option o={word}: not a number"));
        match name {
            "size" => bounds.bytes = Some(parse_size(value)?),
            "inodes" => bounds.inodes = Some(value.parse().map_err(|_| wrong())?),
            "uid" => bounds.uid = Some(value.parse().map_err(|_| wrong())?),
            "gid" => bounds.gid = Some(value.parse().map_err(|_| wrong())?),
            _ => {
                return Err(Error::invalid(format!("volume option o={word}: means something with a type only"))
                    .with_hint("without one there are size=, inodes=, uid= and gid="));
            }
        }
    }
    Ok(bounds)
}

fn without_size(size: Option<&str>) -> Result<()> {
    match size {
        None => Ok(()),
        Some(size) => Err(Error::invalid(format!("volume option size={size}: a quota is for volumes without a type"))
            .with_hint(format!("of a tmpfs: o=size={size}"))),
    }
}

/// The kernel takes addresses of servers and no names; mount.nfs(8) and docker look them up before.
fn check_address(kind: &str, words: &[&str]) -> Result<()> {
    let address = words.iter().find_map(|word| word.strip_prefix("addr="));
    match address {
        Some(address) if matches!(kind, "nfs" | "nfs4" | "cifs") && address.parse::<IpAddr>().is_err() => {
            Err(Error::unsupported(format!("volume option o=addr={address}: only addresses, no names")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Backing> {
        Backing::parse(&options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_type_makes_a_mount() {
        let bounds = Bounds { bytes: Some(10 << 20), inodes: Some(9), uid: Some(5), gid: Some(6) };
        for (options, expected) in [
            (&[][..], Backing::Directory(Bounds::default())),
            (&[("size", "10m"), ("o", "inodes=9,uid=5,gid=6")], Backing::Directory(bounds)),
            (&[("o", "size=10m,inodes=9,uid=5,gid=6")], Backing::Directory(bounds)),
            (
                &[("type", "none"), ("device", "/a"), ("o", "bind,ro")],
                Backing::Bind { source: "/a".into(), options: vec!["bind".to_owned(), "ro".to_owned()] },
            ),
            (
                &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=5")],
                Backing::Mount {
                    kind: "tmpfs".to_owned(),
                    device: "tmpfs".to_owned(),
                    options: vec!["size=1m".to_owned(), "uid=5".to_owned()],
                },
            ),
            (
                &[("type", "nfs"), ("device", ":/x"), ("o", "addr=10.0.0.1")],
                Backing::Mount {
                    kind: "nfs".to_owned(),
                    device: ":/x".to_owned(),
                    options: vec!["addr=10.0.0.1".to_owned()],
                },
            ),
        ] {
            assert_eq!(parse(options).unwrap(), expected, "{options:?}");
        }
    }

    #[test]
    fn what_means_nothing_is_named() {
        for (options, report) in [
            (&[("colour", "red")][..], "volume option \"colour\": unknown"),
            (&[("type", "ext4")], "missing required option: \"device\""),
            (&[("device", "/dev/x")], "missing required option: \"type\""),
            (&[("o", "ro")], "volume option o=ro: means something with a type only"),
            (&[("o", "uid=me")], "volume option o=uid=me: not a number"),
            (&[("type", "none"), ("device", "a"), ("o", "bind")], "volume option device=a: not an absolute path"),
            (&[("type", "tmpfs"), ("size", "1m")], "volume option size=1m: a quota is for volumes without a type"),
            (
                &[("type", "nfs"), ("device", ":/x"), ("o", "addr=nas")],
                "volume option o=addr=nas: only addresses, no names",
            ),
        ] {
            assert_eq!(parse(options).unwrap_err().report(), report, "{options:?}");
        }
    }
}
