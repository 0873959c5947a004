//! Which name a signature has to be for (containers-policy.json(5), `signedIdentity`).

use crate::error::{Error, Result};
use crate::image::reference::{Reference, Repository};

/// How the name that is signed relates to the one that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Identity {
    /// The same name and tag, or digest.
    Exact,
    /// The same name and tag; asked for by digest, the same repository, as the digest itself is signed.
    #[default]
    RepositoryOfDigestOrExact,
    /// The same repository, whatever the tag.
    Repository,
    /// This name and tag, or digest, whatever was asked for.
    ExactReference(Reference),
    /// This repository, whatever was asked for.
    ExactRepository(Repository),
    /// As `RepositoryOfDigestOrExact`, with this beginning of the name that was asked for put in the place of that: for mirrors.
    Remap { prefix: String, signed_prefix: String },
}

impl Identity {
    pub(super) fn exact_reference(text: &str) -> Result<Self> {
        let reference = Reference::parse_exact(text)?;
        if is_bare(&reference) {
            return Err(Error::invalid(format!("{text:?} has neither tag nor digest")));
        }
        Ok(Self::ExactReference(reference))
    }

    pub(super) fn exact_repository(text: &str) -> Result<Self> {
        let reference = Reference::parse_exact(text)?;
        if !is_bare(&reference) {
            return Err(Error::invalid(format!("{text:?} has a tag or a digest")));
        }
        Ok(Self::ExactRepository(reference.repository().clone()))
    }

    pub(super) fn remap(prefix: &str, signed_prefix: &str) -> Result<Self> {
        for text in [prefix, signed_prefix] {
            let (host, path) = text.split_once('/').unwrap_or((text, "any"));
            Repository::new(host, path)?;
        }
        Ok(Self::Remap { prefix: prefix.to_owned(), signed_prefix: signed_prefix.to_owned() })
    }

    /// Checks that a signature for one name is good for another.
    pub(super) fn accepts(&self, intended: &Reference, signed: &Reference) -> Result<()> {
        let accepted = match self {
            Self::Exact => !is_bare(signed) && signed == intended,
            Self::RepositoryOfDigestOrExact => is_by_digest_or_exact(intended, signed),
            Self::Repository => signed.repository() == intended.repository(),
            Self::ExactReference(exact) => signed == exact,
            Self::ExactRepository(exact) => signed.repository() == exact,
            Self::Remap { prefix, signed_prefix } => {
                is_by_digest_or_exact(&remapped(intended, prefix, signed_prefix)?, signed)
            }
        };
        if accepted {
            return Ok(());
        }
        Err(Error::invalid(format!("it is for {signed}, which is not what policy takes for {intended}")))
    }
}

fn is_bare(reference: &Reference) -> bool {
    reference.tag().is_none() && reference.digest().is_none()
}

fn is_by_digest_or_exact(intended: &Reference, signed: &Reference) -> bool {
    // The digest of the manifest has been compared: here it is about the name.
    let is_by_digest_alone = intended.tag().is_none() && intended.digest().is_some();
    !is_bare(signed)
        && if is_by_digest_alone { signed.repository() == intended.repository() } else { signed == intended }
}

/// Puts another beginning before the rest of a name.
fn remapped(reference: &Reference, prefix: &str, signed_prefix: &str) -> Result<Reference> {
    let name = reference.repository().to_string();
    let Some(rest) = name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return Ok(reference.clone());
    };
    let suffix = &reference.to_string()[name.len()..];
    Reference::parse_exact(&format!("{signed_prefix}{rest}{suffix}"))
}
