//! `update`: other limits, or another restart policy, for a container that exists; at once where it runs.

use std::os::fd::AsFd;

use super::config;
use super::engine::Engine;
use super::events;
use super::files::open_below;
use super::options::{Limits, RunOptions};
use super::record::{Container, RECORD, Status};
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::RestartPolicy;
use crate::runtime::update::Update;
use crate::spec::load;
use crate::support::atomic;

/// Changes a container, and gives lines for the user. `change` is told the limits that it has.
pub fn update(
    engine: &Engine,
    container: &Container,
    change: &dyn Fn(&mut Limits),
    restart: Option<RestartPolicy>,
) -> Result<Vec<String>> {
    let _lock = container.lock(|_| ())?;
    let mut record = container.record()?;
    if record.remove && restart.is_some_and(|policy| policy != RestartPolicy::No) {
        return Err(Error::new(Kind::State, format!("container {} is removed with its end", record.name))
            .with_hint("a restart policy needs a container without --rm"));
    }
    let bundle = engine.container_directory(container.id()).join("bundle");
    let mut spec = load::load(&bundle)?.value;
    let mut notes = Vec::new();
    change(&mut record.options.limits);
    let asked = RunOptions { limits: record.options.limits.clone(), ..RunOptions::default() };
    let resources = config::resources(&asked)?;
    let before = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
    let mut merged = before.clone();
    merged
        .set_memory(*resources.memory())
        .set_cpu(resources.cpu().clone())
        .set_pids(*resources.pids())
        .set_block_io(resources.block_io().clone());
    let is_running = matches!(container.status()?, Status::Running { .. });
    if merged != before {
        if is_running {
            // The kernel first: what it refuses is not recorded.
            let mut resources = merged.clone();
            resources.set_devices(None);
            let update = Update { resources, ..Update::default() };
            let warnings = engine.runtime(false)?.update(container.id().as_str(), update)?;
            notes.extend(warnings.iter().map(ToString::to_string));
        }
        if let Some(linux) = spec.linux_mut() {
            linux.set_resources(Some(merged));
        }
        let folder = open_below(container.directory(), "bundle")?;
        atomic::replace(folder.as_fd(), "config.json", &serde_json::to_vec(&spec)?)
            .context("write the container's config.json")?;
    }
    if let Some(policy) = restart {
        if is_running && policy != record.options.restart {
            notes.push(format!("container {}: the restart policy counts from its next start on", record.name));
        }
        record.options.restart = policy;
    }
    atomic::replace(container.directory(), RECORD, &serde_json::to_vec(&record)?)?;
    events::container(engine, &record, "update", &[]);
    Ok(notes)
}
