//! Reads config.json and its parts as they come from a file or a caller. Judges types and names, not values.
//!
//! A good document is read in one pass. Only when that fails is the text read again as plain JSON, to bring it from
//! what Go's reader accepts (and every caller of runc relies on) to what the types of `oci-spec` accept, and to say
//! where in the document the trouble is.
//!
//! Properties that nobody knows are ignored, as the specification asks. Of properties that it defines and our types lack,
//! and which have no meaning here, there is a warning.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Capability, LinuxResources, Process, Spec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::validate::clean;
use super::{locate, shape};
use crate::error::{Context, Error, Kind, Result};

/// The name of the configuration in a bundle.
pub const CONFIG_FILE: &str = "config.json";

/// The largest document that is read. The largest real ones, with a seccomp rule per system call, have 200 KiB.
const SIZE_LIMIT: usize = 16 << 20;

/// What the runtime specification has, or had, and the types of `oci-spec` 0.10 drop: the key as it stands in a document,
/// the path, and why nothing is done about it.
///
/// (`enableCMT` and `enableMBM` are there under names that serde spells differently from the specification.)
const UNTYPED: &[(&str, &str, &str)] = &[
    ("\"freebsd\"", "freebsd", "it is for another platform"),
    ("\"enableCMT\"", "linux.intelRdt.enableCMT", RDT_REASON),
    ("\"enableMBM\"", "linux.intelRdt.enableMBM", RDT_REASON),
];
const RDT_REASON: &str = "the specification has enableMonitoring in its place";

/// A part of a configuration, and what a user should hear about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document<T> {
    pub value: T,
    pub warnings: Vec<String>,
}

/// Reads the configuration of a bundle.
pub fn load(bundle: &Path) -> Result<Document<Spec>> {
    let bytes = read(&bundle.join(CONFIG_FILE), CONFIG_FILE.as_ref())?;
    parse(CONFIG_FILE, &bytes).map(|document| settle(document, bundle))
}

/// Reads a bundle's configuration that is not in it, or has another name there.
pub fn load_file(file: &Path, bundle: &Path) -> Result<Document<Spec>> {
    let bytes = read(file, file)?;
    parse(&file.file_name().unwrap_or(file.as_os_str()).to_string_lossy(), &bytes)
        .map(|document| settle(document, bundle))
}

/// Takes destinations that name the root file system on the host from there, as runc does, before they are judged.
fn settle(mut document: Document<Spec>, bundle: &Path) -> Document<Spec> {
    let spec = &mut document.value;
    let Some(root) = spec.root().as_ref().map(|root| clean(&bundle.join(root.path()))) else { return document };
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let Some(inside) = clean(mount.destination()).strip_prefix(&root).ok().map(|path| Path::new("/").join(path))
        else {
            continue;
        };
        // With a root of `/` it is the same place; the root itself is no place for a mount.
        if root != Path::new("/") && inside != Path::new("/") {
            mount.set_destination(inside);
        }
    }
    document
}

/// Reads a whole configuration; `name` is what messages call it.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Document<Spec>> {
    let text = utf8(name, bytes)?;
    let (mut document, repaired) = read_as::<Spec>(name, text, "", repair_spec)?;
    let text = repaired.as_deref().unwrap_or(text);
    document.warnings.extend(untyped(text));
    if let Some(resources) = document.value.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()) {
        drop_absent_pids_limit(resources, text, "linux.resources.pids.limit");
    }
    Ok(document)
}

/// Reads the file of `exec --process`.
pub fn load_process(file: &Path) -> Result<Document<Process>> {
    let bytes = read_given(file)?;
    parse_process(&file.file_name().unwrap_or(file.as_os_str()).to_string_lossy(), &bytes)
}

/// Reads the process of `exec --process`.
pub fn parse_process(name: &str, bytes: &[u8]) -> Result<Document<Process>> {
    Ok(read_as(name, utf8(name, bytes)?, "process", repair_process)?.0)
}

/// Reads the resources of `update --resources`.
pub fn parse_resources(name: &str, bytes: &[u8]) -> Result<Document<LinuxResources>> {
    let text = utf8(name, bytes)?;
    let (mut document, repaired) = read_as::<LinuxResources>(name, text, "linux.resources", |_, _| ())?;
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

/// Reads a file that the caller made for this one call, which may be a pipe: shells give `<(…)` as one.
fn read_given(path: &Path) -> Result<Vec<u8>> {
    let describe = || format!("read {}", path.display());
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty());
    let mut bytes = Vec::new();
    let limit = u64::try_from(SIZE_LIMIT).unwrap_or(u64::MAX);
    let file = std::fs::File::from(file.with_context(describe)?);
    std::io::Read::read_to_end(&mut std::io::Read::take(file, limit + 1), &mut bytes).with_context(describe)?;
    if bytes.len() > SIZE_LIMIT {
        return Err(Error::invalid(format!("larger than {SIZE_LIMIT} bytes"))).with_context(describe);
    }
    Ok(bytes)
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
///
/// `root` is what the specification calls the whole text.
fn read_as<T: DeserializeOwned>(
    name: &str,
    text: &str,
    root: &str,
    repair: fn(&mut Value, &mut Vec<String>),
) -> Result<(Document<T>, Option<String>)> {
    if let Some((offset, path)) = shape::misplaced_list(text, root) {
        return Err(refusal(name, text, "expected an object, found a list", &path, offset));
    }
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

/// Reads a JSON document of another kind as a type, without repairs; an error names the field.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let path = locate::path_at(bytes, locate::offset_of(bytes, error.line(), error.column()));
        let field = if path.is_empty() { String::new() } else { format!("{path}: ") };
        Error::invalid(format!("{field}{error}"))
    })
}

/// Says what serde found wrong, in which field, and where that stands in the file.
fn trouble(name: &str, text: &str, error: &serde_json::Error, path: &str, offset: usize) -> Error {
    let whole = error.to_string();
    let suffix = format!(" at line {} column {}", error.line(), error.column());
    let what = whole.strip_suffix(&suffix).unwrap_or(&whole);
    match words_of_runc(path) {
        Some(words) => refusal(name, text, &format!("{words}: {what}"), path, offset),
        None => refusal(name, text, what, path, offset),
    }
}

/// What runc calls a mistake in these fields, for those who look for it.
fn words_of_runc(path: &str) -> Option<&'static str> {
    match path.strip_prefix("linux.memoryPolicy")? {
        // What is missing is the mode: nothing else has to be there.
        "" | ".mode" => Some("invalid memory policy mode"),
        flags if flags.starts_with(".flags") => Some("invalid memory policy flag"),
        _ => None,
    }
}

fn refusal(name: &str, text: &str, what: &str, path: &str, offset: usize) -> Error {
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
    if let Some(flags) = process.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags")) {
        for flag in flags.as_array_mut().into_iter().flatten() {
            match flag.as_str() {
                // The spelling of `oci-spec`'s derived name.
                Some("SCHED_FLAG_DL_OVERRUN") => *flag = Value::from("SCHED_FLAG_D_L_OVERRUN"),
                // The specification's text has one name, and its Go types, which callers use, have the other.
                Some("SCHED_FLAG_RESET_ON_FORK") => *flag = Value::from("SCHED_RESET_ON_FORK"),
                _ => {}
            }
        }
    }
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        // Blanks and empty parts, which the kernel's lists and runc's have.
        for list in affinity.values_mut() {
            let Some(text) = list.as_str() else { continue };
            *list = Value::from(
                text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(","),
            );
        }
        affinity.retain(|_, list| *list != "");
    }
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
fn untyped(text: &str) -> impl Iterator<Item = String> {
    let is_set = |key: &str, path: &str| {
        // The cheap question first: the key stands nowhere in nearly every document.
        text.contains(key)
            && locate::start_of(text.as_bytes(), path).is_some_and(|offset| !text[offset..].starts_with("null"))
    };
    UNTYPED.iter().filter(move |(key, path, _)| is_set(key, path)).map(|(_, path, reason)| ignored(path, reason))
}

/// Says that a field is passed over, and why.
pub(super) fn ignored(field: &str, reason: &str) -> String {
    format!("{field}: ignored: {reason}")
}

/// Takes back the 0 that `oci-spec` puts where there is no pids limit: 0 is a limit, absence is none.
fn drop_absent_pids_limit(resources: &mut LinuxResources, text: &str, path: &str) {
    if resources.pids().is_some_and(|pids| pids.limit() == 0)
        && locate::start_of(text.as_bytes(), path).is_none_or(|offset| text[offset..].starts_with("null"))
    {
        resources.set_pids(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> String {
        parse("config.json", text.as_bytes()).map_or_else(|error| error.report(), |_| String::new())
    }

    #[test]
    fn a_process_may_come_through_a_pipe() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, br#"{"cwd": "/", "args": ["true"]}"#).unwrap();
        drop(writer);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let process = load_process(Path::new(&path)).unwrap().value;
        assert_eq!(process.args().as_deref().unwrap(), ["true"]);
        assert!(load_process(Path::new("/dev/zero")).unwrap_err().report().contains("larger than"));
    }

    #[test]
    fn memory_policies_are_refused_in_runcs_words() {
        for (policy, words) in [
            ("{}", "linux.memoryPolicy: invalid memory policy mode: missing field `mode`"),
            (r#"{"mode": "INTERLEAVE"}"#, "linux.memoryPolicy.mode: invalid memory policy mode: unknown variant"),
            (
                r#"{"mode": "MPOL_BIND", "flags": ["x"]}"#,
                "linux.memoryPolicy.flags[0]: invalid memory policy flag: unknown",
            ),
        ] {
            let said = report(&format!(r#"{{"linux": {{"memoryPolicy": {policy}}}}}"#));
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn trouble_is_named_with_field_and_place() {
        let rows = [
            (
                "{\"linux\": {\"resources\":\n {\"memory\":\n  {\"limit\": \"x\"}}}}",
                "config.json: linux.resources.memory.limit: invalid type: string \"x\", expected i64 at line 3 column 13",
            ),
            (
                "{\"mounts\": [{\"destination\": \"/a\"},\n {\"type\": \"bind\"}]}",
                "config.json: mounts[1]: missing field `destination` at line 2 column 2",
            ),
            (
                "{\"linux\": {\"namespaces\": [{\"type\": \"pid\"}, {\"type\": \"none\"}]}}",
                "config.json: linux.namespaces[1].type: unknown variant `none`",
            ),
            (
                "{\"process\": {\"cwd\": \"/\", \"rlimits\": [{\"type\": \"RLIMIT_X\"}]}}",
                "config.json: process.rlimits[0].type: unknown variant `RLIMIT_X`",
            ),
            ("{\"root\": {\"path\": 1}}", "config.json: root.path: invalid type: integer `1`"),
            ("{\"annotations\": {\"a.b\": 1}}", "config.json: annotations[\"a.b\"]: invalid type: integer `1`"),
            ("{\"linux\": {\"sysctl\": []}}", "config.json: linux.sysctl: invalid type: sequence, expected a map"),
            ("{\"hostname\": {\"a\": [1]}}", "config.json: hostname: invalid type: map, expected a string"),
            ("{\"root\": {\"path\": \"a\" \"b\"}}", "config.json: root.path: expected `,` or `}` at line 1 column 23"),
            ("{\"root\": {\"path\": \"a\"", "config.json: root.path: EOF while parsing an object"),
            ("{\"hostname\":\n \"a\nb\"}", "config.json: hostname: control character"),
            ("", "config.json: EOF while parsing a value at line 1 column 1"),
            ("[]", "config.json: expected an object, found a list at line 1 column 1"),
            ("{\"linux\": []}", "config.json: linux: expected an object, found a list at line 1 column 11"),
            ("{} {}", "config.json: trailing characters at line 1 column 4"),
        ];
        for (text, expected) in rows {
            let report = report(text);
            assert!(report.starts_with(expected), "{text}\n gave {report:?}\n want {expected:?}");
        }
        let error = parse("config.json", b"{\"hostname\":\n\"\xff\"}").unwrap_err();
        assert_eq!(error.report(), "config.json: not UTF-8 at line 2 column 2");
        assert_eq!(error.kind(), Kind::Invalid);
    }

    #[test]
    fn what_gos_reader_accepts_is_accepted() {
        let text = r#"{"ociVersion": "1.0.2", "hooks": null, "process": {"user": null, "args": ["x"], "cwd": "/", "rlimits": null,
            "capabilities": {"bounding": ["CAP_KILL", "CAP_OF_THE_FUTURE"], "ambient": ["CAP_OF_THE_FUTURE"]}},
            "linux": {"resources": {"memory": {"limit": null}, "pids": {"limit": null}}, "namespaces": null}, "root": {"path": "a", "path": "b"}}"#;
        let document = parse("config.json", text.as_bytes()).unwrap();
        assert_eq!(document.warnings, ["ignoring unknown or unavailable capabilities: [\"CAP_OF_THE_FUTURE\"]"]);
        let spec = document.value;
        let capabilities = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
        assert_eq!(capabilities.bounding().as_ref().unwrap().len(), 1);
        assert!(capabilities.ambient().as_ref().unwrap().is_empty());
        assert_eq!(spec.root().as_ref().unwrap().path(), Path::new("b"));
        assert!(spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().is_none());
    }

    #[test]
    fn nothing_appears_that_was_not_written() {
        let spec = parse("config.json", br#"{"linux": {}, "process": {}, "root": {}}"#).unwrap().value;
        assert!(spec.mounts().is_none() && spec.hostname().is_none() && spec.hooks().is_none());
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.namespaces().is_none() && linux.resources().is_none());
        assert!(linux.masked_paths().is_none() && linux.readonly_paths().is_none());
        let process = spec.process().as_ref().unwrap();
        assert!(process.capabilities().is_none() && process.rlimits().is_none() && process.args().is_none());
        assert!(process.env().is_none() && process.terminal().is_none() && process.no_new_privileges().is_none());
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
        let root = spec.root().as_ref().unwrap();
        assert!(root.path().as_os_str().is_empty() && root.readonly().is_none());
        assert!(parse("config.json", b"{}").unwrap().value.linux().is_none());
    }

    /// The words of the runtime specification 1.3, each at its place.
    #[test]
    fn every_word_of_the_specification_is_known() {
        let rows: &[(&str, &str)] = &[
            (r#"{"linux": {"namespaces": [{"type": "?"}]}}"#, "pid network mount ipc uts user cgroup time"),
            (
                r#"{"process": {"cwd": "/", "rlimits": [{"type": "RLIMIT_?"}]}}"#,
                "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK",
            ),
            (
                r#"{"process": {"cwd": "/", "user": {}, "capabilities": {"bounding": ["CAP_?"]}}}"#,
                "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE \
                 DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE \
                 MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID \
                 SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO \
                 SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM",
            ),
            (
                r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_?"}}}"#,
                "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY",
            ),
            (
                r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_?"]}}}"#,
                "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 \
                 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB",
            ),
            (
                r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_LOG", "flags": ["SECCOMP_FILTER_FLAG_?"]}}}"#,
                "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV",
            ),
            (
                r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["a"],
                    "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_?"}]}]}}}"#,
                "NE LT LE EQ GE GT MASKED_EQ",
            ),
            (r#"{"linux": {"devices": [{"path": "/dev/x", "type": "?"}]}}"#, "c b u p"),
            (r#"{"linux": {"resources": {"devices": [{"allow": true, "type": "?"}]}}}"#, "a c b"),
            (
                r#"{"process": {"cwd": "/", "scheduler": {"policy": "SCHED_?"}}}"#,
                "OTHER FIFO RR BATCH ISO IDLE DEADLINE",
            ),
            (
                r#"{"process": {"cwd": "/", "scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_?"]}}}"#,
                "RESET_ON_FORK FLAG_RESET_ON_FORK FLAG_RECLAIM FLAG_DL_OVERRUN FLAG_KEEP_POLICY FLAG_KEEP_PARAMS FLAG_UTIL_CLAMP_MIN \
                 FLAG_UTIL_CLAMP_MAX",
            ),
            (r#"{"process": {"cwd": "/", "ioPriority": {"class": "IOPRIO_CLASS_?"}}}"#, "RT BE IDLE"),
            (
                r#"{"linux": {"memoryPolicy": {"mode": "MPOL_?"}}}"#,
                "DEFAULT BIND INTERLEAVE WEIGHTED_INTERLEAVE PREFERRED PREFERRED_MANY LOCAL",
            ),
            (
                r#"{"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "flags": ["MPOL_F_?"]}}}"#,
                "NUMA_BALANCING RELATIVE_NODES STATIC_NODES",
            ),
            (r#"{"linux": {"personality": {"domain": "?"}}}"#, "LINUX LINUX32"),
        ];
        for (template, words) in rows {
            for word in words.split_whitespace() {
                let text = template.replace('?', word);
                let document =
                    parse("config.json", text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error:?}"));
                assert!(document.warnings.is_empty(), "{text}: {:?}", document.warnings);
            }
            assert!(
                parse("config.json", template.replace('?', "NONE").as_bytes())
                    .map_or(true, |document| !document.warnings.is_empty()),
                "{template}: anything goes"
            );
        }
    }

    #[test]
    fn no_pids_limit_is_not_a_limit_of_nothing() {
        let limit = |text: &str| {
            let resources = parse_resources("resources", text.as_bytes()).unwrap().value;
            resources.pids().map(|pids| pids.limit())
        };
        assert_eq!(limit(r#"{"pids": {"limit": 5}}"#), Some(5));
        assert_eq!(limit(r#"{"pids": {"limit": 0}}"#), Some(0));
        assert_eq!(limit(r#"{"pids": {}}"#), None);
        assert_eq!(limit(r#"{"pids": {"limit": null}}"#), None);
        let config = br#"{"linux": {"resources": {"pids": {}}}}"#;
        let spec = parse("config.json", config).unwrap().value;
        assert!(spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().is_none());
    }

    #[test]
    fn what_nobody_knows_is_ignored_and_what_the_types_lack_is_a_warning() {
        let rows = [
            (r#"{"x": 1, "linux": {"y": {}}, "process": {"z": [], "cwd": "/"}, "mounts": []}"#, ""),
            (r#"{"freebsd": {"devices": []}}"#, "freebsd: ignored: "),
            (r#"{"linux": {"intelRdt": {"enableCMT": true}}}"#, "linux.intelRdt.enableCMT: ignored: "),
            (r#"{"linux": {"intelRdt": {"enableMBM": true}}}"#, "linux.intelRdt.enableMBM: ignored: "),
            (r#"{"freebsd": null}"#, ""),
            (r#"{"annotations": {"freebsd": "x"}, "hostname": "freebsd"}"#, ""),
        ];
        for (text, expected) in rows {
            let warnings = parse("config.json", text.as_bytes()).unwrap().warnings.concat();
            assert!(warnings.starts_with(expected) && warnings.is_empty() == expected.is_empty(), "{text}: {warnings}");
        }
    }

    #[test]
    fn files_that_are_missing_blocking_or_flooding_are_refused() {
        let bundle = tempfile::tempdir().unwrap();
        let error = load(bundle.path()).unwrap_err();
        assert_eq!(error.report(), "JSON specification file config.json not found");
        assert_eq!(error.kind(), Kind::NotFound);
        let file = bundle.path().join("other.json");
        assert!(load_file(&file, bundle.path()).unwrap_err().report().contains("other.json not found"));

        rustix::fs::mkfifoat(rustix::fs::CWD, bundle.path().join(CONFIG_FILE), Mode::from_raw_mode(0o600)).unwrap();
        assert!(load(bundle.path()).unwrap_err().report().ends_with("config.json: not a regular file"));
        assert!(load_file(Path::new("/dev/zero"), bundle.path()).unwrap_err().report().ends_with("not a regular file"));
        assert!(load_file(bundle.path(), bundle.path()).is_err());

        let big = std::fs::OpenOptions::new().write(true).create_new(true).open(&file).unwrap();
        big.set_len(SIZE_LIMIT as u64 + 1).unwrap();
        assert!(load_file(&file, bundle.path()).unwrap_err().report().contains("larger than"));
    }
}
