//! What versions are called, and how the commit in a description is found again.

use std::path::Path;
use std::process::Command;

use crate::common::{Bed, QUICK, finish, has, name};
use er_dev::emulator::world::World;
use er_dev::revision::mark::{Instance, describe};
use er_dev::routine::Digest;

/// Lets the versions of `hello` be called by this template.
fn call(bed: &Bed, template: &str) {
    let path = bed.path("er-dev.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}description = \"{template}\"\n")).unwrap();
}

fn descriptions(bed: &Bed) -> Vec<String> {
    bed.emulator.with_world(|world: &mut World| {
        let versions = world
            .routine(&name("hello"))
            .unwrap()
            .versions()
            .into_iter();
        versions.map(|it| it.description().to_owned()).collect()
    })
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]);
    command.args(["-c", "commit.gpgsign=false"]).args(arguments);
    command
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn revisions(bed: &Bed) -> Vec<serde_json::Value> {
    let shown = bed.run(&["revisions", "hello"]).await;
    let shown = shown.events().remove(0)["revisions"].take();
    shown.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_version_is_called_by_what_is_true_when_it_is_uploaded_and_its_commit_is_shown_again() {
    if !has("git") {
        return;
    }
    let bed = Bed::new(&["hello"]).await;
    call(&bed, "{file} {git} {branch} {user} {time}");
    let dir = bed.path("");
    git(&dir, &["init", "-q", "-b", "topic"]);
    git(&dir, &["add", "src"]);
    git(&dir, &["commit", "-q", "-m", "first"]);
    let head = git(&dir, &["rev-parse", "HEAD"]);
    let mut push = bed.command(&[&["push"], QUICK].concat());
    push.env("LOGNAME", "ann");
    assert_eq!(finish(push).await.code, Some(0));
    bed.write("hello", "// changed\n");
    let mut push = bed.command(&[&["push"], QUICK].concat());
    push.env("USER", "bob").env("LOGNAME", "ann");
    assert_eq!(finish(push).await.code, Some(0));
    let short = &head[..8];
    let called = descriptions(&bed);
    let begins = [
        format!("hello.js g{short} topic ann 20"),
        format!("hello.js g{short}+ topic bob 20"),
    ];
    for (called, begins) in called.iter().zip(begins) {
        assert!(called.starts_with(&begins), "{called}");
        assert!(called.contains("Z er1."), "{called}");
    }
    let commits: Vec<_> = revisions(&bed).await;
    let commits: Vec<_> = commits.iter().map(|it| &it["git"]).collect();
    assert_eq!(commits, [&format!("{short}+"), short]);
    let mut table = bed.command(&["revisions", "hello"]);
    table.env("ER_DEV_FORMAT", "text");
    let table = finish(table).await.stdout;
    assert!(
        table.contains(&format!("  {short}+  this er-dev")),
        "{table}"
    );
}

#[tokio::test]
async fn outside_of_git_the_name_has_no_gap_and_the_upload_is_as_ever() {
    let bed = Bed::new(&["hello"]).await;
    // Whatever lies around the bed is another repository's.
    std::fs::create_dir(bed.path(".git")).unwrap();
    std::fs::write(bed.path(".git/HEAD"), "ref: refs/heads/.invalid\n").unwrap();
    call(&bed, "{git} {file} {branch} on {host}");
    assert_eq!(bed.push().await.code, Some(0));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let begins = format!("hello.js on {} er1.", host.trim());
    let called = descriptions(&bed).remove(0);
    assert!(called.starts_with(&begins), "{called}");
    assert_eq!(revisions(&bed).await[0]["git"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_long_name_is_cut_by_whole_characters_and_never_its_mark() {
    let bed = Bed::new(&["hello"]).await;
    call(&bed, &format!("{{user}} {}", "\u{7248}".repeat(150)));
    let mut push = bed.command(&[&["push"], QUICK].concat());
    push.env("USER", "\u{e9}".repeat(60));
    assert_eq!(finish(push).await.code, Some(0));
    let called = descriptions(&bed).remove(0);
    let (words, mark) = called.rsplit_once(' ').unwrap();
    assert_eq!(words.chars().count(), 120, "{called}");
    assert!(words.ends_with('\u{7248}') && mark.starts_with("er1."));
    assert_eq!(bed.push().await.of("unchanged").len(), 1);
}

#[tokio::test]
async fn other_peoples_words_are_not_taken_for_a_commit() {
    let bed = Bed::new(&["hello"]).await;
    let theirs = describe("at gdeadbeef+", Digest::of(b"1"), &Instance::from_number(7));
    bed.emulator.with_world(|world: &mut World| {
        let now = jiff::Timestamp::now();
        for words in ["gdeadbeef", "g1234567 3f2a9c1b", &theirs] {
            world.seed(&name("hello"), Some(b"1"), words, now).unwrap();
        }
    });
    let shown = revisions(&bed).await;
    let commits: Vec<_> = shown.iter().map(|it| it["git"].as_str()).collect();
    assert_eq!(commits, [Some("deadbeef+"), None, None]);
}
