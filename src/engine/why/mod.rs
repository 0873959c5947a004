//! `why`: the cause of a container's failure or death, with the evidence and the way out.
//!
//! ```text
//! record, exit.json ─┐
//! image's files ─────┤
//! kernel's log ──────┼─ Evidence ─ judge ─ Report
//! container's log ───┘  gathered   pure
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `evidence` | what can be known, gathered |
//! | `program`, `elf` | why the kernel would not execute a file |
//! | `kernel_log` | what the kernel did to processes |
//! | `judge` | which cause the evidence shows |
//! | `complaints` | what programs write when something is amiss |
//! | `rerun` | what a filter refuses, found by a second run: only when asked |
//! | `words` | signals and exit statuses, said |
//!
//! What is sure is told apart from what is likely; where nothing points anywhere, that is said. Starts and changes nothing.

mod complaints;
mod elf;
mod evidence;
mod judge;
mod kernel_log;
mod program;
pub mod rerun;
mod words;

use serde::Serialize;

use super::engine::Engine;
use super::record::Container;
use crate::error::Result;
use crate::support::id::{ContainerId, ContainerName};

/// Why a container is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub id: ContainerId,
    pub name: ContainerName,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What it wrote last, where that may help.
    pub log: Vec<String>,
}

/// What the evidence shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub cause: Cause,
    pub certainty: Certainty,
    /// One sentence.
    pub summary: String,
    pub evidence: Vec<String>,
    /// What can be done.
    pub remedies: Vec<String>,
}

/// The causes, by the words that scripts look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    NeverStarted,
    Runs,
    Paused,
    Success,
    Stopped,
    TimeLimit,
    Abandoned,
    Unhealthy,
    SupervisorLost,
    OutOfMemory,
    Signal,
    Crash,
    Seccomp,
    ProgramMissing,
    NotExecutable,
    InterpreterMissing,
    LoaderMissing,
    WrongArchitecture,
    NotAProgram,
    NoExec,
    Mount,
    Start,
    LibraryMissing,
    PortTaken,
    DiskFull,
    ReadOnly,
    Permission,
    NotPermitted,
    OpenFiles,
    Processes,
    Network,
    OwnFailure,
}

/// How sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    Certain,
    Likely,
    Unknown,
}

/// How many lines of the log are shown.
const LOG_LINES: usize = 10;

/// Finds out about a container.
pub fn why(engine: &Engine, container: &Container) -> Result<Report> {
    let (evidence, log) = evidence::gather(engine, container)?;
    let verdict = judge::judge(&evidence);
    let helps = !matches!(verdict.cause, Cause::NeverStarted | Cause::Runs | Cause::Paused | Cause::Success);
    let log = if helps { log } else { Vec::new() };
    Ok(Report { id: evidence.id, name: evidence.name, verdict, log })
}
