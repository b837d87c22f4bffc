//! What a watch tells of the inputs of builds.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventHandler as _, Watcher as _};
use rustix::io::Errno;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{NO_LOOK, QUIET, directory};
use crate::config::{Backend, Pattern};
use crate::routine::Sighting;
use crate::watch::watches::{self, Make};
use crate::watch::{Inputs, Settings, Watching, start_with};

/// A project with a build, number 7, whose inputs are watched.
struct Project {
    watching: Watching,
    sightings: mpsc::Receiver<Sighting>,
    root: PathBuf,
    _dir: TempDir,
}

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    let pattern = |(line, text): (usize, &&str)| Pattern {
        text: (*text).into(),
        line,
    };
    (1..).zip(texts).map(pattern).collect()
}

impl Project {
    fn new(watched: &[&str], files: &[(&str, &str)]) -> Self {
        Self::made(watched, files, |_| {}, Box::new(watches::inotify))
    }

    fn made(
        watched: &[&str],
        files: &[(&str, &str)],
        set: impl FnOnce(&mut Settings),
        make: Make,
    ) -> Self {
        let dir = directory();
        let root = dir.path().join("project");
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::create_dir(dir.path().join("private")).unwrap();
        write(&root, files);
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
        let inputs = [Inputs {
            build: 7,
            dir: root.clone(),
            patterns: patterns(watched),
        }];
        let (sender, sightings) = mpsc::channel(8);
        let (watching, first) =
            start_with(Vec::new(), &inputs, Vec::new(), &settings, sender, make).unwrap();
        assert_eq!(first, []);
        Self {
            watching,
            sightings,
            root,
            _dir: dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.root, &[(name, text)]);
    }

    async fn sighting(&mut self) -> Sighting {
        let sighting = timeout(Duration::from_secs(20), self.sightings.recv()).await;
        sighting.expect("nothing was said").expect("watching ended")
    }

    /// Awaits that something is told of the build; all of it, sorted.
    async fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            match self.sighting().await {
                Sighting::Inputs { build: 7, paths } => {
                    assert!(paths.is_sorted());
                    if told.is_empty() {
                        self.watching.sync().ask(0);
                    }
                    told.extend(paths.iter().map(|path| path.display().to_string()));
                }
                Sighting::Synced(0) => break,
                Sighting::Lost { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        told.sort();
        told
    }

    /// Proves that nothing is told of what was done before: a sync covers it all.
    async fn nothing(&mut self) {
        self.watching.sync().ask(1);
        assert_eq!(self.sighting().await, Sighting::Synced(1));
    }
}

#[tokio::test]
async fn a_changed_a_new_and_a_removed_input_are_told_and_bytes_as_before_are_not() {
    let files = [("src/a.ts", "a"), ("src/deep/b.ts", "b"), ("readme", "")];
    let mut project = Project::new(&["src"], &files);
    project.write("src/a.ts", "a2");
    assert_eq!(project.told().await, ["src/a.ts"]);
    project.write("src/deep/c.ts", "c");
    project.write("readme", "more");
    assert_eq!(project.told().await, ["src/deep/c.ts"]);
    fs::remove_file(project.path("src/deep/b.ts")).unwrap();
    fs::rename(project.path("src/a.ts"), project.path("src/z.ts")).unwrap();
    let told = ["src/a.ts", "src/deep/b.ts", "src/z.ts"];
    assert_eq!(project.told().await, told);
    // The same bytes, another time, other permissions, and there and back.
    project.write("src/deep/c.ts", "c");
    let file = File::open(project.path("src/z.ts")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(project.path("src/z.ts"), mode).unwrap();
    project.nothing().await;
    project.write("src/z.ts", "other");
    project.write("src/z.ts", "a2");
    project.nothing().await;
}

#[tokio::test]
async fn a_touch_tells_nothing_from_the_start() {
    let mut project = Project::new(&["src"], &[("src/a.ts", "a")]);
    project.write("src/a.ts", "a");
    project.nothing().await;
}

#[tokio::test]
async fn only_what_patterns_name_and_no_rule_ignores_is_an_input() {
    let files = [
        (".gitignore", "dist/\n*.log\n"),
        ("src/.gitignore", "gen/\n"),
        ("src/a.ts", "a"),
        ("src/a.js", "a"),
        ("src/gen/b.ts", "b"),
        ("src/node_modules/m/c.ts", "c"),
        ("src/own/d.ts", "d"),
        ("dist/x.json", "x"),
        ("dist/y.json", "y"),
        ("package.json", "{}"),
    ];
    let watched = ["src/**/*.ts", "dist/x.json", "package.json"];
    let ignore = |settings: &mut Settings| settings.ignore = patterns(&["src/own"]);
    let make = Box::new(watches::inotify);
    let mut project = Project::made(&watched, &files, ignore, make);
    for name in [
        "src/a.js",
        "src/gen/b.ts",
        "src/node_modules/m/c.ts",
        "src/own/d.ts",
        "src/new.log",
        "src/a.ts~",
        "dist/y.json",
        "other.json",
    ] {
        project.write(name, "changed");
    }
    project.nothing().await;
    for name in ["dist/x.json", "package.json", "src/a.ts"] {
        project.write(name, "changed");
    }
    let told = ["dist/x.json", "package.json", "src/a.ts"];
    assert_eq!(project.told().await, told);
    // What is not ignored any more has come, and what is has gone.
    project.write("src/.gitignore", "a.ts\n");
    assert_eq!(project.told().await, ["src", "src/gen/b.ts"]);
    project.write("src/gen/b.ts", "more");
    assert_eq!(project.told().await, ["src/gen/b.ts"]);
}

#[tokio::test]
async fn directories_that_are_made_moved_in_renamed_and_removed_are_told_with_what_is_in_them() {
    let mut project = Project::new(&["src"], &[("src/a.ts", "a"), ("aside/in/b.ts", "b")]);
    project.write("src/new/deep/er/c.ts", "c");
    assert_eq!(project.told().await, ["src/new/deep/er/c.ts"]);
    project.write("src/new/deep/er/c.ts", "c2");
    assert_eq!(project.told().await, ["src/new/deep/er/c.ts"]);
    fs::rename(project.path("aside"), project.path("src/moved")).unwrap();
    assert_eq!(project.told().await, ["src/moved/in/b.ts"]);
    project.write("src/moved/in/b.ts", "b2");
    assert_eq!(project.told().await, ["src/moved/in/b.ts"]);
    fs::rename(project.path("src/moved"), project.path("src/again")).unwrap();
    assert_eq!(project.told().await, ["src/again/in/b.ts", "src/moved/in"]);
    project.write("src/again/in/b.ts", "b3");
    assert_eq!(project.told().await, ["src/again/in/b.ts"]);
    fs::remove_dir_all(project.path("src/new")).unwrap();
    let told = project.told().await;
    let gone = ["src/new/deep/er", "src/new/deep/er/c.ts"];
    assert!(
        told.iter().all(|path| gone.contains(&path.as_str())),
        "{told:?}"
    );
    // The whole tree goes and comes back.
    fs::rename(project.path("src"), project.path("elsewhere")).unwrap();
    assert_eq!(project.told().await, ["src", "src/again/in"]);
    fs::rename(project.path("elsewhere"), project.path("src")).unwrap();
    assert_eq!(project.told().await, ["src/a.ts", "src/again/in/b.ts"]);
    project.write("src/a.ts", "a2");
    assert_eq!(project.told().await, ["src/a.ts"]);
}

#[tokio::test]
async fn links_to_files_are_inputs_and_links_to_directories_are_no_way_round() {
    let mut project = Project::new(
        &["src", "top.json"],
        &[("src/a.ts", "a"), ("lib/b.ts", "b")],
    );
    symlink("..", project.path("src/round")).unwrap();
    symlink("../lib/b.ts", project.path("src/linked.ts")).unwrap();
    symlink("lib/b.ts", project.path("top.json")).unwrap();
    assert_eq!(project.told().await, ["src/linked.ts", "top.json"]);
    project.write("lib/b.ts", "b2");
    assert_eq!(project.told().await, ["src/linked.ts", "top.json"]);
    project.nothing().await;
}

#[tokio::test]
async fn without_events_inputs_are_found_by_looking() {
    let poll = |settings: &mut Settings| settings.backend = Backend::Poll;
    let files = [("src/a.ts", "a"), ("src/b.ts", "b")];
    let mut project = Project::made(&["src"], &files, poll, Box::new(watches::inotify));
    project.write("src/a.ts", "a2");
    project.write("src/new/c.ts", "c");
    fs::remove_file(project.path("src/b.ts")).unwrap();
    let told = ["src", "src/a.ts", "src/new/c.ts"];
    assert_eq!(project.told().await, told);
    project.write("src/a.ts", "a2");
    project.nothing().await;
}

#[tokio::test]
async fn an_input_that_is_being_written_is_waited_for_and_one_that_always_is_holds_nothing_up() {
    let mut project = Project::new(&["src"], &[("src/a.ts", "a"), ("src/b.ts", "b")]);
    let mut file = File::create(project.path("src/a.ts")).unwrap();
    for part in ["1", "2", "3"] {
        file.write_all(part.as_bytes()).unwrap();
        tokio::time::sleep(3 * QUIET).await;
    }
    assert!(project.sightings.try_recv().is_err());
    drop(file);
    assert_eq!(project.told().await, ["src/a.ts"]);
    let mut log = File::create(project.path("src/log.ts")).unwrap();
    project.write("src/b.ts", "b2");
    let mut told = Vec::new();
    for _ in 0..400 {
        log.write_all(b"more").unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Ok(sighting) = project.sightings.try_recv() {
            told.push(sighting);
            break;
        }
    }
    let [Sighting::Inputs { paths, .. }] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(paths.contains(&PathBuf::from("src/b.ts")));
}

#[tokio::test]
async fn inputs_are_looked_at_when_events_were_lost() {
    // Nothing is heard but that something was lost.
    let deaf: Make = Box::new(|mut ear| {
        let lost = notify::Event::new(notify::EventKind::Other);
        let lost = lost.set_flag(notify::event::Flag::Rescan);
        let handler = move |event: notify::Result<notify::Event>| {
            let matters =
                event.is_ok_and(|event| event.paths.iter().any(|it| it.ends_with("lost")));
            if matters {
                ear.handle_event(Ok(lost.clone()));
            }
        };
        let watcher = notify::RecommendedWatcher::new(handler, notify::Config::default())?;
        Ok(Box::new(watcher))
    });
    let files: Vec<_> = (0..50).map(|n| format!("src/{n}/a.ts")).collect();
    let files: Vec<_> = files.iter().map(|file| (file.as_str(), "a")).collect();
    let mut project = Project::made(&["src"], &files, |_| {}, deaf);
    for n in 0..10 {
        project.write(&format!("src/{n}/a.ts"), "b");
    }
    project.write("src/new/a.ts", "a");
    project.write("src/lost", "");
    let told = project.told().await;
    assert_eq!(told.len(), 12, "{told:?}");
}

#[tokio::test]
async fn where_no_watch_is_left_inputs_are_looked_at_and_it_is_said() {
    let none: Make = Box::new(|_| Err(notify::Error::io(Errno::MFILE.into())));
    let mut project = Project::made(&["src"], &[("src/a.ts", "a")], |_| {}, none);
    let Sighting::Polling { what, .. } = project.sighting().await else {
        panic!("it is not said");
    };
    assert!(what.contains("the inputs of builds"), "{what}");
    project.write("src/a.ts", "b");
    assert_eq!(project.told().await, ["src/a.ts"]);
}

#[tokio::test]
async fn a_sync_follows_what_was_changed_before_it() {
    let mut project = Project::new(&["src"], &[("src/a.ts", "a")]);
    for round in 0..10 {
        project.write("src/a.ts", &format!("{round}"));
        fs::create_dir(project.path(&format!("src/{round}"))).unwrap();
        project.write(&format!("src/{round}/b.ts"), "b");
        project.watching.sync().ask(1);
        let mut told = Vec::new();
        loop {
            match project.sighting().await {
                Sighting::Inputs { paths, .. } => told.extend(paths),
                other => break assert_eq!(other, Sighting::Synced(1)),
            }
        }
        told.sort();
        let new = format!("src/{round}/b.ts");
        assert_eq!(told, [&new, "src/a.ts"].map(PathBuf::from));
    }
}
