//! What has happened: a file to which every command adds a line, and which any command can follow.
//!
//! ```text
//! <data root>/events      a JSON object a line, in docker's shape; O_APPEND, one write(2) a line, so lines never mix
//! <data root>/events.1    the lines before them
//! ```
//!
//! Nothing depends on the file: an event that cannot be written (a full disk) is lost, and the command goes on. It is rotated
//! when something has ended, which nobody waits for; never on the way to a start.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::networks::NetworkRecord;
use super::record::{Record, now};
use crate::error::{Context, Result};
use crate::support::lock::{Lock, Sharing};

/// The newest lines.
const FILE: &str = "events";
/// The lines before them.
const OLDER: &str = "events.1";
/// Where the newest file becomes the older one: some ten thousand events.
const MOST_BYTES: i64 = 4 << 20;

/// Something that has happened, as docker tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// `container`, `image` or `network`.
    #[serde(rename = "Type")]
    pub kind: String,
    pub action: String,
    pub actor: Actor,
    #[serde(rename = "timeNano")]
    pub time: u64,
}

/// What it has happened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// An attribute of one event.
pub type Attribute<'a> = (&'a str, String);

/// Tells what has happened to a container.
pub fn container(engine: &Engine, record: &Record, action: &str, more: &[Attribute<'_>]) {
    let mut attributes = record.labels.clone();
    attributes.insert("image".to_owned(), record.image.clone());
    attributes.insert("name".to_owned(), record.name.to_string());
    attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let actor = Actor { id: record.id.to_string(), attributes };
    add(engine, &Event { kind: "container".to_owned(), action: action.to_owned(), actor, time: now() });
}

/// Tells what has happened to an image, by its id and by the name that was used.
pub fn image(engine: &Engine, id: &str, action: &str, name: &str) {
    let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    let actor = Actor { id: id.to_owned(), attributes };
    add(engine, &Event { kind: "image".to_owned(), action: action.to_owned(), actor, time: now() });
}

/// Tells what has happened to a network.
pub fn network(engine: &Engine, record: &NetworkRecord, action: &str, more: &[Attribute<'_>]) {
    let mut attributes =
        BTreeMap::from([("name".to_owned(), record.name.clone()), ("type".to_owned(), record.driver.to_string())]);
    attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let actor = Actor { id: record.id.clone(), attributes };
    add(engine, &Event { kind: "network".to_owned(), action: action.to_owned(), actor, time: now() });
}

/// Tells that networks were pruned, as docker does: of each that went there is an event before, and there were no bytes in it.
pub fn networks_pruned(engine: &Engine) {
    let attributes = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
    let actor = Actor { id: String::new(), attributes };
    add(engine, &Event { kind: "network".to_owned(), action: "prune".to_owned(), actor, time: now() });
}

fn add(engine: &Engine, event: &Event) {
    let Ok(mut line) = serde_json::to_vec(event) else { return };
    line.push(b'\n');
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let Ok(file) = rustix::fs::openat(engine.data_root(), FILE, flags, mode) else { return };
    let _ = rustix::io::write(&file, &line);
    if matches!(event.action.as_str(), "die" | "destroy" | "delete" | "pull") {
        let _ = rotate(engine.data_root(), file);
    }
}

fn rotate(data_root: BorrowedFd<'_>, file: OwnedFd) -> Result<()> {
    if rustix::fs::fstat(&file)?.st_size < MOST_BYTES {
        return Ok(());
    }
    // Who comes second finds another file in its place.
    let Some(lock) = Lock::try_now(file, Sharing::Exclusive)? else { return Ok(()) };
    if lock.is_in_place(data_root, FILE)? {
        rustix::fs::renameat(data_root, FILE, data_root, OLDER)?;
    }
    Ok(())
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// From then on; without it, from now on.
    pub since: Option<SystemTime>,
    /// Until then, which may be still to come.
    pub until: Option<SystemTime>,
    /// Wait for more.
    pub follows: bool,
}

/// Gives events in their order to `show`, until that says no, or the span is over.
pub fn events(engine: &Engine, span: Span, show: &mut dyn FnMut(Event) -> Result<bool>) -> Result<()> {
    let begun = SystemTime::now();
    let nanoseconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    };
    let since = match span.since {
        Some(since) => nanoseconds(since),
        None if span.follows => nanoseconds(begun),
        None => 0,
    };
    let until = span.until.map_or(u64::MAX, nanoseconds);
    let mut show = |event: Event| if event.time < since { Ok(true) } else { Ok(event.time <= until && show(event)?) };
    let watch = span.follows.then(|| Watch::new(engine.data_root())).transpose()?;
    if let Some(mut older) = Tail::open(engine.data_root(), OLDER)?
        && !older.read(&mut show)?
    {
        return Ok(());
    }
    let mut newest = Tail::open(engine.data_root(), FILE)?;
    loop {
        if let Some(tail) = &mut newest
            && !tail.read(&mut show)?
        {
            return Ok(());
        }
        let fresh = Tail::open(engine.data_root(), FILE)?;
        let is_same = |fresh: &Tail| newest.as_ref().is_some_and(|tail| tail.inode == fresh.inode);
        if let Some(fresh) = fresh.filter(|fresh| !is_same(fresh)) {
            // What was still written to the one before it was renamed.
            if let Some(tail) = &mut newest
                && !tail.read(&mut show)?
            {
                return Ok(());
            }
            newest = Some(fresh);
            continue;
        }
        let Some(watch) = &watch else { return Ok(()) };
        let left = span.until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
        if left == Some(Duration::ZERO) {
            return Ok(());
        }
        watch.wait(left)?;
    }
}

/// A file that is read as it grows.
struct Tail {
    file: OwnedFd,
    inode: u64,
    /// The beginning of a line whose end is still to come.
    rest: Vec<u8>,
}

impl Tail {
    fn open(data_root: BorrowedFd<'_>, name: &str) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(data_root, name, flags, Mode::empty()) {
            Ok(file) => {
                let inode = rustix::fs::fstat(&file)?.st_ino;
                Ok(Some(Self { file, inode, rest: Vec::new() }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("open {name}")),
        }
    }

    /// Shows what has come; false where no more is wanted.
    fn read(&mut self, show: &mut dyn FnMut(Event) -> Result<bool>) -> Result<bool> {
        let mut buffer = [0; 1 << 13];
        loop {
            let count = match rustix::io::read(&self.file, &mut buffer) {
                Ok(0) => return Ok(true),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno).context("read the events"),
            };
            self.rest.extend_from_slice(&buffer[..count]);
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let next = self.rest.split_off(end + 1);
            let lines = std::mem::replace(&mut self.rest, next);
            for line in lines.split(|byte| *byte == b'\n') {
                // What a full disk has cut is passed over.
                if let Ok(event) = serde_json::from_slice(line)
                    && !show(event)?
                {
                    return Ok(false);
                }
            }
        }
    }
}

/// Wakes when something is written in the data root itself.
struct Watch(OwnedFd);

impl Watch {
    fn new(data_root: BorrowedFd<'_>) -> Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("watch the events")?;
        let path = format!("/proc/self/fd/{}", data_root.as_raw_fd());
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, path, flags).context("watch the events")?;
        Ok(Self(fd))
    }

    fn wait(&self, most: Option<Duration>) -> Result<()> {
        let timeout = most.and_then(|most| Timespec::try_from(most).ok());
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for events"),
        }
        let mut told = [0; 4096];
        while rustix::io::read(&self.0, &mut told).is_ok_and(|count| count > 0) {}
        Ok(())
    }
}
