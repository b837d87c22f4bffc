//! The versions that a person has pinned, which rotation then leaves alone.
//!
//! They stand in one small file a routine, replaced whole and safe from a power cut: a pin that is forgotten is a version
//! that is deleted.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::routine::Revision;

/// The form of the file.
const VERSION: u32 = 1;

/// The pins of one routine.
#[derive(Debug)]
pub struct Pins(PathBuf);

#[derive(Serialize, Deserialize)]
struct Written {
    v: u32,
    pinned: BTreeSet<Revision>,
}

impl Pins {
    /// The pins in the directory of a routine. Reads nothing yet.
    pub fn new(routine_dir: &Path) -> Self {
        Self(routine_dir.join("pins.json"))
    }

    /// The pinned versions. A file that cannot be read is an error, since what it held must not be deleted.
    pub fn read(&self) -> io::Result<BTreeSet<Revision>> {
        let text = match fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            text => text?,
        };
        match serde_json::from_slice(&text) {
            Ok(Written { v: VERSION, pinned }) => Ok(pinned),
            Ok(Written { v, .. }) => Err(io::Error::other(format!("its form is {v}"))),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the pinned versions.
    pub fn write(&self, pinned: &BTreeSet<Revision>) -> io::Result<()> {
        let dir = self.0.parent().unwrap_or(Path::new("."));
        let written = Written {
            v: VERSION,
            pinned: pinned.clone(),
        };
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&serde_json::to_vec(&written).map_err(io::Error::other)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.0)?;
        File::open(dir)?.sync_all()
    }

    /// Where they stand.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_kept_and_a_file_that_cannot_be_read_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::new(dir.path());
        assert_eq!(pins.read().unwrap(), BTreeSet::new());
        let two = BTreeSet::from([Revision::new("17"), Revision::new("18")]);
        pins.write(&two).unwrap();
        assert_eq!(Pins::new(dir.path()).read().unwrap(), two);
        for odd in [
            "",
            "{}",
            "[]",
            r#"{"v":2,"pinned":[]}"#,
            r#"{"v":1,"pinned":["17""#,
        ] {
            fs::write(pins.path(), odd).unwrap();
            assert!(pins.read().is_err(), "{odd}");
        }
    }
}
