//! Brings a container back from what `checkpoint` saved.
//!
//! CRIU makes the processes with their namespaces and mounts; from us it has the root file system as a mount, the cgroups,
//! and the sources of what is bound from the host. The first process is our own child, as after `create`.
//!
//! ```text
//! <root>/<id>/criu-root   the root file system, mounted for as long as CRIU works
//! ```

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::checkpoint::{DESCRIPTORS_FILE, EXTERNAL_NAMESPACES, NULL_KEY, config_file, key_of, shown_from_host};
use super::container::{self, Mode, RemoveOnDrop, Running, Runtime, name_limits};
use super::criu::{self, Verb};
use super::hand_over::{HandOver, check_terminal, hook_state};
use super::parent::Init;
use super::plan::{self, Plan};
use super::state::{State, StateDirectory, process_stat};
use super::{cgroup_view, hooks};
use crate::cgroups::{self, Cgroup, Hierarchies};
use crate::error::{Context, Error, Kind, Result};
use crate::rootfs::host::HostProc;
use crate::rootfs::mount::{self, Aid};
use crate::rootfs::plan::{MountPlan, MountSource, RootSource};
use crate::rootfs::setup::open_root_tree;
use crate::spec::mount_options::MountOptions;
use crate::support::root::Root;
use crate::sys::mount::{Change, Reach, mount_setattr};
use crate::sys::process::{CloseHow, close_range, new_session_keyring};

/// What `restore` is asked for.
pub struct Request<'a> {
    /// The container: its id, bundle and configuration, and where its terminal and pid go.
    pub container: container::Request<'a>,
    /// What saving had, too.
    pub options: criu::Options,
    /// A security profile other than the image's: `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// The security context of mounts, other than the image's.
    pub lsm_mount_context: Option<String>,
    /// Whether TCP connections come back closed.
    pub tcp_close: bool,
}

impl Runtime {
    /// Restores a container; it runs afterwards.
    pub fn restore(&self, request: &Request<'_>, mode: Mode) -> Result<Running> {
        let container = &request.container;
        check_terminal(container.spec.spec().process().as_ref(), container.console_socket.is_some(), mode)?;
        crate::spec::validate::validate_id(container.id)?;
        close_range(3, CloseHow::OnExec).context("mark descriptors close-on-exec")?;
        let restore = criu::Request::new(Verb::Restore, &request.options)?;
        let plan = plan::plan(container.spec, container.bundle, &container.choices)?;
        let linux = container.spec.spec().linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        if linux.is_some_and(|linux| linux.intel_rdt().is_some()) {
            return Err(Error::unsupported("linux.intelRdt: restore makes no resctrl groups"));
        }
        let layout = cgroups::Layout::probe().context("find the cgroup hierarchies")?;
        let cgroup_plan = cgroups::plan(
            &layout,
            &cgroups::Request {
                container_id: container.id,
                cgroups_path: linux.and_then(|linux| linux.cgroups_path().as_deref()),
                annotations: container.spec.spec().annotations().as_ref(),
                resources,
                delegate_to: cgroup_view::owner(container.spec.spec(), &plan.namespaces),
                driver: self.driver,
                tolerance: self.tolerance,
            },
        )?;
        let directory = RemoveOnDrop(Some(self.claim(container.id)?));
        let first = Self::template(container, &plan, cgroup_plan.record());
        directory.get().save(&State { hooks: hooks::HookPlan::default(), ..first })?;
        let mut cgroup = cgroup_plan.begin().map_err(|error| name_limits(error, resources))?;
        cgroup.finish()?;
        let template = Self::template(container, &plan, cgroup.cgroup().record());
        // What CRIU restores has its session keyring, and the caller's is for no container.
        if plan.process.has_own_keyring {
            let _ = new_session_keyring();
        }
        let root = CriuRoot::attach(&plan, directory.get())?;
        let restore = describe(restore, request, &plan, cgroup.cgroup(), &root)?;
        let answer = restore.run(
            |restore, pid| {
                cgroup.adopt(pid)?;
                enter_cgroups(restore, cgroup.cgroup(), pid)
            },
            |script, pid| match (script, pid) {
                ("setup-namespaces", Some(pid)) => run_hooks(&plan, &template, pid),
                ("post-restore", Some(pid)) => directory.get().save(&with_process(&template, pid)?),
                _ => Ok(()),
            },
        )?;
        drop(root);
        let pid = answer.pid.ok_or_else(|| Error::new(Kind::Other, "criu did not say what it restored"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("open the restored process")?;
        let (cgroup, warnings) = cgroup.keep();
        let mut running = Running {
            init: Init { pid, pidfd, terminal: answer.terminal },
            state: with_process(&template, pid)?,
            warnings: plan.warnings.into_iter().chain(warnings.iter().map(ToString::to_string)).collect(),
            directory: directory.disarm(),
            cgroup,
            notify: None,
        };
        if let Err(error) = hand_over(container, &mut running) {
            running.kill_and_remove();
            return Err(error);
        }
        Ok(running)
    }
}

fn with_process(template: &State, pid: Pid) -> Result<State> {
    let pid = pid.as_raw_nonzero().get();
    let start_time = process_stat(pid)?.map_or(0, |stat| stat.start_time);
    Ok(State { pid, start_time, ..template.clone() })
}

fn run_hooks(plan: &Plan, template: &State, pid: Pid) -> Result<()> {
    let state = hook_state(template, "creating", pid.as_raw_nonzero().get());
    hooks::run("prestart", &plan.hooks.prestart, &state, &plan.hook_output)?;
    hooks::run("createRuntime", &plan.hooks.create_runtime, &state, &plan.hook_output)
}

/// CRIU starts where the container's processes are to be; they are its children.
fn enter_cgroups(restore: criu::Request, cgroup: &Cgroup, pid: Pid) -> Result<criu::Request> {
    cgroup.join(pid, Hierarchies::Every)?;
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let places = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    Ok(places.fold(restore, |restore, (controllers, path)| {
        controllers.split(',').fold(restore, |restore, controller| restore.cgroup_root(controller, path))
    }))
}

fn describe(
    restore: criu::Request,
    request: &Request<'_>,
    plan: &Plan,
    cgroup: &Cgroup,
    root: &CriuRoot,
) -> Result<criu::Request> {
    let mut restore = restore
        .restore_flags(request.tcp_close)
        .root(&root.path)
        .labels(request.lsm_profile.as_deref(), request.lsm_mount_context.as_deref());
    if let Some(file) = config_file(request.container.spec.spec()) {
        restore = restore.config_file(file);
    }
    for join in &plan.namespaces.join {
        let external = EXTERNAL_NAMESPACES.iter().find(|(kind, ..)| *kind == join.kind);
        restore = match (external, join.kind) {
            (Some((_, _, key)), _) => {
                let fd = join.fd.try_clone().context("copy a descriptor")?;
                restore.inherit(key.as_bytes(), fd)
            }
            (None, LinuxNamespaceType::Cgroup) => {
                return Err(Error::unsupported("restore: criu does not join a cgroup namespace"));
            }
            (None, kind) => restore.join_namespace(word_of(kind), &join.path),
        };
    }
    for (destination, source) in shown_from_host(&plan.rootfs, &plan.namespaces, cgroup)? {
        restore = restore.external_mount(key_of(&destination).as_bytes(), source.as_os_str().as_encoded_bytes());
    }
    if !plan.rootfs.masked_paths.is_empty() {
        restore = restore.external_mount(NULL_KEY.as_bytes(), b"/dev/null");
    }
    let names = request.options.image_path.join(DESCRIPTORS_FILE);
    let names: Vec<String> = File::open(&names)
        .context("open")
        .and_then(|file| Ok(serde_json::from_reader(file)?))
        .with_context(|| format!("read {}", names.display()))?;
    for (number, name) in (0..3).zip(&names) {
        if name.contains("pipe:") {
            restore = restore.inherit_number(name.as_bytes(), number);
        }
    }
    Ok(restore)
}

/// CRIU's words for namespaces.
fn word_of(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Time => "time",
    }
}

/// Adds the time namespace that CRIU gives to all that it restores, so that clocks go on where they were. `exec` enters
/// what the configuration names, and CRIU saves no container whose processes have different ones.
fn with_time_namespace<'a>(spec: &'a Spec, proc: &HostProc, pid: i32) -> Result<Cow<'a, Spec>> {
    let inode = |who: &str| {
        let path = format!("{who}/ns/time");
        match rustix::fs::statat(proc, &path, AtFlags::empty()) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            // KERNEL(5.6): there are none.
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("inspect /proc/{path}")),
        }
    };
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let is_listed = listed.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Time);
    if is_listed || inode("self")? == inode(&pid.to_string())? {
        return Ok(Cow::Borrowed(spec));
    }
    let Some(mut linux) = spec.linux().clone() else { return Ok(Cow::Borrowed(spec)) };
    let mut spec = spec.clone();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let mut time = LinuxNamespace::default();
    time.set_typ(LinuxNamespaceType::Time);
    namespaces.push(time);
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux));
    Ok(Cow::Owned(spec))
}

fn hand_over(request: &container::Request<'_>, running: &mut Running) -> Result<()> {
    running.directory.save(&running.state)?;
    let spec = with_time_namespace(request.spec.spec(), &HostProc::open()?, running.state.pid)?;
    running.directory.write_config(&spec)?;
    running.directory.publish_config()?;
    let wanted = HandOver { console_socket: request.console_socket, pidfd_socket: None, pid_file: request.pid_file };
    wanted.serve(&mut running.init)
}

/// The root file system as CRIU wants it: a mount, and nothing mounted over what is above it.
struct CriuRoot {
    path: PathBuf,
}

impl CriuRoot {
    /// Makes the places that mounts need, then attaches a copy of the root file system.
    fn attach(plan: &Plan, directory: &StateDirectory) -> Result<Self> {
        let RootSource::Directory(source, _) = &plan.rootfs.root else {
            return Err(Error::unsupported("restore: a root file system that is a mount of the configuration"));
        };
        let path = directory.make_criu_root()?;
        let attach = || -> Result<(Self, Root)> {
            let tree = open_root_tree(source)?;
            let change = Change { propagation: PRIVATE, ..Change::default() };
            mount_setattr(&tree, Reach::Tree, &change).context("make the root file system private")?;
            mount::attach(&tree, Root::open(&path)?).with_context(|| format!("mount {}", source.display()))?;
            Ok((Self { path: path.clone() }, Root::from_fd(tree)))
        };
        let (guard, root) = attach()?;
        make_places(&root, &plan.rootfs.mounts)?;
        // What was bound to make places inside is not for CRIU to find.
        drop(guard);
        Ok(attach()?.0)
    }
}

/// `MS_PRIVATE` of mount(2).
const PRIVATE: u64 = 1 << 18;

impl Drop for CriuRoot {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Makes what the mounts are mounted on, where that is not itself in a file system that CRIU restores.
fn make_places(root: &Root, mounts: &[MountPlan]) -> Result<()> {
    let is_made_by_criu = |path: &Path| {
        mounts.iter().any(|other| {
            matches!(other.source, MountSource::New { .. } | MountSource::Cgroup)
                && path != other.destination
                && path.starts_with(&other.destination)
        })
    };
    // It is the places that count here; criu mounts what they are for.
    let aid = Aid { processes: None, map_ids: &|_| Ok(()) };
    for entry in mounts {
        if is_made_by_criu(&entry.destination) {
            continue;
        }
        match &entry.source {
            // In what is bound there are places to make, too.
            MountSource::Bind { .. } => drop(mount::mount(root, entry, &aid)?),
            MountSource::New { .. } => {
                let options = MountOptions::default();
                drop(mount::open_target(root, &entry.destination, FileType::Directory, &options)?);
            }
            MountSource::Cgroup | MountSource::Remount { .. } => {}
        }
    }
    Ok(())
}
