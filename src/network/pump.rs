//! One direction between two stream sockets, by splice(2): bytes go from the one to the other by way of a pipe, and are not copied
//! to this process. Waits for nothing, and knows nothing of who is at the ends but that urgent data are data to them
//! (`SO_OOBINLINE`), which splice(2) does not know: it sees nothing where a mark is.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Wanted of a pipe. A user may have so many pages in pipes, and has others than these (pipe(7), pipe-user-pages-soft: 16384): the
/// first ones are large, and however many there are, they are never more than some 10,000 pages.
const PIPE_SIZE: usize = 256 << 10;
const LARGE_PIPES: usize = 32;
const SMALL_PIPE_SIZE: usize = 16 << 10;
const CHUNK: usize = 1 << 20;
/// Pieces that are moved before others have their turn.
const TURN: u32 = 16;
/// Empty pipes that are kept for the next.
const SPARE_PIPES: usize = 8;

/// What is read at a mark.
const AT_MARK: usize = 4096;

/// Pipes without anything in them.
#[derive(Debug, Default)]
pub struct Pipes {
    spare: Vec<Pipe>,
    /// Of each that there is, these and those that have something in them.
    each: Rc<()>,
}

#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    _counted: Rc<()>,
}

impl Pipes {
    fn take(&mut self) -> Result<Pipe, Errno> {
        if let Some(pipe) = self.spare.pop() {
            return Ok(pipe);
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let size = if Rc::strong_count(&self.each) <= LARGE_PIPES { PIPE_SIZE } else { SMALL_PIPE_SIZE };
        // Where the user has many already it stays as it is, and is slower.
        let _ = fcntl_setpipe_size(&writer, size);
        Ok(Pipe { reader, writer, _counted: Rc::clone(&self.each) })
    }

    fn give_back(&mut self, pipe: Pipe) {
        if self.spare.len() < SPARE_PIPES {
            self.spare.push(pipe);
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
    /// There was urgent data.
    has_mark: bool,
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

    /// There is urgent data (EPOLLPRI).
    pub fn may_be_marked(&mut self) {
        self.has_mark = true;
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

    /// Moves on all that is there, as far as there is room, and that nobody was told of.
    pub fn run_out(&mut self, from: impl AsFd, to: impl AsFd, pipes: &mut Pipes) -> Result<(), Errno> {
        self.may_take();
        self.may_give();
        while self.run(&from, &to, pipes)? == Pumped::Again {}
        Ok(())
    }

    fn move_on(&mut self, from: impl AsFd, to: impl AsFd, pipe: &mut Pipe) -> Result<Pumped, Errno> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        for _ in 0..TURN {
            if self.wants_input() {
                let taken = match splice(&from, None, &pipe.writer, None, CHUNK, flags) {
                    Ok(0) | Err(Errno::AGAIN) if self.has_mark => read_at_mark(&from, pipe),
                    taken => taken,
                };
                match taken {
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

/// Reads in place of splice(2), which sees neither a mark nor what is behind it.
fn read_at_mark(from: impl AsFd, pipe: &Pipe) -> Result<usize, Errno> {
    let mut buffer = [0; AT_MARK];
    let (length, _) = recv(from, &mut buffer[..], RecvFlags::DONTWAIT)?;
    // The pipe is empty, and so much fits into a page of it.
    rustix::io::write(&pipe.writer, buffer.get(..length).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use rustix::net::{SendFlags, send, sockopt};

    use super::*;

    fn streams() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        (one, other)
    }

    #[test]
    fn urgent_bytes_and_the_end_behind_them_get_there() {
        let (mut speaker, from) = streams();
        let (to, mut listener) = streams();
        sockopt::set_socket_oobinline(&from, true).unwrap();
        let (mut pump, mut pipes) = (Pump::default(), Pipes::default());
        speaker.write_all(b"before").unwrap();
        send(&speaker, b"!", SendFlags::OOB).unwrap();
        speaker.write_all(b"behind").unwrap();
        drop(speaker);
        pump.may_be_marked();
        let mut turns = 0;
        while pump.run(&from, &to, &mut pipes).unwrap() != Pumped::Done {
            pump.may_take();
            turns += 1;
            assert!(turns < 1000, "it ends");
        }
        let mut heard = String::new();
        listener.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "before!behind");
    }

    #[test]
    fn many_pipes_are_small() {
        let mut pipes = Pipes::default();
        let held: Vec<_> = (0..LARGE_PIPES + 2).map(|_| pipes.take().unwrap()).collect();
        let sizes: Vec<_> = held.iter().map(|pipe| rustix::pipe::fcntl_getpipe_size(&pipe.writer).unwrap()).collect();
        assert!(sizes[0] > SMALL_PIPE_SIZE && sizes[LARGE_PIPES + 1] == SMALL_PIPE_SIZE, "{sizes:?}");
        drop(held);
        assert!(rustix::pipe::fcntl_getpipe_size(&pipes.take().unwrap().writer).unwrap() > SMALL_PIPE_SIZE);
    }
}
