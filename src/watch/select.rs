//! Which paths count, and why: entries always do, and of the rest what no ignore rule names.
//!
//! It is handed the text of the ignore files and reads none itself. With entries that are single files only entries
//! start anything; what else is there is only counted and explained.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::Target;
use crate::routine::RoutineName;

/// The ignore files of a root, in the order in which later ones win.
pub const IGNORE_FILES: [&str; 2] = [".gitignore", ".erignore"];

/// What is never code: other tools' directories, and what editors leave beside a file while they save it.
const BUILT_IN: [&str; 14] = [
    ".git",
    "node_modules",
    ".DS_Store",
    "4913",
    "*~",
    ".*.sw?",
    ".*.swpx",
    ".*.kate-swp",
    "*___jb_tmp___",
    "*___jb_old___",
    "sed[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z]",
    "\\#*#",
    ".#*",
    ".goutputstream-*",
];

/// What a path is to er-dev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the entry of these routines, whatever ignore rules say.
    Entry(Vec<RoutineName>),
    /// A rule leaves it out.
    Ignored {
        /// The rule and where it stands.
        why: String,
    },
    /// It is neither.
    Other,
}

/// An ignore pattern that is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not an ignore pattern: {reason}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The rules for all watched roots.
#[derive(Debug)]
pub struct Select {
    entries: HashMap<PathBuf, Vec<RoutineName>>,
    roots: Vec<(PathBuf, Gitignore)>,
}

impl Select {
    /// Builds the rules: of each root its ignore files with their text, then `patterns` of the configuration.
    ///
    /// A line of an ignore file that is no pattern is passed over, as git does; one of `patterns` is an error.
    pub fn new(
        targets: &[Target],
        roots: Vec<(PathBuf, Vec<(PathBuf, String)>)>,
        patterns: &[String],
    ) -> Result<Self, PatternError> {
        let mut entries = HashMap::<_, Vec<_>>::new();
        for target in targets {
            let names = entries.entry(target.entry.clone()).or_default();
            names.push(target.routine.clone());
        }
        let mut built = Vec::new();
        for (root, files) in roots {
            let rules = rules(&root, &files, patterns)?;
            built.push((root, rules));
        }
        Ok(Self {
            entries,
            roots: built,
        })
    }

    /// Judges the absolute path of a file.
    pub fn verdict(&self, path: &Path) -> Verdict {
        if let Some(names) = self.entries.get(path) {
            return Verdict::Entry(names.clone());
        }
        // The innermost root knows best.
        let within = self.roots.iter().filter(|(root, _)| path.starts_with(root));
        let Some((_, rules)) = within.max_by_key(|(root, _)| root.as_os_str().len()) else {
            return Verdict::Other;
        };
        match rules.matched_path_or_any_parents(path, false) {
            Match::Ignore(rule) => Verdict::Ignored {
                why: match rule.from() {
                    Some(file) => format!("`{}` in {}", rule.original(), file.display()),
                    None => format!("`{}`, which is built in", rule.original()),
                },
            },
            Match::None | Match::Whitelist(_) => Verdict::Other,
        }
    }
}

fn rules(
    root: &Path,
    files: &[(PathBuf, String)],
    patterns: &[String],
) -> Result<Gitignore, PatternError> {
    let refused = |pattern: &str, error: ignore::Error| PatternError {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    };
    // The last rule that matches wins, so what people wrote comes after what is built in.
    let mut builder = GitignoreBuilder::new(root);
    for pattern in BUILT_IN {
        let added = builder.add_line(None, pattern);
        added.map_err(|error| refused(pattern, error))?;
    }
    for (file, text) in files {
        for line in text.lines() {
            let _ = builder.add_line(Some(file.clone()), line);
        }
    }
    for pattern in patterns {
        let added = builder.add_line(Some(PathBuf::from("the configuration")), pattern);
        added.map_err(|error| refused(pattern, error))?;
    }
    builder.build().map_err(|error| refused("all", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(gitignore: &str, erignore: &str, patterns: &[&str]) -> Select {
        let target = Target {
            routine: RoutineName::new("hello").unwrap(),
            entry: "/p/dist/index.js".into(),
            root: "/p/dist".into(),
            check: true,
            follow: false,
        };
        let files = vec![
            ("/p/dist/.gitignore".into(), gitignore.into()),
            ("/p/dist/.erignore".into(), erignore.into()),
        ];
        let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        Select::new(&[target], vec![("/p/dist".into(), files)], &patterns).unwrap()
    }

    fn ignored(select: &Select, name: &str) -> bool {
        let verdict = select.verdict(&Path::new("/p/dist").join(name));
        matches!(verdict, Verdict::Ignored { .. })
    }

    #[test]
    fn an_entry_counts_even_when_a_rule_names_it() {
        let select = select("*\n", "index.js", &["*.js"]);
        assert_eq!(
            select.verdict(Path::new("/p/dist/index.js")),
            Verdict::Entry(vec![RoutineName::new("hello").unwrap()])
        );
        assert!(ignored(&select, "other.js"));
    }

    #[test]
    fn what_editors_leave_beside_a_file_is_ignored() {
        let select = select("", "", &[]);
        for name in [
            "4913",
            "index.js~",
            ".index.js.swp",
            ".index.js.swx",
            "index.js___jb_tmp___",
            "index.js___jb_old___",
            "sedAb3x9Z",
            "#index.js#",
            ".#index.js",
            ".git/index",
            "node_modules/a/b.js",
        ] {
            assert!(ignored(&select, name), "{name}");
        }
        for name in [
            "sedan1.js",
            "sedation",
            "a.js",
            ".env",
            "49130",
            "a#b.js",
            "git/a.js",
        ] {
            assert!(!ignored(&select, name), "{name}");
        }
    }

    #[test]
    fn later_rules_win_and_the_reason_names_the_rule() {
        let select = select("*.map\n[z-a\n", "!keep.map\n", &["keep.*", "!a.map"]);
        assert!(ignored(&select, "keep.map"));
        assert!(ignored(&select, "b.map"));
        assert!(!ignored(&select, "a.map"));
        assert_eq!(
            select.verdict(Path::new("/p/dist/b.map")),
            Verdict::Ignored {
                why: "`*.map` in /p/dist/.gitignore".into()
            }
        );
    }

    #[test]
    fn paths_outside_of_every_root_are_nothing() {
        assert_eq!(
            select("*", "", &[]).verdict(Path::new("/q/a.js")),
            Verdict::Other
        );
    }

    #[test]
    fn a_pattern_of_the_configuration_that_is_none_is_an_error() {
        let error = Select::new(&[], vec![("/p".into(), vec![])], &["[z-a".into()]).unwrap_err();
        assert_eq!(error.pattern, "[z-a");
    }
}
