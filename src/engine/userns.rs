//! Work that wants the user's own user namespace: unpacking with other owners, removing what has them, a shell.
//!
//! A child is cloned into a new user and mount namespace, gets its id maps from here, does the work and ends. The caller
//! stays where it was.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::idmap::{self, IdMaps};
use crate::runtime::foreground::{self, Exit};
use crate::runtime::protocol::{Channel, Message, Tag};
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::process::exit_now;

/// Runs `work` as user 0 of a namespace with these maps, in a process of its own, and gives its error.
pub fn run(maps: &IdMaps, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (channel, their_channel) = Channel::pair()?;
    let flags = CloneFlags::NEWUSER | CloneFlags::NEWNS;
    match clone3(flags, None).map_err(explain)? {
        Cloned::Child => {
            drop(channel);
            let done = enter(&their_channel).and_then(|()| work());
            match done.and_then(|()| their_channel.send(Tag::Ready)) {
                Ok(()) => exit_now(0),
                Err(error) => {
                    their_channel.send_failure(&error);
                    exit_now(1)
                }
            }
        }
        Cloned::Parent(pid, pidfd) => {
            drop(their_channel);
            let mapped = idmap::write(pid, maps).and_then(|()| channel.send(Tag::MapsWritten));
            let answer = match mapped {
                // The closed channel ends the child.
                Err(error) => Err(error),
                Ok(()) => channel.receive(),
            };
            drop(channel);
            let exit = foreground::wait(pidfd.as_fd())?;
            match answer? {
                Some(Message::Ready) => Ok(()),
                Some(Message::Failed(error)) => Err(error),
                _ => Err(Error::new(Kind::Other, format!("the process in the user namespace ended early ({exit:?})"))),
            }
        }
    }
}

/// The same for work whose result is wanted: it comes back by a file in memory.
pub fn run_for<T: Serialize + DeserializeOwned>(maps: &IdMaps, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut result = File::from(memfd_create(c"husk:result", MemfdFlags::CLOEXEC).context("make a file in memory")?);
    run(maps, || {
        let bytes = serde_json::to_vec(&work()?)?;
        (&result).write_all(&bytes).context("pass the result on")
    })?;
    result.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    result.read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).context("read the result of the work in the user namespace")
}

/// Runs a program in the namespace in the foreground; `exec` becomes it, and returns only on failure.
pub fn run_program(maps: &IdMaps, exec: impl FnOnce() -> Result<Infallible>) -> Result<Exit> {
    let (channel, their_channel) = Channel::pair()?;
    let flags = CloneFlags::NEWUSER | CloneFlags::NEWNS;
    match clone3(flags, None).map_err(explain)? {
        Cloned::Child => {
            drop(channel);
            let Err(error) = enter(&their_channel).and_then(|()| exec());
            their_channel.send_failure(&error);
            exit_now(1)
        }
        Cloned::Parent(pid, pidfd) => {
            drop(their_channel);
            idmap::write(pid, maps)?;
            channel.send(Tag::MapsWritten)?;
            if let Some(Message::Failed(error)) = channel.receive()? {
                foreground::wait(pidfd.as_fd())?;
                return Err(error);
            }
            foreground::wait(pidfd.as_fd())
        }
    }
}

/// In the child: waits for the maps, and becomes user 0, whose files are the caller's.
fn enter(channel: &Channel) -> Result<()> {
    channel.expect(Tag::MapsWritten)?;
    let (uid, gid) = (rustix::thread::Uid::ROOT, rustix::thread::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).context("become group 0 of the user namespace")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("become user 0 of the user namespace")
}

fn explain(errno: rustix::io::Errno) -> Error {
    Error::from(errno)
        .context("make a user namespace")
        .with_hint("this host may forbid them to ordinary users (sysctl kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces)")
}
