//! Nothing of a build goes on after er-dev has ended, however it ended.

use std::time::{Duration, Instant};

use super::{bed, fifo, heard, until_gone};

/// Runs for ever with a child that does, too, and says their numbers.
const ENDLESS: &str = "sleep 600 & echo $! > begun; wait";

/// The same, and hears no request to end.
const DEAF: &str = "trap '' TERM INT HUP; sleep 600 & echo $! > begun; wait";

#[tokio::test]
async fn a_stop_ends_a_running_build_and_everything_it_started() {
    for script in [ENDLESS, DEAF] {
        let bed = bed(script, "").await;
        fifo(&bed, "begun");
        let mut watch = bed.watch_from_start(&[]);
        watch.until("ready").await;
        let pid = heard(&bed.path("begun")).await;
        let begun = Instant::now();
        let (exit, done) = watch.stop().await;
        assert!(
            begun.elapsed() < Duration::from_secs(9),
            "{:?}",
            begun.elapsed()
        );
        // The first edit waited for the build.
        assert_eq!((exit, &done["abandoned"]), (Some(75), &1.into()));
        until_gone(&pid).await;
    }
}

#[tokio::test]
async fn no_build_survives_er_dev_even_where_that_is_killed() {
    for script in [ENDLESS, DEAF] {
        let bed = bed(script, "").await;
        fifo(&bed, "begun");
        let watch = bed.watch_from_start(&[]);
        let pid = heard(&bed.path("begun")).await;
        watch.kill().await;
        until_gone(&pid).await;
    }
}

#[tokio::test]
async fn a_push_whose_time_is_up_leaves_no_build_behind() {
    let bed = bed(DEAF, "").await;
    fifo(&bed, "begun");
    let begun = bed.path("begun");
    let (ended, pid) = tokio::join!(bed.run(&["push", "--timeout", "1s"]), heard(&begun));
    assert_eq!(ended.code, Some(75), "{}", ended.stdout);
    until_gone(&pid).await;
}

#[tokio::test]
async fn a_push_beside_a_watch_waits_for_the_run_of_the_same_build() {
    let script = "mkdir alone || echo overlap >> runs; sleep 0.5; cp in/text src/hello.js; rmdir alone; echo run >> runs";
    let bed = bed(script, "").await;
    let mut watch = bed.watch_from_start(&[]);
    watch.until("building").await;
    assert_eq!(bed.run(&["push"]).await.code, Some(0));
    bed.sync().await;
    assert_eq!(super::runs(&bed), 2);
    assert_eq!(super::versions(&bed), ["first"]);
    watch.stop().await;
}
