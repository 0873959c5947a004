//! Prints what was measured of networks: a Markdown table of medians, everybody a column, and budgets below; or JSON. Measures
//! nothing.

use std::io::Write;

use serde_json::{Value, json};

use crate::Result;

/// What one turn gave: the figure itself, and one that stands beside it.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub figure: f64,
    pub beside: f64,
}

/// What came of somebody's turns at one thing.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    pub turns: Vec<Sample>,
    /// Why there are no more.
    pub failure: Option<String>,
}

impl Cell {
    /// Adds a turn; who fails has no more of them.
    pub fn take(&mut self, turn: impl FnOnce() -> Result<Sample>) {
        if self.failure.is_some() {
            return;
        }
        match turn() {
            Ok(sample) => self.turns.push(sample),
            Err(error) => self.failure = Some(error.to_string()),
        }
    }

    pub fn median(&self, part: fn(&Sample) -> f64) -> Option<f64> {
        if self.failure.is_some() {
            return None;
        }
        median(self.turns.iter().map(part).collect())
    }
}

/// One thing that was measured, of everybody.
#[derive(Debug)]
pub struct Row {
    pub about: String,
    pub cells: Vec<Cell>,
}

/// Husk's figures by the best of others', medians of the turns' ratios.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub figure: f64,
    /// The same of what stands beside, by that of whoever had the best figure: a machine with other work changes it less.
    pub beside: f64,
}

/// A bound for a figure of husk's, and what was found.
#[derive(Debug)]
pub struct Budget {
    pub about: String,
    pub found: f64,
    pub bound: Bound,
}

/// In which direction.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Budget {
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.found >= bound,
            Bound::AtMost(bound) => self.found <= bound,
        }
    }
}

/// Things that are measured alike.
#[derive(Debug)]
pub struct Grid {
    pub title: &'static str,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Row>,
    pub budgets: Vec<Budget>,
}

impl Grid {
    pub fn new(title: &'static str, columns: Vec<&'static str>) -> Self {
        Self { title, columns, rows: Vec::new(), budgets: Vec::new() }
    }

    /// Gives husk's share of the best of these columns' figures. The first column is husk's.
    pub fn share(&self, row: usize, others: &[&str]) -> Option<Share> {
        let cells = &self.rows[row].cells;
        let is_asked = |(name, cell): &(&&str, &Cell)| others.contains(*name) && cell.failure.is_none();
        let others: Vec<&Cell> = self.columns.iter().zip(cells).filter(is_asked).map(|(_, cell)| cell).collect();
        let husk = cells.first().filter(|cell| cell.failure.is_none())?;
        let best = |turn: usize| {
            let samples = others.iter().filter_map(|cell| cell.turns.get(turn));
            samples.max_by(|one, other| one.figure.total_cmp(&other.figure))
        };
        let pairs = || husk.turns.iter().enumerate().filter_map(|(turn, own)| Some((own, best(turn)?)));
        Some(Share {
            figure: median(pairs().map(|(own, best)| own.figure / best.figure).collect())?,
            beside: median(pairs().map(|(own, best)| own.beside / best.beside).collect())?,
        })
    }

    pub fn print(&self, out: &mut impl Write) -> Result<()> {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        writeln!(out, "\n{} (load of the machine afterwards: {load})\n", self.title)?;
        writeln!(out, "| | {} |", self.columns.join(" | "))?;
        writeln!(out, "|---{}|", "|---".repeat(self.columns.len()))?;
        for row in &self.rows {
            let cells: Vec<String> = row.cells.iter().map(text).collect();
            writeln!(out, "| {} | {} |", row.about, cells.join(" | "))?;
        }
        writeln!(out)?;
        for row in &self.rows {
            for (name, cell) in self.columns.iter().zip(&row.cells) {
                if let Some(failure) = &cell.failure {
                    writeln!(out, "{}: {name} cannot: {failure}", row.about)?;
                }
            }
        }
        for budget in &self.budgets {
            let verdict = if budget.is_met() { "met" } else { "missed" };
            let (word, bound) = match budget.bound {
                Bound::AtLeast(bound) => ("at least", bound),
                Bound::AtMost(bound) => ("at most", bound),
            };
            writeln!(out, "budget {verdict}: {}: {:.2}, {word} {bound:.2}", budget.about, budget.found)?;
        }
        Ok(())
    }

    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(&row.cells).map(|(name, cell)| {
                let turns = cell.turns.iter().map(|turn| json!([turn.figure, turn.beside]));
                json!({
                    "who": name,
                    "error": cell.failure,
                    "median": cell.median(|sample| sample.figure),
                    "beside": cell.median(|sample| sample.beside),
                    "turns": turns.collect::<Vec<_>>(),
                })
            });
            json!({ "about": row.about, "cells": cells.collect::<Vec<_>>() })
        });
        let budgets = self.budgets.iter().map(|budget| {
            let (least, most) = match budget.bound {
                Bound::AtLeast(bound) => (Some(bound), None),
                Bound::AtMost(bound) => (None, Some(bound)),
            };
            json!({
                "about": budget.about, "found": budget.found, "atLeast": least, "atMost": most, "met": budget.is_met(),
            })
        });
        let (rows, budgets): (Vec<_>, Vec<_>) = (rows.collect(), budgets.collect());
        json!({ "title": self.title, "rows": rows, "budgets": budgets })
    }
}

fn text(cell: &Cell) -> String {
    match (cell.median(|sample| sample.figure), cell.median(|sample| sample.beside)) {
        (Some(figure), Some(beside)) => format!("{} ({})", short(figure), short(beside)),
        _ if cell.failure.is_some() => "cannot".to_owned(),
        _ => String::new(),
    }
}

/// Three digits say what such figures are worth.
fn short(value: f64) -> String {
    let digits = if value.abs() >= 99.5 {
        0
    } else if value.abs() >= 9.95 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

/// The middle of some figures.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(f64::midpoint(values[last / 2], values[last.div_ceil(2)]))
}
