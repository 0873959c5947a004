//! The command's side: forks the monitor, attends to the container, and clears up after a monitor that was killed.

use std::os::fd::{AsFd, OwnedFd};

use super::link::{Link, Message};
use super::supervise::{self, Job};
use crate::error::{Context, Error, Kind, Result};
use crate::runtime::foreground::{self, End, Exit};
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::signal::{self, Signals};

/// A container that runs under a monitor of ours.
pub struct Client {
    link: Link,
    monitor: OwnedFd,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    signals: Signals,
    /// Things the user should be told.
    pub warnings: Vec<String>,
}

/// Forks a monitor for a job and waits until the workload runs.
///
/// `in_client` runs here as soon as the monitor is there: to let go of what is now the monitor's (the container's lock).
pub fn start(job: &Job<'_>, in_client: impl FnOnce()) -> Result<Client> {
    let signals = Signals::block_all().context("block signals")?;
    let (link, their_link) = Link::pair()?;
    let monitor = match clone3(CloneFlags::empty(), None).context("fork the monitor")? {
        Cloned::Child => {
            drop(link);
            supervise::run(job, &their_link)
        }
        Cloned::Parent(_, monitor) => monitor,
    };
    drop(their_link);
    in_client();
    let mut terminal = None;
    let mut warnings = Vec::new();
    loop {
        match link.receive()? {
            Some(Message::Warning(text)) => warnings.push(text),
            Some(Message::Terminal { master }) => terminal = Some(master),
            Some(Message::Started { pidfd }) => {
                return Ok(Client { link, monitor, pidfd, terminal, signals, warnings });
            }
            Some(Message::Failed(error)) => {
                let _ = foreground::wait(&monitor);
                return Err(error);
            }
            Some(Message::Ended(_)) => return Err(Error::new(Kind::Other, "the monitor told an end without a start")),
            None => return Err(Error::new(Kind::Other, "the monitor was killed before the container ran")),
        }
    }
}

impl Client {
    /// Attends to the workload until it has ended and is cleared.
    pub fn attend(mut self) -> Result<Exit> {
        let terminal = self.terminal.take();
        let Self { link, monitor, pidfd, signals, .. } = &self;
        let exit = foreground::attend(pidfd.as_fd(), terminal, signals, link.as_fd(), || match link.receive()? {
            Some(Message::Ended(exit)) => Ok(End::Now(exit)),
            Some(Message::Failed(error)) => Err(error),
            Some(_) => Ok(End::NotYet),
            None => {
                let _ = signal::send(pidfd.as_fd(), 9);
                Err(Error::new(Kind::Other, "the monitor was killed; so was the container")
                    .with_hint("what it left is cleared by the next command"))
            }
        })?;
        // It has told all and only ends; nobody should find it still there.
        foreground::wait(monitor)?;
        Ok(exit)
    }
}
