//! Exit statuses, in one place.

use std::process::ExitCode;

use crate::error::{Error, Kind};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// 0.
    Success,
    /// 1: a verb of the runtime failed.
    Failure,
    /// 3: there is no such verb of the runtime.
    UnknownCommand,
    /// 255: the runtime's `exec` failed, as runc has it, so that a command's own statuses are not mistaken for it.
    ExecFailure,
    /// 125: the engine itself failed, before or instead of the workload.
    Engine,
    /// 126: the workload's executable cannot be executed.
    NotExecutable,
    /// 127: the workload's executable does not exist.
    NotFound,
    /// The workload's own, or 128 + the signal that ended it.
    Workload(u8),
}

impl Status {
    /// What an error of the engine's means to a caller, as docker and podman have it.
    pub(crate) fn of_engine(error: &Error) -> Self {
        match error.kind() {
            Kind::NotExecutable => Self::NotExecutable,
            Kind::ExecutableNotFound => Self::NotFound,
            _ => Self::Engine,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        match status {
            Status::Success => Self::SUCCESS,
            Status::Failure => Self::from(1),
            Status::UnknownCommand => Self::from(3),
            Status::ExecFailure => Self::from(255),
            Status::Engine => Self::from(125),
            Status::NotExecutable => Self::from(126),
            Status::NotFound => Self::from(127),
            Status::Workload(code) => Self::from(code),
        }
    }
}
