//! How things stand, by what was told: the state of each routine, and of the service as a whole. Pure.
//!
//! Every event that people see as a line is seen here as well, so that `er-dev status` cannot say anything else than
//! the lines said. Whether an edit waits or runs is not told but known to the queue; whoever asks hands that in.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

use super::class::Class;
use super::words::{clip, escape};
use super::{Event, Problem, Safety};
use crate::routine::{Digest, Revision, RoutineName};

/// The longest pause of a back-off. What waits longer waits for somebody to change something.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How a routine stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its last edit is on the service.
    Ok,
    /// An edit waits for its turn or is being uploaded.
    Pending,
    /// An edit waits for its next try.
    Backoff,
    /// An edit waits until the service can be reached.
    Offline,
    /// An edit waits for a key that works, or for a permission.
    Auth,
    /// An edit did not go up, and somebody has to change something on the service first.
    Blocked,
    /// The build that makes the entry failed, or changes what it reads.
    Broken,
    /// The place of the entry is gone or is another one.
    Halted,
    /// The entry is not there.
    Missing,
    /// The entry has no bytes.
    Empty,
    /// The entry cannot go up as it is.
    Refused,
    /// Something on the service has to be looked at now.
    Critical,
}

impl State {
    /// Every state, in the order of this list.
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::Pending,
        Self::Backoff,
        Self::Offline,
        Self::Auth,
        Self::Blocked,
        Self::Halted,
        Self::Missing,
        Self::Empty,
        Self::Refused,
        Self::Critical,
    ];

    /// The state as text.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::Backoff => "backoff",
            Self::Offline => "offline",
            Self::Auth => "auth",
            Self::Blocked => "blocked",
            Self::Broken => "broken",
            Self::Halted => "halted",
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::Refused => "refused",
            Self::Critical => "critical",
        }
    }

    /// Whether nothing is wrong.
    pub fn is_well(self) -> bool {
        matches!(self, Self::Ok | Self::Pending)
    }

    /// Whether an edit will go up without anybody's help, or at least is tried again for that.
    pub fn is_under_way(self) -> bool {
        matches!(
            self,
            Self::Pending | Self::Backoff | Self::Offline | Self::Auth
        )
    }
}

/// What the queue holds of a routine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Edits that wait or run.
    pub edits: usize,
    /// What is going on.
    pub stage: Stage,
}

/// What is going on with a routine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing.
    Idle,
    /// An edit is on the service, and room is being made behind it.
    Trimming,
    /// An edit is on its way, or will be as soon as there is room for it.
    Running,
    /// An edit waits for a moment to come.
    Later,
    /// The build that makes the entry runs, and what it writes is waited for.
    Building,
    /// That build failed, or rests. An edit that waits is what it wrote.
    Broken,
}

/// Why something is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What happened, with its place in the source where there is one.
    pub what: String,
    /// What to do; empty where nothing can be done.
    pub help: String,
    /// The class of the problem, in one word.
    pub class: String,
}

/// The version that holds the last edit that ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// Which version.
    pub revision: Revision,
    /// The digest of its code, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// When the edit ended.
    pub at: Timestamp,
}

/// How one routine stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routine {
    /// Its name.
    pub routine: String,
    /// The word for it.
    pub state: State,
    /// Why, unless all is well; and what is worth knowing where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Edits that wait or run.
    pub pending: usize,
    /// The last edit that ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Success>,
    /// Where its uploads go, if not into versions: "staging".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// Versions it held when that was last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// Versions it may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<usize>,
    /// How changes of its entry are noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Why not by events alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_why: Option<String>,
}

/// Something that is not as usual for all routines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What.
    pub condition: Unusual,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// What can be unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unusual {
    /// The service cannot be reached.
    Offline,
    /// The service refuses the key.
    Auth,
    /// Nothing is started because somebody asked for that.
    Paused,
    /// Work goes on with less safety.
    Degraded,
}

/// How everything stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// How often file events were lost.
    pub events_lost: u32,
    /// What holds for all routines.
    pub conditions: Vec<Condition>,
    /// Each routine.
    pub routines: Vec<Routine>,
    /// Edits that wait, by the queue, which fills this in.
    pub waiting: usize,
    /// Uploads that run, by the queue.
    pub running: usize,
}

/// What has been told so far, as far as it still holds.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    routines: BTreeMap<RoutineName, Known>,
    outage: Option<Condition>,
    paused: Option<Condition>,
    degraded: BTreeMap<Safety, Condition>,
    /// How often file events were lost.
    lost: u32,
}

/// What is known of one routine. Each has its own way in and out, but for `failed`, which is about `trouble`.
#[derive(Debug, Clone, Default)]
struct Known {
    staging: bool,
    slots: Option<(usize, usize)>,
    last: Option<Success>,
    /// What the last edit met, if it has not ended well.
    trouble: Option<(State, Reason)>,
    /// It has failed with that for good.
    failed: bool,
    /// What became of the entry's place, while it is not what it was.
    halted: Option<Reason>,
    /// What the watcher waits for before a change becomes an edit.
    waiting: Option<Reason>,
    /// What is worth knowing of the last edit although it went well.
    remark: Option<Reason>,
    /// What the build that makes the entry does, or what is wrong with it.
    build: Option<Reason>,
    /// What somebody has to look at, until it is mended.
    critical: BTreeMap<Option<String>, Reason>,
}

impl Standing {
    /// Takes note of an event.
    pub fn see(&mut self, event: &Event, now: Timestamp) {
        let now = now.round(Unit::Millisecond).unwrap_or(now);
        match event {
            Event::Offline { problem, .. } => {
                let condition = match problem.class {
                    Class::Credentials => Unusual::Auth,
                    _ => Unusual::Offline,
                };
                let since = self.outage.as_ref().map_or(now, |outage| outage.since);
                self.outage = Some(Condition {
                    condition,
                    since,
                    reason: Reason::of(problem),
                });
            }
            Event::Online { .. } => self.outage = None,
            Event::Paused { .. } => {
                self.paused = Some(Condition {
                    condition: Unusual::Paused,
                    since: now,
                    reason: Reason {
                        what: "nothing is uploaded, because somebody asked for a pause".into(),
                        help: "continue it by the key `p` at its terminal, on its page, or at the control socket".into(),
                        class: "paused".into(),
                    },
                });
            }
            Event::Continued { .. } => self.paused = None,
            Event::Degraded { safety, problem } => {
                let condition = Condition {
                    condition: Unusual::Degraded,
                    since: now,
                    reason: Reason::of(problem),
                };
                self.degraded.insert(*safety, condition);
            }
            Event::Left { routine, .. } => {
                self.routines.remove(routine);
            }
            Event::Restored { safety, .. } => {
                self.degraded.remove(safety);
            }
            Event::Building {
                command, routines, ..
            } => {
                let what = clip(&format!("its build runs: `{command}`"));
                let reason = Reason {
                    what,
                    help: String::new(),
                    class: Class::Build.word().into(),
                };
                self.build(routines, Some(&reason));
            }
            Event::Built { routines, .. } => self.build(routines, None),
            Event::Broken(broken) => {
                self.build(&broken.routines, Some(&Reason::of(&broken.problem)));
            }
            Event::Looping {
                routines, problem, ..
            } => self.build(routines, Some(&Reason::of(problem))),
            other => {
                if let Some(routine) = other.routine() {
                    let known = self.routines.entry(routine.clone()).or_default();
                    known.see(other, now);
                }
            }
        }
    }

    /// Takes note of how the build of some routines fares.
    fn build(&mut self, routines: &[RoutineName], reason: Option<&Reason>) {
        for routine in routines {
            let known = self.routines.entry(routine.clone()).or_default();
            known.build = reason.cloned();
        }
    }

    /// Takes note of what a version holds that an event named without that.
    pub fn holds(&mut self, routine: &RoutineName, revision: &Revision, sha256: Digest) {
        let last = self.routines.get_mut(routine);
        let last = last.and_then(|known| known.last.as_mut());
        if let Some(last) = last.filter(|last| last.revision == *revision) {
            last.sha256 = Some(sha256);
        }
    }

    /// Takes note that a routine's uploads go to staging.
    pub fn goes_to_staging(&mut self, routine: &RoutineName) {
        self.routines.entry(routine.clone()).or_default().staging = true;
    }

    /// Takes note that an edit is on its way: what an older one has failed with says nothing of it. What is tried again
    /// is not told anew each time and stands until it ends.
    pub fn started(&mut self, routine: &RoutineName) {
        if let Some(known) = self.routines.get_mut(routine)
            && known.failed
        {
            known.failed = false;
            known.trouble = None;
        }
    }

    /// Takes note of how often file events were lost.
    pub fn lost(&mut self, times: u32) {
        self.lost = times;
    }

    /// Takes note of something that is worth knowing of the last edit of a routine.
    pub fn remark(&mut self, routine: &RoutineName, problem: &Problem) {
        let known = self.routines.entry(routine.clone()).or_default();
        known.remark = Some(Reason::of(problem));
    }

    /// Takes note that a change that waited has settled.
    pub fn settled(&mut self, routine: &RoutineName) {
        if let Some(known) = self.routines.get_mut(routine) {
            known.waiting = None;
            known.remark = None;
        }
    }

    /// Whether an edit of a routine is under way, or room is still being made behind one, so that waiting makes sense.
    pub fn is_under_way(&self, routine: &RoutineName, queued: Queued) -> bool {
        let edit = self.edit(self.routines.get(routine), queued).0;
        queued.stage == Stage::Trimming || edit.is_under_way()
    }

    /// How these routines stand, with what the queue holds of each.
    pub fn overview<'a>(
        &self,
        routines: impl IntoIterator<Item = (&'a RoutineName, Queued)>,
    ) -> Overview {
        let conditions = self.outage.iter().chain(&self.paused);
        let conditions = conditions.chain(self.degraded.values());
        let routines = routines.into_iter().map(|(name, queued)| {
            let known = self.routines.get(name);
            let (state, reason) = self.state(known, queued);
            let slots = known.and_then(|known| known.slots);
            let waits = known.is_some_and(|known| known.waiting.is_some());
            Routine {
                routine: name.to_string(),
                state,
                reason: reason.cloned(),
                pending: queued.edits + usize::from(waits),
                last: known.and_then(|known| known.last.clone()),
                upload: known
                    .filter(|known| known.is_of_staging())
                    .map(|_| "staging".into()),
                slots: slots.map(|(used, _)| used),
                cap: slots.map(|(_, cap)| cap),
                backend: None,
                backend_why: None,
            }
        });
        Overview {
            events_lost: self.lost,
            conditions: conditions.cloned().collect(),
            routines: routines.collect(),
            waiting: 0,
            running: 0,
        }
    }

    /// The state of a routine: what somebody has to look at comes before how its last edit fares.
    fn state<'a>(
        &'a self,
        known: Option<&'a Known>,
        queued: Queued,
    ) -> (State, Option<&'a Reason>) {
        let critical = known.and_then(|known| known.critical.values().next());
        let halted = known.and_then(|known| known.halted.as_ref());
        let waiting = known.and_then(|known| known.waiting.as_ref());
        match (critical, halted, waiting) {
            (Some(reason), ..) => (State::Critical, Some(reason)),
            (None, Some(reason), _) => (State::Halted, Some(reason)),
            (None, None, Some(reason)) if queued.edits == 0 => (State::Pending, Some(reason)),
            (None, None, _) => match self.edit(known, queued) {
                (state, None) => (state, known.and_then(|known| known.remark.as_ref())),
                told => told,
            },
        }
    }

    /// How the last edit of a routine fares.
    fn edit<'a>(&'a self, known: Option<&'a Known>, queued: Queued) -> (State, Option<&'a Reason>) {
        let trouble = known.and_then(|known| known.trouble.as_ref());
        let outage = self.outage.as_ref().filter(|_| queued.edits > 0);
        let build = known.and_then(|known| known.build.as_ref());
        match (outage, trouble, queued.stage) {
            (.., Stage::Broken) => (State::Broken, build),
            (.., Stage::Building) => (State::Pending, build),
            (Some(outage), ..) => (outage.condition.state(), Some(&outage.reason)),
            (None, Some((_, reason)), Stage::Running) => (State::Pending, Some(reason)),
            (None, None, Stage::Running | Stage::Later) => (State::Pending, None),
            (None, Some((state, reason)), _) => (*state, Some(reason)),
            (None, None, Stage::Idle | Stage::Trimming) => (State::Ok, None),
        }
    }
}

impl Known {
    /// A routine that came later tells by its first upload.
    fn is_of_staging(&self) -> bool {
        let last = self.last.as_ref();
        self.staging || last.is_some_and(|last| last.revision.is_staging())
    }

    fn see(&mut self, event: &Event, now: Timestamp) {
        match event {
            Event::Slots { used, cap, .. } => self.slots = Some((*used, *cap)),
            Event::Uploaded {
                revision,
                sha256,
                slots,
                cap,
                ..
            } => {
                self.slots = Some((*slots, *cap));
                self.succeeded(revision, Some(*sha256), now);
            }
            Event::Reused {
                revision, sha256, ..
            } => self.succeeded(revision, Some(*sha256), now),
            Event::Unchanged { revision, .. } => {
                let last = self.last.as_ref();
                let last = last.filter(|last| last.revision == *revision);
                let sha256 = last.and_then(|last| last.sha256);
                self.succeeded(revision, sha256, now);
            }
            Event::Planned { saves: Some(_), .. } => self.trouble = None,
            Event::Failed { problem, .. } => {
                self.finds_full(problem);
                self.meets(after_failure(problem.class), problem);
                self.failed = true;
            }
            Event::Retrying { after, problem, .. } => {
                self.finds_full(problem);
                self.meets(while_retrying(problem.class, *after), problem);
            }
            Event::Throttled { operation, .. } => {
                let reason = Reason {
                    what: format!("the service asks for fewer requests ({operation})"),
                    help: String::new(),
                    class: Class::Throttled.word().into(),
                };
                self.trouble = Some((State::Backoff, reason));
                self.failed = false;
            }
            Event::Rotated { .. } => {
                if let Some((used, _)) = &mut self.slots {
                    *used = used.saturating_sub(1);
                }
            }
            Event::Waiting { problem, .. } => self.waiting = Some(Reason::of(problem)),
            Event::Halted { problem, .. } => {
                self.halted = Some(Reason::of(problem));
                self.waiting = None;
            }
            Event::Resumed { .. } => self.halted = None,
            Event::Critical {
                environment,
                problem,
                ..
            } => {
                let reason = Reason::of(problem);
                self.critical.insert(environment.clone(), reason);
            }
            Event::Mended { environment, .. } => {
                self.critical.remove(&Some(environment.clone()));
            }
            _ => {}
        }
    }

    /// Where an edit found no slot, other people have taken those that were free by the last count.
    fn finds_full(&mut self, problem: &Problem) {
        if problem.class == Class::Slots
            && let Some((used, cap)) = &mut self.slots
        {
            *used = *cap;
        }
    }

    fn succeeded(&mut self, revision: &Revision, sha256: Option<Digest>, at: Timestamp) {
        self.trouble = None;
        // What is about no environment is about the bytes of an edit, and those are there now.
        self.critical.remove(&None);
        self.last = Some(Success {
            revision: revision.clone(),
            sha256,
            at,
        });
    }

    fn meets(&mut self, state: State, problem: &Problem) {
        self.trouble = Some((state, Reason::of(problem)));
        self.failed = false;
    }
}

impl Reason {
    /// What happened and its class, in one line that is safe to show.
    pub fn words(&self) -> String {
        format!("{} [{}]", escape(&self.what), escape(&self.class))
    }

    fn of(problem: &Problem) -> Self {
        let place = problem.frame.as_ref();
        let place = place.map(|at| format!("{}:{}:{} ", at.file, at.line, at.column));
        Self {
            what: clip(&format!("{}{}", place.unwrap_or_default(), problem.what)),
            help: clip(&problem.help),
            class: problem.class.word().into(),
        }
    }
}

impl Unusual {
    /// The condition as text.
    pub fn word(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Auth => "auth",
            Self::Paused => "paused",
            Self::Degraded => "degraded",
        }
    }

    /// The state of a routine with an edit that waits for this to end.
    fn state(self) -> State {
        match self {
            Self::Auth => State::Auth,
            Self::Offline | Self::Paused | Self::Degraded => State::Offline,
        }
    }
}

/// The state after an edit that is not tried again until the file changes.
fn after_failure(class: Class) -> State {
    match class {
        Class::Absent => State::Missing,
        Class::Empty => State::Empty,
        Class::Source => State::Refused,
        Class::Credentials => State::Auth,
        _ => State::Blocked,
    }
}

/// The state while an edit waits for its next try.
fn while_retrying(class: Class, after: Duration) -> State {
    match class {
        Class::Credentials => State::Auth,
        Class::Slots | Class::Missing => State::Blocked,
        Class::Service | Class::Clock if after > LONGEST_BACKOFF => State::Blocked,
        _ => State::Backoff,
    }
}
