//! The flags before the verb: where states are, who makes cgroups, what is logged and where to.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cgroups::{Driver, Tolerance};
use crate::cli::face::Manners;
use crate::cli::report::{Destination, Log};
use crate::error::{Context, Error, Result};
use crate::namespaces::rootless::is_initial_user_namespace;
use crate::runtime::container::Runtime;
use crate::runtime::state::StateRoot;

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Directory of the containers' states
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where errors are logged, beside standard error: a file, journald:NAME or syslog:NAME
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Form of the log: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// Least severe messages to log: error, warning or debug
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    log_level: String,
    /// Log what is being done, too
    #[arg(long)]
    debug: bool,
    /// Let systemd make the cgroups; cgroupsPath is then of the form slice:prefix:name
    #[arg(long)]
    systemd_cgroup: bool,
    /// Who makes the cgroups
    #[arg(long, value_name = "MANAGER")]
    cgroup_manager: Option<CgroupManager>,
    /// Whether to pass over limits that the caller may not set: true, false, auto
    #[arg(long, value_name = "VALUE", default_value = "auto")]
    rootless: String,
    /// Ignored, for callers of older versions of runc
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,
    /// Print version information
    #[arg(long, short = 'v', short_alias = 'V')]
    pub(super) version: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

impl Global {
    /// Gives where to tell of failures; good for telling also of what is wrong with the flags themselves.
    pub(super) fn log(&self, manners: Manners) -> Log {
        let destination = self.log.as_deref().map_or(Destination::Stderr, Destination::parse);
        Log { destination, is_json: self.log_format == "json", manners }
    }

    /// Checks what is said about the log, and says whether it is to hold everything.
    pub(super) fn wants_debug(&self) -> Result<bool> {
        if !matches!(self.log_format.as_str(), "" | "text" | "json") {
            return Err(Error::invalid(format!("invalid log-format: {}", self.log_format)));
        }
        match self.log_level.as_str() {
            "off" | "error" | "warn" | "warning" | "info" => Ok(self.debug),
            "debug" | "trace" => Ok(true),
            // crun's words.
            other => Err(Error::invalid(format!("unknown verbosity `{other}` specified"))),
        }
    }

    /// Gives the directory of the states.
    pub(super) fn root(&self) -> Result<StateRoot> {
        let Some(root) = &self.root else { return Ok(default_root()) };
        // An empty path is the current directory, as in Go.
        let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        let absolute = std::path::absolute(root).with_context(|| format!("--root {}", root.display()))?;
        let root = clean(&absolute);
        if root == Path::new("/") {
            return Err(Error::invalid("Option --root argument should not be set to /"));
        }
        Ok(StateRoot::chosen(root))
    }

    /// Settles what the verbs work with.
    pub(super) fn runtime(&self) -> Result<Runtime> {
        let driver = match self.cgroup_manager {
            Some(CgroupManager::Systemd) => Driver::Systemd,
            Some(CgroupManager::Disabled) => Driver::Disabled,
            None if self.systemd_cgroup => Driver::Systemd,
            _ => Driver::Cgroupfs,
        };
        // Go's words for a boolean.
        let tolerates = match self.rootless.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            text if text.is_empty() || text.eq_ignore_ascii_case("auto") => !is_root() || !is_initial_user_namespace(),
            other => return Err(Error::invalid(format!("--rootless: {other} is not one of true, false, auto"))),
        };
        let tolerance = if tolerates { Tolerance::WarnWhenDenied } else { Tolerance::Require };
        Ok(Runtime { root: self.root()?, driver, tolerance })
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Removes `..` as Go's `filepath.Clean` does, by the words alone.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => cleaned.push(name),
            std::path::Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned
}

/// The user's own for an ordinary user, and for one who is root only in a user namespace, unless it says to be root's.
pub(in crate::cli) fn default_root() -> StateRoot {
    let is_users =
        || !is_root() || (std::env::var_os("USER").is_none_or(|user| user != "root") && !is_initial_user_namespace());
    StateRoot::new(match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() && is_users() => Path::new(&directory).join("husk/oci"),
        _ => PathBuf::from("/run/husk/oci"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_their_words() {
        for (path, expected) in
            [("/a/../..", "/"), ("/a/./b/", "/a/b"), ("/a/b/../c", "/a/c"), ("/", "/"), ("/../a", "/a")]
        {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
