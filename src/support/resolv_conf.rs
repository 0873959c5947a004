//! resolv.conf(5). What cannot be read in it is passed over, as the C library does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

use super::config_file;
use crate::error::Result;

/// Limits of the C library, some of which resolv.conf(5) names.
const SERVERS: usize = 3;
const SEARCH: usize = 6;
const MOST_DOTS: usize = 15;
const MOST_SECONDS: u64 = 30;
const MOST_ATTEMPTS: u32 = 5;

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    pub addresses: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
    /// For one answer of one server.
    pub patience: Duration,
    pub attempts: u32,
    pub only_tcp: bool,
    /// Each question begins with another server.
    pub rotates: bool,
}

impl Servers {
    /// Reads resolv.conf; without one, the machine itself is asked.
    pub fn read(path: &Path, port: u16) -> Result<Self> {
        let bytes = config_file::read_bytes(path)?.unwrap_or_default();
        Ok(Self::parse(&String::from_utf8_lossy(&bytes), port))
    }

    pub fn parse(text: &str, port: u16) -> Self {
        let mut servers = Self {
            addresses: Vec::new(),
            search: Vec::new(),
            dots: 1,
            patience: Duration::from_secs(5),
            attempts: 2,
            only_tcp: false,
            rotates: false,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => servers.addresses.extend(words.next().and_then(|word| parse_server(word, port))),
                // The last one counts, and `domain` is a list of one.
                Some("search") => servers.search = domains(words).collect(),
                Some("domain") => servers.search = domains(words.take(1)).collect(),
                Some("options") => words.for_each(|word| servers.set_option(word)),
                _ => {}
            }
        }
        servers.addresses.truncate(SERVERS);
        servers.search.truncate(SEARCH);
        if servers.addresses.is_empty() {
            servers.addresses.push((Ipv4Addr::LOCALHOST, port).into());
        }
        servers
    }

    fn set_option(&mut self, word: &str) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        match (name, value.parse::<u32>()) {
            ("ndots", Ok(dots)) => self.dots = (dots as usize).min(MOST_DOTS),
            ("timeout", Ok(seconds)) => self.patience = Duration::from_secs(u64::from(seconds).clamp(1, MOST_SECONDS)),
            ("attempts", Ok(attempts)) => self.attempts = attempts.clamp(1, MOST_ATTEMPTS),
            ("use-vc", _) => self.only_tcp = true,
            ("rotate", _) => self.rotates = true,
            _ => {}
        }
    }

    /// Gives the names that a host's may stand for, in the order in which to ask for them.
    pub fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(name) = host.strip_suffix('.') {
            return vec![name.to_owned()];
        }
        let mut candidates: Vec<String> = self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let is_whole = host.bytes().filter(|byte| *byte == b'.').count() >= self.dots;
        candidates.insert(if is_whole { 0 } else { candidates.len() }, host.to_owned());
        candidates
    }
}

fn domains<'a>(words: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    words.map(|word| word.trim_matches('.').to_ascii_lowercase()).filter(|word| !word.is_empty())
}

/// Parses an address; a link-local one may have its interface, by number, behind a `%`.
fn parse_server(word: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some((address, port).into());
    }
    let (address, scope) = word.split_once('%')?;
    Some(SocketAddrV6::new(address.parse::<Ipv6Addr>().ok()?, port, 0, scope.parse().ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_c_library_does() {
        let servers = Servers::parse(
            "# comment\nnameserver 10.0.0.1\nnameserver fe80::1%2\n nameserver x\nnameserver ::1\nnameserver 10.0.0.4\n\
             domain a.example\nsearch B.example. c.example # note\noptions ndots:2 timeout:99 attempts:0 use-vc rotate\n",
            53,
        );
        let addresses: Vec<String> = servers.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1:53", "[fe80::1%2]:53", "[::1]:53"]);
        assert_eq!(servers.patience, Duration::from_secs(30));
        assert_eq!((servers.attempts, servers.only_tcp, servers.rotates), (1, true, true));
        assert_eq!(servers.candidates("x.y")[..2], ["x.y.b.example", "x.y.c.example"]);
        assert_eq!(servers.candidates("x.y.z")[0], "x.y.z");
        assert_eq!(servers.candidates("x."), ["x"]);

        let servers = Servers::parse("", 53);
        assert_eq!(servers.addresses, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!((servers.candidates("x"), servers.dots), (vec!["x".to_owned()], 1));
        assert_eq!(Servers::parse("search a\ndomain b c\n", 53).candidates("x"), ["x.b", "x"]);
    }
}
