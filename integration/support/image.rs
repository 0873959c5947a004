//! Builds images of every local kind out of any layers, right or wrong: OCI layouts, OCI archives, docker archives.
//! Fixtures are assembled on the spot; nothing is downloaded.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::bundle::fill_rootfs;
use super::scene::write;
use super::tar::{self, Entry};
use super::{Scene, Who};

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One layer. Digests are right unless they are set.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) blob: Vec<u8>,
    pub(crate) media_type: &'static str,
    /// The digest in the manifest.
    pub(crate) digest: String,
    /// The size in the manifest.
    pub(crate) size: usize,
    /// The digest of the uncompressed layer in the config.
    pub(crate) diff_id: String,
}

impl Layer {
    pub(crate) fn new(archive: &[u8], compression: Compression) -> Self {
        let (blob, media_type) = match compression {
            Compression::None => (archive.to_vec(), "application/vnd.oci.image.layer.v1.tar"),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(archive).expect("compress into memory");
                (encoder.finish().expect("compress into memory"), "application/vnd.oci.image.layer.v1.tar+gzip")
            }
            Compression::Zstd => {
                let blob = zstd::encode_all(archive, 1).expect("compress into memory");
                (blob, "application/vnd.oci.image.layer.v1.tar+zstd")
            }
        };
        Self { digest: digest(&blob), size: blob.len(), diff_id: digest(archive), blob, media_type }
    }
}

/// An image under construction.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) layers: Vec<Layer>,
    /// The `config` part of the image's configuration.
    pub(crate) config: Value,
    pub(crate) tag: String,
}

impl Image {
    /// An image of these layers whose command is the probe.
    pub(crate) fn new(layers: Vec<Layer>) -> Self {
        Self { layers, config: json!({ "Cmd": ["/probe"], "Env": ["PATH=/bin:/usr/bin"] }), tag: "latest".to_owned() }
    }

    /// An image with the probe and busybox in it.
    pub(crate) fn probe(scene: &Scene) -> Self {
        Self::new(vec![base_layer(scene.who)])
    }

    /// A small image: busybox under a few names. For what is refused before anything runs.
    pub(crate) fn busybox(scene: &Scene) -> Self {
        let busybox = read(&super::suite::kit().payload(scene.who).join("busybox"));
        let mut entries =
            vec![Entry::directory("bin"), Entry::directory("etc"), Entry::program("bin/busybox", busybox)];
        entries.extend(["ls", "sh", "true"].map(|name| Entry::symlink(&format!("bin/{name}"), "busybox")));
        entries.push(Entry::file("etc/passwd", "root:x:0:0::/root:/bin/sh\n"));
        Self::new(vec![Layer::new(&tar::archive(&entries), Compression::None)])
    }

    /// Adds a layer of these entries, uncompressed.
    pub(crate) fn layer(mut self, entries: &[Entry]) -> Self {
        self.layers.push(Layer::new(&tar::archive(entries), Compression::None));
        self
    }

    /// The whole configuration document.
    pub(crate) fn configuration(&self) -> Value {
        json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": self.layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>() },
            "history": [],
        })
    }

    /// Writes an OCI layout, for a test to damage before it is used.
    pub(crate) fn layout(&self, scene: &Scene, name: &str) -> Layout {
        let directory = scene.path().join(name);
        std::fs::create_dir_all(directory.join("blobs/sha256")).expect("make a layout");
        let layout = Layout { directory, tag: self.tag.clone() };
        for layer in &self.layers {
            let actual = layer.digest.strip_prefix("sha256:").filter(|name| !name.contains('/'));
            write(&layout.blobs().join(actual.unwrap_or("misnamed")), &layer.blob);
        }
        let configuration = self.configuration().to_string();
        let configuration_digest = layout.add_blob(configuration.as_bytes());
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": configuration_digest,
                "size": configuration.len(),
            },
            "layers": layers,
        });
        layout.set_manifest(&manifest.to_string());
        write(&layout.directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
        scene.account().own(&layout.directory);
        layout
    }

    /// Writes a docker archive, as `docker save` does.
    pub(crate) fn docker_archive(&self, scene: &Scene, name: &str) -> PathBuf {
        let configuration = self.configuration().to_string();
        let configuration_name = format!("{}.json", hex(configuration.as_bytes()));
        let names: Vec<String> = self.layers.iter().map(|layer| format!("{}.tar", hex(&layer.blob))).collect();
        let manifest = json!([{
            "Config": configuration_name,
            "RepoTags": [format!("localhost/test:{}", self.tag)],
            "Layers": names,
        }]);
        let mut entries = vec![Entry::file(&configuration_name, configuration)];
        entries.extend(self.layers.iter().zip(&names).map(|(layer, name)| Entry::file(name, layer.blob.clone())));
        entries.push(Entry::file("manifest.json", manifest.to_string()));
        write_archive(scene, name, &entries)
    }
}

/// An OCI layout on disk.
pub(crate) struct Layout {
    pub(crate) directory: PathBuf,
    tag: String,
}

impl Layout {
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.directory.join("blobs/sha256")
    }

    /// The blob file of a digest.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.blobs().join(digest.trim_start_matches("sha256:"))
    }

    /// Adds a blob under its right name.
    pub(crate) fn add_blob(&self, bytes: &[u8]) -> String {
        write(&self.blobs().join(hex(bytes)), bytes);
        digest(bytes)
    }

    /// Makes a manifest the layout's only one, whatever it says.
    pub(crate) fn set_manifest(&self, manifest: &str) {
        let digest = self.add_blob(manifest.as_bytes());
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": manifest.len(),
                "annotations": { "org.opencontainers.image.ref.name": self.tag },
            }],
        });
        write(&self.directory.join("index.json"), index.to_string());
    }

    /// The layout's manifest.
    pub(crate) fn manifest(&self) -> Value {
        let index: Value = serde_json::from_slice(&read(&self.directory.join("index.json"))).expect("our own index");
        let digest = index["manifests"][0]["digest"].as_str().expect("our own index");
        serde_json::from_slice(&read(&self.blob(digest))).expect("our own manifest")
    }

    /// Names the image as `husk run` takes it.
    pub(crate) fn reference(&self) -> String {
        format!("oci:{}:{}", self.directory.display(), self.tag)
    }

    /// Packs the layout into an OCI archive.
    pub(crate) fn archive(&self, scene: &Scene, name: &str) -> PathBuf {
        let mut entries = Vec::new();
        for entry in walkdir::WalkDir::new(&self.directory).min_depth(1).sort_by_file_name() {
            let entry = entry.expect("walk our own layout");
            let name = entry.path().strip_prefix(&self.directory).expect("walked from there").display().to_string();
            entries.push(if entry.file_type().is_dir() {
                Entry::directory(&name)
            } else {
                Entry::file(&name, read(entry.path()))
            });
        }
        write_archive(scene, name, &entries)
    }
}

/// Writes a tar file into the scene.
pub(crate) fn write_archive(scene: &Scene, name: &str, entries: &[Entry]) -> PathBuf {
    let path = scene.path().join(name);
    write(&path, tar::archive(entries));
    scene.account().own(&path);
    path
}

/// The files of a bundle's root file system as entries: the probe, busybox, account files.
fn base_layer(who: Who) -> Layer {
    use std::sync::OnceLock;
    static LAYER: OnceLock<Layer> = OnceLock::new();
    let make = || {
        let directory = tempfile::tempdir_in(&super::suite::kit().scratch).expect("make a directory");
        fill_rootfs(directory.path(), who);
        let mut entries = Vec::new();
        for entry in walkdir::WalkDir::new(directory.path()).min_depth(1).sort_by_file_name() {
            let entry = entry.expect("walk our own tree");
            let name = entry.path().strip_prefix(directory.path()).expect("walked from there").display().to_string();
            entries.push(if entry.file_type().is_dir() {
                Entry::directory(&name)
            } else if entry.file_type().is_symlink() {
                Entry::symlink(
                    &name,
                    &std::fs::read_link(entry.path()).expect("read our own link").display().to_string(),
                )
            } else if name.starts_with("etc/") {
                Entry::file(&name, read(entry.path()))
            } else {
                Entry::program(&name, read(entry.path()))
            });
        }
        Layer::new(&tar::archive(&entries), Compression::None)
    };
    LAYER.get_or_init(make).clone()
}

/// `sha256:…` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("strings take everything");
        text
    })
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}
