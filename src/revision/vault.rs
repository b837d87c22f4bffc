//! The code of what rotation deleted, kept on this machine.
//!
//! A version is saved here, safe from a power cut, before it is deleted on the service. Code is stored by its digest, so
//! that versions with the same bytes share one file; a record beside it says which version it was.
//!
//! ```text
//! <state>/<endpoint>/<routine>/vault/<sha256>.js        the code
//! <state>/<endpoint>/<routine>/vault/<revision>.json    which version held it, and why that one went
//! ```

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::cloud::{Environments, Listed};
use crate::routine::{Code, Digest, Revision};

use super::lock;

/// The most versions kept a routine; the oldest go first.
pub const MAX_VERSIONS: usize = 50;

/// The most code kept a routine, in bytes; the oldest versions go first.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The most code kept for all routines of a state directory, in bytes; the oldest versions of all go first.
pub const MAX_BYTES_OF_ALL: u64 = 256 * 1024 * 1024;

/// How much may be added before all vaults are looked at again: with many routines that takes a while.
const LOOK_AFTER: u64 = 8 * 1024 * 1024;

/// The form of a record.
const VERSION: u32 = 1;

/// All vaults of a state directory. Clones share what they count.
#[derive(Debug, Clone)]
pub struct Vaults {
    state: PathBuf,
    /// Bytes that were added since all vaults were looked at.
    added: Arc<AtomicU64>,
}

/// The vault of one routine.
#[derive(Debug, Clone)]
pub struct Vault {
    dir: PathBuf,
    all: Vaults,
}

/// A version that was deleted on the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    v: u32,
    /// Its number.
    pub revision: Revision,
    /// The digest of its code; `None` for a version that never had any.
    pub sha256: Option<Digest>,
    /// The size of its code.
    pub bytes: u64,
    /// When the service said it was made.
    pub created: Option<jiff::Timestamp>,
    /// Its description, with the mark if it had one.
    pub description: String,
    /// What was live where when it was saved.
    pub environments: Environments,
    /// Why it went and none of the older ones.
    #[serde(default)]
    pub reason: String,
    /// When it was saved, just before it was deleted.
    pub saved: jiff::Timestamp,
}

/// Why a kept version cannot be had back.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// It never had code.
    #[error("version {0} never had any code")]
    NoCode(Revision),
    /// Its file cannot be read.
    #[error("{path} cannot be read: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Its file holds something else.
    #[error("{path} does not hold what it was made of", path = .0.display())]
    Damaged(PathBuf),
}

/// Why a version was not saved, and so must not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Nothing can be saved: the disk is full, or the directory cannot be written.
    #[error(transparent)]
    Place(io::Error),
    /// This version cannot be saved; another one may well be.
    #[error(transparent)]
    Version(io::Error),
}

impl SaveError {
    /// A file could not be put in its place. What lies in the way there, or too small a limit for it, is in the way of
    /// this one alone.
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::FileTooLarge => Self::Version(error),
            _ => Self::Place(error),
        }
    }
}

impl Kept {
    /// What is to be kept of a listed version.
    pub fn new(
        listed: &Listed,
        environments: &Environments,
        code: Option<&Code>,
        reason: String,
        now: jiff::Timestamp,
    ) -> Self {
        Self {
            v: VERSION,
            revision: listed.revision.clone(),
            sha256: code.map(Code::digest),
            bytes: code.map_or(0, |code| code.bytes().len() as u64),
            created: listed.created,
            description: listed.description.clone(),
            environments: environments.clone(),
            reason,
            saved: now,
        }
    }
}

impl Vaults {
    /// The vaults of a state directory. Looks at nothing yet.
    pub fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            // Nobody knows what earlier runs have left.
            added: Arc::new(AtomicU64::new(LOOK_AFTER)),
        }
    }

    /// The vault in the directory of a routine. Makes nothing yet.
    pub fn of(&self, routine_dir: &Path) -> Vault {
        Vault {
            dir: routine_dir.join("vault"),
            all: self.clone(),
        }
    }

    /// Forgets the oldest versions of all vaults beyond the bound, unless little was added since this was last done. What
    /// lies in the vault `but` is left alone, and so is that of a routine another er-dev is busy with.
    fn forget_oldest(&self, but: &Vault, added: u64) -> io::Result<()> {
        if self.added.fetch_add(added, Ordering::Relaxed) + added < LOOK_AFTER {
            return Ok(());
        }
        self.added.store(0, Ordering::Relaxed);
        let vaults: Vec<Vault> = self.vaults()?;
        let mut bytes = 0;
        for vault in &vaults {
            bytes += vault.bytes()?;
        }
        let bound = MAX_BYTES_OF_ALL - LOOK_AFTER;
        if bytes <= bound {
            return Ok(());
        }
        let others = vaults.iter().filter(|vault| vault.dir != but.dir);
        let mut oldest = Vec::new();
        for vault in others {
            let kept = vault.list()?.into_iter();
            oldest.extend(kept.map(|kept| (kept.saved, vault, kept)));
        }
        oldest.sort_by_key(|(saved, ..)| *saved);
        for (_, vault, kept) in oldest {
            if bytes <= bound {
                break;
            }
            // Whoever holds the lock may be about to save a version with the same code.
            let routine = vault.dir.parent().unwrap_or(&vault.dir);
            if lock::step_now(routine).is_ok() {
                bytes = bytes.saturating_sub(vault.forget(&kept)?);
            }
        }
        Ok(())
    }

    fn vaults(&self) -> io::Result<Vec<Vault>> {
        let mut vaults = Vec::new();
        for service in directories(&self.state)? {
            for routine in directories(&service)? {
                let vault = self.of(&routine);
                if vault.dir.is_dir() {
                    vaults.push(vault);
                }
            }
        }
        Ok(vaults)
    }
}

impl Vault {
    /// Saves a version with its code, and forgets the oldest ones beyond the bounds.
    ///
    /// # Errors
    ///
    /// [`SaveError`] tells whether other versions can be saved nevertheless.
    pub fn save(&self, kept: &Kept, code: Option<&Code>) -> Result<(), SaveError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let record = self.record_path(&kept.revision);
        let record = record.map_err(SaveError::Version)?;
        let mut directory = fs::DirBuilder::new();
        let directory = directory.recursive(true).mode(0o700);
        directory.create(&self.dir).map_err(SaveError::Place)?;
        let mut added = 0;
        if let Some(code) = code {
            let path = self.code_path(code.digest());
            // What has the right name may have been damaged since, and what is saved now is deleted next.
            let kept = fs::read(&path).is_ok_and(|bytes| bytes == code.bytes());
            if !kept {
                self.write(&path, code.bytes()).map_err(SaveError::of)?;
                added = code.bytes().len() as u64;
            }
        }
        let text = serde_json::to_vec_pretty(kept).map_err(io::Error::other);
        let text = text.map_err(SaveError::Version)?;
        self.write(&record, &text).map_err(SaveError::of)?;
        // It is safe; that the oldest ones cannot be forgotten is no reason to keep it on the service.
        let forgotten = self.forget_oldest(&kept.revision);
        if let Err(error) = forgotten.and_then(|()| self.all.forget_oldest(self, added)) {
            tracing::warn!(vault = %self.dir.display(), %error, "the oldest versions are not forgotten");
        }
        Ok(())
    }

    /// What is kept, the version that was deleted last first. What is not a record of ours is passed over.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            // One that cannot be read must not hide the others, and another er-dev may have forgotten it just now.
            let read = fs::read(&path).map_err(|error| error.to_string());
            let read = read.and_then(|text| {
                serde_json::from_slice::<Kept>(&text).map_err(|error| error.to_string())
            });
            match read {
                Ok(kept) if kept.v == VERSION => all.push(kept),
                Ok(kept) => {
                    tracing::info!(path = %path.display(), v = kept.v, "not a record of ours");
                }
                Err(error) => tracing::info!(path = %path.display(), error, "not a record of ours"),
            }
        }
        all.sort_by(|a, b| (b.saved, &b.revision).cmp(&(a.saved, &a.revision)));
        Ok(all)
    }

    /// The code of a kept version, exactly as it was on the service.
    pub fn code(&self, kept: &Kept) -> Result<Code, VaultError> {
        let digest = kept
            .sha256
            .ok_or_else(|| VaultError::NoCode(kept.revision.clone()))?;
        let path = self.code_path(digest);
        let bytes = fs::read(&path).map_err(|error| VaultError::Io {
            path: path.clone(),
            error,
        })?;
        let code = Code::new(bytes);
        if code.digest() == digest {
            Ok(code)
        } else {
            Err(VaultError::Damaged(path))
        }
    }

    fn code_path(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{}.js", digest.hex()))
    }

    fn record_path(&self, revision: &Revision) -> io::Result<PathBuf> {
        // The number comes from the service and becomes a file name here.
        let text = revision.as_str();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(io::Error::other("only numbered versions are saved"));
        }
        Ok(self.dir.join(format!("{text}.json")))
    }

    /// Writes a file that is either whole or not there, also after a power cut.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Forgets what was saved first, and never what was saved just now.
    fn forget_oldest(&self, newest: &Revision) -> io::Result<()> {
        let mut all = self.list()?;
        let mut bytes: u64 = all.iter().map(|kept| kept.bytes).sum();
        while all.len() > MAX_VERSIONS || bytes > MAX_BYTES {
            let oldest = all.iter().rposition(|kept| kept.revision != *newest);
            let Some(oldest) = oldest.map(|index| all.remove(index)) else {
                break;
            };
            bytes -= oldest.bytes;
            self.forget(&oldest)?;
        }
        Ok(())
    }

    /// Forgets a version, and its code unless another one has the same. Returns the bytes that this freed.
    fn forget(&self, kept: &Kept) -> io::Result<u64> {
        remove(&self.record_path(&kept.revision)?)?;
        let Some(digest) = kept.sha256 else {
            return Ok(0);
        };
        if self.list()?.iter().any(|other| other.sha256 == kept.sha256) {
            return Ok(0);
        }
        remove(&self.code_path(digest))?;
        Ok(kept.bytes)
    }

    /// Removes all that is kept, and the directory if nothing else is in it.
    pub fn remove(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if is_ours(&path) {
                remove(&path)?;
            }
        }
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    /// The size of all code in it.
    fn bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|it| it == "js") {
                bytes += match entry.metadata() {
                    Ok(metadata) => metadata.len(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                    Err(error) => return Err(error),
                };
            }
        }
        Ok(bytes)
    }
}

/// Whether a file has a name that this program gives: a number, or the digest of code.
fn is_ours(path: &Path) -> bool {
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or("");
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit()),
        Some("js") => Digest::parse(stem).is_some(),
        _ => false,
    }
}

fn directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.push(entry.path());
        }
    }
    Ok(directories)
}

/// Removes a file; one that is gone already is as good.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::io::Errno;

    use super::*;

    fn vault(dir: &tempfile::TempDir) -> Vault {
        Vaults::new(dir.path()).of(&dir.path().join("service/hello"))
    }

    fn save(vault: &Vault, number: u64, code: Option<&[u8]>) -> Result<(), SaveError> {
        let listed = Listed {
            revision: Revision::new(&number.to_string()),
            created: None,
            description: format!("version {number}"),
        };
        let code = code.map(|bytes| Code::new(bytes.to_vec()));
        let environments =
            Environments::Known([("production".into(), Some(Revision::new("7")))].into());
        // The tests save one version a second, newest numbers last unless they say otherwise.
        let now = jiff::Timestamp::from_second(i64::try_from(number % 1_000).unwrap()).unwrap();
        let kept = Kept::new(
            &listed,
            &environments,
            code.as_ref(),
            "the oldest".into(),
            now,
        );
        vault.save(&kept, code.as_ref())
    }

    fn kept(vault: &Vault) -> Vec<String> {
        let list = vault.list().unwrap();
        list.iter().map(|kept| kept.revision.to_string()).collect()
    }

    #[test]
    fn what_lies_in_the_way_of_one_version_is_told_from_a_place_where_nothing_can_be_saved() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(&dir);
        let refused = |number, code: &[u8]| match save(&vault, number, Some(code)) {
            Ok(()) => "no",
            Err(SaveError::Version(_)) => "this one",
            Err(SaveError::Place(_)) => "any",
        };
        assert_eq!(refused(1, b"a"), "no");
        let odd = vault.code_path(Digest::of(b"b"));
        fs::create_dir_all(odd.join("in the way")).unwrap();
        fs::create_dir(vault.record_path(&Revision::new("3")).unwrap()).unwrap();
        assert_eq!(refused(2, b"b"), "this one");
        assert_eq!(refused(3, b"c"), "this one");
        assert_eq!(refused(4, b"d"), "no");
        fs::remove_dir_all(&vault.dir).unwrap();
        fs::write(&vault.dir, "no directory").unwrap();
        assert_eq!(refused(6, b"e"), "any");
        for code in [Errno::NOSPC, Errno::ROFS, Errno::ACCESS] {
            let error = SaveError::of(code.into());
            assert!(matches!(error, SaveError::Place(_)), "{error:?}");
        }
    }

    #[test]
    fn a_kept_version_comes_back_with_its_code_to_the_byte_and_all_that_was_known_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(&dir);
        let code = "// ü 版本\r\n\u{feff}x".as_bytes();
        save(&vault, 1_622_467_214_654_495_147, Some(code)).unwrap();
        let [kept] = &vault.list().unwrap()[..] else {
            panic!()
        };
        assert_eq!(kept.revision.as_str(), "1622467214654495147");
        assert_eq!(kept.description, "version 1622467214654495147");
        assert_eq!(kept.reason, "the oldest");
        let live = Environments::Known([("production".into(), Some(Revision::new("7")))].into());
        assert_eq!(kept.environments, live);
        assert_eq!(vault.code(kept).unwrap().bytes(), code);
        for entry in fs::read_dir(&vault.dir).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn code_that_was_changed_on_the_disk_or_never_there_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(&dir);
        save(&vault, 1, Some(b"code")).unwrap();
        save(&vault, 2, None).unwrap();
        let list = vault.list().unwrap();
        assert!(matches!(vault.code(&list[0]), Err(VaultError::NoCode(_))));
        let path = vault.code_path(Digest::of(b"code"));
        fs::write(&path, "other").unwrap();
        assert!(matches!(vault.code(&list[1]), Err(VaultError::Damaged(_))));
        fs::remove_file(&path).unwrap();
        assert!(matches!(vault.code(&list[1]), Err(VaultError::Io { .. })));
    }

    #[test]
    fn code_that_was_damaged_is_written_anew_when_it_is_saved_again() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(&dir);
        save(&vault, 1, Some(b"code")).unwrap();
        let path = vault.code_path(Digest::of(b"code"));
        fs::write(&path, "co").unwrap();
        fs::write(vault.dir.join("7.json"), "{\"v\":1").unwrap();
        save(&vault, 2, Some(b"code")).unwrap();
        let list = vault.list().unwrap();
        assert_eq!(list.len(), 2, "a record that is no record hides no other");
        assert_eq!(vault.code(&list[0]).unwrap().bytes(), b"code");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(save(&vault, 3, Some(b"code")).is_err());
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_the_bound_and_shared_code_with_the_last_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(&dir);
        let shared = b"shared";
        for number in 1..=52 {
            let own = format!("code {number}");
            let code: &[u8] = if number <= 3 { shared } else { own.as_bytes() };
            save(&vault, number, Some(code)).unwrap();
        }
        assert_eq!(kept(&vault).len(), MAX_VERSIONS);
        assert!(
            vault.code_path(Digest::of(shared)).exists(),
            "version 3 still needs it"
        );
        save(&vault, 53, None).unwrap();
        assert!(!vault.code_path(Digest::of(shared)).exists());
        assert!(!kept(&vault).contains(&"3".to_owned()));
    }

    #[test]
    fn a_name_that_is_no_number_never_becomes_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(&dir);
        let listed = Listed {
            revision: Revision::new("../../x"),
            created: None,
            description: String::new(),
        };
        let environments = Environments::Unknown("x".into());
        let epoch = jiff::Timestamp::UNIX_EPOCH;
        let odd = Kept::new(&listed, &environments, None, String::new(), epoch);
        let saved = vault.save(&odd, None);
        assert!(matches!(saved, Err(SaveError::Version(_))), "{saved:?}");
        assert!(!vault.dir.exists());
    }

    #[test]
    fn what_was_saved_just_now_is_kept_however_old_the_version_is() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(&dir);
        for number in 100..150 {
            save(&vault, number, Some(format!("code {number}").as_bytes())).unwrap();
        }
        save(&vault, 1, Some(b"an old version that was live until now")).unwrap();
        assert!(kept(&vault).contains(&"1".to_owned()));
        assert!(!kept(&vault).contains(&"100".to_owned()));
        let code = Digest::of(b"an old version that was live until now");
        assert!(vault.code_path(code).exists());
    }

    #[test]
    fn all_vaults_together_stay_within_their_bound_and_the_oldest_of_all_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let vaults = Vaults::new(dir.path());
        let of = |name: &str| vaults.of(&dir.path().join("service").join(name));
        let mut number = 0;
        for routine in ["a", "b", "c", "d", "e", "f"] {
            let vault = of(routine);
            for _ in 0..15 {
                number += 1;
                // Four megabytes each without writing them: files with holes count as what they seem to be.
                let code = format!("code {number}");
                save(&vault, number, Some(code.as_bytes())).unwrap();
                let path = vault.code_path(Digest::of(code.as_bytes()));
                let file = File::options().write(true).open(path).unwrap();
                file.set_len(4 << 20).unwrap();
                let record = vault
                    .record_path(&Revision::new(&number.to_string()))
                    .unwrap();
                let text = fs::read_to_string(&record).unwrap();
                let grown = format!("\"bytes\": {}", 4 << 20);
                let small = format!("\"bytes\": {}", code.len());
                assert!(text.contains(&small));
                fs::write(&record, text.replace(&small, &grown)).unwrap();
                vaults.added.fetch_add(4 << 20, Ordering::Relaxed);
            }
        }
        let all = |name: &str| of(name).bytes().unwrap();
        let total: u64 = ["a", "b", "c", "d", "e", "f"].into_iter().map(all).sum();
        assert!(total <= MAX_BYTES_OF_ALL, "{total}");
        assert_eq!(all("f"), 15 * (4 << 20));
        assert!(all("a") < 15 * (4 << 20));
        assert!(!kept(&of("a")).contains(&"1".to_owned()));
    }
}
