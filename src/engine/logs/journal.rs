//! The log of a container whose lines are in systemd's journal: read by journalctl, which knows its files, who may read
//! them, and where they are.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use super::{LogsOptions, Watch, is_over};
use crate::engine::engine::Engine;
use crate::engine::record::{Container, Record};
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::Stream;
use crate::monitor::log::read::Entry;
use crate::support::journal::field_name;

/// More than a record has: a part of a line, each byte as a number, and its fields.
const RECORD_BYTES: u64 = 1 << 20;

/// Hands the entries to `show`, and goes on until the container has ended where that is asked for.
pub(super) fn show(
    engine: &Engine,
    container: &Container,
    record: &Record,
    options: LogsOptions,
    show: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let watch = if options.follows { Some(Watch::new([container.directory()])?) } else { None };
    let mut reader = Reader { record, options, cursor: None };
    let mut is_first = true;
    loop {
        // Asked first: what was written before the end is read after.
        let is_over = watch.is_none() || is_over(engine, container)?;
        if is_first || is_over {
            // What the journal has been sent and has not written. Only who may ask for that is heard.
            let _ = journalctl().arg("--sync").stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        reader.read(is_first, show)?;
        is_first = false;
        let is_late = options.until.is_some_and(|until| jiff::Timestamp::now() > until);
        let Some(watch) = watch.as_ref().filter(|_| !is_over && !is_late) else { return Ok(()) };
        watch.wait(options.until)?;
    }
}

struct Reader<'a> {
    record: &'a Record,
    options: LogsOptions,
    /// The place of the last entry that was read.
    cursor: Option<String>,
}

impl Reader<'_> {
    /// Reads what has come since the last time.
    fn read(&mut self, is_first: bool, show: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<()> {
        let mut command = journalctl();
        // Without --all what is longer than 4 KiB is left out.
        command.args(["--output=json", "--all", "--quiet", "--no-pager"]);
        command.arg(format!("CONTAINER_ID_FULL={}", self.record.id));
        let LogsOptions { since, until, tail, follows: _ } = self.options;
        for (name, time) in [("since", since), ("until", until)] {
            if let Some(time) = time {
                command.arg(format!("--{name}=@{}.{:06}", time.as_second(), time.subsec_microsecond()));
            }
        }
        match (&self.cursor, tail) {
            (Some(cursor), _) => drop(command.arg(format!("--after-cursor={cursor}"))),
            // There was none when the rest was left out.
            (None, Some(tail)) if is_first => drop(command.arg(format!("--lines={tail}"))),
            (None, _) => {}
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| {
            let error = Error::from(error).context("run journalctl, which reads the journal");
            error.with_hint(format!("install it, or look for CONTAINER_ID_FULL={}", self.record.id))
        })?;
        let answer = match child.stdout.take() {
            Some(output) => self.take_all(&mut BufReader::new(output), show),
            None => Ok(()),
        };
        if answer.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().context("wait for journalctl")?;
        answer?;
        if !status.success() {
            return Err(Error::new(Kind::Other, format!("journalctl: {status}")));
        }
        Ok(())
    }

    fn take_all(&mut self, output: &mut dyn BufRead, show: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if output.take(RECORD_BYTES).read_until(b'\n', &mut line).context("read what journalctl says")? == 0 {
                return Ok(());
            }
            // The rest of what is too long is no record either.
            let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(&line) else { continue };
            if let Some(Value::String(cursor)) = fields.get("__CURSOR") {
                self.cursor = Some(cursor.clone());
            }
            if let Some(entry) = self.entry(&fields) {
                show(&entry)?;
            }
        }
    }

    /// Makes an entry of a record of the journal's.
    fn entry(&self, fields: &Map<String, Value>) -> Option<Entry> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let microseconds: i64 = text("__REALTIME_TIMESTAMP")?.parse().ok()?;
        let mut bytes = bytes(fields.get("MESSAGE")?)?;
        if text("CONTAINER_PARTIAL_MESSAGE") != Some("true") {
            bytes.push(b'\n');
        }
        let wanted = &self.record.options.log_attributes;
        let names = wanted.labels.iter().chain(&wanted.env);
        let named = names.filter_map(|name| Some((name.clone(), text(&field_name(name)?)?.to_owned())));
        let tag = wanted.tag.as_ref().and_then(|_| Some(("tag".to_owned(), text("CONTAINER_TAG")?.to_owned())));
        Some(Entry {
            time: jiff::Timestamp::from_microsecond(microseconds).ok()?,
            stream: if text("PRIORITY") == Some("3") { Stream::Errors } else { Stream::Output },
            bytes,
            attributes: named.chain(tag).collect(),
        })
    }
}

/// A value: a text, or the numbers of its bytes where it is none.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(numbers) => {
            numbers.iter().map(|number| number.as_u64().and_then(|number| u8::try_from(number).ok())).collect()
        }
        _ => None,
    }
}

fn journalctl() -> Command {
    Command::new("journalctl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_texts_or_bytes() {
        for (json, expected) in [
            (r#""a b""#, Some(&b"a b"[..])),
            ("[97, 255, 10]", Some(b"a\xff\n")),
            ("[256]", None),
            ("[\"a\"]", None),
            ("null", None),
        ] {
            assert_eq!(bytes(&serde_json::from_str(json).unwrap()).as_deref(), expected, "{json}");
        }
    }
}
