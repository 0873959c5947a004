//! `push`: an image of the store to a registry, byte for byte as it is stored.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::engine::engine::Engine;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::limits;
use crate::image::manifest;
use crate::image::reference::{Reference, Repository};
use crate::image::registry::client::Client;
use crate::image::registry::push::Uploaded;
use crate::storage::images::Descriptor;
use crate::storage::store::Store;

use super::find;
use super::remote::{Remote, RemoteOptions};

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
    options: &RemoteOptions,
    report: &(dyn Fn(Progress) + Sync),
) -> Result<Pushed> {
    let push = || {
        let store = engine.store()?;
        let _held = store.hold()?;
        let found = find::find_in(&store, word)?.ok_or_else(|| find::unknown(word))?;
        let document = found.image.manifest()?;
        if let Some(digest) = destination.digest()
            && *digest != document.digest
        {
            return Err(Error::invalid(format!("the image's digest is {}", document.digest)));
        }
        let remote = Remote::load(&engine.settings, options)?;
        let (endpoint, client) = remote.destination(destination)?;
        // Where it came from it can be mounted from, if that is the same registry.
        let from = found.name.as_ref().and_then(|name| Reference::parse(&name.name).ok());
        let from = from.as_ref().map(Reference::repository);
        push_image(&store, &client, &endpoint.repository, destination, document, from, report)?;
        Ok(Pushed { digest: document.digest, size: document.size })
    };
    push().with_context(|| format!("push {destination}"))
}

/// Sends what a manifest of the store names, and then the manifest.
pub(super) fn push_image(
    store: &Store,
    client: &Client,
    repository: &Repository,
    destination: &Reference,
    document: &Descriptor,
    from: Option<&Repository>,
    report: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    let bytes = store.read_document(&document.digest, limits::MANIFEST_BYTES)?;
    let parsed = manifest::parse_manifest(&bytes)?;
    let mut blobs: Vec<_> = parsed.layers.iter().map(|(layer, _)| (layer.digest, layer.size)).collect();
    blobs.push((parsed.config.digest, parsed.config.size));
    let mut seen = std::collections::HashSet::new();
    blobs.retain(|(digest, _)| seen.insert(*digest));
    let push_one = |&(digest, size): &(Digest, u64)| -> Result<()> {
        let (file, found) = store
            .open_blob(&digest)?
            .ok_or_else(|| Error::new(Kind::NotFound, format!("blob {digest} is not in the store")))?;
        if found != size {
            return Err(Error::invalid(format!("blob {digest}: {found} bytes where {size} were stated"))
                .with_hint("`husk system check --repair` mends the store"));
        }
        let open = |position: u64| -> Result<Box<dyn Read>> {
            let mut file: File = file.try_clone()?;
            file.seek(SeekFrom::Start(position))?;
            Ok(Box::new(file))
        };
        let uploaded = client.push_blob(repository, &digest, size, from, &open)?;
        report(Progress { digest, size, uploaded });
        Ok(())
    };
    in_parallel(&blobs, push_one)?;
    client.push_manifest(repository, &destination.selector(), &document.media_type, &bytes)
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
