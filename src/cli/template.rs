//! Templates of `--format`: the part of Go's `text/template` that scripts for docker and podman use, over JSON.
//!
//! There are fields, `index`, variables, pipelines, `if`, `with`, `range` with `break` and `continue`, comments, trim
//! markers, Go's functions but `call` and `js`, and docker's (`json split join title lower upper pad truncate`). There is no
//! `define`, `template` or `block`. What is printed, and what is an error, follows Go
//! (<https://pkg.go.dev/text/template>, <https://pkg.go.dev/fmt>) and docker's `templates` package, with these differences:
//!
//! - An absent field is an error, as in docker's structs. Fields that docker's documents use for maps are known by their
//!   names (`Labels`, `Ports`, … in [`value`]) and give an empty value.
//! - `json` prints an object's fields in the order in which [`serde_json::Map`] has them.
//! - Whole numbers of the document are integers, wherever they stand.
//!
//! A template has bounded depth, takes bounded steps and writes a bounded text; none panics.

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;
#[cfg(test)]
mod tests;
mod value;

use serde_json::Value;

use crate::error::{Error, Result};

/// Text that a template may write, in bytes: more than any list of this machine's things.
const TEXT_BYTES: usize = 64 << 20;

/// What the root of a document answers to a name with arguments: `{{.Label "a.b"}}` asks for `("Label", ["a.b"])`.
pub type Method<'a> = &'a dyn Fn(&str, &[&str]) -> Option<String>;

/// A template that has been read.
#[derive(Debug)]
pub struct Template {
    source: String,
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Reads a template, as it was typed. Escapes outside of actions are text ([`unescape`] turns them around before).
    ///
    /// Fails with Go's message (`template: :1: unclosed action`).
    pub fn parse(source: &str) -> Result<Self> {
        Ok(Self { source: source.to_owned(), nodes: parse::parse(source)? })
    }

    /// Writes the template for a document. Nothing is added at its end.
    ///
    /// Fails with Go's message, and with the fields that there are as a hint where one is asked for that is not.
    pub fn render(&self, data: &Value) -> Result<String> {
        self.render_with(data, &|_, _| None)
    }

    /// Writes the template for a document with methods.
    pub fn render_with(&self, data: &Value, method: Method<'_>) -> Result<String> {
        eval::run(&eval::Execution { source: &self.source, data, method, is_header: false }, &self.nodes)
    }

    /// Writes the header of the table that the template makes: `headers` is an object of the names of its columns.
    ///
    /// Functions that would change them leave them as they are, but those that align. A label's header is the last part
    /// of its name.
    pub fn render_header(&self, headers: &Value) -> Result<String> {
        let label = |name: &str, arguments: &[&str]| match (name, arguments) {
            ("Label", [label]) => Some(label.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ")),
            _ => None,
        };
        eval::run(
            &eval::Execution { source: &self.source, data: headers, method: &label, is_header: true },
            &self.nodes,
        )
    }
}

/// Turns `\t` and `\n` into what they stand for, as the formats of lists have them: shells do not.
pub fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// An error of the template itself, in Go's words.
fn fail(source: &str, at: usize, why: &str) -> Error {
    let (line, _) = position(source, at);
    Error::invalid(format!("template: :{line}: {why}"))
}

/// An error of a part of the template, in Go's words.
fn fail_in(source: &str, at: usize, part: &str, why: &str) -> Error {
    let (line, column) = position(source, at);
    Error::invalid(format!("template: :{line}:{column}: executing \"\" at <{part}>: {why}"))
}

/// Gives the line, from 1, and the byte in it, from 0.
fn position(source: &str, at: usize) -> (usize, usize) {
    let before = source.get(..at).unwrap_or(source);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before.len() - before.rfind('\n').map_or(0, |newline| newline + 1))
}
