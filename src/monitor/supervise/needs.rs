//! What a container needs that is neither it nor its monitor: callers' way in, name servers, the way out of an ordinary user's
//! networks; and what it needed too much of. Where something cannot be had, the container goes on.

use std::time::Instant;

use super::Monitor;
use crate::cgroups::MemoryWatch;
use crate::runtime::container::Running;

impl Monitor<'_> {
    /// Where there can be no name server, it is asked for again later.
    pub(super) fn look_after_names(&self) {
        let now = Instant::now();
        if self.job.names.is_due(now) && (self.job.find_names)().is_err() {
            self.job.names.lost(now);
        }
    }

    /// Notes the death of the way out, and asks for another when it is time to.
    pub(super) fn look_after_lifeline(&self) {
        let lifeline = self.job.lifeline;
        let now = Instant::now();
        if lifeline.has_ended() {
            lifeline.lost(now);
        }
        if lifeline.due().is_some_and(|due| due <= now) {
            match (self.job.reconnect)() {
                Ok(()) => lifeline.restored(),
                Err(_) => lifeline.try_again(now),
            }
        }
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
