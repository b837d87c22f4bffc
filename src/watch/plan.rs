//! Where to watch: the directories whose events matter, and which paths to listen for there.
//!
//! A plan is made anew for every look in full, because a directory that was removed and made again is another one under
//! the same name. The way to an entry is walked name by name, as the system does it: every symbolic link on it can be
//! swapped, and the first name that is missing can come.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::Target;

/// How many symbolic links one path may take, as many as the system follows.
const MAX_LINKS: usize = 40;

/// What tells one directory from another of the same name: its device and inode number.
pub(super) type DirectoryId = (u64, u64);

/// Where to watch, and what to listen for there.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The directories to watch, by the paths that their events carry.
    pub(super) directories: HashMap<PathBuf, DirectoryId>,
    /// The files that matter, with the numbers of their routines.
    pub(super) entries: HashMap<PathBuf, Vec<usize>>,
    /// The paths where a directory or a link that comes or goes makes a new plan necessary.
    pub(super) ways: HashSet<PathBuf>,
    /// The directories that entries are in.
    pub(super) homes: HashSet<PathBuf>,
    /// The directories that tops of trees are, or are in.
    pub(super) tops: HashSet<PathBuf>,
    /// The directory for markers, if it is there.
    pub(super) private: Option<PathBuf>,
    /// The routines that need each directory to be watched.
    users: HashMap<PathBuf, Vec<usize>>,
    /// The system keeps one watch an inode, so a directory that is reachable by two paths gets one of them.
    known: HashMap<DirectoryId, PathBuf>,
    /// What was found at each path, as many entries share a directory.
    found: HashMap<PathBuf, Option<PathBuf>>,
    /// The ways to the roots, for the same reason.
    roots: HashMap<PathBuf, Way>,
}

/// How a path is resolved.
#[derive(Debug, Clone)]
struct Way {
    /// The symbolic links on the way, where they really are.
    detours: Vec<PathBuf>,
    /// Those that stand for the end itself.
    names: Vec<PathBuf>,
    end: End,
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// To something, which is really here.
    There(PathBuf),
    /// To nothing: this directory would have to be made next.
    NoWay(PathBuf),
    /// To nothing: only this last name is missing.
    Missing(PathBuf),
    /// Round in a circle.
    Circle,
}

impl Plan {
    /// A plan for nothing but the directory for markers.
    pub(super) fn new(private: &Path) -> Self {
        let mut plan = Self::default();
        if let Ok(real) = private.canonicalize() {
            plan.private = plan.directory(&real);
        }
        plan
    }

    /// Looks where the entry of a routine is now.
    pub(super) fn add(&mut self, routine: usize, target: &Target) {
        let way = self.roots.entry(target.root.clone());
        let way = way.or_insert_with(|| trace(Path::new("/"), &target.root));
        let way = way.clone();
        for link in way.detours.iter().chain(&way.names) {
            self.name(routine, link);
        }
        match way.end {
            End::There(root) => {
                if let Some(root) = self.home(routine, &root) {
                    self.entry(routine, target, &root);
                }
            }
            End::NoWay(path) | End::Missing(path) => self.name(routine, &path),
            End::Circle => {}
        }
    }

    /// Looks where a file, or the top of a tree, is now, and listens for the coming and going of it.
    pub(super) fn top(&mut self, user: usize, path: &Path) -> End {
        let way = trace(Path::new("/"), path);
        for link in way.detours.iter().chain(&way.names) {
            self.name(user, link);
        }
        match &way.end {
            End::There(path) | End::NoWay(path) | End::Missing(path) => self.name(user, path),
            End::Circle => {}
        }
        if let End::There(path) = &way.end {
            let directory = path.is_dir().then_some(path.as_path());
            let directory = directory.or(path.parent());
            self.tops.extend(directory.map(Path::to_path_buf));
        }
        way.end
    }

    /// Watches a directory of a tree; the path that its events carry.
    pub(super) fn part(&mut self, user: usize, path: &Path) -> Option<(PathBuf, DirectoryId)> {
        let directory = self.directory(path)?;
        self.used(user, &directory);
        let id = self.directories.get(&directory).copied()?;
        Some((directory, id))
    }

    /// The routines, or whatever else has a number, that need one of these directories.
    pub(super) fn users<'a>(
        &self,
        directories: impl IntoIterator<Item = &'a PathBuf>,
    ) -> HashSet<usize> {
        let users = directories
            .into_iter()
            .filter_map(|path| self.users.get(path));
        users.flatten().copied().collect()
    }

    /// The routines with an entry in one of these directories.
    pub(super) fn routines_in(&self, directories: &HashSet<PathBuf>) -> HashSet<usize> {
        let within = |path: &Path| path.parent().is_some_and(|home| directories.contains(home));
        let entries = self.entries.iter().filter(|(path, _)| within(path));
        entries
            .flat_map(|(_, routines)| routines)
            .copied()
            .collect()
    }

    /// Listens for an entry in its root, and for what it leads to if that counts.
    fn entry(&mut self, routine: usize, target: &Target, root: &Path) {
        let inside = target.entry.strip_prefix(&target.root);
        let way = trace(root, inside.unwrap_or(&target.entry));
        let counts = |path: &Path| target.follow || path.starts_with(root);
        // A link that is swapped leads elsewhere, and elsewhere has to be watched then.
        for link in way.detours.iter().filter(|link| counts(link)) {
            self.name(routine, link);
        }
        for link in way.names.iter().filter(|link| counts(link)) {
            let link = self.file(routine, link);
            self.ways.extend(link);
        }
        match way.end {
            End::There(path) | End::Missing(path) if counts(&path) => {
                self.file(routine, &path);
            }
            End::NoWay(path) if counts(&path) => self.name(routine, &path),
            _ => {}
        }
    }

    fn file(&mut self, routine: usize, path: &Path) -> Option<PathBuf> {
        let path = self.home(routine, path.parent()?)?.join(path.file_name()?);
        let routines = self.entries.entry(path.clone()).or_default();
        if !routines.contains(&routine) {
            routines.push(routine);
        }
        Some(path)
    }

    /// Watches a directory that an entry is in, and what tells of its coming and going: the directory above.
    fn home(&mut self, routine: usize, path: &Path) -> Option<PathBuf> {
        let home = self.directory(path)?;
        self.homes.insert(home.clone());
        self.used(routine, &home);
        self.name(routine, &home);
        Some(home)
    }

    /// Listens for the coming and going of a name.
    fn name(&mut self, routine: usize, path: &Path) {
        self.ways.insert(path.to_path_buf());
        let Some(parent) = path.parent() else {
            return;
        };
        match self.directory(parent) {
            Some(parent) => self.used(routine, &parent),
            // Something else has the name of a directory.
            None => self.name(routine, parent),
        }
    }

    fn used(&mut self, routine: usize, directory: &Path) {
        let users = self.users.entry(directory.to_path_buf()).or_default();
        if users.last() != Some(&routine) {
            users.push(routine);
        }
    }

    /// Watches the directory at a real path, if there is one.
    fn directory(&mut self, real: &Path) -> Option<PathBuf> {
        if let Some(found) = self.found.get(real) {
            return found.clone();
        }
        let found = directory_id(real).map(|id| {
            let path = self.known.entry(id).or_insert_with(|| real.to_path_buf());
            let path = path.clone();
            self.directories.insert(path.clone(), id);
            self.ways.insert(path.clone());
            path
        });
        self.found.insert(real.to_path_buf(), found.clone());
        found
    }
}

/// The device and inode number of a directory; `None` if there is none.
pub(super) fn directory_id(path: &Path) -> Option<DirectoryId> {
    let metadata = fs::metadata(path).ok()?;
    metadata.is_dir().then(|| (metadata.dev(), metadata.ino()))
}

/// The first name on the way to a path that is missing, where it really would be; `None` if none is.
pub(super) fn first_missing(path: &Path) -> Option<PathBuf> {
    match trace(Path::new("/"), path).end {
        End::NoWay(missing) | End::Missing(missing) => Some(missing),
        End::There(_) | End::Circle => None,
    }
}

/// Walks a path from a real directory on.
fn trace(base: &Path, path: &Path) -> Way {
    let (mut detours, mut names) = (Vec::new(), Vec::new());
    let mut real = base.to_path_buf();
    let mut left = Vec::new();
    push(&mut left, &mut real, path);
    let end = loop {
        let Some(name) = left.pop() else {
            break End::There(real);
        };
        if name == ".." {
            real.pop();
            continue;
        }
        let next = real.join(name);
        let to = match fs::symlink_metadata(&next) {
            Ok(metadata) if !metadata.is_symlink() => {
                real = next;
                continue;
            }
            found => found.and_then(|_| fs::read_link(&next)),
        };
        match to {
            Ok(_) if detours.len() + names.len() >= MAX_LINKS => break End::Circle,
            Ok(to) => {
                let links = if left.is_empty() {
                    &mut names
                } else {
                    &mut detours
                };
                links.push(next);
                push(&mut left, &mut real, &to);
            }
            Err(_) if left.is_empty() => break End::Missing(next),
            Err(_) => break End::NoWay(next),
        }
    };
    Way {
        detours,
        names,
        end,
    }
}

/// Puts the names of a path before those that are left, the next one last.
fn push(left: &mut Vec<OsString>, real: &mut PathBuf, path: &Path) {
    if path.is_absolute() {
        *real = PathBuf::from("/");
    }
    let names = path.components().rev();
    let names = names.filter(|it| matches!(it, Component::Normal(_) | Component::ParentDir));
    left.extend(names.map(|it| it.as_os_str().to_owned()));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::routine::RoutineName;
    use crate::watch::tests::directory;

    fn plan(root: &Path, follow: bool, private: &Path) -> Plan {
        let mut plan = Plan::new(private);
        let target = Target {
            routine: RoutineName::new("hello").unwrap(),
            entry: root.join("index.js"),
            root: root.to_path_buf(),
            check: false,
            follow,
            glob: None,
        };
        plan.add(0, &target);
        plan
    }

    fn watched(plan: &Plan) -> Vec<PathBuf> {
        let mut watched: Vec<_> = plan.directories.keys().cloned().collect();
        watched.sort();
        watched
    }

    #[test]
    fn a_plan_holds_the_root_its_parent_and_the_directory_a_link_leads_to() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        let root = base.join("root");
        fs::create_dir_all(root.join("dist")).unwrap();
        fs::create_dir(base.join("private")).unwrap();
        fs::write(root.join("dist/out.js"), "1").unwrap();
        symlink("dist/out.js", root.join("index.js")).unwrap();
        let plan = plan(&root, false, &base.join("private"));
        assert_eq!(
            watched(&plan),
            [
                base.clone(),
                base.join("private"),
                root.clone(),
                root.join("dist")
            ]
        );
        assert_eq!(plan.entries[&root.join("index.js")], [0]);
        assert_eq!(plan.entries[&root.join("dist/out.js")], [0]);
        assert_eq!(plan.homes.len(), 2);
        assert_eq!(plan.users([&root, &base]), HashSet::from([0]));
        assert_eq!(plan.users([&base.join("private")]), HashSet::new());
    }

    #[test]
    fn of_a_root_that_is_missing_the_nearest_ancestor_is_watched_for_the_next_name() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        let plan = plan(&base.join("a/b/c"), false, Path::new("/gone"));
        assert_eq!(watched(&plan), std::slice::from_ref(&base));
        assert!(plan.ways.contains(&base.join("a")));
        assert!(plan.homes.is_empty());
        assert_eq!(first_missing(&base.join("a/b/c")), Some(base.join("a")));
    }

    #[test]
    fn a_file_on_the_way_to_a_root_is_watched_for_a_directory_in_its_place() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        fs::write(base.join("a"), "").unwrap();
        let plan = plan(&base.join("a/b"), false, Path::new("/gone"));
        assert_eq!(watched(&plan), std::slice::from_ref(&base));
        assert!(plan.ways.contains(&base.join("a")));
    }

    #[test]
    fn a_root_behind_a_link_is_watched_where_it_is_and_where_the_link_is() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("releases/1/src")).unwrap();
        symlink("releases/1", base.join("current")).unwrap();
        let plan = plan(&base.join("current/src"), false, Path::new("/gone"));
        let release = base.join("releases/1");
        assert_eq!(
            watched(&plan),
            [base.clone(), release.clone(), release.join("src")]
        );
        assert!(plan.ways.contains(&base.join("current")));
        assert!(plan.entries.contains_key(&release.join("src/index.js")));
    }

    #[test]
    fn every_link_on_the_way_out_of_a_root_is_watched_only_where_that_is_followed() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        let root = base.join("root");
        for path in ["root", "releases/1", "hop"] {
            fs::create_dir_all(base.join(path)).unwrap();
        }
        symlink("../hop/hop.js", root.join("index.js")).unwrap();
        symlink("../current/out.js", base.join("hop/hop.js")).unwrap();
        symlink("releases/1", base.join("current")).unwrap();
        let held = plan(&root, false, Path::new("/gone"));
        assert_eq!(watched(&held), [base.clone(), root.clone()]);
        // The file itself is still to come.
        let followed = plan(&root, true, Path::new("/gone"));
        let releases = base.join("releases");
        let release = releases.join("1");
        let homes = [base.join("hop"), releases, release.clone(), root];
        assert_eq!(watched(&followed)[1..], homes);
        for path in ["root/index.js", "hop/hop.js", "releases/1/out.js"] {
            assert!(followed.entries.contains_key(&base.join(path)), "{path}");
        }
        assert!(followed.ways.contains(&base.join("current")));
    }
}
