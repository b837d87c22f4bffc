//! The schedule under scripts of edits, ends and time: what starts when, what is told, and how every edit ends.

mod builds;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::report::standing::Stage;

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
        unpublished: None,
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
            let ended = Event::Ended(routine.clone(), rejected());
            schedule.handle(ended, now).clear();
        }
        now = begun + Duration::from_secs(second);
        let edited = Event::Edited(edit("a", &second.to_string(), now));
        effects = schedule.handle(edited, now);
    }
    assert_eq!(tries, 5);
}

fn rejected() -> Ended {
    Ended::Failed {
        problem: problem(Class::Credentials),
        again: Again::Later(Duration::from_secs(300)),
        reach: Reach::Rejected,
        jitter: 0.5,
    }
}

#[test]
fn another_key_is_tried_at_once_and_with_one_routine() {
    let (now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
    assert!(!schedule.is_refused());
    for routine in ["a", "b"] {
        let edited = Event::Edited(edit(routine, "x", now));
        schedule.handle(edited, now).clear();
    }
    for routine in ["a", "b"] {
        let ended = Event::Ended(name(routine), rejected());
        schedule.handle(ended, now).clear();
    }
    assert!(schedule.is_refused());
    assert!(deploys(&schedule.handle(Event::Tick, now)).is_empty());
    let probe = schedule.handle(Event::Rekeyed, now);
    assert_eq!(deploys(&probe), [&name("a")]);
    assert!(!schedule.is_refused(), "it is being found out");
    // It is refused as well, and then nothing is tried until the pause is over.
    let ended = Event::Ended(name("a"), rejected());
    schedule.handle(ended, now).clear();
    assert!(schedule.is_refused());
    let pause = schedule.next_deadline().unwrap() - now;
    assert_eq!(pause, Duration::from_secs(300));
    let probe = schedule.handle(Event::Rekeyed, now);
    let [tried] = deploys(&probe)[..] else {
        panic!("{probe:?}")
    };
    let effects = schedule.handle(Event::Ended(tried.clone(), stored("x")), now);
    assert_eq!(deploys(&effects).len(), 1, "the other one follows");
}

fn stored_and_untidy(schedule: &mut Schedule, now: Instant) {
    schedule
        .handle(Event::Edited(edit("hello", "a", now)), now)
        .clear();
    let Ended::Stored { landed, .. } = stored("a") else {
        panic!()
    };
    let tidy = Some(Again::After(Duration::from_secs(20)));
    let ended = Ended::Stored {
        landed,
        tidy,
        unpublished: None,
    };
    schedule
        .handle(Event::Ended(name("hello"), ended), now)
        .clear();
}

#[test]
fn a_slot_that_could_not_be_freed_is_freed_later_without_another_edit() {
    let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
    let hello = name("hello");
    stored_and_untidy(&mut schedule, now);
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

#[test]
fn a_slot_is_still_to_be_freed_after_an_edit_that_came_to_nothing() {
    let endings = [("a", None), ("b", Some(failed(Again::Never)))];
    for (text, ended) in endings {
        let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
        stored_and_untidy(&mut schedule, now);
        schedule
            .handle(Event::Edited(edit("hello", text, now)), now)
            .clear();
        if let Some(ended) = ended {
            schedule
                .handle(Event::Ended(name("hello"), ended), now)
                .clear();
        }
        assert!(schedule.is_idle());
        now += Duration::from_secs(20);
        let effects = schedule.handle(Event::Tick, now);
        assert_eq!(effects, [Effect::Run(Job::Tidy(name("hello")))], "{text}");
    }
}

#[test]
fn an_edit_that_has_failed_for_good_leaves_its_routine_to_be_tidied() {
    for (mode, tidied) in [(Mode::Daemon, true), (Mode::Once, false)] {
        let (now, mut schedule) = (Instant::now(), Schedule::new(mode));
        schedule
            .handle(Event::Edited(edit("hello", "a", now)), now)
            .clear();
        let ended = Event::Ended(name("hello"), failed(Again::Never));
        schedule.handle(ended, now).clear();
        let effects = schedule.handle(Event::Tick, now + LOOK_AGAIN);
        let tidy = Effect::Run(Job::Tidy(name("hello")));
        assert_eq!(effects.contains(&tidy), tidied);
    }
}

#[test]
fn an_outage_that_began_with_freeing_a_slot_is_told_with_the_first_edit_it_holds_up() {
    let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
    stored_and_untidy(&mut schedule, now);
    now += Duration::from_secs(20);
    schedule.handle(Event::Tick, now).clear();
    let silent = Ended::Tidied {
        again: Some(Again::Soon(Duration::ZERO)),
        reach: Reach::Silent,
    };
    schedule
        .handle(Event::Ended(name("hello"), silent), now)
        .clear();
    now += Duration::from_secs(300);
    let edited = schedule.handle(Event::Edited(edit("hello", "b", now)), now);
    assert_eq!(deploys(&edited), [&name("hello")]);
    let ended = Ended::Failed {
        problem: problem(Class::Network),
        again: Again::Soon(Duration::ZERO),
        reach: Reach::Silent,
        jitter: 0.5,
    };
    let told = schedule.handle(Event::Ended(name("hello"), ended), now);
    assert!(
        matches!(told[..], [Effect::Tell(report::Event::Offline { .. })]),
        "{told:?}"
    );
}

#[test]
fn an_entry_that_was_another_for_a_moment_only_goes_up_all_the_same() {
    let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
    let hello = name("hello");
    let first = edit("hello", "a", now);
    schedule.handle(Event::Edited(first.clone()), now).clear();
    let overtaken = Event::Ended(hello.clone(), Ended::Overtaken);
    assert_eq!(schedule.handle(overtaken.clone(), now), []);
    now += LOOK_AGAIN;
    let again = schedule.handle(Event::Tick, now);
    assert_eq!(again, [Effect::Run(Job::Deploy(first))]);
    // Once more, and this time the edit that tells of it comes.
    schedule.handle(overtaken, now).clear();
    let newer = edit("hello", "b", now);
    let effects = schedule.handle(Event::Edited(newer.clone()), now);
    assert_eq!(effects.last(), Some(&Effect::Run(Job::Deploy(newer))));
    schedule
        .handle(Event::Ended(hello, stored("b")), now)
        .clear();
    let totals = schedule.totals();
    assert_eq!((totals.uploaded, totals.superseded), (1, 1));
}

#[test]
fn nothing_of_a_routine_whose_place_is_gone_starts_or_waits_until_the_edit_after_its_return() {
    let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
    let hello = name("hello");
    let end = |how: Ended| Event::Ended(hello.clone(), how);
    let edited = |text: &str| Event::Edited(edit("hello", text, now));
    let one = schedule.handle(edited("a"), now);
    assert_eq!(deploys(&one), [&hello]);
    assert_eq!(schedule.handle(edited("b"), now), []);
    // The one behind it has ended, and the one that runs finds other bytes there.
    let halted = schedule.handle(Event::Halted(hello.clone()), now);
    assert!(
        matches!(halted[..], [Effect::Tell(report::Event::Superseded { .. })]),
        "{halted:?}"
    );
    schedule.handle(end(Ended::Overtaken), now).clear();
    assert!(schedule.is_idle());
    assert_eq!(schedule.next_deadline(), None);
    // Nor is a slot freed meanwhile.
    let back = Event::Resumed(hello.clone());
    assert_eq!(schedule.handle(back.clone(), now), []);
    stored_and_untidy(&mut schedule, now);
    schedule.handle(Event::Halted(hello.clone()), now).clear();
    assert_eq!(schedule.next_deadline(), None);
    now += Duration::from_secs(3_600);
    assert_eq!(schedule.handle(Event::Tick, now), []);
    assert_eq!(deploys(&schedule.handle(back, now)), [&hello]);
}

#[test]
fn that_a_version_is_still_there_is_believed_until_it_is_doubted() {
    let (mut now, mut schedule) = (Instant::now(), Schedule::new(Mode::Daemon));
    let hello = name("hello");
    let saved = |now| Event::Edited(edit("hello", "a", now));
    schedule.handle(saved(now), now).clear();
    let ended = Event::Ended(hello.clone(), stored("a"));
    schedule.handle(ended, now).clear();
    now += Duration::from_secs(86_400);
    assert_eq!(schedule.believed(&hello), Some(&Revision::new("7")));
    let effects = schedule.handle(saved(now), now);
    assert!(
        matches!(effects[..], [Effect::Tell(report::Event::Unchanged { .. })]),
        "{effects:?}"
    );
    assert_eq!(schedule.handle(Event::Doubted(hello.clone()), now), []);
    assert_eq!(schedule.believed(&hello), None);
    let effects = schedule.handle(saved(now), now);
    assert_eq!(effects, [Effect::Run(Job::Deploy(edit("hello", "a", now)))]);
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
    /// Routines whose last pass left a slot to be freed.
    untidy: BTreeSet<RoutineName>,
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
                _ => {
                    self.untidy.remove(&routine);
                    (None, Reach::Answered)
                }
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
                match how {
                    6 => self.untidy.insert(routine.clone()),
                    _ => self.untidy.remove(&routine),
                };
                match stored(&text) {
                    Ended::Stored { landed, .. } => Ended::Stored {
                        landed,
                        tidy,
                        unpublished: None,
                    },
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
            untidy: BTreeSet::new(),
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
        prop_assert!(world.untidy.is_empty(), "a slot was never freed");
        let failed = world.schedule.totals().failed;
        for (routine, text) in &world.disk {
            prop_assert!(failed > 0 || world.stored.get(routine) == Some(text), "an edit was lost");
        }
        let totals = world.schedule.totals();
        let ends = totals.uploaded + totals.reused + totals.unchanged + totals.superseded + totals.failed + totals.abandoned + totals.planned;
        prop_assert_eq!(ends, totals.edits);
    }
}

#[test]
fn what_is_queued_of_a_routine_follows_its_edits_to_their_end() {
    let now = Instant::now();
    let mut schedule = Schedule::new(Mode::Daemon);
    let queued = |schedule: &Schedule| {
        let queued = schedule.queued(&name("hello"), now);
        (queued.edits, queued.stage)
    };
    let edited = |text: &str| Event::Edited(edit("hello", text, now));
    let ended = |ended: Ended| Event::Ended(name("hello"), ended);
    assert_eq!(queued(&schedule), (0, Stage::Idle));
    let _ = schedule.handle(edited("a"), now);
    assert_eq!(queued(&schedule), (1, Stage::Running));
    let _ = schedule.handle(edited("b"), now);
    assert_eq!(queued(&schedule), (2, Stage::Running));
    let Ended::Stored { landed, .. } = stored("a") else {
        panic!()
    };
    let _ = schedule.handle(Event::Landed(name("hello"), landed), now);
    assert_eq!(queued(&schedule), (1, Stage::Running));
    let _ = schedule.handle(ended(stored("a")), now);
    assert_eq!(queued(&schedule), (1, Stage::Running));
    let _ = schedule.handle(ended(failed(Again::After(Duration::from_secs(1)))), now);
    assert_eq!(queued(&schedule), (1, Stage::Later));
    let later = now + Duration::from_secs(1);
    assert_eq!(schedule.queued(&name("hello"), later).stage, Stage::Running);
    let _ = schedule.handle(Event::Tick, later);
    let Ended::Stored { landed, .. } = stored("b") else {
        panic!()
    };
    let _ = schedule.handle(Event::Landed(name("hello"), landed), later);
    assert_eq!(queued(&schedule), (0, Stage::Trimming));
    let _ = schedule.handle(ended(stored("b")), later);
    assert_eq!(queued(&schedule), (0, Stage::Idle));
}

#[test]
fn a_pause_lets_nothing_start_and_loses_nothing() {
    let mut schedule = Schedule::new(Mode::Daemon);
    let now = Instant::now();
    let told = schedule.handle(Event::Pause, now);
    assert_eq!(told, [Effect::Tell(report::Event::Paused { waiting: 0 })]);
    assert_eq!(
        schedule.handle(Event::Pause, now),
        [],
        "it is paused already"
    );
    assert_eq!(
        schedule.handle(Event::Edited(edit("hello", "a", now)), now),
        []
    );
    assert_eq!((schedule.waiting(), schedule.next_deadline()), (1, None));
    let told = schedule.handle(Event::Continue, now);
    assert_eq!(
        told[0],
        Effect::Tell(report::Event::Continued { waiting: 1 })
    );
    assert!(matches!(&told[1], Effect::Run(Job::Deploy(_))), "{told:?}");
}

#[test]
fn a_flush_tries_at_once_what_waits_and_what_an_outage_holds_back() {
    let now = Instant::now();
    for reach in [Reach::Answered, Reach::Silent] {
        let mut schedule = Schedule::new(Mode::Daemon);
        let _ = schedule.handle(Event::Edited(edit("hello", "a", now)), now);
        let failed = Ended::Failed {
            problem: problem(Class::Missing),
            again: Again::Later(Duration::from_secs(300)),
            reach,
            jitter: 0.5,
        };
        let _ = schedule.handle(Event::Ended(name("hello"), failed), now);
        assert!(schedule.next_deadline().unwrap() > now, "{reach:?}");
        let told = schedule.handle(Event::Flush, now);
        assert!(matches!(told[..], [Effect::Run(_)]), "{reach:?}: {told:?}");
    }
}
