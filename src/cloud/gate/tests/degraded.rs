//! How a gate goes on that cannot use the files it should share.

use std::fs::{self, File};

use super::*;

#[test]
fn a_gate_without_usable_files_is_slow_until_they_can_be_used() {
    paused(async {
        let dir = TempDir::new().unwrap();
        // No directory can be made below a file, not even by root.
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let gate = Gate::new(limits(80, 10, 8), &file.join("budget.d"), now);
        let state = gate.state();
        assert_eq!((state.rate, state.configured), (5, 80));
        let why = state.degraded.unwrap();
        assert!(
            why.contains("file/budget.d/budget: Not a directory"),
            "{why}"
        );
        rest(2_000).await;
        let all = grants(&gate, 40).await;
        assert!(busiest(&all) <= 6, "{}", busiest(&all));
        assert!(all[39] - all[0] <= Duration::from_millis(8_000));

        let mut permit = gate.permit().await;
        let long = Duration::from_secs(60);
        assert!(tokio::time::timeout(long, gate.permit()).await.is_err());
        permit.sending();
        drop(permit);
        let wait = wait_for(&gate).await;
        assert!(wait >= Duration::from_secs(2), "{wait:?}");

        fs::remove_file(&file).unwrap();
        rest(10_000).await;
        let all = grants(&gate, 200).await;
        assert!(busiest(&all) <= 81, "{}", busiest(&all));
        assert!(all[199] - all[0] <= Duration::from_millis(2_500));
        assert_eq!(gate.state().degraded, None);
        assert_eq!(gate.state().rate, 80);
    });
}

#[test]
fn a_gate_that_loses_its_files_goes_on_slowly_with_one_request_at_a_time() {
    paused(async {
        let dir = TempDir::new().unwrap();
        let budget = dir.path().join("budget.d");
        let gate = Gate::new(limits(80, 10, 8), &budget, now);
        rest(1_000).await;
        let under_way = [gate.permit().await, gate.permit().await];
        fs::remove_dir_all(&budget).unwrap();
        fs::write(&budget, "").unwrap();
        let long = Duration::from_secs(60);
        assert!(tokio::time::timeout(long, gate.permit()).await.is_err());
        drop(under_way);
        let all = grants(&gate, 40).await;
        assert!(busiest(&all) <= 6, "{}", busiest(&all));
        assert_eq!(gate.state().rate, 5);
        gate.throttled().await;
        assert_eq!(gate.state().rate, 2);
    });
}

#[test]
fn a_process_that_was_stopped_with_a_lock_does_not_stop_the_others() {
    for name in ["budget", "slot-0"] {
        paused(async {
            let (gate, dir) = lone_gate(limits(80, 10, 1));
            let stopped = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(dir.path().join(name))
                .unwrap();
            stopped.lock().unwrap();
            let wait = wait_for(&gate).await;
            assert!((30_000..31_000).contains(&wait.as_millis()), "{wait:?}");
            assert!(gate.state().degraded.is_some());
            assert_eq!(wait_for(&gate).await, Duration::from_millis(200));
            drop(stopped);
            rest(10_000).await;
            drop(grants(&gate, 10).await);
            assert_eq!(gate.state().degraded, None);
        });
    }
}

#[test]
fn a_gate_that_comes_back_brings_no_burst() {
    paused(async {
        let (gate, dir) = lone_gate(limits(80, 10, 8));
        let place = dir.path().join("slot-0");
        fs::create_dir(&place).unwrap();
        drop(grants(&gate, 10).await);
        let why = gate.state().degraded.unwrap();
        assert!(why.contains("slot-0: Is a directory"), "{why}");
        fs::remove_dir(&place).unwrap();
        rest(10_000).await;
        let all = grants(&gate, 200).await;
        assert_eq!(gate.state().degraded, None);
        assert!(busiest(&all) <= 81, "{}", busiest(&all));
    });
}

#[test]
fn a_budget_that_somebody_else_writes_to_is_left_alone() {
    paused(async {
        let (gate, dir) = lone_gate(limits(80, 10, 8));
        let file = dir.path().join("budget");
        let other = tokio::spawn(async move {
            loop {
                fs::write(&file, "of another machine").unwrap();
                rest(1).await;
            }
        });
        let all = grants(&gate, 100).await;
        assert!(busiest(&all) <= 6, "{}", busiest(&all));
        let why = gate.state().degraded.unwrap();
        assert!(why.ends_with("somebody else writes to it"), "{why}");
        other.abort();
        rest(10_000).await;
        drop(gate.permit().await);
        assert_eq!(gate.state().degraded, None);
    });
}
