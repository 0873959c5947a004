//! What a container's `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` are to say.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::sparse;
use crate::error::{Error, Result};
use crate::support::text::serialise_as_text;

sparse! {
    /// The files that tell a container who others are.
    pub struct HostFiles {
        /// `--add-host`
        pub added: Vec<HostEntry>,
        /// `--dns`
        pub servers: Vec<IpAddr>,
        /// `--dns-search`; `.` alone for none.
        pub search: Vec<String>,
        /// `--dns-option`
        pub options: Vec<String>,
        /// Where `/etc/hosts` comes from.
        pub hosts: HostsSource,
        /// `--no-hostname`: the image's `/etc/hostname` stays.
        pub keeps_hostname: bool,
        /// `--dns none`: the image's `/etc/resolv.conf` stays.
        pub keeps_resolver: bool,
    }
}

/// Where `/etc/hosts` comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostsSource {
    /// Made anew, or on the host's network the host's.
    #[default]
    Made,
    /// `--no-hosts`: the image's stays.
    Image,
    /// `--hosts-file PATH`: the beginning of it is this file of the host's.
    File(std::path::PathBuf),
}

/// `--add-host NAME:ADDRESS`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    pub names: Vec<String>,
    pub address: HostAddress,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    Ip(IpAddr),
    /// `host-gateway`: the host, as the container reaches it.
    Gateway,
}

impl FromStr for HostEntry {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |cause: &str| Error::invalid(format!("host {text:?}: {cause}"));
        // Docker takes `=` as well, which reads better before an IPv6 address.
        let at = text.find([':', '=']).ok_or_else(|| wrong("not NAME:ADDRESS"))?;
        let (names, address) = (&text[..at], &text[at + 1..]);
        let names: Vec<String> = names.split(';').map(str::to_owned).collect();
        let strange = |name: &String| name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '#');
        if names.iter().any(strange) {
            return Err(wrong("no name of a host"));
        }
        if address == "host-gateway" {
            return Ok(Self { names, address: HostAddress::Gateway });
        }
        let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
        let address = bare.parse().map_err(|_| wrong("not an IP address"))?;
        Ok(Self { names, address: HostAddress::Ip(address) })
    }
}

impl fmt::Display for HostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.names.join(";"))?;
        match self.address {
            HostAddress::Ip(address) => address.fmt(f),
            HostAddress::Gateway => f.write_str("host-gateway"),
        }
    }
}

serialise_as_text!(HostEntry);

/// Parses `--dns-search`: a domain, or `.`.
pub fn parse_domain(text: &str) -> Result<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(Error::invalid(format!("{text:?} is not a domain")));
    }
    Ok(text.to_owned())
}

/// Parses `--dns-option`: one word of resolv.conf(5).
pub fn parse_resolver_option(text: &str) -> Result<String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(Error::invalid(format!("{text:?} is not an option of resolv.conf")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_names_and_an_address() {
        for (text, expected) in [
            ("db:10.0.0.1", "db:10.0.0.1"),
            ("db=10.0.0.1", "db:10.0.0.1"),
            ("six:::1", "six:::1"),
            ("six:[fe80::1]", "six:fe80::1"),
            ("a;b:1.2.3.4", "a;b:1.2.3.4"),
            ("host.docker.internal:host-gateway", "host.docker.internal:host-gateway"),
        ] {
            assert_eq!(text.parse::<HostEntry>().unwrap().to_string(), expected);
        }
        for text in ["", "db", ":1.2.3.4", "db:", "db:1.2.3", "a b:1.2.3.4", "a\n1.1.1.1 b:1.2.3.4", "a;:1.2.3.4"] {
            assert!(text.parse::<HostEntry>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn nothing_breaks_out_of_a_line() {
        assert!(parse_domain("example.com\nnameserver 6.6.6.6").is_err());
        assert!(parse_resolver_option("ndots:2 x").is_err());
        assert_eq!(parse_domain(".").unwrap(), ".");
    }
}
