//! The last steps of a process that becomes a workload, the same for init and for `exec`: a session, the terminal, the
//! credentials, the executable, and the tape that a sealed stub plays.
//!
//! Runs where the namespaces and the root are the container's already. Joins nothing and mounts nothing but the console.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{Gid, Uid};

use super::plan::ProcessPlan;
use super::protocol::{Channel, ListenerGoes, Tag};
use super::tape::{FORK_CALLS, Step, Tape};
use super::{capability, console};
use crate::error::{Context, Error, Kind, Result};
use crate::rootfs::host::{self, HostProc};
use crate::seccomp::Program;
use crate::support::passwd;
use crate::support::root::Root;
use crate::sys::landlock::restrict_self;
use crate::sys::process::{CStringArray, keep_over_exec, new_session_keyring, resource_limit, set_resource_limit};
use crate::sys::{signal, stub};

/// Where docker's init is.
const INIT_PATH: &str = "/sbin/docker-init";

/// Most that is read of the container's passwd.
const PASSWD_LIMIT_BYTES: usize = 10 << 20;

/// Leads a session and has a session keyring of its own.
pub(super) fn start_session(process: &ProcessPlan, proc: &HostProc) -> Result<()> {
    match rustix::process::setsid() {
        // The first process of a PID namespace may lead a session already.
        Ok(_) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno).context("start a session"),
    }
    if !process.has_own_keyring {
        return Ok(());
    }
    process.labels.begin_keys(proc)?;
    match new_session_keyring() {
        // A kernel without keyrings has none to share.
        Ok(()) | Err(Errno::NOSYS) => process.labels.end_keys(proc),
        // Passed over, the container would see the caller's keys.
        Err(errno) => {
            Err(Error::from(errno).context("make a session keyring").with_hint("--no-new-keyring keeps the caller's"))
        }
    }
}

/// Makes the terminal in the container's devpts, if the workload is to have one, and sends its master to the parent.
pub(super) fn make_terminal(process: &ProcessPlan, channel: &Channel) -> Result<()> {
    provide_terminal(process, channel)?;
    take_terminal(process)
}

/// The part of [`make_terminal`] that a process can do for another, which then leads the session.
pub(super) fn provide_terminal(process: &ProcessPlan, channel: &Channel) -> Result<()> {
    if !process.terminal {
        return Ok(());
    }
    let root = Root::open(Path::new("/"))?;
    let master = console::make_terminal(&root, process.console_size)?;
    channel.send_fd(Tag::Terminal, master.as_fd())
}

/// Opens the container's own `/dev/null` in place of the host's among the standard streams: CRIU saves no file of a mount
/// that the container has not. Where there is none, the host's stays.
pub(super) fn take_own_null(root: &Root) -> Result<()> {
    let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    let is_null = [stdin, stdout, stderr].map(|fd| host::require_null(fd).is_ok());
    if is_null == [false; 3] {
        return Ok(());
    }
    let Ok(null) = root.open_at(Path::new("/dev/null"), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()) else {
        return Ok(());
    };
    if host::require_null(null.as_fd()).is_err() {
        return Ok(());
    }
    let duplicates = [rustix::stdio::dup2_stdin, rustix::stdio::dup2_stdout, rustix::stdio::dup2_stderr];
    for (duplicate, _) in duplicates.iter().zip(is_null).filter(|(_, is_null)| *is_null) {
        duplicate(&null).context("take the container's /dev/null")?;
    }
    Ok(())
}

/// The part of [`make_terminal`] that is for the leader of the session.
pub(super) fn take_terminal(process: &ProcessPlan) -> Result<()> {
    if process.terminal { console::take_control() } else { Ok(()) }
}

/// Gives the environment with the user's home, if it is to be looked up in the container; else the plan's is whole.
pub(super) fn complete_environment(process: &ProcessPlan, root: &Root) -> Option<CStringArray> {
    process.wants_home.then(|| environment_with_home(process, &home_of(root, process.uid)))
}

/// Looks up the user's home in the container's passwd; `/` where there is none, as runc has it.
fn home_of(root: &Root, uid: u32) -> Vec<u8> {
    let text = root.read(Path::new("/etc/passwd"), PASSWD_LIMIT_BYTES).unwrap_or_default();
    // A line that is none is somebody else's mistake: it names no home.
    let entry = passwd::passwd_entries(&text).filter_map(Result::ok).find(|entry| entry.uid == uid);
    entry.map_or_else(|| b"/".to_vec(), |entry| entry.home.to_vec())
}

fn environment_with_home(process: &ProcessPlan, home: &[u8]) -> CStringArray {
    let mut strings = process.envp.strings().to_vec();
    // A line of a file holds no NUL unless somebody put one there; then there is no HOME.
    if let Ok(entry) = CString::new([b"HOME=", home].concat()) {
        strings.push(entry);
    }
    CStringArray::new(strings)
}

/// When the filter is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filtering {
    /// Last, by the tape, so that the profile need allow next to nothing for us. Without no_new_privs that wants
    /// CAP_SYS_ADMIN, which the process keeps until then.
    Last,
    /// With the credentials, and all that comes after is filtered.
    WithCredentials,
}

impl Filtering {
    /// Decides it for a process that is `seen` by others of a container, or waits for something, before its tape.
    pub(super) fn of(process: &ProcessPlan, seen: bool) -> Self {
        // Who is seen has no more rights than the workload.
        if seen && !process.no_new_privileges { Self::WithCredentials } else { Self::Last }
    }

    /// Gives what the process keeps for the loading.
    fn keeps(self, process: &ProcessPlan) -> u64 {
        let wants = process.seccomp.is_some() && !process.no_new_privileges;
        if wants && self == Self::Last { capability::SYS_ADMIN } else { 0 }
    }

    /// Says whether the tape sets the limits. A filter that is loaded early need not let it.
    fn limits_wait(self, process: &ProcessPlan) -> bool {
        process.seccomp.is_none() || self == Self::Last
    }
}

/// What the tape is written with, beside the plan.
pub(super) struct Prepared {
    executable: CString,
    /// The Landlock ruleset that is still to be put on.
    ruleset: Option<OwnedFd>,
    filtering: Filtering,
    /// Whether the filter is still to be loaded.
    filter_waits: bool,
}

impl Prepared {
    /// Gives the filter that is still to be loaded.
    pub(super) fn filter<'a>(&self, process: &'a ProcessPlan) -> Option<&'a Program> {
        process.seccomp.as_ref().filter(|_| self.filter_waits)
    }

    /// The number of the descriptor that is still needed.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.ruleset.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// Gives a procfs of a PID namespace and of processes alone, for the labels that are written when the host's is closed.
pub(super) fn proc_after(process: &ProcessPlan, processes: BorrowedFd<'_>) -> Result<Option<HostProc>> {
    if process.labels.at_exec.is_empty() { Ok(None) } else { HostProc::of_processes(processes).map(Some) }
}

/// Turns into the workload's user, and finds the executable with that user's rights.
pub(super) fn take_credentials(
    process: &ProcessPlan,
    proc: &HostProc,
    channel: &Channel,
    filtering: Filtering,
) -> Result<Prepared> {
    let mut ruleset = match &process.landlock {
        Some(landlock) => Some(landlock.make_ruleset(&Root::open(Path::new("/"))?)?),
        None => None,
    };
    let waits = filtering.limits_wait(process);
    for &(resource, soft, hard) in &process.rlimits {
        let describe = || format!("set resource limit {} to {soft}:{hard}", limit_name(resource));
        let (soft, hard) = if waits {
            // Only what wants rights: no file, no memory or no descriptor would be left for what husk still has to do.
            let (soft, most) = resource_limit(resource).with_context(describe)?;
            if hard <= most {
                continue;
            }
            (soft, hard)
        } else {
            (soft, hard)
        };
        set_resource_limit(resource, soft, hard).with_context(describe)?;
    }
    process.attributes.apply()?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    }
    let kept = filtering.keeps(process);
    if filtering == Filtering::WithCredentials {
        load_filter(process, channel)?;
    } else if kept != 0 {
        capability::make_inheritable(kept)?;
    }
    process.capabilities.apply_bounding()?;
    // Set-user-id takes the capabilities along only if asked to.
    rustix::thread::set_keep_capabilities(true).context("keep capabilities")?;
    if process.keeps_groups {
        // crun's `run.oci.keep_original_groups`.
    } else if process.denies_setgroups {
        if !process.groups.is_empty() {
            return Err(Error::unsupported(
                "process.user.additionalGids: an ordinary user without subordinate ids has no groups to give",
            ));
        }
    } else {
        // Always called, also for none: the caller's groups are not the container's (CVE-2022-36109).
        let groups: Vec<Gid> = process.groups.iter().copied().map(Gid::from_raw).collect();
        match rustix::thread::set_thread_groups(&groups) {
            // Root of a user namespace that has given it up for its maps: none can be added, and none dropped.
            Err(Errno::PERM) if groups.is_empty() && denies_setgroups(proc) => {}
            answer => answer.context("set supplementary groups")?,
        }
    }
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    give_streams(process);
    let early = rustix::process::chdir(&process.cwd);
    if let (Some(landlock), false) = (&process.landlock, process.no_new_privileges)
        && let Some(ruleset) = ruleset.take()
    {
        // Without no_new_privs this wants CAP_SYS_ADMIN too. What follows opens no file but by descriptor.
        restrict_self(ruleset.as_fd(), landlock.flags).context("restrict the process by Landlock")?;
    }
    set_ids(process.uid, process.gid)?;
    if early.is_err() {
        // Perhaps a directory for this user only.
        rustix::process::chdir(&process.cwd)
            .with_context(|| format!("change to the working directory {}", process.cwd.display()))?;
    }
    verify_cwd(&process.cwd)?;
    rustix::thread::set_keep_capabilities(false).context("keep capabilities")?;
    process.capabilities.with(kept).apply()?;
    if process.dies_with_parent {
        // The change of user has cleared it (prctl(2)).
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("follow the parent's death")?;
    }
    let filter_waits = process.seccomp.is_some() && filtering == Filtering::Last;
    Ok(Prepared { executable: find_executable(process, proc)?, ruleset, filtering, filter_waits })
}

pub(super) fn set_ids(uid: u32, gid: u32) -> Result<()> {
    let (uid_, gid_) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid_, gid_, gid_).with_context(|| format!("become group {gid}"))?;
    rustix::thread::set_thread_res_uid(uid_, uid_, uid_).with_context(|| format!("become user {uid}"))
}

fn denies_setgroups(proc: &HostProc) -> bool {
    proc.read("self/setgroups").is_ok_and(|word| word.trim_end() == "deny")
}

/// Gives the workload's user what stdio is, so that `/dev/stdout` can be opened: our own terminal, anonymous pipes, and FIFOs
/// that the engine's monitor has made for it. Nothing else that has a name (CVE-2026-88265).
fn give_streams(process: &ProcessPlan) {
    /// `PIPEFS_MAGIC` of linux/magic.h.
    const PIPEFS_MAGIC: rustix::fs::FsWord = 0x5049_5045;
    if process.uid == 0 {
        return;
    }
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let is_own_fifo = || {
            process.owns_fifos
                && rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
        };
        let is_pipe = || rustix::fs::fstatfs(stream).is_ok_and(|stat| stat.f_type == PIPEFS_MAGIC);
        if process.terminal || is_pipe() || is_own_fifo() {
            // An owner that our user namespace has no id for stays, and the user does without.
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(process.uid)), None);
        }
    }
}

/// A working directory outside the root, by way of a leaked descriptor, has no path (CVE-2024-21626).
fn verify_cwd(cwd: &Path) -> Result<()> {
    let path = rustix::process::getcwd(Vec::new()).context("read the working directory")?;
    if path.to_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Error::invalid(format!("process.cwd: {} is outside the root file system", cwd.display())))
}

/// Finds the first candidate that may be executed.
fn find_executable(process: &ProcessPlan, proc: &HostProc) -> Result<CString> {
    let name = process.argv.strings().first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let has_slash = name.contains('/');
    let mut denied = None;
    for candidate in &process.candidates {
        match is_executable(proc, candidate) {
            Ok(()) => return Ok(candidate.clone()),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => denied = Some(errno),
        }
    }
    Err(match denied {
        Some(errno) => Error::from(errno).with_kind(Kind::NotExecutable).context(format!("exec: \"{name}\"")),
        None if has_slash => Error::from(Errno::NOENT)
            .with_kind(Kind::ExecutableNotFound)
            .context(format!("stat {name}"))
            .context(format!("exec: \"{name}\"")),
        None => Error::new(Kind::ExecutableNotFound, "executable file not found in $PATH")
            .context(format!("exec: \"{name}\"")),
    })
}

fn is_executable(proc: &HostProc, path: &CStr) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    // By a link in the container's /proc a path can lead to our own executable. The stub would be in its place by the
    // exec, and would play its tape for ever.
    let own = rustix::fs::statat(proc, "self/exe", AtFlags::empty())?;
    if (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino) { Err(Errno::ACCESS) } else { Ok(()) }
}

/// Loads the filter from here. If it has a listener, waits until the parent has handed that on.
///
/// From the first call after this on, any may be one that waits for whoever has the listener. What brings it there is
/// the parent, which is not filtered, at the word of a write(2), which cannot be handed to a listener; all others may.
fn load_filter(process: &ProcessPlan, channel: &Channel) -> Result<()> {
    let Some(program) = &process.seccomp else { return Ok(()) };
    let listener = crate::sys::seccomp::install(&program.filter, program.flags).context("load the seccomp filter")?;
    if let Some(listener) = listener {
        // Of an ordinary user's parent, the descriptor is out of reach: in memory that was copied at the clone, init
        // belongs to the user namespace of the host (ptrace(2), PTRACE_MODE_ATTACH).
        let may_wait = program.listener.as_ref().is_none_or(|listener| listener.may_ask_for_sendmsg);
        let how = if may_wait { ListenerGoes::ByNumber } else { ListenerGoes::Along };
        channel.send_listener(listener.as_fd(), how)?;
        channel.expect(Tag::ListenerSent)?;
    }
    Ok(())
}

/// Loads a filter with a listener before `start`, where the parent is still there to take it, and hooks are to come
/// between `start` and the tape.
pub(super) fn load_filter_before_hooks(
    process: &ProcessPlan,
    channel: &Channel,
    prepared: &mut Prepared,
) -> Result<()> {
    if prepared.filter(process).is_some_and(|program| program.listener.is_some()) {
        load_filter(process, channel)?;
        prepared.filter_waits = false;
    }
    Ok(())
}

/// What the tape does between husk's own last step and the workload.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// Nothing: the parent was told that the workload is ready, and may be gone.
    Nothing,
    /// It tells the parent.
    Ready,
    /// It tells the parent, and waits for `start`.
    ReadyAndWait(&'a OwnedFd),
}

/// Where the process is that begins the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where the workload is to be.
    Container,
    /// Outside of the PID namespace, which it has entered for its children.
    OutOfSight,
}

impl ProcessPlan {
    /// Says whether a process out of sight can do all the work, and the tape of it clones the one that is seen.
    ///
    /// Without no_new_privs the filter comes before that: nobody is seen with the capability that loads it. It has to let
    /// the calls pass, and whoever listens to it is told of the process that loads it. Some schedulers are not for the children of a process (sched(7), sched_setattr(2)).
    pub(super) fn can_appear_late(&self) -> bool {
        let is_inherited = self.attributes.are_inherited();
        let early = self.seccomp.as_ref().filter(|_| !self.no_new_privileges);
        is_inherited && early.is_none_or(|filter| filter.listener.is_none() && Tape::may_appear(filter))
    }
}

/// Leaves husk's own executable for a sealed one that makes the last calls.
pub(super) fn play_tape(
    process: &ProcessPlan,
    proc: &HostProc,
    channel: &Channel,
    prepared: &Prepared,
    envp: Option<&CStringArray>,
    before: Before<'_>,
    place: Place,
) -> Result<Infallible> {
    const NAME: &CStr = c"husk:[2:INIT]";
    let title = if process.has_init { init_title(process) } else { NAME.to_owned() };
    let labels = &process.labels.at_exec;
    let capacity = 19 + FORK_CALLS + signal::ENDING.len() + process.rlimits.len() + 2 * labels.len();
    let mut tape = Tape::new(capacity, channel.as_fd(), Tag::ExecFailed as u8);
    tape.become_undumpable();
    tape.name(NAME);
    // A label is for the next exec, so it is not husk that writes it. Then the rules on files, which could forbid that.
    for label in labels {
        tape.write_file(proc.as_fd(), label.path, &label.text, Step::Label);
    }
    if let (Some(ruleset), Some(landlock)) = (&prepared.ruleset, &process.landlock) {
        tape.landlock(ruleset.as_fd(), landlock.flags);
    }
    let program = prepared.filter(process);
    let kept = prepared.filtering.keeps(process);
    let confine = |tape: &mut Tape| {
        // What need not come after the filter comes before it.
        tape.close_from(process.preserved_fds.saturating_add(3));
        let Some(program) = program else { return };
        tape.seccomp(&crate::sys::seccomp::to_bytes(&program.filter), program.flags);
        if program.listener.is_some() {
            tape.send_listener(Tag::Listener as u8);
        }
        if kept != 0 {
            tape.capabilities(&process.capabilities.after_exec(process.uid));
        }
    };
    let is_first = place == Place::OutOfSight && kept != 0;
    if place == Place::OutOfSight {
        if !labels.is_empty() {
            tape.close(proc.as_fd());
        }
        if let Some(ruleset) = &prepared.ruleset {
            tape.close(ruleset.as_fd());
        }
        if is_first {
            confine(&mut tape);
        }
        // All of the above is inherited. What is seen from here on has the sealed file for its executable, the container's
        // root, the workload's rights, and no descriptor that leads out.
        tape.appear(Tag::Init as u8);
        if process.dies_with_parent {
            tape.die_with_parent();
        }
        tape.lead_session(process.terminal);
    }
    if prepared.filtering.limits_wait(process) {
        for &(resource, soft, hard) in &process.rlimits {
            tape.limit(resource, soft, hard);
        }
    }
    let waits = matches!(before, Before::ReadyAndWait(_));
    // The parent takes the listener, so that is before `start`. And nobody waits with a capability of ours.
    let is_early = !is_first && program.is_some_and(|program| program.listener.is_some() || (waits && kept != 0));
    if waits {
        for signal in signal::ENDING {
            tape.end_at(signal);
        }
    }
    if is_early {
        confine(&mut tape);
    }
    match before {
        Before::Nothing => {}
        Before::Ready => tape.say_ready(Tag::Ready as u8),
        Before::ReadyAndWait(fifo) => {
            tape.say_ready(Tag::Ready as u8);
            tape.wait_in_fifo(fifo.as_fd());
        }
    }
    if !is_first && !is_early {
        confine(&mut tape);
    }
    if process.has_init {
        tape.fork(process.terminal);
    }
    tape.exec(&prepared.executable, &process.argv, envp.unwrap_or(&process.envp));
    let stub = stub::make(&tape.finish()).map_err(explain_stub)?;
    keep_over_exec(3, process.preserved_fds).context("keep the caller's descriptors")?;
    keep_over_exec(channel.as_fd().as_raw_fd(), 1).context("keep the channel")?;
    if let Before::ReadyAndWait(fifo) = before {
        keep_over_exec(fifo.as_raw_fd(), 1).context("keep exec.fifo")?;
    }
    if !labels.is_empty() {
        keep_over_exec(proc.as_fd().as_raw_fd(), 1).context("keep /proc")?;
    }
    if let Some(ruleset) = &prepared.ruleset {
        keep_over_exec(ruleset.as_raw_fd(), 1).context("keep the Landlock ruleset")?;
    }
    stub::exec(&stub, &title).map_err(|errno| {
        let error = Error::from(errno).context("exec the sealed last stage");
        if process.seccomp.is_some() && prepared.filtering == Filtering::WithCredentials {
            return error.with_hint("the seccomp profile must allow execveat here: see noNewPrivileges");
        }
        error
    })
}

/// The command line that an init has for as long as it lives, as docker's would have it. It is one argument, since the
/// stub takes no others.
fn init_title(process: &ProcessPlan) -> CString {
    let words = process.argv.strings().iter().map(|word| word.to_bytes());
    let words: Vec<&[u8]> = [INIT_PATH.as_bytes(), b"--"].into_iter().chain(words).collect();
    CString::new(words.join(&b' ')).unwrap_or_default()
}

fn explain_stub(errno: Errno) -> Error {
    let error = Error::from(errno).context("make the sealed last stage");
    if errno == Errno::ACCESS {
        error.with_hint("sysctl vm.memfd_noexec=2 forbids executable memory files")
    } else {
        error
    }
}

fn limit_name(resource: u32) -> &'static str {
    const NAMES: [&str; 16] = [
        "RLIMIT_CPU",
        "RLIMIT_FSIZE",
        "RLIMIT_DATA",
        "RLIMIT_STACK",
        "RLIMIT_CORE",
        "RLIMIT_RSS",
        "RLIMIT_NPROC",
        "RLIMIT_NOFILE",
        "RLIMIT_MEMLOCK",
        "RLIMIT_AS",
        "RLIMIT_LOCKS",
        "RLIMIT_SIGPENDING",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
    ];
    NAMES.get(resource as usize).copied().unwrap_or("RLIMIT_?")
}
