//! How an error is told: one line, its hint on a line of its own; for callers of a runtime also one record in the log.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Where the runtime's callers want errors, beside standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// `--log`.
    pub(super) file: Option<PathBuf>,
    /// `--log-format json`.
    pub(super) is_json: bool,
}

impl Log {
    /// Tells of a failure: one record with level `error` in the log, and the plain text on standard error.
    ///
    /// Podman reads the whole log as one JSON object, so there is never a second record.
    pub(super) fn error(&self, error: &Error) {
        let text = error.report();
        match &self.file {
            Some(file) => {
                self.write(file, "error", &text);
                to_stderr(&text);
            }
            None if self.is_json => to_stderr_raw(&self.record("error", &text)),
            None => to_stderr(&text),
        }
        if let Some(hint) = error.hint() {
            to_stderr_raw(&format!("hint: {hint}\n"));
        }
    }

    /// Tells of what did not stop the command.
    ///
    /// With a log it goes there alone: a runtime's standard error is the container's. And only once the command has
    /// succeeded, since callers want the error to be the one record there is.
    pub(super) fn warnings(&self, texts: &[String]) {
        for text in texts {
            match &self.file {
                Some(file) => self.write(file, "warning", text),
                None if self.is_json => to_stderr_raw(&self.record("warning", text)),
                None => note(&format!("warning: {text}")),
            }
        }
    }

    fn write(&self, file: &Path, level: &str, text: &str) {
        let record = self.record(level, text);
        // The log is for the error, and an error about the log would hide it.
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).mode(0o644).open(file) {
            let _ = file.write_all(record.as_bytes());
        }
    }

    fn record(&self, level: &str, text: &str) -> String {
        let time = jiff::Timestamp::now();
        if self.is_json {
            let record = serde_json::json!({ "level": level, "msg": text, "time": format!("{time:.0}") });
            format!("{record}\n")
        } else {
            format!("time=\"{time:.0}\" level={level} msg={text:?}\n")
        }
    }
}

/// Tells of a failure of the engine.
pub(super) fn engine_error(error: &Error) {
    Log::default().error(error);
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
