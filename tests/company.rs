//! Other people and other er-dev at the same routine: nobody's live version goes, and nobody waits for ever.

use std::time::{Duration, Instant};

use crate::common::{Bed, QUICK, code, name};
use er_dev::emulator::history::{POST_OBJECT, Record};
use er_dev::emulator::world::{Settings, Slot, World};
use er_dev::revision::lock;
use er_dev::routine::Digest;

fn count(world: &World, routine: &str) -> usize {
    world.routine(&name(routine)).unwrap().versions().len()
}

#[tokio::test]
async fn d06_what_a_person_deleted_is_uploaded_again_only_if_it_is_the_present_content() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&["--settle-margin", "1s"]).await;
    for save in 1..=3 {
        bed.write("hello", &code("hello", save));
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    }
    let before = bed.history().len();
    for revision in bed.versions("hello") {
        bed.emulator
            .with_world(|world| world.delete(&name("hello"), &revision).unwrap());
    }
    bed.write("hello", &code("hello", 2));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.stop().await;
    assert_eq!(bed.codes("hello"), [code("hello", 2).into_bytes()]);
    let history = bed.history();
    let uploads = history[before..]
        .iter()
        .filter(|record| record.op == "UploadRoutineCode");
    assert_eq!(uploads.count(), 1);
}

#[tokio::test]
async fn d07_others_who_upload_all_the_time_lose_their_oldest_or_with_own_nothing() {
    for (rotate, ends) in [("any", "uploaded"), ("own", "retrying")] {
        let more = format!("[revisions]\nrotate = \"{rotate}\"");
        let bed = Bed::with(&["hello"], Settings::default(), &more).await;
        bed.seed("hello", 9);
        let mut watch = bed.watch(&[]).await;
        bed.until("full again", |world| {
            count(world, "hello") == if rotate == "any" { 9 } else { 10 }
        })
        .await;
        for save in 1..=3 {
            if bed.versions("hello").len() < 10 {
                bed.seed_now("hello");
            }
            bed.write("hello", &code("hello", save));
            let end = watch.until(ends).await;
            assert_eq!(end["routine"], "hello");
            if rotate == "own" {
                assert_eq!(end["problem"]["class"], "slots", "{end}");
                break;
            }
        }
        let foreign = bed
            .codes("hello")
            .iter()
            .filter(|code| code.starts_with(b"// foreign"))
            .count();
        assert!(rotate == "any" || foreign == 9, "{foreign}");
        watch.kill().await;
        let deleted: Vec<_> = bed
            .history()
            .into_iter()
            .filter(|record| record.op == "DeleteRoutineCodeRevision" && record.processed)
            .map(|record| record.revision.unwrap())
            .collect();
        assert_eq!(deleted.is_empty(), rotate == "own", "{deleted:?}");
        let oldest_left = bed.versions("hello").remove(0);
        assert!(
            deleted.is_sorted() && deleted.iter().all(|gone| *gone < oldest_left),
            "{deleted:?} went, {oldest_left} is left"
        );
    }
}

#[tokio::test]
async fn d08_a_push_goes_on_beside_a_watch_and_both_stay_right() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    for save in 1..=6 {
        bed.write("hello", &code("hello", save));
        let pushed = bed.run(&["push"]).await;
        assert_eq!(pushed.code, Some(0), "{}", pushed.stdout);
        let end = watch.end_of_edit().await;
        let ends = ["uploaded", "unchanged", "superseded"];
        assert!(ends.contains(&end["event"].as_str().unwrap()), "{end}");
    }
    watch.stop().await;
    assert_eq!(bed.codes("hello").len(), 7, "each content once");
    bed.assert_at_rest();
}

#[tokio::test]
async fn d08_publish_prune_and_restore_go_on_beside_a_watch_that_uploads() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 9);
    let mut watch = bed.watch(QUICK).await;
    bed.until("something is kept", |world| count(world, "hello") <= 9)
        .await;
    let kept = bed.vaulted("hello").pop_first().unwrap();
    for save in 1..=5 {
        bed.write("hello", &code("hello", save));
        let run = async |arguments: &[&str]| {
            let ended = bed.run(&[arguments, QUICK].concat()).await;
            assert_eq!(
                ended.code,
                Some(0),
                "{arguments:?}: {}{}",
                ended.stdout,
                ended.stderr
            );
        };
        let publish = ["publish", "hello", "--env", "production", "--yes"];
        let prune = ["prune", "hello", "--keep", "8"];
        let restore = ["restore", "hello", kept.as_str()];
        tokio::join!(run(&publish), run(&prune), run(&restore));
        let end = watch.end_of_edit().await;
        assert_eq!(end["event"], "uploaded", "{end}");
    }
    bed.sync().await;
    watch.stop().await;
    let live = bed.emulator.with_world(|world| {
        let routine = world.routine(&name("hello")).unwrap();
        routine.live("production").cloned()
    });
    assert!(bed.versions("hello").contains(&live.unwrap()));
    bed.assert_at_rest();
}

#[tokio::test]
async fn d08_a_watch_that_starts_amid_a_push_takes_what_that_has_made_for_there() {
    let settings = Settings {
        slot: Slot::AtCallback,
        ..Settings::default()
    };
    let bed = Bed::with(&["hello"], settings, "").await;
    // The version is made and not listed yet when the watch takes its first look.
    bed.fault("UploadRoutineCode:1:delay(1500)");
    let pushing = bed.run(&["push"]);
    let watching = async {
        bed.until_asked("UploadRoutineCode", 1).await;
        let mut watch = bed.watch_from_start(&[]);
        watch.until("ready").await;
        assert_eq!(bed.asked(POST_OBJECT), 0, "the push was over");
        watch
    };
    let (pushed, mut watch) = tokio::join!(pushing, watching);
    let begun = Instant::now();
    assert_eq!(pushed.of("uploaded").len(), 1, "{}", pushed.stdout);
    assert_eq!(watch.end_of_edit().await["event"], "unchanged");
    let waited = begun.elapsed();
    assert!(
        waited < Duration::from_secs(5),
        "{waited:?} for what was over"
    );
    watch.stop().await;
    assert_eq!(bed.asked("UploadRoutineCode"), 1);
    bed.assert_at_rest();
}

#[tokio::test]
async fn d08_a_push_that_has_to_wait_takes_the_file_as_it_is_when_its_turn_comes() {
    let bed = Bed::new(&["hello"]).await;
    assert_eq!(bed.push().await.code, Some(0));
    let dir = bed.routine_dir("hello");
    let held = lock::step(&dir, Duration::ZERO).await.unwrap();
    let (opened, mut opens) = tokio::sync::mpsc::unbounded_channel();
    let tell = move |event: notify::Result<notify::Event>| {
        let event = event.unwrap();
        if event.paths.iter().any(|path| path.ends_with("step.lock")) {
            let _ = opened.send(());
        }
    };
    let mut watcher = notify::recommended_watcher(tell).unwrap();
    let flat = notify::RecursiveMode::NonRecursive;
    notify::Watcher::watch(&mut watcher, &dir, flat).unwrap();
    bed.write("hello", &code("hello", 1));
    let pushing = bed.run(&["push"]);
    let waiting = async {
        // Session and pass open it once each; from the third time on the push waits for it.
        for _ in 0..3 {
            opens.recv().await.unwrap();
        }
        bed.write("hello", &code("hello", 2));
        drop(held);
    };
    let (pushed, ()) = tokio::join!(pushing, waiting);
    assert_eq!(pushed.code, Some(0), "{}{}", pushed.stdout, pushed.stderr);
    let codes = bed.codes("hello");
    assert_eq!(codes[1..], [code("hello", 2).into_bytes()]);
}

#[tokio::test]
async fn d09_a_holder_of_the_lock_that_stands_still_is_waited_for_and_not_robbed() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    bed.fault("UploadRoutineCode:1:delay(60000)");
    bed.write("hello", &code("hello", 1));
    bed.until_asked("UploadRoutineCode", 2).await;
    watch.signal(rustix::process::Signal::STOP);
    let pushed = bed
        .run(&["push", "--lock-wait", "200ms", "--timeout", "1s"])
        .await;
    watch.signal(rustix::process::Signal::CONT);
    assert_eq!(pushed.code, Some(75), "{}{}", pushed.stdout, pushed.stderr);
    assert_eq!(pushed.of("error")[0]["problem"]["class"], "locked");
    drop(watch);
}

#[tokio::test]
async fn d11_an_er_dev_of_another_host_is_noticed_and_no_live_version_goes() {
    let bed = Bed::new(&["hello"]).await;
    let oldest = bed.seed("hello", 8).remove(0);
    bed.publish("hello", &oldest, "production");
    let mut watch = bed.watch(&[]).await;
    let elsewhere = bed.path("elsewhere");
    for save in 1..=4 {
        bed.write("hello", &code("hello", save));
        let _ = watch.end_of_edit().await;
        let other = bed
            .run(&[
                "push",
                "--force",
                "--state-dir",
                elsewhere.to_str().unwrap(),
            ])
            .await;
        assert_eq!(other.code, Some(0), "{}{}", other.stdout, other.stderr);
        if save == 1 {
            let foreign = &other.of("foreign")[0];
            assert!(foreign["by"].is_string(), "{foreign}");
        }
    }
    // What the last pushes made is listed by the passes of these edits at the latest.
    for save in 5..=6 {
        bed.write("hello", &code("hello", save));
        let _ = watch.end_of_edit().await;
    }
    let noticed = watch
        .seen()
        .any(|event| event["event"] == "foreign" && event["by"].is_string());
    assert!(noticed, "the other er-dev was not noticed");
    watch.stop().await;
    assert!(bed.versions("hello").contains(&oldest));
    let history = bed.history();
    for save in 0..=6 {
        let digest = Some(Digest::of(code("hello", save).as_bytes()));
        let posted = |r: &&Record| r.op == POST_OBJECT && r.processed && r.sha256 == digest;
        let copies = history.iter().filter(posted).count();
        let pushed = usize::from((1..=4).contains(&save));
        assert!(
            copies <= 1 + pushed,
            "save {save} was posted {copies} times"
        );
    }
    let deletes = |r: &&Record| r.op == "DeleteRoutineCodeRevision" && r.processed;
    let deletes: Vec<_> = history.iter().filter(deletes).collect();
    assert!(!deletes.is_empty());
    for delete in deletes {
        // Nobody knows which of the two asked; a look of the other one within this time would be luck.
        let fresh = |r: &&Record| {
            let asked_before = r.ended <= delete.t && delete.t - r.t < 2_000_000_000;
            r.op == "DescribeRoutine" && asked_before
        };
        assert!(history.iter().any(|r| fresh(&r)), "{delete:#?}");
    }
}

#[tokio::test]
async fn d12_the_same_content_in_two_routines_is_two_versions() {
    let bed = Bed::new(&["a", "b"]).await;
    bed.write("a", "// the same");
    bed.write("b", "// the same");
    let watch = bed.watch(&[]).await;
    watch.stop().await;
    assert_eq!(bed.codes("a"), bed.codes("b"));
    assert_eq!(bed.codes("a"), [b"// the same".to_vec()]);
}

#[tokio::test]
async fn d13_going_back_after_a_restart_without_a_record_reads_back_and_uploads_nothing() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.stop().await;
    for half in [0, 1] {
        let journal = format!("journal.{half}.json");
        std::fs::remove_file(bed.routine_dir("hello").join(journal)).unwrap();
    }
    bed.write("hello", &code("hello", 0));
    let before = bed.history().len();
    let pushed = bed.run(&["push"]).await;
    assert_eq!(pushed.of("reused").len(), 1, "{}", pushed.stdout);
    let history = bed.history();
    let asked: Vec<_> = history[before..].iter().map(|record| record.op).collect();
    assert_eq!(asked, ["DescribeRoutine", "DescribeRoutineCodeRevision"]);
}

#[tokio::test]
async fn d14_a_version_that_stays_although_its_deletion_is_confirmed_ends_in_a_sentence() {
    let bed = Bed::new(&["hello"]).await;
    bed.world("delete_works=no");
    bed.seed("hello", 10);
    let mut watch = bed.watch_from_start(&["--settle-margin", "300ms"]);
    let told = loop {
        let told = watch.until("retrying").await;
        if told["problem"]["class"] == "service" {
            break told;
        }
    };
    let what = told["problem"]["what"].as_str().unwrap();
    assert!(what.contains("still lists it"), "{what}");
    let deletes = bed
        .history()
        .iter()
        .filter(|record| record.op == "DeleteRoutineCodeRevision")
        .count();
    assert_eq!(deletes, 3);
    let rotated = watch.seen().filter(|event| event["event"] == "rotated");
    assert_eq!(rotated.count(), 1, "it is told once");
    watch.kill().await;
}

#[tokio::test]
async fn d14_a_version_that_is_gone_and_listed_all_the_same_costs_no_other_one() {
    let bed = Bed::new(&["hello"]).await;
    bed.world("delete_works=no");
    bed.seed("hello", 10);
    // Once it was saved and deleted, its code cannot be read any more.
    bed.fault("DescribeRoutineCodeRevision:2-99:code(EdgeRoutine.GeneralError,the revision does not exist,400)");
    let mut watch = bed.watch_from_start(&["--settle-margin", "300ms"]);
    let told = loop {
        let told = watch.until("retrying").await;
        if told["problem"]["class"] == "service" {
            break told;
        }
    };
    let what = told["problem"]["what"].as_str().unwrap();
    assert!(what.contains("still lists it"), "{what}");
    assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 1);
    assert!(watch.seen().all(|event| event["event"] != "warning"));
    watch.kill().await;
}

#[tokio::test]
async fn d15_a_version_that_somebody_else_deleted_first_is_gone_and_that_is_all() {
    for answer in ["error", "ok"] {
        let bed = Bed::new(&["hello"]).await;
        bed.world(&format!("delete_unknown={answer}"));
        let oldest = bed.seed("hello", 8).remove(0);
        let mut watch = bed.watch(&["--settle-margin", "2s"]).await;
        // What the service tells is older than what a person did.
        bed.world("lag=1s");
        let delete = |world: &mut World| world.delete(&name("hello"), &oldest).unwrap();
        bed.emulator.with_world(delete);
        bed.write("hello", &code("hello", 1));
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
        bed.until_asked("DeleteRoutineCodeRevision", 1).await;
        bed.write("hello", &code("hello", 2));
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
        let (exit, done) = watch.stop().await;
        assert_eq!((exit, &done["failed"]), (Some(0), &0.into()));
        assert!(bed.versions("hello").len() <= 9);
    }
}

#[tokio::test]
async fn what_others_made_is_told_once_and_not_by_every_command_anew() {
    let bed = Bed::new(&["hello"]).await;
    bed.push().await;
    bed.emulator.with_world(|world| {
        let now = jiff::Timestamp::now();
        let made = world.seed(&name("hello"), Some(b"// foreign"), "by hand", now);
        made.unwrap();
    });
    for (save, told) in [(1, 1), (2, 0), (3, 0)] {
        bed.write("hello", &code("hello", save));
        let pushed = bed.push().await;
        assert_eq!(pushed.of("foreign").len(), told, "{}", pushed.stdout);
    }
}
