//! The store's side of bringing an image here: its layers are kept, packed and unpacked, in one pass over their bytes.
//!
//! Where the bytes come from is an [`Origin`]: a registry, or files on this machine. A blob is in place once it is proved,
//! and a part of one that an earlier command left is gone on with. Names and policies are the callers' affair.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::engine::engine::Engine;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::{Digest, Verifier};
use crate::image::manifest::{Descriptor as Layer, Manifest};
use crate::image::resolve::{Image, LayerReader};
use crate::image::unpack::without_rights;
use crate::storage::blobs::{Begun, Blobs, Partial};
use crate::storage::images::{Descriptor, FORMAT, ImageRecord, LayerRecord};
use crate::storage::store::{Event, Store};

use super::pull::{Progress, Report};

/// Where packed layers come from.
pub(super) trait Origin: Sync {
    /// Opens a layer's bytes from a position on. They are not verified yet.
    fn open_at(&self, index: usize, layer: &Layer, position: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// Says how many layers are best read at once.
    fn parallel(&self) -> usize;
}

/// Fetches and unpacks what is missing. A part of a blob that was left by an earlier pull may prove wrong in the end: then
/// it is fetched from its first byte, once.
pub(super) fn keep_layers(
    engine: &Engine,
    store: &Store,
    image: &Image,
    parsed: &Manifest,
    origin: &dyn Origin,
    report: Report<'_>,
) -> Result<()> {
    let sizes = parsed.layers.iter().map(|(layer, _)| (layer.digest, layer.size)).collect();
    report(Progress::Chosen { layers: sizes });
    let is_complete = || -> Result<bool> {
        for (layer, _) in &parsed.layers {
            if !store.has_blob(&layer.digest, layer.size)? {
                return Ok(false);
            }
        }
        Ok(store.find_layers(image)?.is_some())
    };
    if is_complete()? {
        return Ok(());
    }
    engine.with_file_rights(|| {
        let blobs = store.blobs()?;
        let layers = Keeping::new(origin, store, &blobs, parsed, report);
        let events = |event: Event| {
            if let Event::Waiting { diff_id } = event {
                report(Progress::Waiting { digest: diff_id });
            }
        };
        let fetch = || -> Result<()> {
            store.ensure_layers(image, &layers, &events)?;
            layers.fetch_rest()
        };
        match fetch() {
            Err(_) if layers.had_a_wrong_part.load(Ordering::Relaxed) => fetch(),
            answer => answer,
        }
    })?;
    // What is recorded is complete, after a power cut as well: one call for all files, where it is wanted.
    if engine.settings.sync_images { store.sync() } else { Ok(()) }
}

/// The layers of an image: each is kept as a blob while it is read.
struct Keeping<'a> {
    origin: &'a dyn Origin,
    store: &'a Store,
    blobs: &'a Blobs,
    manifest: &'a Manifest,
    report: Report<'a>,
    /// What is being fetched, by its place in the manifest.
    partials: Vec<Mutex<Option<(Partial<'a>, u64)>>>,
    had_a_wrong_part: AtomicBool,
}

impl<'a> Keeping<'a> {
    fn new(
        origin: &'a dyn Origin,
        store: &'a Store,
        blobs: &'a Blobs,
        manifest: &'a Manifest,
        report: Report<'a>,
    ) -> Self {
        let partials = manifest.layers.iter().map(|_| Mutex::new(None)).collect();
        Self { origin, store, blobs, manifest, report, partials, had_a_wrong_part: AtomicBool::new(false) }
    }

    /// Fetches blobs whose layers were there already, from another image or packed in another way.
    fn fetch_rest(&self) -> Result<()> {
        for (index, (layer, _)) in self.manifest.layers.iter().enumerate() {
            if self.store.has_blob(&layer.digest, layer.size)? {
                continue;
            }
            let fetch = || {
                let mut verifier = Verifier::new(self.open_layer(index)?, layer.expected());
                without_rights(|| {
                    io::copy(&mut verifier, &mut io::sink())?;
                    verifier.finish()
                })
            };
            let fetched = fetch();
            let closed = self.close_layer(index, fetched.is_ok());
            fetched.and(closed).with_context(|| format!("blob {}", layer.digest))?;
        }
        Ok(())
    }

    fn slot(&self, index: usize) -> std::sync::MutexGuard<'_, Option<(Partial<'a>, u64)>> {
        self.partials[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LayerReader for Keeping<'_> {
    fn open_layer(&self, index: usize) -> Result<Box<dyn Read + Send + '_>> {
        let layer = &self.manifest.layers[index].0;
        let digest = layer.digest;
        let waiting = || (self.report)(Progress::Waiting { digest });
        match self.blobs.begin(self.store, &digest, layer.size, waiting)? {
            Begun::Present => match self.store.open_blob(&digest)? {
                Some((file, _)) => Ok(Box::new(file)),
                None => Err(Error::new(Kind::Other, format!("blob {digest} vanished from the store"))),
            },
            Begun::Ours(partial) => {
                let at_hand = partial.length();
                if at_hand > 0 {
                    (self.report)(Progress::Fetched { digest, bytes: at_hand });
                }
                let inner = self.origin.open_at(index, layer, at_hand)?;
                let reader = partial
                    .reader(|_| Box::new(Counted { inner, digest, report: self.report, untold: AtomicU64::new(0) }));
                *self.slot(index) = Some((partial, at_hand));
                Ok(Box::new(reader))
            }
        }
    }

    fn parallel(&self) -> usize {
        self.origin.parallel()
    }

    fn close_layer(&self, index: usize, is_proved: bool) -> Result<()> {
        let digest = self.manifest.layers[index].0.digest;
        match self.slot(index).take() {
            Some((partial, _)) if is_proved => partial.publish()?,
            Some((partial, at_hand)) if partial.is_whole() => {
                self.had_a_wrong_part.fetch_or(at_hand > 0, Ordering::Relaxed);
                partial.discard();
            }
            _ => {}
        }
        if is_proved {
            (self.report)(Progress::Done { digest });
        }
        Ok(())
    }
}

/// Tells how far a blob has come, not more often than is worth a line on a terminal.
struct Counted<'a, R> {
    inner: R,
    digest: Digest,
    report: Report<'a>,
    untold: AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const STEP: u64 = 256 << 10;
        let length = self.inner.read(buffer)?;
        let untold = self.untold.get_mut();
        *untold += length as u64;
        if *untold >= STEP || length == 0 && *untold > 0 {
            (self.report)(Progress::Fetched { digest: self.digest, bytes: std::mem::take(untold) });
        }
        Ok(length)
    }
}

/// Describes an image whose layers are in place.
pub(super) fn image_record(
    store: &Store,
    image: &Image,
    manifest: Descriptor,
    parsed: &Manifest,
) -> Result<ImageRecord> {
    let mut size = 0_u64;
    let mut layers = Vec::with_capacity(image.layers.len());
    for (layer, (blob, _)) in image.layers.iter().zip(&parsed.layers) {
        size = size.saturating_add(store.layer_facts(&layer.diff_id)?.unwrap_or_default().size);
        layers.push(LayerRecord { digest: blob.digest, size: blob.size, diff_id: layer.diff_id });
    }
    Ok(ImageRecord {
        format: FORMAT,
        id: parsed.config.digest,
        config_size: parsed.config.size,
        manifests: vec![manifest],
        pulled: Vec::new(),
        layers,
        other_layers: Vec::new(),
        created: created(&image.config_json),
        size,
        platform: image.platform.to_string(),
        labels: image.config.labels.clone(),
    })
}

/// Reads when the image says that it was made.
fn created(config_json: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Created {
        created: Option<String>,
    }
    let created: Created = serde_json::from_slice(config_json).ok()?;
    created.created.filter(|text| text.parse::<jiff::Timestamp>().is_ok())
}
