//! How a running `watch` stands: the answer at the control socket, and what people see of it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::report::Look;
use crate::report::standing::{Condition, Reason, Routine};
use crate::report::table::{Align, Table};
use crate::report::words::{age, escape, plural, span};
use crate::routine::Digest;

/// The answer. Times are RFC 3339 in UTC, revisions are strings, and what is not known is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this form.
    pub v: u8,
    /// The process.
    pub pid: u32,
    /// The version of er-dev.
    pub version: String,
    /// Which er-dev it is: eight hexadecimal digits.
    pub instance: String,
    /// The host of the service.
    pub endpoint: String,
    /// The configuration, canonical.
    pub config: String,
    /// Whether it only says what it would do, so that nothing ever goes up.
    #[serde(default)]
    pub dry_run: bool,
    /// How long it has been running, in milliseconds.
    pub up_ms: u64,
    /// How the budget of requests stands.
    pub budget: Budget,
    /// How often file events were lost; everything was looked at again each time.
    #[serde(default)]
    pub events_lost: u32,
    /// What is not as usual for all routines.
    pub conditions: Vec<Condition>,
    /// Each routine.
    pub routines: Vec<Routine>,
}

/// How the budget of requests stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Requests a second at present.
    pub requests_per_second: u32,
    /// Requests a second that are configured.
    pub configured: u32,
    /// Requests this process has made.
    pub calls: u64,
    /// The most of them within one second.
    pub peak: u64,
}

impl Status {
    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.conditions.is_empty() && self.routines.iter().all(|routine| routine.state.is_well())
    }

    /// The status without what changes all the time: how long it has been running, and how many requests were made.
    pub fn without_counts(&self) -> Self {
        Self {
            up_ms: 0,
            budget: Budget {
                calls: 0,
                peak: 0,
                ..self.budget
            },
            ..self.clone()
        }
    }

    /// The status as people read it, in lines. `now` is what ages are measured from.
    pub fn render(&self, now: Timestamp, look: Look) -> String {
        let mut out = format!(
            "er-dev {}  {}  pid {}  up {}\n",
            escape(&self.version),
            escape(&self.endpoint),
            self.pid,
            span(Duration::from_millis(self.up_ms)),
        );
        line(&mut out, "Config", &escape(&self.config));
        if self.dry_run {
            line(
                &mut out,
                "Dry run",
                "nothing goes up, and nothing is deleted",
            );
        }
        line(&mut out, "Budget", &self.budget.words());
        if self.events_lost > 0 {
            let times = plural(self.events_lost.into(), "time");
            let words = format!("lost {times} so far, and everything looked at again each time");
            line(&mut out, "Events", &words);
        }
        for Condition {
            condition,
            since,
            reason,
        } in &self.conditions
        {
            let word = condition.word();
            let capital = word[..1].to_uppercase() + &word[1..];
            let since = span(ago(*since, now));
            line(
                &mut out,
                &capital,
                &format!("for {since}: {}", reason.words()),
            );
            help(&mut out, reason);
        }
        out.push('\n');
        out.push_str(&self.table(now).render(look));
        for routine in &self.routines {
            if let Some(reason) = &routine.reason {
                line(&mut out, &routine.routine, &reason.words());
                help(&mut out, reason);
            }
        }
        out
    }

    fn table(&self, now: Timestamp) -> Table<7> {
        let mut table = Table::new([
            ("routine", Align::Left),
            ("state", Align::Left),
            ("pending", Align::Right),
            ("last success", Align::Left),
            ("version", Align::Left),
            ("content", Align::Left),
            ("slots", Align::Right),
        ]);
        for routine in &self.routines {
            let last = routine.last.as_ref();
            let slots = routine.slots.zip(routine.cap);
            table.row([
                routine.routine.clone(),
                routine.state.word().into(),
                routine.pending.to_string(),
                last.map_or("none yet".into(), |last| {
                    format!("{} ago", age(ago(last.at, now)))
                }),
                place(routine),
                last.and_then(|last| last.sha256.as_ref().map(Digest::short))
                    .unwrap_or_default(),
                slots.map_or("?".into(), |(used, cap)| format!("{used}/{cap}")),
            ]);
        }
        table
    }
}

impl Budget {
    fn words(&self) -> String {
        let rate = match self.requests_per_second {
            rate if rate == self.configured => format!("{rate}/s"),
            rate => format!("{rate}/s of {}/s", self.configured),
        };
        let calls = plural(self.calls, "API call");
        format!("{rate}, {calls} so far, peak {}/s", self.peak)
    }
}

/// The version that holds the last edit, or that it is on staging, or will be.
fn place(routine: &Routine) -> String {
    match &routine.last {
        Some(last) if last.revision.is_staging() => "on staging".into(),
        Some(last) => last.revision.to_string(),
        None if routine.upload.is_some() => "to staging".into(),
        None => String::new(),
    }
}

fn line(out: &mut String, head: &str, text: &str) {
    out.push_str(&format!("{head:>12}  {text}\n"));
}

fn help(out: &mut String, reason: &Reason) {
    if !reason.help.is_empty() {
        out.push_str(&format!("{:14}= help: {}\n", "", escape(&reason.help)));
    }
}

fn ago(then: Timestamp, now: Timestamp) -> Duration {
    // A clock that was set back makes an age of less than nothing.
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::report::standing::{State, Success, Unusual};
    use crate::routine::Revision;

    use super::*;

    fn reason(what: &str, help: &str, class: &str) -> Reason {
        Reason {
            what: what.into(),
            help: help.into(),
            class: class.into(),
        }
    }

    fn sample() -> Status {
        let at = "2026-10-03T14:02:12Z".parse().unwrap();
        let hello = Routine {
            routine: "hello".into(),
            state: State::Ok,
            reason: None,
            pending: 0,
            last: Some(Success {
                revision: Revision::new("1790000000000007712"),
                sha256: Some(Digest::of(b"abc")),
                at,
            }),
            upload: None,
            slots: Some(9),
            cap: Some(10),
            backend: Some("inotify".into()),
            backend_why: None,
        };
        let gateway = Routine {
            routine: "api-gw".into(),
            state: State::Backoff,
            reason: Some(reason("no \u{1b}[2J answer", "wait", "network")),
            pending: 1,
            last: None,
            upload: Some("staging".into()),
            slots: None,
            cap: None,
            backend: None,
            backend_why: None,
        };
        Status {
            v: 1,
            pid: 77,
            version: "0.1.0".into(),
            instance: "0a1b2c3d".into(),
            endpoint: "dcdn.aliyuncs.com".into(),
            config: "/home/u/er-dev.toml".into(),
            dry_run: false,
            up_ms: 7_860_000,
            budget: Budget {
                requests_per_second: 40,
                configured: 80,
                calls: 61,
                peak: 14,
            },
            events_lost: 0,
            conditions: vec![Condition {
                condition: Unusual::Degraded,
                since: at,
                reason: reason("the disk is full", "make room", "state"),
            }],
            routines: vec![hello, gateway],
        }
    }

    #[test]
    fn people_see_what_is_wrong_and_what_to_do() {
        let now = "2026-10-03T14:05:13Z".parse().unwrap();
        let shown = sample().render(now, Look::PLAIN);
        let expected = "\
er-dev 0.1.0  dcdn.aliyuncs.com  pid 77  up 2h 11m
      Config  /home/u/er-dev.toml
      Budget  40/s of 80/s, 61 API calls so far, peak 14/s
    Degraded  for 3m 1s: the disk is full [state]
              = help: make room

routine  state    pending  last success  version              content   slots
hello    ok             0  3m ago        1790000000000007712  ba7816bf   9/10
api-gw   backoff        1  none yet      to staging                         ?
      api-gw  no \\u{1b}[2J answer [network]
              = help: wait
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_dry_run_and_lost_events_are_shown_where_there_are_any() {
        let now = "2026-10-03T14:05:13Z".parse().unwrap();
        let mut status = sample();
        let before = status.render(now, Look::PLAIN);
        assert!(!before.contains("Dry run") && !before.contains("Events"));
        (status.dry_run, status.events_lost) = (true, 3);
        let shown = status.render(now, Look::PLAIN);
        for words in [
            "     Dry run  nothing goes up, and nothing is deleted\n",
            "      Events  lost 3 times so far, and everything looked at again each time\n",
        ] {
            assert!(shown.contains(words), "{shown}");
        }
    }

    #[test]
    fn the_answer_survives_its_way_and_leaves_out_what_is_not_known() {
        let text = serde_json::to_string(&sample()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), sample());
        assert!(text.starts_with(r#"{"v":1,"pid":77,"#), "{text}");
        assert!(
            text.contains(r#""revision":"1790000000000007712""#),
            "{text}"
        );
        assert!(
            text.contains(r#"{"routine":"hello","state":"ok","pending":0,"last":"#),
            "{text}"
        );
    }

    #[test]
    fn all_is_well_only_without_a_condition_and_with_every_routine_well() {
        let mut status = sample();
        assert!(!status.is_well());
        status.conditions.clear();
        assert!(!status.is_well());
        status.routines[1].state = State::Pending;
        assert!(status.is_well());
    }
}
