//! A docker-archive: what `docker save` and `podman save` write.
//!
//! `manifest.json` lists images by the names of their members. Nothing in it is a digest, so the configuration is hashed
//! here (and compared with its name, which is by custom its hash), and its diff ids prove the layers.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::error::{Context, Error, Kind, Result};

use super::archive::Archive;
use super::digest::{self, Algorithm, Digest, Expected};
use super::limits;
use super::resolve::{self, Image, LayerReader};
use super::source::Selector;

/// What `manifest.json` says of one image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Saved {
    /// Gives what the image is called, as docker writes it.
    pub(crate) fn names(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

/// An open archive, and what is in it.
pub(crate) struct DockerArchive {
    archive: Archive,
    images: Vec<Saved>,
}

/// Opens one image of an archive.
pub(crate) fn open(
    path: &Path,
    selector: &Selector,
    scratch: &dyn Fn() -> Result<File>,
) -> Result<(Image, Box<dyn LayerReader>)> {
    let archive = Arc::new(DockerArchive::open(path, scratch)?);
    DockerArchive::open_image(&archive, archive.choose(selector)?)
}

impl DockerArchive {
    /// Opens an archive and reads its list of images.
    pub(crate) fn open(path: &Path, scratch: &dyn Fn() -> Result<File>) -> Result<Self> {
        Self::new(Archive::open(path, scratch)?)
    }

    /// Reads an archive's list of images.
    pub(crate) fn new(archive: Archive) -> Result<Self> {
        let manifest = archive.read("manifest.json", limits::MANIFEST_BYTES).map_err(|error| match error.kind() {
            Kind::NotFound => Error::invalid("not a docker archive: there is no file manifest.json in it")
                .with_hint("if it holds an OCI layout, try oci-archive:FILE"),
            _ => error,
        })?;
        let images = crate::spec::load::parse_json(&manifest).context("manifest.json")?;
        Ok(Self { archive, images })
    }

    /// Says how many images there are.
    pub(crate) fn count(&self) -> usize {
        self.images.len()
    }

    /// Finds the image that is meant.
    pub(crate) fn choose(&self, selector: &Selector) -> Result<&Saved> {
        choose(&self.images, selector).context("manifest.json")
    }

    /// Reads what an image is made of.
    pub(crate) fn open_image(this: &Arc<Self>, saved: &Saved) -> Result<(Image, Box<dyn LayerReader>)> {
        let (archive, config) = (&this.archive, &saved.config);
        let layers = saved.layers.clone().unwrap_or_default();
        if layers.len() > limits::LAYERS {
            return Err(Error::invalid(format!(
                "manifest.json: {} layers are more than {}",
                layers.len(),
                limits::LAYERS
            )));
        }
        let config_json = archive.read(config, limits::CONFIG_BYTES)?;
        if let Some(stated) = digest_in_name(config) {
            digest::compare("digest", &stated, &Digest::of(stated.algorithm(), &config_json))
                .with_context(|| config.clone())?;
        }
        let mut packed = Vec::new();
        for name in &layers {
            let (_, size) = archive.member(name)?;
            packed.push((Expected { digest: None, size: Some(size) }, None));
        }
        let image = resolve::describe(config_json, &packed, None).with_context(|| config.clone())?;
        Ok((image, Box::new(Members { archive: Arc::clone(this), layers })))
    }
}

struct Members {
    archive: Arc<DockerArchive>,
    layers: Vec<String>,
}

impl LayerReader for Members {
    fn open_layer(&self, index: usize) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.archive.archive.member(&self.layers[index])?.0))
    }
}

fn choose<'s>(saved: &'s [Saved], selector: &Selector) -> Result<&'s Saved> {
    let tags: Vec<String> = saved.iter().flat_map(|image| image.repo_tags.iter().flatten().cloned()).collect();
    let not_found =
        |message: String| Error::new(Kind::NotFound, message).with_hint(format!("images in it: {}", tags.join(", ")));
    match selector {
        Selector::Only if saved.len() == 1 => Ok(&saved[0]),
        Selector::Only => Err(not_found(format!("it holds {} images, and none of them is named", saved.len()))),
        Selector::Place(place) if *place < saved.len() => Ok(&saved[*place]),
        Selector::Place(place) => Err(not_found(format!("no image at place {place} of {}", saved.len()))),
        Selector::Name(name) => {
            let find = |wanted: &str| {
                saved.iter().position(|image| image.repo_tags.iter().flatten().any(|tag| full_name(tag) == wanted))
            };
            // podman puts what it builds under localhost/ and finds it by its short name.
            let found = find(&full_name(name)).or_else(|| find(&full_name(&format!("localhost/{name}"))));
            match found {
                Some(place) => Ok(&saved[place]),
                None => Err(not_found(format!("no image is called {name:?}"))),
            }
        }
    }
}

/// Writes a name out as docker understands it, so that `app` finds `docker.io/library/app:latest`.
fn full_name(name: &str) -> String {
    let mut full = match name.split_once('/') {
        // A registry has a dot or a port in its name, or is localhost.
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    let last = full.rsplit('/').next().unwrap_or_default();
    if !last.contains(':') && !last.contains('@') {
        full.push_str(":latest");
    }
    full
}

/// Reads the digest that names a configuration: `<hex>.json`, `sha256:<hex>` or `blobs/sha256/<hex>`.
fn digest_in_name(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next()?;
    let hex = last.strip_suffix(".json").unwrap_or(last);
    let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
    format!("{}:{hex}", Algorithm::Sha256.name()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_full() {
        for (name, full) in [
            ("app", "docker.io/library/app:latest"),
            ("app:1", "docker.io/library/app:1"),
            ("me/app", "docker.io/me/app:latest"),
            ("localhost/app:1", "localhost/app:1"),
            ("host:5000/app", "host:5000/app:latest"),
            ("docker.io/library/app", "docker.io/library/app:latest"),
        ] {
            assert_eq!(full_name(name), full);
        }
    }
}
