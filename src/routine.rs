//! The words every room shares: a routine's name, a revision's number, a digest and the code it stands for.
//!
//! They are values without behaviour of their own, so that no room has to look into another one to name a thing.
//! Revisions stay text from end to end: the service's numbers exceed 2^53, and a float would round them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

/// The largest code the service takes, in bytes (the `content-length-range` of its form policy).
pub const MAX_CODE_BYTES: u64 = 4_194_304;

/// The longest routine name er-dev accepts, in characters. The service's own limit is not documented; the name is
/// also a directory name of the state directory, and that is what this bound keeps safe.
pub const MAX_NAME_CHARS: usize = 128;

/// What the service calls the staging slot where it names versions.
const STAGING: &str = "unstable";

/// The name of a routine as the service knows it: ASCII letters, digits, `-` and `_`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutineName(Arc<str>);

/// Why a text is not a routine name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text has no character.
    #[error("a routine name cannot be empty")]
    Empty,
    /// The text is longer than [`MAX_NAME_CHARS`].
    #[error("a routine name has at most {MAX_NAME_CHARS} characters, this one has {0}")]
    TooLong(usize),
    /// A character that the service or the file system could misread.
    #[error("`{0}` cannot stand in a routine name; letters, digits, `-` and `_` can")]
    Character(char),
}

impl RoutineName {
    /// Checks a text and makes it a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(odd) = text
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
        {
            return Err(NameError::Character(odd));
        }
        if text.len() > MAX_NAME_CHARS {
            return Err(NameError::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoutineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RoutineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl serde::Serialize for RoutineName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The name of one code version: Unix time in nanoseconds in decimal, or the word `unstable` for the staging slot.
///
/// Whatever the service sends is kept letter for letter. [`Revision::number`] is what age is compared by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(Arc<str>);

impl Revision {
    /// Takes the service's text as it is.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The revision as text, the only form in which it goes back to the service.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number that orders revisions by age, in nanoseconds since 1970; `None` for `unstable` and anything else
    /// that is not plain decimal digits within 64 bits.
    pub fn number(&self) -> Option<u64> {
        if self.0.is_empty() || !self.0.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        self.0.parse().ok()
    }

    /// The staging slot, by the service's name for it.
    pub fn staging() -> Self {
        Self::new(STAGING)
    }

    /// Whether it is the staging slot, which is no version.
    pub fn is_staging(&self) -> bool {
        &*self.0 == STAGING
    }

    /// The last four characters after an ellipsis, the form people read in a line of output.
    pub fn short(&self) -> String {
        let chars = self.0.chars().count();
        if chars <= 4 || self.number().is_none() {
            return self.0.as_ref().into();
        }
        let tail: String = self.0.chars().skip(chars - 4).collect();
        format!("...{tail}")
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl serde::Serialize for Revision {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Revision {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::new(&text))
    }
}

/// The SHA-256 of a routine's code. Equal digests are taken for equal code everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hashes bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads the 64 digits that [`Digest::hex`] writes; `None` for anything else.
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64
            || !hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// All 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// The first eight hexadecimal digits, the form people read in a line of output.
    pub fn short(&self) -> String {
        let mut text = self.hex();
        text.truncate(8);
        text
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a SHA-256 in hexadecimal"))
    }
}

/// A routine's code, exactly as it is on disk, with its digest. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    bytes: Arc<[u8]>,
    digest: Digest,
}

impl Code {
    /// Takes bytes as they are and hashes them.
    pub fn new(bytes: Vec<u8>) -> Self {
        let digest = Digest::of(&bytes);
        Self {
            bytes: bytes.into(),
            digest,
        }
    }

    /// The bytes that go up.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Their SHA-256.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest it would have with line ends of one byte and without a byte order mark.
    pub fn normalised(&self) -> Digest {
        let bytes = self
            .bytes
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&self.bytes);
        if !bytes.contains(&b'\r') {
            return Digest::of(bytes);
        }
        let mut lines = Vec::with_capacity(bytes.len());
        for (at, byte) in bytes.iter().enumerate() {
            if !(*byte == b'\r' && bytes.get(at + 1) == Some(&b'\n')) {
                lines.push(*byte);
            }
        }
        Digest::of(&lines)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Code({} bytes, {})",
            self.bytes.len(),
            self.digest.short()
        )
    }
}

/// One debounced change of one routine's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The routine.
    pub routine: RoutineName,
    /// Changes on disk it is made of; none for the look at the start.
    pub saves: u32,
    /// What the entry held when it came to rest; `None` if it was missing or could not be read.
    pub digest: Option<Digest>,
    /// When it came to rest.
    pub settled: Instant,
}

/// What the watcher has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// An entry came to rest.
    Edit(Edit),
    /// A change of an entry cannot be taken yet, and has not been for long.
    Waiting {
        /// The routine.
        routine: RoutineName,
        /// What it waits for: a lower-case fragment.
        reason: String,
    },
    /// A change that waited came to nothing.
    Settled(RoutineName),
    /// The place of an entry is gone or is another one, so that nothing is taken from there until it is back.
    Halted {
        /// The routine.
        routine: RoutineName,
        /// What became of the place: a lower-case fragment.
        reason: String,
        /// A symbolic link has its name, which may be meant to stay.
        link: bool,
    },
    /// The place is back; an edit of what is there now follows.
    Resumed(RoutineName),
    /// A file is a routine from now on, as it fits a pattern or is the only one left that claims the name; its first edit
    /// follows.
    Came {
        /// The routine.
        routine: RoutineName,
        /// The file, absolute.
        entry: PathBuf,
        /// The same as people read it.
        shown: String,
        /// The number of the pattern that it fits; `None` if the configuration names it.
        glob: Option<usize>,
    },
    /// A file is no routine any more.
    Left {
        /// The routine.
        routine: RoutineName,
        /// Why: a lower-case fragment.
        reason: String,
    },
    /// Files cannot be routines.
    Unfit {
        /// Which, and why: a lower-case fragment.
        what: String,
        /// What helps.
        help: String,
    },
    /// Inputs of a build changed in content, came or went, and have come to rest.
    Inputs {
        /// The number of the build.
        build: usize,
        /// Which ones, at most 16, sorted, relative to the directory of the configuration where they lie beneath it. For a
        /// file that went unheard of, its directory.
        paths: Vec<PathBuf>,
    },
    /// Changes are seen by looking instead of by events from now on.
    Polling {
        /// Why, and of which routines: a lower-case fragment.
        what: String,
        /// What helps.
        help: String,
    },
    /// Events tell of changes again; what they tell of, in words.
    Events(String),
    /// No event told of a change, and its place is looked at as well from now on.
    Unheard {
        /// The routine.
        routine: RoutineName,
        /// What was seen, and what follows: a lower-case fragment.
        what: String,
    },
    /// File events were lost, so that everything is looked at again.
    Lost {
        /// How often that was so, this time included.
        times: u32,
    },
    /// The edit before was taken although a program still has the file open for writing.
    Open {
        /// The routine.
        routine: RoutineName,
        /// What was done: a lower-case fragment.
        what: String,
    },
    /// Everything that was changed before this sync was asked for has been said.
    Synced(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_file_system_could_misread_is_refused() {
        assert!(RoutineName::new("api-gw_2").is_ok());
        for odd in ["a/b", "..", "a b", "é", "a\n", "{stem}"] {
            assert!(
                matches!(RoutineName::new(odd), Err(NameError::Character(_))),
                "{odd:?}"
            );
        }
        assert_eq!(RoutineName::new(""), Err(NameError::Empty));
        assert_eq!(
            RoutineName::new(&"x".repeat(129)),
            Err(NameError::TooLong(129))
        );
    }

    #[test]
    fn a_revision_number_survives_beyond_what_a_float_can_hold() {
        let precise = Revision::new("1620876959997924701");
        assert_eq!(precise.number(), Some(1_620_876_959_997_924_701));
        assert_eq!(precise.to_string(), "1620876959997924701");
        assert_eq!(precise.short(), "...4701");
    }

    #[test]
    fn only_plain_digits_are_a_revision_number() {
        for odd in [
            "unstable",
            "",
            "+5",
            "1e9",
            "-1",
            " 7",
            "99999999999999999999999",
        ] {
            assert_eq!(Revision::new(odd).number(), None, "{odd:?}");
        }
        assert_eq!(Revision::new("unstable").short(), "unstable");
    }

    #[test]
    fn a_digest_is_sha256_in_lower_case_hex() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.short(), "ba7816bf");
    }
}
