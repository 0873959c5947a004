//! A blob as a stream that survives the network: where a connection ends early, the next one goes on at that byte.
//!
//! Gives bytes and proves nothing: digest and size are its reader's to verify.

use std::io::{self, Read};

use ureq::http::{Method, StatusCode};

use crate::error::{Error, Result};
use crate::image::digest::Digest;
use crate::image::reference::Repository;

use super::client::{Answer, Call, Client, Payload, transport};

/// Reads a blob of a registry from a position to its end.
pub(crate) struct BlobReader<'a> {
    client: &'a Client,
    repository: &'a Repository,
    digest: Digest,
    position: u64,
    size: u64,
    body: Option<Box<dyn Read + Send>>,
    /// Connections in a row that gave nothing.
    failures: u32,
}

impl<'a> BlobReader<'a> {
    /// Prepares to read a blob of `size` bytes from `position` on; nothing is sent before the first read.
    pub(crate) fn new(
        client: &'a Client,
        repository: &'a Repository,
        digest: Digest,
        position: u64,
        size: u64,
    ) -> Self {
        Self { client, repository, digest, position, size, body: None, failures: 0 }
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        let path = format!("/v2/{}/blobs/{}", self.repository.path(), self.digest);
        let scope = pull_scope(self.repository);
        let range = [("range", format!("bytes={}-", self.position))];
        let headers = if self.position == 0 { &[][..] } else { &range[..] };
        let call = Call { method: Method::GET, target: &path, scope: &scope, headers, payload: Payload::None };
        let answer = self.client.send(&call)?.success()?;
        let skipped = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let start = start_of_range(&answer);
                if start != Some(self.position) {
                    return Err(Error::invalid("the registry sent another range than it was asked for"));
                }
                0
            }
            // It knows no ranges: what we have comes once more.
            _ => self.position,
        };
        // One byte more than there should be, so that a reader sees that the size is a lie.
        let left = (self.size - self.position).saturating_add(1);
        let mut body = answer.response.into_body().into_reader();
        let passed = io::copy(&mut (&mut body).take(skipped), &mut io::sink()).map_err(|error| transport(&error))?;
        if passed < skipped {
            return Err(Error::new(crate::error::Kind::Other, "the connection ended"));
        }
        Ok(Box::new(body.take(left)))
    }

    /// Counts a connection that ended, and says whether to try another.
    fn go_on(&mut self, error: &Error) -> io::Result<()> {
        self.body = None;
        self.failures += 1;
        let patience = self.client.patience();
        if self.failures >= patience.tries {
            return Err(io::Error::other(format!("blob {}: {}", self.digest, error.report())));
        }
        std::thread::sleep(patience.pause * 2_u32.saturating_pow(self.failures - 1));
        Ok(())
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(body) = &mut self.body else {
                if self.position > self.size {
                    return Ok(0);
                }
                // The tries for one request are the client's.
                let opened = self.open();
                self.body = Some(opened.map_err(|error| io::Error::other(error.report()))?);
                continue;
            };
            match body.read(buffer) {
                Ok(0) if self.position < self.size && !buffer.is_empty() => {
                    self.go_on(&Error::new(crate::error::Kind::Other, "the connection ended early"))?;
                }
                Ok(length) => {
                    self.position += length as u64;
                    if length > 0 {
                        self.failures = 0;
                    }
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.go_on(&transport(&error))?,
            }
        }
    }
}

/// Gives the scope of a token that may read a repository.
pub(crate) fn pull_scope(repository: &Repository) -> String {
    format!("repository:{}:pull", repository.path())
}

/// Reads where the part begins that was sent: `bytes 5-9/10`.
fn start_of_range(answer: &Answer) -> Option<u64> {
    answer.header("content-range")?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
