//! `husk internal complete`: what may stand where the cursor is, for the shells' completions (`husk completion`).
//!
//! The words before the cursor are read as the parser would read them, by the commands' own definitions; what a value is
//! called there (`CONTAINER`, `IMAGE` …) says what is offered for it. So a new command or flag needs nothing here. The shells'
//! scripts hold no list of anything, and are in `completions/`.
//!
//! The answer is a line `names`, or `files` where files of the machine are meant unless a line follows; then a candidate a line,
//! with a help behind a tab. What goes wrong is no answer: nobody wants an error while typing.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, Parser, ValueEnum};

use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::networks::Networks;
use crate::engine::secrets::Secrets;
use crate::engine::settings;
use crate::engine::volumes::Volumes;
use crate::error::Result;
use crate::image::reference::Reference;

/// Tell what may stand at the end of a command line
#[derive(Debug, Parser)]
pub(super) struct Complete {
    /// Whether the words are one text, up to the cursor (bash), or parted
    #[arg(value_enum)]
    form: Form,
    /// What was typed; parted words begin behind the program's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Line,
    Words,
}

/// Print what a shell needs to complete husk's words
#[derive(Debug, Parser)]
pub(super) struct Completion {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell that completions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// Gives all, with the names under which they look for the script.
    pub(super) const ALL: [(Self, &'static str); 3] =
        [(Self::Bash, "husk.bash"), (Self::Zsh, "_husk"), (Self::Fish, "husk.fish")];

    /// Gives the script.
    pub(super) fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("completions/husk.bash"),
            Self::Zsh => include_str!("completions/_husk"),
            Self::Fish => include_str!("completions/husk.fish"),
        }
    }
}

/// Runs `completion`.
pub(super) fn completion(args: &Completion) -> Result<Status> {
    printer::print(args.shell.script())?;
    Ok(Status::Success)
}

/// Runs `internal complete`.
pub(super) fn run(args: &Complete, command: &Command) -> Result<Status> {
    let Complete { form, words } = args;
    let words = match form {
        Form::Line => split(&words.join(" ")),
        Form::Words => words.clone(),
    };
    let current = words.last().map_or("", String::as_str);
    let Answer { files, mut candidates } = complete(command, &words, &names);
    candidates.retain(|(text, _)| text.starts_with(current));
    candidates.sort();
    candidates.dedup_by(|one, other| one.0 == other.0);
    // bash parts words at these, too, and puts in what follows the last.
    let replaced = if *form == Form::Line { current.rfind([':', '=']).map_or(0, |at| at + 1) } else { 0 };
    let mut text = if files { "files\n" } else { "names\n" }.to_owned();
    for (candidate, help) in candidates {
        let _ = writeln!(text, "{}\t{}", &candidate[replaced..], help.lines().next().unwrap_or_default());
    }
    printer::print(&text)?;
    Ok(Status::Success)
}

/// What may stand somewhere.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    files: bool,
    candidates: Vec<(String, String)>,
}

/// What names are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Volume,
    Network,
    Secret,
}

/// Says what may stand in the place of the last word.
fn complete(root: &Command, words: &[String], names: &dyn Fn(Kind) -> Vec<String>) -> Answer {
    let Some((current, before)) = words.split_last() else { return Answer::default() };
    let (mut command, mut positional, mut flags_end, mut expecting) = (root, 0, false, None);
    for word in before {
        if expecting.take().is_some() {
        } else if flags_end || !word.starts_with('-') || word == "-" {
            if positional == 0
                && let Some(below) = command.find_subcommand(word)
            {
                command = below;
                continue;
            }
            flags_end = flags_end || is_last(command, positional);
            positional += 1;
        } else if word == "--" {
            flags_end = true;
        } else {
            expecting = flag(command, word).filter(|(_, has_value)| !has_value).map(|(arg, _)| arg);
        }
    }
    if let Some(arg) = expecting {
        return values(arg, "", names);
    }
    if !flags_end && current.starts_with('-') {
        return match current.split_once('=') {
            Some((name, _)) => match flag(command, name) {
                Some((arg, _)) => values(arg, &format!("{name}="), names),
                None => Answer::default(),
            },
            None => Answer { files: false, candidates: flags(command) },
        };
    }
    let mut answer = match nth(command, positional) {
        Some(arg) => values(arg, "", names),
        None => Answer::default(),
    };
    if positional == 0 {
        let below = command.get_subcommands().filter(|below| !below.is_hide_set());
        answer.candidates.extend(below.map(|below| (below.get_name().to_owned(), about(below.get_about()))));
    }
    answer
}

/// Gives the argument that stands at a place: the last one takes all that follow, if it takes several.
fn nth(command: &Command, place: usize) -> Option<&Arg> {
    let positionals: Vec<&Arg> = command.get_positionals().collect();
    positionals.get(place).or_else(|| positionals.last().filter(|last| is_repeated(last))).copied()
}

/// Says whether all that follows a place is somebody else's command.
fn is_last(command: &Command, place: usize) -> bool {
    let trails = |arg: &Arg| arg.is_trailing_var_arg_set();
    nth(command, place).is_some_and(trails) || nth(command, place + 1).is_some_and(trails)
}

fn is_repeated(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append) || arg.get_num_args().is_some_and(|number| number.max_values() > 1)
}

/// Finds the last flag that a word names which takes a value, and says whether the word has that value.
fn flag<'c>(command: &'c Command, word: &str) -> Option<(&'c Arg, bool)> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let arg = command.get_opts().find(|arg| {
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        })?;
        return wants_value(arg).then_some((arg, value.is_some()));
    }
    let mut letters = word.trim_start_matches('-').char_indices();
    letters.find_map(|(at, letter)| {
        let arg = command.get_opts().find(|arg| arg.get_short() == Some(letter)).filter(|arg| wants_value(arg))?;
        Some((arg, at + letter.len_utf8() < word.len() - 1))
    })
}

/// A switch may have one behind `=`, which is no word of its own.
fn wants_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set());
    shown.filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help())))).collect()
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// Says what an argument's value may be, by what it is called.
fn values(arg: &Arg, prefix: &str, names: &dyn Fn(Kind) -> Vec<String>) -> Answer {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let shown = possible.iter().filter(|value| !value.is_hide_set());
        let candidates = shown.map(|value| (format!("{prefix}{}", value.get_name()), about(value.get_help())));
        return Answer { files: false, candidates: candidates.collect() };
    }
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let offer = |kinds: &[Kind], suffix: &str, files: bool| {
        let all = kinds.iter().flat_map(|kind| names(*kind));
        let candidates = all.map(|name| (format!("{prefix}{name}{suffix}"), String::new()));
        Answer { files, candidates: candidates.collect() }
    };
    match name.split(['[', ',']).next().unwrap_or_default() {
        "CONTAINER" => offer(&[Kind::Container], "", false),
        "CONTAINER|IMAGE" => offer(&[Kind::Container, Kind::Image], "", false),
        "IMAGE" => offer(&[Kind::Image], "", true),
        "VOLUME" => offer(&[Kind::Volume], "", false),
        "NETWORK" => offer(&[Kind::Network], "", false),
        "SECRET" => offer(&[Kind::Secret], "", false),
        "FILE" | "DIR" | "PATH" | "SOCKET" | "SOURCE" | "DESTINATION" | "COMMAND" | "HOST" => offer(&[], "", true),
        "" if name.starts_with("[CONTAINER:]") => offer(&[Kind::Container], ":", true),
        "" if name.starts_with("[SOURCE:]") => offer(&[Kind::Volume], ":", true),
        _ => Answer::default(),
    }
}

/// Gives the names of the caller's things.
fn names(kind: Kind) -> Vec<String> {
    let find = || {
        let engine = Engine::open(settings::File::default())?;
        match kind {
            Kind::Container => engine.containers()?.names(),
            Kind::Image => {
                let mut names = Vec::new();
                for view in engine.stores()?.views() {
                    let references = view.names()?.into_iter().map(|record| Reference::parse(&record.name));
                    names.extend(references.flatten().map(|reference| reference.familiar()));
                }
                Ok(names)
            }
            Kind::Volume => Ok(Volumes::of(&engine).list()?.into_iter().map(|record| record.name).collect()),
            // Those that are there: typing makes none.
            Kind::Network => {
                let made = Networks::of(&engine).recorded()?.into_iter().map(|record| record.name);
                Ok(made.chain(["bridge", "host", "none"].map(str::to_owned)).collect())
            }
            Kind::Secret => Ok(Secrets::of(&engine).list()?.into_iter().map(|secret| secret.name).collect()),
        }
    };
    let found: Result<Vec<String>> = find();
    found.unwrap_or_default()
}

/// Parts a line as a shell would, as far as names need it: blanks, quotes, backslashes. The first word is the program.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut letters) = (Vec::new(), String::new(), None, line.chars());
    let mut is_started = false;
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.extend(letters.next()),
            (letter, Some(open)) if letter == open => quote = None,
            ('\'' | '"', None) => quote = Some(letter),
            (letter, None) if letter.is_whitespace() => {
                if is_started {
                    words.push(std::mem::take(&mut word));
                }
                is_started = false;
                continue;
            }
            _ => word.push(letter),
        }
        is_started = true;
    }
    words.push(word);
    words.drain(..1.min(words.len()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_say_what_is_offered() {
        let root = super::super::engine::command();
        let names = |kind: Kind| match kind {
            Kind::Container => vec!["web".to_owned(), "db".to_owned()],
            Kind::Image => vec!["alpine:3".to_owned()],
            Kind::Volume => vec!["data".to_owned()],
            Kind::Network => vec!["front".to_owned()],
            Kind::Secret => vec!["token".to_owned()],
        };
        for (line, has, lacks, files) in [
            ("husk st", "start", "web", false),
            ("husk start ", "web", "start", false),
            ("husk start -a web ", "db", "start", false),
            ("husk container rm ", "web", "alpine:3", false),
            ("husk run --name x -it ", "alpine:3", "web", true),
            ("husk run --rm alpine:3 ", "", "alpine:3", true),
            ("husk run alpine:3 sh --n", "", "--name", true),
            ("husk run --n", "--name", "alpine:3", false),
            ("husk run --secret ", "token", "alpine:3", false),
            ("husk run --volumes-from=", "--volumes-from=web", "web", false),
            ("husk run -v ", "data:", "web", true),
            ("husk run --pull always ", "alpine:3", "web", true),
            ("husk exec -it ", "web", "exec", false),
            ("husk exec web ", "", "db", true),
            ("husk volume rm ", "data", "web", false),
            ("husk volume ", "rename", "web", false),
            ("husk network rm ", "front", "web", false),
            ("husk network connect front ", "web", "front", false),
            ("husk run --network ", "front", "web", false),
            ("husk inspect ", "alpine:3", "token", false),
            ("husk inspect ", "web", "token", false),
            ("husk cp ", "web:", "web", true),
            ("husk completion ", "bash", "web", false),
            ("husk logs \"we", "web", "alpine:3", false),
        ] {
            let Answer { files: found, candidates } = complete(&root, &split(line), &names);
            let offered = |text: &str| candidates.iter().any(|(candidate, _)| candidate == text);
            assert!(has.is_empty() || offered(has), "{line}: {candidates:?}");
            assert!(!offered(lacks), "{line}: {candidates:?}");
            assert_eq!(found, files, "{line}");
        }
    }

    #[test]
    fn lines_are_parted_as_by_a_shell() {
        for (line, words) in [
            ("husk", &[""][..]),
            ("husk ", &[""]),
            ("husk a  b", &["a", "b"]),
            ("husk 'a b' \"c\\\"d\" e\\ f ", &["a b", "c\"d", "e f", ""]),
        ] {
            assert_eq!(split(line), if line == "husk" { &[][..] } else { words }, "{line}");
        }
    }
}
