//! Containers as people run them, without a network: husk beside podman, both as root and as an ordinary user, and docker.
//!
//! Every comparison is a table: each peer in a session with its own directories, a few turns one after the other. What a
//! daemon does meanwhile counts as the command's processor time.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::environment::{self, Scratch};
use crate::images::Place;
use crate::measure::{self, CommandLine, Series};
use crate::peers::{Bridge, Peer, Session};
use crate::table::{Limit, PROCESSOR, Table, Tables, WALL};
use crate::tar::{self, Entry};

const PEERS: [Peer; 5] = [Peer::Husk, Peer::Podman, Peer::Docker, Peer::HuskAsUser, Peer::PodmanAsUser];

pub const IMAGE: &str = "localhost/bench";

/// How often a command is timed; once more goes first, and isn't counted.
const TURNS: u32 = 10;
/// The same for what takes long.
const FEW_TURNS: u32 = 3;

/// Who takes longer at first is not timed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many containers are listed; husk alone lists many.
const LISTED: u32 = 100;
const MANY: u32 = 1000;
const MANY_MILLISECONDS: f64 = 50.0;

const LOG_BYTES: u32 = 100_000_000;
/// How many run at once.
const CROWD: u32 = 16;
/// How many containers stay while what stays beside them is weighed.
const WEIGHED: u32 = 10;
const KILOBYTES_EACH: f64 = 512.0;
/// After which they are.
const SETTLING: Duration = Duration::from_secs(1);

/// What stays beside a container, by the names of their executables.
const ATTENDANTS: [&str; 5] = ["husk", "conmon", "containerd-shim-runc-v2", "podman", "catatonit"];

/// Measures everything about containers.
pub fn compare(scratch: &Scratch, peers: &[Peer], in_memory: bool, json: bool) -> Result<Tables> {
    let mut tables = Tables::new(json);
    let is_chosen = |peer: &Peer| peers.is_empty() || peers.contains(peer) || *peer == Peer::Husk;
    let mut peers: Vec<Peer> = PEERS.into_iter().filter(is_chosen).collect();
    for lack in peers.iter().filter_map(|peer| peer.lacks()) {
        tables.note(lack)?;
    }
    peers.retain(|peer| peer.lacks().is_none());
    let Some(busybox) = environment::find("busybox".as_ref()) else {
        tables.note("engine: no busybox (apt: busybox-static)".to_owned())?;
        return Ok(tables);
    };
    environment::add_user(scratch)?;
    if let Some(note) = environment::hide_unified()? {
        tables.note(note.to_owned())?;
    }
    let there = environment::engines_cgroups()?;
    let place = Place::open()?;
    if in_memory {
        tables.note("all files are in memory".to_owned())?;
        rustix::mount::mount("tmpfs", &place.directory, "tmpfs", rustix::mount::MountFlags::empty(), c"mode=755")?;
    }
    fs::set_permissions(&place.directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let archive = place.directory.join("image.tar");
    write_image(&archive, &busybox)?;
    let program = scratch.directory.join("husk");
    environment::copy_husk(&program)?;

    let mut sessions = Vec::new();
    for peer in peers {
        let home = place.directory.join(peer.name().replace(' ', "-"));
        let opened = Session::open(peer, &program, &home, &home.join("data"), Bridge::None)
            .and_then(|session| session.load(&archive).map(|()| session));
        match opened {
            Ok(session) => sessions.push((peer, session)),
            Err(error) => tables.note(format!("{} takes no part: {error}", peer.name()))?,
        }
    }
    let bench = Bench { scratch, sessions };
    let measured = bench.measure(&mut tables);
    bench.clear();
    // The daemons end first.
    drop(bench);
    for cgroup in environment::engines_cgroups()?.iter().filter(|cgroup| !there.contains(cgroup)) {
        environment::remove_empty_cgroup(cgroup);
    }
    measure::show_progress("");
    measured.map(|()| tables)
}

struct Bench<'a> {
    scratch: &'a Scratch,
    sessions: Vec<(Peer, Session)>,
}

/// What one peer does of a comparison.
struct Turn {
    before: Vec<CommandLine>,
    timed: Vec<CommandLine>,
    after: Vec<CommandLine>,
}

impl Bench<'_> {
    fn measure(&self, tables: &mut Tables) -> Result<()> {
        let mut table = self.compare("run --rm IMAGE true", TURNS, |_, session| Turn {
            before: Vec::new(),
            timed: vec![session.client(&["run", "--rm", IMAGE, "true"])],
            after: Vec::new(),
        });
        table.limit_share(Peer::Husk, Peer::Podman, 0.1);
        table.limit_share(Peer::Husk, Peer::Docker, 0.05);
        table.limit_share(Peer::HuskAsUser, Peer::PodmanAsUser, 0.1);
        tables.add(table)?;

        tables.add(self.compare("run -d, and rm -f", TURNS, |peer, session| Turn {
            before: Vec::new(),
            timed: vec![
                session.client(&["run", "-d", "--name", "box-{n}", IMAGE, "sleep", "1000"]),
                remove(peer, session, "box-{n}"),
            ],
            after: Vec::new(),
        }))?;

        tables.add(self.compare("exec CONTAINER true", TURNS, |peer, session| Turn {
            before: vec![session.client(&["run", "-d", "--name", "box", IMAGE, "sleep", "1000"])],
            timed: vec![session.client(&["exec", "box", "true"])],
            after: vec![remove(peer, session, "box")],
        }))?;

        tables.add(self.compare(&format!("logs of {} MB", LOG_BYTES / 1_000_000), FEW_TURNS, |peer, session| {
            let script = format!("yes {} | head -c {LOG_BYTES}", "0123456789".repeat(8));
            let mut words = vec!["run", "--name", "loud"];
            if matches!(peer, Peer::Husk | Peer::HuskAsUser) {
                words.extend(["--log-opt", "max-size=-1"]);
            }
            words.extend([IMAGE, "sh", "-c", &script]);
            Turn {
                before: vec![session.client(&words)],
                timed: vec![session.limited_client(&["logs", "loud"])],
                after: vec![remove(peer, session, "loud")],
            }
        }))?;

        self.crowd(tables)?;

        let listed = |count: u32| {
            move |peer: Peer, session: &Session| Turn {
                before: vec![in_shell(session, &["create", "--name"], &format!("seq -f box-%.0f {count}"))],
                timed: vec![session.limited_client(&["ps", "-a"])],
                after: vec![remove_all(peer, session, &format!("seq -f box-%.0f {count}"))],
            }
        };
        tables.add(self.compare(&format!("ps -a of {LISTED} containers"), TURNS, listed(LISTED)))?;
        let mut table = self.compare_of(&[Peer::Husk], &format!("ps -a of {MANY} containers"), TURNS, listed(MANY));
        if let Some(found) = table.least(Peer::Husk, WALL) {
            table.limits.push(Limit {
                figure: WALL.0,
                found: found / 1e6,
                at_most: MANY_MILLISECONDS,
                unit: "ms".to_owned(),
            });
        }
        tables.add(table)?;
        self.weigh(tables)
    }

    /// Runs a crowd in a row and at once.
    fn crowd(&self, tables: &mut Tables) -> Result<()> {
        let compare = |about: &str, end: &str, last: &str| {
            self.compare(about, FEW_TURNS, |_, session| {
                let line = session.client(&["run", "--rm", IMAGE, "true"]);
                let script = format!("for i in $(seq {CROWD}); do \"$@\" {end} done; {last}");
                Turn { before: Vec::new(), timed: vec![shell(&script, line)], after: Vec::new() }
            })
        };
        let row = compare(&format!("{CROWD} times run --rm IMAGE true in a row"), "|| exit;", "");
        let mut crowd = compare(&format!("{CROWD} times run --rm IMAGE true at once"), "&", "wait");
        for (figure, at_most) in [(WALL, 1.0), (PROCESSOR, 1.5)] {
            if let (Some(one), Some(other)) = (row.least(Peer::Husk, figure), crowd.least(Peer::Husk, figure)) {
                let unit = "× as many in a row".to_owned();
                crowd.limits.push(Limit { figure: figure.0, found: other / one, at_most, unit });
            }
        }
        tables.add(row)?;
        tables.add(crowd)
    }

    /// Weighs what stays beside containers that run, whatever it is called.
    fn weigh(&self, tables: &mut Tables) -> Result<()> {
        let mut lines = Vec::new();
        for (peer, session) in &self.sessions {
            measure::show_progress(&format!("memory, {}", peer.name()));
            let before = attendants();
            let names: Vec<String> = (0..WEIGHED).map(|number| format!("heavy-{number}")).collect();
            let run =
                |name: &String| session.run(&session.client(&["run", "-d", "--name", name, IMAGE, "sleep", "1000"]));
            let weighed = names.iter().try_for_each(run).and_then(|()| {
                // What stays is what is there once nothing happens any more.
                std::thread::sleep(SETTLING);
                let stayed: Vec<u32> = attendants().difference(&before).copied().collect();
                let weights = stayed.iter().map(|pid| {
                    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
                    measure::kilobytes(&rollup, "Pss:")
                });
                Ok((stayed.len(), weights.sum::<Result<u64>>()?))
            });
            for name in &names {
                let _ = session.run(&remove(*peer, session, name));
            }
            lines.push((*peer, weighed));
        }
        for (peer, weighed) in lines {
            let name = peer.name();
            let (processes, kilobytes) = match weighed {
                Ok(weighed) => weighed,
                Err(error) => {
                    tables.note(format!("memory that stays beside a container: {name} cannot: {error}"))?;
                    continue;
                }
            };
            #[expect(clippy::cast_precision_loss, reason = "kilobytes of a few processes")]
            let each = kilobytes as f64 / f64::from(WEIGHED);
            let verdict = match peer {
                Peer::Husk | Peer::HuskAsUser if each <= KILOBYTES_EACH => ", budget met",
                Peer::Husk | Peer::HuskAsUser => ", budget missed: at most 512 kB",
                _ => "",
            };
            tables.note(format!(
                "memory that stays beside a container (PSS, of {WEIGHED}, {processes} processes): {name} {each:.0} kB{verdict}"
            ))?;
        }
        Ok(())
    }

    fn compare(&self, about: &str, turns: u32, turn: impl Fn(Peer, &Session) -> Turn) -> Table {
        let peers: Vec<Peer> = self.sessions.iter().map(|(peer, _)| *peer).collect();
        self.compare_of(&peers, about, turns, turn)
    }

    fn compare_of(&self, peers: &[Peer], about: &str, turns: u32, turn: impl Fn(Peer, &Session) -> Turn) -> Table {
        let mut table = Table::new(about.to_owned(), peers);
        let sessions = self.sessions.iter().filter(|(peer, _)| peers.contains(peer));
        for ((peer, session), row) in sessions.zip(&mut table.rows) {
            measure::show_progress(&format!("{about}, {}", peer.name()));
            let Turn { before, timed, after } = turn(*peer, session);
            let prepared = before.iter().try_for_each(|line| session.run(line));
            let series = |times, first| Series { rest: Duration::ZERO, times, first };
            let time = |times, first| {
                session.time(&self.scratch.stopwatch, &session.plan(timed.clone()), series(times, first))
            };
            // The first warms, and shows whether it can.
            row.fill(prepared.and_then(|()| time(1, 1)).and_then(|warm| {
                if warm.iter().any(|sample| u128::from(sample.nanoseconds) > PATIENCE.as_nanos()) {
                    return Err(format!("takes more than {} s", PATIENCE.as_secs()).into());
                }
                time(turns, 2)
            }));
            for line in &after {
                let _ = session.run(line);
            }
        }
        table
    }

    fn clear(&self) {
        for (_, session) in &self.sessions {
            session.clear();
        }
    }
}

/// Nobody waits for a signal that `sleep` as process 1 does not hear.
pub fn remove(peer: Peer, session: &Session, name: &str) -> CommandLine {
    match peer {
        Peer::Podman | Peer::PodmanAsUser => session.client(&["rm", "-f", "-t", "0", name]),
        _ => session.client(&["rm", "-f", name]),
    }
}

/// Runs `words NAME IMAGE true` for each name that a command lists.
fn in_shell(session: &Session, words: &[&str], names: &str) -> CommandLine {
    shell(&format!("for name in $({names}); do \"$@\" $name {IMAGE} true || exit; done"), session.client(words))
}

fn remove_all(peer: Peer, session: &Session, names: &str) -> CommandLine {
    let mut line = remove(peer, session, "");
    line.pop();
    shell(&format!("\"$@\" $({names})"), line)
}

/// A script whose words are a command line.
fn shell(script: &str, line: CommandLine) -> CommandLine {
    let begin = ["/bin/sh", "-c", script, "sh"].map(ToOwned::to_owned);
    begin.into_iter().chain(line).collect()
}

/// The processes that attend to containers, whoever's they are.
fn attendants() -> BTreeSet<u32> {
    let is_one = |pid: &u32| {
        let executable = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let name = executable.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ATTENDANTS.contains(&name.trim_end_matches(" (deleted)"))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// Writes busybox as a docker archive, which all of them load.
pub fn write_image(path: &Path, busybox: &Path) -> Result<()> {
    let hex = |bytes: &[u8]| {
        Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let mut entries = vec![Entry::directory("bin"), Entry::directory("etc")];
    entries.push(Entry::program("bin/busybox", fs::read(busybox)?));
    entries
        .extend(["head", "sh", "sleep", "true", "yes"].map(|name| Entry::symlink(&format!("bin/{name}"), "busybox")));
    entries.push(Entry::file("etc/passwd", "root:x:0:0::/:/bin/sh\n"));
    let layer = tar::archive(&entries);
    let configuration = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": ["sh"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))] },
        "history": [],
    })
    .to_string();
    let (configuration_name, layer_name) =
        (format!("{}.json", hex(configuration.as_bytes())), format!("{}.tar", hex(&layer)));
    let manifest = serde_json::json!([{
        "Config": configuration_name, "RepoTags": [format!("{IMAGE}:latest")], "Layers": [layer_name],
    }]);
    let archive = tar::archive(&[
        Entry::file(&configuration_name, configuration),
        Entry::file(&layer_name, layer),
        Entry::file("manifest.json", manifest.to_string()),
    ]);
    Ok(fs::write(path, archive)?)
}
