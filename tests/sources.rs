//! What an entry may be: a plain text file within its root, of 1 to 4,194,304 bytes, that parses. Everything else is
//! refused before the service is asked for anything, and nothing hangs.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::common::disk::{FENCE, NEVER, off, run};
use crate::common::{Bed, Watch, code, long, resident, say};
use er_dev::routine::Digest;

/// The largest code that the service takes.
const LARGEST: usize = 4_194_304;

/// Puts a link in the place of a file in one step.
fn swap_link(to: &Path, at: &Path) {
    let new = at.with_extension("swap");
    symlink(to, &new).unwrap();
    fs::rename(new, at).unwrap();
}

/// The next edit of `hello` must be refused with these words, without a request and without a hold-up of the others.
async fn assert_refused(bed: &Bed, watch: &mut Watch, words: &str) {
    let before = bed.requests("hello");
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "error", "{event}");
    assert_eq!(event["problem"]["class"], "source", "{event}");
    let what = event["problem"]["what"].as_str().unwrap();
    assert!(what.contains(words), "{what}");
    bed.fence(watch).await;
    assert_eq!(bed.requests("hello"), before, "{words}");
}

/// A push of what is there now must be refused as well.
async fn assert_push_refused(bed: &Bed, words: &str) {
    let uploads = bed.asked("UploadRoutineCode");
    let ended = bed.run(&["push", "hello"]).await;
    assert_eq!(ended.code, Some(65), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains(words), "{}", ended.stdout);
    assert_eq!(bed.asked("UploadRoutineCode"), uploads);
}

#[tokio::test]
async fn a23_a_link_out_of_the_root_sends_nothing_and_is_told_once() {
    let bed = Bed::fenced(NEVER).await;
    fs::write(bed.path("outside.js"), code("outside", 0)).unwrap();
    fs::create_dir(bed.path("beside")).unwrap();
    fs::write(bed.path("beside/hello.js"), code("beside", 0)).unwrap();
    let mut watch = bed.watch(&[]).await;
    swap_link(Path::new("/etc/passwd"), &bed.entry("hello"));
    assert_refused(&bed, &mut watch, "leads out of its root").await;
    assert_eq!(watch.count("error", "hello"), 1, "told once");
    swap_link(Path::new("../outside.js"), &bed.entry("hello"));
    assert_refused(&bed, &mut watch, "leads out of its root").await;
    // Through a directory within the root that is itself a link out of it.
    symlink("../beside", bed.path("src/dir")).unwrap();
    swap_link(Path::new("dir/hello.js"), &bed.entry("hello"));
    assert_refused(&bed, &mut watch, "leads out of its root").await;
    assert_push_refused(&bed, "leads out of its root").await;
    fs::remove_file(bed.entry("hello")).unwrap();
    bed.write("hello", &code("hello", 1));
    bed.until_newest_is("hello", &code("hello", 1)).await;
    watch.stop().await;
    let all = [0, 1].map(|save| code("hello", save));
    bed.assert_uploads("hello", &all, "links");
}

#[tokio::test]
async fn a24_a_link_swapped_while_it_is_opened_never_leads_out() {
    let more = "[watch]\ndebounce = \"10ms\"\nmax_wait = \"100ms\"\n";
    let bed = Bed::fenced(more).await;
    let secret = code("outside", 7);
    fs::write(bed.path("secret.js"), &secret).unwrap();
    fs::write(bed.path("src/inside.js"), code("hello", 1)).unwrap();
    let mut watch = bed.watch(&[]).await;
    let swaps = if long() { 50_000 } else { 3_000 };
    let threads = [0, 1].map(|thread| {
        let (entry, src) = (bed.entry("hello"), bed.path("src"));
        off(move || {
            for swap in 0..swaps {
                let to = ["inside.js", "../secret.js"][(swap + thread) % 2];
                let new = src.join(format!("swap{thread}"));
                symlink(to, &new).unwrap();
                fs::rename(new, &entry).unwrap();
            }
        })
    });
    for thread in threads {
        thread.await;
    }
    fs::remove_file(bed.entry("hello")).unwrap();
    bed.write("hello", &code("hello", 2));
    bed.until_newest_is("hello", &code("hello", 2)).await;
    bed.fence(&mut watch).await;
    watch.stop().await;
    let uploads = bed.uploads("hello");
    assert!(!uploads.contains(&Digest::of(secret.as_bytes())), "it did");
}

#[tokio::test]
async fn a25_a_link_that_goes_round_in_a_circle_is_refused_and_left_when_it_is_mended() {
    let bed = Bed::fenced(NEVER).await;
    symlink("hello.js", bed.path("src/other.js")).unwrap();
    let mut watch = bed.watch(&[]).await;
    swap_link(Path::new("other.js"), &bed.entry("hello"));
    assert_refused(&bed, &mut watch, "never ends").await;
    swap_link(Path::new("hello.js"), &bed.entry("hello"));
    assert_refused(&bed, &mut watch, "never ends").await;
    assert_push_refused(&bed, "never ends").await;
    fs::remove_file(bed.entry("hello")).unwrap();
    bed.write("hello", &code("hello", 1));
    bed.until_newest_is("hello", &code("hello", 1)).await;
    watch.stop().await;
}

#[tokio::test]
async fn a27_what_is_no_plain_file_is_refused_and_holds_nothing_up() {
    let bed = Bed::fenced(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    let src = bed.path("src");
    let place = |name: &str| fs::rename(src.join(name), bed.entry("hello")).unwrap();
    run("mkfifo", &["fifo"], &src).await;
    place("fifo");
    assert_refused(&bed, &mut watch, "a FIFO").await;
    assert_push_refused(&bed, "a FIFO").await;
    // Somebody at the other end makes no difference, and reads and writes nothing.
    let mut open = fs::File::options();
    let mut fifo = open
        .read(true)
        .write(true)
        .open(bed.entry("hello"))
        .unwrap();
    fifo.write_all(code("fifo", 0).as_bytes()).unwrap();
    assert_push_refused(&bed, "a FIFO").await;
    drop(fifo);
    let _socket = UnixListener::bind(src.join("socket")).unwrap();
    place("socket");
    assert_refused(&bed, &mut watch, "a socket").await;
    fs::remove_file(bed.entry("hello")).unwrap();
    fs::create_dir(bed.entry("hello")).unwrap();
    assert_refused(&bed, &mut watch, "a directory").await;
    fs::remove_dir(bed.entry("hello")).unwrap();
    let made = std::process::Command::new("mknod")
        .args(["device", "c", "1", "5"])
        .current_dir(&src)
        .output()
        .is_ok_and(|output| output.status.success());
    if made {
        place("device");
        assert_refused(&bed, &mut watch, "a device").await;
        fs::remove_file(bed.entry("hello")).unwrap();
    } else {
        say("SKIPPED: this machine does not let a user make a device");
    }
    bed.write("hello", &code("hello", 1));
    bed.until_newest_is("hello", &code("hello", 1)).await;
    watch.stop().await;
}

#[tokio::test]
async fn a28_an_empty_file_is_refused_before_any_request() {
    let bed = Bed::fenced(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    for save in 1..=2 {
        fs::File::create(bed.entry("hello")).unwrap();
        assert_refused(&bed, &mut watch, "is empty").await;
        assert_push_refused(&bed, "is empty").await;
        bed.write("hello", &code("hello", save));
        assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    }
    watch.stop().await;
    let all = [0, 1, 2].map(|save| code("hello", save));
    bed.assert_uploads("hello", &all, "emptied");
}

#[tokio::test]
async fn a28_a_disk_that_is_full_leaves_an_empty_file_and_that_does_not_go_up() {
    let bed = Bed::new(&["hello"]).await;
    let script = format!(
        "mount -t tmpfs -o size=64k,mode=755 none src && printf '%s' '{}' > src/hello.js && exec \"$0\" watch",
        code("hello", 0)
    );
    let Some(command) = bed.script_that_mounts(&script) else {
        return;
    };
    let mut watch = Bed::follow(command);
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    let (entry, filler) = (
        bed.seen_by(&watch, "src/hello.js"),
        bed.seen_by(&watch, "src/filler"),
    );
    // Emptying the file has made room for a page, and somebody else takes it.
    let mut empty = fs::File::create(&entry).unwrap();
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let saved = empty.write_all(code("hello", 1).as_bytes());
    drop(empty);
    assert!(saved.is_err(), "the disk is not full");
    let event = watch.end_of_edit().await;
    assert_eq!(event["event"], "error", "{event}");
    assert_eq!(bed.asked("UploadRoutineCode"), 1);
    drop(file);
    fs::remove_file(filler).unwrap();
    fs::write(&entry, code("hello", 2)).unwrap();
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.stop().await;
    let all = [0, 2].map(|save| code("hello", save));
    bed.assert_uploads("hello", &all, "a full disk");
}

#[tokio::test]
async fn a29_the_largest_code_goes_up_and_a_byte_more_or_four_gibibytes_cost_neither_memory_nor_requests()
 {
    let bed = Bed::fenced(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    let before = resident(watch.pid(), "VmHWM");
    let sized = |bytes: usize| format!("//{}", "x".repeat(bytes - 2));
    fs::File::create(bed.path("src/sparse"))
        .and_then(|file| file.set_len(4 << 30))
        .unwrap();
    fs::rename(bed.path("src/sparse"), bed.entry("hello")).unwrap();
    assert_refused(&bed, &mut watch, "at most 4194304").await;
    bed.write("hello", &sized(LARGEST + 1));
    assert_refused(&bed, &mut watch, "at most 4194304").await;
    let grown = resident(watch.pid(), "VmHWM") - before;
    assert!(grown < 8 * 1024, "{grown} KiB more");
    bed.write("hello", &sized(LARGEST));
    let event = watch.end_of_edit_of("hello").await;
    assert_eq!(event["event"], "uploaded", "{event}");
    watch.stop().await;
    bed.assert_uploads("hello", &[code("hello", 0), sized(LARGEST)], "sizes");
}

#[tokio::test]
async fn a30_a_file_that_grows_while_it_is_read_goes_up_at_the_end_of_a_line_or_not_at_all() {
    let bed = Bed::fenced("[watch]\ndebounce = \"10ms\"\nmax_wait = \"100ms\"\n").await;
    let mut watch = bed.watch(&[]).await;
    let before = resident(watch.pid(), "VmHWM");
    let lines = if long() { 20_000 } else { 2_000 };
    let line = format!("// {}\n", "x".repeat(197));
    let entry = bed.entry("hello");
    let grown = {
        let line = line.clone();
        off(move || {
            for _ in 0..lines {
                let mut file = fs::File::options().append(true).open(&entry).unwrap();
                file.write_all(line.as_bytes()).unwrap();
            }
            fs::read_to_string(&entry).unwrap()
        })
        .await
    };
    bed.until_newest_is("hello", &grown).await;
    bed.fence(&mut watch).await;
    let more = resident(watch.pid(), "VmHWM") - before;
    assert!(more < 48 * 1024, "{more} KiB more");
    watch.stop().await;
    let begin = code("hello", 0);
    for code in bed.codes("hello") {
        let rest = code.strip_prefix(begin.as_bytes()).unwrap();
        assert_eq!(rest.len() % line.len(), 0, "torn");
    }
}

#[tokio::test]
async fn a31_text_goes_up_byte_for_byte_and_what_is_no_text_does_not() {
    let bed = Bed::fenced(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    let texts: [&str; 8] = [
        "\u{feff}let a = 1;\n",
        "let a = 1;\r\nlet b = 2;\r\n",
        "let a = 'x\u{2028}y\u{2029}z';\n",
        "let a = '\u{0}';\n",
        "let a = '\u{85}\u{a0}\u{feff}';",
        "let \u{4f60}\u{597d} = '\u{1f600}e\u{301}';\n\n\n",
        "\t\u{b}\u{c} let a;\r\rlet b;",
        "// --\r\n// boundary\r\n--x\r\nContent-Disposition: form-data",
    ];
    let mut all = vec![code("hello", 0).into_bytes()];
    for text in texts {
        bed.write("hello", text);
        let event = watch.end_of_edit_of("hello").await;
        // The last one is no JavaScript.
        if event["event"] == "error" {
            assert!(text.contains("--x"), "{event}");
            continue;
        }
        assert_eq!(event["event"], "uploaded", "{text:?}: {event}");
        all.push(text.as_bytes().to_vec());
        assert_eq!(bed.codes("hello").last(), all.last());
    }
    let odd: [&[u8]; 6] = [
        b"\xff\xfel\0e\0t\0",
        b"let a = '\xe9';",
        b"let a = '\xc0\x80';",
        b"let a = '\xed\xa0\x80';",
        b"let a = '\xf4\x90\x80\x80';",
        b"let a = '\xe2\x82",
    ];
    for bytes in odd {
        fs::write(bed.entry("hello"), bytes).unwrap();
        assert_refused(&bed, &mut watch, "is not UTF-8").await;
    }
    watch.stop().await;
    bed.assert_uploads("hello", &all, "texts");
}

#[tokio::test]
async fn a32_code_that_is_cut_off_is_refused_with_its_place_unless_the_check_is_off() {
    let routines = [
        ("hello", "src/hello.js", ""),
        ("raw", "src/raw.js", "check = false"),
        (FENCE, "src/fence.js", ""),
    ];
    let bed = Bed::laid_out(&routines, "[watch]\ndebounce = \"10ms\"\n").await;
    for name in ["hello", "raw", FENCE] {
        bed.write(name, &code(name, 0));
    }
    let mut watch = bed.watch(&[]).await;
    let whole = format!(
        "(function () {{\n  let a = [`t ${{1}}`];\n  {}}})();\n",
        code("x", 1)
    );
    // Nothing parses before the last brackets are there.
    let last = whole.rfind("})").unwrap();
    let cuts = if long() { 500 } else { 30 };
    for cut in 0..cuts {
        let end = 1 + cut * (last - 1) / cuts;
        let text = format!("{}// {cut}\n", "\n".repeat(cut % 5)) + &whole[..end];
        bed.write("hello", &text);
        let event = watch.end_of_edit_of("hello").await;
        assert_eq!(event["event"], "error", "{text}: {event}");
        let problem = &event["problem"];
        let lines = text.lines().count() + 1;
        let line = problem["line"].as_u64().unwrap();
        assert!((1..=lines as u64).contains(&line), "{text}: {event}");
        assert!(problem["column"].as_u64().unwrap() >= 1, "{event}");
    }
    bed.assert_uploads("hello", &[code("hello", 0)], "cut off");
    bed.write("raw", &whole[..last]);
    assert_eq!(watch.end_of_edit_of("raw").await["event"], "uploaded");
    watch.stop().await;
    bed.assert_uploads("raw", &[&code("raw", 0), &whole[..last]], "unchecked");
}

/// No line of what was written may hold anything that a terminal would obey.
#[track_caller]
fn assert_nothing_raw(told: &str) {
    let raw = |c: char| {
        (c.is_control() && c != '\n')
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    let line = told.lines().find(|line| line.contains(raw));
    assert_eq!(line, None);
}

#[tokio::test]
async fn a33_entries_with_odd_names_are_watched_beside_files_of_any_name() {
    let odd = [
        "src/\u{202e}sj.evil\u{2066}.js",
        "src/ 'quotes\" `ticks` $(echo) #%s&\\ .js",
        "src/\u{4f60}\u{597d} \u{1f600}.js",
    ];
    let names: Vec<String> = (0..odd.len()).map(|n| format!("r{n}")).collect();
    let routines: Vec<_> = names
        .iter()
        .zip(odd)
        .map(|(name, entry)| (name.as_str(), entry, ""))
        .collect();
    let bed = Bed::laid_out(&routines, NEVER).await;
    for (name, entry, _) in &routines {
        fs::write(bed.path(entry), code(name, 0)).unwrap();
    }
    let log = bed.path("log");
    let mut watch = bed.watch_logged(&["--log", "trace"], &log).await;
    let neighbours = (1..=255u8).filter(|&byte| byte != b'/');
    for byte in neighbours {
        let name = [b"x", &[byte][..], b".js"].concat();
        let path = bed.path("src").join(OsStr::from_bytes(&name));
        fs::write(&path, "1").unwrap();
        fs::remove_file(&path).unwrap();
    }
    for (name, entry, _) in &routines {
        fs::write(bed.path(entry), code(name, 1)).unwrap();
        assert_eq!(watch.end_of_edit_of(name).await["event"], "uploaded");
        // Two that are refused, so that the name is told.
        fs::remove_file(bed.path(entry)).unwrap();
        assert_eq!(watch.end_of_edit_of(name).await["event"], "error");
        fs::write(bed.path(entry), "let let\n").unwrap();
        assert_eq!(watch.end_of_edit_of(name).await["event"], "error");
    }
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
    assert_nothing_raw(&fs::read_to_string(&log).unwrap());
    let arguments = ["push", "--format", "text", "--log", "trace"];
    let ended = bed.run(&arguments).await;
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert_nothing_raw(&ended.stdout);
    assert_nothing_raw(&ended.stderr);
}

#[tokio::test]
async fn a33_entries_with_control_characters_are_refused_and_shown_escaped() {
    let names = [
        "src/\u{1b}]0;title\u{7}.js",
        "src/new\nline\rback.js",
        "src/\u{9b}31m\u{85}.js",
    ];
    for name in names {
        let bed = Bed::laid_out(&[("hello", name, "")], "").await;
        let ended = bed.run(&["watch", "--format", "text"]).await;
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("control"), "{}", ended.stderr);
        assert_nothing_raw(&ended.stderr);
    }
}
