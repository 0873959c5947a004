//! Everything that parent, child and init need, computed before the clone: C strings, masks, descriptors, BPF.
//!
//! What is here was validated; what init does with it is a series of system calls.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, PosixRlimitType, Process, Spec};

use super::attributes::Attributes;
use super::capability::{self, Masks};
use super::hooks::{HookPlan, Output};
use super::label::Labels;
use super::landlock::{self, Landlock};
use super::secrets::Secrets;
use super::{listener, notify};
use crate::error::{Context, Error, Result};
use crate::namespaces::net_device::NetDevice;
use crate::namespaces::plan::{NamespacePlan, Privileged};
use crate::rootfs::bind::UserNamespace;
use crate::rootfs::host::HostProc;
use crate::rootfs::plan::{MountPlan, MountSource, Origin, RootfsPlan, Surroundings, Switch};
use crate::seccomp::Program;
use crate::spec::validate::Validated;
use crate::support::{base64, log};
use crate::sys::clone::CloneFlags;
use crate::sys::process::CStringArray;

/// What the caller of a verb chose, beside the bundle.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// What is for the workload alone, and in no configuration.
    pub secrets: Secrets,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// Descriptors from 3 on that the workload keeps (`--preserve-fds`, LISTEN_FDS).
    pub preserved_fds: u32,
    /// Those of them that the workload is told about as a socket-activating manager would (sd_listen_fds(3)).
    pub listening_fds: u32,
    /// What the manager calls them (sd_listen_fds_with_names(3)).
    pub listening_names: Option<String>,
    /// Whether the workload has a notify socket (sd_notify(3)).
    pub has_notify_socket: bool,
    /// Whether the workload is killed when its parent dies. For an engine's foreground containers.
    pub dies_with_parent: bool,
    /// Whether those of the standard streams that are FIFOs were made for this workload alone.
    pub owns_fifos: bool,
    /// Whether the first process is an init whose child the workload is.
    pub has_init: bool,
}

/// The whole plan of one container.
pub struct Plan {
    /// Namespaces.
    pub namespaces: NamespacePlan,
    /// File system tree.
    pub rootfs: RootfsPlan,
    /// The workload.
    pub process: ProcessPlan,
    /// Name for the new UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name for it.
    pub domainname: Option<String>,
    /// Kernel parameters: path below `/proc/sys`, value.
    pub sysctls: Vec<(String, String)>,
    /// Interfaces that the parent moves to the container's network.
    pub net_devices: Vec<NetDevice>,
    /// Whether the parent joins it to networks besides.
    pub asks_for_networks: bool,
    /// Hooks.
    pub hooks: HookPlan,
    /// Where they write to.
    pub hook_output: Output,
    /// The host's `/proc`, for init.
    pub proc: HostProc,
    /// The open `exec.fifo` that init waits in before the exec (`create`).
    pub exec_fifo: Option<OwnedFd>,
    /// Things the caller should be told.
    pub warnings: Vec<String>,
}

/// The workload, ready for execve(2).
pub struct ProcessPlan {
    /// Argument list.
    pub argv: CStringArray,
    /// Environment.
    pub envp: CStringArray,
    /// Paths to try, in order: one with a slash in `args[0]`, else one per entry of PATH.
    pub candidates: Vec<CString>,
    /// Whether HOME is to be looked up in the container's passwd.
    pub wants_home: bool,
    /// Working directory.
    pub cwd: PathBuf,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups inside.
    pub groups: Vec<u32>,
    /// Whether setgroups(2) is denied in the user namespace: an ordinary user's single-id map.
    pub denies_setgroups: bool,
    /// File mode creation mask.
    pub umask: u32,
    /// Capability sets; empty ones where the spec has none, as runc and crun read it.
    pub capabilities: Masks,
    /// Scheduling, I/O priority, memory policy, execution domain.
    pub attributes: Attributes,
    /// Resource limits: number, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// no_new_privs.
    pub no_new_privileges: bool,
    /// OOM score adjustment.
    pub oom_score_adj: Option<i32>,
    /// A failure to set it is passed over: without CAP_SYS_RESOURCE it cannot be lowered.
    pub tolerates_oom_score: bool,
    /// A pseudo-terminal becomes stdio.
    pub terminal: bool,
    /// Its rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Descriptors from 3 on that survive the exec.
    pub preserved_fds: u32,
    /// The container's seccomp filter.
    pub seccomp: Option<Program>,
    /// Whether it gets a session keyring of its own.
    pub has_own_keyring: bool,
    /// Labels of the security modules.
    pub labels: Labels,
    /// Landlock's rules.
    pub landlock: Option<Landlock>,
    /// Whether the caller's supplementary groups stay.
    pub keeps_groups: bool,
    /// Things the caller should be told.
    pub warnings: Vec<String>,
    /// See [`Choices::dies_with_parent`].
    pub dies_with_parent: bool,
    /// See [`Choices::owns_fifos`].
    pub owns_fifos: bool,
    /// See [`Choices::has_init`].
    pub has_init: bool,
}

/// Makes the plan of a container.
pub fn plan(spec: &Validated, bundle: &Path, choices: &Choices) -> Result<Plan> {
    let spec: &Spec = spec.spec();
    let is_root = rustix::process::geteuid().is_root();
    let privileged = if is_root { Privileged::Yes } else { Privileged::No };
    let namespaces = crate::namespaces::plan::plan(spec, privileged)?;
    let has_user_namespace = namespaces.has_own(LinuxNamespaceType::User);
    let surroundings = Surroundings {
        has_mount_namespace: namespaces.creates(CloneFlags::NEWNS),
        has_user_namespace,
        no_pivot: choices.no_pivot,
        id_maps: namespaces.id_maps.as_ref(),
    };
    let mut rootfs = crate::rootfs::plan::plan(spec, bundle, surroundings)?;
    if !choices.secrets.files.is_empty() && rootfs.switch == Switch::Chroot {
        return Err(Error::unsupported("secrets: they need a new mount namespace in linux.namespaces"));
    }
    rootfs.secrets.clone_from(&choices.secrets.files);
    let joined = namespaces.join.iter().find(|join| join.kind == LinuxNamespaceType::User).map(|join| &join.fd);
    let user_namespace = UserNamespace { maps: namespaces.id_maps.as_ref(), joined };
    crate::rootfs::bind::open_sources(&mut rootfs, user_namespace)?;
    let linux = spec.linux().as_ref();
    let process = spec.process().as_ref().ok_or_else(|| Error::invalid("process: missing"))?;
    let denies_setgroups =
        !is_root && namespaces.id_maps.as_ref().is_some_and(crate::namespaces::idmap::IdMaps::is_single);
    let mut process = process_plan(process, spec, choices)?;
    process.seccomp = seccomp_filter(spec)?;
    process.denies_setgroups = denies_setgroups;
    let mut warnings = process.fit_to_caller(has_user_namespace, is_root)?;
    for bit in capability::bits(process.capabilities.unraisable()) {
        warnings
            .push(format!("can't raise ambient capability {}: operation not permitted", capability::names(1 << bit)));
    }
    let sysctls = linux.and_then(|linux| linux.sysctl().as_ref());
    let sysctls: BTreeMap<_, _> = sysctls.into_iter().flatten().collect();
    let sysctls = sysctls.into_iter().map(|(key, value)| (sysctl_path(key), value.clone())).collect();
    let hooks = HookPlan::new(spec);
    Ok(Plan {
        namespaces,
        rootfs,
        process,
        hostname: spec.hostname().clone(),
        domainname: spec.domainname().clone(),
        sysctls,
        net_devices: net_devices(spec, privileged)?,
        asks_for_networks: false,
        hook_output: hooks.output.open()?,
        hooks,
        proc: HostProc::open()?,
        exec_fifo: None,
        warnings,
    })
}

impl Plan {
    /// Whether the parent has something to do in the container's network namespace.
    pub(super) fn has_network_work(&self) -> bool {
        self.asks_for_networks || !self.net_devices.is_empty()
    }

    /// Adds a mount of the runtime's own, behind those of the configuration. Its source is a directory of the state's,
    /// which is closed to everybody else.
    pub(super) fn add_mount(&mut self, mount: &Mount) -> Result<()> {
        if self.rootfs.switch == Switch::Chroot {
            let field = mount.destination().display();
            return Err(Error::unsupported(format!("{field}: needs a new mount namespace in linux.namespaces")));
        }
        let mut mount = MountPlan::new(mount, Path::new("/"), None)?;
        let has_user_namespace = self.namespaces.has_own(LinuxNamespaceType::User);
        if has_user_namespace && rustix::process::geteuid().is_root() {
            crate::rootfs::bind::open_source(&mut mount, self.rootfs.detachment)?;
        }
        self.rootfs.mounts.push(mount);
        Ok(())
    }
}

impl Plan {
    /// Takes a tree of another container's mounts for `/dev/shm`.
    pub(super) fn share_memory(&mut self, tree: OwnedFd) -> Result<()> {
        let place = Path::new("/dev/shm");
        let mount = self.rootfs.mounts.iter_mut().find(|mount| mount.destination == place);
        match mount.map(|mount| &mut mount.source) {
            Some(MountSource::Bind { origin, .. }) => {
                *origin = Origin::Parent(tree);
                Ok(())
            }
            _ => Err(Error::invalid("/dev/shm: is to be another container's, and is no bind")),
        }
    }
}

impl ProcessPlan {
    /// Leaves out what the caller cannot give, and gives the warnings about it.
    pub(super) fn fit_to_caller(&mut self, has_user_namespace: bool, is_root: bool) -> Result<Vec<String>> {
        self.tolerates_oom_score = has_user_namespace || !is_root;
        let mut warnings = std::mem::take(&mut self.warnings);
        if !has_user_namespace {
            let lost = self.capabilities.limit(capability::permitted()?);
            if lost != 0 {
                let names = capability::names(lost);
                warnings.push(format!("process.capabilities: left out, not held by the caller: {names}"));
            }
        }
        Ok(warnings)
    }
}

/// Compiles the container's filter.
pub(super) fn seccomp_filter(spec: &Spec) -> Result<Option<Program>> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let annotation = |name| spec.annotations().as_ref()?.get(name).map(String::as_str);
    let mut program = match (annotation("run.oci.seccomp_bpf_data"), profile) {
        (Some(text), _) => {
            let bytes = base64::decode(text).ok_or_else(|| Error::invalid("run.oci.seccomp_bpf_data: not base64"))?;
            crate::seccomp::take_program(&bytes, profile).context("run.oci.seccomp_bpf_data")?
        }
        (None, Some(profile)) => {
            let is_strict = annotation("run.oci.seccomp_fail_unknown_syscall").is_some_and(|word| word != "0");
            let compile = if is_strict { crate::seccomp::compile_strictly } else { crate::seccomp::compile };
            compile(profile).context("linux.seccomp")?
        }
        (None, None) => return Ok(None),
    };
    if let Some(listener) = &mut program.listener {
        let variable = std::env::var_os("RUN_OCI_SECCOMP_RECEIVER").map(PathBuf::from);
        listener::complete(listener, annotation("run.oci.seccomp.receiver"), variable)?;
    }
    // runc's words.
    log::debug(|| format!("seccomp filter flags: {}", program.flags));
    Ok(Some(program))
}

fn net_devices(spec: &Spec, privileged: Privileged) -> Result<Vec<NetDevice>> {
    let devices = crate::namespaces::net_device::plan(spec);
    if !devices.is_empty() && privileged == Privileged::No {
        return Err(Error::unsupported("network devices are not supported for rootless containers"));
    }
    Ok(devices)
}

/// Makes the plan of a process of a container; for `exec` the caller adds the container's filter.
pub fn process_plan(process: &Process, container: &Spec, choices: &Choices) -> Result<ProcessPlan> {
    let args = process.args().as_deref().unwrap_or_default();
    let name = args.first().ok_or_else(|| Error::invalid("process.args: empty"))?;
    let env = process.env().as_deref().unwrap_or_default();
    let user = process.user();
    let mut environment = Vec::with_capacity(env.len() + 3);
    let mut wants_home = true;
    // Of a name that is there twice the last counts, as in a shell: programs differ in which of two they take.
    let mut names = HashSet::with_capacity(env.len());
    let own = own_variables(choices);
    names.extend(own.iter().map(|entry| name_of(entry)));
    if names.contains("HOME") {
        wants_home = false;
    }
    for entry in env.iter().rev().filter(|entry| names.insert(name_of(entry))) {
        match entry.strip_prefix("HOME=") {
            Some("") => continue,
            Some(_) => wants_home = false,
            None => {}
        }
        environment.push(CString::new(entry.as_str()).with_context(|| format!("process.env: {}", name_of(entry)))?);
    }
    environment.reverse();
    for entry in own {
        environment.push(CString::new(entry)?);
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    let argv =
        args.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<Vec<_>, _>>().context("process.args")?;
    let mut rlimits = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        rlimits.push((rlimit_number(limit.typ()), limit.soft(), limit.hard()));
    }
    let annotation = |name| container.annotations().as_ref()?.get(name).map(String::as_str);
    let mut warnings = Vec::new();
    let labels = Labels::of(process, container)?;
    let landlock = landlock::plan(annotation(landlock::ANNOTATION), &mut warnings)?;
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    if landlock.is_some() && !labels.at_exec.is_empty() && !no_new_privileges {
        // The rules would be in place before the label is written, and could forbid it.
        return Err(Error::unsupported(format!(
            "{}: with a label it needs process.noNewPrivileges",
            landlock::ANNOTATION
        )));
    }
    if choices.has_init && !labels.at_exec.is_empty() {
        // A label is for what is executed next, which the init is not.
        return Err(Error::unsupported("a label of a security module on an init of the runtime's own"));
    }
    let console_size = match process.console_size() {
        Some(size) => {
            let side =
                |value: u64| u16::try_from(value).map_err(|_| Error::invalid("process.consoleSize: out of range"));
            Some((side(size.height())?, side(size.width())?))
        }
        None => None,
    };
    Ok(ProcessPlan {
        candidates: candidates(name, path)?,
        argv: CStringArray::new(argv),
        envp: CStringArray::new(environment),
        wants_home,
        cwd: process.cwd().clone(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        denies_setgroups: false,
        umask: user.umask().unwrap_or(0o022),
        capabilities: process.capabilities().as_ref().map(Masks::from_spec).unwrap_or_default(),
        attributes: Attributes::of(process, container)?,
        rlimits,
        no_new_privileges,
        oom_score_adj: process.oom_score_adj(),
        tolerates_oom_score: false,
        terminal: process.terminal().unwrap_or(false),
        console_size,
        preserved_fds: choices.preserved_fds,
        seccomp: None,
        has_own_keyring: !choices.no_new_keyring,
        labels,
        landlock,
        keeps_groups: annotation("run.oci.keep_original_groups").is_some_and(|word| word != "0"),
        warnings,
        dies_with_parent: choices.dies_with_parent,
        owns_fifos: choices.owns_fifos,
        has_init: choices.has_init,
    })
}

/// What the workload is told of its sockets, whatever the configuration says of them.
fn own_variables(choices: &Choices) -> Vec<String> {
    let mut entries = Vec::new();
    if choices.listening_fds > 0 {
        entries.push(format!("LISTEN_FDS={}", choices.listening_fds));
        entries.push("LISTEN_PID=1".to_owned());
        entries.extend(choices.listening_names.as_ref().map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    if choices.has_notify_socket {
        entries.push(notify::VARIABLE.to_owned());
    }
    entries.extend(choices.secrets.variables.iter().cloned());
    entries
}

/// The name of an environment entry: values can be secrets and stay out of messages.
fn name_of(entry: &str) -> &str {
    entry.split('=').next().unwrap_or_default()
}

/// Where to look for an executable, as execvp(3) does: a name with a slash stands for itself.
fn candidates(name: &str, path: Option<&str>) -> Result<Vec<CString>> {
    if name.contains('/') {
        return Ok(vec![CString::new(name)?]);
    }
    let mut paths = Vec::new();
    for directory in path.unwrap_or_default().split(':') {
        // An empty entry is the working directory; nobody means it, and an image could use it.
        if !directory.is_empty() && !name.is_empty() {
            paths.push(CString::new(format!("{directory}/{name}"))?);
        }
    }
    Ok(paths)
}

/// `net.ipv4.ip_forward` lies at `net/ipv4/ip_forward`; a key with slashes keeps its dots (sysctl.d(5)).
fn sysctl_path(key: &str) -> String {
    let slash = key.find('/');
    match (slash, key.find('.')) {
        (Some(slash), dot) if dot.is_none_or(|dot| slash < dot) => format!("sys/{key}"),
        _ => {
            let swapped: String = key
                .chars()
                .map(|letter| match letter {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect();
            format!("sys/{swapped}")
        }
    }
}

/// Numbers of asm-generic/resource.h.
fn rlimit_number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_looked_for_as_execvp_does() {
        let paths = |name, path| -> Vec<String> {
            candidates(name, path).unwrap().into_iter().map(|path| path.into_string().unwrap()).collect()
        };
        assert_eq!(paths("sh", Some("/bin:/usr/bin")), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(paths("./sh", Some("/bin")), ["./sh"]);
        assert_eq!(paths("sh", Some(":/bin:")), ["/bin/sh"]);
        assert!(paths("sh", None).is_empty());
        assert!(paths("", Some("/bin")).is_empty());
    }

    #[test]
    fn sysctl_keys_become_paths() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "sys/net/ipv4/conf/eth0.1/forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "sys/net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(sysctl_path(key), path);
        }
    }

    #[test]
    fn a_process_without_capabilities_has_none() {
        let process: Process = serde_json::from_str(r#"{"user":{},"args":["sh"],"cwd":"/"}"#).unwrap();
        assert_eq!(
            process_plan(&process, &Spec::default(), &Choices::default()).unwrap().capabilities,
            Masks::default()
        );
    }

    #[test]
    fn the_last_of_two_variables_counts() {
        let process: Process = serde_json::from_str(
            r#"{"user":{},"args":["sh"],"cwd":"/","env":["A=1","HOME=/x","B=2","A=3","HOME=","LINE=a\nb","A=4"]}"#,
        )
        .unwrap();
        let plan = process_plan(&process, &Spec::default(), &Choices::default()).unwrap();
        let strings: Vec<&str> = plan.envp.strings().iter().map(|entry| entry.to_str().unwrap()).collect();
        assert_eq!(strings, ["B=2", "LINE=a\nb", "A=4"]);
        assert!(plan.wants_home, "the last HOME is empty, whatever was before it");
    }

    #[test]
    fn an_empty_home_is_looked_up() {
        let process: Process =
            serde_json::from_str(r#"{"user":{},"args":["sh"],"cwd":"/","env":["HOME=","PATH=/bin"]}"#).unwrap();
        let plan = process_plan(&process, &Spec::default(), &Choices::default()).unwrap();
        assert!(plan.wants_home);
        assert_eq!(plan.envp.strings(), [CString::new("PATH=/bin").unwrap()]);
    }
}
