//! The loop behind [`super::start`]: it waits for hints and deadlines, reads what has settled, and sends edits.
//!
//! It has a thread of its own rather than a task, because tokio's timer has a grain of a millisecond and everything
//! here is file work that blocks anyway.
//!
//! A quiet time can end in the very moment in which a writer begins, and two things keep its half-written file out.
//! After an entry was read, a marker is made in a directory that is watched, too; once its event has come, all earlier
//! ones have, and if one of them was about the entry, what was read is dropped. But the system tells of a write only
//! after it has been made, and emptying a file takes it long enough to be met: so the stat key of what was read also
//! has to be the one that the file had a while before, when the quiet time began.

mod files;
mod look;
mod trees;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::look::Reread;
use self::trees::Walk;
use super::backend::{Lack, Means, Polling};
use super::claims::Claims;
use super::debounce::{BRIEF, Debounce, Due, Gate, Hint};
use super::events::{Life, Shared};
use super::known::Known;
use super::looks::{Look, Looks};
use super::marker::Marker;
use super::outbox::Outbox;
use super::roots::{Roots, Turn};
use super::snapshot::{self, Seen};
use super::tree::Budget;
use super::trees::Trees;
use super::watches::{Make, Watches};
use super::{Inputs, Settings, Target, WatchError};
use crate::config::{Backend, Glob};
use crate::routine::{Edit, Sighting};

/// The shortest pause between two complete looks that lost events ask for. It bounds what a storm of events costs.
const MISSED_PAUSE: Duration = Duration::from_millis(100);

/// How long a look goes on before it lets what is due go first.
const GIVE_WAY: Duration = Duration::from_millis(1);

/// Everything the watching thread owns.
pub(super) struct Lookout {
    targets: Vec<Target>,
    routines: Vec<Known>,
    roots: Roots,
    trees: Trees,
    globs: Vec<Glob>,
    claims: Claims,
    /// Files that fit patterns and of which it was said that they cannot be routines.
    unnamed: HashSet<PathBuf>,
    shared: Arc<Shared>,
    watches: Watches,
    polling: Polling,
    looks: Looks,
    marker: Marker,
    outbox: Outbox,
    /// Syncs that were begun, each with the routines whose changes have not settled since.
    syncs: Vec<(u64, HashSet<usize>)>,
    /// The routines of which it was said that their change waits.
    waiting: HashSet<usize>,
    /// What a noted stat key has to have behind it before it proves anything.
    brief: Duration,
    private: PathBuf,
    homes: usize,
    /// How often events were lost.
    lost: u32,
    missed_not_before: Instant,
    gave_way: Instant,
}

/// What there is to do.
enum Work {
    Stop,
    /// notify's thread is gone.
    Ended,
    /// These routines had hints.
    Note(HashSet<usize>),
    /// Something happened in trees.
    Stirred(Vec<(PathBuf, Hint)>),
    /// Directories came or went.
    Moved,
    /// Events were lost.
    Missed,
    /// Nothing has asked for a look, but its time has come.
    Look(Look),
    /// These syncs were asked for.
    Sync(Vec<u64>),
    /// Changes are due.
    Settle(Vec<Due>, Instant),
    /// Changes of trees are due.
    SettleTrees(Vec<Due>),
    /// Changes do not settle.
    Overdue(Vec<Due>),
}

impl Lookout {
    pub(super) fn new(
        targets: Vec<Target>,
        inputs: &[Inputs],
        globs: Vec<Glob>,
        settings: &Settings,
        sightings: mpsc::Sender<Sighting>,
        make: Make,
    ) -> Result<(Self, Arc<Shared>), WatchError> {
        let debounce = Debounce::new(targets.len(), settings.debounce, settings.max_wait);
        let debounce = match settings.backend {
            Backend::Native => debounce,
            Backend::Auto | Backend::Poll => debounce.slower(settings.poll_interval),
        };
        let shared = Shared::new(debounce);
        let now = Instant::now();
        let make = (settings.backend != Backend::Poll).then_some(make);
        let lookout = Self {
            routines: Vec::new(),
            roots: Roots::new(&targets),
            trees: Trees::new(inputs, &globs, settings)?,
            globs,
            claims: Claims::default(),
            unnamed: HashSet::new(),
            targets,
            watches: Watches::new(&shared, make),
            polling: Polling::new(settings.backend, settings.poll_interval),
            looks: Looks::new(settings.rescan, now),
            marker: Marker::new(&shared),
            shared: Arc::clone(&shared),
            outbox: Outbox::new(&shared, sightings),
            syncs: Vec::new(),
            waiting: HashSet::new(),
            // Half of it, as the note is made a little after the hint.
            brief: BRIEF.min(settings.debounce) / 2,
            private: settings.private.clone(),
            homes: 0,
            lost: 0,
            missed_not_before: now,
            gave_way: now,
        };
        Ok((lookout, shared))
    }

    /// Arms the watches and reads every entry once. Of a root that is away there is no edit: that it is will be the
    /// first thing said.
    pub(super) fn first_scan(&mut self) -> Result<Vec<Edit>, WatchError> {
        let lack = self.arm(Walk::First(Budget::new())).lack;
        let lack = lack.filter(|lack| !matches!(lack, Lack::Directory(..)));
        if let (Backend::Native, Some(lack)) = (self.polling.setting, lack) {
            return Err(lack.into());
        }
        self.routines = self.targets.iter().map(Known::first).collect();
        self.claim_first();
        self.turn(0..self.targets.len());
        let mut edits = Vec::new();
        let watched = self.targets.iter().zip(&self.routines).enumerate();
        let watched = watched.filter(|(routine, _)| self.claims.holds(*routine));
        for (_, (target, known)) in watched {
            edits.extend(known.seen.map(|seen| Edit {
                routine: target.routine.clone(),
                saves: 0,
                digest: seen.digest,
                settled: Instant::now(),
            }));
        }
        Ok(edits)
    }

    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// How many directories are watched or polled for entries in them.
    pub(super) fn directories(&self) -> usize {
        self.homes
    }

    /// How changes are noticed.
    pub(super) fn means(&self) -> Means {
        self.polling.means(self.watches.any())
    }

    /// Works until it is told to stop, or nobody takes sightings any more.
    pub(super) fn run(mut self) {
        self.outbox.flush();
        loop {
            match self.next() {
                Work::Stop => return,
                Work::Ended => {
                    self.watches.ended();
                    self.routines.iter_mut().for_each(Known::heard);
                    self.look_in_full(Reread::Racy);
                }
                Work::Note(heard) => self.note(&heard),
                Work::Stirred(stirred) => self.stir(&stirred),
                Work::Moved => self.look_in_full(Reread::Racy),
                Work::Missed => {
                    self.lost = self.lost.saturating_add(1);
                    self.outbox.extend([Sighting::Lost { times: self.lost }]);
                    self.missed_not_before = Instant::now() + MISSED_PAUSE;
                    self.watches.forget();
                    self.routines.iter_mut().for_each(Known::heard);
                    self.look_in_full(Reread::Racy);
                }
                Work::Look(look) => self.look(look),
                Work::Sync(numbers) => self.begin_syncs(&numbers),
                Work::Settle(due, settled) => self.settle(&due, settled),
                Work::SettleTrees(due) => self.settle_trees(&due),
                Work::Overdue(overdue) => self.wait_for(&overdue),
            }
            self.end_syncs();
            self.outbox.flush();
        }
    }

    /// Waits until there is something to do.
    fn next(&self) -> Work {
        let mut inbox = self.shared.inbox();
        loop {
            let now = Instant::now();
            match inbox.life {
                Life::Running => {}
                Life::Stopping => return Work::Stop,
                Life::Failing | Life::Ended => return Work::Ended,
            }
            if !inbox.heard.is_empty() {
                return Work::Note(std::mem::take(&mut inbox.heard));
            }
            if !inbox.stirred.is_empty() {
                return Work::Stirred(std::mem::take(&mut inbox.stirred));
            }
            if !inbox.moved.is_empty() {
                return Work::Moved;
            }
            if inbox.missed && self.missed_not_before <= now {
                inbox.missed = false;
                return Work::Missed;
            }
            if !inbox.syncs.is_empty() {
                return Work::Sync(std::mem::take(&mut inbox.syncs));
            }
            let due = inbox.debounce.due(now);
            if !due.is_empty() {
                return Work::Settle(due, now);
            }
            let due = self.trees.due(now);
            if !due.is_empty() {
                return Work::SettleTrees(due);
            }
            let overdue = inbox.debounce.overdue(now);
            if !overdue.is_empty() {
                return Work::Overdue(overdue);
            }
            if let Some(look) = self.looks.due(now) {
                return Work::Look(look);
            }
            let mut until = self.looks.next_deadline();
            if inbox.missed {
                until = until.min(self.missed_not_before);
            }
            let debounce = &inbox.debounce;
            let deadlines = [
                debounce.next_deadline(),
                debounce.next_overdue(),
                self.trees.next_deadline(),
            ];
            if let Some(deadline) = deadlines.into_iter().flatten().min() {
                until = until.min(deadline);
            }
            inbox = self.shared.wait(inbox, until);
        }
    }

    /// In the middle of a look: hears hints and takes what is due, so that no save waits for the end of the look.
    fn give_way(&mut self) {
        if self.gave_way.elapsed() < GIVE_WAY {
            return;
        }
        let mut inbox = self.shared.inbox();
        let heard = std::mem::take(&mut inbox.heard);
        let now = Instant::now();
        let due = inbox.debounce.due(now);
        drop(inbox);
        self.note(&heard);
        // At the start nothing has been said yet that a change could be one of.
        if !due.is_empty() && !self.routines.is_empty() {
            self.settle(&due, now);
            self.outbox.flush();
        }
        self.gave_way = Instant::now();
    }

    /// Remembers how entries are while their quiet time begins.
    fn note(&mut self, heard: &HashSet<usize>) {
        for &routine in heard {
            let target = self.targets.get(routine);
            if let (Some(target), Some(known)) = (target, self.routines.get_mut(routine)) {
                known.note(snapshot::look(target));
                known.heard();
            }
        }
    }

    /// Reads what is due and sends an edit for what changed.
    fn settle(&mut self, due: &[Due], settled: Instant) {
        let mut read = Vec::new();
        for due in due {
            if let Some(seen) = self.read(due) {
                read.push((*due, seen));
                continue;
            }
            let (now, mut inbox) = (Instant::now(), self.shared.inbox());
            match due.gate {
                Gate::Writing => inbox.debounce.postpone(due.routine, due.ticket, now),
                // Somebody has begun to write, and the event is still to come.
                Gate::Done | Gate::Fresh | Gate::Unseen => {
                    inbox.debounce.hint(due.routine, Hint::Missed, now);
                }
            }
        }
        if read.is_empty() {
            return;
        }
        self.marker.wait();
        // After the reading: whatever became of a root later, this was read while it stood.
        self.turn(read.iter().map(|(due, _)| due.routine));
        for (due, seen) in read {
            let edit = self.edit(due, seen, settled);
            let open = edit.as_ref().and_then(|edit| self.open(due, edit));
            let unsettled = self.shared.inbox().debounce.gate(due.routine).is_some();
            if (edit.is_some() || !unsettled) && self.waiting.remove(&due.routine) && edit.is_none()
            {
                let target = self.targets.get(due.routine);
                let settled = target.map(|target| Sighting::Settled(target.routine.clone()));
                self.outbox.extend(settled);
            }
            self.outbox.extend(edit.map(Sighting::Edit));
            self.outbox.extend(open);
        }
    }

    /// What is to be said of an edit whose writer has not closed the file.
    fn open(&self, due: Due, edit: &Edit) -> Option<Sighting> {
        let target = self.targets.get(due.routine)?;
        (due.gate == Gate::Writing).then(|| Sighting::Open {
            routine: edit.routine.clone(),
            what: format!(
                "`{}` is taken although a program still has it open for writing",
                target.entry.display()
            ),
        })
    }

    /// Says of changes that they wait, and what for.
    fn wait_for(&mut self, overdue: &[Due]) {
        for due in overdue {
            let target = self.targets.get(due.routine);
            if let (Some(target), Some(known)) = (target, self.routines.get(due.routine))
                && !self.roots.is_away(due.routine)
                && self.claims.holds(due.routine)
                && self.waiting.insert(due.routine)
            {
                let why = known.why_it_waits(due.gate);
                self.outbox.extend([Sighting::Waiting {
                    routine: target.routine.clone(),
                    reason: format!("`{}` {why}", target.entry.display()),
                }]);
            }
        }
    }

    /// The entry of a change that is due; `None` if it turns out not to be at rest.
    fn read(&mut self, due: &Due) -> Option<Seen> {
        let target = self.targets.get(due.routine)?;
        let known = self.routines.get_mut(due.routine)?;
        let polled = self.polling.routines.contains(&due.routine);
        let rest = match due.gate {
            // Nothing but another look can tell that it rests.
            Gate::Unseen if polled => self.polling.interval,
            _ => self.brief,
        };
        known.read(target, due, rest)
    }

    /// Takes over what became of the roots of these routines, and says it.
    fn turn(&mut self, routines: impl IntoIterator<Item = usize>) {
        let gone = self.shared.inbox().gone.clone();
        let turns = self.roots.turn(routines, &gone);
        let name = |routine: usize| {
            let target = self.targets.get(routine);
            let target = target.filter(|_| self.claims.holds(routine));
            target.map(|target| target.routine.clone())
        };
        for turn in &turns {
            match turn {
                Turn::Away(routines, reason) => {
                    for &routine in routines {
                        if let Some(known) = self.routines.get_mut(routine) {
                            known.seen = None;
                        }
                        let link = self.roots.is_link_now(routine);
                        self.outbox
                            .extend(name(routine).map(|routine| Sighting::Halted {
                                routine,
                                reason: reason.clone(),
                                link,
                            }));
                    }
                }
                Turn::Back(routines) => {
                    for &routine in routines {
                        self.outbox.extend(name(routine).map(Sighting::Resumed));
                        let known = self
                            .routines
                            .get_mut(routine)
                            .zip(self.targets.get(routine));
                        if let Some((known, target)) = known
                            && self.shared.inbox().debounce.hint(
                                routine,
                                Hint::Found,
                                Instant::now(),
                            )
                        {
                            known.note(snapshot::look(target));
                            known.heard();
                        }
                    }
                }
            }
        }
        if !turns.is_empty() {
            self.plan_looks();
        }
    }

    /// Ends a change; `None` if a later hint has overtaken it or if it left nothing to tell.
    fn edit(&mut self, due: Due, seen: Seen, settled: Instant) -> Option<Edit> {
        let told = self
            .shared
            .inbox()
            .debounce
            .settle(due.routine, due.ticket)?;
        if self.roots.is_away(due.routine) {
            return None;
        }
        let came = self.set_present(due.routine, seen.key.is_some(), settled);
        let target = self.targets.get(due.routine)?;
        let known = self.routines.get_mut(due.routine)?;
        if known.is_led_elsewhere(target) {
            self.shared.inbox().moved.insert(target.entry.clone());
        }
        // Something was mounted, of which no event tells.
        let elsewhere = known.is_on_another_device(seen);
        if elsewhere {
            self.roots.survey_of(due.routine);
        }
        let unheard = known.is_unheard(seen) && !elsewhere;
        let before = known.take(target, seen);
        let other = before.is_none_or(|before| before.digest != seen.digest);
        known.learn(due.gate, told, other);
        if !self.claims.holds(due.routine) || told == 0 && !other && !came {
            return None;
        }
        if due.gate == Gate::Unseen && told == 0 && unheard {
            let polled = self.polling.hear_nothing_of(due.routine, &self.targets);
            if polled.is_some() {
                self.outbox.extend(polled);
                self.polled();
            }
        }
        Some(Edit {
            routine: self.targets.get(due.routine)?.routine.clone(),
            // A change of the bytes that no event told of was a save all the same.
            saves: told.max(1),
            digest: seen.digest,
            settled,
        })
    }

    /// Makes sure that every change up to now is known, and remembers which ones have to settle.
    fn begin_syncs(&mut self, numbers: &[u64]) {
        self.marker.wait();
        let stirred = std::mem::take(&mut self.shared.inbox().stirred);
        self.stir(&stirred);
        self.look_in_full(Reread::Held);
        let unsettled = self.unsettled();
        let begun = numbers.iter().map(|&number| (number, unsettled.clone()));
        self.syncs.extend(begun);
    }

    /// The routines, and the trees by the numbers that plans know them by, that have not settled.
    fn unsettled(&self) -> HashSet<usize> {
        let inbox = self.shared.inbox();
        let routines = inbox.debounce.unsettled();
        routines.chain(self.trees.unsettled()).collect()
    }

    /// Tells of the syncs whose changes have all settled.
    fn end_syncs(&mut self) {
        if self.syncs.is_empty() {
            return;
        }
        let unsettled = self.unsettled();
        let outbox = &mut self.outbox;
        self.syncs.retain_mut(|(number, waited_for)| {
            waited_for.retain(|routine| unsettled.contains(routine));
            if waited_for.is_empty() {
                outbox.extend([Sighting::Synced(*number)]);
            }
            !waited_for.is_empty()
        });
    }
}
