//! `update`: other limits, another restart policy, or other bounds of what it may reach, for a container that exists; at once
//! where it runs.

use std::os::fd::AsFd;

use super::engine::Engine;
use super::files::open_below;
use super::networks::Networks;
use super::options::{Limits, RunOptions};
use super::record::{Container, RECORD, Record, Status};
use super::{config, connecting, events, membership};
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::RestartPolicy;
use crate::network::egress::Policy;
use crate::runtime::update::Update;
use crate::spec::load;
use crate::support::atomic;

/// What is to be changed of a container; what is not named stays.
pub struct Changes<'c> {
    /// Is told the limits that it has.
    pub limits: &'c dyn Fn(&mut Limits),
    pub restart: Option<RestartPolicy>,
    pub egress: Option<Policy>,
}

/// Changes a container, and gives lines for the user.
pub fn update(engine: &Engine, container: &Container, changes: &Changes<'_>) -> Result<Vec<String>> {
    let Changes { limits, restart, egress } = changes;
    let lock = container.lock(|_| ())?;
    let mut record = container.record()?;
    let status = container.status()?;
    if egress.is_some() {
        check_egress(engine, &record, &status)?;
    }
    if record.remove && restart.is_some_and(|policy| policy != RestartPolicy::No) {
        return Err(Error::new(Kind::State, format!("container {} is removed with its end", record.name))
            .with_hint("a restart policy needs a container without --rm"));
    }
    let bundle = engine.container_directory(container.id()).join("bundle");
    let mut spec = load::load(&bundle)?.value;
    let mut notes = Vec::new();
    limits(&mut record.options.limits);
    let asked = RunOptions { limits: record.options.limits.clone(), ..RunOptions::default() };
    let resources = config::resources(&asked)?;
    let before = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
    let mut merged = before.clone();
    merged
        .set_memory(*resources.memory())
        .set_cpu(resources.cpu().clone())
        .set_pids(*resources.pids())
        .set_block_io(resources.block_io().clone());
    let is_running = matches!(status, Status::Running { .. });
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
    if let Some(policy) = *restart {
        if is_running && policy != record.options.restart {
            notes.push(format!("container {}: the restart policy counts from its next start on", record.name));
        }
        record.options.restart = policy;
    }
    let egress_before = record.options.egress.clone();
    if egress.is_some() {
        record.options.egress.clone_from(egress);
    }
    atomic::replace(container.directory(), RECORD, &serde_json::to_vec(&record)?)?;
    // A container that ends meanwhile with its monitor wants it.
    drop(lock);
    if record.options.egress != egress_before
        && let Err(error) = membership::tell_monitor(container)
    {
        // The failure is the one to tell.
        let _ = membership::change(container, |record| {
            record.options.egress = egress_before;
            Ok(())
        });
        let _ = membership::tell_monitor(container);
        return Err(error.context(format!("change what container {} may reach", record.name)));
    }
    events::container(engine, &record, "update", &[]);
    Ok(notes)
}

/// Refuses bounds that would not hold. What a container sends that runs without any is not led to the rules.
fn check_egress(engine: &Engine, record: &Record, status: &Status) -> Result<()> {
    // Some policy: which one says nothing here.
    let asked = Policy::default();
    connecting::check_egress(Some(&asked), &record.options.network)?;
    let networks = Networks::of(engine);
    for attachment in record.options.network.attachments() {
        connecting::check_egress_in(Some(&asked), &networks.find(&attachment.network)?)?;
    }
    let is_over = matches!(status, Status::Created | Status::Exited(_));
    if record.options.egress.is_none() && !is_over {
        let text = format!("container {} runs, and was started without bounds (--egress)", record.name);
        let hint = format!("husk stop {0}; husk update --egress … {0}; husk start {0}", record.name);
        return Err(Error::new(Kind::State, text).with_hint(hint));
    }
    Ok(())
}
