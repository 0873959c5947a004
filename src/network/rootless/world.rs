//! The namespaces that all of a user's networks are in, and their way out: a user namespace with the user's ids, a network
//! namespace of it, in that a tun device with a route to everywhere, and forwarding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::device::Gateways;
use super::frame::MTU;
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::idmap::{self, IdMaps};
use crate::namespaces::net_device::{link_body, set_up};
use crate::network::setting;
use crate::runtime::foreground;
use crate::runtime::protocol::{Channel, Message, Tag};
use crate::sys::clone::{CloneFlags, Cloned, clone3, unshare};
use crate::sys::netlink::{Request, Socket};
use crate::sys::process::exit_now;
use crate::sys::{fdpass, net, tun};

/// The device that leads out of the namespace.
pub const DEVICE: &str = "host0";

/// The addresses of the translator, by which containers know the host; and those of the namespace itself. Nothing else of
/// their blocks is taken from the world outside.
pub const GATEWAYS: Gateways =
    Gateways { v4: Ipv4Addr::new(10, 0, 2, 2), v6: Ipv6Addr::new(0xfd00, 0x6875, 0x736b, 0, 0, 0, 0, 2) };
pub(super) const OWN: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 2, 100)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x6875, 0x736b, 0, 0, 0, 0, 0x100))];

/// Numbers of linux/rtnetlink.h, if_link.h, if_addr.h and netlink.h.
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const LINK_MTU: u16 = 4;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_FLAGS: u16 = 8;
const ROUTE_INTERFACE: u16 = 4;
const CREATE_NEW: u16 = 0x400 | 0x200;
const NO_DETECTION: u32 = 0x2;
/// `RT_TABLE_MAIN`, `RTPROT_STATIC`, `RT_SCOPE_LINK`, `RTN_UNICAST`.
const ROUTE_KIND: [u8; 4] = [254, 4, 253, 1];

/// How long a killed process's device may be in the way.
const LEAVING: Duration = Duration::from_millis(10);
const LEAVING_LOOKS: u32 = 100;

/// The namespaces, held by descriptors, and the device.
pub(super) struct World {
    pub(super) user: OwnedFd,
    pub(super) network: OwnedFd,
    pub(super) device: OwnedFd,
}

/// Opens things in the two namespaces, as many as it says, in a child of this process, which has one thread.
pub fn open_inside(
    user: BorrowedFd<'_>,
    network: BorrowedFd<'_>,
    count: usize,
    open: impl FnOnce() -> Result<Vec<OwnedFd>>,
) -> Result<Vec<OwnedFd>> {
    let work = |_: &Channel| enter(user, network).and_then(|()| open());
    in_child(CloneFlags::empty(), count, work, |_, _| Ok(()))
}

impl World {
    /// Makes all of it.
    pub(super) fn make(maps: &IdMaps) -> Result<Self> {
        let flags = CloneFlags::NEWUSER | CloneFlags::NEWNET;
        let answers = in_child(
            flags,
            3,
            |channel| {
                channel.expect(Tag::MapsWritten)?;
                become_root()?;
                Ok(vec![open_namespace("user")?, open_namespace("net")?, set_up_namespace()?])
            },
            |channel, pid| idmap::write(pid, maps).and_then(|()| channel.send(Tag::MapsWritten)),
        )?;
        let [user, network, device] = <[OwnedFd; 3]>::try_from(answers).map_err(|_| ended_early())?;
        Ok(Self { user, network, device })
    }

    /// Makes the way out anew in namespaces that another's death has left; the network namespace, too, where that has gone.
    pub(super) fn adopt(user: OwnedFd, network: Option<&OwnedFd>) -> Result<Self> {
        let answers = in_child(
            CloneFlags::empty(),
            2,
            |_| {
                let network = if let Some(network) = network {
                    enter(user.as_fd(), network.as_fd())?;
                    network.try_clone().context("copy a descriptor")?
                } else {
                    enter_user(user.as_fd())?;
                    become_root()?;
                    unshare(CloneFlags::NEWNET).context("make a network namespace")?;
                    open_namespace("net")?
                };
                Ok(vec![network, set_up_namespace()?])
            },
            |_, _| Ok(()),
        )?;
        let [network, device] = <[OwnedFd; 2]>::try_from(answers).map_err(|_| ended_early())?;
        Ok(Self { user, network, device })
    }
}

fn ended_early() -> Error {
    Error::new(Kind::Other, "the process in the network namespace ended early")
}

/// Moves this process, which has one thread, into the two namespaces.
pub(super) fn enter(user: BorrowedFd<'_>, network: BorrowedFd<'_>) -> Result<()> {
    enter_user(user)?;
    move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
        .context("join the network namespace of rootless networks")
}

fn enter_user(user: BorrowedFd<'_>) -> Result<()> {
    match move_into_link_name_space(user, Some(LinkNameSpaceType::User)) {
        // Nobody enters the one that he is in (setns(2)).
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno).context("join the user namespace of rootless networks"),
    }
}

fn become_root() -> Result<()> {
    let (uid, gid) = (rustix::thread::Uid::ROOT, rustix::thread::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).context("become group 0 of the user namespace")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("become user 0 of the user namespace")
}

fn open_namespace(kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/self/ns/{kind}");
    rustix::fs::open(&*path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(|| format!("open {path}"))
}

/// Has a child of this process, in namespaces of its own, do something that ends in descriptors.
fn in_child(
    flags: CloneFlags,
    count: usize,
    work: impl FnOnce(&Channel) -> Result<Vec<OwnedFd>>,
    prepare: impl FnOnce(&Channel, rustix::process::Pid) -> Result<()>,
) -> Result<Vec<OwnedFd>> {
    let (channel, their_channel) = Channel::pair()?;
    let (here, there) = fdpass::pair().context("make a pair of sockets")?;
    match clone3(flags, None).map_err(explain)? {
        Cloned::Child => {
            drop((channel, here));
            let send = |fds: Vec<OwnedFd>| {
                fds.iter().try_for_each(|fd| fdpass::send(&there, &[b"."], Some(fd.as_fd())).context("hand over"))
            };
            match work(&their_channel).and_then(send).and_then(|()| their_channel.send(Tag::Ready)) {
                Ok(()) => exit_now(0),
                Err(error) => {
                    their_channel.send_failure(&error);
                    exit_now(1)
                }
            }
        }
        Cloned::Parent(pid, pidfd) => {
            drop((their_channel, there));
            let answer = prepare(&channel, pid).and_then(|()| channel.receive());
            drop(channel);
            let mut fds = Vec::with_capacity(count);
            if matches!(answer, Ok(Some(Message::Ready))) {
                for _ in 0..count {
                    fds.extend(fdpass::receive(&here, &mut [0]).context("take over")?.1);
                }
            }
            drop(here);
            foreground::wait(pidfd.as_fd())?;
            match answer? {
                Some(Message::Ready) => Ok(fds),
                Some(Message::Failed(error)) => Err(error),
                _ => Err(ended_early()),
            }
        }
    }
}

fn explain(errno: Errno) -> Error {
    Error::from(errno).context("make a user namespace with a network namespace").with_hint(
        "this host may forbid them to ordinary users (sysctl kernel.apparmor_restrict_unprivileged_userns, \
         user.max_user_namespaces, user.max_net_namespaces)",
    )
}

/// In the namespace: the loopback, the device, its addresses and routes, and forwarding.
fn set_up_namespace() -> Result<OwnedFd> {
    net::bring_up_loopback().context("bring up the loopback interface")?;
    let device = make_device().map_err(|errno| {
        let error = Error::from(errno).context(format!("make the tun device {DEVICE}"));
        error.with_hint("rootless networks need /dev/net/tun (`modprobe tun`; in a container, --device /dev/net/tun)")
    })?;
    let socket = Socket::open().context("open a netlink socket")?;
    let describe = || format!("set up {DEVICE}");
    let index = socket.index_of(DEVICE).with_context(describe)?;
    let request = Request::act(NEW_LINK, &link_body(index, 0, 0))
        .attribute(LINK_MTU, &u32::from(MTU).to_ne_bytes())
        .with_context(describe)?;
    socket.call(request, |_| ()).with_context(describe)?;
    socket.call(set_up(index, true), |_| ()).with_context(describe)?;
    for (address, sysctl) in OWN.into_iter().zip(FORWARDING) {
        match add_way_out(&socket, index, address) {
            // This host does without IPv6.
            Err(Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::ACCESS | Errno::PERM) if address.is_ipv6() => continue,
            answer => answer.with_context(|| format!("give {address} to {DEVICE}"))?,
        }
        set(sysctl, "1")?;
    }
    Ok(device)
}

/// That of a process which was just killed may take a moment to go.
fn make_device() -> Result<OwnedFd, Errno> {
    for _ in 0..LEAVING_LOOKS {
        match tun::create(DEVICE) {
            Err(Errno::BUSY) => std::thread::sleep(LEAVING),
            answer => return answer,
        }
    }
    Err(Errno::BUSY)
}

fn add_way_out(socket: &Socket, index: u32, address: IpAddr) -> Result<(), Errno> {
    let (family, length, octets) = match address {
        IpAddr::V4(address) => (2, 32, address.octets().to_vec()),
        IpAddr::V6(address) => (10, 128, address.octets().to_vec()),
    };
    let mut body = [family, length, 0, 0, 0, 0, 0, 0];
    body[4..].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::act(NEW_ADDRESS, &body).with_flags(CREATE_NEW).attribute(ADDRESS_LOCAL, &octets)?;
    if address.is_ipv6() {
        request = request.attribute(ADDRESS_FLAGS, &NO_DETECTION.to_ne_bytes())?;
    }
    socket.call(request, |_| ())?;
    let mut body = [0; 12];
    body[0] = family;
    body[4..8].copy_from_slice(&ROUTE_KIND);
    let request =
        Request::act(NEW_ROUTE, &body).with_flags(CREATE_NEW).attribute(ROUTE_INTERFACE, &index.to_ne_bytes())?;
    socket.call(request, |_| ())
}

const FORWARDING: [&str; 2] = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];

/// Writes a setting of this process's network namespace, unless it has that value.
pub(super) fn set(setting: &str, value: &str) -> Result<()> {
    let path = Path::new(setting);
    let write = || match setting::read(path)? {
        known if known == value => Ok(()),
        _ => setting::write(path, value),
    };
    write().map_err(|error| {
        let error = Error::from(error).context(format!("write {value} to {setting}"));
        error.with_hint("where /proc/sys is read-only, as in a container of docker, --privileged or a writable /proc/sys/net is needed")
    })
}
