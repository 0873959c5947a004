//! The folder of one container: what it is, whether somebody looks after it, how it ended.
//!
//! ```text
//! containers/<id>/         flock on the folder itself: held while a command changes the container (rename, rm)
//!   supervisor             flock: held by the supervisor for as long as it lives; holds the time of the last start
//!   record.json            what `ps` shows; written last, deleted first: a folder without it is no container
//!   exit.json              how the last run ended; absent while it goes on
//!   exit.next              while it goes on, what becomes `exit.json`: there is room on the disk for that, however full it is
//!   bundle/config.json     the OCI configuration
//!   root/                  upper, work and rootfs of an overlay, or what else makes the root file system
//!   volumes/<n>/           anonymous volumes
//! ```
//!
//! Whether a container runs is asked of the supervisor's lock, which the kernel drops with its holder; never of a pid in a
//! file. The lock may pass to another process (a foreground container that gets a monitor): it goes with the descriptor.
//! Knows no runtime: cgroups, mounts and processes of a dead container are cleared by those who made them, before
//! [`Container::remove`].

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroups::OutOfMemory;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Digest;
use crate::monitor::health::HealthCheck;
use crate::monitor::{Ending, Stop};
use crate::namespaces::idmap::IdMaps;
use crate::support::id::{ContainerId, ContainerName};
use crate::support::lock::{self, Lock, Sharing};
use crate::support::{atomic, remove};

use super::options::RunOptions;
use super::options::ports::ContainerPort;

pub(super) const RECORD: &str = "record.json";
pub(super) const EXIT: &str = "exit.json";
const EXIT_NEXT: &str = "exit.next";
pub(super) const SUPERVISOR: &str = "supervisor";

/// The command line is bounded by ARG_MAX, and labels by the image's limits; files of variables are not, and are checked.
const RECORD_BYTES: usize = 16 << 20;

/// What is set aside for the record of an end: less than a block of any file system, more than a record has whose error is
/// of the usual length, and read with one call.
const EXIT_BYTES: usize = 2048;

/// Digits of the numbers in the supervisor's file: of one width, so that newer ones cover the older whole.
const TIME_DIGITS: usize = 20;
const RESTARTS_DIGITS: usize = 10;
const SIGNAL_DIGITS: usize = 3;

/// The whole line: of a start, and of a stop that was asked for since.
const START_BYTES: usize = TIME_DIGITS + 1 + RESTARTS_DIGITS + 1 + STOP_BYTES + 1;
const STOP_BYTES: usize = SIGNAL_DIGITS + 1 + RESTARTS_DIGITS + 1 + TIME_DIGITS + 1 + 1;

/// The form of [`Record`]; a newer one is refused rather than misread.
pub const FORMAT: u32 = 1;

/// Nanoseconds since 1970, UTC.
pub type Timestamp = u64;

/// How often to look whether a monitor that only ends has ended.
const ENDING_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// A start of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    pub time: Timestamp,
    /// How often its restart policy had started it again by then.
    pub restarts: u32,
    /// Somebody has asked for its end since.
    pub stop: Option<AskedStop>,
}

/// An end that somebody has asked a monitor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedStop {
    pub stop: Stop,
    pub time: Timestamp,
}

/// Gives the time now.
pub fn now() -> Timestamp {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a container is: fixed at its creation, but for the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub id: ContainerId,
    pub name: ContainerName,
    pub created: Timestamp,
    /// The image as it was typed.
    pub image: String,
    /// The digest of its configuration, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The image's layers, by diff id: the store keeps them as long as the container exists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
    /// Images that it has mounted: the store keeps them, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounted_images: Vec<MountedImage>,
    /// The ids of its own, where it has others than the caller's usual ones (`--userns`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<IdMaps>,
    /// Entry point and arguments.
    pub command: Vec<String>,
    /// The image's and the user's; for people and filters, never read by husk. (CVE-2026-53488 and its kin)
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `--rm`: gone with its end.
    #[serde(default)]
    pub remove: bool,
    /// `-d`: under a monitor of its own.
    #[serde(default)]
    pub detached: bool,
    #[serde(default)]
    pub interactive: bool,
    #[serde(default)]
    pub terminal: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout_seconds: Option<u32>,
    /// `HOME` is that of its user, and of nobody's asking.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub home_is_made: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Ports that it listens on, as its image and its maker say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<ContainerPort>,
    /// What was asked for, as it was: for `inspect`, and for what a start needs beside the OCI configuration.
    #[serde(default)]
    pub options: RunOptions,
}

/// An image whose files a container has mounted (`--mount type=image`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedImage {
    /// The digest of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub layers: Vec<Digest>,
}

impl Record {
    /// Gives all layers that it needs: its image's, and those of the images that it has mounted.
    pub fn needed_layers(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().chain(self.mounted_images.iter().flat_map(|image| &image.layers))
    }

    /// Its files have owners that say nothing to who reads them with the caller's usual ids.
    pub fn require_usual_ids(&self) -> Result<()> {
        match self.ids {
            None => Ok(()),
            Some(_) => {
                Err(Error::unsupported(format!("its files have owners of --userns {}", self.options.namespaces.user))
                    .with_hint("`husk export` writes them as they are"))
            }
        }
    }

    /// Says whether it is made of an image, or has it mounted.
    pub fn uses_image(&self, id: &str) -> bool {
        let mounted = self.mounted_images.iter().map(|image| &image.id);
        std::iter::once(&self.image_id).chain(mounted).any(|used| used.as_deref() == Some(id))
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub started: Option<Timestamp>,
    pub finished: Timestamp,
    /// What the workload returned, or 128 + the signal; [`ExitRecord::UNKNOWN`] where nobody saw it.
    pub code: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The kernel killed something of it for want of memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// Which cgroup that was in, and at what limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<OutOfMemory>,
    /// What its monitor did to end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Why it could not run, or that its supervisor was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often it had been started again by its restart policy.
    #[serde(default)]
    pub restarts: u32,
    /// It is about to be started again.
    #[serde(default)]
    pub is_restarting: bool,
    /// Its monitor may die and its policy goes on: whoever meets it starts it in that one's stead.
    #[serde(default)]
    pub outlives_monitor: bool,
    /// Somebody asked for its end: `unless-stopped` leaves it at that.
    #[serde(default)]
    pub was_stopped: bool,
}

impl ExitRecord {
    /// The code of an end that nobody saw, as docker gives it.
    pub const UNKNOWN: u8 = 255;

    /// The error of such an end, where the container's was its supervisor's.
    pub const SUPERVISOR_LOST: &str = "its supervisor was killed";

    /// The error of such an end, where the container had outlived its monitor.
    pub const UNSEEN: &str = "how it ended is unknown: its monitor was killed before";
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never started.
    Created,
    /// Somebody looks after it. Whether its process already runs is for the runtime's state to say.
    Running {
        started: Option<Timestamp>,
        /// How often it was started again by its restart policy.
        restarts: u32,
    },
    /// Between two runs: the last one ended like this, and the next begins soon.
    Restarting(ExitRecord),
    Exited(ExitRecord),
    /// Its supervisor died without a word; the next [`sweep`](super::containers::Containers::sweep) settles it.
    Lost {
        started: Timestamp,
    },
}

impl Status {
    /// Gives docker's word for it. Whether a container that runs is paused, its cgroup knows.
    pub fn word(&self, is_paused: bool) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } if is_paused => "paused",
            Self::Running { .. } => "running",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) | Self::Lost { .. } => "exited",
        }
    }
}

/// One container that exists.
pub struct Container {
    pub(super) id: ContainerId,
    pub(super) directory: OwnedFd,
}

impl Container {
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The container's folder.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Reads what the container is; [`Kind::NotFound`] where it was removed meanwhile, or is not finished yet.
    pub fn record(&self) -> Result<Record> {
        read_record(self.directory(), RECORD)
            .with_context(|| format!("container {}", self.id.short()))?
            .ok_or_else(|| self.gone())
    }

    /// Says where the container is in its life.
    pub fn status(&self) -> Result<Status> {
        status(self.directory(), "").with_context(|| format!("container {}", self.id.short()))
    }

    /// Keeps other commands from changing the container, waiting for the one that does; `notice` is told for whom.
    pub fn lock(&self, notice: impl FnOnce(&lock::Holder)) -> Result<Lock> {
        // A descriptor of its own: a lock on ours would be shared by all who use it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.directory, c".", flags, rustix::fs::Mode::empty())
            .with_context(|| format!("lock container {}", self.id.short()))?;
        Lock::wait(directory, Sharing::Exclusive, notice)
    }

    /// Becomes the supervisor once nobody else is: of a container that has ended, whose monitor is about to go. `None` where
    /// it runs, perhaps since this moment.
    pub fn supervise_soon(&self) -> Result<Option<Supervision>> {
        loop {
            if let Some(supervision) = self.supervise()? {
                return Ok(Some(supervision));
            }
            if let Status::Running { .. } | Status::Restarting(_) = self.status()? {
                return Ok(None);
            }
            std::thread::sleep(ENDING_PAUSE);
        }
    }

    /// Waits until a monitor that has told of the end is gone; not for one that has come since, by a start.
    pub fn wait_for_supervisor(&self) -> Result<()> {
        while let Status::Exited(_) = self.status()? {
            let file = lock::open_lock_file(self.directory(), SUPERVISOR, OFlags::empty())
                .with_context(|| format!("container {}", self.id.short()))?;
            if Lock::try_now(file, Sharing::Shared)?.is_some() {
                break;
            }
            std::thread::sleep(ENDING_PAUSE);
        }
        Ok(())
    }

    /// Says where a container is in its life that the caller looks after.
    pub fn status_under(&self, supervision: &Supervision) -> Result<Status> {
        status_under(supervision, self.directory())
    }

    /// Becomes the supervisor; `None` where there is one.
    pub fn supervise(&self) -> Result<Option<Supervision>> {
        let file = lock::open_lock_file(self.directory(), SUPERVISOR, OFlags::empty())
            .with_context(|| format!("container {}", self.id.short()))?;
        // A descriptor that outlived a removal locks a file without a name, and nothing else.
        let Some(lock) = Lock::try_past_askers(file)? else { return Ok(None) };
        if lock.is_in_place(self.directory(), SUPERVISOR)? { Ok(Some(Supervision(lock))) } else { Err(self.gone()) }
    }

    fn gone(&self) -> Error {
        Error::new(Kind::NotFound, format!("container {} was removed meanwhile", self.id.short()))
    }

    /// Notes a start, and that the end of the run before it no longer counts.
    pub fn note_start(&self, supervision: &Supervision, start: Start) -> Result<()> {
        supervision.note_start(start)?;
        if !self.withdraw_exit()? {
            self.reserve_exit();
        }
        Ok(())
    }

    /// Has room for the record of the end. Where there is none the container may start all the same: there may be some then.
    pub fn reserve_exit(&self) {
        let _ = atomic::reserve(self.directory(), EXIT_NEXT, EXIT_BYTES);
    }

    /// Makes the last run's record, where there is one, room for the next.
    fn withdraw_exit(&self) -> Result<bool> {
        match rustix::fs::renameat(&self.directory, EXIT, &self.directory, EXIT_NEXT) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("withdraw {EXIT} of container {}", self.id.short())),
        }
    }

    /// Gives the record of the last run's end, where the container is to be started again and nobody is there who would: since
    /// this machine was started, as before that is for `start --boot` to do.
    pub(super) fn interrupted_rest(&self) -> Result<Option<ExitRecord>> {
        let booted = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let up = u64::try_from(booted.tv_sec).unwrap_or_default().saturating_mul(1_000_000_000);
        let since_boot = |exit: &ExitRecord| exit.finished >= now().saturating_sub(up);
        let exit = read_exit(self.directory(), "")?;
        Ok(exit.filter(|exit| exit.is_restarting && exit.outlives_monitor && since_boot(exit)))
    }

    /// Records the end of a run. Only its supervisor knows it, or who holds the lock that a dead one left.
    pub fn record_exit(&self, _supervision: &Supervision, exit: &ExitRecord) -> Result<()> {
        let document = serde_json::to_vec(exit)?;
        self.put_exit(&document).with_context(|| format!("container {}", self.id.short()))
    }

    fn put_exit(&self, document: &[u8]) -> Result<()> {
        let put = || atomic::put_reserved(self.directory(), EXIT_NEXT, EXIT, document, EXIT_BYTES);
        if put()? {
            return Ok(());
        }
        match atomic::replace(self.directory(), EXIT, document) {
            // A record that is corrected has its own room; for that moment there is none.
            Err(error) if matches!(error.errno(), Some(Errno::NOSPC | Errno::DQUOT)) => {
                if self.withdraw_exit()? && put()? { Ok(()) } else { Err(error) }
            }
            answer => answer,
        }
    }
}

/// The supervisor's lock on a container: as long as one copy of the descriptor is open, the container is looked after.
pub struct Supervision(pub(super) Lock);

impl Supervision {
    /// Takes the descriptor that another supervisor handed on.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(Lock::from_fd(fd))
    }

    /// Gives the descriptor to be handed on, and with it the container.
    pub fn into_fd(self) -> OwnedFd {
        self.0.into_fd()
    }

    /// Says whether it is held, and of this container.
    pub(super) fn is_of(&self, container: &Container) -> Result<bool> {
        // The lock is the open file's: where it is ours already, this is no second one.
        Ok(self.0.holds()? && self.0.is_in_place(container.directory(), SUPERVISOR)?)
    }

    /// Leaves the container to whoever comes next.
    pub fn release(&self) {
        self.0.release();
    }

    /// Reads the last start.
    pub(super) fn start(&self) -> Result<Option<Start>> {
        read_start(self.0.as_fd())
    }

    /// Writes a start down for others to see; from here on the container has been started.
    pub(super) fn note_start(&self, Start { time, restarts, .. }: Start) -> Result<()> {
        let text = format!("{time:0TIME_DIGITS$} {restarts:0RESTARTS_DIGITS$} {:STOP_BYTES$}\n", "");
        rustix::io::pwrite(&self.0, text.as_bytes(), 0).map(drop).context("note the start")
    }

    /// Writes down that the container's end was asked for, so that whoever looks after it next knows. The room is there.
    pub(super) fn note_stop(&self, AskedStop { stop, time }: AskedStop) -> Result<()> {
        let (signal, kept) = (stop.signal, u8::from(stop.is_kept));
        let seconds = stop.patience_seconds.unwrap_or(u32::MAX);
        let text = format!("{signal:0SIGNAL_DIGITS$} {seconds:0RESTARTS_DIGITS$} {time:0TIME_DIGITS$} {kept}");
        let place = START_BYTES - 1 - STOP_BYTES;
        rustix::io::pwrite(&self.0, text.as_bytes(), place as u64).map(drop).context("note the stop")
    }
}

/// The part of a record that every version of it has.
#[derive(Deserialize)]
struct Form {
    format: u32,
}

/// Reads a record below `directory`; `None` where there is none.
pub(super) fn read_record(directory: BorrowedFd<'_>, path: &str) -> Result<Option<Record>> {
    read_document(directory, path)?.map(|bytes| parse(&bytes)).transpose()
}

/// Refuses a record that nobody could read afterwards.
pub(super) fn check_size(document: &[u8]) -> Result<()> {
    if document.len() > RECORD_BYTES {
        let message = format!("the container's description has {} bytes, of at most {RECORD_BYTES}", document.len());
        return Err(Error::invalid(message).with_hint("fewer variables or labels"));
    }
    Ok(())
}

/// Reads a record as it is written; `None` where there is none.
pub(super) fn read_document(directory: BorrowedFd<'_>, path: &str) -> Result<Option<Vec<u8>>> {
    // A power cut can leave the name without the content, which was never there then.
    Ok(atomic::read(directory, path, RECORD_BYTES)?.filter(|bytes| !bytes.is_empty()))
}

/// Takes a record, or a part of one, out of its document.
pub(super) fn parse<T: DeserializeOwned>(document: &[u8]) -> Result<T> {
    let form: Form = serde_json::from_slice(document).context(RECORD)?;
    if form.format != FORMAT {
        return Err(Error::unsupported(format!("{RECORD} has format {}, this husk knows {FORMAT}", form.format))
            .with_hint("a newer husk made it: use that one"));
    }
    serde_json::from_slice(document).context(RECORD)
}

/// Finds out where the container in the folder `prefix` (with its slash, or empty) below `directory` is in its life.
pub(super) fn status(directory: BorrowedFd<'_>, prefix: &str) -> Result<Status> {
    // The lock first: its holder writes how it ended before it lets go, so what is free has an end to be read.
    let supervisor = lock::open_lock_file(directory, &format!("{prefix}{SUPERVISOR}"), OFlags::empty())?;
    let start = read_start(supervisor.as_fd())?;
    if Lock::try_now(supervisor, Sharing::Shared)?.is_none() {
        // Its supervisor writes how it ended before it lets go.
        return Ok(match read_exit(directory, prefix)? {
            Some(exit) if exit.is_restarting => Status::Restarting(exit),
            Some(exit) => Status::Exited(exit),
            None => Status::Running {
                started: start.map(|start| start.time),
                restarts: start.map_or(0, |start| start.restarts),
            },
        });
    }
    at_rest(directory, prefix, start)
}

/// The same of a container of which it is known that nobody looks after it, but for the caller.
pub(super) fn status_under(supervision: &Supervision, directory: BorrowedFd<'_>) -> Result<Status> {
    at_rest(directory, "", read_start(supervision.0.as_fd())?)
}

/// Reads whether, and when, the container was last started.
fn read_start(supervisor: BorrowedFd<'_>) -> Result<Option<Start>> {
    let mut text = [0; START_BYTES];
    let length = rustix::io::pread(supervisor, &mut text, 0).with_context(|| format!("read {SUPERVISOR}"))?;
    // What a power cut left of it: that it was started is all that is known.
    let words: Vec<&str> = str::from_utf8(&text[..length]).unwrap_or_default().split_ascii_whitespace().collect();
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<u64>().ok());
    let small = |place: usize| number(place).and_then(|number| u32::try_from(number).ok());
    let stop = || {
        let stop = Stop {
            signal: small(2)?.try_into().ok()?,
            patience_seconds: Some(small(3)?).filter(|seconds| *seconds != u32::MAX),
            is_kept: number(5)? != 0,
        };
        Some(AskedStop { stop, time: number(4)? })
    };
    let start = Start { time: number(0).unwrap_or_default(), restarts: small(1).unwrap_or_default(), stop: stop() };
    Ok((length > 0).then_some(start))
}

fn at_rest(directory: BorrowedFd<'_>, prefix: &str, start: Option<Start>) -> Result<Status> {
    match (read_exit(directory, prefix)?, start.map(|start| start.time)) {
        // Killed between two runs.
        (Some(exit), Some(started)) if exit.is_restarting => Ok(Status::Lost { started }),
        (Some(exit), _) => Ok(Status::Exited(exit)),
        (None, None) => Ok(Status::Created),
        (None, Some(started)) => Ok(Status::Lost { started }),
    }
}

fn read_exit(directory: BorrowedFd<'_>, prefix: &str) -> Result<Option<ExitRecord>> {
    let exit = atomic::read(directory, &format!("{prefix}{EXIT}"), RECORD_BYTES)?;
    exit.filter(|bytes| !bytes.is_empty()).map(|bytes| serde_json::from_slice(&bytes).context(EXIT)).transpose()
}

/// Deletes what is in a container's folder, and the folder, the record first: from then on it is no container, and
/// whoever meets it goes on where a kill stopped this.
pub(super) fn remove_folder(containers: BorrowedFd<'_>, id: &ContainerId, directory: BorrowedFd<'_>) -> Result<()> {
    match rustix::fs::unlinkat(directory, RECORD, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).with_context(|| format!("remove {RECORD} of container {}", id.short())),
    }
    // The lock last: as long as it is there, it says who is at work here.
    for name in super::containers::entries(directory)? {
        if name != SUPERVISOR {
            remove::remove_tree(directory, &name).with_context(|| format!("container {}", id.short()))?;
        }
    }
    remove::remove_tree(containers, id.as_str())
}
