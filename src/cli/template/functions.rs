//! The functions of templates: Go's own, and those that docker adds. `call` and `js` have no use here and are left out.

use std::cmp::Ordering;

use serde_json::Value;

use super::printf;
use super::value::{Datum, Shape, Text, sorted};
use crate::error::{Error, Result};

/// A function by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Len,
    Index,
    Slice,
    Print,
    Printf,
    Println,
    Html,
    Urlquery,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Json,
    Split,
    Join,
    Title,
    Lower,
    Upper,
    Pad,
    Truncate,
}

/// Names, functions, and how many arguments they take: at least, and at most.
const FUNCTIONS: &[(&str, Function, usize, usize)] = &[
    ("and", Function::And, 1, usize::MAX),
    ("or", Function::Or, 1, usize::MAX),
    ("not", Function::Not, 1, 1),
    ("len", Function::Len, 1, 1),
    ("index", Function::Index, 1, usize::MAX),
    ("slice", Function::Slice, 1, usize::MAX),
    ("print", Function::Print, 0, usize::MAX),
    ("printf", Function::Printf, 1, usize::MAX),
    ("println", Function::Println, 0, usize::MAX),
    ("html", Function::Html, 0, usize::MAX),
    ("urlquery", Function::Urlquery, 0, usize::MAX),
    ("eq", Function::Eq, 1, usize::MAX),
    ("ne", Function::Ne, 2, 2),
    ("lt", Function::Lt, 2, 2),
    ("le", Function::Le, 2, 2),
    ("gt", Function::Gt, 2, 2),
    ("ge", Function::Ge, 2, 2),
    ("json", Function::Json, 1, 1),
    ("split", Function::Split, 2, 2),
    ("join", Function::Join, 2, 2),
    ("title", Function::Title, 1, 1),
    ("lower", Function::Lower, 1, 1),
    ("upper", Function::Upper, 1, 1),
    ("pad", Function::Pad, 3, 3),
    ("truncate", Function::Truncate, 2, 2),
];

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        FUNCTIONS.iter().find(|row| row.0 == name).map(|row| row.1)
    }

    /// Gives the name, and how many arguments there must be: at least, and at most.
    pub(super) fn signature(self) -> (&'static str, usize, usize) {
        FUNCTIONS.iter().find(|row| row.1 == self).map_or(("", 0, usize::MAX), |row| (row.0, row.2, row.3))
    }

    /// In the header of a table, texts are names of columns, and only what aligns them is done to them.
    pub(super) fn keeps_headers(self) -> bool {
        use Function::{Join, Json, Lower, Split, Title, Truncate, Upper};
        matches!(self, Json | Split | Join | Title | Lower | Upper | Truncate)
    }
}

/// Calls a function with as many arguments as it takes. (`and` and `or` have been given the one that decides.)
pub(super) fn call<'a>(function: Function, arguments: &[Datum<'a>]) -> Result<Datum<'a>> {
    let first = || arguments.first().cloned().unwrap_or(Datum::Missing);
    Ok(match function {
        Function::And | Function::Or => first(),
        Function::Not => Datum::bool(!first().is_true()),
        Function::Len => Datum::int(length(&first())?),
        Function::Index => index(first(), &arguments[1..])?,
        Function::Slice => slice(&first(), &arguments[1..])?,
        Function::Print => print(arguments, false)?,
        Function::Println => print(arguments, true)?,
        Function::Printf => Datum::text(printf::printf(text(&arguments[0])?, &arguments[1..])?),
        Function::Html => escape(&print(arguments, false)?, html)?,
        Function::Urlquery => escape(&print(arguments, false)?, urlquery)?,
        Function::Eq => Datum::bool(equal(&arguments[0], &arguments[1..])?),
        Function::Ne => Datum::bool(!equal(&arguments[0], &arguments[1..])?),
        Function::Lt => Datum::bool(compare(&arguments[0], &arguments[1])? == Ordering::Less),
        Function::Le => Datum::bool(compare(&arguments[0], &arguments[1])? != Ordering::Greater),
        Function::Gt => Datum::bool(compare(&arguments[0], &arguments[1])? == Ordering::Greater),
        Function::Ge => Datum::bool(compare(&arguments[0], &arguments[1])? != Ordering::Less),
        Function::Json => Datum::text(json(&arguments[0])?),
        Function::Split => split(text(&arguments[0])?, text(&arguments[1])?),
        Function::Join => join(&arguments[0], text(&arguments[1])?)?,
        Function::Title => escape(&arguments[0], title)?,
        Function::Lower => escape(&arguments[0], |text, into| into.push(&text.to_lowercase()))?,
        Function::Upper => escape(&arguments[0], |text, into| into.push(&text.to_uppercase()))?,
        Function::Pad => pad(text(&arguments[0])?, count(&arguments[1])?, count(&arguments[2])?)?,
        Function::Truncate => truncate(text(&arguments[0])?, int(&arguments[1])?)?,
    })
}

fn length(of: &Datum<'_>) -> Result<usize> {
    match (of.value(), of) {
        (Some(Value::String(text)), _) => Ok(text.len()),
        (Some(Value::Array(list)), _) => Ok(list.len()),
        (Some(Value::Object(map)), _) => Ok(map.len()),
        (Some(Value::Null), Datum::Value(_, Shape::Map(_) | Shape::List)) => Ok(0),
        _ => Err(Error::invalid(format!("len of type {}", of.type_name()))),
    }
}

fn index<'a>(mut item: Datum<'a>, keys: &[Datum<'a>]) -> Result<Datum<'a>> {
    for key in keys {
        let next = match (item.value(), key.value()) {
            (None | Some(Value::Null), Some(Value::String(_))) if item.absent().is_some() => item.absent(),
            (None | Some(Value::Null), _) => return Err(Error::invalid("index of untyped nil")),
            (Some(Value::Object(_)), Some(Value::String(key))) => {
                let absent = item.absent().unwrap_or(Datum::Missing);
                Some(item.child(Shape::of(None, key), |value| value.get(key)).unwrap_or(absent))
            }
            (Some(Value::Array(list)), Some(Value::Number(number))) => {
                let at = position(number, list.len())?;
                item.child(Shape::Plain, |value| value.get(at))
            }
            (Some(Value::String(text)), Some(Value::Number(number))) => {
                text.as_bytes().get(position(number, text.len())?).map(|byte| Datum::int(*byte))
            }
            (Some(Value::Object(_)), _) => {
                return Err(Error::invalid(format!("value has type {}; should be string", key.type_name())));
            }
            (Some(Value::Array(_) | Value::String(_)), _) => {
                return Err(Error::invalid(format!("cannot index slice/array with type {}", key.type_name())));
            }
            (Some(_), _) => return Err(Error::invalid(format!("can't index item of type {}", item.type_name()))),
        };
        item = next.unwrap_or(Datum::Missing);
    }
    Ok(item)
}

fn position(number: &serde_json::Number, length: usize) -> Result<usize> {
    let at = number.as_u64().and_then(|at| usize::try_from(at).ok()).filter(|at| *at < length);
    at.ok_or_else(|| Error::invalid(format!("index out of range: {number}")))
}

fn slice<'a>(item: &Datum<'a>, bounds: &[Datum<'a>]) -> Result<Datum<'a>> {
    let length = match item.value() {
        Some(Value::String(_) | Value::Array(_)) => length(item)?,
        _ => return Err(Error::invalid(format!("can't slice item of type {}", item.type_name()))),
    };
    if bounds.len() > 2 {
        return Err(Error::invalid(format!("too many slice indexes: {}", bounds.len())));
    }
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(bound) => match usize::try_from(int(bound)?) {
            Ok(bound) if bound <= length => Ok(bound),
            _ => Err(Error::invalid(format!("index out of range: {}", int(bound)?))),
        },
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    if from > to {
        return Err(Error::invalid(format!("invalid slice index: {from} > {to}")));
    }
    Ok(match item.value() {
        Some(Value::String(text)) => Datum::text(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()),
        Some(Value::Array(list)) => Datum::owned(Value::Array(list[from..to].to_vec())),
        _ => Datum::Missing,
    })
}

/// Prints as `fmt.Sprint` does: blanks between two that are both no texts; or as `fmt.Sprintln`: always.
fn print<'a>(arguments: &[Datum<'a>], line: bool) -> Result<Datum<'a>> {
    let is_text = |datum: &Datum<'_>| matches!(datum.value(), Some(Value::String(_)));
    let mut into = Text::default();
    for (at, argument) in arguments.iter().enumerate() {
        if at > 0 && (line || !is_text(argument) && !is_text(&arguments[at - 1])) {
            into.push(" ")?;
        }
        argument.show_argument(&mut into)?;
    }
    if line {
        into.push("\n")?;
    }
    Ok(Datum::text(into.finish()))
}

/// Are any of these the same as the first?
fn equal(first: &Datum<'_>, others: &[Datum<'_>]) -> Result<bool> {
    if others.is_empty() {
        return Err(Error::invalid("missing argument for comparison"));
    }
    for other in others {
        let same = match (first.value(), other.value()) {
            (None | Some(Value::Null), None | Some(Value::Null)) => true,
            (None | Some(Value::Null), _) | (_, None | Some(Value::Null)) => false,
            (Some(Value::Array(_) | Value::Object(_)), Some(Value::Array(_) | Value::Object(_))) => {
                let (first, other) = (first.type_name(), other.type_name());
                return Err(Error::invalid(format!("non-comparable types {first} and {other}")));
            }
            (Some(Value::Bool(first)), Some(Value::Bool(other))) => first == other,
            _ => compare(first, other)? == Ordering::Equal,
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

fn compare(first: &Datum<'_>, second: &Datum<'_>) -> Result<Ordering> {
    match (first.value(), second.value()) {
        (Some(Value::String(first)), Some(Value::String(second))) => Ok(first.cmp(second)),
        (Some(Value::Number(first)), Some(Value::Number(second))) if first.is_f64() == second.is_f64() => {
            let whole = |number: &serde_json::Number| {
                number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
            };
            match (whole(first), whole(second)) {
                (Some(first), Some(second)) => Ok(first.cmp(&second)),
                _ => first
                    .as_f64()
                    .zip(second.as_f64())
                    .and_then(|(first, second)| first.partial_cmp(&second))
                    .ok_or_else(|| Error::invalid("invalid type for comparison")),
            }
        }
        (Some(Value::String(_) | Value::Number(_) | Value::Bool(_)), Some(second))
            if second.is_string() || second.is_number() || second.is_boolean() && !first_is_bool(first) =>
        {
            Err(Error::invalid("incompatible types for comparison"))
        }
        _ => Err(Error::invalid("invalid type for comparison")),
    }
}

fn first_is_bool(datum: &Datum<'_>) -> bool {
    matches!(datum.value(), Some(Value::Bool(_)))
}

/// Compact, keys in order, without the escapes for HTML.
fn json(value: &Datum<'_>) -> Result<String> {
    match value.value() {
        None => Ok("null".to_owned()),
        Some(value) => Ok(serde_json::to_string(value)?),
    }
}

fn split<'a>(source: &str, separator: &str) -> Datum<'a> {
    let parts: Vec<Value> = if separator.is_empty() {
        // Rust has an empty part at both ends here.
        source.chars().map(|letter| Value::String(letter.to_string())).collect()
    } else {
        source.split(separator).map(|part| Value::String(part.to_owned())).collect()
    };
    Datum::owned(Value::Array(parts))
}

fn join<'a>(list: &Datum<'a>, separator: &str) -> Result<Datum<'a>> {
    let mut into = Text::default();
    match (list.value(), list) {
        (Some(Value::Array(list)), _) => {
            for (at, part) in list.iter().enumerate() {
                into.push(if at > 0 { separator } else { "" })?;
                super::value::show(part, &mut into, 0)?;
            }
        }
        (Some(Value::Null), Datum::Value(_, Shape::List)) => {}
        _ => return Err(wrong("[]string", list)),
    }
    Ok(Datum::text(into.finish()))
}

/// The first letter of each word as a capital.
fn title(text: &str, into: &mut Text) -> Result<()> {
    let mut letters = String::with_capacity(text.len());
    let mut before = ' ';
    for letter in text.chars() {
        let is_first = if before.is_ascii() {
            !(before.is_ascii_alphanumeric() || before == '_')
        } else {
            !before.is_alphanumeric() && before.is_whitespace()
        };
        if is_first {
            letters.extend(letter.to_uppercase());
        } else {
            letters.push(letter);
        }
        before = letter;
    }
    into.push(&letters)
}

/// Blanks on both sides of what is not empty.
fn pad<'a>(text: &str, before: usize, behind: usize) -> Result<Datum<'a>> {
    let mut into = Text::default();
    if !text.is_empty() {
        into.fill(' ', before)?;
        into.push(text)?;
        into.fill(' ', behind)?;
    }
    Ok(Datum::text(into.finish()))
}

/// The first bytes, and no half letter.
fn truncate<'a>(text: &str, length: i64) -> Result<Datum<'a>> {
    let length =
        usize::try_from(length).map_err(|_| Error::invalid(format!("slice bounds out of range [:{length}]")))?;
    Ok(Datum::text(&text[..text.floor_char_boundary(length)]))
}

fn escape<'a>(of: &Datum<'a>, write: impl Fn(&str, &mut Text) -> Result<()>) -> Result<Datum<'a>> {
    let mut into = Text::default();
    write(text(of)?, &mut into)?;
    Ok(Datum::text(into.finish()))
}

fn html(text: &str, into: &mut Text) -> Result<()> {
    for letter in text.chars() {
        match letter {
            '"' => into.push("&#34;")?,
            '\'' => into.push("&#39;")?,
            '&' => into.push("&amp;")?,
            '<' => into.push("&lt;")?,
            '>' => into.push("&gt;")?,
            '\0' => into.push("\u{fffd}")?,
            letter => into.push(letter.encode_utf8(&mut [0; 4]))?,
        }
    }
    Ok(())
}

fn urlquery(text: &str, into: &mut Text) -> Result<()> {
    for byte in text.bytes() {
        match byte {
            b' ' => into.push("+")?,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                into.push(char::from(byte).encode_utf8(&mut [0; 4]))?;
            }
            byte => into.push(&format!("%{byte:02X}"))?,
        }
    }
    Ok(())
}

fn text<'v>(of: &'v Datum<'_>) -> Result<&'v str> {
    match of.value() {
        Some(Value::String(text)) => Ok(text),
        _ => Err(wrong("string", of)),
    }
}

fn int(of: &Datum<'_>) -> Result<i64> {
    match of.value() {
        Some(Value::Number(number)) if number.is_i64() => Ok(number.as_i64().unwrap_or_default()),
        _ => Err(wrong("int", of)),
    }
}

fn count(of: &Datum<'_>) -> Result<usize> {
    usize::try_from(int(of)?).map_err(|_| Error::invalid("negative Repeat count"))
}

fn wrong(expected: &str, got: &Datum<'_>) -> Error {
    match got.value() {
        None | Some(Value::Null) => Error::invalid(format!("invalid value; expected {expected}")),
        Some(_) => Error::invalid(format!("wrong type for value; expected {expected}; got {}", got.type_name())),
    }
}

/// Gives the names of an object's fields, for a message.
pub(super) fn field_names(of: &Datum<'_>) -> Option<String> {
    let Some(Value::Object(map)) = of.value() else { return None };
    let names: Vec<&str> = sorted(map).into_iter().map(|(name, _)| name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
