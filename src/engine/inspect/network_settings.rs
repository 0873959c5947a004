//! `NetworkSettings` of docker's answer: the networks that the container is in, and the ports that lead to it.
//!
//! What was asked for is in the record; what it came to, in the networks' leases, as long as it runs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::engine::networks::{NetworkRecord, Networks};
use crate::engine::options::network::DEFAULT;
use crate::engine::options::{Attachment, Network};
use crate::engine::record::Record;
use crate::error::{Kind, Result};
use crate::network::lease::Lease;
use crate::network::port::BoundPort;

/// A container's place in one network.
struct Place<'a> {
    attachment: &'a Attachment,
    /// As long as there is such a network.
    network: Option<NetworkRecord>,
    lease: Option<Lease>,
}

/// Describes it; `pid` is the container's first process, where it runs.
pub(super) fn describe(networks: &Networks<'_>, record: &Record, pid: i32) -> Result<Value> {
    let options = &record.options;
    let mut held = if pid > 0 { networks.held_by(record)? } else { BTreeMap::new() };
    let mut places = Vec::new();
    for attachment in options.network.attachments() {
        let network = match networks.find(&attachment.network) {
            Ok(network) => Some(network),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        places.push(Place { attachment, network, lease: held.remove(&attachment.network) });
    }
    let key = match options.network {
        Network::Host => "/proc/1/ns/net".to_owned(),
        _ if pid > 0 => format!("/proc/{pid}/ns/net"),
        _ => String::new(),
    };
    // As docker has them until its version 28, since scripts ask for an address there: that of the default network.
    let first = places.iter().find(|place| place.attachment.network == DEFAULT);
    let mut settings = first.map_or_else(addresses_of_nobody, |place| place.addresses(record));
    settings["Bridge"] = json!("");
    settings["SandboxID"] = json!("");
    settings["SandboxKey"] = json!(key);
    settings["Ports"] = ports(record, &places, pid > 0);
    settings["HairpinMode"] = json!(false);
    settings["LinkLocalIPv6Address"] = json!("");
    settings["LinkLocalIPv6PrefixLen"] = json!(0);
    settings["SecondaryIPAddresses"] = Value::Null;
    settings["SecondaryIPv6Addresses"] = Value::Null;
    settings["Networks"] = match &options.network {
        Network::Joined(_) => Value::Object(
            places.iter().map(|place| (place.attachment.network.clone(), place.describe(record))).collect(),
        ),
        Network::None | Network::Host => json!({ options.network.mode(): described_nobody() }),
        Network::Container(_) | Network::Path(_) => json!({}),
    };
    Ok(settings)
}

impl Place<'_> {
    fn addresses(&self, record: &Record) -> Value {
        let (Some(network), Some(lease)) = (&self.network, &self.lease) else { return addresses_of_nobody() };
        let mut described = addresses_of_nobody();
        described["EndpointID"] = json!(network.endpoint_id(record.id.as_str()));
        described["MacAddress"] = json!(lease.mac);
        for address in &lease.addresses {
            let subnet = network.subnet_of(*address);
            let gateway = subnet.map_or_else(String::new, |subnet| subnet.gateway.to_string());
            let length = subnet.map_or(0, |subnet| subnet.block.prefix());
            let (name, prefix, way) = match address {
                IpAddr::V4(_) => ("IPAddress", "IPPrefixLen", "Gateway"),
                IpAddr::V6(_) => ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway"),
            };
            described[name] = json!(address);
            described[prefix] = json!(length);
            described[way] = json!(gateway);
        }
        described
    }

    fn describe(&self, record: &Record) -> Value {
        let Attachment { ip, ip6, aliases, gateway_priority, .. } = self.attachment;
        let mut described = self.addresses(record);
        let mut asked = Map::new();
        if let Some(address) = ip {
            asked.insert("IPv4Address".to_owned(), json!(address));
        }
        if let Some(address) = ip6 {
            asked.insert("IPv6Address".to_owned(), json!(address));
        }
        described["IPAMConfig"] = if asked.is_empty() { Value::Null } else { Value::Object(asked) };
        described["Links"] = Value::Null;
        described["Aliases"] = if aliases.is_empty() { Value::Null } else { json!(aliases) };
        described["DriverOpts"] = Value::Null;
        described["GwPriority"] = json!(gateway_priority);
        described["NetworkID"] = json!(self.network.as_ref().map_or("", |network| &network.id));
        let mut names = vec![record.name.as_str()];
        names.extend(aliases.iter().map(String::as_str));
        names.push(record.id.short());
        names.extend(record.options.hostname.as_deref());
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(*name));
        // Nobody answers for them in the default one.
        let has_dns = self.network.as_ref().is_some_and(NetworkRecord::has_dns);
        described["DNSNames"] = if has_dns { json!(names) } else { Value::Null };
        described
    }
}

fn addresses_of_nobody() -> Value {
    json!({
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
    })
}

fn described_nobody() -> Value {
    let mut endpoint = addresses_of_nobody();
    for name in ["IPAMConfig", "Links", "Aliases", "DriverOpts", "DNSNames"] {
        endpoint[name] = Value::Null;
    }
    endpoint["NetworkID"] = json!("");
    endpoint["GwPriority"] = json!(0);
    endpoint
}

/// Each port that it listens on, with those of the host that lead there; null where there are none.
fn ports(record: &Record, places: &[Place<'_>], is_running: bool) -> Value {
    let mut ports = Map::new();
    if !is_running || places.is_empty() {
        return Value::Object(ports);
    }
    for port in &record.exposed {
        ports.insert(port.to_string(), Value::Null);
    }
    for place in places {
        for bound in place.lease.iter().flat_map(|lease| &lease.published) {
            let BoundPort { host, host_port, port, protocol } = bound;
            let addresses =
                host.map_or_else(|| vec!["0.0.0.0".to_owned(), "::".to_owned()], |host| vec![host.to_string()]);
            let entry = ports.entry(format!("{port}/{protocol}")).or_insert(Value::Null);
            if entry.is_null() {
                *entry = json!([]);
            }
            for address in addresses {
                let binding = json!({ "HostIp": address, "HostPort": host_port.to_string() });
                if let Some(bindings) = entry.as_array_mut().filter(|bindings| !bindings.contains(&binding)) {
                    bindings.push(binding);
                }
            }
        }
    }
    Value::Object(ports)
}
