//! The user's network process: the translator, and those who ask something of it. Lives as long as somebody is connected or a
//! process that it was told to keep to lives; what it leaves when it is killed, the next one takes over.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::confinement;
use super::control::{self, Answer, LOCK, Publication, Request, SOCKET, Status, Transport};
use super::datagrams::may_ping;
use super::maker::Maker;
use super::state::{self, Holder, Kept, State};
use super::table::{Kind, Table, Token};
use super::translator::{Happened, Policy, Translator};
use super::world::{GATEWAYS, World};
use crate::cgroups::Home;
use crate::error::{Context, Error, Result};
use crate::namespaces::idmap::IdMaps;
use crate::support::lock::{Lock, Sharing};

/// Commands and monitors at once.
const MOST_CLIENTS: usize = 8192;
/// RLIMIT_NOFILE, wanted: a descriptor a connection.
const DESCRIPTORS: u64 = 65_536;
const RLIMIT_NOFILE: u32 = 7;
/// RLIMIT_NPROC, RLIMIT_MEMLOCK, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE.
const KEPT_BY_NAMESPACES: [u32; 4] = [6, 8, 11, 12];
/// While somebody comes as the last has gone.
const AGAIN: Duration = Duration::from_millis(50);

/// What the process is told at its beginning.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Beginning {
    pub(super) maps: IdMaps,
    pub(super) reaches_host: bool,
    pub(super) home: Home,
}

struct Service {
    folder: OwnedFd,
    listener: OwnedFd,
    translator: Translator,
    clients: Table<Client>,
    /// Processes, by their pidfds.
    kept: Table<(OwnedFd, Needs)>,
    user: OwnedFd,
    network: OwnedFd,
    state: State,
    published: Vec<Publication>,
}

/// What a process is for that this one lives as long as.
#[derive(Clone, Copy)]
enum Needs {
    /// It held the namespaces for a process that has died.
    Namespaces(Holder),
    /// It is a container's first.
    Network(Kept),
}

struct Client {
    link: OwnedFd,
    holder: Option<Holder>,
}

/// Becomes the process: `starter` is the socket to whoever started it, its first client, and `ready` tells it
/// that all is made. Returns when nobody needs it.
pub(super) fn run(
    folder: OwnedFd,
    starter: OwnedFd,
    beginning: &Beginning,
    ready: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = State::read(folder.as_fd());
    let (world, kept) = match before.inherit() {
        Some(inherited) => {
            let world = World::adopt(inherited.user, inherited.network.as_ref())?;
            let holders = inherited.holders.into_iter().map(|(holder, pidfd)| (Needs::Namespaces(holder), pidfd));
            let kept = inherited.kept.into_iter().map(|(kept, pidfd)| (Needs::Network(kept), pidfd));
            (world, holders.chain(kept).collect())
        }
        None => (make_world(&beginning.maps)?, Vec::new()),
    };
    let descriptors = raise_limit();
    let policy = Policy { gateways: GATEWAYS, reaches_host: beginning.reaches_host };
    let listener = control::listen(folder.as_fd())?;
    rustix::io::ioctl_fionbio(&listener, true).context("listen for commands")?;
    let mut translator = Translator::new(world.device, policy, descriptors)?;
    if let Ok(maker) = Maker::start(world.user.as_fd(), world.network.as_fd()) {
        translator.carry_by(maker);
    }
    translator.watch(&listener, Token::only(Kind::Control)).context("watch the control socket")?;
    let mut service = Service {
        state: State { user: state::inode(&world.user), network: state::inode(&world.network), ..State::default() },
        published: Vec::new(),
        folder,
        listener,
        translator,
        clients: Table::new(Kind::Client, MOST_CLIENTS),
        kept: Table::new(Kind::User, MOST_CLIENTS),
        user: world.user,
        network: world.network,
    };
    for (needs, pidfd) in kept {
        service.keep(pidfd, needs);
    }
    service.save();
    // Nothing that it does from here on wants more than it has.
    confinement::confine(service.folder.as_fd())?;
    ready()?;
    service.take_client(starter);
    service.serve()
}

/// A user namespace keeps the soft limits of who makes it, for all below it (Linux 5.14): those of the shell that happened to be
/// the first are not to be the containers'.
fn make_world(maps: &IdMaps) -> Result<World> {
    for limit in KEPT_BY_NAMESPACES {
        if let Ok((_, hard)) = crate::sys::process::resource_limit(limit) {
            // Who may not has what it had.
            let _ = crate::sys::process::set_resource_limit(limit, hard, hard);
        }
    }
    World::make(maps)
}

/// Gets as many descriptors as this user may have.
fn raise_limit() -> usize {
    let (soft, hard) = crate::sys::process::resource_limit(RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let wanted = hard.min(DESCRIPTORS).max(soft);
    let got = crate::sys::process::set_resource_limit(RLIMIT_NOFILE, wanted, hard).map_or(soft, |()| wanted);
    usize::try_from(got).unwrap_or(usize::MAX)
}

impl Service {
    fn serve(&mut self) -> Result<()> {
        let mut happened: Vec<Happened> = Vec::new();
        loop {
            let is_used = self.clients.len() + self.kept.len() > 0;
            if !is_used && self.end()? {
                return Ok(());
            }
            self.translator.wait(&mut happened, (!is_used).then_some(AGAIN))?;
            for event in &happened {
                match event.0.kind() {
                    Some(Kind::Control) => self.accept(),
                    Some(Kind::Client) => self.hear(event.0),
                    Some(Kind::User) => self.let_go(event.0),
                    _ => self.translator.handle(*event),
                }
            }
            if self.translator.has_lost_device {
                return Err(Error::new(crate::error::Kind::Other, "the tun device has gone"));
            }
            self.translator.finish_turn();
        }
    }

    /// Ends, unless somebody is about to connect: who does holds the lock meanwhile.
    fn end(&mut self) -> Result<bool> {
        let Some(lock) = Lock::try_file(self.folder.as_fd(), LOCK, Sharing::Exclusive)? else { return Ok(false) };
        self.accept();
        if self.clients.len() > 0 {
            return Ok(false);
        }
        State::remove(self.folder.as_fd());
        let _ = rustix::fs::unlinkat(&self.folder, SOCKET, rustix::fs::AtFlags::empty());
        // Held until the process has gone, and all that it holds with it.
        std::mem::forget(lock);
        Ok(true)
    }

    fn accept(&mut self) {
        loop {
            match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
                // The folder is the user's alone; the number is for those who run with other ids of the user's.
                Ok(link) => self.take_client(link),
                Err(errno) if self.translator.spare.send_away(&self.listener, errno) => {}
                Err(_) => return,
            }
        }
    }

    fn take_client(&mut self, link: OwnedFd) {
        if self.translator.watch(&link, self.clients.next()).is_ok() {
            let _ = self.clients.insert(Client { link, holder: None });
        }
    }

    fn keep(&mut self, pidfd: OwnedFd, needs: Needs) {
        // Whoever takes a container over says so again.
        let is_known = |(_, other): &(OwnedFd, Needs)| match (other, needs) {
            (Needs::Network(one), Needs::Network(other)) => *one == other,
            _ => false,
        };
        if self.kept.iter().any(is_known) || self.translator.watch(&pidfd, self.kept.next()).is_err() {
            return;
        }
        if self.kept.insert((pidfd, needs)).is_ok() {
            match needs {
                Needs::Namespaces(holder) => self.state.holders.push(holder),
                Needs::Network(kept) => self.state.kept.push(kept),
            }
            self.save();
        }
    }

    fn let_go(&mut self, token: Token) {
        match self.kept.remove(token) {
            Some((_, Needs::Namespaces(holder))) => self.no_longer_held_by(holder),
            Some((_, Needs::Network(kept))) => {
                self.state.kept.retain(|other| *other != kept);
                self.save();
            }
            None => {}
        }
    }

    fn no_longer_held_by(&mut self, holder: Holder) {
        self.state.holders.retain(|other| *other != holder);
        self.save();
    }

    /// What cannot be written is missed only after a death.
    fn save(&self) {
        let _ = self.state.save(self.folder.as_fd());
    }

    fn hear(&mut self, token: Token) {
        let Some(client) = self.clients.get(token) else { return };
        let answer = match control::receive::<Request>(&client.link) {
            Ok(Some((request, fd))) => self.answer(token, request, fd),
            Ok(None) => {
                if let Some(Client { holder: Some(holder), .. }) = self.clients.remove(token) {
                    self.no_longer_held_by(holder);
                }
                return;
            }
            Err(error) => Answer::failure(&error),
        };
        let Some(client) = self.clients.get(token) else { return };
        // Who does not take its answer has not asked for much.
        if control::try_send(&client.link, &answer).is_err() {
            self.clients.remove(token);
        }
    }

    fn answer(&mut self, token: Token, request: Request, fd: Option<OwnedFd>) -> Answer {
        use std::os::fd::AsRawFd as _;
        match request {
            Request::Hello => Answer::Welcome {
                pid: std::process::id(),
                user: self.user.as_raw_fd(),
                network: self.network.as_raw_fd(),
            },
            Request::Hold(holder) => {
                if let Some(client) = self.clients.get_mut(token) {
                    client.holder = Some(holder);
                    // One place of a process is enough; what it has had before may be closed.
                    self.state.holders.retain(|other| other.pid != holder.pid);
                    self.state.holders.push(holder);
                    self.save();
                }
                Answer::Done
            }
            Request::Keep(kept) => {
                if let Some(pidfd) = fd {
                    self.keep(pidfd, Needs::Network(kept));
                }
                Answer::Done
            }
            // It has it.
            Request::Publish(publication) if self.published.contains(&publication) => {
                Answer::Published { port: publication.host.port() }
            }
            Request::Publish(publication) => match self.publish(&publication, fd) {
                Ok(port) => {
                    let host = std::net::SocketAddr::new(publication.host.ip(), port);
                    self.published.push(Publication { host, ..publication });
                    Answer::Published { port }
                }
                Err(error) => Answer::failure(&error),
            },
            Request::Know { blocks } => {
                self.translator.know(&blocks);
                Answer::Done
            }
            Request::Withdraw { container } => {
                self.translator.withdraw(&container);
                self.published.retain(|publication| publication.container != container);
                Answer::Done
            }
            Request::Forget { addresses } => {
                self.translator.forget(&addresses);
                Answer::Done
            }
            Request::Status => {
                let (connections, datagram_sockets, published) = self.translator.counts();
                Answer::Status(Status {
                    connections,
                    carried: self.translator.carried(),
                    datagram_sockets,
                    published,
                    kept_by: self.kept.len(),
                    may_ping: may_ping(),
                    dropped: self.translator.dropped(),
                })
            }
        }
    }

    fn publish(&mut self, publication: &Publication, passed: Option<OwnedFd>) -> Result<u16> {
        let Publication { container, transport, host, guest } = publication;
        let describe = || format!("publish {host}/{}", transport.name());
        let socket = match passed {
            Some(socket) => {
                check(&socket, *transport).with_context(describe)?;
                socket
            }
            None => open(*transport, *host).map_err(|errno| self.explain(errno, publication))?,
        };
        rustix::io::ioctl_fionbio(&socket, true).with_context(describe)?;
        let bound = rustix::net::getsockname(&socket).with_context(describe)?;
        let port = super::datagrams::address(bound).map_or(host.port(), |bound| bound.port());
        let is_udp = *transport == Transport::Udp;
        self.translator.publish(container, is_udp, *guest, socket).with_context(describe)?;
        Ok(port)
    }

    fn explain(&self, errno: Errno, publication: &Publication) -> Error {
        let Publication { transport, host, .. } = publication;
        let error = Error::from(errno).context(format!("publish {host}/{}", transport.name()));
        match errno {
            Errno::ACCESS => {
                let first =
                    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
                error.with_hint(format!(
                    "ports below {} are root's: sysctl net.ipv4.ip_unprivileged_port_start={} gives this one to all",
                    first.trim(),
                    host.port()
                ))
            }
            Errno::ADDRINUSE => match self.owner(publication) {
                Some(owner) => error.with_hint(format!("container {owner} has published it")),
                None => error.with_hint(format!("`ss -Hlnp sport = {}` shows whose it is", host.port())),
            },
            _ => error,
        }
    }

    /// Finds the container that has what another wants.
    fn owner(&self, wanted: &Publication) -> Option<&str> {
        let meets = |other: &&Publication| {
            let (one, two) = (other.host, wanted.host);
            let is_everywhere = one.ip().is_unspecified() || two.ip().is_unspecified();
            other.transport == wanted.transport
                && one.port() == two.port()
                && (one.ip() == two.ip() || (is_everywhere && one.is_ipv4() == two.is_ipv4()))
        };
        self.published.iter().find(meets).map(|other| other.container.as_str())
    }
}

/// A socket that somebody hands in is to be of the kind that it is said to be: one that is not would be read for ever.
fn check(socket: &OwnedFd, transport: Transport) -> Result<()> {
    let fits = match transport {
        Transport::Tcp => sockopt::socket_acceptconn(socket).unwrap_or(false),
        Transport::Udp => sockopt::socket_type(socket).is_ok_and(|kind| kind == SocketType::DGRAM),
    };
    let is_internet =
        sockopt::socket_domain(socket).is_ok_and(|family| matches!(family, AddressFamily::INET | AddressFamily::INET6));
    if fits && is_internet {
        return Ok(());
    }
    Err(Error::invalid(format!("the socket that was handed over does not listen for {}", transport.name())))
}

fn open(transport: Transport, host: std::net::SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if transport == Transport::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if host.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if transport == Transport::Tcp {
        // What is left of connections of before is not in the way; whoever listens is.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &host)?;
    if transport == Transport::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// Callers that wait to be accepted; the kernel takes no more than net.core.somaxconn.
const BACKLOG: i32 = 4096;
