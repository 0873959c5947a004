//! `ps`: what containers there are, found in the one walk that also finds what crashes have left. Changes none but those.
//!
//! A record's options take longest to read, and most lists show nothing of them: they are read when they are asked for.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::connecting;
use super::containers::{Containers, Sweep, entries, needs_attention};
use super::engine::Engine;
use super::options::ports::ContainerPort;
use super::record::{self, RECORD, Record, Status, Timestamp};
use crate::error::{Error, Result};
use crate::monitor::health::{self, Health};
use crate::support::id::{ContainerId, ContainerName};
use crate::support::usage::Usage;

/// The part of a [`Record`] that lists show.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    pub id: ContainerId,
    pub name: ContainerName,
    pub created: Timestamp,
    pub image: String,
    pub image_id: Option<String>,
    pub command: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Ports that it listens on.
    #[serde(default)]
    pub exposed: Vec<ContainerPort>,
    #[serde(default)]
    remove: bool,
    /// Whether it is checked; what the check is does not matter here.
    #[serde(default)]
    health: Option<IgnoredAny>,
}

/// A container of a list.
#[derive(Debug)]
pub struct Listed {
    pub summary: Summary,
    pub status: Status,
    pub is_paused: bool,
    /// What its last health checks came to, of one that runs and is checked.
    pub health: Option<health::Status>,
    document: Vec<u8>,
}

impl Listed {
    /// Reads the whole record.
    pub fn record(&self) -> Result<Record> {
        record::parse(&self.document)
    }

    /// Says whether it runs, or is about to.
    pub fn runs(&self) -> bool {
        matches!(self.status, Status::Running { .. } | Status::Restarting(_))
    }
}

/// What there is, the newest first, and what went wrong on the way; that hides none of the others.
#[derive(Default)]
pub struct Overview {
    pub containers: Vec<Listed>,
    pub failures: Vec<Error>,
}

/// How much of the disk a container takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// What it has written.
    pub written: u64,
    /// With the layers of its image.
    pub whole: u64,
}

/// Lists all containers, and clears up after commands that were killed.
pub fn list(engine: &Engine) -> Result<Overview> {
    let containers = engine.containers()?;
    let mut overview = Overview::default();
    let mut sweep = Sweep::default();
    let mut lost = Vec::new();
    for name in entries(containers.folder())? {
        let Ok(id) = name.parse::<ContainerId>() else { continue };
        match look(&containers, &id) {
            Ok(Some(listed)) if needs_attention(listed.summary.remove, &listed.status) => {
                lost.push(id);
                containers.examine_into(&id, &mut sweep);
            }
            Ok(Some(listed)) => overview.containers.push(listed),
            Ok(None) => containers.examine_into(&id, &mut sweep),
            Err(error) => overview.failures.push(error.context(format!("container {}", id.short()))),
        }
    }
    overview.failures.extend(engine.settle(&containers, sweep));
    // Those that were lost have an end now, or are gone.
    overview.containers.extend(lost.iter().filter_map(|id| look(&containers, id).ok().flatten()));
    let runs = |id: &str| overview.containers.iter().any(|listed| listed.summary.id.as_str() == id && listed.runs());
    overview.failures.extend(connecting::sweep_unless(engine, &runs).err());
    mark_paused(engine, &mut overview.containers)?;
    overview.containers.sort_by_key(|listed| std::cmp::Reverse((listed.summary.created, listed.summary.id)));
    Ok(overview)
}

fn look(containers: &Containers, id: &ContainerId) -> Result<Option<Listed>> {
    let folder = containers.folder();
    let Some(document) = record::read_document(folder, &format!("{id}/{RECORD}"))? else { return Ok(None) };
    let summary: Summary = record::parse(&document)?;
    match record::status(folder, &format!("{id}/")) {
        Ok(status) => {
            let mut health = None;
            if summary.health.is_some() && matches!(status, Status::Running { .. }) {
                health = Health::read_at(folder, &format!("{id}/{}", health::FILE))?.map(|health| health.status);
            }
            Ok(Some(Listed { summary, status, is_paused: false, health, document }))
        }
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a container is frozen, its cgroup knows.
fn mark_paused(engine: &Engine, containers: &mut [Listed]) -> Result<()> {
    let mut running = containers.iter_mut().filter(|listed| matches!(listed.status, Status::Running { .. })).peekable();
    if running.peek().is_none() {
        return Ok(());
    }
    let runtime = engine.runtime(false)?;
    for listed in running {
        listed.is_paused = runtime.is_paused(listed.summary.id.as_str());
    }
    Ok(())
}

/// Measures containers. One that vanishes meanwhile takes nothing.
pub fn sizes(engine: &Engine, records: &[Record]) -> Result<BTreeMap<ContainerId, Size>> {
    let containers = engine.containers()?;
    let written: Vec<u64> = engine.with_file_rights_for(|| {
        let root = |record: &Record| format!("{}/root", record.id);
        records.iter().map(|record| Usage::of_files().of_tree(containers.folder(), &root(record))).collect()
    })?;
    let stores = engine.stores()?;
    let mut sizes = BTreeMap::new();
    for (record, written) in records.iter().zip(written) {
        let mut whole = written;
        for layer in &record.layers {
            whole += stores.layer_facts(layer)?.unwrap_or_default().size;
        }
        sizes.insert(record.id, Size { written, whole });
    }
    Ok(sizes)
}
