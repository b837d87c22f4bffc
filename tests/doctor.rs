//! `er-dev doctor`: it finds what is wrong, says how to mend it, changes nothing, and takes five seconds at most.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Command;

use crate::common::{Bed, Ended, code, finish, say};

/// The checks of a run, whose exit code has to fit them.
#[track_caller]
fn checks(ended: &Ended) -> Vec<Value> {
    let Ended { stdout, stderr, .. } = ended;
    let object: Value = serde_json::from_str(stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    let checks = object["checks"].as_array().unwrap().clone();
    let bad = checks.iter().any(|check| check["verdict"] == "bad");
    assert_eq!(object["ok"], !bad, "{stdout}");
    assert_eq!(ended.code, Some(i32::from(bad)), "{stdout}");
    for check in &checks {
        assert!(!check["reason"].as_str().unwrap().is_empty(), "{check}");
        // Whatever is wrong has a cure.
        let has_cure = check["cure"].as_str().is_some_and(|cure| !cure.is_empty());
        assert!(has_cure || check["verdict"] != "bad", "{check}");
    }
    checks
}

/// The one check of this name, or the one of them about this.
#[track_caller]
fn check<'a>(checks: &'a [Value], name: &str, about: &str) -> &'a Value {
    let is_it = |check: &&Value| {
        check["check"] == name && (about.is_empty() || check["about"].as_str() == Some(about))
    };
    let found: Vec<&Value> = checks.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} {about}: {checks:#?}");
    found[0]
}

#[track_caller]
fn assert_verdict(checks: &[Value], name: &str, about: &str, verdict: &str, words: &str) {
    let check = check(checks, name, about);
    assert_eq!(check["verdict"], verdict, "{check}");
    let text = format!("{} {}", check["reason"], check["cure"]);
    assert!(text.contains(words), "{words}: {check}");
}

#[tokio::test]
async fn where_nothing_is_wrong_it_says_so_reads_only_and_leaves_nothing_behind() {
    let bed = Bed::new(&["hello", "other"]).await;
    bed.seed("hello", 8);
    let ended = bed.run(&["doctor"]).await;
    let found = checks(&ended);
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_verdict(&found, "config", "", "ok", "2 routines");
    assert_verdict(
        &found,
        "key",
        "",
        "ok",
        "access key emul...y-id (environment)",
    );
    let place = "systemd credential";
    assert_verdict(
        &found,
        "place",
        place,
        "note",
        "CREDENTIALS_DIRECTORY is not set",
    );
    assert_verdict(&found, "service", &bed.emulator.endpoint(), "ok", "answers");
    assert_verdict(&found, "proxy", "", "ok", "none");
    assert_verdict(&found, "clock", "", "ok", "");
    assert_verdict(&found, "routine", "hello", "ok", "8 of 10 slots taken");
    assert_verdict(&found, "routine", "hello", "ok", "goes next");
    assert_verdict(&found, "routine", "other", "ok", "0 of 10");
    for (operation, verdict) in [
        ("DescribeRoutine", "ok"),
        ("DescribeRoutineCodeRevision", "ok"),
        ("UploadRoutineCode", "unknown"),
        ("UploadStagingRoutineCode", "note"),
        ("CommitStagingRoutineCode", "note"),
        ("DeleteRoutineCodeRevision", "unknown"),
        ("PublishRoutineCodeRevision", "unknown"),
        ("CreateRoutine", "note"),
    ] {
        assert_verdict(
            &found,
            "permission",
            &format!("dcdn:{operation}"),
            verdict,
            "",
        );
    }
    assert_verdict(&found, "inotify", "", "ok", "needed");
    let source = bed.path("src").display().to_string();
    assert_verdict(&found, "directory", &source, "ok", "on ");
    assert_verdict(&found, "state", "", "ok", "not there yet");
    assert_verdict(&found, "watch", "", "ok", "no other");
    let asked: Vec<&str> = bed.history().iter().map(|record| record.op).collect();
    assert!(
        asked.iter().all(|op| op.starts_with("Describe")),
        "{asked:?}"
    );
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(!bed.path("state").exists());
}

#[tokio::test]
async fn every_check_is_one_line_of_text() {
    let bed = Bed::new(&["hello"]).await;
    let ended = bed.run(&["doctor", "--format", "text"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let with_json = checks(&bed.run(&["doctor", "--json"]).await).len();
    // The last line says how it stands in all.
    assert_eq!(
        ended.stdout.lines().count(),
        with_json + 1,
        "{}",
        ended.stdout
    );
    for line in ended.stdout.lines() {
        let verdict = line.split_whitespace().next().unwrap();
        assert!(
            ["Ok", "Note", "Unknown", "Well"].contains(&verdict),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_costs_five_seconds_at_most() {
    // It takes connections, and that is all.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let bed = Bed::new(&["hello"]).await;
    for endpoint in [&silent, &refusing] {
        bed.configure(endpoint, "");
        let begun = Instant::now();
        let found = checks(&bed.run(&["doctor"]).await);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        assert_verdict(&found, "service", endpoint, "bad", "check the network");
        assert_verdict(&found, "clock", "", "unknown", "");
        assert_verdict(&found, "permission", "dcdn:DescribeRoutine", "unknown", "");
        assert_verdict(&found, "routine", "hello", "unknown", "");
    }
}

#[tokio::test]
async fn a_source_of_keys_that_does_not_answer_costs_five_seconds_at_most() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/key", listener.local_addr().unwrap());
    let bed = Bed::new(&["hello"]).await;
    let mut command = without_key(&bed, &["doctor"]);
    command.env("ALIBABA_CLOUD_CREDENTIALS_URI", silent);
    let begun = Instant::now();
    let found = checks(&finish(command).await);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_verdict(&found, "key", "", "unknown", "within 2 s");
    assert_verdict(&found, "service", "", "unknown", "without a key");
}

fn without_key(bed: &Bed, arguments: &[&str]) -> Command {
    let mut command = bed.command(arguments);
    command
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_ID")
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_SECRET");
    command
}

#[tokio::test]
async fn without_a_key_it_says_of_every_place_why_there_is_none() {
    let bed = Bed::new(&["hello"]).await;
    let mut command = without_key(&bed, &["doctor"]);
    command
        .env("HOME", bed.path("home"))
        .env("ALIBABA_CLOUD_OIDC_TOKEN_FILE", "/run/token")
        .env("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true");
    let found = checks(&finish(command).await);
    assert_verdict(&found, "key", "", "bad", "no credentials found");
    for (place, why) in [
        (
            "systemd credential".to_owned(),
            "CREDENTIALS_DIRECTORY is not set",
        ),
        (
            "environment".to_owned(),
            "none of ALIBABA_CLOUD_ACCESS_KEY_ID",
        ),
        (
            bed.path("home/.aliyun/config.json").display().to_string(),
            "no such file",
        ),
        (
            bed.path("home/.alibabacloud/credentials")
                .display()
                .to_string(),
            "no such file",
        ),
        (
            "ECS role".to_owned(),
            "ALIBABA_CLOUD_ECS_METADATA_DISABLED switches it off",
        ),
        (
            "credentials URI".to_owned(),
            "ALIBABA_CLOUD_CREDENTIALS_URI is not set",
        ),
        ("OIDC provider".to_owned(), "er-dev does not support it"),
    ] {
        assert_verdict(&found, "place", &place, "note", why);
    }
    assert_eq!(bed.history().len(), 0);
}

#[tokio::test]
async fn a_configuration_that_is_wrong_does_not_keep_the_rest_from_being_looked_at() {
    let bed = Bed::new(&["hello"]).await;
    std::fs::write(bed.path("er-dev.toml"), "[watch]\ndebouce = '1s'\n").unwrap();
    let found = checks(&bed.run(&["doctor"]).await);
    assert_verdict(&found, "config", "", "bad", "debouce");
    assert_verdict(&found, "config", "", "bad", "did you mean `debounce`?");
    assert_verdict(&found, "key", "", "ok", "environment");
    assert_verdict(&found, "state", "", "ok", "");
}

#[tokio::test]
async fn what_the_service_refuses_is_told_with_the_action_that_lacks() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 1);
    bed.fault("DescribeRoutineCodeRevision:*:code(Forbidden.RAM,not authorised,403)");
    let found = checks(&bed.run(&["doctor"]).await);
    let action = "dcdn:DescribeRoutineCodeRevision";
    assert_verdict(
        &found,
        "permission",
        action,
        "bad",
        &format!("allow the action `{action}`"),
    );
    assert_verdict(&found, "permission", "dcdn:DescribeRoutine", "ok", "");
    bed.fault("DescribeRoutine:*:code(Forbidden.RAM,not authorised,403)");
    let found = checks(&bed.run(&["doctor"]).await);
    let action = "dcdn:DescribeRoutine";
    assert_verdict(
        &found,
        "permission",
        action,
        "bad",
        &format!("allow the action `{action}`"),
    );
    let endpoint = bed.emulator.endpoint();
    assert_verdict(&found, "service", &endpoint, "ok", "answers");
}

#[tokio::test]
async fn a_routine_that_is_missing_or_full_of_what_must_stay_is_found() {
    let bed = Bed::with(
        &["hello"],
        Default::default(),
        "[revisions]\npin = ['by hand']",
    )
    .await;
    bed.seed("hello", 10);
    let found = checks(&bed.run(&["doctor"]).await);
    assert_verdict(&found, "routine", "hello", "bad", "none of them may go");
    for (more, verdict, words) in [
        ("", "bad", "create = true"),
        ("create = true", "ok", "the first edit makes it"),
    ] {
        let text = format!(
            "[service]\nendpoint = \"{}\"\n[[routine]]\nname = \"gone\"\nentry = \"src/hello.js\"\n{more}\n",
            bed.emulator.endpoint()
        );
        std::fs::write(bed.path("er-dev.toml"), text).unwrap();
        let found = checks(&bed.run(&["doctor"]).await);
        assert_verdict(&found, "routine", "gone", verdict, words);
        assert_verdict(&found, "permission", "dcdn:DescribeRoutine", "ok", "");
        assert_verdict(&found, "service", &bed.emulator.endpoint(), "ok", "");
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_found_by_the_services() {
    let bed = Bed::new(&["hello"]).await;
    for (skew, verdict, words) in [
        ("1230", "bad", "20m "),
        ("-1230", "bad", "ahead of"),
        ("60", "note", "behind"),
    ] {
        bed.emulator.clear_faults();
        bed.fault(&format!("api:*:date_skew({skew})"));
        let found = checks(&bed.run(&["doctor"]).await);
        assert_verdict(&found, "clock", "", verdict, words);
    }
}

#[tokio::test]
async fn b22_a_proxy_is_shown_without_its_password() {
    const PASSWORD: &str = "swordfish-of-the-proxy";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody gets further than this proxy, which is not there.
    drop(listener);
    let bed = Bed::new(&["hello"]).await;
    bed.configure("https://dcdn.aliyuncs.com", "");
    for (variable, proxy) in [
        ("HTTPS_PROXY", format!("http://user:{PASSWORD}@{address}")),
        ("all_proxy", format!("user:{PASSWORD}@{address}")),
    ] {
        let mut command = bed.command(&["doctor", "--log", "trace"]);
        command.env(variable, proxy);
        let ended = finish(command).await;
        let found = checks(&ended);
        assert_verdict(&found, "proxy", "", "note", &format!("***@{address}"));
        assert!(!ended.stdout.contains(PASSWORD), "{}", ended.stdout);
        assert!(!ended.stderr.contains(PASSWORD), "{}", ended.stderr);
        let url = "https://dcdn.aliyuncs.com";
        assert_verdict(&found, "service", url, "bad", "no connection");
        assert_verdict(&found, "trust", "", "ok", "system");
    }
}

#[tokio::test]
async fn the_directories_of_er_dev_are_looked_at() {
    let bed = Bed::new(&["hello"]).await;
    let ended = bed.push().await;
    assert_eq!(ended.code, Some(0));
    let state = bed.path("state");
    let found = checks(&bed.run(&["doctor"]).await);
    let shown = state.display().to_string();
    assert_verdict(&found, "state", &shown, "ok", "mode 0700");
    assert_verdict(&found, "space", &shown, "ok", "free");
    let mode = |mode| std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode));
    mode(0o777).unwrap();
    let found = checks(&bed.run(&["doctor"]).await);
    assert_verdict(&found, "state", &shown, "bad", "chmod 700");
    mode(0o700).unwrap();
    std::fs::create_dir_all(state.join("run")).unwrap();
    let run = state.join("run");
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)).unwrap();
    let found = checks(&bed.run(&["doctor"]).await);
    assert_verdict(&found, "runtime", "", "bad", "chmod 700");
    std::fs::remove_dir_all(bed.path("src")).unwrap();
    let found = checks(&bed.run(&["doctor"]).await);
    assert_verdict(&found, "directory", "", "bad", "not there");
}

#[tokio::test]
async fn a_watch_that_runs_already_is_named() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let found = checks(&bed.run(&["doctor"]).await);
    assert_verdict(&found, "watch", "", "note", &watch.pid().to_string());
    watch.stop().await;
}

#[tokio::test]
async fn watches_that_run_out_are_found_with_the_limit_and_the_number_that_is_needed() {
    let bed = Bed::new(&["hello"]).await;
    bed.write("hello", &code("hello", 1));
    let limit = "/proc/sys/user/max_inotify_watches";
    let possible = std::process::Command::new("unshare")
        .args(["-Ur", "sh", "-c", &format!("echo 1 > {limit}")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        return say("SKIPPED: this machine does not let a user limit inotify in a namespace");
    }
    let script = format!("echo 1 > {limit} && exec \"$0\" doctor");
    let mut command = Command::new("unshare");
    command.args(["-Ur", "sh", "-c", &script, env!("CARGO_BIN_EXE_er-dev")]);
    bed.furnish(&mut command);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let found = checks(&finish(command).await);
    assert_verdict(
        &found,
        "inotify",
        "",
        "bad",
        "user.max_inotify_watches is 1 ",
    );
    assert_verdict(&found, "inotify", "", "bad", "sudo sysctl");
}
