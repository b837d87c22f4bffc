//! The time that requests are signed with: the wall clock of this machine, corrected where it is known to be wrong.
//!
//! The service refuses a time stamp that is far from its own clock. Its answer then carries the right time, and the
//! difference is taken from there, never kept on disk, and dropped when somebody sets the clock.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Moment;

/// A difference up to this is as good as none.
const TOLERANCE: Duration = Duration::from_secs(5);

/// A larger difference is not believed: it is more likely that the answer is wrong.
const LARGEST: Duration = Duration::from_secs(24 * 3600);

/// How far this machine's clock is from the service's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offset {
    /// The difference.
    pub by: Duration,
    /// Whether this machine's clock is behind.
    pub behind: bool,
}

/// The wall clock and what is known of its error.
#[derive(Debug, Default)]
pub(super) struct WallClock(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    offset: Offset,
    /// Both clocks when they were last looked at.
    last: Option<(SystemTime, Moment)>,
    /// How far the wall clock was from the service's when that last said its time.
    seen: Option<Offset>,
}

impl WallClock {
    /// The time to sign with, from both clocks at the present moment. If the wall clock has jumped since it was last
    /// looked at, what was known of its error is worth nothing.
    pub(super) fn now(&self, wall: SystemTime, since_boot: Moment) -> SystemTime {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last_wall, last)) = known.last {
            let expected = last_wall
                .checked_add(since_boot.since(last))
                .unwrap_or(wall);
            if difference(wall, expected).by > TOLERANCE {
                known.offset = Offset::default();
            }
        }
        known.last = Some((wall, since_boot));
        let Offset { by, behind } = known.offset;
        let corrected = if behind {
            wall.checked_add(by)
        } else {
            wall.checked_sub(by)
        };
        // A clock far off either end of the calendar signs with something the service refuses, and not with a panic.
        corrected.unwrap_or(wall).max(UNIX_EPOCH)
    }

    /// Takes the service's time from an answer. `false` if that changes nothing, so that another try is of no use.
    pub(super) fn correct(&self, service: SystemTime, wall: SystemTime) -> bool {
        let mut offset = difference(service, wall);
        if offset.by > LARGEST {
            return false;
        }
        if offset.by <= TOLERANCE {
            offset = Offset::default();
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.offset;
        let same_side = before.behind == offset.behind || before.by.is_zero();
        if same_side && before.by.abs_diff(offset.by) <= TOLERANCE {
            return false;
        }
        known.offset = offset;
        true
    }

    /// Takes note of the service's time in an answer that came at this time of the wall clock.
    pub(super) fn see(&self, service: SystemTime, wall: SystemTime) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.seen = Some(difference(service, wall));
    }

    /// How far the wall clock was from the service's, which tells its time in seconds, when it last did.
    pub(super) fn seen(&self) -> Option<Offset> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).seen
    }

    /// The correction in use.
    pub(super) fn offset(&self) -> Offset {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).offset
    }
}

/// How far the second time is from the first, and whether it is behind.
fn difference(right: SystemTime, shown: SystemTime) -> Offset {
    match right.duration_since(shown) {
        Ok(by) => Offset { by, behind: true },
        Err(error) => Offset {
            by: error.duration(),
            behind: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn boot(seconds: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn a_clock_that_is_off_by_minutes_either_way_is_corrected_by_the_services_time() {
        for (shown, right) in [(10_000, 11_200), (11_200, 10_000)] {
            let clock = WallClock::default();
            assert_eq!(clock.now(wall(shown), boot(7)), wall(shown));
            assert!(clock.correct(wall(right), wall(shown)));
            assert_eq!(clock.now(wall(shown + 3), boot(10)), wall(right + 3));
            assert!(!clock.correct(wall(right), wall(shown)), "it is known");
        }
    }

    #[test]
    fn a_clock_that_the_service_agrees_with_again_is_believed_as_it_is() {
        let clock = WallClock::default();
        assert!(clock.correct(wall(11_200), wall(10_000)));
        assert!(clock.correct(wall(10_001), wall(10_000)));
        assert_eq!(clock.offset(), Offset::default());
        assert!(!clock.correct(wall(9_999), wall(10_000)));
    }

    #[test]
    fn a_difference_of_seconds_or_of_years_changes_nothing() {
        let clock = WallClock::default();
        for right in [wall(10_004), wall(9_996), wall(10_000 + 10 * 365 * 86_400)] {
            assert!(!clock.correct(right, wall(10_000)));
        }
        assert_eq!(clock.offset(), Offset::default());
    }

    #[test]
    fn a_clock_that_somebody_sets_is_believed_again() {
        let clock = WallClock::default();
        let _ = clock.now(wall(10_000), boot(7));
        assert!(clock.correct(wall(11_200), wall(10_000)));
        assert_eq!(clock.now(wall(11_203), boot(10)), wall(11_203));
        assert_eq!(clock.offset(), Offset::default());
    }

    #[test]
    fn a_suspend_is_no_jump() {
        let clock = WallClock::default();
        let _ = clock.now(wall(10_000), boot(7));
        assert!(clock.correct(wall(11_200), wall(10_000)));
        let night = 8 * 3_600;
        assert_eq!(
            clock.now(wall(10_000 + night), boot(7 + night)),
            wall(11_200 + night)
        );
    }

    #[test]
    fn c06_jumps_by_an_hour_to_1970_and_to_2038_are_survived() {
        let clock = WallClock::default();
        let day = 86_400;
        for (at, seconds) in [
            1_800_000_000,
            1_800_003_600,
            1_799_996_400,
            0,
            2_147_483_648,
            3,
        ]
        .into_iter()
        .enumerate()
        {
            let now = wall(seconds);
            assert_eq!(clock.now(now, boot(at as u64)), now);
            clock.correct(wall(seconds.saturating_sub(day - 1)), now);
            assert!(clock.now(now, boot(at as u64)) >= UNIX_EPOCH);
        }
    }
}
