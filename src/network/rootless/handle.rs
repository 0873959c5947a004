//! The side of a command: finds the user's network process or starts it, and asks it for what is to be done.

use std::cell::{Ref, RefCell};
use std::convert::Infallible;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::control::{self, Answer, LOCK, Publication, Request, Status};
use super::service::{self, Beginning};
use super::state::{Holder, Kept, inode};
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
const DEAD: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// How many may die under one who wants one: it is somebody else's wish then that there be none.
const SUCCESSORS: u32 = 3;

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

/// A lease of the network process: that lives at least as long. Where it is killed, the next has the same namespaces, if somebody
/// held them ([`Handle::hold`]): whatever is asked of the one is asked of the other then.
pub struct Handle {
    link: RefCell<OwnedFd>,
    user: OwnedFd,
    network: OwnedFd,
    origin: Origin,
}

/// How a process was met, and the next is.
struct Origin {
    folder: PathBuf,
    /// What one is made with, by who may make one.
    beginning: Option<Beginning>,
}

/// Gives the user's network process, started if there is none.
pub fn ensure(config: &Config<'_>) -> Result<Handle> {
    let Config { folder, maps, reaches_host, home } = *config;
    let beginning = Beginning { maps: maps.clone(), reaches_host, home };
    Handle::meet(Origin { folder: folder.to_owned(), beginning: Some(beginning) })?.ok_or_else(ended)
}

/// Gives the user's network process if it runs.
pub fn find(folder: &Path) -> Result<Option<Handle>> {
    Handle::meet(Origin { folder: folder.to_owned(), beginning: None })
}

/// A process that has been met: the link to it, and its two namespaces.
struct Met {
    link: OwnedFd,
    user: OwnedFd,
    network: OwnedFd,
}

impl Origin {
    /// Meets the process, or starts one, where that may be done.
    fn meet(&self) -> Result<Option<Met>> {
        let Some(folder) = open_folder(&self.folder, self.beginning.is_some())? else { return Ok(None) };
        let _held = hold(&folder)?;
        for _ in 0..SUCCESSORS {
            if let Some(met) = meet(&folder)? {
                return Ok(Some(met));
            }
            let Some(beginning) = &self.beginning else { return Ok(None) };
            let started = start(&self.folder, beginning).context("start the network process of this user")?;
            if let Some(met) = started.map_or(Ok(None), Met::unless_it_ends)? {
                return Ok(Some(met));
            }
        }
        Err(ended())
    }
}

/// Meets the process that runs. One that was killed is there until the kernel has closed all that it had: who monitors a
/// container comes at that very moment.
fn meet(folder: &OwnedFd) -> Result<Option<Met>> {
    for _ in 0..DYING_LOOKS {
        let Some(link) = control::connect(folder.as_fd())? else { return Ok(None) };
        if let Some(met) = Met::unless_it_ends(link)? {
            return Ok(Some(met));
        }
        std::thread::sleep(DYING);
    }
    Err(ended())
}

impl Met {
    /// Opens the namespaces of the process behind a link; `None` where it has ended meanwhile.
    fn unless_it_ends(link: OwnedFd) -> Result<Option<Self>> {
        match Self::open(&link) {
            Ok((user, network)) => Ok(Some(Self { link, user, network })),
            // What it has by numbers goes first, and then the rest, one after the other.
            Err(_) if ends(&link) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(link: &OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
        let answer = ask(link, &Request::Hello, None)?.ok_or_else(ended)?;
        let Answer::Welcome { pid, user, network } = answer else { return Err(confused()) };
        let open = |number: i32| {
            let path = format!("/proc/{pid}/fd/{number}");
            rustix::fs::open(&*path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("open {path}"))
        };
        Ok((open(user)?, open(network)?))
    }
}

/// Whether the other end is closed, or is about to be.
fn ends(link: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(link.as_fd(), PollFlags::empty())];
    matches!(poll(&mut fds, Some(&DEAD)), Ok(1)) && fds[0].revents().contains(PollFlags::HUP)
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

/// Starts the process, which has made its namespaces once this returns; `None` where it was killed over that.
fn start(folder: &Path, beginning: &Beginning) -> Result<Option<OwnedFd>> {
    let (here, there) = fdpass::pair().context("make a pair of sockets")?;
    control::send(&here, beginning, None)?;
    let status = Command::new("/proc/self/exe")
        .arg0("husk")
        .args(["internal", "network"])
        .arg(folder)
        .current_dir("/")
        .stdin(there)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("run husk internal network")?;
    match control::receive::<Answer>(&here)? {
        Some((answer, _)) => answer.into_result().map(|_| Some(here)),
        None if status.success() || status.signal().is_some() => Ok(None),
        None => Err(Error::new(Kind::Other, format!("it ended early ({status})"))),
    }
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
    fn meet(origin: Origin) -> Result<Option<Self>> {
        let met = origin.meet()?;
        Ok(met.map(|Met { link, user, network }| Self { link: RefCell::new(link), user, network, origin }))
    }

    /// Asks for something; of who comes after, where this one dies over it.
    fn ask(&self, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<Answer> {
        for _ in 0..SUCCESSORS {
            let answer = ask(&self.link.borrow(), request, fd)?;
            match answer {
                Some(answer) => return Ok(answer),
                None => self.go_on()?,
            }
        }
        Err(ended())
    }

    /// Says what there is nobody to be told of once the process has ended: it has gone with it.
    fn tell(&self, request: &Request) -> Result<()> {
        ask(&self.link.borrow(), request, None).map(drop)
    }

    /// Meets the next, of the same namespaces.
    fn go_on(&self) -> Result<()> {
        let next = self.origin.meet()?.ok_or_else(ended)?;
        if (inode(&next.user), inode(&next.network)) != (inode(&self.user), inode(&self.network)) {
            return Err(ended());
        }
        self.link.replace(next.link);
        Ok(())
    }

    /// Where whoever this process starts finds the user and the network namespace, as long as it lives itself: by its own
    /// descriptors, since the network process may die at any moment.
    pub fn namespace_paths(&self) -> [PathBuf; 2] {
        let pid = std::process::id();
        [&self.user, &self.network].map(|fd| PathBuf::from(format!("/proc/{pid}/fd/{}", fd.as_raw_fd())))
    }

    /// What tells the network namespace from others, for as long as somebody has it.
    pub fn network_inode(&self) -> u64 {
        inode(&self.network)
    }

    /// The user namespace: the parent of those of containers, so that who is in it has rights over both ends of their links.
    pub fn user_namespace(&self) -> BorrowedFd<'_> {
        self.user.as_fd()
    }

    pub fn network_namespace(&self) -> BorrowedFd<'_> {
        self.network.as_fd()
    }

    /// The lease itself, to be watched: it becomes readable when the process has died.
    pub fn lease(&self) -> Ref<'_, OwnedFd> {
        self.link.borrow()
    }

    /// Says that this process holds the namespaces by this handle, and will until it ends: whoever comes after the network process
    /// was killed finds them here. For a container's monitor.
    pub fn hold(&self) -> Result<()> {
        let pid = i32::try_from(std::process::id()).map_err(|_| Error::from(Errno::RANGE))?;
        let holder = Holder { pid, user: self.user.as_raw_fd(), network: self.network.as_raw_fd() };
        self.ask(&Request::Hold(holder), None).map(drop)
    }

    /// Has the network process live as long as a container's first process, whatever becomes of this handle.
    pub fn keep(&self, pid: Pid) -> Result<()> {
        let (kept, pidfd) = Kept::of(pid)?;
        self.ask(&Request::Keep(kept), Some(pidfd.as_fd())).map(drop)
    }

    /// Says which blocks of addresses networks have: a caller with such an address would be taken for a neighbour.
    pub fn know(&self, blocks: Vec<Cidr>) -> Result<()> {
        self.ask(&Request::Know { blocks }, None).map(drop)
    }

    /// Publishes a port, and gives the host's, which is chosen where none is named. `socket` listens there already, or there
    /// is none, and one is made.
    pub fn publish(&self, publication: &Publication, socket: Option<BorrowedFd<'_>>) -> Result<u16> {
        match self.ask(&Request::Publish(publication.clone()), socket)? {
            Answer::Published { port } => Ok(port),
            _ => Err(confused()),
        }
    }

    /// Takes back all that a container has published.
    pub fn withdraw(&self, container: &str) -> Result<()> {
        self.tell(&Request::Withdraw { container: container.to_owned() })
    }

    /// Ends all that goes on with addresses which are nobody's any more.
    pub fn forget(&self, addresses: &[IpAddr]) -> Result<()> {
        self.tell(&Request::Forget { addresses: addresses.to_vec() })
    }

    pub fn status(&self) -> Result<Status> {
        match self.ask(&Request::Status, None)? {
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

/// Asks for something; `None` at the process's end.
fn ask(link: &OwnedFd, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<Option<Answer>> {
    match control::send(link, request, fd) {
        Err(error) if matches!(error.errno(), Some(Errno::PIPE | Errno::CONNRESET)) => return Ok(None),
        sent => sent?,
    }
    control::receive::<Answer>(link)?.map(|(answer, _)| answer.into_result()).transpose()
}

fn ended() -> Error {
    Error::new(Kind::Other, "the network process of this user has ended").with_hint("the next command starts another")
}

fn confused() -> Error {
    Error::new(Kind::Other, "the network process of this user is of another version of husk")
        .with_hint("it ends with the last container that has a network")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::thread;

    use super::*;

    /// Is a network process that names these as its descriptors, until somebody asks for something else.
    fn welcome(listener: &OwnedFd, namespaces: [i32; 2]) -> OwnedFd {
        let link = rustix::net::accept(listener).unwrap();
        let (hello, _) = control::receive::<Request>(&link).unwrap().unwrap();
        assert_eq!(hello, Request::Hello);
        let [user, network] = namespaces;
        control::send(&link, &Answer::Welcome { pid: std::process::id(), user, network }, None).unwrap();
        link
    }

    #[test]
    fn who_dies_is_followed_by_the_next() {
        let place = tempfile::tempdir().unwrap();
        let folder = OwnedFd::from(File::open(place.path()).unwrap());
        let listener = control::listen(folder.as_fd()).unwrap();
        let namespaces = ["user", "net"].map(|name| File::open(format!("/proc/self/ns/{name}")).unwrap());
        let own = [0, 1].map(|place: usize| namespaces[place].as_raw_fd());
        thread::scope(|scope| {
            scope.spawn(|| {
                // Its descriptors have gone, and its sockets go in a moment.
                let dying = welcome(&listener, [i32::MAX, i32::MAX]);
                thread::sleep(DYING);
                drop(dying);
                let killed = welcome(&listener, own);
                assert_eq!(control::receive::<Request>(&killed).unwrap().unwrap().0, Request::Status);
                drop(killed);
                let next = welcome(&listener, own);
                assert_eq!(control::receive::<Request>(&next).unwrap().unwrap().0, Request::Status);
                control::send(&next, &Answer::Status(Status { published: 7, ..Status::default() }), None).unwrap();
                drop(next);
                let others = [own[1], own[1]];
                welcome(&listener, others);
                drop(rustix::net::accept(&listener).unwrap());
            });
            let handle = find(place.path()).unwrap().unwrap();
            assert_eq!(handle.status().unwrap().published, 7);
            handle.withdraw("web").unwrap();
            assert_eq!(handle.status().unwrap_err().report(), ended().report(), "of other namespaces");
            control::connect(folder.as_fd()).unwrap();
        });
    }
}
