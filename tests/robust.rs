//! Odd surroundings: a reader that goes away, streams that are closed, locales and terminals of another time.

use std::process::Stdio;

use tokio::process::Command;

use crate::common::{Bed, code, finish};

/// A shell command in the bed, with the binary as `$0`.
fn shell(bed: &Bed, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_er-dev")]);
    bed.furnish(&mut command);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command
}

#[tokio::test]
async fn a_reader_that_takes_one_line_only_stops_no_upload() {
    let bed = Bed::new(&["hello"]).await;
    // The pipe lasts as long as the watch, which goes on without a reader.
    let script = r#""$0" watch 2>log & echo $! >pid; wait"#;
    let mut command = shell(&bed, &format!("{{ {script}; }} | head -n 1"));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    bed.until_newest_is("hello", &code("hello", 0)).await;
    bed.write("hello", &code("hello", 1));
    bed.until_newest_is("hello", &code("hello", 1)).await;
    let pid = std::fs::read_to_string(bed.path("pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().await.unwrap().success());
    assert_eq!(std::fs::read_to_string(bed.path("log")).unwrap(), "");
}

#[tokio::test]
async fn a_status_that_nobody_reads_any_more_ends() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let mut command = shell(&bed, r#""$0" status --watch | head -n 1"#);
    command.env("ER_DEV_FORMAT", "text");
    let ended = finish(command).await;
    assert!(
        ended.stdout.starts_with("er-dev 0.1.0 "),
        "{}",
        ended.stdout
    );
    assert_eq!(ended.stderr, "");
    watch.stop().await;
}

#[tokio::test]
async fn with_standard_error_closed_the_exit_code_says_it_all() {
    let bed = Bed::new(&["hello"]).await;
    for (script, code) in [
        (r#""$0" watch --once --log trace 2>&-"#, 0),
        (r#""$0" push helo 2>&-"#, 2),
        (r#""$0" --no-such-flag 2>&-"#, 2),
        (r#""$0" --help 2>&- >&-"#, 0),
        (r#""$0" publish hello --env production 2>&- <&-"#, 2),
        (r#""$0" revisions >/dev/full 2>/dev/full"#, 0),
    ] {
        let ended = finish(shell(&bed, script)).await;
        assert_eq!(ended.code, Some(code), "{script}");
    }
    assert_eq!(bed.versions("hello").len(), 1);
}

#[tokio::test]
async fn a_locale_that_is_not_utf_8_gets_plain_ascii() {
    let bed = Bed::new(&["hello"]).await;
    bed.write("hello", "let a = ;\n");
    for locale in ["C", "POSIX", "zh_CN.GBK", "nonsense"] {
        for arguments in [
            &["watch", "--once"][..],
            &["revisions"],
            &["status"],
            &["--help"],
        ] {
            let mut command = bed.command(arguments);
            command
                .env("LC_ALL", locale)
                .env("LANG", locale)
                .env("ER_DEV_FORMAT", "text");
            let ended = finish(command).await;
            assert!(ended.stdout.is_ascii(), "{arguments:?}: {}", ended.stdout);
            assert!(ended.stderr.is_ascii(), "{arguments:?}: {}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn without_a_home_every_command_works_or_says_what_is_missing() {
    let bed = Bed::new(&["hello"]).await;
    for arguments in [
        &["watch", "--once"][..],
        &["push"],
        &["revisions"],
        &["status"],
        &["sync"],
        &["prune"],
        &["purge"],
        &["config", "check"],
        &["explain", "src/hello.js"],
        &["completions", "bash"],
        &["man"],
    ] {
        let mut command = bed.command(arguments);
        command.env_remove("ER_DEV_STATE_DIR");
        let ended = finish(command).await;
        let text = &ended.stderr;
        assert!(!text.contains("panic"), "{arguments:?}: {text}");
        match ended.code {
            Some(0) => assert_eq!(text, "", "{arguments:?}"),
            Some(78) => assert!(
                text.contains("HOME is set [state]\n= help: ") && text.contains("--state-dir"),
                "{arguments:?}: {text}"
            ),
            other => panic!("{arguments:?}: {other:?} {text}"),
        }
    }
}

#[tokio::test]
async fn status_that_is_watched_off_a_terminal_is_written_again_only_when_something_changed() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let mut follow = Bed::follow(bed.command(&["status", "--watch", "--json"]));
    let slots = |object: &serde_json::Value| object["daemons"][0]["routines"][0]["slots"].clone();
    assert_eq!(slots(&follow.object().await), 1);
    bed.write("hello", &code("hello", 1));
    loop {
        // An edit that is under way is a change as well, so that some lines may come before the one of its end.
        let object = follow.object().await;
        if slots(&object) == 2 && object["daemons"][0]["routines"][0]["pending"] == 0 {
            break;
        }
    }
    // Two looks later the times are others, and nothing else is.
    let up = async || bed.status().await.1["up_ms"].as_u64().unwrap();
    let now = up().await;
    while up().await < now + 2_200 {}
    watch.stop().await;
    assert_eq!(follow.object().await["daemons"], serde_json::json!([]));
    follow.signal(rustix::process::Signal::INT);
    assert_eq!(follow.exit().await, Some(75));
}
