//! The way of data to standard output. Words for people go to standard error, through `report`.
//!
//! Nothing is buffered: what a full disk does to the last line is seen here, and not lost when the process ends. A reader
//! who leaves (`husk oci list | head -1`) has what they wanted, so a closed pipe is no error.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// Prints what the command was asked for, as it is.
pub(super) fn print(data: &str) -> Result<()> {
    print_to(rustix::stdio::stdout(), data)
}

fn print_to(stdout: BorrowedFd<'_>, data: &str) -> Result<()> {
    print_bytes(stdout, data.as_bytes())
}

/// Prints a line of a command that has no end of its own; false where the reader has left.
pub(super) fn print_or_end(line: &str) -> Result<bool> {
    match write_all(rustix::stdio::stdout(), line.as_bytes()) {
        Err(Errno::PIPE) => Ok(false),
        answer => answer.context("write to standard output").map(|()| true),
    }
}

/// Passes on what a container wrote, to the stream that it wrote to.
pub(super) fn print_bytes(stream: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    match write_all(stream, bytes) {
        Err(Errno::PIPE) => Ok(()),
        answer => answer.context("write to standard output"),
    }
}

/// Writes all of it, waiting where the other side made the pipe non-blocking (Node.js does).
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::PipeFlags;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_reader_who_left_is_no_error() {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(read);
        print_to(write.as_fd(), "x").unwrap();
    }

    #[test]
    fn a_full_disk_is_an_error_even_for_half_a_line() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = print_to(full.as_fd(), "x").unwrap_err();
        assert_eq!(error.report(), "write to standard output: no space left on device (ENOSPC)");
    }

    #[test]
    fn a_pipe_that_does_not_block_gets_everything() {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK).unwrap();
        let data = "0123456789".repeat(20_000);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            std::fs::File::from(read).read_to_string(&mut text).unwrap();
            text
        });
        print_to(write.as_fd(), &data).unwrap();
        drop(write);
        assert_eq!(reader.join().unwrap(), data);
    }
}
