//! Runs a command under a scene's identity and keeps what came of it. Every run has a time limit and is logged, so that a
//! failing test shows command, status and both outputs.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;

use super::Scene;
use super::launch::Step;
use super::suite::kit;
use super::user::Account;

/// Generous: only a hang may meet it, on a busy machine too.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// How long an output may stay open after the process has ended: longer means that something holds it.
const OUTPUT_LIMIT: Duration = Duration::from_secs(2);
/// A pidfd has been seen to miss the end of a process (Linux 6.18, a runtime with threads): waits look again by then.
const POLL_SLICE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A command to be run.
pub(crate) struct Invocation<'a> {
    scene: &'a Scene,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<std::path::PathBuf>,
    steps: Vec<Step>,
    account: &'a Account,
    input: Vec<u8>,
}

impl<'a> Invocation<'a> {
    pub(crate) fn new(scene: &'a Scene, program: &Path) -> Self {
        Self {
            scene,
            program: program.into(),
            arguments: Vec::new(),
            // What is not about networks changes none of this machine's.
            environment: vec![("HUSK_NETWORK".into(), "none".into())],
            directory: None,
            steps: Vec::new(),
            account: scene.account(),
            input: Vec::new(),
        }
    }

    pub(crate) fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn args<T: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = T>) -> &mut Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts in a directory other than the scene's.
    pub(crate) fn current_directory(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Runs as root where the suite is root: for what makes fixtures, and for looking from outside.
    pub(crate) fn as_root(&mut self) -> &mut Self {
        self.account = kit().account(super::Who::Root).unwrap_or(self.account);
        self
    }

    /// Prepares the process in a way that the standard library can't.
    pub(crate) fn step(&mut self, step: Step) -> &mut Self {
        self.steps.push(step);
        self
    }

    /// What the command reads; nothing unless given.
    pub(crate) fn input(&mut self, input: impl AsRef<[u8]>) -> &mut Self {
        input.as_ref().clone_into(&mut self.input);
        self
    }

    /// Runs the command to its end.
    pub(crate) fn run(&mut self) -> Outcome {
        let input = std::mem::take(&mut self.input);
        let mut running = self.start();
        running.write(&input);
        running.close_input();
        running.finish()
    }

    /// Starts the command and lets it run.
    pub(crate) fn start(&mut self) -> Running<'a> {
        self.start_with(Stdio::piped(), Stdio::piped(), Stdio::piped())
    }

    /// Starts the command on the given files. Only what is piped can be read afterwards.
    pub(crate) fn start_with(&mut self, input: Stdio, output: Stdio, error: Stdio) -> Running<'a> {
        let mut child = self.spawn(input, output, error);
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("open a pidfd of our child");
        let readable = |fd: Option<OwnedFd>| fd.map(Pipe::new);
        Running {
            scene: self.scene,
            line: self.line(),
            pidfd,
            input: child.stdin.take(),
            output: readable(child.stdout.take().map(Into::into)),
            error: readable(child.stderr.take().map(Into::into)),
            child,
            deadline: Instant::now() + TIME_LIMIT,
            terminal: None,
        }
    }

    /// Starts the command for somebody who looks after it.
    pub(crate) fn spawn(&self, input: Stdio, output: Stdio, error: Stdio) -> Child {
        self.prepare().stdin(input).stdout(output).stderr(error).spawn().unwrap_or_else(|error| {
            panic!("start {}: {error}", self.line());
        })
    }

    /// Makes the command for somebody who runs it where a scene cannot go: in another thread.
    pub(crate) fn prepare(&self) -> Command {
        let mut command = if self.steps.is_empty() {
            Command::new(&self.program)
        } else {
            let mut command = Command::new(&kit().launcher);
            command.arg("--launch").args(self.steps.iter().map(Step::to_argument)).arg("--").arg(&self.program);
            command
        };
        self.account.assume(&mut command);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.directory.as_deref().unwrap_or(self.scene.path()));
        command
    }

    /// The command as one would type it.
    fn line(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.environment.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())));
        words.push(self.program.display().to_string());
        words.extend(self.arguments.iter().map(|word| quote(word)));
        words.join(" ")
    }
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// One output, read without blocking.
struct Pipe {
    fd: OwnedFd,
    bytes: Vec<u8>,
    open: bool,
    /// How much of it [`Running::line`] has given out.
    given: usize,
}

impl Pipe {
    fn new(fd: OwnedFd) -> Self {
        rustix::io::ioctl_fionbio(&fd, true).expect("make our end of a pipe non-blocking");
        Self { fd, bytes: Vec::new(), open: true, given: 0 }
    }

    fn drain(&mut self) {
        let mut buffer = [0; 16384];
        while self.open {
            match rustix::io::read(&self.fd, &mut buffer) {
                // A pty whose other side is closed answers EIO.
                Ok(0) | Err(Errno::IO) => self.open = false,
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => panic!("read an output: {error}"),
            }
        }
    }
}

/// A command that has been started. It is killed when the test drops it.
pub(crate) struct Running<'a> {
    scene: &'a Scene,
    line: String,
    child: Child,
    pidfd: OwnedFd,
    input: Option<ChildStdin>,
    output: Option<Pipe>,
    error: Option<Pipe>,
    deadline: Instant,
    /// The side of a terminal that the command has: see [`Running::finish`].
    terminal: Option<OwnedFd>,
}

/// Nothing that a workload prints.
const END_OF_TERMINAL: &[u8] = b"\x1eend of terminal\x1e";

impl Running<'_> {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Reads from our side of a terminal as if it were the standard output.
    pub(crate) fn read_terminal(&mut self, ours: OwnedFd, theirs: OwnedFd) {
        self.output = Some(Pipe::new(ours));
        self.terminal = Some(theirs);
    }

    /// Writes to the command's standard input.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        if let Some(input) = &mut self.input {
            // A command that ends without reading is no failure of the test.
            _ = input.write_all(bytes.as_ref());
        }
    }

    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.pidfd, signal).expect("signal our child");
    }

    /// Asks the command to end and waits for that, however long ago it was started; false when it did not.
    pub(crate) fn stop(&mut self, patience: Duration) -> bool {
        _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::TERM);
        let deadline = Instant::now() + patience;
        while !self.has_ended() {
            if !self.wait_for_news(deadline) {
                return false;
            }
        }
        true
    }

    /// Waits for the next whole line of the standard output.
    pub(crate) fn line(&mut self) -> String {
        loop {
            let pipe = self.output.as_mut().expect("the output is piped");
            let rest = &pipe.bytes[pipe.given..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&rest[..end]).trim_end_matches('\r').to_owned();
                pipe.given += end + 1;
                return line;
            }
            if !pipe.open || !self.wait_for_news(self.deadline) {
                self.fail("ended, or said no further line");
            }
        }
    }

    /// Waits until a line contains a text, and gives that line.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for a line that is a report of the probe.
    pub(crate) fn report(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| self.fail(&format!("printed no report ({error}): {line}")))
    }

    /// Waits for the end of the command, whoever else holds its outputs.
    pub(crate) fn wait(&mut self) {
        self.close_input();
        while !self.has_ended() {
            if !self.wait_for_news(self.deadline) {
                self.fail("ran into the time limit");
            }
        }
    }

    /// Waits for the end, and for both outputs to be closed.
    pub(crate) fn finish(mut self) -> Outcome {
        self.close_input();
        while !self.has_ended() {
            if !self.wait_for_news(self.deadline) {
                self.fail("ran into the time limit");
            }
        }
        let status = self.child.wait().expect("wait for our child");
        let deadline = Instant::now() + OUTPUT_LIMIT;
        if let Some(theirs) = self.terminal.take() {
            self.drain_terminal(&theirs, deadline);
        }
        while [&self.output, &self.error].into_iter().flatten().any(|pipe| pipe.open) {
            if !self.wait_for_news(deadline) {
                self.fail("has ended, and something it left behind holds its outputs open");
            }
        }
        let text =
            |pipe: Option<&Pipe>| pipe.map_or(String::new(), |pipe| String::from_utf8_lossy(&pipe.bytes).into_owned());
        let outcome = Outcome {
            line: self.line.clone(),
            status,
            stdout: text(self.output.as_ref()),
            stderr: text(self.error.as_ref()),
        };
        self.scene.note(outcome.describe());
        outcome
    }

    /// A terminal does not close while the test looks at its modes, and what was written to it arrives late: a mark
    /// written after the end tells that all before it has come.
    fn drain_terminal(&mut self, theirs: &OwnedFd, deadline: Instant) {
        rustix::io::write(theirs, END_OF_TERMINAL).expect("write to the terminal");
        loop {
            let pipe = self.output.as_mut().expect("a terminal is read");
            if let Some(bytes) = pipe.bytes.strip_suffix(END_OF_TERMINAL) {
                pipe.bytes.truncate(bytes.len());
                pipe.open = false;
                return;
            }
            if !self.wait_for_news(deadline) {
                self.fail("has ended, and its terminal does not come to an end");
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait for our child").is_some()
    }

    /// Waits for output or the end; false when the deadline has come.
    fn wait_for_news(&mut self, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return false;
        }
        let is_over = self.has_ended();
        let pipes = [&self.output, &self.error].into_iter().flatten().filter(|pipe| pipe.open);
        let mut fds: Vec<PollFd<'_>> = pipes.map(|pipe| PollFd::new(&pipe.fd, PollFlags::IN)).collect();
        if !is_over {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, Some(&POLL_SLICE)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        for pipe in [&mut self.output, &mut self.error].into_iter().flatten() {
            pipe.drain();
        }
        true
    }

    fn fail(&mut self, why: &str) -> ! {
        _ = self.child.kill();
        let text =
            |pipe: Option<&Pipe>| pipe.map_or(String::new(), |pipe| String::from_utf8_lossy(&pipe.bytes).into_owned());
        let (stdout, stderr) = (text(self.output.as_ref()), text(self.error.as_ref()));
        panic!("this command {why}\n{}", describe(&self.line, "not finished", &stdout, &stderr));
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What came of a command.
pub(crate) struct Outcome {
    line: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The exit status as a shell shows it.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Asserts that the command ended with 0.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.exits_with(0)
    }

    /// Asserts the exit status.
    #[track_caller]
    pub(crate) fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit status is {}, expected {code}", self.code());
        self
    }

    /// Asserts that the message names something.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        // Under the name runc messages are records, as runc's logger quotes them.
        let found = self.stderr.contains(text) || self.stderr.replace("\\\"", "\"").contains(text);
        assert!(found, "the message does not name \"{text}\"");
        self
    }

    /// Asserts that the message names one of several things.
    #[track_caller]
    pub(crate) fn says_one_of(self, texts: &[&str]) -> Self {
        let found = texts.iter().any(|text| self.stderr.contains(text));
        assert!(found, "the message names none of {texts:?}");
        self
    }

    /// The report that the probe printed as the first line.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        let line = self.stdout.lines().next().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no report of the probe: {error}"))
    }

    fn describe(&self) -> String {
        describe(&self.line, &self.status.to_string(), &self.stdout, &self.stderr)
    }
}

fn describe(line: &str, status: &str, stdout: &str, stderr: &str) -> String {
    // The probe's reports are long, and what an assertion compared is in its own message.
    let shorten = |text: &str| match text.char_indices().nth(1500) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.trim_end().to_owned(),
    };
    format!("  $ {line}\n  {status}\n  stdout: {}\n  stderr: {}", shorten(stdout), shorten(stderr))
}

/// Reads a whole file of the host, for tests that look from outside.
pub(crate) fn read_host(path: impl AsRef<Path>) -> String {
    let mut text = String::new();
    let path = path.as_ref();
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    text
}
