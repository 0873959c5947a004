//! `manifest`: indexes of images for several platforms, made here, changed, shown and pushed.
//!
//! An index is a name in the catalogue without an image of its own. Each change writes another document and moves the name
//! to it; the old one goes with the next sweep.

use serde_json::{Map, Value, json};

use crate::engine::engine::Engine;
use crate::engine::record::now;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::{Algorithm, Digest};
use crate::image::limits;
use crate::image::manifest;
use crate::image::media::{self, Document};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::storage::images::{Changing, Descriptor, FORMAT, NameRecord};
use crate::storage::store::Store;

use super::find;
use super::push::{self, Progress, Pushed, Way};
use super::remote::{Remote, RemoteOptions};

const INDEX_TYPE: &str = manifest::DOCUMENT_TYPES[0];

/// What is said of an image in an index.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    pub os: Option<String>,
    pub architecture: Option<String>,
    pub variant: Option<String>,
    pub os_version: Option<String>,
    pub features: Vec<String>,
    /// `name=value` each, split.
    pub annotations: Vec<(String, String)>,
}

/// Makes an index of images, or with `amend` adds them to the one that there is.
pub fn create(engine: &Engine, name: &Reference, images: &[String], amend: bool) -> Result<Digest> {
    let store = engine.store()?;
    let _held = store.hold()?;
    let changing = store.change()?;
    let mut index = match read(&store, name) {
        Ok(index) if amend => index,
        Ok(_) => {
            return Err(Error::new(Kind::Exists, format!("{name}: there is an index of that name"))
                .with_hint("add to it with --amend, or remove it with `husk manifest rm`"));
        }
        Err(error) if error.kind() == Kind::NotFound => {
            if store.name(name)?.is_some() {
                return Err(Error::new(Kind::Exists, format!("{name}: it is the name of an image")));
            }
            json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []})
        }
        Err(error) => return Err(error),
    };
    for image in images {
        let entry = local_entry(&store, image, &Notes::default())?;
        put(&mut index, entry)?;
    }
    write(&store, &changing, name, &index)
}

/// Adds an image to an index: one of the store, or by `docker://NAME` one of a registry, of which the manifest is kept.
pub fn add(engine: &Engine, name: &Reference, word: &str, notes: &Notes, options: &RemoteOptions) -> Result<Digest> {
    let store = engine.store()?;
    let _held = store.hold()?;
    let mut index = read(&store, name)?;
    let entry = match word.strip_prefix("docker://") {
        Some(word) => remote_entry(engine, &store, &Reference::parse(word)?, notes, options)?,
        None => local_entry(&store, word, notes)?,
    };
    put(&mut index, entry)?;
    let changing = store.change()?;
    write(&store, &changing, name, &index)
}

/// Changes what is said of an image in an index; `word` is its digest, or an image of the store.
pub fn annotate(engine: &Engine, name: &Reference, word: &str, notes: &Notes) -> Result<Digest> {
    let store = engine.store()?;
    let changing = store.change()?;
    let mut index = read(&store, name)?;
    let digest = match word.parse::<Digest>() {
        Ok(digest) => digest,
        Err(_) => local_manifest(&store, word)?.0.digest,
    };
    let entry = entries(&mut index)?
        .iter_mut()
        .find(|entry| entry["digest"].as_str() == Some(&digest.to_string()))
        .ok_or_else(|| Error::new(Kind::NotFound, format!("{digest} is not in the index {name}")))?;
    say(entry, notes);
    write(&store, &changing, name, &index)
}

/// Gives the document that a name stands for: of an index made here, of an image of the store, or of a registry.
pub fn inspect(engine: &Engine, word: &str, options: &RemoteOptions) -> Result<Vec<u8>> {
    let store = engine.store()?;
    let name = Reference::parse(word.strip_prefix("docker://").unwrap_or(word))?;
    if !word.starts_with("docker://") {
        for name in find::candidates(word) {
            if let Some(record) = store.name(&name)? {
                return store.read_document(&record.target.digest, limits::MANIFEST_BYTES);
            }
        }
    }
    let (endpoint, client) = Remote::load(&engine.settings, options)?.destination(&name)?;
    Ok(client.manifest(&endpoint.repository, &name.selector())?.bytes)
}

/// Forgets an index; the images in it stay.
pub fn remove(engine: &Engine, name: &Reference) -> Result<Digest> {
    let store = engine.store()?;
    let changing = store.change()?;
    read(&store, name)?;
    let digest = record(&store, name)?.target.digest;
    store.remove_name(&changing, name)?;
    Ok(digest)
}

/// Sends an index, after the images in it.
pub fn push(
    engine: &Engine,
    name: &Reference,
    destination: &Reference,
    options: &RemoteOptions,
    report: &(dyn Fn(Progress) + Sync),
) -> Result<Pushed> {
    let push = || {
        let store = engine.store()?;
        let _held = store.hold()?;
        let target = record(&store, name)?.target;
        let bytes = store.read_document(&target.digest, limits::MANIFEST_BYTES)?;
        let (endpoint, client) = Remote::load(&engine.settings, options)?.destination(destination)?;
        for choice in manifest::parse_index(&bytes)? {
            let digest = choice.descriptor.digest;
            // Where the registry has it, its blobs are there, too.
            if client.has(&endpoint.repository, &format!("manifests/{digest}"))? {
                continue;
            }
            let document = Descriptor { media_type: choice.media_type, digest, size: choice.descriptor.size };
            let place = Reference::by_digest(endpoint.repository.clone(), digest);
            let way = Way { client: &client, repository: &endpoint.repository, from: None, report };
            push::push_image(&store, &way, &place, &document).with_context(|| format!("image {digest}"))?;
        }
        client.push_manifest(&endpoint.repository, &destination.selector(), INDEX_TYPE, &bytes)?;
        Ok(Pushed { digest: target.digest, size: target.size })
    };
    push().map_err(|error: Error| error.context(format!("push {destination}")))
}

fn record(store: &Store, name: &Reference) -> Result<NameRecord> {
    let record = store.name(name)?.filter(|record| record.image.is_none());
    record.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("{name}: no such index")).with_hint("`husk manifest create` makes one")
    })
}

fn read(store: &Store, name: &Reference) -> Result<Value> {
    let bytes = store.read_document(&record(store, name)?.target.digest, limits::MANIFEST_BYTES)?;
    serde_json::from_slice(&bytes).with_context(|| format!("index {name}"))
}

fn write(store: &Store, changing: &Changing, name: &Reference, index: &Value) -> Result<Digest> {
    let bytes = serde_json::to_vec(index)?;
    // What others could not read is not written.
    manifest::parse_index(&bytes)?;
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    store.blobs()?.put_document(&digest, &bytes)?;
    let target = Descriptor { media_type: INDEX_TYPE.to_owned(), digest, size: bytes.len() as u64 };
    let record = NameRecord { format: FORMAT, name: name.to_string(), target, image: None, since: now() };
    store.put_name(changing, name, &record)?;
    Ok(digest)
}

fn entries(index: &mut Value) -> Result<&mut Vec<Value>> {
    index["manifests"].as_array_mut().ok_or_else(|| Error::invalid("manifests: not a list"))
}

/// Adds an entry, or puts it in the place of the one with its digest.
fn put(index: &mut Value, entry: Value) -> Result<()> {
    let entries = entries(index)?;
    match entries.iter_mut().find(|known| known["digest"] == entry["digest"]) {
        Some(known) => *known = entry,
        None => entries.push(entry),
    }
    Ok(())
}

fn local_manifest(store: &Store, word: &str) -> Result<(Descriptor, Platform)> {
    let image = find::find_in(store, word)?.ok_or_else(|| find::unknown(word))?.image;
    let platform = Platform::parse(&image.platform)?;
    Ok((image.manifest()?.clone(), platform))
}

fn local_entry(store: &Store, word: &str, notes: &Notes) -> Result<Value> {
    let (manifest, platform) = local_manifest(store, word)?;
    Ok(entry(&manifest, &platform, notes))
}

fn remote_entry(
    engine: &Engine,
    store: &Store,
    name: &Reference,
    notes: &Notes,
    options: &RemoteOptions,
) -> Result<Value> {
    let (endpoint, client) = Remote::load(&engine.settings, options)?.destination(name)?;
    let fetched = client.manifest(&endpoint.repository, &name.selector())?;
    if fetched.document != Document::Manifest {
        return Err(Error::unsupported(format!("{name}: it is an index itself"))
            .with_hint("name one of its images by NAME@DIGEST; `husk manifest inspect` shows them"));
    }
    let parsed = manifest::parse_manifest(&fetched.bytes)?;
    let config = client.small_blob(&endpoint.repository, &parsed.config, limits::CONFIG_BYTES)?;
    let platform = crate::image::config::platform(&config)?;
    store.blobs()?.put_document(&fetched.digest(), &fetched.bytes)?;
    let size = fetched.bytes.len() as u64;
    let manifest = Descriptor { media_type: fetched.media_type.clone(), digest: fetched.digest(), size };
    Ok(entry(&manifest, &platform, notes))
}

fn entry(manifest: &Descriptor, platform: &Platform, notes: &Notes) -> Value {
    debug_assert!(media::document(&manifest.media_type).is_ok(), "it was read as one");
    let mut described = json!({"architecture": platform.architecture, "os": platform.os});
    if let Some(variant) = &platform.variant {
        described["variant"] = json!(variant);
    }
    let mut entry = json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest.to_string(),
        "size": manifest.size,
        "platform": described,
    });
    say(&mut entry, notes);
    entry
}

/// Writes down what is said of an image.
fn say(entry: &mut Value, notes: &Notes) {
    let fields = [
        ("os", &notes.os),
        ("architecture", &notes.architecture),
        ("variant", &notes.variant),
        ("os.version", &notes.os_version),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            entry["platform"][field] = json!(value);
        }
    }
    if !notes.features.is_empty() {
        entry["platform"]["os.features"] = json!(notes.features);
    }
    if !notes.annotations.is_empty() && !entry["annotations"].is_object() {
        entry["annotations"] = Value::Object(Map::new());
    }
    for (name, value) in &notes.annotations {
        entry["annotations"][name] = json!(value);
    }
}
