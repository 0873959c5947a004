//! Units of systemd that run husk's containers. Pure text: installs nothing, and asks systemd nothing.
//!
//! A container's unit runs `husk start --attach`: that stays in the foreground as long as the container runs, ends with its
//! status, and needs no file with a pid (Type=exec). Its monitor is in the unit's cgroup, so that what systemd kills is
//! killed. The unit for all containers only starts them; they outlive it.

use std::fmt::Write as _;
use std::path::Path;

use super::record::Record;
use super::stop::STOP_TIMEOUT_SECONDS;
use crate::monitor::RestartPolicy;
use crate::sys::signal;

/// Who runs the unit, and with what.
pub struct Site<'a> {
    /// husk's own executable.
    pub executable: &'a Path,
    /// A unit of the machine's; else one of a user's manager.
    pub is_root: bool,
    /// `HUSK_…` variables that this caller has set: a service does not inherit them.
    pub variables: &'a [(String, String)],
}

/// What systemd waits for beyond the container's own patience.
const GRACE_SECONDS: u32 = 10;

/// Writes the unit of one container; `reference` is what it is called by: its name or its id.
pub fn of_container(record: &Record, reference: &str, site: &Site<'_>) -> String {
    let husk = word(&site.executable.to_string_lossy());
    let patience = record.stop_timeout_seconds.unwrap_or(STOP_TIMEOUT_SECONDS).saturating_add(GRACE_SECONDS);
    let stop_signal = record.stop_signal.as_deref().and_then(signal::parse).unwrap_or(signal::TERMINATE);
    // Its own monitor starts it again, where that is asked for.
    let restart = if record.options.restart == RestartPolicy::No { "on-failure" } else { "no" };
    let mut unit = head(&format!("Container {}", record.name));
    let _ = write!(
        unit,
        "\n[Service]\nType=exec\n{}ExecStart={husk} start --attach {reference}\nExecStop={husk} stop {reference}\n\
         Restart={restart}\nSuccessExitStatus={}\nTimeoutStopSec={patience}\nKillMode=mixed\nDelegate=yes\n",
        environment(site),
        128 + stop_signal,
    );
    unit + &tail(site)
}

/// Writes the unit that starts all containers whose restart policy says so.
pub fn of_boot(site: &Site<'_>) -> String {
    let husk = word(&site.executable.to_string_lossy());
    let mut unit = head("Containers that come back with the machine");
    // The monitors that it leaves behind are not the unit's to end: at the shutdown, each container is asked to.
    let _ = write!(
        unit,
        "\n[Service]\nType=oneshot\nRemainAfterExit=yes\n{}ExecStart={husk} start --boot\nKillMode=process\nDelegate=yes\n",
        environment(site),
    );
    unit + &tail(site)
}

fn head(description: &str) -> String {
    format!(
        "[Unit]\nDescription={description}\nWants=network-online.target\nAfter=network-online.target local-fs.target\n"
    )
}

fn tail(site: &Site<'_>) -> String {
    let target = if site.is_root { "multi-user.target" } else { "default.target" };
    format!("\n[Install]\nWantedBy={target}\n")
}

fn environment(site: &Site<'_>) -> String {
    let mut lines = String::new();
    for (name, value) in site.variables {
        let _ = writeln!(lines, "Environment={}", quoted(&format!("{name}={value}")));
    }
    lines
}

/// A word of a command line: what systemd would expand stands for itself (systemd.service(5), "Command lines").
fn word(text: &str) -> String {
    let text = text.replace('$', "$$");
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte)) { text } else { quoted(&text) }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(restart: RestartPolicy) -> Record {
        let id = "0123456789abcdef".repeat(4);
        let mut record: Record = serde_json::from_value(serde_json::json!({
            "format": 1, "id": id, "name": "web", "created": 0, "image": "x", "command": [], "stop_signal": "SIGINT",
        }))
        .unwrap();
        record.options.restart = restart;
        record
    }

    #[test]
    fn a_unit_runs_one_container() {
        let variables = [("HUSK_DATA_ROOT".to_owned(), "/a b/100%".to_owned())];
        let site = Site { executable: Path::new("/opt/my $tools/husk"), is_root: false, variables: &variables };
        let unit = of_container(&record(RestartPolicy::No), "web", &site);
        for line in [
            "Description=Container web",
            "Environment=\"HUSK_DATA_ROOT=/a b/100%%\"",
            "ExecStart=\"/opt/my $$tools/husk\" start --attach web",
            "ExecStop=\"/opt/my $$tools/husk\" stop web",
            "Restart=on-failure",
            "SuccessExitStatus=130",
            "TimeoutStopSec=20",
            "WantedBy=default.target",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line} is not in\n{unit}");
        }
        let site = Site { executable: Path::new("/usr/bin/husk"), is_root: true, variables: &[] };
        let unit = of_container(&record(RestartPolicy::Always), "web", &site);
        assert!(unit.contains("\nRestart=no\n") && unit.ends_with("WantedBy=multi-user.target\n"), "{unit}");
    }

    #[test]
    fn a_unit_starts_all_of_them() {
        let site = Site { executable: Path::new("/usr/bin/husk"), is_root: true, variables: &[] };
        let unit = of_boot(&site);
        assert!(
            unit.contains("\nType=oneshot\n") && unit.contains("\nExecStart=/usr/bin/husk start --boot\n"),
            "{unit}"
        );
        assert!(unit.contains("\nKillMode=process\n"), "{unit}");
    }
}
