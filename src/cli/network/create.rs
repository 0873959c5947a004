//! `husk network create`: docker's flags and podman's.

use std::net::IpAddr;

use clap::Args;

use super::super::printer;
use super::super::status::Status;
use crate::engine::networks::driver::Driver;
use crate::engine::networks::{Asked, Networks, StaticRoute};
use crate::engine::options::network::parse_interface;
use crate::engine::options::parse_pair;
use crate::error::{Error, Kind, Result};
use crate::network::cidr::Cidr;

/// Make a network, and print its id
#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// What makes its interfaces: bridge, macvlan or ipvlan
    #[arg(long, short, value_name = "DRIVER", default_value = "bridge")]
    driver: Driver,
    /// Block of addresses, such as 10.89.0.0/24 or fd00:89::/64
    #[arg(long, value_name = "BLOCK", value_delimiter = ',')]
    subnet: Vec<Cidr>,
    /// Address of the network's own in a subnet
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    gateway: Vec<IpAddr>,
    /// Hand out addresses of this part of a subnet
    #[arg(long, value_name = "BLOCK", value_delimiter = ',')]
    ip_range: Vec<Cidr>,
    /// Hand this address out to nobody
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = parse_reserved)]
    aux_address: Vec<(String, IpAddr)>,
    /// Its containers reach each other, and nobody else
    #[arg(long)]
    internal: bool,
    /// Have IPv4 addresses, which is the default
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    ipv4: bool,
    /// Have IPv6 addresses as well
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    ipv6: bool,
    /// Give it a name-value pair
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Option of the driver: mtu, metric, no_default_route, parent, mode, com.docker.network.…
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_pair)]
    opt: Vec<(String, String)>,
    /// Who hands out addresses: default, or none for nobody
    #[arg(long, value_name = "DRIVER", default_value = "default")]
    ipam_driver: String,
    #[arg(long, hide = true)]
    ipam_opt: Vec<String>,
    /// No name server: its containers don't know each other by name
    #[arg(long)]
    disable_dns: bool,
    /// Its name server asks this one
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    dns: Vec<IpAddr>,
    /// Another route of its containers
    #[arg(long, value_name = "BLOCK,GATEWAY[,METRIC]", value_parser = parse_route)]
    route: Vec<StaticRoute>,
    /// Name of the bridge; of macvlan and ipvlan, the host's interface
    #[arg(long, value_name = "NAME", value_parser = parse_interface)]
    interface_name: Option<String>,
    /// One that is there already is no error
    #[arg(long)]
    ignore: bool,
    // Containers can be attached to all of husk's.
    #[arg(long, hide = true)]
    attachable: bool,
    #[arg(long, hide = true)]
    ingress: bool,
    #[arg(long, hide = true)]
    scope: Option<String>,
    #[arg(long, hide = true)]
    config_from: Option<String>,
    #[arg(long, hide = true)]
    config_only: bool,
    /// Name of the network
    #[arg(value_name = "NAME")]
    name: String,
}

const SWARM: &str = "swarm's, which needs a daemon";

/// Runs the command.
pub(super) fn run(args: &Create, networks: &Networks<'_>) -> Result<Status> {
    for (flag, is_given, reason) in [
        ("ingress", args.ingress, SWARM),
        ("scope", args.scope.as_deref().is_some_and(|scope| scope != "local"), SWARM),
        ("config-from", args.config_from.is_some(), SWARM),
        ("config-only", args.config_only, SWARM),
        ("ipam-opt", !args.ipam_opt.is_empty(), "who hands out addresses has none"),
    ] {
        if is_given {
            return Err(Error::unsupported(format!("--{flag}: {reason}")));
        }
    }
    let hands_out_nothing = match args.ipam_driver.as_str() {
        "" | "default" | "host-local" => false,
        "none" | "null" => true,
        other => return Err(Error::unsupported(format!("--ipam-driver {other}: only default and none are supported"))),
    };
    let asked = Asked {
        driver: args.driver,
        subnets: args.subnet.clone(),
        gateways: args.gateway.clone(),
        ranges: args.ip_range.clone(),
        reserved: args.aux_address.clone(),
        hands_out_nothing,
        internal: args.internal,
        lacks_ipv4: !args.ipv4,
        ipv6: args.ipv6,
        lacks_dns: args.disable_dns,
        dns_servers: args.dns.clone(),
        routes: args.route.clone(),
        interface: args.interface_name.clone(),
        labels: args.label.iter().cloned().collect(),
        options: args.opt.iter().cloned().collect(),
    };
    let record = match networks.create(&args.name, &asked) {
        Err(error) if args.ignore && error.kind() == Kind::Exists => networks.find(&args.name)?,
        answer => answer?,
    };
    printer::print(&format!("{}\n", record.id))?;
    Ok(Status::Success)
}

fn parse_reserved(text: &str) -> Result<(String, IpAddr)> {
    let parsed = text.split_once('=').and_then(|(name, address)| Some((name.to_owned(), address.parse().ok()?)));
    parsed.ok_or_else(|| Error::invalid(format!("aux-address {text:?}: not NAME=ADDRESS")))
}

/// `BLOCK,GATEWAY[,METRIC]`
fn parse_route(text: &str) -> Result<StaticRoute> {
    let wrong = || Error::invalid(format!("route {text:?}: not BLOCK,GATEWAY[,METRIC]"));
    let mut parts = text.split(',');
    let (destination, gateway) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(wrong)?);
    let metric = parts.next().map(|metric| metric.parse().map_err(|_| wrong())).transpose()?;
    if parts.next().is_some() {
        return Err(wrong());
    }
    Ok(StaticRoute { destination: destination.parse()?, gateway: gateway.parse().map_err(|_| wrong())?, metric })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_lead_to_a_block_by_a_gateway() {
        let route = parse_route("10.9.0.0/16,10.89.0.9,7").unwrap();
        assert_eq!((route.gateway.to_string(), route.metric), ("10.89.0.9".to_owned(), Some(7)));
        assert_eq!(parse_route("::/0,fd00::1").unwrap().metric, None);
        for text in ["", "10.9.0.0/16", "10.9.0.0/16,x", "10.9.0.0/16,10.89.0.9,x", "10.9.0.0/16,10.89.0.9,7,8"] {
            assert!(parse_route(text).is_err(), "{text}");
        }
        assert!(parse_reserved("router=10.0.0.1").is_ok() && parse_reserved("10.0.0.1").is_err());
    }
}
