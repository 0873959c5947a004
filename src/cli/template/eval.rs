//! Walks a template's tree over a document and writes what it says.

use std::borrow::Cow;

use serde_json::Value;

use super::functions::{self, Function};
use super::parse::{Node, Operand, Pipeline, Term};
use super::value::{Datum, Shape, Text};
use super::{Method, fail_in};
use crate::error::{Error, Result};

/// Actions and texts that one template may write: a thousand rows take ten thousand.
const STEPS: u64 = 2_000_000;

/// What a template is about.
pub(super) struct Execution<'a> {
    /// The template, for messages.
    pub(super) source: &'a str,
    pub(super) data: &'a Value,
    /// What the root answers to names with arguments.
    pub(super) method: Method<'a>,
    /// The document is the headers of a table's columns.
    pub(super) is_header: bool,
}

/// Writes the whole template.
pub(super) fn run(execution: &Execution<'_>, nodes: &[Node]) -> Result<String> {
    let root = Datum::borrowed(execution.data);
    let mut state = State { execution, variables: vec![("", root.clone())], into: Text::default(), steps: STEPS };
    state.list(nodes, &root)?;
    Ok(state.into.finish())
}

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct State<'a, 'n> {
    execution: &'a Execution<'a>,
    variables: Vec<(&'n str, Datum<'a>)>,
    into: Text,
    steps: u64,
}

impl<'a, 'n> State<'a, 'n> {
    fn list(&mut self, nodes: &'n [Node], dot: &Datum<'a>) -> Result<Flow> {
        for node in nodes {
            self.step()?;
            let flow = match node {
                Node::Text(text) => {
                    self.into.push(text)?;
                    Flow::On
                }
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.names.is_empty() {
                        value.show(&mut self.into)?;
                    }
                    Flow::On
                }
                Node::If { condition, then, otherwise } => {
                    let mark = self.variables.len();
                    let chosen = if self.pipeline(condition, dot)?.is_true() { then } else { otherwise };
                    let flow = self.list(chosen, dot)?;
                    self.variables.truncate(mark);
                    flow
                }
                Node::With { value, then, otherwise } => {
                    let mark = self.variables.len();
                    let value = self.pipeline(value, dot)?;
                    let flow = if value.is_true() { self.list(then, &value)? } else { self.list(otherwise, dot)? };
                    self.variables.truncate(mark);
                    flow
                }
                Node::Range { over, each, otherwise } => {
                    let mark = self.variables.len();
                    let flow = self.range(over, each, otherwise, dot)?;
                    self.variables.truncate(mark);
                    flow
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn range(&mut self, over: &'n Pipeline, each: &'n [Node], otherwise: &'n [Node], dot: &Datum<'a>) -> Result<Flow> {
        let value = self.pipeline(over, dot)?;
        let count = match value.value() {
            None | Some(Value::Null) => 0,
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            Some(Value::Number(number)) if !number.is_f64() => {
                if over.names.len() > 1 {
                    return Err(self.fail(over, &format!("can't use {number} to iterate over more than one variable")));
                }
                number.as_u64().map_or(0, |number| usize::try_from(number).unwrap_or(usize::MAX))
            }
            Some(_) => {
                let mut text = Text::default();
                value.show(&mut text)?;
                return Err(self.fail(over, &format!("range can't iterate over {}", text.finish())));
            }
        };
        if count == 0 {
            return self.list(otherwise, dot);
        }
        let mut keys: Vec<String> = match value.value() {
            Some(Value::Object(map)) => map.keys().cloned().collect(),
            _ => Vec::new(),
        };
        keys.sort();
        let mark = self.variables.len();
        for at in 0..count {
            self.step()?;
            let (index, element) = match keys.get(at) {
                Some(key) => (
                    Datum::text(key.as_str()),
                    value.child(Shape::of(None, key), |value| value.get(key)).unwrap_or(Datum::Missing),
                ),
                None if matches!(value.value(), Some(Value::Array(_))) => {
                    let element = value.child(Shape::Plain, |value| value.get(at));
                    (Datum::int(at), element.unwrap_or(Datum::Missing))
                }
                None => (Datum::int(at), Datum::int(at)),
            };
            match over.names.as_slice() {
                [name] => self.set(name, element.clone()),
                [first, second] => {
                    self.set(first, index);
                    self.set(second, element.clone());
                }
                _ => {}
            }
            let flow = self.list(each, &element)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn pipeline(&mut self, pipeline: &'n Pipeline, dot: &Datum<'a>) -> Result<Datum<'a>> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        let value = value.unwrap_or(Datum::Missing);
        for name in &pipeline.names {
            if pipeline.assigns {
                self.set(name, value.clone());
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    /// Gives a name another value. The parser has seen it declared; if not on this way, it is declared now.
    fn set(&mut self, name: &'n str, value: Datum<'a>) {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name, value)),
        }
    }

    fn command(&mut self, operands: &'n [Operand], dot: &Datum<'a>, last: Option<Datum<'a>>) -> Result<Datum<'a>> {
        self.step()?;
        let Some((first, arguments)) = operands.split_first() else { return Ok(Datum::Missing) };
        match (&first.term, first.fields.is_empty()) {
            (Term::Function(function), true) => self.call(*function, first, arguments, dot, last),
            (Term::Nil, _) => Err(self.fail_at(first, "nil is not a command")),
            _ if arguments.is_empty() && last.is_none() => self.operand(first, dot),
            (_, true) => {
                let text = format!("can't give argument to non-function {}", self.text_of(first));
                Err(self.fail_at(first, &text))
            }
            (_, false) => {
                let mut values = Vec::with_capacity(arguments.len() + 1);
                for argument in arguments {
                    values.push(self.operand(argument, dot)?);
                }
                values.extend(last);
                self.method(first, &values, dot)
            }
        }
    }

    /// A name with arguments: of the root, some have a meaning.
    fn method(&mut self, operand: &'n Operand, arguments: &[Datum<'a>], dot: &Datum<'a>) -> Result<Datum<'a>> {
        let Some((name, path)) = operand.fields.split_last() else { return Ok(Datum::Missing) };
        let receiver = self.term(operand, dot)?;
        let receiver = self.fields(operand, receiver, path)?;
        let is_root =
            matches!(&receiver, Datum::Value(Cow::Borrowed(value), _) if std::ptr::eq(*value, self.execution.data));
        let texts: Option<Vec<&str>> = arguments.iter().map(|argument| argument.value()?.as_str()).collect();
        let answer = texts.filter(|_| is_root).and_then(|texts| (self.execution.method)(name, &texts));
        match answer {
            Some(text) => Ok(Datum::text(text)),
            None => Err(self.fail_at(operand, &format!("{name} is not a method but has arguments"))),
        }
    }

    fn call(
        &mut self,
        function: Function,
        operand: &'n Operand,
        arguments: &'n [Operand],
        dot: &Datum<'a>,
        last: Option<Datum<'a>>,
    ) -> Result<Datum<'a>> {
        let (name, least, most) = function.signature();
        let count = arguments.len() + usize::from(last.is_some());
        if !(least..=most).contains(&count) {
            let wanted = if least == most { format!("{least}") } else { format!("at least {least}") };
            return Err(self.fail_at(operand, &format!("wrong number of args for {name}: want {wanted} got {count}")));
        }
        let mut values = Vec::with_capacity(count);
        for argument in arguments {
            let value = self.operand(argument, dot)?;
            let decides = match function {
                Function::And => !value.is_true(),
                Function::Or => value.is_true(),
                _ => false,
            };
            if decides {
                return Ok(value);
            }
            values.push(value);
        }
        values.extend(last);
        if matches!(function, Function::And | Function::Or) {
            // None of those before decided.
            return Ok(values.pop().unwrap_or(Datum::Missing));
        }
        if self.execution.is_header && function.keeps_headers() {
            let of = if function == Function::Json { values.pop() } else { values.into_iter().next() };
            return Ok(of.unwrap_or(Datum::Missing));
        }
        functions::call(function, &values).map_err(|error| {
            let end = arguments.last().unwrap_or(operand).place.end;
            let text = &self.execution.source[operand.place.start..end];
            let why = format!("error calling {name}: {}", error.report());
            fail_in(self.execution.source, operand.place.start, text, &why)
        })
    }

    fn operand(&mut self, operand: &'n Operand, dot: &Datum<'a>) -> Result<Datum<'a>> {
        let value = self.term(operand, dot)?;
        self.fields(operand, value, &operand.fields)
    }

    fn term(&mut self, operand: &'n Operand, dot: &Datum<'a>) -> Result<Datum<'a>> {
        Ok(match &operand.term {
            Term::Dot => dot.clone(),
            Term::Nil => Datum::owned(Value::Null),
            Term::Bool(value) => Datum::bool(*value),
            Term::Int(number) => Datum::int(*number),
            Term::Float(number) => Datum::owned(Value::from(*number)),
            Term::Text(text) => Datum::text(text.as_str()),
            Term::Variable(name) => match self.variables.iter().rev().find(|(known, _)| *known == name.as_str()) {
                Some((_, value)) => value.clone(),
                None => return Err(self.fail_at(operand, &format!("undefined variable: ${name}"))),
            },
            Term::Function(function) => self.call(*function, operand, &[], dot, None)?,
            Term::Pipeline(pipeline) => {
                self.step()?;
                self.pipeline(pipeline, dot)?
            }
        })
    }

    fn fields(&self, operand: &Operand, mut value: Datum<'a>, fields: &[String]) -> Result<Datum<'a>> {
        let mut parent = None;
        for name in fields {
            value = match value.value() {
                // What an absent key of a map stands for has no fields, and Go goes on.
                None => Datum::Missing,
                Some(Value::Null) if value.absent().is_some() => Datum::Missing,
                Some(Value::Null) => {
                    return Err(self.fail_at(operand, &format!("nil pointer evaluating interface {{}}.{name}")));
                }
                Some(Value::Object(_)) => match value.child(Shape::of(parent, name), |value| value.get(name)) {
                    Some(child) => child,
                    None if value.absent().is_some() => Datum::Missing,
                    None => return Err(self.no_field(operand, &value, name)),
                },
                Some(_) => {
                    let text = format!("can't evaluate field {name} in type {}", value.type_name());
                    return Err(self.fail_at(operand, &text));
                }
            };
            parent = Some(name.as_str());
        }
        Ok(value)
    }

    fn no_field(&self, operand: &Operand, of: &Datum<'_>, name: &str) -> Error {
        // docker's words, for a document of which it knows no more than we do.
        let error = self.fail_at(operand, &format!("map has no entry for key {name:?}"));
        match functions::field_names(of) {
            Some(names) => error.with_hint(format!("there are: {names}")),
            None => error,
        }
    }

    fn step(&mut self) -> Result<()> {
        self.steps = self
            .steps
            .checked_sub(1)
            .ok_or_else(|| Error::invalid(format!("limit: the template takes more than {STEPS} steps")))?;
        Ok(())
    }

    fn text_of(&self, operand: &Operand) -> &'a str {
        &self.execution.source[operand.place.start..operand.place.end]
    }

    fn fail_at(&self, operand: &Operand, why: &str) -> Error {
        fail_in(self.execution.source, operand.error_at, self.text_of(operand), why)
    }

    fn fail(&self, pipeline: &Pipeline, why: &str) -> Error {
        let text = &self.execution.source[pipeline.place.start..pipeline.place.end];
        fail_in(self.execution.source, pipeline.place.start, text.trim_end(), why)
    }
}
