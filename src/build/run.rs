//! One run of a build: a process group, its output, its end.
//!
//! A run ends when its shell does, or, where it was asked to end, when nobody is left who could print anything. What is
//! left of its group then is killed, so that no two runs are ever under way at once. The group is on a leash: a pipe of which er-dev alone has the other end. Within the group somebody reads from it
//! and kills the group when it breaks, so that no run survives er-dev, not even one that was killed itself. A program
//! that leaves the group, as one that makes itself a service does, is out of reach.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::Build;

/// The most that is kept of what a run prints, in bytes; what came first is dropped.
const MAX_KEPT: usize = 64 * 1024;

/// The longest line, in bytes; what is longer is two.
const MAX_LINE: usize = 4 * 1024;

/// How long it is read on after the end of a run, where a program out of reach still holds its output open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How often the lock of another er-dev is looked at.
const RETRY: Duration = Duration::from_millis(50);

/// The shell of a run. The reader of the leash is no child of the command, which might wait for it, and no request to end
/// ends it.
const SHELL: &str = r#"exec 3<&0 </dev/null
( ( trap '' HUP INT TERM; exec >/dev/null 2>&1; read -r _ <&3; kill -KILL 0 ) & )
exec 3<&-
exec /bin/sh -c "$1""#;

/// What a run is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To end.
    Terminate,
    /// To end at once.
    Kill,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// In which way.
    pub end: io::Result<ExitStatus>,
    /// What it printed, as far as it was kept: its last lines.
    pub output: Vec<String>,
    /// Lines before them that were not kept.
    pub cut: u64,
    /// How long it took.
    pub took: Duration,
}

/// Runs a build to its end. Its lines are sent while they come; once nobody can give it orders any more, it is killed.
pub async fn run(
    build: Build,
    mut orders: mpsc::Receiver<Order>,
    lines: mpsc::Sender<String>,
) -> Outcome {
    let begun = Instant::now();
    let mut kept = Kept::default();
    let end = carry_out(&build, &mut orders, &lines, &mut kept).await;
    Outcome {
        end,
        output: kept.lines.into(),
        cut: kept.cut,
        took: begun.elapsed(),
    }
}

async fn carry_out(
    build: &Build,
    orders: &mut mpsc::Receiver<Order>,
    lines: &mpsc::Sender<String>,
    kept: &mut Kept,
) -> io::Result<ExitStatus> {
    let _lock = tokio::select! {
        lock = locked(&build.lock) => lock,
        _ = orders.recv() => return Err(io::ErrorKind::Interrupted.into()),
    };
    let (mut group, mut printed) = start(build)?;
    let (mut status, mut asked) = (None, None);
    // Whoever was asked to end gets the time for that, also when the shell of the run has gone ahead.
    while status.is_none() || (asked == Some(Order::Terminate) && printed.open) {
        tokio::select! {
            ended = group.child.wait(), if status.is_none() => status = Some(ended),
            line = printed.next(), if printed.open => kept.take(line, lines).await,
            order = orders.recv(), if asked != Some(Order::Kill) => {
                let order = order.unwrap_or(Order::Kill);
                group.signal(match order {
                    Order::Terminate => Signal::TERM,
                    Order::Kill => Signal::KILL,
                });
                asked = Some(order);
            }
        }
    }
    group.signal(Signal::KILL);
    let rest = async {
        while printed.open {
            let line = printed.next().await;
            kept.take(line, lines).await;
        }
    };
    // The time may be up at any line, and what was read before is kept.
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    status.unwrap_or(Err(io::ErrorKind::Interrupted.into()))
}

/// A run's processes. They are killed when this is dropped.
struct Group {
    child: Child,
    pid: Option<Pid>,
    _leash: Option<ChildStdin>,
}

fn start(build: &Build) -> io::Result<(Group, Lines)> {
    // One pipe for both, so that their lines keep their order.
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SHELL, "sh", &build.command])
        .current_dir(&build.dir)
        .env_clear()
        .envs(build.environment.iter().map(|(name, value)| (name, value)))
        .process_group(0)
        .stdin(std::process::Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    // Out of the child, since waiting for it would close it.
    let _leash = child.stdin.take();
    let group = Group { child, pid, _leash };
    let reader = Receiver::from_owned_fd(OwnedFd::from(reader))?;
    Ok((group, Lines::new(reader)))
}

impl Group {
    /// That nobody is left of it is no failure. Its number is not given to anybody else so soon.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once its shell has been waited for, its group has been killed as well.
        if self.child.id().is_some() {
            self.signal(Signal::KILL);
        }
    }
}

/// Takes the lock of a build, after another er-dev if need be. Where locks cannot be had, it runs without.
async fn locked(path: &Path) -> Option<File> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut builder = std::fs::DirBuilder::new();
    let _ = builder.recursive(true).mode(0o700).create(dir);
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).mode(0o600).open(path);
    let file = opened
        .inspect_err(|error| tracing::debug!(path = %path.display(), %error, "no lock for a build"))
        .ok()?;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(RETRY).await,
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %path.display(), %error, "no lock for a build");
                return None;
            }
        }
    }
}

/// The lines that a run prints.
struct Lines {
    reader: BufReader<Receiver>,
    part: Vec<u8>,
    open: bool,
}

impl Lines {
    fn new(reader: Receiver) -> Self {
        Self {
            reader: BufReader::new(reader),
            part: Vec::new(),
            open: true,
        }
    }

    /// The next line; `None` at the end. Whoever stops waiting for it loses nothing.
    async fn next(&mut self) -> Option<String> {
        loop {
            let Ok(read @ [_, ..]) = self.reader.fill_buf().await else {
                self.open = false;
                return (!self.part.is_empty()).then(|| self.line());
            };
            let read = &read[..read.len().min(MAX_LINE - self.part.len())];
            let end = read.iter().position(|&byte| byte == b'\n');
            let length = end.map_or(read.len(), |end| end + 1);
            self.part.extend_from_slice(&read[..length]);
            self.reader.consume(length);
            if end.is_some() || self.part.len() >= MAX_LINE {
                return Some(self.line());
            }
        }
    }

    /// What is shown of the line: its last form where it was written over, without colours.
    fn line(&mut self) -> String {
        let part = std::mem::take(&mut self.part);
        let text = String::from_utf8_lossy(&part);
        let text = text.trim_end_matches(['\n', '\r']);
        let last = text.rsplit('\r').next().unwrap_or_default();
        anstream::adapter::strip_str(last).to_string()
    }
}

/// The last lines of what a run prints.
#[derive(Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    cut: u64,
}

impl Kept {
    async fn take(&mut self, line: Option<String>, lines: &mpsc::Sender<String>) {
        let Some(line) = line else {
            return;
        };
        self.push(line.clone());
        // When nobody listens any more, it is kept all the same.
        let _ = lines.send(line).await;
    }

    fn push(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.bytes > MAX_KEPT {
            let Some(dropped) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= dropped.len() + 1;
            self.cut += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn build(dir: &Path, command: &str) -> Build {
        Build {
            command: command.into(),
            dir: dir.to_owned(),
            timeout: LIMIT,
            environment: vec![("PATH", std::env::var("PATH").unwrap())],
            lock: dir.join("locks/a.lock"),
            routines: Vec::new(),
            globs: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// A run, with the way to give it orders and its lines.
    struct Begun {
        task: tokio::task::JoinHandle<Outcome>,
        orders: mpsc::Sender<Order>,
        lines: mpsc::Receiver<String>,
    }

    impl Begun {
        fn new(build: Build) -> Self {
            let (orders, taken) = mpsc::channel(2);
            let (tell, lines) = mpsc::channel(64);
            let task = tokio::spawn(run(build, taken, tell));
            Self {
                task,
                orders,
                lines,
            }
        }

        async fn line(&mut self) -> String {
            let line = tokio::time::timeout(LIMIT, self.lines.recv()).await;
            line.expect("no line in time").expect("it ended")
        }

        async fn end(mut self) -> Outcome {
            self.lines.close();
            let end = tokio::time::timeout(LIMIT, self.task).await;
            end.expect("it does not end").unwrap()
        }
    }

    /// Waits until a process has ended. Nothing tells of the end of somebody else's child, so that it is looked at.
    async fn until_gone(pid: &str) {
        let stat = format!("/proc/{pid}/stat");
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        let begun = Instant::now();
        while !gone() {
            assert!(begun.elapsed() < LIMIT, "{pid} goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_run_ends_with_its_exit_code_and_what_it_printed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let script =
            "pwd; echo one; echo two >&2; printf '\\033[31mred\\033[0m\\rlast'; cat; exit 3";
        let outcome = Begun::new(build(dir.path(), script)).end().await;
        assert_eq!(outcome.end.unwrap().code(), Some(3));
        let here = dir.path().canonicalize().unwrap().display().to_string();
        assert_eq!(outcome.output, [here.as_str(), "one", "two", "last"]);
        let (none, _) = (build(Path::new("/nowhere"), "true"), dir);
        let none = Build {
            lock: "/proc/no.lock".into(),
            ..none
        };
        assert!(Begun::new(none).end().await.end.is_err());
    }

    #[tokio::test]
    async fn an_order_ends_the_whole_group() {
        let deaf = "trap '' TERM; sleep 600 & echo $!; wait; wait; sleep 600";
        let table = [
            ("sleep 600 & echo $!; wait", Order::Terminate, Signal::TERM),
            (deaf, Order::Kill, Signal::KILL),
        ];
        for (script, order, signal) in table {
            let dir = tempfile::tempdir().unwrap();
            let mut begun = Begun::new(build(dir.path(), script));
            let pid = begun.line().await;
            begun.orders.send(order).await.unwrap();
            let end = begun.end().await.end.unwrap();
            let ended_by = std::os::unix::process::ExitStatusExt::signal(&end);
            assert_eq!(ended_by, Some(signal.as_raw()));
            until_gone(&pid).await;
        }
    }

    #[tokio::test]
    async fn who_is_asked_to_end_can_tidy_up_before() {
        let dir = tempfile::tempdir().unwrap();
        let tidy =
            "trap 'sleep 0.2; touch tidy; exit' TERM; echo begun; while :; do sleep 0.01; done";
        std::fs::write(dir.path().join("a.sh"), tidy).unwrap();
        let mut begun = Begun::new(build(dir.path(), "sh a.sh; exit 1"));
        begun.line().await;
        begun.orders.send(Order::Terminate).await.unwrap();
        assert!(!begun.end().await.end.unwrap().success());
        assert!(dir.path().join("tidy").exists());
    }

    #[tokio::test]
    async fn what_a_run_leaves_behind_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut begun = Begun::new(build(dir.path(), "(trap '' TERM; sleep 600) & echo $!"));
        let pid = begun.line().await;
        assert!(begun.end().await.end.unwrap().success());
        until_gone(&pid).await;
    }

    #[tokio::test]
    async fn a_program_that_left_the_group_holds_up_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut begun = Begun::new(build(dir.path(), "setsid sleep 600 & echo $!"));
        let pid = begun.line().await;
        assert!(begun.end().await.end.unwrap().success());
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_run_ends_when_nobody_holds_its_leash_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let build = build(dir.path(), "trap '' TERM HUP; sleep 600 & echo $!; wait");
        let (group, mut printed) = start(&build).unwrap();
        let pid = printed.next().await.unwrap();
        // As if er-dev had been killed: nobody signals anybody.
        let Group { child, _leash, .. } = &group;
        assert!(child.id().is_some() && _leash.is_some());
        let mut group = group;
        group.pid = None;
        group._leash = None;
        until_gone(&pid).await;
    }

    #[tokio::test]
    async fn a_run_that_is_dropped_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut begun = Begun::new(build(dir.path(), "sleep 600 & echo $!; wait"));
        let pid = begun.line().await;
        begun.task.abort();
        until_gone(&pid).await;
    }

    #[tokio::test]
    async fn what_is_kept_of_the_output_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let script = "yes 0123456789 | head -n 20000; head -c 9000 /dev/zero | tr '\\0' x";
        let outcome = Begun::new(build(dir.path(), script)).end().await;
        let bytes: usize = outcome.output.iter().map(|line| line.len() + 1).sum();
        assert!(bytes <= MAX_KEPT && bytes > MAX_KEPT - MAX_LINE, "{bytes}");
        assert_eq!(outcome.output.len() as u64 + outcome.cut, 20_000 + 3);
        assert!(outcome.output.iter().all(|line| line.len() <= MAX_LINE));
    }

    #[tokio::test]
    async fn no_two_of_one_lock_run_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let script = "mkdir alone && sleep 0.2 && rmdir alone";
        let runs = [0; 4].map(|_| Begun::new(build(dir.path(), script)));
        for run in runs {
            assert!(run.end().await.end.unwrap().success());
        }
        // Whoever waits for the lock can be called off.
        let first = Begun::new(build(dir.path(), "mkdir held && sleep 600"));
        while !dir.path().join("held").exists() {
            tokio::task::yield_now().await;
        }
        let second = Begun::new(build(dir.path(), "true"));
        second.orders.send(Order::Terminate).await.unwrap();
        assert!(second.end().await.end.is_err());
        first.task.abort();
    }
}
