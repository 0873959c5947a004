//! A connection to a message bus, or to systemd itself: authentication, calls one at a time, signals kept for later.
//!
//! Synchronous, on one socket and with one deadline a call. Exports nothing and passes no descriptors.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::wire::{Call, Incoming, Kind, MESSAGE_LIMIT_BYTES, PREAMBLE_BYTES, Value, message_length};
use crate::error::{Context, Error, Result};

/// How long an answer or a job may take, as with runc.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of the handshake are shorter.
const LINE_LIMIT_BYTES: usize = 4096;

const BUS: &str = "org.freedesktop.DBus";

/// A place where somebody may speak D-Bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    socket: Socket,
    /// Whether the other end is systemd alone, without a bus between (systemd's private socket).
    is_direct: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Socket {
    Path(String),
    Abstract(String),
}

impl Address {
    pub(super) fn bus(path: impl Into<String>) -> Self {
        Self { socket: Socket::Path(path.into()), is_direct: false }
    }

    pub(super) fn direct(path: impl Into<String>) -> Self {
        Self { socket: Socket::Path(path.into()), is_direct: true }
    }

    /// Reads what `DBUS_…_ADDRESS` holds: one or more addresses, of which those are of use that are Unix sockets.
    pub(super) fn parse(text: &str) -> Vec<Self> {
        let parse = |address: &str| {
            address.strip_prefix("unix:")?.split(',').find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                let value = unescape(value)?;
                let socket = match key {
                    "path" => Socket::Path(value),
                    "abstract" => Socket::Abstract(value),
                    _ => return None,
                };
                Some(Self { socket, is_direct: false })
            })
        };
        text.split(';').filter_map(parse).collect()
    }

    /// Says whether somebody listens there who sees the same PIDs as we do.
    pub(super) fn is_near(&self) -> bool {
        self.connect().is_ok_and(|socket| crate::sys::net::peer_pid(&socket).is_ok_and(|pid| pid.is_some()))
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        match &self.socket {
            Socket::Path(path) => UnixStream::connect(Path::new(path)),
            Socket::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.socket {
            Socket::Path(path) => f.write_str(path),
            Socket::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// Undoes the `%xx` of addresses.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The other end said no.
    Refused { name: String, message: String },
    /// Nothing was said.
    Lost(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { name, message } if message.is_empty() => Self::new(crate::error::Kind::Other, name),
            Failure::Refused { name, message } => Self::new(crate::error::Kind::Other, format!("{message} ({name})")),
            Failure::Lost(error) => error,
        }
    }
}

/// A connection.
pub(super) struct Bus {
    socket: UnixStream,
    is_direct: bool,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Incoming>,
}

impl Bus {
    /// Connects to the first of some addresses that answers.
    pub(super) fn connect(addresses: &[Address]) -> Result<Self> {
        let mut failure = Error::unsupported("no address is known");
        for address in addresses {
            match address.connect().map_err(Error::from).and_then(|socket| Self::introduce(socket, address.is_direct)) {
                Ok(bus) => return Ok(bus),
                Err(error) => failure = error.context(address.to_string()),
            }
        }
        Err(failure)
    }

    fn introduce(socket: UnixStream, is_direct: bool) -> Result<Self> {
        let mut bus = Self { socket, is_direct, serial: 0, signals: VecDeque::new() };
        bus.authenticate().context("authenticate")?;
        if !is_direct {
            bus.call(BUS, "/org/freedesktop/DBus", BUS, "Hello", &[])?;
        }
        Ok(bus)
    }

    /// Lets the other end take our identity from the socket, which is right in a user namespace too, where our own
    /// number means another user to it (SASL EXTERNAL with nothing to say).
    fn authenticate(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", deadline)?;
        for expected in ["DATA", "OK "] {
            let line = self.read_line(deadline)?;
            if !line.starts_with(expected) {
                return Err(Error::unsupported(format!("the answer is {}", line.escape_debug())));
            }
        }
        Ok(())
    }

    /// Says whether a number of ours means the same process to the other end.
    ///
    /// In a PID namespace of our own it would be some process of the host's. Then the one who listens (systemd itself, for
    /// its bus) is out of our sight.
    pub(super) fn shares_pids(&self) -> Result<bool> {
        Ok(crate::sys::net::peer_pid(&self.socket).context("ask who listens")?.is_some())
    }

    /// Asks for a kind of signal, which on a direct connection come anyway.
    pub(super) fn listen(&mut self, rule: &str) -> Result<(), Failure> {
        if self.is_direct {
            return Ok(());
        }
        self.call(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", &[Value::text(rule)]).map(drop)
    }

    /// Calls a method and waits for the answer.
    pub(super) fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: &[Value],
    ) -> Result<Vec<Value>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        self.serial += 1;
        let serial = self.serial;
        let destination = (!self.is_direct).then_some(destination);
        let bytes = Call { destination, path, interface, member, body }.encode(serial)?;
        self.write(&bytes, deadline).with_context(|| format!("call {member}"))?;
        loop {
            let message = self.read_message(deadline).with_context(|| format!("wait for the answer to {member}"))?;
            match message.kind {
                Kind::Answer if message.answers == Some(serial) => return Ok(message.body),
                Kind::Failure if message.answers == Some(serial) => {
                    let text = message.body.first().and_then(Value::as_text).unwrap_or_default().to_owned();
                    return Err(Failure::Refused { name: message.error_name, message: text });
                }
                Kind::Signal => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal that `is_it` takes something from; others are dropped.
    pub(super) fn wait_for<T>(&mut self, is_it: impl Fn(&Incoming) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.read_message(deadline)?,
            };
            if let (Kind::Signal, Some(found)) = (message.kind, is_it(&message)) {
                return Ok(found);
            }
        }
    }

    fn read_message(&mut self, deadline: Instant) -> Result<Incoming> {
        let mut preamble = [0; PREAMBLE_BYTES];
        self.read(&mut preamble, deadline)?;
        let length = message_length(&preamble)?;
        debug_assert!((PREAMBLE_BYTES..=MESSAGE_LIMIT_BYTES).contains(&length));
        let mut bytes = vec![0; length];
        bytes[..PREAMBLE_BYTES].copy_from_slice(&preamble);
        self.read(&mut bytes[PREAMBLE_BYTES..], deadline)?;
        Incoming::decode(&bytes)
    }

    fn read_line(&mut self, deadline: Instant) -> Result<String> {
        // Byte for byte: what follows the last line belongs to the first message.
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < LINE_LIMIT_BYTES {
            let mut byte = [0];
            self.read(&mut byte, deadline)?;
            line.extend(byte);
        }
        line.truncate(line.len().saturating_sub(2));
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn read(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<()> {
        while !buffer.is_empty() {
            self.socket.set_read_timeout(Some(left(deadline)?))?;
            match self.socket.read(buffer) {
                Ok(0) => return Err(Error::new(crate::error::Kind::Other, "the connection was closed")),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<()> {
        while !bytes.is_empty() {
            self.socket.set_write_timeout(Some(left(deadline)?))?;
            match self.socket.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Gives the time until a deadline, which is never nothing: that would be no timeout at all.
fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::new(crate::error::Kind::Other, format!("no answer within {} seconds", PATIENCE.as_secs())));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_libraries_do() {
        let path = |path: &str| Address::bus(path);
        for (text, wanted) in [
            ("unix:path=/run/user/1000/bus", vec![path("/run/user/1000/bus")]),
            ("unix:path=/a%20b,guid=0123", vec![path("/a b")]),
            ("tcp:host=x;unix:guid=1,path=/b", vec![path("/b")]),
            ("unix:abstract=/tmp/x", vec![Address { socket: Socket::Abstract("/tmp/x".into()), is_direct: false }]),
            ("unix:path=/bad%2", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(Address::parse(text), wanted, "{text}");
        }
    }

    /// Plays the other end: what it is sent after the handshake, and what it says.
    fn served(says: &[u8]) -> (Bus, UnixStream) {
        const HELLO: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"DATA\r\nOK 0123\r\n").unwrap();
        theirs.write_all(says).unwrap();
        let bus = Bus::introduce(ours, true).unwrap();
        let mut hello = vec![0; HELLO.len()];
        theirs.read_exact(&mut hello).unwrap();
        assert_eq!(hello, HELLO);
        (bus, theirs)
    }

    const VERSION: &[u8] = include_bytes!("recorded/version.bin");
    const UNIT_EXISTS: &[u8] = include_bytes!("recorded/unit_exists.bin");
    const JOB_REMOVED: &[u8] = include_bytes!("recorded/job_removed.bin");

    #[test]
    fn signals_before_an_answer_are_kept() {
        // The recorded answers are to a call of the number 2.
        let (mut bus, _theirs) = served(&[JOB_REMOVED, VERSION].concat());
        bus.serial = 1;
        let answer = bus.call("x", "/x", "a.b", "Get", &[]).unwrap();
        assert_eq!(answer[0].as_text(), Some("252.39-1~deb12u2"));
        let unit = bus.wait_for(|signal| signal.body[2].as_text().map(str::to_owned)).unwrap();
        assert_eq!(unit, "rec-1.scope");
    }

    #[test]
    fn a_refusal_has_its_name() {
        let (mut bus, _theirs) = served(UNIT_EXISTS);
        bus.serial = 1;
        let failure = bus.call("x", "/x", "a.b", "StartTransientUnit", &[]).unwrap_err();
        let Failure::Refused { name, .. } = &failure else { panic!("{failure:?}") };
        assert_eq!(name, "org.freedesktop.systemd1.UnitExists");
        assert!(Error::from(failure).report().contains("already loaded"));
    }

    #[test]
    fn a_peer_that_is_gone_or_refuses_us_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Bus::introduce(ours, true).is_err());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        let error = Bus::introduce(ours, true).err().unwrap();
        assert!(error.report().contains("REJECTED"), "{error:?}");
        let error = Bus::connect(&[Address::bus("/no/such/socket")]).err().unwrap();
        assert!(error.report().starts_with("/no/such/socket: "), "{error:?}");
    }
}
