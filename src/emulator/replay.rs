//! What every routine held at each record of a history, as far as records tell. Pure.
//!
//! It is built from the records alone and not from the world, so that a history file is enough to judge a run.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{
    Actor, Decision, Mark, PERSON_DELETE, PERSON_PUBLISH, PERSON_STAGE, PERSON_UPLOAD, POST_OBJECT,
    Record,
};
use crate::routine::{Digest, Revision, RoutineName};

/// The operation that makes a version.
pub(super) const UPLOAD: &str = "UploadRoutineCode";
/// The operation that deletes one.
pub(super) const DELETE: &str = "DeleteRoutineCodeRevision";
/// The operation that makes one live.
pub(super) const PUBLISH: &str = "PublishRoutineCodeRevision";
/// The operation that puts code on staging.
pub(super) const STAGE: &str = "UploadStagingRoutineCode";
/// The operation that makes a version of it.
pub(super) const COMMIT: &str = "CommitStagingRoutineCode";
/// The operation that tells what is live.
const DESCRIBE: &str = "DescribeRoutine";

/// The environment that staging uploads go live in.
const STAGING: &str = "staging";

/// All routines at one moment.
#[derive(Debug, Default)]
pub(super) struct Replay(pub(super) BTreeMap<RoutineName, Held>);

/// One routine at one moment. Versions are named by their numbers, whose order is that of age.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) versions: BTreeMap<u64, Version>,
    /// What the slot `unstable` holds, if it is there. It counts as one of the slots.
    pub(super) slot: Option<Option<Digest>>,
    /// What staging runs.
    pub(super) on_staging: Option<Digest>,
    /// What is live where.
    pub(super) live: BTreeMap<String, u64>,
    /// What was live before that, as far as the client's listings have shown it.
    pub(super) was_live: BTreeMap<String, u64>,
    /// When a person last published a version.
    pub(super) published: BTreeMap<u64, u64>,
    /// When a person deleted a version that had code.
    pub(super) deleted_by_person: BTreeMap<u64, u64>,
    /// Whether the last version was made by the client.
    pub(super) newest_is_the_clients: bool,
    /// Whether the client's last delete deleted nothing.
    pub(super) delete_failed: bool,
    /// Uploads by the client, by people, and deletes by the client of versions that were of use.
    pub(super) uploads: usize,
    pub(super) uploads_by_people: usize,
    pub(super) deletes: usize,
    /// The marks of uploads whose version is not listed yet.
    begun: BTreeMap<u64, Option<Mark>>,
    /// The numbers that were given for staging.
    staged: BTreeSet<u64>,
    /// What the client was last told to be live.
    seen_live: BTreeMap<String, u64>,
}

/// One version.
#[derive(Debug, Default, Clone)]
pub(super) struct Version {
    pub(super) mark: Option<Mark>,
    pub(super) code: Option<Digest>,
}

impl Replay {
    /// Takes one more record into account, and tells how its routine was before that.
    pub(super) fn apply(&mut self, record: &Record) {
        if let Some(name) = &record.routine {
            self.0.entry(name.clone()).or_default().apply(record);
        }
    }

    pub(super) fn of(&self, record: &Record) -> Option<&Held> {
        self.0.get(record.routine.as_ref()?)
    }
}

impl Held {
    /// Whether a version has no code, or the same as a newer one: nothing is lost with it.
    pub(super) fn is_useless(&self, number: u64) -> bool {
        let Some(version) = self.versions.get(&number) else {
            return true;
        };
        let mut newer = self.versions.range(number + 1..);
        version.code.is_none() || newer.any(|(_, other)| other.code == version.code)
    }

    fn apply(&mut self, record: &Record) {
        if record.op == DESCRIBE && record.decision == Decision::Ok {
            self.told();
        }
        let by_client = record.actor == Actor::Client;
        if record.op == DELETE && by_client {
            self.delete_failed = !record.processed;
        }
        let number = record.revision.as_ref().and_then(Revision::number);
        if record.processed && record.revision.as_ref().is_some_and(Revision::is_staging) {
            return self.slot(record);
        }
        let (Some(number), true) = (number, record.processed) else {
            return;
        };
        match record.op {
            UPLOAD | STAGE => {
                self.uploads += 1;
                self.begun.insert(number, record.mark.clone());
                if record.op == STAGE {
                    self.staged.insert(number);
                }
                // Whether the version takes its slot now or when its code comes is seen by the number of slots.
                if record.slots == Some(self.slots() + 1) {
                    self.list(number, record.mark.clone(), None);
                    self.newest_is_the_clients = true;
                }
            }
            POST_OBJECT => {
                let known = self.versions.get(&number).map(|version| &version.mark);
                let mark = known.or_else(|| self.begun.get(&number)).cloned();
                self.list(number, mark.flatten(), record.sha256);
                self.newest_is_the_clients = true;
                if self.staged.contains(&number) {
                    self.live.insert(STAGING.to_owned(), number);
                    self.on_staging = record.sha256;
                }
            }
            COMMIT => {
                self.uploads += 1;
                let code = self.slot.unwrap_or(self.on_staging);
                self.list(number, record.mark.clone(), code);
                self.newest_is_the_clients = true;
            }
            PERSON_UPLOAD => {
                self.uploads_by_people += 1;
                self.list(number, record.mark.clone(), record.sha256);
                self.newest_is_the_clients = false;
            }
            PUBLISH | PERSON_PUBLISH => {
                for environment in &record.environments {
                    if environment == STAGING {
                        self.on_staging = self.versions.get(&number).and_then(|v| v.code);
                    }
                    self.live.insert(environment.clone(), number);
                }
                if !by_client {
                    self.published.insert(number, record.ended);
                }
            }
            DELETE => {
                self.deletes += usize::from(!self.is_useless(number));
                self.versions.remove(&number);
            }
            PERSON_DELETE => {
                let gone = self.versions.remove(&number);
                if gone.is_some_and(|version| version.code.is_some()) {
                    self.deleted_by_person.insert(number, record.ended);
                }
            }
            _ => {}
        }
    }

    /// Something happened to the slot `unstable`.
    fn slot(&mut self, record: &Record) {
        match record.op {
            STAGE if record.slots == Some(self.slots() + 1) => self.slot = Some(None),
            POST_OBJECT | PERSON_STAGE => {
                self.slot = Some(record.sha256);
                self.live.remove(STAGING);
                self.on_staging = record.sha256;
            }
            DELETE | PERSON_DELETE => (self.slot, self.on_staging) = (None, None),
            _ => {}
        }
    }

    /// How many slots are taken.
    pub(super) fn slots(&self) -> usize {
        self.versions.len() + usize::from(self.slot.is_some())
    }

    fn list(&mut self, number: u64, mark: Option<Mark>, code: Option<Digest>) {
        self.versions.insert(number, Version { mark, code });
    }

    /// The client is told what is live.
    fn told(&mut self) {
        for (environment, number) in &self.live {
            let before = self.seen_live.insert(environment.clone(), *number);
            if let Some(before) = before.filter(|before| before != number) {
                self.was_live.insert(environment.clone(), before);
            }
        }
    }
}
