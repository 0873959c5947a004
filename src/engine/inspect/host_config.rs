//! `HostConfig` of docker's answer: how the container stands to its host. Every key is there, those without meaning here empty.

use std::collections::BTreeMap;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::engine::defaults;
use crate::engine::log_attributes::LogAttributes;
use crate::engine::options::limits::{DeviceRate, DeviceWeight};
use crate::engine::options::namespaces::{NamespaceMode, UserMode};
use crate::engine::options::{DeviceRequest, Limits, PublishedPort, RunOptions, SeccompChoice, SwapLimit, Unmasked};
use crate::engine::record::Record;
use crate::engine::volume_option::{Propagation, Volume, VolumeSource};
use crate::monitor::RestartPolicy;
use crate::monitor::log::LogOptions;

/// Describes it.
pub(super) fn describe(record: &Record, spec: &Spec) -> Value {
    let options = &record.options;
    let mut described = json!({
        "Binds": list(options.volumes.iter().filter_map(bind)),
        "ContainerIDFile": options.id_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        "LogConfig": log_config(&options.log, &options.log_attributes),
        "NetworkMode": options.network.mode(),
        "PortBindings": port_bindings(&options.published),
        "RestartPolicy": restart_policy(options.restart),
        "AutoRemove": record.remove,
        "VolumeDriver": "",
        "VolumesFrom": texts(&options.volumes_from),
        "ConsoleSize": options.console_size.map_or([0, 0], |(rows, columns)| [rows, columns]),
        "CapAdd": capabilities(&options.added_capabilities),
        "CapDrop": capabilities(&options.dropped_capabilities),
        "CgroupnsMode": options.namespaces.cgroup,
        "Dns": options.hosts.servers,
        "DnsOptions": options.hosts.options,
        "DnsSearch": options.hosts.search,
        "ExtraHosts": texts(&options.hosts.added),
        "GroupAdd": texts(&options.additional_groups),
        "IpcMode": options.namespaces.ipc,
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": options.oom_score_adj.unwrap_or_default(),
        "PidMode": unless_own(&options.namespaces.pid),
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": list(security(options)),
        "UTSMode": unless_own(&options.namespaces.uts),
        "UsernsMode": if options.namespaces.user == UserMode::Default {
            String::new()
        } else {
            options.namespaces.user.to_string()
        },
        "ShmSize": options.shm_size.unwrap_or(defaults::SHM_BYTES),
        "Runtime": "husk",
        "Isolation": "",
        "Devices": devices(&options.devices),
        "DeviceCgroupRules": texts(&options.device_rules),
        "DeviceRequests": device_requests(&options.devices),
        "Ulimits": list(options.ulimits.iter().map(|limit| {
            let text = limit.to_string();
            let name = text.split('=').next().unwrap_or_default();
            json!({ "Name": name, "Soft": signed(limit.soft), "Hard": signed(limit.hard) })
        })),
    });
    merge(&mut described, limits(&options.limits));
    let linux = spec.linux().as_ref();
    described["MaskedPaths"] = json!(linux.and_then(|linux| linux.masked_paths().as_ref()));
    described["ReadonlyPaths"] = json!(linux.and_then(|linux| linux.readonly_paths().as_ref()));
    described["CgroupParent"] = json!(options.cgroup_parent.as_deref().unwrap_or_default());
    merge(&mut described, where_asked(options));
    described
}

/// The keys that docker leaves out where nothing was asked for.
fn where_asked(options: &RunOptions) -> Value {
    let mut described = json!({});
    if !options.sysctls.is_empty() {
        described["Sysctls"] = json!(options.sysctls);
    }
    if !options.annotations.is_empty() {
        described["Annotations"] = json!(options.annotations);
    }
    if !options.tmpfs.is_empty() {
        let tmpfs = options.tmpfs.iter().map(|tmpfs| (tmpfs.destination.clone(), json!(tmpfs.options.join(","))));
        described["Tmpfs"] = Value::Object(tmpfs.collect());
    }
    if let Some(egress) = &options.egress {
        described["Egress"] = json!(egress.to_string());
    }
    if options.init {
        described["Init"] = json!(true);
    }
    let mounts: Vec<Value> = options.volumes.iter().filter_map(image_mount).collect();
    if !mounts.is_empty() {
        described["Mounts"] = json!(mounts);
    }
    described
}

fn limits(limits: &Limits) -> Value {
    let Limits {
        memory,
        memory_reservation,
        memory_swap,
        nano_cpus,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        cpuset_mems,
        pids,
        blkio_weight,
        memory_swappiness,
        oom_kill_disable,
        cpu_realtime_period,
        cpu_realtime_runtime,
        blkio_weight_devices,
        device_read_bps,
        device_write_bps,
        device_read_iops,
        device_write_iops,
        // Podman's alone.
        unified: _,
    } = limits;
    let weights: Vec<Value> = blkio_weight_devices
        .iter()
        .map(|DeviceWeight { device, weight }| json!({ "Path": device, "Weight": weight }))
        .collect();
    let swap = match (memory_swap, memory) {
        (Some(SwapLimit::Unlimited), _) => json!(-1),
        (Some(SwapLimit::Bytes(bytes)), _) => json!(bytes),
        // As much swap as memory.
        (None, Some(memory)) => json!(memory.saturating_mul(2)),
        (None, None) => json!(0),
    };
    json!({
        "CpuShares": cpu_shares.unwrap_or_default(),
        "Memory": memory.unwrap_or_default(),
        "NanoCpus": nano_cpus.unwrap_or_default(),
        "BlkioWeight": blkio_weight.unwrap_or_default(),
        "BlkioWeightDevice": weights,
        "BlkioDeviceReadBps": rates(device_read_bps),
        "BlkioDeviceWriteBps": rates(device_write_bps),
        "BlkioDeviceReadIOps": rates(device_read_iops),
        "BlkioDeviceWriteIOps": rates(device_write_iops),
        "CpuPeriod": cpu_period.unwrap_or_default(),
        "CpuQuota": cpu_quota.unwrap_or_default(),
        "CpuRealtimePeriod": cpu_realtime_period.unwrap_or_default(),
        "CpuRealtimeRuntime": cpu_realtime_runtime.unwrap_or_default(),
        "CpusetCpus": cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": cpuset_mems.as_deref().unwrap_or_default(),
        "MemoryReservation": memory_reservation.unwrap_or_default(),
        "MemorySwap": swap,
        "MemorySwappiness": memory_swappiness,
        "OomKillDisable": oom_kill_disable.then_some(true),
        "PidsLimit": pids,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    })
}

/// As they were asked for: an empty port is any that is free.
fn port_bindings(published: &[PublishedPort]) -> Value {
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in published {
        let address = port.host.map_or_else(String::new, |host| host.to_string());
        let binding = json!({ "HostIp": address, "HostPort": port.host_word() });
        bindings.entry(port.inside().to_string()).or_default().push(binding);
    }
    json!(bindings)
}

fn restart_policy(policy: RestartPolicy) -> Value {
    let (name, most) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::OnFailure { most } => ("on-failure", most.unwrap_or_default()),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
    };
    json!({ "Name": name, "MaximumRetryCount": most })
}

fn joined(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| names.join(","))
}

fn log_config(log: &LogOptions, attributes: &LogAttributes) -> Value {
    let LogOptions { format, max_bytes, max_files, buffer_bytes } = log;
    let mut config = json!({});
    if let Some(bytes) = buffer_bytes {
        config["mode"] = json!("non-blocking");
        config["max-buffer-size"] = json!(bytes.to_string());
    }
    if let Some(bytes) = max_bytes.filter(|_| format.keeps_files()) {
        config["max-size"] = json!(bytes.to_string());
        config["max-file"] = json!(max_files.to_string());
    }
    let LogAttributes { tag, labels, env } = attributes;
    for (name, value) in [("tag", tag.clone()), ("labels", joined(labels)), ("env", joined(env))] {
        if let Some(value) = value {
            config[name] = json!(value);
        }
    }
    json!({ "Type": format, "Config": config })
}

/// A volume as it would be typed; an anonymous one is none of docker's binds.
fn bind(volume: &Volume) -> Option<String> {
    let source = match &volume.source {
        VolumeSource::Host(path) => path.display().to_string(),
        VolumeSource::Named(name) => name.clone(),
        VolumeSource::Anonymous | VolumeSource::Image(_) => return None,
    };
    let mut options = Vec::new();
    if volume.is_read_only {
        options.push("ro");
    }
    if volume.is_single {
        options.push("bind");
    }
    if volume.is_given {
        options.push("U");
    }
    if volume.is_overlay {
        options.push("O");
    }
    if volume.propagation != Propagation::default() {
        options.push(volume.propagation.as_str());
    }
    options.extend(volume.attributes.iter().map(String::as_str));
    let end = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
    Some(format!("{source}:{}{end}", volume.destination))
}

/// What can be asked for with `--mount` alone.
fn image_mount(volume: &Volume) -> Option<Value> {
    let VolumeSource::Image(image) = &volume.source else { return None };
    Some(json!({ "Type": "image", "Source": image, "Target": volume.destination, "ReadOnly": volume.is_read_only }))
}

fn rates(rates: &[DeviceRate]) -> Vec<Value> {
    rates.iter().map(|DeviceRate { device, rate }| json!({ "Path": device, "Rate": rate })).collect()
}

fn devices(requests: &[DeviceRequest]) -> Vec<Value> {
    let node = |request: &DeviceRequest| match request {
        DeviceRequest::Node { source, destination, access } => {
            Some(json!({ "PathOnHost": source, "PathInContainer": destination, "CgroupPermissions": access }))
        }
        DeviceRequest::Cdi { .. } => None,
    };
    requests.iter().filter_map(node).collect()
}

fn device_requests(requests: &[DeviceRequest]) -> Value {
    let names = requests.iter().filter(|request| matches!(request, DeviceRequest::Cdi { .. }));
    let names: Vec<String> = names.map(ToString::to_string).collect();
    if names.is_empty() {
        return Value::Null;
    }
    json!([{ "Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": null, "Options": null }])
}

fn security(options: &RunOptions) -> impl Iterator<Item = String> {
    let security = &options.security;
    let seccomp = match &security.seccomp {
        SeccompChoice::Default => None,
        SeccompChoice::Unconfined => Some("seccomp=unconfined".to_owned()),
        SeccompChoice::File(path) => Some(format!("seccomp={}", path.display())),
    };
    let unmasked = match &security.unmasked {
        Unmasked::Nothing => None,
        Unmasked::Paths(paths) => Some(format!("unmask={}", paths.join(":"))),
        Unmasked::All => Some("systempaths=unconfined".to_owned()),
    };
    let masked = (!security.masked.is_empty()).then(|| format!("mask={}", security.masked.join(":")));
    let privileges = security.no_new_privileges.then(|| "no-new-privileges".to_owned());
    let apparmor = security.apparmor.as_ref().map(|profile| format!("apparmor={profile}"));
    [privileges, seccomp, apparmor, unmasked, masked].into_iter().flatten()
}

/// Docker's word for a namespace of its own is none at all here.
fn unless_own(mode: &NamespaceMode) -> String {
    if *mode == NamespaceMode::Private { String::new() } else { mode.to_string() }
}

/// In docker's spelling, however they were typed.
fn capabilities(names: &[String]) -> Value {
    list(names.iter().map(|name| {
        let name = name.to_ascii_uppercase();
        if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
    }))
}

fn texts<T: ToString>(items: &[T]) -> Value {
    list(items.iter().map(ToString::to_string))
}

/// Docker's lists are null where they are empty.
fn list<T: Into<Value>>(items: impl Iterator<Item = T>) -> Value {
    let items: Vec<Value> = items.map(Into::into).collect();
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

fn signed(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(-1)
}

fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
