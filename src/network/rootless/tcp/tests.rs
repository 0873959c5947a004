//! The state machine between a socket and a container that are both made up, with losses in between.

use std::collections::VecDeque;

use super::super::frame::Frame;
use super::*;

/// A socket: what came from outside and is not thrown away, and what was sent.
#[derive(Default)]
struct Outside {
    arrived: VecDeque<u8>,
    has_ended: bool,
    sent: Vec<u8>,
    room: usize,
    was_ended: bool,
    was_reset: bool,
    asked_each: Option<Duration>,
    /// A look does not go past this many bytes, unless it begins there.
    mark: Option<usize>,
}

impl Host for Outside {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let taken = bytes.len().min(self.room);
        if taken == 0 {
            return Err(Errno::AGAIN);
        }
        self.room -= taken;
        self.sent.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn peek(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, Errno> {
        let end = self.mark.filter(|mark| *mark > offset as usize).unwrap_or(usize::MAX);
        let rest = self.arrived.iter().take(end).skip(offset as usize);
        let count = into.iter_mut().zip(rest).map(|(to, from)| *to = *from).count();
        if count == 0 && !self.has_ended { Err(Errno::AGAIN) } else { Ok(count) }
    }

    fn discard(&mut self, count: u32) -> bool {
        assert!(self.arrived.len() >= count as usize, "{count} of {} bytes", self.arrived.len());
        self.arrived.drain(..count as usize);
        false
    }

    fn room(&mut self) -> (u32, bool) {
        (u32::try_from(self.room).unwrap_or(u32::MAX), self.room < 1000)
    }

    fn end(&mut self) {
        assert!(!std::mem::replace(&mut self.was_ended, true));
    }

    fn keep_alive(&mut self, pause: Duration) {
        assert_eq!(self.asked_each.replace(pause), None, "once");
    }

    fn reset(&mut self) {
        self.was_reset = true;
    }
}

/// The device: what was written to it.
#[derive(Default)]
struct Written {
    frame: Frame,
    segments: VecDeque<(Header, Vec<u8>)>,
}

impl Wire for Written {
    fn payload(&mut self) -> &mut [u8] {
        self.frame.payload()
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, payload: usize) {
        assert_eq!((from, to), (remote(), guest()));
        let bytes = self.frame.payload()[..payload].to_vec();
        self.segments.push_back((*header, bytes));
    }
}

fn guest() -> SocketAddr {
    "10.89.0.2:4711".parse().unwrap()
}

fn remote() -> SocketAddr {
    "192.0.2.7:80".parse().unwrap()
}

/// A connection with both its sides.
struct Bench {
    connection: Connection,
    outside: Outside,
    written: Written,
    now: Instant,
}

const OURS: u32 = u32::MAX - 2;
const THEIRS: u32 = u32::MAX - 100;

impl Bench {
    fn syn() -> Segment<'static> {
        let (longest, scale) = (Some(1460), Some(0));
        Segment { sequence: THEIRS, flags: SYN, window: 65_535, longest, scale, ..Segment::default() }
    }

    /// The container has asked, and the host is not there yet.
    fn connecting() -> Self {
        let now = Instant::now();
        let connection = Connection::from_guest((guest(), remote()), &Self::syn(), OURS, now);
        let outside = Outside { room: 1 << 20, ..Outside::default() };
        Self { connection, outside, written: Written::default(), now }
    }

    fn open() -> Self {
        let mut bench = Self::connecting();
        bench.connection.connected(bench.now, &mut bench.outside, &mut bench.written);
        let (header, _) = bench.said();
        assert_eq!((header.flags, header.sequence, header.acknowledged), (SYN | ACK, OURS, THEIRS.wrapping_add(1)));
        assert_eq!((header.longest, header.scale), (Some(65_495), Some(SCALE)));
        bench.hear(1, 1, ACK, b"");
        assert_eq!(bench.connection.state, State::Open);
        bench
    }

    /// Takes a segment; numbers count from the two beginnings.
    fn hear(&mut self, sequence: u32, acknowledged: u32, flags: u8, payload: &[u8]) -> Served {
        let sequence = THEIRS.wrapping_add(sequence);
        let acknowledged = OURS.wrapping_add(acknowledged);
        let segment = Segment { sequence, acknowledged, flags, window: 65_535, payload, ..Segment::default() };
        self.connection.receive(&segment, self.now, &mut self.outside, &mut self.written);
        self.serve()
    }

    fn serve(&mut self) -> Served {
        self.connection.serve(self.now, &mut self.outside, &mut self.written)
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.outside.arrived.extend(bytes);
        self.connection.readable(false, false);
        while self.serve() == Served::Again {}
    }

    fn said(&mut self) -> (Header, Vec<u8>) {
        self.written.segments.pop_front().expect("something is said")
    }

    fn is_silent(&self) -> bool {
        self.written.segments.is_empty()
    }

    /// Lets time pass until something has to be done.
    fn expire(&mut self) {
        self.now = self.connection.deadline().unwrap_or(self.now);
        self.connection.expire(self.now, &mut self.outside, &mut self.written);
        self.serve();
    }
}

#[test]
fn bytes_pass_and_are_acknowledged_once_they_are_taken() {
    let mut bench = Bench::open();
    bench.hear(1, 1, ACK, b"hello");
    let (header, payload) = bench.said();
    assert_eq!((header.flags, header.acknowledged, payload.len()), (ACK, THEIRS.wrapping_add(6), 0));
    assert_eq!(bench.outside.sent, b"hello");

    bench.arrive(b"world");
    let (header, payload) = bench.said();
    assert_eq!((header.sequence, &payload[..]), (OURS.wrapping_add(1), &b"world"[..]));
    assert_eq!(bench.outside.arrived.len(), 5, "kept until it is acknowledged");
    assert!(bench.connection.deadline().is_some());
    bench.hear(6, 6, ACK, b"");
    assert_eq!((bench.outside.arrived.len(), bench.is_silent()), (0, true));
    assert_eq!(bench.connection.deadline(), None);
    assert!(!bench.connection.is_forgotten(bench.now + IDLE) && bench.connection.is_forgotten(bench.now + IDLE * 2));
}

#[test]
fn nothing_is_said_before_the_host_is_connected() {
    let mut bench = Bench::connecting();
    bench.connection.receive(&Bench::syn(), bench.now, &mut bench.outside, &mut bench.written);
    assert!(bench.is_silent());
    bench.connection.fail(&mut bench.written);
    let (header, _) = bench.said();
    assert_eq!((header.flags, header.acknowledged), (RST | ACK, THEIRS.wrapping_add(1)));
    assert_eq!(bench.connection.state, State::Over);
}

#[test]
fn segments_fit_the_socket_that_they_go_to() {
    for (room, expected) in [(0, 1220), (46_080, 7680), (1 << 20, 65_495)] {
        let mut bench = Bench::connecting();
        bench.outside.room = room;
        bench.connection.connected(bench.now, &mut bench.outside, &mut bench.written);
        assert_eq!(bench.said().0.longest, Some(expected), "{room}");
    }
}

#[test]
fn each_side_ends_by_itself() {
    let mut bench = Bench::open();
    bench.hear(1, 1, ACK | FIN, b"last");
    assert_eq!(bench.said().0.acknowledged, THEIRS.wrapping_add(6));
    assert!(bench.outside.was_ended);
    bench.hear(1, 1, ACK | FIN, b"last");
    assert_eq!(
        (bench.said().0.acknowledged, &bench.outside.sent[..]),
        (THEIRS.wrapping_add(6), &b"last"[..]),
        "said twice"
    );

    bench.outside.has_ended = true;
    bench.connection.readable(true, false);
    bench.arrive(b"more");
    let (header, payload) = bench.said();
    assert_eq!((header.flags, &payload[..]), (PSH | ACK, &b"more"[..]));
    let (header, _) = bench.said();
    assert_eq!((header.flags, header.sequence), (FIN | ACK, OURS.wrapping_add(5)));
    bench.hear(6, 5, ACK, b"");
    assert_eq!(bench.connection.state, State::Open);
    bench.hear(6, 6, ACK, b"");
    assert_eq!((bench.connection.state, bench.outside.was_reset, bench.outside.arrived.len()), (State::Over, false, 0));
}

#[test]
fn what_a_full_socket_refuses_is_asked_for_again() {
    let mut bench = Bench::open();
    bench.outside.room = 3;
    bench.hear(1, 1, ACK, b"hello");
    let (header, _) = bench.said();
    assert_eq!((header.acknowledged, header.window), (THEIRS.wrapping_add(4), 0));
    assert!(bench.connection.wants_room);
    bench.outside.room = 1 << 20;
    bench.connection.writable(&mut bench.outside, &mut bench.written);
    let said: Vec<_> = std::iter::from_fn(|| bench.written.segments.pop_front()).collect();
    assert_eq!(said.len(), 4, "a larger window, and three times the same");
    assert!(said.iter().all(|(header, _)| header.acknowledged == THEIRS.wrapping_add(4) && header.window > 3000));
    bench.hear(4, 1, ACK, b"lo");
    assert_eq!(bench.outside.sent, b"hello");
}

#[test]
fn a_gap_is_told_of_as_often_as_something_comes_behind_it() {
    let mut bench = Bench::open();
    let segment = |sequence: u32| Segment {
        sequence: THEIRS.wrapping_add(sequence),
        acknowledged: OURS.wrapping_add(1),
        flags: ACK,
        window: 65_535,
        payload: b"behind",
        ..Segment::default()
    };
    assert!(!bench.connection.is_ahead(&segment(1)) && !bench.connection.is_ahead(&segment(65_531)));
    for place in 1..5 {
        let segment = segment(place * 6 + 1);
        assert!(bench.connection.is_ahead(&segment));
        bench.connection.receive(&segment, bench.now, &mut bench.outside, &mut bench.written);
    }
    assert!(bench.is_silent(), "it may be on its way");
    bench.serve();
    let said: Vec<_> = std::iter::from_fn(|| bench.written.segments.pop_front()).collect();
    assert_eq!(said.len(), 4);
    assert!(said.iter().all(|(header, _)| *header == said[0].0 && header.acknowledged == THEIRS.wrapping_add(1)));
    // One that came late is no reason to send anything again.
    bench.connection.receive(&segment(7), bench.now, &mut bench.outside, &mut bench.written);
    bench.hear(1, 1, ACK, b"first!");
    assert_eq!((bench.said().0.acknowledged, bench.is_silent()), (THEIRS.wrapping_add(7), true));
}

#[test]
fn another_takes_over_where_nothing_is_on_its_way() {
    let mut bench = Bench::open();
    bench.hear(1, 1, ACK, b"hello");
    bench.arrive(b"world");
    assert!(bench.connection.is_long(5) && !bench.connection.is_long(6));
    assert_eq!(bench.connection.standing(), None);
    bench.connection.prepare_to_leave();
    assert_eq!(bench.connection.standing(), None, "it is not acknowledged");
    bench.written.segments.clear();
    bench.arrive(b"!");
    assert!(bench.is_silent(), "that is for who comes after");
    for _ in 0..3 {
        bench.hear(6, 1, ACK, b"");
    }
    bench.hear(6, 1, ACK, b"");
    assert_eq!(bench.said().1, b"world", "what is lost is sent again, and nothing behind it");
    bench.hear(6, 6, ACK, b"");
    let standing = bench.connection.standing().unwrap();
    assert_eq!((standing.own, standing.peer), (remote(), guest()));
    assert_eq!((standing.next, standing.expected), (OURS.wrapping_add(6), THEIRS.wrapping_add(6)));
    assert_eq!((standing.peer_window, standing.longest, standing.own_scale, standing.peer_scale), (65_535, 1460, 8, 0));
    assert_eq!((standing.own_window >> 10, &bench.outside.arrived.make_contiguous()[..]), (959, &b"!"[..]));
    // It goes on here where nobody takes over, or one side has come to its end.
    bench.hear(6, 6, ACK | FIN, b"");
    assert_eq!((bench.connection.standing(), bench.connection.is_long(0)), (None, false));
    bench.connection.readable(false, false);
    bench.serve();
    bench.written.segments.retain(|(_, payload)| !payload.is_empty());
    assert_eq!(bench.said().1, b"!");
}

#[test]
fn only_what_fits_the_window_is_sent() {
    let mut bench = Bench::open();
    bench.arrive(&vec![7; 100_000]);
    let sent: usize = std::iter::from_fn(|| bench.written.segments.pop_front()).map(|(_, payload)| payload.len()).sum();
    assert_eq!(sent, 65_495, "and nothing that would be a small piece of it");
    bench.hear(1, 65_496, ACK, b"");
    assert_eq!(bench.said().1.len(), 100_000 - 65_495);
    assert_eq!(bench.outside.arrived.len(), 100_000 - 65_495);
}

#[test]
fn what_is_lost_is_sent_again() {
    let mut bench = Bench::open();
    bench.arrive(b"one");
    bench.arrive(b"two");
    bench.written.segments.clear();
    for _ in 0..3 {
        bench.hear(1, 1, ACK, b"");
    }
    assert_eq!(bench.said().1, b"onetwo", "after three that ask for it");
    for _ in 0..6 {
        bench.hear(1, 1, ACK, b"");
    }
    assert!(bench.is_silent(), "and not for each that follows");
    bench.expire();
    assert_eq!(bench.said().1, b"onetwo", "after a while");
    bench.hear(1, 4, ACK, b"");
    bench.expire();
    assert_eq!(bench.said().1, b"two");
    for _ in 0..TRIES {
        bench.expire();
    }
    assert_eq!((bench.connection.state, bench.outside.was_reset), (State::Over, true), "nobody is there");
}

#[test]
fn what_a_closed_window_has_swallowed_is_sent_again_when_it_opens() {
    let mut bench = Bench::open();
    bench.arrive(b"swallowed");
    assert_eq!(bench.said().1, b"swallowed");
    let window = |window| Segment {
        sequence: THEIRS.wrapping_add(1),
        acknowledged: OURS.wrapping_add(1),
        flags: ACK,
        window,
        ..Segment::default()
    };
    for (segment, said) in [(window(0), None), (window(100), Some(&b"swallowed"[..]))] {
        bench.connection.receive(&segment, bench.now, &mut bench.outside, &mut bench.written);
        bench.serve();
        assert_eq!(bench.written.segments.pop_front().map(|(_, bytes)| bytes).as_deref(), said);
    }
}

#[test]
fn urgent_data_do_not_hide_what_is_behind_them() {
    let mut bench = Bench::open();
    bench.outside.mark = Some(3);
    bench.outside.arrived.extend(b"abcUdef");
    bench.connection.readable(false, true);
    while bench.serve() == Served::Again {}
    assert_eq!((bench.said().1, bench.said().1), (b"abc".to_vec(), b"Udef".to_vec()));
}

#[test]
fn a_container_s_question_is_passed_on() {
    let mut bench = Bench::open();
    bench.now += Duration::from_mins(1);
    for _ in 0..2 {
        bench.hear(0, 1, ACK, b"");
        assert_eq!(bench.said().0.flags, ACK, "we are there");
    }
    assert_eq!(bench.outside.asked_each, Some(Duration::from_mins(1)));
}

#[test]
fn a_window_that_stays_closed_is_asked_after() {
    let mut bench = Bench::open();
    let segment = |bench: &Bench| Segment {
        sequence: bench.connection.expected,
        acknowledged: OURS.wrapping_add(1),
        flags: ACK,
        ..Segment::default()
    };
    let closed = segment(&bench);
    bench.connection.receive(&closed, bench.now, &mut bench.outside, &mut bench.written);
    bench.arrive(b"patience");
    for _ in 0..40 {
        assert!(bench.is_silent());
        bench.expire();
        assert_eq!(bench.said().0.sequence, OURS, "a byte back: to be answered");
        bench.connection.receive(&closed, bench.now, &mut bench.outside, &mut bench.written);
    }
    bench.hear(1, 1, ACK, b"");
    assert_eq!(bench.said().1, b"patience");
}

#[test]
fn a_reset_counts_where_it_is_the_next_byte() {
    let mut bench = Bench::open();
    bench.hear(2, 1, RST, b"");
    assert_eq!((bench.connection.state, bench.said().0.flags), (State::Open, ACK), "RFC 5961");
    bench.hear(1, 1, RST, b"");
    assert_eq!((bench.connection.state, bench.outside.was_reset), (State::Over, true));
}

#[test]
fn a_caller_is_let_in_or_not() {
    let begin = || {
        let (now, mut written) = (Instant::now(), Written::default());
        let mut outside = Outside { room: 1 << 20, ..Outside::default() };
        let connection = Connection::from_host((guest(), remote()), OURS, now, &mut outside, &mut written);
        let mut bench = Bench { connection, outside, written, now };
        assert_eq!(bench.said().0.flags, SYN);
        bench
    };
    let mut bench = begin();
    bench.hear(0, 1, RST | ACK, b"");
    assert_eq!((bench.connection.state, bench.outside.was_reset), (State::Over, true));

    let mut bench = begin();
    bench.expire();
    assert_eq!(bench.said().0, begin_header(), "once more");
    bench.hear(0, 2, SYN | ACK, b"");
    assert_eq!((bench.connection.state, bench.said().0.flags), (State::Opening, RST), "of another, which is over");
    bench.hear(0, 1, SYN | ACK, b"");
    assert_eq!((bench.connection.state, bench.said().0.flags), (State::Open, ACK));

    let mut bench = begin();
    for _ in 0..=OPENING_TRIES {
        bench.expire();
    }
    assert_eq!((bench.connection.state, bench.outside.was_reset), (State::Over, true));
}

fn begin_header() -> Header {
    let (longest, scale) = (Some(65_495), Some(SCALE));
    Header { sequence: OURS, flags: SYN, window: 65_535, longest, scale, cut: DEFAULT_LONGEST, ..Header::default() }
}

/// A container's stack, as simple as one can be: takes what is next, and sends what is not acknowledged again.
struct Guest {
    next: u32,
    acknowledged: u32,
    outgoing: Vec<u8>,
    received: Vec<u8>,
    expected: u32,
}

impl Guest {
    fn take(&mut self, header: &Header, payload: &[u8]) {
        if header.flags & ACK != 0 {
            let news = header.acknowledged.wrapping_sub(THEIRS.wrapping_add(1)).wrapping_sub(self.acknowledged);
            if (news as usize) <= self.outgoing.len() {
                self.acknowledged += news;
            }
        }
        let old = self.expected.wrapping_sub(header.sequence) as usize;
        if let Some(fresh) = payload.get(old..) {
            self.received.extend(fresh);
            self.expected = self.expected.wrapping_add(u32::try_from(fresh.len()).unwrap());
        }
    }
}

/// Both ways at once, with every seventh or so segment lost in each, and a socket that is full now and then.
#[test]
fn everything_arrives_whatever_is_lost() {
    for seed in 1..40_u64 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = |sides: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % sides
        };
        let pattern =
            |salt: u32| (0..50_000_u32).map(move |place| ((place * salt) >> 3).to_le_bytes()[0]).collect::<Vec<u8>>();
        let (down, up) = (pattern(7), pattern(13));
        let mut bench = Bench::open();
        bench.outside.arrived.extend(&down);
        bench.connection.readable(false, false);
        let mut guest = Guest {
            next: 0,
            acknowledged: 0,
            outgoing: up.clone(),
            received: Vec::new(),
            expected: OURS.wrapping_add(1),
        };
        for turn in 0..100_000 {
            if guest.received == down && bench.outside.sent == up {
                break;
            }
            assert!(turn < 99_999, "seed {seed}: {} down, {} up", guest.received.len(), bench.outside.sent.len());
            bench.outside.room = 700 * usize::try_from(roll(3)).unwrap();
            bench.connection.writable(&mut bench.outside, &mut bench.written);
            bench.serve();
            while let Some((header, payload)) = bench.written.segments.pop_front() {
                if roll(7) > 0 {
                    guest.take(&header, &payload);
                }
            }
            if roll(4) == 0 {
                // What was not acknowledged is sent again.
                guest.next = guest.acknowledged;
            }
            let start = (guest.next as usize).min(guest.outgoing.len());
            let chunk =
                guest.outgoing[start..].iter().take(usize::try_from(roll(3000)).unwrap()).copied().collect::<Vec<u8>>();
            if roll(7) > 0 {
                let segment = Segment {
                    sequence: THEIRS.wrapping_add(1 + guest.next),
                    acknowledged: guest.expected,
                    flags: ACK,
                    window: 20_000,
                    payload: &chunk,
                    ..Segment::default()
                };
                bench.connection.receive(&segment, bench.now, &mut bench.outside, &mut bench.written);
            }
            guest.next += u32::try_from(chunk.len()).unwrap();
            bench.now += Duration::from_millis(50);
            if bench.connection.deadline().is_some_and(|deadline| deadline <= bench.now) {
                bench.connection.expire(bench.now, &mut bench.outside, &mut bench.written);
            }
        }
        let acknowledged =
            bench.connection.unacknowledged.wrapping_sub(OURS.wrapping_add(1)) - bench.connection.to_discard;
        assert_eq!(bench.outside.arrived.len() + acknowledged as usize, down.len(), "seed {seed}");
    }
}

/// Segments of all kinds in any order: nothing panics, and nothing is sent that was not acknowledged by the rules.
#[test]
fn nonsense_does_no_harm() {
    for seed in 1..2000_u64 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = |sides: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            u32::try_from(dice % sides).unwrap()
        };
        let mut bench = if seed % 2 == 0 { Bench::open() } else { Bench::connecting() };
        for _ in 0..60 {
            let payload = vec![0; roll(200) as usize];
            let flags = u8::try_from(roll(64)).unwrap();
            match roll(6) {
                0 => bench.outside.arrived.extend(&payload),
                1 => bench.connection.readable(bench.outside.has_ended, false),
                2 => bench.expire(),
                3 if roll(8) == 0 => bench.outside.has_ended = true,
                _ => drop(bench.hear(roll(400), roll(400), flags, &payload)),
            }
            bench.written.segments.clear();
        }
    }
}
