//! What a test may not leave behind: mounts, cgroups, processes, network links, temporary files, keys.
//!
//! A snapshot before, a comparison after. Things that the kernel takes apart by and by (a dead process, a network
//! namespace) get until [`PATIENCE`] to go; what is there then is a leak, is named, and is cleared so that the next test
//! does not answer for it.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Who;
use super::suite::kit;

const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(2);

/// The world as it was.
pub(crate) struct Snapshot {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    processes: BTreeSet<Process>,
    links: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: i32,
    start_time: u64,
    command: String,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        Self { mounts: mounts(), cgroups: cgroups(), processes: processes(), links: links(), files: files() }
    }

    /// Names what is there now and was not there then, and clears it.
    pub(crate) fn leaks(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::take();
            let leaks = self.compare(&now);
            if leaks.is_empty() {
                return leaks;
            }
            if Instant::now() >= deadline {
                self.clear(&now);
                return leaks;
            }
            std::thread::sleep(POLL);
        }
    }

    pub(crate) fn compare(&self, now: &Self) -> Vec<String> {
        let mut leaks = Vec::new();
        leaks.extend(now.mounts.difference(&self.mounts).map(|line| format!("leaked mount: {line}")));
        leaks.extend(self.mounts.difference(&now.mounts).map(|line| format!("lost or changed mount: {line}")));
        leaks.extend(now.cgroups.difference(&self.cgroups).map(|path| format!("leaked cgroup: {}", path.display())));
        leaks.extend(
            now.processes.difference(&self.processes).map(|one| format!("leaked process {}: {}", one.pid, one.command)),
        );
        leaks.extend(now.links.difference(&self.links).map(|name| format!("leaked network link: {name}")));
        leaks.extend(now.files.difference(&self.files).map(|path| format!("leaked file: {}", path.display())));
        leaks
    }

    /// Ends, unmounts and removes what leaked, as well as it can.
    fn clear(&self, now: &Self) {
        for process in now.processes.difference(&self.processes) {
            if let Some(pid) = rustix::process::Pid::from_raw(process.pid) {
                _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        for line in now.mounts.difference(&self.mounts) {
            if let Some(target) = line.split(' ').nth(1) {
                _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
            }
        }
        // Deepest first, and a few times: a cgroup stays busy for a moment after its last process.
        let cgroups: Vec<&PathBuf> = now.cgroups.difference(&self.cgroups).collect();
        for _ in 0..50 {
            for path in cgroups.iter().rev() {
                _ = std::fs::remove_dir(path);
            }
            if cgroups.iter().all(|path| !path.exists()) {
                break;
            }
            std::thread::sleep(POLL);
        }
        for path in now.files.difference(&self.files) {
            _ = std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path));
        }
    }
}

/// Mounts of this namespace, without their numbers, which the kernel gives anew.
pub(crate) fn mounts() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
    text.lines()
        .map(|line| line.split(' ').skip(3).filter(|word| !word.contains("shared:") && !word.contains("master:")))
        .map(|words| words.collect::<Vec<_>>().join(" "))
        .collect()
}

/// The mount point of the version 1 hierarchy of a controller.
pub(crate) fn cgroup_v1(controller: &str) -> Option<PathBuf> {
    hierarchies().into_iter().find(|(_, names)| names.iter().any(|name| name == controller)).map(|(path, _)| path)
}

/// The mount point of the version 2 hierarchy.
pub(crate) fn cgroup_v2() -> Option<PathBuf> {
    hierarchies().into_iter().find(|(_, names)| names.is_empty()).map(|(path, _)| path)
}

/// The mount points of all hierarchies.
pub(crate) fn cgroup_roots() -> impl Iterator<Item = PathBuf> {
    hierarchies().into_iter().map(|(path, _)| path)
}

/// Every mounted hierarchy with its controllers; version 2 has none in its options.
fn hierarchies() -> Vec<(PathBuf, Vec<String>)> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let right: Vec<&str> = right.split(' ').collect();
        let target = PathBuf::from(left.split(' ').nth(4).unwrap_or_default());
        match right[0] {
            "cgroup2" => found.push((target, Vec::new())),
            "cgroup" => found.push((target, right[2].split(',').map(ToOwned::to_owned).collect())),
            _ => {}
        }
    }
    found
}

/// Where cgroups of that name are, directly below the top of some hierarchy.
pub(crate) fn cgroups_named(name: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|(top, _)| top.join(name)).filter(|path| path.exists()).collect()
}

/// Cgroups that this run may have made: a dead test of somebody else's is none of ours, so only those that carry the
/// mark of our containers' names, or lie below the suite's own cgroups, or hold processes of our namespace.
fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for (root, _) in hierarchies() {
        let directories = walkdir::WalkDir::new(&root).min_depth(1).into_iter().flatten();
        for entry in directories.filter(|entry| entry.file_type().is_dir()) {
            let marked = entry.path().to_string_lossy().contains(&super::scene::mark());
            if marked || holds_our_processes(entry.path()) {
                found.insert(entry.into_path());
            }
        }
    }
    found
}

/// A process of another namespace reads as 0 on version 2, and is left out on version 1.
fn holds_our_processes(cgroup: &Path) -> bool {
    is_isolated()
        && std::fs::read_to_string(cgroup.join("cgroup.procs"))
            .is_ok_and(|text| text.lines().any(|pid| pid != "0" && pid != own_pid()))
}

fn own_pid() -> String {
    std::process::id().to_string()
}

fn is_isolated() -> bool {
    std::env::var_os("HUSK_TEST_STAGE").is_some()
}

/// In a process namespace of our own: everything but process 1 and the suite. Else: what runs from our files.
fn processes() -> BTreeSet<Process> {
    let mut found = BTreeSet::new();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for entry in std::fs::read_dir("/proc").expect("list /proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if pid == own || pid == 1 {
            continue;
        }
        let executable = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
        if !is_isolated() && !executable.starts_with(&kit().scratch) {
            continue;
        }
        // The name of a process may hold blanks and parentheses: fields count from the last one.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let start_time = fields.get(19).and_then(|field| field.parse().ok()).unwrap_or(0);
        let state = fields.first().copied().unwrap_or_default();
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        found.insert(Process {
            pid,
            start_time,
            command: format!("{command}({}, state {state})", executable.display()),
        });
    }
    found
}

fn links() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// Names directly in the places where programs leave things. In a shared /tmp, only our own user's count.
fn files() -> BTreeSet<PathBuf> {
    let owner = rustix::process::geteuid().as_raw();
    let shared = ["/tmp", "/run", "/dev/shm", "/dev/mqueue"].map(PathBuf::from);
    let homes = Who::ALL.iter().filter_map(|who| kit().account(*who).ok()).map(|account| account.home.clone());
    let scenes = homes.clone().map(|home| home.join("scenes"));
    let mut found = BTreeSet::new();
    for directory in shared.into_iter().chain([kit().scratch.clone()]).chain(homes).chain(scenes) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let ours = |owned: u32| owned == owner && entry.file_name().to_string_lossy().contains("husk");
            if is_isolated() || entry.metadata().is_ok_and(|data| ours(data.uid())) {
                found.insert(entry.path());
            }
        }
    }
    found
}
