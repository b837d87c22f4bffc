//! What the process does before anything else, for the secrets that it will hold: it leaves no core file, lets no other
//! process look into it, and writes neither a log line nor the message of a panic with a secret in it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::PanicHookInfo;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::report::log::LogOut;
use crate::report::words::is_hidden;
use crate::secrets;

/// Does all of it. What the system refuses is left as it is: er-dev is of use without, too.
pub fn confine() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    // A core file that goes to a program, as most systems have it today, is no matter of that limit.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    std::panic::set_hook(Box::new(|info| {
        let _ = io::stderr().write_all(told(info).as_bytes());
    }));
}

/// Standard error for log lines, each of which comes in one piece.
#[derive(Debug, Clone, Copy)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let scrubbed = secrets::scrub(&String::from_utf8_lossy(line));
        LogOut.write_all(scrubbed.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        LogOut.flush()
    }
}

/// What is said of a panic: its own words, without secrets and without what a terminal would obey.
fn told(info: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let place = info.location().map(|place| format!(" at {place}"));
    let words = info.payload_as_str().unwrap_or("no words");
    let mut text = format!(
        "er-dev panicked in the thread {thread}{}: {}\n",
        place.unwrap_or_default(),
        escaped(&secrets::scrub(words))
    );
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&secrets::scrub(&backtrace.to_string()));
    }
    text
}

/// A text of several lines, perhaps, without what a terminal obeys or hides.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if is_hidden(c) && c != '\n' {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}
