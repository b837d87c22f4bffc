//! Each event as people read it, letter for letter.

use std::collections::BTreeSet;

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::*;

/// On a terminal without colour.
fn shown(event: &Event) -> String {
    drawn(event, "14:02:12", TERMINAL)
}

/// In a file or a pipe.
fn logged(event: &Event) -> String {
    drawn(event, "14:02:12", Look::PLAIN)
}

#[test]
fn the_screen_of_a_session_is_as_documented() {
    let screen = [
        (
            "14:00:00",
            Event::Started {
                version: "0.1.0",
                endpoint: "dcdn.aliyuncs.com".into(),
                key: "abcd...7Qx2".into(),
                source: "environment".into(),
            },
        ),
        (
            "14:00:00",
            Event::Watching {
                routines: 2,
                files: 14,
                directories: 3,
                backend: "inotify",
            },
        ),
        (
            "14:00:00",
            Event::Slots {
                routine: hello(),
                used: 8,
                cap: 10,
                next: Some((revision("0961"), Some(days(6)))),
            },
        ),
        (
            "14:00:00",
            Event::Slots {
                routine: RoutineName::new("api-gw").unwrap(),
                used: 4,
                cap: 10,
                next: None,
            },
        ),
        (
            "14:00:00",
            Event::Budget {
                requests_per_second: 80,
                burst: 10,
                in_flight: 8,
            },
        ),
        (
            "14:00:00",
            Event::Ready {
                after: Duration::from_millis(42),
            },
        ),
        ("14:02:12", uploaded()),
        ("14:02:12", rotated(Some(days(6)))),
        (
            "14:03:40",
            Event::Unchanged {
                routine: hello(),
                revision: revision("7712"),
                saves: 3,
            },
        ),
        (
            "14:05:02",
            Event::Reused {
                routine: hello(),
                revision: revision("4147"),
                sha256: Digest::of(b"abc"),
                saves: 1,
            },
        ),
        (
            "14:06:30",
            Event::Throttled {
                routine: hello(),
                operation: "UploadRoutineCode",
                after: Duration::from_millis(1_200),
            },
        ),
        ("14:08:02", failed(syntax())),
        (
            "14:08:30",
            Event::Stopping {
                running: 2,
                drain: secs(10),
            },
        ),
        ("14:08:31", Event::Done(totals())),
    ];
    let lines: String = screen
        .iter()
        .map(|(clock, event)| drawn(event, clock, TERMINAL))
        .collect();
    let expected = "\
er-dev 0.1.0  dcdn.aliyuncs.com  key abcd...7Qx2 (environment)
    Watching  2 routines, 14 files in 3 directories (inotify)
       Slots  hello 8/10  next to rotate ...0961 (6d)
       Slots  api-gw 4/10
      Budget  80/s + burst 10, 8 in flight: at most 98 in any second (limit 100)
       Ready  in 0.04s

14:02:12    Uploaded  hello  ...7712  1.9 kB  ba7816bf  5 saves  2 calls  0.21s            9/10
14:02:12     Rotated  hello  ...0961  6 days old, kept in the vault (the oldest of 10)
14:03:40   Unchanged  hello  same bytes as ...7712, no version used (x3)
14:05:02      Reused  hello  ...4147  these bytes are already there, no version used
14:06:30   Throttled  UploadRoutineCode  hello, next try in 1.2s
14:08:02       Error  hello  examples/hello.js:41:25 unexpected token `}`
                 |
              41 |   if (hit) return hit; }}
                 |                         ^ not uploaded, no version used
                 = help: fix it and save again; watching goes on            [source]
14:08:30    Stopping  waiting up to 10s for 2 running uploads

        Done  97 saves -> 42 edits: 9 uploaded, 1 reused, 30 unchanged, 2 superseded, 0 failed
              3 rotated, 61 API calls, peak 14/s, up 2h 11m
";
    assert_eq!(lines, expected);
}

#[test]
fn an_upload_that_no_save_caused_counts_none() {
    let Event::Uploaded {
        routine,
        revision,
        sha256,
        bytes,
        took,
        cap,
        ..
    } = uploaded()
    else {
        unreachable!("uploaded() is an upload");
    };
    let event = Event::Uploaded {
        routine,
        revision,
        sha256,
        bytes,
        saves: 0,
        calls: 1,
        took,
        slots: 10,
        cap,
    };
    assert_eq!(
        shown(&event),
        "14:02:12    Uploaded  hello  ...7712  1.9 kB  ba7816bf  1 call  0.21s                     10/10\n"
    );
}

#[test]
fn what_does_not_fit_before_the_slots_pushes_them_on() {
    let event = Event::Uploaded {
        routine: RoutineName::new(&"x".repeat(60)).unwrap(),
        revision: revision("7712"),
        sha256: Digest::of(b"abc"),
        bytes: 4_194_304,
        saves: 1,
        calls: 2,
        took: secs(2),
        slots: 9,
        cap: 10,
    };
    assert!(shown(&event).ends_with("  ...7712  4.2 MB  ba7816bf  1 save  2 calls  2s  9/10\n"));
}

#[test]
fn events_beyond_the_usual_session_have_their_line() {
    let routine = hello();
    let table = [
        (
            Event::Superseded {
                routine: hello(),
                saves: 2,
            },
            "Superseded  hello  a newer edit takes its place (x2)",
        ),
        (
            Event::Abandoned {
                routine: hello(),
                saves: 1,
            },
            "Abandoned  hello  not uploaded before the stop; the next start looks again",
        ),
        (
            rotated(Some(days(1))),
            "Rotated  hello  ...0961  1 day old, kept in the vault (the oldest of 10)",
        ),
        (
            rotated(None),
            "Rotated  hello  ...0961  kept in the vault (the oldest of 10)",
        ),
        (
            Event::Created { routine: hello() },
            "Created  hello  the routine was missing and was made",
        ),
        (
            Event::Planned {
                routine: hello(),
                action: "rotate",
                detail: "...0961".into(),
                saves: None,
            },
            "Planned  hello  would rotate ...0961",
        ),
        (
            Event::Planned {
                routine: hello(),
                action: "upload",
                detail: "1.9 kB".into(),
                saves: Some(4),
            },
            "Planned  hello  would upload 1.9 kB (x4)",
        ),
        (
            Event::Stopping {
                running: 0,
                drain: secs(10),
            },
            "Stopping  nothing is running",
        ),
        (
            Event::Stopping {
                running: 1,
                drain: secs(90),
            },
            "Stopping  waiting up to 1m 30s for 1 running upload",
        ),
        (
            Event::Unchanged {
                routine,
                revision: Revision::new("unstable"),
                saves: 0,
            },
            "Unchanged  hello  same bytes as on staging",
        ),
    ];
    for (event, line) in table {
        let verb = line.find(' ').unwrap();
        let expected = format!("14:02:12{}{line}\n", " ".repeat(12 - verb));
        assert_eq!(shown(&event), expected);
        assert_eq!(logged(&event), expected);
    }
}

#[test]
fn a_problem_without_a_place_has_its_help_below() {
    let retrying = Event::Retrying {
        routine: hello(),
        after: Duration::from_millis(1_200),
        problem: busy(),
    };
    assert_eq!(
        shown(&retrying),
        "14:02:12    Retrying  hello  the service is busy, next try in 1.2s [service]\n                 = help: nothing to do, the edit is kept\n"
    );
    let named = Problem {
        request_id: Some("1E5D-\u{7}".into()),
        help: String::new(),
        ..busy()
    };
    let warning = Event::Warning {
        routine: None,
        problem: named,
    };
    assert_eq!(
        shown(&warning),
        "14:02:12     Warning  the service is busy [service] (request 1E5D-\\u{7})\n"
    );
}

#[test]
fn a_place_without_help_keeps_its_class() {
    let event = Event::Warning {
        routine: Some(hello()),
        problem: Problem {
            help: String::new(),
            ..syntax()
        },
    };
    assert_eq!(
        shown(&event),
        "14:02:12     Warning  hello  examples/hello.js:41:25 unexpected token `}` [source]
                 |
              41 |   if (hit) return hit; }}
                 |                         ^\n"
    );
}

/// Code with two faults that are told and three that are only counted.
fn several() -> Problem {
    let mut problem = syntax();
    let frame = problem.frame.as_mut().unwrap();
    let also = Frame {
        line: 52,
        column: 5,
        width: 3,
        text: Some("let abc;".into()),
        ..*frame.clone()
    };
    frame.also.push(Also {
        what: "`abc` is there already".into(),
        frame: also,
    });
    frame.unshown = 3;
    problem
}

#[test]
fn each_further_fault_is_shown_with_its_line_and_the_rest_is_counted() {
    assert_eq!(
        shown(&failed(several())),
        "14:02:12       Error  hello  examples/hello.js:41:25 unexpected token `}`
                 |
              41 |   if (hit) return hit; }}
                 |                         ^ not uploaded, no version used
                 = also: examples/hello.js:52:5 `abc` is there already
                 |
              52 | let abc;
                 |     ^^^
                 = and 3 more
                 = help: fix it and save again; watching goes on            [source]\n"
    );
    assert_eq!(
        logged(&failed(several())),
        "14:02:12       Error  hello  examples/hello.js:41:25 unexpected token `}` [source]  not uploaded, no version used  = also: examples/hello.js:52:5 `abc` is there already  = and 3 more  = help: fix it and save again; watching goes on\n"
    );
}

#[test]
fn a_line_that_must_not_be_shown_is_told_by_its_place_alone() {
    let mut problem = syntax();
    problem.frame.as_mut().unwrap().text = None;
    assert_eq!(
        shown(&failed(problem)),
        "14:02:12       Error  hello  examples/hello.js:41:25 unexpected token `}` [source]  not uploaded, no version used
                 = help: fix it and save again; watching goes on\n"
    );
}

#[test]
fn off_a_terminal_a_problem_is_one_line_with_the_same_words() {
    assert_eq!(
        logged(&failed(syntax())),
        "14:02:12       Error  hello  examples/hello.js:41:25 unexpected token `}` [source]  not uploaded, no version used  = help: fix it and save again; watching goes on\n"
    );
    assert_eq!(
        logged(&Event::Done(totals())),
        "        Done  97 saves -> 42 edits: 9 uploaded, 1 reused, 30 unchanged, 2 superseded, 0 failed  3 rotated, 61 API calls, peak 14/s, up 2h 11m\n"
    );
}

fn broken(output: &[&str], cut: u64) -> Event {
    Event::Broken(Box::new(Broken {
        command: "npm run build".into(),
        routines: vec![hello()],
        exit: Some(1),
        took: Duration::from_millis(210),
        output: output.iter().map(|line| (*line).to_owned()).collect(),
        cut,
        problem: Problem {
            what: "its build failed: `npm run build` ended with exit code 1".into(),
            help: "fix it and save again".into(),
            class: Class::Build,
            operation: None,
            request_id: None,
            frame: None,
        },
    }))
}

#[test]
fn what_a_failed_build_printed_is_shown_in_full_below_it() {
    let event = broken(&["src/a.ts:3:5: no `x`", "", "  \u{1b}[31m1 error"], 2);
    assert_eq!(
        shown(&event),
        "14:02:12      Broken  hello  its build failed: `npm run build` ended with exit code 1 [build]
                 = help: fix it and save again
                 | (2 lines before this)
                 | src/a.ts:3:5: no `x`
                 |
                 |   \\u{1b}[31m1 error\n"
    );
    let long = shown(&broken(&[&"x".repeat(400)], 0));
    assert_eq!(long.matches('x').count(), 400 + 2, "{long}");
    assert!(long.lines().all(|line| line.len() < 200), "{long}");
    // In a log its lines stand below it as well.
    assert_eq!(logged(&event).lines().count(), 5);
}

#[test]
fn a_build_tells_why_it_runs_and_for_whom() {
    let building = |changed: &[&str], early| Event::Building {
        command: "npm run build".into(),
        routines: vec![hello(), RoutineName::new("api").unwrap()],
        changed: changed.iter().map(|path| (*path).to_owned()).collect(),
        early,
    };
    let table = [
        (building(&[], false), "for hello, api"),
        (
            building(&["src/a.ts"], true),
            "for hello, api: src/a.ts changed, a run was ended for it",
        ),
        (
            building(&["a", "b", "c", "d", "e"], false),
            "for hello, api: a, b, c and 2 more changed",
        ),
    ];
    for (event, expected) in table {
        let line = format!("14:02:12    Building  npm run build  {expected}\n");
        assert_eq!(shown(&event), line);
    }
}

#[test]
fn a_tab_and_wide_characters_do_not_move_the_caret_away() {
    let mut problem = syntax();
    let frame = problem.frame.as_mut().unwrap();
    frame.text = Some("\tlog('日本') }".into());
    (frame.line, frame.column, frame.width) = (7, 12, 1);
    let block = shown(&failed(problem));
    let lines: Vec<&str> = block.lines().collect();
    assert_eq!(lines[2], "               7 |     log('日本') }");
    assert_eq!(
        lines[3],
        "                 |                 ^ not uploaded, no version used"
    );
}

#[test]
fn the_shown_ends_of_edits_add_up_to_the_edits() {
    let all = Totals {
        failed: 4,
        abandoned: 5,
        planned: 6,
        edits: 57,
        ..totals()
    };
    for totals in [
        totals(),
        all,
        Totals {
            saves: 1,
            edits: 1,
            failed: 1,
            ..Totals::default()
        },
    ] {
        let text = logged(&Event::Done(totals));
        let (_, ends) = text.split_once(": ").unwrap();
        let (ends, _) = ends.split_once("  ").unwrap();
        let ends: Vec<u64> = ends
            .split(", ")
            .map(|end| end.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(ends.iter().sum::<u64>(), totals.edits, "{text}");
    }
    assert!(logged(&Event::Done(all)).contains("4 failed, 5 abandoned, 6 planned  3 rotated"));
}

#[test]
fn colour_repeats_the_verb_and_dims_the_details() {
    let look = Look {
        colour: true,
        terminal: true,
        columns: None,
    };
    let colour = |event: &Event| drawn(event, "14:02:12", look).replace('\u{1b}', "ESC");
    assert_eq!(
        colour(&Event::Created { routine: hello() }),
        "ESC[2m14:02:12ESC[0m     ESC[1mESC[32mCreatedESC[0m  hello  ESC[2mthe routine was missing and was madeESC[0m\n"
    );
    assert_eq!(
        colour(&Event::Retrying {
            routine: hello(),
            after: secs(2),
            problem: busy()
        }),
        "ESC[2m14:02:12ESC[0m    ESC[1mESC[33mRetryingESC[0m  hello  the service is busy, next try in 2sESC[2m [service]ESC[0m\n                 ESC[1mESC[36m= help: ESC[0mnothing to do, the edit is kept\n"
    );
    assert!(
        colour(&failed(syntax())).contains("ESC[1mESC[31m^ not uploaded, no version usedESC[0m\n")
    );
}

#[test]
fn without_colours_the_same_words_stand_in_the_same_places() {
    for event in every("some text", 7) {
        for terminal in [false, true] {
            let coloured = drawn(
                &event,
                "14:02:12",
                Look {
                    colour: true,
                    terminal,
                    columns: None,
                },
            );
            let stripped = anstream::adapter::strip_str(&coloured).to_string();
            assert_eq!(
                stripped,
                drawn(
                    &event,
                    "14:02:12",
                    Look {
                        colour: false,
                        terminal,
                        columns: None,
                    }
                )
            );
            assert_ne!(stripped, coloured);
        }
    }
}

#[test]
fn verbs_fit_their_column_and_differ() {
    let verbs: BTreeSet<String> = every("x", 1)
        .iter()
        .filter(|event| !matches!(event, Event::Started { .. }))
        .map(|event| {
            let line = shown(event)
                .trim_start_matches('\n')
                .replacen("14:02:12", "", 1);
            let verb = line[..12].trim_start().to_owned();
            assert_eq!(&line[12..14], "  ", "{line}");
            verb
        })
        .collect();
    assert_eq!(verbs.len(), 25);
}

#[test]
fn the_time_of_day_is_that_of_the_zone_it_is_told_in() {
    let zone = TimeZone::fixed(jiff::tz::offset(8));
    let now = at("22:02:12").to_zoned(zone);
    let line = text::render(&Event::Created { routine: hello() }, 1, &now, Look::PLAIN);
    assert!(line.starts_with("06:02:12     Created"), "{line}");
}

proptest! {
    #[test]
    fn no_event_without_colour_holds_a_control_character_but_line_ends(foreign in nasty(), n in 0_u32..200) {
        for event in every(&foreign, n) {
            for look in [Look::PLAIN, TERMINAL] {
                let lines = drawn(&event, "14:02:12", look);
                prop_assert!(lines.ends_with('\n'));
                prop_assert!(!lines.replace('\n', "").chars().any(words::is_hidden), "{lines:?}");
                prop_assert!(lines.len() < 4_096);
            }
            prop_assert_eq!(drawn(&event, "14:02:12", Look::PLAIN).matches('\n').count(), 1);
        }
    }
}

#[test]
fn what_went_to_staging_is_told_by_its_place_and_not_by_a_number() {
    let mut event = uploaded();
    if let Event::Uploaded { revision, .. } = &mut event {
        *revision = Revision::staging();
    }
    let line = logged(&event);
    assert!(
        line.starts_with(
            "14:02:12    Uploaded  hello  to staging  1.9 kB  ba7816bf  5 saves  2 calls  0.21s"
        ),
        "{line}"
    );
    let unchanged = Event::Unchanged {
        routine: hello(),
        revision: Revision::staging(),
        saves: 3,
    };
    let expected = "14:02:12   Unchanged  hello  same bytes as on staging (x3)\n";
    assert_eq!(logged(&unchanged), expected);
    let committed = Event::Committed {
        routine: hello(),
        revision: revision("7712"),
        sha256: Digest::of(b"abc"),
        calls: 4,
        slots: 5,
        cap: 10,
    };
    let words = "...7712  ba7816bf  4 calls  `er-dev publish hello 1789600000000007712 --env ENV` puts it live";
    assert_eq!(
        logged(&committed),
        format!("14:02:12   Committed  hello  {words}  5/10\n")
    );
    let staging = |addresses: &[[u8; 4]]| {
        logged(&Event::Staging {
            routine: hello(),
            addresses: addresses.iter().map(|it| (*it).into()).collect(),
        })
    };
    let words = "try it with `curl --resolve HOST:443:203.0.113.7 https://HOST/`, HOST being a domain that it serves";
    assert_eq!(
        staging(&[[203, 0, 113, 7]]),
        format!("14:02:12     Staging  hello  {words}\n")
    );
    let two = staging(&[[203, 0, 113, 7], [203, 0, 113, 8]]);
    assert_eq!(
        two,
        format!("14:02:12     Staging  hello  {words}; also 203.0.113.8\n")
    );
}
