//! Where images of a name are: mirrors, other locations, what is blocked or insecure, and what short names mean.
//!
//! From podman's `registries.conf` (version 2) with its drop-in folders, and docker's `daemon.json`. An entry of the former
//! decides alone about what it matches; without one the latter is asked; without either, a short name is docker's hub's,
//! and the machine itself is insecure, as docker has both. Only reads and answers: nothing is looked up or connected to.

mod docker;
mod file;

use crate::error::{Error, Kind, Result};
use crate::image::reference::{DEFAULT_REGISTRY, Reference, Repository, is_registry};
use crate::support::caller::Caller;

use super::origin::is_loopback;
use docker::Daemon;
use file::{Entry, File, PullFrom, ShortNames};

/// Where docker's hub answers, which is not where its names say.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// One place to get an image from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What to connect to: `HOST[:PORT]`.
    pub host: String,
    /// What the image's repository is called there; logins are for this.
    pub repository: Repository,
    /// Certificates are not checked, and plain HTTP will do.
    pub is_insecure: bool,
    /// It stands in for another: what it has not, or not as it should be, is sought further on.
    pub is_mirror: bool,
}

/// The configuration of registries on a machine.
#[derive(Default)]
pub struct Registries {
    file: File,
    daemon: Daemon,
}

impl Registries {
    /// Reads all files that there are.
    pub fn load(caller: &Caller) -> Result<Self> {
        Ok(Self { file: File::load(caller)?, daemon: Daemon::load(caller)? })
    }

    /// Reads one text as each of the files, one after the other; for the fuzzer.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn read_any(text: &str) -> (Result<Self>, Result<Self>) {
        let path = std::path::Path::new("file");
        let file = File::parse(text, path).map(|file| Self { file, ..Self::default() });
        let daemon = Daemon::parse(text, path).map(|daemon| Self { daemon, ..Self::default() });
        (file, daemon)
    }

    /// Gives the places to get an image from, mirrors first; fails where its registry is blocked.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let repository = reference.repository();
        let Some((entry, length)) = self.file.find(reference) else {
            let mut endpoints = Vec::new();
            if repository.registry() == DEFAULT_REGISTRY {
                for mirror in self.daemon.mirrors() {
                    let endpoint = endpoint(mirror, repository.path(), self.is_insecure_unsaid(mirror))?;
                    endpoints.push(Endpoint { is_mirror: true, ..endpoint });
                }
            }
            let registry = repository.registry();
            endpoints.push(endpoint(registry, repository.path(), self.is_insecure_unsaid(registry))?);
            return Ok(endpoints);
        };
        if entry.blocked {
            return Err(Error::invalid(format!(
                "registry {} is blocked in {}",
                repository.registry(),
                entry.origin.display()
            )));
        }
        let is_by_digest = reference.digest().is_some();
        let takes_part = |from: PullFrom| match from {
            PullFrom::All => true,
            PullFrom::DigestOnly => is_by_digest,
            PullFrom::TagOnly => !is_by_digest,
        };
        let name = repository.to_string();
        // A prefix may reach into the tag; a name has none.
        let rest = name.get(length..).unwrap_or_default();
        let mut endpoints = Vec::new();
        let mirrors = entry.mirrors.iter().filter(|mirror| takes_part(mirror.pull_from));
        let places = mirrors.map(|mirror| (mirror.location.as_str(), mirror.insecure, true));
        for (location, insecure, is_mirror) in places.chain([(&entry.location[..], entry.insecure, false)]) {
            let name = if location.is_empty() { name.clone() } else { format!("{location}{rest}") };
            let (host, path) = name.split_once('/').unwrap_or((&name, ""));
            // As an entry decides alone, only loopback's rule is left for what it says nothing about.
            let is_insecure = insecure.unwrap_or_else(|| is_loopback(without_port(host)));
            let endpoint = endpoint(host, path, is_insecure).map_err(|error| {
                error.context(format!("{}: location {location:?} for {repository}", entry.origin.display()))
            })?;
            endpoints.push(Endpoint { is_mirror, ..endpoint });
        }
        Ok(endpoints)
    }

    /// Says whether a registry's certificate is not to be checked, where no image is meant (`login`, `search`).
    pub fn is_insecure(&self, host: &str) -> bool {
        match self.file.find_host(host).map(|entry: &Entry| entry.insecure) {
            Some(insecure) => insecure.unwrap_or_else(|| is_loopback(without_port(host))),
            None => self.is_insecure_unsaid(host),
        }
    }

    /// The same, where no entry of registries.conf is about the host.
    fn is_insecure_unsaid(&self, host: &str) -> bool {
        is_loopback(without_port(host)) || self.daemon.is_insecure(host)
    }

    /// Gives what a name that somebody typed can mean, in the order in which it is to be tried; never nothing.
    pub fn resolve(&self, text: &str) -> Result<Vec<Reference>> {
        let Some(name) = short_name(text) else { return Ok(vec![Reference::parse(text)?]) };
        // The grammar is checked before anything is put in front of it.
        let hub = Reference::parse(text)?;
        let suffix = &text[name.len()..];
        if let Some(target) = self.file.aliases.get(name) {
            return Ok(vec![Reference::parse(&format!("{target}{suffix}"))?]);
        }
        let Some(search) = &self.file.search else { return Ok(vec![hub]) };
        let candidates = search.iter().map(|registry| Reference::parse(&format!("{registry}/{text}")));
        let candidates = candidates.collect::<Result<Vec<_>>>()?;
        let names = || candidates.iter().map(Reference::familiar).collect::<Vec<_>>().join(", ");
        match candidates.len() {
            0 => Err(Error::new(
                Kind::NotFound,
                format!(
                    "image name {text:?}: names without a registry are turned off by unqualified-search-registries"
                ),
            )
            .with_hint(format!("name the registry: {hub}"))),
            count if count > 1 && self.file.short_names == ShortNames::Enforcing => {
                Err(Error::invalid(format!("image name {text:?} may mean each of {}", names()))
                    .with_hint("name the registry, or set an alias in registries.conf"))
            }
            _ => Ok(candidates),
        }
    }
}

fn endpoint(host: &str, path: &str, is_insecure: bool) -> Result<Endpoint> {
    let repository = Repository::new(host, path)?;
    let host = match host {
        DEFAULT_REGISTRY | "index.docker.io" => DOCKER_HUB_HOST,
        other => other,
    };
    Ok(Endpoint { host: host.to_owned(), repository, is_insecure, is_mirror: false })
}

/// Gives the part of a text before its tag and digest, where it names no registry.
fn short_name(text: &str) -> Option<&str> {
    let name = text.split('@').next().unwrap_or(text);
    let name = match name.rfind(':') {
        Some(colon) if !name[colon..].contains('/') => &name[..colon],
        _ => name,
    };
    match name.split_once('/') {
        Some((first, _)) if is_registry(first) => None,
        _ => Some(name),
    }
}

/// Gives the host of `HOST[:PORT]`, where an IPv6 address is in brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests;
