//! What goes when a slot is to be freed: the oldest that may go, its code saved, and no other because of a passing
//! trouble.

use crate::common::{Bed, QUICK, code, name};
use er_dev::emulator::history::Record;
use er_dev::routine::Revision;

/// A bed whose next edit makes it free a slot, with its versions, oldest first.
async fn nearly_full() -> (Bed, Vec<Revision>) {
    let bed = Bed::new(&["hello"]).await;
    let seeded = bed.seed("hello", 8);
    (bed, seeded)
}

/// Waits until a slot is free again.
async fn tidied(bed: &Bed) {
    bed.until("a slot is freed", |world| {
        let deleted = |r: &Record| r.op == "DeleteRoutineCodeRevision" && r.processed;
        let versions = world.routine(&name("hello")).unwrap().versions();
        versions.len() <= 9 && world.history().iter().any(deleted)
    })
    .await;
}

#[tokio::test]
async fn a_passing_trouble_with_reading_the_oldest_version_is_waited_out() {
    crate::common::each(
        [
            "status(502)",
            "portal",
            "drop_before",
            "code(EdgeRoutine.GeneralError,the revision does not exist,400)",
        ],
        async |trouble| {
            let (bed, seeded) = nearly_full().await;
            let mut watch = bed.watch(QUICK).await;
            bed.fault(&format!("DescribeRoutineCodeRevision:1:{trouble}"));
            bed.write("hello", &code("hello", 1));
            assert_eq!(watch.end_of_edit().await["event"], "uploaded");
            tidied(&bed).await;
            watch.stop().await;
            let left = bed.versions("hello");
            assert!(!left.contains(&seeded[0]), "{trouble}: the oldest is there");
            assert!(left.contains(&seeded[1]), "{trouble}: the next oldest went");
            bed.assert_at_rest();
        },
    )
    .await;
}

#[tokio::test]
async fn a_version_that_gives_no_code_stays_and_the_next_oldest_goes() {
    crate::common::each(
        [
            "answer({\"RequestId\":\"R\",\"Content\":{\"ErCode\":\"\"}})",
            "answer({\"RequestId\":\"R\",\"Content\":{\"ErCode\":\"?\"}})",
            "answer({\"RequestId\":\"R\",\"Content\":{}})",
        ],
        async |answer| {
            let (bed, seeded) = nearly_full().await;
            let mut watch = bed.watch(QUICK).await;
            bed.fault(&format!("DescribeRoutineCodeRevision:1:{answer}"));
            bed.write("hello", &code("hello", 1));
            assert_eq!(watch.end_of_edit().await["event"], "uploaded");
            let told = watch.until("warning").await;
            let what = told["problem"]["what"].as_str().unwrap();
            assert!(what.contains(&seeded[0].short()), "{told}");
            tidied(&bed).await;
            watch.stop().await;
            let left = bed.versions("hello");
            assert!(
                left.contains(&seeded[0]),
                "{answer}: it went without a copy"
            );
            assert!(!left.contains(&seeded[1]), "{answer}");
        },
    )
    .await;
}

#[tokio::test]
async fn code_that_speaks_of_a_missing_object_is_kept_before_it_goes() {
    let bed = Bed::new(&["hello"]).await;
    let page = "// <Error><Code>NoSuchKey</Code></Error> is what storage says\n";
    let week_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 7);
    let oldest = bed.emulator.with_world(|world| {
        let seeded = world.seed(&name("hello"), Some(page.as_bytes()), "by hand", week_ago);
        seeded.unwrap()
    });
    bed.seed("hello", 7);
    bed.write("hello", &code("hello", 1));
    assert_eq!(bed.push().await.code, Some(0));
    bed.write("hello", &code("hello", 2));
    assert_eq!(bed.push().await.code, Some(0));
    assert!(bed.versions("hello").iter().all(|left| left > &oldest));
    assert!(bed.vaulted("hello").contains(&oldest));
    bed.assert_at_rest();
}

#[tokio::test]
async fn what_was_live_before_stays_also_after_a_restart() {
    let (bed, seeded) = nearly_full().await;
    bed.publish("hello", &seeded[0], "production");
    let watch = bed.watch(QUICK).await;
    watch.stop().await;
    bed.publish("hello", &seeded[7], "production");
    for save in 1..=4 {
        bed.write("hello", &code("hello", save));
        assert_eq!(bed.push().await.code, Some(0));
    }
    let left = bed.versions("hello");
    assert!(left.contains(&seeded[0]), "nothing to roll back to");
    assert!(!left.contains(&seeded[1]));
}

#[tokio::test]
async fn a_service_that_says_it_is_full_whatever_goes_costs_two_versions() {
    let (bed, _) = nearly_full().await;
    let mut watch = bed.watch(QUICK).await;
    let before = bed.asked("UploadRoutineCode");
    bed.fault("UploadRoutineCode:*:code(EdgeRoutine.GeneralError,you got upper limit of code revisions,400)");
    bed.write("hello", &code("hello", 1));
    let told = watch.until("retrying").await;
    assert_eq!(told["problem"]["class"], "slots", "{told}");
    assert_eq!(bed.asked("UploadRoutineCode") - before, 3);
    assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 2);
    watch.kill().await;
}

#[tokio::test]
async fn one_version_that_cannot_be_deleted_does_not_keep_the_next_from_going() {
    let (bed, seeded) = nearly_full().await;
    let mut watch = bed.watch(QUICK).await;
    bed.fault("DeleteRoutineCodeRevision:1-3:code(InternalError,try again,500)");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    tidied(&bed).await;
    watch.stop().await;
    let left = bed.versions("hello");
    assert!(left.contains(&seeded[0]) && !left.contains(&seeded[1]));
    assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 4);
}

#[tokio::test]
async fn one_version_whose_code_is_never_given_does_not_keep_the_next_from_going() {
    let (bed, seeded) = nearly_full().await;
    let mut watch = bed.watch(QUICK).await;
    bed.fault("DescribeRoutineCodeRevision:1-3:code(InternalError,try again,500)");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    tidied(&bed).await;
    watch.stop().await;
    let left = bed.versions("hello");
    assert!(left.contains(&seeded[0]), "it went without a copy");
    assert!(!left.contains(&seeded[1]));
    assert_eq!(bed.asked("DescribeRoutineCodeRevision"), 4);
}

/// A deletion is refused because of the clock, and while that answer is on its way a person publishes what was to go.
/// `false` if a busy machine had to look again before the deletion, so that the refusal met that look.
async fn is_a_late_refusal_of_a_deletion_followed_by_a_look() -> bool {
    let (mut bed, seeded) = nearly_full().await;
    bed.rules.stale = 1;
    let patient = ["--api-timeout", "8s", "--settle-margin", "300ms"];
    let mut watch = bed.watch(&patient).await;
    let deletes = |record: &&Record| record.op == "DeleteRoutineCodeRevision";
    // The clock goes wrong between the saving of what is to go and its deletion.
    bed.fault("DescribeRoutineCodeRevision:1:delay(150)");
    bed.fault("DeleteRoutineCodeRevision:1:delay(2200)");
    bed.write("hello", &code("hello", 1));
    bed.until_asked("DescribeRoutineCodeRevision", 1).await;
    bed.world("clock=1200");
    bed.until_asked("DeleteRoutineCodeRevision", 1).await;
    if bed.history().iter().find(deletes).unwrap().processed {
        watch.kill().await;
        return false;
    }
    bed.publish("hello", &seeded[0], "production");
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    tidied(&bed).await;
    watch.stop().await;
    let history = bed.history();
    let asked: Vec<_> = history.iter().filter(deletes).collect();
    let asked: Vec<_> = asked.iter().map(|r| r.revision.clone().unwrap()).collect();
    assert_eq!(asked, seeded[..2], "the same was asked for again");
    true
}

#[tokio::test]
async fn a_deletion_that_is_repeated_after_a_refused_clock_rests_on_a_new_look() {
    for _ in 0..5 {
        if is_a_late_refusal_of_a_deletion_followed_by_a_look().await {
            return;
        }
    }
    panic!("no deletion was refused");
}

#[tokio::test]
async fn nothing_is_deleted_by_a_look_that_took_too_long() {
    let (bed, seeded) = nearly_full().await;
    let patient = ["--api-timeout", "8s", "--settle-margin", "300ms"];
    let mut watch = bed.watch(&patient).await;
    bed.fault("DescribeRoutine:*:delay(2200)");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    // While the answer is on its way, a person publishes what would go.
    bed.publish("hello", &seeded[0], "production");
    let told = watch.until("warning").await;
    let what = told["problem"]["what"].as_str().unwrap();
    assert!(what.contains("too long"), "{told}");
    assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 0);
    watch.stop().await;
}
