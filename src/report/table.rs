//! Text in columns that line up on a terminal, for commands that list things. Pure.
//!
//! Columns are as wide as their widest cell is shown, which is not its count of bytes or characters: a Chinese
//! character takes two columns and an accent none.

use super::Look;
use super::text::paint;
use super::words::{columns, escape};

/// Which side of its column a cell keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A header and rows of `N` cells.
#[derive(Debug, Clone)]
pub struct Table<const N: usize> {
    aligns: [Align; N],
    header: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows, from the heads of its columns.
    pub fn new(heads: [(&'static str, Align); N]) -> Self {
        Self {
            aligns: heads.map(|(_, align)| align),
            header: heads.map(|(head, _)| head),
            rows: Vec::new(),
        }
    }

    /// Adds a row at the end. The cells may be foreign text: they are escaped here.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| escape(&cell)));
    }

    /// The table as lines, the header first, two spaces between columns and none at the end of a line. A column that no
    /// row has anything in is left out.
    pub fn render(&self, look: Look) -> String {
        let header = self.header.map(String::from);
        let lines = || std::iter::once(&header).chain(&self.rows);
        let widths: [usize; N] = std::array::from_fn(|at| {
            let widest = lines().map(|cells| columns(&cells[at])).max();
            widest.unwrap_or_default()
        });
        let mut out = String::new();
        for (at, cells) in lines().enumerate() {
            let line = self.line(cells, &widths);
            match at {
                0 => out.push_str(&paint(&line, anstyle::Style::new().bold(), look)),
                _ => out.push_str(&line),
            }
            out.push('\n');
        }
        out
    }

    fn line(&self, cells: &[String; N], widths: &[usize; N]) -> String {
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let (align, mut column) = (self.aligns[at], self.rows.iter().map(|row| &row[at]));
            if !self.rows.is_empty() && column.all(String::is_empty) {
                continue;
            }
            let padding = " ".repeat(width.saturating_sub(columns(cell)));
            match align {
                Align::Left => line.extend([cell, padding.as_str(), "  "]),
                Align::Right => line.extend([padding.as_str(), cell, "  "]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table<3> {
        let mut table = Table::new([
            ("#", Align::Right),
            ("by", Align::Left),
            ("size", Align::Right),
        ]);
        table.row(["1".into(), "日本".into(), "980 B".into()]);
        table.row(["10".into(), "e\u{301}lan\u{1b}".into(), "1.9 kB".into()]);
        table.row(["2".into(), String::new(), String::new()]);
        table
    }

    #[test]
    fn columns_line_up_by_what_a_terminal_shows() {
        assert_eq!(
            sample().render(Look::PLAIN),
            " #  by            size\n 1  日本         980 B\n10  e\u{301}lan\\u{1b}  1.9 kB\n 2\n"
        );
    }

    #[test]
    fn a_column_without_anything_in_it_is_left_out() {
        let heads = ["name", "made", "size"].map(|head| (head, Align::Left));
        let mut table = Table::new(heads);
        table.row(["a".into(), String::new(), "1 B".into()]);
        assert_eq!(table.render(Look::PLAIN), "name  size\na     1 B\n");
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        let table = Table::new([("name", Align::Left), ("size", Align::Right)]);
        assert_eq!(table.render(Look::PLAIN), "name  size\n");
    }

    #[test]
    fn only_the_header_is_painted() {
        let look = Look {
            colour: true,
            ..Look::PLAIN
        };
        let plain = sample().render(Look::PLAIN);
        let painted = sample().render(look);
        let (first, rest) = plain.split_once('\n').unwrap();
        assert_eq!(painted, format!("\u{1b}[1m{first}\u{1b}[0m\n{rest}"));
    }
}
