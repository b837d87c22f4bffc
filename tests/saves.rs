//! Every way to save a file is one upload, and never of a torn or empty file.
//!
//! All of this happens outside the system's directory for temporary files, where vim would save in another way.

use std::io::Write as _;
use std::time::Duration;

use crate::common::disk::run;
use crate::common::{Bed, Watch, code, has, long};

/// Saves per recipe. Each must come out as one upload of exactly what was saved.
fn saves() -> usize {
    if long() { 200 } else { 5 }
}

/// The next edit must be the upload of this text, made of one save.
async fn assert_one_upload(bed: &Bed, watch: &mut Watch, text: &str, recipe: &str) {
    let event = watch.end_of_edit().await;
    assert_eq!(event["event"], "uploaded", "{recipe}: {event}");
    assert_eq!(event["saves"], 1, "{recipe}: {event}");
    let codes = bed.codes("hello");
    assert_eq!(
        String::from_utf8_lossy(codes.last().unwrap()),
        text,
        "{recipe}"
    );
}

/// After all saves nothing else may have gone up: not an empty file, not a part of one, nothing twice.
async fn assert_nothing_else(bed: &Bed, watch: Watch, recipe: &str) {
    let uploads = bed
        .history()
        .iter()
        .filter(|record| record.op == "PostObject")
        .count();
    assert_eq!(uploads, 1 + saves(), "{recipe}");
    let (exit, done) = watch.stop().await;
    assert_eq!((exit, &done["failed"]), (Some(0), &0.into()), "{recipe}");
}

async fn save_with_vim(setting: &str) {
    if !has("vim") {
        return;
    }
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    for save in 1..=saves() {
        let text = code("hello", save);
        let change = format!("%s/hello \\d\\+/hello {save}/");
        let arguments = [
            "-N",
            "-u",
            "NONE",
            "-i",
            "NONE",
            "-es",
            "-c",
            setting,
            "-c",
            &change,
            "-c",
            "wq",
            "src/hello.js",
        ];
        run("vim", &arguments, &bed.path("")).await;
        assert_one_upload(&bed, &mut watch, &text, setting).await;
    }
    assert_nothing_else(&bed, watch, setting).await;
}

#[tokio::test]
async fn a05_a_save_of_vim_is_one_upload() {
    save_with_vim("set backup writebackup backupcopy=auto").await;
}

#[tokio::test]
async fn a05_a_save_of_vim_that_copies_is_one_upload() {
    save_with_vim("set backup writebackup backupcopy=yes").await;
}

#[tokio::test]
async fn a05_a_save_of_vim_that_renames_is_one_upload() {
    save_with_vim("set backup writebackup backupcopy=no").await;
}

#[tokio::test]
async fn a05_a_save_of_sed_is_one_upload() {
    if !has("sed") {
        return;
    }
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    for save in 1..=saves() {
        let change = format!("s/hello [0-9]*/hello {save}/");
        run("sed", &["-i", &change, "src/hello.js"], &bed.path("")).await;
        assert_one_upload(&bed, &mut watch, &code("hello", save), "sed").await;
    }
    assert_nothing_else(&bed, watch, "sed").await;
}

#[tokio::test]
async fn a05_a_file_renamed_over_the_entry_is_one_upload() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    for save in 1..=saves() {
        let text = code("hello", save);
        // Beside the entry, and from outside its directory.
        let from = bed.path(if save % 2 == 0 {
            "src/.hello.js.tmp"
        } else {
            "elsewhere.js"
        });
        std::fs::write(&from, &text).unwrap();
        std::fs::rename(&from, bed.entry("hello")).unwrap();
        assert_one_upload(&bed, &mut watch, &text, "rename").await;
    }
    assert_nothing_else(&bed, watch, "rename").await;
}

#[tokio::test]
async fn a05_a_safe_write_of_jetbrains_is_one_upload() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    for save in 1..=saves() {
        let text = code("hello", save);
        let (new, old) = (
            bed.path("src/hello.js___jb_tmp___"),
            bed.path("src/hello.js___jb_old___"),
        );
        std::fs::write(&new, &text).unwrap();
        std::fs::rename(bed.entry("hello"), &old).unwrap();
        std::fs::rename(&new, bed.entry("hello")).unwrap();
        std::fs::remove_file(&old).unwrap();
        assert_one_upload(&bed, &mut watch, &text, "safe write").await;
    }
    assert_nothing_else(&bed, watch, "safe write").await;
}

#[tokio::test]
async fn a07_a_writer_that_pauses_between_chunks_is_one_upload_of_the_whole() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    // Longer than the debounce, so that only the close tells that the file is whole. The pause is what is tested.
    let pause = Duration::from_millis(250);
    for save in 1..=saves() {
        let text = format!("{}// {}\n", code("hello", save), "x".repeat(200_000));
        let mut file = std::fs::File::create(bed.entry("hello")).unwrap();
        for chunk in text.as_bytes().chunks(70_000) {
            file.write_all(chunk).unwrap();
            tokio::time::sleep(pause).await;
        }
        drop(file);
        assert_one_upload(&bed, &mut watch, &text, "slow writer").await;
    }
    assert_nothing_else(&bed, watch, "slow writer").await;
}

#[tokio::test]
async fn an_entry_that_an_ignore_rule_names_is_watched_all_the_same() {
    let bed = Bed::new(&["hello"]).await;
    std::fs::write(bed.path("src/.gitignore"), "*.js\n").unwrap();
    let mut watch = bed.watch(&[]).await;
    bed.write("hello", &code("hello", 1));
    assert_one_upload(&bed, &mut watch, &code("hello", 1), "ignored").await;
    watch.stop().await;
}
