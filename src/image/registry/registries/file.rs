//! `registries.conf`, version 2, and the files of its drop-in folders.
//!
//! One main file: that of `CONTAINERS_REGISTRIES_CONF`, else the user's, else the machine's; then `registries.conf.d` of the
//! machine and of the user, by name. What comes later wins: a whole `[[registry]]` by its prefix, a single alias by its name.
//! Version 1 is refused, as podman does by now, and so is a key of `[[registry]]` that is not known, since each of them
//! decides where bytes come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Context, Error, Kind, Result};
use crate::image::reference::{Reference, Repository};
use crate::support::caller::Caller;
use crate::support::config_file;

/// What all files say together.
#[derive(Default)]
pub(super) struct File {
    entries: Vec<Entry>,
    /// Where short names are sought; `None` where no file says so.
    pub(super) search: Option<Vec<String>>,
    pub(super) short_names: ShortNames,
    pub(super) aliases: BTreeMap<String, String>,
}

/// What to do with a short name that may mean several.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum ShortNames {
    /// Refuse it: podman would ask at a terminal.
    Enforcing,
    /// Try one after the other.
    #[default]
    Permissive,
    Disabled,
}

/// One `[[registry]]`, checked.
#[derive(Debug)]
pub(super) struct Entry {
    /// The file that it is from.
    pub(super) origin: PathBuf,
    prefix: String,
    /// What to put in the place of the prefix; empty to leave the name as it is.
    pub(super) location: String,
    pub(super) insecure: Option<bool>,
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<Mirror>,
}

/// One `[[registry.mirror]]`, checked.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) location: String,
    pub(super) insecure: Option<bool>,
    pub(super) pull_from: PullFrom,
}

/// Which references a mirror is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PullFrom {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// A file as it is written. Keys at the top that husk has no use for (`credential-helpers`) are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<ShortNames>,
    #[serde(default)]
    registry: Vec<RegistryTable>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Version 1.
    registries: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RegistryTable {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    insecure: Option<bool>,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MirrorTable {
    location: String,
    insecure: Option<bool>,
    pull_from_mirror: Option<PullFrom>,
}

impl File {
    /// Reads all files.
    pub(super) fn load(caller: &Caller) -> Result<Self> {
        let mut all = Self::default();
        let user = caller.config_home().map(|folder| folder.join("containers"));
        if let Some(path) = caller.variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from) {
            if !all.add_file(&path)? {
                return Err(Error::new(
                    Kind::NotFound,
                    format!("CONTAINERS_REGISTRIES_CONF: {} does not exist", path.display()),
                ));
            }
        } else {
            let is_users = user.as_ref().map(|folder| all.add_file(&folder.join("registries.conf"))).transpose()?;
            if is_users != Some(true) {
                all.add_file(&caller.system("/etc/containers/registries.conf"))?;
            }
        }
        let folders = [Some(caller.system("/etc/containers")), user].into_iter().flatten();
        for folder in folders {
            for path in config_file::list(&folder.join("registries.conf.d"), ".conf")? {
                all.add_file(&path)?;
            }
        }
        Ok(all)
    }

    /// Reads a single text.
    #[cfg(any(test, fuzzing))]
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut file = Self::default();
        file.add(text, path)?;
        Ok(file)
    }

    /// Adds what a file says; says whether it is there.
    fn add_file(&mut self, path: &Path) -> Result<bool> {
        let Some(text) = config_file::read(path)? else { return Ok(false) };
        self.add(&text, path)?;
        Ok(true)
    }

    fn add(&mut self, text: &str, path: &Path) -> Result<()> {
        let document: Document = config_file::parse_toml(text, path)?;
        let Document { unqualified_search_registries, short_name_mode, registry, aliases, registries } = document;
        let check = || -> Result<()> {
            if registries.is_some() {
                return Err(Error::unsupported("[registries.…] is version 1 of the format").with_hint(
                    "write unqualified-search-registries and [[registry]] (containers-registries.conf(5))",
                ));
            }
            for table in registry {
                let entry = table.check(path)?;
                self.entries.retain(|other| other.prefix != entry.prefix);
                self.entries.push(entry);
            }
            if let Some(search) = unqualified_search_registries {
                for registry in &search {
                    check_place(registry).context("unqualified-search-registries")?;
                }
                self.search = Some(search);
            }
            for (name, target) in aliases {
                // Set to nothing, it takes back what an earlier file says.
                if target.is_empty() {
                    self.aliases.remove(&name);
                    continue;
                }
                check_alias(&name, &target).with_context(|| format!("alias {name:?}"))?;
                self.aliases.insert(name, target);
            }
            self.short_names = short_name_mode.unwrap_or(self.short_names);
            Ok(())
        };
        check().with_context(|| path.display().to_string())
    }

    /// Finds the entry with the longest prefix of a reference, and how much of it that is.
    pub(super) fn find(&self, reference: &Reference) -> Option<(&Entry, usize)> {
        let text = reference.to_string();
        let matching = self.entries.iter().filter_map(|entry| Some((entry, match_prefix(&text, &entry.prefix)?)));
        matching.max_by_key(|(entry, _)| entry.prefix.len())
    }

    /// Finds the entry of a whole host.
    pub(super) fn find_host(&self, host: &str) -> Option<&Entry> {
        let matching = self.entries.iter().filter(|entry| match_prefix(host, &entry.prefix) == Some(host.len()));
        matching.max_by_key(|entry| entry.prefix.len())
    }
}

impl RegistryTable {
    fn check(self, path: &Path) -> Result<Entry> {
        let Self { prefix, location, insecure, blocked, mirror_by_digest_only, mirror } = self;
        let (prefix, location) = (trimmed(&prefix), trimmed(&location));
        let prefix = if prefix.is_empty() { location } else { prefix };
        let check = || -> Result<Vec<Mirror>> {
            let stem = prefix.strip_prefix("*.");
            if location.is_empty() && stem.is_none() {
                return Err(Error::invalid("without a location"));
            }
            if !location.is_empty() {
                check_place(location)?;
            }
            check_prefix(stem.unwrap_or(prefix))?;
            mirror.into_iter().map(|table| table.check(mirror_by_digest_only)).collect()
        };
        let mirrors = check().with_context(|| format!("registry {prefix:?}"))?;
        Ok(Entry {
            origin: path.to_owned(),
            prefix: prefix.to_owned(),
            location: location.to_owned(),
            insecure,
            blocked,
            mirrors,
        })
    }
}

impl MirrorTable {
    fn check(self, by_digest_only: bool) -> Result<Mirror> {
        let Self { location, insecure, pull_from_mirror } = self;
        let location = trimmed(&location).to_owned();
        check_place(&location).with_context(|| format!("mirror {location:?}"))?;
        let pull_from = match (pull_from_mirror, by_digest_only) {
            (Some(_), true) => {
                return Err(Error::invalid("mirror-by-digest-only and pull-from-mirror cannot be used together"));
            }
            (None, true) => PullFrom::DigestOnly,
            (from, false) => from.unwrap_or_default(),
        };
        Ok(Mirror { location, insecure, pull_from })
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_end_matches('/')
}

/// Checks `HOST[:PORT][/PATH]`.
fn check_place(text: &str) -> Result<()> {
    if text.contains("://") {
        return Err(Error::invalid(format!("{text:?} is a URL")))
            .map_err(|error| error.with_hint("leave out the scheme"));
    }
    let (host, path) = text.split_once('/').unwrap_or((text, "any"));
    Repository::new(host, path).map(drop)
}

/// Checks a prefix: a place, which may go on to one tag or digest.
fn check_prefix(text: &str) -> Result<()> {
    match text.split_once('/') {
        Some(_) => Reference::parse_exact(text).map(drop),
        None => check_place(text),
    }
}

/// Checks that a short name stands for one with a registry, both without tag and digest.
fn check_alias(name: &str, target: &str) -> Result<()> {
    let is_bare = |text: &str| -> Result<bool> {
        let reference = Reference::parse_exact(text)?;
        Ok(reference.tag().is_none() && reference.digest().is_none())
    };
    if super::short_name(name) != Some(name) || !is_bare(name)? {
        return Err(Error::invalid("not a name without registry, tag and digest"));
    }
    if super::short_name(target).is_some() || !is_bare(target)? {
        return Err(Error::invalid(format!("{target:?} is not a name with a registry and without tag and digest")));
    }
    Ok(())
}

/// Gives how much of a reference a prefix covers, if it ends where a part of the name does. `*.host` stands for every host
/// below, and covers the whole of it.
fn match_prefix(text: &str, prefix: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        None => text.starts_with(prefix).then_some(prefix.len())?,
        Some(stem) => {
            let at = text.find(stem).filter(|at| *at > 0 && !text[..*at].contains('/'))?;
            at + stem.len()
        }
    };
    // As podman matches: a host is also a prefix of that host with a port.
    matches!(text.as_bytes().get(end), None | Some(b'/' | b':' | b'@')).then_some(end)
}
