//! What the commands that manage versions show, and how `diff` compares.

use crate::common::{Bed, Ended, QUICK, code, finish, name};
use er_dev::emulator::world::World;
use er_dev::revision::mark::{Instance, describe};
use er_dev::routine::{Digest, Revision};

/// Runs a command as a person does whose output goes into a pipe.
async fn text(bed: &Bed, arguments: &[&str]) -> Ended {
    let mut command = bed.command(&[arguments, QUICK].concat());
    command.env("ER_DEV_FORMAT", "text");
    finish(command).await
}

/// What was written, with names in place of what is another one in each run.
fn steady(bed: &Bed, versions: &[Revision], ended: &Ended) -> String {
    let mut out = format!(
        "exit {}\n{}{}",
        ended.code.unwrap(),
        ended.stdout,
        ended.stderr
    );
    let mut all = versions.to_vec();
    for revision in bed.versions("hello") {
        if !all.contains(&revision) {
            all.push(revision);
        }
    }
    // All are nineteen digits long, and so are their names here; the short form has seven characters.
    for (index, revision) in all.iter().enumerate() {
        out = out.replace(revision.as_str(), &format!("{index:0>4}---------------"));
        out = out.replace(&revision.short(), &format!("...{index:0>4}"));
    }
    let lines: Vec<String> = out.lines().map(without_times).collect();
    lines.join("\n")
}

/// A line with zeros for the time of day, for how long something took, and for when a version was made.
fn without_times(line: &str) -> String {
    let zeros = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
    let is_time = |word: &&str| {
        let day = word.len() == 8 && word.matches(':').count() == 2;
        let took = word.starts_with("0.") && word.ends_with('s');
        day || took || word.len() == 20 && word.ends_with('Z')
    };
    let words = line.split(' ');
    let words: Vec<String> = words
        .map(|word| {
            if is_time(&word) {
                zeros(word)
            } else {
                word.to_owned()
            }
        })
        .collect();
    words.join(" ")
}

/// Ten versions of all kinds: by hand, of another er-dev, of this one, live, pinned; the last four digits tell them apart.
async fn mixed(bed: &Bed) -> Vec<Revision> {
    let now = jiff::Timestamp::now().as_nanosecond();
    let day = 86_400_000_000_000;
    let hour = 3_600_000_000_000;
    let theirs = Instance::from_number(0x0000_beef);
    bed.emulator.with_world(|world: &mut World| {
        for index in 0..8 {
            let made = now - (10 - index) * day - hour - now % 10_000 + (index + 1) * 1_111;
            let made = jiff::Timestamp::from_nanosecond(made).unwrap();
            let code = format!("// version {index}\n");
            let words = match index {
                2 => describe(
                    "their index.js g3f2a9c1b+",
                    Digest::of(code.as_bytes()),
                    &theirs,
                ),
                4 => "release 2024-05, checked by three people and kept for the auditors".into(),
                _ => "by hand".into(),
            };
            world
                .seed(&name("hello"), Some(code.as_bytes()), &words, made)
                .unwrap();
        }
    });
    let versions = bed.versions("hello");
    bed.publish("hello", &versions[0], "production");
    versions
}

#[tokio::test]
async fn a_transcript_of_managing_the_versions_of_a_routine() {
    let more = "[revisions]\npin = [\"release*\"]";
    let bed = Bed::with(&["hello"], Default::default(), more).await;
    let versions = mixed(&bed).await;
    text(&bed, &["pin", "hello", versions[1].as_str()]).await;
    let mut transcript = String::new();
    let say = async |arguments: &[&str], shown: &str| {
        let ended = text(&bed, arguments).await;
        format!("$ er-dev {shown}\n{}\n\n", steady(&bed, &versions, &ended))
    };
    let second = versions[2].as_str();
    let steps: [(&[&str], &str); 9] = [
        (&["revisions", "hello"], "revisions hello"),
        (
            &["prune", "hello", "--keep", "6", "--dry-run"],
            "prune hello --keep 6 --dry-run",
        ),
        (&["prune", "hello", "--keep", "6"], "prune hello --keep 6"),
        (
            &["publish", "hello", "--env", "production"],
            "publish hello --env production",
        ),
        (
            &["publish", "hello", "--env", "production", "--yes"],
            "publish hello --env production --yes",
        ),
        (&["restore", "hello", second], "restore hello 0002"),
        (
            &["rollback", "hello", "--env", "production", "--yes"],
            "rollback hello --env production --yes",
        ),
        (&["revisions", "hello", "--wide"], "revisions hello --wide"),
        (&["unpin", "hello", second], "unpin hello 0002"),
    ];
    for (arguments, shown) in steps {
        transcript.push_str(&say(arguments, shown).await);
    }
    assert!(!transcript.contains('\u{1b}') && !transcript.contains('\r'));
    insta::assert_snapshot!(transcript);
}

#[tokio::test]
async fn diff_tells_by_its_exit_code_and_shows_what_an_upload_would_change() {
    let bed = Bed::new(&["hello"]).await;
    assert_eq!(bed.push().await.code, Some(0));
    let first = bed.versions("hello").pop().unwrap();
    let same = text(&bed, &["diff", "hello"]).await;
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""));
    let changed = format!(
        "{}// a second line\u{1b}[2J\twith a tab\n",
        code("hello", 0)
    );
    bed.write("hello", &changed);
    let ended = text(&bed, &["diff", "hello"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let expected = format!(
        "--- hello {first}\n+++ src/hello.js\n@@ -1 +1,2 @@\n {}+// a second line\u{1b}[2J\twith a tab\n",
        code("hello", 0)
    );
    assert_eq!(ended.stdout, expected, "a patch is exact");
    // What is live in production comes before the newest.
    assert_eq!(bed.push().await.code, Some(0));
    bed.publish("hello", &first, "production");
    let live = text(&bed, &["diff", "hello"]).await;
    assert!(
        live.stdout
            .contains(&format!("{first} (live in production)")),
        "{}",
        live.stdout
    );
    let newest = bed.versions("hello").pop().unwrap();
    assert_eq!(
        text(&bed, &["diff", "hello", newest.as_str()]).await.code,
        Some(0)
    );
}

#[tokio::test]
async fn diff_says_when_a_version_does_not_hold_what_its_mark_says_and_when_it_has_no_code() {
    let bed = Bed::new(&["hello"]).await;
    assert_eq!(bed.push().await.code, Some(0));
    bed.fault("DescribeRoutineCodeRevision:1:answer({\"RequestId\":\"R\",\"Content\":{\"ErCode\":\"b3RoZXI=\"}})");
    let other = text(&bed, &["diff", "hello"]).await;
    assert_eq!(other.code, Some(1));
    assert!(
        other.stderr.contains("not those that its mark speaks of"),
        "{}",
        other.stderr
    );
    assert!(other.stdout.contains("-other"), "{}", other.stdout);
    bed.fault(
        "DescribeRoutineCodeRevision:1:answer({\"RequestId\":\"R\",\"Content\":{\"ErCode\":\"\"}})",
    );
    let none = text(&bed, &["diff", "hello"]).await;
    assert!(none.stderr.contains("it has no code"), "{}", none.stderr);
    std::fs::remove_file(bed.entry("hello")).unwrap();
    assert_eq!(text(&bed, &["diff", "hello"]).await.code, Some(65));
}
