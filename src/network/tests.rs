//! What tests of networks share.

use std::thread;

use crate::sys::clone::{CloneFlags, unshare};

/// Runs this in a network namespace of its own, or says why not.
pub(super) fn in_own_namespace(run: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| match unshare(CloneFlags::NEWNET) {
            Ok(()) => run(),
            Err(errno) => println!("not run: a network namespace cannot be made here: {errno}"),
        });
        thread.join().unwrap();
    });
}
