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

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::debounce::{BRIEF, Debounce, Due, Gate, Hint};
use super::events::{Life, Shared, Watches};
use super::snapshot::{self, Plan, Seen, StatKey};
use crate::routine::{Edit, Sighting};

use super::{Settings, Target, WatchError, source};

/// The longest wait for the event of a marker. Without it reading goes on, with the quiet time as the only guard.
const MARKER_WAIT: Duration = Duration::from_millis(250);

/// The shortest pause between two complete looks that lost events ask for. It bounds what a storm of events costs.
const MISSED_PAUSE: Duration = Duration::from_millis(100);

/// The shortest pause between two looks at entries, whatever `rescan` says.
const MIN_LOOK: Duration = Duration::from_millis(10);

/// The longest pause between two looks at entries.
const MAX_LOOK: Duration = Duration::from_secs(60 * 60);

/// How long a file has to have been empty before that is believed. A busy file system may take more than half a second to
/// empty a file for its writer, and tells of it only afterwards; and nothing is lost by waiting, for no empty file goes up.
const EMPTY_QUIET: Duration = Duration::from_secs(2);

/// How often the receiver of edits is tried again while its channel is full. Hints gather meanwhile.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// How many plans one look makes at most: each one may uncover a level of directories that was made meanwhile. What
/// is deeper is found by the next look.
const MAX_PLANS: usize = 16;

/// Everything the watching thread owns.
#[derive(Debug)]
pub(super) struct Lookout {
    targets: Vec<Target>,
    routines: Vec<Known>,
    shared: Arc<Shared>,
    watches: Watches,
    sightings: mpsc::Sender<Sighting>,
    /// Syncs that were begun, each with the routines whose changes have not settled since.
    syncs: Vec<(u64, HashSet<usize>)>,
    /// What a noted stat key has to have behind it before it proves anything.
    brief: Duration,
    private: PathBuf,
    /// Where `private` really is, while it is there.
    marker_directory: Option<PathBuf>,
    markers: u64,
    homes: usize,
    rescan: Duration,
    next_look: Instant,
    next_rescan: Instant,
    missed_not_before: Instant,
    /// Whether running out of watches has been warned about.
    out_of_watches: bool,
}

/// What is known of one routine's entry.
#[derive(Debug)]
struct Known {
    /// How it was when the last edit was sent, or when nothing was found to send.
    seen: Seen,
    /// How it was after the last hint, or when that no longer was so.
    noted: Option<StatKey>,
    /// When that was.
    noted_at: Instant,
    /// How it was when its writer had left it open and its bytes were no code.
    refused: Option<StatKey>,
}

impl Known {
    fn note(&mut self, key: Option<StatKey>) {
        self.noted = key;
        self.noted_at = Instant::now();
    }
}

/// What there is to do.
enum Work {
    Stop,
    Ended,
    /// These routines had hints.
    Note(HashSet<usize>),
    /// Directories came or went.
    Moved,
    /// Events were lost.
    Missed,
    /// Entries are to be looked at.
    Look,
    /// Everything is to be looked at.
    Rescan,
    /// These syncs were asked for.
    Sync(Vec<u64>),
    /// Changes are due.
    Settle(Vec<Due>, Instant),
}

impl Lookout {
    pub(super) fn new(
        targets: Vec<Target>,
        settings: &Settings,
        sightings: mpsc::Sender<Sighting>,
    ) -> Result<(Self, Arc<Shared>), WatchError> {
        let debounce = Debounce::new(targets.len(), settings.debounce, settings.max_wait);
        let shared = Shared::new(debounce);
        let now = Instant::now();
        let lookout = Self {
            targets,
            routines: Vec::new(),
            watches: Watches::new(&shared)?,
            shared: Arc::clone(&shared),
            sightings,
            syncs: Vec::new(),
            // Half of it, as the note is made a little after the hint.
            brief: BRIEF.min(settings.debounce) / 2,
            private: settings.private.clone(),
            marker_directory: None,
            markers: 0,
            homes: 0,
            rescan: settings.rescan,
            next_look: now,
            next_rescan: now,
            missed_not_before: now,
            out_of_watches: false,
        };
        Ok((lookout, shared))
    }

    /// Arms the watches and reads every entry once.
    pub(super) fn first_scan(&mut self) -> Result<Vec<Edit>, WatchError> {
        self.arm()?;
        let mut edits = Vec::new();
        for target in &self.targets {
            // An entry that changes all the time is left to the first look after this one.
            let seen = snapshot::read(target).unwrap_or(Seen {
                key: None,
                digest: None,
                racy: false,
            });
            self.routines.push(Known {
                seen,
                noted: seen.key,
                noted_at: Instant::now(),
                refused: None,
            });
            edits.push(Edit {
                routine: target.routine.clone(),
                saves: 0,
                digest: seen.digest,
                settled: Instant::now(),
            });
        }
        self.plan_looks(true);
        Ok(edits)
    }

    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// How many directories are watched for entries in them.
    pub(super) fn directories(&self) -> usize {
        self.homes
    }

    /// Works until it is told to stop, or nobody takes edits any more.
    pub(super) fn run(mut self) -> Result<(), WatchError> {
        loop {
            match self.next() {
                Work::Stop => return Ok(()),
                Work::Ended => {
                    // notify panics when a watcher without its thread is dropped.
                    std::mem::forget(self.watches);
                    return Err(WatchError::Ended);
                }
                Work::Note(heard) => self.note(&heard),
                Work::Moved => self.look(false),
                Work::Missed => {
                    tracing::debug!("file events were lost; every entry is read again");
                    self.missed_not_before = Instant::now() + MISSED_PAUSE;
                    self.watches.forget();
                    self.look(false);
                }
                Work::Look => {
                    self.plan_looks(false);
                    let changed = |(target, known): (&Target, &Known)| {
                        snapshot::look(target) != known.seen.key
                    };
                    if self.targets.iter().zip(&self.routines).any(changed) {
                        self.look(false);
                    }
                }
                Work::Rescan => {
                    self.plan_looks(true);
                    self.look(true);
                }
                Work::Sync(numbers) => self.begin_syncs(&numbers),
                Work::Settle(due, settled) => {
                    if !self.settle(&due, settled) {
                        return Ok(());
                    }
                }
            }
            if !self.end_syncs() {
                return Ok(());
            }
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
            if self.next_rescan <= now {
                return Work::Rescan;
            }
            if self.next_look <= now {
                return Work::Look;
            }
            let mut until = self.next_rescan.min(self.next_look);
            if inbox.missed {
                until = until.min(self.missed_not_before);
            }
            if let Some(deadline) = inbox.debounce.next_deadline() {
                until = until.min(deadline);
            }
            inbox = self.shared.wait(inbox, until);
        }
    }

    fn plan_looks(&mut self, rescan: bool) {
        let now = Instant::now();
        let look = (self.rescan / 10).clamp(MIN_LOOK, MAX_LOOK);
        self.next_look = now + look;
        if rescan {
            self.next_rescan = now + look * 10;
        }
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

    /// Watches what has to be watched now, and hints at every entry that differs from what is known of it.
    fn look(&mut self, racy_too: bool) {
        let fresh = match self.arm() {
            Ok(fresh) => {
                self.out_of_watches = false;
                fresh
            }
            Err(error) => {
                if !std::mem::replace(&mut self.out_of_watches, true) {
                    tracing::warn!("{error}; until then changes are only seen by looking");
                }
                HashSet::new()
            }
        };
        let now = Instant::now();
        for (routine, known) in self.routines.iter_mut().enumerate() {
            let key = self.targets.get(routine).and_then(snapshot::look);
            let hint = if key.is_none() && (known.seen.key.is_some() || fresh.contains(&routine)) {
                Hint::Removed
            } else if fresh.contains(&routine) {
                Hint::Missed
            } else if key != known.seen.key || (racy_too && known.seen.racy) {
                Hint::Found
            } else {
                continue;
            };
            let mut inbox = self.shared.inbox();
            // It rests since it was noted, whatever else may have been missed.
            let rests = key == known.noted && inbox.debounce.is_unseen(routine);
            if !rests && inbox.debounce.hint(routine, hint, now) {
                known.note(key);
            }
        }
    }

    /// Makes plans and arms them until one brings nothing new; the routines whose directories were not watched without
    /// a gap.
    fn arm(&mut self) -> Result<HashSet<usize>, WatchError> {
        let mut fresh = HashSet::new();
        for _ in 0..MAX_PLANS {
            // What moves from here on is either in the plan or makes another one necessary.
            let moved = std::mem::take(&mut self.shared.inbox().moved);
            let plan = Plan::new(&self.targets, &self.private);
            {
                // Before the watches, so that no event of theirs finds nobody who knows its path.
                let mut inbox = self.shared.inbox();
                inbox.entries.clone_from(&plan.entries);
                inbox.ways.clone_from(&plan.ways);
            }
            self.homes = plan.homes.len();
            self.marker_directory.clone_from(&plan.private);
            let armed = self.watches.arm(&plan, &moved)?;
            if armed.is_empty() {
                break;
            }
            fresh.extend(plan.routines_in(&armed));
        }
        Ok(fresh)
    }

    /// Reads what is due and sends an edit for what changed; false if nobody takes it.
    fn settle(&mut self, due: &[Due], settled: Instant) -> bool {
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
            return true;
        }
        self.await_marker();
        for (due, seen) in read {
            if let Some(edit) = self.edit(due, seen, settled)
                && !self.send(Sighting::Edit(edit))
            {
                return false;
            }
        }
        true
    }

    /// Makes sure that every change up to now is known, and remembers which ones have to settle.
    fn begin_syncs(&mut self, numbers: &[u64]) {
        self.await_marker();
        self.look(true);
        let inbox = self.shared.inbox();
        let unsettled: HashSet<usize> = inbox.debounce.unsettled().collect();
        let begun = numbers.iter().map(|&number| (number, unsettled.clone()));
        self.syncs.extend(begun);
    }

    /// Tells of the syncs whose changes have all settled; false if nobody takes it.
    fn end_syncs(&mut self) -> bool {
        if self.syncs.is_empty() {
            return true;
        }
        let unsettled: HashSet<usize> = self.shared.inbox().debounce.unsettled().collect();
        let mut ended = Vec::new();
        self.syncs.retain_mut(|(number, waited_for)| {
            waited_for.retain(|routine| unsettled.contains(routine));
            if waited_for.is_empty() {
                ended.push(*number);
            }
            !waited_for.is_empty()
        });
        ended
            .into_iter()
            .all(|number| self.send(Sighting::Synced(number)))
    }

    /// The entry of a change that is due; `None` if it turns out not to be at rest.
    fn read(&mut self, due: &Due) -> Option<Seen> {
        let target = self.targets.get(due.routine)?;
        let known = self.routines.get_mut(due.routine)?;
        let writing = due.gate == Gate::Writing;
        if writing && known.refused.is_some() && known.refused == snapshot::look(target) {
            return None;
        }
        let seen = snapshot::read(target);
        let key = seen.map_or_else(|| snapshot::look(target), |seen| seen.key);
        let needed = match key {
            Some(key) if key.is_empty() => EMPTY_QUIET,
            _ => self.brief,
        };
        if key != known.noted {
            known.note(key);
            return None;
        }
        if known.noted_at.elapsed() < needed {
            return None;
        }
        if writing && source::read(target).is_err() {
            known.refused = key;
            return None;
        }
        seen
    }

    /// Waits until every event of what happened before now has been heard.
    fn await_marker(&mut self) {
        let Some(directory) = &self.marker_directory else {
            return;
        };
        self.markers += 1;
        let marker = directory.join(format!("seen-{}-{}", std::process::id(), self.markers));
        self.shared.inbox().awaited = Some(marker.clone());
        // A link is the cheapest thing to make: it holds no data and nobody opens it.
        let made = std::os::unix::fs::symlink("seen", &marker);
        // If one is left over from a process that was killed, its removal is an event as well.
        if let Err(error) = std::fs::remove_file(&marker) {
            let error = made.err().unwrap_or(error);
            tracing::debug!("no marker in `{}`: {error}", directory.display());
            self.shared.inbox().awaited = None;
            return;
        }
        let until = Instant::now() + MARKER_WAIT;
        let mut inbox = self.shared.inbox();
        while inbox.awaited.is_some() && inbox.life == Life::Running {
            if until <= Instant::now() {
                tracing::debug!("the event of `{}` did not come", marker.display());
                inbox.awaited = None;
            } else {
                inbox = self.shared.wait(inbox, until);
            }
        }
    }

    /// Ends a change; `None` if a later hint has overtaken it or if it left nothing to tell.
    fn edit(&mut self, due: Due, seen: Seen, settled: Instant) -> Option<Edit> {
        let told = self
            .shared
            .inbox()
            .debounce
            .settle(due.routine, due.ticket)?;
        let target = self.targets.get(due.routine)?;
        let known = self.routines.get_mut(due.routine)?;
        let before = std::mem::replace(&mut known.seen, seen);
        known.refused = None;
        if told == 0 && before.digest == seen.digest {
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
                if inbox.life != Life::Running {
                    return false;
                }
                inbox = self.shared.wait(inbox, until);
            }
        }
    }
}
