//! Which containers a verb of crun's is about: one by its id, or with `--regex` all whose ids an expression matches.

use std::ffi::CString;

use super::Invocation;
use crate::cli::report;
use crate::error::{Error, Result};
use crate::sys::regex::Regex;

/// Does something to the container of that id, or to every one that the expression matches. Then what fails is told, and
/// the others have their turn, as with crun.
pub(super) fn each(invocation: &Invocation, id: &str, is_regex: bool, act: impl Fn(&str) -> Result<()>) -> Result<()> {
    if !is_regex {
        return act(id);
    }
    let wrong = || Error::invalid(format!("invalid regular expression {id}"));
    let expression = CString::new(id)?;
    let regex = Regex::new(&expression).ok_or_else(wrong)?;
    for id in invocation.runtime.root.ids()? {
        if regex.is_match(&CString::new(id.as_str())?)
            && let Err(error) = act(&id)
        {
            report::note(&error.report());
        }
    }
    Ok(())
}
