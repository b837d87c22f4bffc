//! What a watch costs while nothing happens, beside trees of growing size: time until it is ready, memory, processor
//! time.
//!
//! `cargo bench --bench idle` looks for 20 seconds at each size, `cargo bench --bench idle -- 60` for a minute. Times of
//! readiness are also given as a ratio to one listing of every directory of the tree, taken in the same run, since that
//! is what anything has to do that looks at the whole tree.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use er_dev::emulator::world::Settings;
use er_dev::emulator::{Emulator, Options};
use er_dev::routine::RoutineName;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

const FILES_PER_DIRECTORY: usize = 100;

/// How often each start and each listing is timed.
const TIMES: usize = 7;

/// What a start does is over after this time.
const SETTLED: Duration = Duration::from_secs(5);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let watched = Duration::from_secs(seconds.unwrap_or(20));
    let runtime = tokio::runtime::Runtime::new()?;
    let name = RoutineName::new("hello")?;
    let options = Options {
        routines: vec![name],
        settings: Settings::default(),
        ..Options::default()
    };
    let emulator = runtime.block_on(Emulator::start(options))?;
    let mut out = io::stdout();
    writeln!(
        out,
        "{:>8} {:>10} {:>10} {:>7} {:>9} {:>12}",
        "files", "listing", "ready", "ratio", "resident", "cpu a minute"
    )?;
    for files in SIZES {
        let project = tempfile::tempdir()?;
        fill(project.path(), files, &emulator.endpoint())?;
        let tree = project.path().join("src");
        let listing = median(|| Ok(timed(|| list(&tree))?.0))?;
        let ready = median(|| {
            let (took, child) = timed(|| start(project.path()))?;
            end(child)?;
            Ok(took)
        })?;
        let child = start(project.path())?;
        std::thread::sleep(SETTLED);
        let before = processor_time(child.id())?;
        std::thread::sleep(watched);
        let used = processor_time(child.id())? - before;
        let resident = resident(child.id())?;
        end(child)?;
        let a_minute = used.mul_f64(60.0 / watched.as_secs_f64());
        writeln!(
            out,
            "{files:>8} {:>7.1} ms {:>7.1} ms {:>7.2} {:>6.1} MB {:>9.1} ms",
            milliseconds(listing),
            milliseconds(ready),
            ready.as_secs_f64() / listing.as_secs_f64(),
            resident as f64 / 1024.0,
            milliseconds(a_minute),
        )?;
    }
    Ok(())
}

/// A project whose entry lies at the top of a tree of so many files.
fn fill(project: &Path, files: usize, endpoint: &str) -> io::Result<()> {
    for directory in 0..files / FILES_PER_DIRECTORY {
        let path = project.join(format!("src/d{directory}"));
        fs::create_dir_all(&path)?;
        for file in 0..FILES_PER_DIRECTORY {
            fs::write(path.join(format!("f{file}.js")), "// nothing\n")?;
        }
    }
    fs::write(project.join("src/index.js"), "// the entry\n")?;
    let config = format!(
        "[service]\nendpoint = \"{endpoint}\"\n[[routine]]\nname = \"hello\"\nentry = \"src/index.js\"\n"
    );
    fs::write(project.join("er-dev.toml"), config)
}

/// Starts a watch and waits until it is ready.
fn start(project: &Path) -> Outcome<Child> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_er-dev"))
        .arg("watch")
        .current_dir(project)
        .env_clear()
        .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "emulator-key-id")
        .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "emulator-key-secret")
        .env("ER_DEV_STATE_DIR", project.join("state"))
        .env("ER_DEV_FORMAT", "json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let is_ready = |line: &io::Result<String>| {
        line.as_ref()
            .is_ok_and(|line| line.contains("\"event\":\"ready\""))
    };
    if !lines.any(|line| is_ready(&line)) {
        return Err("er-dev ended before it was ready".into());
    }
    // Whatever it says from here on is read, too, so that it never waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    Ok(child)
}

fn end(mut child: Child) -> io::Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn list(directory: &Path) -> Outcome<usize> {
    let mut seen = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        seen += 1;
        if entry.file_type()?.is_dir() {
            seen += list(&entry.path())?;
        }
    }
    Ok(seen)
}

fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<(Duration, T)> {
    let begun = Instant::now();
    let done = work()?;
    Ok((begun.elapsed(), done))
}

fn median(mut time: impl FnMut() -> Outcome<Duration>) -> Outcome<Duration> {
    let mut times = (0..TIMES).map(|_| time()).collect::<Outcome<Vec<_>>>()?;
    times.sort();
    Ok(times[TIMES / 2])
}

/// What all threads of a process have used.
fn processor_time(pid: u32) -> Outcome<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let used = text.split_whitespace().next().ok_or("no schedstat")?;
        nanoseconds += used.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Memory of a process in KiB.
fn resident(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.ok_or("no VmRSS")?.parse()?)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
