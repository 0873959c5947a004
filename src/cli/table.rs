//! Plain columns, aligned as Go's `tabwriter` does it, for scripts that cut by position. No borders, no colours.

use std::fmt;

/// A column is no narrower, its padding included: what `runc list` gives its `tabwriter`.
const LEAST_WIDTH: usize = 12;

/// Spaces after the longest cell of a column.
const PADDING: usize = 3;

/// A table under construction; [`fmt::Display`] prints it, each line ended.
pub(super) struct Table {
    columns: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table with its header.
    pub(super) fn new(header: &[&str]) -> Self {
        Self { columns: header.len(), rows: vec![header.iter().map(|cell| clean(cell)).collect()] }
    }

    /// Adds a row of as many cells as the header has.
    pub(super) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let row: Vec<String> = cells.into_iter().map(|cell| clean(cell.as_ref())).collect();
        assert_eq!(row.len(), self.columns, "a row has as many cells as the header");
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = self.columns.checked_sub(1) else { return Ok(()) };
        let width = |column: usize| {
            let longest = self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            (longest + PADDING).max(LEAST_WIDTH)
        };
        let widths: Vec<usize> = (0..last).map(width).collect();
        for row in &self.rows {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "{cell:<width$}")?;
            }
            // Nothing follows the last cell, so nothing is added to it.
            writeln!(f, "{}", row[last])?;
        }
        Ok(())
    }
}

/// Shows control characters as `?`: names and labels come from others, and a terminal would obey them.
fn clean(cell: &str) -> String {
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
}
