//! Edits of a routine whose entry a build makes: what waits for which end of a run, and what goes up.

use super::*;

/// A schedule for one routine, whose deploys all end well.
struct Bench {
    schedule: Schedule,
    now: Instant,
    up: Vec<String>,
}

impl Bench {
    fn new(mode: Mode) -> Self {
        Self {
            schedule: Schedule::new(mode),
            now: Instant::now(),
            up: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event) -> Vec<report::Event> {
        let mut told = Vec::new();
        for effect in self.schedule.handle(event, self.now) {
            match effect {
                Effect::Tell(event) => told.push(event),
                Effect::Run(Job::Deploy(edit)) => {
                    let texts = ["a", "b", "c", "d"];
                    let is = |text: &&&str| edit.digest == Some(Digest::of(text.as_bytes()));
                    self.up.push(texts.iter().find(is).unwrap().to_string());
                }
                Effect::Run(Job::Tidy(_)) => {}
            }
        }
        told
    }

    fn edit(&mut self, text: &str) {
        let edited = Event::Edited(edit("hello", text, self.now));
        self.handle(edited);
    }

    fn build(&mut self, event: fn(RoutineName) -> Event) {
        self.handle(event(name("hello")));
    }

    fn deployed(&mut self, text: &str) {
        self.handle(Event::Ended(name("hello"), stored(text)));
    }

    fn stage(&self) -> (usize, Stage) {
        let queued = self.schedule.queued(&name("hello"), self.now);
        (queued.edits, queued.stage)
    }
}

fn broken(routine: RoutineName) -> Event {
    Event::Broken(routine, problem(Class::Build))
}

#[test]
fn what_a_build_writes_waits_until_it_has_ended_well() {
    let mut it = Bench::new(Mode::Daemon);
    it.build(Event::Building);
    assert_eq!(it.stage(), (0, Stage::Building));
    it.edit("a");
    it.edit("b");
    assert_eq!((it.up.len(), it.stage()), (0, (1, Stage::Building)));
    assert_eq!(it.schedule.next_deadline(), None);
    it.build(Event::Built);
    assert_eq!(it.up, ["b"]);
    it.deployed("b");
    // More of it may still have to be told of.
    assert_eq!(it.stage(), (0, Stage::Building));
    it.edit("c");
    assert_eq!(it.up, ["b", "c"]);
    it.deployed("c");
    it.build(Event::Rested);
    assert_eq!(it.stage(), (0, Stage::Idle));
    assert!(it.schedule.is_idle());
}

#[test]
fn a_look_from_before_a_build_waits_until_all_that_was_written_has_been_told_of() {
    for told in [false, true] {
        let mut it = Bench::new(Mode::Daemon);
        it.build(Event::Building);
        let look = Edit {
            saves: 0,
            ..edit("hello", "a", it.now)
        };
        it.handle(Event::Edited(look));
        it.build(Event::Built);
        assert_eq!((it.up.len(), it.schedule.next_deadline()), (0, None));
        if told {
            it.edit("b");
        }
        it.build(Event::Rested);
        assert_eq!(it.up, [if told { "b" } else { "a" }]);
    }
}

#[test]
fn what_a_failed_build_wrote_stays_until_one_succeeds_or_somebody_else_writes() {
    for by_hand in [false, true] {
        let mut it = Bench::new(Mode::Daemon);
        it.build(Event::Building);
        it.edit("a");
        it.build(broken);
        assert_eq!(it.stage(), (1, Stage::Broken));
        assert_eq!(it.schedule.next_deadline(), None);
        if by_hand {
            it.edit("b");
            assert_eq!(
                (&it.up[..], it.stage().1),
                (&["b".into()][..], Stage::Running)
            );
        } else {
            // Another run that fails without having written anything changes nothing.
            it.build(Event::Building);
            it.build(broken);
            assert_eq!(it.stage(), (1, Stage::Broken));
            it.build(Event::Building);
            it.build(Event::Built);
            assert_eq!(it.up, ["a"]);
        }
    }
}

#[test]
fn what_was_there_before_a_build_failed_goes_up() {
    let mut it = Bench::new(Mode::Daemon);
    it.edit("a");
    it.edit("b");
    it.build(Event::Building);
    // It waited behind a deploy, and waits now for the build.
    it.deployed("a");
    assert_eq!(
        (&it.up[..], it.stage()),
        (&["a".into()][..], (1, Stage::Building))
    );
    it.build(broken);
    assert_eq!(it.up, ["a", "b"]);
    it.deployed("b");
    assert_eq!(it.stage(), (0, Stage::Broken));
}

#[test]
fn what_a_failed_build_wrote_behind_a_running_deploy_stays_as_well() {
    let mut it = Bench::new(Mode::Daemon);
    it.edit("a");
    it.build(Event::Building);
    it.edit("b");
    it.build(broken);
    it.deployed("a");
    assert_eq!(
        (&it.up[..], it.stage()),
        (&["a".into()][..], (1, Stage::Broken))
    );
}

#[test]
fn an_output_as_it_is_on_the_service_is_no_edit_that_waits() {
    let mut it = Bench::new(Mode::Daemon);
    it.edit("a");
    it.deployed("a");
    it.build(Event::Building);
    it.edit("a");
    it.build(broken);
    assert_eq!((it.up.len(), it.stage()), (1, (0, Stage::Broken)));
    assert_eq!(it.schedule.totals().unchanged, 1);
}

#[test]
fn where_there_is_no_other_run_an_edit_fails_with_its_build() {
    let mut it = Bench::new(Mode::Once);
    it.build(Event::Building);
    it.edit("a");
    let told = it.handle(broken(name("hello")));
    assert!(
        matches!(&told[..], [report::Event::Failed { problem, .. }] if problem.class == Class::Build)
    );
    assert!(it.schedule.is_idle() && it.up.is_empty());
}

#[test]
fn a_build_of_another_routine_holds_nothing_up() {
    let mut it = Bench::new(Mode::Daemon);
    it.handle(Event::Building(name("other")));
    it.edit("a");
    assert_eq!(it.up, ["a"]);
}

proptest! {
    #[test]
    fn nothing_goes_up_that_a_failed_build_wrote_and_every_edit_ends(script in proptest::collection::vec(0..6_u8, 0..60)) {
        let mut it = Bench::new(Mode::Daemon);
        // Whether a build runs, or settles after a good end, and the last edit with whether a run wrote it that did not
        // end well.
        let (mut runs, mut settles, mut last) = (false, false, None);
        for (index, step) in script.into_iter().enumerate() {
            let text = ["a", "b", "c", "d"][index % 4];
            let before = it.up.len();
            match step {
                0 => {
                    it.build(Event::Building);
                    (runs, settles) = (true, false);
                }
                1 if runs => {
                    it.build(Event::Built);
                    (runs, settles) = (false, true);
                    last = last.map(|(text, _)| (text, false));
                }
                2 if runs => {
                    it.build(broken);
                    runs = false;
                }
                3 if settles => {
                    it.build(Event::Rested);
                    settles = false;
                }
                4 => {
                    last = Some((text, runs));
                    it.edit(text);
                }
                _ => if let Some(text) = it.up.last().cloned() {
                    it.deployed(&text);
                }
            }
            for up in &it.up[before..] {
                prop_assert!(!runs, "{up} went up during a run");
                prop_assert_eq!(Some((up.as_str(), false)), last);
            }
        }
        it.build(Event::Building);
        it.build(Event::Built);
        it.build(Event::Rested);
        for _ in 0..8 {
            if let Some(text) = it.up.last().cloned() { it.deployed(&text); }
            it.now += Duration::from_secs(60);
            it.handle(Event::Tick);
        }
        prop_assert!(it.schedule.is_idle());
        let totals = it.schedule.totals();
        prop_assert_eq!(totals.uploaded + totals.unchanged + totals.superseded, totals.edits);
    }
}
