//! husk's own configuration: flags, `HUSK_*` variables, the user's file, the system's file, in this order.
//!
//! docs/configuration.md is the table of keys for people, [`File`] and [`VARIABLES`] are it for the code. What is not
//! known is refused by name with its place, in a file as in the environment, since a limit that is mistyped must not be a
//! limit that is off. Reads files and makes the run root; decides nothing about containers.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;

use super::options::network;
use super::options::{Attachment, Network};
use crate::error::{Context, Error, Result};
use crate::support::{config_file, passwd, units};

/// The run root of the system's own containers.
pub const SYSTEM_RUN_ROOT: &str = "/run/husk";

/// The file for everybody on the machine.
const SYSTEM_FILE: &str = "/etc/husk.toml";

/// `S_IWGRP | S_IWOTH`.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// `S_IRGRP | S_IROTH`. The right to pass through is left alone: a container's mapped root may need it.
const READABLE_BY_OTHERS: u32 = 0o044;

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CgroupManager {
    /// systemd where it runs the machine (or the user's session), else husk itself.
    #[default]
    Auto,
    Cgroupfs,
    Systemd,
}

/// The network of a container that asks for none.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum DefaultNetwork {
    None,
    Host,
    #[default]
    Bridge,
}

impl From<DefaultNetwork> for Network {
    fn from(default: DefaultNetwork) -> Self {
        match default {
            DefaultNetwork::None => Self::None,
            DefaultNetwork::Host => Self::Host,
            DefaultNetwork::Bridge => Self::Joined(vec![Attachment::to(network::DEFAULT)]),
        }
    }
}

/// Where vendors' tools write specifications of devices, as the Container Device Interface has it.
const CDI_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// How long a registry may say nothing, unless it is set.
const REGISTRY_TIMEOUT: Duration = Duration::from_mins(1);

/// Bytes of one request of an upload, unless it is set. Proxies before registries begin to refuse at 100 MB.
const REGISTRY_CHUNK: u64 = 64 << 20;

/// The least that [`REGISTRY_CHUNK`] can be set to: a request for less costs more than it sends.
const LEAST_CHUNK: u64 = 64 << 10;

/// A length of time as it is written: `90s`, `1m30s`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        match units::parse_duration(&text)? {
            Duration::ZERO => Err(Error::invalid("a duration of nothing leaves no time")),
            duration => Ok(Self(duration)),
        }
    }
}

/// A number of bytes as it is written: `64m`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Chunk(u64);

impl TryFrom<String> for Chunk {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        match units::parse_size(&text)? {
            bytes if bytes < LEAST_CHUNK => Err(Error::invalid(format!("size {text:?}: less than 64k"))),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// The whole configuration, every key decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where images, containers and volumes live.
    pub data_root: PathBuf,
    /// Where the state of what runs lives; empty after a reboot.
    pub run_root: PathBuf,
    pub cgroup_manager: CgroupManager,
    pub network: DefaultNetwork,
    /// A limit that cannot be set is an error, not a warning.
    pub require_limits: bool,
    /// An image is on the disk before it is recorded, so that a power cut leaves none that is not whole.
    pub sync_images: bool,
    /// How long a registry may say nothing.
    pub registry_timeout: Duration,
    /// Bytes of one request of an upload.
    pub registry_chunk: u64,
    /// Data roots whose images are used as well, and never changed.
    pub additional_stores: Vec<PathBuf>,
    /// Where specifications of the Container Device Interface are; the last has the highest priority.
    pub cdi_directories: Vec<PathBuf>,
}

/// One source of settings: what it says nothing about is `None`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub data_root: Option<PathBuf>,
    pub run_root: Option<PathBuf>,
    pub cgroup_manager: Option<CgroupManager>,
    pub network: Option<DefaultNetwork>,
    pub require_limits: Option<bool>,
    pub sync_images: Option<bool>,
    pub registry_timeout: Option<Span>,
    pub registry_chunk: Option<Chunk>,
    pub additional_stores: Option<Vec<PathBuf>>,
    pub cdi_directories: Option<Vec<PathBuf>>,
}

/// The variables that set a key.
const VARIABLES: &[&str] = &[
    "HUSK_ADDITIONAL_STORES",
    "HUSK_CDI_DIRECTORIES",
    "HUSK_CGROUP_MANAGER",
    "HUSK_DATA_ROOT",
    "HUSK_NETWORK",
    "HUSK_REGISTRY_CHUNK",
    "HUSK_REGISTRY_TIMEOUT",
    "HUSK_REQUIRE_LIMITS",
    "HUSK_RUN_ROOT",
    "HUSK_SYNC_IMAGES",
];

/// How a variable says yes or no.
const YES_OR_NO: &[(&str, bool)] = &[("true", true), ("1", true), ("false", false), ("0", false)];

/// What begins so belongs to husk, and is a key or a mistake…
const PREFIX: &str = "HUSK_";

/// …but for these, which husk's own tests use among themselves and settings never read.
const RESERVED_PREFIX: &str = "HUSK_TEST_";

/// The one who calls: whose folders, whose variables.
pub struct Caller {
    pub uid: u32,
    /// User 0 of a user's own namespace (`husk unshare`).
    is_unshared: bool,
    environment: Vec<(OsString, OsString)>,
    system_file: PathBuf,
}

impl Caller {
    /// Takes this process's user and environment.
    pub fn current() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            is_unshared: std::env::var_os(super::engine::UNSHARED).is_some(),
            environment: std::env::vars_os().filter(|(name, _)| concerns_us(name)).collect(),
            system_file: SYSTEM_FILE.into(),
        }
    }

    fn variable(&self, name: &str) -> Option<&OsStr> {
        // Set to nothing is not set, as the XDG specification has it for its own.
        let found = self.environment.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// A variable that names a directory; a relative one is to be ignored (XDG Base Directory Specification).
    fn directory(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The home directory: `HOME`, or the passwd file's where that is not set (cron, some CI runners).
    fn home(&self) -> Result<PathBuf> {
        if let Some(home) = self.directory("HOME") {
            return Ok(home);
        }
        match passwd::host_user(self.uid)? {
            Some(user) if user.home.is_absolute() => Ok(user.home),
            _ => Err(Error::invalid(format!(
                "no home directory: HOME is not set, and user {} is not in /etc/passwd",
                self.uid
            ))
            .with_hint("set HOME, or HUSK_DATA_ROOT")),
        }
    }
}

fn concerns_us(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX.as_bytes()) || name.as_bytes().starts_with(b"XDG_") || name == "HOME"
}

impl Settings {
    /// Decides every key, from `flags` down to the defaults.
    pub fn load(flags: File, caller: &Caller) -> Result<Self> {
        let environment = read_environment(caller)?;
        let user_file = match user_file_path(caller) {
            Some(path) => read_file(&path)?,
            None => File::default(),
        };
        let mut system_file = read_file(&caller.system_file)?;
        if caller.uid != 0 {
            // Every user has a store of their own; the machine's is root's.
            system_file.data_root = None;
            system_file.run_root = None;
        }
        if caller.uid != 0 || caller.is_unshared {
            // What root has made ready is root's: its layers are of no use to a user.
            system_file.additional_stores = None;
        }
        let File {
            data_root,
            run_root,
            cgroup_manager,
            network,
            require_limits,
            sync_images,
            registry_timeout,
            registry_chunk,
            additional_stores,
            cdi_directories,
        } = flags.or(environment).or(user_file).or(system_file);
        Ok(Self {
            data_root: match data_root {
                Some(path) => absolute("data_root", path)?,
                None => default_data_root(caller)?,
            },
            run_root: match run_root {
                Some(path) => absolute("run_root", path)?,
                None => default_run_root(caller),
            },
            cgroup_manager: cgroup_manager.unwrap_or_default(),
            network: network.unwrap_or_default(),
            require_limits: require_limits.unwrap_or_default(),
            sync_images: sync_images.unwrap_or_default(),
            registry_timeout: registry_timeout.map_or(REGISTRY_TIMEOUT, |Span(duration)| duration),
            registry_chunk: registry_chunk.map_or(REGISTRY_CHUNK, |Chunk(bytes)| bytes),
            additional_stores: (additional_stores.unwrap_or_default().into_iter())
                .map(|path| absolute("additional_stores", path))
                .collect::<Result<_>>()?,
            cdi_directories: match cdi_directories {
                Some(paths) => {
                    paths.into_iter().map(|path| absolute("cdi_directories", path)).collect::<Result<_>>()?
                }
                None => CDI_DIRECTORIES.map(PathBuf::from).into(),
            },
        })
    }
}

impl File {
    /// Takes from `other` what this source says nothing about.
    fn or(self, other: Self) -> Self {
        let Self {
            data_root,
            run_root,
            cgroup_manager,
            network,
            require_limits,
            sync_images,
            registry_timeout,
            registry_chunk,
            additional_stores,
            cdi_directories,
        } = self;
        Self {
            data_root: data_root.or(other.data_root),
            run_root: run_root.or(other.run_root),
            cgroup_manager: cgroup_manager.or(other.cgroup_manager),
            network: network.or(other.network),
            require_limits: require_limits.or(other.require_limits),
            sync_images: sync_images.or(other.sync_images),
            registry_timeout: registry_timeout.or(other.registry_timeout),
            registry_chunk: registry_chunk.or(other.registry_chunk),
            additional_stores: additional_stores.or(other.additional_stores),
            cdi_directories: cdi_directories.or(other.cdi_directories),
        }
    }
}

fn absolute(key: &str, path: PathBuf) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Error::invalid(format!("{key}: {} is not an absolute path", path.display())))
}

fn default_data_root(caller: &Caller) -> Result<PathBuf> {
    if caller.uid == 0 {
        return Ok("/var/lib/husk".into());
    }
    match caller.directory("XDG_DATA_HOME") {
        Some(path) => Ok(path.join("husk")),
        None => Ok(caller.home()?.join(".local/share/husk")),
    }
}

/// The session's runtime directory where it is truly ours (after `su` it is somebody else's), else one in /tmp.
fn default_run_root(caller: &Caller) -> PathBuf {
    if caller.uid == 0 {
        return SYSTEM_RUN_ROOT.into();
    }
    let ours = |path: &PathBuf| {
        rustix::fs::lstat(path).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                && stat.st_uid == caller.uid
                && stat.st_mode & WRITABLE_BY_OTHERS == 0
        })
    };
    match caller.directory("XDG_RUNTIME_DIR").filter(ours) {
        Some(path) => path.join("husk"),
        None => format!("/tmp/husk-{}", caller.uid).into(),
    }
}

fn user_file_path(caller: &Caller) -> Option<PathBuf> {
    let config = caller.directory("XDG_CONFIG_HOME").or_else(|| Some(caller.home().ok()?.join(".config")))?;
    Some(config.join("husk/husk.toml"))
}

fn read_environment(caller: &Caller) -> Result<File> {
    for (name, _) in &caller.environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if !VARIABLES.contains(&name) && !name.starts_with(RESERVED_PREFIX) {
            return Err(Error::invalid(format!("environment: unknown variable {name}"))
                .with_hint(format!("husk knows {}", VARIABLES.join(", "))));
        }
    }
    let paths = |name| {
        caller.variable(name).map(|paths| {
            paths.as_bytes().split(|byte| *byte == b':').map(|path| OsStr::from_bytes(path).into()).collect()
        })
    };
    let text = |name| {
        let text = |value: &OsStr| {
            value.to_str().map(str::to_owned).ok_or_else(|| Error::invalid(format!("{name}: not UTF-8")))
        };
        caller.variable(name).map(text).transpose()
    };
    Ok(File {
        data_root: caller.variable("HUSK_DATA_ROOT").map(PathBuf::from),
        run_root: caller.variable("HUSK_RUN_ROOT").map(PathBuf::from),
        cgroup_manager: choose(
            "HUSK_CGROUP_MANAGER",
            text("HUSK_CGROUP_MANAGER")?,
            &[
                ("auto", CgroupManager::Auto),
                ("cgroupfs", CgroupManager::Cgroupfs),
                ("systemd", CgroupManager::Systemd),
            ],
        )?,
        network: choose(
            "HUSK_NETWORK",
            text("HUSK_NETWORK")?,
            &[("none", DefaultNetwork::None), ("host", DefaultNetwork::Host), ("bridge", DefaultNetwork::Bridge)],
        )?,
        require_limits: choose("HUSK_REQUIRE_LIMITS", text("HUSK_REQUIRE_LIMITS")?, YES_OR_NO)?,
        sync_images: choose("HUSK_SYNC_IMAGES", text("HUSK_SYNC_IMAGES")?, YES_OR_NO)?,
        registry_timeout: read("HUSK_REGISTRY_TIMEOUT", text("HUSK_REGISTRY_TIMEOUT")?)?,
        registry_chunk: read("HUSK_REGISTRY_CHUNK", text("HUSK_REGISTRY_CHUNK")?)?,
        additional_stores: paths("HUSK_ADDITIONAL_STORES"),
        cdi_directories: paths("HUSK_CDI_DIRECTORIES"),
    })
}

/// Reads a value that has a form of its own.
fn read<T: TryFrom<String, Error = Error>>(name: &str, text: Option<String>) -> Result<Option<T>> {
    text.map(T::try_from).transpose().with_context(|| name.to_owned())
}

/// Finds a word among those that are allowed.
fn choose<T: Copy>(name: &str, word: Option<String>, allowed: &[(&str, T)]) -> Result<Option<T>> {
    let Some(word) = word else { return Ok(None) };
    if let Some((_, value)) = allowed.iter().find(|(known, _)| *known == word) {
        return Ok(Some(*value));
    }
    let known: Vec<_> = allowed.iter().map(|(known, _)| *known).collect();
    Err(Error::invalid(format!("{name}: {word:?} is none of {}", known.join(", "))))
}

/// Reads one file; a missing one says nothing.
fn read_file(path: &Path) -> Result<File> {
    match config_file::read(path)? {
        Some(text) => config_file::parse_toml(&text, path),
        None => Ok(File::default()),
    }
}

/// Makes the run root where it is missing and opens it, once it is sure that it is the user's alone.
///
/// In /tmp anybody could have made it first: a symlink, another's directory, or one that others may write in, would put
/// husk's state into their hands.
pub fn open_run_root(path: &Path, uid: u32) -> Result<OwnedFd> {
    open_private_directory(path, uid).with_context(|| format!("run root {}", path.display()))
}

/// Makes the data root where it is missing and opens it, under the same conditions.
pub fn open_data_root(path: &Path, uid: u32) -> Result<OwnedFd> {
    open_private_directory(path, uid).with_context(|| format!("data root {}", path.display()))
}

fn open_private_directory(path: &Path, uid: u32) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, Mode::empty());
    let fd = match open() {
        Err(Errno::NOENT) => {
            make_private_directory(path)?;
            open()
        }
        answer => answer,
    };
    let fd = match fd {
        // O_DIRECTORY with O_NOFOLLOW says ENOTDIR of a symlink.
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return Err(Error::invalid("is a symlink or no directory").with_hint("configure the path that it leads to"));
        }
        answer => answer.context("open")?,
    };
    let stat = rustix::fs::fstat(&fd).context("inspect")?;
    if stat.st_uid != uid {
        return Err(Error::invalid(format!("belongs to user {}, not to {uid}", stat.st_uid))
            .with_hint("name another directory, in husk.toml or by a flag"));
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Error::invalid(format!("others may write in it (mode {:04o})", stat.st_mode & 0o7777))
            .with_hint(format!("chmod go-w {}", path.display())));
    }
    if stat.st_mode & READABLE_BY_OTHERS != 0 {
        // Made by hand: what is in it is not for others to list. (CVE-2021-41091)
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 & !READABLE_BY_OTHERS);
        rustix::fs::fchmod(&fd, mode).context("make private")?;
    }
    Ok(fd)
}

/// Makes a directory of mode 0700, and what is missing above it with the modes that mkdir gives.
fn make_private_directory(path: &Path) -> Result<()> {
    let make = || match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    };
    match make() {
        Err(Errno::NOENT) => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            make().context("make")
        }
        answer => answer.context("make"),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    /// A machine with a system file, a home and a runtime directory below one scratch directory.
    struct Machine {
        scratch: tempfile::TempDir,
        variables: Vec<(&'static str, String)>,
    }

    impl Machine {
        fn new() -> Self {
            let scratch = tempfile::tempdir().unwrap();
            let home = scratch.path().join("home").to_str().unwrap().to_owned();
            fs::create_dir_all(format!("{home}/.config/husk")).unwrap();
            Self { scratch, variables: vec![("HOME", home)] }
        }

        fn set(mut self, name: &'static str, value: &str) -> Self {
            self.variables.push((name, value.to_owned()));
            self
        }

        fn system(self, text: &str) -> Self {
            fs::write(self.scratch.path().join("husk.toml"), text).unwrap();
            self
        }

        fn user(self, text: &str) -> Self {
            fs::write(self.scratch.path().join("home/.config/husk/husk.toml"), text).unwrap();
            self
        }

        fn load(&self, uid: u32, flags: File) -> Result<Settings> {
            let environment = self.variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
            let system_file = self.scratch.path().join("husk.toml");
            let caller = Caller { uid, is_unshared: false, environment: environment.collect(), system_file };
            Settings::load(flags, &caller)
        }

        fn fails(&self) -> String {
            let report = self.load(0, File::default()).unwrap_err().report();
            report.replace(self.scratch.path().to_str().unwrap(), "")
        }
    }

    fn uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn defaults_of_root_and_of_a_user() {
        let machine = Machine::new();
        let expected = Settings {
            data_root: "/var/lib/husk".into(),
            run_root: "/run/husk".into(),
            cgroup_manager: CgroupManager::Auto,
            network: DefaultNetwork::Bridge,
            require_limits: false,
            sync_images: false,
            registry_timeout: Duration::from_mins(1),
            registry_chunk: 64 << 20,
            additional_stores: Vec::new(),
            cdi_directories: CDI_DIRECTORIES.map(PathBuf::from).into(),
        };
        assert_eq!(machine.load(0, File::default()).unwrap(), expected);
        let settings = machine.load(4_000_000, File::default()).unwrap();
        assert_eq!(settings.data_root, machine.scratch.path().join("home/.local/share/husk"));
        assert_eq!(settings.run_root, Path::new("/tmp/husk-4000000"));
    }

    #[test]
    fn flags_precede_variables_precede_the_users_file_precedes_the_systems() {
        let text = |root: &str| format!("data_root = \"{root}\"\n");
        let flags = |root: &str| File { data_root: Some(root.into()), ..File::default() };
        let machine = Machine::new();
        let root = |machine: &Machine, flags| machine.load(0, flags).unwrap().data_root;
        let machine = machine.system(&(text("/system") + "network = \"host\"\nrequire_limits = true\n"));
        assert_eq!(root(&machine, File::default()), Path::new("/system"));
        let machine = machine.user(&(text("/user") + "require_limits = false\n"));
        assert_eq!(root(&machine, File::default()), Path::new("/user"));
        let machine = machine.set("HUSK_DATA_ROOT", "/variable");
        assert_eq!(root(&machine, File::default()), Path::new("/variable"));
        assert_eq!(root(&machine, flags("/flag")), Path::new("/flag"));
        let settings = machine.load(0, File::default()).unwrap();
        assert_eq!((settings.network, settings.require_limits), (DefaultNetwork::Host, false));
    }

    #[test]
    fn the_systems_roots_are_not_a_users() {
        let machine = Machine::new().system("data_root = \"/srv/husk\"\nrun_root = \"/run/x\"\nnetwork = \"host\"\n");
        let settings = machine.load(4_000_000, File::default()).unwrap();
        assert_eq!(settings.data_root, machine.scratch.path().join("home/.local/share/husk"));
        assert_eq!(settings.run_root, Path::new("/tmp/husk-4000000"));
        assert_eq!(settings.network, DefaultNetwork::Host);
    }

    #[test]
    fn additional_stores_are_a_list_and_the_systems_are_roots() {
        let machine = Machine::new().system("additional_stores = [\"/srv/a\", \"/srv/b\"]\n");
        let stores = |machine: &Machine, uid| machine.load(uid, File::default()).unwrap().additional_stores;
        assert_eq!(stores(&machine, 0), [Path::new("/srv/a"), Path::new("/srv/b")]);
        assert!(stores(&machine, 4_000_000).is_empty());
        let machine = machine.set("HUSK_ADDITIONAL_STORES", "/c:/d");
        assert_eq!(stores(&machine, 4_000_000), [Path::new("/c"), Path::new("/d")]);
        let fails = |paths| Machine::new().set("HUSK_ADDITIONAL_STORES", paths).fails();
        assert_eq!(fails("/c:d"), "additional_stores: d is not an absolute path");
        assert_eq!(fails("/c:"), "additional_stores:  is not an absolute path");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let file = |text: &str| Machine::new().system(text).fails();
        for (text, report) in [
            ("\n# comment\nrequire_limit = true\n", "/husk.toml:3: unknown field `require_limit`"),
            ("network = \"macvlan\"\n", "/husk.toml:1: unknown variant `macvlan`"),
            ("\nrequire_limits = \"yes\"\n", "/husk.toml:2: invalid type"),
            ("network = \n", "/husk.toml:1: "),
            ("[engine]\nnetwork = \"none\"\n", "/husk.toml:1: unknown field `engine`"),
            ("data_root = \"relative\"\n", "data_root: relative is not an absolute path"),
            ("registry_timeout = \"60\"\n", "/husk.toml:1: duration \"60\": expected"),
            ("registry_timeout = \"0\"\n", "/husk.toml:1: a duration of nothing"),
            ("registry_chunk = \"1k\"\n", "/husk.toml:1: size \"1k\": less than 64k"),
            ("registry_chunk = 65536\n", "/husk.toml:1: invalid type"),
        ] {
            let found = file(text);
            assert!(found.starts_with(report), "{text:?}: {found}");
        }
        let variable = |name, value| Machine::new().set(name, value).fails();
        assert_eq!(variable("HUSK_DATAROOT", "/x"), "environment: unknown variable HUSK_DATAROOT");
        assert_eq!(variable("HUSK_NETWORK", "macvlan"), "HUSK_NETWORK: \"macvlan\" is none of none, host, bridge");
        assert_eq!(variable("HUSK_REQUIRE_LIMITS", "yes"), "HUSK_REQUIRE_LIMITS: \"yes\" is none of true, 1, false, 0");
        assert!(variable("HUSK_REGISTRY_TIMEOUT", "x").starts_with("HUSK_REGISTRY_TIMEOUT: duration \"x\": expected"));
        assert!(variable("HUSK_REGISTRY_CHUNK", "-1").starts_with("HUSK_REGISTRY_CHUNK: size \"-1\": not a number"));
        assert_eq!(variable("HUSK_SYNC_IMAGES", "on"), "HUSK_SYNC_IMAGES: \"on\" is none of true, 1, false, 0");
        assert_eq!(variable("HUSK_DATA_ROOT", "x"), "data_root: x is not an absolute path");
    }

    #[test]
    fn what_is_not_ours_is_passed_over() {
        let machine = Machine::new().set("HUSK_TEST_STAGE", "1").set("HUSKY", "0").set("HUSK_NETWORK", "");
        assert_eq!(machine.load(0, File::default()).unwrap().network, DefaultNetwork::Bridge);
    }

    #[test]
    fn registries_are_waited_for_as_it_is_set() {
        let machine = Machine::new().system("registry_timeout = \"1m30s\"\nregistry_chunk = \"5mb\"\n");
        let machine = machine.set("HUSK_REGISTRY_TIMEOUT", "500ms");
        let settings = machine.load(0, File::default()).unwrap();
        assert_eq!((settings.registry_timeout, settings.registry_chunk), (Duration::from_millis(500), 5 << 20));
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        let machine = Machine::new();
        fs::create_dir(machine.scratch.path().join("husk.toml")).unwrap();
        assert_eq!(machine.fails(), "read /husk.toml: not a regular file");
    }

    #[test]
    fn xdg_directories_are_used_when_they_can_be() {
        let machine = Machine::new().set("XDG_DATA_HOME", "/data").set("XDG_CONFIG_HOME", "relative");
        let machine = machine.user("network = \"host\"\n");
        let settings = machine.load(4_000_000, File::default()).unwrap();
        assert_eq!(settings.data_root, Path::new("/data/husk"));
        assert_eq!(settings.network, DefaultNetwork::Host, "a relative XDG_CONFIG_HOME counts as unset");
    }

    #[test]
    fn the_runtime_directory_must_be_ours() {
        if uid() == 0 {
            // Root has /run; whose the directory is can be told by any other owner.
            let machine = Machine::new();
            let theirs = machine.scratch.path().join("runtime");
            fs::create_dir(&theirs).unwrap();
            std::os::unix::fs::chown(&theirs, Some(4_000_000), None).unwrap();
            let machine = machine.set("XDG_RUNTIME_DIR", theirs.to_str().unwrap());
            assert_eq!(machine.load(4_000_000, File::default()).unwrap().run_root, theirs.join("husk"));
            assert_eq!(machine.load(4_000_001, File::default()).unwrap().run_root, Path::new("/tmp/husk-4000001"));
            fs::set_permissions(&theirs, fs::Permissions::from_mode(0o777)).unwrap();
            assert_eq!(machine.load(4_000_000, File::default()).unwrap().run_root, Path::new("/tmp/husk-4000000"));
            return;
        }
        let machine = Machine::new();
        let ours = machine.scratch.path().join("runtime");
        fs::create_dir(&ours).unwrap();
        let machine = machine.set("XDG_RUNTIME_DIR", ours.to_str().unwrap());
        assert_eq!(machine.load(uid(), File::default()).unwrap().run_root, ours.join("husk"));
    }

    #[test]
    fn private_directories_are_made_and_others_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b/husk");
        open_data_root(&path, uid()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        open_data_root(&path, uid()).unwrap();

        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        open_run_root(&path, uid()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o711);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(open_run_root(&path, uid()).unwrap_err().report().ends_with("others may write in it (mode 0770)"));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let report = open_run_root(&path, uid() + 1).unwrap_err().report();
        assert!(report.ends_with(&format!("belongs to user {}, not to {}", uid(), uid() + 1)), "{report}");

        let link = scratch.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(open_run_root(&link, uid()).unwrap_err().report().ends_with("is a symlink or no directory"));
    }
}
