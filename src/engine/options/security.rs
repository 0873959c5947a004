//! `--security-opt`, in docker's and podman's words.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sparse;
use crate::error::{Context, Error, Result};

sparse! {
    /// What `--security-opt` asks for.
    pub struct SecurityOptions {
        pub no_new_privileges: bool,
        pub seccomp: SeccompChoice,
        /// A profile's name; `None` for what the host gives.
        pub apparmor: Option<String>,
        /// `mask=` and `unmask=` of podman, on top of the defaults.
        pub masked: Vec<String>,
        pub unmasked: Unmasked,
        /// `writable-cgroups`
        pub writable_cgroups: bool,
        /// `proc-opts=`: mount options of `/proc`.
        pub proc_options: Vec<String>,
    }
}

/// Which system calls are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    #[default]
    Default,
    Unconfined,
    File(PathBuf),
}

/// Which of the default masks are lifted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmasked {
    #[default]
    Nothing,
    /// With `*` as in the shell.
    Paths(Vec<String>),
    /// `systempaths=unconfined`, `unmask=ALL`
    All,
}

impl SecurityOptions {
    /// Reads the words of all `--security-opt`.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self> {
        let mut options = Self::default();
        for word in words.iter().map(AsRef::as_ref) {
            options.add(word).with_context(|| format!("security-opt {word:?}"))?;
        }
        Ok(options)
    }

    fn add(&mut self, word: &str) -> Result<()> {
        // Docker's older separator is a colon.
        let (key, value) = match word.split_once('=').or_else(|| word.split_once(':')) {
            Some((key, value)) => (key, Some(value)),
            None => (word, None),
        };
        let needed = || value.filter(|value| !value.is_empty()).ok_or_else(|| Error::invalid("needs a value"));
        let switch = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(Error::invalid("neither true nor false")),
        };
        match key {
            "no-new-privileges" => self.no_new_privileges = switch()?,
            "writable-cgroups" => self.writable_cgroups = switch()?,
            "seccomp" => {
                self.seccomp = match needed()? {
                    "unconfined" => SeccompChoice::Unconfined,
                    "builtin" => SeccompChoice::Default,
                    path => SeccompChoice::File(path.into()),
                }
            }
            "apparmor" => self.apparmor = Some(needed()?.to_owned()),
            "label" => parse_label(needed()?)?,
            "mask" => self.masked.extend(paths(needed()?)?),
            "unmask" if needed()? == "ALL" => self.unmasked = Unmasked::All,
            "unmask" => {
                let more = paths(needed()?)?;
                match &mut self.unmasked {
                    Unmasked::All => {}
                    Unmasked::Paths(paths) => paths.extend(more),
                    Unmasked::Nothing => self.unmasked = Unmasked::Paths(more),
                }
            }
            "systempaths" if needed()? == "unconfined" => self.unmasked = Unmasked::All,
            "proc-opts" => {
                let known = |option: &&str| option.starts_with("hidepid=") || option.starts_with("subset=");
                let options: Vec<&str> = needed()?.split(',').collect();
                if let Some(unknown) = options.iter().find(|option| !known(option)) {
                    return Err(Error::invalid(format!("unknown option {unknown:?} of proc")));
                }
                self.proc_options.extend(options.into_iter().map(str::to_owned));
            }
            _ => return Err(Error::invalid("unknown option")),
        }
        Ok(())
    }
}

fn parse_label(value: &str) -> Result<()> {
    match value {
        // What there is anyway.
        "disable" => Ok(()),
        _ => Err(Error::unsupported("husk gives containers no SELinux labels yet")),
    }
}

fn paths(list: &str) -> Result<Vec<String>> {
    let paths: Vec<String> = list.split(':').map(str::to_owned).collect();
    match paths.iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(Error::invalid(format!("{path:?} is not an absolute path"))),
        None => Ok(paths),
    }
}

/// Says whether a path matches a pattern, in which `*` stands for anything but a slash.
pub fn matches_path(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if matches_name(pattern, name) => {}
            _ => return false,
        }
    }
}

fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|start| rest.is_char_boundary(*start))
                .any(|start| matches_name(after, &rest[start..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options() {
        let options = SecurityOptions::parse(&[
            "no-new-privileges",
            "seccomp=/p.json",
            "apparmor:unconfined",
            "label=disable",
            "mask=/a:/b",
            "mask=/c",
            "unmask=/proc/kcore:/sys/*",
            "unmask=/d",
            "writable-cgroups=true",
            "proc-opts=hidepid=2,subset=pid",
        ]);
        let paths = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let expected = SecurityOptions {
            no_new_privileges: true,
            seccomp: SeccompChoice::File("/p.json".into()),
            apparmor: Some("unconfined".into()),
            masked: paths(&["/a", "/b", "/c"]),
            unmasked: Unmasked::Paths(paths(&["/proc/kcore", "/sys/*", "/d"])),
            writable_cgroups: true,
            proc_options: paths(&["hidepid=2", "subset=pid"]),
        };
        assert_eq!(options.unwrap(), expected);
        let all = SecurityOptions::parse(&["unmask=/a", "systempaths=unconfined", "seccomp=unconfined"]).unwrap();
        assert_eq!((all.unmasked, all.seccomp), (Unmasked::All, SeccompChoice::Unconfined));
        let last = SecurityOptions::parse(&["no-new-privileges:true", "no-new-privileges=false"]).unwrap();
        assert!(!last.no_new_privileges);
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (word, cause) in [
            ("seccomp", "needs a value"),
            ("seccomp=", "needs a value"),
            ("label=type:x", "husk gives containers no SELinux labels yet"),
            ("mask=a", "\"a\" is not an absolute path"),
            ("unmask=all", "\"all\" is not an absolute path"),
            ("systempaths=x", "unknown option"),
            ("no-new-privileges=perhaps", "neither true nor false"),
            ("proc-opts=gid=1", "unknown option \"gid=1\" of proc"),
            ("privileged", "unknown option"),
        ] {
            let error = SecurityOptions::parse(&[word]).unwrap_err();
            assert_eq!(error.report(), format!("security-opt {word:?}: {cause}"));
        }
    }

    #[test]
    fn patterns_stay_in_their_directory() {
        for (pattern, path, matches) in [
            ("/proc/*", "/proc/kcore", true),
            ("/proc/*", "/proc/sys/net", false),
            ("/proc/s*s", "/proc/sys", true),
            ("/proc/kcore", "/proc/kcore", true),
            ("/proc/kc", "/proc/kcore", false),
            ("/*/*", "/sys/firmware", true),
            ("/proc/*ä*", "/proc/xäy", true),
        ] {
            assert_eq!(matches_path(pattern, path), matches, "{pattern} {path}");
        }
    }
}
