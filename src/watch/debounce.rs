//! Hints become settled changes: per routine a quiet time, a longest wait, and a gate that a half-written file does not
//! pass.
//!
//! It looks at no file and at no clock. A change whose time has come is handed out and stays until whoever looked at
//! the file answers with [`Debounce::settle`] or [`Debounce::postpone`]. Both carry a ticket that every hint renews, so
//! an answer that a later hint has overtaken changes nothing.

use std::time::{Duration, Instant};

/// How long a file that is open for writing, or may be, has to be left alone before it can be taken as it is.
pub(super) const REST: Duration = Duration::from_secs(1);

/// The same where nothing but time speaks for the file: where its bytes are not checked, or are no code. Tries are a
/// [`REST`] apart, so that this lets the second one through.
pub(super) const UNPROVEN_REST: Duration = Duration::from_millis(1_500);

/// How long even saves that never rest have to pause before one of them is taken, unless the quiet time is shorter.
pub(super) const BRIEF: Duration = Duration::from_millis(2);

/// The longest quiet time or wait that is honoured; more would only risk an overflow of time.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What an event, or a look at the disk, says about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// Bytes were written, or cut off, by somebody who may go on.
    Written,
    /// A writer closed the file.
    Closed,
    /// A file was moved to the entry's name.
    Arrived,
    /// The entry's name was made: by a link, or by somebody who opens it next.
    Created,
    /// Somebody opened it, to read or to write.
    Opened,
    /// Permissions or times were set.
    Touched,
    /// The entry's name is gone.
    Removed,
    /// A look found the entry changed.
    Found,
    /// Events may have been missed, the end of a write among them.
    Missed,
}

/// What is known of the writer of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It is done.
    Done,
    /// The name is new and nobody has opened it since, as after a link.
    Fresh,
    /// It has written and not closed the file.
    Writing,
    /// No event told of the change, or what came after the events may have been missed, so nothing is known.
    Unseen,
}

/// A change whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// The number of the routine.
    pub(super) routine: usize,
    /// What an answer has to show; the next hint makes it worthless.
    pub(super) ticket: u64,
    /// With `Writing` and `Unseen` the file has to prove that it can be taken.
    pub(super) gate: Gate,
}

/// The changes that have not settled yet, at most one a routine.
#[derive(Debug)]
pub(super) struct Debounce {
    quiet: Duration,
    max_wait: Duration,
    /// How long a change may be unsettled before that is worth a word.
    patience: Duration,
    ticket: u64,
    pending: Vec<Option<Pending>>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    first: Instant,
    last: Instant,
    gate: Gate,
    saves: u32,
    ticket: u64,
    /// It was put off until then, unless a hint comes before.
    not_before: Instant,
    /// It has been handed out as overdue.
    overdue: bool,
}

impl Debounce {
    /// For routines numbered from 0 to `routines - 1`.
    pub(super) fn new(routines: usize, quiet: Duration, max_wait: Duration) -> Self {
        let (quiet, max_wait) = (quiet.min(LONGEST), max_wait.min(LONGEST));
        Self {
            quiet,
            max_wait,
            // Whatever rests for the time that it has to rest is settled before.
            patience: max_wait.max(quiet).max(2 * REST) + REST,
            ticket: 0,
            pending: vec![None; routines],
        }
    }

    /// Takes in one more routine, which has the next number.
    pub(super) fn grow(&mut self) {
        self.pending.push(None);
    }

    /// The same where a change may take this much longer to be seen to rest.
    pub(super) fn slower(mut self, by: Duration) -> Self {
        self.patience += by.min(LONGEST);
        self
    }

    /// Takes a hint about a routine; false if it says nothing new.
    pub(super) fn hint(&mut self, routine: usize, hint: Hint, now: Instant) -> bool {
        let Some(slot) = self.pending.get_mut(routine) else {
            return false;
        };
        // Whoever makes a file opens it in the same call. A later opening may be a mere reader's, and is this very
        // program's when the change is due.
        let late = |pending: Pending| now.saturating_duration_since(pending.last) > BRIEF;
        if hint == Hint::Opened && slot.is_none_or(late) {
            return false;
        }
        let Some(gate) = gate_after(slot.map(|pending| pending.gate), hint) else {
            return false;
        };
        self.ticket += 1;
        let pending = slot.get_or_insert(Pending {
            first: now,
            last: now,
            gate,
            saves: 0,
            ticket: self.ticket,
            not_before: now,
            overdue: false,
        });
        pending.last = now;
        pending.not_before = now;
        pending.gate = gate;
        pending.ticket = self.ticket;
        if matches!(hint, Hint::Closed | Hint::Arrived) {
            pending.saves = pending.saves.saturating_add(1);
        }
        true
    }

    /// What is known of the writer of a routine's change, if there is one.
    pub(super) fn gate(&self, routine: usize) -> Option<Gate> {
        let pending = self.pending.get(routine).copied().flatten();
        pending.map(|pending| pending.gate)
    }

    /// The routines with a change that has not settled.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = usize> {
        let pending = self.pending.iter().enumerate();
        pending.filter_map(|(routine, pending)| pending.map(|_| routine))
    }

    /// The changes whose time has come. They stay until they are settled.
    pub(super) fn due(&self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for (routine, pending) in self.pending.iter().enumerate() {
            if let Some(pending) = pending
                && self.deadline(pending) <= now
            {
                due.push(Due {
                    routine,
                    ticket: pending.ticket,
                    gate: pending.gate,
                });
            }
        }
        due
    }

    /// The changes that have not settled for far longer than usual, each of them once.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Due> {
        let patience = self.patience;
        let pending = self.pending.iter_mut().enumerate();
        let pending = pending.filter_map(|(routine, pending)| Some((routine, pending.as_mut()?)));
        let overdue = pending
            .filter(|(_, pending)| !pending.overdue && pending.first + patience <= now)
            .map(|(routine, pending)| {
                pending.overdue = true;
                Due {
                    routine,
                    ticket: pending.ticket,
                    gate: pending.gate,
                }
            });
        overdue.collect()
    }

    /// When [`Debounce::overdue`] has something next.
    #[must_use]
    pub(super) fn next_overdue(&self) -> Option<Instant> {
        let pending = self.pending.iter().flatten();
        let pending = pending.filter(|pending| !pending.overdue);
        pending.map(|pending| pending.first + self.patience).min()
    }

    /// When [`Debounce::due`] has something next, if there is no further hint.
    #[must_use]
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let pending = self.pending.iter().flatten();
        pending.map(|pending| self.deadline(pending)).min()
    }

    /// Ends a change and returns the saves that events told of; `None` if a hint came after the ticket was given.
    pub(super) fn settle(&mut self, routine: usize, ticket: u64) -> Option<u32> {
        let slot = self.pending.get_mut(routine)?;
        let pending = slot.take_if(|pending| pending.ticket == ticket)?;
        // A link put in place is a save that nobody opens or closes.
        let linked = u32::from(pending.gate == Gate::Fresh);
        Some(pending.saves.saturating_add(linked))
    }

    /// Puts a change off for as long as its writer has to rest; the next hint makes this void.
    pub(super) fn postpone(&mut self, routine: usize, ticket: u64, now: Instant) {
        let quiet = self.quiet;
        if let Some(Some(pending)) = self.pending.get_mut(routine)
            && pending.ticket == ticket
        {
            pending.not_before = now + pending.gate.pause(quiet);
        }
    }

    fn deadline(&self, pending: &Pending) -> Instant {
        let Pending { first, gate, .. } = *pending;
        let rested = pending.last + gate.pause(self.quiet);
        let waited = first + self.max_wait;
        let deadline = match gate {
            Gate::Done | Gate::Fresh => rested.min(waited.max(pending.last + BRIEF)),
            Gate::Unseen => rested,
            Gate::Writing => rested.max(waited),
        };
        deadline.max(pending.not_before)
    }
}

impl Gate {
    /// How long a change has to rest.
    fn pause(self, quiet: Duration) -> Duration {
        match self {
            Self::Done | Self::Fresh => quiet,
            Self::Unseen | Self::Writing => quiet.max(REST),
        }
    }
}

/// What is known of the writer after a hint; `None` if the hint says nothing new.
fn gate_after(before: Option<Gate>, hint: Hint) -> Option<Gate> {
    match (hint, before) {
        (Hint::Written, _) => Some(Gate::Writing),
        (Hint::Closed | Hint::Arrived | Hint::Removed, _) => Some(Gate::Done),
        (Hint::Created, _) => Some(Gate::Fresh),
        (Hint::Opened, Some(Gate::Fresh)) => Some(Gate::Writing),
        (Hint::Opened, _) => None,
        (Hint::Touched, known) => known.or(Some(Gate::Done)),
        // Whatever is known already is more than a look can tell.
        (Hint::Found, None) => Some(Gate::Unseen),
        (Hint::Found, Some(_)) => None,
        (Hint::Missed, _) => Some(Gate::Unseen),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUIET: Duration = Duration::from_millis(100);
    const MAX_WAIT: Duration = Duration::from_millis(2_000);

    struct Script {
        debounce: Debounce,
        start: Instant,
    }

    impl Script {
        fn new(hints: &[(u64, Hint)]) -> Self {
            let mut script = Self {
                debounce: Debounce::new(1, QUIET, MAX_WAIT),
                start: Instant::now(),
            };
            for &(at, hint) in hints {
                script.debounce.hint(0, hint, script.at(at));
            }
            script
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn deadline(&self) -> Option<u128> {
            let deadline = self.debounce.next_deadline()?;
            Some(deadline.duration_since(self.start).as_millis())
        }

        /// The gate and the saves of the change that is due, which is settled by this.
        fn settle(&mut self, ms: u64) -> Option<(Gate, u32)> {
            let due = self.debounce.due(self.at(ms)).pop()?;
            let saves = self.debounce.settle(due.routine, due.ticket)?;
            Some((due.gate, saves))
        }
    }

    #[test]
    fn every_way_to_save_is_one_save_and_settles_a_quiet_time_after_it() {
        use Hint::{Arrived, Closed, Created, Opened, Removed, Touched, Written};
        let ways: &[(&str, &[Hint])] = &[
            ("truncate and write", &[Opened, Written, Written, Closed]),
            (
                "vim",
                &[
                    Removed, Created, Opened, Written, Written, Touched, Closed, Opened,
                ],
            ),
            ("vim, backupcopy=yes", &[Opened, Written, Touched, Closed]),
            ("JetBrains", &[Removed, Arrived]),
            ("renamed over", &[Arrived]),
            ("git checkout", &[Removed, Created, Opened, Written, Closed]),
            ("touch", &[Opened, Touched, Closed]),
            ("mmap", &[Closed]),
            ("hard link", &[Removed, Created]),
        ];
        for (way, hints) in ways {
            let timed: Vec<_> = hints.iter().map(|&hint| (5, hint)).collect();
            let mut script = Script::new(&timed);
            assert_eq!(script.deadline(), Some(105), "{way}");
            assert_eq!(script.settle(104), None, "{way}");
            let (gate, saves) = script.settle(105).unwrap();
            assert!(matches!(gate, Gate::Done | Gate::Fresh), "{way}");
            assert_eq!(saves, 1, "{way}");
            assert_eq!(script.deadline(), None, "{way}");
        }
    }

    #[test]
    fn permissions_alone_are_no_save() {
        let mut script = Script::new(&[(0, Hint::Touched)]);
        assert_eq!(script.settle(100), Some((Gate::Done, 0)));
    }

    #[test]
    fn an_open_write_is_waited_for_however_long_it_pauses() {
        let mut script = Script::new(&[(0, Hint::Written)]);
        assert_eq!(script.settle(1_999), None);
        script.debounce.hint(0, Hint::Written, script.at(1_500));
        assert_eq!(script.settle(1_599), None);
        script.debounce.hint(0, Hint::Closed, script.at(1_600));
        assert_eq!(script.settle(1_699), None);
        assert_eq!(script.settle(1_700), Some((Gate::Done, 1)));
    }

    #[test]
    fn a_writer_that_never_closes_has_to_prove_rest_after_the_longest_wait() {
        let mut script = Script::new(&[(0, Hint::Written)]);
        assert_eq!(script.deadline(), Some(2_000));
        script.debounce.hint(0, Hint::Written, script.at(1_900));
        assert_eq!(script.deadline(), Some(2_900));
        let due = script.debounce.due(script.at(2_900)).pop().unwrap();
        assert_eq!(due.gate, Gate::Writing);
        script.debounce.postpone(0, due.ticket, script.at(2_900));
        assert_eq!(script.deadline(), Some(3_900));
        assert_eq!(script.debounce.due(script.at(3_899)), []);
        assert_eq!(script.settle(3_900), Some((Gate::Writing, 0)));
    }

    #[test]
    fn saves_that_never_rest_are_taken_after_the_longest_wait() {
        let hints: Vec<_> = (0..40).map(|n| (n * 50, Hint::Closed)).collect();
        let mut script = Script::new(&hints);
        assert_eq!(script.deadline(), Some(2_000));
        script.debounce.hint(0, Hint::Closed, script.at(2_000));
        assert_eq!(script.settle(2_001), None);
        assert_eq!(script.settle(2_002), Some((Gate::Done, 41)));
    }

    #[test]
    fn a_save_in_the_middle_of_another_look_is_not_settled_by_it() {
        let mut script = Script::new(&[(0, Hint::Closed)]);
        let due = script.debounce.due(script.at(100)).pop().unwrap();
        script.debounce.hint(0, Hint::Written, script.at(100));
        assert_eq!(script.debounce.settle(0, due.ticket), None);
        script.debounce.hint(0, Hint::Closed, script.at(110));
        assert_eq!(script.settle(210), Some((Gate::Done, 2)));
    }

    #[test]
    fn a_look_neither_adds_a_save_nor_opens_the_gate_of_a_writer() {
        let mut script = Script::new(&[(0, Hint::Written), (50, Hint::Found)]);
        assert_eq!(script.settle(1_000), None);
        script.debounce.hint(0, Hint::Closed, script.at(1_000));
        script.debounce.hint(0, Hint::Found, script.at(1_050));
        assert_eq!(script.settle(1_100), Some((Gate::Done, 1)));
    }

    #[test]
    fn a_missed_close_does_not_hold_a_change_back_and_a_writer_that_pauses_does() {
        let mut script = Script::new(&[(0, Hint::Written), (10, Hint::Missed)]);
        assert_eq!(script.settle(1_009), None);
        assert_eq!(script.settle(1_010), Some((Gate::Unseen, 0)));
        let mut script = Script::new(&[(0, Hint::Created), (10, Hint::Missed)]);
        script.debounce.hint(0, Hint::Written, script.at(1_000));
        assert_eq!(script.settle(1_999), None);
        assert_eq!(script.settle(2_000), Some((Gate::Writing, 0)));
    }

    #[test]
    fn a_name_made_by_a_link_is_settled_though_it_is_read_afterwards() {
        let mut script = Script::new(&[(0, Hint::Removed), (0, Hint::Created)]);
        // Somebody else reads it, and then this program does.
        script.debounce.hint(0, Hint::Opened, script.at(50));
        let due = script.debounce.due(script.at(100)).pop().unwrap();
        assert!(!script.debounce.hint(0, Hint::Opened, script.at(100)));
        assert_eq!(script.debounce.settle(0, due.ticket), Some(1));
        // Whoever opens a file with the very call that makes it writes it.
        let mut script = Script::new(&[(0, Hint::Created), (1, Hint::Opened)]);
        assert_eq!(script.settle(1_999), None);
        assert_eq!(script.settle(2_000), Some((Gate::Writing, 0)));
    }

    #[test]
    fn a_change_that_does_not_settle_is_overdue_once() {
        let mut script = Script::new(&[]);
        for at in (0..3_000).step_by(100) {
            script.debounce.hint(0, Hint::Written, script.at(at));
        }
        let at = script.at(3_000);
        assert_eq!(script.debounce.next_overdue(), Some(at));
        assert_eq!(script.debounce.overdue(script.at(2_999)), []);
        let overdue = script.debounce.overdue(at);
        assert_eq!(overdue.len(), 1);
        assert_eq!(overdue[0].gate, Gate::Writing);
        script.debounce.hint(0, Hint::Written, at);
        assert_eq!(script.debounce.overdue(script.at(9_000)), []);
        assert_eq!(script.debounce.next_overdue(), None);
        assert!(script.settle(9_000).is_some());
        script.debounce.hint(0, Hint::Written, script.at(10_000));
        assert_eq!(script.debounce.overdue(script.at(13_000)).len(), 1);
    }

    #[test]
    fn reading_starts_nothing() {
        let mut script = Script::new(&[(0, Hint::Opened)]);
        assert_eq!(script.deadline(), None);
        assert_eq!(script.settle(10_000), None);
    }

    fn any_hint() -> impl Strategy<Value = Hint> {
        prop::sample::select(vec![
            Hint::Written,
            Hint::Closed,
            Hint::Arrived,
            Hint::Created,
            Hint::Opened,
            Hint::Touched,
            Hint::Removed,
            Hint::Found,
            Hint::Missed,
        ])
    }

    proptest! {
        /// Plays any script of hints, asks exactly at each deadline in between, and puts every second answer off.
        #[test]
        fn every_change_settles_once_and_neither_early_nor_never(
            script in prop::collection::vec((0u64..700, 0usize..3, any_hint()), 1..60)
        ) {
            let start = Instant::now();
            let mut debounce = Debounce::new(3, QUIET, MAX_WAIT);
            // Per routine: first and last hint of the open change, in the model's own words.
            let mut open: [Option<(Instant, Instant)>; 3] = [None; 3];
            let mut refused = [false; 3];
            let mut now = start;
            let mut hints = script.into_iter().peekable();
            let mut turns = 0;
            loop {
                turns += 1;
                prop_assert!(turns < 2_000, "it stands still");
                let hint_at = hints.peek().map(|&(pause, ..)| now + Duration::from_millis(pause));
                let deadline = debounce.next_deadline();
                match (hint_at, deadline) {
                    (None, None) => break,
                    (Some(at), deadline) if deadline.is_none_or(|deadline| at < deadline) => {
                        now = at;
                        let (_, routine, hint) = hints.next().unwrap();
                        if debounce.hint(routine, hint, now) {
                            let first = open[routine].map_or(now, |(first, _)| first);
                            open[routine] = Some((first, now));
                        } else {
                            prop_assert!(matches!(hint, Hint::Opened | Hint::Found));
                        }
                    }
                    (_, deadline) => {
                        // The pause to the next hint counts from here, which only stretches the script.
                        now = now.max(deadline.unwrap());
                        let due = debounce.due(now);
                        prop_assert!(!due.is_empty(), "a deadline without progress");
                        for due in due {
                            let (first, last) = open[due.routine].unwrap();
                            let waited_out = now >= first + MAX_WAIT;
                            prop_assert!(now >= last + QUIET || waited_out && now >= last + BRIEF);
                            prop_assert!(due.gate != Gate::Writing || waited_out);
                            refused[due.routine] = !refused[due.routine];
                            if refused[due.routine] {
                                debounce.postpone(due.routine, due.ticket, now);
                            } else {
                                prop_assert!(debounce.settle(due.routine, due.ticket).is_some());
                                prop_assert!(debounce.settle(due.routine, due.ticket).is_none());
                                open[due.routine] = None;
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(open, [None; 3]);
        }
    }
}
