//! `--network` and its kin: the networks that a container is in, and who it is there.
//!
//! A network is a name here; whether there is one of that name is for [`create`](crate::engine::create) to find out.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::namespaces::NamespaceMode;
use super::sparse;
use crate::error::{Error, Result};
use crate::network::lease::Mac;

/// The network of those who name none, where the default is to have one.
pub const DEFAULT: &str = "bridge";

/// `IFNAMSIZ` of linux/if.h, without the end of the text.
const INTERFACE_BYTES: usize = 15;

/// Names and aliases are host names (RFC 1035, 2.3.4).
const ALIAS_BYTES: usize = 253;

/// Networks that one container is in.
const MOST: usize = 64;

/// The networks that a container is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A namespace with nothing but a loopback device.
    #[default]
    None,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
    /// The namespace of a path.
    Path(PathBuf),
    /// A namespace of its own, with an interface in each of these.
    Joined(Vec<Attachment>),
}

impl Network {
    /// The networks that it is in by name.
    pub fn attachments(&self) -> &[Attachment] {
        match self {
            Self::Joined(attachments) => attachments,
            Self::None | Self::Host | Self::Container(_) | Self::Path(_) => &[],
        }
    }

    /// Says whether the network namespace is one that is made for the container.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::None | Self::Joined(_))
    }

    /// Gives whose namespace it is.
    pub fn namespace(&self) -> NamespaceMode {
        match self {
            Self::None | Self::Joined(_) => NamespaceMode::Private,
            Self::Host => NamespaceMode::Host,
            Self::Container(name) => NamespaceMode::Container(name.clone()),
            Self::Path(path) => NamespaceMode::Path(path.clone()),
        }
    }

    /// Docker's word for it (`HostConfig.NetworkMode`): of several networks, the first.
    pub fn mode(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Joined(attachments) => attachments.first().map_or("none", |first| &first.network).to_owned(),
            other => other.namespace().to_string(),
        }
    }
}

sparse! {
    /// A container's place in a network, as it was asked for.
    pub struct Attachment {
        /// The network's name.
        pub network: String,
        pub ip: Option<Ipv4Addr>,
        pub ip6: Option<Ipv6Addr>,
        pub mac: Option<Mac>,
        /// What it is called there besides its own name.
        pub aliases: Vec<String>,
        /// What its interface is called.
        pub interface: Option<String>,
        /// Of several networks, the way to everywhere goes through that with the highest.
        pub gateway_priority: i32,
    }
}

impl Attachment {
    pub fn to(network: impl Into<String>) -> Self {
        Self { network: network.into(), ..Self::default() }
    }

    /// The addresses that it asks for.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ip.map(IpAddr::from).into_iter().chain(self.ip6.map(IpAddr::from)).collect()
    }

    fn is_plain(&self) -> bool {
        *self == Self::to(self.network.clone())
    }

    /// Reads podman's and docker's pairs of a key and a value.
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        let network = &self.network;
        let value = value.filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| Error::invalid(format!("network {network}: {key} needs a value")))?;
        match key {
            "ip" | "ip6" => match parse_address(value)? {
                IpAddr::V4(address) if key == "ip" => self.ip = Some(address),
                IpAddr::V6(address) => self.ip6 = Some(address),
                IpAddr::V4(_) => return Err(Error::invalid(format!("ip6 {value}: an IPv4 address"))),
            },
            "mac" | "mac-address" => self.mac = Some(value.parse()?),
            "alias" => self.aliases.push(parse_alias(value)?),
            "interface_name" | "interface-name" => self.interface = Some(parse_interface(value)?),
            "gw-priority" => {
                let invalid = |_| Error::invalid(format!("invalid gw-priority ({value}): not an integer"));
                self.gateway_priority = value.parse().map_err(invalid)?;
            }
            "driver-opt" => match value.split_once('=') {
                Some(("com.docker.network.endpoint.ifname", name)) => self.interface = Some(parse_interface(name)?),
                _ => return Err(Error::unsupported(format!("network {network}: driver-opt {value}"))),
            },
            "link-local-ip" => {
                return Err(Error::unsupported(format!("network {network}: link-local-ip: the kernel makes them")));
            }
            _ => return Err(Error::invalid(format!("network {network}: unknown option {key}"))),
        }
        Ok(())
    }
}

/// `--ip`, `--ip6`, `--mac-address` and `--network-alias`: for the one network that is named besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alone {
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    pub mac: Option<Mac>,
    pub aliases: Vec<String>,
}

/// Makes the networks of all `--network`, and of what is said of the only one by flags of its own. `default` is for who says
/// none.
pub fn parse(words: &[String], alone: Alone, default: Network) -> Result<Network> {
    let mut attachments: Vec<Attachment> = Vec::new();
    let mut mode = None;
    for word in words {
        match parse_word(word, &default)? {
            Network::Joined(more) => attachments.extend(more),
            other => mode = Some(other),
        }
    }
    if mode.is_some() && words.len() > 1 {
        return Err(Error::invalid(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = attachments.iter().find(|attachment| !names.insert(&attachment.network)) {
        return Err(Error::invalid(format!("network {:?} is specified multiple times", twice.network)));
    }
    if attachments.len() > MOST {
        return Err(Error::invalid(format!("network: a container is in {MOST} at most")));
    }
    let mut network = match mode {
        Some(mode) => mode,
        None if attachments.is_empty() => default,
        None => Network::Joined(attachments),
    };
    alone.put(&mut network)?;
    for attachment in network.attachments() {
        // There is no name server on it: nobody could ask for the alias.
        if attachment.network == DEFAULT && !attachment.aliases.is_empty() {
            return Err(no_alias());
        }
    }
    Ok(network)
}

impl Alone {
    fn put(self, network: &mut Network) -> Result<()> {
        let Self { ip, ip6, mac, aliases } = self;
        let is_addressed = ip.is_some() || ip6.is_some();
        let Network::Joined(attachments) = network else {
            let mode = network.mode();
            return match () {
                () if is_addressed => Err(no_address().with_hint(format!("--network is {mode}"))),
                () if mac.is_some() => Err(Error::invalid("conflicting options: mac-address and the network mode")
                    .with_hint(format!("--network is {mode}"))),
                () if !aliases.is_empty() => Err(no_alias().with_hint(format!("--network is {mode}"))),
                () => Ok(()),
            };
        };
        let is_given = is_addressed || mac.is_some();
        // Docker gives them to the first; of several that is a guess.
        if attachments.len() > 1 && is_given {
            return Err(Error::invalid("ip, ip6, mac-address: of which network is not said")
                .with_hint("--network NAME:ip=ADDRESS,mac=ADDRESS"));
        }
        let both = |flag: &str, what: &str| {
            let text = format!("conflicting options: cannot specify both --{flag} and per-network {what}");
            Err(Error::invalid(text))
        };
        for attachment in attachments {
            match () {
                () if ip.is_some() && attachment.ip.is_some() => return both("ip", "IPv4 address"),
                () if ip6.is_some() && attachment.ip6.is_some() => return both("ip6", "IPv6 address"),
                () if mac.is_some() && attachment.mac.is_some() => return both("mac-address", "MAC address"),
                () => {}
            }
            attachment.ip = attachment.ip.or(ip);
            attachment.ip6 = attachment.ip6.or(ip6);
            attachment.mac = attachment.mac.or(mac);
            // Podman's meaning, of all that it is in.
            attachment.aliases.extend(aliases.iter().cloned());
        }
        Ok(())
    }
}

/// One word of `--network`: a mode, `NAME[:KEY=VALUE,…]` or docker's `name=NAME,KEY=VALUE,…`.
fn parse_word(word: &str, default: &Network) -> Result<Network> {
    match word {
        "" | "private" => return Ok(default.clone()),
        "none" => return Ok(Network::None),
        "host" => return Ok(Network::Host),
        _ => {}
    }
    let (name, rest) = word.split_once(':').unwrap_or((word, ""));
    match name {
        "container" | "ns" => {
            return Ok(match word.parse()? {
                NamespaceMode::Path(path) => Network::Path(path),
                NamespaceMode::Container(name) => Network::Container(name),
                NamespaceMode::Private | NamespaceMode::Host => Network::None,
            });
        }
        "pasta" | "slirp4netns" => {
            return Err(Error::unsupported(format!("network {name}: husk has a way of its own to the host's network"))
                .with_hint("--network bridge, or a network of `husk network create`"));
        }
        _ => {}
    }
    let mut attachment = Attachment::default();
    let pairs = if word.split(',').any(|pair| pair.starts_with("name=")) {
        for pair in word.split(',') {
            if let Some(name) = pair.strip_prefix("name=") {
                name.clone_into(&mut attachment.network);
            }
        }
        word
    } else {
        name.clone_into(&mut attachment.network);
        rest
    };
    if attachment.network == "default" {
        DEFAULT.clone_into(&mut attachment.network);
    }
    if attachment.network.is_empty() || attachment.network.contains(['=', ',', '/']) {
        return Err(Error::invalid(format!("network {word:?}: not NAME[:KEY=VALUE,…]")));
    }
    for pair in pairs.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
        if key != "name" {
            attachment.set(key, value)?;
        }
    }
    match attachment.network.as_str() {
        mode @ ("none" | "host") if attachment.is_plain() => parse_word(mode, default),
        "none" | "host" => Err(no_address()),
        _ => Ok(Network::Joined(vec![attachment])),
    }
}

fn parse_address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))
}

/// Parses `--network-alias`: a host name.
pub fn parse_alias(text: &str) -> Result<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > ALIAS_BYTES || !text.bytes().all(allowed) || text.starts_with(['.', '-']) {
        return Err(Error::invalid(format!("alias {text:?}: not the name of a host")));
    }
    Ok(text.to_owned())
}

/// Parses the name of an interface.
pub fn parse_interface(text: &str) -> Result<String> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    if text.is_empty()
        || text.len() > INTERFACE_BYTES
        || !text.bytes().all(allowed)
        || [".", "..", "lo"].contains(&text)
    {
        return Err(Error::invalid(format!("interface name {text:?}: not one, at most {INTERFACE_BYTES} characters")));
    }
    Ok(text.to_owned())
}

fn no_address() -> Error {
    Error::invalid("user specified IP address is supported on user defined networks only")
}

pub fn no_alias() -> Error {
    Error::invalid("network-scoped alias is supported only for containers in user defined networks")
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(&[text.to_owned()], Alone::default(), Self::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Network> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&words, Alone::default(), Network::None)
    }

    fn json(network: &Network) -> String {
        serde_json::to_string(network).unwrap()
    }

    #[test]
    fn networks_are_modes_or_names_with_particulars() {
        for (words, expected) in [
            (&["none"][..], r#""none""#),
            (&[], r#""none""#),
            (&["private"], r#""none""#),
            (&["host"], r#""host""#),
            (&["name=host"], r#""host""#),
            (&["container:db"], r#"{"container":"db"}"#),
            (&["ns:/run/netns/x"], r#"{"path":"/run/netns/x"}"#),
            (&["bridge"], r#"{"joined":[{"network":"bridge"}]}"#),
            (&["default"], r#"{"joined":[{"network":"bridge"}]}"#),
            (&["a", "b"], r#"{"joined":[{"network":"a"},{"network":"b"}]}"#),
            (
                &["a:ip=10.0.0.5,ip=fd00::5,mac=02:42:00:00:00:05,alias=x,alias=y,interface_name=net0"],
                r#"{"joined":[{"network":"a","ip":"10.0.0.5","ip6":"fd00::5","mac":"02:42:00:00:00:05","aliases":["x","y"],"interface":"net0"}]}"#,
            ),
            (
                &["alias=x,name=a,ip=10.0.0.5,ip6=fd00::5,mac-address=02:42:00:00:00:05,gw-priority=-2"],
                r#"{"joined":[{"network":"a","ip":"10.0.0.5","ip6":"fd00::5","mac":"02:42:00:00:00:05","aliases":["x"],"gateway_priority":-2}]}"#,
            ),
        ] {
            let network = parsed(words).unwrap();
            assert_eq!(json(&network), expected, "{words:?}");
            assert_eq!(serde_json::from_str::<Network>(expected).unwrap(), network);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (words, expected) in [
            (&["a", "host"][..], "cannot attach both user-defined and non-user-defined"),
            (&["none", "none"], "cannot attach both"),
            (&["a", "a:ip=10.0.0.1"], "network \"a\" is specified multiple times"),
            (&["name=host,ip=10.0.0.1"], "user specified IP address is supported on user defined networks only"),
            (&["host:ip=10.0.0.1"], "user specified IP address"),
            (&["bridge:alias=x"], "network-scoped alias is supported only"),
            (&["pasta"], "a way of its own"),
            (&["slirp4netns:port_handler=x"], "a way of its own"),
            (&["a:ip"], "ip needs a value"),
            (&["a:ip=300.0.0.1"], "invalid IP address: 300.0.0.1"),
            (&["a:ip6=10.0.0.1"], "an IPv4 address"),
            (&["a:mac=01:00:5e:00:00:01"], "an address of many"),
            (&["a:alias=x y"], "not the name of a host"),
            (&["a:interface_name=lo"], "interface name"),
            (&["a:interface_name=a234567890123456"], "interface name"),
            (&["a:what=x"], "unknown option what"),
            (&["a:gw-priority=x"], "invalid gw-priority"),
            (&["ip=10.0.0.1"], "not NAME"),
            (&["../x"], "not NAME"),
            (&["name="], "not NAME"),
            (&["ns:x"], "not an absolute path"),
            (&["container:"], "is none of"),
        ] {
            let error = parsed(words).unwrap_err().to_string();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }

    #[test]
    fn flags_of_their_own_are_for_the_only_network() {
        let alone = || Alone { ip: Some([10, 0, 0, 5].into()), aliases: vec!["x".to_owned()], ..Alone::default() };
        let put = |words: &[&str], alone: Alone| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            parse(&words, alone, Network::None).map(|network| json(&network)).map_err(|error| error.to_string())
        };
        let expected = r#"{"joined":[{"network":"a","ip":"10.0.0.5","aliases":["x"]}]}"#;
        assert_eq!(put(&["a"], alone()).unwrap(), expected);
        let aliases = Alone { aliases: vec!["x".to_owned()], ..Alone::default() };
        let mac = Alone { mac: Some(Mac([2, 0, 0, 0, 0, 1])), ..Alone::default() };
        let expected = r#"{"joined":[{"network":"a","aliases":["x"]},{"network":"b","aliases":["x"]}]}"#;
        assert_eq!(put(&["a", "b"], aliases.clone()).unwrap(), expected);
        for (words, alone, expected) in [
            (&["a:ip=10.0.0.6"][..], alone(), "cannot specify both --ip and per-network IPv4 address"),
            (&["a", "b"], alone(), "of which network is not said"),
            (&["host"], alone(), "user specified IP address is supported on user defined networks only"),
            (&["none"], aliases.clone(), "network-scoped alias is supported only"),
            (&["container:x"], mac.clone(), "conflicting options: mac-address and the network mode"),
            (&["bridge"], aliases, "network-scoped alias"),
        ] {
            let error = put(words, alone).unwrap_err();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }
}
