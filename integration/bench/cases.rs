//! Who is compared and at what, as data. A new comparison is a new row of [`CASES`].

use std::ffi::OsString;

use crate::bundle::Style;
use crate::environment::{self, Scratch};
use crate::measure::{CommandLine, Plan};

/// A program that runs containers.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: &'static str,
    /// The program, perhaps behind a loader of its own.
    pub words: Vec<String>,
    kind: Kind,
}

/// What words a peer understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// runc's.
    Runtime,
    /// Those of floor.c.
    Floor,
}

/// Something that is timed.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    pub style: Style,
    /// What the payload is told.
    pub payload: &'static [&'static str],
    /// What is done once before a series of runs, and once after it.
    before: &'static [Words],
    after: &'static [Words],
    /// What is timed together, in its order.
    timed: &'static [Words],
    /// What floor.c does of it.
    floor: Option<Floor>,
    /// What husk may take of others' figures.
    pub budgets: &'static [Budget],
}

/// A bound for one of husk's figures.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub figure: Figure,
    pub bound: Bound,
}

/// A figure that has a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    Alone,
    BackToBack,
    /// The most memory that one of the processes of the command had.
    Memory,
}

/// What a figure is held to.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// So many times the same figure of a peer; of the newest crun there is, where the peer is crun.
    Times(f64, &'static str),
    Kilobytes(u64),
}

const fn times(figure: Figure, factor: f64, peer: &'static str) -> Budget {
    Budget { figure, bound: Bound::Times(factor, peer) }
}

const HALF_OF_CRUN: &[Budget] = &[times(Figure::Alone, 0.5, CRUN), times(Figure::BackToBack, 0.5, CRUN)];

pub const CRUN: &str = "crun";
/// A crun that is not the installed one.
pub const OTHER_CRUN: &str = "other crun";
/// Names it, as a command of several words if it needs a loader. The engine knows no such setting, and refuses it.
pub const OTHER_CRUN_VARIABLE: &str = "HUSK_BENCH_CRUN";

/// A command after the program and its global options. `{bundle}` is the case's, `{id}` is new each time, `{container}` stays.
type Words = &'static [&'static str];

/// How much the floor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Floor {
    Plain,
    /// With a write to the cgroup.procs of every hierarchy; what it takes more is the share of joining.
    JoinsCgroups,
}

const RUN: &[Words] = &[&["run", "--bundle", "{bundle}", "{id}"]];

pub const CASES: &[Case] = &[
    Case {
        name: "bare",
        about: "run of a bare bundle",
        style: Style::Bare,
        payload: &[],
        before: &[],
        timed: RUN,
        after: &[],
        floor: Some(Floor::Plain),
        budgets: HALF_OF_CRUN,
    },
    Case {
        name: "engine",
        about: "run of an engine-style bundle",
        style: Style::Engine,
        payload: &[],
        before: &[],
        timed: RUN,
        after: &[],
        floor: Some(Floor::JoinsCgroups),
        budgets: &[
            times(Figure::Alone, 0.5, CRUN),
            times(Figure::BackToBack, 0.5, CRUN),
            times(Figure::BackToBack, 2.5, "C floor"),
            Budget { figure: Figure::Memory, bound: Bound::Kilobytes(2048) },
        ],
    },
    Case {
        name: "create",
        about: "create, start and delete of an engine-style bundle",
        style: Style::Engine,
        payload: &["pause"],
        before: &[],
        timed: &[&["create", "--bundle", "{bundle}", "{id}"], &["start", "{id}"], &["delete", "--force", "{id}"]],
        after: &[],
        floor: None,
        budgets: HALF_OF_CRUN,
    },
    Case {
        name: "exec",
        about: "exec in an engine-style container",
        style: Style::Engine,
        payload: &["pause"],
        before: &[&["run", "--detach", "--bundle", "{bundle}", "{container}"]],
        timed: &[&["exec", "{container}", "/payload"]],
        after: &[&["delete", "--force", "{container}"]],
        floor: None,
        budgets: HALF_OF_CRUN,
    },
    Case {
        name: "state",
        about: "state of an engine-style container",
        style: Style::Engine,
        payload: &["pause"],
        before: &[&["run", "--detach", "--bundle", "{bundle}", "{container}"]],
        timed: &[&["state", "{container}"]],
        after: &[&["delete", "--force", "{container}"]],
        floor: None,
        budgets: &[times(Figure::Alone, 0.4, CRUN), times(Figure::BackToBack, 0.4, CRUN)],
    },
];

impl Peer {
    /// Gives those that are installed, and says who is missing.
    pub fn all(scratch: &Scratch) -> (Vec<Self>, Vec<String>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        let husk = std::env::var_os("HUSK").unwrap_or_else(|| env!("CARGO_BIN_EXE_husk").into());
        let other = std::env::var(OTHER_CRUN_VARIABLE).unwrap_or_default();
        let other: Vec<String> = other.split_whitespace().map(ToOwned::to_owned).collect();
        let one = |program: OsString| vec![program.to_string_lossy().into_owned()];
        let mut runtimes = vec![("husk", one(husk)), (CRUN, one("crun".into())), ("runc", one("runc".into()))];
        if other.is_empty() {
            missing.push(format!("{OTHER_CRUN}: {OTHER_CRUN_VARIABLE} names none"));
        } else {
            runtimes.insert(1, (OTHER_CRUN, other));
        }
        for (name, mut words) in runtimes {
            match environment::find(words[0].as_ref()) {
                Some(program) => {
                    words[0] = program.display().to_string();
                    found.push(Self { name, words, kind: Kind::Runtime });
                }
                None => missing.push(format!("{name}: {} is not installed", words[0])),
            }
        }
        found.push(Self { name: "C floor", words: vec![scratch.floor.display().to_string()], kind: Kind::Floor });
        (found, missing)
    }

    /// Gives what this peer has to execute for a case, if it is one for it.
    pub fn plan(&self, case: &Case, scratch: &Scratch) -> crate::Result<Option<Plan>> {
        let bundle = scratch.directory.join(case.name).display().to_string();
        if self.kind == Kind::Floor {
            let Some(floor) = case.floor else { return Ok(None) };
            let mut words = vec![self.words[0].clone(), format!("{bundle}/rootfs"), "/payload".to_owned()];
            if floor == Floor::JoinsCgroups {
                words.extend(scratch.make_cgroups("floor")?.iter().map(|path| path.display().to_string()));
            }
            return Ok(Some(Plan { timed: vec![words], ..Plan::default() }));
        }
        let container = format!("bench-{}-{}", self.name.replace(' ', "-"), std::process::id());
        let id = format!("{container}-{{n}}");
        let line = |words: &Words| {
            let words = words
                .iter()
                .map(|word| word.replace("{bundle}", &bundle).replace("{id}", &id).replace("{container}", &container));
            self.command_line(words, scratch)
        };
        let lines = |words: &[Words]| words.iter().map(line).collect();
        let (before, timed, after) = (lines(case.before), lines(case.timed), lines(case.after));
        Ok(Some(Plan { before, timed, after, ..Plan::default() }))
    }

    /// Gives the command that runs a bundle whose payload waits, if this peer is a runtime.
    pub fn run_waiting(&self, bundle: &str, scratch: &Scratch) -> Option<CommandLine> {
        let bundle = scratch.directory.join(bundle).display().to_string();
        let id = format!("bench-{}-{}-weighed", self.name.replace(' ', "-"), std::process::id());
        let words = ["run", "--bundle", &bundle, &id].map(ToOwned::to_owned);
        (self.kind == Kind::Runtime).then(|| self.command_line(words.into_iter(), scratch))
    }

    fn command_line(&self, words: impl Iterator<Item = String>, scratch: &Scratch) -> CommandLine {
        let root = scratch.directory.join(format!("state-{}", self.name.replace(' ', "-"))).display().to_string();
        self.words.iter().cloned().chain(["--root".to_owned(), root]).chain(words).collect()
    }
}
