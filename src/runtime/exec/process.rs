//! Which process `exec` starts: one that is given whole, or the container's own with changes.
//!
//! Pure: looks at no container and no host.

use std::path::PathBuf;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};

use crate::error::{Error, Result};

/// What is to be executed.
pub enum Command<'a> {
    /// A process as a caller wrote it (`--process`).
    Whole(&'a Process),
    /// The container's own process with another command and some changes.
    Changed(&'a Changes),
}

/// What the flags of `exec` change in the container's own process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// Another working directory.
    pub cwd: Option<PathBuf>,
    /// Variables that are added, or take the place of those of the same name.
    pub env: Vec<String>,
    /// Whether it gets a terminal; the container's own process having one says nothing.
    pub terminal: bool,
    /// Another user, and perhaps another group.
    pub user: Option<(u32, Option<u32>)>,
    /// Groups that are added.
    pub additional_gids: Vec<u32>,
    /// Another value of no_new_privs.
    pub no_new_privileges: Option<bool>,
    /// Capabilities that are added.
    pub capabilities: Vec<Capability>,
    /// Another AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// Another SELinux label.
    pub selinux_label: Option<String>,
}

impl Command<'_> {
    /// Gives the process for a container whose own is `container`. It is still to be validated.
    pub fn process(&self, container: &Process) -> Result<Process> {
        match self {
            Self::Whole(process) => Ok(complete((*process).clone(), container)),
            Self::Changed(changes) => changes.apply(container.clone()),
        }
    }
}

/// What a whole process leaves out is as the container has it: nobody gets more by saying less. (The scheduler and its
/// like are [`super::super::attributes`]'s to complete.)
fn complete(mut process: Process, container: &Process) -> Process {
    if process.capabilities().is_none() {
        process.set_capabilities(container.capabilities().clone());
    }
    if process.rlimits().as_ref().is_none_or(Vec::is_empty) {
        process.set_rlimits(container.rlimits().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(container.oom_score_adj());
    }
    if is_empty(process.apparmor_profile().as_deref()) {
        process.set_apparmor_profile(container.apparmor_profile().clone());
    }
    if is_empty(process.selinux_label().as_deref()) {
        process.set_selinux_label(container.selinux_label().clone());
    }
    process
}

fn is_empty(text: Option<&str>) -> bool {
    text.is_none_or(str::is_empty)
}

impl Changes {
    fn apply(&self, mut process: Process) -> Result<Process> {
        let Self {
            args,
            cwd,
            env,
            terminal,
            user,
            additional_gids,
            no_new_privileges,
            capabilities,
            apparmor_profile,
            selinux_label,
        } = self;
        if args.is_empty() {
            // runc's words.
            return Err(Error::invalid("exec args cannot be empty"));
        }
        process.set_args(Some(args.clone()));
        process.set_terminal(Some(*terminal));
        if let Some(cwd) = cwd {
            process.set_cwd(cwd.clone());
        }
        if !env.is_empty() {
            process.set_env(Some(merge(process.env().clone().unwrap_or_default(), env)));
        }
        if let Some((uid, gid)) = *user {
            process.user_mut().set_uid(uid);
            if let Some(gid) = gid {
                process.user_mut().set_gid(gid);
            }
        }
        if !additional_gids.is_empty() {
            let mut gids = process.user().additional_gids().clone().unwrap_or_default();
            gids.extend(additional_gids);
            process.user_mut().set_additional_gids(Some(gids));
        }
        if no_new_privileges.is_some() {
            process.set_no_new_privileges(*no_new_privileges);
        }
        if !capabilities.is_empty() {
            let mut sets = process.capabilities().clone().unwrap_or_default();
            add(&mut sets, capabilities);
            process.set_capabilities(Some(sets));
        }
        if apparmor_profile.is_some() {
            process.set_apparmor_profile(apparmor_profile.clone());
        }
        if selinux_label.is_some() {
            process.set_selinux_label(selinux_label.clone());
        }
        Ok(process)
    }
}

/// Of two variables of one name programs see the first, and the user means the last.
fn merge(mut variables: Vec<String>, added: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in added {
        variables.retain(|other| name(other) != name(entry));
        variables.push(entry.clone());
    }
    variables
}

/// Adds capabilities to the sets that give them, and never to the inheritable one (CVE-2022-24769 and its kin). Ambient
/// ones must be inheritable, so they are added only for a container that has inheritable ones already, as in runc.
fn add(sets: &mut LinuxCapabilities, added: &[Capability]) {
    let with = |set: Option<&Capabilities>| {
        let mut set = set.cloned().unwrap_or_default();
        set.extend(added);
        Some(set)
    };
    sets.set_bounding(with(sets.bounding().as_ref()));
    sets.set_effective(with(sets.effective().as_ref()));
    sets.set_permitted(with(sets.permitted().as_ref()));
    if sets.inheritable().as_ref().is_some_and(|set| !set.is_empty()) {
        sets.set_ambient(with(sets.ambient().as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Process {
        serde_json::from_str(
            r#"{"user":{"uid":1,"gid":2,"additionalGids":[3]},"args":["init"],"cwd":"/srv","terminal":true,
                "env":["A=1","B=2"],"noNewPrivileges":true,"oomScoreAdj":7,
                "rlimits":[{"type":"RLIMIT_NOFILE","soft":5,"hard":6}],
                "capabilities":{"bounding":["CAP_KILL"],"permitted":["CAP_KILL"],"inheritable":[]}}"#,
        )
        .unwrap()
    }

    fn changed(changes: &Changes) -> Process {
        Command::Changed(changes).process(&container()).unwrap()
    }

    #[test]
    fn the_containers_process_is_the_default() {
        let process = changed(&Changes { args: vec!["ls".into()], ..Changes::default() });
        assert_eq!(process.args().as_deref().unwrap(), ["ls"]);
        assert_eq!((process.user().uid(), process.user().gid()), (1, 2));
        assert_eq!(process.cwd(), &PathBuf::from("/srv"));
        assert_eq!((process.terminal(), process.no_new_privileges()), (Some(false), Some(true)));
        assert_eq!(process.rlimits(), container().rlimits());
    }

    #[test]
    fn each_flag_changes_its_field() {
        let process = changed(&Changes {
            args: vec!["ls".into()],
            cwd: Some("/".into()),
            env: vec!["A=3".into(), "C=4".into(), "C=5".into()],
            terminal: true,
            user: Some((10, Some(20))),
            additional_gids: vec![30],
            no_new_privileges: Some(false),
            capabilities: vec![Capability::Chown],
            apparmor_profile: Some("x".into()),
            selinux_label: Some("y".into()),
        });
        assert_eq!(process.env().as_deref().unwrap(), ["B=2", "A=3", "C=5"]);
        assert_eq!((process.user().uid(), process.user().gid()), (10, 20));
        assert_eq!(process.user().additional_gids().as_deref().unwrap(), [3, 30]);
        assert_eq!((process.terminal(), process.no_new_privileges()), (Some(true), Some(false)));
        let sets = process.capabilities().as_ref().unwrap();
        let both = Capabilities::from([Capability::Kill, Capability::Chown]);
        assert_eq!((sets.bounding().as_ref(), sets.permitted().as_ref()), (Some(&both), Some(&both)));
        assert_eq!(sets.effective().as_ref(), Some(&Capabilities::from([Capability::Chown])));
        assert_eq!((sets.inheritable().as_ref().map(Capabilities::len), sets.ambient()), (Some(0), &None));
        assert_eq!(process.apparmor_profile().as_deref(), Some("x"));
        assert_eq!(process.selinux_label().as_deref(), Some("y"));
    }

    #[test]
    fn a_user_without_a_group_keeps_the_containers() {
        let process = changed(&Changes { args: vec!["ls".into()], user: Some((0, None)), ..Changes::default() });
        assert_eq!((process.user().uid(), process.user().gid()), (0, 2));
    }

    #[test]
    fn a_whole_process_is_completed_and_not_merged() {
        let given: Process = serde_json::from_str(r#"{"user":{},"args":["x"],"cwd":"/"}"#).unwrap();
        let process = Command::Whole(&given).process(&container()).unwrap();
        assert_eq!(process.capabilities(), container().capabilities());
        assert_eq!(process.rlimits(), container().rlimits());
        assert_eq!(process.oom_score_adj(), Some(7));
        assert_eq!(
            (process.env(), process.terminal(), process.no_new_privileges()),
            (&None, None, given.no_new_privileges())
        );
    }

    #[test]
    fn no_command_is_refused() {
        let error = Command::Changed(&Changes::default()).process(&container()).unwrap_err();
        assert_eq!(error.report(), "exec args cannot be empty");
    }
}
