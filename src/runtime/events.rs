//! `events`: what a container uses, now and then, and when the OOM killer strikes in it. Prints nothing itself.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;

use super::container::Runtime;
use super::state::Status;
use crate::cgroups::resctrl::Group;
use crate::cgroups::stats::Stats;
use crate::cgroups::{Cgroup, ResctrlStats};
use crate::error::{Context, Error, Kind, Result};

/// One event, in the shape of runc's `types.Event`.
#[derive(Debug, Serialize)]
pub struct Event {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

/// The figures of the cgroups, and the parts of runc's shape that are no cgroup's.
#[derive(Debug, Serialize)]
struct Data {
    #[serde(flatten)]
    stats: Stats,
    intel_rdt: ResctrlStats,
    /// runc fills it for interfaces of its own kind of network, which `config.json` cannot ask for.
    network_interfaces: Option<()>,
}

/// A container that is being listened to.
pub struct Events {
    id: String,
    init: OwnedFd,
    cgroup: Cgroup,
    resctrl: Option<Group>,
}

impl Runtime {
    /// Finds a container that lives.
    pub fn events(&self, id: &str) -> Result<Events> {
        let (directory, state) = self.find(id)?;
        let init = match Self::status(&directory, &state)? {
            Status::Stopped | Status::Creating => None,
            _ => state.open_init()?,
        };
        let not_running = || Error::new(Kind::State, format!("container with id {id} is not running"));
        let init = init.ok_or_else(not_running)?;
        let cgroup = Cgroup::open(state.cgroups.unwrap_or_default())?;
        Ok(Events { id: id.to_owned(), init, cgroup, resctrl: state.resctrl })
    }
}

impl Events {
    /// Reads the figures.
    pub fn stats(&self) -> Result<Event> {
        let stats = self.cgroup.stats().context("unable to get container cgroup stats")?;
        let intel_rdt = self.resctrl.as_ref().map(Group::stats).transpose()?.unwrap_or_default();
        let data = Data { stats, intel_rdt, network_interfaces: None };
        Ok(Event { kind: "stats", id: self.id.clone(), data: Some(data) })
    }

    /// Tells of figures at every interval and of every strike of the OOM killer, until the container has ended.
    pub fn follow(self, interval: Duration, mut tell: impl FnMut(&Event) -> Result<()>) -> Result<()> {
        let mut oom = self.cgroup.watch_oom()?;
        let mut next = Instant::now() + interval;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| Error::invalid("duration interval is too long"))?;
            let init = self.init.as_fd();
            let mut fds = [PollFd::from_borrowed_fd(init, PollFlags::IN), PollFd::new(&oom, PollFlags::IN)];
            let ready = match poll(&mut fds, Some(&timeout)) {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno).context("wait for events"),
            };
            let has_ended = !fds[0].revents().is_empty();
            // The last strike is often the one that ended the container.
            for _ in 0..oom.news()? {
                tell(&Event { kind: "oom", id: self.id.clone(), data: None })?;
            }
            if has_ended {
                return Ok(());
            }
            if ready == 0 {
                tell(&self.stats()?)?;
                next += interval;
            }
        }
    }
}
