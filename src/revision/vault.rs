//! The code of what rotation deleted, kept on this machine.
//!
//! A version is saved here, safe from a power cut, before it is deleted on the service. Code is stored by its digest, so
//! that versions with the same bytes share one file; a record beside it says which version it was.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cloud::{Environments, Listed};
use crate::routine::{Code, Digest, Revision, RoutineName};

/// The most versions kept a routine; the oldest go first.
pub const MAX_VERSIONS: usize = 50;

/// The most code kept a routine, in bytes; the oldest versions go first.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The vault of one routine.
#[derive(Debug, Clone)]
pub struct Vault(PathBuf);

/// What is known of a saved version.
#[derive(Debug, Serialize)]
struct Record<'a> {
    v: u32,
    routine: &'a RoutineName,
    revision: &'a Revision,
    /// `None` for a version that never had code.
    sha256: Option<Digest>,
    bytes: usize,
    created: Option<jiff::Timestamp>,
    description: &'a str,
    environments: &'a Environments,
    saved: jiff::Timestamp,
}

impl Vault {
    /// The vault in the directory of a routine. Makes nothing yet.
    pub fn new(routine_dir: &Path) -> Self {
        Self(routine_dir.join("vault"))
    }

    /// Saves a version with its code, `None` where it has none, and forgets the oldest ones beyond the bounds.
    pub fn save(
        &self,
        routine: &RoutineName,
        listed: &Listed,
        environments: &Environments,
        code: Option<&Code>,
        now: jiff::Timestamp,
    ) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        if let Some(code) = code {
            let path = self.code_path(&code.digest().hex());
            if !path.exists() {
                self.write(&path, code.bytes())?;
            }
        }
        let record = Record {
            v: 1,
            routine,
            revision: &listed.revision,
            sha256: code.map(Code::digest),
            bytes: code.map_or(0, |code| code.bytes().len()),
            created: listed.created,
            description: &listed.description,
            environments,
            saved: now,
        };
        let text = serde_json::to_vec_pretty(&record).map_err(io::Error::other)?;
        self.write(&self.record_path(listed.revision.as_str())?, &text)?;
        self.forget_oldest(&listed.revision)
    }

    fn code_path(&self, digest: &str) -> PathBuf {
        self.0.join(format!("{digest}.js"))
    }

    fn record_path(&self, revision: &str) -> io::Result<PathBuf> {
        // The number comes from the service and becomes a file name here.
        if revision.is_empty() || !revision.bytes().all(|b| b.is_ascii_digit()) {
            return Err(io::Error::other("only numbered versions are saved"));
        }
        Ok(self.0.join(format!("{revision}.json")))
    }

    /// Writes a file that is either whole or not there, also after a power cut.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.0)?.sync_all()
    }

    /// Forgets what was saved first, and never what was saved just now.
    fn forget_oldest(&self, newest: &Revision) -> io::Result<()> {
        let mut records = self.records()?;
        records.sort_by_key(|record| (record.revision != newest.as_str(), record.saved.clone()));
        let newest = (!records.is_empty()).then(|| records.remove(0));
        records.extend(newest);
        let mut bytes: u64 = records.iter().map(|record| record.bytes).sum();
        while records.len() > 1 && (records.len() > MAX_VERSIONS || bytes > MAX_BYTES) {
            let oldest = records.remove(0);
            bytes -= oldest.bytes;
            remove(&self.0.join(format!("{}.json", oldest.revision)))?;
            let shared = records.iter().any(|other| other.digest == oldest.digest);
            if !oldest.digest.is_empty() && !shared {
                remove(&self.code_path(&oldest.digest))?;
            }
        }
        Ok(())
    }

    /// What is saved. What is not a record of ours is passed over.
    fn records(&self) -> io::Result<Vec<Saved>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(revision) = name.and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            let Ok(record) = serde_json::from_slice::<serde_json::Value>(&fs::read(&path)?) else {
                continue;
            };
            let text = |key: &str| record[key].as_str().unwrap_or("").to_owned();
            records.push(Saved {
                revision: revision.to_owned(),
                saved: text("saved"),
                digest: text("sha256"),
                bytes: record["bytes"].as_u64().unwrap_or(0),
            });
        }
        Ok(records)
    }
}

/// A record as far as forgetting needs it.
struct Saved {
    revision: String,
    /// RFC 3339 in UTC, so that the order of texts is that of times.
    saved: String,
    digest: String,
    bytes: u64,
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

    use super::*;

    fn save(vault: &Vault, number: u64, code: Option<&[u8]>) -> io::Result<()> {
        let listed = Listed {
            revision: Revision::new(&number.to_string()),
            created: None,
            description: format!("version {number}"),
        };
        let code = code.map(|bytes| Code::new(bytes.to_vec()));
        let routine = RoutineName::new("hello").unwrap();
        let environments =
            Environments::Known([("production".into(), Some(Revision::new("7")))].into());
        // The tests save one version a second, newest numbers last unless they say otherwise.
        let now = jiff::Timestamp::from_second(i64::try_from(number % 1_000).unwrap()).unwrap();
        vault.save(&routine, &listed, &environments, code.as_ref(), now)
    }

    fn names(vault: &Vault) -> Vec<String> {
        let entries = fs::read_dir(&vault.0).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_saved_version_can_be_told_from_its_record_and_its_code_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path());
        let code = "// ü\r\n\u{feff}x".as_bytes();
        save(&vault, 1_622_467_214_654_495_147, Some(code)).unwrap();
        let record: serde_json::Value =
            serde_json::from_slice(&fs::read(vault.0.join("1622467214654495147.json")).unwrap())
                .unwrap();
        let digest = Digest::of(code).hex();
        assert_eq!(record["sha256"], digest.as_str());
        assert_eq!(record["description"], "version 1622467214654495147");
        assert_eq!(record["environments"]["production"], "7");
        let path = vault.code_path(&digest);
        assert_eq!(fs::read(&path).unwrap(), code);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_the_bound_and_shared_code_with_the_last_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path());
        let shared = b"shared";
        for number in 1..=52 {
            let own = format!("code {number}");
            let code: &[u8] = if number <= 3 { shared } else { own.as_bytes() };
            save(&vault, number, Some(code)).unwrap();
        }
        let records = names(&vault)
            .iter()
            .filter(|name| name.ends_with(".json"))
            .count();
        assert_eq!(records, MAX_VERSIONS);
        assert!(
            vault.code_path(&Digest::of(shared).hex()).exists(),
            "version 3 still needs it"
        );
        save(&vault, 53, None).unwrap();
        assert!(!vault.code_path(&Digest::of(shared).hex()).exists());
        assert!(!names(&vault).contains(&"3.json".to_owned()));
    }

    #[test]
    fn a_name_that_is_no_number_never_becomes_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path());
        let listed = Listed {
            revision: Revision::new("../../x"),
            created: None,
            description: String::new(),
        };
        let routine = RoutineName::new("hello").unwrap();
        let environments = Environments::Unknown("x".into());
        let saved = vault.save(
            &routine,
            &listed,
            &environments,
            None,
            jiff::Timestamp::UNIX_EPOCH,
        );
        assert!(saved.is_err());
        assert!(names(&vault).is_empty());
    }

    #[test]
    fn what_was_saved_just_now_is_kept_however_old_the_version_is() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path());
        for number in 100..150 {
            save(&vault, number, Some(format!("code {number}").as_bytes())).unwrap();
        }
        save(&vault, 1, Some(b"an old version that was live until now")).unwrap();
        assert!(names(&vault).contains(&"1.json".to_owned()));
        assert!(!names(&vault).contains(&"100.json".to_owned()));
        let code = Digest::of(b"an old version that was live until now").hex();
        assert!(vault.code_path(&code).exists());
    }
}
