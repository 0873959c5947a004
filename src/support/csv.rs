//! One line of comma-separated values, as docker's flags have them: a field may stand in quotes, in which commas count as
//! text and two quotes as one (RFC 4180).

use crate::error::{Error, Result};

/// Splits a line into its fields.
pub fn split(line: &str) -> Result<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err(Error::invalid("a quote inside of a field that does not begin with one"));
            }
            (rest[..end].to_owned(), &rest[end..])
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// Reads up to the closing quote; gives what follows it, which is empty or begins with a comma.
fn quoted_field(text: &str) -> Result<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err(Error::invalid("a quote that is not closed"));
        };
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok((field, after)),
            None => return Err(Error::invalid("text after a closing quote")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        for (line, expected) in [
            ("a,b", &["a", "b"][..]),
            ("", &[""]),
            ("a,", &["a", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("type=bind,\"source=/a,b\",target=/c", &["type=bind", "source=/a,b", "target=/c"]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
        for line in ["\"a", "a\"b", "\"a\"b", "\""] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
