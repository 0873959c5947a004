//! What a container needs that is neither it nor its monitor: callers' way in, name servers, the way out of an ordinary user's
//! networks; and what it needed too much of. Where something cannot be had, the container goes on.

use std::time::Instant;

use super::Monitor;
use crate::cgroups::MemoryWatch;
use crate::error::Result;
use crate::network::watch::Watch;
use crate::runtime::container::Running;

impl Monitor<'_> {
    /// Notes the death of a name server, and asks for another when it is time to.
    pub(super) fn look_after_names(&self) {
        look_after(self.job.names, self.job.find_names);
    }

    /// The same, of the way out.
    pub(super) fn look_after_lifeline(&self) {
        look_after(self.job.lifeline, self.job.reconnect);
    }

    /// Where this fails, who calls this host by a loopback address is not heard; others do not come this way.
    pub(super) fn attend_to_callers(&self) {
        let _ = self.job.relay.borrow_mut().attend();
    }

    /// Remembers what ran out of memory, before the cgroup that counts it can go.
    pub(super) fn look_at_memory(&mut self, running: &Running) {
        let is_there = self.memory.as_ref().is_some_and(MemoryWatch::look);
        if let Some(found) = running.out_of_memory() {
            self.out_of_memory = Some(found);
        }
        if !is_there {
            self.memory_gone = self.memory.take();
        }
    }
}

fn look_after(watch: &Watch, find: &dyn Fn() -> Result<()>) {
    let now = Instant::now();
    if watch.is_due(now) {
        match find() {
            Ok(()) => watch.restored(),
            Err(_) => watch.try_again(now),
        }
    }
}
