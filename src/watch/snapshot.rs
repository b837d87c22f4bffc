//! What the disk holds: whether an entry changed, the digest of its bytes, and how many files lie beside it.
//!
//! Nothing here decides when to look.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Target;
use super::select::{IGNORE_FILES, PatternError, Rules, Select, Verdict};
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

/// The same on a file system that keeps whole seconds, or every second one.
const COARSE_GRAIN: Duration = Duration::from_secs(2);

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StatKey {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    length: u64,
    links: u64,
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

impl StatKey {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
            links: metadata.nlink(),
        }
    }

    /// The device that the file is on.
    pub(super) fn device(&self) -> u64 {
        self.device
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the file has other names than the one it was found at.
    pub(super) fn has_other_names(&self) -> bool {
        self.links > 1
    }

    /// What stands for it where there are many; never 0.
    pub(super) fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish() | 1
    }

    /// The length of the file, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Whether a write after `now` could leave the very same key.
    pub(super) fn is_racy(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) =
            (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        let grain = match (self.modified.1, self.changed.1) {
            (0, 0) => COARSE_GRAIN,
            _ => CLOCK_GRAIN,
        };
        now.duration_since(changed).is_ok_and(|age| age < grain)
    }
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
        // It says nothing of the file, as when no file can be opened at all. Without a key every look tries again.
        Err(SourceError::Io { .. }) => Some(Seen {
            key: None,
            digest: None,
            racy: false,
        }),
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

/// The rules of a root, with what the ignore files in one of its directories and on the way there say.
pub(super) fn rules(rules: &Rules, root: &Path, directory: &Path) -> Rules {
    let top = repository(root).unwrap_or(root);
    let ways = directory.ancestors();
    let ways = ways.take_while(|path| path.starts_with(top));
    rules.with(ways.flat_map(ignore_files))
}

/// The top of the git repository that a directory is in.
fn repository(directory: &Path) -> Option<&Path> {
    let is_top = |path: &&Path| fs::symlink_metadata(path.join(".git")).is_ok();
    directory.ancestors().find(is_top)
}

/// The ignore files of a directory. Like git, it does not follow a link that is in the place of one, and of a file that is
/// not UTF-8 every line counts that is.
pub(super) fn ignore_files(directory: &Path) -> impl Iterator<Item = (PathBuf, String)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routine::RoutineName;
    use crate::watch::tests::directory;

    fn target(root: &Path, name: &str) -> Target {
        Target {
            routine: RoutineName::new("hello").unwrap(),
            entry: root.join(name),
            root: root.to_path_buf(),
            check: false,
            follow: false,
            glob: None,
        }
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
    fn a_key_in_whole_seconds_is_racy_for_longer() {
        let key = StatKey {
            device: 1,
            inode: 1,
            modified: (1_000, 0),
            changed: (1_000, 0),
            length: 1,
            links: 1,
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert!(key.is_racy(changed + Duration::from_millis(1_999)));
        assert!(!key.is_racy(changed + Duration::from_millis(2_000)));
        let copied = StatKey {
            changed: (1_000, 1),
            ..key
        };
        assert!(!copied.is_racy(changed + Duration::from_millis(1_000)));
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
