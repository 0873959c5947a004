//! Where the comparison runs: a private mount namespace, scratch space, programs built for it. Cleans up behind itself.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::Result;

/// Set in the process that runs inside the private mount namespace.
const INSIDE: &str = "INSIDE_HUSK_BENCH";

/// How often a cgroup that is not empty yet is tried again, a millisecond apart.
const REMOVAL_TRIES: u32 = 1000;

/// Our cgroups in every hierarchy, before the process id.
const CGROUP_PREFIX: &str = "husk-bench-";

const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Goes on in a mount and a network namespace of its own, by executing this program again below unshare(1); returns once
/// inside, where loopback is up.
pub fn enter_namespaces() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        return match status.map_err(|error| format!("ip: {error}"))? {
            status if status.success() => Ok(()),
            status => Err(format!("ip link set lo up: {status}").into()),
        };
    }
    let error = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(format!("unshare: {error}").into())
}

/// Hides the v2 hierarchy beside v1 ones, and says what was done.
///
/// crun before 1.9 or so refuses "hybrid" mode. What is hidden is hidden from everyone, so that all do the same work.
pub fn hide_unified() -> Result<Option<&'static str>> {
    let is_hybrid = Path::new(UNIFIED).join("cgroup.controllers").exists();
    if !is_hybrid {
        return Ok(None);
    }
    rustix::mount::unmount(UNIFIED, rustix::mount::UnmountFlags::DETACH)?;
    Ok(Some(
        "hybrid cgroups: the v2 hierarchy is hidden from all runtimes, in a private mount namespace, for crun's sake",
    ))
}

/// Copies the executable that is measured to where an ordinary user reaches it, who may not reach what cargo has built.
pub fn copy_husk(to: &Path) -> Result<()> {
    let husk = std::env::var_os("HUSK").map_or_else(|| env!("CARGO_BIN_EXE_husk").into(), PathBuf::from);
    // There may be one: it is busy while anything of another part still runs it.
    let _ = fs::remove_file(to);
    fs::copy(&husk, to).map_err(|error| format!("copy {}: {error}", husk.display()))?;
    Ok(())
}

/// The ordinary user that peers are run by.
pub const USER_ID: u32 = 64_211;

/// Adds that user, with subordinate ids, to copies of the account files in our mount namespace.
pub fn add_user(scratch: &Scratch) -> Result<()> {
    let user = "husk-bench";
    let home = scratch.directory.display();
    let lines = [
        ("passwd", format!("{user}:x:{USER_ID}:{USER_ID}::{home}:/bin/sh\n")),
        ("group", format!("{user}:x:{USER_ID}:\n")),
        ("subuid", format!("{user}:1879048192:65536\n")),
        ("subgid", format!("{user}:1879048192:65536\n")),
    ];
    for (name, line) in lines {
        let file = Path::new("/etc").join(name);
        let copy = scratch.directory.join(name);
        fs::write(&copy, fs::read_to_string(&file).unwrap_or_default() + &line)?;
        if !file.exists() {
            return Err(format!("no {}", file.display()).into());
        }
        rustix::mount::mount_bind(&copy, &file)?;
    }
    Ok(fs::set_permissions(&scratch.directory, fs::Permissions::from_mode(0o755))?)
}

/// What the comparison makes on disk and in the cgroup file systems; gone when dropped.
pub struct Scratch {
    pub directory: PathBuf,
    /// The parent of all cgroups, as a path below the hierarchies.
    pub cgroup: String,
    pub floor: PathBuf,
    pub payload: PathBuf,
    pub stopwatch: PathBuf,
    _directory: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("husk-bench-").tempdir()?;
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/bench");
        let build = |name: &str, options: &[&str]| -> Result<PathBuf> {
            let program = directory.path().join(name);
            let source = sources.join(name).with_extension("c");
            let status = Command::new("cc")
                .args(["-O2", "-static"])
                .args(options)
                .arg("-o")
                .args([program.as_os_str(), source.as_os_str()])
                .status()
                .map_err(|error| format!("cc: {error} (a C compiler builds {})", source.display()))?;
            if status.success() { Ok(program) } else { Err(format!("cc {}: {status}", source.display()).into()) }
        };
        clear_after_the_killed()?;
        Ok(Self {
            floor: build("floor", &[])?,
            stopwatch: build("stopwatch", &[])?,
            payload: build("payload", &["-nostdlib", "-ffreestanding", "-fno-stack-protector"])?,
            cgroup: format!("/{CGROUP_PREFIX}{}", std::process::id()),
            directory: directory.path().to_owned(),
            _directory: directory,
        })
    }

    /// Makes a cgroup in every hierarchy and gives their cgroup.procs.
    pub fn make_cgroups(&self, name: &str) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for hierarchy in hierarchies()? {
            let parent = hierarchy.join(self.cgroup.trim_start_matches('/'));
            let cgroup = parent.join(name);
            fs::create_dir_all(&cgroup)?;
            // A new v1 cpuset is empty and takes no process; runtimes inherit it level by level.
            for directory in [&parent, &cgroup] {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let from = directory.parent().unwrap_or(directory).join(file);
                    if from.exists() && fs::read_to_string(directory.join(file))?.trim().is_empty() {
                        fs::write(directory.join(file), fs::read_to_string(from)?)?;
                    }
                }
            }
            files.push(cgroup.join("cgroup.procs"));
        }
        Ok(files)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for hierarchy in hierarchies().unwrap_or_default() {
            remove_cgroup(&hierarchy.join(self.cgroup.trim_start_matches('/')));
        }
    }
}

/// Gives the mount points of the cgroup hierarchies, without those that links name once more.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut points: Vec<_> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (point, kind) = (words.next()?, words.next()?);
            kind.starts_with("cgroup").then(|| PathBuf::from(point))
        })
        .collect();
    points.sort();
    points.dedup();
    Ok(points)
}

/// Gives the cgroups that engines make at the top of the hierarchies and never remove.
pub fn engines_cgroups() -> Result<Vec<PathBuf>> {
    let tops = hierarchies()?;
    let names = ["conmon", "docker", "husk", "libpod_parent"];
    let all = tops.iter().flat_map(|top| names.map(|name| top.join(name)));
    Ok(all.filter(|path| path.exists()).collect())
}

/// Removes such a cgroup where nobody is in it, nor below.
pub fn remove_empty_cgroup(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// Removes the cgroups of comparisons that were killed before they could.
fn clear_after_the_killed() -> Result<()> {
    for hierarchy in hierarchies()? {
        for entry in fs::read_dir(hierarchy)?.flatten() {
            let name = entry.file_name();
            let Some(process) = name.to_str().and_then(|name| name.strip_prefix(CGROUP_PREFIX)) else { continue };
            if !Path::new("/proc").join(process).exists() {
                remove_cgroup(&entry.path());
            }
        }
    }
    Ok(())
}

/// Removes a cgroup of ours and those below it, with what a failed run may have left in them.
fn remove_cgroup(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    for _ in 0..REMOVAL_TRIES {
        if fs::remove_dir(directory).is_ok() {
            return;
        }
        let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        for process in processes.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        // A killed process leaves its cgroup in its own time.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Finds a program as a shell does.
pub fn find(program: &OsStr) -> Option<PathBuf> {
    if program.to_string_lossy().contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|directory| directory.join(program)).find(|path| path.is_file())
}
