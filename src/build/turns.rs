//! Which build runs when, which run is ended, and what is a loop. Pure.
//!
//! A build runs once at a time. The newest inputs win: when they change during a run, that run is ended and another one
//! begins. After a run that came to its end, everything it wrote has to have been told of (it *settles*) before the next
//! one begins; so what changes until then changed during the run.
//!
//! That is how a build is found out that changes its own inputs. A person who saves the same file during run after run
//! looks alike at first, so a suspicion is kept quiet: runs are no longer ended for these files, and then there is a
//! short rest without a run. What changes in the rest was not changed by the build.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a run that was asked to end is waited for before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long it is waited for that everything a run wrote has been told of. A file that is written all the time, by
/// whomever, takes longer, and is not waited for.
const SETTLING: Duration = Duration::from_secs(5);

/// How many runs in a row are ended early because the same files changed. A later one is left to its end, so that one
/// comes to its end.
const ENDED_EARLY: u32 = 3;

/// How many runs in a row the same files change in before there is a rest.
const SUSPICIOUS: u32 = 5;

/// The first rest, of which nothing is said.
const FIRST_REST: Duration = Duration::from_secs(1);

/// The first rest that is told.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest rest.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Something that happened to a build, which is named by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Files it reads have changed.
    Changed(usize, Vec<PathBuf>),
    /// Its run is over, with nothing left of it; whether it ended well.
    Ended(usize, bool),
    /// Everything that this run wrote has been told of.
    Settled(usize, u64),
    /// Time passed.
    Tick,
    /// No run is to begin any more, and those that run are to end.
    Stop,
}

/// Something to do for a build, or to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an effect that is not carried out leaves a build standing"]
pub enum Effect {
    /// Begin a run.
    Start {
        /// Of which build.
        build: usize,
        /// What changed; nothing at the start.
        changed: Vec<PathBuf>,
        /// Whether the run before was ended for it.
        early: bool,
    },
    /// Ask the run to end.
    Terminate(usize),
    /// End the run at once.
    Kill(usize),
    /// A run is over.
    Over(usize, Verdict),
    /// Let [`Event::Settled`] follow when everything that the run wrote has been told of.
    Settle(usize, u64),
    /// Nothing is to come any more; whether the last run ended well.
    Rest(usize, bool),
    /// It changes its own inputs, which are these, and rests for so long.
    Loop(usize, Vec<PathBuf>, Duration),
}

/// What becomes of a run that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It ended well.
    Well,
    /// It failed.
    Failed,
    /// It took too long.
    Late,
    /// It was ended for newer inputs, or because of a stop.
    Ended,
}

/// What a build is about, as far as it matters to those whose entries it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It runs, or it failed and what it wrote has not been told of.
    Runs,
    /// It ended well, and what it wrote has not been told of.
    EndedWell,
    /// Neither.
    Rests,
}

/// All builds of a program.
#[derive(Debug)]
pub struct Turns {
    builds: Vec<One>,
    runs: u64,
    stopping: bool,
}

#[derive(Debug)]
struct One {
    entries: BTreeSet<PathBuf>,
    timeout: Duration,
    stage: Stage,
    streak: Streak,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Running {
        until: Instant,
        end: Option<End>,
        changed: BTreeSet<PathBuf>,
    },
    Settling {
        run: u64,
        until: Instant,
        well: bool,
        changed: BTreeSet<PathBuf>,
    },
    Resting {
        until: Instant,
    },
}

/// A run was asked to end.
#[derive(Debug, Clone, Copy)]
struct End {
    verdict: Verdict,
    /// When it is killed; `None` once it was.
    kill: Option<Instant>,
}

/// Runs in a row in which inputs changed.
#[derive(Debug, Default)]
struct Streak {
    runs: u32,
    rests: u32,
    /// What changed in all of them.
    paths: BTreeSet<PathBuf>,
}

impl Turns {
    /// Builds with these entries and times, of which none runs.
    pub fn new(builds: impl IntoIterator<Item = (Vec<PathBuf>, Duration)>) -> Self {
        let one = |(entries, timeout): (Vec<PathBuf>, Duration)| One {
            entries: entries.into_iter().collect(),
            timeout,
            stage: Stage::Idle,
            streak: Streak::default(),
        };
        Self {
            builds: builds.into_iter().map(one).collect(),
            runs: 0,
            stopping: false,
        }
    }

    /// A build makes one more entry.
    pub fn add_entry(&mut self, build: usize, entry: PathBuf) {
        if let Some(one) = self.builds.get_mut(build) {
            one.entries.insert(entry);
        }
    }

    /// What a build is about.
    #[must_use]
    pub fn phase(&self, build: usize) -> Phase {
        match self.builds.get(build).map(|one| &one.stage) {
            Some(Stage::Running { .. }) => Phase::Runs,
            Some(Stage::Settling { well: true, .. }) => Phase::EndedWell,
            Some(Stage::Settling { .. }) => Phase::Runs,
            Some(Stage::Idle | Stage::Resting { .. }) | None => Phase::Rests,
        }
    }

    /// Lets every build run, since what lies there may be old or not there at all.
    pub fn begin(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        for build in 0..self.builds.len() {
            self.start(build, BTreeSet::new(), false, now, &mut effects);
        }
        effects
    }

    /// Takes note of an event and says what to do.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Changed(build, paths) if !self.stopping => {
                self.changed(build, paths, now, &mut effects);
            }
            Event::Changed(..) => {}
            Event::Ended(build, well) => self.ended(build, well, now, &mut effects),
            Event::Settled(build, run) => self.settled(build, run, now, &mut effects),
            Event::Tick => self.tick(now, &mut effects),
            Event::Stop => self.stop(now, &mut effects),
        }
        effects
    }

    /// When [`Turns::handle`] has something to do without an event.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = |one: &One| match &one.stage {
            Stage::Idle => None,
            Stage::Running {
                until, end: None, ..
            } => Some(*until),
            Stage::Running { end: Some(end), .. } => end.kill,
            Stage::Settling { until, .. } | Stage::Resting { until } => Some(*until),
        };
        self.builds.iter().filter_map(deadline).min()
    }

    /// Runs that are not over.
    pub fn running(&self) -> usize {
        let runs = |one: &&One| matches!(one.stage, Stage::Running { .. });
        self.builds.iter().filter(runs).count()
    }

    fn changed(
        &mut self,
        build: usize,
        mut paths: Vec<PathBuf>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Some(one) = self.builds.get_mut(build) else {
            return;
        };
        paths.retain(|path| !one.entries.contains(path));
        if paths.is_empty() {
            return;
        }
        match &mut one.stage {
            Stage::Running { end, changed, .. } => {
                changed.extend(paths);
                if end.is_none() && !one.streak.is_left_alone(changed) {
                    *end = Some(End::after_grace(Verdict::Ended, now));
                    effects.push(Effect::Terminate(build));
                }
            }
            Stage::Settling { changed, .. } => changed.extend(paths),
            // Nothing ran, so somebody else did it.
            Stage::Idle | Stage::Resting { .. } => {
                one.streak = Streak::default();
                self.start(build, paths.into_iter().collect(), false, now, effects);
            }
        }
    }

    fn ended(&mut self, build: usize, well: bool, now: Instant, effects: &mut Vec<Effect>) {
        let Some(one) = self.builds.get_mut(build) else {
            return;
        };
        let Stage::Running { end, changed, .. } = &mut one.stage else {
            return;
        };
        let verdict = match end {
            Some(end) => end.verdict,
            None if well => Verdict::Well,
            None => Verdict::Failed,
        };
        let changed = std::mem::take(changed);
        one.stage = Stage::Idle;
        effects.push(Effect::Over(build, verdict));
        if self.stopping {
            return;
        }
        if verdict == Verdict::Ended {
            return self.again(build, changed, true, now, effects);
        }
        self.runs += 1;
        one.stage = Stage::Settling {
            run: self.runs,
            until: now + SETTLING,
            well: verdict == Verdict::Well,
            changed,
        };
        effects.push(Effect::Settle(build, self.runs));
    }

    fn settled(&mut self, build: usize, settled: u64, now: Instant, effects: &mut Vec<Effect>) {
        let Some(one) = self.builds.get_mut(build) else {
            return;
        };
        let Stage::Settling {
            run, well, changed, ..
        } = &mut one.stage
        else {
            return;
        };
        if *run != settled {
            return;
        }
        let (well, changed) = (*well, std::mem::take(changed));
        one.stage = Stage::Idle;
        if changed.is_empty() {
            one.streak = Streak::default();
            effects.push(Effect::Rest(build, well));
        } else {
            self.again(build, changed, false, now, effects);
        }
    }

    /// Begins the next run after one in which inputs changed, or a rest if that happens too often.
    fn again(
        &mut self,
        build: usize,
        changed: BTreeSet<PathBuf>,
        early: bool,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Some(one) = self.builds.get_mut(build) else {
            return;
        };
        one.streak.note(&changed);
        if one.streak.runs < SUSPICIOUS {
            return self.start(build, changed, early, now, effects);
        }
        let pause = one.streak.rest();
        let until = now + pause.unwrap_or(FIRST_REST);
        one.stage = Stage::Resting { until };
        if let Some(pause) = pause {
            let paths = one.streak.paths.iter().cloned().collect();
            effects.push(Effect::Loop(build, paths, pause));
        }
    }

    fn start(
        &mut self,
        build: usize,
        changed: BTreeSet<PathBuf>,
        early: bool,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Some(one) = self.builds.get_mut(build) else {
            return;
        };
        one.stage = Stage::Running {
            until: now + one.timeout,
            end: None,
            changed: BTreeSet::new(),
        };
        let changed = changed.into_iter().collect();
        effects.push(Effect::Start {
            build,
            changed,
            early,
        });
    }

    fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for build in 0..self.builds.len() {
            let Some(one) = self.builds.get_mut(build) else {
                return;
            };
            match &mut one.stage {
                Stage::Running {
                    until,
                    end: end @ None,
                    ..
                } if *until <= now => {
                    *end = Some(End::after_grace(Verdict::Late, now));
                    effects.push(Effect::Terminate(build));
                }
                Stage::Running { end: Some(end), .. } if end.kill.is_some_and(|at| at <= now) => {
                    end.kill = None;
                    effects.push(Effect::Kill(build));
                }
                Stage::Settling { run, until, .. } if *until <= now => {
                    let run = *run;
                    self.settled(build, run, now, effects);
                }
                Stage::Resting { until } if *until <= now => {
                    let paths = one.streak.paths.clone();
                    self.start(build, paths, false, now, effects);
                }
                _ => {}
            }
        }
    }

    fn stop(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.stopping = true;
        for (build, one) in self.builds.iter_mut().enumerate() {
            match &mut one.stage {
                Stage::Running {
                    end: end @ None, ..
                } => {
                    *end = Some(End::after_grace(Verdict::Ended, now));
                    effects.push(Effect::Terminate(build));
                }
                Stage::Running { .. } => {}
                stage => *stage = Stage::Idle,
            }
        }
    }
}

impl End {
    fn after_grace(verdict: Verdict, now: Instant) -> Self {
        Self {
            verdict,
            kill: Some(now + GRACE),
        }
    }
}

impl Streak {
    /// One more run is over in which these changed.
    fn note(&mut self, changed: &BTreeSet<PathBuf>) {
        let same: BTreeSet<_> = self.paths.intersection(changed).cloned().collect();
        if same.is_empty() {
            *self = Self {
                runs: 1,
                rests: 0,
                paths: changed.clone(),
            };
        } else {
            self.runs += 1;
            self.paths = same;
        }
    }

    /// Whether a run is not ended early although these have changed.
    fn is_left_alone(&self, changed: &BTreeSet<PathBuf>) -> bool {
        self.runs >= ENDED_EARLY && changed.iter().all(|path| self.paths.contains(path))
    }

    /// The pause of the next rest, if it is to be told.
    fn rest(&mut self) -> Option<Duration> {
        self.rests += 1;
        let doubled = self.rests.checked_sub(2)?;
        Some(
            FIRST_PAUSE
                .saturating_mul(1 << doubled.min(16))
                .min(LONGEST_PAUSE),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// One build whose runs are scripted, at a time of its own.
    struct Bench {
        turns: Turns,
        now: Instant,
        run: u64,
    }

    fn path(name: &str) -> PathBuf {
        format!("/p/{name}").into()
    }

    fn started(changed: &[&str], early: bool) -> Effect {
        let changed = changed.iter().map(|name| path(name)).collect();
        Effect::Start {
            build: 0,
            changed,
            early,
        }
    }

    impl Bench {
        fn new() -> Self {
            let mut turns = Turns::new([(vec![path("out.js")], MINUTE)]);
            let now = Instant::now();
            assert_eq!(turns.begin(now), [started(&[], false)]);
            Self { turns, now, run: 0 }
        }

        fn handle(&mut self, event: Event) -> Vec<Effect> {
            self.turns.handle(event, self.now)
        }

        fn change(&mut self, names: &[&str]) -> Vec<Effect> {
            self.handle(Event::Changed(
                0,
                names.iter().map(|name| path(name)).collect(),
            ))
        }

        fn end(&mut self, well: bool) -> Vec<Effect> {
            self.handle(Event::Ended(0, well))
        }

        /// The run ends and settles.
        fn finish(&mut self, well: bool) -> Vec<Effect> {
            self.run += 1;
            let verdict = if well { Verdict::Well } else { Verdict::Failed };
            let settle = Effect::Settle(0, self.run);
            assert_eq!(self.end(well), [Effect::Over(0, verdict), settle]);
            self.handle(Event::Settled(0, self.run))
        }

        /// Time passes until there is something to do, which has to be then and not sooner.
        fn wait(&mut self, expected: Duration) -> Vec<Effect> {
            let at = self.turns.next_deadline().unwrap();
            assert_eq!(at.duration_since(self.now), expected);
            self.now = at - Duration::from_nanos(1);
            assert_eq!(self.handle(Event::Tick), []);
            self.now = at;
            let effects = self.handle(Event::Tick);
            assert_ne!(self.turns.next_deadline(), Some(at));
            effects
        }

        /// The build changes this input during a run that is left to its end.
        fn touch(&mut self, name: &str) -> Vec<Effect> {
            self.run += 1;
            assert_eq!(self.end(true).len(), 2);
            assert_eq!(self.change(&[name]), []);
            self.handle(Event::Settled(0, self.run))
        }
    }

    #[test]
    fn a_change_ends_the_run_and_the_next_one_begins_when_nothing_is_left_of_it() {
        let mut it = Bench::new();
        assert_eq!(it.change(&["a.ts"]), [Effect::Terminate(0)]);
        assert_eq!(it.change(&["b.ts"]), []);
        assert_eq!(it.turns.running(), 1);
        let over = Effect::Over(0, Verdict::Ended);
        assert_eq!(it.end(true), [over, started(&["a.ts", "b.ts"], true)]);
        assert_eq!(it.finish(true), [Effect::Rest(0, true)]);
        assert_eq!(it.turns.next_deadline(), None);
        assert_eq!(it.change(&["a.ts"]), [started(&["a.ts"], false)]);
    }

    #[test]
    fn a_run_that_does_not_end_when_asked_is_killed_after_the_grace() {
        let mut it = Bench::new();
        assert_eq!(it.change(&["a.ts"]), [Effect::Terminate(0)]);
        assert_eq!(it.wait(GRACE), [Effect::Kill(0)]);
        assert_eq!(it.turns.next_deadline(), None);
    }

    #[test]
    fn a_run_that_takes_too_long_is_ended_and_has_failed() {
        let mut it = Bench::new();
        assert_eq!(it.wait(MINUTE), [Effect::Terminate(0)]);
        let over = Effect::Over(0, Verdict::Late);
        assert_eq!(it.end(false), [over, Effect::Settle(0, 1)]);
        let settled = it.handle(Event::Settled(0, 1));
        assert_eq!(settled, [Effect::Rest(0, false)]);
    }

    #[test]
    fn what_changes_while_a_run_settles_is_built_after_it() {
        let mut it = Bench::new();
        it.end(false).clear();
        assert_eq!(it.change(&["a.ts"]), []);
        assert_eq!(it.handle(Event::Settled(0, 0)), [], "another run");
        assert_eq!(it.handle(Event::Settled(0, 1)), [started(&["a.ts"], false)]);
    }

    #[test]
    fn it_is_not_waited_for_ever_that_a_run_settles() {
        let mut it = Bench::new();
        it.end(true).clear();
        assert_eq!(it.wait(SETTLING), [Effect::Rest(0, true)]);
    }

    #[test]
    fn an_entry_is_never_an_input() {
        let mut it = Bench::new();
        assert_eq!(it.change(&["out.js"]), []);
        assert_eq!(it.finish(true), [Effect::Rest(0, true)]);
        assert_eq!(it.change(&["out.js"]), []);
        assert_eq!(it.change(&["out.js", "a.ts"]), [started(&["a.ts"], false)]);
    }

    #[test]
    fn a_build_that_changes_its_own_inputs_is_found_named_and_paused_for_longer_and_longer() {
        let mut it = Bench::new();
        for _ in 1..SUSPICIOUS {
            assert_eq!(it.touch("gen.ts"), [started(&["gen.ts"], false)]);
        }
        assert_eq!(it.touch("gen.ts"), [], "a rest of which nothing is said");
        assert_eq!(it.wait(FIRST_REST), [started(&["gen.ts"], false)]);
        let mut pause = FIRST_PAUSE;
        for _ in 0..12 {
            let told = Effect::Loop(0, vec![path("gen.ts")], pause);
            assert_eq!(it.touch("gen.ts"), [told]);
            assert_eq!(it.wait(pause), [started(&["gen.ts"], false)]);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        assert_eq!(pause, LONGEST_PAUSE);
        // Cured, it is as if nothing had been.
        assert_eq!(it.finish(true), [Effect::Rest(0, true)]);
        assert_eq!(it.change(&["gen.ts"]), [started(&["gen.ts"], false)]);
        assert_eq!(it.touch("gen.ts"), [started(&["gen.ts"], false)]);
    }

    #[test]
    fn a_slow_build_that_changes_its_own_inputs_is_found_as_well() {
        let mut it = Bench::new();
        for _ in 0..ENDED_EARLY {
            assert_eq!(it.change(&["gen.ts"]), [Effect::Terminate(0)]);
            assert_eq!(it.end(false).len(), 2);
        }
        for _ in ENDED_EARLY..SUSPICIOUS {
            assert_eq!(it.change(&["gen.ts"]), [], "it is left to its end");
            it.finish(true).clear();
        }
        assert_eq!(it.wait(FIRST_REST), [started(&["gen.ts"], false)]);
        assert_eq!(it.change(&["gen.ts"]), []);
        let told = Effect::Loop(0, vec![path("gen.ts")], FIRST_PAUSE);
        assert_eq!(it.finish(true), [told]);
    }

    #[test]
    fn somebody_who_saves_during_every_run_is_no_loop() {
        let mut it = Bench::new();
        for _ in 0..10 {
            for _ in 1..SUSPICIOUS {
                it.touch("a.ts").clear();
            }
            assert_eq!(it.touch("a.ts"), []);
            // The save after that is in the rest, when no build can have made it.
            assert_eq!(it.change(&["a.ts"]), [started(&["a.ts"], false)]);
        }
        // Nor is one who saves another file each time.
        for name in ["b", "c", "d", "e", "f", "g", "h"] {
            assert_eq!(it.change(&[name]), [Effect::Terminate(0)]);
            assert_eq!(it.end(false).len(), 2);
        }
    }

    #[test]
    fn a_stop_ends_what_runs_and_begins_nothing() {
        let mut it = Bench::new();
        assert_eq!(it.handle(Event::Stop), [Effect::Terminate(0)]);
        assert_eq!(it.change(&["a.ts"]), []);
        assert_eq!(it.wait(GRACE), [Effect::Kill(0)]);
        assert_eq!(it.end(false), [Effect::Over(0, Verdict::Ended)]);
        assert_eq!((it.turns.running(), it.turns.next_deadline()), (0, None));
    }
}
