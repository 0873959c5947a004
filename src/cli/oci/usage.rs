//! The grammar around the verbs: flags with one dash, help texts, and what is said about words that are wrong.
//!
//! Callers match some of these texts: Podman asks `restore --lsm-mount-context` whether it "needs an argument".

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command};

use crate::cli::face::Manners;
use crate::error::Error;

/// Gives a verb its name as it was called, and its help the form that runc's has.
pub(super) fn dress(command: Command, program: &str, manners: Manners) -> Command {
    let name = format!("{program} {}", command.get_name());
    let head = format!("NAME:\n   {name} - {{about}}\n\nUSAGE:\n   {{usage}}\n\n{{all-args}}\n");
    dress_in(command, &name, head, manners)
}

/// Does the same for the command above the verbs.
pub(super) fn dress_whole(command: Command, program: &str, manners: Manners) -> Command {
    let head = format!(
        "NAME:\n   {program} - Open Container Initiative runtime\n\nUSAGE:\n   {{usage}}\n\n\
         COMMANDS:\n{{subcommands}}\n\nGLOBAL OPTIONS:\n{{options}}\n"
    );
    dress_in(command, program, head, manners)
}

fn dress_in(command: Command, name: &str, template: String, manners: Manners) -> Command {
    // Of a flag that is given twice, the last counts, as in Go and with getopt.
    let command = command.bin_name(name).args_override_self(true);
    if manners == Manners::Husk { command } else { command.help_template(template) }
}

/// Gives long flags that were written with one dash a second one. Go makes no difference between the two, and go-runc
/// passes `-no-subreaper`.
///
/// Ends at the first word that is no flag, as Go does: what follows is a container's, and may be its workload's.
pub(super) fn two_dashes(command: &Command, words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let mut index = 0;
    while index < words.len() {
        let Some(text) = words[index].to_str() else { break };
        if !text.starts_with('-') || text == "-" || text == "--" {
            break;
        }
        let is_double = text.starts_with("--");
        let name = text.trim_start_matches('-');
        let (name, has_value) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
        let argument = command.get_arguments().find(|argument| {
            argument.get_long() == Some(name) || argument.get_short().is_some_and(|short| name.chars().eq([short]))
        });
        let Some(argument) = argument else {
            index += 1;
            continue;
        };
        let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
        if !is_double && argument.get_long() == Some(name) && name.len() > 1 {
            let mut longer = OsString::from("-");
            longer.push(&words[index]);
            words[index] = longer;
        }
        index += if takes_value && !has_value { 2 } else { 1 };
    }
    words
}

/// Puts an error about words into words that callers know. `None` for one that is best told by the parser.
pub(super) fn explain(error: &clap::Error, command: &Command, program: &str, manners: Manners) -> Option<Error> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    // `--bundle <DIR>` is the flag `--bundle`.
    let flag = context(ContextKind::InvalidArg).and_then(|text| text.split([' ', '=']).next()).unwrap_or_default();
    let is_crun = manners == Manners::Crun;
    let text = match error.kind() {
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_none_or(str::is_empty) => {
            if is_crun {
                format!("option '{flag}' requires an argument")
            } else {
                format!("flag needs an argument: {flag}")
            }
        }
        ErrorKind::UnknownArgument if flag.starts_with('-') => {
            if is_crun {
                format!("unrecognized option '{flag}'")
            } else {
                format!("flag provided but not defined: -{}", flag.trim_start_matches('-'))
            }
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument | ErrorKind::TooManyValues => {
            count(error.kind(), command, program, is_crun)
        }
        _ => return None,
    };
    Some(Error::invalid(text).with_hint(format!("`{program} {} --help` lists what there is", command.get_name())))
}

/// Says how many words a verb wants.
fn count(kind: ErrorKind, command: &Command, program: &str, is_crun: bool) -> String {
    let least = command.get_positionals().filter(|argument| argument.is_required_set()).count();
    let most = command.get_positionals().count();
    let name = command.get_name();
    let is_short = kind == ErrorKind::MissingRequiredArgument;
    let (bound, number) = if is_short { ("minimum", least) } else { ("maximum", most) };
    match (is_crun, least == most) {
        (true, _) => format!("`{name}` requires a {bound} of {number} arguments"),
        (false, true) => format!("{program}: \"{name}\" requires exactly {number} argument(s)"),
        (false, false) => format!("{program}: \"{name}\" requires a {bound} of {number} argument(s)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn command() -> Command {
        Command::new("restore")
            .arg(Arg::new("bundle").long("bundle").short('b'))
            .arg(Arg::new("no-subreaper").long("no-subreaper").action(ArgAction::SetTrue))
            .arg(Arg::new("tty").long("tty").short('t').action(ArgAction::SetTrue))
            .arg(Arg::new("lsm-mount-context").long("lsm-mount-context"))
            .arg(Arg::new("id").required(true))
    }

    #[test]
    fn one_dash_is_as_good_as_two_before_the_container() {
        for (line, expected) in [
            ("-no-subreaper x", "--no-subreaper x"),
            ("-bundle=/b x", "--bundle=/b x"),
            ("-bundle /b -no-subreaper x", "--bundle /b --no-subreaper x"),
            ("-b -tty x", "-b -tty x"),
            ("-t -tty x", "-t --tty x"),
            ("x -tty", "x -tty"),
            ("-- -tty", "-- -tty"),
            ("-unknown -tty x", "-unknown --tty x"),
        ] {
            let words = two_dashes(&command(), line.split(' ').map(OsString::from));
            assert_eq!(words.join(" ".as_ref()), OsString::from(expected), "{line}");
        }
    }

    #[test]
    fn texts_that_callers_match() {
        for (line, manners, expected) in [
            ("restore --lsm-mount-context", Manners::Runc, "flag needs an argument: --lsm-mount-context"),
            ("restore --lsm-mount-context", Manners::Crun, "option '--lsm-mount-context' requires an argument"),
            ("restore --huh x", Manners::Runc, "flag provided but not defined: -huh"),
            ("restore --huh x", Manners::Crun, "unrecognized option '--huh'"),
            ("restore", Manners::Runc, "runc: \"restore\" requires exactly 1 argument(s)"),
            ("restore x y", Manners::Runc, "runc: \"restore\" requires exactly 1 argument(s)"),
            ("restore", Manners::Crun, "`restore` requires a minimum of 1 arguments"),
            ("restore x y", Manners::Crun, "`restore` requires a maximum of 1 arguments"),
        ] {
            let error = command().try_get_matches_from(line.split(' ')).unwrap_err();
            let told = explain(&error, &command(), "runc", manners).map(|error| error.report());
            assert_eq!(told.as_deref(), Some(expected), "{line}: {:?}", error.kind());
        }
    }
}
