use super::*;
use crate::engine::why::evidence::ClosedMount;
use crate::engine::why::kernel_log::Event;

use super::Cause as C;
use super::Certainty::{Certain, Likely, Unknown};

fn evidence(state: State) -> Evidence {
    Evidence {
        id: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".parse().unwrap(),
        name: "web".parse().unwrap(),
        state,
        now: 100_000_000_000,
        booted: 0,
        restart: RestartPolicy::No,
        is_foreground: false,
        command: "/bin/server".into(),
        uid: 33,
        network: Network::None,
        is_read_only: false,
        has_filter: true,
        is_privileged: false,
        program: None,
        closed_mounts: Vec::new(),
        kernel: None,
        log: Vec::new(),
        health: None,
        has_emulators: false,
    }
}

fn exit(code: u8) -> ExitRecord {
    ExitRecord { started: Some(30_000_000_000), finished: 40_000_000_000, code, ..ExitRecord::default() }
}

fn signal(number: i32) -> ExitRecord {
    ExitRecord { signal: Some(number), ..exit(u8::try_from(128 + number).unwrap()) }
}

fn memory(limit: Option<u64>, is_own: bool) -> OutOfMemory {
    OutOfMemory { cgroup: "/husk/x".into(), kills: 1, limit, is_own, peak: Some(64 << 20) }
}

#[test]
fn ends_have_their_causes() {
    let oom = |memory| ExitRecord { out_of_memory: true, memory, ..signal(9) };
    let ended = |ending, exit: ExitRecord| ExitRecord { ending: Some(ending), was_stopped: true, ..exit };
    let failed = |code, error: &str| ExitRecord { error: Some(error.into()), ..exit(code) };
    for (exit, cause, certainty, words) in [
        (exit(0), C::Success, Certain, "with status 0"),
        (exit(3), C::OwnFailure, Unknown, "with status 3"),
        (exit(126), C::NotExecutable, Likely, "its shell started"),
        (exit(127), C::ProgramMissing, Likely, "its shell started"),
        (exit(137), C::Signal, Likely, "waited for was ended by SIGKILL"),
        (exit(139), C::Crash, Likely, "waited for crashed (SIGSEGV)"),
        (exit(255), C::OwnFailure, Unknown, "with status 255"),
        (signal(9), C::Signal, Certain, "it was ended by SIGKILL"),
        (signal(11), C::Crash, Certain, "it crashed (SIGSEGV)"),
        (signal(4), C::Crash, Certain, "x86-64-v3"),
        (signal(31), C::Seccomp, Likely, "its seccomp profile"),
        (oom(Some(memory(Some(64 << 20), true))), C::OutOfMemory, Certain, "killed it for its memory limit of 64MiB"),
        (oom(Some(memory(Some(64 << 20), false))), C::OutOfMemory, Certain, "a cgroup above it, or the whole machine"),
        (oom(None), C::OutOfMemory, Certain, "a cgroup above it, or the whole machine"),
        (
            ExitRecord { out_of_memory: true, memory: Some(memory(Some(1), true)), ..exit(1) },
            C::OutOfMemory,
            Certain,
            "one of its processes",
        ),
        (ExitRecord { out_of_memory: true, ..exit(0) }, C::Success, Certain, "with status 0"),
        (ended(Ending::Asked { signal: 15 }, exit(0)), C::Stopped, Certain, "it got SIGTERM and ended with status 0"),
        (ended(Ending::Asked { signal: 9 }, signal(9)), C::Stopped, Certain, "it got SIGKILL and ended by SIGKILL"),
        (
            ended(Ending::Impatience { signal: 15, seconds: 10 }, signal(9)),
            C::Stopped,
            Certain,
            "within 10 s of SIGTERM",
        ),
        (ended(Ending::Impatience { signal: 15, seconds: 10 }, exit(3)), C::OwnFailure, Unknown, "with status 3"),
        (ended(Ending::TimeLimit, signal(9)), C::TimeLimit, Certain, "--timeout"),
        (ended(Ending::Abandoned, signal(9)), C::Abandoned, Certain, "was killed or lost its connection"),
        (failed(255, ExitRecord::SUPERVISOR_LOST), C::SupervisorLost, Certain, "its monitor was killed"),
        (
            failed(127, "exec: \"x\": executable file not found in $PATH"),
            C::ProgramMissing,
            Certain,
            "could not be started",
        ),
        (failed(128, "mount /x on /y: no such file or directory (ENOENT)"), C::Mount, Certain, "could not be started"),
        (failed(128, "set memory.max: permission denied (EACCES)"), C::Start, Certain, "set memory.max"),
    ] {
        let verdict = judge(&evidence(State::Ended(exit.clone())));
        assert_eq!((verdict.cause, verdict.certainty), (cause, certainty), "{exit:?}");
        assert!(verdict.summary.contains(words), "{exit:?}: {}", verdict.summary);
        assert!(verdict.evidence[0].ends_with(" ago after 10 seconds") || exit.error.is_some(), "{verdict:?}");
    }
}

#[test]
fn what_has_not_ended_is_told_apart() {
    let running = |is_paused| State::Running { started: 40_000_000_000, is_paused };
    for (state, cause, words) in [
        (State::Created, Cause::NeverStarted, "never started"),
        (running(false), Cause::Runs, "about a minute"),
        (running(true), Cause::Paused, "frozen"),
    ] {
        let verdict = judge(&evidence(state));
        assert_eq!(verdict.cause, cause);
        assert!(verdict.summary.contains(words), "{}", verdict.summary);
    }
}

#[test]
fn programs_have_their_faults() {
    let path = || "/bin/server".to_owned();
    for (program, cause, words) in [
        (Program::Missing { path: path() }, Cause::ProgramMissing, "no /bin/server"),
        (
            Program::NotInPath { name: "x".into(), path: "/bin".into() },
            Cause::ProgramMissing,
            "PATH has a program \"x\"",
        ),
        (Program::NoFile { path: path() }, Cause::NotExecutable, "no file"),
        (Program::Empty { path: path() }, Cause::NotAProgram, "is empty"),
        (
            Program::NotExecutable { path: path(), mode: 0o644, uid: 33 },
            Cause::NotExecutable,
            "user 33 may not execute",
        ),
        (
            Program::Unreachable { path: path(), directory: "/bin".into(), mode: 0o700, uid: 33 },
            Cause::Permission,
            "/bin lets",
        ),
        (Program::NoExec { path: path(), mount: "/bin".into() }, Cause::NoExec, "noexec"),
        (
            Program::NoInterpreter { path: path(), interpreter: "/bin/bash".into() },
            Cause::InterpreterMissing,
            "script for /bin/bash",
        ),
        (
            Program::CarriageReturn { path: path(), interpreter: "/bin/sh".into() },
            Cause::InterpreterMissing,
            "as on Windows",
        ),
        (
            Program::NoLoader { path: path(), loader: "/lib64/ld-linux-x86-64.so.2".into() },
            Cause::LoaderMissing,
            "wants the loader",
        ),
        (
            Program::WrongArchitecture { path: path(), architecture: "s390x".into() },
            Cause::WrongArchitecture,
            "for s390x",
        ),
        (Program::Unrecognised { path: path() }, Cause::NotAProgram, "neither"),
    ] {
        let failed = ExitRecord { error: Some("exec: \"/bin/server\": x".into()), ..exit(126) };
        let verdict = judge(&Evidence { program: Some(program.clone()), ..evidence(State::Ended(failed)) });
        assert_eq!((verdict.cause, verdict.certainty), (cause, Certain), "{program:?}");
        assert!(verdict.summary.contains(words), "{}", verdict.summary);
        assert!(!verdict.remedies.is_empty(), "{program:?}");
        // What ran has no such fault.
        let verdict = judge(&Evidence { program: Some(program), ..evidence(State::Ended(exit(1))) });
        assert_eq!(verdict.cause, Cause::OwnFailure);
    }
}

#[test]
fn a_program_of_another_library_is_known() {
    let failed = ExitRecord { error: Some("exec /x: no such file".into()), ..exit(126) };
    for (loader, words) in [("/lib64/ld-linux-x86-64.so.2", "is glibc's"), ("/lib/ld-musl-x86_64.so.1", "is musl's")] {
        let program = Some(Program::NoLoader { path: "/x".into(), loader: loader.into() });
        let verdict = judge(&Evidence { program, ..evidence(State::Ended(failed.clone())) });
        assert!(verdict.evidence.iter().any(|line| line.contains(words)), "{verdict:?}");
    }
}

#[test]
fn the_kernels_log_names_calls_and_victims() {
    let event = |kind| Event { line: "line".into(), kind };
    let call = EventKind::Seccomp { command: "server".into(), system_call: 165, architecture: 0xc000_003e, signal: 31 };
    let verdict = judge(&Evidence { kernel: Some(vec![event(call)]), ..evidence(State::Ended(signal(31))) });
    assert_eq!(verdict.cause, Cause::Seccomp);
    #[cfg(target_arch = "x86_64")]
    assert!(verdict.summary.contains("the system call mount of \"server\""), "{}", verdict.summary);

    let crash = EventKind::Crash { command: "server".into() };
    let verdict = judge(&Evidence { kernel: Some(vec![event(crash)]), ..evidence(State::Ended(signal(11))) });
    assert_eq!(verdict.evidence.last().unwrap(), "the kernel's log: line");

    let killed = ExitRecord { out_of_memory: true, memory: Some(memory(Some(1), true)), ..signal(9) };
    let mut evidence = evidence(State::Ended(killed));
    let victim = |cgroup: String| {
        event(EventKind::OutOfMemory { victim_cgroup: cgroup, limit_cgroup: None, process: "python".into() })
    };
    evidence.kernel = Some(vec![victim("/other".into()), victim(format!("/husk/{}", evidence.id))]);
    let lines = judge(&evidence).evidence;
    assert_eq!(lines.iter().filter(|line| line.contains("python")).count(), 1, "{lines:?}");
}

#[test]
fn a_complaint_makes_a_cause_likely() {
    let with = |line: &str| Evidence { log: vec![line.to_owned()], ..evidence(State::Ended(exit(1))) };
    let verdict = judge(&with("listen: address already in use"));
    assert_eq!((verdict.cause, verdict.certainty), (Cause::PortTaken, Likely));
    let mount = ClosedMount { destination: "/data".into(), source: "/srv".into(), owner: 0, mode: 0o755 };
    let verdict = judge(&Evidence { closed_mounts: vec![mount], ..with("open /data/x: Permission denied") });
    assert_eq!(verdict.cause, Cause::Permission);
    assert!(verdict.evidence.iter().any(|line| line.contains("/srv on the host")), "{verdict:?}");
    assert!(verdict.remedies[0].contains("-v /srv:/data:U"), "{verdict:?}");
    // A signal is stronger than words.
    let verdict = judge(&Evidence { log: vec!["permission denied".into()], ..evidence(State::Ended(signal(11))) });
    assert_eq!(verdict.cause, Cause::Crash);
}

#[test]
fn a_reboot_is_told_from_a_killed_monitor() {
    let lost = ExitRecord { error: Some(ExitRecord::SUPERVISOR_LOST.into()), ..exit(255) };
    let verdict = judge(&Evidence { booted: 40_000_000_000, ..evidence(State::Ended(lost)) });
    assert_eq!((verdict.cause, verdict.certainty), (Cause::SupervisorLost, Likely));
    assert_eq!(verdict.summary, "the machine went down while it ran");
}

#[test]
fn ill_health_is_named() {
    let check = serde_json::json!({"Start": "", "End": "", "ExitCode": 7, "Output": "refused\n"});
    let health = serde_json::json!({"Status": "unhealthy", "FailingStreak": 3, "Log": [check]});
    let health = Some(serde_json::from_value(health).unwrap());
    let ended = ExitRecord { ending: Some(Ending::Unhealthy), was_stopped: true, ..signal(9) };
    for state in [State::Running { started: 0, is_paused: false }, State::Ended(ended)] {
        let verdict = judge(&Evidence { health: health.clone(), ..evidence(state) });
        assert_eq!(verdict.cause, Cause::Unhealthy);
        assert!(verdict.summary.ends_with("its last 3 health checks failed"), "{}", verdict.summary);
        assert!(verdict.evidence.contains(&"the last one gave status 7: refused".to_owned()), "{verdict:?}");
    }
}

#[test]
fn restarts_are_told() {
    let restart = RestartPolicy::OnFailure { most: Some(3) };
    let ended = ExitRecord { restarts: 3, ..exit(1) };
    let verdict = judge(&Evidence { restart, ..evidence(State::Ended(ended.clone())) });
    assert!(verdict.evidence.iter().any(|line| line.contains("3 times, which is as often as it may")), "{verdict:?}");
    let verdict = judge(&Evidence { restart, ..evidence(State::Restarting(ended)) });
    assert!(verdict.summary.starts_with("it ends again and again; the last time it ended by itself"), "{verdict:?}");
    assert!(verdict.evidence.iter().any(|line| line.contains("for the 4th time")), "{verdict:?}");
}
