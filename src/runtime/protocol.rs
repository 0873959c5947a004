//! Every message between the stages, in order, with its descriptors.
//!
//! One SEQPACKET pair joins the parent to the child or init. Its ends are close-on-exec, so that end-of-file without a
//! [`Message::Failed`] before it means: init became the workload.
//!
//! ```text
//!  parent                                             child (two stages and `exec`)
//!    │  ───────────── clone3 ──────────────────────────▶ │
//!    │  ◀──────────── WantsMaps ──────────────────────── │  after unshare(NEWUSER)
//!    │  ───────────── MapsWritten ─────────────────────▶ │
//!    │  ◀──────────── Hidden ─────────────────────────── │  only in a PID namespace that is joined: then Known, and
//!    │                                                   │  all that init says but Ready, come before Init;
//!    │                                                   │  `exec` does the same, and without that word
//!    │  ◀──────────── Init {pid} + pidfd ─────────────── │  clone3(PARENT): init is the parent's own child; in a user
//!    │                                                   │  namespace below another, the child writes its maps
//!    │                                                  _exit
//!    │                                                init
//!    │  ───────────── MapsWritten ─────────────────────▶ │  one stage with a new user namespace
//!    │  ───────────── Known ───────────────────────────▶ │  on disk: `delete` finds init now, whoever is killed; and
//!    │                                                   │  in its cgroup, where systemd moves it there
//!    │  ───────────── InCgroup ────────────────────────▶ │  `exec` alone, where the process could not be born there
//!    │  ◀──────────── WantsDevices + namespace ───────── │  only with linux.netDevices, and for an engine's networks: init
//!    │  ───────────── DevicesMoved ────────────────────▶ │  is in its network namespace
//!    │  ◀──────────── WantsIds {mount} + tree ────────── │  only for id-mapped binds of what lies in the root file
//!    │  ───────────── IdsMapped ───────────────────────▶ │  system: init alone sees it, the parent alone may map it
//!    │  ◀──────────── MountsDone ─────────────────────── │  only where prestart or createRuntime hooks exist
//!    │  ───────────── HooksDone ───────────────────────▶ │
//!    │  ◀──────────── Terminal + pty master ──────────── │  only with process.terminal
//!    │  ◀──────────── Listener {number} ──────────────── │  only with SCMP_ACT_NOTIFY; from init or from the stub
//!    │  ───────────── ListenerSent ────────────────────▶ │
//!    │  ◀──────────── Ready ──────────────────────────── │  only the exec is left; `create` waits in exec.fifo
//!    │  ◀──────────── Failed {kind, errno, text, hint} ─ │  instead of any of the above
//!    │  ◀──────────── ExecFailed {errno, step} ───────── │  from the stub
//!    │  ◀──────────── Copy + tree ────────────────────── │  from who copies a container's mounts; nothing else
//! ```

use std::borrow::Cow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::fdpass;

/// Longer error texts are cut: they hold paths of at most this size.
pub(crate) const MESSAGE_SIZE: usize = 8192;
/// So are hints.
const HINT_SIZE: usize = 1024;

/// Length of a [`Message::Listener`], as the stub writes it: the tag, three bytes of padding, the number.
pub(super) const LISTENER_LENGTH: usize = 8;
/// Where the number stands in it.
pub(super) const LISTENER_NUMBER_OFFSET: usize = 4;

/// How the listener gets from init to the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerGoes {
    /// With the message, by sendmsg(2).
    Along,
    /// By its number; the parent gets it with pidfd_getfd(2), and needs the right to trace init.
    ByNumber,
}

/// One message.
#[derive(Debug)]
pub enum Message {
    /// The child is in its user namespace and waits for the id maps.
    WantsMaps,
    /// The id maps are written.
    MapsWritten,
    /// The receiver, who enters a container, has been moved into its cgroup: only where it could not be born there.
    InCgroup,
    /// Init exists; its descriptor comes along.
    Init { pid: i32, pidfd: OwnedFd },
    /// Init is in the container's record. It is read before init sends anything, by one of two stages before init does
    /// anything: the messages of the child and of init would overtake each other.
    Known,
    /// The child does init's work, until it is to be seen in a PID namespace that others are in.
    Hidden,
    /// Init is in its network namespace and waits for interfaces. Who has no rights over init could not open that.
    WantsDevices { namespace: OwnedFd },
    /// The interfaces are in init's network namespace.
    DevicesMoved,
    /// A tree for the mount of this number waits to have its ids mapped.
    WantsIds { mount: u32, tree: OwnedFd },
    /// They are mapped: the tree is the same one on both sides.
    IdsMapped,
    /// The root file system is mounted and not yet pivoted into.
    MountsDone,
    /// The hooks of the runtime namespace have run.
    HooksDone,
    /// The master of the container's terminal.
    Terminal { master: OwnedFd },
    /// The seccomp listener, by its number in the process that sends this, and itself where sendmsg(2) can be made:
    /// under the filter, that may be a call that waits for whoever has the listener. write(2) cannot be.
    Listener { number: i32, fd: Option<OwnedFd> },
    /// The listener is with its owner.
    ListenerSent,
    /// Only the exec is left.
    Ready,
    /// A detached copy of a container's mounts.
    Copy { tree: OwnedFd },
    /// A step failed; nothing follows.
    Failed(Error),
    /// A call of the tape failed; nothing follows.
    ExecFailed { errno: Errno, step: u32 },
}

/// One end of the pair.
pub struct Channel(OwnedFd);

impl Channel {
    /// Makes both ends.
    pub fn pair() -> Result<(Self, Self)> {
        let (here, there) = fdpass::pair().context("make the sync socket")?;
        Ok((Self(here), Self(there)))
    }

    /// Sends a message without a descriptor.
    pub fn send(&self, tag: Tag) -> Result<()> {
        self.send_bytes(tag, &[], None)
    }

    /// Sends a message with one.
    pub fn send_fd(&self, tag: Tag, fd: BorrowedFd<'_>) -> Result<()> {
        self.send_bytes(tag, &[], Some(fd))
    }

    /// Sends who init is.
    pub fn send_init(&self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<()> {
        self.send_bytes(Tag::Init, &pid.to_ne_bytes(), Some(pidfd))
    }

    /// Sends a tree whose ids are to be mapped.
    pub fn send_tree(&self, mount: usize, tree: BorrowedFd<'_>) -> Result<()> {
        let mount = u32::try_from(mount).map_err(|_| Error::invalid("too many mounts"))?;
        self.send_bytes(Tag::WantsIds, &mount.to_ne_bytes(), Some(tree))
    }

    /// Sends the listener.
    pub fn send_listener(&self, listener: BorrowedFd<'_>, how: ListenerGoes) -> Result<()> {
        let mut message = [0; LISTENER_LENGTH];
        message[0] = Tag::Listener as u8;
        message[LISTENER_NUMBER_OFFSET..].copy_from_slice(&listener.as_raw_fd().to_ne_bytes());
        let sent = match how {
            ListenerGoes::Along => fdpass::send(&self.0, &[&message], Some(listener)),
            ListenerGoes::ByNumber => rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &message)).map(drop),
        };
        sent.context("send Listener to the other stage")
    }

    /// Sends an error, as the last thing. Nobody is told if the other side has gone.
    pub fn send_failure(&self, error: &Error) {
        let _ = self.send_bytes(Tag::Failed, &encode_failure(error), None);
    }

    /// Waits for the next message; `None` when the other side has closed its end.
    pub fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = [0; MESSAGE_SIZE];
        let answer = match fdpass::receive(&self.0, &mut buffer) {
            // A process that ended with our last message unread resets the socket. That is told once, and before what the
            // process itself had to say, which comes next.
            Err(Errno::CONNRESET) => fdpass::receive(&self.0, &mut buffer),
            answer => answer,
        };
        let (length, fd) = answer.context("receive from the other stage")?;
        let Some((&tag, body)) = buffer[..length].split_first() else { return Ok(None) };
        decode(tag, body, fd).map(Some)
    }

    /// Waits for one particular message; anything else is the failure of the other side.
    pub fn expect(&self, tag: Tag) -> Result<()> {
        match self.receive()? {
            Some(message) if message.tag() == tag => Ok(()),
            Some(Message::Failed(error)) => Err(error),
            Some(message) => {
                Err(Error::new(Kind::Other, format!("expected {tag:?} from the other stage, got {:?}", message.tag())))
            }
            None => Err(Error::new(Kind::Other, format!("the other stage ended before {tag:?}"))),
        }
    }

    fn send_bytes(&self, tag: Tag, body: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
        fdpass::send(&self.0, &[&[tag as u8], body], fd).with_context(|| format!("send {tag:?} to the other stage"))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The first byte of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// See [`Message::WantsMaps`].
    WantsMaps = 1,
    /// See [`Message::MapsWritten`].
    MapsWritten,
    /// See [`Message::Init`].
    Init,
    /// See [`Message::Known`].
    Known,
    /// See [`Message::Hidden`].
    Hidden,
    /// See [`Message::WantsDevices`].
    WantsDevices,
    /// See [`Message::DevicesMoved`].
    DevicesMoved,
    /// See [`Message::MountsDone`].
    MountsDone,
    /// See [`Message::HooksDone`].
    HooksDone,
    /// See [`Message::Terminal`].
    Terminal,
    /// See [`Message::Listener`].
    Listener,
    /// See [`Message::ListenerSent`].
    ListenerSent,
    /// See [`Message::Ready`].
    Ready,
    /// See [`Message::Failed`].
    Failed,
    /// See [`Message::ExecFailed`]; the stub pads it to four bytes.
    ExecFailed,
    /// See [`Message::InCgroup`].
    InCgroup,
    /// See [`Message::WantsIds`].
    WantsIds,
    /// See [`Message::IdsMapped`].
    IdsMapped,
    /// See [`Message::Copy`].
    Copy,
}

impl Message {
    /// Gives the first byte of the message.
    pub fn tag(&self) -> Tag {
        match self {
            Self::WantsMaps => Tag::WantsMaps,
            Self::MapsWritten => Tag::MapsWritten,
            Self::InCgroup => Tag::InCgroup,
            Self::Init { .. } => Tag::Init,
            Self::Known => Tag::Known,
            Self::Hidden => Tag::Hidden,
            Self::WantsDevices { .. } => Tag::WantsDevices,
            Self::DevicesMoved => Tag::DevicesMoved,
            Self::WantsIds { .. } => Tag::WantsIds,
            Self::IdsMapped => Tag::IdsMapped,
            Self::MountsDone => Tag::MountsDone,
            Self::HooksDone => Tag::HooksDone,
            Self::Terminal { .. } => Tag::Terminal,
            Self::Listener { .. } => Tag::Listener,
            Self::ListenerSent => Tag::ListenerSent,
            Self::Ready => Tag::Ready,
            Self::Copy { .. } => Tag::Copy,
            Self::Failed(_) => Tag::Failed,
            Self::ExecFailed { .. } => Tag::ExecFailed,
        }
    }
}

fn decode(tag: u8, body: &[u8], fd: Option<OwnedFd>) -> Result<Message> {
    let malformed = || Error::new(Kind::Other, format!("malformed message {tag} from the other stage"));
    Ok(match tag {
        tag if tag == Tag::WantsMaps as u8 => Message::WantsMaps,
        tag if tag == Tag::MapsWritten as u8 => Message::MapsWritten,
        tag if tag == Tag::InCgroup as u8 => Message::InCgroup,
        tag if tag == Tag::Init as u8 => {
            let pid = body.try_into().map(i32::from_ne_bytes).map_err(|_| malformed())?;
            Message::Init { pid, pidfd: fd.ok_or_else(malformed)? }
        }
        tag if tag == Tag::Known as u8 => Message::Known,
        tag if tag == Tag::Hidden as u8 => Message::Hidden,
        tag if tag == Tag::WantsDevices as u8 => Message::WantsDevices { namespace: fd.ok_or_else(malformed)? },
        tag if tag == Tag::DevicesMoved as u8 => Message::DevicesMoved,
        tag if tag == Tag::WantsIds as u8 => {
            let mount = body.try_into().map(u32::from_ne_bytes).map_err(|_| malformed())?;
            Message::WantsIds { mount, tree: fd.ok_or_else(malformed)? }
        }
        tag if tag == Tag::IdsMapped as u8 => Message::IdsMapped,
        tag if tag == Tag::MountsDone as u8 => Message::MountsDone,
        tag if tag == Tag::HooksDone as u8 => Message::HooksDone,
        tag if tag == Tag::Terminal as u8 => Message::Terminal { master: fd.ok_or_else(malformed)? },
        tag if tag == Tag::Listener as u8 => {
            let number = body.get(LISTENER_NUMBER_OFFSET - 1..).and_then(|number| number.try_into().ok());
            Message::Listener { number: number.map(i32::from_ne_bytes).ok_or_else(malformed)?, fd }
        }
        tag if tag == Tag::ListenerSent as u8 => Message::ListenerSent,
        tag if tag == Tag::Ready as u8 => Message::Ready,
        tag if tag == Tag::Copy as u8 => Message::Copy { tree: fd.ok_or_else(malformed)? },
        tag if tag == Tag::Failed as u8 => Message::Failed(decode_failure(body).ok_or_else(malformed)?),
        tag if tag == Tag::ExecFailed as u8 => {
            // Three bytes of padding behind the tag, then the two numbers.
            let (errno, step) = body.get(3..).and_then(<[u8]>::split_first_chunk::<4>).ok_or_else(malformed)?;
            let step = step.try_into().map_err(|_| malformed())?;
            let errno = Errno::from_raw_os_error(i32::from_le_bytes(*errno));
            Message::ExecFailed { errno, step: u32::from_le_bytes(step) }
        }
        _ => return Err(malformed()),
    })
}

/// Packs an error: its kind, its whole text, its hint.
pub(crate) fn encode_failure(error: &Error) -> Vec<u8> {
    let (kind, errno) = pack(error.kind());
    let mut text = error.report();
    let mut hint = error.hint().unwrap_or_default().to_owned();
    truncate(&mut hint, HINT_SIZE);
    truncate(&mut text, MESSAGE_SIZE - HINT_SIZE - 16);
    let mut body = Vec::with_capacity(9 + text.len() + hint.len());
    body.push(kind);
    body.extend_from_slice(&errno.to_ne_bytes());
    body.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_ne_bytes());
    body.extend_from_slice(text.as_bytes());
    body.extend_from_slice(hint.as_bytes());
    body
}

/// Unpacks what [`encode_failure`] packed.
pub(crate) fn decode_failure(body: &[u8]) -> Option<Error> {
    let (head, rest) = body.split_first_chunk::<9>()?;
    let errno = i32::from_ne_bytes(head[1..5].try_into().ok()?);
    let length = u32::from_ne_bytes(head[5..9].try_into().ok()?) as usize;
    let (text, hint) = rest.split_at_checked(length)?;
    let error = Error::new(unpack(head[0], errno), Cow::Owned(String::from_utf8_lossy(text).into_owned()));
    if hint.is_empty() { Some(error) } else { Some(error.with_hint(String::from_utf8_lossy(hint).into_owned())) }
}

fn pack(kind: Kind) -> (u8, i32) {
    match kind {
        Kind::Other => (0, 0),
        Kind::Invalid => (1, 0),
        Kind::NotFound => (2, 0),
        Kind::Exists => (3, 0),
        Kind::State => (4, 0),
        Kind::ExecutableNotFound => (5, 0),
        Kind::NotExecutable => (6, 0),
        Kind::Unsupported => (7, 0),
        Kind::System(errno) => (8, errno.raw_os_error()),
    }
}

fn unpack(kind: u8, errno: i32) -> Kind {
    match kind {
        1 => Kind::Invalid,
        2 => Kind::NotFound,
        3 => Kind::Exists,
        4 => Kind::State,
        5 => Kind::ExecutableNotFound,
        6 => Kind::NotExecutable,
        7 => Kind::Unsupported,
        8 => Kind::System(Errno::from_raw_os_error(errno)),
        _ => Kind::Other,
    }
}

fn truncate(text: &mut String, room: usize) {
    if text.len() > room {
        let cut = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_whole() {
        let (parent, init) = Channel::pair().unwrap();
        let error = Error::from(Errno::ACCESS).context("exec /bin/x").with_hint("chmod +x");
        init.send_failure(&error);
        let Some(Message::Failed(received)) = parent.receive().unwrap() else { panic!("not a failure") };
        assert_eq!(received.report(), error.report());
        assert_eq!(received.errno(), Some(Errno::ACCESS));
        assert_eq!(received.hint(), Some("chmod +x"));
        for kind in [Kind::Other, Kind::Invalid, Kind::ExecutableNotFound, Kind::System(Errno::NOSPC)] {
            let (tag, errno) = pack(kind);
            assert_eq!(unpack(tag, errno), kind);
        }
    }

    #[test]
    fn the_listener_crosses_by_number_or_itself() {
        let (parent, init) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for (how, comes_along) in [(ListenerGoes::ByNumber, false), (ListenerGoes::Along, true)] {
            init.send_listener(null.as_fd(), how).unwrap();
            let Some(Message::Listener { number, fd }) = parent.receive().unwrap() else { panic!("not a listener") };
            assert_eq!((number, fd.is_some()), (null.as_raw_fd(), comes_along));
        }
    }

    /// Init may fail before it has read that it is known.
    #[test]
    fn a_failure_is_heard_of_one_that_did_not_listen() {
        let (parent, init) = Channel::pair().unwrap();
        parent.send(Tag::Known).unwrap();
        init.send_failure(&Error::invalid("x"));
        drop(init);
        assert!(matches!(parent.receive().unwrap(), Some(Message::Failed(_))));
        assert!(parent.receive().unwrap().is_none());
    }

    #[test]
    fn an_endless_error_is_cut_and_the_end_is_seen() {
        let (parent, init) = Channel::pair().unwrap();
        init.send_failure(&Error::invalid("ä".repeat(10_000)));
        assert!(matches!(parent.receive().unwrap(), Some(Message::Failed(_))));
        drop(init);
        assert!(parent.receive().unwrap().is_none());
        assert_eq!(parent.expect(Tag::Ready).unwrap_err().report(), "the other stage ended before Ready");
    }
}
