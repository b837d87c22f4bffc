//! At a terminal: what somebody sees of a running watch, and that the terminal is given back as it was. The program runs
//! in a real pseudo-terminal, and what it writes is shown by a terminal in this process.

use std::collections::HashMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::common::{Bed, LIMIT, code, finish, has, name};

/// A terminal with a shell that runs er-dev and then says how it left the terminal.
pub(crate) struct Terminal {
    child: Child,
    keys: ChildStdin,
    bytes: ChildStdout,
    parser: vt100::Parser,
    /// Everything that was written, as it came.
    raw: Vec<u8>,
    pid: PathBuf,
    /// How many rows with these words have been waited for.
    met: HashMap<String, usize>,
}

fn sized(size: u16) -> NonZero<u16> {
    NonZero::new(size).unwrap()
}

impl Terminal {
    /// Runs `er-dev watch` in a terminal of this size; `None`, said aloud, where there is no program for that.
    pub(crate) async fn watch(
        bed: &Bed,
        size: (u16, u16),
        environment: &[(&str, &str)],
    ) -> Option<Self> {
        Self::run(bed, size, environment, "watch").await
    }

    /// The same with another command.
    async fn run(
        bed: &Bed,
        (columns, rows): (u16, u16),
        environment: &[(&str, &str)],
        arguments: &str,
    ) -> Option<Self> {
        if !has("script") || !has("stty") {
            return None;
        }
        let (er_dev, pid) = (env!("CARGO_BIN_EXE_er-dev"), bed.path("pid"));
        let run = format!(
            "trap : INT; stty cols {columns} rows {rows}; sh -c 'echo $$ >pid; exec {er_dev} {arguments}'; echo ended with $?; stty -a"
        );
        let mut command = Command::new("script");
        command.args(["-qfc", &run, "/dev/null"]);
        bed.furnish(&mut command);
        command
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("ER_DEV_FORMAT", "text")
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .env("TZ", "UTC")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Some(Self {
            keys: child.stdin.take().unwrap(),
            bytes: child.stdout.take().unwrap(),
            child,
            parser: vt100::Parser::new(sized(rows), sized(columns), 1_000),
            raw: Vec::new(),
            pid,
            met: HashMap::new(),
        })
    }

    pub(crate) fn rows(&self) -> Vec<String> {
        let screen = self.parser.screen();
        let mut rows: Vec<String> = screen.rows(0, screen.size().1.get()).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    fn last(&self) -> String {
        self.rows().pop().unwrap_or_default()
    }

    /// Waits until the screen is as it should be.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(LIMIT, async {
            let mut buffer = [0; 4096];
            while !holds(self) {
                match self.bytes.read(&mut buffer).await.unwrap() {
                    0 => panic!("the terminal ended before {what}: {:#?}", self.rows()),
                    read => {
                        self.raw.extend(&buffer[..read]);
                        self.parser.process(&buffer[..read]);
                    }
                }
            }
        });
        if waited.await.is_err() {
            panic!("never {what}: {:#?}", self.rows());
        }
    }

    pub(crate) async fn until_last(&mut self, words: &str) {
        self.until(words, |terminal| terminal.last().contains(words))
            .await;
    }

    pub(crate) async fn until_row(&mut self, words: &str) {
        let holds = |terminal: &Self| terminal.rows().iter().any(|row| row.contains(words));
        self.until(words, holds).await;
    }

    /// Waits until more rows than ever before in this wait hold these words.
    pub(crate) async fn until_new_row(&mut self, words: &str) {
        let seen = *self.met.get(words).unwrap_or(&0);
        let count = |terminal: &Self| {
            let rows = terminal.rows();
            rows.iter().filter(|row| row.contains(words)).count()
        };
        self.until(words, |terminal| count(terminal) > seen).await;
        self.met.insert(words.to_owned(), seen + 1);
    }

    pub(crate) async fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).await.unwrap();
        self.keys.flush().await.unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        let pid = std::fs::read_to_string(&self.pid).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
    }

    /// Waits until everything has ended; the terminal has to be as it was.
    pub(crate) async fn ended(&mut self, code: &str) {
        self.until_row(&format!("ended with {code}")).await;
        self.until_row("icanon").await;
        let text = self.rows().join(" ");
        let modes: Vec<&str> = text.split_whitespace().collect();
        for mode in ["icanon", "echo", "isig"] {
            assert!(modes.contains(&mode), "{mode} is off: {text}");
        }
        assert!(tokio::time::timeout(LIMIT, self.child.wait()).await.is_ok());
    }

    fn row_of(&self, words: &str) -> String {
        let rows = self.rows();
        let row = rows.iter().find(|row| row.contains(words));
        row.unwrap_or_else(|| panic!("no {words}: {rows:#?}"))
            .clone()
    }
}

#[tokio::test]
async fn the_last_line_says_how_things_stand_below_one_line_an_outcome() {
    let bed = Bed::new(&["hello", "api"]).await;
    let Some(mut terminal) = Terminal::watch(&bed, (110, 30), &[]).await else {
        return;
    };
    terminal.until_last("watching 2 routines").await;
    terminal.until_last("hello [#---------] 1/10").await;
    bed.write("hello", &code("hello", 1));
    terminal.until_last("hello [##--------] 2/10").await;
    let last = terminal.last();
    assert!(last.ends_with("h help"), "{last}");
    let uploaded = terminal.row_of("1 save");
    assert!(uploaded.contains("Uploaded  hello"), "{uploaded}");
    assert!(uploaded.ends_with("2/10"), "{uploaded}");
    terminal.press("q").await;
    terminal.until_row("Done").await;
    terminal.ended("0").await;
    let done = terminal.row_of("Done");
    assert!(
        done.contains("2 edits") || done.contains("3 edits"),
        "{done}"
    );
    let rows = terminal.rows();
    assert!(
        !rows.iter().any(|row| row.contains("watching 2")),
        "{rows:#?}"
    );
}

#[tokio::test]
async fn a_line_that_repeats_itself_is_one_with_a_count() {
    let bed = Bed::new(&["hello"]).await;
    let Some(mut terminal) = Terminal::watch(&bed, (110, 30), &[]).await else {
        return;
    };
    terminal.until_last("1/10").await;
    for times in 1..=3 {
        // The same fault in other bytes each time.
        let space = " ".repeat(times);
        bed.write("hello", &format!("let broken = ;\n{space}"));
        let words = match times {
            1 => "[source]".to_owned(),
            times => format!("(x{times})"),
        };
        terminal.until_row(&words).await;
    }
    let errors = terminal
        .rows()
        .iter()
        .filter(|row| row.contains("Error"))
        .count();
    assert_eq!(errors, 1, "{:#?}", terminal.rows());
    terminal.press("q").await;
    terminal.ended("0").await;
}

#[tokio::test]
async fn keys_help_pause_continue_and_show_versions_and_none_publishes() {
    let bed = Bed::new(&["hello"]).await;
    let Some(mut terminal) = Terminal::watch(&bed, (110, 40), &[]).await else {
        return;
    };
    terminal.until_last("1/10").await;
    terminal.press("h").await;
    terminal.until_row("No key publishes anything").await;
    terminal.press("p").await;
    terminal.until_last("paused (p continues)").await;
    bed.write("hello", &code("hello", 1));
    terminal.until_last("1 waiting").await;
    assert_eq!(bed.versions("hello").len(), 1);
    let (code, status) = bed.status().await;
    assert_eq!(code, Some(1), "{status}");
    assert_eq!(status["conditions"][0]["condition"], "paused", "{status}");
    terminal.press("p").await;
    terminal.until_last("2/10").await;
    terminal.press("r").await;
    terminal.until_row("hello  2 of 10 slots taken").await;
    terminal.until_row("stays: newest").await;
    terminal.press("q").await;
    terminal.ended("0").await;
    assert!(
        bed.history()
            .iter()
            .all(|record| !record.op.starts_with("Publish"))
    );
}

#[tokio::test]
async fn u_tries_at_once_what_waits_for_its_next_try() {
    let bed = Bed::new(&["hello"]).await;
    let config = std::fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    let late = "[[routine]]\nname = \"late\"\nentry = \"src/late.js\"\n";
    std::fs::write(bed.path("er-dev.toml"), config + late).unwrap();
    bed.write("late", &code("late", 0));
    let Some(mut terminal) = Terminal::watch(&bed, (110, 30), &[]).await else {
        return;
    };
    // It is looked for again in five minutes.
    terminal.until_row("[missing]").await;
    bed.emulator.with_world(|world| {
        let made = jiff::Timestamp::now();
        world.create_routine(&name("late"), "", made).unwrap();
    });
    terminal.press("u").await;
    terminal.until_row("Uploaded  late").await;
    terminal.press("q").await;
    terminal.ended("0").await;
}

#[tokio::test]
async fn a_suspended_watch_gives_the_terminal_back_and_takes_it_again() {
    let bed = Bed::new(&["hello"]).await;
    let Some(mut terminal) = Terminal::watch(&bed, (110, 30), &[]).await else {
        return;
    };
    terminal.until_last("1/10").await;
    terminal.signal(Signal::TSTP);
    terminal
        .until("taken away", |terminal| {
            !terminal.last().contains("watching")
        })
        .await;
    let stat = format!("/proc/{}/stat", terminal.pid().as_raw_nonzero());
    let stopped = async {
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, stopped).await.unwrap();
    bed.write("hello", &code("hello", 1));
    terminal.signal(Signal::CONT);
    terminal.until_last("2/10").await;
    terminal.press("q").await;
    terminal.ended("0").await;
}

#[tokio::test]
async fn ctrl_c_ends_it_as_q_does() {
    let bed = Bed::new(&["hello"]).await;
    let Some(mut terminal) = Terminal::watch(&bed, (110, 30), &[]).await else {
        return;
    };
    terminal.until_last("1/10").await;
    // The terminal makes a signal of it, since only the echo and the lines are off.
    terminal.press("\x03").await;
    terminal.ended("0").await;
}

#[tokio::test]
async fn a_narrow_terminal_never_wraps_its_last_line() {
    let bed = Bed::new(&["hello", "api"]).await;
    let Some(mut terminal) = Terminal::watch(&bed, (40, 30), &[]).await else {
        return;
    };
    terminal.until_last("watching 2 routines").await;
    terminal.until_row("Uploaded  hello").await;
    terminal.until_last("h help").await;
    assert!(terminal.last().chars().count() < 40, "{}", terminal.last());
    terminal.press("q").await;
    terminal.ended("0").await;
}

#[tokio::test]
async fn a_dumb_terminal_gets_no_escapes_and_one_without_colour_no_colours() {
    let bed = Bed::new(&["hello"]).await;
    for (variable, value, allowed) in [("TERM", "dumb", false), ("NO_COLOR", "1", true)] {
        let Some(mut terminal) = Terminal::watch(&bed, (110, 30), &[(variable, value)]).await
        else {
            return;
        };
        terminal.until_row("Ready").await;
        terminal.signal(Signal::INT);
        terminal.ended("0").await;
        let raw = String::from_utf8_lossy(&terminal.raw).into_owned();
        assert!(
            !raw.contains("\x1b[1m") && !raw.contains("\x1b[3"),
            "{raw:?}"
        );
        assert!(allowed || !raw.contains('\x1b'), "{raw:?}");
    }
}

#[tokio::test]
async fn status_is_drawn_anew_in_its_place_and_after_another_size_on_an_empty_terminal() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let started = Terminal::run(&bed, (110, 30), &[], "status --watch").await;
    let Some(mut terminal) = started else {
        return;
    };
    terminal.until_row("1/10").await;
    bed.write("hello", &code("hello", 1));
    terminal.until_row("2/10").await;
    let rows = terminal.rows();
    let heads = rows.iter().filter(|row| row.contains("er-dev 0.1.0"));
    assert_eq!(heads.count(), 1, "{rows:#?}");
    watch.stop().await;
    terminal.until_row("no er-dev watch runs").await;
    terminal.press("\x03").await;
    terminal.ended("75").await;
}

#[tokio::test]
async fn init_asks_what_to_write_and_an_empty_answer_is_the_one_in_capitals() {
    let bed = Bed::new(&["hello"]).await;
    std::fs::remove_file(bed.path("er-dev.toml")).unwrap();
    std::fs::remove_file(bed.entry("hello")).unwrap();
    let Some(mut terminal) = Terminal::run(&bed, (110, 30), &[], "init").await else {
        return;
    };
    terminal
        .until_last("write one to src/hello.js? [Y/n]")
        .await;
    terminal.press("\n").await;
    terminal.until_last("at their first upload? [y/N]").await;
    terminal.press("y\n").await;
    terminal.ended("0").await;
    let written = std::fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    assert!(written.contains("\ncreate = true\n"), "{written}");
    assert!(bed.entry("hello").is_file());
}

#[tokio::test]
async fn off_a_terminal_every_form_is_whole_lines_without_escapes() {
    for format in ["text", "json", "logfmt"] {
        let bed = Bed::new(&["hello"]).await;
        let mut command = bed.command(&["watch", "--once"]);
        command.env("ER_DEV_FORMAT", format).env("TERM", "xterm");
        let ended = finish(command).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let odd = |c: char| c.is_control() && c != '\n';
        assert!(!ended.stdout.contains(odd), "{:?}", ended.stdout);
        assert!(ended.stdout.ends_with('\n'));
        if format == "logfmt" {
            let uploaded = ended
                .stdout
                .lines()
                .find(|line| line.contains("event=uploaded"));
            let uploaded = uploaded.unwrap_or_else(|| panic!("{}", ended.stdout));
            assert!(uploaded.starts_with("v=1 ts="), "{uploaded}");
            assert!(uploaded.contains(" routine=hello "), "{uploaded}");
        }
    }
}
