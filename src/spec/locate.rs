//! Where in a JSON text something stands: from a byte to the path of the field there, and back.
//!
//! Only error messages need this, so it reads the text a second time instead of slowing down the first. It judges
//! nothing: of broken text it makes what it can.

use std::fmt::Write as _;

/// One step of the way from the document to a value.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Inside an object, before a key.
    Object,
    Key(String),
    Index(usize),
}

/// How a path shows the elements of lists.
#[derive(Clone, Copy, PartialEq)]
enum Indices {
    Shown,
    /// `[]` for each.
    Any,
}

/// Gives the path of the field whose value covers or ends at a byte; empty for the document itself.
pub(super) fn path_at(text: &[u8], offset: usize) -> String {
    let mut path = String::new();
    walk(text, |start, _, steps| {
        let is_there = start >= offset.min(text.len());
        if is_there {
            path = render(steps, Indices::Shown);
        }
        is_there
    });
    path
}

/// Gives the byte at which the value of a path begins.
pub(super) fn start_of(text: &[u8], path: &str) -> Option<usize> {
    let mut found = None;
    walk(text, |start, begins_value, steps| {
        if begins_value && render(steps, Indices::Shown) == path {
            found = Some(start);
        }
        found.is_some()
    });
    found
}

/// Finds the first list whose path, with `[]` for every index, is not what it may be; gives its start and its path.
pub(super) fn find_list(text: &[u8], is_misplaced: impl Fn(&str) -> bool) -> Option<(usize, String)> {
    let mut found = None;
    walk(text, |start, begins_value, steps| {
        if begins_value && text[start] == b'[' && is_misplaced(&render(steps, Indices::Any)) {
            found = Some((start, render(steps, Indices::Shown)));
        }
        found.is_some()
    });
    found
}

/// Gives the line and the column of a byte, both counted from 1.
pub(super) fn line_and_column(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line = before.split(|byte| *byte == b'\n').count();
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    (line, column)
}

/// Gives the byte of a position that `serde_json` reports: a line from 1 and a count of bytes read of it.
pub(super) fn offset_of(text: &[u8], line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match text[start..].iter().position(|byte| *byte == b'\n') {
            Some(length) => start += length + 1,
            None => break,
        }
    }
    (start + column).min(text.len())
}

/// `serde_json` gives up at this depth, so nothing deeper is ever asked for.
const DEPTH_LIMIT: usize = 128;

/// Shows every token's start to `stop`, with whether it begins a value and the path so far, until it says stop.
fn walk(text: &[u8], mut stop: impl FnMut(usize, bool, &[Step]) -> bool) {
    let mut steps = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if byte.is_ascii_whitespace() || *byte == b':' {
            at += 1;
            continue;
        }
        let is_key = *byte == b'"' && steps.last() == Some(&Step::Object);
        if steps.len() > DEPTH_LIMIT || stop(at, !is_key && !matches!(byte, b',' | b'}' | b']'), &steps) {
            return;
        }
        let start = at;
        at += 1;
        match byte {
            b'{' => steps.push(Step::Object),
            b'[' => steps.push(Step::Index(0)),
            b'}' | b']' => drop(steps.pop()),
            b',' => match steps.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                Some(step) => *step = Step::Object,
                None => {}
            },
            b'"' => {
                at = end_of_string(text, at);
                if is_key && let Some(step) = steps.last_mut() {
                    let quoted = &text[start..at];
                    *step = Step::Key(serde_json::from_slice(quoted).unwrap_or_default());
                }
            }
            _ => {
                while text.get(at).is_some_and(|byte| !b",:{}[]\"".contains(byte) && !byte.is_ascii_whitespace()) {
                    at += 1;
                }
            }
        }
    }
    stop(text.len(), false, &steps);
}

/// Gives the byte after a string's closing quote.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'\\' => at += 1,
            b'"' => break,
            _ => {}
        }
    }
    at.min(text.len())
}

/// Writes a path as people do: `mounts[2].options`, and `sysctl["net.ipv4.ip_forward"]` where a key has a dot itself.
fn render(steps: &[Step], indices: Indices) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Object => {}
            Step::Index(_) if indices == Indices::Any => path.push_str("[]"),
            Step::Index(index) => _ = write!(path, "[{index}]"),
            Step::Key(key) if key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Step::Key(key) => _ = write!(path, "[{key:?}]"),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "{\n \"a\": {\"b\": [1, {\"c\\\"\": \"x,}\"}, [2, 3]]},\n \"linux\": {\"sysctl\": {\"net.x\": true}}\n}";

    #[test]
    fn bytes_lead_to_paths_and_back() {
        for (value, path) in [
            ("{\"b\"", "a"),
            ("[1,", "a.b"),
            ("1,", "a.b[0]"),
            ("\"x,}\"", "a.b[1][\"c\\\"\"]"),
            ("3]", "a.b[2][1]"),
            ("true", "linux.sysctl[\"net.x\"]"),
        ] {
            let offset = TEXT.find(value).unwrap();
            assert_eq!(path_at(TEXT.as_bytes(), offset), path, "at the start of {value}");
            assert_eq!(start_of(TEXT.as_bytes(), path), Some(offset), "{path}");
        }
        let end = TEXT.find("true").unwrap() + 4;
        assert_eq!(path_at(TEXT.as_bytes(), end), "linux.sysctl[\"net.x\"]");
        assert_eq!(path_at(TEXT.as_bytes(), end + 1), "linux.sysctl");
        assert_eq!(path_at(TEXT.as_bytes(), TEXT.len()), "");
        assert_eq!(start_of(TEXT.as_bytes(), "a.c"), None);
    }

    #[test]
    fn broken_text_is_no_trouble() {
        for text in ["", "{", "[", "}", "\"", "{\"a", "{\"a\\", "{\"a\":", "[1,", "]]]}", "{\"a\"\"b\"", "\u{0}{"] {
            for offset in 0..=text.len() + 1 {
                path_at(text.as_bytes(), offset);
                line_and_column(text.as_bytes(), offset);
            }
        }
        assert_eq!(path_at(b"{\"a\": {\"b\": [1, ", 16), "a.b[1]");
        // In the square of its length, this would take minutes.
        let deep = "[".repeat(1 << 20);
        assert_eq!(start_of(deep.as_bytes(), "a"), None);
        assert_eq!(find_list(deep.as_bytes(), |_| false), None);
    }

    #[test]
    fn positions_are_counted_as_editors_do() {
        let text = b"ab\ncd\n";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, 4), (2, 2));
        assert_eq!(offset_of(text, 2, 1), 4);
        assert_eq!(offset_of(text, 9, 9), 6);
    }
}
