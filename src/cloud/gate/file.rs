//! A small file of a few bytes that processes lock in turn. The kernel gives the lock back when a process dies.
//!
//! It stays open from one use to the next; when somebody removed it, or its directory, it is made anew. Nothing here
//! waits: whoever finds it locked decides what to do.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How often a file that is removed while it is being locked is opened anew.
const MAX_REOPENS: usize = 10;

/// A file to lock.
#[derive(Debug)]
pub(super) struct LockFile {
    path: PathBuf,
    file: Option<File>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}", path = path.display())]
pub(super) struct Unusable {
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// Who may lock it besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody.
    Alone,
    /// Others of this kind.
    Together,
}

impl LockFile {
    /// The file of this name in a directory. Touches nothing yet.
    pub(super) fn new(dir: &Path, name: &str) -> Self {
        Self {
            path: dir.join(name),
            file: None,
        }
    }

    /// Locks the file, which is made where it is missing. Tells whether nobody else has it.
    pub(super) fn try_lock(&mut self, kind: Kind) -> Result<bool, Unusable> {
        for _ in 0..MAX_REOPENS {
            let file = match self.file.take() {
                Some(file) => file,
                None => self.open().map_err(|error| self.unusable(error))?,
            };
            let locked = match kind {
                Kind::Alone => file.try_lock(),
                Kind::Together => file.try_lock_shared(),
            };
            let locked = match locked {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(self.unusable(error)),
            };
            // A file that was removed locks out nobody who comes later.
            if self.is_there(&file).map_err(|error| self.unusable(error))? {
                self.file = Some(file);
                return Ok(locked);
            }
        }
        let error = io::Error::other("the file is removed again and again");
        Err(self.unusable(error))
    }

    /// Gives the lock back.
    pub(super) fn unlock(&self) {
        // Where this fails, the lock ends with the process.
        let _ = self.file.as_ref().map(File::unlock);
    }

    /// Reads the file as far as it has `N` bytes; a longer one shows by its `N` bytes.
    pub(super) fn read<const N: usize>(&self) -> Result<Vec<u8>, Unusable> {
        let mut bytes = [0; N];
        let read = self
            .opened()
            .and_then(|file| file.read_at(&mut bytes, 0))
            .map_err(|error| self.unusable(error))?;
        Ok(bytes[..read].to_vec())
    }

    /// Writes over the start of the file, in one go. No `fsync`: what a crash of the machine loses is of no use after it.
    pub(super) fn write(&self, text: &str) -> Result<(), Unusable> {
        let written = self
            .opened()
            .and_then(|file| file.write_at(text.as_bytes(), 0));
        match written {
            Ok(written) if written == text.len() => Ok(()),
            Ok(_) => Err(self.unusable(io::ErrorKind::StorageFull.into())),
            Err(error) => Err(self.unusable(error)),
        }
    }

    /// Cuts the file off behind so many bytes.
    pub(super) fn cut(&self, length: usize) -> Result<(), Unusable> {
        self.opened()
            .and_then(|file| file.set_len(length as u64))
            .map_err(|error| self.unusable(error))
    }

    /// Why this file is of no use.
    pub(super) fn unusable(&self, error: io::Error) -> Unusable {
        Unusable {
            path: self.path.clone(),
            error,
        }
    }

    fn opened(&self) -> io::Result<&File> {
        self.file
            .as_ref()
            .ok_or_else(|| io::Error::other("the file is not open"))
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let opened = options.mode(0o600).open(&self.path);
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let dir = self.path.parent().unwrap_or(Path::new("."));
                DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
                options.open(&self.path)
            }
            opened => opened,
        }
    }

    /// Whether the path still leads to this file.
    fn is_there(&self, file: &File) -> io::Result<bool> {
        let ours = file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
