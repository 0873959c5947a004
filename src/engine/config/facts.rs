//! What of the host goes into a configuration: two system calls, and a file where the processors have thermal events.

use crate::support::atomic;

/// The first kernel with mount_setattr(2), and so with a read-only that reaches what is mounted below.
const RECURSIVE_READ_ONLY: (u32, u32) = (5, 12);

/// The list of processors is a few ranges, however many there are.
const LIST_BYTES: usize = 4096;

/// More than any kernel is built for (`NR_CPUS`): what is beyond is not believed.
const PROCESSORS: u32 = 8192;

/// Facts of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// For a container on the host's network, which has the host's name.
    pub hostname: String,
    pub has_recursive_read_only: bool,
    /// Processors whose thermal events have to be hidden; empty where the kernel shows none, as in most virtual machines.
    pub throttled_processors: Vec<u32>,
}

impl Host {
    /// Looks.
    pub fn probe() -> Self {
        let name = rustix::system::uname();
        Self {
            hostname: name.nodename().to_string_lossy().into_owned(),
            has_recursive_read_only: version(&name.release().to_string_lossy()) >= RECURSIVE_READ_ONLY,
            throttled_processors: throttled_processors(),
        }
    }
}

/// Reads major and minor of a release such as `6.1.0-18-amd64`; what is none is the oldest.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn throttled_processors() -> Vec<u32> {
    let first = super::defaults::thermal_throttle_path(0);
    if rustix::fs::access(first, rustix::fs::Access::EXISTS).is_err() {
        return Vec::new();
    }
    let list = atomic::read(rustix::fs::CWD, "/sys/devices/system/cpu/possible", LIST_BYTES);
    parse_list(&String::from_utf8_lossy(&list.ok().flatten().unwrap_or_default()))
}

/// Reads `0-3,8`.
fn parse_list(list: &str) -> Vec<u32> {
    let mut processors = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            processors.extend(first..=last.min(PROCESSORS));
        }
    }
    processors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_a_version() {
        for (release, expected) in
            [("6.1.0-18-amd64", (6, 1)), ("5.12", (5, 12)), ("5.4.0+", (5, 4)), ("strange", (0, 0)), ("", (0, 0))]
        {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(Host::probe().has_recursive_read_only == (version(&release()) >= (5, 12)));
    }

    fn release() -> String {
        std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap()
    }

    #[test]
    fn lists_of_processors_are_ranges() {
        assert_eq!(parse_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_list("0\n"), [0]);
        assert_eq!(parse_list("x,-,3-1\n"), [0_u32; 0]);
        assert!(parse_list("0-4294967295").len() <= 8193);
    }
}
