//! The way out of an ordinary user's networks, and in: the process that carries packets to sockets of the host.
//!
//! The world is the suite's own network namespace, with addresses that the tests give it. What a container would do, a thread
//! of the test does that has entered the user's network namespace.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use super::support::husk::read_host;
use super::support::launch::Step;
use super::support::{Need, Running, Scene, Test, scene::write, test};

pub(crate) fn tests() -> Vec<Test> {
    let network = |test: Test| {
        test.users()
            .needs(Need::Husk)
            .needs(Need::Program("ip"))
            .needs(Need::Program("cat"))
            .needs(Need::File("/dev/net/tun"))
            .needs(Need::Capability(caps::Capability::CAP_SYS_ADMIN))
    };
    vec![
        network(test!(streams_pass_both_ways)).user(),
        network(test!(long_connections_are_carried_by_the_kernel)).user(),
        network(test!(datagrams_and_echoes_pass)).user(),
        network(test!(callers_keep_their_addresses)),
        network(test!(a_killed_process_is_replaced)).user(),
    ]
}

/// Of the world outside.
const OUTSIDE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// Of a caller from elsewhere.
const CALLER: [&str; 2] = ["192.0.2.9", "2001:db8::9"];
/// Of the user's network namespace, and of its way out.
const INSIDE: [&str; 2] = ["10.0.2.100", "fd00:6875:736b::100"];
const GATEWAY: [&str; 2] = ["10.0.2.2", "fd00:6875:736b::2"];

const PATIENCE: Duration = Duration::from_secs(20);

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().expect("run ip");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The world's addresses, and a device that ordinary users may open.
struct Outside;

impl Outside {
    fn new(scene: &Scene) -> Self {
        ip("link add hk-out0 type veth peer name hk-out1");
        let outside = Self;
        for (address, length) in OUTSIDE.iter().chain(&CALLER).zip([24, 64, 24, 64]) {
            // Used at once: nobody else is there.
            let how = if length == 64 { " nodad" } else { "" };
            ip(&format!("address add {address}/{length} dev hk-out0{how}"));
        }
        ip("link set hk-out1 up");
        ip("link set hk-out0 up");
        // Some hosts give the device to root alone.
        let nodes = scene.path().join("nodes");
        std::fs::create_dir(&nodes).expect("make a folder");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &nodes, "tmpfs", flags, None).expect("mount a tmpfs");
        let node = nodes.join("tun");
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &node,
            rustix::fs::FileType::CharacterDevice,
            mode,
            rustix::fs::makedev(10, 200),
        )
        .expect("make a device node");
        rustix::fs::chmod(&node, mode).expect("open the node to all");
        rustix::mount::mount_bind(&node, "/dev/net/tun").expect("put the node in its place");
        rustix::mount::unmount(&nodes, rustix::mount::UnmountFlags::DETACH).expect("unmount the tmpfs");
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        _ = rustix::mount::unmount("/dev/net/tun", rustix::mount::UnmountFlags::DETACH);
        _ = Command::new("ip").args(["link", "del", "hk-out0"]).output();
    }
}

/// The user's network process, leased by a command that stays, and a conversation with it.
struct Networks<'a> {
    command: Running<'a>,
    link: OwnedFd,
    pid: i32,
    namespace: OwnedFd,
}

impl<'a> Networks<'a> {
    fn start(scene: &'a Scene) -> Self {
        let mut command = scene.husk();
        // What the networks' user namespace keeps of its first caller would hold for all that is below.
        command.args(["unshare", "--rootless-netns", "cat"]).step(Step::PendingSignals(1000));
        let mut command = command.start();
        command.write("there\n");
        command.line_with("there");
        let link = connect(&scene.run_root().join("rootless-network/control"));
        let welcome = ask(&link, &json!("hello"), None)["welcome"].clone();
        let pid = i32::try_from(welcome["pid"].as_i64().expect("a pid")).expect("a pid");
        let namespace =
            std::fs::File::open(format!("/proc/{pid}/fd/{}", welcome["network"])).expect("open the namespace");
        Self { command, link, pid, namespace: namespace.into() }
    }

    /// Does something in the network namespace.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.namespace.as_fd(), work)
    }

    fn publish(&self, transport: &str, host: &str, guest: &str, socket: Option<BorrowedFd<'_>>) -> Value {
        let publication = json!({ "container": "one", "transport": transport, "host": host, "guest": guest });
        ask(&self.link, &json!({ "publish": publication }), socket)
    }

    fn published(&self, transport: &str, host: &str, guest: &str) -> u16 {
        let answer = self.publish(transport, host, guest, None);
        let port = answer["published"]["port"].as_u64().unwrap_or_else(|| panic!("{answer}"));
        u16::try_from(port).expect("a port")
    }

    fn status(&self) -> Value {
        ask(&self.link, &json!("status"), None)["status"].clone()
    }

    /// Ends both leases, and waits for the process's end.
    fn end(mut self, scene: &Scene) {
        let pidfd = open_process(self.pid);
        self.command.close_input();
        self.command.finish().success();
        drop(self.link);
        wait(pidfd.as_fd());
        let left: Vec<_> = std::fs::read_dir(scene.run_root().join("rootless-network"))
            .expect("list the folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["lock"]);
    }
}

/// A network namespace behind the user's, as a container's is.
struct Neighbour {
    process: std::process::Child,
    namespace: OwnedFd,
}

/// Its addresses, and those of the user's namespace beside it.
const NEIGHBOUR: [&str; 2] = ["10.88.0.2", "fd88::2"];
const BESIDE: [&str; 2] = ["10.88.0.1", "fd88::1"];

impl Neighbour {
    fn new(networks: &Networks<'_>) -> Self {
        let mut process = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo there; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("run unshare");
        process.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).expect("a namespace");
        let pid = process.id();
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("open the namespace").into();
        networks.inside(|| {
            ip(&format!("link add hk-v0 mtu 65520 type veth peer name eth0 mtu 65520 netns {pid}"));
            ip("link set hk-v0 up");
            ip(&format!("address add {}/24 dev hk-v0", BESIDE[0]));
            ip(&format!("address add {}/64 dev hk-v0 nodad", BESIDE[1]));
        });
        let neighbour = Self { process, namespace };
        neighbour.inside(|| {
            ip("link set eth0 up");
            for ((own, beside), length) in NEIGHBOUR.iter().zip(BESIDE).zip([24, 64]) {
                let how = if length == 64 { " nodad" } else { "" };
                ip(&format!("address add {own}/{length} dev eth0{how}"));
                ip(&format!("route add default via {beside}"));
            }
        });
        neighbour
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.namespace.as_fd(), work)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// The user's network process.
pub(crate) fn process_of(scene: &Scene) -> i32 {
    let link = connect(&scene.run_root().join("rootless-network/control"));
    let pid = ask(&link, &json!("hello"), None)["welcome"]["pid"].as_i64().expect("a pid");
    i32::try_from(pid).expect("a pid")
}

fn inside<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let work = scope.spawn(|| {
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).expect("enter the namespace");
            work()
        });
        work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn open_process(pid: i32) -> OwnedFd {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("open the process")
}

fn wait(pidfd: BorrowedFd<'_>) {
    let patience = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(pidfd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1), "the process goes on");
}

fn connect(path: &Path) -> OwnedFd {
    let folder = std::fs::File::open(path.parent().expect("in a folder")).expect("open the folder");
    let link =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let path = format!("/proc/self/fd/{}/control", std::os::fd::AsRawFd::as_raw_fd(&folder));
    rustix::net::connect(&link, &rustix::net::SocketAddrUnix::new(path).unwrap()).expect("connect");
    link
}

fn ask(link: &OwnedFd, request: &Value, fd: Option<BorrowedFd<'_>>) -> Value {
    let bytes = request.to_string().into_bytes();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fd.into_iter().collect();
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    rustix::net::sendmsg(link, &[std::io::IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL).expect("ask");
    let mut buffer = vec![0; 1 << 16];
    let (length, _) = rustix::net::recv(link, &mut buffer[..], rustix::net::RecvFlags::empty()).expect("an answer");
    serde_json::from_slice(&buffer[..length]).expect("JSON")
}

/// Bytes that are told from each other wherever they are.
fn pattern(length: usize) -> Vec<u8> {
    // Of a prime length, so that no packet is like another.
    let block = (0..65_521_u64).map(|place| place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]);
    let mut bytes = block.collect::<Vec<u8>>().repeat(length / 65_521 + 1);
    bytes.truncate(length);
    bytes
}

/// Takes everything from a caller until it ends its half, and sends `answer` back.
fn serve_once(listener: &TcpListener, expected: &[u8], answer: &[u8]) -> SocketAddr {
    let (mut stream, from) = listener.accept().expect("a caller");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("read until the end");
    assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
    stream.write_all(answer).expect("answer");
    from
}

/// Says everything, ends this half, and takes the answer; gives the own address.
fn call(to: SocketAddr, said: &[u8], expected: &[u8]) -> SocketAddr {
    let mut stream =
        TcpStream::connect_timeout(&to, PATIENCE).unwrap_or_else(|error| panic!("connect to {to}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let own = stream.local_addr().unwrap();
    stream.write_all(said).expect("speak");
    stream.shutdown(Shutdown::Write).expect("end one half");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("read until the end");
    assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
    own
}

fn streams_pass_both_ways(scene: &Scene) {
    let _outside = Outside::new(scene);
    let networks = Networks::start(scene);
    let (much, more) = (pattern(50_000_000), pattern(49_999_999));
    for (address, length) in OUTSIDE.iter().zip([much.len(), 3_000_000]) {
        let listener = TcpListener::bind((*address, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let (up, down) = (&much[..length], &more[..length - 1]);
        thread::scope(|scope| {
            let server = scope.spawn(|| serve_once(&listener, up, down));
            networks.inside(|| call(to, up, down));
            assert_eq!(server.join().unwrap().ip(), to.ip(), "by the host's routes");
        });
    }

    // Many at once, each a socket of the host's, and none of them left.
    let listener = TcpListener::bind((OUTSIDE[0], 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let (mut accepted, mut called) = thread::scope(|scope| {
        let accepting = scope.spawn(|| (0..200).map(|_| listener.accept().unwrap().0).collect::<Vec<_>>());
        let called = networks.inside(|| (0..200).map(|_| TcpStream::connect(to).unwrap()).collect::<Vec<_>>());
        (accepting.join().unwrap(), called)
    });
    assert_eq!(networks.status()["connections"], 200);
    for (number, stream) in called.iter_mut().enumerate() {
        stream.write_all(&[u8::try_from(number).unwrap()]).unwrap();
    }
    for stream in &mut accepted {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(&byte).unwrap();
    }
    for (number, stream) in called.iter_mut().enumerate() {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(usize::from(byte[0]), number);
    }
    drop(called);
    for stream in &mut accepted {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    drop(accepted);

    // It has what the user has, and gives away what it does not need.
    let status = read_host(format!("/proc/{}/status", networks.pid));
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }

    // What fails, fails as it would on the host.
    drop(listener);
    let on_loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = on_loopback.local_addr().unwrap().port();
    let failures = networks.inside(|| {
        let fail = |to: SocketAddr| TcpStream::connect_timeout(&to, PATIENCE).map(drop).unwrap_err().raw_os_error();
        [
            fail(to),
            fail((OUTSIDE[1].parse::<IpAddr>().unwrap(), 9).into()),
            fail("198.51.100.1:80".parse().unwrap()),
            fail("[2001:db8:1::1]:80".parse().unwrap()),
            fail((GATEWAY[0].parse::<IpAddr>().unwrap(), port).into()),
        ]
    });
    let expected =
        [libc::ECONNREFUSED, libc::ECONNREFUSED, libc::ENETUNREACH, libc::ENETUNREACH, libc::ECONNREFUSED].map(Some);
    assert_eq!(failures, expected, "{}", networks.status());
    on_loopback.set_nonblocking(true).unwrap();
    assert!(on_loopback.accept().is_err(), "the host's loopback is nobody's but the host's");
    networks.end(scene);
}

/// Has the one speak for long and the other listen; gives how many connections are carried meanwhile.
fn carried(networks: &Networks<'_>, speaker: &mut TcpStream, listener: &mut TcpStream, said: &[u8]) -> u64 {
    for stream in [&*speaker, listener] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| speaker.write_all(said).expect("speak"));
        let mut heard = vec![0; said.len()];
        listener.read_exact(&mut heard).expect("listen");
        assert!(heard == said, "{} bytes", said.len());
    });
    networks.status()["carried"].as_u64().expect("a number")
}

/// Hears that its peer has ended the connection at once.
fn is_reset(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0; 16]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// Whether a socket of this namespace has sent what is not acknowledged.
fn has_something_to_send() -> bool {
    let tables = ["tcp", "tcp6"].map(|table| read_host(format!("/proc/thread-self/net/{table}")));
    let queues =
        tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(|line| line.split_whitespace().nth(4));
    queues.into_iter().any(|queue| !queue.starts_with("00000000:"))
}

fn close_at_once(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

fn long_connections_are_carried_by_the_kernel(scene: &Scene) {
    let _outside = Outside::new(scene);
    let networks = Networks::start(scene);
    let neighbour = Neighbour::new(&networks);
    let much = pattern(30_000_000);
    let (said, answered) = (&much[..], &much[1000..20_000_000]);
    for (address, own) in OUTSIDE.iter().zip(NEIGHBOUR) {
        // To the world.
        let world = TcpListener::bind((*address, 0)).unwrap();
        let mut caller = neighbour.inside(|| TcpStream::connect(world.local_addr().unwrap()).unwrap());
        let (mut called, _) = world.accept().unwrap();
        assert_eq!(caller.peer_addr().unwrap(), world.local_addr().unwrap());
        assert_eq!(carried(&networks, &mut caller, &mut called, &said[..500_000]), 0, "it is not worth the while");
        assert_eq!(carried(&networks, &mut caller, &mut called, said), 1);
        assert_eq!(carried(&networks, &mut called, &mut caller, answered), 1);
        // What is urgent is there, and what is behind it.
        rustix::net::send(&called, b"!", SendFlags::OOB).unwrap();
        assert_eq!(carried(&networks, &mut called, &mut caller, b""), 1);
        called.write_all(b"and more").unwrap();
        let mut heard = [0; 9];
        caller.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"!and more");
        // Each side ends by itself.
        caller.shutdown(Shutdown::Write).unwrap();
        assert_eq!(called.read(&mut [0]).unwrap(), 0);
        assert_eq!(carried(&networks, &mut called, &mut caller, answered), 1);
        drop(called);
        assert_eq!(caller.read(&mut [0]).unwrap(), 0);
        drop(caller);

        // From the world: the container knows who calls, and sees no difference.
        let server = neighbour.inside(|| TcpListener::bind((own, 0)).unwrap());
        let port = networks.published("tcp", &host_port(address), &server.local_addr().unwrap().to_string());
        let mut callers: Vec<_> = (0..4).map(|_| TcpStream::connect((*address, port)).unwrap()).collect();
        let mut called: Vec<_> = callers.iter().map(|_| server.accept().unwrap()).collect();
        for ((stream, from), caller) in called.iter_mut().zip(&mut callers) {
            assert_eq!(*from, caller.local_addr().unwrap());
            carried(&networks, stream, caller, said);
            carried(&networks, caller, stream, answered);
            assert_eq!(stream.peer_addr().unwrap(), *from);
        }
        assert_eq!(networks.status()["carried"], 4);
        // An answer is heard though nobody listens to the question any more.
        let (mut caller, (mut stream, _)) = (callers.remove(0), called.remove(0));
        let process = open_process(networks.pid);
        let signal = |signal| rustix::process::pidfd_send_signal(&process, signal).unwrap();
        signal(rustix::process::Signal::STOP);
        caller.write_all(&said[..100_000]).unwrap();
        stream.write_all(b"enough").unwrap();
        while neighbour.inside(has_something_to_send) {}
        close_at_once(stream);
        signal(rustix::process::Signal::CONT);
        let mut heard = [0; 6];
        caller.read_exact(&mut heard).unwrap();
        assert!(&heard == b"enough" && is_reset(&mut caller));
        // Who is cut off hears of it, from either side, and from the middle.
        close_at_once(called.remove(0).0);
        assert!(is_reset(&mut callers.remove(0)));
        close_at_once(callers.remove(0));
        assert!(is_reset(&mut called.remove(0).0));
        ask(&networks.link, &json!({ "forget": { "addresses": [own] } }), None);
        assert!(is_reset(&mut called.remove(0).0) && is_reset(&mut callers.remove(0)));
        assert_eq!((&networks.status()["carried"], &networks.status()["connections"]), (&json!(0), &json!(0)));
        // One that has the same ends as one before.
        let own_port = call_from_port(&networks, address, 0, port, &server);
        assert_eq!(call_from_port(&networks, address, own_port, port, &server), own_port);
        // What is left of the first would have answered the container, and cost a second.
        let sockets = networks.inside(|| read_host("/proc/thread-self/net/sockstat"));
        assert!(sockets.contains(" tw 0 "), "{sockets}");
    }

    // Without who makes the sockets all goes on as it did; and that has nothing but them.
    let status = read_host(format!("/proc/{}/status", children_of(networks.pid)[0]));
    for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let maker = rustix::process::Pid::from_raw(children_of(networks.pid)[0]).unwrap();
    rustix::process::kill_process(maker, rustix::process::Signal::KILL).unwrap();
    let world = TcpListener::bind((OUTSIDE[0], 0)).unwrap();
    let mut caller = neighbour.inside(|| TcpStream::connect(world.local_addr().unwrap()).unwrap());
    let (mut called, _) = world.accept().unwrap();
    assert_eq!(carried(&networks, &mut caller, &mut called, answered), 0);
    drop((caller, called, neighbour));
    networks.end(scene);
}

fn host_port(address: &str) -> String {
    SocketAddr::new(address.parse().unwrap(), 0).to_string()
}

/// Calls a server from a port, says much, and ends first; gives the port.
fn call_from_port(networks: &Networks<'_>, from: &str, port: u16, to: u16, server: &TcpListener) -> u16 {
    let family = if from.contains(':') { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(from.parse().unwrap(), port)).unwrap();
    rustix::net::connect(&socket, &SocketAddr::new(from.parse().unwrap(), to)).unwrap();
    let mut caller = TcpStream::from(socket);
    let own = caller.local_addr().unwrap().port();
    let (mut called, _) = server.accept().unwrap();
    assert_eq!(carried(networks, &mut caller, &mut called, &pattern(10_000_000)), 1);
    caller.shutdown(Shutdown::Write).unwrap();
    assert_eq!(called.read(&mut [0]).unwrap(), 0);
    drop(called);
    assert_eq!(caller.read(&mut [0]).unwrap(), 0);
    own
}

fn children_of(pid: i32) -> Vec<i32> {
    let children = read_host(format!("/proc/{pid}/task/{pid}/children"));
    children.split_whitespace().map(|child| child.parse().expect("a pid")).collect()
}

fn datagrams_and_echoes_pass(scene: &Scene) {
    let _outside = Outside::new(scene);
    let networks = Networks::start(scene);
    let most = pattern(65_507);
    for (address, other, length) in [(OUTSIDE[0], CALLER[0], 65_507), (OUTSIDE[1], CALLER[1], 65_400)] {
        let server = UdpSocket::bind((address, 0)).unwrap();
        let (stranger, friend) = (UdpSocket::bind((other, 0)).unwrap(), UdpSocket::bind((address, 0)).unwrap());
        for socket in [&server, &stranger, &friend] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let to = server.local_addr().unwrap();
        let client = networks.inside(|| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let client = UdpSocket::bind(any).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(&most[..length], to).unwrap();
            client
        });
        let mut buffer = vec![0; 1 << 16];
        let (got, from) = server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..got] == most[..length], "{got} of {length} bytes");
        // Nobody who was not spoken to is heard; another port of who was, is.
        stranger.send_to(b"stranger", from).unwrap();
        friend.send_to(b"friend", from).unwrap();
        server.send_to(&most[..length], from).unwrap();
        let (got, whose) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..got], whose), (&b"friend"[..], friend.local_addr().unwrap()));
        let (got, whose) = client.recv_from(&mut buffer).unwrap();
        assert!(whose == to && buffer[..got] == most[..length], "{got} of {length} bytes");
        // The same socket for all whom one port speaks to.
        client.send_to(b"hello", stranger.local_addr().unwrap()).unwrap();
        assert_eq!(stranger.recv_from(&mut buffer).unwrap().1.port(), from.port());

        drop(friend);
        let closed = SocketAddr::new(to.ip(), to.port());
        drop(server);
        client.connect(closed).unwrap();
        client.send(b"anybody?").unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    }

    let may_ping = |range: &str| write(Path::new("/proc/sys/net/ipv4/ping_group_range"), range);
    may_ping("1 0");
    let account = scene.account().gid;
    assert!(!networks.inside(|| ping(OUTSIDE[0].parse().unwrap(), Duration::from_millis(50))));
    assert_eq!((&networks.status()["may_ping"], &networks.status()["dropped"]["echo"]), (&json!(false), &json!(1)));
    may_ping(&format!("{account} {account}"));
    for address in OUTSIDE {
        assert!(networks.inside(|| ping(address.parse().unwrap(), PATIENCE)), "{address}: {}", networks.status());
    }
    may_ping("1 0");
    networks.end(scene);
}

/// Sends an echo request, and waits for its answer.
fn ping(to: IpAddr, patience: Duration) -> bool {
    use rustix::net::{ipproto, sockopt};
    let (family, protocol, kinds) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, [8, 0]),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, [128, 129]),
    };
    let socket =
        rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).expect("a socket");
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience)).unwrap();
    let mut message = [kinds[0], 0, 0, 0, 0x12, 0x34, 0, 1, b'h', b'i'];
    let sum = message.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("a sum of a few words");
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    rustix::net::sendto(&socket, &message, SendFlags::empty(), &SocketAddr::new(to, 0)).expect("send");
    let mut buffer = [0; 128];
    while let Ok((length, _)) = rustix::net::recv(&socket, &mut buffer[..], rustix::net::RecvFlags::empty()) {
        let answer = &buffer[if to.is_ipv4() { 20 } else { 0 }..length];
        if answer[0] == kinds[1] && answer[4..] == message[4..] {
            return true;
        }
    }
    false
}

fn callers_keep_their_addresses(scene: &Scene) {
    let _outside = Outside::new(scene);
    let networks = Networks::start(scene);
    let data = pattern(1_000_000);
    for family in [0, 1] {
        let at = |address: &str, port: u16| SocketAddr::new(address.parse().unwrap(), port);
        let server = networks.inside(|| TcpListener::bind((INSIDE[family], 8080)).unwrap());
        let guest = at(INSIDE[family], 8080).to_string();
        let port = networks.published("tcp", &at(OUTSIDE[family], 0).to_string(), &guest);
        thread::scope(|scope| {
            let serving = scope.spawn(|| serve_once(&server, &data, &data[1..]));
            let own = call_from(CALLER[family], at(OUTSIDE[family], port), &data, &data[1..]);
            assert_eq!(serving.join().unwrap(), own);
        });
        // Who calls from the host's loopback could not be answered there.
        let loopback = if family == 0 { "127.0.0.1" } else { "::1" };
        let port = networks.published("tcp", &at(loopback, 0).to_string(), &guest);
        thread::scope(|scope| {
            let serving = scope.spawn(|| serve_once(&server, b"hi", b"there"));
            let own = call(at(loopback, port), b"hi", b"there");
            assert_eq!(serving.join().unwrap(), at(GATEWAY[family], own.port()));
        });
        drop(server);
        let mut refused = TcpStream::connect(at(loopback, port)).unwrap();
        refused.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(refused.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));

        let server = networks.inside(|| UdpSocket::bind((INSIDE[family], 5353)).unwrap());
        let guest = at(INSIDE[family], 5353).to_string();
        for (host, caller, seen) in
            [(OUTSIDE[family], CALLER[family], CALLER[family]), (loopback, loopback, GATEWAY[family])]
        {
            let port = networks.published("udp", &at(host, 0).to_string(), &guest);
            let client = UdpSocket::bind((caller, 0)).unwrap();
            for socket in [&client, &server] {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            client.connect(at(host, port)).unwrap();
            client.send(b"question").unwrap();
            let mut buffer = [0; 64];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"question"[..], at(seen, client.local_addr().unwrap().port())));
            server.send_to(b"answer", from).unwrap();
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"answer");
        }
    }

    // A socket of the caller's is as good as one of its own, and is not read as what it is not.
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = passed.local_addr().unwrap();
    let guest = format!("{}:8081", INSIDE[0]);
    let answer = networks.publish("tcp", "127.0.0.1:0", &guest, Some(passed.as_fd()));
    assert_eq!(answer["published"]["port"], to.port());
    drop(passed);
    let server = networks.inside(|| TcpListener::bind((INSIDE[0], 8081)).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| serve_once(&server, b"hi", b"there"));
        call(to, b"hi", b"there");
    });
    // What goes on with an address that is somebody else's by now is cut off, on both sides.
    let mut caller = TcpStream::connect(to).unwrap();
    let (mut called, _) = server.accept().unwrap();
    ask(&networks.link, &json!({ "forget": { "addresses": [INSIDE[0]] } }), None);
    for stream in [&mut caller, &mut called] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    }
    let file = std::fs::File::open("/dev/null").unwrap();
    let answer = networks.publish("tcp", "127.0.0.1:0", &guest, Some(file.as_fd()));
    assert!(answer["failed"]["message"].as_str().unwrap().contains("does not listen"), "{answer}");

    // Who has an address that a network inside has, too, could not be answered there.
    ask(&networks.link, &json!({ "know": { "blocks": ["192.0.2.8/29"] } }), None);
    let port = networks.published("tcp", &format!("{}:0", OUTSIDE[0]), &guest);
    thread::scope(|scope| {
        let serving = scope.spawn(|| serve_once(&server, b"hi", b"there"));
        let own = call_from(CALLER[0], (OUTSIDE[0].parse::<IpAddr>().unwrap(), port).into(), b"hi", b"there");
        let seen = serving.join().unwrap();
        assert_eq!((seen.ip().to_string(), seen.port()), (GATEWAY[0].to_owned(), own.port()));
    });

    let taken = networks.publish("tcp", &to.to_string(), &format!("{}:8082", INSIDE[0]), None);
    assert!(taken["failed"]["message"].as_str().unwrap().ends_with("(EADDRINUSE)"), "{taken}");
    assert!(taken["failed"]["hint"].as_str().unwrap().contains("container one"), "{taken}");
    let low = networks.publish("tcp", "127.0.0.1:80", &guest, None);
    assert!(low["failed"]["hint"].as_str().unwrap().contains("net.ipv4.ip_unprivileged_port_start=80"), "{low}");
    assert_eq!(networks.status()["published"], 10);
    ask(&networks.link, &json!({ "withdraw": { "container": "one" } }), None);
    assert_eq!(networks.status()["published"], 0);
    drop(TcpListener::bind(to).expect("the port is free again"));
    networks.end(scene);
}

/// Calls from an address of one's own choice.
fn call_from(from: &str, to: SocketAddr, said: &[u8], expected: &[u8]) -> SocketAddr {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let own = stream.local_addr().unwrap();
    stream.write_all(said).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
    own
}

/// The namespaces live as long as somebody in them; whoever comes next finds them, and gives them a way out again.
fn a_killed_process_is_replaced(scene: &Scene) {
    let _outside = Outside::new(scene);
    let first = Networks::start(scene);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", first.pid)).unwrap();
    let limits = limits.lines().find_map(|line| line.strip_prefix("Max pending signals")).unwrap();
    let (soft, hard) = limits.trim().split_once(' ').unwrap();
    assert_eq!(Some(soft), hard.split_whitespace().next());
    let server = first.inside(|| TcpListener::bind((INSIDE[0], 8080)).unwrap());
    let pidfd = open_process(first.pid);
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    wait(pidfd.as_fd());
    let Networks { mut command, namespace, link, pid } = first;
    drop(link);

    let second = Networks::start(scene);
    assert_ne!(second.pid, pid);
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
    assert_eq!(inode(&second.namespace), inode(&namespace), "the same namespace");
    let listener = TcpListener::bind((OUTSIDE[0], 0)).unwrap();
    let to = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| serve_once(&listener, b"again", b"yes"));
        inside(namespace.as_fd(), || call(to, b"again", b"yes"));
        // Who publishes what it has published already is told so.
        let guest = format!("{}:8080", INSIDE[0]);
        let port = second.published("tcp", &format!("{}:0", OUTSIDE[0]), &guest);
        assert_eq!(second.published("tcp", &format!("{}:{port}", OUTSIDE[0]), &guest), port);
        scope.spawn(|| serve_once(&server, b"still", b"there"));
        call((OUTSIDE[0].parse::<IpAddr>().unwrap(), port).into(), b"still", b"there");
    });

    // It is kept by those who held the namespaces before, and not longer.
    let Networks { command: mut other, link, pid, .. } = second;
    other.close_input();
    other.finish().success();
    assert_eq!(ask(&link, &json!("status"), None)["status"]["kept_by"], 1);
    drop(link);
    let again = connect(&scene.run_root().join("rootless-network/control"));
    drop(again);
    let pidfd = open_process(pid);
    command.close_input();
    command.finish().success();
    wait(pidfd.as_fd());
}
