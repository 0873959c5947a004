//! Follows a command, and all that it starts, through their system calls (ptrace(2)), and kills at one of them.
//!
//! One thread follows one command from the start to the end, as ptrace wants it. What the command leaves running is let
//! go. Looks into no memory and changes nothing.

use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::PidfdFlags;

use super::Invocation;
use super::launch::Step;

/// Only a hang may meet it.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Where to kill: before the call of that number (from 0) takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// In order of birth: the command itself is 0.
    pub(crate) process: usize,
    pub(crate) call: usize,
    pub(crate) victims: Victims,
}

/// Who dies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victims {
    /// The process that makes the call.
    Caller,
    /// Every process of the command, as when its service is killed.
    All,
}

/// What was seen of a command.
pub(crate) struct Trace {
    /// The command itself.
    pub(crate) main: Pid,
    /// How many calls each process made until the command ended, in order of birth.
    pub(crate) calls: Vec<usize>,
    /// All of them, by descriptor.
    pub(crate) processes: Vec<OwnedFd>,
    /// The call at which was killed, by number, if it came to that.
    pub(crate) killed_at: Option<u64>,
    pub(crate) status: WaitStatus,
    pub(crate) stderr: String,
}

impl Trace {
    fn new(main: Pid) -> Self {
        Self {
            main,
            calls: Vec::new(),
            processes: Vec::new(),
            killed_at: None,
            status: WaitStatus::StillAlive,
            stderr: String::new(),
        }
    }

    pub(crate) fn is_success(&self) -> bool {
        matches!(self.status, WaitStatus::Exited(_, 0))
    }
}

struct Tracer<'a> {
    /// Index of each process in the two lists of the trace.
    known: HashMap<Pid, usize>,
    alive: Vec<Pid>,
    /// How often each process became another program.
    execs: HashMap<Pid, u32>,
    trace: Trace,
    /// Asked before each call, by process and number: who is to die?
    judge: &'a mut dyn FnMut(usize, usize) -> Option<Victims>,
    /// Whether processes are let go as they stop.
    releasing: bool,
}

/// Runs a command to its end under the tracer, and kills at a point.
pub(crate) fn trace(command: &mut Invocation<'_>, kill_at: Option<Point>) -> Trace {
    let here = |process, call| kill_at.filter(|point| (point.process, point.call) == (process, call));
    follow(command, &mut |process, call| here(process, call).map(|point| point.victims))
}

/// Runs a command to its end under the tracer. Before every call everything else goes on while `each` looks around: it is
/// told the process, in order of birth, and the number of the call, from 0.
pub(crate) fn watch(command: &mut Invocation<'_>, each: &mut dyn FnMut(usize, usize)) -> Trace {
    follow(command, &mut |process, call| {
        each(process, call);
        None
    })
}

fn follow(command: &mut Invocation<'_>, judge: &mut dyn FnMut(usize, usize) -> Option<Victims>) -> Trace {
    let mut errors = tempfile::tempfile().expect("make a file for the standard error");
    let theirs = errors.try_clone().expect("share a file");
    // Attached from outside, by a tracer with rights, newuidmap keeps its own.
    command.step(Step::AwaitInput);
    let mut child = command.spawn(Stdio::piped(), Stdio::null(), theirs.into());
    let main = Pid::from_raw(child.id().cast_signed());
    ptrace::seize(
        main,
        Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE,
    )
    .expect("trace our child");
    let (ended, hang) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let timed_out = hang.recv_timeout(TIME_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
        if timed_out {
            _ = nix::sys::signal::kill(main, Signal::SIGKILL);
        }
        timed_out
    });
    let mut tracer = Tracer {
        known: HashMap::new(),
        alive: Vec::new(),
        execs: HashMap::new(),
        trace: Trace::new(main),
        judge,
        releasing: false,
    };
    tracer.meet(main);
    release(&mut child);
    tracer.follow(main);
    drop(ended);
    let timed_out = watchdog.join().expect("the watchdog does not panic");
    let mut trace = tracer.into_trace();
    errors.rewind().and_then(|()| errors.read_to_string(&mut trace.stderr)).expect("read the standard error");
    assert!(!timed_out, "the command hangs, having made {:?} calls: {}", trace.calls, trace.stderr);
    trace
}

/// Lets the launcher go on, to become the command.
fn release(child: &mut Child) {
    let mut input = child.stdin.take().expect("the input is piped");
    input.write_all(b"\n").expect("wake our child");
}

impl Tracer<'_> {
    fn into_trace(mut self) -> Trace {
        let empty = Trace::new(self.trace.main);
        std::mem::replace(&mut self.trace, empty)
    }

    fn meet(&mut self, pid: Pid) {
        if !self.known.contains_key(&pid) {
            self.known.insert(pid, self.trace.calls.len());
            self.alive.push(pid);
            self.trace.calls.push(0);
            let raw = rustix::process::Pid::from_raw(pid.as_raw()).expect("a pid");
            let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty()).expect("open a process that is stopped");
            self.trace.processes.push(pidfd);
        }
    }

    /// Until the command itself has ended and everything else has ended or been let go.
    fn follow(&mut self, main: Pid) {
        while !self.alive.is_empty() {
            // Only what this thread traces or has started.
            let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).expect("wait");
            let pid = status.pid().expect("somebody did something");
            match status {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    self.alive.retain(|other| *other != pid);
                    if pid == main {
                        self.trace.status = status;
                        self.let_go();
                    }
                }
                // A new process may be seen before the clone that made it, and after.
                WaitStatus::PtraceEvent(_, signal, libc::PTRACE_EVENT_STOP) => {
                    self.meet(pid);
                    let is_group_stop = signal != Signal::SIGTRAP;
                    self.go_on(pid, is_group_stop.then_some(signal));
                }
                WaitStatus::PtraceSyscall(_) => self.at_call(pid),
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) if self.is_workload(pid) => {
                    self.detach(pid, None);
                }
                WaitStatus::PtraceEvent(_, _, event) => {
                    let births = [libc::PTRACE_EVENT_CLONE, libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK];
                    if births.contains(&event)
                        && let Ok(born) = ptrace::getevent(pid)
                    {
                        self.meet(Pid::from_raw(i32::try_from(born).expect("a pid")));
                    }
                    self.go_on(pid, None);
                }
                WaitStatus::Stopped(_, signal) => self.go_on(pid, Some(signal)),
                _ => {}
            }
        }
    }

    fn at_call(&mut self, pid: Pid) {
        let index = self.known[&pid];
        let is_entry = ptrace::syscall_info(pid).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        if !is_entry || self.releasing {
            return self.go_on(pid, None);
        }
        let call = self.trace.calls[index];
        self.trace.calls[index] += 1;
        let Some(victims) = (self.judge)(index, call) else { return self.go_on(pid, None) };
        self.trace.killed_at = Some(call_number(pid));
        let victims = if victims == Victims::All { self.alive.clone() } else { vec![pid] };
        for victim in victims {
            ignore_gone(nix::sys::signal::kill(victim, Signal::SIGKILL));
        }
        self.let_go();
    }

    /// From here on nobody is looked at any more.
    fn let_go(&mut self) {
        self.releasing = true;
        for pid in &self.alive {
            ignore_gone(ptrace::interrupt(*pid));
        }
    }

    /// After the stub, init becomes the workload, whose calls are its own affair.
    fn is_workload(&mut self, pid: Pid) -> bool {
        let execs = self.execs.entry(pid).or_default();
        *execs += 1;
        *execs == 2
    }

    fn go_on(&mut self, pid: Pid, signal: Option<Signal>) {
        if self.releasing {
            self.detach(pid, signal);
        } else {
            ignore_gone(ptrace::syscall(pid, signal));
        }
    }

    fn detach(&mut self, pid: Pid, signal: Option<Signal>) {
        ignore_gone(ptrace::detach(pid, signal));
        // The command itself is our child and still waited for.
        let is_ours = self.known.get(&pid) == Some(&0);
        self.alive.retain(|other| *other != pid || is_ours);
    }
}

impl Drop for Tracer<'_> {
    /// A look that fails leaves nobody stopped.
    fn drop(&mut self) {
        for pid in &self.alive {
            _ = nix::sys::signal::kill(*pid, Signal::SIGKILL);
            _ = waitpid(*pid, Some(WaitPidFlag::__WALL));
        }
    }
}

/// A process may be killed by the other end of what it waits for at any time.
fn ignore_gone(answer: nix::Result<()>) {
    assert!(matches!(answer, Ok(()) | Err(Errno::ESRCH)), "ptrace: {answer:?}");
}

#[cfg(target_arch = "x86_64")]
fn call_number(pid: Pid) -> u64 {
    ptrace::getregs(pid).map_or(u64::MAX, |registers| registers.orig_rax)
}

#[cfg(target_arch = "aarch64")]
fn call_number(pid: Pid) -> u64 {
    ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(pid).map_or(u64::MAX, |registers| registers.regs[8])
}
