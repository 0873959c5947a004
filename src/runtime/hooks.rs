//! Hooks: programs of the host that the spec wants run at given moments, with the container's state on standard input.
//!
//! A hook gets the environment that the spec gives it and nothing of the image's or the caller's (CVE-2025-23266: a
//! loader variable from an image reached a hook on the host).

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use oci_spec::runtime::{Hook, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Context, Error, Kind, Result};
use crate::seccomp::Program;
use crate::sys::{seccomp, signal};

/// Their names in the configuration, in the order of a container's life.
pub const MOMENTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

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
    /// Where their outputs go.
    #[serde(default, skip_serializing_if = "OutputPaths::is_empty")]
    pub output: OutputPaths,
}

/// The host's files that hooks write to (crun's `run.oci.hooks.stdout` and `run.oci.hooks.stderr`).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OutputPaths {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdout: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stderr: Option<PathBuf>,
}

/// Those files, open. Without one, the standard output goes nowhere, and the standard error into the message of a failure.
#[derive(Default)]
pub struct Output {
    stdout: Option<File>,
    stderr: Option<File>,
}

impl Output {
    /// The numbers of the open files.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        [&self.stdout, &self.stderr].into_iter().flatten().map(AsRawFd::as_raw_fd)
    }
}

impl OutputPaths {
    fn new(spec: &Spec) -> Self {
        let path = |name| spec.annotations().as_ref()?.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { stdout: path("run.oci.hooks.stdout"), stderr: path("run.oci.hooks.stderr") }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Opens the files to append to, and makes those that are missing. No call where none is named.
    pub fn open(&self) -> Result<Output> {
        let open = |path: &Option<PathBuf>| match path {
            Some(path) => {
                let file = OpenOptions::new().append(true).create(true).mode(0o700).open(path);
                file.map(Some).with_context(|| format!("open {} for hooks", path.display()))
            }
            None => Ok(None),
        };
        Ok(Output { stdout: open(&self.stdout)?, stderr: open(&self.stderr)? })
    }
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
            output: OutputPaths::new(spec),
        }
    }

    /// Says whether the parent must run something between the mounts and the pivot.
    pub fn has_before_pivot(&self) -> bool {
        !self.prestart.is_empty() || !self.create_runtime.is_empty()
    }
}

/// Runs hooks in order, each with `state` on its standard input; the first that fails ends the series.
pub fn run(moment: &str, hooks: &[Hook], state: &[u8], output: &Output) -> Result<()> {
    run_filtered(moment, hooks, state, output, None)
}

/// The same for hooks that are to be held by the workload's seccomp filter, from a process that is not.
pub fn run_filtered(
    moment: &str,
    hooks: &[Hook],
    state: &[u8],
    output: &Output,
    filter: Option<&Program>,
) -> Result<()> {
    for (number, hook) in hooks.iter().enumerate() {
        // Callers look for the words before the path; they are runc's.
        run_one(hook, state, output, filter)
            .with_context(|| format!("error running {moment} hook #{number}: {}", hook.path().display()))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &[u8], output: &Output, filter: Option<&Program>) -> Result<()> {
    let mut command = Command::new(hook.path());
    if let Some(program) = filter {
        seccomp::install_in_child(&mut command, program.filter.clone(), program.flags);
    }
    let mut args = hook.args().iter().flatten();
    if let Some(name) = args.next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    command.args(args).env_clear();
    for entry in hook.env().iter().flatten() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        command.env(name, value);
    }
    // Files in memory, not pipes: a hook that reads nothing, writes much, or leaves a process behind keeps nobody waiting.
    let input = memory_file(state).context("make the hook's standard input")?;
    let errors = match &output.stderr {
        Some(file) => file.try_clone()?,
        None => memory_file(&[]).context("make the hook's standard error")?,
    };
    let stdout = output.stdout.as_ref().map_or(Ok(Stdio::null()), |file| file.try_clone().map(Stdio::from))?;
    let mut child = command.stdin(input).stdout(stdout).stderr(errors.try_clone()?).spawn()?;
    if let Some(seconds) = hook.timeout() {
        wait_for_exit(&mut child, seconds)?;
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let mut said = [0; STDERR_LIMIT_BYTES];
    // A file of the host is not open for reading: what was said is there, and not here.
    let length = errors.read_at(&mut said, 0).unwrap_or(0);
    let said = String::from_utf8_lossy(&said[..length]);
    let colon = if said.trim().is_empty() { "" } else { ": " };
    Err(Error::new(Kind::Other, format!("{}{colon}{}", describe(status), said.trim())))
}

/// Says how a hook ended; of a filter's verdict in runc's words.
fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal::BAD_CALL) => "signal: bad system call".to_owned(),
        _ => status.to_string(),
    }
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
        let place = directory.path().display();
        let script = format!(
            r#"{{"path":"/bin/sh","args":["sh","-c","cat > {place}/state; /usr/bin/env > {place}/env"],"env":["A=1"]}}"#
        );
        run("poststart", &[hook(&script)], b"{\"id\":\"x\"}", &Output::default()).unwrap();
        assert_eq!(std::fs::read(directory.path().join("state")).unwrap(), b"{\"id\":\"x\"}");
        let env = std::fs::read_to_string(directory.path().join("env")).unwrap();
        let names: Vec<_> = env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| ["A", "PWD", "SHLVL", "_"].contains(name)), "{names:?}");
    }

    #[test]
    fn outputs_go_to_the_files_that_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(directory.path().join(name));
        let paths = OutputPaths { stdout: path("out"), stderr: path("err") };
        for _ in 0..2 {
            let failing = hook(r#"{"path":"/bin/sh","args":["sh","-c","echo said; echo broken >&2; exit 3"]}"#);
            let error = run("prestart", &[failing], b"", &paths.open().unwrap()).unwrap_err();
            assert_eq!(error.report(), "error running prestart hook #0: /bin/sh: exit status: 3");
        }
        assert_eq!(std::fs::read_to_string(directory.path().join("out")).unwrap(), "said\nsaid\n");
        assert_eq!(std::fs::read_to_string(directory.path().join("err")).unwrap(), "broken\nbroken\n");
        let missing = OutputPaths { stdout: path("no/such"), stderr: None };
        assert!(missing.open().err().unwrap().report().contains("no/such for hooks: no such file"));
    }

    #[test]
    fn a_hook_that_fails_says_what_it_said_and_a_slow_one_is_killed() {
        let failing = hook(r#"{"path":"/bin/sh","args":["sh","-c","echo broken >&2; exit 3"]}"#);
        let error = run("prestart", &[failing], b"", &Output::default()).unwrap_err();
        assert_eq!(error.report(), "error running prestart hook #0: /bin/sh: exit status: 3: broken");
        let slow = hook(r#"{"path":"/bin/sleep","args":["sleep","100"],"timeout":0}"#);
        assert!(
            run("prestart", &[slow], b"", &Output::default()).unwrap_err().report().contains("still running after 0 s")
        );
    }

    #[test]
    fn a_hook_that_leaves_a_process_or_ignores_its_input_keeps_nobody_waiting() {
        let leaving = hook(r#"{"path":"/bin/sh","args":["sh","-c","sleep 60 & exit 0"]}"#);
        let state = vec![b' '; 1 << 20];
        run("prestart", &[leaving], &state, &Output::default()).unwrap();
        let loud = hook(r#"{"path":"/bin/sh","args":["sh","-c","head -c 1000000 /dev/zero >&2"],"timeout":20}"#);
        run("prestart", &[loud], &state, &Output::default()).unwrap();
    }
}
