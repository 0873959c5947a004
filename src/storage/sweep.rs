//! The sweep: takes away what no image and no container needs.
//!
//! Names and images are forgotten first, by whoever removes them; here the rest of the store is compared with what is
//! still recorded. What is in no record is moved into `tmp/` while nobody else uses the store, which takes moments, and
//! deleted afterwards. A kill in between leaves it in `tmp/`, where nobody looks for it and the next one deletes it.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::manifest;
use crate::image::{limits, media};
use crate::support::lock::{Lock, Sharing};
use crate::support::remove::remove_tree;

use super::store::{Store, open_private};

/// What a sweep has taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub layers: u64,
    pub blobs: u64,
    /// Bytes of the blobs, and of the files in the layers.
    pub bytes: u64,
}

/// A store that nobody else uses while this lives.
pub struct Alone(#[expect(dead_code, reason = "held for its lock")] Lock);

/// What the prefix of things to delete is, in `tmp/`.
const GONE: &str = "gone.";

/// How often, and how long apart, a store is tried that others use for moments.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

impl Store {
    /// Sets aside what no record needs, to be deleted. `layers` are kept as well: containers use them. None where the
    /// store is in use by a pull, whose layers no record knows yet: the next sweep takes care of it.
    pub fn set_aside(&self, layers: &HashSet<Digest>) -> Result<Option<Swept>> {
        let set_aside = || {
            let Some(_alone) = self.try_alone()? else { return Ok(None) };
            let staging = open_private(self.root(), "tmp")?;
            self.set_all_aside(&staging, layers).map(Some)
        };
        set_aside().map_err(|error: Error| error.context(format!("sweep the store {}", self.path().display())))
    }

    /// Keeps all others out of the store, or gives none where it is in use for longer than moments.
    pub fn try_alone(&self) -> Result<Option<Alone>> {
        for _ in 0..TRIES {
            if let Some(lock) = Lock::try_now(self.lock_file("lock")?, Sharing::Exclusive)? {
                return Ok(Some(Alone(lock)));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(None)
    }

    /// Deletes what was set aside, with rights over the files in it.
    pub fn delete_set_aside(&self) -> Result<()> {
        let delete = || {
            let staging = open_private(self.root(), "tmp")?;
            let gone = names(&reopen(&staging)?)?;
            gone.iter().filter(|name| name.starts_with(GONE)).try_for_each(|name| remove_tree(&staging, name))
        };
        delete().map_err(|error: Error| error.context(format!("sweep the store {}", self.path().display())))
    }

    /// Moves what is not needed out of the way. Nobody else uses the store meanwhile.
    fn set_all_aside(&self, staging: &OwnedFd, in_use: &HashSet<Digest>) -> Result<Swept> {
        let mut swept = Swept::default();
        let needed = self.needed(in_use)?;
        let mut count = 0_u32;
        let mut set_aside = |directory: &OwnedFd, name: &str| move_aside(directory, name, staging, &mut count);
        for (algorithm, directory) in subdirectories(self.root(), "blobs")? {
            for hex in names(&directory)? {
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else { continue };
                if needed.blobs.contains(&digest) {
                    continue;
                }
                let stat = rustix::fs::statat(&directory, hex.as_str(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
                swept.bytes = swept.bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
                swept.blobs += 1;
                set_aside(&directory, &hex)?;
            }
        }
        let form = format!("layers/{}", self.form().name());
        for (algorithm, directory) in subdirectories(self.root(), &form)? {
            for hex in names(&directory)? {
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else { continue };
                if needed.layers.contains(&digest) {
                    continue;
                }
                swept.bytes = swept.bytes.saturating_add(self.layer_facts(&digest)?.unwrap_or_default().size);
                swept.layers += 1;
                set_aside(&directory, &hex)?;
            }
        }
        Ok(swept)
    }

    /// Gathers what the records need.
    fn needed(&self, in_use: &HashSet<Digest>) -> Result<Needed> {
        let mut needed = Needed { blobs: HashSet::new(), layers: in_use.clone() };
        for image in self.images()? {
            needed.blobs.insert(image.id);
            needed.blobs.extend(image.manifests.iter().map(|manifest| manifest.digest));
            needed.blobs.extend(image.layers.iter().chain(&image.other_layers).map(|layer| layer.digest));
            needed.layers.extend(image.layers.iter().chain(&image.other_layers).map(|layer| layer.diff_id));
        }
        for name in self.names()? {
            self.need_document(&name.target.media_type, name.target.digest, &mut needed.blobs, limits::INDEX_DEPTH);
        }
        Ok(needed)
    }

    /// Keeps an index with those of its documents that are here. What cannot be read needs nothing.
    fn need_document(&self, media_type: &str, digest: Digest, blobs: &mut HashSet<Digest>, depth: usize) {
        blobs.insert(digest);
        if depth == 0 || !matches!(media::document(media_type), Ok(media::Document::Index)) {
            return;
        }
        let Ok(bytes) = self.read_document(&digest, limits::MANIFEST_BYTES) else { return };
        for choice in manifest::parse_index(&bytes).unwrap_or_default() {
            blobs.insert(choice.descriptor.digest);
        }
    }
}

/// Moves a thing of the store to where the next sweep deletes it. `count` makes names; it begins anywhere.
pub(super) fn move_aside(directory: &OwnedFd, name: &str, staging: &OwnedFd, count: &mut u32) -> Result<()> {
    loop {
        *count += 1;
        let aside = format!("{GONE}{}.{count}", rustix::process::getpid().as_raw_nonzero());
        match rustix::fs::renameat_with(directory, name, staging, &aside, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            answer => return answer.with_context(|| format!("move {name} aside")),
        }
    }
}

struct Needed {
    blobs: HashSet<Digest>,
    layers: HashSet<Digest>,
}

pub(super) fn subdirectories(root: std::os::fd::BorrowedFd<'_>, path: &str) -> Result<Vec<(String, OwnedFd)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::openat(root, path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("open {path}")),
    };
    let mut found = Vec::new();
    for name in names(&top)? {
        let directory = rustix::fs::openat(&top, name.as_str(), flags, Mode::empty());
        found.push((name.clone(), directory.with_context(|| format!("open {path}/{name}"))?));
    }
    Ok(found)
}

/// Lists a directory of the store.
pub(super) fn names(directory: &OwnedFd) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_str().unwrap_or_default();
        if !name.starts_with('.') && !name.is_empty() && entry.file_type() != FileType::Symlink {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

pub(super) fn reopen(directory: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, ".", flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::digest::Algorithm;
    use crate::image::unpack::{Form, OverlayXattr, Ownership};
    use crate::storage::images::{Descriptor, FORMAT, ImageRecord, LayerRecord, NameRecord};

    const FORM: Form = Form { ownership: Ownership::Record, overlay: OverlayXattr::User };

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    #[test]
    fn what_nothing_needs_goes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store"), FORM).unwrap();
        let blobs = store.blobs().unwrap();
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
               {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":7}}]}}"#,
            digest("listed")
        );
        for text in ["config", "manifest", "packed", "other", "listed", "rubbish", &index] {
            blobs.put_document(&digest(text), text.as_bytes()).unwrap();
        }
        let layer = |name: &str| place.path().join("store/layers/record.user/sha256").join(digest(name).hex());
        for name in ["layer", "used", "old"] {
            std::fs::create_dir_all(layer(name).join("diff/x")).unwrap();
        }
        let descriptor = |text: &str| Descriptor { media_type: "m".into(), digest: digest(text), size: 1 };
        let reference: crate::image::reference::Reference = "a".parse().unwrap();
        let target = Descriptor { media_type: manifest::DOCUMENT_TYPES[0].into(), ..descriptor(&index) };
        let changing = store.change().unwrap();
        let image = ImageRecord {
            format: FORMAT,
            id: digest("config"),
            config_size: 1,
            manifests: vec![descriptor("manifest")],
            pulled: Vec::new(),
            layers: vec![LayerRecord { digest: digest("packed"), size: 1, diff_id: digest("layer") }],
            other_layers: vec![LayerRecord { digest: digest("other"), size: 1, diff_id: digest("layer") }],
            created: None,
            size: 0,
            platform: String::new(),
            labels: std::collections::BTreeMap::new(),
        };
        store.put_image(&changing, image).unwrap();
        let name = NameRecord { format: FORMAT, name: reference.to_string(), target, image: None, since: 0 };
        store.put_name(&changing, &reference, &name).unwrap();

        let held = store.hold().unwrap();
        assert_eq!(store.set_aside(&HashSet::new()).unwrap(), None, "swept under a puller's feet");
        drop(held);
        let swept = store.set_aside(&HashSet::from([digest("used")])).unwrap().unwrap();
        assert_eq!((swept.layers, swept.blobs, swept.bytes), (1, 1, "rubbish".len() as u64));
        store.delete_set_aside().unwrap();
        for text in ["config", "manifest", "packed", "other", "listed", &index] {
            assert!(store.open_blob(&digest(text)).unwrap().is_some(), "{text} is gone");
        }
        assert!(store.open_blob(&digest("rubbish")).unwrap().is_none());
        assert!(layer("layer").exists() && layer("used").exists() && !layer("old").exists());
        assert_eq!(std::fs::read_dir(place.path().join("store/tmp")).unwrap().count(), 0);
    }
}
