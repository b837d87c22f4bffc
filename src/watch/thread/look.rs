//! What a look does: it watches what has to be watched now, and hints at every entry that is not as was said.
//!
//! A look gives way: a save that is heard of meanwhile is taken as soon as it is due, and not when the look is over.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::backend::{self, Lack, Means};
use super::super::debounce::{Gate, Hint};
use super::super::looks::Look;
use super::super::plan::Plan;
use super::super::snapshot;
use super::super::watches::Armed;
use super::Lookout;
use super::trees::Walk;

/// The pause between two looks at a root that went away, since not every way back is an event.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// How many plans one look makes at most: each one may uncover a level of directories that was made meanwhile. What
/// is deeper is found by the next look.
const MAX_PLANS: usize = 16;

/// What came of arming the watches.
#[derive(Debug, Default)]
pub(super) struct Arming {
    /// The routines whose directories were not watched without a gap.
    pub(super) fresh: HashSet<usize>,
    /// Why some directories are not watched at all.
    pub(super) lack: Option<Lack>,
}

/// Which entries are read again although they look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reread {
    /// Those that could have been written in the same tick of the clock.
    Racy,
    /// Those as well that a program may hold mapped, since what it stores there need not change any time.
    Held,
}

impl Lookout {
    /// A look whose time has come.
    pub(super) fn look(&mut self, look: Look) {
        let begun = spent();
        let all = 0..self.targets.len();
        match look {
            Look::Full => {
                for root in 0..self.roots.len() {
                    self.roots.survey(root);
                    self.give_way();
                }
                self.look_in_full(Reread::Held);
            }
            Look::Entries => {
                if self.differs(all) {
                    self.look_in_full(Reread::Racy);
                } else {
                    self.look_at_trees(false);
                }
            }
            Look::Polled => {
                let mut polled = self.polling.routines.clone();
                polled.extend(self.roots.away());
                let turned = self.roots.turned(polled.iter().copied());
                if turned.iter().any(|&routine| self.roots.is_away(routine)) {
                    self.look_in_full(Reread::Racy);
                } else {
                    self.compare(polled, &HashSet::new(), &turned, Reread::Racy);
                    self.look_at_trees(true);
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
                && (known.is_racy() || snapshot::look(target) != known.key())
            {
                return true;
            }
        }
        false
    }

    /// Watches what has to be watched now, and hints at every entry, and every tree, that differs from what is known of
    /// it.
    pub(super) fn look_in_full(&mut self, reread: Reread) {
        let fresh = self.arm(Walk::Full).fresh;
        let turned = self.roots.turned(0..self.targets.len());
        self.compare(0..self.targets.len(), &fresh, &turned, reread);
    }

    /// Hints at each of these routines whose entry differs from what is known of it, whose root turned, or whose
    /// directories were not watched without a gap.
    fn compare(
        &mut self,
        routines: impl IntoIterator<Item = usize>,
        fresh: &HashSet<usize>,
        turned: &HashSet<usize>,
        reread: Reread,
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
            if fresh || turned {
                known.heard();
            }
            let gone = key.is_none() && (known.key().is_some() || fresh);
            let hint = match (turned, away) {
                (true, false) => Hint::Removed,
                (true, true) => Hint::Missed,
                (false, true) => continue,
                (false, false) if gone => Hint::Removed,
                (false, false) if fresh => Hint::Missed,
                (false, false) => {
                    let again = known.is_racy() || reread == Reread::Held && known.is_held();
                    if key == known.key() && !(again && known.is_rewritten(target)) {
                        continue;
                    }
                    Hint::Found
                }
            };
            let found = hint == Hint::Found && key != known.key();
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
                match gate {
                    // Of what is polled already this is no news.
                    None if found && !self.polling.routines.contains(&routine) => known.found(),
                    Some(Gate::Unseen) if found => {}
                    _ => known.heard(),
                }
            }
        }
    }

    /// Makes plans and arms them until one brings nothing new; with the routines whose directories were not watched
    /// without a gap. Then it walks the trees.
    pub(super) fn arm(&mut self, walk: Walk) -> Arming {
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
            self.trees.keep(&mut plan);
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
        let lack = self.walk_trees(0..self.trees.len(), &mut plan, walk);
        arming.lack = arming.lack.or(lack);
        let is_part = |path: &PathBuf| plan.directories.contains_key(path);
        self.shared.inbox().trees.retain(is_part);
        self.homes = plan.homes.len();
        let private = plan.private.take();
        self.marker.directory = private.filter(|path| self.watches.holds(path));
        let bare = plan.directories.keys();
        let bare = plan.users(bare.filter(|path| !self.watches.holds(path)));
        let silent = |home: &&PathBuf| backend::of(home, self.polling.setting) == Means::Both;
        let silent = plan.users(plan.homes.iter().chain(&plan.tops).filter(silent));
        let lack = arming.lack.as_ref();
        let needed = plan.directories.len();
        let lack = lack.map(|lack| (lack, needed));
        let told = self.polling.update(bare, silent, lack, &self.targets);
        self.outbox.extend(told);
        self.polled();
        arming
    }

    /// Takes over which routines are polled now.
    pub(super) fn polled(&mut self) {
        let targets = self.targets.iter().enumerate();
        let noticing = targets
            .map(|(at, target)| (target.routine.clone(), self.polling.noticing(at)))
            .collect();
        self.shared.inbox().noticing = noticing;
        self.plan_looks();
    }

    /// Lets looks follow what is polled, away, or to be tried again.
    pub(super) fn plan_looks(&mut self) {
        let polled = self.polling.any().then_some(self.polling.interval);
        let away = self.roots.away().next().map(|_| AWAY_PAUSE);
        let pause = polled.into_iter().chain(away).min();
        self.looks.poll_every(pause, Instant::now());
        self.looks.retry_at(self.watches.retry());
    }
}

/// The time that this thread has spent on a core.
pub(super) fn spent() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
