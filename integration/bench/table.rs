//! Prints what was measured of people's commands: the least of each figure, and husk's by everybody else's.

use std::io::Write;

use serde_json::{Value, json};

use crate::Result;
use crate::measure::{self, Sample};
use crate::peers::{AS_USER, Peer};

/// What husk may take at most of the fastest peer's figures, and of podman's.
const OF_THE_FASTEST: f64 = 0.5;
const OF_PODMAN: f64 = 0.3;

/// Everything that was measured of one part.
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
    /// What husk may take, beside what is a share of the fastest peer's.
    pub limits: Vec<Limit>,
}

/// A bound for a figure of husk's, or for its share of another's.
pub struct Limit {
    pub figure: &'static str,
    pub found: f64,
    pub at_most: f64,
    pub unit: String,
}

/// What came of it.
pub struct Row {
    name: &'static str,
    pub samples: Vec<Sample>,
    pub failure: Option<String>,
}

pub type Figure = (&'static str, fn(&Sample) -> u64);

pub const WALL: Figure = ("wall", |sample| sample.nanoseconds);
pub const PROCESSOR: Figure = ("processor", |sample| sample.processor);

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
        Self {
            about,
            rows: peers.iter().map(|peer| Row::new(peer.name())).collect(),
            budgets: false,
            limits: Vec::new(),
        }
    }

    /// Gives the least of a figure of somebody's.
    pub fn least(&self, peer: Peer, figure: Figure) -> Option<f64> {
        self.rows.iter().find(|row| row.name == peer.name())?.least(figure.1)
    }

    /// Gives husk's figure by another's, run by the same user.
    fn ratio(&self, row: &Row, figure: Figure) -> Option<f64> {
        let is_user = row.name.ends_with(AS_USER);
        let own = if is_user { Peer::HuskAsUser } else { Peer::Husk };
        let husk = self.rows.iter().find(|row| row.name == own.name()).filter(|husk| husk.name != row.name)?;
        Some(husk.least(figure.1)? / row.least(figure.1)?)
    }

    /// Adds a bound for husk's share of a peer's time, where both were measured.
    pub fn limit_share(&mut self, husk: Peer, peer: Peer, at_most: f64) {
        if let (Some(own), Some(other)) = (self.least(husk, WALL), self.least(peer, WALL)) {
            let unit = format!("× {}", peer.name());
            self.limits.push(Limit { figure: WALL.0, found: own / other, at_most, unit });
        }
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
        for Limit { figure, found, at_most, unit } in &self.limits {
            let verdict = if found <= at_most { "met" } else { "missed" };
            writeln!(out, "  budget {verdict}: {figure} {found:.2} {unit}, at most {at_most:.2}")?;
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
        let limits = self.limits.iter().map(|Limit { figure, found, at_most, unit }| {
            json!({ "figure": figure, "found": found, "atMost": at_most, "of": unit, "met": found <= at_most })
        });
        let budgets: Vec<_> = budgets.chain(limits).collect();
        json!({ "about": self.about, "rows": rows.collect::<Vec<_>>(), "budgets": budgets })
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
