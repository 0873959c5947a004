//! What tests of networks share.

use std::thread;

use crate::sys::clone::{CloneFlags, unshare};

/// Runs this in a network namespace of its own, or says why not.
#[expect(clippy::print_stderr, reason = "a test that cannot run here says why")]
pub(super) fn in_own_namespace(run: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| match unshare(CloneFlags::NEWNET) {
            Ok(()) => run(),
            Err(errno) => eprintln!("not run: a network namespace cannot be made here: {errno}"),
        });
        thread.join().unwrap();
    });
}
