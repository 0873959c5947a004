//! `logs --egress`: what was refused to a container. The name servers of its networks write it down, each in its network's
//! folder below the run root.

use std::os::fd::{AsFd, OwnedFd};

use super::{LogsOptions, Watch, is_over};
use crate::engine::engine::Engine;
use crate::engine::networks::Networks;
use crate::engine::record::{Container, Record};
use crate::error::{Error, Kind, Result};
use crate::network::egress::{self, Entry};

/// Hands what was refused to `show`, in the order in which it was.
pub fn egress(
    engine: &Engine,
    container: &Container,
    options: LogsOptions,
    show: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let record = container.record()?;
    if record.options.egress.is_none() {
        return Err(Error::new(Kind::State, format!("container {} may reach everything", record.name))
            .with_hint("what is refused is logged for those that are made with --egress"));
    }
    let folders = folders(engine)?;
    // Before anything is read: what is written meanwhile is noticed.
    let watch = if options.follows { Some(Watch::new(folders.iter().map(AsFd::as_fd))?) } else { None };
    let is_wanted = |entry: &&Entry| {
        let time = entry.timestamp();
        options.since.is_none_or(|since| time >= since) && options.until.is_none_or(|until| time <= until)
    };
    let id = record.id.as_str();
    let entries = read(&folders, id)?;
    let wanted: Vec<&Entry> = entries.iter().filter(is_wanted).collect();
    let first = options.tail.map_or(0, |most| wanted.len().saturating_sub(most));
    for entry in wanted.into_iter().skip(first) {
        show(entry)?;
    }
    let Some(watch) = watch else { return Ok(()) };
    let mut last = entries.last().map(|entry| entry.time);
    loop {
        // Asked first: what was written before the end is read after.
        let is_over = is_over(engine, container)?;
        let entries = read(&folders, id)?;
        for entry in entries.iter().filter(|entry| last.is_none_or(|last| entry.time > last)).filter(is_wanted) {
            show(entry)?;
        }
        last = entries.last().map(|entry| entry.time).or(last);
        if is_over || options.until.is_some_and(|until| jiff::Timestamp::now() > until) {
            return Ok(());
        }
        watch.wait(options.until)?;
    }
}

/// Removes what was written down of a container.
pub fn forget_egress(engine: &Engine, record: &Record) -> Result<()> {
    if record.options.egress.is_none() {
        return Ok(());
    }
    folders(engine)?.iter().try_for_each(|folder| egress::forget(folder.as_fd(), record.id.as_str()))
}

/// The folders of all networks: it may have been in others than it is in now.
fn folders(engine: &Engine) -> Result<Vec<OwnedFd>> {
    let networks = Networks::of(engine);
    let mut folders = Vec::new();
    for name in networks.in_use()? {
        folders.extend(networks.existing_run_folder(&name)?);
    }
    Ok(folders)
}

fn read(folders: &[OwnedFd], id: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for folder in folders {
        entries.extend(egress::read(folder.as_fd(), id)?);
    }
    entries.sort_by_key(|entry: &Entry| entry.time);
    Ok(entries)
}
