//! Decides which routine is deployed when, and counts how every edit ends. Pure.
//!
//! The loop hands each [`Event`] in with the time and carries the [`Effect`]s out; it calls again with [`Event::Tick`]
//! at [`Schedule::next_deadline`]. Nothing here waits, draws a number or looks at a clock.
//!
//! Most troubles are one routine's. Those of the service as a whole are another matter: while it cannot be reached, or
//! refuses the key, one try at a time stands for all routines, so that three hundred of them make no more noise and no
//! more requests than one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::report::class::Class;
use crate::report::{self, Problem, Totals};
use crate::routine::{Digest, Edit, Revision, RoutineName};

pub use super::queue::Job;
use super::queue::Queue;

/// The most deploys at a time. Each may hold four megabytes of code, and the gate lets far fewer requests through, so
/// more would only wait in another place.
pub const MAX_RUNNING: usize = 16;

/// The first pause of the back-off, before jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause of the back-off.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The shortest pause of the back-off, after jitter.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The most tries of an edit by a command that runs once: some minutes of growing pauses.
const TRIES_ONCE: u32 = 12;

/// The pause between two tries while the service refuses the key.
const PROBE: Duration = Duration::from_secs(300);

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A routine's entry came to rest.
    Edited(Edit),
    /// A running deploy's bytes are on the service; freeing a slot may take a while longer.
    Landed(RoutineName, Landed),
    /// A deploy ended.
    Ended(RoutineName, Ended),
    /// Time passed.
    Tick,
    /// Nothing new is to be started.
    Stop,
}

/// How a deploy ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// A version holds the bytes.
    Stored {
        /// Which one.
        landed: Landed,
        /// When freeing a slot is worth another try, if it did not come to its end.
        tidy: Option<Again>,
    },
    /// Only a slot was to be freed.
    Tidied {
        /// When another try makes sense, if it did not come to its end.
        again: Option<Again>,
        /// What the try says of the service as a whole.
        reach: Reach,
    },
    /// The entry had changed again before it was read; the edit that tells of it is on its way.
    Overtaken,
    /// It failed.
    Failed {
        /// Why, in words for people.
        problem: Problem,
        /// When another try makes sense.
        again: Again,
        /// What the try says of the service as a whole.
        reach: Reach,
        /// A random number of `0.0..1.0` that spreads the tries of several clients.
        jitter: f64,
    },
}

/// Which version holds an edit's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// In which of the ways it came to that.
    pub end: End,
    /// Which bytes.
    pub digest: Digest,
    /// Which version.
    pub revision: Revision,
}

/// How an edit can end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It became a new version.
    Uploaded,
    /// An older version holds its bytes.
    Reused,
    /// The newest version holds its bytes.
    Unchanged,
    /// A dry run would have uploaded it.
    Planned,
}

/// What a try that did not succeed says of the service as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It answered.
    Answered,
    /// It could not be reached.
    Silent,
    /// It refused the key, or the time, which it would do with every request.
    Rejected,
    /// Nothing: it was not asked, or what is missing is one routine's answer.
    Unasked,
}

/// When another try makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// After a pause that grows from try to try, and not before this one has passed.
    Soon(Duration),
    /// The same, but only so many times.
    FewTimes(u32),
    /// After this pause, neither earlier nor later.
    After(Duration),
    /// After this pause, since somebody has to change something first. A command that runs once does not wait for it.
    Later(Duration),
    /// Not until the file changes.
    Never,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "an effect that is not carried out loses an edit"]
pub enum Effect {
    /// Start a job.
    Run(Job),
    /// Tell the user.
    Tell(report::Event),
}

/// Whether tries go on for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As long as the program runs.
    Daemon,
    /// Until everything has ended: what needs somebody's help ends at once.
    Once,
}

/// The state of all routines.
#[derive(Debug)]
pub struct Schedule {
    mode: Mode,
    queue: Queue,
    /// What each routine's bytes were when they were last known to be on the service, and in which version.
    synced: BTreeMap<RoutineName, (Digest, Revision)>,
    /// What keeps a routine from being up to date, and how often in a row.
    troubles: BTreeMap<RoutineName, (Problem, u32)>,
    failures: BTreeSet<Class>,
    totals: Totals,
    /// Set while the service as a whole is not to be had.
    halt: Option<Halt>,
    stopping: bool,
}

/// The service cannot be reached, or refuses the key.
#[derive(Debug)]
struct Halt {
    since: Instant,
    reach: Reach,
    attempt: u32,
    not_before: Instant,
    /// The routine whose try stands for all.
    probe: Option<RoutineName>,
}

impl Schedule {
    /// A schedule without work.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            queue: Queue::default(),
            synced: BTreeMap::new(),
            troubles: BTreeMap::new(),
            failures: BTreeSet::new(),
            totals: Totals::default(),
            halt: None,
            stopping: false,
        }
    }

    /// Takes note of an event and says what to do.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Edited(edit) => self.edited(edit, now, &mut effects),
            Event::Landed(routine, landed) => {
                self.resume(now, &mut effects);
                self.landed(&routine, landed);
            }
            Event::Ended(routine, ended) => self.ended(routine, ended, now, &mut effects),
            Event::Tick => {}
            Event::Stop => self.stopping = true,
        }
        while let Some(job) = self.start(now) {
            effects.push(Effect::Run(job));
        }
        effects
    }

    fn start(&mut self, now: Instant) -> Option<Job> {
        if self.stopping {
            return None;
        }
        let Some(halt) = &mut self.halt else {
            return self.queue.start(now, MAX_RUNNING);
        };
        if halt.probe.is_some() || now < halt.not_before {
            return None;
        }
        let job = self.queue.start(now, MAX_RUNNING)?;
        halt.probe = Some(job.routine().clone());
        Some(job)
    }

    /// When [`Schedule::handle`] has something to do without an event.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.stopping {
            return None;
        }
        let next = self.queue.next_deadline(MAX_RUNNING);
        match &self.halt {
            None => next,
            Some(Halt { probe: Some(_), .. }) => None,
            Some(halt) => next.map(|next| next.max(halt.not_before)),
        }
    }

    /// Deploys that run.
    pub fn running(&self) -> usize {
        self.queue.running()
    }

    /// Whether every edit has ended.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Ends what still waits or runs. An edit that waits because of a known problem has failed with it, if the time for
    /// a command that runs once is up; any other is abandoned.
    pub fn close(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut left = self.queue.take_waiting();
        left.extend(self.queue.take_running());
        for edit in left {
            match self.troubles.get(&edit.routine).cloned() {
                Some((problem, _)) if self.mode == Mode::Once => {
                    self.fail(&edit, problem, &mut effects);
                }
                _ => {
                    self.totals.abandoned += 1;
                    effects.push(Effect::Tell(report::Event::Abandoned {
                        routine: edit.routine,
                        saves: edit.saves,
                    }));
                }
            }
        }
        effects
    }

    /// How edits have ended so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The classes of all edits that have failed.
    pub fn failures(&self) -> &BTreeSet<Class> {
        &self.failures
    }

    fn edited(&mut self, edit: Edit, now: Instant, effects: &mut Vec<Effect>) {
        self.totals.edits += 1;
        self.totals.saves += u64::from(edit.saves);
        let routine = edit.routine.clone();
        if let Some(older) = self.queue.push(edit, now) {
            self.supersede(&older, effects);
        }
        self.settle_unchanged(&routine, effects);
    }

    /// An edit that left the bytes as they are on the service needs no deploy, unless one runs.
    fn settle_unchanged(&mut self, routine: &RoutineName, effects: &mut Vec<Effect>) {
        let Some((digest, revision)) = self.synced.get(routine).cloned() else {
            return;
        };
        if let Some(edit) = self
            .queue
            .take_if(routine, |edit| edit.digest == Some(digest))
        {
            self.totals.unchanged += 1;
            self.troubles.remove(routine);
            effects.push(Effect::Tell(report::Event::Unchanged {
                routine: routine.clone(),
                revision,
                saves: edit.saves,
            }));
        }
    }

    fn ended(
        &mut self,
        routine: RoutineName,
        ended: Ended,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let newer = match ended {
            Ended::Tidied { again, reach } => {
                self.reached(&routine, reach, None, now, effects);
                let Some((attempt, newer)) = self.queue.finish_tidy(&routine) else {
                    return;
                };
                self.tidy_later(&routine, again, attempt + 1, newer.is_some(), now);
                newer
            }
            Ended::Stored { landed, tidy } => {
                self.resume(now, effects);
                self.landed(&routine, landed);
                let Some((_, newer)) = self.queue.finish(&routine) else {
                    return;
                };
                self.tidy_later(&routine, tidy, 0, newer.is_some(), now);
                newer
            }
            Ended::Overtaken => {
                self.reached(&routine, Reach::Unasked, None, now, effects);
                let Some((edit, newer)) = self.queue.finish(&routine) else {
                    return;
                };
                self.synced.remove(&routine);
                self.supersede(&edit, effects);
                newer
            }
            Ended::Failed {
                problem,
                again,
                reach,
                jitter,
            } => {
                let attempt = self.queue.attempt(&routine);
                let told = (problem, jitter);
                self.reached(&routine, reach, Some(&told), now, effects);
                let Some((edit, newer)) = self.queue.finish(&routine) else {
                    return;
                };
                self.synced.remove(&routine);
                let next = (
                    again,
                    attempt,
                    self.halt.is_some() && reach != Reach::Unasked,
                );
                self.failed(edit, newer.is_some(), told, next, now, effects);
                newer
            }
        };
        if let Some(newer) = newer {
            self.queue.put_back(newer, now, 0);
            self.settle_unchanged(&routine, effects);
        }
    }

    /// Keeps an edit whose try did not succeed for another one, or ends it.
    fn failed(
        &mut self,
        edit: Edit,
        overtaken: bool,
        (problem, jitter): (Problem, f64),
        (again, attempt, halted): (Again, u32, bool),
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        if halted && !overtaken {
            // When to try again is no longer this routine's question.
            self.queue.put_back(edit, now, 0);
            return;
        }
        match self.next_try(again, attempt, jitter) {
            Some(_) if overtaken => self.supersede(&edit, effects),
            Some(pause) => {
                self.tell_trouble(&edit.routine, problem, pause, effects);
                self.queue.put_back(edit, now + pause, attempt + 1);
            }
            None => self.fail(&edit, problem, effects),
        }
    }

    /// Takes note of what a try says of the service as a whole.
    fn reached(
        &mut self,
        routine: &RoutineName,
        reach: Reach,
        told: Option<&(Problem, f64)>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        if self.mode == Mode::Once {
            return;
        }
        let jitter = told.map_or(0.5, |(_, jitter)| *jitter);
        match reach {
            Reach::Answered => self.resume(now, effects),
            Reach::Unasked => {
                if let Some(halt) = self.halt.as_mut() {
                    halt.probe = halt.probe.take().filter(|probe| probe != routine);
                }
            }
            Reach::Silent | Reach::Rejected => {
                let halt = self.halt.get_or_insert_with(|| Halt {
                    since: now,
                    reach,
                    attempt: 0,
                    not_before: now,
                    probe: Some(routine.clone()),
                });
                // What was under way when it began says nothing new.
                if halt.probe.as_ref() != Some(routine) {
                    return;
                }
                let after = match reach {
                    Reach::Rejected => PROBE,
                    _ => outage_pause(halt.attempt, jitter),
                };
                (halt.probe, halt.reach) = (None, reach);
                halt.attempt += 1;
                halt.not_before = now + after;
                if let Some((problem, _)) = told.filter(|_| is_power_of_ten(halt.attempt)) {
                    effects.push(Effect::Tell(report::Event::Offline {
                        after,
                        problem: problem.clone(),
                    }));
                }
            }
        }
    }

    /// The service is to be had again.
    fn resume(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(halt) = self.halt.take() {
            effects.push(Effect::Tell(report::Event::Online {
                lasted: now.saturating_duration_since(halt.since),
                waiting: self.queue.waiting(),
            }));
        }
    }

    fn tidy_later(
        &mut self,
        routine: &RoutineName,
        again: Option<Again>,
        attempt: u32,
        overtaken: bool,
        now: Instant,
    ) {
        // A deploy tidies anyway, and a command that runs once leaves it to the next.
        if overtaken || self.mode == Mode::Once {
            return;
        }
        if let Some(after) = again.and_then(|again| self.next_try(again, attempt, 0.5)) {
            self.queue.put_untidy(routine, now + after, attempt);
        }
    }

    fn landed(&mut self, routine: &RoutineName, landed: Landed) {
        if !self.queue.land(routine) {
            return;
        }
        self.troubles.remove(routine);
        self.synced
            .insert(routine.clone(), (landed.digest, landed.revision));
        match landed.end {
            End::Uploaded => self.totals.uploaded += 1,
            End::Reused => self.totals.reused += 1,
            End::Unchanged => self.totals.unchanged += 1,
            End::Planned => self.totals.planned += 1,
        }
    }

    /// The pause before the next try; `None` if there is none.
    fn next_try(&self, again: Again, attempt: u32, jitter: f64) -> Option<Duration> {
        match again {
            Again::Soon(_) if self.mode == Mode::Once && attempt + 1 >= TRIES_ONCE => None,
            Again::Soon(at_least) => Some(at_least + pause(attempt, jitter)),
            Again::FewTimes(most) if attempt + 1 < most => Some(pause(attempt, jitter)),
            Again::After(pause) => Some(pause),
            Again::Later(pause) if self.mode == Mode::Daemon => Some(pause),
            Again::FewTimes(_) | Again::Later(_) | Again::Never => None,
        }
    }

    /// Tells of a trouble when it begins, and then at its tenth, hundredth and so on try.
    fn tell_trouble(
        &mut self,
        routine: &RoutineName,
        problem: Problem,
        after: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let times = match self.troubles.get(routine) {
            Some((known, times)) if known.class == problem.class => times + 1,
            _ => 1,
        };
        self.troubles
            .insert(routine.clone(), (problem.clone(), times));
        if is_power_of_ten(times) {
            let routine = routine.clone();
            effects.push(Effect::Tell(match problem.operation {
                Some(operation) if problem.class == Class::Throttled => report::Event::Throttled {
                    routine,
                    operation,
                    after,
                },
                _ => report::Event::Retrying {
                    routine,
                    after,
                    problem,
                },
            }));
        }
    }

    fn supersede(&mut self, edit: &Edit, effects: &mut Vec<Effect>) {
        self.totals.superseded += 1;
        effects.push(Effect::Tell(report::Event::Superseded {
            routine: edit.routine.clone(),
            saves: edit.saves,
        }));
    }

    fn fail(&mut self, edit: &Edit, problem: Problem, effects: &mut Vec<Effect>) {
        self.totals.failed += 1;
        self.failures.insert(problem.class);
        self.troubles.remove(&edit.routine);
        effects.push(Effect::Tell(report::Event::Failed {
            routine: edit.routine.clone(),
            saves: edit.saves,
            problem,
        }));
    }
}

/// The pause after a try: drawn between zero and a bound that doubles from try to try ("full jitter"), so that clients
/// that failed together do not come back together.
fn pause(attempt: u32, jitter: f64) -> Duration {
    let bound = FIRST_PAUSE
        .saturating_mul(1 << attempt.min(16))
        .min(LONGEST_PAUSE);
    bound.mul_f64(jitter.clamp(0.0, 1.0)).max(SHORTEST_PAUSE)
}

/// The pause between two tries that stand for all routines. There is no crowd of tries of one's own to spread, and the
/// lower part of the range would only break the bound of two tries a minute.
fn outage_pause(attempt: u32, jitter: f64) -> Duration {
    let bound = FIRST_PAUSE
        .saturating_mul(1 << attempt.min(16))
        .min(LONGEST_PAUSE);
    bound.mul_f64(0.65 + 0.35 * jitter.clamp(0.0, 1.0))
}

fn is_power_of_ten(number: u32) -> bool {
    std::iter::successors(Some(1u32), |n| n.checked_mul(10)).any(|n| n == number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn name(text: &str) -> RoutineName {
        RoutineName::new(text).unwrap()
    }

    fn edit(routine: &str, text: &str, at: Instant) -> Edit {
        Edit {
            routine: name(routine),
            saves: 1,
            digest: Some(Digest::of(text.as_bytes())),
            settled: at,
        }
    }

    fn stored(text: &str) -> Ended {
        Ended::Stored {
            landed: Landed {
                end: End::Uploaded,
                digest: Digest::of(text.as_bytes()),
                revision: Revision::new("7"),
            },
            tidy: None,
        }
    }

    fn problem(class: Class) -> Problem {
        Problem {
            what: "x".into(),
            help: String::new(),
            class,
            operation: None,
            request_id: None,
            frame: None,
        }
    }

    fn failed(again: Again) -> Ended {
        Ended::Failed {
            problem: problem(Class::Service),
            again,
            reach: Reach::Answered,
            jitter: 0.5,
        }
    }

    fn deploys(effects: &[Effect]) -> Vec<&RoutineName> {
        effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Run(job) => Some(job.routine()),
                Effect::Tell(_) => None,
            })
            .collect()
    }

    #[test]
    fn an_edit_during_an_upload_runs_once_more_and_those_between_are_superseded() {
        let (now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        let hello = name("hello");
        let edited = |text: &str| Event::Edited(edit("hello", text, now));
        assert_eq!(deploys(&schedule.handle(edited("a"), now)), [&hello]);
        assert_eq!(
            deploys(&schedule.handle(edited("b"), now)),
            [] as [&RoutineName; 0]
        );
        let third = schedule.handle(edited("c"), now);
        assert!(
            matches!(third[..], [Effect::Tell(report::Event::Superseded { .. })]),
            "{third:?}"
        );
        let next = schedule.handle(Event::Ended(hello.clone(), stored("a")), now);
        assert_eq!(next, [Effect::Run(Job::Deploy(edit("hello", "c", now)))]);
        schedule
            .handle(Event::Ended(hello, stored("c")), now)
            .clear();
        let totals = schedule.totals();
        assert_eq!(
            (totals.edits, totals.uploaded, totals.superseded),
            (3, 2, 1)
        );
        assert!(schedule.is_idle());
    }

    #[test]
    fn an_edit_that_leaves_the_bytes_as_they_are_starts_nothing() {
        let (now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        let hello = name("hello");
        schedule
            .handle(Event::Edited(edit("hello", "a", now)), now)
            .clear();
        schedule
            .handle(Event::Ended(hello.clone(), stored("a")), now)
            .clear();
        let effects = schedule.handle(Event::Edited(edit("hello", "a", now)), now);
        assert!(
            matches!(effects[..], [Effect::Tell(report::Event::Unchanged { .. })]),
            "{effects:?}"
        );
        assert!(schedule.is_idle());
    }

    #[test]
    fn bytes_that_failed_are_tried_again_when_saved_again() {
        let (now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        let hello = name("hello");
        for text in ["a", "b"] {
            schedule
                .handle(Event::Edited(edit("hello", text, now)), now)
                .clear();
            let ended = if text == "a" {
                stored("a")
            } else {
                failed(Again::Never)
            };
            schedule
                .handle(Event::Ended(hello.clone(), ended), now)
                .clear();
        }
        for text in ["b", "a"] {
            let effects = schedule.handle(Event::Edited(edit("hello", text, now)), now);
            assert_eq!(deploys(&effects), [&hello], "{text}");
            schedule
                .handle(Event::Ended(hello.clone(), failed(Again::Never)), now)
                .clear();
        }
    }

    #[test]
    fn the_pause_grows_is_jittered_and_has_bounds() {
        assert_eq!(pause(0, 1.0), Duration::from_millis(500));
        assert_eq!(pause(1, 1.0), Duration::from_secs(1));
        assert_eq!(pause(3, 0.25), Duration::from_secs(1));
        assert_eq!(pause(0, 0.0), SHORTEST_PAUSE);
        for attempt in [7, 40, u32::MAX] {
            assert_eq!(pause(attempt, 1.0), LONGEST_PAUSE);
        }
    }

    #[test]
    fn a_lasting_trouble_is_told_at_its_first_and_tenth_try_only() {
        let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        let hello = name("hello");
        let mut told = Vec::new();
        let mut effects = schedule.handle(Event::Edited(edit("hello", "a", now)), now);
        for attempt in 1..=30 {
            assert_eq!(deploys(&effects), [&hello]);
            let again = Again::Soon(Duration::ZERO);
            let after = schedule.handle(Event::Ended(hello.clone(), failed(again)), now);
            told.extend((!after.is_empty()).then_some(attempt));
            now = schedule.next_deadline().unwrap();
            effects = schedule.handle(Event::Tick, now);
        }
        assert_eq!(told, [1, 10]);
    }

    #[test]
    fn a_command_that_runs_once_does_not_wait_for_somebody() {
        let now = Instant::now();
        for (mode, idle) in [(Mode::Once, true), (Mode::Daemon, false)] {
            let mut schedule = Schedule::new(mode);
            schedule
                .handle(Event::Edited(edit("hello", "a", now)), now)
                .clear();
            let later = failed(Again::Later(Duration::from_secs(300)));
            schedule
                .handle(Event::Ended(name("hello"), later), now)
                .clear();
            assert_eq!(schedule.is_idle(), idle, "{mode:?}");
        }
    }

    #[test]
    fn what_waits_when_the_time_is_up_failed_with_its_trouble() {
        let (now, mut schedule) = (Instant::now(), Schedule::new(Mode::Once));
        schedule
            .handle(Event::Edited(edit("hello", "a", now)), now)
            .clear();
        schedule
            .handle(
                Event::Ended(name("hello"), failed(Again::Soon(Duration::ZERO))),
                now,
            )
            .clear();
        let effects = schedule.close();
        assert!(
            matches!(effects[..], [Effect::Tell(report::Event::Failed { .. })]),
            "{effects:?}"
        );
        assert_eq!(
            schedule.failures().iter().collect::<Vec<_>>(),
            [&Class::Service]
        );
    }

    #[test]
    fn an_edit_that_has_landed_is_not_abandoned_by_a_stop_that_cuts_the_rest_short() {
        let (now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        schedule
            .handle(Event::Edited(edit("hello", "a", now)), now)
            .clear();
        let Ended::Stored { landed, .. } = stored("a") else {
            panic!()
        };
        schedule
            .handle(Event::Landed(name("hello"), landed), now)
            .clear();
        schedule.handle(Event::Stop, now).clear();
        assert_eq!(schedule.close(), []);
        let totals = schedule.totals();
        assert_eq!((totals.edits, totals.uploaded, totals.abandoned), (1, 1, 0));
    }

    #[test]
    fn after_a_stop_nothing_is_started() {
        let (now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        schedule
            .handle(Event::Edited(edit("a", "a", now)), now)
            .clear();
        schedule.handle(Event::Stop, now).clear();
        assert_eq!(schedule.handle(Event::Edited(edit("b", "b", now)), now), []);
        assert_eq!(schedule.next_deadline(), None);
        assert_eq!(schedule.running(), 1);
        schedule
            .handle(Event::Ended(name("a"), stored("a")), now)
            .clear();
        let effects = schedule.close();
        assert!(
            matches!(effects[..], [Effect::Tell(report::Event::Abandoned { .. })]),
            "{effects:?}"
        );
    }

    fn offline() -> Ended {
        Ended::Failed {
            problem: problem(Class::Network),
            again: Again::Soon(Duration::ZERO),
            reach: Reach::Silent,
            jitter: 0.5,
        }
    }

    #[test]
    fn an_hour_without_the_service_costs_at_most_120_tries_and_a_few_lines_however_many_routines() {
        for jitter in [0.0, 0.5, 1.0] {
            let (begun, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
            let mut now = begun;
            let mut running: Vec<Job> = Vec::new();
            let (mut tries, mut lines) = (0, 0);
            for routine in 0..300 {
                let edited = Event::Edited(edit(&format!("r{routine}"), "a", now));
                for effect in schedule.handle(edited, now) {
                    match effect {
                        Effect::Run(job) => running.push(job),
                        Effect::Tell(_) => lines += 1,
                    }
                }
            }
            let hour = Duration::from_secs(3_600);
            while now - begun < hour {
                for job in std::mem::take(&mut running) {
                    tries += 1;
                    let mut ended = offline();
                    if let Ended::Failed { jitter: drawn, .. } = &mut ended {
                        *drawn = jitter;
                    }
                    let ended = Event::Ended(job.routine().clone(), ended);
                    lines += schedule.handle(ended, now).len();
                }
                now = schedule.next_deadline().unwrap();
                for effect in schedule.handle(Event::Tick, now) {
                    match effect {
                        Effect::Run(job) => running.push(job),
                        Effect::Tell(_) => lines += 1,
                    }
                }
                assert!(running.len() <= 1, "one try stands for all");
            }
            assert!(tries <= 120, "{tries}");
            assert!(lines <= 60, "{lines}");
        }
    }

    #[test]
    fn the_first_answer_after_an_outage_starts_everything_that_waits() {
        let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        for routine in ["a", "b", "c"] {
            let edited = Event::Edited(edit(routine, "x", now));
            schedule.handle(edited, now).clear();
        }
        for routine in ["a", "b", "c"] {
            let ended = Event::Ended(name(routine), offline());
            schedule.handle(ended, now).clear();
        }
        now = schedule.next_deadline().unwrap();
        let probe = schedule.handle(Event::Tick, now);
        assert_eq!(deploys(&probe), [&name("a")]);
        assert_eq!(schedule.next_deadline(), None);
        let effects = schedule.handle(Event::Ended(name("a"), stored("x")), now);
        assert!(
            matches!(
                effects[0],
                Effect::Tell(report::Event::Online { waiting: 2, .. })
            ),
            "{effects:?}"
        );
        assert_eq!(deploys(&effects), [&name("b"), &name("c")]);
    }

    #[test]
    fn a_refused_key_is_tried_once_in_five_minutes_whatever_is_saved() {
        let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        let begun = now;
        let mut effects = schedule.handle(Event::Edited(edit("a", "0", now)), now);
        let mut tries = 0;
        for second in 0..1_500 {
            if let [routine] = deploys(&effects)[..] {
                tries += 1;
                let ended = Ended::Failed {
                    problem: problem(Class::Credentials),
                    again: Again::Later(Duration::from_secs(300)),
                    reach: Reach::Rejected,
                    jitter: 0.5,
                };
                let ended = Event::Ended(routine.clone(), ended);
                schedule.handle(ended, now).clear();
            }
            now = begun + Duration::from_secs(second);
            let edited = Event::Edited(edit("a", &second.to_string(), now));
            effects = schedule.handle(edited, now);
        }
        assert_eq!(tries, 5);
    }

    #[test]
    fn a_slot_that_could_not_be_freed_is_freed_later_without_another_edit() {
        let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        let hello = name("hello");
        schedule
            .handle(Event::Edited(edit("hello", "a", now)), now)
            .clear();
        let Ended::Stored { landed, .. } = stored("a") else {
            panic!()
        };
        let tidy = Some(Again::After(Duration::from_secs(20)));
        let ended = Ended::Stored { landed, tidy };
        schedule
            .handle(Event::Ended(hello.clone(), ended), now)
            .clear();
        assert!(schedule.is_idle(), "no edit waits");
        now += Duration::from_secs(20);
        assert_eq!(schedule.next_deadline(), Some(now));
        let effects = schedule.handle(Event::Tick, now);
        assert_eq!(effects, [Effect::Run(Job::Tidy(hello.clone()))]);
        let done = Ended::Tidied {
            again: None,
            reach: Reach::Answered,
        };
        schedule.handle(Event::Ended(hello, done), now).clear();
        assert_eq!(schedule.next_deadline(), None);
    }

    /// One move of the outside world.
    #[derive(Debug, Clone)]
    enum Move {
        Edit(u8, u8),
        End(u8, u8),
        Sleep,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            (0u8..4, 0u8..3).prop_map(|(routine, text)| Move::Edit(routine, text)),
            (0u8..4, 0u8..8).prop_map(|(nth, how)| Move::End(nth, how)),
            proptest::prelude::Just(Move::Sleep),
        ];
        proptest::collection::vec(one, 0..120)
    }

    /// The world around a schedule: what is on disk, what runs, and what is on the service.
    struct World {
        now: Instant,
        schedule: Schedule,
        disk: BTreeMap<RoutineName, String>,
        stored: BTreeMap<RoutineName, String>,
        running: Vec<Job>,
    }

    impl World {
        fn handle(&mut self, event: Event) {
            for effect in self.schedule.handle(event, self.now) {
                let Effect::Run(job) = effect else { continue };
                let twice = self
                    .running
                    .iter()
                    .any(|running| running.routine() == job.routine());
                assert!(!twice, "two jobs of one routine at once");
                self.running.push(job);
            }
            assert!(self.running.len() <= MAX_RUNNING);
        }

        fn edit(&mut self, routine: u8, text: u8) {
            let (routine, text) = (format!("r{routine}"), text.to_string());
            let event = Event::Edited(edit(&routine, &text, self.now));
            self.disk.insert(name(&routine), text);
            self.handle(event);
        }

        fn end(&mut self, nth: usize, how: u8) {
            if self.running.is_empty() {
                return;
            }
            let job = self.running.remove(nth % self.running.len());
            let routine = job.routine().clone();
            let Job::Deploy(edit) = job else {
                let (again, reach) = match how {
                    0 => (Some(Again::Soon(Duration::ZERO)), Reach::Silent),
                    1 => (Some(Again::After(Duration::from_secs(1))), Reach::Unasked),
                    _ => (None, Reach::Answered),
                };
                return self.handle(Event::Ended(routine, Ended::Tidied { again, reach }));
            };
            let text = self.disk[&routine].clone();
            let digest = Digest::of(text.as_bytes());
            let with = |again, reach| Ended::Failed {
                problem: problem(Class::Network),
                again,
                reach,
                jitter: 0.5,
            };
            let ended = match how {
                // The source is read when the deploy starts; a change since then shows in the digest.
                _ if edit.digest != Some(digest) => Ended::Overtaken,
                0 => failed(Again::Soon(Duration::ZERO)),
                1 => failed(Again::FewTimes(4)),
                2 => failed(Again::Later(Duration::from_secs(300))),
                3 => with(Again::After(Duration::from_secs(20)), Reach::Unasked),
                4 => with(Again::Soon(Duration::ZERO), Reach::Silent),
                5 => with(Again::Later(Duration::from_secs(300)), Reach::Rejected),
                6 | 7 => {
                    self.stored.insert(routine.clone(), text.clone());
                    let tidy = (how == 6).then_some(Again::Soon(Duration::ZERO));
                    match stored(&text) {
                        Ended::Stored { landed, .. } => Ended::Stored { landed, tidy },
                        other => other,
                    }
                }
                _ => Ended::Overtaken,
            };
            self.handle(Event::Ended(routine, ended));
        }
    }

    proptest! {
        #[test]
        fn no_script_runs_two_jobs_of_a_routine_loses_an_edit_or_stands_still(script in moves()) {
            let mut world = World {
                now: Instant::now(),
                schedule: Schedule::new(Mode::Daemon),
                disk: BTreeMap::new(),
                stored: BTreeMap::new(),
                running: Vec::new(),
            };
            for step in script {
                match step {
                    Move::Edit(routine, text) => world.edit(routine, text),
                    Move::End(nth, how) => world.end(nth.into(), how),
                    Move::Sleep => world.now += Duration::from_millis(700),
                }
            }
            // From here on everything succeeds; each deadline must bring something about.
            for _ in 0..200 {
                while !world.running.is_empty() {
                    world.end(0, 7);
                }
                let Some(deadline) = world.schedule.next_deadline() else { break };
                world.now = world.now.max(deadline);
                world.handle(Event::Tick);
                prop_assert!(!world.running.is_empty(), "nothing happened at a deadline");
            }
            prop_assert!(world.schedule.is_idle());
            let failed = world.schedule.totals().failed;
            for (routine, text) in &world.disk {
                prop_assert!(failed > 0 || world.stored.get(routine) == Some(text), "an edit was lost");
            }
            let totals = world.schedule.totals();
            let ends = totals.uploaded + totals.reused + totals.unchanged + totals.superseded + totals.failed + totals.abandoned + totals.planned;
            prop_assert_eq!(ends, totals.edits);
        }
    }
}
