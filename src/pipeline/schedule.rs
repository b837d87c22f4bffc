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
use crate::report::standing::Queued;
use crate::report::words::is_power_of_ten;
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

/// The first pause where somebody has to change something and may be doing so just now.
const FIRST_GROWING: Duration = Duration::from_secs(1);

/// The most tries of an edit by a command that runs once: some minutes of growing pauses.
const TRIES_ONCE: u32 = 12;

/// The pause before an entry is looked at again that had changed when it was to be read.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

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
    /// It is no longer known that the version is there that a routine's bytes were last proven to be in.
    Doubted(RoutineName),
    /// The key was refused, and there is another one now.
    Rekeyed,
    /// The place of a routine's entry is gone or is another one, or the routine left.
    Halted(RoutineName),
    /// The place, or the routine, is back, and an edit of what is there follows.
    Resumed(RoutineName),
    /// Somebody asks that nothing be started for a while. Edits go on being taken in.
    Pause,
    /// Somebody asks that work go on.
    Continue,
    /// Somebody asks that what waits for its next try be tried now.
    Flush,
    /// The build of a routine's entry runs.
    Building(RoutineName),
    /// It ended well, and what it wrote may still have to be told of.
    Built(RoutineName),
    /// All of that has been told of.
    Rested(RoutineName),
    /// It failed, or rests for a reason, and all that it wrote has been told of.
    Broken(RoutineName, Problem),
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
        /// Why the version could not be put live where it should be, if so.
        unpublished: Option<Class>,
    },
    /// Only a slot was to be freed.
    Tidied {
        /// When another try makes sense, if it did not come to its end.
        again: Option<Again>,
        /// What the try says of the service as a whole.
        reach: Reach,
    },
    /// The entry had changed again before it was read; the edit that tells of it is on its way, if it stays changed.
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
    /// The same with pauses that grow from try to try, up to this one.
    Growing(Duration),
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
    /// What each routine's bytes were when they were last proven to be on the service, and in which version.
    synced: BTreeMap<RoutineName, (Digest, Revision)>,
    /// What keeps a routine from being up to date, and how often in a row.
    troubles: BTreeMap<RoutineName, (Problem, u32)>,
    failures: BTreeSet<Class>,
    totals: Totals,
    /// Set while the service as a whole is not to be had.
    halt: Option<Halt>,
    /// Nothing is started because somebody asked for that.
    paused: bool,
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
    /// Whether it has been told. What began it may have been no edit, and of no interest by itself.
    told: bool,
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
            paused: false,
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
            Event::Doubted(routine) => {
                self.synced.remove(&routine);
            }
            Event::Ended(routine, ended) => self.ended(routine, ended, now, &mut effects),
            Event::Rekeyed => {
                if let Some(halt) = self.halt.as_mut() {
                    halt.not_before = halt.not_before.min(now);
                }
            }
            Event::Halted(routine) => self.queue.hold(routine),
            Event::Resumed(routine) => self.queue.release(&routine),
            Event::Pause => self.pause(true, &mut effects),
            Event::Continue => self.pause(false, &mut effects),
            Event::Flush => self.flush(now),
            Event::Building(routine) => self.queue.build_runs(routine),
            Event::Built(routine) => self.queue.build_ended_well(routine),
            Event::Rested(routine) => self.queue.build_rests(&routine),
            Event::Broken(routine, problem) => self.broken(routine, problem, &mut effects),
            Event::Tick => {}
            Event::Stop => self.stopping = true,
        }
        // What they are about is not there, and the edit after the return takes their place.
        for edit in self.queue.take_held() {
            self.supersede(&edit, &mut effects);
        }
        while let Some(job) = self.start(now) {
            effects.push(Effect::Run(job));
        }
        effects
    }

    fn pause(&mut self, paused: bool, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.paused, paused) != paused {
            effects.push(Effect::Tell(match paused {
                true => report::Event::Paused {
                    waiting: self.queue.waiting(),
                },
                false => report::Event::Continued {
                    waiting: self.queue.waiting(),
                },
            }));
        }
    }

    /// What waits for its next try is tried now, although nothing says that it would fare better.
    fn flush(&mut self, now: Instant) {
        self.queue.hurry(now);
        if let Some(halt) = self.halt.as_mut() {
            halt.not_before = halt.not_before.min(now);
        }
    }

    fn start(&mut self, now: Instant) -> Option<Job> {
        if self.stopping || self.paused {
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
        if self.stopping || self.paused {
            return None;
        }
        let next = self.queue.next_deadline(MAX_RUNNING);
        match &self.halt {
            None => next,
            Some(Halt { probe: Some(_), .. }) => None,
            Some(halt) => next.map(|next| next.max(halt.not_before)),
        }
    }

    /// Whether everything waits because the service refuses the key, or the time.
    pub fn is_refused(&self) -> bool {
        let halt = self.halt.as_ref();
        halt.is_some_and(|halt| halt.reach == Reach::Rejected && halt.probe.is_none())
    }

    /// Deploys that run.
    pub fn running(&self) -> usize {
        self.queue.running()
    }

    /// Edits that wait, those behind running deploys too.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Whether somebody asked that nothing be started.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// What there is of a routine.
    pub fn queued(&self, routine: &RoutineName, now: Instant) -> Queued {
        self.queue.queued(routine, now)
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

    /// The version that a routine's bytes are believed to be in, so that an edit that leaves them as they are asks for
    /// nothing. Whoever knows better says [`Event::Doubted`].
    pub fn believed(&self, routine: &RoutineName) -> Option<&Revision> {
        self.synced.get(routine).map(|(_, revision)| revision)
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

    /// What a failed build wrote waits for another run, or fails with it where there is none.
    fn broken(&mut self, routine: RoutineName, problem: Problem, effects: &mut Vec<Effect>) {
        if self.mode == Mode::Once
            && let Some(edit) = self.queue.take_if(&routine, |_| true)
        {
            self.fail(&edit, problem, effects);
        }
        self.queue.build_broke(routine);
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
                let Some(newer) = self.queue.finish_tidy(&routine) else {
                    return;
                };
                self.tidy_later(&routine, again, now);
                newer
            }
            Ended::Stored {
                landed,
                tidy,
                unpublished,
            } => {
                if self.mode == Mode::Once {
                    self.failures.extend(unpublished);
                }
                self.resume(now, effects);
                self.landed(&routine, landed);
                let Some((_, newer)) = self.queue.finish(&routine) else {
                    return;
                };
                // A deploy tidies anew, whatever came of that before.
                self.queue.take_untidy(&routine);
                self.tidy_later(&routine, tidy, now);
                newer
            }
            Ended::Overtaken => {
                self.reached(&routine, Reach::Unasked, None, now, effects);
                let attempt = self.queue.attempt(&routine);
                let Some((edit, newer)) = self.queue.finish(&routine) else {
                    return;
                };
                self.synced.remove(&routine);
                if newer.is_some() || self.mode == Mode::Once {
                    self.supersede(&edit, effects);
                } else {
                    // The edit that tells of the change takes this one's place. Should the bytes be back before anybody
                    // saw that they were others, none comes.
                    self.queue.put_back(edit, now + LOOK_AGAIN, attempt);
                }
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
            None => {
                self.fail(&edit, problem, effects);
                // It may have left a version without code. The next edit, which may come soon, is not held up by that.
                if self.mode == Mode::Daemon {
                    self.queue.owe_tidy(&edit.routine, now + LOOK_AGAIN);
                }
            }
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
                    told: false,
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
                let tells = !halt.told || is_power_of_ten(halt.attempt);
                if let Some((problem, _)) = told.filter(|_| tells) {
                    halt.told = true;
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

    /// Takes note of how freeing a slot ended: another try, unless it came to its end or only an edit can help. A command
    /// that runs once leaves it to the next.
    fn tidy_later(&mut self, routine: &RoutineName, again: Option<Again>, now: Instant) {
        let attempt = self.queue.take_untidy(routine).map_or(0, |tried| tried + 1);
        if self.mode == Mode::Once {
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
            Again::Growing(most) if self.mode == Mode::Daemon => {
                Some(FIRST_GROWING.saturating_mul(1 << attempt.min(16)).min(most))
            }
            Again::FewTimes(_) | Again::Later(_) | Again::Growing(_) | Again::Never => None,
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

#[cfg(test)]
mod tests;
