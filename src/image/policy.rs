//! Which images may come onto this machine: `containers-policy.json`.
//!
//! The requirements for the most special scope that an image is in decide, all of them; a digest proves what an image is,
//! and not that it is allowed. What husk cannot check (GPG's `signedBy`, Fulcio, PKI, Rekor) refuses, and so do fields and
//! types that are not known. Without any policy file every image is accepted, as users of docker expect. Verifies what it is
//! given; fetching signatures is the caller's, and is asked for only where they count.

mod file;
mod identity;

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::support::caller::Caller;
use crate::support::config_file;

use super::digest::Digest;
use super::reference::Reference;
use super::sigstore::{self, PublicKey, Signature, Statement};
use file::{File, Keys, Requirement};

/// What is to be used.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// An image of a registry.
    Registry(&'a Reference),
    /// A file or directory of this machine, by its transport (`oci`, `oci-archive`, `docker-archive`, `dir`).
    Local { transport: &'a str, path: &'a Path },
}

/// Fetches the signatures of a manifest.
pub type Signatures<'a> = &'a dyn Fn(&Digest) -> Result<Vec<Signature>>;

/// The policy of a machine or a user.
#[derive(Debug)]
pub struct Policy(Option<(PathBuf, File)>);

impl Policy {
    /// Reads the user's policy, else the machine's, else the distribution's.
    pub fn load(caller: &Caller) -> Result<Self> {
        let users = caller.config_home().map(|folder| folder.join("containers/policy.json"));
        let machines = ["/etc/containers/policy.json", "/usr/share/containers/policy.json"];
        for path in users.into_iter().chain(machines.map(|path| caller.system(path))) {
            if let Some(bytes) = config_file::read_bytes(&path)? {
                let file = File::parse(&bytes).with_context(|| path.display().to_string())?;
                return Ok(Self(Some((path, file))));
            }
        }
        Ok(Self(None))
    }

    /// Reads a policy from its text; for the fuzzer.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        Ok(Self(Some(("policy.json".into(), File::parse(bytes)?))))
    }

    /// Tells whether an image may be used.
    ///
    /// `manifests` are the digests of its manifest and of the indexes that led to it: who has signed an index has signed what
    /// is in it. `signatures` fetches those of one of them; it is called only where a requirement needs them, and once.
    pub fn check(&self, subject: &Subject<'_>, manifests: &[Digest], signatures: Signatures<'_>) -> Result<()> {
        let Some((path, file)) = &self.0 else { return Ok(()) };
        let (transport, scopes) = scopes(subject);
        let mut fetched = None;
        for requirement in file.requirements(transport, &scopes) {
            meets(requirement, subject, manifests, signatures, &mut fetched).map_err(|error| {
                let name = match subject {
                    Subject::Registry(reference) => reference.familiar(),
                    Subject::Local { transport, path } => format!("{transport}:{}", path.display()),
                };
                error.context(format!("image {name} is not allowed by {}", path.display()))
            })?;
        }
        Ok(())
    }
}

/// Checks one requirement.
fn meets(
    requirement: &Requirement,
    subject: &Subject<'_>,
    manifests: &[Digest],
    signatures: Signatures<'_>,
    fetched: &mut Option<Vec<(Digest, Signature)>>,
) -> Result<()> {
    let (keys, identity) = match requirement {
        Requirement::Accept => return Ok(()),
        Requirement::Reject => return Err(Error::invalid("it is rejected")),
        Requirement::Unsupported(what) => {
            return Err(Error::unsupported(format!("{what} is required, which husk cannot check")));
        }
        Requirement::Sigstore { keys, identity } => (keys, identity),
    };
    let Subject::Registry(intended) = subject else {
        return Err(Error::invalid("a signature is required, and local files have none"));
    };
    let keys = read_keys(keys)?;
    if fetched.is_none() {
        let mut all = Vec::new();
        for manifest in manifests {
            let of_it = signatures(manifest).context("fetch its signatures")?;
            all.extend(of_it.into_iter().map(|signature| (*manifest, signature)));
        }
        *fetched = Some(all);
    }
    let mut why = Error::invalid("a signature is required, and there is none");
    for (manifest, signature) in fetched.iter().flatten() {
        let verified = sigstore::verify(signature, &keys).and_then(|Statement { digest, name }| {
            if digest != *manifest {
                return Err(Error::invalid(format!("it is for {digest}")));
            }
            identity.accepts(intended, &name)
        });
        match verified {
            Ok(()) => return Ok(()),
            Err(error) => why = error.context("none of its signatures is accepted, the last since"),
        }
    }
    Err(why)
}

fn read_keys(keys: &[Keys]) -> Result<Vec<PublicKey>> {
    let mut read = Vec::new();
    for key in keys {
        read.push(match key {
            Keys::Data(pem) => PublicKey::from_pem(pem).context("keyData")?,
            Keys::Path(path) => {
                let bytes = config_file::read_bytes(path)?
                    .ok_or_else(|| Error::invalid(format!("key {}: does not exist", path.display())))?;
                PublicKey::from_pem(&bytes).with_context(|| format!("key {}", path.display()))?
            }
        });
    }
    Ok(read)
}

/// Gives the transport, and the scopes that a subject is in, the most special first.
fn scopes<'a>(subject: &Subject<'a>) -> (&'a str, Vec<String>) {
    match subject {
        Subject::Registry(reference) => ("docker", registry_scopes(reference)),
        Subject::Local { transport, path } => {
            // The root directory is no scope of its own: everything is in it.
            let folders = path.ancestors().map(|path| path.to_string_lossy().into_owned());
            (transport, folders.filter(|path| path.len() > 1).collect())
        }
    }
}

fn registry_scopes(reference: &Reference) -> Vec<String> {
    let name = reference.repository().to_string();
    let mut scopes = Vec::new();
    if let Some(digest) = reference.digest() {
        scopes.extend([reference.to_string(), format!("{name}@{digest}")]);
    }
    scopes.extend(reference.tag().map(|tag| format!("{name}:{tag}")));
    scopes.extend(std::iter::successors(Some(&name[..]), |name| Some(name.rsplit_once('/')?.0)).map(str::to_owned));
    let host = reference.repository().registry();
    let host = if host.starts_with('[') { "" } else { host.split(':').next().unwrap_or(host) };
    let domains = std::iter::successors(host.split_once('.'), |(_, rest)| rest.split_once('.'));
    scopes.extend(domains.map(|(_, domain)| format!("*.{domain}")));
    scopes
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests;
