//! The side of a command: finds the user's network process or starts it, and asks it for what is to be done.

use std::convert::Infallible;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::control::{self, Answer, LOCK, Publication, Request, Status};
use super::service::{self, Beginning};
use super::state::{Holder, Kept};
use super::world;
use crate::cgroups::{Home, Refuge};
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::idmap::IdMaps;
use crate::network::cidr::Cidr;
use crate::runtime::foreground::{self, Exit};
use crate::runtime::protocol::{Channel, Message, Tag};
use crate::support::lock::{Lock, Sharing, open_lock_file};
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::fdpass;
use crate::sys::process::exit_now;

/// Where below the run root the network process has its socket and its lock.
pub const FOLDER: &str = "rootless-network";

/// How long what a killed process had may take to go.
const DYING: Duration = Duration::from_millis(10);
const DYING_LOOKS: u32 = 100;

/// What a network process is made with.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// Below the run root, for its socket and its lock; made where there is none.
    pub folder: &'a Path,
    /// The ids of the user's containers.
    pub maps: &'a IdMaps,
    /// Whether the gateway's address leads containers to what listens on the host's loopback.
    pub reaches_host: bool,
    /// Where the process lives.
    pub home: Home,
}

/// A lease of the network process: that lives at least as long.
pub struct Handle {
    link: OwnedFd,
    user: OwnedFd,
    network: OwnedFd,
    paths: [PathBuf; 2],
}

/// Gives the user's network process, started if there is none.
pub fn ensure(config: &Config<'_>) -> Result<Handle> {
    let folder = open_folder(config.folder, true)?
        .ok_or_else(|| Error::new(Kind::NotFound, format!("{}: no such folder", config.folder.display())))?;
    let _held = hold(&folder)?;
    match meet(&folder)? {
        Some(handle) => Ok(handle),
        None => Handle::open(&start(config).context("start the network process of this user")?),
    }
}

/// Gives the user's network process if it runs.
pub fn find(folder: &Path) -> Result<Option<Handle>> {
    let Some(folder) = open_folder(folder, false)? else { return Ok(None) };
    let _held = hold(&folder)?;
    meet(&folder)
}

/// Meets the process that runs. One that was killed is there until the kernel has closed all that it had, in no order: who
/// monitors a container comes at that very moment.
fn meet(folder: &OwnedFd) -> Result<Option<Handle>> {
    for _ in 0..DYING_LOOKS {
        let Some(link) = control::connect(folder.as_fd())? else { return Ok(None) };
        match Handle::open(&link) {
            Err(_) if has_ended(&link) => std::thread::sleep(DYING),
            answer => return answer.map(Some),
        }
    }
    Err(ended())
}

/// Whether the other end is closed.
fn has_ended(link: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(link.as_fd(), PollFlags::empty())];
    matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::HUP)
}

fn open_folder(path: &Path, make: bool) -> Result<Option<OwnedFd>> {
    let describe = || format!("open {}", path.display());
    if make {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("make {}", path.display()))?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).with_context(describe),
    }
}

/// Nobody starts a process or ends as one meanwhile.
fn hold(folder: &OwnedFd) -> Result<Lock> {
    Lock::wait(open_lock_file(folder.as_fd(), LOCK, OFlags::CREATE)?, Sharing::Exclusive, |_| ())
}

/// Starts the process, which has made its namespaces once this returns.
fn start(config: &Config<'_>) -> Result<OwnedFd> {
    let (here, there) = fdpass::pair().context("make a pair of sockets")?;
    let beginning = Beginning { maps: config.maps.clone(), reaches_host: config.reaches_host, home: config.home };
    control::send(&here, &beginning, None)?;
    let status = Command::new("/proc/self/exe")
        .arg0("husk")
        .args(["internal", "network"])
        .arg(config.folder)
        .current_dir("/")
        .stdin(there)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("run husk internal network")?;
    match control::receive::<Answer>(&here)? {
        Some((answer, _)) => answer.into_result()?,
        None => return Err(Error::new(Kind::Other, format!("it ended early ({status})"))),
    };
    Ok(here)
}

/// `husk internal network FOLDER`: leaves whoever called it, and is the network process until nobody needs it. `starter` is
/// the socket that came as its standard input.
pub fn become_process(folder: &Path, starter: &OwnedFd) -> Result<()> {
    let (beginning, _) =
        control::receive::<Beginning>(starter)?.ok_or_else(|| Error::invalid("is started by husk alone"))?;
    let refuge = Refuge::prepare(beginning.home);
    match refuge.fork().context("leave the command")? {
        Cloned::Parent(..) => Ok(()),
        Cloned::Child => {
            refuge.enter();
            let answer = serve(folder, starter, &beginning);
            if let Err(error) = &answer {
                let _ = control::send(starter, &Answer::failure(error), None);
            }
            exit_now(i32::from(answer.is_err()))
        }
    }
}

fn serve(folder: &Path, starter: &OwnedFd, beginning: &Beginning) -> Result<()> {
    // Whoever ends the command's session or group does not mean this.
    rustix::process::setsid().context("make a session")?;
    let folder = open_folder(folder, false)?.ok_or_else(|| Error::invalid("no such folder"))?;
    let link = rustix::io::fcntl_dupfd_cloexec(starter, 3)?;
    service::run(folder, link, beginning, || control::send(starter, &Answer::Done, None))
}

impl Handle {
    fn open(link: &OwnedFd) -> Result<Self> {
        let Answer::Welcome { pid, user, network } = ask(link, &Request::Hello, None)? else { return Err(confused()) };
        let paths = [user, network].map(|number| PathBuf::from(format!("/proc/{pid}/fd/{number}")));
        let open = |path: &Path| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("open {}", path.display()))
        };
        let (user, network) = (open(&paths[0])?, open(&paths[1])?);
        Ok(Self { link: link.try_clone().context("copy a descriptor")?, user, network, paths })
    }

    /// Where the user namespace is found, as long as the process lives.
    pub fn user_namespace_path(&self) -> &Path {
        &self.paths[0]
    }

    /// Where the network namespace is found that bridges are in.
    pub fn network_namespace_path(&self) -> &Path {
        &self.paths[1]
    }

    /// The user namespace: the parent of those of containers, so that who is in it has rights over both ends of their links.
    pub fn user_namespace(&self) -> BorrowedFd<'_> {
        self.user.as_fd()
    }

    pub fn network_namespace(&self) -> BorrowedFd<'_> {
        self.network.as_fd()
    }

    /// The lease itself, to be watched: it becomes readable when the process has died.
    pub fn lease(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    /// Says that this process holds the namespaces by this handle, and will until it ends: whoever comes after the network process
    /// was killed finds them here. For a container's monitor.
    pub fn hold(&self) -> Result<()> {
        let pid = i32::try_from(std::process::id()).map_err(|_| Error::from(Errno::RANGE))?;
        let holder = Holder { pid, user: self.user.as_raw_fd(), network: self.network.as_raw_fd() };
        ask(&self.link, &Request::Hold(holder), None).map(drop)
    }

    /// Has the network process live as long as a container's first process, whatever becomes of this handle.
    pub fn keep(&self, pid: Pid) -> Result<()> {
        let (kept, pidfd) = Kept::of(pid)?;
        ask(&self.link, &Request::Keep(kept), Some(pidfd.as_fd())).map(drop)
    }

    /// Says which blocks of addresses networks have: a caller with such an address would be taken for a neighbour.
    pub fn know(&self, blocks: Vec<Cidr>) -> Result<()> {
        ask(&self.link, &Request::Know { blocks }, None).map(drop)
    }

    /// Publishes a port, and gives the host's, which is chosen where none is named. `socket` listens there already, or there
    /// is none, and one is made.
    pub fn publish(&self, publication: &Publication, socket: Option<BorrowedFd<'_>>) -> Result<u16> {
        match ask(&self.link, &Request::Publish(publication.clone()), socket)? {
            Answer::Published { port } => Ok(port),
            _ => Err(confused()),
        }
    }

    /// Takes back all that a container has published.
    pub fn withdraw(&self, container: &str) -> Result<()> {
        ask(&self.link, &Request::Withdraw { container: container.to_owned() }, None).map(drop)
    }

    /// Ends all that goes on with addresses which are nobody's any more.
    pub fn forget(&self, addresses: &[IpAddr]) -> Result<()> {
        ask(&self.link, &Request::Forget { addresses: addresses.to_vec() }, None).map(drop)
    }

    pub fn status(&self) -> Result<Status> {
        match ask(&self.link, &Request::Status, None)? {
            Answer::Status(status) => Ok(status),
            _ => Err(confused()),
        }
    }

    /// Runs a program in the two namespaces and a mount namespace of its own, and waits for its end. `program` becomes it.
    pub fn run(&self, program: impl FnOnce() -> Result<Infallible>) -> Result<Exit> {
        let (channel, their_channel) = Channel::pair()?;
        match clone3(CloneFlags::empty(), None).context("fork into the network namespace")? {
            Cloned::Child => {
                drop(channel);
                let begin = || {
                    world::enter(self.user.as_fd(), self.network.as_fd())?;
                    crate::sys::clone::unshare(CloneFlags::NEWNS).context("make a mount namespace")?;
                    program()
                };
                let Err(error) = begin();
                their_channel.send_failure(&error);
                exit_now(1)
            }
            Cloned::Parent(_, pidfd) => {
                drop(their_channel);
                let answer = channel.receive()?;
                let exit = foreground::wait(pidfd.as_fd())?;
                match answer {
                    Some(Message::Failed(error)) => Err(error),
                    _ => Ok(exit),
                }
            }
        }
    }

    /// Does work in the two namespaces, in a child of this process, which has one thread; gives its error.
    pub fn inside(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let (channel, their_channel) = Channel::pair()?;
        match clone3(CloneFlags::empty(), None).context("fork into the network namespace")? {
            Cloned::Child => {
                drop(channel);
                let done = world::enter(self.user.as_fd(), self.network.as_fd()).and_then(|()| work());
                match done.and_then(|()| their_channel.send(Tag::Ready)) {
                    Ok(()) => exit_now(0),
                    Err(error) => {
                        their_channel.send_failure(&error);
                        exit_now(1)
                    }
                }
            }
            Cloned::Parent(_, pidfd) => {
                drop(their_channel);
                let answer = channel.receive();
                drop(channel);
                let exit = foreground::wait(pidfd.as_fd())?;
                match answer? {
                    Some(Message::Ready) => Ok(()),
                    Some(Message::Failed(error)) => Err(error),
                    _ => Err(Error::new(
                        Kind::Other,
                        format!("the process in the network namespace ended early ({exit:?})"),
                    )),
                }
            }
        }
    }
}

fn ask(link: &OwnedFd, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<Answer> {
    control::send(link, request, fd)?;
    match control::receive::<Answer>(link)? {
        Some((answer, _)) => answer.into_result(),
        None => Err(ended()),
    }
}

fn ended() -> Error {
    Error::new(Kind::Other, "the network process of this user has ended").with_hint("the next command starts another")
}

fn confused() -> Error {
    Error::new(Kind::Other, "the network process of this user is of another version of husk")
        .with_hint("it ends with the last container that has a network")
}
