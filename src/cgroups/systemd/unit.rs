//! The name of a container's unit, and the cgroup that systemd makes for it.
//!
//! Pure. Only scopes: a slice holds no processes.

use std::path::Path;

use super::manager::Owner;
use crate::error::{Error, Result};

/// What a scope is called whose container names no prefix.
const DEFAULT_PREFIX: &str = "husk";

/// `UNIT_NAME_MAX` of systemd, with the terminating zero.
const NAME_LIMIT_BYTES: usize = 256;

/// A scope and the slice that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cgroups) struct Unit {
    pub(in crate::cgroups) name: String,
    pub(in crate::cgroups) slice: String,
}

impl Unit {
    /// Reads `linux.cgroupsPath`, which is `slice:prefix:name` here; without one, or without a slice, the defaults are
    /// runc's.
    pub(in crate::cgroups) fn new(path: Option<&Path>, container_id: &str, owner: Owner) -> Result<Self> {
        let default_slice = match owner {
            Owner::System => "system.slice",
            Owner::User => "user.slice",
        };
        let path = path.map(|path| path.to_string_lossy()).filter(|path| !path.is_empty());
        let (slice, prefix, name) = match &path {
            None => ("", DEFAULT_PREFIX, container_id),
            Some(path) => {
                let mut parts = path.split(':');
                match (parts.next(), parts.next(), parts.next(), parts.next()) {
                    (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
                    // runc's words.
                    _ => {
                        return Err(Error::invalid(format!(
                            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \
                             {path:?} instead"
                        )));
                    }
                }
            }
        };
        let slice = if slice.is_empty() { default_slice } else { slice };
        let unit = Self { name: format!("{prefix}-{name}.scope"), slice: slice.to_owned() };
        if !is_name(&unit.name) {
            return Err(Error::invalid(format!(
                "linux.cgroupsPath: `{}` is not a name for a systemd unit",
                unit.name.escape_debug()
            )));
        }
        expand_slice(slice)?;
        Ok(unit)
    }

    /// Gives the unit's cgroup below that of its manager.
    pub(in crate::cgroups) fn cgroup(&self) -> Result<String> {
        let mut path = expand_slice(&self.slice)?;
        path.push('/');
        path.push_str(&self.name);
        Ok(path)
    }
}

/// Says whether systemd takes this for the name of a unit (systemd.unit(5)): what it does not take must not become part
/// of a path.
fn is_name(name: &str) -> bool {
    name.len() < NAME_LIMIT_BYTES
        && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || b":-_.\\@".contains(&letter))
}

/// Gives the path of a slice, each dash of whose name is a level: `a-b.slice` is `/a.slice/a-b.slice`.
fn expand_slice(slice: &str) -> Result<String> {
    // runc's words.
    let wrong = || Error::invalid(format!("linux.cgroupsPath: invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty() && is_name(slice)).ok_or_else(wrong)?;
    if name == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        // Neither `-a`, `a-` nor `a--b`.
        if name[..end].is_empty() || name[..end].ends_with('-') {
            return Err(wrong());
        }
        path.push('/');
        path.push_str(&name[..end]);
        path.push_str(".slice");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_scope_in_a_slice() {
        for (path, owner, name, cgroup) in [
            ("machine.slice:libpod:0a", Owner::System, "libpod-0a.scope", "/machine.slice/libpod-0a.scope"),
            ("a-b-c.slice:x:y", Owner::System, "x-y.scope", "/a.slice/a-b.slice/a-b-c.slice/x-y.scope"),
            (":x:y", Owner::System, "x-y.scope", "/system.slice/x-y.scope"),
            (":x:y", Owner::User, "x-y.scope", "/user.slice/x-y.scope"),
            ("-.slice:x:y", Owner::System, "x-y.scope", "/x-y.scope"),
            ("", Owner::System, "husk-id.scope", "/system.slice/husk-id.scope"),
        ] {
            let unit = Unit::new(Some(Path::new(path)), "id", owner).unwrap();
            assert_eq!((&*unit.name, &*unit.cgroup().unwrap()), (name, cgroup), "{path}");
        }
        assert_eq!(Unit::new(None, "id", Owner::User).unwrap().cgroup().unwrap(), "/user.slice/husk-id.scope");
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        for path in ["/x", "a:b", "a.slice:b:c:d", "x"] {
            let error = Unit::new(Some(Path::new(path)), "id", Owner::System).unwrap_err();
            let wanted = format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"{path}\" instead"
            );
            assert_eq!(error.report(), wanted);
        }
        for slice in ["a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "..slice/x", "a b.slice"] {
            let path = format!("{slice}:x:y");
            let error = Unit::new(Some(Path::new(&path)), "id", Owner::System).unwrap_err();
            assert!(error.report().contains("invalid slice name"), "{slice}: {error:?}");
        }
        let long = "n".repeat(300);
        for name in ["a/../b", "../x", "a b", "a\nb", "é", &long] {
            let path = format!(":x:{name}");
            let error = Unit::new(Some(Path::new(&path)), "id", Owner::System).unwrap_err();
            assert!(error.report().contains("is not a name for a systemd unit"), "{name}: {error:?}");
        }
    }
}
