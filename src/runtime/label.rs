//! Labels of the security modules: an AppArmor profile, an SELinux label. Written to one's own attributes below
//! `/proc/self/attr` of the verified procfs, from where the kernel takes them at the exec. A label that cannot be
//! applied is an error, never passed over (CVE-2023-28642).

use std::ffi::CStr;
use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::rootfs::host::HostProc;
use crate::rootfs::label::require_selinux;

/// Where AppArmor has its attributes since Linux 5.8; before, and for SELinux, they are those of the first module.
const APPARMOR_EXEC: &CStr = c"self/attr/apparmor/exec";
const EXEC: &CStr = c"self/attr/exec";
const KEY_CREATE: &str = "self/attr/keycreate";

/// The labels of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// What is written before the exec.
    pub(super) at_exec: Vec<Label>,
    /// The SELinux label, which keyrings get too.
    selinux: Option<String>,
}

/// One file below `/proc` and what goes into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    field: &'static str,
    value: String,
    pub(super) path: &'static CStr,
    pub(super) text: Vec<u8>,
}

impl Labels {
    /// Takes the labels of a process; those of the container's own process where it names none, which is what `exec` wants.
    pub fn of(process: &Process, container: &Spec) -> Result<Self> {
        Self::on(process, container, Path::new("/"))
    }

    /// Does so for a host whose `/proc` and `/sys` lie below `host`.
    fn on(process: &Process, container: &Spec, host: &Path) -> Result<Self> {
        let first = container.process().as_ref();
        let is_set = |text: &&str| !text.is_empty();
        let pick = |field: fn(&Process) -> Option<&str>| {
            field(process).filter(is_set).or_else(|| first.and_then(field).filter(is_set)).map(ToOwned::to_owned)
        };
        let profile = pick(|process| process.apparmor_profile().as_deref());
        let selinux = pick(|process| process.selinux_label().as_deref());
        let mut at_exec = Vec::new();
        if let Some(value) = profile {
            let field = "process.apparmorProfile";
            if !std::fs::read(host.join("sys/module/apparmor/parameters/enabled"))
                .is_ok_and(|text| text.starts_with(b"Y"))
            {
                return Err(Error::unsupported(format!(
                    "{field}: this kernel runs no AppArmor, so the label cannot be applied"
                )));
            }
            let path = if host.join("proc").join(path_of(APPARMOR_EXEC)).exists() { APPARMOR_EXEC } else { EXEC };
            at_exec.push(Label { field, path, text: format!("exec {value}").into_bytes(), value });
        }
        if let Some(value) = &selinux {
            require_selinux("process.selinuxLabel", host)?;
            let text = value.clone().into_bytes();
            at_exec.push(Label { field: "process.selinuxLabel", path: EXEC, text, value: value.clone() });
        }
        if let [.., one, other] = &at_exec[..]
            && one.path == other.path
        {
            // The one would overwrite the other.
            return Err(Error::unsupported(
                "process.selinuxLabel: not together with process.apparmorProfile before Linux 5.8",
            ));
        }
        Ok(Self { at_exec, selinux })
    }

    /// Says that keyrings which this process makes get its label. No call without one.
    pub(super) fn begin_keys(&self, proc: &HostProc) -> Result<()> {
        label_keys(proc, self.selinux.as_deref())
    }

    /// Takes that back: the workload's own keys are its policy's to label.
    pub(super) fn end_keys(&self, proc: &HostProc) -> Result<()> {
        label_keys(proc, self.selinux.as_ref().map(|_| ""))
    }
}

fn label_keys(proc: &HostProc, label: Option<&str>) -> Result<()> {
    let Some(label) = label else { return Ok(()) };
    proc.write(KEY_CREATE, label).context("write /proc/self/attr/keycreate").context("process.selinuxLabel")
}

impl Label {
    /// Says what it means that the label could not be written.
    pub(super) fn explain(&self, errno: Errno) -> Error {
        let error = Error::from(errno)
            .context(format!("write /proc/{}", path_of(self.path)))
            .context(format!("{}: {:?}", self.field, self.value));
        match errno {
            Errno::NOENT => error.with_hint("the profile is not loaded; apparmor_parser loads one"),
            Errno::INVAL => error.with_hint("the loaded policy has no such label"),
            _ => error,
        }
    }
}

fn path_of(path: &CStr) -> &str {
    path.to_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the parts of a host's `/proc` and `/sys` that tell the modules.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = host.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
            std::io::Write::write_all(&mut std::fs::File::options().append(true).open(&path).unwrap(), text.as_bytes())
                .unwrap();
        }
        host
    }

    fn labels(process: &str, container: &str, host: &Path) -> Result<Labels> {
        let parse =
            |fields: &str| serde_json::from_str(&format!("{{\"user\": {{}}, \"cwd\": \"/\" {fields}}}")).unwrap();
        let mut spec = Spec::default();
        spec.set_process(Some(parse(container)));
        Labels::on(&parse(process), &spec, host)
    }

    const APPARMOR: &str = r#", "apparmorProfile": "docker-default""#;
    const SELINUX: &str = r#", "selinuxLabel": "system_u:system_r:container_t:s0:c1,c2""#;
    /// Debian 12, Linux 6.1; Fedora, Linux 6.12; RHEL 8's module that is there and off.
    const DEBIAN: &[(&str, &str)] =
        &[("sys/module/apparmor/parameters/enabled", "Y\n"), ("proc/self/attr/apparmor/exec", "")];
    const FEDORA: &[(&str, &str)] = &[("sys/fs/selinux/enforce", "1"), ("proc/self/attr/exec", "")];
    const OFF: &[(&str, &str)] = &[("sys/module/apparmor/parameters/enabled", "N\n"), ("proc/self/attr/exec", "")];
    const OLD: &[(&str, &str)] = &[("sys/module/apparmor/parameters/enabled", "Y\n"), ("proc/self/attr/exec", "")];

    #[test]
    fn each_module_has_its_file_and_its_words() {
        for (files, process, path, text) in [
            (DEBIAN, APPARMOR, APPARMOR_EXEC, "exec docker-default"),
            (OLD, APPARMOR, EXEC, "exec docker-default"),
            (FEDORA, SELINUX, EXEC, "system_u:system_r:container_t:s0:c1,c2"),
        ] {
            let host = host(files);
            for (process, container) in [(process, ""), ("", process)] {
                let labels = labels(process, container, host.path()).unwrap();
                assert_eq!((labels.at_exec[0].path, &labels.at_exec[0].text[..]), (path, text.as_bytes()));
                assert_eq!(labels.selinux.is_some(), path == EXEC && files == FEDORA);
            }
        }
    }

    #[test]
    fn two_modules_at_once_have_two_files() {
        let host = host(&[DEBIAN, FEDORA].concat());
        let labels = labels(&format!("{APPARMOR}{SELINUX}"), "", host.path()).unwrap();
        assert_eq!(labels.at_exec.len(), 2);
    }

    #[test]
    fn a_label_without_its_module_is_refused() {
        for (files, process, field, module) in [
            (FEDORA, APPARMOR, "process.apparmorProfile", "AppArmor"),
            (OFF, APPARMOR, "process.apparmorProfile", "AppArmor"),
            (DEBIAN, SELINUX, "process.selinuxLabel", "SELinux"),
        ] {
            let error = labels(process, "", host(files).path()).unwrap_err();
            assert_eq!(
                error.report(),
                format!("{field}: this kernel runs no {module}, so the label cannot be applied")
            );
        }
        let nothing = host(&[]);
        for process in ["", r#", "apparmorProfile": "", "selinuxLabel": """#] {
            assert_eq!(labels(process, "", nothing.path()).unwrap(), Labels::default());
        }
    }

    #[test]
    fn a_profile_that_is_not_loaded_is_named() {
        let labels = labels(APPARMOR, "", host(DEBIAN).path()).unwrap();
        let error = labels.at_exec[0].explain(Errno::NOENT);
        let expected = "process.apparmorProfile: \"docker-default\": write /proc/self/attr/apparmor/exec: ";
        assert!(error.report().starts_with(expected), "{}", error.report());
    }
}
