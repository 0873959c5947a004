//! Writes images for tests: layouts and archives whose every part can be made a lie. Shared with the unit tests.

use std::io::Write;
use std::path::Path;

use sha2::{Digest as _, Sha256};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer: its tar, and how it is packed.
#[derive(Clone)]
pub(crate) struct LayerBlob {
    pub(crate) media_type: String,
    pub(crate) packed: Vec<u8>,
    pub(crate) diff_id: String,
}

impl LayerBlob {
    pub(crate) fn plain(tar: Vec<u8>) -> Self {
        Self { media_type: LAYER.into(), diff_id: digest(&tar), packed: tar }
    }

    pub(crate) fn gzip(tar: &[u8]) -> Self {
        Self { media_type: format!("{LAYER}+gzip"), diff_id: digest(tar), packed: gzip(tar) }
    }

    pub(crate) fn zstd(tar: &[u8]) -> Self {
        Self { media_type: format!("{LAYER}+zstd"), diff_id: digest(tar), packed: zstd(tar) }
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: Vec<_> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

/// Writes a descriptor; `rest` begins with a comma, or is empty.
pub(crate) fn descriptor(media_type: &str, blob: &[u8], rest: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}{rest}}}"#, digest(blob), blob.len())
}

/// Writes a configuration; `section` is its `config`.
pub(crate) fn config(layers: &[LayerBlob], section: &str) -> String {
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", layer.diff_id)).collect();
    format!(
        r#"{{"architecture":"{}","os":"linux","config":{section},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        architecture(),
        diff_ids.join(",")
    )
}

pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

pub(crate) fn manifest(config: &str, layers: &[LayerBlob]) -> String {
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(&layer.media_type, &layer.packed, "")).collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
        descriptor(CONFIG, config.as_bytes(), ""),
        layers.join(",")
    )
}

pub(crate) fn index(descriptors: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, descriptors.join(","))
}

/// The members of a layout, by their paths.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

pub(crate) fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/{}", digest(bytes).replace(':', "/")), bytes.to_vec())
}

/// Assembles an OCI layout with one image called `latest`.
pub(crate) fn layout(layers: &[LayerBlob], section: &str) -> Files {
    let config = config(layers, section);
    let manifest = manifest(&config, layers);
    let name = r#","annotations":{"org.opencontainers.image.ref.name":"latest"}"#;
    let index = index(&[descriptor(MANIFEST, manifest.as_bytes(), name)]);
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.into_bytes()),
        blob(config.as_bytes()),
        blob(manifest.as_bytes()),
    ];
    files.extend(layers.iter().map(|layer| blob(&layer.packed)));
    files
}

/// Writes files below a directory.
pub(crate) fn write(directory: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }
}
