//! How an error is told: one line, its hint on a line of its own; for callers of a runtime also one record in the log.
//!
//! Who calls a peer by its name reads its standard error as one line, so under such a name a hint is for people alone:
//! it is told where standard error is a terminal.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::face::Manners;
use crate::error::{Context, Error, Kind, Result};
use crate::support::journal::{self, Journal};
use crate::support::log;

/// Where syslog takes them (RFC 3164).
const SYSLOG_SOCKET: &str = "/dev/log";

/// Where the runtime's callers want errors, beside standard error.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// `--log`.
    pub(super) destination: Destination,
    /// `--log-format json`.
    pub(super) is_json: bool,
    /// In whose words standard error speaks.
    pub(super) manners: Manners,
}

/// What `--log` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// Nothing but standard error.
    Stderr,
    /// A file.
    File(PathBuf),
    /// systemd's journal, under this name.
    Journal(String),
    /// syslog, under this name.
    Syslog(String),
}

impl Destination {
    /// Parses `PATH`, as runc has it, and crun's `file:PATH`, `journald:NAME` and `syslog:NAME`.
    pub(super) fn parse(words: &Path) -> Self {
        let named = |kind: &str| words.to_str().and_then(|text| text.strip_prefix(kind));
        match (named("file:"), named("journald:"), named("syslog:")) {
            _ if words.as_os_str().is_empty() => Self::Stderr,
            (Some(path), ..) => Self::File(path.into()),
            (_, Some(name), _) => Self::Journal(name.to_owned()),
            (.., Some(name)) => Self::Syslog(name.to_owned()),
            _ => Self::File(words.to_owned()),
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Debug => "debug",
        }
    }

    /// As syslog(3) numbers it.
    fn severity(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Debug => 7,
        }
    }
}

impl Log {
    /// Tells nobody but standard error, in husk's words.
    pub(super) fn to_stderr() -> Self {
        Self { destination: Destination::Stderr, is_json: false, manners: Manners::Husk }
    }

    /// Makes sure that there will be a log to write to, before anything is done that would have to be told in it.
    pub(super) fn check(&self) -> Result<()> {
        match &self.destination {
            Destination::File(path) => open(path).map(drop).with_context(|| format!("open {}", path.display())),
            _ => Ok(()),
        }
    }

    /// Lets records for debugging through.
    pub(super) fn enable_debug(&self) {
        let log = self.clone();
        log::enable(Box::new(move |text| log.tell(Level::Debug, text)));
    }

    /// Tells of a failure: one record with level `error` in the log, and the plain text on standard error.
    ///
    /// Podman reads the whole log as one JSON object, so there is never a second record.
    pub(super) fn error(&self, error: &Error) {
        let text = error.report();
        if self.is_told_plainly(error) {
            to_stderr_raw(&format!("{}\n", without_name_of_number(&text)));
        } else {
            self.tell(Level::Error, &text);
        }
        if self.destination != Destination::Stderr {
            to_stderr(&text);
        }
        if let Some(hint) = error.hint()
            && (self.manners == Manners::Husk || std::io::stderr().is_terminal())
        {
            to_stderr_raw(&format!("hint: {hint}\n"));
        }
    }

    /// What execve(2) answers is told by runc's init, when runc's logger is out of its reach.
    fn is_told_plainly(&self, error: &Error) -> bool {
        self.manners == Manners::Runc
            && self.destination == Destination::Stderr
            && !self.is_json
            && error.kind() == Kind::NotExecutable
    }

    /// Tells of what did not stop the command.
    ///
    /// With a log it goes there alone: a runtime's standard error is the container's. And only once the command has
    /// succeeded, since callers want the error to be the one record there is.
    pub(super) fn warnings(&self, texts: &[String]) {
        for text in texts {
            if self.destination == Destination::Stderr && !self.is_json {
                note(&format!("warning: {text}"));
            } else {
                self.tell(Level::Warning, text);
            }
        }
    }

    /// Writes one record. The log is for the error, and an error about the log would hide it.
    fn tell(&self, level: Level, text: &str) {
        match &self.destination {
            Destination::Stderr if !self.is_json && level == Level::Error && self.manners != Manners::Runc => {
                to_stderr(text);
            }
            Destination::Stderr => to_stderr_raw(&self.record(level, text)),
            Destination::File(path) => {
                if let Ok(mut file) = open(path) {
                    let _ = file.write_all(self.record(level, text).as_bytes());
                }
            }
            Destination::Journal(name) => {
                let severity = level.severity().to_string();
                let fields = [("MESSAGE", text), ("PRIORITY", &severity), ("SYSLOG_IDENTIFIER", name)];
                let mut record = Vec::new();
                for (name, value) in fields {
                    journal::put_field(&mut record, name, value.as_bytes());
                }
                let _ = Journal::connect().and_then(|journal| journal.send(&record));
            }
            Destination::Syslog(name) => {
                // Facility 3: a daemon.
                let record = format!("<{}>{name}[{}]: {text}", 3 * 8 + level.severity(), std::process::id());
                if let Ok(ours) = UnixDatagram::unbound() {
                    let _ = ours.send_to(record.as_bytes(), SYSLOG_SOCKET);
                }
            }
        }
    }

    fn record(&self, level: Level, text: &str) -> String {
        let (time, level) = (jiff::Timestamp::now(), level.name());
        if self.is_json {
            let record = serde_json::json!({ "level": level, "msg": text, "time": format!("{time:.0}") });
            format!("{record}\n")
        } else {
            format!("time=\"{time:.0}\" level={level} msg={}\n", quoted(text))
        }
    }
}

/// Leaves out the name of the error number, which stands at the end in husk's words and not in runc's.
fn without_name_of_number(text: &str) -> &str {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    match text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) {
        Some((words, name)) if is_name(name) => words,
        _ => text,
    }
}

/// Quotes what would not be one word, as logrus does.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._/@^+".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { format!("{text:?}") }
}

fn open(path: &Path) -> std::io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).mode(0o644).open(path)
}

/// Tells of a failure of the engine.
pub(super) fn engine_error(error: &Error) {
    Log::to_stderr().error(error);
}

fn to_stderr(text: &str) {
    to_stderr_raw(&format!("husk: {text}\n"));
}

fn to_stderr_raw(text: &str) {
    // Nobody is left to be told when standard error is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Tells the user something that did not stop the command.
pub(super) fn note(line: &str) {
    to_stderr_raw(&format!("husk: {line}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for (words, destination) in [
            ("", Destination::Stderr),
            ("log.json", Destination::File("log.json".into())),
            ("file:log", Destination::File("log".into())),
            ("journald:web", Destination::Journal("web".into())),
            ("syslog:web", Destination::Syslog("web".into())),
        ] {
            assert_eq!(Destination::parse(Path::new(words)), destination, "{words}");
        }
    }

    #[test]
    fn the_name_of_the_number_is_left_out() {
        for (text, words) in [
            ("exec /x: no such file or directory (ENOENT)", "exec /x: no such file or directory"),
            ("exec /x (y)", "exec /x (y)"),
            ("exec /x: E2BIG)", "exec /x: E2BIG)"),
        ] {
            assert_eq!(without_name_of_number(text), words);
        }
    }

    #[test]
    fn records_are_logruss() {
        let mut log = Log::to_stderr();
        let text = log.record(Level::Debug, "two words");
        assert!(text.starts_with("time=\"20") && text.ends_with("Z\" level=debug msg=\"two words\"\n"), "{text}");
        assert!(log.record(Level::Error, "EOF").ends_with(" level=error msg=EOF\n"));
        log.is_json = true;
        let text = log.record(Level::Error, "a \"b\"");
        assert!(
            text.starts_with(r#"{"level":"error","msg":"a \"b\"","time":"20"#) && text.ends_with("Z\"}\n"),
            "{text}"
        );
    }
}
