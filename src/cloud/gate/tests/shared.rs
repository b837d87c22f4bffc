//! What the gates of one directory share, be they in one process or in many.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn a_second_gate_of_a_directory_gets_no_burst_of_its_own() {
    paused(async {
        let (first, dir) = lone_gate(limits(80, 10, 8));
        rest(5_000).await;
        let mut all = grants(&first, 10).await;
        let second = Gate::new(limits(80, 10, 8), dir.path(), now);
        all.extend(grants(&second, 100).await);
        assert_eq!(all[0], all[9]);
        assert!(all[10] > all[9]);
        assert!(busiest(&all) <= 90, "{}", busiest(&all));
    });
}

#[test]
fn a_gate_made_anew_three_hundred_times_stays_within_one_budget() {
    paused(async {
        let dir = TempDir::new().unwrap();
        let mut all = Vec::new();
        for life in 0..300_u64 {
            let gate = Gate::new(limits(80, 10, 8), dir.path(), now);
            let end = Instant::now() + Duration::from_millis(life * 7 % 120);
            while let Ok(permit) = tokio::time::timeout_at(end, gate.permit()).await {
                all.push(now().since_boot());
                drop(permit);
            }
        }
        assert!(busiest(&all) <= 90, "{}", busiest(&all));
        assert!(all.len() > 1_000, "{}", all.len());
    });
}

/// Lets several gates of one directory work at the same time, each with a rest before every so many permits, and
/// returns when each was granted.
async fn side_by_side(gates: &[(Limits, u64)], rounds: usize, each: usize) -> Vec<Vec<Duration>> {
    let dir = TempDir::new().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for (number, (limits, pause)) in gates.iter().copied().enumerate() {
        let gate = Gate::new(limits, dir.path(), now);
        tasks.spawn(async move {
            let mut all = Vec::new();
            for _ in 0..rounds {
                rest(pause).await;
                all.extend(grants(&gate, each).await);
            }
            (number, all)
        });
    }
    let mut all = vec![Vec::new(); gates.len()];
    while let Some(ended) = tasks.join_next().await {
        let (number, grants) = ended.unwrap();
        all[number] = grants;
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn gates_of_one_directory_stay_within_one_budget(
        settings in proptest::collection::vec((1u32..=90, 1u32..=90), 3),
        pauses in proptest::collection::vec(0u64..2_000, 3),
    ) {
        let gates: Vec<(Limits, u64)> = settings.iter().zip(&pauses).map(|((rate, burst), pause)| (limits(*rate, (*burst).min(91 - rate), 8), *pause)).collect();
        let mut all = paused(side_by_side(&gates, 3, 60)).concat();
        all.sort_unstable();
        let most = gates.iter().map(|(limits, _)| limits.requests_per_second + limits.burst).max().unwrap();
        prop_assert!(busiest(&all) <= most as usize, "{} of {most}", busiest(&all));
    }
}

#[test]
fn gates_of_one_directory_use_the_full_rate_together() {
    let mut all = paused(side_by_side(&[(limits(80, 10, 8), 0); 3], 1, 400)).concat();
    all.sort_unstable();
    let seconds = (all[1_199] - Duration::from_secs(1_000)).as_secs_f64();
    let rate = 1_200.0 / seconds;
    assert!((0.97 * 80.0..=80.0).contains(&rate), "{rate}");
}

#[test]
fn a_budget_that_is_lost_or_damaged_is_an_empty_one() {
    type Damage = fn(&Path);
    let damages: [Damage; 6] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::remove_dir_all(file.parent().unwrap()).unwrap(),
        |file| fs::write(file, "").unwrap(),
        |file| fs::write(file, fs::read(file).unwrap().split_off(1)).unwrap(),
        |file| fs::write(file, vec![0; 1 << 20]).unwrap(),
        |file| {
            let text = fs::read_to_string(file).unwrap();
            let other: Vec<String> = text
                .lines()
                .map(|line| format!("{}{}\n", "x".repeat(36), &line[36..]))
                .collect();
            fs::write(file, other.concat()).unwrap();
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        paused(async {
            let (gate, dir) = lone_gate(limits(80, 10, 8));
            rest(5_000).await;
            damage(&dir.path().join("budget"));
            let all = grants(&gate, 200).await;
            assert!(busiest(&all) <= 81, "{number}: {}", busiest(&all));
            assert!(all[0] > Duration::from_secs(1_005), "{number}");
            rest(5_000).await;
            let all = grants(&gate, 10).await;
            assert_eq!(all[0], all[9], "{number}");
            assert_eq!(gate.state().degraded, None);
        });
    }
}

#[test]
fn the_place_of_a_killed_process_is_free_after_two_seconds() {
    paused(async {
        let (gate, dir) = lone_gate(limits(80, 10, 1));
        // Its files are closed, and nothing is tidied up.
        std::mem::forget(gate.permit().await);
        drop(gate);
        rest(60_000).await;
        let next = Gate::new(limits(80, 10, 1), dir.path(), now);
        let wait = wait_for(&next).await;
        assert!((2_000..2_020).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(wait_for(&next).await, Duration::ZERO);
    });
}

#[test]
fn a_request_without_an_answer_keeps_its_place_for_two_seconds() {
    paused(async {
        let (gate, dir) = lone_gate(limits(80, 10, 1));
        let other = Gate::new(limits(80, 10, 1), dir.path(), now);
        rest(1_000).await;
        let mut permit = gate.permit().await;
        permit.sending();
        drop(permit);
        let wait = wait_for(&other).await;
        assert!((2_000..2_020).contains(&wait.as_millis()), "{wait:?}");
        let mut permit = gate.permit().await;
        permit.sending();
        permit.answered();
        drop(permit);
        assert_eq!(wait_for(&other).await, Duration::ZERO);
    });
}

#[test]
fn a_place_that_says_nonsense_rests_once() {
    for nonsense in [
        "x",
        "99999999999999999999\n",
        "00000001000000000000",
        "\0\0\0",
    ] {
        paused(async {
            let (gate, dir) = lone_gate(limits(80, 10, 1));
            fs::write(dir.path().join("slot-0"), nonsense).unwrap();
            let wait = wait_for(&gate).await;
            assert!((2_000..2_020).contains(&wait.as_millis()), "{wait:?}");
        });
    }
}

#[test]
fn all_gates_of_a_directory_share_its_places() {
    paused(async {
        let (three, dir) = lone_gate(limits(80, 10, 3));
        let two = Gate::new(limits(80, 10, 2), dir.path(), now);
        rest(1_000).await;
        let first = three.permit().await;
        let second = two.permit().await;
        let wait = Duration::from_secs(20);
        assert!(tokio::time::timeout(wait, two.permit()).await.is_err());
        let third = three.permit().await;
        assert!(tokio::time::timeout(wait, three.permit()).await.is_err());
        drop(first);
        let wait = wait_for(&two).await;
        assert!(wait <= Duration::from_millis(20), "{wait:?}");
        drop((second, third));
    });
}

#[test]
fn a_process_with_work_for_all_places_lets_another_in() {
    paused(async {
        let (busy, dir) = lone_gate(limits(80, 10, 2));
        let busy = Arc::new(busy);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let busy = busy.clone();
            tasks.spawn(async move {
                let permit = busy.permit().await;
                rest(300).await;
                drop(permit);
            });
        }
        rest(1_000).await;
        let other = Gate::new(limits(80, 10, 2), dir.path(), now);
        for _ in 0..5 {
            let wait = wait_for(&other).await;
            assert!(wait <= Duration::from_millis(330), "{wait:?}");
        }
        assert_eq!(busy.state().degraded, None);
    });
}

#[test]
fn a_permit_that_is_no_longer_waited_for_leaves_its_place_free() {
    paused(async {
        let (gate, dir) = lone_gate(limits(1, 1, 1));
        let other = Gate::new(limits(1, 1, 1), dir.path(), now);
        let soon = Duration::from_millis(500);
        assert!(tokio::time::timeout(soon, gate.permit()).await.is_err());
        let wait = wait_for(&other).await;
        assert!(wait <= Duration::from_millis(510), "{wait:?}");
    });
}

#[test]
fn a_burst_of_refusals_halves_the_rate_once_and_for_all_gates() {
    paused(async {
        let (gate, dir) = lone_gate(limits(80, 10, 8));
        let other = Gate::new(limits(60, 10, 8), dir.path(), now);
        for _ in 0..8 {
            gate.throttled().await;
            rest(100).await;
        }
        let rates = || (gate.state().rate, other.state().rate);
        assert_eq!(rates(), (40, 30));
        assert_eq!(gate.state().configured, 80);
        drop(grants(&other, 20).await);
        let all = grants(&other, 90).await;
        let seconds = (all[89] - all[0]).as_secs_f64();
        assert!((2.9..3.1).contains(&seconds), "{seconds}");
        rest(10_000).await;
        assert_eq!(rates(), (48, 36));
        rest(60_000).await;
        assert_eq!(rates(), (80, 60));
    });
}

#[test]
fn the_files_are_their_owners_alone() {
    paused(async {
        let dir = TempDir::new().unwrap();
        let budget = dir.path().join("budget.d");
        let gate = Gate::new(limits(80, 10, 8), &budget, now);
        drop(gate.permit().await);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&budget) & 0o777, 0o700);
        for file in fs::read_dir(&budget).unwrap() {
            let file = file.unwrap();
            assert_eq!(mode(&file.path()) & 0o777, 0o600, "{file:?}");
        }
    });
}

#[test]
fn without_a_name_for_the_boot_every_start_empties_the_bucket_once() {
    paused(async {
        let dir = TempDir::new().unwrap();
        let draw = Draw {
            rate: NonZeroU32::new(80).unwrap(),
            burst: NonZeroU32::new(10).unwrap(),
        };
        for _ in 0..3 {
            let budget = Budget::new(dir.path(), draw, "", now);
            assert!(budget.take(PATIENCE).await.unwrap().is_err());
            rest(1_000).await;
            for taken in 0..11 {
                let grant = budget.take(PATIENCE).await.unwrap();
                assert_eq!(grant.is_ok(), taken < 10, "{taken}");
            }
            rest(5_000).await;
        }
    });
}
