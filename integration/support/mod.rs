//! The harness: what a test has at hand. One piece a file.

pub(crate) mod agent;
pub(crate) mod bundle;
pub(crate) mod certificate;
pub(crate) mod docker_registry;
pub(crate) mod guest;
pub(crate) mod husk;
pub(crate) mod image;
pub(crate) mod launch;
pub(crate) mod leak;
pub(crate) mod needs;
pub(crate) mod receiver;
pub(crate) mod registry;
pub(crate) mod scene;
pub(crate) mod sentinel;
pub(crate) mod stage;
pub(crate) mod suite;
pub(crate) mod tar;
pub(crate) mod trace;
pub(crate) mod tty;
pub(crate) mod user;

pub(crate) use agent::{Agent, Answer};
pub(crate) use bundle::Bundle;
pub(crate) use guest::Guest;
pub(crate) use husk::{Invocation, Outcome, Running};
pub(crate) use needs::Need;
pub(crate) use scene::Scene;
pub(crate) use suite::Test;
pub(crate) use user::Who;

/// Names a test after its function and file.
macro_rules! test {
    ($body:ident) => {
        $crate::support::Test::new(module_path!(), stringify!($body), $body)
    };
}
pub(crate) use test;
