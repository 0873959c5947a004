//! `push`: an image of the store to a registry, byte for byte as a registry gave it, else with its layers packed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::engine::engine::Engine;
use crate::engine::events;
use crate::error::{Context, Error, Result};
use crate::image::digest::{Algorithm, Digest};
use crate::image::limits;
use crate::image::manifest;
use crate::image::reference::{Reference, Repository};
use crate::image::registry::client::Client;
use crate::image::registry::push::Uploaded;
use crate::storage::images::Descriptor;
use crate::storage::store::Store;

use super::find;
use super::remote::{Remote, RemoteOptions};
use super::repack::{Packing, Plans};

/// Blobs that are sent at once.
const PARALLEL: usize = 4;

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest, as the registry has it now.
    pub digest: Digest,
    pub size: u64,
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub digest: Digest,
    pub size: u64,
    pub uploaded: Uploaded,
}

/// Sends the image that `word` means to `destination`.
pub fn push(
    engine: &Engine,
    word: &str,
    destination: &Reference,
    packing: Packing,
    options: &RemoteOptions,
    report: &(dyn Fn(Progress) + Sync),
) -> Result<Pushed> {
    let push = || -> Result<Pushed> {
        let store = engine.store()?;
        let _held = store.hold()?;
        let found = find::find_own(engine, &store, word)?;
        let document = found.image.manifest()?;
        let bytes = store.read_document(&document.digest, limits::MANIFEST_BYTES)?;
        let parsed = manifest::parse_manifest(&bytes)?;
        let plans = Plans::new(&store, &found.image, &document.digest, &parsed, packing)?;
        let remote = Remote::load(&engine.settings, options)?;
        let (endpoint, client) = remote.destination(destination)?;
        // Where it came from it can be mounted from, if that is the same registry.
        let from = found.name.as_ref().and_then(|name| Reference::parse(&name.name).ok());
        let way = Way {
            client: &client,
            repository: &endpoint.repository,
            from: from.as_ref().map(Reference::repository),
            report,
        };
        if plans.change_nothing() {
            check_digest(destination, &document.digest)?;
            push_image(&store, &way, destination, document)?;
            return Ok(Pushed { digest: document.digest, size: document.size });
        }
        let sent = way.push_packed(&plans, parsed.layers.len())?;
        let (config, size) = store.open_whole_blob(&parsed.config.digest, parsed.config.size)?;
        way.push_blob(&parsed.config.digest, size, &config)?;
        let (media_type, bytes) = plans.manifest(&bytes, &sent)?;
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        check_digest(destination, &digest)?;
        client.push_manifest(&endpoint.repository, &destination.selector(), &media_type, &bytes)?;
        Ok(Pushed { digest, size: bytes.len() as u64 })
    };
    let pushed = push().with_context(|| format!("push {destination}"))?;
    events::image(engine, &pushed.digest.to_string(), "push", &destination.familiar());
    Ok(pushed)
}

fn check_digest(destination: &Reference, digest: &Digest) -> Result<()> {
    match destination.digest() {
        Some(wanted) if wanted != digest => Err(Error::invalid(format!("the image's digest is {digest}"))),
        _ => Ok(()),
    }
}

/// Where blobs go, and from where else they can be had.
pub(super) struct Way<'a> {
    pub(super) client: &'a Client,
    pub(super) repository: &'a Repository,
    pub(super) from: Option<&'a Repository>,
    pub(super) report: &'a (dyn Fn(Progress) + Sync),
}

impl Way<'_> {
    fn push_blob(&self, digest: &Digest, size: u64, file: &File) -> Result<()> {
        let open = |position: u64| -> Result<Box<dyn Read>> {
            Ok(Box::new(FromPosition { file: file.try_clone()?, position }))
        };
        let uploaded = self.client.push_blob(self.repository, digest, size, self.from, &open)?;
        (self.report)(Progress { digest: *digest, size, uploaded });
        Ok(())
    }

    /// Packs layers and sends them; gives what the manifest is to say of them.
    fn push_packed(&self, plans: &Plans<'_>, count: usize) -> Result<Vec<(Digest, u64, bool)>> {
        let places: Vec<_> = (0..count).collect();
        let sent = Mutex::new(vec![None; count]);
        in_parallel(&places, |&place| {
            let layer = plans.layer(place)?;
            self.push_blob(&layer.digest, layer.size, &layer.file)?;
            sent.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(layer.described());
            Ok(())
        })?;
        let sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(sent.into_iter().flatten().collect())
    }
}

/// Reads a file from a position on, wherever others who read it are.
struct FromPosition {
    file: File,
    position: u64,
}

impl Read for FromPosition {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

/// Sends what a manifest of the store names, and then the manifest.
pub(super) fn push_image(store: &Store, way: &Way<'_>, destination: &Reference, document: &Descriptor) -> Result<()> {
    let bytes = store.read_document(&document.digest, limits::MANIFEST_BYTES)?;
    let parsed = manifest::parse_manifest(&bytes)?;
    let mut blobs: Vec<_> = parsed.layers.iter().map(|(layer, _)| (layer.digest, layer.size)).collect();
    blobs.push((parsed.config.digest, parsed.config.size));
    let mut seen = std::collections::HashSet::new();
    blobs.retain(|(digest, _)| seen.insert(*digest));
    in_parallel(&blobs, |&(digest, size)| {
        let (file, size) = store.open_whole_blob(&digest, size)?;
        way.push_blob(&digest, size, &file)
    })?;
    way.client.push_manifest(way.repository, &destination.selector(), &document.media_type, &bytes)
}

/// Does a piece of work for each, several at once; the first failure ends it when those that were begun are done.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(item) {
                next.store(items.len(), Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..items.len().min(PARALLEL) {
            let _ = std::thread::Builder::new().name("push".to_owned()).spawn_scoped(scope, run);
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
