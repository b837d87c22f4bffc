//! Answers for those who ask how everything stands, and for those who wait until every edit made so far has ended.
//!
//! A sync waits twice: until the watcher has told of all changes made before it was asked for, and then until the edits
//! that waited or ran at that moment have ended, each routine having been seen without one. Newer edits of such a
//! routine are waited for as well, since they may have taken the place of those that are meant.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::report::Report;
use crate::report::question::{MAX_SYNCS, Order, Question, Refusal};
use crate::report::standing::Overview;
use crate::routine::RoutineName;

use super::schedule::Schedule;

/// Who asks, and how the watcher is asked to tell of everything that was changed so far.
pub struct Asked {
    /// The questions. When nobody is left to ask any, the work goes on.
    pub questions: mpsc::Receiver<Question>,
    /// Asks the watcher; a sighting with this number follows.
    pub sync: Box<dyn Fn(u64) + Send>,
}

impl Asked {
    /// Nobody asks anything.
    pub fn nobody() -> Self {
        Self {
            questions: mpsc::channel(1).1,
            sync: Box::new(|_| {}),
        }
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

/// The syncs that wait.
pub(super) struct Answers {
    routines: Vec<RoutineName>,
    ask: Box<dyn Fn(u64) + Send>,
    last: u64,
    syncs: Vec<Sync>,
    /// Those who asked for something that is being done.
    orders: Vec<oneshot::Sender<Overview>>,
    stopping: bool,
}

struct Sync {
    stage: Stage,
    answer: oneshot::Sender<Result<Overview, Refusal>>,
}

enum Stage {
    /// The watcher has not told of everything yet; the number is that of its sighting.
    Settling(u64),
    /// These routines have not been seen without an edit yet.
    Ending(BTreeSet<RoutineName>),
}

impl Answers {
    pub(super) fn new(routines: Vec<RoutineName>, ask: Box<dyn Fn(u64) + Send>) -> Self {
        Self {
            routines,
            ask,
            last: 0,
            syncs: Vec::new(),
            orders: Vec::new(),
            stopping: false,
        }
    }

    /// The routines there are.
    pub(super) fn routines(&self) -> &[RoutineName] {
        &self.routines
    }

    /// A routine came.
    pub(super) fn came(&mut self, routine: RoutineName) {
        let at = self.routines.partition_point(|known| *known < routine);
        self.routines.insert(at, routine);
    }

    /// A routine left.
    pub(super) fn left(&mut self, routine: &RoutineName) {
        self.routines.retain(|known| known != routine);
    }

    /// Answers a question, or takes it in until it can be answered. Returns what has to be done for that.
    pub(super) fn hear(
        &mut self,
        question: Question,
        schedule: &Schedule,
        report: &Report,
        versions: impl FnOnce() -> Vec<Value>,
        now: Instant,
    ) -> Option<Order> {
        match question {
            Question::Status(answer) => {
                let _ = answer.send(self.overview(schedule, report, now));
            }
            Question::Versions(answer) => {
                let _ = answer.send(versions());
            }
            Question::Order(order, answer) => {
                self.orders.push(answer);
                return Some(order);
            }
            Question::Sync(answer) => {
                self.syncs.retain(|sync| !sync.answer.is_closed());
                if self.stopping {
                    let _ = answer.send(Err(Refusal::Stopping));
                } else if self.syncs.len() >= MAX_SYNCS {
                    let _ = answer.send(Err(Refusal::TooMany));
                } else {
                    let stage = Stage::Settling(self.ask_watcher());
                    self.syncs.push(Sync { stage, answer });
                }
            }
        }
        None
    }

    /// Asks the watcher for somebody else; the number is that of its sighting.
    pub(super) fn ask_watcher(&mut self) -> u64 {
        self.last += 1;
        (self.ask)(self.last);
        self.last
    }

    /// The watcher has told of everything that was changed before the sync of this number was asked for.
    pub(super) fn synced(
        &mut self,
        number: u64,
        schedule: &Schedule,
        report: &Report,
        now: Instant,
    ) {
        let under_way = |name: &&RoutineName| {
            let queued = schedule.queued(name, now);
            report.standing().is_under_way(name, queued)
        };
        let left: BTreeSet<_> = self.routines.iter().filter(under_way).cloned().collect();
        for sync in &mut self.syncs {
            if matches!(sync.stage, Stage::Settling(own) if own == number) {
                sync.stage = Stage::Ending(left.clone());
            }
        }
    }

    /// Answers those whose orders were carried out, and the syncs whose edits have ended by now. What needs somebody's help is not waited for.
    pub(super) fn answer(&mut self, schedule: &Schedule, report: &Report, now: Instant) {
        for answer in std::mem::take(&mut self.orders) {
            let _ = answer.send(self.overview(schedule, report, now));
        }
        if self.syncs.is_empty() {
            return;
        }
        let mut waiting = Vec::new();
        for mut sync in std::mem::take(&mut self.syncs) {
            if let Stage::Ending(left) = &mut sync.stage {
                left.retain(|name| {
                    let queued = schedule.queued(name, now);
                    report.standing().is_under_way(name, queued)
                });
                if left.is_empty() {
                    let _ = sync.answer.send(Ok(self.overview(schedule, report, now)));
                    continue;
                }
            }
            waiting.push(sync);
        }
        self.syncs = waiting;
    }

    /// Nothing is waited for any more.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for sync in self.syncs.drain(..) {
            let _ = sync.answer.send(Err(Refusal::Stopping));
        }
    }

    fn overview(&self, schedule: &Schedule, report: &Report, now: Instant) -> Overview {
        let routines = self.routines.iter();
        let routines = routines.map(|name| (name, schedule.queued(name, now)));
        Overview {
            waiting: schedule.waiting(),
            running: schedule.running(),
            ..report.standing().overview(routines)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use crate::pipeline::schedule::{Again, End, Ended, Event, Landed, Mode, Reach};
    use crate::report::class::Class;
    use crate::report::standing::State;
    use crate::report::{Format, Look, Problem};
    use crate::routine::{Digest, Edit, Revision};

    use super::super::schedule::Effect;
    use super::*;

    type Answer = oneshot::Receiver<Result<Overview, Refusal>>;

    /// A loop without its clock and its tasks.
    struct Loop {
        schedule: Schedule,
        report: Report,
        answers: Answers,
        asked: Arc<Mutex<Vec<u64>>>,
        now: Instant,
    }

    fn name(text: &str) -> RoutineName {
        RoutineName::new(text).unwrap()
    }

    fn ended(text: &str) -> Ended {
        Ended::Stored {
            landed: Landed {
                end: End::Uploaded,
                digest: Digest::of(text.as_bytes()),
                revision: Revision::new("1"),
            },
            tidy: None,
            unpublished: None,
        }
    }

    fn failed(class: Class, again: Again) -> Ended {
        let problem = Problem {
            what: "no".into(),
            help: String::new(),
            class,
            operation: None,
            request_id: None,
            frame: None,
        };
        Ended::Failed {
            problem,
            again,
            reach: Reach::Answered,
            jitter: 0.5,
        }
    }

    impl Loop {
        fn new() -> Self {
            let asked = Arc::new(Mutex::new(Vec::new()));
            let noted = asked.clone();
            let ask = move |number| noted.lock().unwrap().push(number);
            let zone = jiff::tz::TimeZone::UTC;
            let out = Box::new(std::io::sink());
            Self {
                schedule: Schedule::new(Mode::Daemon),
                report: Report::new(Format::Json, Look::PLAIN, zone, out),
                answers: Answers::new(vec![name("a"), name("b")], Box::new(ask)),
                asked,
                now: Instant::now(),
            }
        }

        fn handle(&mut self, event: Event) {
            for effect in self.schedule.handle(event, self.now) {
                if let Effect::Tell(event) = effect {
                    self.report.tell(&event);
                }
            }
            self.answers.answer(&self.schedule, &self.report, self.now);
        }

        fn edit(&mut self, routine: &str, text: &str) {
            self.handle(Event::Edited(Edit {
                routine: name(routine),
                saves: 1,
                digest: Some(Digest::of(text.as_bytes())),
                settled: self.now,
            }));
        }

        fn end(&mut self, routine: &str, ended: Ended) {
            self.handle(Event::Ended(name(routine), ended));
        }

        fn sync(&mut self) -> Answer {
            let (answer, answered) = oneshot::channel();
            let question = Question::Sync(answer);
            self.answers
                .hear(question, &self.schedule, &self.report, Vec::new, self.now);
            answered
        }

        fn synced(&mut self, number: u64) {
            self.answers
                .synced(number, &self.schedule, &self.report, self.now);
            self.answers.answer(&self.schedule, &self.report, self.now);
        }
    }

    fn states(answer: &mut Answer) -> Vec<State> {
        let overview = answer.try_recv().unwrap().unwrap();
        overview.routines.iter().map(|one| one.state).collect()
    }

    #[test]
    fn a_sync_waits_for_the_watcher_and_then_for_the_edits_that_are_under_way() {
        let mut it = Loop::new();
        it.edit("a", "1");
        let mut answer = it.sync();
        assert_eq!(*it.asked.lock().unwrap(), [1]);
        it.end("a", ended("1"));
        assert!(answer.try_recv().is_err(), "the watcher has not told yet");
        it.edit("a", "2");
        it.edit("a", "3");
        it.synced(1);
        it.end("a", ended("2"));
        assert!(answer.try_recv().is_err(), "a newer edit runs");
        // What comes later to another routine is not waited for.
        it.edit("b", "1");
        it.end("a", ended("3"));
        assert_eq!(states(&mut answer), [State::Ok, State::Pending]);
    }

    #[test]
    fn a_sync_without_an_edit_ends_as_soon_as_the_watcher_has_told() {
        let mut it = Loop::new();
        let (mut first, mut second) = (it.sync(), it.sync());
        it.synced(1);
        assert_eq!(states(&mut first), [State::Ok, State::Ok]);
        assert!(second.try_recv().is_err());
        it.synced(2);
        assert_eq!(states(&mut second), [State::Ok, State::Ok]);
    }

    #[test]
    fn a_sync_does_not_wait_for_what_takes_somebodys_help_but_for_every_other_try() {
        let minutes = Again::Later(Duration::from_secs(300));
        let table = [
            (Class::Source, Again::Never, Some(State::Refused)),
            (Class::Slots, minutes, Some(State::Blocked)),
            (Class::InDoubt, Again::Soon(Duration::ZERO), None),
            (Class::Credentials, minutes, None),
        ];
        for (class, again, expected) in table {
            let mut it = Loop::new();
            it.edit("a", "1");
            let mut answer = it.sync();
            it.synced(1);
            it.end("a", failed(class, again));
            match expected {
                Some(state) => assert_eq!(states(&mut answer)[0], state),
                None => assert!(answer.try_recv().is_err(), "{class}"),
            }
        }
    }

    #[test]
    fn syncs_are_bounded_and_those_that_nobody_waits_for_do_not_count() {
        let mut it = Loop::new();
        let mut waiting: Vec<Answer> = (0..MAX_SYNCS).map(|_| it.sync()).collect();
        let refused = it.sync().try_recv().unwrap();
        assert_eq!(refused.unwrap_err(), Refusal::TooMany);
        drop(waiting.pop());
        let mut one_more = it.sync();
        it.synced(MAX_SYNCS as u64 + 1);
        assert!(one_more.try_recv().unwrap().is_ok());
        assert!(waiting[0].try_recv().is_err());
    }

    #[test]
    fn a_stop_ends_every_sync_and_takes_no_other() {
        let mut it = Loop::new();
        let mut waiting = it.sync();
        it.answers.stop();
        for answer in [&mut waiting, &mut it.sync()] {
            let refused = answer.try_recv().unwrap();
            assert_eq!(refused.unwrap_err(), Refusal::Stopping);
        }
    }
}
