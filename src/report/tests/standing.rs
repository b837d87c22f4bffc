//! How each state comes about, and each way out of it.

use super::super::standing::{Overview, Queued, Reason, Stage, Standing, State, Unusual};
use super::*;

const IDLE: Queued = Queued {
    edits: 0,
    stage: Stage::Idle,
};
const RUNNING: Queued = Queued {
    edits: 1,
    stage: Stage::Running,
};
const LATER: Queued = Queued {
    edits: 1,
    stage: Stage::Later,
};

fn problem(class: Class) -> Problem {
    Problem {
        what: format!("it is {class}"),
        class,
        ..busy()
    }
}

fn retrying(class: Class, after: Duration) -> Event {
    Event::Retrying {
        routine: hello(),
        after,
        problem: problem(class),
    }
}

fn offline(class: Class) -> Event {
    Event::Offline {
        after: secs(1),
        problem: problem(class),
    }
}

fn online() -> Event {
    Event::Online {
        lasted: secs(1),
        waiting: 1,
    }
}

fn reused() -> Event {
    Event::Reused {
        routine: hello(),
        revision: revision("0001"),
        sha256: Digest::of(b"abc"),
        saves: 1,
    }
}

fn unchanged(tail: &str) -> Event {
    Event::Unchanged {
        routine: hello(),
        revision: revision(tail),
        saves: 1,
    }
}

fn planned() -> Event {
    Event::Planned {
        routine: hello(),
        action: "upload",
        detail: String::new(),
        saves: Some(1),
    }
}

fn halted() -> Event {
    Event::Halted {
        routine: hello(),
        problem: problem(Class::Source),
    }
}

fn resumed() -> Event {
    Event::Resumed { routine: hello() }
}

fn seen(events: &[Event]) -> Standing {
    let mut standing = Standing::default();
    for event in events {
        standing.see(event, at("14:02:12"));
    }
    standing
}

fn overview(events: &[Event], queued: Queued) -> Overview {
    seen(events).overview([(&hello(), queued)])
}

/// The state of the routine and the class of the reason for it.
fn state(events: &[Event], queued: Queued) -> (State, Option<String>) {
    let mut routines = overview(events, queued).routines;
    let routine = routines.remove(0);
    (routine.state, routine.reason.map(|reason| reason.class))
}

#[track_caller]
fn assert_state(events: &[Event], queued: Queued, expected: State, class: Option<Class>) {
    let class = class.map(|class| class.word().to_owned());
    assert_eq!(state(events, queued), (expected, class), "{events:?}");
}

#[test]
fn a_routine_is_ok_until_an_edit_waits_or_runs() {
    for events in [&[][..], &[uploaded()], &[reused()], &[unchanged("1")]] {
        assert_state(events, IDLE, State::Ok, None);
        assert_state(events, RUNNING, State::Pending, None);
        assert_state(events, LATER, State::Pending, None);
    }
    let trimming = Queued {
        edits: 0,
        stage: Stage::Trimming,
    };
    assert_state(&[uploaded()], trimming, State::Ok, None);
    assert!(seen(&[]).is_under_way(&hello(), trimming));
    assert!(!seen(&[]).is_under_way(&hello(), IDLE));
}

#[test]
fn an_edit_that_ended_for_good_is_known_by_why() {
    let table = [
        (Class::Source, State::Refused),
        (Class::Absent, State::Missing),
        (Class::Empty, State::Empty),
        (Class::Refused, State::Blocked),
        (Class::Service, State::Blocked),
        (Class::Credentials, State::Auth),
    ];
    for (class, expected) in table {
        let event = failed(problem(class));
        assert_state(std::slice::from_ref(&event), IDLE, expected, Some(class));
        // A newer edit is on its way, and the reason stands until that has ended.
        assert_state(
            std::slice::from_ref(&event),
            RUNNING,
            State::Pending,
            Some(class),
        );
        for end in [uploaded(), reused(), unchanged("1"), planned()] {
            assert_state(&[event.clone(), end], IDLE, State::Ok, None);
        }
        let other = failed(problem(Class::Source));
        assert_state(&[event, other], IDLE, State::Refused, Some(Class::Source));
    }
}

#[test]
fn an_edit_that_is_tried_again_waits_for_time_or_for_somebody() {
    let table = [
        (Class::InDoubt, 1, State::Backoff),
        (Class::Locked, 1, State::Backoff),
        (Class::Service, 60, State::Backoff),
        (Class::Service, 300, State::Blocked),
        (Class::Clock, 300, State::Blocked),
        (Class::Slots, 60, State::Blocked),
        (Class::Missing, 300, State::Blocked),
        (Class::Credentials, 300, State::Auth),
    ];
    for (class, after, expected) in table {
        let event = retrying(class, secs(after));
        assert_state(std::slice::from_ref(&event), LATER, expected, Some(class));
        assert_state(
            std::slice::from_ref(&event),
            RUNNING,
            State::Pending,
            Some(class),
        );
        let waits = seen(std::slice::from_ref(&event)).is_under_way(&hello(), LATER);
        assert_eq!(waits, expected != State::Blocked, "{class}");
        assert_state(&[event.clone(), uploaded()], IDLE, State::Ok, None);
        let other = failed(problem(Class::Empty));
        assert_state(&[event, other], IDLE, State::Empty, Some(Class::Empty));
    }
    let throttled = Event::Throttled {
        routine: hello(),
        operation: "UploadRoutineCode",
        after: secs(2),
    };
    assert_state(
        std::slice::from_ref(&throttled),
        LATER,
        State::Backoff,
        Some(Class::Throttled),
    );
    assert_state(&[throttled, uploaded()], IDLE, State::Ok, None);
}

#[test]
fn while_the_service_is_away_edits_wait_for_it_and_nothing_else_is_wrong() {
    let table = [
        (Class::Network, State::Offline, Unusual::Offline),
        (Class::Clock, State::Offline, Unusual::Offline),
        (Class::Credentials, State::Auth, Unusual::Auth),
    ];
    for (class, expected, condition) in table {
        let away = [retrying(Class::InDoubt, secs(1)), offline(class)];
        for queued in [RUNNING, LATER] {
            assert_state(&away, queued, expected, Some(class));
        }
        assert!(seen(&away).is_under_way(&hello(), LATER));
        assert_state(&[offline(class)], IDLE, State::Ok, None);
        let conditions = overview(&away, LATER).conditions;
        assert_eq!((conditions.len(), conditions[0].condition), (1, condition));
        let back = [offline(class), online()];
        assert_state(&back, RUNNING, State::Pending, None);
        assert_eq!(overview(&back, IDLE).conditions, []);
    }
}

#[test]
fn an_outage_is_as_old_as_its_first_try() {
    let mut standing = seen(&[offline(Class::Network)]);
    standing.see(&offline(Class::Credentials), at("14:10:00"));
    let conditions = standing.overview([]).conditions;
    assert_eq!(conditions[0].condition, Unusual::Auth);
    assert_eq!(conditions[0].since.to_string(), "2026-10-03T14:02:12.043Z");
}

#[test]
fn a_change_that_waits_is_pending_until_it_has_settled_or_its_place_is_gone() {
    let waiting = || Event::Waiting {
        routine: hello(),
        problem: problem(Class::Source),
    };
    let refused = failed(problem(Class::Source));
    for before in [uploaded(), refused] {
        let mut standing = seen(&[before.clone(), waiting()]);
        let overview = standing.overview([(&hello(), IDLE)]);
        let one = &overview.routines[0];
        assert_eq!((one.state, one.pending), (State::Pending, 1));
        assert!(one.reason.is_some());
        // The watcher is waited for already, and for no newer change.
        assert!(!standing.is_under_way(&hello(), IDLE));
        standing.settled(&hello());
        let settled = standing.overview([(&hello(), IDLE)]);
        assert_eq!(settled, seen(&[before]).overview([(&hello(), IDLE)]));
    }
    assert_state(&[waiting(), halted(), resumed()], IDLE, State::Ok, None);
}

#[test]
fn what_an_edit_has_failed_with_says_nothing_of_a_newer_one_that_has_started() {
    let mut standing = seen(&[failed(problem(Class::Source))]);
    standing.started(&hello());
    let overview = standing.overview([(&hello(), LATER)]);
    let one = &overview.routines[0];
    assert_eq!((one.state, &one.reason), (State::Pending, &None));
    assert!(standing.is_under_way(&hello(), LATER));
    let mut standing = seen(&[retrying(Class::InDoubt, secs(1))]);
    standing.started(&hello());
    let overview = standing.overview([(&hello(), LATER)]);
    assert_eq!(overview.routines[0].state, State::Backoff);
}

#[test]
fn a_place_that_is_gone_halts_whatever_else_there_is_until_it_is_back() {
    let missing = failed(problem(Class::Absent));
    for queued in [IDLE, RUNNING, LATER] {
        assert_state(
            &[missing.clone(), halted()],
            queued,
            State::Halted,
            Some(Class::Source),
        );
        assert_state(
            &[halted(), missing.clone()],
            queued,
            State::Halted,
            Some(Class::Source),
        );
    }
    let back = [halted(), missing, resumed()];
    assert_state(&back, RUNNING, State::Pending, Some(Class::Source));
    assert_state(&back, IDLE, State::Missing, Some(Class::Source));
    assert_state(&[halted(), resumed(), uploaded()], IDLE, State::Ok, None);
    // Halted, it does not keep anybody waiting.
    assert!(!seen(&[halted()]).is_under_way(&hello(), IDLE));
}

fn critical(environment: Option<&str>) -> Event {
    Event::Critical {
        routine: hello(),
        environment: environment.map(String::from),
        problem: problem(Class::Service),
    }
}

#[test]
fn an_environment_that_somebody_has_to_look_at_stands_until_that_very_one_is_mended() {
    let in_production = critical(Some("production"));
    for more in [
        uploaded(),
        halted(),
        resumed(),
        offline(Class::Network),
        unchanged("1"),
    ] {
        let events = [in_production.clone(), more];
        for queued in [IDLE, RUNNING] {
            assert_state(&events, queued, State::Critical, Some(Class::Service));
        }
    }
    let mended = |environment: &str| Event::Mended {
        routine: hello(),
        environment: environment.into(),
    };
    let two = [
        in_production.clone(),
        critical(Some("staging")),
        mended("staging"),
    ];
    assert_state(&two, IDLE, State::Critical, Some(Class::Service));
    let both = [&two[..], &[mended("production")]].concat();
    assert_state(&both, IDLE, State::Ok, None);
    assert!(seen(&[in_production]).is_under_way(&hello(), RUNNING));
}

#[test]
fn bytes_that_somebody_has_to_look_at_are_over_when_an_edit_is_on_the_service() {
    let critical = critical(None);
    assert_state(
        std::slice::from_ref(&critical),
        IDLE,
        State::Critical,
        Some(Class::Service),
    );
    assert_state(&[critical, uploaded()], IDLE, State::Ok, None);
}

#[test]
fn every_lack_of_safety_ends_by_itself() {
    const ALL: [Safety; 5] = [
        Safety::State,
        Safety::Permission,
        Safety::Budget,
        Safety::Clock,
        Safety::Events,
    ];
    let degraded = ALL.map(|safety| Event::Degraded {
        safety,
        problem: problem(Class::State),
    });
    let mut standing = seen(&degraded);
    for left in (0..5).rev() {
        let what = String::new();
        let safety = ALL[left];
        standing.see(&Event::Restored { safety, what }, at("14:02:13"));
        let conditions = standing.overview([]).conditions;
        assert_eq!(conditions.len(), left);
        let word = |condition: &super::super::standing::Condition| condition.condition;
        assert!(conditions.iter().all(|it| word(it) == Unusual::Degraded));
    }
}

#[test]
fn the_last_success_and_the_slots_are_those_told_last() {
    let of = |events: &[Event]| overview(events, IDLE).routines.remove(0);
    assert_eq!((of(&[]).last, of(&[]).slots), (None, None));
    let one = of(&[uploaded(), rotated(None), failed(syntax())]);
    let last = one.last.unwrap();
    assert_eq!(last.revision, revision("7712"));
    assert_eq!(last.sha256, Some(Digest::of(b"abc")));
    assert_eq!(last.at.to_string(), "2026-10-03T14:02:12.043Z");
    assert_eq!((one.slots, one.cap), (Some(8), Some(10)));
    // Somebody else has taken what was free.
    let full = of(&[uploaded(), retrying(Class::Slots, secs(1))]);
    assert_eq!((full.slots, full.cap), (Some(10), Some(10)));
    let reason = Reason {
        what: "examples/hello.js:41:25 unexpected token `}`".into(),
        help: "fix it and save again; watching goes on".into(),
        class: "source".into(),
    };
    assert_eq!(one.reason, Some(reason));
    // The event of an edit that changed nothing names no digest.
    let known = of(&[uploaded(), unchanged("7712")]).last.unwrap();
    assert_eq!(known.sha256, Some(Digest::of(b"abc")));
    let mut standing = seen(&[uploaded(), unchanged("0002")]);
    let last = |standing: &Standing| {
        standing.overview([(&hello(), IDLE)]).routines[0]
            .last
            .clone()
    };
    assert_eq!(last(&standing).unwrap().sha256, None);
    standing.holds(&hello(), &revision("0003"), Digest::of(b"other"));
    assert_eq!(last(&standing).unwrap().sha256, None);
    standing.holds(&hello(), &revision("0002"), Digest::of(b"b"));
    assert_eq!(last(&standing).unwrap().sha256, Some(Digest::of(b"b")));
}

#[test]
fn the_state_of_one_routine_says_nothing_of_another() {
    let other = RoutineName::new("other").unwrap();
    let standing = seen(&[failed(syntax()), halted()]);
    let overview = standing.overview([(&hello(), IDLE), (&other, RUNNING)]);
    let states: Vec<State> = overview.routines.iter().map(|one| one.state).collect();
    assert_eq!(states, [State::Halted, State::Pending]);
    assert_eq!(overview.routines[1].reason, None);
}

#[test]
fn every_event_can_be_seen_and_every_text_is_bounded() {
    let nasty = "\u{1b}[2J".repeat(1_000);
    for n in 0..12 {
        let standing = seen(&every(&nasty, n));
        let one = standing.overview([(&hello(), RUNNING)]).routines.remove(0);
        if let Some(reason) = one.reason {
            assert!(reason.what.len() <= words::MAX_FIELD_BYTES);
            assert!(!reason.words().contains('\u{1b}'));
        }
    }
}

#[test]
fn a_routine_whose_build_runs_is_waited_for_and_one_whose_build_failed_is_not() {
    let queued = |edits, stage| Queued { edits, stage };
    let building = || Event::Building {
        command: "make".into(),
        routines: vec![hello()],
        changed: Vec::new(),
        early: false,
    };
    let broken = || {
        Event::Broken(Box::new(Broken {
            command: "make".into(),
            routines: vec![hello()],
            exit: Some(2),
            took: secs(1),
            output: Vec::new(),
            cut: 0,
            problem: problem(Class::Build),
        }))
    };
    let class = Some(Class::Build);
    let runs = queued(0, Stage::Building);
    assert_state(&[building()], runs, State::Pending, class);
    assert!(seen(&[building()]).is_under_way(&hello(), runs));
    let failed = [uploaded(), building(), broken()];
    for edits in [0, 1] {
        let queued = queued(edits, Stage::Broken);
        assert_state(&failed, queued, State::Broken, class);
        assert!(!seen(&failed).is_under_way(&hello(), queued));
    }
    // Its cause is not that the service cannot be reached.
    let offline = [broken(), offline(Class::Network)];
    assert_state(&offline, queued(1, Stage::Broken), State::Broken, class);
    // What somebody else wrote is no question of the build.
    assert_state(&failed, RUNNING, State::Pending, None);
}
