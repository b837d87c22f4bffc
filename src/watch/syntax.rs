//! Whether JavaScript parses, and the places where it does not.
//!
//! A revision slot is scarce and a broken upload takes one, hence the check. It knows no file and decides nothing:
//! [`super::source`] calls it. Without the cargo feature `syntax-check` it accepts everything. What there is to say of
//! code that parses is decided in `runtime`.
//!
//! The parser goes one level deeper into the stack for each level of the code, and a stack that overflows takes the
//! whole process along. So every check has a thread whose stack is as large as the code could possibly need.

use std::path::{Path, PathBuf};

use crate::config::Kind;

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
    /// What else is wrong, in the order of its places; a few at most.
    pub also: Vec<Fault>,
    /// How much more is wrong.
    pub unshown: usize,
}

/// One more thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, in the parser's words.
    pub message: String,
    /// Where.
    pub place: Place,
}

/// Something about code that parses which the service may take otherwise than the code expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caution {
    /// What: a lower-case fragment without a full stop.
    pub message: &'static str,
    /// What to do about it, in the same form.
    pub help: &'static str,
    /// Where, if it is about one place.
    pub place: Option<Place>,
}

/// Parses code as a script and, if it is none, as a module; either will do. The outcome is what there is to say of it
/// for this kind of service, nothing if there is none.
///
/// The errors are those of the reading that got further. Code that is too deep to be checked safely is accepted with a
/// warning: the service has the last word on it anyway.
pub fn check(
    source: &str,
    file: &Path,
    service: Option<Kind>,
) -> Result<Vec<Caution>, SyntaxError> {
    #[cfg(feature = "syntax-check")]
    return parse::check(source, file, service);
    #[cfg(not(feature = "syntax-check"))]
    {
        let _ = (source, file, service);
        Ok(Vec::new())
    }
}

#[cfg(feature = "syntax-check")]
mod parse {
    use std::path::Path;
    use std::thread::{Builder, scope};

    use oxc_allocator::Allocator;
    use oxc_diagnostics::OxcDiagnostic;
    use oxc_parser::{ParseOptions, Parser};
    use oxc_semantic::SemanticBuilder;
    use oxc_span::{SourceType, Span};

    use super::super::runtime::{self, Doubt};
    use super::{Caution, Fault, Place, SyntaxError};
    use crate::config::Kind;

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

    /// How much that is wrong is told of besides the first.
    const MAX_ALSO: usize = 4;

    pub(super) fn check(
        source: &str,
        file: &Path,
        service: Option<Kind>,
    ) -> Result<Vec<Caution>, SyntaxError> {
        let Size { tokens, depth } = size(source);
        if depth > MAX_DEPTH {
            tracing::warn!(
                "`{}` nests brackets more than {MAX_DEPTH} deep; it goes up without a syntax check",
                file.display()
            );
            return Ok(Vec::new());
        }
        let stack = tokens.saturating_mul(STACK_PER_TOKEN) + STACK_BASE;
        let found = scope(|threads| {
            let parser = Builder::new()
                .name("syntax check".into())
                .stack_size(stack)
                .spawn_scoped(threads, || read(source, service));
            let parser = parser.map_err(|error| format!("found no memory: {error}"))?;
            parser.join().map_err(|_| "failed".to_owned())
        });
        match found {
            Ok(Ok(doubts)) => {
                let place = |span: Span| place(source, file, span);
                let caution = |doubt: Doubt| Caution {
                    message: doubt.message,
                    help: doubt.help,
                    place: doubt.span.map(place),
                };
                Ok(doubts.into_iter().map(caution).collect())
            }
            Ok(Err(faults)) => Err(error(source, file, faults)),
            Err(why) => {
                tracing::warn!(
                    "`{}` goes up without a syntax check, which {why}",
                    file.display()
                );
                Ok(Vec::new())
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

    /// Something that is wrong, with its place in bytes.
    struct Wrong {
        message: String,
        advice: Option<String>,
        span: Span,
    }

    /// All that is wrong, the first place first.
    struct Faults {
        first: Wrong,
        others: Vec<Wrong>,
    }

    fn read(source: &str, service: Option<Kind>) -> Result<Vec<Doubt>, Faults> {
        let script = match read_as(source, SourceType::script(), service) {
            Ok(doubts) => return Ok(doubts),
            Err(faults) => faults,
        };
        let module = match read_as(source, SourceType::mjs(), service) {
            Ok(doubts) => return Ok(doubts),
            Err(faults) => faults,
        };
        // A module read as a script stops at its first import, and the other way round at what modules forbid.
        if module.first.span.start > script.first.span.start {
            Err(module)
        } else {
            Err(script)
        }
    }

    fn read_as(
        source: &str,
        kind: SourceType,
        service: Option<Kind>,
    ) -> Result<Vec<Doubt>, Faults> {
        let allocator = Allocator::default();
        let options = ParseOptions {
            parse_regular_expression: true,
            ..ParseOptions::default()
        };
        let parser = Parser::new(&allocator, source, kind).with_options(options);
        let parsed = parser.parse();
        if parsed.panicked {
            let end = || Wrong {
                message: "Unexpected end".into(),
                advice: None,
                span: Span::empty(u32::try_from(source.len()).unwrap_or(u32::MAX)),
            };
            return Err(
                faults(parsed.diagnostics.errors()).unwrap_or_else(|| Faults {
                    first: end(),
                    others: Vec::new(),
                }),
            );
        }
        // The parser alone lets a second `let a` or a stray `break` pass.
        let read = SemanticBuilder::new()
            .with_check_syntax_error(true)
            .with_build_nodes(service.is_some())
            .build(&parsed.program);
        let all = parsed.diagnostics.errors().chain(read.diagnostics.errors());
        match faults(all) {
            Some(faults) => Err(faults),
            None => Ok(service.map_or_else(Vec::new, |kind| runtime::doubts(&read.semantic, kind))),
        }
    }

    fn faults<'a>(errors: impl Iterator<Item = &'a OxcDiagnostic>) -> Option<Faults> {
        let faults = errors.map(|error| Wrong {
            message: error.message.to_string(),
            advice: error.help.as_ref().map(ToString::to_string),
            span: span(error),
        });
        let mut faults: Vec<Wrong> = faults.collect();
        faults.sort_by_key(|fault| fault.span.start);
        // What is said of one place a second time follows from the first.
        faults.dedup_by_key(|fault| fault.span.start);
        let mut faults = faults.into_iter();
        let first = faults.next()?;
        let others = faults.collect();
        Some(Faults { first, others })
    }

    /// The last label of an error: where there are several, the earlier ones name what it is in conflict with.
    fn span(error: &OxcDiagnostic) -> Span {
        let spans = error.labels.iter().map(|label| {
            let start = label.offset();
            (start, start.saturating_add(label.len()))
        });
        let (start, end) = spans.max().unwrap_or((0, 0));
        Span::new(start, end)
    }

    fn error(source: &str, file: &Path, faults: Faults) -> SyntaxError {
        let Faults { first, others } = faults;
        let unshown = others.len().saturating_sub(MAX_ALSO);
        let also = others.into_iter().take(MAX_ALSO).map(|fault| Fault {
            message: fault.message,
            place: place(source, file, fault.span),
        });
        SyntaxError {
            message: first.message,
            advice: first.advice,
            place: Box::new(place(source, file, first.span)),
            also: also.collect(),
            unshown,
        }
    }

    fn place(source: &str, file: &Path, span: Span) -> Place {
        let start = source.floor_char_boundary(span.start as usize);
        let end = source.ceil_char_boundary(span.end as usize).max(start);
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
        check(source, Path::new("/p/index.js"), None).map(|_| ())
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
            "a?.b ?? /[/(]/u",
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
            ("let ok = 1;\nlet re = /(/;\n", 2, 11, 1),
            ("let twice = /(?<n>a)(?<n>b)/;", 1, 24, 1),
            ("let set = /[z-a]/;", 1, 14, 2),
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
