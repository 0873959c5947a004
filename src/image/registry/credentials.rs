//! Logins: which user and password, or token, go to which registry; found where podman and docker keep them.
//!
//! The files, of which the first that has a login decides: the one that is named (`--authfile`, `REGISTRY_AUTH_FILE`) and
//! then no other; `DOCKER_AUTH_CONFIG`, which holds the content itself; where `DOCKER_CONFIG` is set, its `config.json` and
//! no other; else `auth.json` of the session, `auth.json` of the user's configuration, `~/.docker/config.json` and
//! `~/.dockercfg`. In a file, what its helper program knows comes first, then the entry with the longest prefix of
//! `HOST/NAMESPACE/REPOSITORY`. A login is written to the first file of that list. Nothing is sent anywhere from here, and
//! secrets are [`Secret`]s, which do not print.

mod file;
mod helper;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error, Kind, Result};
use crate::image::reference::{DEFAULT_REGISTRY, Repository};
use crate::support::caller::Caller;
use crate::support::lock::{Lock, Sharing};
use crate::support::{atomic, config_file};

use super::login::{Login, Secret};

use file::{AuthFile, Shape};
use helper::{Helper, Missing};

/// What docker calls its hub in files and to helper programs, since a time when registries had a version 1.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The larger of the files has a few dozen logins.
const FILE_BYTES: usize = 1 << 20;

/// What a login is for: `HOST[:PORT]`, or a part of its repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    host: String,
    path: String,
}

impl Scope {
    /// Parses what people type and files hold: a URL means its host, and docker's hub has several names.
    pub fn parse(text: &str) -> Result<Self> {
        let without_scheme = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let (host, path) = match without_scheme {
            Some(rest) => (rest.split_once('/').map_or(rest, |(host, _)| host), ""),
            None => text.split_once('/').unwrap_or((text, "")),
        };
        let path = path.trim_end_matches('/');
        // A repository's rules hold for the first components of one as well.
        Repository::new(host, if path.is_empty() { "any" } else { path })
            .with_context(|| format!("registry {text:?}"))
            .map_err(|error| error.with_hint("a login is for HOST[:PORT][/NAMESPACE]"))?;
        Ok(Self { host: canonical_host(host).to_owned(), path: path.to_owned() })
    }

    /// Gives `HOST[:PORT]`.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn of(repository: &Repository) -> Self {
        Self { host: canonical_host(repository.registry()).to_owned(), path: repository.path().to_owned() }
    }

    /// Gives the keys under which a login for this may stand, the most special first.
    fn keys(&self) -> impl Iterator<Item = String> {
        let whole = if self.path.is_empty() { self.host.clone() } else { format!("{}/{}", self.host, self.path) };
        std::iter::successors(Some(whole), |key| key.rsplit_once('/').map(|(shorter, _)| shorter.to_owned()))
    }

    /// Gives the names that a helper program may know the host by, docker's first.
    fn server_names(&self) -> Vec<&str> {
        let old_name = (self.host == DEFAULT_REGISTRY).then_some(DOCKER_HUB_KEY);
        old_name.into_iter().chain([&self.host[..]]).collect()
    }

    /// Gives the key under which a login is written: docker reads its hub's under no other.
    fn written_key(&self) -> String {
        match (&self.host[..], &self.path[..]) {
            (DEFAULT_REGISTRY, "") => DOCKER_HUB_KEY.to_owned(),
            _ => self.to_string(),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

fn canonical_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        other => other,
    }
}

/// One place where logins are kept.
enum Source {
    /// The content of `DOCKER_AUTH_CONFIG`.
    Variable(Secret),
    File {
        path: PathBuf,
        shape: Shape,
        /// It was named, so that it has to be there.
        is_named: bool,
    },
}

/// Where a login was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In a file, where whoever reads it reads the password.
    File(PathBuf),
    /// With a helper program, by its name.
    Helper(String),
}

/// The logins of a caller.
pub struct Credentials {
    sources: Vec<Source>,
    /// Where a new login goes.
    target: Result<PathBuf, String>,
    /// `PATH`, for helper programs.
    search_path: Option<OsString>,
}

impl Credentials {
    /// Finds the files; `named` is the one of `--authfile`. None is opened yet: a pull reads those that it needs.
    pub fn load(caller: &Caller, named: Option<&Path>) -> Self {
        let search_path = caller.variable("PATH");
        let of_shape = |path: PathBuf, shape| Source::File { path, shape, is_named: false };
        let file = |path: PathBuf| of_shape(path, Shape::Current);
        let named = named.map(PathBuf::from).or_else(|| caller.variable("REGISTRY_AUTH_FILE").map(PathBuf::from));
        if let Some(path) = named {
            let source = Source::File { path: path.clone(), shape: Shape::Current, is_named: true };
            return Self { sources: vec![source], target: Ok(path), search_path };
        }
        let mut sources = Vec::new();
        if let Some(content) = caller.text("DOCKER_AUTH_CONFIG") {
            sources.push(Source::Variable(Secret::new(content)));
        }
        // Podman does the same: the folder was named, so what lies elsewhere is not meant.
        if let Some(folder) = caller.variable("DOCKER_CONFIG") {
            let path = PathBuf::from(folder).join("config.json");
            sources.push(file(path.clone()));
            return Self { sources, target: Ok(path), search_path };
        }
        let session = match caller.runtime_directory() {
            Some(folder) => folder.join("containers/auth.json"),
            None => caller.system(&format!("/run/containers/{}/auth.json", caller.uid())),
        };
        let configured = caller.config_home().map(|folder| folder.join("containers/auth.json"));
        // Without a session (cron, ssh on some machines) an ordinary user has no folder in /run to write to.
        let target = match &configured {
            _ if caller.uid() == 0 || caller.runtime_directory().is_some() => Ok(session.clone()),
            Some(path) => Ok(path.clone()),
            None => Err("there is no home directory to keep a login in".to_owned()),
        };
        sources.push(file(session));
        sources.extend(configured.map(file));
        if let Some(home) = caller.home() {
            sources.push(file(home.join(".docker/config.json")));
            sources.push(of_shape(home.join(".dockercfg"), Shape::BeforeConfig));
        }
        Self { sources, target, search_path }
    }

    /// Finds the login for a repository.
    pub fn lookup(&self, repository: &Repository) -> Result<Option<Login>> {
        self.find(&Scope::of(repository))
    }

    /// Finds the login for a registry or a part of one.
    pub fn find(&self, scope: &Scope) -> Result<Option<Login>> {
        for source in &self.sources {
            let found = match source {
                Source::Variable(content) => AuthFile::parse(content.expose(), Shape::Current)
                    .and_then(|file| self.find_in(&file, scope))
                    .context("variable DOCKER_AUTH_CONFIG"),
                Source::File { path, shape, is_named } => match config_file::read(path)? {
                    Some(text) => AuthFile::parse(&text, *shape)
                        .and_then(|file| self.find_in(&file, scope))
                        .with_context(|| format!("logins in {}", path.display())),
                    None if *is_named => {
                        Err(Error::new(Kind::NotFound, format!("file of logins {}: does not exist", path.display())))
                    }
                    None => Ok(None),
                },
            };
            if let Some(login) = found? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    /// Finds a login in one file: the helper's, else the entry with the longest prefix.
    fn find_in(&self, file: &AuthFile, scope: &Scope) -> Result<Option<Login>> {
        if let Some(helper) = self.helper(file, scope)? {
            for server in scope.server_names() {
                if let Some(login) = helper.get(server)? {
                    return Ok(Some(login));
                }
            }
        }
        for key in scope.keys() {
            if let Some(login) = file.login(&key)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    /// Gives the helper that a file sets for a scope's host.
    fn helper(&self, file: &AuthFile, scope: &Scope) -> Result<Option<Helper>> {
        if let Some(name) = file.helper(&scope.server_names())? {
            return Helper::new(&name, Missing::IsAnError, self.search_path.clone()).map(Some);
        }
        let helper = |name| Helper::new(name, Missing::KnowsNothing, self.search_path.clone());
        file.store()?.map(helper).transpose()
    }

    /// Keeps a login, in the place of the one that there was.
    pub fn store(&self, scope: &Scope, login: &Login) -> Result<Stored> {
        let path = self
            .target
            .as_ref()
            .map_err(|why| Error::invalid(why.clone()).with_hint("set HOME, or name a file with --authfile"))?;
        let mut stored = Stored::File(path.clone());
        edit(path, Shape::Current, true, |file| {
            match self.helper(file, scope)? {
                // Helpers know hosts alone.
                Some(helper) if scope.path.is_empty() => {
                    helper.store(scope.server_names()[0], login)?;
                    file.put(scope, None)?;
                    stored = Stored::Helper(helper.program());
                }
                _ => file.put(scope, Some(login))?,
            }
            Ok(true)
        })
        .with_context(|| format!("keep the login for {scope}"))?;
        Ok(stored)
    }

    /// Deletes the login for just this scope from every file; gives those that had one.
    pub fn remove(&self, scope: &Scope) -> Result<Vec<PathBuf>> {
        self.edit_each(|file| {
            let mut had_one = file.remove(scope)?;
            if let Some(helper) = self.helper(file, scope)?
                && scope.path.is_empty()
            {
                had_one |= erase(&helper, scope)?;
            }
            Ok(had_one)
        })
        .with_context(|| format!("delete the login for {scope}"))
    }

    /// Deletes every login; gives the files that had some.
    pub fn remove_all(&self) -> Result<Vec<PathBuf>> {
        self.edit_each(|file| {
            let mut had_some = file.remove_all()?;
            for (host, program) in file.helpers()? {
                let helper = Helper::new(&program, Missing::IsAnError, self.search_path.clone())?;
                had_some |= helper.erase(&host)?;
            }
            if let Some(program) = file.store()? {
                let helper = Helper::new(program, Missing::KnowsNothing, self.search_path.clone())?;
                for server in helper.list()? {
                    had_some |= helper.erase(&server)?;
                }
            }
            Ok(had_some)
        })
        .context("delete the logins")
    }

    /// Shows every file to `change`, which says whether it had anything to delete.
    fn edit_each(&self, mut change: impl FnMut(&mut AuthFile) -> Result<bool>) -> Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for source in &self.sources {
            if let Source::File { path, shape, .. } = source
                && edit(path, *shape, false, &mut change)?
            {
                changed.push(path.clone());
            }
        }
        Ok(changed)
    }
}

fn erase(helper: &Helper, scope: &Scope) -> Result<bool> {
    let mut erased = false;
    for server in scope.server_names() {
        // `erase` succeeds for what is not there with some helpers, and fails with others.
        erased |= helper.get(server)?.is_some() && helper.erase(server)?;
    }
    Ok(erased)
}

/// Reads a file of logins, and holds it to what it says itself; for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any(text: &str) -> Result<()> {
    AuthFile::parse(text, Shape::BeforeConfig)?.login("quay.io")?;
    let mut file = AuthFile::parse(text, Shape::Current)?;
    let scope = Scope::parse("quay.io/team")?;
    for key in scope.keys() {
        file.login(&key)?;
    }
    let login = Login::Basic { user: "user".to_owned(), password: Secret::new("password") };
    file.put(&scope, Some(&login))?;
    let again = AuthFile::parse(&file.to_text(), Shape::Current).expect("what was written reads back");
    assert_eq!(again.login("quay.io/team")?, Some(login));
    Ok(())
}

/// Reads a file, lets `change` change it, and puts it back whole where that says so; gives its answer.
///
/// Two that log in at once take turns by a lock on the folder; podman and docker take none, but what they write is whole as
/// well. The file is the user's alone from birth, whatever it was before.
fn edit(path: &Path, shape: Shape, make: bool, change: impl FnOnce(&mut AuthFile) -> Result<bool>) -> Result<bool> {
    let work = || -> Result<bool> {
        let Some((folder, name)) = place(path, make)? else { return Ok(false) };
        let _lock = Lock::wait(folder.try_clone().context("open its folder")?, Sharing::Exclusive, |_| ())?;
        let mut file = match atomic::read(folder.as_fd(), &name, FILE_BYTES)? {
            Some(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| Error::invalid("not UTF-8"))?;
                AuthFile::parse(&text, shape)?
            }
            None if make => AuthFile::empty(),
            None => return Ok(false),
        };
        let changed = change(&mut file)?;
        if changed {
            atomic::replace(folder.as_fd(), &name, file.to_text().as_bytes())?;
        }
        Ok(changed)
    };
    work().with_context(|| format!("file of logins {}", path.display()))
}

/// Opens the folder that a file is in, made where it is missing. A file that is a link (dotfiles kept elsewhere) is
/// changed where it is, as docker has it, and stays a link.
fn place(path: &Path, make: bool) -> Result<Option<(OwnedFd, String)>> {
    let path = match std::fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if path.is_symlink() {
                return Err(Error::invalid("is a link to nothing"));
            }
            path.to_owned()
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory && !make => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| Error::invalid("not a file's name"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if make {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).context("make its folder")?;
    }
    match rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some((fd, name.to_owned()))),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) if !make => Ok(None),
        Err(errno) => Err(errno).context("open its folder"),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests;
