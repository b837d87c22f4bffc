//! The record of what was sent and is not known yet, one small file a routine.
//!
//! It is written before the request it speaks of and closed when the outcome is known, so that whoever comes after a
//! kill, or works beside this program, knows that something may still be on its way. It is not made safe from a power
//! cut: after one, what was sent has long settled, and the listing tells. A record that cannot be read is worth nothing
//! and costs nothing but requests.
//!
//! The signed form is never written: it is a right to write, and without it an unfinished upload is only done again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Moment};
use crate::routine::{Digest, Revision};

use super::protocol::{Doubt, Knowledge, LATEST, Late};

/// The form of the file that this program writes and reads.
const VERSION: u32 = 1;

/// The longest record that is read, in bytes. One of ours has some kilobytes at most.
const MAX_BYTES: u64 = 256 * 1024;

/// A request that changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Intent {
    /// Make a version of these bytes.
    Upload {
        /// Their digest.
        sha256: Digest,
    },
    /// Post the code of this version.
    Post {
        /// The version.
        revision: Revision,
        /// The digest of its code.
        sha256: Digest,
    },
    /// Delete this version.
    Delete {
        /// The version.
        revision: Revision,
    },
}

/// The record of one routine.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    boot: String,
    /// What the file holds, as far as this program knows.
    record: Record,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    v: u32,
    /// The boot that the moments below belong to.
    boot: String,
    /// The request whose outcome is not known, if there is one.
    open: Option<Open>,
    /// Requests that had no answer and could still be carried out.
    late: Vec<Sent>,
    /// What versions are proven to hold.
    holds: BTreeMap<Revision, Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    #[serde(flatten)]
    intent: Intent,
    sent: Moment,
    /// How long after that it may still be carried out, as far as anybody waits for it.
    patience: Duration,
    /// Who sent it, for people.
    pid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    #[serde(flatten)]
    intent: Intent,
    sent: Moment,
}

impl Intent {
    /// What the request could do late, should it get no answer.
    pub fn late(&self) -> Late {
        match self {
            Self::Upload { sha256 } | Self::Post { sha256, .. } => Late::Upload(*sha256),
            Self::Delete { revision } => Late::Delete(revision.clone()),
        }
    }
}

impl Journal {
    /// The journal in the directory of a routine. Reads and makes nothing yet.
    pub fn new(routine_dir: &Path) -> Self {
        Self {
            path: routine_dir.join("journal.json"),
            boot: clock::boot_id(),
            record: Record::default(),
        }
    }

    /// Brings what an earlier run, or another er-dev, has written into what is known. Does nothing if the file holds
    /// what this program wrote itself.
    pub fn recall(&mut self, knowledge: &mut Knowledge, now: Moment) {
        let Some(record) = self.read() else {
            return;
        };
        if record == self.record {
            return;
        }
        // A moment of another boot is before this one began.
        let same_boot = !self.boot.is_empty() && record.boot == self.boot;
        let sent = |moment: Moment| {
            if same_boot {
                moment.min(now)
            } else {
                Moment::BOOT
            }
        };
        if let Some(open) = &record.open {
            // A file is only text: what it says must not hold anybody up for days.
            let settled = sent(open.sent) + open.patience.min(LATEST);
            knowledge.in_doubt(Doubt {
                settled,
                shown: settled,
            });
            knowledge.may_come_late(open.intent.late(), sent(open.sent));
        }
        for late in &record.late {
            knowledge.may_come_late(late.intent.late(), sent(late.sent));
        }
        for (revision, digest) in &record.holds {
            knowledge.remember_confirmed(revision.clone(), *digest);
        }
        self.record = record;
    }

    /// Writes down a request that is about to be sent.
    pub fn open(
        &mut self,
        intent: Intent,
        patience: Duration,
        knowledge: &Knowledge,
        now: Moment,
    ) -> io::Result<()> {
        let open = Open {
            intent,
            sent: now,
            patience,
            pid: std::process::id(),
        };
        self.write(Some(open), knowledge)
    }

    /// Writes down what is known after an outcome. The open request is closed once nothing is in doubt.
    pub fn update(&mut self, knowledge: &Knowledge) -> io::Result<()> {
        let open = knowledge.doubt().and_then(|_| self.record.open.clone());
        self.write(open, knowledge)
    }

    /// Writes with the next update, even if that says nothing new: the last write failed.
    pub fn write_again(&mut self) {
        self.record = Record::default();
    }

    fn write(&mut self, open: Option<Open>, knowledge: &Knowledge) -> io::Result<()> {
        let late = knowledge.late().iter().map(|(late, sent)| Sent {
            intent: match late {
                Late::Upload(sha256) => Intent::Upload { sha256: *sha256 },
                Late::Delete(revision) => Intent::Delete {
                    revision: revision.clone(),
                },
            },
            sent: *sent,
        });
        let record = Record {
            v: VERSION,
            boot: self.boot.clone(),
            open,
            late: late.collect(),
            holds: knowledge
                .confirmed()
                .map(|(revision, digest)| (revision.clone(), digest))
                .collect(),
        };
        if record == self.record {
            return Ok(());
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&serde_json::to_vec(&record).map_err(io::Error::other)?)?;
        file.persist(&self.path)?;
        self.record = record;
        Ok(())
    }

    fn read(&self) -> Option<Record> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "a record of earlier requests cannot be read");
                return None;
            }
        };
        let read = serde_json::from_reader(io::Read::take(file, MAX_BYTES));
        match read {
            Ok(record @ Record { v: VERSION, .. }) => Some(record),
            Ok(Record { v, .. }) => {
                tracing::warn!(path = %self.path.display(), v, "a record of earlier requests is of another version of er-dev and ignored");
                None
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "a record of earlier requests is damaged and ignored");
                None
            }
        }
    }
}
