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

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::backend::{self, Lack, Means, Polling};
use super::debounce::{BRIEF, Debounce, Due, Gate, Hint};
use super::events::{Life, Shared};
use super::known::Known;
use super::looks::{Look, Looks};
use super::marker::Marker;
use super::plan::Plan;
use super::roots::{Roots, Turn};
use super::snapshot::{self, Seen};
use super::watches::{Armed, Make, Watches};
use super::{Settings, Target, WatchError};
use crate::config::Backend;
use crate::routine::{Edit, Sighting};

/// The shortest pause between two complete looks that lost events ask for. It bounds what a storm of events costs.
const MISSED_PAUSE: Duration = Duration::from_millis(100);

/// The pause between two looks at a root that went away, since not every way back is an event.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// How long a look goes on before it lets what is due go first.
const GIVE_WAY: Duration = Duration::from_millis(1);

/// How often the receiver of sightings is tried again while its channel is full. Hints gather meanwhile.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// How many plans one look makes at most: each one may uncover a level of directories that was made meanwhile. What
/// is deeper is found by the next look.
const MAX_PLANS: usize = 16;

/// Everything the watching thread owns.
pub(super) struct Lookout {
    targets: Vec<Target>,
    routines: Vec<Known>,
    roots: Roots,
    shared: Arc<Shared>,
    watches: Watches,
    polling: Polling,
    looks: Looks,
    marker: Marker,
    /// What is to be said, in order.
    outbox: VecDeque<Sighting>,
    sightings: mpsc::Sender<Sighting>,
    /// Syncs that were begun, each with the routines whose changes have not settled since.
    syncs: Vec<(u64, HashSet<usize>)>,
    /// What a noted stat key has to have behind it before it proves anything.
    brief: Duration,
    private: PathBuf,
    homes: usize,
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
}

/// What came of arming the watches.
#[derive(Debug, Default)]
struct Arming {
    /// The routines whose directories were not watched without a gap.
    fresh: HashSet<usize>,
    /// Why some directories are not watched at all.
    lack: Option<Lack>,
}

/// What a full look makes of entries that look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Racy {
    /// They are.
    Trusted,
    /// Those that could have been written in the same tick of the clock are read again.
    Read,
}

impl Lookout {
    pub(super) fn new(
        targets: Vec<Target>,
        settings: &Settings,
        sightings: mpsc::Sender<Sighting>,
        make: Make,
    ) -> (Self, Arc<Shared>) {
        let debounce = Debounce::new(targets.len(), settings.debounce, settings.max_wait);
        let shared = Shared::new(debounce);
        let now = Instant::now();
        let make = (settings.backend != Backend::Poll).then_some(make);
        let lookout = Self {
            routines: Vec::new(),
            roots: Roots::new(&targets),
            targets,
            watches: Watches::new(&shared, make),
            polling: Polling::new(settings.backend, settings.poll_interval),
            looks: Looks::new(settings.rescan, now),
            marker: Marker::new(&shared),
            shared: Arc::clone(&shared),
            outbox: VecDeque::new(),
            sightings,
            syncs: Vec::new(),
            // Half of it, as the note is made a little after the hint.
            brief: BRIEF.min(settings.debounce) / 2,
            private: settings.private.clone(),
            homes: 0,
            missed_not_before: now,
            gave_way: now,
        };
        (lookout, shared)
    }

    /// Arms the watches and reads every entry once. Of a root that is away there is no edit: that it is will be the
    /// first thing said.
    pub(super) fn first_scan(&mut self) -> Result<Vec<Edit>, WatchError> {
        let armed = self.arm();
        if let (Backend::Native, Some(lack)) = (self.polling.setting, armed.lack) {
            return Err(lack.into());
        }
        self.routines = self.targets.iter().map(Known::first).collect();
        self.turn(0..self.targets.len());
        let mut edits = Vec::new();
        for (target, known) in self.targets.iter().zip(&self.routines) {
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
        self.flush();
        loop {
            match self.next() {
                Work::Stop => return,
                Work::Ended => {
                    self.watches.ended();
                    self.look_in_full(Racy::Trusted);
                }
                Work::Note(heard) => self.note(&heard),
                Work::Moved => self.look_in_full(Racy::Trusted),
                Work::Missed => {
                    tracing::debug!("file events were lost; every entry is read again");
                    self.missed_not_before = Instant::now() + MISSED_PAUSE;
                    self.watches.forget();
                    self.look_in_full(Racy::Trusted);
                }
                Work::Look(look) => self.look(look),
                Work::Sync(numbers) => self.begin_syncs(&numbers),
                Work::Settle(due, settled) => self.settle(&due, settled),
            }
            self.end_syncs();
            self.flush();
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
                Life::Ended => return Work::Ended,
            }
            if !inbox.heard.is_empty() {
                return Work::Note(std::mem::take(&mut inbox.heard));
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
            if let Some(look) = self.looks.due(now) {
                return Work::Look(look);
            }
            let mut until = self.looks.next_deadline();
            if inbox.missed {
                until = until.min(self.missed_not_before);
            }
            if let Some(deadline) = inbox.debounce.next_deadline() {
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
            self.flush();
        }
        self.gave_way = Instant::now();
    }

    /// Remembers how entries are while their quiet time begins.
    fn note(&mut self, heard: &HashSet<usize>) {
        for &routine in heard {
            let target = self.targets.get(routine);
            if let (Some(target), Some(known)) = (target, self.routines.get_mut(routine)) {
                known.note(snapshot::look(target));
            }
        }
    }

    /// A look whose time has come.
    fn look(&mut self, look: Look) {
        let begun = spent();
        let all = 0..self.targets.len();
        match look {
            Look::Full => {
                self.roots.survey();
                self.look_in_full(Racy::Read);
            }
            Look::Entries => {
                if self.differs(all) {
                    self.look_in_full(Racy::Trusted);
                }
            }
            Look::Polled => {
                let mut polled = self.polling.routines.clone();
                polled.extend(self.roots.away());
                let turned = self.roots.turned(polled.iter().copied());
                if turned.iter().any(|&routine| self.roots.is_away(routine)) {
                    self.look_in_full(Racy::Trusted);
                } else {
                    self.compare(polled, &HashSet::new(), &turned, Racy::Trusted);
                }
            }
        }
        let cost = spent().saturating_sub(begun);
        self.looks.done(look, cost, Instant::now());
    }

    /// Whether any of these routines is not as was said.
    fn differs(&mut self, routines: impl Iterator<Item = usize> + Clone) -> bool {
        if !self.roots.turned(routines.clone()).is_empty() {
            return true;
        }
        for routine in routines {
            self.give_way();
            if let (Some(target), Some(known)) =
                (self.targets.get(routine), self.routines.get(routine))
                && !self.roots.is_away(routine)
                && snapshot::look(target) != known.key()
            {
                return true;
            }
        }
        false
    }

    /// Watches what has to be watched now, and hints at every entry that differs from what is known of it.
    fn look_in_full(&mut self, racy: Racy) {
        let fresh = self.arm().fresh;
        let turned = self.roots.turned(0..self.targets.len());
        self.compare(0..self.targets.len(), &fresh, &turned, racy);
    }

    /// Hints at each of these routines whose entry differs from what is known of it, whose root turned, or whose
    /// directories were not watched without a gap.
    fn compare(
        &mut self,
        routines: impl IntoIterator<Item = usize>,
        fresh: &HashSet<usize>,
        turned: &HashSet<usize>,
        racy: Racy,
    ) {
        for routine in routines {
            self.give_way();
            let target = self.targets.get(routine);
            let (Some(target), Some(known)) = (target, self.routines.get_mut(routine)) else {
                continue;
            };
            let (turned, away) = (turned.contains(&routine), self.roots.is_away(routine));
            let key = snapshot::look(target);
            let fresh = fresh.contains(&routine);
            let gone = key.is_none() && (known.key().is_some() || fresh);
            let hint = match (turned, away) {
                (true, false) => Hint::Removed,
                (true, true) => Hint::Missed,
                (false, true) => continue,
                (false, false) if gone => Hint::Removed,
                (false, false) if fresh => Hint::Missed,
                (false, false) => {
                    let racy = racy == Racy::Read && known.seen.is_some_and(|seen| seen.racy);
                    if key == known.key() && !racy {
                        continue;
                    }
                    Hint::Found
                }
            };
            let mut inbox = self.shared.inbox();
            let (gate, noted) = (inbox.debounce.gate(routine), known.is_noted(key));
            // It rests since it was noted, whatever else may have been missed.
            let rests = match gate {
                Some(Gate::Unseen) => noted,
                Some(Gate::Done | Gate::Fresh) => noted && hint == Hint::Removed,
                Some(Gate::Writing) | None => false,
            };
            // Found once more, and not as it was: it does not rest.
            let hint = match (hint, gate) {
                (Hint::Found, Some(Gate::Unseen)) => Hint::Missed,
                _ => hint,
            };
            if !rests && inbox.debounce.hint(routine, hint, Instant::now()) {
                known.note(key);
            }
        }
    }

    /// Makes plans and arms them until one brings nothing new; with the routines whose directories were not watched
    /// without a gap.
    fn arm(&mut self) -> Arming {
        let mut arming = Arming::default();
        let mut plan = Plan::default();
        for _ in 0..MAX_PLANS {
            // What moves from here on is either in the plan or makes another one necessary.
            let moved = std::mem::take(&mut self.shared.inbox().moved);
            plan = Plan::new(&self.private);
            for routine in 0..self.targets.len() {
                if let Some(target) = self.targets.get(routine) {
                    plan.add(routine, target);
                }
                self.give_way();
            }
            {
                // Before the watches, so that no event of theirs finds nobody who knows its path.
                let mut inbox = self.shared.inbox();
                inbox.entries.clone_from(&plan.entries);
                inbox.ways.clone_from(&plan.ways);
                inbox.gone.retain(|path, _| plan.ways.contains(path));
            }
            let Armed { fresh, lack } = self.watches.arm(&plan, &moved);
            arming.lack = lack;
            if fresh.is_empty() {
                break;
            }
            arming.fresh.extend(plan.routines_in(&fresh));
        }
        self.homes = plan.homes.len();
        let private = plan.private.take();
        self.marker.directory = private.filter(|path| self.watches.holds(path));
        let bare = plan.directories.keys();
        let bare = plan.users(bare.filter(|path| !self.watches.holds(path)));
        let silent = |home: &&PathBuf| backend::of(home, self.polling.setting) == Means::Both;
        let silent = plan.users(plan.homes.iter().filter(silent));
        let lack = arming.lack.as_ref();
        let needed = plan.directories.len();
        let lack = lack.map(|lack| (lack, needed));
        let told = self.polling.update(bare, silent, lack, &self.targets);
        self.outbox.extend(told);
        self.plan_looks();
        arming
    }

    /// Lets looks follow what is polled, away, or to be tried again.
    fn plan_looks(&mut self) {
        let polled = (!self.polling.routines.is_empty()).then_some(self.polling.interval);
        let away = self.roots.away().next().map(|_| AWAY_PAUSE);
        let pause = polled.into_iter().chain(away).min();
        self.looks.poll_every(pause, Instant::now());
        self.looks.retry_at(self.watches.retry());
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
            self.outbox.extend(edit.map(Sighting::Edit));
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
        let name = |routine: usize| self.targets.get(routine).map(|it| it.routine.clone());
        for turn in &turns {
            match turn {
                Turn::Away(routines, reason) => {
                    for &routine in routines {
                        if let Some(known) = self.routines.get_mut(routine) {
                            known.seen = None;
                        }
                        self.outbox
                            .extend(name(routine).map(|routine| Sighting::Halted {
                                routine,
                                reason: reason.clone(),
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
        let target = self.targets.get(due.routine)?;
        let known = self.routines.get_mut(due.routine)?;
        if known.is_led_elsewhere(target) {
            self.shared.inbox().moved.insert(target.entry.clone());
        }
        let before = known.take(target, seen);
        if told == 0 && before.is_some_and(|before| before.digest == seen.digest) {
            return None;
        }
        if due.gate == Gate::Writing {
            tracing::warn!(
                "`{}` is taken although a program still has it open for writing",
                target.entry.display()
            );
        }
        Some(Edit {
            routine: target.routine.clone(),
            // A change of the bytes that no event told of was a save all the same.
            saves: told.max(1),
            digest: seen.digest,
            settled,
        })
    }

    /// Makes sure that every change up to now is known, and remembers which ones have to settle.
    fn begin_syncs(&mut self, numbers: &[u64]) {
        self.marker.wait();
        self.look_in_full(Racy::Read);
        let inbox = self.shared.inbox();
        let unsettled: HashSet<usize> = inbox.debounce.unsettled().collect();
        let begun = numbers.iter().map(|&number| (number, unsettled.clone()));
        self.syncs.extend(begun);
    }

    /// Tells of the syncs whose changes have all settled.
    fn end_syncs(&mut self) {
        if self.syncs.is_empty() {
            return;
        }
        let unsettled: HashSet<usize> = self.shared.inbox().debounce.unsettled().collect();
        let outbox = &mut self.outbox;
        self.syncs.retain_mut(|(number, waited_for)| {
            waited_for.retain(|routine| unsettled.contains(routine));
            if waited_for.is_empty() {
                outbox.push_back(Sighting::Synced(*number));
            }
            !waited_for.is_empty()
        });
    }

    /// Hands everything over that is to be said. If nobody takes it any more, there is nothing left to do.
    fn flush(&mut self) {
        while let Some(sighting) = self.outbox.pop_front() {
            if !self.send(sighting) {
                self.shared.stop();
                return;
            }
        }
    }

    /// Hands a sighting over; false if nobody takes it any more.
    fn send(&self, mut sighting: Sighting) -> bool {
        loop {
            match self.sightings.try_send(sighting) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(back)) => sighting = back,
            }
            let until = Instant::now() + FULL_PAUSE;
            let mut inbox = self.shared.inbox();
            while Instant::now() < until {
                if inbox.life == Life::Stopping {
                    return false;
                }
                inbox = self.shared.wait(inbox, until);
            }
        }
    }
}

/// The time that this thread has spent on a core.
fn spent() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
