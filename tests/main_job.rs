//! A save becomes a version, and the oldest makes room.

use crate::common::{Bed, SIGNATURES, Watch, code};
use er_dev::emulator::history::Decision;
use er_dev::emulator::world::{Settings, Slot};

async fn save_and_upload(bed: &Bed, watch: &mut Watch, save: usize) -> serde_json::Value {
    bed.write("hello", &code("hello", save));
    let event = watch.end_of_edit().await;
    assert_eq!(event["event"], "uploaded", "{event}");
    event
}

#[tokio::test]
async fn twelve_saves_leave_nine_versions_and_the_oldest_went_first() {
    for (slot, signature) in [Slot::AtUpload, Slot::AtCallback]
        .into_iter()
        .zip(SIGNATURES)
    {
        let settings = Settings {
            slot,
            ..Settings::default()
        };
        let bed = Bed::signing(&["hello"], settings, signature).await;
        let mut watch = bed.watch(&[]).await;
        let mut made = bed.versions("hello");
        for save in 1..=12 {
            let event = save_and_upload(&bed, &mut watch, save).await;
            made.push(er_dev::routine::Revision::new(
                event["revision"].as_str().unwrap(),
            ));
            assert!(event["slots"].as_u64().unwrap() <= 10);
        }
        let (exit, done) = watch.stop().await;
        assert_eq!(exit, Some(0));
        assert_eq!(
            (&done["uploaded"], &done["rotated"]),
            (&13.into(), &4.into())
        );
        assert_eq!(bed.versions("hello"), made[4..], "the newest nine are left");
        assert_eq!(
            bed.codes("hello").last().unwrap(),
            code("hello", 12).as_bytes()
        );
        bed.assert_signed(signature);
        bed.assert_within_limits();
    }
}

#[tokio::test]
async fn a_save_that_changes_no_byte_makes_no_request() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    let before = bed.history().len();
    bed.write("hello", &code("hello", 0));
    assert_eq!(watch.end_of_edit().await["event"], "unchanged");
    assert_eq!(bed.history().len(), before);
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
}

#[tokio::test]
async fn going_back_to_older_bytes_reuses_their_version() {
    for signature in SIGNATURES {
        let bed = Bed::signing(&["hello"], Settings::default(), signature).await;
        let mut watch = bed.watch(&[]).await;
        let first = bed.versions("hello").pop().unwrap();
        save_and_upload(&bed, &mut watch, 1).await;
        bed.write("hello", &code("hello", 0));
        let event = watch.end_of_edit().await;
        assert_eq!(
            (event["event"].as_str(), event["revision"].as_str()),
            (Some("reused"), Some(first.as_str()))
        );
        assert_eq!(bed.versions("hello").len(), 2);
        bed.assert_signed(signature);
    }
}

#[tokio::test]
async fn a_restart_finds_what_is_there_and_uploads_nothing() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    watch.stop().await;
    let uploads = |bed: &Bed| {
        bed.history()
            .iter()
            .filter(|r| r.op == "UploadRoutineCode")
            .count()
    };
    assert_eq!(uploads(&bed), 1);
    let mut watch = bed.watch_from_start(&[]);
    assert_eq!(watch.end_of_edit().await["event"], "unchanged");
    // The state directory helps, but the mark in the description is what tells.
    watch.stop().await;
    std::fs::remove_dir_all(bed.path("state")).unwrap();
    let mut watch = bed.watch_from_start(&[]);
    assert_eq!(watch.end_of_edit().await["event"], "unchanged");
    assert_eq!(uploads(&bed), 1);
}

#[tokio::test]
async fn a_live_version_is_never_deleted_though_it_is_the_oldest_of_ten_foreign_ones() {
    let [older, newer] = SIGNATURES;
    for (slot, guard, signature) in [
        (Slot::AtUpload, false, older),
        (Slot::AtUpload, true, newer),
        (Slot::AtCallback, false, newer),
    ] {
        let settings = Settings {
            slot,
            guard,
            ..Settings::default()
        };
        let bed = Bed::signing(&["hello"], settings, signature).await;
        let foreign = bed.seed("hello", 10);
        bed.publish("hello", &foreign[0], "production");
        let mut watch = bed.watch(&[]).await;
        for save in 1..20 {
            save_and_upload(&bed, &mut watch, save).await;
        }
        let (exit, done) = watch.stop().await;
        assert_eq!((exit, &done["uploaded"]), (Some(0), &20.into()));
        let versions = bed.versions("hello");
        assert_eq!(versions.len(), 9);
        assert_eq!(versions[0], foreign[0]);
        let deletes = bed
            .history()
            .into_iter()
            .filter(|r| r.op == "DeleteRoutineCodeRevision");
        assert!(
            deletes
                .clone()
                .all(|r| r.decision == Decision::Ok && r.revision.as_ref() != Some(&foreign[0]))
        );
        assert_eq!(deletes.count(), 21);
    }
}

#[tokio::test]
async fn what_rotation_deletes_lies_in_the_vault_byte_for_byte() {
    let bed = Bed::new(&["hello"]).await;
    let foreign = bed.seed("hello", 10);
    let mut watch = bed.watch(&[]).await;
    watch.until("rotated").await;
    watch.stop().await;
    let host = bed.emulator.address().to_string().replace(':', "_");
    let vault = bed.path(&format!("state/{host}/hello/vault"));
    let record = std::fs::read(vault.join(format!("{}.json", foreign[0]))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let saved =
        std::fs::read(vault.join(format!("{}.js", record["sha256"].as_str().unwrap()))).unwrap();
    assert_eq!(saved, b"// foreign 0");
    assert_eq!(record["description"], "by hand");
}

#[tokio::test]
async fn an_edit_during_an_upload_goes_up_too_and_newest_wins() {
    let bed = Bed::with(
        &["hello"],
        Settings::default(),
        "[watch]\ndebounce = \"10ms\"\n",
    )
    .await;
    let watch = bed.watch(&[]).await;
    for save in 1..=40 {
        bed.write("hello", &code("hello", save));
        tokio::task::yield_now().await;
    }
    bed.sync().await;
    assert_eq!(bed.newest("hello"), code("hello", 40).as_bytes());
    bed.assert_at_rest();
    watch.stop().await;
}

#[tokio::test]
async fn three_hundred_routines_edited_three_times_at_once_all_arrive_within_the_limit() {
    let names: Vec<String> = (0..300).map(|n| format!("r{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::new(&names).await;
    let watch = bed.watch(&[]).await;
    for save in 1..=3 {
        for routine in &names {
            bed.write(routine, &code(routine, save));
        }
    }
    bed.sync().await;
    for routine in &names {
        assert_eq!(bed.newest(routine), code(routine, 3).as_bytes());
    }
    bed.assert_at_rest();
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
    bed.assert_within_limits();
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do_and_changes_nothing() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 10);
    let ended = bed.run(&["watch", "--once", "--dry-run"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let actions: Vec<_> = ended
        .of("planned")
        .iter()
        .map(|e| e["action"].as_str().unwrap().to_owned())
        .collect();
    // One to make room before the upload, one to free a slot after it.
    assert_eq!(actions, ["rotate", "upload", "rotate"]);
    assert!(
        bed.history()
            .iter()
            .all(|record| record.op.starts_with("Describe"))
    );
}

#[tokio::test]
async fn once_brings_every_routine_up_to_date_and_ends() {
    let bed = Bed::new(&["a", "b"]).await;
    let ended = bed.run(&["watch", "--once"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.of("uploaded").len(), 2);
    crate::common::assert_adds_up(&ended.of("done")[0]);
    let ended = bed.run(&["watch", "--once", "--routine", "b"]).await;
    assert_eq!(ended.of("unchanged").len(), 1);
}
