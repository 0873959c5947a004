//! The mounts: the root file system and its parts, what every container has, what was asked for.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::{
    AnonymousVolume, Input, NamedVolume, Part, PartSource, RootFs, UserNamespace, defaults, mount, options_of,
};
use crate::engine::options::namespaces::{IpcMode, NamespaceMode};
use crate::engine::options::{ImageVolumes, Network};
use crate::engine::volume_option::{self, Propagation, Volume, VolumeSource};
use crate::engine::volumes::options::Backing;
use crate::error::{Context, Error, Kind, Result};
use crate::rootfs::overlay;

/// What the mounts come to.
pub(super) struct Mounts {
    pub(super) list: Vec<Mount>,
    pub(super) made: Made,
    /// `linux.rootfsPropagation`, where a volume needs one.
    pub(super) propagation: Option<String>,
}

/// What has to be there for them.
#[derive(Default)]
pub(super) struct Made {
    pub(super) volumes: Vec<AnonymousVolume>,
    pub(super) directories: Vec<PathBuf>,
    pub(super) given: Vec<PathBuf>,
}

/// Makes them. `own_files` give way to what is asked for; `devices` are binds.
pub(super) fn build(input: &Input<'_>, own_files: Vec<Mount>, devices: Vec<Mount>) -> Result<Mounts> {
    let options = input.options;
    let mut asked = Asked::default();
    for volume in &options.volumes {
        asked.add_volume(input, volume)?;
    }
    for tmpfs in &options.tmpfs {
        asked.add(mount(&tmpfs.destination, "tmpfs", "tmpfs", tmpfs.options.clone()))?;
    }
    for destination in &input.image.volumes {
        let destination = volume_option::clean_destination(destination).context("image config Volumes")?;
        // What the user mounts there is there instead.
        if asked.has(Path::new(&destination)) {
            continue;
        }
        match options.image_volumes {
            ImageVolumes::Bind => asked.add_anonymous(input, &destination, options_of(&["rbind", "rprivate"]))?,
            ImageVolumes::Tmpfs => asked.add(mount(&destination, "tmpfs", "tmpfs", options_of(defaults::TMPFS)))?,
            ImageVolumes::Ignore => {}
        }
    }
    if options.read_only && options.read_only_tmpfs {
        for destination in ["/run", "/tmp", "/var/tmp"] {
            if !asked.has(Path::new(destination)) {
                asked.add(mount(destination, "tmpfs", "tmpfs", options_of(defaults::TMPFS)))?;
            }
        }
    }
    if let Some(path) = options.init_path.as_ref().filter(|_| options.init) {
        // Whoever is root in the container has it open as /proc/1/exe: read-only, it stays what it is (CVE-2019-5736).
        asked.add(mount(
            defaults::INIT_PATH,
            "bind",
            path,
            options_of(&["bind", "rprivate", "ro", "nosuid", "nodev"]),
        ))?;
    }
    if let Some(path) = &input.host.timezone {
        let options = options_of(&["bind", "rprivate", "ro"]);
        if !asked.has(Path::new("/etc/localtime")) {
            asked.add(mount("/etc/localtime", "bind", path, options))?;
        }
    }
    for mount in own_files.into_iter().chain(devices).chain(input.edits.mounts.iter().cloned()) {
        if !asked.has(mount.destination()) {
            asked.add(mount)?;
        }
    }
    // A mount hides what is below it, so the shallow ones come first; those of one depth keep their order.
    asked.mounts.sort_by_key(|mount| mount.destination().components().count());

    let mut mounts = root_mounts(input);
    // A place that is asked for is not made by default; and a /dev from outside has all of its own.
    let has_dev = asked.has(Path::new("/dev"));
    let is_replaced =
        |mount: &Mount| asked.has(mount.destination()) || has_dev && mount.destination().starts_with("/dev");
    mounts.extend(default_mounts(input).into_iter().filter(|mount| !is_replaced(mount)));
    mounts.append(&mut asked.mounts);
    Ok(Mounts { list: mounts, made: asked.made, propagation: asked.propagation.map(str::to_owned) })
}

/// The root file system: a first mount on `/` where it is an overlay, and its parts.
fn root_mounts(input: &Input<'_>) -> Vec<Mount> {
    let mut mounts = Vec::new();
    let parts = match input.root {
        RootFs::Overlay { lower, upper, work, has_user_xattrs, .. } => {
            mounts.push(overlay_mount(Path::new("/"), lower, upper, work, *has_user_xattrs));
            [].as_slice()
        }
        RootFs::Directory { parts, .. } => parts.as_slice(),
    };
    mounts.extend(parts.iter().chain(input.parts).map(|part| part_mount(part, input.options.read_only)));
    mounts
}

fn part_mount(part: &Part, read_only: bool) -> Mount {
    let mut mount = match &part.source {
        PartSource::Overlay { lower, upper, work, has_user_xattrs } => {
            overlay_mount(&part.destination, std::slice::from_ref(lower), upper, work, *has_user_xattrs)
        }
        PartSource::ReadOnlyBind(path) => {
            return mount(&part.destination, "bind", path, options_of(&["bind", "rprivate", "ro", "nosuid", "nodev"]));
        }
        PartSource::Bind(path) => {
            mount(&part.destination, "bind", path, options_of(&["bind", "rprivate", "nosuid", "nodev"]))
        }
        PartSource::Tmpfs(options) => return mount(&part.destination, "tmpfs", "tmpfs", options_of(options)),
    };
    if read_only && let Some(options) = mount.options_mut() {
        options.push("ro".to_owned());
    }
    mount
}

fn overlay_mount(on: &Path, lower: &[PathBuf], upper: &Path, work: &Path, has_user_xattrs: bool) -> Mount {
    let escape = |path: &Path| overlay::escape(&path.to_string_lossy());
    let lower: Vec<String> = lower.iter().map(|path| escape(path)).collect();
    let mut options = vec![
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", escape(upper)),
        format!("workdir={}", escape(work)),
    ];
    if has_user_xattrs {
        options.push("userxattr".to_owned());
    }
    mount(on, "overlay", "overlay", options)
}

fn default_mounts(input: &Input<'_>) -> Vec<Mount> {
    let has_tty_group =
        input.user_namespace.is_none_or(|UserNamespace { maps, .. }| maps.gid_outside(defaults::TTY_GROUP).is_some());
    let modes = &input.options.namespaces;
    let privileged = input.options.privileged;
    let has_user_namespace = input.user_namespace.is_some();
    let is_networks_owner = match input.options.network {
        Network::None | Network::Joined(_) => true,
        Network::Host => false,
        // Of who is joined by it, and its network with it.
        Network::Container(_) | Network::Path(_) => input.joined.user.is_some(),
    };
    let borrows_sys = has_user_namespace && !is_networks_owner;
    let borrows_proc = has_user_namespace && modes.pid == NamespaceMode::Host;
    let bind = |path: &'static str, source: PathBuf, more: &[&str]| {
        let mut options = options_of(&["rbind", "rprivate", "nosuid", "noexec", "nodev"]);
        options.extend(options_of(more));
        mount(path, "bind", source, options)
    };
    let build = |default: &defaults::DefaultMount| {
        let mut options = options_of(default.options);
        match default.destination {
            "/dev/pts" if !has_tty_group => options.retain(|option| !option.starts_with("gid=")),
            // Shared memory goes with the IPC namespace.
            "/dev/shm" if modes.ipc == IpcMode::Host => return bind("/dev/shm", "/dev/shm".into(), &[]),
            // No path leads there: the runtime fetches it from the other's mount namespace at each start.
            "/dev/shm" if matches!(modes.ipc, IpcMode::Container(_)) => {
                return bind("/dev/shm", modes.ipc.to_string().into(), &[]);
            }
            "/dev/shm" => options.push(format!("size={}", input.options.shm_size.unwrap_or(defaults::SHM_BYTES))),
            "/dev/mqueue" if input.host.has_queues => return bind("/dev/mqueue", "/dev/mqueue".into(), &[]),
            // procfs shows a PID namespace, and only its owner may mount it.
            "/proc" if borrows_proc => return bind("/proc", "/proc".into(), &[]),
            "/proc" => options.extend(input.options.security.proc_options.iter().cloned()),
            // sysfs belongs to the network namespace, and only its owner may mount it.
            "/sys" if borrows_sys => {
                return bind("/sys", "/sys".into(), if privileged { &[] } else { &["ro"] });
            }
            "/sys" if privileged => options.retain(|option| option != "ro"),
            "/sys/fs/cgroup" if privileged || input.options.security.writable_cgroups => {
                options.retain(|option| option != "ro");
            }
            _ => {}
        }
        mount(default.destination, default.kind, default.source, options)
    };
    // Queues belong to the IPC namespace: whoever shares the host's and did not make it can only bind what is there.
    let lacks_queues = modes.ipc == IpcMode::Host && has_user_namespace && !input.host.has_queues;
    let is_there = |default: &&defaults::DefaultMount| match default.destination {
        "/dev/mqueue" => !lacks_queues,
        "/dev/shm" => modes.ipc != IpcMode::Nothing,
        _ => true,
    };
    defaults::MOUNTS.iter().filter(is_there).map(build).collect()
}

/// Says whether an option of a bind takes another's place.
fn excludes(own: &str, other: &str) -> bool {
    let is_bind = |option: &str| matches!(option, "bind" | "rbind");
    is_bind(own) && is_bind(other)
}

/// What was asked for, by the user and the image.
#[derive(Default)]
struct Asked {
    mounts: Vec<Mount>,
    made: Made,
    propagation: Option<&'static str>,
}

impl Asked {
    fn has(&self, destination: &Path) -> bool {
        self.mounts.iter().any(|mount| mount.destination() == destination)
    }

    fn add(&mut self, mount: Mount) -> Result<()> {
        if self.has(mount.destination()) {
            return Err(Error::invalid(format!("duplicate mount point: {}", mount.destination().display())));
        }
        self.mounts.push(mount);
        Ok(())
    }

    fn add_volume(&mut self, input: &Input<'_>, volume: &Volume) -> Result<()> {
        let mut options = volume.mount_options(input.host.has_recursive_read_only);
        let source = match &volume.source {
            VolumeSource::Host(path) if path.is_absolute() => path,
            // The runtime would take it from the bundle.
            VolumeSource::Host(path) => {
                return Err(Error::invalid(format!("volume source {} is not an absolute path", path.display())));
            }
            VolumeSource::Anonymous => return self.add_anonymous(input, &volume.destination, options),
            VolumeSource::Named(name) => {
                let NamedVolume { data, backing } = input
                    .volumes
                    .get(name)
                    .ok_or_else(|| Error::new(Kind::NotFound, format!("no such volume: {name}")))?;
                match backing {
                    Backing::Directory(_) => data,
                    Backing::Bind { source, options: own } => {
                        options.retain(|option| !own.iter().any(|own| excludes(own, option)));
                        options.extend(own.iter().cloned());
                        source
                    }
                    Backing::Mount { kind, device, options } => {
                        return self
                            .add_file_system(volume, kind, device, options)
                            .with_context(|| format!("volume {name}"));
                    }
                }
            }
            VolumeSource::Image(image) => return self.add_image(input, volume, image),
        };
        let source = match &volume.subpath {
            Some(subpath) => &source.join(subpath),
            None => source,
        };
        // A mount can only pass on what reaches the container's root.
        self.propagation = match (volume.propagation, self.propagation) {
            (Propagation::Shared | Propagation::RecursiveShared, _) => Some("rshared"),
            (Propagation::Slave | Propagation::RecursiveSlave, None) => Some("rslave"),
            (_, found) => found,
        };
        if volume.is_given {
            self.made.given.push(source.clone());
        }
        if volume.is_overlay {
            return self.add_overlay(input, volume, source);
        }
        self.add(mount(&volume.destination, "bind", source, options))
    }

    /// Mounts a volume that is a file system: a mount of the container's own.
    fn add_file_system(&mut self, volume: &Volume, kind: &str, device: &str, options: &[String]) -> Result<()> {
        for (what, is_asked) in [
            ("a subpath", volume.subpath.is_some()),
            ("O", volume.is_overlay),
            ("U", volume.is_given),
            ("idmap", volume.idmap.is_some()),
        ] {
            if is_asked {
                return Err(Error::unsupported(format!("{what} is not supported for a volume of type {kind}")));
            }
        }
        let mut options = options.to_vec();
        options.extend(volume.attributes.iter().cloned());
        if volume.is_read_only {
            options.push("ro".to_owned());
        }
        // It begins with what the image has there, as every volume does.
        if kind == "tmpfs" && !volume.stays_empty {
            options.push("tmpcopyup".to_owned());
        }
        self.add(mount(&volume.destination, kind, device, options))
    }

    /// Lays a layer of the container's own over a source, which stays as it is.
    fn add_overlay(&mut self, input: &Input<'_>, volume: &Volume, source: &Path) -> Result<()> {
        let place = self.next_directory(input);
        let (upper, work) = (place.join("upper"), place.join("work"));
        let has_user_xattrs = input.user_namespace.is_some();
        let source = source.to_owned();
        let mut mount = overlay_mount(Path::new(&volume.destination), &[source], &upper, &work, has_user_xattrs);
        if volume.is_read_only
            && let Some(options) = mount.options_mut()
        {
            options.push("ro".to_owned());
        }
        self.made.directories.extend([place, upper, work]);
        self.add(mount)
    }

    /// Shows the files of an image: read-only, or below a layer of the container's own.
    fn add_image(&mut self, input: &Input<'_>, volume: &Volume, image: &str) -> Result<()> {
        let layers = input.mounted_images.get(image).map(Vec::as_slice).unwrap_or_default();
        let mut lower: Vec<PathBuf> = layers.iter().rev().cloned().collect();
        let place = self.next_directory(input);
        let (upper, work) = (place.join("upper"), place.join("work"));
        let destination = Path::new(&volume.destination);
        let has_user_xattrs = input.user_namespace.is_some();
        let whole = if volume.is_read_only {
            // Without a layer to write to, overlayfs wants two to read from; the empty one is as good as any.
            if lower.len() < 2 {
                lower.push(upper.clone());
            }
            let lower: Vec<String> = lower.iter().map(|path| overlay::escape(&path.to_string_lossy())).collect();
            let mut options = vec![format!("lowerdir={}", lower.join(":")), "ro".to_owned()];
            options.extend(has_user_xattrs.then(|| "userxattr".to_owned()));
            mount(destination, "overlay", "overlay", options)
        } else {
            overlay_mount(destination, &lower, &upper, &work, has_user_xattrs)
        };
        self.made.directories.extend([place, upper, work]);
        self.add(whole)?;
        if let Some(subpath) = &volume.subpath {
            // The part of what is mounted by then, over it: found in the container's root, where no link leads out.
            let root = match input.root {
                RootFs::Overlay { target, .. } => target,
                RootFs::Directory { path, .. } => path,
            };
            let source = root.join(volume.destination.trim_start_matches('/')).join(subpath);
            let mut options = options_of(&["bind", "rprivate"]);
            options.extend(volume.is_read_only.then(|| "ro".to_owned()));
            self.mounts.push(mount(destination, "bind", source, options));
        }
        Ok(())
    }

    fn add_anonymous(&mut self, input: &Input<'_>, destination: &str, options: Vec<String>) -> Result<()> {
        let directory = self.next_directory(input);
        self.add(mount(destination, "bind", &directory, options))?;
        self.made.volumes.push(AnonymousVolume { directory, destination: destination.to_owned() });
        Ok(())
    }

    /// Gives the next free place among the container's volumes.
    fn next_directory(&self, input: &Input<'_>) -> PathBuf {
        let overlays = self.made.directories.iter().filter(|path| path.ends_with("upper")).count();
        input.directory.join("volumes").join((self.made.volumes.len() + overlays).to_string())
    }
}
