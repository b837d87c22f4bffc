//! Roots that go away: the routine halts and says so once, nothing on the service changes meanwhile, and it goes on by
//! itself with what is there when its root is back.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::disk::{FENCE, NEVER, OFTEN, off, run};
use crate::common::{Bed, Watch, code, has, long, say};
use tokio::process::Command;

/// The longest that a routine may take to go on.
const SOON: Duration = Duration::from_secs(2);

/// The same after a mount, of which no event tells.
const MOUNTED: Duration = Duration::from_secs(6);

/// A bed with `hello` in a root of its own, and the fence in another one.
async fn apart(more: &str) -> Bed {
    let routines = [("hello", "edge/hello.js", ""), (FENCE, "src/fence.js", "")];
    let bed = Bed::laid_out(&routines, more).await;
    fs::create_dir(bed.path("edge")).unwrap();
    fs::write(bed.path("edge/hello.js"), code("hello", 0)).unwrap();
    bed.write(FENCE, &code(FENCE, 0));
    bed
}

async fn is_halted(watch: &mut Watch, words: &str) {
    let event = watch.until("halted").await;
    assert_eq!(event["routine"], "hello", "{event}");
    let what = event["problem"]["what"].as_str().unwrap();
    assert!(what.contains(words), "{what}");
    let help = event["problem"]["help"].as_str().unwrap();
    let anew = help.contains("or start er-dev again to take it as it is");
    assert_eq!(anew, words.contains("symbolic link"), "{what}: {help}");
}

/// Waits until `hello` is said to be halted for this reason, and no request follows.
async fn halts(bed: &Bed, watch: &mut Watch, words: &str) {
    is_halted(watch, words).await;
    let before = bed.requests("hello");
    bed.fence(watch).await;
    assert_eq!(bed.requests("hello"), before, "{words}");
}

/// Waits until `hello` is said to go on, and then for the end of the edit of what is there.
async fn goes_on(watch: &mut Watch, back: Instant, soon: Duration, end: &str) {
    let event = watch.until("resumed").await;
    assert_eq!(event["routine"], "hello", "{event}");
    let took = back.elapsed();
    assert!(took <= soon, "{took:?}");
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], end, "{event}");
}

/// Everything was said as often as it happened, and nothing else was uploaded.
async fn nothing_else(bed: &Bed, watch: Watch, times: usize, saves: &[usize], what: &str) {
    let count = |event: &str| watch.count(event, "hello");
    assert_eq!(
        (count("halted"), count("resumed")),
        (times, times),
        "{what}"
    );
    assert_eq!(count("error"), 0, "{what}");
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0), "{what}");
    let all: Vec<_> = saves.iter().map(|&save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, what);
    bed.assert_nothing_deleted();
}

#[tokio::test]
async fn a17_a_root_that_is_deleted_halts_its_routine_until_it_is_made_again() {
    let bed = apart(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    let rounds = if long() { 20 } else { 3 };
    for round in 1..=rounds {
        fs::remove_dir_all(bed.path("edge")).unwrap();
        halts(&bed, &mut watch, "edge` was deleted").await;
        // An empty one in its place is not what it was.
        fs::create_dir(bed.path("edge")).unwrap();
        bed.fence(&mut watch).await;
        let back = Instant::now();
        fs::write(bed.path("edge/hello.js"), code("hello", round)).unwrap();
        goes_on(&mut watch, back, SOON, "uploaded").await;
    }
    let all: Vec<_> = (0..=rounds).collect();
    nothing_else(&bed, watch, rounds, &all, "deleted").await;
}

#[tokio::test]
async fn a17_a_root_that_is_missing_at_the_start_is_waited_for_and_so_is_one_deep_in_what_is_missing()
 {
    let routines = [
        ("hello", "edge/dist/js/hello.js", ""),
        (FENCE, "src/fence.js", ""),
    ];
    // No event tells of what happens far above a root.
    let bed = Bed::laid_out(&routines, OFTEN).await;
    bed.write(FENCE, &code(FENCE, 0));
    let mut watch = bed.watch_from_start(&[]);
    is_halted(&mut watch, "edge` does not exist").await;
    // The first edit of the fence ends before or after that.
    if watch.count("uploaded", FENCE) == 0 {
        assert_eq!(watch.end_of_edit_of(FENCE).await["event"], "uploaded");
    }
    bed.fence(&mut watch).await;
    let back = Instant::now();
    fs::create_dir_all(bed.path("edge/dist/js")).unwrap();
    fs::write(bed.path("edge/dist/js/hello.js"), code("hello", 0)).unwrap();
    goes_on(&mut watch, back, SOON, "uploaded").await;
    // Above the root it is the same as the root itself.
    fs::rename(bed.path("edge"), bed.path("away")).unwrap();
    halts(&bed, &mut watch, "edge` is gone").await;
    fs::write(bed.path("away/dist/js/hello.js"), code("hello", 1)).unwrap();
    let back = Instant::now();
    fs::rename(bed.path("away"), bed.path("edge")).unwrap();
    goes_on(&mut watch, back, SOON, "uploaded").await;
    nothing_else(&bed, watch, 2, &[0, 1], "missing").await;
}

#[tokio::test]
async fn a17_a_root_that_comes_back_with_other_files_only_is_an_error_of_its_entry() {
    let bed = apart(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    fs::remove_dir_all(bed.path("edge")).unwrap();
    halts(&bed, &mut watch, "edge` was deleted").await;
    let back = Instant::now();
    fs::create_dir(bed.path("edge")).unwrap();
    fs::write(bed.path("edge/other.js"), "").unwrap();
    goes_on(&mut watch, back, SOON, "error").await;
    fs::write(bed.path("edge/hello.js"), code("hello", 1)).unwrap();
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    watch.stop().await;
    let all = [0, 1].map(|save| code("hello", save));
    bed.assert_uploads("hello", &all, "other files");
}

#[tokio::test]
async fn a18_a_root_that_is_emptied_halts_its_routine_until_something_is_in_it() {
    let bed = apart(NEVER).await;
    for name in ["lib.js", ".gitignore"] {
        fs::write(bed.path("edge").join(name), "").unwrap();
    }
    let mut watch = bed.watch(&[]).await;
    for round in 1..=3 {
        // The shell leaves what begins with a dot.
        run("sh", &["-c", "rm edge/*"], &bed.path("")).await;
        halts(&bed, &mut watch, "edge` is empty").await;
        let back = Instant::now();
        fs::write(bed.path("edge/hello.js"), code("hello", round)).unwrap();
        goes_on(&mut watch, back, SOON, "uploaded").await;
    }
    nothing_else(&bed, watch, 3, &[0, 1, 2, 3], "emptied").await;
}

#[tokio::test]
async fn a19_what_is_saved_in_a_root_that_was_renamed_away_is_not_the_entry() {
    let bed = apart(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    let rounds = if long() { 20 } else { 3 };
    for round in 1..=rounds {
        fs::rename(bed.path("edge"), bed.path("away")).unwrap();
        // At once, as long as its watch may still be there, and later.
        fs::write(bed.path("away/hello.js"), code("hello", 100)).unwrap();
        halts(&bed, &mut watch, "edge` was renamed").await;
        fs::write(bed.path("away/hello.js"), code("hello", round)).unwrap();
        bed.fence(&mut watch).await;
        let back = Instant::now();
        fs::rename(bed.path("away"), bed.path("edge")).unwrap();
        goes_on(&mut watch, back, SOON, "uploaded").await;
    }
    let all: Vec<_> = (0..=rounds).collect();
    nothing_else(&bed, watch, rounds, &all, "renamed").await;
}

#[tokio::test]
async fn a20_a_root_that_is_replaced_by_a_link_or_a_file_halts_its_routine() {
    let bed = apart(NEVER).await;
    fs::create_dir(bed.path("other")).unwrap();
    fs::write(bed.path("other/hello.js"), code("other", 0)).unwrap();
    let mut watch = bed.watch(&[]).await;
    let (edge, away) = (bed.path("edge"), bed.path("away"));
    let replaced = |to: Option<&str>| {
        fs::rename(&edge, &away).unwrap();
        match to {
            Some(to) => symlink(to, &edge).unwrap(),
            None => fs::write(&edge, "").unwrap(),
        }
    };
    let restored = || {
        fs::remove_file(&edge).unwrap();
        fs::rename(&away, &edge).unwrap();
        Instant::now()
    };
    replaced(Some("other"));
    halts(&bed, &mut watch, "edge` is a symbolic link now").await;
    fs::write(bed.path("other/hello.js"), code("other", 1)).unwrap();
    bed.fence(&mut watch).await;
    goes_on(&mut watch, restored(), SOON, "unchanged").await;
    // A link to the very same directory is a link, too.
    replaced(Some("away"));
    halts(&bed, &mut watch, "edge` is a symbolic link now").await;
    fs::write(bed.path("away/hello.js"), code("hello", 1)).unwrap();
    bed.fence(&mut watch).await;
    goes_on(&mut watch, restored(), SOON, "uploaded").await;
    replaced(None);
    halts(&bed, &mut watch, "edge` is a file now").await;
    goes_on(&mut watch, restored(), SOON, "unchanged").await;
    nothing_else(&bed, watch, 3, &[0, 1], "replaced").await;
}

#[tokio::test]
async fn a20_an_edit_that_waits_when_its_root_is_replaced_takes_nothing_from_there() {
    let bed = apart(NEVER).await;
    fs::create_dir(bed.path("other")).unwrap();
    fs::write(bed.path("other/hello.js"), code("other", 0)).unwrap();
    let mut watch = bed.watch(&[]).await;
    let (edge, away) = (bed.path("edge"), bed.path("away"));
    fs::write(edge.join("other.js"), "").unwrap();
    for (save, removed) in [(1, true), (3, false)] {
        bed.fault("UploadRoutineCode:1:delay(2000)");
        let asked = bed.asked("UploadRoutineCode");
        fs::write(edge.join("hello.js"), code("hello", save)).unwrap();
        bed.until_asked("UploadRoutineCode", asked + 1).await;
        // An edit that waits for the one before it, without bytes or with some.
        match removed {
            true => fs::remove_file(edge.join("hello.js")).unwrap(),
            false => fs::write(edge.join("hello.js"), code("hello", save + 1)).unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        fs::rename(&edge, &away).unwrap();
        symlink("other", &edge).unwrap();
        is_halted(&mut watch, "edge` is a symbolic link now").await;
        assert_eq!(watch.end_of_edit_of("hello").await["event"], "superseded");
        assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
        let before = bed.requests("hello");
        bed.fence(&mut watch).await;
        let synced = bed.run(&["sync"]).await;
        assert!(synced.stdout.contains("halted"), "{}", synced.stdout);
        assert_eq!(bed.requests("hello"), before, "it is halted");
        fs::remove_file(&edge).unwrap();
        fs::rename(&away, &edge).unwrap();
        let end = if removed { "error" } else { "uploaded" };
        assert_eq!(watch.end_of_edit_of("hello").await["event"], end);
    }
    watch.stop().await;
    let all = [0, 1, 3, 4].map(|save| code("hello", save));
    bed.assert_uploads("hello", &all, "replaced");
}

/// Runs a command in the namespaces of a watch.
async fn inside(watch: &Watch, command: &str) {
    let mut nsenter = Command::new("nsenter");
    let target = watch.pid().to_string();
    nsenter.args(["-t", &target, "-U", "-m", "--preserve-credentials"]);
    nsenter.args(["sh", "-c", command]);
    let status = nsenter.status().await.unwrap();
    assert!(status.success(), "{command}: {status}");
}

#[tokio::test]
async fn a21_a_root_that_is_unmounted_halts_its_routine_until_it_is_mounted_again() {
    if !has("nsenter") {
        return;
    }
    let bed = apart("").await;
    // What lies beneath the mount is another file, and was never meant.
    fs::write(bed.path("edge/hello.js"), code("beneath", 0)).unwrap();
    let mount = |save: usize| {
        let (edge, text) = (bed.path("edge"), code("hello", save));
        let edge = edge.display();
        format!(
            "mount -t tmpfs -o size=64k,mode=755 none '{edge}' && printf '%s' '{text}' > '{edge}/hello.js'"
        )
    };
    let script = format!("{} && exec \"$0\" watch", mount(0));
    let Some(command) = bed.script_that_mounts(&script) else {
        return;
    };
    let mut watch = Bed::follow(command);
    for _ in 0..2 {
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    }
    let probe = Command::new("nsenter")
        .args(["-t", &watch.pid().to_string(), "-U", "-m"])
        .args(["--preserve-credentials", "true"])
        .status()
        .await;
    if !probe.is_ok_and(|status| status.success()) {
        say("SKIPPED: this machine does not let a user enter the namespaces of a process");
        return;
    }
    let rounds = if long() { 5 } else { 1 };
    let edge = bed.path("edge");
    for round in 1..=rounds {
        inside(&watch, &format!("umount '{}'", edge.display())).await;
        let words = "edge` was unmounted";
        halts(&bed, &mut watch, words).await;
        let back = Instant::now();
        inside(&watch, &mount(round)).await;
        goes_on(&mut watch, back, MOUNTED, "uploaded").await;
        let saved = bed.seen_by(&watch, "edge/hello.js");
        fs::write(&saved, code("hello", 100 + round)).unwrap();
        bed.until_newest_is("hello", &code("hello", 100 + round))
            .await;
    }
    let saves = (1..=rounds).flat_map(|round| [round, 100 + round]);
    let all: Vec<_> = [0].into_iter().chain(saves).collect();
    nothing_else(&bed, watch, rounds, &all, "unmounted").await;
}

#[tokio::test]
async fn a21_a_root_that_is_mounted_after_the_start_is_halted_when_it_is_unmounted() {
    let bed = apart("").await;
    if !has("nsenter") {
        return;
    }
    let Some(command) = bed.script_that_mounts("exec \"$0\" watch") else {
        return;
    };
    let mut watch = Bed::follow(command);
    for _ in 0..2 {
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    }
    let probe = Command::new("nsenter")
        .args(["-t", &watch.pid().to_string(), "-U", "-m"])
        .args(["--preserve-credentials", "true"])
        .status()
        .await;
    if !probe.is_ok_and(|status| status.success()) {
        say("SKIPPED: this machine does not let a user enter the namespaces of a process");
        return;
    }
    let (edge, text) = (bed.path("edge"), code("hello", 1));
    let edge = edge.display();
    let mount = format!(
        "mount -t tmpfs -o size=64k,mode=755 none '{edge}' && printf '%s' '{text}' > '{edge}/hello.js'"
    );
    inside(&watch, &mount).await;
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    inside(&watch, &format!("umount '{edge}'")).await;
    halts(&bed, &mut watch, "edge` was unmounted").await;
    watch.stop().await;
    let all = [0, 1].map(|save| code("hello", save));
    bed.assert_uploads("hello", &all, "mounted late");
}

#[tokio::test]
async fn a20_a_release_whose_link_is_swapped_slowly_is_one_upload_and_no_halt() {
    let routines = [
        ("hello", "current/src/hello.js", ""),
        (FENCE, "src/fence.js", ""),
    ];
    let bed = Bed::laid_out(&routines, NEVER).await;
    bed.write(FENCE, &code(FENCE, 0));
    for release in 0..=3 {
        let dir = bed.path(&format!("releases/{release}/src"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hello.js"), code("hello", release)).unwrap();
    }
    let link = |release: usize, at: &Path| symlink(format!("releases/{release}"), at).unwrap();
    let current = bed.path("current");
    link(0, &current);
    let mut watch = bed.watch(&[]).await;
    for release in 1..=3 {
        let current = current.clone();
        // Not in one step, as `ln -sfn` does it.
        off(move || {
            fs::remove_file(&current).unwrap();
            symlink(format!("releases/{release}"), &current).unwrap();
        })
        .await;
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "uploaded", "{event}");
    }
    nothing_else(&bed, watch, 0, &[0, 1, 2, 3], "swapped").await;
}
