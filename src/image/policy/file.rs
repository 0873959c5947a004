//! The policy's file, parsed and checked. What is not known in it is refused, since it may be a requirement.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::identity::Identity;
use crate::error::{Context, Error, Result};
use crate::image::reference::{Reference, Repository};
use crate::support::base64;
use crate::support::strict_json::{self, Fields};

/// Requirements by transport and scope.
#[derive(Debug)]
pub(super) struct File {
    default: Vec<Requirement>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// What an image has to be.
#[derive(Debug)]
pub(super) enum Requirement {
    Accept,
    Reject,
    /// Signed with one of these keys, for a name that the image may have.
    Sigstore {
        keys: Vec<Keys>,
        identity: Identity,
    },
    /// Something that is well formed and cannot be checked here.
    Unsupported(&'static str),
}

/// Where a key is.
#[derive(Debug)]
pub(super) enum Keys {
    Path(PathBuf),
    Data(Vec<u8>),
}

impl File {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let document = strict_json::parse(bytes)?;
        let mut fields = Fields::of(document, "the policy")?;
        let default = fields.take("default").ok_or_else(|| Error::invalid("default is missing"))?;
        let default = requirements(default).context("default")?;
        let mut transports = BTreeMap::new();
        for (transport, scopes) in fields.object("transports")?.unwrap_or_default() {
            let place = || format!("transports.{transport}");
            let Value::Object(scopes) = scopes else { return Err(Error::invalid(place() + " is not an object")) };
            let mut by_scope = BTreeMap::new();
            for (scope, list) in scopes {
                let place = || format!("{}[{scope:?}]", place());
                if transport == "docker" {
                    check_scope(&scope).with_context(place)?;
                }
                by_scope.insert(scope.clone(), requirements(list).with_context(place)?);
            }
            transports.insert(transport.clone(), by_scope);
        }
        fields.end()?;
        Ok(Self { default, transports })
    }

    /// Gives the requirements for the first of the scopes that has some.
    pub(super) fn requirements(&self, transport: &str, scopes: &[String]) -> &[Requirement] {
        let Some(by_scope) = self.transports.get(transport) else { return &self.default };
        let found = scopes.iter().map(String::as_str).chain([""]).find_map(|scope| by_scope.get(scope));
        found.unwrap_or(&self.default)
    }
}

/// Checks a scope of registries: one that could not match anything is a mistake that leaves something open.
fn check_scope(scope: &str) -> Result<()> {
    let host = scope.strip_prefix("*.").unwrap_or(scope);
    match scope.split_once('/') {
        _ if scope.is_empty() => Ok(()),
        None => Repository::new(host, "any").map(drop),
        Some(_) if host != scope => Err(Error::invalid("a wildcard stands for hosts, without a path")),
        Some(_) => Reference::parse_exact(scope).map(drop),
    }
}

fn requirements(list: Value) -> Result<Vec<Requirement>> {
    let Value::Array(list) = list else { return Err(Error::invalid("not a list")) };
    if list.is_empty() {
        return Err(Error::invalid("an empty list allows nothing").with_hint("write {\"type\": \"reject\"}"));
    }
    list.into_iter().map(requirement).collect()
}

fn requirement(value: Value) -> Result<Requirement> {
    let mut fields = Fields::of(value, "a requirement")?;
    let kind = fields.text("type")?.ok_or_else(|| Error::invalid("a requirement has no type"))?;
    let requirement = match &kind[..] {
        "insecureAcceptAnything" => Requirement::Accept,
        "reject" => Requirement::Reject,
        "signedBy" => {
            fields.skip(&["keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"]);
            Requirement::Unsupported("a signature by GPG (signedBy)")
        }
        "sigstoreSigned" => sigstore(&mut fields).context("sigstoreSigned")?,
        _ => return Err(Error::invalid(format!("unknown type {kind:?}"))),
    };
    fields.end().context(kind)?;
    Ok(requirement)
}

fn sigstore(fields: &mut Fields) -> Result<Requirement> {
    const REKOR: [&str; 4] = ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"];
    let identity = fields.take("signedIdentity");
    let identity = identity.map(parse_identity).transpose().context("signedIdentity")?.unwrap_or_default();
    let path = |text: String| Keys::Path(text.into());
    let data = |text: String| -> Result<Keys> {
        let pem = base64::decode(&text).ok_or_else(|| Error::invalid("a key's data is not base64"))?;
        Ok(Keys::Data(pem))
    };
    let mut sources: Vec<Vec<Keys>> = Vec::new();
    sources.extend(fields.text("keyPath")?.map(|text| vec![path(text)]));
    sources.extend(fields.texts("keyPaths")?.map(|texts| texts.into_iter().map(path).collect()));
    sources.extend(fields.text("keyData")?.map(|text| data(text).map(|key| vec![key])).transpose()?);
    sources.extend(fields.texts("keyDatas")?.map(|texts| texts.into_iter().map(data).collect()).transpose()?);
    let others =
        [fields.take("fulcio").map(|_| "a certificate of Fulcio"), fields.take("pki").map(|_| "a certificate (pki)")];
    let others: Vec<&'static str> = others.into_iter().flatten().collect();
    let wants_rekor = REKOR.iter().filter(|key| fields.take(key).is_some()).count() > 0;
    if sources.len() + others.len() != 1 {
        return Err(Error::invalid("one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki is to be given"));
    }
    if let Some(what) = others.first() {
        return Ok(Requirement::Unsupported(what));
    }
    if wants_rekor {
        return Ok(Requirement::Unsupported("an entry in Rekor's log"));
    }
    let keys: Vec<Keys> = sources.into_iter().flatten().collect();
    if keys.is_empty() {
        return Err(Error::invalid("the list of keys is empty"));
    }
    Ok(Requirement::Sigstore { keys, identity })
}

fn parse_identity(value: Value) -> Result<Identity> {
    let mut fields = Fields::of(value, "it")?;
    let kind = fields.text("type")?.ok_or_else(|| Error::invalid("it has no type"))?;
    let identity = match &kind[..] {
        "matchExact" => Identity::Exact,
        "matchRepoDigestOrExact" => Identity::RepositoryOfDigestOrExact,
        "matchRepository" => Identity::Repository,
        "exactReference" => Identity::exact_reference(&fields.needed_text("dockerReference")?)?,
        "exactRepository" => Identity::exact_repository(&fields.needed_text("dockerRepository")?)?,
        "remapIdentity" => Identity::remap(&fields.needed_text("prefix")?, &fields.needed_text("signedPrefix")?)?,
        _ => return Err(Error::invalid(format!("unknown type {kind:?}"))),
    };
    fields.end()?;
    Ok(identity)
}
