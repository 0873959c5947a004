use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use super::super::Names;
use super::super::message::{Answer, Manner, Question, Said, ask};
use super::*;
use crate::cgroups::Home;
use crate::error::{Error, Kind};
use crate::network::lease::{LEASES, Lease};
use crate::network::tests::in_own_namespace;
use crate::support::atomic;
use crate::sys::net::bring_up_loopback;

/// Says which names may be asked for, and keeps what it hears.
#[derive(Clone)]
struct Guard {
    names: Names,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Egress for Guard {
    fn allows(&mut self, client: IpAddr, name: &str) -> bool {
        let is_allowed = self.names.contain(name);
        if !is_allowed {
            self.heard.lock().unwrap().push(format!("{client} may not {name}"));
        }
        is_allowed
    }

    fn answers(&mut self, client: IpAddr, name: &str, addresses: &[(IpAddr, u32)]) -> Result<()> {
        self.heard.lock().unwrap().push(format!("{client} {name} {addresses:?}"));
        match name {
            "full.example" => Err(Error::new(Kind::Other, "there is no room")),
            _ => Ok(()),
        }
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
        let lease = Lease { addresses: vec!["127.0.0.2".parse().unwrap()], name: "web".into(), ..Lease::default() };
        let leases = |leases: &BTreeMap<String, Lease>| {
            atomic::replace(opened().as_fd(), LEASES, &serde_json::to_vec(leases).unwrap()).unwrap();
        };
        leases(&BTreeMap::from([("web".to_owned(), lease)]));
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
            home: Home::Starters,
        };
        let (sockets, port) = Sockets::open(&config).unwrap();
        assert_eq!(port, 53);
        let upstream = UdpSocket::bind("127.0.0.9:53").unwrap();
        let (tell, told) = mpsc::channel();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let guard = Guard { names: Names::parse(["*.example"]).unwrap(), heard: Arc::clone(&heard) };
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
                ["web", "a.example", "A.Example", "evil.test", "full.example"].map(|name| match exchange(name) {
                    Some(Said::Answer(answer)) => {
                        format!("{:?}", answer.addresses().map(|(address, _)| address).collect::<Vec<_>>())
                    }
                    other => format!("{other:?}"),
                });
            let failed = "Some(Failed(Otherwise))";
            assert_eq!(codes, ["[127.0.0.2]", "[192.0.2.1]", "[192.0.2.1]", "[]", failed]);
            leases(&BTreeMap::new());
            assert_eq!(told.recv(), Ok(true), "it gives the leases' lock");
            UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.9:53").unwrap();
        });
        // Kept answers are told as well: for that container they are new.
        let heard = heard.lock().unwrap();
        assert_eq!(
            *heard,
            [
                "127.0.0.2 a.example [(192.0.2.1, 60)]",
                "127.0.0.2 A.Example [(192.0.2.1, 60)]",
                "127.0.0.2 may not evil.test",
                "127.0.0.2 full.example [(192.0.2.1, 60)]",
            ]
        );
    });
}
