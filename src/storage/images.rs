//! The catalogue: which images the store has, and what they are called.
//!
//! An image is a file by the digest of its configuration, a name is a file by the name; each is written whole or not at
//! all, and read without a lock. An image is recorded last, when all of its blobs and layers are in place, and forgotten
//! first: what is recorded is complete, and what no record needs may be swept.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::{Algorithm, Digest};
use crate::image::reference::Reference;
use crate::support::atomic;
use crate::support::lock::{Lock, Sharing, open_lock_file};

use super::store::{Store, StoreView, open_private};

/// The form of the records; a newer one is refused rather than misread.
pub const FORMAT: u32 = 1;

/// Bytes of a record: labels are bounded by the configuration's limit.
const RECORD_BYTES: usize = 8 << 20;

/// Bytes of a file's name (`NAME_MAX`), less what a temporary name needs.
const NAME_BYTES: usize = 240;

/// A blob as documents name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// A layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// The packed layer.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// The unpacked layer.
    pub diff_id: Digest,
}

/// An image that is complete in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRecord {
    pub format: u32,
    /// The digest of its configuration.
    pub id: Digest,
    /// Bytes of its configuration.
    pub config_size: u64,
    /// Manifests with this configuration, the newest first: the same layers may be packed in several ways.
    pub manifests: Vec<Descriptor>,
    /// Those of them that a registry gave: such a manifest is pushed as it came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pulled: Vec<Digest>,
    /// Of the newest manifest, lowest first.
    pub layers: Vec<LayerRecord>,
    /// Of older manifests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_layers: Vec<LayerRecord>,
    /// As the configuration says it: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Bytes of the files in its layers.
    pub size: u64,
    pub platform: String,
    /// For people and filters, never read by husk.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl ImageRecord {
    /// Gives the manifest that the image is known by: the newest. Every record has one.
    pub fn manifest(&self) -> Result<&Descriptor> {
        let found = self.manifests.first();
        found.ok_or_else(|| Error::new(Kind::Other, format!("image {}: its record names no manifest", self.id)))
    }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameRecord {
    pub format: u32,
    /// In full, with a tag or a digest.
    pub name: String,
    /// What the registry gave by that name: a manifest, or an index.
    pub target: Descriptor,
    /// The image in it that was chosen; none for an index that is made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// When the name came to mean this, nanoseconds since 1970.
    pub since: u64,
}

/// A store that nothing is swept from while this lives.
pub struct Held(#[expect(dead_code, reason = "held for its lock")] Lock);

impl Held {
    pub(super) fn new(lock: Lock) -> Self {
        Self(lock)
    }
}

/// A catalogue that nobody else changes while this lives.
pub struct Changing(#[expect(dead_code, reason = "held for its lock")] Lock);

impl StoreView {
    /// Finds an image by its id.
    pub fn image(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        self.read_record("images", &image_file(id))
    }

    /// Lists the images, in no order.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        self.list("images")
    }

    /// Lists the ids of the images, in no order, and reads no record.
    pub fn image_ids(&self) -> Result<Vec<Digest>> {
        let mut ids = Vec::new();
        self.for_each_file("images", |_, file| {
            let id = file.split_once('.').map(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>());
            ids.extend(id.and_then(Result::ok));
            Ok(())
        })?;
        Ok(ids)
    }

    /// Finds what a name stands for.
    pub fn name(&self, reference: &Reference) -> Result<Option<NameRecord>> {
        let found: Option<NameRecord> = self.read_record("names", &name_file(reference))?;
        // A name that is too long for a file is filed under its digest.
        Ok(found.filter(|record| record.name == reference.to_string()))
    }

    /// Lists the names, in no order.
    pub fn names(&self) -> Result<Vec<NameRecord>> {
        self.list("names")
    }

    fn read_record<T: Record>(&self, directory: &str, file: &str) -> Result<Option<T>> {
        let Some(directory_fd) = self.open_existing(directory)? else { return Ok(None) };
        read_one(directory_fd.as_fd(), file).with_context(|| format!("{}/{directory}/{file}", self.path().display()))
    }

    fn list<T: Record>(&self, directory: &str) -> Result<Vec<T>> {
        let mut records = Vec::new();
        self.for_each_file(directory, |fd, file| {
            // What vanishes meanwhile was removed.
            records.extend(read_one(fd, file).with_context(|| file.to_owned())?);
            Ok(())
        })?;
        Ok(records)
    }

    /// Reads every file of a directory of records, whatever is in it; none is an empty file.
    pub(super) fn filed<T: Record>(&self, directory: &str) -> Result<Vec<(String, Result<Option<T>>)>> {
        let mut filed = Vec::new();
        self.for_each_file(directory, |fd, file| {
            filed.push((file.to_owned(), read_one(fd, file)));
            Ok(())
        })?;
        filed.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(filed)
    }

    /// Goes through a directory of records, in no order. Files that are being written, whose names begin with a dot, are
    /// passed over.
    fn for_each_file(&self, directory: &str, mut each: impl FnMut(BorrowedFd<'_>, &str) -> Result<()>) -> Result<()> {
        let Some(fd) = self.open_existing(directory)? else { return Ok(()) };
        let mut go_through = || {
            for entry in Dir::read_from(&fd)? {
                let entry = entry?;
                let file = entry.file_name().to_string_lossy();
                if !file.starts_with('.') {
                    each(fd.as_fd(), &file)?;
                }
            }
            Ok(())
        };
        go_through().map_err(|error: Error| error.context(format!("{}/{directory}", self.path().display())))
    }

    fn open_existing(&self, directory: &str) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.root(), directory, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open {}/{directory}", self.path().display())),
        }
    }
}

impl Store {
    /// Keeps everything in the store in place until the guard is dropped. Waits only for a sweep's moment of renaming.
    pub fn hold(&self) -> Result<Held> {
        let lock = self.lock_file("lock").and_then(|file| Lock::wait(file, Sharing::Shared, |_| ()));
        lock.map(Held).with_context(|| format!("lock the store {}", self.path().display()))
    }

    /// Keeps other commands from changing what images there are and what they are called. Held for moments.
    pub fn change(&self) -> Result<Changing> {
        let lock = self.lock_file("catalogue.lock").and_then(|file| Lock::wait(file, Sharing::Exclusive, |_| ()));
        lock.map(Changing).with_context(|| format!("lock the images of {}", self.path().display()))
    }

    pub(super) fn lock_file(&self, name: &str) -> Result<OwnedFd> {
        open_lock_file(self.root(), name, OFlags::CREATE)
    }

    /// Records an image whose blobs and layers are all in place; joins it with what is known of it.
    pub fn put_image(&self, _changing: &Changing, mut record: ImageRecord) -> Result<()> {
        if let Some(known) = self.image(&record.id)? {
            let is_new = |layer: &LayerRecord| !record.layers.iter().any(|ours| ours.digest == layer.digest);
            let older: Vec<_> =
                known.layers.iter().chain(&known.other_layers).filter(|layer| is_new(layer)).copied().collect();
            for manifest in known.manifests {
                if record.manifests.iter().all(|ours| ours.digest != manifest.digest) {
                    record.manifests.push(manifest);
                }
            }
            for manifest in known.pulled {
                if !record.pulled.contains(&manifest) {
                    record.pulled.push(manifest);
                }
            }
            record.other_layers = older;
        }
        self.write_record("images", &image_file(&record.id), &record)
    }

    /// Gives a name to what it shall stand for from now on.
    pub fn put_name(&self, _changing: &Changing, reference: &Reference, record: &NameRecord) -> Result<()> {
        debug_assert_eq!(reference.to_string(), record.name, "a name is filed under itself");
        self.write_record("names", &name_file(reference), record)
    }

    /// Forgets a name; false where there was none.
    pub fn remove_name(&self, _changing: &Changing, reference: &Reference) -> Result<bool> {
        self.remove_record("names", &name_file(reference))
    }

    /// Forgets an image; its names are the caller's to forget before.
    pub fn remove_image(&self, _changing: &Changing, id: &Digest) -> Result<bool> {
        self.remove_record("images", &image_file(id))
    }

    /// Writes a record as it is, in place of what is known of the image.
    pub(super) fn replace_image(&self, _changing: &Changing, record: &ImageRecord) -> Result<()> {
        self.write_record("images", &image_file(&record.id), record)
    }

    fn write_record<T: Record>(&self, directory: &str, file: &str, record: &T) -> Result<()> {
        let fd = open_private(self.root(), directory)?;
        let bytes = serde_json::to_vec(record).context("write a record")?;
        atomic::replace(fd.as_fd(), file, &bytes).with_context(|| format!("{}/{directory}", self.path().display()))
    }

    pub(super) fn remove_record(&self, directory: &str, file: &str) -> Result<bool> {
        let Some(fd) = self.open_existing(directory)? else { return Ok(false) };
        match rustix::fs::unlinkat(&fd, file, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("delete {}/{directory}/{file}", self.path().display())),
        }
    }
}

pub(super) trait Record: Serialize + serde::de::DeserializeOwned {
    fn format(&self) -> u32;
}

impl Record for ImageRecord {
    fn format(&self) -> u32 {
        self.format
    }
}

impl Record for NameRecord {
    fn format(&self) -> u32 {
        self.format
    }
}

fn read_one<T: Record>(directory: BorrowedFd<'_>, file: &str) -> Result<Option<T>> {
    // An empty file is one that a power cut has caught.
    let Some(bytes) = atomic::read(directory, file, RECORD_BYTES)?.filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    let record: T = serde_json::from_slice(&bytes).context("parse the record")?;
    if record.format() != FORMAT {
        return Err(Error::new(Kind::Unsupported, format!("format {}: written by a newer husk", record.format())));
    }
    Ok(Some(record))
}

pub(super) fn image_file(id: &Digest) -> String {
    format!("{}.{}", id.algorithm().name(), id.hex())
}

/// Names hold no `+`, which so can stand for the slash.
pub(super) fn name_file(reference: &Reference) -> String {
    let name = reference.to_string().replace('/', "+");
    if name.len() <= NAME_BYTES { name } else { format!("+{}", Digest::of(Algorithm::Sha256, name.as_bytes()).hex()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::unpack::{Form, OverlayXattr, Ownership};

    const FORM: Form = Form { ownership: Ownership::Record, overlay: OverlayXattr::User };

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn descriptor(text: &str) -> Descriptor {
        Descriptor { media_type: "m".into(), digest: digest(text), size: 1 }
    }

    fn image(id: &str, manifest: &str, layer: &str) -> ImageRecord {
        ImageRecord {
            format: FORMAT,
            id: digest(id),
            config_size: 2,
            manifests: vec![descriptor(manifest)],
            pulled: vec![digest(manifest)],
            layers: vec![LayerRecord { digest: digest(layer), size: 3, diff_id: digest("d") }],
            other_layers: Vec::new(),
            created: None,
            size: 4,
            platform: "linux/amd64".into(),
            labels: BTreeMap::new(),
        }
    }

    fn name(reference: &Reference, image: &str) -> NameRecord {
        NameRecord {
            format: FORMAT,
            name: reference.to_string(),
            target: descriptor("index"),
            image: Some(digest(image)),
            since: 5,
        }
    }

    #[test]
    fn what_is_recorded_is_found() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store"), FORM).unwrap();
        assert!(store.images().unwrap().is_empty() && store.names().unwrap().is_empty());
        let long: Reference = format!("quay.io/{}:{}", "a".repeat(240), "t".repeat(128)).parse().unwrap();
        let short: Reference = "alpine".parse().unwrap();
        let changing = store.change().unwrap();
        store.put_image(&changing, image("i", "m", "l")).unwrap();
        for reference in [&long, &short] {
            store.put_name(&changing, reference, &name(reference, "i")).unwrap();
            assert_eq!(store.name(reference).unwrap().unwrap(), name(reference, "i"));
        }
        assert_eq!(store.image(&digest("i")).unwrap().unwrap(), image("i", "m", "l"));
        assert_eq!((store.images().unwrap().len(), store.names().unwrap().len()), (1, 2));
        assert_eq!(store.image_ids().unwrap(), [digest("i")]);
        assert!(store.remove_name(&changing, &short).unwrap() && !store.remove_name(&changing, &short).unwrap());
        assert!(store.remove_image(&changing, &digest("i")).unwrap());
        assert!(store.image(&digest("i")).unwrap().is_none());
    }

    #[test]
    fn an_image_packed_in_two_ways_keeps_both() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store"), FORM).unwrap();
        let changing = store.change().unwrap();
        for (manifest, layer) in [("gzip", "g"), ("zstd", "z"), ("gzip", "g")] {
            store.put_image(&changing, image("i", manifest, layer)).unwrap();
        }
        let found = store.image(&digest("i")).unwrap().unwrap();
        assert_eq!(found.manifests, [descriptor("gzip"), descriptor("zstd")]);
        assert_eq!(found.pulled, [digest("gzip"), digest("zstd")]);
        assert_eq!(
            found.layers.iter().chain(&found.other_layers).map(|layer| layer.digest).collect::<Vec<_>>(),
            [digest("g"), digest("z")]
        );
    }

    #[test]
    fn records_of_a_newer_husk_are_refused_and_cut_ones_passed_over() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store"), FORM).unwrap();
        let changing = store.change().unwrap();
        store.put_image(&changing, image("i", "m", "l")).unwrap();
        let file = store.path().join("images").join(image_file(&digest("i")));
        let newer = String::from_utf8(std::fs::read(&file).unwrap()).unwrap().replace("\"format\":1", "\"format\":2");
        std::fs::File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
        assert!(store.images().unwrap().is_empty());
        atomic::replace(
            std::fs::File::open(store.path().join("images")).unwrap().as_fd(),
            &image_file(&digest("i")),
            newer.as_bytes(),
        )
        .unwrap();
        assert!(store.images().unwrap_err().report().contains("newer husk"));
    }
}
