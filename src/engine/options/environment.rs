//! The environment that is asked for: `-e`, `--env-file` and podman's further ways to change what the image says.

use std::fmt;
use std::str::FromStr;

use super::sparse;
use crate::error::{Context, Error, Result};
use crate::support::text::serialise_as_text;

sparse! {
    /// How the environment differs from the image's. Later fields win, as they do in podman.
    pub struct EnvironmentOptions {
        /// `--unsetenv-all`: nothing of the image's.
        pub unsets_all: bool,
        /// `--unsetenv`: names of the image's and of the defaults.
        pub unset: Vec<String>,
        /// `--http-proxy=false`: the caller's proxies are not passed on.
        pub lacks_proxies: bool,
        /// `--env-host`: all of the caller's.
        pub takes_callers: bool,
        /// What `--env-file` holds, then `-e`, in order.
        pub entries: Vec<EnvironmentEntry>,
        /// `--env-merge`: values in which `$NAME` and `${NAME}` are the image's.
        pub merged: Vec<EnvironmentEntry>,
    }
}

/// `-e`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvironmentEntry {
    /// `-e NAME=value`
    Set { name: String, value: String },
    /// `-e NAME`: the caller's value, and none at all where the caller has none.
    Pass { name: String },
}

impl FromStr for EnvironmentEntry {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(Error::invalid(format!("environment {text:?}: no name before the =")));
        }
        if text.contains('\0') {
            return Err(Error::invalid(format!("environment {text:?}: holds a NUL")));
        }
        let name = name.to_owned();
        Ok(match value {
            Some(value) => Self::Set { name, value: value.to_owned() },
            // Docker's client and podman differ on `-e 'A*'`: one takes it for a name, one for a pattern of the caller's
            // variables (CVE-2026-57231). Here it is a name that nobody has.
            None => Self::Pass { name },
        })
    }
}

impl fmt::Display for EnvironmentEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { name, value } => write!(f, "{name}={value}"),
            Self::Pass { name } => f.write_str(name),
        }
    }
}

serialise_as_text!(EnvironmentEntry);

/// Reads an environment file as docker does: an entry a line, `#` at its beginning for a comment, values as they stand.
pub fn parse_file(bytes: &[u8]) -> Result<Vec<EnvironmentEntry>> {
    parse_lines(bytes, |line| {
        let name = line.split('=').next().unwrap_or_default();
        if name.contains([' ', '\t']) {
            return Err(Error::invalid(format!("the name {name:?} contains spaces")));
        }
        line.parse()
    })
}

/// Reads a label file: `NAME[=VALUE]` a line.
pub fn parse_label_file(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    parse_lines(bytes, super::parse_pair)
}

fn parse_lines<T>(bytes: &[u8], parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    let text = str::from_utf8(bytes).map_err(|_| Error::invalid("not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if !line.is_empty() && !line.starts_with('#') {
            entries.push(parse(line).with_context(|| format!("line {}", index + 1))?);
        }
    }
    Ok(entries)
}

/// Replaces `$NAME` and `${NAME}`; what `value` does not know is empty, as for the shell.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, remainder) =
            braced.unwrap_or_else(|| after.split_at(after.find(|letter| !is_part(letter)).unwrap_or(after.len())));
        if name.is_empty() && remainder.len() == after.len() {
            result.push('$');
        }
        result.push_str(&value(name).unwrap_or_default());
        rest = remainder;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_set_or_pass() {
        let set = |name: &str, value: &str| EnvironmentEntry::Set { name: name.into(), value: value.into() };
        for (text, entry) in [
            ("A=1", set("A", "1")),
            ("A=", set("A", "")),
            ("A=b=c", set("A", "b=c")),
            ("A", EnvironmentEntry::Pass { name: "A".into() }),
        ] {
            assert_eq!(text.parse::<EnvironmentEntry>().unwrap(), entry);
        }
        for text in ["", "=x", "=", "A=\0", "A\0"] {
            assert!(text.parse::<EnvironmentEntry>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn files_have_an_entry_a_line() {
        let text = "\u{feff}A=1\n\n# comment\n  B= two words # no comment\r\nPASSED\nQUOTED=\"x\"\n";
        let found: Vec<String> = parse_file(text.as_bytes()).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["A=1", "B= two words # no comment", "PASSED", "QUOTED=\"x\""]);
        for (text, report) in [
            ("A=1\nB C=2", "line 2: the name \"B C\" contains spaces"),
            ("=x", "line 1: environment \"=x\": no name before the ="),
        ] {
            assert_eq!(parse_file(text.as_bytes()).unwrap_err().report(), report);
        }
        assert!(parse_file(b"A=\xff").is_err());
    }

    #[test]
    fn variables_are_expanded() {
        let value = |name: &str| (name == "PATH").then(|| "/bin".to_owned());
        for (text, expected) in [
            ("$PATH:/x", "/bin:/x"),
            ("/x:${PATH}/y", "/x:/bin/y"),
            ("${PATH", "${PATH"),
            ("$NONE-", "-"),
            ("cost: $", "cost: $"),
            ("$-", "$-"),
            ("ä$PATHä", "ä/binä"),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }
}
