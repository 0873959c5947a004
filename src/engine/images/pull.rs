//! `pull`: from a name to an image in the store, in one pass over its bytes.
//!
//! ```text
//! name ─ manifest or index ─ manifest ─ configuration ┐
//! layers, several at once: socket ─ hash ─ blob       ├─ image record ─ name
//!                                    └ inflate ─ hash ─ files ┘
//! ```
//!
//! Nothing is visible before the image record is, and that is written last. What a kill leaves is a part of a blob, which
//! the next pull goes on with, or a complete blob or layer, which it finds.

use std::io::Read;

use crate::engine::engine::Engine;
use crate::engine::events;
use crate::engine::record::now;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::limits;
use crate::image::manifest::{self, Descriptor as Layer, Manifest};
use crate::image::media::Document;
use crate::image::platform::Platform;
use crate::image::policy::{Policy, Subject};
use crate::image::reference::{Reference, Repository};
use crate::image::registry::blob::BlobReader;
use crate::image::registry::client::Client;
use crate::image::registry::manifest::Fetched;
use crate::image::resolve::{self, Image};
use crate::image::source::Selector;
use crate::image::unpack::without_rights;
use crate::storage::images::{Descriptor, FORMAT, ImageRecord, NameRecord};
use crate::support::caller::Caller;

use super::keep::{self, Origin};
use super::remote::{Remote, RemoteOptions};

/// What is pulled, and how.
#[derive(Clone, Debug)]
pub struct PullOptions {
    pub platform: Platform,
    pub remote: RemoteOptions,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { platform: Platform::host(), remote: RemoteOptions::default() }
    }
}

/// What happens meanwhile, for a person who waits.
#[derive(Clone, Debug)]
pub enum Progress {
    /// The registry is asked.
    Asking { reference: String },
    /// This image was chosen; its layers have so many bytes, of which so many are to be fetched.
    Chosen { layers: Vec<(Digest, u64)> },
    /// So many more bytes of a blob are here.
    Fetched { digest: Digest, bytes: u64 },
    /// A blob, or the layer in it, is in place.
    Done { digest: Digest },
    /// Another process fetches this.
    Waiting { digest: Digest },
    /// What the registry wants the user to know.
    Warning(String),
    /// The image is here: nothing more is told of it.
    Finished,
}

/// Whom to tell.
pub type Report<'a> = &'a (dyn Fn(Progress) + Sync);

/// An image that was brought here.
#[derive(Clone, Debug)]
pub struct Pulled {
    pub image: ImageRecord,
    /// What the registry calls it: the digest of a manifest or an index.
    pub digest: Digest,
    /// The name meant something else before, or nothing.
    pub is_new: bool,
}

/// Brings an image here, or finds that it is here as the registry has it.
pub fn pull(engine: &Engine, reference: &Reference, options: &PullOptions, report: Report<'_>) -> Result<Pulled> {
    report(Progress::Asking { reference: reference.to_string() });
    let remote = Remote::load(&engine.settings, &options.remote)?;
    let sources = remote.sources(reference).with_context(|| format!("pull {reference}"))?;
    let mut failure = None;
    for (endpoint, client) in &sources {
        let answer = pull_from(engine, client, &endpoint.repository, reference, options, report);
        client.take_warnings().into_iter().for_each(|warning| report(Progress::Warning(warning)));
        match answer {
            // What a mirror has not, or not as it should be, is sought further on.
            Err(error) if endpoint.is_mirror => {
                report(Progress::Warning(format!("mirror {}: {}", endpoint.host, error.report())));
                failure = Some(error);
            }
            answer => {
                let pulled = answer.with_context(|| format!("pull {reference}"))?;
                events::image(engine, &pulled.image.id.to_string(), "pull", &reference.familiar());
                return Ok(pulled);
            }
        }
    }
    let failure = failure.unwrap_or_else(|| Error::new(Kind::NotFound, "no registry is configured for it"));
    Err(failure.context(format!("pull {reference}")))
}

/// Brings an image here by whichever of the names that a word can mean has it.
pub fn pull_word(
    engine: &Engine,
    word: &str,
    options: &PullOptions,
    report: Report<'_>,
) -> Result<(Reference, Pulled)> {
    let mut failure = None;
    for reference in Remote::load(&engine.settings, &options.remote)?.names(word)? {
        match pull(engine, &reference, options, report) {
            Ok(pulled) => return Ok((reference, pulled)),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Kind::NotFound, format!("image {word}: no such image"))))
}

fn pull_from(
    engine: &Engine,
    client: &Client,
    repository: &Repository,
    reference: &Reference,
    options: &PullOptions,
    report: Report<'_>,
) -> Result<Pulled> {
    let (target, manifest, documents) = without_rights(|| {
        let target = client.manifest(repository, &reference.selector())?;
        let mut documents = vec![target.clone()];
        let manifest = choose(client, repository, target.clone(), &options.platform, &mut documents)?;
        Ok((target, manifest, documents))
    })?;
    let store = engine.store()?;
    let _held = store.hold()?;
    let digests: Vec<Digest> = documents.iter().map(Fetched::digest).collect();
    Policy::load(&Caller::current())?.check(&Subject::Registry(reference), &digests, &|digest| {
        without_rights(|| client.signatures(repository, digest))
    })?;
    let parsed =
        manifest::parse_manifest(&manifest.bytes).with_context(|| format!("manifest {}", manifest.digest()))?;
    let blobs = store.blobs()?;
    let config_json = match store.read_document(&parsed.config.digest, limits::CONFIG_BYTES) {
        Ok(bytes) if bytes.len() as u64 == parsed.config.size => bytes,
        _ => without_rights(|| client.small_blob(repository, &parsed.config, limits::CONFIG_BYTES))?,
    };
    let image = describe(&manifest, &parsed, config_json)?;
    for document in &documents {
        blobs.put_document(&document.digest(), &document.bytes)?;
    }
    blobs.put_document(&parsed.config.digest, &image.config_json)?;
    keep::keep_layers(engine, &store, &image, &parsed, &RegistryLayers { client, repository }, report)?;

    let mut record = keep::image_record(&store, &image, descriptor(&manifest), &parsed)?;
    record.pulled = vec![manifest.digest()];
    let changing = store.change()?;
    store.put_image(&changing, record.clone())?;
    let target = descriptor(&target);
    let before = store.name(reference)?;
    let is_new = before.is_none_or(|before| before.target.digest != target.digest || before.image != Some(record.id));
    if is_new {
        let name = reference.to_string();
        let record = NameRecord { format: FORMAT, name, target: target.clone(), image: Some(record.id), since: now() };
        store.put_name(&changing, reference, &record)?;
    }
    report(Progress::Finished);
    Ok(Pulled { image: record, digest: target.digest, is_new })
}

/// Goes from an index to the manifest for the platform; what is met on the way is kept.
pub(super) fn choose(
    client: &Client,
    repository: &Repository,
    mut fetched: Fetched,
    platform: &Platform,
    documents: &mut Vec<Fetched>,
) -> Result<Fetched> {
    for _ in 0..=limits::INDEX_DEPTH {
        let digest = fetched.digest();
        if fetched.document == Document::Manifest {
            return Ok(fetched);
        }
        let pick = || {
            let choices = manifest::parse_index(&fetched.bytes)?;
            resolve::choose(choices, &Selector::Only, platform)
        };
        let choice = pick().with_context(|| format!("index {digest}"))?;
        fetched = client.manifest(repository, &choice.descriptor.digest.to_string())?;
        if fetched.descriptor.size != choice.descriptor.size {
            return Err(Error::invalid(format!("manifest {}: another size than its index states", fetched.digest())));
        }
        if fetched.document != choice.document {
            return Err(Error::invalid(format!(
                "manifest {}: another mediaType than its index states",
                fetched.digest()
            )));
        }
        documents.push(fetched.clone());
    }
    Err(Error::invalid(format!("more than {} indexes inside each other", limits::INDEX_DEPTH)))
}

fn describe(manifest: &Fetched, parsed: &Manifest, config_json: Vec<u8>) -> Result<Image> {
    let packed: Vec<_> =
        parsed.layers.iter().map(|(layer, compression)| (layer.expected(), Some(*compression))).collect();
    let image = resolve::describe(config_json, &packed, Some((manifest.digest(), manifest.bytes.clone())))
        .with_context(|| format!("config {}", parsed.config.digest))?;
    if image.platform.os == "linux" {
        return Ok(image);
    }
    Err(Error::unsupported(format!("an image for {} cannot run here", image.platform)))
}

/// The layers of an image in a registry.
struct RegistryLayers<'a> {
    client: &'a Client,
    repository: &'a Repository,
}

impl Origin for RegistryLayers<'_> {
    fn open_at(&self, _index: usize, layer: &Layer, position: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(BlobReader::new(self.client, self.repository, layer.digest, position, layer.size)))
    }

    fn parallel(&self) -> usize {
        // A registry keeps one connection waiting more than a core.
        4
    }
}

fn descriptor(fetched: &Fetched) -> Descriptor {
    let size = fetched.bytes.len() as u64;
    Descriptor { media_type: fetched.media_type.clone(), digest: fetched.digest(), size }
}
