//! What the tests of this module share: cgroups of their own on this host, below `/husk-test-…`, gone when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;
use serde_json::Value;

use super::{Driver, Layout, Mode, Plan, Request, Tolerance, plan, tree};

pub(super) fn resources(value: Value) -> LinuxResources {
    serde_json::from_value(value).unwrap()
}

/// Says why a test does not run.
#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
pub(super) fn not_run(why: &str) {
    eprintln!("not run: {why}");
}

/// A cgroup path of one test.
pub(super) struct Top {
    pub(super) layout: Layout,
    name: String,
}

impl Top {
    /// Gives nothing, and says why, where the host does not let a test make cgroups.
    pub(super) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let layout = Layout::probe().unwrap();
        if !rustix::process::geteuid().is_root() || layout.mode() == Mode::Absent {
            not_run("making cgroups needs root and a cgroup mount");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self { layout, name: format!("husk-test-{}-{count}", std::process::id()) })
    }

    /// As [`Top::new`], where the v1 hierarchies hold the controllers.
    pub(super) fn on_v1() -> Option<Self> {
        let top = Self::new()?;
        if top.layout.legacy_with("memory").is_none() {
            not_run("needs v1 hierarchies");
            return None;
        }
        Some(top)
    }

    /// As [`Top::new`], where v2 has the controllers.
    pub(super) fn on_v2() -> Option<Self> {
        let top = Self::new()?;
        if top.layout.mode() != Mode::Unified {
            not_run("needs pure v2");
            return None;
        }
        Some(top)
    }

    /// Gives the container's directory on v2.
    pub(super) fn unified(&self) -> PathBuf {
        self.layout.unified.as_ref().unwrap().mount.join(&self.name).join("box")
    }

    pub(super) fn plan(&self, resources: Option<&LinuxResources>) -> Plan {
        let path = PathBuf::from(format!("/{}/box", self.name));
        let request = Request {
            container_id: "box",
            cgroups_path: Some(&path),
            annotations: None,
            delegate_to: None,
            resources,
            driver: Driver::Cgroupfs,
            tolerance: Tolerance::Require,
        };
        plan(&self.layout, &request).unwrap()
    }

    /// Gives the container's directory in a v1 hierarchy.
    pub(super) fn legacy(&self, controller: &str) -> PathBuf {
        self.layout.legacy_with(controller).unwrap().mount.join(&self.name).join("box")
    }

    /// Gives the directories above the container's, in every hierarchy.
    pub(super) fn tops(&self) -> impl Iterator<Item = PathBuf> {
        self.layout.legacy.iter().chain(&self.layout.unified).map(|hierarchy| hierarchy.mount.join(&self.name))
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        for top in self.tops() {
            tree::remove(&top, std::time::Duration::from_secs(2)).unwrap();
        }
    }
}

/// A process that does nothing until dropped.
pub(super) struct Sleeper(Child);

impl Sleeper {
    pub(super) fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    pub(super) fn cgroups(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/cgroup", self.0.id())).unwrap()
    }

    pub(super) fn wait(&mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap().trim_end().to_owned()
}
