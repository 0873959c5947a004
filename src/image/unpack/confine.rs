//! What threads give up before they see a byte of others'. One that makes a layer's files: all capabilities but those that
//! files of other owners take, and by Landlock every change outside of the layer's directory. One that fetches and inflates:
//! all capabilities, and every change of any file that it does not have open.
//!
//! The second fence: that no entry leads out is `tree`'s duty, and is what the tests look at. This one holds where `tree`
//! errs. Everything here is the calling thread's alone, and for good, so the thread must be one that ends with the layer.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Form, OverlayXattr, Ownership};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::landlock::{self, Handled};

/// Rights on files of linux/landlock.h that a layer needs inside its directory: to write, remove and make files of every
/// kind, to link and rename across directories (ABI 2), and to truncate (ABI 3).
const NEEDED: u64 = 1 << 1 | 0b1_1111_1111 << 4 | REFER | TRUNCATE;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;

/// Rights that it needs nowhere: to execute, and to give a device orders (ABI 5).
const NEVER: u64 = EXECUTE | IOCTL_DEVICE;
const EXECUTE: u64 = 1;
const IOCTL_DEVICE: u64 = 1 << 15;

/// To listen and to connect (ABI 4).
const NETWORK: u64 = 0b11;

/// Lets the calling thread change nothing but what is below `directory`.
pub(super) fn confine(directory: BorrowedFd<'_>, form: Form) -> Result<()> {
    // Without it the kernel wants CAP_SYS_ADMIN for a Landlock domain; and nothing is executed here anyway.
    rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    restrict_files(Some(directory)).context("confine the unpacking to its directory")?;
    drop_capabilities(needed(form)).context("drop capabilities")
}

/// Runs work that reads what others wrote, from the network above all, and changes no file by its path: in a thread that
/// could not, and has no capabilities. Where there can be no thread, it is run as it is.
pub fn without_rights<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let work = Mutex::new(Some(work));
    let take = || work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let vanished = || Error::new(Kind::Other, "a thread that failed to start has run");
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().name("fetch".to_owned()).spawn_scoped(scope, || {
            let work = take().ok_or_else(vanished)?;
            give_up_all()?;
            work()
        });
        match spawned {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => take().ok_or_else(vanished)?(),
        }
    })
}

fn give_up_all() -> Result<()> {
    rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    restrict_files(None).context("confine the fetching")?;
    drop_capabilities(CapabilitySet::empty()).context("drop capabilities")
}

/// Where the kernel has no Landlock, or one that would refuse hard links between directories (before Linux 5.19), this is
/// left out: it is a fence behind another.
///
/// Without a directory, nothing can be changed anywhere, and the network stays.
fn restrict_files(directory: Option<BorrowedFd<'_>>) -> Result<()> {
    let abi = landlock::abi().unwrap_or(0);
    if abi < 2 {
        return Ok(());
    }
    let known = match abi {
        2 => !(TRUNCATE | IOCTL_DEVICE),
        3 | 4 => !IOCTL_DEVICE,
        _ => u64::MAX,
    };
    let net = if abi >= 4 && directory.is_some() { NETWORK } else { 0 };
    let ruleset = landlock::create_ruleset(&Handled { fs: (NEEDED | NEVER) & known, net, scoped: 0 })?;
    if let Some(directory) = directory {
        landlock::allow_path(ruleset.as_fd(), NEEDED & known, directory)?;
    }
    Ok(landlock::restrict_self(ruleset.as_fd(), 0)?)
}

fn drop_capabilities(needed: CapabilitySet) -> Result<()> {
    let now = rustix::thread::capabilities(None)?;
    let kept = now.permitted & needed;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// What it takes to make files as an image has them.
fn needed(form: Form) -> CapabilitySet {
    // Directories that deny their owner are entered all the same: 0555 and less is common in images.
    let mut needed = CapabilitySet::DAC_OVERRIDE;
    if form.ownership == Ownership::Keep {
        // Of others' files: the owner, the mode, times and hard links, set-id bits that outlast a write, devices, and file
        // capabilities. With one id all files are the caller's.
        needed |= CapabilitySet::CHOWN
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
            | CapabilitySet::MKNOD
            | CapabilitySet::SETFCAP;
    }
    if form.overlay == OverlayXattr::Trusted {
        // The kernel lets nobody else write `trusted.*` (xattr(7)). What it would allow beyond, mounts above all, a
        // Landlock domain refuses by itself (landlock(7)).
        needed |= CapabilitySet::SYS_ADMIN;
    }
    needed
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
#[expect(clippy::print_stdout, reason = "a test that cannot run says why")]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;

    const FORM: Form = Form { ownership: Ownership::Keep, overlay: OverlayXattr::User };

    #[test]
    fn nothing_outside_can_be_changed_and_everything_inside_can() {
        if landlock::abi().unwrap_or(0) < 2 {
            println!("nothing_outside_can_be_changed_and_everything_inside_can: not run: no Landlock of version 2");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
        for directory in [&inside, &outside] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.join("there"), "x").unwrap();
        }
        let fd = rustix::fs::open(&inside, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let refused = |answer: std::io::Result<()>| {
            // A rename or link across the fence is EXDEV.
            let errno = Errno::from_io_error(&answer.unwrap_err()).unwrap();
            assert!([Errno::ACCESS, Errno::XDEV].contains(&errno), "{errno}");
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                confine(fd.as_fd(), FORM).unwrap();
                refused(std::fs::write(outside.join("new"), ""));
                refused(std::fs::write(outside.join("there"), "changed"));
                refused(std::fs::create_dir(outside.join("new")));
                refused(std::os::unix::fs::symlink("x", outside.join("new")));
                refused(std::fs::remove_file(outside.join("there")));
                refused(std::fs::hard_link(inside.join("there"), outside.join("new")));
                refused(std::fs::hard_link(outside.join("there"), inside.join("taken")));
                refused(std::fs::rename(inside.join("there"), outside.join("new")));
                refused(std::fs::OpenOptions::new().append(true).open(outside.join("there")).map(drop));
                refused(std::process::Command::new("/bin/true").status().map(drop));
                refused(std::net::TcpStream::connect(("127.0.0.1", 9)).map(drop));

                std::fs::create_dir_all(inside.join("a/b")).unwrap();
                std::fs::write(inside.join("a/b/c"), "x").unwrap();
                std::fs::hard_link(inside.join("a/b/c"), inside.join("d")).unwrap();
                std::fs::rename(inside.join("a/b/c"), inside.join("e")).unwrap();
                std::os::unix::fs::symlink("/", inside.join("a/link")).unwrap();
                rustix::fs::mknodat(&fd, "fifo", rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
                std::fs::File::options().write(true).open(inside.join("e")).unwrap().set_len(0).unwrap();
                std::fs::remove_dir_all(inside.join("a")).unwrap();
            });
        });
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(std::fs::read(outside.join("there")).unwrap(), b"x");
        std::fs::write(outside.join("new"), "").expect("another thread is not confined");
    }

    #[test]
    fn who_fetches_changes_nothing_but_what_is_open() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let mut file = std::fs::File::create_new(&path).unwrap();
        let before = rustix::thread::capabilities(None).unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let answer = without_rights(|| {
            std::io::Write::write_all(&mut file, b"fetched")?;
            std::net::TcpStream::connect(listener.local_addr()?)?;
            assert!(rustix::thread::capabilities(None)?.permitted.is_empty());
            if landlock::abi().unwrap_or(0) >= 2 {
                assert!(std::fs::write(&path, "changed").is_err());
                assert!(std::fs::create_dir(place.path().join("new")).is_err());
                assert!(std::fs::remove_file(&path).is_err());
                assert!(std::process::Command::new("/bin/true").status().is_err());
            }
            Ok(std::fs::read(&path)?)
        });
        assert_eq!(answer.unwrap(), b"fetched");
        assert_eq!(rustix::thread::capabilities(None).unwrap(), before);
        let failure = without_rights(|| Err::<(), _>(Error::invalid("as it is"))).unwrap_err();
        assert_eq!(failure.report(), "as it is");
    }

    #[test]
    fn capabilities_are_those_of_files() {
        let before = rustix::thread::capabilities(None).unwrap();
        for (ownership, overlay) in [
            (Ownership::Keep, OverlayXattr::Trusted),
            (Ownership::Keep, OverlayXattr::User),
            (Ownership::Record, OverlayXattr::User),
        ] {
            let form = Form { ownership, overlay };
            let left = std::thread::spawn(move || {
                drop_capabilities(needed(form)).unwrap();
                rustix::thread::capabilities(None).unwrap()
            });
            let left = left.join().unwrap();
            assert_eq!(left.effective, before.permitted & needed(form));
            assert_eq!((left.permitted, left.inheritable), (left.effective, CapabilitySet::empty()));
            assert!(!left.effective.intersects(CapabilitySet::SYS_PTRACE | CapabilitySet::NET_ADMIN));
            assert!(overlay == OverlayXattr::Trusted || !left.effective.contains(CapabilitySet::SYS_ADMIN));
        }
        assert_eq!(rustix::thread::capabilities(None).unwrap(), before, "another thread has lost capabilities");
    }
}
