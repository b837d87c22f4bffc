//! `er-dev sync`: waits until every edit made before this call is on the service.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use crate::cli::{self, Common};
use crate::control::client::{self, ClientError};
use crate::control::place::Found;
use crate::control::status::Status;
use crate::report::standing::{Routine, State};
use crate::report::words::{escape, plural, seconds};
use crate::report::{Format, Report};

use super::Failure;
use super::daemons::{self, Daemon};

/// Why a sync is not over although no edit waits.
const UNSETTLED: &str = "no edit waits, so that a file may still be being written";

/// Why nothing is known of a routine of the configuration.
const UNHELD: &str = "no running watch has it, so that nothing was waited for; start one without `--routine`, or anew if the configuration has changed";

/// Why nothing is on the service by a watch that only says what it would do.
const DRY_RUN: &str = "this watch is a dry run, so that no edit is on the service by it";

/// How it went with one watch.
struct Outcome {
    found: Found,
    how: How,
}

enum How {
    /// Every edit ended, and this is how everything stands.
    Ended(Status),
    /// It did not come to that, for this reason; how everything stands, if that is known.
    Not(String, Option<Status>),
}

/// Waits for every watch that is meant.
pub(super) async fn run(
    common: &Common,
    flags: &cli::Sync,
    report: &mut Report,
) -> Result<u8, Failure> {
    let begun = Instant::now();
    let daemons = daemons::find(common, flags.timeout).await?;
    let none = daemons.none();
    let unheld = daemons.unheld(common);
    let mut waiting = JoinSet::new();
    for daemon in daemons.list {
        waiting.spawn(sync(daemon, flags.timeout));
    }
    let mut outcomes = waiting.join_all().await;
    outcomes.sort_by(|a, b| a.found.socket.cmp(&b.found.socket));
    if flags.json || common.format == Format::Json {
        let entries = outcomes.iter().map(Entry::of).collect();
        report.print(&daemons::object(entries, &unheld));
    } else {
        for outcome in &outcomes {
            report.print(&outcome.text(begun.elapsed()));
        }
        for name in &unheld {
            report.print(&format!("{:>12}  {name}: {UNHELD}\n", "Not held"));
        }
    }
    match none {
        Some(none) => Err(none),
        None => Ok(outcomes.iter().map(Outcome::code).max().unwrap_or(0)),
    }
}

async fn sync(daemon: Daemon, timeout: Duration) -> Outcome {
    let Daemon { found, status } = daemon;
    let how = match status {
        Ok(status) if status.dry_run => How::Not(DRY_RUN.into(), None),
        // It says itself why not, as at its start, and may answer later.
        Ok(_) | Err(ClientError::Refused(_)) => wait(&found, timeout).await,
        Err(error) => How::Not(error.to_string(), None),
    };
    Outcome { found, how }
}

async fn wait(found: &Found, timeout: Duration) -> How {
    match client::sync(&found.socket, timeout).await {
        Ok(status) if status.dry_run => How::Not(DRY_RUN.into(), None),
        Ok(status) => How::Ended(status),
        Err(ClientError::Late(timeout)) => {
            let late = humantime::format_duration(timeout);
            let text = format!("not every edit was on the service within {late}");
            How::Not(text, client::status(&found.socket, timeout).await.ok())
        }
        Err(error) => How::Not(error.to_string(), None),
    }
}

/// The outcome in JSON.
#[derive(Serialize)]
struct Entry<'a> {
    pid: u32,
    sync: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a Status>,
}

impl<'a> Entry<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let (error, status) = match &outcome.how {
            How::Ended(status) => (None, Some(status)),
            How::Not(error, status) => (Some(error.as_str()), status.as_ref()),
        };
        Self {
            pid: outcome.found.pid,
            sync: outcome.word(),
            error,
            status,
        }
    }
}

impl Outcome {
    /// The exit code, of which the largest counts: what is not known yet is more than what has failed.
    fn code(&self) -> u8 {
        match &self.how {
            How::Ended(status) => u8::from(failed(status).next().is_some()),
            How::Not(..) => 75,
        }
    }

    fn word(&self) -> &'static str {
        match self.code() {
            0 => "synced",
            1 => "failed",
            _ => "unfinished",
        }
    }

    fn text(&self, took: Duration) -> String {
        let pid = self.found.pid;
        match &self.how {
            How::Ended(status) => {
                let failed: Vec<&Routine> = failed(status).collect();
                let count = plural(status.routines.len() as u64, "routine");
                if failed.is_empty() {
                    let took = seconds(took);
                    return format!(
                        "{:>12}  {count}, every edit is on the service  {took}\n",
                        "Synced"
                    );
                }
                let beside_edits =
                    |one: &&Routine| matches!(one.state, State::Critical | State::Halted);
                let why = match failed.iter().all(beside_edits) {
                    true => "with something that has to be looked at",
                    false => "with an edit that did not go up",
                };
                let what = format!("{} of {count}, {why}", failed.len());
                lines("Failed", &what, failed)
            }
            How::Not(error, status) => {
                let head = format!("{}  pid {pid}", escape(error));
                let Some(status) = status else {
                    return lines("Unfinished", &head, []);
                };
                let left = status.routines.iter();
                let left = left.filter(|one| !one.state.is_well() || one.pending > 0);
                let left: Vec<&Routine> = left.collect();
                if left.is_empty() {
                    return lines("Unfinished", &format!("{head}: {UNSETTLED}"), []);
                }
                lines("Unfinished", &head, left)
            }
        }
    }
}

/// The routines with an edit that cannot go up.
fn failed(status: &Status) -> impl Iterator<Item = &Routine> {
    let routines = status.routines.iter();
    routines.filter(|routine| !routine.state.is_well() && !routine.state.is_under_way())
}

fn lines<'a>(head: &str, what: &str, routines: impl IntoIterator<Item = &'a Routine>) -> String {
    let mut out = format!("{head:>12}  {what}\n");
    for routine in routines {
        let (name, state) = (&routine.routine, routine.state.word());
        let edits = match routine.pending {
            0 => String::new(),
            n => format!(", {} pending", plural(n as u64, "edit")),
        };
        let why = routine
            .reason
            .as_ref()
            .map(|reason| format!(": {}", reason.words()));
        out.push_str(&format!(
            "{:14}{name}  {state}{edits}{}\n",
            "",
            why.unwrap_or_default()
        ));
        let help = routine.reason.as_ref().map(|reason| reason.help.as_str());
        if let Some(help) = help.filter(|help| !help.is_empty()) {
            out.push_str(&format!("{:17}= help: {}\n", "", escape(help)));
        }
    }
    out
}
