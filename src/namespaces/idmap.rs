//! Id maps of a user namespace: as the spec gives them, written by the parent, by hand or through `newuidmap`.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::spec::mount_options::{IdmapRange, MountOptions};
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::{fdpass, process};

/// One line of a map: `length` ids from `inside` stand for those from `outside`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in the namespace.
    pub inside: u32,
    /// First id in the parent namespace.
    pub outside: u32,
    /// Number of ids.
    pub length: u32,
}

/// The two maps of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
}

impl IdMaps {
    /// Takes the maps of `linux.uidMappings` and `linux.gidMappings`.
    pub fn from_spec(spec: &Spec) -> Self {
        let linux = spec.linux().as_ref();
        let ranges = |mappings: Option<&Vec<LinuxIdMapping>>| {
            mappings.into_iter().flatten().map(IdRange::from_mapping).collect::<Vec<_>>()
        };
        Self {
            uids: ranges(linux.and_then(|linux| linux.uid_mappings().as_ref())),
            gids: ranges(linux.and_then(|linux| linux.gid_mappings().as_ref())),
        }
    }

    /// Takes the maps of one mount: its `uidMappings` and `gidMappings`, or what its `idmap` option lists, where a range
    /// with `@` counts in the container's own maps.
    pub fn from_mount(mount: &Mount, options: &MountOptions, container: Option<&Self>) -> Result<Option<Self>> {
        let listed =
            |list: &Option<Vec<LinuxIdMapping>>| list.iter().flatten().map(IdRange::from_mapping).collect::<Vec<_>>();
        let maps = Self { uids: listed(mount.uid_mappings()), gids: listed(mount.gid_mappings()) };
        if !maps.uids.is_empty() || !maps.gids.is_empty() {
            return Ok(Some(maps));
        }
        let Some(option) = options.idmap.as_ref().filter(|option| !option.uids.is_empty()) else { return Ok(None) };
        let resolve = |list: &[IdmapRange], side: fn(&Self) -> &[IdRange]| -> Result<Vec<IdRange>> {
            list.iter().map(|range| IdRange::from_option(*range, container.map(side))).collect()
        };
        Ok(Some(Self {
            uids: resolve(&option.uids, |maps| &maps.uids)?,
            gids: resolve(&option.gids, |maps| &maps.gids)?,
        }))
    }

    /// Maps the caller's own ids, and nothing else, to `uid` and `gid` inside.
    pub fn single(uid: u32, gid: u32) -> Self {
        let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self {
            uids: vec![IdRange { inside: uid, outside: own_uid, length: 1 }],
            gids: vec![IdRange { inside: gid, outside: own_gid, length: 1 }],
        }
    }

    /// Gives the outside id that `uid` inside stands for.
    pub fn uid_outside(&self, uid: u32) -> Option<u32> {
        outside(&self.uids, uid)
    }

    /// Gives the outside id that `gid` inside stands for.
    pub fn gid_outside(&self, gid: u32) -> Option<u32> {
        outside(&self.gids, gid)
    }

    /// Says whether a user of the parent namespace has an id here.
    pub fn has_outside(&self, uid: u32) -> bool {
        self.uids.iter().any(|range| uid >= range.outside && uid - range.outside < range.length)
    }

    /// Takes the maps of a process from its `uid_map` and `gid_map`.
    pub fn from_kernel(uids: &str, gids: &str) -> Option<Self> {
        let ranges = |text: &str| text.lines().map(IdRange::from_kernel).collect::<Option<Vec<_>>>();
        Some(Self { uids: ranges(uids)?, gids: ranges(gids)? })
    }

    /// Gives the same maps for a child of the user namespace that has the maps `parent`: the ids outside as that one numbers
    /// them. No range spans two of its parent's (user_namespaces(7)).
    pub fn below(&self, parent: &Self) -> Result<Self> {
        Ok(Self { uids: below(&self.uids, &parent.uids)?, gids: below(&self.gids, &parent.gids)? })
    }

    /// Says whether this is the map of an ordinary user without subordinate ids.
    pub fn is_single(&self) -> bool {
        matches!((&self.uids[..], &self.gids[..]), ([uid], [gid]) if uid.length == 1 && gid.length == 1)
    }
}

impl IdRange {
    fn from_mapping(mapping: &LinuxIdMapping) -> Self {
        Self { inside: mapping.container_id(), outside: mapping.host_id(), length: mapping.size() }
    }

    fn from_kernel(line: &str) -> Option<Self> {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse().ok());
        let range = Self { inside: numbers.next()??, outside: numbers.next()??, length: numbers.next()?? };
        numbers.next().is_none().then_some(range)
    }

    fn from_option(range: IdmapRange, container: Option<&[Self]>) -> Result<Self> {
        let whole = Self { inside: range.container, outside: range.host, length: range.size };
        if !range.is_relative {
            return Ok(whole);
        }
        let container =
            container.ok_or_else(|| Error::invalid("specified a relative mapping without user namespace mappings"))?;
        let outside = outside(container, range.host).ok_or_else(|| {
            let range = format!("@{}-{}-{}", range.container, range.host, range.size);
            Error::invalid(format!("idmap: no mapping of the container's user namespace holds `{range}`"))
        })?;
        Ok(Self { outside, ..whole })
    }
}

fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find(|range| id >= range.inside && id - range.inside < range.length).and_then(|range| {
        let offset = id - range.inside;
        range.outside.checked_add(offset)
    })
}

fn below(ranges: &[IdRange], parent: &[IdRange]) -> Result<Vec<IdRange>> {
    let mut cut = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut done = 0;
        while done < range.length {
            let (inside, id) = (range.inside.saturating_add(done), range.outside.saturating_add(done));
            let of = parent.iter().find(|of| id >= of.outside && id - of.outside < of.length);
            let of = of.ok_or_else(|| Error::invalid(format!("id {id} has no number in the user namespace above")))?;
            let place = id - of.outside;
            let length = (range.length - done).min(of.length - place);
            cut.push(IdRange { inside, outside: of.inside.saturating_add(place), length });
            done += length;
        }
    }
    Ok(cut)
}

/// Writes the maps of the user namespace that `pid` is in and has made.
///
/// With rights, or for one's own single id, the kernel takes the text itself; otherwise `newuidmap` and `newgidmap` do
/// it, which check `/etc/subuid` and `/etc/subgid` (user_namespaces(7)).
pub fn write(pid: Pid, maps: &IdMaps) -> Result<()> {
    let euid = rustix::process::geteuid();
    let by_hand = euid.is_root() || maps.is_single();
    if by_hand {
        if !euid.is_root() {
            // An unprivileged process may map its group only after giving up setgroups(2) (kernel 3.19).
            write_file(pid, "setgroups", "deny")?;
        }
        write_file(pid, "uid_map", &text(&maps.uids))?;
        return write_file(pid, "gid_map", &text(&maps.gids));
    }
    helper("newuidmap", pid, &maps.uids)?;
    helper("newgidmap", pid, &maps.gids)
}

/// Makes a user namespace with these maps and nobody in it, to give a mount its maps by.
pub fn open_user_namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let (here, there) = fdpass::pair()?;
    let (pid, pidfd) = match clone3(CloneFlags::NEWUSER, None).context("make a user namespace")? {
        Cloned::Child => {
            drop(here);
            // Until the parent has what it wants, or is gone.
            let _ = fdpass::receive(&there, &mut [0]);
            process::exit_now(0)
        }
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(there);
    let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
    let opened = write(pid, maps).and_then(|()| {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(&*path, flags, rustix::fs::Mode::empty()).with_context(|| format!("open {path}"))
    });
    drop(here);
    let options = rustix::process::WaitIdOptions::EXITED;
    rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), options)
        .context("wait for the namespace's maker")?;
    opened
}

fn text(ranges: &[IdRange]) -> String {
    let mut text = String::new();
    for range in ranges {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", range.inside, range.outside, range.length);
    }
    text
}

fn write_file(pid: Pid, name: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{}/{name}", pid.as_raw_nonzero());
    let fd =
        rustix::fs::open(&*path, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .with_context(|| format!("open {path}"))?;
    // The kernel takes a map in one write(2) only.
    rustix::io::write(&fd, text.as_bytes()).map(drop).with_context(|| format!("write `{}` to {path}", text.trim_end()))
}

/// Where distributions put the two set-user-id programs; never looked for by PATH.
const HELPER_DIRECTORIES: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/run/wrappers/bin"];

/// Finds one of the two set-user-id programs.
pub fn find_helper(name: &str) -> Option<std::path::PathBuf> {
    HELPER_DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
}

fn helper(name: &'static str, pid: Pid, ranges: &[IdRange]) -> Result<()> {
    let program = find_helper(name).ok_or_else(|| {
        Error::new(Kind::Unsupported, format!("{name}: not installed"))
            .with_hint("install the package that holds it (`uidmap` or `shadow-utils`)")
    })?;
    let mut command = Command::new(program);
    command.arg(pid.as_raw_nonzero().to_string());
    for range in ranges {
        for number in [range.inside, range.outside, range.length] {
            command.arg(number.to_string());
        }
    }
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(Kind::Invalid, format!("{name}: {}", said.trim()))
        .with_hint("give the user a range of ids in /etc/subuid and /etc/subgid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_numbers_ids_as_its_parent_does() {
        let range = |inside, outside, length| IdRange { inside, outside, length };
        let maps = |uids: &[IdRange]| IdMaps { uids: uids.to_vec(), gids: Vec::new() };
        let usual = IdMaps::from_kernel("0 1000 1\n         1     100000      600\n601 300000 1000\n", "").unwrap();
        assert_eq!(usual, maps(&[range(0, 1000, 1), range(1, 100_000, 600), range(601, 300_000, 1000)]));
        let identity = maps(&[range(0, 0, 1), range(1, 1, 600), range(601, 601, 1000)]);
        assert_eq!(usual.below(&usual).unwrap(), identity, "each range in one of the parent's");
        let kept =
            maps(&[range(0, 100_000, 600), range(600, 300_000, 400), range(1000, 1000, 1), range(1001, 300_400, 600)]);
        let expected = maps(&[range(0, 1, 600), range(600, 601, 400), range(1000, 0, 1), range(1001, 1001, 600)]);
        assert_eq!(kept.below(&usual).unwrap(), expected);
        let adjacent = maps(&[range(0, 5, 5), range(5, 10, 5)]);
        assert_eq!(maps(&[range(7, 8, 4)]).below(&adjacent).unwrap(), maps(&[range(7, 3, 2), range(9, 5, 2)]));
        let strange = maps(&[range(0, 100_599, 2)]).below(&usual).unwrap_err();
        assert_eq!(strange.report(), "id 100600 has no number in the user namespace above");
        assert!(IdMaps::from_kernel("0 1", "").is_none());
    }

    #[test]
    fn ids_are_found_in_ranges() {
        let maps = IdMaps {
            uids: vec![
                IdRange { inside: 0, outside: 1000, length: 1 },
                IdRange { inside: 1, outside: 100_000, length: 65_536 },
            ],
            gids: vec![IdRange { inside: 0, outside: u32::MAX, length: 2 }],
        };
        for (uid, expected) in [(0, Some(1000)), (1, Some(100_000)), (65_536, Some(165_535)), (65_537, None)] {
            assert_eq!(maps.uid_outside(uid), expected, "{uid}");
        }
        assert_eq!(maps.gid_outside(1), None, "past the end of the ids");
        assert!(!maps.is_single());
        assert_eq!(text(&maps.uids), "0 1000 1\n1 100000 65536\n");
    }
}
