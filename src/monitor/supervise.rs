//! The monitor's side: launches, serves the streams, waits, clears up, and launches again where the policy says so.
//!
//! | | throughout |
//! |---|---|
//! | namespaces, user, root | the command's that forked it |
//! | session | its own, so that a signal to the command's group or terminal does not reach it |
//! | signals | all blocked: it ends when the container does |
//! | standard streams | the null device, once the workload has its own |

mod health;
mod needs;
mod waiting;

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use serde::{Deserialize, Serialize};

use super::audience::{Audience, Heard};
use super::checking::{Checking, HealthJob};
use super::health::{Checks, OnFailure};
use super::link::{self, Link, MESSAGE_SIZE, Message, Stop, Wants};
use super::log::{Log, LogOptions};
use super::restart::{BackOff, Failures, RestartPolicy};
use super::streams::{Kept, Serving, Streams, remove_fifos};
use super::{ATTACH, Stream};
use crate::cgroups::{MemoryWatch, OutOfMemory};
use crate::error::{Context, Error, Kind, Result};
use crate::network::relay::Relay;
use crate::network::watch::Watch;
use crate::runtime::container::{KillScope, Mode, Request, Running, Runtime};
use crate::runtime::foreground::{Exit, Learnt, try_learn, try_wait, wait_at_most};
use crate::spec::validate::Validated;
use crate::sys::process::exit_now;
use crate::sys::signal;

/// What a monitor is started for.
pub struct Job<'a> {
    /// The runtime that makes the container.
    pub runtime: &'a Runtime,
    /// What to make.
    pub request: Request<'a>,
    pub beginning: Beginning,
    /// The container's folder: for the log, and for the socket that others attach to.
    pub folder: BorrowedFd<'a>,
    pub serving: Serving,
    /// What of it the command that starts it reads.
    pub wants: Wants,
    pub log: LogOptions,
    /// What each of its lines says of the container, as its format has it.
    pub log_attributes: &'a [u8],
    pub lifetime: Lifetime,
    pub restart: RestartPolicy,
    /// How long a run may take.
    pub time_limit: Option<Duration>,
    pub health: Option<HealthJob<'a>>,
    /// Called before every start but the first, with their number: notes it, and gives the configuration that holds now.
    pub renew: &'a dyn Fn(u32) -> Result<Validated>,
    /// Called when the workload runs, before anybody is told.
    pub note_running: &'a dyn Fn(),
    /// Called before a signal that is to end it is sent: notes that, for whoever looks after the container next.
    pub note_stop: &'a dyn Fn(Stop),
    /// Called once when a run has ended, or could not be made: records the end, or removes the container.
    pub clear: &'a dyn Fn(&Outcome) -> Result<()>,
    /// Called when the container is left to whoever comes, and nothing remains but to tell the command.
    pub release: &'a dyn Fn(),
    /// Called where it takes over, before it attends to anything: takes over what the monitor before had open.
    pub resume: &'a dyn Fn(),
    /// Called when somebody has changed which networks the workload is to be in, while it runs.
    pub change_networks: &'a dyn Fn() -> Result<()>,
    /// The name servers of its networks, while it runs.
    pub names: &'a Watch,
    /// Called when one of them has died: has another take its place.
    pub find_names: &'a dyn Fn() -> Result<()>,
    /// The ports of this host that lead to the container, while it runs.
    pub relay: &'a RefCell<Relay>,
    /// The process that an ordinary user's networks need.
    pub lifeline: &'a Watch,
    /// Called where that has died: has another take its place.
    pub reconnect: &'a dyn Fn() -> Result<()>,
    /// Called when the command has been told, for what nobody needs to wait for.
    pub farewell: &'a dyn Fn(),
}

/// What a monitor begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A container that is to be launched.
    Launch,
    /// One that outlived the monitor before: how long it runs, how often its restart policy had started it again, and what
    /// somebody had asked that one for, how long ago.
    TakeOver { runs_for: Duration, restarts: u32, stop: Option<(Stop, Duration)> },
    /// One that the monitor before was about to start again, for the so many'th time.
    Restart { restarts: u32 },
}

/// What the end of the command that started a container means to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Its end, too.
    Command,
    /// Nothing.
    Own,
}

/// How a run of a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The workload ran and ended.
    Ended {
        exit: Exit,
        /// What the kernel killed of it for want of memory.
        out_of_memory: Option<OutOfMemory>,
        /// What the monitor did to end it.
        ending: Option<Ending>,
        /// How often it had been started again before.
        restarts: u32,
        /// It is about to be started again.
        restarts_now: bool,
        /// Somebody asked for its end.
        was_stopped: bool,
        /// Who asked starts it again.
        is_kept: bool,
        /// How it ended is not known: `exit` is [`UNSEEN`].
        is_unseen: bool,
    },
    /// The workload never ran, for this reason; the status is what its caller gets.
    NotStarted { reason: String, status: u8, restarts: u32 },
}

/// What a monitor does to end a run, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Ending {
    /// A command (`stop`, `kill`, `rm -f`) had this signal sent.
    Asked { signal: i32 },
    /// It did not end so many seconds after that signal, and got SIGKILL.
    Impatience { signal: i32, seconds: u32 },
    /// It ran for as long as `--timeout` lets it, and got SIGKILL.
    TimeLimit,
    /// The command in the foreground was gone: SIGKILL.
    Abandoned,
    /// Its health checks failed, and that was to end it (`--health-on-failure`).
    Unhealthy,
}

/// What counts as the end of a workload that nobody saw the end of.
const UNSEEN: Exit = Exit::Code(255);

impl Outcome {
    /// The outcome of a run that could not be begun, after so many others, with the status that docker gives for it.
    pub fn not_started(error: &Error, restarts: u32) -> Self {
        let status = match error.kind() {
            Kind::ExecutableNotFound => 127,
            Kind::NotExecutable => 126,
            _ => 128,
        };
        Self::NotStarted { reason: error.report(), status, restarts }
    }
}

/// Runs the monitor to its end.
pub(super) fn run(job: &Job<'_>, link: Link) -> ! {
    let mut monitor = Monitor::new(job, link);
    let end = monitor.live();
    monitor.tell_end(&end);
    exit_now(i32::from(end.is_err()))
}

struct Monitor<'a> {
    job: &'a Job<'a>,
    audience: Audience,
    log: Option<Log<'a>>,
    lifetime: Lifetime,
    /// When the workload gets SIGKILL.
    deadline: Option<Instant>,
    /// Somebody asked for its end: it is not started again.
    is_stopping: bool,
    /// Who asked starts it again.
    is_kept: bool,
    /// What was done to end this run.
    ending: Option<Ending>,
    /// How the run before ended.
    outcome: Option<Outcome>,
    /// A run was launched, or taken over.
    has_begun: bool,
    /// This one was.
    is_launched: bool,
    /// How long who asked is ready to wait.
    patience_seconds: u32,
    /// It is ill, and to be started again whatever its policy says.
    is_to_restart: bool,
    checks: Option<Checks<'a>>,
    checking: Option<Checking>,
    kept_streams: Option<Kept>,
    /// Tells when something ran out of memory, where nobody could say so afterwards.
    memory: Option<MemoryWatch>,
    /// The same, once its cgroup has gone.
    memory_gone: Option<MemoryWatch>,
    /// What did, by then.
    out_of_memory: Option<OutOfMemory>,
    buffer: Vec<u8>,
}

impl<'a> Monitor<'a> {
    fn new(job: &'a Job<'a>, client: Link) -> Self {
        let log = match (job.log.format, job.serving, job.beginning) {
            (format, _, _) if !format.keeps() => None,
            (_, Serving::Inherited { .. }, _) => None,
            (_, Serving::Fifos { .. }, Beginning::TakeOver { .. } | Beginning::Restart { .. }) => {
                Some(Log::resume(job.folder, job.log, job.log_attributes))
            }
            (_, Serving::Fifos { .. }, _) => Some(Log::new_spooled(job.folder, job.log, job.log_attributes)),
            _ => Some(Log::new(job.folder, job.log, job.log_attributes)),
        };
        Self {
            job,
            audience: Audience::new(client, job.wants),
            log,
            lifetime: job.lifetime,
            deadline: None,
            is_stopping: false,
            is_kept: false,
            ending: None,
            outcome: None,
            has_begun: false,
            is_launched: false,
            patience_seconds: 0,
            is_to_restart: false,
            checks: None,
            checking: None,
            kept_streams: None,
            memory: None,
            memory_gone: None,
            out_of_memory: None,
            buffer: vec![0; MESSAGE_SIZE],
        }
    }

    /// Runs the container until it is not started again; gives the way its last run ended.
    fn live(&mut self) -> Result<Exit> {
        rustix::process::setsid().context("start the monitor's session")?;
        let _ = rustix::thread::set_name(c"husk:[monitor]");
        // From here on others may connect; they are heard once it runs.
        self.audience.listen(link::listen(self.job.folder, ATTACH)?);
        let mut back_off = BackOff::default();
        let mut restarts = match self.job.beginning {
            Beginning::Launch => 0,
            Beginning::TakeOver { restarts, .. } | Beginning::Restart { restarts } => restarts,
        };
        let mut is_first = true;
        let mut failures = Failures::default();
        loop {
            let begun = Instant::now();
            self.is_launched = false;
            let ended = match self.job.beginning {
                Beginning::Launch if is_first => self.launch(&self.job.request, restarts),
                Beginning::TakeOver { runs_for, stop, .. } if is_first => self.take_over(runs_for, restarts, stop),
                _ => (self.job.renew)(restarts)
                    .and_then(|spec| self.launch(&Request { spec: &spec, ..self.job.request.clone() }, restarts)),
            };
            let is_restart = !is_first || matches!(self.job.beginning, Beginning::Restart { .. });
            is_first = false;
            let exit = match ended {
                Ok(exit) => {
                    failures = Failures::default();
                    exit
                }
                // It is as it was, and somebody else may have more luck with it.
                Err(error) if !self.has_begun && matches!(self.job.beginning, Beginning::TakeOver { .. }) => {
                    return Err(error);
                }
                Err(error) => {
                    if let Serving::Fifos { .. } = self.job.serving
                        && !self.is_launched
                    {
                        remove_fifos(self.job.folder);
                    }
                    let pause = failures.next(error.kind()).filter(|_| is_restart && !self.is_launched);
                    if let Some(pause) = pause
                        && matches!(self.rest(pause), Ok(Rest::Taken))
                    {
                        continue;
                    }
                    // The first failure is the one to tell; what could not be cleared is found by the next command.
                    let _ = (self.job.clear)(&Outcome::not_started(&error, restarts));
                    return Err(error);
                }
            };
            if !self.wants_restart(exit, restarts) {
                return Ok(exit);
            }
            if self.rest(back_off.next(begun.elapsed()))? == Rest::Disturbed {
                // That it would be started again is on record; now it will not.
                if let Some(Outcome::Ended { restarts_now, was_stopped, .. }) = &mut self.outcome {
                    (*restarts_now, *was_stopped) = (false, true);
                }
                if let Some(outcome) = &self.outcome {
                    let cleared = (self.job.clear)(outcome);
                    self.warn_unless(cleared);
                }
                return Ok(exit);
            }
            restarts += 1;
        }
    }

    fn wants_restart(&self, exit: Exit, restarts: u32) -> bool {
        !self.is_stopping && (self.is_to_restart || self.job.restart.wants_restart(exit.status(), restarts))
    }

    /// Says whether there may be another run.
    fn may_restart(&self) -> bool {
        let on_failure = self.job.health.as_ref().map(|health| health.check.on_failure);
        self.job.restart != RestartPolicy::No || on_failure == Some(OnFailure::Restart)
    }

    /// One run, from the launch to the last byte.
    fn launch(&mut self, request: &Request<'_>, restarts: u32) -> Result<Exit> {
        self.ending = None;
        if let Serving::Inherited { .. } = self.job.serving {
            match &self.kept_streams {
                Some(kept) => kept.restore()?,
                None if self.may_restart() => self.kept_streams = Some(Kept::new()?),
                None => {}
            }
        }
        let mut streams = Streams::prepare(self.job.serving, self.job.folder)?;
        let mut running = self.job.runtime.launch(request, Mode::Foreground)?;
        let terminal = running.init.terminal.take();
        streams.launched(terminal)?;
        let checks = self.job.health.as_ref().map(|health| Checks::begin(health.check, Instant::now()));
        let run = Run { origin: Origin::Own, runs_for: Duration::ZERO, restarts, stop: None };
        self.see_out(running, streams, checks, &run)
    }

    /// The rest of a run that the monitor before was killed in.
    fn take_over(&mut self, runs_for: Duration, restarts: u32, stop: Option<(Stop, Duration)>) -> Result<Exit> {
        if let Some((stop, _)) = stop {
            (self.is_stopping, self.is_kept) = (true, stop.is_kept);
        }
        (self.job.resume)();
        let mut streams = Streams::reopen(self.job.folder)?;
        streams.launched(None)?;
        let Some(running) = self.job.runtime.take_over(self.job.request.id)? else {
            self.job.runtime.delete(self.job.request.id, true)?;
            self.has_begun = true;
            self.drain(&mut streams);
            remove_fifos(self.job.folder);
            return Ok(self.conclude(UNSEEN, None, true, restarts));
        };
        let checks =
            self.job.health.as_ref().map(|health| Checks::resume(health.check, self.job.folder, Instant::now()));
        self.see_out(running, streams, checks, &Run { origin: Origin::Left, runs_for, restarts, stop })
    }

    fn see_out(
        &mut self,
        running: Running,
        mut streams: Streams,
        checks: Option<Checks<'a>>,
        run: &Run,
    ) -> Result<Exit> {
        self.checks = checks;
        (self.has_begun, self.is_launched) = (true, true);
        self.out_of_memory = None;
        self.memory_gone = None;
        self.memory = running.watch_memory();
        match self.attend(&running, &mut streams, run) {
            Ok(end) => {
                if let Some(checking) = &mut self.checking {
                    checking.abandon();
                }
                // Systemd may have removed the cgroup the moment that its last process ended.
                let out_of_memory = running.out_of_memory().or(self.out_of_memory.take());
                let watch = self.memory.take().or(self.memory_gone.take());
                let was_killed = end.is_some_and(|exit| exit.status() == KILLED);
                let out_of_memory = out_of_memory.or_else(|| watch.filter(|_| was_killed)?.infer());
                // Whoever is left is killed, and with that there are no more writers.
                let removed = running.remove();
                self.drain(&mut streams);
                if let Serving::Fifos { .. } = self.job.serving {
                    remove_fifos(self.job.folder);
                }
                self.warn_unless(removed);
                Ok(self.conclude(end.unwrap_or(UNSEEN), out_of_memory, end.is_none(), run.restarts))
            }
            Err(error) => {
                let _ = signal::send(running.init.pidfd.as_fd(), signal::KILL);
                if run.origin == Origin::Own {
                    let _ = wait_at_most(&running.init.pidfd, LAST_PATIENCE);
                }
                let _ = running.remove();
                Err(error)
            }
        }
    }

    /// Has the end of a run recorded. It is the end that it was, and has the policy's answer, whatever is left to be cleared.
    fn conclude(&mut self, exit: Exit, out_of_memory: Option<OutOfMemory>, is_unseen: bool, restarts: u32) -> Exit {
        let restarts_now = self.wants_restart(exit, restarts);
        let (ending, was_stopped, is_kept) = (self.ending, self.is_stopping, self.is_kept);
        let outcome =
            Outcome::Ended { exit, out_of_memory, ending, restarts, restarts_now, was_stopped, is_kept, is_unseen };
        self.warn_unless((self.job.clear)(&outcome));
        self.outcome = Some(outcome);
        exit
    }

    /// Tells the command of what did not succeed when a run was over: the next one that meets the container clears it.
    fn warn_unless(&mut self, answer: Result<()>) {
        if let Err(error) = answer {
            self.audience.warn(&error.report());
        }
    }

    /// Serves the streams, the command and all others until the workload has ended; `None` where nobody knows how.
    fn attend(&mut self, running: &Running, streams: &mut Streams, run: &Run) -> Result<Option<Exit>> {
        let pidfd = running.init.pidfd.as_fd();
        for warning in &running.warnings {
            self.audience.warn(warning);
        }
        // Whoever hears that it runs finds out how it is.
        self.save_health();
        (self.job.note_running)();
        if self.lifetime == Lifetime::Own {
            // Whoever hears that it runs may remove the directory it was started in.
            Self::leave_directory();
        }
        self.audience.started(pidfd, streams.has_terminal());
        self.deadline = self.job.time_limit.map(|limit| Instant::now() + limit.saturating_sub(run.runs_for));
        self.is_to_restart = false;
        if let Some((stop, ago)) = run.stop {
            // Whether it was sent is not known: once more is better than not at all.
            self.send(stop.signal)?;
            self.is_asked_for(stop, ago);
        }
        loop {
            let ready = self.wait(Some(pidfd), streams)?;
            if ready.memory {
                self.look_at_memory(running);
            }
            if ready.deadline_passed {
                self.deadline = None;
                self.ending = Some(match self.ending {
                    Some(Ending::Asked { signal }) => Ending::Impatience { signal, seconds: self.patience_seconds },
                    Some(Ending::Unhealthy) => Ending::Unhealthy,
                    _ => Ending::TimeLimit,
                });
                self.send(signal::KILL)?;
            }
            for place in ready.heard {
                self.listen_to(place, streams, Some(pidfd))?;
            }
            if ready.newcomer {
                self.audience.accept();
            }
            if ready.input {
                streams.flush();
            }
            if ready.client_has_room {
                self.audience.flush();
            }
            if ready.check_output
                && let Some(checking) = &mut self.checking
            {
                checking.read_output();
            }
            self.look_after_health(ready.check)?;
            if ready.relay {
                self.attend_to_callers();
            }
            if ready.names {
                self.look_after_names();
            }
            if ready.lifeline {
                self.look_after_lifeline();
            }
            if ready.log_has_room
                && let Some(log) = &mut self.log
            {
                log.pass_on();
            }
            for stream in ready.streams {
                if !self.is_full() {
                    self.relay(streams, stream);
                }
            }
            if !ready.ended {
                continue;
            }
            let end = match run.origin {
                Origin::Own => try_wait(pidfd)?.map(Some),
                Origin::Left => match try_learn(running.init.pid, pidfd)? {
                    Learnt::NotYet => None,
                    Learnt::Ended(exit) => Some(Some(exit)),
                    Learnt::Unknown => Some(None),
                },
            };
            if let Some(end) = end {
                // What somebody said before counts: a stop that is on its way here.
                self.hear_all(streams);
                return Ok(end);
            }
        }
    }

    /// Keeps no directory of the caller's busy.
    fn leave_directory() {
        let _ = rustix::process::chdir("/");
    }

    /// Takes one message of a member.
    fn listen_to(&mut self, place: usize, streams: &mut Streams, pidfd: Option<BorrowedFd<'_>>) -> Result<()> {
        let Some(member) = self.audience.member(place) else { return Ok(()) };
        // A message that makes no sense ends the conversation as well.
        let Ok(Some(message)) = member.link.receive(&mut self.buffer) else {
            if self.audience.remove(place) == Heard::FirstHasGone && self.lifetime == Lifetime::Command {
                self.is_stopping = true;
                if pidfd.is_some() {
                    self.ending = Some(Ending::Abandoned);
                    self.send(signal::KILL)?;
                }
            }
            return Ok(());
        };
        match message {
            Message::Hello(wants) => match (self.audience.admit(place, wants), pidfd) {
                (Ok(()), Some(pidfd)) => {
                    self.audience.answer(place, |link| link.send_started(pidfd, streams.has_terminal()));
                }
                (Ok(()), None) => {}
                (Err(error), _) => self.audience.answer(place, |link| link.send_failure(&error)),
            },
            Message::Input(bytes) => {
                member.has_sent_input = true;
                streams.write(bytes);
            }
            Message::EndOfInput if place == Audience::FIRST => streams.end_input(),
            Message::Size { rows, columns } => streams.resize(rows, columns),
            Message::Closed(stream) if place == Audience::FIRST && self.lifetime == Lifetime::Command => {
                streams.close(stream);
            }
            Message::EndOfInput | Message::Closed(_) => {}
            Message::Detach => {
                self.audience.remove(place);
                if place == Audience::FIRST {
                    self.lifetime = Lifetime::Own;
                    Self::leave_directory();
                }
            }
            Message::Networks => {
                // Between two runs nothing is to be done: the next one looks at the record.
                let answer = if pidfd.is_some() { (self.job.change_networks)() } else { Ok(()) };
                self.audience.answer(place, |link| match &answer {
                    Ok(()) => link.send_heard(),
                    Err(error) => link.send_failure(error),
                });
            }
            Message::Stop(stop) => {
                // What cannot be done is the asker's affair.
                let answer = self.stop(stop, pidfd.is_some());
                self.audience.answer(place, |link| match &answer {
                    Ok(()) => link.send_heard(),
                    Err(error) => link.send_failure(error),
                });
            }
            // A monitor's words, from a client.
            _ => {
                self.audience.remove(place);
            }
        }
        Ok(())
    }

    fn stop(&mut self, stop: Stop, is_running: bool) -> Result<()> {
        if stop.signal == 0 || !is_running {
            self.is_stopping = true;
            self.is_kept = stop.is_kept;
            return Ok(());
        }
        (self.job.note_stop)(stop);
        self.send(stop.signal)?;
        self.is_asked_for(stop, Duration::ZERO);
        Ok(())
    }

    /// Somebody has asked for the end, so long ago, and the signal is sent.
    fn is_asked_for(&mut self, stop: Stop, ago: Duration) {
        self.is_stopping = true;
        // Who asks last: `rm -f` may come after `restart`.
        self.is_kept = stop.is_kept;
        self.ending = Some(Ending::Asked { signal: stop.signal });
        if let Some(seconds) = stop.patience_seconds {
            self.patience_seconds = seconds;
            self.deadline = Some(Instant::now() + Duration::from_secs(seconds.into()).saturating_sub(ago));
        }
    }

    fn send(&self, number: i32) -> Result<()> {
        match self.job.runtime.kill(self.job.request.id, number, KillScope::Init) {
            // It has ended this moment.
            Err(error) if error.kind() == Kind::State => Ok(()),
            answer => answer,
        }
    }

    /// Says whether the workload has to wait, for the command or the log.
    fn is_full(&self) -> bool {
        self.audience.is_full() || self.log.as_ref().is_some_and(Log::is_full)
    }

    /// Passes on what the workload wrote: to the log first.
    fn relay(&mut self, streams: &mut Streams, stream: Stream) {
        let count = streams.read(stream, &mut self.buffer[..link::CHUNK_SIZE], self.log.as_mut());
        if count > 0 {
            self.pass_on(stream, count);
        }
    }

    fn pass_on(&mut self, stream: Stream, count: usize) {
        let bytes = &self.buffer[..count];
        if let Some(log) = &mut self.log {
            log.write(stream, bytes);
        }
        self.audience.tell(stream, bytes);
    }

    /// Passes on what is left when the workload has ended: no more than its pipes hold, so the log has all of it now, and
    /// the command gets it as fast as it reads.
    fn drain(&mut self, streams: &mut Streams) {
        let mut left = MOST_LEFT;
        while let Some((stream, count)) = streams.read_rest(&mut self.buffer[..link::CHUNK_SIZE], self.log.as_mut()) {
            self.pass_on(stream, count);
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }

    /// Takes what has been sent until now, and waits for nothing.
    fn hear_all(&mut self, streams: &mut Streams) {
        self.audience.accept_all();
        for place in self.audience.places().rev() {
            while self.audience.member(place).is_some_and(|member| member.has_news()) {
                if self.listen_to(place, streams, None).is_err() {
                    break;
                }
            }
        }
    }

    /// Waits between two runs; whoever asks for the end ends that.
    fn rest(&mut self, pause: Duration) -> Result<Rest> {
        let mut nothing = Streams::none();
        let end = Instant::now() + pause;
        self.deadline = Some(end);
        loop {
            let ready = self.wait(None, &nothing)?;
            self.forget_check(ready.check)?;
            for place in ready.heard {
                self.listen_to(place, &mut nothing, None)?;
            }
            if ready.newcomer {
                self.audience.accept();
            }
            if ready.client_has_room {
                self.audience.flush();
            }
            if ready.relay {
                self.attend_to_callers();
            }
            if ready.lifeline {
                self.look_after_lifeline();
            }
            if self.is_stopping {
                self.deadline = None;
                return Ok(Rest::Disturbed);
            }
            if Instant::now() >= end {
                self.deadline = None;
                // The command has yet to read what the run before wrote.
                if !self.audience.is_full() {
                    return Ok(Rest::Taken);
                }
            }
        }
    }

    /// Says how it ended, to all who are still there: to the command last, which may be slow, or suspended. What it is told
    /// is on record by then, and nobody has to wait for it.
    fn tell_end(&mut self, end: &Result<Exit>) {
        if end.is_ok() {
            self.hear_all(&mut Streams::none());
        }
        self.audience.dismiss(end.as_ref().ok().copied());
        (self.job.release)();
        self.audience.tell_last(|link| match end {
            Ok(exit) => link.send_ended(*exit),
            Err(error) => link.send_failure(error),
        });
        (self.job.farewell)();
    }
}

/// How long a workload may take to die that can no longer be attended to. The next command that meets it goes on.
const LAST_PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The status of who got SIGKILL.
const KILLED: u8 = 137;

/// What a workload that has ended may have left in its pipes: more than an ordinary user's can hold (pipe-max-size of
/// proc(5)), so that a stranger who still writes into one ends nowhere but here.
const MOST_LEFT: usize = 16 << 20;

/// One run, as its monitor has it.
struct Run {
    origin: Origin,
    /// How long it did before this monitor came.
    runs_for: Duration,
    restarts: u32,
    /// What the monitor before was asked for, how long ago.
    stop: Option<(Stop, Duration)>,
}

/// Whose child a workload is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Own,
    /// Of the monitor before, and now of whoever gets what dead parents leave.
    Left,
}

#[derive(PartialEq, Eq)]
enum Rest {
    Taken,
    Disturbed,
}
