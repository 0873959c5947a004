//! The formats of a log's lines. Writes them; reading is in [`read`](super::read).

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::Stream;
use crate::support::journal;

/// How a line is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Docker's: `{"log":"line\n","stream":"stdout","time":"2026-11-21T13:45:00.123456789Z"}`. What is not UTF-8 becomes
    /// U+FFFD, as docker has it.
    #[serde(rename = "json-file")]
    Json,
    /// Kubernetes' and podman's: `2026-11-21T13:45:00.123456789+00:00 stdout F line`, with P instead of F for a line that
    /// is cut.
    #[serde(rename = "k8s-file")]
    K8s,
    /// A record of systemd's journal, with docker's fields.
    Journald,
    /// Nothing is kept.
    None,
    /// Nothing is kept: the workload has the streams of the command that starts it.
    Passthrough,
}

impl Format {
    /// Whether the log is files of the container's folder.
    pub fn keeps_files(self) -> bool {
        matches!(self, Self::Json | Self::K8s)
    }

    /// Whether what the workload writes is kept at all.
    pub fn keeps(self) -> bool {
        !matches!(self, Self::None | Self::Passthrough)
    }

    /// Appends the record of a line, or of a part of one where it has no end; with attributes, where it has room for them.
    pub(super) fn write(
        self,
        record: &mut Vec<u8>,
        time: jiff::Timestamp,
        stream: Stream,
        line: &[u8],
        attributes: &[u8],
    ) {
        let stream = stream.name();
        match self {
            Self::Json => {
                record.extend_from_slice(b"{\"log\":");
                // Writing to memory does not fail.
                let _ = serde_json::to_writer(&mut *record, &String::from_utf8_lossy(line));
                let _ = write!(record, ",\"stream\":\"{stream}\"");
                if !attributes.is_empty() {
                    record.extend_from_slice(b",\"attrs\":");
                    record.extend_from_slice(attributes);
                }
                let _ = writeln!(record, ",\"time\":\"{time}\"}}");
            }
            Self::K8s => {
                let (text, kind) = match line.strip_suffix(b"\n") {
                    Some(text) => (text, 'F'),
                    None => (line, 'P'),
                };
                let _ = write!(record, "{} {stream} {kind} ", time.strftime("%Y-%m-%dT%H:%M:%S.%9f+00:00"));
                record.extend_from_slice(text);
                record.push(b'\n');
            }
            Self::Journald => {
                let text = line.strip_suffix(b"\n");
                journal::put_field(record, "MESSAGE", text.unwrap_or(line));
                if text.is_none() {
                    journal::put_field(record, "CONTAINER_PARTIAL_MESSAGE", b"true");
                }
                // Docker's: of an error, and of what is to be known.
                journal::put_field(record, "PRIORITY", if stream == "stderr" { b"3" } else { b"6" });
                record.extend_from_slice(attributes);
            }
            Self::None | Self::Passthrough => {}
        }
    }
}

impl Stream {
    /// Gives its name in logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Errors => "stderr",
        }
    }
}
