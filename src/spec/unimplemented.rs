//! The fields that the specification defines and husk does not do yet: each is refused by name, none ignored.
//!
//! Whoever implements one deletes its row.

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Spec};

use crate::error::{Error, Result};

/// A field, and how to see that a configuration asks for something by it.
struct Row<T> {
    field: &'static str,
    is_set: fn(&T) -> bool,
}

const SPEC: &[Row<Spec>] = &[
    Row { field: "vm", is_set: |spec| spec.vm().is_some() },
    Row { field: "windows", is_set: |spec| spec.windows().is_some() },
    Row { field: "solaris", is_set: |spec| spec.solaris().is_some() },
    Row { field: "zos", is_set: |spec| spec.zos().is_some() },
    // A container without one would mount on the host.
    Row { field: "linux.namespaces: a container without a mount namespace", is_set: |spec| !has_mount_namespace(spec) },
];

const LINUX: &[Row<Linux>] = &[Row { field: "linux.intelRdt", is_set: |linux| linux.intel_rdt().is_some() }];

/// crun's annotations that ask for another way to run a container, with the reason why there is none. Others that begin
/// with `run.oci.` and have no meaning here are ignored, as they are for runc.
const ANNOTATIONS: &[(&str, &str)] = &[
    ("run.oci.handler", "husk runs programs of this kernel, and no virtual machine or WebAssembly by a library"),
    ("run.oci.seccomp.plugins", "husk is a static executable and loads no plugins; run.oci.seccomp.receiver works"),
];

/// Says whether a field is refused, for `features`.
pub fn is_refused(field: &str) -> bool {
    SPEC.iter().map(|row| row.field).chain(LINUX.iter().map(|row| row.field)).any(|name| name == field)
}

/// Refuses a configuration that sets a field outside of its process.
pub(super) fn refuse(spec: &Spec) -> Result<()> {
    refuse_rows(SPEC, spec)?;
    refuse_annotations(spec)?;
    spec.linux().as_ref().map_or(Ok(()), |linux| refuse_rows(LINUX, linux))
}

/// Refuses an annotation without which the container would not be what its maker wants.
fn refuse_annotations(spec: &Spec) -> Result<()> {
    let Some(annotations) = spec.annotations() else { return Ok(()) };
    for (name, reason) in ANNOTATIONS {
        if let Some(value) = annotations.get(*name).filter(|value| !value.is_empty()) {
            return Err(Error::unsupported(format!("annotations: {name}: {value:?}: not supported: {reason}")));
        }
    }
    Ok(())
}

fn refuse_rows<T>(rows: &[Row<T>], subject: &T) -> Result<()> {
    match rows.iter().find(|row| (row.is_set)(subject)) {
        Some(row) => Err(Error::unsupported(format!("{}: not supported by this version of husk", row.field))),
        None => Ok(()),
    }
}

fn has_mount_namespace(spec: &Spec) -> bool {
    let namespaces: &[LinuxNamespace] =
        spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Mount)
}

#[cfg(test)]
mod tests {
    use super::super::{load, validate};
    use serde_json::{Value, json};

    #[test]
    fn annotations_that_ask_for_another_runtime_are_refused() {
        let refusal = |annotations: Value| {
            let spec = json!({
                "ociVersion": "1.3.0", "root": {"path": "r"}, "annotations": annotations,
                "process": {"user": {}, "cwd": "/", "args": ["x"]}, "linux": {"namespaces": [{"type": "mount"}]},
            });
            let document = load::parse("config.json", spec.to_string().as_bytes()).unwrap();
            validate::validate(document).err().map(|error| error.report()).unwrap_or_default()
        };
        for name in ["krun", "wasm"] {
            let report = refusal(json!({"run.oci.handler": name}));
            assert!(
                report.starts_with(&format!("annotations: run.oci.handler: {name:?}: not supported: ")),
                "{report}"
            );
        }
        let report = refusal(json!({"run.oci.seccomp.plugins": "/x.so"}));
        assert!(report.starts_with("annotations: run.oci.seccomp.plugins: \"/x.so\": not supported: "), "{report}");
        assert_eq!(refusal(json!({"run.oci.handler": "", "run.oci.of.the.future": "1"})), "");
    }

    /// Each row of the tables is asked for in the least way; an unknown field would pass, so a typo shows.
    #[test]
    fn each_field_is_refused_by_its_name() {
        let rows = [
            ("vm", json!({"kernel": {"path": "/k"}})),
            ("windows", json!({"layerFolders": []})),
            ("solaris", json!({})),
            ("zos", json!({})),
            ("linux.namespaces", json!([{"type": "pid"}])),
            ("linux.intelRdt", json!({"closID": "x"})),
            ("linux.intelRdt", json!({"schemata": ["L3:0=1"], "enableMonitoring": true})),
        ];
        for (field, value) in rows {
            let mut spec = json!({
                "ociVersion": "1.3.0",
                "root": {"path": "r"},
                "process": {"user": {}, "cwd": "/", "args": ["x"]},
                "linux": {"namespaces": [{"type": "mount"}]},
            });
            let pointer = format!("/{}", field.replace('.', "/"));
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent: &mut Value = if parent.is_empty() { &mut spec } else { spec.pointer_mut(parent).unwrap() };
            parent[key] = value.clone();
            let document = load::parse("config.json", spec.to_string().as_bytes()).unwrap();
            let error = validate::validate(document).unwrap_err();
            assert!(error.report().starts_with(field), "{field} = {value}: {error:?}");
            assert_eq!(error.kind(), crate::error::Kind::Unsupported, "{field}");
        }
    }
}
