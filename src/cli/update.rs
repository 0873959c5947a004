//! `husk update`: other limits for containers, and other bounds.

use clap::Args;

use super::status::Status;
use super::{printer, report};
use crate::engine::engine::Engine;
use crate::engine::options::{Limits, SwapLimit};
use crate::engine::update::Changes;
use crate::engine::{settings, update};
use crate::error::{Error, Result};
use crate::monitor::RestartPolicy;
use crate::network::egress::Policy;
use crate::support::units;

/// Change limits, the restart policy or the egress policy of containers
///
/// What is not named stays as it is. Limits of a container that runs, and what it may reach, change at once, its restart policy
/// with its next start.
#[derive(Debug, Args)]
pub(super) struct Update {
    /// Memory limit, with a suffix b, k, m or g
    #[arg(long, short, value_name = "SIZE", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// Memory that stays where others want it
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    memory_reservation: Option<u64>,
    /// Limit of memory and swap together; -1 for none on swap
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<SwapLimit>,
    /// Number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = units::parse_cpus)]
    cpus: Option<u64>,
    /// Relative weight of processor time
    #[arg(long, short = 'c', value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Period of the processor quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processor time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Processors to run on, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Relative weight of block I/O, from 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// When to start it again: no, on-failure[:NUMBER], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    /// What it may reach, in place of what it might: none, or allow=ITEM,… as `run` has it
    #[arg(long, value_name = "none|allow=ITEM,…")]
    egress: Vec<String>,
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `update`.
pub(super) fn run(args: &Update) -> Result<Status> {
    let egress = Policy::parse(&args.egress)?;
    if !args.changes_limits() && args.restart.is_none() && egress.is_none() {
        return Err(Error::invalid("you must provide one or more flags when using this command"));
    }
    let engine = Engine::open(settings::File::default())?;
    let containers = engine.containers()?;
    let mut status = Status::Success;
    let limits = |limits: &mut Limits| args.change(limits);
    let changes = Changes { limits: &limits, restart: args.restart, egress };
    for word in &args.containers {
        let updated = containers.find(word).and_then(|container| update::update(&engine, &container, &changes));
        match updated {
            Ok(notes) => {
                for note in &notes {
                    report::note(note);
                }
                printer::print(&format!("{word}\n"))?;
            }
            Err(error) => {
                report::engine_error(&error);
                status = Status::Failure;
            }
        }
    }
    Ok(status)
}

impl Update {
    fn changes_limits(&self) -> bool {
        let mut limits = Limits::default();
        self.change(&mut limits);
        limits.any()
    }

    fn change(&self, limits: &mut Limits) {
        fn set<T: Clone>(limit: &mut Option<T>, asked: Option<&T>) {
            if let Some(asked) = asked {
                *limit = Some(asked.clone());
            }
        }
        set(&mut limits.memory, self.memory.as_ref());
        set(&mut limits.memory_reservation, self.memory_reservation.as_ref());
        set(&mut limits.memory_swap, self.memory_swap.as_ref());
        set(&mut limits.nano_cpus, self.cpus.as_ref());
        set(&mut limits.cpu_shares, self.cpu_shares.as_ref());
        set(&mut limits.cpu_period, self.cpu_period.as_ref());
        set(&mut limits.cpu_quota, self.cpu_quota.as_ref());
        set(&mut limits.cpuset_cpus, self.cpuset_cpus.as_ref());
        set(&mut limits.cpuset_mems, self.cpuset_mems.as_ref());
        set(&mut limits.pids, self.pids_limit.as_ref());
        set(&mut limits.blkio_weight, self.blkio_weight.as_ref());
    }
}
