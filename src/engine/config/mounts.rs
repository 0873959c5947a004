//! The mounts: the root file system and its parts, what every container has, what was asked for.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::{AnonymousVolume, Input, Part, PartSource, RootFs, UserNamespace, defaults, mount, options_of};
use crate::engine::options::Network;
use crate::engine::volume_option::{self, Propagation, Volume, VolumeSource};
use crate::error::{Context, Error, Result};
use crate::rootfs::overlay;

/// What the mounts come to.
pub(super) struct Mounts {
    pub(super) list: Vec<Mount>,
    pub(super) volumes: Vec<AnonymousVolume>,
    /// `linux.rootfsPropagation`, where a volume needs one.
    pub(super) propagation: Option<String>,
}

pub(super) fn build(input: &Input<'_>) -> Result<Mounts> {
    let mut asked = Asked::default();
    for volume in &input.options.volumes {
        asked.add_volume(input, volume)?;
    }
    for tmpfs in &input.options.tmpfs {
        asked.add(mount(&tmpfs.destination, "tmpfs", "tmpfs", tmpfs.options.clone()))?;
    }
    for destination in &input.image.volumes {
        let destination = volume_option::clean_destination(destination).context("image config Volumes")?;
        // What the user mounts there is there instead.
        if !asked.has(Path::new(&destination)) {
            asked.add_anonymous(input, &destination)?;
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
    Ok(Mounts { list: mounts, volumes: asked.volumes, propagation: asked.propagation.map(str::to_owned) })
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
    let borrows_sys = input.user_namespace.is_some() && input.options.network == Network::Host;
    let build = |default: &defaults::DefaultMount| {
        let mut options = options_of(default.options);
        match default.destination {
            "/dev/pts" if !has_tty_group => options.retain(|option| !option.starts_with("gid=")),
            "/dev/shm" => options.push(format!("size={}", input.options.shm_size.unwrap_or(defaults::SHM_BYTES))),
            // sysfs belongs to the network namespace, and only its owner may mount it.
            "/sys" if borrows_sys => {
                return mount(
                    "/sys",
                    "bind",
                    "/sys",
                    options_of(&["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"]),
                );
            }
            _ => {}
        }
        mount(default.destination, default.kind, default.source, options)
    };
    defaults::MOUNTS.iter().map(build).collect()
}

/// What was asked for, by the user and the image.
#[derive(Default)]
struct Asked {
    mounts: Vec<Mount>,
    volumes: Vec<AnonymousVolume>,
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
        let source = match &volume.source {
            VolumeSource::Host(path) if path.is_absolute() => path,
            // The runtime would take it from the bundle.
            VolumeSource::Host(path) => {
                return Err(Error::invalid(format!("volume source {} is not an absolute path", path.display())));
            }
            VolumeSource::Anonymous => return self.add_anonymous(input, &volume.destination),
            VolumeSource::Named(name) => {
                return Err(Error::unsupported(format!("volume {name:?}: named volumes are not supported yet"))
                    .with_hint(format!("a directory of the host is given by its path: ./{name}")));
            }
        };
        // A mount can only pass on what reaches the container's root.
        self.propagation = match (volume.propagation, self.propagation) {
            (Propagation::Shared | Propagation::RecursiveShared, _) => Some("rshared"),
            (Propagation::Slave | Propagation::RecursiveSlave, None) => Some("rslave"),
            (_, found) => found,
        };
        let options = volume.mount_options(input.host.has_recursive_read_only);
        self.add(mount(&volume.destination, "bind", source, options))
    }

    fn add_anonymous(&mut self, input: &Input<'_>, destination: &str) -> Result<()> {
        let directory = input.volumes_directory.join(self.volumes.len().to_string());
        self.add(mount(destination, "bind", &directory, options_of(&["rbind", "rprivate"])))?;
        self.volumes.push(AnonymousVolume { directory, destination: destination.to_owned() });
        Ok(())
    }
}
