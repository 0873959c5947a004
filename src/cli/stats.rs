//! `husk stats`: what containers use, in docker's columns.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::format::{Columns, Format, Row};
use super::image_list::object;
use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::list;
use crate::engine::record::Record;
use crate::engine::settings;
use crate::engine::stats::{Sample, Sampler};
use crate::error::Result;
use crate::support::id::ContainerId;
use crate::support::units::{binary_size, human_size};

const COLUMNS: Columns = Columns {
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "{{.ID}}",
};

/// Between two looks: what a share of the processors is measured over.
const INTERVAL: Duration = Duration::from_secs(1);

/// Home, and behind what is written then: clear to the end of each line, and of the screen (console_codes(4)).
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\n";
const CLEAR_REST: &str = "\x1b[J";

/// Show what containers use of processors, memory, network and disks
///
/// All that run, or those that are named; anew every second, until the command is ended.
#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Show those that do not run, too
    #[arg(long, short)]
    all: bool,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids of the containers
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `stats`.
pub(super) fn run(args: &Stats) -> Result<Status> {
    let Stats { all, no_stream, no_trunc, format, containers: words } = args;
    let format = Format::choose(&COLUMNS, format.as_deref(), false)?;
    let engine = Engine::open(settings::File::default())?;
    let sampler = Sampler::new(&engine)?;
    let redraws = !no_stream && std::io::stdout().is_terminal();
    let mut before: HashMap<ContainerId, Sample> = HashMap::new();
    let mut is_first = true;
    loop {
        let chosen = choose(&engine, words, *all)?;
        let mut now = HashMap::new();
        for (_, record) in &chosen {
            if let Some(sample) = sampler.sample(&engine, record)? {
                now.insert(record.id, sample);
            }
        }
        if !is_first {
            let rows = chosen.iter().map(|(word, record)| {
                row(word, record, before.get(&record.id).zip(now.get(&record.id)), now.get(&record.id), *no_trunc)
            });
            let text = format.print(rows)?;
            let text = if redraws { format!("{HOME}{}{CLEAR_REST}", text.replace('\n', CLEAR_LINE)) } else { text };
            if !printer::print_or_end(&text)? || *no_stream {
                return Ok(Status::Success);
            }
        }
        before = now;
        is_first = false;
        std::thread::sleep(INTERVAL);
    }
}

/// The containers that are named, by the word for them, or those that there are.
fn choose(engine: &Engine, words: &[String], all: bool) -> Result<Vec<(String, Record)>> {
    if words.is_empty() {
        let listed = list::list(engine)?.containers;
        let chosen = listed.iter().filter(|listed| all || listed.runs());
        return chosen.map(|listed| Ok((listed.summary.id.short().to_owned(), listed.record()?))).collect();
    }
    let containers = engine.containers()?;
    words.iter().map(|word| Ok((word.clone(), containers.find(word)?.record()?))).collect()
}

fn row(word: &str, record: &Record, both: Option<(&Sample, &Sample)>, now: Option<&Sample>, in_full: bool) -> Row {
    let share = both.map_or(0.0, |(before, now)| share(before, now));
    let pair = |(one, other): (u64, u64)| format!("{} / {}", human_size(one), human_size(other));
    let (used, limit) = now.map_or((0, 0), |now| (now.memory, now.memory_limit));
    #[expect(clippy::cast_precision_loss, reason = "for people, with two digits")]
    let memory_share = if limit == 0 { 0.0 } else { used as f64 * 100.0 / limit as f64 };
    let fields = json!({
        "Container": word,
        "ID": if in_full { record.id.as_str() } else { record.id.short() },
        "Name": record.name.as_str(),
        "CPUPerc": format!("{share:.2}%"),
        "MemUsage": format!("{} / {}", binary_size(used), binary_size(limit)),
        "MemPerc": format!("{memory_share:.2}%"),
        "NetIO": pair(now.map_or((0, 0), |now| now.network)),
        "BlockIO": pair(now.map_or((0, 0), |now| now.blocks)),
        "PIDs": now.map_or(0, |now| now.pids).to_string(),
    });
    Row { fields: object(fields), ..Row::default() }
}

/// The share of one processor, in hundredths.
#[expect(clippy::cast_precision_loss, reason = "for people, with two digits")]
fn share(before: &Sample, now: &Sample) -> f64 {
    let passed = now.at.saturating_duration_since(before.at).as_nanos().max(1) as f64;
    now.cpu.saturating_sub(before.cpu) as f64 * 100.0 / passed
}
