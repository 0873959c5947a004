//! The grammars of `-v [SRC:]DST[:OPTIONS]` and `--tmpfs DST[:OPTIONS]`.
//!
//! Every option is known: it does something, or it does nothing for a reason that stands here, or it is refused by name.
//! Deliberately makes no source that is missing: docker's empty directory owned by root hides a mistyped path.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};

/// One `-v`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub source: VolumeSource,
    /// Absolute and lexically clean.
    pub destination: String,
    pub is_read_only: bool,
    /// `bind` instead of `rbind`: without what is mounted below the source.
    pub is_single: bool,
    pub propagation: Propagation,
    /// `noexec`, `nosuid`, `nodev` and their opposites, as mount options.
    pub attributes: Vec<String>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A path of the host; relative ones (`./src`) are the caller's.
    Host(PathBuf),
    /// A volume by name.
    Named(String),
    /// A directory of the container's own, gone with it.
    Anonymous,
}

/// Whether mounts that come later pass between host and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// Neither way, docker's default.
    #[default]
    RecursivePrivate,
    Private,
    Slave,
    RecursiveSlave,
    Shared,
    RecursiveShared,
}

impl Propagation {
    /// Gives the mount option.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::RecursivePrivate => "rprivate",
            Self::Slave => "slave",
            Self::RecursiveSlave => "rslave",
            Self::Shared => "shared",
            Self::RecursiveShared => "rshared",
        }
    }
}

const PROPAGATIONS: [Propagation; 6] = [
    Propagation::Private,
    Propagation::RecursivePrivate,
    Propagation::Slave,
    Propagation::RecursiveSlave,
    Propagation::Shared,
    Propagation::RecursiveShared,
];

/// Attributes of one mount that may be set on a bind as on a tmpfs.
const ATTRIBUTES: [&str; 6] = ["noexec", "exec", "nosuid", "suid", "nodev", "dev"];

impl FromStr for Volume {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_volume(text).with_context(|| format!("volume {text:?}"))
    }
}

fn parse_volume(text: &str) -> Result<Volume> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts.as_slice() {
        [destination] => (VolumeSource::Anonymous, *destination, ""),
        [source, destination] => (parse_source(source)?, *destination, ""),
        [source, destination, options] => (parse_source(source)?, *destination, *options),
        _ => return Err(Error::invalid("not [SRC:]DST[:OPTIONS]")),
    };
    let mut volume = Volume {
        source,
        destination: clean_destination(destination)?,
        is_read_only: false,
        is_single: false,
        propagation: Propagation::default(),
        attributes: Vec::new(),
    };
    for option in options.split(',').filter(|_| !options.is_empty()) {
        apply_option(&mut volume, option)?;
    }
    Ok(volume)
}

fn parse_source(text: &str) -> Result<VolumeSource> {
    if text.is_empty() {
        return Err(Error::invalid("the source is empty"));
    }
    if text.starts_with(['/', '.']) {
        return Ok(VolumeSource::Host(text.into()));
    }
    // Docker's rule for names; a path without ./ is taken for one, and refused as such.
    let allowed = text.len() > 1
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if allowed {
        return Ok(VolumeSource::Named(text.to_owned()));
    }
    Err(Error::invalid(format!("{text:?} is neither a path nor the name of a volume"))
        .with_hint("a path begins with / or ./"))
}

fn apply_option(volume: &mut Volume, option: &str) -> Result<()> {
    if let Some(propagation) = PROPAGATIONS.into_iter().find(|known| known.as_str() == option) {
        volume.propagation = propagation;
        return Ok(());
    }
    if let Some(attribute) = ATTRIBUTES.into_iter().find(|known| *known == option) {
        volume.attributes.push(attribute.to_owned());
        return Ok(());
    }
    match option {
        "ro" => volume.is_read_only = true,
        "rw" => volume.is_read_only = false,
        "bind" => volume.is_single = true,
        "rbind" => volume.is_single = false,
        // Labels of SELinux, which husk does not set; consistency modes of Docker Desktop, which Linux does not need.
        "z" | "Z" | "cached" | "delegated" | "consistent" => {}
        "nocopy" | "copy" if matches!(volume.source, VolumeSource::Host(_)) => {
            return Err(Error::invalid(format!("option {option:?} is for volumes, and this is a path")));
        }
        "nocopy" | "copy" | "U" | "O" | "idmap" => {
            return Err(Error::unsupported(format!("option {option:?} is not supported yet")));
        }
        _ => return Err(Error::invalid(format!("unknown option {option:?}"))),
    }
    Ok(())
}

impl Volume {
    /// Makes sure that a path of the host is there, before anything is made.
    pub fn check_source(&self) -> Result<()> {
        let VolumeSource::Host(path) = &self.source else { return Ok(()) };
        match rustix::fs::stat(path) {
            Ok(_) => Ok(()),
            Err(errno) => {
                let error = Error::from(errno).context(format!("volume source {}", path.display()));
                Err(match errno {
                    rustix::io::Errno::NOENT => error
                        .with_kind(Kind::NotFound)
                        .with_hint(format!("mkdir -p {}; husk makes no source that may be a slip", path.display())),
                    _ => error,
                })
            }
        }
    }

    /// Makes a relative source absolute.
    pub fn resolve_source(&mut self, working_directory: &Path) {
        if let VolumeSource::Host(path) = &mut self.source
            && path.is_relative()
        {
            *path = working_directory.join(&*path);
        }
    }

    /// Gives the options of the bind mount. `recursive_read_only`: the kernel knows mount_setattr(2) (5.12).
    pub fn mount_options(&self, recursive_read_only: bool) -> Vec<String> {
        let mut options = vec![if self.is_single { "bind" } else { "rbind" }, self.propagation.as_str()];
        if self.is_read_only {
            // What is mounted below stays writable otherwise, which nobody means.
            options.push(if recursive_read_only && !self.is_single { "rro" } else { "ro" });
        }
        options.extend(self.attributes.iter().map(String::as_str));
        options.into_iter().map(str::to_owned).collect()
    }
}

/// One `--tmpfs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub destination: String,
    pub options: Vec<String>,
}

impl FromStr for Tmpfs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_tmpfs(text).with_context(|| format!("tmpfs {text:?}"))
    }
}

fn parse_tmpfs(text: &str) -> Result<Tmpfs> {
    let (destination, asked) = text.split_once(':').unwrap_or((text, ""));
    // Docker's defaults; each gives way to its opposite.
    let mut attributes = ["noexec", "nosuid", "nodev"];
    let mut options = Vec::new();
    for option in asked.split(',').filter(|_| !asked.is_empty()) {
        let opposite = option.strip_prefix("no").unwrap_or(option);
        if let Some(attribute) = attributes.iter_mut().find(|known| known.trim_start_matches("no") == opposite) {
            *attribute = ATTRIBUTES.into_iter().find(|known| *known == option).unwrap_or(attribute);
            continue;
        }
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "rw" | "ro" | "sync" | "noatime" | "relatime" | "nodiratime" | "strictatime" if value.is_empty() => {}
            "size" => {
                let is_share = value.strip_suffix('%').is_some_and(|share| share.parse::<u8>().is_ok());
                if !is_share {
                    options.push(format!("size={}", crate::support::units::parse_size(value)?));
                    continue;
                }
            }
            "mode" if !value.is_empty() && value.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) => {}
            "nr_inodes" | "nr_blocks" | "uid" | "gid" if value.parse::<u32>().is_ok() => {}
            _ => return Err(Error::invalid(format!("unknown option {option:?}, or its value is none"))),
        }
        options.push(option.to_owned());
    }
    let options = attributes.into_iter().map(str::to_owned).chain(options).collect();
    Ok(Tmpfs { destination: clean_destination(destination)?, options })
}

/// Cleans a mount point: absolute, without `.` and doubled slashes. `..` is refused rather than resolved, since links of
/// the image decide what it would mean. (CVE-2022-23648)
pub fn clean_destination(text: &str) -> Result<String> {
    if !text.starts_with('/') {
        return Err(Error::invalid(format!("destination {text:?} is not an absolute path")));
    }
    if text.contains(['\0', '\n']) {
        return Err(Error::invalid(format!("destination {text:?} holds a NUL or a line break")));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(Error::invalid(format!("destination {text:?} climbs with ..")));
    }
    if parts.is_empty() {
        return Err(Error::invalid("destination is the root directory"));
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> String {
        text.parse::<Volume>().unwrap().mount_options(true).join(",")
    }

    #[test]
    fn volumes_have_a_source_a_destination_and_options() {
        for (text, source, destination, mount_options) in [
            ("/a:/b", VolumeSource::Host("/a".into()), "/b", "rbind,rprivate"),
            ("./a:/b//c/./d/", VolumeSource::Host("./a".into()), "/b/c/d", "rbind,rprivate"),
            ("/a:/b:ro", VolumeSource::Host("/a".into()), "/b", "rbind,rprivate,rro"),
            ("/a:/b:ro,Z,cached", VolumeSource::Host("/a".into()), "/b", "rbind,rprivate,rro"),
            ("/a:/b:bind,ro,slave,noexec", VolumeSource::Host("/a".into()), "/b", "bind,slave,ro,noexec"),
            ("/a:/b:rw,rshared", VolumeSource::Host("/a".into()), "/b", "rbind,rshared"),
            ("data:/b", VolumeSource::Named("data".into()), "/b", "rbind,rprivate"),
            ("/b", VolumeSource::Anonymous, "/b", "rbind,rprivate"),
        ] {
            let volume: Volume = text.parse().unwrap();
            assert_eq!((&volume.source, volume.destination.as_str()), (&source, destination), "{text}");
            assert_eq!(options(text), mount_options, "{text}");
        }
        assert_eq!("/a:/b:ro".parse::<Volume>().unwrap().mount_options(false).join(","), "rbind,rprivate,ro");
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (text, report) in [
            ("", "destination \"\" is not an absolute path"),
            (":/b", "the source is empty"),
            ("/a:b", "destination \"b\" is not an absolute path"),
            ("/a:/", "destination is the root directory"),
            ("/a:/..", "destination \"/..\" climbs with .."),
            ("/a:/b/../../etc", "destination \"/b/../../etc\" climbs with .."),
            ("/a:/b:ro:rw", "not [SRC:]DST[:OPTIONS]"),
            ("/a:/b:rwx", "unknown option \"rwx\""),
            ("/a:/b:U", "option \"U\" is not supported yet"),
            ("/a:/b:nocopy", "option \"nocopy\" is for volumes, and this is a path"),
            ("a/b:/c", "\"a/b\" is neither a path nor the name of a volume"),
            ("../..:/..", "destination \"/..\" climbs with .."),
        ] {
            let error = text.parse::<Volume>().unwrap_err();
            assert_eq!(error.report(), format!("volume {text:?}: {report}"));
        }
    }

    #[test]
    fn a_missing_source_has_a_way_out() {
        let volume: Volume = "/nowhere/at/all:/b".parse().unwrap();
        let error = volume.check_source().unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.report(), "volume source /nowhere/at/all: no such file or directory (ENOENT)");
        assert!(error.hint().unwrap().starts_with("mkdir -p /nowhere/at/all"));
        "/proc:/b".parse::<Volume>().unwrap().check_source().unwrap();
    }

    #[test]
    fn relative_sources_are_the_callers() {
        let mut volume: Volume = "./src:/b".parse().unwrap();
        volume.resolve_source(Path::new("/home/me"));
        assert_eq!(volume.source, VolumeSource::Host("/home/me/./src".into()));
    }

    #[test]
    fn tmpfs_options_replace_their_opposites() {
        for (text, expected) in [
            ("/run", "noexec,nosuid,nodev"),
            ("/run:rw,exec,size=64m,mode=1777", "exec,nosuid,nodev,rw,size=67108864,mode=1777"),
            ("/run:dev,suid,nosuid,size=50%", "noexec,nosuid,dev,size=50%"),
        ] {
            assert_eq!(text.parse::<Tmpfs>().unwrap().options.join(","), expected, "{text}");
        }
        for text in ["run", "/", "/run:size=x", "/run:lowerdir=/", "/run:mode=9", "/run:context=x", "/run:,"] {
            assert!(text.parse::<Tmpfs>().is_err(), "{text:?}");
        }
    }
}
