//! Secrets: small texts for containers, kept by name in the data root.
//!
//! ```text
//! secrets/<name>     0600 in a directory of mode 0700: what it is, and what it holds; made and replaced by a rename
//! ```
//!
//! A secret's content is in that file, in the memory of husk and of the container, and nowhere else: a container's
//! description has its name. It is read at each start, so that a replaced one reaches a container with its next start.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::options::secret::{SecretRequest, SecretUse};
use super::record::{Timestamp, now};
use crate::error::{Context, Error, Kind, Result};
use crate::rootfs::secrets::SecretFile;
use crate::runtime::secrets::Secrets as Delivered;
use crate::support::id::ContainerId;
use crate::support::{atomic, base64};

/// What podman takes at most.
pub const CONTENT_BYTES: usize = 512_000;

/// The file of one: base64 takes a third more, labels are bounded by ARG_MAX.
const FILE_BYTES: usize = 4 << 20;

/// As long as podman's.
const ID_DIGITS: usize = 25;

/// `NAME_MAX`, less what a replaced file is called meanwhile.
const NAME_BYTES: usize = 200;

/// A secret. `content` is in no `Debug` and no message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub id: String,
    #[serde(skip)]
    pub name: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    content: String,
}

impl Secret {
    /// Gives what it holds.
    pub fn content(&self) -> Result<Vec<u8>> {
        base64::decode(&self.content)
            .ok_or_else(|| Error::invalid(format!("secret {}: its file is damaged", self.name)))
    }
}

/// What becomes of a secret of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// It is an error.
    Refused,
    /// It is replaced.
    Replaced,
    /// It stays, and is taken for what was to be made.
    Kept,
}

/// The secrets of a data root.
pub struct Secrets<'e> {
    engine: &'e Engine,
}

impl<'e> Secrets<'e> {
    /// Finds them; makes nothing.
    pub fn of(engine: &'e Engine) -> Self {
        Self { engine }
    }

    /// Keeps a secret. Gives its id.
    pub fn create(
        &self,
        name: &str,
        content: &[u8],
        labels: BTreeMap<String, String>,
        present: Present,
    ) -> Result<String> {
        check_name(name)?;
        if content.is_empty() || content.len() > CONTENT_BYTES {
            return Err(Error::invalid(format!(
                "secret {name}: it has {} bytes, and must have between 1 and {CONTENT_BYTES}",
                content.len()
            )));
        }
        let directory = match self.open()? {
            Some(directory) => directory,
            None => self.make()?,
        };
        let found = read(&directory, name)?;
        let (created, updated) = match (&found, present) {
            (Some(found), Present::Kept) => return Ok(found.id.clone()),
            (Some(found), Present::Replaced) => (found.created, now()),
            _ => {
                let now = now();
                (now, now)
            }
        };
        let mut id = ContainerId::random()?.to_string();
        id.truncate(ID_DIGITS);
        let content = base64::encode(content);
        let secret = Secret { id, name: name.to_owned(), created, updated, labels, content };
        let bytes = serde_json::to_vec(&secret)?;
        if present == Present::Replaced {
            atomic::replace(directory.as_fd(), name, &bytes).with_context(|| format!("keep secret {name}"))?;
        } else {
            atomic::create(directory.as_fd(), name, &bytes).map_err(|error| match error.kind() {
                Kind::Exists => Error::new(Kind::Exists, format!("{name}: secret name in use"))
                    .with_hint("--replace puts another content in its place"),
                _ => error.context(format!("keep secret {name}")),
            })?;
        }
        Ok(secret.id)
    }

    /// Finds a secret by its name, its id, or the beginning of its id.
    pub fn find(&self, word: &str) -> Result<Secret> {
        let Some(directory) = self.open()? else { return Err(unknown(word)) };
        if check_name(word).is_ok()
            && let Some(secret) = read(&directory, word)?
        {
            return Ok(secret);
        }
        let mut found = self.list()?.into_iter().filter(|secret| !word.is_empty() && secret.id.starts_with(word));
        match (found.next(), found.next()) {
            (Some(secret), None) => Ok(secret),
            (Some(_), Some(_)) => Err(Error::invalid(format!("secret {word:?}: more than one id begins so"))),
            (None, _) => Err(unknown(word)),
        }
    }

    /// Lists all, by name.
    pub fn list(&self) -> Result<Vec<Secret>> {
        let Some(directory) = self.open()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in super::containers::entries(directory.as_fd())? {
            // What is being written has a name that no secret can have.
            if check_name(&name).is_ok() {
                found.extend(read(&directory, &name)?);
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Forgets a secret. Containers that have it go on, and cannot be started again without it.
    pub fn remove(&self, secret: &Secret) -> Result<()> {
        let Some(directory) = self.open()? else { return Err(unknown(&secret.name)) };
        match rustix::fs::unlinkat(&directory, &secret.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(unknown(&secret.name)),
            Err(errno) => Err(errno).with_context(|| format!("remove secret {}", secret.name)),
        }
    }

    /// Makes sure that what a container asks for is there.
    pub fn check(&self, requests: &[SecretRequest]) -> Result<()> {
        requests.iter().try_for_each(|request| self.find(&request.source).map(drop))
    }

    /// Reads what a container asks for.
    pub fn deliver(&self, requests: &[SecretRequest]) -> Result<Delivered> {
        let mut delivered = Delivered::default();
        for request in requests {
            let secret = self.find(&request.source)?;
            let content = secret.content()?;
            match &request.how {
                SecretUse::Mount { target, uid, gid, mode } => delivered.files.push(SecretFile {
                    destination: target
                        .as_deref()
                        .map_or_else(|| SecretRequest::place(&secret.name), SecretRequest::place),
                    content,
                    uid: *uid,
                    gid: *gid,
                    mode: *mode,
                }),
                SecretUse::Environment { variable } => {
                    let value = String::from_utf8(content).ok().filter(|value| !value.contains('\0'));
                    let value = value.ok_or_else(|| {
                        Error::invalid(format!("secret {}: no text that a variable could have", secret.name))
                    })?;
                    delivered.variables.push(format!("{}={value}", variable.as_ref().unwrap_or(&secret.name)));
                }
            }
        }
        Ok(delivered)
    }

    fn place(&self) -> PathBuf {
        self.engine.settings.data_root.join("secrets")
    }

    fn open(&self) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(self.place(), flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).context("open the secrets"),
        }
    }

    fn make(&self) -> Result<OwnedFd> {
        match rustix::fs::mkdir(self.place(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).context("make a directory for secrets"),
        }
        self.open()?.ok_or_else(|| Errno::NOENT.into())
    }
}

fn read(directory: &OwnedFd, name: &str) -> Result<Option<Secret>> {
    let Some(bytes) = atomic::read(directory.as_fd(), name, FILE_BYTES)?.filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    // What the parser complains of could be a part of the content.
    let secret: Secret =
        serde_json::from_slice(&bytes).map_err(|_| Error::invalid(format!("secret {name}: its file is damaged")))?;
    Ok(Some(Secret { name: name.to_owned(), ..secret }))
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_name = name.len() <= NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(allowed);
    if is_name {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "secret name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed, at most {NAME_BYTES} letters"
    )))
}

fn unknown(word: &str) -> Error {
    Error::new(Kind::NotFound, format!("no such secret: {word}"))
}
