//! Somebody who answers for a container: takes the listener of its seccomp filter, and decides the calls that it is told
//! of, until the last process under the filter has ended.
#![expect(unsafe_code, reason = "the two ioctls of a listener have no safe form")]

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::Value;

use super::Scene;

/// Longer than any test, shorter than anybody's patience.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Each has a socket of its own.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// What becomes of the calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// They are made.
    Continue,
    /// They fail.
    Error(i32),
    /// The listener is closed at once.
    Leave,
}

/// An agent at a socket of the scene.
pub(crate) struct Agent {
    pub(crate) path: PathBuf,
    document: Receiver<Value>,
    thread: Option<JoinHandle<Vec<i32>>>,
}

impl Agent {
    pub(crate) fn start(scene: &Scene, answer: Answer) -> Self {
        let path = scene.path().join(format!("agent-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let socket = UnixListener::bind(&path).expect("listen");
        scene.account().own(&path);
        let (sender, document) = channel();
        let thread = std::thread::spawn(move || {
            let mut numbers = Vec::new();
            if !is_ready(&socket) {
                return numbers;
            }
            let (stream, _) = socket.accept().expect("accept");
            let (text, listener) = receive(&stream);
            let Some(listener) = listener else { return numbers };
            sender.send(serde_json::from_slice(&text).expect("the document is JSON")).expect("the test waits");
            if !matches!(answer, Answer::Leave) {
                serve(&listener, answer, &mut numbers);
            }
            numbers
        });
        Self { path, document, thread: Some(thread) }
    }

    /// The document that came with the listener.
    pub(crate) fn document(&self) -> Value {
        self.document.recv_timeout(Duration::from_secs(30)).expect("a listener arrives")
    }

    /// Waits for the end of what is filtered; gives the numbers of the calls that were decided.
    pub(crate) fn finish(mut self) -> Vec<i32> {
        self.thread.take().expect("joined once").join().expect("the agent does not fail")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Agent {
    /// Nobody came: the thread is let go by a connection without a listener.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&self.path) {
                _ = stream.write_all(b"{}");
            }
            _ = thread.join();
        }
    }
}

fn is_ready(fd: &impl std::os::fd::AsFd) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&PATIENCE)).is_ok_and(|count| count > 0)
}

/// Receives one message, with a descriptor if one comes along.
pub(crate) fn receive(stream: &std::os::unix::net::UnixStream) -> (Vec<u8>, Option<OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; 4096];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
    let length = message.expect("receive a message").bytes;
    let fd = ancillary.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (buffer[..length].to_vec(), fd)
}

/// `struct seccomp_notif` of linux/seccomp.h.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

fn serve(listener: &OwnedFd, answer: Answer, numbers: &mut Vec<i32>) {
    const SECCOMP_IOCTL_NOTIF_RECV: libc::Ioctl = 0xc050_2100;
    const SECCOMP_IOCTL_NOTIF_SEND: libc::Ioctl = 0xc018_2101;
    const SECCOMP_USER_NOTIF_FLAG_CONTINUE: u32 = 1;
    loop {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        let count = rustix::event::poll(&mut polled, Some(&PATIENCE)).expect("wait for a call");
        // All who were filtered have ended, or nothing happens any more.
        if count == 0 || !polled[0].revents().contains(PollFlags::IN) {
            return;
        }
        let mut call = Notification::default();
        // SAFETY: the structure is laid out as the kernel's and outlives the call.
        if unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
            continue; // It was killed in between.
        }
        numbers.push(call.number);
        let (error, flags) = match answer {
            Answer::Error(errno) => (-errno, 0),
            _ => (0, SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        };
        let mut response = Response { id: call.id, value: 0, error, flags };
        // SAFETY: as above.
        unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    }
}
