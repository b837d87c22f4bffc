//! An er-dev as the model sees it: the product's own knowledge and decisions, inside a copy of what its shell does.
//!
//! What the shell writes down after each outcome is in `revision/deploy/steps.rs`, how passes follow each other in
//! `commands/deploy.rs` and `pipeline/schedule.rs`, what the record of requests holds in `revision/intent.rs`. These
//! touch files and sockets, so what they do is told again here, and nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use er_dev::clock::Moment;
use er_dev::revision::protocol::{Doubt, Goal, Knowledge, Late, Past, Rules, Step, Wanted, decide};
use er_dev::routine::{Digest, Revision};

use super::service::{self, moment};

/// What an er-dev has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    Deploy,
    Tidy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Rest,
    Ready(Job),
    /// Nothing before this moment.
    Waiting(Moment, Job),
    Storing,
    Trimming,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Daemon {
    /// Its state directory.
    pub(crate) dir: usize,
    pub(crate) phase: Phase,
    /// The code it read when its pass began.
    pub(crate) wanted: u8,
    /// The code it has last seen to be stored.
    pub(crate) synced: Option<u8>,
    /// Why its last pass came to nothing, if there is nothing it may delete.
    pub(crate) blocked: bool,
    /// Whether its last pass could save nothing.
    pub(crate) placeless: bool,
    /// Whether a slot is still to be freed, and an edit goes first.
    untidy: bool,
    pub(crate) knowledge: Knowledge,
    /// The record as this process knows it.
    record: Record,
    generation: u8,
    /// Whether this pass has changed something.
    changed: bool,
    /// The version that the form in memory is for; 0 for the staging slot.
    pub(crate) form: Option<u8>,
    /// Whether it uploads to staging.
    pub(crate) staging: bool,
}

/// What the processes of one host share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Dir {
    /// The code on disk.
    pub(crate) disk: u8,
    pub(crate) locked: bool,
    generation: u8,
    record: Record,
    /// What was saved of versions that are still there.
    pub(crate) vault: BTreeMap<u8, Option<u8>>,
}

/// The record of requests, as its file holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Record {
    open: Option<Open>,
    late: Vec<(Late, Moment)>,
    holds: BTreeMap<Revision, Digest>,
    past: Past,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Open {
    late: Late,
    sent: Moment,
    settled: Moment,
    by: usize,
}

impl Dir {
    pub(crate) fn new(disk: u8) -> Self {
        Self {
            disk,
            locked: false,
            generation: 0,
            record: Record::default(),
            vault: BTreeMap::new(),
        }
    }
}

impl Daemon {
    /// A process that has just started.
    pub(crate) fn new(at: usize, dir: &Dir, staging: bool) -> Self {
        Self {
            dir: at,
            phase: Phase::Ready(Job::Deploy),
            wanted: dir.disk,
            synced: None,
            blocked: false,
            placeless: false,
            untidy: false,
            knowledge: Knowledge::default(),
            record: Record::default(),
            generation: dir.generation,
            changed: false,
            form: None,
            staging,
        }
    }

    pub(crate) fn in_pass(&self) -> bool {
        matches!(self.phase, Phase::Storing | Phase::Trimming)
    }

    /// Whether its last pass could not save this version, or none at all.
    pub(crate) fn cannot_save(&self, number: u8) -> bool {
        let spared = &self.knowledge.protected().spared;
        self.placeless || spared.contains_key(&service::revision(number))
    }

    /// `Session::begin`, with the lock taken.
    pub(crate) fn begin(&mut self, job: Job, dir: &mut Dir, now: Moment) {
        if self.generation != dir.generation {
            self.knowledge.forget_listing();
            self.generation = dir.generation;
        }
        self.knowledge.begin();
        if self.recall(dir, now) {
            self.knowledge.forget_listing();
        }
        self.write_down(dir);
        (self.changed, self.blocked, self.untidy) = (false, false, false);
        self.placeless = false;
        // That there was nothing to save is true for the moment only.
        dir.vault.retain(|_, code| code.is_some());
        self.phase = match job {
            Job::Deploy => Phase::Storing,
            // Staging is looked at anew, and what should be there is put there again.
            Job::Tidy if self.staging => {
                self.knowledge.forget_listing();
                Phase::Storing
            }
            Job::Tidy => Phase::Trimming,
        };
        if job == Job::Deploy {
            self.wanted = dir.disk;
        }
    }

    /// The bytes that are to be stored.
    pub(crate) fn goal(&self) -> Wanted {
        let digest = service::digest(self.wanted);
        Wanted {
            digest,
            normalised: digest,
            besides: BTreeSet::new(),
            replaces: true,
        }
    }

    /// What the product would do next.
    pub(crate) fn next(&self, rules: &Rules, now: Moment) -> Step {
        match self.phase {
            Phase::Storing if self.staging => {
                decide(&self.knowledge, Goal::Staged(&self.goal()), rules, now)
            }
            Phase::Storing => decide(&self.knowledge, Goal::Stored(&self.goal()), rules, now),
            _ => decide(&self.knowledge, Goal::AtRest, rules, now),
        }
    }

    /// A pass ended early with a request that came to nothing.
    pub(crate) fn fail(&mut self, dir: &mut Dir) {
        match self.phase {
            Phase::Trimming => self.end(dir, Phase::Ready(Job::Tidy)),
            _ => {
                self.synced = None;
                self.end(dir, Phase::Ready(Job::Deploy));
            }
        }
    }

    /// A pass ended: the lock is free, and an edit that came meanwhile is next.
    pub(crate) fn end(&mut self, dir: &mut Dir, then: Phase) {
        dir.locked = false;
        self.phase = then;
        if self.wanted != dir.disk {
            self.edited(dir);
        }
    }

    /// The file on disk has changed.
    pub(crate) fn edited(&mut self, dir: &Dir) {
        self.untidy |= matches!(
            self.phase,
            Phase::Ready(Job::Tidy) | Phase::Waiting(_, Job::Tidy)
        );
        self.phase = if self.synced != Some(dir.disk) {
            Phase::Ready(Job::Deploy)
        } else if self.untidy {
            // A slot that is to be freed is not forgotten because of an edit that changes nothing.
            Phase::Ready(Job::Tidy)
        } else {
            Phase::Rest
        };
    }

    /// `Pass::note`: what is about to be sent is written down, and the pass counted, before it is sent.
    pub(crate) fn note(
        &mut self,
        by: usize,
        late: Late,
        settled: Moment,
        dir: &mut Dir,
        now: Moment,
    ) {
        if !self.changed {
            dir.generation += 1;
            self.generation = dir.generation;
            self.changed = true;
        }
        let open = Open {
            late,
            sent: now,
            settled,
            by,
        };
        self.write(Some(open), dir);
    }

    /// `Journal::update`.
    pub(crate) fn write_down(&mut self, dir: &mut Dir) {
        let open = self.knowledge.doubt().and(self.record.open.clone());
        self.write(open, dir);
    }

    /// A request got no answer: it may be carried out until it has settled.
    pub(crate) fn unanswered(&mut self, late: Late, settled: Moment, dir: &mut Dir, now: Moment) {
        self.doubt(late, settled, settled, now);
        self.write_down(dir);
        self.fail(dir);
    }

    /// A request got an answer that says nothing. The pass goes on.
    pub(crate) fn misanswered(&mut self, late: Late, lag: Duration, dir: &mut Dir, now: Moment) {
        self.doubt(late, now, now + lag, now);
        self.write_down(dir);
    }

    /// A request did not leave this machine.
    pub(crate) fn unsent(&mut self, dir: &mut Dir) {
        self.knowledge.forget_listing();
        self.write_down(dir);
        self.fail(dir);
    }

    fn doubt(&mut self, late: Late, settled: Moment, shown: Moment, now: Moment) {
        self.knowledge.may_come_late(late, now);
        self.knowledge.in_doubt(Doubt { settled, shown });
    }

    /// `Journal::recall`.
    fn recall(&mut self, dir: &Dir, now: Moment) -> bool {
        if dir.record == self.record {
            return false;
        }
        let record = dir.record.clone();
        let doubt = record.open.as_ref().map(|open| Doubt {
            settled: open.settled,
            shown: open.settled,
        });
        if self.record.open.is_some() {
            self.knowledge.recall_doubt(doubt);
        } else if let Some(doubt) = doubt {
            self.knowledge.in_doubt(doubt);
        }
        if let Some(open) = &record.open {
            self.knowledge.may_come_late(open.late.clone(), open.sent);
        }
        for (late, sent) in &record.late {
            self.knowledge.may_come_late(late.clone(), (*sent).min(now));
        }
        for (revision, digest) in &record.holds {
            self.knowledge.remember_confirmed(revision.clone(), *digest);
        }
        self.knowledge.recall_past(record.past.clone());
        self.record = record;
        true
    }

    fn write(&mut self, open: Option<Open>, dir: &mut Dir) {
        let confirmed = self.knowledge.confirmed();
        self.record = Record {
            open,
            late: self.knowledge.late().to_vec(),
            holds: confirmed.map(|(r, digest)| (r.clone(), digest)).collect(),
            past: self.knowledge.past(),
        };
        dir.record = self.record.clone();
    }
}

/// When a request that is sent now and gets no answer has settled.
pub(crate) fn settled(now: u8, patience: u8) -> Moment {
    moment(now + patience)
}
