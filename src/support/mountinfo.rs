//! `/proc/self/mountinfo` as proc_pid_mountinfo(5) describes it, and which of its mounts can be seen.
//!
//! Pure: takes the text, opens nothing. A path may be reached through the topmost of several mounts, and a mount may be
//! hidden beneath a later one; [`visible`] answers that, which a plain reading of the list cannot.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u32,
    pub parent: u32,
    /// What of the file system is mounted: `/` for all of it.
    pub root: PathBuf,
    /// Where, seen from the reader's root.
    pub point: PathBuf,
    /// The kind of file system, such as `ext4` or `fuse.sshfs`.
    pub kind: String,
}

/// Reads the table, in its order: a mount stands after those it is mounted on.
pub fn parse(table: &[u8]) -> Result<Vec<Mount>> {
    let lines = table.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            parse_line(line).ok_or_else(|| Error::invalid(format!("mountinfo: line {} is malformed", number + 1)))
        })
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    let mut words = line.split(|byte| *byte == b' ');
    let id = number(words.next()?)?;
    let parent = number(words.next()?)?;
    let root = unescape(words.nth(1)?);
    let point = unescape(words.next()?);
    words.find(|word| word == b"-")?;
    let kind = str::from_utf8(words.next()?).ok()?.to_owned();
    Some(Mount { id, parent, root, point, kind })
}

fn number(word: &[u8]) -> Option<u32> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
fn unescape(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = |digits: &[u8]| digits.iter().all(|digit| (b'0'..=b'7').contains(digit));
        match after.get(..3) {
            Some(digits) if byte == b'\\' && octal(digits) => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push(u8::try_from(value).unwrap_or(b'?'));
                rest = &after[3..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Gives the mounts that a path can lead to, parents before children: for each place the topmost, and none that lies
/// beneath a later mount.
pub fn visible(mounts: &[Mount]) -> Vec<&Mount> {
    // The reader's root is the topmost mount on `/`: the last one, since a mount stands after what it covers.
    let Some(root) = mounts.iter().rev().find(|mount| mount.point == Path::new("/")) else {
        return Vec::new();
    };
    // Ordered by components, what lies below a place follows it at once. Stable: of two on one place the later stands last.
    let mut children: Vec<&Mount> = mounts.iter().filter(|mount| mount.parent != mount.id).collect();
    children.sort_by(|one, other| (one.parent, &one.point).cmp(&(other.parent, &other.point)));
    let mut found = Vec::new();
    descend(&children, root, &mut found);
    found
}

fn descend<'a>(all: &[&'a Mount], mount: &'a Mount, found: &mut Vec<&'a Mount>) {
    let first = all.partition_point(|child| child.parent < mount.id);
    let count = all[first..].partition_point(|child| child.parent == mount.id);
    let children = &all[first..first + count];
    // Mounted on its own root: only what is on top can be reached.
    if let Some(cover) = children.iter().rev().find(|child| child.point == mount.point) {
        return descend(all, cover, found);
    }
    found.push(mount);
    let mut reachable: Vec<&Mount> = Vec::new();
    for child in children {
        match reachable.last_mut() {
            Some(last) if last.point == child.point => *last = child,
            Some(last) if child.point.starts_with(&last.point) => {}
            _ => reachable.push(child),
        }
    }
    for child in reachable {
        descend(all, child, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(table: &str) -> Vec<(u32, String)> {
        let mounts = parse(table.as_bytes()).unwrap();
        visible(&mounts).iter().map(|mount| (mount.id, mount.point.display().to_string())).collect()
    }

    #[test]
    fn lines_are_read_with_escapes_and_optional_fields() {
        let table = "36 35 98:0 /a\\040b /mnt\\134x rw master:1 shared:2 - fuse.sshfs me@host: rw\n";
        assert_eq!(
            parse(table.as_bytes()).unwrap(),
            [Mount { id: 36, parent: 35, root: "/a b".into(), point: "/mnt\\x".into(), kind: "fuse.sshfs".into() }]
        );
        for wrong in ["36 35 98:0 / /mnt rw ext3 /dev/root rw\n", "x 35 98:0 / /mnt rw - ext3 a rw\n", "36\n"] {
            assert!(parse(wrong.as_bytes()).unwrap_err().report().contains("line 1"), "{wrong}");
        }
    }

    #[test]
    fn only_what_a_path_can_reach_is_visible() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n\
                     2 1 8:2 / /dev rw - devtmpfs a rw\n\
                     3 2 8:3 / /dev/shm rw - tmpfs a rw\n\
                     4 3 8:4 / /dev/shm rw - tmpfs b rw\n\
                     5 1 8:5 / /mnt/a rw - ext4 a rw\n\
                     6 1 8:6 / /mnt rw - ext4 a rw\n\
                     7 6 8:7 / /mnt/b rw - ext4 a rw\n\
                     8 1 8:8 / /mnt2 rw - ext4 a rw\n";
        let expected = [(1, "/"), (2, "/dev"), (4, "/dev/shm"), (6, "/mnt"), (7, "/mnt/b"), (8, "/mnt2")];
        assert_eq!(points(table), expected.map(|(id, point)| (id, point.to_owned())));
    }

    #[test]
    fn a_covered_root_is_not_the_root() {
        let table = "1 0 0:1 / / rw - rootfs a rw\n2 1 8:1 / / rw - ext4 a rw\n3 2 0:3 / /proc rw - proc a rw\n";
        assert_eq!(points(table), [(2, "/".to_owned()), (3, "/proc".to_owned())]);
    }

    #[test]
    fn this_machines_table_is_read() {
        let mounts = parse(&std::fs::read("/proc/self/mountinfo").unwrap()).unwrap();
        assert!(visible(&mounts).iter().any(|mount| mount.point == Path::new("/")));
    }
}
