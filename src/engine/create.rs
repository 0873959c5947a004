//! `create`, and the first half of `run`: an image becomes a container. Starts nothing: that is [`start`](super::start)'s.
//!
//! ```text
//! IMAGE ─ layers in the store ─ root file system ┐
//! image's config, options ─ identity ────────────┴─ config.json ─ record
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::config::{self, ImageConfig, Input, NamedVolume, Part, RootFs, UserNamespace};
use super::connecting;
use super::containers::{Containers, Naming};
use super::engine::{Engine, can_hold_upper};
use super::images::{find, load, pull};
use super::logs;
use super::networks::Networks;
use super::options::namespaces::NamespaceMode;
use super::options::ports::ContainerPort;
use super::options::supervision::parse_signal;
use super::options::{Network, PublishedPort, PullPolicy, RunOptions, ports};
use super::record::{Container, FORMAT, MountedImage, Record, Supervision, Timestamp, now};
use super::secrets::Secrets;
use super::settings::CgroupManager;
use super::volume_option::{Volume, VolumeSource};
use super::volumes::options::Backing;
use super::volumes::{VolumeRecord, Volumes};
use super::{cdi, events, files, health, host, ids, inheriting, joining, seccomp_profile};
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::platform::Platform;
use crate::image::policy::Policy;
use crate::image::resolve::{self, Image};
use crate::image::source::Source;
use crate::namespaces::idmap::IdMaps;
use crate::storage::copy::{Access, merge_layers};
use crate::storage::images::Held;
use crate::storage::root::ContainerRoot;
use crate::storage::store::StoreView;
use crate::support::caller::Caller;
use crate::support::id::ContainerId;
use crate::support::lock::Lock;
use crate::support::passwd::{Identity, Principal, UserDatabase, UserSpec};
use crate::support::root::Root;
use crate::support::{atomic, mountinfo};

/// What an image is once its contents are on this machine.
struct Contents {
    config: ImageConfig,
    /// The digest of its configuration.
    id: Option<String>,
    /// Its layers as directories, lowest first; one for `dir:`, none for `host:`.
    layers: Vec<PathBuf>,
    diff_ids: Vec<Digest>,
    healthcheck: Option<serde_json::Value>,
    shell: Vec<String>,
    is_host: bool,
    /// Keeps the layers in the store until the container's record does.
    _held: Vec<Held>,
}

impl Contents {
    fn as_mounted(&self) -> MountedImage {
        MountedImage { id: self.id.clone(), layers: self.diff_ids.clone() }
    }

    fn bare(layers: Vec<PathBuf>, is_host: bool) -> Self {
        Self {
            config: ImageConfig::default(),
            id: None,
            layers,
            diff_ids: Vec::new(),
            healthcheck: None,
            shell: Vec::new(),
            is_host,
            _held: Vec::new(),
        }
    }
}

/// A container that was made and is not started, and the caller its supervisor.
pub struct Created {
    pub containers: Containers,
    pub container: Container,
    pub supervision: Supervision,
    pub record: Record,
    pub spec: Spec,
    /// Since when it counts as started, where that is noted.
    pub started: Option<Timestamp>,
}

/// Whether what is made is started at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `create`
    Keep,
    /// `run`: it counts as started from its first moment, without one in which a kill would leave it created only.
    Start,
}

/// Makes a container of an image. `tell` gets lines for the user, `report` the progress of a pull where the image has to be fetched.
pub fn create(
    engine: &Engine,
    image: &str,
    options: &RunOptions,
    purpose: Purpose,
    tell: &dyn Fn(&str),
    report: pull::Report<'_>,
) -> Result<Created> {
    let mut options = options.clone();
    inheriting::resolve(engine, &mut options)?;
    joining::pin(engine, &mut options)?;
    attach(engine, &mut options, tell)?;
    Secrets::of(engine).check(&options.secrets)?;
    logs::check(&options, purpose == Purpose::Start)?;
    let contents = if options.is_rootfs {
        bare_directory(Path::new(image)).with_context(|| format!("rootfs {image}"))?
    } else {
        fetch(engine, &Source::parse(image)?, &options, tell, report)?
    };
    let exposed = exposed(&options, &contents.config)?;
    if options.publish_all {
        options.published = ports::with_exposed(&options.published, exposed.iter().copied());
    }
    let options = &options;
    let containers = engine.containers()?;
    let naming = options.name.clone().map_or(Naming::MadeUp, Naming::Chosen);
    let draft = match containers.begin(naming.clone()) {
        // Perhaps it is the name of one that was killed, and is cleared now.
        Err(error) if error.kind() == Kind::Exists => {
            engine.clear_remains()?;
            containers.begin(naming)?
        }
        answer => answer?,
    };
    let directory = engine.container_directory(draft.id());
    draft.make_directories(&["bundle", "root", "volumes"])?;
    let users = users(&contents)?;
    let identity = identity(&contents, &users, options)?;
    let ids = ids::arrange(engine, &options.namespaces.user, &users, &identity, draft.directory())?;
    let owners = ids.as_ref().map(|ids| ids::owners(ids, engine.maps.as_ref())).transpose()?;
    let (root, parts, masked_paths) = match contents.layers.as_slice() {
        [path] if options.is_rootfs => {
            (RootFs::Directory { path: path.clone(), parts: Vec::new() }, Vec::new(), Vec::new())
        }
        _ => make_root(engine, &contents, &directory.join("root"), owners.as_ref(), tell)?,
    };
    // What volumes begin with has the container's owners, too.
    let filled_from = match &root {
        RootFs::Directory { path, .. } if ids.is_some() => vec![path.clone()],
        _ => contents.layers.clone(),
    };
    let mut mounted_images = BTreeMap::new();
    for volume in &options.volumes {
        if let VolumeSource::Image(name) = &volume.source {
            if ids.is_some() {
                let user = &options.namespaces.user;
                return Err(Error::unsupported(format!("mount type=image: its files have no owners of userns {user}")));
            }
            let contents = fetch(engine, &Source::parse(name)?, options, tell, report);
            mounted_images.insert(name.clone(), contents.with_context(|| format!("mount image {name}"))?);
        }
    }
    let layers_of = |contents: &Contents| contents.layers.clone();
    let held_volumes = hold_volumes(engine, options)?;
    let held_networks = hold_networks(engine, options)?;
    // With one id to give, the container's user gets it, whatever its number there.
    let usual = |maps: IdMaps| if maps.is_single() { IdMaps::single(identity.uid, identity.gid) } else { maps };
    let maps = ids.clone().or_else(|| engine.maps.clone().map(usual));
    let built = config::build(Input {
        id: draft.id(),
        image: &contents.config,
        options,
        root: &root,
        parts: &parts,
        masked_paths: &masked_paths,
        identity: &identity,
        host: &config::Host::probe(options)?,
        variable: &|name| std::env::var_os(name),
        variables: &|| std::env::vars_os().collect(),
        user_namespace: maps.as_ref().map(|maps| UserNamespace { maps, allows_setgroups: !maps.is_single() }),
        seccomp: seccomp_profile::choose(options)?,
        cgroups_path: cgroups_path(engine, options.cgroup_parent.as_deref(), draft.id())?,
        edits: &cdi::find(&engine.settings.cdi_directories, &options.devices)?,
        mounted_images: &mounted_images.iter().map(|(name, image)| (name.clone(), layers_of(image))).collect(),
        users: &users,
        volumes: &held_volumes.sources(engine)?,
        joined: &joining::resolve(engine, options)?,
        directory: &directory,
        is_host: contents.is_host,
    })?;
    files::write_own(draft.directory(), &built.files)?;
    held_volumes.fill(engine, options, &filled_from)?;
    let owner = match &owners {
        Some(owners) => Identity {
            uid: owners.uid_outside(identity.uid).unwrap_or(identity.uid),
            gid: owners.gid_outside(identity.gid).unwrap_or(identity.gid),
            ..identity.clone()
        },
        None => identity.clone(),
    };
    if files::are_wanted(&built) {
        engine.with_file_rights(|| files::prepare(&built, &filled_from, &owner))?;
    }
    atomic::create(
        files::open_below(draft.directory(), "bundle")?.as_fd(),
        "config.json",
        &serde_json::to_vec(&built.spec)?,
    )
    .context("write the container's config.json")?;

    let created = now();
    let record = Record {
        format: FORMAT,
        id: *draft.id(),
        name: draft.name().clone(),
        created,
        image: image.to_owned(),
        image_id: contents.id.clone(),
        layers: contents.diff_ids.clone(),
        mounted_images: mounted_images.values().map(Contents::as_mounted).collect(),
        ids,
        command: config::command(&contents.config, options)?,
        labels: labels(&contents.config, options),
        remove: options.remove,
        detached: options.detached,
        interactive: options.interactive,
        terminal: options.terminal,
        stop_signal: stop_signal(options, &contents.config)?,
        stop_timeout_seconds: options.stop_timeout_seconds,
        home_is_made: config::makes_home(&contents.config, options),
        health: health::effective(contents.healthcheck.as_ref(), &options.health, &contents.shell)?,
        exposed: exposed.into_iter().collect(),
        options: options.clone(),
    };
    if let Some(path) = &options.id_file {
        files::write_id(path, &record.id)?;
    }
    let started = (purpose == Purpose::Start).then_some(created);
    let committed = draft.commit(&record, started);
    if let (Err(_), Some(path)) = (&committed, &options.id_file) {
        // The container that it names was never there; the commit's error is the one to tell.
        let _ = rustix::fs::unlink(path);
    }
    let (container, supervision) = committed?;
    drop((contents, mounted_images, held_volumes, held_networks));
    events::container(engine, &record, "create", &[]);
    Ok(Created { containers, container, supervision, record, spec: built.spec, started })
}

/// Named volumes that nobody removes until the record says who uses them.
struct HeldVolumes(Vec<(VolumeRecord, Lock)>);

/// Makes the named volumes that are not there yet.
fn hold_volumes(engine: &Engine, options: &RunOptions) -> Result<HeldVolumes> {
    let volumes = Volumes::of(engine);
    let mut asked: BTreeMap<&str, &Volume> = BTreeMap::new();
    for volume in &options.volumes {
        if let VolumeSource::Named(name) = &volume.source {
            asked.entry(name).or_insert(volume);
        }
    }
    let hold = |(name, first): (&str, &Volume)| volumes.create(name, &first.labels, &first.driver_options);
    asked.into_iter().map(hold).collect::<Result<_>>().map(HeldVolumes)
}

impl HeldVolumes {
    /// Gives what each is mounted from.
    fn sources(&self, engine: &Engine) -> Result<BTreeMap<String, NamedVolume>> {
        let volumes = Volumes::of(engine);
        let source = |(record, _): &(VolumeRecord, Lock)| {
            let named = NamedVolume { data: volumes.data(&record.name), backing: Backing::parse(&record.options)? };
            Ok((record.name.clone(), named))
        };
        self.0.iter().map(source).collect()
    }

    /// Fills those that are empty with what the image has where they are mounted.
    fn fill(&self, engine: &Engine, options: &RunOptions, layers: &[PathBuf]) -> Result<()> {
        let volumes = Volumes::of(engine);
        for (record, lock) in &self.0 {
            let uses = options.volumes.iter();
            let mut uses =
                uses.filter(|volume| matches!(&volume.source, VolumeSource::Named(name) if *name == record.name));
            if let Some(first) = uses.find(|volume| !volume.stays_empty && volume.subpath.is_none()) {
                volumes.fill(record, lock, &first.destination, layers)?;
            }
        }
        Ok(())
    }
}

fn bare_directory(path: &Path) -> Result<Contents> {
    let path = std::path::absolute(path)?;
    Root::open(&path)?;
    Ok(Contents::bare(vec![path], false))
}

/// Brings the image's contents into the store.
fn fetch(
    engine: &Engine,
    source: &Source,
    options: &RunOptions,
    tell: &dyn Fn(&str),
    report: pull::Report<'_>,
) -> Result<Contents> {
    let local = match source {
        Source::Host => {
            return Ok(Contents::bare(Vec::new(), true));
        }
        Source::Directory(path) => {
            return bare_directory(path).with_context(|| format!("dir:{}", path.display()));
        }
        Source::Named(word) => return fetch_named(engine, word, options, tell, report),
        Source::Registry(reference) => return fetch_named(engine, &reference.to_string(), options, tell, report),
        Source::Local(local) => local,
    };
    let store = engine.store()?;
    let held = store.hold()?;
    let (image, reader) = resolve::open(local, &platform(options)?, &|| store.scratch_file())?;
    let digests: Vec<_> = image.manifest_digest.into_iter().collect();
    load::check(&Policy::load(&Caller::current())?, local.format, &local.path, &digests)?;
    if store.find_layers(&image)?.is_none() {
        engine.with_file_rights(|| store.ensure_layers(&image, &*reader, &|_| ()).map(drop))?;
    }
    contents(&store, image, vec![held], tell)
}

/// Finds an image in the stores, or pulls it.
fn fetch_named(
    engine: &Engine,
    word: &str,
    options: &RunOptions,
    tell: &dyn Fn(&str),
    report: pull::Report<'_>,
) -> Result<Contents> {
    let stores = engine.stores()?;
    let held = stores.hold()?;
    let found = if options.pull == PullPolicy::Always { None } else { find::find_among(&stores, word)? };
    if let Some((store, found)) = found {
        let image = find::open(store, &found.image)?;
        // One of another platform than was asked for is not the one that is meant.
        if options.platform.is_none() || is_for(&image.platform, &platform(options)?) {
            return contents(store, image, held, tell);
        }
    }
    if options.pull == PullPolicy::Never {
        return Err(find::unknown(word));
    }
    let wanted = pull::PullOptions { platform: platform(options)?, ..pull::PullOptions::default() };
    let record = pull::pull_word(engine, word, &wanted, report)?.1.image;
    contents(&stores.own, find::open(&stores.own, &record)?, held, tell)
}

/// The platform that the image is to be for.
fn platform(options: &RunOptions) -> Result<Platform> {
    options.platform.as_deref().map_or_else(|| Ok(Platform::host()), Platform::parse)
}

fn is_for(image: &Platform, wanted: &Platform) -> bool {
    let has_variant = image.variant.is_none() || wanted.variant.is_none() || image.variant == wanted.variant;
    (&image.os, &image.architecture) == (&wanted.os, &wanted.architecture) && has_variant
}

fn contents(store: &StoreView, image: Image, held: Vec<Held>, tell: &dyn Fn(&str)) -> Result<Contents> {
    let host = Platform::host();
    if image.platform.architecture != host.architecture {
        let (theirs, ours) = (&image.platform.architecture, &host.architecture);
        tell(&format!("the image is for {theirs}, and this machine is {ours}: its programs may not run"));
    }
    for line in &image.config.ignored {
        tell(&format!("image: {line}"));
    }
    let layers = store.find_layers(&image)?;
    let layers = layers.ok_or_else(|| Error::new(Kind::Other, "a layer vanished from the store"))?;
    let diff_ids = image.layers.iter().map(|layer| layer.diff_id).collect();
    let id = Some(image.config_digest.to_string());
    let config = image.config;
    let (healthcheck, shell) = (config.healthcheck, config.shell);
    let config = ImageConfig {
        env: config.env,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        user: config.user,
        working_dir: config.working_dir,
        volumes: config.volumes,
        stop_signal: config.stop_signal,
        labels: config.labels,
        exposed_ports: config.exposed_ports,
    };
    Ok(Contents { config, id, layers, diff_ids, healthcheck, shell, is_host: false, _held: held })
}

/// Makes the directories of the root file system, and says how they are put together.
fn make_root(
    engine: &Engine,
    contents: &Contents,
    directory: &Path,
    owners: Option<&IdMaps>,
    tell: &dyn Fn(&str),
) -> Result<(RootFs, Vec<Part>, Vec<String>)> {
    if contents.is_host {
        if owners.is_some() {
            return Err(Error::unsupported("host: its files have the owners that they have: no --userns changes them"));
        }
        return make_host_root(engine, directory, tell);
    }
    let has_user_xattrs = engine.maps.is_some();
    // The kernel maps the ids of a mount only for who has rights over the whole file system: others copy (mount_setattr(2)).
    if can_hold_upper(directory) && owners.is_none() {
        let ContainerRoot { upper, work, lower, target } = ContainerRoot::prepare(directory, &contents.layers)?;
        return Ok((RootFs::Overlay { lower, upper, work, target, has_user_xattrs }, Vec::new(), Vec::new()));
    }
    if owners.is_none() {
        tell("overlayfs cannot write on this file system: the image is copied for this container");
    }
    let target = directory.join("rootfs");
    engine.with_file_rights(|| {
        rustix::fs::mkdir(&target, rustix::fs::Mode::from_raw_mode(0o755))
            .with_context(|| format!("make {}", target.display()))?;
        merge_layers(&contents.layers, Root::open(&target)?.into_fd(), engine.form(), Access::Writable, owners)
            .map(drop)
    })?;
    Ok((RootFs::Directory { path: target, parts: Vec::new() }, Vec::new(), Vec::new()))
}

/// Lays the host's own files below a layer of the container's.
fn make_host_root(engine: &Engine, directory: &Path, tell: &dyn Fn(&str)) -> Result<(RootFs, Vec<Part>, Vec<String>)> {
    let table = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mounts = mountinfo::parse(&table)?;
    let real = |path: &Path| std::fs::canonicalize(path).with_context(|| format!("look at {}", path.display()));
    let directory = real(directory)?;
    let (data_root, run_root) = (real(&engine.settings.data_root)?, real(&engine.settings.run_root)?);
    let home = std::env::var_os("HOME").map(PathBuf::from).and_then(|home| std::fs::canonicalize(home).ok());
    let mut writable: Vec<&Path> = vec![Path::new("/var/tmp")];
    writable.extend(home.as_deref());
    let plan = host::plan(&host::View {
        mounts: &mounts,
        tree: &host::Files,
        rights: if engine.maps.is_none() { host::Rights::Root } else { host::Rights::User },
        directory: &directory,
        hidden: &[&data_root, &run_root],
        writable: &writable,
    })?;
    for (path, reason) in &plan.unseen {
        tell(&format!("host: {} is not shown ({reason})", path.display()));
    }
    engine.with_file_rights(|| plan.prepare(Root::open(&directory)?.as_fd()))?;
    Ok((plan.root, plan.parts, plan.masked_paths))
}

/// Finds the networks that are asked for, and puts their names in the place of how they were called.
fn attach(engine: &Engine, options: &mut RunOptions, tell: &dyn Fn(&str)) -> Result<()> {
    let publishes = !options.published.is_empty() || options.publish_all;
    match &options.network {
        // Docker's words, here and below.
        Network::Host if publishes => tell("Published ports are discarded when using host network mode"),
        Network::Container(_) => refuse_in_anothers(options)?,
        Network::None | Network::Path(_) if publishes => {
            let text = format!("conflicting options: port publishing and --network {}", options.network.mode());
            return Err(Error::invalid(text).with_hint("--network bridge has the host's network in reach"));
        }
        _ => {}
    }
    connecting::check_egress(options.egress.as_ref(), &options.network)?;
    let Network::Joined(attachments) = &mut options.network else { return Ok(()) };
    let networks = Networks::of(engine);
    let mut names = BTreeSet::new();
    for attachment in attachments.iter_mut() {
        let found = networks.find(&attachment.network)?;
        found.check(attachment)?;
        connecting::check_egress_in(options.egress.as_ref(), &found)?;
        attachment.network = found.name;
        if !names.insert(attachment.network.clone()) {
            return Err(Error::invalid(format!("network {:?} is specified multiple times", attachment.network)));
        }
    }
    Ok(())
}

/// Refuses what belongs to the container whose network is joined.
fn refuse_in_anothers(options: &RunOptions) -> Result<()> {
    let hosts = &options.hosts;
    let has_own_name = options.namespaces.uts == NamespaceMode::Private;
    for (is_given, what) in [
        (!options.published.is_empty() || options.publish_all, "port publishing and the container type network mode"),
        (!options.exposed.is_empty(), "port exposing and the container type network mode"),
        (options.hostname.is_some() && has_own_name, "hostname and the network mode"),
        (
            !(hosts.servers.is_empty() && hosts.search.is_empty() && hosts.options.is_empty()),
            "dns and the network mode",
        ),
        (!hosts.added.is_empty(), "custom host-to-IP mapping and the network mode"),
    ] {
        if is_given {
            return Err(Error::invalid(format!("conflicting options: {what}")));
        }
    }
    Ok(())
}

/// Keeps the container's networks, which are there, until the record says who has them.
fn hold_networks(engine: &Engine, options: &RunOptions) -> Result<Option<Lock>> {
    let attachments = options.network.attachments();
    if attachments.is_empty() {
        return Ok(None);
    }
    let networks = Networks::of(engine);
    let lock = networks.hold()?;
    // Pulling may have taken a while.
    for attachment in attachments {
        networks.require(&attachment.network)?;
    }
    Ok(Some(lock))
}

/// The ports that the container listens on: as its image says, by flags, and because they are published.
fn exposed(options: &RunOptions, image: &ImageConfig) -> Result<BTreeSet<ContainerPort>> {
    let mut exposed: BTreeSet<ContainerPort> = options.published.iter().map(PublishedPort::inside).collect();
    for text in &options.exposed {
        exposed.extend(ports::parse_exposed(text)?);
    }
    // An image may write there what it likes.
    exposed.extend(image.exposed_ports.iter().filter_map(|text| ports::parse_exposed(text).ok()).flatten());
    Ok(exposed)
}

/// Who runs: the option's user, else the image's, else root, looked up in the image's own files.
fn identity(contents: &Contents, database: &UserDatabase, options: &RunOptions) -> Result<Identity> {
    let spec = match &options.user {
        Some(spec) => spec.clone(),
        None if let Some((uid, gid)) = ids::kept(&options.namespaces.user) => {
            UserSpec { user: Principal::Id(uid), group: Some(Principal::Id(gid)) }
        }
        None if contents.config.user.is_empty() => UserSpec::ROOT,
        None => contents.config.user.parse().context("image config User")?,
    };
    database.resolve(&spec, &options.additional_groups)
}

/// Reads the users and groups of the image.
fn users(contents: &Contents) -> Result<UserDatabase> {
    if contents.is_host {
        UserDatabase::read(&Root::open(Path::new("/"))?)
    } else {
        files::user_database(&contents.layers)
    }
}

/// Below one cgroup of husk's own; an ordinary user's is relative to the user's delegated one. Or a scope of systemd's.
fn cgroups_path(engine: &Engine, parent: Option<&str>, id: &ContainerId) -> Result<String> {
    let is_root = rustix::process::geteuid().is_root();
    Ok(match engine.cgroup_manager() {
        manager if manager == CgroupManager::Systemd || parent.is_some() => {
            config::cgroups_path(manager, !is_root, parent, id)?
        }
        _ if is_root => format!("/husk/{id}"),
        _ => format!("husk-{id}"),
    })
}

fn labels(image: &ImageConfig, options: &RunOptions) -> BTreeMap<String, String> {
    let mut labels = image.labels.clone();
    labels.extend(options.labels.clone());
    labels
}

/// What ends the container: what was asked for, else what its image says, if that is a signal at all.
fn stop_signal(options: &RunOptions, image: &ImageConfig) -> Result<Option<String>> {
    if let Some(asked) = &options.stop_signal {
        return Ok(Some(asked.clone()));
    }
    let Some(name) = &image.stop_signal else { return Ok(None) };
    let name = parse_signal(name).context("image config StopSignal");
    name.map(Some).map_err(|error| error.with_hint("--stop-signal takes another"))
}
