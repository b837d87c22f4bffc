//! An event as one JSON object a line, for programs. Pure.
//!
//! Every object starts with `v` (1), `ts` (UTC, RFC 3339 with milliseconds), `event`, and `routine` where there is one.
//! The shapes stand as serde attributes at the types in `report`; this file has the envelope and the units.
//!
//! | event | further fields |
//! |---|---|
//! | `started` | `version`, `endpoint`, `key` (shortened), `source` of the credentials |
//! | `watching` | `routines`, `files`, `directories`, `backend` (`inotify`, `poll` or both) |
//! | `slots` | `routine`, `slots` in use, `cap`, `next` to rotate: `{revision, age_s}` |
//! | `budget` | `requests_per_second`, `burst`, `in_flight` |
//! | `serving` | `url` of the page on this machine |
//! | `ready` | `ms` since the start |
//! | `uploaded` | `routine`, `revision`, `sha256`, `bytes`, `saves`, `calls`, `ms`, `slots` in use |
//! | `reused` | `routine`, `revision`, `sha256`, `saves` |
//! | `unchanged` | `routine`, `revision`, `saves` |
//! | `superseded` | `routine`, `saves` |
//! | `error` | `routine`, `saves`, `problem` |
//! | `abandoned` | `routine`, `saves` |
//! | `retrying` | `routine`, `after_ms`, `problem` |
//! | `throttled` | `routine`, `operation`, `after_ms` |
//! | `rotated` | `routine`, `revision`, `age_s`, `reason` |
//! | `created` | `routine` |
//! | `planned` | `routine`, `action` (`upload`, `rotate`, `create`), `detail`, `saves` |
//! | `offline` | `after_ms`, `problem` |
//! | `online` | `lasted_ms`, edits `waiting` |
//! | `waiting` | `routine`, `problem` |
//! | `halted` | `routine`, `problem` |
//! | `resumed` | `routine` |
//! | `foreign` | `routine`, `revision`, `age_s`, `by` (the instance of another er-dev) |
//! | `published`, `republished` (by somebody else) | `routine`, `revision`, `environment`, `before` |
//! | `pinned` | `routine`, `revision`, `pinned`: whether it is now |
//! | `recovered` (restored from the vault) | `routine`, `revision`, `was` |
//! | `pruned` | `routine`, `rotated`, `left`, `planned`, `stay` |
//! | `mended` | `routine`, `environment` |
//! | `degraded` | `safety` (`state`, `permission`, `budget`, `clock` or `events`), `problem` |
//! | `restored` | `safety`, `what` |
//! | `critical` | `routine`, `environment` if it is about one, `problem` |
//! | `warning` | `routine`, `problem` |
//! | `paused`, `continued` | edits `waiting` |
//! | `alive` | the fields of `done`, so far |
//! | `stopping` | `running` uploads, `drain_ms` |
//! | `done` | `saves`, `edits`, `uploaded`, `reused`, `unchanged`, `superseded`, `failed`, `abandoned`, `planned`, `rotated`, `calls`, `peak` in a second, `up_ms` |
//!
//! A `problem` is `{what, help, class, operation, request_id, file, line, column, also, unshown}`: `also` are further
//! faults of the file, `{what, file, line, column}`, and `unshown` counts those beyond. Fields that are not known are left out:
//! `next`, `age_s`, the `saves` of a further step of a plan, the `routine` of a general warning, and everything in a
//! problem after `class`. Revisions are strings, since their numbers exceed what a float holds. Names ending in `_ms`
//! are milliseconds, as is `ms`; `_s` are seconds. Texts are cut at 512 bytes. New fields and events may come; `v`
//! changes only when one of these changes its meaning or goes.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::Event;
use super::words::{clip, is_hidden};
use crate::routine::Revision;

/// One event as a finished line. `now` becomes `ts`.
pub fn render(event: &Event, now: Timestamp) -> String {
    let envelope = Envelope {
        v: 1,
        ts: format!("{now:.3}"),
        event,
    };
    line(&envelope)
}

/// An object as a finished line.
pub fn line(object: &impl Serialize) -> String {
    // Only a map with odd keys or a failing writer can fail here, and there is neither.
    let object = serde_json::to_string(object).unwrap_or_default();
    let mut line = String::with_capacity(object.len() + 1);
    // JSON escapes fewer characters than a terminal needs. Outside its strings there are none of them.
    for c in object.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

#[derive(Serialize)]
struct Envelope<'a> {
    v: u8,
    ts: String,
    #[serde(flatten)]
    event: &'a Event,
}

/// Writes a duration as whole milliseconds.
pub(super) fn millis<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Writes a known age as whole seconds.
pub(super) fn seconds<S: Serializer>(age: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    age.map(|age| age.as_secs()).serialize(to)
}

/// Writes foreign text within its bound.
pub(super) fn text<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&clip(text))
}

/// Writes foreign text within its bound, where there is one.
pub(super) fn some_text<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    text.as_deref().map(clip).serialize(to)
}

/// Writes the next version to rotate as an object of its own.
pub(super) fn next<S: Serializer>(
    next: &Option<(Revision, Option<Duration>)>,
    to: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Next<'a> {
        revision: &'a Revision,
        #[serde(skip_serializing_if = "Option::is_none")]
        age_s: Option<u64>,
    }
    let next = next.as_ref().map(|(revision, age)| Next {
        revision,
        age_s: age.map(|age| age.as_secs()),
    });
    next.serialize(to)
}
