//! What the emulator was asked and what became of it, one record a request, in the order of handling.
//!
//! Records carry the time of arrival, which is what a limit on requests is about: handling may come later. What people
//! do past the API stands in the same order. Writing records to a file is left to `http`, judging them to `check`.

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

/// The longest nonce recorded, in bytes. The gate takes no longer one.
const MAX_NONCE_BYTES: usize = 128;

/// The operations under which the deeds of people are recorded, apart from those of the API.
pub const PERSON_UPLOAD: &str = "upload";
/// See [`PERSON_UPLOAD`].
pub const PERSON_STAGE: &str = "stage";
/// See [`PERSON_UPLOAD`].
pub const PERSON_PUBLISH: &str = "publish";
/// See [`PERSON_UPLOAD`].
pub const PERSON_DELETE: &str = "delete";

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It was carried out.
    #[default]
    Ok,
    /// It was answered with an error.
    Refused,
    /// It came too fast and was not carried out.
    Throttled,
    /// A fault changed what became of it.
    Fault,
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// Whoever sends requests.
    #[default]
    Client,
    /// Somebody else, past the API.
    Person,
}

/// What the mark at the end of a description says: ` er1.<32 hex of sha256>.<8 hex instance>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mark {
    /// The first 32 hexadecimal digits of the digest of the code that was meant.
    pub digest: String,
    /// Which er-dev wrote it.
    pub instance: String,
}

/// One request, or one deed of a person, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Record {
    /// The place in the order of handling, from 0. A request that is carried out late has the place of that moment.
    pub seq: u64,
    /// The time of arrival in nanoseconds since the emulator started, on a clock that never steps back.
    pub t: u64,
    /// When it was handled, on the same clock; where a fault delays the answer, when that is due.
    pub ended: u64,
    /// Who did it.
    pub actor: Actor,
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
    /// Whether it did what it asks for: told something, made a version, gave it its code, deleted it. A delete that is
    /// answered with OK and deletes nothing did not.
    pub processed: bool,
    /// What went wrong on purpose, as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The HTTP status of the reply; 0 where there was none.
    pub status: u16,
    /// The error code of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The digest of the code in a form post, or of what a person uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// The mark in the description of an upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// The nonce of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// How a call was signed, as its caller said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<&'static str>,
    /// The environments of a publish.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// How many versions the routine has then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// Whether the version of a delete was live in some environment just before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
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

    /// The records from a place in the order on.
    pub(super) fn since(&self, seq: u64) -> impl Iterator<Item = &Record> {
        let first = self.records.partition_point(|record| record.seq < seq);
        self.records.range(first..)
    }

    /// Gives a record its place and keeps it.
    pub(super) fn push(&mut self, mut record: Record) {
        if self.records.len() == MAX_RECORDS {
            self.records.pop_front();
        }
        let named = |revision: &Revision| revision.as_str().len() <= MAX_REVISION_BYTES;
        record.revision = record.revision.filter(named);
        record.nonce = record.nonce.filter(|nonce| nonce.len() <= MAX_NONCE_BYTES);
        record.seq = self.next;
        self.records.push_back(record);
        self.next += 1;
    }
}

impl Mark {
    /// Reads the mark that a description ends with.
    pub fn read(description: &str) -> Option<Self> {
        let word = description.split(' ').next_back()?;
        let (digest, instance) = word.strip_prefix("er1.")?.split_once('.')?;
        let hex = |text: &str, digits: usize| {
            let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            text.len() == digits && text.bytes().all(digit)
        };
        (hex(digest, 32) && hex(instance, 8)).then(|| Self {
            digest: digest.to_owned(),
            instance: instance.to_owned(),
        })
    }
}

/// Nanoseconds since the emulator started, as a record tells them.
pub(super) fn nanoseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// The most API requests that arrived within any one second, refused ones and those that met a fault included; form
/// posts and what people did are not.
///
/// The second has both its ends: two requests exactly a second apart fall into one, the stricter reading.
pub fn busiest_second(records: &[Record]) -> usize {
    let mut times: Vec<u64> = records
        .iter()
        .filter(|record| record.actor == Actor::Client && record.op != POST_OBJECT)
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
            t,
            op,
            processed: true,
            status: 200,
            ..Record::default()
        }
    }

    #[test]
    fn what_a_caller_sends_in_place_of_a_revision_does_not_fill_the_memory() {
        let mut history = History::default();
        for text in ["18446744073709551615", "184467440737095516150"] {
            history.push(Record {
                revision: Some(Revision::new(text)),
                nonce: Some("n".repeat(text.len() + 108)),
                ..record(POST_OBJECT, 7)
            });
        }
        let kept: Vec<(u64, bool, bool)> = history
            .iter()
            .map(|r| (r.seq, r.revision.is_some(), r.nonce.is_some()))
            .collect();
        assert_eq!(kept, [(0, true, true), (1, false, false)]);
        assert_eq!(history.since(1).count(), 1);
    }

    #[test]
    fn a_mark_is_read_at_the_end_of_a_description_and_nowhere_else() {
        let digest = "0123456789abcdef0123456789abcdef";
        let read = |text: &str| Mark::read(text).map(|mark| mark.digest + &mark.instance);
        let mark = format!("er1.{digest}.00c0ffee");
        let found = Some(format!("{digest}00c0ffee"));
        assert_eq!(read(&mark), found);
        assert_eq!(read(&format!("some words {mark}")), found);
        for odd in [
            format!("{mark} later"),
            format!("x{mark}"),
            mark.replace("er1", "er2"),
            mark.to_uppercase(),
            format!("{mark}0"),
            String::new(),
        ] {
            assert_eq!(read(&odd), None, "{odd}");
        }
    }

    #[test]
    fn form_posts_and_people_are_not_counted_as_requests() {
        let records = [
            record("DescribeRoutine", 5),
            record(POST_OBJECT, 6),
            record("UploadRoutineCode", 7),
            Record {
                actor: Actor::Person,
                ..record(PERSON_UPLOAD, 7)
            },
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
        record.processed = false;
        record.ended = 13;
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            concat!(
                r#"{"seq":0,"t":12,"ended":13,"actor":"client","op":"UploadRoutineCode","routine":"hello","#,
                r#""decision":"throttled","processed":false,"status":400}"#
            )
        );
    }
}
