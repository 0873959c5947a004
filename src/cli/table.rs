//! Plain columns, aligned as Go's `tabwriter` does it, for scripts that cut by position. No borders, no colours.

use std::fmt;

/// A column of runc's tables is no narrower, its padding included.
const RUNC_LEAST_WIDTH: usize = 12;

/// The same of docker's tables.
const DOCKER_LEAST_WIDTH: usize = 10;

/// Spaces after the longest cell of a column.
const PADDING: usize = 3;

/// A table under construction; [`fmt::Display`] prints it, each line ended.
pub(super) struct Table {
    columns: usize,
    lines: String,
}

impl Table {
    /// Begins a table with its header.
    pub(super) fn new(header: &[&str]) -> Self {
        let mut table = Self { columns: header.len(), lines: String::new() };
        table.row(header);
        table
    }

    /// Adds a row of as many cells as the header has.
    pub(super) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let row: Vec<String> = cells.into_iter().map(|cell| clean(cell.as_ref())).collect();
        assert_eq!(row.len(), self.columns, "a row has as many cells as the header");
        self.lines.push_str(&row.join("\t"));
        self.lines.push('\n');
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&align(&self.lines, RUNC_LEAST_WIDTH))
    }
}

/// Aligns what tabs separate, as docker does in its tables: three spaces behind the longest cell, ten columns at least.
///
/// A cell belongs to a column if a tab ends it. A column is made of the cells of lines that follow one another; lines may have
/// different numbers of cells. Width is counted in characters.
pub fn align_columns(text: &str) -> String {
    align(text, DOCKER_LEAST_WIDTH)
}

/// The same with docker's columns of processes, twenty wide.
pub(super) fn align_wide(text: &str) -> String {
    align(text, 20)
}

fn align(text: &str, least: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    // The widths of each line's cells but the last, which no tab ends.
    let mut widths: Vec<Vec<usize>> = vec![Vec::new(); lines.len()];
    let most = lines.iter().map(|cells| cells.len() - 1).max().unwrap_or_default();
    for column in 0..most {
        let has_column = |line: usize| lines.get(line).is_some_and(|cells| column + 1 < cells.len());
        let mut line = 0;
        while line < lines.len() {
            let end = (line..lines.len()).find(|line| !has_column(*line)).unwrap_or(lines.len());
            let longest = lines[line..end].iter().map(|cells| cells[column].chars().count()).max();
            let width = (longest.unwrap_or_default() + PADDING).max(least);
            widths[line..end].iter_mut().for_each(|widths| widths.push(width));
            line = end.max(line + 1);
        }
    }
    let mut aligned = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (index, cell) in cells.iter().enumerate() {
            aligned.push_str(cell);
            let missing = widths.get(index).map_or(0, |width| width - cell.chars().count());
            aligned.extend(std::iter::repeat_n(' ', missing));
        }
        aligned.push('\n');
    }
    aligned
}

/// Shows control characters as `?`: names and labels come from others, and a terminal would obey them.
pub(super) fn clean(cell: &str) -> String {
    cell.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_runcs_header_to_the_byte() {
        let table = Table::new(&["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
        assert_eq!(table.to_string(), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows: &[(&[&[&str]], &str)] = &[
            (&[&["ID", "PID"], &["123456789", "1"]], "ID          PID\n123456789   1\n"),
            (&[&["ID", "PID"], &["1234567890", "1"], &["a", ""]], "ID           PID\n1234567890   1\na            \n"),
            // Counted in characters, as Go does.
            (&[&["ID", "B"], &["äöüäöüäöüä", "x"]], "ID           B\näöüäöüäöüä   x\n"),
            (&[&["ONLY"], &["one"]], "ONLY\none\n"),
            (&[&["A", "B"], &["\u{1b}[31m", "a\nb\tc"]], "A           B\n?[31m       a?b?c\n"),
        ];
        for (cells, expected) in rows {
            let mut table = Table::new(cells[0]);
            for row in &cells[1..] {
                table.row(*row);
            }
            assert_eq!(table.to_string(), *expected);
        }
    }

    #[test]
    fn lines_may_have_any_number_of_cells() {
        for (text, expected) in [
            ("", ""),
            ("a", "a\n"),
            ("a\tb\n", "a         b\n"),
            ("abcdefgh\tb\nx\ty", "abcdefgh   b\nx          y\n"),
            // The line between ends the first column; the next begins another.
            ("abcdefgh\tb\nplain\nx\ty\n", "abcdefgh   b\nplain\nx         y\n"),
            (
                "a\tb\tc\nd\te\nlonger than that\tf\tg\n",
                "a                  b         c\nd                  e\nlonger than that   f         g\n",
            ),
            ("\t\tx\n", "                    x\n"),
            ("a\t\n", "a         \n"),
        ] {
            assert_eq!(align_columns(text), expected, "{text:?}");
        }
    }
}
