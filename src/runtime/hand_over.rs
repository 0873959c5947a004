//! What whoever asked for a process gets of it: the terminal's master, its pidfd, its pid; and what hooks are told of its
//! container. Starts nothing.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::Process;
use serde::Serialize;

use super::container::Mode;
use super::parent::Init;
use super::state::{OCI_VERSION, State};
use super::{console, pid_file};
use crate::error::{Context, Error, Result};

/// A terminal whose master nobody would hold, and a socket for one that nobody would get.
pub(super) fn check_terminal(process: Option<&Process>, has_console_socket: bool, mode: Mode) -> Result<()> {
    let terminal = process.is_some_and(|process| process.terminal().unwrap_or(false));
    match (terminal, has_console_socket, mode) {
        (true, false, Mode::Create | Mode::Detached) => {
            Err(Error::invalid("cannot allocate tty if runc will detach without setting console socket"))
        }
        (false, true, _) | (true, true, Mode::Foreground) => {
            Err(Error::invalid("cannot use console socket if runc will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

/// What callers want of a new process.
pub(super) struct HandOver<'a> {
    /// Where the terminal's master is sent.
    pub console_socket: Option<&'a Path>,
    /// Where the pidfd is sent.
    pub pidfd_socket: Option<&'a Path>,
    /// Where the pid is written.
    pub pid_file: Option<&'a Path>,
}

impl HandOver<'_> {
    /// Gives it to them; the pid file last, because it says "ready".
    pub(super) fn serve(&self, init: &mut Init) -> Result<()> {
        if let Some(socket) = self.console_socket
            && let Some(master) = init.terminal.take()
        {
            console::send_master(socket, master.as_fd())?;
        }
        if let Some(socket) = self.pidfd_socket {
            crate::sys::tty::send_fd_to_socket(socket, b"pidfd", init.pidfd.as_fd())
                .with_context(|| format!("send the pidfd to {}", socket.display()))?;
        }
        if let Some(path) = self.pid_file {
            pid_file::write(path, init.pid.as_raw_nonzero().get())?;
        }
        Ok(())
    }
}

/// What a hook reads on its standard input: the state as the spec has it.
pub(super) fn hook_state(state: &State, status: &str, pid: i32) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct HookState<'a> {
        oci_version: &'a str,
        id: &'a str,
        status: &'a str,
        #[serde(skip_serializing_if = "is_zero")]
        pid: i32,
        bundle: &'a Path,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_zero(pid: &i32) -> bool {
        *pid == 0
    }
    let document = HookState {
        oci_version: OCI_VERSION,
        id: &state.id,
        status,
        pid,
        bundle: &state.bundle,
        annotations: &state.annotations,
    };
    serde_json::to_vec(&document).unwrap_or_default()
}
