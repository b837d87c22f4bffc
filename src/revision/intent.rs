//! The record of what was sent and is not known yet, for each routine.
//!
//! It is written before the request it speaks of and closed when the outcome is known, so that whoever comes after a
//! kill, or works beside this program, knows that something may still be on its way. It is not made safe from a power
//! cut: after one, what was sent has long settled, and the listing tells. A record that cannot be read is worth nothing
//! and costs nothing but requests.
//!
//! It is on the path of every edit, and replacing a file by renaming costs half a millisecond on a common file system.
//! So there are two files that are written in turn and in place: a write that a kill cuts short leaves the other one,
//! which says what was so before, and what was to be sent has not been sent then.
//!
//! The signed form is never written: it is a right to write, and without it an unfinished upload is only done again.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Moment};
use crate::routine::{Digest, Revision};

use super::protocol::{Doubt, Knowledge, LATEST, Late, Past};

/// The form of the file that this program writes and reads.
const VERSION: u32 = 1;

/// The longest record that is read, in bytes. One of ours has some kilobytes at most.
const MAX_BYTES: u64 = 256 * 1024;

/// More records than are ever written.
const MAX_SEQ: u64 = 1 << 62;

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
    /// Get a form for these bytes, to run on staging.
    Stage {
        /// Their digest.
        sha256: Digest,
    },
    /// Post code that is to run on staging.
    PostStaged {
        /// Its digest.
        sha256: Digest,
    },
    /// Make a version of these bytes, which are on staging.
    Commit {
        /// Their digest.
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
    dir: PathBuf,
    boot: String,
    /// What the files hold, as far as this program knows.
    record: Record,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    v: u32,
    /// Counts the records; the higher one holds.
    seq: u64,
    /// The boot that the moments below belong to.
    boot: String,
    /// The request whose outcome is not known, if there is one.
    open: Option<Open>,
    /// Requests that had no answer and could still be carried out.
    late: Vec<Sent>,
    /// What versions are proven to hold.
    holds: BTreeMap<Revision, Digest>,
    /// What listings showed over time.
    #[serde(default)]
    past: Past,
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
            // A form that nobody has puts nothing on staging, but it may be one for a version.
            Self::Upload { sha256 }
            | Self::Post { sha256, .. }
            | Self::Stage { sha256 }
            | Self::Commit { sha256 } => Late::Upload(*sha256),
            Self::PostStaged { sha256 } => Late::Staged(*sha256),
            Self::Delete { revision } => Late::Delete(revision.clone()),
        }
    }
}

impl Journal {
    /// The journal in the directory of a routine. Reads and makes nothing yet.
    pub fn new(routine_dir: &Path) -> Self {
        Self {
            dir: routine_dir.to_owned(),
            boot: clock::boot_id(),
            record: Record::default(),
        }
    }

    /// Brings what an earlier run, or another er-dev, has written into what is known. Does nothing if the file holds
    /// what this program wrote or recalled before, and returns `false` then.
    pub fn recall(&mut self, knowledge: &mut Knowledge, now: Moment) -> bool {
        let Some(record) = self.read() else {
            return false;
        };
        if record == self.record {
            return false;
        }
        let sent = |moment: Moment| match (&*record.boot, &*self.boot) {
            (before, this) if before == this && !this.is_empty() => moment.min(now),
            // Where boots cannot be told apart, it may have been sent just now.
            ("", _) | (_, "") => now,
            // A moment of another boot is before this one began.
            _ => Moment::BOOT,
        };
        let doubt = record.open.as_ref().map(|open| {
            // A file is only text: what it says must not hold anybody up for days.
            let settled = sent(open.sent) + open.patience.min(LATEST);
            Doubt {
                settled,
                shown: settled,
            }
        });
        if self.record.open.is_some() {
            // Who closed it meanwhile has waited for it and knows what came of it.
            knowledge.recall_doubt(doubt);
        } else if let Some(doubt) = doubt {
            knowledge.in_doubt(doubt);
        }
        if let Some(open) = &record.open {
            knowledge.may_come_late(open.intent.late(), sent(open.sent));
        }
        for late in &record.late {
            knowledge.may_come_late(late.intent.late(), sent(late.sent));
        }
        for (revision, digest) in &record.holds {
            knowledge.remember_confirmed(revision.clone(), *digest);
        }
        let mut past = record.past.clone();
        if let Some(staged) = &mut past.staged {
            staged.at = sent(staged.at);
        }
        knowledge.recall_past(past);
        self.record = record;
        true
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
        self.record.v = 0;
    }

    fn write(&mut self, open: Option<Open>, knowledge: &Knowledge) -> io::Result<()> {
        let late = knowledge.late().iter().map(|(late, sent)| Sent {
            intent: match late {
                Late::Upload(sha256) => Intent::Upload { sha256: *sha256 },
                Late::Staged(sha256) => Intent::PostStaged { sha256: *sha256 },
                Late::Delete(revision) => Intent::Delete {
                    revision: revision.clone(),
                },
            },
            sent: *sent,
        });
        let record = Record {
            v: VERSION,
            seq: self.record.seq,
            boot: self.boot.clone(),
            open,
            late: late.collect(),
            holds: knowledge
                .confirmed()
                .map(|(revision, digest)| (revision.clone(), digest))
                .collect(),
            past: knowledge.past(),
        };
        if record == self.record {
            return Ok(());
        }
        let record = Record {
            seq: record.seq + 1,
            ..record
        };
        let mut text = serde_json::to_vec(&record).map_err(io::Error::other)?;
        text.push(b'\n');
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(self.path(record.seq))?;
        file.write_all(&text)?;
        // What is left of a longer record behind it makes both unreadable, until here.
        file.set_len(text.len() as u64)?;
        self.record = record;
        Ok(())
    }

    fn path(&self, seq: u64) -> PathBuf {
        self.dir.join(format!("journal.{}.json", seq % 2))
    }

    fn read(&self) -> Option<Record> {
        let records = [0, 1].into_iter().filter_map(|seq| read(&self.path(seq)));
        records.max_by_key(|record| record.seq)
    }
}

fn read(path: &Path) -> Option<Record> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a record of earlier requests cannot be read");
            return None;
        }
    };
    match serde_json::from_reader(io::Read::take(file, MAX_BYTES)) {
        // The count of a damaged record must not be one that cannot be counted on from.
        Ok(Record { seq: MAX_SEQ.., .. }) => None,
        Ok(record @ Record { v: VERSION, .. }) => Some(record),
        Ok(Record { v, .. }) => {
            tracing::warn!(path = %path.display(), v, "a record of earlier requests is of another version of er-dev and ignored");
            None
        }
        Err(error) => {
            tracing::info!(path = %path.display(), %error, "a record of earlier requests is cut short and ignored");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::fs;

    use super::*;
    use crate::revision::protocol::{Owed, Staged};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn at(seconds: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(seconds))
    }

    fn post() -> Intent {
        Intent::Post {
            revision: Revision::new("1700000000000000001"),
            sha256: Digest::of(b"a"),
        }
    }

    fn killed_after(intent: Intent, dir: &Path) {
        let mut knowledge = Knowledge::default();
        let mut journal = Journal::new(dir);
        journal.recall(&mut knowledge, at(100));
        journal.open(intent, PATIENCE, &knowledge, at(100)).unwrap();
    }

    fn recalled(dir: &Path, now: Moment) -> Knowledge {
        let mut knowledge = Knowledge::default();
        Journal::new(dir).recall(&mut knowledge, now);
        knowledge
    }

    #[test]
    fn a_request_that_a_kill_left_open_is_in_doubt_until_it_must_have_settled() {
        let dir = tempfile::tempdir().unwrap();
        killed_after(post(), dir.path());
        let knowledge = recalled(dir.path(), at(105));
        assert_eq!(knowledge.doubt().unwrap().settled, at(120));
        assert_eq!(knowledge.late(), [(post().late(), at(100))]);
    }

    #[test]
    fn what_an_outcome_closed_is_not_in_doubt_and_what_it_proved_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let mut knowledge = Knowledge::default();
        let mut journal = Journal::new(dir.path());
        journal.open(post(), PATIENCE, &knowledge, at(100)).unwrap();
        let revision = Revision::new("1700000000000000001");
        knowledge.proven(revision.clone(), Digest::of(b"a"), at(100));
        journal.update(&knowledge).unwrap();
        let next = recalled(dir.path(), at(101));
        assert_eq!(next.doubt(), None);
        let confirmed: Vec<_> = next.confirmed().collect();
        assert_eq!(confirmed, [(&revision, Digest::of(b"a"))]);
    }

    #[test]
    fn a_request_from_before_a_reboot_has_settled_a_while_after_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        killed_after(post(), dir.path());
        let path = dir.path().join("journal.1.json");
        let boot = clock::boot_id();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&boot, "another boot")).unwrap();
        let knowledge = recalled(dir.path(), at(5));
        assert_eq!(knowledge.doubt().unwrap().settled, at(20));
    }

    #[test]
    fn what_was_live_before_is_remembered_over_runs() {
        let dir = tempfile::tempdir().unwrap();
        let past = Past {
            live: BTreeMap::from([("production".into(), Revision::new("18"))]),
            was_live: BTreeMap::from([("production".into(), Revision::new("17"))]),
            gone: vec![Revision::new("16")],
            present: Some(Revision::new("19")),
            owed: Some(Owed {
                revision: Revision::new("19"),
                seen: BTreeMap::from([("staging".into(), None)]),
            }),
            absent: BTreeMap::from([("canary".into(), 2)]),
            known: Some(BTreeSet::from([Revision::new("7")])),
            staged: Some(Staged {
                digest: Digest::of(b"a"),
                at: Moment::BOOT,
            }),
        };
        let mut knowledge = Knowledge::default();
        knowledge.recall_past(past.clone());
        Journal::new(dir.path()).update(&knowledge).unwrap();
        assert_eq!(recalled(dir.path(), at(1)).past(), past);
    }

    #[test]
    fn where_boots_cannot_be_told_apart_a_request_may_have_been_sent_just_now() {
        let dir = tempfile::tempdir().unwrap();
        killed_after(post(), dir.path());
        let mut knowledge = Knowledge::default();
        let mut journal = Journal::new(dir.path());
        journal.boot.clear();
        journal.recall(&mut knowledge, at(5_000));
        assert_eq!(knowledge.doubt().unwrap().settled, at(5_020));
    }

    #[test]
    fn d03_a_record_cut_at_any_byte_is_ignored_and_the_one_before_holds() {
        let dir = tempfile::tempdir().unwrap();
        let mut knowledge = Knowledge::default();
        let mut journal = Journal::new(dir.path());
        knowledge.proven(Revision::new("17"), Digest::of(b"before"), at(100));
        journal.update(&knowledge).unwrap();
        let before = recalled(dir.path(), at(105));
        assert_ne!(before, Knowledge::default());
        journal.open(post(), PATIENCE, &knowledge, at(100)).unwrap();
        let path = dir.path().join("journal.0.json");
        let whole = fs::read(&path).unwrap();
        assert!(recalled(dir.path(), at(105)).doubt().is_some());
        let longer = [&whole[..], b"left of a longer one"].concat();
        fs::write(&path, longer).unwrap();
        assert_eq!(recalled(dir.path(), at(105)), before);
        for cut in 0..whole.len() - 1 {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(recalled(dir.path(), at(105)), before, "{cut}");
        }
        for odd in [&b"null"[..], b"[]", b"{}", b"\xff\xfe", &[b'['; 100_000]] {
            fs::write(&path, odd).unwrap();
            assert_eq!(recalled(dir.path(), at(105)), before);
        }
    }

    #[test]
    fn an_absurd_record_holds_nobody_up_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(dir.path());
        let knowledge = Knowledge::default();
        let (future, years) = (at(1 << 40), Duration::from_secs(1 << 40));
        journal.open(post(), years, &knowledge, future).unwrap();
        let knowledge = recalled(dir.path(), at(105));
        assert_eq!(knowledge.doubt().unwrap().settled, at(105) + LATEST);
    }

    #[test]
    fn what_another_er_dev_wrote_meanwhile_is_seen_and_ones_own_is_not_news() {
        let dir = tempfile::tempdir().unwrap();
        let mut ours = Journal::new(dir.path());
        let mut knowledge = Knowledge::default();
        ours.open(post(), PATIENCE, &knowledge, at(100)).unwrap();
        assert!(!ours.recall(&mut knowledge, at(101)));
        assert_eq!(knowledge.doubt(), None);
        let delete = Intent::Delete {
            revision: Revision::new("17"),
        };
        killed_after(delete, dir.path());
        assert!(ours.recall(&mut knowledge, at(102)));
        assert_eq!(knowledge.doubt().unwrap().settled, at(120));
    }

    #[test]
    fn what_another_er_dev_was_amid_and_brought_to_its_end_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (mut theirs, mut before) = (Knowledge::default(), Journal::new(dir.path()));
        before.open(post(), PATIENCE, &theirs, at(100)).unwrap();
        let (mut ours, mut journal) = (Knowledge::default(), Journal::new(dir.path()));
        assert!(journal.recall(&mut ours, at(101)));
        assert!(ours.doubt().is_some());
        theirs.proven(Revision::new("1"), Digest::of(b"a"), at(102));
        before.update(&theirs).unwrap();
        assert!(journal.recall(&mut ours, at(103)));
        assert_eq!(ours.doubt(), None);
        // What was sent here and could not be written down is nobody else's to close.
        let doubt = Doubt {
            settled: at(130),
            shown: at(130),
        };
        ours.in_doubt(doubt);
        theirs.proven(Revision::new("2"), Digest::of(b"b"), at(104));
        before.update(&theirs).unwrap();
        assert!(journal.recall(&mut ours, at(105)));
        assert_eq!(ours.doubt(), Some(doubt));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_and_the_next_write_is_tried_in_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("routine");
        let mut journal = Journal::new(&path);
        let knowledge = Knowledge::default();
        assert!(journal.update(&knowledge).is_err());
        fs::create_dir(&path).unwrap();
        journal.update(&knowledge).unwrap();
        fs::remove_dir_all(&path).unwrap();
        journal.update(&knowledge).unwrap();
        journal.write_again();
        assert!(journal.update(&knowledge).is_err());
    }
}
