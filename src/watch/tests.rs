//! The room as a whole, on a real file system and a real clock. Where a test sleeps, it plays a writer that pauses; what
//! it expects it awaits as an edit.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use notify::{EventHandler, Watcher as _};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

mod trees;

use super::events::Ear;
use super::watches::{self, Make};
use super::{Noticing, Settings, Target, WatchError, Watching, start_with};
use crate::config::Backend;
use crate::routine::{Digest, Edit, RoutineName, Sighting};

const QUIET: Duration = Duration::from_millis(60);

/// So rare that what is seen is seen through events.
const NO_LOOK: Duration = Duration::from_secs(3_600);

/// A directory outside of the system's temporary one, where editors save in another way.
pub(super) fn directory() -> TempDir {
    let exe = std::env::current_exe().unwrap();
    let beside = exe.parent().unwrap();
    let mut builder = tempfile::Builder::new();
    builder.prefix("watch-").tempdir_in(beside).unwrap()
}

/// Two watched routines: `main` with the entry `root/index.js`, and `other`, whose edits show that nothing else came
/// before them.
struct Site {
    watching: Watching,
    sightings: mpsc::Receiver<Sighting>,
    entry: PathBuf,
    other: PathBuf,
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with("root/index.js", NO_LOOK, |root| {
            fs::write(root.join("index.js"), "first").unwrap();
        })
    }

    fn with(entry: &str, rescan: Duration, prepare: impl FnOnce(&Path)) -> Self {
        let settings = |settings: &mut Settings| settings.rescan = rescan;
        Self::made(entry, settings, prepare, Box::new(watches::inotify))
    }

    /// The same with other settings and another source of events.
    fn made(
        entry: &str,
        set: impl FnOnce(&mut Settings),
        prepare: impl FnOnce(&Path),
        make: Make,
    ) -> Self {
        let dir = directory();
        for name in ["root", "other", "private"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let entry = dir.path().join(entry);
        let other = dir.path().join("other/index.js");
        fs::write(&other, "other").unwrap();
        prepare(&dir.path().join("root"));
        let targets = vec![target("main", &entry), target("other", &other)];
        let mut settings = Settings {
            debounce: QUIET,
            max_wait: Duration::from_secs(2),
            rescan: NO_LOOK,
            backend: Backend::Auto,
            poll_interval: Duration::from_millis(100),
            ignore: Vec::new(),
            private: dir.path().join("private"),
        };
        set(&mut settings);
        let (sender, sightings) = mpsc::channel(8);
        let (watching, first) =
            start_with(targets, &[], Vec::new(), &settings, sender, make).unwrap();
        let here = fs::read(&entry).ok().map(|bytes| Digest::of(&bytes));
        assert!(first.iter().all(|edit| edit.saves == 0));
        assert_eq!(first.len(), 1 + usize::from(here.is_some()));
        assert_eq!(first[0].digest, here.or(of("other")));
        Self {
            watching,
            sightings,
            entry,
            other,
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn sighting(&mut self) -> Sighting {
        loop {
            let sighting = timeout(Duration::from_secs(20), self.sightings.recv()).await;
            match sighting.expect("nothing was said").expect("watching ended") {
                // What fails loses events, and that is told in between.
                Sighting::Lost { .. } => {}
                sighting => return sighting,
            }
        }
    }

    async fn edit(&mut self) -> Edit {
        match self.sighting().await {
            Sighting::Edit(edit) => edit,
            other => panic!("{other:?}"),
        }
    }

    /// How changes of the main routine are noticed.
    fn noticing(&self) -> Noticing {
        let mut all = self.watching.sync().noticing();
        all.remove(&RoutineName::new("main").unwrap()).unwrap()
    }

    /// Awaits an edit of the main routine.
    async fn main(&mut self) -> (Option<Digest>, u32) {
        let edit = self.edit().await;
        assert_eq!(edit.routine.as_str(), "main");
        (edit.digest, edit.saves)
    }

    /// Awaits that the root of the main routine is said to be away.
    async fn halted(&mut self) -> String {
        match self.sighting().await {
            Sighting::Halted {
                routine, reason, ..
            } if routine.as_str() == "main" => reason,
            other => panic!("{other:?}"),
        }
    }

    /// Awaits that it is said to be back.
    async fn resumed(&mut self) {
        let resumed = Sighting::Resumed(RoutineName::new("main").unwrap());
        assert_eq!(self.sighting().await, resumed);
    }

    /// Proves that no edit comes of what was done before.
    async fn nothing(&mut self) {
        fs::write(&self.other, "other").unwrap();
        let edit = self.edit().await;
        assert_eq!((edit.routine.as_str(), edit.saves), ("other", 1));
    }

    fn end(self) {
        self.watching.stop().unwrap();
    }
}

fn target(name: &str, entry: &Path) -> Target {
    Target {
        routine: RoutineName::new(name).unwrap(),
        entry: entry.to_path_buf(),
        root: entry.parent().unwrap().to_path_buf(),
        check: false,
        follow: false,
        glob: None,
    }
}

/// How many of its three parts the file held.
fn parts(
    digest: Option<Digest>,
    part: &dyn Fn(usize) -> String,
    saves: usize,
) -> Option<(usize, usize)> {
    for save in 0..saves {
        for parts in 0..=3 {
            if of(&part(save).repeat(parts)) == digest {
                return Some((save, parts));
            }
        }
    }
    None
}

fn of(text: &str) -> Option<Digest> {
    Some(Digest::of(text.as_bytes()))
}

fn skip(what: &str) {
    say(&format!("SKIPPED: there is no {what} here"));
}

#[expect(
    clippy::print_stderr,
    reason = "a test says aloud what it measured or left out"
)]
fn say(text: &str) {
    eprintln!("{text}");
}

/// Runs a program; false if there is none of that name.
fn run(program: &str, arguments: &[&str], directory: &Path) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.status() {
        Ok(status) => {
            assert!(status.success(), "{program} {status}");
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_file_renamed_over_the_entry_is_one_save() {
    let mut site = Site::new();
    for n in 0..5 {
        let text = format!("rename {n}");
        fs::write(site.path("root/index.js.tmp"), &text).unwrap();
        fs::rename(site.path("root/index.js.tmp"), &site.entry).unwrap();
        assert_eq!(site.main().await, (of(&text), 1));
    }
    // From outside of what is watched.
    fs::create_dir(site.path("outside")).unwrap();
    fs::write(site.path("outside/new"), "moved in").unwrap();
    fs::rename(site.path("outside/new"), &site.entry).unwrap();
    assert_eq!(site.main().await, (of("moved in"), 1));
    site.end();
}

#[tokio::test]
async fn a_slow_writer_gives_one_edit_of_the_whole_file() {
    let mut site = Site::new();
    for pause in [1, 100, 250] {
        let chunks: Vec<_> = (0..4)
            .map(|n| format!("{pause} {n} ").repeat(5_000))
            .collect();
        let entry = site.entry.clone();
        let whole = chunks.concat();
        let writer = std::thread::spawn(move || {
            let mut file = File::create(entry).unwrap();
            for chunk in chunks {
                file.write_all(chunk.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(pause));
            }
        });
        assert_eq!(site.main().await, (of(&whole), 1));
        writer.join().unwrap();
    }
    site.end();
}

#[tokio::test]
async fn no_digest_of_a_half_written_file_is_sent_however_saves_and_quiet_times_meet() {
    let mut site = Site::new();
    let entry = site.entry.clone();
    let writer = std::thread::spawn(move || {
        for n in 0..40_u64 {
            let mut file = File::create(&entry).unwrap();
            for _ in 0..3 {
                file.write_all(format!("{n:02}").repeat(30_000).as_bytes())
                    .unwrap();
                std::thread::sleep(Duration::from_micros(700));
            }
            drop(file);
            // Around the quiet time, so that the next save begins just when this one settles.
            std::thread::sleep(QUIET + Duration::from_micros(n * 20) - Duration::from_micros(400));
        }
    });
    let whole: Vec<_> = (0..40)
        .map(|n| of(&format!("{n:02}").repeat(90_000)))
        .collect();
    let mut saves = 0;
    while saves < 40 {
        let (digest, more) = site.main().await;
        assert!(
            whole.contains(&digest),
            "a torn file after {saves} saves {digest:?} {:?}",
            parts(digest, &|n| format!("{n:02}").repeat(30_000), 40)
        );
        saves += more;
    }
    assert_eq!(saves, 40);
    writer.join().unwrap();
    site.end();
}

#[tokio::test]
async fn saves_that_never_rest_are_taken_whole_after_the_longest_wait() {
    let mut site = Site::new();
    let entry = site.entry.clone();
    let begin = Instant::now();
    let writer = std::thread::spawn(move || {
        for n in 0..250_u64 {
            let mut file = File::create(&entry).unwrap();
            for _ in 0..3 {
                file.write_all(format!("{n:03}").repeat(700).as_bytes())
                    .unwrap();
            }
            drop(file);
            std::thread::sleep(Duration::from_millis(12));
        }
        begin.elapsed()
    });
    let whole: Vec<_> = (0..350)
        .map(|n| of(&format!("{n:03}").repeat(2_100)))
        .collect();
    let (mut saves, mut first) = (0, None);
    while saves < 250 {
        let (digest, more) = site.main().await;
        first.get_or_insert(begin.elapsed());
        assert!(
            whole.contains(&digest),
            "a torn file after {saves} saves {digest:?} {:?}",
            parts(digest, &|n| format!("{n:03}").repeat(700), 250)
        );
        saves += more;
    }
    assert_eq!(saves, 250);
    assert!(
        first.unwrap() < writer.join().unwrap(),
        "it was not taken in time"
    );
    site.end();
}

#[tokio::test]
async fn a_writer_that_never_closes_is_taken_when_it_has_rested() {
    let mut site = Site::new();
    let begin = Instant::now();
    let mut file = File::create(&site.entry).unwrap();
    file.write_all(b"open").unwrap();
    assert_eq!(site.main().await, (of("open"), 1));
    assert!(begin.elapsed() >= Duration::from_secs(2));
    let said = site.sighting().await;
    assert!(matches!(said, Sighting::Open { .. }), "{said:?}");
    drop(file);
    assert_eq!(site.main().await, (of("open"), 1));
    site.end();
}

#[tokio::test]
async fn a_save_in_the_way_of_jetbrains_is_one_save() {
    let mut site = Site::new();
    let (tmp, old) = (
        site.path("root/index.js___jb_tmp___"),
        site.path("root/index.js___jb_old___"),
    );
    for n in 0..3 {
        let text = format!("jb {n}");
        fs::write(&tmp, &text).unwrap();
        fs::rename(&site.entry, &old).unwrap();
        fs::rename(&tmp, &site.entry).unwrap();
        fs::remove_file(&old).unwrap();
        assert_eq!(site.main().await, (of(&text), 1));
    }
    site.end();
}

#[tokio::test]
async fn sed_in_place_is_one_save() {
    let mut site = Site::new();
    if !run(
        "sed",
        &["-i", "s/first/second/", "index.js"],
        &site.path("root"),
    ) {
        return skip("sed");
    }
    assert_eq!(site.main().await, (of("second"), 1));
    site.end();
}

#[tokio::test]
async fn every_way_in_which_vim_saves_is_one_save() {
    let mut site = Site::new();
    for (n, way) in ["auto", "yes", "no"].iter().enumerate() {
        let text = format!("vim {n}");
        let set = format!("set backupskip= backup backupcopy={way}");
        let put = format!("call setline(1, '{text}')");
        let arguments = [
            "-u", "NONE", "-N", "-es", "-c", &set, "-c", &put, "-c", "wq", "index.js",
        ];
        if !run("vim", &arguments, &site.path("root")) {
            return skip("vim");
        }
        assert_eq!(site.main().await, (of(&format!("{text}\n")), 1), "{way}");
    }
    site.end();
}

#[tokio::test]
async fn a17_a_removed_root_halts_its_routine_and_its_return_is_an_edit() {
    let mut site = Site::new();
    for n in 0..5 {
        fs::remove_dir_all(site.path("root")).unwrap();
        let reason = site.halted().await;
        assert!(reason.ends_with("root` was deleted"), "{reason}");
        let text = format!("back {n}");
        fs::create_dir(site.path("root")).unwrap();
        site.nothing().await;
        fs::write(&site.entry, &text).unwrap();
        site.resumed().await;
        assert_eq!(site.main().await, (of(&text), 1));
        // The new directory is watched like the old one.
        fs::write(&site.entry, "again").unwrap();
        assert_eq!(site.main().await, (of("again"), 1));
    }
    // The same bytes are an edit, too, as nobody knows what became of the one before.
    fs::rename(site.path("root"), site.path("away")).unwrap();
    assert!(site.halted().await.ends_with("root` was renamed"));
    fs::rename(site.path("away"), site.path("root")).unwrap();
    site.resumed().await;
    assert_eq!(site.main().await, (of("again"), 1));
    site.end();
}

#[tokio::test]
async fn a_root_made_again_at_once_is_not_taken_for_the_old_one() {
    let mut site = Site::new();
    for n in 0..8 {
        let text = format!("again {n}");
        fs::remove_dir_all(site.path("root")).unwrap();
        // The file system gives it the inode number that has just become free.
        fs::create_dir(site.path("root")).unwrap();
        fs::write(&site.entry, &text).unwrap();
        // On a busy machine the gap may be long enough to be said.
        loop {
            match site.sighting().await {
                Sighting::Edit(edit) if edit.digest == of(&text) => break,
                Sighting::Edit(_) | Sighting::Halted { .. } | Sighting::Resumed(_) => {}
                other => panic!("{other:?}"),
            }
        }
        fs::write(&site.entry, "and again").unwrap();
        assert_eq!(site.main().await, (of("and again"), 1));
    }
    site.end();
}

#[tokio::test]
async fn a_root_replaced_by_another_directory_is_followed() {
    let mut site = Site::new();
    for n in 0..5 {
        let (built, old) = (site.path("built"), site.path(&format!("old{n}")));
        fs::create_dir(&built).unwrap();
        fs::write(built.join("index.js"), format!("built {n}")).unwrap();
        fs::rename(site.path("root"), &old).unwrap();
        fs::rename(&built, site.path("root")).unwrap();
        assert_eq!(site.main().await, (of(&format!("built {n}")), 1));
        // Saves in the old directory are nobody's any more.
        fs::write(old.join("index.js"), "old").unwrap();
        site.nothing().await;
        fs::write(&site.entry, format!("new {n}")).unwrap();
        assert_eq!(site.main().await, (of(&format!("new {n}")), 1));
    }
    site.end();
}

#[tokio::test]
async fn a_file_made_together_with_its_directories_is_seen() {
    let mut site = Site::with("root/a/b/index.js", NO_LOOK, |_| {});
    let reason = site.halted().await;
    assert!(reason.ends_with("root/a` does not exist"), "{reason}");
    for n in 0..6 {
        let text = format!("made {n}");
        fs::create_dir_all(site.path("root/a/b")).unwrap();
        fs::write(&site.entry, &text).unwrap();
        site.resumed().await;
        assert_eq!(site.main().await, (of(&text), 1));
        fs::remove_dir_all(site.path("root/a")).unwrap();
        let reason = site.halted().await;
        assert!(reason.ends_with("root/a` was deleted"), "{reason}");
    }
    site.end();
}

#[tokio::test]
async fn an_entry_that_is_a_link_is_watched_where_it_leads() {
    let mut site = Site::with("root/index.js", NO_LOOK, |root| {
        fs::create_dir(root.join("dist")).unwrap();
        fs::write(root.join("dist/a.js"), "a").unwrap();
        symlink("dist/a.js", root.join("index.js")).unwrap();
    });
    fs::write(site.path("root/dist/a.js"), "a2").unwrap();
    assert_eq!(site.main().await, (of("a2"), 1));
    fs::write(site.path("root/dist/b.js"), "b").unwrap();
    symlink("dist/b.js", site.path("root/next")).unwrap();
    fs::rename(site.path("root/next"), &site.entry).unwrap();
    assert_eq!(site.main().await, (of("b"), 1));
    site.end();
}

#[tokio::test]
async fn there_and_back_within_the_quiet_time_is_one_edit_of_the_old_bytes() {
    let mut site = Site::new();
    fs::write(&site.entry, "second").unwrap();
    fs::write(&site.entry, "first").unwrap();
    assert_eq!(site.main().await, (of("first"), 2));
    site.end();
}

#[tokio::test]
async fn a_touch_is_a_save_and_new_permissions_are_none() {
    let mut site = Site::new();
    if !run("touch", &["index.js"], &site.path("root")) {
        return skip("touch");
    }
    assert_eq!(site.main().await, (of("first"), 1));
    fs::set_permissions(&site.entry, fs::Permissions::from_mode(0o600)).unwrap();
    site.nothing().await;
    let mut text = String::new();
    File::open(&site.entry)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    site.nothing().await;
    site.end();
}

#[tokio::test]
async fn a_removed_entry_is_one_edit_without_bytes() {
    let mut site = Site::new();
    fs::write(site.path("root/beside"), "").unwrap();
    fs::remove_file(&site.entry).unwrap();
    assert_eq!(site.main().await.0, None);
    site.nothing().await;
    fs::hard_link(&site.other, &site.entry).unwrap();
    assert_eq!(site.main().await, (of("other"), 1));
    site.end();
}

#[tokio::test]
async fn a_change_that_no_event_tells_of_is_found_by_looking() {
    let mut site = Site::with("root/index.js", Duration::from_secs(1), |root| {
        fs::write(root.join("index.js"), "first").unwrap();
    });
    // Through another name of the same file, in a directory that is not watched.
    fs::create_dir(site.path("outside")).unwrap();
    fs::hard_link(&site.entry, site.path("outside/name")).unwrap();
    fs::write(site.path("outside/name"), "unseen").unwrap();
    assert_eq!(site.main().await, (of("unseen"), 1));
    site.end();
}

#[tokio::test]
async fn an_overflow_of_the_systems_queue_costs_a_look_and_no_edit() {
    let mut site = Site::new();
    let root = site.path("root");
    for n in 0..3 {
        {
            // notify's thread is held up in its callback, so the system's queue of 16,384 events runs over.
            let _held = site.watching.shared.inbox();
            for file in 0..6_000 {
                File::create(root.join(format!("{file}.map"))).unwrap();
            }
            fs::write(&site.entry, format!("lost {n}")).unwrap();
        }
        assert_eq!(site.main().await, (of(&format!("lost {n}")), 1));
        site.nothing().await;
        fs::write(&site.entry, format!("seen {n}")).unwrap();
        assert_eq!(site.main().await, (of(&format!("seen {n}")), 1));
    }
    site.end();
}

#[tokio::test]
async fn a_full_channel_loses_no_edit_and_does_not_hold_up_a_stop() {
    let mut site = Site::new();
    for n in 0..40 {
        let path = if n % 2 == 0 { &site.entry } else { &site.other };
        fs::write(path, format!("{n}")).unwrap();
        std::thread::sleep(QUIET / 4);
    }
    let (mut main, mut other) = (None, None);
    while main != of("38") || other != of("39") {
        let edit = site.edit().await;
        if edit.routine.as_str() == "main" {
            main = edit.digest;
        } else {
            other = edit.digest;
        }
    }
    site.end();
}

#[tokio::test]
async fn watching_ends_when_nobody_takes_edits_any_more() {
    let site = Site::new();
    drop(site.sightings);
    fs::write(&site.entry, "second").unwrap();
    assert!(site.watching.stop().is_ok());
}

/// A source of events that has none, and refuses what it is told to.
#[derive(Clone, Default)]
struct Stub {
    /// How many holders were made.
    made: Arc<AtomicUsize>,
    /// How many watches are left.
    left: Arc<AtomicUsize>,
    /// How many errors have been told of.
    errors: Arc<AtomicUsize>,
    /// How many holders were dropped.
    dropped: Arc<AtomicUsize>,
    /// Whether the root cannot be watched.
    refuses: Arc<AtomicBool>,
}

impl Stub {
    /// notify's own source, with so many watches left.
    fn with_watches(&self, left: usize) -> Make {
        self.left.store(left, Ordering::SeqCst);
        let stub = self.clone();
        Box::new(move |ear| {
            stub.made.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Limited(watches::inotify(ear)?, stub.clone())))
        })
    }

    /// A source that tells of nothing but errors, without end.
    fn failing(&self) -> Make {
        let stub = self.clone();
        Box::new(move |mut ear| {
            stub.made.fetch_add(1, Ordering::SeqCst);
            let errors = Arc::clone(&stub.errors);
            std::thread::spawn(move || {
                loop {
                    errors.fetch_add(1, Ordering::SeqCst);
                    ear.handle_event(Err(notify::Error::generic("no")));
                }
            });
            Ok(Box::new(notify::NullWatcher))
        })
    }
}

impl Stub {
    /// notify's own source, which fails without end after its first event.
    fn breaking(&self) -> Make {
        let stub = self.clone();
        Box::new(move |ear| {
            stub.made.fetch_add(1, Ordering::SeqCst);
            let mut ear = ear;
            let fails = move |_| {
                loop {
                    ear.handle_event(Err(notify::Error::generic("no")));
                }
            };
            let inner = notify::RecommendedWatcher::new(fails, notify::Config::default())?;
            Ok(Box::new(Odd(Box::new(inner), stub.clone())))
        })
    }

    /// notify's own source, which tells nothing of the entry of the main routine.
    fn deaf(&self) -> Make {
        let stub = self.clone();
        Box::new(move |ear| {
            let mut ear: Ear = ear;
            let hears = move |event: notify::Result<notify::Event>| {
                let about = |event: &notify::Event| {
                    event
                        .paths
                        .iter()
                        .any(|path| path.ends_with("root/index.js"))
                };
                if !event.as_ref().is_ok_and(about) {
                    ear.handle_event(event);
                }
            };
            let inner = notify::RecommendedWatcher::new(hears, notify::Config::default())?;
            Ok(Box::new(Odd(Box::new(inner), stub.clone())))
        })
    }

    /// notify's own source, which cannot watch the root as long as it is told to.
    fn refusing(&self) -> Make {
        self.refuses.store(true, Ordering::SeqCst);
        let stub = self.clone();
        Box::new(move |ear| Ok(Box::new(Odd(watches::inotify(ear)?, stub.clone()))))
    }
}

struct Odd(watches::Holder, Stub);

impl notify::Watcher for Odd {
    fn new<F: EventHandler>(_: F, _: notify::Config) -> notify::Result<Self> {
        unreachable!("it is made by hand")
    }

    fn watch(&mut self, path: &Path, mode: notify::RecursiveMode) -> notify::Result<()> {
        if path.ends_with("root") && self.1.refuses.load(Ordering::SeqCst) {
            let denied = std::io::ErrorKind::PermissionDenied;
            return Err(notify::Error::io(denied.into()));
        }
        self.0.watch(path, mode)
    }

    fn unwatch(&mut self, path: &Path) -> notify::Result<()> {
        self.0.unwatch(path)
    }

    fn kind() -> notify::WatcherKind {
        notify::WatcherKind::NullWatcher
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.1.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

struct Limited(watches::Holder, Stub);

impl notify::Watcher for Limited {
    fn new<F: EventHandler>(_: F, _: notify::Config) -> notify::Result<Self> {
        unreachable!("it is made by hand")
    }

    fn watch(&mut self, path: &Path, mode: notify::RecursiveMode) -> notify::Result<()> {
        let take = |left: usize| left.checked_sub(1);
        let left = &self.1.left;
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => self.0.watch(path, mode),
            Err(_) => Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch)),
        }
    }

    fn unwatch(&mut self, path: &Path) -> notify::Result<()> {
        self.1.left.fetch_add(1, Ordering::SeqCst);
        self.0.unwatch(path)
    }

    fn kind() -> notify::WatcherKind {
        notify::WatcherKind::NullWatcher
    }
}

fn write_first(root: &Path) {
    fs::write(root.join("index.js"), "first").unwrap();
}

#[tokio::test]
async fn a34_what_has_no_watch_is_polled_until_there_are_watches_again_and_both_are_said_once() {
    let stub = Stub::default();
    let make = stub.with_watches(2);
    let mut site = Site::made("root/index.js", |_| {}, write_first, make);
    let Sighting::Polling { what, .. } = site.sighting().await else {
        panic!("something else was said")
    };
    assert!(what.contains("no inotify watch is left"), "{what}");
    assert!(what.contains("needs 4"), "{what}");
    for n in 0..3 {
        fs::write(&site.entry, format!("polled {n}")).unwrap();
        assert_eq!(site.main().await, (of(&format!("polled {n}")), 1));
    }
    stub.left.store(100, Ordering::SeqCst);
    assert!(matches!(site.sighting().await, Sighting::Events(_)));
    for n in 0..3 {
        fs::write(&site.entry, format!("heard {n}")).unwrap();
        assert_eq!(site.main().await, (of(&format!("heard {n}")), 1));
    }
    site.nothing().await;
    site.end();
}

#[tokio::test]
async fn without_polling_a_limit_at_the_start_is_an_error_and_a_later_one_is_none() {
    for left in [0, 3] {
        let dir = directory();
        let targets = vec![target("main", &dir.path().join("index.js"))];
        let settings = Settings {
            debounce: QUIET,
            max_wait: Duration::from_secs(2),
            rescan: Duration::from_secs(1),
            backend: Backend::Native,
            poll_interval: Duration::from_millis(100),
            ignore: Vec::new(),
            private: dir.path().join("gone"),
        };
        fs::write(dir.path().join("index.js"), "first").unwrap();
        let (sender, mut sightings) = mpsc::channel(8);
        let make = Stub::default().with_watches(left);
        let started = start_with(targets, &[], Vec::new(), &settings, sender, make);
        let (watching, _) = match (left, started) {
            (0, Err(error)) => {
                assert!(matches!(error, WatchError::Watches { .. }), "{error}");
                continue;
            }
            (_, started) => started.unwrap(),
        };
        assert_eq!(watching.backend, "inotify");
        fs::write(dir.path().join("index.js"), "second").unwrap();
        let edit = sightings.recv().await;
        assert!(matches!(edit, Some(Sighting::Edit(edit)) if edit.digest == of("second")));
        watching.stop().unwrap();
    }
}

#[tokio::test]
async fn polling_alone_makes_no_watch_and_takes_no_half_of_a_file_that_is_written_in_its_interval()
{
    let poll = |settings: &mut Settings| settings.backend = Backend::Poll;
    let none: Make = Box::new(|_| panic!("a watch was made"));
    let mut site = Site::made("root/index.js", poll, write_first, none);
    assert_eq!(site.watching.backend, "poll");
    for n in 0..4 {
        let entry = site.entry.clone();
        let writer = std::thread::spawn(move || {
            let mut file = File::create(&entry).unwrap();
            for _ in 0..3 {
                file.write_all(format!("{n}").repeat(30_000).as_bytes())
                    .unwrap();
                std::thread::sleep(Duration::from_millis(70));
            }
        });
        let whole = format!("{n}").repeat(90_000);
        assert_eq!(site.main().await, (of(&whole), 1));
        writer.join().unwrap();
    }
    fs::remove_dir_all(site.path("root")).unwrap();
    let reason = site.halted().await;
    assert!(reason.ends_with("root` is gone"), "{reason}");
    fs::create_dir(site.path("root")).unwrap();
    fs::write(&site.entry, "back").unwrap();
    site.resumed().await;
    assert_eq!(site.main().await, (of("back"), 1));
    let sync = site.watching.sync();
    fs::write(&site.entry, "synced").unwrap();
    sync.ask(1);
    assert_eq!(site.main().await, (of("synced"), 1));
    assert_eq!(site.sighting().await, Sighting::Synced(1));
    site.end();
}

#[tokio::test]
async fn a38_events_that_fail_without_end_are_made_anew_ever_more_rarely_while_looks_see_the_edits()
{
    let stub = Stub::default();
    let begun = Instant::now();
    let mut site = Site::made("root/index.js", |_| {}, write_first, stub.failing());
    assert!(matches!(site.sighting().await, Sighting::Polling { .. }));
    let mut edits = 0;
    while begun.elapsed() < Duration::from_secs(8) {
        edits += 1;
        fs::write(&site.entry, format!("{edits}")).unwrap();
        assert_eq!(site.main().await, (of(&format!("{edits}")), 1));
    }
    // At 0, 1, 3 and 7 seconds.
    let made = stub.made.load(Ordering::SeqCst);
    assert!((2..=5).contains(&made), "{made}");
    assert_eq!(stub.errors.load(Ordering::SeqCst), 5 * made);
    site.end();
}

#[tokio::test]
async fn a38_a_source_of_events_that_fails_gives_back_what_it_holds_before_it_is_made_anew() {
    let stub = Stub::default();
    let mut site = Site::made("root/index.js", |_| {}, write_first, stub.breaking());
    let mut said = 0;
    for edit in 1.. {
        if stub.made.load(Ordering::SeqCst) == 4 {
            break;
        }
        fs::write(&site.entry, format!("{edit}")).unwrap();
        loop {
            match site.sighting().await {
                Sighting::Edit(told) => break assert_eq!(told.digest, of(&format!("{edit}"))),
                Sighting::Polling { .. } => said += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(said, 1);
    let (made, dropped) = (&stub.made, &stub.dropped);
    let (made, dropped) = (made.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst));
    assert!(dropped >= made - 1, "{dropped} of {made}");
    site.end();
}

#[tokio::test]
async fn a37_a_place_whose_changes_come_without_events_is_polled_from_the_first_one_on() {
    let often = |settings: &mut Settings| settings.rescan = Duration::from_secs(1);
    let mut site = Site::made("root/index.js", often, write_first, Stub::default().deaf());
    assert_eq!(site.noticing().by, "inotify");
    fs::write(&site.entry, "unheard").unwrap();
    let Sighting::Unheard { routine, what } = site.sighting().await else {
        panic!("something else was said")
    };
    assert_eq!(routine.as_str(), "main");
    assert!(what.contains("index.js` changed; `"), "{what}");
    assert!(what.contains("is looked at every 100ms"), "{what}");
    assert_eq!(site.main().await, (of("unheard"), 1));
    for n in 0..3 {
        fs::write(&site.entry, format!("polled {n}")).unwrap();
        assert_eq!(site.main().await, (of(&format!("polled {n}")), 1));
    }
    let noticing = site.noticing();
    assert_eq!(noticing.by, "inotify and poll");
    assert_eq!(
        noticing.why.as_deref(),
        Some("a change came without a file event")
    );
    // What is elsewhere is still heard of.
    let other = site.watching.sync().noticing();
    let other = &other[&RoutineName::new("other").unwrap()];
    assert_eq!((other.by, &other.why), ("inotify", &None));
    site.nothing().await;
    site.end();
}

#[tokio::test]
async fn a_directory_that_cannot_be_watched_is_told_and_looked_at_until_it_can() {
    for backend in [Backend::Auto, Backend::Native] {
        let stub = Stub::default();
        let set = |settings: &mut Settings| {
            settings.rescan = Duration::from_secs(1);
            settings.backend = backend;
        };
        let mut site = Site::made("root/index.js", set, write_first, stub.refusing());
        let Sighting::Polling { what, help } = site.sighting().await else {
            panic!("something else was said")
        };
        assert!(what.contains("root` cannot be watched: "), "{what}");
        assert!(help.contains("read the directory"), "{help}");
        let (by, instead) = match backend {
            Backend::Native => ("rare looks", "only looked at rarely"),
            _ => ("poll", "looked at every 100ms"),
        };
        assert!(what.contains(instead), "{what}");
        assert_eq!(site.noticing().by, by);
        fs::write(&site.entry, "seen").unwrap();
        assert_eq!(site.main().await, (of("seen"), 1));
        stub.refuses.store(false, Ordering::SeqCst);
        assert!(matches!(site.sighting().await, Sighting::Events(_)));
        assert_eq!(site.noticing().by, "inotify");
        fs::write(&site.entry, "heard").unwrap();
        assert_eq!(site.main().await, (of("heard"), 1));
        site.end();
    }
}

#[tokio::test]
async fn the_end_of_file_events_ends_nothing_and_they_are_made_anew() {
    let mut site = Site::new();
    site.watching.shared.inbox().life = super::events::Life::Ended;
    site.watching.shared.wake();
    assert!(matches!(site.sighting().await, Sighting::Polling { .. }));
    fs::write(&site.entry, "polled").unwrap();
    // It may be heard of already.
    let mut edits = Vec::new();
    while edits.last() != Some(&of("polled")) {
        match site.sighting().await {
            Sighting::Edit(edit) => edits.push(edit.digest),
            other => assert!(matches!(other, Sighting::Events(_)), "{other:?}"),
        }
    }
    assert_eq!(edits.len(), 1);
    fs::write(&site.entry, "again").unwrap();
    loop {
        match site.sighting().await {
            Sighting::Edit(edit) => break assert_eq!(edit.digest, of("again")),
            other => assert!(matches!(other, Sighting::Events(_)), "{other:?}"),
        }
    }
    site.end();
}

#[tokio::test]
async fn an_edit_follows_the_quiet_time_within_milliseconds() {
    let mut site = Site::new();
    let mut late: Vec<_> = Vec::new();
    for n in 0..15 {
        let begin = Instant::now();
        fs::write(&site.entry, format!("{n}")).unwrap();
        let closed = Instant::now();
        let edit = site.edit().await;
        let took = closed.elapsed();
        assert!(begin.elapsed() >= QUIET);
        assert!(edit.settled <= Instant::now());
        late.push(took.saturating_sub(QUIET));
    }
    late.sort();
    // The median, as other tests share the machine.
    assert!(late[7] < Duration::from_millis(20), "{late:?}");
    site.end();
}

#[tokio::test]
async fn a_save_during_looks_at_a_thousand_routines_is_taken_on_time() {
    let dir = directory();
    fs::create_dir(dir.path().join("private")).unwrap();
    let entries: Vec<_> = (0..1_000)
        .map(|n| dir.path().join(format!("{n}/index.js")))
        .collect();
    for entry in &entries {
        fs::create_dir(entry.parent().unwrap()).unwrap();
        fs::write(entry, "first").unwrap();
    }
    let named = entries.iter().enumerate();
    let targets = named.map(|(n, entry)| target(&format!("r{n}"), entry));
    let settings = Settings {
        debounce: QUIET,
        max_wait: Duration::from_secs(2),
        rescan: NO_LOOK,
        backend: Backend::Auto,
        poll_interval: Duration::from_millis(100),
        ignore: Vec::new(),
        private: dir.path().join("private"),
    };
    let (sender, mut sightings) = mpsc::channel(8);
    let make: Make = Box::new(watches::inotify);
    let (watching, first) =
        start_with(targets.collect(), &[], Vec::new(), &settings, sender, make).unwrap();
    assert_eq!(first.len(), 1_000);
    let mut late = [Vec::new(), Vec::new()];
    let sync = watching.sync();
    for n in 0..40_u64 {
        let looking = n % 2 == 1;
        fs::write(&entries[500], format!("{n}")).unwrap();
        let closed = Instant::now();
        if looking {
            // A sync is a full look, and one begins just before this save is due.
            std::thread::sleep(QUIET - Duration::from_millis(1));
            sync.ask(n);
        }
        loop {
            match sightings.recv().await {
                Some(Sighting::Edit(edit)) => break assert_eq!(edit.digest, of(&format!("{n}"))),
                Some(Sighting::Synced(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        late[usize::from(looking)].push(closed.elapsed().saturating_sub(QUIET));
    }
    let asked = Instant::now();
    sync.ask(100);
    while sightings.recv().await != Some(Sighting::Synced(100)) {}
    let took = asked.elapsed();
    let [quiet, looking] = late.map(|mut late| {
        late.sort();
        late[late.len() / 2]
    });
    say(&format!(
        "{looking:?} late during looks at 1,000 routines, which take {took:?}, and {quiet:?} otherwise"
    ));
    let allowed = quiet + Duration::from_millis(15);
    assert!(
        looking < allowed,
        "{looking:?}, and {quiet:?} without looks"
    );
    watching.stop().unwrap();
}

#[tokio::test]
async fn a_sync_comes_after_the_edits_of_everything_that_was_changed_before_it() {
    let mut site = Site::new();
    let sync = site.watching.sync();
    sync.ask(1);
    assert_eq!(site.sighting().await, Sighting::Synced(1));
    // No event tells of what is written through another name of the file.
    let outside = site.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::hard_link(&site.entry, outside.join("same.js")).unwrap();
    for round in 0..20 {
        let text = format!("round {round}");
        let entry = if round % 2 == 0 {
            site.entry.clone()
        } else {
            outside.join("same.js")
        };
        fs::write(entry, &text).unwrap();
        sync.ask(2 + round);
        let (digest, _) = site.main().await;
        assert_eq!(digest, of(&text));
        assert_eq!(site.sighting().await, Sighting::Synced(2 + round));
    }
    site.end();
}

#[tokio::test]
async fn a_sync_waits_for_a_writer_that_has_not_closed_its_file() {
    let mut site = Site::new();
    let mut file = File::create(&site.entry).unwrap();
    file.write_all(b"half").unwrap();
    site.watching.sync().ask(1);
    fs::write(&site.other, "other").unwrap();
    assert_eq!(site.edit().await.routine.as_str(), "other");
    file.write_all(b" and half").unwrap();
    drop(file);
    assert_eq!(site.main().await, (of("half and half"), 1));
    assert_eq!(site.sighting().await, Sighting::Synced(1));
    site.end();
}
