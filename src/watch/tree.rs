//! One directory tree: what is known of the files in it that are wanted, and how they differ from that by now.
//!
//! Of a file no more is kept than three numbers, since there may be a hundred thousand of them: its name, its stat key and,
//! once it had to be read, its bytes, each as a hash. So a tree can say which files changed or came, but of one that is
//! gone only the directory, unless an event has told its name.
//!
//! Links to directories are not followed below the top of a tree, so that none is walked in a circle; links to files are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File as Handle, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};

use super::plan::{End, Plan};
use super::select::{IGNORE_FILES, PatternError, Rule, Rules};
use super::snapshot::{self, StatKey};
use super::wanted::Wanted;
use crate::config::{Glob, Pattern};

/// The largest file that is read to see whether it changed, in bytes. Of a larger one a new stat key is a change.
const MAX_READ: u64 = 16 * 1024 * 1024;

/// How many names of one directory are remembered as stirred; of more of them all are looked at.
const MAX_NAMES: usize = 64;

/// Of how many directories the rules are kept between two walks.
const MAX_RULES: usize = 32;

/// A tree, or several that belong together.
#[derive(Debug)]
pub(super) struct Tree {
    /// What relative patterns, and told paths, are relative to.
    dir: PathBuf,
    wanted: Wanted,
    /// Where the rules of the configuration begin, the innermost last.
    roots: Vec<(PathBuf, Rules)>,
    /// The directories, by the paths that their events carry.
    places: HashMap<PathBuf, Place>,
    /// Where links lead that are wanted files, with their directories and names.
    links: HashMap<PathBuf, Vec<(PathBuf, OsString)>>,
    /// Where files may be other than was told.
    stirred: HashMap<PathBuf, Stirred>,
    rules: HashMap<PathBuf, Rules>,
    /// er-dev's own directory, which is part of no tree.
    private: PathBuf,
    /// Only which files there are matters, and not what they hold.
    names_only: bool,
}

/// What is known of one directory.
#[derive(Debug, Default)]
struct Place {
    /// The directory as the configuration would name it.
    shown: PathBuf,
    /// Everything in it that is wanted counts, and not only what is named letter for letter.
    whole: bool,
    /// The names of files that are named letter for letter, each with the path that it is named by.
    named: Vec<(OsString, PathBuf)>,
    /// As was told last, by their names' hashes.
    files: Vec<File>,
    /// It was not found any more.
    gone: bool,
}

/// What is known of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct File {
    name: u64,
    /// Its stat key; 0 if a later write could leave the same one.
    key: u64,
    /// Its bytes; 0 if they were not read.
    bytes: u64,
}

/// What may be other than was told in one directory.
#[derive(Debug)]
enum Stirred {
    Names(HashSet<OsString>),
    All,
}

/// A directory that a walk has still to visit.
#[derive(Debug)]
pub(super) struct Visit {
    /// Where it is.
    pub(super) path: PathBuf,
    shown: PathBuf,
    rules: Rules,
    whole: bool,
    named: Vec<(OsString, PathBuf)>,
}

/// What a visit has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Directories to visit.
    pub(super) visits: Vec<Visit>,
    /// Directories that linked files are in.
    pub(super) linked: Vec<PathBuf>,
}

/// What there is in a directory.
enum Kind {
    File(StatKey),
    /// A link that leads to a file.
    Link(StatKey),
    Directory,
}

/// How many files, of how many bytes, are read on the first walk so that a touch of one of them tells nothing.
#[derive(Debug)]
pub(super) struct Budget {
    files: u32,
    bytes: u64,
}

/// What an event means to a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// Nothing.
    Nothing,
    /// A file may have changed.
    File,
    /// There may be other directories or rules now, so that the tree has to be walked.
    Walk,
}

/// How a tree differs from what was told.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// What changed, came or went, relative to the tree's directory where it lies there.
    pub(super) paths: BTreeSet<PathBuf>,
    places: Vec<(PathBuf, Vec<File>)>,
}

impl Tree {
    /// A tree of what these patterns name, of which relative ones begin at `dir`.
    pub(super) fn new(
        dir: &Path,
        patterns: &[Pattern],
        ignore: &[Pattern],
        private: &Path,
    ) -> Result<Self, PatternError> {
        Self::of(Wanted::new(dir, patterns)?, dir, ignore, private)
    }

    /// A tree of the files that fit a pattern, whatever they hold.
    pub(super) fn of_entries(
        glob: &Glob,
        ignore: &[Pattern],
        private: &Path,
    ) -> Result<Self, PatternError> {
        let wanted = Wanted::exactly(glob.dir(), &glob.pattern)?;
        Ok(Self {
            names_only: true,
            ..Self::of(wanted, glob.dir(), ignore, private)?
        })
    }

    fn of(
        wanted: Wanted,
        dir: &Path,
        ignore: &[Pattern],
        private: &Path,
    ) -> Result<Self, PatternError> {
        let private = private.canonicalize();
        let outside = wanted.bases().filter(|base| !base.starts_with(dir));
        let mut roots: Vec<_> = outside.chain([dir]).collect();
        roots.sort_by_key(|root| root.as_os_str().len());
        let roots = roots.into_iter();
        let roots = roots.map(|root| Ok((root.to_path_buf(), Rules::new(root, ignore)?)));
        let roots = roots.collect::<Result<_, _>>()?;
        Ok(Self {
            private: private.unwrap_or_default(),
            names_only: false,
            dir: dir.to_path_buf(),
            wanted,
            roots,
            places: HashMap::new(),
            links: HashMap::new(),
            stirred: HashMap::new(),
            rules: HashMap::new(),
        })
    }

    /// The pattern that makes a path wanted, or the rule that leaves it out although a pattern names it.
    pub(super) fn verdict(&self, path: &Path, directory: bool) -> Option<Result<Pattern, Rule>> {
        let pattern = self.wanted.names(path)?;
        let base = self.wanted.base_of(path)?;
        let mut steps: Vec<&Path> = path.ancestors().take_while(|step| *step != base).collect();
        steps.reverse();
        for step in steps {
            let Some(above) = step.parent() else { continue };
            let rules = self.read_rules(above);
            if let Some(rule) = rules.ignores(step, directory || step != path) {
                return Some(Err(rule));
            }
        }
        Some(Ok(pattern.clone()))
    }

    /// Whether all is told.
    pub(super) fn rests(&self) -> bool {
        self.stirred.is_empty()
    }

    /// Lets a plan hold the ways to what is wanted; the directories to begin a walk at.
    pub(super) fn tops(&self, user: usize, plan: &mut Plan) -> Vec<Visit> {
        let mut visits: Vec<Visit> = Vec::new();
        for base in self.wanted.bases() {
            let (path, whole) = match plan.top(user, base) {
                End::There(path) if self.is_private(&path) => continue,
                End::There(path) if path.is_dir() => (path, true),
                End::There(path) | End::Missing(path) => (path, false),
                End::NoWay(_) | End::Circle => continue,
            };
            let (at, name) = match (whole, path.parent(), path.file_name()) {
                (true, ..) => (path, None),
                (false, Some(parent), Some(name)) => (
                    parent.to_path_buf(),
                    Some((name.to_owned(), base.to_path_buf())),
                ),
                _ => continue,
            };
            if let Some(visit) = visits.iter_mut().find(|visit| visit.path == at) {
                visit.whole |= whole;
                visit.named.extend(name);
                continue;
            }
            let shown = match whole {
                true => base,
                false => base.parent().unwrap_or(base),
            };
            visits.push(Visit {
                path: at,
                rules: self.read_rules(shown),
                shown: shown.to_path_buf(),
                whole,
                named: name.into_iter().collect(),
            });
        }
        visits
    }

    /// Begins a walk: what it does not visit is gone.
    pub(super) fn begin(&mut self) {
        self.rules.clear();
        self.links.clear();
        for place in self.places.values_mut() {
            place.gone = true;
        }
    }

    /// Lists a directory and compares it with what was told of it. With a budget it is taken as it is instead.
    pub(super) fn visit(&mut self, visit: Visit, first: Option<&mut Budget>) -> Found {
        let Visit {
            path,
            shown,
            rules,
            whole,
            named,
        } = visit;
        let mut place = self.places.remove(&path).unwrap_or(Place {
            gone: true,
            ..Place::default()
        });
        if std::mem::take(&mut place.gone) {
            (place.whole, place.named) = (whole, named);
        } else {
            place.whole |= whole;
            place.named.extend(named);
        }
        place.shown = shown;
        let mut found = Found::default();
        let (mut files, mut links) = (Vec::new(), Vec::new());
        let listed = self.list(&path, &place, &rules, |name, kind| match kind {
            Kind::File(key) => files.push((name.to_owned(), key)),
            Kind::Link(key) => {
                files.push((name.to_owned(), key));
                links.extend(
                    path.join(name)
                        .canonicalize()
                        .map(|to| (to, name.to_owned())),
                );
            }
            Kind::Directory => found.visits.extend(self.below(&path, &place, &rules, name)),
        });
        match first.filter(|_| !self.names_only) {
            Some(budget) => {
                let files = files.iter();
                let files = files.map(|(name, key)| File::first(&path, name, *key, budget));
                place.files = files.collect();
                place.files.sort_unstable_by_key(|file| file.name);
            }
            None if listed => self.compare(&path, &place, &files),
            None => {}
        }
        for (to, name) in links {
            found.linked.extend(to.parent().map(Path::to_path_buf));
            self.links.entry(to).or_default().push((path.clone(), name));
        }
        self.places.insert(path, place);
        found
    }

    /// Walks all of it at once; the files in it, sorted.
    pub(super) fn files(&mut self) -> Vec<PathBuf> {
        let mut plan = Plan::default();
        let mut left = self.tops(0, &mut plan);
        self.begin();
        while let Some(mut visit) = left.pop() {
            if let Some((path, _)) = plan.part(0, &visit.path) {
                visit.path = path;
                left.extend(self.visit(visit, None).visits);
            }
        }
        let paths = self.difference().paths;
        paths.iter().map(|path| self.absolute(path)).collect()
    }

    /// The absolute form of a path that was told.
    pub(super) fn absolute(&self, told: &Path) -> PathBuf {
        self.dir.join(told)
    }

    /// Ends a walk.
    pub(super) fn end(&mut self) {
        let gone = self.places.iter().filter(|(_, place)| place.gone);
        let gone: Vec<_> = gone
            .map(|(path, place)| (path.clone(), place.files.is_empty()))
            .collect();
        for (path, empty) in gone {
            if empty {
                self.places.remove(&path);
            } else {
                self.stirred.insert(path, Stirred::All);
            }
        }
    }

    /// The directories that its wanted files are in.
    pub(super) fn places(&self) -> impl Iterator<Item = &PathBuf> {
        let places = self.places.iter().filter(|(_, place)| !place.gone);
        places.map(|(path, _)| path)
    }

    /// Takes over that something happened to a path.
    pub(super) fn stir(&mut self, path: &Path) -> Means {
        let links = self.links.get(path).cloned().unwrap_or_default();
        for (place, name) in &links {
            self.stir_name(place, name);
        }
        match self.stir_place(path) {
            Means::Nothing if !links.is_empty() => Means::File,
            means => means,
        }
    }

    fn stir_place(&mut self, path: &Path) -> Means {
        let (Some(at), Some(name)) = (path.parent(), path.file_name()) else {
            return Means::Nothing;
        };
        let Some(place) = self.places.get(at) else {
            return Means::Nothing;
        };
        if IGNORE_FILES.iter().any(|file| name == *file) {
            return Means::Walk;
        }
        let shown = place.shown.join(name);
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            let named = place.named(name).is_some();
            let matters = named
                || place.whole
                    && self.wanted.reaches_into(&shown)
                    && self.rules(at).ignores(&shown, true).is_none();
            return if matters { Means::Walk } else { Means::Nothing };
        }
        if !self.is_wanted(at, name) {
            return Means::Nothing;
        }
        self.stir_name(at, name);
        Means::File
    }

    /// What stands for the stat keys of all that was stirred, to see whether it rests.
    pub(super) fn print(&mut self) -> u64 {
        let mut places: Vec<_> = self.stirred.keys().cloned().collect();
        places.sort();
        let mut hasher = DefaultHasher::new();
        for path in places {
            let (mut now, _) = self.now(&path);
            now.sort();
            let keys = now
                .into_iter()
                .map(|(name, key)| (name, key.map(|key| key.print())));
            keys.collect::<Vec<_>>().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// How what was stirred differs from what was told.
    pub(super) fn difference(&mut self) -> Difference {
        let mut difference = Difference::default();
        for path in self.stirred.keys().cloned().collect::<Vec<_>>() {
            let Some(place) = self.places.get(&path) else {
                continue;
            };
            let (before, shown) = (place.files.clone(), place.shown.clone());
            if place.gone || !path.is_dir() {
                if !before.is_empty() {
                    difference.paths.insert(self.told(&shown));
                }
                difference.places.push((path, Vec::new()));
                continue;
            }
            let (now, all) = self.now(&path);
            let mut after: Vec<File> = Vec::new();
            for (name, key) in &now {
                let old = File::find(&before, hash(name)).copied();
                let new = key.map(|key| match self.names_only {
                    true => (File::unread(name, key), old.is_none()),
                    false => File::next(old, &path, name, key),
                });
                after.extend(new.map(|(file, _)| file));
                if new.map_or(old.is_some(), |(_, changed)| changed) {
                    let shown = self.shown(&path, name);
                    difference.paths.insert(self.told(&shown));
                }
            }
            let looked_at: HashSet<u64> = now.iter().map(|(name, _)| hash(name)).collect();
            let others = before.iter();
            let mut others = others.filter(|file| !looked_at.contains(&file.name));
            if !all {
                after.extend(others);
            } else if others.next().is_some() {
                difference.paths.insert(self.told(&shown));
            }
            after.sort_unstable_by_key(|file| file.name);
            difference.places.push((path, after));
        }
        difference
    }

    /// Takes over that a difference was told.
    pub(super) fn tell(&mut self, difference: Difference) {
        self.stirred.clear();
        for (path, files) in difference.places {
            if let Some(place) = self.places.get_mut(&path) {
                place.files = files;
            }
        }
        self.places.retain(|_, place| !place.gone);
    }

    /// What is there now of what was stirred in a directory, and whether that is all there is.
    fn now(&mut self, path: &Path) -> (Vec<(OsString, Option<StatKey>)>, bool) {
        let mut now = Vec::new();
        if let Some(Stirred::Names(names)) = self.stirred.get(path) {
            for name in names {
                let metadata = fs::metadata(path.join(name)).ok();
                let file = metadata.filter(Metadata::is_file);
                now.push((name.clone(), file.map(|file| StatKey::of(&file))));
            }
            return (now, false);
        }
        let rules = self.rules(path);
        let Some(place) = self.places.get(path) else {
            return (now, false);
        };
        let listed = self.list(path, place, &rules, |name, kind| match kind {
            Kind::File(key) | Kind::Link(key) => now.push((name.to_owned(), Some(key))),
            Kind::Directory => {}
        });
        (now, listed)
    }

    /// Hands over what there is in a directory that is wanted, and its directories; false if it cannot be listed.
    fn list(
        &self,
        path: &Path,
        place: &Place,
        rules: &Rules,
        mut each: impl FnMut(&OsStr, Kind),
    ) -> bool {
        for (name, _) in &place.named {
            if let Ok(metadata) = fs::metadata(path.join(name))
                && metadata.is_file()
            {
                each(name, Kind::File(StatKey::of(&metadata)));
            }
        }
        if !place.whole {
            return true;
        }
        let Ok(entries) = fs::read_dir(path) else {
            return false;
        };
        for entry in entries.flatten() {
            let (name, Ok(file_type)) = (entry.file_name(), entry.file_type()) else {
                continue;
            };
            if file_type.is_dir() {
                each(&name, Kind::Directory);
                continue;
            }
            if place.named(&name).is_some() || !self.counts(&place.shown.join(&name), rules) {
                continue;
            }
            let link = file_type.is_symlink();
            let metadata = match link {
                true => fs::metadata(entry.path()),
                false => entry.metadata(),
            };
            if let Ok(metadata) = metadata
                && metadata.is_file()
            {
                let key = StatKey::of(&metadata);
                each(
                    &name,
                    if link {
                        Kind::Link(key)
                    } else {
                        Kind::File(key)
                    },
                );
            }
        }
        true
    }

    /// A directory in another one, if anything in it could be wanted. Those that are tops of their own are none of these.
    fn below(&self, path: &Path, place: &Place, rules: &Rules, name: &OsStr) -> Option<Visit> {
        let (path, shown) = (path.join(name), place.shown.join(name));
        let top = self.wanted.bases().any(|base| base == shown);
        let wanted = !top && self.wanted.reaches_into(&shown) && !self.is_private(&path);
        if !wanted || rules.ignores(&shown, true).is_some() {
            return None;
        }
        let rules = rules.with(snapshot::ignore_files(&shown));
        Some(Visit {
            path,
            shown,
            rules,
            whole: true,
            named: Vec::new(),
        })
    }

    /// Stirs what is not as was told.
    fn compare(&mut self, path: &Path, place: &Place, files: &[(OsString, StatKey)]) {
        let mut seen = HashSet::new();
        for (name, key) in files {
            let hash = hash(name);
            seen.insert(hash);
            let known = File::find(&place.files, hash);
            if known.is_none_or(|known| known.key != key.print()) {
                self.stir_name(path, name);
            }
        }
        if place.files.iter().any(|file| !seen.contains(&file.name)) {
            self.stirred.insert(path.to_path_buf(), Stirred::All);
        }
    }

    fn stir_name(&mut self, place: &Path, name: &OsStr) {
        let stirred = self.stirred.entry(place.to_path_buf());
        let stirred = stirred.or_insert_with(|| Stirred::Names(HashSet::new()));
        if let Stirred::Names(names) = stirred {
            names.insert(name.to_owned());
            if names.len() > MAX_NAMES {
                *stirred = Stirred::All;
            }
        }
    }

    fn is_wanted(&mut self, at: &Path, name: &OsStr) -> bool {
        let Some(place) = self.places.get(at) else {
            return false;
        };
        let known = File::find(&place.files, hash(name)).is_some();
        if known || place.named(name).is_some() {
            return true;
        }
        let shown = place.shown.join(name);
        if !place.whole || self.wanted.names(&shown).is_none() {
            return false;
        }
        self.rules(at).ignores(&shown, false).is_none()
    }

    fn counts(&self, shown: &Path, rules: &Rules) -> bool {
        self.wanted.names(shown).is_some() && rules.ignores(shown, false).is_none()
    }

    fn is_private(&self, path: &Path) -> bool {
        let known = !self.private.as_os_str().is_empty();
        known && path.starts_with(&self.private)
    }

    /// The path that a file is told as before it is made relative.
    fn shown(&self, path: &Path, name: &OsStr) -> PathBuf {
        let place = self.places.get(path);
        let named = place.and_then(|place| place.named(name));
        match (named, place) {
            (Some(named), _) => named.to_path_buf(),
            (None, Some(place)) => place.shown.join(name),
            (None, None) => path.join(name),
        }
    }

    fn told(&self, shown: &Path) -> PathBuf {
        let inside = shown.strip_prefix(&self.dir).unwrap_or(shown);
        match inside.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => inside.to_path_buf(),
        }
    }

    /// The rules for what is in one of its directories.
    fn rules(&mut self, path: &Path) -> Rules {
        if let Some(rules) = self.rules.get(path) {
            return rules.clone();
        }
        let place = self.places.get(path);
        let rules = self.read_rules(place.map_or(path, |place| &place.shown));
        if self.rules.len() >= MAX_RULES {
            self.rules.clear();
        }
        self.rules.insert(path.to_path_buf(), rules.clone());
        rules
    }

    /// The rules for what is in a directory. Where it lies above every root, only what is named letter for letter counts.
    fn read_rules(&self, shown: &Path) -> Rules {
        let mut roots = self.roots.iter().rev();
        match roots.find(|(root, _)| shown.starts_with(root)) {
            Some((root, rules)) => snapshot::rules(rules, root, shown),
            None => Rules::none(),
        }
    }
}

impl Place {
    /// The path that a file in it is named by letter for letter, if it is.
    fn named(&self, name: &OsStr) -> Option<&Path> {
        let mut named = self.named.iter();
        named
            .find(|(file, _)| file == name)
            .map(|(_, path)| path.as_path())
    }
}

impl Budget {
    /// Enough for the sources of a project, and little enough not to be noticed at the start.
    pub(super) fn new() -> Self {
        Self {
            files: 256,
            bytes: 2 * 1024 * 1024,
        }
    }

    fn spend(&mut self, length: u64) -> bool {
        let spent = self
            .files
            .checked_sub(1)
            .zip(self.bytes.checked_sub(length));
        if let Some((files, bytes)) = spent {
            (self.files, self.bytes) = (files, bytes);
        }
        spent.is_some()
    }
}

impl File {
    fn find(files: &[Self], name: u64) -> Option<&Self> {
        let at = files.binary_search_by_key(&name, |file| file.name).ok()?;
        files.get(at)
    }

    fn first(place: &Path, name: &OsStr, key: StatKey, budget: &mut Budget) -> Self {
        if budget.spend(key.length()) {
            return Self::next(None, place, name, key).0;
        }
        Self::unread(name, key)
    }

    fn unread(name: &OsStr, key: StatKey) -> Self {
        Self {
            name: hash(name),
            key: key.print(),
            bytes: 0,
        }
    }

    /// What is known of a file that has this stat key now, and whether it changed. Of one whose bytes are not
    /// known a new key is a change.
    fn next(before: Option<Self>, place: &Path, name: &OsStr, key: StatKey) -> (Self, bool) {
        let unread = Self::unread(name, key);
        match before {
            Some(before) if before.key == unread.key => return (before, false),
            _ => {}
        }
        let Some((key, bytes)) = read(&place.join(name)) else {
            return (unread, true);
        };
        let file = Self {
            key,
            bytes,
            ..unread
        };
        (file, before.is_none_or(|before| before.bytes != bytes))
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The stat key of a plain file, 0 if it may not be that of these bytes for long, and its bytes, both as hashes; `None` if
/// it cannot be read or is too large.
fn read(path: &Path) -> Option<(u64, u64)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = Handle::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let before = file.metadata().ok()?;
    if !before.is_file() || before.len() > MAX_READ {
        return None;
    }
    let mut bytes = Vec::new();
    (&file).take(MAX_READ).read_to_end(&mut bytes).ok()?;
    let (key, after) = (StatKey::of(&before), StatKey::of(&file.metadata().ok()?));
    let proves = key == after && !key.is_racy(SystemTime::now());
    let print = if proves { key.print() } else { 0 };
    Some((print, hash(&bytes) | 1))
}
