//! From a request to a plan: which cgroups, and what goes into which file before a process may enter.
//!
//! Everything that can be wrong in a request is found here, before anything is touched. Reads and makes nothing.

use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::devices::Rules;
use super::handle::{Directory, Record};
use super::layout::{Hierarchy, Layout, Mode};
use super::setting::{Setting, Step};
use super::systemd::{self, Manager, Owner, Properties, Scope, Unit};
use super::values::Controller;
use super::{legacy, unified};
use crate::error::{Error, Result};
use crate::sys::bpf::Instruction;

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// We do, with mkdir.
    Cgroupfs,
    /// systemd does, as scopes.
    Systemd,
    /// Nobody: the container stays in the cgroup of its caller.
    Disabled,
}

/// What to do where permission is missing.
///
/// Under the name `runc`, going without is for callers that left `cgroupsPath` out: one that names a cgroup means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Fail.
    Require,
    /// Go without, and say which limits are lost. For ordinary users.
    WarnWhenDenied,
}

/// What is asked for.
pub struct Request<'a> {
    pub container_id: &'a str,
    /// `linux.cgroupsPath`: absolute is below the mount point of each hierarchy, relative below the caller's own
    /// cgroup (on v2 beside it, since a cgroup with processes can't have children with limits). Without one it is the
    /// container's id, relative. With systemd it is `slice:prefix:name`.
    pub cgroups_path: Option<&'a Path>,
    /// The container's annotations, some of which are about its cgroup.
    pub annotations: Option<&'a HashMap<String, String>>,
    pub resources: Option<&'a LinuxResources>,
    /// The user, as the host numbers users, who is to make cgroups below the container's on v2: where the container sees
    /// its own as the top, and may write there.
    pub delegate_to: Option<u32>,
    pub driver: Driver,
    pub tolerance: Tolerance,
}

/// Something that was asked for and will not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    message: String,
    hint: Option<&'static str>,
}

impl Warning {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// Gives the way out, where there is one.
    pub fn hint(&self) -> Option<&str> {
        self.hint
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A cgroup to be made in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) controllers: String,
    pub(super) mount: PathBuf,
    pub(super) path: PathBuf,
    /// The same cgroup as `/proc/PID/cgroup` shows it.
    pub(super) shown: String,
    /// The caller's own.
    pub(super) own: PathBuf,
    pub(super) steps: Vec<Step>,
}

impl Place {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }
}

/// What will be made, computed and checked.
pub struct Plan {
    pub(super) unified: Option<Place>,
    pub(super) legacy: Vec<Place>,
    /// The device filter for v2.
    pub(super) filter: Option<Vec<Instruction>>,
    /// What systemd is to be asked for; nothing where husk makes the cgroups itself.
    pub(super) scope: Option<ScopePlan>,
    pub(super) delegate_to: Option<u32>,
    pub(super) tolerance: Tolerance,
    pub(super) warnings: Vec<Warning>,
}

/// A scope to be asked for.
pub(super) struct ScopePlan {
    pub(super) scope: Scope,
    pub(super) slice: String,
    pub(super) container_id: String,
    pub(super) manager: Manager,
    version: u32,
    /// What annotations ask for.
    pub(super) annotated: Properties,
    /// Limits and devices.
    pub(super) limits: Properties,
}

impl Plan {
    /// Gives what will find the cgroups, before they are made.
    pub fn record(&self) -> Record {
        let places = self.legacy.iter().chain(&self.unified).cloned();
        let scope = self.scope.as_ref().map(|plan| plan.scope.clone());
        Record { directories: places.map(Directory::of).collect(), scope }
    }
}

/// Computes what a request means on this host.
pub fn plan(layout: &Layout, request: &Request<'_>) -> Result<Plan> {
    let Request { container_id, cgroups_path, annotations, resources, delegate_to, driver, tolerance } = *request;
    let mut plan = Plan {
        unified: None,
        legacy: Vec::new(),
        filter: None,
        scope: None,
        delegate_to,
        tolerance,
        warnings: Vec::new(),
    };
    for name in UNSUPPORTED {
        if annotations.is_some_and(|annotations| annotations.contains_key(name)) {
            return Err(Error::unsupported(format!("annotation {name}: not supported by this version of husk")));
        }
    }
    if driver == Driver::Disabled {
        let lost = resources.map(asked_for).transpose()?.unwrap_or_default();
        plan.warn_of_loss("cgroups are disabled", &lost, None);
        return Ok(plan);
    }
    if layout.mode() == Mode::Absent {
        return plan.without_any_hierarchy(resources);
    }
    let path = match driver {
        Driver::Systemd => {
            let (path, scope) = plan_scope(layout, cgroups_path, container_id, annotations)?;
            plan.scope = Some(scope);
            path
        }
        _ => CgroupPath::new(cgroups_path, container_id)?,
    };
    plan.legacy = layout.legacy.iter().map(|hierarchy| path.below(hierarchy, hierarchy.own_below_mount())).collect();
    plan.unified = layout.unified.as_ref().map(|hierarchy| {
        let own = hierarchy.own_below_mount();
        let beside =
            if layout.mode() == Mode::Unified { own.rsplit_once('/').map_or("", |(above, _)| above) } else { own };
        path.below(hierarchy, beside)
    });
    if let Some(resources) = resources {
        plan.add_limits(resources)?;
    }
    plan.add_devices(resources)?;
    plan.add_properties(resources)?;
    Ok(plan)
}

/// crun's: a cgroup below the scope for the processes, so that they may make more beside it.
const SUBGROUP: &str = "run.oci.systemd.subgroup";

/// crun's too: passed over, the container would have another cgroup than it was made for.
const UNSUPPORTED: [&str; 2] = ["run.oci.delegate-cgroup", "run.oci.systemd.force_cgroup_v1"];

/// Finds out which scope is to be asked for, from whom, and where it will be.
fn plan_scope(
    layout: &Layout,
    cgroups_path: Option<&Path>,
    container_id: &str,
    annotations: Option<&HashMap<String, String>>,
) -> Result<(CgroupPath, ScopePlan)> {
    let manager_owner = Owner::of_caller();
    if manager_owner == Owner::User && layout.mode() != Mode::Unified {
        // runc's words. On v1 nothing is ever delegated to users.
        return Err(Error::unsupported(
            "cgroup v2 not enabled on this host, can't use systemd (rootless) as cgroups manager",
        ));
    }
    let unit = Unit::new(cgroups_path, container_id, manager_owner)?;
    let annotated = systemd::annotated(annotations)?;
    let subgroup = annotations.and_then(|annotations| annotations.get(SUBGROUP)).map(String::as_str);
    let subgroup = match subgroup.filter(|subgroup| !subgroup.trim_matches('/').is_empty()) {
        Some(subgroup) => below(subgroup).map_err(|error| error.context(format!("annotation {SUBGROUP}")))?,
        None => String::new(),
    };
    let mut manager = Manager::connect(manager_owner)?;
    let (version, top) = manager.describe()?;
    let path = Path::new("/").join(top.trim_matches('/')).join(unit.cgroup()?.trim_matches('/')).join(&subgroup);
    let path = CgroupPath::new(Some(&path), container_id)?;
    let scope = Scope { name: unit.name, manager: manager_owner, subgroup };
    let container_id = container_id.to_owned();
    let limits = Properties::new();
    Ok((path, ScopePlan { scope, slice: unit.slice, container_id, manager, version, annotated, limits }))
}

/// Checks a path that is to stay below another.
pub(super) fn below(path: &str) -> Result<String> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.extend(name.to_str()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(Error::invalid(format!("`{path}` climbs with `..`"))),
        }
    }
    Ok(parts.join("/"))
}

/// Says which limits a request names, with the fields that count as limits of v2.
fn asked_for(resources: &LinuxResources) -> Result<Vec<&'static str>> {
    let mut ignored = Vec::new();
    let mut fields = Vec::new();
    for controller in Controller::ALL {
        collect_fields(&legacy::steps(controller, resources, &mut ignored)?, &mut fields);
    }
    collect_fields(&unified::named(resources)?, &mut fields);
    Ok(fields)
}

pub(super) fn collect_fields(steps: &[Step], fields: &mut Vec<&'static str>) {
    for setting in steps.iter().flatten() {
        if !fields.contains(&setting.field) {
            fields.push(setting.field);
        }
    }
}

/// Gives each hierarchy the settings of the controllers that it holds; `missing` hears of what has nowhere to go.
pub(super) fn distribute(
    resources: &LinuxResources,
    places: &mut Places<'_>,
    current: unified::Current<'_>,
    warnings: &mut Vec<Warning>,
    missing: &mut dyn FnMut(Controller, Vec<Step>) -> Result<()>,
) -> Result<()> {
    let pure = places.legacy.is_empty();
    for controller in Controller::ALL {
        let holder = places
            .legacy
            .iter()
            .position(|(controllers, _)| controllers.split(',').any(|name| name == controller.legacy_name()));
        if let Some(holder) = holder {
            places.legacy[holder].1.extend(legacy::steps(controller, resources, warnings)?);
        } else if let (Some(steps), true) = (&mut places.unified, pure || controller.is_on_unified()) {
            // On a hybrid host a controller that no v1 hierarchy has taken is with v2.
            steps.extend(unified::steps(controller, resources, current, warnings)?);
        } else {
            let steps = legacy::steps(controller, resources, warnings)?;
            if !steps.is_empty() {
                missing(controller, steps)?;
            }
        }
    }
    let named = unified::named(resources)?;
    match &mut places.unified {
        Some(steps) if pure => steps.extend(named),
        _ if named.is_empty() => {}
        // runc's words.
        _ => {
            return Err(Error::unsupported(
                "linux.resources.unified: invalid configuration: cannot use unified on cgroup v1",
            ));
        }
    }
    Ok(())
}

/// Where the settings of the controllers are collected: one list a hierarchy.
pub(super) struct Places<'a> {
    pub(super) legacy: Vec<(&'a str, &'a mut Vec<Step>)>,
    pub(super) unified: Option<&'a mut Vec<Step>>,
}

impl Plan {
    fn without_any_hierarchy(mut self, resources: Option<&LinuxResources>) -> Result<Self> {
        let cause = "no cgroup hierarchy is mounted";
        if self.tolerance == Tolerance::Require {
            return Err(Error::unsupported(cause).with_hint("mount cgroup2 on /sys/fs/cgroup"));
        }
        let lost = resources.map(asked_for).transpose()?.unwrap_or_default();
        self.warn_of_loss(cause, &lost, None);
        Ok(self)
    }

    fn add_limits(&mut self, resources: &LinuxResources) -> Result<()> {
        let tolerance = self.tolerance;
        let mut lost = Vec::new();
        let mut places = Places {
            legacy: self.legacy.iter_mut().map(|place| (&*place.controllers, &mut place.steps)).collect(),
            unified: self.unified.as_mut().map(|place| &mut place.steps),
        };
        let missing = &mut |controller: Controller, steps: Vec<Step>| {
            collect_fields(&steps, &mut lost);
            let field = steps[0][0].field;
            match tolerance {
                Tolerance::WarnWhenDenied => Ok(()),
                Tolerance::Require => Err(Error::unsupported(format!(
                    "linux.resources.{field}: the {} controller is not mounted",
                    controller.legacy_name()
                ))),
            }
        };
        distribute(resources, &mut places, &|_| None, &mut self.warnings, missing)?;
        self.warn_of_loss("the host has no controllers for them", &lost, None);
        Ok(())
    }

    /// Puts the device rules where the host has them. A container without device rules could open the host's disks, so
    /// that there are always some, and nowhere to put them is an error.
    fn add_devices(&mut self, resources: Option<&LinuxResources>) -> Result<()> {
        let entries = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
        let rules = Rules::from_spec(entries)?;
        let holder = self.legacy.iter_mut().find(|place| place.has("devices"));
        if let Some(place) = holder {
            let lists = rules.lists()?;
            let (default, exceptions) = if lists.allow_by_default {
                ("devices.allow", "devices.deny")
            } else {
                ("devices.deny", "devices.allow")
            };
            place.steps.push(vec![Setting::new(DEVICES, default, "a")]);
            if !lists.exceptions.is_empty() {
                place.steps.push(vec![Setting::new(DEVICES, exceptions, lists.exceptions)]);
            }
        } else if self.unified.is_some() {
            self.filter = Some(rules.program());
        } else if self.tolerance == Tolerance::Require {
            return Err(Error::unsupported("linux.resources.devices: the devices controller is not mounted"));
        }
        Ok(())
    }

    /// Tells systemd of the limits and the devices, too.
    fn add_properties(&mut self, resources: Option<&LinuxResources>) -> Result<()> {
        let Some(scope) = &mut self.scope else { return Ok(()) };
        for place in self.legacy.iter_mut().chain(&mut self.unified) {
            scope.limits.extend(systemd::limits(&mut place.steps, scope.version, &|_| None)?);
        }
        // A user's manager can filter no devices; what a user may open is a matter of the files' owners.
        if scope.scope.manager == Owner::System {
            let entries = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
            let is_on_v1 = self.legacy.iter().any(|place| place.has("devices"));
            scope.limits.extend(systemd::devices(&Rules::from_spec(entries)?, is_on_v1));
        }
        Ok(())
    }

    pub(super) fn warn_of_loss(&mut self, cause: &str, lost: &[&str], hint: Option<&'static str>) {
        if !lost.is_empty() {
            let warning = Warning::new(format!("limits without effect, since {cause}: {}", lost.join(", ")));
            self.warnings.push(match hint {
                Some(hint) => warning.with_hint(hint),
                None => warning,
            });
        }
    }
}

/// The field of device rules, whose loss is not worth a warning: an ordinary user's devices are out of reach anyway.
pub(super) const DEVICES: &str = "devices";

/// A checked `cgroupsPath`: components without `.` and `..`.
struct CgroupPath {
    relative: String,
    is_absolute: bool,
}

impl CgroupPath {
    fn new(path: Option<&Path>, container_id: &str) -> Result<Self> {
        let path = path.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(container_id));
        let wrong = |cause| Err(Error::invalid(format!("linux.cgroupsPath: `{}` {cause}", path.display())));
        let mut relative = String::with_capacity(path.as_os_str().len());
        for component in path.components() {
            match component {
                // `..` stops at the top, as in a root file system: `../../x` and `/../x` are `x`.
                Component::ParentDir => relative.truncate(relative.rfind('/').unwrap_or(0)),
                Component::Normal(name) => {
                    let Some(name) = name.to_str() else { return wrong("is not UTF-8") };
                    // A newline would make /proc/PID/cgroup ambiguous; the kernel refuses it too.
                    if name.contains(['\n', '\0']) {
                        return wrong("has a newline or a NUL");
                    }
                    if !relative.is_empty() {
                        relative.push('/');
                    }
                    relative.push_str(name);
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        if relative.is_empty() {
            return wrong("is the top of the hierarchy, which is not the container's own");
        }
        Ok(Self { relative, is_absolute: path.is_absolute() })
    }

    /// Gives the cgroup in one hierarchy; `own` is what relative paths are relative to.
    fn below(&self, hierarchy: &Hierarchy, own: &str) -> Place {
        let own = if self.is_absolute { "" } else { own };
        let mut path = hierarchy.mount.join(own);
        path.push(&self.relative);
        let mut shown = String::with_capacity(hierarchy.root.len() + own.len() + self.relative.len() + 2);
        for part in [hierarchy.root.trim_matches('/'), own, &self.relative] {
            if !part.is_empty() {
                shown.push('/');
                shown.push_str(part);
            }
        }
        Place {
            controllers: hierarchy.controllers.clone(),
            mount: hierarchy.mount.clone(),
            path,
            shown,
            own: hierarchy.mount.join(hierarchy.own_below_mount()),
            steps: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
