//! Which ids a container has (`--userns`): the caller's own arrangement, another one of the same ids, or a part of them that
//! no other container has.
//!
//! Who has which part is nowhere but in the containers' folders: a file `ids`, written while one lock is held that only those
//! take who ask for `auto`. A container that was not finished or is removed takes its part with it.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::engine::Engine;
use super::options::namespaces::UserMode;
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::idmap::{IdMaps, IdRange};
use crate::support::atomic;
use crate::support::lock::{Lock, Sharing, open_lock_file};
use crate::support::passwd::{self, Identity, SubordinateRange, UserDatabase};

/// The file in a container's folder that says which ids are its own.
const FILE: &str = "ids";

/// Of the data root: held from looking for ids until the file says whose they are.
const LOCK: &str = "ids.lock";

/// Longer than any maps that the kernel takes.
const FILE_BYTES: usize = 64 << 10;

/// The fewest that `auto` gives; podman's number.
const LEAST: u32 = 1024;

/// Whose subordinate ids root gives to containers; podman's name.
const ROOTS_USER: &str = "containers";

/// Gives a container's ids where they are not the caller's usual ones; and then the files of images, which lie on disk as
/// the usual ones, want other owners.
pub fn arrange(
    engine: &Engine,
    mode: &UserMode,
    users: &UserDatabase,
    identity: &Identity,
    folder: BorrowedFd<'_>,
) -> Result<Option<IdMaps>> {
    let arrange = || -> Result<Option<IdMaps>> {
        match (mode, &engine.maps) {
            (UserMode::Default | UserMode::Container(_) | UserMode::Path(_), _) | (UserMode::Private, Some(_)) => {
                Ok(None)
            }
            (UserMode::Private, None) => {
                Err(Error::unsupported("root's containers have the host's ids").with_hint("auto gives them others"))
            }
            // The one id is anybody's as it is.
            (UserMode::KeepId { .. }, Some(maps)) if maps.is_single() => Ok(None),
            (UserMode::KeepId { size, .. }, Some(maps)) => {
                let (uid, gid) = kept(mode).unwrap_or((identity.uid, identity.gid));
                Ok(Some(IdMaps {
                    uids: keep(subordinate(&maps.uids), own(&maps.uids), uid, *size),
                    gids: keep(subordinate(&maps.gids), own(&maps.gids), gid, *size),
                }))
            }
            (UserMode::NoMap, Some(maps)) if !maps.is_single() => {
                Ok(Some(IdMaps { uids: lay(0, subordinate(&maps.uids)), gids: lay(0, subordinate(&maps.gids)) }))
            }
            (UserMode::KeepId { .. } | UserMode::NoMap, None) => Err(Error::unsupported("is for ordinary users alone")),
            (UserMode::Auto { size }, maps) => {
                let pool = match maps {
                    Some(maps) => {
                        IdMaps { uids: subordinate(&maps.uids).to_vec(), gids: subordinate(&maps.gids).to_vec() }
                    }
                    None => roots_pool()?,
                };
                let needed = users.span().max(identity.uid.saturating_add(1)).max(identity.gid.saturating_add(1));
                let size = size.unwrap_or_else(|| needed.max(LEAST));
                allocate(engine, &pool, size, folder).map(Some)
            }
            (UserMode::NoMap, Some(_)) => Err(none_to_give()),
        }
    };
    arrange().with_context(|| format!("userns {mode}"))
}

/// Gives the maps by which files are given their new owners: from ids of the container to those where the files are written,
/// the user namespace of the caller's usual ids.
pub fn owners(ids: &IdMaps, usual: Option<&IdMaps>) -> Result<IdMaps> {
    usual.map_or_else(|| Ok(ids.clone()), |usual| ids.below(usual))
}

/// The first range is the caller's own id, the others are subordinate.
fn subordinate(ranges: &[IdRange]) -> &[IdRange] {
    ranges.get(1..).unwrap_or_default()
}

fn own(ranges: &[IdRange]) -> u32 {
    ranges.first().map_or(0, |range| range.outside)
}

fn none_to_give() -> Error {
    Error::unsupported("there are no subordinate ids to give")
        .with_hint("give the user a range of ids in /etc/subuid and /etc/subgid")
}

fn roots_pool() -> Result<IdMaps> {
    let (uids, gids) = passwd::host_subordinate_ranges(Some(ROOTS_USER), u32::MAX)?;
    if uids.is_empty() || gids.is_empty() {
        return Err(Error::unsupported(format!("no range of ids for {ROOTS_USER:?} in /etc/subuid and /etc/subgid"))
            .with_hint(format!(
                "echo {ROOTS_USER}:2147483647:2147483648 >> /etc/subuid, and the same for /etc/subgid"
            )));
    }
    let ranges = |list: &[SubordinateRange]| {
        list.iter().map(|range| IdRange { inside: 0, outside: range.start, length: range.count }).collect()
    };
    Ok(IdMaps { uids: ranges(&uids), gids: ranges(&gids) })
}

/// Lays ranges one behind the other, from `inside` on.
fn lay(mut inside: u32, ranges: &[IdRange]) -> Vec<IdRange> {
    let mut laid = Vec::with_capacity(ranges.len());
    for range in ranges {
        let Some(next) = inside.checked_add(range.length) else { break };
        laid.push(IdRange { inside, ..*range });
        inside = next;
    }
    laid
}

/// Cuts ranges after `count` ids, and gives what is left.
fn cut(ranges: &[IdRange], mut count: u32) -> (Vec<IdRange>, Vec<IdRange>) {
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    for range in ranges {
        let length = range.length.min(count);
        count -= length;
        if length > 0 {
            head.push(IdRange { length, ..*range });
        }
        if length < range.length {
            tail.push(IdRange { outside: range.outside + length, length: range.length - length, ..*range });
        }
    }
    (head, tail)
}

/// Puts the caller's own id in the place of `kept`, and the subordinate ones around it; `size` ids in all.
fn keep(ranges: &[IdRange], own: u32, kept: u32, size: Option<u32>) -> Vec<IdRange> {
    let ranges = match size {
        Some(size) => cut(ranges, size.saturating_sub(1)).0,
        None => ranges.to_vec(),
    };
    let (below, above) = cut(&ranges, kept);
    let mut maps = lay(0, &below);
    maps.push(IdRange { inside: kept, outside: own, length: 1 });
    maps.extend(lay(kept.saturating_add(1), &above));
    maps
}

/// Takes `size` ids of the pool that no other container has, and records them in the container's folder.
fn allocate(engine: &Engine, pool: &IdMaps, size: u32, folder: BorrowedFd<'_>) -> Result<IdMaps> {
    if size == 0 {
        return Err(Error::invalid("size: no ids at all"));
    }
    let lock = open_lock_file(engine.data_root(), LOCK, OFlags::CREATE)?;
    let _held = Lock::wait(lock, Sharing::Exclusive, |_| ())?;
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    let containers = engine.settings.data_root.join("containers");
    for entry in std::fs::read_dir(&containers).with_context(|| format!("list {}", containers.display()))? {
        let path = entry.with_context(|| format!("list {}", containers.display()))?.path().join(FILE);
        if let Some(taken) = read(&path).with_context(|| format!("read {}", path.display()))? {
            uids.extend(taken.uids);
            gids.extend(taken.gids);
        }
    }
    let find = |pool: &[IdRange], taken: &[IdRange]| {
        let found = find_free(pool, taken, size).map(|outside| vec![IdRange { inside: 0, outside, length: size }]);
        found.ok_or_else(|| {
            Error::new(Kind::Other, format!("no {size} ids are left that no other container has"))
                .with_hint("auto:size=NUMBER asks for fewer; more come by /etc/subuid and /etc/subgid")
        })
    };
    let maps = IdMaps { uids: find(&pool.uids, &uids)?, gids: find(&pool.gids, &gids)? };
    atomic::create(folder, FILE, &serde_json::to_vec(&maps)?).context("record the container's ids")?;
    Ok(maps)
}

fn read(path: &Path) -> Result<Option<IdMaps>> {
    let bytes = match atomic::read(rustix::fs::CWD, path.to_str().unwrap_or_default(), FILE_BYTES) {
        // What lies beside the folders, and one that has just gone.
        Err(error) if error.errno() == Some(rustix::io::Errno::NOTDIR) => None,
        answer => answer?,
    };
    // A power cut leaves an empty file, of a container that has to be made again.
    bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(serde_json::from_slice(&bytes)?)).transpose()
}

/// Finds the first place for `size` ids in a row.
fn find_free(pool: &[IdRange], taken: &[IdRange], size: u32) -> Option<u32> {
    let end = |start: u32, length: u32| u64::from(start) + u64::from(length);
    pool.iter().find_map(|range| {
        let mut start = range.outside;
        loop {
            if end(start, size) > end(range.outside, range.length) {
                return None;
            }
            let in_the_way = taken.iter().filter(|taken| {
                u64::from(taken.outside) < end(start, size) && end(taken.outside, taken.length) > u64::from(start)
            });
            match in_the_way.map(|taken| end(taken.outside, taken.length)).max() {
                None => return Some(start),
                Some(next) => start = u32::try_from(next).ok()?,
            }
        }
    })
}

/// Says which ids a user keeps who asks for none: the caller's.
pub fn kept(mode: &UserMode) -> Option<(u32, u32)> {
    let UserMode::KeepId { uid, gid, .. } = mode else { return None };
    let own = || (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Some((uid.unwrap_or_else(|| own().0), gid.unwrap_or_else(|| own().1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, length: u32) -> IdRange {
        IdRange { inside, outside, length }
    }

    #[test]
    fn the_callers_id_is_in_its_place() {
        let subordinate = [range(1, 100_000, 600), range(601, 300_000, 1000)];
        assert_eq!(
            keep(&subordinate, 1000, 1000, None),
            [range(0, 100_000, 600), range(600, 300_000, 400), range(1000, 1000, 1), range(1001, 300_400, 600)]
        );
        assert_eq!(keep(&subordinate, 1000, 0, Some(3)), [range(0, 1000, 1), range(1, 100_000, 2)]);
        assert_eq!(keep(&subordinate, 7, 5000, None).last(), Some(&range(5000, 7, 1)), "with a gap below");
    }

    #[test]
    fn no_two_have_the_same_ids() {
        let pool = [range(0, 1000, 100), range(0, 5000, 300)];
        assert_eq!(find_free(&pool, &[], 100), Some(1000));
        assert_eq!(find_free(&pool, &[range(0, 1000, 50)], 50), Some(1050));
        assert_eq!(find_free(&pool, &[range(0, 1000, 50)], 100), Some(5000));
        assert_eq!(find_free(&pool, &[range(0, 5000, 100), range(0, 1050, 50), range(0, 5150, 10)], 60), Some(5160));
        assert_eq!(find_free(&pool, &[], 301), None);
        assert_eq!(find_free(&[range(0, u32::MAX - 5, 5)], &[range(0, u32::MAX - 5, 5)], 1), None);
    }
}
