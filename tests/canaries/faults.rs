//! Everything that can go wrong with a request, each with a key of its own.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::process::Command;

use super::needles::Canary;
use crate::common::{Bed, QUICK, SIGNATURES, code, finish, long, say};

/// What can go wrong with a request of any kind.
const ACTIONS: [&str; 18] = [
    "drop_before",
    "drop_after",
    "delay(1500)",
    "process_late(1500)",
    "rst_mid_body(100)",
    "status(502)",
    "status(203)",
    "code(InternalError,no luck,500)",
    "code(Throttling.User,slow down,400)",
    "portal",
    "truncate",
    "drip",
    "garbage",
    "deep_json",
    "gzip_bomb",
    "xml_for_json",
    "wrong_content_type",
    "date_skew(1200)",
];

const OPERATIONS: [&str; 4] = [
    "DescribeRoutine",
    "UploadRoutineCode",
    "oss",
    "DescribeRoutineCodeRevision",
];

/// The faults of a run, where `{token}` and the like stand for what a server repeats of what it was sent.
fn faults() -> Vec<String> {
    let all = ACTIONS.iter().enumerate().flat_map(|(at, action)| {
        let operations = OPERATIONS.iter().enumerate();
        operations
            .filter(move |(other, _)| long() || at % OPERATIONS.len() == *other)
            .map(move |(_, operation)| format!("{operation}:1-2:{action}"))
    });
    let echoes = [
        "api:*:code(SignatureDoesNotMatch,server string to sign is: POST&%2F&{id2}%26{token2},400)",
        "api:1:code(InvalidSecurityToken.Expired,{token} has ended,403)",
        "api:1:code(InvalidAccessKeyId.NotFound,{id} {id1} is unknown,404)",
        "api:*:code(InvalidParameter,{token} {token1} {token2} {secret},400)",
        "api:*:code(EdgeRoutine.GeneralError,you are {id} with {token2},400)",
        "UploadRoutineCode:*:code(Forbidden.RAM,{id} may not,403)",
        "oss:*:code(AccessDenied,{token} {id1},403)",
        "oss:*:answer({token})",
        "api:*:answer({token})",
        "api:*:redirect(302,http://127.0.0.1:1/?x={token1}&y={id})",
        "oss:*:redirect(307,http://127.0.0.1:1/?x={token1}&y={id})",
        "*:1:huge",
    ];
    all.chain(echoes.map(str::to_owned)).collect()
}

fn filled(fault: &str, canary: &Canary) -> String {
    let once = |text: &str| er_dev::cloud::sign::encode(text);
    let mut text = fault.to_owned();
    for (name, part) in [
        ("id", &canary.id),
        ("secret", &canary.secret),
        ("token", &canary.token),
    ] {
        text = text.replace(&format!("{{{name}}}"), part);
        text = text.replace(&format!("{{{name}1}}"), &once(part));
        text = text.replace(&format!("{{{name}2}}"), &once(&once(part)));
    }
    text
}

/// The binary in the bed with the canary in files, and everything logged.
fn command(bed: &Bed, keys: &str, arguments: &[&str]) -> Command {
    let mut command = bed.command(&[arguments, QUICK, &["--log", "trace"]].concat());
    command
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_ID")
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
        .env("CREDENTIALS_DIRECTORY", keys);
    command
}

#[tokio::test]
async fn f01_no_part_of_a_key_leaves_a_signed_request_whatever_goes_wrong() {
    let looked_at = std::sync::Arc::new(AtomicUsize::new(0));
    let cases = faults().into_iter().enumerate();
    crate::common::each(cases, |(at, fault)| {
        let looked_at = looked_at.clone();
        async move {
            let bed = Bed::signing(&["hello"], Default::default(), SIGNATURES[at % 2]).await;
            let canary = Canary::let_into(&bed);
            let keys = canary.put(&bed);
            bed.seed("hello", 9);
            bed.fault(&filled(&fault, &canary));
            let format = ["json", "text"][at / 2 % 2];
            let arguments = ["push", "--timeout", "3s", "--format", format];
            let mut command = command(&bed, &keys, &arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            let process = format!("/proc/{}", child.id().unwrap());
            for name in ["cmdline", "environ", "comm"] {
                let content = std::fs::read(format!("{process}/{name}")).unwrap_or_default();
                canary.assert_not_in(name, &content);
            }
            let output = tokio::time::timeout(crate::common::LIMIT, child.wait_with_output());
            let output = output.await.expect("it hangs").unwrap();
            assert!(output.status.code().is_some(), "{fault}: {output:?}");
            let logged = String::from_utf8_lossy(&output.stderr);
            assert!(logged.contains("TRACE"), "{fault}: nothing was logged");
            canary.assert_not_in(&format!("{fault}: standard output"), &output.stdout);
            canary.assert_not_in(&format!("{fault}: standard error"), &output.stderr);
            let kept = canary.assert_not_below(&bed.path("state"));
            assert!(kept > 0, "{fault}: nothing is kept");
            let read = kept + output.stdout.len() + output.stderr.len();
            looked_at.fetch_add(read, Ordering::Relaxed);
            // What was asked of the emulator is none of this test's business.
            bed.emulator.clear_faults();
        }
    })
    .await;
    say(&format!(
        "looked at {} bytes",
        looked_at.load(Ordering::Relaxed)
    ));
}

#[tokio::test]
async fn f01_a_watch_that_is_asked_and_told_tells_no_part_of_its_key() {
    let bed = Bed::new(&["hello"]).await;
    let canary = Canary::let_into(&bed);
    let keys = canary.put(&bed);
    let log = std::fs::File::create(bed.path("log")).unwrap();
    let mut watch = Bed::follow_logging_to(command(&bed, &keys, &["watch"]), log);
    watch.until("ready").await;
    watch.end_of_edit().await;
    for (save, fault) in [
        "oss:1:callback_lost".to_owned(),
        "UploadRoutineCode:1:drop_after".to_owned(),
        filled(
            "api:1-2:code(InvalidParameter,{token2} {token} {id1},400)",
            &canary,
        ),
        filled(
            "api:*:code(SignatureDoesNotMatch,{token2} {token},400)",
            &canary,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        bed.fault(&fault);
        bed.write("hello", &code("hello", save + 1));
        let ends = ["uploaded", "error", "offline", "retrying"];
        while !ends.contains(&watch.next().await["event"].as_str().unwrap()) {}
        let (_, status) = bed.status().await;
        canary.assert_not_in("a status", status.to_string().as_bytes());
        let doctor = finish(command(&bed, &keys, &["doctor"])).await;
        let shown = finish(command(&bed, &keys, &["config", "show"])).await;
        for ended in [doctor, shown] {
            canary.assert_not_in("standard output", ended.stdout.as_bytes());
            canary.assert_not_in("standard error", ended.stderr.as_bytes());
        }
    }
    let process = format!("/proc/{}", watch.pid());
    for name in ["cmdline", "environ"] {
        let content = std::fs::read(format!("{process}/{name}")).unwrap();
        assert!(!content.is_empty());
        canary.assert_not_in(name, &content);
    }
    canary.assert_not_below(&bed.path("state"));
    for event in watch.seen() {
        canary.assert_not_in("an event", event.to_string().as_bytes());
    }
    bed.emulator.clear_faults();
    watch.kill().await;
    let log = std::fs::read(bed.path("log")).unwrap();
    assert!(log.len() > 1_000);
    canary.assert_not_in("the log", &log);
}
