//! The process that writes the files of a log which the workload does not wait for. It may hang at a disk that does not
//! answer, and the monitor goes on.
//!
//! | | throughout |
//! |---|---|
//! | namespaces, user, root, signals | the monitor's, whose child it is |
//! | descriptors | its end of the socket, the container's folder, and null devices |
//! | ends | when the monitor closes the socket, or was killed, and all of it is written |

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::files::{Chunk, Files};
use super::{BATCH_SIZE, LogOptions};
use crate::runtime::foreground::wait_at_most;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::fdpass;
use crate::sys::process::{close_all_but, exit_now};

pub(super) struct Writer<'a> {
    directory: BorrowedFd<'a>,
    options: LogOptions,
    process: Option<Process>,
}

struct Process {
    socket: OwnedFd,
    pidfd: OwnedFd,
}

/// No record is longer (see [`read`](super::read)), and a socket's buffer (`net.core.wmem_default`, 208 KiB) holds one.
const MOST_BYTES: usize = 192 << 10;

impl<'a> Writer<'a> {
    pub(super) fn new(directory: BorrowedFd<'a>, options: LogOptions) -> Self {
        Self { directory, options, process: None }
    }

    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.socket.as_fd())
    }

    /// Sends a record, without waiting; the first one starts the process.
    pub(super) fn send(&mut self, record: &[u8]) -> Result<(), Errno> {
        let process = match &mut self.process {
            Some(process) => process,
            none => none.insert(start(self.directory, self.options)?),
        };
        match fdpass::try_send(&process.socket, &[record], None) {
            Err(errno @ (Errno::PIPE | Errno::CONNRESET)) => {
                // It was killed: the next record has another.
                let _ = wait_at_most(&process.pidfd, Timespec::default());
                self.process = None;
                Err(errno)
            }
            Err(Errno::NOBUFS) => Err(Errno::AGAIN),
            answer => answer,
        }
    }

    /// Lets it end, once all of it is written.
    pub(super) fn finish(&mut self, patience: Duration) {
        if let Some(Process { socket, pidfd }) = self.process.take() {
            drop(socket);
            // One that hangs ends by itself, or not, and is nobody's business any more.
            let _ = wait_at_most(pidfd, Timespec::try_from(patience).unwrap_or_default());
        }
    }
}

fn start(directory: BorrowedFd<'_>, options: LogOptions) -> Result<Process, Errno> {
    let (socket, theirs) = fdpass::pair()?;
    match clone3(CloneFlags::empty(), None)? {
        Cloned::Child => {
            let _ = rustix::thread::set_name(c"husk:[log]");
            // Above all the container's lock, which says that somebody looks after it.
            if close_all_but(3, &mut [theirs.as_raw_fd(), directory.as_raw_fd()]).is_ok() {
                write(theirs.as_fd(), directory, options);
            }
            exit_now(0)
        }
        Cloned::Parent(_, pidfd) => Ok(Process { socket, pidfd }),
    }
}

fn write(socket: BorrowedFd<'_>, directory: BorrowedFd<'_>, options: LogOptions) {
    let mut files = Files::new(directory, options);
    let mut buffer = vec![0; MOST_BYTES];
    let mut batch = Vec::new();
    let mut lines = 0;
    while let Ok((length, _)) = fdpass::receive(socket, &mut buffer)
        && length > 0
    {
        if !batch.is_empty() && files.is_outgrown_by((batch.len() + length) as u64) {
            files.append(&std::mem::take(&mut batch), Chunk { lines: std::mem::take(&mut lines), taken: None });
        }
        batch.extend_from_slice(&buffer[..length]);
        lines += 1;
        // Those that are there go with one write.
        if batch.len() >= BATCH_SIZE || !has_more(socket) {
            files.append(&std::mem::take(&mut batch), Chunk { lines: std::mem::take(&mut lines), taken: None });
        }
    }
    if !batch.is_empty() {
        files.append(&batch, Chunk { lines, taken: None });
    }
}

fn has_more(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}
