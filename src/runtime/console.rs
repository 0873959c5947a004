//! Pseudo-terminals: allocated in the container, relayed by whoever holds the master.
//!
//! The terminal comes from the container's own devpts instance, its slave from the master by ioctl, and `/dev/console` is
//! attached to by descriptor: no path below the container's `/dev` is trusted (CVE-2025-52565, CVE-2026-88264).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};

use crate::error::{Context, Error, Result};
use crate::support::root::Root;
use crate::sys::tty;

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_SUPER_MAGIC: rustix::fs::FsWord = 0x1cd1;

/// Makes a terminal, makes it stdio, and gives the master.
///
/// Runs where `root` is the container's `/`.
pub fn make_terminal(root: &Root, size: Option<(u16, u16)>) -> Result<OwnedFd> {
    let master = root
        .open_at(Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY, Mode::empty())
        .context("open /dev/pts/ptmx")
        .map_err(|error| error.with_hint("a terminal wants devpts mounted on /dev/pts"))?;
    let is_devpts = rustix::fs::fstatfs(&master).context("inspect /dev/pts/ptmx")?.f_type == DEVPTS_SUPER_MAGIC;
    let number = rustix::fs::fstat(&master).context("inspect /dev/pts/ptmx")?.st_rdev;
    if !is_devpts || number != rustix::fs::makedev(5, 2) {
        return Err(Error::invalid("/dev/pts/ptmx is not the multiplexer of a devpts"));
    }
    rustix::pty::unlockpt(&master).context("unlock the terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).context("open the terminal's other side")?;
    if let Some((rows, columns)) = size {
        set_size(&master, rows, columns).context("set the terminal's size")?;
    }
    rustix::stdio::dup2_stdin(&slave)?;
    rustix::stdio::dup2_stdout(&slave)?;
    rustix::stdio::dup2_stderr(&slave)?;
    Ok(master)
}

/// Makes the standard input the controlling terminal of this process's session, which it leads.
pub fn take_control() -> Result<()> {
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).context("take the controlling terminal")
}

/// Binds a terminal on `/dev/console`: init's, which is the container's.
pub fn bind_console(root: &Root, slave: impl AsFd) -> Result<()> {
    attach_console(root, slave.as_fd()).context("bind the terminal on /dev/console")
}

fn attach_console(root: &Root, slave: BorrowedFd<'_>) -> Result<()> {
    let dev = root.open_at(Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(&dev, c"console", flags, Mode::from_raw_mode(0o666)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let place = rustix::fs::openat(&dev, c"console", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    if kind == rustix::fs::FileType::Symlink {
        return Err(Error::invalid("it is a symlink"));
    }
    let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(slave, c"", tree)?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&tree, c"", &place, c"", empty)?)
}

/// Sets a terminal's size.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}

/// Gives the rows and columns of the caller's terminal, if standard input is one.
pub fn callers_size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Copies the size of one terminal to another; not being a terminal is not an error.
pub fn copy_size(from: impl AsFd, to: impl AsFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(from) {
        let _ = rustix::termios::tcsetwinsize(to, size);
    }
}

/// The caller's terminal in raw mode; its settings come back when this is dropped.
pub struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    /// Sets raw mode; `None` when `fd` is no terminal.
    pub fn set(fd: BorrowedFd<'a>) -> Result<Option<Self>, Errno> {
        let before = match rustix::termios::tcgetattr(fd) {
            Ok(before) => before,
            Err(Errno::NOTTY) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(fd, OptionalActions::Now, &raw)?;
        Ok(Some(Self { terminal: fd, before }))
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Sends a terminal's master to who listens at `socket`: one message with the terminal's name and the descriptor.
pub fn send_master(socket: &Path, master: BorrowedFd<'_>) -> Result<()> {
    tty::send_fd_to_socket(socket, b"/dev/ptmx", master)
        .with_context(|| format!("send the terminal to {}", socket.display()))
}
