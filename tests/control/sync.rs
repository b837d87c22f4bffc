//! `er-dev sync`: when it returns, every edit made before it is on the service.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{STATUS, SYNC, ask, of, rest, send, socket, state};
use crate::common::{Bed, QUICK, code, finish, long};

/// Saves at random, syncs, and looks whether the service holds exactly the last bytes; so many times.
async fn rounds(bed: &Bed, rounds: usize) {
    let names: Vec<String> = bed.routines.iter().map(ToString::to_string).collect();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 1..=rounds {
        for save in 0..random.usize(1..12) {
            let name = &names[random.usize(..names.len())];
            bed.write(name, &code(name, 1_000 * round + save));
            if random.bool() {
                tokio::task::yield_now().await;
            }
        }
        bed.sync().await;
        for name in &names {
            let wanted = std::fs::read(bed.entry(name)).unwrap();
            let newest = bed.newest(name);
            assert!(newest == wanted, "round {round}: {name}");
        }
    }
    bed.assert_at_rest();
}

#[tokio::test]
async fn after_a_sync_the_service_holds_what_was_saved_before_it() {
    let bed = Bed::new(&["a", "b", "c"]).await;
    let watch = bed.watch(&[]).await;
    rounds(&bed, if long() { 200 } else { 50 }).await;
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
}

#[tokio::test]
async fn a_long_quiet_time_is_waited_for() {
    let bed = Bed::with(
        &["a", "b"],
        Default::default(),
        "[watch]\ndebounce = \"300ms\"\n",
    )
    .await;
    let watch = bed.watch(&[]).await;
    rounds(&bed, if long() { 50 } else { 8 }).await;
    watch.stop().await;
}

#[tokio::test]
async fn slow_uploads_are_waited_for() {
    let bed = Bed::new(&["a", "b", "c"]).await;
    bed.fault("*:*:delay(100)");
    let watch = bed.watch(&[]).await;
    rounds(&bed, if long() { 50 } else { 5 }).await;
    watch.stop().await;
}

#[tokio::test]
async fn without_an_edit_it_returns_and_nothing_is_asked_of_the_service() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    bed.sync().await;
    let before = bed.history().len();
    for _ in 0..5 {
        bed.sync().await;
    }
    assert_eq!(bed.history().len(), before);
    let mut command = bed.command(&["sync"]);
    command.env("ER_DEV_FORMAT", "text");
    let text = finish(command).await.stdout;
    assert!(
        text.starts_with("      Synced  1 routine, every edit is on the service"),
        "{text}"
    );
    watch.stop().await;
}

#[tokio::test]
async fn a_dry_run_says_what_it_is_and_nothing_is_claimed_to_be_on_the_service() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch_from_start(&["--dry-run"]);
    watch.until("planned").await;
    let (_, status) = bed.status().await;
    assert_eq!(status["dry_run"], true, "{status}");
    let as_text = async |command: &str| {
        let mut command = bed.command(&[command]);
        command.env("ER_DEV_FORMAT", "text");
        finish(command).await
    };
    let shown = as_text("status").await.stdout;
    assert!(shown.contains("     Dry run  nothing goes up"), "{shown}");
    bed.write("hello", &code("hello", 1));
    let ended = as_text("sync").await;
    assert_eq!(ended.code, Some(75), "{}", ended.stdout);
    assert!(
        ended
            .stdout
            .starts_with("  Unfinished  this watch is a dry run"),
        "{}",
        ended.stdout
    );
    watch.stop().await;
    assert!(bed.versions("hello").is_empty());
    let watch = bed.watch(&[]).await;
    assert_eq!(bed.status().await.1["dry_run"], false);
    bed.sync().await;
    watch.stop().await;
}

#[tokio::test]
async fn routines_of_the_configuration_that_no_watch_holds_are_named() {
    let bed = Bed::new(&["a", "b", "c"]).await;
    let mut first = bed.watch_from_start(&["--routine", "a"]);
    first.end_of_edit().await;
    let ended = bed.run(&["sync"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(ended.events()[0]["unheld"], serde_json::json!(["b", "c"]));
    let mut command = bed.command(&["sync"]);
    command.env("ER_DEV_FORMAT", "text");
    let text = finish(command).await.stdout;
    assert!(
        text.contains("    Not held  b: no running watch has it"),
        "{text}"
    );
    assert!(text.contains("    Not held  c: "), "{text}");
    // Several may share them.
    let mut second = bed.watch_from_start(&["--routine", "b", "--routine", "c"]);
    second.end_of_edit().await;
    second.end_of_edit().await;
    let ended = bed.run(&["sync"]).await;
    assert_eq!(ended.events()[0].get("unheld"), None, "{}", ended.stdout);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn what_is_not_there_in_time_is_75_and_said_with_its_reason() {
    let bed = Bed::new(&["hello", "other"]).await;
    let watch = bed.watch(&[]).await;
    bed.sync().await;
    bed.fault("UploadRoutineCode:1:delay(60000)");
    bed.write("hello", &code("hello", 1));
    let ended = bed.run(&["sync", "--timeout", "1s"]).await;
    assert_eq!(ended.code, Some(75), "{}", ended.stdout);
    let daemon = &ended.events()[0]["daemons"][0];
    assert_eq!(daemon["sync"], "unfinished");
    assert_eq!(state(&daemon["status"], "hello"), "pending");
    let mut command = bed.command(&["sync", "--timeout", "1s"]);
    command.env("ER_DEV_FORMAT", "text");
    let text = finish(command).await.stdout;
    for words in [
        "Unfinished  not every edit was on the service within 1s",
        "hello  pending, 1 edit pending",
    ] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!text.contains("other"), "{text}");
    watch.kill().await;
}

#[tokio::test]
async fn an_edit_that_failed_is_1_and_an_older_one_too_until_it_is_put_right() {
    let bed = Bed::new(&["hello", "other"]).await;
    let watch = bed.watch(&[]).await;
    bed.write("hello", "let a = ;\n");
    bed.write("other", &code("other", 1));
    let mut command = bed.command(&["sync"]);
    command.env("ER_DEV_FORMAT", "text");
    let ended = finish(command).await;
    assert_eq!(ended.code, Some(1));
    for words in [
        "Failed  1 of 2 routines",
        "hello  refused: src/hello.js:1:9 ",
        "= help: ",
    ] {
        assert!(ended.stdout.contains(words), "{}", ended.stdout);
    }
    assert_eq!(bed.newest("other"), code("other", 1).as_bytes());
    // It touches nothing of `hello`, whose last edit still is not on the service.
    bed.write("other", &code("other", 2));
    assert_eq!(bed.run(&["sync"]).await.code, Some(1));
    bed.write("hello", &code("hello", 1));
    bed.sync().await;
    watch.stop().await;
}

#[tokio::test]
async fn a_try_that_fails_is_waited_for_until_one_succeeds() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(QUICK).await;
    bed.fault("UploadRoutineCode:1-2:drop_after");
    bed.write("hello", &code("hello", 1));
    bed.sync().await;
    assert_eq!(bed.newest("hello"), code("hello", 1).as_bytes());
    watch.stop().await;
}

#[tokio::test]
async fn a_stop_ends_a_sync_at_once() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    let socket = socket(&bed);
    bed.fault("UploadRoutineCode:1:delay(60000)");
    bed.write("hello", &code("hello", 1));
    bed.until_asked("UploadRoutineCode", 2).await;
    let waiting = send(&socket, SYNC).await;
    let mut command = bed.command(&["sync"]);
    let child = command.spawn().unwrap();
    ask(&socket, STATUS).await;
    watch.signal(Signal::TERM);
    watch.until("stopping").await;
    // Neither waits for the drain, which is longer than anything here may take.
    let answer = rest(waiting).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("this er-dev is stopping"), "{answer}");
    let ended = tokio::time::timeout(Duration::from_secs(8), child.wait_with_output());
    let ended = ended.await.expect("it waits for the drain").unwrap();
    let stdout = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(75), "{stdout}");
    assert!(stdout.contains("this er-dev is stopping"), "{stdout}");
    // How things stand is told to the end.
    let (_, status) = bed.status().await;
    assert_eq!(of(&status, "hello")["pending"], 1);
    watch.signal(Signal::TERM);
    assert_eq!(watch.exit().await, Some(130));
}

#[tokio::test]
async fn a_kill_ends_a_sync_with_75() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let socket = socket(&bed);
    bed.fault("UploadRoutineCode:1:delay(60000)");
    bed.write("hello", &code("hello", 1));
    bed.until_asked("UploadRoutineCode", 2).await;
    let waiting = send(&socket, SYNC).await;
    ask(&socket, STATUS).await;
    watch.kill().await;
    assert_eq!(rest(waiting).await, "");
    assert_eq!(bed.run(&["sync"]).await.code, Some(75));
}

#[tokio::test]
async fn a_watch_that_does_not_answer_takes_no_more_time_than_was_given() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    watch.signal(Signal::STOP);
    let begun = Instant::now();
    let ended = bed.run(&["sync", "--timeout", "1s"]).await;
    let took = begun.elapsed();
    watch.signal(Signal::CONT);
    assert_eq!(ended.code, Some(75), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("it did not answer within 1s"),
        "{}",
        ended.stdout
    );
    assert!(took < Duration::from_secs(4), "{took:?}");
    watch.stop().await;
}
