//! A line of source with a caret under the place that is wrong. Pure.
//!
//! The caret has to sit under the right column of a terminal, and a line of a minified file can be megabytes long: so
//! the line is cut to a window around the place, and counted in the columns its characters take once escaped.

use super::Frame;
use super::words::{columns, escape, is_hidden};

/// The most columns of a source line that are shown, the dots at a cut left out.
pub const WINDOW: usize = 76;

const CUT: &str = "...";
const TAB: &str = "    ";

/// What is shown of a source line.
#[derive(Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line or a part of it, escaped, with `...` where it was cut.
    pub source: String,
    /// How many columns stand before the caret.
    pub indent: usize,
    /// How many columns the caret spans, at least 1.
    pub width: usize,
}

/// Cuts the window out of a frame; `None` where the line must not be shown. A column beyond the end of the line means
/// its end.
pub fn excerpt(frame: &Frame) -> Option<Excerpt> {
    let text = frame.text.as_deref()?;
    let at = frame
        .column
        .saturating_sub(1 + frame.cut)
        .min(text.chars().count());
    let first = at.saturating_sub(WINDOW);
    let before: Vec<String> = cells(text, first, at - first);
    // One more than fits, so that a cut can be told from an end.
    let after: Vec<String> = cells(text, at, WINDOW + 1);

    let right_whole = total(&after);
    let left_room = WINDOW.saturating_sub(right_whole.min(WINDOW / 2));
    let left_kept = fitting(before.iter().rev(), left_room);
    let left = &before[before.len() - left_kept..];
    let right = &after[..fitting(after.iter(), WINDOW.saturating_sub(total(left)))];

    let mut source = String::new();
    if frame.cut > 0 || first > 0 || left.len() < before.len() {
        source.push_str(CUT);
    }
    source.extend(left.iter().map(String::as_str));
    let indent = columns(&source);
    source.extend(right.iter().map(String::as_str));
    if right.len() < after.len() {
        source.push_str(CUT);
    }
    let marked = right.iter().take(frame.width).map(|cell| columns(cell));
    Some(Excerpt {
        source,
        indent,
        width: marked.sum::<usize>().max(1),
    })
}

/// Characters of a line as they are shown, one text each.
fn cells(line: &str, skip: usize, take: usize) -> Vec<String> {
    let shown = |c: char| match c {
        '\t' => TAB.into(),
        c if is_hidden(c) => escape(c.encode_utf8(&mut [0; 4])),
        c => c.into(),
    };
    line.chars().skip(skip).take(take).map(shown).collect()
}

/// How many of these cells fit into so many columns.
fn fitting<'a>(cells: impl Iterator<Item = &'a String>, room: usize) -> usize {
    cells
        .scan(0, |used, cell| {
            *used += cost(cell);
            (*used <= room).then_some(())
        })
        .count()
}

fn total(cells: &[String]) -> usize {
    cells.iter().map(|cell| cost(cell)).sum()
}

/// An accent counts too, or a line of nothing else would have no bound.
fn cost(cell: &str) -> usize {
    columns(cell).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    fn frame(text: &str, column: usize, width: usize) -> Frame {
        Frame {
            file: "a.js".into(),
            line: 1,
            column,
            width,
            text: Some(text.into()),
            cut: 0,
            also: Vec::new(),
            unshown: 0,
        }
    }

    /// The source over its caret line, as they appear.
    fn drawn(text: &str, column: usize, width: usize) -> (String, String) {
        let shown = excerpt(&frame(text, column, width)).unwrap();
        let caret = format!("{}{}", " ".repeat(shown.indent), "^".repeat(shown.width));
        (shown.source, caret)
    }

    #[test]
    fn the_caret_sits_under_its_character() {
        let table = [
            ("let a = ;", 9, 1, "let a = ;", "        ^"),
            ("let abc = 1", 5, 3, "let abc = 1", "    ^^^"),
            ("\tif (x {", 7, 1, "    if (x {", "         ^"),
            ("\t\t}", 3, 1, "        }", "        ^"),
            ("a = '日本' }", 10, 1, "a = '日本' }", "           ^"),
            ("'日本'", 2, 2, "'日本'", " ^^^^"),
            ("e\u{301} }", 4, 1, "e\u{301} }", "  ^"),
            ("a\u{202e}b }", 5, 1, "a\\u{202e}b }", "           ^"),
            ("\u{1b}[0m", 1, 1, "\\u{1b}[0m", "^^^^^^"),
        ];
        for (text, column, width, source, caret) in table {
            assert_eq!(
                drawn(text, column, width),
                (source.into(), caret.into()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_place_outside_the_line_is_its_nearest_end() {
        assert_eq!(drawn("if (x", 6, 1), ("if (x".into(), "     ^".into()));
        assert_eq!(drawn("if (x", 99, 5), ("if (x".into(), "     ^".into()));
        assert_eq!(drawn("if (x", 0, 0), ("if (x".into(), "^".into()));
        assert_eq!(drawn("", 1, 1), (String::new(), "^".into()));
    }

    #[test]
    fn a_minified_line_is_cut_to_a_window_around_the_place() {
        let text = format!("{}@{}", "ab;".repeat(1_000_000), "cd;".repeat(300_000));
        let (source, caret) = drawn(&text, 3_000_001, 1);
        assert_eq!(
            source,
            format!(
                "...{}@{}...",
                &"ab;".repeat(13)[1..],
                &"cd;".repeat(13)[..37]
            )
        );
        assert_eq!(&source[caret.len() - 1..caret.len()], "@");
    }

    #[test]
    fn a_cut_line_uses_the_room_of_a_short_side() {
        let text = format!("{}}}", "x".repeat(200));
        let (source, caret) = drawn(&text, 201, 1);
        assert_eq!(source, format!("...{}}}", "x".repeat(WINDOW - 1)));
        assert_eq!(caret.len(), source.len());
        let (source, _) = drawn(&text, 1, 1);
        assert_eq!(source, format!("{}...", "x".repeat(WINDOW)));
    }

    #[test]
    fn a_line_that_fits_is_not_cut() {
        let text = "y".repeat(WINDOW);
        for column in 1..=WINDOW {
            let (source, _) = drawn(&text, column, 1);
            assert_eq!(source, text, "column {column}");
        }
    }

    proptest! {
        #[test]
        fn an_excerpt_is_bounded_and_the_caret_within_it(
            text in proptest::collection::vec(any::<char>(), 0..300),
            column in any::<usize>(),
            width in any::<usize>(),
        ) {
            let text: String = text.into_iter().collect();
            let shown = excerpt(&frame(&text, column % 400, width)).unwrap();
            prop_assert!(columns(&shown.source) <= WINDOW + 2 * CUT.len());
            prop_assert!(shown.source.chars().count() <= WINDOW + 2 * CUT.len());
            prop_assert!(shown.indent + shown.width <= columns(&shown.source) + 1);
            prop_assert!(!shown.source.chars().any(is_hidden));
        }
    }
}
