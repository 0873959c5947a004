//! Manifests and indexes of a registry: fetched, bounded, verified, and told apart by their media type.

use ureq::http::{Method, StatusCode};

use crate::error::{Context, Error, Result};
use crate::image::digest::{self, Algorithm, Digest, Expected};
use crate::image::limits;
use crate::image::manifest::{DOCUMENT_TYPES, Descriptor};
use crate::image::media::{self, Document};
use crate::image::reference::Repository;

use super::blob::pull_scope;
use super::client::{Call, Client, Payload};

/// A document as a registry gave it, verified.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) descriptor: Descriptor,
    pub(crate) document: Document,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
    /// What the registry calls this state of it (RFC 9110, `ETag`).
    pub(crate) tag: Option<String>,
}

impl Fetched {
    /// Gives the digest of the bytes.
    pub(crate) fn digest(&self) -> Digest {
        self.descriptor.digest
    }
}

impl Client {
    /// Fetches what a tag or a digest names.
    pub(crate) fn manifest(&self, repository: &Repository, selector: &str) -> Result<Fetched> {
        let fetch = || {
            let path = format!("/v2/{}/manifests/{selector}", repository.path());
            let scope = pull_scope(repository);
            let headers = [("accept", DOCUMENT_TYPES.join(", "))];
            let call =
                Call { method: Method::GET, target: &path, scope: &scope, headers: &headers, payload: Payload::None };
            let answer = self.send(&call)?.success()?;
            if answer.status() != StatusCode::OK {
                return Err(Error::invalid(format!("the registry answered {}", answer.status())));
            }
            let stated = answer.media_type().map(ToOwned::to_owned);
            let tag = answer.header("etag").map(ToOwned::to_owned);
            let claimed = answer.header("docker-content-digest").map(str::parse::<Digest>).transpose()?;
            let bytes = answer.read(limits::MANIFEST_BYTES as u64)?;
            let named = selector.parse::<Digest>().ok();
            for expected in named.iter().chain(&claimed) {
                digest::verify(&bytes, Expected { digest: Some(*expected), size: None })?;
            }
            let media_type = match stated {
                // Some registries, and all plain file servers, do not know what they serve.
                Some(stated) if media::document(&stated).is_ok() => stated,
                stated => crate::image::manifest::media_type_of(&bytes)?.or(stated).unwrap_or_default(),
            };
            let document = media::document(&media_type)?;
            let digest = named.or(claimed).unwrap_or_else(|| Digest::of(Algorithm::Sha256, &bytes));
            let descriptor = Descriptor { digest, size: bytes.len() as u64 };
            Ok(Fetched { descriptor, document, media_type, bytes, tag })
        };
        fetch().with_context(|| format!("manifest {selector} of {repository}"))
    }

    /// Fetches a blob that is a small document, and verifies it.
    pub(crate) fn small_blob(&self, repository: &Repository, descriptor: &Descriptor, limit: usize) -> Result<Vec<u8>> {
        let fetch = || {
            if descriptor.size > limit as u64 {
                return Err(Error::invalid(format!("limit: larger than {limit} bytes")));
            }
            let path = format!("/v2/{}/blobs/{}", repository.path(), descriptor.digest);
            let scope = pull_scope(repository);
            let bytes = self.send(&Call::get(&path, &scope))?.success()?.read(descriptor.size)?;
            digest::verify(&bytes, descriptor.expected())?;
            Ok(bytes)
        };
        fetch().map_err(|error: Error| error.context(format!("blob {} of {repository}", descriptor.digest)))
    }
}
