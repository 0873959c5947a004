//! The name server of a network: `husk internal dns` at a bridge of the suite's own namespace, containers that are network
//! namespaces, and servers of the world that are threads.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use super::probe::raw::syscall;
use super::support::husk::read_host;
use super::support::image::Image;
use super::support::scene::write;
use super::support::suite::kit;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let dns = |test: Test| test.root().needs(Need::Husk).needs(Need::Program("ip"));
    vec![
        dns(test!(containers_find_each_other)).needs(Need::Program("dig")).needs(Need::Busybox),
        dns(test!(the_world_is_asked_and_not_believed)),
        dns(test!(it_stays_small_whoever_asks)),
        dns(test!(it_lives_while_there_are_leases)),
        dns(test!(starts_see_to_it)).needs(Need::Busybox),
    ]
}

const GATEWAY: &str = "10.89.7.1";
const GATEWAY6: &str = "fd00:7::1";
const WEB: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A bridge, two containers at it, and the folder of their network.
struct World {
    folder: PathBuf,
    resolv_conf: PathBuf,
    web: Container,
    db: Container,
    /// On the bridge, and without a lease.
    stranger: Container,
}

/// A thread in a network namespace of its own.
struct Container {
    work: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<std::thread::JoinHandle<()>>,
    id: i64,
}

impl Container {
    fn new(number: u8) -> Self {
        let (work, orders) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            syscall(libc::SYS_unshare, &[libc::CLONE_NEWNET.into()]).expect("make a network namespace");
            tell.send(syscall(libc::SYS_gettid, &[]).expect("a thread has an id")).expect("the test waits");
            for order in orders {
                order();
            }
        });
        let id = told.recv().expect("the thread says its id");
        let container = Self { work: Some(work), thread: Some(thread), id };
        ip(&format!("link add hkdns{number} master hkdnsbr type veth peer name eth0 netns {id}"));
        ip(&format!("link set hkdns{number} up"));
        container.run(move || {
            ip("link set lo up");
            ip(&format!("address add 10.89.7.{number}/24 dev eth0"));
            ip(&format!("address add fd00:7::{number}/64 dev eth0 nodad"));
            ip("link set eth0 up");
        });
        container
    }

    /// Does something in it.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let order = Box::new(move || tell.send(work()).expect("the test waits"));
        self.work.as_ref().expect("it is there").send(order).expect("the thread is there");
        told.recv().unwrap_or_else(|_| panic!("what was to be done in {} has failed", self.id))
    }

    fn ask(&self, name: &str, kind: RecordType) -> Message {
        let question = question(name, kind);
        // As the C library does: where there is a flood, a datagram may be lost.
        self.run(move || (0..3).find_map(|_| exchange(&question, GATEWAY))).expect("an answer")
    }

    /// The addresses, or what else is said.
    fn look_up(&self, name: &str, kind: RecordType) -> String {
        let answer = self.ask(name, kind);
        let found: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        if found.is_empty() { format!("{:?}", answer.metadata.response_code) } else { found.join(" ") }
    }

    fn output(&self, program: &str, words: &str) -> String {
        let (program, words) = (program.to_owned(), words.to_owned());
        self.run(move || {
            let output = Command::new(program).args(words.split(' ')).output().expect("run a program");
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl World {
    fn new(scene: &Scene) -> Self {
        ip("link set lo up");
        ip("link add hkdnsbr type bridge");
        ip(&format!("address add {GATEWAY}/24 dev hkdnsbr"));
        ip(&format!("address add {GATEWAY6}/64 dev hkdnsbr nodad"));
        ip("link set hkdnsbr up");
        let folder = scene.run_root().join("networks/my_net");
        std::fs::create_dir_all(&folder).expect("make the network's folder");
        let resolv_conf = scene.path().join("resolv.conf");
        // Nobody is at the first one.
        write(&resolv_conf, "nameserver 127.0.0.8\nnameserver 127.0.0.9\noptions timeout:1 attempts:1\n");
        let world =
            Self { folder, resolv_conf, web: Container::new(2), db: Container::new(3), stranger: Container::new(9) };
        world.lease(&json!({
            WEB: { "addresses": ["10.89.7.2", "fd00:7::2"], "name": "Web", "aliases": ["app", "shared"] },
            "db": { "addresses": ["10.89.7.3"], "name": "db", "aliases": ["shared"] },
        }));
        world
    }

    /// Writes leases as those write them who have one.
    fn lease(&self, leases: &Value) {
        let next = self.folder.join(".tmp-next");
        write(&next, leases.to_string());
        std::fs::rename(next, self.folder.join("leases.json")).expect("put the leases in their place");
    }

    /// Starts the server as `dns::ensure` does, and waits until it is ready; gives its pid.
    fn serve(&self, change: impl FnOnce(&mut Value)) -> i32 {
        let mut config = json!({
            "network": "my_net", "interface": "hkdnsbr", "gateways": [GATEWAY, GATEWAY6],
            "subnets": ["10.89.7.0/24", "fd00:7::/64"], "is_internal": false, "answers_names": true,
            "upstreams": [], "resolv_conf": self.resolv_conf,
        });
        change(&mut config);
        write(&self.folder.join("dns"), config.to_string());
        let lock = std::fs::File::options().read(true).write(true).open(self.folder.join("dns")).expect("open dns");
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("nobody has the lock");
        let output = Command::new(&kit().husk)
            .args(["internal", "dns", "my_net"])
            .env_clear()
            .current_dir(&self.folder)
            .stdin(lock)
            .output()
            .expect("run husk");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        server("my_net").expect("the server lives")
    }

    fn is_locked(&self) -> bool {
        let lock = std::fs::File::open(self.folder.join("dns")).expect("open dns");
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Takes the last lease, and waits for the end of the server.
    fn end(&self, pid: i32) {
        self.lease(&json!({}));
        wait_until("the server ends", || !Path::new(&format!("/proc/{pid}")).exists() || is_dead(pid));
        assert!(!self.is_locked());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", "hkdnsbr"]).output();
        self.lease(&json!({}));
    }
}

/// Finds the server of a network.
fn server(network: &str) -> Option<i32> {
    let end = format!("\0dns\0{network}\0");
    let is_server =
        |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(end.as_bytes()));
    pids().find(is_server)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_dead(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().expect("run ip");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn question(name: &str, kind: RecordType) -> Message {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let mut message = Message::new(u16::from_le_bytes([number[0], number[1]]), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).expect("a name"), kind));
    message
}

/// Asks over a datagram; `None` is silence.
fn exchange(question: &Message, server: &str) -> Option<Message> {
    let server = SocketAddr::new(server.parse().expect("an address"), 53);
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("bind");
    socket.connect(server).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    socket.send(&question.to_vec().expect("a message")).expect("send");
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).ok()?;
    let answer = Message::from_vec(&bytes[..length]).expect("a message");
    assert_eq!(answer.metadata.id, question.metadata.id);
    Some(answer)
}

/// Asks over a connection, with the bytes in two parts.
fn connect(questions: &[Message], server: &str) -> Vec<Message> {
    let mut stream = TcpStream::connect((server, 53)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    let framed = |question: &Message| {
        let bytes = question.to_vec().expect("a message");
        [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], &bytes].concat()
    };
    let bytes: Vec<u8> = questions.iter().flat_map(framed).collect();
    stream.write_all(&bytes[..1]).expect("write");
    stream.write_all(&bytes[1..]).expect("write");
    questions.iter().map(|_| read_framed(&mut stream).expect("an answer")).collect()
}

fn read_framed(stream: &mut TcpStream) -> Option<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes).ok()?;
    Some(Message::from_vec(&bytes).expect("a message"))
}

/// A name server of the world, at an address of the loopback's own; counts what it is asked.
struct Upstream {
    asked: Arc<AtomicUsize>,
    address: IpAddr,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// What a server sends for a question: from elsewhere, or as it should.
enum Sent {
    FromElsewhere(Message),
    Answer(Message),
}

impl Upstream {
    fn start(address: &str, answer: impl Fn(&Message, bool) -> Vec<Sent> + Send + Sync + 'static) -> Self {
        let (answer, asked) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let socket = UdpSocket::bind((address, 53)).expect("bind");
        let listener = TcpListener::bind((address, 53)).expect("bind");
        let elsewhere = UdpSocket::bind((address, 0)).expect("bind");
        let datagrams = {
            let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    let Ok(question) = Message::from_vec(&bytes[..length]) else { return };
                    asked.fetch_add(1, Ordering::Relaxed);
                    for sent in answer(&question, false) {
                        let (socket, message) = match &sent {
                            Sent::FromElsewhere(message) => (&elsewhere, message),
                            Sent::Answer(message) => (&socket, message),
                        };
                        let _ = socket.send_to(&message.to_vec().expect("a message"), from);
                    }
                }
            })
        };
        let connections = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let Some(question) = read_framed(&mut stream) else { return };
                for sent in answer(&question, true) {
                    let (Sent::FromElsewhere(message) | Sent::Answer(message)) = sent;
                    let bytes = message.to_vec().expect("a message");
                    let length = u16::try_from(bytes.len()).expect("fits").to_be_bytes();
                    let _ = stream.write_all(&[&length[..], &bytes].concat());
                }
            }
        });
        Self { asked, address: address.parse().expect("an address"), threads: vec![datagrams, connections] }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // What is no message ends them.
        let _ = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", (self.address, 53)));
        drop(TcpStream::connect((self.address, 53)));
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

fn answer_to(question: &Message, addresses: impl IntoIterator<Item = [u8; 4]>) -> Message {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(question.queries[0].clone());
    let name = question.queries[0].name().clone();
    let records = addresses.into_iter();
    answer.add_answers(
        records.map(|address| Record::from_rdata(name.clone(), 60, RData::A(Ipv4Addr::from(address).into()))),
    );
    answer
}

fn containers_find_each_other(scene: &Scene) {
    let world = World::new(scene);
    let pid = world.serve(|_| ());
    for (name, kind, answer) in [
        ("web", RecordType::A, "10.89.7.2"),
        ("WEB.my_NET", RecordType::AAAA, "fd00:7::2"),
        ("0123456789ab", RecordType::A, "10.89.7.2"),
        ("db", RecordType::AAAA, "NoError"),
        ("db", RecordType::MX, "NoError"),
        ("host.docker.internal", RecordType::A, GATEWAY),
        ("3.7.89.10.in-addr.arpa", RecordType::PTR, "db.my_net."),
        ("4.7.89.10.in-addr.arpa", RecordType::PTR, "NXDomain"),
        ("nobody.my_net", RecordType::A, "NXDomain"),
        ("my_net", RecordType::AXFR, "Refused"),
    ] {
        assert_eq!(world.db.look_up(name, kind), answer, "{name} {kind}");
    }
    let mut turns: Vec<String> = (0..2).map(|_| world.web.look_up("shared", RecordType::A)).collect();
    turns.sort();
    assert_eq!(turns, ["10.89.7.2 10.89.7.3", "10.89.7.3 10.89.7.2"]);
    // Tools that people have, by both families and both ways; the answer comes from where it was asked, or they would say so.
    for words in ["+short @10.89.7.1 web", "+short +tcp @fd00:7::1 app.my_net", "+short +bufsize=4096 @fd00:7::1 app"] {
        assert_eq!(world.web.output("dig", words).trim(), "10.89.7.2", "{words}");
    }
    let said = world.web.output("dig", "+norecurse +noall +comments @10.89.7.1 example.org");
    assert!(said.contains("status: REFUSED"), "{said}");
    let said = world.web.output("busybox", "nslookup db 10.89.7.1");
    assert!(said.contains("10.89.7.3") && !said.contains("NXDOMAIN"), "{said}");
    // Several over one connection, in their order.
    let questions =
        [question("web", RecordType::A), question("db", RecordType::A), question("x.my_net", RecordType::A)];
    let answers = world.db.run(move || connect(&questions, GATEWAY));
    let codes: Vec<ResponseCode> = answers.iter().map(|answer| answer.metadata.response_code).collect();
    assert_eq!(codes, [ResponseCode::NoError, ResponseCode::NoError, ResponseCode::NXDomain]);
    // A new container has its name at once, and one that goes takes its along.
    world.lease(&json!({
        WEB: { "addresses": ["10.89.7.2"], "name": "web", "aliases": [] },
        "new": { "addresses": ["10.89.7.4"], "name": "new", "aliases": [] },
    }));
    assert_eq!(world.web.look_up("new", RecordType::A), "10.89.7.4");
    assert_eq!(world.web.look_up("db", RecordType::A), "NXDomain", "and the world is not asked for it");
    // Nobody else: by their address, nor by their way.
    assert_eq!(world.stranger.look_up("web", RecordType::A), "Refused");
    let outside = exchange(&question("web", RecordType::A), GATEWAY).expect("an answer");
    assert_eq!(outside.metadata.response_code, ResponseCode::Refused, "the host's own address is nobody's lease");
    world.end(pid);
}

fn the_world_is_asked_and_not_believed(scene: &Scene) {
    let world = World::new(scene);
    let upstream = Upstream::start("127.0.0.9", |question, over_tcp| {
        let name = question.queries[0].name().to_string();
        let good = answer_to(question, [[192, 0, 2, 1]]);
        let mut bad = answer_to(question, [[192, 0, 2, 66]]);
        match &name[..] {
            "lie.example." => {
                let mut lies = vec![Sent::FromElsewhere(bad.clone())];
                bad.metadata.id ^= 1;
                lies.push(Sent::Answer(bad.clone()));
                bad.metadata.id ^= 1;
                bad.queries[0].set_name(Name::from_ascii("other.example.").expect("a name"));
                lies.push(Sent::Answer(bad));
                lies.push(Sent::Answer(good));
                lies
            }
            "large.example." if over_tcp => {
                vec![Sent::Answer(answer_to(question, (0..200).map(|last| [192, 0, 2, last])))]
            }
            "large.example." => {
                let mut short = answer_to(question, []);
                short.metadata.truncation = true;
                vec![Sent::Answer(short)]
            }
            "gone.example." => {
                let mut gone = answer_to(question, []);
                gone.metadata.response_code = ResponseCode::NXDomain;
                let zone = Name::from_ascii("example.").expect("a name");
                let soa = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, 60);
                gone.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
                vec![Sent::Answer(gone)]
            }
            "ill.example." => {
                let mut ill = answer_to(question, []);
                ill.metadata.response_code = ResponseCode::ServFail;
                vec![Sent::Answer(ill)]
            }
            "old.example." if question.edns.is_some() => {
                let mut old = answer_to(question, []);
                old.metadata.response_code = ResponseCode::FormErr;
                vec![Sent::Answer(old)]
            }
            "silent.example." => Vec::new(),
            _ => vec![Sent::Answer(good)],
        }
    });
    let pid = world.serve(|_| ());
    for (name, answer, asked) in [
        ("a.example", "192.0.2.1", 1),
        ("A.Example", "192.0.2.1", 0),
        ("lie.example", "192.0.2.1", 1),
        ("gone.example", "NXDomain", 1),
        ("gone.example", "NXDomain", 0),
        ("old.example", "192.0.2.1", 2),
        ("ill.example", "ServFail", 1),
        ("silent.example", "ServFail", 1),
        ("web", "10.89.7.2", 0),
        ("nobody.my_net", "NXDomain", 0),
    ] {
        let before = upstream.asked();
        assert_eq!(world.web.look_up(name, RecordType::A), answer, "{name}");
        assert_eq!(upstream.asked() - before, asked, "{name}: questions");
    }
    // What was too long for a datagram was fetched, and is there for who connects.
    let short = world.web.ask("large.example", RecordType::A);
    assert!(short.metadata.truncation && !short.answers.is_empty());
    let mut with_room = question("large.example", RecordType::A);
    with_room.set_edns({
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        edns
    });
    let longer = world.web.run(move || exchange(&with_room, GATEWAY)).expect("an answer");
    assert!(longer.answers.len() > short.answers.len() && longer.edns.is_some(), "{}", longer.answers.len());
    let before = upstream.asked();
    let whole = world.web.run(|| connect(&[question("large.example", RecordType::A)], GATEWAY));
    assert_eq!((whole[0].answers.len(), upstream.asked() - before), (200, 0));

    // The host's configuration is followed, and a container's own servers are asked for it.
    let other = Upstream::start("127.0.0.10", |question, _| vec![Sent::Answer(answer_to(question, [[192, 0, 2, 10]]))]);
    world.lease(&json!({
        WEB: { "addresses": ["10.89.7.2"], "name": "web", "resolvers": ["127.0.0.10"] },
        "db": { "addresses": ["10.89.7.3"], "name": "db" },
    }));
    assert_eq!(world.web.look_up("a.example", RecordType::A), "192.0.2.10");
    assert_eq!(world.db.look_up("a.example", RecordType::A), "192.0.2.1");
    write(&world.resolv_conf, "nameserver 127.0.0.10\n");
    assert_eq!(world.db.look_up("a.example", RecordType::A), "192.0.2.10");
    assert_eq!(other.asked(), 1, "it is the same server's answer");
    world.end(pid);

    // CVE-2024-29018: out of an internal network no name is asked for, but by who is in another one, too, and of servers that
    // are in it themselves.
    let leases = json!({
        WEB: { "addresses": ["10.89.7.2"], "name": "web" },
        "db": { "addresses": ["10.89.7.3"], "name": "db", "resolvers": ["10.89.7.2"] },
    });
    world.lease(&leases);
    let pid = world.serve(|config| config["is_internal"] = true.into());
    let before = other.asked();
    assert_eq!(world.web.look_up("b.example", RecordType::A), "NXDomain");
    assert_eq!(world.web.look_up("db", RecordType::A), "10.89.7.3");
    assert_eq!(other.asked(), before);
    let inside = world
        .web
        .run(|| Upstream::start("10.89.7.2", |question, _| vec![Sent::Answer(answer_to(question, [[192, 0, 2, 2]]))]));
    assert_eq!(world.db.look_up("b.example", RecordType::A), "192.0.2.2");
    world.web.run(|| drop(inside));
    let second = world.folder.with_file_name("other");
    std::fs::create_dir(&second).expect("make a folder");
    let standing = json!({
        "network": "other", "interface": null, "gateways": [], "subnets": [], "is_internal": false,
        "answers_names": true, "upstreams": [], "resolv_conf": "", "port": 53,
    });
    write(&second.join("dns"), standing.to_string());
    let theirs = json!({
        WEB: { "addresses": ["10.90.0.2"], "name": "web" },
        "far": { "addresses": ["10.90.0.3"], "name": "far" },
    });
    write(&second.join("leases.json"), theirs.to_string());
    assert_eq!(world.web.look_up("b.example", RecordType::A), "192.0.2.10");
    assert_eq!(world.web.look_up("far", RecordType::A), "10.90.0.3", "a name of another network that it is in");
    assert_eq!(world.db.look_up("far.other", RecordType::A), "ServFail", "and of one that it is not");
    world.end(pid);
}

fn it_stays_small_whoever_asks(scene: &Scene) {
    let world = World::new(scene);
    let silent = Upstream::start("127.0.0.9", |question, _| match question.queries[0].name().to_string().as_str() {
        name if name.starts_with('s') => Vec::new(),
        _ => vec![Sent::Answer(answer_to(question, [[192, 0, 2, 1]]))],
    });
    let pid = world.serve(|_| ());
    assert_eq!(world.web.look_up("web", RecordType::A), "10.89.7.2");
    let descriptors = move || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    let at_rest = descriptors();
    // Ten thousand questions, half of which nobody answers, from as many ports as there are.
    let most = world.web.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        socket.connect((GATEWAY, 53)).expect("connect");
        let mut most = 0;
        for number in 0..10_000 {
            let name = format!("{}{number}.example", if number % 2 == 0 { "s" } else { "a" });
            let _ = socket.send(&question(&name, RecordType::A).to_vec().expect("a message"));
            if number % 100 == 0 {
                most = most.max(descriptors());
            }
        }
        most
    });
    assert!(most <= at_rest + 2 * 256, "{most} descriptors");
    assert_eq!(world.db.look_up("web", RecordType::A), "10.89.7.2", "others are answered meanwhile");
    // Connections that say nothing, half a question, or a question without end.
    let idle = world.web.run(|| {
        let open = |bytes: &[u8]| {
            let mut stream = TcpStream::connect((GATEWAY, 53)).expect("connect");
            let _ = stream.write_all(bytes);
            stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
            stream
        };
        let mut endless = open(&[0xff; 8192]);
        assert_ne!(endless.read(&mut [0; 1]).ok(), Some(1), "nobody has a question that long");
        drop(endless);
        let mut streams: Vec<TcpStream> = (0..20).map(|_| open(b"\0\x20half")).collect();
        let mut last = streams.pop().expect("one of them");
        assert_ne!(last.read(&mut [0; 1]).ok(), Some(1), "a container has so many connections, and no more");
        streams
    });
    let answers = world.db.run(|| connect(&[question("web", RecordType::A)], GATEWAY));
    assert_eq!(answers[0].metadata.response_code, ResponseCode::NoError, "others connect meanwhile");
    drop(idle);
    drop(silent);
    wait_until("it is at rest again", || descriptors() <= at_rest + 1);
    // What is of the executable's file is not counted: a debug build has a megabyte of relocations.
    let heap = || -> u64 {
        let text = read_host(format!("/proc/{pid}/smaps"));
        let heap = text.lines().skip_while(|line| !line.ends_with("[heap]"));
        let line = heap.skip(1).find(|line| line.starts_with("Pss:")).expect("a heap");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    };
    wait_until("it gives its memory back", || heap() < 512);
    // It sleeps: no wake-up comes without a question.
    let wakes = || {
        let status = read_host(format!("/proc/{pid}/status"));
        status.lines().find(|line| line.starts_with("voluntary")).map(str::to_owned)
    };
    wait_until("it sleeps", || {
        let before = wakes();
        std::thread::sleep(Duration::from_millis(300));
        wakes() == before
    });
    // It may nothing, and keeps nothing of its caller's.
    let status: BTreeMap<String, String> = read_host(format!("/proc/{pid}/status"))
        .lines()
        .filter_map(|line| line.split_once(":\t").map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    assert_eq!(
        (&status["CapPrm"][..], &status["CapEff"][..], &status["NoNewPrivs"][..]),
        ("0000000000000000", "0000000000000000", "1")
    );
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).expect("it lives"), Path::new("/"));
    assert_eq!(read_host(format!("/proc/{pid}/environ")), "");
    world.end(pid);
}

fn it_lives_while_there_are_leases(scene: &Scene) {
    let world = World::new(scene);
    let pid = world.serve(|_| ());
    assert!(world.is_locked());
    // Killed, it leaves nothing that keeps the next one from its place, not even with a connection that is open.
    let mut open = world.web.run(|| TcpStream::connect((GATEWAY, 53)).expect("connect"));
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a pid"), rustix::process::Signal::KILL)
        .expect("kill it");
    wait_until("it is dead", || !Path::new(&format!("/proc/{pid}")).exists() || is_dead(pid));
    assert_ne!(open.read(&mut [0; 1]).ok(), Some(1));
    assert!(!world.is_locked());
    let pid = world.serve(|_| ());
    assert_eq!(world.web.look_up("db", RecordType::A), "10.89.7.3");
    let ready: Value = serde_json::from_str(&read_host(world.folder.join("dns"))).expect("what it says of itself");
    assert_eq!(ready["port"], 53);
    // Who writes a lease before it has the lock on them keeps it.
    let lock =
        std::fs::File::options().create(true).append(true).open(world.folder.join("lock")).expect("open the lock");
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).expect("lock the leases");
    world.lease(&json!({}));
    std::thread::sleep(Duration::from_millis(20));
    world.lease(&json!({ "new": { "addresses": ["10.89.7.2"], "name": "new" } }));
    drop(lock);
    assert_eq!(world.web.look_up("new", RecordType::A), "10.89.7.2");
    world.end(pid);
    // Somebody has the port of all addresses: it takes another one, and says which.
    world.lease(&json!({ "new": { "addresses": ["10.89.7.2"], "name": "new" } }));
    let taken = (UdpSocket::bind("0.0.0.0:53").expect("bind"), TcpListener::bind("0.0.0.0:53").expect("bind"));
    let pid = world.serve(|_| ());
    let ready: Value = serde_json::from_str(&read_host(world.folder.join("dns"))).expect("what it says of itself");
    assert_eq!(ready["port"], 10053);
    drop(taken);
    // The network itself goes.
    std::fs::remove_dir_all(&world.folder).expect("remove the folder");
    wait_until("the server ends", || !Path::new(&format!("/proc/{pid}")).exists() || is_dead(pid));
    std::fs::create_dir(&world.folder).expect("make the folder");
}

fn starts_see_to_it(scene: &Scene) {
    let layout = Image::busybox(scene).layout(scene, "layout");
    let husk = |words: &[&str]| scene.husk().args(words).run();
    husk(&["network", "create", "hk_names"]).success();
    let flags = ["--network", "hk_names", "--network-alias", "app", "--name", "web"];
    let sleeper = ["busybox", "sleep", "600"];
    husk(&[&["run", "-d"], &flags[..], &[&layout.reference()], &sleeper].concat()).success();
    let folder = scene.run_root().join("networks/hk_names");
    let lives = || {
        let lock = std::fs::File::open(folder.join("dns")).expect("open dns");
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
    };
    let address = husk(&["inspect", "-f", "{{.NetworkSettings.Networks.hk_names.IPAddress}}", "web"]).success().stdout;
    let look_up = |name: &str| {
        let words = ["run", "--rm", "--network", "hk_names", &layout.reference(), "busybox", "nslookup", name];
        husk(&words).success().stdout
    };
    for name in ["web", "app.hk_names"] {
        let said = look_up(name);
        assert!(said.contains(address.trim()), "{address}: {said}");
    }
    // It is in no cgroup of who started it, where it can be elsewhere.
    let cgroups = |pid: i64| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let of_web = husk(&["inspect", "-f", "{{.State.Pid}}", "web"]).success().stdout.trim().parse().expect("a pid");
    let pid = server("hk_names").expect("it lives");
    if cgroups(of_web).contains(":/husk/") {
        wait_until("it is with its kind", || cgroups(pid.into()).contains(":/husk/network\n"));
    }
    // It hears whom it is to ask.
    let asked = UdpSocket::bind("127.0.0.77:53").expect("bind");
    asked.set_read_timeout(Some(Duration::from_secs(5))).expect("be patient");
    husk(&["network", "update", "--dns-add", "127.0.0.77", "hk_names"]).success();
    husk(&["exec", "web", "busybox", "timeout", "1", "busybox", "nslookup", "outside.example"]);
    let mut question = [0; 512];
    let (length, _) = asked.recv_from(&mut question).expect("it is asked");
    assert!(question[..length].windows(7).any(|label| label == b"outside"));
    drop(asked);
    husk(&["network", "update", "--dns-drop", "127.0.0.77", "hk_names"]).success();
    // Killed, it is there again, by the monitors of who needs it; with the monitor, with whoever starts that again.
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill it");
    };
    kill(pid);
    wait_until("there is another", || server("hk_names").is_some_and(|other| other != pid) && lives());
    assert!(look_up("app").contains(address.trim()));
    // What the last one held is given back by a process of its own, which is not to be killed with the monitor.
    wait_until("who has looked up has left", || {
        let leases = std::fs::read_to_string(folder.join("leases.json")).expect("read the leases");
        leases.matches("\"addresses\"").count() == 1
    });
    let is_monitor =
        |pid: &i32| std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"husk:[monitor]\n");
    let monitors: Vec<i32> = pids().filter(is_monitor).collect();
    kill(server("hk_names").expect("it lives"));
    monitors.into_iter().for_each(kill);
    wait_until("it is dead", || !lives());
    husk(&["ps"]).success();
    wait_until("it lives again", lives);
    husk(&["rm", "-f", "web"]).success();
    wait_until("it ends with the last container", || !lives());
    // Somebody has the port of all addresses, as a resolver of the host's may: it is found all the same, and at its own port
    // again when that is free.
    let taken = (UdpSocket::bind("0.0.0.0:53").expect("bind"), TcpListener::bind("0.0.0.0:53").expect("bind"));
    assert!(look_up("localhost").contains("127.0.0.1"));
    wait_until("it ends with the container", || !lives());
    drop(taken);
    assert!(look_up("localhost").contains("127.0.0.1"));
    wait_until("it ends with the container", || !lives());
    husk(&["network", "rm", "hk_names"]).success();
}
