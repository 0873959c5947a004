//! Who is compared and at what, as data. A new comparison is a new row of [`CASES`].

use std::path::PathBuf;

use crate::bundle::Style;
use crate::environment::{self, Scratch};
use crate::measure::{CommandLine, Plan};

/// A program that runs containers.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: &'static str,
    pub program: PathBuf,
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
}

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
    },
];

impl Peer {
    /// Gives those that are installed, and says who is missing.
    pub fn all(scratch: &Scratch) -> (Vec<Self>, Vec<String>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        let husk = std::env::var_os("HUSK").unwrap_or_else(|| env!("CARGO_BIN_EXE_husk").into());
        for (name, program) in [("husk", husk), ("crun", "crun".into()), ("runc", "runc".into())] {
            match environment::find(&program) {
                Some(program) => found.push(Self { name, program, kind: Kind::Runtime }),
                None => missing.push(format!("{name}: {} is not installed", program.display())),
            }
        }
        found.push(Self { name: "C floor", program: scratch.floor.clone(), kind: Kind::Floor });
        (found, missing)
    }

    /// Gives what this peer has to execute for a case, if it is one for it.
    pub fn plan(&self, case: &Case, scratch: &Scratch) -> crate::Result<Option<Plan>> {
        let bundle = scratch.directory.join(case.name).display().to_string();
        if self.kind == Kind::Floor {
            let Some(floor) = case.floor else { return Ok(None) };
            let mut words = vec![self.program.display().to_string(), format!("{bundle}/rootfs"), "/payload".to_owned()];
            if floor == Floor::JoinsCgroups {
                words.extend(scratch.make_cgroups("floor")?.iter().map(|path| path.display().to_string()));
            }
            return Ok(Some(Plan { before: Vec::new(), timed: vec![words], after: Vec::new() }));
        }
        let container = format!("bench-{}-{}", self.name, std::process::id());
        let id = format!("{container}-{{n}}");
        let line = |words: &Words| {
            let words = words
                .iter()
                .map(|word| word.replace("{bundle}", &bundle).replace("{id}", &id).replace("{container}", &container));
            self.command_line(words, scratch)
        };
        let lines = |words: &[Words]| words.iter().map(line).collect();
        Ok(Some(Plan { before: lines(case.before), timed: lines(case.timed), after: lines(case.after) }))
    }

    /// Gives the command that runs a bundle whose payload waits, if this peer is a runtime.
    pub fn run_waiting(&self, bundle: &str, scratch: &Scratch) -> Option<CommandLine> {
        let bundle = scratch.directory.join(bundle).display().to_string();
        let id = format!("bench-{}-{}-weighed", self.name, std::process::id());
        let words = ["run", "--bundle", &bundle, &id].map(ToOwned::to_owned);
        (self.kind == Kind::Runtime).then(|| self.command_line(words.into_iter(), scratch))
    }

    fn command_line(&self, words: impl Iterator<Item = String>, scratch: &Scratch) -> CommandLine {
        let root = scratch.directory.join(format!("state-{}", self.name)).display().to_string();
        [self.program.display().to_string(), "--root".to_owned(), root].into_iter().chain(words).collect()
    }
}
