//! The SELinux label of the file systems that are mounted for a container (`linux.mountLabel`): an option of their own,
//! so that every file in them has it. What is bound from the host keeps the labels that it has.

use std::ffi::{CStr, CString};
use std::path::Path;

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};

/// crun's annotation that names another of mount(8)'s four options for it.
const KIND_ANNOTATION: &str = "run.oci.mount_context_type";
const KINDS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// A label, and the option that gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLabel {
    option: CString,
    label: CString,
}

/// How a file system gets a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By an option when it is made.
    Option,
    /// By an attribute of its root: it takes no such option.
    Attribute,
    /// The policy labels it by its type.
    Never,
}

impl Way {
    fn of(kind: &CStr) -> Self {
        match kind.to_bytes() {
            b"proc" | b"sysfs" | b"cgroup" | b"cgroup2" => Self::Never,
            b"mqueue" => Self::Attribute,
            _ => Self::Option,
        }
    }
}

impl MountLabel {
    /// Takes the label of a spec, if it has one.
    pub fn of(spec: &Spec) -> Result<Option<Self>> {
        Self::on(spec, Path::new("/"))
    }

    fn on(spec: &Spec, host: &Path) -> Result<Option<Self>> {
        const FIELD: &str = "linux.mountLabel";
        let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
        let Some(label) = label.filter(|label| !label.is_empty()) else { return Ok(None) };
        require_selinux(FIELD, host)?;
        let annotations = spec.annotations().as_ref();
        let kind =
            annotations.and_then(|annotations| annotations.get(KIND_ANNOTATION)).map_or(KINDS[0], String::as_str);
        if !KINDS.contains(&kind) {
            return Err(Error::invalid(format!("{KIND_ANNOTATION}: {kind:?} is none of {}", KINDS.join(", "))));
        }
        Ok(Some(Self { option: CString::new(kind)?, label: CString::new(label)? }))
    }

    /// Adds the option to those of a new file system, unless they say something else.
    pub fn add_to(&self, kind: &CStr, data: &mut Vec<(CString, Option<CString>)>) {
        let has_one = |(key, _): &(CString, _)| KINDS.iter().any(|kind| kind.as_bytes() == key.to_bytes());
        if Way::of(kind) == Way::Option && !data.iter().any(has_one) {
            data.push((self.option.clone(), Some(self.label.clone())));
        }
    }

    /// Gives the label for the root of a file system that takes none as an option.
    pub fn attribute_for(&self, kind: &CStr) -> Option<&CStr> {
        (Way::of(kind) == Way::Attribute).then_some(&self.label)
    }
}

/// Refuses a label where the kernel runs no SELinux: what was asked for would not be there (CVE-2023-28642).
pub fn require_selinux(field: &str, host: &Path) -> Result<()> {
    // What libselinux looks at: the file system of the policy is mounted.
    if host.join("sys/fs/selinux/enforce").exists() {
        return Ok(());
    }
    Err(Error::unsupported(format!("{field}: this kernel runs no SELinux, so the label cannot be applied")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(annotation: &str, host: &Path) -> Result<Option<MountLabel>> {
        let text =
            format!(r#"{{"ociVersion": "1.3.0", "linux": {{"mountLabel": "u:object_r:x:s0:c1,c2"}} {annotation}}}"#);
        MountLabel::on(&serde_json::from_str(&text).unwrap(), host)
    }

    #[test]
    fn file_systems_are_labelled_in_their_ways() {
        let host = tempfile::tempdir().unwrap();
        let error = label("", host.path()).unwrap_err();
        assert_eq!(error.report(), "linux.mountLabel: this kernel runs no SELinux, so the label cannot be applied");
        std::fs::create_dir_all(host.path().join("sys/fs/selinux/enforce")).unwrap();
        let found = label("", host.path()).unwrap().unwrap();
        let options = |kind: &CStr, given: &[(&str, &str)]| {
            let mut data =
                given.iter().map(|(key, value)| (CString::new(*key).unwrap(), CString::new(*value).ok())).collect();
            found.add_to(kind, &mut data);
            let show = |(key, value): &(CString, Option<CString>)| {
                format!("{}={}", key.to_string_lossy(), value.as_deref().unwrap_or_default().to_string_lossy())
            };
            data.iter().map(show).collect::<Vec<_>>()
        };
        assert_eq!(options(c"tmpfs", &[("mode", "755")]), ["mode=755", "context=u:object_r:x:s0:c1,c2"]);
        assert_eq!(options(c"devpts", &[]), ["context=u:object_r:x:s0:c1,c2"]);
        assert_eq!(options(c"tmpfs", &[("rootcontext", "y")]), ["rootcontext=y"]);
        for kind in [c"proc", c"sysfs", c"cgroup2", c"mqueue"] {
            assert!(options(kind, &[]).is_empty(), "{kind:?}");
            assert_eq!(found.attribute_for(kind).is_some(), kind == c"mqueue");
        }
        let other = label(r#", "annotations": {"run.oci.mount_context_type": "fscontext"}"#, host.path());
        assert_eq!(other.unwrap().unwrap().option, c"fscontext".to_owned());
        let wrong = label(r#", "annotations": {"run.oci.mount_context_type": "x"}"#, host.path());
        assert!(wrong.unwrap_err().report().starts_with("run.oci.mount_context_type: \"x\" is none of context,"));
    }
}
