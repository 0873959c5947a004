//! Switches as docker's and podman's command lines have them: `--rm`, and also `--rm=true` and `--rm=0`.

use clap::{ArgAction, Command};

use crate::error::{Error, Result};

/// Lets every switch of a command take a value, and the last one of a repeated flag win.
pub(super) fn accept_values(command: Command) -> Command {
    command.args_override_self(true).mut_args(|arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        let arg = arg.action(ArgAction::Set).num_args(0..=1).require_equals(true).default_missing_value("true");
        arg.default_value("false").hide_default_value(true).value_name("BOOL").value_parser(parse)
    })
}

/// Reads what Go's `strconv.ParseBool` takes.
fn parse(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("{text:?} is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches, Parser};

    #[derive(Debug, Parser)]
    struct Words {
        #[arg(long, short)]
        interactive: bool,
        #[arg(long, short)]
        tty: bool,
        #[arg(long, short)]
        user: Option<String>,
        #[arg(long)]
        many: Vec<String>,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    }

    fn read(words: &str) -> Result<Words, clap::Error> {
        let command = accept_values(Words::augment_args(Command::new("words")));
        let matches = command.try_get_matches_from(format!("words {words}").split(' '))?;
        Words::from_arg_matches(&matches)
    }

    #[test]
    fn switches_stand_alone_together_and_with_a_value() {
        for (words, interactive, tty, user, rest) in [
            ("x", false, false, None, "x"),
            ("-it x", true, true, None, "x"),
            ("-ti -i x -y", true, true, None, "x -y"),
            ("-itu me x", true, true, Some("me"), "x"),
            ("--tty=false --interactive=1 x", true, false, None, "x"),
            ("--tty --tty=F x", false, false, None, "x"),
            ("--tty true x", false, true, None, "true x"),
            ("-u a -u b x", false, false, Some("b"), "x"),
        ] {
            let found = read(words).unwrap_or_else(|error| panic!("{words}: {error}"));
            assert_eq!((found.interactive, found.tty, found.user.as_deref()), (interactive, tty, user), "{words}");
            assert_eq!(found.rest.join(" "), rest, "{words}");
        }
        assert_eq!(read("--many a --many b x").unwrap().many, ["a", "b"]);
        assert!(read("--tty=perhaps x").is_err());
    }
}
