//! Packets of the user's network namespace on one side, sockets of the host on the other: who gets what, in turns.
//!
//! A turn: what epoll says is dealt with, packets are read until there are no more or the turn is over, and then each
//! connection that something happened to is served once: so acknowledgements and looks at sockets are one for many segments.
//! Where nothing happens, nothing wakes: the only timers are of what waits for an answer or grows old.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, sockopt};

use super::carriage::{self, Carriage};
use super::datagrams::{Datagrams, Outgoing, Protocol, address, obstacle, outside, seen_as};
use super::device::{Device, Dropped, Gateways};
use super::early::Early;
use super::frame::{Header, MTU};
use super::host::{Numbers, Socket, interest, open_connection};
use super::maker::Maker;
use super::packet::{self, ACK, Content, OFFLOAD_HEADER, Packet, RST, SYN, Segment};
use super::shares::Shares;
use super::spare::Spare;
use super::table::{Kind, Table, Token};
use super::tcp::{Connection, Host, Served, State, Wire};
use super::world::OWN;
use crate::error::{Context, Result};
use crate::network::cidr::Cidr;
use crate::network::pump::Pipes;
use crate::sys::memory;
use crate::sys::repair::Standing;

/// Packets that are read before connections are served.
const READS: usize = 32;
/// Callers that one listener accepts before others have their turn.
const ACCEPTS: usize = 32;
const EVENTS: usize = 64;

/// Descriptors that are not the translator's connections.
const SPARE_DESCRIPTORS: usize = 512;
const MOST_STREAMS: usize = 16_384;
const MOST_DATAGRAMS: usize = 4096;
const MOST_LISTENERS: usize = 4096;
const MOST_BLOCKS: usize = 1024;
/// Connections that are carried: of each the second socket, and a pipe each way that may have something in it.
const MOST_CARRIED: usize = 1024;
const OF_CARRIED: usize = 5;

/// Ports for callers whose own is taken (RFC 6335: dynamic).
const DYNAMIC: u16 = 49_152;

/// What a translator is told at its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) gateways: Gateways,
    /// The gateway's address leads containers to the host's loopback.
    pub(super) reaches_host: bool,
}

/// A connection and its socket.
struct Stream {
    connection: Connection,
    socket: Socket,
    course: Course,
    /// The earliest timer of it that will go off.
    armed: Option<Instant>,
    /// The kernel was asked to say when there is room.
    awaits_room: bool,
}

/// Who goes on with a connection.
enum Course {
    Translated,
    /// This socket will, as soon as nothing is on its way.
    Leaving(OwnedFd),
    Carried(Box<Carriage>),
}

impl Stream {
    /// Ends it for both sides.
    fn end(&mut self, device: &mut Device) {
        match &self.course {
            Course::Translated | Course::Leaving(_) => self.connection.end(&mut self.socket, device),
            Course::Carried(_) => {
                // Both sockets end with a reset unless all has come to its end.
                self.connection.state = State::Over;
            }
        }
    }
}

/// A published TCP port.
struct Listener {
    fd: OwnedFd,
    container: String,
    port: u16,
    guest: SocketAddr,
}

pub(super) struct Translator {
    epoll: OwnedFd,
    device: Device,
    policy: Policy,
    streams: Table<Stream>,
    /// Of the streams, by containers' addresses.
    shares: Shares,
    of_ends: HashMap<(SocketAddr, SocketAddr), Token>,
    datagrams: Datagrams,
    listeners: Table<Listener>,
    /// Makes sockets for long connections to be carried by; where there is none, they are translated.
    maker: Option<Maker>,
    carried: usize,
    most_carried: usize,
    pipes: Pipes,
    early: Early,
    timers: BinaryHeap<Reverse<(Instant, Token)>>,
    next_sweep: Option<Instant>,
    /// The device has gone, and with it the way out.
    pub(super) has_lost_device: bool,
    pub(super) spare: Spare,
    numbers: Numbers,
    /// Connections to be served at the end of the turn.
    queue: Vec<Token>,
    packet: Vec<u8>,
    now: Instant,
}

/// What happened to whom.
pub(super) type Happened = (Token, epoll::EventFlags);

impl Translator {
    pub(super) fn new(device: OwnedFd, policy: Policy, descriptors: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll instance")?;
        let device = Device::new(device, policy.gateways);
        let data = epoll::EventData::new_u64(Token::only(Kind::Device).0);
        epoll::add(&epoll, &device, data, epoll::EventFlags::IN).context("watch the tun device")?;
        let room = descriptors.saturating_sub(SPARE_DESCRIPTORS).max(64);
        let spare = Spare::new(&epoll);
        Ok(Self {
            epoll,
            device,
            policy,
            streams: Table::new(Kind::Stream, MOST_STREAMS.min(room / 2)),
            shares: Shares::default(),
            of_ends: HashMap::new(),
            datagrams: Datagrams::new(MOST_DATAGRAMS.min(room / 4)),
            listeners: Table::new(Kind::Listener, MOST_LISTENERS),
            maker: None,
            carried: 0,
            most_carried: MOST_CARRIED.min(room / 5 / OF_CARRIED),
            pipes: Pipes::default(),
            early: Early::default(),
            timers: BinaryHeap::new(),
            next_sweep: None,
            has_lost_device: false,
            spare,
            numbers: Numbers::new(),
            queue: Vec::new(),
            packet: vec![0; OFFLOAD_HEADER + 40 + usize::from(MTU)],
            now: Instant::now(),
        })
    }

    /// Has long connections be carried by sockets of this maker's.
    pub(super) fn carry_by(&mut self, maker: Maker) {
        if self.watch(&maker, Token::only(Kind::Maker)).is_ok() {
            self.maker = Some(maker);
        }
    }

    /// Has what happens to a descriptor told by [`Self::wait`].
    pub(super) fn watch(&self, fd: impl AsFd, token: Token) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.0), epoll::EventFlags::IN)
    }

    /// Waits until something happens, or somebody's time is up, or the caller's.
    pub(super) fn wait(&mut self, happened: &mut Vec<Happened>, most: Option<Duration>) -> Result<()> {
        let first = self.timers.peek().map(|Reverse((deadline, _))| *deadline).into_iter().chain(self.next_sweep).min();
        let patience = match first {
            _ if !self.queue.is_empty() => Some(Duration::ZERO),
            // Rounded up: a moment too early would be another turn for nothing.
            Some(deadline) => Some(deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1)),
            None => None,
        };
        let patience = patience.map_or(most, |patience| Some(most.map_or(patience, |most| most.min(patience))));
        let mut events = Vec::with_capacity(EVENTS);
        let soon = patience.map_or(BUSY, |patience| patience.min(BUSY));
        self.wait_for_events(&mut events, soon)?;
        if events.is_empty() && patience.is_none_or(|patience| patience > BUSY) {
            // Nothing came for a moment: it may be long, and that is waited for with little memory.
            self.early.clear();
            let rest = patience.and_then(|patience| Timespec::try_from(patience.saturating_sub(BUSY)).ok());
            let mut fds = [PollFd::from_borrowed_fd(self.epoll.as_fd(), PollFlags::IN)];
            match memory::wait_released(&mut fds, rest.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("wait for packets"),
            }
            self.wait_for_events(&mut events, Duration::ZERO)?;
        }
        happened.clear();
        happened.extend(events.iter().map(|event| (Token(event.data.u64()), event.flags)));
        self.now = Instant::now();
        Ok(())
    }

    fn wait_for_events(&self, events: &mut Vec<epoll::Event>, patience: Duration) -> Result<()> {
        let patience = Timespec::try_from(patience).ok();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno).context("wait for packets"),
        }
    }

    /// Deals with what happened to something of the translator's own.
    pub(super) fn handle(&mut self, (token, flags): Happened) {
        match token.kind() {
            Some(Kind::Device) => self.read_packets(),
            Some(Kind::Stream | Kind::Guest) => self.stream_event(token, flags),
            Some(Kind::Datagram) => {
                self.datagrams.receive(token, self.now, &mut self.device);
                self.sweep_soon();
            }
            Some(Kind::Listener) => self.accept(token),
            Some(Kind::Maker) => self.maker = self.maker.take().and_then(|mut maker| maker.receive().then_some(maker)),
            _ => {}
        }
    }

    /// Ends a turn: timers, and what connections have to do.
    pub(super) fn finish_turn(&mut self) {
        while let Some(Reverse((deadline, token))) = self.timers.peek().copied() {
            if deadline > self.now {
                break;
            }
            self.timers.pop();
            self.time_up(token);
        }
        self.sweep();
        for token in std::mem::take(&mut self.queue) {
            self.serve(token);
        }
        // Of connections that are gone, or had another deadline before.
        if self.timers.len() > 2 * self.streams.len() + SPARE_TIMERS {
            let streams = &self.streams;
            let is_armed = |deadline, token| streams.get(token).is_some_and(|stream| stream.armed == Some(deadline));
            self.timers.retain(|Reverse((deadline, token))| is_armed(*deadline, *token));
        }
    }

    fn time_up(&mut self, token: Token) {
        let Some(stream) = self.streams.get_mut(token) else { return };
        stream.armed = None;
        let is_carried = matches!(stream.course, Course::Carried(_));
        if !is_carried && stream.connection.deadline().is_some_and(|deadline| deadline <= self.now) {
            stream.connection.expire(self.now, &mut stream.socket, &mut self.device);
        }
        self.enqueue(token);
    }

    /// Looks from time to time for what has grown old. Where there is nothing, nobody looks.
    fn sweep(&mut self) {
        let due = self.next_sweep.is_some_and(|due| due <= self.now);
        if due {
            for token in self.streams.tokens() {
                let Some(stream) = self.streams.get_mut(token) else { continue };
                // Of what is carried the kernel asks whether it is there.
                let is_carried = matches!(stream.course, Course::Carried(_));
                if !is_carried && stream.connection.is_forgotten(self.now) {
                    stream.end(&mut self.device);
                    self.enqueue(token);
                }
            }
            self.datagrams.sweep(self.now);
        }
        if due || self.next_sweep.is_none() {
            let period = if self.datagrams.has_aging() { Some(SHORT_SWEEP) } else { None };
            let period = period.or((self.streams.len() > 0).then_some(LONG_SWEEP));
            self.next_sweep = period.map(|period| self.now + period);
        }
    }

    /// Something is there that grows old soon.
    fn sweep_soon(&mut self) {
        let soon = self.now + SHORT_SWEEP;
        self.next_sweep = Some(self.next_sweep.map_or(soon, |next| next.min(soon)));
    }

    fn read_packets(&mut self) {
        let mut buffer = std::mem::take(&mut self.packet);
        for _ in 0..READS {
            let length = match self.device.read(&mut buffer) {
                Ok(length) => length,
                // Somebody has removed it.
                Err(Errno::BADFD) => {
                    self.has_lost_device = true;
                    break;
                }
                Err(_) => break,
            };
            match packet::read(&buffer[..length]) {
                Ok(packet) if self.is_carried(&packet) => self.device.put_back(&buffer[..length]),
                Ok(packet) => self.receive(&packet, &buffer[..length]),
                Err(unfit) => self.device.count(unfit),
            }
        }
        self.packet = buffer;
    }

    /// Whether a packet is for a connection that was handed over while it was on its way.
    fn is_carried(&self, packet: &Packet<'_>) -> bool {
        let Content::Tcp(segment) = packet.content else { return false };
        let ends = (SocketAddr::new(packet.source, segment.from), SocketAddr::new(packet.destination, segment.to));
        let stream = self.of_ends.get(&ends).and_then(|token| self.streams.get(*token));
        matches!(stream, Some(Stream { course: Course::Carried(carriage), .. }) if carriage.is_fresh(self.now))
    }

    fn receive(&mut self, packet: &Packet<'_>, raw: &[u8]) {
        match packet.content {
            Content::Tcp(segment) => self.receive_segment(packet, &segment, raw),
            Content::Udp { from, to, payload } => {
                self.send_datagram(Protocol::Udp, (from, to), packet, payload);
            }
            Content::Echo { identifier, message } => {
                self.send_datagram(Protocol::Echo, (identifier, 0), packet, message);
            }
            Content::Unreachable { quoted } => self.receive_unreachable(packet.source, quoted),
        }
    }

    fn send_datagram(&mut self, protocol: Protocol, ports: (u16, u16), packet: &Packet<'_>, payload: &[u8]) {
        let guest = SocketAddr::new(packet.source, ports.0);
        let seen = SocketAddr::new(packet.destination, ports.1);
        let called = self.datagrams.called_from(protocol, guest, seen);
        let outside = || outside(seen.ip(), self.policy.gateways, self.policy.reaches_host);
        let Some(real) = called.or_else(|| outside().map(|real| SocketAddr::new(real, seen.port()))) else {
            self.device.dropped.forbidden += 1;
            return;
        };
        let outgoing = Outgoing { protocol, guest, seen, real, payload };
        self.datagrams.send(&outgoing, packet, self.now, &self.epoll, &mut self.device);
        self.sweep_soon();
    }

    fn receive_segment(&mut self, packet: &Packet<'_>, segment: &Segment<'_>, raw: &[u8]) {
        let guest = SocketAddr::new(packet.source, segment.from);
        let remote = SocketAddr::new(packet.destination, segment.to);
        if let Some(token) = self.of_ends.get(&(guest, remote)).copied() {
            let Some(stream) = self.streams.get_mut(token) else { return };
            if let Course::Carried(carriage) = &stream.course {
                if carriage.is_passed_by() {
                    // Somebody has taken away what leads to such sockets.
                    self.maker = None;
                }
                stream.end(&mut self.device);
                self.enqueue(token);
                return;
            }
            if stream.connection.is_ahead(segment) {
                self.early.keep(token, segment.sequence, raw);
            }
            stream.connection.receive(segment, self.now, &mut stream.socket, &mut self.device);
            while let Some(next) = self.early.take(token, stream.connection.expected()) {
                if let Ok(Packet { content: Content::Tcp(segment), .. }) = packet::read(&next) {
                    stream.connection.receive(&segment, self.now, &mut stream.socket, &mut self.device);
                }
            }
            self.enqueue(token);
        } else if segment.has(SYN) && !segment.has(ACK) && !segment.has(RST) {
            self.connect((guest, remote), packet, segment);
        } else if !segment.has(RST) {
            self.refuse((guest, remote), segment);
        }
    }

    /// Opens a connection of the host for a container's.
    fn connect(&mut self, ends: (SocketAddr, SocketAddr), packet: &Packet<'_>, segment: &Segment<'_>) {
        let Some(real) = outside(ends.1.ip(), self.policy.gateways, self.policy.reaches_host) else {
            self.device.dropped.forbidden += 1;
            self.refuse(ends, segment);
            return;
        };
        if !self.shares.allow(ends.0.ip(), self.streams.room()) {
            // It will ask again, and there may be room by then.
            self.device.dropped.crowded += 1;
            return;
        }
        let opened = open_connection(SocketAddr::new(real, ends.1.port()));
        let added = opened.and_then(|fd| {
            let connection = Connection::from_guest(ends, segment, self.numbers.first(ends, self.now), self.now);
            self.add(connection, Socket::new(fd))
        });
        match added {
            Ok(_) => {}
            Err(errno) => match obstacle(errno) {
                Some(obstacle) if errno != Errno::CONNREFUSED => {
                    self.device.send_unreachable(packet.source, packet.destination, obstacle, packet.whole);
                }
                Some(_) => self.refuse(ends, segment),
                None => self.device.dropped.crowded += 1,
            },
        }
    }

    /// Puts a connection into the table; its ends are free.
    fn add(&mut self, connection: Connection, socket: Socket) -> Result<Token, Errno> {
        let ends = connection.ends();
        epoll::add(&self.epoll, &socket.fd, epoll::EventData::new_u64(self.streams.next().0), interest())?;
        let stream = Stream { connection, socket, course: Course::Translated, armed: None, awaits_room: false };
        let token = self.streams.insert(stream).map_err(|_| Errno::NFILE)?;
        self.of_ends.insert(ends, token);
        self.shares.take(ends.0.ip());
        self.enqueue(token);
        Ok(token)
    }

    /// Answers a segment that nobody wants (RFC 9293, 3.10.7.1).
    fn refuse(&mut self, (guest, remote): (SocketAddr, SocketAddr), segment: &Segment<'_>) {
        let length = u32::try_from(segment.payload.len()).unwrap_or(0)
            + u32::from(segment.has(SYN))
            + u32::from(segment.has(packet::FIN));
        let header = if segment.has(ACK) {
            Header { sequence: segment.acknowledged, flags: RST, ..Header::default() }
        } else {
            Header { acknowledged: segment.sequence.wrapping_add(length), flags: RST | ACK, ..Header::default() }
        };
        self.device.send(remote, guest, &header, 0);
    }

    /// The namespace says that a packet did not reach a container: one that has gone, or is not there yet.
    fn receive_unreachable(&mut self, from: IpAddr, quoted: &[u8]) {
        let Some((remote, guest)) = packet::quoted_tcp(quoted) else { return };
        // Another container has nothing to say to that.
        if from != guest.0 && !OWN.contains(&from) {
            return;
        }
        let ends = (SocketAddr::new(guest.0, guest.1), SocketAddr::new(remote.0, remote.1));
        let Some(token) = self.of_ends.get(&ends).copied() else { return };
        let Some(stream) = self.streams.get_mut(token) else { return };
        // Of what is open it may be a passing thing (RFC 1122, 4.2.3.9).
        if stream.connection.state == State::Opening {
            stream.socket.reset();
            stream.connection.state = State::Over;
            self.enqueue(token);
        }
    }

    fn stream_event(&mut self, token: Token, flags: epoll::EventFlags) {
        let is_host = token.kind() == Some(Kind::Stream);
        let token = token.as_kind(Kind::Stream);
        let Some(stream) = self.streams.get_mut(token) else { return };
        let Stream { connection, socket, course, awaits_room, .. } = stream;
        if let Course::Carried(carriage) = course {
            carriage.hear(is_host, flags);
            self.enqueue(token);
            return;
        }
        if !is_host {
            return;
        }
        // What came before the error is still there to be read, and the error after it.
        let is_open = connection.state == State::Open;
        if flags.contains(epoll::EventFlags::ERR) && !(is_open && flags.contains(epoll::EventFlags::IN)) {
            let cause = sockopt::socket_error(&socket.fd).unwrap_or(Ok(())).err().unwrap_or(Errno::CONNRESET);
            self.failed(token, cause);
            return;
        }
        if connection.state == State::Connecting && flags.contains(epoll::EventFlags::OUT) {
            connection.connected(self.now, socket, &mut self.device);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::HUP) {
            connection.readable(flags.contains(epoll::EventFlags::RDHUP), flags.contains(epoll::EventFlags::PRI));
        }
        if flags.contains(epoll::EventFlags::OUT) {
            *awaits_room = false;
            connection.writable(socket, &mut self.device);
        }
        self.enqueue(token);
    }

    fn failed(&mut self, token: Token, cause: Errno) {
        let Some(stream) = self.streams.get_mut(token) else { return };
        let (guest, remote) = stream.connection.ends();
        let obstacle = obstacle(cause).filter(|_| cause != Errno::CONNREFUSED);
        match obstacle {
            Some(obstacle) if stream.connection.state == State::Connecting => {
                stream.connection.state = State::Over;
                let header = Header { sequence: stream.connection.first_of_guest(), flags: SYN, ..Header::default() };
                let quoted = self.device.frame.tcp(guest, remote, &header, 0)[OFFLOAD_HEADER..].to_vec();
                self.device.send_unreachable(guest.ip(), remote.ip(), obstacle, &quoted);
            }
            _ => stream.connection.fail(&mut self.device),
        }
        self.enqueue(token);
    }

    fn enqueue(&mut self, token: Token) {
        if let Some(stream) = self.streams.get_mut(token)
            && !std::mem::replace(&mut stream.connection.is_queued, true)
        {
            self.queue.push(token);
        }
    }

    fn serve(&mut self, token: Token) {
        let Some(stream) = self.streams.get_mut(token) else { return };
        let served = match &mut stream.course {
            Course::Carried(_) if stream.connection.state == State::Over => None,
            Course::Carried(carriage) => {
                stream.connection.is_queued = false;
                let served = carriage.serve(&stream.socket.fd, &mut self.pipes);
                if !matches!(served, Ok(Some(_))) {
                    if served.is_err() {
                        stream.end(&mut self.device);
                    }
                    stream.connection.state = State::Over;
                }
                served.ok().flatten()
            }
            Course::Translated | Course::Leaving(_) => Some(self.translate(token)),
        };
        let Some(stream) = self.streams.get(token) else { return };
        if stream.connection.state == State::Over {
            let ends = stream.connection.ends();
            self.carried -= usize::from(!matches!(stream.course, Course::Translated));
            self.of_ends.remove(&ends);
            self.streams.remove(token);
            self.shares.give_back(ends.0.ip());
        } else if served == Some(Served::Again) {
            self.enqueue(token);
        }
    }

    fn translate(&mut self, token: Token) -> Served {
        let Some(stream) = self.streams.get_mut(token) else { return Served::Through };
        let Stream { connection, socket, course, armed, awaits_room } = stream;
        connection.is_queued = false;
        let served = connection.serve(self.now, socket, &mut self.device);
        if connection.state == State::Over {
            return served;
        }
        match course {
            Course::Translated if connection.is_long(carriage::LONG) && self.carried < self.most_carried => {
                let is_ipv4 = connection.ends().0.is_ipv4();
                let successor = self.maker.as_mut().and_then(|maker| maker.take(is_ipv4));
                let data = epoll::EventData::new_u64(token.as_kind(Kind::Guest).0);
                if let Some(successor) = successor
                    && epoll::add(&self.epoll, &successor, data, interest()).is_ok()
                {
                    *course = Course::Leaving(successor);
                    self.carried += 1;
                    connection.prepare_to_leave();
                    return Served::Again;
                }
            }
            Course::Leaving(_) => {
                if let Some(standing) = connection.standing() {
                    self.hand_over(token, &standing);
                    return Served::Again;
                }
                if !connection.is_leaving() {
                    *course = Course::Translated;
                    self.carried -= 1;
                    connection.stay();
                }
            }
            _ => {}
        }
        if connection.wants_room && !std::mem::replace(awaits_room, true) {
            // Has the kernel look whether there is room, and say so when there is: it does if it was asked and there was none.
            let _ = epoll::modify(&self.epoll, &socket.fd, epoll::EventData::new_u64(token.0), interest());
        }
        if let Some(deadline) = connection.deadline()
            && armed.is_none_or(|armed| deadline < armed)
        {
            *armed = Some(deadline);
            self.timers.push(Reverse((deadline, token)));
        }
        served
    }

    /// Has a connection be carried, in which nothing is on its way.
    fn hand_over(&mut self, token: Token, standing: &Standing) {
        let Some(stream) = self.streams.get_mut(token) else { return };
        let Course::Leaving(successor) = std::mem::replace(&mut stream.course, Course::Translated) else { return };
        if let Ok(mut carriage) = Carriage::begin(successor, &stream.socket.fd, standing, self.now) {
            if stream.connection.has_mark() {
                carriage.hear(true, epoll::EventFlags::PRI);
            }
            stream.course = Course::Carried(Box::new(carriage));
            for packet in self.early.take_all(token) {
                self.device.put_back(&packet);
            }
        } else {
            self.carried -= 1;
            stream.connection.stay();
        }
    }

    /// Takes callers of a published port, and asks the container for a connection to each.
    fn accept(&mut self, token: Token) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(token) else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (fd, caller) = match rustix::net::acceptfrom_with(&listener.fd, flags) {
                Ok(accepted) => accepted,
                Err(errno) if self.spare.send_away(&listener.fd, errno) => continue,
                Err(_) => return,
            };
            let Some(caller) = caller.and_then(address) else { continue };
            let guest = self.guest_for(listener, caller);
            let added = self.free_ends(guest, caller).ok_or(Errno::ADDRINUSE).and_then(|ends| {
                let _ = sockopt::set_tcp_nodelay(&fd, true);
                let _ = sockopt::set_socket_oobinline(&fd, true);
                let initial = self.numbers.first(ends, self.now);
                if !self.shares.allow(guest.ip(), self.streams.room()) {
                    return Err(Errno::NFILE);
                }
                let mut socket = Socket::new(fd);
                let connection = Connection::from_host(ends, initial, self.now, &mut socket, &mut self.device);
                self.add(connection, socket)
            });
            if added.is_err() {
                self.device.dropped.crowded += 1;
            }
        }
    }

    /// Where a caller is led. One socket may hear both families, and the container have an address of each.
    fn guest_for(&self, listener: &Listener, caller: SocketAddr) -> SocketAddr {
        if listener.guest.is_ipv4() == caller.is_ipv4() {
            return listener.guest;
        }
        let is_same = |other: &&Listener| {
            (other.port, &other.container) == (listener.port, &listener.container)
                && other.guest.is_ipv4() == caller.is_ipv4()
        };
        self.listeners.iter().find(is_same).map_or(listener.guest, |other| other.guest)
    }

    /// Finds ends that no other connection has: the caller's own port where that is free.
    fn free_ends(&self, guest: SocketAddr, caller: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
        let seen = seen_as(caller, guest, &self.device);
        let others =
            (0..64_u16).map(|step| DYNAMIC + (seen.port().wrapping_add(step.wrapping_mul(257)) % (u16::MAX - DYNAMIC)));
        std::iter::once(seen.port())
            .chain(others)
            .map(|port| (guest, SocketAddr::new(seen.ip(), port)))
            .find(|ends| !self.of_ends.contains_key(ends))
    }

    /// Notes blocks of addresses that are inside. One that is inside no more may be known for as long as this lives.
    pub(super) fn know(&mut self, blocks: &[Cidr]) {
        for block in blocks {
            if !self.device.inside.contains(block) && self.device.inside.len() < MOST_BLOCKS {
                self.device.inside.push(*block);
            }
        }
    }

    /// Publishes a port of a container with a socket that listens, or, of UDP, is bound.
    pub(super) fn publish(
        &mut self,
        container: &str,
        is_udp: bool,
        guest: SocketAddr,
        fd: OwnedFd,
    ) -> Result<(), Errno> {
        if is_udp {
            return self.datagrams.publish(container, guest, fd, self.now, &self.epoll).map(drop);
        }
        let data = epoll::EventData::new_u64(self.listeners.next().0);
        if self.listeners.is_full() {
            return Err(Errno::NFILE);
        }
        epoll::add(&self.epoll, &fd, data, epoll::EventFlags::IN)?;
        let port = rustix::net::getsockname(&fd).ok().and_then(address).map_or(0, |at| at.port());
        let listener = Listener { fd, container: container.to_owned(), port, guest };
        self.listeners.insert(listener).map(drop).map_err(|_| Errno::NFILE)
    }

    /// Takes back what a container has published.
    pub(super) fn withdraw(&mut self, container: &str) {
        for token in self.listeners.tokens() {
            if let Some(listener) = self.listeners.get(token).filter(|listener| listener.container == container) {
                // Closing does not take out what others hold, too: a socket that was passed would be told of for ever (epoll(7)).
                let _ = epoll::delete(&self.epoll, &listener.fd);
                self.listeners.remove(token);
            }
        }
        self.datagrams.withdraw(container, &self.epoll);
    }

    /// Forgets all that goes on with addresses whose container is gone: whoever gets them next is not to get its answers.
    pub(super) fn forget(&mut self, addresses: &[IpAddr]) {
        for token in self.streams.tokens() {
            let Some(stream) = self.streams.get_mut(token) else { continue };
            if addresses.contains(&stream.connection.ends().0.ip()) {
                stream.end(&mut self.device);
                self.enqueue(token);
            }
        }
        self.datagrams.forget(|mapping| mapping.container.is_none() && addresses.contains(&mapping.guest()));
    }

    pub(super) fn dropped(&self) -> Dropped {
        self.device.dropped
    }

    /// How many connections are carried by the kernel's own sockets.
    pub(super) fn carried(&self) -> usize {
        self.carried
    }

    /// Counts connections, sockets for datagrams, and published ports.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let published = self.datagrams.table.iter().filter(|mapping| mapping.container.is_some()).count();
        (self.streams.len(), self.datagrams.table.len() - published, self.listeners.len() + published)
    }
}

/// For so long something may still come at once.
const BUSY: Duration = Duration::from_millis(500);

/// Between two looks for what has grown old: sockets for datagrams, and connections.
const SHORT_SWEEP: Duration = Duration::from_secs(10);
const LONG_SWEEP: Duration = Duration::from_mins(10);

/// Timers that may be left over.
const SPARE_TIMERS: usize = 1024;

#[cfg(test)]
mod tests;
