//! Writers that take their time: what goes up is what they saved, whole, and once a save.
//!
//! The check of the syntax is off here, since it would refuse most torn files and hide that they were read. The pauses
//! of the writers are what is tested.

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::disk::{FENCE, OFTEN, off, write_slowly};
use crate::common::{Bed, code, each, long};

/// A file of some size that ends in the number of its save.
fn big(save: usize) -> String {
    format!("// {}\n{}", "x".repeat(200_000), code("hello", save))
}

async fn unchecked(more: &str) -> Bed {
    let routines = [
        ("hello", "src/hello.js", "check = false"),
        (FENCE, "src/fence.js", ""),
    ];
    let bed = Bed::laid_out(&routines, more).await;
    bed.write("hello", &big(0));
    bed.write(FENCE, &code(FENCE, 0));
    bed
}

/// Saves in four pieces, each time after the upload of the save before, and nothing but these saves may go up.
async fn saves_in_pieces(saves: usize, pause: Duration, quiet: &str) {
    let bed = unchecked(&format!("[watch]\ndebounce = \"{quiet}\"\n")).await;
    let mut watch = bed.watch(&[]).await;
    for save in 1..=saves {
        let (path, text) = (bed.entry("hello"), big(save));
        off(move || write_slowly(&path, &text, 4, pause)).await;
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "uploaded", "{pause:?}: {event}");
        assert_eq!(event["saves"], 1, "{pause:?}: {event}");
    }
    bed.fence(&mut watch).await;
    watch.stop().await;
    let all: Vec<_> = (0..=saves).map(big).collect();
    bed.assert_uploads("hello", &all, &format!("pauses of {pause:?}"));
}

#[tokio::test]
async fn a06_a_fast_writer_is_one_upload_of_the_whole_however_short_the_quiet_time() {
    let saves = if long() { 150 } else { 10 };
    let pause = Duration::from_micros(300);
    each(["10ms", "100ms", "10ms", "100ms"], move |quiet| {
        saves_in_pieces(saves, pause, quiet)
    })
    .await;
}

#[tokio::test]
async fn a07_a_slow_writer_is_waited_for_until_it_closes_the_file() {
    let (saves, beds) = if long() { (50, 8) } else { (2, 4) };
    // 80 ms are less than the quiet time and 400 ms are more.
    let speeds = (0..beds).map(|bed| if bed % 2 == 0 { 80 } else { 400 });
    each(speeds, move |pause| {
        saves_in_pieces(saves, Duration::from_millis(pause), "100ms")
    })
    .await;
}

#[tokio::test]
async fn a07_a_writer_slower_than_the_longest_wait_is_waited_for() {
    // Each pause is longer than `max_wait`, and shorter than the second of rest that an open file has to have.
    let bed = unchecked("[watch]\nmax_wait = \"200ms\"\n").await;
    let mut watch = bed.watch(&[]).await;
    let (path, text) = (bed.entry("hello"), big(1));
    off(move || write_slowly(&path, &text, 4, Duration::from_millis(500))).await;
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "uploaded", "{event}");
    watch.stop().await;
    bed.assert_uploads("hello", &[big(0), big(1)], "a slow writer");
}

#[tokio::test]
async fn a06_saves_one_after_the_other_without_a_pause_go_up_whole_and_the_last_one_does() {
    let bed = unchecked("[watch]\ndebounce = \"10ms\"\nmax_wait = \"100ms\"\n").await;
    let mut watch = bed.watch(&[]).await;
    let saves = if long() { 2_000 } else { 300 };
    let path = bed.entry("hello");
    off(move || {
        for save in 1..=saves {
            write_slowly(&path, &big(save), 4, Duration::from_micros(300));
        }
    })
    .await;
    bed.until_newest_is("hello", &big(saves)).await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    let known: Vec<_> = (0..=saves)
        .map(|save| er_dev::routine::Digest::of(big(save).as_bytes()))
        .collect();
    let torn = bed.uploads("hello");
    let torn = torn.iter().filter(|digest| !known.contains(digest));
    assert_eq!(torn.count(), 0, "torn");
}

#[tokio::test]
async fn a08_a_whole_file_that_stays_open_goes_up_after_the_longest_wait_and_that_is_said() {
    let bed = Bed::fenced("").await;
    let mut watch = bed.watch(&[]).await;
    let begun = Instant::now();
    let mut file = File::create(bed.entry("hello")).unwrap();
    file.write_all(code("hello", 1).as_bytes()).unwrap();
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "uploaded", "{event}");
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    assert!(waited <= Duration::from_secs(6), "{waited:?}");
    let said: Vec<_> = watch
        .seen()
        .filter(|event| event["event"] == "warning")
        .map(|event| event["problem"]["what"].as_str().unwrap().to_owned())
        .collect();
    let [said] = &said[..] else {
        panic!("it was said {} times: {said:?}", said.len());
    };
    assert!(
        said.ends_with("hello.js` is taken although a program still has it open for writing"),
        "{said}"
    );
    let stands = async || {
        let (exit, status) = bed.status().await;
        let routines = status["routines"].as_array().unwrap();
        let hello = routines.iter().find(|one| one["routine"] == "hello");
        let hello = hello.unwrap();
        assert_eq!((exit, &hello["state"]), (Some(0), &"ok".into()), "{status}");
        hello["reason"]["what"].as_str().map(str::to_owned)
    };
    assert_eq!(stands().await.as_ref(), Some(said));
    // Its end changes nothing, but that it is whole is known then.
    drop(file);
    assert_eq!(
        watch.end_of_edit_of("hello").await["event"],
        "unchanged",
        "the close"
    );
    assert_eq!(stands().await, None);
    watch.stop().await;
    let all = [0, 1].map(|save| code("hello", save));
    bed.assert_uploads("hello", &all, "left open");
}

#[tokio::test]
async fn a08_a_file_that_stays_open_and_does_not_parse_is_waited_for() {
    let bed = Bed::fenced("[watch]\nmax_wait = \"300ms\"\n").await;
    let mut watch = bed.watch(&[]).await;
    let text = code("hello", 1);
    let (begin, rest) = text.split_at(text.len() / 2);
    let mut file = File::create(bed.entry("hello")).unwrap();
    file.write_all(begin.as_bytes()).unwrap();
    // More than the longest wait and the second of rest together, and then some.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    file.write_all(rest.as_bytes()).unwrap();
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "uploaded", "{event}");
    // Half of another save, which its writer gives up, is refused in the end.
    file.write_all(begin.as_bytes()).unwrap();
    drop(file);
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "error", "{event}");
    watch.stop().await;
    bed.assert_uploads("hello", &[code("hello", 0), text], "left open");
}

#[tokio::test]
async fn a08_where_it_is_polled_a_file_that_never_rests_is_told_and_taken_once_it_does() {
    let poll = "[watch]\nmax_wait = \"300ms\"\nbackend = \"poll\"\npoll_interval = \"100ms\"\n";
    let bed = Bed::fenced(poll).await;
    let mut watch = bed.watch(&[]).await;
    let path = bed.entry("hello");
    let rests = Arc::new(AtomicBool::new(false));
    let goes_on = Arc::clone(&rests);
    // What there is parses at any time, so that nothing but its rest can tell that it is whole.
    let writer = std::thread::spawn(move || {
        let mut file = File::options().append(true).open(path).unwrap();
        while !goes_on.load(Ordering::SeqCst) {
            file.write_all(b"// more\n").unwrap();
            std::thread::sleep(Duration::from_millis(250));
        }
        file
    });
    let event = watch.until("waiting").await;
    assert_eq!(event["routine"], "hello", "{event}");
    let what = event["problem"]["what"].as_str().unwrap();
    assert!(what.ends_with("hello.js` changes all the time"), "{what}");
    let (_, status) = bed.status().await;
    let routines = status["routines"].as_array().unwrap();
    let hello = routines.iter().find(|one| one["routine"] == "hello");
    let hello = hello.unwrap();
    assert_eq!(hello["state"], "pending", "{status}");
    assert_eq!(hello["reason"]["what"], what);
    assert_eq!(hello["backend"], "poll");
    rests.store(true, Ordering::SeqCst);
    let file = writer.join().unwrap();
    let begun = Instant::now();
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "uploaded", "{event}");
    assert!(begun.elapsed() <= Duration::from_secs(5), "{begun:?}");
    drop(file);
    let last = fs::read(bed.entry("hello")).unwrap();
    watch.stop().await;
    bed.assert_uploads("hello", &[code("hello", 0).into_bytes(), last], "polled");
}

/// Writes halves with a pause that is longer than any quiet time, and hands over what is to be done before the first one.
async fn halves(bed: &Bed, at: &str, before: impl FnOnce() + Send + 'static) {
    let (path, text) = (bed.path(at), big(1));
    off(move || {
        before();
        write_slowly(&path, &text, 2, Duration::from_millis(1_200));
    })
    .await;
}

async fn apart(more: &str) -> Bed {
    let routines = [
        ("hello", "edge/hello.js", "check = false"),
        (FENCE, "src/fence.js", ""),
    ];
    let bed = Bed::laid_out(&routines, more).await;
    fs::create_dir(bed.path("edge")).unwrap();
    fs::write(bed.path("edge/hello.js"), big(0)).unwrap();
    bed.write(FENCE, &code(FENCE, 0));
    bed
}

#[tokio::test]
async fn a07_a_slow_writer_in_a_directory_that_is_not_watched_yet_is_waited_for() {
    let bed = apart("").await;
    let mut watch = bed.watch(&[]).await;
    let edge = bed.path("edge");
    halves(&bed, "edge/hello.js", move || {
        fs::remove_dir_all(&edge).unwrap();
        fs::create_dir(&edge).unwrap();
    })
    .await;
    bed.until_newest_is("hello", &big(1)).await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    bed.assert_uploads("hello", &[big(0), big(1)], "a new directory");
}

#[tokio::test]
async fn a07_a_slow_writer_whose_directory_is_moved_away_and_back_is_waited_for() {
    let bed = apart("").await;
    let mut watch = bed.watch(&[]).await;
    let (edge, away) = (bed.path("edge"), bed.path("away"));
    let mut file = File::create(edge.join("hello.js")).unwrap();
    let text = big(1);
    let (begin, rest) = text.split_at(text.len() / 2);
    file.write_all(begin.as_bytes()).unwrap();
    fs::rename(&edge, &away).unwrap();
    watch.until("halted").await;
    fs::rename(&away, &edge).unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    bed.until_newest_is("hello", &big(1)).await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    bed.assert_uploads("hello", &[big(0), big(1)], "moved");
}

#[tokio::test]
async fn a07_a_slow_writer_through_another_name_of_the_file_is_waited_for() {
    let bed = unchecked(OFTEN).await;
    fs::hard_link(bed.entry("hello"), bed.path("link.js")).unwrap();
    let mut watch = bed.watch(&[]).await;
    halves(&bed, "link.js", || {}).await;
    bed.until_newest_is("hello", &big(1)).await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    bed.assert_uploads("hello", &[big(0), big(1)], "another name");
}

#[tokio::test]
async fn a08_what_waits_for_its_writer_is_said_once_and_pending_until_it_goes_up() {
    let bed = Bed::fenced("[watch]\nmax_wait = \"300ms\"\n").await;
    let mut watch = bed.watch(&[]).await;
    let text = code("hello", 1);
    let (begin, rest) = text.split_at(text.len() / 2);
    let mut file = File::create(bed.entry("hello")).unwrap();
    file.write_all(begin.as_bytes()).unwrap();
    let event = watch.until("waiting").await;
    let words = |value: &serde_json::Value| value["what"].as_str().unwrap().to_owned();
    assert_eq!(event["routine"], "hello", "{event}");
    let what = words(&event["problem"]);
    assert!(
        what.ends_with("is still open for writing and does not parse"),
        "{what}"
    );
    let (_, status) = bed.status().await;
    let routines = status["routines"].as_array().unwrap();
    let hello = routines
        .iter()
        .find(|one| one["routine"] == "hello")
        .unwrap();
    assert_eq!(
        (&hello["state"], &hello["pending"]),
        (&"pending".into(), &1.into())
    );
    assert_eq!(words(&hello["reason"]), what);
    let late = bed.run(&["sync", "--timeout", "1s"]).await;
    assert_eq!(late.code, Some(75));
    assert!(
        late.stdout.contains("hello") && late.stdout.contains(&what),
        "{}",
        late.stdout
    );
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "uploaded", "{event}");
    let (_, status) = bed.status().await;
    let pending = status["routines"].to_string();
    assert!(!pending.contains("pending\":1"), "{pending}");
    // A writer that never rests, and in the end leaves the bytes as they were.
    let mut file = File::options()
        .append(true)
        .open(bed.entry("hello"))
        .unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        file.write_all(b" ").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let event = watch.until("waiting").await;
    assert!(
        words(&event["problem"]).ends_with("changes all the time"),
        "{event}"
    );
    fs::write(bed.entry("hello"), &text).unwrap();
    drop(file);
    watch.end_of_edit_of("hello").await;
    bed.sync().await;
    assert_eq!(watch.count("waiting", "hello"), 2);
    watch.stop().await;
}

#[tokio::test]
async fn a14_bytes_that_come_after_an_edit_without_any_wait_for_an_edit_of_their_own() {
    let bed = unchecked("").await;
    let mut watch = bed.watch(&[]).await;
    bed.fault("UploadRoutineCode:1:delay(2000)");
    bed.write("hello", &big(1));
    bed.until_asked("UploadRoutineCode", 3).await;
    // This becomes an edit while the one before it is on its way, and bytes come before that has ended.
    fs::remove_file(bed.entry("hello")).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (path, text) = (bed.entry("hello"), big(2));
    off(move || write_slowly(&path, &text, 4, Duration::from_millis(900))).await;
    bed.until_newest_is("hello", &big(2)).await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    bed.assert_uploads("hello", &[0, 1, 2].map(big), "after a removal");
}

#[tokio::test]
async fn a07_a_slow_writer_at_work_when_the_watch_starts_is_waited_for() {
    let bed = unchecked("").await;
    let (path, text) = (bed.entry("hello"), big(1));
    let (begun, begins) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let mut file = File::create(&path).unwrap();
        for piece in text.as_bytes().chunks(text.len().div_ceil(3)) {
            file.write_all(piece).unwrap();
            let _ = begun.send(());
            std::thread::sleep(Duration::from_millis(600));
        }
    });
    begins.recv().unwrap();
    let mut watch = bed.watch_from_start(&[]);
    bed.until_newest_is("hello", &big(1)).await;
    writer.join().unwrap();
    watch.until("uploaded").await;
    watch.stop().await;
    bed.assert_uploads("hello", &[big(1)], "at the start");
}
