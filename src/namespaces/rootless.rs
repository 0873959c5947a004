//! The id maps that an ordinary user's containers get.

use std::path::Path;

use rustix::fs::Mode;

use super::idmap::{IdMaps, IdRange, find_helper};
use crate::error::Result;
use crate::support::passwd::{self, SubordinateRange};

/// The inode of the user namespace that the machine starts with (`PROC_USER_INIT_INO`, Linux 3.8).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Says whether user 0 is root here: in any other user namespace it is somebody's id under another number.
pub fn is_initial_user_namespace() -> bool {
    !rustix::fs::stat("/proc/self/ns/user").is_ok_and(|stat| stat.st_ino != INITIAL_USER_NAMESPACE)
}

/// The maps, and what is lost with them.
pub struct RootlessMaps {
    /// The caller is user 0 inside; subordinate ids follow from 1.
    pub maps: IdMaps,
    /// One line for the user when there is no more than the caller's own id.
    pub lost: Option<String>,
}

/// Finds what the host gives the caller: a range of subordinate ids and the two programs that map them, or its own id.
pub fn maps_for_caller() -> Result<RootlessMaps> {
    let uid = rustix::process::geteuid().as_raw();
    match subordinate_maps(uid)? {
        Ok(maps) => Ok(RootlessMaps { maps, lost: None }),
        Err(reason) => {
            let lost = format!(
                "{reason}: one user id only; files of other owners show as root's, and other users cannot be become"
            );
            Ok(RootlessMaps { maps: IdMaps::single(0, 0), lost: Some(lost) })
        }
    }
}

fn subordinate_maps(uid: u32) -> Result<Result<IdMaps, String>> {
    for helper in ["newuidmap", "newgidmap"] {
        let Some(path) = find_helper(helper) else { return Ok(Err(format!("{helper} is not installed"))) };
        if !has_rights(&path) {
            return Ok(Err(format!("{} has no rights of its own here", path.display())));
        }
    }
    let user = passwd::host_user(uid)?;
    let (uids, gids) = passwd::host_subordinate_ranges(user.as_ref().map(|user| user.name.as_str()), uid)?;
    if uids.is_empty() || gids.is_empty() {
        return Ok(Err("no range of ids in /etc/subuid and /etc/subgid".to_owned()));
    }
    let own = IdMaps::single(0, 0);
    Ok(Ok(IdMaps { uids: extend(own.uids, &uids), gids: extend(own.gids, &gids) }))
}

/// Set-user-id, or file capabilities; and no_new_privs, which takes both away, is not set.
fn has_rights(program: &Path) -> bool {
    let is_set_id = rustix::fs::stat(program).is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).contains(Mode::SUID));
    let has_capabilities = || rustix::fs::getxattr(program, "security.capability", &mut [0u8; 64][..]).is_ok();
    let is_confined = rustix::thread::no_new_privs().unwrap_or(false);
    !is_confined && (is_set_id || has_capabilities())
}

fn extend(mut ranges: Vec<IdRange>, subordinate: &[SubordinateRange]) -> Vec<IdRange> {
    let mut inside = 1u32;
    for range in subordinate {
        // The kernel takes 340 lines (since 4.15), and ids that fit.
        let Some(next) = inside.checked_add(range.count) else { break };
        ranges.push(IdRange { inside, outside: range.start, length: range.count });
        inside = next;
    }
    ranges
}
