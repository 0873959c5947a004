//! A stage for networks: a network namespace that stands for the host, one for the world beyond it, and what is said, asked and
//! looked up on it. Tests nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::image::{Image, Layout};
use super::{Outcome, Scene};
use crate::probe::raw::syscall;

/// The host's address towards the world, and the world's.
pub(crate) const HOST: &str = "198.51.100.1";
pub(crate) const HOST6: &str = "2001:db8::1";
pub(crate) const WORLD: &str = "198.51.100.2";
pub(crate) const WORLD6: &str = "2001:db8::2";
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split(' ')).output().expect("run a program");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn ip(words: &str) {
    run("ip", words);
}

fn unshare() {
    syscall(libc::SYS_unshare, &[libc::CLONE_NEWNET.into()]).expect("make a network namespace");
}

type Order = Box<dyn FnOnce() + Send>;

/// This thread, and all that it starts, in a network namespace that stands for the host; a thread in one for the world.
pub(crate) struct Stage {
    before: std::fs::File,
    world: Option<mpsc::Sender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let before = std::fs::File::open("/proc/thread-self/ns/net").expect("open the network namespace");
        unshare();
        ip("link set lo up");
        let (world, orders) = mpsc::channel::<Order>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare();
            tell.send(syscall(libc::SYS_gettid, &[]).expect("a thread has an id")).expect("the test waits");
            for order in orders {
                order();
            }
        });
        let id = told.recv().expect("the thread says its id");
        ip(&format!("link add out0 type veth peer name in0 netns {id}"));
        for (address, device) in [(HOST, "24 dev out0"), (HOST6, "64 dev out0 nodad")] {
            ip(&format!("address add {address}/{device}"));
        }
        ip("link set out0 up");
        let stage = Self { before, world: Some(world), thread: Some(thread) };
        stage.outside(|| {
            ip("link set lo up");
            for (address, device) in [(WORLD, "24 dev in0"), (WORLD6, "64 dev in0 nodad")] {
                ip(&format!("address add {address}/{device}"));
            }
            ip("link set in0 up");
            // Whoever wants to get in knows the way.
            ip(&format!("route add 172.16.0.0/12 via {HOST}"));
        });
        stage
    }

    /// Does something in the world.
    pub(crate) fn outside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let order = Box::new(move || tell.send(work()).expect("the test waits"));
        self.world.as_ref().expect("it is there").send(order).expect("the thread is there");
        told.recv().expect("what was to be done in the world has failed")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.world = None;
        let _ = self.thread.take().map(thread::JoinHandle::join);
        move_into_link_name_space(self.before.as_fd(), Some(LinkNameSpaceType::Network)).expect("go back");
    }
}

/// Reads what a server says to who connects; nothing where there is none.
pub(crate) fn hear(at: &str) -> String {
    let at: SocketAddr = at.parse().expect("an address");
    let mut said = String::new();
    if let Ok(mut stream) = TcpStream::connect_timeout(&at, Duration::from_millis(500)) {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.read_to_string(&mut said);
    }
    said.trim().to_owned()
}

pub(crate) fn husk(scene: &Scene, words: &[&str]) -> Outcome {
    scene.husk().args(words).run()
}

/// Runs a script of busybox's in a container that ends with it.
pub(crate) fn inside(scene: &Scene, layout: &Layout, flags: &[&str], script: &str) -> Outcome {
    let mut command = scene.husk();
    command.args(["run", "--rm"]).args(flags).arg(layout.reference());
    command.args(["/bin/busybox", "sh", "-c", script]).run()
}

pub(crate) fn start(scene: &Scene, layout: &Layout, flags: &[&str], script: &str) {
    let mut command = scene.husk();
    command.args(["run", "-d"]).args(flags).arg(layout.reference());
    command.args(["/bin/busybox", "sh", "-c", script]).run().success();
}

pub(crate) fn image(scene: &Scene) -> Layout {
    Image::busybox(scene).layout(scene, "layout")
}

pub(crate) fn leases(scene: &Scene, network: &str) -> Value {
    let path: PathBuf = scene.run_root().join("networks").join(network).join("leases.json");
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|_| b"{}".to_vec())).expect("leases are JSON")
}

pub(crate) fn inspect(scene: &Scene, name: &str) -> Value {
    let found: Value = serde_json::from_str(&husk(scene, &["inspect", name]).success().stdout).expect("it is JSON");
    found[0].clone()
}

pub(crate) fn address(scene: &Scene, network: &str, name: &str) -> String {
    let leases = leases(scene, network);
    let lease = leases.as_object().and_then(|all| all.values().find(|lease| lease["name"] == name));
    lease.expect("it has a lease")["addresses"][0].as_str().expect("an address").to_owned()
}

/// The name of a network's bridge.
pub(crate) fn bridge(scene: &Scene, network: &str) -> String {
    let id = husk(scene, &["network", "inspect", "-f", "{{.Id}}", network]).success().stdout;
    format!("hk-{}", &id[..10])
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A device that ordinary users may open: some hosts give it to root alone.
pub(crate) struct Tun;

impl Tun {
    pub(crate) fn new(scene: &Scene) -> Self {
        use rustix::fs::{CWD, FileType, Mode, chmod, makedev, mknodat};
        use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
        let nodes = scene.path().join("nodes");
        std::fs::create_dir(&nodes).expect("make a folder");
        mount("tmpfs", &nodes, "tmpfs", MountFlags::empty(), None).expect("mount a tmpfs");
        let (node, mode) = (nodes.join("tun"), Mode::from_raw_mode(0o666));
        mknodat(CWD, &node, FileType::CharacterDevice, mode, makedev(10, 200)).expect("make a device node");
        chmod(&node, mode).expect("open the node to all");
        mount_bind(&node, "/dev/net/tun").expect("put the node in its place");
        unmount(&nodes, UnmountFlags::DETACH).expect("unmount the tmpfs");
        Self
    }
}

impl Drop for Tun {
    fn drop(&mut self) {
        _ = rustix::mount::unmount("/dev/net/tun", rustix::mount::UnmountFlags::DETACH);
    }
}

/// A port of the loopback that nobody has.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

/// What a web server has as `/a`; nothing where there is none.
pub(crate) fn page(at: &str) -> String {
    let mut page = String::new();
    if let Ok(mut stream) = TcpStream::connect(at) {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.write_all(b"GET /a HTTP/1.0\r\n\r\n").and_then(|()| stream.read_to_string(&mut page));
    }
    page
}

pub(crate) fn hear_ok(at: &str) -> bool {
    TcpStream::connect(at.parse::<SocketAddr>().expect("an address")).is_ok()
}

/// Has nft do something in this network namespace.
pub(crate) fn nft(script: &str) -> Result<(), String> {
    let output = Command::new("nft").arg(script).output().expect("run nft");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Kills the first monitors of those that keep husk's tables: at most so many.
pub(crate) fn kill_keepers(scene: &Scene, number: usize) {
    let text = std::fs::read_to_string(scene.run_root().join("networks/.firewall")).unwrap_or_default();
    let pids = text.lines().filter_map(|line| line.split(' ').next());
    let is_husk =
        |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("husk"));
    let living = pids.filter(is_husk);
    for pid in living.take(number) {
        run("kill", &format!("-KILL {pid}"));
    }
}

/// How many of husk's two tables somebody keeps.
pub(crate) fn owners() -> usize {
    run("nft", "list ruleset").matches("flags owner").count()
}
