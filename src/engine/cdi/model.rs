//! The form of a CDI specification, and what has to be so in one. Reads no file but as bytes, and looks at no host.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::engine::options::device::{is_access, is_cdi_kind, is_cdi_name};
use crate::error::{Context, Error, Result};

/// The versions that there are, in their order.
const VERSIONS: [&str; 7] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"];

/// The kinds of hooks of the runtime specification.
const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// One file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Specification {
    cdi_version: String,
    pub(super) kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

/// One device of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    pub(super) container_edits: ContainerEdits,
}

/// What is changed in a container's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ContainerEdits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<EditMount>,
    pub(super) hooks: Vec<EditHook>,
    pub(super) additional_gids: Vec<u32>,
    intel_rdt: Option<serde_json::Value>,
}

/// A device node, which the host may know more about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct DeviceNode {
    pub(super) path: String,
    pub(super) host_path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// A mount.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct EditMount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    pub(super) options: Vec<String>,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

/// A hook of the runtime.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct EditHook {
    pub(super) hook_name: String,
    pub(super) path: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) timeout: Option<u32>,
}

impl Specification {
    /// Judges all of it, as the interface wants it of a file before any device of it is used.
    pub(super) fn check(&self) -> Result<()> {
        let version = VERSIONS.iter().position(|known| *known == self.cdi_version);
        let version = version.ok_or_else(|| {
            Error::unsupported(format!("cdiVersion {:?}: known are {}", self.cdi_version, VERSIONS.join(", ")))
        })?;
        if !is_cdi_kind(&self.kind) {
            return Err(Error::invalid(format!("kind {:?}: not VENDOR/CLASS", self.kind)));
        }
        if self.devices.is_empty() {
            return Err(Error::invalid("devices: there is none"));
        }
        self.container_edits.check().context("containerEdits")?;
        let mut least = self.container_edits.least_version();
        if !self.annotations.is_empty() || self.kind.split('/').nth(1).is_some_and(|class| class.contains('.')) {
            least = least.max("0.6.0");
        }
        for (index, device) in self.devices.iter().enumerate() {
            let name = &device.name;
            if !is_cdi_name(name) {
                return Err(Error::invalid(format!("devices: {name:?} is not a name")));
            }
            if self.devices[..index].iter().any(|other| other.name == *name) {
                return Err(Error::invalid(format!("devices: {name} is there twice")));
            }
            let edits = &device.container_edits;
            if edits.is_empty() {
                return Err(Error::invalid(format!("devices: {name}: containerEdits: empty")));
            }
            edits.check().with_context(|| format!("devices: {name}: containerEdits"))?;
            least = least.max(edits.least_version());
            if !device.annotations.is_empty() {
                least = least.max("0.6.0");
            }
            if name.starts_with(|first: char| first.is_ascii_digit()) {
                least = least.max("0.5.0");
            }
        }
        let wanted = VERSIONS.iter().position(|known| *known == least).unwrap_or_default();
        if version < wanted {
            return Err(Error::invalid(format!("cdiVersion {}: what is in it needs {least}", self.cdi_version)));
        }
        Ok(())
    }
}

impl ContainerEdits {
    fn is_empty(&self) -> bool {
        let Self { env, device_nodes, mounts, hooks, additional_gids, intel_rdt } = self;
        env.is_empty()
            && device_nodes.is_empty()
            && mounts.is_empty()
            && hooks.is_empty()
            && additional_gids.is_empty()
            && intel_rdt.is_none()
    }

    /// Gives the first version that has all of its fields.
    fn least_version(&self) -> &'static str {
        if !self.additional_gids.is_empty() {
            "0.7.0"
        } else if self.device_nodes.iter().any(|node| !node.host_path.is_empty()) {
            "0.5.0"
        } else if self.mounts.iter().any(|mount| !mount.kind.is_empty()) {
            "0.4.0"
        } else {
            VERSIONS[0]
        }
    }

    fn check(&self) -> Result<()> {
        if self.intel_rdt.is_some() {
            return Err(Error::unsupported("intelRdt is not supported"));
        }
        check_env(&self.env)?;
        for node in &self.device_nodes {
            let wrong = |cause: String| Error::invalid(format!("deviceNodes: {:?}: {cause}", node.path));
            if !node.path.starts_with('/') || !(node.host_path.is_empty() || node.host_path.starts_with('/')) {
                return Err(wrong("not an absolute path".to_owned()));
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return Err(wrong(format!("type {:?} is none of b, c, u, p", node.kind)));
            }
            if !node.permissions.is_empty() && !is_access(&node.permissions) {
                return Err(wrong(format!("permissions {:?} are not of r, w and m", node.permissions)));
            }
        }
        for mount in &self.mounts {
            if !mount.container_path.starts_with('/') {
                return Err(Error::invalid(format!("mounts: {:?}: not an absolute path", mount.container_path)));
            }
            if mount.host_path.is_empty() {
                return Err(Error::invalid(format!("mounts: {}: no hostPath", mount.container_path)));
            }
            if matches!(mount.kind.as_str(), "" | "bind") && !mount.host_path.starts_with('/') {
                return Err(Error::invalid(format!("mounts: {:?}: not an absolute path", mount.host_path)));
            }
        }
        for hook in &self.hooks {
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                return Err(Error::invalid(format!("hooks: {:?} is none of {}", hook.hook_name, HOOKS.join(", "))));
            }
            if !hook.path.starts_with('/') {
                return Err(Error::invalid(format!(
                    "hooks: {}: {:?} is not an absolute path",
                    hook.hook_name, hook.path
                )));
            }
            check_env(&hook.env).with_context(|| format!("hooks: {}", hook.hook_name))?;
        }
        Ok(())
    }
}

fn check_env(env: &[String]) -> Result<()> {
    let is_bad =
        |entry: &&String| entry.split_once('=').is_none_or(|(name, _)| name.is_empty()) || entry.contains('\0');
    match env.iter().find(is_bad) {
        Some(entry) => Err(Error::invalid(format!("env: {entry:?} is not NAME=value"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut value = json!({
            "cdiVersion": "1.0.0",
            "kind": "vendor.com/class",
            "devices": [{"name": "dev", "containerEdits": {"env": ["A=b"]}}],
        });
        change(&mut value);
        serde_json::from_value::<Specification>(value)?.check()
    }

    #[test]
    fn what_is_wrong_is_named() {
        check(|_| ()).unwrap();
        let edits = "/devices/0/containerEdits";
        for (place, value, cause) in [
            ("/cdiVersion", json!("2.0.0"), "cdiVersion \"2.0.0\": known are"),
            ("/kind", json!("vendor"), "kind \"vendor\": not VENDOR/CLASS"),
            ("/devices", json!([]), "devices: there is none"),
            ("/devices/0/name", json!("-x"), "devices: \"-x\" is not a name"),
            (edits, json!({}), "devices: dev: containerEdits: empty"),
            (edits, json!({"env": ["A"]}), "env: \"A\" is not NAME=value"),
            (edits, json!({"intelRdt": {}}), "intelRdt is not supported"),
            (edits, json!({"deviceNodes": [{"path": "x"}]}), "deviceNodes: \"x\": not an absolute path"),
            (edits, json!({"deviceNodes": [{"path": "/x", "type": "z"}]}), "type \"z\" is none of b, c, u, p"),
            (edits, json!({"deviceNodes": [{"path": "/x", "permissions": "x"}]}), "permissions \"x\""),
            (edits, json!({"mounts": [{"hostPath": "/a", "containerPath": "b"}]}), "mounts: \"b\": not an absolute"),
            (edits, json!({"hooks": [{"hookName": "never", "path": "/x"}]}), "hooks: \"never\" is none of prestart"),
            (edits, json!({"hooks": [{"hookName": "poststop", "path": "x"}]}), "\"x\" is not an absolute path"),
            (edits, json!({"magic": 1}), "unknown field `magic`"),
        ] {
            let error = check(|whole| *whole.pointer_mut(place).unwrap() = value).unwrap_err().report();
            assert!(error.contains(cause), "{error}");
        }
    }

    #[test]
    fn a_field_needs_its_version() {
        for (edits, least) in [
            (json!({"additionalGids": [7]}), "0.7.0"),
            (json!({"deviceNodes": [{"path": "/x", "hostPath": "/y"}]}), "0.5.0"),
            (json!({"mounts": [{"hostPath": "t", "containerPath": "/t", "type": "tmpfs"}]}), "0.4.0"),
        ] {
            let error = check(|whole| {
                whole["cdiVersion"] = json!("0.3.0");
                whole["devices"][0]["containerEdits"] = edits;
            });
            assert_eq!(error.unwrap_err().report(), format!("cdiVersion 0.3.0: what is in it needs {least}"));
        }
    }
}
