//! The check: holds the store against its own records and digests, and mends what can be mended from what is here.
//!
//! It looks at every record, blob and layer by itself and believes none of the others, since any of them may be what is
//! damaged. Nobody else may use the store meanwhile ([`Alone`]). Mending forgets and sets aside; it makes no layer, and
//! deletes no file that takes rights over a container's files: who has those does that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::{Digest, Expected, Verifier};
use crate::image::reference::Reference;
use crate::support::atomic::{self, TEMPORARY_PREFIX};
use crate::support::remove::remove_tree;

use super::blobs::PARTIAL_PREFIX;
use super::images::{Changing, ImageRecord, NameRecord, image_file, name_file};
use super::lock::Lock;
use super::store::{FACTS, LayerFacts, Store, open_private};
use super::sweep::{Alone, move_aside, names, reopen, subdirectories};

/// Said of what is worth nothing any more.
const LEFT: &str = "left by a command that was killed";

/// How closely it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Whether everything is there, and as long as it should be.
    Sizes,
    /// Whether every byte is the one that its digest says.
    Digests,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Something is not as it should be.
    Damage,
    /// What a killed command has left, and the next one takes up or away.
    Remains,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub grade: Grade,
    /// Below the store.
    pub path: String,
    pub problem: String,
}

/// What a check has found.
#[derive(Debug, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Records that can be read.
    pub images: Vec<ImageRecord>,
    names: Vec<NameRecord>,
    /// Files of `images/` and `names/` that are no records.
    broken_records: Vec<(&'static str, String)>,
    /// Missing, cut or false.
    bad_blobs: HashSet<Digest>,
    /// Missing or incomplete.
    pub bad_layers: HashSet<Digest>,
    /// Beside records and blobs: what was being written when its writer died.
    strays: Vec<(String, String)>,
}

impl Report {
    fn add(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        self.findings.push(Finding { grade: Grade::Damage, path: path.into(), problem: problem.into() });
    }

    fn add_remains(&mut self, path: String, what: &str) {
        self.findings.push(Finding { grade: Grade::Remains, path, problem: what.to_owned() });
    }
}

impl Store {
    /// Looks at everything in the store.
    pub fn check(&self, _alone: &Alone, depth: Depth) -> Result<Report> {
        let check = || {
            let mut report = Report::default();
            self.check_records(&mut report)?;
            self.check_blobs(depth, &mut report)?;
            self.check_layers(&mut report)?;
            self.check_staging(&mut report)?;
            report.findings.sort();
            Ok(report)
        };
        check().map_err(|error: Error| error.context(format!("check the store {}", self.path().display())))
    }

    fn check_records(&self, report: &mut Report) -> Result<()> {
        for (file, record) in self.filed::<ImageRecord>("images")? {
            let is_right = |record: &ImageRecord| image_file(&record.id) == file;
            if let Some(record) = sort_out("images", &file, record, is_right, report) {
                report.images.push(record);
            }
        }
        for (file, record) in self.filed::<NameRecord>("names")? {
            let is_right = |record: &NameRecord| {
                Reference::parse_exact(&record.name).is_ok_and(|reference| name_file(&reference) == file)
            };
            if let Some(record) = sort_out("names", &file, record, is_right, report) {
                report.names.push(record);
            }
        }
        let ids: HashSet<Digest> = report.images.iter().map(|image| image.id).collect();
        let astray: Vec<_> = report.names.iter().filter_map(|name| Some((name, name.image?))).collect();
        let astray: Vec<_> = astray.into_iter().filter(|(_, id)| !ids.contains(id)).collect();
        let lines: Vec<_> = astray
            .into_iter()
            .map(|(name, id)| (record_path(name), format!("the image {id} that it stands for is missing")))
            .collect();
        for (path, problem) in lines {
            report.add(path, problem);
        }
        for directory in ["images", "names"] {
            self.find_strays(directory, report)?;
        }
        Ok(())
    }

    fn check_blobs(&self, depth: Depth, report: &mut Report) -> Result<()> {
        let wanted = wanted_blobs(report);
        let mut there: Vec<(Digest, u64)> = Vec::new();
        for (algorithm, directory) in subdirectories(self.root(), "blobs")? {
            for hex in names(&directory)? {
                let path = format!("blobs/{algorithm}/{hex}");
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else {
                    report.add(path, "its name is no digest");
                    report.strays.push((format!("blobs/{algorithm}"), hex));
                    continue;
                };
                let stat = rustix::fs::statat(&directory, hex.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
                there.push((digest, u64::try_from(stat.st_size).unwrap_or(0)));
            }
            self.find_strays(&format!("blobs/{algorithm}"), report)?;
        }
        let problems = self.judge_blobs(&there, &wanted, depth);
        for (digest, problem) in problems {
            report.add(blob_path(&digest), said_of(problem, wanted.get(&digest)));
            report.bad_blobs.insert(digest);
        }
        let there: HashSet<Digest> = there.into_iter().map(|(digest, _)| digest).collect();
        for (digest, want) in wanted.iter().filter(|(digest, _)| !there.contains(digest)) {
            report.add(blob_path(digest), said_of("it is missing".to_owned(), Some(want)));
            report.bad_blobs.insert(*digest);
        }
        Ok(())
    }

    /// Says what is wrong with blobs that are there; several are read at once.
    fn judge_blobs(
        &self,
        there: &[(Digest, u64)],
        wanted: &HashMap<Digest, Wanted>,
        depth: Depth,
    ) -> Vec<(Digest, String)> {
        let judge = |&(digest, size): &(Digest, u64)| -> Option<String> {
            if let Some(want) = wanted.get(&digest)
                && want.size != size
            {
                return Some(format!("it has {size} bytes and not {}", want.size));
            }
            if depth == Depth::Sizes {
                return None;
            }
            self.prove_blob(&digest).err().map(|error| error.report())
        };
        let (next, problems) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(blob) = there.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Some(problem) = judge(blob) {
                    problems.lock().unwrap_or_else(PoisonError::into_inner).push((blob.0, problem));
                }
            }
        };
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 1..there.len().min(most) {
                let _ = std::thread::Builder::new().name("check".to_owned()).spawn_scoped(scope, work);
            }
            work();
        });
        problems.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn prove_blob(&self, digest: &Digest) -> Result<()> {
        let Some((file, size)) = self.open_blob(digest)? else { return Err(Error::new(Kind::NotFound, "it is gone")) };
        let mut verifier = Verifier::new(file, Expected { digest: Some(*digest), size: Some(size) });
        std::io::copy(&mut verifier, &mut std::io::sink()).context("read")?;
        verifier.finish()
    }

    fn check_layers(&self, report: &mut Report) -> Result<()> {
        let form = format!("layers/{}", self.form().name());
        let mut there = HashSet::new();
        for (algorithm, directory) in subdirectories(self.root(), &form)? {
            for hex in names(&directory)? {
                let path = format!("{form}/{algorithm}/{hex}");
                let Ok(diff_id) = format!("{algorithm}:{hex}").parse::<Digest>() else {
                    report.add(path, "its name is no digest");
                    report.strays.push((format!("{form}/{algorithm}"), hex));
                    continue;
                };
                there.insert(diff_id);
                if let Some(problem) = self.judge_layer(&diff_id, &directory, &hex)? {
                    report.add(path, problem);
                    report.bad_layers.insert(diff_id);
                }
            }
        }
        let mut missing = BTreeMap::new();
        for image in &report.images {
            for layer in image.layers.iter().chain(&image.other_layers) {
                if !there.contains(&layer.diff_id) {
                    let path = format!("{form}/{}/{}", layer.diff_id.algorithm().name(), layer.diff_id.hex());
                    missing.insert(path, (layer.diff_id, called(image, &report.names)));
                }
            }
        }
        for (path, (diff_id, image)) in missing {
            report.add(path, format!("it is missing; {image} needs it"));
            report.bad_layers.insert(diff_id);
        }
        Ok(())
    }

    fn judge_layer(&self, diff_id: &Digest, directory: &OwnedFd, hex: &str) -> Result<Option<String>> {
        if self.find(diff_id)?.is_none() {
            return Ok(Some("it has no files".to_owned()));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let layer = rustix::fs::openat(directory, hex, flags, Mode::empty())?;
        let facts = atomic::read(layer.as_fd(), FACTS, 4096)?.unwrap_or_default();
        let is_complete = serde_json::from_slice::<LayerFacts>(&facts).is_ok();
        Ok((!is_complete).then(|| format!("its {FACTS} is missing or unreadable")))
    }

    /// Looks for what killed processes have left in `tmp/`.
    fn check_staging(&self, report: &mut Report) -> Result<()> {
        for name in self.unowned_in_staging()? {
            if !is_lock(&name) {
                let is_part = name.starts_with(PARTIAL_PREFIX);
                let what = if is_part { "a part of a blob, for the next pull to go on with" } else { LEFT };
                report.add_remains(format!("tmp/{name}"), what);
            }
        }
        Ok(())
    }

    /// Lists what is in `tmp/` and in nobody's hands.
    fn unowned_in_staging(&self) -> Result<Vec<String>> {
        let staging = open_private(self.root(), "tmp")?;
        let mut found = Vec::new();
        for name in names(&reopen(&staging)?)? {
            let key = name.strip_suffix(".lock").unwrap_or(&name);
            // Taking the lock makes its file, and letting go of it removes that.
            if Lock::try_take(staging.as_fd(), &format!("{key}.lock"))?.is_some() {
                found.push(name);
            }
        }
        Ok(found)
    }

    fn find_strays(&self, directory: &str, report: &mut Report) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(self.root(), directory, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            answer => answer.with_context(|| format!("open {directory}"))?,
        };
        for entry in rustix::fs::Dir::read_from(&fd).with_context(|| format!("list {directory}"))? {
            let entry = entry.with_context(|| format!("list {directory}"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY_PREFIX) {
                report.add_remains(format!("{directory}/{name}"), LEFT);
                report.strays.push((directory.to_owned(), name));
            }
        }
        Ok(())
    }

    /// Forgets what cannot be read or has lost what it is made of, and sets damaged blobs aside. Afterwards an image that is
    /// recorded has all of its blobs; layers of it may still be missing.
    pub fn mend_records(&self, _alone: &Alone, changing: &Changing, report: &Report) -> Result<()> {
        let staging = open_private(self.root(), "tmp")?;
        let mut count = 0;
        for (directory, file) in &report.broken_records {
            self.remove_record(directory, file)?;
        }
        let mut kept: HashMap<Digest, ImageRecord> = HashMap::new();
        for image in &report.images {
            match without_bad_blobs(image, &report.bad_blobs) {
                Some(mended) => {
                    if mended != *image {
                        self.replace_image(changing, &mended)?;
                    }
                    kept.insert(mended.id, mended);
                }
                None => {
                    self.remove_image(changing, &image.id)?;
                }
            }
        }
        for name in &report.names {
            self.mend_name(changing, name, &kept, &report.bad_blobs)?;
        }
        // Last: a record that needs a blob must not outlive it.
        for digest in &report.bad_blobs {
            self.set_one_aside(&format!("blobs/{}", digest.algorithm().name()), &digest.hex(), &staging, &mut count)?;
        }
        for (directory, name) in &report.strays {
            self.set_one_aside(directory, name, &staging, &mut count)?;
        }
        Ok(())
    }

    fn mend_name(
        &self,
        changing: &Changing,
        name: &NameRecord,
        kept: &HashMap<Digest, ImageRecord>,
        bad_blobs: &HashSet<Digest>,
    ) -> Result<()> {
        let image = name.image.map(|id| kept.get(&id));
        let is_lost = matches!(image, Some(None));
        if !is_lost && !bad_blobs.contains(&name.target.digest) {
            return Ok(());
        }
        let reference = Reference::parse_exact(&name.name)?;
        // Without its index, the name can still stand for the manifest that was chosen from it.
        match image.flatten().and_then(|image| image.manifests.first()) {
            Some(manifest) if reference.digest().is_none() => {
                let mended = NameRecord { target: manifest.clone(), ..name.clone() };
                self.put_name(changing, &reference, &mended)
            }
            _ => self.remove_name(changing, &reference).map(drop),
        }
    }

    /// Sets damaged layers aside, but for those that `in_use` names: their containers see them.
    pub fn set_bad_layers_aside(&self, _alone: &Alone, report: &Report, in_use: &HashSet<Digest>) -> Result<()> {
        let staging = open_private(self.root(), "tmp")?;
        let mut count = 0;
        for diff_id in report.bad_layers.iter().filter(|diff_id| !in_use.contains(diff_id)) {
            let directory = format!("layers/{}/{}", self.form().name(), diff_id.algorithm().name());
            self.set_one_aside(&directory, &diff_id.hex(), &staging, &mut count)?;
        }
        Ok(())
    }

    fn set_one_aside(&self, directory: &str, name: &str, staging: &OwnedFd, count: &mut u32) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(self.root(), directory, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            answer => answer.with_context(|| format!("open {directory}"))?,
        };
        match move_aside(&fd, name, staging, count) {
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Ok(()),
            answer => answer,
        }
    }

    /// Deletes everything in `tmp/` that nobody holds, parts of blobs as well; with rights over the files in it.
    pub fn clear_staging(&self, _alone: &Alone) -> Result<()> {
        let staging = open_private(self.root(), "tmp")?;
        for name in self.unowned_in_staging()? {
            let key = name.strip_suffix(".lock").unwrap_or(&name);
            let Some(_lock) = Lock::try_take(staging.as_fd(), &format!("{key}.lock"))? else { continue };
            remove_tree(&staging, key)?;
        }
        Ok(())
    }
}

/// A blob that records need.
struct Wanted {
    size: u64,
    /// Who needs it, in a person's words.
    by: String,
}

fn wanted_blobs(report: &Report) -> HashMap<Digest, Wanted> {
    let mut wanted = HashMap::new();
    for image in &report.images {
        let by = called(image, &report.names);
        let documents = image.manifests.iter().map(|manifest| (manifest.digest, manifest.size));
        let layers = image.layers.iter().chain(&image.other_layers).map(|layer| (layer.digest, layer.size));
        for (digest, size) in documents.chain(layers).chain([(image.id, image.config_size)]) {
            wanted.entry(digest).or_insert_with(|| Wanted { size, by: by.clone() });
        }
    }
    for name in &report.names {
        let target = &name.target;
        wanted.entry(target.digest).or_insert_with(|| Wanted { size: target.size, by: format!("image {}", name.name) });
    }
    wanted
}

/// Takes what is no record note of, and gives what is one.
fn sort_out<T>(
    directory: &'static str,
    file: &str,
    record: Result<Option<T>>,
    is_right: impl Fn(&T) -> bool,
    report: &mut Report,
) -> Option<T> {
    let problem = match record {
        Ok(Some(record)) if is_right(&record) => return Some(record),
        Ok(Some(_)) => "it is filed under another name than its own".to_owned(),
        Ok(None) => "it is empty, as a power cut leaves it".to_owned(),
        // It is none of ours to delete.
        Err(error) if error.kind() == Kind::Unsupported => {
            report.add(format!("{directory}/{file}"), error.report());
            return None;
        }
        Err(error) => error.report(),
    };
    report.add(format!("{directory}/{file}"), problem);
    report.broken_records.push((directory, file.to_owned()));
    None
}

/// Gives what is left of an image without some blobs: none where its configuration, its newest manifest or one of that
/// manifest's layers is among them.
fn without_bad_blobs(image: &ImageRecord, bad: &HashSet<Digest>) -> Option<ImageRecord> {
    let is_bad = |digest: &Digest| bad.contains(digest);
    let has_lost = is_bad(&image.id)
        || image.manifests.first().is_some_and(|manifest| is_bad(&manifest.digest))
        || image.layers.iter().any(|layer| is_bad(&layer.digest));
    if has_lost {
        return None;
    }
    let mut mended = image.clone();
    // An older manifest is worth nothing without its layers; which are whose, only it knows.
    if image.other_layers.iter().any(|layer| is_bad(&layer.digest)) {
        mended.manifests.truncate(1);
        mended.other_layers.clear();
    }
    mended.manifests.retain(|manifest| !is_bad(&manifest.digest));
    Some(mended)
}

fn called(image: &ImageRecord, names: &[NameRecord]) -> String {
    match names.iter().find(|name| name.image == Some(image.id)) {
        Some(name) => format!("image {}", name.name),
        None => format!("image {}", image.id),
    }
}

fn said_of(problem: String, wanted: Option<&Wanted>) -> String {
    match wanted {
        Some(wanted) => format!("{problem}; {} needs it", wanted.by),
        None => problem,
    }
}

fn record_path(name: &NameRecord) -> String {
    let file = Reference::parse_exact(&name.name).map_or_else(|_| name.name.clone(), |reference| name_file(&reference));
    format!("names/{file}")
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn is_lock(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension == "lock")
}
