//! What a registry holds: docker's search of version 1, the catalogue of version 2, and the tags of a repository.

use serde::Deserialize;

use crate::error::{Context, Result};
use crate::image::limits;
use crate::image::reference::Repository;

use super::blob::pull_scope;
use super::client::{Call, Client, query};

/// Entries of a page.
const PAGE_ENTRIES: usize = 1000;

/// A repository that a search has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Hit {
    pub name: String,
    #[serde(deserialize_with = "text_or_null")]
    pub description: String,
    pub star_count: u64,
    pub is_official: bool,
    pub is_automated: bool,
}

fn text_or_null<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    Option::<String>::deserialize(reader).map(Option::unwrap_or_default)
}

impl Client {
    /// Searches as docker does; none where the registry knows no such search.
    pub(crate) fn search(&self, words: &str, limit: usize) -> Result<Option<Vec<Hit>>> {
        #[derive(Deserialize)]
        struct Answer {
            results: Vec<Hit>,
        }
        let path = format!("/v1/search?{}", query(&[("q", words), ("n", &limit.to_string())]));
        let answer = self.send(&Call::get(&path, ""))?;
        let is_json = answer.media_type().is_some_and(|media_type| media_type.ends_with("json"));
        if !answer.status().is_success() || !is_json {
            return Ok(None);
        }
        let bytes = answer.read(limits::MANIFEST_BYTES as u64)?;
        let Answer { results } = serde_json::from_slice(&bytes).context("read what the search has found")?;
        Ok(Some(results))
    }

    /// Lists the repositories whose names fit, at most so many.
    pub(crate) fn catalog(&self, fits: impl Fn(&str) -> bool, limit: usize) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            repositories: Vec<String>,
        }
        let entries = |bytes: &[u8]| Ok(serde_json::from_slice::<Page>(bytes)?.repositories);
        self.list("/v2/_catalog", "registry:catalog:*", &entries, &fits, limit)
    }

    /// Lists the tags of a repository, at most so many.
    pub(crate) fn tags(&self, repository: &Repository, limit: usize) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let entries = |bytes: &[u8]| Ok(serde_json::from_slice::<Page>(bytes)?.tags.unwrap_or_default());
        let path = format!("/v2/{}/tags/list", repository.path());
        self.list(&path, &pull_scope(repository), &entries, &|_| true, limit)
    }

    fn list(
        &self,
        path: &str,
        scope: &str,
        entries: &dyn Fn(&[u8]) -> Result<Vec<String>>,
        fits: &dyn Fn(&str) -> bool,
        limit: usize,
    ) -> Result<Vec<String>> {
        let mut found = Vec::new();
        self.pages(format!("{path}?n={PAGE_ENTRIES}"), scope, &[], &mut |answer| {
            let bytes = answer.success()?.read(limits::MANIFEST_BYTES as u64)?;
            found.extend(entries(&bytes).context("read the list")?.into_iter().filter(|name| fits(name)));
            Ok(found.len() < limit)
        })?;
        found.truncate(limit);
        Ok(found)
    }
}
