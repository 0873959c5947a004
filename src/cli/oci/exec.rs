//! `exec`: its flags, and what they ask of the runtime.
//!
//! Flags end at the container's id: what follows is the command's, `-t` included.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use oci_spec::runtime::{Capability, Process};

use super::passed::Passed;
use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::{Context, Error, Result};
use crate::runtime::container::Mode;
use crate::runtime::exec::{Changes, Command, ExecRequest};
use crate::spec::load::{self, Document};
use crate::sys::signal::Signals;

/// Start a process in a container
#[derive(Debug, Parser)]
#[command(name = "exec")]
pub(super) struct Exec {
    /// Unix socket that the terminal's master is sent to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that the process's pidfd is sent to
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Variable to set
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal
    #[arg(long, short, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,
    /// User id, and group id if it is another
    #[arg(long, short, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Group id to add
    #[arg(long, short = 'g', value_name = "GID", allow_hyphen_values = true)]
    additional_gids: Vec<String>,
    /// File with the process to start
    #[arg(long, short, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return once the process runs
    #[arg(long, short)]
    detach: bool,
    /// File that the process's pid is written to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Whether the process can gain privileges no more
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_new_privs: Option<bool>,
    /// Capability to add
    #[arg(long, short, value_name = "CAP")]
    cap: Vec<String>,
    /// Descriptors to pass on, from 3
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Cgroup below the container's to start in
    #[arg(long, value_name = "[CONTROLLER,…:]PATH")]
    cgroup: Vec<String>,
    /// Enter the container though it is paused
    #[arg(long)]
    ignore_paused: bool,
    /// Container id, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["ID", "COMMAND"])]
    words: Vec<OsString>,
}

impl Verb for Exec {
    const FAILURE: Status = Status::ExecFailure;

    fn run(self, invocation: &Invocation) -> Result<Status> {
        // Before anything of ours is open. The words are runc's.
        let fds = Passed::find_preserved(self.preserve_fds)?;
        exec(invocation, &self, &fds).context("exec failed")
    }
}

fn exec(invocation: &Invocation, args: &Exec, fds: &Passed) -> Result<Status> {
    let id = args.words[0].to_str().ok_or_else(|| Error::invalid("the container id is not UTF-8"))?;
    let given: Document<Process>;
    let mut warnings: &[String] = &[];
    let changes: Changes;
    let command = if let Some(file) = &args.process {
        given = load::load_process(file)?;
        warnings = &given.warnings;
        Command::Whole(&given.value)
    } else {
        changes = changes_of(args)?;
        Command::Changed(&changes)
    };
    let subgroups = subgroups(&args.cgroup)?;
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
    let (pid_file, console, pidfd) =
        (absolute(&args.pid_file)?, absolute(&args.console_socket)?, absolute(&args.pidfd_socket)?);
    let request = ExecRequest {
        id,
        command,
        mode: if args.detach { Mode::Detached } else { Mode::Foreground },
        enters_paused: args.ignore_paused,
        preserved_fds: fds.count,
        subgroups: &subgroups,
        pid_file: pid_file.as_deref(),
        console_socket: console.as_deref(),
        pidfd_socket: pidfd.as_deref(),
        gives_up: None,
    };
    let warn = |execution: &[String]| {
        invocation.log.warnings(warnings);
        invocation.log.warnings(execution);
    };
    if args.detach {
        let execution = invocation.runtime.exec(&request)?;
        warn(&execution.warnings);
        return Ok(Status::Success);
    }
    let signals = Signals::block_all().context("block signals")?;
    let mut execution = invocation.runtime.exec(&request)?;
    warn(&execution.warnings);
    Ok(Status::Workload(execution.attend(&signals)?.status()))
}

fn changes_of(args: &Exec) -> Result<Changes> {
    let command = &args.words[1..];
    // No program is called so, and whoever writes it means the end of the flags.
    let command = command.strip_prefix(&[OsString::from("--")]).unwrap_or(command);
    let words = command.iter().map(|word| {
        word.to_str().map(str::to_owned).ok_or_else(|| Error::invalid(format!("{}: not UTF-8", word.display())))
    });
    Ok(Changes {
        args: words.collect::<Result<_>>()?,
        cwd: args.cwd.clone(),
        env: args.env.clone(),
        terminal: args.tty.unwrap_or(false),
        user: args.user.as_deref().map(parse_user).transpose()?,
        additional_gids: args
            .additional_gids
            .iter()
            .map(|gid| parse_id("--additional-gids", gid))
            .collect::<Result<_>>()?,
        no_new_privileges: args.no_new_privs,
        capabilities: args.cap.iter().map(|name| parse_capability(name)).collect::<Result<_>>()?,
        apparmor_profile: args.apparmor.clone(),
        selinux_label: args.process_label.clone(),
    })
}

/// Reads `UID[:GID]`.
fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    // The words are runc's.
    match text.split_once(':') {
        Some((uid, gid)) => Ok((parse_id("bad uid", uid)?, Some(parse_id("bad gid", gid)?))),
        None => Ok((parse_id("bad uid", text)?, None)),
    }
}

/// Reads an id: decimal digits and nothing else. What was lenient here once made `1abc` user 1 and an empty text root
/// (CVE-2026-30892).
fn parse_id(what: &str, digits: &str) -> Result<u32> {
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // u32::MAX is the kernel's word for "leave it as it is".
    let id = if is_plain { digits.parse().ok().filter(|id| *id != u32::MAX) } else { None };
    id.ok_or_else(|| Error::invalid(format!("{what}: {digits:?} is not a number from 0 to 4294967294")))
}

/// Reads a capability by its name, with or without `CAP_`.
fn parse_capability(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let upper = upper.strip_prefix("CAP_").unwrap_or(&upper);
    serde_json::from_value(serde_json::Value::String(format!("CAP_{upper}")))
        .map_err(|_| Error::invalid(format!("--cap {name}: unknown capability")))
}

/// Reads `[CONTROLLER[,CONTROLLER]:]PATH`; the words of the errors are runc's.
fn subgroups(words: &[String]) -> Result<Vec<(Option<String>, PathBuf)>> {
    let mut seen = Vec::new();
    let mut subgroups = Vec::with_capacity(words.len());
    for word in words {
        let Some((controllers, path)) = word.split_once(':') else {
            if words.len() > 1 {
                return Err(Error::invalid(format!(
                    "invalid --cgroup argument: {word} (missing <controller>: prefix)"
                )));
            }
            subgroups.push((None, PathBuf::from(word)));
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(Error::invalid(format!("invalid --cgroup argument: {word} (empty <controller> prefix)")));
            }
            if seen.contains(&controller) {
                return Err(Error::invalid(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                )));
            }
            seen.push(controller);
        }
        subgroups.push((Some(controllers.to_owned()), PathBuf::from(path)));
    }
    Ok(subgroups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_decimal_ids_and_nothing_else() {
        for (text, user) in [("0", (0, None)), ("1000", (1000, None)), ("5:6", (5, Some(6))), ("007:1", (7, Some(1)))] {
            assert_eq!(parse_user(text).unwrap(), user, "{text}");
        }
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1abc",
            "0x10",
            "root",
            "1:2:3",
            "1.",
            "4294967295",
            "4294967296",
            "1:4294967295",
            "18446744073709551616",
            "١",
        ] {
            assert!(parse_user(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn capabilities_by_name() {
        for name in ["CAP_NET_RAW", "NET_RAW", "net_raw", "cap_net_raw"] {
            assert_eq!(parse_capability(name).unwrap(), Capability::NetRaw, "{name}");
        }
        assert!(parse_capability("CAP_NOPE").is_err());
    }

    #[test]
    fn subgroups_as_runc_reads_them() {
        let read = |words: &[&str]| {
            subgroups(&words.iter().map(ToString::to_string).collect::<Vec<_>>()).map_err(|error| error.report())
        };
        assert_eq!(read(&["a/b"]).unwrap(), [(None, "a/b".into())]);
        assert_eq!(
            read(&["cpu,cpuacct:x", "pids:y"]).unwrap(),
            [(Some("cpu,cpuacct".to_owned()), "x".into()), (Some("pids".to_owned()), "y".into())]
        );
        for (words, text) in [
            (&["a", "pids:b"][..], "invalid --cgroup argument: a (missing <controller>: prefix)"),
            (&[":a"], "invalid --cgroup argument: :a (empty <controller> prefix)"),
            (&["cpu,:a"], "invalid --cgroup argument: cpu,:a (empty <controller> prefix)"),
            (&["cpu:a", "cpu:b"], "invalid --cgroup argument(s): controller cpu specified multiple times"),
        ] {
            assert_eq!(read(words).unwrap_err(), text);
        }
    }
}
