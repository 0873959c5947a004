//! What is led where, and what is not: between this host's own interfaces, within a network, past its bridge.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use super::support::scene::write;
use super::support::stage::{HOST, Stage, address, husk, image, inside, inspect, ip, nft, run, start, wait_until};
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let network = |test: Test| {
        test.root().needs(Need::Husk).needs(Need::Busybox).needs(Need::Program("ip")).needs(Need::Program("nft"))
    };
    vec![
        network(test!(a_host_that_was_no_router_becomes_none)),
        network(test!(containers_of_a_network_can_be_kept_apart)),
        network(test!(a_bridge_can_be_somebody_else_s)),
        network(test!(containers_with_user_namespaces_have_networks)),
    ]
}

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Somebody at another interface of the host.
struct Neighbour(Child);

impl Neighbour {
    const ADDRESS: &'static str = "203.0.113.2";

    fn new() -> Self {
        let child = Command::new("unshare").args(["-n", "sleep", "100"]).spawn().expect("start a neighbour");
        let neighbour = Self(child);
        let pid = neighbour.0.id();
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("read a link");
        wait_until("it has a namespace", || {
            std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|namespace| namespace != own)
        });
        ip(&format!("link add out1 type veth peer name in1 netns {pid}"));
        ip("address add 203.0.113.1/24 dev out1");
        ip("link set out1 up");
        for words in ["address add 203.0.113.2/24 dev in1", "link set in1 up", "route add default via 203.0.113.1"] {
            run("nsenter", &format!("-t {pid} -n ip {words}"));
        }
        neighbour
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_host_that_was_no_router_becomes_none(scene: &Scene) {
    let stage = Stage::new();
    let _neighbour = Neighbour::new();
    write(Path::new(FORWARD), "0");
    stage.outside(|| ip(&format!("route add 203.0.113.0/24 via {HOST}")));
    // Who is reached says that nobody listens.
    let reaches = || {
        stage.outside(|| {
            let at: SocketAddr = format!("{}:7000", Neighbour::ADDRESS).parse().expect("an address");
            let refused = TcpStream::connect_timeout(&at, Duration::from_millis(300)).expect_err("nobody listens");
            refused.kind() == ErrorKind::ConnectionRefused
        })
    };
    assert!(!reaches());
    let layout = image(scene);
    husk(scene, &["network", "create", "front"]).success();
    let call = format!("nc -w 2 {} 7000 </dev/null 2>&1 | grep -c refused", Neighbour::ADDRESS);
    assert_eq!(inside(scene, &layout, &["--network", "front"], &call).stdout, "1\n", "containers are forwarded");
    assert_eq!(run("cat", FORWARD), "1\n");
    assert!(!reaches(), "nobody else is");
    // One that is a router by itself stays one.
    std::fs::remove_file(scene.run_root().join("networks/.forwarding")).expect("forget what was");
    husk(scene, &["network", "reload"]).success();
    assert!(reaches());
}

fn containers_of_a_network_can_be_kept_apart(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    let apart = ["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart"];
    husk(scene, &apart).success();
    let serve = "echo hello > /a; httpd -f -h /";
    start(scene, &layout, &["--name", "one", "--network", "apart", "-p", "8080:80"], serve);
    let one = address(scene, "apart", "one");
    // Neither over the bridge, nor by the gateway.
    let script = format!(
        "timeout 1 nc {one} 80 </dev/null && echo bridge; \
         ip route add {one}/32 via 172.17.0.1 && timeout 1 nc {one} 80 </dev/null && echo gateway; true"
    );
    let flags = ["--network", "apart", "--cap-add", "NET_ADMIN"];
    assert_eq!(inside(scene, &layout, &flags, &script).success().stdout, "");
    // By a published port they do; also where nothing goes out in the host's name.
    let plain = ["network", "create", "-o", "com.docker.network.bridge.enable_ip_masquerade=false", "plain"];
    husk(scene, &plain).success();
    start(scene, &layout, &["--name", "two", "--network", "plain", "-p", "8081:80"], serve);
    let get = format!("printf 'GET /a HTTP/1.0\\r\\n\\r\\n' | timeout 2 nc {HOST} 8081 | tail -n 1");
    assert_eq!(inside(scene, &layout, &["--network", "plain"], &get).stdout, "hello\n");
    // As it is where nobody looks at what bridges forward; and itself, whose own address the kernel would take from nobody else.
    let watched = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if watched.exists() {
        write(watched, "0");
    }
    assert_eq!(inside(scene, &layout, &["--network", "plain"], &get).stdout, "hello\n");
    let itself = husk(scene, &["exec", "two", "/bin/busybox", "sh", "-c", &get]).success();
    assert_eq!(itself.stdout, "hello\n");
    husk(scene, &["rm", "-f", "one", "two"]).success();
}

fn a_bridge_can_be_somebody_else_s(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    ip("link add theirs type bridge");
    for (network, bridge) in [("one", "theirs"), ("two", "ours"), ("three", "out0")] {
        let option = format!("com.docker.network.bridge.name={bridge}");
        husk(scene, &["network", "create", "-o", &option, network]).success();
    }
    inside(scene, &layout, &["--network", "three"], "true").exits_with(125).says("out0: it is there, and no bridge");
    for network in ["one", "two"] {
        inside(scene, &layout, &["--network", network], "true").success();
    }
    assert!(run("ip", "-br addr").contains("172.17.0.1"));
    for network in ["one", "two", "three"] {
        husk(scene, &["network", "rm", network]).success();
    }
    let left = run("ip", "-br addr");
    assert!(left.contains("theirs") && left.contains(HOST), "{left}");
    assert!(!left.contains("ours") && !left.contains("172.1"), "{left}");
    // Two networks whose interfaces have one name.
    husk(scene, &["network", "create", "front"]).success();
    let flags = ["--network", "front", "--network", "bridge:interface_name=eth0"];
    inside(scene, &layout, &flags, "true").exits_with(125).says("eth0 is there already in the container");
    assert!(nft("list table ip filter").is_err(), "nothing is made that is nobody's");
}

fn containers_with_user_namespaces_have_networks(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    husk(scene, &["network", "create", "front"]).success();
    start(scene, &layout, &["--name", "web", "--network", "front", "--userns", "auto"], "httpd -f -h /");
    for flags in [&["--userns", "auto"][..], &["--userns", "auto:size=2000"]] {
        let flags = [&["--network", "front", "-p", "8080:80"][..], flags].concat();
        let said =
            inside(scene, &layout, &flags, "nc web 80 </dev/null && cat /proc/self/uid_map && ip route").success();
        assert!(
            said.stdout.contains("default via 172.17.0.1") && !said.stdout.contains(" 0 4294967295"),
            "{}",
            said.stdout
        );
    }
    husk(scene, &["restart", "-t", "0", "web"]).success();
    assert!(inspect(scene, "web")["NetworkSettings"]["Networks"]["front"]["IPAddress"] == "172.17.0.2");
    husk(scene, &["rm", "-f", "web"]).success();
}
