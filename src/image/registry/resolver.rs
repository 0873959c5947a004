//! Addresses of hosts, without the C library: `/etc/hosts`, then DNS as `/etc/resolv.conf` says.
//!
//! A static executable cannot use getaddrinfo(3), which loads modules of the C library that the host happens to have. What
//! those do besides (mDNS, LDAP) is not done here; systemd-resolved is reached as the name server that it is. IPv4 addresses
//! come before IPv6 ones, and those that this machine has no route to come last. Every lookup ends within the time that it
//! was given. Connects to name servers and to nothing else.

mod dns;
mod hosts;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Timeout;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::support::caller::Caller;
use crate::support::resolv_conf::Servers;

/// What a lookup may take where nobody says less.
const LOOKUP_SECONDS: u64 = 30;

/// How long an answer is used again: a pull makes many connections to few hosts.
const MEMORY_SECONDS: u64 = 30;

const DNS_PORT: u16 = 53;

/// Addresses that are tried, at most (ureq's own limit).
const ADDRESSES: usize = 16;

/// Characters of a name (RFC 1035, 2.3.4).
const NAME_BYTES: usize = 253;

/// Why a name has no address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no such name, or it has no addresses.
    NotFound,
    /// Nobody answered in time.
    Timeout,
    /// Whatever else; the text says it.
    Other(String),
}

/// Finds addresses by this machine's configuration.
pub struct HostResolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    port: u16,
    memory: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
}

impl HostResolver {
    /// Takes the machine's files; they are read with each lookup, since a laptop's change.
    pub fn new(caller: &Caller) -> Self {
        Self {
            hosts: caller.system("/etc/hosts"),
            resolv_conf: caller.system("/etc/resolv.conf"),
            port: DNS_PORT,
            memory: Mutex::default(),
        }
    }

    /// Finds the addresses of a host, which may be an address itself. Never gives none.
    fn lookup(&self, host: &str, deadline: Instant) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![address]);
        }
        let host = host.to_ascii_lowercase();
        let memory = || self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, addresses)) = memory().get(&host)
            && Instant::now() < *until
        {
            return Ok(addresses.clone());
        }
        let mut addresses = self.find(&host, deadline)?;
        if addresses.is_empty() {
            return Err(Failure::NotFound);
        }
        addresses.sort_by_key(|address| (!is_routed(*address), address.is_ipv6()));
        memory().insert(host, (Instant::now() + Duration::from_secs(MEMORY_SECONDS), addresses.clone()));
        Ok(addresses)
    }

    fn find(&self, host: &str, deadline: Instant) -> Result<Vec<IpAddr>, Failure> {
        let name = host.trim_end_matches('.');
        if !is_name(name) {
            return Err(Failure::NotFound);
        }
        let known = hosts::read_hosts(&self.hosts, name).map_err(|error| Failure::Other(error.report()))?;
        if !known.is_empty() {
            return Ok(known);
        }
        // Never asked of a server (RFC 6761, 6.3).
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let servers = Servers::read(&self.resolv_conf, self.port).map_err(|error| Failure::Other(error.report()))?;
        let mut failure = Failure::NotFound;
        for candidate in servers.candidates(host).into_iter().filter(|name| is_name(name)) {
            match dns::query(&servers, &candidate, deadline) {
                Ok(addresses) if addresses.is_empty() => {}
                // What one server cannot tell of a name in its search list, it may of the name itself.
                Err(error @ Failure::Other(_)) => failure = error,
                answer => return answer,
            }
        }
        Err(failure)
    }
}

impl fmt::Debug for HostResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostResolver")
    }
}

impl Resolver for HostResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or_else(|| ureq::Error::BadUri("the host is missing".to_owned()))?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let time = (*timeout.after).min(Duration::from_secs(LOOKUP_SECONDS));
        let addresses = self.lookup(host, Instant::now() + time).map_err(|failure| match failure {
            Failure::NotFound => ureq::Error::HostNotFound,
            Failure::Timeout => ureq::Error::Timeout(Timeout::Resolve),
            Failure::Other(text) => ureq::Error::Io(std::io::Error::other(format!("look up {host}: {text}"))),
        })?;
        let mut resolved = self.empty();
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port));
        for address in config.ip_family().keep_wanted(addresses).take(ADDRESSES) {
            resolved.push(address);
        }
        if resolved.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(resolved) }
    }
}

/// Reads bytes as a server's answer and as both files; gives how many addresses there are. For the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any(bytes: &[u8]) -> usize {
    let servers = Servers::parse(&String::from_utf8_lossy(bytes), DNS_PORT);
    assert!((1..=3).contains(&servers.addresses.len()) && servers.candidates("host").len() <= 7);
    let known = hosts::find_host(bytes, "localhost").expect("memory can be read");
    known.len() + dns::read_any(bytes)
}

/// Tells whether a text can be asked for; names of hosts have underscores in practice.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= NAME_BYTES && text.split('.').all(is_label)
}

/// Tells whether the kernel has a route: a datagram socket that is connected sends nothing.
fn is_routed(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect((address, 53)).is_ok())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests;
