//! What containers' networks cost: their share of a start, throughput and the processor's time for it, and how soon a request is
//! answered. As root beside docker, podman and what the kernel alone gives with the same rules; as an ordinary user beside
//! slirp4netns, pasta and the bare wire.
//!
//! Everybody has a machine and a world of their own ([`stage`]), and takes turns at each thing. The programs that send are the same
//! for all, put into the containers' network namespaces: what differs is the network. Budgets are medians of the ratios of
//! one turn's figures, since the machine is as busy for both.

mod grid;
mod side;
mod stage;
mod traffic;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::environment::{self, Scratch};
use crate::images::Place;
use crate::measure::{self, Series, Shuffler};
use crate::peers::{Bridge, Peer, Session};
use grid::{Bound, Budget, Cell, Grid, Row, Sample};
use side::{Side, Who};
use stage::{HOST, Stage, WORLD};
use traffic::{Load, Route};

/// What a bridge may add to a start and its end.
const SHARE_MILLISECONDS: f64 = 5.0;
/// How often the two are compared.
const STARTS: u32 = 10;
/// How many requests a turn has.
const REQUESTS: u32 = 500;

const ROOTS: [Who; 4] = [Who::Engine(Peer::Husk), Who::ByHand, Who::Engine(Peer::Podman), Who::Engine(Peer::Docker)];
const USERS: [Who; 4] = [Who::Engine(Peer::HuskAsUser), Who::Wire, Who::Pasta, Who::Engine(Peer::PodmanAsUser)];
const STARTERS: [Peer; 5] = [Peer::Husk, Peer::Podman, Peer::Docker, Peer::HuskAsUser, Peer::PodmanAsUser];

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    pub turns: u32,
    pub seconds: u32,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Between,
    Out,
    In,
    Published,
}

impl Way {
    fn about(self) -> &'static str {
        match self {
            Self::Between => "container to container",
            Self::Out => "out to the world",
            Self::In => "in, by a connection out",
            Self::Published => "in, by a published port",
        }
    }
}

/// What somebody's figures are held to: husk's share of the best of these.
struct Shares {
    ways: &'static [Way],
    of: &'static [Who],
    at_least: f64,
}

const ROOTS_SHARES: [Shares; 2] = [
    Shares { ways: &[Way::Between], of: &[Who::ByHand], at_least: 0.95 },
    Shares { ways: &[Way::Out, Way::In, Way::Published], of: &[Who::ByHand], at_least: 0.85 },
];
const FROM_OUTSIDE: &[Way] = &[Way::Out, Way::In, Way::Published];
const USERS_SHARES: [Shares; 2] = [
    Shares { ways: FROM_OUTSIDE, of: &[Who::Pasta, Who::Engine(Peer::PodmanAsUser)], at_least: 2.0 },
    Shares { ways: FROM_OUTSIDE, of: &[Who::Wire], at_least: 0.5 },
];

struct Bench<'a> {
    scratch: &'a Scratch,
    place: Place,
    archive: PathBuf,
    husk: PathBuf,
    peers: &'a [Peer],
    amount: Amount,
    is_silent: bool,
    json: Vec<Value>,
    notes: Vec<String>,
}

/// Measures everything about networks.
pub fn compare(scratch: &Scratch, peers: &[Peer], amount: Amount, is_silent: bool) -> Result<Value> {
    let place = Place::open()?;
    fs::set_permissions(&place.directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let archive = place.directory.join("image.tar");
    let husk = scratch.directory.join("husk");
    let mut bench =
        Bench { scratch, place, archive, husk, peers, amount, is_silent, json: Vec::new(), notes: Vec::new() };
    for (program, package) in [("iperf3", "iperf3"), ("busybox", "busybox-static")] {
        if environment::find(program.as_ref()).is_none() {
            bench.note(format!("network: no {program} (apt: {package})"))?;
            return Ok(json!({ "notes": bench.notes }));
        }
    }
    let busybox = environment::find("busybox".as_ref()).ok_or("there was a busybox")?;
    crate::engine::write_image(&bench.archive, &busybox)?;
    environment::copy_husk(&bench.husk)?;
    environment::add_user(scratch)?;
    if let Some(note) = environment::hide_unified()? {
        bench.note(note.to_owned())?;
    }
    stage::prepare_files(&scratch.directory)?;
    let there = environment::engines_cgroups()?;
    let measured = bench.measure();
    measure::show_progress("");
    for cgroup in environment::engines_cgroups()?.iter().filter(|cgroup| !there.contains(cgroup)) {
        environment::remove_empty_cgroup(cgroup);
    }
    stage::clear_files()?;
    measured?;
    Ok(json!({ "notes": bench.notes, "tables": bench.json }))
}

impl Bench<'_> {
    fn measure(&mut self) -> Result<()> {
        self.starts()?;
        let sides = self.open(&ROOTS)?;
        self.throughput(
            "Throughput as root: Gbit/s that arrive (the processor's seconds for each gigabyte)",
            &sides,
            &[Way::Between, Way::Out, Way::In, Way::Published],
            &ROOTS_SHARES,
        )?;
        self.requests(
            "Requests as root: microseconds for connection, request and answer, median (99th percentile)",
            &sides,
        )?;
        drop(sides);
        let sides = self.open(&USERS)?;
        self.throughput(
            "Throughput as an ordinary user: Gbit/s that arrive (the processor's seconds for each gigabyte)",
            &sides,
            FROM_OUTSIDE,
            &USERS_SHARES,
        )?;
        self.requests(
            "Requests as an ordinary user: microseconds for connection, request and answer, median (99th percentile)",
            &sides,
        )
    }

    fn is_chosen(&self, peer: Peer) -> bool {
        self.peers.is_empty() || matches!(peer, Peer::Husk | Peer::HuskAsUser) || self.peers.contains(&peer)
    }

    /// Sets everybody up who can take part, and says who cannot.
    fn open(&mut self, all: &[Who]) -> Result<Vec<Side>> {
        let mut sides = Vec::new();
        for who in all {
            if matches!(who, Who::Engine(peer) if !self.is_chosen(*peer)) {
                continue;
            }
            measure::show_progress(&format!("setting up {}", who.name()));
            let home = self.place.directory.join(format!("network-{}", sides.len() + self.json.len() * 10));
            let opened = match who.lacks() {
                Some(lack) => Err(lack.into()),
                None => Side::open(*who, &self.husk, &home, &self.archive),
            };
            match opened {
                Ok(side) => sides.push(side),
                Err(error) => self.note(format!("{} takes no part: {error}", who.name()))?,
            }
        }
        Ok(sides)
    }

    /// Compares starts with a bridge and without a network, one after the other.
    fn starts(&mut self) -> Result<()> {
        let peers: Vec<Peer> = STARTERS.into_iter().filter(|peer| self.is_chosen(*peer)).collect();
        let mut sessions = Vec::new();
        for (number, peer) in peers.into_iter().enumerate() {
            measure::show_progress(&format!("setting up {}", peer.name()));
            let home = self.place.directory.join(format!("start-{number}"));
            let opened = match peer.lacks() {
                Some(lack) => Err(lack.into()),
                None => Starter::open(peer, &self.husk, &home, &self.archive),
            };
            match opened {
                Ok(starter) => sessions.push(starter),
                Err(error) => self.note(format!("{} takes no part: {error}", peer.name()))?,
            }
        }
        let title = "What a bridge adds to `run --rm IMAGE true`: milliseconds (without a network it takes)";
        let mut grid = Grid::new(title, sessions.iter().map(|starter| starter.peer.name()).collect());
        let mut cells = vec![Cell::default(); sessions.len()];
        let mut order: Vec<usize> = (0..sessions.len()).collect();
        let mut shuffler = Shuffler::new();
        // The first turn warms.
        for turn in 0..=STARTS {
            measure::show_progress(&format!("starts, {turn} of {STARTS}"));
            shuffler.shuffle(&mut order);
            for &number in &order {
                cells[number].take(|| sessions[number].turn(&self.scratch.stopwatch, turn));
            }
        }
        for cell in &mut cells {
            cell.turns.drain(..cell.turns.len().min(1));
        }
        for (name, cell) in grid.columns.iter().zip(&cells).filter(|(name, _)| name.starts_with("husk")) {
            if let Some(found) = cell.median(|sample| sample.figure) {
                let about = format!("{name}, milliseconds more than without a network");
                grid.budgets.push(Budget { about, found, bound: Bound::AtMost(SHARE_MILLISECONDS) });
            }
        }
        grid.rows.push(Row { about: "`run --rm`".to_owned(), cells });
        self.add(&grid)
    }

    fn throughput(&mut self, title: &'static str, sides: &[Side], ways: &[Way], shares: &[Shares]) -> Result<()> {
        let mut grid = Grid::new(title, sides.iter().map(|side| side.who.name()).collect());
        let mut order: Vec<usize> = (0..sides.len()).collect();
        let mut shuffler = Shuffler::new();
        for way in ways {
            for load in Load::ALL {
                let mut cells = vec![Cell::default(); sides.len()];
                for turn in 0..self.amount.turns {
                    shuffler.shuffle(&mut order);
                    for &number in &order {
                        let side = &sides[number];
                        measure::show_progress(&format!(
                            "{}, {}, turn {} of {}, {}",
                            way.about(),
                            load.name(),
                            turn + 1,
                            self.amount.turns,
                            side.who.name()
                        ));
                        cells[number].take(|| send(side, *way, load, self.amount.seconds));
                    }
                }
                let about = format!("{}, {}", way.about(), load.name());
                grid.rows.push(Row { about, cells });
                for share in shares.iter().filter(|share| share.ways.contains(way)) {
                    let names: Vec<&str> = share.of.iter().map(|who| who.name()).collect();
                    if let Some(found) = grid.share(grid.rows.len() - 1, &names) {
                        let of = names.join(", ");
                        let (way, load) = (way.about(), load.name());
                        let about = format!("{way}, {load}, × {of} (of the processor {:.2} ×)", found.beside);
                        let bound = Bound::AtLeast(share.at_least);
                        grid.budgets.push(Budget { about, found: found.figure, bound });
                    }
                }
            }
        }
        self.add(&grid)
    }

    fn requests(&mut self, title: &'static str, sides: &[Side]) -> Result<()> {
        let mut grid = Grid::new(title, sides.iter().map(|side| side.who.name()).collect());
        let mut cells = vec![Cell::default(); sides.len()];
        let mut order: Vec<usize> = (0..sides.len()).collect();
        let mut shuffler = Shuffler::new();
        for turn in 0..self.amount.turns {
            measure::show_progress(&format!("requests, turn {} of {}", turn + 1, self.amount.turns));
            shuffler.shuffle(&mut order);
            for &number in &order {
                let side = &sides[number];
                cells[number].take(|| {
                    let mut taken = traffic::request(&side.one, &side.stage.world, HOST, REQUESTS)?;
                    taken.sort_unstable();
                    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a request")]
                    let at = |place: usize| taken[place] as f64 / 1e3;
                    Ok(Sample { figure: at(taken.len() / 2), beside: at(taken.len() * 99 / 100) })
                });
            }
        }
        grid.rows.push(Row { about: "from the world, by a published port".to_owned(), cells });
        self.add(&grid)
    }

    fn note(&mut self, text: String) -> Result<()> {
        if !self.is_silent {
            measure::show_progress("");
            writeln!(std::io::stdout(), "note: {text}")?;
        }
        self.notes.push(text);
        Ok(())
    }

    fn add(&mut self, grid: &Grid) -> Result<()> {
        if !self.is_silent {
            measure::show_progress("");
            grid.print(&mut std::io::stdout().lock())?;
        }
        self.json.push(grid.to_json());
        Ok(())
    }
}

/// Sends on one way.
fn send(side: &Side, way: Way, load: Load, seconds: u32) -> Result<Sample> {
    let two = || side.two.as_ref().ok_or("has one container");
    let (caller, server, is_reversed) = match way {
        Way::Between => (two()?, side.address, false),
        Way::Out => (&side.one, WORLD, false),
        Way::In => (&side.one, WORLD, true),
        Way::Published => (&side.stage.world, HOST, false),
    };
    let rate = traffic::send(&Route { caller, server, is_reversed, helpers: &side.namespaces }, load, seconds)?;
    Ok(Sample { figure: rate.bits / 1e9, beside: rate.cost })
}

/// Somebody who starts containers, beside one that stays: the bridge, the rules and the way out are there, as they are on a
/// machine with containers.
struct Starter {
    peer: Peer,
    session: Session,
    stage: Stage,
}

impl Starter {
    fn open(peer: Peer, husk: &Path, home: &Path, archive: &Path) -> Result<Self> {
        let stage = Stage::new()?;
        let open = || -> Result<Session> {
            let session = Session::open(peer, husk, home, &home.join("data"), Bridge::Own)?;
            session.load(archive)?;
            let network = side::network_of(peer);
            let words = ["run", "-d", "--name", "one", "--network", network, crate::engine::IMAGE, "sleep", "100000"];
            session.run(&session.client(&words))?;
            Ok(session)
        };
        let session = stage.host.enter(open)??;
        Ok(Self { peer, session, stage })
    }

    /// Runs one with a bridge and one without a network, and gives the difference, in milliseconds.
    fn turn(&self, stopwatch: &Path, turn: u32) -> Result<Sample> {
        let time = |network: &str| -> Result<f64> {
            let words = ["run", "--rm", "--network", network, crate::engine::IMAGE, "true"];
            let plan = self.session.plan(vec![self.session.client(&words)]);
            let series = Series { rest: Duration::ZERO, times: 1, first: turn };
            let taken = self.stage.host.enter(|| measure::time(stopwatch, &plan, series))??;
            let nanoseconds = taken.first().ok_or("there is one sample")?.nanoseconds;
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a start")]
            Ok(nanoseconds as f64 / 1e6)
        };
        // Who comes first takes turns, too.
        let own = side::network_of(self.peer);
        let (with, without) = if turn.is_multiple_of(2) {
            let with = time(own)?;
            (with, time("none")?)
        } else {
            let without = time("none")?;
            (time(own)?, without)
        };
        Ok(Sample { figure: with - without, beside: without })
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        side::clear(self.peer, &self.session, &self.stage);
    }
}
