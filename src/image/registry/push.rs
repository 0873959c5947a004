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

use super::client::{Answer, Call, Client, Payload, may_pass};
use super::origin::Origin;

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
    pub(crate) fn push_blob<'a>(
        &self,
        repository: &'a Repository,
        digest: &'a Digest,
        size: u64,
        from: Option<&Repository>,
        open: Open<'a>,
    ) -> Result<Uploaded> {
        let push = || {
            if self.has(repository, &format!("blobs/{digest}"))? {
                return Ok(Uploaded::Exists);
            }
            let upload = Upload { repository, scope: push_scope(repository, from), digest, size, open };
            let from = from.filter(|from| from.registry() == repository.registry() && *from != repository);
            let query = from.map_or_else(String::new, |from| format!("?mount={digest}&from={}", from.path()));
            let answer = self.begin(&upload, &query)?;
            if answer.status() == StatusCode::CREATED {
                return Ok(Uploaded::Mounted);
            }
            self.upload(Place::of(&answer)?, &upload)?;
            Ok(Uploaded::Sent)
        };
        push().map_err(|error: Error| error.context(format!("push blob {digest} to {repository}")))
    }

    /// Sends a manifest or an index. One that says of what it is a referrer is found by that, too: a registry that does
    /// not see to it itself says so by saying nothing.
    pub(crate) fn push_manifest(
        &self,
        repository: &Repository,
        selector: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<()> {
        let push = || {
            let answer = self.put_manifest(repository, selector, media_type, bytes, None)?;
            let is_attached = answer.success()?.header("oci-subject").is_some();
            if is_attached { Ok(()) } else { self.attach(repository, media_type, bytes) }
        };
        push().with_context(|| format!("push manifest {selector} to {repository}"))
    }

    /// Sends a document; where the registry minds, in the place of this state alone (RFC 9110, `If-Match`).
    pub(super) fn put_manifest(
        &self,
        repository: &Repository,
        selector: &str,
        media_type: &str,
        bytes: &[u8],
        instead_of: Option<&str>,
    ) -> Result<Answer> {
        let scope = push_scope(repository, None);
        let path = format!("/v2/{}/manifests/{selector}", repository.path());
        let mut headers = vec![("content-type", media_type.to_owned())];
        headers.extend(instead_of.map(|tag| ("if-match", tag.to_owned())));
        let payload = Payload::Bytes(bytes);
        self.send(&Call { method: Method::PUT, target: &path, scope: &scope, headers: &headers, payload })
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

    fn begin(&self, upload: &Upload<'_>, query: &str) -> Result<Answer> {
        let path = format!("/v2/{}/blobs/uploads/{query}", upload.repository.path());
        let scope = &upload.scope;
        let payload = Payload::None;
        self.send(&Call { method: Method::POST, target: &path, scope, headers: &[], payload })?.success()
    }

    /// Sends the bytes, in pieces if they are many. After a failure it goes on where the registry says that it is.
    fn upload(&self, mut place: Place, upload: &Upload<'_>) -> Result<()> {
        let (mut position, mut furthest, mut failures) = (0, 0, 0);
        loop {
            let left = upload.size - position;
            let piece = self.chunk().max(place.least_piece);
            // The last piece goes with the request that ends the upload.
            let error = if left <= piece {
                match self.send_last(&place, position, upload) {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            } else {
                match self.send_piece(&place, position, piece, upload) {
                    Ok(next) if next.arrived.is_none_or(|arrived| arrived > position) => {
                        // It may have taken less, and cannot have more.
                        position = next.arrived.unwrap_or(u64::MAX).min(position + piece);
                        place = next;
                        // Going over the same bytes again and again is failing, too.
                        if position > furthest {
                            (furthest, failures) = (position, 0);
                        }
                        continue;
                    }
                    Ok(_) => Error::new(Kind::Other, "the registry takes nothing of the blob"),
                    Err(error) => error,
                }
            };
            failures += 1;
            if !matches!(error.kind(), Kind::Other | Kind::System(_)) || failures >= self.patience().tries {
                return Err(error);
            }
            std::thread::sleep(self.patience().pause * failures);
            match self.ask_progress(&place, upload) {
                Ok(asked) => (place, position) = asked,
                // The answer to the last request may be all that was lost. Else the registry has forgotten the upload.
                Err(error) if error.kind() == Kind::NotFound => {
                    if self.has(upload.repository, &format!("blobs/{}", upload.digest))? {
                        return Ok(());
                    }
                    (place, position) = (Place::of(&self.begin(upload, "")?)?, 0);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn send_piece(&self, place: &Place, position: u64, length: u64, upload: &Upload<'_>) -> Result<Place> {
        let answer = self.send_part(Method::PATCH, &place.url, position, length, upload)?;
        Place::of(&answer)
    }

    fn send_last(&self, place: &Place, position: u64, upload: &Upload<'_>) -> Result<()> {
        let joint = if place.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{joint}digest={}", place.url, upload.digest.to_string().replace(':', "%3A"));
        self.send_part(Method::PUT, &url, position, upload.size - position, upload).map(drop)
    }

    fn send_part(&self, method: Method, url: &str, from: u64, length: u64, upload: &Upload<'_>) -> Result<Answer> {
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        if length > 0 && length < upload.size {
            headers.push(("content-range", format!("{from}-{}", from + length - 1)));
        }
        let open = || -> Result<Box<dyn Read + '_>> { Ok(Box::new((upload.open)(from)?.take(length))) };
        let payload = Payload::Stream(length, &open);
        // One try: sent twice, a piece would be out of order.
        let answer = self.send_once(&Call { method, target: url, scope: &upload.scope, headers: &headers, payload })?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            // The upload is elsewhere than it was thought to be, or nowhere.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND => Err(answer.failure().with_kind(Kind::Other)),
            status if may_pass(status) => Err(answer.failure().with_kind(Kind::Other)),
            _ => Err(answer.failure().with_kind(Kind::Invalid)),
        }
    }

    /// Asks how far an upload has come.
    fn ask_progress(&self, place: &Place, upload: &Upload<'_>) -> Result<(Place, u64)> {
        let answer = self.send(&Call::get(&place.url, &upload.scope))?.success()?;
        let position = arrived(&answer).unwrap_or(0);
        if position > upload.size {
            return Err(Error::invalid("the registry has more of the blob than there is"));
        }
        let next = Place::of(&answer).unwrap_or_else(|_| place.clone());
        Ok((next, position))
    }
}

/// A blob that is being sent.
struct Upload<'a> {
    repository: &'a Repository,
    scope: String,
    digest: &'a Digest,
    size: u64,
    open: Open<'a>,
}

/// Reads how many bytes a registry says that it has: `Range: 0-499` is 500.
///
/// `0-0` is what registries say of nothing, too, and some of everything; a byte more or less is caught by the digest.
fn arrived(answer: &Answer) -> Option<u64> {
    let range = answer.header("range")?;
    let end: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.parse().ok()?;
    (end > 0).then(|| end.saturating_add(1))
}

/// Where an upload goes on.
#[derive(Clone, Debug)]
struct Place {
    url: String,
    least_piece: u64,
    /// How much the registry has, if it says so.
    arrived: Option<u64>,
}

impl Place {
    fn of(answer: &Answer) -> Result<Self> {
        let location = answer.header("location").ok_or_else(|| Error::invalid("the answer has no Location"))?;
        let url = Origin::of_url(&answer.url)?.resolve(&answer.url, location)?;
        let least_piece = answer.header("oci-chunk-min-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if least_piece > LARGEST_PIECE {
            return Err(Error::invalid(format!("limit: the registry wants pieces of {least_piece} bytes")));
        }
        Ok(Self { url, least_piece, arrived: arrived(answer) })
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
