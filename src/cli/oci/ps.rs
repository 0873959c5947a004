//! `ps`: prints the processes of a container: their numbers, or what ps(1) tells of them.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use clap::Parser;

use super::{Invocation, Manners, Verb, json, print};
use crate::cli::status::Status;
use crate::error::{Context, Error, Kind, Result};
use crate::runtime::ps::Details;

/// Print the processes inside a container
#[derive(Debug, Parser)]
#[command(name = "ps")]
pub(super) struct Ps {
    /// Form of the list: table or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Container id
    id: String,
    /// Options for ps(1), whose answer is narrowed to the container's processes [default: -ef]
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Verb for Ps {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { format, id, options } = self;
        let pids = invocation.runtime.processes(&id)?;
        match (format.as_str(), invocation.manners) {
            ("json", Manners::Crun) => print(&format!("{}\n", listed(&pids))),
            ("table", Manners::Crun) => {
                print(&pids.iter().fold("PID\n".to_owned(), |text, pid| format!("{text}{pid}\n")))
            }
            // What Go makes of a list that was never begun.
            ("json", _) if pids.is_empty() => print("null\n"),
            ("json", _) => print(&format!("{}\n", json::compact(&pids)?)),
            ("table", _) => match ask_ps(&options)? {
                Some(table) => print(&narrow(&table, &pids)?),
                None => print(&own_table(&invocation.runtime.process_details(&pids)?)),
            },
            _ => Err(Error::invalid("invalid format option")),
        }
    }
}

/// crun's way of a list, one number a line.
fn listed(pids: &[i32]) -> String {
    let lines: Vec<String> = pids.iter().map(|pid| format!("  {pid}")).collect();
    if lines.is_empty() { "[\n]".to_owned() } else { format!("[\n{}\n]", lines.join(",\n")) }
}

/// Gives the answer of ps(1); none where it is not there, and nothing is asked of it but its full list.
pub(in crate::cli) fn ask_ps(options: &[String]) -> Result<Option<String>> {
    let options: Vec<&str> =
        if options.is_empty() { vec!["-ef"] } else { options.iter().map(String::as_str).collect() };
    let output = Command::new("ps").args(&options).stdin(Stdio::null()).output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound && options == ["-ef"] => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::new(Kind::NotFound, "ps: executable file not found in $PATH")
                .with_hint("`ps --format json` does without that program, and so does `ps` without options for it"));
        }
        answer => answer.context("run ps")?,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        let said = text(&output.stdout) + &text(&output.stderr);
        return Err(Error::new(
            Kind::Other,
            format!("ps {}: {}: {}", options.join(" "), output.status, said.trim_end()),
        ));
    }
    Ok(Some(text(&output.stdout)))
}

/// Writes the table that `ps -ef` would.
fn own_table(processes: &[Details]) -> String {
    let mut table =
        format!("{:<8} {:>7} {:>7} {:>2} {:>5} {:<8} {:>8} CMD\n", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME");
    for process in processes {
        let Details { user, pid, parent, usage_percent, started, terminal, seconds, command } = process;
        let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        // As many letters as ps(1) gives a name, which it marks with a plus.
        let user = if user.chars().count() > 8 {
            format!("{}+", user.chars().take(7).collect::<String>())
        } else {
            user.clone()
        };
        let row = format!(
            "{user:<8} {pid:>7} {parent:>7} {usage_percent:>2} {started:>5} {terminal:<8} {time:>8} {command}\n"
        );
        table.push_str(&row);
    }
    table
}

/// Keeps the header and the lines of these processes.
pub(in crate::cli) fn narrow(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_ascii_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("couldn't find PID field in ps output"))?;
    let mut narrowed = format!("{header}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|field| field.parse().ok());
        let pid: i32 = pid.ok_or_else(|| Error::invalid(format!("unable to parse pid in ps output: {line:?}")))?;
        if pids.contains(&pid) {
            narrowed.push_str(line);
            narrowed.push('\n');
        }
    }
    Ok(narrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_narrowed_by_its_pid_column() {
        let table = "UID          PID    PPID CMD\nroot           1       0 init 7\nroot           7       1 sh\n";
        assert_eq!(narrow(table, &[7]).unwrap(), "UID          PID    PPID CMD\nroot           7       1 sh\n");
        assert_eq!(narrow(table, &[]).unwrap(), "UID          PID    PPID CMD\n");
        assert!(narrow("COMMAND\nsh\n", &[7]).is_err());
        assert!(narrow("PID\nsh\n", &[7]).is_err());
    }

    #[test]
    fn a_table_without_ps_looks_like_its_own() {
        let process = Details {
            user: "systemd-network".into(),
            pid: 7,
            parent: 1,
            usage_percent: 0,
            started: "02:08".into(),
            terminal: "?".into(),
            seconds: 3661,
            command: "sh -c true".into(),
        };
        assert_eq!(
            own_table(&[process]),
            "UID          PID    PPID  C STIME TTY          TIME CMD\n\
             systemd+       7       1  0 02:08 ?        01:01:01 sh -c true\n"
        );
    }

    #[test]
    fn cruns_list() {
        assert_eq!(listed(&[]), "[\n]");
        assert_eq!(listed(&[1, 22]), "[\n  1,\n  22\n]");
    }
}
