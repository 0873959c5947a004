//! `pause` and `resume`: freezes a container's processes and lets them go on. Starts and ends none.

use super::container::Runtime;
use super::state::Status;
use crate::cgroups::Cgroup;
use crate::error::{Error, Kind, Result};

impl Runtime {
    /// Freezes every process of a container that runs, or waits for `start`.
    pub fn pause(&self, id: &str) -> Result<()> {
        let (directory, state) = self.find(id)?;
        match Self::status(&directory, &state)? {
            Status::Running | Status::Created => Cgroup::open(state.cgroups.unwrap_or_default())?.freeze(),
            // runc's words, also for one that is paused.
            _ => Err(Error::new(Kind::State, "container not running")),
        }
    }

    /// Lets the processes of a paused container go on.
    pub fn resume(&self, id: &str) -> Result<()> {
        let (directory, state) = self.find(id)?;
        match Self::status(&directory, &state)? {
            Status::Paused => Cgroup::open(state.cgroups.unwrap_or_default())?.thaw(),
            _ => Err(Error::new(Kind::State, "container not paused")),
        }
    }
}
