//! What is wrong with a configuration, and how that is shown: the place, the line, a caret, a way out.
//!
//! The checks only know byte ranges; this file turns them into lines and columns. It has one duty beyond looks: a line
//! that is shown may hold a key by mistake, so what `forbidden` takes for a credential never leaves this file.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::forbidden;
use super::{FILE_NAME, MAX_FILE_BYTES};

/// The longest piece of a source line that is shown, in characters. Of a longer line only the part around the caret is.
const MAX_SHOWN_CHARS: usize = 120;

/// The longest message, in characters; more of it is cut, since it may quote a value of any size.
const MAX_MESSAGE_CHARS: usize = 300;

/// Why there is no usable configuration. Each of these is exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither the directory nor one above it has a configuration.
    #[error("no {FILE_NAME} in {} or a directory above it; make one with `er-dev init`, or name one with `--config FILE`", .0.display())]
    NotFound(PathBuf),
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a pipe or a device stands where the file should be.
    #[error("{} is not a regular file; `--config` takes the file itself", .0.display())]
    NotAFile(PathBuf),
    /// The file is larger than any configuration.
    #[error("{} is larger than {} KiB, so it is no configuration; name the right file with `--config`", .0.display(), MAX_FILE_BYTES / 1024)]
    TooLarge(PathBuf),
    /// The file says something that cannot be.
    #[error(transparent)]
    Invalid(#[from] Box<Invalid>),
}

/// Something in the file that cannot be, ready to be shown. `Display` gives all of it, over several lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// The file as people name it.
    pub file: String,
    /// Where in the file; `None` where something is missing from it as a whole.
    pub place: Option<Place>,
    /// What is wrong: a lower-case fragment without a full stop.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// A place in the file. `text`, `indent` and `width` are made for showing: control characters are spelt out and what
/// looks like a credential is starred or left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The line's text.
    pub text: String,
    /// Terminal cells before the caret.
    pub indent: usize,
    /// Terminal cells the caret spans, at least 1.
    pub width: usize,
}

/// Something wrong at a range of bytes: what the checks return, before lines and columns are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    span: Option<Range<usize>>,
    hide_from: Option<usize>,
    message: String,
    help: Option<String>,
}

impl Fault {
    /// Something wrong at `span`.
    pub(super) fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            hide_from: None,
            message: message.into(),
            help: None,
        }
    }

    /// Something missing from the file as a whole.
    pub(super) fn somewhere(message: impl Into<String>) -> Self {
        Self {
            span: None,
            hide_from: None,
            message: message.into(),
            help: None,
        }
    }

    /// Adds what to do.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Leaves the shown line out from this byte of the file on.
    pub(super) fn hide_from(mut self, byte: usize) -> Self {
        self.hide_from = Some(byte);
        self
    }

    /// Finds line and column in `text` and makes everything fit to be shown.
    pub(super) fn in_file(self, file: &str, text: &str) -> Box<Invalid> {
        // Starred before it is cut: half a key id is not known as one.
        let message = forbidden::starred(&self.message);
        let message: String = message.chars().take(MAX_MESSAGE_CHARS).collect();
        Box::new(Invalid {
            file: escaped(file),
            place: self.span.map(|span| place(text, span, self.hide_from)),
            message: escaped(&message),
            help: self.help.map(|help| escaped(&forbidden::starred(&help))),
        })
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        let mut margin = 1;
        match &self.place {
            None => write!(f, " {}", self.message)?,
            Some(place) => {
                let number = place.line.to_string();
                margin += number.len();
                writeln!(f, "{number}:{}: {}", place.column, self.message)?;
                writeln!(f, "{:margin$}|", "")?;
                writeln!(f, "{number} | {}", place.text)?;
                let (indent, caret) = (place.indent, "^".repeat(place.width));
                write!(f, "{:margin$}| {:indent$}{caret}", "", "")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\n{:margin$}= help: {help}", "")?;
        }
        Ok(())
    }
}

fn place(text: &str, span: Range<usize>, hide_from: Option<usize>) -> Place {
    let start = text.floor_char_boundary(span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].split('\n').next().unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);

    let hidden = hide_from
        .map(|byte| text.floor_char_boundary(byte).saturating_sub(line_start))
        .into_iter()
        .chain(forbidden::credential_word(line).map(|word| word.end))
        .min()
        .filter(|byte| *byte < line.len());
    let shown = forbidden::starred(&line[..hidden.unwrap_or(line.len())]);

    let marked = start - line_start..span.end.max(start) - line_start;
    let column = line[..marked.start.min(line.len())].chars().count() + 1;
    let (drawn, indent, width) = draw(&shown, &marked, column, hidden.is_some());
    Place {
        line: line_of(text, line_start),
        column,
        text: drawn,
        indent,
        width,
    }
}

/// The line a byte of the text is in, counted from 1.
pub(super) fn line_of(text: &str, byte: usize) -> usize {
    let before = text.bytes().take(byte);
    before.filter(|byte| *byte == b'\n').count() + 1
}

/// The part of a line around its marked bytes as it is shown, the cells before the caret, and the cells under it.
fn draw(line: &str, marked: &Range<usize>, column: usize, cut: bool) -> (String, usize, usize) {
    let skipped = column.saturating_sub(MAX_SHOWN_CHARS / 2);
    let mut text = String::from(if skipped > 0 { "..." } else { "" });
    let (mut indent, mut width) = (text.len(), 0);
    for (byte, c) in line.char_indices().skip(skipped).take(MAX_SHOWN_CHARS) {
        let before = text.len();
        push_escaped(&mut text, c);
        let cells = text[before..].chars().map(cells).sum::<usize>();
        if byte < marked.start {
            indent += cells;
        } else if byte < marked.end {
            width += cells;
        }
    }
    if cut || line.chars().count() > skipped + MAX_SHOWN_CHARS {
        text.push_str(" ...");
    }
    (text, indent, width.max(1))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_escaped(&mut out, c));
    out
}

/// Appends a character so that it can neither move the cursor nor turn the order of what follows.
fn push_escaped(out: &mut String, c: char) {
    let unseen = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if c == '\t' {
        out.push_str("    ");
    } else if c.is_control() || unseen {
        out.extend(c.escape_unicode());
    } else {
        out.push(c);
    }
}

/// How many cells a terminal gives a character: two for the scripts of East Asia and for pictures, none for the
/// common combining marks.
fn cells(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, marked: &str) -> String {
        let start = text.find(marked).unwrap();
        Fault::at(start..start + marked.len(), "it is wrong")
            .help("make it right")
            .in_file("er-dev.toml", text)
            .to_string()
    }

    #[test]
    fn an_error_shows_place_line_caret_and_help() {
        let text = format!("{}debouce = \"100ms\"\r\n[x]", "\n".repeat(11));
        assert_eq!(
            shown(&text, "debouce"),
            "er-dev.toml:12:1: it is wrong\n   |\n12 | debouce = \"100ms\"\n   | ^^^^^^^\n   = help: make it right"
        );
    }

    #[test]
    fn the_caret_stands_under_its_word_after_tabs_and_wide_letters() {
        assert_eq!(
            shown("\ta = \"\u{7248}\u{672c} e\u{301}\", bad", "bad"),
            "er-dev.toml:1:15: it is wrong\n  |\n1 |     a = \"\u{7248}\u{672c} e\u{301}\", bad\n  |                   ^^^\n  = help: make it right"
        );
        assert!(
            shown("x = \"\u{7248}\u{672c}\"", "\u{7248}\u{672c}")
                .ends_with("|      ^^^^\n  = help: make it right")
        );
    }

    #[test]
    fn no_control_character_of_the_file_reaches_the_terminal() {
        let text = shown("# \u{1b}[2J\u{202e}\u{9b} bad\u{7}", "bad");
        assert!(
            text.contains(r"# \u{1b}[2J\u{202e}\u{9b} bad\u{7}"),
            "{text}"
        );
        let fault = Fault::somewhere("a\u{1b}b").in_file("c\u{7}d", "");
        assert_eq!(fault.to_string(), r"c\u{7}d: a\u{1b}b");
    }

    #[test]
    fn a_long_line_is_shown_around_its_caret() {
        let text = format!("{}bad{}", "x".repeat(5000), "y".repeat(5000));
        let fault = Fault::at(5000..5003, "m").in_file("f", &text);
        let place = fault.place.clone().unwrap();
        assert_eq!((place.line, place.column, place.width), (1, 5001, 3));
        assert_eq!(&place.text[place.indent..place.indent + 3], "bad");
        assert!(place.text.len() < 130, "{}", place.text.len());
    }

    #[test]
    fn a_range_beyond_the_text_or_inside_a_letter_is_shown_all_the_same() {
        for (span, column) in [(9..99, 3), (1..2, 1), (3..3, 2)] {
            let fault = Fault::at(span.clone(), "m").in_file("f", "\u{7248}\r\n");
            let place = fault.place.unwrap();
            assert!(place.column <= column, "{span:?} {place:?}");
            assert!(place.width >= 1);
        }
    }

    #[test]
    fn a_line_ends_where_a_credential_begins() {
        let text = shown("bad = 1 # Access-Key-Secret: hunter2", "bad");
        assert!(
            text.contains("1 | bad = 1 # Access-Key-Secret ...\n"),
            "{text}"
        );
        let id = format!("{}{}", "LTAI", "abcdefgh12345678");
        let text = shown(&format!("bad = 1 # {id}"), "bad");
        assert!(
            text.contains("1 | bad = 1 # ********************\n"),
            "{text}"
        );
    }

    #[test]
    fn a_message_is_cut_and_half_a_key_id_at_the_cut_is_not_shown() {
        let id = format!("{}{}", "LTAI", "abcdefgh12345678");
        for before in [0, 285, 290, 400] {
            let message = format!("{}{id}", "x".repeat(before));
            let shown = Fault::somewhere(message).in_file("f", "").to_string();
            assert!(!shown.contains("LTAI"), "{shown}");
            assert!(shown.len() <= "f: ".len() + 300, "{}", shown.len());
        }
    }
}
