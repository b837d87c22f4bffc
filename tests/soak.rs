//! A long run with faults: nothing is lost, nothing breaks a rule, and memory stays where it was.

use std::time::{Duration, Instant};

use crate::common::{Bed, QUICK, code, name, resident};

/// How long the run lasts: an hour if a long run was asked for.
fn length() -> Duration {
    Duration::from_secs(if crate::common::long() { 3_600 } else { 10 })
}

#[tokio::test]
async fn d16_hours_of_edits_and_faults_cost_no_memory_and_no_edit() {
    let routines = ["one", "two", "three"];
    let bed = Bed::new(&routines).await;
    let mut watch = bed.watch(QUICK).await;
    for fault in [
        "*:1%:drop_after",
        "*:1%:drop_before",
        "api:1%:status(502)",
        "api:1%:code(Throttling.User,slow down)",
        "oss:1%:callback_lost",
        "oss:1%:status(204)",
    ] {
        bed.fault(fault);
    }
    let begun = Instant::now();
    // The first tenth is for what is allocated once.
    let (mut first, mut last) = (None, 0);
    let mut save = 0;
    while begun.elapsed() < length() {
        save += 1;
        bed.write(routines[save % 3], &code(routines[save % 3], save));
        tokio::time::sleep(Duration::from_millis(200)).await;
        watch.forget();
        if begun.elapsed() > length() / 10 {
            last = resident(watch.pid(), "VmRSS");
            first.get_or_insert(last);
        }
    }
    bed.emulator.clear_faults();
    for routine in routines {
        let text = std::fs::read_to_string(bed.entry(routine)).unwrap();
        bed.until(routine, |world| {
            let versions = world.routine(&name(routine)).unwrap().versions();
            let mut codes: Vec<_> = versions.iter().map(|v| v.bytes()).collect();
            let stored = codes.contains(&Some(text.as_bytes()));
            codes.sort();
            codes.dedup();
            stored && codes.len() == versions.len() && codes.len() <= 9
        })
        .await;
    }
    watch.stop().await;
    bed.assert_at_rest();
    let grown = last.saturating_sub(first.unwrap());
    crate::common::say(&format!(
        "{save} saves in {:?}, resident memory grew by {grown} KiB to {last} KiB",
        begun.elapsed()
    ));
    // A short run has hardly begun to reuse what it allocated.
    let allowed = if crate::common::long() { 1_024 } else { 4_096 };
    assert!(grown < allowed, "{grown} KiB");
}
