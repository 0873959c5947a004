//! `--pid --ipc --uts --cgroupns --userns`: whose namespaces a container is in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::sparse;
use crate::error::{Error, Result};
use crate::support::text::serialise_as_text;

sparse! {
    /// Whose namespaces the container is in.
    pub struct NamespaceOptions {
        pub pid: NamespaceMode,
        pub ipc: IpcMode,
        pub uts: NamespaceMode,
        pub cgroup: NamespaceMode,
        pub user: UserMode,
    }
}

/// Whose namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NamespaceMode {
    /// The container's own.
    #[default]
    Private,
    Host,
    /// Another container's, by name or id.
    Container(String),
    /// `ns:PATH`
    Path(PathBuf),
}

impl FromStr for NamespaceMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None => match text {
                "" | "private" => Ok(Self::Private),
                "host" => Ok(Self::Host),
                _ => Err(Error::invalid(format!("{text:?} is none of host, private, container:NAME, ns:PATH"))),
            },
            Some(("container", name)) if !name.is_empty() => Ok(Self::Container(name.to_owned())),
            Some(("ns", path)) if path.starts_with('/') => Ok(Self::Path(path.into())),
            Some(("ns", _)) => Err(Error::invalid(format!("{text:?}: not an absolute path"))),
            Some(_) => Err(Error::invalid(format!("{text:?} is none of host, private, container:NAME, ns:PATH"))),
        }
    }
}

impl fmt::Display for NamespaceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("private"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Path(path) => write!(f, "ns:{}", path.display()),
        }
    }
}

/// `--ipc`: a namespace that goes with a directory, `/dev/shm`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IpcMode {
    /// The container's own, which others may join.
    #[default]
    Shareable,
    /// The container's own, and nobody else's.
    Private,
    /// The same without a `/dev/shm`.
    Nothing,
    Host,
    /// Another container's, by name or id, with its `/dev/shm`.
    Container(String),
    /// `ns:PATH`, with a `/dev/shm` of the container's own.
    Path(PathBuf),
}

impl FromStr for IpcMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.parse()) {
            ("" | "shareable", _) => Ok(Self::Shareable),
            ("private", _) => Ok(Self::Private),
            ("none", _) => Ok(Self::Nothing),
            (_, Ok(NamespaceMode::Host)) => Ok(Self::Host),
            (_, Ok(NamespaceMode::Container(name))) => Ok(Self::Container(name)),
            (_, Ok(NamespaceMode::Path(path))) => Ok(Self::Path(path)),
            _ => Err(Error::invalid(format!(
                "{text:?} is none of shareable, private, none, host, container:NAME, ns:PATH"
            ))),
        }
    }
}

impl IpcMode {
    /// Gives whose namespace it is.
    pub fn namespace(&self) -> NamespaceMode {
        match self {
            Self::Shareable | Self::Private | Self::Nothing => NamespaceMode::Private,
            Self::Host => NamespaceMode::Host,
            Self::Container(name) => NamespaceMode::Container(name.clone()),
            Self::Path(path) => NamespaceMode::Path(path.clone()),
        }
    }
}

impl fmt::Display for IpcMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shareable => f.write_str("shareable"),
            Self::Private => f.write_str("private"),
            Self::Nothing => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Path(path) => write!(f, "ns:{}", path.display()),
        }
    }
}

/// `--userns`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UserMode {
    /// None of its own for root's containers; an ordinary user's have the user's ids.
    #[default]
    Default,
    /// One of its own.
    Private,
    /// The caller keeps its ids inside, or has these, among so many.
    KeepId {
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u32>,
    },
    /// Ids that no other container has; so many of them.
    Auto {
        size: Option<u32>,
    },
    /// Without the caller's own id.
    NoMap,
    Container(String),
    Path(PathBuf),
}

impl FromStr for UserMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |cause: &str| Error::invalid(format!("userns {text:?}: {cause}"));
        let (mode, rest) = text.split_once(':').unwrap_or((text, ""));
        match mode {
            "" | "host" if rest.is_empty() => Ok(Self::Default),
            "private" if rest.is_empty() => Ok(Self::Private),
            "nomap" if rest.is_empty() => Ok(Self::NoMap),
            "container" if !rest.is_empty() => Ok(Self::Container(rest.to_owned())),
            "ns" if rest.starts_with('/') => Ok(Self::Path(rest.into())),
            "keep-id" | "auto" => {
                let (mut uid, mut gid, mut size) = (None, None, None);
                for option in rest.split(',').filter(|_| !rest.is_empty()) {
                    let (key, value) = option.split_once('=').ok_or_else(|| wrong("options are KEY=VALUE"))?;
                    let number = value.parse::<u32>().ok().filter(|number| *number != u32::MAX);
                    let number = Some(number.ok_or_else(|| wrong("not a number"))?);
                    match (mode, key) {
                        ("keep-id", "uid") => uid = number,
                        ("keep-id", "gid") => gid = number,
                        ("auto" | "keep-id", "size") => size = number,
                        _ => return Err(wrong(&format!("unknown option {key:?}"))),
                    }
                }
                Ok(if mode == "auto" { Self::Auto { size } } else { Self::KeepId { uid, gid, size } })
            }
            _ => Err(wrong("none of host, private, keep-id, auto, nomap, container:NAME, ns:PATH")),
        }
    }
}

impl fmt::Display for UserMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_options = |f: &mut fmt::Formatter<'_>, mode: &str, options: &[(&str, Option<u32>)]| {
            f.write_str(mode)?;
            let given = options.iter().filter_map(|(key, value)| value.map(|value| format!("{key}={value}")));
            let given: Vec<String> = given.collect();
            if given.is_empty() { Ok(()) } else { write!(f, ":{}", given.join(",")) }
        };
        match self {
            Self::Default => f.write_str("host"),
            Self::Private => f.write_str("private"),
            Self::KeepId { uid, gid, size } => {
                with_options(f, "keep-id", &[("uid", *uid), ("gid", *gid), ("size", *size)])
            }
            Self::Auto { size } => with_options(f, "auto", &[("size", *size)]),
            Self::NoMap => f.write_str("nomap"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Path(path) => write!(f, "ns:{}", path.display()),
        }
    }
}

serialise_as_text!(NamespaceMode, IpcMode, UserMode);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_and_printed() {
        for (text, printed) in [
            ("", "private"),
            ("private", "private"),
            ("host", "host"),
            ("container:web", "container:web"),
            ("ns:/proc/1/ns/pid", "ns:/proc/1/ns/pid"),
        ] {
            assert_eq!(text.parse::<NamespaceMode>().unwrap().to_string(), printed);
        }
        for (text, printed) in [
            ("", "shareable"),
            ("private", "private"),
            ("none", "none"),
            ("host", "host"),
            ("container:web", "container:web"),
            ("ns:/x", "ns:/x"),
        ] {
            assert_eq!(text.parse::<IpcMode>().unwrap().to_string(), printed);
        }
        assert!("pod".parse::<IpcMode>().is_err());
        for text in ["other", "container:", "ns:", "ns:relative", "pod:x", "host:", "shareable"] {
            assert!(text.parse::<NamespaceMode>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn user_modes_are_read_and_printed() {
        for text in [
            "host",
            "keep-id",
            "keep-id:uid=1,gid=2",
            "keep-id:gid=2,size=9",
            "private",
            "auto",
            "auto:size=9",
            "nomap",
            "container:x",
            "ns:/x",
        ] {
            assert_eq!(text.parse::<UserMode>().unwrap().to_string(), text);
        }
        for text in
            ["other", "keep-id:uid", "keep-id:uid=x", "keep-id:sizes=1", "auto:uid=1", "nomap:x", "ns:x", "container:"]
        {
            assert!(text.parse::<UserMode>().is_err(), "{text:?}");
        }
    }
}
