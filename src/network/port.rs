//! Ports of the host that lead to containers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::support::text::serialise_as_text;

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Its number in IP (`IPPROTO_*`).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Error::invalid(format!("invalid proto: {text}"))),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port of the host that leads to a container: `127.0.0.1:8080->80/tcp`, `*:8080->80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BoundPort {
    /// `None` is everywhere, of both families.
    pub host: Option<IpAddr>,
    pub host_port: u16,
    /// In the container.
    pub port: u16,
    pub protocol: Protocol,
}

impl fmt::Display for BoundPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(address) => write!(f, "{}", SocketAddr::new(address, self.host_port))?,
            None => write!(f, "*:{}", self.host_port)?,
        }
        write!(f, "->{}/{}", self.port, self.protocol)
    }
}

impl FromStr for BoundPort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || Error::invalid(format!("{text:?}: not ADDRESS:PORT->PORT/PROTOCOL"));
        let (outside, inside) = text.split_once("->").ok_or_else(malformed)?;
        let (port, protocol) = inside.split_once('/').ok_or_else(malformed)?;
        let (host, host_port) = if let Some(port) = outside.strip_prefix("*:") {
            (None, port.parse().map_err(|_| malformed())?)
        } else {
            let at: SocketAddr = outside.parse().map_err(|_| malformed())?;
            (Some(at.ip()), at.port())
        };
        Ok(Self { host, host_port, port: port.parse().map_err(|_| malformed())?, protocol: protocol.parse()? })
    }
}

serialise_as_text!(BoundPort);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_ports_are_read_as_they_are_written() {
        for text in ["*:8080->80/tcp", "127.0.0.1:53->53/udp", "[::1]:1->65535/sctp"] {
            assert_eq!(text.parse::<BoundPort>().unwrap().to_string(), text);
        }
        for text in ["", "80", "*:80", "*:80->80", "*:65536->80/tcp", "::1:80->80/tcp", "*:80->80/icmp"] {
            assert!(text.parse::<BoundPort>().is_err(), "{text}");
        }
    }
}
