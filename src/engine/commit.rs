//! `commit`: a container becomes an image: the layers of its own image, and one of what it has changed.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::engine::Engine;
use super::images::instruction;
use super::images::make::{self, Layer, Making};
use super::makeup::{Base, Makeup};
use super::options::EnvironmentEntry;
use super::record::{Container, Record};
use super::stop;
use super::view::{View, open_directory};
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::{Algorithm, Digest};
use crate::image::limits;
use crate::image::manifest;
use crate::image::media::Compression;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::write::{Changing, Listing, Settings, Written, list_with_places, write_layer, write_tree};
use crate::runtime::tree::Access;
use crate::spec::load::parse_json;
use crate::storage::images::ImageRecord;
use crate::storage::store::Store;
use crate::support::root::Root;
use crate::sys::mount::Reach;

/// How a container is committed.
pub struct Commit<'a> {
    pub making: Making,
    pub author: Option<&'a str>,
    pub message: &'a str,
    pub changes: &'a [String],
    /// Its processes are stopped meanwhile.
    pub pause: bool,
    /// Everything in one layer.
    pub squash: bool,
}

/// Fields of docker's that tell of the container an image was made from; the new image is from another.
const FORGOTTEN: [&str; 5] = ["container", "container_config", "docker_version", "id", "parent"];

/// Makes an image of a container. `tell` gets lines for the user.
pub fn commit(
    engine: &Engine,
    reference: &str,
    commit: &Commit<'_>,
    name: Option<&Reference>,
    tell: &dyn Fn(&str),
) -> Result<ImageRecord> {
    let container = engine.find(reference)?;
    let make = || {
        let record = container.record()?;
        record.require_usual_ids()?;
        let makeup = Makeup::read(engine, &container, &record)?;
        if makeup.is_host {
            return Err(Error::unsupported("it has the files of this host, which are no image"));
        }
        let store = engine.store()?;
        let _held = store.hold()?;
        let Parent { mut config, mut layers } = Parent::find(&store, &record)?;
        let mut section = config.remove("config").and_then(|section| section.as_object().cloned()).unwrap_or_default();
        adapt(&mut section, &record, &makeup)?;
        for change in commit.changes {
            instruction::apply(&mut section, change)?;
        }
        // Where the files were copied for want of an overlay, nobody can tell the container's from the image's.
        let is_whole = commit.squash || layers.is_empty() || matches!(makeup.base, Base::Directory(_));
        let packed = pack(engine, &store, &container, &makeup, is_whole, commit, tell)?;
        if is_whole {
            layers.clear();
        }
        let is_empty = packed.is_none();
        layers.extend(packed.map(|packed| packed.layer(commit.making.compression)));
        let created = commit.making.created();
        let mut step = json!({
            "created": created,
            "created_by": record.command.join(" "),
            "comment": commit.message,
        });
        if let Some(author) = commit.author {
            config.insert("author".to_owned(), json!(author));
            step["author"] = json!(author);
        }
        if is_empty {
            step["empty_layer"] = json!(true);
        }
        let mut history = config.remove("history").and_then(|steps| steps.as_array().cloned()).unwrap_or_default();
        if is_whole {
            history.clear();
        } else {
            // An image that was made by hand may tell of fewer layers than it has: then the new step would be another's.
            let told = history.iter().filter(|step| step["empty_layer"] != json!(true)).count();
            let own = layers.len() - usize::from(!is_empty);
            history.extend((told..own).map(|_| json!({ "created": config.get("created") })));
        }
        history.push(step);
        for field in FORGOTTEN {
            config.remove(field);
        }
        config.insert("created".to_owned(), json!(created));
        config.insert("history".to_owned(), json!(history));
        config.insert("config".to_owned(), Value::Object(section));
        make::make(engine, &store, config, &layers, commit.making.family, name)
    };
    make().map_err(|error: Error| error.context(format!("commit container {}", container.id().short())))
}

/// The image that a container is of.
struct Parent {
    config: Map<String, Value>,
    layers: Vec<Layer>,
}

impl Parent {
    fn find(store: &Store, record: &Record) -> Result<Self> {
        let Some(id) = &record.image_id else {
            let host = Platform::host();
            let config = json!({ "architecture": host.architecture, "os": host.os });
            return Ok(Self { config: config.as_object().cloned().unwrap_or_default(), layers: Vec::new() });
        };
        let id: Digest = id.parse()?;
        let image = store.image(&id)?.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("its image {id} is not in the store"))
                .with_hint("bring it there by `husk pull` or `husk load`, or take the files by `husk export`")
        })?;
        let config =
            parse_json(&store.read_document(&id, limits::CONFIG_BYTES)?).context("the image's configuration")?;
        let manifest = store.read_document(&image.manifest()?.digest, limits::MANIFEST_BYTES)?;
        let parsed = manifest::parse_manifest(&manifest).context("the image's manifest")?;
        let layers = image.layers.iter().zip(&parsed.layers).map(|(layer, (blob, compression))| Layer {
            digest: blob.digest,
            size: blob.size,
            diff_id: layer.diff_id,
            compression: *compression,
        });
        Ok(Self { config, layers: layers.collect() })
    }
}

/// Makes the image's defaults those that the container was started with, as docker does.
fn adapt(section: &mut Map<String, Value>, record: &Record, makeup: &Makeup) -> Result<()> {
    let options = &record.options;
    let mut environment = instruction::environment(section);
    for entry in &options.environment.entries {
        let (EnvironmentEntry::Set { name, .. } | EnvironmentEntry::Pass { name }) = entry;
        let value = |entry: &String| Some(entry.strip_prefix(name.as_str())?.strip_prefix('=')?.to_owned());
        match makeup.environment.iter().find_map(value) {
            Some(value) => instruction::set(&mut environment, name, &value),
            None => environment.retain(|entry| entry.split_once('=').is_none_or(|(known, _)| known != name)),
        }
    }
    if !environment.is_empty() {
        section.insert("Env".to_owned(), json!(environment));
    }
    if let Some(entrypoint) = &options.entrypoint {
        section.insert("Entrypoint".to_owned(), json!(entrypoint));
    }
    if options.entrypoint.is_some() || !options.command.is_empty() {
        section.insert("Cmd".to_owned(), json!(options.command));
    }
    if let Some(user) = &options.user {
        section.insert("User".to_owned(), json!(user.to_string()));
    }
    if let Some(directory) = &options.working_directory {
        section.insert("WorkingDir".to_owned(), json!(directory));
    }
    if let Some(signal) = &options.stop_signal {
        section.insert("StopSignal".to_owned(), json!(signal));
    }
    for (name, value) in &options.labels {
        instruction::object(section, "Labels")?.insert(name.clone(), json!(value));
    }
    Ok(())
}

/// What comes back from the process that has rights over the container's files.
#[derive(Serialize, Deserialize)]
struct Packed {
    digest: Digest,
    size: u64,
    diff_id: Digest,
    left_out: Vec<Vec<u8>>,
}

impl Packed {
    fn layer(&self, compression: Compression) -> Layer {
        Layer { digest: self.digest, size: self.size, diff_id: self.diff_id, compression }
    }
}

/// Writes the container's changes, or all of its files, as a blob; none where it has changed nothing.
fn pack(
    engine: &Engine,
    store: &Store,
    container: &Container,
    makeup: &Makeup,
    is_whole: bool,
    commit: &Commit<'_>,
    tell: &dyn Fn(&str),
) -> Result<Option<Packed>> {
    let view = View::find(engine, container, Reach::One, Access::Read)?;
    let paused = if commit.pause && view.is_live() { Paused::pause(engine, container, tell)? } else { None };
    let settings = Settings {
        compression: commit.making.compression,
        algorithm: Algorithm::Sha256,
        ownership: engine.form().ownership,
        latest: commit.making.latest,
        with_fractions: false,
        changing: if view.is_live() && paused.is_none() { Changing::Fill } else { Changing::Refuse },
    };
    let keep = |write: &dyn Fn(&mut dyn Write) -> Result<Written>| {
        let mut written = None;
        store.blobs()?.add(|out| {
            let made = write(out)?;
            let name = (made.packed.digest, made.packed.size);
            written = Some(made);
            Ok(name)
        })?;
        let Written { packed, left_out, .. } = written.ok_or_else(|| Error::new(Kind::Other, "nothing was written"))?;
        Ok(Packed { digest: packed.digest, size: packed.size, diff_id: packed.diff_id, left_out })
    };
    let packed = match &makeup.base {
        Base::Overlay(overlay) if !is_whole => engine.with_file_rights_for(|| {
            let upper = open_directory(&overlay.upper, Access::Read)?;
            let lower = overlay.lower.iter().map(|path| Root::open(path)).collect::<Result<Vec<_>>>()?;
            let (form, listing) =
                (engine.form().overlay, Listing { mount_points: &makeup.mount_points, ..Listing::default() });
            // What is there only to be mounted on is the container's, and not for others who start from its image.
            let (changes, places) = list_with_places(&upper, &lower, form, listing)?;
            if changes.is_empty() {
                return Ok(None);
            }
            keep(&|out| Ok(write_layer(&upper, form, &places, &settings, out)?.1)).map(Some)
        }),
        _ => view.with(|root| keep(&|out| Ok(write_tree(root, &settings, out)?.1)).map(Some)),
    }?;
    drop(paused);
    for path in packed.iter().flat_map(|packed| &packed.left_out) {
        tell(&format!("/{}: a socket is not committed", String::from_utf8_lossy(path)));
    }
    Ok(packed)
}

/// A container that is frozen until this is dropped, or its process ends in whatever way: another one waits for that.
struct Paused<'a> {
    guard: Child,
    tell: &'a dyn Fn(&str),
}

impl<'a> Paused<'a> {
    /// Freezes a container that is not frozen already; where that can't be had, it goes on, and the user is told.
    fn pause(engine: &Engine, container: &Container, tell: &'a dyn Fn(&str)) -> Result<Option<Self>> {
        let runtime = engine.runtime(false)?;
        if runtime.state(container.id().as_str()).is_ok_and(|state| state.status == "paused") {
            return Ok(None);
        }
        let mut guard = engine
            .itself(&["thaw", container.id().as_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // What is typed at the command is not for it.
            .process_group(0)
            .spawn()
            .context("start what thaws the container")?;
        let Err(error) = stop::pause(engine, container) else { return Ok(Some(Self { guard, tell })) };
        if let Some(mut input) = guard.stdin.take() {
            // Anything: it has nothing to do.
            let _ = input.write_all(b"not frozen");
        }
        let _ = guard.wait();
        if error.kind() != Kind::State {
            tell(&format!("it is committed as it runs: {}", error.report()));
        }
        Ok(None)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let mut words = String::new();
        if let Some(errors) = &mut self.guard.stderr {
            let _ = errors.read_to_string(&mut words);
        }
        if !self.guard.wait().is_ok_and(|status| status.success()) {
            (self.tell)(words.trim_end());
        }
    }
}
