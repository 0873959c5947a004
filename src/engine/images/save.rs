//! `save`: images of the store as an archive or a layout, byte for byte as they are stored.
//!
//! All forms are an OCI layout; a docker archive has `manifest.json` and `repositories` beside it, as docker writes it since
//! version 25. The same images give the same bytes: nothing in them tells when, where or by whom they were written.

use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;

use serde_json::{Value, json};

use crate::engine::engine::Engine;
use crate::engine::events;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::{Digest, Expected, Verifier};
use crate::image::limits;
use crate::image::manifest::{self, Manifest};
use crate::image::reference::Reference;
use crate::image::write::place::Place;
use crate::storage::additional::Stores;
use crate::storage::images::{Descriptor, Held, ImageRecord};

use super::find;

/// What is written around the blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Docker,
    Oci,
}

/// Images that were found, and that stay until they are written.
pub struct Chosen {
    stores: Stores,
    _held: Vec<Held>,
    images: Vec<Saved>,
}

struct Saved {
    record: ImageRecord,
    document: Descriptor,
    manifest_json: Vec<u8>,
    manifest: Manifest,
    names: Vec<Reference>,
}

/// Finds the images that words mean. One that is meant by several words is one, by several names.
pub fn choose(engine: &Engine, words: &[String]) -> Result<Chosen> {
    let stores = engine.stores()?;
    let held = stores.hold()?;
    let mut images: Vec<Saved> = Vec::new();
    for word in words {
        let (store, find::Found { image: record, name }) = find::find(&stores, word)?;
        let name = name.map(|name| Reference::parse(&name.name)).transpose()?.filter(|name| name.tag().is_some());
        if let Some(known) = images.iter_mut().find(|known| known.record.id == record.id) {
            known.names.extend(name.filter(|name| !known.names.contains(name)));
            continue;
        }
        let document = record.manifest()?.clone();
        let manifest_json = store.read_document(&document.digest, limits::MANIFEST_BYTES)?;
        let manifest = manifest::parse_manifest(&manifest_json)?;
        events::image(engine, &record.id.to_string(), "save", word);
        images.push(Saved { record, document, manifest_json, manifest, names: name.into_iter().collect() });
    }
    Ok(Chosen { stores, _held: held, images })
}

impl Chosen {
    /// Writes the images.
    pub fn write(&self, form: Form, place: &mut dyn Place) -> Result<()> {
        place.directory("blobs")?;
        self.write_blobs(place)?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self.images.iter().flat_map(|image| image.entries(form)).collect::<Vec<_>>(),
        });
        write_json(place, "index.json", &index)?;
        if form == Form::Docker {
            let list: Vec<Value> = self.images.iter().map(Saved::docker_entry).collect();
            write_json(place, "manifest.json", &json!(list))?;
        }
        write_json(place, "oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
        if form == Form::Docker {
            let mut repositories: BTreeMap<String, BTreeMap<&str, String>> = BTreeMap::new();
            for image in &self.images {
                for name in &image.names {
                    let tags = repositories.entry(name.repository().familiar()).or_default();
                    tags.insert(name.tag().unwrap_or_default(), image.record.id.hex());
                }
            }
            write_json(place, "repositories", &json!(repositories))?;
        }
        Ok(())
    }

    fn write_blobs(&self, place: &mut dyn Place) -> Result<()> {
        let (mut algorithms, mut written) = (HashSet::new(), HashSet::new());
        for image in &self.images {
            let config = &image.manifest.config;
            let layers = image.manifest.layers.iter().map(|(layer, _)| (layer.digest, layer.size));
            let blobs = std::iter::once((config.digest, config.size)).chain(layers);
            for (digest, size) in blobs.chain([(image.document.digest, image.manifest_json.len() as u64)]) {
                let algorithm = digest.algorithm().name();
                if algorithms.insert(algorithm) {
                    place.directory(&format!("blobs/{algorithm}"))?;
                }
                if written.insert(digest) {
                    self.write_blob(place, &digest, size)?;
                }
            }
        }
        Ok(())
    }

    /// Copies a blob, and proves it: what is damaged here is not to be passed on.
    fn write_blob(&self, place: &mut dyn Place, digest: &Digest, size: u64) -> Result<()> {
        let mut write = || {
            let found = self.stores.open_blob(digest)?;
            let (file, _) = found.ok_or_else(|| Error::new(Kind::NotFound, "it is not in the store"))?;
            let expected = Expected { digest: Some(*digest), size: Some(size) };
            let mut verifier = Verifier::new(file, expected);
            place.file(&blob_path(digest), size, &mut verifier.by_ref().take(size))?;
            verifier.finish()
        };
        write().map_err(|error: Error| {
            error.context(format!("blob {digest}")).with_hint("`husk system check --repair` mends the store")
        })
    }
}

impl Saved {
    /// Gives what stands in the index: the manifest once for each name.
    fn entries(&self, form: Form) -> Vec<Value> {
        let Descriptor { media_type, digest, size } = &self.document;
        let entry = json!({ "mediaType": media_type, "digest": digest, "size": size });
        if self.names.is_empty() {
            return vec![entry];
        }
        let named = |name: &Reference| {
            let mut entry = entry.clone();
            // docker has the tag where podman has the whole name.
            let reference = match form {
                Form::Docker => name.tag().unwrap_or_default().to_owned(),
                Form::Oci => name.to_string(),
            };
            entry["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": reference,
            });
            entry
        };
        self.names.iter().map(named).collect()
    }

    fn docker_entry(&self) -> Value {
        let names: Vec<_> = self.names.iter().map(Reference::familiar).collect();
        json!({
            "Config": blob_path(&self.record.id),
            "RepoTags": if names.is_empty() { Value::Null } else { json!(names) },
            "Layers": self.manifest.layers.iter().map(|(layer, _)| blob_path(&layer.digest)).collect::<Vec<_>>(),
        })
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn write_json(place: &mut dyn Place, path: &str, document: &Value) -> Result<()> {
    let bytes = serde_json::to_vec(document).with_context(|| path.to_owned())?;
    place.file(path, bytes.len() as u64, &mut &bytes[..])
}
