//! Where the system's watches run out, or its events do not tell of everything: what is affected is looked at instead,
//! that is said once with the numbers and the remedy, and no edit is missed.
//!
//! Limits are set inside namespaces of their own and never on the machine.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::disk::{NEVER, OFTEN, off, run};
use crate::common::{Bed, Watch, code, has, say};
use tokio::process::Command;

/// A `watch` in a user namespace that allows for so much of a limit; `None`, said aloud, where that is not possible.
fn limited(bed: &Bed, limit: &str, most: usize, arguments: &str) -> Option<Command> {
    let limit = format!("/proc/sys/user/{limit}");
    let possible = std::process::Command::new("unshare")
        .args(["-Ur", "sh", "-c", &format!("echo {most} > {limit}")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        say("SKIPPED: this machine does not let a user limit inotify in a namespace");
        return None;
    }
    let script = format!("echo {most} > {limit} && exec \"$0\" watch {arguments}");
    let mut command = Command::new("unshare");
    command.args(["-Ur", "sh", "-c", &script, env!("CARGO_BIN_EXE_er-dev")]);
    bed.furnish(&mut command);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    Some(command)
}

/// A bed with routines that have a directory each.
async fn spread(count: usize, more: &str) -> (Bed, Vec<String>) {
    let names: Vec<String> = (0..count).map(|n| format!("r{n}")).collect();
    let entries: Vec<String> = names.iter().map(|n| format!("src/{n}/{n}.js")).collect();
    let routines: Vec<_> = names
        .iter()
        .zip(&entries)
        .map(|(name, entry)| (name.as_str(), entry.as_str(), ""))
        .collect();
    let bed = Bed::laid_out(&routines, more).await;
    for name in &names {
        fs::create_dir(bed.path("src").join(name)).unwrap();
        fs::write(entry(&bed, name), code(name, 0)).unwrap();
    }
    (bed, names)
}

fn entry(bed: &Bed, name: &str) -> PathBuf {
    bed.path(&format!("src/{name}/{name}.js"))
}

/// Follows a command until it is ready and every first edit has ended.
async fn ready(bed: &Bed, command: Command) -> Watch {
    let mut watch = Bed::follow(command);
    watch.until("ready").await;
    for _ in 0..bed.routines.len() {
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    }
    watch
}

/// How changes are noticed, as the watch said itself.
fn backend(watch: &Watch) -> String {
    let mut seen = watch.seen();
    let watching = seen.find(|event| event["event"] == "watching").unwrap();
    watching["backend"].as_str().unwrap().to_owned()
}

fn told(watch: &Watch) -> Vec<String> {
    let degraded = watch.seen().filter(|event| event["event"] == "degraded");
    degraded
        .map(|event| {
            let problem = &event["problem"];
            format!("{} / {}", problem["what"], problem["help"])
        })
        .collect()
}

/// Saves every entry and waits until all of that is on the service.
async fn save_all(bed: &Bed, names: &[String], save: usize) -> Duration {
    let files: Vec<_> = names
        .iter()
        .map(|name| (entry(bed, name), code(name, save)))
        .collect();
    let saved = Instant::now();
    off(move || {
        for (path, text) in files {
            fs::write(path, text).unwrap();
        }
    })
    .await;
    for name in names {
        bed.until_newest_is(name, &code(name, save)).await;
    }
    saved.elapsed()
}

#[tokio::test]
async fn a34_where_watches_run_out_the_rest_is_polled_and_fifty_files_are_seen_within_two_seconds()
{
    let (bed, names) = spread(50, NEVER).await;
    let Some(command) = limited(&bed, "max_inotify_watches", 10, "") else {
        return;
    };
    let mut watch = ready(&bed, command).await;
    assert_eq!(backend(&watch), "inotify and poll");
    // One request an edit and 80 a second; the rest is the watcher's.
    let took = save_all(&bed, &names, 1).await;
    assert!(
        took <= Duration::from_millis(2_000 + 50 * 1_000 / 80),
        "{took:?}"
    );
    save_all(&bed, &names, 2).await;
    let told = told(&watch);
    let [line] = &told[..] else {
        panic!("it was told {} times: {told:?}", told.len());
    };
    // 50 roots, the directory above them, and the one for markers.
    for words in [
        "er-dev needs 52",
        "user.max_inotify_watches is 10",
        "sudo sysctl user.max_inotify_watches=524288",
        "looked at every 500ms",
    ] {
        assert!(line.contains(words), "{line}");
    }
    // Which of them have a watch is the system's choice.
    let mut polled = 0;
    for name in &names {
        let ended = bed
            .run(&["explain", &format!("src/{name}/{name}.js")])
            .await;
        let explained = &ended.events()[0];
        match explained["backend"].as_str() {
            Some("poll") => {
                let why = explained["backend_why"].as_str().unwrap();
                assert!(why.starts_with("no inotify watch is left"), "{why}");
                polled += 1;
            }
            backend => assert_eq!(backend, Some("inotify"), "{explained}"),
        }
    }
    assert!((40..=50).contains(&polled), "{polled}");
    let (exit, status) = bed.status().await;
    assert_eq!(exit, Some(1), "{status}");
    assert_eq!(status["conditions"][0]["reason"]["class"], "watch");
    watch.forget();
    let (exit, done) = watch.stop().await;
    assert_eq!((exit, &done["uploaded"]), (Some(0), &150.into()));
    bed.assert_nothing_deleted();
}

#[tokio::test]
async fn a34_where_watches_run_out_later_what_is_new_is_polled_and_events_are_told_of_when_they_are_back()
 {
    let (bed, names) = spread(12, NEVER).await;
    for name in &names[6..] {
        fs::rename(
            bed.path("src").join(name),
            bed.path(&format!("aside-{name}")),
        )
        .unwrap();
    }
    // 6 roots, three more directories, and one to spare.
    let Some(command) = limited(&bed, "max_inotify_watches", 10, "") else {
        return;
    };
    let mut watch = Bed::follow(command);
    watch.until("ready").await;
    for _ in 0..6 {
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    }
    assert_eq!(backend(&watch), "inotify");
    assert_eq!(told(&watch).len(), 0);
    for name in &names[6..] {
        fs::rename(
            bed.path(&format!("aside-{name}")),
            bed.path("src").join(name),
        )
        .unwrap();
    }
    for name in &names {
        bed.until_newest_is(name, &code(name, 0)).await;
    }
    save_all(&bed, &names, 1).await;
    watch.until("degraded").await;
    // Room for all again.
    for name in &names[6..] {
        fs::remove_dir_all(bed.path("src").join(name)).unwrap();
    }
    watch.until("restored").await;
    assert_eq!(told(&watch).len(), 1, "once");
    save_all(&bed, &names[..6], 2).await;
    watch.stop().await;
    bed.assert_nothing_deleted();
}

#[tokio::test]
async fn a34_without_polling_a_limit_at_the_start_is_an_error_that_names_the_remedy() {
    let (bed, _) = spread(12, "[watch]\nbackend = \"native\"\n").await;
    let Some(command) = limited(&bed, "max_inotify_watches", 5, "") else {
        return;
    };
    let ended = crate::common::finish(command).await;
    assert_ne!(ended.code, Some(0));
    let said = "sudo sysctl fs.inotify.max_user_watches=";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

#[tokio::test]
async fn a35_where_no_instance_is_left_it_starts_polling_and_says_so() {
    let (bed, names) = spread(3, NEVER).await;
    let Some(command) = limited(&bed, "max_inotify_instances", 0, "") else {
        return;
    };
    let watch = ready(&bed, command).await;
    assert_eq!(backend(&watch), "poll");
    for save in 1..=3 {
        save_all(&bed, &names, save).await;
    }
    let told = told(&watch);
    assert_eq!(told.len(), 1, "{told:?}");
    for words in [
        "er-dev needs 1",
        "user.max_inotify_instances is 0",
        "sudo sysctl user.max_inotify_instances=",
    ] {
        assert!(told[0].contains(words), "{}", told[0]);
    }
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
    bed.assert_nothing_deleted();
}

#[tokio::test]
async fn a35_polling_alone_needs_no_instance_and_says_nothing_of_it() {
    let more = "[watch]\nrescan = \"1h\"\nbackend = \"poll\"\npoll_interval = \"50ms\"\n";
    let (bed, names) = spread(3, more).await;
    let Some(command) = limited(&bed, "max_inotify_instances", 0, "") else {
        return;
    };
    let watch = ready(&bed, command).await;
    assert_eq!(backend(&watch), "poll");
    for save in 1..=5 {
        save_all(&bed, &names, save).await;
    }
    assert_eq!(told(&watch).len(), 0);
    watch.stop().await;
    for name in &names {
        let all: Vec<_> = (0..=5).map(|save| code(name, save)).collect();
        bed.assert_uploads(name, &all, "polling");
    }
}

#[tokio::test]
async fn a36_a_save_while_no_file_can_be_opened_goes_up_as_soon_as_one_can() {
    if !has("prlimit") {
        return;
    }
    let bed = Bed::fenced(OFTEN).await;
    let watch = bed.watch(&[]).await;
    let limit = async |watch: &Watch, files: usize| {
        let (pid, files) = (watch.pid().to_string(), format!("--nofile={files}:"));
        run("prlimit", &["--pid", &pid, &files], &bed.path("")).await;
    };
    for save in 1..=3 {
        limit(&watch, 4).await;
        bed.write("hello", &code("hello", save));
        // It is tried meanwhile, and whether that is told depends on when.
        tokio::time::sleep(Duration::from_millis(700)).await;
        limit(&watch, 1_024).await;
        bed.until_newest_is("hello", &code("hello", save)).await;
    }
    watch.stop().await;
    let all: Vec<_> = (0..=3).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "no file");
}

#[tokio::test]
async fn a37_what_changes_beneath_an_overlay_is_seen_by_looking() {
    let bed = Bed::new(&["hello"]).await;
    fs::remove_file(bed.entry("hello")).unwrap();
    // Upper and work directory have to be on a file system that may hold them; the lower one is another mount here.
    let script = format!(
        "mkdir -p base && mount -t tmpfs none base && mkdir base/lower base/upper base/work \
         && printf '%s' '{}' > base/lower/hello.js \
         && mount -t overlay overlay -o lowerdir=base/lower,upperdir=base/upper,workdir=base/work src \
         && exec \"$0\" watch",
        code("hello", 0)
    );
    let Some(mut probe) = bed.script_that_mounts(&script.replace("exec \"$0\" watch", "true"))
    else {
        return;
    };
    if !probe.output().await.unwrap().status.success() {
        say("SKIPPED: this machine does not let a user mount an overlay in a namespace");
        return;
    }
    let command = bed.script_that_mounts(&script).unwrap();
    let mut watch = Bed::follow(command);
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    assert_eq!(backend(&watch), "inotify and poll");
    // A file in the lower directory gives the overlay's directory no event.
    let lower = bed.seen_by(&watch, "base/lower/hello.js");
    for save in 1..=3 {
        let saved = Instant::now();
        fs::write(&lower, code("hello", save)).unwrap();
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
        let took = saved.elapsed();
        assert!(took <= Duration::from_secs(3), "{took:?}");
    }
    // And what is written to the overlay itself is an event.
    let upper = bed.seen_by(&watch, "src/hello.js");
    fs::write(&upper, code("hello", 4)).unwrap();
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    assert_eq!(told(&watch).len(), 0, "nothing is wrong");
    watch.stop().await;
    let all: Vec<_> = (0..=4).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "overlay");
}
