//! What is asked of the service and what becomes of it: how many requests a second, and for each operation how they
//! ended and how long they took. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::Moment;

/// How many seconds are remembered one by one.
pub const SECONDS: usize = 300;

/// The upper ends of the buckets of a histogram, in milliseconds. Above the last one there is one more bucket.
pub const BOUNDS: [u64; 13] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000,
];

/// What has been asked so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    operations: BTreeMap<&'static str, Operation>,
    /// Requests in each of the last seconds, the newest last.
    seconds: VecDeque<u32>,
    /// The number of the newest second since the boot.
    newest: u64,
}

/// How the requests of one operation went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operation {
    /// Requests that were carried out.
    pub done: u64,
    /// Requests that were answered with an error.
    pub refused: u64,
    /// Requests that could not be sent, or without a whole answer.
    pub unanswered: u64,
    /// How long all of them took.
    pub took: Histogram,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// It was answered with an error.
    Refused,
    /// It could not be sent, or there was no whole answer.
    Unanswered,
}

/// How long something took, again and again, counted in buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How often it fell into each bucket and into none before; the last one has no upper end.
    pub counts: [u64; BOUNDS.len() + 1],
    /// The sum of all.
    pub sum: Duration,
}

impl Traffic {
    /// A request is being sent.
    pub fn sent(&mut self, at: Moment) {
        self.advance(at);
        if let Some(newest) = self.seconds.back_mut() {
            *newest = newest.saturating_add(1);
        }
    }

    /// A request has ended.
    pub fn ended(&mut self, operation: &'static str, outcome: Outcome, took: Duration) {
        let operation = self.operations.entry(operation).or_default();
        match outcome {
            Outcome::Done => operation.done += 1,
            Outcome::Refused => operation.refused += 1,
            Outcome::Unanswered => operation.unanswered += 1,
        }
        operation.took.add(took);
    }

    /// Each operation that was asked for.
    pub fn operations(&self) -> impl Iterator<Item = (&'static str, &Operation)> {
        self.operations.iter().map(|(name, of)| (*name, of))
    }

    /// How many requests were sent in each of the last [`SECONDS`] seconds or less, the present one last.
    pub fn seconds(&self, now: Moment) -> Vec<u32> {
        let mut until_now = self.clone();
        until_now.advance(now);
        until_now.seconds.into()
    }

    /// Begins the seconds that have begun since the newest one.
    fn advance(&mut self, at: Moment) {
        let second = at.since_boot().as_secs();
        let passed = match self.seconds.is_empty() {
            true => 1,
            false => second.saturating_sub(self.newest),
        };
        self.newest = self.newest.max(second);
        for _ in 0..passed.min(SECONDS as u64) {
            if self.seconds.len() == SECONDS {
                self.seconds.pop_front();
            }
            self.seconds.push_back(0);
        }
    }
}

impl Histogram {
    /// Counts one more.
    pub fn add(&mut self, took: Duration) {
        let bucket = BOUNDS
            .iter()
            .position(|bound| took <= Duration::from_millis(*bound));
        self.counts[bucket.unwrap_or(BOUNDS.len())] += 1;
        self.sum = self.sum.saturating_add(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Moment {
        Moment::after_boot(Duration::from_millis(1_000 * second + 999))
    }

    #[test]
    fn seconds_without_a_request_count_none_and_old_ones_go() {
        let mut traffic = Traffic::default();
        assert_eq!(traffic.seconds(second(70)), [0]);
        for at in [70, 70, 73] {
            traffic.sent(second(at));
        }
        assert_eq!(traffic.seconds(second(73)), [2, 0, 0, 1]);
        assert_eq!(traffic.seconds(second(75)), [2, 0, 0, 1, 0, 0]);
        // One that was under way for long is not taken back in time.
        traffic.sent(second(71));
        assert_eq!(traffic.seconds(second(73)), [2, 0, 0, 2]);
        traffic.sent(second(u64::MAX / 2_000_000_000));
        let seconds = traffic.seconds(Moment::BOOT);
        assert_eq!((seconds.len(), seconds[SECONDS - 1]), (SECONDS, 1));
        assert_eq!(seconds.iter().sum::<u32>(), 1);
    }

    #[test]
    fn a_time_falls_into_the_first_bucket_that_holds_it() {
        let mut took = Histogram::default();
        let times = [0, 5, 6, 60_000, 60_001];
        for time in times {
            took.add(Duration::from_millis(time));
        }
        assert_eq!(took.counts[..2], [2, 1]);
        assert_eq!(took.counts[BOUNDS.len() - 1..], [1, 1]);
        assert_eq!(took.sum, Duration::from_millis(times.iter().sum()));
        assert_eq!(took.counts.iter().sum::<u64>(), times.len() as u64);
    }

    #[test]
    fn each_operation_has_its_own_account() {
        let mut traffic = Traffic::default();
        let second = Duration::from_secs(1);
        traffic.ended("A", Outcome::Done, second);
        traffic.ended("A", Outcome::Refused, second);
        traffic.ended("B", Outcome::Unanswered, second);
        let ends: Vec<_> = traffic
            .operations()
            .map(|(name, of)| (name, of.done, of.refused, of.unanswered, of.took.sum))
            .collect();
        assert_eq!(ends, [("A", 1, 1, 0, 2 * second), ("B", 0, 0, 1, second)]);
    }
}
