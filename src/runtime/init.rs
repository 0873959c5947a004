//! Init: the process that becomes the workload.
//!
//! | | when it starts | when it ends |
//! |---|---|---|
//! | namespaces | all that were to be created; joined ones in step 2 | the container's |
//! | user | the caller's | the workload's |
//! | root | the host's | the container's |
//! | may | everything its user namespace allows | what the workload may |
//!
//! It has one thread, the parent's memory as a copy, and one way to report: the channel. It never unwinds and never
//! returns: it becomes the workload, by way of a sealed stub (see [`crate::sys::stub`]), or sends an error and `_exit`s.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{Gid, Uid};

use super::plan::{Plan, ProcessPlan};
use super::protocol::{Channel, Tag};
use super::tape::Tape;
use super::{console, hooks};
use crate::cgroups::{Cgroup, Entrances};
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::plan::{Stages, enter};
use crate::rootfs::cgroup_mount::CgroupView;
use crate::rootfs::setup;
use crate::support::passwd;
use crate::support::root::Root;
use crate::sys::clone::{CloneFlags, unshare};
use crate::sys::process::{
    CStringArray, exit_now, join_session_keyring, keep_over_exec, resource_limit, set_resource_limit,
};
use crate::sys::{signal, stub};

/// Exit status of init when it could not become the workload; the error itself went over the channel.
const FAILED: i32 = 255;

/// Most that is read of the container's passwd.
const PASSWD_LIMIT_BYTES: usize = 10 << 20;

/// What the parent alone knows when it clones.
pub(super) struct Surroundings<'a> {
    /// The container's cgroups; on v2 init is born in its own.
    pub cgroup: &'a Cgroup,
    /// The doors to those of v1, opened by the parent.
    pub entrances: &'a Entrances,
    /// What the container sees of them.
    pub view: &'a CgroupView,
    /// The container's state as hooks get it, with a pid that init fills in.
    pub state_for_hooks: &'a dyn Fn(&str, i32) -> Vec<u8>,
}

/// Runs init to its end.
pub(super) fn run(plan: &Plan, channel: &Channel, surroundings: &Surroundings<'_>) -> ! {
    let Err(error) = become_workload(plan, channel, surroundings);
    channel.send_failure(&error);
    exit_now(FAILED)
}

/// The order is the design:
///
///  1. The OOM score; then not dumpable before anything is joined: nothing inside may trace us or read our `/proc` (CVE-2016-9962).
///  2. Ids of the new user namespace, then the namespaces that init itself joins.
///  3. A session and a session keyring of our own.
///  4. The file system tree, below a descriptor, while the host's paths are still there.
///  5. What is written through the host's `/proc`: sysctls.
///  6. Hooks of the runtime, then those of the container, both before the pivot (runtime-spec, "Lifecycle" 4-6).
///  7. The pivot, the terminal from the container's devpts, the read-only root.
///  8. Limits while we may still raise them, then the credentials.
///  9. The executable is looked up, so that `create` reports what is missing.
/// 10. `create` waits here for `start`.
/// 11. The rest is a tape that a sealed stub plays: seccomp last, so that the profile need allow nothing but the exec.
fn become_workload(plan: &Plan, channel: &Channel, surroundings: &Surroundings<'_>) -> Result<Infallible> {
    prepare_process(plan, channel)?;
    if surroundings.cgroup.adopts() {
        // Before anything is allocated that the workload will have, so that it counts.
        channel.expect(Tag::InCgroup)?;
    }
    let view_of_cgroups = || {
        surroundings.entrances.enter().context("enter the container's cgroups")?;
        let text = plan.proc.read("self/cgroup").context("read /proc/self/cgroup")?;
        surroundings.cgroup.verify(&text)?;
        if plan.namespaces.creates_cgroup_namespace {
            unshare(CloneFlags::NEWCGROUP).context("make a cgroup namespace")?;
        }
        Ok(surroundings.view.clone())
    };
    let tree = setup::prepare(&plan.rootfs, view_of_cgroups)?;
    let process = &plan.process;
    tree.root()
        .make_directories(&process.cwd, Mode::from_raw_mode(0o755))
        .with_context(|| format!("make the working directory {}", process.cwd.display()))?;
    let home = process.wants_home.then(|| home_of(tree.root(), process.uid));
    write_kernel_settings(plan)?;
    if plan.hooks.has_before_pivot() {
        channel.send(Tag::MountsDone)?;
        channel.expect(Tag::HooksDone)?;
    }
    run_container_hooks("createContainer", "creating", &plan.hooks.create_container, surroundings)?;
    tree.enter(&plan.rootfs)?;
    if process.terminal {
        let root = Root::open(Path::new("/"))?;
        let master = console::make_terminal(&root, process.console_size)?;
        console::clear_onlcr(&master).context("set up the terminal")?;
        channel.send_fd(Tag::Terminal, master.as_fd())?;
    }
    tree.seal(&plan.rootfs)?;
    drop(tree);

    let executable = take_credentials(plan, process)?;
    let early_filter = plan.seccomp.as_ref().is_some_and(|program| program.listener.is_some());
    if process.no_new_privileges && early_filter {
        install_filter(plan, channel)?;
    }
    let envp = home.map(|home| environment_with_home(process, &home));
    if plan.hooks.start_container.is_empty() {
        channel.send(Tag::Ready)?;
        let with_filter = process.no_new_privileges && !early_filter;
        return run_tape(plan, channel, &executable, envp.as_ref(), with_filter, plan.exec_fifo.as_ref());
    }
    // Hooks inside the container come between `start` and the workload, so husk waits for `start` itself.
    channel.send(Tag::Ready)?;
    if let Some(fifo) = &plan.exec_fifo {
        wait_for_start(fifo)?;
    }
    run_container_hooks("startContainer", "created", &plan.hooks.start_container, surroundings)?;
    run_tape(plan, channel, &executable, envp.as_ref(), process.no_new_privileges && !early_filter, None)
}

/// Leaves husk's own executable for a sealed one that makes the last calls.
fn run_tape(
    plan: &Plan,
    channel: &Channel,
    executable: &CStr,
    envp: Option<&CStringArray>,
    with_filter: bool,
    fifo: Option<&OwnedFd>,
) -> Result<Infallible> {
    const NAME: &CStr = c"husk:[2:INIT]";
    let process = &plan.process;
    let mut tape = Tape::new(6 + process.rlimits.len(), channel.as_fd(), Tag::ExecFailed as u8);
    tape.become_undumpable();
    tape.name(NAME);
    if limits_wait(plan) {
        for &(resource, soft, hard) in &process.rlimits {
            tape.limit(resource, soft, hard);
        }
    }
    if let Some(fifo) = fifo {
        tape.wait_in_fifo(fifo.as_fd());
    }
    let first = process.preserved_fds.saturating_add(3);
    tape.close_from(first);
    if let (Some(program), true) = (&plan.seccomp, with_filter) {
        tape.seccomp(&crate::sys::seccomp::to_bytes(&program.filter), program.flags);
    }
    tape.exec(executable, &process.argv, envp.unwrap_or(&process.envp));
    let stub = stub::make(&tape.finish()).map_err(explain_stub)?;
    keep_over_exec(3, process.preserved_fds).context("keep the caller's descriptors")?;
    keep_over_exec(channel.as_fd().as_raw_fd(), 1).context("keep the channel")?;
    if let Some(fifo) = fifo {
        keep_over_exec(fifo.as_raw_fd(), 1).context("keep exec.fifo")?;
    }
    stub::exec(&stub, NAME).map_err(|errno| {
        let error = Error::from(errno).context("exec the sealed last stage");
        if plan.seccomp.is_some() && !process.no_new_privileges {
            return error.with_hint("without noNewPrivileges the seccomp profile must allow execveat");
        }
        error
    })
}

fn explain_stub(errno: Errno) -> Error {
    let error = Error::from(errno).context("make the sealed last stage");
    if errno == Errno::ACCESS {
        error.with_hint("sysctl vm.memfd_noexec=2 forbids executable memory files")
    } else {
        error
    }
}

fn prepare_process(plan: &Plan, channel: &Channel) -> Result<()> {
    let has_fresh_ids = plan.namespaces.stages == Stages::One && plan.namespaces.creates(CloneFlags::NEWUSER);
    if has_fresh_ids {
        // An ordinary user's parent may write the maps of a dumpable process only. Nothing was joined yet, so nobody
        // from inside a container is near.
        channel.expect(Tag::MapsWritten)?;
    }
    if plan.namespaces.stages == Stages::One {
        set_oom_score(plan)?;
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("become undumpable")?;
    let _ = rustix::thread::set_name(c"husk:[2:INIT]");
    if plan.dies_with_parent {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("follow the parent's death")?;
    }
    signal::reset_dispositions();
    signal::unblock_all().context("unblock signals")?;
    if plan.namespaces.creates(CloneFlags::NEWUSER) {
        become_root_inside(plan)?;
    }
    if plan.namespaces.stages == Stages::One {
        for join in &plan.namespaces.join {
            enter(join)?;
        }
    }
    if plan.namespaces.creates(CloneFlags::NEWNET) {
        crate::sys::net::bring_up_loopback().context("bring up the loopback interface")?;
    }
    match rustix::process::setsid() {
        // The first process of a PID namespace may lead a session already.
        Ok(_) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno).context("start a session"),
    }
    if let Some(name) = &plan.keyring {
        match join_session_keyring(name) {
            // No keyrings in this kernel, or none for containers inside this one.
            Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => {
                return Err(Error::from(errno)
                    .context("join a session keyring")
                    .with_hint("--no-new-keyring keeps the caller's"));
            }
        }
    }
    let uts = |name: &Option<String>| name.as_ref().map(|name| name.as_bytes().to_vec());
    if let Some(name) = uts(&plan.hostname) {
        rustix::system::sethostname(&name).context("set the host name")?;
    }
    if let Some(name) = uts(&plan.domainname) {
        rustix::system::setdomainname(&name).context("set the domain name")?;
    }
    Ok(())
}

/// Becomes user 0 of the new user namespace: who we were outside may not be mapped in it, and files would be nobody's.
fn become_root_inside(plan: &Plan) -> Result<()> {
    let Some(maps) = &plan.namespaces.id_maps else { return Ok(()) };
    if maps.uid_outside(0).is_none() || maps.gid_outside(0).is_none() {
        return Ok(());
    }
    set_ids(0, 0)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("become undumpable")
}

/// Becomes user 0 of the user namespace that was joined, if it has one.
pub(super) fn become_root_of_joined() -> Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    for answer in [rustix::thread::set_thread_res_gid(gid, gid, gid), rustix::thread::set_thread_res_uid(uid, uid, uid)]
    {
        match answer {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).context("become root of the user namespace"),
        }
    }
    Ok(())
}

fn set_ids(uid: u32, gid: u32) -> Result<()> {
    let (uid_, gid_) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid_, gid_, gid_).with_context(|| format!("become group {gid}"))?;
    rustix::thread::set_thread_res_uid(uid_, uid_, uid_).with_context(|| format!("become user {uid}"))
}

fn write_kernel_settings(plan: &Plan) -> Result<()> {
    for (path, value) in &plan.sysctls {
        plan.proc
            .write(path, value)
            .with_context(|| format!("set sysctl {} to `{value}`", path.trim_start_matches("sys/")))?;
    }
    Ok(())
}

/// Sets the OOM score, while an ordinary user still owns its own `/proc/self`: a process that is not dumpable does not.
pub(super) fn set_oom_score(plan: &Plan) -> Result<()> {
    let Some(score) = plan.process.oom_score_adj else { return Ok(()) };
    match plan.proc.write("self/oom_score_adj", &score.to_string()) {
        Err(Errno::ACCESS | Errno::PERM) if plan.process.tolerates_oom_score => Ok(()),
        answer => answer.with_context(|| format!("set oom_score_adj to {score}")),
    }
}

fn run_container_hooks(
    moment: &str,
    status: &str,
    list: &[oci_spec::runtime::Hook],
    surroundings: &Surroundings<'_>,
) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    hooks::run(moment, list, &(surroundings.state_for_hooks)(status, pid), None)
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

/// Says whether the tape sets the limits. A filter that is loaded early need not let it.
fn limits_wait(plan: &Plan) -> bool {
    plan.seccomp.is_none() || plan.process.no_new_privileges
}

/// Turns into the workload's user, and finds the executable with that user's rights.
fn take_credentials(plan: &Plan, process: &ProcessPlan) -> Result<CString> {
    let waits = limits_wait(plan);
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
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    } else if let Some(program) = &plan.seccomp {
        // Without no_new_privs a filter wants CAP_SYS_ADMIN, which is gone further down (seccomp(2)).
        crate::sys::seccomp::install(&program.filter, program.flags).context("load the seccomp filter").map(drop)?;
    }
    process.capabilities.apply_bounding()?;
    // Set-user-id takes the capabilities along only if asked to.
    rustix::thread::set_keep_capabilities(true).context("keep capabilities")?;
    if process.denies_setgroups {
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
            Err(Errno::PERM) if groups.is_empty() && denies_setgroups(plan) => {}
            answer => answer.context("set supplementary groups")?,
        }
    }
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    give_streams(process);
    let early = rustix::process::chdir(&process.cwd);
    set_ids(process.uid, process.gid)?;
    if early.is_err() {
        // Perhaps a directory for this user only.
        rustix::process::chdir(&process.cwd)
            .with_context(|| format!("change to the working directory {}", process.cwd.display()))?;
    }
    verify_cwd(&process.cwd)?;
    rustix::thread::set_keep_capabilities(false).context("keep capabilities")?;
    process.capabilities.apply()?;
    if plan.dies_with_parent {
        // The change of user has cleared it (prctl(2)).
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("follow the parent's death")?;
    }
    find_executable(plan, process)
}

fn denies_setgroups(plan: &Plan) -> bool {
    plan.proc.read("self/setgroups").is_ok_and(|word| word.trim_end() == "deny")
}

/// Gives the workload's user what stdio is, so that `/dev/stdout` can be opened: our own terminal, and anonymous pipes.
/// Nothing that has a name (CVE-2026-88265).
fn give_streams(process: &ProcessPlan) {
    /// `PIPEFS_MAGIC` of linux/magic.h.
    const PIPEFS_MAGIC: rustix::fs::FsWord = 0x5049_5045;
    if process.uid == 0 {
        return;
    }
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if process.terminal || rustix::fs::fstatfs(stream).is_ok_and(|stat| stat.f_type == PIPEFS_MAGIC) {
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
fn find_executable(plan: &Plan, process: &ProcessPlan) -> Result<CString> {
    let name = process.argv.strings().first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let has_slash = name.contains('/');
    let mut denied = None;
    for candidate in &process.candidates {
        match is_executable(plan, candidate) {
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

fn is_executable(plan: &Plan, path: &CStr) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    // By a link in the container's /proc a path can lead to our own executable. The stub would be in its place by the
    // exec, and would play its tape for ever.
    let own = rustix::fs::statat(&plan.proc, "self/exe", AtFlags::empty())?;
    if (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino) { Err(Errno::ACCESS) } else { Ok(()) }
}

fn install_filter(plan: &Plan, channel: &Channel) -> Result<()> {
    let Some(program) = &plan.seccomp else { return Ok(()) };
    let listener = crate::sys::seccomp::install(&program.filter, program.flags).context("load the seccomp filter")?;
    if let Some(listener) = listener {
        channel.send_fd(Tag::Listener, listener.as_fd())?;
        channel.expect(Tag::ListenerSent)?;
    }
    Ok(())
}

/// Reads the byte that `start` writes, and with it the word that the exec comes next.
fn wait_for_start(fifo: &OwnedFd) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::read(fifo, &mut [0u8; 1][..])).context("read exec.fifo").map(drop)
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
