//! Entries that are not there, or that er-dev may not read: nothing happens to what is on the service, the others go on,
//! and a file that comes back is taken as it is then.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::common::disk::{NEVER, off};
use crate::common::{Bed, code, has, long, say};
use tokio::process::Command;

#[tokio::test]
async fn a14_a_deleted_entry_leaves_the_service_alone_and_its_return_is_taken_as_it_is() {
    let bed = Bed::fenced(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    let before = bed.requests("hello");
    fs::remove_file(bed.entry("hello")).unwrap();
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "error", "{event}");
    assert_eq!(event["problem"]["class"], "source", "{event}");
    let what = event["problem"]["what"].as_str().unwrap();
    assert!(what.contains("does not exist"), "{what}");
    bed.fence(&mut watch).await;
    assert_eq!(bed.requests("hello"), before);
    // The same bytes are there already, and other ones go up.
    bed.write("hello", &code("hello", 0));
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "unchanged", "{event}");
    fs::remove_file(bed.entry("hello")).unwrap();
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "error");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    watch.stop().await;
    bed.assert_uploads("hello", &[0, 1].map(|save| code("hello", save)), "returns");
    bed.assert_nothing_deleted();
}

#[tokio::test]
async fn a14_an_entry_that_is_missing_at_the_start_is_waited_for_and_deletes_nothing() {
    let bed = Bed::fenced(NEVER).await;
    let there = bed.seed("hello", 10);
    fs::remove_file(bed.entry("hello")).unwrap();
    let mut watch = bed.watch(&[]).await;
    bed.fence(&mut watch).await;
    assert_eq!(bed.versions("hello"), there);
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    watch.stop().await;
    bed.assert_uploads("hello", &[code("hello", 1)], "made later");
}

#[tokio::test]
async fn a15_a_file_that_comes_and_goes_all_the_time_costs_one_line_at_most() {
    let bed = Bed::fenced("").await;
    let mut watch = bed.watch(&[]).await;
    let rounds = if long() { 20_000 } else { 2_000 };
    let (entry, away) = (bed.entry("hello"), bed.path("away"));
    // On a busy machine the writer itself may pause for longer than a quiet time, and the file is missing then.
    let pauses = off(move || {
        let (mut pauses, mut last) = (0, Instant::now());
        for round in 0..rounds {
            fs::write(&entry, code("hello", 10 + round % 7)).unwrap();
            match round % 3 {
                0 => fs::remove_file(&entry).unwrap(),
                1 => fs::rename(&entry, &away).unwrap(),
                _ => {}
            }
            pauses += usize::from(last.elapsed() > Duration::from_millis(50));
            last = Instant::now();
        }
        fs::write(&entry, code("hello", 1)).unwrap();
        pauses
    })
    .await;
    bed.until_newest_is("hello", &code("hello", 1)).await;
    bed.fence(&mut watch).await;
    let errors = watch.count("error", "hello");
    assert!(errors <= 1 + pauses, "{errors} lines, {pauses} pauses");
    watch.stop().await;
}

/// A watch that may read only what the permissions of a file let it; `None`, said aloud, where root cannot give that up.
async fn without_privileges(bed: &Bed) -> Option<crate::common::Watch> {
    let command = bed.command(&["watch"]);
    if !rustix::process::geteuid().is_root() {
        return Some(Bed::follow(command));
    }
    if !has("setpriv") {
        return None;
    }
    let probe = Command::new("setpriv")
        .args(["--bounding-set", "-all", "--inh-caps", "-all", "true"])
        .status()
        .await;
    if !probe.is_ok_and(|status| status.success()) {
        say("SKIPPED: root cannot give up its privileges on this machine");
        return None;
    }
    let mut bare = Command::new("setpriv");
    bare.args(["--bounding-set", "-all", "--inh-caps", "-all"]);
    bare.arg(env!("CARGO_BIN_EXE_er-dev")).arg("watch");
    bed.furnish(&mut bare);
    bare.env("PATH", std::env::var_os("PATH").unwrap());
    Some(Bed::follow(bare))
}

#[tokio::test]
async fn a16_an_entry_that_may_not_be_read_stops_no_other_and_is_taken_as_soon_as_it_may() {
    let bed = Bed::fenced(NEVER).await;
    let Some(mut watch) = without_privileges(&bed).await else {
        return;
    };
    for _ in 0..2 {
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    }
    let entry = bed.entry("hello");
    let mode = |mode| fs::set_permissions(&entry, fs::Permissions::from_mode(mode)).unwrap();
    let before = bed.requests("hello");
    for save in 1..=3 {
        mode(0o000);
        let new = bed.path("new");
        fs::write(&new, code("hello", save)).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o000)).unwrap();
        fs::rename(&new, &entry).unwrap();
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "error", "{event}");
        let what = event["problem"]["what"].as_str().unwrap();
        assert!(what.contains("may not be read"), "{what}");
        bed.fence(&mut watch).await;
    }
    assert_eq!(bed.requests("hello"), before);
    assert!(watch.count("error", "hello") <= 6, "a flood of lines");
    mode(0o644);
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    // A directory that may not be entered hides its entries, and gives them back.
    let src = bed.path("src");
    fs::set_permissions(&src, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(&src, fs::Permissions::from_mode(0o755)).unwrap();
    bed.write("hello", &code("hello", 4));
    bed.until_newest_is("hello", &code("hello", 4)).await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    bed.assert_uploads(
        "hello",
        &[0, 3, 4].map(|save| code("hello", save)),
        "unreadable",
    );
    bed.assert_nothing_deleted();
}
