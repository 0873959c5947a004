//! `-p`, `-P` and `--expose`: which ports of a container the host is to have.
//!
//! Ranges are taken apart here, once: what is recorded names one port of the container each.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::network::port::Protocol;
use crate::support::text::serialise_as_text;

/// Entries that one container can have: all ports of one protocol.
const MOST: usize = 65_535;

/// Ports one after another, of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

impl Ports {
    pub fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl FromStr for Ports {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // `parse` would take a sign.
        let port = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<u16>().ok()).flatten().ok_or(())
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first <= last { Ok(Self { first, last }) } else { Err(()) }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// A port of the container by itself: `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerPort {
    pub port: u16,
    pub protocol: Protocol,
}

impl FromStr for ContainerPort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match parse_exposed(text)?.as_slice() {
            [port] => Ok(*port),
            _ => Err(Error::invalid(format!("port {text:?}: not one alone"))),
        }
    }
}

impl fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// A port that is to be published: `[ADDRESS:][PORT[-PORT]:]PORT/PROTOCOL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// Where on the host; `None` is everywhere.
    pub host: Option<IpAddr>,
    /// Any of these, the first that is free; `None` is whichever the kernel gives.
    pub host_ports: Option<Ports>,
    pub port: u16,
    pub protocol: Protocol,
}

impl PublishedPort {
    /// The container's port.
    pub fn inside(&self) -> ContainerPort {
        ContainerPort { port: self.port, protocol: self.protocol }
    }

    /// The host's port as docker writes it where it is not decided yet.
    pub fn host_word(&self) -> String {
        self.host_ports.map_or_else(String::new, |ports| ports.to_string())
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}:", self.host_word())?,
            Some(address) => write!(f, "{address}:{}:", self.host_word())?,
            None if self.host_ports.is_some() => write!(f, "{}:", self.host_word())?,
            None => {}
        }
        self.inside().fmt(f)
    }
}

impl FromStr for PublishedPort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match parse_published(text)?.as_slice() {
            [port] => Ok(*port),
            _ => Err(Error::invalid(format!("port {text:?}: not one alone"))),
        }
    }
}

serialise_as_text!(PublishedPort, ContainerPort);

/// Parses `-p [ADDRESS:][HOST-PORTS]:PORTS[/PROTOCOL]`, or `PORTS[/PROTOCOL]` alone, as docker does.
pub fn parse_published(text: &str) -> Result<Vec<PublishedPort>> {
    let (outside, inside) = match text.rsplit_once(':') {
        Some((outside, inside)) => (Some(outside), inside),
        None => (None, text),
    };
    let (ports, protocol) = inside.split_once('/').unwrap_or((inside, "tcp"));
    if ports.is_empty() {
        return Err(Error::invalid(format!("no port specified: {text}")));
    }
    let protocol: Protocol = protocol.parse()?;
    let inside = ports.parse::<Ports>().ok().filter(|ports| ports.first > 0);
    let inside = inside.ok_or_else(|| Error::invalid(format!("invalid containerPort: {ports}")))?;
    let (host, host_ports) = match outside {
        Some(outside) => parse_outside(outside)?,
        None => (None, None),
    };
    let count = inside.count();
    match host_ports {
        // A range for one port: any of them. Else one for each.
        Some(ports) if ports.count() != count && count > 1 => {
            let text = format!("invalid ranges specified for container and host Ports: {inside} and {ports}");
            return Err(Error::invalid(text));
        }
        _ => {}
    }
    let entry = |(place, port): (usize, u16)| {
        let host_ports = match host_ports {
            Some(ports) if count > 1 => ports.iter().nth(place).map(Ports::one),
            one_or_any => one_or_any,
        };
        PublishedPort { host, host_ports, port, protocol }
    };
    Ok(inside.iter().enumerate().map(entry).collect())
}

/// `[ADDRESS:]PORTS`, where either may be empty; an IPv6 address is in brackets.
fn parse_outside(text: &str) -> Result<(Option<IpAddr>, Option<Ports>)> {
    let (address, ports) = match text.rsplit_once(':') {
        Some((address, ports)) if !ports.contains(']') => (address, ports),
        _ if text.starts_with('[') || text.contains('.') => (text, ""),
        _ => ("", text),
    };
    let bare = match address.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']'),
        // Docker takes one without them, for the sake of old scripts.
        None => Some(address),
    };
    let invalid = || Error::invalid(format!("invalid IP address: {address}"));
    let host = match bare.ok_or_else(invalid)? {
        "" => None,
        bare => Some(bare.parse::<IpAddr>().map_err(|_| invalid())?),
    };
    let ports = match ports {
        "" | "0" => None,
        ports => {
            let parsed = ports.parse::<Ports>().ok().filter(|ports| ports.first > 0);
            Some(parsed.ok_or_else(|| Error::invalid(format!("invalid hostPort: {ports}")))?)
        }
    };
    Ok((host, ports))
}

/// Parses `--expose PORTS[/PROTOCOL]`.
pub fn parse_exposed(text: &str) -> Result<Vec<ContainerPort>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let parsed = ports.parse::<Ports>().ok().filter(|ports| ports.first > 0);
    let (Some(ports), Ok(protocol)) = (parsed, protocol.parse::<Protocol>()) else {
        return Err(Error::invalid(format!("expose {text:?}: not PORT[-PORT][/tcp|udp|sctp]")));
    };
    Ok(ports.iter().map(|port| ContainerPort { port, protocol }).collect())
}

/// Refuses what cannot be: two that want the same port of the host, or more than there are.
pub fn check_published(published: &[PublishedPort]) -> Result<()> {
    if published.len() > MOST {
        return Err(Error::invalid(format!("published ports: more than {MOST}")));
    }
    let mut fixed = BTreeSet::new();
    for port in published {
        let Some(Ports { first, last }) = port.host_ports.filter(|ports| ports.count() == 1) else { continue };
        if !fixed.insert((port.protocol, first, last, port.host)) {
            let at = SocketAddr::new(port.host.unwrap_or(IpAddr::from([0; 4])), first);
            return Err(Error::invalid(format!("port {at}/{} is published twice", port.protocol)));
        }
    }
    Ok(())
}

/// What is published, with a port of the host for each exposed one that is not published by name (`-P`).
pub fn with_exposed(
    published: &[PublishedPort],
    exposed: impl IntoIterator<Item = ContainerPort>,
) -> Vec<PublishedPort> {
    let mut all = published.to_vec();
    let mut known: BTreeSet<ContainerPort> = published.iter().map(PublishedPort::inside).collect();
    for port in exposed {
        if known.insert(port) {
            let ContainerPort { port, protocol } = port;
            all.push(PublishedPort { host: None, host_ports: None, port, protocol });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_have_dockers_grammar() {
        for (text, expected) in [
            ("80", &["80/tcp"][..]),
            ("80/udp", &["80/udp"]),
            ("80/SCTP", &["80/sctp"]),
            (":80", &["80/tcp"]),
            ("0:80", &["80/tcp"]),
            ("8080:80", &["8080:80/tcp"]),
            ("8080-8081:80-81/udp", &["8080:80/udp", "8081:81/udp"]),
            ("80-81", &["80/tcp", "81/tcp"]),
            ("8080-8090:80", &["8080-8090:80/tcp"]),
            ("127.0.0.1:8080:80", &["127.0.0.1:8080:80/tcp"]),
            ("127.0.0.1::80", &["127.0.0.1::80/tcp"]),
            ("127.0.0.1:80", &["127.0.0.1::80/tcp"]),
            ("127.0.0.1:0:80", &["127.0.0.1::80/tcp"]),
            ("0.0.0.0:80:80", &["0.0.0.0:80:80/tcp"]),
            ("[::1]:8080:80/tcp", &["[::1]:8080:80/tcp"]),
            ("[::]::80", &["[::]::80/tcp"]),
            ("[::1]:80", &["[::1]::80/tcp"]),
            ("::1:8080:80", &["[::1]:8080:80/tcp"]),
        ] {
            let parsed: Vec<String> = parse_published(text).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(parsed, expected, "{text}");
            for text in &parsed {
                assert_eq!(text.parse::<PublishedPort>().unwrap().to_string(), *text, "as it is recorded");
            }
        }
        for (text, expected) in [
            ("", "no port specified"),
            ("8080:", "no port specified"),
            ("a:80", "invalid hostPort: a"),
            ("80:a", "invalid containerPort: a"),
            ("80:0", "invalid containerPort: 0"),
            ("65536:80", "invalid hostPort"),
            ("+1:80", "invalid hostPort"),
            ("81-80:80", "invalid hostPort"),
            ("80/icmp", "invalid proto: icmp"),
            ("localhost:80:80", "invalid IP address: localhost"),
            ("[::1:80:80", "invalid IP address"),
            ("127.0.0.256:80:80", "invalid IP address"),
            ("80-81:80-82", "invalid ranges specified for container and host Ports: 80-82 and 80-81"),
            ("80:80-82", "invalid ranges"),
        ] {
            let error = parse_published(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_is_published_twice_in_one_place() {
        let parse = |words: &[&str]| -> Vec<PublishedPort> {
            words.iter().flat_map(|word| parse_published(word).unwrap()).collect()
        };
        assert!(check_published(&parse(&["80:80", "80:80/udp", "81:80", "90", "90", "127.0.0.1:80:80"])).is_ok());
        let error = check_published(&parse(&["80:80", "80:81"])).unwrap_err();
        assert!(error.to_string().contains("port 0.0.0.0:80/tcp is published twice"), "{error}");
    }

    #[test]
    fn exposed_ports_are_published_once() {
        let published = parse_published("8080:80").unwrap();
        let exposed = parse_exposed("80-81").unwrap().into_iter().chain(parse_exposed("80/udp").unwrap());
        let all: Vec<String> = with_exposed(&published, exposed).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["8080:80/tcp", "81/tcp", "80/udp"]);
        for text in ["", "0", "a", "80/icmp", "81-80", "8080:80"] {
            assert!(parse_exposed(text).is_err(), "{text}");
        }
    }
}
