//! Logs that are not written by the monitor itself: those that the workload does not wait for, systemd's journal, and the
//! command's own streams.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::lifecycle::{Yard, monitor_of, soon};
use super::supervision::folder;
use super::support::scene::write;
use super::support::suite::kit;
use super::support::{Invocation, Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    let engine = |test: Test| test.needs(Need::Husk).needs(Need::Busybox);
    [
        test!(a_log_that_hangs_keeps_nobody_waiting).and_plain(),
        test!(lines_are_records_of_the_journal).root().needs(Need::Program("unshare")),
        test!(a_slow_journal_loses_nothing).root().needs(Need::Program("unshare")),
        test!(streams_are_passed_through).and_plain(),
    ]
    .into_iter()
    .map(engine)
    .collect()
}

/// How long a record may be on its way.
const PATIENCE: Duration = Duration::from_secs(20);

/// The process that writes a container's log in its monitor's stead.
fn writer_of(name: &str) -> Pid {
    let monitor = monitor_of(name);
    let children = std::fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap();
    let is_writer =
        |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "husk:[log]\n");
    let pid = children.split_ascii_whitespace().find(is_writer).expect("there is one");
    Pid::from_raw(pid.parse().unwrap()).unwrap()
}

fn a_log_that_hangs_keeps_nobody_waiting(scene: &Scene) {
    const LINES: usize = 100_000;
    let yard = Yard::new(scene);
    let script = format!("echo first; read go; seq {LINES}; echo > /done; read more; echo last; read end");
    let flags = ["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k", "--log-opt", "max-size=1m"];
    yard.sh(&[&["run", "-d", "-i", "--name", "fast"], &flags[..]].concat(), &script).success();
    soon("it is written", || yard.husk(&["logs", "fast"]).success().stdout == "first\n");
    let config = yard.husk(&["inspect", "-f", "{{json .HostConfig.LogConfig.Config}}", "fast"]).success().stdout;
    assert!(config.contains(r#""max-buffer-size":"65536""#) && config.contains(r#""mode":"non-blocking""#), "{config}");
    let writer = writer_of("fast");
    kill_process(writer, Signal::STOP).unwrap();
    let mut attach = scene.husk();
    attach.args(["attach", "fast"]);
    let mut attach = attach.spawn(Stdio::piped(), Stdio::null(), Stdio::null());
    let mut input = attach.stdin.take().unwrap();
    let mut say = |line: &[u8]| std::io::Write::write_all(&mut input, line).unwrap();
    say(b"go\n");
    soon("all of it was written", || yard.husk(&["exec", "fast", "/bin/sh", "-c", "test -e /done"]).code() == 0);
    kill_process(writer, Signal::CONT).unwrap();
    let notice = |line: &str| {
        let (count, cause) = line.strip_prefix("husk: ")?.split_once(" lines were lost: ")?;
        cause.starts_with("the log was too slow").then(|| count.parse::<usize>().ok())?
    };
    let kept_and_lost = || {
        let logs = yard.husk(&["logs", "fast"]).success();
        let lost: usize = logs.stderr.lines().map(|line| notice(line).expect("a notice")).sum();
        (logs.stdout.lines().count(), lost)
    };
    soon("each line is there, or said not to be", || {
        let (kept, lost) = kept_and_lost();
        kept + lost == LINES + 1
    });
    say(b"more\n");
    soon("it goes on", || yard.husk(&["logs", "--tail", "1", "fast"]).success().stdout == "last\n");
    let (kept, lost) = kept_and_lost();
    assert!(lost > 0 && kept > 100 && kept + lost == LINES + 2, "{kept} kept and {lost} lost");
    // What is on its way at the end arrives.
    yard.sh(&[&["run", "--name", "brief"], &flags[..]].concat(), "seq 50; printf end").success();
    let all = (1..=50).fold(String::new(), |all, number| all + &number.to_string() + "\n");
    assert_eq!(yard.husk(&["logs", "brief"]).success().stdout, all + "end");
    say(b"end\n");
    attach.wait().unwrap();
    soon("it ends", || yard.status("fast").starts_with("Exited (0)"));
}

/// A journal of the test's own, where husk looks for systemd's.
struct Journal<'a> {
    scene: &'a Scene,
    socket: UnixDatagram,
    folder: PathBuf,
}

type Record = BTreeMap<String, String>;

impl<'a> Journal<'a> {
    fn new(scene: &'a Scene) -> Self {
        let folder = scene.tree("journal", &[]);
        let socket = UnixDatagram::bind(folder.join("socket")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { scene, socket, folder }
    }

    /// husk, where that journal is the machine's.
    fn husk(&self) -> Invocation<'a> {
        let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind \"$0\" /run/systemd/journal \
                      && exec \"$@\"";
        let mut command = self.scene.program("/usr/bin/unshare");
        command.env("HUSK_DATA_ROOT", self.scene.store()).env("HUSK_RUN_ROOT", self.scene.run_root());
        command.args(["-m", "/bin/sh", "-c", script]).arg(&self.folder).arg(&kit().husk);
        command
    }

    fn receive(&self) -> Record {
        let mut buffer = vec![0; 256 << 10];
        let length = self.socket.recv(&mut buffer).expect("a record");
        let mut rest = &buffer[..length];
        let mut record = Record::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let (name, value, used) = if let Some(equal) = rest[..end].iter().position(|byte| *byte == b'=') {
                (&rest[..equal], &rest[equal + 1..end], end + 1)
            } else {
                let length = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap());
                let value_end = end + 9 + usize::try_from(length).unwrap();
                (&rest[..end], &rest[end + 9..value_end], value_end + 1)
            };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            assert_eq!(record.insert(text(name), text(value)), None, "a field twice");
            rest = &rest[used..];
        }
        record
    }
}

fn lines_are_records_of_the_journal(scene: &Scene) {
    let yard = Yard::new(scene);
    let journal = Journal::new(scene);
    let image = yard.layout.reference();
    let flags =
        ["--log-driver", "journald", "--log-opt", "labels=com.example/tier,name", "--log-opt", "tag={{.Name}}/x"];
    let labels = ["--label", "com.example/tier=a\nPRIORITY=0", "--label", "name=n"];
    let script = "echo one; read go; echo oh >&2; read go; printf '%020000d\\n' 7; printf end";
    let mut run = journal.husk();
    run.args(["run", "-i", "--name", "told"]).args(flags).args(labels).args([&image, "/bin/sh", "-c", script]);
    let mut run = run.start();
    let first = journal.receive();
    let id = yard.husk(&["ps", "-aq", "--no-trunc"]).success().stdout.trim_end().to_owned();
    let expected = [
        ("MESSAGE", "one"),
        ("PRIORITY", "6"),
        ("CONTAINER_ID", &id[..12]),
        ("CONTAINER_ID_FULL", &id),
        ("CONTAINER_NAME", "told"),
        ("CONTAINER_TAG", "told/x"),
        ("SYSLOG_IDENTIFIER", "told/x"),
        ("IMAGE_NAME", &image),
        ("COM_EXAMPLE_TIER", "a\nPRIORITY=0"),
        ("NAME", "n"),
    ];
    let expected: Record = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(first, expected);
    run.write("go\n");
    let second = journal.receive();
    assert_eq!((second["MESSAGE"].as_str(), second["PRIORITY"].as_str()), ("oh", "3"));
    run.write("go\n");
    let parts = [journal.receive(), journal.receive(), journal.receive()];
    let shape = |part: &Record| (part["MESSAGE"].len(), part.contains_key("CONTAINER_PARTIAL_MESSAGE"));
    assert_eq!(parts.each_ref().map(shape), [(16 << 10, true), (20_000 - (16 << 10), false), (3, true)]);
    run.finish().success();
    assert!(!scene.store().join("containers").join(&id).join("log").exists());

    // What is there is read by journalctl.
    let entry = |message: &str, rest: &str| {
        format!("{{\"__CURSOR\":\"c\",\"__REALTIME_TIMESTAMP\":\"1700000000000001\",\"MESSAGE\":{message}{rest}}}\n")
    };
    let text = [
        entry("\"one\"", ",\"PRIORITY\":\"6\",\"CONTAINER_TAG\":\"told/x\",\"NAME\":\"n\""),
        entry("[111,104,255]", ",\"PRIORITY\":\"3\""),
        entry("null", ""),
        "nonsense\n".to_owned(),
        entry("\"end\"", ",\"CONTAINER_PARTIAL_MESSAGE\":\"true\""),
    ];
    let bin = scene.tree("bin", &[]);
    write(&bin.join("entries"), text.concat());
    let script = "#!/bin/sh\ncase $* in *--sync*) exit 0;; esac\necho \"$@\" >> \"$0.words\"\n\
                  case $* in *after-cursor*) exit 0;; esac\nexec cat \"${0%/*}/entries\"\n";
    write(&bin.join("journalctl"), script);
    std::fs::set_permissions(bin.join("journalctl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let logs = |path: &str, words: &[&str]| scene.husk().env("PATH", path).arg("logs").args(words).arg("told").run();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let shown = logs(&path, &["-t", "--details", "--since", "1700000000", "-n", "5"]).success();
    assert_eq!(
        shown.stdout,
        "2023-11-14T22:13:20.000001000Z name=n,tag=told/x one\n2023-11-14T22:13:20.000001000Z  end"
    );
    assert!(shown.stderr.contains(" oh"), "{}", shown.stderr);
    let words = std::fs::read_to_string(bin.join("journalctl.words")).unwrap();
    assert!(words.contains(&format!("CONTAINER_ID_FULL={id} --since=@1700000000.000000 --lines=5")), "{words}");
    assert_eq!(logs(&path, &["-f"]).success().stdout, "one\nend");
    logs("/nowhere", &[]).exits_with(1).says("run journalctl").says(&format!("CONTAINER_ID_FULL={id}"));
    let mut without = scene.program("/usr/bin/unshare");
    without.env("HUSK_DATA_ROOT", scene.store()).env("HUSK_RUN_ROOT", scene.run_root());
    without.args(["-m", "/bin/sh", "-c", "mount -t tmpfs none /run && exec \"$@\"", "sh"]).arg(&kit().husk);
    without.args(["create", "--name", "untold", "--log-driver", "journald", &image, "true"]);
    without.run().exits_with(125).says("journal does not answer");
    yard.husk(&["container", "exists", "untold"]).exits_with(1);
}

/// The workload waits for it, as for a disk; the monitor does not.
fn a_slow_journal_loses_nothing(scene: &Scene) {
    const LINES: usize = 3000;
    let yard = Yard::new(scene);
    let journal = Journal::new(scene);
    let script = format!("seq {LINES}; echo > /done; exec sleep 1000");
    let mut run = journal.husk();
    run.args(["run", "-d", "--name", "slow", "--log-driver", "journald"]);
    run.args([&yard.layout.reference(), "/bin/sh", "-c", &script]).run().success();
    let is_done = || yard.husk(&["exec", "slow", "/bin/sh", "-c", "test -e /done"]).code() == 0;
    assert_eq!(journal.receive()["MESSAGE"], "1");
    assert!(yard.status("slow").starts_with("Up "));
    for number in 2..=LINES {
        assert_eq!(journal.receive()["MESSAGE"], number.to_string());
    }
    soon("all of it was written", is_done);
    // It goes, and comes back.
    let say = |word: &str| {
        yard.husk(&["exec", "slow", "/bin/sh", "-c", &format!("echo {word} > /proc/1/fd/1")]).success();
    };
    let path = journal.folder.join("socket");
    drop(journal);
    std::fs::remove_file(&path).unwrap();
    say("lost");
    let fifo = std::fs::OpenOptions::new().read(true).write(true).open(folder(&yard, "slow").join("output")).unwrap();
    soon("it was read", || rustix::io::ioctl_fionread(&fifo).unwrap() == 0);
    let journal = Journal { scene, socket: UnixDatagram::bind(&path).unwrap(), folder: path };
    journal.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    say("found");
    let notice = journal.receive();
    assert!(notice["MESSAGE"].starts_with("husk: 1 lines were lost: ") && notice["PRIORITY"] == "3", "{notice:?}");
    assert_eq!((journal.receive()["MESSAGE"].as_str(), notice["CONTAINER_NAME"].as_str()), ("found", "slow"));
    yard.husk(&["rm", "-f", "slow"]).success();
}

fn streams_are_passed_through(scene: &Scene) {
    let yard = Yard::new(scene);
    let image = yard.layout.reference();
    let run = |words: &[&str], script: &str, output: &str| {
        let path = scene.path().join(output);
        let file = std::fs::File::create_new(&path).unwrap();
        let mut run = scene.husk();
        run.args(["run", "--log-driver", "passthrough"]).args(words).args([&image, "/bin/sh", "-c", script]);
        let status = run.spawn(Stdio::null(), file.into(), Stdio::piped()).wait().unwrap();
        (path, status.code())
    };
    let (path, code) = run(&["--name", "front"], "echo seen; exit 3", "front");
    assert_eq!((std::fs::read_to_string(path).unwrap().as_str(), code), ("seen\n", Some(3)));
    let (path, code) = run(&["-d", "--restart", "on-failure:2", "--name", "back"], "echo run; exit 3", "back");
    assert_eq!(code, Some(0));
    soon("it gives up", || yard.status("back").starts_with("Exited (3)"));
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().filter(|line| *line == "run").count(), 3, "{text}");
    yard.husk(&["logs", "back"]).exits_with(1).says("keeps no log").says("--log-driver passthrough");
    yard.sh(&["run", "-t", "--log-driver", "passthrough"], "true").exits_with(125).says("not with a terminal");
    yard.husk(&["create", "--log-driver", "passthrough", "--log-opt", "mode=non-blocking", &image])
        .exits_with(125)
        .says("unknown to this driver");
}
