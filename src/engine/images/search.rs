//! `search`: what registries hold. Nothing comes into the store.

use crate::engine::settings::Settings;
use crate::error::{Context, Error, Result};
use crate::image::reference::{DEFAULT_REGISTRY, Reference, is_registry};
use crate::image::registry::search::Hit;

use super::remote::{Remote, RemoteOptions};

/// Where docker's hub is searched, which is not where its images are.
const DOCKER_INDEX_HOST: &str = "index.docker.io";

/// Searches the registry that a term begins with, or docker's. Names are in full, but for docker's.
pub fn search(settings: &Settings, term: &str, limit: usize, options: &RemoteOptions) -> Result<Vec<Hit>> {
    let (registry, words) = match term.split_once('/') {
        Some((first, words)) if is_registry(first) => (first, words),
        _ => (DEFAULT_REGISTRY, term),
    };
    let find = || {
        let remote = Remote::load(settings, options)?;
        if registry == DEFAULT_REGISTRY {
            let client = remote.of_host(registry, DOCKER_INDEX_HOST)?;
            let hits = client.search(words, limit)?;
            return hits.ok_or_else(|| Error::invalid("the registry does not search"));
        }
        let client = remote.of_host(registry, registry)?;
        let hits = if let Some(hits) = client.search(words, limit)? {
            hits
        } else {
            let fits = |name: &str| name.contains(words);
            let names = client.catalog(fits, limit).context("list its repositories")?;
            names.into_iter().map(|name| Hit { name, ..Hit::default() }).collect()
        };
        Ok(hits.into_iter().map(|hit| Hit { name: format!("{registry}/{}", hit.name), ..hit }).collect())
    };
    find().with_context(|| format!("search {registry}"))
}

/// Lists the tags of a repository.
pub fn tags(settings: &Settings, name: &Reference, limit: usize, options: &RemoteOptions) -> Result<Vec<String>> {
    let list = || {
        let (endpoint, client) = Remote::load(settings, options)?.destination(name)?;
        client.tags(&endpoint.repository, limit)
    };
    list().with_context(|| format!("list the tags of {}", name.repository()))
}
