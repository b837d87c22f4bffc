//! Each event as programs read it, letter for letter.

use proptest::prelude::{prop_assert, proptest};

use super::*;

/// What follows `v` and `ts` in the JSON line.
fn json(event: &Event) -> String {
    let line = json::render(event, at("14:02:12"));
    let rest = line.strip_prefix(r#"{"v":1,"ts":"2026-10-03T14:02:12.042Z","#);
    rest.unwrap().strip_suffix("}\n").unwrap().into()
}

#[test]
fn each_event_has_its_documented_json() {
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let problem = r#""problem":{"what":"x","help":"x","class":"source","request_id":"x","file":"x","line":8,"column":8,"also":[{"what":"x","file":"x","line":8,"column":8}],"unshown":8}"#;
    let x = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let table = [
        r#""event":"building","build":"x","routines":["hello","hello","hello"],"changed":["x","x","x"],"early":true"#.into(),
        r#""event":"built","build":"x","routines":["hello"],"ms":8000"#.into(),
        format!(r#""event":"broken","build":"x","routines":["hello"],"exit":1,"ms":8000,"output":[],"cut":0,{problem}"#),
        format!(r#""event":"looping","build":"x","routines":["hello"],"changed":["x"],"after_ms":8000,{problem}"#),
        r#""event":"started","version":"0.1.0","endpoint":"x","key":"x","source":"x""#.into(),
        r#""event":"watching","routines":8,"files":8,"directories":8,"backend":"poll""#.into(),
        r#""event":"slots","routine":"hello","slots":8,"cap":8,"next":{"revision":"x","age_s":8}"#.into(),
        r#""event":"budget","requests_per_second":8,"burst":8,"in_flight":8"#.into(),
        r#""event":"serving","url":"x""#.into(),
        r#""event":"ready","ms":8000"#.into(),
        format!(r#""event":"uploaded","routine":"hello","revision":"x","sha256":"{x}","bytes":8,"saves":8,"calls":8,"ms":8000,"slots":8"#),
        format!(r#""event":"reused","routine":"hello","revision":"x","sha256":"{x}","saves":8"#),
        r#""event":"unchanged","routine":"hello","revision":"x","saves":8"#.into(),
        r#""event":"superseded","routine":"hello","saves":8"#.into(),
        format!(r#""event":"error","routine":"hello","saves":8,{problem}"#),
        r#""event":"abandoned","routine":"hello","saves":8"#.into(),
        format!(r#""event":"retrying","routine":"hello","after_ms":8000,{problem}"#),
        r#""event":"throttled","routine":"hello","operation":"UploadRoutineCode","after_ms":8000"#.into(),
        r#""event":"rotated","routine":"hello","revision":"x","age_s":8,"reason":"x""#.into(),
        r#""event":"created","routine":"hello""#.into(),
        r#""event":"planned","routine":"hello","action":"upload","detail":"x","saves":8"#.into(),
        format!(r#""event":"committed","routine":"hello","revision":"unstable","sha256":"{x}","calls":8,"slots":8"#),
        r#""event":"staging","routine":"hello","addresses":["203.0.113.7"]"#.into(),
        format!(r#""event":"warning","routine":"hello",{problem}"#),
        r#""event":"stopping","running":8,"drain_ms":8000"#.into(),
        r#""event":"done","saves":8,"edits":0,"uploaded":0,"reused":0,"unchanged":0,"superseded":0,"failed":8,"abandoned":8,"planned":0,"rotated":0,"calls":0,"peak":0,"up_ms":8000"#.into(),
    ];
    let events = every("x", 8);
    assert_eq!(events.len(), table.len());
    for (event, expected) in events.iter().zip(table) {
        assert_eq!(json(event), expected);
    }
    assert_eq!(
        json(&uploaded()),
        format!(
            r#""event":"uploaded","routine":"hello","revision":"1789600000000007712","sha256":"{hash}","bytes":1899,"saves":5,"calls":2,"ms":210,"slots":9"#
        )
    );
}

/// The events that `every` leaves out.
fn others() -> Vec<Event> {
    let (routine, revision, wait) = (hello(), revision("7712"), secs(8));
    let environment = || "production".to_owned();
    vec![
        Event::Offline {
            after: wait,
            problem: busy(),
        },
        Event::Online {
            lasted: wait,
            waiting: 1,
        },
        Event::Waiting {
            routine: routine.clone(),
            problem: syntax(),
        },
        Event::Halted {
            routine: routine.clone(),
            problem: busy(),
        },
        Event::Resumed {
            routine: routine.clone(),
        },
        Event::Came {
            routine: routine.clone(),
            file: "src/x.js".into(),
        },
        Event::Left {
            routine: routine.clone(),
            reason: "x".into(),
        },
        Event::Foreign {
            routine: routine.clone(),
            revision: revision.clone(),
            age: None,
            by: Some("0000beef".into()),
        },
        Event::Published {
            routine: routine.clone(),
            revision: revision.clone(),
            environment: environment(),
            before: None,
        },
        Event::Republished {
            routine: routine.clone(),
            revision: revision.clone(),
            environment: environment(),
            before: Some(revision.clone()),
        },
        Event::Pinned {
            routine: routine.clone(),
            revision: revision.clone(),
            pinned: true,
        },
        Event::Recovered {
            routine: routine.clone(),
            revision: revision.clone(),
            was: revision.clone(),
        },
        Event::Pruned {
            routine: routine.clone(),
            rotated: 1,
            left: 9,
            planned: false,
            stay: "pinned".into(),
        },
        Event::Mended {
            routine: routine.clone(),
            environment: environment(),
        },
        Event::Degraded {
            safety: Safety::State,
            problem: busy(),
        },
        Event::Restored {
            safety: Safety::Events,
            what: "x".into(),
        },
        Event::Critical {
            routine,
            environment: Some(environment()),
            problem: busy(),
        },
        Event::Paused { waiting: 1 },
        Event::Continued { waiting: 1 },
        Event::Alive(totals()),
    ]
}

#[test]
fn every_event_is_told_by_readme_in_the_form_that_it_has() {
    let (mut kinds, mut told) = (std::collections::HashSet::new(), Vec::new());
    for event in every("x", 8).into_iter().chain(others()) {
        kinds.insert(std::mem::discriminant(&event));
        let object = serde_json::from_str(&json::render(&event, at("14:02:12"))).unwrap();
        assert_eq!(schema::misfit(&object), None);
        told.push(object["event"].as_str().unwrap().to_owned());
    }
    // A variant stands alone at the indentation of the enum.
    let source = include_str!("../mod.rs")
        .split_once("pub enum Event {\n")
        .unwrap()
        .1;
    let source = source.split_once("\n}\n").unwrap().0.lines();
    let variants = source
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    assert_eq!(kinds.len(), variants.count(), "an event is in no test");
    told.sort();
    told.dedup();
    let readme: Vec<&str> = schema::SCHEMA.events.keys().map(String::as_str).collect();
    assert_eq!(told, readme);
}

#[test]
fn readme_tells_of_every_class_what_it_means_and_its_exit_code() {
    let told = schema::SCHEMA.classes.clone();
    let known = Class::ALL.map(|class| (class.word().to_owned(), class.exit_code().to_string()));
    assert_eq!(told, std::collections::BTreeMap::from(known));
}

#[test]
fn what_is_not_known_is_left_out_of_json() {
    assert_eq!(
        json(&Event::Slots {
            routine: hello(),
            used: 0,
            cap: 10,
            next: None
        }),
        r#""event":"slots","routine":"hello","slots":0,"cap":10"#
    );
    assert_eq!(
        json(&Event::Slots {
            routine: hello(),
            used: 1,
            cap: 10,
            next: Some((Revision::new("5"), None))
        }),
        r#""event":"slots","routine":"hello","slots":1,"cap":10,"next":{"revision":"5"}"#
    );
    assert_eq!(
        json(&Event::Warning {
            routine: None,
            problem: busy()
        }),
        r#""event":"warning","problem":{"what":"the service is busy","help":"nothing to do, the edit is kept","class":"service"}"#
    );
    assert_eq!(
        json(&rotated(None)),
        r#""event":"rotated","routine":"hello","revision":"1789600000000000961","reason":"kept in the vault (the oldest of 10)""#
    );
    assert_eq!(
        json(&Event::Planned {
            routine: hello(),
            action: "create",
            detail: String::new(),
            saves: None
        }),
        r#""event":"planned","routine":"hello","action":"create","detail":"""#
    );
}

#[test]
fn the_routine_of_an_event_is_the_one_its_json_names() {
    for event in every("x", 8) {
        let named = json(&event).contains(r#""routine":"hello""#);
        assert_eq!(event.routine().is_some(), named, "{event:?}");
    }
}

#[test]
fn json_keeps_what_a_terminal_must_not_see() {
    let odd = "\u{1b}[2J\u{9b}\u{202e}\u{e0041}\n";
    let event = Event::Planned {
        routine: hello(),
        action: "upload",
        detail: odd.into(),
        saves: None,
    };
    let line = json::render(&event, at("14:02:12"));
    assert!(
        line.contains(r#""detail":"\u001b[2J\u009b\u202e\udb40\udc41\n""#),
        "{line}"
    );
    let back: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(back["detail"], odd);
}

proptest! {
    #[test]
    fn every_event_is_one_visible_line_of_json(foreign in nasty(), n in 0_u32..200) {
        for event in every(&foreign, n) {
            let line = json::render(&event, at("14:02:12"));
            let body = line.strip_suffix('\n').unwrap();
            prop_assert!(!body.chars().any(words::is_hidden), "{body:?}");
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            prop_assert!(value["event"].is_string());
        }
    }
}
