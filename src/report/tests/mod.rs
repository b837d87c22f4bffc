//! What a reader of er-dev's output relies on. Here are the events the tests tell; what is made of them stands beside.

mod lines;
mod objects;
mod outlet;
#[path = "../../../tests/common/schema.rs"]
mod schema;
mod standing;

use proptest::prelude::{Strategy, any, prop};

use super::*;

const TERMINAL: Look = Look {
    colour: false,
    terminal: true,
    columns: None,
};

fn at(clock: &str) -> Timestamp {
    format!("2026-10-03T{clock}.0425Z").parse().unwrap()
}

fn drawn(event: &Event, clock: &str, look: Look) -> String {
    text::render(event, 1, &at(clock).to_zoned(TimeZone::UTC), look)
}

fn hello() -> RoutineName {
    RoutineName::new("hello").unwrap()
}

fn revision(tail: &str) -> Revision {
    Revision::new(&format!("178960000000000{tail}"))
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn days(days: u64) -> Duration {
    secs(days * 86_400)
}

fn uploaded() -> Event {
    Event::Uploaded {
        routine: hello(),
        revision: revision("7712"),
        sha256: Digest::of(b"abc"),
        bytes: 1_899,
        saves: 5,
        calls: 2,
        took: Duration::from_millis(210),
        slots: 9,
        cap: 10,
    }
}

fn rotated(age: Option<Duration>) -> Event {
    Event::Rotated {
        routine: hello(),
        revision: revision("0961"),
        age,
        reason: "kept in the vault (the oldest of 10)".into(),
    }
}

fn busy() -> Problem {
    Problem {
        what: "the service is busy".into(),
        help: "nothing to do, the edit is kept".into(),
        class: Class::Service,
        operation: None,
        request_id: None,
        frame: None,
    }
}

fn syntax() -> Problem {
    Problem {
        what: "unexpected token `}`".into(),
        help: "fix it and save again; watching goes on".into(),
        class: Class::Source,
        operation: None,
        request_id: None,
        frame: Some(Box::new(Frame {
            file: "examples/hello.js".into(),
            line: 41,
            column: 25,
            width: 1,
            cut: 0,
            text: Some("  if (hit) return hit; }}".into()),
            also: Vec::new(),
            unshown: 0,
        })),
    }
}

fn failed(problem: Problem) -> Event {
    Event::Failed {
        routine: hello(),
        saves: 2,
        problem,
    }
}

fn totals() -> Totals {
    Totals {
        saves: 97,
        edits: 42,
        uploaded: 9,
        reused: 1,
        unchanged: 30,
        superseded: 2,
        rotated: 3,
        calls: 61,
        peak: 14,
        up: secs(7_860),
        ..Totals::default()
    }
}

/// Each event once, with `foreign` wherever a text comes from outside and `n` as every number.
fn every(foreign: &str, n: u32) -> Vec<Event> {
    let (routine, revision, wait) = (hello(), Revision::new(foreign), secs(n.into()));
    let big = n as usize;
    let frame = Frame {
        file: foreign.into(),
        line: big,
        column: big % 50,
        width: big % 5,
        cut: 0,
        text: (!n.is_multiple_of(5)).then(|| foreign.into()),
        also: Vec::new(),
        unshown: 0,
    };
    let also = Also {
        what: foreign.into(),
        frame: frame.clone(),
    };
    let problem = Problem {
        what: foreign.into(),
        help: foreign.into(),
        class: Class::Source,
        operation: None,
        request_id: n.is_multiple_of(2).then(|| foreign.into()),
        frame: (!n.is_multiple_of(3)).then(|| {
            Box::new(Frame {
                also: vec![also],
                unshown: big,
                ..frame
            })
        }),
    };
    let sha256 = Digest::of(foreign.as_bytes());
    vec![
        Event::Building {
            command: foreign.into(),
            routines: vec![routine.clone(); big % 5],
            changed: vec![foreign.into(); big % 5],
            early: n.is_multiple_of(2),
        },
        Event::Built {
            command: foreign.into(),
            routines: vec![routine.clone()],
            took: wait,
        },
        Event::Broken(Box::new(Broken {
            command: foreign.into(),
            routines: vec![routine.clone()],
            exit: n.is_multiple_of(2).then_some(1),
            took: wait,
            output: Vec::new(),
            cut: 0,
            problem: problem.clone(),
        })),
        Event::Looping {
            command: foreign.into(),
            routines: vec![routine.clone()],
            changed: vec![foreign.into()],
            after: wait,
            problem: problem.clone(),
        },
        Event::Started {
            version: "0.1.0",
            endpoint: foreign.into(),
            key: foreign.into(),
            source: foreign.into(),
        },
        Event::Watching {
            routines: big,
            files: big,
            directories: big,
            backend: "poll",
        },
        Event::Slots {
            routine: routine.clone(),
            used: big,
            cap: big,
            next: Some((revision.clone(), Some(wait))),
        },
        Event::Budget {
            requests_per_second: n,
            burst: n,
            in_flight: n,
        },
        Event::Serving {
            url: foreign.into(),
        },
        Event::Ready { after: wait },
        Event::Uploaded {
            routine: routine.clone(),
            revision: revision.clone(),
            sha256,
            bytes: big,
            saves: n,
            calls: n,
            took: wait,
            slots: big,
            cap: big,
        },
        Event::Reused {
            routine: routine.clone(),
            revision: revision.clone(),
            sha256,
            saves: n,
        },
        Event::Unchanged {
            routine: routine.clone(),
            revision: revision.clone(),
            saves: n,
        },
        Event::Superseded {
            routine: routine.clone(),
            saves: n,
        },
        Event::Failed {
            routine: routine.clone(),
            saves: n,
            problem: problem.clone(),
        },
        Event::Abandoned {
            routine: routine.clone(),
            saves: n,
        },
        Event::Retrying {
            routine: routine.clone(),
            after: wait,
            problem: problem.clone(),
        },
        Event::Throttled {
            routine: routine.clone(),
            operation: "UploadRoutineCode",
            after: wait,
        },
        Event::Rotated {
            routine: routine.clone(),
            revision,
            age: Some(wait),
            reason: foreign.into(),
        },
        Event::Created {
            routine: routine.clone(),
        },
        Event::Planned {
            routine: routine.clone(),
            action: "upload",
            detail: foreign.into(),
            saves: Some(n),
        },
        Event::Committed {
            routine: routine.clone(),
            revision: Revision::staging(),
            sha256,
            calls: n,
            slots: big,
            cap: big,
        },
        Event::Staging {
            routine: routine.clone(),
            addresses: vec![[203, 0, 113, 7].into()],
        },
        Event::Warning {
            routine: Some(routine),
            problem,
        },
        Event::Stopping {
            running: big,
            drain: wait,
        },
        Event::Done(Totals {
            saves: n.into(),
            failed: n.into(),
            abandoned: n.into(),
            up: wait,
            ..Totals::default()
        }),
    ]
}

/// Texts in which every second character is one that a terminal obeys or hides.
fn nasty() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(
        "\0\u{7}\t\n\r\u{1b}\u{7f}\u{85}\u{9b}\u{200b}\u{202e}\u{2028}\u{2066}\u{feff}日\"\\"
            .chars()
            .collect::<Vec<_>>(),
    );
    prop::collection::vec((odd, any::<char>()), 0..400)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(a, b)| [a, b]).collect())
}
