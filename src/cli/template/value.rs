//! Values of a template, and how Go prints and judges them.
//!
//! JSON has no types beyond its own. Go's templates see those of docker's structs, and an absent key means something else
//! in a struct (an error) than in a map (an empty value). So a few names, which docker's and podman's documents use for
//! maps and lists alone, are known here by their names.

use std::borrow::Cow;

use serde_json::{Number, Value};

use super::TEXT_BYTES;
use crate::error::{Error, Result};

/// JSON as deep as `serde_json` itself reads.
pub(super) const DEPTH: usize = 128;

/// A value, mostly a part of the document that the template is about.
#[derive(Clone, Debug)]
pub(super) enum Datum<'a> {
    /// An absent key of a map: printed as `<no value>`.
    Missing,
    Value(Cow<'a, Value>, Shape),
}

/// What Go's type of a value is, as far as it makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A struct, if it is an object: an absent field is an error.
    Plain,
    /// A map; its absent keys are of the second kind.
    Map(Absent),
    /// A list, which may be null.
    List,
    /// A pointer, which may be null.
    Pointer,
}

/// What an absent key of a map gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// `map[string]string`: the empty text.
    Text,
    /// A map of pointers: nil.
    Pointer,
    /// Nothing.
    Nothing,
}

/// The fields that are maps: their names, or their parents' and theirs where the name alone is used for other things.
const MAPS: &[(&str, Absent)] = &[
    ("Annotations", Absent::Text),
    ("DriverOpts", Absent::Text),
    ("Labels", Absent::Text),
    ("LogOpts", Absent::Text),
    ("Options", Absent::Text),
    ("StorageOpt", Absent::Text),
    ("Sysctls", Absent::Text),
    ("Tmpfs", Absent::Text),
    ("Attributes", Absent::Text),
    ("GraphDriver.Data", Absent::Text),
    ("LogConfig.Config", Absent::Text),
    ("Networks", Absent::Pointer),
    ("Containers", Absent::Nothing),
    ("ExposedPorts", Absent::Nothing),
    ("Metadata", Absent::Nothing),
    // Of a named kind of text, for which Go's `index` refuses a plain one; docker then looks at the bare document.
    ("PortBindings", Absent::Nothing),
    ("Ports", Absent::Nothing),
    ("Status", Absent::Nothing),
    ("Volumes", Absent::Nothing),
];

/// The fields that are lists, and null where they are empty.
const LISTS: &[&str] = &[
    "Aliases",
    "Args",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "History",
    "IPAMConfig",
    "Layers",
    "Links",
    "Mounts",
    "NetworkAliases",
    "OnBuild",
    "RepoDigests",
    "RepoTags",
    "SecurityOpt",
    "Shell",
    "Test",
    "Ulimits",
    "VolumesFrom",
];

/// The fields that are pointers, and null where there is nothing.
const POINTERS: &[&str] = &["Health", "Healthcheck", "Memory", "OomKillDisable", "PidsLimit", "StopTimeout"];

impl Shape {
    /// Tells the shape of a field by its name and its parent's.
    pub(super) fn of(parent: Option<&str>, name: &str) -> Self {
        let is_named = |listed: &str| match listed.split_once('.') {
            None => listed == name,
            Some((outer, inner)) => parent == Some(outer) && inner == name,
        };
        if let Some((_, absent)) = MAPS.iter().find(|(listed, _)| is_named(listed)) {
            Self::Map(*absent)
        } else if LISTS.contains(&name) {
            Self::List
        } else if POINTERS.contains(&name) {
            Self::Pointer
        } else {
            Self::Plain
        }
    }
}

impl<'a> Datum<'a> {
    pub(super) fn borrowed(value: &'a Value) -> Self {
        Self::Value(Cow::Borrowed(value), Shape::Plain)
    }

    pub(super) fn owned(value: Value) -> Self {
        Self::Value(Cow::Owned(value), Shape::Plain)
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::owned(Value::String(text.into()))
    }

    pub(super) fn int(number: impl Into<Number>) -> Self {
        Self::owned(Value::Number(number.into()))
    }

    pub(super) fn bool(value: bool) -> Self {
        Self::owned(Value::Bool(value))
    }

    pub(super) fn value(&self) -> Option<&Value> {
        match self {
            Self::Missing => None,
            Self::Value(value, _) => Some(value),
        }
    }

    /// Gives the value of a key or an index of a list or object, borrowed where this one is.
    pub(super) fn child(&self, shape: Shape, get: impl for<'v> Fn(&'v Value) -> Option<&'v Value>) -> Option<Self> {
        match self {
            Self::Missing => None,
            Self::Value(Cow::Borrowed(value), _) => get(value).map(|value| Self::Value(Cow::Borrowed(value), shape)),
            Self::Value(Cow::Owned(value), _) => get(value).map(|value| Self::Value(Cow::Owned(value.clone()), shape)),
        }
    }

    /// Gives what an absent key of this map stands for; nothing if this is no map.
    pub(super) fn absent(&self) -> Option<Self> {
        let Self::Value(_, Shape::Map(absent)) = self else { return None };
        Some(match absent {
            Absent::Text => Self::text(""),
            Absent::Pointer => Self::Value(Cow::Owned(Value::Null), Shape::Pointer),
            Absent::Nothing => Self::Missing,
        })
    }

    /// Is not the zero of its type.
    pub(super) fn is_true(&self) -> bool {
        match self.value() {
            None | Some(Value::Null) => false,
            Some(Value::Bool(value)) => *value,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
        }
    }

    /// Names the type as Go does.
    pub(super) fn type_name(&self) -> &'static str {
        match self.value() {
            None => "nil",
            Some(value) => type_name(value),
        }
    }

    /// Prints the result of an action.
    pub(super) fn show(&self, into: &mut Text) -> Result<()> {
        match self {
            Self::Missing => into.push("<no value>"),
            Self::Value(value, shape) => match (&**value, shape) {
                (Value::Null, Shape::Map(_)) => into.push("map[]"),
                (Value::Null, Shape::List) => into.push("[]"),
                (Value::Null, Shape::Pointer) => into.push("<nil>"),
                (Value::Null, Shape::Plain) => into.push("<no value>"),
                (value, _) => show(value, into, 0),
            },
        }
    }

    /// Prints the argument of a function that prints.
    pub(super) fn show_argument(&self, into: &mut Text) -> Result<()> {
        match self {
            Self::Missing => into.push("<nil>"),
            Self::Value(value, Shape::Plain) if value.is_null() => into.push("<nil>"),
            Self::Value(..) => self.show(into),
        }
    }
}

/// Names the type of a value as Go does when it has read it from JSON, but with integers.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Prints a value as `%v` does.
pub(super) fn show(value: &Value, into: &mut Text, depth: usize) -> Result<()> {
    if depth > DEPTH {
        return Err(Error::invalid(format!("limit: the value is deeper than {DEPTH}")));
    }
    match value {
        Value::Null => into.push("<nil>"),
        Value::Bool(value) => into.push(if *value { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(number) => into.push(&general(number, None)),
            None => into.push(&number.to_string()),
        },
        Value::String(text) => into.push(text),
        Value::Array(list) => {
            into.push("[")?;
            for (index, value) in list.iter().enumerate() {
                into.push(if index > 0 { " " } else { "" })?;
                show(value, into, depth + 1)?;
            }
            into.push("]")
        }
        Value::Object(map) => {
            into.push("map[")?;
            for (index, (key, value)) in sorted(map).into_iter().enumerate() {
                into.push(if index > 0 { " " } else { "" })?;
                into.push(key)?;
                into.push(":")?;
                show(value, into, depth + 1)?;
            }
            into.push("]")
        }
    }
}

/// Gives an object's entries in the order of their keys, however the map keeps them.
pub(super) fn sorted(map: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// Prints a number as `%g` does: the shortest digits, or at most so many, with an exponent where they do not reach.
pub(super) fn general(number: f64, digits: Option<usize>) -> String {
    /// What Go takes for the number of digits where it is free.
    const SHORTEST: usize = 6;
    let scientific = match digits {
        None => format!("{number:e}"),
        Some(digits) => format!("{number:.*e}", digits.max(1) - 1),
    };
    // Infinities have no exponent; JSON has no infinities.
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let most = i32::try_from(digits.map_or(SHORTEST, |digits| digits.max(1))).unwrap_or(i32::MAX);
    if !(-4..most).contains(&exponent) {
        return format!("{mantissa}{}", exponent_of(exponent));
    }
    let precision = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let places = i32::try_from(precision).unwrap_or(i32::MAX) - 1 - exponent;
    format!("{number:.*}", usize::try_from(places).unwrap_or(0))
}

/// Prints an exponent with its sign and at least two digits.
pub(super) fn exponent_of(exponent: i32) -> String {
    format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// What is being printed; it does not grow beyond [`TEXT_BYTES`].
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn push(&mut self, text: &str) -> Result<()> {
        if self.0.len() + text.len() > TEXT_BYTES {
            return Err(Error::invalid(format!("limit: more than {TEXT_BYTES} bytes of text")));
        }
        self.0.push_str(text);
        Ok(())
    }

    /// Adds a letter so many times.
    pub(super) fn fill(&mut self, letter: char, count: usize) -> Result<()> {
        if count > TEXT_BYTES {
            return Err(Error::invalid(format!("limit: more than {TEXT_BYTES} bytes of text")));
        }
        self.push(&letter.to_string().repeat(count))
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}
