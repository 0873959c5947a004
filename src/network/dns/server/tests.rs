use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use super::super::message::{Answer, Manner, Question, Said, ask};
use super::*;
use crate::cgroups::Home;
use crate::error::{Error, Kind};
use crate::network::egress::{Guarded, Policy};
use crate::network::lease::{LEASES, Lease};
use crate::network::tests::in_own_namespace;
use crate::support::atomic;
use crate::sys::net::bring_up_loopback;

/// Keeps what it hears.
#[derive(Clone)]
struct Guard {
    heard: Arc<Mutex<Vec<String>>>,
    nothing: Arc<OwnedFd>,
}

impl Egress for Guard {
    fn allows(&mut self, asker: &Asker, name: &str) -> bool {
        let is_allowed = asker.allow.allows(name);
        if !is_allowed {
            self.heard.lock().unwrap().push(format!("{} may not {name}", asker.id));
        }
        is_allowed
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.nothing.as_fd()
    }

    fn hear(&mut self, _who: &dyn Fn(IpAddr) -> Option<String>) {}

    fn answers(&mut self, asker: &Asker, name: &str, addresses: &[(IpAddr, u32)], origin: Origin) -> Result<u32> {
        self.heard.lock().unwrap().push(format!("{} {:?} {name} {addresses:?} {origin:?}", asker.id, asker.addresses));
        match name {
            "full.example" => Err(Error::new(Kind::Other, "there is no room")),
            _ => Ok(u32::MAX),
        }
    }

    fn is_shut_out(&self) -> bool {
        false
    }
}

/// Asks, and gives what is said.
fn exchange(name: &str) -> Option<Said> {
    let question = Question { name: Name::parse(name).unwrap(), kind: kind::A, class: message::IN };
    let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
    socket.connect("127.0.0.1:53").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send(&ask(7, &question, Manner::default(), true)).unwrap();
    let mut bytes = [0; 1500];
    let length = socket.recv(&mut bytes).unwrap();
    Answer::read(&bytes[..length], 7, &question)
}

/// A server of the world: everything has one address.
fn answer_all(socket: &UdpSocket) {
    let mut bytes = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut bytes) {
        let Ok(query) = Query::read(&bytes[..length]) else { return };
        let mut reply = query.reply(Code::NoError);
        reply.address("192.0.2.1".parse().unwrap(), 60);
        socket.send_to(&reply.finish(512), from).unwrap();
    }
}

#[test]
fn who_guards_it_is_asked_first_and_told_first() {
    in_own_namespace(|| {
        bring_up_loopback().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let opened = || OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
        let allow = Policy::parse(&["allow=*.example,db".to_owned()]).unwrap().unwrap();
        let lease = |name: &str, last: u8, egress| Lease {
            addresses: vec![[127, 0, 0, last].into()],
            name: name.to_owned(),
            egress,
            ..Lease::default()
        };
        let guarded = Guarded { allow, ..Guarded::default() };
        let leases = |leases: &BTreeMap<String, Lease>| {
            atomic::replace(opened().as_fd(), LEASES, &serde_json::to_vec(leases).unwrap()).unwrap();
        };
        leases(&BTreeMap::from([
            ("web".to_owned(), lease("web", 2, Some(guarded))),
            ("db".to_owned(), lease("db", 3, None)),
            ("cache".to_owned(), lease("cache", 4, None)),
        ]));
        let config = Config {
            network: "net".into(),
            interface: Some("lo".into()),
            gateways: vec!["127.0.0.1".parse().unwrap()],
            subnets: vec!["127.0.0.0/8".parse().unwrap()],
            is_internal: false,
            answers_names: true,
            upstreams: vec!["127.0.0.9".parse().unwrap()],
            resolv_conf: "/nothing".into(),
            namespaces: None,
            world: None,
            home: Home::Starters,
            guarding: None,
        };
        let (sockets, port) = Sockets::open(&config).unwrap();
        assert_eq!(port, 53);
        let upstream = UdpSocket::bind("127.0.0.9:53").unwrap();
        let (tell, told) = mpsc::channel();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let guard =
            Guard { heard: Arc::clone(&heard), nothing: Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap().into()) };
        thread::scope(|scope| {
            scope.spawn(|| answer_all(&upstream));
            let folder = opened();
            let guarded = guard.clone();
            scope.spawn(move || {
                let mut server = Server::new(config, sockets, folder).unwrap();
                server.guard(Box::new(guarded));
                tell.send(server.run(Wait::Thread).unwrap().is_some()).unwrap();
            });
            let codes =
                ["web", "db", "cache", "a.example", "A.Example", "evil.test", "full.example"].map(
                    |name| match exchange(name) {
                        Some(Said::Answer(answer)) => {
                            format!("{:?}", answer.addresses().map(|(address, _)| address).collect::<Vec<_>>())
                        }
                        other => format!("{other:?}"),
                    },
                );
            let failed = "Some(Failed(Otherwise))";
            assert_eq!(codes, ["[127.0.0.2]", "[127.0.0.3]", "[]", "[192.0.2.1]", "[192.0.2.1]", "[]", failed]);
            leases(&BTreeMap::new());
            assert_eq!(told.recv(), Ok(true), "it gives the leases' lock");
            UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.9:53").unwrap();
        });
        // Kept answers are told as well: for that container they are new.
        let heard = heard.lock().unwrap();
        assert_eq!(
            *heard,
            [
                "web [127.0.0.2] db [(127.0.0.3, 5)] Network",
                "web may not cache",
                "web [127.0.0.2] a.example [(192.0.2.1, 60)] World",
                "web [127.0.0.2] A.Example [(192.0.2.1, 60)] World",
                "web may not evil.test",
                "web [127.0.0.2] full.example [(192.0.2.1, 60)] World",
            ]
        );
    });
}
