//! Where the socket lies, who may use it, and that it goes when its watch goes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::process::Command;

use super::{STATUS, ask, socket, state};
use crate::common::{Bed, LIMIT, code, finish, has, say};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_directory_and_the_socket_are_their_owners_alone() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let socket = socket(&bed);
    assert_eq!(
        (mode(&bed.path("state/run")), mode(&socket)),
        (0o700, 0o600)
    );
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    let instance = fs::read_to_string(bed.path("state/instance")).unwrap();
    let expected = format!("{}.{}.sock", instance.trim_end(), watch.pid());
    assert_eq!(socket.file_name().unwrap().to_str().unwrap(), expected);
    watch.stop().await;
}

#[tokio::test]
async fn the_socket_lies_where_the_environment_says() {
    let bed = Bed::new(&["hello"]).await;
    for (variable, value, place) in [
        ("RUNTIME_DIRECTORY", "service", "service"),
        ("XDG_RUNTIME_DIR", "user", "user/er-dev"),
    ] {
        let value = bed.path(value);
        let with = |arguments: &[&str]| {
            let mut command = bed.command(arguments);
            command.env(variable, &value);
            command
        };
        let mut watch = Bed::follow(with(&["watch"]));
        watch.end_of_edit().await;
        assert_eq!(fs::read_dir(bed.path(place)).unwrap().count(), 1);
        assert_eq!(finish(with(&["status"])).await.code, Some(0));
        watch.stop().await;
        assert_eq!(fs::read_dir(bed.path(place)).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn the_socket_goes_on_every_way_out() {
    let bed = Bed::new(&["hello"]).await;
    for signal in [Signal::INT, Signal::TERM] {
        let mut watch = bed.watch(&[]).await;
        socket(&bed);
        watch.signal(signal);
        assert_eq!(watch.exit().await, Some(0));
        assert!(bed.sockets().is_empty());
    }
    // A second signal waits for nothing, not even for a request under way.
    let mut watch = bed.watch(&[]).await;
    bed.fault("UploadRoutineCode:1:delay(60000)");
    bed.write("hello", &code("hello", 1));
    bed.until_asked("UploadRoutineCode", 2).await;
    watch.signal(Signal::INT);
    watch.until("stopping").await;
    watch.signal(Signal::INT);
    assert_eq!(watch.exit().await, Some(130));
    assert!(bed.sockets().is_empty());
    // An end before anything was watched.
    bed.fault("DescribeRoutine:*:code(InvalidAccessKeyId.NotFound,no such key,404)");
    assert_eq!(bed.run(&["watch"]).await.code, Some(77));
    assert!(bed.path("state/run").exists() && bed.sockets().is_empty());
}

#[tokio::test]
async fn a_socket_that_a_killed_watch_left_is_found_and_removed() {
    let bed = Bed::new(&["hello"]).await;
    for by_a_watch in [false, true] {
        bed.watch(&[]).await.kill().await;
        let left = socket(&bed);
        if by_a_watch {
            let watch = bed.watch(&[]).await;
            assert_ne!(socket(&bed), left);
            assert_eq!(bed.status().await.0, Some(0));
            watch.stop().await;
        } else {
            let ended = bed.run(&["status"]).await;
            assert_eq!(ended.code, Some(75), "{}", ended.stderr);
        }
        assert!(bed.sockets().is_empty());
    }
}

#[tokio::test]
async fn a_directory_that_others_may_enter_gets_no_socket_and_stops_nothing() {
    let bed = Bed::new(&["hello"]).await;
    bed.watch(&[]).await.stop().await;
    let run = bed.path("state/run");
    fs::set_permissions(&run, Permissions::from_mode(0o755)).unwrap();
    let mut watch = bed.watch(&[]).await;
    let warnings: Vec<_> = watch.seen().filter(|e| e["event"] == "warning").collect();
    assert_eq!(warnings.len(), 1);
    let problem = &warnings[0]["problem"];
    let what = problem["what"].as_str().unwrap();
    assert!(
        what.contains("is open to other users (mode 755, not 700)"),
        "{what}"
    );
    let help = problem["help"].as_str().unwrap();
    assert!(help.contains("chmod 700"), "{help}");
    assert!(bed.sockets().is_empty());
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    // Who asks does not believe what lies there either.
    for command in ["status", "sync"] {
        let ended = bed.run(&[command]).await;
        assert_eq!(ended.code, Some(78));
        assert!(ended.stderr.contains("chmod 700"), "{}", ended.stderr);
    }
    watch.stop().await;
}

#[tokio::test]
async fn a_socket_that_is_removed_with_its_directory_is_made_again() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let before = socket(&bed);
    fs::remove_dir_all(bed.path("state/run")).unwrap();
    let begun = Instant::now();
    while bed.sockets().is_empty() {
        assert!(begun.elapsed() < LIMIT, "it is not made again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(socket(&bed), before);
    assert_eq!(
        (mode(&bed.path("state/run")), mode(&before)),
        (0o700, 0o600)
    );
    assert_eq!(bed.status().await.0, Some(0));
    bed.write("hello", &code("hello", 1));
    bed.sync().await;
    assert_eq!(bed.newest("hello"), code("hello", 1).as_bytes());
    watch.stop().await;
    assert!(bed.sockets().is_empty());
}

#[tokio::test]
async fn a_path_that_is_too_long_for_a_socket_is_said_once_and_stops_nothing() {
    let bed = Bed::new(&["hello"]).await;
    let long = bed.path(&"x".repeat(100));
    let mut command = bed.command(&["watch"]);
    command.env("XDG_RUNTIME_DIR", &long);
    let mut watch = Bed::follow(command);
    let warning = watch.until("warning").await;
    let what = warning["problem"]["what"].as_str().unwrap();
    assert!(what.contains("may have 107"), "{what}");
    let help = warning["problem"]["help"].as_str().unwrap();
    assert!(help.contains("shorter path"), "{help}");
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
}

#[tokio::test]
async fn another_user_is_kept_out_twice() {
    if !rustix::process::geteuid().is_root() {
        say("SKIPPED: only root can become another user");
        return;
    }
    if !(has("setpriv") && has("curl")) {
        return;
    }
    let bed = Bed::new(&["hello"]).await;
    let log = bed.path("log");
    let watch = bed.watch_logged(&[], &log).await;
    let socket = socket(&bed);
    let as_nobody = async |program: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(program)
            .arg(&socket)
            .current_dir("/");
        finish(command).await
    };
    let may_connect = ["test", "-w"];
    let ask = ["curl", "-s", "http://er-dev/status", "--unix-socket"];
    assert_eq!(as_nobody(&may_connect).await.code, Some(1), "by its mode");
    let open = [bed.path(""), bed.path("state"), bed.path("state/run")];
    for path in &open {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    if as_nobody(&may_connect).await.code != Some(0) {
        return say("SKIPPED: another user cannot enter the directory of the tests");
    }
    let ended = as_nobody(&ask).await;
    assert_ne!(ended.code, Some(0));
    assert_eq!(ended.stdout, "", "it was answered");
    for path in &open {
        fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    }
    assert!(
        super::ask(&socket, STATUS)
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    let (exit, status) = bed.status().await;
    assert_eq!((exit, state(&status, "hello")), (Some(0), "ok"));
    watch.stop().await;
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("another user was refused"), "{log}");
}

#[tokio::test]
async fn a_pause_holds_uploads_back_until_it_is_over() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    let post =
        |path: &str| format!("POST {path} HTTP/1.1\r\nhost: er-dev\r\ncontent-length: 0\r\n\r\n");
    let paused = ask(&socket(&bed), &post("/pause")).await;
    assert!(paused.starts_with("HTTP/1.1 200"), "{paused}");
    assert!(paused.contains(r#""condition":"paused""#), "{paused}");
    watch.until("paused").await;
    bed.write("hello", &code("hello", 1));
    // An order to try everything now is none to go on.
    let flushed = ask(&socket(&bed), &post("/flush")).await;
    assert!(flushed.contains(r#""condition":"paused""#), "{flushed}");
    let (code_of_status, status) = bed.status().await;
    assert_eq!(code_of_status, Some(1), "{status}");
    let resumed = ask(&socket(&bed), &post("/resume")).await;
    assert!(!resumed.contains("paused"), "{resumed}");
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.stop().await;
}
