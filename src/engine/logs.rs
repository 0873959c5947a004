//! `logs`: what a container wrote, and what it writes from now on.

mod egress;
mod journal;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::engine::Engine;
use super::options::RunOptions;
use super::record::{Container, Status};
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::log::read::{self, Entry, File};
use crate::monitor::log::{FILE, Format};

pub use egress::{egress, forget_egress};

/// Which entries are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogsOptions {
    pub since: Option<jiff::Timestamp>,
    pub until: Option<jiff::Timestamp>,
    /// So many of the last ones.
    pub tail: Option<usize>,
    /// Go on until the container has ended.
    pub follows: bool,
}

/// Makes sure that what is asked for can be kept, or passed on by who calls, where the container starts now.
pub(super) fn check(options: &RunOptions, starts_now: bool) -> Result<()> {
    match options.log.format {
        Format::Json | Format::K8s | Format::None => Ok(()),
        Format::Journald if crate::support::journal::is_there() => Ok(()),
        Format::Journald => Err(Error::unsupported("log driver journald: systemd's journal does not answer here")
            .with_hint("json-file and k8s-file need none")),
        // Podman's rule: a container that could write to a terminal could type into it (TIOCSTI).
        Format::Passthrough if options.terminal => {
            Err(Error::invalid("log driver passthrough: not with a terminal (-t)"))
        }
        Format::Passthrough => {
            let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
            let passed = if options.interactive { &streams[..] } else { &streams[1..] };
            if starts_now && passed.iter().any(rustix::termios::isatty) {
                return Err(Error::invalid("log driver passthrough: the command's streams are a terminal")
                    .with_hint("it is for services, whose streams are a file, a pipe or the journal"));
            }
            Ok(())
        }
    }
}

/// Hands the entries of a container's log to `show`, in the order in which they were written.
pub fn logs(
    engine: &Engine,
    container: &Container,
    options: LogsOptions,
    show: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let record = container.record()?;
    let driver = match record.options.log.format {
        Format::Json | Format::K8s => None,
        Format::Journald => return journal::show(engine, container, &record, options, show),
        Format::None => Some("none"),
        Format::Passthrough => Some("passthrough"),
    };
    if let Some(driver) = driver {
        return Err(Error::new(Kind::State, format!("container {} keeps no log", record.name))
            .with_hint(format!("it was made with --log-driver {driver}")));
    }
    // Before anything is read: what is written meanwhile is noticed.
    let watch = if options.follows { Some(Watch::new([container.directory()])?) } else { None };
    let is_wanted = |entry: &Entry| {
        options.since.is_none_or(|since| entry.time >= since) && options.until.is_none_or(|until| entry.time <= until)
    };
    let mut last = VecDeque::new();
    let mut files = read::open_all(container.directory())?;
    for file in &mut files {
        while let Some(entry) = file.read_entry()? {
            if !is_wanted(&entry) {
                continue;
            }
            match options.tail {
                None => show(&entry)?,
                Some(0) => {}
                Some(most) => {
                    if last.len() == most {
                        last.pop_front();
                    }
                    last.push_back(entry);
                }
            }
        }
    }
    for entry in &last {
        show(entry)?;
    }
    let Some(watch) = watch else { return Ok(()) };
    let mut current = files.pop();
    loop {
        // Asked first: what was written before the end is read after.
        let is_over = is_over(engine, container)?;
        read_news(container, &mut current, &mut |entry| if is_wanted(entry) { show(entry) } else { Ok(()) })?;
        let is_late = options.until.is_some_and(|until| jiff::Timestamp::now() > until);
        if is_over || is_late {
            return Ok(());
        }
        watch.wait(options.until)?;
    }
}

fn is_over(engine: &Engine, container: &Container) -> Result<bool> {
    match container.status() {
        Ok(Status::Lost { .. }) => {
            engine.look_after(container)?;
            Ok(!matches!(container.status(), Ok(Status::Running { .. })))
        }
        Ok(status) => Ok(!matches!(status, Status::Running { .. } | Status::Restarting(_))),
        // Gone with its end.
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Reads what has come, also where a new file was begun meanwhile.
fn read_news(
    container: &Container,
    current: &mut Option<File>,
    show: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    loop {
        if let Some(file) = current {
            while let Some(entry) = file.read_entry()? {
                show(&entry)?;
            }
        }
        let newest = File::open(container.directory(), FILE)?;
        let Some(newest) = newest.filter(|newest| current.as_ref().is_none_or(|file| file.inode() != newest.inode()))
        else {
            return Ok(());
        };
        // What was still written to the one before, between the two looks.
        let Some(file) = current else {
            *current = Some(newest);
            continue;
        };
        while let Some(entry) = file.read_entry()? {
            show(&entry)?;
        }
        let known = file.inode();
        let mut later = read::open_all(container.directory())?;
        let place = later.iter().position(|file| file.inode() == known).map_or(0, |place| place + 1);
        let mut later = later.drain(place..);
        let Some(next) = later.next() else { return Ok(()) };
        *current = Some(next);
    }
}

/// How often a follower looks whether there is something to follow.
const LOOK: Duration = Duration::from_secs(1);

/// Wakes when something changes in a container's folder.
struct Watch(OwnedFd);

impl Watch {
    fn new<'a>(folders: impl IntoIterator<Item = BorrowedFd<'a>>) -> Result<Self> {
        use std::os::fd::AsRawFd;
        let fd = inotify::init(CreateFlags::CLOEXEC).context("watch the log")?;
        for folder in folders {
            let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
            let flags = WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::DELETE_SELF;
            inotify::add_watch(&fd, path, flags).context("watch the log")?;
        }
        Ok(Self(fd))
    }

    /// Waits for a change, or until it is time to look: for the end that was asked for, and whether the container still has
    /// a monitor. Of one that is killed no folder tells.
    fn wait(&self, until: Option<jiff::Timestamp>) -> Result<()> {
        let left = until.map(|until| Duration::try_from(until - jiff::Timestamp::now()).unwrap_or_default());
        let pause = left.map_or(LOOK, |left| left.min(LOOK) + Duration::from_millis(1));
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(pause).ok().as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno).context("watch the log"),
        }
        let mut events = [0; 4096];
        match rustix::io::read(self.0.as_fd(), &mut events) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno).context("watch the log"),
        }
    }
}
