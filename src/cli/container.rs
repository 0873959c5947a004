//! `husk container …`: the second spelling of the commands on containers. Says nothing that the first does not.

use clap::Subcommand;

use super::{attach, commit, diff, exec, export, inspect, lifecycle, logs, ps, run, system};

/// `husk container …`
#[derive(Debug, Subcommand)]
pub(super) enum Container {
    Attach(attach::Attach),
    Commit(commit::Commit),
    Create(Box<run::Create>),
    Diff(diff::Diff),
    Exec(Box<exec::Exec>),
    Exists(inspect::ContainerExists),
    Export(export::Args),
    Inspect(inspect::InspectContainer),
    Kill(lifecycle::Kill),
    Logs(logs::Logs),
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Ps),
    Pause(lifecycle::Pause),
    Prune(system::ContainerPrune),
    Rename(lifecycle::Rename),
    Restart(lifecycle::Restart),
    #[command(visible_alias = "remove")]
    Rm(lifecycle::Remove),
    Run(Box<run::Run>),
    Start(lifecycle::Start),
    Stop(lifecycle::Stop),
    Unpause(lifecycle::Unpause),
    Wait(lifecycle::Wait),
}
