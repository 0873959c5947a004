//! Blocks of addresses: `10.89.0.0/24`, `fd00:1::/64`. IPv4 and IPv6 alike, and never mixed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A block of addresses: those that share its first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The first address; the bits behind the prefix are zero.
    first: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The block around an address.
    ///
    /// # Errors
    ///
    /// The prefix is longer than addresses are.
    pub fn around(address: IpAddr, prefix: u8) -> Result<Self> {
        if prefix > bits(address) {
            return Err(Error::invalid(format!("{address}/{prefix}: a prefix has at most {} bits", bits(address))));
        }
        let number = number(address) & !host_mask(address, prefix);
        Ok(Self { first: numbered(address, number), prefix })
    }

    /// Its first address, which names the block.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Its last address; of IPv4, the one that everybody hears.
    pub fn last(&self) -> IpAddr {
        numbered(self.first, number(self.first) | host_mask(self.first, self.prefix))
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6() && Self::around(address, self.prefix).is_ok_and(|block| block == *self)
    }

    /// Whether there is an address that both have.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// Whether all addresses of another block are in this one.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.first)
    }

    /// The address so many behind the first; `None` outside of the block.
    pub fn nth(&self, place: u128) -> Option<IpAddr> {
        (place <= host_mask(self.first, self.prefix)).then(|| numbered(self.first, number(self.first) + place))
    }

    /// Its addresses that a container can have, in order: in IPv4 without the first and the last, in IPv6 without the first
    /// (RFC 4291, 2.6.1: every router's).
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let block = *self;
        let most = host_mask(self.first, self.prefix);
        // RFC 3021, RFC 6164: of two addresses both are hosts'.
        let (from, to) = match (most, self.is_ipv6()) {
            (0 | 1, _) => (0, most),
            (_, true) => (1, most),
            (_, false) => (1, most - 1),
        };
        (from..=to).filter_map(move |place| block.nth(place))
    }

    /// The blocks of a longer prefix that it is made of, in order.
    pub fn parts(&self, prefix: u8) -> impl Iterator<Item = Self> + use<> {
        let block = *self;
        let size = host_mask(self.first, prefix.min(bits(self.first)));
        let most = if prefix < self.prefix { None } else { Some(host_mask(self.first, self.prefix)) };
        let step = size.checked_add(1);
        let mut next = most.map(|_| 0_u128);
        std::iter::from_fn(move || {
            let place = next?;
            next = step.and_then(|step| place.checked_add(step)).filter(|place| Some(*place) <= most);
            Some(Self { first: block.nth(place)?, prefix })
        })
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address with this number, of the same family as another.
fn numbered(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The bits behind a prefix.
fn host_mask(like: IpAddr, prefix: u8) -> u128 {
    match u32::from(bits(like) - prefix.min(bits(like))) {
        128 => u128::MAX,
        length => (1 << length) - 1,
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Error;

    /// Reads a block by its first address: another one in it is taken for a slip, as docker does.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = || Error::invalid(format!("{text:?}: not a block of addresses, such as 10.89.0.0/24"));
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        let block = Self::around(address, prefix.parse().map_err(|_| malformed())?)?;
        if block.first == address { Ok(block) } else { Err(Error::invalid(format!("{text}: the block is {block}"))) }
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(block: Cidr) -> Self {
        block.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn addresses(found: impl Iterator<Item = IpAddr>) -> Vec<String> {
        found.map(|address| address.to_string()).collect()
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.1/24", "::1/129", "a/8", "0/0"]
        {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        for text in ["0.0.0.0/0", "10.89.0.0/24", "::/0", "fd00:1::/64", "::1/128"] {
            assert_eq!(block(text).to_string(), text);
        }
        assert!("10.0.0.1/24".parse::<Cidr>().unwrap_err().to_string().contains("10.0.0.0/24"));
    }

    #[test]
    fn blocks_contain_and_overlap() {
        let wide = block("10.88.0.0/15");
        assert!(wide.contains("10.89.255.255".parse().unwrap()) && !wide.contains("10.90.0.0".parse().unwrap()));
        assert!(!wide.contains("::10.88.0.1".parse().unwrap()), "the other family");
        assert!(wide.overlaps(&block("10.89.1.0/24")) && block("10.89.1.0/24").overlaps(&wide));
        assert!(!block("10.89.1.0/24").overlaps(&block("10.89.2.0/24")));
        assert!(wide.covers(&block("10.89.1.0/24")) && !block("10.89.1.0/24").covers(&wide));
        assert!(block("::/0").contains("ffff::".parse().unwrap()) && block("0.0.0.0/0").covers(&wide));
    }

    #[test]
    fn hosts_are_without_what_names_the_block() {
        assert_eq!(addresses(block("10.0.0.0/30").hosts()), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(addresses(block("10.0.0.0/31").hosts()), ["10.0.0.0", "10.0.0.1"]);
        assert_eq!(addresses(block("10.0.0.7/32").hosts()), ["10.0.0.7"]);
        assert_eq!(addresses(block("fd00::/126").hosts()), ["fd00::1", "fd00::2", "fd00::3"]);
        assert_eq!(addresses(block("::/0").hosts().take(2)), ["::1", "::2"]);
        assert_eq!(block("255.255.255.0/24").last().to_string(), "255.255.255.255");
        assert_eq!(block("::/0").last(), IpAddr::V6(Ipv6Addr::from(u128::MAX)));
    }

    #[test]
    fn parts_are_all_there_and_none_beyond() {
        let parts = |text: &str, prefix| block(text).parts(prefix).map(|part| part.to_string()).collect::<Vec<_>>();
        assert_eq!(parts("10.0.0.0/23", 24), ["10.0.0.0/24", "10.0.1.0/24"]);
        assert_eq!(parts("10.0.0.0/24", 24), ["10.0.0.0/24"]);
        assert_eq!(parts("10.0.0.0/24", 23), [""; 0]);
        assert_eq!(block("0.0.0.0/0").parts(16).count(), 1 << 16);
        assert_eq!(parts("::/0", 0), ["::/0"]);
        assert_eq!(block("fd00::/8").parts(64).nth(1).unwrap().to_string(), "fd00:0:0:1::/64");
    }
}
