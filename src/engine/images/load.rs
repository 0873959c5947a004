//! `load`, and `pull` from files: images that lie on this machine come into the store, byte for byte.
//!
//! Blobs are kept as they are packed; a docker archive has no manifest, and gets one. Names are read as the tool that wrote
//! them means them: docker's lack `docker.io/`, podman's in an OCI archive are names of this machine.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::engine::engine::Engine;
use crate::engine::events;
use crate::engine::record::now;
use crate::error::{Context, Error, Result};
use crate::image::collection::{Collection, Described, Member};
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor as Layer;
use crate::image::platform::Platform;
use crate::image::policy::{Policy, Subject};
use crate::image::reference::{Reference, is_registry};
use crate::image::resolve::LayerReader;
use crate::image::source::{Format, Local};
use crate::storage::images::{Descriptor, FORMAT, ImageRecord, NameRecord};
use crate::storage::store::Store;
use crate::support::caller::Caller;

use super::keep::{self, Origin};
use super::pull::{Progress, Report};

/// What was brought here.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub image: ImageRecord,
    /// None for an image without a name.
    pub names: Vec<Reference>,
}

/// Opens what `load` reads: a file, a pipe or a directory.
pub fn open_input(path: &Path) -> Result<File> {
    let open = || -> Result<File> {
        let file =
            File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?);
        check_input(&file)?;
        Ok(file)
    };
    open().with_context(|| format!("open {}", path.display()))
}

/// A device may never end, and nobody types an archive.
pub fn check_input(file: &File) -> Result<()> {
    match FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) {
        FileType::RegularFile | FileType::Fifo | FileType::Socket => Ok(()),
        _ => Err(Error::invalid("neither a file nor a pipe")),
    }
}

/// What is loaded.
pub enum Input {
    Archive(File),
    /// A directory: an OCI layout.
    Layout,
}

/// Brings all images of an archive or a layout here; `loaded` is told each when it is in place. `path` is where it lies.
pub fn load(
    engine: &Engine,
    input: Input,
    path: &Path,
    platform: &Platform,
    report: Report<'_>,
    loaded: &mut dyn FnMut(&Loaded) -> Result<()>,
) -> Result<()> {
    let store = engine.store()?;
    let _held = store.hold()?;
    let collection = match input {
        Input::Archive(file) => Collection::open_archive(file, &|| store.scratch_file())?,
        Input::Layout => Collection::open(Format::OciLayout, path, &|| store.scratch_file())?,
    };
    let naming = Naming::of(&collection);
    let policy = Policy::load(&Caller::current())?;
    collection.for_each(platform, |member| {
        check(&policy, collection.format(), path, &digests(&member))?;
        let names = member.names.iter().map(|name| naming.read(name)).collect::<Result<Vec<_>>>()?;
        loaded(&keep_member(engine, &store, member, names, report)?)
    })
}

/// Brings one image of a layout or an archive here.
pub fn pull_local(engine: &Engine, local: &Local, platform: &Platform, report: Report<'_>) -> Result<Loaded> {
    let place = || format!("{}:{}", local.format.scheme(), local.path.display());
    report(Progress::Asking { reference: place() });
    let store = engine.store()?;
    let _held = store.hold()?;
    let collection = Collection::open(local.format, &local.path, &|| store.scratch_file())?;
    let pull = || {
        let member = collection.select(&local.selector, platform)?;
        check(&Policy::load(&Caller::current())?, local.format, &local.path, &digests(&member))?;
        let naming = Naming::of(&collection);
        let names = member.names.iter().map(|name| naming.read(name)).collect::<Result<Vec<_>>>()?;
        keep_member(engine, &store, member, names, report)
    };
    pull().with_context(place)
}

/// How names in an archive are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// What has no registry is docker.io's.
    Docker,
    /// What has no registry was named here.
    Local,
}

impl Naming {
    fn of(collection: &Collection) -> Self {
        match collection.format() {
            Format::DockerArchive => Self::Docker,
            Format::OciLayout | Format::OciArchive => Self::Local,
        }
    }

    fn read(self, name: &str) -> Result<Reference> {
        let has_registry = name.split_once('/').is_some_and(|(first, _)| is_registry(first));
        match self {
            Self::Local if !has_registry => Reference::parse(&format!("localhost/{name}")),
            _ => Reference::parse(name),
        }
    }
}

fn digests(member: &Member) -> Vec<Digest> {
    member.documents.iter().map(|document| document.digest).collect()
}

/// Asks the machine's policy. Files hold no signatures.
pub(in crate::engine) fn check(policy: &Policy, format: Format, path: &Path, digests: &[Digest]) -> Result<()> {
    let path = std::path::absolute(path)?;
    policy.check(&Subject::Local { transport: format.scheme(), path: &path }, digests, &|_| Ok(Vec::new()))
}

fn keep_member(
    engine: &Engine,
    store: &Store,
    member: Member,
    names: Vec<Reference>,
    report: Report<'_>,
) -> Result<Loaded> {
    let Member { image, documents, manifest, layers, .. } = member;
    let (Some(target), Some(document)) = (documents.first(), documents.last()) else {
        return Err(Error::invalid("an image without a manifest"));
    };
    let blobs = store.blobs()?;
    for document in &documents {
        blobs.put_document(&document.digest, &document.bytes)?;
    }
    blobs.put_document(&manifest.config.digest, &image.config_json)?;
    keep::keep_layers(engine, store, &image, &manifest, &LocalLayers(&*layers), report)?;
    let record = keep::image_record(store, &image, descriptor(document), &manifest)?;
    let changing = store.change()?;
    store.put_image(&changing, record.clone())?;
    for reference in &names {
        let (target, image) = (descriptor(target), Some(record.id));
        let record = NameRecord { format: FORMAT, name: reference.to_string(), target, image, since: now() };
        store.put_name(&changing, reference, &record)?;
    }
    let name = names.first().map(Reference::familiar).unwrap_or_default();
    events::image(engine, &record.id.to_string(), "load", &name);
    report(Progress::Finished);
    Ok(Loaded { image: record, names })
}

fn descriptor(document: &Described) -> Descriptor {
    let size = document.bytes.len() as u64;
    Descriptor { media_type: document.media_type.clone(), digest: document.digest, size }
}

/// Layers in files: there is nothing to go on with, but what is at hand needn't be written again.
struct LocalLayers<'a>(&'a dyn LayerReader);

impl Origin for LocalLayers<'_> {
    fn open_at(&self, index: usize, _layer: &Layer, position: u64) -> Result<Box<dyn Read + Send + '_>> {
        let mut reader = self.0.open_layer(index)?;
        let skipped = io::copy(&mut (&mut reader).take(position), &mut io::sink())?;
        if skipped == position { Ok(reader) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) }
    }

    fn parallel(&self) -> usize {
        self.0.parallel()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_their_writer_meant() {
        for (naming, name, full) in [
            (Naming::Docker, "app:1", "docker.io/library/app:1"),
            (Naming::Docker, "me/app", "docker.io/me/app:latest"),
            (Naming::Docker, "localhost/app:1", "localhost/app:1"),
            (Naming::Local, "app:1", "localhost/app:1"),
            (Naming::Local, "latest", "localhost/latest:latest"),
            (Naming::Local, "me/app", "localhost/me/app:latest"),
            (Naming::Local, "quay.io/me/app:2", "quay.io/me/app:2"),
        ] {
            assert_eq!(naming.read(name).unwrap().to_string(), full, "{name}");
        }
    }
}
