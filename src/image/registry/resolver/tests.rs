use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// What a server says to a question: datagrams, or what it sends on a connection.
type Script = dyn Fn(&Message, Way) -> Vec<Vec<u8>> + Send + Sync;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Datagram,
    Connection,
}

/// A name server on loopback.
struct Server {
    port: u16,
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start(script: impl Fn(&Message, Way) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (listener, socket) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            // The same port is free for datagrams, but for bad luck.
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
                break (listener, socket);
            }
        };
        let port = listener.local_addr().unwrap().port();
        let script: Arc<Script> = Arc::new(script);
        let asked = Arc::new(AtomicUsize::new(0));
        let (other, counter) = (Arc::clone(&script), Arc::clone(&asked));
        let datagrams = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut bytes).unwrap();
                let Ok(question) = Message::from_vec(&bytes[..length]) else { return };
                counter.fetch_add(1, Ordering::Relaxed);
                for answer in script(&question, Way::Datagram) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        let connections = std::thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    return;
                }
                let mut bytes = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut bytes).unwrap();
                for answer in other(&Message::from_vec(&bytes).unwrap(), Way::Connection) {
                    let _ = stream.write_all(&answer);
                }
            }
        });
        Self { port, asked, threads: vec![datagrams, connections] }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"", ("127.0.0.1", self.port)).unwrap();
        drop(std::net::TcpStream::connect(("127.0.0.1", self.port)));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

fn answer(question: &Message, records: &[(&str, RData)]) -> Message {
    let mut message = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    message.add_query(question.queries[0].clone());
    message.add_answers(records.iter().map(|(owner, data)| Record::from_rdata(name(owner), 60, data.clone())));
    message
}

fn sent(message: &Message) -> Vec<Vec<u8>> {
    vec![message.to_vec().unwrap()]
}

fn code(question: &Message, code: ResponseCode) -> Vec<Vec<u8>> {
    let mut message = answer(question, &[]);
    message.metadata.response_code = code;
    sent(&message)
}

fn v4(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(10, 0, 0, last)))
}

fn v6(last: u16) -> RData {
    RData::AAAA(AAAA(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)))
}

/// Gives the records of the type that is asked for, all of one name.
fn of_type(question: &Message, owner: &str, records: &[RData]) -> Message {
    let kind = question.queries[0].query_type();
    let records: Vec<(&str, RData)> =
        records.iter().filter(|data| data.record_type() == kind).map(|data| (owner, data.clone())).collect();
    answer(question, &records)
}

fn asked_for(question: &Message) -> String {
    question.queries[0].name().to_ascii().trim_end_matches('.').to_owned()
}

/// A resolver whose machine has these files.
fn resolver(port: u16, hosts: &str, resolv_conf: &str) -> (tempfile::TempDir, HostResolver) {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir(scratch.path().join("etc")).unwrap();
    std::fs::write(scratch.path().join("etc/hosts"), hosts).unwrap();
    std::fs::write(scratch.path().join("etc/resolv.conf"), resolv_conf).unwrap();
    let mut resolver = HostResolver::new(&Caller::assumed(0, scratch.path(), &[]));
    resolver.port = port;
    (scratch, resolver)
}

const LOOPBACK: &str = "nameserver 127.0.0.1\n";

fn lookup_with(server: &Server, resolv_conf: &str, host: &str) -> Result<Vec<String>, Failure> {
    let (_scratch, resolver) = resolver(server.port, "", resolv_conf);
    lookup(&resolver, host)
}

fn lookup(resolver: &HostResolver, host: &str) -> Result<Vec<String>, Failure> {
    let mut found: Vec<String> =
        resolver.lookup(host, Instant::now() + Duration::from_secs(20))?.iter().map(ToString::to_string).collect();
    // Which of them have a route is the machine's.
    found.sort();
    Ok(found)
}

#[test]
fn addresses_and_known_names_are_not_asked_for() {
    let server = Server::start(|_, _| panic!("nobody is to be asked"));
    let hosts = "10.1.1.1 reg.example\nfd00::9 reg.example\n10.1.1.2 localhost\n";
    let (_scratch, resolver) = resolver(server.port, hosts, LOOPBACK);
    for (host, found) in [
        ("10.2.3.4", &["10.2.3.4"][..]),
        ("[::1]", &["::1"]),
        ("Reg.Example.", &["10.1.1.1", "fd00::9"]),
        ("localhost", &["10.1.1.2"]),
        ("a.localhost", &["127.0.0.1", "::1"]),
    ] {
        assert_eq!(lookup(&resolver, host).unwrap(), found, "{host}");
    }
    for host in ["", ".", "a..b", "a b", "ä", &"a".repeat(64), &"a.".repeat(200), "[::x]"] {
        assert_eq!(lookup(&resolver, host), Err(Failure::NotFound), "{host}");
    }
    assert_eq!(server.asked(), 0);
}

#[test]
fn both_kinds_of_addresses_by_way_of_aliases() {
    let server = Server::start(|question, _| {
        let kind = question.queries[0].query_type();
        let mut records = vec![
            // Order means nothing, nor does case.
            ("B.example", RData::CNAME(CNAME(name("c.example")))),
            ("reg.example", RData::CNAME(CNAME(name("b.EXAMPLE")))),
            ("evil.example", v4(66)),
        ];
        records.extend(match kind {
            RecordType::A => [("c.example", v4(1)), ("c.example", v4(2))],
            _ => [("C.example", v6(1)), ("other.example", v6(66))],
        });
        sent(&answer(question, &records))
    });
    let (_scratch, resolver) = resolver(server.port, "", LOOPBACK);
    assert_eq!(lookup(&resolver, "reg.example").unwrap(), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
    assert_eq!(server.asked(), 2);
    lookup(&resolver, "REG.example").unwrap();
    assert_eq!(server.asked(), 2, "an answer is used again");
}

#[test]
fn aliases_in_a_circle_lead_nowhere() {
    let server = Server::start(|question, _| {
        let alias = |from, to: &str| (from, RData::CNAME(CNAME(name(to))));
        sent(&answer(question, &[alias("a.example", "b.example"), alias("b.example", "a.example")]))
    });
    assert_eq!(lookup_with(&server, LOOPBACK, "a.example"), Err(Failure::NotFound));
}

#[test]
fn what_is_not_the_answer_is_passed_over() {
    let server = Server::start(|question, _| {
        let good = of_type(question, "reg.example", &[v4(1)]);
        let mut forged = Vec::new();
        let mut forge = |change: &dyn Fn(&mut Message)| {
            let mut message = of_type(question, "reg.example", &[v4(66)]);
            change(&mut message);
            forged.push(message.to_vec().unwrap());
        };
        forge(&|message| message.metadata.id ^= 1);
        forge(&|message| message.metadata.message_type = MessageType::Query);
        forge(&|message| message.metadata.op_code = OpCode::Status);
        forge(&|message| message.queries.clear());
        forge(&|message| {
            message.queries[0].set_name(name("other.example"));
        });
        forge(&|message| {
            message.queries[0].set_query_type(RecordType::TXT);
        });
        forge(&|message| message.queries.push(message.queries[0].clone()));
        forged.extend([b"".to_vec(), b"x".to_vec(), vec![0xff; 600]]);
        forged.extend(sent(&good));
        forged
    });
    assert_eq!(lookup_with(&server, LOOPBACK, "reg.example").unwrap(), ["10.0.0.1"]);
    assert_eq!(server.asked(), 2, "none of them made it ask again");
}

#[test]
fn a_flood_of_other_answers_ends() {
    let server = Server::start(|_, _| vec![b"noise".to_vec(); 100]);
    let failure = lookup_with(&server, &format!("{LOOPBACK}options attempts:1 timeout:1\n"), "reg.example");
    assert!(matches!(failure, Err(Failure::Other(_))), "{failure:?}");
}

#[test]
fn what_does_not_fit_comes_over_a_connection() {
    let many: Vec<RData> = (1..=200).map(v4).collect();
    let server = Server::start(move |question, way| {
        if way == Way::Datagram {
            let mut message = of_type(question, "reg.example", &[v4(1)]);
            message.metadata.truncation = true;
            return sent(&message);
        }
        let bytes = of_type(question, "reg.example", &many).to_vec().unwrap();
        // In two parts, as a network may deliver it.
        let whole = [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
        let (first, second) = whole.split_at(1);
        vec![first.to_vec(), second.to_vec()]
    });
    assert_eq!(lookup_with(&server, LOOPBACK, "reg.example").unwrap().len(), 200);
    let found = lookup_with(&server, &format!("{LOOPBACK}options use-vc\n"), "reg.example");
    assert_eq!(found.unwrap().len(), 200);
    assert_eq!(server.asked(), 2, "with use-vc, no datagram is sent");
}

#[test]
fn a_connection_that_breaks_is_a_failure() {
    for part in [&b""[..], b"\0", b"\0\x20half", b"\0\x04none"] {
        let server = Server::start(move |question, way| match way {
            Way::Connection => vec![part.to_vec()],
            Way::Datagram => {
                let mut message = answer(question, &[]);
                message.metadata.truncation = true;
                sent(&message)
            }
        });
        let failure = lookup_with(&server, &format!("{LOOPBACK}options attempts:1\n"), "reg.example");
        assert!(matches!(failure, Err(Failure::Other(_))), "{part:?}: {failure:?}");
    }
}

#[test]
fn names_are_completed() {
    let server = Server::start(|question, _| match &asked_for(question)[..] {
        "reg.two.example" => sent(&of_type(question, "reg.two.example", &[v4(2)])),
        "a.reg" => sent(&of_type(question, "a.reg", &[v4(3)])),
        // Has the name, and no addresses.
        "reg.one.example" => sent(&answer(question, &[])),
        _ => code(question, ResponseCode::NXDomain),
    });
    let conf = format!("{LOOPBACK}search one.example two.example\n");
    assert_eq!(lookup_with(&server, &conf, "reg").unwrap(), ["10.0.0.2"]);
    assert_eq!(lookup_with(&server, &conf, "a.reg").unwrap(), ["10.0.0.3"]);
    assert_eq!(lookup_with(&server, &conf, "reg."), Err(Failure::NotFound));
    assert_eq!(lookup_with(&server, &conf, "nothing"), Err(Failure::NotFound));
}

#[test]
fn the_next_server_is_asked() {
    // Nobody listens at this address, which is refused at once.
    let conf = format!("nameserver 127.0.0.2\n{LOOPBACK}");
    let server = Server::start(|question, _| sent(&of_type(question, "reg.example", &[v4(1), v6(1)])));
    assert_eq!(lookup_with(&server, &conf, "reg.example").unwrap(), ["10.0.0.1", "fd00::1"]);
    for reply in [ResponseCode::ServFail, ResponseCode::Refused] {
        let server = Server::start(move |question, _| code(question, reply));
        let failure = lookup_with(&server, LOOPBACK, "reg.example");
        let Err(Failure::Other(text)) = failure else { panic!("{failure:?}") };
        assert!(text.starts_with(&format!("127.0.0.1:{}: it says ", server.port)), "{text}");
        assert_eq!(server.asked(), 4, "two kinds, two attempts");
    }
}

#[test]
fn one_kind_is_enough() {
    let server = Server::start(|question, _| match question.queries[0].query_type() {
        RecordType::A => sent(&of_type(question, "reg.example", &[v4(1)])),
        _ => code(question, ResponseCode::ServFail),
    });
    assert_eq!(lookup_with(&server, LOOPBACK, "reg.example").unwrap(), ["10.0.0.1"]);
    assert_eq!(server.asked(), 3, "the other is asked for once more");
}

#[test]
fn a_silent_server_does_not_hold_us() {
    let server = Server::start(|_, _| Vec::new());
    let (_scratch, resolver) = resolver(server.port, "", LOOPBACK);
    let begun = Instant::now();
    let failure = resolver.lookup("reg.example", begun + Duration::from_millis(50)).unwrap_err();
    assert!(matches!(failure, Failure::Timeout | Failure::Other(_)), "{failure:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "less than the patience of resolv.conf");
}

#[test]
fn a_url_is_resolved_with_its_port() {
    let (_scratch, resolver) = resolver(53, "10.1.1.1 reg.example\n", LOOPBACK);
    let resolve = |url: &str| {
        let answer = resolver.resolve(&url.parse().unwrap(), &Config::default(), NextTimeout::default());
        answer.map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(resolve("https://reg.example/v2/").unwrap(), ["10.1.1.1:443"]);
    assert_eq!(resolve("http://reg.example/v2/").unwrap(), ["10.1.1.1:80"]);
    assert_eq!(resolve("https://reg.example:5000/v2/").unwrap(), ["10.1.1.1:5000"]);
    assert_eq!(resolve("https://[::1]:5000/").unwrap(), ["[::1]:5000"]);
}

#[test]
fn any_bytes_are_read() {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(hickory_proto::op::Query::query(name("a.example"), RecordType::A));
    message.add_answers([Record::from_rdata(name("a.example"), 1, v4(1))]);
    let bytes = message.to_vec().unwrap();
    assert_eq!(dns::read_any(&bytes), 1);
    for at in 0..bytes.len() {
        dns::read_any(&bytes[..at]);
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            dns::read_any(&bytes);
        }
    }
}
