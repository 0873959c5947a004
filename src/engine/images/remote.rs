//! How a registry is spoken to from this host: where it is, with what certificates, as whom.

use std::path::PathBuf;
use std::sync::Arc;

use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use crate::error::{Context, Result};
use crate::image::reference::{DEFAULT_REGISTRY, Repository};
use crate::image::registry::client::{Client, Patience, Setup};
use crate::image::registry::credentials::Credentials;
use crate::image::registry::login::Login;
use crate::image::registry::origin::is_loopback;
use crate::support::caller::Caller;

/// Where docker.io's registry really is.
const DOCKER_HOST: &str = "registry-1.docker.io";

/// What a caller may say about registries on the command line.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// `--tls-verify`
    pub verify_tls: Option<bool>,
    /// `--authfile`
    pub authfile: Option<PathBuf>,
}

/// Prepares to speak to a repository's registry, as whoever is logged in there.
pub fn client(repository: &Repository, options: &RemoteOptions) -> Result<Client> {
    let credentials = Credentials::load(&Caller::current(), options.authfile.as_deref());
    let login = credentials.lookup(repository)?;
    connect(repository.registry(), login, options)
}

/// Asks a registry whether it takes a login.
pub fn check_login(registry: &str, login: &Login, options: &RemoteOptions) -> Result<()> {
    connect(registry, Some(login.clone()), options)?.ping().with_context(|| format!("log in to {registry}"))
}

fn connect(registry: &str, login: Option<Login>, options: &RemoteOptions) -> Result<Client> {
    let host = if registry == DEFAULT_REGISTRY { DOCKER_HOST } else { registry };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_insecure = options.verify_tls.map_or_else(|| is_loopback(name), |verify| !verify);
    let roots: Vec<_> = rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .map(|certificate| ureq::tls::Certificate::from_der(certificate).to_owned())
        .collect();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(&roots))
        .disable_verification(is_insecure)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Client::new(Setup {
        registry: registry.to_owned(),
        host: host.to_owned(),
        is_insecure,
        login,
        tls,
        patience: Patience::default(),
    })
}
