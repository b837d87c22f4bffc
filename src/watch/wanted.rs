//! Which files of a directory tree are wanted: those that a list of paths and patterns names.
//!
//! A path names a file, or a directory with all that is in it. In a pattern `*` stays within one name, `**` stands for
//! any number of directories, and `?`, `[...]` and `{a,b}` are what they are in a shell; a directory that it matches is
//! meant with all that is in it, too. After a `!` either one takes files out again. The last one that names a file
//! decides. What is written letter for letter counts whatever ignore rules say; for what wildcards match they hold.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::select::PatternError;
use crate::config::{self, Pattern};

/// Paths and patterns, relative to one directory.
#[derive(Debug)]
pub(super) struct Wanted {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    pattern: Pattern,
    /// What is written letter for letter, absolute.
    base: PathBuf,
    /// What follows it.
    glob: Option<Glob>,
    /// It takes out what it names.
    negated: bool,
    /// A directory that it fits is not meant with all that is in it.
    exact: bool,
}

#[derive(Debug)]
struct Glob {
    matcher: GlobMatcher,
    /// How many names it is made of, if it fits no deeper path.
    depth: Option<usize>,
}

impl Wanted {
    /// Reads patterns, of which relative ones begin at `dir`.
    pub(super) fn new(dir: &Path, patterns: &[Pattern]) -> Result<Self, PatternError> {
        let parts = patterns.iter().map(|pattern| Part::new(dir, pattern));
        Ok(Self {
            parts: parts.collect::<Result<_, _>>()?,
        })
    }

    /// Reads one pattern that names nothing but the files that fit it.
    pub(super) fn exactly(dir: &Path, pattern: &Pattern) -> Result<Self, PatternError> {
        let part = Part::new(dir, pattern)?;
        Ok(Self {
            parts: vec![Part {
                exact: true,
                ..part
            }],
        })
    }

    /// Where to look for what is wanted: files, or the tops of trees.
    pub(super) fn bases(&self) -> impl Iterator<Item = &Path> {
        let parts = self.parts.iter().filter(|part| !part.negated);
        parts.map(|part| part.base.as_path())
    }

    /// The innermost base that a path is, or lies beneath.
    pub(super) fn base_of(&self, path: &Path) -> Option<&Path> {
        let bases = self.bases().filter(|base| path.starts_with(base));
        bases.max_by_key(|base| base.as_os_str().len())
    }

    /// What makes a file wanted, if anything does.
    pub(super) fn names(&self, path: &Path) -> Option<&Pattern> {
        let last = self.parts.iter().rev().find(|part| part.names(path))?;
        (!last.negated).then_some(&last.pattern)
    }

    /// Whether anything in a directory could be wanted.
    pub(super) fn reaches_into(&self, directory: &Path) -> bool {
        for part in self.parts.iter().rev() {
            match part.negated {
                true if part.names(directory) => return false,
                false if part.reaches_into(directory) => return true,
                _ => {}
            }
        }
        false
    }
}

impl Part {
    fn new(dir: &Path, pattern: &Pattern) -> Result<Self, PatternError> {
        let refused = |reason: String| PatternError {
            pattern: pattern.text.clone(),
            reason,
        };
        let (negated, text) = match pattern.text.strip_prefix('!') {
            Some(text) => (true, text),
            None => (false, pattern.text.as_str()),
        };
        if text.is_empty() {
            return Err(refused("it is empty".into()));
        }
        let (prefix, wild) = config::split(text);
        let mut glob = None;
        if !wild.is_empty() {
            let names: Vec<_> = wild.split('/').filter(|name| !name.is_empty()).collect();
            if names.contains(&"..") {
                return Err(refused("`..` cannot follow a wildcard".into()));
            }
            let wild = names.join("/");
            let mut builder = GlobBuilder::new(&wild);
            let built = builder.literal_separator(true).build();
            let built = built.map_err(|error| refused(error.kind().to_string()))?;
            // Alternatives may hold a `/`.
            let open = wild.contains("**") || wild.contains('{');
            glob = Some(Glob {
                matcher: built.compile_matcher(),
                depth: (!open).then_some(names.len()),
            });
        }
        Ok(Self {
            base: config::absolute(Path::new(prefix), dir),
            glob,
            negated,
            exact: false,
            pattern: pattern.clone(),
        })
    }

    fn names(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(&self.base) else {
            return false;
        };
        let Some(glob) = &self.glob else {
            return true;
        };
        if self.exact {
            return glob.matcher.is_match(inside);
        }
        let mut steps = inside.ancestors().filter(|it| !it.as_os_str().is_empty());
        steps.any(|step| glob.matcher.is_match(step))
    }

    fn reaches_into(&self, directory: &Path) -> bool {
        let Ok(inside) = directory.strip_prefix(&self.base) else {
            return false;
        };
        let depth = self.glob.as_ref().and_then(|glob| glob.depth);
        let deeper = depth.is_none_or(|depth| inside.components().count() < depth);
        deeper || !self.exact && self.names(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(texts: &[&str]) -> Wanted {
        let pattern = |(line, text): (usize, &&str)| Pattern {
            text: (*text).into(),
            line,
        };
        let patterns: Vec<_> = (1..).zip(texts).map(pattern).collect();
        Wanted::new(Path::new("/p"), &patterns).unwrap()
    }

    /// The line of the pattern that makes a path wanted.
    fn line(wanted: &Wanted, path: &str) -> Option<usize> {
        let pattern = wanted.names(Path::new(path));
        pattern.map(|pattern| pattern.line)
    }

    #[test]
    fn a_path_names_a_file_or_all_that_is_in_a_directory() {
        let wanted = wanted(&["src/", "./package.json", "../shared"]);
        let table = [
            ("/p/src/a.ts", Some(1)),
            ("/p/src/deep/er/a.ts", Some(1)),
            ("/p/package.json", Some(2)),
            ("/shared/a.ts", Some(3)),
            ("/p/srcs/a.ts", None),
            ("/p/sub/package.json", None),
        ];
        for (path, expected) in table {
            assert_eq!(line(&wanted, path), expected, "{path}");
        }
        let bases: Vec<_> = wanted.bases().collect();
        let expected = ["/p/src", "/p/package.json", "/shared"];
        assert_eq!(bases, expected.map(Path::new));
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_of_them_cross_directories() {
        let wanted = wanted(&["src/*.ts", "lib/**/*.ts", "img/*"]);
        let table = [
            ("/p/src/a.ts", Some(1)),
            ("/p/src/deep/a.ts", None),
            ("/p/lib/a.ts", Some(2)),
            ("/p/lib/deep/er/a.ts", Some(2)),
            ("/p/lib/a.js", None),
            ("/p/img/sub/a.png", Some(3)),
        ];
        for (path, expected) in table {
            assert_eq!(line(&wanted, path), expected, "{path}");
        }
        for (directory, expected) in [
            ("/p/src", true),
            ("/p/src/deep", false),
            ("/p/lib/deep/er", true),
            ("/p/img/sub/sub", true),
            ("/p", false),
        ] {
            let reaches = wanted.reaches_into(Path::new(directory));
            assert_eq!(reaches, expected, "{directory}");
        }
    }

    #[test]
    fn the_last_pattern_that_names_a_file_decides() {
        let wanted = wanted(&["src", "!src/gen", "src/gen/keep.ts", "!**/*.md"]);
        assert_eq!(line(&wanted, "/p/src/a.ts"), Some(1));
        assert_eq!(line(&wanted, "/p/src/gen/a.ts"), None);
        assert_eq!(line(&wanted, "/p/src/gen/keep.ts"), Some(3));
        assert_eq!(line(&wanted, "/p/src/a.md"), None);
        assert!(wanted.reaches_into(Path::new("/p/src/sub")));
        assert!(!wanted.reaches_into(Path::new("/p/src/gen")));
        let base = |path| wanted.base_of(Path::new(path));
        assert_eq!(base("/p/src/gen/a.ts"), Some(Path::new("/p/src")));
        let keep = "/p/src/gen/keep.ts";
        assert_eq!(base(keep), Some(Path::new(keep)));
    }

    #[test]
    fn a_pattern_of_entries_names_the_files_that_fit_and_nothing_beneath_them() {
        let pattern = |text: &str| Pattern {
            text: text.into(),
            line: 1,
        };
        let star = Wanted::exactly(Path::new("/p"), &pattern("edge/*")).unwrap();
        assert_eq!(line(&star, "/p/edge/a.js"), Some(1));
        assert_eq!(line(&star, "/p/edge/sub/a.js"), None);
        assert!(!star.reaches_into(Path::new("/p/edge/sub")));
        let deep = Wanted::exactly(Path::new("/p"), &pattern("edge/**/*.js")).unwrap();
        assert_eq!(line(&deep, "/p/edge/sub/er/a.js"), Some(1));
        assert_eq!(line(&deep, "/p/edge/a.js"), Some(1));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_text() {
        for text in ["", "!", "src/[z-a]", "src/*/../a"] {
            let pattern = Pattern {
                text: text.into(),
                line: 1,
            };
            let error = Wanted::new(Path::new("/p"), &[pattern]).unwrap_err();
            assert_eq!(error.pattern, text);
        }
    }
}
