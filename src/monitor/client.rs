//! The side of a command: forks the monitor or connects to it, and attends to the container: signals and input go in, output
//! comes out, the exit status last.
//!
//! Nothing here waits for one side only: while standard output is not read, signals still arrive at the workload.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::keys::{Keys, Watcher};
use super::link::{CHUNK_SIZE, Link, MESSAGE_SIZE, Message, Sent, Stop, Stream, Wants};
use super::streams::Serving;
use super::supervise::{self, Beginning, Job};
use super::{ATTACH, Exit};
use crate::error::{Context, Error, Kind, Result};
use crate::runtime::console::RawMode;
use crate::runtime::foreground;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::signal::{self, Signals};

/// A conversation with a container's monitor.
pub struct Client {
    link: Link,
    /// The monitor, where it is our own child.
    monitor: Option<OwnedFd>,
    /// The container ends with its monitor.
    ends_with_monitor: bool,
    /// The workload; none between two runs.
    pidfd: Option<OwnedFd>,
    has_terminal: bool,
    /// Things the user should be told: of the start, before anything is attended to; what comes later is told at the end.
    pub warnings: Vec<String>,
}

/// What a command does while it attends.
#[derive(Clone, Debug)]
pub struct Attending {
    /// Passes its standard input on.
    pub input: bool,
    /// Shows output, and errors; what is not shown is read all the same.
    pub shows: [bool; 2],
    /// Passes signals on; else they end the attending, not the container.
    pub proxies_signals: bool,
    pub keys: Keys,
}

/// How an attending came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With the container's.
    Exit(Exit),
    /// The user left.
    Detached,
}

/// Forks a monitor for a job and waits until the workload runs.
///
/// `_signals` says that they are blocked, for the monitor has to be born so.
pub fn start(job: &Job<'_>, _signals: &Signals) -> Result<Client> {
    let (link, their_link) = Link::pair()?;
    let monitor = match clone3(CloneFlags::empty(), None).context("fork the monitor")? {
        Cloned::Child => {
            drop(link);
            supervise::run(job, their_link)
        }
        Cloned::Parent(_, monitor) => monitor,
    };
    drop(their_link);
    let mut warnings = Vec::new();
    let mut buffer = vec![0; MESSAGE_SIZE];
    loop {
        match link.receive(&mut buffer)? {
            Some(Message::Warning(text)) => warnings.push(text),
            Some(Message::Started { pidfd, has_terminal }) => {
                let ends_with_monitor = !matches!(job.serving, Serving::Fifos { .. });
                let (monitor, pidfd) = (Some(monitor), Some(pidfd));
                return Ok(Client { link, monitor, ends_with_monitor, pidfd, has_terminal, warnings });
            }
            // Between the look and the monitor.
            Some(Message::Ended(_)) if matches!(job.beginning, Beginning::TakeOver { .. }) => {
                let (monitor, pidfd) = (Some(monitor), None);
                return Ok(Client { link, monitor, ends_with_monitor: false, pidfd, has_terminal: false, warnings });
            }
            Some(Message::Failed(error)) => {
                let _ = foreground::wait(&monitor);
                return Err(error);
            }
            Some(_) => return Err(Error::new(Kind::Other, "the monitor told of a run that has not begun")),
            None => return Err(Error::new(Kind::Other, "the monitor was killed before the container ran")),
        }
    }
}

/// Connects to the monitor of the container in `folder`; `None` where none is there.
pub fn connect(folder: BorrowedFd<'_>, wants: Wants) -> Result<Option<Client>> {
    let Some(link) = Link::connect(folder, ATTACH)? else { return Ok(None) };
    link.send_hello(wants);
    let (monitor, pidfd) = (None, None);
    Ok(Some(Client { link, monitor, ends_with_monitor: false, pidfd, has_terminal: false, warnings: Vec::new() }))
}

impl Client {
    /// Asks for the container's end.
    pub fn stop(&self, stop: Stop) {
        self.link.send_stop(stop);
    }

    /// Asks for the container's end, and waits until that is under way; `false` where the monitor has ended without a word.
    pub fn begin_stop(&self, stop: Stop) -> Result<bool> {
        self.link.send_stop(stop);
        self.is_heard()
    }

    /// Says that the container is to be in other networks by now, and waits until it is; `false` where the monitor has ended
    /// without a word.
    pub fn change_networks(&self) -> Result<bool> {
        self.link.send_networks();
        self.is_heard()
    }

    fn is_heard(&self) -> Result<bool> {
        let mut buffer = vec![0; MESSAGE_SIZE];
        loop {
            match self.link.receive(&mut buffer)? {
                Some(Message::Heard | Message::Ended(_)) => return Ok(true),
                Some(Message::Failed(error)) => return Err(error),
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }

    /// Waits for the container's end, and its monitor's, and for nothing else; `None` where that ended without a word.
    pub fn wait(&self) -> Result<Option<Exit>> {
        let mut buffer = vec![0; MESSAGE_SIZE];
        let mut ended = None;
        loop {
            match self.link.receive(&mut buffer)? {
                Some(Message::Ended(exit)) => ended = Some(exit),
                Some(Message::Failed(error)) => return Err(error),
                Some(_) => {}
                None => return Ok(ended),
            }
        }
    }

    /// Attends to the workload until it has ended and is cleared, or the user leaves; what `tell` gets then did not succeed at
    /// the end, and changes nothing about it.
    pub fn attend(mut self, attending: &Attending, signals: &Signals, tell: &dyn Fn(&str)) -> Result<Ended> {
        let told = self.warnings.len();
        let mut conversation = Conversation::new(attending);
        let stdin = rustix::stdio::stdin();
        let mut raw = None;
        loop {
            // Also after a restart, and with the first word of a monitor that was there before.
            if self.has_terminal && attending.input && raw.is_none() {
                raw = RawMode::set(stdin).context("set raw mode")?;
                conversation.watcher = Some(Watcher::new(attending.keys.clone()));
                self.send_size();
            }
            match self.turn(&mut conversation, attending, signals)? {
                None => {}
                Some(ended) => {
                    conversation.flush_all();
                    drop(raw);
                    self.warnings[told..].iter().for_each(|warning| tell(warning));
                    // It has told all and only ends; nobody should find it still there.
                    if let (Ended::Exit(_), Some(monitor)) = (ended, &self.monitor) {
                        foreground::wait(monitor)?;
                    }
                    return Ok(ended);
                }
            }
        }
    }

    /// Waits for whatever comes first, and deals with it.
    fn turn(
        &mut self,
        conversation: &mut Conversation,
        attending: &Attending,
        signals: &Signals,
    ) -> Result<Option<Ended>> {
        let events = conversation.wait(&self.link, signals)?;
        if events.output {
            conversation.flush(&self.link);
        }
        if events.signals && self.forward(attending, signals)? {
            self.link.send_detach();
            return Ok(Some(Ended::Detached));
        }
        if events.input {
            match conversation.read_input(attending) {
                Typed::Something => {}
                Typed::Detach => {
                    self.link.send_detach();
                    return Ok(Some(Ended::Detached));
                }
            }
        }
        if events.input || events.room {
            conversation.send_input(&self.link);
        }
        if events.message {
            return self.receive(conversation, attending);
        }
        Ok(None)
    }

    fn receive(&mut self, conversation: &mut Conversation, attending: &Attending) -> Result<Option<Ended>> {
        let mut buffer = std::mem::take(&mut conversation.buffer);
        let ended = match self.link.receive(&mut buffer)? {
            Some(Message::Ended(exit)) => Some(Ended::Exit(exit)),
            Some(Message::Failed(error)) => return Err(error),
            Some(Message::Warning(text)) => {
                // Not now: the terminal may be raw, and the workload's. What every run is warned of is told once.
                if !self.warnings.contains(&text) {
                    self.warnings.push(text);
                }
                None
            }
            Some(Message::Started { pidfd, has_terminal }) => {
                (self.pidfd, self.has_terminal) = (Some(pidfd), has_terminal);
                None
            }
            Some(Message::Output(stream, bytes)) => {
                if attending.shows[usize::from(stream == Stream::Errors)] {
                    conversation.unwritten.extend_from_slice(bytes);
                    conversation.stream = stream;
                    conversation.flush(&self.link);
                }
                None
            }
            Some(_) => None,
            None => {
                if self.ends_with_monitor
                    && let Some(pidfd) = &self.pidfd
                {
                    let _ = signal::send(pidfd.as_fd(), signal::KILL);
                    return Err(Error::new(Kind::Other, "the monitor was killed; so was the container")
                        .with_hint("what it left is cleared by the next command"));
                }
                if self.monitor.is_some() {
                    return Err(Error::new(Kind::Other, "the monitor was killed; the container goes on")
                        .with_hint("the next command that meets it gives it another"));
                }
                return Err(Error::new(Kind::Other, "the container's monitor has hung up")
                    .with_hint("who does not read what a container writes is dropped; `husk logs` has all of it"));
            }
        };
        conversation.buffer = buffer;
        Ok(ended)
    }

    /// Passes on the signals that have arrived; `true` where one of them is for us.
    fn forward(&self, attending: &Attending, signals: &Signals) -> Result<bool> {
        while let Some(arrived) = signals.next().context("read signals")? {
            match arrived.number {
                // About our own children, pipes and terminal (and SIGURG, which Go programs send between their threads):
                // not the workload's business.
                signal::CHILD | signal::PIPE | signal::URGENT | signal::TTY_INPUT | signal::TTY_OUTPUT => {}
                signal::WINDOW => self.send_size(),
                number if attending.proxies_signals => {
                    let Some(pidfd) = &self.pidfd else { continue };
                    match signal::send(pidfd.as_fd(), number) {
                        Ok(()) | Err(Errno::SRCH) => {}
                        Err(errno) => return Err(errno).with_context(|| format!("send signal {number}")),
                    }
                }
                number if signal::ENDING.contains(&number) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    fn send_size(&self) {
        if let Some(size) = [rustix::stdio::stdin(), rustix::stdio::stdout()]
            .iter()
            .find_map(|fd| rustix::termios::tcgetwinsize(fd).ok())
            .filter(|_| self.has_terminal)
        {
            self.link.send_size(size.ws_row, size.ws_col);
        }
    }
}

/// What is on its way between the command's streams and the monitor.
struct Conversation {
    buffer: Vec<u8>,
    /// For `stream`, and not written yet.
    unwritten: Vec<u8>,
    stream: Stream,
    /// Which of output and errors nobody reads any more.
    closed: [bool; 2],
    /// Read and not sent yet.
    unsent: Vec<u8>,
    has_input: bool,
    /// Input has ended, which has yet to be said.
    ends_input: bool,
    watcher: Option<Watcher>,
}

/// What a wait brought.
struct Events {
    message: bool,
    room: bool,
    signals: bool,
    input: bool,
    output: bool,
}

enum Typed {
    Something,
    Detach,
}

/// A pipe that polls writable takes this much without blocking (`PIPE_BUF`, pipe(7)), so that a reader who is slow never
/// keeps us from the signals.
const CAREFUL_SIZE: usize = 4096;

impl Conversation {
    fn new(attending: &Attending) -> Self {
        Self {
            buffer: vec![0; MESSAGE_SIZE],
            unwritten: Vec::new(),
            stream: Stream::Output,
            closed: [false; 2],
            unsent: Vec::new(),
            has_input: attending.input,
            ends_input: false,
            watcher: None,
        }
    }

    fn wait(&self, link: &Link, signals: &Signals) -> Result<Events> {
        let (stdin, to) = (rustix::stdio::stdin(), target(self.stream));
        let reads_input = self.has_input && self.unsent.is_empty();
        let writes = !self.unwritten.is_empty();
        let has_unsent = !self.unsent.is_empty() || self.ends_input;
        let mut link_flags = PollFlags::empty();
        link_flags.set(PollFlags::IN, !writes);
        link_flags.set(PollFlags::OUT, has_unsent);
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        // A side that has hung up polls as ready whatever is asked of it: what is of no interest stays out.
        let mut add = |is_wanted: bool, fd, flags| {
            is_wanted.then(|| {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                fds.len() - 1
            })
        };
        let link_place = add(!link_flags.is_empty(), link.as_fd(), link_flags);
        let input_place = add(reads_input, stdin, PollFlags::IN);
        let output_place = add(writes, to, PollFlags::OUT);
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for events"),
        }
        let events = |place: Option<usize>| place.map_or(PollFlags::empty(), |place| fds[place].revents());
        let of_link = events(link_place);
        Ok(Events {
            message: !writes && of_link.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
            room: has_unsent && of_link.intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR),
            signals: !fds[0].revents().is_empty(),
            input: !events(input_place).is_empty(),
            output: !events(output_place).is_empty(),
        })
    }

    /// Writes what the stream takes without making us wait.
    fn flush(&mut self, link: &Link) {
        let to = target(self.stream);
        let is_closed = &mut self.closed[usize::from(self.stream == Stream::Errors)];
        while !self.unwritten.is_empty() && !*is_closed {
            let careful = !takes_all(to);
            if careful && !is_writable(to) {
                return;
            }
            let length = if careful { self.unwritten.len().min(CAREFUL_SIZE) } else { self.unwritten.len() };
            match rustix::io::write(to, &self.unwritten[..length]) {
                Ok(count) => drop(self.unwritten.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => {
                    *is_closed = true;
                    link.send_closed(self.stream);
                }
            }
        }
        self.unwritten.clear();
    }

    /// Writes all that is left, however slowly it is read.
    fn flush_all(&mut self) {
        while !self.unwritten.is_empty() {
            match rustix::io::write(target(self.stream), &self.unwritten) {
                Ok(count) => drop(self.unwritten.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let _ = poll(&mut [PollFd::from_borrowed_fd(target(self.stream), PollFlags::OUT)], None);
                }
                Err(_) => return,
            }
        }
    }

    fn read_input(&mut self, attending: &Attending) -> Typed {
        let count = match rustix::io::read(rustix::stdio::stdin(), &mut self.buffer[..CHUNK_SIZE]) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Typed::Something,
            // EIO: the terminal has gone.
            Err(_) => 0,
        };
        if count == 0 {
            self.has_input = false;
            self.ends_input = attending.input;
            return Typed::Something;
        }
        match &mut self.watcher {
            Some(watcher) => {
                let (passed, detaches) = watcher.take(&self.buffer[..count]);
                self.unsent.extend_from_slice(&passed);
                if detaches {
                    return Typed::Detach;
                }
            }
            None => self.unsent.extend_from_slice(&self.buffer[..count]),
        }
        Typed::Something
    }

    fn send_input(&mut self, link: &Link) {
        if !self.unsent.is_empty() && link.send_input(&self.unsent) != Sent::Full {
            self.unsent.clear();
        }
        if self.unsent.is_empty() && self.ends_input && link.send_end_of_input() != Sent::Full {
            self.ends_input = false;
        }
    }
}

fn target(stream: Stream) -> BorrowedFd<'static> {
    match stream {
        Stream::Output => rustix::stdio::stdout(),
        Stream::Errors => rustix::stdio::stderr(),
    }
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&now)).is_ok_and(|count| count > 0)
}

/// Says whether a write never waits for a reader: a file.
fn takes_all(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}
