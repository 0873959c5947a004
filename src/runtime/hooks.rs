//! Hooks: programs of the host that the spec wants run at given moments, with the container's state on standard input.
//!
//! A hook gets the environment that the spec gives it and nothing of the image's or the caller's (CVE-2025-23266: a
//! loader variable from an image reached a hook on the host).

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oci_spec::runtime::{Hook, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Context, Error, Kind, Result};

/// The hooks of one container, by moment.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HookPlan {
    /// Runtime namespace, after the mounts and before the pivot (deprecated by the spec, and used).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// The same moment, after `prestart`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// Container namespaces with the host's paths, before the pivot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// Inside the container, before the workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// Runtime namespace, once the workload runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// Runtime namespace, once the container is deleted; a failure is a warning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

impl HookPlan {
    /// Takes the hooks of a spec.
    pub fn new(spec: &Spec) -> Self {
        let Some(hooks) = spec.hooks() else { return Self::default() };
        let list = |hooks: &Option<Vec<Hook>>| hooks.clone().unwrap_or_default();
        let prestart = list(hooks.prestart());
        Self {
            prestart,
            create_runtime: list(hooks.create_runtime()),
            create_container: list(hooks.create_container()),
            start_container: list(hooks.start_container()),
            poststart: list(hooks.poststart()),
            poststop: list(hooks.poststop()),
        }
    }

    /// Says whether the parent must run something between the mounts and the pivot.
    pub fn has_before_pivot(&self) -> bool {
        !self.prestart.is_empty() || !self.create_runtime.is_empty()
    }
}

/// Runs hooks in order, each with `state` on its standard input; the first that fails ends the series.
pub fn run(moment: &str, hooks: &[Hook], state: &[u8], surroundings: Surroundings<'_>) -> Result<()> {
    for (number, hook) in hooks.iter().enumerate() {
        // Callers look for the words before the path; they are runc's.
        run_one(hook, state, surroundings)
            .with_context(|| format!("error running {moment} hook #{number}: {}", hook.path().display()))?;
    }
    Ok(())
}

/// What a hook finds where its own entry says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// Its working directory; the caller's where there is none.
    pub directory: Option<&'a Path>,
    /// Its environment: the workload's for hooks that are inside with it, else none.
    pub environment: &'a [CString],
}

fn run_one(hook: &Hook, state: &[u8], surroundings: Surroundings<'_>) -> Result<()> {
    let mut command = Command::new(hook.path());
    let mut args = hook.args().iter().flatten();
    if let Some(name) = args.next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    command.args(args).env_clear();
    let inherited = if hook.env().is_none() { surroundings.environment } else { &[] };
    let own = hook.env().iter().flatten().map(String::as_bytes);
    for entry in own.chain(inherited.iter().map(|entry| entry.to_bytes())) {
        let end = entry.iter().position(|byte| *byte == b'=').unwrap_or(entry.len());
        let (name, value) = (&entry[..end], entry.get(end + 1..).unwrap_or_default());
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
    }
    if let Some(directory) = surroundings.directory {
        command.current_dir(directory);
    }
    // Files in memory, not pipes: a hook that reads nothing, writes much, or leaves a process behind keeps nobody waiting.
    let input = memory_file(state).context("make the hook's standard input")?;
    let errors = memory_file(&[]).context("make the hook's standard error")?;
    let mut child = command.stdin(input).stdout(Stdio::null()).stderr(errors.try_clone()?).spawn()?;
    if let Some(seconds) = hook.timeout() {
        wait_for_exit(&mut child, seconds)?;
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let mut said = [0; STDERR_LIMIT_BYTES];
    let length = errors.read_at(&mut said, 0).unwrap_or(0);
    Err(Error::new(Kind::Other, format!("{status}: {}", String::from_utf8_lossy(&said[..length]).trim())))
}

/// Most of what a failed hook said that is told.
const STDERR_LIMIT_BYTES: usize = 4096;

/// Makes a file in memory that holds `bytes` and is read from its beginning.
fn memory_file(bytes: &[u8]) -> Result<File> {
    let file = File::from(rustix::fs::memfd_create(c"hook", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

fn wait_for_exit(child: &mut Child, seconds: i64) -> Result<()> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Duration::from_secs(seconds.max(0).unsigned_abs());
    let timeout = Timespec::try_from(limit).map_err(|_| Error::invalid("timeout out of range"))?;
    let ready = poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout))?;
    if ready == 0 {
        child.kill()?;
        child.wait()?;
        return Err(Error::new(Kind::Other, format!("still running after {seconds} s, killed")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(text: &str) -> Hook {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment_alone() {
        let directory = tempfile::tempdir().unwrap();
        let script = r#"{"path":"/bin/sh","args":["sh","-c","cat > state; /usr/bin/env > env"],"env":["A=1"]}"#;
        let surroundings = Surroundings { directory: Some(directory.path()), environment: &[c"B=2".to_owned()] };
        run("poststart", &[hook(script)], b"{\"id\":\"x\"}", surroundings).unwrap();
        assert_eq!(std::fs::read(directory.path().join("state")).unwrap(), b"{\"id\":\"x\"}");
        let env = std::fs::read_to_string(directory.path().join("env")).unwrap();
        let names: Vec<_> = env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| ["A", "PWD", "SHLVL", "_"].contains(name)), "{names:?}");
    }

    #[test]
    fn a_hook_that_fails_says_what_it_said_and_a_slow_one_is_killed() {
        let failing = hook(r#"{"path":"/bin/sh","args":["sh","-c","echo broken >&2; exit 3"]}"#);
        let error = run("prestart", &[failing], b"", Surroundings::default()).unwrap_err();
        assert_eq!(error.report(), "error running prestart hook #0: /bin/sh: exit status: 3: broken");
        let slow = hook(r#"{"path":"/bin/sleep","args":["sleep","100"],"timeout":0}"#);
        assert!(
            run("prestart", &[slow], b"", Surroundings::default())
                .unwrap_err()
                .report()
                .contains("still running after 0 s")
        );
    }

    #[test]
    fn a_hook_that_leaves_a_process_or_ignores_its_input_keeps_nobody_waiting() {
        let leaving = hook(r#"{"path":"/bin/sh","args":["sh","-c","sleep 60 & exit 0"]}"#);
        let state = vec![b' '; 1 << 20];
        run("prestart", &[leaving], &state, Surroundings::default()).unwrap();
        let loud = hook(r#"{"path":"/bin/sh","args":["sh","-c","head -c 1000000 /dev/zero >&2"],"timeout":20}"#);
        run("prestart", &[loud], &state, Surroundings::default()).unwrap();
    }
}
