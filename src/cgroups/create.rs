//! Makes the cgroups of a plan and writes their limits.
//!
//! Takes away what it made itself when a later part fails, and nothing else. Puts no process into a cgroup.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Uid};

use super::adopt::Adoption;
use super::file;
use super::handle::{Cgroup, Directory, Record, move_process};
use super::plan::{DEVICES, Place, Plan, Tolerance, Warning, collect_fields};
use super::setting::{self, Refusal, Setting};
use super::tree;
use crate::error::{Context, Error, IntoError as _, Kind, Result};
use crate::sys::bpf::{self, Instruction};

/// What a container's statistics need, whether it has limits or not.
const USUAL_CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

const DELEGATION_HINT: &str =
    "enable cgroup delegation for this user (Delegate=yes for user@.service on a host with systemd and cgroup v2)";

/// How long the kernel may take to let go of a process that has just been killed.
const UNDO_PATIENCE: Duration = Duration::from_millis(200);

/// Where processes go that stand in the way of controllers; Docker's own image for this, `dind`, calls it so.
const OWN_LEAF: &str = "init";

/// How many times a parent may vanish between making it and making its child.
const MAKE_TRIES: usize = 8;

impl Plan {
    /// Makes everything at once.
    pub fn create(self) -> Result<(Cgroup, Vec<Warning>)> {
        let mut begun = self.begin()?;
        begun.finish()?;
        Ok(begun.keep())
    }

    /// Makes what has to be there before the container's process is cloned: its cgroup on v2, with its limits.
    ///
    /// v1 hierarchies can wait until the process has been cloned, and be made while it sets up its mounts: it enters
    /// them by itself, see [`Cgroup::entrances`].
    ///
    /// Nothing of what systemd makes can be there before the process: see [`Begun::adopt`].
    pub fn begin(mut self) -> Result<Begun> {
        let mut making = Making::new(&self);
        let mut cgroup = Cgroup { unified: None, unified_fd: None, legacy: Vec::new(), scope: None, adopts: false };
        if self.scope.is_some() {
            let Record { directories, scope } = self.record();
            let (legacy, unified): (Vec<_>, Vec<_>) =
                directories.into_iter().partition(|directory| !directory.controllers.is_empty());
            cgroup = Cgroup { unified: unified.into_iter().next(), legacy, scope, adopts: true, ..cgroup };
        } else if let Some(place) = self.unified.take()
            && let Some((directory, fd)) =
                making.make_unified(&place, self.filter.as_deref(), self.legacy.is_empty())?
        {
            cgroup.unified = Some(directory);
            cgroup.unified_fd = Some(fd);
        }
        let adoption = RefCell::new(Adoption::new(&mut self));
        Ok(Begun { plan: self, making, cgroup, adoption })
    }
}

/// A plan on its way to be carried out.
///
/// Dropping it takes away again what was made. Whoever has put a process in by then ends that process first.
pub struct Begun {
    plan: Plan,
    making: Making,
    cgroup: Cgroup,
    adoption: RefCell<Option<Adoption>>,
}

impl Begun {
    /// Gives what there is so far: the v2 cgroup at first, all of them after [`Begun::finish`].
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Has systemd make the cgroups around a process, and puts the limits on them. Does nothing where husk makes them.
    pub fn adopt(&self, pid: Pid) -> Result<()> {
        match &mut *self.adoption.borrow_mut() {
            Some(adoption) => adoption.run(pid),
            None => Ok(()),
        }
    }

    /// Makes the cgroups in v1 hierarchies, with their limits.
    pub fn finish(&mut self) -> Result<()> {
        self.cgroup.legacy.reserve_exact(self.plan.legacy.len());
        for place in std::mem::take(&mut self.plan.legacy) {
            if self.making.make_legacy(&place)? {
                self.cgroup.legacy.push(Directory::of(place));
            }
        }
        let lost = std::mem::take(&mut self.making.lost);
        self.plan.warn_of_loss("permission is missing", &lost, Some(DELEGATION_HINT));
        Ok(())
    }

    /// Lets the cgroups outlast this.
    pub fn keep(mut self) -> (Cgroup, Vec<Warning>) {
        self.making.made.keep();
        if let Some(adoption) = self.adoption.take() {
            self.plan.warn_of_loss("permission is missing", &adoption.keep(), Some(DELEGATION_HINT));
        }
        (self.cgroup, self.plan.warnings)
    }
}

/// Directories made so far, which vanish with this.
#[derive(Default)]
pub(super) struct Made {
    /// The container's own.
    leaves: Vec<PathBuf>,
    parents: Vec<PathBuf>,
}

impl Made {
    pub(super) fn keep(&mut self) {
        self.leaves.clear();
        self.parents.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // What fails here fails on the way out of another failure, which is the one to report.
        for path in &self.leaves {
            let _ = tree::remove(path, UNDO_PATIENCE);
        }
        for path in self.parents.iter().rev() {
            // Somebody may have moved into a parent meanwhile, which then stays.
            let _ = rustix::fs::rmdir(path);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Made,
    Found,
}

pub(super) struct Making {
    pub(super) made: Made,
    /// Fields of limits that will not be had.
    pub(super) lost: Vec<&'static str>,
    delegate_to: Option<u32>,
    tolerance: Tolerance,
}

impl Making {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { made: Made::default(), lost: Vec::new(), delegate_to: plan.delegate_to, tolerance: plan.tolerance }
    }

    fn make_unified(
        &mut self,
        place: &Place,
        filter: Option<&[Instruction]>,
        is_pure: bool,
    ) -> Result<Option<(Directory, OwnedFd)>> {
        let Some(origin) = self.make(place)? else { return Ok(None) };
        let fd = self.equip_unified(place, filter, is_pure, origin.into())?;
        Ok(Some((Directory::of(place.clone()), fd)))
    }

    /// Puts controllers, limits and the device filter on a v2 cgroup that is there.
    pub(super) fn equip_unified(
        &mut self,
        place: &Place,
        filter: Option<&[Instruction]>,
        is_pure: bool,
        before: Before,
    ) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&place.path, flags, Mode::empty())
            .with_context(|| format!("open cgroup {}", place.path.display()))?;
        enable_controllers(place, is_pure);
        self.write_limits(place)?;
        if let Some(filter) = filter {
            let answer = filter_devices(fd.as_fd(), filter, before);
            let denied = self.tolerance == Tolerance::WarnWhenDenied
                && matches!(answer, Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS));
            if !denied {
                answer
                    .with_context(|| format!("attach the device filter to {}", place.path.display()))
                    .context("set linux.resources.devices")?;
            }
        }
        if let Some(owner) = self.delegate_to {
            let answer = delegate(&place.path, owner);
            // An ordinary user has nobody to give it to but itself.
            if self.tolerance == Tolerance::Require || answer != Err(Errno::PERM) {
                answer.with_context(|| format!("give {} to user {owner}", place.path.display()))?;
            }
        }
        Ok(fd)
    }

    /// Makes a cgroup of v1; says whether it may be had.
    fn make_legacy(&mut self, place: &Place) -> Result<bool> {
        let Some(origin) = self.make(place)? else { return Ok(false) };
        self.equip_legacy(place, origin).map(|()| true)
    }

    /// Puts limits on a v1 cgroup that is there.
    pub(super) fn equip_legacy(&mut self, place: &Place, origin: Origin) -> Result<()> {
        if place.has("cpuset") {
            let asked = |file| place.steps.iter().flatten().any(|setting| setting.file == file);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !asked(file) {
                    inherit(place, file, origin)?;
                }
            }
        }
        self.write_limits(place)
    }

    fn make(&mut self, place: &Place) -> Result<Option<Origin>> {
        match self.make_directory(&place.path, &place.mount) {
            Ok(Origin::Made) => {
                // It was the last to be made.
                self.made.leaves.extend(self.made.parents.pop());
                Ok(Some(Origin::Made))
            }
            Ok(Origin::Found) => check_idle(place).map(|()| Some(Origin::Found)),
            Err(errno) if self.tolerance == Tolerance::WarnWhenDenied && is_denial(errno) => {
                collect_fields(&place.steps, &mut self.lost);
                self.lost.retain(|field| *field != DEVICES);
                Ok(None)
            }
            Err(errno) => {
                let error = errno.into_error().context(format!("make cgroup {}", place.path.display()));
                Err(if is_denial(errno) { error.with_hint(DELEGATION_HINT) } else { error })
            }
        }
    }

    /// Makes a directory that somebody else may have made already and be in.
    pub(super) fn make_or_find(&mut self, place: &Place) -> Result<Origin> {
        let origin = self
            .make_directory(&place.path, &place.mount)
            .with_context(|| format!("make cgroup {}", place.path.display()))?;
        if origin == Origin::Made {
            self.made.leaves.extend(self.made.parents.pop());
        }
        Ok(origin)
    }

    /// Makes a directory, and those above it if they are missing. Usually one system call.
    fn make_directory(&mut self, path: &Path, mount: &Path) -> Result<Origin, Errno> {
        for _ in 0..MAKE_TRIES {
            match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    self.made.parents.push(path.to_owned());
                    return Ok(Origin::Made);
                }
                Err(Errno::EXIST) => return Ok(Origin::Found),
                // The parent is missing, or has just been taken away by another container's end.
                Err(Errno::NOENT) if path != mount => {
                    self.make_directory(path.parent().ok_or(Errno::NOENT)?, mount)?;
                }
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::NOENT)
    }

    fn write_limits(&mut self, place: &Place) -> Result<()> {
        let mut path = place.path.clone();
        for step in &place.steps {
            let mut answer = setting::apply(step, &mut path);
            // v1 refuses what the cpuset above does not have, which is everything while that one is empty.
            let is_cpuset = !place.controllers.is_empty() && step[0].file.starts_with("cpuset.");
            if answer.is_err() && is_cpuset && fill_parents(place, &step[0])? {
                answer = setting::apply(step, &mut path);
            }
            let Err(refusal) = answer else { continue };
            if self.tolerance == Tolerance::WarnWhenDenied && is_loss(&refusal) {
                if refusal.setting.field != DEVICES {
                    self.lost.push(refusal.setting.field);
                }
                continue;
            }
            let error = refusal.explain(&path);
            return Err(if is_denial(refusal.errno) { error.with_hint(DELEGATION_HINT) } else { error });
        }
        Ok(())
    }
}

/// Gives a v2 cgroup to a user: the directory and the files that the kernel names for this, not the limits.
fn delegate(cgroup: &Path, owner: u32) -> Result<(), Errno> {
    // Since 4.15; these three are those of cgroups(7).
    let names = file::read_value(Path::new("/sys/kernel/cgroup/delegate"))
        .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads".to_owned());
    let give = |path: &Path| rustix::fs::chown(path, Some(Uid::from_raw(owner)), None);
    give(cgroup)?;
    for name in names.lines().filter(|name| !name.contains('/')) {
        match give(&cgroup.join(name)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn is_denial(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::ACCESS | Errno::ROFS)
}

/// Says whether a setting failed for want of permission, be it to the file or to the controller behind it.
fn is_loss(refusal: &Refusal<'_>) -> bool {
    is_denial(refusal.errno) || refusal.errno == Errno::NOENT
}

/// Refuses a cgroup that somebody else is using. One that a crash left behind is as good as new.
fn check_idle(place: &Place) -> Result<()> {
    let at = || format!("cgroup {}", place.path.display());
    let count = tree::processes(&place.path).with_context(at)?.len();
    if count > 0 {
        // runc's words.
        let cause = Error::new(Kind::Exists, format!("container's cgroup is not empty: {count} process(es) found"));
        return Err(cause.context(at()));
    }
    let frozen = match (&*place.controllers, place.has("freezer")) {
        ("", _) => file::read_value(&place.path.join("cgroup.freeze")).is_ok_and(|value| value == "1"),
        (_, true) => file::read_value(&place.path.join("freezer.state")).is_ok_and(|value| value != "THAWED"),
        _ => false,
    };
    if frozen {
        return Err(Error::new(Kind::Exists, "container's cgroup unexpectedly frozen").context(at()));
    }
    Ok(())
}

/// Gives a v1 cpuset what the one above it has: a fresh one is empty, and no process may enter it.
fn inherit(place: &Place, file: &str, origin: Origin) -> Result<()> {
    let answer = match (origin, place.path.parent()) {
        (Origin::Made, Some(parent)) => {
            fill(parent, &place.mount, file).and_then(|value| file::try_write(&place.path.join(file), &value))
        }
        _ => fill(&place.path, &place.mount, file).map(drop),
    };
    answer.with_context(|| format!("give {} the {file} of the cgroup above", place.path.display()))
}

/// Fills a cpuset file that is empty from the directory above, as far up as needed; gives what it holds.
fn fill(directory: &Path, mount: &Path, file: &str) -> Result<String, Errno> {
    let path = directory.join(file);
    let value = file::read_value(&path)?;
    match directory.parent() {
        Some(parent) if value.is_empty() && directory != mount => {
            let value = fill(parent, mount, file)?;
            file::try_write(&path, &value)?;
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// Fills the cpusets above; says whether that changed anything.
fn fill_parents(place: &Place, setting: &Setting) -> Result<bool> {
    let Some(parent) = place.path.parent().filter(|parent| parent.starts_with(&place.mount)) else { return Ok(false) };
    let was_empty = file::read_value(&parent.join(&*setting.file)).is_ok_and(|value| value.is_empty());
    if was_empty {
        fill(parent, &place.mount, &setting.file)
            .with_context(|| format!("give {} the {} of the cgroup above", parent.display(), setting.file))?;
    }
    Ok(was_empty)
}

/// Lets the controllers through to the container's v2 cgroup, from the top down.
///
/// Failures are not reported here: a controller that stays out of reach shows when a limit of it is written, and
/// without one nobody misses it. Usually the first read says that there is nothing to do.
fn enable_controllers(place: &Place, is_pure: bool) {
    let mut wanted: Vec<&str> = if is_pure { USUAL_CONTROLLERS.to_vec() } else { Vec::new() };
    for setting in place.steps.iter().flatten() {
        let controller = setting.file.split('.').next().unwrap_or_default();
        if controller != "cgroup" && !wanted.contains(&controller) {
            wanted.push(controller);
        }
    }
    if wanted.is_empty() {
        return;
    }
    let list = |directory: &Path| file::read_value(&directory.join("cgroup.controllers")).unwrap_or_default();
    let enabled = list(&place.path);
    let is_enabled = |name: &str| enabled.split(' ').any(|controller| controller == name);
    if wanted.iter().all(|name| is_enabled(name)) {
        return;
    }
    let offered = list(&place.mount);
    // On pure v2 all of them, as peers do: an engine may ask for figures later.
    let missing: Vec<&str> =
        offered.split_whitespace().filter(|name| !is_enabled(name) && (is_pure || wanted.contains(name))).collect();
    if missing.is_empty() {
        return;
    }
    let mut above: Vec<&Path> =
        place.path.ancestors().skip(1).take_while(|path| path.starts_with(&place.mount)).collect();
    above.reverse();
    for directory in above {
        let path = directory.join("cgroup.subtree_control");
        // What was kept back further up would spoil the rest of the write.
        let here = list(directory);
        let missing: Vec<String> = missing
            .iter()
            .filter(|name| here.split(' ').any(|controller| controller == **name))
            .map(|name| format!("+{name}"))
            .collect();
        let mut answer = file::try_write(&path, &missing.join(" "));
        if answer == Err(Errno::BUSY) && directory == place.own && is_ours(place) {
            answer = vacate(directory).and_then(|()| file::try_write(&path, &missing.join(" ")));
        }
        // All or nothing in one write; singly, so that one that is refused keeps no other out. But not beside processes: a
        // threaded controller would be let through, and make what is below no place for processes.
        if answer.is_err_and(|errno| errno != Errno::BUSY) && missing.len() > 1 {
            for controller in &missing {
                let _ = file::try_write(&path, controller);
            }
        }
    }
}

/// Says whether the caller's own cgroup is the caller's to divide: the top of a container's view, or one that was
/// delegated (cgroups(7), "Cgroup delegation": to a user by its owner; to root systemd says so by a mark, since 251).
fn is_ours(place: &Place) -> bool {
    let user = rustix::process::geteuid();
    if !user.is_root() {
        return rustix::fs::stat(&place.own).is_ok_and(|stat| stat.st_uid == user.as_raw());
    }
    let is_marked = |name: &str| {
        let mut value = [0; 1];
        rustix::fs::getxattr(&place.own, name, &mut value[..]).is_ok_and(|length| value[..length] == *b"1")
    };
    place.own == place.mount || is_marked("user.delegate") || is_marked("trusted.delegate")
}

/// Moves everybody out of a cgroup into a leaf below it: v2 lets no controller through to the children of a cgroup that
/// has processes (cgroups(7), "The no internal processes rule"). Inside containers that is where one usually stands.
fn vacate(directory: &Path) -> Result<(), Errno> {
    let leaf = directory.join(OWN_LEAF);
    match rustix::fs::mkdir(&leaf, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // Who forks meanwhile is there in the next round.
    for _ in 0..MAKE_TRIES {
        let text = file::read_value(&directory.join("cgroup.procs"))?;
        let pids = text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw));
        let mut is_empty = true;
        for pid in pids {
            is_empty = false;
            match move_process(&leaf, pid) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
        if is_empty {
            break;
        }
    }
    Ok(())
}

/// Puts the device filter on a v2 cgroup in place of those that are there.
///
/// The new one is in force before an old one goes, so that there is no moment without.
pub(super) fn filter_devices(cgroup: BorrowedFd<'_>, program: &[Instruction], before: Before) -> Result<(), Errno> {
    let filter = bpf::load_device_filter(program)?;
    let old = match before {
        Before::Nothing => Vec::new(),
        Before::Filters => bpf::device_filters(cgroup)?,
    };
    // Filters pile up to 64 otherwise (runc issue 2366).
    if let [only] = &old[..] {
        match bpf::attach_device_filter(cgroup, filter.as_fd(), Some(only.as_fd())) {
            // KERNEL(5.6): drop this.
            Err(Errno::INVAL) => {}
            answer => return answer,
        }
    }
    bpf::attach_device_filter(cgroup, filter.as_fd(), None)?;
    old.iter().try_for_each(|old| bpf::detach_device_filter(cgroup, old.as_fd()))
}

/// What a cgroup may have on it already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    Filters,
}

impl From<Origin> for Before {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Made => Self::Nothing,
            Origin::Found => Self::Filters,
        }
    }
}

#[cfg(test)]
mod tests;
