//! The roots of entries: whether each still stands, and if not, what became of it.
//!
//! Nothing is taken from a place that is not the one it was. What that means is decided here; when to ask is not.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::events::Gone;
use super::plan::first_missing;
use super::{Target, backend};

/// The roots of all entries, each once.
#[derive(Debug)]
pub(super) struct Roots {
    roots: Vec<Root>,
    numbers: HashMap<PathBuf, usize>,
    /// The number of each routine's root.
    of: Vec<usize>,
}

/// A directory that entries are in.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    /// The numbers of its routines.
    entries: Vec<usize>,
    /// The entries that are not there because they fit a pattern: when none of these is left, that is news.
    named: Vec<PathBuf>,
    /// What it was when it stood.
    nature: Option<Nature>,
    /// Whether it has been said that nothing is taken from there.
    away: bool,
}

/// What a root is besides a directory.
#[derive(Debug, PartialEq, Eq)]
struct Nature {
    /// Its own name is that of a symbolic link.
    link: bool,
    /// What it is in is mounted there.
    mount: Option<PathBuf>,
}

/// A root that is no longer as it was said to be, with the numbers of its routines.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It went away, and why.
    Away(Vec<usize>, String),
    /// It is back.
    Back(Vec<usize>),
}

impl Roots {
    pub(super) fn new(targets: &[Target]) -> Self {
        let mut roots = Self {
            roots: Vec::new(),
            numbers: HashMap::new(),
            of: Vec::new(),
        };
        for target in targets {
            roots.add(target);
        }
        roots
    }

    /// Takes in the routine with the next number.
    pub(super) fn add(&mut self, target: &Target) {
        let number = self.numbers.entry(target.root.clone()).or_insert_with(|| {
            self.roots.push(Root {
                path: target.root.clone(),
                entries: Vec::new(),
                named: Vec::new(),
                nature: None,
                away: false,
            });
            self.roots.len() - 1
        });
        if let Some(root) = self.roots.get_mut(*number) {
            root.entries.push(self.of.len());
            root.named
                .extend(target.glob.is_none().then(|| target.entry.clone()));
        }
        self.of.push(*number);
    }

    /// Whether it has been said that nothing is taken from a routine's root.
    pub(super) fn is_away(&self, routine: usize) -> bool {
        let root = self.of.get(routine).and_then(|&root| self.roots.get(root));
        root.is_some_and(|root| root.away)
    }

    /// Whether a link has the name of a routine's root, which was a directory.
    pub(super) fn is_link_now(&self, routine: usize) -> bool {
        let root = self.of.get(routine).and_then(|&root| self.roots.get(root));
        root.is_some_and(|root| {
            let was = root.nature.as_ref().is_some_and(|nature| nature.link);
            !was && fs::symlink_metadata(&root.path).is_ok_and(|metadata| metadata.is_symlink())
        })
    }

    /// The routines whose roots are away.
    pub(super) fn away(&self) -> impl Iterator<Item = usize> {
        let away = self.roots.iter().filter(|root| root.away);
        away.flat_map(|root| root.routines())
    }

    /// Looks which of these routines have a root that is no longer as it was said to be.
    pub(super) fn turned(&self, routines: impl IntoIterator<Item = usize>) -> HashSet<usize> {
        let numbers = self.numbers_of(routines).into_iter();
        let roots = numbers.filter_map(|number| self.roots.get(number));
        let turned = roots.filter(|root| root.trouble(&HashMap::new()).is_some() != root.away);
        turned.flat_map(|root| root.routines()).collect()
    }

    /// Looks at the roots of these routines, and takes over what became of them. From then on that counts as said.
    pub(super) fn turn(
        &mut self,
        routines: impl IntoIterator<Item = usize>,
        gone: &HashMap<PathBuf, Gone>,
    ) -> Vec<Turn> {
        let mut turns = Vec::new();
        for number in self.numbers_of(routines) {
            let Some(root) = self.roots.get_mut(number) else {
                continue;
            };
            let trouble = root.trouble(gone);
            match (trouble, root.away) {
                (Some(reason), false) => {
                    root.away = true;
                    turns.push(Turn::Away(root.routines().collect(), reason));
                }
                (None, true) => {
                    root.away = false;
                    root.nature = Some(Nature::of(&root.path));
                    turns.push(Turn::Back(root.routines().collect()));
                }
                (None, false) if root.nature.is_none() => {
                    root.nature = Some(Nature::of(&root.path));
                }
                _ => {}
            }
        }
        turns
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.roots.len()
    }

    /// Takes over what a routine's root is now, if it stands.
    pub(super) fn survey_of(&mut self, routine: usize) {
        if let Some(&number) = self.of.get(routine) {
            self.survey(number);
        }
    }

    /// Takes over what one of them is now, if it stands.
    pub(super) fn survey(&mut self, number: usize) {
        let root = self.roots.get_mut(number).filter(|root| !root.away);
        if let Some(root) = root
            && root.trouble(&HashMap::new()).is_none()
        {
            root.nature = Some(Nature::of(&root.path));
        }
    }

    fn numbers_of(&self, routines: impl IntoIterator<Item = usize>) -> HashSet<usize> {
        let routines = routines.into_iter();
        routines
            .filter_map(|routine| self.of.get(routine).copied())
            .collect()
    }
}

impl Root {
    fn routines(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().copied()
    }

    /// What is wrong with it; `None` if it stands, or if it cannot be looked at, which its entries tell of.
    fn trouble(&self, gone: &HashMap<PathBuf, Gone>) -> Option<String> {
        let shown = self.path.display();
        let missing = |error: &std::io::Error| {
            matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        };
        if let Some(mount) = self.unmounted() {
            return Some(format!("`{}` was unmounted", mount.display()));
        }
        let link = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata.is_symlink(),
            Err(error) if missing(&error) => return Some(self.missing(gone)),
            Err(_) => return None,
        };
        if link && self.nature.as_ref().is_some_and(|nature| !nature.link) {
            return Some(format!("`{shown}` is a symbolic link now"));
        }
        match fs::metadata(&self.path) {
            Ok(metadata) if !metadata.is_dir() => return Some(self.file(&self.path)),
            Ok(_) => {}
            Err(error) if missing(&error) => return Some(self.missing(gone)),
            Err(_) => return None,
        }
        // Only where no entry is left, since listing a directory causes events.
        let left = |entry: &PathBuf| fs::symlink_metadata(entry).is_ok();
        let emptied = !self.named.is_empty() && !self.named.iter().any(left);
        (emptied && is_empty(&self.path)).then(|| format!("`{shown}` is empty"))
    }

    /// What it was in that was mounted and is so no longer, unless it leads elsewhere by now.
    fn unmounted(&self) -> Option<&Path> {
        let mount = self.nature.as_ref()?.mount.as_deref()?;
        let bare = mount.is_dir() && !backend::is_mount(mount);
        if !bare {
            return None;
        }
        let real = self.path.canonicalize();
        let within = real.is_ok_and(|real| real.starts_with(mount));
        let missing = first_missing(&self.path).is_some_and(|path| path.starts_with(mount));
        (within || missing).then_some(mount)
    }

    fn missing(&self, gone: &HashMap<PathBuf, Gone>) -> String {
        let missing = first_missing(&self.path).unwrap_or_else(|| self.path.clone());
        if let Some(parent) = missing.parent()
            && !parent.is_dir()
        {
            return self.file(parent);
        }
        let shown = missing.display();
        match gone.get(&missing) {
            Some(Gone::Deleted) => format!("`{shown}` was deleted"),
            Some(Gone::Renamed) => format!("`{shown}` was renamed"),
            None if self.nature.is_some() => format!("`{shown}` is gone"),
            None => format!("`{shown}` does not exist"),
        }
    }

    fn file(&self, path: &Path) -> String {
        let now = if self.nature.is_some() { " now" } else { "" };
        format!("`{}` is a file{now}", path.display())
    }
}

impl Nature {
    fn of(path: &Path) -> Self {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let below = real.ancestors().filter(|path| path.parent().is_some());
        Self {
            link: fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()),
            mount: below
                .filter(|path| backend::is_mount(path))
                .map(Path::to_path_buf)
                .next(),
        }
    }
}

/// Whether a directory holds nothing; what the shell leaves behind when everything in it is removed does not count.
fn is_empty(path: &Path) -> bool {
    let Ok(mut names) = fs::read_dir(path) else {
        return false;
    };
    names.all(|name| name.is_ok_and(|name| name.file_name().as_encoded_bytes().starts_with(b".")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::routine::RoutineName;
    use crate::watch::tests::directory;

    fn site() -> (tempfile::TempDir, PathBuf, Roots) {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        let root = base.join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("index.js"), "1").unwrap();
        let target = |name: &str| Target {
            routine: RoutineName::new(name).unwrap(),
            entry: root.join("index.js"),
            root: root.clone(),
            check: false,
            follow: false,
            glob: None,
        };
        let mut roots = Roots::new(&["a", "b"].map(target));
        assert_eq!(roots.turn([0], &HashMap::new()), []);
        (dir, base, roots)
    }

    #[track_caller]
    fn assert_away(roots: &mut Roots, gone: &HashMap<PathBuf, Gone>, words: &str) {
        assert_eq!(roots.turned([1]), HashSet::from([0, 1]), "{words}");
        let turns = roots.turn([1], gone);
        let [Turn::Away(routines, reason)] = &turns[..] else {
            panic!("{words}: {turns:?}");
        };
        assert_eq!(routines, &[0, 1]);
        assert!(reason.ends_with(words), "{reason}");
        assert_eq!(roots.turn([0, 1], gone), [], "it is said once");
        assert_eq!(roots.turned([0]), HashSet::new());
        assert!(roots.is_away(0) && roots.away().eq([0, 1]));
    }

    #[track_caller]
    fn assert_back(roots: &mut Roots) {
        assert_eq!(roots.turned([0]), HashSet::from([0, 1]));
        assert_eq!(roots.turn([0], &HashMap::new()), [Turn::Back(vec![0, 1])]);
        assert!(!roots.is_away(1));
    }

    #[test]
    fn a_root_is_away_as_long_as_something_else_or_nothing_is_in_its_place() {
        let (_dir, base, mut roots) = site();
        let (root, aside) = (base.join("root"), base.join("aside"));
        let none = HashMap::new();
        fs::rename(&root, &aside).unwrap();
        let renamed = HashMap::from([(root.clone(), Gone::Renamed)]);
        assert_away(&mut roots, &renamed, "root` was renamed");
        fs::write(&root, "").unwrap();
        assert_eq!(
            roots.turned([0]),
            HashSet::new(),
            "it is away in another way"
        );
        fs::remove_file(&root).unwrap();
        fs::rename(&aside, &root).unwrap();
        assert_back(&mut roots);

        fs::rename(&root, &aside).unwrap();
        fs::write(&root, "").unwrap();
        assert_away(&mut roots, &none, "root` is a file now");
        fs::remove_file(&root).unwrap();
        fs::rename(&aside, &root).unwrap();
        assert_back(&mut roots);

        // The same directory, and yet not.
        fs::rename(&root, &aside).unwrap();
        symlink("aside", &root).unwrap();
        assert_away(&mut roots, &none, "root` is a symbolic link now");
        fs::remove_file(&root).unwrap();
        fs::rename(&aside, &root).unwrap();
        assert_back(&mut roots);

        fs::write(root.join(".gitignore"), "").unwrap();
        fs::remove_file(root.join("index.js")).unwrap();
        assert_away(&mut roots, &none, "root` is empty");
        fs::write(root.join("other.js"), "").unwrap();
        assert_back(&mut roots);

        fs::remove_dir_all(&root).unwrap();
        let deleted = HashMap::from([(root.clone(), Gone::Deleted)]);
        assert_away(&mut roots, &deleted, "root` was deleted");
    }

    #[test]
    fn a_root_that_was_a_link_from_the_start_may_lead_anywhere_but_nowhere() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        let (one, two, root) = (base.join("1"), base.join("2"), base.join("root"));
        for release in [&one, &two] {
            fs::create_dir(release).unwrap();
            fs::write(release.join("index.js"), "1").unwrap();
        }
        symlink("1", &root).unwrap();
        let target = Target {
            routine: RoutineName::new("a").unwrap(),
            entry: root.join("index.js"),
            root: root.clone(),
            check: false,
            follow: false,
            glob: None,
        };
        let mut roots = Roots::new(&[target]);
        assert_eq!(roots.turn([0], &HashMap::new()), []);
        fs::remove_file(&root).unwrap();
        symlink("2", &root).unwrap();
        assert_eq!(roots.turn([0], &HashMap::new()), []);
        fs::remove_dir_all(&two).unwrap();
        let turns = roots.turn([0], &HashMap::new());
        let reason = format!("`{}` is gone", two.display());
        assert_eq!(turns, [Turn::Away(vec![0], reason)]);
    }
}
