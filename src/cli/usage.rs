//! What is said of words that the engine's commands do not know, in docker's and podman's words where scripts look for them.
//! What else clap finds wrong, it tells itself. The runtime's verbs have their own (`oci/usage.rs`).

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Error;

/// Puts an error about words into words that callers know. `None` for one that is best told by the parser.
pub(super) fn explain(error: &clap::Error) -> Option<Error> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let text = match error.kind() {
        ErrorKind::UnknownArgument => {
            let word = context(ContextKind::InvalidArg)?;
            match (word.strip_prefix("--"), word.strip_prefix('-').and_then(|rest| rest.chars().next())) {
                (Some(name), _) => format!("unknown flag: --{name}"),
                (None, Some(letter)) => format!("unknown shorthand flag: '{letter}' in {word}"),
                (None, None) => return None,
            }
        }
        ErrorKind::InvalidSubcommand => {
            format!("unknown command: {}", context(ContextKind::InvalidSubcommand)?)
        }
        _ => return None,
    };
    let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand].into_iter().find_map(|kind| match error
        .get(kind)?
    {
        ContextValue::String(text) => Some(text.as_str()),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    });
    let hint = meant.map_or_else(|| "--help lists what there is".to_owned(), |meant| format!("there is {meant}"));
    Some(Error::invalid(text).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction, Command};

    #[test]
    fn texts_that_scripts_look_for() {
        let command = || {
            let ps = Command::new("ps").arg(Arg::new("all").long("all").short('a').action(ArgAction::SetTrue));
            Command::new("husk").subcommand(ps)
        };
        for (words, expected) in [
            ("ps --frobnicate", Some("unknown flag: --frobnicate")),
            ("ps --frobnicate=1", Some("unknown flag: --frobnicate")),
            ("ps -aY", Some("unknown shorthand flag: 'Y' in -Y")),
            ("frobnicate", Some("unknown command: frobnicate")),
            ("ps word", None),
        ] {
            let error = command().try_get_matches_from(format!("husk {words}").split(' ')).unwrap_err();
            let told = explain(&error).map(|error| error.report());
            assert_eq!(told.as_deref(), expected, "{words}: {error}");
        }
    }
}
