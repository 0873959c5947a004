//! One direction between two stream sockets, by splice(2): bytes go from the one to the other by way of a pipe, and are not copied
//! to this process. Waits for nothing, and knows nothing of who is at the ends.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Wanted of a pipe; each of its pages holds a piece of what came, which may be far longer than a page.
const PIPE_SIZE: usize = 256 << 10;
const CHUNK: usize = 1 << 20;
/// Pieces that are moved before others have their turn.
const TURN: u32 = 16;
/// Empty pipes that are kept for the next.
const SPARE_PIPES: usize = 8;

/// Pipes without anything in them.
#[derive(Debug, Default)]
pub struct Pipes(Vec<Pipe>);

#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipes {
    fn take(&mut self) -> Result<Pipe, Errno> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user who has many gets none that is larger (pipe(7), pipe-user-pages-soft), and goes slower.
        let _ = fcntl_setpipe_size(&writer, PIPE_SIZE);
        Ok(Pipe { reader, writer })
    }

    fn give_back(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE_PIPES {
            self.0.push(pipe);
        }
    }
}

/// How a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pumped {
    /// There is nothing, or no room: the kernel will say when there is.
    Waits,
    /// There may be more.
    Again,
    /// All is over there, the end included.
    Done,
}

/// One direction. What came from the one side and is not yet with the other lies in a pipe.
#[derive(Debug, Default)]
pub struct Pump {
    pipe: Option<Pipe>,
    held: usize,
    /// The one had nothing more, the other no more room, when asked last.
    is_dry: bool,
    is_stuck: bool,
    has_ended: bool,
    is_done: bool,
}

impl Pump {
    pub fn wants_input(&self) -> bool {
        self.held == 0 && !self.has_ended
    }

    pub fn wants_room(&self) -> bool {
        self.held > 0
    }

    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// There may be more to take, as epoll says where it tells of changes alone.
    pub fn may_take(&mut self) {
        self.is_dry = false;
    }

    /// There may be room again.
    pub fn may_give(&mut self) {
        self.is_stuck = false;
    }

    /// Moves on what can be moved, and at its end says so to the other side; an error is the end of both. What was found dry or full
    /// is not asked again before [`Self::may_take`] or [`Self::may_give`].
    pub fn run(&mut self, from: impl AsFd, to: impl AsFd, pipes: &mut Pipes) -> Result<Pumped, Errno> {
        if self.is_done {
            return Ok(Pumped::Done);
        }
        let waits = if self.held > 0 { self.is_stuck } else { self.is_dry };
        if waits {
            return Ok(Pumped::Waits);
        }
        let mut pipe = self.pipe.take().map_or_else(|| pipes.take(), Ok)?;
        let answer = self.move_on(from.as_fd(), to.as_fd(), &mut pipe);
        if self.held > 0 {
            self.pipe = Some(pipe);
        } else {
            pipes.give_back(pipe);
        }
        if matches!(answer, Ok(Pumped::Done)) {
            self.is_done = true;
            // Who is not connected any more needs not be told.
            let _ = shutdown(to, Shutdown::Write);
        }
        answer
    }

    fn move_on(&mut self, from: impl AsFd, to: impl AsFd, pipe: &mut Pipe) -> Result<Pumped, Errno> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        for _ in 0..TURN {
            if self.wants_input() {
                match splice(&from, None, &pipe.writer, None, CHUNK, flags) {
                    Ok(0) => self.has_ended = true,
                    Ok(moved) => self.held += moved,
                    Err(Errno::AGAIN) => {
                        self.is_dry = true;
                        return Ok(Pumped::Waits);
                    }
                    Err(Errno::INTR) => continue,
                    Err(errno) => return Err(errno),
                }
            }
            while self.held > 0 {
                match splice(&pipe.reader, None, &to, None, self.held, flags) {
                    Ok(moved) => self.held = self.held.saturating_sub(moved),
                    Err(Errno::AGAIN) => {
                        self.is_stuck = true;
                        return Ok(Pumped::Waits);
                    }
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            if self.has_ended {
                return Ok(Pumped::Done);
            }
        }
        Ok(Pumped::Again)
    }
}
