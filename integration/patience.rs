//! Whom a container's monitor waits for: nobody. Who crowds it, says nonsense, does not read or is frozen keeps no container
//! from being stopped, killed and removed.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::lifecycle::{Yard, soon};
use super::supervision::folder;
use super::support::scene::write;
use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(a_crowd_and_its_nonsense_stop_nothing),
        test!(who_does_not_read_keeps_nothing_from_its_end),
        test!(a_check_that_cannot_end_keeps_nothing_from_its_end).root(),
        test!(a_container_that_goes_with_its_end_is_restarted),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// One that connects to a monitor and says what it likes.
struct Guest(OwnedFd);

impl Guest {
    fn new(yard: &Yard<'_>, name: &str) -> Self {
        let folder = std::fs::File::open(folder(yard, name)).unwrap();
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/attach", folder.as_raw_fd())).unwrap();
        let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(family, SocketType::SEQPACKET, flags, None).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        Self(socket)
    }

    /// Says whether there was room, and somebody, for it.
    fn says(&self, message: &[u8]) -> bool {
        rustix::net::send(&self.0, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok()
    }

    /// The tag of the next message; 0 at the end.
    fn hears(&self) -> u8 {
        let mut buffer = vec![0; 64 << 10];
        match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, 0)) | Err(_) => 0,
            Ok(_) => buffer[0],
        }
    }
}

/// Tags of messages, as src/monitor/link.rs has them.
const STARTED: u8 = 1;
const FAILED: u8 = 6;
const HELLO: u8 = 7;
const STOP: u8 = 13;

fn a_crowd_and_its_nonsense_stop_nothing(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--name", "star"], "sleep 1000").success();
    // A signal that there is none of, 999, is refused to who asks, and changes nothing.
    let wrong = Guest::new(&yard, "star");
    assert!(wrong.says(&[STOP, 0xe7, 3, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]));
    assert_eq!(wrong.hears(), FAILED);
    // Who asks without reading the answers is dropped.
    let rude = Guest::new(&yard, "star");
    for _ in 0..5000 {
        rude.says(&[HELLO, 0]);
    }
    let crowd: Vec<Guest> = (0..600).map(|_| Guest::new(&yard, "star")).collect();
    let readers: Vec<Guest> = (0..65).map(|_| Guest::new(&yard, "star")).collect();
    assert!(readers.iter().all(|reader| reader.says(&[HELLO, 1])));
    let answers: Vec<u8> = readers.iter().map(Guest::hears).collect();
    assert!(answers[..64].iter().all(|answer| *answer == STARTED) && answers[64] == FAILED, "{answers:?}");
    assert!(yard.status("star").starts_with("Up "));
    yard.husk(&["kill", "star"]).success();
    soon("it has ended", || yard.status("star").starts_with("Exited (137)"));
    drop(crowd);
    yard.husk(&["rm", "star"]).success();
}

/// The command has its output in the end, and nobody else waits for that.
fn who_does_not_read_keeps_nothing_from_its_end(scene: &Scene) {
    let yard = Yard::new(scene);
    for (verb, end) in [("run", &["stop", "-t", "0", "st"][..]), ("start", &["rm", "-f", "st"])] {
        let mut command = scene.husk();
        match verb {
            "run" => command.args(["run", "--name", "st", &yard.layout.reference(), "yes"]),
            _ => command.args(["start", "-a", "st"]),
        };
        let mut child = command.spawn(Stdio::null(), Stdio::piped(), Stdio::inherit());
        let mut output = child.stdout.take().unwrap();
        soon("it runs", || !yard.husk(&["ps", "-q"]).stdout.is_empty());
        std::thread::sleep(Duration::from_millis(200));
        yard.husk(end).success();
        let shown = yard.husk(&["ps", "-a", "--format", "{{.Status}}"]).success().stdout;
        assert!(shown.is_empty() || shown.starts_with("Exited (137)"), "{shown}");
        assert!(child.try_wait().unwrap().is_none(), "it has more to say");
        let mut text = Vec::new();
        output.read_to_end(&mut text).unwrap();
        assert!(text.len() > 64 << 10, "{} bytes", text.len());
        assert_eq!(child.wait().unwrap().code(), Some(137));
    }
}

/// A process that is frozen by the v1 freezer does not die of SIGKILL, and one that waits for a disk nowhere.
fn a_check_that_cannot_end_keeps_nothing_from_its_end(scene: &Scene) {
    let yard = Yard::new(scene);
    let check = ["--health-cmd", "sleep 1000", "--health-interval", "20ms", "--health-timeout", "200ms"];
    let run = [&["run", "-d", "--name", "ice"], &check[..]].concat();
    yard.sh(&run, "sleep 1000").success();
    soon("a check runs", || yard.husk(&["top", "ice"]).stdout.matches("sleep").count() > 1);
    yard.husk(&["pause", "ice"]).success();
    std::thread::sleep(Duration::from_millis(500));
    yard.husk(&["stop", "-t", "0", "ice"]).success();
    yard.husk(&["rm", "ice"]).success();
}

fn a_container_that_goes_with_its_end_is_restarted(scene: &Scene) {
    let yard = Yard::new(scene);
    yard.sh(&["run", "-d", "--rm", "--name", "again"], "echo run; exec sleep 1000").success();
    yard.husk(&["restart", "-t", "0", "again"]).success();
    assert!(yard.status("again").starts_with("Up "));
    let log = folder(&yard, "again").join("log");
    soon("it has written", || yard.husk(&["logs", "again"]).stdout == "run\nrun\n");
    // Half a record, as a power cut leaves it, hides no other.
    let whole = std::fs::read(&log).unwrap();
    write(&log, [&whole[..20], b"\n", &whole[..]].concat());
    assert_eq!(yard.husk(&["logs", "again"]).success().stdout, "run\nrun\n");
    // Nothing is written any more, and the follower knows when it is over.
    let until =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() + Duration::from_millis(300);
    let follower = yard.husk(&["logs", "-f", "--until", &format!("{:.3}", until.as_secs_f64()), "again"]);
    assert_eq!(follower.success().stdout, "run\nrun\n");
    yard.husk(&["stop", "-t", "0", "again"]).success();
    assert_eq!(yard.husk(&["ps", "-aq"]).success().stdout, "", "it goes with its end after all");
}
