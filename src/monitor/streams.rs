//! The monitor's ends of a workload's standard streams: pipes, or the master of a terminal. Moves bytes, keeps none but
//! those that a workload has not read yet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::link::{CHUNK_SIZE, Stream};
use super::log::Log;
use crate::error::{Context, Result};
use crate::support::atomic::PRIVATE;

/// How a workload's streams are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// It gets the command's own; without input, an empty one. Nobody sees what it writes but who reads those.
    Inherited { has_input: bool },
    /// Pipes; without input, an empty one.
    Pipes { has_input: bool },
    /// FIFOs in the container's folder, which the workload has open for both directions: so it goes on without a monitor,
    /// and the next one finds them. Without input, an empty one; with one that has an end, a pipe for that.
    Fifos { input: Input },
    /// A terminal, of the container's own.
    Terminal,
}

/// What a workload with FIFOs has for its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    None,
    /// Whoever attaches gives some, and nobody ends it.
    Endless,
    /// The command that starts the container gives it, and ends it.
    Ends,
}

/// The command's own streams, kept for a workload that is started again with them.
pub(super) struct Kept([OwnedFd; 3]);

impl Kept {
    pub(super) fn new() -> Result<Self> {
        let keep = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).context("keep the command's streams");
        Ok(Self([keep(rustix::stdio::stdin())?, keep(rustix::stdio::stdout())?, keep(rustix::stdio::stderr())?]))
    }

    /// Makes them this process's again.
    pub(super) fn restore(&self) -> Result<()> {
        let [input, output, errors] = &self.0;
        rustix::stdio::dup2_stdin(input)?;
        rustix::stdio::dup2_stdout(output)?;
        rustix::stdio::dup2_stderr(errors)?;
        Ok(())
    }
}

/// The FIFOs of a container's folder.
const INPUT: &str = "input";
const OUTPUT: &str = "output";
const ERRORS: &str = "errors";

/// The ends of one run.
pub(super) struct Streams {
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    input: Option<OwnedFd>,
    is_terminal: bool,
    /// What the workload has been sent and has not read.
    unread: Vec<u8>,
    /// After that there is no more.
    input_ends: bool,
}

/// From here on no more input is taken until the workload has read some.
const UNREAD_SIZE: usize = CHUNK_SIZE;

impl Streams {
    /// Makes the streams of a workload that is about to be launched, its own ends as this process's standard ones.
    pub(super) fn prepare(serving: Serving, folder: BorrowedFd<'_>) -> Result<Self> {
        let nothing = Self::none();
        let (has_input, has_pipes) = match serving {
            Serving::Terminal => return Ok(nothing),
            Serving::Fifos { input } => return Self::with_fifos(input, folder),
            Serving::Inherited { has_input } => (has_input, false),
            Serving::Pipes { has_input } => (has_input, true),
        };
        if !has_input {
            rustix::stdio::dup2_stdin(open_null()?).context("close the workload's standard input")?;
        }
        if !has_pipes {
            return Ok(nothing);
        }
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe for the workload");
        let input = if has_input {
            let (theirs, ours) = pipe()?;
            rustix::stdio::dup2_stdin(theirs).context("set up the workload's standard input")?;
            set_nonblocking(&ours)?;
            Some(ours)
        } else {
            None
        };
        let (output, theirs) = pipe()?;
        rustix::stdio::dup2_stdout(theirs).context("set up the workload's standard output")?;
        let (errors, theirs) = pipe()?;
        rustix::stdio::dup2_stderr(theirs).context("set up the workload's standard error")?;
        Ok(Self { output: Some(output), errors: Some(errors), input, ..nothing })
    }

    /// Those of a workload that has not begun.
    pub(super) fn none() -> Self {
        Self { output: None, errors: None, input: None, is_terminal: false, unread: Vec::new(), input_ends: false }
    }

    fn with_fifos(input: Input, folder: BorrowedFd<'_>) -> Result<Self> {
        let ours = match input {
            Input::None => {
                rustix::stdio::dup2_stdin(open_null()?).context("close the workload's standard input")?;
                None
            }
            Input::Ends => {
                let (theirs, ours) =
                    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe for the workload")?;
                rustix::stdio::dup2_stdin(theirs).context("set up the workload's standard input")?;
                set_nonblocking(&ours)?;
                Some(ours)
            }
            Input::Endless => {
                let theirs = make_fifo(folder, INPUT)?;
                rustix::stdio::dup2_stdin(theirs).context("set up the workload's standard input")?;
                open_fifo(folder, INPUT, OFlags::WRONLY)?
            }
        };
        rustix::stdio::dup2_stdout(make_fifo(folder, OUTPUT)?).context("set up the workload's standard output")?;
        rustix::stdio::dup2_stderr(make_fifo(folder, ERRORS)?).context("set up the workload's standard error")?;
        Ok(Self { input: ours, ..Self::reopen(folder)? })
    }

    /// Opens the FIFOs that a monitor before has made.
    pub(super) fn reopen(folder: BorrowedFd<'_>) -> Result<Self> {
        // Nobody has it open for reading where the workload has closed it.
        let input = open_fifo(folder, INPUT, OFlags::WRONLY)?;
        let output = open_fifo(folder, OUTPUT, OFlags::RDONLY)?;
        let errors = open_fifo(folder, ERRORS, OFlags::RDONLY)?;
        Ok(Self { output, errors, input, ..Self::none() })
    }

    /// Lets go of the workload's ends: its pipes end with it, and a pipe of the command's is not held open by us.
    pub(super) fn launched(&mut self, terminal: Option<OwnedFd>) -> Result<()> {
        let_go()?;
        if let Some(master) = terminal {
            set_nonblocking(&master)?;
            self.input = Some(master.try_clone().context("share the terminal")?);
            self.output = Some(master);
            self.is_terminal = true;
        }
        Ok(())
    }

    pub(super) fn has_terminal(&self) -> bool {
        self.is_terminal
    }

    /// What there is to be read.
    pub(super) fn readable(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let output = self.output.iter().map(|fd| (Stream::Output, fd.as_fd()));
        output.chain(self.errors.iter().map(|fd| (Stream::Errors, fd.as_fd())))
    }

    /// Where input waits to be written.
    pub(super) fn writable(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().filter(|_| !self.unread.is_empty()).map(AsFd::as_fd)
    }

    pub(super) fn takes_input(&self) -> bool {
        self.unread.len() < UNREAD_SIZE
    }

    /// Reads what there is of a stream. At its end the stream is gone, and the length 0.
    pub(super) fn read(&mut self, stream: Stream, buffer: &mut [u8], log: Option<&mut Log<'_>>) -> usize {
        let end = match stream {
            Stream::Output => &mut self.output,
            Stream::Errors => &mut self.errors,
        };
        let Some(fd) = end else { return 0 };
        let answer = match log {
            Some(log) => log.take(stream, fd.as_fd(), buffer),
            None => rustix::io::read(fd, buffer),
        };
        match answer {
            // EIO: nobody has the terminal open any more. While the workload lives it may be opened again; then nobody
            // reads, as with docker.
            Ok(0) | Err(Errno::IO) => *end = None,
            Ok(count) => return count,
            Err(_) => {}
        }
        0
    }

    /// Reads what a workload that has ended left in its pipes; `None` once there is nothing more.
    pub(super) fn read_rest(&mut self, buffer: &mut [u8], mut log: Option<&mut Log<'_>>) -> Option<(Stream, usize)> {
        loop {
            let (stream, is_ready) = self.readable().find_map(|(stream, fd)| {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
                let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0);
                ready.then_some((stream, ready))
            })?;
            debug_assert!(is_ready);
            let count = self.read(stream, buffer, log.as_deref_mut());
            if count > 0 {
                return Some((stream, count));
            }
            // Readable and nothing to be read: a stream that has just ended, or one that somebody outside emptied.
            if self.readable().any(|(other, _)| other == stream) {
                self.close(stream);
            }
        }
    }

    /// Nobody reads it any more, and the workload is to know.
    pub(super) fn close(&mut self, stream: Stream) {
        if self.is_terminal {
            return;
        }
        match stream {
            Stream::Output => self.output = None,
            Stream::Errors => self.errors = None,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.input.is_some() {
            self.unread.extend_from_slice(bytes);
            self.flush();
        }
    }

    /// Writes what the workload takes now.
    pub(super) fn flush(&mut self) {
        let Some(input) = &self.input else { return };
        let mut written = 0;
        while written < self.unread.len() {
            match rustix::io::write(input, &self.unread[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // It does not read any more.
                Err(_) => {
                    self.unread = Vec::new();
                    self.input = None;
                    return;
                }
            }
        }
        self.unread.drain(..written);
        if self.unread.is_empty() {
            self.unread = Vec::new();
            if self.input_ends {
                self.input = None;
            }
        }
    }

    /// There is no more input. A terminal stays.
    pub(super) fn end_input(&mut self) {
        if !self.is_terminal {
            self.input_ends = true;
            self.flush();
        }
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) {
        if let Some(master) = self.output.as_ref().filter(|_| self.is_terminal) {
            let _ = crate::runtime::console::set_size(master, rows, columns);
        }
    }
}

/// Says whether a workload that lives has FIFOs in its folder.
pub fn has_fifos(folder: BorrowedFd<'_>) -> bool {
    rustix::fs::statat(folder, OUTPUT, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Makes a FIFO, and gives the workload's end of it: for both directions, so that it never lacks a reader.
fn make_fifo(folder: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let describe = || format!("make the workload's {name}");
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).with_context(describe),
    }
    rustix::fs::mkfifoat(folder, name, Mode::from_raw_mode(PRIVATE)).with_context(describe)?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = rustix::fs::openat(folder, name, flags, Mode::empty()).with_context(describe)?;
    if !rustix::process::geteuid().is_root() {
        // It becomes the workload's user's, whom an ordinary user has no rights over: but its group stays.
        rustix::fs::fchmod(&fifo, Mode::from_raw_mode(SHARED)).with_context(describe)?;
    }
    Ok(fifo)
}

/// What a FIFO is that is somebody else's and ours.
const SHARED: u32 = 0o660;

/// Opens our end of a FIFO; `None` where there is none, or it has no other end.
fn open_fifo(folder: BorrowedFd<'_>, name: &str, direction: OFlags) -> Result<Option<OwnedFd>> {
    let flags = direction | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open the workload's {name}")),
    }
}

/// Takes the FIFOs of a run that is over away.
pub(super) fn remove_fifos(folder: BorrowedFd<'_>) {
    for name in [INPUT, OUTPUT, ERRORS] {
        let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
    }
}

fn open_null() -> Result<OwnedFd> {
    rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("open /dev/null")
}

/// Makes a pipe of standard output and error, for a process that is about to be started; gives its other end.
pub(super) fn capture() -> Result<OwnedFd> {
    let (output, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
    rustix::stdio::dup2_stdout(&theirs).context("set up the output")?;
    rustix::stdio::dup2_stderr(&theirs).context("set up the output")?;
    set_nonblocking(&output)?;
    Ok(output)
}

/// Makes this process's standard streams the null device.
pub(super) fn let_go() -> Result<()> {
    let null = open_null()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd).context("set up a stream")?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).context("set up a stream")
}
