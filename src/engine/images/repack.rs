//! Packs an image's layers for their way to a registry, and writes the manifest that says so.
//!
//! A registry keeps and serves what it is given, so that plain layers, as docker archives have them, are packed first. The
//! same layer gives the same bytes each time. Layers' contents, their diff ids and the configuration stay, and with it the
//! image's id; the manifest is another. Nothing of this is kept in the store.

use std::fs::File;
use std::io::{self, BufReader, Seek as _};

use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::image::digest::{Algorithm, Digest};
use crate::image::limits::LayerLimits;
use crate::image::manifest::{self, DOCUMENT_TYPES, Manifest};
use crate::image::media::{self, Compression};
use crate::image::stream::{BLOCK_BYTES, Unpacked};
use crate::image::write::{Level, Packed, Packer};
use crate::storage::images::{ImageRecord, LayerRecord};
use crate::storage::store::Store;

/// How layers are to be packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// As which; gzip, if nothing is said.
    pub compression: Option<Compression>,
    pub level: Option<i32>,
    /// Also layers that are packed already, in another way; if nothing is said, where `compression` is.
    pub force: Option<bool>,
}

/// How one layer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    AsItIs,
    Pack(Compression),
}

/// A layer as it is sent.
pub(super) struct Sent {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) file: File,
    is_packed: bool,
}

/// How an image's layers are sent, lowest first.
pub(super) struct Plans<'a> {
    store: &'a Store,
    manifest: &'a Manifest,
    record: &'a ImageRecord,
    level: Level,
    layers: Vec<Plan>,
}

impl<'a> Plans<'a> {
    /// Decides. What a registry gave goes as it came, unless it is asked for in another way.
    pub(super) fn new(
        store: &'a Store,
        record: &'a ImageRecord,
        document: &Digest,
        manifest: &'a Manifest,
        packing: Packing,
    ) -> Result<Self> {
        let wanted = packing.compression.unwrap_or(Compression::Gzip);
        let level = Level::new(wanted, packing.level)?;
        let is_asked = packing != Packing::default();
        let is_forced = packing.force.unwrap_or(packing.compression.is_some());
        let is_free = is_asked || !record.pulled.contains(document);
        let plan = |compression: Compression| match compression {
            _ if !is_free || compression == wanted => Plan::AsItIs,
            Compression::None => Plan::Pack(wanted),
            _ if is_forced => Plan::Pack(wanted),
            _ => Plan::AsItIs,
        };
        let layers = manifest.layers.iter().map(|(_, compression)| plan(*compression)).collect();
        Ok(Self { store, manifest, record, level, layers })
    }

    /// Says whether all layers, and so the manifest, go as they are.
    pub(super) fn change_nothing(&self) -> bool {
        self.layers.iter().all(|plan| *plan == Plan::AsItIs)
    }

    /// Gives the layer at a place as it is to be sent.
    pub(super) fn layer(&self, place: usize) -> Result<Sent> {
        let (layer, compression) = self.manifest.layers[place];
        let (file, size) = self.store.open_whole_blob(&layer.digest, layer.size)?;
        let Plan::Pack(wanted) = self.layers[place] else {
            return Ok(Sent { digest: layer.digest, size, file, is_packed: false });
        };
        let pack = || {
            let mut known = self.record.layers.iter().chain(&self.record.other_layers);
            let known = known.find(|known| known.digest == layer.digest);
            let LayerRecord { diff_id, .. } =
                known.ok_or_else(|| Error::new(Kind::Other, "the image's record has not got it"))?;
            let (file, packed) = self.pack(file, compression, wanted, diff_id.algorithm())?;
            // What the blob holds is proved by this.
            if packed.diff_id != *diff_id {
                return Err(Error::invalid(format!("its content is {} and not {diff_id}", packed.diff_id))
                    .with_hint("`husk system check --repair` mends the store"));
            }
            Ok(Sent { digest: packed.digest, size: packed.size, file, is_packed: true })
        };
        pack().map_err(|error: Error| error.context(format!("pack layer {}", layer.digest)))
    }

    fn pack(&self, file: File, from: Compression, to: Compression, algorithm: Algorithm) -> Result<(File, Packed)> {
        let packed = BufReader::with_capacity(BLOCK_BYTES, file);
        let mut tar = Unpacked::new(packed, Some(from), LayerLimits::default().bytes)?;
        let mut packer = Packer::new(self.store.scratch_file()?, to, self.level, algorithm)?;
        io::copy(&mut tar, &mut packer)?;
        let (mut file, packed) = packer.finish()?;
        file.rewind()?;
        Ok((file, packed))
    }

    /// Writes the manifest of what was sent; gives its media type and its bytes.
    pub(super) fn manifest(&self, bytes: &[u8], sent: &[(Digest, u64, bool)]) -> Result<(String, Vec<u8>)> {
        let mut json: Value = serde_json::from_slice(bytes)?;
        let stated = manifest::media_type_of(bytes)?;
        // Docker's manifests have no word for zstd.
        let is_zstd = self.layers.contains(&Plan::Pack(Compression::Zstd));
        if is_zstd && stated.as_deref() != Some(DOCUMENT_TYPES[1]) {
            json["mediaType"] = DOCUMENT_TYPES[1].into();
            rename(&mut json["config"], media::oci_type);
        }
        let listed = json["layers"].as_array_mut().ok_or_else(|| Error::invalid("layers: not a list"))?;
        for ((layer, plan), (digest, size, is_packed)) in listed.iter_mut().zip(&self.layers).zip(sent) {
            if is_zstd {
                rename(layer, media::oci_type);
            }
            if let (true, Plan::Pack(compression)) = (*is_packed, plan) {
                rename(layer, |media_type| media::packed_type(media_type, *compression));
                layer["digest"] = digest.to_string().into();
                layer["size"] = (*size).into();
            }
        }
        let written = serde_json::to_vec(&json)?;
        // What others could not read is not sent.
        manifest::parse_manifest(&written)?;
        let media_type = manifest::media_type_of(&written)?.unwrap_or_else(|| DOCUMENT_TYPES[1].to_owned());
        Ok((media_type, written))
    }
}

impl Sent {
    /// Gives what a manifest says of it.
    pub(super) fn described(&self) -> (Digest, u64, bool) {
        (self.digest, self.size, self.is_packed)
    }
}

fn rename(descriptor: &mut Value, name: impl Fn(&str) -> String) {
    if let Some(media_type) = descriptor["mediaType"].as_str().map(name) {
        descriptor["mediaType"] = media_type.into();
    }
}
