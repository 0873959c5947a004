//! Prints what was measured, as a table for people or as JSON. Measures nothing.

use std::io::Write;

use serde_json::{Value, json};

use crate::cases::{Bound, Budget, CRUN, Figure, OTHER_CRUN};
use crate::measure::{Sample, Summary, Weight, summarize};
use crate::{Entry, Outcome, Result};

/// Everything that is printed.
pub struct Report<'a> {
    /// What a reader must know of the circumstances.
    pub notes: Vec<String>,
    pub rounds: u32,
    pub batch: u32,
    pub entries: &'a [Entry<'a>],
    pub weights: Vec<(&'static str, Result<Weight>)>,
    pub profile: Compiler,
}

/// How long the seccomp compiler took, in nanoseconds.
pub struct Compiler {
    pub names: usize,
    pub instructions: usize,
    pub first: u64,
    pub median: u64,
    /// What the kernel takes to check and load the filter.
    pub load: u64,
}

/// One way in which a case is timed.
#[derive(Clone, Copy)]
enum Way {
    Alone,
    BackToBack,
}

impl Report<'_> {
    pub fn print_table(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        writeln!(
            out,
            "{} rounds, each once alone (after {} ms of rest) and {} times back to back; milliseconds: median (least)",
            self.rounds,
            crate::REST.as_millis(),
            self.batch
        )?;
        let mut case = "";
        for entry in self.entries {
            if case != entry.case.name {
                self.print_budgets(&mut out, case)?;
                case = entry.case.name;
                writeln!(out, "\n{} ({case})", entry.case.about)?;
                let columns = ["alone", "back to back", "memory", "husk/it alone", "husk/it back to back"];
                writeln!(
                    out,
                    "  {:<10}{:>18}{:>18}{:>12}{:>16}{:>22}",
                    "", columns[0], columns[1], columns[2], columns[3], columns[4]
                )?;
            }
            let Outcome::Measured { .. } = entry.outcome else {
                if let Outcome::Failed(message) = &entry.outcome {
                    writeln!(out, "  {:<10}cannot: {message}", entry.peer.name)?;
                }
                continue;
            };
            writeln!(
                out,
                "  {:<10}{:>18}{:>18}{:>12}{:>16}{:>22}",
                entry.peer.name,
                times(summary(entry, Way::Alone)),
                times(summary(entry, Way::BackToBack)),
                memory(entry).map_or(String::new(), |kilobytes| format!("{kilobytes} kB")),
                self.ratio(entry, Way::Alone).map_or(String::new(), |ratio| format!("{ratio:.2}")),
                self.ratio(entry, Way::BackToBack).map_or(String::new(), |ratio| format!("{ratio:.2}")),
            )?;
        }
        self.print_budgets(&mut out, case)?;
        if let Some([alone, back_to_back]) = self.joining() {
            writeln!(
                out,
                "\njoining cgroups: {:.2} ms alone, {:.2} ms back to back (the C floor with a write to each cgroup.procs, less \
                 the one without)",
                milliseconds_between(alone),
                milliseconds_between(back_to_back)
            )?;
        }
        writeln!(out, "\nwhile an engine-style container runs")?;
        for (name, weight) in &self.weights {
            match weight {
                Ok(weight) => {
                    writeln!(out, "  {name:<10}VmHWM {} kB, PSS {} kB", weight.peak, weight.proportional)?;
                }
                Err(error) => writeln!(out, "  {name:<10}cannot: {error}")?,
            }
        }
        writeln!(
            out,
            "\nhusk's compiler of a seccomp profile of {} names: {} instructions, {:.0} µs the first time, median {:.0} µs; the \
             kernel loads it in {:.0} µs",
            self.profile.names,
            self.profile.instructions,
            microseconds(self.profile.first),
            microseconds(self.profile.median),
            microseconds(self.profile.load)
        )?;
        Ok(())
    }

    /// Gives the members of the JSON object.
    pub fn to_json(&self) -> serde_json::Map<String, Value> {
        let entries: Vec<_> = self.entries.iter().map(|entry| self.entry_json(entry)).collect();
        let weights: Vec<_> = self
            .weights
            .iter()
            .map(|(name, weight)| match weight {
                Ok(weight) => json!({ "peer": name, "peakKb": weight.peak, "pssKb": weight.proportional }),
                Err(error) => json!({ "peer": name, "error": error.to_string() }),
            })
            .collect();
        let report = json!({
            "notes": self.notes,
            "rounds": self.rounds,
            "batch": self.batch,
            "entries": entries,
            "budgets": self.judgements().map(|judgement| judgement.to_json()).collect::<Vec<_>>(),
            "joiningCgroupsNs": self.joining().map(|[alone, back_to_back]| {
                json!({ "alone": alone.1.saturating_sub(alone.0), "backToBack": back_to_back.1.saturating_sub(back_to_back.0) })
            }),
            "running": weights,
            "seccompCompiler": {
                "names": self.profile.names,
                "instructions": self.profile.instructions,
                "firstNs": self.profile.first,
                "medianNs": self.profile.median,
                "loadNs": self.profile.load,
            },
        });
        match report {
            Value::Object(members) => members,
            _ => serde_json::Map::new(),
        }
    }

    fn entry_json(&self, entry: &Entry) -> Value {
        let mut value = json!({ "case": entry.case.name, "peer": entry.peer.name });
        if let Outcome::Failed(message) = &entry.outcome {
            value["error"] = json!(message);
            return value;
        }
        for (key, way) in [("alone", Way::Alone), ("backToBack", Way::BackToBack)] {
            if let Some(summary) = summary(entry, way) {
                value[key] = json!({
                    "medianNs": summary.median,
                    "leastNs": summary.least,
                    "huskRatio": self.ratio(entry, way),
                });
            }
        }
        value["memoryKb"] = json!(memory(entry));
        value
    }

    fn print_budgets(&self, out: &mut impl Write, case: &str) -> Result<()> {
        for judgement in self.judgements().filter(|judgement| judgement.case == case) {
            writeln!(out, "  {judgement}")?;
        }
        Ok(())
    }

    /// Holds husk's figures to their budgets, where both sides were measured.
    fn judgements(&self) -> impl Iterator<Item = Judgement> {
        let husks = self.entries.iter().filter(|entry| entry.peer.name == "husk");
        husks.flat_map(|husk| husk.case.budgets.iter().filter_map(|budget| self.judge(husk, *budget)))
    }

    fn judge(&self, husk: &Entry, budget: Budget) -> Option<Judgement> {
        let figure = |entry: &Entry| match budget.figure {
            Figure::Alone => Some(in_milliseconds(summary(entry, Way::Alone)?.median)),
            Figure::BackToBack => Some(in_milliseconds(summary(entry, Way::BackToBack)?.median)),
            #[expect(clippy::cast_precision_loss, reason = "kilobytes of a process")]
            Figure::Memory => Some(memory(entry)? as f64),
        };
        let case = husk.case.name;
        let (found, at_most, unit) = match budget.bound {
            Bound::Times(factor, peer) => {
                let newest = (peer == CRUN).then(|| self.find(case, OTHER_CRUN)).flatten();
                let of = newest.filter(|entry| figure(entry).is_some()).or_else(|| self.find(case, peer))?;
                (figure(husk)? / figure(of)?, factor, format!("× {}", of.peer.name))
            }
            #[expect(clippy::cast_precision_loss, reason = "kilobytes of a process")]
            Bound::Kilobytes(bound) => (figure(husk)?, bound as f64, "kB".to_owned()),
        };
        Some(Judgement { case, figure: budget.figure, found, at_most, unit })
    }

    /// Gives husk's median by this entry's.
    fn ratio(&self, entry: &Entry, way: Way) -> Option<f64> {
        let husk = self.find(entry.case.name, "husk").filter(|husk| husk.peer.name != entry.peer.name)?;
        Some(in_milliseconds(summary(husk, way)?.median) / in_milliseconds(summary(entry, way)?.median))
    }

    /// Gives the medians of the floor without and with joining cgroups, alone and back to back.
    fn joining(&self) -> Option<[(u64, u64); 2]> {
        let (plain, joining) = (self.find("bare", "C floor")?, self.find("engine", "C floor")?);
        let pair = |way| Some((summary(plain, way)?.median, summary(joining, way)?.median));
        Some([pair(Way::Alone)?, pair(Way::BackToBack)?])
    }

    fn find(&self, case: &str, peer: &str) -> Option<&Entry<'_>> {
        self.entries.iter().find(|entry| entry.case.name == case && entry.peer.name == peer)
    }
}

/// How a figure stands to its budget.
struct Judgement {
    case: &'static str,
    figure: Figure,
    found: f64,
    at_most: f64,
    unit: String,
}

impl Judgement {
    fn is_met(&self) -> bool {
        self.found <= self.at_most
    }

    fn figure(&self) -> &'static str {
        match self.figure {
            Figure::Alone => "alone",
            Figure::BackToBack => "back to back",
            Figure::Memory => "memory",
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "case": self.case, "figure": self.figure(), "found": self.found, "atMost": self.at_most, "unit": self.unit,
            "met": self.is_met(),
        })
    }
}

impl std::fmt::Display for Judgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.figure == Figure::Memory { 0 } else { 2 };
        let verdict = if self.is_met() { "met" } else { "missed" };
        let (figure, unit) = (self.figure(), &self.unit);
        write!(f, "budget {verdict}: {figure} {:.digits$} {unit}, at most {:.digits$}", self.found, self.at_most)
    }
}

fn samples<'e>(entry: &'e Entry, way: Way) -> &'e [Sample] {
    match (&entry.outcome, way) {
        (Outcome::Measured { alone, .. }, Way::Alone) => alone,
        (Outcome::Measured { back_to_back, .. }, Way::BackToBack) => back_to_back,
        (Outcome::Failed(_), _) => &[],
    }
}

fn summary(entry: &Entry, way: Way) -> Option<Summary> {
    summarize(samples(entry, way).iter().map(|sample| sample.nanoseconds).collect())
}

/// Gives the median of the most memory that the timed commands had.
fn memory(entry: &Entry) -> Option<u64> {
    Some(summarize(samples(entry, Way::Alone).iter().map(|sample| sample.kilobytes).collect())?.median)
}

fn times(summary: Option<Summary>) -> String {
    let show =
        |summary: Summary| format!("{:.2} ({:.2})", in_milliseconds(summary.median), in_milliseconds(summary.least));
    summary.map_or(String::new(), show)
}

fn milliseconds_between((low, high): (u64, u64)) -> f64 {
    in_milliseconds(high) - in_milliseconds(low)
}

#[expect(clippy::cast_precision_loss, reason = "runs take milliseconds")]
fn in_milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn microseconds(nanoseconds: u64) -> f64 {
    in_milliseconds(nanoseconds) * 1e3
}
