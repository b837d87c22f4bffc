//! The promises of one gate, on a clock that is paused. What several share, and what happens without it, stands beside.

mod degraded;
mod shared;
mod wired;

use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::{ProptestConfig, prop_assert, proptest};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;

thread_local! {
    /// When the clock of the test that runs in this thread began.
    static BEGIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A clock since a boot a thousand seconds before the test, which stands still whenever tokio's does.
fn now() -> Moment {
    let begin = BEGIN.get().unwrap();
    Moment::after_boot(Duration::from_secs(1_000) + begin.elapsed())
}

fn paused<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        BEGIN.set(Some(Instant::now()));
        future.await
    })
}

/// A gate with a budget of its own.
fn lone_gate(limits: Limits) -> (Gate, TempDir) {
    let dir = TempDir::new().unwrap();
    (Gate::new(limits, dir.path(), now), dir)
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
    let (gate, _dir) = lone_gate(limits);
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

/// Takes so many permits one after the other, and returns when each was granted.
async fn grants(gate: &Gate, count: usize) -> Vec<Duration> {
    let mut grants = Vec::new();
    for _ in 0..count {
        let permit = gate.permit().await;
        grants.push(now().since_boot());
        drop(permit);
    }
    grants
}

/// How long it takes to get a permit, which is given back at once.
async fn wait_for(gate: &Gate) -> Duration {
    let begun = Instant::now();
    drop(gate.permit().await);
    begun.elapsed()
}

async fn rest(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
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
        let (gate, _dir) = lone_gate(limits(80, 10, 8));
        let gate = Arc::new(gate);
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
        let (gate, _dir) = lone_gate(limits(2, 1, 8));
        let gate = Arc::new(gate);
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
        let (gate, _dir) = lone_gate(limits(80, 10, 3));
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
        let (gate, _dir) = lone_gate(limits(50, 10, 8));
        for _ in 0..200 {
            drop(gate.permit().await);
        }
        let peak = gate.usage().peak;
        assert!((49..=60).contains(&peak), "{peak}");
    });
}
