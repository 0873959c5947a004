//! What packets do between containers, this host and the world: links, addresses, rules and published ports, from a
//! container's start to its end.
//!
//! Each scenario has a network namespace of its own for the host, and another for the world beyond it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::lifecycle::monitor_of;
use super::probe::raw::syscall;
use super::rootless_net::process_of;
use super::support::image::Image;
use super::support::launch::Step;
use super::support::stage::{
    HOST, HOST6, PATIENCE, Stage, Tun, WORLD, WORLD6, address, bridge, free_port, hear, hear_ok, husk, image, inside,
    inspect, kill_keepers, leases, nft, owners, page, run, start, wait_until,
};
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let network = |test: Test| {
        test.root().needs(Need::Husk).needs(Need::Busybox).needs(Need::Program("ip")).needs(Need::Program("nft"))
    };
    vec![
        test!(an_ordinary_user_s_containers_have_all_of_it)
            .users()
            .needs(Need::Husk)
            .needs(Need::Busybox)
            .needs(Need::File("/dev/net/tun"))
            .needs(Need::Capability(caps::Capability::CAP_SYS_ADMIN)),
        test!(an_ordinary_user_s_containers_have_no_rights_over_bridges)
            .user()
            .needs(Need::Husk)
            .needs(Need::Busybox)
            .needs(Need::Program("ip"))
            .needs(Need::File("/dev/net/tun"))
            .needs(Need::Capability(caps::Capability::CAP_SYS_ADMIN)),
        test!(a_way_out_that_was_killed_is_replaced_by_who_needs_it)
            .user()
            .needs(Need::Husk)
            .needs(Need::Busybox)
            .needs(Need::File("/dev/net/tun"))
            .needs(Need::Capability(caps::Capability::CAP_SYS_ADMIN)),
        network(test!(containers_reach_each_other_and_the_world)),
        network(test!(networks_are_cut_off_from_each_other)),
        network(test!(published_ports_know_their_callers)),
        network(test!(a_socket_that_was_passed_is_the_host_s_own_door)),
        network(test!(nobody_speaks_in_another_s_name)),
        network(test!(frames_that_are_forged_are_dropped)),
        network(test!(what_is_flushed_or_killed_is_made_right)),
        network(test!(networks_come_and_go_while_a_container_runs)),
        network(test!(ports_and_ways_follow_the_networks)),
        network(test!(a_drop_policy_of_another_firewall_lets_containers_through)),
    ]
}

fn an_ordinary_user_s_containers_have_all_of_it(scene: &Scene) {
    let _tun = Tun::new(scene);
    let layout = image(scene);
    for network in ["front", "back"] {
        husk(scene, &["network", "create", network]).success();
    }
    let flags = ["--name", "web", "--network", "front:alias=www", "-p", "127.0.0.1::80"];
    start(scene, &layout, &flags, "echo hello > /a; httpd -f -vv -h /");
    let get = "wget -q -O- http://www/a";
    assert_eq!(inside(scene, &layout, &["--network", "front"], get).success().stdout, "hello\n");
    // No wire is behind it, so what is sent in one piece goes in one.
    let mtu = inside(scene, &layout, &["--network", "front"], "cat /sys/class/net/eth0/mtu").success().stdout;
    assert_eq!(mtu, "65520\n");
    let web = address(scene, "front", "web");
    let elsewhere = format!("timeout 1 nc {web} 80 </dev/null && echo reached");
    assert_eq!(inside(scene, &layout, &["--network", "back"], &elsewhere).stdout, "", "another network's");
    let port = husk(scene, &["port", "web", "80"]).success().stdout;
    wait_until("the published port leads to it", || hear_ok(port.trim()));
    let log = husk(scene, &["logs", "web"]).success();
    let log = format!("{}{}", log.stdout, log.stderr);
    assert!(log.contains("172."), "it has seen its neighbour: {log}");
    husk(scene, &["restart", "-t", "0", "web"]).success();
    assert_eq!(inside(scene, &layout, &["--network", "front"], get).success().stdout, "hello\n");
    let others: &[_] = if scene.account().subordinate.is_some() { &[("nomap", 0), ("auto", 0)] } else { &[] };
    for (mode, id) in [("keep-id", scene.account().uid)].iter().chain(others) {
        let flags = ["--network", "front", "--userns", mode];
        let seen = inside(scene, &layout, &flags, &format!("id -u; {get}")).success().stdout;
        assert_eq!(seen, format!("{id}\nhello\n"), "{mode}");
    }
    // Who is in the same namespaces is in the same user namespace; one that is in no network is out of their reach.
    for joined in ["pid", "ipc", "userns", "network"] {
        let mut flags = vec![format!("--{joined}=container:web")];
        flags.extend((joined != "network").then(|| "--network=front".to_owned()));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        assert_eq!(inside(scene, &layout, &flags, get).success().stdout, "hello\n", "{joined}");
    }
    let path = format!("ns:/proc/{}/ns/pid", inspect(scene, "web")["State"]["Pid"]);
    let refused = inside(scene, &layout, &["--network", "front", "--pid", &path], "true");
    refused.exits_with(125).says("--pid container:NAME");
    start(scene, &layout, &["--name", "alone", "--network", "none"], "sleep 1000");
    let refused = inside(scene, &layout, &["--network", "front", "--ipc", "container:alone"], "true");
    refused.exits_with(125).says("of no container that is in a network");
    // A socket that the caller listens with serves the port that is published there, and nobody else could have that.
    for is_made_before in [true, false] {
        let port = free_port().port();
        let publish = format!("{port}:80");
        let words = ["--name", "given", "--network", "front", "-p", &publish, &layout.reference()];
        let words = [&words[..], &["/bin/busybox", "sh", "-c", "echo given > /a; httpd -f -h /"]].concat();
        let mut given = scene.husk();
        if is_made_before {
            husk(scene, &[&["create"], &words[..]].concat()).success();
            given.args(["start", "given"]);
        } else {
            given.args(["run", "-d"]).args(words);
        }
        let everywhere = SocketAddr::from(([0; 4], port));
        given.step(Step::Listen(everywhere)).step(Step::Activate(1, "")).run().success();
        wait_until("it serves what it was given", || page(&format!("127.0.0.1:{port}")).ends_with("given\n"));
        // That hears IPv4 alone; one of husk's own would hear both.
        assert!(TcpStream::connect(("::1", port)).is_err(), "made before: {is_made_before}");
        husk(scene, &["rm", "-f", "given"]).success();
    }
    husk(scene, &["rm", "-f", "web", "alone"]).success();
    wait_until("it has given back what it had", || leases(scene, "front") == serde_json::json!({}));
}

fn an_ordinary_user_s_containers_have_no_rights_over_bridges(scene: &Scene) {
    let _tun = Tun::new(scene);
    let layout = Image::probe(scene).layout(scene, "probe");
    for network in ["front", "back"] {
        husk(scene, &["network", "create", network]).success();
    }
    start(scene, &layout, &["--name", "web", "--network", "back"], "sleep 1000");
    let bridges = ["front", "back"].map(|network| bridge(scene, network));
    let try_all = |flags: &[&str]| {
        let mut words = vec!["/probe".to_owned()];
        let tries = bridges.iter().flat_map(|bridge| ["get", "delete"].map(|verb| format!("link:{verb}:{bridge}:0")));
        // The loopback, the way out, and whatever there may be of bridges and of ends that containers have.
        words.extend(
            tries
                .chain((1..10).map(|index| format!("link:join:{index}:0")))
                .flat_map(|word| ["--try".to_owned(), word]),
        );
        let mut command = scene.husk();
        command.args(["run", "--rm", "--network", "front"]).args(flags).arg(layout.reference()).args(words);
        let report = command.run().success().report();
        report["tries"].clone()
    };
    for flags in [&["--cap-add", "NET_ADMIN"][..], &["--privileged"]] {
        let tries = try_all(flags);
        let is_refused = |answer: &Value| answer == "EPERM" || answer == "EACCES";
        assert!(tries.as_object().expect("tries").values().all(is_refused), "{flags:?}: {tries}");
    }
    // Its own links are its own.
    let own = "/bin/busybox ip link set dev eth0 mtu 1400 && /bin/busybox ip link show eth0";
    let seen = inside(scene, &layout, &["--network", "front", "--cap-add", "NET_ADMIN"], own).success().stdout;
    assert!(seen.contains("mtu 1400"), "{seen}");
    let links = husk(scene, &["unshare", "--rootless-netns", "ip", "link"]).success().stdout;
    assert!(bridges.iter().all(|bridge| links.contains(bridge.as_str())), "{links}");
    husk(scene, &["rm", "-f", "web"]).success();
}

fn kill(pid: i32) {
    signal(pid, rustix::process::Signal::KILL);
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("send a signal");
}

/// Whether a process is in recvmsg(2), as who has asked the network process is, and a monitor at rest is not.
fn is_waiting_for_an_answer(pid: i32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&libc::SYS_recvmsg.to_string())
}

fn a_way_out_that_was_killed_is_replaced_by_who_needs_it(scene: &Scene) {
    let _tun = Tun::new(scene);
    let layout = image(scene);
    husk(scene, &["network", "create", "ashes"]).success();
    let at = free_port().to_string();
    let publish = format!("{at}:80");
    let flags = ["--name", "risen", "--network", "ashes", "--restart", "always", "-p", &publish];
    start(scene, &layout, &flags, "echo hello > /a; httpd -f -h /");
    let is_served = || page(&at).ends_with("hello\n");
    wait_until("it serves", is_served);
    // No command is made, and its port leads to it again.
    let first = process_of(scene);
    kill(first);
    wait_until("its monitor has had another made", is_served);
    let again = process_of(scene);
    assert_ne!(first, again);
    // Of one that dies so soon the monitor waits a little. Who finds another before that has its ports open as well.
    husk(scene, &["network", "create", "embers"]).success();
    kill(again);
    wait_until("it has gone", || !std::path::Path::new(&format!("/proc/{again}")).exists());
    husk(scene, &["network", "connect", "embers", "risen"]).success();
    wait_until("its port is open with another network", is_served);
    husk(scene, &["network", "disconnect", "embers", "risen"]).success();
    wait_until("its name server has gone", || name_servers("embers").is_empty());
    // While it is asked for something: what is left to be done is done with the next.
    for verb in [&["connect", "--gw-priority", "1"][..], &["disconnect"]] {
        let (asked, monitor) = (process_of(scene), monitor_of("risen"));
        signal(asked, rustix::process::Signal::STOP);
        let mut command = scene.husk();
        command.arg("network").args(verb).args(["embers", "risen"]);
        let command = command.spawn(Stdio::null(), Stdio::null(), Stdio::piped());
        wait_until("its monitor waits for an answer", || is_waiting_for_an_answer(monitor));
        kill(asked);
        let output = command.wait_with_output().expect("wait for the command");
        assert!(output.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&output.stderr));
        wait_until("its port is open by another", is_served);
    }
    let second = process_of(scene);
    // With the container at once, whose policy starts it again.
    let pid_of = || i32::try_from(inspect(scene, "risen")["State"]["Pid"].as_i64().expect("a pid")).expect("a pid");
    let pid = pid_of();
    kill(second);
    kill(pid);
    wait_until("it was started again", || is_served() && pid_of() != pid);
    // All that there is of husk: what is left is the container, and the next command gives it back what it had. A name server that
    // lives has sockets where nobody is any more, and makes room for another.
    for dies_as_well in [false, true] {
        let pid = pid_of();
        let namespaces = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("open its network namespace");
        let (monitor, third) = (monitor_of("risen"), process_of(scene));
        let servers = name_servers("ashes").into_iter().filter(|_| dies_as_well);
        for of_husk in [monitor, third].into_iter().chain(servers) {
            kill(of_husk);
        }
        if dies_as_well {
            wait_until("its links have gone", || links_in(&namespaces) == ["lo"]);
        }
        wait_until("it is looked after", || pid_of() == pid && is_served());
        assert_eq!(
            inside(scene, &layout, &["--network", "ashes"], "wget -q -O- http://risen/a").success().stdout,
            "hello\n"
        );
    }
    husk(scene, &["rm", "-f", "risen"]).success();
    wait_until("it has given back what it had", || leases(scene, "ashes") == serde_json::json!({}));
}

fn links_in(namespace: &std::fs::File) -> Vec<String> {
    thread::scope(|scope| {
        let look = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the namespace");
            let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("read the table of interfaces");
            let names = table.lines().skip(2).filter_map(|line| line.split_once(':'));
            names.map(|(name, _)| name.trim().to_owned()).collect()
        });
        look.join().expect("the thread ends")
    })
}

/// The processes that answer for names of a network that no other test has.
fn name_servers(network: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").expect("list processes").filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let words = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        words.starts_with(&format!("husk\0internal\0dns\0{network}\0")).then_some(pid)
    });
    pids.collect()
}

fn containers_reach_each_other_and_the_world(scene: &Scene) {
    let stage = Stage::new();
    let layout = image(scene);
    husk(scene, &["network", "create", "--ipv6", "front"]).success();
    start(scene, &layout, &["--name", "web", "--network", "front:alias=www"], "echo hello > /a; httpd -f -h /");
    let script = "wget -q -O- http://www/a && ip route && cat /etc/resolv.conf /etc/hosts";
    let seen = inside(scene, &layout, &["--network", "front", "--name", "other"], script).success().stdout;
    assert!(seen.starts_with("hello\n"), "{seen}");
    assert!(seen.contains("default via 172."), "{seen}");
    assert!(seen.contains("nameserver 172.") && seen.contains(" other\n"), "{seen}");
    let read = |network: &str, setting: &str| {
        let script = format!("cat /proc/sys/net/ipv6/conf/eth0/{setting}; ip -6 addr show eth0");
        inside(scene, &layout, &["--network", network], &script).success().stdout
    };
    assert!(read("front", "accept_ra").starts_with("0\n"));
    assert_eq!(read("bridge", "disable_ipv6"), "1\n");
    let listeners = stage.outside(|| {
        let listen = |at: &str| TcpListener::bind((at, 7000)).expect("listen in the world");
        [listen(WORLD), listen(WORLD6)]
    });
    // In the host's name, since the world does not know the containers.
    let served =
        thread::spawn(move || listeners.map(|listener| listener.accept().expect("a caller").1.ip().to_string()));
    let script = format!("nc {WORLD} 7000 </dev/null; nc {WORLD6} 7000 </dev/null");
    inside(scene, &layout, &["--network", "front"], &script).success();
    assert_eq!(served.join().unwrap(), [HOST, HOST6]);
    husk(scene, &["rm", "-f", "web"]).success();
    wait_until("no lease, no rule, and no name server", || {
        let rules = run("nft", "list ruleset");
        leases(scene, "front") == serde_json::json!({}) && !rules.contains("hv") && !rules.contains(" . 02:42:")
    });
}

fn networks_are_cut_off_from_each_other(scene: &Scene) {
    let stage = Stage::new();
    let layout = image(scene);
    for network in ["front", "back"] {
        husk(scene, &["network", "create", network]).success();
    }
    husk(scene, &["network", "create", "--internal", "deep"]).success();
    start(scene, &layout, &["--name", "one", "--network", "front"], "echo hello > /a; httpd -f -h /");
    start(scene, &layout, &["--name", "two", "--network", "deep"], "echo hello > /a; httpd -f -h /");
    let (one, two) = (address(scene, "front", "one"), address(scene, "deep", "two"));
    let get = |network: &str, address: &str| {
        let script = format!("printf 'GET /a HTTP/1.0\\r\\n\\r\\n' | timeout 1 nc {address} 80 | tail -n 1");
        inside(scene, &layout, &["--network", network], &script).stdout
    };
    assert_eq!((get("front", &one).as_str(), get("deep", &two).as_str()), ("hello\n", "hello\n"));
    assert_eq!((get("back", &one), get("front", &two), get("deep", &one)), Default::default());
    // Nothing that was not published is reached, whoever knows the way (docker's moby-44325 and its kin).
    assert_eq!(
        stage.outside({
            let at = format!("{one}:80");
            move || hear(&at)
        }),
        ""
    );
    let _listener = stage.outside(|| TcpListener::bind((WORLD, 7000)).expect("listen in the world"));
    let script = format!("timeout 1 nc {WORLD} 7000 </dev/null && echo reached");
    assert_eq!(inside(scene, &layout, &["--network", "deep"], &script).stdout, "");
    husk(scene, &["rm", "-f", "one", "two"]).success();
}

fn published_ports_know_their_callers(scene: &Scene) {
    let stage = Stage::new();
    let layout = image(scene);
    husk(scene, &["network", "create", "--ipv6", "front"]).success();
    let flags = ["--name", "web", "--network", "front", "-p", "8080:80", "-p", "7000-7010:81", "-p", "5300:53/udp"];
    let script = "echo hello > /a; httpd -f -vv -h / -p 80 & httpd -f -h / -p 81";
    start(scene, &layout, &flags, script);
    let get = |at: String| {
        move || {
            let mut stream = TcpStream::connect(at.parse::<SocketAddr>().expect("an address")).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("be patient");
            Write::write_all(&mut stream, b"GET /a HTTP/1.0\r\n\r\n").expect("ask");
            let mut said = String::new();
            let _ = stream.read_to_string(&mut said);
            said.lines().last().unwrap_or_default().to_owned()
        }
    };
    wait_until("it serves", || {
        TcpStream::connect(("127.0.0.1", 8080)).is_ok_and(|_| get("127.0.0.1:8080".to_owned())() == "hello")
    });
    for at in [format!("{HOST}:8080"), format!("[{HOST6}]:8080"), format!("{HOST}:7000")] {
        assert_eq!(stage.outside(get(at.clone())), "hello", "{at}");
    }
    for at in ["127.0.0.1:8080".to_owned(), "[::1]:8080".to_owned(), format!("{HOST}:8080")] {
        assert_eq!(get(at.clone())(), "hello", "{at}");
    }
    // The callers' own addresses, as the container saw them.
    let log = husk(scene, &["logs", "web"]).success();
    let log = format!("{}{}", log.stdout, log.stderr);
    assert!(log.contains(&format!("{WORLD}]:")) && log.contains(&format!("{WORLD6}]:")), "{log}");
    // A thread of ours stands for a server of datagrams.
    let pid = inspect(scene, "web")["State"]["Pid"].as_i64().expect("a pid");
    let (tell, told) = mpsc::channel();
    let echo = thread::spawn(move || {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("open the container's namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("enter it");
        let socket = UdpSocket::bind(("0.0.0.0", 53)).expect("hear in the container");
        tell.send(()).expect("the test waits");
        let mut buffer = [0; 16];
        let mut callers = Vec::new();
        for _ in 0..3 {
            let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
            socket.send_to(&buffer[..length], from).expect("answer");
            callers.push(from.ip().to_string());
        }
        callers
    });
    told.recv().expect("the server hears");
    let echoed = |at: &'static str| {
        move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("be patient");
            socket.send_to(b"echo", at).expect("send");
            let mut buffer = [0; 16];
            let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
            (String::from_utf8_lossy(&buffer[..length]).into_owned(), from.to_string())
        }
    };
    assert_eq!(stage.outside(echoed("198.51.100.1:5300")), ("echo".to_owned(), "198.51.100.1:5300".to_owned()));
    assert_eq!(echoed("127.0.0.1:5300")(), ("echo".to_owned(), "127.0.0.1:5300".to_owned()));
    let caller = stage.outside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("be patient");
        socket.send_to(b"echo", "198.51.100.1:5300").expect("send");
        socket.recv_from(&mut [0; 16]).expect("an answer");
        socket
    });
    assert_eq!(echo.join().unwrap(), [WORLD, "172.17.0.1", WORLD]);
    // A port has one owner, who is named.
    let refused = inside(scene, &layout, &["--network", "front", "-p", "8080:80"], "true");
    refused.exits_with(125).says("port is already allocated").says("container web has it");
    let taken = TcpListener::bind(("0.0.0.0", 8081)).expect("take a port");
    inside(scene, &layout, &["--network", "front", "-p", "8081:80"], "true").exits_with(125).says("already allocated");
    drop(taken);
    // Of a range the next.
    let flags = ["--name", "next", "--network", "front", "-p", "7000-7010:81", "-p", "80", "-p", "127.0.0.1:8082:81"];
    start(scene, &layout, &flags, "echo hello > /a; httpd -f -h / -p 81");
    let ports = husk(scene, &["port", "next"]).success().stdout;
    assert!(ports.contains("81/tcp -> 0.0.0.0:7001\n") && ports.contains("80/tcp -> 0.0.0.0:"), "{ports}");
    wait_until("it serves", || hear_ok("127.0.0.1:8082"));
    // At a loopback address it is for this host alone.
    assert_eq!(stage.outside(|| hear(&format!("{HOST}:8082"))), "");
    let before = address(scene, "front", "web");
    husk(scene, &["rm", "-f", "web", "next"]).success();
    // The next with that address hears nothing of who goes on talking to the one before.
    wait_until("it has given back what it had", || leases(scene, "front") == serde_json::json!({}));
    start(scene, &layout, &["--name", "heir", "--network", "front"], "sleep 100");
    assert_eq!(address(scene, "front", "heir"), before);
    let pid = inspect(scene, "heir")["State"]["Pid"].as_i64().expect("a pid");
    let heard = thread::spawn(move || {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("open the container's namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("enter it");
        let socket = UdpSocket::bind(("0.0.0.0", 53)).expect("hear in the container");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("be impatient");
        caller.send_to(b"echo", "198.51.100.1:5300").expect("send");
        socket.recv_from(&mut [0; 16]).is_ok()
    });
    assert!(!heard.join().unwrap(), "it was the former owner's");
    husk(scene, &["rm", "-f", "heir"]).success();
    assert!(TcpStream::connect(("127.0.0.1", 8080)).is_err(), "nobody has it");
    inside(scene, &layout, &["--network", "front", "-p", "8080:80"], "true").success();
}

/// Callers from elsewhere go by the rules all the same.
fn a_socket_that_was_passed_is_the_host_s_own_door(scene: &Scene) {
    let stage = Stage::new();
    let reference = image(scene).reference();
    husk(scene, &["network", "create", "front"]).success();
    let words = ["--name", "given", "--network", "front", "-p", "8080:80", &reference, "/bin/busybox", "sh", "-c"];
    let mut given = scene.husk();
    given.args(["run", "-d"]).args(words).arg("echo given > /a; httpd -f -h /");
    let everywhere = SocketAddr::from(([0; 4], 8080));
    given.step(Step::Listen(everywhere)).step(Step::Activate(1, "")).run().success();
    wait_until("it serves what it was given", || page("127.0.0.1:8080").ends_with("given\n"));
    // That hears IPv4 alone; one of husk's own would hear both.
    assert!(TcpStream::connect(("::1", 8080)).is_err(), "nobody has opened another");
    assert!(stage.outside(|| page(&format!("{HOST}:8080"))).ends_with("given\n"), "callers from elsewhere");
    // Who starts it by another command has to pass it again.
    husk(scene, &["stop", "-t", "0", "given"]).success();
    wait_until("it goes with the run", || TcpStream::connect(("127.0.0.1", 8080)).is_err());
    husk(scene, &["start", "given"]).success();
    wait_until("it serves by a socket of husk's own", || hear_ok("[::1]:8080"));
    husk(scene, &["rm", "-f", "given"]).success();
}

fn nobody_speaks_in_another_s_name(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    husk(scene, &["network", "create", "front"]).success();
    start(scene, &layout, &["--name", "web", "--network", "front"], "sleep 100");
    let web = address(scene, "front", "web");
    let other = "172.17.0.200";
    // Another address of the block, another Ethernet address: with the right to change its own interface, and not believed.
    let script = format!(
        "ping -c 1 -W 1 {web} >/dev/null && echo own; \
         ip addr flush dev eth0; ip addr add {other}/16 dev eth0; ping -c 1 -W 1 {web} >/dev/null && echo address; \
         arping -c 1 -w 1 -I eth0 {web} >/dev/null && echo arp; true"
    );
    let said = inside(scene, &layout, &["--network", "front", "--cap-add", "NET_ADMIN"], &script).success().stdout;
    assert_eq!(said, "own\n");
    let script = format!(
        "ip link set eth0 down; ip link set eth0 address 02:42:00:00:00:99; ip link set eth0 up; \
         ping -c 1 -W 1 {web} >/dev/null && echo link; true"
    );
    let said = inside(scene, &layout, &["--network", "front", "--cap-add", "NET_ADMIN"], &script).success().stdout;
    assert_eq!(said, "");
    husk(scene, &["rm", "-f", "web"]).success();
}

/// Sends a frame from inside a container, as CAP_NET_RAW lets it.
fn send_frame(pid: i64, frame: Vec<u8>) {
    let sent = thread::spawn(move || {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("open the container's namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("enter it");
        let links = run("ip", "-o link show eth0");
        let index: u32 = links.split(':').next().expect("a number").trim().parse().expect("a number");
        let socket = syscall(libc::SYS_socket, &[libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0]).expect("a socket");
        // `sockaddr_ll`.
        let mut to = vec![17, 0, 0, 3];
        to.extend(index.to_ne_bytes());
        to.extend([0, 0, 0, 6]);
        to.extend(frame[..6].iter().chain(&[0, 0]));
        let words = |bytes: &[u8]| [bytes.as_ptr() as i64, i64::try_from(bytes.len()).expect("short")];
        let ([frame_at, length], [to_at, to_length]) = (words(&frame), words(&to));
        let sent = syscall(libc::SYS_sendto, &[socket, frame_at, length, 0, to_at, to_length]).expect("send");
        assert_eq!(sent, length);
    });
    sent.join().expect("the frame is sent");
}

/// How many frames the rules for bridges have dropped, but for the rule that IPv6 itself runs into: it asks whether an address is
/// free by packets from none.
fn dropped() -> u64 {
    let rules = run("nft", "list ruleset bridge");
    let counts = rules
        .lines()
        .filter(|line| line.ends_with("drop") && !line.contains("ip6 saddr"))
        .filter_map(|line| line.split("packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

/// What is not the container's own address in its frame, but is another's word in it.
fn frames_that_are_forged_are_dropped(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    husk(scene, &["network", "create", "--ipv6", "front"]).success();
    start(scene, &layout, &["--name", "web", "--network", "front"], "sleep 100");
    let pid = inspect(scene, "web")["State"]["Pid"].as_i64().expect("a pid");
    let lease =
        leases(scene, "front").as_object().and_then(|all| all.values().next().cloned()).expect("it has a lease");
    let text = lease["mac"].as_str().expect("an address");
    let mac: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect();
    let own: std::net::Ipv6Addr = lease["addresses"][1].as_str().expect("an address").parse().expect("of IPv6");
    let mut gateway = own.octets();
    gateway[15] = 1;
    let ethernet = |kind: &[u8]| [&[0xff; 6][..], &mac, kind].concat();
    let icmp = |message: &[u8]| {
        let length = u16::try_from(message.len()).expect("short").to_be_bytes();
        let header = [&[0x60, 0, 0, 0][..], &length, &[58, 255], &own.octets(), &[0xff, 2], &[0; 13], &[1]].concat();
        [ethernet(&[0x86, 0xdd]), header, message.to_vec()].concat()
    };
    let advertisement = |target: &[u8; 16]| [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], target].concat();
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac, &[172, 17, 0, 1], &[0xff; 6], &[172, 17, 0, 9]].concat();
    let before = dropped();
    send_frame(pid, icmp(&advertisement(&own.octets())));
    assert_eq!(dropped(), before, "its own address is its own to tell of");
    for (number, frame) in (1..).zip([
        icmp(&[&[134, 0, 0, 0, 64, 0, 7, 8][..], &[0; 8]].concat()),
        icmp(&[&[137, 0, 0, 0, 0, 0, 0, 0][..], &gateway, &gateway].concat()),
        icmp(&advertisement(&gateway)),
        ethernet(&[&[8, 6][..], &arp].concat()),
        ethernet(&[&[0x81, 0, 0, 0, 0x81, 0, 0, 0, 8, 6][..], &arp].concat()),
    ]) {
        send_frame(pid, frame);
        assert_eq!(dropped(), before + number, "frame {number}");
    }
    // Nor is the host itself led astray: its bridge believes nobody.
    let bridge = run("ip", "-br link");
    let bridge = bridge.lines().find_map(|line| line.split_whitespace().next().filter(|name| name.starts_with("hk-")));
    let path = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", bridge.expect("there is a bridge"));
    assert_eq!(run("cat", &path), "0\n");
    husk(scene, &["rm", "-f", "web"]).success();
}

fn kernel() -> (u32, u32) {
    let release = run("uname", "-r");
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn parent_of(pid: i64) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")).expect("it has a parent").to_owned()
}

fn what_is_flushed_or_killed_is_made_right(scene: &Scene) {
    let stage = Stage::new();
    let layout = image(scene);
    husk(scene, &["network", "create", "front"]).success();
    let flags = ["--name", "web", "--network", "front", "-p", "8080:80"];
    start(scene, &layout, &flags, "echo hello > /a; httpd -f -h /");
    let is_reached = || stage.outside(|| hear_ok(&format!("{HOST}:8080")));
    wait_until("it serves", is_reached);
    // What was not published stays closed, whoever flushes the ruleset or loads another: husk's tables are owned (Linux 6.9).
    let hidden: SocketAddr = format!("{}:80", address(scene, "front", "web")).parse().expect("an address");
    let is_open = || stage.outside(move || TcpStream::connect_timeout(&hidden, Duration::from_millis(300)).is_ok());
    assert!(!is_open(), "it was not published");
    if kernel() >= (6, 9) {
        let tables = run("nft", "list tables inet");
        let table = tables.trim();
        nft("flush ruleset").expect("flush the ruleset");
        nft("flush ruleset; table ip other { }").expect("load another ruleset");
        for script in ["delete", "flush"] {
            nft(&format!("{script} {table}")).expect_err("it is another's");
        }
        nft(&format!("flush chain {} between", &table["table ".len()..])).expect_err("it is another's");
        assert!(is_reached() && !is_open());
        assert_eq!(husk(scene, &["ps"]).success().stderr, "");
        // The next container's monitor has a copy, and so has who looks after the first when its monitor was killed.
        start(scene, &layout, &["--name", "second", "--network", "front"], "sleep 100");
        kill_keepers(scene, 1);
        husk(scene, &["rm", "-f", "second"]).success();
        husk(scene, &["inspect", "web"]).success();
        wait_until("somebody keeps them", || owners() == 2);
        nft("flush ruleset").expect("flush the ruleset");
        assert!(is_reached() && !is_open());
    }
    // Where nobody keeps them they stay, unless somebody takes them away: that is said and mended.
    for loss in ["flush ruleset", "flush TABLE", "flush chain TABLE between; delete chain TABLE between"] {
        wait_until("nobody keeps them", || {
            kill_keepers(scene, usize::MAX);
            owners() == 0
        });
        assert!(is_reached() && !is_open());
        let tables = run("nft", "list tables inet");
        let table = tables.trim().strip_prefix("table ").expect("there is one");
        let loss = loss.replace("flush TABLE", "flush table TABLE").replace("TABLE", table);
        nft(&loss).expect("it is nobody's");
        let told = husk(scene, &["ps"]).success().stderr;
        // Where its monitor was killed, the next one has mended it by then.
        assert!(told.contains("husk network reload") || kernel() >= (6, 9), "{told}");
        husk(scene, &["network", "reload"]).success();
        assert_eq!(husk(scene, &["ps"]).success().stderr, "", "{loss}");
        assert!(run("nft", "list ruleset").contains("tcp . 8080") && is_reached(), "{loss}");
    }
    // A start finds out by itself.
    nft("flush ruleset").expect("flush the ruleset");
    inside(scene, &layout, &["--network", "front"], "true").success();
    assert!(run("nft", "list ruleset").contains("tcp . 8080") && is_reached());
    // Monitor and workload killed at once: the next command clears what they had.
    let pid = inspect(scene, "web")["State"]["Pid"].as_i64().expect("a pid");
    if kernel() >= (6, 9) {
        wait_until("its monitor is there", || owners() == 2);
        kill_keepers(scene, usize::MAX);
    } else {
        run("kill", &format!("-KILL {}", parent_of(pid)));
    }
    run("kill", &format!("-KILL {pid}"));
    inside(scene, &layout, &["--network", "front", "-p", "8080:80"], "true").success();
    wait_until("nothing is left", || {
        leases(scene, "front") == serde_json::json!({}) && !run("nft", "list ruleset").contains("8080")
    });
    husk(scene, &["rm", "-f", "web"]).success();
    husk(scene, &["network", "rm", "front"]).success();
    assert!(!run("ip", "-br link").contains("hk-"), "the bridge is gone");
}

fn networks_come_and_go_while_a_container_runs(scene: &Scene) {
    let _stage = Stage::new();
    let layout = image(scene);
    for network in ["front", "back"] {
        husk(scene, &["network", "create", network]).success();
    }
    start(scene, &layout, &["--name", "web", "--network", "front"], "echo hello > /a; httpd -f -h /");
    start(scene, &layout, &["--name", "two", "--network", "back"], "sleep 100");
    let get = || husk(scene, &["exec", "two", "/bin/busybox", "wget", "-q", "-O-", "http://web/a"]);
    get().exits_with(1);
    husk(scene, &["network", "connect", "front", "two"]).success();
    assert_eq!(get().success().stdout, "hello\n");
    husk(scene, &["network", "disconnect", "front", "two"]).success();
    get().exits_with(1);
    let links = husk(scene, &["exec", "two", "/bin/busybox", "ip", "link"]).success().stdout;
    assert!(links.contains("eth0") && !links.contains("eth1"), "{links}");
    // What was said while it ran holds for its next start.
    husk(scene, &["network", "connect", "front", "two"]).success();
    husk(scene, &["restart", "-t", "0", "two"]).success();
    assert_eq!(get().success().stdout, "hello\n");
    husk(scene, &["rm", "-f", "web", "two"]).success();
    husk(scene, &["network", "prune", "-f"]).success();
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}";
    let told = husk(scene, &["events", "--stream=false", "--since", "1h", "--format", format]).success().stdout;
    let told: Vec<&str> = told.lines().filter(|line| !line.contains("exec") && !line.starts_with("image")).collect();
    let expected = [
        "network create front",
        "network create back",
        "container create web",
        "network connect front",
        "container start web",
        "container create two",
        "network connect back",
        "container start two",
        "network connect front",
        "network disconnect front",
        "network connect front",
        "container kill two",
        "container die two",
        "network disconnect back",
        "network disconnect front",
        "container stop two",
        "network connect back",
        "network connect front",
        "container start two",
        "container restart two",
    ];
    let begun: Vec<&str> = told.iter().take(expected.len()).copied().collect();
    assert_eq!(begun, expected);
    let ended = ["network destroy back", "network destroy front", "network prune <no value>"];
    assert_eq!(told[told.len() - 3..], ended);
}

/// A container in several networks, of which the one goes that its ports were published by and its way out led through.
fn ports_and_ways_follow_the_networks(scene: &Scene) {
    let stage = Stage::new();
    let layout = image(scene);
    husk(scene, &["network", "create", "--internal", "inner"]).success();
    husk(scene, &["network", "create", "front"]).success();
    husk(scene, &["network", "create", "--ipv6", "back"]).success();
    let flags = ["--name", "web", "--network", "inner", "--network", "bridge", "--network", "front", "-p", "8080:80"];
    start(scene, &layout, &flags, "echo hello > /a; httpd -f -h /");
    let read = |script: &str| {
        let flags = ["exec", "web", "/bin/busybox", "sh", "-c", script];
        husk(scene, &flags).success().stdout
    };
    let default = |family: &str| {
        let routes = read(&format!("ip {family} route"));
        let found = routes.lines().find(|line| line.starts_with("default"));
        found.map(|line| line.split_whitespace().nth(4).unwrap_or_default().to_owned()).unwrap_or_default()
    };
    let is_reached = |at: &str| {
        let at = at.to_owned();
        stage.outside(move || hear_ok(&at))
    };
    let ([by_ipv4, by_ipv6], here) =
        ([HOST, &format!("[{HOST6}]")].map(|host| format!("{host}:8080")), "127.0.0.1:8080");
    wait_until("it serves", || is_reached(&by_ipv4) && hear_ok(here));
    // The first that leads anywhere; and whom it asks knows names, which `bridge` does not.
    assert_eq!((default("-4").as_str(), default("-6").as_str()), ("eth1", ""));
    let files = read("cat /etc/resolv.conf /etc/hosts");
    let own = ["inner", "bridge", "front"].map(|network| address(scene, network, "web"));
    assert!(own.iter().all(|address| files.contains(&format!("{address}\t"))), "{files}");
    assert!(files.contains("nameserver 172.17.0.1\n"), "{files}");
    // Nobody else knows the way by IPv6: what comes from elsewhere is led by rules, or not at all.
    assert!(!is_reached(&by_ipv6) && hear_ok("[::1]:8080"), "a relay is for this host alone");
    husk(scene, &["network", "disconnect", "bridge", "web"]).success();
    start(scene, &layout, &["--name", "next", "--network", "bridge"], "echo other > /a; httpd -f -h /");
    assert_eq!(address(scene, "bridge", "next"), own[1], "it has the address that has become free");
    assert_eq!(default("-4"), "eth2");
    let get = || run("wget", &format!("-q -O- http://{here}/a"));
    assert_eq!((get().as_str(), is_reached(&by_ipv4)), ("hello\n", true), "ports lead where the container is");
    let files = read("cat /etc/hosts");
    assert!(!files.contains(&own[1]), "{files}");
    // Of each family another one.
    husk(scene, &["network", "connect", "back", "web"]).success();
    assert_eq!((default("-4").as_str(), default("-6").as_str()), ("eth2", "eth1"));
    wait_until("it is reached by both", || is_reached(&by_ipv6) && is_reached(&by_ipv4) && hear_ok("[::1]:8080"));
    assert_eq!(husk(scene, &["port", "web"]).success().stdout, "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n");
    // Without a network that leads anywhere there is no port.
    for network in ["front", "back"] {
        husk(scene, &["network", "disconnect", network, "web"]).success();
    }
    assert_eq!(default("-4"), "");
    assert!(!hear_ok(here) && !is_reached(&by_ipv4), "nobody has the port");
    assert!(!run("nft", "list ruleset").contains("8080"), "no rule either");
    husk(scene, &["network", "disconnect", "inner", "web"]).success();
    let files = read("cat /etc/resolv.conf /etc/hosts");
    assert!(!files.contains("nameserver 172.") && files.contains("127.0.1.1\t"), "{files}");
    // And again, whoever has the monitor's place by then.
    let pid = inspect(scene, "web")["State"]["Pid"].as_i64().expect("a pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).expect("it has a parent");
    husk(scene, &["network", "connect", "front", "web"]).success();
    assert_eq!((get().as_str(), default("-4").as_str()), ("hello\n", "eth0"));
    run("kill", &format!("-KILL {parent}"));
    husk(scene, &["network", "connect", "back", "web"]).success();
    assert_eq!((get().as_str(), is_reached(&by_ipv6)), ("hello\n", true));
    // What is taken is refused, and changes nothing.
    start(scene, &layout, &["--name", "third", "--network", "inner", "-p", "8080:80"], "sleep 100");
    let refused = husk(scene, &["network", "connect", "bridge", "third"]);
    refused.exits_with(1).says("port is already allocated").says("container web has it");
    let links = husk(scene, &["exec", "third", "/bin/busybox", "ip", "link"]).success().stdout;
    assert!(links.contains("eth0") && !links.contains("eth1"), "{links}");
    // A name server in a container, beside those of the networks, which go on answering.
    let flags = ["--name", "names", "--network", "front", "-p", "53:53", "-p", "53:53/udp"];
    start(scene, &layout, &flags, "nc -ll -p 53 -e echo hello");
    wait_until("it is called", || hear("127.0.0.1:53") == "hello");
    assert_eq!(stage.outside(|| hear(&format!("{HOST}:53"))), "hello");
    let found = inside(scene, &layout, &["--network", "front"], "nslookup names").success().stdout;
    assert!(found.contains(&address(scene, "front", "names")), "{found}");
    husk(scene, &["rm", "-f", "web", "next", "third", "names"]).success();
}

fn a_drop_policy_of_another_firewall_lets_containers_through(scene: &Scene) {
    let stage = Stage::new();
    let layout = image(scene);
    run("nft", "add table ip filter");
    run("nft", "add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    run("nft", "add rule ip filter FORWARD tcp dport 7001 drop");
    let listener = stage.outside(|| TcpListener::bind((WORLD, 7000)).expect("listen in the world"));
    let served = thread::spawn(move || listener.accept().map(drop));
    husk(scene, &["network", "create", "front"]).success();
    inside(scene, &layout, &["--network", "front"], &format!("nc {WORLD} 7000 </dev/null")).success();
    served.join().unwrap().expect("a caller");
    // What it drops by a rule of its own stays dropped.
    let listener = stage.outside(|| TcpListener::bind((WORLD, 7001)).expect("listen in the world"));
    // Nobody waits for it: nobody comes.
    thread::spawn(move || listener.accept().map(drop));
    let script = format!("timeout 1 nc {WORLD} 7001 </dev/null && echo reached");
    assert_eq!(inside(scene, &layout, &["--network", "front"], &script).stdout, "");
    husk(scene, &["network", "rm", "front"]).success();
    let rules = run("nft", "list ruleset");
    assert!(!rules.contains("hk-") && rules.contains("policy drop"), "{rules}");
}
