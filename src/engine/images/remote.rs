//! How registries are spoken to from this host: where they are, with what certificates, through what, as whom.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::settings::Settings;
use crate::error::{Context, Error, Kind, Result};
use crate::image::reference::{Reference, Repository};
use crate::image::registry::certs::Trust;
use crate::image::registry::client::{Client, Patience, Setup};
use crate::image::registry::credentials::Credentials;
use crate::image::registry::login::Login;
use crate::image::registry::proxy::Proxies;
use crate::image::registry::registries::{Endpoint, Registries};
use crate::image::registry::resolver::HostResolver;
use crate::support::caller::Caller;

/// What a caller may say about registries on the command line.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// `--tls-verify`
    pub verify_tls: Option<bool>,
    /// `--authfile`
    pub authfile: Option<PathBuf>,
    /// `--cert-dir`
    pub certificates: Option<PathBuf>,
    /// `--retry`
    pub retries: Option<u32>,
    /// `--retry-delay`
    pub retry_delay: Option<Duration>,
}

/// The host's configuration, read once a command.
pub struct Remote<'a> {
    caller: Caller,
    registries: Registries,
    credentials: Credentials,
    trust: Trust,
    patience: Patience,
    chunk: u64,
    options: &'a RemoteOptions,
}

impl<'a> Remote<'a> {
    /// Reads the configuration.
    pub fn load(settings: &Settings, options: &'a RemoteOptions) -> Result<Self> {
        let caller = Caller::current();
        let registries = Registries::load(&caller)?;
        let credentials = Credentials::load(&caller, options.authfile.as_deref());
        let trust = Trust::load(&caller, options.certificates.as_deref());
        let (patience, chunk) = (patience(settings.registry_timeout, options), settings.registry_chunk);
        Ok(Self { caller, registries, credentials, trust, patience, chunk, options })
    }

    /// Gives what a name that somebody typed can mean.
    pub fn names(&self, text: &str) -> Result<Vec<Reference>> {
        self.registries.resolve(text)
    }

    /// Gives the places to get an image from, mirrors first.
    pub fn sources(&self, reference: &Reference) -> Result<Vec<(Endpoint, Client)>> {
        let endpoints = self.registries.endpoints(reference)?;
        endpoints.into_iter().map(|endpoint| self.connect(&endpoint).map(|client| (endpoint, client))).collect()
    }

    /// Gives the one place to send an image to.
    pub fn destination(&self, reference: &Reference) -> Result<(Endpoint, Client)> {
        let endpoint = self.primary(reference)?;
        let client = self.connect(&endpoint)?;
        Ok((endpoint, client))
    }

    /// Gives a registry as such, where no image is meant.
    pub(super) fn of_host(&self, registry: &str, host: &str) -> Result<Client> {
        // Logins are found by a repository; any will do.
        let login = self.credentials.lookup(&Repository::new(registry, "library/probe")?)?;
        self.client(registry, host, self.registries.is_insecure(registry), login)
    }

    fn primary(&self, reference: &Reference) -> Result<Endpoint> {
        let endpoints = self.registries.endpoints(reference)?;
        let endpoint = endpoints.into_iter().find(|endpoint| !endpoint.is_mirror);
        endpoint.ok_or_else(|| Error::new(Kind::NotFound, "no registry is configured for it"))
    }

    fn connect(&self, endpoint: &Endpoint) -> Result<Client> {
        let login = self.credentials.lookup(&endpoint.repository)?;
        self.client(endpoint.repository.registry(), &endpoint.host, endpoint.is_insecure, login)
    }

    fn client(&self, registry: &str, host: &str, is_insecure: bool, login: Option<Login>) -> Result<Client> {
        let is_insecure = self.options.verify_tls.map_or(is_insecure, |verify| !verify);
        Client::new(Setup {
            registry: registry.to_owned(),
            host: host.to_owned(),
            is_insecure,
            login,
            tls: self.trust.tls(registry, is_insecure)?,
            proxies: Proxies::load(&self.caller),
            resolver: HostResolver::new(&self.caller),
            patience: self.patience,
            chunk: self.chunk,
        })
    }
}

fn patience(timeout: Duration, options: &RemoteOptions) -> Patience {
    let usual = Patience::default();
    Patience {
        connect: usual.connect.min(timeout),
        stall: timeout,
        pause: options.retry_delay.unwrap_or(usual.pause),
        tries: options.retries.map_or(usual.tries, |retries| retries.saturating_add(1)),
        ..usual
    }
}

/// Asks a registry whether it takes a login.
pub fn check_login(settings: &Settings, registry: &str, login: &Login, options: &RemoteOptions) -> Result<()> {
    let check = || {
        let remote = Remote::load(settings, options)?;
        // Any repository will do: the place is the registry's.
        let probe = Reference::by_registry(Repository::new(registry, "library/probe")?);
        // What is known of logins so far, even that there is no file of them yet, is none of this one's business.
        let endpoint = remote.primary(&probe)?;
        let client =
            remote.client(registry, &endpoint.host, remote.registries.is_insecure(registry), Some(login.clone()))?;
        client.ping()
    };
    check().with_context(|| format!("log in to {registry}"))
}
