//! The forms of output, side by side: one run in which many things go wrong, as a log, as JSON, as logfmt, as entries of
//! the journal and on a terminal. What is another one in each run, such as times and numbers, has a fixed word here.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use crate::common::{Bed, LIMIT, QUICK, code};
use crate::terminal::Terminal;

/// Where a run is read: what it tells, one event after the other.
trait Told {
    /// Waits until an event of this kind is told after those that were waited for before.
    async fn until(&mut self, event: &str);
}

/// One run: a first upload into the last slot, a save that changes nothing, a file that does not parse, a service that
/// asks for a pause, and somebody else who takes the free slot while the service cannot be asked who it was.
async fn play(bed: &Bed, told: &mut impl Told) {
    told.until("ready").await;
    told.until("rotated").await;
    save(bed, &code("hello", 0));
    told.until("unchanged").await;
    save(bed, "const hit = true;\nif (hit) { return hit; }}\n");
    told.until("error").await;
    bed.fault("UploadRoutineCode:1:code(Throttling.User,slow down,400)");
    save(bed, &code("hello", 1));
    told.until("throttled").await;
    told.until("uploaded").await;
    told.until("rotated").await;
    bed.fault("DescribeRoutine:*:drop_before");
    bed.seed_now("hello");
    save(bed, &code("hello", 2));
    told.until("offline").await;
    bed.emulator.clear_faults();
    told.until("foreign").await;
    told.until("rotated").await;
    told.until("uploaded").await;
    told.until("online").await;
    told.until("rotated").await;
}

/// Saves in one step, so that there is one event of it.
fn save(bed: &Bed, text: &str) {
    std::fs::write(bed.path("next.js"), text).unwrap();
    std::fs::rename(bed.path("next.js"), bed.entry("hello")).unwrap();
}

/// A bed whose routine has one free slot, the others being somebody else's.
async fn bed() -> Bed {
    let bed = Bed::new(&["hello"]).await;
    bed.seed("hello", 9);
    bed
}

/// A run without a terminal.
struct Lines {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    told: String,
}

impl Lines {
    fn start(bed: &Bed, format: &str) -> Self {
        let mut command = bed.command(&[&["watch"], QUICK].concat());
        command
            .env("ER_DEV_FORMAT", format)
            .env("TZ", "UTC")
            .stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        Self {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            told: String::new(),
        }
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await;
        let line = line.expect("nothing more was told").unwrap()?;
        self.told.push_str(&line);
        self.told.push('\n');
        Some(line)
    }

    async fn end(mut self, bed: &Bed) -> String {
        stop(&self.child);
        while self.next().await.is_some() {}
        let ended = tokio::time::timeout(LIMIT, self.child.wait()).await;
        assert_eq!(ended.unwrap().unwrap().code(), Some(0));
        let odd = |c: char| c.is_control() && c != '\n';
        assert!(!self.told.contains(odd), "{:?}", self.told);
        steady(bed, &self.told)
    }
}

impl Told for Lines {
    async fn until(&mut self, event: &str) {
        loop {
            let line = self.next().await;
            let line = line.unwrap_or_else(|| panic!("never {event}: {}", self.told));
            if line.to_lowercase().contains(event) {
                return;
            }
        }
    }
}

fn stop(child: &Child) {
    let pid = child.id().expect("er-dev runs").cast_signed();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::INT)
        .unwrap();
}

#[tokio::test]
async fn a_log_is_text_for_people_one_line_an_event() {
    let bed = bed().await;
    let mut lines = Lines::start(&bed, "text");
    play(&bed, &mut lines).await;
    insta::assert_snapshot!(lines.end(&bed).await);
}

#[tokio::test]
async fn json_is_one_object_a_line() {
    let bed = bed().await;
    let mut lines = Lines::start(&bed, "json");
    play(&bed, &mut lines).await;
    insta::assert_snapshot!(lines.end(&bed).await);
}

#[tokio::test]
async fn logfmt_has_the_fields_of_json() {
    let bed = bed().await;
    let mut lines = Lines::start(&bed, "logfmt");
    play(&bed, &mut lines).await;
    insta::assert_snapshot!(lines.end(&bed).await);
}

/// A journal that remembers.
struct Journal {
    socket: UnixDatagram,
    waiting: VecDeque<String>,
    told: String,
}

impl Journal {
    fn open(bed: &Bed) -> Self {
        let socket = UnixDatagram::bind(bed.path("journal")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            waiting: VecDeque::new(),
            told: String::new(),
        }
    }

    /// Takes what has come; each entry becomes a text of its fields, one a line.
    fn take(&mut self) {
        let mut entry = vec![0; 1 << 16];
        while let Ok(length) = self.socket.recv(&mut entry) {
            let text = String::from_utf8(entry[..length].to_vec()).unwrap();
            self.told.push_str(&text);
            self.told.push('\n');
            self.waiting.push_back(text);
        }
    }
}

impl Told for Journal {
    async fn until(&mut self, event: &str) {
        let told = async {
            loop {
                self.take();
                while let Some(entry) = self.waiting.pop_front() {
                    if entry.contains(&format!("\nER_DEV_EVENT={event}\n")) {
                        return;
                    }
                }
                // The other end is in another process, and this runtime does not wait for datagrams of std.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, told).await;
        assert!(waited.is_ok(), "never {event}: {}", self.told);
    }
}

#[tokio::test]
async fn the_journal_gets_entries_with_priority_and_fields_and_nothing_twice() {
    let bed = bed().await;
    let mut journal = Journal::open(&bed);
    let log = std::fs::File::create(bed.path("stderr")).unwrap();
    let named = log.metadata().unwrap();
    let mut command = bed.command(&[&["watch", "--log", "info"], QUICK].concat());
    command
        .env("ER_DEV_FORMAT", "text")
        .env("ER_DEV_JOURNAL_SOCKET", bed.path("journal"))
        .env("JOURNAL_STREAM", format!("{}:{}", named.dev(), named.ino()))
        .stderr(log);
    let child = command.spawn().unwrap();
    play(&bed, &mut journal).await;
    stop(&child);
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "", "told twice");
    journal.take();
    insta::assert_snapshot!(steady(&bed, &journal.told));
    let log = std::fs::read_to_string(bed.path("stderr")).unwrap();
    assert!(!log.is_empty());
    let year = jiff::Zoned::now().year().to_string();
    for line in log.lines() {
        assert!(line.starts_with("<6>") || line.starts_with("<4>"), "{line}");
        assert!(
            !line.contains(&format!("{year}-")),
            "a time of its own: {line}"
        );
    }
}

#[tokio::test]
async fn where_the_journal_takes_nothing_its_stream_gets_the_line_with_its_priority() {
    let bed = Bed::new(&["hello"]).await;
    let log = std::fs::File::create(bed.path("stderr")).unwrap();
    let named = log.metadata().unwrap();
    for (stream, begins) in [
        (format!("{}:{}", named.dev(), named.ino()), "<6>er-dev  "),
        // Somebody else's stream, as a shell below a service has it.
        (format!("{}:{}", named.dev(), named.ino() + 1), "er-dev "),
    ] {
        let mut command = bed.command(&["watch", "--once"]);
        command
            .env("ER_DEV_FORMAT", "text")
            .env("ER_DEV_JOURNAL_SOCKET", bed.path("nobody"))
            .env("JOURNAL_STREAM", stream)
            .stderr(log.try_clone().unwrap());
        let child = command.spawn().unwrap();
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
        let told = String::from_utf8(output.unwrap().unwrap().stdout).unwrap();
        assert!(told.starts_with(begins), "{told}");
        let prefixed = told.lines().all(|line| line.starts_with('<'));
        assert_eq!(prefixed, begins.starts_with('<'), "{told}");
    }
}

impl Told for Terminal {
    async fn until(&mut self, event: &str) {
        let mut verb = event.to_owned();
        verb[..1].make_ascii_uppercase();
        self.until_new_row(&format!("{verb}  ")).await;
    }
}

#[tokio::test]
async fn a_terminal_shows_one_line_an_outcome_with_frames_and_how_things_stand_in_the_last() {
    let bed = bed().await;
    let Some(mut terminal) = Terminal::watch(&bed, (150, 50), &[]).await else {
        return;
    };
    play(&bed, &mut terminal).await;
    // Until then something is running, which stands between.
    terminal.until_last("s  hello [#########-] 9/10").await;
    let standing = terminal.rows().join("\n");
    terminal.press("q").await;
    terminal.until_row("Done").await;
    terminal.ended("0").await;
    let rows = terminal.rows().join("\n");
    let rows = rows.split_once("ended with").unwrap().0;
    let both = format!("{standing}\n\nand at the end:\n\n{rows}");
    insta::assert_snapshot!(steady(&bed, &both));
}

/// A text with fixed words for what is another one in each run: versions, the port, times of day, how long something
/// took, and counts that depend on how fast the machine is.
fn steady(bed: &Bed, text: &str) -> String {
    let text = text.replace(&bed.emulator.address().to_string(), "ADDRESS");
    let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let lines: Vec<String> = text.lines().map(words).collect();
    // Whether the last version is still being cleared away at the stop is another matter in each run.
    let parts = lines.join("\n");
    let between = if text.contains("\nMESSAGE=") {
        "\n\n"
    } else {
        "\n"
    };
    let told = parts.split(between);
    let told = told.filter(|part| !part.to_lowercase().contains("stopping"));
    told.collect::<Vec<_>>().join(between)
}

/// A line with its words made steady.
fn words(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || ".:-_".contains(c);
    let (mut out, mut before, mut rest) = (String::new(), "", line);
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        let begins = |c: char| is_part(c) && c != ':';
        let (gap, next) = behind.split_at(behind.find(begins).unwrap_or(behind.len()));
        let steady = match word.strip_suffix('s') {
            // Whether there were several is another matter in each run, too.
            Some(one) if UNITS.contains(&one) && before == "N" => one,
            _ => steady_word(before, word, behind),
        };
        out.push_str(steady);
        out.push_str(gap);
        (before, rest) = (steady, next);
    }
    // Where the count of slots stands depends on how long the words before it are.
    match out.rsplit_once("  ") {
        Some((start, slots)) if slots.ends_with("/10") => {
            format!("{}  {}", start.trim_end(), slots.trim_start())
        }
        _ => out,
    }
}

/// What is counted in text.
const UNITS: [&str; 4] = ["save", "call", "second", "API call"];

/// What stands for a word, which has one before it and a rest of the line behind it.
fn steady_word<'a>(before: &str, word: &'a str, behind: &str) -> &'a str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = word.strip_suffix('s').unwrap_or_default();
    let counts = |behind: &str| {
        let unit = behind.strip_prefix(' ').unwrap_or_default();
        let rest = UNITS.iter().find_map(|one| unit.strip_prefix(one));
        rest.is_some_and(|rest| !rest.trim_start_matches('s').starts_with('='))
    };
    let key = before
        .trim_start_matches("ER_DEV_")
        .trim_end_matches(':')
        .to_lowercase();
    let keys = [
        "ms",
        "after_ms",
        "lasted_ms",
        "up_ms",
        "age_s",
        "next.age_s",
        "next_age_s",
        "calls",
        "peak",
        "saves",
    ];
    if is_number(word) && word.len() == 19 || word.strip_prefix("...").is_some_and(is_number) {
        "REVISION"
    } else if is_number(&seconds.replacen('.', "", 1)) {
        "TIME"
    } else if word.len() == 8 && word.matches(':').count() == 2
        || word.len() == 24 && word.ends_with('Z')
    {
        "TIME-OF-DAY"
    } else if is_number(word) && (keys.contains(&key.as_str()) || counts(behind)) {
        "N"
    } else {
        word
    }
}
