//! `husk container …`: the second spelling of the commands on containers. Says nothing that the first does not.

use clap::Subcommand;

use super::{
    attach, commit, cp, diff, exec, export, inspect, lifecycle, logs, mount, ps, run, stats, system, top, update, why,
};

/// `husk container …`
#[derive(Debug, Subcommand)]
pub(super) enum Container {
    Attach(attach::Attach),
    Commit(commit::Commit),
    Cp(cp::Cp),
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
    Mount(mount::MountContainer),
    Pause(lifecycle::Pause),
    Port(top::Port),
    Prune(system::ContainerPrune),
    Rename(lifecycle::Rename),
    Restart(lifecycle::Restart),
    #[command(visible_alias = "remove")]
    Rm(lifecycle::Remove),
    Run(Box<run::Run>),
    Start(lifecycle::Start),
    Stats(stats::Stats),
    Stop(lifecycle::Stop),
    Top(top::Top),
    Unpause(lifecycle::Unpause),
    #[command(visible_alias = "umount")]
    Unmount(mount::UnmountContainer),
    Update(update::Update),
    Wait(lifecycle::Wait),
    Why(why::Why),
}
