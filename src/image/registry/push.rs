//! Uploads: blobs in the fewest requests, then the documents that name them.
//!
//! A blob that is there already is not sent; one that another repository of the registry has is mounted from it; a large
//! one goes in pieces, and goes on where a connection broke.

use std::fmt::Write as _;
use std::io::Read;

use ureq::http::{Method, StatusCode};

use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::reference::Repository;

use super::client::{Answer, Call, Client, Payload};
use super::origin::Origin;

/// Bytes of one piece of an upload, unless the registry wants more (`OCI-Chunk-Min-Length`).
const PIECE_BYTES: u64 = 64 << 20;

/// The largest piece that a registry may want.
const LARGEST_PIECE: u64 = 1 << 30;

/// Opens a blob's bytes from a position on.
pub(crate) type Open<'a> = &'a dyn Fn(u64) -> Result<Box<dyn Read + 'a>>;

/// What has become of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// The registry had it.
    Exists,
    /// It was taken from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

impl Client {
    /// Sees to it that a repository has a blob.
    pub(crate) fn push_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        from: Option<&Repository>,
        open: Open<'_>,
    ) -> Result<Uploaded> {
        let push = || {
            if self.has(repository, &format!("blobs/{digest}"))? {
                return Ok(Uploaded::Exists);
            }
            let scope = push_scope(repository, from);
            let from = from.filter(|from| from.registry() == repository.registry() && *from != repository);
            let query = from.map_or_else(String::new, |from| format!("?mount={digest}&from={}", from.path()));
            let path = format!("/v2/{}/blobs/uploads/{query}", repository.path());
            let begin =
                Call { method: Method::POST, target: &path, scope: &scope, headers: &[], payload: Payload::None };
            let answer = self.send(&begin)?.success()?;
            if answer.status() == StatusCode::CREATED {
                return Ok(Uploaded::Mounted);
            }
            self.upload(&Place::of(&answer)?, &scope, digest, size, open)?;
            Ok(Uploaded::Sent)
        };
        push().map_err(|error: Error| error.context(format!("push blob {digest} to {repository}")))
    }

    /// Sends a manifest or an index; gives the digest by which the registry knows it.
    pub(crate) fn push_manifest(
        &self,
        repository: &Repository,
        selector: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<()> {
        let scope = push_scope(repository, None);
        let path = format!("/v2/{}/manifests/{selector}", repository.path());
        let headers = [("content-type", media_type.to_owned())];
        let payload = Payload::Bytes(bytes);
        let call = Call { method: Method::PUT, target: &path, scope: &scope, headers: &headers, payload };
        let push = || self.send(&call)?.success().map(drop);
        push().with_context(|| format!("push manifest {selector} to {repository}"))
    }

    /// Asks whether a repository has a blob or a manifest.
    pub(crate) fn has(&self, repository: &Repository, what: &str) -> Result<bool> {
        let scope = push_scope(repository, None);
        let path = format!("/v2/{}/{what}", repository.path());
        let call = Call { method: Method::HEAD, target: &path, scope: &scope, headers: &[], payload: Payload::None };
        let answer = self.send(&call)?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(answer.failure()),
        }
    }

    fn upload(&self, place: &Place, scope: &str, digest: &Digest, size: u64, open: Open<'_>) -> Result<()> {
        let piece = PIECE_BYTES.max(place.least_piece);
        let mut place = place.clone();
        let mut position = 0;
        let mut failures = 0;
        // The last piece goes with the request that ends the upload.
        while size - position > piece {
            let end = position + piece;
            let sent = self.send_piece(&place, scope, position, piece, open);
            match sent {
                Ok(next) => (place, position, failures) = (next, end, 0),
                Err(error) => {
                    failures += 1;
                    let passing = matches!(error.kind(), Kind::Other | Kind::System(_));
                    if !passing || failures >= self.patience().tries {
                        return Err(error);
                    }
                    std::thread::sleep(self.patience().pause * failures);
                    // What has arrived is the registry's to say.
                    (place, position) = self.ask_progress(&place, scope, size)?;
                }
            }
        }
        let joint = if place.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{joint}digest={}", place.url, digest.to_string().replace(':', "%3A"));
        let left = size - position;
        let open_rest = || -> Result<Box<dyn Read + '_>> { Ok(Box::new(open(position)?.take(left))) };
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        if position > 0 {
            headers.push(("content-range", format!("{position}-{}", size - 1)));
        }
        let payload = Payload::Stream(left, &open_rest);
        self.send(&Call { method: Method::PUT, target: &url, scope, headers: &headers, payload })?.success().map(drop)
    }

    fn send_piece(&self, place: &Place, scope: &str, position: u64, length: u64, open: Open<'_>) -> Result<Place> {
        let headers = [
            ("content-type", "application/octet-stream".to_owned()),
            ("content-range", format!("{position}-{}", position + length - 1)),
        ];
        let open_piece = || -> Result<Box<dyn Read + '_>> { Ok(Box::new(open(position)?.take(length))) };
        let payload = Payload::Stream(length, &open_piece);
        let call = Call { method: Method::PATCH, target: &place.url, scope, headers: &headers, payload };
        // One try: sent twice, a piece would be out of order.
        let answer = self.send_once(&call)?;
        match answer.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => Place::of(&answer),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(answer.failure().with_kind(Kind::Other)),
            _ => Err(answer.failure()),
        }
    }

    /// Asks how far an upload has come.
    fn ask_progress(&self, place: &Place, scope: &str, size: u64) -> Result<(Place, u64)> {
        let answer = self.send(&Call::get(&place.url, scope))?.success()?;
        let end =
            answer.header("range").and_then(|range| range.trim_start_matches("bytes=").split_once('-')?.1.parse().ok());
        let position = end.map_or(0, |end: u64| end.saturating_add(1));
        // `0-0` is what registries say of nothing, too; a byte more or less is caught by the digest.
        let position = if position <= 1 { 0 } else { position };
        if position > size {
            return Err(Error::invalid("the registry has more of the blob than there is"));
        }
        let next = Place::of(&answer).unwrap_or_else(|_| place.clone());
        Ok((next, position))
    }
}

/// Where an upload goes on.
#[derive(Clone, Debug)]
struct Place {
    url: String,
    least_piece: u64,
}

impl Place {
    fn of(answer: &Answer) -> Result<Self> {
        let location = answer.header("location").ok_or_else(|| Error::invalid("the answer has no Location"))?;
        let url = Origin::of_url(&answer.url)?.resolve(&answer.url, location)?;
        let least_piece = answer.header("oci-chunk-min-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if least_piece > LARGEST_PIECE {
            return Err(Error::invalid(format!("limit: the registry wants pieces of {least_piece} bytes")));
        }
        Ok(Self { url, least_piece })
    }
}

/// Gives the scope of a token that may write to a repository, and read the one that is mounted from.
fn push_scope(repository: &Repository, from: Option<&Repository>) -> String {
    let mut scope = format!("repository:{}:pull,push", repository.path());
    if let Some(from) = from.filter(|from| from.registry() == repository.registry() && *from != repository) {
        let _ = write!(scope, " repository:{}:pull", from.path());
    }
    scope
}
