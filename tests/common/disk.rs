//! What tests of the disk share: beds with entries anywhere, a fence to know that events have been seen, programs that
//! change files, and a log to read.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use er_dev::emulator::history::POST_OBJECT;
use er_dev::emulator::world::Settings;
use er_dev::routine::Digest;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Bed, LIMIT, Watch, code, ends_an_edit, has, name, say};

/// The routine that [`Bed::fence`] saves.
pub(crate) const FENCE: &str = "fence";

/// A look at every entry ten times a second, for changes that no event tells of.
pub(crate) const OFTEN: &str = "[watch]\nrescan = \"1s\"\n";

/// No look before the test is over, so that nothing but events can have told.
pub(crate) const NEVER: &str = "[watch]\nrescan = \"1h\"\n";

impl Bed {
    /// A bed whose routines have entries of their own: name, entry, further lines. None of the entries is there yet.
    pub(crate) async fn laid_out(routines: &[(&str, &str, &str)], more: &str) -> Self {
        let names: Vec<&str> = routines.iter().map(|(name, ..)| *name).collect();
        let bed = Self::with(&names, Settings::default(), more).await;
        std::fs::remove_dir_all(bed.path("src")).unwrap();
        std::fs::create_dir(bed.path("src")).unwrap();
        let endpoint = bed.emulator.endpoint();
        let mut text = format!("[service]\nendpoint = \"{endpoint}\"\n{more}\n");
        for (name, entry, lines) in routines {
            text.push_str(&format!(
                "[[routine]]\nname = \"{name}\"\nentry = {}\n{lines}\n",
                // JSON escapes what TOML does not take raw, and in the same way.
                serde_json::to_string(entry).unwrap()
            ));
        }
        std::fs::write(bed.path("er-dev.toml"), text).unwrap();
        bed
    }

    /// A bed with `hello` and the fence, whose entries are there.
    pub(crate) async fn fenced(more: &str) -> Self {
        Self::with(&["hello", FENCE], Settings::default(), more).await
    }

    /// Saves the fence and waits until that is on the service. Events come in the order of what they tell of, so what
    /// happened to other entries before this has been seen then.
    pub(crate) async fn fence(&self, watch: &mut Watch) {
        let save = self.uploads(FENCE).len() + 1;
        self.write(FENCE, &code(FENCE, save));
        let event = watch.end_of_edit_of(FENCE).await;
        assert_eq!(event["event"], "uploaded", "{event}");
    }

    /// What was uploaded for a routine, in order: the digests of all forms posted, taken or not.
    pub(crate) fn uploads(&self, routine: &str) -> Vec<Digest> {
        let routine = Some(name(routine));
        let history = self.history();
        let posts = history
            .iter()
            .filter(|record| record.op == POST_OBJECT && record.routine == routine);
        posts.filter_map(|record| record.sha256).collect()
    }

    /// Nothing but these texts has been uploaded for a routine, each once and in this order.
    #[track_caller]
    pub(crate) fn assert_uploads<T: AsRef<[u8]>>(&self, routine: &str, texts: &[T], what: &str) {
        let wanted: Vec<Digest> = texts.iter().map(|t| Digest::of(t.as_ref())).collect();
        let codes = || {
            let codes = self.codes(routine);
            let shown = codes.iter().map(|code| shorten(code));
            shown.collect::<Vec<_>>().join("\n")
        };
        let found = self.uploads(routine);
        assert_eq!(found, wanted, "{what}: there is\n{}", codes());
    }

    /// How many requests named a routine.
    pub(crate) fn requests(&self, routine: &str) -> usize {
        let routine = Some(name(routine));
        let history = self.history();
        history.iter().filter(|r| r.routine == routine).count()
    }

    /// Nothing was deleted on the service.
    #[track_caller]
    pub(crate) fn assert_nothing_deleted(&self) {
        assert_eq!(self.asked("DeleteRoutineCodeRevision"), 0);
    }

    /// Starts `er-dev watch` and waits until every first edit has ended. What it logs goes to a file.
    pub(crate) async fn watch_logged(&self, arguments: &[&str], log: &Path) -> Watch {
        let mut command = self.command(&["watch"]);
        command.args(arguments);
        let log = std::fs::File::create(log).unwrap();
        let mut watch = Self::follow_logging_to(command, log);
        watch.until("ready").await;
        for _ in 0..self.routines.len() {
            watch.end_of_edit().await;
        }
        watch
    }

    /// The path under which this process sees a file of the namespace that a watch lives in.
    pub(crate) fn seen_by(&self, watch: &Watch, relative: &str) -> PathBuf {
        Path::new("/proc")
            .join(watch.pid().to_string())
            .join("root")
            .join(self.path(relative).strip_prefix("/").unwrap())
    }
}

impl Watch {
    /// The next event that ends an edit of this routine.
    pub(crate) async fn end_of_edit_of(&mut self, routine: &str) -> Value {
        loop {
            let next = self.next().await;
            if next["routine"] == routine && ends_an_edit(&next) {
                return next;
            }
        }
    }

    /// The events of one kind so far that are about a routine.
    pub(crate) fn count(&self, event: &str, routine: &str) -> usize {
        let seen = self.seen();
        seen.filter(|it| it["event"] == event && it["routine"] == routine)
            .count()
    }
}

/// The beginning of some code, for a message.
fn shorten(code: &[u8]) -> String {
    let text = String::from_utf8_lossy(code);
    let start: String = text.chars().take(100).collect();
    format!("{} bytes: {start:?}", code.len())
}

/// Does blocking work beside the emulator, which lives in the test's own thread.
pub(crate) async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Runs a program to its end, in a directory.
pub(crate) async fn run(program: &str, arguments: &[&str], dir: &Path) {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = tokio::time::timeout(LIMIT, command.status())
        .await
        .expect("the program hangs")
        .unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// Writes a file in pieces, with a pause after each, and closes it.
pub(crate) fn write_slowly(path: &Path, text: &str, pieces: usize, pause: Duration) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    for piece in text.as_bytes().chunks(text.len().div_ceil(pieces)) {
        file.write_all(piece).unwrap();
        std::thread::sleep(pause);
    }
}

/// A program that has mapped a file into its memory and stores into that.
pub(crate) struct Mapper {
    child: Child,
    orders: ChildStdin,
    answers: tokio::io::Lines<BufReader<ChildStdout>>,
}

/// Whether a mapped file stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    /// As long as it is mapped.
    Kept,
    /// No longer than it takes to map it, so that no event tells of the end of writing.
    No,
}

impl Mapper {
    /// Maps a file; `None`, said aloud, where there is no program for that.
    pub(crate) async fn start(path: &Path, open: Open) -> Option<Self> {
        const SCRIPT: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
fd = os.open(sys.argv[1], os.O_RDWR)
memory = libc.mmap(None, os.fstat(fd).st_size, 3, 1, fd, 0)
if sys.argv[2] == "No":
    os.close(fd)
print("mapped", flush=True)
for line in sys.stdin:
    text = bytes.fromhex(line)
    ctypes.memmove(memory, text, len(text))
    print("stored", flush=True)
"#;
        if !has("python3") {
            return None;
        }
        let mut child = Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(path)
            .arg(format!("{open:?}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut mapper = Self {
            orders: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        };
        if mapper.answer().await.as_deref() != Some("mapped") {
            say("SKIPPED: python3 cannot map a file on this machine");
            return None;
        }
        Some(mapper)
    }

    /// Stores a text at the start of the file.
    pub(crate) async fn store(&mut self, text: &str) {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let order = format!("{hex}\n");
        self.orders.write_all(order.as_bytes()).await.unwrap();
        assert_eq!(self.answer().await.as_deref(), Some("stored"));
    }

    async fn answer(&mut self) -> Option<String> {
        let line = tokio::time::timeout(LIMIT, self.answers.next_line()).await;
        line.expect("the program hangs").unwrap()
    }

    /// Ends the program, and with it the mapping.
    pub(crate) async fn end(mut self) {
        drop(self.orders);
        assert!(self.child.wait().await.unwrap().success());
    }
}
