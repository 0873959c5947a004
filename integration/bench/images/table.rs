//! Prints what was measured of images: the least of each figure, and husk's by everybody else's.

use std::io::Write;

use serde_json::{Value, json};

use super::peers::Peer;
use crate::Result;
use crate::measure::{self, Sample};

/// What husk may take at most of the fastest peer's figures, and of podman's.
const OF_THE_FASTEST: f64 = 0.5;
const OF_PODMAN: f64 = 0.3;

/// Everything about images.
pub struct Tables {
    notes: Vec<String>,
    all: Vec<Table>,
    /// Kept for JSON rather than printed.
    is_silent: bool,
}

/// One thing that everybody did.
pub struct Table {
    about: String,
    pub rows: Vec<Row>,
    pub budgets: bool,
}

/// What came of it.
pub struct Row {
    name: &'static str,
    pub samples: Vec<Sample>,
    pub failure: Option<String>,
}

type Figure = (&'static str, fn(&Sample) -> u64);

const WALL: Figure = ("wall", |sample| sample.nanoseconds);
const PROCESSOR: Figure = ("processor", |sample| sample.processor);

impl Row {
    pub fn new(name: &'static str) -> Self {
        Self { name, samples: Vec::new(), failure: None }
    }

    pub fn fill(&mut self, answer: Result<Vec<Sample>>) {
        match answer {
            Ok(samples) => self.samples = samples,
            Err(error) => self.failure = Some(error.to_string()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "ratios and rounded figures")]
    fn least(&self, figure: fn(&Sample) -> u64) -> Option<f64> {
        self.samples.iter().map(figure).min().map(|least| least as f64)
    }
}

impl Table {
    pub fn new(about: String, peers: &[Peer]) -> Self {
        Self { about, rows: peers.iter().map(|peer| Row::new(peer.name())).collect(), budgets: false }
    }

    fn ratio(&self, row: &Row, figure: Figure) -> Option<f64> {
        let husk = self.rows.iter().find(|row| row.name == Peer::Husk.name()).filter(|husk| husk.name != row.name)?;
        Some(husk.least(figure.1)? / row.least(figure.1)?)
    }

    /// Gives figure, ratio, bound, and whose figure it is a ratio of.
    fn judgements(&self) -> Vec<(&'static str, f64, f64, &'static str)> {
        let mut judgements = Vec::new();
        for figure in [WALL, PROCESSOR].into_iter().filter(|_| self.budgets) {
            let ratios: Vec<_> =
                self.rows.iter().filter_map(|row| Some((self.ratio(row, figure)?, row.name))).collect();
            if let Some((ratio, name)) = ratios.iter().copied().max_by(|one, other| one.0.total_cmp(&other.0)) {
                judgements.push((figure.0, ratio, OF_THE_FASTEST, name));
            }
            if let Some((ratio, name)) = ratios.into_iter().find(|(_, name)| *name == Peer::Podman.name()) {
                judgements.push((figure.0, ratio, OF_PODMAN, name));
            }
        }
        judgements
    }

    fn print(&self, out: &mut impl Write) -> Result<()> {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        writeln!(out, "\n{} (the least of each figure; load of the machine afterwards: {load})", self.about)?;
        let columns = ["wall", "processor", "memory", "written", "husk/it wall", "husk/it processor"];
        let [wall, processor, memory, written, ratio, of_processor] = columns;
        writeln!(out, "  {:<18}{wall:>12}{processor:>12}{memory:>10}{written:>10}{ratio:>14}{of_processor:>19}", "")?;
        for row in &self.rows {
            if let Some(failure) = &row.failure {
                writeln!(out, "  {:<18}cannot: {failure}", row.name)?;
                continue;
            }
            let Some(wall) = row.least(WALL.1) else { continue };
            let text = |value: Option<f64>, scale: f64, unit: &str| {
                value.filter(|value| *value > 0.0).map_or(String::new(), |value| format!("{:.0} {unit}", value / scale))
            };
            let ratio = |figure| self.ratio(row, figure).map_or(String::new(), |ratio| format!("{ratio:.2}"));
            writeln!(
                out,
                "  {:<18}{:>12}{:>12}{:>10}{:>10}{:>14}{:>19}",
                row.name,
                duration(wall),
                row.least(PROCESSOR.1).map_or(String::new(), duration),
                text(row.least(|sample| sample.kilobytes), 1024.0, "MB"),
                text(row.least(|sample| sample.written), 1e6, "MB"),
                ratio(WALL),
                ratio(PROCESSOR),
            )?;
        }
        for (figure, found, bound, name) in self.judgements() {
            let verdict = if found <= bound { "met" } else { "missed" };
            writeln!(out, "  budget {verdict}: {figure} {found:.2} × {name}, at most {bound:.2}")?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let least = |figure| row.least(figure);
            json!({
                "peer": row.name,
                "error": row.failure,
                "runs": row.samples.len(),
                "wallNs": least(WALL.1),
                "processorNs": least(PROCESSOR.1),
                "memoryKb": least(|sample| sample.kilobytes),
                "writtenBytes": least(|sample| sample.written),
            })
        });
        let budgets = self.judgements().into_iter().map(|(figure, found, bound, name)| {
            json!({ "figure": figure, "found": found, "atMost": bound, "of": name, "met": found <= bound })
        });
        json!({ "about": self.about, "rows": rows.collect::<Vec<_>>(), "budgets": budgets.collect::<Vec<_>>() })
    }
}

impl Tables {
    pub fn new(is_silent: bool) -> Self {
        Self { notes: Vec::new(), all: Vec::new(), is_silent }
    }

    /// Tells what a reader must know.
    pub fn note(&mut self, text: String) -> Result<()> {
        if !self.is_silent {
            measure::show_progress("");
            writeln!(std::io::stdout(), "note: {text}")?;
        }
        self.notes.push(text);
        Ok(())
    }

    pub fn add(&mut self, table: Table) -> Result<()> {
        if !self.is_silent {
            measure::show_progress("");
            table.print(&mut std::io::stdout().lock())?;
        }
        self.all.push(table);
        Ok(())
    }

    pub fn to_json(&self) -> Value {
        json!({ "notes": self.notes, "tables": self.all.iter().map(Table::to_json).collect::<Vec<_>>() })
    }
}

fn duration(nanoseconds: f64) -> String {
    if nanoseconds >= 1e9 { format!("{:.2} s", nanoseconds / 1e9) } else { format!("{:.1} ms", nanoseconds / 1e6) }
}
