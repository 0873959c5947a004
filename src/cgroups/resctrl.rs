//! resctrl: shares of caches and memory bandwidth (Intel RDT and its like), as the kernel's
//! Documentation/filesystems/resctrl.rst describes them. One level of groups, beside the cgroups and unlike them.
//!
//! ```text
//! /sys/fs/resctrl/               mounted by the administrator, never by husk
//!   info/{L3,MB,L3_MON}/         what the machine can do; info/last_cmd_status says why the last write was refused
//!   schemata  tasks              the default group, `/`
//!   <closID or container id>/    a group: made if it is missing, removed if it is named after the container and ours
//!     schemata  tasks
//!     mon_groups/<container id>/ what is counted for the container alone (`enableMonitoring`); always ours
//!     mon_data/                  the counters
//! ```
//!
//! Where the tree is mounted is a parameter, so that the tests need no such machine. None was at hand: what is written
//! here was tried on recorded trees only.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::file;
use crate::error::{Context, Error, Kind, Result};
use crate::support::mountinfo;

/// Where it is mounted, unless the administrator has chosen otherwise.
const USUAL_PLACE: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC` of linux/magic.h.
const RESCTRL_MAGIC: rustix::fs::FsWord = 0x0765_5821;

/// Finds where resctrl is mounted.
pub fn find() -> Result<PathBuf> {
    match rustix::fs::statfs(USUAL_PLACE) {
        Ok(stat) if stat.f_type == RESCTRL_MAGIC => return Ok(USUAL_PLACE.into()),
        Ok(_) => {
            let table = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
            if let Some(mount) = mountinfo::parse(&table)?.into_iter().find(|mount| mount.kind == "resctrl") {
                return Ok(mount.point);
            }
        }
        Err(_) => {}
    }
    // runc's words.
    Err(Error::unsupported("intelRdt is specified in config, but Intel RDT is not enabled")
        .with_hint("the kernel needs resctrl (CONFIG_X86_CPU_RESCTRL), and it mounted on /sys/fs/resctrl"))
}

/// A group as the state keeps it: what `exec`, `update` and `delete` need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Where resctrl is mounted.
    root: PathBuf,
    /// The directory of the group.
    path: PathBuf,
    /// The directory of the container's own counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitoring: Option<PathBuf>,
    /// Whether the group goes with the container.
    is_ours: bool,
}

/// What a container asks for, and where it will find it. Nothing is made yet.
pub struct Plan {
    group: Group,
    /// The lines of the schemata, in the order of the specification.
    schemata: Vec<String>,
    /// Whether the group has to be there: it is named, and nothing is said of its shares.
    must_exist: bool,
}

/// Makes the plan of a container, in the tree at `root`.
pub fn plan(root: &Path, container_id: &str, wanted: &LinuxIntelRdt) -> Result<Plan> {
    let require = |field: &str, value: &Option<String>, resource: &str, name: &str| {
        let is_missing = given(value.as_ref()).is_some() && !allocates(root, resource);
        // runc's words.
        let what = format!("intelRdt.{field} is specified in config, but Intel RDT/{name} is not enabled");
        if is_missing { Err(Error::unsupported(what)) } else { Ok(()) }
    };
    require("l3CacheSchema", wanted.l3_cache_schema(), "L3", "CAT")?;
    require("memBwSchema", wanted.mem_bw_schema(), "MB", "MBA")?;
    let named = given(wanted.clos_id().as_ref());
    let path = match named {
        Some("/") => root.to_owned(),
        name => root.join(name.unwrap_or(container_id)),
    };
    let schemata = schemata(wanted);
    let monitoring = wanted.enable_monitoring().unwrap_or(false).then(|| path.join("mon_groups").join(container_id));
    // Looked at before it is made: what is kept of it has to be true even if nobody lives to make it.
    let is_ours = named.is_none() && !exists(&path)?;
    let must_exist = named.is_some() && schemata.is_empty();
    Ok(Plan { group: Group { root: root.to_owned(), path, monitoring, is_ours }, schemata, must_exist })
}

fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn schemata(wanted: &LinuxIntelRdt) -> Vec<String> {
    let lines = [wanted.l3_cache_schema(), wanted.mem_bw_schema()].into_iter().flatten();
    let lines = lines.chain(wanted.schemata().iter().flatten());
    lines.filter(|line| !line.is_empty()).cloned().collect()
}

/// Says whether the machine gives out shares of a resource, by the name of its directory.
pub fn allocates(root: &Path, resource: &str) -> bool {
    root.join("info").join(resource).is_dir()
}

fn exists(path: &Path) -> Result<bool> {
    match rustix::fs::lstat(path) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("inspect {}", path.display())),
    }
}

impl Plan {
    /// What there will be to remove.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Makes the group, and the one for monitoring; who fails, or drops the answer, leaves neither.
    pub fn begin(self) -> Result<Begun> {
        let Self { group, schemata, must_exist } = self;
        let place = group.path.display().to_string();
        let describe = || format!("linux.intelRdt: group {place}");
        if must_exist && !exists(&group.path)? {
            return Err(Error::new(
                Kind::Invalid,
                "clos dir not accessible (must be pre-created when schemata, l3CacheSchema and memBwSchema are empty)",
            )
            .context(describe()));
        }
        let was_there = !group.make(&group.path).with_context(describe)?;
        if was_there && group.is_ours {
            // Somebody was faster, and may count on it.
            return Err(Error::from(Errno::EXIST).context(describe()));
        }
        let begun = Begun(Some(group));
        let group = begun.group();
        if !schemata.is_empty() && was_there && group.path != group.root && !group.is_ours {
            group.compare(&schemata).with_context(describe)?;
        } else {
            group.set(&schemata)?;
        }
        if let Some(monitoring) = &group.monitoring {
            group.make(monitoring).with_context(|| format!("make {}", monitoring.display()))?;
        }
        Ok(begun)
    }
}

/// A group that goes again, if it is ours, unless it is kept.
pub struct Begun(Option<Group>);

impl Begun {
    /// The group.
    pub fn group(&self) -> &Group {
        self.0.as_ref().expect("a guard is disarmed once, by value")
    }

    /// Leaves it to `delete`.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            let _ = group.delete();
        }
    }
}

impl Group {
    /// Takes a process in, and what it will clone.
    pub fn join(&self, pid: Pid) -> Result<()> {
        // The counters second: whoever changes the group is counted with its default ones first.
        for directory in [Some(&self.path), self.monitoring.as_ref()].into_iter().flatten() {
            let pid = pid.as_raw_nonzero();
            self.write(&directory.join("tasks"), &pid.to_string())
                .with_context(|| format!("add process {pid} to {}", directory.display()))?;
        }
        Ok(())
    }

    /// Writes lines of the schemata. Those that are not named keep their values.
    pub fn set(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
        let path = self.path.join("schemata");
        self.write(&path, &text).with_context(|| format!("write {} to {}", lines.join(" "), path.display()))
    }

    /// Removes what goes with the container. The kernel gives whoever is left in it back to the group above.
    pub fn delete(&self) -> Result<()> {
        let gone = if self.is_ours { Some(&self.path) } else { None };
        for directory in [self.monitoring.as_ref(), gone].into_iter().flatten() {
            match rustix::fs::rmdir(directory) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("remove the resctrl group {}", directory.display()));
                }
            }
        }
        Ok(())
    }

    /// Says whether shares of a resource can be given.
    pub fn allocates(&self, resource: &str) -> bool {
        allocates(&self.root, resource)
    }

    /// The directories that figures are read from: the tree's, the group's, and that of the container's own counters.
    pub(super) fn places(&self) -> (&Path, &Path, &Path) {
        (&self.root, &self.path, self.monitoring.as_deref().unwrap_or(&self.path))
    }

    /// Gives whether it was made now.
    fn make(&self, path: &Path) -> Result<bool> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.explain(errno)),
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let act = || file::write(file::open_for_writing(path)?, text.as_bytes());
        act().map_err(|errno| self.explain(errno))
    }

    /// An error number says little here; the kernel keeps the reason in a file.
    fn explain(&self, errno: Errno) -> Error {
        let error = Error::from(errno);
        match file::read_value(&self.root.join("info/last_cmd_status")) {
            Ok(status) if !status.is_empty() && status != "ok" => error.context(status),
            _ => error,
        }
    }

    /// Refuses a group that somebody has set up otherwise (config-linux.md, "IntelRdt").
    fn compare(&self, lines: &[String]) -> Result<()> {
        let path = self.path.join("schemata");
        let present = file::read_value(&path).with_context(|| format!("read {}", path.display()))?;
        for line in lines {
            let (resource, domains) = parse_line(line)
                .ok_or_else(|| Error::invalid(format!("linux.intelRdt: {line:?} is no line of a schemata file")))?;
            let found = present.lines().filter_map(parse_line).find(|(name, _)| *name == resource);
            let found = found.map(|(_, domains)| domains).unwrap_or_default();
            if let Some(domain) = domains.iter().find(|domain| !found.contains(domain)) {
                let what = format!("it is there already, and its {resource} is not {:x} for {}", domain.1, domain.0);
                return Err(Error::new(Kind::Exists, what).with_hint("without a schema it is taken as it is"));
            }
        }
        Ok(())
    }
}

/// Reads a line such as `L3:0=7f0;1=1f`: the resource, and for each domain its value. Bandwidths are decimal and masks
/// hexadecimal; to compare them, either reading will do.
fn parse_line(line: &str) -> Option<(&str, Vec<(&str, u64)>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let domains = domains.split(';').map(|domain| {
        let (id, value) = domain.split_once('=')?;
        Some((id.trim(), u64::from_str_radix(value.trim(), 16).ok()?))
    });
    Some((resource.trim(), domains.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A tree as Linux 6.1 shows it on a machine with two sockets, with regular files for the kernel's.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for (path, text) in [
                ("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"),
                ("tasks", ""),
                ("info/last_cmd_status", "ok\n"),
                ("info/L3/cbm_mask", "fffff\n"),
                ("info/MB/bandwidth_gran", "10\n"),
                ("mon_groups/.keep", ""),
            ] {
                tree.write(path, text);
            }
            tree
        }

        #[expect(clippy::disallowed_methods, reason = "a fixture is made anew for each run")]
        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn read(&self, path: &str) -> String {
            std::fs::read_to_string(self.0.path().join(path)).unwrap()
        }

        fn has(&self, path: &str) -> bool {
            self.0.path().join(path).exists()
        }

        fn plan(&self, wanted: Value) -> Result<Plan> {
            let wanted: LinuxIntelRdt = serde_json::from_value(wanted).unwrap();
            plan(self.0.path(), "box", &wanted)
        }

        /// A group as the kernel would fill it on mkdir.
        fn group(&self, name: &str, schemata: &str) {
            for (file, text) in [("schemata", schemata), ("tasks", ""), ("mon_groups/.keep", "")] {
                self.write(&format!("{name}/{file}"), text);
            }
        }
    }

    fn own_pid() -> Pid {
        rustix::process::getpid()
    }

    #[test]
    fn a_group_of_its_own_is_made_and_goes() {
        let tree = Tree::new();
        let begun = tree.plan(json!({})).unwrap().begin().unwrap();
        assert!(tree.has("box") && begun.group().is_ours);
        let kept = begun.group().clone();
        begun.keep();
        let kept: Group = serde_json::from_value(serde_json::to_value(kept).unwrap()).unwrap();
        kept.delete().unwrap();
        assert!(!tree.has("box"));
        kept.delete().unwrap();
        drop(tree.plan(json!({})).unwrap().begin().unwrap());
        assert!(!tree.has("box"), "what is not kept goes");
    }

    #[test]
    fn one_that_was_there_stays() {
        let tree = Tree::new();
        tree.group("box", "L3:0=fffff;1=fffff\n");
        tree.group("gold", "    MB:0= 20;1= 70\n    L3:0=007f0;1=0001f\n");
        for wanted in [json!({}), json!({"closID": "gold"}), json!({"closID": "/"})] {
            drop(tree.plan(wanted).unwrap().begin().unwrap());
        }
        assert!(tree.has("box/tasks") && tree.has("gold/tasks") && tree.has("tasks"));
    }

    #[test]
    fn a_process_is_written_to_the_group_and_its_counters() {
        let tree = Tree::new();
        tree.group("gold", "");
        tree.group("gold/mon_groups/box", "");
        let begun = tree.plan(json!({"closID": "gold", "enableMonitoring": true})).unwrap().begin().unwrap();
        begun.group().join(own_pid()).unwrap();
        let pid = own_pid().as_raw_nonzero().to_string();
        assert_eq!((tree.read("gold/tasks"), tree.read("gold/mon_groups/box/tasks")), (pid.clone(), pid));
    }

    #[test]
    fn counters_go_with_the_container_and_the_group_stays() {
        let tree = Tree::new();
        tree.group("gold", "");
        let begun = tree.plan(json!({"closID": "gold", "enableMonitoring": true})).unwrap().begin().unwrap();
        assert!(tree.has("gold/mon_groups/box"));
        drop(begun);
        assert!(tree.has("gold/tasks") && !tree.has("gold/mon_groups/box"));
    }

    #[test]
    fn schemata_are_written_in_the_order_of_the_specification() {
        let tree = Tree::new();
        tree.group("box", "");
        let wanted = json!({
            "schemata": ["L2:0=ff"], "memBwSchema": "MB:0=20;1=70", "l3CacheSchema": "L3:0=7f0;1=1f",
        });
        // It is the container's name, and a test's file system makes no files on mkdir.
        let lines = tree.plan(wanted).unwrap().schemata;
        assert_eq!(lines, ["L3:0=7f0;1=1f", "MB:0=20;1=70", "L2:0=ff"]);
        let group = tree.plan(json!({})).unwrap().group;
        group.set(&lines).unwrap();
        assert_eq!(tree.read("box/schemata"), "L3:0=7f0;1=1f\nMB:0=20;1=70\nL2:0=ff\n");
    }

    #[test]
    fn a_class_that_is_set_up_otherwise_is_refused() {
        let tree = Tree::new();
        tree.group("gold", "    MB:0= 20;1= 70\n    L3:0=007f0;1=0001f\n");
        let begin = |wanted| tree.plan(wanted).and_then(Plan::begin).map(drop);
        begin(json!({"closID": "gold", "l3CacheSchema": "L3:0=7f0;1=1f", "memBwSchema": "MB:1=70"})).unwrap();
        let error = begin(json!({"closID": "gold", "l3CacheSchema": "L3:1=ff"})).unwrap_err().report();
        assert!(error.ends_with("it is there already, and its L3 is not ff for 1"), "{error}");
        assert_eq!(tree.read("gold/schemata").lines().count(), 2, "and left as it is");
        let error = begin(json!({"closID": "silver"})).unwrap_err().report();
        assert!(error.contains("clos dir not accessible (must be pre-created"), "{error}");
        assert!(!tree.has("silver"));
    }

    #[test]
    fn what_the_machine_lacks_is_named() {
        let tree = Tree::new();
        std::fs::remove_dir_all(tree.0.path().join("info/MB")).unwrap();
        let error = tree.plan(json!({"memBwSchema": "MB:0=20"})).err().unwrap().report();
        assert_eq!(error, "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled");
        assert!(!allocates(tree.0.path(), "MB") && allocates(tree.0.path(), "L3"));
    }

    #[test]
    fn the_kernels_reason_is_told() {
        let tree = Tree::new();
        tree.write("info/last_cmd_status", "mask f0f has non-consecutive 1-bits\n");
        let group = tree.plan(json!({})).unwrap().group;
        let error = group.set(&["L3:0=f0f".to_owned()]).unwrap_err().report();
        assert!(error.contains("mask f0f has non-consecutive 1-bits"), "{error}");
    }
}
