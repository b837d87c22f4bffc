//! Credential files: which ones are read at all, and whether one was changed since.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::error::CredentialsError;
use crate::secrets::Text;

/// The largest credential file that is read, in bytes; a larger one is [`CredentialsError::TooLarge`].
pub(super) const MAX_FILE_BYTES: u64 = 64 * 1024;

/// What a file looks like from outside. Whoever writes it changes this, also when size and time stay the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Option<[i64; 7]>);

/// What a file looks like now.
pub(super) fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::symlink_metadata(path).ok();
    Stamp(metadata.map(|metadata| {
        [
            metadata.ino().cast_signed(),
            metadata.size().cast_signed(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            i64::from(metadata.mode()),
        ]
    }))
}

/// The text of a credential file without the line break that editors leave at its end; `None` if there is no file.
///
/// Links are not followed, and opening does not wait for the other end of a pipe.
pub(super) fn read(path: &Path) -> Result<Option<Text>, CredentialsError> {
    read_unless(path, |mode, _, _| mode & 0o077 != 0)
}

/// The same of a file that systemd made for a service.
pub(super) fn read_credential(path: &Path) -> Result<Option<Text>, CredentialsError> {
    read_unless(path, open_to_others)
}

fn read_unless(
    path: &Path,
    open_to_others: fn(u32, u32, u32) -> bool,
) -> Result<Option<Text>, CredentialsError> {
    let unreadable = |source| CredentialsError::Unreadable {
        file: path.to_owned(),
        source,
    };
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        // Without a directory there is no file either.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        // A link says LOOP, a socket NXIO.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
            return Err(CredentialsError::NotAFile(path.to_owned()));
        }
        Err(error) => return Err(unreadable(error.into())),
    };
    check_directory(path)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(CredentialsError::NotAFile(path.to_owned()));
    }
    if !is_of(metadata.uid(), rustix::process::geteuid().as_raw()) {
        return Err(CredentialsError::OtherOwner(path.to_owned()));
    }
    if open_to_others(metadata.mode(), metadata.uid(), metadata.gid()) {
        return Err(CredentialsError::OpenToOthers {
            file: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    // With room for all of it from the start, so that no part of it is left behind where it was moved from.
    let room = usize::try_from(metadata.len().min(MAX_FILE_BYTES) + 2).unwrap_or_default();
    let mut text = Text::new(String::with_capacity(room));
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(CredentialsError::TooLarge(path.to_owned()));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Some(text))
}

/// Whoever may write to the directory of a file can put another one there. Below a directory such as `/tmp` nobody can
/// touch what belongs to another.
fn check_directory(path: &Path) -> Result<(), CredentialsError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let metadata = std::fs::metadata(dir).map_err(|source| CredentialsError::Unreadable {
        file: dir.to_owned(),
        source,
    })?;
    let mode = metadata.mode();
    if !is_of(metadata.uid(), rustix::process::geteuid().as_raw()) {
        return Err(CredentialsError::OtherOwner(dir.to_owned()));
    }
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        return Err(CredentialsError::OpenDirectory {
            dir: dir.to_owned(),
            mode: mode & 0o7777,
        });
    }
    Ok(())
}

/// Whether a file is this user's own, or root's, who could do anything anyway.
fn is_of(owner: u32, user: u32) -> bool {
    owner == user || owner == 0
}

/// Whether anybody but the owner may read or change a file that systemd made.
///
/// For a service with a user of its own, systemd leaves the file to root and lets that one user in by an access control
/// list. The mode then shows the list's mask in the place of the group (0440), though no group may read the file. So
/// reading by the group is accepted where the file is root's and the group is root's too.
fn open_to_others(mode: u32, uid: u32, gid: u32) -> bool {
    let open = mode & 0o077;
    open != 0 && !(open == 0o040 && uid == 0 && gid == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// systemd 254 and later show 0440 root:root to a service that runs as a user of its own.
    #[test]
    fn the_mask_of_an_access_control_list_on_a_file_of_root_is_not_taken_for_its_group() {
        assert!(!open_to_others(0o100_440, 0, 0));
        assert!(open_to_others(0o100_440, 1000, 0));
        assert!(open_to_others(0o100_440, 0, 1000));
        assert!(open_to_others(0o100_444, 0, 0));
        assert!(open_to_others(0o100_460, 0, 0));
        assert!(!open_to_others(0o100_600, 1000, 1000));
    }

    #[test]
    fn f03_a_file_is_read_that_is_this_users_or_roots_and_nobody_elses() {
        assert!(is_of(1000, 1000) && is_of(0, 1000) && is_of(0, 0));
        assert!(!is_of(1001, 1000) && !is_of(1000, 0));
    }

    #[test]
    fn a_file_that_is_written_again_looks_different_even_with_the_same_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let none = stamp(&path);
        std::fs::write(&path, "one").unwrap();
        let first = stamp(&path);
        assert_ne!(none, first);
        assert_eq!(first, stamp(&path));
        let other = dir.path().join("other");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(first, stamp(&path));
    }
}
