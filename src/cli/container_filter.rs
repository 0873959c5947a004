//! What the keys of `ps --filter` mean: docker's, and podman's beside them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::SystemTime;

use super::filter::{Filters, Key};
use crate::engine::containers::Containers;
use crate::engine::engine::Engine;
use crate::engine::images::find;
use crate::engine::list::Listed;
use crate::engine::networks::Networks;
use crate::engine::options::Network;
use crate::engine::options::ports::{self, ContainerPort, Ports};
use crate::engine::record::{Record, Status, Timestamp};
use crate::engine::volume_option::VolumeSource;
use crate::error::{Error, Kind, Result};
use crate::image::digest::Digest;
use crate::monitor::health;
use crate::sys::regex::Regex;

const KEYS: &[Key] = &[
    Key::new("id"),
    Key::new("name"),
    Key::negatable("label"),
    Key::new("ancestor"),
    Key::new("before"),
    Key::new("since"),
    Key::new("exited"),
    Key::new("status"),
    Key::new("health"),
    Key::new("volume"),
    Key::new("network"),
    Key::new("publish"),
    Key::new("expose"),
    Key::new("is-task"),
    Key::new("until"),
    Key::new("command"),
    Key::new("annotation"),
    Key::new("restart-policy"),
];

/// Docker's states, and podman's words for some of them.
const STATES: &[(&str, &str)] = &[
    ("created", "created"),
    ("configured", "created"),
    ("initialized", "created"),
    ("restarting", "restarting"),
    ("running", "running"),
    ("removing", "removing"),
    ("paused", "paused"),
    ("exited", "exited"),
    ("stopped", "exited"),
    ("dead", "dead"),
];

const HEALTHS: &[&str] = &["starting", "healthy", "unhealthy", "none"];

/// The conditions of one list, with everything looked up that they name.
pub(super) struct ContainerFilter {
    filters: Filters,
    ids: Vec<Regex>,
    names: Vec<Regex>,
    commands: Vec<Regex>,
    ancestors: Vec<Ancestor>,
    before: Vec<Timestamp>,
    since: Vec<Timestamp>,
    until: Option<SystemTime>,
    exited: Vec<u8>,
    is_task: Option<bool>,
    published: Vec<Vec<ContainerPort>>,
    exposed: Vec<Vec<ContainerPort>>,
    /// The networks that are asked for, by word.
    networks: BTreeMap<String, String>,
}

struct Ancestor {
    word: String,
    image: Option<(Digest, Vec<Digest>)>,
}

impl ContainerFilter {
    /// Reads the values of `--filter`.
    pub(super) fn parse(texts: &[String], engine: &Engine, containers: &Containers) -> Result<Self> {
        let filters = Filters::parse(texts, KEYS)?;
        let created = |key| -> Result<Vec<Timestamp>> {
            filters.values(key).map(|word| Ok(containers.find(word)?.record()?.created)).collect()
        };
        let regexes = |key| filters.values(key).map(|text| regex(key, text)).collect::<Result<Vec<_>>>();
        for word in filters.values("status") {
            check("status", word, STATES.iter().map(|(state, _)| *state))?;
        }
        for word in filters.values("health") {
            check("health", word, HEALTHS.iter().copied())?;
        }
        let exited = filters.values("exited").map(|code| {
            code.parse().map_err(|_| Error::invalid(format!("invalid filter 'exited={code}'")).with_hint("0 to 255"))
        });
        Ok(Self {
            ids: regexes("id")?,
            names: regexes("name")?,
            commands: regexes("command")?,
            ancestors: filters.values("ancestor").map(|word| ancestor(engine, word)).collect::<Result<_>>()?,
            before: created("before")?,
            since: created("since")?,
            until: filters.time("until", SystemTime::now())?,
            exited: exited.collect::<Result<_>>()?,
            is_task: filters.flag("is-task")?,
            published: filters.values("publish").map(ports::parse_exposed).collect::<Result<_>>()?,
            exposed: filters.values("expose").map(ports::parse_exposed).collect::<Result<_>>()?,
            networks: filters
                .values("network")
                .map(|word| Ok((word.to_owned(), network_name(engine, word)?)))
                .collect::<Result<_>>()?,
            filters,
        })
    }

    /// Says whether those that do not run are meant too: who asks for a state means all that are in it.
    pub(super) fn wants_all(&self) -> bool {
        self.filters.has("status")
    }

    /// Passes a container that fits all that was asked for.
    pub(super) fn pass(&self, listed: &Listed) -> Result<bool> {
        let summary = &listed.summary;
        let any = |regexes: &[Regex], text: &str| {
            regexes.is_empty() || CString::new(text).is_ok_and(|text| regexes.iter().any(|regex| regex.is_match(&text)))
        };
        let name = summary.name.as_str();
        let state = listed.status.word(listed.is_paused);
        let created = crate::cli::ps::time(summary.created);
        let fits = any(&self.ids, summary.id.as_str())
            // Docker knows a container as `/name`, and matches that as well: `^/name$`.
            && (any(&self.names, name) || any(&self.names, &format!("/{name}")))
            && any(&self.commands, summary.command.first().map_or("", String::as_str))
            && self.filters.pass("status", |word| STATES.contains(&(word, state)))
            && self.filters.pass_labels("label", |label| summary.labels.get(label).map(String::as_str))
            && self.before.iter().all(|limit| summary.created < *limit)
            && self.since.iter().all(|limit| summary.created > *limit)
            && self.until.is_none_or(|until| created < until)
            && (self.exited.is_empty() || matches!(&listed.status, Status::Exited(exit) if self.exited.contains(&exit.code)))
            && self.filters.pass("health", |word| word == listed.health.map_or("none", health::Status::word))
            // There is no swarm.
            && self.is_task != Some(true)
            && (self.exposed.is_empty() || self.exposed.iter().any(|ports| any_of(ports, &summary.exposed)));
        if !fits {
            return Ok(false);
        }
        let needs_record =
            ["volume", "network", "publish", "annotation", "restart-policy"].iter().any(|key| self.filters.has(key))
                || !self.ancestors.is_empty();
        if !needs_record {
            return Ok(true);
        }
        Ok(self.pass_record(&listed.record()?))
    }

    /// Docker knows a network by its name and by its id; podman's modes are words.
    fn is_in(&self, record: &Record, word: &str) -> bool {
        let name = self.networks.get(word).map_or(word, String::as_str);
        let network = &record.options.network;
        network.attachments().iter().any(|attachment| attachment.network == name) || network.mode() == word
    }

    fn pass_record(&self, record: &Record) -> bool {
        let options = &record.options;
        (self.ancestors.is_empty() || self.ancestors.iter().any(|ancestor| ancestor.is_of(record)))
            && self.filters.pass("volume", |word| {
                options.volumes.iter().any(|volume| {
                    volume.destination == word
                        || match &volume.source {
                            VolumeSource::Host(path) => path.as_os_str() == word,
                            VolumeSource::Named(name) => name == word,
                            VolumeSource::Anonymous | VolumeSource::Image(_) => false,
                        }
                })
            })
            && self.filters.pass("network", |word| self.is_in(record, word))
            && (self.published.is_empty() || self.published.iter().any(|ports| publishes(record, ports)))
            && self.filters.pass("annotation", |word| match word.split_once('=') {
                Some((name, value)) => options.annotations.get(name).is_some_and(|found| found == value),
                None => options.annotations.contains_key(word),
            })
            && self.filters.pass("restart-policy", |word| Some(word) == options.restart.to_string().split(':').next())
    }
}

impl Ancestor {
    /// The image itself, or one that begins with its layers.
    fn is_of(&self, record: &Record) -> bool {
        let is_image = |(id, layers): &(Digest, Vec<Digest>)| {
            record.image_id.as_ref().is_some_and(|other| *other == id.to_string())
                || !layers.is_empty() && record.layers.starts_with(layers)
        };
        record.image == self.word || self.image.as_ref().is_some_and(is_image)
    }
}

/// Says whether one of the container's ports is asked for. Docker's `publish` knows ports of both sides.
fn publishes(record: &Record, asked: &[ContainerPort]) -> bool {
    record.options.published.iter().any(|port| {
        let outside = port.host_ports.into_iter().flat_map(Ports::iter);
        let outside = outside.map(|number| ContainerPort { port: number, protocol: port.protocol });
        any_of(asked, &[port.inside()]) || outside.into_iter().any(|port| asked.contains(&port))
    })
}

fn any_of(asked: &[ContainerPort], there: &[ContainerPort]) -> bool {
    asked.iter().any(|port| there.contains(port))
}

/// A network that there is not is nobody's, and no error.
fn network_name(engine: &Engine, word: &str) -> Result<String> {
    // Those are not to be made by asking who is in them.
    if ["bridge", "host", "none"].contains(&word) {
        return Ok(word.to_owned());
    }
    match Networks::of(engine).find(word) {
        Ok(network) => Ok(network.name),
        Err(error) if error.kind() == Kind::NotFound => Ok(word.to_owned()),
        Err(error) => Err(error),
    }
}

fn ancestor(engine: &Engine, word: &str) -> Result<Ancestor> {
    let stores = engine.stores()?;
    let found = find::find_among(&stores, word)?;
    let image =
        found.map(|(_, found)| (found.image.id, found.image.layers.iter().map(|layer| layer.diff_id).collect()));
    Ok(Ancestor { word: word.to_owned(), image })
}

fn regex(key: &str, text: &str) -> Result<Regex> {
    let expression = CString::new(text).ok().and_then(|text| Regex::new(&text));
    expression
        .ok_or_else(|| Error::invalid(format!("invalid filter '{key}={text}'")).with_hint("it is a regular expression"))
}

fn check<'a>(key: &str, word: &str, known: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    if known.clone().any(|name| name == word) {
        return Ok(());
    }
    let names: Vec<&str> = known.collect();
    Err(Error::invalid(format!("invalid filter '{key}={word}'")).with_hint(format!("there are: {}", names.join(", "))))
}

/// Docker's word for the network of a container.
pub(super) fn network(record: &Record) -> String {
    match &record.options.network {
        Network::Joined(attachments) => {
            let names: Vec<&str> = attachments.iter().map(|attachment| attachment.network.as_str()).collect();
            names.join(",")
        }
        other => other.mode(),
    }
}
