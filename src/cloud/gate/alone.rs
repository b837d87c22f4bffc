//! What a process allows itself while it cannot see the others: few requests, one at a time, counted in memory. Pure.
//!
//! Fourteen processes that are all alone stay under the service's limit together.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::Moment;

use super::bucket::{Bucket, Draw};
use super::slots::REST;

/// Requests a second.
const RATE: u32 = 5;

/// How long it is until the shared files are tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// A process on its own.
#[derive(Debug)]
pub(super) struct Alone {
    why: String,
    again: Moment,
    rests_until: Moment,
    bucket: Bucket,
    draw: Draw,
}

impl Alone {
    /// From now on alone, with an empty bucket, at no more than the rate that is configured.
    pub(super) fn new(rate: NonZeroU32, now: Moment) -> Self {
        let few = NonZeroU32::new(RATE).unwrap_or(NonZeroU32::MIN);
        let draw = Draw {
            rate: rate.min(few),
            burst: NonZeroU32::MIN,
        };
        Self {
            why: String::new(),
            again: now,
            rests_until: now,
            bucket: Bucket::empty(draw, now),
            draw,
        }
    }

    /// Stays alone for a while longer, for this reason.
    pub(super) fn go_on(&mut self, why: String, now: Moment) {
        self.why = why;
        self.again = now + AGAIN;
    }

    /// Whether it is not yet time to try the shared files again.
    pub(super) fn goes_on(&self, now: Moment) -> bool {
        now < self.again
    }

    /// Notes that a request got no answer and may still be under way.
    pub(super) fn lost(&mut self, now: Moment) {
        self.rests_until = now + REST;
        self.again = self.again.max(self.rests_until);
    }

    /// Takes one request, or says how long to wait before asking again.
    pub(super) fn take(&mut self, now: Moment) -> Result<(), Duration> {
        match self.rests_until.since(now) {
            Duration::ZERO => self.bucket.take(self.draw, now),
            rest => Err(rest),
        }
    }

    /// Halves the rate, if that has not just been done.
    pub(super) fn throttle(&mut self, now: Moment) {
        self.bucket.throttle(now);
    }

    /// How many requests a second there are at present.
    pub(super) fn rate(&self, now: Moment) -> u32 {
        self.bucket.rate(self.draw.rate, now).get()
    }

    /// Why.
    pub(super) fn why(&self) -> &str {
        &self.why
    }
}
