//! Has this host forward packets: what containers send elsewhere, and what comes back. Changes nothing where it does already.
//!
//! A host that did not forward before is no router between its other interfaces because of that: which those were is noted
//! down, for the rules that keep them apart.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::setting;
use crate::error::{Context, Result};
use crate::support::atomic;

const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const INTERFACES: &str = "/sys/class/net";
const IPV4_INTERFACES: &str = "/proc/sys/net/ipv4/conf";
const IPV6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Below the folder of who is in networks.
const FILE: &str = ".forwarding";
const FILE_BYTES: usize = 1 << 20;

/// Between which interfaces this host forwards nothing, by the family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    #[serde(default)]
    pub ipv4: Vec<String>,
    #[serde(default)]
    pub ipv6: Vec<String>,
    /// What was so before a boot is so no longer.
    #[serde(default)]
    boot: String,
}

impl Apart {
    /// Reads what is noted down in a folder.
    pub fn read(folder: BorrowedFd<'_>) -> Result<Self> {
        let Some(bytes) = atomic::read(folder, FILE, FILE_BYTES)? else { return Ok(Self::default()) };
        let apart: Self = serde_json::from_slice(&bytes).context("read .forwarding")?;
        Ok(if apart.boot == boot()? { apart } else { Self::default() })
    }

    fn write(&self, folder: BorrowedFd<'_>) -> Result<()> {
        atomic::replace(folder, FILE, &serde_json::to_vec(self)?)
    }
}

fn boot() -> Result<String> {
    Ok(fs::read_to_string(BOOT).with_context(|| format!("read {BOOT}"))?.trim().to_owned())
}

/// Whether forwarding is yet to be turned on: of IPv4, and where it is wanted of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    ipv4: bool,
    ipv6: bool,
}

/// Looks what is missing; `None` where all is there.
pub fn missing(ipv6: bool) -> Result<Option<Missing>> {
    let is_off = |path| is_on(path).map(|is_on| !is_on).with_context(|| format!("read {path}"));
    let missing = Missing { ipv4: is_off(IPV4)?, ipv6: ipv6 && Path::new(IPV6).exists() && is_off(IPV6)? };
    Ok((missing.ipv4 || missing.ipv6).then_some(missing))
}

impl Missing {
    /// Notes down in a folder which interfaces there are that nothing is forwarded from, but for these, of networks. The rules
    /// that follow from it are to be there before [`Self::turn_on`].
    pub fn note(self, folder: BorrowedFd<'_>, networks: &[&str]) -> Result<()> {
        let mut apart = Apart { boot: boot()?, ..Apart::read(folder)? };
        if self.ipv4 {
            apart.ipv4 = still(IPV4_INTERFACES, networks)?;
        }
        if self.ipv6 {
            apart.ipv6 = still(IPV6_INTERFACES, networks)?;
        }
        apart.write(folder)
    }

    /// Turns on what is missing.
    pub fn turn_on(self) -> Result<()> {
        if self.ipv4 {
            write(IPV4, "1")?;
        }
        if self.ipv6 {
            keep_advertisements()?;
            write(IPV6, "1")?;
        }
        Ok(())
    }
}

/// The interfaces from which nothing is forwarded.
fn still(settings: &str, networks: &[&str]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(settings).with_context(|| format!("list {settings}"))? {
        let entry = entry.with_context(|| format!("list {settings}"))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_one = !["all", "default", "lo"].contains(&name.as_str()) && !networks.contains(&name.as_str());
        // Interfaces come and go.
        if is_one && setting::read(&entry.path().join("forwarding")).is_ok_and(|text| text == "0") {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

fn is_on(path: &str) -> io::Result<bool> {
    Ok(setting::read(Path::new(path))? == "1")
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
        if setting::read(&path).is_ok_and(|text| text == "1") {
            let _ = write(&path, "2");
        }
    }
    Ok(())
}

fn write(path: impl AsRef<Path>, value: &str) -> Result<()> {
    let path = path.as_ref();
    setting::write(path, value).with_context(|| format!("write {value} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::network::tests::in_own_namespace;

    #[test]
    fn what_was_apart_before_is_noted_down_until_the_next_boot() {
        let folder = tempfile::tempdir().unwrap();
        let opened = fs::File::open(folder.path()).unwrap();
        assert_eq!(Apart::read(opened.as_fd()).unwrap(), Apart::default());
        in_own_namespace(|| {
            for name in ["nic0", "nic1", "hk-1"] {
                crate::network::link::make_bridge(name, None, &[]).unwrap();
            }
            // A namespace takes the setting from the first one.
            for setting in [IPV4, IPV6] {
                write(setting, "0").unwrap();
            }
            write("/proc/sys/net/ipv4/conf/nic1/forwarding", "1").unwrap();
            let missing = missing(true).unwrap().unwrap();
            missing.note(opened.as_fd(), &["hk-1"]).unwrap();
            missing.turn_on().unwrap();
            assert_eq!(super::missing(true).unwrap(), None);
            let apart = Apart::read(opened.as_fd()).unwrap();
            assert_eq!(apart.ipv4, ["nic0"], "of the other one, somebody wanted it so");
            assert_eq!(apart.ipv6, ["nic0", "nic1"]);
            Apart { boot: "another".to_owned(), ..apart }.write(opened.as_fd()).unwrap();
            assert_eq!(Apart::read(opened.as_fd()).unwrap(), Apart::default());
        });
    }
}
