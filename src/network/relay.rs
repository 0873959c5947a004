//! Relays of published ports: who calls from this host's own loopback address is led to the container here, since the kernel
//! translates no such address. The sockets also keep the ports from others for as long as the container runs.
//!
//! All others are led by the rules of `inet husk`, and never get here: what they say is not copied, and the container sees
//! their address. The sockets are bound to the loopback interface, so that nobody comes to one of them but this host itself,
//! which the container knows as its gateway; whoever calls from elsewhere and is not led by a rule finds nobody.
//!
//! A monitor only holds the sockets. Once somebody calls, a process is forked that attends to all of them, and that ends when
//! it had nobody to attend to for a while: what is not used costs descriptors alone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, connect, getsockname, ipproto,
    listen, recv, send, socket_with, sockopt,
};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::pump::{Pipes, Pump};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::datagram::{self, Received};
use crate::sys::net::bind_to_device;
use crate::sys::process::{close_all_but, exit_now};

/// How long a relay waits for the next caller.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a door is left alone where it could not be attended to.
const REST: Duration = Duration::from_secs(1);

/// How long a caller without a connection is remembered.
const SILENCE: Duration = Duration::from_secs(90);

/// Callers at a time; those behind them wait in the sockets' queues, or are not heard.
const CONNECTIONS: usize = 512;
const CALLERS: usize = 256;

/// Datagrams before it is somebody else's turn.
const TURN: u32 = 64;

const BACKLOG: i32 = 128;

/// It is called so in every network namespace.
const LOOPBACK: &str = "lo";

/// What a relay has open besides its connections, and what one of those takes: two sockets, and a pipe each way.
const OWN_DESCRIPTORS: usize = 64;
const OF_CONNECTION: usize = 6;
const LARGEST_DATAGRAM: usize = 64 << 10;

/// The transport protocols whose ports are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Tcp,
    Udp,
}

/// A port of this host that is a container's.
#[derive(Debug)]
pub struct Door {
    transport: Transport,
    socket: OwnedFd,
    at: IpAddr,
    /// Where it leads.
    to: SocketAddr,
}

impl Door {
    /// Takes a port of this host; 0 for any that is free.
    ///
    /// # Errors
    ///
    /// [`Kind::Exists`]: somebody has it already.
    pub fn open(transport: Transport, at: SocketAddr, to: SocketAddr) -> Result<Self> {
        let describe = || format!("listen on {at}");
        let (kind, protocol) = match transport {
            Transport::Tcp => (SocketType::STREAM, ipproto::TCP),
            Transport::Udp => (SocketType::DGRAM, ipproto::UDP),
        };
        let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, kind, flags, Some(protocol)).with_context(describe)?;
        if at.is_ipv6() {
            // IPv4 has a socket of its own.
            sockopt::set_ipv6_v6only(&socket, true).with_context(describe)?;
        }
        if transport == Transport::Tcp {
            // What the container before has in TIME_WAIT is nobody's.
            sockopt::set_socket_reuseaddr(&socket, true).with_context(describe)?;
        }
        let to_loopback = || bind_to_device(socket.as_fd(), LOOPBACK).with_context(describe);
        // A socket of an interface's can have no IPv6 address of another's. Others are bound to theirs at once: at all addresses
        // and this interface they are in nobody's way who has the same port at another one, such as name servers of bridges.
        let is_of_another = matches!(at.ip(), IpAddr::V6(ip) if !ip.is_unspecified() && !ip.is_loopback());
        if !is_of_another {
            to_loopback()?;
        }
        bind(&socket, &at).map_err(|errno| explain_bind(errno, at))?;
        if is_of_another {
            to_loopback()?;
        }
        if transport == Transport::Udp {
            datagram::tell_destinations(&socket, at.is_ipv6()).with_context(describe)?;
        }
        if transport == Transport::Tcp {
            listen(&socket, BACKLOG).map_err(|errno| explain_bind(errno, at))?;
        }
        Ok(Self { transport, socket, at: at.ip(), to })
    }

    /// Takes a port that the caller has a socket for.
    pub fn take(transport: Transport, socket: BorrowedFd<'_>, at: IpAddr, to: SocketAddr) -> Result<Self> {
        let socket = socket.try_clone_to_owned().context("copy a socket")?;
        let describe = || format!("listen on {at} with a socket that was passed");
        rustix::io::ioctl_fionbio(&socket, true).with_context(describe)?;
        if transport == Transport::Udp {
            let family = sockopt::socket_domain(&socket).with_context(describe)?;
            datagram::tell_destinations(&socket, family == AddressFamily::INET6).with_context(describe)?;
        }
        Ok(Self { transport, socket, at, to })
    }

    /// The port it has.
    pub fn port(&self) -> Result<u16> {
        let address = getsockname(&self.socket).context("ask for a port's number")?;
        SocketAddr::try_from(address).map(|address| address.port()).context("ask for a port's number")
    }
}

fn explain_bind(errno: Errno, at: SocketAddr) -> Error {
    let error = Error::from(errno).context(format!("listen on {at}"));
    match errno {
        Errno::ADDRINUSE => error.with_kind(Kind::Exists),
        Errno::ADDRNOTAVAIL => error.with_hint("no interface of this host has that address"),
        Errno::ACCESS => error.with_hint(
            "ports below net.ipv4.ip_unprivileged_port_start are root's: sysctl net.ipv4.ip_unprivileged_port_start=0",
        ),
        _ => error,
    }
}

/// The doors of one container.
#[derive(Debug, Default)]
pub struct Relay {
    doors: Vec<Door>,
    /// The process that attends to them now.
    child: Option<OwnedFd>,
    /// When the last one could not be started, or failed.
    failed: Option<Instant>,
}

impl Relay {
    /// Adds doors to those that there are.
    pub fn extend(&mut self, doors: impl IntoIterator<Item = Door>) {
        self.dismiss();
        self.doors.extend(doors);
    }

    /// Has the doors lead elsewhere, by the address that each is at and the port that it led to; one that leads nowhere stays as it
    /// is.
    pub fn lead(&mut self, target: impl Fn(IpAddr, u16) -> Option<SocketAddr>) {
        // Who calls by now is with the one before.
        self.dismiss();
        for door in &mut self.doors {
            door.to = target(door.at, door.to.port()).unwrap_or(door.to);
        }
    }

    /// What to wait for, to be read: callers, or the end of who attends to them.
    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // Who could not be attended to waits until something else happens: asked again at once, it would fail at once.
        let rests = self.failed.is_some_and(|failed| failed.elapsed() < REST);
        let doors = if self.child.is_none() && !rests { &self.doors[..] } else { &[] };
        self.child.iter().map(AsFd::as_fd).chain(doors.iter().map(|door| door.socket.as_fd()))
    }

    /// Does what is to be done when one of them is ready.
    pub fn attend(&mut self) -> Result<()> {
        if let Some(child) = &self.child {
            let ended = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            if !matches!(ended, Ok(None)) {
                self.child = None;
                let is_well = matches!(&ended, Ok(Some(status)) if status.exit_status() == Some(0));
                self.failed = (!is_well).then(Instant::now);
            }
            return Ok(());
        }
        let cloned = clone3(CloneFlags::empty(), None);
        self.failed = cloned.is_err().then(Instant::now);
        match cloned.context("start a relay of published ports")? {
            Cloned::Parent(_, pidfd) => self.child = Some(pidfd),
            Cloned::Child => {
                // The next monitor opens the doors anew.
                let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                // Nothing else of the monitor's may be held open by who only carries bytes: the workload would wait for the
                // end of its input.
                let mut kept: Vec<RawFd> = self.doors.iter().map(|door| door.socket.as_raw_fd()).collect();
                if close_all_but(3, &mut kept).is_err() {
                    exit_now(1);
                }
                let most = raise_descriptors();
                let _ = rustix::thread::set_name(c"husk:[ports]");
                exit_now(i32::from(serve(&self.doors, most).is_err()));
            }
        }
        Ok(())
    }

    /// Ends who attends to them.
    fn dismiss(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = pidfd_send_signal(&child, Signal::KILL);
            let _ = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// Takes as many descriptors as it may; gives how many connections there may be by that.
fn raise_descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let limit = if rustix::process::setrlimit(rustix::process::Resource::Nofile, most).is_ok() { most } else { limit };
    let descriptors = limit.current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    (descriptors.saturating_sub(OWN_DESCRIPTORS + CALLERS) / OF_CONNECTION).clamp(1, CONNECTIONS)
}

/// A caller's connection, and the one to the container.
struct Connection {
    caller: OwnedFd,
    callee: OwnedFd,
    is_connected: bool,
    there: Pump,
    back: Pump,
}

impl Connection {
    fn begin(caller: OwnedFd, to: SocketAddr) -> Result<Self, Errno> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let callee = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        match connect(&callee, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        for side in [&caller, &callee] {
            let _ = sockopt::set_tcp_nodelay(side, true);
            let _ = sockopt::set_socket_oobinline(side, true);
        }
        Ok(Self { caller, callee, is_connected: false, there: Pump::default(), back: Pump::default() })
    }

    fn is_over(&self) -> bool {
        self.there.is_done() && self.back.is_done()
    }

    /// What to wait for, of the caller's side and of the container's.
    fn wants(&self) -> [PollFlags; 2] {
        if !self.is_connected {
            return [PollFlags::empty(), PollFlags::OUT];
        }
        let of = |way: &Pump, back: &Pump| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN | PollFlags::PRI, way.wants_input());
            flags.set(PollFlags::OUT, back.wants_room());
            flags
        };
        [of(&self.there, &self.back), of(&self.back, &self.there)]
    }

    fn go_on(&mut self, flags: PollFlags, pipes: &mut Pipes) -> Result<(), Errno> {
        if !self.is_connected {
            sockopt::socket_error(&self.callee)??;
            self.is_connected = true;
        }
        for way in [&mut self.there, &mut self.back] {
            way.may_take();
            way.may_give();
            if flags.contains(PollFlags::PRI) {
                way.may_be_marked();
            }
        }
        self.there.run(&self.caller, &self.callee, pipes)?;
        self.back.run(&self.callee, &self.caller, pipes).map(drop)
    }
}

/// Somebody who sends datagrams: to which door, from where, and to which of this host's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Peer {
    door: usize,
    from: SocketAddr,
    at: IpAddr,
}

/// The socket that stands for them.
struct Caller {
    socket: OwnedFd,
    heard: Instant,
}

/// What a source that is ready belongs to.
#[derive(Clone, Copy)]
enum Source {
    Door(usize),
    Connection(usize),
    Caller(Peer),
}

/// Attends to callers until there have been none for a while.
fn serve(doors: &[Door], most: usize) -> Result<()> {
    let mut connections: Vec<Connection> = Vec::new();
    let mut callers: HashMap<Peer, Caller> = HashMap::new();
    // Where no descriptor is left on this host, nobody is let in for a while.
    let mut deaf_since: Option<Instant> = None;
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    let mut pipes = Pipes::default();
    loop {
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        for (place, door) in doors.iter().enumerate() {
            let has_room = door.transport == Transport::Udp || deaf_since.is_none() && connections.len() < most;
            sources.push(Source::Door(place));
            let wanted = if has_room { PollFlags::IN } else { PollFlags::empty() };
            fds.push(PollFd::new(&door.socket, wanted));
        }
        for (place, connection) in connections.iter().enumerate() {
            for (side, wanted) in [&connection.caller, &connection.callee].into_iter().zip(connection.wants()) {
                // A side that has hung up is ready for ever, asked or not.
                if wanted.is_empty() {
                    continue;
                }
                sources.push(Source::Connection(place));
                fds.push(PollFd::new(side, wanted));
            }
        }
        for (peer, caller) in &callers {
            sources.push(Source::Caller(*peer));
            fds.push(PollFd::new(&caller.socket, PollFlags::IN));
        }
        let timeout = Timespec::try_from(if deaf_since.is_some() { REST } else { PATIENCE }).ok();
        let count = match poll(&mut fds, timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno).context("wait for callers"),
        };
        if count == 0 && connections.is_empty() && callers.is_empty() && deaf_since.is_none() {
            return Ok(());
        }
        deaf_since = deaf_since.filter(|since| since.elapsed() < REST);
        let ready: Vec<(Source, PollFlags)> = sources
            .iter()
            .zip(&fds)
            .map(|(source, fd)| (*source, fd.revents()))
            .filter(|(_, it)| !it.is_empty())
            .collect();
        let mut ended = Vec::new();
        let now = Instant::now();
        for (source, flags) in ready {
            match source {
                Source::Door(place) => {
                    let Some(door) = doors.get(place) else { continue };
                    match door.transport {
                        Transport::Tcp => match accept(door) {
                            Ok(connection) => connections.extend(connection),
                            Err(_) => deaf_since = Some(now),
                        },
                        Transport::Udp => hear(place, door, &mut callers, &mut buffer, now),
                    }
                }
                Source::Connection(place) => {
                    if let Some(connection) = connections.get_mut(place)
                        && (connection.go_on(flags, &mut pipes).is_err() || connection.is_over())
                    {
                        ended.push(place);
                    }
                }
                Source::Caller(peer) => {
                    let (Some(door), Some(caller)) = (doors.get(peer.door), callers.get_mut(&peer)) else { continue };
                    for _ in 0..TURN {
                        let Ok((length, _)) = recv(&caller.socket, &mut buffer[..], RecvFlags::DONTWAIT) else { break };
                        caller.heard = now;
                        let said = buffer.get(..length).unwrap_or_default();
                        let _ = datagram::send(&door.socket, said, peer.from, peer.at);
                    }
                }
            }
        }
        // Both sides of one may have been ready; from the back, so that the places of the others hold.
        ended.dedup();
        for place in ended.into_iter().rev() {
            connections.swap_remove(place);
        }
        callers.retain(|_, caller| now.duration_since(caller.heard) < SILENCE);
    }
}

/// Lets one in; nobody where it has gone again, or where the container does not answer. An error says that there is no room.
fn accept(door: &Door) -> Result<Option<Connection>, Errno> {
    let is_full = |errno: &Errno| matches!(*errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM);
    let accepted = accept_with(&door.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
    match accepted.and_then(|caller| Connection::begin(caller, door.to)) {
        Ok(connection) => Ok(Some(connection)),
        Err(errno) if is_full(&errno) => Err(errno),
        Err(_) => Ok(None),
    }
}

fn hear(place: usize, door: &Door, callers: &mut HashMap<Peer, Caller>, buffer: &mut [u8], now: Instant) {
    for _ in 0..TURN {
        let Received { length, from, at } = match datagram::receive(&door.socket, buffer) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return,
            // An answer that did not get there (ip(7)): the next call says what has come.
            Err(_) => continue,
        };
        let peer = Peer { door: place, from, at };
        if !callers.contains_key(&peer) {
            let Some(caller) = (callers.len() < CALLERS).then(|| call(door.to, now)).and_then(Result::ok) else {
                continue;
            };
            callers.insert(peer, caller);
        }
        if let (Some(caller), Some(said)) = (callers.get_mut(&peer), buffer.get(..length)) {
            caller.heard = now;
            let _ = send(&caller.socket, said, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}

fn call(to: SocketAddr, heard: Instant) -> Result<Caller, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    connect(&socket, &to)?;
    Ok(Caller { socket, heard })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
    use std::thread;

    use super::*;
    use crate::network::tests::in_own_namespace;

    fn local(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn callers_reach_the_container_and_a_port_has_one_owner() {
        let server = TcpListener::bind(local(0)).unwrap();
        let datagrams = UdpSocket::bind(local(0)).unwrap();
        let tcp = Door::open(Transport::Tcp, local(0), server.local_addr().unwrap()).unwrap();
        let udp = Door::open(Transport::Udp, local(0), datagrams.local_addr().unwrap()).unwrap();
        let (at_tcp, at_udp) = (local(tcp.port().unwrap()), local(udp.port().unwrap()));
        for (transport, at) in [(Transport::Tcp, at_tcp), (Transport::Udp, at_udp)] {
            let refused = Door::open(transport, at, at).unwrap_err();
            assert_eq!(refused.kind(), Kind::Exists, "{refused}");
        }
        // In place of the process, which a test with other threads has no place for.
        thread::spawn(move || serve(&[tcp, udp], CONNECTIONS));
        let mut caller = TcpStream::connect(at_tcp).unwrap();
        let (mut callee, _) = server.accept().unwrap();
        let said: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                caller.write_all(&said).unwrap();
                caller.shutdown(Shutdown::Write).unwrap();
            });
            let mut heard = Vec::new();
            callee.read_to_end(&mut heard).unwrap();
            assert!(heard == said, "{} bytes", heard.len());
        });
        // The other way is still open.
        callee.write_all(b"and back").unwrap();
        drop(callee);
        let mut answer = String::new();
        caller.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "and back");

        let sender = UdpSocket::bind(local(0)).unwrap();
        sender.send_to(b"ping", at_udp).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = datagrams.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"ping");
        datagrams.send_to(b"pong", from).unwrap();
        let (length, from) = sender.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"pong"[..], at_udp));
    }

    #[test]
    fn a_door_is_for_this_host_and_in_no_other_s_way() {
        in_own_namespace(|| {
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5353));
            let doors = [Transport::Tcp, Transport::Udp].map(|transport| Door::open(transport, any, any).unwrap());
            // Somebody who hears what comes by another interface alone.
            crate::network::link::make_bridge("husk0", None, &[]).unwrap();
            for kind in [SocketType::STREAM, SocketType::DGRAM] {
                let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).unwrap();
                bind_to_device(socket.as_fd(), "husk0").unwrap();
                bind(&socket, &any).unwrap();
            }
            for (transport, door) in [Transport::Tcp, Transport::Udp].into_iter().zip(&doors) {
                assert_eq!(door.port().unwrap(), 5353);
                assert_eq!(Door::open(transport, any, any).unwrap_err().kind(), Kind::Exists);
                let socket = match transport {
                    Transport::Tcp => TcpListener::bind(any).map(drop),
                    Transport::Udp => UdpSocket::bind(any).map(drop),
                };
                assert!(socket.is_err(), "the port is taken");
            }
        });
    }
}
