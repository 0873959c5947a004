//! The process of a network's name server: one at a time, started by whoever starts a container and finds none, and gone with
//! the last lease. Answers no questions itself.
//!
//! In the network's folder below the run root: `dns`, whose lock is the server's for as long as it lives, and which says what
//! it was started with; `dns.start`, whose lock belongs to who looks whether there is one; `dns.servers`, who is asked if that
//! has changed since; `dns.world`, the network namespace that the bridge is in, if that has; and `dns.lives`, a socket that nobody
//! accepts anybody at: who is connected sees the server's end.
//!
//! ```text
//!  starter                                  server
//!    │ writes its lease                       │
//!    │ locks dns.start                        │
//!    │ is dns locked?  yes ─▶ done            │
//!    │ no: locks dns, starts husk ──────────▶ │ binds its sockets, writes its port to dns
//!    │ ◀──────────── ready, or why not ────── │ forks, and is alone
//!    │ unlocks dns.start                      ┆
//!    ┆                                        │ no lease left: locks the leases, and looks again
//!    ┆                                        │ closes its sockets, unlocks dns, unlocks the leases, ends
//! ```
//!
//! So no start is lost: a lease that is written before the server's last look keeps it there, and who writes one later finds
//! `dns` unlocked.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use super::server::{Server, Sockets, Wait};
use super::{Config, Guarding, forward};
use crate::cgroups::{Home, Refuge};
use crate::error::{Context, Error, Kind, Result};
use crate::network::egress::{Guard, Means};
use crate::network::firewall::keeper::Seat;
use crate::network::rootless;
use crate::support::atomic;
use crate::support::lock::{Lock, Sharing, open_lock_file};
use crate::sys::clone::Cloned;
use crate::sys::landlock::{self, Handled};
use crate::sys::net::bind_to_device;
use crate::sys::process::exit_now;

const STANDING: &str = "dns";
const START: &str = "dns.start";
const SERVERS: &str = "dns.servers";
const WORLD: &str = "dns.world";
const LIVES: &str = "dns.lives";

/// Bytes of `dns.servers`, and of `dns.world`.
const SERVERS_BYTES: usize = 1 << 16;
const WORLD_BYTES: usize = 32;

/// Monitors that may watch one server; the kernel has it at `net.core.somaxconn` at most.
const WATCHERS: i32 = 4096;

/// Where systemd is found, by who asks it for a scope.
const BUSES: [&str; 3] = ["DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "XDG_RUNTIME_DIR"];

/// Bytes of `dns`.
const LONGEST: u64 = 1 << 20;

/// Where it hears if somebody has taken port 53 of all addresses. Whoever starts it sends the questions there.
const OTHER_PORTS: std::ops::Range<u16> = 10_053..10_063;

/// How long a server may take to end that another takes the place of: five seconds.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
const LOOKS_FOR_END: usize = 2500;

/// Calls that may wait for a connection to be taken.
const BACKLOG: i32 = 64;

/// What `dns` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    #[serde(flatten)]
    pub config: Config,
    /// Where it hears; not yet where there is none.
    pub port: Option<u16>,
}

impl Standing {
    fn guards(&self) -> bool {
        self.config.guarding.is_some()
    }

    /// Whether it has its sockets where the bridge is not any more: with all that held an ordinary user's network namespace that
    /// has gone but for who has sockets there.
    fn is_left_behind(&self, config: &Config) -> bool {
        self.config.world.is_some() && self.config.world != config.world
    }
}

/// A network's name server, as [`ensure`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ensured {
    /// Where it hears; questions are led there if it is not [`PORT`](super::PORT).
    pub port: u16,
    /// The one before it heard elsewhere; the first one of all is expected at [`PORT`](super::PORT).
    pub has_moved: bool,
}

/// Sees to it that a network, whose folder below the run root this is, has a name server. To be called with a
/// lease in the folder, and not while a lock on `dns` is held.
pub fn ensure(folder: BorrowedFd<'_>, config: &Config) -> Result<Ensured> {
    let describe = || format!("start the name server of network {}", config.network);
    // Two who start containers at once wait for each other here, and not for the server's end.
    let starting = open_lock_file(folder, START, OFlags::CREATE).with_context(describe)?;
    let _starting = Lock::wait(starting, Sharing::Exclusive, |_| ()).with_context(describe)?;
    let file = open_lock_file(folder, STANDING, OFlags::CREATE).with_context(describe)?;
    let heard = |standing: Option<Standing>| standing.and_then(|standing| standing.port);
    let mut before = None;
    let mut lock = Lock::try_past_askers(file).with_context(describe)?;
    if lock.is_none()
        && let Some(there) = standing(folder)
    {
        let is_left_behind = there.is_left_behind(config);
        if is_left_behind {
            let world = config.world.map(|world| world.to_string()).unwrap_or_default();
            atomic::replace(folder, WORLD, world.as_bytes()).context("write dns.world").with_context(describe)?;
        }
        if is_left_behind || config.guarding.is_some() && !there.guards() {
            lock = Some(wait_for_end(folder).with_context(describe)?);
        }
    }
    if let Some(lock) = lock {
        if config.world.is_some() {
            // What the one before it was told is not said of this one.
            match rustix::fs::unlinkat(folder, WORLD, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).context("remove dns.world").with_context(describe),
            }
        }
        before = Some(heard(standing(folder)).unwrap_or(forward::PORT));
        start(folder, config, lock).with_context(describe)?;
    }
    let port = heard(standing(folder));
    let port = port.ok_or_else(|| Error::new(Kind::Other, "it does not say where it hears").context(describe()))?;
    Ok(Ensured { port, has_moved: before.is_some_and(|before| before != port) })
}

/// Waits for the end of a server that has given up what it would take to guard a container, which ends once it finds such a one
/// among the leases; or of one that has been told that it was left behind.
fn wait_for_end(folder: BorrowedFd<'_>) -> Result<Lock> {
    for _ in 0..LOOKS_FOR_END {
        let file = open_lock_file(folder, STANDING, OFlags::CREATE)?;
        if let Some(lock) = Lock::try_past_askers(file)? {
            return Ok(lock);
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Err(Error::new(Kind::Other, "the one before it, which cannot do what it takes, does not end"))
}

/// Whether a network's name server lives.
pub fn is_there(folder: BorrowedFd<'_>) -> Result<bool> {
    match open_lock_file(folder, STANDING, OFlags::empty()) {
        Ok(file) => Ok(Lock::try_now(file, Sharing::Shared)?.is_none()),
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads what the network's name server was started with, whether it lives or not.
pub fn standing(folder: BorrowedFd<'_>) -> Option<Standing> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    read(&File::from(rustix::fs::openat(folder, STANDING, flags, Mode::empty()).ok()?)).ok()
}

/// Connects to a network's name server, to be watched: what is given becomes readable when that has ended. `None` where there is
/// none, or none that could be watched.
pub fn watch(folder: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    rustix::net::connect(&socket, &lives(folder).ok()?).ok()?;
    Some(socket)
}

/// Listens for those who watch. To be called with the lock on `dns`.
fn listen(folder: BorrowedFd<'_>) -> Result<OwnedFd> {
    let listen = || -> Result<OwnedFd, Errno> {
        match rustix::fs::unlinkat(folder, LIVES, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&socket, &lives(folder)?)?;
        rustix::net::listen(&socket, WATCHERS)?;
        Ok(socket)
    };
    listen().context("listen for who watches")
}

/// By the folder's descriptor: its path may be longer than an address takes (unix(7): 108 bytes).
fn lives(folder: BorrowedFd<'_>) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{LIVES}", folder.as_raw_fd()))
}

/// Changes who is asked for what the network does not know. Its server hears of that, and so does the next one.
pub fn change_servers(folder: BorrowedFd<'_>, servers: &[IpAddr]) -> Result<()> {
    atomic::replace(folder, SERVERS, &serde_json::to_vec(servers)?).context("write dns.servers")
}

/// Who is asked, if that has changed since the first server was started.
pub(super) fn changed_servers(folder: BorrowedFd<'_>) -> Option<Vec<IpAddr>> {
    serde_json::from_slice(&atomic::read(folder, SERVERS, SERVERS_BYTES).ok()??).ok()
}

/// Whether the bridge of a server that was made in this network namespace is in another by now.
pub(super) fn is_left_behind(folder: BorrowedFd<'_>, world: Option<u64>) -> bool {
    let read = || String::from_utf8(atomic::read(folder, WORLD, WORLD_BYTES).ok()??).ok()?.parse().ok();
    world.is_some() && read().is_some_and(|now: u64| Some(now) != world)
}

fn read(file: &File) -> Result<Standing> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn write(file: BorrowedFd<'_>, standing: &Standing) -> Result<()> {
    let file = File::from(file.try_clone_to_owned()?);
    let bytes = serde_json::to_vec(standing)?;
    file.set_len(0)?;
    Ok(file.write_all_at(&bytes, 0)?)
}

/// Has husk, once more, become the server: this process may have threads, and files open that no process may keep that stays.
/// The lock goes with its descriptor, as that one's standard input, and the folder as its working directory.
fn start(folder: BorrowedFd<'_>, config: &Config, lock: Lock) -> Result<()> {
    write(lock.as_fd(), &Standing { config: config.clone(), port: None }).context("write dns")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("husk").args(["internal", "dns", &config.network]);
    // What the caller has in its environment is nobody's to keep.
    command.env_clear();
    if config.home == Home::Scope {
        command.envs(BUSES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    }
    command.current_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    command.stdin(lock.into_fd()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().context("start husk")?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    Err(Error::new(Kind::Other, if reason.is_empty() { output.status.to_string() } else { reason }))
}

/// Becomes a network's name server, with the lock on `dns` and the network's folder; returns once it is ready, in the process
/// that was called, while the server is a child of it. To be called without threads, and with nothing open that is not
/// needed.
pub fn serve(lock: &Lock, folder: OwnedFd) -> Result<()> {
    let config = read(&File::from(lock.as_fd().try_clone_to_owned()?)).context("read dns")?.config;
    let (sockets, port, means) = match &config.namespaces {
        None => {
            let (sockets, port) = Sockets::open(&config)?;
            let means = config.guarding.as_ref().map(|guarding| Means::open(guarding.group)).transpose()?;
            (sockets, port, means)
        }
        Some(namespaces) => Sockets::open_inside(&config, namespaces)?,
    };
    let ready = Standing { config: config.clone(), port: Some(port) };
    let confined = folder.try_clone()?;
    // An ordinary user's has rights over the rules as the owner of their user namespace (user_namespaces(7)).
    let keeps =
        if means.is_some() && config.namespaces.is_none() { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    let guarding =
        config.guarding.clone().zip(means).map(|(guarding, means)| (guarding, means, config.subnets.clone()));
    let server = Server::new(config, sockets, folder)?;
    let null =
        rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("open /dev/null")?;
    let watched = listen(confined.as_fd())?;
    let refuge = Refuge::prepare(ready.config.home);
    // Who asks from now on is answered in a moment.
    write(lock.as_fd(), &ready).context("write dns")?;
    if let Cloned::Parent(..) = refuge.fork().context("fork the name server")? {
        return Ok(());
    }
    refuge.enter();
    let live = || -> Result<()> {
        let mut server = server;
        if let Some((Guarding { table, .. }, means, subnets)) = guarding {
            // By this process's id, and while it has the right to.
            let seat = Seat::take(networks_of(&confined)?.as_fd())?;
            server.guard(Box::new(Guard::new(means, seat, table, subnets, confined.try_clone()?)));
        }
        live(server, lock, &confined, &null, keeps)
    };
    let answer = live();
    drop(watched);
    let status = match answer {
        Ok(()) => 0,
        // Nobody is there to be told; who needs it starts another.
        Err(_) => 1,
    };
    exit_now(status);
}

/// The folder that has those of all networks.
fn networks_of(folder: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, c"..", flags, Mode::empty()).context("open the networks' folder")
}

/// The server's life, in a process of its own.
fn live(server: Server, lock: &Lock, folder: &OwnedFd, null: &OwnedFd, keeps: CapabilitySet) -> Result<()> {
    rustix::process::setsid().context("start a session")?;
    rustix::process::chdir(c"/").context("leave the folder")?;
    rustix::stdio::dup2_stdout(null)?;
    rustix::stdio::dup2_stderr(null)?;
    let _ = rustix::thread::set_name(c"husk:[dns]");
    give_up_rights(folder.as_fd(), keeps)?;
    let leases = server.run(Wait::Alone)?;
    // Its sockets are closed by now. Who starts another one finds no lock, and who took a lease before that had kept it here.
    lock.release();
    drop(leases);
    Ok(())
}

/// Keeps nothing but the right to read, to talk, to lock the leases and to write into their folder; and of root's rights
/// these.
fn give_up_rights(folder: BorrowedFd<'_>, keeps: CapabilitySet) -> Result<()> {
    /// Rights on files of linux/landlock.h: to execute, to write, remove and make files of every kind.
    const CHANGES: u64 = 1 | 1 << 1 | 0b1_1111_1111 << 4;
    /// To open the leases' lock, and to make it; to write the log of what was refused.
    const LOCK: u64 = 1 << 1 | 1 << 8;
    rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    // A fence behind the others, where the kernel has it.
    if landlock::abi().is_ok() {
        let ruleset = landlock::create_ruleset(&Handled { fs: CHANGES, net: 0, scoped: 0 }).context("confine")?;
        landlock::allow_path(ruleset.as_fd(), LOCK, folder).context("confine")?;
        landlock::restrict_self(ruleset.as_fd(), 0).context("confine")?;
    }
    let sets = CapabilitySets { effective: keeps, permitted: keeps, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).context("drop capabilities")
}

impl Sockets {
    /// Opens the sockets of a network's name server in this network namespace; gives their port.
    pub fn open(config: &Config) -> Result<(Self, u16)> {
        let mut taken = None;
        for port in std::iter::once(forward::PORT).chain(OTHER_PORTS) {
            match Self::open_at(config, port) {
                Ok(sockets) => return Ok((sockets, port)),
                Err(error) if error.errno() == Some(Errno::ADDRINUSE) => taken = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| Error::new(Kind::Other, "no port to hear at")))
    }

    /// Opens them in the namespaces of an ordinary user's networks. To be called without threads.
    fn open_inside(config: &Config, namespaces: &[PathBuf; 2]) -> Result<(Self, u16, Option<Means>)> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| {
            rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
        };
        let [user, network] = namespaces;
        let (user, network) = (open(user)?, open(network)?);
        let gateways = config.gateways.len();
        let guarding = config.guarding.as_ref();
        let count = 2 * gateways + guarding.map_or(0, |_| Means::COUNT);
        let mut opened = rootless::open_inside(user.as_fd(), network.as_fd(), count, || {
            let (sockets, _) = Self::open(config)?;
            let datagrams = sockets.datagrams.into_iter().map(OwnedFd::from);
            let mut all: Vec<OwnedFd> = datagrams.chain(sockets.listeners.into_iter().map(OwnedFd::from)).collect();
            if let Some(guarding) = guarding {
                all.extend(<[OwnedFd; Means::COUNT]>::from(Means::open(guarding.group)?));
            }
            Ok(all)
        })?;
        let means = <[OwnedFd; Means::COUNT]>::try_from(opened.split_off(2 * gateways)).ok().map(Means::from);
        let listeners = opened.split_off(gateways).into_iter().map(TcpListener::from).collect();
        let datagrams: Vec<UdpSocket> = opened.into_iter().map(UdpSocket::from).collect();
        let port = datagrams.first().map(UdpSocket::local_addr).transpose()?.map_or(forward::PORT, |at| at.port());
        Ok((Self { datagrams, listeners }, port, means))
    }

    fn open_at(config: &Config, port: u16) -> Result<Self> {
        let mut sockets = Self::default();
        for gateway in &config.gateways {
            let at = SocketAddr::new(*gateway, port);
            let describe = |kind: &str| format!("hear at {at} ({kind})");
            let interface = config.interface.as_deref();
            let socket = bind(at, SocketType::DGRAM, interface).with_context(|| describe("udp"))?;
            sockets.datagrams.push(UdpSocket::from(socket));
            let socket = bind(at, SocketType::STREAM, interface).with_context(|| describe("tcp"))?;
            rustix::net::listen(&socket, BACKLOG).with_context(|| describe("tcp"))?;
            sockets.listeners.push(TcpListener::from(socket));
        }
        Ok(sockets)
    }
}

/// Binds a socket to an address, and hears what comes by one interface alone: an address of this host is the host's on every
/// interface (RFC 1122, 3.3.4.2, the weak model), and this is no server for whoever has a route to it.
fn bind(at: SocketAddr, kind: SocketType, interface: Option<&str>) -> Result<OwnedFd, Errno> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if let Some(interface) = interface {
        bind_to_device(socket.as_fd(), interface)?;
    }
    // The address may be a moment old, and still looked for on the link (RFC 4862, 5.4).
    match at.ip() {
        IpAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        IpAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    if kind == SocketType::STREAM {
        // Connections of the server before may linger (tcp(7)).
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &at)?;
    Ok(socket)
}
