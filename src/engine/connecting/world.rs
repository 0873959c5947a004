//! Where the networks of a caller are: root's in this process's own network namespace, an ordinary user's in one that all of
//! the user's containers share the user namespace of.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Access;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::CapabilitySet;

use crate::engine::engine::Engine;
use crate::engine::networks::NetworkRecord;
use crate::engine::networks::driver::Driver;
use crate::engine::options::namespaces::UserMode;
use crate::engine::options::{Network, RunOptions};
use crate::error::{Error, Result};
use crate::network::egress::Policy;
use crate::network::rootless::{self, Config, Handle};

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
                rootless::ensure(&Config { folder: &folder, maps, reaches_host: false }).map(Self::Users)
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
        let mut fds = [PollFd::from_borrowed_fd(lease, PollFlags::IN)];
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

    /// Has a container join the user namespace that the networks belong to: only there are rights over both ends of a link.
    pub(super) fn enter(&self, spec: &mut Spec) {
        let (Some(handle), Some(linux)) = (self.handle(), spec.linux_mut()) else { return };
        linux.set_uid_mappings(None).set_gid_mappings(None);
        let namespaces = linux.namespaces_mut().get_or_insert_default();
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::User);
        let mut user = LinuxNamespace::default();
        user.set_typ(LinuxNamespaceType::User).set_path(Some(handle.user_namespace_path().to_owned()));
        namespaces.insert(0, user);
    }

    /// Has the way out live as long as a container's first process, whatever becomes of this one.
    pub(super) fn keep(&self, pid: i32) -> Result<()> {
        let (Some(handle), Some(pid)) = (self.handle(), Pid::from_raw(pid)) else { return Ok(()) };
        let pidfd: OwnedFd = pidfd_open(pid, PidfdFlags::empty())?;
        handle.keep(pidfd.as_fd())
    }

    /// The paths of the two namespaces, of an ordinary user's.
    pub(super) fn paths(&self) -> Option<[&Path; 2]> {
        self.handle().map(|handle| [handle.user_namespace_path(), handle.network_namespace_path()])
    }
}

/// Refuses who cannot be in a network of an ordinary user: rights over the link's two ends are of one user namespace.
pub fn check(engine: &Engine, options: &RunOptions) -> Result<()> {
    if engine.maps.is_none() || options.network.attachments().is_empty() || shares_ids(&options.namespaces.user) {
        return Ok(());
    }
    let user = &options.namespaces.user;
    Err(Error::unsupported(format!("userns {user}: an ordinary user's networks have a user namespace of their own"))
        .with_hint("--network none, or no --userns"))
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

fn shares_ids(user: &UserMode) -> bool {
    matches!(user, UserMode::Default | UserMode::Private)
}

/// Says why a container that names no network has none, where the one that it would have cannot be here.
pub fn default_is_out_of_reach(engine: &Engine, user: &UserMode) -> Option<String> {
    if engine.maps.is_some() {
        let tun = rustix::fs::access(TUN, Access::READ_OK | Access::WRITE_OK);
        return match tun {
            _ if !shares_ids(user) => {
                Some(format!("an ordinary user's container with userns {user} has none of the user's"))
            }
            Err(errno) => Some(format!("open {TUN}: {}", Error::from(errno))),
            Ok(()) => None,
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

const TUN: &str = "/dev/net/tun";
