//! What a container may reach that may not reach everything (`--egress`): what is allowed passes, every way around it is
//! refused at once and logged, and it stays so whatever is killed, flushed, connected or started again.
//!
//! Each scenario has a network namespace for the host, and one for the world, with a name server that answers `A-B-C-D.test`
//! with that address.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::support::image::Layout;
use super::support::stage::{
    HOST, Stage, Tun, WORLD, WORLD6, address, hear, husk, image, inside, inspect, ip, kill_keepers, nft, owners, run,
    start, wait_until,
};
use super::support::{Need, Running, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    let network = |test: Test| test.needs(Need::Husk).needs(Need::Busybox).needs(Need::Program("ip"));
    vec![
        network(test!(there_is_no_way_around_it)).root().needs(Need::Program("nft")),
        network(test!(there_is_no_way_around_it_for_a_user_s_containers))
            .users()
            .needs(Need::File("/dev/net/tun"))
            .needs(Need::Capability(caps::Capability::CAP_SYS_ADMIN)),
        network(test!(it_stays_whatever_becomes_of_it)).root().needs(Need::Program("nft")),
        network(test!(what_is_learned_has_its_time_and_what_is_allowed_changes)).root().needs(Need::Program("nft")),
        network(test!(a_user_changes_what_is_allowed))
            .user()
            .needs(Need::File("/dev/net/tun"))
            .needs(Need::Capability(caps::Capability::CAP_SYS_ADMIN)),
        network(test!(errors_about_others_conversations_are_refused)).root(),
        network(test!(it_is_refused_where_it_would_not_hold)).root(),
    ]
}

/// Another address of the world.
const OTHER: &str = "198.51.100.3";

/// Says a word to whoever connects, and what it hears back to it.
fn speak(at: &str, word: &'static str) {
    let listener = TcpListener::bind(at).expect("listen");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let _ = stream.write_all(word.as_bytes());
                let mut bytes = [0; 16];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..length]);
                }
            });
        }
    });
}

/// Answers `A-B-C-D.test` with that address, which lives for a second.
fn name(at: &str) {
    let socket = UdpSocket::bind(at).expect("bind");
    thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let Ok(question) = Message::from_vec(&bytes[..length]) else { continue };
            let Some(query) = question.queries.first() else { continue };
            let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
            answer.metadata.recursion_available = true;
            answer.add_query(query.clone());
            let text = query.name().to_ascii().to_ascii_lowercase();
            let address = text.strip_suffix(".test.").and_then(|text| text.replace('-', ".").parse::<Ipv4Addr>().ok());
            match address {
                Some(address) if query.query_type() == RecordType::A => {
                    let record = Record::from_rdata(query.name().clone(), 1, RData::A(address.into()));
                    answer.add_answers([record]);
                }
                Some(_) => {}
                None => answer.metadata.response_code = ResponseCode::NXDomain,
            }
            let _ = socket.send_to(&answer.to_vec().expect("a message"), from);
        }
    });
}

/// The world, and the host's own services.
fn stage() -> Stage {
    let stage = Stage::new();
    stage.outside(|| {
        ip(&format!("address add {OTHER}/24 dev in0"));
        for at in
            [format!("{WORLD}:7000"), format!("{WORLD}:7001"), format!("{OTHER}:7000"), format!("[{WORLD6}]:7000")]
        {
            speak(&at, "world");
        }
        name(&format!("{WORLD}:53"));
        name(&format!("{WORLD}:443"));
    });
    speak("0.0.0.0:7002", "host");
    stage
}

/// Runs a script in a container that runs.
fn exec(scene: &Scene, name: &str, script: &str) -> String {
    // Each answer is a word, or a dash.
    let ask = "a() { r=$(timeout 5 \"$@\" </dev/null 2>/dev/null | head -c 5); printf '%s\\n' \"${r:--}\"; }";
    let script = format!("{ask}\n{script}");
    husk(scene, &["exec", name, "/bin/busybox", "sh", "-c", &script]).success().stdout
}

fn log(scene: &Scene, name: &str) -> String {
    husk(scene, &["logs", "--egress", name]).success().stdout
}

fn server_of(network: &str) -> Option<i32> {
    let end = format!("\0dns\0{network}\0");
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let here = std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
    pids.find(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(end.as_bytes()))
            && std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|namespace| namespace == here)
    })
}

fn rights_of(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("a set").to_owned()
}

fn there_is_no_way_around_it(scene: &Scene) {
    let _stage = stage();
    // Only what it takes to change rules (CAP_NET_ADMIN).
    bypass(scene, "0000000000001000");
    let layout = image(scene);
    // The default network has no names of its own, and for who is guarded a server all the same.
    let flags = ["--network", "bridge", "--dns", WORLD, "--egress", "allow=*.test:7000"];
    let ask = format!("nc 198-51-100-2.test 7000 </dev/null; nc {OTHER} 7000 </dev/null || cat /etc/resolv.conf");
    let seen = inside(scene, &layout, &flags, &ask).success().stdout;
    assert!(seen.contains("world") && seen.contains("nameserver 172.") && !seen.contains(WORLD), "{seen}");
}

fn there_is_no_way_around_it_for_a_user_s_containers(scene: &Scene) {
    let _stage = stage();
    let _tun = Tun::new(scene);
    bypass(scene, "0000000000000000");
}

fn bypass(scene: &Scene, rights: &str) {
    let layout = image(scene);
    husk(scene, &["network", "create", "--ipv6", "front"]).success();
    let listen = "echo open > /x; nc -ll -p 5432 -e cat /x & nc -ll -p 5433 -e cat /x & sleep 1000";
    start(scene, &layout, &["--name", "db", "--network", "front"], listen);
    let allow = format!("allow=*.test:7000,{WORLD}:7001/tcp,db:5432");
    let flags = ["--name", "guarded", "--network", "front", "--dns", WORLD, "--egress", &allow];
    start(scene, &layout, &flags, listen);
    start(scene, &layout, &["--name", "free", "--network", "front", "--dns", WORLD], "sleep 1000");
    let [db, guarded] = ["db", "guarded"].map(|name| address(scene, "front", name));
    assert_eq!(inspect(scene, "guarded")["HostConfig"]["Egress"], Value::from(allow));
    assert_eq!(rights_of(server_of("front").expect("there is a name server")), rights);
    let gateway = db.rsplit_once('.').map(|(block, _)| format!("{block}.1")).expect("an address");
    // Without a policy all of it is there: what is refused below is refused by that.
    let control =
        format!("a nc {WORLD} 7000; a nc {WORLD6} 7000; a nc {db} 5433; a nc {guarded} 5433; a nc {OTHER} 7000");
    assert_eq!(exec(scene, "free", &control), "world\nworld\nopen\nopen\nworld\n", "who is not guarded");
    // By name and by address, as far as it was said; its neighbour by name.
    let allowed =
        format!("a nc {WORLD} 7001; a nc 198-51-100-2.test 7000; a nc {WORLD} 7000; a nc db 5432; a nc {db} 5432");
    assert_eq!(exec(scene, "guarded", &allowed), "world\nworld\nworld\nopen\nopen\n", "{}", log(scene, "guarded"));
    assert_eq!(log(scene, "guarded"), "", "nothing was refused");
    // A raw address; another port of a learned one; its neighbour's other port; this host, by the gateway and by name; names
    // that lead to its neighbour, or to who tells machines their secrets; IPv6; other protocols; and another name server.
    let refused = format!(
        "a nc {OTHER} 7000; a nc {WORLD} 7002; a nc {db} 5433; a nc {gateway} 7002; a nc {HOST} 7002
        a nc {host}.test 7000; a nc {neighbour}.test 7000; a nc 169-254-169-254.test 7000; a nc {WORLD6} 7000
        a nc evil.invalid 7000
        ping -c 1 -W 1 {WORLD} >/dev/null & ping -c 1 -W 1 {db} >/dev/null &
        timeout 1 nslookup 198-51-100-3.test {WORLD} >/dev/null &
        timeout 1 nslookup -port=443 198-51-100-3.test {WORLD} >/dev/null &
        timeout 1 nslookup 198-51-100-3.test {db} >/dev/null; wait; true",
        host = HOST.replace('.', "-"),
        neighbour = db.replace('.', "-"),
    );
    let begun = std::time::Instant::now();
    assert_eq!(exec(scene, "guarded", &refused), "-\n".repeat(10), "{}", log(scene, "guarded"));
    assert!(begun.elapsed().as_secs() < 10, "a refusal is told at once");
    let expected = [
        format!("tcp {OTHER}:7000\n"),
        format!("tcp {WORLD}:7002 198-51-100-2.test\n"),
        format!("tcp {db}:5433"),
        format!("tcp {gateway}:7002"),
        format!("tcp {HOST}:7002"),
        format!("tcp {HOST}:7000 {}.test", HOST.replace('.', "-")),
        format!("tcp {db}:7000"),
        "tcp 169.254.169.254:7000 169-254-169-254.test".to_owned(),
        format!("tcp [{WORLD6}]:7000"),
        "name evil.invalid\n".to_owned(),
        format!("icmp {WORLD}"),
        format!("icmp {db}"),
        format!("udp {WORLD}:53"),
        format!("udp {WORLD}:443"),
        format!("udp {db}:53"),
    ];
    wait_until(&format!("{} is logged:\n{}", expected.join(", "), log(scene, "guarded")), || {
        let log = log(scene, "guarded");
        expected.iter().all(|line| log.contains(line))
    });
    let timed = husk(scene, &["logs", "--egress", "-t", "-n", "1", "guarded"]).success().stdout;
    assert!(timed.starts_with("20") && timed.contains("Z ") && timed.lines().count() == 1, "{timed}");
    // It is called as before, by its neighbours.
    assert_eq!(
        exec(scene, "free", &format!("a nc {guarded} 5432; a nc guarded 5432; a nc guarded 5433")),
        "open\n".repeat(3)
    );
    husk(scene, &["logs", "--egress", "free"]).exits_with(1).says("may reach everything");
    husk(scene, &["rm", "-f", "guarded", "db", "free"]).success();
    let left = std::fs::read_dir(scene.run_root().join("networks/front")).expect("the network's folder");
    let names: Vec<String> = left.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|name| name.starts_with("egress")), "the log goes with the container: {names:?}");
}

fn it_stays_whatever_becomes_of_it(scene: &Scene) {
    let _stage = stage();
    let layout = image(scene);
    for network in ["front", "back"] {
        husk(scene, &["network", "create", network]).success();
    }
    // Its server has given up its rights before there is somebody to be guarded.
    start(scene, &layout, &["--name", "db", "--network", "front"], "echo open > /x; nc -ll -p 80 -e cat /x");
    start(scene, &layout, &["--name", "web", "--network", "back"], "echo open > /x; nc -ll -p 80 -e cat /x");
    let before = server_of("front").expect("there is a name server");
    assert_eq!(rights_of(before), "0000000000000000");
    let flags = ["--name", "guarded", "--network", "front", "--dns", WORLD, "--egress", "allow=*.test:7000"];
    start(scene, &layout, &flags, "sleep 1000");
    let [db, web] = [("front", "db"), ("back", "web")].map(|(network, name)| address(scene, network, name));
    let closed = format!("a nc {OTHER} 7000; a nc {db} 80; a nc {web} 80; a nc {HOST} 7002");
    let learned = "a nc 198-51-100-2.test 7000";
    let is_closed = |when: &str| {
        assert_eq!(exec(scene, "guarded", &closed), "-\n-\n-\n-\n", "{when}");
    };
    is_closed("at first");
    assert_eq!(exec(scene, "guarded", learned), "world\n");
    let talk = Talk::new(scene, "guarded", &format!("{WORLD} 7000"));

    husk(scene, &["network", "connect", "back", "guarded"]).success();
    is_closed("in another network as well");
    husk(scene, &["network", "reload"]).success();
    is_closed("with rules that were written anew");
    run("nft", "flush ruleset");
    husk(scene, &["network", "reload"]).success();
    is_closed("after a flush");
    let server = server_of("front").expect("there is a name server");
    assert_ne!(server, before);
    run("kill", &format!("-KILL {server}"));
    is_closed("without a name server");
    assert_eq!(exec(scene, "guarded", &format!("a nc {WORLD} 7000")), "world\n", "what it knew is known still");
    // A monitor has another one take its place, which guards as the one before did.
    wait_until("names are found again", || exec(scene, "guarded", "a nc 198-51-100-3.test 7000") == "world\n");
    assert!(talk.goes_on("more"), "what goes on goes on");
    drop(talk);

    husk(scene, &["restart", "-t", "0", "guarded"]).success();
    is_closed("started again");
    assert_eq!(exec(scene, "guarded", &format!("a nc {WORLD} 7000")), "-\n", "nothing is known of the run before");
    assert_eq!(exec(scene, "guarded", learned), "world\n");
    // Whoever has its address next knows nothing of what it knew.
    let held = address(scene, "front", "guarded");
    husk(scene, &["rm", "-f", "guarded"]).success();
    let flags = ["--network", "front", "--ip", &held, "--egress", "none"];
    wait_until("its address is free", || {
        let script = format!("nc {WORLD} 7000 </dev/null; echo $?");
        let next = inside(scene, &layout, &flags, &script);
        assert!(!next.stdout.contains("world"), "{}", next.stdout);
        next.code() == 0
    });
    husk(scene, &["rm", "-f", "db", "web"]).success();
}

/// A program in a container that has a connection open, and says into `/r` what it hears.
struct Talk<'a> {
    scene: &'a Scene,
    name: &'a str,
    _talking: Running<'a>,
}

impl<'a> Talk<'a> {
    fn new(scene: &'a Scene, name: &'a str, with: &str) -> Self {
        let stays = format!("rm -f /q /r; mkfifo /q; nc {with} </q >/r & exec 3>/q; sleep 1000");
        let mut command = scene.husk();
        let talking = command.args(["exec", name, "/bin/busybox", "sh", "-c", &stays]).start();
        wait_until("it is connected", || exec(scene, name, "cat /r 2>/dev/null; true") == "world");
        Self { scene, name, _talking: talking }
    }

    /// Whether what is said comes back.
    fn goes_on(&self, word: &str) -> bool {
        let say = format!(
            "timeout 1 sh -c 'echo {word} >/q'; for i in 1 2 3 4 5; do grep -q {word} /r && echo heard && break; sleep 0.1; done"
        );
        exec(self.scene, self.name, &say) == "heard\n"
    }
}

fn what_is_learned_has_its_time_and_what_is_allowed_changes(scene: &Scene) {
    let _stage = stage();
    let layout = image(scene);
    husk(scene, &["network", "create", "front"]).success();
    let flags =
        ["--name", "guarded", "--network", "front", "--dns", WORLD, "--egress", "allow=*.test:7000", "-p", "8080:80"];
    start(scene, &layout, &flags, "echo open > /x; nc -ll -p 80 -e cat /x");
    let mut follower = scene.husk();
    let mut follower = follower.args(["logs", "--egress", "-f", "guarded"]).start();
    assert_eq!(exec(scene, "guarded", "a nc 198-51-100-2.test 7000"), "world\n");
    let talk = Talk::new(scene, "guarded", &format!("{WORLD} 7000"));
    // Time passes: what was learned is gone. Nobody but husk may change that while somebody keeps the tables.
    wait_until("nobody keeps them", || {
        kill_keepers(scene, usize::MAX);
        owners() == 0
    });
    let table = run("nft", "list tables inet").trim().replace("table ", "");
    nft(&format!("flush set {table} learned4")).expect("it is nobody's");
    assert_eq!(exec(scene, "guarded", &format!("a nc {WORLD} 7000")), "-\n", "another connection");
    assert!(talk.goes_on("more"), "what is open goes on");
    assert_eq!(follower.line(), format!("tcp {WORLD}:7000"));
    drop(talk);
    changes(scene);
    // What it was called by is open for others still.
    assert_eq!(hear("127.0.0.1:8080"), "open");
    husk(scene, &["restart", "-t", "0", "guarded"]).success();
    assert_eq!(exec(scene, "guarded", &format!("a nc {OTHER} 7000")), "-\n", "as it was said last");
    // What runs without bounds is not led to them; it gets them with its next start.
    start(scene, &layout, &["--name", "free", "--network", "front"], "sleep 1000");
    let refused = husk(scene, &["update", "--egress", "none", "free"]);
    refused.exits_with(1).says("was started without bounds").says("husk stop free");
    assert_eq!(exec(scene, "free", &format!("a nc {OTHER} 7000")), "world\n");
    husk(scene, &["stop", "-t", "0", "free"]).success();
    husk(scene, &["update", "--egress", "none", "free"]).success();
    husk(scene, &["start", "free"]).success();
    assert_eq!(exec(scene, "free", &format!("a nc {OTHER} 7000")), "-\n");
    start(scene, &layout, &["--name", "alone", "--network", "host"], "sleep 1000");
    husk(scene, &["update", "--egress", "none", "alone"]).exits_with(1).says("its packets are the host's own");
    husk(scene, &["rm", "-f", "guarded", "free", "alone"]).success();
    assert_eq!(follower.finish().code(), 0, "it ends with the container");
}

fn a_user_changes_what_is_allowed(scene: &Scene) {
    let _stage = stage();
    let _tun = Tun::new(scene);
    let layout = image(scene);
    husk(scene, &["network", "create", "front"]).success();
    let flags = ["--name", "guarded", "--network", "front", "--dns", WORLD, "--egress", "allow=*.test:7000"];
    start(scene, &layout, &flags, "sleep 1000");
    changes(scene);
    husk(scene, &["rm", "-f", "guarded"]).success();
}

/// A container that may reach all names of the zone is to reach one address, then nothing.
fn changes(scene: &Scene) {
    let ask = |script: &str| exec(scene, "guarded", script);
    let update = |egress: &str| husk(scene, &["update", "--egress", egress, "guarded"]).success();
    assert_eq!(ask("a nc 198-51-100-2.test 7000"), "world\n");
    let talk = Talk::new(scene, "guarded", &format!("{WORLD} 7000"));
    update(&format!("allow={OTHER}:7000"));
    assert_eq!(inspect(scene, "guarded")["HostConfig"]["Egress"], Value::from(format!("allow={OTHER}:7000")));
    assert!(!talk.goes_on("more"), "what it had open, and may not any more");
    drop(talk);
    let tried = format!("a nc {WORLD} 7000; a nc 198-51-100-2.test 7000; a nc {OTHER} 7000");
    assert_eq!(ask(&tried), "-\n-\nworld\n");
    let talk = (scene.who == Who::Root).then(|| Talk::new(scene, "guarded", &format!("{OTHER} 7000")));
    update("allow=198.51.100.0/24:7000");
    assert!(talk.as_ref().is_none_or(|talk| talk.goes_on("one")), "what it may still");
    assert_eq!(ask(&format!("a nc {WORLD} 7000")), "world\n");
    update("none");
    assert!(!talk.is_some_and(|talk| talk.goes_on("two")));
    assert_eq!(ask(&tried), "-\n-\n-\n");
}

/// The kernel counts an ICMP error to the conversation that it quotes, whoever sends it: a way out for what is put behind.
fn errors_about_others_conversations_are_refused(scene: &Scene) {
    let stage = stage();
    let layout = image(scene);
    husk(scene, &["network", "create", "front"]).success();
    let flags = ["--name", "web", "--network", "front", "-p", "8080:80"];
    start(scene, &layout, &flags, "nc -ll -p 80 -e sleep 1000");
    start(scene, &layout, &["--name", "free", "--network", "front"], "sleep 1000");
    start(scene, &layout, &["--name", "guarded", "--network", "front", "--egress", "none"], "sleep 1000");
    wait_until("it listens", || TcpStream::connect((HOST, 8080)).is_ok());
    let (call, errors) =
        stage.outside(|| (TcpStream::connect((HOST, 8080)).expect("call"), raw_socket(Some(Duration::from_secs(1)))));
    let port = call.local_addr().expect("an address").port();
    let web: Ipv4Addr = address(scene, "front", "web").parse().expect("an address");
    let is_told = |name: &str| {
        let pid = inspect(scene, name)["State"]["Pid"].as_i64().expect("a pid");
        let error = unreachable((WORLD.parse().expect("an address"), port), (web, 80), name.as_bytes());
        let send = move || {
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("open the namespace");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("enter it");
            // What is refused may be told at once.
            let _ = raw_socket(None).send_to(&error, (WORLD, 0));
        };
        thread::spawn(send).join().expect("it is sent");
        let mut bytes = [0; 512];
        let mut heard = || errors.recv(&mut bytes).map(|length| bytes[..length].to_vec());
        std::iter::from_fn(|| heard().ok()).any(|heard| heard.ends_with(name.as_bytes()))
    };
    assert!(is_told("free"), "it is a way out for who is not guarded");
    assert!(!is_told("guarded"));
    husk(scene, &["rm", "-f", "guarded", "free", "web"]).success();
}

fn raw_socket(patience: Option<Duration>) -> UdpSocket {
    let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::ICMP));
    // std's methods of a datagram socket do for it.
    let socket = UdpSocket::from(socket.expect("open a raw socket"));
    socket.set_read_timeout(patience).expect("be patient");
    socket
}

/// "Host unreachable" about a segment, with something behind it.
fn unreachable(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), behind: &[u8]) -> Vec<u8> {
    let sum = |bytes: &[u8]| {
        let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
    };
    let mut header = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    header.extend(from.0.octets().into_iter().chain(to.0.octets()));
    let checksum = sum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
    error.extend(header);
    error.extend([from.1.to_be_bytes(), to.1.to_be_bytes(), [0; 2], [0; 2]].concat());
    error.extend(behind);
    let checksum = sum(&error).to_be_bytes();
    error[2..4].copy_from_slice(&checksum);
    error
}

fn it_is_refused_where_it_would_not_hold(scene: &Scene) {
    let layout: Layout = image(scene);
    let refused = |flags: &[&str]| {
        let flags = [&["--egress", "none"], flags].concat();
        inside(scene, &layout, &flags, "true").exits_with(125)
    };
    refused(&["--network", "host"]).says("its packets are the host's own");
    refused(&["--network", "ns:/proc/self/ns/net"]).says("is not husk's");
    start(scene, &layout, &["--name", "holder", "--network", "none"], "sleep 1000");
    refused(&["--network", "container:holder"]).says("--egress is for that one");
    husk(scene, &["network", "create", "-d", "macvlan", "-o", "parent=out0", "--subnet", "192.0.2.0/24", "lan"])
        .success();
    refused(&["--network", "lan"]).says("network lan (macvlan) does not come to husk's rules");
    refused(&["--egress", "allow=x"]).says("egress none: goes with nothing else");
    inside(scene, &layout, &["--network", "none", "--egress", "none"], "true").success();
    husk(scene, &["rm", "-f", "holder"]).success();
}
