//! `system df`: what takes how much of the disk, as du(1) counts it.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::engine::engine::Engine;
use crate::engine::record::{Record, Status};
use crate::error::{Context, Result};
use crate::image::digest::Digest;
use crate::storage::images::{ImageRecord, NameRecord};
use crate::support::usage::Usage;

/// One line of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    pub total: usize,
    /// Used by a container, or for a container: running.
    pub active: usize,
    pub size: u64,
    /// What a prune of all that is not active would free.
    pub reclaimable: u64,
}

/// One image, with what is only its own and what it shares with others.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    pub image: ImageRecord,
    pub names: Vec<NameRecord>,
    pub shared: u64,
    pub unique: u64,
    pub containers: usize,
}

/// One container, without the layers of its image.
#[derive(Clone, Debug)]
pub struct ContainerUsage {
    pub record: Record,
    pub status: Status,
    pub size: u64,
    pub volumes: Vec<(String, u64)>,
}

/// All that the data root holds. The sizes of the three kinds add up to its own.
#[derive(Clone, Debug)]
pub struct Usages {
    pub images: Kind,
    pub containers: Kind,
    pub volumes: Kind,
    pub each_image: Vec<ImageUsage>,
    pub each_container: Vec<ContainerUsage>,
}

/// What was measured with rights over the files, which may be in another process.
#[derive(Default, Serialize, Deserialize)]
struct Measured {
    /// Blobs and layers, by what follows `store/`.
    objects: BTreeMap<String, u64>,
    /// The whole of `store/`, and what lies beside it.
    store: u64,
    containers: BTreeMap<String, (u64, BTreeMap<String, u64>)>,
    /// What is neither.
    rest: u64,
}

/// Measures the data root. What other commands change meanwhile is counted as it was met.
pub fn measure(engine: &Engine) -> Result<Usages> {
    let store = engine.store()?;
    let mut answer = store.scratch_file()?;
    let mut output = answer.try_clone()?;
    engine.with_file_rights(|| {
        let measured = measure_root(&engine.settings.data_root)?;
        output.write_all(&serde_json::to_vec(&measured)?).context("hand on what was measured")
    })?;
    let mut text = Vec::new();
    answer.seek(SeekFrom::Start(0))?;
    answer.read_to_end(&mut text).context("read what was measured")?;
    let measured: Measured = serde_json::from_slice(&text)?;
    let (images, names) = (store.images()?, store.names()?);
    let mut listing = engine.containers()?.list()?;
    if let Some(error) = listing.unreadable.pop() {
        return Err(error);
    }
    let form = store.form().name();
    Ok(sum_up(&measured, form, &images, &names, listing.containers))
}

fn measure_root(path: &std::path::Path) -> Result<Measured> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))?;
    let (mut usage, mut measured) = (Usage::default(), Measured::default());
    for top in ["blobs", "layers"] {
        for object in objects(&root, top)? {
            let bytes = usage.of_tree(root.as_fd(), &format!("store/{object}"))?;
            measured.store += bytes;
            measured.objects.insert(object, bytes);
        }
    }
    // Each file is counted once: what is left of the whole is the directories above, records and parts.
    let whole = Usage::default().of_tree(root.as_fd(), "store")?;
    measured.store = measured.store.max(whole);
    for id in list(&root, "containers")? {
        let mut volumes = BTreeMap::new();
        for volume in list(&root, &format!("containers/{id}/volumes"))? {
            let bytes = usage.of_tree(root.as_fd(), &format!("containers/{id}/volumes/{volume}"))?;
            volumes.insert(volume, bytes);
        }
        let whole = Usage::default().of_tree(root.as_fd(), &format!("containers/{id}"))?;
        let rest = whole.saturating_sub(volumes.values().sum());
        measured.containers.insert(id, (rest, volumes));
    }
    let everything = Usage::default().of_tree(root.as_fd(), ".")?;
    let known: u64 =
        measured.containers.values().map(|(rest, volumes)| rest + volumes.values().sum::<u64>()).sum::<u64>();
    measured.rest = everything.saturating_sub(measured.store + known);
    Ok(measured)
}

/// Lists what is two, or for layers three, directories down.
fn objects(root: &OwnedFd, top: &str) -> Result<Vec<String>> {
    let mut level = vec![top.to_owned()];
    for _ in 0..(if top == "layers" { 3 } else { 2 }) {
        let mut next = Vec::new();
        for directory in level {
            let names = list(root, &format!("store/{directory}"))?;
            next.extend(names.into_iter().map(|name| format!("{directory}/{name}")));
        }
        level = next;
    }
    Ok(level)
}

fn list(root: &OwnedFd, path: &str) -> Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(root, path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(Vec::new()),
        answer => answer.with_context(|| format!("open {path}"))?,
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory).with_context(|| format!("list {path}"))? {
        let entry = entry.with_context(|| format!("list {path}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn sum_up(
    measured: &Measured,
    form: &str,
    images: &[ImageRecord],
    names: &[NameRecord],
    containers: Vec<(Record, Status)>,
) -> Usages {
    let size_of = |object: &String| measured.objects.get(object).copied().unwrap_or_default();
    let needs: Vec<HashSet<String>> = images.iter().map(|image| objects_of(image, form)).collect();
    let users = |image: &ImageRecord| {
        let id = image.id.to_string();
        containers.iter().filter(|(record, _)| record.uses_image(&id)).count()
    };
    let mut kept: HashSet<String> =
        containers.iter().flat_map(|(record, _)| record.needed_layers()).map(|layer| layer_path(layer, form)).collect();
    let mut each_image = Vec::new();
    let mut all = Kind { total: images.len(), size: measured.store + measured.rest, ..Kind::default() };
    for (index, image) in images.iter().enumerate() {
        let others = || needs.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, needed)| needed);
        let (shared, unique): (Vec<_>, Vec<_>) =
            needs[index].iter().partition(|object| others().any(|needed| needed.contains(*object)));
        let containers = users(image);
        if containers > 0 {
            all.active += 1;
            kept.extend(needs[index].iter().cloned());
        }
        each_image.push(ImageUsage {
            image: image.clone(),
            names: names.iter().filter(|name| name.image == Some(image.id)).cloned().collect(),
            shared: shared.into_iter().map(size_of).sum(),
            unique: unique.into_iter().map(size_of).sum(),
            containers,
        });
    }
    each_image.sort_by(|one, other| other.image.created.cmp(&one.image.created));
    let objects: u64 = measured.objects.values().sum();
    all.reclaimable = objects.saturating_sub(kept.iter().map(size_of).sum());

    let mut each_container = Vec::new();
    let (mut running, mut volumes) = (Kind::default(), Kind::default());
    for (record, status) in containers {
        let (size, held) = measured.containers.get(record.id.as_str()).cloned().unwrap_or_default();
        let is_running = matches!(status, Status::Running { .. });
        running.active += usize::from(is_running);
        running.reclaimable += if is_running { 0 } else { size };
        // A volume belongs to its container, and goes with it.
        volumes.active += held.len();
        each_container.push(ContainerUsage { record, status, size, volumes: held.into_iter().collect() });
    }
    running.total = each_container.len();
    running.size = measured.containers.values().map(|(size, _)| size).sum();
    volumes.total = volumes.active;
    volumes.size = measured.containers.values().flat_map(|(_, volumes)| volumes.values()).sum();
    Usages { images: all, containers: running, volumes, each_image, each_container }
}

fn objects_of(image: &ImageRecord, form: &str) -> HashSet<String> {
    let layers = || image.layers.iter().chain(&image.other_layers);
    let blobs = layers().map(|layer| layer.digest).chain(image.manifests.iter().map(|manifest| manifest.digest));
    let blobs = blobs.chain([image.id]).map(|blob| format!("blobs/{}/{}", blob.algorithm().name(), blob.hex()));
    blobs.chain(layers().map(|layer| layer_path(&layer.diff_id, form))).collect()
}

fn layer_path(diff_id: &Digest, form: &str) -> String {
    format!("layers/{form}/{}/{}", diff_id.algorithm().name(), diff_id.hex())
}
