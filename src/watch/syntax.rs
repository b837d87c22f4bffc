//! Whether JavaScript parses, and the place where it stops doing so.
//!
//! A revision slot is scarce and a broken upload takes one, hence the check. It knows no file and decides nothing:
//! [`super::source`] calls it. Without the cargo feature `syntax-check` it accepts everything.
//!
//! The parser goes one level deeper into the stack for each level of the code, and a stack that overflows takes the
//! whole process along. So every check has a thread whose stack is as large as the code could possibly need.

use std::path::{Path, PathBuf};

/// The place in a source file that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// How many characters it spans, at least 1 and never past the end of `text`.
    pub width: usize,
    /// The text of the line, without its end. Of a long line it is the part around the place.
    pub text: String,
    /// How many characters of the line stand before `text`: the place is at `column - cut` of it.
    pub cut: usize,
}

/// Code that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// What is wrong, in the parser's words.
    pub message: String,
    /// What the parser advises, where it does.
    pub advice: Option<String>,
    /// Where.
    pub place: Box<Place>,
}

/// Parses code as a script and, if it is none, as a module; either will do.
///
/// The error is that of the reading that got further. Code that is too deep to be checked safely is accepted with a
/// warning: the service has the last word on it anyway.
pub fn check(source: &str, file: &Path) -> Result<(), SyntaxError> {
    #[cfg(feature = "syntax-check")]
    return parse::check(source, file);
    #[cfg(not(feature = "syntax-check"))]
    {
        let _ = (source, file);
        Ok(())
    }
}

#[cfg(feature = "syntax-check")]
mod parse {
    use std::path::Path;
    use std::thread::{Builder, scope};

    use oxc_allocator::Allocator;
    use oxc_diagnostics::{Diagnostics, OxcDiagnostic};
    use oxc_parser::Parser;
    use oxc_semantic::SemanticBuilder;
    use oxc_span::SourceType;

    use super::{Place, SyntaxError};

    /// Stack a level of the code may take, in bytes. The most that was measured over fifty constructs, in builds with
    /// and without optimization, is 2,849 bytes a token (nested brackets). It is address space; only what is used
    /// becomes memory.
    const STACK_PER_TOKEN: usize = 4 * 1024;

    /// Stack for everything that does not grow with the code, in bytes.
    const STACK_BASE: usize = 1024 * 1024;

    /// The deepest nesting of brackets that is checked. It bounds the memory and the time that hostile code can take;
    /// code that people or bundlers write stays below a tenth of it.
    const MAX_DEPTH: usize = 2_000;

    /// The longest part of a line that is kept, in characters.
    const MAX_TEXT: usize = 200;

    pub(super) fn check(source: &str, file: &Path) -> Result<(), SyntaxError> {
        let Size { tokens, depth } = size(source);
        if depth > MAX_DEPTH {
            tracing::warn!(
                "`{}` nests brackets more than {MAX_DEPTH} deep; it goes up without a syntax check",
                file.display()
            );
            return Ok(());
        }
        let stack = tokens.saturating_mul(STACK_PER_TOKEN) + STACK_BASE;
        let found = scope(|threads| {
            let parser = Builder::new()
                .name("syntax check".into())
                .stack_size(stack)
                .spawn_scoped(threads, || fault(source));
            let parser = parser.map_err(|error| format!("found no memory: {error}"))?;
            parser.join().map_err(|_| "failed".to_owned())
        });
        match found {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => Err(SyntaxError {
                message: fault.message,
                advice: fault.advice,
                place: Box::new(place(source, file, fault.start, fault.end)),
            }),
            Err(why) => {
                tracing::warn!(
                    "`{}` goes up without a syntax check, which {why}",
                    file.display()
                );
                Ok(())
            }
        }
    }

    struct Size {
        tokens: usize,
        depth: usize,
    }

    /// An upper bound for the tokens, and roughly how deep brackets nest. Strings and comments count as code, so the
    /// first is never too small; the second may be off by the odd bracket in a string.
    fn size(source: &str) -> Size {
        let (mut tokens, mut depth, mut deepest, mut in_word) = (0, 0_usize, 0, false);
        for byte in source.bytes() {
            let word = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
            let goes_on = byte.is_ascii_whitespace() || (word && in_word);
            tokens += usize::from(!goes_on);
            in_word = word;
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        Size {
            tokens,
            depth: deepest,
        }
    }

    struct Fault {
        message: String,
        advice: Option<String>,
        start: usize,
        end: usize,
    }

    fn fault(source: &str) -> Option<Fault> {
        let script = first_fault(source, SourceType::script())?;
        let module = first_fault(source, SourceType::mjs())?;
        // A module read as a script stops at its first import, and the other way round at what modules forbid.
        if module.start > script.start {
            Some(module)
        } else {
            Some(script)
        }
    }

    fn first_fault(source: &str, kind: SourceType) -> Option<Fault> {
        let allocator = Allocator::default();
        let parsed = Parser::new(&allocator, source, kind).parse();
        if let Some(fault) = first_of(&parsed.diagnostics) {
            return Some(fault);
        }
        if parsed.panicked {
            return Some(Fault {
                message: "Unexpected end".into(),
                advice: None,
                start: source.len(),
                end: source.len(),
            });
        }
        // The parser alone lets a second `let a` or a stray `break` pass.
        let semantic = SemanticBuilder::new()
            .with_check_syntax_error(true)
            .build(&parsed.program);
        first_of(&semantic.diagnostics)
    }

    fn first_of(diagnostics: &Diagnostics) -> Option<Fault> {
        let faults = diagnostics.errors().map(|error| {
            let (start, end) = span(error);
            Fault {
                message: error.message.to_string(),
                advice: error.help.as_ref().map(ToString::to_string),
                start,
                end,
            }
        });
        faults.min_by_key(|fault| fault.start)
    }

    /// The last label of an error: where there are several, the earlier ones name what it is in conflict with.
    fn span(error: &OxcDiagnostic) -> (usize, usize) {
        let spans = error.labels.iter().map(|label| {
            let start = label.offset() as usize;
            (start, start + label.len() as usize)
        });
        spans.max().unwrap_or((0, 0))
    }

    fn place(source: &str, file: &Path, start: usize, end: usize) -> Place {
        let start = source.floor_char_boundary(start);
        let end = source.ceil_char_boundary(end).max(start);
        let before = &source[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = source[start..]
            .find('\n')
            .map_or(source.len(), |newline| start + newline);
        let line = source[line_start..line_end].trim_end_matches('\r');
        let column = before[line_start..].chars().count();
        // A quarter of the room goes to what stands before the place.
        let length = line.chars().count();
        let cut = if length <= MAX_TEXT {
            0
        } else {
            column.saturating_sub(MAX_TEXT / 4).min(length - MAX_TEXT)
        };
        let text: String = line.chars().skip(cut).take(MAX_TEXT).collect();
        let room = text.chars().count().saturating_sub(column - cut);
        let width = source[start..end.min(line_end)].chars().count();
        Place {
            file: file.to_path_buf(),
            line: before.matches('\n').count() + 1,
            column: column + 1,
            width: width.min(room).max(1),
            text,
            cut,
        }
    }
}

#[cfg(all(test, feature = "syntax-check"))]
mod tests {
    use super::*;

    fn verdict(source: &str) -> Result<(), SyntaxError> {
        check(source, Path::new("/p/index.js"))
    }

    #[test]
    fn code_that_a_worker_may_be_written_in_is_accepted() {
        for valid in [
            "addEventListener('fetch', event => event.respondWith(new Response('hi')))",
            "export default { async fetch(request) { return new Response('hi') } }",
            "import x from 'y'; const z = await x();",
            "with (a) b = 010;",
            "var await = 1;",
            "#!/usr/bin/env node\nlet a = 1",
            "\u{feff}let a = 1;\r\nlet b = 2",
            "let a = '\u{2028}'",
            "class A { #p = 1; static { this.q = 2 } }",
            "a?.b ?? /[/(]/v",
            "<!-- old style\nlet a = 1",
            "",
        ] {
            assert_eq!(verdict(valid), Ok(()), "{valid:?}");
        }
    }

    #[test]
    fn a_fault_is_shown_at_its_line_and_column() {
        for (broken, line, column, width) in [
            ("let a = ;", 1, 9, 1),
            ("let ok = 1;\n  let é = 'x' 5;\n", 2, 14, 1),
            ("let a;\nlet a;\n", 2, 5, 1),
            ("break;", 1, 1, 6),
            ("import x from 'y';\nlet = = 1;\n", 2, 7, 1),
        ] {
            let error = verdict(broken).unwrap_err();
            let Place {
                line: at,
                column: col,
                width: wide,
                ..
            } = *error.place;
            assert_eq!(
                (at, col, wide),
                (line, column, width),
                "{broken:?}: {error}"
            );
        }
    }

    #[test]
    fn code_that_ends_too_early_is_refused_wherever_it_is_cut() {
        let whole = "addEventListener('fetch', (event) => { event.respondWith(new Response(`hi ${1}`)); });";
        assert_eq!(verdict(whole), Ok(()));
        // Up to the last bracket; cut at 0 it is empty and at 16 it is a lone name.
        for end in 17..whole.len() - 1 {
            assert!(verdict(&whole[..end]).is_err(), "{}", &whole[..end]);
        }
    }

    #[test]
    fn of_a_minified_line_only_the_surroundings_are_shown() {
        let source = format!("{}let b = ;{}", "f(é);".repeat(2_000), "g();".repeat(2_000));
        let place = verdict(&source).unwrap_err().place;
        assert_eq!((place.line, place.column), (1, 10_009));
        assert_eq!(place.text.chars().count(), 200);
        let at = place.text.chars().nth(place.column - place.cut - 1);
        assert_eq!(at, Some(';'));
    }

    #[test]
    fn no_code_is_too_deep_for_the_stack() {
        let deep = |open: &str, middle: &str, close: &str, levels: usize| {
            format!("x={}{middle}{}", open.repeat(levels), close.repeat(levels))
        };
        for levels in [1_900, 100_000] {
            for (open, close) in [
                ("(", ")"),
                ("[", "]"),
                ("{a:", "}"),
                ("`${", "}`"),
                ("f(", ")"),
            ] {
                assert_eq!(
                    verdict(&deep(open, "1", close, levels)),
                    Ok(()),
                    "{open} {levels}"
                );
                let _ = verdict(&deep(open, "", "", levels));
            }
        }
        for open in [
            "a=>", "a?b:", "!", "- ", "a=", "a+", "a.", "a**", "a&&", "new ",
        ] {
            assert_eq!(verdict(&deep(open, "a", "", 20_000)), Ok(()), "{open}");
        }
        assert_eq!(
            verdict(&format!("{};", "if(a);else ".repeat(20_000))),
            Ok(())
        );
    }
}
