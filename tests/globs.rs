//! Routines by pattern: every file that fits is one, as long as it is there and nobody else has its name.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use crate::common::disk::{NEVER, off};
use crate::common::{Bed, Watch, code};
use er_dev::emulator::world::Settings;

/// A bed whose service knows these routines, with `edge/` for the files of all but the fixed ones.
async fn bed(remote: &[&str], routines: &str, more: &str) -> Bed {
    let mut bed = Bed::with(remote, Settings::default(), more).await;
    bed.routines = Vec::new();
    let endpoint = bed.emulator.endpoint();
    let text = format!("[service]\nendpoint = \"{endpoint}\"\n{more}\n{routines}");
    fs::write(bed.path("er-dev.toml"), text).unwrap();
    fs::create_dir(bed.path("edge")).unwrap();
    bed
}

const STEMS: &str = "[[routine]]\nname = \"{stem}\"\nentry = \"edge/*.js\"\n";

fn save(bed: &Bed, file: &str, text: &str) {
    fs::write(bed.path(file), text).unwrap();
}

async fn is_next(watch: &mut Watch, routine: &str, event: &str) {
    let next = watch.until(event).await;
    assert_eq!(next["routine"], routine, "{next}");
}

#[tokio::test]
async fn a_file_that_comes_is_a_routine_and_one_that_goes_is_none_and_nothing_remote_changes() {
    let bed = bed(&["a", "b"], STEMS, NEVER).await;
    save(&bed, "edge/a.js", &code("a", 0));
    let mut watch = bed.watch_from_start(&[]);
    is_next(&mut watch, "a", "uploaded").await;
    // What editors leave beside a file is nobody's, and neither is what does not fit.
    for name in ["4913", "b.js~", ".b.js.swp", "b.js___jb_tmp___", "b.txt"] {
        save(&bed, &format!("edge/{name}"), &code("b", 9));
    }
    save(&bed, "edge/b.js", &code("b", 0));
    is_next(&mut watch, "b", "came").await;
    is_next(&mut watch, "b", "uploaded").await;
    save(&bed, "edge/b.js", &code("b", 1));
    is_next(&mut watch, "b", "uploaded").await;
    fs::remove_file(bed.path("edge/b.js")).unwrap();
    let left = watch.until("left").await;
    assert_eq!(left["routine"], "b");
    assert_eq!(left["reason"], "`edge/b.js` is gone");
    let (_, status) = bed.status().await;
    assert_eq!(status["routines"].as_array().unwrap().len(), 1, "{status}");
    save(&bed, "edge/b.js", &code("b", 2));
    is_next(&mut watch, "b", "came").await;
    is_next(&mut watch, "b", "uploaded").await;
    let (exit, done) = watch.stop().await;
    assert_eq!(exit, Some(0));
    assert_eq!(done["uploaded"], 4, "{done}");
    bed.assert_uploads("b", &[0, 1, 2].map(|n| code("b", n)), "b");
    bed.assert_nothing_deleted();
}

#[tokio::test]
async fn a_routine_that_the_service_does_not_know_waits_and_is_made_only_where_that_is_asked_for() {
    let bed = bed(&["other"], STEMS, NEVER).await;
    let mut watch = bed.watch_from_start(&[]);
    watch.until("ready").await;
    save(&bed, "edge/a.js", &code("a", 0));
    is_next(&mut watch, "a", "came").await;
    let event = watch.until("retrying").await;
    assert_eq!(event["problem"]["class"], "missing", "{event}");
    watch.stop().await;
    assert_eq!(bed.asked("CreateRoutine"), 0);
    let text = fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    save(&bed, "er-dev.toml", &format!("{text}create = true\n"));
    let mut watch = bed.watch_from_start(&[]);
    is_next(&mut watch, "a", "uploaded").await;
    watch.stop().await;
    assert_eq!(bed.asked("CreateRoutine"), 1);
}

#[tokio::test]
async fn of_two_files_with_one_name_neither_goes_up_until_one_of_them_goes() {
    let routines = "[[routine]]\nname = \"fixed\"\nentry = \"src/fixed.js\"\n\
         [[routine]]\nname = \"{stem}\"\nentry = \"edge/**/*.{js,mjs}\"\n";
    let bed = bed(&["a", "fixed"], routines, NEVER).await;
    fs::create_dir(bed.path("edge/sub")).unwrap();
    save(&bed, "edge/a.js", &code("a", 0));
    save(&bed, "edge/sub/a.mjs", &code("a", 1));
    let mut watch = bed.watch_from_start(&[]);
    let event = watch.until("warning").await;
    let what = event["problem"]["what"].as_str().unwrap();
    assert!(what.contains("`edge/a.js` and `edge/sub/a.mjs`"), "{what}");
    is_next(&mut watch, "fixed", "uploaded").await;
    let one_shot = bed.run(&["push", "--timeout", "30s"]).await;
    assert!(
        one_shot.stderr.contains("edge/sub/a.mjs"),
        "{}",
        one_shot.stderr
    );
    assert_eq!(bed.uploads("a"), []);
    fs::remove_file(bed.path("edge/a.js")).unwrap();
    is_next(&mut watch, "a", "came").await;
    is_next(&mut watch, "a", "uploaded").await;
    bed.assert_uploads("a", &[code("a", 1)], "the one that is left");
    // Two that come at once never hold it.
    fs::remove_file(bed.path("edge/sub/a.mjs")).unwrap();
    is_next(&mut watch, "a", "left").await;
    save(&bed, "edge/sub/a.js", &code("a", 2));
    save(&bed, "edge/a.mjs", &code("a", 3));
    watch.until("warning").await;
    bed.sync().await;
    bed.assert_uploads("a", &[code("a", 1)], "at once");
    // The name of a routine that the configuration names is taken as well.
    save(&bed, "edge/fixed.js", &code("fixed", 7));
    watch.until("warning").await;
    is_next(&mut watch, "fixed", "left").await;
    save(&bed, "src/fixed.js", &code("fixed", 1));
    bed.sync().await;
    fs::remove_file(bed.path("edge/fixed.js")).unwrap();
    is_next(&mut watch, "fixed", "came").await;
    is_next(&mut watch, "fixed", "uploaded").await;
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
    bed.assert_uploads("fixed", &[0, 1].map(|n| code("fixed", n)), "fixed");
}

#[tokio::test]
async fn a_file_whose_name_is_that_of_no_routine_is_named_and_the_others_go_on() {
    let bed = bed(&["a"], STEMS, NEVER).await;
    save(&bed, "edge/a.b.js", &code("a", 0));
    let mut watch = bed.watch_from_start(&[]);
    let event = watch.until("warning").await;
    let what = event["problem"]["what"].as_str().unwrap();
    assert!(
        what.contains("`edge/a.b.js` cannot be a routine: `.`"),
        "{what}"
    );
    save(&bed, "edge/a.js", &code("a", 1));
    is_next(&mut watch, "a", "uploaded").await;
    watch.stop().await;
    let ended = bed.run(&["config", "check"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let object = ended.events().remove(0);
    assert_eq!(object["routines"], serde_json::json!(["a"]), "{object}");
    let refused = object["refused"][0]["what"].as_str().unwrap();
    assert!(refused.contains("edge/a.b.js"), "{object}");
}

#[tokio::test]
async fn a_file_that_another_watch_has_is_refused_alone_and_its_next_save_tries_again() {
    let bed = bed(&["a", "b"], STEMS, NEVER).await;
    save(&bed, "edge/a.js", &code("a", 0));
    let mut first = bed.watch_from_start(&["--routine", "a"]);
    is_next(&mut first, "a", "uploaded").await;
    save(&bed, "edge/b.js", &code("b", 0));
    let mut second = bed.watch_from_start(&[]);
    let event = second.until("warning").await;
    assert_eq!(event["routine"], "a", "{event}");
    assert_eq!(event["problem"]["class"], "locked", "{event}");
    is_next(&mut second, "b", "uploaded").await;
    first.stop().await;
    save(&bed, "edge/a.js", &code("a", 1));
    is_next(&mut second, "a", "came").await;
    is_next(&mut second, "a", "uploaded").await;
    // What left is free for another watch.
    fs::remove_file(bed.path("edge/b.js")).unwrap();
    is_next(&mut second, "b", "left").await;
    save(&bed, "elsewhere.js", &code("b", 5));
    let text = fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    let text = text.replace(
        STEMS,
        "[[routine]]\nname = \"b\"\nentry = \"elsewhere.js\"\n",
    );
    save(&bed, "third.toml", &text);
    let ended = bed
        .run(&["watch", "--once", "--config", "third.toml"])
        .await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    second.stop().await;
}

#[tokio::test]
async fn a_sync_covers_files_that_came_before_it() {
    let names: Vec<String> = (0..20).map(|n| format!("r{n}")).collect();
    let remote: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = bed(&remote, STEMS, NEVER).await;
    let mut watch = bed.watch_from_start(&[]);
    watch.until("ready").await;
    for (n, routine) in names.iter().enumerate() {
        save(&bed, &format!("edge/{routine}.js"), &code(routine, n));
        if n % 5 == 4 {
            bed.sync().await;
            for (n, routine) in names[..=n].iter().enumerate() {
                assert_eq!(
                    bed.newest(routine),
                    code(routine, n).into_bytes(),
                    "{routine}"
                );
            }
        }
    }
    watch.forget();
    watch.stop().await;
}

#[tokio::test]
async fn two_hundred_routines_come_go_and_change_at_once_and_the_ceiling_holds() {
    let names: Vec<String> = (0..200).map(|n| format!("r{n}")).collect();
    let remote: Vec<&str> = names.iter().map(String::as_str).collect();
    let routines = "[[routine]]\nname = \"r{stem}\"\nentry = \"edge/**/*.js\"\n";
    let bed = bed(&remote, routines, NEVER).await;
    for n in 0..100 {
        save(&bed, &format!("edge/{n}.js"), &code("r", n));
    }
    let mut watch = bed.watch_from_start(&[]);
    watch.until("ready").await;
    bed.sync().await;
    // A third of those that are there is edited, another one goes, and as many as there were come, some in a directory
    // that is made with them and some that is moved in.
    let root = bed.path("edge");
    let aside = bed.path("aside");
    off(move || {
        fs::create_dir_all(&aside).unwrap();
        for n in 100..200 {
            let file = match n % 3 {
                0 => root.join(format!("{n}.js")),
                1 => root.join(format!("new/{}/{n}.js", n % 10)),
                _ => aside.join(format!("{n}.js")),
            };
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, code("r", n)).unwrap();
            let old = root.join(format!("{}.js", n - 100));
            match n % 3 {
                0 => fs::write(old, code("r", n)).unwrap(),
                1 => fs::remove_file(old).unwrap(),
                _ => {}
            }
        }
        fs::rename(aside, root.join("moved")).unwrap();
    })
    .await;
    bed.sync().await;
    let (_, status) = bed.status().await;
    let gone = (100..200).filter(|n| n % 3 == 1).count();
    let there = status["routines"].as_array().unwrap().len();
    assert_eq!(there, 200 - gone, "{status}");
    watch.forget();
    let (exit, done) = watch.stop().await;
    assert_eq!(exit, Some(0));
    let edited = (100..200).filter(|n| n % 3 == 0).count();
    assert_eq!(done["uploaded"], 200 + edited, "{done}");
    for n in 100..200 {
        assert_eq!(bed.newest(&format!("r{n}")), code("r", n).into_bytes());
        let old = format!("r{}", n - 100);
        let text = if n % 3 == 0 { n } else { n - 100 };
        assert_eq!(bed.newest(&old), code("r", text).into_bytes(), "{old}");
    }
    bed.assert_nothing_deleted();
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_no_routine_yet() {
    let bed = bed(&["a", "b"], STEMS, NEVER).await;
    let mut watch = bed.watch_from_start(&[]);
    watch.until("ready").await;
    let whole = code("a", 0);
    let (head, tail) = whole.split_at(whole.len() / 2);
    let mut file = fs::File::create(bed.path("edge/a.js")).unwrap();
    file.write_all(head.as_bytes()).unwrap();
    // Longer than the quiet time, and shorter than the longest wait.
    tokio::time::sleep(Duration::from_millis(600)).await;
    file.write_all(tail.as_bytes()).unwrap();
    drop(file);
    is_next(&mut watch, "a", "came").await;
    is_next(&mut watch, "a", "uploaded").await;
    watch.stop().await;
    bed.assert_uploads("a", &[whole], "one save");
}

#[tokio::test]
async fn what_makes_a_file_a_routine_or_would_is_explained() {
    let routines = "[[routine]]\nname = \"{stem}\"\nentry = \"edge/**/*.js\"\n";
    let bed = bed(&["a"], routines, NEVER).await;
    fs::create_dir(bed.path("edge/sub")).unwrap();
    for file in ["edge/a.js", "edge/b.js", "edge/sub/b.js", "edge/c.gen.js"] {
        save(&bed, file, &code("a", 0));
    }
    // Otherwise it lies in the repository that the tests are built in.
    fs::create_dir(bed.path(".git")).unwrap();
    save(&bed, ".gitignore", "*.gen.js\n");
    let paths = [
        "edge/a.js",
        "edge/b.js",
        "edge/c.gen.js",
        "edge/new.js",
        "edge/d.txt",
    ];
    let ended = bed.run(&[&["explain"], &paths[..]].concat()).await;
    let objects = ended.events();
    let said = |index: usize| {
        let reason = objects[index]["reason"].as_str().unwrap().to_owned();
        (
            objects[index]["verdict"].as_str().unwrap().to_owned(),
            reason,
        )
    };
    let (verdict, reason) = said(0);
    assert_eq!(verdict, "entry");
    assert!(
        reason.starts_with("of a, by `edge/**/*.js` (er-dev.toml:"),
        "{reason}"
    );
    let (_, reason) = said(1);
    assert!(
        reason.contains("`edge/b.js` and `edge/sub/b.js`"),
        "{reason}"
    );
    let (verdict, reason) = said(2);
    assert_eq!(
        (verdict.as_str(), reason.as_str()),
        ("ignored", "by `*.gen.js` in .gitignore:1")
    );
    let (_, reason) = said(3);
    assert!(reason.ends_with("and would be the routine new"), "{reason}");
    assert!(objects[4]["fits"].as_array().unwrap().is_empty());
}
