//! Storms: more changes than anybody can tell of one by one. No edit is lost, memory stays bounded, and one look serves
//! them all.
//!
//! There is no look by the clock in most of these, so that nothing else can have found what events did not tell.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::disk::{FENCE, NEVER, off, run};
use crate::common::{Bed, Watch, code, has, long, resident};
use rustix::process::Signal;

/// Names of routines.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("r{n}")).collect()
}

/// How often events were lost, by the status, and how often that was told.
async fn lost(bed: &Bed, watch: &mut Watch) -> (u64, usize) {
    let (_, status) = bed.status().await;
    watch.hear();
    let told = watch.seen().filter(|event| {
        let what = event["problem"]["what"].as_str();
        event["event"] == "warning"
            && what.is_some_and(|what| what.starts_with("file events were lost"))
    });
    (status["events_lost"].as_u64().unwrap(), told.count())
}

#[tokio::test]
async fn a01_edits_that_a_full_queue_of_events_left_out_are_found_by_one_look() {
    // Together 20,000 files, of which 200 are entries, 20 times.
    let (runs, others, entries) = if long() {
        (20, 19_800, 200)
    } else {
        (3, 4_480, 20)
    };
    for _ in 0..runs {
        overflow(others, entries).await;
    }
}

/// Rewrites that many files while the watch is stopped, and waits until every entry among them is on the service.
async fn overflow(others: usize, entries: usize) {
    let names = names(entries);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::with(&names, Default::default(), NEVER).await;
    let mut watch = bed.watch(&[]).await;
    watch.signal(Signal::STOP);
    let (src, all) = (bed.path("src"), names.join(" "));
    off(move || {
        let save = |range: std::ops::Range<usize>| {
            for n in range {
                fs::write(src.join(format!("other{n}.js")), "x").unwrap();
            }
        };
        // The queue holds 16,384 events, and each of these files is four of them.
        let half = others * 9 / 10;
        save(0..half);
        for name in all.split(' ') {
            fs::write(src.join(format!("{name}.js")), code(name, 1)).unwrap();
        }
        save(half..others);
    })
    .await;
    let woken = Instant::now();
    watch.signal(Signal::CONT);
    for name in &names {
        bed.until_newest_is(name, &code(name, 1)).await;
    }
    // One request an edit, 80 of them a second, and time for a slow machine.
    let rate = Duration::from_secs(u64::try_from(entries / 80).unwrap());
    let waited = woken.elapsed();
    assert!(waited <= rate + Duration::from_secs(6), "{waited:?}");
    assert_eq!(lost(&bed, &mut watch).await, (1, 1));
    let (exit, done) = watch.stop().await;
    assert_eq!(exit, Some(0));
    assert_eq!(done["uploaded"], 2 * entries, "{done}");
    bed.assert_at_rest();
}

#[tokio::test]
async fn a01_every_queue_that_overflows_while_er_dev_works_costs_looks_and_no_edit() {
    let bed = Bed::fenced(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    let rounds: u64 = if long() { 20 } else { 2 };
    for round in 1..=usize::try_from(rounds).unwrap() {
        watch.signal(Signal::STOP);
        let (src, last) = (bed.path("src"), code("hello", round));
        off(move || {
            fs::write(src.join("hello.js"), code("hello", 1_000 + round)).unwrap();
            for n in 0..4_000 {
                fs::write(src.join(format!("a{n}.js")), "x").unwrap();
                fs::remove_file(src.join(format!("a{n}.js"))).unwrap();
            }
            // What is known of the first save must not stand for this one.
            fs::write(src.join("hello.js"), last).unwrap();
            fs::remove_file(src.join("fence.js")).unwrap();
        })
        .await;
        watch.signal(Signal::CONT);
        bed.until_newest_is("hello", &code("hello", round)).await;
        bed.write(FENCE, &code(FENCE, round));
        bed.until_newest_is(FENCE, &code(FENCE, round)).await;
    }
    let (lost, told) = lost(&bed, &mut watch).await;
    watch.stop().await;
    assert!(lost >= rounds && lost <= 3 * rounds, "{lost} looks");
    // The first, the tenth and so on.
    assert_eq!(told, usize::try_from(lost.ilog10() + 1).unwrap(), "{lost}");
    let uploads = bed.uploads("hello").len() as u64;
    assert!(uploads <= 1 + 2 * rounds, "{uploads} uploads");
}

#[tokio::test]
async fn a03_a_storm_of_events_while_the_service_is_slow_stays_in_bounds_and_loses_no_edit() {
    // About four events a file written.
    let writes = if long() { 250_000 } else { 10_000 };
    let names = names(20);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::with(&names, Default::default(), NEVER).await;
    let watch = bed.watch(&[]).await;
    bed.fault("UploadRoutineCode:*:delay(100)");
    let before = resident(watch.pid(), "VmHWM");
    let (src, all) = (bed.path("src"), names.join(" "));
    off(move || {
        let all: Vec<&str> = all.split(' ').collect();
        for write in 0..writes {
            fs::write(src.join(format!("other{}", write % 64)), "x").unwrap();
            if write % 50 == 0 {
                let name = all[write / 50 % all.len()];
                fs::write(src.join(format!("{name}.js")), code(name, 10 + write)).unwrap();
            }
        }
        for name in all {
            fs::write(src.join(format!("{name}.js")), code(name, 1)).unwrap();
        }
    })
    .await;
    for name in &names {
        bed.until_newest_is(name, &code(name, 1)).await;
    }
    let grown = resident(watch.pid(), "VmHWM") - before;
    let peak = resident(watch.pid(), "VmHWM");
    assert!(peak < 64 * 1024, "{peak} KiB");
    assert!(grown < 16 * 1024, "{grown} KiB more");
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
    bed.assert_at_rest();
}

#[tokio::test]
async fn a04_a_file_made_together_with_its_directories_is_never_missed() {
    // 1,000 and 100 files.
    let rounds = if long() { 50 } else { 5 };
    let names = names(20);
    let entries: Vec<String> = names.iter().map(|n| format!("src/{n}/a/b/x.js")).collect();
    let routines: Vec<_> = names
        .iter()
        .zip(&entries)
        .map(|(name, entry)| (name.as_str(), entry.as_str(), ""))
        .collect();
    let bed = Bed::laid_out(&routines, NEVER).await;
    let mut watch = bed.watch_from_start(&[]);
    watch.until("ready").await;
    for round in 1..=rounds {
        let files: Vec<(PathBuf, PathBuf, String)> = routines
            .iter()
            .map(|(name, entry, _)| {
                (
                    bed.path(&format!("src/{name}")),
                    bed.path(entry),
                    code(name, round),
                )
            })
            .collect();
        off(move || {
            for (tree, path, text) in files {
                if tree.exists() {
                    fs::remove_dir_all(tree).unwrap();
                }
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        })
        .await;
        for (name, ..) in &routines {
            bed.until_newest_is(name, &code(name, round)).await;
        }
        watch.forget();
    }
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
    for (name, ..) in &routines {
        let all: Vec<_> = (1..=rounds).map(|round| code(name, round)).collect();
        bed.assert_uploads(name, &all, name);
    }
}

/// Runs git in a directory, with nobody's settings.
async fn git(dir: &Path, arguments: &[&str]) {
    let settings = [
        "-c",
        "user.name=nobody",
        "-c",
        "user.email=nobody@example.org",
        "-c",
        "core.autocrlf=false",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "commit.gpgSign=false",
        "-c",
        "gc.auto=0",
    ];
    run("git", &[&settings, arguments].concat(), dir).await;
}

#[tokio::test]
async fn a40_a_checkout_is_at_most_one_upload_a_routine() {
    if !has("git") {
        return;
    }
    let (files, rounds) = if long() { (10_000, 5) } else { (300, 2) };
    let names = ["r0", "r1", "r2", "r3", "r4", "same"];
    let bed = Bed::with(&names, Default::default(), NEVER).await;
    let root = bed.path("");
    git(&root, &["init", "-q"]).await;
    let fill = |side: usize| {
        for n in 0..files {
            let dir = bed.path(&format!("src/{}", if n % 2 == 0 { "" } else { "lib" }));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("f{n}.js")), format!("{side} {n}")).unwrap();
        }
        for name in &names[..5] {
            bed.write(name, &code(name, side));
        }
    };
    for side in 0..=1 {
        fill(side);
        git(&root, &["add", "src"]).await;
        git(&root, &["commit", "-qm", "side"]).await;
        git(&root, &["branch", &format!("side{side}")]).await;
    }
    git(&root, &["checkout", "-q", "side0"]).await;
    let mut watch = bed.watch(&[]).await;
    for round in 0..rounds {
        // Back and forth: from the second visit on the bytes are on the service already.
        let side = (round + 1) % 2;
        git(&root, &["checkout", "-q", &format!("side{side}")]).await;
        let mut ended = 0;
        while ended < 5 {
            let event = watch.end_of_edit().await;
            let end = event["event"].as_str().unwrap();
            ended += usize::from(matches!(end, "uploaded" | "reused" | "unchanged"));
        }
    }
    let (exit, done) = watch.stop().await;
    assert_eq!(exit, Some(0));
    for name in &names[..5] {
        bed.assert_uploads(name, &[code(name, 0), code(name, 1)], name);
    }
    bed.assert_uploads("same", &[code("same", 0)], "an entry that is the same");
    assert_eq!(done["uploaded"], 11, "{done}");
    bed.assert_nothing_deleted();
}
