//! One handle over cgroup v1, hybrid and v2 hierarchies.

mod devices;
mod file;
mod layout;

pub use layout::{Hierarchy, Layout, Mode};

// STUB
pub use stub::*;
mod stub {
    use super::Layout;
    use crate::error::Result;
    use std::os::fd::BorrowedFd;
    use std::path::Path;
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Driver {
        Cgroupfs,
        Systemd,
        Disabled,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Tolerance {
        Require,
        WarnWhenDenied,
    }
    #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    pub struct Record {}
    pub struct Request<'a> {
        pub container_id: &'a str,
        pub cgroups_path: Option<&'a Path>,
        pub resources: Option<&'a oci_spec::runtime::LinuxResources>,
        pub driver: Driver,
        pub tolerance: Tolerance,
    }
    pub struct Plan;
    pub struct Cgroup;
    pub fn plan(_: &Layout, _: &Request<'_>) -> Result<Plan> {
        Ok(Plan)
    }
    impl Plan {
        pub fn create(self) -> Result<(Option<Cgroup>, Vec<String>)> {
            Ok((None, vec![]))
        }
    }
    impl Cgroup {
        pub fn v2_directory(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        pub fn join(&self, _pid: rustix::process::Pid) -> Result<()> {
            Ok(())
        }
        pub fn record(&self) -> Record {
            Record {}
        }
        pub fn open(_: Record) -> Result<Cgroup> {
            Ok(Cgroup)
        }
        pub fn kill_all(&self) -> Result<()> {
            Ok(())
        }
        pub fn thaw(&self) -> Result<()> {
            Ok(())
        }
        pub fn is_frozen(&self) -> Result<bool> {
            Ok(false)
        }
        pub fn delete(self) -> Result<()> {
            Ok(())
        }
    }
}
