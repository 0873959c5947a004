//! The grammar of `--egress`: `none`, or what is allowed by name, address, block, port and protocol. Knows no rule and asks
//! for no name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::cidr::Cidr;
use crate::network::dns::Names;

/// Items of one container.
const MOST: usize = 256;

/// Ports that go with a name: each address that is learned by it is an element for each of them.
const PORTS_OF_A_NAME: usize = 64;

/// `IPPROTO_TCP` and `IPPROTO_UDP`, for which there are ports.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The host, by the names that `/etc/hosts` of a container has for it.
const HOST_NAMES: [&str; 3] = ["host.docker.internal", "gateway.docker.internal", "host.containers.internal"];

/// What a container may reach; without an item, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Policy(Vec<Item>);

/// Something that may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Item {
    target: Target,
    /// All of them, where none is named.
    ports: Option<RangeInclusive<u16>>,
    /// `IPPROTO_*`; both that have ports, or where no port is named all that there are.
    protocol: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Name { text: String, names: Names },
    Block(Cidr),
}

/// How an address may be spoken to: by a protocol and at a port, of which 0 is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way {
    pub protocol: u8,
    pub port: u16,
}

/// Addresses that may be reached whatever they are called. Protocol 0 is any, and then the ports are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub block: Cidr,
    pub protocol: u8,
    pub ports: RangeInclusive<u16>,
}

impl Grant {
    /// Whether it lets something through: protocols without ports go with those for any.
    pub fn covers(&self, to: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        let is_any = self.protocol == 0;
        let has_port = || self.protocol == protocol && port.is_some_and(|port| self.ports.contains(&port));
        self.block.contains(to) && (is_any || has_port())
    }
}

impl Policy {
    /// Parses all that was said by `--egress`; `None` where nothing was.
    pub fn parse(words: &[String]) -> Result<Option<Self>> {
        let mut items = Vec::new();
        for word in words {
            match word.split_once('=') {
                None if word == "none" && words.len() == 1 => {}
                None if word == "none" => return Err(Error::invalid("egress none: goes with nothing else")),
                Some(("allow", list)) => {
                    for text in list.split(',') {
                        items.push(text.parse()?);
                    }
                }
                _ => {
                    return Err(Error::invalid(format!("egress {word:?}: neither none nor allow=ITEM[,ITEM…]"))
                        .with_hint("--egress none, or --egress allow=example.org:443,10.0.0.0/8"));
                }
            }
        }
        if items.len() > MOST {
            return Err(Error::invalid(format!("egress: at most {MOST} items")));
        }
        Ok((!words.is_empty()).then_some(Self(items)))
    }

    /// Whether a name may be asked for. It is as a question has it.
    pub fn allows(&self, name: &str) -> bool {
        self.of_name(name).next().is_some()
    }

    /// How the addresses of a name may be spoken to.
    pub fn ways(&self, name: &str) -> Vec<Way> {
        let mut ways: Vec<Way> = self.of_name(name).flat_map(Item::ways).collect();
        ways.sort_unstable();
        ways.dedup();
        ways
    }

    fn of_name(&self, name: &str) -> impl Iterator<Item = &Item> {
        self.0.iter().filter(move |item| matches!(&item.target, Target::Name { names, .. } if names.contain(name)))
    }

    /// What may be reached by address: the blocks that are allowed, and the name servers at their port. `servers` are the
    /// host's addresses in the network as well, which its names stand for.
    ///
    /// No two of them have an address with a protocol and a port in common: a set of the kernel's that holds ranges takes
    /// none that begins or ends within another.
    pub fn grants(&self, servers: &[IpAddr]) -> Vec<Grant> {
        let mut wanted: Vec<Grant> = Vec::new();
        for item in &self.0 {
            let Target::Block(block) = item.target else { continue };
            wanted.extend(item.spans().map(|(protocol, ports)| Grant { block, protocol, ports }));
        }
        for block in servers.iter().filter_map(|server| Cidr::around(*server, bits(*server)).ok()) {
            // `*` is every name of the world, and says nothing of this host.
            let names_it = |item: &&Item| !matches!(&item.target, Target::Name { text, .. } if text == "*");
            let host = HOST_NAMES.iter().flat_map(|name| self.of_name(name)).filter(names_it).flat_map(Item::spans);
            let names = [(UDP, 53..=53), (TCP, 53..=53)];
            wanted.extend(host.chain(names).map(|(protocol, ports)| Grant { block, protocol, ports }));
        }
        disjoint(&wanted)
    }
}

/// Cuts the ports of each protocol where some range begins or ends: between two cuts, blocks are in one another or apart.
fn disjoint(wanted: &[Grant]) -> Vec<Grant> {
    let mut grants = Vec::new();
    for protocol in [0, TCP, UDP] {
        let of_protocol = || wanted.iter().filter(|grant| grant.protocol == protocol);
        let ends = of_protocol().flat_map(|grant| [u32::from(*grant.ports.start()), u32::from(*grant.ports.end()) + 1]);
        let mut cuts: Vec<u32> = ends.collect();
        cuts.sort_unstable();
        cuts.dedup();
        for pair in cuts.windows(2) {
            let [Ok(first), Ok(last)] = [pair[0].try_into(), (pair[1] - 1).try_into()] else { continue };
            let mut blocks: Vec<Cidr> =
                of_protocol().filter(|grant| grant.ports.contains(&first)).map(|grant| grant.block).collect();
            // The larger of two is met first.
            blocks.sort_unstable_by_key(|block| (block.prefix(), block.first()));
            let mut kept: Vec<Cidr> = Vec::new();
            for block in blocks {
                if !kept.iter().any(|other| other.covers(&block)) {
                    kept.push(block);
                }
            }
            grants.extend(kept.into_iter().map(|block| Grant { block, protocol, ports: first..=last }));
        }
    }
    grants
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Item {
    /// The protocols with their ports.
    fn spans(&self) -> impl Iterator<Item = (u8, RangeInclusive<u16>)> + use<> {
        let (ports, protocol) = (self.ports.clone(), self.protocol);
        let is_any = ports.is_none() && protocol.is_none();
        let protocols = match protocol {
            Some(protocol) => vec![protocol],
            None if is_any => vec![0],
            None => vec![TCP, UDP],
        };
        let ports = ports.unwrap_or(if is_any { 0..=0 } else { 0..=u16::MAX });
        protocols.into_iter().map(move |protocol| (protocol, ports.clone()))
    }

    fn ways(&self) -> Vec<Way> {
        let ports: Vec<u16> = self.ports.clone().map_or_else(|| vec![0], Iterator::collect);
        let protocols = self.spans().map(|(protocol, _)| protocol);
        protocols.flat_map(|protocol| ports.iter().map(move |port| Way { protocol, port: *port })).collect()
    }
}

impl FromStr for Item {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("egress {text:?}: {why}"));
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, "tcp")) => (rest, Some(TCP)),
            Some((rest, "udp")) => (rest, Some(UDP)),
            _ => (text, None),
        };
        let (target, ports) = split(rest).ok_or_else(|| wrong("an IPv6 address with a port is [ADDRESS]:PORT"))?;
        let ports = ports.map(parse_ports).transpose().map_err(wrong)?;
        let target = parse_target(target).map_err(|why| wrong(&why))?;
        if let (Target::Name { .. }, Some(ports)) = (&target, &ports)
            && ports.len() > PORTS_OF_A_NAME
        {
            return Err(wrong(&format!("a name goes with {PORTS_OF_A_NAME} ports at most"))
                .with_hint("without a port, all are allowed"));
        }
        Ok(Self { target, ports, protocol })
    }
}

/// Parts what is reached from the ports.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (target, rest) = rest.split_once(']')?;
        // Brackets are for what has colons.
        let address = target.split('/').next().unwrap_or_default();
        address.parse::<Ipv6Addr>().ok()?;
        return if rest.is_empty() {
            Some((target, None))
        } else {
            rest.strip_prefix(':').map(|ports| (target, Some(ports)))
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((target, ports)) if !ports.contains(':') => Some((target, Some(ports))),
        // No brackets: an address or a block of IPv6, and nothing behind it.
        Some(_) => {
            let address = text.split('/').next().unwrap_or_default();
            address.parse::<Ipv6Addr>().is_ok().then_some((text, None))
        }
    }
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let port = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten().filter(|port| *port != 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => Err("the ports are in the wrong order"),
        _ => Err("a port is a number from 1 to 65535, or two with - between"),
    }
}

fn parse_target(text: &str) -> Result<Target, String> {
    if text.contains('/') {
        return text.parse().map(Target::Block).map_err(|error: Error| error.to_string());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Cidr::around(address, bits(address)).map(Target::Block).map_err(|error| error.to_string());
    }
    let no_name = || "neither a name, *.NAME, an address, nor a block of addresses".to_owned();
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    // 10.0.0.300 is no name: no top-level domain is a number (RFC 3696, 2).
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.is_empty() || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_name());
    }
    let names = Names::parse([text.as_str()]).map_err(|_| no_name())?;
    Ok(Target::Name { text, names })
}

impl fmt::Display for Item {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Name { text, .. } => formatter.write_str(text)?,
            Target::Block(block) => {
                let is_one = block.prefix() == bits(block.first());
                let text = if is_one { block.first().to_string() } else { block.to_string() };
                let needs_brackets = block.is_ipv6() && self.ports.is_some();
                if needs_brackets { write!(formatter, "[{text}]")? } else { formatter.write_str(&text)? }
            }
        }
        match &self.ports {
            None => {}
            Some(ports) if ports.start() == ports.end() => write!(formatter, ":{}", ports.start())?,
            Some(ports) => write!(formatter, ":{}-{}", ports.start(), ports.end())?,
        }
        match self.protocol {
            Some(TCP) => formatter.write_str("/tcp"),
            Some(_) => formatter.write_str("/udp"),
            None => Ok(()),
        }
    }
}

/// As `--egress` has it.
impl fmt::Display for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "allow=";
        for item in &self.0 {
            write!(formatter, "{separator}{item}")?;
            separator = ",";
        }
        if self.0.is_empty() { formatter.write_str("none") } else { Ok(()) }
    }
}

impl TryFrom<String> for Item {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Item> for String {
    fn from(item: Item) -> Self {
        item.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(words: &[&str]) -> Result<Option<Policy>> {
        Policy::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_said_is_kept_as_it_is_said() {
        assert_eq!(policy(&[]).unwrap(), None);
        for (words, expected) in [
            (&["none"][..], "none"),
            (&["allow=Example.org."], "allow=example.org"),
            (&["allow=*.example.org:443/tcp,db"], "allow=*.example.org:443/tcp,db"),
            (&["allow=10.0.0.0/8", "allow=192.0.2.1:8000-8010"], "allow=10.0.0.0/8,192.0.2.1:8000-8010"),
            (&["allow=10.0.0.0/8:53/udp,10.1.2.3/udp"], "allow=10.0.0.0/8:53/udp,10.1.2.3/udp"),
            (
                &["allow=fd00::1,fd00::/64,[fd00::1],[fd00::/64]:80-81/tcp"],
                "allow=fd00::1,fd00::/64,fd00::1,[fd00::/64]:80-81/tcp",
            ),
        ] {
            let parsed = policy(words).unwrap().unwrap();
            assert_eq!(parsed.to_string(), expected, "{words:?}");
            let json = serde_json::to_string(&parsed).unwrap();
            assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), parsed, "{json}");
        }
    }

    #[test]
    fn what_is_no_item_is_named() {
        for (words, expected) in [
            (&["all"][..], "egress \"all\": neither none nor allow="),
            (&["allow"], "egress \"allow\": neither"),
            (&["deny=x"], "neither none nor"),
            (&["none", "allow=x"], "goes with nothing else"),
            (&["allow="], "egress \"\": neither a name"),
            (&["allow=a,,b"], "egress \"\": neither a name"),
            (&["allow=a b"], "egress \"a b\": neither a name"),
            (&["allow=https://example.org"], "egress \"https://example.org\": "),
            (&["allow=10.0.0.300"], "egress \"10.0.0.300\": neither a name"),
            (&["allow=10.0.0.1/8"], "the block is 10.0.0.0/8"),
            (&["allow=10.0.0.0/33"], "a prefix has at most 32 bits"),
            (&["allow=example.org/24"], "not a block of addresses"),
            (&["allow=example.org:0"], "a port is a number from 1"),
            (&["allow=example.org:"], "a port is a number from 1"),
            (&["allow=example.org:70000"], "a port is a number from 1"),
            (&["allow=example.org:+1"], "a port is a number from 1"),
            (&["allow=example.org:90-80"], "in the wrong order"),
            (&["allow=example.org:1-65"], "64 ports at most"),
            (&["allow=example.org/sctp"], "not a block"),
            (&["allow=fd00::1:443:x"], "[ADDRESS]:PORT"),
            (&["allow=[example.org]:443"], "[ADDRESS]:PORT"),
            (&["allow=[fd00::1]443"], "[ADDRESS]:PORT"),
            (&["allow=*.*.org"], "neither a name"),
        ] {
            let error = policy(words).unwrap_err().to_string();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }

    #[test]
    fn names_have_ways() {
        let policy = policy(&["allow=example.org:443,*.example.org/udp,example.org:80/tcp,db"]).unwrap().unwrap();
        let ways = |name: &str| {
            policy.ways(name).iter().map(|way| format!("{}:{}", way.protocol, way.port)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ways("Example.Org"), "6:80 6:443 17:443");
        assert_eq!(ways("www.example.org"), "17:0");
        assert_eq!(ways("db"), "0:0");
        assert_eq!(ways("example.net"), "");
        assert!(!policy.allows("10.0.0.1") && !policy.allows("."));
    }

    #[test]
    fn grants_have_nothing_in_common() {
        let policy = policy(&[
            "allow=10.0.0.0/8:443,10.1.0.0/16:400-500/tcp,10.1.2.3,192.0.2.0/24/udp,host.docker.internal:8080/tcp",
        ]);
        let grants = policy.unwrap().unwrap().grants(&["10.89.0.1".parse().unwrap()]);
        let text = |grant: &Grant| format!("{} {} {:?}", grant.block, grant.protocol, grant.ports);
        assert_eq!(
            grants.iter().map(text).collect::<Vec<_>>(),
            [
                "10.1.2.3/32 0 0..=0",
                "10.89.0.1/32 6 53..=53",
                "10.1.0.0/16 6 400..=442",
                "10.0.0.0/8 6 443..=443",
                "10.1.0.0/16 6 444..=500",
                "10.89.0.1/32 6 8080..=8080",
                "192.0.2.0/24 17 0..=52",
                "192.0.2.0/24 17 53..=53",
                "10.89.0.1/32 17 53..=53",
                "192.0.2.0/24 17 54..=442",
                "10.0.0.0/8 17 443..=443",
                "192.0.2.0/24 17 443..=443",
                "192.0.2.0/24 17 444..=65535",
            ]
        );
        for (place, one) in grants.iter().enumerate() {
            for other in &grants[place + 1..] {
                let is_apart = one.protocol != other.protocol
                    || !one.block.overlaps(&other.block)
                    || one.ports.end() < other.ports.start()
                    || other.ports.end() < one.ports.start();
                assert!(is_apart, "{one:?} and {other:?}");
            }
        }
    }
}
