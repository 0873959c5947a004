//! The Container Device Interface (`--device vendor.com/class=name`, `--gpus`): finds what a vendor's specification says
//! that a device comes to in a container, and judges it whole before any of it is used.
//!
//! Specifications are JSON, below directories of which the last has the highest priority, as the interface has it (versions
//! 0.3.0 to 1.0.0). Read where such a device is asked for and nowhere else; nothing is watched and nothing is kept.

mod model;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, HookBuilder, Hooks, Mount};
use rustix::fs::FileType;

use super::config::Node;
use super::options::DeviceRequest;
use super::volume_option::clean_destination;
use crate::error::{Context, Error, Kind, Result};
use crate::support::atomic;
use model::{ContainerEdits, DeviceNode, Specification};

/// NVIDIA's list every file of a driver, and come to some 100 KiB.
const FILE_BYTES: usize = 4 << 20;

/// What devices come to in a container's configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    /// `NAME=value`
    pub env: Vec<String>,
    pub nodes: Vec<Node>,
    pub mounts: Vec<Mount>,
    /// With the names of their kinds.
    pub hooks: Vec<(String, Hook)>,
    pub groups: Vec<u32>,
}

/// Finds the devices among `requests` that have a name of the interface.
pub fn find(directories: &[PathBuf], requests: &[DeviceRequest]) -> Result<Edits> {
    let names = requests.iter().filter_map(|request| match request {
        DeviceRequest::Cdi { kind, name } => Some((kind, name)),
        DeviceRequest::Node { .. } => None,
    });
    let mut edits = Edits::default();
    let mut library = None;
    let mut begun: Vec<PathBuf> = Vec::new();
    for (kind, name) in names {
        let library = match &library {
            Some(library) => library,
            None => library.insert(Library::read(directories)?),
        };
        let mut add = || -> Result<()> {
            let file = library.find(kind, name)?;
            let specification = &file.specification;
            // What is for all devices of a file comes once, and first.
            if !begun.contains(&file.path) {
                begun.push(file.path.clone());
                edits.add(&specification.container_edits).with_context(|| file.path.display().to_string())?;
            }
            let device = specification.devices.iter().find(|device| device.name == *name);
            let device = device.ok_or_else(|| Error::new(Kind::Other, "the device has vanished"))?;
            edits.add(&device.container_edits).with_context(|| file.path.display().to_string())
        };
        add().with_context(|| format!("device {kind}={name}"))?;
    }
    Ok(edits)
}

/// One file that is as it should be.
struct File {
    path: PathBuf,
    /// The place of its directory; the highest wins.
    priority: usize,
    specification: Specification,
}

/// All files, and why some are of no use: that concerns only who looks for what is not in the others.
struct Library {
    files: Vec<File>,
    useless: Vec<String>,
    places: String,
}

impl Library {
    fn read(directories: &[PathBuf]) -> Result<Self> {
        let places: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        let mut library = Self { files: Vec::new(), useless: Vec::new(), places: places.join(", ") };
        for (priority, directory) in directories.iter().enumerate() {
            let entries = match std::fs::read_dir(directory) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                answer => answer.with_context(|| format!("list {}", directory.display()))?,
            };
            let mut paths = Vec::new();
            for entry in entries {
                paths.push(entry.with_context(|| format!("list {}", directory.display()))?.path());
            }
            paths.sort();
            for path in paths {
                match path.extension().and_then(std::ffi::OsStr::to_str) {
                    Some("json") => match read_file(&path) {
                        Ok(specification) => library.files.push(File { path, priority, specification }),
                        Err(error) => library.useless.push(format!("{}: {}", path.display(), error.report())),
                    },
                    Some("yaml" | "yml") => {
                        library.useless.push(format!("{}: YAML is not supported, JSON is", path.display()));
                    }
                    _ => {}
                }
            }
        }
        Ok(library)
    }

    fn find(&self, kind: &str, name: &str) -> Result<&File> {
        let has = |file: &&File| {
            file.specification.kind == kind && file.specification.devices.iter().any(|device| device.name == name)
        };
        let highest = self.files.iter().filter(has).map(|file| file.priority).max();
        let found: Vec<&File> = self.files.iter().filter(has).filter(|file| Some(file.priority) == highest).collect();
        match found.as_slice() {
            [file] => Ok(file),
            [] => {
                let error = Error::new(Kind::NotFound, "unresolvable CDI device");
                Err(match self.useless.as_slice() {
                    [] => error.with_hint(format!("no specification in {} has it", self.places)),
                    useless => error.with_hint(format!("not read: {}", useless.join("; "))),
                })
            }
            [one, other, ..] => {
                Err(Error::invalid(format!("both {} and {} have it", one.path.display(), other.path.display())))
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Specification> {
    let bytes = atomic::read(rustix::fs::CWD, path.as_os_str().to_str().unwrap_or_default(), FILE_BYTES)?;
    let specification: Specification = serde_json::from_slice(&bytes.unwrap_or_default())?;
    specification.check()?;
    Ok(specification)
}

impl Edits {
    fn add(&mut self, more: &ContainerEdits) -> Result<()> {
        self.env.extend(more.env.iter().cloned());
        for node in &more.device_nodes {
            self.nodes.push(host_node(node).with_context(|| format!("deviceNodes: {}", node.path))?);
        }
        for mount in &more.mounts {
            let mut made = Mount::default();
            let destination = clean_destination(&mount.container_path).context("mounts")?;
            let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
            made.set_destination(destination.into())
                .set_typ(Some(kind.to_owned()))
                .set_source(Some(PathBuf::from(&mount.host_path)))
                .set_options(Some(mount.options.clone()));
            self.mounts.push(made);
        }
        for hook in &more.hooks {
            let mut builder = HookBuilder::default().path(PathBuf::from(&hook.path));
            if !hook.args.is_empty() {
                builder = builder.args(hook.args.clone());
            }
            if !hook.env.is_empty() {
                builder = builder.env(hook.env.clone());
            }
            if let Some(timeout) = hook.timeout {
                builder = builder.timeout(i64::from(timeout));
            }
            self.hooks.push((hook.hook_name.clone(), builder.build().expect("the path is set")));
        }
        self.groups.extend(more.additional_gids.iter().copied().filter(|group| *group != 0));
        Ok(())
    }

    /// Gives the hooks as the configuration has them.
    pub fn oci_hooks(&self) -> Option<Hooks> {
        let of = |kind: &str| -> Option<Vec<Hook>> {
            let hooks: Vec<Hook> =
                self.hooks.iter().filter(|(name, _)| name == kind).map(|(_, hook)| hook.clone()).collect();
            (!hooks.is_empty()).then_some(hooks)
        };
        if self.hooks.is_empty() {
            return None;
        }
        let mut hooks = Hooks::default();
        hooks
            .set_prestart(of("prestart"))
            .set_create_runtime(of("createRuntime"))
            .set_create_container(of("createContainer"))
            .set_start_container(of("startContainer"))
            .set_poststart(of("poststart"))
            .set_poststop(of("poststop"));
        Some(hooks)
    }
}

/// Completes a node by what the host has at its path.
fn host_node(node: &DeviceNode) -> Result<Node> {
    let source = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let destination = clean_destination(&node.path)?;
    let is_whole = matches!(node.kind.as_str(), "b" | "c" | "u") && node.major.is_some() && node.minor.is_some();
    let stat = match rustix::fs::stat(source.as_str()) {
        Ok(stat) => Some(stat),
        Err(_) if is_whole => None,
        Err(errno) => return Err(errno).with_context(|| format!("look at {source}")),
    };
    let of_host = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
    let kind = match (node.kind.as_str(), of_host) {
        ("b", _) | ("", Some(FileType::BlockDevice)) => 'b',
        ("c" | "u", _) | ("", Some(FileType::CharacterDevice)) => 'c',
        ("p", _) => return Err(Error::unsupported("type \"p\": a fifo is no device; a mount brings one")),
        _ => return Err(Error::invalid(format!("{source} is not a device node"))),
    };
    let number = |said: Option<u32>, of_host: Option<u32>| said.or(of_host).unwrap_or_default();
    Ok(Node {
        source: source.into(),
        destination: destination.into(),
        kind,
        major: number(node.major, stat.map(|stat| rustix::fs::major(stat.st_rdev))),
        minor: number(node.minor, stat.map(|stat| rustix::fs::minor(stat.st_rdev))),
        mode: number(node.file_mode, stat.map(|stat| stat.st_mode)) & 0o7777,
        uid: number(node.uid, stat.map(|stat| stat.st_uid)),
        gid: number(node.gid, stat.map(|stat| stat.st_gid)),
        access: if node.permissions.is_empty() { "rwm".to_owned() } else { node.permissions.clone() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn write(directory: &Path, name: &str, value: &Value) {
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(directory.join(name));
        serde_json::to_writer(file.unwrap(), value).unwrap();
    }

    fn specification(device: &str, env: &str) -> Value {
        json!({
            "cdiVersion": "0.6.0",
            "kind": "vendor.com/class",
            "containerEdits": {"env": ["COMMON=1"]},
            "devices": [
                {"name": device, "containerEdits": {"env": [env], "deviceNodes": [{"path": "/dev/null"}]}},
                {"name": "other", "containerEdits": {"env": ["OTHER=1"]}},
            ],
        })
    }

    fn requests(names: &[&str]) -> Vec<DeviceRequest> {
        names.iter().map(|name| format!("vendor.com/class={name}").parse().unwrap()).collect()
    }

    #[test]
    fn the_last_directory_wins_and_edits_for_all_come_once() {
        let place = tempfile::tempdir().unwrap();
        let directories = ["low", "high", "none"].map(|name| place.path().join(name));
        for directory in &directories[..2] {
            std::fs::create_dir(directory).unwrap();
        }
        write(&directories[0], "a.json", &specification("dev", "A=low"));
        write(&directories[1], "a.json", &specification("dev", "A=high"));
        let edits = find(&directories, &requests(&["dev", "other"])).unwrap();
        assert_eq!(edits.env, ["COMMON=1", "A=high", "OTHER=1"]);
        let node = &edits.nodes[0];
        assert_eq!((node.kind, node.major, node.minor, node.access.as_str()), ('c', 1, 3, "rwm"));
        write(&directories[1], "b.json", &specification("dev", "A=again"));
        let error = find(&directories, &requests(&["dev"])).unwrap_err().report();
        assert!(
            error.starts_with("device vendor.com/class=dev: both ") && error.ends_with("b.json have it"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_found_says_what_was_not_read() {
        let place = tempfile::tempdir().unwrap();
        let directories = [place.path().to_owned()];
        let error = find(&directories, &requests(&["dev"])).unwrap_err();
        assert_eq!(error.report(), "device vendor.com/class=dev: unresolvable CDI device");
        assert!(error.hint().unwrap().starts_with("no specification in "));
        std::fs::OpenOptions::new().write(true).create_new(true).open(place.path().join("x.yaml")).unwrap();
        let error = find(&directories, &requests(&["dev"])).unwrap_err();
        assert!(error.hint().unwrap().ends_with("x.yaml: YAML is not supported, JSON is"));
    }
}
