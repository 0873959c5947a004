//! The place of one engine for the length of one test: namespaces, a short directory, runtimes under their names, daemons.
//! Knows no engine.
//!
//! As root in a suite that is isolated, a site has a mount and a network namespace of its own with an empty /run, kept by
//! a process that only holds them; commands enter by nsenter(1). What an engine leaves on purpose, bridges, packet
//! filter rules, mounts over its own directories, goes with them. Elsewhere (an ordinary user runs the suite) a site is
//! only a directory.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::husk::Running;
use crate::support::scene::{mark, write};
use crate::support::suite::kit;
use crate::support::{Invocation, Scene, Who, leak};

/// Sockets below it must fit into 108 bytes, and slirp4netns wants Podman's directory under 35.
const HOME: &str = "/run/e";
const STOP_PATIENCE: Duration = Duration::from_secs(15);
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Monitors end a moment after their containers.
const CGROUP_PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
/// What a failing test shows of a daemon's log.
const LOG_TAIL: usize = 2000;

/// What holds the namespaces: it ends when its input does.
const HOLD: &str =
    "ip link set lo up && mount -t tmpfs -o mode=755 tmpfs /run && mkdir -m 755 /run/e && echo ready && exec cat";

/// A place for one engine.
pub(super) struct Site<'a> {
    pub(super) scene: &'a Scene,
    daemons: RefCell<Vec<Daemon<'a>>>,
    /// Cgroups below [`Site::cgroup`] that the engine made for itself and does not remove.
    cgroups: RefCell<Vec<String>>,
    /// The process that holds the namespaces.
    holder: Option<Running<'a>>,
    home: PathBuf,
    /// Keeps `home` where there are no namespaces to hide it in.
    _directory: Option<tempfile::TempDir>,
}

struct Daemon<'a> {
    running: Running<'a>,
    log: PathBuf,
    scene: &'a Scene,
}

impl<'a> Site<'a> {
    /// Opens a site for the scene's identity.
    pub(super) fn open(scene: &'a Scene) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let (holder, home, directory) = if is_root {
            (Some(hold(scene)), PathBuf::from(HOME), None)
        } else {
            let directory = tempfile::Builder::new().prefix("husk-e").tempdir_in("/tmp").expect("make a directory");
            (None, directory.path().to_owned(), Some(directory))
        };
        let site = Self {
            scene,
            daemons: RefCell::default(),
            cgroups: RefCell::default(),
            holder,
            home,
            _directory: directory,
        };
        site.fill();
        site
    }

    /// Makes the runtimes' names and gives the directory to its user.
    fn fill(&self) {
        let home = self.outside("");
        for name in ["bin", "home", "xdg", "tmp"] {
            std::fs::create_dir(home.join(name)).expect("make a directory of the site");
        }
        std::fs::set_permissions(home.join("xdg"), std::fs::Permissions::from_mode(0o700)).expect("close a directory");
        for name in ["husk", "runc", "crun"] {
            symlink(&kit().husk, home.join("bin").join(name)).expect("name the runtime");
        }
        self.own(&home);
    }

    fn own(&self, tree: &Path) {
        let account = self.scene.account();
        for entry in walkdir::WalkDir::new(tree).into_iter().flatten().filter(|entry| !entry.path_is_symlink()) {
            chown(entry.path(), Some(account.uid), Some(account.gid)).expect("give the site to its user");
        }
    }

    /// A path of the site as those in it know it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// A path of the site as the test, which is outside, reaches it.
    pub(super) fn outside(&self, name: &str) -> PathBuf {
        let inside = self.path(name);
        match &self.holder {
            Some(holder) => {
                let root = PathBuf::from(format!("/proc/{}/root", holder.pid().as_raw_nonzero()));
                root.join(inside.strip_prefix("/").expect("the site's paths are absolute"))
            }
            None => inside,
        }
    }

    /// Writes a file of the site, and gives its path as those in it know it.
    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let outside = self.outside(name);
        std::fs::create_dir_all(outside.parent().expect("files lie in the site")).expect("make a directory");
        write(&outside, text);
        self.own(&outside);
        self.path(name)
    }

    /// The runtime under test by one of its names.
    pub(super) fn runtime(&self, name: &str) -> PathBuf {
        self.path("bin").join(name)
    }

    /// The cgroup, from the root of every hierarchy, that engines are told to stay below.
    pub(super) fn cgroup() -> String {
        format!("/{}", mark())
    }

    /// Names a cgroup in [`Site::cgroup`] that is the engine's own and stays until the site closes.
    pub(super) fn expect_cgroup(&self, name: &str) {
        self.cgroups.borrow_mut().push(name.to_owned());
    }

    /// A program in the site, under the scene's identity.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Invocation<'a> {
        let account = self.scene.account();
        let mut command = match &self.holder {
            None => self.scene.program(Path::new(program.as_ref())),
            Some(holder) => {
                let mut command = self.scene.program("/usr/bin/nsenter");
                command.as_root().arg("--target").arg(holder.pid().as_raw_nonzero().to_string());
                command.args(["--mount", "--net", "--"]);
                if self.scene.who != Who::Root {
                    command.arg("setpriv").arg(format!("--reuid={}", account.uid));
                    command.arg(format!("--regid={}", account.gid)).args(["--clear-groups", "--"]);
                }
                command.arg(program);
                command
            }
        };
        command.env("HOME", self.path("home")).env("USER", &account.name).env("XDG_RUNTIME_DIR", self.path("xdg"));
        command.env("TMPDIR", self.path("tmp"));
        command
    }

    /// Starts a daemon with its output in a log of the scene.
    pub(super) fn daemon(&self, name: &str, command: &mut Invocation<'a>) {
        let log = self.scene.path().join(format!("{name}.log"));
        let file = File::create_new(&log).expect("make a log");
        let error = file.try_clone().expect("duplicate a descriptor");
        let running = command.start_with(Stdio::null(), file.into(), error.into());
        self.daemons.borrow_mut().push(Daemon { running, log, scene: self.scene });
    }

    /// Asks until the answer is yes.
    #[track_caller]
    pub(super) fn wait_until(what: &str, mut answer: impl FnMut() -> bool) {
        let deadline = Instant::now() + START_PATIENCE;
        while !answer() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(POLL);
        }
    }
}

/// Starts the process that holds a site's namespaces.
fn hold(scene: &Scene) -> Running<'_> {
    let mut command = scene.program("/usr/bin/unshare");
    command.as_root().args(["--mount", "--net", "--propagation=private", "--", "sh", "-c", HOLD]);
    let mut holder = command.start();
    assert_eq!(holder.line(), "ready", "the site's namespaces");
    holder
}

impl Drop for Site<'_> {
    /// Ends the daemons, the last first, then removes the cgroups that are the engine's own. Those of containers stay, for
    /// the leak check to find.
    fn drop(&mut self) {
        let daemons = self.daemons.get_mut();
        while daemons.pop().is_some() {}
        let mut own: Vec<PathBuf> = leak::cgroup_roots().map(|root| root.join(mark())).collect();
        let deadline = Instant::now() + CGROUP_PATIENCE;
        while !own.is_empty() && Instant::now() < deadline {
            own.retain(|cgroup| {
                for name in self.cgroups.get_mut() {
                    _ = std::fs::remove_dir(cgroup.join(name));
                }
                _ = std::fs::remove_dir(cgroup);
                cgroup.exists()
            });
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let stopped = self.running.stop(STOP_PATIENCE);
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut start = log.len().saturating_sub(LOG_TAIL);
        while !log.is_char_boundary(start) {
            start += 1;
        }
        if !stopped || std::thread::panicking() {
            self.scene.note(format!("{} (stopped: {stopped}) ends with\n{}", self.log.display(), &log[start..]));
        }
    }
}
