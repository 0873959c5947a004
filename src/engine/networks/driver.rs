//! What `-o KEY=VALUE` asks of a network: docker's keys and podman's, for the drivers that there are.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::options::network::parse_interface;
use crate::error::{Context, Error, Result};

/// `ETH_MIN_MTU` of linux/if_ether.h, and the largest IPv4 packet.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65_535;

/// What makes the interfaces of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    #[default]
    Bridge,
    Macvlan,
    Ipvlan,
    /// The host's network itself, as `network ls` shows it.
    Host,
    /// No network at all, likewise.
    Null,
}

impl Driver {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Driver {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "bridge" => Ok(Self::Bridge),
            "macvlan" => Ok(Self::Macvlan),
            "ipvlan" => Ok(Self::Ipvlan),
            "overlay" => Err(Error::unsupported("driver overlay: swarm's, which needs a daemon")),
            // Docker's words.
            "host" | "null" | "none" => {
                Err(Error::invalid(format!("only one instance of \"{text}\" network is allowed")))
            }
            _ => Err(Error::invalid(format!(
                "could not find plugin {text} in v1 plugin registry: not bridge, macvlan or ipvlan"
            ))),
        }
    }
}

/// How macvlan and ipvlan treat their neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// macvlan
    Bridge,
    Private,
    Vepa,
    Passthru,
    /// ipvlan
    L2,
    L3,
    L3s,
}

/// The options of a network, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverOptions {
    /// What its bridge is called.
    pub bridge: Option<String>,
    pub mtu: Option<u32>,
    /// Its containers are in reach of each other.
    pub connects_containers: bool,
    /// What goes elsewhere goes in this host's name.
    pub masquerades: bool,
    /// Where ports are published that say nothing about it.
    pub host_binding: Option<IpAddr>,
    /// The host's interface that macvlan and ipvlan are upon.
    pub parent: Option<String>,
    pub mode: Option<Mode>,
    /// Of the route to everywhere.
    pub metric: Option<u32>,
    pub has_default_route: bool,
    /// What interfaces of containers are called, but for their number.
    pub interface_prefix: Option<String>,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            bridge: None,
            mtu: None,
            connects_containers: true,
            masquerades: true,
            host_binding: None,
            parent: None,
            mode: None,
            metric: None,
            has_default_route: true,
            interface_prefix: None,
        }
    }
}

impl DriverOptions {
    /// `MACVLAN_MODE_*` of linux/if_link.h.
    pub fn macvlan_mode(&self) -> u32 {
        match self.mode {
            Some(Mode::Private) => 1,
            Some(Mode::Vepa) => 2,
            Some(Mode::Passthru) => 8,
            _ => 4,
        }
    }

    /// `IPVLAN_MODE_*` of linux/if_link.h.
    pub fn ipvlan_mode(&self) -> u16 {
        match self.mode {
            Some(Mode::L3) => 1,
            Some(Mode::L3s) => 2,
            _ => 0,
        }
    }

    /// Reads them as they were typed, each for the driver that knows it.
    pub fn parse(driver: Driver, options: &BTreeMap<String, String>) -> Result<Self> {
        let mut parsed = Self::default();
        for (key, value) in options {
            parsed.set(driver, key, value).with_context(|| format!("option {key}"))?;
        }
        if matches!(parsed.mode, Some(Mode::Passthru)) && parsed.parent.is_none() {
            return Err(Error::invalid("option mode: passthru needs a parent"));
        }
        Ok(parsed)
    }

    fn set(&mut self, driver: Driver, key: &str, value: &str) -> Result<()> {
        use Driver::{Bridge, Ipvlan, Macvlan};
        match (driver, key) {
            (_, "mtu" | "com.docker.network.driver.mtu") => {
                // None is the default.
                let mtu: u32 = number(value)?;
                if mtu != 0 && !MTUS.contains(&mtu) {
                    return Err(Error::invalid(format!("{value}: not from {} to {}", MTUS.start(), MTUS.end())));
                }
                self.mtu = Some(mtu).filter(|mtu| *mtu != 0);
            }
            (_, "metric") => self.metric = Some(number(value)?),
            (_, "no_default_route") => self.has_default_route = !truth(value)?,
            (_, "com.docker.network.container_iface_prefix") => self.interface_prefix = Some(parse_interface(value)?),
            (Bridge, "com.docker.network.bridge.name") => self.bridge = Some(parse_interface(value)?),
            (Bridge, "com.docker.network.bridge.enable_ip_masquerade") => self.masquerades = truth(value)?,
            (Bridge, "com.docker.network.bridge.enable_icc") => self.connects_containers = truth(value)?,
            (Bridge, "com.docker.network.bridge.host_binding_ipv4" | "com.docker.network.bridge.host_binding_ip") => {
                let address = value.parse().map_err(|_| Error::invalid(format!("invalid IP address: {value}")))?;
                self.host_binding = Some(address);
            }
            // Docker's default is in the way it is made only where there is one bridge of it.
            (Bridge, "com.docker.network.bridge.default_bridge") => drop(truth(value)?),
            (Bridge, "com.docker.network.bridge.gateway_mode_ipv4" | "com.docker.network.bridge.gateway_mode_ipv6") => {
                if value != "nat" {
                    return Err(Error::unsupported(format!("{value}: only nat is served")));
                }
            }
            // All are: podman's default since 6.0, and docker's.
            (Bridge, "isolate") if value == "strict" || truth(value)? => {}
            (Bridge, "isolate") => {
                return Err(Error::unsupported("networks are cut off from each other")
                    .with_hint("a container can be in several: --network ONE --network OTHER"));
            }
            (Bridge, "mode") if value == "managed" => {}
            (Bridge, "mode") => return Err(Error::unsupported(format!("{value}: only managed is served"))),
            (Macvlan | Ipvlan, "parent") => self.parent = Some(parse_interface(value)?),
            (Macvlan, "mode" | "macvlan_mode") => {
                self.mode = Some(match value {
                    "bridge" => Mode::Bridge,
                    "private" => Mode::Private,
                    "vepa" => Mode::Vepa,
                    "passthru" => Mode::Passthru,
                    _ => return Err(Error::invalid(format!("{value}: not bridge, private, vepa or passthru"))),
                });
            }
            (Ipvlan, "mode" | "ipvlan_mode") => {
                self.mode = Some(match value {
                    "l2" => Mode::L2,
                    "l3" => Mode::L3,
                    "l3s" => Mode::L3s,
                    _ => return Err(Error::invalid(format!("{value}: not l2, l3 or l3s"))),
                });
            }
            _ => return Err(Error::unsupported(format!("the driver {driver} has none of that name"))),
        }
        Ok(())
    }
}

fn number<T: FromStr>(text: &str) -> Result<T> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { text.parse().ok() } else { None };
    number.ok_or_else(|| Error::invalid(format!("{text:?}: not a number")))
}

/// As Go's strconv.ParseBool has it; no value means yes, as docker's CLI leaves it to be.
fn truth(text: &str) -> Result<bool> {
    match text {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("{text:?}: neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: Driver, words: &[&str]) -> Result<DriverOptions> {
        let pair = |word: &&str| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            (key.to_owned(), value.to_owned())
        };
        DriverOptions::parse(driver, &words.iter().map(pair).collect())
    }

    #[test]
    fn keys_of_both_peers_are_understood() {
        let bridge = parse(
            Driver::Bridge,
            &[
                "com.docker.network.bridge.name=br-x",
                "com.docker.network.driver.mtu=1400",
                "com.docker.network.bridge.enable_ip_masquerade=false",
                "com.docker.network.bridge.enable_icc=0",
                "com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
                "isolate=true",
                "metric=7",
                "no_default_route=true",
                "com.docker.network.container_iface_prefix=net",
            ],
        );
        let expected = DriverOptions {
            bridge: Some("br-x".to_owned()),
            mtu: Some(1400),
            connects_containers: false,
            masquerades: false,
            host_binding: Some([127, 0, 0, 1].into()),
            parent: None,
            mode: None,
            metric: Some(7),
            has_default_route: false,
            interface_prefix: Some("net".to_owned()),
        };
        assert_eq!(bridge.unwrap(), expected);
        assert!(parse(Driver::Bridge, &["isolate=strict", "mtu=0"]).unwrap() == DriverOptions::default());
        let macvlan = parse(Driver::Macvlan, &["parent=eth0.10", "mode=vepa"]).unwrap();
        assert_eq!((macvlan.parent.as_deref(), macvlan.mode), (Some("eth0.10"), Some(Mode::Vepa)));
        assert_eq!(parse(Driver::Ipvlan, &["ipvlan_mode=l3s"]).unwrap().mode, Some(Mode::L3s));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_key() {
        for (driver, word) in [
            (Driver::Bridge, "parent=eth0"),
            (Driver::Bridge, "mtu=67"),
            (Driver::Bridge, "mtu=+1400"),
            (Driver::Bridge, "vlan=12"),
            (Driver::Bridge, "isolate=maybe"),
            (Driver::Bridge, "isolate=false"),
            (Driver::Bridge, "mode=unmanaged"),
            (Driver::Bridge, "com.docker.network.bridge.name=a/b"),
            (Driver::Bridge, "com.docker.network.bridge.gateway_mode_ipv4=routed"),
            (Driver::Macvlan, "mode=l2"),
            (Driver::Macvlan, "mode=passthru"),
            (Driver::Ipvlan, "isolate=true"),
            (Driver::Ipvlan, "what=ever"),
        ] {
            let error = parse(driver, &[word]).unwrap_err().report();
            assert!(error.contains(word.split('=').next().unwrap()), "{word}: {error}");
        }
        assert!("overlay".parse::<Driver>().is_err() && "host".parse::<Driver>().is_err());
    }
}
