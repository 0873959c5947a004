//! Manifests and indexes: the documents that say what an image is made of.
//!
//! A document is read as what its descriptor calls it and must agree; one that could be read as both (it has `layers`
//! and `manifests`, CVE-2021-41190) is refused, since two readers would see two images under one digest.

use oci_spec::image::{Descriptor as Described, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Context, Error, Result};
use crate::spec::load::parse_json;

use super::digest::{Digest, Expected};
use super::limits;
use super::media::{self, Compression, Document};
use super::platform::Platform;

/// What a blob is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Descriptor {
    pub(crate) fn new(described: &Described) -> Result<Self> {
        let digest = described.digest().to_string().parse().context("digest")?;
        Ok(Self { digest, size: described.size() })
    }

    pub(crate) fn expected(&self) -> Expected {
        Expected { digest: Some(self.digest), size: Some(self.size) }
    }
}

/// The media types of documents that a registry may answer with, the best first.
pub(crate) const DOCUMENT_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Reads what a document says that it is; OCI's may leave it out, and are known by what they hold.
pub(crate) fn media_type_of(bytes: &[u8]) -> Result<Option<String>> {
    let shape: Shape = parse_json(bytes)?;
    if shape.fs_layers.is_some() {
        return Ok(Some("application/vnd.docker.distribution.manifest.v1+json".to_owned()));
    }
    Ok(shape.media_type.or_else(|| match (&shape.layers, &shape.manifests) {
        (Some(_), None) => Some(DOCUMENT_TYPES[1].to_owned()),
        (None, Some(_)) => Some(DOCUMENT_TYPES[0].to_owned()),
        _ => None,
    }))
}

/// A manifest of one image.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<(Descriptor, Compression)>,
}

/// One image, or one more index, of an index.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) descriptor: Descriptor,
    pub(crate) document: Document,
    pub(crate) media_type: String,
    pub(crate) platform: Option<Platform>,
    /// What the image is called here: the reference's tag, or the whole reference.
    pub(crate) names: Vec<String>,
}

/// The fields that decide how a document may be read.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u32>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// Refuses a document that is not what it is expected to be, or could be read as both.
pub(crate) fn check_shape(bytes: &[u8], expected: Document) -> Result<()> {
    if bytes.len() > limits::MANIFEST_BYTES {
        return Err(Error::invalid(format!("larger than {} bytes", limits::MANIFEST_BYTES)));
    }
    let shape: Shape = parse_json(bytes)?;
    if shape.schema_version == Some(1) || shape.fs_layers.is_some() {
        media::document("application/vnd.docker.distribution.manifest.v1+json")?;
    }
    if shape.schema_version != Some(2) {
        return Err(Error::invalid("schemaVersion: not 2"));
    }
    if let Some(media_type) = &shape.media_type
        && media::document(media_type)? != expected
    {
        return Err(Error::invalid(format!("mediaType: {media_type:?} disagrees with the descriptor")));
    }
    let (names_image, names_index) = (shape.layers.is_some() || shape.config.is_some(), shape.manifests.is_some());
    match expected {
        Document::Manifest if names_index => Err(Error::invalid("manifests: a manifest must not have it")),
        Document::Index if names_image => Err(Error::invalid("layers or config: an index must not have them")),
        _ => Ok(()),
    }
}

/// Parses a manifest.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<Manifest> {
    check_shape(bytes, Document::Manifest)?;
    let manifest: ImageManifest = parse_json(bytes)?;
    media::config(manifest.config().media_type().as_ref())?;
    let config = Descriptor::new(manifest.config()).context("config")?;
    if manifest.layers().len() > limits::LAYERS {
        return Err(Error::invalid(format!("layers: {} are more than {}", manifest.layers().len(), limits::LAYERS)));
    }
    let mut layers = Vec::new();
    for (index, layer) in manifest.layers().iter().enumerate() {
        let read = || {
            let descriptor = Descriptor::new(layer)?;
            if descriptor.size > limits::BLOB_BYTES {
                return Err(Error::invalid(format!("size: limit: more than {} bytes", limits::BLOB_BYTES)));
            }
            Ok((descriptor, media::layer(layer.media_type().as_ref())?))
        };
        layers.push(read().map_err(|error: Error| error.context(format!("layers[{index}]")))?);
    }
    Ok(Manifest { config, layers })
}

/// Parses an index. What is in it but is no image (attestations, artifacts of unknown types) is left out.
pub(crate) fn parse_index(bytes: &[u8]) -> Result<Vec<Choice>> {
    check_shape(bytes, Document::Index)?;
    let index: ImageIndex = parse_json(bytes)?;
    let mut choices = Vec::new();
    for (place, described) in index.manifests().iter().enumerate() {
        let Ok(document) = media::document(described.media_type().as_ref()) else { continue };
        let descriptor = Descriptor::new(described).with_context(|| format!("manifests[{place}]"))?;
        let annotation = |name: &str| described.annotations().as_ref().and_then(|all| all.get(name)).cloned();
        let names = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
        choices.push(Choice {
            descriptor,
            document,
            media_type: described.media_type().to_string(),
            platform: described.platform().as_ref().map(Platform::described),
            names: names.into_iter().filter_map(annotation).collect(),
        });
    }
    Ok(choices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":7}}"#)
    }

    #[test]
    fn manifests() {
        let (config, layer) = (descriptor(CONFIG), descriptor(LAYER));
        let layers = |count: usize| vec![layer.as_str(); count].join(",");
        let ok = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}],"annotations":{{"a":"b"}}}}"#);
        let manifest = parse_manifest(ok.as_bytes()).unwrap();
        assert_eq!(manifest.layers.len(), 1);
        assert_eq!((manifest.config.size, manifest.layers[0].1), (7, Compression::Gzip));
        let most = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers(limits::LAYERS));
        assert_eq!(parse_manifest(most.as_bytes()).unwrap().layers.len(), limits::LAYERS);
        for (text, expected) in [
            (format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#), "manifests: "),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","config":{config},"layers":[]}}"#), "mediaType: "),
            (format!(r#"{{"schemaVersion":2,"mediaType":"x","config":{config},"layers":[]}}"#), "mediaType: \"x\""),
            (format!(r#"{{"schemaVersion":1,"config":{config},"layers":[]}}"#), "schema 1"),
            (format!(r#"{{"schemaVersion":3,"config":{config},"layers":[]}}"#), "schemaVersion"),
            (format!(r#"{{"schemaVersion":2,"config":{layer},"layers":[]}}"#), "config.mediaType"),
            (format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{config}]}}"#), "layers[0]: mediaType"),
            (format!(r#"{{"schemaVersion":2,"config":{config}}}"#), "missing field `layers`"),
            (ok.replace(DIGEST, "sha256:../../etc"), "encoded value"),
            (ok.replace(DIGEST, &DIGEST.replace("e3", "E3")), "non-hexadecimal"),
            (ok.replace(":7", ":-1"), "invalid"),
            (ok.replacen("\"layers\"", "\"layers\":[],\"layers\"", 1), "duplicate field"),
            (
                format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers(limits::LAYERS + 1)),
                "are more than",
            ),
            (format!("{ok}{}", " ".repeat(limits::MANIFEST_BYTES)), "larger than"),
        ] {
            let report = parse_manifest(text.as_bytes()).unwrap_err().report();
            assert!(report.contains(expected), "{expected:?} is not in {report:?}");
        }
    }

    #[test]
    fn indexes() {
        let entry = |media_type: &str, rest: &str| {
            format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":7{rest}}}"#)
        };
        let platform =
            |architecture: &str, os: &str| format!(r#","platform":{{"architecture":"{architecture}","os":"{os}"}}"#);
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{},{},{},{}]}}"#,
            entry(MANIFEST, &platform("arm64", "linux")),
            entry(MANIFEST, &platform("unknown", "unknown")),
            entry("application/x-other", ""),
            entry(INDEX, r#","annotations":{"org.opencontainers.image.ref.name":"v1"}"#),
        );
        let choices = parse_index(text.as_bytes()).unwrap();
        assert_eq!(choices.len(), 3);
        assert_eq!(choices[0].platform.as_ref().unwrap().to_string(), "linux/arm64");
        assert_eq!((choices[2].document, &choices[2].names[..]), (Document::Index, &["v1".to_owned()][..]));
        let both = text.replacen("\"manifests\"", "\"layers\":[],\"manifests\"", 1);
        assert!(parse_index(both.as_bytes()).unwrap_err().report().contains("layers or config"));
        let bad = text.replace(DIGEST, "sha512:00");
        assert!(parse_index(bad.as_bytes()).unwrap_err().report().contains("igest"));
    }
}
