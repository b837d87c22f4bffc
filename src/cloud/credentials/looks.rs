//! When the source of a key is asked again, and when a key has ended. Pure.
//!
//! The clock is the one that goes on through a suspend.

use std::time::Duration;

use crate::clock::Moment;

/// How long before its end a key is replaced (what the vendor's own clients do).
const AHEAD: Duration = Duration::from_secs(180);

/// How much earlier than that at most, so that several er-dev do not ask together.
const SPREAD: Duration = Duration::from_secs(60);

/// A key that ends sooner is not sent any more, since it would arrive too late.
const TRAVEL: Duration = Duration::from_secs(2);

/// The first pause after a source did not answer, and the shortest one altogether.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a source did not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause while the service refuses what the source gave. Some sources give another key each time, and each is a
/// request, so it is the pause between two tries of a refused key.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// What is known of a key's end and of when to ask for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looks {
    ends: Option<Moment>,
    next: Option<Moment>,
    failed: u32,
}

impl Looks {
    /// The source gave a key that ends then. `jitter` is a random number of `0.0..1.0`.
    pub(super) fn given(ends: Option<Moment>, now: Moment, jitter: f64) -> Self {
        let next = ends.map(|ends| {
            let left = ends.since(now);
            let wait = match left.checked_sub(AHEAD + SPREAD) {
                Some(wait) => wait + SPREAD.mul_f64(1.0 - jitter),
                // It gives out what ends soon, and will have another one only then.
                None => (left / 2).mul_f64(1.0 - jitter / 2.0),
            };
            now + wait.max(FIRST_PAUSE)
        });
        Self {
            ends,
            next,
            failed: 0,
        }
    }

    /// The source gave none. What there is of a key stays as it is.
    pub(super) fn failed(self, now: Moment, jitter: f64) -> Self {
        let bound = FIRST_PAUSE.saturating_mul(1 << self.failed.min(16));
        Self {
            next: Some(now + drawn(bound.min(LONGEST_PAUSE), jitter)),
            failed: self.failed + 1,
            ..self
        }
    }

    /// The service refuses the key, so the source is asked whether it has another one by now.
    pub(super) fn refused(self, now: Moment) -> Self {
        let again = now + REFUSED_PAUSE;
        Self {
            next: Some(self.next.map_or(again, |next| next.min(again))),
            ..self
        }
    }

    /// Whether the source is to be asked.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Whether the key can no longer be used.
    pub(super) fn has_ended(&self, now: Moment) -> bool {
        self.ends.is_some_and(|ends| ends <= now + TRAVEL)
    }
}

/// A pause up to this bound. The lower part of the range would only ask a source that is down more often.
fn drawn(bound: Duration, jitter: f64) -> Duration {
    bound
        .mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
        .max(FIRST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(seconds))
    }

    /// The second at which the source is asked.
    fn asked(looks: Looks, from: u64) -> u64 {
        (from..from + 100_000)
            .find(|second| looks.is_due(at(*second)))
            .unwrap()
    }

    #[test]
    fn a_key_is_replaced_three_to_four_minutes_before_its_end() {
        for (jitter, expected) in [(0.0, 3_600 - 180), (0.5, 3_600 - 210), (1.0, 3_600 - 240)] {
            let looks = Looks::given(Some(at(4_600)), at(1_000), jitter);
            assert_eq!(asked(looks, 1_000), 1_000 + expected);
            assert!(!looks.has_ended(at(4_597)) && looks.has_ended(at(4_598)));
        }
    }

    #[test]
    fn a_key_that_ends_soon_is_replaced_in_the_middle_of_its_time_and_never_all_the_time() {
        for (left, earliest) in [(200, 50), (10, 2), (3, 1), (0, 1)] {
            for jitter in [0.0, 0.5, 1.0] {
                let looks = Looks::given(Some(at(1_000 + left)), at(1_000), jitter);
                assert!(asked(looks, 1_000) >= 1_000 + earliest, "{left} {jitter}");
                assert!(
                    asked(looks, 1_000) <= 1_000 + 1.max(left.div_ceil(2)),
                    "{left}"
                );
            }
        }
    }

    #[test]
    fn a_key_without_an_end_never_ends_and_is_asked_for_only_when_it_is_refused() {
        let looks = Looks::given(None, at(1_000), 0.5);
        assert!(!looks.is_due(at(u64::MAX / 2_000_000_000)));
        assert!(!looks.has_ended(at(1_000_000)));
        let looks = looks.refused(at(2_000));
        assert_eq!(asked(looks, 2_000), 2_300);
    }

    #[test]
    fn c12_a_source_that_is_down_is_asked_after_pauses_that_grow_to_a_minute() {
        let mut looks = Looks::given(Some(at(1_000)), at(0), 0.5);
        let (mut now, mut pauses) = (800, Vec::new());
        for _ in 0..9 {
            looks = looks.failed(at(now), 1.0);
            let next = asked(looks, now);
            pauses.push(next - now);
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(looks.has_ended(at(now)));
        let drawn: Vec<u64> = [0.0, 0.5, 1.0]
            .iter()
            .map(|jitter| asked(looks.failed(at(now), *jitter), now) - now)
            .collect();
        assert_eq!(drawn, [30, 45, 60]);
    }

    #[test]
    fn what_a_source_gave_at_last_counts_its_failures_anew() {
        let mut looks = Looks::given(Some(at(1_000)), at(0), 0.5);
        for _ in 0..5 {
            looks = looks.failed(at(800), 0.5);
        }
        let looks = Looks::given(Some(at(9_000)), at(900), 0.5).failed(at(900), 1.0);
        assert_eq!(asked(looks, 900), 901);
    }
}
