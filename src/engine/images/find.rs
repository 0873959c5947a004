//! Which image of the store a word means: a name, an id, or the beginning of an id.

use crate::engine::engine::Engine;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::{Digest, Expected};
use crate::image::limits;
use crate::image::reference::{Reference, Repository};
use crate::image::resolve::{self, Image};
use crate::storage::additional::Stores;
use crate::storage::images::{ImageRecord, NameRecord};
use crate::storage::store::{Store, StoreView};

/// The fewest digits of an id that are looked for.
const ID_DIGITS: usize = 2;

/// An image, and the name by which it was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub image: ImageRecord,
    pub name: Option<NameRecord>,
}

/// Finds the image that a word means, and the store that it is in; an error names the word where there is none, or more
/// than one.
pub fn find<'a>(stores: &'a Stores, word: &str) -> Result<(&'a StoreView, Found)> {
    find_among(stores, word)?.ok_or_else(|| unknown(word))
}

/// Finds the image that a word means, in the own store first.
pub fn find_among<'a>(stores: &'a Stores, word: &str) -> Result<Option<(&'a StoreView, Found)>> {
    match find_in(&stores.own, word)? {
        Some(found) => Ok(Some((&stores.own, found))),
        None => find_additional(&stores.others, word),
    }
}

/// Finds an image that is to be changed, or sent: it has to be in the own store.
pub fn find_own(engine: &Engine, store: &Store, word: &str) -> Result<Found> {
    if let Some(found) = find_in(store, word)? {
        return Ok(found);
    }
    let others = engine.additional_stores()?;
    Err(match find_additional(&others, word)? {
        None => unknown(word),
        Some((view, _)) => {
            Error::new(Kind::State, format!("image {word}: it is in the read-only store {}", view.path().display()))
                .with_hint("`husk pull` or `husk load` brings it into your own")
        }
    })
}

/// Passes over images whose layers are not in the caller's form: the store was made by another kind of user.
fn find_additional<'a>(others: &'a [StoreView], word: &str) -> Result<Option<(&'a StoreView, Found)>> {
    for view in others {
        if let Some(found) = find_in(view, word)?
            && view.has_layers(&found.image)?
        {
            return Ok(Some((view, found)));
        }
    }
    Ok(None)
}

/// Says that no image is called so.
pub fn unknown(word: &str) -> Error {
    Error::new(Kind::NotFound, format!("image {word}: no such image"))
        .with_hint(format!("`husk pull {word}` brings it here"))
}

/// Finds the image that a word means in one store.
pub fn find_in(store: &StoreView, word: &str) -> Result<Option<Found>> {
    for reference in candidates(word) {
        if let Some(name) = store.name(&reference)?
            && let Some(id) = &name.image
            && let Some(image) = store.image(id)?
        {
            return Ok(Some(Found { image, name: Some(name) }));
        }
        if let Some(found) = by_digest(store, &reference)? {
            return Ok(Some(found));
        }
    }
    by_id(store, word)
}

/// Gives what a word may mean as a name, the likeliest first: as docker reads it, and what was made here.
pub fn candidates(word: &str) -> Vec<Reference> {
    let Ok(first) = Reference::parse(word) else { return Vec::new() };
    let mut found = vec![first.clone()];
    let is_bare = !word.contains('/');
    if is_bare && let Ok(local) = Repository::new("localhost", first.repository().path().trim_start_matches("library/"))
    {
        found.extend(match (first.digest(), first.tag()) {
            (Some(digest), _) => Some(Reference::by_digest(local, *digest)),
            (None, Some(tag)) => Reference::tagged(local, tag).ok(),
            (None, None) => None,
        });
    }
    found
}

/// `name@digest`, where the name was last pulled by tag: the digest is that of the target or of a manifest.
fn by_digest(store: &StoreView, reference: &Reference) -> Result<Option<Found>> {
    let Some(digest) = reference.digest() else { return Ok(None) };
    for name in store.names()? {
        let Ok(named) = Reference::parse(&name.name) else { continue };
        if named.repository() != reference.repository() {
            continue;
        }
        let Some(image) = name.image.as_ref().map(|id| store.image(id)).transpose()?.flatten() else { continue };
        if name.target.digest == *digest || image.manifests.iter().any(|manifest| manifest.digest == *digest) {
            return Ok(Some(Found { image, name: Some(name) }));
        }
    }
    Ok(None)
}

fn by_id(store: &StoreView, word: &str) -> Result<Option<Found>> {
    if let Ok(id) = word.parse::<Digest>() {
        return Ok(store.image(&id)?.map(|image| Found { image, name: None }));
    }
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !is_hex || digits.len() < ID_DIGITS || digits.len() > 64 {
        return Ok(None);
    }
    let mut fitting = store.image_ids()?.into_iter().filter(|id| id.hex().starts_with(digits));
    match (fitting.next(), fitting.next()) {
        (Some(_), Some(_)) => {
            Err(Error::invalid(format!("image {word}: several ids begin so")).with_hint("give more digits of the id"))
        }
        (Some(id), None) => Ok(store.image(&id)?.map(|image| Found { image, name: None })),
        (None, _) => Ok(None),
    }
}

/// Reads what an image of the store is made of.
pub fn open(store: &StoreView, record: &ImageRecord) -> Result<Image> {
    let config_json = store.read_document(&record.id, limits::CONFIG_BYTES)?;
    let packed: Vec<_> = record
        .layers
        .iter()
        .map(|layer| (Expected { digest: Some(layer.digest), size: Some(layer.size) }, None))
        .collect();
    resolve::describe(config_json, &packed, None).with_context(|| format!("image {}", record.id))
}
