//! `make bench`: husk beside others in one run: as a runtime beside crun, runc and a C program that does the least, with
//! images beside podman, skopeo, containerd and docker, with containers beside podman and docker, and with networks beside them,
//! pasta, slirp4netns and the kernel alone.
//!
//! Of the runtimes, every round takes everybody's turn at everything, in an order of its own: once alone, after a rest, as a person meets it
//! (the rest lets the kernel's grace periods and the processor's caches go cold), and several times back to back, as a busy
//! machine does. What is timed is from fork to exit of the command. Medians and least values are printed, with ratios.
#![expect(unreachable_pub, reason = "a program exports nothing: here, pub is what a file offers to the others")]
#![expect(clippy::disallowed_methods, reason = "fixtures are written once, to a directory that nobody else knows")]

mod bundle;
mod cases;
#[path = "../support/docker_registry.rs"]
mod docker_registry;
mod engine;
mod environment;
mod images;
mod measure;
mod network;
mod peers;
mod report;
mod table;
#[expect(dead_code, reason = "the tests write archives of other kinds")]
#[path = "../support/tar.rs"]
mod tar;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use cases::{CASES, Case, Peer};
use environment::Scratch;
use measure::{Plan, Sample, Series, Shuffler, Weight};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Long enough for what the last run left in flight (RCU, dying cgroups and namespaces) to be over.
const REST: Duration = Duration::from_millis(60);

/// The bundle of the container that is weighed.
const WEIGHED: &str = "weighed";

/// Compares husk with crun, runc and a C program that does the least.
#[derive(Parser)]
struct Arguments {
    /// How many rounds
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// How many runs back to back in each round; one more goes first, and isn't counted
    #[arg(long, default_value_t = 5)]
    batch: u32,
    /// Only these comparisons
    #[arg(long = "case", value_parser = clap::builder::PossibleValuesParser::new(CASES.iter().map(|case| case.name)))]
    cases: Vec<String>,
    /// Only this part
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// With images, containers and networks, only these beside husk
    #[arg(long = "peer", value_enum)]
    peers: Vec<peers::Peer>,
    /// How often everybody pulls each image into new directories
    #[arg(long, default_value_t = 2)]
    pulls: u32,
    /// With networks, how often everybody's turn comes at each kind of traffic
    #[arg(long, default_value_t = 4)]
    turns: u32,
    /// With networks, how many seconds a turn sends
    #[arg(long, default_value_t = 1)]
    seconds: u32,
    /// With containers, keep all files in memory, so that no disk is measured
    #[arg(long)]
    in_memory: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Ignored: cargo passes it
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Runtime,
    Engine,
    Network,
    Images,
}

/// One peer's turn at one case.
pub struct Entry<'a> {
    pub case: &'a Case,
    pub peer: &'a Peer,
    pub outcome: Outcome,
    plan: Plan,
}

/// What came of it.
pub enum Outcome {
    Measured { alone: Vec<Sample>, back_to_back: Vec<Sample> },
    Failed(String),
}

fn main() -> ExitCode {
    match Arguments::try_parse().map_err(Into::into).and_then(|arguments| compare(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err("runs as root only: it compares limits and devices, which others can't have here".into());
    }
    environment::enter_namespaces()?;
    let scratch = Scratch::new()?;
    let is_chosen = |part| arguments.part.is_none_or(|chosen| chosen == part);
    let mut json = serde_json::Map::new();
    if is_chosen(Part::Runtime) {
        compare_runtimes(arguments, &scratch, &mut json)?;
    }
    // A choice of cases is one of the runtime's.
    if is_chosen(Part::Engine) && arguments.cases.is_empty() {
        let tables = engine::compare(&scratch, &arguments.peers, arguments.in_memory, arguments.json)?;
        json.insert("engine".to_owned(), tables.to_json());
    }
    if is_chosen(Part::Network) && arguments.cases.is_empty() {
        let amount = network::Amount { turns: arguments.turns, seconds: arguments.seconds };
        json.insert("network".to_owned(), network::compare(&scratch, &arguments.peers, amount, arguments.json)?);
    }
    if is_chosen(Part::Images) && arguments.cases.is_empty() {
        let cache = env!("CARGO_TARGET_TMPDIR").as_ref();
        let tables = images::compare(&scratch, cache, arguments.pulls, &arguments.peers, arguments.json)?;
        json.insert("images".to_owned(), tables.to_json());
    }
    if arguments.json {
        writeln!(std::io::stdout(), "{:#}", serde_json::Value::Object(json))?;
    }
    Ok(())
}

/// Compares the verbs; prints the table, or adds to the JSON.
fn compare_runtimes(
    arguments: &Arguments,
    scratch: &Scratch,
    json: &mut serde_json::Map<String, serde_json::Value>,
) -> Result<()> {
    let mut notes: Vec<String> = environment::hide_unified()?.into_iter().map(Into::into).collect();
    let (peers, missing) = Peer::all(scratch);
    notes.extend(missing);

    let is_chosen = |case: &&Case| arguments.cases.is_empty() || arguments.cases.iter().any(|name| name == case.name);
    let mut entries = Vec::new();
    for case in CASES.iter().filter(is_chosen) {
        bundle::write(scratch, case.name, case.style, case.payload)?;
        for peer in &peers {
            if let Some(plan) = peer.plan(case, scratch)? {
                entries.push(Entry { case, peer, outcome: try_once(scratch, &plan), plan });
            }
        }
    }
    measure_all(arguments, scratch, &mut entries)?;

    bundle::write(scratch, WEIGHED, bundle::Style::Engine, &["wait"])?;
    let weights = peers
        .iter()
        .filter_map(|peer| Some((peer.name, peer.run_waiting(WEIGHED, scratch)?)))
        .map(|(name, words)| (name, measure::weigh(&words)));
    let report = report::Report {
        notes,
        rounds: arguments.rounds,
        batch: arguments.batch,
        weights: weights.collect::<Vec<(&str, Result<Weight>)>>(),
        profile: time_compiler()?,
        entries: &entries,
    };
    if arguments.json {
        json.extend(report.to_json());
        return Ok(());
    }
    report.print_table()
}

/// Tries a peer at a case before anything is counted; this also warms what is always warm.
fn try_once(scratch: &Scratch, plan: &Plan) -> Outcome {
    let series = Series { rest: Duration::ZERO, times: 1, first: 0 };
    match measure::time(&scratch.stopwatch, plan, series) {
        Ok(_) => Outcome::Measured { alone: Vec::new(), back_to_back: Vec::new() },
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn measure_all(arguments: &Arguments, scratch: &Scratch, entries: &mut [Entry]) -> Result<()> {
    let mut shuffler = Shuffler::new();
    let mut turns: Vec<_> = (0..entries.len()).flat_map(|entry| [(entry, false), (entry, true)]).collect();
    let mut number = 1;
    for round in 0..arguments.rounds {
        measure::show_progress(&format!("round {} of {}", round + 1, arguments.rounds));
        shuffler.shuffle(&mut turns);
        for (entry, is_alone) in &turns {
            let entry = &mut entries[*entry];
            let Outcome::Measured { alone, back_to_back } = &mut entry.outcome else { continue };
            let name = format!("{} at {}", entry.peer.name, entry.case.name);
            let (rest, times) = if *is_alone { (REST, 1) } else { (Duration::ZERO, arguments.batch + 1) };
            let series = Series { rest, times, first: number };
            number += times;
            let samples = measure::time(&scratch.stopwatch, &entry.plan, series)
                .map_err(|error| format!("{name}, which worked before: {error}"))?;
            if *is_alone {
                alone.extend(samples);
            } else {
                back_to_back.extend(samples.into_iter().skip(1));
            }
        }
    }
    measure::show_progress("");
    Ok(())
}

/// Times the seccomp compiler alone, on the profile of the engine-style bundle.
fn time_compiler() -> Result<report::Compiler> {
    let profile = bundle::profile();
    let mut nanoseconds = Vec::new();
    let mut instructions = 0;
    for _ in 0..201 {
        let start = Instant::now();
        instructions = husk::seccomp::compile(&profile).map_err(|error| error.report())?.filter.len();
        nanoseconds.push(u64::try_from(start.elapsed().as_nanos())?);
    }
    // A process compiles once, with nothing in its caches: the first time is as true as the others.
    let first = nanoseconds[0];
    let summary = measure::summarize(nanoseconds).ok_or("there are samples")?;
    let load = time_loading(&profile)?;
    Ok(report::Compiler { names: bundle::profile_names(&profile), instructions, first, median: summary.median, load })
}

/// Times how long the kernel takes to load the filter, each time into a thread of its own, which takes it along.
fn time_loading(profile: &oci_spec::runtime::LinuxSeccomp) -> Result<u64> {
    let program = husk::seccomp::compile(profile).map_err(|error| error.report())?;
    let load = || -> Result<u64, rustix::io::Errno> {
        rustix::thread::set_no_new_privs(true)?;
        let start = Instant::now();
        husk::sys::seccomp::install(&program.filter, program.flags)?;
        Ok(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    };
    let mut nanoseconds = Vec::new();
    for _ in 0..51 {
        let taken = std::thread::scope(|scope| scope.spawn(load).join());
        nanoseconds.push(taken.map_err(|_| "a thread with a filter failed")??);
    }
    Ok(measure::summarize(nanoseconds).ok_or("there are samples")?.median)
}
