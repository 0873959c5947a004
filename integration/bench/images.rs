//! Images: pull and unpack from a registry on loopback, the same once more, and lists of a thousand; husk beside others.
//!
//! Every pull begins with new directories, after what the one before has written is on the disk. Nothing is deleted before
//! the end: ext4 passes over inodes that were freed in the last minutes, one by one, and the next to make files pays for it.

mod corpus;
mod floor;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corpus::{CATALOGUE, Corpus, TAGS, catalogue_name};

use crate::Result;
use crate::docker_registry::DockerRegistry;
use crate::environment::{self, Scratch};
use crate::measure::{self, Plan, Sample, Series, Shuffler};
use crate::peers::{Bridge, PEERS, Peer, Session};
use crate::table::{Row, Table, Tables};

/// How often the second pull is made.
const AGAIN: u32 = 3;

/// How often a list is made; once more goes first, and isn't counted.
const LISTS: u32 = 10;

/// What one pull leaves on the disk at most, with room for the packed layers.
const ROOM: u64 = 1_700_000_000;

/// Measures everything about images, or says why not. Tables are printed as they come, unless they are to be JSON.
pub fn compare(scratch: &Scratch, cache: &Path, rounds: u32, peers: &[Peer], json: bool) -> Result<Tables> {
    let mut tables = Tables::new(json);
    if environment::find("docker-registry".as_ref()).is_none() {
        tables.note("images: docker-registry is not installed".to_owned())?;
        return Ok(tables);
    }
    let place = Place::open()?;
    let husk = std::env::var_os("HUSK").map_or_else(|| env!("CARGO_BIN_EXE_husk").into(), PathBuf::from);
    let is_chosen = |peer: &Peer| peers.is_empty() || peers.contains(peer) || *peer == Peer::Husk;
    let mut peers: Vec<Peer> = PEERS.into_iter().filter(is_chosen).collect();
    for lack in peers.iter().filter_map(|peer| peer.lacks()) {
        tables.note(lack)?;
    }
    peers.retain(|peer| peer.lacks().is_none());
    let needed = ROOM * u64::from(rounds) * u64::try_from(peers.len() * TAGS.len())?;
    let there = rustix::fs::statvfs(&place.directory)?;
    let there = there.f_bavail * there.f_frsize;
    if there < needed {
        let place = place.directory.display();
        tables.note(format!("images: {needed} bytes are needed in {place}, and {there} are there"))?;
        return Ok(tables);
    }
    measure::show_progress("the images to pull are made");
    let corpus = Corpus::open(cache)?;
    let registry = fill_registry(&corpus, &husk, &place)?;
    tables.note(format!(
        "the image has {} layers and {} entries, {:.0} MB packed with gzip and {:.0} MB unpacked",
        corpus.layers.len(),
        corpus.entries,
        megabytes(corpus.packed),
        megabytes(corpus.unpacked)
    ))?;
    let bench = Bench { scratch, husk, place, rounds };
    bench.pulls(&peers, &registry, &mut tables)?;
    bench.floors(&corpus, &mut tables)?;
    bench.catalogues(&peers, &corpus, &mut tables)?;
    measure::show_progress("");
    Ok(tables)
}

struct Bench<'a> {
    scratch: &'a Scratch,
    husk: PathBuf,
    place: Place,
    rounds: u32,
}

impl Bench<'_> {
    fn pulls(&self, peers: &[Peer], registry: &DockerRegistry, tables: &mut Tables) -> Result<()> {
        let mut shuffler = Shuffler::new();
        for tag in TAGS {
            let reference = format!("{}/app:{tag}", registry.host());
            let mut first = Table::new(format!("pull of the {tag} image"), peers);
            let mut second = Table::new(format!("the same once more ({tag})"), peers);
            if tag == "gzip" {
                first.budgets = true;
            }
            let mut order: Vec<usize> = (0..peers.len()).collect();
            for round in 0..self.rounds {
                shuffler.shuffle(&mut order);
                for &index in &order {
                    if first.rows[index].failure.is_some() {
                        continue;
                    }
                    let peer = peers[index];
                    measure::show_progress(&format!("pull, {tag}, {}, round {}", peer.name(), round + 1));
                    match self.pull(peer, &reference, &format!("{}-{tag}-{round}", peer.name())) {
                        Ok((pulled, again)) => {
                            first.rows[index].samples.extend(pulled);
                            second.rows[index].samples.extend(again);
                        }
                        Err(error) => first.rows[index].failure = Some(error.to_string()),
                    }
                }
            }
            tables.add(first)?;
            tables.add(second)?;
        }
        Ok(())
    }

    /// Pulls into new directories, and once more.
    fn pull(&self, peer: Peer, reference: &str, name: &str) -> Result<(Vec<Sample>, Vec<Sample>)> {
        let home = self.place.directory.join(name);
        let session = Session::open(peer, &self.husk, &home, &home.join("data"), Bridge::None)?;
        let plan = session.pull(reference);
        rustix::fs::sync();
        let series = |times, first| Series { rest: Duration::ZERO, times, first };
        let pulled = session.time(&self.scratch.stopwatch, &plan, series(1, 1))?;
        let again = session.time(&self.scratch.stopwatch, &plan, series(AGAIN, 2))?;
        Ok((pulled, again))
    }

    fn floors(&self, corpus: &Corpus, tables: &mut Tables) -> Result<()> {
        let mut table = Table::new("the floor".to_owned(), &[]);
        let mut inflated = Row::new("inflate and hash");
        let mut copied = Row::new("cp -a of the tree");
        for round in 0..self.rounds.max(3) {
            measure::show_progress("the floor");
            inflated.samples.push(floor::inflate(&corpus.layers)?);
            let tree = self.place.directory.join("husk-gzip-0/data/store/store/layers");
            let copy = self.place.directory.join(format!("copy-{round}"));
            let words = ["/bin/cp", "-a", &tree.display().to_string(), &copy.display().to_string()].map(Into::into);
            rustix::fs::sync();
            let plan = Plan { timed: vec![words.into()], ..Plan::default() };
            let series = Series { rest: Duration::ZERO, times: 1, first: 1 };
            copied.samples.extend(measure::time(&self.scratch.stopwatch, &plan, series)?);
        }
        table.rows.extend([inflated, copied]);
        tables.add(table)
    }

    fn catalogues(&self, peers: &[Peer], corpus: &Corpus, tables: &mut Tables) -> Result<()> {
        let peers: Vec<Peer> = peers.iter().copied().filter(|peer| peer.has_catalogue()).collect();
        let mut listed = Table::new(format!("images, of {CATALOGUE}"), &peers);
        let mut shown = Table::new(format!("inspect, of {CATALOGUE}"), &peers);
        for (index, peer) in peers.into_iter().enumerate() {
            measure::show_progress(&format!("a thousand images, {}", peer.name()));
            let home = self.place.directory.join(format!("{}-catalogue", peer.name()));
            // Others take a minute to load them: once. husk's own records may change from one build to the next.
            let data = match peer {
                Peer::Husk => home.join("data"),
                _ => corpus.directory.join(peer.name()),
            };
            let list = || -> Result<_> {
                let session = Session::open(peer, &self.husk, &home, &data, Bridge::None)?;
                let is_loaded = data.join("loaded");
                if !is_loaded.exists() {
                    session.load(&corpus.catalogue())?;
                    fs::write(is_loaded, "")?;
                }
                let series = Series { rest: Duration::ZERO, times: LISTS + 1, first: 1 };
                let time = |plan: &Plan| {
                    // Whether it can at all, before it is to do so eleven times.
                    session.time(&self.scratch.stopwatch, plan, Series { times: 1, ..series })?;
                    session.time(&self.scratch.stopwatch, plan, series).map(|samples| samples[1..].to_vec())
                };
                Ok((time(&session.images()), session.inspect(&catalogue_name(CATALOGUE / 2)).map(|plan| time(&plan))))
            };
            let (list, show) = list().unwrap_or_else(|error| (Err(error), None));
            listed.rows[index].fill(list);
            if let Some(show) = show {
                shown.rows[index].fill(show);
            }
        }
        tables.add(listed)?;
        tables.add(shown)
    }
}

/// Serves the image in both packings; what an earlier run has pushed is still there.
fn fill_registry(corpus: &Corpus, husk: &Path, place: &Place) -> Result<DockerRegistry> {
    let root = corpus.directory.join("registry");
    let registry = DockerRegistry::start(&root, "");
    let filled = root.join("filled");
    if !filled.exists() {
        let home = place.directory.join("fill");
        let environment = [("HUSK_DATA_ROOT", home.join("store")), ("HUSK_RUN_ROOT", home.join("run"))]
            .map(|(name, path)| (name.to_owned(), path.display().to_string()));
        let plan = Plan { environment: environment.into(), ..Plan::default() };
        for tag in TAGS {
            let target = format!("{}/app:{tag}", registry.host());
            let run = |words: &[&str]| {
                let line: Vec<String> = [&husk.display().to_string()].into_iter().map(Into::into).collect();
                let words = words.iter().map(|word| (*word).to_owned());
                measure::run(&line.into_iter().chain(words).collect(), &plan)
            };
            run(&["pull", "-q", &corpus.source(tag)])?;
            run(&["push", "-q", &format!("localhost/{tag}"), &target])?;
        }
        fs::write(filled, "")?;
    }
    Ok(registry)
}

/// Where peers work: on a disk, and gone when dropped.
pub struct Place {
    pub directory: PathBuf,
    _directory: tempfile::TempDir,
}

impl Place {
    pub fn open() -> Result<Self> {
        // Not /tmp, which may be memory.
        let directory = tempfile::Builder::new().prefix("husk-bench-").tempdir_in("/var/tmp")?;
        Ok(Self { directory: directory.path().to_owned(), _directory: directory })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        measure::show_progress("");
        // podman mounts its storage over itself.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(point).starts_with(&self.directory) {
                let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown in whole megabytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
