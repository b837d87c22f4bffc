//! What a terminal shows of a running watch: lines that stay, and below them one that changes. Pure.
//!
//! Everything here is text with the few codes that every terminal of today obeys: back to the first column, some rows up,
//! erase from here on. A line that only repeats the one before it takes that one's place, with a count.

use super::Event;
use super::words::columns;

/// A terminal with a live line.
#[derive(Debug)]
pub struct Screen {
    columns: usize,
    rows: usize,
    /// The live line; empty where there is none at the moment.
    live: String,
    /// How many columns of it stand on the screen.
    shown: usize,
    /// What stands right above it, if that may be written anew.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    event: Event,
    times: u32,
    rows: usize,
}

impl Screen {
    /// A terminal of so many columns and rows, whose cursor stands at the start of an empty row.
    pub fn new(columns: usize, rows: usize) -> Self {
        Self {
            columns: columns.max(1),
            rows: rows.max(1),
            live: String::new(),
            shown: 0,
            last: None,
        }
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Takes note of another size. What stands there may be wrapped anew, so that nothing above the live line can be
    /// taken back.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        if (self.columns, self.rows) != (columns, rows) {
            (self.columns, self.rows) = (columns.max(1), rows.max(1));
            self.last = None;
        }
    }

    /// Takes note that other text was written meanwhile, and that the cursor stands at the start of an empty row.
    pub fn lost(&mut self) {
        self.shown = 0;
        self.last = None;
    }

    /// Writes lines that stay.
    pub fn above(&mut self, lines: &str) -> String {
        self.last = None;
        let out = self.erased() + lines;
        out + &self.drawn()
    }

    /// Writes the lines of an event, or writes the last ones anew if it only repeats them. `render` makes lines of an
    /// event that happened so many times.
    pub fn event(&mut self, event: &Event, render: impl Fn(&Event, u32) -> String) -> String {
        let mut out = self.erased();
        let (event, times) = match self.last.take() {
            Some(last) if last.rows < self.rows => match repeated(&last.event, event) {
                Some(merged) => {
                    out.push_str(&format!("\x1b[{}A\x1b[J", last.rows));
                    (merged, last.times.saturating_add(1))
                }
                None => (event.clone(), 1),
            },
            _ => (event.clone(), 1),
        };
        let lines = render(&event, times);
        let rows = lines.lines().map(|line| self.rows_of(width(line))).sum();
        out.push_str(&lines);
        self.last = Some(Last { event, times, rows });
        out + &self.drawn()
    }

    /// Shows another live line, or none if it is empty; nothing is written if it is the same.
    pub fn live(&mut self, line: String) -> String {
        if line == self.live && (self.shown > 0 || line.is_empty()) {
            return String::new();
        }
        let erased = self.erased();
        self.live = line;
        erased + &self.drawn()
    }

    /// Erases the live line for as long as nothing is drawn.
    pub fn erased(&mut self) -> String {
        if self.shown == 0 {
            return String::new();
        }
        let up = self.rows_of(self.shown) - 1;
        self.shown = 0;
        match up {
            0 => "\r\x1b[J".into(),
            up => format!("\r\x1b[{up}A\x1b[J"),
        }
    }

    fn drawn(&mut self) -> String {
        self.shown = width(&self.live);
        self.live.clone()
    }

    fn rows_of(&self, width: usize) -> usize {
        width.div_ceil(self.columns).max(1)
    }
}

/// How many columns a line takes, colours aside.
fn width(line: &str) -> usize {
    let mut rest = line;
    let mut width = 0;
    while let Some((text, code)) = rest.split_once('\x1b') {
        width += columns(text);
        rest = code.split_once('m').map_or("", |(_, rest)| rest);
    }
    width + columns(rest)
}

/// An event that says the same as the one before it says it for both; `None` if it says something else.
fn repeated(last: &Event, next: &Event) -> Option<Event> {
    let mut merged = next.clone();
    match (last, &mut merged) {
        (
            Event::Unchanged {
                routine: before,
                revision: held,
                saves: earlier,
            },
            Event::Unchanged {
                routine,
                revision,
                saves,
            },
        ) if (before, held) == (&*routine, &*revision) => add(saves, *earlier),
        (
            Event::Reused {
                routine: before,
                revision: held,
                saves: earlier,
                ..
            },
            Event::Reused {
                routine,
                revision,
                saves,
                ..
            },
        ) if (before, held) == (&*routine, &*revision) => add(saves, *earlier),
        (
            Event::Superseded {
                routine: before,
                saves: earlier,
            },
            Event::Superseded { routine, saves },
        ) if before == &*routine => add(saves, *earlier),
        (
            Event::Failed {
                routine: before,
                problem: same,
                saves: earlier,
            },
            Event::Failed {
                routine,
                problem,
                saves,
            },
        ) if (before, same) == (&*routine, &*problem) => add(saves, *earlier),
        (
            Event::Retrying {
                routine: before,
                problem: same,
                ..
            },
            Event::Retrying {
                routine, problem, ..
            },
        ) if (before, &same.what) == (&*routine, &problem.what) => {}
        (
            Event::Throttled {
                routine: before,
                operation: same,
                ..
            },
            Event::Throttled {
                routine, operation, ..
            },
        ) if (before, same) == (&*routine, &*operation) => {}
        (Event::Offline { problem: same, .. }, Event::Offline { problem, .. })
            if same.what == problem.what => {}
        _ => return None,
    }
    Some(merged)
}

/// An edit that no save caused, as at the start, counts as one where lines are counted.
fn add(saves: &mut u32, earlier: u32) {
    *saves = (*saves).max(1).saturating_add(earlier.max(1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routine::{Revision, RoutineName};

    fn unchanged(routine: &str, saves: u32) -> Event {
        Event::Unchanged {
            routine: RoutineName::new(routine).unwrap(),
            revision: Revision::new("17"),
            saves,
        }
    }

    fn lines(event: &Event, times: u32) -> String {
        match event {
            Event::Unchanged { routine, saves, .. } => format!("{routine} {saves} {times}\n"),
            other => panic!("{other:?}"),
        }
    }

    /// What a terminal of so many columns shows after these bytes: its rows, without those that are empty at the end.
    fn shown(bytes: &str, columns: usize) -> Vec<String> {
        let mut rows = vec![String::new()];
        let (mut row, mut column) = (0, 0);
        let mut rest = bytes.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\r' => column = 0,
                '\n' => {
                    (row, column) = (row + 1, 0);
                    if row == rows.len() {
                        rows.push(String::new());
                    }
                }
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['));
                    let mut number = String::new();
                    while rest.peek().is_some_and(char::is_ascii_digit) {
                        number.extend(rest.next());
                    }
                    match rest.next() {
                        Some('A') => row -= number.parse::<usize>().unwrap(),
                        Some('J') => {
                            rows.truncate(row + 1);
                            rows[row].truncate(column);
                        }
                        code => panic!("{code:?}"),
                    }
                }
                c => {
                    if column == columns {
                        (row, column) = (row + 1, 0);
                        if row == rows.len() {
                            rows.push(String::new());
                        }
                    }
                    rows[row].truncate(column);
                    rows[row].push(c);
                    column += 1;
                }
            }
        }
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    #[test]
    fn lines_stay_above_the_live_line() {
        let mut screen = Screen::new(40, 10);
        let mut out = screen.above("one\n");
        out += &screen.live("status 1".into());
        out += &screen.above("two\nthree\n");
        out += &screen.live("status 2".into());
        assert_eq!(shown(&out, 40), ["one", "two", "three", "status 2"]);
        out += &screen.live(String::new());
        assert_eq!(shown(&out, 40), ["one", "two", "three"]);
    }

    #[test]
    fn a_live_line_that_has_not_changed_is_not_written_again() {
        let mut screen = Screen::new(40, 10);
        assert_ne!(screen.live("status".into()), "");
        assert_eq!(screen.live("status".into()), "");
    }

    #[test]
    fn a_line_that_repeats_the_one_before_takes_its_place_with_a_count() {
        let mut screen = Screen::new(40, 10);
        let mut out = screen.live("status".into());
        for (routine, saves) in [("a", 1), ("a", 2), ("b", 1), ("a", 1), ("a", 1)] {
            out += &screen.event(&unchanged(routine, saves), lines);
        }
        assert_eq!(shown(&out, 40), ["a 3 2", "b 1 1", "a 2 2", "status"]);
    }

    #[test]
    fn lines_that_take_several_rows_are_taken_back_whole() {
        let mut screen = Screen::new(10, 10);
        let wide = |event: &Event, times| format!("{}{}", "x".repeat(25), lines(event, times));
        let mut out = screen.above("first\n");
        for _ in 0..3 {
            out += &screen.event(&unchanged("a", 1), wide);
        }
        assert_eq!(
            shown(&out, 10),
            ["first", "xxxxxxxxxx", "xxxxxxxxxx", "xxxxxa 3 3"]
        );
    }

    #[test]
    fn nothing_is_taken_back_that_has_scrolled_away_or_was_wrapped_anew() {
        let tall = |event: &Event, times| "row\n".repeat(9) + &lines(event, times);
        let mut screen = Screen::new(40, 10);
        let mut out = screen.event(&unchanged("a", 1), tall);
        out += &screen.event(&unchanged("a", 1), tall);
        assert_eq!(shown(&out, 40).len(), 20);

        let mut screen = Screen::new(40, 10);
        let mut out = screen.event(&unchanged("a", 1), lines);
        screen.resize(20, 10);
        out += &screen.event(&unchanged("a", 1), lines);
        assert_eq!(shown(&out, 20), ["a 1 1", "a 1 1"]);
    }

    #[test]
    fn a_live_line_that_a_narrower_terminal_has_wrapped_is_erased_whole() {
        let mut screen = Screen::new(40, 10);
        let mut out = screen.above("first\n");
        out += &screen.live("0123456789012345678901234".into());
        screen.resize(10, 10);
        out += &screen.live("short".into());
        // The terminal wraps what it showed before, as if it had been written so.
        assert_eq!(shown(&out, 10), ["first", "short"]);
    }

    #[test]
    fn colours_take_no_columns() {
        assert_eq!(width("\x1b[1m\x1b[32mok\x1b[0m now"), 6);
    }
}
