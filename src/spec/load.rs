//! Reads config.json and its parts as they come from a file or a caller. Judges types and names, not values.
//!
//! A good document is read in one pass. Only when that fails is the text read again as plain JSON, to bring it from
//! what Go's reader accepts (and every caller of runc relies on) to what the types of `oci-spec` accept, and to say
//! where in the document the trouble is.
//!
//! Properties that nobody knows are ignored, as the specification asks. Properties that it defines and our types lack
//! are refused by name: ignoring those would run a container without what was asked for.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Capability, LinuxResources, Process, Spec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::locate;
use crate::error::{Context, Error, Kind, Result};

/// The name of the configuration in a bundle.
pub const CONFIG_FILE: &str = "config.json";

/// The largest document that is read. The largest real ones, with a seccomp rule per system call, have 200 KiB.
const SIZE_LIMIT: usize = 16 << 20;

/// What the runtime specification 1.3 defines and the types of `oci-spec` 0.10 silently drop: the key as it stands in
/// a document, and the path.
///
/// (`enableCMT` and `enableMBM` are there under names that serde spells differently from the specification.)
const UNTYPED: &[(&str, &str)] = &[
    ("\"freebsd\"", "freebsd"),
    ("\"hwConfig\"", "vm.hwConfig"),
    ("\"enableCMT\"", "linux.intelRdt.enableCMT"),
    ("\"enableMBM\"", "linux.intelRdt.enableMBM"),
];

/// A part of a configuration, and what a user should hear about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document<T> {
    pub value: T,
    pub warnings: Vec<String>,
}

/// Reads the configuration of a bundle.
pub fn load(bundle: &Path) -> Result<Document<Spec>> {
    let bytes = read(&bundle.join(CONFIG_FILE), CONFIG_FILE.as_ref())?;
    parse(CONFIG_FILE, &bytes)
}

/// Reads a configuration that is not in its bundle, or has another name there.
pub fn load_file(file: &Path) -> Result<Document<Spec>> {
    let bytes = read(file, file)?;
    parse(&file.file_name().unwrap_or(file.as_os_str()).to_string_lossy(), &bytes)
}

/// Reads a whole configuration; `name` is what messages call it.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Document<Spec>> {
    let text = utf8(name, bytes)?;
    let (mut document, repaired) = read_as::<Spec>(name, text, repair_spec)?;
    let text = repaired.as_deref().unwrap_or(text);
    refuse_untyped(name, text)?;
    if let Some(resources) = document.value.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()) {
        drop_absent_pids_limit(resources, text, "linux.resources.pids.limit");
    }
    Ok(document)
}

/// Reads the process of `exec --process`.
pub fn parse_process(name: &str, bytes: &[u8]) -> Result<Document<Process>> {
    Ok(read_as(name, utf8(name, bytes)?, repair_process)?.0)
}

/// Reads the resources of `update --resources`.
pub fn parse_resources(name: &str, bytes: &[u8]) -> Result<Document<LinuxResources>> {
    let text = utf8(name, bytes)?;
    let (mut document, repaired) = read_as::<LinuxResources>(name, text, |_, _| ())?;
    drop_absent_pids_limit(&mut document.value, repaired.as_deref().unwrap_or(text), "pids.limit");
    Ok(document)
}

/// Reads a file that must exist; `shown` is what a missing one is called.
fn read(file: &Path, shown: &Path) -> Result<Vec<u8>> {
    // NONBLOCK: a FIFO is refused below instead of waited for here.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match rustix::fs::open(file, flags, Mode::empty()) {
        // The words are runc's: callers look for them.
        Err(Errno::NOENT) => {
            let message = format!("JSON specification file {} not found", shown.display());
            return Err(Error::new(Kind::NotFound, message));
        }
        answer => answer.with_context(|| format!("open {}", file.display()))?,
    };
    read_whole(&fd).with_context(|| format!("read {}", file.display()))
}

/// Reads a regular file whole: one `fstat` and one `read`.
fn read_whole(fd: &OwnedFd) -> Result<Vec<u8>> {
    let stat = rustix::fs::fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::invalid("not a regular file"));
    }
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if size > SIZE_LIMIT {
        return Err(Error::invalid(format!("larger than {SIZE_LIMIT} bytes")));
    }
    let mut bytes = vec![0; size];
    let mut length = 0;
    while length < size {
        match rustix::io::read(fd, &mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn utf8<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = locate::line_and_column(bytes, error.valid_up_to());
        Error::invalid(format!("{name}: not UTF-8 at line {line} column {column}"))
    })
}

/// Reads a text as a type, in one pass if it can; gives the text that was read instead, if it had to be repaired.
fn read_as<T: DeserializeOwned>(
    name: &str,
    text: &str,
    repair: fn(&mut Value, &mut Vec<String>),
) -> Result<(Document<T>, Option<String>)> {
    match serde_json::from_str(text) {
        Ok(value) => Ok((Document { value, warnings: Vec::new() }, None)),
        Err(error) => read_repaired(name, text, &error, repair),
    }
}

#[cold]
fn read_repaired<T: DeserializeOwned>(
    name: &str,
    text: &str,
    error: &serde_json::Error,
    repair: fn(&mut Value, &mut Vec<String>),
) -> Result<(Document<T>, Option<String>)> {
    let Ok(mut document) = serde_json::from_str::<Value>(text) else {
        let offset = locate::offset_of(text.as_bytes(), error.line(), error.column());
        return Err(trouble(name, text, error, &locate::path_at(text.as_bytes(), offset), offset.saturating_sub(1)));
    };
    let mut warnings = Vec::new();
    strip_nulls(&mut document);
    repair(&mut document, &mut warnings);
    let repaired = document.to_string();
    match serde_json::from_str(&repaired) {
        Ok(value) => Ok((Document { value, warnings }, Some(repaired))),
        Err(error) => {
            // The repaired text is one line of another layout: the path leads back to the place in the original.
            let path = locate::path_at(repaired.as_bytes(), error.column());
            let offset = locate::start_of(text.as_bytes(), &path).unwrap_or_default();
            Err(trouble(name, text, &error, &path, offset))
        }
    }
}

/// Says what is wrong, in which field, and where that stands in the file.
fn trouble(name: &str, text: &str, error: &serde_json::Error, path: &str, offset: usize) -> Error {
    let whole = error.to_string();
    let suffix = format!(" at line {} column {}", error.line(), error.column());
    let what = whole.strip_suffix(&suffix).unwrap_or(&whole);
    let (line, column) = locate::line_and_column(text.as_bytes(), offset);
    let field = if path.is_empty() { String::new() } else { format!("{path}: ") };
    Error::invalid(format!("{name}: {field}{what} at line {line} column {column}"))
}

/// Removes every property that is null: to Go's reader that is the same as an absent one.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(properties) => {
            properties.retain(|_, value| !value.is_null());
            properties.values_mut().for_each(strip_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn repair_spec(spec: &mut Value, warnings: &mut Vec<String>) {
    if let Some(process) = spec.get_mut("process") {
        repair_process(process, warnings);
    }
}

/// Adds what a process may leave out, and drops capabilities that nobody knows, with a warning, as runc does.
fn repair_process(process: &mut Value, warnings: &mut Vec<String>) {
    let Some(process) = process.as_object_mut() else { return };
    process.entry("user").or_insert_with(|| Value::Object(serde_json::Map::new()));
    // Absent is empty, and validation says so in words that callers know.
    process.entry("cwd").or_insert_with(|| Value::String(String::new()));
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else { return };
    let mut unknown = Vec::new();
    for set in sets.values_mut().filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let is_known = !name.is_string() || Capability::deserialize(name).is_ok();
            if let (false, Some(name)) = (is_known, name.as_str())
                && !unknown.iter().any(|known| known == name)
            {
                unknown.push(name.to_owned());
            }
            is_known
        });
    }
    if !unknown.is_empty() {
        warnings.push(format!("ignoring unknown or unavailable capabilities: {unknown:?}"));
    }
}

/// Refuses the properties that the specification defines and that would be dropped without a word.
fn refuse_untyped(name: &str, text: &str) -> Result<()> {
    for (key, path) in UNTYPED {
        // The cheap question first: the key stands nowhere in nearly every document.
        if text.contains(key)
            && let Some(offset) = locate::start_of(text.as_bytes(), path)
            && !text[offset..].starts_with("null")
        {
            let (line, column) = locate::line_and_column(text.as_bytes(), offset);
            return Err(Error::unsupported(format!("{name}: {path}: not supported at line {line} column {column}")));
        }
    }
    Ok(())
}

/// Takes back the 0 that `oci-spec` puts where there is no pids limit: 0 is a limit, absence is none.
fn drop_absent_pids_limit(resources: &mut LinuxResources, text: &str, path: &str) {
    if resources.pids().is_some_and(|pids| pids.limit() == 0)
        && locate::start_of(text.as_bytes(), path).is_none_or(|offset| text[offset..].starts_with("null"))
    {
        resources.set_pids(None);
    }
}
