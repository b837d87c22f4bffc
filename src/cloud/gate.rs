//! The only way to a request: a permit here comes before every call of the API, retries and listings included.
//!
//! The service counts what arrives, not what is sent. In any second at most `rate + burst` permits are given, and the
//! requests already on their way can add at most `max_in_flight`; the configuration keeps the sum under the service's
//! limit of 100. A permit is therefore held until the answer has been read. The bucket starts empty, so that a program
//! that is restarted again and again gets no fresh burst.
//!
//! governor decides when; the fair lock around it decides who. Without that lock every waiter wakes at the same
//! instant and asks again, in no order.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::config::Limits;

/// Gives permits for API requests, first come, first served.
#[derive(Debug)]
pub struct Gate {
    line: tokio::sync::Mutex<()>,
    turn: tokio::sync::Mutex<()>,
    bucket: RateLimiter<NotKeyed, InMemoryState, SinceStart, NoOpMiddleware<Duration>>,
    clock: SinceStart,
    in_flight: Semaphore,
    usage: Mutex<Recent>,
}

/// The right to have one request under way. Drop it when the answer has been read.
#[derive(Debug)]
#[must_use = "a request is under way as long as its permit lives"]
pub struct Permit<'a> {
    _slot: SemaphorePermit<'a>,
}

/// What the gate has let through so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Permits given.
    pub calls: u64,
    /// The most permits given within one second.
    pub peak: u64,
    /// How often the bucket was asked; it stays near `calls` when nobody asks out of turn.
    pub checks: u64,
}

#[derive(Debug, Default)]
struct Recent {
    usage: Usage,
    last_second: VecDeque<Duration>,
}

/// tokio's clock, counted from when the gate was made, so that a test can pause it.
#[derive(Debug, Clone)]
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Gate {
    /// A gate with an empty bucket. Limits of zero are taken as one; the configuration refuses them earlier.
    pub fn new(limits: Limits) -> Self {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let burst = count(limits.burst);
        let clock = SinceStart(Instant::now());
        let quota = Quota::per_second(count(limits.requests_per_second)).allow_burst(burst);
        let bucket = RateLimiter::direct_with_clock(quota, clock.clone());
        // A full bucket holds exactly one burst; taking it leaves the bucket empty.
        let _ = bucket.check_n(burst);
        Self {
            line: tokio::sync::Mutex::new(()),
            turn: tokio::sync::Mutex::new(()),
            bucket,
            clock,
            in_flight: Semaphore::new(count(limits.max_in_flight).get() as usize),
            usage: Mutex::default(),
        }
    }

    /// Waits in line for the right to send one request.
    pub async fn permit(&self) -> Permit<'_> {
        let _line = self.line.lock().await;
        self.next_permit().await
    }

    /// Waits for the right to send one request ahead of the line, for what rests on a fresh look: behind at most the
    /// first in line and others like it. It counts like any other.
    pub async fn urgent_permit(&self) -> Permit<'_> {
        self.next_permit().await
    }

    async fn next_permit(&self) -> Permit<'_> {
        let _turn = self.turn.lock().await;
        let Ok(slot) = self.in_flight.acquire().await else {
            unreachable!("the gate never closes its semaphore")
        };
        let mut checks = 1;
        while let Err(early) = self.bucket.check() {
            tokio::time::sleep(early.wait_time_from(self.clock.now())).await;
            checks += 1;
        }
        self.count(checks);
        Permit { _slot: slot }
    }

    /// What has been let through so far.
    pub fn usage(&self) -> Usage {
        self.usage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .usage
    }

    fn count(&self, checks: u64) {
        let now = self.clock.now();
        let mut recent = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        recent.last_second.push_back(now);
        while recent
            .last_second
            .front()
            .is_some_and(|first| now.saturating_sub(*first) >= Duration::from_secs(1))
        {
            recent.last_second.pop_front();
        }
        let within = recent.last_second.len() as u64;
        recent.usage.calls += 1;
        recent.usage.checks += checks;
        recent.usage.peak = recent.usage.peak.max(within);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::{ProptestConfig, prop_assert, proptest};

    use super::*;

    fn paused<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(future)
    }

    fn limits(requests_per_second: u32, burst: u32, max_in_flight: u32) -> Limits {
        Limits {
            requests_per_second,
            burst,
            max_in_flight,
        }
    }

    /// The most grants in any closed second.
    fn busiest(grants: &[Duration]) -> usize {
        (0..grants.len())
            .map(|first| {
                grants[first..]
                    .iter()
                    .take_while(|t| **t - grants[first] <= Duration::from_secs(1))
                    .count()
            })
            .max()
            .unwrap_or(0)
    }

    /// Asks for permits without pause, resting now and then, and returns when each was granted.
    async fn greedy(limits: Limits, rests: &[u64], each: usize) -> Vec<Duration> {
        let gate = Gate::new(limits);
        let start = Instant::now();
        let mut grants = Vec::new();
        for rest in rests {
            tokio::time::sleep(Duration::from_millis(*rest)).await;
            for _ in 0..each {
                let permit = gate.permit().await;
                grants.push(start.elapsed());
                drop(permit);
            }
        }
        grants
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_second_grants_more_than_rate_and_burst(
            rate in 1u32..=97,
            burst_share in 0u32..=100,
            rests in proptest::collection::vec(0u64..3_000, 1..6),
        ) {
            let burst = 1 + (97 - rate) * burst_share / 100;
            let grants = paused(greedy(limits(rate, burst, 1), &rests, 150));
            prop_assert!(busiest(&grants) <= (rate + burst) as usize, "{}", busiest(&grants));
        }
    }

    #[test]
    fn a_new_gate_has_no_burst_to_give() {
        let grants = paused(greedy(limits(80, 10, 8), &[0], 200));
        assert!(grants[0] >= Duration::from_millis(12), "{:?}", grants[0]);
        assert!(busiest(&grants) <= 81, "{}", busiest(&grants));
    }

    #[test]
    fn a_rested_gate_gives_its_burst_at_once() {
        let grants = paused(greedy(limits(80, 10, 8), &[1_000], 11));
        assert_eq!(grants[0], grants[9]);
        assert!(grants[10] > grants[9]);
    }

    #[test]
    fn the_full_rate_is_used_while_there_is_work() {
        let grants = paused(greedy(limits(80, 10, 8), &[0], 4_000));
        let seconds = grants.last().unwrap().as_secs_f64();
        assert!(4_000.0 / seconds >= 0.97 * 80.0, "{seconds}");
    }

    #[test]
    fn waiting_tasks_are_served_in_order_with_about_one_check_each() {
        paused(async {
            const TASKS: usize = 500;
            let gate = Arc::new(Gate::new(limits(80, 10, 8)));
            let served = Arc::new(Mutex::new(Vec::new()));
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..TASKS {
                let (gate, served) = (gate.clone(), served.clone());
                tasks.spawn(async move {
                    let _permit = gate.permit().await;
                    served.lock().unwrap().push(number);
                });
                tokio::task::yield_now().await;
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
            assert_eq!(*served.lock().unwrap(), (0..TASKS).collect::<Vec<_>>());
            let usage = gate.usage();
            assert_eq!(usage.calls, TASKS as u64);
            assert!(usage.checks <= 2 * TASKS as u64 + 1, "{}", usage.checks);
        });
    }

    #[test]
    fn an_urgent_request_waits_for_the_first_in_line_only() {
        paused(async {
            let gate = Arc::new(Gate::new(limits(2, 1, 8)));
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..50 {
                let gate = gate.clone();
                tasks.spawn(async move { drop(gate.permit().await) });
                tokio::task::yield_now().await;
            }
            let begun = Instant::now();
            drop(gate.urgent_permit().await);
            assert!(
                begun.elapsed() <= Duration::from_millis(1_010),
                "{:?}",
                begun.elapsed()
            );
        });
    }

    #[test]
    fn no_more_requests_are_under_way_than_there_are_slots() {
        paused(async {
            let gate = Gate::new(limits(80, 10, 3));
            let held = [
                gate.permit().await,
                gate.permit().await,
                gate.permit().await,
            ];
            let wait = Duration::from_secs(3_600);
            assert!(tokio::time::timeout(wait, gate.permit()).await.is_err());
            drop(held);
            assert!(tokio::time::timeout(wait, gate.permit()).await.is_ok());
        });
    }

    #[test]
    fn the_peak_is_the_busiest_second() {
        paused(async {
            let gate = Gate::new(limits(50, 10, 8));
            for _ in 0..200 {
                drop(gate.permit().await);
            }
            let peak = gate.usage().peak;
            assert!((49..=60).contains(&peak), "{peak}");
        });
    }
}
