//! Has this host forward packets: what containers send elsewhere, and what comes back. Changes nothing where it does already.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::error::{Context, Result};

const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const INTERFACES: &str = "/sys/class/net";
const IPV6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Turns forwarding on, of IPv4 and where it is wanted of IPv6.
pub fn enable(ipv6: bool) -> Result<()> {
    if !is_on(IPV4).with_context(|| format!("read {IPV4}"))? {
        write(IPV4, "1")?;
    }
    if ipv6 && Path::new(IPV6).exists() && !is_on(IPV6).with_context(|| format!("read {IPV6}"))? {
        keep_advertisements()?;
        write(IPV6, "1")?;
    }
    Ok(())
}

fn is_on(path: &str) -> io::Result<bool> {
    Ok(fs::read_to_string(path)?.trim() == "1")
}

/// A host that forwards takes no router's word for its own routes, unless it is told to (`accept_ra` of ip-sysctl: 2): without
/// this it would lose its way to the world some minutes later.
fn keep_advertisements() -> Result<()> {
    for entry in fs::read_dir(IPV6_INTERFACES).context("list the interfaces' settings")? {
        let entry = entry?;
        let name = entry.file_name();
        // What is to come has no router yet; and on a bridge are those who would like to be one.
        let is_bridge = Path::new(INTERFACES).join(&name).join("bridge").exists();
        if is_bridge || name == "all" || name == "default" {
            continue;
        }
        let path = entry.path().join("accept_ra");
        // Interfaces come and go.
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
            let _ = write(&path, "2");
        }
    }
    Ok(())
}

fn write(path: impl AsRef<Path>, value: &str) -> Result<()> {
    let path = path.as_ref();
    // A setting is no file that a kill could leave half written.
    let written = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.with_context(|| format!("write {value} to {}", path.display()))
}
