//! What a monitoring system reads at `/metrics`: Prometheus' text format, version 0.0.4. Pure.
//!
//! Every value of a label comes out of a list that does not grow: routines of the configuration, operations of the
//! service, classes of problems, ways in which an edit ends. Every family is always there, so that a rule over it never
//! waits for the first sample.

use std::fmt::Display;

use jiff::Timestamp;

use super::status::Budget;
use crate::report::Event;
use crate::report::class::Class;
use crate::report::standing::{Overview, State, Unusual};
use crate::traffic::{BOUNDS, Histogram, Operation, Traffic};

/// The type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How an edit can end, in the words of the totals.
const ENDS: [&str; 7] = [
    "uploaded",
    "reused",
    "unchanged",
    "superseded",
    "failed",
    "abandoned",
    "planned",
];

/// What was counted of the events of this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    saves: u64,
    ends: [u64; ENDS.len()],
    problems: [u64; Class::ALL.len()],
    rotated: u64,
    bytes: u64,
    took: Histogram,
}

/// What is known besides that.
pub(super) struct Facts<'a> {
    pub(super) version: &'a str,
    pub(super) begun: Timestamp,
    pub(super) budget: Budget,
    pub(super) traffic: &'a Traffic,
    /// Requests in the last whole second.
    pub(super) last_second: u32,
    pub(super) overview: &'a Overview,
}

impl Counts {
    /// Counts an event.
    pub(super) fn see(&mut self, event: &Event) {
        let end = match event {
            Event::Uploaded {
                saves, bytes, took, ..
            } => {
                self.bytes += *bytes as u64;
                self.took.add(*took);
                Some(("uploaded", *saves))
            }
            Event::Reused { saves, .. } => Some(("reused", *saves)),
            Event::Unchanged { saves, .. } => Some(("unchanged", *saves)),
            Event::Superseded { saves, .. } => Some(("superseded", *saves)),
            Event::Failed { saves, .. } => Some(("failed", *saves)),
            Event::Abandoned { saves, .. } => Some(("abandoned", *saves)),
            Event::Planned { saves, .. } => saves.map(|saves| ("planned", saves)),
            Event::Rotated { .. } => {
                self.rotated += 1;
                None
            }
            _ => None,
        };
        if let Some((end, saves)) = end {
            self.saves += u64::from(saves);
            count(&mut self.ends, ENDS.iter().position(|other| *other == end));
        }
        let class = match event {
            Event::Throttled { .. } => Some(Class::Throttled),
            Event::Failed { problem, .. }
            | Event::Retrying { problem, .. }
            | Event::Offline { problem, .. }
            | Event::Halted { problem, .. }
            | Event::Degraded { problem, .. }
            | Event::Critical { problem, .. }
            | Event::Warning { problem, .. } => Some(problem.class),
            _ => None,
        };
        let of = |class: Class| {
            Class::ALL
                .iter()
                .position(|other| other.word() == class.word())
        };
        count(&mut self.problems, class.and_then(of));
    }

    /// The whole text.
    pub(super) fn render(&self, facts: &Facts<'_>) -> String {
        let mut text = Text::default();
        text.family(
            "er_dev_build_info",
            "gauge",
            "Which er-dev this is; always 1.",
        );
        text.sample("er_dev_build_info", &[("version", facts.version)], 1);
        text.family(
            "process_start_time_seconds",
            "gauge",
            "When the process started, in seconds since 1970.",
        );
        text.sample("process_start_time_seconds", &[], seconds_of(facts.begun));
        self.edits(&mut text);
        requests(&mut text, facts);
        standing(&mut text, facts.overview);
        text.0
    }

    fn edits(&self, text: &mut Text) {
        text.counter(
            "er_dev_saves_total",
            "Changes on disk of edits that have ended.",
            self.saves,
        );
        text.family(
            "er_dev_edits_total",
            "counter",
            "Edits that have ended, by how.",
        );
        for (end, count) in ENDS.iter().zip(self.ends) {
            text.sample("er_dev_edits_total", &[("end", end)], count);
        }
        text.family(
            "er_dev_upload_duration_seconds",
            "histogram",
            "Time from an edit that has come to rest to its proven upload, waiting and repeated tries included.",
        );
        text.histogram("er_dev_upload_duration_seconds", None, &self.took);
        text.counter(
            "er_dev_uploaded_bytes_total",
            "Code that was uploaded.",
            self.bytes,
        );
        text.counter(
            "er_dev_rotated_total",
            "Versions that were deleted to make room.",
            self.rotated,
        );
        text.family(
            "er_dev_errors_total",
            "counter",
            "Edits and tries that did not succeed, and whatever else was told that is wrong, by class.",
        );
        for (class, count) in Class::ALL.iter().zip(self.problems) {
            text.sample("er_dev_errors_total", &[("class", class.word())], count);
        }
    }
}

fn requests(text: &mut Text, facts: &Facts<'_>) {
    let name = "er_dev_api_requests_total";
    text.family(
        name,
        "counter",
        "Requests to the service, by operation and outcome.",
    );
    for (
        operation,
        Operation {
            done,
            refused,
            unanswered,
            ..
        },
    ) in facts.traffic.operations()
    {
        for (outcome, count) in [
            ("done", done),
            ("refused", refused),
            ("unanswered", unanswered),
        ] {
            text.sample(
                name,
                &[("operation", operation), ("outcome", outcome)],
                count,
            );
        }
    }
    let name = "er_dev_api_request_duration_seconds";
    text.family(
        name,
        "histogram",
        "Time from sending a request to the end of its answer.",
    );
    for (operation, of) in facts.traffic.operations() {
        text.histogram(name, Some(("operation", operation)), &of.took);
    }
    let budget = facts.budget;
    text.gauge(
        "er_dev_api_requests_per_second",
        "API requests sent in the last whole second.",
        facts.last_second,
    );
    text.gauge(
        "er_dev_api_requests_per_second_peak",
        "The most API requests within one second so far.",
        budget.peak,
    );
    text.gauge(
        "er_dev_api_limit_requests_per_second",
        "API requests a second that are allowed at present; lower than configured while the service throttles.",
        budget.requests_per_second,
    );
    text.gauge(
        "er_dev_api_configured_requests_per_second",
        "API requests a second that are configured.",
        budget.configured,
    );
}

fn standing(text: &mut Text, overview: &Overview) {
    text.family(
        "er_dev_queue_edits",
        "gauge",
        "Edits that wait, and uploads that run.",
    );
    for (state, count) in [("waiting", overview.waiting), ("running", overview.running)] {
        text.sample("er_dev_queue_edits", &[("state", state)], count);
    }
    text.family(
        "er_dev_condition",
        "gauge",
        "Whether something is not as usual for all routines.",
    );
    for unusual in [
        Unusual::Offline,
        Unusual::Auth,
        Unusual::Paused,
        Unusual::Degraded,
    ] {
        let holds = overview.conditions.iter().any(|it| it.condition == unusual);
        text.sample(
            "er_dev_condition",
            &[("condition", unusual.word())],
            u8::from(holds),
        );
    }
    let routines = || {
        overview
            .routines
            .iter()
            .map(|it| (it, [("routine", it.routine.as_str())]))
    };
    text.family(
        "er_dev_slots_used",
        "gauge",
        "Versions that a routine holds, by the last listing.",
    );
    for (routine, label) in routines() {
        text.samples("er_dev_slots_used", &label, routine.slots);
    }
    text.family(
        "er_dev_slots_cap",
        "gauge",
        "Versions that a routine may hold.",
    );
    for (routine, label) in routines() {
        text.samples("er_dev_slots_cap", &label, routine.cap);
    }
    text.family(
        "er_dev_pending_edits",
        "gauge",
        "Edits of a routine that wait or run.",
    );
    for (routine, label) in routines() {
        text.sample("er_dev_pending_edits", &label, routine.pending);
    }
    text.family(
        "er_dev_routine_state",
        "gauge",
        "The state of a routine: 1 for the one it is in.",
    );
    for (routine, [label]) in routines() {
        for state in State::ALL {
            let is = u8::from(state == routine.state);
            text.sample(
                "er_dev_routine_state",
                &[label, ("state", state.word())],
                is,
            );
        }
    }
    text.family(
        "er_dev_last_success_timestamp_seconds",
        "gauge",
        "When the last edit of a routine ended on the service, in seconds since 1970.",
    );
    for (routine, label) in routines() {
        let at = routine.last.as_ref().map(|last| seconds_of(last.at));
        text.samples("er_dev_last_success_timestamp_seconds", &label, at);
    }
}

/// The text as far as it is written.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0
            .push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.0
                .push_str(&format!("{before}{label}=\"{}\"", escaped(value)));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.0.push_str(&format!("{end} {value}\n"));
    }

    /// A sample where the value is known.
    fn samples(&mut self, name: &str, labels: &[(&str, &str)], value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample(name, labels, value);
        }
    }

    fn histogram(&mut self, name: &str, label: Option<(&str, &str)>, of: &Histogram) {
        let bucket = format!("{name}_bucket");
        let labels: Vec<_> = label.into_iter().collect();
        let ends = BOUNDS
            .iter()
            .map(|bound| format!("{}", *bound as f64 / 1e3));
        let mut all = 0;
        for (end, count) in ends.chain(["+Inf".to_owned()]).zip(of.counts) {
            all += count;
            self.sample(&bucket, &[&labels[..], &[("le", &end)]].concat(), all);
        }
        self.sample(&format!("{name}_sum"), &labels, of.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &labels, all);
    }
}

fn count(counts: &mut [u64], at: Option<usize>) {
    if let Some(count) = at.and_then(|at| counts.get_mut(at)) {
        *count += 1;
    }
}

fn seconds_of(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use crate::report::standing::{Queued, Stage, Standing};
    use crate::report::{Problem, Safety};
    use crate::routine::{Digest, Revision, RoutineName};
    use crate::traffic::Outcome;

    use super::*;

    fn hello() -> RoutineName {
        RoutineName::new("hello").unwrap()
    }

    fn problem(class: Class) -> Problem {
        Problem {
            what: "x\ny".into(),
            help: String::new(),
            class,
            operation: None,
            request_id: None,
            frame: None,
        }
    }

    /// What is said after these events.
    fn metrics(events: &[Event], traffic: &Traffic) -> String {
        let (mut counts, mut standing) = (Counts::default(), Standing::default());
        let at = Timestamp::from_millisecond(1_790_000_000_500).unwrap();
        for event in events {
            counts.see(event);
            standing.see(event, at);
        }
        let queued = Queued {
            edits: 0,
            stage: Stage::Idle,
        };
        let overview = Overview {
            waiting: 3,
            running: 2,
            ..standing.overview([(&hello(), queued)])
        };
        counts.render(&Facts {
            version: "0.1.0",
            begun: at,
            budget: Budget {
                requests_per_second: 40,
                configured: 80,
                calls: 9,
                peak: 7,
            },
            traffic,
            last_second: 4,
            overview: &overview,
        })
    }

    fn uploaded(millis: u64) -> Event {
        Event::Uploaded {
            routine: hello(),
            revision: Revision::new("1"),
            sha256: Digest::of(b"abc"),
            bytes: 1_000,
            saves: 2,
            calls: 1,
            took: Duration::from_millis(millis),
            slots: 9,
            cap: 10,
        }
    }

    #[track_caller]
    fn assert_has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|other| other == *line), "{line}\n{text}");
        }
    }

    #[test]
    fn events_are_counted_by_their_ends_and_classes() {
        let refused = |class| Event::Failed {
            routine: hello(),
            saves: 1,
            problem: problem(class),
        };
        let step = Event::Planned {
            routine: hello(),
            action: "rotate",
            detail: String::new(),
            saves: None,
        };
        let degraded = Event::Degraded {
            safety: Safety::State,
            problem: problem(Class::State),
        };
        let events = [
            uploaded(7),
            uploaded(300),
            refused(Class::Source),
            refused(Class::Absent),
            step,
            degraded,
        ];
        let text = metrics(&events, &Traffic::default());
        assert_has(
            &text,
            &[
                "er_dev_saves_total 6",
                "er_dev_edits_total{end=\"uploaded\"} 2",
                "er_dev_edits_total{end=\"failed\"} 2",
                "er_dev_edits_total{end=\"planned\"} 0",
                "er_dev_errors_total{class=\"source\"} 2",
                "er_dev_errors_total{class=\"state\"} 1",
                "er_dev_errors_total{class=\"network\"} 0",
                "er_dev_uploaded_bytes_total 2000",
                "er_dev_upload_duration_seconds_bucket{le=\"0.005\"} 0",
                "er_dev_upload_duration_seconds_bucket{le=\"0.01\"} 1",
                "er_dev_upload_duration_seconds_bucket{le=\"0.5\"} 2",
                "er_dev_upload_duration_seconds_bucket{le=\"+Inf\"} 2",
                "er_dev_upload_duration_seconds_sum 0.307",
                "er_dev_upload_duration_seconds_count 2",
                "er_dev_condition{condition=\"degraded\"} 1",
                "er_dev_condition{condition=\"offline\"} 0",
                "er_dev_slots_used{routine=\"hello\"} 9",
                "er_dev_queue_edits{state=\"waiting\"} 3",
                "er_dev_queue_edits{state=\"running\"} 2",
                "er_dev_last_success_timestamp_seconds{routine=\"hello\"} 1790000000.5",
                "process_start_time_seconds 1790000000.5",
            ],
        );
    }

    #[test]
    fn requests_are_counted_by_operation_and_what_is_not_known_is_left_out() {
        let mut traffic = Traffic::default();
        traffic.ended("DescribeRoutine", Outcome::Done, Duration::from_millis(5));
        traffic.ended("DescribeRoutine", Outcome::Refused, Duration::from_secs(70));
        let text = metrics(&[], &traffic);
        let bucket = "er_dev_api_request_duration_seconds_bucket{operation=\"DescribeRoutine\",le=";
        assert_has(
            &text,
            &[
                "er_dev_api_requests_total{operation=\"DescribeRoutine\",outcome=\"done\"} 1",
                "er_dev_api_requests_total{operation=\"DescribeRoutine\",outcome=\"refused\"} 1",
                "er_dev_api_requests_total{operation=\"DescribeRoutine\",outcome=\"unanswered\"} 0",
                &format!("{bucket}\"0.005\"}} 1"),
                &format!("{bucket}\"60\"}} 1"),
                &format!("{bucket}\"+Inf\"}} 2"),
                "er_dev_api_request_duration_seconds_sum{operation=\"DescribeRoutine\"} 70.005",
                "er_dev_api_requests_per_second 4",
                "er_dev_api_limit_requests_per_second 40",
            ],
        );
        assert!(!text.contains("er_dev_slots_used{"), "{text}");
    }

    /// The format wants the lines of a family together, behind its help and its type.
    #[test]
    fn every_sample_stands_below_the_head_of_its_family_and_no_family_comes_twice() {
        let mut traffic = Traffic::default();
        traffic.ended("A", Outcome::Done, Duration::ZERO);
        traffic.ended("B", Outcome::Done, Duration::ZERO);
        let text = metrics(&[uploaded(7)], &traffic);
        let (mut family, mut families, mut samples) = ("", BTreeSet::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# HELP ") {
                let (name, help) = head.split_once(' ').unwrap();
                assert!(families.insert(name) && help.ends_with('.'), "{line}");
                family = name;
            } else if let Some(head) = line.strip_prefix("# TYPE ") {
                let (name, kind) = head.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(samples.insert(sample), "{line}");
                let name = sample.split('{').next().unwrap();
                let end = name
                    .strip_prefix(family)
                    .unwrap_or_else(|| panic!("{line}"));
                assert!(["", "_bucket", "_sum", "_count"].contains(&end), "{line}");
            }
        }
        assert!(families.len() > 15);
    }

    #[test]
    fn a_label_cannot_end_its_line() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
