//! Where networks are measured: a network namespace that stands for the machine, another for the world beyond it, and a wire
//! between them. Nothing else is ever called. Knows no engine.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Result;

/// Addresses for documentation (RFC 5737): the machine's, and the world's.
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// A network namespace. What is started inside stays there.
pub struct Namespace(File);

impl Namespace {
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(Self(File::open(path).map_err(|error| format!("open {}: {error}", path.display()))?))
    }

    pub fn of_process(pid: u32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Makes one that lasts as long as it is open, or somebody is in it.
    pub fn new(name: &str) -> Result<Self> {
        run("ip", &format!("netns add {name}"))?;
        let namespace = Self::open(Path::new("/run/netns").join(name));
        run("ip", &format!("netns delete {name}"))?;
        let namespace = namespace?;
        namespace.enter(|| run("ip", "link set lo up"))??;
        Ok(namespace)
    }

    /// Does something in it: this thread, and what it starts.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let before = Self::open("/proc/thread-self/ns/net")?;
        self.join()?;
        let done = work();
        before.join()?;
        Ok(done)
    }

    /// Stays in it, as threads do that end.
    pub fn join(&self) -> Result<()> {
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    pub fn inode(&self) -> Result<u64> {
        Ok(self.0.metadata()?.ino())
    }

    /// What names it to programs, for as long as it is open.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&self.0))
    }
}

/// The machine and the world.
pub struct Stage {
    pub host: Namespace,
    pub world: Namespace,
}

impl Stage {
    pub fn new() -> Result<Self> {
        let [host, world] = [Namespace::new("hk-host")?, Namespace::new("hk-world")?];
        host.enter(|| -> Result<()> {
            connect("out0", "in0", &world)?;
            run("ip", &format!("address add {HOST}/24 dev out0"))?;
            run("ip", "link set out0 up")?;
            world.enter(|| -> Result<()> {
                run("ip", &format!("address add {WORLD}/24 dev in0"))?;
                run("ip", "link set in0 up")
            })??;
            run("ip", &format!("route add default via {WORLD}"))
        })??;
        Ok(Self { host, world })
    }
}

/// Makes a pair of ends, one here and one there.
pub fn connect(here: &str, name: &str, there: &Namespace) -> Result<()> {
    run("ip", &format!("link add {here} type veth peer name {name} netns {}", there.path()))
}

/// Runs a program whose words have no blanks.
pub fn run(program: &str, words: &str) -> Result<()> {
    let output = Command::new(program).args(words.split(' ')).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {words}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}

/// Makes /run empty, for namespaces and sockets that are nobody else's, and lets ordinary users open /dev/net/tun, which some
/// machines keep for root. Both in this mount namespace alone.
pub fn prepare_files(scratch: &Path) -> Result<()> {
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", "/run", "tmpfs", none, c"mode=755")?;
    let nodes = scratch.join("nodes");
    fs::create_dir_all(&nodes)?;
    rustix::mount::mount("tmpfs", &nodes, "tmpfs", none, None)?;
    let node = nodes.join("tun");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let (kind, number) = (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(10, 200));
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, number)?;
    rustix::fs::chmod(&node, mode)?;
    rustix::mount::mount_bind(&node, "/dev/net/tun")?;
    Ok(rustix::mount::unmount(&nodes, rustix::mount::UnmountFlags::DETACH)?)
}

/// Puts both back.
pub fn clear_files() -> Result<()> {
    for point in ["/dev/net/tun", "/run"] {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH)?;
    }
    Ok(())
}
