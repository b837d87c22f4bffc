//! The two locks of a routine, which keep several er-dev on one machine out of each other's way.
//!
//! The *watch* lock is held by a `watch` for its life. The *step* lock is held for one pass by whoever deploys or
//! deletes, and counts the passes that changed something: who finds the count moved lists again. Both are locks of the
//! kernel on a file, so that a killed process leaves none behind.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a taken step lock is looked at.
const RETRY: Duration = Duration::from_millis(20);

/// How often a lock file that is removed while it is being locked is opened anew.
const MAX_REOPENS: usize = 10;

/// The right to watch a routine; given back when dropped.
#[derive(Debug)]
pub struct WatchLock {
    _file: File,
}

/// The right to change a routine; given back when dropped.
#[derive(Debug)]
pub struct StepLock {
    file: File,
    generation: u64,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another er-dev has it, by this process number where it is known.
    #[error("another er-dev has it{}", .0.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held(Option<u32>),
    /// The lock file cannot be used.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// Takes the watch lock of the routine whose directory this is, at once or not at all.
pub fn watch(dir: &Path) -> Result<WatchLock, LockError> {
    let path = dir.join("watch.lock");
    let failed = |error| LockError::Io {
        path: path.clone(),
        error,
    };
    let mut file = match locked(&path).map_err(failed)? {
        Ok(file) => file,
        Err(file) => {
            return Err(LockError::Held(
                number(file)
                    .map_err(failed)?
                    .and_then(|n| n.try_into().ok()),
            ));
        }
    };
    write_number(&mut file, u64::from(std::process::id())).map_err(failed)?;
    Ok(WatchLock { _file: file })
}

/// Takes the step lock of the routine whose directory this is; waits at most this long.
pub async fn step(dir: &Path, patience: Duration) -> Result<StepLock, LockError> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match step_now(dir) {
            Err(LockError::Held(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(RETRY).await;
            }
            taken => return taken,
        }
    }
}

/// The same at once or not at all.
pub fn step_now(dir: &Path) -> Result<StepLock, LockError> {
    let path = dir.join("step.lock");
    let failed = |error| LockError::Io {
        path: path.clone(),
        error,
    };
    let Ok(file) = locked(&path).map_err(failed)? else {
        return Err(LockError::Held(None));
    };
    let generation = number(file.try_clone().map_err(failed)?)
        .map_err(failed)?
        .unwrap_or(0);
    Ok(StepLock { file, generation })
}

/// How many passes have changed something, as far as can be told without the lock; 0 where there is no file yet.
pub fn generation(dir: &Path) -> u64 {
    let file = File::open(dir.join("step.lock")).ok();
    file.and_then(|file| number(file).ok().flatten())
        .unwrap_or(0)
}

impl StepLock {
    /// How many passes have changed something. A count that moved means that a listing from before is worth nothing.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Counts this pass, before it changes something.
    pub fn raise(&mut self) -> io::Result<()> {
        self.generation += 1;
        write_number(&mut self.file, self.generation)
    }
}

/// Opens and locks a file; the inner `Err` is the file of somebody else's lock.
fn locked(path: &Path) -> io::Result<Result<File, File>> {
    for _ in 0..MAX_REOPENS {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Err(file)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // A file removed in between locks out nobody who comes later.
        let ours = file.metadata()?;
        if std::fs::metadata(path)
            .is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev())
        {
            return Ok(Ok(file));
        }
    }
    Err(io::Error::other("the lock file is removed again and again"))
}

/// A lock can also be taken on a file that cannot be written any more.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let writing = options.read(true).write(true).create(true).truncate(false);
    writing
        .mode(0o600)
        .open(path)
        .or_else(|error| File::open(path).map_err(|_| error))
}

fn number(mut file: File) -> io::Result<Option<u64>> {
    let mut text = String::new();
    file.rewind()?;
    Read::take(&mut file, 64).read_to_string(&mut text)?;
    Ok(text.trim().parse().ok())
}

fn write_number(file: &mut File, number: u64) -> io::Result<()> {
    file.rewind()?;
    // Numbers only grow, so the new text covers the old one.
    file.write_all(format!("{number:<20}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_watch_is_told_who_has_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = watch(dir.path()).unwrap();
        let Err(LockError::Held(pid)) = watch(dir.path()) else {
            panic!()
        };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        assert!(watch(dir.path()).is_ok());
    }

    #[test]
    fn d10_a_removed_lock_file_does_not_let_two_in() {
        let dir = tempfile::tempdir().unwrap();
        let _first = watch(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("watch.lock")).unwrap();
        let second = watch(dir.path()).unwrap();
        assert!(matches!(watch(dir.path()), Err(LockError::Held(_))));
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_lock_is_waited_for_and_its_count_is_seen_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let second = Duration::from_secs(1);
        let mut first = step(dir.path(), second).await.unwrap();
        assert_eq!(first.generation(), 0);
        let begun = tokio::time::Instant::now();
        assert!(matches!(
            step(dir.path(), second).await,
            Err(LockError::Held(_))
        ));
        assert!(begun.elapsed() >= second);
        first.raise().unwrap();
        drop(first);
        assert_eq!(step(dir.path(), second).await.unwrap().generation(), 1);
    }
}
