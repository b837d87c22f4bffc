//! What the disk holds: which directories have to be watched, whether an entry changed, and the digest of its bytes.
//!
//! Nothing here decides when to look. A [`Plan`] is made anew for every look, because a directory that was removed and
//! made again is another one under the same name.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Target;
use super::select::{IGNORE_FILES, PatternError, Select, Verdict};
use super::source::{self, SourceError};
use crate::config::Pattern;
use crate::routine::Digest;

/// How many files are counted at most; beyond it the number shown stays there.
const MAX_COUNTED: usize = 10_000;

/// The longest ignore file that is read, in bytes; the rules of a longer one do not count.
const MAX_IGNORE_BYTES: u64 = 256 * 1024;

/// Two writes within this of each other may leave the same times on a file: the grain of the kernel's clock is 10 ms
/// at most.
const CLOCK_GRAIN: Duration = Duration::from_millis(20);

/// What tells one directory from another of the same name: its device and inode number.
pub(super) type DirectoryId = (u64, u64);

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatKey {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    length: u64,
}

/// The state of an entry at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// `None` if there is nothing at its path.
    pub(super) key: Option<StatKey>,
    /// The digest of its bytes; `None` if it has none that could go up.
    pub(super) digest: Option<Digest>,
    /// Whether a later write could leave the very same key.
    pub(super) racy: bool,
}

/// Where to watch, and what to listen for there.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The directories to watch, by the paths that their events carry.
    pub(super) directories: HashMap<PathBuf, DirectoryId>,
    /// The files that matter, with the numbers of their routines.
    pub(super) entries: HashMap<PathBuf, Vec<usize>>,
    /// The paths where a directory that comes or goes makes a new plan necessary.
    pub(super) ways: HashSet<PathBuf>,
    /// The directories that entries are in.
    pub(super) homes: HashSet<PathBuf>,
    /// The directory for markers, if it is there.
    pub(super) private: Option<PathBuf>,
    /// The system keeps one watch an inode, so a directory that is reachable by two paths gets one of them.
    known: HashMap<DirectoryId, PathBuf>,
}

impl StatKey {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn is_racy(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) =
            (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        now.duration_since(changed)
            .is_ok_and(|age| age < CLOCK_GRAIN)
    }
}

impl Plan {
    /// Looks where the entries of these targets are now.
    pub(super) fn new(targets: &[Target], private: &Path) -> Self {
        let mut plan = Self::default();
        for (routine, target) in targets.iter().enumerate() {
            plan.file(routine, &target.entry);
            if let Some(destination) = destination(target) {
                plan.file(routine, &destination);
            }
        }
        plan.private = plan.directory(private);
        plan
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

    fn file(&mut self, routine: usize, path: &Path) {
        let (Some(home), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        if let Some(home) = self.way_to(home) {
            let routines = self.entries.entry(home.join(name)).or_default();
            if !routines.contains(&routine) {
                routines.push(routine);
            }
            self.homes.insert(home);
        }
    }

    /// Watches a directory and what tells of its coming and going: the directory it really is in, and the nearest one
    /// that exists on the way its path takes.
    fn way_to(&mut self, path: &Path) -> Option<PathBuf> {
        let mut below = path;
        for ancestor in path.ancestors().skip(1) {
            if let Some(directory) = self.directory(ancestor) {
                self.ways
                    .extend(below.file_name().map(|name| directory.join(name)));
                break;
            }
            below = ancestor;
        }
        let directory = self.directory(path)?;
        if let Some(parent) = directory.parent() {
            self.directory(parent);
        }
        Some(directory)
    }

    fn directory(&mut self, path: &Path) -> Option<PathBuf> {
        let real = path.canonicalize().ok()?;
        let id = directory_id(&real)?;
        let path = self.known.entry(id).or_insert(real).clone();
        self.directories.insert(path.clone(), id);
        self.ways.insert(path.clone());
        Some(path)
    }
}

/// The device and inode number of a directory; `None` if there is none.
pub(super) fn directory_id(path: &Path) -> Option<DirectoryId> {
    let metadata = fs::metadata(path).ok()?;
    metadata.is_dir().then(|| (metadata.dev(), metadata.ino()))
}

/// The stat key of an entry; `None` if there is nothing at its path.
pub(super) fn look(target: &Target) -> Option<StatKey> {
    let metadata = fs::metadata(&target.entry).ok()?;
    Some(StatKey::of(&metadata))
}

/// Reads and hashes an entry; `None` if it changed while it was read.
pub(super) fn read(target: &Target) -> Option<Seen> {
    match source::bytes(target) {
        Ok((bytes, key)) => Some(Seen {
            key: Some(key),
            digest: Some(Digest::of(&bytes)),
            racy: key.is_racy(SystemTime::now()),
        }),
        Err(SourceError::Changing { .. }) => None,
        Err(_) => Some(Seen {
            key: look(target),
            digest: None,
            racy: false,
        }),
    }
}

/// The rules for what lies in these directories, with what the ignore files there and on the way there say.
pub(super) fn select(
    targets: &[Target],
    directories: &HashSet<&Path>,
    patterns: &[Pattern],
) -> Result<Select, PatternError> {
    let roots: HashSet<&Path> = targets.iter().map(|target| target.root.as_path()).collect();
    let rules = roots.into_iter().filter_map(|root| {
        let top = repository(root).unwrap_or(root);
        let inside = directories.iter().filter(|path| path.starts_with(root));
        let ways = inside.flat_map(|path| path.ancestors().take_while(|up| up.starts_with(top)));
        let ways: HashSet<&Path> = ways.collect();
        let files = ways.iter().flat_map(|directory| ignore_files(directory));
        (!ways.is_empty()).then(|| (root.to_path_buf(), files.collect()))
    });
    Select::new(targets, rules.collect(), patterns)
}

/// The top of the git repository that a directory is in.
fn repository(directory: &Path) -> Option<&Path> {
    let is_top = |path: &&Path| fs::symlink_metadata(path.join(".git")).is_ok();
    directory.ancestors().find(is_top)
}

/// The ignore files of a directory. Like git, it does not follow a link that is in the place of one, and of a file that is
/// not UTF-8 every line counts that is.
fn ignore_files(directory: &Path) -> impl Iterator<Item = (PathBuf, String)> {
    IGNORE_FILES.iter().filter_map(|name| {
        let path = directory.join(name);
        let metadata = fs::symlink_metadata(&path).ok()?;
        let fits = metadata.is_file() && metadata.len() <= MAX_IGNORE_BYTES;
        let bytes = fits.then(|| fs::read(&path).ok())??;
        Some((path, String::from_utf8_lossy(&bytes).into_owned()))
    })
}

/// How many files lie in the directories of these targets, ignored ones left out.
pub(super) fn count(targets: &[Target], select: &Select) -> usize {
    let listings = homes(targets)
        .into_iter()
        .filter_map(|home| fs::read_dir(home).ok());
    let files = listings.flatten().flatten().filter(|file| {
        file.file_type().is_ok_and(|kind| !kind.is_dir())
            && !matches!(select.verdict(&file.path()), Verdict::Ignored(_))
    });
    files.take(MAX_COUNTED).count()
}

/// The directories that the entries of these targets are in.
pub(super) fn homes(targets: &[Target]) -> HashSet<&Path> {
    targets
        .iter()
        .filter_map(|target| target.entry.parent())
        .collect()
}

/// Where an entry that is a symbolic link leads, as long as that is within its root or nowhere yet.
fn destination(target: &Target) -> Option<PathBuf> {
    let link = fs::read_link(&target.entry).ok()?;
    match (target.entry.canonicalize(), target.root.canonicalize()) {
        (Ok(real), Ok(root)) => real.starts_with(root).then_some(real),
        _ => Some(target.entry.parent()?.join(link)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::routine::RoutineName;
    use crate::watch::tests::directory;

    fn target(root: &Path, name: &str) -> Target {
        Target {
            routine: RoutineName::new("hello").unwrap(),
            entry: root.join(name),
            root: root.to_path_buf(),
            check: false,
        }
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
        let plan = Plan::new(&[target(&root, "index.js")], &base.join("private"));
        let mut watched: Vec<_> = plan.directories.keys().cloned().collect();
        watched.sort();
        assert_eq!(
            watched,
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
    }

    #[test]
    fn of_a_root_that_is_missing_the_nearest_ancestor_is_watched_for_the_next_name() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        let plan = Plan::new(
            &[target(&base.join("a/b/c"), "index.js")],
            Path::new("/gone"),
        );
        assert_eq!(plan.directories.keys().collect::<Vec<_>>(), [&base]);
        assert!(plan.ways.contains(&base.join("a")));
        assert!(plan.homes.is_empty());
    }

    #[test]
    fn a_root_behind_a_link_is_watched_where_it_is_and_where_the_link_is() {
        let dir = directory();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("releases/1")).unwrap();
        symlink("releases/1", base.join("current")).unwrap();
        let plan = Plan::new(
            &[target(&base.join("current"), "index.js")],
            Path::new("/gone"),
        );
        let mut watched: Vec<_> = plan.directories.keys().cloned().collect();
        watched.sort();
        let releases = base.join("releases");
        assert_eq!(
            watched,
            [base.clone(), releases.clone(), releases.join("1")]
        );
        assert!(plan.ways.contains(&base.join("current")));
        assert!(plan.entries.contains_key(&releases.join("1/index.js")));
    }

    #[test]
    fn the_key_changes_when_only_the_inode_or_the_change_time_does() {
        let dir = directory();
        let target = target(dir.path(), "index.js");
        fs::write(&target.entry, "aaaa").unwrap();
        let modified = fs::metadata(&target.entry).unwrap().modified().unwrap();
        let before = look(&target);
        // Other bytes of the same length, with the old time put back.
        let other = dir.path().join("other.js");
        fs::write(&other, "bbbb").unwrap();
        let file = fs::File::options().write(true).open(&other).unwrap();
        file.set_modified(modified).unwrap();
        fs::rename(&other, &target.entry).unwrap();
        assert_ne!(look(&target), before);
        let (seen, key) = (read(&target).unwrap(), look(&target));
        assert_eq!(seen.key, key);
        assert_eq!(seen.digest, Some(Digest::of(b"bbbb")));
    }

    #[test]
    fn a_key_is_racy_only_while_the_clock_has_hardly_moved_since() {
        let dir = directory();
        let target = target(dir.path(), "index.js");
        fs::write(&target.entry, "1").unwrap();
        let key = look(&target).unwrap();
        let changed = fs::metadata(&target.entry).unwrap().modified().unwrap();
        assert!(key.is_racy(changed + Duration::from_millis(19)));
        assert!(!key.is_racy(changed + Duration::from_millis(20)));
    }

    #[test]
    fn ignored_files_are_not_counted_and_entries_always_are() {
        let dir = directory();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["index.js", "lib.js", "a.map", "index.js~"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        // Otherwise it lies in the repository that the tests are built in.
        fs::create_dir(dir.path().join(".git")).unwrap();
        fs::write(
            dir.path().join(".gitignore"),
            "*.map\nindex.js\n.gitignore\n",
        )
        .unwrap();
        let targets = [target(dir.path(), "index.js")];
        let rules = select(&targets, &homes(&targets), &[]).unwrap();
        assert_eq!(count(&targets, &rules), 2);
    }
}
