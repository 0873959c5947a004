//! `image referrers`: what a registry holds that refers to an image. Nothing comes into the store.

use crate::engine::settings::Settings;
use crate::error::{Context, Result};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::registry::referrers::Referrer;

use super::pull;
use super::remote::{Remote, RemoteOptions};

/// Lists what refers to an image: to what its name stands for, or to the manifest that is chosen from it for a platform.
pub fn list(
    settings: &Settings,
    name: &Reference,
    platform: Option<&Platform>,
    artifact_type: Option<&str>,
    options: &RemoteOptions,
) -> Result<Vec<Referrer>> {
    let list = || {
        let (endpoint, client) = Remote::load(settings, options)?.destination(name)?;
        let repository = &endpoint.repository;
        let fetch = || client.manifest(repository, &name.selector());
        let subject = match (name.digest(), platform) {
            // Referrers may outlive what they refer to.
            (Some(digest), None) => *digest,
            (None, None) => fetch()?.digest(),
            (_, Some(platform)) => pull::choose(&client, repository, fetch()?, platform, &mut Vec::new())?.digest(),
        };
        client.referrers(repository, &subject, artifact_type)
    };
    list().with_context(|| format!("list the referrers of {name}"))
}
