//! `system check`: proves the store, and mends it.
//!
//! What is damaged is forgotten, deleted or made again from what is sound, never guessed. A layer comes again from its
//! packed blob; an image that has lost a blob has to be pulled again, since nothing here can stand for it.

use std::collections::HashSet;
use std::io::Read;

use crate::engine::engine::Engine;
use crate::engine::images::{find, remove};
use crate::engine::record::Status;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::resolve::LayerReader;
use crate::storage::check::{Depth, Finding, Grade, Report};
use crate::storage::images::{ImageRecord, LayerRecord};
use crate::storage::store::Store;
use crate::storage::sweep::Alone;

/// What was found, and what of it is still so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub found: Vec<Finding>,
    /// Without a repair, all of it.
    pub left: Vec<Finding>,
}

impl Checked {
    /// Says whether anything is still not as it should be. What killed commands have left is as it should be.
    pub fn is_sound(&self) -> bool {
        self.left.iter().all(|finding| finding.grade == Grade::Remains)
    }
}

/// Checks the store, and only looks.
pub fn check(engine: &Engine, depth: Depth) -> Result<Checked> {
    let store = engine.store()?;
    let alone = alone(&store)?;
    let found = store.check(&alone, depth)?.findings;
    Ok(Checked { left: found.clone(), found })
}

/// Checks the store, mends what can be mended, and checks it again.
pub fn repair(engine: &Engine, depth: Depth) -> Result<Checked> {
    let store = engine.store()?;
    let alone = alone(&store)?;
    let report = store.check(&alone, depth)?;
    if report.findings.is_empty() {
        return Ok(Checked { found: Vec::new(), left: Vec::new() });
    }
    let changing = store.change()?;
    store.mend_records(&alone, &changing, &report)?;
    store.set_bad_layers_aside(&alone, &report, &layers_in_use(engine)?)?;
    for image in store.images()? {
        if is_hit(&image, &report) && make_layers(engine, &store, &image).is_err() {
            // Its blobs are not what they should be, which a look at sizes alone does not show.
            forget(&store, &changing, &image)?;
        }
    }
    engine.with_file_rights(|| store.clear_staging(&alone))?;
    let left = store.check(&alone, depth)?.findings;
    drop((changing, alone));
    if left.is_empty() {
        // What only the forgotten images needed. Beside a record that cannot be read nothing is known to be unneeded.
        remove::sweep(engine, &store)?;
    }
    Ok(Checked { found: report.findings, left })
}

fn alone(store: &Store) -> Result<Alone> {
    store.try_alone()?.ok_or_else(|| {
        Error::new(Kind::State, format!("the store {} is in use", store.path().display()))
            .with_hint("wait until the pulls and pushes that are under way have ended")
    })
}

/// Layers that mounted overlays are made of. A stopped container mounts what is there when it is started again.
fn layers_in_use(engine: &Engine) -> Result<HashSet<Digest>> {
    let listing = engine.containers()?.list()?;
    if let Some(error) = listing.unreadable.into_iter().next() {
        return Err(error);
    }
    let is_mounted = |status: &Status| matches!(status, Status::Running { .. } | Status::Lost { .. });
    let running = listing.containers.into_iter().filter(|(_, status)| is_mounted(status));
    Ok(running.flat_map(|(record, _)| record.needed_layers().copied().collect::<Vec<_>>()).collect())
}

fn is_hit(image: &ImageRecord, report: &Report) -> bool {
    image.layers.iter().any(|layer| report.bad_layers.contains(&layer.diff_id))
}

/// Makes the layers of an image that are missing from their blobs.
fn make_layers(engine: &Engine, store: &Store, image: &ImageRecord) -> Result<()> {
    let described = find::open(store, image)?;
    let packed = Packed { store, layers: &image.layers };
    engine.with_file_rights(|| store.ensure_layers(&described, &packed, &|_| ()).map(drop))
}

fn forget(store: &Store, changing: &crate::storage::images::Changing, image: &ImageRecord) -> Result<()> {
    for name in store.names()?.into_iter().filter(|name| name.image == Some(image.id)) {
        store.remove_name(changing, &crate::image::reference::Reference::parse_exact(&name.name)?)?;
    }
    store.remove_image(changing, &image.id).map(drop)
}

/// Layers as they lie packed in the store.
struct Packed<'a> {
    store: &'a Store,
    layers: &'a [LayerRecord],
}

impl LayerReader for Packed<'_> {
    fn open_layer(&self, index: usize) -> Result<Box<dyn Read + Send + '_>> {
        let digest = self.layers[index].digest;
        let open =
            || self.store.open_blob(&digest)?.ok_or_else(|| Error::new(Kind::NotFound, "it is not in the store"));
        let (file, _) = open().with_context(|| format!("blob {digest}"))?;
        Ok(Box::new(file))
    }
}
