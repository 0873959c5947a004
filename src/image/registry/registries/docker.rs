//! What docker's `daemon.json` says of registries: `insecure-registries` and `registry-mirrors`.
//!
//! The rest of the file is about the daemon, and is passed over.

use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Context, Error, Result};
use crate::support::caller::Caller;
use crate::support::config_file;
use crate::support::network::Network;

/// The two keys that a client needs.
#[derive(Default)]
pub(super) struct Daemon {
    insecure: Vec<Insecure>,
    /// Of docker's hub, by host.
    mirrors: Vec<String>,
}

enum Insecure {
    Host(String),
    /// Hosts that are named by an address. (Docker also looks up the others, and believes the answer.)
    Network(Network),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    #[serde(default)]
    insecure_registries: Vec<String>,
    #[serde(default)]
    registry_mirrors: Vec<String>,
}

impl Daemon {
    /// Reads the file of a user's own daemon, else the machine's.
    pub(super) fn load(caller: &Caller) -> Result<Self> {
        let users = caller.config_home().filter(|_| caller.uid() != 0).map(|folder| folder.join("docker/daemon.json"));
        let paths = users.into_iter().chain([caller.system("/etc/docker/daemon.json")]);
        for path in paths {
            if let Some(text) = config_file::read(&path)? {
                return Self::parse(&text, &path);
            }
        }
        Ok(Self::default())
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let document: Document = serde_json::from_str(text).with_context(|| path.display().to_string())?;
        let Document { insecure_registries, registry_mirrors } = document;
        let host = |text: &str| {
            let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
            rest.trim_end_matches('/').to_owned()
        };
        let insecure = insecure_registries.iter().map(|text| match text.parse::<Network>() {
            Ok(network) if text.contains('/') => Insecure::Network(network),
            _ => Insecure::Host(host(text)),
        });
        let mut daemon = Self { insecure: insecure.collect(), mirrors: Vec::new() };
        for text in &registry_mirrors {
            let mirror = host(text);
            if mirror.contains(['/', '@', '?', '#']) {
                return Err(Error::invalid(format!("{}: registry-mirrors: {text:?} is not a host", path.display())));
            }
            if text.starts_with("http://") {
                daemon.insecure.push(Insecure::Host(mirror.clone()));
            }
            daemon.mirrors.push(mirror);
        }
        Ok(daemon)
    }

    /// Gives the mirrors of docker's hub.
    pub(super) fn mirrors(&self) -> impl Iterator<Item = &str> {
        self.mirrors.iter().map(String::as_str)
    }

    /// Says whether a registry is one that docker would trust without a certificate.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        let address = super::without_port(host).trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        self.insecure.iter().any(|insecure| match insecure {
            Insecure::Host(name) => name == host,
            Insecure::Network(network) => address.is_some_and(|address| network.contains(address)),
        })
    }
}
