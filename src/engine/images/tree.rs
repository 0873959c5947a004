//! `image tree`: the layers of an image, and which other images end with each of them.

use crate::engine::engine::Engine;
use crate::error::Result;
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::storage::images::ImageRecord;

use super::find::{self, Found};

/// An image and what it is made of.
pub struct Tree {
    pub image: ImageRecord,
    pub names: Vec<String>,
    /// The lowest first.
    pub layers: Vec<Branch>,
}

/// One layer.
pub struct Branch {
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// Names of the images whose last layer it is.
    pub tops: Vec<String>,
}

/// Describes an image's layers.
pub fn tree(engine: &Engine, word: &str) -> Result<Tree> {
    let stores = engine.stores()?;
    let (store, Found { image, .. }) = find::find(&stores, word)?;
    let (images, records) = (store.images()?, store.names()?);
    let names_of = |id: &Digest| -> Result<Vec<String>> {
        let mut names = Vec::new();
        for record in records.iter().filter(|record| record.image == Some(*id)) {
            names.push(Reference::parse(&record.name)?.familiar());
        }
        names.sort();
        Ok(names)
    };
    let stack = |image: &ImageRecord| image.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>();
    let whole = stack(&image);
    let mut layers = Vec::with_capacity(whole.len());
    for (index, diff_id) in whole.iter().enumerate() {
        let mut tops = Vec::new();
        for other in images.iter().filter(|other| stack(other) == whole[..=index]) {
            tops.extend(names_of(&other.id)?);
        }
        tops.sort();
        let size = store.layer_facts(diff_id)?.unwrap_or_default().size;
        layers.push(Branch { diff_id: *diff_id, size, tops });
    }
    Ok(Tree { names: names_of(&image.id)?, image, layers })
}
