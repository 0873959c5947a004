//! Where the networks of a caller are: root's in this process's own network namespace, an ordinary user's in one of the
//! user's own, whose user namespace is the parent of those of the containers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use crate::engine::engine::Engine;
use crate::engine::networks::NetworkRecord;
use crate::engine::networks::driver::Driver;
use crate::engine::options::Network;
use crate::engine::options::namespaces::{IpcMode, NamespaceMode, NamespaceOptions, UserMode};
use crate::error::{Context, Error, Result};
use crate::network::egress::Policy;
use crate::network::rootless::{self, Config, Handle};
use crate::sys::namespace;

/// The network namespace that bridges and rules are in.
pub(super) enum World {
    /// This process's.
    Host,
    /// An ordinary user's, with the process that is its way out.
    Users(Handle),
    /// An ordinary user has none: nobody is in a network.
    None,
}

impl World {
    /// Finds it, or makes it, for a container that is to start.
    pub(super) fn ensure(engine: &Engine) -> Result<Self> {
        match &engine.maps {
            None => Ok(Self::Host),
            Some(maps) => {
                let folder = engine.settings.run_root.join(rootless::FOLDER);
                rootless::ensure(&Config { folder: &folder, maps, reaches_host: false, home: engine.helpers_home() })
                    .map(Self::Users)
            }
        }
    }

    /// Finds it; makes nothing.
    pub(super) fn find(engine: &Engine) -> Result<Self> {
        if engine.maps.is_none() {
            return Ok(Self::Host);
        }
        let found = rootless::find(&engine.settings.run_root.join(rootless::FOLDER))?;
        Ok(found.map_or(Self::None, Self::Users))
    }

    pub(super) fn handle(&self) -> Option<&Handle> {
        match self {
            Self::Users(handle) => Some(handle),
            Self::Host | Self::None => None,
        }
    }

    /// Whether it is there still: an ordinary user's ends with its process.
    pub(super) fn lives(&self) -> bool {
        let Some(handle) = self.handle() else { return !matches!(self, Self::None) };
        let lease = handle.lease();
        let mut fds = [PollFd::from_borrowed_fd(lease.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    /// Does work in it. Where there is none there is nothing to be done.
    pub(super) fn inside(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        match self {
            Self::Host => work(),
            Self::Users(handle) => handle.inside(work),
            Self::None => Ok(()),
        }
    }

    /// The user namespace that the networks belong to. A container's is a child of it: who is in the parent has rights over
    /// both ends of a link, and the container over its own.
    pub(super) fn user_namespace(&self) -> Result<Option<OwnedFd>> {
        let Some(handle) = self.handle() else { return Ok(None) };
        handle.user_namespace().try_clone_to_owned().map(Some).context("copy a descriptor")
    }

    /// Refuses who joins a user namespace that is none of those; and who joins processes from outside of theirs: to those, init
    /// would be a process of the same user, to be stopped and limited while it still has the host's mounts (kill(2), prlimit(2)).
    pub(super) fn check(&self, spec: &Spec) -> Result<()> {
        let Some(handle) = self.handle() else { return Ok(()) };
        let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let joined = |kind: LinuxNamespaceType| {
            let namespace = namespaces.iter().find(|namespace| namespace.typ() == kind)?;
            namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty())
        };
        let Some(path) = joined(LinuxNamespaceType::User) else {
            return match joined(LinuxNamespaceType::Pid) {
                Some(_) => Err(Error::unsupported(
                    "a PID namespace to join, and a user namespace of its own below the networks'",
                )
                .with_hint("--pid container:NAME joins both")),
                None => Ok(()),
            };
        };
        let describe = || format!("open user namespace {}", path.display());
        let user = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(describe)?;
        let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_ino);
        let parent = match namespace::parent(&user) {
            Ok(parent) => Some(inode(parent.as_fd()).with_context(describe)?),
            Err(Errno::PERM) => None,
            Err(errno) => return Err(errno).with_context(describe),
        };
        if parent == Some(inode(handle.user_namespace()).with_context(describe)?) {
            return Ok(());
        }
        Err(Error::unsupported("the user namespace to join is of no container that is in a network of this user")
            .with_hint("--network none"))
    }

    /// Has the way out live as long as a container's first process, whatever becomes of this one.
    pub(super) fn keep(&self, pid: i32) -> Result<()> {
        let (Some(handle), Some(pid)) = (self.handle(), Pid::from_raw(pid)) else { return Ok(()) };
        handle.keep(pid)
    }

    /// Where the two namespaces are found by what this process starts, of an ordinary user's.
    pub(super) fn paths(&self) -> Option<[PathBuf; 2]> {
        self.handle().map(Handle::namespace_paths)
    }
}

/// Refuses to keep a container to what it may reach where no rule of husk's would see what it sends.
pub fn check_egress(egress: Option<&Policy>, network: &Network) -> Result<()> {
    let why = match network {
        Network::Host => "its packets are the host's own",
        Network::Container(_) => "it is that container's network; --egress is for that one",
        Network::Path(_) => "what is in that namespace is not husk's",
        Network::None | Network::Joined(_) => return Ok(()),
    };
    match egress {
        Some(_) => Err(Error::invalid(format!("conflicting options: egress and --network {}: {why}", network.mode()))),
        None => Ok(()),
    }
}

/// The same, of one network.
pub fn check_egress_in(egress: Option<&Policy>, network: &NetworkRecord) -> Result<()> {
    if egress.is_none() || network.driver == Driver::Bridge {
        return Ok(());
    }
    let text =
        format!("egress: what is sent in network {} ({}) does not come to husk's rules", network.name, network.driver);
    Err(Error::unsupported(text).with_hint("a network of driver bridge"))
}

/// Says why a container that names no network has none, where the one that it would have cannot be here.
pub fn default_is_out_of_reach(engine: &Engine, modes: &NamespaceOptions) -> Option<String> {
    if engine.maps.is_some() {
        let user = &modes.user;
        return match rustix::fs::access(TUN, Access::READ_OK | Access::WRITE_OK) {
            _ if matches!(user, UserMode::Path(_)) => {
                Some(format!("an ordinary user's container with userns {user} has none of the user's"))
            }
            Err(errno) => Some(format!("open {TUN}: {}", Error::from(errno))),
            Ok(()) => owner_without_networks(engine, modes)
                .map(|name| format!("container {name}, whose user namespace it joins, has none")),
        };
    }
    let has_right = || {
        let sets = rustix::thread::capabilities(None).ok()?;
        Some(sets.effective.contains(CapabilitySet::NET_ADMIN))
    };
    let reason = if engine.is_unshared() {
        "the user namespace of `husk unshare` has none of its own"
    } else if has_right() == Some(false) {
        "it takes CAP_NET_ADMIN"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// Finds the container whose user namespace one is to be in, if that container is in no network.
fn owner_without_networks<'a>(engine: &Engine, modes: &'a NamespaceOptions) -> Option<&'a str> {
    let named = |mode: &'a NamespaceMode| match mode {
        NamespaceMode::Container(name) => Some(name.as_str()),
        _ => None,
    };
    let of_user = match &modes.user {
        UserMode::Container(name) => Some(name.as_str()),
        _ => None,
    };
    let of_ipc = match &modes.ipc {
        IpcMode::Container(name) => Some(name.as_str()),
        _ => None,
    };
    let joined = [of_user, named(&modes.pid), of_ipc, named(&modes.uts), named(&modes.cgroup)];
    let is_in_none = |name: &&str| -> Result<bool> {
        Ok(engine.containers()?.find(name)?.record()?.options.network.attachments().is_empty())
    };
    // One that is not there is told of elsewhere.
    joined.into_iter().flatten().find(|name| is_in_none(name).unwrap_or(false))
}

const TUN: &str = "/dev/net/tun";
