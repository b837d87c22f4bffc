//! What git says of an entry: the commit that is checked out, its branch, and whether that commit holds the bytes that
//! go up.
//!
//! Git's own files are read, and git is never run: it may not be there, and what a repository tells it to run is nobody's
//! business here. Nothing of this may hold an upload up, so it has a time limit, and whatever cannot be told is left out.

mod index;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ignore::Match;
use ignore::gitignore::Gitignore;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use super::template::{Commit, Holds};
use crate::routine::Code;
use index::{Entry, Index};

/// How long an upload waits for what git says.
const LIMIT: Duration = Duration::from_millis(300);

/// How long the files of a repository are looked at. After that it is not known whether one has changed.
const LOOK: Duration = Duration::from_millis(200);

/// The most directories above an entry that are looked at.
const MAX_LEVELS: usize = 64;

/// How often a reference may name another one.
const MAX_REFERENCES: usize = 5;

/// The largest file that names something, in bytes.
const MAX_SMALL_BYTES: u64 = 4096;

/// The largest list of references or files, in bytes: an index of this size is of some 500,000 files.
const MAX_LARGE_BYTES: u64 = 64 * 1024 * 1024;

/// The largest file that is hashed because git is not sure of it, in bytes.
const MAX_HASHED_BYTES: u64 = crate::routine::MAX_CODE_BYTES;

/// What git says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The commit that is checked out.
    pub commit: Option<Commit>,
    /// Its branch; empty if it is on none.
    pub branch: String,
}

/// Asks for what git says, one question at a time.
#[derive(Debug, Default)]
pub struct Git {
    busy: Arc<AtomicBool>,
}

impl Git {
    /// What git says of an entry that goes up with this code. Says nothing when that takes too long, or when an earlier
    /// question still waits for its file system.
    pub async fn ask(&self, entry: &Path, code: &Code) -> Found {
        if self.busy.swap(true, Ordering::Acquire) {
            return Found::default();
        }
        let (busy, entry, code) = (Arc::clone(&self.busy), entry.to_owned(), code.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let found = look(&entry, &code, Instant::now() + LOOK);
            busy.store(false, Ordering::Release);
            found
        });
        match tokio::time::timeout(LIMIT, asked).await {
            Ok(Ok(found)) => found.unwrap_or_default(),
            Ok(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Found::default(),
        }
    }
}

/// A repository and a working tree of it.
struct Repository {
    /// The top of the working tree.
    top: PathBuf,
    /// What belongs to this working tree alone: `HEAD` and the index.
    own: PathBuf,
    /// What all working trees of the repository share.
    common: PathBuf,
}

fn look(entry: &Path, code: &Code, until: Instant) -> Option<Found> {
    // Git has the file that a link leads to, and not what lies behind a link.
    let entry = fs::canonicalize(entry).ok()?;
    let repository = Repository::around(&entry)?;
    let head = small(&repository.own.join("HEAD"))?;
    let name = head.strip_prefix("ref:").map(str::trim);
    let branch = name.and_then(|name| name.strip_prefix("refs/heads/"));
    // Where references lie in tables, a name that no branch can have stands here.
    let branch = branch.filter(|branch| !branch.starts_with('.'));
    let branch = branch.unwrap_or_default().to_owned();
    let hash = match name {
        Some(name) => repository.resolve(name, MAX_REFERENCES),
        None => Some(head),
    };
    let commit = hash.and_then(|hash| {
        let holds = repository.holds(&entry, code, hash.len() / 2, until);
        Commit::new(&hash, holds)
    });
    Some(Found { commit, branch })
}

impl Repository {
    fn around(entry: &Path) -> Option<Self> {
        let mut above = entry.ancestors().skip(1).take(MAX_LEVELS);
        above.find_map(Self::at)
    }

    /// The repository of a working tree with this top, if it is one: `.git` is a directory there, or in other working
    /// trees and in submodules a file that names one.
    fn at(top: &Path) -> Option<Self> {
        let git = top.join(".git");
        let own = match small(&git) {
            Some(text) => top.join(text.strip_prefix("gitdir:")?.trim()),
            None => git,
        };
        let common = match small(&own.join("commondir")) {
            Some(text) => own.join(text),
            None => own.clone(),
        };
        let repository = Self {
            top: top.to_owned(),
            own,
            common,
        };
        repository.own.join("HEAD").is_file().then_some(repository)
    }

    /// The hash that a reference stands for.
    fn resolve(&self, name: &str, depth: usize) -> Option<String> {
        let plain = name.starts_with("refs/") && name.split('/').all(|it| !it.starts_with('.'));
        if !plain || depth == 0 {
            return None;
        }
        match small(&self.common.join(name)) {
            Some(text) => match text.strip_prefix("ref:") {
                Some(other) => self.resolve(other.trim(), depth - 1),
                None => Some(text),
            },
            None => self.packed(name),
        }
    }

    fn packed(&self, name: &str) -> Option<String> {
        let packed = read(&self.common.join("packed-refs"), MAX_LARGE_BYTES)?;
        let mut lines = packed.split(|byte| *byte == b'\n');
        let line = lines.find(|line| {
            let name_of = line.strip_suffix(name.as_bytes());
            name_of.is_some_and(|rest| rest.ends_with(b" ") && !rest.starts_with(b"#"))
        })?;
        let hash = line.split(|byte| *byte == b' ').next()?;
        String::from_utf8(hash.to_vec()).ok()
    }

    /// Whether the commit that is checked out holds the code, as far as the index tells: it has the same bytes for the
    /// entry, and nothing beside the entry waits to be committed.
    ///
    /// An entry that git is told to ignore is made from something else. Then it is asked of all files.
    fn holds(&self, entry: &Path, code: &Code, hash_len: usize, until: Instant) -> Holds {
        let Some(path) = entry.strip_prefix(&self.top).ok() else {
            return Holds::Unknown;
        };
        let Some(file) = read(&self.own.join("index"), MAX_LARGE_BYTES) else {
            return Holds::No;
        };
        let Some(index) = Index::read(&file, hash_len) else {
            return Holds::Unknown;
        };
        let path = path.as_os_str().as_bytes();
        let (mut known, mut same) = (false, true);
        let read = index.visit(|it| {
            if it.path == path {
                known = true;
                same &= !it.conflict && blob(code.bytes(), hash_len) == it.hash;
            }
            true
        });
        let directory = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        match read {
            None => Holds::Unknown,
            Some(_) if known => holds(same && !index.is_staged(&path[..directory])),
            Some(_) if self.ignores(entry) => self.holds_all(&index, hash_len, until),
            Some(_) => Holds::No,
        }
    }

    /// Whether all files are as git has them, and nothing waits to be committed.
    fn holds_all(&self, index: &Index<'_>, hash_len: usize, until: Instant) -> Holds {
        if index.is_staged(b"") {
            return Holds::No;
        }
        let (mut same, mut in_time) = (true, true);
        let read = index.visit(|it| {
            in_time = Instant::now() < until;
            same = !it.conflict && (it.unwatched || self.is_same(it, hash_len));
            same && in_time
        });
        match read {
            Some(_) if !same => Holds::No,
            Some(_) if in_time => Holds::Yes,
            _ => Holds::Unknown,
        }
    }

    /// Whether a file is what git has of it. One with the size and the time that git knows is not read.
    fn is_same(&self, entry: &Entry<'_>, hash_len: usize) -> bool {
        const KIND: u32 = 0o170_000;
        const FILE: u32 = 0o100_000;
        const LINK: u32 = 0o120_000;
        let path = self.top.join(OsStr::from_bytes(entry.path));
        // Of a submodule, and of a directory that is left out as a whole, only their commits are known.
        if !matches!(entry.mode & KIND, FILE | LINK) {
            return true;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            return false;
        };
        if metadata.mode() & KIND != entry.mode & KIND {
            return false;
        }
        let (seconds, nanoseconds) = entry.changed;
        let on_time = metadata.mtime() == i64::from(seconds)
            && (nanoseconds == 0 || metadata.mtime_nsec() == i64::from(nanoseconds));
        if on_time && metadata.size() & u64::from(u32::MAX) == u64::from(entry.size) {
            return true;
        }
        let bytes = if metadata.is_symlink() {
            let target = fs::read_link(&path).ok();
            target.map(|target| target.as_os_str().as_bytes().to_vec())
        } else {
            read(&path, MAX_HASHED_BYTES)
        };
        bytes.is_some_and(|bytes| blob(&bytes, hash_len) == entry.hash)
    }

    /// Whether a rule of the working tree lets git ignore the entry. The nearest file that has one decides.
    fn ignores(&self, entry: &Path) -> bool {
        let mut above = entry.ancestors().skip(1).take(MAX_LEVELS);
        let decided = above.find_map(|directory| {
            let inside = directory.starts_with(&self.top);
            let (rules, _) = Gitignore::new(directory.join(".gitignore"));
            match rules.matched_path_or_any_parents(entry.strip_prefix(directory).ok()?, false) {
                _ if !inside => Some(false),
                Match::Ignore(_) => Some(true),
                Match::Whitelist(_) => Some(false),
                Match::None => None,
            }
        });
        decided.unwrap_or(false)
    }
}

fn holds(yes: bool) -> Holds {
    if yes { Holds::Yes } else { Holds::No }
}

/// The hash that git gives these bytes, as a repository with hashes of this length has it.
fn blob(bytes: &[u8], hash_len: usize) -> Vec<u8> {
    let head = format!("blob {}\0", bytes.len());
    if hash_len == 32 {
        let hash = Sha256::new().chain_update(head).chain_update(bytes);
        return hash.finalize().to_vec();
    }
    let hash = Sha1::new().chain_update(head).chain_update(bytes);
    hash.finalize().to_vec()
}

/// The text of a file that names something, without the space around it.
fn small(path: &Path) -> Option<String> {
    let text = String::from_utf8(read(path, MAX_SMALL_BYTES)?).ok()?;
    Some(text.trim().to_owned())
}

/// A regular file that is no larger than this.
fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > most {
        return None;
    }
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    let read = file.take(most + 1).read_to_end(&mut bytes).ok()?;
    (read as u64 <= most).then_some(bytes)
}

#[cfg(test)]
mod tests;
