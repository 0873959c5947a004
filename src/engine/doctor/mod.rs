//! `doctor`: what this host allows, what each lack costs, and what mends it.
//!
//! ```text
//! trial   does in a child what a container's start does ─┐
//! facts   reads settings, limits, places ────────────────┴─ Facts ─ judge ─ Findings
//! ```
//!
//! What can be tried is tried, and no version is compared: sandboxes, security modules and distributions take away what the
//! kernel has. Changes nothing: what a trial makes goes with its process, but for the roots, which every command makes.

mod facts;
mod judge;
mod trial;

use serde::Serialize;

use super::settings::{self, Caller, Settings};
use crate::error::Result;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub topic: &'static str,
    pub standing: Standing,
    /// What was found, in a few words.
    pub found: String,
    /// What does not work for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<&'static str>,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Without it no container runs.
    #[serde(skip)]
    is_vital: bool,
}

/// How well something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    Ok,
    /// Some of it works, or not as well as it could.
    Limited,
    Missing,
}

/// Looks at everything.
pub fn examine(flags: settings::File) -> Result<Vec<Finding>> {
    let caller = Caller::current();
    let settings = Settings::load(flags, &caller)?;
    Ok(judge::judge(&facts::gather(&settings, &caller)))
}

/// Says whether containers run here.
pub fn runs_containers(findings: &[Finding]) -> bool {
    !findings.iter().any(|finding| finding.is_vital && finding.standing == Standing::Missing)
}
