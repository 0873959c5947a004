//! `husk network create|ls|inspect|rm|prune|exists|connect|disconnect|update|reload`: networks, in docker's columns and fields.

mod create;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::filter::{Filters, Key, matches_pattern};
use super::format::{Columns, Format, Row, short_id};
use super::image_list::object;
use super::status::Status;
use super::{printer, report};
use crate::engine::connecting;
use crate::engine::engine::Engine;
use crate::engine::membership;
use crate::engine::networks::driver::Driver;
use crate::engine::networks::{NetworkRecord, Networks};
use crate::engine::options::{Attachment, network};
use crate::engine::settings;
use crate::error::{Error, Kind, Result};
use crate::network::lease::{Lease, Mac};

/// Manage networks
#[derive(Debug, Subcommand)]
pub(super) enum Network {
    Create(create::Create),
    #[command(alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    #[command(alias = "remove")]
    Rm(Rm),
    Prune(Prune),
    Exists(Exists),
    Connect(Connect),
    Disconnect(Disconnect),
    Update(Update),
    Reload(Reload),
}

/// List the networks
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
    /// Show ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Show what fits: dangling=BOOL, driver=NAME, id=ID, label=KEY[=VALUE], name=TEXT, scope=local, type=custom|builtin,
    /// until=TIME
    #[arg(long, short, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Show all that is known of networks
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// `json`, or a template
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
    /// Accepted: there is no more to show
    #[arg(long, short)]
    verbose: bool,
    /// Names or ids of the networks
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Remove networks that no container has
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// A network that is not there is no error
    #[arg(long, short, alias = "ignore")]
    force: bool,
    /// Names or ids of the networks
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Remove all networks that no container has
#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Remove what fits: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
}

/// Tell by the status whether there is a network: 0 if there is, 1 if not
#[derive(Debug, Args)]
pub(super) struct Exists {
    /// Name or id of the network
    #[arg(value_name = "NETWORK")]
    network: String,
}

/// Put a container into a network
#[derive(Debug, Args)]
pub(super) struct Connect {
    /// Another name of the container there
    #[arg(long, value_name = "NAME", value_parser = network::parse_alias)]
    alias: Vec<String>,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// MAC address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<Mac>,
    /// Of several networks, the way to everywhere goes through that with the highest
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    gw_priority: i32,
    #[arg(long, hide = true)]
    link: Vec<String>,
    #[arg(long, hide = true)]
    link_local_ip: Vec<String>,
    #[arg(long, hide = true)]
    driver_opt: Vec<String>,
    /// Name or id of the network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Take a container out of a network
#[derive(Debug, Args)]
pub(super) struct Disconnect {
    /// One that is not there is no error
    #[arg(long, short)]
    force: bool,
    /// Name or id of the network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Change whom the name server of a network asks
#[derive(Debug, Args)]
pub(super) struct Update {
    /// Ask this one, too
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    dns_add: Vec<IpAddr>,
    /// Ask this one no more
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    dns_drop: Vec<IpAddr>,
    /// Name or id of the network
    #[arg(value_name = "NETWORK")]
    network: String,
}

/// Write the rules of containers' networks anew, after somebody has flushed the firewall
#[derive(Debug, Args)]
pub(super) struct Reload {
    /// All containers, which is so in any case: the rules are written whole
    #[arg(long, short)]
    all: bool,
    /// Accepted likewise
    #[arg(long, short)]
    latest: bool,
    /// Names or ids of containers
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const COLUMNS: Columns = Columns {
    headers: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
};

const KEYS: &[Key] = &[
    Key::new("dangling"),
    Key::new("driver"),
    Key::new("id"),
    Key::negatable("label"),
    Key::new("name"),
    Key::new("scope"),
    Key::new("type"),
    Key::new("until"),
];

/// Runs the command.
pub(super) fn run(command: &Network) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let networks = Networks::of(&engine);
    if let Network::Ls(_) | Network::Inspect(_) | Network::Rm(_) | Network::Prune(_) = command {
        // What cannot be cleared is there to be seen.
        let _ = connecting::sweep(&engine);
    }
    match command {
        Network::Create(args) => create::run(args, &networks),
        Network::Ls(args) => list(args, &networks),
        Network::Inspect(args) => {
            super::inspect::each(args.format.as_deref(), &args.networks, |word| inspected(&engine, word))
        }
        Network::Rm(args) => remove(args, &networks),
        Network::Prune(args) => prune(args, &networks),
        Network::Exists(Exists { network }) => match networks.find(network) {
            Ok(_) => Ok(Status::Success),
            Err(error) if error.kind() == Kind::NotFound => Ok(Status::Failure),
            Err(error) => Err(error),
        },
        Network::Connect(args) => connect(args, &engine),
        Network::Disconnect(args) => disconnect(args, &engine),
        Network::Update(args) => update(args, &networks),
        Network::Reload(args) => reload(args, &engine),
    }
}

fn reload(args: &Reload, engine: &Engine) -> Result<Status> {
    let Reload { all: _, latest: _, containers } = args;
    let found = containers.iter().map(|word| engine.find(word)).collect::<Result<Vec<_>>>()?;
    connecting::reload(engine)?;
    found.iter().try_for_each(|container| printer::print(&format!("{}\n", container.id())))?;
    Ok(Status::Success)
}

fn list(args: &Ls, networks: &Networks<'_>) -> Result<Status> {
    let Ls { quiet, no_trunc, filter, format } = args;
    let filters = Filters::parse(filter, KEYS)?;
    let format = Format::choose(&COLUMNS, format.as_deref(), *quiet)?;
    let dangling = filters.flag("dangling")?;
    let until = filters.time("until", SystemTime::now())?;
    if let Some(word) = filters.values("type").find(|word| !matches!(*word, "custom" | "builtin")) {
        return Err(Error::invalid(format!("invalid filter 'type={word}'")).with_hint("there are: custom, builtin"));
    }
    let users = if dangling.is_some() { networks.users()? } else { BTreeMap::new() };
    let fits = |record: &NetworkRecord| {
        let is_used = record.is_built_in() || users.contains_key(&record.name);
        dangling.is_none_or(|dangling| dangling != is_used)
            && until.is_none_or(|until| created(record) < until)
            && filters.pass("driver", |driver| driver == record.driver.as_str())
            && filters.pass("id", |id| record.id.contains(id))
            && filters.pass("name", |text| record.name.contains(text) || matches_pattern(text, &record.name))
            && filters.pass("scope", |scope| scope == "local")
            && filters.pass("type", |word| (word == "builtin") == record.is_built_in())
            && filters.pass_labels("label", |label| record.labels.get(label).map(String::as_str))
    };
    let rows = networks.list()?.into_iter().filter(fits).map(|record| row(record, *no_trunc));
    printer::print(&format.print(rows)?)?;
    Ok(Status::Success)
}

fn created(record: &NetworkRecord) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(record.created)
}

fn row(record: NetworkRecord, in_full: bool) -> Row {
    let labels: Vec<String> = record.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let time = jiff::Timestamp::from_nanosecond(record.created.into()).unwrap_or_default();
    let fields = json!({
        "ID": if in_full { record.id.as_str() } else { short_id(&record.id) },
        "Name": record.name,
        "Driver": record.driver,
        "Scope": "local",
        "IPv4": has_ipv4(&record).to_string(),
        "IPv6": record.ipv6.to_string(),
        "Internal": record.internal.to_string(),
        "Labels": labels.join(","),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S.%9f +0000 UTC").to_string(),
    });
    Row { fields: object(fields), labels: record.labels }
}

/// Docker says so of `host` and `none`, too.
fn has_ipv4(record: &NetworkRecord) -> bool {
    matches!(record.driver, Driver::Host | Driver::Null) || record.subnets.iter().any(|subnet| !subnet.block.is_ipv6())
}

/// Tells on standard error where a firewall lacks the rules that containers need: somebody has flushed it.
pub(super) fn tell_lost_rules(engine: &Engine) {
    if let Ok(true) = connecting::lacks_rules(engine) {
        report::note("the rules of husk's networks are gone from the firewall: `husk network reload` brings them back");
    }
}

/// Describes a network, for `network inspect` and `inspect --type network`.
pub(super) fn inspected(engine: &Engine, word: &str) -> Result<Value> {
    let networks = Networks::of(engine);
    let record = networks.find(word)?;
    let endpoints = networks.endpoints(&record)?;
    let containers: BTreeMap<&String, Value> =
        endpoints.iter().map(|(id, lease)| (id, endpoint(id, lease, &record))).collect();
    let config: Vec<Value> = record
        .subnets
        .iter()
        .map(|subnet| {
            let mut config = json!({ "Subnet": subnet.block, "Gateway": subnet.gateway });
            if let Some(range) = subnet.range {
                config["IPRange"] = json!(range);
            }
            if !subnet.reserved.is_empty() {
                config["AuxiliaryAddresses"] = json!(subnet.reserved);
            }
            config
        })
        .collect();
    let mut described = json!({
        "Name": record.name,
        "Id": record.id,
        "Created": crate::engine::inspect::time(record.created),
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": has_ipv4(&record),
        "EnableIPv6": record.ipv6,
        "IPAM": {
            "Driver": if record.subnets.is_empty() && record.driver != Driver::Host && record.driver != Driver::Null { "null" } else { "default" },
            "Options": {},
            "Config": if config.is_empty() { Value::Null } else { json!(config) },
        },
        "Internal": record.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": record.options,
        "Labels": record.labels,
        // Podman's, which docker has no words for.
        "NetworkInterface": record.interface,
        "DNSEnabled": record.has_dns(),
    });
    if !record.dns_servers.is_empty() {
        described["NetworkDNSServers"] = json!(record.dns_servers);
    }
    if !record.routes.is_empty() {
        let routes = record.routes.iter();
        let routes: Vec<Value> = routes
            .map(|route| json!({ "Destination": route.destination, "Gateway": route.gateway, "Metric": route.metric }))
            .collect();
        described["Routes"] = json!(routes);
    }
    Ok(described)
}

fn endpoint(id: &str, lease: &Lease, network: &NetworkRecord) -> Value {
    let address = |is_ipv6: bool| {
        let found = lease.addresses.iter().find(|address| address.is_ipv6() == is_ipv6);
        let prefix = |address: &IpAddr| network.subnet_of(*address).map_or(0, |subnet| subnet.block.prefix());
        found.map_or_else(String::new, |address| format!("{address}/{}", prefix(address)))
    };
    json!({
        "Name": lease.name,
        "EndpointID": network.endpoint_id(id),
        "MacAddress": lease.mac,
        "IPv4Address": address(false),
        "IPv6Address": address(true),
    })
}

fn remove(args: &Rm, networks: &Networks<'_>) -> Result<Status> {
    let mut failure = None;
    for word in &args.networks {
        match networks.remove(word) {
            Ok(_) => printer::print(&format!("{word}\n"))?,
            Err(error) if args.force && error.kind() == Kind::NotFound => {}
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    report::engine_error(&earlier);
                }
            }
        }
    }
    failure.map_or(Ok(Status::Success), Err)
}

fn prune(args: &Prune, networks: &Networks<'_>) -> Result<Status> {
    let Prune { filter, force } = args;
    let filters = Filters::parse(filter, &[Key::negatable("label"), Key::new("until")])?;
    let until = filters.time("until", SystemTime::now())?;
    if !force && !super::system::confirm("This will remove all custom networks not used by at least one container.\n")?
    {
        return Ok(Status::Failure);
    }
    let passes = |record: &NetworkRecord| {
        until.is_none_or(|until| created(record) < until)
            && filters.pass_labels("label", |label| record.labels.get(label).map(String::as_str))
    };
    let removed = networks.prune(&passes)?;
    if !removed.is_empty() {
        printer::print(&format!("Deleted Networks:\n{}\n\n", removed.join("\n")))?;
    }
    Ok(Status::Success)
}

fn connect(args: &Connect, engine: &Engine) -> Result<Status> {
    let Connect { alias, ip, ip6, mac_address, gw_priority, link, link_local_ip, driver_opt, network, container } =
        args;
    for (flag, is_given, reason) in [
        ("link", !link.is_empty(), "containers of one network know each other by name"),
        ("link-local-ip", !link_local_ip.is_empty(), "the kernel makes them"),
        ("driver-opt", !driver_opt.is_empty(), "not supported yet"),
    ] {
        if is_given {
            return Err(Error::unsupported(format!("--{flag}: {reason}")));
        }
    }
    let attachment = Attachment {
        network: network.clone(),
        ip: *ip,
        ip6: *ip6,
        mac: *mac_address,
        aliases: alias.clone(),
        interface: None,
        gateway_priority: *gw_priority,
    };
    membership::connect(engine, &engine.find(container)?, &attachment)?;
    Ok(Status::Success)
}

fn disconnect(args: &Disconnect, engine: &Engine) -> Result<Status> {
    let Disconnect { force, network, container } = args;
    let done = engine.find(container).and_then(|container| membership::disconnect(engine, &container, network));
    match done {
        Err(error) if *force && error.kind() == Kind::NotFound => Ok(Status::Success),
        done => done.map(|()| Status::Success),
    }
}

fn update(args: &Update, networks: &Networks<'_>) -> Result<Status> {
    let Update { dns_add, dns_drop, network } = args;
    let found = networks.find(network)?;
    if !found.has_dns() {
        return Err(Error::invalid(format!("network {}: it has no name server", found.name)));
    }
    let changed = networks.change(&found.name, |record| {
        if let Some(address) = dns_drop.iter().find(|address| !record.dns_servers.contains(address)) {
            return Err(Error::new(Kind::NotFound, format!("network {}: it does not ask {address}", record.name)));
        }
        record.dns_servers.retain(|address| !dns_drop.contains(address));
        for address in dns_add {
            if !record.dns_servers.contains(address) {
                record.dns_servers.push(*address);
            }
        }
        Ok(())
    })?;
    connecting::change_servers(networks, &changed)?;
    Ok(Status::Success)
}
