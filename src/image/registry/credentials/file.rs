//! One file of logins: `auth.json`, docker's `config.json`, or its predecessor `.dockercfg`.
//!
//! Read as a document whose unknown parts are kept, since docker has its whole configuration in it. Messages name keys and
//! lines and never a value, which may be secret.

use serde_json::{Map, Value};

use super::Scope;
use crate::error::{Context, Error, Result};
use crate::image::registry::login::{Login, Secret};
use crate::support::base64;

/// Where in the document the logins are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Below `auths`.
    Current,
    /// They are the document: `.dockercfg`.
    BeforeConfig,
}

/// A document that holds logins.
pub(super) struct AuthFile {
    document: Map<String, Value>,
    shape: Shape,
}

impl AuthFile {
    /// Gives a file without logins.
    pub(super) fn empty() -> Self {
        Self { document: Map::new(), shape: Shape::Current }
    }

    /// Parses a file. An empty one is one that was never written.
    pub(super) fn parse(text: &str, shape: Shape) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self { document: Map::new(), shape });
        }
        // The library's message may quote what it stumbled over.
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("not JSON at line {} column {}", error.line(), error.column())))?;
        match value {
            Value::Object(document) => Ok(Self { document, shape }),
            _ => Err(Error::invalid("not a JSON object")),
        }
    }

    /// Writes the document as docker does, indented by tabs.
    pub(super) fn to_text(&self) -> String {
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        serde::Serialize::serialize(&self.document, &mut serializer).expect("memory takes every document");
        let mut text = String::from_utf8(bytes).expect("JSON is text");
        text.push('\n');
        text
    }

    /// Gives the login under a key, which stands there as it is or as a URL.
    pub(super) fn login(&self, key: &str) -> Result<Option<Login>> {
        let Some(entries) = self.entries()? else { return Ok(None) };
        // The spelling that is meant, then docker's for its hub, then whatever else leads to the same host.
        let exact = entries.get_key_value(key);
        let others = entries.iter().filter(|(spelled, _)| *spelled != key && is_spelling_of(spelled, key, self.shape));
        for (spelled, entry) in exact.into_iter().chain(others) {
            if let Some(login) = read_login(entry).with_context(|| format!("entry {spelled:?}"))? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    /// Puts a login in the place of all that there are for a scope; without one, the mark that docker leaves of a login
    /// that its helper keeps.
    pub(super) fn put(&mut self, scope: &Scope, login: Option<&Login>) -> Result<()> {
        self.remove(scope)?;
        let entry = match login {
            None => Value::Object(Map::new()),
            Some(Login::Basic { user, password }) => {
                if user.is_empty() || user.contains(':') {
                    return Err(Error::invalid("a user's name is not empty and has no colon (RFC 7617)"));
                }
                let joined = format!("{user}:{}", password.expose());
                serde_json::json!({ "auth": base64::encode(joined.as_bytes()) })
            }
            Some(Login::IdentityToken(token)) => serde_json::json!({ "identitytoken": token.expose() }),
        };
        let entries = self.document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if entries.is_null() {
            *entries = Value::Object(Map::new());
        }
        let entries = entries.as_object_mut().ok_or_else(|| Error::invalid("auths is not an object"))?;
        entries.insert(scope.written_key(), entry);
        Ok(())
    }

    /// Deletes all entries for a scope, however they are spelled; says whether there was a login among them.
    pub(super) fn remove(&mut self, scope: &Scope) -> Result<bool> {
        let (key, shape) = (scope.to_string(), self.shape);
        self.remove_where(|spelled| spelled == key || is_spelling_of(spelled, &key, shape))
    }

    /// Deletes all entries; says whether there was a login among them.
    pub(super) fn remove_all(&mut self) -> Result<bool> {
        self.remove_where(|_| true)
    }

    fn remove_where(&mut self, is_meant: impl Fn(&str) -> bool) -> Result<bool> {
        self.entries()?;
        let entries = match self.shape {
            Shape::Current => self.document.get_mut("auths").and_then(Value::as_object_mut),
            Shape::BeforeConfig => Some(&mut self.document),
        };
        let Some(entries) = entries else { return Ok(false) };
        let before = entries.len();
        entries.retain(|spelled, _| !is_meant(spelled));
        Ok(entries.len() < before)
    }

    /// Gives the helper program that is set for a host.
    pub(super) fn helper(&self, names: &[&str]) -> Result<Option<String>> {
        let helpers = self.helpers()?;
        let found = names.iter().find_map(|name| helpers.iter().find(|(host, _)| host == name));
        Ok(found.map(|(_, program)| program.clone()))
    }

    /// Gives the hosts that have a helper program of their own.
    pub(super) fn helpers(&self) -> Result<Vec<(String, String)>> {
        let Some(helpers) = self.object("credHelpers")? else { return Ok(Vec::new()) };
        let text = |(host, program): (&String, &Value)| match program.as_str() {
            Some(program) => Ok((host.clone(), program.to_owned())),
            None => Err(Error::invalid(format!("credHelpers: {host:?} is not a string"))),
        };
        helpers.iter().map(text).collect()
    }

    /// Gives the helper program for all other hosts.
    pub(super) fn store(&self) -> Result<Option<&str>> {
        match self.document.get("credsStore") {
            _ if self.shape == Shape::BeforeConfig => Ok(None),
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(program)) => Ok(Some(&program[..]).filter(|program| !program.is_empty())),
            Some(_) => Err(Error::invalid("credsStore is not a string")),
        }
    }

    fn entries(&self) -> Result<Option<&Map<String, Value>>> {
        match self.shape {
            Shape::Current => self.object("auths"),
            Shape::BeforeConfig => Ok(Some(&self.document)),
        }
    }

    fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>> {
        match self.document.get(key) {
            _ if self.shape == Shape::BeforeConfig => Ok(None),
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(Error::invalid(format!("{key} is not an object"))),
        }
    }
}

/// Tells whether a key of a file is another spelling of `key`: a URL, of which the host counts, or a name of docker's hub.
fn is_spelling_of(spelled: &str, key: &str, shape: Shape) -> bool {
    let stripped = spelled.strip_prefix("https://").or_else(|| spelled.strip_prefix("http://"));
    let host = match (stripped, shape) {
        (Some(rest), _) => rest.split_once('/').map_or(rest, |(host, _)| host),
        (None, Shape::BeforeConfig) => spelled.split_once('/').map_or(spelled, |(host, _)| host),
        (None, Shape::Current) => spelled,
    };
    super::canonical_host(host) == key
}

/// Reads an entry; `None` where it holds no login, as docker leaves it for one that its helper keeps.
fn read_login(entry: &Value) -> Result<Option<Login>> {
    let entry = entry.as_object().ok_or_else(|| Error::invalid("not an object"))?;
    let text = |key: &str| match entry.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(&text[..]),
        Some(_) => Err(Error::invalid(format!("{key} is not a string"))),
    };
    let token = text("identitytoken")?;
    if !token.is_empty() {
        return Ok(Some(Login::IdentityToken(Secret::new(token))));
    }
    let auth = text("auth")?;
    if !auth.is_empty() {
        return parse_auth(auth).map(Some);
    }
    match (text("username")?, text("password")?) {
        ("", _) => Ok(None),
        (user, password) => Ok(Some(Login::Basic { user: user.to_owned(), password: Secret::new(password) })),
    }
}

/// Parses base64 of `USER:PASSWORD`.
fn parse_auth(text: &str) -> Result<Login> {
    let bytes = base64::decode(text).ok_or_else(|| Error::invalid("auth is not base64"))?;
    let joined = String::from_utf8(bytes).map_err(|_| Error::invalid("auth is not UTF-8"))?;
    match joined.split_once(':') {
        // Old versions of docker have padded passwords with NULs, and cut them off.
        Some((user, password)) if !user.is_empty() => {
            Ok(Login::Basic { user: user.to_owned(), password: Secret::new(password.trim_matches('\0')) })
        }
        _ => Err(Error::invalid("auth is not USER:PASSWORD")),
    }
}
