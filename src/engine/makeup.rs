//! What the root file system of a container is made of, as the configuration says by which it is started: an overlay, or a
//! directory. Mounts nothing, and looks into neither.

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::engine::Engine;
use super::files::open_below;
use super::options::SecretRequest;
use super::record::{Container, Record};
use crate::error::{Context, Error, Kind, Result};
use crate::image::source::Source;
use crate::rootfs::overlay;
use crate::rootfs::plan::{MountPlan, MountSource};
use crate::rootfs::secrets::DIRECTORY;
use crate::support::atomic;

/// Most that is read of a configuration.
const CONFIG_BYTES: usize = 16 << 20;

/// What `config.json` says of a container's files.
pub struct Makeup {
    pub base: Base,
    /// Further overlays in it, of a container of the host's own files.
    pub parts: Vec<(PathBuf, Overlay)>,
    /// It has the host's files (`host:`).
    pub is_host: bool,
    pub is_readonly: bool,
    /// Where something is mounted in it, from the root without a slash before. What is missing there is made at a start.
    pub mount_points: Vec<Vec<u8>>,
    /// Of its process, `NAME=value` each.
    pub environment: Vec<String>,
}

/// What is on `/`.
pub enum Base {
    Overlay(Overlay),
    /// Of the container alone.
    Directory(PathBuf),
}

/// An overlay of a container.
pub struct Overlay {
    /// The highest first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    /// What fsconfig(2) is given for it.
    pub data: Vec<(CString, Option<CString>)>,
}

impl Makeup {
    /// Reads what a container is made of.
    pub fn read(engine: &Engine, container: &Container, record: &Record) -> Result<Self> {
        let read = || {
            let bundle = open_below(container.directory(), "bundle")?;
            let bytes = atomic::read(bundle.as_fd(), "config.json", CONFIG_BYTES)?;
            let bytes = bytes.ok_or_else(|| Error::new(Kind::NotFound, "bundle/config.json is missing"))?;
            let spec: Spec = serde_json::from_slice(&bytes).context("config.json")?;
            let folder = engine.settings.data_root.join("containers").join(container.id().as_str());
            let mut makeup = Self::of(&spec, &folder, matches!(Source::parse(&record.image), Ok(Source::Host)))?;
            // They are mounted and in no configuration.
            let secrets = record.options.secrets.iter().filter_map(SecretRequest::destination);
            let places = secrets.chain((!record.options.secrets.is_empty()).then(|| PathBuf::from(DIRECTORY)));
            makeup.mount_points.extend(places.map(|path| path.as_os_str().as_encoded_bytes()[1..].to_vec()));
            Ok::<_, Error>(makeup)
        };
        read().with_context(|| format!("container {}", container.id().short()))
    }

    fn of(spec: &Spec, folder: &Path, is_host: bool) -> Result<Self> {
        let bundle = folder.join("bundle");
        // Layers over volumes are no more the container's own files than the volumes are.
        let volumes = folder.join("volumes");
        let (mut base, mut parts, mut mount_points) = (None, Vec::new(), Vec::new());
        for mount in spec.mounts().iter().flatten() {
            let destination = mount.destination();
            mount_points
                .extend(destination.strip_prefix("/").ok().map(|path| path.as_os_str().as_encoded_bytes().into()));
            if mount.typ().as_deref() != Some("overlay") {
                continue;
            }
            let MountSource::New { data, .. } = MountPlan::new(mount, &bundle, None)?.source else { continue };
            match Overlay::of(data) {
                Some(overlay) if destination == Path::new("/") => base = Some(Base::Overlay(overlay)),
                Some(overlay) if overlay.upper.starts_with(folder) && !overlay.upper.starts_with(&volumes) => {
                    parts.push((destination.clone(), overlay));
                }
                _ => {}
            }
        }
        let root = spec.root().as_ref().ok_or_else(|| Error::invalid("config.json: root is missing"))?;
        let base = base.unwrap_or_else(|| Base::Directory(bundle.join(root.path())));
        let process = spec.process().as_ref();
        let environment = process.and_then(|process| process.env().clone()).unwrap_or_default();
        Ok(Self { base, parts, is_host, is_readonly: root.readonly().unwrap_or(false), mount_points, environment })
    }
}

impl Overlay {
    fn of(data: Vec<(CString, Option<CString>)>) -> Option<Self> {
        let directories = |wanted: &str| {
            let (_, value) = data.iter().find(|(key, _)| key.as_bytes() == wanted.as_bytes())?;
            let directories = overlay::split(value.as_ref()?.to_bytes());
            Some(directories.into_iter().map(|path| PathBuf::from(OsString::from_vec(path))).collect::<Vec<_>>())
        };
        let (lower, upper) = (directories("lowerdir")?, directories("upperdir")?.pop()?);
        Some(Self { lower, upper, data })
    }

    /// Gives the options by which the same is mounted to be read alone: the upper directory is one more lower one. No
    /// other mount of the upper directory is disturbed by that, and nothing is made in its work directory.
    pub fn read_only_data(&self) -> Result<Vec<(CString, Option<CString>)>> {
        let mut data = Vec::with_capacity(self.data.len());
        for (key, value) in &self.data {
            match (key.as_bytes(), value) {
                (b"upperdir" | b"workdir", _) => {}
                (b"lowerdir", Some(lower)) => {
                    let upper = self.upper.to_str().ok_or_else(|| Error::invalid("the data root's path is no text"))?;
                    let value = [overlay::escape(upper).as_bytes(), b":", lower.as_bytes()].concat();
                    data.push((key.clone(), Some(CString::new(value)?)));
                }
                _ => data.push((key.clone(), value.clone())),
            }
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn makeup(mounts: &str) -> Makeup {
        let text = format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"/d/c/root/rootfs"}},"mounts":[{mounts}]}}"#);
        Makeup::of(&serde_json::from_str(&text).unwrap(), Path::new("/d/c"), false).unwrap()
    }

    #[test]
    fn an_overlay_on_the_root_is_taken_apart() {
        let makeup = makeup(
            r#"{"destination":"/","type":"overlay","source":"overlay","options":
                ["lowerdir=/s/b\\:2:/s/a","upperdir=/d/c/root/upper","workdir=/d/c/root/work","userxattr"]},
               {"destination":"/proc","type":"proc","source":"proc"},
               {"destination":"/v","type":"overlay","options":["lowerdir=/x","upperdir=/y","workdir=/z"]},
               {"destination":"/etc","type":"overlay","options":["lowerdir=/etc","upperdir=/d/c/u","workdir=/d/c/w"]}"#,
        );
        let Base::Overlay(overlay) = &makeup.base else { panic!("no overlay") };
        assert_eq!(overlay.lower, [Path::new("/s/b:2"), Path::new("/s/a")]);
        assert_eq!(overlay.upper, Path::new("/d/c/root/upper"));
        let words = |data: &[(CString, Option<CString>)]| -> Vec<String> {
            let word = |text: &CString| text.to_str().unwrap().to_owned();
            data.iter()
                .map(|(key, value)| format!("{} {}", word(key), value.as_ref().map_or(String::new(), word)))
                .collect()
        };
        assert_eq!(words(&overlay.read_only_data().unwrap()), ["lowerdir /d/c/root/upper:/s/b\\:2:/s/a", "userxattr "]);
        assert_eq!(makeup.parts.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>(), [Path::new("/etc")]);
        assert_eq!(makeup.mount_points, [&b""[..], b"proc", b"v", b"etc"]);
    }

    #[test]
    fn without_one_it_is_a_directory() {
        assert!(matches!(makeup("").base, Base::Directory(path) if path == Path::new("/d/c/root/rootfs")));
    }
}
