//! The test bed: a project directory, an emulator in this process, and the er-dev binary as a user runs it.
//!
//! Nothing here sleeps to wait. A test waits for an event of er-dev's JSON output or for a state of the emulator, and a
//! generous limit turns a hang into a failure.

pub(crate) mod disk;
pub(crate) mod net;
pub(crate) mod schema;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use er_dev::emulator::check::{Rotate, Rules, Violation, check, lost, unvaulted};
use er_dev::emulator::history::{Actor, Decision, POST_OBJECT, Record};
use er_dev::emulator::world::{Settings, World};
use er_dev::emulator::{Emulator, Options};
use er_dev::routine::{Digest, Revision, RoutineName};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// How long anything may take before a test calls it a hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Short time-outs, and a short wait for what could still be carried out.
pub(crate) const QUICK: &[&str] = &[
    "--api-timeout",
    "1s",
    "--post-timeout",
    "1s",
    "--settle-margin",
    "300ms",
];

/// The ways to sign requests. What er-dev does is the same with each of them.
pub(crate) const SIGNATURES: [&str; 2] = ["hmac-sha1", "acs3-hmac-sha256"];

/// A project on disk with an emulator for it.
pub(crate) struct Bed {
    dir: tempfile::TempDir,
    pub(crate) emulator: Emulator,
    pub(crate) routines: Vec<RoutineName>,
    /// What is asked of the run, which follows from the configuration unless a test says more.
    pub(crate) rules: Rules,
}

/// What a command that ended left behind.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running `er-dev watch`.
pub(crate) struct Watch {
    child: Child,
    lines: UnboundedReceiver<String>,
    seen: VecDeque<Value>,
}

pub(crate) fn name(text: &str) -> RoutineName {
    RoutineName::new(text).unwrap()
}

impl Bed {
    /// A bed with these routines, each with a small entry of its own, and the emulator's usual settings.
    pub(crate) async fn new(names: &[&str]) -> Self {
        Self::with(names, Settings::default(), "").await
    }

    /// The same with other settings of the emulator and more text in the configuration.
    pub(crate) async fn with(names: &[&str], settings: Settings, more: &str) -> Self {
        let routines: Vec<RoutineName> = names.iter().map(|text| name(text)).collect();
        let rules = rules(&format!("[service]\n{more}"), &settings);
        let options = Options {
            routines: routines.clone(),
            settings,
            ..Options::default()
        };
        let emulator = Emulator::start(options).await.unwrap();
        // Editors save in another way below the system's directory for temporary files.
        let dir = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let bed = Self {
            dir,
            rules,
            emulator,
            routines,
        };
        std::fs::create_dir(bed.path("src")).unwrap();
        for routine in names {
            bed.write(routine, &code(routine, 0));
        }
        bed.configure(&bed.emulator.endpoint(), more);
        bed
    }

    /// The same with requests signed in this way.
    pub(crate) async fn signing(names: &[&str], settings: Settings, signature: &str) -> Self {
        let more = format!("signature = \"{signature}\"\n");
        Self::with(names, settings, &more).await
    }

    /// How the requests so far were signed, which is one way for all of them.
    #[track_caller]
    pub(crate) fn assert_signed(&self, signature: &str) {
        let mut history = self.history();
        history.retain(|record| record.op != POST_OBJECT);
        assert!(!history.is_empty());
        for record in history {
            assert_eq!(record.scheme, Some(signature), "{record:?}");
        }
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, endpoint: &str, more: &str) {
        let mut text = format!("[service]\nendpoint = \"{endpoint}\"\n{more}\n");
        for routine in &self.routines {
            text.push_str(&format!(
                "[[routine]]\nname = \"{routine}\"\nentry = \"src/{routine}.js\"\n"
            ));
        }
        std::fs::write(self.path("er-dev.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// The entry of a routine.
    pub(crate) fn entry(&self, routine: &str) -> PathBuf {
        self.path(&format!("src/{routine}.js"))
    }

    pub(crate) fn write(&self, routine: &str, text: &str) {
        std::fs::write(self.entry(routine), text).unwrap();
    }

    /// The er-dev binary in the bed, with the emulator's key and nothing else of this process's environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_er-dev"));
        command.args(arguments);
        self.furnish(&mut command);
        command
    }

    /// A shell script in the bed, in namespaces of its own where it may mount, with the binary as its `$0`. `None`, said
    /// aloud, where that is not possible.
    pub(crate) fn script_that_mounts(&self, script: &str) -> Option<Command> {
        let possible = std::process::Command::new("unshare")
            .args(["-Urm", "mount", "-t", "tmpfs", "-o", "size=64k", "none"])
            .arg(self.dir.path().join("src"))
            .output()
            .is_ok_and(|output| output.status.success());
        if !possible {
            say("SKIPPED: this machine does not let a user mount in a namespace");
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", script, env!("CARGO_BIN_EXE_er-dev")]);
        self.furnish(&mut command);
        command.env("PATH", std::env::var_os("PATH").unwrap());
        Some(command)
    }

    /// Puts a command in the bed, with the emulator's key and nothing else of this process's environment.
    pub(crate) fn furnish(&self, command: &mut Command) {
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "emulator-key-id")
            .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "emulator-key-secret")
            .env("ER_DEV_STATE_DIR", self.path("state"))
            .env("ER_DEV_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments)).await
    }

    /// Pushes with short time-outs.
    pub(crate) async fn push(&self) -> Ended {
        let arguments = [&["push", "--timeout", "30s"], QUICK].concat();
        self.run(&arguments).await
    }

    /// The bytes of `hello` are there once, whatever happened on the way, and nothing else is.
    #[track_caller]
    pub(crate) fn assert_there_once(&self, what: &str, ended: &Ended) {
        let Ended { stdout, stderr, .. } = ended;
        assert_eq!(ended.code, Some(0), "{what}: {stdout}{stderr}");
        let there = self.codes("hello");
        assert_eq!(there, [code("hello", 0).into_bytes()], "{what}");
    }

    /// How the running watch stands, and the exit code that goes with it.
    pub(crate) async fn status(&self) -> (Option<i32>, Value) {
        let ended = self.run(&["status"]).await;
        let Ended { stdout, stderr, .. } = &ended;
        let daemons = ended.events().remove(0)["daemons"].take();
        assert_eq!(daemons.as_array().unwrap().len(), 1, "{stdout}{stderr}");
        (ended.code, daemons[0].clone())
    }

    /// Waits until every edit made so far is on the service.
    pub(crate) async fn sync(&self) {
        let ended = self.run(&["sync", "--timeout", "110s"]).await;
        let Ended { stdout, stderr, .. } = &ended;
        assert_eq!(ended.code, Some(0), "{stdout}{stderr}");
    }

    /// The control sockets that are there.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path("state/run")) else {
            return Vec::new();
        };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Starts `er-dev watch` and waits until it is ready and every first edit has ended.
    pub(crate) async fn watch(&self, arguments: &[&str]) -> Watch {
        let mut watch = self.watch_from_start(arguments);
        watch.until("ready").await;
        for _ in 0..self.routines.len() {
            watch.end_of_edit().await;
        }
        watch
    }

    /// Starts `er-dev watch` and waits for nothing.
    pub(crate) fn watch_from_start(&self, arguments: &[&str]) -> Watch {
        let mut command = self.command(&["watch"]);
        command.args(arguments);
        Self::follow(command)
    }

    /// Starts a command that becomes an `er-dev watch`.
    pub(crate) fn follow(command: Command) -> Watch {
        Self::follow_logging_to(command, Stdio::inherit())
    }

    /// The same with what it logs going somewhere else than to this process's standard error.
    pub(crate) fn follow_logging_to(mut command: Command, log: impl Into<Stdio>) -> Watch {
        let mut child = command.stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, lines) = unbounded_channel();
        // Read on, also while the test looks elsewhere, as a terminal or the journal would.
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                let _ = sender.send(line);
            }
        });
        Watch {
            child,
            lines,
            seen: VecDeque::new(),
        }
    }

    /// Waits until the newest version of a routine holds this text.
    pub(crate) async fn until_newest_is(&self, routine: &str, text: &str) {
        let name = name(routine);
        let holds =
            |world: &World| newest(world, &name).is_some_and(|code| code == text.as_bytes());
        let waited = tokio::time::timeout(LIMIT, self.emulator.wait_until(holds)).await;
        assert!(waited.is_ok(), "`{routine}` never got {text:?}");
    }

    /// All versions of a routine, oldest first.
    pub(crate) fn versions(&self, routine: &str) -> Vec<Revision> {
        let versions = |world: &mut World| {
            world
                .routine(&name(routine))
                .unwrap()
                .versions()
                .iter()
                .map(|v| v.revision.clone())
                .collect()
        };
        self.emulator.with_world(versions)
    }

    /// The code of every version of a routine, oldest first; empty where there is none.
    pub(crate) fn codes(&self, routine: &str) -> Vec<Vec<u8>> {
        let codes = |world: &mut World| {
            let versions = world.routine(&name(routine)).unwrap().versions();
            versions
                .iter()
                .map(|v| v.bytes().unwrap_or_default().to_vec())
                .collect()
        };
        self.emulator.with_world(codes)
    }

    /// The code of the newest version of a routine; empty where there is none.
    pub(crate) fn newest(&self, routine: &str) -> Vec<u8> {
        self.codes(routine).pop().unwrap_or_default()
    }

    /// Fills a routine with versions that somebody else made, a day apart, the last one an hour ago. Oldest first.
    pub(crate) fn seed(&self, routine: &str, count: usize) -> Vec<Revision> {
        let now = jiff::Timestamp::now().as_second();
        let seed = |world: &mut World| {
            let made = (0..count).map(|index| {
                let age = 3_600 + 86_400 * (count - 1 - index) as i64;
                let made = jiff::Timestamp::from_second(now - age).unwrap();
                let code = format!("// foreign {index}");
                world
                    .seed(&name(routine), Some(code.as_bytes()), "by hand", made)
                    .unwrap()
            });
            made.collect()
        };
        self.emulator.with_world(seed)
    }

    /// Fills the free slots of a routine with versions that somebody else makes now.
    pub(crate) fn seed_now(&self, routine: &str) {
        let seed = |world: &mut World| {
            let now = jiff::Timestamp::now();
            while world
                .seed(&name(routine), Some(b"// foreign, now"), "by hand", now)
                .is_ok()
            {}
        };
        self.emulator.with_world(seed);
    }

    /// Waits for a state of the service.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        let waited = tokio::time::timeout(LIMIT, self.emulator.wait_until(holds)).await;
        if waited.is_err() {
            let history = self.history();
            let last: Vec<String> = history
                .iter()
                .rev()
                .take(40)
                .map(|r| format!("{r:?}"))
                .collect();
            panic!(
                "{what} never came; the last requests, newest first:\n{}",
                last.join("\n")
            );
        }
    }

    /// Waits until an operation has been asked for so many times.
    pub(crate) async fn until_asked(&self, operation: &str, times: usize) {
        let asked = |world: &World| {
            let history = world.history().iter();
            history.filter(|record| record.op == operation).count() >= times
        };
        self.until(operation, asked).await;
    }

    /// How often an operation has been asked for.
    pub(crate) fn asked(&self, operation: &str) -> usize {
        let history = self.history();
        history
            .iter()
            .filter(|record| record.op == operation)
            .count()
    }

    /// The directory of a routine's state.
    pub(crate) fn routine_dir(&self, routine: &str) -> PathBuf {
        let host = self.emulator.address().to_string().replace(':', "_");
        self.path("state").join(host).join(routine)
    }

    pub(crate) fn publish(&self, routine: &str, revision: &Revision, environment: &str) {
        let publish = |world: &mut World| world.publish(&name(routine), revision, &[environment]);
        self.emulator.with_world(publish).unwrap();
    }

    /// Lets requests go wrong from now on.
    pub(crate) fn fault(&self, spec: &str) {
        self.emulator.fault(spec).unwrap();
    }

    /// Answers one of the questions that the service leaves open, as in `lag=5s`.
    pub(crate) fn world(&self, switch: &str) {
        let mut settings = self.emulator.with_world(|world| world.settings().clone());
        settings.set(switch).unwrap();
        self.emulator.configure(settings);
    }

    /// What er-dev asked of the service; the deeds of other people are left out.
    pub(crate) fn history(&self) -> Vec<Record> {
        let mut history = self.emulator.history();
        history.retain(|record| record.actor == Actor::Client);
        history
    }

    /// The versions of a routine whose code er-dev keeps because it deleted them.
    pub(crate) fn vaulted(&self, routine: &str) -> BTreeSet<Revision> {
        let Ok(entries) = std::fs::read_dir(self.routine_dir(routine).join("vault")) else {
            return BTreeSet::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter_map(|name| name.strip_suffix(".json").map(Revision::new))
            .collect()
    }

    /// What no run may ever do, read off the emulator's history. Every bed asks for it at its end.
    pub(crate) fn assert_within_limits(&self) {
        let history = self.emulator.history();
        assert_none(check(&history, &self.rules));
        let throttled = history
            .iter()
            .filter(|record| record.decision == Decision::Throttled)
            .count();
        assert_eq!(throttled, 0, "throttled");
    }

    /// The same for a run that has come to rest, all edits done and trimmed: what the entries hold is on the service,
    /// each content once, a slot is free, and what was deleted is kept.
    pub(crate) fn assert_at_rest(&self) {
        let history = self.emulator.history();
        let rules = Rules {
            at_rest: true,
            ..self.rules.clone()
        };
        assert_none(check(&history, &rules));
        let last: Vec<(RoutineName, Digest)> = self
            .routines
            .iter()
            .filter_map(|routine| {
                let bytes = std::fs::read(self.entry(routine.as_str())).ok()?;
                Some((routine.clone(), Digest::of(&bytes)))
            })
            .collect();
        assert_none(lost(&history, &last));
        let vaults = self.routines.iter().map(|name| self.vaulted(name.as_str()));
        assert_none(unvaulted(&history, &vaults.flatten().collect(), &rules));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_within_limits();
        }
    }
}

fn assert_none(violations: Vec<Violation>) {
    let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// What a configuration and a service with these settings ask of a run.
fn rules(configuration: &str, settings: &Settings) -> Rules {
    let table: toml::Table = configuration.parse().unwrap_or_default();
    let revisions = table.get("revisions");
    let number = |key: &str| {
        let number = revisions?.get(key)?.as_integer()?;
        usize::try_from(number).ok()
    };
    let usual = Rules::default();
    let rotate = revisions.and_then(|revisions| revisions.get("rotate"));
    Rules {
        cap: settings.cap,
        reserve: number("reserve").unwrap_or(usual.reserve),
        keep_newest: number("keep_newest").unwrap_or(usual.keep_newest),
        rotate: match rotate.and_then(toml::Value::as_str) {
            Some("own") => Rotate::Own,
            Some("never") => Rotate::Never,
            _ => usual.rotate,
        },
        ..usual
    }
}

fn newest(world: &World, routine: &RoutineName) -> Option<Vec<u8>> {
    let versions = world.routine(routine)?.versions();
    versions.last()?.bytes().map(<[u8]>::to_vec)
}

/// A small routine whose bytes tell which save they are from.
pub(crate) fn code(routine: &str, save: usize) -> String {
    format!(
        "addEventListener(\"fetch\", (event) => event.respondWith(new Response(\"{routine} {save}\")));\n"
    )
}

/// Runs a command to its end.
pub(crate) async fn finish(mut command: Command) -> Ended {
    let output = tokio::time::timeout(LIMIT * 2, command.output())
        .await
        .expect("the command hangs")
        .unwrap();
    let ended = Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert_eq!(misfit_among(&ended.stdout), None);
    ended
}

impl Ended {
    /// Its JSON lines.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Its events of one kind.
    pub(crate) fn of(&self, event: &str) -> Vec<Value> {
        self.events()
            .into_iter()
            .filter(|value| value["event"] == event)
            .collect()
    }
}

impl Watch {
    /// The next event of this kind; those before it are passed over.
    pub(crate) async fn until(&mut self, event: &str) -> Value {
        loop {
            let next = self.next().await;
            if next["event"] == event {
                return next;
            }
        }
    }

    /// The next event that ends an edit.
    pub(crate) async fn end_of_edit(&mut self) -> Value {
        loop {
            let next = self.next().await;
            if ends_an_edit(&next) {
                return next;
            }
        }
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(LIMIT, self.lines.recv())
            .await
            .expect("no event in time");
        let line = line.expect("er-dev ended");
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(schema::misfit(&event), None);
        self.seen.push_back(event.clone());
        event
    }

    /// The next line of a command that writes objects and no events.
    pub(crate) async fn object(&mut self) -> Value {
        let line = tokio::time::timeout(LIMIT, self.lines.recv()).await;
        let line = line.expect("no line in time").expect("er-dev ended");
        serde_json::from_str(&line).unwrap()
    }

    /// Takes in the events that have come so far.
    pub(crate) fn hear(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push_back(serde_json::from_str(&line).unwrap());
        }
    }

    /// Drops the events that nobody asks for any more.
    pub(crate) fn forget(&mut self) {
        self.check_the_rest();
        self.seen.clear();
    }

    /// What nobody asked for has the form of events, too.
    fn check_the_rest(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            assert_eq!(misfit_among(&line), None);
        }
    }

    /// Every event so far.
    pub(crate) fn seen(&self) -> impl Iterator<Item = &Value> {
        self.seen.iter()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("er-dev runs")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Asks it to stop; returns the exit code and the accounting, which must add up.
    pub(crate) async fn stop(mut self) -> (Option<i32>, Value) {
        self.signal(rustix::process::Signal::INT);
        let done = self.until("done").await;
        assert_adds_up(&done);
        (self.exit().await, done)
    }

    /// Kills it.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> Option<i32> {
        let status = tokio::time::timeout(LIMIT, self.child.wait())
            .await
            .expect("er-dev does not end");
        status.unwrap().code()
    }
}

/// Why one of the events among these lines does not have its form, if one has not.
fn misfit_among(lines: &str) -> Option<String> {
    let objects = lines.lines().map(serde_json::from_str::<Value>);
    objects
        .filter_map(Result::ok)
        .filter(|object| object.get("event").is_some())
        .find_map(|event| schema::misfit(&event))
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check_the_rest();
        }
    }
}

fn ends_an_edit(event: &Value) -> bool {
    let event = event["event"].as_str().unwrap();
    let ends = [
        "uploaded",
        "reused",
        "unchanged",
        "superseded",
        "error",
        "abandoned",
    ];
    ends.contains(&event)
}

/// Every edit ends in exactly one way.
pub(crate) fn assert_adds_up(done: &Value) {
    let ends = [
        "uploaded",
        "reused",
        "unchanged",
        "superseded",
        "failed",
        "abandoned",
        "planned",
    ];
    let sum: u64 = ends.iter().map(|end| done[end].as_u64().unwrap()).sum();
    assert_eq!(done["edits"], sum, "{done}");
}

/// Runs a test's cases side by side, some at a time: they mostly wait.
pub(crate) async fn each<C, F>(cases: impl IntoIterator<Item = C>, run: impl Fn(C) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    const AT_A_TIME: usize = 8;
    let mut running = tokio::task::JoinSet::new();
    for case in cases {
        if running.len() >= AT_A_TIME {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(run(case));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// The memory of a process by a line of its status, such as `VmRSS`, in KiB.
pub(crate) fn resident(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|text| text.starts_with(line));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// Whether the long runs were asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("ER_DEV_LONG").is_some_and(|value| value == "1")
}

/// Says something aloud, past the capture of the test harness.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether a program is there; says aloud that a test is skipped where it is not.
pub(crate) fn has(program: &str) -> bool {
    let there = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program).is_file())
    });
    if !there {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: `{program}` is not installed on this machine"
        );
    }
    there
}
