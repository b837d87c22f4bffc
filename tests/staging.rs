//! With `upload = "staging"` an edit runs on staging and costs no version; `commit` makes a version of what is there.

use crate::common::{Bed, Ended, QUICK, Watch, code, finish, name};
use er_dev::emulator::check::unstaged;
use er_dev::emulator::world::{Settings, World};
use er_dev::revision::mark::{Instance, Mark, describe, text_of};
use er_dev::routine::{Digest, Revision};
use serde_json::Value;

/// The answers to what the service leaves open about staging. The first is the emulator's own.
const WORLDS: [&[&str]; 5] = [
    &[],
    &["alloc=callback"],
    &["staging_name=number", "commit_form=number"],
    &["staging_read=no"],
    &["alloc=callback", "staging_read=no", "desc_form=plain"],
];

/// A bed whose routine uploads to staging, in a world with these answers.
async fn bed(world: &[&str]) -> Bed {
    bed_with(world, "").await
}

async fn bed_with(world: &[&str], more: &str) -> Bed {
    let mut settings = Settings::default();
    for switch in world {
        settings.set(switch).unwrap();
    }
    let bed = Bed::with(&["hello"], settings, more).await;
    let file = bed.path("er-dev.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, format!("{text}upload = \"staging\"\n")).unwrap();
    bed
}

/// What staging runs; empty where that has no code.
fn on_staging(world: &World) -> Option<Vec<u8>> {
    let routine = world.routine(&name("hello")).unwrap();
    let slot = routine.live("staging").cloned();
    let slot = slot.unwrap_or_else(Revision::staging);
    let version = routine.version(&slot)?;
    Some(version.bytes().unwrap_or_default().to_vec())
}

/// The numbered versions, oldest first.
fn numbered(bed: &Bed) -> Vec<Revision> {
    let mut versions = bed.versions("hello");
    versions.retain(|revision| !revision.is_staging());
    versions
}

#[track_caller]
fn assert_runs(bed: &Bed, text: &str, what: &str) {
    let runs = bed.emulator.with_world(|world| on_staging(world));
    let runs = runs.map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(runs.as_deref(), Some(text), "{what}");
    let last = [(name("hello"), Digest::of(text.as_bytes()))];
    assert_eq!(unstaged(&bed.emulator.history(), &last), [], "{what}");
}

#[track_caller]
fn assert_code(ended: &Ended, code: i32, what: &str) {
    let Ended { stdout, stderr, .. } = ended;
    assert_eq!(ended.code, Some(code), "{what}\n{stdout}{stderr}");
}

/// Somebody else puts code on staging.
fn stage_by_hand(bed: &Bed) {
    let stage = |world: &mut World| world.act("stage hello // theirs");
    bed.emulator.with_world(stage).unwrap();
}

async fn commit(bed: &Bed) -> Ended {
    let arguments = ["commit", "hello", "-m", "release 7", "--timeout", "30s"];
    bed.run(&[&arguments, QUICK].concat()).await
}

/// What the newest version is called, and which bytes it was made of.
fn newest(bed: &Bed) -> (String, Mark, Vec<u8>) {
    bed.emulator.with_world(|world: &mut World| {
        let routine = world.routine(&name("hello")).unwrap();
        let version = *routine.versions().last().unwrap();
        let words = version.description();
        let mark = Mark::read(&words).unwrap();
        let bytes = version.bytes().unwrap_or_default().to_vec();
        (text_of(&words).to_owned(), mark, bytes)
    })
}

#[tokio::test]
async fn each_edit_runs_on_staging_and_costs_no_version() {
    let bed = bed(&[]).await;
    bed.seed("hello", 9);
    let before = numbered(&bed);
    let mut watch = bed.watch(QUICK).await;
    let told: Vec<Value> = watch.seen().cloned().collect();
    let uploaded = told.iter().find(|event| event["event"] == "uploaded");
    assert_eq!(uploaded.unwrap()["revision"], "unstable");
    let hint = watch.until("staging").await;
    assert_eq!(
        hint["addresses"],
        serde_json::json!(["203.0.113.7", "203.0.113.8"])
    );
    for save in 1..=4 {
        bed.write("hello", &code("hello", save));
        let end = watch.end_of_edit().await;
        assert_eq!(end["event"], "uploaded", "{end}");
        assert_eq!(
            (&end["revision"], &end["slots"]),
            (&"unstable".into(), &10.into())
        );
        assert_eq!(end["calls"], 1, "{end}");
        assert_runs(&bed, &code("hello", save), "after its edit");
    }
    let (status, standing) = bed.status().await;
    assert_eq!(status, Some(0));
    let routine = &standing["routines"][0];
    assert_eq!(routine["upload"], "staging");
    assert_eq!(routine["last"]["revision"], "unstable");
    watch.stop().await;
    assert_eq!(numbered(&bed), before);
    assert_eq!(
        bed.asked("UploadRoutineCode") + bed.asked("DeleteRoutineCodeRevision"),
        0
    );
    // The hint is asked for once.
    assert_eq!(bed.asked("DescribeDcdnStagingIp"), 1);
}

#[tokio::test]
async fn what_is_on_staging_already_is_not_uploaded_again() {
    for world in WORLDS {
        let bed = bed(world).await;
        assert_code(&bed.push().await, 0, "the first");
        let again = bed.push().await;
        assert_eq!(again.of("unchanged").len(), 1, "{world:?} {}", again.stdout);
        assert_eq!(again.of("unchanged")[0]["revision"], "unstable");
        assert_eq!(bed.asked("UploadStagingRoutineCode"), 1, "{world:?}");
        // Identical bytes are uploaded where that is asked for.
        let forced = [&["push", "--force"], QUICK].concat();
        let forced = bed.run(&forced).await;
        assert_eq!(
            forced.of("uploaded").len(),
            1,
            "{world:?} {}",
            forced.stdout
        );
        assert_eq!(numbered(&bed), []);
    }
}

#[tokio::test]
async fn an_er_dev_that_remembers_nothing_believes_what_it_reads_back_and_no_mark() {
    for (read, uploads) in [("staging_read=yes", 1), ("staging_read=no", 2)] {
        let bed = bed(&[read]).await;
        assert_code(&bed.push().await, 0, "the first");
        std::fs::remove_dir_all(bed.routine_dir("hello")).unwrap();
        assert_code(&bed.push().await, 0, "the second");
        assert_eq!(bed.asked("UploadStagingRoutineCode"), uploads, "{read}");
        assert_runs(&bed, &code("hello", 0), read);
    }
}

#[tokio::test]
async fn what_somebody_else_put_on_staging_gives_way_to_the_next_edit_or_push() {
    let bed = bed(&[]).await;
    assert_code(&bed.push().await, 0, "the first");
    stage_by_hand(&bed);
    let again = bed.push().await;
    assert_eq!(again.of("uploaded").len(), 1, "{}", again.stdout);
    assert_runs(&bed, &code("hello", 0), "over theirs");
    // A version that was put live on staging runs there in place of the slot.
    let version = bed.seed("hello", 1).remove(0);
    bed.publish("hello", &version, "staging");
    assert_code(&bed.push().await, 0, "over a version");
    assert_runs(&bed, &code("hello", 0), "over a version");
}

#[tokio::test]
async fn a_save_that_changes_nothing_looks_at_staging_where_anybody_may_have_put_something_else() {
    for world in WORLDS {
        let bed = bed(world).await;
        let mut watch = bed.watch(QUICK).await;
        bed.write("hello", &code("hello", 0));
        assert_eq!(watch.end_of_edit().await["event"], "unchanged", "{world:?}");
        stage_by_hand(&bed);
        bed.write("hello", &code("hello", 0));
        assert_eq!(watch.end_of_edit().await["event"], "uploaded", "{world:?}");
        assert_runs(&bed, &code("hello", 0), "over theirs");
        watch.stop().await;
    }
}

#[tokio::test]
async fn what_goes_to_staging_is_called_as_a_version_would_be_and_a_commit_by_its_own_words() {
    let bed = bed(&[]).await;
    let file = bed.path("er-dev.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        file,
        format!("{text}description = \"{{file}} g1a2b3c4d by {{user}}\"\n"),
    )
    .unwrap();
    let mut push = bed.command(&[&["push"], QUICK].concat());
    push.env("USER", "ann");
    assert_code(&finish(push).await, 0, "the upload");
    let listed = bed.run(&["revisions", "--json"]).await.events().remove(0);
    let staging = &listed["staging"];
    assert_eq!(staging["description"], "hello.js g1a2b3c4d by ann");
    assert_eq!(staging["git"], "1a2b3c4d");
    assert_code(&commit(&bed).await, 0, "the commit");
    assert_eq!(newest(&bed).0, "release 7");
}

#[tokio::test]
async fn an_answer_lost_at_any_request_leaves_the_code_on_staging_and_no_version() {
    let mut cases = Vec::new();
    for world in WORLDS {
        for operation in ["UploadStagingRoutineCode", "oss"] {
            for action in [
                "drop_before",
                "drop_after",
                "status(502)",
                "garbage",
                "truncate",
            ] {
                cases.push((world, format!("{operation}:1:{action}")));
            }
        }
        for action in [
            "status(203)",
            "callback_lost",
            "status(204)",
            "code(AccessDenied,Policy expired)",
        ] {
            cases.push((world, format!("oss:1:{action}")));
        }
        cases.push((
            world,
            "UploadStagingRoutineCode:1:code(Throttling.User)".to_owned(),
        ));
    }
    crate::common::each(cases, |(world, fault)| async move {
        let bed = bed(world).await;
        bed.fault(&fault);
        let what = format!("{world:?} {fault}");
        let ended = bed.push().await;
        assert_code(&ended, 0, &what);
        assert_eq!(ended.of("uploaded").len(), 1, "{what} {}", ended.stdout);
        assert_runs(&bed, &code("hello", 0), &what);
        assert_eq!(numbered(&bed), [], "{what}");
    })
    .await;
}

#[tokio::test]
async fn older_code_that_comes_late_is_found_and_put_under_the_newest_again() {
    for world in [&[][..], &["staging_read=no"]] {
        let bed = bed(world).await;
        let mut watch = bed.watch(QUICK).await;
        bed.fault("oss:1:process_late(3000)");
        bed.write("hello", &code("hello", 1));
        bed.until_asked("UploadStagingRoutineCode", 2).await;
        bed.write("hello", &code("hello", 2));
        watch.until("uploaded").await;
        assert_runs(&bed, &code("hello", 2), "in time");
        // Nothing can keep the older code from coming.
        let old = code("hello", 1).into_bytes();
        bed.until("the older code", |world| {
            on_staging(world).as_ref() == Some(&old)
        })
        .await;
        let told = watch.until("warning").await;
        let what = told["problem"]["what"].as_str().unwrap();
        assert!(what.contains("came late"), "{told}");
        assert_runs(&bed, &code("hello", 2), "again");
        watch.stop().await;
    }
}

#[tokio::test]
async fn no_code_is_sent_to_staging_while_older_code_without_an_answer_could_still_come() {
    let bed = bed(&[]).await;
    let mut watch = bed.watch(QUICK).await;
    bed.fault("oss:1:process_late(900)");
    bed.write("hello", &code("hello", 1));
    bed.until_asked("UploadStagingRoutineCode", 2).await;
    bed.write("hello", &code("hello", 2));
    watch.until("uploaded").await;
    let history = bed.history();
    let posts: Vec<_> = history.iter().filter(|r| r.op == "PostObject").collect();
    let (late, next) = (posts[posts.len() - 2], posts[posts.len() - 1]);
    assert!(late.ended < next.t, "{late:?} {next:?}");
    assert_runs(&bed, &code("hello", 2), "the last word");
    watch.stop().await;
}

#[tokio::test]
async fn the_first_upload_to_staging_of_a_full_routine_makes_room_and_no_later_one_does() {
    for world in WORLDS {
        let bed = bed(world).await;
        let versions = bed.seed("hello", 10);
        bed.publish("hello", &versions[0], "production");
        let ended = bed.push().await;
        assert_code(&ended, 0, &format!("{world:?}"));
        assert_runs(&bed, &code("hello", 0), "after making room");
        assert!(
            !numbered(&bed).contains(&versions[1]) && bed.vaulted("hello").contains(&versions[1])
        );
        bed.write("hello", &code("hello", 1));
        assert_code(&bed.push().await, 0, "the second");
        assert_eq!(numbered(&bed).len(), 9, "{world:?}");
    }
}

#[tokio::test]
async fn where_each_staging_upload_is_a_version_of_its_own_the_oldest_go_as_they_must() {
    for alloc in ["alloc=upload", "alloc=callback"] {
        let bed = bed(&["staging=new", alloc]).await;
        for save in 0..12 {
            bed.write("hello", &code("hello", save));
            let ended = bed.push().await;
            assert_code(&ended, 0, alloc);
            assert_eq!(ended.of("republished"), [] as [Value; 0], "{alloc}");
            assert_runs(&bed, &code("hello", save), alloc);
        }
        let again = bed.push().await;
        assert_eq!(again.of("unchanged").len(), 1, "{alloc} {}", again.stdout);
        // What is on staging is a version already.
        let committed = commit(&bed).await;
        assert_code(&committed, 0, alloc);
        let told = &committed.of("reused")[0];
        assert_eq!(told["revision"], numbered(&bed).pop().unwrap().as_str());
    }
}

#[tokio::test]
async fn commit_makes_a_version_of_what_is_on_staging_and_tells_its_number() {
    for world in WORLDS {
        let bed = bed(world).await;
        assert_code(&bed.push().await, 0, "the upload");
        // The file has moved on since.
        bed.write("hello", &code("hello", 1));
        let committed = commit(&bed).await;
        assert_code(&committed, 0, &format!("{world:?}"));
        let (words, mark, bytes) = newest(&bed);
        assert_eq!(
            (words.as_str(), bytes),
            ("release 7", code("hello", 0).into_bytes())
        );
        assert!(mark.is_for(Digest::of(code("hello", 0).as_bytes())));
        let told = &committed.of("committed")[0];
        let number = numbered(&bed).pop().unwrap();
        assert_eq!(told["revision"], number.as_str(), "{world:?}");
        assert_eq!(
            told["sha256"],
            Digest::of(code("hello", 0).as_bytes()).hex()
        );
        // There is nothing to make a second one of.
        let again = commit(&bed).await;
        assert_eq!(again.of("reused")[0]["revision"], number.as_str());
        assert_eq!(bed.asked("CommitStagingRoutineCode"), 1, "{world:?}");
    }
}

#[tokio::test]
async fn a_commit_is_told_in_words_or_in_json() {
    let bed = bed(&[]).await;
    assert_code(&bed.push().await, 0, "the upload");
    let run = async |arguments: &[&str]| {
        let mut command = bed.command(&[&["commit", "hello"], arguments].concat());
        command.env("ER_DEV_FORMAT", "text");
        finish(command).await
    };
    for arguments in [&[][..], &["-m", "  "]] {
        assert_code(&run(arguments).await, 2, "without a name for it");
    }
    let words = run(&["-m", "release 7"]).await;
    let number = numbered(&bed).pop().unwrap();
    let publish = format!("`er-dev publish hello {number} --env ENV` puts it live");
    assert!(
        words.stdout.contains("Committed  hello  ..."),
        "{}",
        words.stdout
    );
    assert!(words.stdout.contains(&publish), "{}", words.stdout);
    let json = run(&["-m", "release 7", "--json"]).await;
    assert_eq!(json.of("reused")[0]["revision"], number.as_str());
}

#[tokio::test]
async fn a_commit_right_after_an_upload_waits_for_a_service_that_is_late_to_show_it() {
    let late = &["--settle-margin", "2s"][..];
    let bed = bed(&["lag=1s"]).await;
    for save in 0..2 {
        bed.write("hello", &code("hello", save));
        let pushed = bed.run(&[&["push"], late].concat()).await;
        assert_code(&pushed, 0, "the upload");
        let arguments = ["commit", "hello", "-m", "release 7"];
        assert_code(&bed.run(&[&arguments, late].concat()).await, 0, "at once");
        assert_eq!(newest(&bed).2, code("hello", save).into_bytes());
    }
}

#[tokio::test]
async fn commit_works_beside_a_running_watch_and_waits_for_its_step() {
    let bed = bed(&[]).await;
    let mut watch = bed.watch(QUICK).await;
    bed.fault("oss:1:delay(700)");
    bed.write("hello", &code("hello", 1));
    bed.until_asked("UploadStagingRoutineCode", 2).await;
    let committed = commit(&bed).await;
    assert_code(&committed, 0, "beside a watch");
    assert_eq!(newest(&bed).2, code("hello", 1).into_bytes());
    watch.until("uploaded").await;
    bed.write("hello", &code("hello", 2));
    watch.until("uploaded").await;
    assert_runs(&bed, &code("hello", 2), "after the commit");
    watch.stop().await;
}

#[tokio::test]
async fn commit_makes_room_first_and_leaves_a_slot_free() {
    let bed = bed(&[]).await;
    let versions = bed.seed("hello", 9);
    bed.publish("hello", &versions[0], "production");
    assert_code(&bed.push().await, 0, "the upload");
    let committed = commit(&bed).await;
    assert_code(&committed, 0, "with all slots taken");
    assert_eq!(committed.of("rotated").len(), 2, "{}", committed.stdout);
    let there = numbered(&bed);
    assert!(there.contains(&versions[0]) && there.len() == 8);
    let vaulted = bed.vaulted("hello");
    assert!(vaulted.contains(&versions[1]) && vaulted.contains(&versions[2]));
    assert_runs(&bed, &code("hello", 0), "still");
}

#[tokio::test]
async fn commit_refuses_what_this_er_dev_did_not_upload_and_says_what_to_do() {
    let theirs = describe("", Digest::of(b"// theirs"), &Instance::from_number(0xbeef));
    let refused = async |bed: &Bed, words: &str| {
        let ended = commit(bed).await;
        assert_code(&ended, 1, words);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("er-dev push hello"),
            "{}",
            ended.stderr
        );
        assert_eq!(bed.asked("CommitStagingRoutineCode"), 0);
    };
    let bed = bed(&[]).await;
    refused(&bed, "nothing is on staging").await;
    stage_by_hand(&bed);
    refused(&bed, "not uploaded by this er-dev").await;
    assert_code(&bed.push().await, 0, "the way out");
    // Other code under this er-dev's own words.
    let odd = |bed: &Bed, words: String| {
        bed.emulator.with_world(|world: &mut World| {
            let code = er_dev::routine::Code::new(b"// other".to_vec());
            world
                .register(&name("hello"), &Revision::staging(), &words, code)
                .unwrap();
        });
    };
    let ours = bed.emulator.with_world(|world| {
        let routine = world.routine(&name("hello")).unwrap();
        routine.version(&Revision::staging()).unwrap().description()
    });
    odd(&bed, ours);
    refused(&bed, "is not what this er-dev uploaded").await;
    odd(&bed, theirs);
    refused(&bed, "not uploaded by this er-dev").await;
    assert_code(&bed.push().await, 0, "the way out");
    assert_code(&commit(&bed).await, 0, "of what is ours again");
}

#[tokio::test]
async fn what_cannot_be_read_back_is_committed_only_with_a_proof_of_it() {
    let bed = bed(&["staging_read=no"]).await;
    assert_code(&bed.push().await, 0, "the upload");
    std::fs::remove_dir_all(bed.routine_dir("hello")).unwrap();
    let ended = commit(&bed).await;
    assert_code(&ended, 1, "without the record");
    assert!(ended.stderr.contains("no proof"), "{}", ended.stderr);
    let forced = [&["push", "--force"], QUICK].concat();
    assert_code(&bed.run(&forced).await, 0, "once more");
    assert_code(&commit(&bed).await, 0, "with it");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_makes_one_version() {
    let mut cases = Vec::new();
    for world in WORLDS {
        for action in [
            "drop_before",
            "drop_after",
            "status(502)",
            "garbage",
            "process_late(500)",
        ] {
            cases.push((world, format!("CommitStagingRoutineCode:1:{action}")));
        }
    }
    crate::common::each(cases, |(world, fault)| async move {
        let bed = bed(world).await;
        bed.seed("hello", 3);
        assert_code(&bed.push().await, 0, "the upload");
        bed.fault(&fault);
        let what = format!("{world:?} {fault}");
        let committed = commit(&bed).await;
        assert_code(&committed, 0, &what);
        assert_eq!(
            committed.of("committed").len(),
            1,
            "{what} {}",
            committed.stdout
        );
        assert_eq!(numbered(&bed).len(), 4, "{what}");
        assert_eq!(newest(&bed).0, "release 7", "{what}");
    })
    .await;
}

#[tokio::test]
async fn what_came_to_staging_between_the_look_and_the_commit_is_told_as_wrong() {
    let bed = bed(&[]).await;
    assert_code(&bed.push().await, 0, "the upload");
    let change = |world: &mut World| {
        let code = er_dev::routine::Code::new(b"// other".to_vec());
        world.stage(&name("hello"), code)
    };
    // The look has been answered when the code is read back, which is held up.
    bed.fault("DescribeRoutineCodeRevision:1:delay(500)");
    let (committed, ()) = tokio::join!(commit(&bed), async {
        bed.until_asked("DescribeRoutineCodeRevision", 1).await;
        bed.emulator.with_world(change).unwrap();
    });
    assert_code(&committed, 1, "of other bytes");
    assert_eq!(committed.of("critical").len(), 1, "{}", committed.stdout);
}

#[tokio::test]
async fn every_upload_to_staging_is_read_back_where_that_is_asked_for_and_possible() {
    for (read, reads) in [("staging_read=yes", 1), ("staging_read=no", 2)] {
        let bed = bed_with(&[read], "[revisions]\nverify = \"always\"\n").await;
        assert_code(&bed.push().await, 0, read);
        assert_eq!(bed.asked("DescribeRoutineCodeRevision"), reads, "{read}");
        assert_runs(&bed, &code("hello", 0), read);
    }
}

#[tokio::test]
async fn revisions_shows_the_slot_apart_from_the_versions() {
    let bed = bed(&[]).await;
    bed.seed("hello", 3);
    assert_code(&bed.push().await, 0, "the upload");
    let listed = bed.run(&["revisions", "--json"]).await.events().remove(0);
    let digest = Digest::of(code("hello", 0).as_bytes());
    assert_eq!(listed["used"], 4);
    assert_eq!(listed["revisions"].as_array().unwrap().len(), 3);
    assert_eq!(listed["staging"]["content"], digest.short());
    assert_eq!(listed["staging"]["runs"], true);
    for arguments in [&["revisions"][..], &["revisions", "--wide"]] {
        let mut command = bed.command(arguments);
        command.env("ER_DEV_FORMAT", "text");
        let shown = finish(command).await.stdout;
        let expected = format!(
            "\nstaging  {}  this er-dev  hello.js\n3 stay, 0 may go\n",
            digest.short()
        );
        assert!(
            shown.starts_with("hello  4 of 10 slots taken, one of them by staging\n"),
            "{shown}"
        );
        assert!(shown.ends_with(&expected), "{shown}");
        assert!(!shown.contains("unstable"), "{shown}");
    }
    let version = bed.versions("hello").pop().unwrap();
    bed.publish("hello", &version, "staging");
    let listed = bed.run(&["revisions", "--json"]).await.events().remove(0);
    assert_eq!(listed["staging"]["runs"], false);
}

#[tokio::test]
async fn what_is_on_staging_can_be_compared_and_neither_published_nor_pinned() {
    let bed = bed(&[]).await;
    assert_code(&bed.push().await, 0, "the upload");
    for arguments in [&["diff", "hello"][..], &["diff", "hello", "unstable"]] {
        assert_code(&bed.run(arguments).await, 0, "the same");
    }
    bed.write("hello", &code("hello", 1));
    let ended = bed.run(&["diff", "hello", "unstable"]).await;
    assert_code(&ended, 1, "other bytes");
    assert!(
        ended.stdout.contains("unstable (on staging)"),
        "{}",
        ended.stdout
    );
    for arguments in [
        &["publish", "hello", "unstable", "--env", "staging"][..],
        &["pin", "hello", "unstable"],
    ] {
        let ended = bed.run(arguments).await;
        assert_code(&ended, 2, "no version");
        assert!(
            ended.stderr.contains("er-dev commit hello -m"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn restore_makes_a_version_also_where_uploads_go_to_staging() {
    let bed = bed(&[]).await;
    let versions = bed.seed("hello", 10);
    assert_code(&bed.push().await, 0, "the upload");
    assert!(!numbered(&bed).contains(&versions[0]));
    let restore = [&["restore", "hello", versions[0].as_str()], QUICK].concat();
    assert_code(&bed.run(&restore).await, 0, "restored");
    assert_eq!(newest(&bed).2, b"// foreign 0");
    assert_runs(&bed, &code("hello", 0), "still");
}

#[tokio::test]
async fn a_dry_run_says_that_it_would_upload_to_staging_and_does_not() {
    let bed = bed(&[]).await;
    let ended = bed.run(&["watch", "--once", "--dry-run"]).await;
    assert_code(&ended, 0, "planned");
    let planned = &ended.of("planned")[0];
    assert!(
        planned["detail"].as_str().unwrap().ends_with("to staging"),
        "{planned}"
    );
    assert_eq!(bed.asked("UploadStagingRoutineCode"), 0);
}

#[tokio::test]
async fn a_key_that_may_not_ask_for_the_nodes_uploads_all_the_same() {
    let bed = bed(&[]).await;
    bed.fault("DescribeDcdnStagingIp:*:code(Forbidden.RAM,no,403)");
    let ended = bed.push().await;
    assert_code(&ended, 0, "without a hint");
    assert_eq!(ended.of("staging").len() + ended.of("warning").len(), 0);
}

/// A bed with a running watch whose first edit is on staging.
async fn filled(alloc: &'static str) -> (Bed, Watch) {
    let bed = bed(&[alloc]).await;
    bed.seed("hello", 3);
    let watch = bed.watch(QUICK).await;
    (bed, watch)
}

#[tokio::test]
async fn a_kill_at_any_request_of_an_edit_leaves_the_newest_code_on_staging() {
    let mut points = Vec::new();
    for alloc in ["alloc=upload", "alloc=callback"] {
        for request in ["UploadStagingRoutineCode", "oss"] {
            for phase in ["before", "mid", "late", "after"] {
                for saved_again in [false, true] {
                    points.push((alloc, request, phase, saved_again));
                }
            }
        }
    }
    crate::common::each(points, |point| async move {
        let (alloc, request, phase, saved_again) = point;
        let (bed, mut watch) = filled(alloc).await;
        bed.fault(&format!("{request}:1:kill({},{phase})", watch.pid()));
        bed.write("hello", &code("hello", 1));
        assert_eq!(watch.exit().await, None, "{point:?}");
        let last = code("hello", 1 + usize::from(saved_again));
        bed.write("hello", &last);
        let mut watch = bed.watch_from_start(QUICK);
        watch.until("ready").await;
        watch.end_of_edit().await;
        let runs = last.clone().into_bytes();
        bed.until(&format!("{point:?}"), |world| {
            on_staging(world).as_ref() == Some(&runs)
        })
        .await;
        watch.stop().await;
        assert_runs(&bed, &last, &format!("{point:?}"));
        assert_eq!(numbered(&bed).len(), 3, "{point:?}");
    })
    .await;
}

#[tokio::test]
async fn a_kill_at_a_commit_leaves_one_version_at_most_and_the_next_commit_one() {
    for phase in ["before", "mid", "late", "after"] {
        let bed = bed(&[]).await;
        assert_code(&bed.push().await, 0, "the upload");
        let mut command = bed.command(&["commit", "hello", "-m", "release 7"]);
        command.args(QUICK);
        let mut child = command.spawn().unwrap();
        let pid = child.id().unwrap();
        bed.fault(&format!("CommitStagingRoutineCode:1:kill({pid},{phase})"));
        child.wait().await.unwrap();
        assert_code(&commit(&bed).await, 0, phase);
        assert_eq!(numbered(&bed).len(), 1, "{phase}");
        assert_eq!(newest(&bed).0, "release 7");
    }
}

#[tokio::test]
async fn doctor_knows_that_uploads_to_staging_have_permissions_of_their_own() {
    let bed = bed(&[]).await;
    let found = bed.run(&["doctor", "--json"]).await.events().remove(0);
    let checks = found["checks"].as_array().unwrap();
    for operation in ["UploadStagingRoutineCode", "CommitStagingRoutineCode"] {
        let about = format!("dcdn:{operation}");
        let check = checks.iter().find(|check| check["about"] == *about);
        assert_eq!(check.unwrap()["verdict"], "unknown", "{check:?}");
    }
}
