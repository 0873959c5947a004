//! One network's name server: hears its containers, over datagrams and connections, answers what the network knows, and has
//! others asked for the rest. Hears nobody else, keeps no more than so much for anybody, and sleeps while nobody asks.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::forward::{self, Forwarder, Outcome, Taken, Waiter};
use super::message::{self, Code, Explanation, Query, Unfit, kind};
use super::name::Name;
use super::neighbours::Neighbours;
use super::process;
use super::zone::{Facts, Found, LIFE, Zone};
use super::{Asker, Config, Egress, Origin};
use crate::error::{Context, Result};
use crate::network::lease::Leases;
use crate::sys::memory;

/// Connections at a time, and those of one container.
const CONNECTIONS: usize = 64;
const CONNECTIONS_OF_ONE: usize = 8;

/// How long a connection may take for a message, in either direction, and be idle (RFC 7766, 6.2.3: seconds).
const PATIENCE: Duration = Duration::from_secs(10);

/// Longer questions than this, nobody asks.
const QUESTION: usize = 4096;

/// What is taken from one socket before the others have their turn.
const AT_ONCE: usize = 64;

/// How long nobody is let in once descriptors have run out.
const NO_ROOM: Duration = Duration::from_secs(1);

/// What comes within this time of each other finds memory as it was.
const BUSY: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Where a server hears: sockets that are bound, and listen.
#[derive(Debug, Default)]
pub struct Sockets {
    pub datagrams: Vec<UdpSocket>,
    pub listeners: Vec<TcpListener>,
}

/// How a server waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It is a process with nothing else to do, and gives its memory back.
    Alone,
    /// It is a thread of something else.
    Thread,
}

/// A network's name server.
pub struct Server {
    sockets: Sockets,
    folder: OwnedFd,
    changes: OwnedFd,
    config: Config,
    zone: Zone,
    neighbours: Neighbours,
    forwarder: Forwarder<Way>,
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
    deaf_until: Option<Instant>,
    egress: Option<Box<dyn Egress>>,
    is_left_behind: bool,
}

/// The way back to who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Datagram { socket: usize, to: SocketAddr },
    Connection(u64),
}

struct Stream {
    socket: TcpStream,
    client: IpAddr,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// A question of its is under way: the next one is read when that is answered.
    is_waiting: bool,
    deadline: Instant,
}

/// What has something to say.
#[derive(Clone, Copy, Debug)]
enum Source {
    Changes,
    Datagrams(usize),
    Listener(usize),
    Stream(u64),
    Server(u64, usize),
    Egress,
}

impl Server {
    /// Takes sockets that are ready, wherever they were made, and the network's folder below the run root, in which its
    /// leases are.
    pub fn new(config: Config, sockets: Sockets, folder: OwnedFd) -> Result<Self> {
        let network = config.answers_names.then(|| Name::parse(&config.network)).flatten();
        let network = network.map(|name| name.folded());
        let facts = Facts { network, gateways: config.gateways.clone(), subnets: config.subnets.clone() };
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("watch the leases")?;
        let flags = WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        inotify::add_watch(&changes, format!("/proc/self/fd/{}", folder.as_raw_fd()), flags)
            .context("watch the leases")?;
        for socket in &sockets.datagrams {
            socket.set_nonblocking(true)?;
        }
        for socket in &sockets.listeners {
            socket.set_nonblocking(true)?;
        }
        let mut zone = Zone::new(facts);
        zone.refresh(folder.as_fd())?;
        let upstreams = process::changed_servers(folder.as_fd()).unwrap_or(config.upstreams);
        let config = Config { upstreams, ..config };
        Ok(Self {
            forwarder: Forwarder::new(config.resolv_conf.clone(), config.gateways.clone()),
            neighbours: Neighbours::of(&folder),
            sockets,
            folder,
            changes,
            config,
            zone,
            streams: BTreeMap::new(),
            next_stream: 0,
            deaf_until: None,
            egress: None,
            is_left_behind: false,
        })
    }

    /// Has somebody say which names guarded containers may ask for, and hear of what is answered. Without it, it ends once
    /// there is such a container: for another, that guards it.
    pub fn guard(&mut self, egress: Box<dyn Egress>) {
        self.egress = Some(egress);
    }

    /// Serves until the network has no leases any more. What is given is their lock: whoever gets it next finds no server,
    /// once what else says that there is one is gone. `None`: nobody can get it, for the network itself is gone; or another
    /// server is to take the place of this one.
    pub fn run(mut self, wait: Wait) -> Result<Option<Leases>> {
        loop {
            let guards = self.egress.as_ref().is_some_and(|egress| !egress.is_shut_out());
            if self.is_left_behind || !guards && self.zone.has_guarded() {
                return Ok(None);
            }
            if self.zone.is_empty() {
                // The network's folder has gone, with all that was in it.
                let Ok(leases) = Leases::open(self.folder.as_fd()) else { return Ok(None) };
                if leases.all().is_empty() {
                    return Ok(Some(leases));
                }
                // It has come after the look, and before the lock.
                self.refresh();
            }
            self.turn(wait)?;
        }
    }

    /// Waits for something, and does what it takes.
    fn turn(&mut self, wait: Wait) -> Result<()> {
        let now = Instant::now();
        let mut sources = vec![(Source::Changes, self.changes.as_fd(), PollFlags::IN)];
        if let Some(egress) = &self.egress {
            sources.push((Source::Egress, egress.descriptor(), PollFlags::IN));
        }
        for (index, socket) in self.sockets.datagrams.iter().enumerate() {
            sources.push((Source::Datagrams(index), socket.as_fd(), PollFlags::IN));
        }
        if self.deaf_until.is_none_or(|until| until <= now) {
            self.deaf_until = None;
            for (index, socket) in self.sockets.listeners.iter().enumerate() {
                sources.push((Source::Listener(index), socket.as_fd(), PollFlags::IN));
            }
        }
        for (number, stream) in &self.streams {
            let flags = match (stream.unsent.is_empty(), stream.is_waiting) {
                (false, _) => PollFlags::OUT,
                // Its end is seen all the same (POLLHUP, POLLERR).
                (true, true) => PollFlags::empty(),
                (true, false) => PollFlags::IN,
            };
            sources.push((Source::Stream(*number), stream.socket.as_fd(), flags));
        }
        for (number, index, fd, flags) in self.forwarder.sources() {
            sources.push((Source::Server(number, index), fd, flags));
        }
        let streams = self.streams.values().map(|stream| stream.deadline).min();
        let deadline = [self.forwarder.deadline(), streams, self.deaf_until].into_iter().flatten().min();
        let timeout = deadline.map(|deadline| time(deadline.saturating_duration_since(now)));
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        match wait_for(&mut fds, timeout, wait) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno).context("wait for questions"),
        }
        let ready: Vec<Source> = std::iter::zip(&sources, &fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|((source, ..), _)| *source)
            .collect();
        drop(fds);
        drop(sources);
        self.hear(&ready);
        self.keep_time(Instant::now());
        Ok(())
    }

    fn hear(&mut self, ready: &[Source]) {
        let mut servers: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for source in ready {
            match source {
                Source::Changes => {
                    let mut bytes = [std::mem::MaybeUninit::uninit(); 4096];
                    let mut events = inotify::Reader::new(&self.changes, &mut bytes);
                    while events.next().is_ok() {}
                    self.refresh();
                    if let Some(servers) = process::changed_servers(self.folder.as_fd()) {
                        self.config.upstreams = servers;
                    }
                    self.is_left_behind = process::is_left_behind(self.folder.as_fd(), self.config.world);
                }
                Source::Datagrams(index) => self.hear_datagrams(*index),
                Source::Listener(index) => self.let_in(*index),
                Source::Stream(number) => self.hear_stream(*number),
                Source::Egress => {
                    if let Some(egress) = &mut self.egress {
                        egress.hear(&|address| self.zone.container(address).map(|(id, _)| id.to_owned()));
                    }
                }
                Source::Server(number, index) => servers.entry(*number).or_default().push(*index),
            }
        }
        let now = Instant::now();
        for (number, indices) in servers {
            if let Some((waiters, outcome)) = self.forwarder.hear(number, &indices, now) {
                self.tell(waiters, &outcome);
            }
        }
    }

    fn keep_time(&mut self, now: Instant) {
        for (waiters, outcome) in self.forwarder.keep_time(now) {
            self.tell(waiters, &outcome);
        }
        let late: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| stream.deadline <= now).map(|(number, _)| *number).collect();
        for number in late {
            self.drop_stream(number);
        }
    }

    /// What cannot be read now is as it was: the names of those who are there are the better answer.
    fn refresh(&mut self) {
        let _ = self.zone.refresh(self.folder.as_fd());
    }

    fn hear_datagrams(&mut self, index: usize) {
        let mut bytes = [0; QUESTION];
        for _ in 0..AT_ONCE {
            let Some(socket) = self.sockets.datagrams.get(index) else { return };
            let (length, to) = match socket.recv_from(&mut bytes) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An earlier answer did not get there (ip(7)): the next call says what has come.
                Err(_) => continue,
            };
            // Cut off, it would not be whole.
            if length < bytes.len()
                && let Some(question) = bytes.get(..length)
            {
                self.answer(Way::Datagram { socket: index, to }, to.ip(), question);
            }
        }
    }

    fn let_in(&mut self, index: usize) {
        for _ in 0..AT_ONCE {
            let Some(listener) = self.sockets.listeners.get(index) else { return };
            let (socket, client) = match listener.accept() {
                Ok((socket, address)) => (socket, address.ip()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        self.deaf_until = Some(Instant::now() + NO_ROOM);
                        return;
                    }
                    // It has gone again (accept(2)).
                    _ => continue,
                },
            };
            let of_client = self.streams.values().filter(|stream| stream.client == client).count();
            if !self.zone.contains(client) || of_client >= CONNECTIONS_OF_ONE || socket.set_nonblocking(true).is_err() {
                continue;
            }
            if self.streams.len() >= CONNECTIONS {
                let idlest = self.streams.iter().min_by_key(|(_, stream)| (stream.is_waiting, stream.deadline));
                if let Some(number) = idlest.map(|(number, _)| *number) {
                    self.drop_stream(number);
                }
            }
            self.next_stream += 1;
            let stream = Stream {
                socket,
                client,
                received: Vec::new(),
                unsent: Vec::new(),
                is_waiting: false,
                deadline: Instant::now() + PATIENCE,
            };
            self.streams.insert(self.next_stream, stream);
        }
    }

    fn drop_stream(&mut self, number: u64) {
        if self.streams.remove(&number).is_some_and(|stream| stream.is_waiting) {
            self.forwarder.forget(&Way::Connection(number));
        }
    }

    /// Reads what has come over a connection, and writes what there was no room for.
    fn hear_stream(&mut self, number: u64) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        if !stream.unsent.is_empty() {
            return self.write(number);
        }
        let mut bytes = [0; QUESTION];
        match stream.socket.read(&mut bytes) {
            Ok(0) => self.drop_stream(number),
            Ok(count) if !stream.is_waiting && stream.received.len() + count <= 2 * QUESTION => {
                stream.received.extend_from_slice(bytes.get(..count).unwrap_or_default());
                self.take_questions(number);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.drop_stream(number),
        }
    }

    /// Answers the questions that have come over a connection, one after the other.
    fn take_questions(&mut self, number: u64) {
        loop {
            let Some(stream) = self.streams.get_mut(&number) else { return };
            if stream.is_waiting || !stream.unsent.is_empty() {
                return;
            }
            let Some(length) =
                stream.received.get(..2).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
            else {
                return;
            };
            if length > QUESTION {
                return self.drop_stream(number);
            }
            if stream.received.len() < 2 + length {
                return;
            }
            let question: Vec<u8> = stream.received.drain(..2 + length).skip(2).collect();
            stream.is_waiting = true;
            let client = stream.client;
            self.answer(Way::Connection(number), client, &question);
        }
    }

    fn write(&mut self, number: u64) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        match stream.socket.write(&stream.unsent) {
            Ok(count) => {
                stream.unsent.drain(..count);
                if stream.unsent.is_empty() {
                    stream.unsent = Vec::new();
                    stream.deadline = Instant::now() + PATIENCE;
                    self.take_questions(number);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.drop_stream(number),
        }
    }

    /// Sends an answer on its way; it may be none (see [`Unfit::Silence`]).
    fn send(&mut self, way: &Way, answer: &[u8]) {
        match way {
            // Who does not read loses it, as on any way.
            Way::Datagram { socket, to } => {
                if let Some(socket) = self.sockets.datagrams.get(*socket) {
                    let _ = socket.send_to(answer, to);
                }
            }
            Way::Connection(number) => {
                let Some(stream) = self.streams.get_mut(number) else { return };
                stream.is_waiting = false;
                stream.deadline = Instant::now() + PATIENCE;
                let Ok(length) = u16::try_from(answer.len()) else { return };
                stream.unsent = [&length.to_be_bytes()[..], answer].concat();
                self.write(*number);
            }
        }
    }

    /// Answers a message, or has somebody asked.
    fn answer(&mut self, way: Way, client: IpAddr, message: &[u8]) {
        if !self.zone.contains(client) {
            return self.leave(&way);
        }
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Unfit::Answer(answer)) => return self.send(&way, &answer),
            Err(Unfit::Silence) => return self.leave(&way),
        };
        if query.is_of_the_future() {
            return self.reply(&way, &query, Code::BadVers, None);
        }
        if query.question.class != message::IN || [kind::AXFR, kind::IXFR].contains(&query.question.kind) {
            return self.reply(&way, &query, Code::Refused, None);
        }
        self.refresh();
        // Sources are pinned to leases, so there is nobody else but who has just gone.
        let Some((id, lease)) = self.zone.container(client) else {
            return self.reply(&way, &query, Code::Refused, Some(Explanation::Prohibited));
        };
        let (id, resolvers) = (id.to_owned(), lease.resolvers.clone());
        let asker = self.asker(client);
        let found = if self.config.answers_names { self.zone.find(&query.question.name) } else { Found::Foreign };
        let found = match found {
            Found::Foreign | Found::Nothing { .. } => {
                let elsewhere = self.neighbours.find(&id, &query.question.name);
                elsewhere.unwrap_or(found)
            }
            found => found,
        };
        match found {
            Found::Foreign => self.forward(way, client, &id, &resolvers, query),
            Found::Addresses(addresses)
                if asker.as_ref().is_some_and(|asker| !self.opens(asker, &query, &addresses)) =>
            {
                self.reply(&way, &query, Code::NxDomain, Some(Explanation::Blocked));
            }
            found => {
                let answer = own(&query, found, limit(&way, &query));
                self.send(&way, &answer);
            }
        }
    }

    /// Has other servers asked, where who asks may ask them.
    fn forward(&mut self, way: Way, client: IpAddr, id: &str, resolvers: &[IpAddr], query: Query) {
        if !query.wants_recursion() {
            return self.reply(&way, &query, Code::Refused, None);
        }
        let given = if resolvers.is_empty() { &self.config.upstreams } else { resolvers };
        let mut servers: Vec<SocketAddr> = given.iter().map(|address| (*address, forward::PORT).into()).collect();
        // CVE-2024-29018: a resolver in the host's namespace is a way out of a network that has none, but to servers that are
        // in that network themselves.
        if self.config.is_internal && !self.neighbours.lead_out(id) {
            servers.retain(|server| self.zone.contains(server.ip()));
            if servers.is_empty() {
                return self.reply(&way, &query, Code::NxDomain, Some(Explanation::Prohibited));
            }
        }
        if let Some(asker) = self.asker(client)
            && !self.allows(&asker, &query)
        {
            return self.reply(&way, &query, Code::NxDomain, Some(Explanation::Blocked));
        }
        let over_tcp = matches!(way, Way::Connection(_));
        let waiter = Waiter { way, client, owner: id.into(), query };
        match self.forwarder.take(waiter, &servers, over_tcp, Instant::now()) {
            Taken::Now(waiter, outcome) => self.tell(vec![waiter], &outcome),
            Taken::Later => {}
        }
    }

    /// Tells those who wait what has become of their question.
    fn tell(&mut self, waiters: Vec<Waiter<Way>>, outcome: &Outcome) {
        for Waiter { way, client, query, .. } in waiters {
            let Outcome::Answer(answer, age) = outcome else {
                self.reply(&way, &query, Code::ServFail, Some(Explanation::NoReachable));
                continue;
            };
            // First the way is opened, then it is shown; and for as long as it is open.
            let mut most = u32::MAX;
            if let Some(asker) = self.asker(client) {
                // The world does not say who is next door.
                let lives: Vec<(IpAddr, u32)> = answer
                    .addresses()
                    .filter(|(address, _)| !self.neighbours.have(&asker.id, *address))
                    .map(|(address, life)| (address, life.saturating_sub(*age)))
                    .collect();
                let Some(open) = self.teaches(&asker, &query, &lives, Origin::World) else {
                    self.reply(&way, &query, Code::ServFail, None);
                    continue;
                };
                most = open;
            }
            let answer = query.pass_on(answer, *age, most, limit(&way, &query));
            self.send(&way, &answer);
        }
    }

    /// Who asks, if it may not reach everything.
    fn asker(&mut self, client: IpAddr) -> Option<Asker> {
        let (id, lease) = self.zone.container(client)?;
        let allow = lease.egress.as_ref()?.allow.clone();
        let (id, mut addresses) = (id.to_owned(), lease.addresses.clone());
        addresses.extend(self.neighbours.addresses(&id));
        Some(Asker { id, allow, addresses })
    }

    /// Without a guard, nothing is allowed.
    fn allows(&mut self, asker: &Asker, query: &Query) -> bool {
        self.egress.as_mut().is_some_and(|egress| egress.allows(asker, &query.question.name.to_string()))
    }

    /// For how many seconds; `None` where it was not possible.
    fn teaches(&mut self, asker: &Asker, query: &Query, lives: &[(IpAddr, u32)], origin: Origin) -> Option<u32> {
        let name = query.question.name.to_string();
        self.egress.as_mut()?.answers(asker, &name, lives, origin).ok()
    }

    /// Opens the way to what a name of the container's networks stands for, if it may be asked for. To itself there is none.
    fn opens(&mut self, asker: &Asker, query: &Query, addresses: &[IpAddr]) -> bool {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        if addresses.iter().all(|address| loopback.contains(address) || asker.addresses.contains(address)) {
            return true;
        }
        let lives: Vec<(IpAddr, u32)> = addresses.iter().map(|address| (*address, LIFE)).collect();
        self.allows(asker, query) && self.teaches(asker, query, &lives, Origin::Network).is_some()
    }

    fn reply(&mut self, way: &Way, query: &Query, code: Code, explanation: Option<Explanation>) {
        let mut reply = query.reply(code);
        if let Some(explanation) = explanation {
            reply = reply.explained(explanation);
        }
        let answer = reply.finish(limit(way, query));
        self.send(way, &answer);
    }

    /// Says nothing.
    fn leave(&mut self, way: &Way) {
        if let Way::Connection(number) = way {
            self.drop_stream(*number);
        }
    }
}

/// The longest answer that the way back takes.
fn limit(way: &Way, query: &Query) -> usize {
    match way {
        Way::Datagram { .. } => query.datagram(),
        Way::Connection(_) => message::LONGEST,
    }
}

/// Writes what the network itself knows.
fn own(query: &Query, found: Found, limit: usize) -> Vec<u8> {
    let wanted = query.question.kind;
    let (code, labels) = match found {
        Found::Nothing { labels } => (Code::NxDomain, labels),
        _ => (Code::NoError, 0),
    };
    let mut reply = query.reply(code).authoritative();
    let mut is_empty = true;
    match found {
        Found::Addresses(addresses) => {
            for address in addresses {
                let own = if address.is_ipv4() { kind::A } else { kind::AAAA };
                if [own, kind::ANY].contains(&wanted) {
                    reply.address(address, LIFE);
                    is_empty = false;
                }
            }
        }
        Found::Pointer(name) if [kind::PTR, kind::ANY].contains(&wanted) => {
            reply.pointer(&name, LIFE);
            is_empty = false;
        }
        Found::Pointer(_) | Found::Nothing { .. } | Found::Foreign => {}
    }
    // A name that has no such addresses is a name all the same: "no such name" would have the C library of Alpine Linux not
    // look at the other family's (RFC 8020, and https://www.openwall.com/lists/musl/2021/07/19/8).
    if is_empty {
        reply.nothing_for(LIFE, labels);
    }
    reply.finish(limit)
}

fn time(duration: Duration) -> Timespec {
    // Rounded up, so that the time has come when it has passed.
    let duration = duration + Duration::from_millis(1);
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

/// Waits as poll(2) does; alone, and once nothing has come for a moment, with little memory.
fn wait_for(fds: &mut [PollFd<'_>], timeout: Option<Timespec>, wait: Wait) -> Result<usize, Errno> {
    let is_soon = |timeout: &Timespec| (timeout.tv_sec, timeout.tv_nsec) <= (BUSY.tv_sec, BUSY.tv_nsec);
    if wait == Wait::Thread || timeout.as_ref().is_some_and(is_soon) {
        return poll(fds, timeout.as_ref());
    }
    match poll(fds, Some(&BUSY))? {
        0 => memory::wait_released(fds, timeout.and_then(|timeout| timeout.checked_sub(BUSY)).as_ref()),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests;
