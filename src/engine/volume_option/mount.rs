//! The grammar of `--mount type=TYPE,KEY=VALUE,…`: docker's keys, and podman's names for them.

use std::path::PathBuf;
use std::str::FromStr;

use super::{ATTRIBUTES, PROPAGATIONS, Reach, Tmpfs, Volume, VolumeSource, clean_destination, is_volume_name};
use crate::error::{Context, Error, Result};
use crate::support::{csv, units};

/// One `--mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountRequest {
    Volume(Box<Volume>),
    Tmpfs(Tmpfs),
}

impl FromStr for MountRequest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).with_context(|| format!("mount {text:?}"))
    }
}

fn parse(text: &str) -> Result<MountRequest> {
    let fields = csv::split(text)?;
    let mut kind = "volume";
    let mut keys = Vec::new();
    for field in &fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        match (key.to_ascii_lowercase().as_str(), value) {
            ("type", Some(value)) => kind = value,
            ("type", None) => return Err(Error::invalid("type needs a value")),
            (key, value) => keys.push(Key { name: key.to_owned(), value }),
        }
    }
    match kind.to_ascii_lowercase().as_str() {
        "bind" => volume(&keys, Kind::Bind),
        "volume" => volume(&keys, Kind::Volume),
        "image" => volume(&keys, Kind::Image),
        "tmpfs" => tmpfs(&keys),
        "npipe" | "cluster" | "glob" | "artifact" | "devpts" | "ramfs" => {
            Err(Error::unsupported(format!("type {kind:?} is not supported")))
        }
        _ => Err(Error::invalid(format!("unknown type {kind:?}"))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bind,
    Volume,
    Image,
}

struct Key<'a> {
    name: String,
    value: Option<&'a str>,
}

impl<'a> Key<'a> {
    fn value(&self) -> Result<&'a str> {
        let value = self.value.filter(|value| !value.is_empty());
        value.ok_or_else(|| Error::invalid(format!("{} needs a value", self.name)))
    }

    /// A switch: alone, or with a boolean.
    fn switch(&self) -> Result<bool> {
        match self.value {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(value) => Err(Error::invalid(format!("{}={value}: neither true nor false", self.name))),
        }
    }

    fn unknown(&self) -> Error {
        Error::invalid(format!("unknown key {:?} for this type", self.name))
    }

    fn pair(&self) -> Result<(String, String)> {
        crate::engine::options::parse_pair(self.value()?)
    }
}

fn volume(keys: &[Key<'_>], kind: Kind) -> Result<MountRequest> {
    let mut volume = Volume { is_read_only: kind == Kind::Image, ..Volume::default() };
    let mut source = None;
    let mut wants_private_source = false;
    for key in keys {
        match (key.name.as_str(), kind) {
            ("source" | "src", _) => source = Some(key.value()?),
            ("target" | "dst" | "destination", _) => volume.destination = clean_destination(key.value()?)?,
            ("readonly" | "ro", _) => volume.is_read_only = key.switch()?,
            ("rw" | "readwrite", _) => volume.is_read_only = !key.switch()?,
            // Of Docker Desktop, and of SELinux.
            ("consistency", _) | ("relabel", Kind::Bind | Kind::Volume) => drop(key.value()?),
            ("u" | "chown", Kind::Bind | Kind::Volume) => volume.is_given = key.switch()?,
            ("idmap", Kind::Bind | Kind::Volume) => {
                let option = key.value.map_or_else(|| "idmap".to_owned(), |maps| format!("idmap={maps}"));
                volume.set_idmap(&option)?;
            }
            ("bind-propagation", Kind::Bind) => {
                let word = key.value()?;
                let known = PROPAGATIONS.into_iter().find(|known| known.as_str() == word);
                volume.propagation = known.ok_or_else(|| Error::invalid(format!("unknown propagation {word:?}")))?;
            }
            ("bind-nonrecursive", Kind::Bind) => volume.is_single = key.switch()?,
            ("bind-recursive", Kind::Bind) => match key.value()? {
                "enabled" | "true" | "1" => volume.is_single = false,
                "disabled" | "false" | "0" => volume.is_single = true,
                "writable" => volume.reach = Reach::Top,
                "readonly" => {
                    volume.reach = Reach::All;
                    wants_private_source = true;
                }
                word => return Err(Error::invalid(format!("bind-recursive={word}: unknown"))),
            },
            ("bind-create-src", Kind::Bind) => volume.makes_source = key.switch()?,
            ("no-dereference", Kind::Bind) => return Err(Error::unsupported("no-dereference is not supported")),
            ("volume-nocopy" | "nocopy", Kind::Volume) => volume.stays_empty = key.switch()?,
            ("volume-subpath" | "subpath", Kind::Volume)
            | ("image-subpath" | "subpath", Kind::Image)
            | ("subpath", Kind::Bind) => volume.subpath = Some(clean_subpath(key.value()?)?),
            ("volume-label", Kind::Volume) => volume.labels.extend([key.pair()?]),
            ("volume-opt", Kind::Volume) => volume.driver_options.extend([key.pair()?]),
            ("volume-driver", Kind::Volume) => {
                if key.value()? != "local" {
                    return Err(Error::unsupported(format!("volume-driver {}: only local is supported", key.value()?)));
                }
            }
            (word, Kind::Bind | Kind::Volume) if key.value.is_none() && ATTRIBUTES.contains(&word) => {
                volume.attributes.push(word.to_owned());
            }
            _ => return Err(key.unknown()),
        }
    }
    volume.source = match (kind, source) {
        (Kind::Bind, Some(path)) => VolumeSource::Host(PathBuf::from(path)),
        (Kind::Image, Some(image)) => VolumeSource::Image(image.to_owned()),
        (Kind::Volume, None) => VolumeSource::Anonymous,
        (Kind::Volume, Some(name)) if is_volume_name(name) => VolumeSource::Named(name.to_owned()),
        (Kind::Volume, Some(name)) => {
            return Err(Error::invalid(format!("{name:?} is not the name of a volume"))
                .with_hint("type=bind mounts a path of the host"));
        }
        (Kind::Bind | Kind::Image, None) => return Err(Error::invalid("source is missing")),
    };
    if volume.destination.is_empty() {
        return Err(Error::invalid("target is missing"));
    }
    if volume.reach != Reach::Possible && !volume.is_read_only {
        return Err(Error::invalid("bind-recursive=writable and =readonly are for a mount that is readonly"));
    }
    if wants_private_source && volume.propagation != super::Propagation::RecursivePrivate {
        return Err(Error::invalid("bind-recursive=readonly goes with bind-propagation=rprivate"));
    }
    Ok(MountRequest::Volume(Box::new(volume)))
}

fn tmpfs(keys: &[Key<'_>]) -> Result<MountRequest> {
    let mut destination = None;
    let mut options = Vec::new();
    for key in keys {
        match key.name.as_str() {
            "target" | "dst" | "destination" => destination = Some(key.value()?),
            "source" | "src" => return Err(Error::invalid("a tmpfs has no source")),
            "readonly" | "ro" => options.extend(key.switch()?.then(|| "ro".to_owned())),
            "rw" | "readwrite" => options.extend((!key.switch()?).then(|| "ro".to_owned())),
            "consistency" => drop(key.value()?),
            "tmpfs-size" => options.push(format!("size={}", units::parse_size(key.value()?)?)),
            "tmpfs-mode" => options.push(format!("mode={}", key.value()?)),
            "tmpcopyup" | "notmpcopyup" | "noswap" if key.value.is_none() => options.push(key.name.clone()),
            word if key.value.is_none() && ATTRIBUTES.contains(&word) => options.push(word.to_owned()),
            _ => return Err(key.unknown()),
        }
    }
    let destination = destination.ok_or_else(|| Error::invalid("target is missing"))?;
    super::parse_tmpfs(&format!("{destination}:{}", options.join(","))).map(MountRequest::Tmpfs)
}

/// A path below the root of a volume or an image; resolved there by descriptor.
fn clean_subpath(text: &str) -> Result<String> {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if text.starts_with('/') || parts.contains(&"..") || parts.is_empty() || text.contains('\0') {
        return Err(Error::invalid(format!("subpath {text:?} does not lead down from the source")));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume_of(text: &str) -> Volume {
        match text.parse() {
            Ok(MountRequest::Volume(volume)) => *volume,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn keys_say_what_v_says() {
        for (mount, volume) in [
            ("type=bind,source=/a,target=/b", "/a:/b"),
            ("type=bind,src=/a,dst=/b,readonly", "/a:/b:ro"),
            ("type=bind,src=/a,destination=/b,ro=true,bind-propagation=rslave", "/a:/b:ro,rslave"),
            ("type=bind,src=/a,dst=/b,bind-nonrecursive,noexec", "/a:/b:bind,noexec"),
            ("type=bind,src=/a,dst=/b,consistency=cached,U=true,relabel=shared", "/a:/b:U"),
            ("type=bind,src=/a,dst=/b,idmap", "/a:/b:idmap"),
            ("source=data,target=/b,volume-nocopy", "data:/b:nocopy"),
            ("type=volume,target=/b", "/b"),
        ] {
            assert_eq!(volume_of(mount), volume.parse().unwrap(), "{mount}");
        }
        let volume = volume_of("type=bind,\"source=/a,b\",target=/c,ro,bind-recursive=writable");
        assert_eq!((volume.source, volume.reach), (VolumeSource::Host("/a,b".into()), Reach::Top));
        let volume = volume_of("source=v1,dst=/c,volume-subpath=x//y,volume-label=a=b,volume-opt=type=nfs");
        assert_eq!((volume.subpath.as_deref(), volume.labels["a"].as_str()), (Some("x/y"), "b"));
        assert_eq!(volume.driver_options["type"], "nfs");
        let image = volume_of("type=image,source=alpine,target=/x,image-subpath=etc");
        assert_eq!((image.source, image.is_read_only), (VolumeSource::Image("alpine".into()), true));
        assert!(!volume_of("type=image,source=alpine,target=/x,rw=true").is_read_only);
    }

    #[test]
    fn tmpfs_has_a_size_and_a_mode() {
        let mount = "type=tmpfs,target=/run,tmpfs-size=64m,tmpfs-mode=1770,exec".parse().unwrap();
        let MountRequest::Tmpfs(tmpfs) = mount else { panic!() };
        assert_eq!(
            (tmpfs.destination.as_str(), tmpfs.options.join(",")),
            ("/run", "exec,nosuid,nodev,size=67108864,mode=1770".to_owned())
        );
    }

    #[test]
    fn what_means_nothing_is_named() {
        for (text, cause) in [
            ("type=bind,target=/b", "source is missing"),
            ("type=bind,source=/a", "target is missing"),
            ("type=tmpfs", "target is missing"),
            ("type=tmpfs,source=/a,target=/b", "a tmpfs has no source"),
            ("type=volume,source=/a,target=/b", "\"/a\" is not the name of a volume"),
            ("type=bind,source=/a,target=/b,volume-nocopy", "unknown key \"volume-nocopy\" for this type"),
            ("type=bind,source=/a,target=/b,readonly=yes", "readonly=yes: neither true nor false"),
            (
                "type=bind,source=/a,target=/b,bind-recursive=readonly",
                "bind-recursive=writable and =readonly are for a mount that is readonly",
            ),
            (
                "type=bind,source=/a,target=/b,ro,bind-recursive=readonly,bind-propagation=shared",
                "bind-recursive=readonly goes with bind-propagation=rprivate",
            ),
            ("type=npipe,source=/a,target=/b", "type \"npipe\" is not supported"),
            ("type=magic,target=/b", "unknown type \"magic\""),
            (
                "type=volume,source=vv,target=/b,volume-subpath=../x",
                "subpath \"../x\" does not lead down from the source",
            ),
            ("type=volume,target=b", "destination \"b\" is not an absolute path"),
            ("type", "type needs a value"),
        ] {
            let error = text.parse::<MountRequest>().unwrap_err();
            assert_eq!(error.report(), format!("mount {text:?}: {cause}"));
        }
    }
}
