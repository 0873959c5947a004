//! JSON to the byte as Go's encoder writes it, since scripts compare what runc prints.
//!
//! Beside the spaces that is one thing: `<`, `>`, `&` and the two line separators of Unicode are escaped, and a whole
//! number has no fraction.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::error::Result;

/// Prints on one line, without a newline at the end.
pub(super) fn compact(value: &impl Serialize) -> Result<String> {
    print(value, CompactFormatter)
}

/// Prints with a line for every field, without a newline at the end.
pub(super) fn indented(value: &impl Serialize, indent: &str) -> Result<String> {
    print(value, PrettyFormatter::with_indent(indent.as_bytes()))
}

fn print(value: &impl Serialize, formatter: impl Formatter) -> Result<String> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, Go(formatter)))?;
    // Only whole fragments of strings were replaced, by ASCII.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Another formatter, but for what Go does otherwise.
struct Go<F>(F);

impl<F: Formatter> Formatter for Go<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            self.0.write_string_fragment(writer, &rest[..at])?;
            let letter = rest[at..].chars().next().unwrap_or_default();
            write!(writer, "\\u{:04x}", u32::from(letter))?;
            rest = &rest[at + letter.len_utf8()..];
        }
        self.0.write_string_fragment(writer, rest)
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write!(writer, "{value}")
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_go_writes_it() {
        let value = json!({"a": "<b> & \u{2028}\"\n", "n": [1.0, 0.5, 0.0], "e": {}, "l": []});
        let expected = r#"{"a":"\u003cb\u003e \u0026 \u2028\"\n","e":{},"l":[],"n":[1,0.5,0]}"#;
        assert_eq!(compact(&value).unwrap(), expected);
        assert_eq!(indented(&json!({"a": [1], "b": {}}), "  ").unwrap(), "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}");
    }
}
