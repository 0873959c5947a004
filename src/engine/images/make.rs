//! An image that is made here: a configuration and layers whose blobs are in the store become a manifest, a record, a name.
//!
//! The new layer is unpacked from its blob as one that was pulled is: by the confined thread, verified against its digests. A
//! container's upper directory could be taken over instead, but only as a copy, since the container goes on writing to it; and
//! what others will pull is what is seen here from the first day.

use std::io::Read;

use serde_json::{Map, Value, json};

use crate::engine::engine::Engine;
use crate::engine::record::now;
use crate::error::{Error, Kind, Result};
use crate::image::digest::{Algorithm, Digest};
use crate::image::manifest::{self, Descriptor as Packed};
use crate::image::media::{Compression, Family};
use crate::image::reference::Reference;
use crate::image::resolve;
use crate::image::write;
use crate::storage::images::{Descriptor, FORMAT, ImageRecord, NameRecord};
use crate::storage::store::Store;

use super::keep::{self, Origin};

/// A layer whose blob is in the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) diff_id: Digest,
    pub(crate) compression: Compression,
}

impl Layer {
    pub(crate) fn new(packed: &write::Packed, compression: Compression) -> Self {
        Self { digest: packed.digest, size: packed.size, diff_id: packed.diff_id, compression }
    }
}

/// How an image is written.
#[derive(Clone, Copy, Debug)]
pub struct Making {
    pub family: Family,
    pub compression: Compression,
    /// When it was made, and the youngest that a file of it is: seconds since 1970, from `SOURCE_DATE_EPOCH`.
    pub latest: Option<i64>,
}

impl Making {
    /// Says when the image is made.
    pub(crate) fn created(&self) -> String {
        let time = self.latest.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        time.unwrap_or_else(jiff::Timestamp::now).to_string()
    }
}

/// Puts an image in the store. The caller holds the store since before the layers' blobs were written.
pub(crate) fn make(
    engine: &Engine,
    store: &Store,
    mut config: Map<String, Value>,
    layers: &[Layer],
    family: Family,
    name: Option<&Reference>,
) -> Result<ImageRecord> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
    config.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": diff_ids }));
    let config_json = serde_json::to_vec(&config)?;
    let config_digest = Digest::of(Algorithm::Sha256, &config_json);
    let described = layers.iter().map(
        |layer| json!({ "mediaType": family.layer(layer.compression), "digest": layer.digest, "size": layer.size }),
    );
    let manifest_json = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": family.manifest(),
        "config": { "mediaType": family.config(), "digest": config_digest, "size": config_json.len() },
        "layers": described.collect::<Vec<_>>(),
    }))?;
    let document = Descriptor {
        media_type: family.manifest().to_owned(),
        digest: Digest::of(Algorithm::Sha256, &manifest_json),
        size: manifest_json.len() as u64,
    };
    // What others could not read is not written.
    let parsed = manifest::parse_manifest(&manifest_json)?;
    let packed: Vec<_> =
        parsed.layers.iter().map(|(layer, compression)| (layer.expected(), Some(*compression))).collect();
    let image = resolve::describe(config_json, &packed, None)?;

    let blobs = store.blobs()?;
    blobs.put_document(&document.digest, &manifest_json)?;
    blobs.put_document(&config_digest, &image.config_json)?;
    keep::keep_layers(engine, store, &image, &parsed, &Here, &|_| ())?;
    let record = keep::image_record(store, &image, document.clone(), &parsed)?;
    let changing = store.change()?;
    store.put_image(&changing, record.clone())?;
    if let Some(name) = name {
        let named = NameRecord {
            format: FORMAT,
            name: name.to_string(),
            target: document,
            image: Some(record.id),
            since: now(),
        };
        store.put_name(&changing, name, &named)?;
    }
    Ok(record)
}

/// All blobs are in the store already.
struct Here;

impl Origin for Here {
    fn open_at(&self, _index: usize, layer: &Packed, _position: u64) -> Result<Box<dyn Read + Send + '_>> {
        Err(Error::new(Kind::NotFound, format!("blob {} is not in the store", layer.digest))
            .with_hint("`husk system check --repair` mends the store"))
    }

    fn parallel(&self) -> usize {
        1
    }
}
