//! An image's configuration and what was asked for, made into an OCI configuration.
//!
//! Pure: everything of the host comes in through [`Host`], everything of the image's users through [`Identity`]. What an
//! image says decides its process, its environment and its volumes, and nothing else: labels do not become annotations
//! here, since annotations steer runtimes (CVE-2026-53488, CVE-2026-94603). Writes no file and makes no directory: what
//! has to be made is in [`Built`].

mod devices;
mod facts;
mod mounts;
mod names;
mod process;
mod resources;
mod users;

pub use process::makes_home;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Linux, LinuxDevice, LinuxDeviceCgroup, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceType, LinuxSeccomp, Mount, Root, Spec,
};

use crate::error::{Error, Result};
use crate::namespaces::idmap::{IdMaps, IdRange};
use crate::support::id::ContainerId;
use crate::support::passwd::{Identity, UserDatabase};

use super::cdi::Edits;
use super::defaults;
use super::options::namespaces::{IpcMode, NamespaceMode};
use super::options::security::matches_path;
use super::options::{Network, RunOptions, Unmasked};
use super::settings::CgroupManager;
use super::volumes::options::Backing;

pub use facts::{Host, Node};
pub use names::{OwnFile, resolver_for};
pub use process::{capabilities, capability_sets, command};

/// The version of the specification that is written.
const OCI_VERSION: &str = "1.2.0";

/// `__NEW_UTS_LEN` of linux/utsname.h.
const HOSTNAME_BYTES: usize = 64;

/// What an image asks for, validated: `NAME=value` without NUL, arguments without NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`
    pub exposed_ports: Vec<String>,
}

/// The user namespace that the container is to have.
#[derive(Clone, Copy)]
pub struct UserNamespace<'a> {
    pub maps: &'a IdMaps,
    /// setgroups(2) is allowed in it: not where an unprivileged user wrote the map (user_namespaces(7)).
    pub allows_setgroups: bool,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootFs {
    /// Directories to be mounted over one another.
    Overlay {
        /// The highest first.
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        /// The empty directory that it is mounted on.
        target: PathBuf,
        /// Its marks are `user.` attributes, since `trusted.` ones need root of the host (kernel 5.11).
        has_user_xattrs: bool,
    },
    /// A directory, maybe with parts mounted into it.
    Directory { path: PathBuf, parts: Vec<Part> },
}

/// A part of a root file system that is mounted by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub destination: PathBuf,
    pub source: PartSource,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartSource {
    Overlay {
        lower: PathBuf,
        upper: PathBuf,
        work: PathBuf,
        has_user_xattrs: bool,
    },
    /// Of the host, read-only.
    ReadOnlyBind(PathBuf),
    /// A directory of the container's own.
    Bind(PathBuf),
    /// Empty, in memory, with these options.
    Tmpfs(&'static [&'static str]),
}

/// Everything that a configuration is made of.
pub struct Input<'a> {
    pub id: &'a ContainerId,
    pub image: &'a ImageConfig,
    pub options: &'a RunOptions,
    pub root: &'a RootFs,
    /// Parts on top of the root file system (`host:`), and paths to be hidden with them.
    pub parts: &'a [Part],
    pub masked_paths: &'a [String],
    pub identity: &'a Identity,
    pub host: &'a Host,
    /// The caller's variables, for `-e NAME` and `--env-host`.
    pub variable: &'a dyn Fn(&OsStr) -> Option<OsString>,
    pub variables: &'a dyn Fn() -> Vec<(OsString, OsString)>,
    pub user_namespace: Option<UserNamespace<'a>>,
    /// Made for [`capabilities`], or read from a file; `None` for unconfined.
    pub seccomp: Option<LinuxSeccomp>,
    pub cgroups_path: String,
    /// Namespaces of others that are joined.
    pub joined: &'a Joined,
    /// The layers of images that are mounted, lowest first, by the images' names.
    pub mounted_images: &'a BTreeMap<String, Vec<PathBuf>>,
    /// What devices of the Container Device Interface come to.
    pub edits: &'a Edits,
    /// The users and groups of the image, for what is added to them.
    pub users: &'a UserDatabase,
    /// The named volumes that are asked for.
    pub volumes: &'a BTreeMap<String, NamedVolume>,
    /// The container's folder: its own files are there, and in `volumes` its anonymous volumes.
    pub directory: &'a Path,
    /// The image is this machine.
    pub is_host: bool,
}

/// What a named volume is mounted from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedVolume {
    /// Its own directory.
    pub data: PathBuf,
    pub backing: Backing,
}

/// Namespaces of other containers, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    pub user: Option<PathBuf>,
    pub network: Option<PathBuf>,
    pub pid: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub cgroup: Option<PathBuf>,
    /// The container whose network it is in, and which has the files of names for both.
    pub names: Option<Names>,
}

/// Who another container is to itself and to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub hostname: String,
    /// Its `hosts`, `hostname` and `resolv.conf`, as far as it has them.
    pub files: Vec<(&'static str, PathBuf)>,
}

/// The configuration, and what has to be there for it.
#[derive(Debug)]
pub struct Built {
    pub spec: Spec,
    /// Directories to be made, and filled with what the image has at their destinations.
    pub volumes: Vec<AnonymousVolume>,
    /// Files to be written into the container's folder.
    pub files: Vec<OwnFile>,
    /// Directories to be made for layers over volumes, parents first.
    pub directories: Vec<PathBuf>,
    /// Paths that are given to the container's user (`U`).
    pub given: Vec<PathBuf>,
}

/// A directory of the container's own that is mounted into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnonymousVolume {
    pub directory: PathBuf,
    pub destination: String,
}

/// Makes the configuration.
pub fn build(input: Input<'_>) -> Result<Built> {
    let options = input.options;
    let hostname = hostname(&input)?;
    let process = process::build(&input, &hostname)?;
    let devices = devices::build(&input);
    let (mut files, mut own_files) = names::build(&input, &hostname)?;
    users::build(&input, process.cwd(), &mut files, &mut own_files)?;
    let mounts = mounts::build(&input, own_files, devices.binds)?;

    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root(input.root, options.read_only)))
        .set_process(Some(process))
        .set_hostname(has_own_name(&input).then_some(hostname))
        .set_domainname(options.domainname.as_deref().map(check_hostname).transpose()?)
        .set_annotations(annotations(options))
        .set_hooks(input.edits.oci_hooks())
        .set_mounts(Some(mounts.list))
        .set_linux(Some(linux(input, mounts.propagation, devices.nodes, devices.rules)?));
    let mounts::Made { volumes, directories, given } = mounts.made;
    Ok(Built { spec, volumes, files, directories, given })
}

/// Says whether the container has a UTS namespace of its own, whose name is its own.
fn has_own_name(input: &Input<'_>) -> bool {
    input.options.namespaces.uts == NamespaceMode::Private
}

fn hostname(input: &Input<'_>) -> Result<String> {
    let options = input.options;
    if !has_own_name(input) {
        for (flag, name) in [("hostname", &options.hostname), ("domainname", &options.domainname)] {
            if name.is_some() {
                let uts = &options.namespaces.uts;
                return Err(Error::invalid(format!("{flag}: cannot be changed where uts is {uts}")));
            }
        }
    }
    match &options.hostname {
        Some(name) => check_hostname(name),
        None if input.joined.names.is_some() && has_own_name(input) => {
            Ok(input.joined.names.as_ref().map(|names| names.hostname.clone()).unwrap_or_default())
        }
        None if options.network == Network::Host || options.namespaces.uts == NamespaceMode::Host => {
            Ok(input.host.hostname.clone())
        }
        None => Ok(input.id.short().to_owned()),
    }
}

/// Makes the limits alone, without the rules for devices.
pub fn resources(options: &RunOptions) -> Result<oci_spec::runtime::LinuxResources> {
    resources::build(&options.limits, &Host::probe(options)?, Vec::new())
}

fn root(root: &RootFs, read_only: bool) -> Root {
    let path = match root {
        RootFs::Overlay { target, .. } => target,
        RootFs::Directory { path, .. } => path,
    };
    let mut root = Root::default();
    root.set_path(path.clone()).set_readonly(read_only.then_some(true));
    root
}

fn linux(
    input: Input<'_>,
    propagation: Option<String>,
    nodes: Vec<LinuxDevice>,
    rules: Vec<LinuxDeviceCgroup>,
) -> Result<Linux> {
    let options = input.options;
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(&input)))
        .set_resources(Some(resources::build(&options.limits, input.host, rules)?))
        .set_devices((!nodes.is_empty()).then_some(nodes))
        .set_sysctl(sysctls(options, input.user_namespace.is_some()))
        .set_rootfs_propagation(propagation);
    let (masked, read_only) = hidden_paths(options, &input.host.throttled_processors, input.masked_paths);
    linux.set_masked_paths(Some(masked)).set_readonly_paths(Some(read_only));
    // The ids of a namespace that is joined are known to it.
    if let (Some(UserNamespace { maps, .. }), None) = (input.user_namespace, &input.joined.user) {
        linux.set_uid_mappings(Some(mappings(&maps.uids)?)).set_gid_mappings(Some(mappings(&maps.gids)?));
    }
    linux.set_cgroups_path(Some(input.cgroups_path.into())).set_seccomp(input.seccomp);
    Ok(linux)
}

fn namespaces(input: &Input<'_>) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network as Net, Pid, User, Uts};
    let Input { options, joined, .. } = *input;
    let modes = &options.namespaces;
    let is_own = |mode: &NamespaceMode| *mode != NamespaceMode::Host;
    let asked = [
        (User, input.user_namespace.is_some() || joined.user.is_some(), &joined.user),
        (Pid, is_own(&modes.pid), &joined.pid),
        (Mount, true, &None),
        (Ipc, modes.ipc != IpcMode::Host, &joined.ipc),
        (Uts, is_own(&modes.uts), &joined.uts),
        (Net, options.network != Network::Host, &joined.network),
        (Cgroup, is_own(&modes.cgroup), &joined.cgroup),
    ];
    let namespace = |(kind, _, path): (_, bool, &Option<PathBuf>)| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path.clone());
        namespace
    };
    asked.into_iter().filter(|(_, is_wanted, _)| *is_wanted).map(namespace).collect()
}

fn mappings(ranges: &[IdRange]) -> Result<Vec<LinuxIdMapping>> {
    if ranges.is_empty() {
        return Err(Error::invalid("the user namespace maps no ids"));
    }
    let mapping = |range: &IdRange| {
        let mapping = LinuxIdMappingBuilder::default();
        let mapping = mapping.container_id(range.inside).host_id(range.outside).size(range.length);
        mapping.build().expect("all fields are set")
    };
    Ok(ranges.iter().map(mapping).collect())
}

/// Lets the workload keep the caller's supplementary groups; crun's word for it.
const KEEPS_GROUPS: &str = "run.oci.keep_original_groups";

/// The user's alone: nothing that an image says comes here.
fn annotations(options: &RunOptions) -> Option<HashMap<String, String>> {
    let mut annotations: HashMap<String, String> = options.annotations.clone().into_iter().collect();
    if options.keeps_groups {
        annotations.insert(KEEPS_GROUPS.to_owned(), "1".to_owned());
    }
    (!annotations.is_empty()).then_some(annotations)
}

fn sysctls(options: &RunOptions, has_user_namespace: bool) -> Option<HashMap<String, String>> {
    let mut sysctls = HashMap::new();
    // Of a namespace of others' nothing is changed that was not asked for.
    if options.network.is_own() {
        let wanted = |key: &str| !(has_user_namespace && key == defaults::PING_SYSCTL);
        let defaults = defaults::NETWORK_SYSCTLS.iter().filter(|(key, _)| wanted(key));
        sysctls.extend(defaults.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    }
    sysctls.extend(options.sysctls.iter().map(|(key, value)| (key.clone(), value.clone())));
    (!sysctls.is_empty()).then_some(sysctls)
}

/// Gives the masked and the read-only paths.
fn hidden_paths(options: &RunOptions, throttled: &[u32], of_root: &[String]) -> (Vec<String>, Vec<String>) {
    let is_lifted = |path: &str| match &options.security.unmasked {
        Unmasked::Nothing => false,
        Unmasked::Paths(patterns) => patterns.iter().any(|pattern| matches_path(pattern, path)),
        Unmasked::All => true,
    };
    let is_lifted = |path: &str| options.privileged || is_lifted(path);
    let thermal = throttled.iter().map(|processor| defaults::thermal_throttle_path(*processor));
    let masked = defaults::MASKED_PATHS.iter().map(|path| (*path).to_owned()).chain(thermal);
    // What husk itself hides is its store, which no option shows.
    let masked = masked.filter(|path| !is_lifted(path)).chain(of_root.iter().cloned());
    let masked = masked.chain(options.security.masked.iter().cloned()).collect();
    let read_only = defaults::READONLY_PATHS.iter().filter(|path| !is_lifted(path));
    (masked, read_only.map(|path| (*path).to_owned()).collect())
}

fn check_hostname(name: &str) -> Result<String> {
    // Longer, and sethostname(2) refuses it; with other letters, what reads it from /etc/hosts is led astray.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || name.len() > HOSTNAME_BYTES || !name.bytes().all(allowed) || name.starts_with(['-', '.']) {
        return Err(Error::invalid(format!(
            "hostname {name:?}: only letters, digits and -._, at most {HOSTNAME_BYTES}, the first a letter or digit"
        )));
    }
    Ok(name.to_owned())
}

/// Says where a container's cgroup is: a path for cgroupfs, `slice:prefix:name` for systemd. `parent` is `--cgroup-parent`.
pub fn cgroups_path(
    manager: CgroupManager,
    is_rootless: bool,
    parent: Option<&str>,
    id: &ContainerId,
) -> Result<String> {
    if manager == CgroupManager::Systemd {
        let slice = parent.unwrap_or(if is_rootless { defaults::USER_SLICE } else { defaults::SYSTEM_SLICE });
        if slice.strip_suffix(".slice").is_none_or(|name| name.is_empty() || name.contains(['/', ':'])) {
            return Err(Error::invalid(format!("cgroup parent {slice:?}: not the name of a systemd slice")));
        }
        return Ok(format!("{slice}:husk:{id}"));
    }
    let parent = parent.unwrap_or(defaults::CGROUP_PARENT);
    if parent.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!("cgroup parent {parent:?}: climbs with ..")));
    }
    Ok(format!("/{}/{id}", parent.trim_matches('/')))
}

/// Puts values together as mount options.
fn options_of(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Makes a mount.
fn mount(destination: impl Into<PathBuf>, kind: &str, source: impl Into<PathBuf>, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options));
    mount
}

#[cfg(test)]
mod tests;
