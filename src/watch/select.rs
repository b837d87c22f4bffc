//! Which paths count, and why: entries always do, and of the rest what no ignore rule names.
//!
//! It is handed the text of the ignore files and reads none itself.
//!
//! Rules are applied as git applies them: of the rules in one file the last one wins, those of a deeper directory win
//! over those above it, and what lies in an ignored directory is ignored whatever else names it. Of the kinds of rules
//! each wins over all before it: what is built in, `.gitignore`, `.erignore`, the configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::Target;
use crate::config::Pattern;
use crate::routine::RoutineName;

/// The ignore files of a directory, in the order in which later ones win.
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
    /// It is an entry, whatever ignore rules say.
    Entry {
        /// The routines it is the entry of.
        routines: Vec<RoutineName>,
        /// The rule that would leave it out if it were none.
        despite: Option<Rule>,
    },
    /// The entry of these routines is a link that leads to it. Only a look at the disk tells that, so
    /// [`Select::verdict`] never says it.
    Target(Vec<RoutineName>),
    /// A rule leaves it out.
    Ignored(Rule),
    /// It is none of these.
    Other {
        /// The negated rule that keeps it from being left out, if one does.
        kept: Option<Rule>,
    },
}

/// An ignore rule that decided about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The rule as it is written; a negated one begins with `!`.
    pub pattern: String,
    /// Where it stands.
    pub origin: Origin,
    /// What it matches: the path that is judged, or a directory on the way there.
    pub names: PathBuf,
}

/// Where an ignore rule stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In er-dev itself.
    BuiltIn,
    /// In an ignore file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// In `watch.ignore` of the configuration.
    Config {
        /// The line, counted from 1.
        line: usize,
    },
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
    roots: Vec<(PathBuf, Rules)>,
}

/// The rules of one directory and of those above it, the strongest last.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    layers: Vec<Arc<Layer>>,
}

/// The rules of one place, which hold for what is beneath one directory.
#[derive(Debug)]
struct Layer {
    directory: PathBuf,
    place: Place,
    globs: Gitignore,
}

#[derive(Debug)]
enum Place {
    BuiltIn,
    File(PathBuf),
    Config,
}

impl Select {
    /// Builds the rules: of each root the ignore files that hold for it or something in it, with their text, then
    /// `patterns` of the configuration.
    ///
    /// A line of an ignore file that is no pattern is passed over, as git does; one of `patterns` is an error.
    pub fn new(
        targets: &[Target],
        roots: Vec<(PathBuf, Vec<(PathBuf, String)>)>,
        patterns: &[Pattern],
    ) -> Result<Self, PatternError> {
        let mut entries = HashMap::<_, Vec<_>>::new();
        for target in targets {
            let names = entries.entry(target.entry.clone()).or_default();
            names.push(target.routine.clone());
        }
        let mut built = Vec::new();
        for (root, files) in roots {
            let rules = Rules::new(&root, patterns)?.with(files);
            built.push((root, rules));
        }
        Ok(Self {
            entries,
            roots: built,
        })
    }

    /// Judges the absolute path of a file.
    pub fn verdict(&self, path: &Path) -> Verdict {
        self.judge(path, false)
    }

    /// Judges the absolute path of a directory, which rules that end in `/` name, too.
    pub fn verdict_of_directory(&self, path: &Path) -> Verdict {
        self.judge(path, true)
    }

    fn judge(&self, path: &Path, is_directory: bool) -> Verdict {
        // The innermost root knows best.
        let within = self.roots.iter().filter(|(root, _)| path.starts_with(root));
        let root = within.max_by_key(|(root, _)| root.as_os_str().len());
        let judged = root.map(|(_, rules)| rules.judge(path, is_directory));
        let (ignored, kept) = judged.unwrap_or_default();
        match (self.entries.get(path), ignored) {
            (Some(routines), despite) => Verdict::Entry {
                routines: routines.clone(),
                despite,
            },
            (None, Some(rule)) => Verdict::Ignored(rule),
            (None, None) => Verdict::Other { kept },
        }
    }
}

impl Rules {
    /// No rules at all.
    pub(super) fn none() -> Self {
        Self { layers: Vec::new() }
    }

    /// What is built in and what the configuration says of what is beneath a directory.
    pub(super) fn new(root: &Path, patterns: &[Pattern]) -> Result<Self, PatternError> {
        let mut builder = GitignoreBuilder::new(root);
        for pattern in BUILT_IN {
            let added = builder.add_line(None, pattern);
            added.map_err(|error| refused(pattern, &error))?;
        }
        let built_in = Layer::new(root, Place::BuiltIn, &builder)?;
        let mut builder = GitignoreBuilder::new(root);
        for pattern in patterns {
            let added = builder.add_line(tag(pattern.line), &pattern.text);
            added.map_err(|error| refused(&pattern.text, &error))?;
        }
        let config = Layer::new(root, Place::Config, &builder)?;
        Ok(Self {
            layers: vec![Arc::new(built_in), Arc::new(config)],
        })
    }

    /// The same with some ignore files and their text.
    pub(super) fn with(&self, files: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let mut layers = self.layers.clone();
        for (file, text) in files {
            let Some(directory) = file.parent() else {
                continue;
            };
            let mut builder = GitignoreBuilder::new(directory);
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            for (number, line) in (1..).zip(text.lines()) {
                let _ = builder.add_line(tag(number), line);
            }
            let layer = Layer::new(directory, Place::File(file.clone()), &builder);
            layers.extend(layer.map(Arc::new));
        }
        layers.sort_by_key(|layer| layer.strength());
        Self { layers }
    }

    /// The rule that ignores a path by its own name, whatever becomes of the directories it is in.
    pub(super) fn ignores(&self, path: &Path, is_directory: bool) -> Option<Rule> {
        let decided = self.decides(path, is_directory);
        decided.and_then(|(rule, ignores)| ignores.then_some(rule))
    }

    /// The rule that ignores a path, else the last negated one that keeps it or a directory it is in.
    fn judge(&self, path: &Path, is_directory: bool) -> (Option<Rule>, Option<Rule>) {
        let mut steps: Vec<&Path> = path.ancestors().collect();
        steps.reverse();
        let mut kept = None;
        for step in steps {
            match self.decides(step, is_directory || step != path) {
                // Git does not look into an ignored directory.
                Some((rule, true)) => return (Some(rule), None),
                Some((rule, false)) => kept = Some(rule),
                None => {}
            }
        }
        (None, kept)
    }

    fn decides(&self, path: &Path, is_directory: bool) -> Option<(Rule, bool)> {
        let mut strongest_first = self.layers.iter().rev();
        strongest_first.find_map(|layer| layer.decides(path, is_directory))
    }
}

impl Layer {
    fn new(
        directory: &Path,
        place: Place,
        builder: &GitignoreBuilder,
    ) -> Result<Self, PatternError> {
        Ok(Self {
            directory: directory.to_path_buf(),
            place,
            globs: builder.build().map_err(|error| refused("all", &error))?,
        })
    }

    /// Its place in the order in which later ones win: its kind, then how deep it lies.
    fn strength(&self) -> (usize, usize) {
        let kind = match &self.place {
            Place::BuiltIn => 0,
            Place::File(file) => {
                let kind = IGNORE_FILES.iter().position(|name| file.ends_with(name));
                1 + kind.unwrap_or_default()
            }
            Place::Config => 1 + IGNORE_FILES.len(),
        };
        (kind, self.directory.components().count())
    }

    /// The last rule here that matches a path, and whether it ignores it.
    fn decides(&self, path: &Path, is_directory: bool) -> Option<(Rule, bool)> {
        if !path.starts_with(&self.directory) || path == self.directory {
            return None;
        }
        let (glob, ignores) = match self.globs.matched(path, is_directory) {
            Match::Ignore(glob) => (glob, true),
            Match::Whitelist(glob) => (glob, false),
            Match::None => return None,
        };
        let line = || {
            let tag = glob.from().and_then(Path::to_str);
            tag.and_then(|tag| tag.parse().ok()).unwrap_or_default()
        };
        let rule = Rule {
            pattern: glob.original().to_owned(),
            origin: match &self.place {
                Place::BuiltIn => Origin::BuiltIn,
                Place::File(path) => Origin::File {
                    path: path.clone(),
                    line: line(),
                },
                Place::Config => Origin::Config { line: line() },
            },
            names: path.to_path_buf(),
        };
        Some((rule, ignores))
    }
}

/// A glob remembers the file it is from and not the line. As a layer knows its file, the line is put there.
fn tag(line: usize) -> Option<PathBuf> {
    Some(PathBuf::from(line.to_string()))
}

fn refused(pattern: &str, error: &ignore::Error) -> PatternError {
    PatternError {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> RoutineName {
        RoutineName::new("hello").unwrap()
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        let pattern = |(line, text): (usize, &&str)| Pattern {
            text: (*text).into(),
            line,
        };
        (1..).zip(texts).map(pattern).collect()
    }

    /// The root is `/p/dist`, and `/p` is the top of its repository.
    fn with(files: &[(&str, &str)], texts: &[&str]) -> Select {
        let target = Target {
            routine: hello(),
            entry: "/p/dist/index.js".into(),
            root: "/p/dist".into(),
            check: true,
            follow: false,
            glob: None,
        };
        let files = files.iter();
        let files = files.map(|(file, text)| (Path::new("/p").join(file), (*text).into()));
        let roots = vec![("/p/dist".into(), files.collect())];
        Select::new(&[target], roots, &patterns(texts)).unwrap()
    }

    fn select(gitignore: &str, erignore: &str, texts: &[&str]) -> Select {
        let files = [("dist/.gitignore", gitignore), ("dist/.erignore", erignore)];
        with(&files, texts)
    }

    fn verdict(select: &Select, name: &str) -> Verdict {
        let path = Path::new("/p/dist").join(name.trim_end_matches('/'));
        if name.ends_with('/') {
            select.verdict_of_directory(&path)
        } else {
            select.verdict(&path)
        }
    }

    fn ignored(select: &Select, name: &str) -> bool {
        matches!(verdict(select, name), Verdict::Ignored(_))
    }

    /// The rule that ignores or keeps a path, as `pattern file:line`.
    fn why(select: &Select, name: &str) -> String {
        let (word, rule) = match verdict(select, name) {
            Verdict::Ignored(rule) => ("ignored", rule),
            Verdict::Other { kept: Some(rule) } => ("kept", rule),
            other => return format!("{other:?}"),
        };
        let place = match rule.origin {
            Origin::BuiltIn => "built in".into(),
            Origin::File { path, line } => format!("{}:{line}", path.display()),
            Origin::Config { line } => format!("config:{line}"),
        };
        format!("{word} {} {place} {}", rule.pattern, rule.names.display())
    }

    #[test]
    fn an_entry_counts_even_when_a_rule_names_it() {
        let select = select("*\n", "index.js", &["*.js"]);
        let Verdict::Entry { routines, despite } = verdict(&select, "index.js") else {
            panic!("it is none");
        };
        assert_eq!(routines, [hello()]);
        assert_eq!(despite.unwrap().origin, Origin::Config { line: 1 });
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
    fn later_rules_win_and_the_reason_names_the_rule_and_its_line() {
        let select = select(
            "# maps\n\n*.map\r\n[z-a\n",
            "\u{feff}!keep.map\n",
            &["keep.*", "!a.map"],
        );
        let table = [
            ("keep.map", "ignored keep.* config:1"),
            ("a.map", "kept !a.map config:2"),
            ("b.map", "ignored *.map /p/dist/.gitignore:3"),
            ("4913", "ignored 4913 built in"),
        ];
        for (name, reason) in table {
            assert_eq!(why(&select, name), format!("{reason} /p/dist/{name}"));
        }
    }

    #[test]
    fn of_a_rule_that_stands_twice_the_later_line_is_the_reason() {
        let select = select("*.map\n!*.map\n*.map\n", "", &[]);
        let reason = "ignored *.map /p/dist/.gitignore:3 /p/dist/a.map";
        assert_eq!(why(&select, "a.map"), reason);
    }

    #[test]
    fn a_deeper_file_wins_over_one_above_it() {
        let files = [
            ("dist/sub/deep/.gitignore", "a.txt\n"),
            ("dist/sub/.gitignore", "!*.txt\n/one.js\n"),
            ("dist/.gitignore", "*.txt\n"),
            (".gitignore", "*.log\n/dist/two.js\ntwo.js/\n"),
        ];
        let select = with(&files, &[]);
        let table = [
            ("a.txt", "ignored *.txt /p/dist/.gitignore:1"),
            ("sub/a.txt", "kept !*.txt /p/dist/sub/.gitignore:1"),
            (
                "sub/deep/a.txt",
                "ignored a.txt /p/dist/sub/deep/.gitignore:1",
            ),
            ("sub/one.js", "ignored /one.js /p/dist/sub/.gitignore:2"),
            ("sub/deep/a.log", "ignored *.log /p/.gitignore:1"),
            ("two.js", "ignored /dist/two.js /p/.gitignore:2"),
        ];
        for (name, reason) in table {
            assert_eq!(why(&select, name), format!("{reason} /p/dist/{name}"));
        }
        for name in ["one.js", "sub/deep/one.js", "sub/two.js"] {
            assert_eq!(verdict(&select, name), Verdict::Other { kept: None });
        }
    }

    #[test]
    fn what_lies_in_an_ignored_directory_stays_ignored() {
        let files = [("dist/.gitignore", "out/\n!out/keep.js\n")];
        let select = with(&files, &["!*.js"]);
        let reason = "ignored out/ /p/dist/.gitignore:1 /p/dist/out";
        assert_eq!(why(&select, "out/keep.js"), reason);
        assert_eq!(why(&select, "out/a/b.js"), reason);
        assert_eq!(why(&select, "out/"), reason);
        // A file of that name is no directory.
        assert_eq!(verdict(&select, "out"), Verdict::Other { kept: None });
    }

    #[test]
    fn a_root_that_is_ignored_as_a_whole_keeps_its_entry() {
        let select = with(&[(".gitignore", "/dist\n")], &[]);
        let reason = "ignored /dist /p/.gitignore:1 /p/dist";
        assert_eq!(why(&select, "other.js"), reason);
        let entry = verdict(&select, "index.js");
        assert!(matches!(
            entry,
            Verdict::Entry {
                despite: Some(_),
                ..
            }
        ));
    }

    #[test]
    fn a_directory_that_a_negated_rule_keeps_is_the_reason_for_what_is_in_it() {
        let select = select("/*\n!/src/\nsrc/*.map\n", "", &[]);
        let reason = "kept !/src/ /p/dist/.gitignore:2 /p/dist/src";
        assert_eq!(why(&select, "src/a.js"), reason);
        assert!(ignored(&select, "src/a.map"));
        assert!(ignored(&select, "lib/a.js"));
    }

    #[test]
    fn one_kind_of_rules_wins_over_the_kinds_before_it_at_any_depth() {
        let files = [
            ("dist/sub/.gitignore", "*\n"),
            ("dist/.erignore", "!a.js\n"),
            ("dist/.gitignore", "!node_modules/\n"),
        ];
        let select = with(&files, &["b.js"]);
        assert!(why(&select, "sub/a.js").starts_with("kept !a.js /p/dist/.erignore:1"));
        assert!(why(&select, "b.js").starts_with("ignored b.js config:1"));
        assert!(why(&select, "node_modules/x/c.js").starts_with("kept !node_modules/"));
    }

    #[test]
    fn paths_outside_of_every_root_are_nothing() {
        assert_eq!(
            select("*", "", &["*"]).verdict(Path::new("/q/a.js")),
            Verdict::Other { kept: None }
        );
    }

    #[test]
    fn a_pattern_of_the_configuration_that_is_none_is_an_error() {
        let roots = vec![("/p".into(), vec![])];
        let error = Select::new(&[], roots, &patterns(&["[z-a"])).unwrap_err();
        assert_eq!(error.pattern, "[z-a");
    }
}
