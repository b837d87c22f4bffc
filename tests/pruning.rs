//! Which versions go when a person asks, and which stay whatever is asked: every way in which tools for other services
//! have lost somebody's versions is a test here.

use crate::common::{Bed, Ended, QUICK, code, name};
use er_dev::emulator::world::World;
use er_dev::routine::Revision;

async fn prune(bed: &Bed, arguments: &[&str]) -> Ended {
    bed.run(&[&["prune", "hello"], arguments, QUICK].concat())
        .await
}

fn rotated(ended: &Ended) -> Vec<String> {
    let events = ended.of("rotated").into_iter();
    events
        .map(|event| event["revision"].as_str().unwrap().to_owned())
        .collect()
}

fn numbers(revisions: &[Revision]) -> Vec<String> {
    revisions.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn prune_takes_the_oldest_first_and_says_why_each_one_and_not_an_older_one() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    bed.publish("hello", &versions[0], "production");
    let ended = prune(&bed, &["--keep", "6"]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(rotated(&ended), numbers(&versions[1..5]));
    for event in ended.of("rotated") {
        let reason = event["reason"].as_str().unwrap();
        let live = format!(
            "but {} (live in production), which stays",
            versions[0].short()
        );
        assert!(reason.contains(&live), "{reason}");
    }
    let pruned = &ended.of("pruned")[0];
    assert_eq!(
        (&pruned["rotated"], &pruned["left"]),
        (&4.into(), &6.into())
    );
    let kept = bed.run(&["restore", "hello", "--list"]).await.events();
    let reason = kept[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the oldest but"), "{reason}");
}

#[tokio::test]
async fn a_dry_run_of_prune_names_the_very_versions_that_would_go_and_deletes_none() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    bed.publish("hello", &versions[1], "staging");
    let planned = prune(&bed, &["--dry-run", "--keep", "5"]).await;
    assert_eq!(planned.code, Some(0), "{}", planned.stderr);
    assert_eq!(bed.versions("hello"), versions);
    let named: Vec<String> = planned
        .of("planned")
        .iter()
        .map(|event| {
            event["detail"]
                .as_str()
                .unwrap()
                .split(':')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(rotated(&prune(&bed, &["--keep", "5"]).await), named);
}

#[tokio::test]
async fn what_prune_was_asked_for_never_counts_for_more_than_the_reasons_to_stay() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 6);
    bed.publish("hello", &versions[0], "production");
    let ended = prune(&bed, &["--keep", "1"]).await;
    assert_eq!(ended.code, Some(1));
    let left = [&versions[..1], &versions[3..]].concat();
    assert_eq!(bed.versions("hello"), left);
    let stay = ended.of("pruned")[0]["stay"].as_str().unwrap().to_owned();
    assert!(
        stay.contains("live in production") && stay.contains("newest"),
        "{stay}"
    );
    assert_eq!(prune(&bed, &["--keep", "11"]).await.code, Some(2));
}

#[tokio::test]
async fn a_live_version_that_is_the_oldest_of_ten_stays() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    bed.publish("hello", &versions[0], "production");
    let ended = prune(&bed, &[]).await;
    assert_eq!(rotated(&ended), numbers(&versions[1..2]));
}

#[tokio::test]
async fn where_the_oldest_is_protected_the_second_goes() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    let pinned = bed.run(&["pin", "hello", versions[0].as_str()]).await;
    assert_eq!(pinned.code, Some(0), "{}", pinned.stderr);
    assert_eq!(rotated(&prune(&bed, &[]).await), numbers(&versions[1..2]));
    let shown = bed.run(&["revisions", "hello"]).await.events();
    let list = shown[0]["revisions"].as_array().unwrap();
    assert_eq!(list.last().unwrap()["stays"], "pinned");
}

#[tokio::test]
async fn a_pin_is_seen_by_a_watch_that_runs_and_taken_away_by_unpin() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 8);
    let mut watch = bed.watch(QUICK).await;
    let oldest = versions[0].as_str();
    assert_eq!(bed.run(&["pin", "hello", oldest]).await.code, Some(0));
    bed.write("hello", &code("hello", 1));
    let rotated = watch.until("rotated").await;
    assert_eq!(rotated["revision"], versions[1].as_str());
    let unknown = bed.run(&["unpin", "hello", versions[2].as_str()]).await;
    assert_eq!(unknown.code, Some(2), "{}", unknown.stdout);
    let says = format!("no pinned version ends in {}", versions[2]);
    assert!(unknown.stderr.contains(&says), "{}", unknown.stderr);
    let unpinned = bed.run(&["unpin", "hello", oldest]).await;
    assert_eq!(unpinned.code, Some(0), "{}", unpinned.stderr);
    bed.write("hello", &code("hello", 2));
    let rotated = watch.until("rotated").await;
    assert_eq!(rotated["revision"], oldest);
    watch.stop().await;
}

#[tokio::test]
async fn pins_that_cannot_be_read_keep_every_version() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    assert_eq!(
        bed.run(&["pin", "hello", versions[0].as_str()]).await.code,
        Some(0)
    );
    std::fs::write(bed.routine_dir("hello").join("pins.json"), "{\"v\":1,").unwrap();
    let ended = prune(&bed, &[]).await;
    assert_eq!(ended.code, Some(78), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("pins.json"), "{}", ended.stderr);
    assert_eq!(bed.versions("hello"), versions);
}

#[tokio::test]
async fn a_deletion_that_is_refused_once_does_not_keep_the_next_oldest_from_going() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    bed.fault("DeleteRoutineCodeRevision:1:code(InvalidParameter,in use,400)");
    let ended = prune(&bed, &[]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(rotated(&ended), numbers(&versions[1..2]));
    assert!(bed.versions("hello").contains(&versions[0]));
}

#[tokio::test]
async fn a_version_that_cannot_be_saved_stays_and_the_next_oldest_goes() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    let record = format!("vault/{}.json", versions[0]);
    std::fs::create_dir_all(bed.routine_dir("hello").join(record)).unwrap();
    let ended = prune(&bed, &[]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(rotated(&ended), numbers(&versions[1..2]));
    let what = ended.of("warning")[0]["problem"]["what"].to_string();
    let stays = format!(
        "version {} stays: its code could not be saved",
        versions[0].short()
    );
    assert!(what.contains(&stays), "{what}");
}

#[tokio::test]
async fn a_version_whose_code_is_another_one_each_time_it_is_read_stays_and_the_next_oldest_goes() {
    let bed = Bed::new(&["hello"]).await;
    assert_eq!(bed.push().await.code, Some(0));
    let ours = bed.versions("hello").pop().unwrap();
    bed.seed_now("hello");
    // It is not what holds the present bytes any more.
    bed.write("hello", &code("hello", 1));
    bed.fault("DescribeRoutineCodeRevision:1:answer({\"RequestId\":\"R\",\"Content\":{\"ErCode\":\"b3RoZXI=\"}})");
    let pushed = bed.push().await;
    assert_eq!(pushed.code, Some(0), "{}{}", pushed.stdout, pushed.stderr);
    let what = pushed.of("warning")[0]["problem"]["what"].to_string();
    assert!(what.contains("other code for it each time"), "{what}");
    assert!(bed.versions("hello").contains(&ours));
    assert!(!rotated(&pushed).is_empty());
}

#[tokio::test]
async fn a_deletion_that_is_confirmed_and_does_not_happen_is_an_error_and_no_loop() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    bed.fault(
        "DeleteRoutineCodeRevision:*:answer({\"RequestId\":\"R\",\"Content\":{\"Status\":\"OK\"}})",
    );
    let ended = prune(&bed, &[]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stderr.contains("still lists it"), "{}", ended.stderr);
    assert_eq!(bed.versions("hello"), versions);
    assert!(bed.asked("DeleteRoutineCodeRevision") <= 3);
}

#[tokio::test]
async fn somebody_who_publishes_between_the_plan_and_the_deletion_keeps_the_version() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    bed.fault("DescribeRoutineCodeRevision:1:delay(900)");
    let pruning = prune(&bed, &[]);
    let publishing = async {
        bed.until_asked("DescribeRoutineCodeRevision", 1).await;
        bed.publish("hello", &versions[0], "production");
    };
    let (ended, ()) = tokio::join!(pruning, publishing);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(rotated(&ended), numbers(&versions[1..2]));
    assert!(bed.versions("hello").contains(&versions[0]));
}

#[tokio::test]
async fn ten_uploads_of_its_own_that_failed_are_cleared_away_and_count_as_none_of_the_newest() {
    let bed = Bed::new(&["hello"]).await;
    let good = bed.seed("hello", 5);
    bed.fault("oss:1-10:code(AccessDenied,Policy Condition failed,403)");
    for save in 0..10 {
        bed.write("hello", &code("hello", save));
        bed.push().await;
        assert!(bed.versions("hello").len() <= 10);
    }
    bed.write("hello", &code("hello", 10));
    assert_eq!(bed.push().await.code, Some(0));
    let left = bed.versions("hello");
    assert!(
        good[2..].iter().all(|version| left.contains(version)),
        "{left:?}"
    );
}

#[tokio::test]
async fn at_ten_versions_of_somebody_else_own_waits_and_any_takes_the_oldest() {
    for (rotate, code_of) in [("own", 1), ("any", 0)] {
        let more = format!("[revisions]\nrotate = \"{rotate}\"");
        let bed = Bed::with(&["hello"], Default::default(), &more).await;
        let versions = bed.seed("hello", 10);
        let pushed = bed.push().await;
        assert_eq!(pushed.code, Some(code_of), "{rotate}: {}", pushed.stdout);
        assert_eq!(
            bed.versions("hello").contains(&versions[0]),
            rotate == "own"
        );
    }
}

#[tokio::test]
async fn who_holds_the_slots_is_told_from_the_oldest_on_with_one_command_for_all_pins() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    bed.publish("hello", &versions[0], "production");
    for revision in &versions[..9] {
        let pinned = bed.run(&["pin", "hello", revision.as_str()]).await;
        assert_eq!(pinned.code, Some(0), "{}", pinned.stderr);
    }
    let mut watch = bed.watch_from_start(QUICK);
    let retrying = watch.until("retrying").await;
    let what = retrying["problem"]["what"].as_str().unwrap();
    let places = versions.iter().map(|it| what.find(&it.short()).unwrap());
    assert!(places.is_sorted(), "{what}");
    let help = retrying["problem"]["help"].as_str().unwrap();
    let way = format!(
        "`er-dev unpin hello {}` (or another one of the 8 that are pinned)",
        versions[1]
    );
    assert!(help.contains(&way), "{help}");
    assert_eq!(help.matches("unpin").count(), 1, "{help}");
    let (_, status) = bed.status().await;
    assert_eq!(status["routines"][0]["slots"], 10, "{status}");
    watch.stop().await;
    // A pin is shown as well where it is not the first reason.
    let shown = bed.run(&["revisions", "hello"]).await.events();
    let oldest = shown[0]["revisions"].as_array().unwrap().last().unwrap();
    assert_eq!(oldest["stays"], "live in production");
    assert_eq!(oldest["pinned"], true);
    let mut table = bed.command(&["revisions", "hello"]);
    table.env("ER_DEV_FORMAT", "text");
    let table = crate::common::finish(table).await.stdout;
    assert!(
        table.contains("stays: live in production, pinned"),
        "{table}"
    );
}

#[tokio::test]
async fn an_edit_that_finds_all_slots_protected_waits_and_goes_up_by_itself_when_one_is_free() {
    let more = "[revisions]\npin = [\"by hand*\"]";
    let bed = Bed::with(&["hello"], Default::default(), more).await;
    let versions = bed.seed("hello", 10);
    let mut watch = bed.watch_from_start(QUICK);
    let retrying = watch.until("retrying").await;
    let problem = &retrying["problem"];
    assert_eq!(problem["class"], "slots");
    assert!(
        problem["what"]
            .as_str()
            .unwrap()
            .contains("pinned by a pattern"),
        "{problem}"
    );
    assert!(
        problem["help"]
            .as_str()
            .unwrap()
            .contains("a narrower `pin`"),
        "{problem}"
    );
    bed.emulator
        .with_world(|world: &mut World| world.delete(&name("hello"), &versions[4]).unwrap());
    watch.until("uploaded").await;
    assert_eq!(
        bed.codes("hello").pop().unwrap(),
        code("hello", 0).as_bytes()
    );
    watch.stop().await;
}

/// A watch whose present bytes lie in the oldest of ten versions, all newer ones made by somebody else.
async fn present_is_the_oldest(bed: &Bed) -> (crate::common::Watch, Revision) {
    let watch = bed.watch(QUICK).await;
    let present = bed.versions("hello")[0].clone();
    bed.seed_now("hello");
    (watch, present)
}

#[tokio::test]
async fn neither_prune_nor_restore_takes_the_version_with_the_present_bytes_from_a_watch() {
    let bed = Bed::new(&["hello"]).await;
    let (watch, present) = present_is_the_oldest(&bed).await;
    let ended = prune(&bed, &["--keep", "4"]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(bed.versions("hello").contains(&present));
    let reason = ended.of("rotated")[0]["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(reason.contains("(holds the present bytes)"), "{reason}");
    let shown = bed.run(&["revisions", "hello"]).await.events();
    let list = shown[0]["revisions"].as_array().unwrap();
    assert_eq!(list.last().unwrap()["stays"], "holds the present bytes");
    // Restoring with nine and with ten versions there makes room among the others.
    for _ in 0..2 {
        bed.seed_now("hello");
        let kept = bed.run(&["restore", "hello", "--list"]).await.events();
        let oldest = kept.last().unwrap()["revision"]
            .as_str()
            .unwrap()
            .to_owned();
        let ended = bed
            .run(&[&["restore", "hello", &oldest], QUICK].concat())
            .await;
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert!(bed.versions("hello").contains(&present));
    }
    watch.stop().await;
}

#[tokio::test]
async fn the_reason_of_a_deletion_is_true_also_when_the_present_bytes_are_the_oldest() {
    let bed = Bed::new(&["hello"]).await;
    let (watch, present) = present_is_the_oldest(&bed).await;
    watch.stop().await;
    let ended = bed.push().await;
    let reason = ended.of("rotated")[0]["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    let stays = format!(
        "the oldest but {} (holds the present bytes), which stays",
        present.short()
    );
    assert!(reason.starts_with(&stays), "{reason}");
    // An edit that needs the room takes it, since it holds the present bytes no more.
    bed.seed_now("hello");
    bed.write("hello", &code("hello", 1));
    let ended = bed.push().await;
    let rotated = &ended.of("rotated")[0];
    assert_eq!(rotated["revision"], present.as_str());
    assert_eq!(rotated["reason"], "the oldest; kept in the vault");
}

#[tokio::test]
async fn a_pattern_pins_what_er_dev_itself_has_made_and_what_was_restored_of_it() {
    let more = "[revisions]\npin = [\"*.js\"]";
    let bed = Bed::with(&["hello"], Default::default(), more).await;
    assert_eq!(bed.push().await.code, Some(0));
    let ours = bed.versions("hello")[0].clone();
    bed.seed_now("hello");
    bed.write("hello", &code("hello", 1));
    assert_eq!(bed.push().await.code, Some(0));
    assert!(bed.versions("hello").contains(&ours));
}

#[tokio::test]
async fn a_pin_of_a_version_that_is_being_deleted_is_refused_and_not_made() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    bed.fault("DeleteRoutineCodeRevision:1:delay(900)");
    let pinning = async {
        bed.until_asked("DeleteRoutineCodeRevision", 1).await;
        bed.run(&["pin", "hello", versions[0].as_str()]).await
    };
    let (pruned, pinned) = tokio::join!(prune(&bed, &[]), pinning);
    assert_eq!(rotated(&pruned), numbers(&versions[..1]));
    assert_eq!(pinned.code, Some(2), "{}", pinned.stdout);
    assert!(pinned.of("pinned").is_empty());
}

#[tokio::test]
async fn where_nothing_may_be_deleted_a_plan_of_prune_says_what_prune_says() {
    let more = "[revisions]\nrotate = \"never\"";
    let bed = Bed::with(&["hello"], Default::default(), more).await;
    bed.seed("hello", 10);
    for arguments in [&["--dry-run"][..], &[]] {
        let ended = prune(&bed, arguments).await;
        assert_eq!(ended.code, Some(1), "{arguments:?}");
        let pruned = &ended.of("pruned")[0];
        assert_eq!(
            (&pruned["rotated"], &pruned["left"]),
            (&0.into(), &10.into())
        );
        assert!(
            pruned["stay"].as_str().unwrap().contains("never"),
            "{pruned}"
        );
    }
}

#[tokio::test]
async fn a_routine_that_is_missing_keeps_no_other_from_being_listed_and_pruned() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    let text = std::fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    let missing = "[[routine]]\nname = \"aaa\"\nentry = \"src/hello.js\"\n";
    std::fs::write(bed.path("er-dev.toml"), format!("{text}{missing}")).unwrap();
    let listed = bed.run(&["revisions"]).await;
    assert_eq!(listed.code, Some(1));
    assert_eq!(listed.events()[0]["routine"], "hello");
    assert!(listed.stderr.contains("aaa: "), "{}", listed.stderr);
    let ended = bed.run(&[&["prune"][..], QUICK].concat()).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(rotated(&ended), numbers(&versions[..1]));
}

#[tokio::test]
async fn in_a_shuffled_listing_with_numbers_of_different_length_the_lowest_number_is_the_oldest() {
    let bed = Bed::new(&["hello"]).await;
    let numbers = [
        "1790000000000000007",
        "961",
        "1790000000000000002",
        "99999",
        "1790000000000000010",
        "1620876959997924701",
        "1620876959997924700",
        "1790000000000000003",
        "7",
        "1790000000000000001",
    ];
    let rows: Vec<String> = numbers
        .iter()
        .map(|number| format!("{{\"CodeRevision\":\"{number}\"}}"))
        .collect();
    bed.fault(&format!(
        "DescribeRoutine:*:answer({{\"RequestId\":\"R\",\"Content\":{{\"CodeRevs\":[{}],\"EnvConf\":{{\"production\":{{\"CodeRev\":\"961\"}}}}}}}})",
        rows.join(",")
    ));
    let ended = prune(&bed, &["--dry-run", "--keep", "5"]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let planned: Vec<String> = ended
        .of("planned")
        .iter()
        .map(|event| {
            event["detail"]
                .as_str()
                .unwrap()
                .split(':')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        planned,
        [
            "7",
            "99999",
            "1620876959997924700",
            "1620876959997924701",
            "1790000000000000001"
        ]
    );
}
