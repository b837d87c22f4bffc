//! What rotation deleted can be had back, to the byte.

use crate::common::{Bed, Ended, QUICK, code, finish, name};
use er_dev::routine::{Digest, Revision};

async fn restore(bed: &Bed, revision: &str) -> Ended {
    bed.run(&[&["restore", "hello", revision], QUICK].concat())
        .await
}

/// A text that no other save has, with characters from everywhere.
fn text(save: usize) -> String {
    format!(
        "// {save} ünïcode 版本 \u{1f600}\r\n{}",
        code("hello", save)
    )
}

#[tokio::test]
async fn after_thirty_rotations_every_kept_version_comes_back_exactly() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(QUICK).await;
    let mut made = Vec::new();
    for save in 1..=39 {
        bed.write("hello", &text(save));
        let uploaded = watch.until("uploaded").await;
        let revision = Revision::new(uploaded["revision"].as_str().unwrap());
        made.push((revision, text(save)));
        bed.until("a slot is free", |world| {
            world.routine(&name("hello")).unwrap().versions().len() <= 9
        })
        .await;
    }
    watch.stop().await;
    let listed = bed.run(&["restore", "hello", "--list"]).await;
    let kept = listed.events();
    assert!(kept.len() >= 30, "{} are kept", kept.len());
    let there = bed.versions("hello");
    let gone = made
        .iter()
        .filter(|(revision, _)| !there.contains(revision));
    for (revision, text) in gone {
        let record = kept
            .iter()
            .find(|kept| kept["revision"] == revision.as_str());
        assert_eq!(record.unwrap()["sha256"], Digest::of(text.as_bytes()).hex());
        let ended = restore(&bed, revision.as_str()).await;
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        let recovered = &ended.of("recovered")[0];
        assert_eq!(recovered["was"], revision.as_str());
        let newest = bed.versions("hello").pop().unwrap();
        assert_eq!(recovered["revision"], newest.as_str());
        assert_eq!(bed.codes("hello").pop().unwrap(), text.as_bytes());
    }
}

#[tokio::test]
async fn a_restored_version_keeps_its_description_with_a_note_and_bytes_that_are_there_need_no_upload()
 {
    let bed = Bed::new(&["hello"]).await;
    let seeded = bed.seed("hello", 10);
    assert_eq!(bed.push().await.code, Some(0));
    let oldest = &seeded[0];
    assert!(!bed.versions("hello").contains(oldest));
    assert_eq!(restore(&bed, oldest.as_str()).await.code, Some(0));
    let described = bed.emulator.with_world(|world| {
        let routine = world.routine(&name("hello")).unwrap();
        routine.versions().last().unwrap().description().to_owned()
    });
    let words = format!("by hand (restored, was {oldest}) er1.");
    assert!(described.starts_with(&words), "{described}");
    let uploads = bed.asked("UploadRoutineCode");
    let again = restore(&bed, oldest.as_str()).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(bed.asked("UploadRoutineCode"), uploads);
    assert_eq!(again.of("recovered").len(), 1);
}

#[tokio::test]
async fn what_the_vault_does_not_hold_is_refused_with_the_way_to_what_it_holds() {
    let bed = Bed::new(&["hello"]).await;
    let empty = bed.command(&["restore", "hello", "--list", "--format", "text"]);
    let empty = finish(empty).await;
    assert_eq!(empty.code, Some(0));
    assert!(
        empty.stdout.contains("the vault is empty"),
        "{}",
        empty.stdout
    );
    let ended = restore(&bed, "1234").await;
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("restore hello --list"),
        "{}",
        ended.stderr
    );
    assert_eq!(bed.run(&["restore", "hello"]).await.code, Some(2));
}

#[tokio::test]
async fn a_version_that_was_saved_and_then_not_deleted_is_not_listed_as_gone() {
    let bed = Bed::new(&["hello"]).await;
    let versions = bed.seed("hello", 10);
    bed.fault("DeleteRoutineCodeRevision:1:code(InvalidParameter,in use,400)");
    let pruned = bed.run(&[&["prune", "hello"], QUICK].concat()).await;
    assert_eq!(pruned.code, Some(0), "{}", pruned.stderr);
    assert!(bed.vaulted("hello").contains(&versions[0]));
    let listed = bed.run(&["restore", "hello", "--list"]).await.events();
    let listed: Vec<_> = listed.iter().map(|kept| &kept["revision"]).collect();
    assert_eq!(listed, [versions[1].as_str()]);
    // Where the service cannot be asked, all are shown, and that is said.
    bed.fault("DescribeRoutine:*:status(500)");
    let all = bed.run(&["restore", "hello", "--list"]).await;
    assert_eq!((all.code, all.events().len()), (Some(0), 2));
    assert!(all.stderr.contains("may still be there"), "{}", all.stderr);
}

#[tokio::test]
async fn code_that_was_damaged_on_the_disk_is_not_uploaded() {
    let bed = Bed::new(&["hello"]).await;
    let seeded = bed.seed("hello", 10);
    assert_eq!(bed.push().await.code, Some(0));
    let vault = bed.routine_dir("hello").join("vault");
    let digest = Digest::of(b"// foreign 0").hex();
    std::fs::write(vault.join(format!("{digest}.js")), "// other").unwrap();
    let uploads = bed.asked("UploadRoutineCode");
    let ended = restore(&bed, seeded[0].as_str()).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("does not hold"), "{}", ended.stderr);
    assert_eq!(bed.asked("UploadRoutineCode"), uploads);
}

#[tokio::test]
async fn a_restore_whose_answers_are_lost_makes_one_version() {
    crate::common::each(
        [
            "UploadRoutineCode:2:drop_after",
            "oss:2:drop_after",
            "oss:2:status(203)",
        ],
        async |fault| {
            let bed = Bed::new(&["hello"]).await;
            let seeded = bed.seed("hello", 10);
            assert_eq!(bed.push().await.code, Some(0));
            bed.fault(fault);
            let ended = restore(&bed, seeded[0].as_str()).await;
            assert_eq!(ended.code, Some(0), "{fault}: {}", ended.stderr);
            let codes = bed.codes("hello");
            let restored = codes.iter().filter(|code| *code == b"// foreign 0");
            assert_eq!(restored.count(), 1, "{fault}");
        },
    )
    .await;
}

#[tokio::test]
async fn purge_lists_what_is_kept_and_removes_it_only_when_told_and_when_nobody_works() {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 10);
    let watch = bed.watch(QUICK).await;
    bed.until("a slot is free", |world| {
        world.routine(&name("hello")).unwrap().versions().len() <= 9
    })
    .await;
    let listed = bed.run(&["purge"]).await;
    let object = &listed.events()[0];
    assert_eq!(object["removed"], false);
    assert_eq!(object["routines"][0]["versions"], 2, "{object}");
    let refused = bed.run(&["purge", "--yes"]).await;
    assert_eq!(refused.code, Some(75), "{}", refused.stdout);
    let pid = watch.pid().to_string();
    assert!(refused.stderr.contains(&pid), "{}", refused.stderr);
    watch.stop().await;
    assert_eq!(bed.run(&["purge", "--yes"]).await.code, Some(0));
    assert!(!bed.path("state").exists());
    assert_eq!(bed.run(&["purge"]).await.code, Some(0));
    assert!(!bed.path("state").exists(), "looking makes nothing");
}
