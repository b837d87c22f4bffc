//! Keys that end, are refused, or are replaced while er-dev runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use er_dev::cloud::credentials::keys::Keys;
use er_dev::cloud::error::{Class, KEY_CHANGED};
use er_dev::cloud::{Authorities, Cloud, Timeouts};
use er_dev::config::{Endpoint, Kind, Limits, Service, Signature};
use er_dev::emulator::history::POST_OBJECT;
use serde_json::Value;

use super::handed::{Given, Server, command, write};
use crate::common::{Bed, QUICK, Watch, code, finish, name};

const HOUR: Duration = Duration::from_secs(3_600);

/// A watch with the key in files, ready and at rest.
async fn watch_files(bed: &Bed) -> Watch {
    let keys = bed.path("keys").display().to_string();
    watch_with(bed, ("CREDENTIALS_DIRECTORY", &keys)).await
}

/// A watch with a key by this variable, ready and at rest.
async fn watch_with(bed: &Bed, (variable, value): (&str, &str)) -> Watch {
    let mut command = command(bed, &[&["watch"], QUICK].concat());
    command.env(variable, value);
    let mut watch = Bed::follow(command);
    watch.until("ready").await;
    for _ in 0..bed.routines.len() {
        watch.end_of_edit().await;
    }
    watch
}

/// The operations that were asked for since there were so many requests, form posts apart.
fn since(bed: &Bed, before: usize) -> Vec<&'static str> {
    let history = bed.history();
    let calls = history[before..].iter().filter(|it| it.op != POST_OBJECT);
    calls.map(|it| it.op).collect()
}

fn codes(bed: &Bed) -> Vec<String> {
    let history = bed.history();
    history.into_iter().filter_map(|it| it.code).collect()
}

fn is_of_key(event: &Value) -> bool {
    event["problem"]["class"] == "credentials"
}

#[tokio::test]
async fn c09_a_key_that_is_refused_costs_three_requests_at_most_whatever_its_source_gives() {
    let bed = Bed::new(&["hello", "other"]).await;
    let key = Given::ending(HOUR).let_into(&bed);
    let server = Server::start(&key).await;
    let uri = server.uri();
    let mut watch = watch_with(&bed, ("ALIBABA_CLOUD_CREDENTIALS_URI", &uri)).await;
    key.revoke_in(&bed);
    // The next ones are no better.
    server.hand_out_nonsense();
    let before = bed.history().len();
    bed.write("hello", &code("hello", 1));
    let told = watch.until("offline").await;
    assert!(is_of_key(&told), "{told}");
    for save in 2..=5 {
        bed.write("hello", &code("hello", save));
        bed.write("other", &code("other", save));
        watch.until("superseded").await;
    }
    assert!(bed.history().len() - before <= 3, "{:#?}", bed.history());
    for event in watch.seen() {
        key.assert_not_in(&event.to_string());
    }
    watch.kill().await;
}

#[tokio::test]
async fn c09_a_wrong_secret_in_a_file_is_one_request_and_says_no_part_of_it() {
    let bed = Bed::new(&["hello"]).await;
    let key = Given::lasting().let_into(&bed);
    key.put(&bed);
    let mut watch = watch_files(&bed).await;
    let other = Given {
        secret: "another".into(),
        ..key.clone()
    };
    let _ = other.let_into(&bed);
    let before = bed.history().len();
    bed.write("hello", &code("hello", 1));
    let told = watch.until("offline").await;
    assert!(is_of_key(&told), "{told}");
    assert_eq!(bed.history().len() - before, 1);
    assert_eq!(codes(&bed), ["SignatureDoesNotMatch"]);
    key.assert_not_in(&told.to_string());
    watch.kill().await;
}

#[tokio::test]
async fn c10_a_key_that_was_revoked_and_replaced_in_its_files_is_used_within_five_seconds() {
    let bed = Bed::new(&["hello"]).await;
    let first = Given::lasting().let_into(&bed);
    first.put(&bed);
    let mut watch = watch_files(&bed).await;
    first.revoke_in(&bed);
    bed.write("hello", &code("hello", 1));
    assert!(is_of_key(&watch.until("offline").await));
    let (_, status) = bed.status().await;
    assert_eq!(status["routines"][0]["state"], "auth", "{status}");
    bed.write("hello", &code("hello", 2));
    watch.until("superseded").await;
    let refused = bed.history().len();
    let second = Given::lasting().let_into(&bed);
    let begun = Instant::now();
    second.put(&bed);
    bed.until_newest_is("hello", &code("hello", 2)).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    watch.until("online").await;
    assert_eq!(since(&bed, refused)[0], "DescribeRoutine");
    assert_eq!(codes(&bed), ["InvalidAccessKeyId.Inactive"]);
    watch.stop().await;
}

#[tokio::test]
async fn c10_a_revoked_key_that_was_replaced_before_anybody_noticed_halts_nobody() {
    let bed = Bed::new(&["hello"]).await;
    let first = Given::lasting().let_into(&bed);
    let file = bed.path("config.json");
    write(&file, &first.cli("AK", &[]), 0o600);
    let path = file.display().to_string();
    let mut watch = watch_with(&bed, ("ALIBABA_CLOUD_CONFIG_FILE", &path)).await;
    let second = Given::lasting().let_into(&bed);
    write(&file, &second.cli("AK", &[]), 0o600);
    first.revoke_in(&bed);
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    assert_eq!(codes(&bed), [""; 0]);
    watch.stop().await;
    bed.assert_at_rest();
}

#[tokio::test]
async fn c10_a_file_that_is_half_written_leaves_the_old_key_in_use() {
    let bed = Bed::new(&["hello"]).await;
    let key = Given::lasting().let_into(&bed);
    let file = bed.path("config.json");
    let text = key.cli("AK", &[]);
    write(&file, &text, 0o600);
    let path = file.display().to_string();
    let mut watch = watch_with(&bed, ("ALIBABA_CLOUD_CONFIG_FILE", &path)).await;
    for (save, broken) in [&text[..text.len() / 2], "", "{}"].into_iter().enumerate() {
        write(&file, broken, 0o600);
        bed.write("hello", &code("hello", save + 1));
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    }
    watch.stop().await;
}

#[tokio::test]
async fn c11_a_key_that_ends_between_upload_and_reading_back_makes_no_second_version() {
    let bed = Bed::new(&["hello"]).await;
    let first = Given::ending(HOUR).let_into(&bed);
    let second = Given::ending(HOUR).let_into(&bed);
    let server = Server::start(&first).await;
    let uri = server.uri();
    let mut watch = watch_with(&bed, ("ALIBABA_CLOUD_CREDENTIALS_URI", &uri)).await;
    server.hand_out(&second);
    bed.fault("oss:1:callback_lost");
    bed.fault(
        "DescribeRoutineCodeRevision:1:code(InvalidSecurityToken.Expired,the token has ended,403)",
    );
    let before = bed.asked("UploadRoutineCode");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    assert_eq!(bed.asked("UploadRoutineCode") - before, 1);
    assert_eq!(bed.codes("hello").len(), 2);
    assert_eq!(server.asked(), 2);
    watch.stop().await;
    bed.assert_at_rest();
}

#[tokio::test]
async fn c11_a_key_that_ends_during_a_post_makes_no_second_version() {
    let bed = Bed::with(
        &["hello"],
        Default::default(),
        "[revisions]\nverify = \"always\"",
    )
    .await;
    let first = Given::ending(HOUR).let_into(&bed);
    let second = Given::ending(HOUR).let_into(&bed);
    let server = Server::start(&first).await;
    let uri = server.uri();
    let mut watch = watch_with(&bed, ("ALIBABA_CLOUD_CREDENTIALS_URI", &uri)).await;
    server.hand_out(&second);
    // Whoever reads back after the post finds the first key revoked.
    bed.fault("oss:1:delay(500)");
    let before = bed.asked("UploadRoutineCode");
    let posts = bed.asked(POST_OBJECT);
    bed.write("hello", &code("hello", 1));
    bed.until_asked(POST_OBJECT, posts + 1).await;
    first.revoke_in(&bed);
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    assert_eq!(bed.asked("UploadRoutineCode") - before, 1);
    assert_eq!(bed.codes("hello").len(), 2);
    assert_eq!(codes(&bed), ["InvalidAccessKeyId.Inactive"]);
    watch.stop().await;
    bed.assert_at_rest();
}

#[tokio::test]
async fn c12_a_key_is_used_until_its_end_while_its_source_is_down_and_never_after() {
    let bed = Bed::new(&["hello"]).await;
    let first = Given::ending(Duration::from_secs(9)).let_into(&bed);
    let server = Server::start(&first).await;
    let uri = server.uri();
    let mut watch = watch_with(&bed, ("ALIBABA_CLOUD_CREDENTIALS_URI", &uri)).await;
    server.fail();
    let before = bed.versions("hello").len();
    let mut save = 0;
    let told = loop {
        save += 1;
        bed.write("hello", &code("hello", save));
        let event = loop {
            let event = watch.next().await;
            if event["event"] == "uploaded" || event["event"] == "offline" {
                break event;
            }
        };
        if event["event"] == "offline" {
            break event;
        }
    };
    assert!(is_of_key(&told), "{told}");
    let what = told["problem"]["what"].as_str().unwrap();
    assert!(
        what.contains("the key has ended") && what.contains("HTTP 503"),
        "{told}"
    );
    assert!(save > 3 && bed.versions("hello").len() > before);
    assert!(jiff::Timestamp::now() + Duration::from_secs(3) >= first.ends);
    // Once at the start, and then after pauses that grow.
    assert!((2..=7).contains(&server.asked()), "{}", server.asked());
    let second = Given::ending(HOUR).let_into(&bed);
    server.hand_out(&second);
    bed.until_newest_is("hello", &code("hello", save)).await;
    assert_eq!(codes(&bed), [""; 0], "no key was sent that had ended");
    first.assert_not_in(&told.to_string());
    watch.stop().await;
}

/// The keys by one variable, as the program finds them.
async fn keys_of(variable: &str, value: &str) -> Arc<Keys> {
    let (variable, value) = (variable.to_owned(), value.to_owned());
    let env = move |name: &str| (name == variable).then(|| value.clone());
    Arc::new(
        Keys::find(Arc::new(env), None, true, Authorities::default())
            .await
            .unwrap(),
    )
}

fn cloud(bed: &Bed, keys: &Arc<Keys>) -> Cloud {
    let service = Service {
        kind: Kind::Dcdn,
        endpoint: Endpoint {
            url: bed.emulator.endpoint(),
            host: bed.emulator.address().to_string(),
            loopback: true,
        },
        signature: Signature::default(),
        profile: None,
    };
    let limits = Limits {
        requests_per_second: 80,
        burst: 10,
        max_in_flight: 8,
    };
    let budget = bed.path("budget");
    std::fs::create_dir_all(&budget).unwrap();
    let (timeouts, authorities) = (Timeouts::default(), Authorities::default());
    Cloud::new(
        &service,
        Arc::clone(keys),
        limits,
        &budget,
        timeouts,
        authorities,
    )
    .unwrap()
}

#[tokio::test]
async fn t18_nothing_is_deleted_with_another_key_than_the_one_that_listed_it() {
    let bed = Bed::new(&["hello"]).await;
    let seeded = bed.seed("hello", 9);
    let first = Given::lasting().let_into(&bed);
    first.put(&bed);
    let dir = bed.path("keys").display().to_string();
    let keys = keys_of("CREDENTIALS_DIRECTORY", &dir).await;
    let cloud = cloud(&bed, &keys);
    let hello = name("hello");
    cloud.list(cloud.permit().await, &hello).await.unwrap();
    let second = Given::lasting().let_into(&bed);
    second.put(&bed);
    let permit = cloud.urgent_permit().await;
    assert_eq!(keys.present().credentials.id, second.id);
    assert!(cloud.is_of_another_key(&hello).await);
    let error = cloud.delete(permit, &hello, &seeded[0]).await.unwrap_err();
    assert_eq!(
        (error.class, error.what.as_str()),
        (Class::NotSent, KEY_CHANGED)
    );
    assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 0);
    cloud.list(cloud.permit().await, &hello).await.unwrap();
    assert!(!cloud.is_of_another_key(&hello).await);
    let permit = cloud.urgent_permit().await;
    cloud.delete(permit, &hello, &seeded[0]).await.unwrap();
    assert_eq!(bed.versions("hello").len(), 8);
}

#[tokio::test]
async fn t18_after_a_change_of_key_the_versions_are_listed_before_anything_else_is_done() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 9);
    let first = Given::lasting().let_into(&bed);
    first.put(&bed);
    let mut watch = watch_files(&bed).await;
    for save in 1..=3 {
        // An edit is done before a slot is freed.
        bed.sync().await;
        let second = Given::lasting().let_into(&bed);
        second.put(&bed);
        let before = bed.history().len();
        bed.write("hello", &code("hello", save));
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
        bed.until("a slot is freed", |world| {
            world.routine(&name("hello")).unwrap().versions().len() <= 9
        })
        .await;
        let asked = since(&bed, before);
        let place = |op: &str| asked.iter().position(|it| *it == op).unwrap();
        assert!(
            place("DescribeRoutine") < place("UploadRoutineCode"),
            "{asked:?}"
        );
        assert!(
            place("DescribeRoutine") < place("DeleteRoutineCodeRevision"),
            "{asked:?}"
        );
    }
    watch.stop().await;
    bed.assert_at_rest();
}

#[tokio::test]
async fn f10_a_key_of_the_cloud_that_comes_later_is_not_sent_to_this_machine_either() {
    let bed = Bed::new(&["hello"]).await;
    let first = Given::lasting().let_into(&bed);
    first.put(&bed);
    let mut watch = watch_files(&bed).await;
    let real = Given {
        id: format!("{}{}", "LTAI", "5tAbCdEfGh1234567Qx2"),
        ..Given::lasting()
    };
    real.put(&bed);
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    first.revoke_in(&bed);
    bed.write("hello", &code("hello", 2));
    assert!(is_of_key(&watch.until("offline").await));
    assert_eq!(codes(&bed), ["InvalidAccessKeyId.Inactive"]);
    watch.kill().await;
}

#[tokio::test]
async fn a_key_that_was_replaced_between_two_runs_is_no_matter() {
    let bed = Bed::new(&["hello"]).await;
    let keys = bed.path("keys").display().to_string();
    for save in 0..2 {
        Given::lasting().let_into(&bed).put(&bed);
        bed.write("hello", &code("hello", save));
        let mut command = command(&bed, &[&["push"], QUICK].concat());
        command.env("CREDENTIALS_DIRECTORY", &keys);
        assert_eq!(finish(command).await.code, Some(0));
    }
}
