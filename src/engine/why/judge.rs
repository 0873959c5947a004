//! Which cause the evidence shows. Pure: nothing is looked at here.
//!
//! In the order of certainty: what a record says outright, then what the kernel says, then what the status means, then what
//! the program itself has written. What is left over is the program's own affair, and that is said.

use std::time::Duration;

use super::evidence::{Evidence, State};
use super::kernel_log::EventKind;
use super::program::Program;
use super::words::{signal_meaning, signal_name, signal_of_status};
use super::{Cause, Certainty, Verdict, complaints};
use crate::cgroups::OutOfMemory;
use crate::engine::options::Network;
use crate::engine::record::{ExitRecord, Timestamp};
use crate::image::platform::Platform;
use crate::monitor::health::Status as Health;
use crate::monitor::{Ending, RestartPolicy};
use crate::seccomp::call_name;
use crate::support::units::{binary_size, human_duration};

const KILL: i32 = 9;
const SYSTEM_CALL: i32 = 31;
/// What a terminal sends, and what shells send on their way out.
const FROM_TERMINAL: [i32; 4] = [1, 2, 3, 15];

/// Judges the evidence.
pub(super) fn judge(evidence: &Evidence) -> Verdict {
    match &evidence.state {
        State::Created => certain(Cause::NeverStarted, "it was made, and never started")
            .remedy(format!("start it: husk start {}", evidence.name)),
        State::Running { is_paused: false, .. } if let Some(verdict) = judge_health(evidence) => {
            Verdict { summary: format!("it runs, and is unhealthy: {}", verdict.summary), ..verdict }
        }
        State::Running { started, is_paused: false } => {
            certain(Cause::Runs, format!("nothing is wrong: it runs, since {}", ago(evidence, *started)))
        }
        State::Running { started, is_paused: true } => {
            certain(Cause::Paused, "it is frozen, and goes on where it was told to pause")
                .shown(format!("started {} ago", ago(evidence, *started)))
                .remedy(format!("let it go on: husk unpause {}", evidence.name))
        }
        State::Restarting(exit) => {
            let verdict = judge_end(evidence, exit);
            let summary = format!("it ends again and again; the last time {}", verdict.summary);
            Verdict { summary, ..verdict }.shown(format!(
                "its restart policy ({}) starts it again soon, for the {} time",
                evidence.restart,
                ordinal(exit.restarts + 1)
            ))
        }
        State::Ended(exit) => judge_end(evidence, exit).shown_if(restarts(evidence, exit)),
    }
}

fn judge_end(evidence: &Evidence, exit: &ExitRecord) -> Verdict {
    let verdict = judge_start(evidence, exit)
        .or_else(|| judge_memory(evidence, exit))
        .or_else(|| judge_ending(evidence, exit))
        .or_else(|| judge_kernel(evidence, exit))
        .or_else(|| judge_signal(evidence, exit))
        .or_else(|| {
            (exit.code == 0).then(|| certain(Cause::Success, "nothing is wrong: it ended by itself, with status 0"))
        })
        .or_else(|| judge_complaint(evidence))
        .unwrap_or_else(|| judge_status(exit));
    let mut verdict = verdict;
    verdict.evidence.insert(0, history(evidence, exit));
    verdict
}

/// It never ran, or nobody saw its end.
fn judge_start(evidence: &Evidence, exit: &ExitRecord) -> Option<Verdict> {
    let error = exit.error.as_ref()?;
    if error == ExitRecord::SUPERVISOR_LOST || error == ExitRecord::UNSEEN {
        let restart = format!("start it again: husk start {}", evidence.name);
        let verdict = if exit.started.is_some_and(|started| started < evidence.booted) {
            likely(Cause::SupervisorLost, "the machine went down while it ran")
                .shown(format!("the machine came up {} ago", ago(evidence, evidence.booted)))
        } else {
            certain(Cause::SupervisorLost, "its monitor was killed; that ends the container")
        };
        let verdict = verdict.remedy(restart);
        return Some(if evidence.restart == RestartPolicy::No {
            verdict
        } else {
            verdict.remedy("have `husk start --boot` run when the machine starts: husk generate boot")
        });
    }
    let executes = error.contains("exec");
    if let Some(program) = evidence.program.as_ref().filter(|_| executes)
        && let Some(verdict) = judge_program(evidence, program)
    {
        return Some(verdict.shown(format!("the start failed: {error}")));
    }
    Some(judge_start_error(evidence, error, exit.code))
}

fn judge_program(evidence: &Evidence, program: &Program) -> Option<Verdict> {
    let verdict = match program {
        Program::Fine { .. } => return None,
        Program::NotInPath { name, path } => {
            certain(Cause::ProgramMissing, format!("no directory of its PATH has a program {name:?}"))
                .shown(format!("PATH={path}"))
                .remedy("name the program by its whole path, or take an image that has it")
        }
        Program::Missing { path } => certain(Cause::ProgramMissing, format!("there is no {path} in it"))
            .remedy("compare with what is there: husk export CONTAINER | tar -t"),
        Program::NoFile { path } => certain(Cause::NotExecutable, format!("{path} is no file that could be executed"))
            .remedy("name a program, not a directory"),
        Program::Empty { path } => certain(Cause::NotAProgram, format!("{path} is empty"))
            .remedy("build or copy it again: an image whose build ran out of space may hold such files"),
        Program::NotExecutable { path, mode, uid } => {
            certain(Cause::NotExecutable, format!("user {uid} may not execute {path}"))
                .shown(format!("its mode is {mode:04o}"))
                .remedy(format!("chmod +x {path}, in the image or where it is mounted from"))
        }
        Program::Unreachable { path, directory, mode, uid } => {
            certain(Cause::Permission, format!("user {uid} does not get to {path}: {directory} lets it not through"))
                .shown(format!("the mode of {directory} is {mode:04o}"))
                .remedy(format!("chmod +x {directory}, or run it as another user (-u)"))
        }
        Program::NoExec { path, mount } => {
            certain(Cause::NoExec, format!("{path} lies on {mount}, which is mounted without execution (noexec)"))
                .remedy("mount it with `exec` among its options")
        }
        Program::NoInterpreter { path, interpreter } => {
            certain(Cause::InterpreterMissing, format!("{path} is a script for {interpreter}, which is not there"))
                .remedy(format!("install {interpreter} in the image, or change the script's first line"))
        }
        Program::CarriageReturn { path, interpreter } => certain(
            Cause::InterpreterMissing,
            format!(
                "the lines of {path} end as on Windows, so that it asks for {interpreter:?} with a carriage return"
            ),
        )
        .remedy(format!("sed -i 's/\\r$//' {path}; and have git leave it so: `*.sh text eol=lf` in .gitattributes")),
        Program::NoLoader { path, loader } => {
            let verdict =
                certain(Cause::LoaderMissing, format!("{path} wants the loader {loader}, which is not there"));
            match other_library(loader) {
                Some((its, other)) => verdict
                    .shown(format!("that loader is {its}'s; an image with {other} does not have it"))
                    .remedy(format!("take an image with {its}, or a program that is statically linked")),
                None => verdict.remedy("take the image that it was built for, or a program that is statically linked"),
            }
        }
        Program::WrongArchitecture { path, architecture } => {
            let ours = Platform::host().architecture;
            let verdict = certain(
                Cause::WrongArchitecture,
                format!("{path} is a program for {architecture}, and this machine is {ours}"),
            )
            .remedy(format!("take the image for this machine: husk pull --platform linux/{ours} IMAGE"));
            if evidence.has_emulators {
                verdict
                    .shown("emulators are registered here (binfmt_misc), but none that fits, or none with the flag F")
            } else {
                verdict.remedy("or register an emulator with flag F: apt install qemu-user-static binfmt-support")
            }
        }
        Program::Unrecognised { path } => {
            certain(Cause::NotAProgram, format!("{path} is neither a program nor a script that begins with #!"))
                .remedy("begin the script with #!/bin/sh, or run it by its interpreter: sh FILE")
        }
    };
    Some(verdict)
}

/// The two C libraries do not find each other's loaders: whose this one is, and the other.
fn other_library(loader: &str) -> Option<(&'static str, &'static str)> {
    let name = loader.rsplit('/').next()?;
    if name.starts_with("ld-musl-") {
        Some(("musl", "glibc (Debian, Fedora …)"))
    } else if name.starts_with("ld-linux") || name.starts_with("ld64.so") {
        Some(("glibc", "musl (Alpine)"))
    } else {
        None
    }
}

fn judge_start_error(evidence: &Evidence, error: &str, code: u8) -> Verdict {
    let cause = match code {
        126 => Cause::NotExecutable,
        127 => Cause::ProgramMissing,
        _ if error.contains("mount ") => Cause::Mount,
        _ => Cause::Start,
    };
    let mut verdict = certain(cause, format!("it could not be started: {error}"));
    if cause == Cause::Mount && error.contains("(ENOENT)") {
        verdict = verdict.remedy("make the directory that is to be mounted, or correct the path of -v");
    }
    if error.contains("(EACCES)") || error.contains("(EPERM)") {
        verdict = verdict.remedy(if cause == Cause::Mount {
            "every directory on the way to what is mounted must let you through: namei -l PATH"
        } else {
            "see what this host forbids: husk doctor"
        });
    }
    if error.contains("(ENOSPC)") {
        verdict = verdict.remedy("make room: husk system df, husk system prune");
    }
    verdict.remedy(format!("when it is mended: husk start {}", evidence.name))
}

/// The kernel's OOM killer.
fn judge_memory(evidence: &Evidence, exit: &ExitRecord) -> Option<Verdict> {
    if !exit.out_of_memory {
        return None;
    }
    let died = exit.signal == Some(KILL) || exit.code == 128 + 9;
    if exit.code == 0 {
        return None;
    }
    let memory = exit.memory.as_ref();
    let limit = memory.and_then(|memory| memory.limit.filter(|_| memory.is_own));
    let whose = match limit {
        Some(limit) => format!("for its memory limit of {}", binary_size(limit)),
        None => "because a cgroup above it, or the whole machine, had no memory left".to_owned(),
    };
    let victim = if died { "it" } else { "one of its processes" };
    let mut verdict = certain(Cause::OutOfMemory, format!("the kernel killed {victim} {whose}"));
    if let Some(memory) = memory {
        verdict = verdict.shown(told(memory));
    }
    let victims = evidence.kernel.iter().flatten().filter_map(|event| match &event.kind {
        EventKind::OutOfMemory { victim_cgroup, limit_cgroup, process }
            if victim_cgroup.contains(evidence.id.as_str()) =>
        {
            let whose = limit_cgroup.as_ref().map_or_else(|| "the machine".to_owned(), |path| format!("cgroup {path}"));
            Some(format!("the kernel's log: it killed {process:?} for the memory of {whose}"))
        }
        _ => None,
    });
    for line in victims.take(3) {
        verdict = verdict.shown(line);
    }
    Some(if limit.is_some() {
        verdict
            .remedy("give it more: run it with a larger -m (--memory)")
            .remedy("or have it use less: many runtimes take the machine's memory for theirs unless they are told")
    } else {
        verdict.remedy("see what else uses the memory: free -h, and give each container a limit (-m)")
    })
}

fn told(memory: &OutOfMemory) -> String {
    let peak = memory.peak.map(|peak| format!(", at most {} were in use", binary_size(peak))).unwrap_or_default();
    let limit = memory.limit.map_or_else(|| "no limit".to_owned(), |limit| format!("limit {}", binary_size(limit)));
    let processes = if memory.kills == 1 { "1 process" } else { &format!("{} processes", memory.kills) };
    format!("cgroup {}: {limit}{peak}, {processes} killed", memory.cgroup)
}

/// What its monitor did.
fn judge_ending(evidence: &Evidence, exit: &ExitRecord) -> Option<Verdict> {
    let ending = exit.ending?;
    let was_killed = exit.signal == Some(KILL);
    Some(match ending {
        Ending::Asked { signal } => {
            let how = match exit.signal {
                Some(number) => format!("ended by {}", signal_name(number)),
                None => format!("ended with status {}", exit.code),
            };
            certain(Cause::Stopped, format!("somebody asked for its end: it got {} and {how}", signal_name(signal)))
                .shown("the request came by husk stop, restart, kill or rm -f")
        }
        Ending::Impatience { signal, seconds } if was_killed => certain(
            Cause::Stopped,
            format!("somebody asked for its end: it did not end within {seconds} s of {}, and got SIGKILL", signal_name(signal)),
        )
        .remedy("have its first process handle that signal; a shell as the first process passes none on: use exec, or --init")
        .remedy("or give it more time (--stop-timeout), or a signal that it heeds (--stop-signal)"),
        Ending::TimeLimit if was_killed => certain(Cause::TimeLimit, "it ran for as long as --timeout lets it, and got SIGKILL")
            .remedy("run it with a longer --timeout"),
        Ending::Abandoned if was_killed => certain(
            Cause::Abandoned,
            "the command in whose foreground it ran was killed or lost its connection; that ends the container",
        )
        .remedy("what is to outlive its command runs with -d"),
        Ending::Unhealthy => {
            let verdict = judge_health(evidence).unwrap_or_else(|| certain(Cause::Unhealthy, "its health checks failed"));
            let summary = format!("it was ended because it was unhealthy (--health-on-failure): {}", verdict.summary);
            Verdict { summary, ..verdict }
        }
        // It was faster.
        Ending::Impatience { .. } | Ending::TimeLimit | Ending::Abandoned => return None,
    })
    .filter(|_| exit.code != 0 || exit.was_stopped || evidence.restart != RestartPolicy::No)
}

/// What its health checks say, if that is bad.
fn judge_health(evidence: &Evidence) -> Option<Verdict> {
    let health = evidence.health.as_ref().filter(|health| health.status == Health::Unhealthy)?;
    let failures = health.failing_streak;
    let verdict = certain(Cause::Unhealthy, format!("its last {failures} health checks failed"));
    let verdict = match health.log.last() {
        Some(check) if check.exit_code < 0 => {
            verdict.shown(format!("the last one took too long, or could not begin: {}", check.output))
        }
        Some(check) => {
            verdict.shown(format!("the last one gave status {}: {}", check.exit_code, check.output.trim_end()))
        }
        None => verdict,
    };
    Some(
        verdict
            .remedy("run the check by hand: husk exec CONTAINER COMMAND; husk inspect has what it is and all results"),
    )
}

/// What the kernel's log has of it.
fn judge_kernel(evidence: &Evidence, exit: &ExitRecord) -> Option<Verdict> {
    let signal = exit.signal.or_else(|| signal_of_status(exit.code))?;
    let events = evidence.kernel.as_deref().unwrap_or_default();
    if signal == SYSTEM_CALL {
        let verdict = match events.iter().rev().find_map(|event| refused_call(&event.kind)) {
            Some((command, call)) => likely(
                Cause::Seccomp,
                format!("its seccomp profile answered the system call {call} of {command:?} with death (SIGSYS)"),
            )
            .remedy(format!("if it needs {call}, allow it in a profile of its own: --security-opt seccomp=FILE")),
            None => likely(
                Cause::Seccomp,
                format!(
                    "it called something of the kernel that {} answers with death (SIGSYS)",
                    if evidence.has_filter { "its seccomp profile" } else { "a filter of its own" }
                ),
            )
            .remedy("root finds the call's number in the kernel's log: dmesg | grep type=1326"),
        };
        return Some(verdict.remedy("to be sure, run it once with --security-opt seccomp=unconfined"));
    }
    let is_its = |command: &str| {
        evidence.command.rsplit('/').next().is_some_and(|own| own.starts_with(command) || command.starts_with(own))
    };
    let crash =
        events.iter().rev().find(|event| matches!(&event.kind, EventKind::Crash { command } if is_its(command)))?;
    let meaning = signal_meaning(signal).unwrap_or("it made a mistake that the processor noticed");
    Some(
        certain(Cause::Crash, format!("it crashed ({}): {meaning}", signal_name(signal)))
            .shown(format!("the kernel's log: {}", crash.line)),
    )
}

fn refused_call(kind: &EventKind) -> Option<(&str, String)> {
    match kind {
        EventKind::Seccomp { command, system_call, architecture, signal: SYSTEM_CALL } => {
            let name = call_name(*architecture, *system_call);
            Some((command, name.map_or_else(|| format!("number {system_call}"), str::to_owned)))
        }
        _ => None,
    }
}

fn judge_signal(evidence: &Evidence, exit: &ExitRecord) -> Option<Verdict> {
    const CRASHES: [i32; 6] = [4, 5, 6, 7, 8, 11];
    let (signal, who) = match exit.signal {
        Some(signal) => (signal, "it"),
        None => (signal_of_status(exit.code)?, "a process that its first process waited for"),
    };
    let name = signal_name(signal);
    let meaning = signal_meaning(signal).map(|meaning| format!(": {meaning}")).unwrap_or_default();
    if CRASHES.contains(&signal) {
        let verdict = certain(Cause::Crash, format!("{who} crashed ({name}){meaning}"));
        return Some(match exit.signal {
            Some(_) => verdict,
            None => Verdict { certainty: Certainty::Likely, ..verdict },
        });
    }
    let mut verdict = match exit.signal {
        Some(_) => certain(Cause::Signal, format!("{who} was ended by {name}{meaning}")),
        None => likely(Cause::Signal, format!("{who} was ended by {name}{meaning}")),
    };
    if signal == KILL {
        verdict = verdict.shown("neither husk nor, as far as its cgroup tells, the OOM killer has sent it").remedy(
            "who else could: a process in it, root on the host, systemd-oomd (journalctl -u systemd-oomd), earlyoom",
        );
    } else if FROM_TERMINAL.contains(&signal) && evidence.is_foreground {
        verdict =
            verdict.shown("the command in whose foreground it ran passes on the signals that it gets (--sig-proxy)");
    }
    Some(verdict)
}

/// What helps one that has a network.
fn network_remedy(network: &Network) -> Option<String> {
    match network {
        Network::Host => Some("it has this host's network: see whether the host gets there".to_owned()),
        Network::Container(_) | Network::Path(_) => Some(format!("its network is {}: see there", network.mode())),
        Network::None => None,
        Network::Joined(attachments) => {
            let names: Vec<&str> = attachments.iter().map(|attachment| attachment.network.as_str()).collect();
            let first = names.first()?;
            let all = names.join(", ");
            Some(format!(
                "it is in {all}: see whether that is internal (husk network inspect {first}), and whether this host gets there"
            ))
        }
    }
}

fn judge_complaint(evidence: &Evidence) -> Option<Verdict> {
    let (complaint, line) = complaints::find(&evidence.log)?;
    if complaint.cause == Cause::Network
        && let Some(remedy) = network_remedy(&evidence.network)
    {
        return Some(
            likely(Cause::Network, format!("it ended by itself; most likely {}", complaint.meaning))
                .shown(format!("it wrote: {line}"))
                .remedy(remedy),
        );
    }
    let mut verdict = likely(complaint.cause, format!("it ended by itself; most likely {}", complaint.meaning))
        .shown(format!("it wrote: {line}"));
    match complaint.cause {
        Cause::Permission => {
            for mount in &evidence.closed_mounts {
                verdict = verdict.shown(format!(
                    "{} ({} on the host) belongs to user {} with mode {:04o}: user {} may not write there",
                    mount.destination, mount.source, mount.owner, mount.mode, evidence.uid
                ));
            }
            if let Some(mount) = evidence.closed_mounts.first() {
                verdict = verdict.remedy(format!(
                    "give the files to its user: -v {}:{}:U, or mount them with their owners mapped (idmap)",
                    mount.source, mount.destination
                ));
            }
        }
        Cause::NotPermitted if evidence.is_privileged && !evidence.has_filter => {
            return Some(verdict.remedy(
                "it has the capabilities and no filter: a security module, or the file itself refuses (chattr +i)",
            ));
        }
        Cause::ReadOnly if evidence.is_read_only => {
            verdict = verdict.shown("its root file system is read-only (--read-only)");
        }
        _ => {}
    }
    Some(verdict.remedy(complaint.remedy))
}

/// Nothing points anywhere.
fn judge_status(exit: &ExitRecord) -> Verdict {
    match exit.code {
        126 => likely(
            Cause::NotExecutable,
            "it ended by itself with status 126: by custom, a program that its shell started cannot be executed",
        ),
        127 => likely(
            Cause::ProgramMissing,
            "it ended by itself with status 127: by custom, a program that its shell started is not there",
        )
        .remedy("see whether the image has it: husk run --rm --entrypoint sh IMAGE -c 'command -v NAME'"),
        code => Verdict {
            certainty: Certainty::Unknown,
            ..certain(
                Cause::OwnFailure,
                format!("it ended by itself with status {code}; what that means is the program's to say"),
            )
        }
        .remedy("see what it wrote: husk logs"),
    }
}

/// When it ran and how it ended.
fn history(evidence: &Evidence, exit: &ExitRecord) -> String {
    let ran = exit.started.map(|started| human(exit.finished.saturating_sub(started)));
    let how = match exit.signal {
        Some(signal) => format!("exit status {} ({})", exit.code, signal_name(signal)),
        None => format!("exit status {}", exit.code),
    };
    let after = ran.filter(|_| exit.error.is_none()).map(|ran| format!(" after {ran}")).unwrap_or_default();
    format!("{how}, {} ago{after}", ago(evidence, exit.finished))
}

fn restarts(evidence: &Evidence, exit: &ExitRecord) -> Option<String> {
    let times = match exit.restarts {
        0 => return None,
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    let end = match evidence.restart {
        RestartPolicy::OnFailure { most: Some(most) } if exit.restarts >= most => ", which is as often as it may",
        _ => "",
    };
    Some(format!("its restart policy ({}) had started it again {times}{end}", evidence.restart))
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

fn ago(evidence: &Evidence, then: Timestamp) -> String {
    human(evidence.now.saturating_sub(then))
}

/// In the middle of a sentence.
fn human(nanoseconds: u64) -> String {
    let mut words = human_duration(Duration::from_nanos(nanoseconds));
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    words
}

fn certain(cause: Cause, summary: impl Into<String>) -> Verdict {
    Verdict {
        cause,
        certainty: Certainty::Certain,
        summary: summary.into(),
        evidence: Vec::new(),
        remedies: Vec::new(),
    }
}

fn likely(cause: Cause, summary: impl Into<String>) -> Verdict {
    Verdict { certainty: Certainty::Likely, ..certain(cause, summary) }
}

impl Verdict {
    fn shown(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }

    fn shown_if(self, line: Option<String>) -> Self {
        match line {
            Some(line) => self.shown(line),
            None => self,
        }
    }

    fn remedy(mut self, line: impl Into<String>) -> Self {
        self.remedies.push(line.into());
        self
    }
}

#[cfg(test)]
mod tests;
