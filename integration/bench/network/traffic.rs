//! Sends traffic between two network namespaces and says how it went: iperf3 for much of it, and requests of the bench's own
//! for how soon one is answered. Knows no engine.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stage::Namespace;
use crate::Result;

/// iperf3's own port.
pub const PORT: u16 = 5201;
/// Where requests are answered.
pub const REQUESTS_PORT: u16 = 7000;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// What a connection may take longer than it was meant to.
const GRACE_SECONDS: u32 = 10;

/// A request and an answer of common sizes.
const REQUEST: [u8; 128] = [b'?'; 128];
const ANSWER: [u8; 1024] = [b'!'; 1024];
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);

/// USER_HZ, in which proc(5) counts processor time; 100 for every architecture that matters.
const TICKS_A_SECOND: f64 = 100.0;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    OneStream,
    EightStreams,
    Datagrams,
}

impl Load {
    pub const ALL: [Self; 3] = [Self::OneStream, Self::EightStreams, Self::Datagrams];

    pub fn name(self) -> &'static str {
        match self {
            Self::OneStream => "TCP",
            Self::EightStreams => "TCP, 8 streams",
            Self::Datagrams => "UDP, 1400 bytes",
        }
    }

    fn words(self) -> &'static [&'static str] {
        match self {
            Self::OneStream => &[],
            Self::EightStreams => &["--parallel", "8"],
            // As many as go out; counted are those that arrive.
            Self::Datagrams => &["--udp", "--bitrate", "0", "--length", "1400"],
        }
    }
}

/// How fast it went.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Bits that arrived, a second.
    pub bits: f64,
    /// Seconds of the processor for each gigabyte: of both ends of iperf3, and of every process that helped.
    pub cost: f64,
}

/// An iperf3 that listens in a network namespace.
pub struct Server(Child);

impl Server {
    pub fn start(place: &Namespace) -> Result<Self> {
        let mut command = Command::new("iperf3");
        command.args(["--server", "--port", &PORT.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(place.enter(|| command.spawn())?.map_err(|error| format!("iperf3: {error}"))?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// From where to where, and whose processes may help.
pub struct Route<'a> {
    pub caller: &'a Namespace,
    pub server: Ipv4Addr,
    /// The server sends, rather than who calls.
    pub is_reversed: bool,
    /// The namespaces whose processes count as helpers, by their inodes.
    pub helpers: &'a BTreeSet<u64>,
}

/// Sends for some seconds.
pub fn send(route: &Route<'_>, load: Load, seconds: u32) -> Result<Rate> {
    let start = Instant::now();
    loop {
        match try_to_send(route, load, seconds) {
            Err(error) if start.elapsed() < PATIENCE && is_early(&error.to_string()) => std::thread::sleep(POLL),
            result => return result,
        }
    }
}

/// The server does not listen yet, or has not seen that the last one is gone.
fn is_early(error: &str) -> bool {
    error.contains("refused") || error.contains("busy")
}

fn try_to_send(route: &Route<'_>, load: Load, seconds: u32) -> Result<Rate> {
    let mut command = Command::new("timeout");
    command.arg((seconds + GRACE_SECONDS).to_string()).args(["iperf3", "--json", "--connect-timeout", "3000"]);
    command.args(["--client", &route.server.to_string(), "--port", &PORT.to_string()]);
    command.args(["--time", &seconds.to_string()]).args(load.words());
    if route.is_reversed {
        command.arg("--reverse");
    }
    let before = helpers_seconds(route.helpers)?;
    let output = route.caller.enter(|| command.stdin(Stdio::null()).output())??;
    let helped = helpers_seconds(route.helpers)? - before;
    let said: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("iperf3: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))?;
    if let Some(error) = said["error"].as_str() {
        return Err(format!("iperf3: {error}").into());
    }
    let end = &said["end"];
    let number = |value: &Value, name: &str| value[name].as_f64().ok_or_else(|| format!("iperf3 says no {name}"));
    let (sum, arrived) = if load == Load::Datagrams {
        (&end["sum"], 1.0 - number(&end["sum"], "lost_percent")? / 100.0)
    } else {
        (&end["sum_received"], 1.0)
    };
    let bits = number(sum, "bits_per_second")? * arrived;
    let lasted = number(sum, "seconds")?;
    if bits <= 0.0 {
        return Err("nothing arrived".into());
    }
    let ends = &end["cpu_utilization_percent"];
    let own = (number(ends, "host_total")? + number(ends, "remote_total")?) / 100.0 * lasted;
    Ok(Rate { bits, cost: (own + helped) / (bits / 8.0 * lasted / 1e9) })
}

/// What all processes of these network namespaces have had of the processor, iperf3 apart, which counts its own.
fn helpers_seconds(namespaces: &BTreeSet<u64>) -> Result<f64> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        let is_there = || fs::metadata(path.join("ns/net")).is_ok_and(|space| namespaces.contains(&space.ino()));
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process || !is_there() {
            continue;
        }
        // Who has ended meanwhile is not there.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        let Some((name, fields)) = stat.rsplit_once(") ") else { continue };
        if !name.ends_with("(iperf3") {
            ticks += fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum::<u32>();
        }
    }
    Ok(f64::from(ticks) / TICKS_A_SECOND)
}

/// Makes requests one after the other, each with a connection of its own, and gives what each took, in nanoseconds.
pub fn request(server: &Namespace, caller: &Namespace, address: Ipv4Addr, times: u32) -> Result<Vec<u64>> {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), REQUESTS_PORT);
    let listener = server.enter(|| TcpListener::bind(any))??;
    std::thread::scope(|scope| {
        scope.spawn(|| answer_all(&listener));
        let address = SocketAddr::new(IpAddr::V4(address), REQUESTS_PORT);
        // The first finds the way.
        let taken = caller.enter(|| (0..=times).map(|_| request_once(address)).skip(1).collect());
        // That ends accept(2).
        let stopped = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        let taken: Result<Vec<u64>> = taken?;
        stopped?;
        taken
    })
}

fn answer_all(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        let _ = stream.set_read_timeout(Some(REQUEST_PATIENCE));
        if stream.read_exact(&mut [0; REQUEST.len()]).is_ok() {
            let _ = stream.write_all(&ANSWER);
        }
    }
}

fn request_once(address: SocketAddr) -> Result<u64> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, REQUEST_PATIENCE)?;
    stream.set_read_timeout(Some(REQUEST_PATIENCE))?;
    stream.write_all(&REQUEST)?;
    let mut answer = Vec::with_capacity(ANSWER.len());
    stream.read_to_end(&mut answer)?;
    let taken = start.elapsed();
    let _ = stream.shutdown(Shutdown::Both);
    if answer != ANSWER {
        return Err(format!("{} bytes of an answer of {}", answer.len(), ANSWER.len()).into());
    }
    Ok(u64::try_from(taken.as_nanos())?)
}
