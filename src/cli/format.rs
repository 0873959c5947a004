//! `--format`, `--quiet` and what lists print without them. Knows nothing of what is listed.
//!
//! A list has rows, each a JSON object of the fields that `--format` can name, and [`Columns`] that say which of them the
//! table has. Everything is printed by a [`Template`], as docker does it: `table TEMPLATE` with aligned columns below a
//! header, `json` an object a line, any other a line a row.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::table::{align_columns, clean};
use super::template::{Template, unescape};
use crate::error::Result;

/// What a list can show.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// The fields of a row and their headers, such as `("ID", "IMAGE ID")`.
    pub headers: &'static [(&'static str, &'static str)],
    /// What the table is without `--format`, such as `{{.ID}}\t{{.Size}}`, the tab as a tab.
    pub table: &'static str,
    /// What `--quiet` prints, such as `{{.ID}}`.
    pub quiet: &'static str,
}

/// One thing of a list.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The fields; those of [`Columns::headers`].
    pub fields: Map<String, Value>,
    /// What `{{.Label "name"}}` answers; an absent label is empty.
    pub labels: BTreeMap<String, String>,
}

/// How a list is printed.
#[derive(Debug)]
pub struct Format {
    template: Template,
    is_table: bool,
    headers: Value,
}

impl Format {
    /// Reads the words of `--format`. With `--quiet`, they count if they are more than `table`.
    ///
    /// Fails with Go's message for a template that is none.
    pub fn choose(columns: &Columns, format: Option<&str>, is_quiet: bool) -> Result<Self> {
        let format = format.map(str::trim).unwrap_or_default();
        let table =
            (format.strip_prefix("table")).filter(|rest| rest.is_empty() || rest.starts_with([' ', '{', '\\', '\t']));
        let (template, is_table) = match (table, format) {
            (Some(""), _) | (None, "") if is_quiet => (columns.quiet.to_owned(), false),
            (Some(""), _) | (None, "") => (columns.table.to_owned(), true),
            (Some(template), _) => (unescape(template.trim_matches(' ')), true),
            (None, "json") => ("{{json .}}".to_owned(), false),
            (None, template) => (unescape(template), false),
        };
        let headers = columns.headers.iter().map(|(field, header)| ((*field).to_owned(), Value::from(*header)));
        Ok(Self { template: Template::parse(&template)?, is_table, headers: Value::Object(headers.collect()) })
    }

    /// Prints the list, each line ended.
    ///
    /// Fails where the template asks for a field that there is not, even if there are no rows.
    pub fn print(&self, rows: impl IntoIterator<Item = Row>) -> Result<String> {
        let mut text = String::new();
        if self.is_table {
            text.push_str(&self.template.render_header(&self.headers)?);
            text.push('\n');
        }
        for Row { fields, labels } in rows {
            let mut fields = Value::Object(fields);
            if self.is_table {
                clean_texts(&mut fields);
            }
            let label = |name: &str, arguments: &[&str]| match (name, arguments) {
                ("Label", [label]) => Some(labels.get(*label).cloned().unwrap_or_default()),
                _ => None,
            };
            text.push_str(&self.template.render_with(&fields, &label)?);
            text.push('\n');
        }
        Ok(if self.is_table { align_columns(&text) } else { text })
    }
}

/// Keeps what others have written from breaking a table, or the terminal.
fn clean_texts(value: &mut Value) {
    match value {
        Value::String(text) if text.contains(char::is_control) => *text = clean(text),
        Value::Array(list) => list.iter_mut().for_each(clean_texts),
        Value::Object(map) => map.values_mut().for_each(clean_texts),
        _ => {}
    }
}

/// Gives the part of an id or a digest that tables show: 12 digits, without the algorithm.
pub fn short_id(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    &hex[..hex.floor_char_boundary(12)]
}

/// Cuts a text to so many characters, the last of them `…`, as docker does with commands.
pub fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    if most > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: Columns = Columns {
        headers: &[("ID", "IMAGE ID"), ("Repository", "REPOSITORY"), ("Tag", "TAG"), ("Size", "SIZE")],
        table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Size}}",
        quiet: "{{.ID}}",
    };

    fn rows() -> Vec<Row> {
        let row = |id: &str, repository: &str, size: &str| {
            let Value::Object(fields) = json!({"ID": id, "Repository": repository, "Tag": "latest", "Size": size})
            else {
                panic!()
            };
            Row { fields, labels: BTreeMap::from([("a.b".to_owned(), id.to_uppercase())]) }
        };
        vec![row("0123456789ab", "alpine", "7.38MB"), row("ba9876543210", "a\tb\u{1b}[2J", "1GB")]
    }

    fn print(format: Option<&str>, is_quiet: bool) -> Result<String> {
        Format::choose(&COLUMNS, format, is_quiet)?.print(rows())
    }

    #[test]
    fn lists_are_printed_as_docker_prints_them() {
        let table = "REPOSITORY   TAG       IMAGE ID       SIZE\n\
                     alpine       latest    0123456789ab   7.38MB\n\
                     a?b?[2J      latest    ba9876543210   1GB\n";
        let short = "IMAGE ID       SIZE\n0123456789ab   7.38MB\nba9876543210   1GB\n";
        for (format, is_quiet, expected) in [
            (None, false, table),
            (Some("table"), false, table),
            (Some(""), false, table),
            (None, true, "0123456789ab\nba9876543210\n"),
            (Some("table"), true, "0123456789ab\nba9876543210\n"),
            (Some(r"table {{.ID}}\t{{.Size}}"), false, short),
            (Some(r"table {{.ID}}\t{{.Size}}"), true, short),
            (Some("table {{.ID}}\t{{.Size}}"), false, short),
            (Some(r"table{{.ID}}\t{{.Size}}"), false, short),
            (
                Some("table {{.Label \"a.b\"}}\t{{lower .ID}}"),
                false,
                "b              IMAGE ID\n0123456789AB   0123456789ab\nBA9876543210   ba9876543210\n",
            ),
            (Some(r"{{.ID}}\n{{.Size}}"), false, "0123456789ab\n7.38MB\nba9876543210\n1GB\n"),
            (Some("{{.Repository}}"), false, "alpine\na\tb\u{1b}[2J\n"),
            (Some("tables"), false, "tables\ntables\n"),
            (Some("{{.Label \"a.b\"}}{{.Label \"none\"}}"), false, "0123456789AB\nBA9876543210\n"),
        ] {
            assert_eq!(print(format, is_quiet).unwrap(), expected, "{format:?} {is_quiet}");
        }
    }

    #[test]
    fn json_is_an_object_a_line() {
        for is_quiet in [false, true] {
            let text = print(Some("json"), is_quiet).unwrap();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let fields = rows().into_iter().map(|row| Value::Object(row.fields));
            assert_eq!(lines, fields.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_an_error_even_of_an_empty_table() {
        for format in ["table {{.Nope}}", "{{.Nope}}"] {
            let error = print(Some(format), false).unwrap_err();
            assert_eq!(error.hint(), Some("there are: ID, Repository, Size, Tag"), "{format}");
        }
        let empty = Format::choose(&COLUMNS, Some("table {{.Nope}}"), false).unwrap().print([]);
        assert!(empty.is_err());
        assert_eq!(
            Format::choose(&COLUMNS, None, false).unwrap().print([]).unwrap(),
            "REPOSITORY   TAG       IMAGE ID   SIZE\n"
        );
        assert!(Format::choose(&COLUMNS, Some("{{.ID"), false).is_err());
    }

    #[test]
    fn ids_and_commands_are_cut() {
        for (id, expected) in [
            ("sha256:0123456789abcdef", "0123456789ab"),
            ("0123456789abcdef", "0123456789ab"),
            ("abc", "abc"),
            ("", ""),
            ("ääääääää", "ääääää"),
        ] {
            assert_eq!(short_id(id), expected);
        }
        for (text, most, expected) in
            [("sleep 1", 7, "sleep 1"), ("sleep 10", 7, "sleep …"), ("äöü", 2, "ä…"), ("ab", 1, "…"), ("a", 0, "")]
        {
            assert_eq!(ellipsis(text, most), expected);
        }
    }
}
