//! What the service answers, rightly or oddly: the right version comes of it, or a state that says what is missing.

use std::collections::BTreeSet;

use crate::common::{Bed, Ended, QUICK, SIGNATURES, code, name};
use er_dev::emulator::history::busiest_second;
use er_dev::emulator::world::{Settings, World};

async fn push(bed: &Bed) -> Ended {
    push_for(bed, "20s").await
}

async fn push_for(bed: &Bed, time: &str) -> Ended {
    bed.run(&[&["push", "--timeout", time], QUICK].concat())
        .await
}

fn holds(world: &World, text: &str) -> usize {
    let versions = world.routine(&name("hello")).unwrap().versions();
    versions
        .iter()
        .filter(|version| version.bytes() == Some(text.as_bytes()))
        .count()
}

/// The file's bytes are there once, whatever happened on the way, and nothing else of er-dev's is.
#[track_caller]
fn assert_there_once(bed: &Bed, what: &str, ended: &Ended) {
    assert_eq!(
        ended.code,
        Some(0),
        "{what}: {}{}",
        ended.stdout,
        ended.stderr
    );
    assert_eq!(
        bed.codes("hello"),
        [code("hello", 0).into_bytes()],
        "{what}"
    );
}

#[tokio::test]
async fn c01_a_throttled_call_is_repeated_after_the_pause_that_was_asked_for() {
    crate::common::each(
        [
            "code(Throttling,slow down)",
            "code(Throttling.User,slow down,429)",
            "code(Dcdn.Throttling,slow down)",
            "code(UserFlowControl,slow down,503)",
            "code(ServiceUnavailable,busy,503)",
            "status(429)",
        ],
        async |refusal| {
            for (operation, signature) in [
                ("DescribeRoutine", SIGNATURES[0]),
                ("DescribeRoutine", SIGNATURES[1]),
                ("UploadRoutineCode", SIGNATURES[0]),
                ("UploadRoutineCode", SIGNATURES[1]),
            ] {
                let bed = Bed::signing(&["hello"], Settings::default(), signature).await;
                bed.fault(&format!("{operation}:1:{refusal}"));
                let ended = push(&bed).await;
                assert_there_once(&bed, refusal, &ended);
                assert_eq!(ended.of("throttled").len(), 1, "{}", ended.stdout);
                let budget = ended.of("budget");
                assert_eq!(budget[0]["requests_per_second"], 40, "{}", ended.stdout);
            }
        },
    )
    .await;
}

#[tokio::test]
async fn c02_a_thousand_saves_in_twenty_routines_are_few_requests_within_the_limit() {
    let names: Vec<String> = (0..20).map(|n| format!("r{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::new(&names).await;
    let watch = bed.watch(&[]).await;
    let before = bed.history().len();
    for save in 1..=50 {
        for routine in &names {
            bed.write(routine, &code(routine, save));
        }
    }
    for routine in &names {
        bed.until_newest_is(routine, &code(routine, 50)).await;
    }
    watch.stop().await;
    let history = bed.history();
    assert!(busiest_second(&history) <= 98);
    let requests = history.len() - before;
    assert!(
        requests <= 200,
        "{requests} for some two edits of each routine"
    );
}

#[tokio::test]
async fn c05_a_clock_that_is_twenty_minutes_off_costs_one_refused_request() {
    crate::common::each(SIGNATURES, async |signature| {
        for clock in ["clock=1200", "clock=-1200"] {
            let bed = Bed::signing(&["hello"], Settings::default(), signature).await;
            bed.world(clock);
            let ended = push(&bed).await;
            assert_there_once(&bed, clock, &ended);
            let refused = bed
                .history()
                .into_iter()
                .filter(|r| r.status == 400)
                .count();
            assert_eq!(refused, 1);
            let told = &ended.of("degraded")[0];
            assert_eq!(told["problem"]["class"], "clock", "{told}");
            bed.assert_signed(signature);
        }
    })
    .await;
}

#[tokio::test]
async fn c05_a_clock_that_is_off_is_set_for_all_routines_at_once() {
    let mut bed = Bed::new(&["a", "b", "c", "d"]).await;
    // Those that were on their way when the first was refused.
    bed.rules.stale = 3;
    bed.world("clock=1200");
    let ended = push(&bed).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(ended.of("uploaded").len(), 4, "{}", ended.stdout);
}

#[tokio::test]
async fn c05_a_clock_that_goes_wrong_while_it_runs_makes_no_second_version() {
    let mut bed = Bed::new(&["hello"]).await;
    // Nobody can know that it will.
    bed.rules.stale = 1;
    let mut watch = bed.watch(QUICK).await;
    let before = bed.history().len();
    bed.world("clock=1200");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    let asked: Vec<_> = bed.history()[before..].iter().map(|r| r.op).collect();
    // The first one was refused, and nothing had to be looked up for the second.
    assert_eq!(
        asked[..3],
        ["UploadRoutineCode", "UploadRoutineCode", "PostObject"]
    );
    watch.stop().await;
    bed.assert_at_rest();
}

#[tokio::test]
async fn c07_a_date_that_is_years_off_is_not_believed() {
    let mut bed = Bed::new(&["hello"]).await;
    bed.fault("DescribeRoutine:1:date_skew(315360000)");
    let ended = push(&bed).await;
    assert_there_once(&bed, "date", &ended);
    // The service's own clock goes wrong, which er-dev cannot know.
    bed.rules.stale = 10;
    bed.world("clock=315360000");
    bed.write("hello", &code("hello", 1));
    let ended = push(&bed).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert_eq!(ended.of("error")[0]["problem"]["class"], "clock");
}

#[tokio::test]
async fn c08_a_nonce_that_was_seen_before_means_an_earlier_copy_and_no_second_version() {
    crate::common::each(SIGNATURES, async |signature| {
        let bed = Bed::signing(&["hello"], Settings::default(), signature).await;
        bed.fault("UploadRoutineCode:1:code(SignatureNonceUsed)");
        let ended = push(&bed).await;
        assert_there_once(&bed, "nonce", &ended);
        bed.assert_signed(signature);
        // Whatever was asked again was asked with another nonce.
        let nonces: Vec<_> = bed.history().into_iter().filter_map(|r| r.nonce).collect();
        let different: BTreeSet<_> = nonces.iter().collect();
        assert_eq!(different.len(), nonces.len());
    })
    .await;
}

#[tokio::test]
async fn c09_a_refused_signature_is_not_tried_again_and_again_whatever_is_saved() {
    let bed = Bed::new(&["hello", "other"]).await;
    let mut watch = bed.watch(&[]).await;
    bed.fault(
        "api:*:code(SignatureDoesNotMatch,string to sign is POST&AccessKeyId%3Demulator-key-id)",
    );
    let before = bed.history().len();
    bed.write("hello", &code("hello", 1));
    let told = watch.until("offline").await;
    assert_eq!(told["problem"]["class"], "credentials", "{told}");
    assert!(!told.to_string().contains("emulator-key-id"), "{told}");
    for save in 2..=5 {
        bed.write("hello", &code("hello", save));
        bed.write("other", &code("other", save));
        // Each save is an edit of its own.
        watch.until("superseded").await;
    }
    assert!(bed.history().len() - before <= 3);
    bed.emulator.clear_faults();
    watch.kill().await;
    let ended = push(&bed).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
}

#[tokio::test]
async fn c13_a_key_that_may_not_delete_uploads_until_all_slots_are_taken_and_names_the_action() {
    let bed = Bed::new(&["hello"]).await;
    bed.fault("DeleteRoutineCodeRevision:*:code(Forbidden.RAM,not authorised,403)");
    bed.seed("hello", 8);
    let mut watch = bed.watch(QUICK).await;
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    let told = watch.until("degraded").await;
    let help = told["problem"]["help"].as_str().unwrap();
    assert!(help.contains("dcdn:DeleteRoutineCodeRevision"), "{told}");
    // What deletes nothing does not show that the key may.
    bed.write("hello", "let a = ;");
    assert_eq!(watch.end_of_edit().await["event"], "error");
    bed.write("hello", &code("hello", 2));
    let told = watch.until("retrying").await;
    assert_eq!(told["problem"]["class"], "slots", "{told}");
    assert!(watch.seen().all(|event| event["event"] != "restored"));
    assert_eq!(bed.versions("hello").len(), 10);
    bed.emulator.clear_faults();
    bed.write("hello", &code("hello", 3));
    assert_eq!(watch.end_of_edit().await["event"], "superseded");
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.until("restored").await;
    watch.stop().await;
}

#[tokio::test]
async fn c14_slots_that_somebody_else_filled_are_seen_at_the_refusal_and_one_is_freed() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(QUICK).await;
    bed.seed_now("hello");
    let before = bed.asked("UploadRoutineCode");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    assert_eq!(bed.asked("UploadRoutineCode") - before, 2);
    watch.stop().await;
    assert_eq!(bed.versions("hello").len(), 9);
}

#[tokio::test]
async fn c15_a_full_routine_is_known_in_whatever_words_it_is_told() {
    crate::common::each(
        [
            "you got upper limit of code revisions",
            "Upper limit of revisions reached",
            "the number of code versions exceeds the maximum",
            "code version number exceed quota limit",
            "too many revisions",
            "revision quota used up",
            "limit of 10 revisions",
            "over the limit",
            "maximum number of versions",
            "quota exceeded",
        ],
        async |words| {
            let bed = Bed::new(&["hello"]).await;
            let mut watch = bed.watch(QUICK).await;
            bed.seed_now("hello");
            // The daemon believes in free slots until it lists again.
            bed.fault(&format!(
                "UploadRoutineCode:1:code(EdgeRoutine.GeneralError,{words},400)"
            ));
            bed.write("hello", &code("hello", 1));
            let end = watch.end_of_edit().await;
            assert_eq!(end["event"], "uploaded", "{words}: {end}");
            watch.stop().await;
        },
    )
    .await;
}

#[tokio::test]
async fn c16_a_refusal_in_unknown_words_is_tried_four_times_and_told_as_it_is() {
    let bed = Bed::new(&["hello"]).await;
    bed.fault("DescribeRoutine:*:code(EdgeRoutine.GeneralError,the moon is full,400)");
    let ended = push(&bed).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let problem = &ended.of("error")[0]["problem"];
    assert_eq!(problem["class"], "service");
    assert!(
        problem["what"]
            .as_str()
            .unwrap()
            .contains("the moon is full")
    );
    assert!(bed.history().len() <= 5, "{}", bed.history().len());
}

#[tokio::test]
async fn c17_a_routine_that_is_missing_is_not_made_unless_that_is_asked_for() {
    for answer in ["content=missing", "content=normal"] {
        let bed = Bed::new(&["hello"]).await;
        bed.world(answer);
        let config = std::fs::read_to_string(bed.path("er-dev.toml")).unwrap();
        let config = config.replace("name = \"hello\"", "name = \"ghost\"");
        std::fs::write(bed.path("er-dev.toml"), config).unwrap();
        let ended = push(&bed).await;
        let problem = &ended.of("error")[0]["problem"];
        assert_eq!(problem["class"], "missing", "{answer}: {problem}");
        assert_eq!(bed.asked("CreateRoutine"), 0);
    }
}

#[tokio::test]
async fn c17_only_an_answer_without_content_says_that_the_routine_is_missing() {
    crate::common::each(["7", "[]", "\"\"", "true", "{}"], async |content| {
        let bed = Bed::new(&["hello"]).await;
        let config = std::fs::read_to_string(bed.path("er-dev.toml")).unwrap();
        std::fs::write(bed.path("er-dev.toml"), config + "create = true\n").unwrap();
        let answer = format!("{{\"RequestId\":\"R\",\"Content\":{content}}}");
        bed.fault(&format!("DescribeRoutine:1:answer({answer})"));
        let ended = push(&bed).await;
        assert_there_once(&bed, content, &ended);
        assert_eq!(bed.asked("CreateRoutine"), 0, "{content}");
    })
    .await;
}

#[tokio::test]
async fn c18_numbers_of_versions_in_any_form_never_lead_to_a_wrong_deletion() {
    crate::common::each(["text", "number", "rounded"], async |form| {
        let bed = Bed::new(&["hello"]).await;
        let mut seeded = bed.seed("hello", 9);
        let live = seeded.remove(0);
        bed.publish("hello", &live, "production");
        bed.world(&format!("revision_form={form}"));
        for save in 0..3 {
            bed.write("hello", &code("hello", save));
            let ended = push_for(&bed, "5s").await;
            assert_eq!(ended.code, Some(0), "{form}: {}", ended.stdout);
        }
        let versions = bed.versions("hello");
        assert!(versions.contains(&live), "{form}: the live version is gone");
        assert!(versions.len() >= 9, "{form}: more went than had to");
        assert_eq!(versions[1..6], seeded[3..], "{form}: not the oldest went");
    })
    .await;
}

#[tokio::test]
async fn c19_c21_an_answer_of_object_storage_that_proves_nothing_is_settled_by_reading_back() {
    crate::common::each(
        [
            "status(203)",
            "callback_lost",
            "status(204)",
            "status(201)",
            "status(206)",
            "status(302)",
            "status(307)",
            "status(500)",
            "status(502)",
            "status(503)",
            "answer()",
            "answer(ok)",
            "answer({\"code\":500})",
            "drop_before",
            "drop_after",
            "truncate",
            "garbage",
            "wrong_content_type",
        ],
        async |answer| {
            let bed = Bed::new(&["hello"]).await;
            bed.fault(&format!("oss:1:{answer}"));
            let ended = push(&bed).await;
            assert_there_once(&bed, answer, &ended);
            assert_eq!(ended.of("uploaded").len(), 1, "{answer}: {}", ended.stdout);
            let proven = bed.asked("DescribeRoutineCodeRevision") > 0;
            assert!(proven || answer == "wrong_content_type", "{answer}");
        },
    )
    .await;
}

#[tokio::test]
async fn c20_code_that_was_confirmed_and_never_registered_is_found_where_every_upload_is_verified()
{
    let bed = Bed::with(
        &["hello"],
        Settings::default(),
        "[revisions]\nverify = \"always\"",
    )
    .await;
    bed.fault("oss:1:unregistered");
    let ended = push(&bed).await;
    assert_there_once(&bed, "unregistered", &ended);
}

#[tokio::test]
async fn c22_a_form_that_object_storage_refuses_is_replaced_or_told() {
    let general = |code: &str| format!("oss:1:code({code},said object storage)");
    crate::common::each(
        [
            (
                "oss:1:code(AccessDenied,Invalid according to Policy: Policy expired.,403)"
                    .to_owned(),
                true,
            ),
            (general("SignatureDoesNotMatch"), true),
            (general("InvalidAccessKeyId"), true),
            (general("SecurityTokenExpired"), true),
            (general("RequestTimeout"), true),
            (general("IncompleteBody"), true),
            (general("InvalidSecurityToken"), true),
            (
                "oss:1:code(AccessDenied,Invalid according to Policy: Policy Condition failed,403)"
                    .to_owned(),
                false,
            ),
            (general("EntityTooLarge"), false),
            (general("MalformedPOSTRequest"), false),
            (general("InvalidPolicyDocument"), false),
            (general("InvalidDigest"), false),
            (general("InvalidArgument"), false),
            (general("EntityTooSmall"), false),
            (general("IncorrectNumberOfFilesInPOSTRequest"), false),
            (general("FieldItemTooLong"), false),
            (general("MaxPOSTPreDataLengthExceededError"), false),
            (general("RequestIsNotMultiPartContent"), false),
        ],
        async |(fault, ends_well)| {
            let bed = Bed::new(&["hello"]).await;
            bed.fault(&fault);
            let ended = push(&bed).await;
            if ends_well {
                assert_there_once(&bed, &fault, &ended);
            } else {
                assert_eq!(ended.code, Some(1), "{fault}: {}", ended.stdout);
                assert_eq!(
                    ended.of("error")[0]["problem"]["class"],
                    "refused",
                    "{fault}"
                );
            }
        },
    )
    .await;
}

#[tokio::test]
async fn c22_a_form_that_nobody_is_said_to_have_signed_is_replaced_once() {
    crate::common::each(
        ["SignatureDoesNotMatch", "InvalidAccessKeyId"],
        async |code| {
            let bed = Bed::new(&["hello"]).await;
            bed.fault(&format!("oss:*:code({code},said object storage)"));
            let ended = push(&bed).await;
            assert_eq!(ended.code, Some(1), "{code}: {}", ended.stdout);
            assert_eq!(ended.of("error")[0]["problem"]["class"], "refused");
            assert_eq!(bed.asked("UploadRoutineCode"), 2, "{code}");
        },
    )
    .await;
}

#[tokio::test]
async fn c22_the_clock_of_object_storage_is_told_and_halts_nobody_else() {
    let bed = Bed::new(&["hello", "other"]).await;
    bed.fault("oss:1:code(RequestTimeTooSkewed,said object storage)");
    let ended = push(&bed).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert_eq!(ended.of("error")[0]["problem"]["class"], "clock");
    assert_eq!(ended.of("uploaded").len(), 1, "{}", ended.stdout);
}

#[tokio::test]
async fn c22_a_version_whose_code_was_refused_is_cleared_away_without_an_edit() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(QUICK).await;
    bed.fault("oss:1:code(EntityTooLarge,said object storage)");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "error");
    assert_eq!(bed.versions("hello").len(), 2);
    bed.until("the version without code goes", |world| {
        world.routine(&name("hello")).unwrap().versions().len() == 1
    })
    .await;
    watch.stop().await;
}

#[tokio::test]
async fn c23_c24_every_byte_arrives_also_what_looks_like_the_end_of_a_form() {
    let bed = Bed::new(&["hello"]).await;
    let odd = "/*\r\n--boundary--\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n\u{feff}\u{2028}*/\n";
    std::fs::write(bed.entry("hello"), odd).unwrap();
    let ended = push(&bed).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(bed.codes("hello"), [odd.as_bytes().to_vec()]);
}

#[tokio::test]
async fn c25_a_listing_that_lags_makes_no_second_version() {
    crate::common::each(
        ["", "oss:1:callback_lost", "UploadRoutineCode:1:truncate"],
        async |fault| {
            let bed = Bed::new(&["hello"]).await;
            bed.world("lag=1s");
            if !fault.is_empty() {
                bed.fault(fault);
            }
            let more = ["--settle-margin", "3s"];
            let ended = bed
                .run(
                    &[
                        &["push", "--timeout", "30s", "--api-timeout", "1s"],
                        &more[..],
                    ]
                    .concat(),
                )
                .await;
            assert_eq!(ended.code, Some(0), "{fault}: {}", ended.stdout);
            let history = bed.history();
            let stored = bed
                .emulator
                .with_world(|world| holds(world, &code("hello", 0)));
            assert_eq!(stored, 1, "{fault}: {history:#?}");
        },
    )
    .await;
}

#[tokio::test]
async fn c26_where_it_is_not_told_what_is_live_nothing_is_deleted() {
    crate::common::each(
        ["envconf=partial", "envconf=missing", "envconf=null"],
        async |conf| {
            let bed = Bed::new(&["hello"]).await;
            bed.seed("hello", 10);
            bed.world(conf);
            let ended = push_for(&bed, "2s").await;
            assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 0, "{conf}");
            assert_eq!(ended.of("error")[0]["problem"]["class"], "slots", "{conf}");
        },
    )
    .await;
    // No numbered version is live anywhere, which is usual for a routine that was never published.
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 10);
    let ended = push(&bed).await;
    assert_eq!(ended.of("rotated").len(), 2, "{}", ended.stdout);
}

#[tokio::test]
async fn c27_a_version_whose_description_was_mangled_is_still_known_to_whoever_made_it() {
    let bed = Bed::new(&["hello"]).await;
    bed.world("desc_mangle=on");
    for save in [0, 1] {
        bed.write("hello", &code("hello", save));
        let ended = push(&bed).await;
        assert_eq!(ended.of("uploaded").len(), 1, "{}", ended.stdout);
    }
    bed.write("hello", &code("hello", 0));
    let ended = push(&bed).await;
    assert_eq!(ended.of("reused").len(), 1, "{}", ended.stdout);
    assert_eq!(bed.versions("hello").len(), 2);
}

#[tokio::test]
async fn a_description_that_is_too_long_is_sent_without_the_text_before_the_mark() {
    let bed = Bed::new(&["hello"]).await;
    bed.world("desc=max48");
    let ended = push(&bed).await;
    assert_there_once(&bed, "max48", &ended);
    assert_eq!(push(&bed).await.of("unchanged").len(), 1);
}

#[tokio::test]
async fn c28_a_version_that_holds_other_bytes_than_it_was_made_of_is_flagged_and_not_done() {
    let bed = Bed::new(&["hello"]).await;
    bed.fault("oss:1:callback_lost");
    let other = "{\"RequestId\":\"R\",\"Content\":{\"ErCode\":\"Ly8gb3RoZXI=\"}}";
    bed.fault(&format!("DescribeRoutineCodeRevision:*:answer({other})"));
    let ended = push(&bed).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let problem = &ended.of("error")[0]["problem"];
    let what = problem["what"].as_str().unwrap();
    assert!(what.contains("gives others back"), "{problem}");
    assert_eq!(ended.of("critical").len(), 1, "{}", ended.stdout);
    assert_eq!(bed.asked("UploadRoutineCode"), 1);
}

#[tokio::test]
async fn c28_one_wrong_answer_to_a_reading_does_not_stand_in_the_way_for_ever() {
    let bed = Bed::new(&["hello"]).await;
    bed.fault("oss:1:callback_lost");
    let other = "{\"RequestId\":\"R\",\"Content\":{\"ErCode\":\"Ly8gb3RoZXI=\"}}";
    bed.fault(&format!("DescribeRoutineCodeRevision:1:answer({other})"));
    let ended = push(&bed).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let ended = push(&bed).await;
    assert_there_once(&bed, "the next run", &ended);
    assert_eq!(bed.asked("UploadRoutineCode"), 1);
}

#[tokio::test]
async fn bytes_that_the_service_normalises_are_known_again() {
    let bed = Bed::new(&["hello"]).await;
    bed.world("code_bytes=normalised");
    bed.fault("oss:1:drop_after");
    std::fs::write(bed.entry("hello"), "\u{feff}// a\r\n// b\r\n").unwrap();
    let ended = push(&bed).await;
    assert_eq!(ended.of("uploaded").len(), 1, "{}", ended.stdout);
    assert_eq!(bed.codes("hello"), [b"// a\n// b\n".to_vec()]);
}

#[tokio::test]
async fn c29_ten_versions_with_a_reason_to_stay_are_all_named() {
    let bed = Bed::with(
        &["hello"],
        Settings::default(),
        "[revisions]\npin = [\"by hand\"]",
    )
    .await;
    bed.seed("hello", 10);
    let ended = push(&bed).await;
    let problem = &ended.of("error")[0]["problem"];
    assert_eq!(problem["class"], "slots");
    assert_eq!(
        problem["what"]
            .as_str()
            .unwrap()
            .matches("(pinned by a pattern)")
            .count(),
        10
    );
    assert_eq!(bed.asked("DeleteRoutineCodeRevision"), 0);
}

#[tokio::test]
async fn forms_that_can_be_posted_once_or_end_soon_make_no_difference() {
    for switch in ["form_reuse=no", "form_ttl=1s"] {
        let bed = Bed::new(&["hello"]).await;
        bed.world(switch);
        bed.fault("oss:1:drop_before");
        let ended = push(&bed).await;
        assert_there_once(&bed, switch, &ended);
    }
}

#[tokio::test]
async fn d05_a_version_that_is_published_while_it_is_being_deleted_is_spared_or_told() {
    for guard in ["on", "off"] {
        let bed = Bed::new(&["hello"]).await;
        bed.world(&format!("guard={guard}"));
        let oldest = bed.seed("hello", 8).remove(0);
        let mut watch = bed.watch(&["--settle-margin", "4s"]).await;
        // A person publishes it, and the service is late to tell.
        bed.world("lag=2s");
        bed.publish("hello", &oldest, "production");
        bed.write("hello", &code("hello", 1));
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
        if guard == "on" {
            bed.until("the next oldest goes", |world| {
                world.routine(&name("hello")).unwrap().versions().len() <= 9
            })
            .await;
            assert!(bed.versions("hello").contains(&oldest));
            let told = watch.until("warning").await;
            let what = told["problem"]["what"].as_str().unwrap();
            assert!(what.contains(&oldest.short()), "{told}");
            let refused = |record: &er_dev::emulator::history::Record| {
                record.op == "DeleteRoutineCodeRevision"
                    && record.revision.as_ref() == Some(&oldest)
            };
            assert_eq!(bed.history().iter().filter(|r| refused(r)).count(), 1);
        } else {
            let rotated = watch.until("rotated").await;
            assert_eq!(rotated["revision"], oldest.as_str());
            bed.world("lag=0s");
            bed.write("hello", &code("hello", 2));
            let told = watch.until("critical").await;
            let what = told["problem"]["what"].as_str().unwrap();
            assert!(
                what.contains(oldest.as_str()) && what.contains("production"),
                "{told}"
            );
            let restored = bed.run(&["restore", "hello", oldest.as_str()]).await;
            assert_eq!(restored.code, Some(0), "{}", restored.stdout);
            let back = bed.codes("hello").pop().unwrap();
            assert_eq!(back, b"// foreign 0", "its code is there again");
        }
        watch.kill().await;
    }
}
