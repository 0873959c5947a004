//! What a configuration may hold and husk does not do: annotations are refused by name where a container would not be what
//! its maker asked for; sections for other platforms are passed over, with a warning.

use oci_spec::runtime::Spec;

use super::load;
use crate::error::{Error, Result};

/// A field, and how to see that a configuration asks for something by it.
struct Row {
    field: &'static str,
    is_set: fn(&Spec) -> bool,
}

/// Sections for other platforms and for virtual machines. Makers of bundles for several runtimes write them, and runc and
/// crun pass over them.
const IGNORED: &[(Row, &str)] = &[
    (Row { field: "vm", is_set: |spec| spec.vm().is_some() }, "husk makes containers, no virtual machines"),
    (Row { field: "windows", is_set: |spec| spec.windows().is_some() }, OTHER_PLATFORM),
    (Row { field: "solaris", is_set: |spec| spec.solaris().is_some() }, OTHER_PLATFORM),
    (Row { field: "zos", is_set: |spec| spec.zos().is_some() }, OTHER_PLATFORM),
];
const OTHER_PLATFORM: &str = "it is for another platform";

/// crun's annotations that ask for another way to run a container, with the reason why there is none. Others that begin
/// with `run.oci.` and have no meaning here are ignored, as they are for runc.
const ANNOTATIONS: &[(&str, &str)] = &[
    ("run.oci.handler", "husk runs programs of this kernel, and no virtual machine or WebAssembly by a library"),
    ("run.oci.seccomp.plugins", "husk is a static executable and loads no plugins; run.oci.seccomp.receiver works"),
];

/// Says what is passed over.
pub(super) fn ignored(spec: &Spec) -> impl Iterator<Item = String> {
    let rows = IGNORED.iter().filter(|(row, _)| (row.is_set)(spec));
    rows.map(|(row, reason)| load::ignored(row.field, reason))
}

/// Refuses an annotation without which the container would not be what its maker wants.
pub(super) fn refuse(spec: &Spec) -> Result<()> {
    let Some(annotations) = spec.annotations() else { return Ok(()) };
    for (name, reason) in ANNOTATIONS {
        if let Some(value) = annotations.get(*name).filter(|value| !value.is_empty()) {
            return Err(Error::unsupported(format!("annotations: {name}: {value:?}: not supported: {reason}")));
        }
    }
    Ok(())
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

    #[test]
    fn other_platforms_are_passed_over_with_a_word() {
        let spec = json!({
            "ociVersion": "1.3.0", "root": {"path": "r"}, "process": {"user": {}, "cwd": "/", "args": ["x"]},
            "linux": {"namespaces": [{"type": "mount"}], "intelRdt": {"enableCMT": true}},
            "vm": {"kernel": {"path": "/k"}, "hwConfig": {"vcpus": 2}}, "windows": {"layerFolders": []}, "solaris": {},
            "zos": {}, "freebsd": {"devices": []},
        });
        let document = load::parse("config.json", spec.to_string().as_bytes()).unwrap();
        let validated = validate::validate(document).unwrap();
        let warned: Vec<&str> = validated.warnings().iter().filter_map(|text| text.split(':').next()).collect();
        assert_eq!(warned, ["freebsd", "linux.intelRdt.enableCMT", "vm", "windows", "solaris", "zos"]);
    }
}
