//! Who listens at `--console-socket` and `--pidfd-socket`: takes one message with one descriptor.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::Scene;

/// A socket of the file system that waits for a descriptor.
pub(crate) struct Receiver {
    listener: UnixListener,
    path: PathBuf,
}

impl Receiver {
    /// Listens in the scene's directory.
    pub(crate) fn listen(scene: &Scene, name: &str) -> Self {
        // The path of a socket has room for 107 bytes, which is less than a scene's.
        let directory = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").expect("make a directory").keep();
        let path = directory.join(name);
        let listener = UnixListener::bind(&path).expect("listen");
        scene.account().own(&directory);
        Self { listener, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives what was sent: the text and the descriptor.
    #[track_caller]
    pub(crate) fn receive(&self) -> (String, OwnedFd) {
        wait(self.listener.as_fd());
        let (stream, _) = self.listener.accept().expect("accept");
        wait(stream.as_fd());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; 4096];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags).expect("receive");
        let mut fds: Vec<OwnedFd> = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                fds.extend(received);
            }
        }
        assert_eq!(fds.len(), 1, "one descriptor is sent");
        (String::from_utf8_lossy(&text[..message.bytes]).into_owned(), fds.remove(0))
    }
}

#[track_caller]
fn wait(fd: std::os::fd::BorrowedFd<'_>) {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let count = rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&limit)).expect("poll");
    assert_eq!(count, 1, "nobody sends");
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(directory) = self.path.parent() {
            _ = std::fs::remove_dir_all(directory);
        }
    }
}
