//! `update`: changes the limits of a container that lives. What is not named stays as it is, the device rules too.

use oci_spec::runtime::LinuxResources;

use super::container::Runtime;
use super::state::Status;
use crate::cgroups::{Cgroup, Warning, resctrl};
use crate::error::{Error, Kind, Result};

/// What is to be changed.
#[derive(Debug, Default)]
pub struct Update {
    /// Limits of the cgroups.
    pub resources: LinuxResources,
    /// The schema of the L3 cache, `L3:0=f;1=f`.
    pub l3_cache_schema: Option<String>,
    /// The schema of the memory bandwidth, `MB:0=20;1=70`.
    pub memory_bandwidth_schema: Option<String>,
}

impl Runtime {
    /// Changes limits, and says what could not be taken over.
    pub fn update(&self, id: &str, update: Update) -> Result<Vec<Warning>> {
        let (directory, state) = self.find(id)?;
        let Update { resources, l3_cache_schema, memory_bandwidth_schema } = update;
        // The words are runc's.
        let allocates = |resource| resctrl::find().is_ok_and(|root| resctrl::allocates(&root, resource));
        if l3_cache_schema.is_some() && !allocates("L3") {
            return Err(Error::unsupported("Intel RDT/CAT: l3 cache schema is not enabled"));
        }
        if memory_bandwidth_schema.is_some() && !allocates("MB") {
            return Err(Error::unsupported("Intel RDT/MBA: memory bandwidth schema is not enabled"));
        }
        let schemata: Vec<String> = l3_cache_schema.into_iter().chain(memory_bandwidth_schema).collect();
        if !schemata.is_empty() && state.resctrl.is_none() {
            return Err(Error::unsupported("updating a non-existent Intel RDT configuration is not supported"));
        }
        if matches!(Self::status(&directory, &state)?, Status::Stopped | Status::Creating) {
            return Err(Error::new(Kind::State, "container not running"));
        }
        let warnings = Cgroup::open(state.cgroups.unwrap_or_default())?.update(&resources)?;
        state.resctrl.map_or(Ok(()), |group| group.set(&schemata))?;
        Ok(warnings)
    }
}
