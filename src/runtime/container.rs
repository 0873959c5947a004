//! The verbs: create, run, start, kill, delete, state, list.
//!
//! A container that could not be made leaves nothing: guards remove the state directory and the cgroup, and kill init.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use serde::Serialize;

use super::foreground::{self, End, Exit};
use super::hand_over::{HandOver, check_terminal, hook_state};
use super::notify::{self, NotifySocket};
use super::parent::{self, Init};
use super::plan::{self, Choices, Plan};
use super::state::{
    OCI_VERSION, State, StateDirectory, StateRoot, Status, boot_id, leads_pid_namespace, process_stat, timestamp,
};
use super::{cgroup_view, console, hooks};
use crate::cgroups::{self, Cgroup, Hierarchies, resctrl};
use crate::error::{Context, Error, Kind, Result};
use crate::spec::validate::Validated;
use crate::support::log;
use crate::support::root::Root;
use crate::sys::process::{CloseHow, close_range};
use crate::sys::signal::{self, Signals};

/// How long `delete --force` waits for a killed container to end.
const KILL_TIMEOUT_MILLISECONDS: u32 = 10_000;

/// How long `delete` waits for a container that is being made: what a killed maker has begun ends by itself, soon.
const MAKING_PATIENCE_MILLISECONDS: u32 = 200;

/// Whom `kill` signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillScope {
    /// Init; with SIGKILL everybody, where init's end is not everybody's.
    Init,
    /// Everybody in the container's cgroup.
    Everyone,
}

/// The runtime's settings.
pub struct Runtime {
    /// Where states are kept.
    pub root: StateRoot,
    /// Who makes cgroups.
    pub driver: cgroups::Driver,
    /// Whether limits that cannot be set are an error.
    pub tolerance: cgroups::Tolerance,
}

/// What `create` and `run` are asked for.
#[derive(Clone)]
pub struct Request<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle's absolute path.
    pub bundle: &'a Path,
    /// Its configuration.
    pub spec: &'a Validated,
    /// Flags that reach into the plan.
    pub choices: Choices,
    /// Where the pid is written.
    pub pid_file: Option<&'a Path>,
    /// Where the terminal's master is sent.
    pub console_socket: Option<&'a Path>,
    /// Where init's pidfd is sent.
    pub pidfd_socket: Option<&'a Path>,
    /// The container whose `/dev/shm` this one has.
    pub shared_memory: Option<&'a str>,
    /// The service manager's socket that the workload's READY=1 goes to (sd_notify(3)).
    pub manager: Option<&'a Path>,
    /// What the container's network namespace is joined to.
    pub networks: Option<&'a dyn Networks>,
}

/// The networks of a container that is being made.
pub trait Networks {
    /// Gives the user namespace that the container's own is to be a child of, so that whoever is in that one has rights over
    /// both ends of a link; `None` where it is the caller's.
    fn user_namespace(&self) -> Result<Option<OwnedFd>>;

    /// Joins the container's network namespace to them, before sysctls and hooks that look for them. What this does ends with
    /// the namespace, or is its maker's to clear.
    fn connect(&self, namespace: BorrowedFd<'_>) -> Result<()>;
}

/// Whether the caller stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Init waits for `start`; the caller goes.
    Create,
    /// The workload starts; the caller goes.
    Detached,
    /// The workload starts; the caller stays.
    Foreground,
}

/// A container that was just made.
pub struct Running {
    /// Its first process.
    pub init: Init,
    /// Its record.
    pub state: State,
    /// Things the caller should be told.
    pub warnings: Vec<String>,
    pub(super) directory: StateDirectory,
    pub(super) cgroup: Cgroup,
    pub(super) notify: Option<NotifySocket>,
}

/// What `state` answers (runtime-spec, "State"), with runc's additions.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateDocument {
    /// Version of the specification that this document follows.
    pub oci_version: &'static str,
    /// The container's id.
    pub id: String,
    /// Init's pid; 0 when it has ended.
    pub pid: i32,
    /// Its status in words.
    pub status: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// When it was created.
    pub created: String,
    /// The spec's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Empty here; a user's name in `list`.
    pub owner: String,
    /// User id of who created it.
    #[serde(skip)]
    pub owner_id: u32,
}

impl Runtime {
    /// Makes a container up to where `mode` says.
    pub fn launch(&self, request: &Request<'_>, mode: Mode) -> Result<Running> {
        let process = request.spec.spec().process().as_ref();
        check_terminal(process, request.console_socket.is_some(), mode)?;
        crate::spec::validate::validate_id(request.id)?;
        // What the caller left open is for no hook and no helper; a hook inside the container would be let out by a
        // directory of the host (CVE-2024-21626). Init takes the mark off what the workload is to have.
        close_range(3, CloseHow::OnExec).context("mark descriptors close-on-exec")?;
        let choices = Choices { has_notify_socket: request.manager.is_some(), ..request.choices.clone() };
        let mut plan = plan::plan(request.spec, request.bundle, &choices)?;
        if let Some(id) = request.shared_memory {
            plan.share_memory(self.tree_at(id, super::tree::SHARED_MEMORY)?)?;
        }
        if mode == Mode::Foreground && plan.process.terminal {
            plan.process.console_size = plan.process.console_size.or_else(console::callers_size);
        }
        let spec = request.spec.spec();
        let layout = cgroups::Layout::probe().context("find the cgroup hierarchies")?;
        let linux = spec.linux().as_ref();
        let cgroup_plan = cgroups::plan(
            &layout,
            &cgroups::Request {
                container_id: request.id,
                cgroups_path: linux.and_then(|linux| linux.cgroups_path().as_deref()),
                annotations: spec.annotations().as_ref(),
                resources: linux.and_then(|linux| linux.resources().as_ref()),
                delegate_to: cgroup_view::owner(spec, &plan.namespaces),
                driver: self.driver,
                tolerance: self.tolerance,
            },
        )?;
        let resctrl = match linux.and_then(|linux| linux.intel_rdt().as_ref()) {
            Some(wanted) => Some(resctrl::plan(&resctrl::find()?, request.id, wanted)?),
            None => None,
        };
        let group = resctrl.as_ref().map(|plan| plan.group().clone());
        let directory = RemoveOnDrop(Some(self.claim(request.id)?));
        log::debug(|| format!("container {} of bundle {}", request.id, request.bundle.display()));
        if let Some(networks) = request.networks {
            plan.asks_for_networks = true;
            if let Some(user) = networks.user_namespace()? {
                plan.namespaces.put_below(user);
            }
        }
        if mode == Mode::Create {
            plan.exec_fifo = Some(directory.get().make_exec_fifo()?);
        }
        let mut recorded_spec = Cow::Borrowed(spec);
        if request.manager.is_some() {
            let mount = notify::mount_of(&directory.get().make_notify_directory()?);
            plan.add_mount(&mount)?;
            recorded_spec.to_mut().mounts_mut().get_or_insert_default().push(mount);
        }
        // `start` has a socket of its own.
        let notify = match request.manager.filter(|_| mode != Mode::Create) {
            Some(manager) => {
                let socket = NotifySocket::bind(directory.get().open_notify_directory()?, manager)?;
                socket.publish()?;
                Some(socket)
            }
            None => None,
        };
        // Whoever finds this after a kill knows what there may be to remove.
        let first = Self::template(request, &plan, cgroup_plan.record());
        directory.get().save(&State { hooks: hooks::HookPlan::default(), resctrl: group.clone(), ..first })?;
        log::debug(|| format!("cgroups: {:?}", cgroup_plan.record().cgroup_paths()));
        let mut cgroup = cgroup_plan
            .begin()
            .map_err(|error| name_limits(error, linux.and_then(|linux| linux.resources().as_ref())))?;
        cgroup.finish()?;
        let resctrl = resctrl.map(resctrl::Plan::begin).transpose()?;
        let entrances = cgroup.cgroup().entrances(Hierarchies::Legacy)?;
        let view = cgroup_view::of(&layout, cgroup.cgroup(), &plan.namespaces);
        let template = State { resctrl: group, ..Self::template(request, &plan, cgroup.cgroup().record()) };
        let start_time = Cell::new(0);
        let record = |init: Pid| {
            let pid = init.as_raw_nonzero().get();
            start_time.set(process_stat(pid)?.map_or(0, |stat| stat.start_time));
            directory.get().save(&State { pid, start_time: start_time.get(), ..template.clone() })
        };
        let on_init = |init: Pid| {
            // runc's words, which its users look for: the clone, and what it calls nsexec, is one call here.
            log::debug(|| format!("nsexec container setup: cloned into new namespaces, {:?}", plan.namespaces.stages));
            log::debug(|| format!("child process in init(): process {}", init.as_raw_nonzero()));
            record(init)?;
            cgroup.adopt(init)?;
            if plan.namespaces.joins(LinuxNamespaceType::Cgroup) && cgroup.cgroup().adopts() {
                // From where it is soon, if not now, its cgroups have other names.
                let path = format!("{}/cgroup", init.as_raw_nonzero());
                let text = plan.proc.read(&path).with_context(|| format!("read /proc/{path}"))?;
                cgroup.cgroup().verify(&text)?;
            }
            resctrl.as_ref().map_or(Ok(()), |begun| begun.group().join(init))
        };
        let launched = parent::launch(
            &plan,
            &parent::Surroundings {
                cgroup: cgroup.cgroup(),
                entrances: &entrances,
                view: &view,
                state_for_hooks: &|status, pid| hook_state(&template, status, pid),
                state_for_listener: &|pid| hook_state(&template, "creating", pid),
                on_init: &on_init,
                on_clone: &record,
                networks: request.networks,
                meanwhile: &|| directory.get().write_config(&recorded_spec),
            },
        );
        let init = match launched {
            Ok(init) => init,
            Err(error) => {
                // What the hooks before have set up, these take away (runtime-spec, "Lifecycle" 4-6 and 13).
                drop(cgroup);
                drop(resctrl);
                drop(directory);
                run_poststop(&template);
                return Err(error);
            }
        };
        let pid = init.pid.as_raw_nonzero().get();
        log::debug(|| "init: closing the pipe to signal completion".to_owned());
        directory.get().publish_config()?;
        let (cgroup, warnings) = cgroup.keep();
        plan.warnings.extend(warnings.iter().map(ToString::to_string));
        if let Some(group) = resctrl {
            group.keep();
        }
        let mut running = Running {
            init,
            state: State { pid, start_time: start_time.get(), ..template },
            warnings: std::mem::take(&mut plan.warnings),
            directory: directory.disarm(),
            cgroup,
            notify,
        };
        if let Err(error) = Self::hand_over(request, &mut running) {
            running.kill_and_remove();
            return Err(error);
        }
        if mode == Mode::Detached
            && let Some(mut notify) = running.notify.take()
        {
            // The container runs, whether its manager can be told so or not; runc passes over it, too.
            match notify.wait(running.init.pidfd.as_fd(), pid) {
                Ok(waited) => running.warnings.extend(waited.warning()),
                Err(error) => running.warnings.push(error.report()),
            }
        }
        Ok(running)
    }

    /// Gives callers what they asked for, and runs the hooks of the moment.
    fn hand_over(request: &Request<'_>, running: &mut Running) -> Result<()> {
        let receiver = running.state.annotations.get("run.oci.pidfd_receiver").filter(|path| !path.is_empty());
        let wanted = HandOver {
            console_socket: request.console_socket,
            // crun's annotation for what is runc's flag.
            pidfd_socket: request.pidfd_socket.or_else(|| receiver.map(Path::new)),
            pid_file: request.pid_file,
        };
        wanted.serve(&mut running.init)?;
        if !running.state.hooks.poststart.is_empty() && !running.directory.has_exec_fifo() {
            let state = hook_state(&running.state, "running", running.state.pid);
            let hooks = &running.state.hooks;
            hooks::run("poststart", &hooks.poststart, &state, &hooks.output.open()?)?;
        }
        Ok(())
    }

    /// Takes an id for a container that is to be made. What a maker that was killed has left of one is cleared away first.
    pub(super) fn claim(&self, id: &str) -> Result<StateDirectory> {
        match self.root.create(id) {
            Err(error) if error.kind() == Kind::Exists => {
                let directory = match self.root.open(id) {
                    Err(error) if error.kind() == Kind::NotFound => return self.root.create(id),
                    answer => answer?,
                };
                if !is_left_over(&directory)? {
                    return Err(error);
                }
                match Self::delete_left_over(id, &directory, false) {
                    Ok(Deleted::Yes) => self.root.create(id),
                    _ => Err(error),
                }
            }
            answer => answer,
        }
    }

    /// Opens what is kept of a container; an unknown id is [`Kind::NotFound`].
    pub(super) fn find(&self, id: &str) -> Result<(StateDirectory, State)> {
        let directory = self.root.open(id)?;
        let state = directory.load()?.ok_or_else(|| not_found(id))?;
        Ok((directory, state))
    }

    pub(super) fn template(request: &Request<'_>, plan: &Plan, cgroups: cgroups::Record) -> State {
        let spec = request.spec.spec();
        let root = spec.root().as_ref().map(|root| request.bundle.join(root.path())).unwrap_or_default();
        State {
            id: request.id.to_owned(),
            pid: 0,
            start_time: 0,
            boot: boot_id(),
            created: timestamp(),
            bundle: request.bundle.to_owned(),
            rootfs: root,
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            owner: rustix::process::getuid().as_raw(),
            cgroups: Some(cgroups),
            resctrl: None,
            hooks: plan.hooks.clone(),
            keeps_keyring: !plan.process.has_own_keyring,
        }
    }

    /// Lets a created container's workload begin. With a service manager's socket, waits until the workload is ready, and
    /// says so there. Gives what the caller should be told.
    pub fn start(&self, id: &str, manager: Option<&Path>) -> Result<Option<String>> {
        let (directory, state) = self.find(id)?;
        let status = Self::status(&directory, &state)?;
        let fifo = if status == Status::Created { directory.open_exec_fifo()? } else { None };
        let Some(fifo) = fifo else {
            // runc's words. A created container without anybody in its fifo was started a moment ago.
            let cause = match status {
                Status::Running | Status::Created => "cannot start an already running container".to_owned(),
                Status::Stopped => "cannot start a container that has stopped".to_owned(),
                status => format!("cannot start a container in the {status} state"),
            };
            return Err(Error::new(Kind::State, cause));
        };
        let notify = match manager {
            Some(manager) => Some(NotifySocket::bind(directory.open_notify_directory()?, manager)?),
            None => None,
        };
        // Removed first: of two that start at once, one finds it gone.
        if !directory.remove_exec_fifo()? {
            return Err(Error::new(Kind::State, "cannot start an already running container"));
        }
        if let Some(notify) = &notify {
            notify.publish()?;
        }
        let init = if notify.is_some() { state.open_init()? } else { None };
        rustix::io::write(&fifo, b"0").context("write exec.fifo")?;
        if !state.hooks.poststart.is_empty() {
            let document = hook_state(&state, "running", state.pid);
            let output = state.hooks.output.open();
            let run = |output| hooks::run("poststart", &state.hooks.poststart, &document, &output);
            if let Err(error) = output.and_then(run) {
                // The failure stops the container (runtime-spec 1.3, "Lifecycle" 10); it is the one to tell.
                let _ = kill_and_wait(&state);
                return Err(error);
            }
        }
        match (notify, init) {
            (Some(mut notify), Some(init)) => Ok(notify.wait(init.as_fd(), state.pid)?.warning()),
            _ => Ok(None),
        }
    }

    /// Sends a signal to whom `scope` says.
    pub fn kill(&self, id: &str, number: i32, scope: KillScope) -> Result<()> {
        let (_, state) = self.find(id)?;
        let cgroup = || Cgroup::open(state.cgroups.clone().unwrap_or_default());
        let not_running = || Error::new(Kind::State, "container not running");
        if scope == KillScope::Everyone {
            let cgroup = cgroup()?;
            return match (number, Signal::from_named_raw(number)) {
                (signal::KILL, _) => cgroup.kill_all(),
                (0, _) => Ok(()),
                (_, Some(signal)) => cgroup.signal_all(signal),
                (_, None) => Err(Error::unsupported(format!("send signal {number} to every process"))),
            };
        }
        let Some(init) = state.open_init()? else {
            // Those who shared its PID namespace with the host's may have outlived it.
            let cgroup = cgroup()?;
            return if number == signal::KILL && !cgroup.is_empty()? { cgroup.kill_all() } else { Err(not_running()) };
        };
        let leads = number != signal::KILL || leads_pid_namespace(state.pid)?;
        match signal::send(init.as_fd(), number) {
            Ok(()) if !leads => cgroup()?.kill_all(),
            Ok(()) if number == signal::KILL => {
                // Frozen processes of v1 die when they thaw.
                let cgroup = cgroup()?;
                if cgroup.is_frozen()? { cgroup.thaw() } else { Ok(()) }
            }
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(not_running()),
            Err(errno) => Err(errno).with_context(|| format!("send signal {number} to {id}")),
        }
    }

    /// Opens the root of a running container, as its first process sees it now.
    pub fn open_root(&self, id: &str) -> Result<Root> {
        let (_, state) = self.find(id)?;
        let gone = || Error::new(Kind::State, "container not running");
        let init = state.open_init()?.ok_or_else(gone)?;
        // By way of `.`: the link itself is none of a directory.
        let root = Root::open(Path::new(&format!("/proc/{}/root/.", state.pid)))?;
        // The pid was its own as long as it has not ended.
        match signal::send(init.as_fd(), 0) {
            Ok(()) => Ok(root),
            Err(_) => Err(gone()),
        }
    }

    /// Gives the processes of a container, as this PID namespace numbers them.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        let (_, state) = self.find(id)?;
        let pids = Cgroup::open(state.cgroups.unwrap_or_default())?.processes()?;
        Ok(pids.into_iter().map(|pid| pid.as_raw_nonzero().get()).collect())
    }

    /// Removes a container that has ended; with `force` it is killed first, and an unknown one is nothing to do.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        let directory = match self.root.open(id) {
            Err(error) if error.kind() == Kind::NotFound && force => return Ok(()),
            answer => answer?,
        };
        if is_left_over(&directory)? && Self::delete_left_over(id, &directory, force)? == Deleted::Yes {
            return Ok(());
        }
        let state = directory.load()?.ok_or_else(|| not_found(id))?;
        let status = Self::status(&directory, &state)?;
        match status {
            // Without a PID namespace of its own, others may have outlived init; `destroy` kills them.
            Status::Stopped => {}
            Status::Created => kill_and_wait(&state)?,
            _ if force => kill_and_wait(&state)?,
            _ => return Err(not_stopped(id, status)),
        }
        destroy(&directory, &state)
    }

    /// Removes what there is of a container that is being made, or was not made to the end, unless meanwhile it was.
    fn delete_left_over(id: &str, directory: &StateDirectory, force: bool) -> Result<Deleted> {
        let patience = if force { KILL_TIMEOUT_MILLISECONDS } else { MAKING_PATIENCE_MILLISECONDS };
        let deadline = Instant::now() + Duration::from_millis(patience.into());
        while !directory.try_lock()? {
            if Instant::now() > deadline {
                return Err(not_stopped(id, Status::Creating));
            }
            if let Some(state) = directory.load()?.filter(|_| force) {
                // Its maker sees that, gives up, and clears away what it has made.
                kill_and_wait(&state)?;
            }
            std::thread::sleep(Duration::from_millis(5));
            if !is_left_over(directory)? {
                return Ok(Deleted::No);
            }
        }
        if !directory.is_in_place()? {
            return Ok(Deleted::Yes);
        }
        if !is_left_over(directory)? {
            return Ok(Deleted::No);
        }
        clear(directory).map(|()| Deleted::Yes)
    }

    /// Says what is known of a container.
    pub fn state(&self, id: &str) -> Result<StateDocument> {
        let (directory, state) = self.find(id)?;
        let status = Self::status(&directory, &state)?;
        Ok(document(state, status))
    }

    /// Gives what a container that lives uses, and its init's pid.
    pub fn usage(&self, id: &str) -> Result<(cgroups::stats::Stats, i32)> {
        let (_, state) = self.find(id)?;
        let _init = state.open_init()?.ok_or_else(|| Error::new(Kind::State, "container not running"))?;
        Ok((Cgroup::open(state.cgroups.unwrap_or_default())?.stats()?, state.pid))
    }

    /// Says whether a container is frozen; one that is not there is not.
    pub fn is_paused(&self, id: &str) -> bool {
        self.find(id).is_ok_and(|(_, state)| {
            state
                .cgroups
                .is_some_and(|record| Cgroup::open(record).is_ok_and(|cgroup| cgroup.is_frozen().unwrap_or(false)))
        })
    }

    /// Lists every container, with what is wrong with those that cannot be listed.
    pub fn list(&self) -> Result<(Vec<StateDocument>, Vec<Error>)> {
        let (mut list, mut failures) = (Vec::new(), Vec::new());
        let mut owners: Vec<(u32, String)> = Vec::new();
        for id in self.root.ids()? {
            let (state, status) = match self.find(&id).and_then(|(directory, state)| {
                let status = Self::status(&directory, &state)?;
                Ok((state, status))
            }) {
                Ok(found) => found,
                // Begun this moment, or deleted while we looked.
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => {
                    failures.push(error.context(format!("load container {id}")));
                    continue;
                }
            };
            let owner = state.owner;
            if !owners.iter().any(|(uid, _)| *uid == owner) {
                owners.push((owner, owner_name(owner)));
            }
            let name = owners.iter().find(|(uid, _)| *uid == owner).map(|(_, name)| name.clone());
            list.push(StateDocument { owner: name.unwrap_or_default(), ..document(state, status) });
        }
        Ok((list, failures))
    }

    /// Being made, frozen, ended, waiting or running, in this order.
    pub(super) fn status(directory: &StateDirectory, state: &State) -> Result<Status> {
        if !is_made(directory, state)? {
            // What nobody will finish is as good as stopped: all that can be done with it is to delete it.
            return Ok(if directory.is_locked()? { Status::Creating } else { Status::Stopped });
        }
        if let Some(record) = &state.cgroups
            && Cgroup::open(record.clone()).and_then(|cgroup| cgroup.is_frozen()).unwrap_or(false)
        {
            return Ok(Status::Paused);
        }
        if state.open_init()?.is_none() {
            return Ok(Status::Stopped);
        }
        Ok(if directory.has_exec_fifo() { Status::Created } else { Status::Running })
    }
}

impl Runtime {
    /// Takes over a container whose maker has died; `None` where it has ended, or was not made to the end. Its first process
    /// is nobody's child here: [`foreground::try_learn`] says how it ends.
    pub fn take_over(&self, id: &str) -> Result<Option<Running>> {
        let (directory, state) = match self.find(id) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            answer => answer?,
        };
        if !is_made(&directory, &state)? {
            return Ok(None);
        }
        let (Some(pidfd), Some(pid)) = (state.open_init()?, Pid::from_raw(state.pid)) else { return Ok(None) };
        if !directory.has_config() {
            directory.publish_config()?;
        }
        let cgroup = Cgroup::open(state.cgroups.clone().unwrap_or_default())?;
        let init = Init { pid, pidfd, terminal: None };
        Ok(Some(Running { init, state, warnings: Vec::new(), directory, cgroup, notify: None }))
    }

    /// Says whether a container lives: it was made to the end, and its first process has not ended.
    pub fn lives(&self, id: &str) -> Result<bool> {
        match self.find(id) {
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
            Ok((directory, state)) => Ok(is_made(&directory, &state)? && state.open_init()?.is_some()),
        }
    }
}

impl Running {
    /// Attends to the workload until it ends: signals, and the terminal if there is one.
    pub fn attend(&mut self, signals: &Signals) -> Result<Exit> {
        let Some(notify) = &mut self.notify else { return self.init.attend(signals) };
        let terminal = self.init.terminal.take();
        let pidfd = self.init.pidfd.as_fd();
        let watch = notify.watch(pidfd)?;
        foreground::attend(pidfd, terminal, signals, watch.as_fd(), || {
            // A manager that cannot be told is no reason to leave the container alone.
            let _ = notify.serve();
            Ok(foreground::try_wait(pidfd)?.map_or(End::NotYet, End::Now))
        })
    }

    /// Gives up a container that runs but could not be handed over.
    pub(super) fn kill_and_remove(self) {
        let _ = signal::send(self.init.pidfd.as_fd(), signal::KILL);
        let _ = foreground::wait(&self.init.pidfd);
        let _ = self.remove();
    }

    /// Says what the kernel killed of it for want of memory; where that cannot be told, nothing.
    pub fn out_of_memory(&self) -> Option<cgroups::OutOfMemory> {
        self.cgroup.out_of_memory().ok().flatten()
    }

    /// Tells when to ask that, where the answer may be gone by the end.
    pub fn watch_memory(&self) -> Option<cgroups::MemoryWatch> {
        self.cgroup.watch_memory()
    }

    /// Removes what is kept of a container that has ended.
    pub fn remove(self) -> Result<()> {
        let removed_cgroup = self.cgroup.kill_all().and_then(|()| self.cgroup.delete());
        let removed_group = self.state.resctrl.as_ref().map_or(Ok(()), resctrl::Group::delete);
        let removed = self.directory.remove();
        run_poststop(&self.state);
        removed_cgroup.and(removed_group).and(removed)
    }
}

/// Everything of a container but its process, which has ended.
pub(super) fn destroy(directory: &StateDirectory, state: &State) -> Result<()> {
    let removed_cgroup = match &state.cgroups {
        Some(record) => Cgroup::open(record.clone()).and_then(|cgroup| {
            cgroup.kill_all()?;
            cgroup.delete()
        }),
        None => Ok(()),
    };
    let removed_group = state.resctrl.as_ref().map_or(Ok(()), resctrl::Group::delete);
    let removed = removed_cgroup.and(removed_group).and_then(|()| directory.remove());
    run_poststop(state);
    removed
}

/// Whether there was something to delete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deleted {
    Yes,
    No,
}

/// Says whether a container was made to the end: its maker has said so, or init has got there without it.
fn is_made(directory: &StateDirectory, state: &State) -> Result<bool> {
    Ok(directory.has_config() || state.init_has_left_husk()?)
}

/// Says whether what is kept is not, or not yet, a container.
fn is_left_over(directory: &StateDirectory) -> Result<bool> {
    if directory.has_config() {
        return Ok(false);
    }
    match directory.load()? {
        Some(state) => Ok(!state.init_has_left_husk()?),
        None => Ok(true),
    }
}

/// Removes everything of a container that was not made to the end. Only for who has the directory locked.
fn clear(directory: &StateDirectory) -> Result<()> {
    match directory.load()? {
        Some(state) => kill_and_wait(&state).and_then(|()| destroy(directory, &state)),
        None => directory.remove(),
    }
}

fn not_stopped(id: &str, status: Status) -> Error {
    Error::new(Kind::State, format!("cannot delete container {id} that is not stopped: {status}"))
}

/// A failure is passed over: the container is gone either way (runtime-spec, "Lifecycle" 13).
fn run_poststop(state: &State) {
    if !state.hooks.poststop.is_empty() {
        let document = hook_state(state, "stopped", 0);
        let output = state.hooks.output.open().unwrap_or_default();
        for hook in &state.hooks.poststop {
            let _ = hooks::run("poststop", std::slice::from_ref(hook), &document, &output);
        }
    }
}

fn kill_and_wait(state: &State) -> Result<()> {
    let Some(init) = state.open_init()? else { return Ok(()) };
    match signal::send(init.as_fd(), 9) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(errno).with_context(|| format!("kill process {}", state.pid)),
    }
    if let Some(record) = &state.cgroups {
        // Without a PID namespace of its own, or frozen, init's death is not everybody's.
        let cgroup = Cgroup::open(record.clone())?;
        let _ = cgroup.thaw();
        cgroup.kill_all()?;
    }
    if poll_readable(&init, KILL_TIMEOUT_MILLISECONDS)? {
        return Ok(());
    }
    Err(Error::new(Kind::State, format!("process {} does not end after SIGKILL", state.pid)))
}

fn poll_readable(fd: &OwnedFd, milliseconds: u32) -> Result<bool> {
    let timeout =
        Timespec { tv_sec: i64::from(milliseconds / 1000), tv_nsec: i64::from(milliseconds % 1000) * 1_000_000 };
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for the container"),
        }
    }
}

/// Says which limits are lost where the cgroups for them cannot be made.
pub(super) fn name_limits(error: Error, resources: Option<&LinuxResources>) -> Error {
    let Some(resources) = resources else { return error };
    let asked = [
        ("memory", resources.memory().is_some()),
        ("cpu", resources.cpu().is_some()),
        ("pids", resources.pids().is_some()),
        ("blockIO", resources.block_io().is_some()),
        ("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|list| !list.is_empty())),
    ];
    let names: Vec<&str> = asked.iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| *name).collect();
    if names.is_empty() { error } else { error.context(format!("set limits ({})", names.join(", "))) }
}

fn document(state: State, status: Status) -> StateDocument {
    StateDocument {
        oci_version: OCI_VERSION,
        id: state.id,
        pid: if status == Status::Stopped { 0 } else { state.pid },
        status: status.to_string(),
        bundle: state.bundle,
        rootfs: state.rootfs,
        created: state.created,
        annotations: state.annotations,
        owner: String::new(),
        owner_id: state.owner,
    }
}

/// The user's name, or `#1000` for one without.
pub fn owner_name(uid: u32) -> String {
    match crate::support::passwd::host_user(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("#{uid}"),
    }
}

pub(super) fn not_found(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("container does not exist: {id}"))
}

pub(super) struct RemoveOnDrop(pub(super) Option<StateDirectory>);

impl RemoveOnDrop {
    pub(super) fn get(&self) -> &StateDirectory {
        self.0.as_ref().expect("a guard is disarmed once, by value")
    }

    pub(super) fn disarm(mut self) -> StateDirectory {
        self.0.take().expect("a guard is disarmed once, by value")
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(directory) = self.0.take() {
            let _ = directory.remove();
        }
    }
}
