//! Walks the cgroups below a cgroup: who is in them, and their removal.
//!
//! What a container made below its own cgroup can be of any depth and shape, and change meanwhile. So the walk holds
//! one descriptor and goes by single names, up by `..`: no path can get too long, no stack too deep.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::file;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Gives the processes of a cgroup and of all below it; none for one that is gone.
pub(super) fn processes(top: &Path) -> Result<Vec<Pid>, Errno> {
    let mut pids = Vec::new();
    each(top, &mut |directory, _| {
        match openat(directory, c"cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC).and_then(file::read_to_end) {
            Ok(text) => parse_pids(&text, &mut pids),
            // A threaded cgroup of v2 answers for its domain alone; it has threads of processes counted there.
            Err(Errno::OPNOTSUPP | Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    })?;
    pids.sort_unstable_by_key(|pid| pid.as_raw_pid());
    pids.dedup();
    Ok(pids)
}

fn parse_pids(text: &[u8], pids: &mut Vec<Pid>) {
    let numbers = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok());
    // Zero is a process that this pid namespace does not see.
    pids.extend(numbers.filter_map(Pid::from_raw));
}

/// Removes a cgroup and all below it. One that is gone already is fine.
///
/// Processes in it make it busy until the kernel has let go of them, which for a moment outlasts their death: that is
/// waited for, by their pidfds as long as they have any.
pub(super) fn remove(top: &Path, patience: Duration) -> Result<(), Errno> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(50);
    loop {
        match rustix::fs::rmdir(top) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::INTR) => continue,
            // On a read-only mount the answer is EROFS whether or not there is such a cgroup.
            Err(Errno::ROFS) if rustix::fs::access(top, rustix::fs::Access::EXISTS) == Err(Errno::NOENT) => {
                return Ok(());
            }
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(errno),
        }
        remove_below(top)?;
        if Instant::now() >= deadline {
            return match rustix::fs::rmdir(top) {
                Err(errno) if errno != Errno::NOENT => Err(errno),
                _ => Ok(()),
            };
        }
        wait_for_exit(&processes(top)?, deadline);
        // Dead, reaped even, and perhaps not yet off the kernel's list: no event tells of that on v1.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Removes what can be removed below a cgroup.
fn remove_below(top: &Path) -> Result<(), Errno> {
    each(top, &mut |directory, step| {
        if let Step::Leaving(name) = step {
            match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    })
}

/// Waits until one of some processes has exited.
fn wait_for_exit(pids: &[Pid], deadline: Instant) {
    let pidfds: Vec<OwnedFd> =
        pids.iter().filter_map(|pid| rustix::process::pidfd_open(*pid, PidfdFlags::empty()).ok()).collect();
    let mut polled: Vec<PollFd<'_>> = pidfds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    if !polled.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        // Whatever ends the wait, the caller looks again.
        let _ = rustix::event::poll(&mut polled, Some(&timeout));
    }
}

/// Where a walk is.
pub(super) enum Step<'a> {
    /// In a cgroup for the first time.
    Entering,
    /// Back in the cgroup above the one of this name, all of whose children have been seen.
    Leaving(&'a CString),
}

/// Calls `visit` with each cgroup from `top` down, and again with its parent once everything below it has been seen.
///
/// What appears or vanishes during the walk may or may not be seen.
pub(super) fn each(
    top: &Path,
    visit: &mut dyn FnMut(BorrowedFd<'_>, Step<'_>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut here = match rustix::fs::open(top, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        answer => answer?,
    };
    visit(here.as_fd(), Step::Entering)?;
    // For every level from the top: the child that the walk is in, after the ones still to come.
    let mut levels = vec![children(here.as_fd())?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.last() else {
            levels.pop();
            if let Some(above) = levels.last_mut() {
                here = openat(here.as_fd(), c"..", DIRECTORY)?;
                if let Some(name) = above.pop() {
                    visit(here.as_fd(), Step::Leaving(&name))?;
                }
            }
            continue;
        };
        match openat(here.as_fd(), name, DIRECTORY) {
            Ok(child) => {
                here = child;
                visit(here.as_fd(), Step::Entering)?;
                levels.push(children(here.as_fd())?);
            }
            Err(Errno::NOENT | Errno::NODEV) => {
                level.pop();
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Gives the names of the cgroups directly below one.
fn children(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    // One link from above, one from itself, and one from each child: usually there is no need to read the directory.
    if rustix::fs::fstat(directory)?.st_nlink == 2 {
        return Ok(names);
    }
    for entry in Dir::read_from(directory)? {
        let entry = match entry {
            Err(Errno::NOENT | Errno::NODEV) => break,
            entry => entry?,
        };
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn openat(directory: impl AsFd, name: impl rustix::path::Arg, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(directories: &[&str]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        for directory in directories {
            std::fs::create_dir_all(top.path().join("top").join(directory)).unwrap();
        }
        top
    }

    #[test]
    fn a_walk_sees_every_cgroup_once_and_leaves_it_after_its_children() {
        let top = tree(&["a/b/c", "a/d", "e"]);
        let (mut entered, mut left) = (0, Vec::new());
        each(&top.path().join("top"), &mut |_, step| {
            match step {
                Step::Entering => entered += 1,
                Step::Leaving(name) => left.push(name.to_str().unwrap().to_owned()),
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(entered, 6);
        assert_eq!(left.len(), 5);
        let position = |name| left.iter().position(|left| left == name).unwrap();
        assert!(position("c") < position("b") && position("b") < position("a") && position("d") < position("a"));
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_walked_and_removed() {
        let top = tree(&["x"]);
        let mut here = openat(rustix::fs::CWD, top.path().join("top"), DIRECTORY).unwrap();
        let name = "n".repeat(200);
        for _ in 0..100 {
            rustix::fs::mkdirat(&here, &name, Mode::from_raw_mode(0o755)).unwrap();
            here = openat(&here, &name, DIRECTORY).unwrap();
        }
        remove(&top.path().join("top"), Duration::ZERO).unwrap();
        assert!(!top.path().join("top").exists());
    }

    #[test]
    fn what_is_gone_is_fine() {
        let top = tree(&[]);
        assert_eq!(remove(&top.path().join("missing"), Duration::ZERO), Ok(()));
        assert_eq!(processes(&top.path().join("missing")), Ok(Vec::new()));
    }

    #[test]
    fn pids_are_read_from_every_level() {
        let top = tree(&["a"]);
        for (file, text) in [("top/cgroup.procs", "12\n0\n7\n"), ("top/a/cgroup.procs", "7\n300\n")] {
            let path = top.path().join(file);
            let fd = rustix::fs::open(&path, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
            file::write(fd, text.as_bytes()).unwrap();
        }
        let pids: Vec<i32> = processes(&top.path().join("top")).unwrap().into_iter().map(Pid::as_raw_pid).collect();
        assert_eq!(pids, [7, 12, 300]);
    }
}
