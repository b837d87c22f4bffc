//! What the emulator was asked and what it decided, one record a request, in the order of handling.
//!
//! Records carry the time of arrival, which is what a limit on requests is about: handling may come later. Writing
//! them to a file is left to `http`; judging them is left to whoever reads them.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::routine::{Digest, Revision, RoutineName};

/// The operation under which a form post to object storage is recorded. It is no API request.
pub const POST_OBJECT: &str = "PostObject";

/// How many records are kept in memory; beyond it the oldest is dropped. A history file keeps all.
pub const MAX_RECORDS: usize = 1_000_000;

/// The longest text recorded as a revision, in bytes. Nothing longer names one, so it is left out.
const MAX_REVISION_BYTES: usize = 20;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It was carried out.
    Ok,
    /// It was answered with an error.
    Refused,
    /// It came too fast and was not carried out.
    Throttled,
}

/// One request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The place in the order of handling, from 0.
    pub seq: u64,
    /// The time of arrival in nanoseconds since the emulator started, on a clock that never steps back.
    pub t: u64,
    /// The operation; `Unknown` for one the emulator does not know, [`POST_OBJECT`] for a form post.
    pub op: &'static str,
    /// The routine it was about, where that could be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routine: Option<RoutineName>,
    /// The revision it was about, where that could be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// What became of it.
    pub decision: Decision,
    /// The HTTP status of the reply.
    pub status: u16,
    /// The digest of the code in a form post.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// What is told about a request before it has its place in the order.
pub(super) struct Entry {
    pub(super) arrived: Duration,
    pub(super) op: &'static str,
    pub(super) routine: Option<RoutineName>,
    pub(super) revision: Option<Revision>,
    pub(super) decision: Decision,
    pub(super) status: u16,
    pub(super) sha256: Option<Digest>,
}

/// The newest [`MAX_RECORDS`] records, oldest first.
#[derive(Debug, Default)]
pub struct History {
    records: VecDeque<Record>,
    next: u64,
}

impl History {
    /// The records, in the order of handling.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        self.records.iter()
    }

    /// Gives the request its place and keeps it.
    pub(super) fn push(&mut self, entry: Entry) {
        if self.records.len() == MAX_RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(Record {
            seq: self.next,
            t: u64::try_from(entry.arrived.as_nanos()).unwrap_or(u64::MAX),
            op: entry.op,
            routine: entry.routine,
            revision: entry
                .revision
                .filter(|revision| revision.as_str().len() <= MAX_REVISION_BYTES),
            decision: entry.decision,
            status: entry.status,
            sha256: entry.sha256,
        });
        self.next += 1;
    }
}

/// The most API requests that arrived within any one second, refused ones included and form posts not.
///
/// The second has both its ends: two requests exactly a second apart fall into one, the stricter reading.
pub fn busiest_second(records: &[Record]) -> usize {
    let mut times: Vec<u64> = records
        .iter()
        .filter(|record| record.op != POST_OBJECT)
        .map(|record| record.t)
        .collect();
    times.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (last, time) in times.iter().enumerate() {
        while time - times[first] > 1_000_000_000 {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(op: &'static str, t: u64) -> Record {
        Record {
            seq: 0,
            t,
            op,
            routine: None,
            revision: None,
            decision: Decision::Ok,
            status: 200,
            sha256: None,
        }
    }

    #[test]
    fn what_a_caller_sends_in_place_of_a_revision_does_not_fill_the_memory() {
        let mut history = History::default();
        for text in ["18446744073709551615", "184467440737095516150"] {
            history.push(Entry {
                arrived: Duration::from_nanos(7),
                op: POST_OBJECT,
                routine: None,
                revision: Some(Revision::new(text)),
                decision: Decision::Refused,
                status: 403,
                sha256: None,
            });
        }
        let kept: Vec<(u64, bool)> = history
            .iter()
            .map(|r| (r.seq, r.revision.is_some()))
            .collect();
        assert_eq!(kept, [(0, true), (1, false)]);
    }

    #[test]
    fn form_posts_are_not_counted_as_requests() {
        let records = [
            record("DescribeRoutine", 5),
            record(POST_OBJECT, 6),
            record("UploadRoutineCode", 7),
        ];
        assert_eq!(busiest_second(&records), 2);
        assert_eq!(busiest_second(&[]), 0);
    }

    #[test]
    fn requests_a_second_apart_fall_into_one_and_a_nanosecond_more_does_not() {
        let at = |later| {
            [
                record("DescribeRoutine", 3),
                record("DescribeRoutine", later),
            ]
        };
        assert_eq!(busiest_second(&at(1_000_000_003)), 2);
        assert_eq!(busiest_second(&at(1_000_000_004)), 1);
    }

    proptest! {
        #[test]
        fn the_busiest_second_starts_at_a_request_and_arrival_order_does_not_matter(
            times in prop::collection::vec(0_u64..5_000_000_000, 0..60),
        ) {
            let records: Vec<Record> = times.iter().map(|t| record("DescribeRoutine", *t)).collect();
            let by_counting = times
                .iter()
                .map(|from| times.iter().filter(|t| **t >= *from && **t - from <= 1_000_000_000).count())
                .max()
                .unwrap_or(0);
            prop_assert_eq!(busiest_second(&records), by_counting);
        }
    }

    #[test]
    fn a_record_is_one_json_object_without_what_is_not_known() {
        let mut record = record("UploadRoutineCode", 12);
        record.routine = RoutineName::new("hello").ok();
        record.decision = Decision::Throttled;
        record.status = 400;
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"seq":0,"t":12,"op":"UploadRoutineCode","routine":"hello","decision":"throttled","status":400}"#
        );
    }
}
