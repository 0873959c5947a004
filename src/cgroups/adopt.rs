//! Makes the cgroups of a plan around a process that is there already: systemd's way, since a scope without a process
//! ends at once.
//!
//! The process waits meanwhile and touches nothing of the workload's. What systemd did not make (hierarchies of v1 that
//! it does not use, a subgroup) is made here, and all limits are written, whether or not systemd has them too.

use rustix::process::Pid;

use super::create::{Before, Making};
use super::handle::move_process;
use super::plan::{Place, Plan, ScopePlan};
use super::systemd;
use crate::error::{Context, Result};
use crate::sys::bpf::Instruction;

/// A scope to be made. Dropping it stops the scope again, once it has been asked for.
pub(super) struct Adoption {
    scope: ScopePlan,
    legacy: Vec<Place>,
    unified: Option<Place>,
    filter: Option<Vec<Instruction>>,
    // Behind the scope, so that directories go once systemd has left them.
    making: Making,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Planned,
    Asked,
    Kept,
}

impl Adoption {
    /// Takes over what a plan has for systemd, if anything.
    pub(super) fn new(plan: &mut Plan) -> Option<Self> {
        let scope = plan.scope.take()?;
        let making = Making::new(plan);
        Some(Self {
            scope,
            legacy: std::mem::take(&mut plan.legacy),
            unified: plan.unified.take(),
            filter: plan.filter.take(),
            making,
            progress: Progress::Planned,
        })
    }

    /// 1. The scope, which systemd makes and puts the process in.
    /// 2. v1 hierarchies that are none of systemd's business.
    /// 3. v2: first into the subgroup, if there is one. Controllers can only be enabled above the process.
    /// 4. The limits in the files, then the device filter, beside the one that systemd may have.
    pub(super) fn run(&mut self, pid: Pid) -> Result<()> {
        let ScopePlan { scope, slice, container_id, manager, annotated, limits, .. } = &mut self.scope;
        self.progress = Progress::Asked;
        let mut fixed = systemd::scope_properties(container_id, slice, pid);
        fixed.append(annotated);
        // runc's words.
        manager
            .start(&scope.name, std::mem::take(limits), &fixed)
            .with_context(|| format!("unable to start unit {:?}", scope.name))?;
        let join = |place: &Place| {
            move_process(&place.path, pid)
                .with_context(|| format!("move process {pid} to cgroup {}", place.path.display()))
        };
        for place in &self.legacy {
            let origin = self.making.make_or_find(place)?;
            self.making.equip_legacy(place, origin)?;
            join(place)?;
        }
        if let Some(place) = &self.unified {
            let is_pure = self.legacy.is_empty();
            self.making.make_or_find(place)?;
            if !is_pure || !scope.subgroup.is_empty() {
                join(place)?;
            }
            self.making.equip_unified(place, self.filter.as_deref(), is_pure, Before::Nothing)?;
        }
        Ok(())
    }

    /// Lets the scope outlast this; gives the fields whose limits will not be had.
    pub(super) fn keep(mut self) -> Vec<&'static str> {
        self.making.made.keep();
        self.progress = Progress::Kept;
        std::mem::take(&mut self.making.lost)
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        if self.progress == Progress::Asked {
            // On the way out of another failure, which is the one to report.
            let _ = self.scope.manager.stop(&self.scope.scope.name);
        }
    }
}
