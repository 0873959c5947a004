//! The program `criu`, which saves processes and brings them back: one conversation with its service.
//!
//! ```text
//!   us                                       criu swrk FD
//!   ── request (DUMP, PRE_DUMP, RESTORE) ──────────▶
//!   ◀── NOTIFY script [pid] [terminal] ─────────────      any number of times
//!   ── NOTIFY, success ────────────────────────────▶
//!   ◀── answer: success [pid], or why not ──────────
//! ```
//!
//! Every message is one packet over a socket that only the two have. Field numbers are those of CRIU's `rpc.proto`, part
//! of its interface since 3.0 (CRIU keeps them; new ones are added at the end). Decides nothing about containers.

mod wire;

use std::io::BufReader;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::process::Pid;

use self::wire::{Fields, Message, Value};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::clone::CloneFlags;
use crate::sys::fdpass;

/// What both directions are asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the images are.
    pub image_path: PathBuf,
    /// Where the log and other work files go; beside the images if it is not said.
    pub work_path: Option<PathBuf>,
    /// Whether established TCP connections are saved.
    pub tcp_established: bool,
    /// Whether Unix sockets that lead out are allowed.
    pub external_unix_sockets: bool,
    /// Whether the session and terminal may belong to a shell outside.
    pub shell_job: bool,
    /// Whether file locks are saved.
    pub file_locks: bool,
    /// Whether pages that are in an older image are dropped.
    pub auto_dedup: bool,
    /// Whether memory goes over later, when it is touched.
    pub lazy_pages: bool,
    /// What is done with the cgroups.
    pub cgroups: CgroupMode,
    /// How connections are kept from going on meanwhile; unless it is said, CRIU decides.
    pub network_lock: Option<NetworkLock>,
}

/// How CRIU treats cgroups (`criu_cg_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
    #[default]
    Default = 6,
}

impl CgroupMode {
    /// Reads the word of `--manage-cgroups-mode`.
    pub fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "ignore" => Self::Ignore,
            "soft" => Self::Soft,
            "full" => Self::Full,
            "strict" => Self::Strict,
            _ => return Err(Error::invalid("invalid manage-cgroups-mode value")),
        })
    }
}

/// How CRIU keeps the network away (`criu_network_lock_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkLock {
    Iptables = 1,
    Nftables = 2,
    Skip = 3,
}

impl NetworkLock {
    /// Reads the word of `--network-lock`.
    pub fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "iptables" => Self::Iptables,
            "nftables" => Self::Nftables,
            "skip" => Self::Skip,
            _ => return Err(Error::invalid("invalid network-lock value")),
        })
    }
}

/// Which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

const NOTIFY: u64 = 6;

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::PreDump => "pre-dump",
            Self::Restore => "restore",
        }
    }

    /// Name of the log file, as runc has it.
    fn log(self) -> &'static str {
        if self == Self::Restore { "restore.log" } else { "dump.log" }
    }
}

/// A request that is being put together: CRIU's options, and the descriptors that they name.
pub(super) struct Request {
    verb: Verb,
    options: Message,
    log: PathBuf,
    /// CRIU opens this, and the next, through our `/proc/PID/fd`.
    images: OwnedFd,
    _work: Option<OwnedFd>,
    /// CRIU has these under the numbers that they have here.
    inherited: Vec<OwnedFd>,
}

/// What was answered.
pub(super) struct Answer {
    /// Pid of the process that was restored.
    pub(super) pid: Option<Pid>,
    /// The master of a terminal that was restored.
    pub(super) terminal: Option<OwnedFd>,
}

impl Request {
    /// Opens the directories, making the last component where it is missing, and sets what both directions have.
    pub(super) fn new(verb: Verb, options: &Options) -> Result<Self> {
        let images = open_directory(&options.image_path)?;
        let mut message = Message::default()
            .number(1, i64::from(images.as_raw_fd()))
            .number(9, 4)
            .bytes(10, verb.log())
            .flag(12, true)
            .flag(4, options.external_unix_sockets)
            .flag(5, options.tcp_established)
            .flag(7, options.shell_job)
            .flag(8, options.file_locks)
            .flag(16, options.auto_dedup)
            // The mode beside it is what counts; this is for versions that know no modes.
            .flag(24, true)
            .number(34, options.cgroups as i64)
            // Network devices are not for CRIU: who made them for the container makes them again.
            .number(38, CloneFlags::NEWNET.bits().cast_signed())
            .flag(48, options.lazy_pages)
            .flag(50, true);
        if let Some(lock) = options.network_lock {
            message = message.number(64, lock as i64);
        }
        let mut work = None;
        let mut log = options.image_path.join(verb.log());
        if let Some(path) = &options.work_path {
            let directory = open_directory(path)?;
            message = message.number(17, i64::from(directory.as_raw_fd()));
            work = Some(directory);
            log = path.join(verb.log());
        }
        Ok(Self { verb, options: message, log, images, _work: work, inherited: Vec::new() })
    }

    /// Gives the directory of the images.
    pub(super) fn images(&self) -> BorrowedFd<'_> {
        self.images.as_fd()
    }

    /// Changes the options in place.
    fn set(mut self, change: impl FnOnce(Message) -> Message) -> Self {
        self.options = change(self.options);
        self
    }

    /// The process to save.
    pub(super) fn process(self, pid: i32) -> Self {
        self.set(|options| options.number(2, i64::from(pid)))
    }

    /// The root file system; on the way back it must be a mount point.
    pub(super) fn root(self, path: &Path) -> Self {
        self.set(|options| options.bytes(13, path.as_os_str().as_encoded_bytes()))
    }

    /// A configuration file whose settings come over those of the request.
    pub(super) fn config_file(self, path: &str) -> Self {
        self.set(|options| options.bytes(51, path))
    }

    /// A mount that is not CRIU's to make: on the way out where it is and its key, on the way back key and source.
    pub(super) fn external_mount(self, name: &[u8], value: &[u8]) -> Self {
        self.set(|options| options.bytes(37, [b"mnt[", name, b"]:", value].concat()))
    }

    /// A namespace that stays where it is: its kind, inode and key.
    pub(super) fn external_namespace(self, kind: &str, inode: u64, key: &str) -> Self {
        self.set(|options| options.bytes(37, format!("{kind}[{inode}]:{key}")))
    }

    /// A namespace that the restored processes join by path.
    pub(super) fn join_namespace(self, kind: &str, path: &Path) -> Self {
        let join = Message::default().bytes(1, kind).bytes(2, path.as_os_str().as_encoded_bytes());
        self.set(|options| options.message(39, &join))
    }

    /// A descriptor that takes the place of what the image knows by `key`.
    pub(super) fn inherit(mut self, key: &[u8], fd: OwnedFd) -> Self {
        let number = fd.as_raw_fd();
        self.inherited.push(fd);
        self.inherit_number(key, number)
    }

    /// The same for one of the three that CRIU has anyway.
    pub(super) fn inherit_number(self, key: &[u8], number: i32) -> Self {
        let entry = Message::default().bytes(1, key).number(2, i64::from(number));
        self.set(|options| options.message(27, &entry))
    }

    /// The cgroup that takes the place of the image's in a v1 hierarchy, or in v2's (an empty name).
    pub(super) fn cgroup_root(self, controller: &str, path: &str) -> Self {
        let entry = Message::default().bytes(1, controller).bytes(2, path);
        self.set(|options| options.message(25, &entry))
    }

    /// The cgroup by which everything is frozen.
    pub(super) fn freeze_cgroup(self, path: &Path) -> Self {
        self.set(|options| options.bytes(44, path.as_os_str().as_encoded_bytes()))
    }

    /// What only saving has.
    pub(super) fn dump_flags(self, leave_running: bool, link_remap: bool, tcp_skip_in_flight: bool) -> Self {
        self.set(|options| options.flag(3, leave_running).flag(18, link_remap).flag(46, tcp_skip_in_flight))
    }

    /// An older image, relative to this one; memory that changed since is all that is saved.
    pub(super) fn parent_image(self, path: &Path) -> Self {
        self.set(|options| options.bytes(14, path.as_os_str().as_encoded_bytes()).flag(15, true))
    }

    /// Where memory is sent instead of into files.
    pub(super) fn page_server(self, address: &str, port: u16) -> Self {
        let server = Message::default().bytes(1, address).number(2, i64::from(port));
        self.set(|options| options.message(11, &server))
    }

    /// What only restoring has: devices may have moved, and the restored process is our child, not CRIU's.
    pub(super) fn restore_flags(self, tcp_close: bool) -> Self {
        self.set(|options| options.flag(6, true).flag(26, true).flag(52, tcp_close))
    }

    /// Security labels other than the image's.
    pub(super) fn labels(self, profile: Option<&str>, mount_context: Option<&str>) -> Self {
        self.set(|mut options| {
            if let Some(profile) = profile {
                options = options.bytes(53, profile);
            }
            if let Some(context) = mount_context {
                options = options.bytes(63, context);
            }
            options
        })
    }

    /// Starts CRIU, lets `prepare` see to its process, and has the conversation. `notified` hears what is about to happen.
    pub(super) fn run(
        self,
        prepare: impl FnOnce(Self, Pid) -> Result<Self>,
        mut notified: impl FnMut(&str, Option<Pid>) -> Result<()>,
    ) -> Result<Answer> {
        let (socket, theirs) = fdpass::pair().context("make a socket for criu")?;
        let child = self.start(&theirs)?;
        drop(theirs);
        let mut criu = Criu { child, socket: Some(socket) };
        let request = prepare(self, Pid::from_child(&criu.child))?;
        let verb = request.verb;
        let talked = criu.talk(&request, &mut notified);
        let status = criu.end();
        match (talked, status) {
            (Err(error), _) => Err(explain(error, verb, &request.log)),
            // After a pre-dump CRIU waits for the next and takes our leaving for a failure.
            (Ok(answer), Ok(status)) if status.success() || verb == Verb::PreDump => Ok(answer),
            (Ok(_), Ok(status)) => Err(explain(Error::new(Kind::Other, format!("criu {status}")), verb, &request.log)),
            (Ok(_), Err(error)) => Err(error),
        }
    }

    fn start(&self, socket: &OwnedFd) -> Result<Child> {
        let passed = || self.inherited.iter().map(AsFd::as_fd).chain([socket.as_fd()]);
        let mark = |flags: FdFlags| {
            passed().try_for_each(|fd: BorrowedFd<'_>| rustix::io::fcntl_setfd(fd, flags)).context("pass a descriptor")
        };
        // There is one thread: nothing else is started while the marks are off.
        mark(FdFlags::empty())?;
        let mut command = Command::new("criu");
        command.arg("swrk").arg(socket.as_raw_fd().to_string());
        if self.verb != Verb::Restore {
            command.stdin(Stdio::null());
        }
        let started = command.spawn();
        mark(FdFlags::CLOEXEC)?;
        started.map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                Error::unsupported("the program criu is not in PATH")
                    .with_hint("install it; checkpoint and restore are its work")
            } else {
                Error::from(error).context("start criu")
            }
        })
    }
}

/// CRIU's process; gone when this is.
struct Criu {
    child: Child,
    socket: Option<OwnedFd>,
}

impl Criu {
    fn talk(&self, request: &Request, notified: &mut impl FnMut(&str, Option<Pid>) -> Result<()>) -> Result<Answer> {
        let socket = self.socket.as_ref().ok_or_else(|| Error::new(Kind::Other, "the conversation is over"))?;
        let message = Message::default().number(1, request.verb as i64).message(2, &request.options);
        send(socket, &message)?;
        let mut answer = Answer { pid: None, terminal: None };
        let mut buffer = vec![0; MESSAGE_LIMIT_BYTES];
        loop {
            let (length, fd) = fdpass::receive(socket, &mut buffer).context("hear from criu")?;
            if length == 0 {
                return Err(Error::new(Kind::Other, "criu ended without an answer"));
            }
            let response = Response::parse(&buffer[..length])?;
            if !response.is_success {
                return Err(response.failure());
            }
            if response.kind != NOTIFY {
                answer.pid = response.pid;
                return Ok(answer);
            }
            if response.script == "orphan-pts-master" {
                answer.terminal = fd;
            }
            notified(response.script, response.pid)?;
            send(socket, &Message::default().number(1, NOTIFY.cast_signed()).flag(3, true))?;
        }
    }

    /// Hangs up, and waits for CRIU to end.
    fn end(&mut self) -> Result<std::process::ExitStatus> {
        self.socket = None;
        self.child.wait().context("wait for criu")
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        // Without us CRIU gives up and undoes what it began.
        let _ = self.end();
    }
}

/// CRIU's own messages are far shorter.
const MESSAGE_LIMIT_BYTES: usize = 40 * 1024;

fn send(socket: &OwnedFd, message: &Message) -> Result<()> {
    fdpass::send(socket, &[message.encoded()], None).context("speak to criu")
}

/// One message of CRIU's.
#[derive(Debug, Default, PartialEq, Eq)]
struct Response<'a> {
    kind: u64,
    is_success: bool,
    script: &'a str,
    pid: Option<Pid>,
    errno: i32,
    message: &'a str,
}

impl<'a> Response<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        Self::read(bytes).ok_or_else(|| Error::new(Kind::Other, "criu answered with something malformed"))
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut response = Self::default();
        let pid = |value: u64| Pid::from_raw(i32::try_from(value).ok()?);
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Number(kind)) => response.kind = kind,
                (2, Value::Number(success)) => response.is_success = success != 0,
                (4, Value::Bytes(restore)) => {
                    for field in Fields::of(restore) {
                        if let (1, Value::Number(value)) = field? {
                            response.pid = pid(value);
                        }
                    }
                }
                (5, Value::Bytes(notify)) => {
                    for field in Fields::of(notify) {
                        match field? {
                            (1, Value::Bytes(script)) => response.script = str::from_utf8(script).ok()?,
                            (2, Value::Number(value)) => response.pid = pid(value),
                            _ => {}
                        }
                    }
                }
                (7, Value::Number(errno)) => response.errno = i32::try_from(errno).unwrap_or(0),
                (9, Value::Bytes(message)) => response.message = str::from_utf8(message).unwrap_or_default(),
                _ => {}
            }
        }
        Some(response)
    }

    fn failure(&self) -> Error {
        let error = Error::new(Kind::Other, format!("criu failed: errno {}", self.errno));
        match self.message.trim() {
            "" => error,
            message => Error::new(Kind::Other, format!("criu failed: {message}")),
        }
    }
}

/// Takes the cause from CRIU's log, which says more than CRIU's answer does, and tells where the log is.
fn explain(error: Error, verb: Verb, log: &Path) -> Error {
    let cause = std::fs::File::open(log).ok().and_then(|file| cause_in(BufReader::new(file)));
    let error = cause.map_or(error, |cause| Error::new(Kind::Other, cause));
    error.context(format!("criu {}", verb.name())).with_hint(format!("all of it is in {}", log.display()))
}

/// Finds the first error, of which later ones are the wake: `(00.016032) Error (criu/sockets.c:133): …`.
fn cause_in(log: impl std::io::BufRead) -> Option<String> {
    log.split(b'\n').map_while(std::io::Result::ok).find_map(|line| {
        let line = String::from_utf8_lossy(&line);
        let (_, said) = line.split_once(" Error (")?;
        let (_, said) = said.split_once("): ")?;
        // Called an error where nothing comes of it: without CAP_SYS_RESOURCE the limit stays as it is.
        (!said.contains("Can't setup RLIMIT_NOFILE")).then(|| said.trim().to_owned())
    })
}

/// Opens a directory, which may be made: its parents may not.
fn open_directory(path: &Path) -> Result<OwnedFd> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).with_context(|| format!("make {}", path.display())),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let notify = Message::default().bytes(1, "post-restore").number(2, 42);
        let notify = Message::default().number(1, 6).flag(2, true).message(5, &notify);
        let response = Response::parse(notify.encoded()).unwrap();
        assert_eq!((response.kind, response.is_success, response.script), (NOTIFY, true, "post-restore"));
        assert_eq!(response.pid, Pid::from_raw(42));
        let failed = Message::default().number(1, 1).number(7, 22).bytes(9, "cannot\n");
        let response = Response::parse(failed.encoded()).unwrap();
        assert!(!response.is_success);
        assert_eq!(response.failure().report(), "criu failed: cannot");
        assert_eq!(Response { errno: 22, ..Response::default() }.failure().report(), "criu failed: errno 22");
        assert!(Response::parse(&[0x2a, 200]).is_err());
    }

    #[test]
    fn the_first_error_is_the_cause() {
        let log = "(0.1) Warn  (criu/log.c:1): Error is a word\n\
            (0.2) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
            (0.3) Error (criu/mount.c:9): mnt: can't find \u{7f}\n\
            (0.4) Error (criu/cr-dump.c:2): Dumping FAILED.\n";
        assert_eq!(cause_in(log.as_bytes()).unwrap(), "mnt: can't find \u{7f}");
        assert_eq!(cause_in(&b"all is well\n"[..]), None);
    }
}
