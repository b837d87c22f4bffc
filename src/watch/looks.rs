//! When to look, where no event asks for it: pauses that stretch so that all looks together cost one part in a hundred
//! of one core, and the pauses of what is tried again.
//!
//! It looks at no clock: what a look has cost, and when it ended, is handed in.

use std::time::{Duration, Instant};

/// How much longer than a look the pause after it is at least.
const REST: u32 = 100;

/// The shortest pause between two looks at entries, whatever `rescan` says.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause that is honoured.
const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);

/// A look at the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At what is polled.
    Polled,
    /// At the entries.
    Entries,
    /// At everything, with new watches where they lack.
    Full,
}

/// When the next looks are due.
#[derive(Debug)]
pub(super) struct Looks {
    entries: Duration,
    polled: Option<Duration>,
    next_full: Instant,
    next_entries: Instant,
    next_polled: Instant,
    retry: Option<Instant>,
    /// The last look has to be paid for until then.
    not_before: Instant,
}

impl Looks {
    /// A full look every `rescan`, and a look at the entries ten times as often.
    pub(super) fn new(rescan: Duration, now: Instant) -> Self {
        let entries = (rescan / 10).clamp(MIN_PAUSE, MAX_PAUSE);
        Self {
            entries,
            polled: None,
            next_full: now + entries * 10,
            next_entries: now + entries,
            next_polled: now,
            retry: None,
            not_before: now,
        }
    }

    /// Lets what is polled be looked at in this interval, from now on.
    pub(super) fn poll_every(&mut self, interval: Option<Duration>, now: Instant) {
        if self.polled != interval {
            self.polled = interval;
            self.next_polled = now + interval.unwrap_or_default();
        }
    }

    /// Asks for a full look at some time, or no longer for one.
    pub(super) fn retry_at(&mut self, time: Option<Instant>) {
        self.retry = time;
    }

    /// The look that is due.
    pub(super) fn due(&self, now: Instant) -> Option<Look> {
        let (at, look) = self.next();
        (at <= now).then_some(look)
    }

    /// When [`Looks::due`] has something next.
    #[must_use]
    pub(super) fn next_deadline(&self) -> Instant {
        self.next().0
    }

    /// Takes over that a look has ended, and what it has cost.
    pub(super) fn done(&mut self, look: Look, cost: Duration, now: Instant) {
        self.not_before = now + cost.saturating_mul(REST).min(MAX_PAUSE);
        if look == Look::Full {
            self.next_full = now + self.entries * 10;
            self.retry = self.retry.filter(|&retry| retry > now);
        }
        if look != Look::Polled {
            self.next_entries = now + self.entries;
        }
        self.next_polled = now + self.polled.unwrap_or_default();
    }

    fn next(&self) -> (Instant, Look) {
        let polled = self.polled.map(|_| (self.next_polled, Look::Polled));
        let retry = self.retry.map(|at| (at, Look::Full));
        // Of two that are due at once the one that sees more.
        let more = [retry, polled, Some((self.next_entries, Look::Entries))];
        let mut next = (self.next_full, Look::Full);
        for candidate in more.into_iter().flatten() {
            if candidate.0 < next.0 {
                next = candidate;
            }
        }
        (next.0.max(self.not_before), next.1)
    }
}

/// The pauses before something that failed is tried again: each twice as long as the one before, and short again after
/// it has gone well for a while.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
    failed: Option<Instant>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    pub(super) fn new() -> Self {
        Self {
            pause: Self::FIRST,
            failed: None,
        }
    }

    /// The last pause, or the first one to come.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// Takes over that it has failed, and says when to try again.
    pub(super) fn failed(&mut self, now: Instant) -> Instant {
        let recent = |failed: Instant| now.duration_since(failed) < 2 * Self::LONGEST;
        self.pause = match self.failed.replace(now) {
            Some(failed) if recent(failed) => (self.pause * 2).min(Self::LONGEST),
            _ => Self::FIRST,
        };
        now + self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Lets looks of this cost happen for a time, as soon as each is due.
    fn play(looks: &mut Looks, start: Instant, time: Duration, cost: Duration) -> Vec<Look> {
        let mut seen = Vec::new();
        loop {
            let now = looks.next_deadline();
            if now > start + time {
                return seen;
            }
            let look = looks.due(now).expect("a deadline without progress");
            looks.done(look, cost, now + cost);
            seen.push(look);
        }
    }

    #[test]
    fn entries_are_looked_at_ten_times_as_often_as_everything() {
        let start = Instant::now();
        let mut looks = Looks::new(Duration::from_secs(30), start);
        let seen = play(&mut looks, start, Duration::from_secs(600), ms(0));
        let full = seen.iter().filter(|look| **look == Look::Full).count();
        assert_eq!((full, seen.len()), (20, 200));
    }

    #[test]
    fn all_looks_together_cost_at_most_one_part_in_a_hundred() {
        for cost in [1, 20, 300, 5_000] {
            let start = Instant::now();
            let mut looks = Looks::new(Duration::from_secs(1), start);
            looks.poll_every(Some(ms(50)), start);
            let time = Duration::from_secs(3_600);
            let seen = play(&mut looks, start, time, ms(cost));
            let spent = ms(cost) * u32::try_from(seen.len()).unwrap();
            assert!(spent <= time / 100 + ms(cost), "{cost}: {spent:?}");
            assert!(seen.contains(&Look::Full), "{cost}");
        }
    }

    #[test]
    fn what_is_polled_is_looked_at_in_its_interval_until_it_is_polled_no_longer() {
        let start = Instant::now();
        let mut looks = Looks::new(Duration::from_secs(3_600), start);
        looks.poll_every(Some(ms(500)), start);
        let seen = play(&mut looks, start, Duration::from_secs(60), ms(0));
        assert_eq!(seen, [Look::Polled; 120]);
        looks.poll_every(None, start + Duration::from_secs(60));
        assert!(looks.next_deadline() >= start + Duration::from_secs(360));
    }

    #[test]
    fn a_retry_is_one_full_look() {
        let start = Instant::now();
        let mut looks = Looks::new(Duration::from_secs(3_600), start);
        looks.retry_at(Some(start + ms(1_000)));
        let seen = play(&mut looks, start, Duration::from_secs(60), ms(0));
        assert_eq!(seen, [Look::Full]);
    }

    #[test]
    fn a_failure_is_tried_again_after_one_second_to_a_minute() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let retry = backoff.failed(now);
            pauses.push(retry.duration_since(now).as_secs());
            now = retry;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        now += Duration::from_secs(120);
        assert_eq!(backoff.failed(now), now + Duration::from_secs(1));
    }
}
