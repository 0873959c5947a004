//! What `ps -ef` tells of a process, read from `/proc` where there is no ps(1). Looks at no container.

use std::path::Path;

use super::container::{Runtime, owner_name};
use crate::error::{Context, Error, Result};

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// The name of its user, or its number.
    pub user: String,
    pub pid: i32,
    pub parent: i32,
    /// Of one processor, since it began.
    pub usage_percent: u64,
    /// When it began (UTC): the time of today, else the day.
    pub started: String,
    /// Its terminal, or `?`.
    pub terminal: String,
    /// Processor time that it took.
    pub seconds: u64,
    /// Its arguments, or in brackets its name.
    pub command: String,
}

/// `USER_HZ`: the ticks in `/proc/PID/stat` are hundredths on every architecture that husk runs on (proc_pid_stat(5)).
const TICKS_PER_SECOND: u64 = 100;
const SECONDS_PER_DAY: u64 = 86_400;

impl Runtime {
    /// Reads what there is to tell of processes. One that has ended meanwhile is left out.
    pub fn process_details(&self, pids: &[i32]) -> Result<Vec<Details>> {
        let uptime = read("/proc/uptime")?;
        let uptime = uptime.split('.').next().and_then(|word| word.parse().ok());
        let uptime: u64 = uptime.ok_or_else(|| Error::invalid("/proc/uptime: unexpected form"))?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Ok(pids.iter().filter_map(|pid| details(*pid, uptime, now)).collect())
    }
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn details(pid: i32, uptime: u64, now: u64) -> Option<Details> {
    let place = Path::new("/proc").join(pid.to_string());
    let (stat, arguments) = (read(place.join("stat")).ok()?, read(place.join("cmdline")).ok()?);
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&place).ok()?);
    let user = owner_name(uid);
    parse(&stat, &arguments, pid, user.trim_start_matches('#'), uptime, now)
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)): the name is in parentheses, and may hold more of them.
fn parse(stat: &str, arguments: &str, pid: i32, user: &str, uptime: u64, now: u64) -> Option<Details> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    // From field 3 on.
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = field(14)?.parse::<u64>().ok()? + field(15)?.parse::<u64>().ok()?;
    let age = uptime.saturating_sub(field(22)?.parse::<u64>().ok()? / TICKS_PER_SECOND);
    let seconds = ticks / TICKS_PER_SECOND;
    let words = arguments.trim_end_matches('\0').replace('\0', " ");
    Some(Details {
        user: user.to_owned(),
        pid,
        parent: field(4)?.parse().ok()?,
        usage_percent: (seconds * 100).checked_div(age).unwrap_or(0).min(99),
        started: started(now.saturating_sub(age), now),
        terminal: terminal(field(7)?.parse().ok()?),
        seconds,
        command: if words.is_empty() { format!("[{name}]") } else { words },
    })
}

fn started(start: u64, now: u64) -> String {
    let form = if start / SECONDS_PER_DAY == now / SECONDS_PER_DAY { "%H:%M" } else { "%b%d" };
    let time = i64::try_from(start).ok().and_then(|start| jiff::Timestamp::from_second(start).ok());
    time.map_or_else(|| "?".to_owned(), |time| time.strftime(form).to_string())
}

/// The device numbers of tty(4) and pts(4).
fn terminal(device: i32) -> String {
    let device = device.cast_unsigned();
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_as_ps_shows_it() {
        let stat = "7 (a) b) S 1 7 7 34817 7 0 0 0 0 0 1200 345 0 0 20 0 1 0 5000 0";
        let details = |arguments, now| parse(stat, arguments, 7, "root", 150, now).unwrap();
        // Began 50 seconds after the boot, 100 seconds ago.
        let seen = details("sh\0-c\0true\0", 1_000_000);
        assert_eq!((seen.parent, seen.terminal.as_str(), seen.seconds, seen.usage_percent), (1, "pts/1", 15, 15));
        assert_eq!((seen.command.as_str(), seen.started.as_str()), ("sh -c true", "13:45"));
        let seen = details("", SECONDS_PER_DAY * 10 + 50);
        assert_eq!((seen.command.as_str(), seen.started.as_str()), ("[a) b]", "Jan10"));
        assert_eq!(parse("7 (sh) S 1", "", 7, "root", 0, 0), None);
    }

    #[test]
    fn terminals_have_names() {
        for (device, name) in [(0, "?"), (34816, "pts/0"), (1025, "tty1"), (1088, "ttyS0"), (34816 + 256, "pts/256")] {
            assert_eq!(terminal(device), name);
        }
    }
}
