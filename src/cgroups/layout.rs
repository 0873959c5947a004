//! Where the cgroup hierarchies of this host are mounted, and which cgroup the caller is in.
//!
//! [`Layout::parse`] is pure, over the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`; [`Layout::probe`] reads
//! as little of them as it can. Nothing here makes or changes a cgroup.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;

use super::file;
use crate::error::{Context, Result};

/// Where every distribution mounts its hierarchies.
const USUAL_MOUNT: &str = "/sys/fs/cgroup";

/// `CGROUP2_SUPER_MAGIC`, statfs(2).
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The inode of the topmost cgroup of a hierarchy; a mount of a lower one, or of a cgroup namespace, has another.
const TOPMOST_INODE: u64 = 1;

/// How the host uses the two versions of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is mounted.
    Absent,
    /// v1 hierarchies alone.
    Legacy,
    /// v1 hierarchies that hold the controllers, and the v2 hierarchy beside them.
    Hybrid,
    /// The v2 hierarchy alone.
    Unified,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The controllers as `/proc/PID/cgroup` lists them (`cpu,cpuacct`, `name=systemd`); empty for v2.
    pub controllers: String,
    /// The mount point.
    pub mount: PathBuf,
    /// Which cgroup the mount shows: not `/` inside a container that sees a piece of its host's hierarchy.
    pub root: String,
    /// The cgroup of the caller, as `/proc/self/cgroup` has it.
    pub own: String,
}

impl Hierarchy {
    /// Says whether this hierarchy holds a controller of v1.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }

    /// Gives the caller's cgroup below the mount point.
    ///
    /// In a container without a cgroup namespace `/proc/self/cgroup` shows the host's path, of which the mount shows
    /// the tail. A cgroup that the mount does not reach at all counts as its top.
    pub fn own_below_mount(&self) -> &str {
        let own = self.own.trim_start_matches('/');
        let root = self.root.trim_matches('/');
        let below = match own.strip_prefix(root) {
            Some(rest) if root.is_empty() || rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
            _ => "",
        };
        if Path::new(below).components().any(|part| part == Component::ParentDir) { "" } else { below }
    }
}

/// The hierarchies of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The v2 hierarchy.
    pub unified: Option<Hierarchy>,
    /// The v1 hierarchies, in the order of `/proc/self/cgroup`.
    pub legacy: Vec<Hierarchy>,
}

impl Layout {
    /// Looks at this host.
    ///
    /// On pure v2 that is two system calls on the mount point and one file. Where there are v1 hierarchies the mount
    /// table is read until each of them has been found, which is near its start, however many containers follow.
    pub fn probe() -> Result<Self> {
        let own = file::read_value(Path::new("/proc/self/cgroup")).context("read /proc/self/cgroup")?;
        let mounted = rustix::fs::statfs(USUAL_MOUNT).is_ok_and(|stat| stat.f_type == CGROUP2_MAGIC);
        if mounted && rustix::fs::stat(USUAL_MOUNT).is_ok_and(|stat| stat.st_ino == TOPMOST_INODE) {
            return Ok(Self::topmost_unified(&own));
        }
        let mut finder = Finder::new(&own);
        finder.read_mounts()?;
        let mut layout = finder.finish();
        // Something else may be mounted over the v2 hierarchy to hide it; directories made there would be no cgroups.
        if let (Some(unified), false) = (&layout.unified, mounted) {
            let hidden = rustix::fs::statfs(&unified.mount).is_ok_and(|stat| stat.f_type != CGROUP2_MAGIC);
            if hidden {
                layout.unified = None;
            }
        }
        Ok(layout)
    }

    /// Reads the two texts; `mounts` may stop early once every hierarchy of `own` has been seen.
    pub fn parse(own: &str, mounts: &str) -> Self {
        let mut finder = Finder::new(own);
        finder.take(mounts);
        finder.finish()
    }

    /// Says how this host uses the two versions.
    pub fn mode(&self) -> Mode {
        match (&self.unified, self.legacy.is_empty()) {
            (None, true) => Mode::Absent,
            (None, false) => Mode::Legacy,
            (Some(_), false) => Mode::Hybrid,
            (Some(_), true) => Mode::Unified,
        }
    }

    /// Gives the v1 hierarchy that holds a controller.
    pub fn legacy_with(&self, controller: &str) -> Option<&Hierarchy> {
        self.legacy.iter().find(|hierarchy| hierarchy.has(controller))
    }

    /// The layout of a host whose whole v2 hierarchy is at the usual place.
    fn topmost_unified(own: &str) -> Self {
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let unified =
            Hierarchy { controllers: String::new(), mount: USUAL_MOUNT.into(), root: "/".into(), own: own.to_owned() };
        Self { unified: Some(unified), legacy: Vec::new() }
    }
}

/// Matches the hierarchies of `/proc/self/cgroup` with lines of the mount table.
struct Finder {
    /// A hierarchy with its best mount so far, and whether that one is good enough to stop looking.
    wanted: Vec<(Hierarchy, Found)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nowhere,
    /// Mounted, but not below the usual place: perhaps in some other root file system.
    Elsewhere,
    Usual,
}

impl Finder {
    fn new(own: &str) -> Self {
        let wanted = own.lines().filter_map(|line| {
            // hierarchy-ID:controllers:path, cgroups(7); the path may hold colons.
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            // Named hierarchies without controllers belong to other service managers, systemd's is the one peers join.
            let joined = match controllers {
                "" => id == "0",
                "name=systemd" => true,
                _ => !controllers.starts_with("name="),
            };
            joined.then(|| {
                let hierarchy = Hierarchy {
                    controllers: controllers.to_owned(),
                    mount: PathBuf::new(),
                    root: String::new(),
                    own: path.to_owned(),
                };
                (hierarchy, Found::Nowhere)
            })
        });
        Self { wanted: wanted.collect() }
    }

    /// Reads the mount table until there is nothing more to find.
    fn read_mounts(&mut self) -> Result<()> {
        const TABLE: &str = "/proc/self/mountinfo";
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd: OwnedFd = rustix::fs::open(TABLE, flags, FileMode::empty()).context("open /proc/self/mountinfo")?;
        let mut buffer = [0_u8; 4096];
        let mut pending: Vec<u8> = Vec::new();
        while self.wanted.iter().any(|(_, found)| *found != Found::Usual) {
            let count = match rustix::io::read(&fd, &mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("read /proc/self/mountinfo"),
            };
            pending.extend_from_slice(&buffer[..count]);
            let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
            self.take(&String::from_utf8_lossy(&pending[..end]));
            pending.drain(..=end);
        }
        Ok(())
    }

    /// Looks through whole lines of the mount table.
    fn take(&mut self, mounts: &str) {
        for line in mounts.lines() {
            let Some(mount) = CgroupMount::parse(line) else { continue };
            for (hierarchy, found) in &mut self.wanted {
                if !mount.shows(&hierarchy.controllers) {
                    continue;
                }
                let usual = mount.point.starts_with(USUAL_MOUNT);
                if *found == Found::Nowhere || (usual && *found == Found::Elsewhere) {
                    *found = if usual { Found::Usual } else { Found::Elsewhere };
                    hierarchy.mount = unescape(mount.point).into();
                    hierarchy.root = unescape(mount.root);
                }
            }
        }
    }

    fn finish(self) -> Layout {
        let mut layout = Layout { unified: None, legacy: Vec::new() };
        for (hierarchy, found) in self.wanted {
            if found == Found::Nowhere {
                continue;
            }
            if hierarchy.controllers.is_empty() {
                layout.unified = Some(hierarchy);
            } else {
                layout.legacy.push(hierarchy);
            }
        }
        layout
    }
}

/// A line of the mount table about a cgroup file system.
struct CgroupMount<'a> {
    root: &'a str,
    point: &'a str,
    /// The options of a v1 mount, among which are its controllers; none for v2.
    options: Option<&'a str>,
}

impl<'a> CgroupMount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue, proc_pid_mountinfo(5)
        let (left, right) = line.split_once(" - ")?;
        let mut after = right.split(' ');
        let options = match after.next()? {
            "cgroup" => Some(after.nth(1)?),
            "cgroup2" => None,
            _ => return None,
        };
        let mut before = left.split(' ').skip(3);
        Some(Self { root: before.next()?, point: before.next()?, options })
    }

    /// Says whether this mount is of the hierarchy with these controllers.
    fn shows(&self, controllers: &str) -> bool {
        match self.options {
            None => controllers.is_empty(),
            Some(options) => {
                let first = controllers.split(',').next().unwrap_or_default();
                // A controller is in one hierarchy only, so one of them decides.
                !first.is_empty() && options.split(',').any(|option| option == first)
            }
        }
    }
}

/// Undoes the octal escapes for space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.map_or('\\', char::from));
        rest = &rest[at + if code.is_some() { 4 } else { 1 }..];
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINGLE: &str = "\
5:memory:/process_api/ba27
3:cpuset:/
1:name=systemd:/
0::/
";
    const SINGLE_MOUNTS: &str = "\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host_with_single_controllers() {
        let layout = Layout::parse(SINGLE, SINGLE_MOUNTS);
        assert_eq!(layout.mode(), Mode::Hybrid);
        assert_eq!(layout.unified.as_ref().unwrap().mount, Path::new("/sys/fs/cgroup/unified"));
        let memory = layout.legacy_with("memory").unwrap();
        assert_eq!(memory.mount, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(memory.own_below_mount(), "process_api/ba27");
        assert_eq!(layout.legacy_with("name=systemd").unwrap().mount, Path::new("/sys/fs/cgroup/systemd"));
        assert_eq!(layout.legacy_with("pids"), None);
    }

    #[test]
    fn co_mounted_controllers_share_a_hierarchy() {
        let own = "4:cpu,cpuacct:/user.slice\n3:net_cls,net_prio:/\n2:name=elogind:/x\n1:name=systemd:/a:b\n0::/a:b\n";
        let mounts = "\
30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
31 25 0:27 / /sys/fs/cgroup/net_cls,net_prio rw shared:10 - cgroup cgroup rw,net_cls,net_prio
32 25 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
33 25 0:29 / /sys/fs/cgroup/elogind rw shared:12 - cgroup cgroup rw,name=elogind
";
        let layout = Layout::parse(own, mounts);
        assert_eq!(layout.mode(), Mode::Legacy);
        assert_eq!(layout.legacy.len(), 3);
        assert_eq!(layout.legacy_with("cpuacct"), layout.legacy_with("cpu"));
        assert_eq!(layout.legacy_with("net_prio").unwrap().mount, Path::new("/sys/fs/cgroup/net_cls,net_prio"));
        assert_eq!(layout.legacy_with("name=systemd").unwrap().own, "/a:b");
    }

    #[test]
    fn inside_a_container_the_mount_shows_the_tail_of_the_hosts_path() {
        let own = "4:memory:/docker/abc/inner\n3:pids:/docker/abcdef\n2:cpu:/elsewhere\n1:cpuset:/../..\n";
        let mounts = "\
1 0 0:1 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
2 0 0:2 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
3 0 0:3 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu
4 0 0:4 / /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset
";
        let layout = Layout::parse(own, mounts);
        for (controller, expected) in [("memory", "inner"), ("pids", ""), ("cpu", ""), ("cpuset", "")] {
            assert_eq!(layout.legacy_with(controller).unwrap().own_below_mount(), expected, "{controller}");
        }
    }

    #[test]
    fn the_usual_place_wins_over_other_mounts_of_the_same_hierarchy() {
        let own = "2:pids:/\n0::/\n";
        let mounts = "\
1 0 0:1 / /var/lib/machines/a\\040b/sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
2 0 0:2 / /run/cgroup2 rw - cgroup2 cgroup2 rw
3 0 0:1 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
4 0 0:1 / /srv/pids rw - cgroup cgroup rw,pids
";
        let layout = Layout::parse(own, mounts);
        assert_eq!(layout.legacy_with("pids").unwrap().mount, Path::new("/sys/fs/cgroup/pids"));
        assert_eq!(layout.unified.unwrap().mount, Path::new("/run/cgroup2"));
        let elsewhere = Layout::parse(own, mounts.lines().next().unwrap());
        assert_eq!(elsewhere.legacy[0].mount, Path::new("/var/lib/machines/a b/sys/fs/cgroup/pids"));
    }

    #[test]
    fn pure_v2_and_nothing_at_all() {
        let own = "0::/user.slice/session-1.scope\n";
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = Layout::parse(own, mounts);
        assert_eq!(layout.mode(), Mode::Unified);
        assert_eq!(layout, Layout::topmost_unified(own));
        assert_eq!(Layout::parse(own, "").mode(), Mode::Absent);
        assert_eq!(Layout::parse("", mounts).mode(), Mode::Absent);
    }

    #[test]
    fn this_host_is_read_the_same_in_part_and_in_whole() {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(Layout::probe().unwrap(), Layout::parse(&own, &mounts));
    }

    #[test]
    fn escapes_are_undone() {
        for (escaped, plain) in [("/a\\040b", "/a b"), ("/a\\134", "/a\\"), ("/a\\", "/a\\"), ("/a\\9", "/a\\9")] {
            assert_eq!(unescape(escaped), plain);
        }
    }
}
