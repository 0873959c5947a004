//! Words typed, words printed. No policy.
//!
//! One executable has two faces. Named `runc`, `husk-runc` or `crun` it is an OCI runtime and nothing else. Named `husk` it
//! is the engine, with the runtime's verbs as `husk oci VERB`; a runtime's verb also works under the plain name wherever it
//! cannot be mistaken for the engine's (see [`face`]), so that callers of runtimes need no set-up.
//!
//! Only the parser of the command that was typed is built: the whole tree costs more than a container's start.

mod attach;
mod commit;
mod complete;
mod container;
mod container_filter;
mod container_options;
mod cp;
mod diff;
mod dns;
mod docs;
mod doctor;
mod engine;
mod events;
mod exec;
mod export;
mod face;
pub mod filter;
pub mod format;
mod generate;
mod history;
mod image_list;
mod images;
mod import;
mod info;
mod input;
mod inspect;
mod lifecycle;
mod load;
mod login;
mod logout;
mod logs;
mod making;
mod manifest;
mod monitor;
mod mount;
mod network;
mod network_process;
mod oci;
mod output;
mod ports;
mod printer;
mod progress;
mod prompt;
mod ps;
mod referrers;
mod report;
mod run;
mod save;
mod search;
mod secret;
mod stats;
mod status;
mod switches;
mod system;
pub mod table;
pub mod template;
mod thaw;
mod top;
mod tree;
mod unshare;
mod update;
mod usage;
mod volume;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use face::Face;

/// Nobody but the owner writes to what the runtime and the engine make.
const FILE_MODE_MASK: rustix::fs::Mode = rustix::fs::Mode::from_raw_mode(0o022);

/// Closes what the caller left open: a monitor that stays would hold it open for ever, such as the pipe by whose end a CI job
/// knows that a command is done. To be called before anything is opened.
fn let_go_of_descriptors() -> crate::error::Result<()> {
    use crate::error::Context as _;
    use crate::sys::process::{CloseHow, close_range};
    close_range(3, CloseHow::Now).context("close inherited descriptors")
}

/// The same, but for sockets that a service manager has passed to this process, which ports of the container may be served by.
fn let_go_of_all_but_passed_sockets() -> crate::error::Result<()> {
    use crate::error::Context as _;
    use crate::network::passed::PassedSockets;
    use crate::support::activation::passed_descriptors;
    use crate::sys::process::{CloseHow, close_all_but, close_range};
    let mut sockets = PassedSockets::numbers(passed_descriptors());
    if sockets.is_empty() {
        return let_go_of_descriptors();
    }
    close_all_but(3, &mut sockets).context("close inherited descriptors")?;
    close_range(3, CloseHow::OnExec).context("close passed sockets on exec")
}

/// Puts the null device in the place of the standard input, and gives it.
fn take_no_input() -> crate::error::Result<std::os::fd::OwnedFd> {
    use crate::error::Context as _;
    use rustix::fs::{Mode, OFlags};
    let null =
        rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(null)
}

/// Parses the process's arguments, runs the command, and gives the exit status.
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    match face::choose(&args) {
        Face::Runtime { drop_first_word, manners } => {
            // What is made for a container must not depend on its caller's habits; its own umask is in the configuration.
            rustix::process::umask(FILE_MODE_MASK);
            if drop_first_word {
                args.remove(1);
            }
            oci::main(&args, manners)
        }
        Face::Engine => {
            // The store's files are its owner's, who must be able to read them (a umask of 0777), and nobody else's to write.
            rustix::process::umask(FILE_MODE_MASK);
            engine::main(&args)
        }
    }
}
