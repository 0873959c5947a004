//! One TCP connection between a container and a socket of the host, without a second buffering stack.
//!
//! Whatever the container sends goes into the host's socket as it arrives, and what the socket has taken is acknowledged;
//! the window that the container sees is the room that the socket has. What the host's socket has for the container is looked
//! at (MSG_PEEK), sent, and thrown away there once the container has acknowledged it: the socket's own buffer is what is sent
//! from again if something is lost. So there are sequence numbers here and no data.
//!
//! ```text
//! container ── SYN ──▶ connect ─────▶ Connecting      accept ── SYN ──▶ container    Opening
//!           ◀─ SYN+ACK ── connected   Accepting              ◀─ SYN+ACK
//!           ── ACK ──▶                Open                   ── ACK ──▶              Open
//!           ── FIN ──▶ shutdown       and the other way round; over when both are through
//! ```
//!
//! Knows neither the device nor the socket: [`Host`] and [`Wire`] stand for them, and time is what the caller says it is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::frame::{Header, MTU, tcp_room};
use super::packet::{ACK, FIN, PSH, RST, SYN, Segment};
use crate::sys::repair::Standing;

/// The shift of the windows that containers are told: up to 16 MiB.
const SCALE: u8 = 8;

/// RFC 9293, 3.7.1: what is taken for granted of who says nothing.
const DEFAULT_LONGEST: u16 = 536;
/// Below this a segment is more header than payload; Linux's own least (tcp_min_snd_mss).
const LEAST_LONGEST: u16 = 48;

/// Of a host's socket that is full a third is free when it says that there is room. Who has segments that do not fit into that
/// window would wait for a timer (RFC 9293, 3.8.6.2.1): so a container is told of none that is longer than half of it. A socket to
/// this machine has megabytes, one to another some 50 KiB at first.
const SOCKET_PER_SEGMENT: u32 = 6;
const LEAST_ANNOUNCED: u32 = 1220;

/// The container is a few links of this machine away.
const FIRST_PATIENCE: Duration = Duration::from_millis(300);
const LONGEST_PATIENCE: Duration = Duration::from_secs(10);
/// About a minute in all: who answers nothing for so long is gone.
const TRIES: u8 = 12;
/// Of who has not yet said a word: some 19 seconds.
const OPENING_TRIES: u8 = 6;
/// RFC 5382, REQ-5: two hours and four minutes.
const IDLE: Duration = Duration::from_mins(124);
/// How often whoever is beyond the host's socket is asked whether it is there: as often as the container asks.
const LEAST_KEEPALIVE: Duration = Duration::from_secs(1);
const LONGEST_KEEPALIVE: Duration = Duration::from_hours(2);
/// The same acknowledgement in one turn.
const MOST_REPEATED: u32 = 8;
/// Packets that one connection sends before others have their turn.
const TURN: u32 = 16;

/// The socket.
pub(super) trait Host {
    /// Gives it bytes, as many as it takes.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno>;
    /// Looks at what comes behind `offset` bytes: 0 at the end of the stream, EAGAIN where there is nothing yet.
    fn peek(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, Errno>;
    /// Throws away bytes from the beginning; says whether it sees behind them what it did not see before.
    fn discard(&mut self, count: u32) -> bool;
    /// How much it would take, and whether it will say so when that is more.
    fn room(&mut self) -> (u32, bool);
    /// Says that no more is to come.
    fn end(&mut self);
    /// Has it asked, after such a pause, whether its other end is there.
    fn keep_alive(&mut self, pause: Duration);
    /// Has its end be a reset.
    fn reset(&mut self);
}

/// The way to the container.
pub(super) trait Wire {
    /// Where the payload of the next segment goes.
    fn payload(&mut self) -> &mut [u8];
    /// Sends a segment whose payload is in its place.
    fn send(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, payload: usize);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The container's SYN is there, the host's connection is not.
    Connecting,
    /// The container has been told; it has not answered.
    Accepting,
    /// The host has accepted somebody; the container has been asked.
    Opening,
    Open,
    /// To be forgotten.
    Over,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The container's end.
    guest: SocketAddr,
    /// The other end, as the container sees it.
    remote: SocketAddr,
    pub(super) state: State,

    /// The first byte that the container has not acknowledged; the socket still has it.
    unacknowledged: u32,
    /// The next to send, and, where something is sent again, the end of all that ever was.
    next: u32,
    furthest: u32,
    /// Acknowledged, and not yet thrown away.
    to_discard: u32,
    /// Where the host's stream ends, once that has been seen.
    stream_end: Option<u32>,
    guest_window: u32,
    guest_scale: u8,
    cut: u16,
    /// Acknowledgements of the same byte, which say that something behind it arrived; not counted until all that was sent
    /// before the last loss has.
    duplicates: u8,
    recovered_at: u32,
    /// The socket has nothing more until it says so; or says that its stream has an end.
    is_drained: bool,
    sees_end: bool,
    /// There was urgent data: a look ends in front of it, whatever is behind (tcp(7)).
    has_mark: bool,

    /// The next byte that is expected of the container.
    expected: u32,
    guest_has_ended: bool,
    own_scale: u8,
    /// The longest segment that the container was told of.
    announced: u16,
    owes_ack: bool,
    /// The socket will say when it has more room, and the container is to be told.
    pub(super) wants_room: bool,
    /// The socket refused a part of what the container sent.
    has_refused: bool,

    /// The window that the container was last told of, and where that ends.
    told: u16,
    offered: u32,
    /// Segments of this turn behind a gap that is still there.
    ahead: u32,
    /// Bytes that went either way; stops at the greatest that there are.
    moved: u32,
    /// Nothing new is sent: another is about to take over.
    is_leaving: bool,

    /// The host's socket asks, too, whether its other end is there.
    keeps_alive: bool,
    tries: u8,
    last_heard: Instant,
    last_progress: Instant,
    /// Has a place among those that are served at the end of a turn.
    pub(super) is_queued: bool,
}

/// Whether a connection has more to send at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    Through,
    Again,
}

impl Connection {
    /// Takes the container's SYN; the host's socket is connecting.
    pub(super) fn from_guest(
        ends: (SocketAddr, SocketAddr),
        segment: &Segment<'_>,
        initial: u32,
        now: Instant,
    ) -> Self {
        let mut connection = Self::new(ends, State::Connecting, initial, now);
        connection.learn(segment);
        connection
    }

    /// Asks the container for a connection that the host has accepted.
    pub(super) fn from_host(
        ends: (SocketAddr, SocketAddr),
        initial: u32,
        now: Instant,
        host: &mut impl Host,
        wire: &mut impl Wire,
    ) -> Self {
        let mut connection = Self::new(ends, State::Opening, initial, now);
        connection.announce(host);
        connection.say_syn(wire);
        connection
    }

    fn new((guest, remote): (SocketAddr, SocketAddr), state: State, initial: u32, now: Instant) -> Self {
        Self {
            guest,
            remote,
            state,
            unacknowledged: initial,
            next: initial,
            furthest: initial,
            to_discard: 0,
            stream_end: None,
            guest_window: 0,
            guest_scale: 0,
            cut: DEFAULT_LONGEST,
            duplicates: 0,
            recovered_at: initial,
            is_drained: false,
            sees_end: false,
            has_mark: false,
            expected: 0,
            guest_has_ended: false,
            own_scale: SCALE,
            announced: DEFAULT_LONGEST,
            owes_ack: false,
            wants_room: false,
            has_refused: false,
            told: 0,
            offered: 0,
            ahead: 0,
            moved: 0,
            is_leaving: false,
            keeps_alive: false,
            tries: 0,
            last_heard: now,
            last_progress: now,
            is_queued: false,
        }
    }

    /// The container's end, and the other as the container sees it.
    pub(super) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.guest, self.remote)
    }

    /// Where the container's stream begins, while nothing of it has come.
    pub(super) fn first_of_guest(&self) -> u32 {
        self.expected.wrapping_sub(1)
    }

    /// Whether so many bytes went through it, and neither side has come to its end.
    pub(super) fn is_long(&self, least: u32) -> bool {
        self.state == State::Open && self.moved >= least && !self.guest_has_ended && self.stream_end.is_none()
    }

    /// Has it send nothing new, so that soon nothing is on its way.
    pub(super) fn prepare_to_leave(&mut self) {
        self.is_leaving = true;
    }

    /// Has it go on after all, and begin to count anew.
    pub(super) fn stay(&mut self) {
        self.is_leaving = false;
        self.is_drained = false;
        self.moved = 0;
    }

    /// Where it stands, if all that was sent is acknowledged and neither side has come to its end.
    pub(super) fn standing(&self) -> Option<Standing> {
        let is_quiet = self.furthest == self.unacknowledged && self.to_discard == 0 && self.guest_window > 0;
        let has_both = !self.guest_has_ended && self.stream_end.is_none();
        let offered = if is_before(self.expected, self.offered) { self.offered.wrapping_sub(self.expected) } else { 0 };
        (self.is_leaving && self.state == State::Open && is_quiet && has_both).then_some(Standing {
            own: self.remote,
            peer: self.guest,
            next: self.furthest,
            expected: self.expected,
            peer_window: self.guest_window,
            own_window: offered,
            own_scale: self.own_scale,
            peer_scale: self.guest_scale,
            longest: self.cut,
        })
    }

    /// Whether there ever was urgent data of the host's.
    pub(super) fn has_mark(&self) -> bool {
        self.has_mark
    }

    /// Whether another is about to take over.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Takes from a SYN where it begins, and what it says of windows and segments.
    fn learn(&mut self, segment: &Segment<'_>) {
        let most = u16::try_from(tcp_room(self.guest.is_ipv4())).unwrap_or(MTU);
        self.cut = segment.longest.unwrap_or(DEFAULT_LONGEST).clamp(LEAST_LONGEST, most);
        self.expected = segment.sequence.wrapping_add(1);
        // Of a SYN the window is not shifted, and shifts are for both or neither (RFC 7323, 2.2).
        self.guest_window = u32::from(segment.window);
        self.guest_scale = segment.scale.unwrap_or(0);
        self.own_scale = if segment.scale.is_some() { SCALE } else { 0 };
    }

    fn announce(&mut self, host: &mut impl Host) {
        let most = u32::try_from(tcp_room(self.guest.is_ipv4())).unwrap_or(LEAST_ANNOUNCED);
        let announced = (host.room().0 / SOCKET_PER_SEGMENT).clamp(LEAST_ANNOUNCED, most);
        self.announced = u16::try_from(announced).unwrap_or(DEFAULT_LONGEST);
    }

    /// The host's socket is connected.
    pub(super) fn connected(&mut self, now: Instant, host: &mut impl Host, wire: &mut impl Wire) {
        if self.state == State::Connecting {
            self.announce(host);
            self.state = State::Accepting;
            self.last_progress = now;
            self.say_syn(wire);
        }
    }

    /// The host's socket has failed: so has the connection, and the container is told.
    pub(super) fn fail(&mut self, wire: &mut impl Wire) {
        if self.state != State::Over {
            let (sequence, acknowledged) = (self.furthest, self.expected);
            self.say(wire, Header { sequence, acknowledged, flags: RST | ACK, ..Header::default() }, 0);
            self.state = State::Over;
        }
    }

    /// The host's socket has something to say: more bytes, or, too, that they end, or that there are urgent ones.
    pub(super) fn readable(&mut self, sees_end: bool, has_mark: bool) {
        self.is_drained = false;
        self.sees_end |= sees_end;
        self.has_mark |= has_mark;
    }

    /// The host's socket has room again.
    pub(super) fn writable(&mut self, host: &mut impl Host, wire: &mut impl Wire) {
        if self.state != State::Open || !self.wants_room {
            return;
        }
        self.wants_room = false;
        self.say_ack(host, wire);
        if std::mem::take(&mut self.has_refused) {
            // Three more of the same have what was refused sent again at once (RFC 5681, 3.2).
            for _ in 0..3 {
                self.say_ack(host, wire);
            }
        }
    }

    /// Takes a segment of the container's. What it calls for is done by [`Self::serve`], but for what cannot wait.
    pub(super) fn receive(&mut self, segment: &Segment<'_>, now: Instant, host: &mut impl Host, wire: &mut impl Wire) {
        let pause = now.duration_since(std::mem::replace(&mut self.last_heard, now));
        match self.state {
            State::Over => {}
            State::Connecting => {
                if segment.has(RST) {
                    self.state = State::Over;
                }
            }
            State::Opening => self.receive_answer(segment, now, host, wire),
            State::Accepting | State::Open => {
                if segment.has(RST) {
                    // RFC 5961, 3.2: only the very next byte's; anything else may be somebody's guess.
                    if segment.sequence == self.expected {
                        host.reset();
                        self.state = State::Over;
                    } else {
                        self.owes_ack = true;
                    }
                } else if segment.has(SYN) {
                    if self.state == State::Accepting {
                        self.say_syn(wire);
                    } else {
                        self.owes_ack = true;
                    }
                } else if segment.has(ACK) {
                    self.receive_ack(segment, now);
                    if self.state == State::Open {
                        self.look_for_probe(segment, pause, host);
                        self.receive_payload(segment, host, wire);
                    }
                }
            }
        }
    }

    fn receive_answer(&mut self, segment: &Segment<'_>, now: Instant, host: &mut impl Host, wire: &mut impl Wire) {
        if !segment.has(ACK) {
            return;
        }
        if segment.acknowledged != self.furthest {
            // It remembers another connection with these ends, which is over (RFC 9293, 3.10.7.3): told so, it takes the next
            // SYN.
            if !segment.has(RST) {
                let header = Header { sequence: segment.acknowledged, flags: RST, ..Header::default() };
                self.say(wire, header, 0);
            }
            return;
        }
        if segment.has(RST) {
            host.reset();
            self.state = State::Over;
        } else if segment.has(SYN) {
            self.learn(segment);
            self.open(now);
            self.owes_ack = true;
        }
    }

    fn open(&mut self, now: Instant) {
        self.unacknowledged = self.furthest;
        self.next = self.furthest;
        self.recovered_at = self.furthest;
        // What the SYN said, whose window is not shifted.
        self.offered = self.expected.wrapping_add(u16::MAX.into());
        self.state = State::Open;
        self.progress(now);
    }

    fn progress(&mut self, now: Instant) {
        self.tries = 0;
        self.duplicates = 0;
        self.last_progress = now;
    }

    fn receive_ack(&mut self, segment: &Segment<'_>, now: Instant) {
        let acknowledged = segment.acknowledged;
        let news = acknowledged.wrapping_sub(self.unacknowledged);
        if news > self.furthest.wrapping_sub(self.unacknowledged) {
            // Old, or of what was never sent (RFC 9293, 3.10.7.4).
            return;
        }
        if self.state == State::Accepting {
            if acknowledged != self.furthest {
                return;
            }
            self.open(now);
        }
        let window = u32::from(segment.window) << self.guest_scale;
        let is_in_flight = self.furthest != self.unacknowledged;
        if news > 0 && is_in_flight {
            let ends = self.stream_end.is_some_and(|end| acknowledged == end.wrapping_add(1));
            self.to_discard += news - u32::from(ends);
            self.moved = self.moved.saturating_add(news);
            self.unacknowledged = acknowledged;
            if is_before(self.next, acknowledged) {
                self.next = acknowledged;
            }
            self.progress(now);
        } else if is_in_flight
            && segment.payload.is_empty()
            && !segment.has(FIN)
            && window == self.guest_window
            && !is_before(self.unacknowledged, self.recovered_at)
        {
            self.duplicates = self.duplicates.saturating_add(1);
            if self.duplicates == 3 {
                self.go_back();
            }
        }
        // What a closed window has swallowed is sent again as soon as there is one.
        if self.guest_window == 0 && window > 0 && self.furthest != self.unacknowledged {
            self.go_back();
        }
        self.guest_window = window;
    }

    /// Sends all that is not acknowledged again.
    fn go_back(&mut self) {
        self.recovered_at = self.furthest;
        self.next = self.unacknowledged;
        self.duplicates = 0;
        self.is_drained = false;
    }

    /// One byte back and with nothing in it, or with one that is known, asks whether we are there (RFC 9293, 3.8.4). That is not
    /// what is asked: whoever is beyond the host's socket is.
    fn look_for_probe(&mut self, segment: &Segment<'_>, pause: Duration, host: &mut impl Host) {
        let is_probe = segment.payload.len() <= 1
            && !segment.has(FIN)
            && segment.sequence == self.expected.wrapping_sub(1)
            && self.furthest == self.unacknowledged;
        if is_probe && !self.keeps_alive && pause >= LEAST_KEEPALIVE {
            self.keeps_alive = true;
            host.keep_alive(pause.min(LONGEST_KEEPALIVE));
        }
    }

    fn receive_payload(&mut self, segment: &Segment<'_>, host: &mut impl Host, wire: &mut impl Wire) {
        let has_end = segment.has(FIN);
        if segment.payload.is_empty() && !has_end {
            // One byte back and with nothing in it: asks whether we are there (RFC 9293, 3.8.4).
            self.owes_ack |= is_before(segment.sequence, self.expected);
            return;
        }
        self.owes_ack = true;
        if self.is_ahead(segment) {
            self.ahead += 1;
            return;
        }
        let old = self.expected.wrapping_sub(segment.sequence) as usize;
        // Of the past, or from nowhere: the answer says what is wanted.
        let Some(fresh) = segment.payload.get(old..) else { return };
        if self.guest_has_ended {
            return;
        }
        if !fresh.is_empty() {
            let taken = match host.send(fresh) {
                Ok(taken) => taken,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => 0,
                Err(_) => {
                    self.end(host, wire);
                    return;
                }
            };
            let taken_bytes = u32::try_from(taken).unwrap_or(0);
            self.expected = self.expected.wrapping_add(taken_bytes);
            self.ahead = 0;
            self.moved = self.moved.saturating_add(taken_bytes);
            if taken < fresh.len() {
                self.has_refused = true;
                return;
            }
        }
        if has_end {
            self.expected = self.expected.wrapping_add(1);
            self.guest_has_ended = true;
            host.end();
        }
    }

    /// Whether a segment has been overtaken by those behind which it belongs, or one of them is lost: it will be wanted.
    pub(super) fn is_ahead(&self, segment: &Segment<'_>) -> bool {
        let end = segment.sequence.wrapping_add(u32::try_from(segment.payload.len()).unwrap_or(0));
        self.state == State::Open
            && !segment.payload.is_empty()
            && is_before(self.expected, segment.sequence)
            && !is_before(self.offered, end)
            && !self.guest_has_ended
    }

    /// The next byte that is expected of the container.
    pub(super) fn expected(&self) -> u32 {
        self.expected
    }

    /// Does what a turn's segments and events call for: throws away, sends on, acknowledges.
    pub(super) fn serve(&mut self, now: Instant, host: &mut impl Host, wire: &mut impl Wire) -> Served {
        if self.state != State::Open {
            return Served::Through;
        }
        if self.to_discard > 0 {
            self.is_drained &= !host.discard(std::mem::take(&mut self.to_discard));
        }
        // Who has heard one side's end goes on with the other's here.
        self.is_leaving &= !self.guest_has_ended && self.stream_end.is_none();
        let was_idle = self.furthest == self.unacknowledged;
        let served = self.send(host, wire);
        if was_idle && self.furthest != self.unacknowledged {
            self.last_progress = now;
        }
        if self.owes_ack && self.state == State::Open {
            self.say_ack(host, wire);
            // Three of the same and one more have what is lost sent again (RFC 5681, 3.2). That is said once the turn is over: what
            // was only overtaken has arrived by then.
            for _ in 1..std::mem::take(&mut self.ahead).min(MOST_REPEATED) {
                self.say(wire, Header { window: self.told, flags: ACK, ..self.header() }, 0);
            }
        }
        let is_acknowledged = self.stream_end.is_some_and(|end| self.unacknowledged == end.wrapping_add(1));
        if self.guest_has_ended && is_acknowledged {
            self.state = State::Over;
        }
        served
    }

    fn send(&mut self, host: &mut impl Host, wire: &mut impl Wire) -> Served {
        // With one look at the socket's room for all of them.
        let mut window = None;
        for _ in 0..TURN {
            if self.is_drained {
                return Served::Through;
            }
            let in_flight = self.next.wrapping_sub(self.unacknowledged);
            if self.stream_end == Some(self.next) {
                let window = *window.get_or_insert_with(|| self.window(host));
                self.emit(window, FIN | ACK, 0, wire);
                self.advance(1);
                self.is_drained = true;
                return Served::Through;
            }
            let room = self.guest_window.saturating_sub(in_flight) as usize;
            // Nothing that fills less than a segment, while what is on its way will bring more room (RFC 9293, 3.8.6.2.1).
            if room == 0 || (room < usize::from(self.cut) && in_flight > 0 && in_flight >= self.guest_window / 2) {
                return Served::Through;
            }
            let again = self.furthest.wrapping_sub(self.next) as usize;
            if self.is_leaving && again == 0 {
                return Served::Through;
            }
            let most = if self.is_leaving { again } else { tcp_room(self.guest.is_ipv4()) };
            let wanted = room.min(most).min(tcp_room(self.guest.is_ipv4()));
            match host.peek(in_flight, &mut wire.payload()[..wanted]) {
                Ok(0) => self.stream_end = Some(self.next),
                Ok(length) => {
                    let window = *window.get_or_insert_with(|| self.window(host));
                    self.emit(window, PSH | ACK, length, wire);
                    self.advance(u32::try_from(length).unwrap_or(0));
                    // A short answer was all there is (epoll(7)), unless the end is behind it.
                    self.is_drained = length < wanted && !self.sees_end && !self.has_mark;
                }
                Err(Errno::AGAIN) => self.is_drained = true,
                Err(_) => {
                    self.end(host, wire);
                    return Served::Through;
                }
            }
        }
        Served::Again
    }

    fn advance(&mut self, count: u32) {
        self.next = self.next.wrapping_add(count);
        if is_before(self.furthest, self.next) {
            self.furthest = self.next;
        }
    }

    /// When something has to be done though nothing arrives; `None` where nothing is waited for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let is_waiting = match self.state {
            State::Accepting | State::Opening => true,
            State::Open => self.is_waiting(),
            State::Connecting | State::Over => false,
        };
        is_waiting.then(|| self.last_progress + self.patience())
    }

    /// Nobody has said a word for so long that nobody will miss it.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        now.duration_since(self.last_heard) > IDLE
    }

    /// Something was sent that is not acknowledged, or cannot be sent.
    fn is_waiting(&self) -> bool {
        self.furthest != self.unacknowledged || (self.guest_window == 0 && !self.is_drained)
    }

    fn patience(&self) -> Duration {
        (FIRST_PATIENCE * (1 << self.tries.min(6))).min(LONGEST_PATIENCE)
    }

    /// The deadline has come.
    pub(super) fn expire(&mut self, now: Instant, host: &mut impl Host, wire: &mut impl Wire) {
        let most = if self.state == State::Open { TRIES } else { OPENING_TRIES };
        // A window may stay closed for as long as somebody says that it is (RFC 9293, 3.8.6.1).
        let is_held_off = self.guest_window == 0 && now.duration_since(self.last_heard) < LONGEST_PATIENCE * 2;
        if self.tries >= most && !is_held_off {
            self.end(host, wire);
            return;
        }
        self.tries = self.tries.saturating_add(1);
        self.last_progress = now;
        match self.state {
            State::Accepting | State::Opening => self.say_syn(wire),
            // A window that is closed with something on its way opens with an answer to this.
            _ if self.furthest == self.unacknowledged || self.guest_window == 0 => {
                let window = self.window(host);
                let sequence = self.unacknowledged.wrapping_sub(1);
                self.say(wire, Header { sequence, window, flags: ACK, ..self.header() }, 0);
            }
            _ => self.go_back(),
        }
    }

    /// Ends it for both sides.
    pub(super) fn end(&mut self, host: &mut impl Host, wire: &mut impl Wire) {
        host.reset();
        self.fail(wire);
    }

    fn header(&self) -> Header {
        Header { sequence: self.furthest, acknowledged: self.expected, cut: self.cut, ..Header::default() }
    }

    fn say(&self, wire: &mut impl Wire, header: Header, payload: usize) {
        wire.send(self.remote, self.guest, &header, payload);
    }

    fn say_syn(&mut self, wire: &mut impl Wire) {
        let flags = if self.state == State::Opening { SYN } else { SYN | ACK };
        let longest = Some(self.announced);
        let scale = (self.own_scale > 0).then_some(self.own_scale);
        let sequence = self.unacknowledged;
        let header = Header { sequence, flags, window: u16::MAX, longest, scale, ..self.header() };
        self.say(wire, header, 0);
        self.furthest = sequence.wrapping_add(1);
        self.next = self.furthest;
    }

    fn say_ack(&mut self, host: &mut impl Host, wire: &mut impl Wire) {
        self.owes_ack = false;
        let window = self.window(host);
        self.say(wire, Header { window, flags: ACK, ..self.header() }, 0);
    }

    /// Sends what is in its place, from the next byte on.
    fn emit(&mut self, window: u16, flags: u8, length: usize, wire: &mut impl Wire) {
        self.owes_ack = false;
        self.say(wire, Header { sequence: self.next, window, flags, ..self.header() }, length);
    }

    fn window(&mut self, host: &mut impl Host) -> u16 {
        let (room, says_more) = host.room();
        self.wants_room = says_more || self.has_refused;
        // What the socket writes beside the bytes takes room as well.
        let window = u16::try_from((room - room / 16) >> self.own_scale).unwrap_or(u16::MAX);
        self.told = window;
        self.offered = self.expected.wrapping_add(u32::from(window) << self.own_scale);
        window
    }
}

/// Compares sequence numbers, which go round (RFC 9293, 3.4).
pub(super) fn is_before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other)).cast_signed() < 0
}

#[cfg(test)]
mod tests;
