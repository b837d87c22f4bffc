//! Changes other than an editor's save: links, mapped files, times that were set back, directories that are moved or
//! swapped. One upload for a change of the bytes, none for anything else.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::disk::{FENCE, Mapper, NEVER, OFTEN, Open, off, run};
use crate::common::{Bed, code, long};

/// The entry gets a second name outside of the watched directory, and whoever writes there causes no event here.
fn link_elsewhere(bed: &Bed, routine: &str) -> std::path::PathBuf {
    let link = bed.path(&format!("{routine}.link"));
    fs::hard_link(bed.entry(routine), &link).unwrap();
    link
}

/// Gives a file the times of modification and access that another one has.
fn copy_times(from: &Path, to: &Path) {
    let metadata = fs::metadata(from).unwrap();
    let times = fs::FileTimes::new()
        .set_modified(metadata.modified().unwrap())
        .set_accessed(metadata.accessed().unwrap());
    let file = fs::File::options().write(true).open(to).unwrap();
    file.set_times(times).unwrap();
}

#[tokio::test]
async fn a05_a_hard_link_put_over_the_entry_is_one_upload() {
    let bed = Bed::fenced(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    for save in 1..=5 {
        let new = bed.path("new.js");
        fs::write(&new, code("hello", save)).unwrap();
        run("ln", &["-f", "new.js", "src/hello.js"], &bed.path("")).await;
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "uploaded", "{event}");
        fs::remove_file(new).unwrap();
    }
    watch.stop().await;
    let all: Vec<_> = (0..=5).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "links");
}

#[tokio::test]
async fn a05_a_link_made_at_the_name_of_the_entry_is_taken_at_once_and_refused_if_it_is_no_code() {
    let bed = Bed::fenced(NEVER).await;
    let log = bed.path("log");
    let mut watch = bed.watch_logged(&[], &log).await;
    let relink = |text: &str| {
        let (new, entry) = (bed.path("new.js"), bed.entry("hello"));
        fs::write(&new, text).unwrap();
        fs::remove_file(&entry).unwrap();
        fs::hard_link(&new, &entry).unwrap();
        fs::remove_file(new).unwrap();
    };
    let saves = if long() { 20 } else { 5 };
    for save in 1..=saves {
        relink(&code("hello", save));
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "uploaded", "{event}");
        relink("let a = ;");
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "error", "{event}");
    }
    watch.stop().await;
    let logged = fs::read_to_string(&log).unwrap();
    assert!(!logged.contains("open for writing"), "{logged}");
    let all: Vec<_> = (0..=saves).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "links");
}

#[tokio::test]
async fn a05_what_is_written_through_another_name_of_the_file_is_found_by_looking() {
    let bed = Bed::fenced(OFTEN).await;
    let link = link_elsewhere(&bed, "hello");
    let mut watch = bed.watch(&[]).await;
    for save in 1..=3 {
        fs::write(&link, code("hello", save)).unwrap();
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "uploaded", "{event}");
    }
    watch.stop().await;
    let all: Vec<_> = (0..=3).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "another name");
}

#[tokio::test]
async fn a05_a_directory_moved_in_brings_its_entry_along() {
    let bed = Bed::laid_out(&[("hello", "src/dist/js/hello.js", "")], NEVER).await;
    let make = |save: usize| {
        let tree = bed.path(&format!("tree{save}/js"));
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("hello.js"), code("hello", save)).unwrap();
        tree.parent().unwrap().to_owned()
    };
    fs::rename(make(0), bed.path("src/dist")).unwrap();
    let mut watch = bed.watch(&[]).await;
    for save in 1..=3 {
        let new = make(save);
        fs::rename(bed.path("src/dist"), bed.path(&format!("old{save}"))).unwrap();
        fs::rename(new, bed.path("src/dist")).unwrap();
        bed.until_newest_is("hello", &code("hello", save)).await;
        // What happens in the tree that was moved away is no concern of the entry's.
        let old = bed.path(&format!("old{save}/js/hello.js"));
        fs::write(old, code("hello", 100 + save)).unwrap();
    }
    // The last save is in the same tree, and only then is all of that over.
    fs::write(bed.path("src/dist/js/hello.js"), code("hello", 4)).unwrap();
    bed.until_newest_is("hello", &code("hello", 4)).await;
    watch.forget();
    watch.stop().await;
    let all: Vec<_> = (0..=4).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "moved in");
    bed.assert_nothing_deleted();
}

#[tokio::test]
async fn a09_a_store_into_a_mapped_file_is_found_while_it_is_open_and_another_one_at_its_close() {
    let bed = Bed::fenced("").await;
    let mut watch = bed.watch(&[]).await;
    let Some(mut mapper) = Mapper::start(&bed.entry("hello"), Open::Kept).await else {
        return;
    };
    let stored = Instant::now();
    mapper.store(&code("hello", 1)).await;
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "uploaded", "{event}");
    assert!(stored.elapsed() <= Duration::from_secs(6));
    mapper.store(&code("hello", 2)).await;
    mapper.end().await;
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "uploaded", "{event}");
    watch.stop().await;
    let all = [0, 1, 2].map(|save| code("hello", save));
    bed.assert_uploads("hello", &all, "mapped");
}

#[tokio::test]
async fn a09_a_second_store_into_a_file_that_stays_mapped_is_found_though_it_looks_the_same() {
    let bed = Bed::fenced(OFTEN).await;
    let mut watch = bed.watch(&[]).await;
    let Some(mut mapper) = Mapper::start(&bed.entry("hello"), Open::Kept).await else {
        return;
    };
    let saves = [1, 2, 3];
    for save in saves {
        mapper.store(&code("hello", save)).await;
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "uploaded", "{event}");
    }
    mapper.store(&code("hello", 4)).await;
    bed.sync().await;
    assert_eq!(bed.newest("hello"), code("hello", 4).as_bytes());
    mapper.end().await;
    watch.stop().await;
    let all: Vec<_> = (0..=4).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "mapped");
}

#[tokio::test]
async fn a10_new_bytes_of_the_same_size_and_time_are_seen() {
    for quiet in [false, true] {
        let bed = Bed::fenced(if quiet { OFTEN } else { NEVER }).await;
        let link = link_elsewhere(&bed, "hello");
        let mut watch = bed.watch(&[]).await;
        let before = bed.path("before");
        run("cp", &["-p", "src/hello.js", "before"], &bed.path("")).await;
        // `cp -p` from a file with the old time, into the entry itself and through a name that has no events.
        for save in 1..=3 {
            let new = bed.path("new");
            fs::write(&new, code("hello", save)).unwrap();
            copy_times(&before, &new);
            let to = if quiet { &link } else { &bed.entry("hello") };
            run("cp", &["-p", "new", to.to_str().unwrap()], &bed.path("")).await;
            let event = watch.end_of_edit_of("hello").await;
            assert_eq!(event["event"], "uploaded", "{event}");
            let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
            assert_eq!(time(&bed.entry("hello")), time(&before));
        }
        watch.stop().await;
        let all: Vec<_> = (0..=3).map(|save| code("hello", save)).collect();
        bed.assert_uploads("hello", &all, "same size and time");
    }
}

#[tokio::test]
async fn a11_an_edit_in_the_same_tick_of_the_clock_as_the_look_before_it_is_not_missed() {
    let (entries, rounds) = if long() { (20, 50) } else { (20, 2) };
    let names: Vec<String> = (0..entries).map(|n| format!("r{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let more = "[watch]\nrescan = \"1s\"\ndebounce = \"10ms\"\n";
    let bed = Bed::with(&names, Default::default(), more).await;
    let links: Vec<_> = names
        .iter()
        .map(|name| link_elsewhere(&bed, name))
        .collect();
    let watch = bed.watch(&[]).await;
    for round in 0..rounds {
        let (first, second) = (1_000 + 2 * round, 1_001 + 2 * round);
        let mut pairs = Vec::new();
        for (name, link) in names.iter().zip(&links) {
            let pair = (code(name, first), code(name, second));
            pairs.push((bed.entry(name), link.clone(), pair));
        }
        off(move || {
            for (turn, (entry, link, (first, second))) in pairs.into_iter().enumerate() {
                fs::write(entry, first).unwrap();
                // It is read about 10 ms later; the next one has no event, the same size, and maybe the same time.
                let pause = 9_000 + 300 * u64::try_from(turn).unwrap();
                std::thread::sleep(Duration::from_micros(pause));
                fs::write(link, second).unwrap();
            }
        })
        .await;
        for name in &names {
            bed.until_newest_is(name, &code(name, second)).await;
        }
    }
    watch.stop().await;
    bed.assert_at_rest();
}

#[tokio::test]
async fn a12_new_times_and_permissions_alone_make_no_request() {
    let bed = Bed::fenced(OFTEN).await;
    let mut watch = bed.watch(&[]).await;
    let before = bed.requests("hello");
    let entry = bed.entry("hello");
    for mode in [0o600, 0o755, 0o644] {
        fs::set_permissions(&entry, fs::Permissions::from_mode(mode)).unwrap();
        bed.fence(&mut watch).await;
        assert_eq!(watch.count("unchanged", "hello"), 0, "{mode:o} is no save");
    }
    run("touch", &["src/hello.js"], &bed.path("")).await;
    bed.fence(&mut watch).await;
    run(
        "touch",
        &["-d", "2001-01-01", "src/hello.js"],
        &bed.path(""),
    )
    .await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    assert_eq!(bed.requests("hello"), before);
}

#[tokio::test]
async fn a12_a_save_that_changes_nothing_asks_again_once_another_er_dev_was_at_work() {
    let bed = Bed::fenced(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    let before = bed.requests("hello");
    bed.write("hello", &code("hello", 0));
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "unchanged");
    assert_eq!(bed.requests("hello"), before);
    let pushed = bed.run(&["push", "--force", "hello"]).await;
    assert_eq!(pushed.code, Some(0), "{}", pushed.stderr);
    let before = bed.requests("hello");
    bed.write("hello", &code("hello", 0));
    let event = watch.end_of_edit_of("hello").await;
    assert!(bed.requests("hello") > before, "{event}");
    // And that is believed from then on.
    let before = bed.requests("hello");
    bed.write("hello", &code("hello", 0));
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "unchanged");
    assert_eq!(bed.requests("hello"), before);
    watch.stop().await;
}

#[tokio::test]
async fn a37_what_is_stored_without_an_event_lets_its_root_be_polled_and_that_is_told_once() {
    // So rare a look that the later stores cannot all have been found by it.
    let bed = Bed::fenced("[watch]\nrescan = \"20s\"\n").await;
    let mut watch = bed.watch(&[]).await;
    let Some(mut mapper) = Mapper::start(&bed.entry("hello"), Open::No).await else {
        return;
    };
    mapper.store(&code("hello", 1)).await;
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "uploaded", "{event}");
    let told: Vec<_> = watch.seen().filter(|it| it["event"] == "warning").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["routine"], &told[0]["problem"]["class"]),
        (&"hello".into(), &"watch".into())
    );
    let (exit, status) = bed.status().await;
    assert_eq!(exit, Some(0), "nothing is wrong: {status}");
    for one in status["routines"].as_array().unwrap() {
        assert_eq!(
            one["backend"], "inotify and poll",
            "of the same root: {status}"
        );
        assert_eq!(one["backend_why"], "a change came without a file event");
    }
    let ended = bed.run(&["explain", "src/hello.js"]).await;
    assert_eq!(
        ended.events()[0]["backend"],
        "inotify and poll",
        "{}",
        ended.stdout
    );
    mapper.end().await;
    watch.stop().await;
    let all = [0, 1].map(|save| code("hello", save));
    bed.assert_uploads("hello", &all, "mapped");
    // Without a watch it is what one would do that starts now.
    let ended = bed.run(&["explain", "src/hello.js"]).await;
    assert_ne!(
        ended.events()[0]["backend_why"],
        "a change came without a file event"
    );
}

#[tokio::test]
async fn a13_there_and_back_again_within_the_quiet_time_makes_no_request() {
    // Longer than usual, so that a slow machine does not make two edits of it.
    let bed = Bed::fenced("[watch]\ndebounce = \"500ms\"\n").await;
    let mut watch = bed.watch(&[]).await;
    let before = bed.requests("hello");
    for save in 1..=20 {
        bed.write("hello", &code("hello", save));
        bed.write("hello", &code("hello", 0));
        let new = bed.path("src/new");
        fs::write(&new, code("hello", save)).unwrap();
        fs::rename(&new, bed.entry("hello")).unwrap();
        bed.write("hello", &code("hello", 0));
    }
    bed.fence(&mut watch).await;
    let (_, done) = watch.stop().await;
    assert_eq!(done["unchanged"], 1, "{done}");
    assert_eq!(bed.requests("hello"), before);
}

#[tokio::test]
async fn a22_an_entry_that_is_a_link_within_its_root_is_followed_where_it_leads() {
    let bed = Bed::fenced(NEVER).await;
    fs::create_dir_all(bed.path("src/lib/deep")).unwrap();
    let real = bed.path("src/lib/deep/real.js");
    fs::write(&real, code("hello", 0)).unwrap();
    fs::remove_file(bed.entry("hello")).unwrap();
    symlink("lib/deep/real.js", bed.entry("hello")).unwrap();
    let mut watch = bed.watch(&[]).await;
    let mut uploaded = async |what: &str| {
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "uploaded", "{what}: {event}");
    };
    fs::write(&real, code("hello", 1)).unwrap();
    uploaded("a write where it leads").await;
    let new = bed.path("src/lib/deep/new.js");
    fs::write(&new, code("hello", 2)).unwrap();
    fs::rename(&new, &real).unwrap();
    uploaded("a rename where it leads").await;
    bed.write("hello", &code("hello", 3));
    uploaded("a write through the link").await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    let all: Vec<_> = (0..=3).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "a link");
}

#[tokio::test]
async fn a22_a_release_swapped_in_by_its_link_is_one_upload_and_is_watched_from_then_on() {
    let more = NEVER;
    let routines = [
        ("hello", "current/hello.js", ""),
        (FENCE, "src/fence.js", ""),
    ];
    let bed = Bed::laid_out(&routines, more).await;
    bed.write(FENCE, &code(FENCE, 0));
    let release = |number: usize, save: usize| {
        let dir = bed.path(&format!("releases/{number}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hello.js"), code("hello", save)).unwrap();
    };
    let switch = |number: usize| {
        symlink(format!("releases/{number}"), bed.path("next")).unwrap();
        fs::rename(bed.path("next"), bed.path("current")).unwrap();
    };
    release(0, 0);
    switch(0);
    let mut watch = bed.watch(&[]).await;
    for number in 1..=3 {
        release(number, 2 * number - 1);
        switch(number);
        bed.until_newest_is("hello", &code("hello", 2 * number - 1))
            .await;
        release(number, 2 * number);
        bed.until_newest_is("hello", &code("hello", 2 * number))
            .await;
        // An old release is not looked at any more.
        release(number - 1, 100 + number);
        bed.fence(&mut watch).await;
    }
    // The same bytes under another number.
    release(4, 6);
    switch(4);
    bed.fence(&mut watch).await;
    watch.stop().await;
    let all: Vec<_> = (0..=6).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "releases");
    bed.assert_nothing_deleted();
}

/// A bed whose `hello` may lie behind links out of its root, and a directory outside for what it leads to.
async fn following(more: &str) -> Bed {
    let routines = [
        ("hello", "src/hello.js", "follow = true"),
        (FENCE, "src/fence.js", ""),
    ];
    let bed = Bed::laid_out(&routines, more).await;
    bed.write(FENCE, &code(FENCE, 0));
    for dir in ["dist", "releases/0"] {
        fs::create_dir_all(bed.path(dir)).unwrap();
    }
    bed
}

/// Puts a link in its place in one step.
fn swap(bed: &Bed, to: &str, at: &str) {
    symlink(to, bed.path("next")).unwrap();
    fs::rename(bed.path("next"), bed.path(at)).unwrap();
}

#[tokio::test]
async fn a22_an_entry_that_leads_out_of_its_root_is_followed_where_that_is_asked_for() {
    let bed = following(NEVER).await;
    let (one, two) = (bed.path("dist/one.js"), bed.path("dist/two.js"));
    fs::write(&one, code("hello", 0)).unwrap();
    symlink("../dist/one.js", bed.entry("hello")).unwrap();
    let mut watch = bed.watch(&[]).await;
    let mut ends = async |end: &str, what: &str| {
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], end, "{what}: {event}");
    };
    fs::write(&one, code("hello", 1)).unwrap();
    ends("uploaded", "a write outside").await;
    let new = bed.path("new.js");
    fs::write(&new, code("hello", 2)).unwrap();
    fs::rename(&new, &one).unwrap();
    ends("uploaded", "a rename outside").await;
    fs::write(&two, code("hello", 3)).unwrap();
    swap(&bed, "../dist/two.js", "src/hello.js");
    ends("uploaded", "a swap").await;
    fs::write(&two, code("hello", 4)).unwrap();
    ends("uploaded", "a write after a swap").await;
    // The file before is nobody's any more.
    fs::write(&one, code("hello", 100)).unwrap();
    fs::remove_file(&two).unwrap();
    ends("error", "what it leads to is gone").await;
    fs::write(&two, code("hello", 5)).unwrap();
    ends("uploaded", "what it leads to is back").await;
    fs::rename(bed.path("dist"), bed.path("away")).unwrap();
    ends("error", "the directory of what it leads to is gone").await;
    fs::write(bed.path("away/two.js"), code("hello", 101)).unwrap();
    fs::create_dir(bed.path("dist")).unwrap();
    fs::write(&two, code("hello", 6)).unwrap();
    ends("uploaded", "the directory of what it leads to is back").await;
    fs::remove_file(bed.entry("hello")).unwrap();
    bed.write("hello", &code("hello", 7));
    bed.until_newest_is("hello", &code("hello", 7)).await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    let all: Vec<_> = (0..=7).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "followed");
    bed.assert_nothing_deleted();
}

#[tokio::test]
async fn a23_every_link_on_the_way_out_of_a_root_that_is_followed_may_be_swapped() {
    let bed = following(NEVER).await;
    let release = |number: usize, save: usize| {
        let dir = bed.path(&format!("releases/{number}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hello.js"), code("hello", save)).unwrap();
    };
    release(0, 0);
    swap(&bed, "releases/0", "current");
    symlink("../current/hello.js", bed.path("dist/hop.js")).unwrap();
    symlink("../dist/hop.js", bed.entry("hello")).unwrap();
    let mut watch = bed.watch(&[]).await;
    for number in 1..=3 {
        release(number, 2 * number - 1);
        swap(&bed, &format!("releases/{number}"), "current");
        bed.until_newest_is("hello", &code("hello", 2 * number - 1))
            .await;
        release(number, 2 * number);
        bed.until_newest_is("hello", &code("hello", 2 * number))
            .await;
        release(number - 1, 100 + number);
        bed.fence(&mut watch).await;
    }
    // The link in the middle.
    fs::write(bed.path("dist/out.js"), code("hello", 7)).unwrap();
    swap(&bed, "out.js", "dist/hop.js");
    bed.until_newest_is("hello", &code("hello", 7)).await;
    fs::write(bed.path("dist/out.js"), code("hello", 8)).unwrap();
    bed.until_newest_is("hello", &code("hello", 8)).await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    let all: Vec<_> = (0..=8).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "links on the way");
}

#[tokio::test]
async fn a26_a_hard_link_goes_up_with_one_warning_a_file_that_names_it() {
    let bed = Bed::fenced(NEVER).await;
    fs::write(bed.path("secret"), code("hello", 1)).unwrap();
    let log = bed.path("log");
    let mut watch = bed.watch_logged(&[], &log).await;
    run("ln", &["-f", "secret", "src/hello.js"], &bed.path("")).await;
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    for save in 2..=4 {
        bed.write("hello", &code("hello", save));
        assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    }
    bed.fence(&mut watch).await;
    watch.stop().await;
    let logged = fs::read_to_string(&log).unwrap();
    let warned = logged
        .lines()
        .filter(|line| line.contains("has other names"));
    let warned: Vec<&str> = warned.collect();
    assert_eq!(warned.len(), 1, "{logged}");
    assert!(warned[0].contains("src/hello.js"), "{warned:?}");
    let all: Vec<_> = (0..=4).map(|save| code("hello", save)).collect();
    bed.assert_uploads("hello", &all, "a hard link");
}

#[tokio::test]
async fn a39_what_er_dev_itself_writes_beside_the_entries_triggers_nothing() {
    let bed = Bed::fenced(OFTEN).await;
    let state = bed.path("src/state");
    let log = bed.path("src/er-dev.log");
    let arguments = ["--state-dir", state.to_str().unwrap(), "--log", "trace"];
    let mut watch = bed.watch_logged(&arguments, &log).await;
    for _ in 0..5 {
        bed.fence(&mut watch).await;
    }
    let (exit, done) = watch.stop().await;
    assert_eq!(exit, Some(0));
    assert_eq!(
        (&done["saves"], &done["edits"]),
        (&5.into(), &7.into()),
        "the two first edits and the five of the fence"
    );
    let logged = fs::metadata(&log).unwrap().len();
    assert!(logged < 1 << 20, "{logged} bytes were logged");
}

#[tokio::test]
async fn a41_names_that_only_look_alike_are_different_files() {
    // The second pair is one letter composed and decomposed.
    let names = ["Case.js", "case.js", "caf\u{e9}.js", "cafe\u{301}.js"];
    let entries: Vec<String> = names.iter().map(|name| format!("src/{name}")).collect();
    let routines: Vec<(String, &String)> = entries
        .iter()
        .enumerate()
        .map(|(n, entry)| (format!("r{n}"), entry))
        .collect();
    let routines: Vec<_> = routines
        .iter()
        .map(|(name, entry)| (name.as_str(), entry.as_str(), ""))
        .collect();
    let bed = Bed::laid_out(&routines, NEVER).await;
    for (name, entry, _) in &routines {
        fs::write(bed.path(entry), code(name, 0)).unwrap();
    }
    let mut watch = bed.watch(&[]).await;
    for (name, entry, _) in &routines {
        fs::write(bed.path(entry), code(name, 1)).unwrap();
        let event = watch.end_of_edit().await;
        assert_eq!(event["routine"], *name, "{event}");
    }
    fs::rename(bed.path("src/case.js"), bed.path("src/Case.js")).unwrap();
    bed.until_newest_is("r0", &code("r1", 1)).await;
    watch.stop().await;
    for (name, ..) in &routines[1..] {
        bed.assert_uploads(name, &[code(name, 0), code(name, 1)], name);
    }
}

#[tokio::test]
async fn a42_the_temporary_files_of_editors_and_tools_trigger_nothing() {
    let bed = Bed::fenced(OFTEN).await;
    let mut watch = bed.watch(&[]).await;
    let before = bed.requests("hello");
    let names = [
        "4913",
        ".hello.js.swp",
        ".hello.js.swx",
        "hello.js~",
        "#hello.js#",
        "hello.js___jb_tmp___",
        "hello.js___jb_old___",
        ".goutputstream-2KX8H2",
        "hello.js.tmp.1234.5678",
        "hello.js.1a2b3c",
        "sedHbMnYj",
        ".hello.js.kate-swp",
        "hello.js.map",
        "hello.tmp.js",
    ];
    let rounds = if long() { 50 } else { 3 };
    for round in 1..=rounds {
        for name in names {
            let path = bed.path("src").join(name);
            fs::write(&path, code("hello", round)).unwrap();
            let other = bed.path("src").join(format!("{name}.other"));
            fs::rename(&path, &other).unwrap();
            fs::remove_file(other).unwrap();
        }
        // The lock of emacs is a link that leads nowhere.
        let lock = bed.path("src/.#hello.js");
        symlink("user@host.1234:5678", &lock).unwrap();
        fs::remove_file(lock).unwrap();
        bed.fence(&mut watch).await;
    }
    let (_, done) = watch.stop().await;
    assert_eq!(done["edits"], 2 + rounds);
    assert_eq!(bed.requests("hello"), before);
}
