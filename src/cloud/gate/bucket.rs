//! The bucket that all processes draw from, and the line of text it is kept as. Pure: `budget` reads and writes it.
//!
//! governor decides. What it keeps is the moment up to which the bucket's content has been promised, in nanoseconds
//! since the boot; for that its clock has to read zero when a limiter is made, so one is made for every question.
//!
//! Processes may have different settings. What has been taken is therefore counted in requests: a reader with another
//! rate converts it, and for a second after a request everybody goes by the smaller burst. So no closed second sees
//! more than the rate and the burst of the fastest process in it, which are under the ceiling by themselves. Throttling
//! is kept as a share of the rate, because a share means the same to every rate.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::clock::Moment;

/// The length of the text of a bucket, in bytes.
pub(super) const LENGTH: usize = 2 * LINE;

/// The length of a boot's name; another one is none.
pub(super) const BOOT: usize = 36;

/// One of the two equal lines.
const LINE: usize = BOOT + 3 * 21 + 2 * 11 + 8 + 1;

/// The whole of a rate, of which a share is left after throttling.
const WHOLE: u32 = 1_000_000;

/// The least share; below it a rate is one a second anyway.
const LEAST: u32 = WHOLE / 100;

/// How much of the rate comes back at a time, and how often.
const RECOVERY: u32 = WHOLE / 10;
const RECOVERS_EVERY: Duration = Duration::from_secs(10);

/// Refusals within this time are one event.
const ONE_EVENT: Duration = Duration::from_secs(1);

/// The service counts by the second.
const SECOND: Duration = Duration::from_secs(1);

/// What one process may draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draw {
    /// Requests a second.
    pub(super) rate: NonZeroU32,
    /// Requests at once.
    pub(super) burst: NonZeroU32,
}

/// What has been taken of late, and what share of the rate is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Up to when the content has been promised, at `last.rate`.
    promised: Moment,
    /// When the last request was let through.
    at: Moment,
    /// What went by then.
    last: Draw,
    /// The share of every rate that was left at `throttled`, in millionths.
    share: u32,
    /// When the share was last halved.
    throttled: Moment,
}

impl Bucket {
    /// A bucket with nothing in it.
    pub(super) fn empty(draw: Draw, now: Moment) -> Self {
        Self {
            promised: now + interval(draw.rate) * draw.burst.get(),
            at: now,
            last: draw,
            share: WHOLE,
            throttled: Moment::BOOT,
        }
    }

    /// Reads the text of a bucket. Nothing comes of a torn one, one of another boot, and one that cannot be.
    pub(super) fn read(text: &[u8], boot: &str, now: Moment) -> Option<Self> {
        if text.len() != LENGTH {
            return None;
        }
        let (line, copy) = text.split_at(LINE);
        // Both are written in one go, from the front: where that broke off, they differ.
        if line != copy {
            return None;
        }
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let (of, numbers) = line.split_at_checked(BOOT)?;
        if of.trim_end() != boot {
            return None;
        }
        let mut numbers = numbers.split_ascii_whitespace();
        let bucket = Self {
            promised: moment(&mut numbers)?,
            at: moment(&mut numbers)?,
            last: Draw {
                rate: number(&mut numbers)?,
                burst: number(&mut numbers)?,
            },
            share: number(&mut numbers)?,
            throttled: moment(&mut numbers)?,
        };
        bucket.can_be(now).then_some(bucket)
    }

    /// The text of this bucket, always of the same length.
    pub(super) fn text(&self, boot: &str) -> String {
        let Self {
            promised,
            at,
            last: Draw { rate, burst },
            share,
            throttled,
        } = self;
        let [promised, at, throttled] =
            [promised, at, throttled].map(|m| m.since_boot().as_nanos());
        let line = format!(
            "{boot:<BOOT$} {promised:020} {at:020} {rate:010} {burst:010} {share:07} {throttled:020}\n"
        );
        line.repeat(2)
    }

    /// Takes one request out, or says how long it is until one may be taken.
    pub(super) fn take(&mut self, draw: Draw, now: Moment) -> Result<(), Duration> {
        let mut draw = draw;
        draw.rate = self.rate(draw.rate, now);
        if now.since(self.at) <= SECOND {
            draw.burst = draw.burst.min(self.last.burst);
        }
        let promised = Promised(Cell::new(self.promised_at(draw.rate)));
        let clock = Reading(Cell::new(Moment::BOOT));
        let quota = Quota::per_second(draw.rate).allow_burst(draw.burst);
        let limiter =
            RateLimiter::<_, _, _, NoOpMiddleware<Duration>>::new(quota, &promised, &clock);
        clock.0.set(now);
        limiter
            .check()
            .map_err(|early| early.wait_time_from(now.since_boot()))?;
        self.promised = promised.0.get();
        self.at = now;
        self.last = draw;
        Ok(())
    }

    /// Halves the rate, for everybody, if that has not just been done.
    pub(super) fn throttle(&mut self, now: Moment) {
        let untouched = self.share == WHOLE && self.throttled == Moment::BOOT;
        if untouched || now.since(self.throttled) >= ONE_EVENT {
            self.share = (self.share_at(now) / 2).max(LEAST);
            self.throttled = now;
        }
    }

    /// What is left of a rate at present: at least one a second.
    pub(super) fn rate(&self, rate: NonZeroU32, now: Moment) -> NonZeroU32 {
        let left = u64::from(rate.get()) * u64::from(self.share_at(now)) / u64::from(WHOLE);
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        NonZeroU32::new(left).unwrap_or(NonZeroU32::MIN)
    }

    fn share_at(&self, now: Moment) -> u32 {
        let steps = now.since(self.throttled).as_secs() / RECOVERS_EVERY.as_secs();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        steps
            .saturating_mul(RECOVERY)
            .saturating_add(self.share)
            .min(WHOLE)
    }

    /// Up to when the content would have been promised, had it always been promised at this rate.
    fn promised_at(&self, rate: NonZeroU32) -> Moment {
        if rate == self.last.rate {
            return self.promised;
        }
        let taken = self.promised.since(self.at).as_nanos() * interval(rate).as_nanos();
        let taken = taken.div_ceil(interval(self.last.rate).as_nanos());
        self.at + Duration::from_nanos(u64::try_from(taken).unwrap_or(u64::MAX))
    }

    /// Whether such a bucket can have come about by now.
    fn can_be(&self, now: Moment) -> bool {
        // Nothing is promised beyond a burst from the last request on.
        let most = interval(self.last.rate).saturating_mul(self.last.burst.get());
        self.at <= now
            && self.throttled <= now
            && self.promised <= self.at + most
            && (LEAST..=WHOLE).contains(&self.share)
    }
}

/// The time between two requests at this rate, as governor has it.
fn interval(rate: NonZeroU32) -> Duration {
    let interval = Quota::per_second(rate).replenish_interval();
    interval.max(Duration::from_nanos(1))
}

fn number<'a, T: FromStr>(numbers: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    numbers.next()?.parse().ok()
}

fn moment<'a>(numbers: &mut impl Iterator<Item = &'a str>) -> Option<Moment> {
    number(numbers).map(|nanos| Moment::after_boot(Duration::from_nanos(nanos)))
}

/// The time as governor is to see it.
struct Reading(Cell<Moment>);

impl Clock for &Reading {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.get().since_boot()
    }
}

/// What governor keeps.
struct Promised(Cell<Moment>);

impl StateStore for &Promised {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (decision, next) = decide(Some(self.0.get().since_boot().into()))?;
        self.0.set(Moment::after_boot(next.into()));
        Ok(decision)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop_assert, proptest};

    use super::*;

    const NAME: &str = "c0ffee00-0000-4000-8000-000000000001";

    fn draw(rate: u32, burst: u32) -> Draw {
        Draw {
            rate: NonZeroU32::new(rate).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    fn after(millis: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(1_000) + Duration::from_millis(millis))
    }

    /// Takes all there is.
    fn drain(bucket: &mut Bucket, draw: Draw, now: Moment) -> usize {
        (0..1_000)
            .take_while(|_| bucket.take(draw, now).is_ok())
            .count()
    }

    fn used() -> Bucket {
        let mut bucket = Bucket::empty(draw(80, 10), after(0));
        bucket.take(draw(80, 10), after(500)).unwrap();
        bucket.throttle(after(600));
        bucket
    }

    #[test]
    fn a_text_reads_back_as_the_bucket_it_was_written_from() {
        for name in [NAME, ""] {
            let text = used().text(name);
            assert_eq!(text.len(), LENGTH);
            assert_eq!(
                Bucket::read(text.as_bytes(), name, after(600)),
                Some(used())
            );
        }
    }

    #[test]
    fn a_write_that_breaks_off_anywhere_leaves_the_old_bucket_the_new_one_or_none() {
        let old = used();
        let mut new = old.clone();
        new.take(draw(80, 10), after(9_000)).unwrap();
        let (before, after_it) = (old.text(NAME), new.text(NAME));
        for broke_off in 0..=LENGTH {
            let torn = [
                &after_it.as_bytes()[..broke_off],
                &before.as_bytes()[broke_off..],
            ]
            .concat();
            let read = Bucket::read(&torn, NAME, after(9_000));
            let whole = [Some(old.clone()), Some(new.clone()), None].contains(&read);
            assert!(whole, "{broke_off}: {read:?}");
            let cut = Bucket::read(&before.as_bytes()[..broke_off], NAME, after(9_000));
            assert_eq!(cut.is_some(), broke_off == LENGTH, "{broke_off}");
        }
    }

    #[test]
    fn a_bucket_of_another_boot_or_from_the_future_is_none() {
        let text = used().text(NAME);
        let other = NAME.replace('1', "2");
        assert_eq!(Bucket::read(text.as_bytes(), &other, after(600)), None);
        assert_eq!(Bucket::read(text.as_bytes(), "", after(600)), None);
        assert_eq!(Bucket::read(text.as_bytes(), NAME, after(599)), None);
        let mut greedy = used();
        greedy.promised = greedy.at + Duration::from_millis(126);
        let text = greedy.text(NAME);
        assert_eq!(Bucket::read(text.as_bytes(), NAME, after(600)), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_or_taking_panic(
            [promised, at, throttled, now] in [0u64..1 << 62, 0u64..1 << 62, 0u64..1 << 62, 0u64..1 << 62],
            (rate, burst, share) in (0u32.., 0u32.., 0u32..=1_000_000),
        ) {
            let at = at.min(now);
            let throttled = throttled.min(now);
            let promised = promised.min(at.saturating_add(1_000_000_000));
            let line = format!("{NAME} {promised:020} {at:020} {rate:010} {burst:010} {share:07} {throttled:020}\n");
            let now = Moment::after_boot(Duration::from_nanos(now));
            if let Some(mut bucket) = Bucket::read(line.repeat(2).as_bytes(), NAME, now) {
                let _ = bucket.take(draw(80, 10), now);
                bucket.throttle(now);
            }
        }

        #[test]
        fn any_mix_of_settings_stays_under_the_sum_of_the_fastest(
            settings in proptest::collection::vec((1u32..=90, 1u32..=90), 1..4),
            turns in proptest::collection::vec((0usize..4, (0u64..1_500).prop_map(|ms| ms * ms / 1_500), 0u32..20), 1..200),
        ) {
            let settings: Vec<Draw> = settings.into_iter().map(|(rate, burst)| draw(rate, burst.min(91 - rate))).collect();
            let mut bucket = Bucket::empty(settings[0], after(0));
            let mut millis = 0;
            let mut grants: Vec<(Moment, Draw)> = Vec::new();
            for (who, rest, throttle) in turns {
                millis += rest;
                let now = after(millis);
                if throttle == 0 {
                    bucket.throttle(now);
                }
                let draw = settings[who % settings.len()];
                let taken = drain(&mut bucket, draw, now);
                grants.extend(std::iter::repeat_n((now, draw), taken));
            }
            for (first, (start, _)) in grants.iter().enumerate() {
                let second: Vec<Draw> = grants[first..].iter().take_while(|(at, _)| at.since(*start) <= SECOND).map(|(_, draw)| *draw).collect();
                let most = second.iter().max_by_key(|draw| draw.rate).map_or(0, |draw| draw.rate.get() + draw.burst.get());
                prop_assert!(second.len() <= most as usize, "{} of {most}", second.len());
            }
        }
    }

    #[test]
    fn eight_refusals_at_once_halve_the_rate_once_for_every_setting() {
        let mut bucket = Bucket::empty(draw(80, 10), after(0));
        for refusal in 0..8 {
            bucket.throttle(after(100 * refusal));
        }
        for (configured, left) in [(80, 40), (50, 25), (1, 1)] {
            let rate = bucket.rate(draw(configured, 1).rate, after(800));
            assert_eq!(rate.get(), left);
        }
        bucket.throttle(after(1_000));
        assert_eq!(bucket.rate(draw(80, 1).rate, after(1_000)).get(), 20);
    }

    #[test]
    fn a_throttled_rate_comes_back_by_a_tenth_every_ten_seconds() {
        let mut bucket = Bucket::empty(draw(80, 10), after(0));
        bucket.throttle(after(0));
        let rate = |seconds: u64| bucket.rate(draw(80, 10).rate, after(1_000 * seconds)).get();
        let rates = [0, 9, 10, 20, 30, 40, 49, 50, 60, 1_000].map(rate);
        assert_eq!(rates, [40, 40, 48, 56, 64, 72, 72, 80, 80, 80]);
    }

    #[test]
    fn a_rate_never_falls_below_one_a_second_and_comes_back_from_there() {
        let mut bucket = Bucket::empty(draw(80, 10), after(0));
        for second in 0..9 {
            bucket.throttle(after(1_000 * second));
        }
        let rate = |second: u64| bucket.rate(draw(80, 10).rate, after(1_000 * second)).get();
        assert_eq!([rate(8), rate(18)], [1, 8]);
    }

    #[test]
    fn a_change_of_the_rate_gives_no_request_for_free() {
        let mut bucket = Bucket::empty(draw(80, 10), after(0));
        assert_eq!(drain(&mut bucket, draw(80, 10), after(5_000)), 10);
        bucket.throttle(after(5_000));
        assert_eq!(drain(&mut bucket, draw(80, 10), after(5_000)), 0);
        assert_eq!(drain(&mut bucket, draw(40, 10), after(5_000)), 0);
        assert_eq!(drain(&mut bucket, draw(80, 10), after(5_100)), 4);
    }
}
