//! The grammars of `-v [SRC:]DST[:OPTIONS]`, `--mount`, `--tmpfs DST[:OPTIONS]` and `--volumes-from`.
//!
//! Every option is known: it does something, or it does nothing for a reason that stands here, or it is refused by name.
//! Deliberately makes no source that is missing, unless told to: docker's empty directory owned by root hides a mistyped path.

mod mount;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::options::sparse;
use crate::error::{Context, Error, Kind, Result};
use crate::support::text::serialise_as_text;

pub use mount::MountRequest;

/// `NAME_MAX` of Linux file systems.
const NAME_BYTES: usize = 255;

sparse! {
    /// One `-v`, or one `--mount` of a bind, a volume or an image.
    pub struct Volume {
        pub source: VolumeSource,
        /// Absolute and lexically clean.
        pub destination: String,
        pub is_read_only: bool,
        /// How far the read-only reaches.
        pub reach: Reach,
        /// `bind` instead of `rbind`: without what is mounted below the source.
        pub is_single: bool,
        pub propagation: Propagation,
        /// `noexec`, `nosuid`, `nodev` and their opposites, as mount options.
        pub attributes: Vec<String>,
        /// `U`: the source is given to the container's user.
        pub is_given: bool,
        /// `O`: what is written lands in a layer of the container's own.
        pub is_overlay: bool,
        /// `idmap[=MAPS]`, as the runtime's mount option has it.
        pub idmap: Option<String>,
        /// `nocopy`: a new volume stays empty, whatever the image has there.
        pub stays_empty: bool,
        /// The part of the source that is mounted.
        pub subpath: Option<String>,
        /// A directory of the host's is made where it is missing (`bind-create-src`).
        pub makes_source: bool,
        /// `volume-label`: for a volume that is made.
        pub labels: BTreeMap<String, String>,
        /// `volume-opt`: for a volume that is made.
        pub driver_options: BTreeMap<String, String>,
    }
}

/// What is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeSource {
    /// A path of the host; relative ones (`./src`) are the caller's.
    Host(PathBuf),
    /// A volume by name.
    Named(String),
    /// A directory of the container's own, gone with it.
    #[default]
    Anonymous,
    /// The files of another image.
    Image(String),
}

/// What a read-only bind does with what is mounted below its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Read-only as well, where the kernel can (5.12).
    #[default]
    Possible,
    /// Writable (`bind-recursive=writable`).
    Top,
    /// Read-only, or an error (`bind-recursive=readonly`).
    All,
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
    let mut volume = Volume { source, destination: clean_destination(destination)?, ..Volume::default() };
    for option in options.split(',').filter(|_| !options.is_empty()) {
        volume.add_option(option)?;
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
    // A path without ./ is taken for a name, and refused as such.
    if is_volume_name(text) {
        return Ok(VolumeSource::Named(text.to_owned()));
    }
    Err(Error::invalid(format!("{text:?} is neither a path nor the name of a volume"))
        .with_hint("a path begins with / or ./"))
}

/// Says whether a text follows docker's rule for names of volumes; each is one component of a path.
pub fn is_volume_name(text: &str) -> bool {
    text.len() > 1
        && text.len() <= NAME_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

impl Volume {
    /// Takes one word of `-v`'s options.
    fn add_option(&mut self, option: &str) -> Result<()> {
        if let Some(propagation) = PROPAGATIONS.into_iter().find(|known| known.as_str() == option) {
            self.propagation = propagation;
            return Ok(());
        }
        if ATTRIBUTES.contains(&option) {
            self.attributes.push(option.to_owned());
            return Ok(());
        }
        match option {
            "ro" => self.is_read_only = true,
            "rw" => self.is_read_only = false,
            "bind" => self.is_single = true,
            "rbind" => self.is_single = false,
            // Labels of SELinux, which husk does not set; consistency modes of Docker Desktop, which Linux does not need.
            "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" | "copy" if matches!(self.source, VolumeSource::Host(_)) => {
                return Err(Error::invalid(format!("option {option:?} is for volumes, and this is a path")));
            }
            "nocopy" => self.stays_empty = true,
            "copy" => self.stays_empty = false,
            "U" => self.is_given = true,
            "O" if self.source == VolumeSource::Anonymous => {
                return Err(Error::invalid("option \"O\" is for sources that exist"));
            }
            "O" => self.is_overlay = true,
            _ if option == "idmap" || option.starts_with("idmap=") => self.set_idmap(option)?,
            _ => return Err(Error::invalid(format!("unknown option {option:?}"))),
        }
        Ok(())
    }

    fn set_idmap(&mut self, option: &str) -> Result<()> {
        if let Some(maps) = option.strip_prefix("idmap=") {
            let known = |part: &str| part.starts_with("uids=") || part.starts_with("gids=");
            if !maps.split(';').all(known) {
                return Err(Error::invalid(format!("{option:?}: not idmap=uids=INSIDE-OUTSIDE-COUNT;gids=…")));
            }
        }
        self.idmap = Some(option.to_owned());
        Ok(())
    }

    /// Makes sure that a path of the host is there, before anything is made.
    pub fn check_source(&self) -> Result<()> {
        let VolumeSource::Host(path) = &self.source else { return Ok(()) };
        if self.makes_source {
            return std::fs::create_dir_all(path).with_context(|| format!("make volume source {}", path.display()));
        }
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
            let reaches_all = match self.reach {
                Reach::All => true,
                Reach::Top => false,
                Reach::Possible => recursive_read_only && !self.is_single,
            };
            options.push(if reaches_all { "rro" } else { "ro" });
        }
        options.extend(self.attributes.iter().map(String::as_str));
        options.extend(self.idmap.as_deref());
        options.into_iter().map(str::to_owned).collect()
    }
}

/// `--volumes-from CONTAINER[:OPTIONS]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumesFrom {
    pub container: String,
    /// `ro`: whatever they were there; `rw` and nothing leave them as they are.
    pub is_read_only: bool,
}

impl FromStr for VolumesFrom {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (container, options) = text.split_once(':').unwrap_or((text, ""));
        let wrong = |cause: String| Error::invalid(format!("volumes-from {text:?}: {cause}"));
        if container.is_empty() {
            return Err(wrong("not CONTAINER[:OPTIONS]".to_owned()));
        }
        let mut is_read_only = false;
        for option in options.split(',').filter(|_| !options.is_empty()) {
            match option {
                "ro" => is_read_only = true,
                // The second: a label of SELinux's.
                "rw" | "z" => {}
                _ => return Err(wrong(format!("unknown option {option:?}"))),
            }
        }
        Ok(Self { container: container.to_owned(), is_read_only })
    }
}

impl fmt::Display for VolumesFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.container)?;
        if self.is_read_only { f.write_str(":ro") } else { Ok(()) }
    }
}

serialise_as_text!(VolumesFrom);

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
            "rw" | "ro" | "sync" | "noatime" | "relatime" | "nodiratime" | "strictatime" | "tmpcopyup" | "noswap"
                if value.is_empty() => {}
            "size" => {
                let is_share = value.strip_suffix('%').is_some_and(|share| share.parse::<u8>().is_ok());
                if !is_share {
                    options.push(format!("size={}", crate::support::units::parse_size(value)?));
                    continue;
                }
            }
            "mode" if !value.is_empty() && value.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) => {}
            "nr_inodes" | "nr_blocks" | "uid" | "gid" if value.parse::<u32>().is_ok() => {}
            // podman's word for what is so in any case.
            "notmpcopyup" if value.is_empty() => continue,
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
            ("/a:/b:U,O", VolumeSource::Host("/a".into()), "/b", "rbind,rprivate"),
            ("/a:/b:idmap", VolumeSource::Host("/a".into()), "/b", "rbind,rprivate,idmap"),
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
            ("/a:/b:idmap=x", "\"idmap=x\": not idmap=uids=INSIDE-OUTSIDE-COUNT;gids=…"),
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
