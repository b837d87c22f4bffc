//! What a path is to er-dev, and why.
//!
//! The rules and the plan that are asked here are those of a watch, so that an explanation and what happens cannot
//! differ. The path may be missing; then the answer is what would hold if it were there.

use std::collections::HashSet;
use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::plan::Plan;
use super::select::{PatternError, Verdict};
use super::tree::Tree;
use super::{Inputs, Target, backend, snapshot};
use crate::config::{self, Backend, Glob, Pattern};
use crate::routine::RoutineName;

/// What is said of a path whose changes nobody would notice.
pub const NOT_WATCHED: &str = "not watched";

/// What a path is, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The path as the configuration would name it, absolute.
    pub path: PathBuf,
    /// What is there; `None` if nothing is.
    pub kind: Option<Kind>,
    /// Where it leads, if it is a symbolic link or lies behind one.
    pub real: Option<Real>,
    /// What it is to er-dev.
    pub verdict: Verdict,
    /// The patterns that make it an input of builds, with the numbers of these.
    pub inputs: Vec<(usize, Pattern)>,
    /// The numbers of the patterns of entries that it fits.
    pub fits: Vec<usize>,
    /// The routines in whose root it lies, or whose root it is.
    pub routines: Vec<RoutineName>,
    /// The routines whose entry lies beneath it.
    pub holds: Vec<RoutineName>,
    /// How changes there would be noticed by a watch that starts now and meets no limit, or [`NOT_WATCHED`].
    pub backend: &'static str,
}

/// Where symbolic links lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Real {
    /// The end of all links; where there is none, what the link itself says.
    pub path: PathBuf,
    /// What is there; `None` if the links end nowhere.
    pub kind: Option<Kind>,
}

/// What there can be at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, a socket or a device.
    Special,
    /// The system does not let this user look.
    Unknown,
}

impl Kind {
    /// The same in words, with their article.
    pub fn words(self) -> &'static str {
        match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Link => "a symbolic link",
            Self::Special => "no plain file",
            Self::Unknown => "in a directory that may not be looked into",
        }
    }
}

/// Explains paths, of which relative ones begin at `here`.
pub fn explain(
    targets: &[Target],
    inputs: &[Inputs],
    globs: &[Glob],
    watch: &config::Watch,
    paths: &[PathBuf],
    here: &Path,
) -> Result<Vec<Explanation>, PatternError> {
    // Markers of a watch are beside the point here, so there is no directory for them.
    let mut plan = Plan::default();
    for (routine, target) in targets.iter().enumerate() {
        plan.add(routine, target);
    }
    let nowhere = Path::new("");
    let mut trees = Trees::default();
    for inputs in inputs {
        let tree = Tree::new(&inputs.dir, &inputs.patterns, &watch.ignore, nowhere)?;
        trees.inputs.push((inputs.build, tree));
    }
    for glob in globs {
        let tree = Tree::of_entries(glob, &watch.ignore, nowhere)?;
        trees.entries.push(tree);
    }
    let explain = |path: &PathBuf| explain_one(targets, &trees, watch, &plan, path, here);
    paths.iter().map(explain).collect()
}

/// What patterns name.
#[derive(Default)]
struct Trees {
    /// The inputs of builds, with the numbers of these.
    inputs: Vec<(usize, Tree)>,
    /// Entries.
    entries: Vec<Tree>,
}

fn explain_one(
    targets: &[Target],
    trees: &Trees,
    watch: &config::Watch,
    plan: &Plan,
    given: &Path,
    here: &Path,
) -> Result<Explanation, PatternError> {
    let path = as_configured(config::absolute(given, here), targets);
    let kind = kind(&path);
    let named_as_directory = given.as_os_str().as_bytes().ends_with(b"/");
    let is_directory = kind == Some(Kind::Directory) || (kind.is_none() && named_as_directory);
    let select = snapshot::select(targets, &HashSet::from([path.as_path()]), &watch.ignore)?;
    let mut verdict = if is_directory {
        select.verdict_of_directory(&path)
    } else {
        select.verdict(&path)
    };
    let is_entry = matches!(verdict, Verdict::Entry { .. });
    let leads_here = place(&path).and_then(|place| plan.entries.get(&place));
    if let Some(leads_here) = leads_here.filter(|_| !is_entry) {
        verdict = Verdict::Target(names(targets, |at, _| leads_here.contains(&at)));
    }
    let mut inputs = Vec::new();
    for (build, tree) in &trees.inputs {
        match (tree.verdict(&path, is_directory), &verdict) {
            (Some(Ok(pattern)), _) => inputs.push((*build, pattern)),
            (Some(Err(rule)), Verdict::Other { .. }) => verdict = Verdict::Ignored(rule),
            _ => {}
        }
    }
    let mut fits = Vec::new();
    for (number, tree) in trees.entries.iter().enumerate().filter(|_| !is_directory) {
        match (tree.verdict(&path, false), &verdict) {
            (Some(Ok(_)), _) => fits.push(number),
            (Some(Err(rule)), Verdict::Other { .. }) => verdict = Verdict::Ignored(rule),
            _ => {}
        }
    }
    let backend = match inputs.is_empty() && fits.is_empty() {
        true => means(plan, &path, is_entry, watch.backend),
        false => backend::of(&path, watch.backend).name(),
    };
    Ok(Explanation {
        kind,
        inputs,
        fits,
        backend,
        real: real(&path),
        verdict,
        routines: names(targets, |_, target| path.starts_with(&target.root)),
        holds: names(targets, |_, target| {
            target.entry != path && target.entry.starts_with(&path)
        }),
        path,
    })
}

fn names(targets: &[Target], wanted: impl Fn(usize, &Target) -> bool) -> Vec<RoutineName> {
    let targets = targets.iter().enumerate();
    let wanted = targets.filter(|(at, target)| wanted(*at, target));
    wanted.map(|(_, target)| target.routine.clone()).collect()
}

/// The name that a path has beneath a root, where it is given by another one: a root may lie behind a link.
fn as_configured(path: PathBuf, targets: &[Target]) -> PathBuf {
    let lies_in = |target: &Target| path.starts_with(&target.root);
    if targets.iter().any(lies_in) {
        return path;
    }
    let beneath = |target: &Target| {
        let inside = place(&path)?;
        let inside = inside.strip_prefix(target.root.canonicalize().ok()?).ok()?;
        Some(config::absolute(inside, &target.root))
    };
    targets.iter().find_map(beneath).unwrap_or(path)
}

/// The place that a path names, with the links on the way there followed as far as the way exists, and a link there not.
fn place(path: &Path) -> Option<PathBuf> {
    let mut ways = path.ancestors().skip(1);
    let (way, real) = ways.find_map(|way| Some((way, way.canonicalize().ok()?)))?;
    Some(real.join(path.strip_prefix(way).ok()?))
}

/// How changes at a path are noticed. A watch goes by the directory it is in; of an entry whose directory is missing,
/// by the nearest one that exists.
fn means(plan: &Plan, path: &Path, is_entry: bool, setting: Backend) -> &'static str {
    let mut ways = path.ancestors().skip(1).map(Path::canonicalize);
    let way = if is_entry {
        ways.find_map(Result::ok)
    } else {
        ways.next().and_then(Result::ok)
    };
    let watched = way.is_some_and(|way| plan.directories.contains_key(&way));
    if watched {
        backend::of(path, setting).name()
    } else {
        NOT_WATCHED
    }
}

fn kind(path: &Path) -> Option<Kind> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Some(of_type(metadata.file_type())),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Some(Kind::Unknown),
        Err(_) => None,
    }
}

fn of_type(kind: FileType) -> Kind {
    if kind.is_file() {
        Kind::File
    } else if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Link
    } else {
        Kind::Special
    }
}

fn real(path: &Path) -> Option<Real> {
    match path.canonicalize() {
        Ok(real) if real == path => None,
        Ok(real) => Some(Real {
            kind: kind(&real),
            path: real,
        }),
        Err(_) => Some(Real {
            path: config::absolute(&fs::read_link(path).ok()?, path.parent()?),
            kind: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;
    use crate::watch::tests::directory;

    fn target(name: &str, entry: PathBuf) -> Target {
        Target {
            routine: RoutineName::new(name).unwrap(),
            root: entry.parent().unwrap().to_path_buf(),
            entry,
            check: true,
            follow: false,
            glob: None,
        }
    }

    fn one(targets: &[Target], path: &str, here: &Path) -> Explanation {
        with_inputs(targets, &[], path, here)
    }

    fn with_inputs(targets: &[Target], inputs: &[Inputs], path: &str, here: &Path) -> Explanation {
        let watch = config::Watch {
            debounce: Duration::ZERO,
            max_wait: Duration::ZERO,
            rescan: Duration::ZERO,
            // Whatever file system the tests run on.
            backend: Backend::Native,
            poll_interval: Duration::ZERO,
            ignore: Vec::new(),
        };
        let explained = explain(targets, inputs, &[], &watch, &[path.into()], here).unwrap();
        explained.into_iter().next().unwrap()
    }

    #[test]
    fn a_path_by_its_real_name_is_the_entry_that_the_configuration_names_behind_a_link() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("releases/1")).unwrap();
        symlink("releases/1", base.join("current")).unwrap();
        let targets = [target("hello", base.join("current/index.js"))];
        for path in [
            "current/index.js",
            "releases/1/index.js",
            "x/../releases/1/index.js",
        ] {
            let explained = one(&targets, path, &base);
            assert_eq!(explained.path, targets[0].entry, "{path}");
            let verdict = explained.verdict;
            assert!(matches!(verdict, Verdict::Entry { .. }), "{verdict:?}");
            assert_eq!((explained.kind, explained.backend), (None, "inotify"));
        }
        fs::write(base.join("releases/1/index.js"), "1").unwrap();
        let real = one(&targets, "current/index.js", &base).real.unwrap();
        assert_eq!(real.path, base.join("releases/1/index.js"));
    }

    #[test]
    fn an_entry_whose_directory_is_missing_is_watched_for_and_what_else_may_be_there_is_not() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        let targets = [target("hello", base.join("a/b/index.js"))];
        assert_eq!(one(&targets, "a/b/index.js", &base).backend, "inotify");
        assert_eq!(one(&targets, "a/b/c.js", &base).backend, "not watched");
    }

    #[test]
    fn an_input_is_told_with_its_pattern_and_one_that_is_ignored_with_the_rule() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        // Otherwise it lies in the repository that the tests are built in.
        fs::create_dir(base.join(".git")).unwrap();
        fs::write(base.join(".gitignore"), "gen/\ndist/\n").unwrap();
        let pattern = |text: &str, line| Pattern {
            text: text.into(),
            line,
        };
        let inputs = [Inputs {
            build: 3,
            dir: base.clone(),
            patterns: vec![pattern("src", 5), pattern("dist/a.json", 6)],
        }];
        let told = |path| with_inputs(&[], &inputs, path, &base);
        assert_eq!(told("src/a.ts").inputs, [(3, pattern("src", 5))]);
        assert_eq!(told("dist/a.json").inputs, [(3, pattern("dist/a.json", 6))]);
        assert_eq!(told("dist/b.json").inputs, []);
        let ignored = told("src/gen/a.ts");
        assert_eq!(ignored.inputs, []);
        let Verdict::Ignored(rule) = ignored.verdict else {
            panic!("{:?}", ignored.verdict);
        };
        assert_eq!(
            (rule.pattern.as_str(), rule.names),
            ("gen/", base.join("src/gen"))
        );
    }

    #[test]
    fn a_link_that_leads_nowhere_or_in_a_circle_is_told_with_what_it_says() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        symlink("../gone.js", base.join("index.js")).unwrap();
        symlink("circle.js", base.join("circle.js")).unwrap();
        let targets = [target("hello", base.join("index.js"))];
        let nowhere = |path| Some(Real { path, kind: None });
        let index = one(&targets, "index.js", &base);
        assert_eq!(index.kind, Some(Kind::Link));
        assert_eq!(index.real, nowhere(base.parent().unwrap().join("gone.js")));
        let circle = one(&targets, "circle.js", &base);
        assert_eq!(circle.real, nowhere(base.join("circle.js")));
    }

    #[test]
    fn a_missing_path_is_a_directory_if_its_name_ends_in_a_slash() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        fs::write(base.join(".gitignore"), "out/\n").unwrap();
        // Otherwise it lies in the repository that the tests are built in.
        fs::create_dir(base.join(".git")).unwrap();
        let targets = [target("hello", base.join("index.js"))];
        let ignored = |path| matches!(one(&targets, path, &base).verdict, Verdict::Ignored(_));
        assert!(ignored("out/") && ignored("out/a.js"));
        assert!(!ignored("out"));
        fs::create_dir(base.join("out")).unwrap();
        assert!(ignored("out"));
    }
}
