//! Logs on standard error: their form, and a bound on what repeats itself.
//!
//! A warning that comes from the same line of source again and again is written the first, tenth, hundredth time and so
//! on within a minute, with its count. What is logged at lower levels was asked for, and is written each time. Where
//! standard error is the journal's, a line has its priority in front instead of a time that the journal knows anyway.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::words::is_power_of_ten;
use super::{LIVE, LOGGED, journal};

/// How long repetitions of a message are counted together.
const WINDOW: Duration = Duration::from_secs(60);

/// Standard error for logs. Where a live line stands, it is erased first, and the report draws it anew.
#[derive(Debug, Default)]
pub struct LogOut;

impl Write for LogOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = io::stderr().lock();
        if LIVE.load(Ordering::Relaxed) && out.is_terminal() {
            LOGGED.fetch_add(1, Ordering::Relaxed);
            out.write_all(b"\r\x1b[J")?;
        }
        out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The form of logs.
#[derive(Debug)]
pub struct LogForm {
    /// Whether the journal reads them.
    to_journal: bool,
    repeated: Mutex<Repeated<Identifier>>,
}

impl LogForm {
    /// The form for a standard error that is the journal's, or is not.
    pub fn new(to_journal: bool) -> Self {
        Self {
            to_journal,
            repeated: Mutex::new(Repeated::default()),
        }
    }
}

impl<S, N> FormatEvent<S, N> for LogForm
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        let mut times = 1;
        if level <= Level::WARN {
            let mut repeated = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
            match repeated.again(event.metadata().callsite(), Instant::now()) {
                Some(told) => times = told,
                None => return Ok(()),
            }
        }
        let form = Format::default().with_ansi(out.has_ansi_escapes());
        let mut line = String::new();
        let inner = Writer::new(&mut line);
        if self.to_journal {
            let form = form.without_time().with_level(false);
            form.format_event(context, inner, event)?;
        } else {
            form.format_event(context, inner, event)?;
        }
        let mut line = line.trim_end().to_owned();
        if times > 1 {
            line.push_str(&format!(" (x{times} within a minute)"));
        }
        if self.to_journal {
            out.write_str(&journal::prefixed(priority(level), &line))
        } else {
            writeln!(out, "{line}")
        }
    }
}

/// The priority of a level, as syslog counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// How often each message came within its present minute. There are as many as lines of source that can warn.
#[derive(Debug)]
struct Repeated<K>(HashMap<K, (Instant, u32)>);

impl<K> Default for Repeated<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: std::hash::Hash + Eq> Repeated<K> {
    /// Counts a message; tells its count where it is to be written.
    fn again(&mut self, message: K, now: Instant) -> Option<u32> {
        let (since, times) = self.0.entry(message).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= WINDOW {
            (*since, *times) = (now, 0);
        }
        *times = times.saturating_add(1);
        is_power_of_ten(*times).then_some(*times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_told_the_first_tenth_and_hundredth_time_within_a_minute() {
        let start = Instant::now();
        let mut repeated = Repeated::default();
        let mut at = |millis: u64| {
            let now = start + Duration::from_millis(millis);
            repeated.again("full", now)
        };
        let told: Vec<u32> = (0..250).filter_map(&mut at).collect();
        assert_eq!(told, [1, 10, 100]);
        assert_eq!(at(59_999), None);
        assert_eq!(at(60_000), Some(1), "a new minute");
        assert_eq!(at(60_001), None);
        assert_eq!(repeated.again("another", start), Some(1));
    }
}
