//! Sockets of the network namespace that a user's networks are in, for the translator, which is in the host's and may not change: a
//! process that is in that one makes them, and sends them over. It has nothing else, and ends with the translator.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::confinement;
use super::world;
use crate::error::{Context, Result};
use crate::network::firewall;
use crate::network::firewall::stand_ins::keep_for_stand_ins;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::fdpass;
use crate::sys::memory;
use crate::sys::netlink::Socket;
use crate::sys::process::{close_all_but, exit_now};

const NO_RIGHTS: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// Sockets that are made at once.
const BATCH: u8 = 4;

/// The translator's side.
#[derive(Debug)]
pub(super) struct Maker {
    link: OwnedFd,
    /// Of IPv4 and of IPv6.
    spare: [Vec<OwnedFd>; 2],
    /// How many are on their way.
    awaited: [u8; 2],
    /// There are none.
    has_none: [bool; 2],
}

impl Maker {
    /// Starts the process, in the two namespaces. Packets for its sockets stay in the network namespace; where they do not, it ends,
    /// and there is no maker.
    pub(super) fn start(user: BorrowedFd<'_>, network: BorrowedFd<'_>) -> Result<Self> {
        let (here, there) = fdpass::pair().context("make a pair of sockets")?;
        match clone3(CloneFlags::empty(), None).context("fork into the network namespace")? {
            Cloned::Parent(..) => {
                Ok(Self { link: here, spare: [Vec::new(), Vec::new()], awaited: [0; 2], has_none: [false; 2] })
            }
            Cloned::Child => {
                drop(here);
                let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                exit_now(i32::from(serve(&there, user, network).is_err()))
            }
        }
    }

    /// Gives a socket, if there is one, and sees to it that there are more.
    pub(super) fn take(&mut self, is_ipv4: bool) -> Option<OwnedFd> {
        let place = usize::from(!is_ipv4);
        let taken = self.spare[place].pop();
        if self.spare[place].is_empty() && self.awaited[place] == 0 && !self.has_none[place] {
            let is_asked = fdpass::try_send(&self.link, &[&[u8::from(!is_ipv4)]], None).is_ok();
            self.awaited[place] = if is_asked { BATCH } else { 0 };
        }
        taken
    }

    /// Takes what has come; says whether the process lives.
    pub(super) fn receive(&mut self) -> bool {
        let mut place = [0];
        match fdpass::receive(&self.link, &mut place) {
            Ok((0, _)) => false,
            Ok((_, socket)) => {
                let place = usize::from(place[0]).min(1);
                self.awaited[place] = self.awaited[place].saturating_sub(1);
                self.has_none[place] |= socket.is_none();
                self.spare[place].extend(socket);
                true
            }
            Err(errno) => errno == Errno::AGAIN,
        }
    }
}

impl AsFd for Maker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// A connection that is over is not remembered: who has its ends next, among them callers from loopback, would be answered by what is
/// left of it. And packets that are put back by the device come from where there is no route to who sent them.
const SYSCTLS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0"),
    ("/proc/sys/net/ipv4/conf/all/rp_filter", "0"),
    ("/proc/sys/net/ipv4/conf/host0/rp_filter", "0"),
];

/// Becomes the process; returns when the translator has gone.
fn serve(link: &OwnedFd, user: BorrowedFd<'_>, network: BorrowedFd<'_>) -> Result<()> {
    world::enter(user, network)?;
    let keeps = keep_for_stand_ins(&firewall::open_socket()?, &Socket::open().context("open a netlink socket")?)?;
    for (path, value) in SYSCTLS {
        world::set(path, value)?;
    }
    close_all_but(0, &mut [link.as_raw_fd()]).context("close what is the translator's")?;
    let _ = rustix::thread::set_name(c"husk:[sockets]");
    // Its files are looked at once, and then no more.
    let moment = Timespec { tv_sec: 0, tv_nsec: 0 };
    let _ = memory::wait_released(&mut [PollFd::new(link, PollFlags::IN)], Some(&moment));
    rustix::thread::set_capabilities(None, NO_RIGHTS).context("give up capabilities")?;
    confinement::confine_maker()?;
    let mut request = [0];
    loop {
        let _ = memory::wait_released(&mut [PollFd::new(link, PollFlags::IN)], None);
        let (length, _) = fdpass::receive(link, &mut request).context("hear the translator")?;
        if length == 0 {
            return Ok(());
        }
        let place = usize::from(request[0]).min(1);
        let family = [AddressFamily::INET, AddressFamily::INET6][place];
        for _ in 0..BATCH {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let make = || socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).ok();
            let socket = keeps[place].then(make).flatten();
            // Without one it is told that there is none.
            fdpass::send(link, &[&request], socket.as_ref().map(AsFd::as_fd)).context("answer the translator")?;
        }
    }
}
