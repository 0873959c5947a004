//! `inspect` and `history`: what an image of the store says of itself, in docker's words.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::engine::engine::Engine;
use crate::error::{Context, Result};
use crate::image::limits;
use crate::image::reference::Reference;
use crate::spec::load::parse_json;
use crate::storage::images::ImageRecord;
use crate::storage::store::StoreView;

use super::find::{self, Found};

/// The fields of a configuration that scripts ask for; docker prints them also where an image has none.
const CONFIG_FIELDS: [&str; 7] = ["Env", "Cmd", "Entrypoint", "Labels", "Volumes", "ExposedPorts", "OnBuild"];

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub created: Option<String>,
    pub created_by: String,
    pub comment: String,
    /// Bytes of the files in its layer; 0 where it made none.
    pub size: u64,
}

/// What an image is.
pub struct History {
    pub image: ImageRecord,
    /// The newest first.
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Written {
    history: Option<Vec<WrittenStep>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenStep {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    empty_layer: Option<bool>,
}

/// Tells how an image was made.
pub fn history(engine: &Engine, word: &str) -> Result<History> {
    let stores = engine.stores()?;
    let (store, Found { image, .. }) = find::find(&stores, word)?;
    let config_json = store.read_document(&image.id, limits::CONFIG_BYTES)?;
    let written: Written = parse_json(&config_json).with_context(|| format!("config {}", image.id))?;
    let mut layers = image.layers.iter();
    let mut steps = Vec::new();
    for step in written.history.unwrap_or_default() {
        let layer = if step.empty_layer == Some(true) { None } else { layers.next() };
        let size = layer.map(|layer| store.layer_facts(&layer.diff_id)).transpose()?.flatten().unwrap_or_default().size;
        steps.push(Step {
            created: step.created,
            created_by: step.created_by.unwrap_or_default(),
            comment: step.comment.unwrap_or_default(),
            size,
        });
    }
    // Images made by hand have layers that their history does not tell of.
    for layer in layers {
        let size = store.layer_facts(&layer.diff_id)?.unwrap_or_default().size;
        steps.push(Step { created: image.created.clone(), size, ..Step::default() });
    }
    steps.reverse();
    Ok(History { image, steps })
}

/// Describes an image as docker's `ImageInspect`.
pub fn inspect(engine: &Engine, word: &str) -> Result<Value> {
    let stores = engine.stores()?;
    let (store, Found { image, .. }) = find::find(&stores, word)?;
    let config_json = store.read_document(&image.id, limits::CONFIG_BYTES)?;
    let document: Map<String, Value> = parse_json(&config_json).with_context(|| format!("config {}", image.id))?;
    describe(store, &image, &document)
}

fn describe(store: &StoreView, image: &ImageRecord, document: &Map<String, Value>) -> Result<Value> {
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    let (mut tags, mut digests, mut tagged) = (Vec::new(), Vec::new(), None);
    for name in store.names()?.iter().filter(|name| name.image == Some(image.id)) {
        let reference = Reference::parse(&name.name)?;
        if reference.tag().is_some() {
            tags.push(reference.familiar());
        }
        digests.push(format!("{}@{}", reference.repository().familiar(), name.target.digest));
        tagged = tagged.max(Some(name.since));
    }
    tags.sort();
    digests.sort();
    digests.dedup();
    let mut config = document.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in CONFIG_FIELDS {
        config.entry(field).or_insert(Value::Null);
    }
    for field in ["User", "WorkingDir"] {
        config.entry(field).or_insert_with(|| json!(""));
    }
    let comment = document.get("history").and_then(Value::as_array).and_then(|steps| steps.last());
    let comment = comment.and_then(|step| step.get("comment")).and_then(Value::as_str).unwrap_or_default();
    let layers: Vec<_> = image.layers.iter().map(|layer| layer.diff_id).collect();
    let tagged = tagged.and_then(|since| jiff::Timestamp::from_nanosecond(i128::from(since)).ok());
    let mut described = json!({
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Comment": comment,
        "Created": image.created,
        "Author": text("author"),
        "Config": config,
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Size": image.size,
        "GraphDriver": { "Name": "overlay", "Data": null },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Metadata": { "LastTagTime": tagged.map(|time| time.to_string()) },
        "Descriptor": image.manifests.first(),
    });
    if !text("variant").is_empty() {
        described["Variant"] = json!(text("variant"));
    }
    Ok(described)
}
