//! A state directory that is full, cannot be written, or is not ours: uploads go on, deletions stop, nothing is torn.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::common::{Bed, Watch, code};

/// A watch whose state directory is a small file system of its own; `None` where that cannot be had.
async fn on_a_small_disk(bed: &Bed) -> Option<(Watch, PathBuf)> {
    std::fs::create_dir(bed.path("state")).unwrap();
    let script = "mount -t tmpfs -o size=256k,mode=700 none state && exec \"$0\" watch --settle-margin 300ms --api-timeout 1s --post-timeout 1s";
    let watch = Bed::follow(bed.script_that_mounts(script)?);
    // The file system is only to be seen through the process that lives in it.
    let state = Path::new("/proc")
        .join(watch.pid().to_string())
        .join("root")
        .join(bed.path("state").strip_prefix("/").unwrap());
    Some((watch, state))
}

/// Writes until nothing more goes in.
fn fill(path: &Path) {
    let zeros = vec![0; 4096];
    let mut file = std::fs::File::create(path).unwrap();
    while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
}

/// Every file that is there can be read to its end as what it is.
fn assert_whole(state: &Path) {
    let mut left = vec![state.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = std::fs::read(&path).unwrap();
            let read = serde_json::from_slice::<serde_json::Value>(&text);
            assert!(read.is_ok(), "{} is torn", path.display());
        }
    }
}

#[tokio::test]
async fn e05_on_a_full_disk_uploads_go_on_and_nothing_is_deleted_until_there_is_room_again() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 7);
    let Some((mut watch, state)) = on_a_small_disk(&bed).await else {
        return;
    };
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    fill(&state.join("filler"));
    for save in 1..=2 {
        bed.write("hello", &code("hello", save));
        assert_eq!(watch.end_of_edit().await["event"], "uploaded", "{save}");
    }
    let told = watch.until("degraded").await;
    assert_eq!(told["problem"]["class"], "state", "{told}");
    assert_eq!(bed.versions("hello").len(), 10);
    assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 0);
    bed.write("hello", &code("hello", 3));
    let told = watch.until("retrying").await;
    assert_eq!(told["problem"]["class"], "slots", "{told}");
    let degraded = watch.seen().filter(|event| event["event"] == "degraded");
    assert_eq!(degraded.count(), 1, "it is said once");
    assert_whole(&state);
    std::fs::remove_file(state.join("filler")).unwrap();
    bed.write("hello", &code("hello", 4));
    assert_eq!(watch.end_of_edit().await["event"], "superseded");
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.until("restored").await;
    assert_whole(&state);
    watch.stop().await;
    assert_eq!(bed.versions("hello").len(), 9);
}

#[tokio::test]
async fn e06_a_state_directory_that_cannot_be_written_from_the_start_costs_deletions_and_speed_only()
 {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 8);
    std::fs::create_dir(bed.path("state")).unwrap();
    let script = "mount -t tmpfs -o size=64k,mode=700 none state && mount -o remount,ro none state && exec \"$0\" watch --settle-margin 300ms --api-timeout 1s --post-timeout 1s";
    let Some(command) = bed.script_that_mounts(script) else {
        return;
    };
    let mut watch = Bed::follow(command);
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    let told: Vec<_> = watch
        .seen()
        .filter(|event| event["event"] == "degraded")
        .map(|event| event["problem"]["what"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 0);
    watch.stop().await;
}

#[tokio::test]
async fn e05_where_no_file_can_grow_uploads_go_on_and_nothing_is_deleted() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 8);
    assert_eq!(bed.push().await.code, Some(0));
    let mut command = tokio::process::Command::new("sh");
    // The signal that comes with the limit would end a program that does not expect it.
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" watch --settle-margin 300ms --api-timeout 1s --post-timeout 1s"]);
    command.arg(env!("CARGO_BIN_EXE_er-dev"));
    bed.furnish(&mut command);
    let mut watch = Bed::follow(command);
    assert_eq!(watch.end_of_edit().await["event"], "unchanged");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    bed.write("hello", &code("hello", 2));
    let told = watch.until("retrying").await;
    assert_eq!(told["problem"]["class"], "slots", "{told}");
    let told: Vec<_> = watch.seen().filter(|e| e["event"] == "degraded").collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|e| e["problem"]["class"] == "state"));
    assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 0);
    assert_whole(&bed.path("state"));
    watch.kill().await;
}

#[tokio::test]
async fn e06_a_state_directory_that_others_can_write_to_or_of_another_version_is_78() {
    let bed = Bed::new(&["hello"]).await;
    let state = bed.path("state");
    assert_eq!(bed.run(&["push"]).await.code, Some(0));
    let routine = bed.routine_dir("hello");
    for unsafe_dir in [&state, &routine] {
        let whole = std::fs::metadata(unsafe_dir).unwrap().permissions();
        std::fs::set_permissions(unsafe_dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        let ended = bed.run(&["push"]).await;
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("chmod 700"), "{}", ended.stderr);
        std::fs::set_permissions(unsafe_dir, whole).unwrap();
    }
    std::fs::write(state.join("version"), "7\n").unwrap();
    let ended = bed.run(&["push"]).await;
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("another version"), "{}", ended.stderr);
}
