//! The monitor's side: launches, waits, clears up.
//!
//! | | throughout |
//! |---|---|
//! | namespaces, user, root | the command's that forked it |
//! | session | its own, so that a signal to the command's group or terminal does not reach it |
//! | signals | all blocked: it ends when the container does |
//! | standard streams | the null device, once the workload has taken over the command's |

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;

use super::link::Link;
use crate::error::{Context, Result};
use crate::runtime::container::{Mode, Request, Running, Runtime};
use crate::runtime::foreground::{Exit, try_wait, wait};
use crate::sys::process::exit_now;
use crate::sys::signal;

/// What a monitor is started for.
pub struct Job<'a> {
    /// The runtime that makes the container.
    pub runtime: &'a Runtime,
    /// What to make.
    pub request: Request<'a>,
    /// Whether the workload reads the command's standard input; else it finds it empty, so that a container in a loop of a
    /// shell script does not take what the loop reads.
    pub input: Input,
    /// Called once when the container has ended, or could not be made: records the end, removes files.
    pub clear: &'a dyn Fn(&Outcome) -> Result<()>,
}

/// Where the workload's standard input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The command's.
    Inherited,
    /// There is none.
    Empty,
}

/// How a container's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The workload ran and ended.
    Ended(Exit),
    /// The workload never ran, for this reason.
    NotStarted(String),
}

/// Runs the monitor to its end.
pub(super) fn run(job: &Job<'_>, link: &Link) -> ! {
    let status = match supervise(job, link) {
        Ok(exit) => {
            link.send_ended(exit);
            0
        }
        Err(error) => {
            link.send_failure(&error);
            1
        }
    };
    exit_now(status)
}

fn supervise(job: &Job<'_>, link: &Link) -> Result<Exit> {
    rustix::process::setsid().context("start the monitor's session")?;
    let _ = rustix::thread::set_name(c"husk:[monitor]");
    if job.input == Input::Empty {
        rustix::stdio::dup2_stdin(open_null()?).context("close the workload's standard input")?;
    }
    let running = match job.runtime.launch(&job.request, Mode::Foreground) {
        Ok(running) => running,
        Err(error) => {
            // The first failure is the one to tell; what could not be cleared is found by the next command.
            let _ = (job.clear)(&Outcome::NotStarted(error.report()));
            return Err(error);
        }
    };
    let exit = attend(&running, link);
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => {
            let _ = signal::send(running.init.pidfd.as_fd(), 9);
            let _ = wait(&running.init.pidfd);
            let _ = running.remove();
            let _ = (job.clear)(&Outcome::NotStarted(error.report()));
            return Err(error);
        }
    };
    let removed = running.remove();
    let cleared = (job.clear)(&Outcome::Ended(exit));
    removed.and(cleared).map(|()| exit)
}

/// Tells the client, lets go of its streams, and waits for the workload's end or the client's.
fn attend(running: &Running, link: &Link) -> Result<Exit> {
    for warning in &running.warnings {
        link.send_warning(warning);
    }
    if let Some(master) = &running.init.terminal {
        link.send_terminal(master.as_fd());
    }
    link.send_started(running.init.pidfd.as_fd());
    let_go_of_streams()?;
    let mut has_client = true;
    loop {
        let mut fds = vec![PollFd::new(&running.init.pidfd, PollFlags::IN)];
        if has_client {
            fds.push(PollFd::new(link, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for the container"),
        }
        if let Some(exit) = try_wait(&running.init.pidfd)? {
            return Ok(exit);
        }
        // A client sends nothing: what there is to read is its end.
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            has_client = false;
            match signal::send(running.init.pidfd.as_fd(), 9) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno).context("kill the container of a command that died"),
            }
        }
    }
}

fn open_null() -> Result<OwnedFd> {
    rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, FileMode::empty()).context("open /dev/null")
}

/// A pipe that the command reads from or writes to must not be held open by us.
fn let_go_of_streams() -> Result<()> {
    let null = open_null()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
