//! `org.systemd.property.NAME` annotations: properties of the unit, their values in GVariant's text format.
//!
//! Of that format the part that properties have: booleans, numbers, strings, arrays, tuples, and types in front of
//! them. No dictionaries, no byte strings, no maybes.

use std::collections::HashMap;

use super::properties::Properties;
use super::wire::Value;
use crate::error::{Error, Result};

const PREFIX: &str = "org.systemd.property.";

/// Values in values; none has more than two levels.
const DEPTH_LIMIT: usize = 8;

/// Gives the properties that annotations ask for, in the order of their names.
pub(in crate::cgroups) fn properties(annotations: Option<&HashMap<String, String>>) -> Result<Properties> {
    let mut named: Vec<(&str, &str)> = annotations
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| key.strip_prefix(PREFIX).map(|name| (name, &**value)))
        .collect();
    named.sort_unstable();
    named.into_iter().map(|(name, text)| property(name, text)).collect()
}

fn property(name: &str, text: &str) -> Result<(String, Value)> {
    let wrong = |cause: &str| Error::invalid(format!("annotation {PREFIX}{}: {cause}", name.escape_debug()));
    if name.len() < 3 || !name.bytes().all(|letter| letter.is_ascii_alphabetic()) {
        return Err(wrong("not the name of a property"));
    }
    let value = parse(text).map_err(|cause| wrong(&format!("value `{}`: {cause}", text.escape_debug())))?;
    // TimeoutStopSec is what people write and TimeoutStopUSec what the manager takes.
    match name.strip_suffix("Sec") {
        Some(stem) if stem.ends_with(|letter: char| letter.is_ascii_lowercase()) => {
            let value = microseconds(&value).ok_or_else(|| wrong(&format!("value `{text}` is no time in seconds")))?;
            Ok((format!("{stem}USec"), Value::Uint64(value)))
        }
        _ => Ok((name.to_owned(), value)),
    }
}

fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match *seconds {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within range")]
        #[expect(clippy::cast_precision_loss, reason = "the bound may be a little off")]
        Value::Double(number) => {
            let number = number * 1e6;
            return (0.0..u64::MAX as f64).contains(&number).then_some(number as u64);
        }
        Value::Byte(number) => number.into(),
        Value::Int16(number) => number.try_into().ok()?,
        Value::Uint16(number) => number.into(),
        Value::Int32(number) => number.try_into().ok()?,
        Value::Uint32(number) => number.into(),
        Value::Int64(number) => number.try_into().ok()?,
        Value::Uint64(number) => number,
        _ => return None,
    };
    u64::checked_mul(whole, 1_000_000)
}

type Parsed<T> = std::result::Result<T, &'static str>;

/// Reads one value.
fn parse(text: &str) -> Parsed<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None, 0)?;
    parser.skip_space();
    if parser.rest.is_empty() { Ok(value) } else { Err("more than one value") }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes a character, if it comes next.
    fn take(&mut self, letter: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(letter) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'a str {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.');
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// Reads a value, of the type `wanted` if there is one.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Parsed<Value> {
        if depth > DEPTH_LIMIT {
            return Err("nested too deeply");
        }
        self.skip_space();
        match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                self.rest = &self.rest[1..];
                let text = self.quoted(quote)?;
                match wanted {
                    None | Some("s") => Ok(Value::Text(text)),
                    Some("o") => Ok(Value::Path(text)),
                    Some("g") => Ok(Value::Signature(text)),
                    Some(_) => Err("a string of another type"),
                }
            }
            Some('[') => {
                self.rest = &self.rest[1..];
                self.array(wanted, depth)
            }
            Some('(') => {
                self.rest = &self.rest[1..];
                self.tuple(wanted, depth)
            }
            Some('@') => {
                let end = self.rest.find(' ').ok_or("a type without a value")?;
                let (signature, rest) = self.rest[1..].split_at(end - 1);
                self.rest = rest;
                self.value(Some(signature), depth + 1)
            }
            Some(_) => self.bare(wanted, depth),
            None => Err("empty"),
        }
    }

    fn quoted(&mut self, quote: char) -> Parsed<String> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                letter if letter == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match letters.next().ok_or("a string without an end")?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    letter @ ('\\' | '\'' | '"') => text.push(letter),
                    _ => return Err("an unknown escape"),
                },
                // D-Bus has no way to say it.
                '\0' => return Err("a NUL"),
                letter => text.push(letter),
            }
        }
        Err("a string without an end")
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Parsed<Value> {
        let element = match wanted {
            Some(signature) => Some(signature.strip_prefix('a').ok_or("an array of another type")?),
            None => None,
        };
        let items = self.list(']', |_| Ok(element), depth)?;
        let element = match (element, items.first()) {
            (Some(element), _) => element.to_owned(),
            (None, Some(first)) => first.signature(),
            (None, None) => return Err("an empty array needs a type, as in `@as []`"),
        };
        if items.iter().any(|item| item.signature() != element) {
            return Err("an array of several types");
        }
        Ok(Value::Array(element, items))
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: usize) -> Parsed<Value> {
        // Fields of one letter each; no property has others.
        let types = match wanted {
            Some(signature) => Some(
                signature.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or("a tuple of another type")?,
            ),
            None => None,
        };
        let field = |at: usize| match types {
            Some(types) => types.get(at..=at).map(Some).ok_or("a tuple with too many fields"),
            None => Ok(None),
        };
        let fields = self.list(')', field, depth)?;
        if fields.is_empty() || types.is_some_and(|types| types.len() != fields.len()) {
            return Err("a tuple with too few fields");
        }
        Ok(Value::Tuple(fields))
    }

    fn list<'t>(
        &mut self,
        end: char,
        wanted: impl Fn(usize) -> Parsed<Option<&'t str>>,
        depth: usize,
    ) -> Parsed<Vec<Value>> {
        let mut items = Vec::new();
        if self.take(end) {
            return Ok(items);
        }
        loop {
            items.push(self.value(wanted(items.len())?, depth + 1)?);
            if self.take(end) {
                return Ok(items);
            }
            if !self.take(',') {
                return Err("a list without an end");
            }
        }
    }

    fn bare(&mut self, wanted: Option<&str>, depth: usize) -> Parsed<Value> {
        let keyword = match self.word() {
            "true" if matches!(wanted, None | Some("b")) => return Ok(Value::Bool(true)),
            "false" if matches!(wanted, None | Some("b")) => return Ok(Value::Bool(false)),
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            word => return number(word, wanted),
        };
        self.value(Some(keyword), depth + 1)
    }
}

/// Reads a number, which is an int32 or a double if nothing is said.
fn number(word: &str, wanted: Option<&str>) -> Parsed<Value> {
    let looks_like = word.starts_with(|letter: char| letter.is_ascii_digit() || matches!(letter, '+' | '-' | '.'));
    if !looks_like {
        return Err("no value that is known");
    }
    let is_hexadecimal = word.trim_start_matches(['+', '-']).starts_with("0x");
    let wanted = wanted.unwrap_or(if word.contains('.') && !is_hexadecimal { "d" } else { "i" });
    if wanted == "d" {
        return word.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Double).ok_or("no number");
    }
    let (digits, sign) = match word.strip_prefix('-') {
        Some(digits) => (digits, -1),
        None => (word.strip_prefix('+').unwrap_or(word), 1),
    };
    let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |digits| (digits, 16));
    if !digits.starts_with(|letter: char| letter.is_ascii_hexdigit()) {
        return Err("no number");
    }
    let number = i128::from(u64::from_str_radix(digits, radix).map_err(|_| "no number")?) * sign;
    let value = match wanted {
        "y" => number.try_into().ok().map(Value::Byte),
        "n" => number.try_into().ok().map(Value::Int16),
        "q" => number.try_into().ok().map(Value::Uint16),
        "i" => number.try_into().ok().map(Value::Int32),
        "u" => number.try_into().ok().map(Value::Uint32),
        "x" => number.try_into().ok().map(Value::Int64),
        "t" => number.try_into().ok().map(Value::Uint64),
        _ => return Err("a number of another type"),
    };
    value.ok_or("a number beyond its type")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_text_have_types() {
        let texts = |texts: &[&str]| Value::texts(texts.iter().map(|text| (*text).to_owned()));
        for (text, value) in [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("7", Value::Int32(7)),
            ("-7", Value::Int32(-7)),
            ("0x10", Value::Int32(16)),
            ("1.5", Value::Double(1.5)),
            ("uint64 123456789", Value::Uint64(123_456_789)),
            ("int64 -1", Value::Int64(-1)),
            ("uint32 5", Value::Uint32(5)),
            ("int32 5", Value::Int32(5)),
            ("byte 0xff", Value::Byte(255)),
            ("double 3", Value::Double(3.0)),
            ("@t 9", Value::Uint64(9)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""a'b\"c\\""#, Value::text(r#"a'b"c\"#)),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a.service', \"b.service\"]", texts(&["a.service", "b.service"])),
            ("@as []", texts(&[])),
            ("[byte 1, byte 2]", Value::bytes([1, 2])),
            ("@ay [1, 2]", Value::bytes([1, 2])),
            ("('a', uint64 1)", Value::Tuple(vec![Value::text("a"), Value::Uint64(1)])),
            (
                "@a(st) [('/dev/sda', 5)]",
                Value::Array("(st)".into(), vec![Value::Tuple(vec![Value::text("/dev/sda"), Value::Uint64(5)])]),
            ),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "'",
            "'a",
            "a",
            "[",
            "['a'",
            "['a',",
            "['a', 1]",
            "[]",
            "1 2",
            "uint64",
            "uint64 -1",
            "byte 256",
            "99999999999",
            "@",
            "@t",
            "()",
            "(1",
            "0x",
            "-",
            "--1",
            "true false",
            "boolean 3",
            "uint32 'a'",
            "b'a'",
            "{'a': 1}",
            "@(ss) ('a')",
            "@(s) ('a', 'b')",
            "@as 'a'",
            "nan",
            "double nan",
            "1e999",
            "'\\q'",
            "é",
            "@a [1]",
            "[[[[[[[[[[[[1]]]]]]]]]]]]",
        ] {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn annotations_become_properties() {
        let annotations = HashMap::from([
            ("org.systemd.property.TimeoutStopUSec".to_owned(), "uint64 123456789".to_owned()),
            ("org.systemd.property.JobRunningTimeoutSec".to_owned(), "uint64 3".to_owned()),
            ("org.systemd.property.RuntimeMaxSec".to_owned(), "1.5".to_owned()),
            ("org.systemd.property.CollectMode".to_owned(), "'inactive-or-failed'".to_owned()),
            ("org.systemd".to_owned(), "anything".to_owned()),
        ]);
        let wanted = [
            ("CollectMode".to_owned(), Value::text("inactive-or-failed")),
            ("JobRunningTimeoutUSec".to_owned(), Value::Uint64(3_000_000)),
            ("RuntimeMaxUSec".to_owned(), Value::Uint64(1_500_000)),
            ("TimeoutStopUSec".to_owned(), Value::Uint64(123_456_789)),
        ];
        assert_eq!(properties(Some(&annotations)).unwrap(), wanted);
        assert!(properties(None).unwrap().is_empty());
        for (name, value) in [
            ("Ab", "1"),
            ("No Such", "1"),
            ("A/B", "1"),
            ("", "1"),
            ("TimeoutStopSec", "'soon'"),
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "uint64 99999999999999999"),
            ("CollectMode", "inactive"),
        ] {
            let annotations = HashMap::from([(format!("{PREFIX}{name}"), value.to_owned())]);
            let error = properties(Some(&annotations)).unwrap_err();
            assert!(error.report().starts_with("annotation org.systemd.property."), "{error:?}");
        }
    }
}
