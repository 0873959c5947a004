//! The devices that were asked for: nodes in `/dev`, or binds of the host's where nodes cannot be made, and their rules.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceType, Mount};

use super::facts::Node;
use super::resources::device_rule;
use super::{Input, mount, options_of};
use crate::engine::options::DeviceRule;

/// What devices come to.
#[derive(Default)]
pub(super) struct Devices {
    pub(super) nodes: Vec<LinuxDevice>,
    pub(super) binds: Vec<Mount>,
    pub(super) rules: Vec<LinuxDeviceCgroup>,
}

pub(super) fn build(input: &Input<'_>) -> Devices {
    let mut devices = Devices::default();
    let Input { options, host, .. } = *input;
    for node in host.devices.iter().chain(&input.edits.nodes).chain(&host.all_devices) {
        if devices.has(&node.destination) {
            continue;
        }
        // mknod(2) makes no device in a user namespace.
        if input.user_namespace.is_some() {
            let options = options_of(&["bind", "rprivate", "nosuid", "noexec"]);
            devices.binds.push(mount(&node.destination, "bind", &node.source, options));
        } else {
            devices.nodes.push(device(node));
        }
        if !options.privileged {
            devices.rules.push(node_rule(node));
        }
    }
    devices.rules.extend(options.device_rules.iter().map(asked_rule));
    if options.privileged {
        devices.rules.push(device_rule(true, None, (None, None), "rwm"));
    }
    devices
}

impl Devices {
    fn has(&self, destination: &Path) -> bool {
        self.nodes.iter().any(|node| node.path() == destination)
            || self.binds.iter().any(|bind| bind.destination() == destination)
    }
}

fn kind(letter: char) -> LinuxDeviceType {
    if letter == 'b' { LinuxDeviceType::B } else { LinuxDeviceType::C }
}

fn device(node: &Node) -> LinuxDevice {
    let builder = LinuxDeviceBuilder::default()
        .path(PathBuf::from(&node.destination))
        .typ(kind(node.kind))
        .major(i64::from(node.major))
        .minor(i64::from(node.minor))
        .file_mode(node.mode)
        .uid(node.uid)
        .gid(node.gid);
    builder.build().expect("all fields are set")
}

fn node_rule(node: &Node) -> LinuxDeviceCgroup {
    let numbers = (Some(i64::from(node.major)), Some(i64::from(node.minor)));
    device_rule(true, Some(kind(node.kind)), numbers, &node.access)
}

fn asked_rule(rule: &DeviceRule) -> LinuxDeviceCgroup {
    let kind = (rule.kind != 'a').then(|| kind(rule.kind));
    device_rule(true, kind, (rule.major.map(i64::from), rule.minor.map(i64::from)), &rule.access)
}
