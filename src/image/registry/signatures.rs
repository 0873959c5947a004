//! Signatures of images, where cosign puts them: in the same repository, under a tag made of the image's digest, or as
//! referrers of the image.
//!
//! The layers of such a manifest are statements, each with its signature as an annotation. Fetches them and verifies nothing but
//! that the blobs are those of the manifest, which anybody who may write to the repository may have put there.

use serde::Deserialize;
use ureq::http::{Method, StatusCode};

use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::limits;
use crate::image::manifest::{DOCUMENT_TYPES, Descriptor};
use crate::image::reference::Repository;
use crate::image::sigstore::Signature;

use super::blob::pull_scope;
use super::client::{Call, Client, Payload};

/// What a statement is called as a layer.
const STATEMENT_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What a manifest of them is called among an image's referrers.
const ARTIFACT_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Where its signature is.
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// A statement has a few hundred bytes.
const STATEMENT_BYTES: usize = 1 << 20;

/// Signatures of one image that are looked at.
const SIGNATURES: usize = 128;

/// What is needed of the manifest.
#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Client {
    /// Fetches the signatures of the manifest with a digest; none, where there are none.
    pub(crate) fn signatures(&self, repository: &Repository, manifest: &Digest) -> Result<Vec<Signature>> {
        let tag = tag(manifest);
        let mut found = Vec::new();
        if let Some(bytes) = self.signature_manifest(repository, &tag).with_context(|| format!("manifest {tag}"))? {
            found = parse(&bytes).with_context(|| format!("manifest {tag}"))?;
        }
        match self.attached_signatures(repository, manifest) {
            Ok(attached) => found.extend(attached),
            // A signature that is missing can only refuse, and those under the tag may do.
            Err(_) if !found.is_empty() => {}
            Err(error) => return Err(error),
        }
        check_number(found.len())?;
        let mut signatures = Vec::new();
        for (descriptor, signature) in found {
            let payload = self.small_blob(repository, &descriptor, STATEMENT_BYTES)?;
            signatures.push(Signature { payload, signature });
        }
        Ok(signatures)
    }

    /// Reads the statements of what refers to the manifest.
    fn attached_signatures(&self, repository: &Repository, manifest: &Digest) -> Result<Vec<(Descriptor, String)>> {
        let referrers = self.referrers(repository, manifest, Some(ARTIFACT_TYPE))?;
        check_number(referrers.len())?;
        let mut found = Vec::new();
        for referrer in referrers {
            let fetched = match self.manifest(repository, &referrer.digest.to_string()) {
                Ok(fetched) => fetched,
                // Where clients keep the list, it can name what is gone.
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => return Err(error),
            };
            found.extend(parse(&fetched.bytes).with_context(|| format!("manifest {}", referrer.digest))?);
        }
        Ok(found)
    }

    fn signature_manifest(&self, repository: &Repository, tag: &str) -> Result<Option<Vec<u8>>> {
        let path = format!("/v2/{}/manifests/{tag}", repository.path());
        let scope = pull_scope(repository);
        let headers = [("accept", DOCUMENT_TYPES.join(", "))];
        let call =
            Call { method: Method::GET, target: &path, scope: &scope, headers: &headers, payload: Payload::None };
        let answer = self.send(&call)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.success()?.read(limits::MANIFEST_BYTES as u64).map(Some)
    }
}

/// Gives the tag of a manifest's signatures.
fn tag(manifest: &Digest) -> String {
    format!("{}.sig", manifest.to_string().replace(':', "-"))
}

/// Reads the statements and their signatures from the manifest; other layers are passed over.
fn parse(bytes: &[u8]) -> Result<Vec<(Descriptor, String)>> {
    let Manifest { layers } = serde_json::from_slice(bytes)?;
    let mut found = Vec::new();
    for Layer { media_type, digest, size, mut annotations } in layers {
        let Some(signature) = annotations.remove(SIGNATURE_ANNOTATION) else { continue };
        if media_type == STATEMENT_TYPE {
            found.push((Descriptor { digest: digest.parse()?, size }, signature));
        }
    }
    check_number(found.len())?;
    Ok(found)
}

fn check_number(number: usize) -> Result<()> {
    if number > SIGNATURES {
        return Err(Error::invalid(format!("limit: more than {SIGNATURES} signatures")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_found_among_layers() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(tag(&digest.parse().unwrap()), digest.replace(':', "-") + ".sig");
        let layer = |kind: &str, annotations: serde_json::Value| serde_json::json!({ "mediaType": kind, "digest": digest, "size": 7, "annotations": annotations });
        let signed = || serde_json::json!({ SIGNATURE_ANNOTATION: "AAAA", "other": "x" });
        let layers = [
            layer(STATEMENT_TYPE, signed()),
            layer(STATEMENT_TYPE, serde_json::json!({})),
            layer("text/plain", signed()),
        ];
        let found = parse(serde_json::json!({ "layers": layers }).to_string().as_bytes()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].0.digest.to_string()[..], found[0].0.size, &found[0].1[..]), (digest, 7, "AAAA"));
        let many = vec![layer(STATEMENT_TYPE, signed()); SIGNATURES + 1];
        assert!(parse(serde_json::json!({ "layers": many }).to_string().as_bytes()).is_err());
        for text in ["", "{}", "{\"layers\":{}}", "{\"layers\":[{}]}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
