//! Referrers: what says of itself that it belongs to a manifest, as signatures and bills of materials do.
//!
//! Asks the registry (distribution specification 1.1, "Listing Referrers"); where it knows no such question, what counts is
//! the index under a tag that is made of the manifest's digest, which clients keep themselves. Anybody who may write to the
//! repository may have made a referrer: this lists them, and believes none.

use std::collections::BTreeMap;

use oci_spec::image::ImageIndex;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::StatusCode;

use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::{Algorithm, Digest};
use crate::image::limits;
use crate::image::manifest::{self, DOCUMENT_TYPES, Descriptor};
use crate::image::media::Document;
use crate::image::reference::Repository;
use crate::spec::load::parse_json;

use super::blob::pull_scope;
use super::client::{Client, query};
use super::manifest::Fetched;

const INDEX_TYPE: &str = DOCUMENT_TYPES[0];

/// Referrers of one manifest.
const REFERRERS: usize = 10_000;

/// Letters of a digest that the fallback's tag has, of its algorithm and of its value.
const TAG_LETTERS: (usize, usize) = (32, 64);

/// What refers to a manifest, as a list describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
    pub artifact_type: Option<String>,
    pub annotations: BTreeMap<String, String>,
}

impl Client {
    /// Lists what refers to a manifest; of one type, if that is asked for.
    pub(crate) fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>> {
        let fits = |referrer: &Referrer| artifact_type.is_none_or(|wanted| referrer.artifact_type() == wanted);
        let list = || {
            if let Some(listed) = self.listed_referrers(repository, subject, artifact_type)? {
                return Ok(listed);
            }
            let Some(index) = self.fallback(repository, subject)? else { return Ok(Vec::new()) };
            let mut found = parse(&index.bytes).with_context(|| format!("tag {}", fallback_tag(subject)))?;
            found.retain(fits);
            bounded(found)
        };
        list().map_err(|error: Error| error.context(format!("referrers of {subject} in {repository}")))
    }

    /// Asks the registry; none where it does not know what referrers are.
    fn listed_referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Referrer>>> {
        let mut path = format!("/v2/{}/referrers/{subject}", repository.path());
        if let Some(wanted) = artifact_type {
            path = format!("{path}?{}", query(&[("artifactType", wanted)]));
        }
        let mut found = Vec::new();
        let (mut is_known, mut is_first) = (true, true);
        self.pages(path, &pull_scope(repository), &[("accept", INDEX_TYPE.to_owned())], &mut |answer| {
            let is_success = answer.status().is_success();
            if is_first
                && (answer.status() == StatusCode::NOT_FOUND || is_success && answer.media_type() != Some(INDEX_TYPE))
            {
                is_known = false;
                return Ok(false);
            }
            is_first = false;
            let answer = answer.success()?;
            let applied = answer.header("oci-filters-applied").unwrap_or_default();
            // Filters are the registry's to know or not.
            let is_filtered = applied.split(',').any(|filter| filter.trim() == "artifactType");
            let mut page = parse(&answer.read(limits::MANIFEST_BYTES as u64)?)?;
            if let Some(wanted) = artifact_type.filter(|_| !is_filtered) {
                page.retain(|referrer| referrer.artifact_type() == wanted);
            }
            found.append(&mut page);
            found = bounded(std::mem::take(&mut found))?;
            Ok(true)
        })?;
        Ok(is_known.then_some(found))
    }

    /// Fetches the index that clients keep; none where nobody has begun one.
    fn fallback(&self, repository: &Repository, subject: &Digest) -> Result<Option<Fetched>> {
        let tag = fallback_tag(subject);
        match self.manifest(repository, &tag) {
            Ok(fetched) if fetched.document == Document::Index => Ok(Some(fetched)),
            Ok(_) => Err(Error::invalid(format!("tag {tag}: what it names is no index"))),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a manifest that was pushed to the index of its subject's referrers, if it has a subject.
    ///
    /// Others do the same at the same time, each with an index that it has read before. Registries that know conditions are
    /// asked to write over nothing else than what was read. They need not know any, so what was written is read again: an
    /// index that is another's and lacks the entry is amended once more. Without conditions that leaves a gap, between the
    /// second reading and the write of somebody who has read before it.
    pub(super) fn attach(&self, repository: &Repository, media_type: &str, bytes: &[u8]) -> Result<()> {
        let Some((subject, entry)) = entry(media_type, bytes)? else { return Ok(()) };
        let tag = fallback_tag(&subject);
        let attach = || {
            let mut before: Option<Option<Vec<u8>>> = None;
            for _ in 0..ATTEMPTS {
                let found = self.fallback(repository, &subject)?;
                let (known, state) = found.map_or((None, None), |found| (Some(found.bytes), found.tag));
                let Some(amended) = amend(known.as_deref(), &entry)? else { return Ok(()) };
                // A registry whose answers are late shows what was there before the write.
                if before.as_ref().is_some_and(|before| *before == known) {
                    return Ok(());
                }
                let answer = self.put_manifest(repository, &tag, INDEX_TYPE, &amended, state.as_deref())?;
                if answer.status() != StatusCode::PRECONDITION_FAILED {
                    answer.success()?;
                    before = Some(known);
                }
            }
            Err(Error::new(Kind::Other, format!("others wrote over it {ATTEMPTS} times")).with_hint("push it again"))
        };
        attach().map_err(|error: Error| error.context(format!("add it to the referrers of {subject}")))
    }
}

/// How often an index that others write is amended.
const ATTEMPTS: u32 = 8;

/// Adds an entry to an index; none where it is there.
fn amend(index: Option<&[u8]>, entry: &Value) -> Result<Option<Vec<u8>>> {
    let mut index = match index {
        Some(bytes) => {
            manifest::check_shape(bytes, Document::Index)?;
            serde_json::from_slice(bytes)?
        }
        None => json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [] }),
    };
    let known = index["manifests"].as_array_mut().ok_or_else(|| Error::invalid("manifests: not a list"))?;
    if known.iter().any(|known| known["digest"] == entry["digest"]) {
        return Ok(None);
    }
    known.push(entry.clone());
    let bytes = serde_json::to_vec(&index)?;
    // What nobody could read any more is not written.
    bounded(parse(&bytes)?)?;
    Ok(Some(bytes))
}

impl Referrer {
    /// Gives its type; none is the same as an empty one.
    fn artifact_type(&self) -> &str {
        self.artifact_type.as_deref().unwrap_or_default()
    }
}

/// Gives the tag under which clients keep the referrers of a manifest ("Referrers Tag Schema").
fn fallback_tag(subject: &Digest) -> String {
    let digest = subject.to_string();
    let (algorithm, value) = digest.split_once(':').unwrap_or((&digest, ""));
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    format!("{}-{}", cut(algorithm, TAG_LETTERS.0), cut(value, TAG_LETTERS.1))
}

fn bounded(found: Vec<Referrer>) -> Result<Vec<Referrer>> {
    if found.len() > REFERRERS {
        return Err(Error::invalid(format!("limit: more than {REFERRERS} referrers")));
    }
    Ok(found)
}

fn parse(bytes: &[u8]) -> Result<Vec<Referrer>> {
    manifest::check_shape(bytes, Document::Index)?;
    let index: ImageIndex = parse_json(bytes)?;
    let read = |(place, described): (usize, &oci_spec::image::Descriptor)| {
        let Descriptor { digest, size } = Descriptor::new(described).with_context(|| format!("manifests[{place}]"))?;
        let annotations = described.annotations().iter().flatten();
        Ok(Referrer {
            digest,
            size,
            media_type: described.media_type().to_string(),
            artifact_type: described.artifact_type().as_ref().map(ToString::to_string),
            annotations: annotations.map(|(name, value)| (name.clone(), value.clone())).collect(),
        })
    };
    index.manifests().iter().enumerate().map(read).collect()
}

/// Gives the subject of a document, and what the subject's index is to say of the document.
fn entry(media_type: &str, bytes: &[u8]) -> Result<Option<(Digest, Value)>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Referring {
        subject: Option<Subject>,
        artifact_type: Option<String>,
        config: Option<Config>,
        annotations: Option<BTreeMap<String, String>>,
    }
    #[derive(Deserialize)]
    struct Subject {
        digest: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        media_type: String,
    }
    // Docker's documents have no subject.
    if !media_type.starts_with("application/vnd.oci.") {
        return Ok(None);
    }
    let Referring { subject, artifact_type, config, annotations } = parse_json(bytes)?;
    let Some(subject) = subject else { return Ok(None) };
    let mut entry = json!({
        "mediaType": media_type,
        "digest": Digest::of(Algorithm::Sha256, bytes).to_string(),
        "size": bytes.len(),
    });
    let of_config = || config.map(|config| config.media_type);
    if let Some(artifact_type) = artifact_type.filter(|text| !text.is_empty()).or_else(of_config) {
        entry["artifactType"] = json!(artifact_type);
    }
    if let Some(annotations) = annotations {
        entry["annotations"] = json!(annotations);
    }
    Ok(Some((subject.digest.parse().context("subject: digest")?, entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn tags_of_the_fallback() {
        assert_eq!(fallback_tag(&DIGEST.parse().unwrap()), DIGEST.replace(':', "-"));
        let long = format!("sha512:{}", "0123456789abcdef".repeat(8));
        assert_eq!(fallback_tag(&long.parse().unwrap()), format!("sha512-{}", "0123456789abcdef".repeat(4)));
    }

    #[test]
    fn lists_are_read_with_what_is_no_image() {
        let text = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [
            { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST, "size": 7,
              "artifactType": "application/x-sbom", "annotations": { "a": "b" } },
            { "mediaType": "application/x-other", "digest": DIGEST, "size": 0 },
        ]})
        .to_string();
        let found = parse(text.as_bytes()).unwrap();
        assert_eq!(
            (found[0].artifact_type(), &found[0].annotations["a"][..], found[0].size),
            ("application/x-sbom", "b", 7)
        );
        assert_eq!((found[1].artifact_type(), found.len()), ("", 2));
        for (from, to) in [
            ("sha256:e3", "sha256:../"),
            ("\"size\":7", "\"size\":-7"),
            ("\"manifests\"", "\"layers\":[],\"manifests\""),
            (INDEX_TYPE, DOCUMENT_TYPES[1]),
        ] {
            assert!(text.contains(from) && parse(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn what_a_list_says_of_a_manifest() {
        let manifest = |more: Value| {
            let mut manifest = json!({ "schemaVersion": 2, "config": { "mediaType": "application/x-config" } });
            manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            manifest.to_string()
        };
        let oci = DOCUMENT_TYPES[1];
        let subject = json!({ "subject": { "digest": DIGEST }, "annotations": { "a": "b" } });
        let text = manifest(subject.clone());
        let (of, told) = entry(oci, text.as_bytes()).unwrap().unwrap();
        assert_eq!(of.to_string(), DIGEST);
        assert_eq!(told["artifactType"], "application/x-config");
        assert_eq!((&told["size"], &told["annotations"]["a"]), (&json!(text.len()), &json!("b")));
        let mut typed = subject.clone();
        typed["artifactType"] = json!("application/x-sbom");
        let (_, told) = entry(oci, manifest(typed).as_bytes()).unwrap().unwrap();
        assert_eq!(told["artifactType"], "application/x-sbom");
        assert!(entry(oci, manifest(json!({})).as_bytes()).unwrap().is_none());
        assert!(entry(DOCUMENT_TYPES[3], text.as_bytes()).unwrap().is_none());
        assert!(entry(oci, manifest(json!({ "subject": { "digest": "x" } })).as_bytes()).is_err());
    }
}
