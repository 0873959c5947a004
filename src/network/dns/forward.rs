//! Questions that a network has no answer to: asks other servers, as resolv.conf(5) has the C library ask them, and believes
//! none but those.
//!
//! An answer counts only if it comes from the server's address and port to the socket of this very question, with its random
//! number and with the question in it: a socket each, whose port the kernel chooses, so that somebody off the path has both
//! numbers to guess (RFC 5452); and the same question is never under way twice at a time, which would double his chances.
//!
//! A server that says nothing for two seconds has company: the next one is asked, too, and whoever answers first is heard. The
//! C library in the container gives up after five.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::cache::{Cache, Key};
use super::message::{self, Answer, Failed, Manner, Query, Question, Said};
use crate::support::resolv_conf::Servers;

/// Questions that are under way, each of which has a socket or a few; and how many of them one container may have begun.
const QUESTIONS: usize = 256;
const QUESTIONS_OF_ONE: usize = QUESTIONS / 4;

/// Those who wait for answers, and how many of them may be one container's.
const WAITING: usize = 1024;
const WAITING_OF_ONE: usize = 128;

/// When the next server is asked, too.
const COMPANY: Duration = Duration::from_secs(2);

/// What one question may take in all, whatever resolv.conf says.
const LONGEST: Duration = Duration::from_secs(30);

/// Datagrams that are looked at in one go; whatever is not the answer is noise, or an attack.
const STRAYS: usize = 16;

/// A name server's port.
pub const PORT: u16 = 53;

/// Who waits for an answer: `W` is the way back.
pub(super) struct Waiter<W> {
    pub(super) way: W,
    pub(super) client: IpAddr,
    /// The container: it may have several addresses.
    pub(super) owner: Rc<str>,
    pub(super) query: Query,
}

/// What has become of a question.
pub(super) enum Outcome {
    /// So many seconds old.
    Answer(Rc<Answer>, u32),
    Failure,
}

/// What becomes of a question at once.
pub(super) enum Taken<W> {
    /// It is answered, or cannot be.
    Now(Waiter<W>, Outcome),
    Later,
}

/// Asks others.
pub(super) struct Forwarder<W> {
    host: Host,
    /// Never asked: whoever asks this network's own server asks in a circle.
    never: Vec<IpAddr>,
    cache: Cache,
    under_way: BTreeMap<u64, Asking<W>>,
    next: u64,
}

/// The host's resolv.conf, as it was read last.
struct Host {
    path: PathBuf,
    seen: Option<(u64, u64, i64, u64)>,
    servers: Servers,
    /// Questions so far: with `rotate`, where the next one begins.
    turn: usize,
}

impl Host {
    /// Gives what it says now: a laptop's changes.
    fn servers(&mut self) -> &Servers {
        let seen = rustix::fs::stat(&self.path).ok().map(|stat| {
            let size = stat.st_size.cast_unsigned();
            (stat.st_ino, stat.st_mtime.cast_unsigned(), stat.st_mtime_nsec.cast_signed(), size)
        });
        if seen != self.seen {
            // Half written, it has another size or time in a moment.
            if let Ok(servers) = Servers::read(&self.path, PORT) {
                self.servers = servers;
            }
            self.seen = seen;
        }
        self.turn = self.turn.wrapping_add(1);
        &self.servers
    }
}

/// A question that is under way.
struct Asking<W> {
    key: Key,
    question: Question,
    begun_by: Rc<str>,
    manner: Manner,
    waiters: Vec<Waiter<W>>,
    servers: Rc<[SocketAddr]>,
    over_tcp: bool,
    attempts: usize,
    patience: Duration,
    /// How often somebody has been asked.
    asked: usize,
    next_ask: Instant,
    deadline: Instant,
    tries: Vec<Try>,
}

/// A server that has been asked, and may answer.
struct Try {
    server: SocketAddr,
    id: u16,
    with_edns: bool,
    socket: Socket,
}

enum Socket {
    Datagram(UdpSocket),
    Connection { stream: TcpStream, unsent: Vec<u8>, received: Vec<u8> },
}

/// What a look at a socket brought.
enum Heard {
    Nothing,
    Said(Said),
    /// There will be nothing.
    Broken,
}

impl<W: PartialEq> Forwarder<W> {
    pub(super) fn new(resolv_conf: PathBuf, never: Vec<IpAddr>) -> Self {
        let host = Host { path: resolv_conf, seen: None, servers: Servers::parse("", PORT), turn: 0 };
        Self { host, never, cache: Cache::default(), under_way: BTreeMap::new(), next: 0 }
    }

    /// Takes a question: answers it from memory, or asks the servers that are given, else the host's.
    pub(super) fn take(&mut self, waiter: Waiter<W>, servers: &[SocketAddr], over_tcp: bool, now: Instant) -> Taken<W> {
        let turn = self.host.turn;
        let host = self.host.servers();
        let given = if servers.is_empty() { &host.addresses } else { servers };
        let servers: Rc<[SocketAddr]> =
            given.iter().copied().filter(|server| !self.never.contains(&server.ip())).collect();
        let (attempts, patience) = (host.attempts as usize, host.patience);
        let over_tcp = over_tcp || host.only_tcp;
        let first = if host.rotates { turn } else { 0 };
        let manner = waiter.query.manner();
        let key = Key::new(&waiter.query.question, manner, Rc::clone(&servers));
        if let Some((answer, age)) = self.cache.find(&key, now) {
            return Taken::Now(waiter, Outcome::Answer(answer, age));
        }
        let waiting = self.under_way.values().flat_map(|asking| &asking.waiters);
        let (all, own) =
            waiting.fold((0, 0), |(all, own), other| (all + 1, own + usize::from(other.owner == waiter.owner)));
        if servers.is_empty() || all >= WAITING || own >= WAITING_OF_ONE {
            return Taken::Now(waiter, Outcome::Failure);
        }
        let same = |asking: &&mut Asking<W>| asking.key == key && (asking.over_tcp || !over_tcp);
        if let Some(asking) = self.under_way.values_mut().find(same) {
            // Who has waited in vain for a while sends the same again.
            let is_again = |other: &Waiter<W>| other.way == waiter.way && other.query.id == waiter.query.id;
            if !asking.waiters.iter().any(is_again) {
                asking.waiters.push(waiter);
            }
            return Taken::Later;
        }
        let begun = self.under_way.values().filter(|asking| asking.begun_by == waiter.owner).count();
        if self.under_way.len() >= QUESTIONS || begun >= QUESTIONS_OF_ONE {
            return Taken::Now(waiter, Outcome::Failure);
        }
        let servers: Rc<[SocketAddr]> = if first % servers.len() == 0 {
            servers
        } else {
            let (before, behind) = servers.split_at(first % servers.len());
            behind.iter().chain(before).copied().collect()
        };
        let mut asking = Asking {
            key,
            question: waiter.query.question.clone(),
            begun_by: Rc::clone(&waiter.owner),
            manner,
            waiters: vec![waiter],
            servers,
            over_tcp,
            attempts,
            patience,
            asked: 0,
            next_ask: now,
            deadline: now + LONGEST,
            tries: Vec::new(),
        };
        asking.ask_next(now);
        if asking.tries.is_empty() {
            let waiter = asking.waiters.pop();
            return waiter.map_or(Taken::Later, |waiter| Taken::Now(waiter, Outcome::Failure));
        }
        self.next += 1;
        self.under_way.insert(self.next, asking);
        Taken::Later
    }

    /// What is waited for: with each socket the question's number and the socket's among its own.
    pub(super) fn sources(&self) -> impl Iterator<Item = (u64, usize, BorrowedFd<'_>, PollFlags)> {
        self.under_way.iter().flat_map(|(number, asking)| {
            asking.tries.iter().enumerate().map(|(index, one)| {
                let (fd, flags) = one.source();
                (*number, index, fd, flags)
            })
        })
    }

    /// When something is to be done, if nothing comes before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.under_way.values().map(|asking| asking.next_ask.min(asking.deadline)).min()
    }

    /// Hears what has come for a question; gives the end of it, if that is it.
    pub(super) fn hear(&mut self, number: u64, indices: &[usize], now: Instant) -> Option<(Vec<Waiter<W>>, Outcome)> {
        let asking = self.under_way.get_mut(&number)?;
        let mut broken = Vec::new();
        for index in indices {
            match asking.hear(*index) {
                Heard::Nothing => {}
                Heard::Said(Said::Answer(answer)) => {
                    let asking = self.under_way.remove(&number)?;
                    let answer = Rc::new(answer);
                    self.cache.keep(asking.key, &answer, now);
                    return Some((asking.waiters, Outcome::Answer(answer, 0)));
                }
                Heard::Said(Said::Truncated) => {
                    if !asking.ask_again(*index, true) {
                        broken.push(*index);
                    }
                }
                Heard::Said(Said::Failed(Failed::Misunderstood)) => {
                    let has_edns = asking.tries.get(*index).is_some_and(|one| one.with_edns);
                    if !has_edns || !asking.ask_again(*index, false) {
                        broken.push(*index);
                    }
                }
                Heard::Said(Said::Failed(Failed::Otherwise)) | Heard::Broken => broken.push(*index),
            }
        }
        if broken.is_empty() {
            return None;
        }
        for index in broken.into_iter().rev() {
            asking.tries.remove(index);
        }
        asking.ask_next(now);
        self.end_if_over(number, now)
    }

    /// Does what the time has come for; gives what ends with it.
    pub(super) fn keep_time(&mut self, now: Instant) -> Vec<(Vec<Waiter<W>>, Outcome)> {
        let due = self.under_way.iter_mut().filter(|(_, asking)| asking.next_ask.min(asking.deadline) <= now);
        let numbers: Vec<u64> = due
            .map(|(number, asking)| {
                if now < asking.deadline {
                    asking.ask_next(now);
                }
                *number
            })
            .collect();
        numbers.into_iter().filter_map(|number| self.end_if_over(number, now)).collect()
    }

    /// Forgets who will not read an answer any more, and what nobody waits for then.
    pub(super) fn forget(&mut self, way: &W) {
        self.under_way.retain(|_, asking| {
            asking.waiters.retain(|waiter| waiter.way != *way);
            !asking.waiters.is_empty()
        });
    }

    fn end_if_over(&mut self, number: u64, now: Instant) -> Option<(Vec<Waiter<W>>, Outcome)> {
        let asking = self.under_way.get(&number)?;
        if now < asking.deadline && !asking.tries.is_empty() {
            return None;
        }
        Some((self.under_way.remove(&number)?.waiters, Outcome::Failure))
    }
}

impl<W> Asking<W> {
    /// Asks the next server that can be asked, if there is another turn.
    fn ask_next(&mut self, now: Instant) {
        let most = self.attempts * self.servers.len();
        while self.asked < most {
            let server = self.servers[self.asked % self.servers.len()];
            self.asked += 1;
            let is_last = self.asked == most;
            let company = if is_last { LONGEST } else { self.patience.min(COMPANY) };
            self.next_ask = now + company;
            if is_last {
                self.deadline = self.deadline.min(now + self.patience);
            }
            // A datagram may have been lost on its way; nobody doubts the bytes of a connection.
            if let Some(before) = self.tries.iter().find(|one| one.server == server) {
                let question = message::ask(before.id, &self.question, self.manner, before.with_edns);
                if let Socket::Datagram(socket) = &before.socket {
                    let _ = socket.send(&question);
                }
                return;
            }
            if let Some(one) = Try::begin(server, &self.question, self.manner, self.over_tcp, true) {
                self.tries.push(one);
                return;
            }
        }
        self.next_ask = self.deadline;
    }

    /// Asks a server once more, over a connection or without EDNS.
    fn ask_again(&mut self, index: usize, over_tcp: bool) -> bool {
        let Some(one) = self.tries.get_mut(index) else { return false };
        let is_connected = matches!(one.socket, Socket::Connection { .. });
        let with_edns = one.with_edns && over_tcp;
        if over_tcp && is_connected {
            return false;
        }
        match Try::begin(one.server, &self.question, self.manner, over_tcp || is_connected, with_edns) {
            Some(again) => {
                *one = again;
                true
            }
            None => false,
        }
    }

    fn hear(&mut self, index: usize) -> Heard {
        let Some(one) = self.tries.get_mut(index) else { return Heard::Nothing };
        match &mut one.socket {
            Socket::Datagram(socket) => {
                let mut bytes = [0; DATAGRAM];
                for _ in 0..STRAYS {
                    match socket.recv(&mut bytes) {
                        Ok(length) => {
                            let said =
                                bytes.get(..length).and_then(|bytes| Answer::read(bytes, one.id, &self.question));
                            if let Some(said) = said {
                                return Heard::Said(said);
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                        // Nobody listens there, or there is no way.
                        Err(_) => return Heard::Broken,
                    }
                }
                Heard::Nothing
            }
            Socket::Connection { stream, unsent, received } => {
                if !unsent.is_empty() {
                    match stream.write(unsent) {
                        Ok(count) => drop(unsent.drain(..count)),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                        Err(_) => return Heard::Broken,
                    }
                    return Heard::Nothing;
                }
                match receive(stream, received) {
                    Ok(None) => Heard::Nothing,
                    Ok(Some(message)) => match Answer::read(message, one.id, &self.question) {
                        Some(said) => Heard::Said(said),
                        None => Heard::Broken,
                    },
                    Err(_) => Heard::Broken,
                }
            }
        }
    }
}

/// Larger than what is asked for: some send more all the same.
const DATAGRAM: usize = 4096;

/// Reads what has come of a message that has its length before it (RFC 1035, 4.2.2); gives it once it is whole.
fn receive<'a>(stream: &mut TcpStream, received: &'a mut Vec<u8>) -> std::io::Result<Option<&'a [u8]>> {
    let wanted = |received: &[u8]| match received {
        [one, two, ..] => 2 + usize::from(u16::from_be_bytes([*one, *two])),
        _ => 2,
    };
    let mut bytes = [0; DATAGRAM];
    while received.len() < wanted(received) {
        let room = (wanted(received) - received.len()).min(bytes.len());
        match stream.read(&mut bytes[..room]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => received.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(received.get(2..))
}

impl Try {
    /// Asks a server; `None` where it cannot be asked from here.
    fn begin(server: SocketAddr, question: &Question, manner: Manner, over_tcp: bool, with_edns: bool) -> Option<Self> {
        let mut number = [0; 2];
        rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty()).ok()?;
        let id = u16::from_ne_bytes(number);
        let question = message::ask(id, question, manner, with_edns);
        let socket = if over_tcp { connect(server, &question) } else { send(server, &question) }.ok()?;
        Some(Self { server, id, with_edns, socket })
    }

    fn source(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.socket {
            Socket::Datagram(socket) => (socket.as_fd(), PollFlags::IN),
            Socket::Connection { stream, unsent, .. } if unsent.is_empty() => (stream.as_fd(), PollFlags::IN),
            Socket::Connection { stream, .. } => (stream.as_fd(), PollFlags::OUT),
        }
    }
}

/// Sends a datagram from a port of its own, which the kernel takes by chance, and to which only the server's come.
fn send(server: SocketAddr, question: &[u8]) -> std::io::Result<Socket> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    socket.send(question)?;
    Ok(Socket::Datagram(socket))
}

/// Begins to connect; the question goes once that is done.
fn connect(server: SocketAddr, question: &[u8]) -> std::io::Result<Socket> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let length = u16::try_from(question.len()).map_err(|_| ErrorKind::InvalidInput)?.to_be_bytes();
    let unsent = [&length[..], question].concat();
    Ok(Socket::Connection { stream: TcpStream::from(socket), unsent, received: Vec::new() })
}
