//! `er-dev status`: each state, its reason, and the exit code.

use er_dev::emulator::history::POST_OBJECT;
use er_dev::emulator::{Emulator, Options};
use er_dev::routine::Digest;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{of, state};
use crate::common::{Bed, QUICK, code, finish};

#[tokio::test]
async fn an_idle_watch_says_what_it_is_and_what_is_on_the_service() {
    let bed = Bed::new(&["hello", "other"]).await;
    bed.seed("other", 3);
    let watch = bed.watch(&[]).await;
    bed.sync().await;
    let (exit, status) = bed.status().await;
    assert_eq!(exit, Some(0), "{status}");
    assert_eq!(status["v"], 1);
    assert_eq!(status["pid"], watch.pid());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["endpoint"], bed.emulator.address().to_string());
    let config = bed.path("er-dev.toml").canonicalize().unwrap();
    assert_eq!(status["config"], config.to_str().unwrap());
    let instance = std::fs::read_to_string(bed.path("state/instance")).unwrap();
    assert_eq!(status["instance"], instance.trim_end());
    assert!(status["up_ms"].as_u64().unwrap() > 0);
    let budget = &status["budget"];
    let rates = (&budget["requests_per_second"], &budget["configured"]);
    assert_eq!(rates, (&json!(80), &json!(80)));
    let calls = bed.history();
    let calls = calls.iter().filter(|record| record.op != POST_OBJECT);
    assert_eq!(budget["calls"], calls.count());
    assert!(budget["peak"].as_u64().unwrap() > 0);
    assert_eq!(status["conditions"], json!([]));
    for (routine, slots) in [("hello", 1), ("other", 4)] {
        let one = of(&status, routine);
        assert_eq!((&one["state"], &one["pending"]), (&json!("ok"), &json!(0)));
        assert_eq!((&one["slots"], &one["cap"]), (&json!(slots), &json!(10)));
        assert_eq!(one.get("reason"), None);
        let last = &one["last"];
        let newest = bed.versions(routine).pop().unwrap();
        assert_eq!(last["revision"], json!(newest.as_str()), "a string");
        let sha256 = Digest::of(code(routine, 0).as_bytes()).hex();
        assert_eq!(last["sha256"], json!(sha256));
        last["at"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap();
    }
    // What a restart finds is a success as well, with its digest.
    watch.stop().await;
    let watch = bed.watch(&[]).await;
    let (_, again) = bed.status().await;
    for key in ["revision", "sha256"] {
        assert_eq!(
            of(&again, "hello")["last"][key],
            of(&status, "hello")["last"][key]
        );
    }
    watch.stop().await;
}

#[tokio::test]
async fn people_read_a_table() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let mut command = bed.command(&["status"]);
    command.env("ER_DEV_FORMAT", "text");
    let ended = finish(command).await;
    assert_eq!(ended.code, Some(0));
    let text = ended.stdout;
    assert!(text.starts_with("er-dev 0.1.0  127.0.0.1:"), "{text}");
    for words in [
        "      Config  ",
        "      Budget  80/s, ",
        "hello    ok  ",
        " 1/10\n",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    let mut command = bed.command(&["status", "--json"]);
    command.env("ER_DEV_FORMAT", "text");
    let json = finish(command).await.stdout;
    assert!(
        json.starts_with(r#"{"v":1,"daemons":[{"v":1,"pid":"#),
        "{json}"
    );
    watch.stop().await;
}

#[tokio::test]
async fn where_no_watch_runs_it_is_said_with_75_and_what_to_do() {
    let bed = Bed::new(&["hello"]).await;
    for command in ["status", "sync"] {
        let ended = bed.run(&[command]).await;
        assert_eq!(ended.code, Some(75), "{}", ended.stderr);
        assert_eq!(ended.stdout, "{\"v\":1,\"daemons\":[]}\n");
        let said = [
            "no er-dev watch runs for ",
            "= help: start one with `er-dev watch`",
        ];
        for words in said {
            assert!(ended.stderr.contains(words), "{}", ended.stderr);
        }
        let ended = bed.run(&[command, "--config", "nowhere.toml"]).await;
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    }
    // A run that ends by itself has no socket.
    bed.run(&["watch", "--once"]).await;
    assert_eq!(bed.run(&["status"]).await.code, Some(75));
    assert!(bed.sockets().is_empty());
}

#[tokio::test]
async fn an_edit_that_is_being_uploaded_is_pending_and_all_is_well() {
    let bed = Bed::new(&["hello", "other"]).await;
    let watch = bed.watch(&[]).await;
    bed.sync().await;
    bed.fault("UploadRoutineCode:1:delay(60000)");
    bed.write("hello", &code("hello", 1));
    bed.until_asked("UploadRoutineCode", 3).await;
    let (exit, status) = bed.status().await;
    assert_eq!(exit, Some(0), "{status}");
    assert_eq!(state(&status, "hello"), "pending");
    assert_eq!(of(&status, "hello")["pending"], 1);
    assert_eq!(state(&status, "other"), "ok");
    watch.kill().await;
}

#[tokio::test]
async fn a_watch_that_cannot_reach_the_service_is_offline_until_it_can() {
    let bed = Bed::new(&["hello", "other"]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    bed.configure(&format!("http://{address}"), "");
    let mut watch = bed.watch_from_start(&[]);
    watch.until("offline").await;
    let (exit, status) = bed.status().await;
    assert_eq!(exit, Some(1), "{status}");
    for routine in ["hello", "other"] {
        assert_eq!(state(&status, routine), "offline");
        assert_eq!(of(&status, routine)["reason"]["class"], "network");
    }
    let condition = &status["conditions"][0];
    assert_eq!(condition["condition"], "offline");
    assert!(condition["since"].is_string() && condition["reason"]["what"].is_string());
    // Waiting does not help within this time, and what is waited for is said.
    let ended = bed.run(&["sync", "--timeout", "500ms"]).await;
    assert_eq!(ended.code, Some(75), "{}", ended.stdout);
    let daemon = &ended.events()[0]["daemons"][0];
    assert_eq!(daemon["sync"], "unfinished");
    assert!(daemon["error"].as_str().unwrap().contains("within 500ms"));
    assert_eq!(state(&daemon["status"], "hello"), "offline");
    let options = Options {
        listen: address,
        routines: bed.routines.clone(),
        ..Options::default()
    };
    let emulator = Emulator::start(options).await.unwrap();
    bed.sync().await;
    let (exit, status) = bed.status().await;
    assert_eq!((exit, &status["conditions"]), (Some(0), &json!([])));
    watch.stop().await;
    emulator.stop().await;
}

#[tokio::test]
async fn a_key_that_is_refused_is_a_matter_of_all_routines_and_a_permission_of_one() {
    let bed = Bed::new(&["hello", "other"]).await;
    let mut watch = bed.watch(&[]).await;
    bed.sync().await;
    bed.fault("UploadRoutineCode:1:code(Forbidden.RAM,not authorised,403)");
    bed.write("hello", &code("hello", 1));
    watch.until("retrying").await;
    let (exit, status) = bed.status().await;
    assert_eq!((exit, state(&status, "hello")), (Some(1), "auth"));
    assert_eq!(status["conditions"], json!([]));
    bed.fault("api:*:code(InvalidAccessKeyId.NotFound,no such key,404)");
    bed.write("other", &code("other", 1));
    watch.until("offline").await;
    let (exit, status) = bed.status().await;
    assert_eq!((exit, state(&status, "other")), (Some(1), "auth"));
    assert_eq!(status["conditions"][0]["condition"], "auth");
    watch.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_go_up_says_why_until_it_can() {
    let bed = Bed::new(&["hello", "other"]).await;
    let watch = bed.watch(&[]).await;
    bed.sync().await;
    type Spoil = fn(&Bed);
    let spoils: [(&str, Spoil, &str); 3] = [
        (
            "refused",
            |bed| bed.write("hello", "let a = ;\n"),
            "src/hello.js:1:9 ",
        ),
        (
            "missing",
            |bed| std::fs::remove_file(bed.entry("hello")).unwrap(),
            "does not exist",
        ),
        ("empty", |bed| bed.write("hello", ""), "is empty"),
    ];
    for (save, (word, spoil, why)) in spoils.into_iter().enumerate() {
        spoil(&bed);
        let ended = bed.run(&["sync"]).await;
        assert_eq!(
            ended.code,
            Some(1),
            "{word}: {}{}",
            ended.stdout,
            ended.stderr
        );
        let daemon = ended.events()[0]["daemons"][0].clone();
        assert_eq!(daemon["sync"], "failed");
        let (exit, status) = bed.status().await;
        assert_eq!(exit, Some(1));
        for status in [&status, &daemon["status"]] {
            assert_eq!(
                (state(status, "hello"), state(status, "other")),
                (word, "ok")
            );
            let reason = &of(status, "hello")["reason"];
            assert!(reason["what"].as_str().unwrap().contains(why), "{reason}");
            assert_eq!(reason["class"], "source");
        }
        bed.write("hello", &code("hello", save + 1));
        bed.sync().await;
        let (exit, status) = bed.status().await;
        assert_eq!((exit, state(&status, "hello")), (Some(0), "ok"));
    }
    watch.stop().await;
}

#[tokio::test]
async fn what_needs_somebody_is_blocked_and_what_needs_time_is_not() {
    let bed = Bed::new(&["hello", "other"]).await;
    let mut watch = bed.watch(QUICK).await;
    bed.sync().await;
    bed.fault("UploadRoutineCode:1-2:code(EdgeRoutine.GeneralError,you got upper limit of code revisions,400)");
    bed.write("hello", &code("hello", 1));
    let ended = bed.run(&["sync"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let (_, status) = bed.status().await;
    assert_eq!(
        (
            state(&status, "hello"),
            of(&status, "hello")["pending"].clone()
        ),
        ("blocked", json!(1))
    );
    assert_eq!(of(&status, "hello")["reason"]["class"], "slots");
    bed.emulator.clear_faults();
    bed.fault("UploadRoutineCode:1-20:code(Throttling.User,too many,400)");
    bed.write("other", &code("other", 1));
    watch.until("throttled").await;
    let (exit, status) = bed.status().await;
    let now = state(&status, "other");
    assert!(matches!(now, "backoff" | "pending"), "{now}");
    assert_eq!(exit, Some(1));
    assert_eq!(of(&status, "other")["reason"]["class"], "throttled");
    assert!(status["budget"]["requests_per_second"].as_u64().unwrap() < 80);
    watch.kill().await;
}

#[tokio::test]
async fn work_with_less_safety_is_a_condition_until_it_is_over() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 9);
    let mut watch = bed.watch(&[]).await;
    bed.sync().await;
    bed.fault("DeleteRoutineCodeRevision:1:code(Forbidden.RAM,not authorised,403)");
    bed.write("hello", &code("hello", 1));
    watch.until("degraded").await;
    let (exit, status) = bed.status().await;
    assert_eq!(exit, Some(1), "{status}");
    let condition = &status["conditions"][0];
    assert_eq!(condition["condition"], "degraded");
    assert_eq!(condition["reason"]["class"], "credentials");
    bed.write("hello", &code("hello", 2));
    watch.until("restored").await;
    bed.sync().await;
    let (exit, status) = bed.status().await;
    assert_eq!((exit, &status["conditions"]), (Some(0), &json!([])));
    watch.stop().await;
}

#[tokio::test]
async fn two_watches_are_told_apart_by_their_configuration() {
    let (one, two) = (Bed::new(&["one"]).await, Bed::new(&["two"]).await);
    let state_dir = one.path("state");
    let in_one_directory = |bed: &Bed, arguments: &[&str]| {
        let mut command = bed.command(arguments);
        command.env("ER_DEV_STATE_DIR", &state_dir);
        command
    };
    let mut watches = Vec::new();
    for bed in [&one, &two] {
        let mut watch = Bed::follow(in_one_directory(bed, &["watch"]));
        watch.until("ready").await;
        watches.push(watch);
    }
    assert_eq!(one.sockets().len(), 2);
    let told = async |command| {
        let ended = finish(command).await;
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        let daemons = ended.events().remove(0)["daemons"].take();
        daemons.as_array().unwrap().clone()
    };
    for (bed, name) in [(&one, "one"), (&two, "two")] {
        let daemons = told(in_one_directory(bed, &["status"])).await;
        assert_eq!(daemons.len(), 1);
        assert_eq!(daemons[0]["routines"][0]["routine"], name);
    }
    // Named from elsewhere, and by another way to the same file.
    let link = one.path("link.toml");
    std::os::unix::fs::symlink(two.path("er-dev.toml"), &link).unwrap();
    let daemons = told(in_one_directory(&one, &["status", "--config", "link.toml"])).await;
    assert_eq!(daemons[0]["routines"][0]["routine"], "two");
    let nowhere = tempfile::tempdir().unwrap();
    let from_nowhere = |arguments: &[&str]| {
        let mut command = in_one_directory(&one, arguments);
        command.current_dir(nowhere.path());
        command
    };
    assert_eq!(told(from_nowhere(&["status"])).await.len(), 2);
    for bed in [&one, &two] {
        let name = bed.routines[0].as_str();
        bed.write(name, &code(name, 1));
    }
    let synced = told(from_nowhere(&["sync"])).await;
    let words: Vec<&Value> = synced.iter().map(|daemon| &daemon["sync"]).collect();
    assert_eq!(words, ["synced", "synced"]);
    for bed in [&one, &two] {
        let name = bed.routines[0].as_str();
        assert_eq!(bed.newest(name), code(name, 1).as_bytes());
    }
    // One that was ended is not missed by the other.
    watches.remove(0).stop().await;
    let ended = finish(in_one_directory(&one, &["status"])).await;
    assert_eq!(ended.code, Some(75));
    assert!(
        ended.stderr.contains("one runs for another configuration"),
        "{}",
        ended.stderr
    );
    assert_eq!(told(from_nowhere(&["status"])).await.len(), 1);
    watches.remove(0).stop().await;
}

#[tokio::test]
async fn a_run_on_an_emulator_is_found_where_status_looks() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch_from_start(&["--emulator"]);
    watch.end_of_edit().await;
    let (exit, status) = bed.status().await;
    assert_eq!((exit, state(&status, "hello")), (Some(0), "ok"));
    assert_ne!(status["endpoint"], bed.emulator.address().to_string());
    watch.stop().await;
    assert!(bed.sockets().is_empty());
}

#[tokio::test]
async fn a_watch_that_hangs_is_said_to_and_not_waited_for_long() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    watch.signal(Signal::STOP);
    let (exit, silent) = bed.status().await;
    assert_eq!(exit, Some(1));
    assert_eq!(silent["pid"], watch.pid());
    assert_eq!(silent["error"], "it did not answer within 5s");
    let ended = bed.run(&["sync"]).await;
    assert_eq!(ended.code, Some(75), "{}", ended.stdout);
    let daemon = &ended.events()[0]["daemons"][0];
    assert_eq!(daemon["error"], "it did not answer within 5s");
    watch.signal(Signal::CONT);
    bed.sync().await;
    watch.stop().await;
}

#[tokio::test]
async fn a_watch_that_has_not_begun_says_so_and_a_sync_waits_for_it() {
    let bed = Bed::new(&["hello"]).await;
    bed.fault("DescribeRoutine:1:delay(6000)");
    let mut watch = bed.watch_from_start(&[]);
    watch.until("watching").await;
    bed.until_asked("DescribeRoutine", 1).await;
    let (exit, status) = bed.status().await;
    assert_eq!(exit, Some(1), "{status}");
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("has not begun to watch yet"), "{error}");
    bed.sync().await;
    assert_eq!(bed.newest("hello"), code("hello", 0).as_bytes());
    watch.stop().await;
}
