//! Whose configuration counts: the caller's user, variables and folders.
//!
//! Files that other tools share with husk (logins, registries, policies, certificates) are sought through a [`Caller`], so
//! that tests put a whole machine into a directory. Names folders; what is in them is `config_file`'s.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::passwd;

/// `S_IWGRP | S_IWOTH`.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The one who calls.
pub struct Caller {
    uid: u32,
    environment: Environment,
    /// What `/etc`, `/run` and `/usr` are below: `/`, but for tests.
    root: PathBuf,
}

enum Environment {
    /// This process's, asked by name: copying all of it is not for the few that matter.
    Process,
    /// One that was put together.
    Given(HashMap<OsString, OsString>),
}

impl Caller {
    /// Takes this process's user and environment.
    pub fn current() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), environment: Environment::Process, root: "/".into() }
    }

    /// Puts a caller together, with a machine of its own below `root`.
    pub fn assumed(uid: u32, root: &Path, variables: &[(&str, &str)]) -> Self {
        let given = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { uid, environment: Environment::Given(given), root: root.to_owned() }
    }

    /// Gives the user's id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Gives a variable's value. Set to nothing is not set, as the XDG specification has it for its own.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        let value = match &self.environment {
            Environment::Process => std::env::var_os(name),
            Environment::Given(given) => given.get(OsStr::new(name)).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// Gives a variable that is text; one that is not UTF-8 counts as unset.
    pub fn text(&self, name: &str) -> Option<String> {
        self.variable(name)?.into_string().ok()
    }

    /// Gives a variable that names a directory; a relative one is to be ignored (XDG Base Directory Specification).
    pub fn directory(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// Gives the home directory: `HOME`, or the passwd file's where that is not set (cron, some CI runners).
    pub fn home(&self) -> Option<PathBuf> {
        if let Some(home) = self.directory("HOME") {
            return Some(home);
        }
        let user = passwd::host_user(self.uid).ok().flatten()?;
        Some(user.home).filter(|path| path.is_absolute())
    }

    /// Gives the folder of the user's configuration: `$XDG_CONFIG_HOME`, or `~/.config`.
    pub fn config_home(&self) -> Option<PathBuf> {
        self.directory("XDG_CONFIG_HOME").or_else(|| Some(self.home()?.join(".config")))
    }

    /// Gives `$XDG_RUNTIME_DIR` where it is truly the user's: after `su` it is somebody else's.
    pub fn runtime_directory(&self) -> Option<PathBuf> {
        let ours = |path: &PathBuf| {
            rustix::fs::lstat(path).is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                    && stat.st_uid == self.uid
                    && stat.st_mode & WRITABLE_BY_OTHERS == 0
            })
        };
        self.directory("XDG_RUNTIME_DIR").filter(ours)
    }

    /// Gives the place of a file or folder of the machine, such as `/etc/containers`.
    pub fn system(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn folders_follow_the_variables() {
        let root = Path::new("/machine");
        let caller = Caller::assumed(0, root, &[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "relative"), ("EMPTY", "")]);
        assert_eq!(caller.config_home().unwrap(), Path::new("/home/a/.config"));
        assert_eq!(caller.variable("EMPTY"), None);
        assert_eq!(caller.system("/etc/containers"), Path::new("/machine/etc/containers"));
        let caller = Caller::assumed(0, root, &[("XDG_CONFIG_HOME", "/config")]);
        assert_eq!(caller.config_home().unwrap(), Path::new("/config"));
    }

    #[test]
    fn a_runtime_directory_counts_only_where_it_is_ours() {
        let scratch = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let runtime = |uid| {
            Caller::assumed(uid, Path::new("/"), &[("XDG_RUNTIME_DIR", scratch.path().to_str().unwrap())])
                .runtime_directory()
        };
        assert_eq!(runtime(uid).as_deref(), Some(scratch.path()));
        assert_eq!(runtime(uid + 1), None);
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(runtime(uid), None);
    }
}
