//! One of those that are compared, in a place of its own: an engine with two containers, or links, rules and programs put there
//! by hand.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::stage::{self, Namespace, Stage};
use super::traffic::{PORT, REQUESTS_PORT, Server};
use crate::Result;
use crate::engine::IMAGE;
use crate::environment::{self, USER_ID};
use crate::peers::{Bridge, Peer, Session};

/// How long pasta may take.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Engine(Peer),
    /// Two namespaces at a bridge, and with nft the least rules that do the same.
    ByHand,
    /// A wire to the world, and nothing else.
    Wire,
    /// pasta alone, at a namespace of an ordinary user's: Debian 12's podman cannot use it.
    Pasta,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Engine(Peer::PodmanAsUser) => "podman as a user (slirp4netns)",
            Self::Engine(peer) => peer.name(),
            Self::ByHand => "by hand",
            Self::Wire => "bare veth",
            Self::Pasta => "pasta",
        }
    }

    /// Says what it lacks on this machine.
    pub fn lacks(self) -> Option<String> {
        let programs: &[&str] = match self {
            Self::Engine(Peer::PodmanAsUser) => &["slirp4netns"],
            Self::Engine(_) | Self::Wire => &[],
            Self::ByHand => &["nft"],
            Self::Pasta => &["pasta"],
        };
        if let Self::Engine(peer) = self
            && let Some(lack) = peer.lacks()
        {
            return Some(lack);
        }
        let missing = programs.iter().find(|program| environment::find(program.as_ref()).is_none())?;
        Some(format!("{}: {missing} is not installed", self.name()))
    }
}

/// What an engine calls the network that it has from the beginning.
pub fn network_of(peer: Peer) -> &'static str {
    match peer {
        Peer::Podman => "podman",
        Peer::PodmanAsUser => "slirp4netns",
        _ => "bridge",
    }
}

/// Somebody at work. What it has made goes when this is dropped.
pub struct Side {
    pub who: Who,
    servers: Vec<Server>,
    /// Where the published ports lead to.
    pub one: Namespace,
    pub address: Ipv4Addr,
    /// Another of the same network.
    pub two: Option<Namespace>,
    pub namespaces: BTreeSet<u64>,
    _holders: Vec<Holder>,
    engine: Option<Session>,
    pub stage: Stage,
}

/// A program that stays until this is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was set up: the two ends, and what keeps them.
struct Ends {
    one: Namespace,
    two: Option<Namespace>,
    holders: Vec<Holder>,
    engine: Option<Session>,
}

impl Side {
    /// Sets somebody up. `home` is a directory of its own, `archive` has the image for engines.
    pub fn open(who: Who, husk: &Path, home: &Path, archive: &Path) -> Result<Self> {
        let stage = Stage::new()?;
        let ends = match who {
            Who::Engine(peer) => {
                let ready = stage.host.enter(|| -> Result<Session> {
                    let session = Session::open(peer, husk, home, &home.join("data"), Bridge::Own)?;
                    session.load(archive).map(|()| session)
                });
                start_containers(ready??, peer, &stage)?
            }
            Who::ByHand => build_by_hand(&stage)?,
            Who::Wire => {
                Ends { one: Namespace::open(stage.host.path())?, two: None, holders: Vec::new(), engine: None }
            }
            Who::Pasta => start_pasta(&stage)?,
        };
        let address = ends.one.enter(own_address)??;
        let all = [Some(&stage.host), Some(&stage.world), Some(&ends.one), ends.two.as_ref()];
        let namespaces = all.into_iter().flatten().map(Namespace::inode).collect::<Result<_>>()?;
        let servers = vec![Server::start(&ends.one)?, Server::start(&stage.world)?];
        let Ends { one, two, holders, engine } = ends;
        Ok(Self { who, servers, one, address, two, namespaces, _holders: holders, engine, stage })
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Who listens would keep the namespaces.
        self.servers.clear();
        if let (Some(session), Who::Engine(peer)) = (&self.engine, self.who) {
            clear(peer, session, &self.stage);
        }
    }
}

/// Removes an engine's containers, and what it keeps for an ordinary user.
pub fn clear(peer: Peer, session: &Session, stage: &Stage) {
    let _ = stage.host.enter(|| {
        for name in ["one", "two"] {
            let _ = session.run(&crate::engine::remove(peer, session, name));
        }
        session.clear();
    });
}

/// The ports that are published, in everybody's words.
fn published() -> [String; 3] {
    [format!("{PORT}:{PORT}"), format!("{PORT}:{PORT}/udp"), format!("{REQUESTS_PORT}:{REQUESTS_PORT}")]
}

fn start_containers(session: Session, peer: Peer, stage: &Stage) -> Result<Ends> {
    let ports = published();
    let mut words = vec!["run", "-d", "--name", "one", "--network", network_of(peer)];
    words.extend(ports.iter().flat_map(|port| ["-p", port]));
    words.extend([IMAGE, "sleep", "100000"]);
    let is_user = matches!(peer, Peer::HuskAsUser | Peer::PodmanAsUser);
    let start = || -> Result<_> {
        session.run(&session.client(&words))?;
        let one = container(&session, "one")?;
        if is_user {
            return Ok((one, None));
        }
        session.run(&session.client(&[
            "run",
            "-d",
            "--name",
            "two",
            "--network",
            network_of(peer),
            IMAGE,
            "sleep",
            "100000",
        ]))?;
        Ok((one, Some(container(&session, "two")?)))
    };
    let (one, two) = stage.host.enter(start)??;
    Ok(Ends { one, two, holders: Vec::new(), engine: Some(session) })
}

fn container(session: &Session, name: &str) -> Result<Namespace> {
    let pid = session.read(&session.client(&["inspect", "--format", "{{.State.Pid}}", name]))?;
    Namespace::of_process(pid.trim().parse().map_err(|_| format!("a pid: {pid}"))?)
}

/// Reads the address of the one interface beside loopback that has any.
fn own_address() -> Result<Ipv4Addr> {
    let output = Command::new("ip").args(["-4", "-oneline", "address", "show", "up", "scope", "global"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let address = text.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    let address = address.and_then(|address| address.split('/').next());
    Ok(address.ok_or("a container has no address")?.parse()?)
}

fn build_by_hand(stage: &Stage) -> Result<Ends> {
    let [one, two] = [Namespace::new("hk-one")?, Namespace::new("hk-two")?];
    stage.host.enter(|| -> Result<()> {
        stage::run("ip", "link add br0 type bridge")?;
        stage::run("ip", "address add 172.31.0.1/24 dev br0")?;
        stage::run("ip", "link set br0 up")?;
        for (number, end) in [(2, &one), (3, &two)] {
            let port = format!("port{number}");
            stage::connect(&port, "eth0", end)?;
            stage::run("ip", &format!("link set {port} master br0 up"))?;
            end.enter(|| -> Result<()> {
                stage::run("ip", &format!("address add 172.31.0.{number}/24 dev eth0"))?;
                stage::run("ip", "link set eth0 up")?;
                stage::run("ip", "route add default via 172.31.0.1")
            })??;
        }
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let rules = format!(
            "table ip hand {{
                chain incoming {{
                    type nat hook prerouting priority dstnat
                    fib daddr type local tcp dport {{ {PORT}, {REQUESTS_PORT} }} dnat to 172.31.0.2
                    fib daddr type local udp dport {PORT} dnat to 172.31.0.2
                }}
                chain between {{
                    type filter hook forward priority filter; policy drop
                    ct state established,related accept
                    iifname br0 accept
                    ct status dnat accept
                }}
                chain outgoing {{
                    type nat hook postrouting priority srcnat
                    ip saddr 172.31.0.0/24 oifname != br0 masquerade
                }}
            }}"
        );
        stage::run("nft", &rules)
    })??;
    Ok(Ends { one, two: Some(two), holders: Vec::new(), engine: None })
}

/// Starts pasta as newer podmans do: at a namespace that is there, with the published ports.
fn start_pasta(stage: &Stage) -> Result<Ends> {
    let as_user = |program: &str, words: &[&str]| -> Result<Child> {
        let mut command = Command::new(program);
        command.args(words).uid(USER_ID).gid(USER_ID).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(stage.host.enter(|| command.spawn())?.map_err(|error| format!("{program}: {error}"))?)
    };
    let script = "echo ready; exec sleep 100000";
    let mut place = Holder(as_user("unshare", &["--user", "--map-root-user", "--net", "sh", "-c", script])?);
    let mut said = String::new();
    BufReader::new(place.0.stdout.take().ok_or("it is piped")?).read_line(&mut said)?;
    let pid = place.0.id();
    let (tcp, udp) = (format!("{PORT},{REQUESTS_PORT}"), PORT.to_string());
    let words = ["--foreground", "--config-net", "-t", &tcp, "-u", &udp, "-T", "none", "-U", "none", &pid.to_string()];
    let mut pasta = Holder(as_user("pasta", &words)?);
    let one = Namespace::of_process(pid)?;
    let start = Instant::now();
    while one.enter(own_address)?.is_err() {
        if pasta.0.try_wait()?.is_some() || start.elapsed() > PATIENCE {
            let _ = pasta.0.kill();
            let mut errors = String::new();
            let stream = pasta.0.stderr.take().ok_or("it is piped")?;
            std::io::Read::read_to_string(&mut { stream }, &mut errors)?;
            return Err(format!("pasta: {}", errors.trim()).into());
        }
        std::thread::sleep(POLL);
    }
    Ok(Ends { one, two: None, holders: vec![pasta, place], engine: None })
}
