//! Tries what a container's start does, in a child with a mount namespace of its own, and as an ordinary user with a user
//! namespace: what is made there goes with it. Gives for each step the error, or none.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags, memfd_create};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::engine::userns;
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::idmap::{IdMaps, open_user_namespace};
use crate::rootfs::mount::new_file_system;
use crate::runtime::foreground::{self, Exit};
use crate::spec::mount_options::MountOptions;
use crate::support::remove::remove_tree;
use crate::support::root::Root;
use crate::sys::clone::{CloneFlags, Cloned, clone3, unshare};
use crate::sys::mount::{Change, Reach, attr, mount_setattr};
use crate::sys::process::exit_now;

/// The steps that were tried, each with what went wrong.
pub(super) type Steps = BTreeMap<String, Option<String>>;

pub(super) const OPENAT2: &str = "openat2";
pub(super) const MOUNT_ATTRIBUTES: &str = "mount attributes";
pub(super) const TMPFS: &str = "tmpfs";
pub(super) const OVERLAY: &str = "overlay";
pub(super) const IDMAPPED: &str = "idmapped mounts";
pub(super) const TIME: &str = "time namespace";
pub(super) const NAMESPACES: [(&str, CloneFlags); 5] = [
    ("PID namespace", CloneFlags::NEWPID),
    ("network namespace", CloneFlags::NEWNET),
    ("IPC namespace", CloneFlags::NEWIPC),
    ("UTS namespace", CloneFlags::NEWUTS),
    ("cgroup namespace", CloneFlags::NEWCGROUP),
];

/// Takes all steps; an error where not even the first was possible: the child with its namespaces.
pub(super) fn run(maps: Option<&IdMaps>, data_root: &Path) -> Result<Steps> {
    match maps {
        Some(maps) => userns::run_for(maps, || Ok(steps(data_root, maps))),
        None => in_child(|| steps(data_root, &IdMaps::single(0, 0))),
    }
}

/// Root's child: nothing but a mount namespace.
fn in_child(work: impl FnOnce() -> Steps) -> Result<Steps> {
    let mut result = File::from(memfd_create(c"husk:trial", MemfdFlags::CLOEXEC).context("make a file in memory")?);
    match clone3(CloneFlags::NEWNS, None).context("make a mount namespace")? {
        Cloned::Child => {
            let written = serde_json::to_vec(&work()).is_ok_and(|bytes| result.write_all(&bytes).is_ok());
            exit_now(i32::from(!written))
        }
        Cloned::Parent(_, pidfd) => {
            if foreground::wait(&pidfd)? != Exit::Code(0) {
                return Err(Error::new(Kind::Other, "the trial ended early"));
            }
        }
    }
    result.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    result.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn steps(data_root: &Path, maps: &IdMaps) -> Steps {
    let mut steps = Steps::new();
    let mut take = |name: &str, answer: Result<()>| {
        steps.insert(name.to_owned(), answer.err().map(|error| error.report()));
    };
    take(OPENAT2, try_openat2());
    take(MOUNT_ATTRIBUTES, try_mount_attributes());
    take(TMPFS, file_system(c"tmpfs", &[]).map(drop));
    take(OVERLAY, try_overlay(data_root));
    take(IDMAPPED, try_idmapped(data_root, maps));
    // Nobody else is in them, and nothing of the child depends on where it is.
    for (name, kind) in NAMESPACES.into_iter().chain([(TIME, CloneFlags::NEWTIME)]) {
        take(name, unshare(kind).map_err(Error::from));
    }
    steps
}

fn try_openat2() -> Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::IN_ROOT).map(drop).context("openat2")
}

fn copy_of(directory: &Path) -> Result<std::os::fd::OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, directory, flags).context("copy a mount (open_tree)")
}

fn try_mount_attributes() -> Result<()> {
    let change = Change { set: attr::RDONLY, ..Change::default() };
    let mount = file_system(c"tmpfs", &[])?.into_fd();
    mount_setattr(mount, Reach::One, &change).context("change a mount (mount_setattr)")
}

fn try_idmapped(data_root: &Path, maps: &IdMaps) -> Result<()> {
    let namespace = open_user_namespace(maps)?;
    let change = Change { set: attr::IDMAP, userns: Some(namespace.as_fd()), ..Change::default() };
    mount_setattr(copy_of(data_root)?, Reach::One, &change).context("map the ids of a mount")
}

/// Makes an overlay where the containers' are, and writes to it.
fn try_overlay(data_root: &Path) -> Result<()> {
    let root = Root::open(data_root)?;
    // A sweep of the store takes what begins so.
    let place = format!("gone.{}.doctor", std::process::id());
    let staging = Path::new("store/tmp").join(&place);
    for name in ["lower", "upper", "work"] {
        root.make_directories(&staging.join(name), Mode::RWXU).context("make directories in the data root")?;
    }
    let attempt = || {
        let path = |name: &str| CString::new(data_root.join(&staging).join(name).as_os_str().as_encoded_bytes());
        let mut data = vec![
            (c"lowerdir".to_owned(), Some(path("lower")?)),
            (c"upperdir".to_owned(), Some(path("upper")?)),
            (c"workdir".to_owned(), Some(path("work")?)),
        ];
        if !crate::namespaces::rootless::is_initial_user_namespace() {
            data.push((c"userxattr".to_owned(), None));
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        file_system(c"overlay", &data)?.open_at(Path::new("file"), flags, Mode::RUSR).context("write to it")?;
        Ok(())
    };
    let answer = attempt();
    let removed = root
        .open_at(Path::new("store/tmp"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .map_err(Error::from)
        .and_then(|staging| remove_tree(staging, place));
    answer.and(removed)
}

fn file_system(kind: &std::ffi::CStr, data: &[(CString, Option<CString>)]) -> Result<Root> {
    let kind = kind.to_owned();
    let tree = new_file_system(&kind, &kind, data, &MountOptions::default(), attr::NODEV | attr::NOSUID, None, None)?;
    Ok(Root::from_fd(tree))
}
