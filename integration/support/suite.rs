//! The suite from its start to its closing line: a world of its own, then the tests one at a time.
//!
//! As root, the suite enters a new mount, process, network and IPC namespace (by unshare(1)), with a fresh /tmp, /run and
//! /dev/shm and a copy of /etc. So leak checks are exact, however busy the machine is, and nothing of the machine's own
//! is changed. Stages: `outside` (what cargo starts) -> `init` (process 1: reaps) -> `suite` (runs the tests).
//! As an ordinary user there is one stage only, and root's scenarios are skipped with the reason.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::WaitOptions;

use super::leak::Snapshot;
use super::user::Account;
use super::{Need, Scene, Who};

const STAGE: &str = "HUSK_TEST_STAGE";
const SCRATCH: &str = "HUSK_TEST_SCRATCH";
const ISOLATION: [&str; 7] = ["--mount", "--pid", "--fork", "--net", "--ipc", "--propagation=slave", "--kill-child"];

/// One test: a function, who runs it, and what it needs.
pub(crate) struct Test {
    name: String,
    body: fn(&Scene),
    who: Vec<Who>,
    needs: Vec<Need>,
}

impl Test {
    /// A test that root, a user with subordinate ids and a user without run each.
    pub(crate) fn new(module: &str, function: &str, body: fn(&Scene)) -> Self {
        let (_, file) = module.split_once("::").expect("tests are in modules of this executable");
        Self { name: format!("{file}::{function}"), body, who: vec![Who::Root, Who::User], needs: Vec::new() }
    }

    /// Runs as root alone.
    pub(crate) fn root(self) -> Self {
        Self { who: vec![Who::Root], ..self }
    }

    /// Runs as a user with subordinate ids alone.
    pub(crate) fn user(self) -> Self {
        Self { who: vec![Who::User], ..self }
    }

    /// Runs also as a user without subordinate ids.
    pub(crate) fn and_plain(mut self) -> Self {
        self.who.push(Who::Plain);
        self
    }

    /// Runs as both users, not as root.
    pub(crate) fn users(self) -> Self {
        Self { who: vec![Who::User, Who::Plain], ..self }
    }

    /// Declares a need; where it is not met, the test is skipped and says why.
    pub(crate) fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }
}

/// Which runtime the suite is run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Husk,
    Runc,
    Crun,
}

/// What all tests share.
pub(crate) struct Kit {
    /// A directory of the suite on a disk that can hold an overlay's upper layer.
    pub(crate) scratch: PathBuf,
    /// The executable under test.
    pub(crate) husk: PathBuf,
    /// The same under the name of an OCI runtime.
    pub(crate) runtime: PathBuf,
    pub(crate) flavour: Flavour,
    /// This executable, for `--launch`.
    pub(crate) launcher: PathBuf,
    root: Result<Account, String>,
    user: Result<Account, String>,
    plain: Result<Account, String>,
}

static KIT: OnceLock<Kit> = OnceLock::new();
/// The message of the panic that ended a test, with its place.
static PANIC: Mutex<Option<String>> = Mutex::new(None);
/// Tests that took longer than [`SLOW_SECONDS`].
static SLOW: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());
const SLOW_SECONDS: u64 = 2;

/// The kit of this run.
pub(crate) fn kit() -> &'static Kit {
    KIT.get().expect("the kit is assembled before the first test")
}

impl Kit {
    /// The account of an identity, or why there is none.
    pub(crate) fn account(&self, who: Who) -> Result<&Account, &str> {
        match who {
            Who::Root => self.root.as_ref(),
            Who::User => self.user.as_ref(),
            Who::Plain => self.plain.as_ref(),
        }
        .map_err(String::as_str)
    }

    /// Where the files that go into containers are, owned by `who`.
    pub(crate) fn payload(&self, who: Who) -> PathBuf {
        self.scratch.join("payload").join(who.name())
    }
}

/// Runs the stage that this process is.
pub(crate) fn main(tests: fn() -> Vec<Test>) -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(&tests())).exit_code();
    }
    match std::env::var(STAGE).as_deref() {
        Ok("init") => run_init(),
        Ok(_) => run_suite(&arguments, tests(), &PathBuf::from(std::env::var_os(SCRATCH).expect("set by `outside`"))),
        Err(_) => run_outside(&arguments, tests()),
    }
}

/// Makes the scratch directory, enters the namespaces, and removes the directory when all is done.
fn run_outside(arguments: &Arguments, tests: Vec<Test>) -> ExitCode {
    let scratch =
        tempfile::Builder::new().prefix("husk-test-").tempdir_in("/var/tmp").expect("make a scratch directory");
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755))
        .expect("open the scratch directory");
    if !can_isolate() {
        return run_suite(arguments, tests, scratch.path());
    }
    let status = Command::new("unshare")
        .args(ISOLATION)
        .arg("--mount-proc")
        .arg("--")
        .arg(std::env::current_exe().expect("know our own path"))
        .args(std::env::args_os().skip(1))
        .env(STAGE, "init")
        .env(SCRATCH, scratch.path())
        .status()
        .expect("start unshare");
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(101))
}

fn can_isolate() -> bool {
    let works =
        || Command::new("unshare").args(ISOLATION).arg("true").output().is_ok_and(|output| output.status.success());
    rustix::process::geteuid().is_root() && works()
}

/// Starts the suite as a child and reaps every process of the namespace until that child ends.
#[expect(clippy::zombie_processes, reason = "init reaps every child, this one too")]
fn run_init() -> ExitCode {
    // As on a machine; criu asks the kernel for its features over it.
    _ = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    let child = Command::new("/proc/self/exe")
        .arg0("integration")
        .args(std::env::args_os().skip(1))
        .env(STAGE, "suite")
        .spawn()
        .expect("start the suite");
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().cast_unsigned() == child.id() => {
                let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
                return ExitCode::from(code.unwrap_or(101));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("wait for the suite: {error}"),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the list is made for this one run")]
fn run_suite(arguments: &Arguments, tests: Vec<Test>, scratch: &Path) -> ExitCode {
    let isolated = std::env::var_os(STAGE).is_some();
    let kit = assemble(scratch, isolated).expect("assemble the kit");
    assert!(KIT.set(kit).is_ok(), "the kit is assembled once");
    std::panic::set_hook(Box::new(|panic| {
        *PANIC.lock().expect("no panic in a hook") = Some(panic.to_string());
    }));
    // One at a time: leak checks look at the whole world.
    let arguments = Arguments { test_threads: Some(1), ..arguments.clone() };
    let conclusion = libtest_mimic::run(&arguments, trials(&tests));
    report_slow_tests();
    conclusion.exit_code()
}

/// Names the tests that took long: a suite that is slow is a suite that is not run.
fn report_slow_tests() {
    let mut slow = SLOW.lock().expect("no panic while holding it").clone();
    slow.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    for (time, name) in slow.iter().take(10) {
        _ = writeln!(std::io::stderr(), "slow: {name} took {:.1} s", time.as_secs_f32());
    }
}

/// One trial for each identity of each test, root's first.
fn trials(tests: &[Test]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for who in Who::ALL {
        for test in tests.iter().filter(|test| test.who.contains(&who)) {
            let (body, needs) = (test.body, test.needs.clone());
            let name = format!("{}::{}", who.name(), test.name);
            trials.push(Trial::ignorable_test(name.clone(), move || run_one(&name, body, who, &needs)));
        }
    }
    trials
}

fn run_one(name: &str, body: fn(&Scene), who: Who, needs: &[Need]) -> Result<Completion, Failed> {
    let missing = match kit().account(who) {
        Err(reason) => Some(reason.to_owned()),
        Ok(_) => needs.iter().find_map(|need| need.missing(who)),
    };
    if let Some(reason) = missing {
        return Ok(Completion::ignored_with(reason));
    }
    let started = Instant::now();
    let scene = Scene::new(who, name);
    let before = Snapshot::take();
    let mut problems = Vec::new();
    if catch_unwind(AssertUnwindSafe(|| body(&scene))).is_err() {
        problems.extend(PANIC.lock().expect("no panic in a hook").take());
    }
    problems.extend(scene.close());
    problems.extend(before.leaks());
    let log = scene.log();
    problems.extend(scene.remove());
    if started.elapsed() > Duration::from_secs(SLOW_SECONDS) {
        SLOW.lock().expect("no panic while holding it").push((started.elapsed(), name.to_owned()));
    }
    if problems.is_empty() {
        return Ok(Completion::Completed);
    }
    problems.push(log);
    Err(Failed::from(problems.join("\n")))
}

/// Copies the executables into the scratch directory, makes the accounts and the private file systems.
fn assemble(scratch: &Path, isolated: bool) -> std::io::Result<Kit> {
    let programs = scratch.join("bin");
    std::fs::create_dir(&programs)?;
    let launcher = programs.join("probe-launcher");
    std::fs::copy("/proc/self/exe", &launcher)?;

    let (husk, flavour) = match std::env::var_os("HUSK").map(PathBuf::from) {
        None => (copy_into(&programs, Path::new(env!("CARGO_BIN_EXE_husk")), "husk")?, Flavour::Husk),
        Some(path) if path.ends_with("runc") => (path, Flavour::Runc),
        Some(path) if path.ends_with("crun") => (path, Flavour::Crun),
        Some(path) => (copy_into(&programs, &path, "husk")?, Flavour::Husk),
    };
    let runtime = if flavour == Flavour::Husk {
        symlink("husk", programs.join("runc"))?;
        programs.join("runc")
    } else {
        husk.clone()
    };

    let unprivileged = |account: Account| {
        let missing = "the user that runs the suite has no ranges in /etc/subuid and /etc/subgid";
        let user = account.subordinate.map(|_| account.clone()).ok_or_else(|| missing.to_owned());
        (user, Ok(account))
    };
    let (root, (user, plain)) = if isolated {
        let etc = isolate(scratch)?;
        if let (Flavour::Crun, Some(unified)) = (flavour, super::leak::cgroup_v2()) {
            // Debian's crun refuses a hybrid layout.
            rustix::mount::unmount(unified, UnmountFlags::DETACH)?;
        }
        let [user, plain] = Account::make(&etc, scratch)?;
        (Ok(Account::root(scratch)), (Ok(user), Ok(plain)))
    } else if rustix::process::geteuid().is_root() {
        let reason = "root without the right to make namespaces (CAP_SYS_ADMIN)".to_owned();
        (Err(reason.clone()), (Err(reason.clone()), Err(reason)))
    } else {
        (Err("not run as root".to_owned()), unprivileged(Account::current(scratch)))
    };
    let kit = Kit { scratch: scratch.to_owned(), husk, runtime, flavour, launcher, root, user, plain };
    for who in Who::ALL {
        if let Ok(account) = kit.account(who) {
            account.make_directories()?;
            fill_payload(&kit.payload(who), account)?;
        }
    }
    Ok(kit)
}

/// Covers what tests and husk write to by default, and gives the suite a copy of /etc to edit.
fn isolate(scratch: &Path) -> std::io::Result<PathBuf> {
    let etc = scratch.join("etc");
    let copied = Command::new("cp").args(["-a", "/etc"]).arg(&etc).status()?;
    assert!(copied.success(), "copy /etc: {copied}");
    rustix::mount::mount_bind(&etc, "/etc")?;
    for directory in ["/tmp", "/run", "/dev/shm"] {
        let mode = if directory == "/run" { c"mode=755" } else { c"mode=1777" };
        rustix::mount::mount("tmpfs", directory, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, mode)?;
    }
    // mount(8) keeps its notes there; they are nobody's leak.
    std::fs::create_dir("/run/mount")?;
    Ok(PathBuf::from("/etc"))
}

fn copy_into(directory: &Path, program: &Path, name: &str) -> std::io::Result<PathBuf> {
    let target = directory.join(name);
    std::fs::copy(program, &target)?;
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?;
    Ok(target)
}

/// The probe and busybox, to be hard-linked into root file systems. Each identity has its own: a test may chown them.
fn fill_payload(payload: &Path, account: &Account) -> std::io::Result<()> {
    std::fs::create_dir_all(payload)?;
    let mut programs: Vec<(OsString, PathBuf)> = vec![("probe".into(), "/proc/self/exe".into())];
    if let Some(busybox) = super::needs::busybox() {
        programs.push(("busybox".into(), busybox));
    }
    for (name, source) in programs {
        let target = payload.join(name);
        std::fs::copy(source, &target)?;
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?;
        std::os::unix::fs::chown(&target, Some(account.uid), Some(account.gid))?;
    }
    Ok(())
}
