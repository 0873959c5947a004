//! What a filter answers: the kernel's return values, and the OCI actions that name them.

use oci_spec::runtime::LinuxSeccompAction;

use crate::error::{Error, Result};

/// `ERRNO_MAX`: the kernel turns anything above it into this (kernel/seccomp.c, `MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// A value that a filter returns: an action in the high half, its data in the low half (linux/seccomp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action(u32);

/// What becomes of a call that a filter refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// It fails with this number.
    Error(u32),
    /// Its thread or process is killed.
    Killed,
    /// Its thread gets SIGSYS.
    Trapped,
}

impl Action {
    pub(super) const KILL_PROCESS: Self = Self(0x8000_0000);
    pub(super) const ALLOW: Self = Self(0x7fff_0000);
    pub(super) const NO_SYSTEM_CALL: Self = Self::errno(ENOSYS);

    const KILL_THREAD: Self = Self(0x0000_0000);
    const TRAP: Self = Self(0x0003_0000);
    const NOTIFY: Self = Self(0x7fc0_0000);
    const TRACE: u32 = 0x7ff0_0000;
    const LOG: Self = Self(0x7ffc_0000);

    const fn errno(errno: u32) -> Self {
        Self(0x0005_0000 | errno)
    }

    /// Reads an action and the errno beside it; `field` names where the errno stands.
    pub(super) fn parse(action: LinuxSeccompAction, errno: Option<u32>, field: impl Fn() -> String) -> Result<Self> {
        let parsed = match action {
            LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace => {
                let (make, limit): (fn(u32) -> Self, u32) = if action == LinuxSeccompAction::ScmpActErrno {
                    (Self::errno, MAX_ERRNO)
                } else {
                    (|data| Self(Self::TRACE | data), u32::from(u16::MAX))
                };
                let errno = errno.unwrap_or(EPERM);
                if errno > limit {
                    return Err(Error::invalid(format!("{}: {errno} is above {limit}", field())));
                }
                return Ok(make(errno));
            }
            LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Self::KILL_THREAD,
            LinuxSeccompAction::ScmpActKillProcess => Self::KILL_PROCESS,
            LinuxSeccompAction::ScmpActTrap => Self::TRAP,
            LinuxSeccompAction::ScmpActNotify => Self::NOTIFY,
            LinuxSeccompAction::ScmpActLog => Self::LOG,
            LinuxSeccompAction::ScmpActAllow => Self::ALLOW,
        };
        // The specification: "When the action doesn't support an errno, the runtime MUST print an error and fail."
        if errno.is_some() {
            return Err(Error::invalid(format!("{}: {action} takes no errno", field())));
        }
        Ok(parsed)
    }

    /// Gives the value for the instruction that returns it.
    pub(super) fn value(self) -> u32 {
        self.0
    }

    /// Says whether a value that a filter returns hands the call to the listener.
    pub(super) fn asks_listener(value: u32) -> bool {
        // SECCOMP_RET_ACTION_FULL of linux/seccomp.h: the low half is data.
        value & 0xffff_0000 == Self::NOTIFY.0
    }

    /// Says whether a value that a filter returns has the call made, with nobody else asked.
    pub(super) fn is_made(value: u32) -> bool {
        matches!(Self(value & 0xffff_0000), Self::ALLOW | Self::LOG)
    }

    /// Gives the value by which the listener is asked.
    pub(super) fn notify() -> u32 {
        Self::NOTIFY.0
    }

    /// Says what a value that a filter returns does to a call that it refuses; `None` where it does not.
    pub(super) fn refusal(value: u32) -> Option<Refusal> {
        match (Self(value & 0xffff_0000), value & 0xffff) {
            (Self(0x0005_0000), errno) => Some(Refusal::Error(errno)),
            (Self::KILL_PROCESS | Self::KILL_THREAD, _) => Some(Refusal::Killed),
            (Self::TRAP, _) => Some(Refusal::Trapped),
            _ => None,
        }
    }

    /// Says whether the call is made or handed to somebody who decides, rather than refused.
    ///
    /// TRACE is among them, as in runc: a tracer emulates calls, new ones too.
    pub(super) fn lets_pass(self) -> bool {
        matches!(self, Self::ALLOW | Self::LOG) || self.0 & 0xffff_0000 == Self::TRACE
    }

    /// Gives the stricter of two actions, in the order in which the kernel combines filters: the lowest signed value wins.
    pub(super) fn stricter(self, other: Self) -> Self {
        let order = |action: Self| (action.0 & 0xffff_0000).cast_signed();
        if order(other) < order(self) { other } else { self }
    }
}
