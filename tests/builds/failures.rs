//! Builds that fail: nothing of what they wrote goes up, everybody is told why, and the next good one does.

use super::{BUILD, bed, fifo, heard, made, runs, save, until_gone, versions};
use crate::common::code;

#[tokio::test]
async fn what_a_failed_build_wrote_does_not_go_up_until_one_succeeds() {
    let bed = bed(BUILD, "").await;
    let mut watch = bed.watch_from_start(&[]);
    watch.until("built").await;
    bed.sync().await;
    save(&bed, "bad");
    let broken = watch.until("broken").await;
    assert_eq!(broken["exit"], 3);
    assert_eq!(broken["build"], "sh build.sh");
    assert_eq!(broken["problem"]["class"], "build");
    assert_eq!(
        broken["output"],
        serde_json::json!(["building bad", "no good: bad"])
    );
    let ended = bed.run(&["sync"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let (exit, status) = bed.status().await;
    let routine = &status["routines"][0];
    assert_eq!(
        (exit, &routine["state"], &routine["pending"]),
        (Some(1), &"broken".into(), &1.into())
    );
    let what = routine["reason"]["what"].as_str().unwrap();
    assert!(
        what.starts_with("its build failed: `sh build.sh` ended with exit code 3"),
        "{what}"
    );
    assert_eq!(versions(&bed), [made("first")]);
    save(&bed, "good");
    bed.sync().await;
    assert_eq!(versions(&bed), ["first", "good"].map(made));
    assert_eq!(bed.status().await.0, Some(0));
    watch.stop().await;
    bed.assert_at_rest();
}

#[tokio::test]
async fn what_somebody_else_writes_after_a_failed_build_goes_up() {
    let bed = bed(BUILD, "").await;
    let mut watch = bed.watch_from_start(&[]);
    watch.until("built").await;
    bed.sync().await;
    save(&bed, "bad");
    watch.until("broken").await;
    assert_eq!(bed.run(&["sync"]).await.code, Some(1));
    bed.write("hello", &code("hello", 7));
    bed.sync().await;
    assert_eq!(versions(&bed), [made("first"), code("hello", 7)]);
    assert_eq!(runs(&bed), 2);
    watch.stop().await;
}

#[tokio::test]
async fn a_build_that_fails_at_the_start_uploads_nothing() {
    for arguments in [&["push"][..], &["watch", "--once"]] {
        let bed = bed(BUILD, "").await;
        save(&bed, "bad");
        let ended = bed.run(arguments).await;
        assert_eq!(ended.code, Some(1), "{}", ended.stdout);
        let error = ended.of("error").remove(0);
        assert_eq!(error["problem"]["class"], "build");
        assert_eq!((versions(&bed).len(), runs(&bed)), (0, 1));
    }
    let bed = bed(BUILD, "").await;
    save(&bed, "bad");
    let mut watch = bed.watch_from_start(&[]);
    watch.until("broken").await;
    assert_eq!(bed.run(&["sync"]).await.code, Some(1));
    assert_eq!(versions(&bed).len(), 0);
    save(&bed, "good");
    bed.sync().await;
    assert_eq!(versions(&bed), [made("good")]);
    watch.stop().await;
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_ended_with_all_its_processes() {
    let script = "(trap '' TERM; sleep 600) & echo $! > begun; wait";
    let bed = bed(script, ", timeout = \"1s\"").await;
    fifo(&bed, "begun");
    let mut watch = bed.watch_from_start(&[]);
    let pid = heard(&bed.path("begun")).await;
    let broken = watch.until("broken").await;
    let what = broken["problem"]["what"].as_str().unwrap();
    assert!(what.ends_with("took longer than 1s"), "{what}");
    until_gone(&pid).await;
    watch.stop().await;
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named_with_a_way_out() {
    let bed = bed("", "").await;
    super::configure(&bed, "command = \"no-such-tool --now\", watch = [\"in\"]");
    let ended = bed.run(&["push"]).await;
    let broken = ended.of("broken").remove(0);
    assert_eq!(broken["exit"], 127);
    assert!(
        broken["problem"]["help"]
            .as_str()
            .unwrap()
            .contains("node_modules/.bin")
    );
}

#[tokio::test]
async fn on_a_terminal_or_not_the_reason_of_a_failed_build_is_shown() {
    let bed = bed(BUILD, "").await;
    save(&bed, "bad");
    let ended = bed.run(&["push", "--format", "text"]).await;
    assert!(
        ended.stdout.contains(
            "Broken  hello  its build failed: `sh build.sh` ended with exit code 3 [build]"
        ),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stdout.contains("                 | no good: bad\n"),
        "{}",
        ended.stdout
    );
}
