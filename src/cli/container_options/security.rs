//! Flags of rights: capabilities, filters, devices.

use clap::Args;

use crate::engine::options::device::{DeviceRequest, DeviceRule, parse_gpus};
use crate::engine::options::{RunOptions, SecurityOptions};
use crate::error::Result;

/// What it may do.
#[derive(Debug, Args)]
pub(super) struct SecurityArgs {
    /// Give a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Give all capabilities and devices, and hide nothing
    #[arg(long)]
    privileged: bool,
    /// no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE, label=disable, mask=PATH, unmask=PATH|ALL,
    /// systempaths=unconfined, writable-cgroups, proc-opts=OPTIONS
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Give a device of the host, or one of a CDI specification
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]|VENDOR/CLASS=NAME")]
    device: Vec<DeviceRequest>,
    /// Allow devices by number
    #[arg(long, value_name = "\"TYPE MAJOR:MINOR ACCESS\"")]
    device_cgroup_rule: Vec<DeviceRule>,
    /// Give GPUs, by NVIDIA's CDI specification
    #[arg(long, value_name = "all|NUMBER|device=…")]
    gpus: Vec<String>,
}

impl SecurityArgs {
    pub(super) fn fill(self, options: &mut RunOptions) -> Result<()> {
        let Self { cap_add, cap_drop, privileged, security_opt, device, device_cgroup_rule, gpus } = self;
        options.added_capabilities = cap_add;
        options.dropped_capabilities = cap_drop;
        options.privileged = privileged;
        options.security = SecurityOptions::parse(&security_opt)?;
        options.devices = device;
        for gpu in &gpus {
            options.devices.extend(parse_gpus(gpu)?);
        }
        options.device_rules = device_cgroup_rule;
        Ok(())
    }
}
