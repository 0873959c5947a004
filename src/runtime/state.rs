//! What is kept of a container between two commands: `<root>/<id>/state.json`.
//!
//! ```text
//! <root>/                 1700
//!   <id>/                 0711  made with mkdir(2): whose mkdir succeeds owns the id; locked (flock(2)) by its maker
//!     state.json          0600  replaced by rename(2), never written in place
//!     config.json         0600  what the container was made of; appears once it is made
//!     exec.fifo                 only between create and start
//!     notify/             0755  the workload's socket for sd_notify(3), where the caller has one; see `notify`
//!     criu-root/                only while `restore` works: the root file system is mounted here
//! ```
//!
//! So without a `config.json` there is a container that is being made, if the directory is locked, or one that nobody will
//! finish: then the next `create` or `delete` of the id clears it away.
//!
//! A process is known by its pid and its start time; a bare pid is never trusted. The status is not stored: it is what
//! the processes, the cgroup and the fifo show.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::hooks::HookPlan;
use crate::cgroups::{self, resctrl};
use crate::error::{Context, Error, Kind, Result};
use crate::support::remove::remove_tree;

/// Version of the OCI runtime specification that `state` answers with.
pub const OCI_VERSION: &str = "1.3.0";

/// The runtime's part of the file system, one directory per container.
pub struct StateRoot {
    path: PathBuf,
    /// Whether somebody has named it, who would want to know that it is not there.
    is_chosen: bool,
}

/// The directory of one container.
pub struct StateDirectory {
    fd: OwnedFd,
    path: PathBuf,
}

/// What `state.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The container's id.
    pub id: String,
    /// Pid of init, as seen where the runtime ran.
    #[serde(rename = "init_process_pid")]
    pub pid: i32,
    /// When init started, in clock ticks after boot: field 22 of `/proc/<pid>/stat`.
    #[serde(rename = "init_process_start")]
    pub start_time: u64,
    /// The boot that it was started in: numbers and times of processes begin anew with each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// When the container was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// The spec's annotations.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// User id of who created it.
    pub owner: u32,
    /// The cgroups, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroups: Option<cgroups::Record>,
    /// The resctrl group, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<resctrl::Group>,
    /// Hooks that later verbs run.
    #[serde(default)]
    pub hooks: HookPlan,
    /// `--no-new-keyring`, which holds for `exec` too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_keyring: bool,
}

/// Where a container is in its life (runtime-spec, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Being made, or its making was killed.
    Creating,
    /// Waits for `start`.
    Created,
    /// The workload runs.
    Running,
    /// Frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

const STATE_FILE: &str = "state.json";
/// The configuration as it was at `create`: the bundle's may change, and `exec` is about the container that runs.
const CONFIG_FILE: &str = "config.json";
/// It, before init is where it says.
const UNPUBLISHED_CONFIG_FILE: &str = ".config.json";
/// The fifo in which init waits for `start`.
pub const EXEC_FIFO: &str = "exec.fifo";

/// Where the workload's notify socket is.
const NOTIFY_DIRECTORY: &str = "notify";

/// Where `restore` mounts the root file system for CRIU.
const CRIU_ROOT: &str = "criu-root";

impl StateRoot {
    /// Names the root; nothing is made yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, is_chosen: false }
    }

    /// Names a root that the caller has chosen: it is an error to list one that is not there.
    pub fn chosen(path: PathBuf) -> Self {
        Self { path, is_chosen: true }
    }

    /// Gives its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a container's directory and locks it for its maker; an id that is taken is [`Kind::Exists`].
    pub fn create(&self, id: &str) -> Result<StateDirectory> {
        let path = self.path.join(id);
        let make = || rustix::fs::mkdir(&path, Mode::from_raw_mode(0o711));
        let answer = match make() {
            Err(Errno::NOENT) => {
                make_root(&self.path)?;
                make()
            }
            answer => answer,
        };
        let taken = || Error::new(Kind::Exists, format!("container with given ID already exists: {id}"));
        match answer {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(taken()),
            Err(errno) => return Err(errno).with_context(|| format!("make {}", path.display())),
        }
        let directory = self.open(id)?;
        // Somebody who found it unlocked takes it for one that was left over; it is theirs then.
        if directory.try_lock()? { Ok(directory) } else { Err(taken()) }
    }

    /// Opens a container's directory; an unknown id is [`Kind::NotFound`].
    pub fn open(&self, id: &str) -> Result<StateDirectory> {
        crate::spec::validate::validate_id(id)?;
        let path = self.path.join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(StateDirectory { fd, path }),
            Err(Errno::NOENT) => Err(Error::new(Kind::NotFound, format!("container does not exist: {id}"))),
            Err(errno) => Err(errno).with_context(|| format!("open {}", path.display())),
        }
    }

    /// Lists the ids, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.is_chosen => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("open {}", self.path.display()))?,
        };
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| crate::spec::validate::validate_id(name).is_ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

fn make_root(path: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    // The sticky bit keeps what is below $XDG_RUNTIME_DIR from being cleaned up for its age (XDG Base Directory, 0.8).
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o1700);
    builder.recursive(true).create(path).with_context(|| format!("make {}", path.display()))
}

impl StateDirectory {
    /// Gives its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the directory for whoever makes the container, or clears away what is left of one; says whether that worked.
    ///
    /// The lock ends with the last process that has this directory open, of which init is one until its exec.
    pub fn try_lock(&self) -> Result<bool> {
        loop {
            if self.flock(FlockOperation::NonBlockingLockExclusive)? {
                return Ok(true);
            }
            // Who merely asks has it for a moment.
            if self.is_locked()? {
                return Ok(false);
            }
            std::thread::yield_now();
        }
    }

    /// Says whether somebody makes this container, or clears it away.
    pub fn is_locked(&self) -> Result<bool> {
        if !self.flock(FlockOperation::NonBlockingLockShared)? {
            return Ok(true);
        }
        self.flock(FlockOperation::Unlock)?;
        Ok(false)
    }

    fn flock(&self, operation: FlockOperation) -> Result<bool> {
        match rustix::fs::flock(&self.fd, operation) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("lock {}", self.path.display())),
        }
    }

    /// Says whether this is still the directory under its name.
    pub fn is_in_place(&self) -> Result<bool> {
        let held = rustix::fs::fstat(&self.fd).with_context(|| format!("inspect {}", self.path.display()))?;
        match rustix::fs::lstat(&self.path) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("inspect {}", self.path.display())),
        }
    }

    /// Writes the state, whole or not at all.
    pub fn save(&self, state: &State) -> Result<()> {
        let temporary = ".state.json";
        self.write(temporary, state)?;
        self.rename(temporary, STATE_FILE)
    }

    fn write(&self, name: &str, document: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(document)?;
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || -> Result<()> {
            let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?;
            Ok(std::io::Write::write_all(&mut std::fs::File::from(fd), &text)?)
        };
        write().with_context(|| format!("write {}/{name}", self.path.display()))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .with_context(|| format!("write {}/{to}", self.path.display()))
    }

    /// Reads the state; `None` when `create` was killed before it wrote one.
    pub fn load(&self) -> Result<Option<State>> {
        self.read(STATE_FILE)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let describe = || format!("read {}/{name}", self.path.display());
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            answer => answer.with_context(describe)?,
        };
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(fd), &mut text).with_context(describe)?;
        serde_json::from_slice(&text).map(Some).with_context(describe)
    }

    /// Writes the configuration, for nobody to see before [`Self::publish_config`].
    pub fn write_config(&self, spec: &Spec) -> Result<()> {
        self.write(UNPUBLISHED_CONFIG_FILE, spec)
    }

    /// Makes the configuration one to exec by. Before init has pivoted, its mount namespace shows the host's files to
    /// whoever enters it.
    pub fn publish_config(&self) -> Result<()> {
        self.rename(UNPUBLISHED_CONFIG_FILE, CONFIG_FILE)
    }

    /// Says whether the configuration was published.
    pub fn has_config(&self) -> bool {
        rustix::fs::statat(&self.fd, CONFIG_FILE, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Reads the configuration; `None` while init is not yet inside.
    pub fn load_config(&self) -> Result<Option<Spec>> {
        self.read(CONFIG_FILE)
    }

    /// Reads the configuration of a container whose init is inside, though nobody has come to say so.
    pub fn load_unpublished_config(&self) -> Result<Option<Spec>> {
        self.read(UNPUBLISHED_CONFIG_FILE)
    }

    /// Makes the fifo that init waits in, and opens it: for reading and writing, so that reading waits for `start` and not
    /// for a writer. Init inherits the descriptor and needs no path.
    pub fn make_exec_fifo(&self) -> Result<OwnedFd> {
        let describe = || format!("make {}/{EXEC_FIFO}", self.path.display());
        rustix::fs::mkfifoat(&self.fd, EXEC_FIFO, Mode::from_raw_mode(0o600)).with_context(describe)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, EXEC_FIFO, flags, Mode::empty()).with_context(describe)
    }

    /// Opens the fifo for writing; `None` when the container was started already, or nobody waits in it.
    pub fn open_exec_fifo(&self) -> Result<Option<OwnedFd>> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, EXEC_FIFO, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NXIO) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("open {}/{EXEC_FIFO}", self.path.display())),
        }
    }

    /// Removes the fifo, which makes the container a started one; says whether it was there.
    pub fn remove_exec_fifo(&self) -> Result<bool> {
        match rustix::fs::unlinkat(&self.fd, EXEC_FIFO, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("remove {}/{EXEC_FIFO}", self.path.display())),
        }
    }

    /// Says whether init still waits for `start`.
    pub fn has_exec_fifo(&self) -> bool {
        rustix::fs::statat(&self.fd, EXEC_FIFO, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Makes the directory of the workload's notify socket, and gives its path.
    pub(super) fn make_notify_directory(&self) -> Result<PathBuf> {
        let path = self.path.join(NOTIFY_DIRECTORY);
        rustix::fs::mkdirat(&self.fd, NOTIFY_DIRECTORY, Mode::from_raw_mode(0o755))
            .with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Opens the directory of the workload's notify socket.
    pub(super) fn open_notify_directory(&self) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let describe = || format!("open {}/{NOTIFY_DIRECTORY}", self.path.display());
        match rustix::fs::openat(&self.fd, NOTIFY_DIRECTORY, flags, Mode::empty()) {
            Err(Errno::NOENT) => Err(Error::from(Errno::NOENT)
                .context(describe())
                .with_hint("it is there where `create` was called with NOTIFY_SOCKET, too")),
            answer => answer.with_context(describe),
        }
    }

    /// Makes the directory that `restore` mounts the root file system on.
    pub fn make_criu_root(&self) -> Result<PathBuf> {
        let path = self.path.join(CRIU_ROOT);
        match rustix::fs::mkdirat(&self.fd, CRIU_ROOT, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(path),
            Err(errno) => Err(errno).with_context(|| format!("make {}", path.display())),
        }
    }

    /// Removes what a `restore` that was killed left mounted, and its place.
    pub fn remove_criu_root(&self) -> Result<()> {
        let describe = || format!("remove {}/{CRIU_ROOT}", self.path.display());
        loop {
            match rustix::fs::unlinkat(&self.fd, CRIU_ROOT, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY) => {
                    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
                    unmount(self.path.join(CRIU_ROOT), flags).with_context(describe)?;
                }
                Err(errno) => return Err(errno).with_context(describe),
            }
        }
    }

    /// Removes the directory and the files that this module makes in it.
    pub fn remove(&self) -> Result<()> {
        for name in [EXEC_FIFO, UNPUBLISHED_CONFIG_FILE, CONFIG_FILE, ".state.json", STATE_FILE] {
            match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).with_context(|| format!("remove {}/{name}", self.path.display())),
            }
        }
        match rustix::fs::unlinkat(CWD, &self.path, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => {
                remove_tree(&self.fd, NOTIFY_DIRECTORY).with_context(|| format!("remove {}", self.path.display()))?;
                self.remove_criu_root()?;
                Ok(rustix::fs::unlinkat(CWD, &self.path, AtFlags::REMOVEDIR)?)
            }
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("remove {}", self.path.display())),
        }
    }
}

impl AsFd for StateDirectory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl State {
    /// Says whether init lives and runs another executable than this one: then it is done with what husk does in it.
    pub fn init_has_left_husk(&self) -> Result<bool> {
        if self.open_init()?.is_none() {
            return Ok(false);
        }
        let executable =
            |who: &str| rustix::fs::stat(format!("/proc/{who}/exe")).map(|stat| (stat.st_dev, stat.st_ino));
        Ok(match (executable("self"), executable(&self.pid.to_string())) {
            (Ok(own), Ok(its)) => own != its,
            // Not ours to look at, or gone.
            _ => false,
        })
    }

    /// Opens init if it still lives and is the same process as when the state was written.
    ///
    /// The descriptor is opened first and the start time read after: what it says is true of the process that the
    /// descriptor stands for, whatever becomes of the number.
    pub fn open_init(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("open process {}", self.pid)),
        };
        match process_stat(self.pid)? {
            Some(stat) if stat.start_time == self.start_time && stat.is_alive() && self.is_of_this_boot() => {
                Ok(Some(pidfd))
            }
            _ => Ok(None),
        }
    }

    /// Says whether the machine has not been started anew since; of older states that is not known, and believed.
    fn is_of_this_boot(&self) -> bool {
        self.boot.is_none() || self.boot == boot_id()
    }
}

/// Gives what the kernel calls this boot (random(4)); a sandbox may hide it.
pub fn boot_id() -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(c"/proc/sys/kernel/random/boot_id", flags, Mode::empty()).ok()?;
    // A UUID and the end of the line.
    let mut text = [0; 64];
    let length = rustix::io::read(&fd, &mut text[..]).ok()?;
    str::from_utf8(&text[..length]).ok().map(|text| text.trim_end().to_owned())
}

/// What is needed of `/proc/<pid>/stat` (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// `R`, `S`, `D`, `Z` …
    pub state: u8,
    /// Clock ticks after boot.
    pub start_time: u64,
}

impl ProcessStat {
    fn is_alive(self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

/// Reads a process's stat; `None` when there is no such process.
pub fn process_stat(pid: i32) -> Result<Option<ProcessStat>> {
    let path = format!("/proc/{pid}/stat");
    // One line, made whole by the kernel: 52 numbers and a name of at most 64 bytes.
    let mut text = [0; 2048];
    let mut read = || {
        let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut text[..]))
    };
    match read() {
        Ok(length) => {
            parse_stat(&text[..length]).map(Some).ok_or_else(|| Error::invalid(format!("{path}: unexpected form")))
        }
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("read {path}")),
    }
}

/// Gives the wait status of a process that has ended and was not reaped; `None` of all others.
pub fn zombie_status(pid: i32) -> Result<Option<i32>> {
    let text = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error)
            if matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOENT | Errno::SRCH)) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("read /proc/{pid}/stat")),
    };
    // Fields 3 and 52; 52 is 0 where the reader has no rights over the process (proc_pid_stat(5)), and of a clean exit.
    let mut fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    let is_zombie = fields.next() == Some("Z");
    Ok(fields.nth(48).and_then(|field| field.parse().ok()).filter(|_| is_zombie))
}

/// Says whether a process is the first of its PID namespace, whose end is everybody's in it. One that is gone was.
pub fn leads_pid_namespace(pid: i32) -> Result<bool> {
    let path = format!("/proc/{pid}/status");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .is_none_or(|numbers| numbers.split_ascii_whitespace().next_back() == Some("1"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("read {path}")),
    }
}

/// The command, field 2, is in parentheses and may hold anything, more parentheses included.
fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(ProcessStat { state, start_time })
}

/// The current time as state files have it: RFC 3339, UTC, nanoseconds without zeros at the end, as Go prints it.
pub fn timestamp() -> String {
    let now = std::time::SystemTime::now();
    jiff::Timestamp::try_from(now).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_move_the_fields() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        for command in ["(sh)", "(a) b)", "(x y) Z 1)", "())"] {
            let stat = parse_stat(format!("7 {command} {tail}").as_bytes()).unwrap();
            assert_eq!(stat, ProcessStat { state: b'S', start_time: 4242 }, "{command}");
        }
        assert_eq!(parse_stat(b"7 (sh) S 1"), None);
    }

    #[test]
    fn an_ordinary_process_leads_no_pid_namespace() {
        assert!(!leads_pid_namespace(i32::try_from(std::process::id()).unwrap()).unwrap());
    }

    #[test]
    fn who_makes_a_container_owns_its_id() {
        let scratch = tempfile::tempdir().unwrap();
        let root = StateRoot::new(scratch.path().to_owned());
        let maker = root.create("x").unwrap();
        assert_eq!(root.create("x").err().unwrap().kind(), Kind::Exists);
        let other = root.open("x").unwrap();
        assert!(other.is_locked().unwrap() && !other.try_lock().unwrap());
        drop(maker);
        assert!(!other.is_locked().unwrap() && other.try_lock().unwrap());
        assert!(other.is_in_place().unwrap());
        other.remove().unwrap();
        assert!(!other.is_in_place().unwrap());
        let _third = root.create("x").unwrap();
        assert!(!other.is_in_place().unwrap());
    }

    #[test]
    fn a_fifo_is_removed_once() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = StateRoot::new(scratch.path().to_owned()).create("x").unwrap();
        let _reader = directory.make_exec_fifo().unwrap();
        assert!(directory.remove_exec_fifo().unwrap());
        assert!(!directory.remove_exec_fifo().unwrap());
    }

    #[test]
    fn a_reused_pid_is_not_the_container() {
        let own = i32::try_from(std::process::id()).unwrap();
        let start_time = process_stat(own).unwrap().unwrap().start_time;
        let mut state = State {
            id: "x".into(),
            pid: own,
            start_time,
            boot: boot_id(),
            created: timestamp(),
            bundle: "/".into(),
            rootfs: "/".into(),
            annotations: std::collections::BTreeMap::new(),
            owner: 0,
            cgroups: None,
            resctrl: None,
            hooks: HookPlan::default(),
            keeps_keyring: false,
        };
        assert!(state.open_init().unwrap().is_some());
        state.boot = Some("00000000-0000-0000-0000-000000000000".to_owned());
        assert!(state.open_init().unwrap().is_none(), "of another boot");
        state.boot = None;
        assert!(state.open_init().unwrap().is_some(), "of a husk that did not write it down");
        state.start_time += 1;
        assert!(state.open_init().unwrap().is_none());
    }
}
