//! Exit codes and messages, as a person or a script meets them.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::common::{Bed, Ended, SIGNATURES, code, finish};
use er_dev::emulator::world::Settings;
use rustix::process::Signal;

/// One problem of an edit: its class, and that nothing was sent for it.
async fn refused_push(bed: &Bed) -> Ended {
    let before = bed.history().len();
    let ended = bed.run(&["push", "hello"]).await;
    assert_eq!(bed.history().len(), before, "a request was made");
    ended
}

#[tokio::test]
async fn a_file_that_cannot_go_up_ends_push_with_65_and_makes_no_request() {
    let bed = Bed::new(&["hello"]).await;
    let entry = bed.entry("hello");
    let secret = bed.path("outside.js");
    std::fs::write(&secret, "let a = 1;").unwrap();
    type Spoil<'a> = Box<dyn Fn() + 'a>;
    let spoils: [(&str, Spoil<'_>); 8] = [
        ("is empty", Box::new(|| std::fs::write(&entry, "").unwrap())),
        (
            "4194305 bytes",
            Box::new(|| std::fs::write(&entry, vec![b' '; 4_194_305]).unwrap()),
        ),
        (
            "UTF-8",
            Box::new(|| std::fs::write(&entry, b"let a = 1;\n// \xff\n").unwrap()),
        ),
        (
            "nexpected token",
            Box::new(|| std::fs::write(&entry, "let a = ;").unwrap()),
        ),
        (
            "FIFO",
            Box::new(|| {
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &entry,
                    rustix::fs::FileType::Fifo,
                    0o600.into(),
                    0,
                )
                .unwrap();
            }),
        ),
        (
            "directory",
            Box::new(|| std::fs::create_dir(&entry).unwrap()),
        ),
        (
            "leads out of its root",
            Box::new(|| std::os::unix::fs::symlink(&secret, &entry).unwrap()),
        ),
        ("does not exist", Box::new(|| {})),
    ];
    for (words, spoil) in spoils {
        let _ = std::fs::remove_file(&entry);
        let _ = std::fs::remove_dir(&entry);
        spoil();
        let ended = refused_push(&bed).await;
        assert_eq!(ended.code, Some(65), "{words}: {}", ended.stdout);
        let problem = &ended.of("error")[0]["problem"];
        assert_eq!(problem["class"], "source");
        let what = problem["what"].as_str().unwrap();
        assert!(what.contains(words), "{what}");
        assert!(!problem["help"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_refused() {
    if rustix::process::geteuid().is_root() {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED: root may read every file");
        return;
    }
    let bed = Bed::new(&["hello"]).await;
    std::fs::set_permissions(bed.entry("hello"), std::fs::Permissions::from_mode(0o0)).unwrap();
    let ended = refused_push(&bed).await;
    assert_eq!(ended.code, Some(65), "{}", ended.stdout);
}

#[tokio::test]
async fn the_daemon_goes_on_after_a_broken_file() {
    let bed = Bed::new(&["hello", "other"]).await;
    let mut watch = bed.watch(&[]).await;
    bed.write("hello", "let a = ;\n");
    let error = watch.until("error").await;
    assert_eq!(error["problem"]["file"], "src/hello.js");
    assert_eq!(
        (&error["problem"]["line"], &error["problem"]["column"]),
        (&1.into(), &9.into())
    );
    std::fs::remove_file(bed.entry("hello")).unwrap();
    assert!(
        watch.until("error").await["problem"]["what"]
            .as_str()
            .unwrap()
            .contains("does not exist")
    );
    bed.write("other", &code("other", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
    assert!(
        bed.history()
            .iter()
            .all(|record| record.op != "DeleteRoutineCodeRevision")
    );
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_69_after_tries_that_are_told_once() {
    let bed = Bed::new(&["hello"]).await;
    // A port that was free a moment ago refuses connections.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    bed.configure(&format!("http://127.0.0.1:{port}"), "");
    let ended = bed.run(&["push", "--timeout", "3s"]).await;
    assert_eq!(ended.code, Some(69), "{}", ended.stdout);
    assert_eq!(ended.of("retrying").len(), 1);
    let calls = ended.of("done")[0]["calls"].as_u64().unwrap();
    assert!((2..=15).contains(&calls), "{calls} tries in three seconds");
    assert!(
        !ended.of("error")[0]["problem"]["help"]
            .as_str()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn an_edit_made_while_the_service_is_away_goes_up_when_it_is_back() {
    let bed = Bed::new(&["hello"]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    bed.configure(&format!("http://{address}"), "");
    let mut watch = bed.watch_from_start(&[]);
    let event = watch.until("offline").await;
    assert_eq!(event["problem"]["class"], "network");
    let options = er_dev::emulator::Options {
        listen: address,
        routines: bed.routines.clone(),
        ..er_dev::emulator::Options::default()
    };
    let emulator = er_dev::emulator::Emulator::start(options).await.unwrap();
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.stop().await;
    emulator.stop().await;
}

#[tokio::test]
async fn a_wrong_key_is_77_and_says_what_to_look_at() {
    let [secret, id] = [
        (
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
            "other",
            "secret does not belong to the key id",
        ),
        (
            "ALIBABA_CLOUD_ACCESS_KEY_ID",
            "nobody",
            "InvalidAccessKeyId",
        ),
    ];
    for signature in SIGNATURES {
        let bed = Bed::signing(&["hello"], Settings::default(), signature).await;
        for (variable, value, words) in [secret, id] {
            let mut push = bed.command(&["push"]);
            let ended = finish({
                push.env(variable, value);
                push
            })
            .await;
            assert_eq!(ended.code, Some(77), "{}", ended.stdout);
            assert!(ended.stdout.contains(words), "{}", ended.stdout);
            let mut watch = bed.command(&["watch"]);
            let ended = finish({
                watch.env(variable, value);
                watch
            })
            .await;
            assert_eq!(ended.code, Some(77), "{}", ended.stdout);
            assert!(
                ended.stderr.contains(words) && ended.stderr.contains("help"),
                "{}",
                ended.stderr
            );
        }
        bed.assert_signed(signature);
    }
}

#[tokio::test]
async fn no_key_is_77_and_says_where_it_may_be_put() {
    let bed = Bed::new(&["hello"]).await;
    let mut command = bed.command(&["push"]);
    command
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_ID")
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_SECRET");
    let ended = finish(command).await;
    assert_eq!(ended.code, Some(77));
    for place in [
        "ALIBABA_CLOUD_ACCESS_KEY_ID",
        "LoadCredential",
        "--emulator",
    ] {
        assert!(ended.stderr.contains(place), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_broken_configuration_is_78_with_the_place() {
    let bed = Bed::new(&["hello"]).await;
    std::fs::write(bed.path("er-dev.toml"), "[watch]\ndebouce = \"1s\"\n").unwrap();
    for command in [&["push"][..], &["watch"], &["config", "check"]] {
        let ended = bed.run(command).await;
        assert_eq!(ended.code, Some(78));
        assert!(ended.stderr.contains("er-dev.toml:2:1"), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("did you mean `debounce`"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn a_routine_that_is_not_there_is_a_wrong_use() {
    let bed = Bed::new(&["hello"]).await;
    let ended = bed.run(&["push", "helo"]).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("hello"), "{}", ended.stderr);
    assert_eq!(bed.run(&["push", "--no-such-flag"]).await.code, Some(2));
}

#[tokio::test]
async fn a_routine_that_is_missing_remotely_is_made_only_if_that_is_asked_for() {
    let mut bed = Bed::new(&["hello"]).await;
    bed.routines.push(crate::common::name("new"));
    bed.write("new", &code("new", 0));
    bed.configure(&bed.emulator.endpoint(), "");
    let ended = bed.run(&["push"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert_eq!(ended.of("error")[0]["problem"]["class"], "missing");
    let text = std::fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    std::fs::write(bed.path("er-dev.toml"), format!("{text}create = true\n")).unwrap();
    let ended = bed.run(&["push"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(
        (ended.of("created").len(), ended.of("uploaded").len()),
        (1, 1)
    );
}

#[tokio::test]
async fn d08_a_second_watch_of_a_routine_ends_with_75_and_names_the_first() {
    let bed = Bed::new(&["hello", "other"]).await;
    let mut watch = bed.watch_from_start(&["--routine", "hello"]);
    watch.end_of_edit().await;
    let ended = bed.run(&["watch", "--once"]).await;
    assert_eq!(ended.code, Some(75));
    assert!(
        ended.stderr.contains(&format!("process {}", watch.pid())),
        "{}",
        ended.stderr
    );
    // Another routine is free, and a push goes its way beside the watch.
    assert_eq!(
        bed.run(&["watch", "--once", "--routine", "other"])
            .await
            .code,
        Some(0)
    );
    let ended = bed.run(&["push", "hello", "--force"]).await;
    assert_eq!((ended.code, ended.of("uploaded").len()), (Some(0), 1));
    watch.stop().await;
}

#[tokio::test]
async fn forcing_makes_a_version_of_bytes_that_are_there() {
    let bed = Bed::new(&["hello"]).await;
    for (arguments, event) in [
        (&["push"][..], "uploaded"),
        (&["push"], "unchanged"),
        (&["push", "--force"], "uploaded"),
    ] {
        let ended = bed.run(arguments).await;
        assert_eq!(
            (ended.code, ended.of(event).len()),
            (Some(0), 1),
            "{}",
            ended.stdout
        );
    }
    assert_eq!(bed.versions("hello").len(), 2);
}

#[tokio::test]
async fn a_signal_ends_a_start_that_gets_no_answer() {
    let bed = Bed::new(&["hello"]).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    bed.configure(&format!("http://{}", silent.local_addr().unwrap()), "");
    // Longer than this test waits for anything.
    let mut watch = bed.watch_from_start(&["--api-timeout", "1h"]);
    watch.until("watching").await;
    let begun = std::time::Instant::now();
    watch.signal(Signal::INT);
    assert_eq!(watch.exit().await, Some(75));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it waited for the listing"
    );
}

#[tokio::test]
async fn a_second_signal_ends_at_once_with_130() {
    let bed = Bed::new(&["hello"]).await;
    // Accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    bed.configure(&format!("http://{}", silent.local_addr().unwrap()), "");
    let mut watch = bed.watch_from_start(&["--api-timeout", "2s", "--settle-margin", "0s"]);
    watch.until("ready").await;
    watch.signal(Signal::INT);
    watch.until("stopping").await;
    watch.signal(Signal::TERM);
    let done = watch.until("done").await;
    crate::common::assert_adds_up(&done);
    assert_eq!(watch.exit().await, Some(130));
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_the_drain_and_says_what_is_left() {
    let bed = Bed::new(&["hello"]).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    bed.configure(
        &format!("http://{}", silent.local_addr().unwrap()),
        "[daemon]\ndrain = \"100ms\"\n",
    );
    let mut watch = bed.watch_from_start(&["--api-timeout", "2s"]);
    watch.until("ready").await;
    let (exit, done) = watch.stop().await;
    assert_eq!(exit, Some(75));
    assert_eq!(done["abandoned"], 1);
}

#[tokio::test]
async fn output_into_a_closed_pipe_stops_nothing() {
    let bed = Bed::new(&["hello"]).await;
    let mut command = bed.command(&["watch"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    bed.until_newest_is("hello", &code("hello", 0)).await;
    bed.write("hello", &code("hello", 1));
    bed.until_newest_is("hello", &code("hello", 1)).await;
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("panic"));
}

#[tokio::test]
async fn revisions_show_what_is_live_and_what_goes_next() {
    let bed = Bed::new(&["hello"]).await;
    let foreign = bed.seed("hello", 5);
    bed.publish("hello", &foreign[0], "production");
    bed.run(&["push"]).await;
    let ended = bed.run(&["revisions", "hello", "--json"]).await;
    assert_eq!(ended.code, Some(0));
    let object = &ended.events()[0];
    assert_eq!((&object["used"], &object["cap"]), (&6.into(), &10.into()));
    let of = |revision: &er_dev::routine::Revision| {
        let list = object["revisions"].as_array().unwrap();
        list.iter()
            .find(|entry| entry["revision"] == revision.as_str())
            .unwrap()
            .clone()
    };
    assert_eq!(of(&foreign[0])["live"][0], "production");
    assert_eq!(of(&foreign[0])["stays"], "live in production");
    assert_eq!(of(&foreign[1])["goes"], 0);
    assert_eq!(object["revisions"][0]["stays"], "newest");
    let mut text = bed.command(&["revisions"]);
    text.env("ER_DEV_FORMAT", "text");
    let text = finish(text).await.stdout;
    assert!(text.starts_with("hello  6 of 10 slots taken\n"), "{text}");
    assert!(
        text.contains("goes next") && text.contains("this er-dev"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'));
}

#[tokio::test]
async fn the_emulator_refuses_an_address_that_others_can_reach() {
    let bed = Bed::new(&["hello"]).await;
    let ended = bed.run(&["emulator", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("loopback"), "{}", ended.stderr);
}
