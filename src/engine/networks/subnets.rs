//! The addresses of a new network: those that are asked for, or a block that nobody else has.

use std::net::IpAddr;

use super::Asked;
use super::record::{NetworkRecord, Subnet};
use crate::error::{Context, Error, Kind, Result};
use crate::network::cidr::Cidr;

/// Where subnets come from that nobody asked for by name: docker's, and so long a prefix in each.
const POOLS: [(&str, u8); 16] = [
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/16", 16),
    ("172.21.0.0/16", 16),
    ("172.22.0.0/16", 16),
    ("172.23.0.0/16", 16),
    ("172.24.0.0/16", 16),
    ("172.25.0.0/16", 16),
    ("172.26.0.0/16", 16),
    ("172.27.0.0/16", 16),
    ("172.28.0.0/16", 16),
    ("172.29.0.0/16", 16),
    ("172.30.0.0/16", 16),
    ("172.31.0.0/16", 16),
    ("192.168.0.0/16", 20),
];

/// Chooses the blocks of a new network. `routed` are those that the host has a route to.
pub(super) fn choose(asked: &Asked, others: &[NetworkRecord], routed: &[Cidr]) -> Result<Vec<Subnet>> {
    if asked.hands_out_nothing {
        if asked.subnets.is_empty() && asked.gateways.is_empty() && asked.ranges.is_empty() {
            return Ok(Vec::new());
        }
        return Err(Error::invalid("ipam-driver none: hands out no addresses, and has no subnet"));
    }
    let ours = |block: &Cidr| {
        let of = |other: &&NetworkRecord| other.subnets.iter().any(|subnet| subnet.block.overlaps(block));
        others.iter().find(of)
    };
    let mut blocks = asked.subnets.clone();
    for (place, block) in blocks.iter().enumerate() {
        // Docker's words.
        let overlaps = |whose: String| {
            Error::invalid(format!("invalid pool request: Pool overlaps with other one on this address space: {block}"))
                .with_hint(whose)
        };
        if let Some(other) = ours(block) {
            return Err(overlaps(format!("network {} has it", other.name)));
        }
        if blocks[..place].iter().any(|other| other.overlaps(block)) {
            return Err(overlaps("--subnet has it twice".to_owned()));
        }
    }
    let is_free = |block: &Cidr| ours(block).is_none() && !routed.iter().any(|other| other.overlaps(block));
    if !asked.lacks_ipv4 && !blocks.iter().any(|block| !block.is_ipv6()) {
        let pools = POOLS.iter().filter_map(|(pool, prefix)| Some((pool.parse::<Cidr>().ok()?, *prefix)));
        let free = pools.into_iter().flat_map(|(pool, prefix)| pool.parts(prefix)).find(is_free);
        // Docker's words.
        let none = || {
            Error::new(Kind::Other, "all predefined address pools have been fully subnetted")
                .with_hint("--subnet names one that nobody else uses")
        };
        blocks.insert(0, free.ok_or_else(none)?);
    }
    if asked.ipv6 && !blocks.iter().any(Cidr::is_ipv6) {
        blocks.push(unique_local()?);
    }
    let subnets = blocks.into_iter().map(|block| subnet(asked, block)).collect::<Result<Vec<_>>>()?;
    refuse_strays(asked, &subnets)?;
    Ok(subnets)
}

fn subnet(asked: &Asked, block: Cidr) -> Result<Subnet> {
    let of_it = |address: &&IpAddr| block.contains(**address);
    let range = asked.ranges.iter().find(|range| block.covers(range)).copied();
    let reserved: std::collections::BTreeMap<_, _> =
        asked.reserved.iter().filter(|(_, address)| block.contains(*address)).cloned().collect();
    // As docker does: the first of where addresses are handed out, unless that is somebody's.
    let is_free = |address: &IpAddr| !reserved.values().any(|other| other == address);
    let first = || block.hosts().find(is_free);
    let gateway = asked.gateways.iter().find(of_it).copied().or_else(first);
    let gateway = gateway.ok_or_else(|| Error::invalid(format!("subnet {block} has no addresses")))?;
    if reserved.values().any(|address| *address == gateway) {
        return Err(Error::invalid(format!("gateway {gateway}: kept for somebody else by --aux-address")));
    }
    Ok(Subnet { block, gateway, range, reserved })
}

/// Refuses what is in none of the subnets, in docker's words.
fn refuse_strays(asked: &Asked, subnets: &[Subnet]) -> Result<()> {
    let is_in = |address: &IpAddr| subnets.iter().any(|subnet| subnet.block.contains(*address));
    if let Some(gateway) = asked.gateways.iter().find(|gateway| !is_in(gateway)) {
        return Err(Error::invalid(format!("no matching subnet for gateway {gateway}")));
    }
    if let Some((name, address)) = asked.reserved.iter().find(|(_, address)| !is_in(address)) {
        return Err(Error::invalid(format!("no matching subnet for aux-address {name}={address}")));
    }
    if let Some(range) = asked.ranges.iter().find(|range| !subnets.iter().any(|subnet| subnet.block.covers(range))) {
        return Err(Error::invalid(format!("no matching subnet for range {range}")));
    }
    for (place, gateway) in asked.gateways.iter().enumerate() {
        let same = |other: &IpAddr| {
            subnets.iter().any(|subnet| subnet.block.contains(*other) && subnet.block.contains(*gateway))
        };
        if asked.gateways[..place].iter().any(same) {
            return Err(Error::invalid(format!("cannot configure multiple gateways ({gateway}) for one subnet")));
        }
    }
    Ok(())
}

/// A block of addresses that are this host's alone (RFC 4193): forty bits by chance.
fn unique_local() -> Result<Cidr> {
    let mut bytes = [0; 16];
    let (random, _) = bytes.split_at_mut(6);
    rustix::rand::getrandom(&mut *random, rustix::rand::GetRandomFlags::empty()).context("make up a subnet")?;
    bytes[0] = 0xfd;
    Cidr::around(IpAddr::from(bytes), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(subnets: &[&str]) -> Asked {
        Asked { subnets: subnets.iter().map(|text| text.parse().unwrap()).collect(), ..Asked::default() }
    }

    fn other(block: &str) -> NetworkRecord {
        let text = format!(
            r#"{{"id":"1","created":0,"subnets":[{{"block":"{block}","gateway":"{}"}}]}}"#,
            block.parse::<Cidr>().unwrap().hosts().next().unwrap()
        );
        NetworkRecord { name: "other".to_owned(), ..serde_json::from_str(&text).unwrap() }
    }

    fn blocks(found: &Result<Vec<Subnet>>) -> Vec<String> {
        found.as_ref().unwrap().iter().map(|subnet| format!("{} {}", subnet.block, subnet.gateway)).collect()
    }

    #[test]
    fn a_block_is_nobody_elses() {
        let routed: Vec<Cidr> = vec!["172.18.0.0/24".parse().unwrap()];
        let found = choose(&Asked::default(), &[other("172.17.0.0/16")], &routed);
        assert_eq!(blocks(&found), ["172.19.0.0/16 172.19.0.1"]);
        let all: Vec<Cidr> = vec!["172.16.0.0/12".parse().unwrap()];
        assert_eq!(blocks(&choose(&Asked::default(), &[], &all)), ["192.168.0.0/20 192.168.0.1"]);
        let all: Vec<Cidr> = vec!["172.16.0.0/12".parse().unwrap(), "192.168.0.0/16".parse().unwrap()];
        let error = choose(&Asked::default(), &[], &all).unwrap_err();
        assert!(error.to_string().contains("all predefined address pools"), "{error}");
        let error = choose(&asked(&["172.17.1.0/24"]), &[other("172.17.0.0/16")], &[]).unwrap_err();
        assert!(error.to_string().contains("Pool overlaps with other one on this address space"), "{error}");
        assert!(choose(&asked(&["10.0.0.0/8", "10.1.0.0/16"]), &[], &[]).is_err());
        assert!(choose(&asked(&["10.0.0.0/24"]), &[], &["10.0.0.0/8".parse().unwrap()]).is_ok(), "asked by name");
    }

    #[test]
    fn families_are_those_that_are_asked_for() {
        let both = Asked { ipv6: true, ..asked(&["10.0.0.0/24"]) };
        let found = choose(&both, &[], &[]).unwrap();
        assert!(found.len() == 2 && found[1].block.is_ipv6() && found[1].block.prefix() == 64);
        let six = Asked { ipv6: true, lacks_ipv4: true, ..asked(&["fd00:5::/64"]) };
        assert_eq!(blocks(&choose(&six, &[], &[])), ["fd00:5::/64 fd00:5::1"]);
        assert_eq!(choose(&Asked { hands_out_nothing: true, ..Asked::default() }, &[], &[]).unwrap(), []);
        assert!(choose(&Asked { hands_out_nothing: true, ..asked(&["10.0.0.0/24"]) }, &[], &[]).is_err());
    }

    #[test]
    fn particulars_are_of_one_of_the_subnets() {
        let full = Asked {
            gateways: vec!["10.0.0.254".parse().unwrap()],
            ranges: vec!["10.0.0.128/25".parse().unwrap()],
            reserved: vec![("router".to_owned(), "10.0.0.1".parse().unwrap())],
            ..asked(&["10.0.0.0/24"])
        };
        let found = choose(&full, &[], &[]).unwrap().remove(0);
        assert_eq!(found.gateway.to_string(), "10.0.0.254");
        assert_eq!((found.range, &found.reserved["router"]), (Some(full.ranges[0]), &full.reserved[0].1));
        let reserved = Asked { gateways: vec![], ..full.clone() };
        assert_eq!(choose(&reserved, &[], &[]).unwrap()[0].gateway.to_string(), "10.0.0.2", "the first is kept");
        for (change, expected) in [
            (
                Asked { gateways: vec!["10.1.0.1".parse().unwrap()], ..full.clone() },
                "no matching subnet for gateway 10.1.0.1",
            ),
            (
                Asked { ranges: vec!["10.0.0.0/23".parse().unwrap()], ..full.clone() },
                "no matching subnet for range 10.0.0.0/23",
            ),
            (
                Asked { reserved: vec![("x".to_owned(), "10.1.0.9".parse().unwrap())], ..full.clone() },
                "no matching subnet for aux-address x=10.1.0.9",
            ),
            (Asked { gateways: vec!["10.0.0.1".parse().unwrap()], ..full.clone() }, "kept for somebody else"),
            (
                Asked { gateways: vec!["10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()], ..full.clone() },
                "cannot configure multiple gateways",
            ),
        ] {
            let error = choose(&change, &[], &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
