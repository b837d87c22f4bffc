//! The clock that has run since the machine booted: it goes on through a suspend, nobody can set it, and all processes
//! read the same from it. It is what ages and deadlines are measured by that outlive a process or a suspend.
//!
//! [`Moment`] is plain arithmetic and may be used anywhere; only the functions look at the machine.

use std::ops::Add;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment on this clock.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// When the machine booted.
    pub const BOOT: Self = Self(0);

    /// The moment this long after the machine booted.
    pub fn after_boot(age: Duration) -> Self {
        Self(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long after the boot it is.
    pub fn since_boot(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The time from an earlier moment to this one; zero if that one is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self::after_boot(self.since_boot().saturating_add(duration))
    }
}

/// The present moment.
pub fn now() -> Moment {
    // Where there is no clock that counts suspends, one that does not has to do.
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    of(clock_gettime(CLOCK))
}

/// How long the machine has been suspended since it booted.
pub fn asleep() -> Duration {
    let awake = of(clock_gettime(ClockId::Monotonic));
    now().since(awake)
}

/// The name of the present boot: moments of another one cannot be compared with those of this one. Empty where the
/// system does not tell, and then nothing from before can be trusted to be of this boot.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn of(time: Timespec) -> Moment {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Moment::after_boot(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_run_backwards_and_a_machine_that_works_is_awake() {
        let (first, asleep_before) = (now(), asleep());
        assert!(now() >= first);
        let slept = asleep().saturating_sub(asleep_before);
        assert!(slept < Duration::from_secs(1), "{slept:?}");
    }

    #[test]
    fn moments_at_the_edge_neither_wrap_nor_panic() {
        let last = Moment::after_boot(Duration::MAX);
        assert_eq!(last + Duration::from_secs(1), last);
        assert_eq!(Moment::BOOT.since(last), Duration::ZERO);
        assert_eq!(last.since(Moment::BOOT), last.since_boot());
    }
}
