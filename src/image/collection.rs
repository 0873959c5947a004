//! Images in local files, with all that is needed to keep them: their documents, their names, their layers' bytes.
//!
//! A layout and an OCI archive are read by their index, a docker archive by its `manifest.json`; for that a manifest is
//! made here, of the layers as they are packed, since nothing else names them. What docker writes is both at once and is
//! read as OCI, whose digests prove more. Nothing is stored here.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::error::{Context, Error, Kind, Result};

use super::archive::{self, OciArchive};
use super::digest::{Algorithm, Digest, Expected, Hasher};
use super::docker_archive::{DockerArchive, Saved};
use super::layout::Layout;
use super::limits;
use super::manifest::{self, Choice, DOCUMENT_TYPES, Manifest};
use super::media::{Compression, Document};
use super::platform::Platform;
use super::resolve::{self, Blobs, Image, LayerReader};
use super::source::{Format, Selector};

/// Bytes that are hashed at once.
const BLOCK_BYTES: usize = 256 << 10;

/// An open place of images.
pub struct Collection {
    format: Format,
    images: Kinds,
}

enum Kinds {
    Oci(Arc<dyn Blobs>),
    Docker(Arc<DockerArchive>),
}

/// One image of a collection.
pub struct Member {
    /// As they are written there: of OCI's annotations, the one that says the most.
    pub names: Vec<String>,
    pub image: Image,
    /// What the names stand for, then what is on the way from there to the manifest, which is the last.
    pub documents: Vec<Described>,
    /// The manifest, read.
    pub(crate) manifest: Manifest,
    pub layers: Box<dyn LayerReader>,
}

/// A document, as it was hashed.
pub struct Described {
    pub media_type: String,
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

impl Described {
    fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.to_owned(), digest: Digest::of(Algorithm::Sha256, &bytes), bytes }
    }
}

impl Collection {
    /// Opens a place whose form is known. `scratch` makes an unnamed file for an archive that is compressed.
    pub fn open(format: Format, path: &Path, scratch: &dyn Fn() -> Result<File>) -> Result<Self> {
        let open = || {
            Ok(match format {
                Format::OciLayout => Kinds::Oci(Arc::new(Layout::open(path)?)),
                Format::OciArchive => Kinds::Oci(Arc::new(OciArchive::open(path, scratch)?)),
                Format::DockerArchive => Kinds::Docker(Arc::new(DockerArchive::open(path, scratch)?)),
            })
        };
        let images = open().map_err(|error: Error| error.context(format!("{}:{}", format.scheme(), path.display())))?;
        Ok(Self { format, images })
    }

    /// Opens an archive of either kind, from a file, a pipe or whatever else ends.
    pub fn open_archive(file: File, scratch: &dyn Fn() -> Result<File>) -> Result<Self> {
        let archive = archive::Archive::from_file(file, scratch)?;
        if archive.has("oci-layout") {
            let images = Kinds::Oci(Arc::new(OciArchive::new(archive)?));
            return Ok(Self { format: Format::OciArchive, images });
        }
        if archive.has("manifest.json") {
            let images = Kinds::Docker(Arc::new(DockerArchive::new(archive)?));
            return Ok(Self { format: Format::DockerArchive, images });
        }
        Err(Error::invalid("no archive of images: there is neither a file oci-layout nor manifest.json in it")
            .with_hint("`husk import` makes an image of a root file system"))
    }

    /// Says how it was found to be laid out.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Opens the one image that is meant.
    pub fn select(&self, selector: &Selector, platform: &Platform) -> Result<Member> {
        match &self.images {
            Kinds::Oci(blobs) => {
                let choices = manifest::parse_index(&blobs.index()?).context("index.json")?;
                let choice = resolve::choose(choices, selector, platform).context("index.json")?;
                open_choice(blobs, choice, platform)
            }
            Kinds::Docker(archive) => open_saved(archive, archive.choose(selector)?),
        }
    }

    /// Opens every image, one after the other; of one for several platforms, the part for this one.
    pub fn for_each(&self, platform: &Platform, mut visit: impl FnMut(Member) -> Result<()>) -> Result<()> {
        match &self.images {
            Kinds::Oci(blobs) => {
                let choices = manifest::parse_index(&blobs.index()?).context("index.json")?;
                for choice in by_name(choices, platform)? {
                    visit(open_choice(blobs, choice, platform)?)?;
                }
            }
            Kinds::Docker(archive) => {
                for place in 0..archive.count() {
                    visit(open_saved(archive, archive.choose(&Selector::Place(place))?)?)?;
                }
            }
        }
        Ok(())
    }
}

/// Picks one entry for each name; those without a name count as one image for several platforms.
fn by_name(choices: Vec<Choice>, platform: &Platform) -> Result<Vec<Choice>> {
    if choices.is_empty() {
        return Err(Error::new(Kind::NotFound, "index.json: it holds no image"));
    }
    let mut groups: Vec<(Option<String>, Vec<Choice>)> = Vec::new();
    for choice in choices {
        let name = best_name(&choice).map(ToOwned::to_owned);
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, group)) => group.push(choice),
            None => groups.push((name, vec![choice])),
        }
    }
    groups
        .into_iter()
        .map(|(name, group)| {
            let chosen = resolve::choose(group, &Selector::Only, platform);
            chosen.with_context(|| name.map_or("index.json".to_owned(), |name| format!("index.json: {name}")))
        })
        .collect()
}

/// docker annotates the whole name and the tag, podman the whole name in the place of the tag.
fn best_name(choice: &Choice) -> Option<&str> {
    choice.names.iter().map(String::as_str).max_by_key(|name| (name.contains('/'), name.len()))
}

fn open_choice(blobs: &Arc<dyn Blobs>, mut choice: Choice, platform: &Platform) -> Result<Member> {
    let names = best_name(&choice).map(ToOwned::to_owned).into_iter().collect();
    let mut documents = Vec::new();
    for _ in 0..=limits::INDEX_DEPTH {
        let (digest, document) = (choice.descriptor.digest, choice.document);
        let bytes = blobs.document(&choice.descriptor, limits::MANIFEST_BYTES)?;
        let fallback = DOCUMENT_TYPES[usize::from(document == Document::Manifest)];
        let media_type = manifest::media_type_of(&bytes)?.unwrap_or_else(|| fallback.to_owned());
        documents.push(Described { media_type, digest, bytes });
        let bytes = &documents[documents.len() - 1].bytes;
        if document == Document::Manifest {
            let manifest = manifest::parse_manifest(bytes).with_context(|| format!("manifest {digest}"))?;
            let config_json = blobs.document(&manifest.config, limits::CONFIG_BYTES)?;
            let packed: Vec<_> =
                manifest.layers.iter().map(|(layer, packing)| (layer.expected(), Some(*packing))).collect();
            let image = resolve::describe(config_json, &packed, Some((digest, bytes.clone())))
                .with_context(|| format!("config {}", manifest.config.digest))?;
            let descriptors = manifest.layers.iter().map(|(layer, _)| *layer).collect();
            let layers = Box::new(resolve::BlobLayers { blobs: Arc::clone(blobs), layers: descriptors });
            return check_os(Member { names, image, documents, manifest, layers });
        }
        let nested = manifest::parse_index(bytes).with_context(|| format!("index {digest}"))?;
        choice = resolve::choose(nested, &Selector::Only, platform).with_context(|| format!("index {digest}"))?;
    }
    Err(Error::invalid(format!("index.json: more than {} indexes inside each other", limits::INDEX_DEPTH)))
}

fn open_saved(archive: &Arc<DockerArchive>, saved: &Saved) -> Result<Member> {
    let (mut image, layers) = DockerArchive::open_image(archive, saved)?;
    let mut listed = Vec::with_capacity(image.layers.len());
    for (index, layer) in image.layers.iter_mut().enumerate() {
        let (compression, digest, size) = examine(&*layers, index, layer.diff_id, layer.blob.size)
            .with_context(|| format!("layer {} of {}", index + 1, listed.capacity()))?;
        layer.blob = Expected { digest: Some(digest), size: Some(size) };
        layer.compression = Some(compression);
        let packing = match compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{packing}");
        listed.push(json!({ "mediaType": media_type, "digest": digest, "size": size }));
    }
    let document = json!({
        "schemaVersion": 2,
        "mediaType": DOCUMENT_TYPES[1],
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": image.config_digest,
            "size": image.config_json.len(),
        },
        "layers": listed,
    });
    let document = Described::new(DOCUMENT_TYPES[1], serde_json::to_vec(&document)?);
    let manifest = manifest::parse_manifest(&document.bytes)?;
    image.manifest_digest = Some(document.digest);
    image.manifest_json = Some(document.bytes.clone());
    check_os(Member { names: saved.names().to_vec(), image, documents: vec![document], manifest, layers })
}

/// Says how a layer is packed, and the digest and the size of that. One that is not packed is what its diff id says,
/// which is proved when it is unpacked.
fn examine(
    layers: &dyn LayerReader,
    index: usize,
    diff_id: Digest,
    size: Option<u64>,
) -> Result<(Compression, Digest, u64)> {
    let mut reader = layers.open_layer(index)?;
    let (mut hasher, mut total, mut found) = (Hasher::new(Algorithm::Sha256), 0, None);
    let mut buffer = vec![0; BLOCK_BYTES];
    loop {
        let length = match reader.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let compression = *found.get_or_insert_with(|| Compression::detect(&buffer[..length]));
        if let (Compression::None, Some(size)) = (compression, size) {
            return Ok((compression, diff_id, size));
        }
        if length == 0 {
            return Ok((compression, hasher.finish(), total));
        }
        hasher.update(&buffer[..length]);
        total += length as u64;
    }
}

fn check_os(member: Member) -> Result<Member> {
    if member.image.platform.os == "linux" {
        return Ok(member);
    }
    Err(Error::unsupported(format!("an image for {} cannot run here", member.image.platform)))
}
