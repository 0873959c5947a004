//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: files of its own, bound over the image's.
//!
//! They are its own so that it may write to them, and so that an image whose `/etc/hosts` is a link decides nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::{Input, mount, options_of};
use crate::engine::options::Network;
use crate::engine::options::hosts::{HostAddress, HostFiles, HostsSource};
use crate::error::{Error, Result};

/// A file to be written into the container's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    /// Its name there.
    pub name: &'static str,
    pub content: String,
}

/// What every machine calls itself.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                         fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Makes the files, with the mounts that put them in their places.
pub(super) fn build(input: &Input<'_>, hostname: &str) -> Result<(Vec<OwnFile>, Vec<Mount>)> {
    let asked = &input.options.hosts;
    if let Some(names) = &input.joined.names {
        let bind = |(name, path): &(&str, PathBuf)| bind(input, name, path);
        return Ok((Vec::new(), names.files.iter().map(bind).collect()));
    }
    let mut files = Vec::new();
    // What is shown of this machine has its own names, unless others are asked for, or it is in networks, which have theirs.
    let is_in_networks = !input.options.network.attachments().is_empty();
    let is_wanted = |is_asked: bool| !input.is_host || is_in_networks || is_asked;
    if asked.hosts != HostsSource::Image && is_wanted(!asked.added.is_empty() || asked.hosts != HostsSource::Made) {
        files.push(OwnFile { name: "hosts", content: hosts(input, hostname)? });
    }
    if !asked.keeps_hostname && (!input.is_host || input.options.hostname.is_some()) {
        files.push(OwnFile { name: "hostname", content: format!("{hostname}\n") });
    }
    let changes_resolver = !(asked.servers.is_empty() && asked.search.is_empty() && asked.options.is_empty());
    if !asked.keeps_resolver && is_wanted(changes_resolver) {
        files.push(OwnFile { name: "resolv.conf", content: resolver_for(&input.host.resolver, asked) });
    }
    let mounts = files.iter().map(|file| bind(input, file.name, &input.directory.join(file.name))).collect();
    Ok((files, mounts))
}

fn bind(input: &Input<'_>, name: &str, source: &Path) -> Mount {
    let mut options = options_of(&["bind", "rprivate"]);
    if input.options.read_only {
        options.push("ro".to_owned());
    }
    mount(format!("/etc/{name}"), "bind", source, options)
}

fn hosts(input: &Input<'_>, hostname: &str) -> Result<String> {
    let is_on_hosts_network = input.options.network == Network::Host;
    let mut text = match &input.host.hosts {
        Some(text) if text.is_empty() || text.ends_with('\n') => text.clone(),
        Some(text) => format!("{text}\n"),
        None => LOCALHOST.to_owned(),
    };
    // Programs look their own name up; on the host's network the host's file has it.
    if !is_on_hosts_network {
        let _ = writeln!(text, "127.0.1.1\t{hostname}");
    }
    for entry in &input.options.hosts.added {
        let names = entry.names.join(" ");
        let _ = match entry.address {
            HostAddress::Ip(address) => writeln!(text, "{address}\t{names}"),
            HostAddress::Gateway if is_on_hosts_network => writeln!(text, "127.0.0.1\t{names}"),
            // Which address that is, the start knows.
            HostAddress::Gateway if !input.options.network.attachments().is_empty() => Ok(()),
            HostAddress::Gateway => {
                return Err(Error::invalid(format!("add-host {names}: host-gateway needs a network"))
                    .with_hint("the container has none: --network host has the host as 127.0.0.1"));
            }
        };
    }
    Ok(text)
}

/// The host's file, with what is asked for in the place of its lines of that kind.
pub fn resolver_for(host: &str, asked: &HostFiles) -> String {
    let keeps = |line: &&str| match line.split_whitespace().next() {
        Some("nameserver") => asked.servers.is_empty(),
        Some("search" | "domain") => asked.search.is_empty(),
        Some("options") => asked.options.is_empty(),
        _ => true,
    };
    let mut text = String::new();
    for line in host.lines().filter(keeps) {
        text.push_str(line);
        text.push('\n');
    }
    // `--dns-search .` takes the host's away.
    let search: Vec<&str> = asked.search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in &asked.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !asked.options.is_empty() {
        let _ = writeln!(text, "options {}", asked.options.join(" "));
    }
    text
}
