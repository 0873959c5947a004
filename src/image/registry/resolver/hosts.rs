//! hosts(5). What cannot be read in them is passed over, as the C library does.

use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// Lists that keep advertisements away have some hundred thousand lines.
const HOSTS_BYTES: u64 = 32 << 20;

/// Gives the addresses that a file has for a name, in its order.
pub(super) fn read_hosts(path: &Path, name: &str) -> Result<Vec<IpAddr>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => find_host(BufReader::new(std::fs::File::from(fd).take(HOSTS_BYTES)), name)
            .with_context(|| format!("read {}", path.display())),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
        Err(errno) => Err(errno).with_context(|| format!("read {}", path.display())),
    }
}

pub(super) fn find_host(mut text: impl BufRead, name: &str) -> std::io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if text.read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let words = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = words.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(address) = words.next() else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name.as_bytes()))
            && let Some(address) = std::str::from_utf8(address).ok().and_then(|text| text.parse().ok())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let text = b"127.0.0.1 localhost\n# 1.1.1.1 reg\n10.0.0.1\treg.example reg # x other\n::5 REG\n10.0.0.1 reg\n\
                     x reg\n10.0.0.9 \xff reg\n10.0.0.7 register";
        for (name, addresses) in [
            ("reg", &["10.0.0.1", "::5", "10.0.0.9"][..]),
            ("reg.example", &["10.0.0.1"]),
            ("localhost", &["127.0.0.1"]),
            ("other", &[]),
            ("x", &[]),
        ] {
            let found: Vec<String> = find_host(&text[..], name).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(found, addresses, "{name}");
        }
    }
}
