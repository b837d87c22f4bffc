//! What er-dev tells: one [`Event`] a line, as text for people or as JSON for programs.
//!
//! The daemon and the commands hand events in; nothing else in the program writes to standard output. Logs are
//! another matter: they go through `tracing` to standard error, in the form of `log`. Totals are counted by whoever runs the edits.
//!
//! [`Report`] is the shell: it reads the clock and writes. What a line looks like is decided in pure files, `text`,
//! `json` and those that go by them; the serde attributes here are the shape that `json` documents.

pub mod class;
pub mod frame;
pub mod journal;
pub mod json;
pub mod live;
pub mod log;
pub mod logfmt;
pub mod question;
pub mod screen;
pub mod standing;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
pub mod words;

use std::io::{self, IsTerminal as _, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::routine::{Digest, Revision, RoutineName};

use class::Class;
use live::Glance;
use screen::Screen;
use standing::Standing;

/// Something worth a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The program has read its configuration and found its credentials.
    Started {
        /// The version of er-dev.
        version: &'static str,
        /// The host of the service.
        #[serde(serialize_with = "json::text")]
        endpoint: String,
        /// The access key's identifier, shortened so that it only reminds of the key.
        #[serde(serialize_with = "json::text")]
        key: String,
        /// Where the credentials come from.
        #[serde(serialize_with = "json::text")]
        source: String,
    },
    /// The watcher is armed.
    Watching {
        /// Routines watched.
        routines: usize,
        /// Files seen in their directories, ignored ones left out.
        files: usize,
        /// Directories watched.
        directories: usize,
        /// How changes are noticed: `inotify` or `poll`.
        backend: &'static str,
    },
    /// What a routine holds before anything is done to it.
    Slots {
        /// The routine.
        routine: RoutineName,
        /// Versions listed.
        #[serde(rename = "slots")]
        used: usize,
        /// Versions it may hold.
        cap: usize,
        /// The version that would be rotated out next, with its age.
        #[serde(serialize_with = "json::next", skip_serializing_if = "Option::is_none")]
        next: Option<(Revision, Option<Duration>)>,
    },
    /// What the gate lets through.
    Budget {
        /// Requests a second in the long run.
        requests_per_second: u32,
        /// Requests at once after a rest.
        burst: u32,
        /// Requests on their way at the same time.
        in_flight: u32,
    },
    /// A page and what goes with it can be asked for on this machine.
    Serving {
        /// The address of the page.
        #[serde(serialize_with = "json::text")]
        url: String,
    },
    /// Watching has begun and every routine that answered was listed.
    Ready {
        /// Time since the program started.
        #[serde(rename = "ms", serialize_with = "json::millis")]
        after: Duration,
    },
    /// An edit became a new version, or what runs on staging.
    Uploaded {
        /// The routine.
        routine: RoutineName,
        /// The new version; the staging slot by its name, which is no number, where it went there.
        revision: Revision,
        /// The digest of its code.
        sha256: Digest,
        /// The size of its code.
        bytes: usize,
        /// Saves the edit was made of.
        saves: u32,
        /// API requests it took so far.
        calls: u32,
        /// Time from the settled edit to the proven upload.
        #[serde(rename = "ms", serialize_with = "json::millis")]
        took: Duration,
        /// Versions the routine holds now.
        slots: usize,
        /// Versions it may hold.
        #[serde(skip)]
        cap: usize,
    },
    /// An edit went back to bytes that an older version holds.
    Reused {
        /// The routine.
        routine: RoutineName,
        /// The version that holds the bytes.
        revision: Revision,
        /// Their digest.
        sha256: Digest,
        /// Saves the edit was made of.
        saves: u32,
    },
    /// An edit left the bytes as they were.
    Unchanged {
        /// The routine.
        routine: RoutineName,
        /// The version that holds the bytes.
        revision: Revision,
        /// Saves the edit was made of.
        saves: u32,
    },
    /// A newer edit took the place of one that had not gone up yet.
    Superseded {
        /// The routine.
        routine: RoutineName,
        /// Saves the edit was made of.
        saves: u32,
    },
    /// An edit ended without an upload; it will not be tried again until the file changes.
    #[serde(rename = "error")]
    Failed {
        /// The routine.
        routine: RoutineName,
        /// Saves the edit was made of.
        saves: u32,
        /// Why.
        problem: Problem,
    },
    /// A stop ended the wait for an edit.
    Abandoned {
        /// The routine.
        routine: RoutineName,
        /// Saves the edit was made of.
        saves: u32,
    },
    /// A try did not succeed and the edit is kept for another one.
    Retrying {
        /// The routine.
        routine: RoutineName,
        /// The pause before the next try.
        #[serde(rename = "after_ms", serialize_with = "json::millis")]
        after: Duration,
        /// Why.
        problem: Problem,
    },
    /// The service asked for fewer requests.
    Throttled {
        /// The routine whose request met it.
        routine: RoutineName,
        /// The operation it refused.
        operation: &'static str,
        /// The pause before the next try.
        #[serde(rename = "after_ms", serialize_with = "json::millis")]
        after: Duration,
    },
    /// A version was deleted to make room, its code saved first.
    Rotated {
        /// The routine.
        routine: RoutineName,
        /// The version that is gone.
        revision: Revision,
        /// How old it was.
        #[serde(
            rename = "age_s",
            serialize_with = "json::seconds",
            skip_serializing_if = "Option::is_none"
        )]
        age: Option<Duration>,
        /// Why this one and not another.
        #[serde(serialize_with = "json::text")]
        reason: String,
    },
    /// The routine was missing and was made.
    Created {
        /// The routine.
        routine: RoutineName,
    },
    /// What a run without changes would have done.
    Planned {
        /// The routine.
        routine: RoutineName,
        /// One of "upload", "rotate", "create", "build".
        action: &'static str,
        /// To which version, or with which bytes.
        #[serde(serialize_with = "json::text")]
        detail: String,
        /// Saves of the edit this plan answers; `None` for a further step of the same edit.
        #[serde(skip_serializing_if = "Option::is_none")]
        saves: Option<u32>,
    },
    /// The service cannot be reached, or refuses every request. All edits wait, and one try stands for them.
    Offline {
        /// The pause before the next try.
        #[serde(rename = "after_ms", serialize_with = "json::millis")]
        after: Duration,
        /// Why.
        problem: Problem,
    },
    /// The service answers again.
    Online {
        /// How long it did not.
        #[serde(rename = "lasted_ms", serialize_with = "json::millis")]
        lasted: Duration,
        /// Edits that waited for it.
        waiting: usize,
    },
    /// A change of a routine's entry cannot be taken yet, and has not been for long.
    Waiting {
        /// The routine.
        routine: RoutineName,
        /// What it waits for.
        problem: Problem,
    },
    /// The place of a routine's entry is gone or is another one. Nothing is taken from there until it is back.
    Halted {
        /// The routine.
        routine: RoutineName,
        /// What became of the place.
        problem: Problem,
    },
    /// The place of a routine's entry is back.
    Resumed {
        /// The routine.
        routine: RoutineName,
    },
    /// A build begins to run.
    Building {
        /// Its command.
        #[serde(rename = "build", serialize_with = "json::text")]
        command: String,
        /// The routines whose entries it makes.
        routines: Vec<RoutineName>,
        /// The files that changed, as people name them; none at the start.
        #[serde(serialize_with = "json::texts")]
        changed: Vec<String>,
        /// Whether a run was ended for it.
        early: bool,
    },
    /// A build ended well. Whether its output goes up is told by other events.
    Built {
        /// Its command.
        #[serde(rename = "build", serialize_with = "json::text")]
        command: String,
        /// The routines whose entries it makes.
        routines: Vec<RoutineName>,
        /// How long it took.
        #[serde(rename = "ms", serialize_with = "json::millis")]
        took: Duration,
    },
    /// A build failed. What it wrote does not go up.
    Broken(Box<Broken>),
    /// A build changes what it reads, run after run, and rests for a while.
    Looping {
        /// Its command.
        #[serde(rename = "build", serialize_with = "json::text")]
        command: String,
        /// The routines whose entries it makes.
        routines: Vec<RoutineName>,
        /// The files that it changes, as people name them.
        #[serde(serialize_with = "json::texts")]
        changed: Vec<String>,
        /// The pause before the next run.
        #[serde(rename = "after_ms", serialize_with = "json::millis")]
        after: Duration,
        /// What, and how to end it.
        problem: Problem,
    },
    /// A file is a routine from now on.
    Came {
        /// The routine.
        routine: RoutineName,
        /// The file.
        #[serde(serialize_with = "json::text")]
        file: String,
    },
    /// A file is no routine any more. What is on the service stays as it is.
    Left {
        /// The routine.
        routine: RoutineName,
        /// Why.
        #[serde(serialize_with = "json::text")]
        reason: String,
    },
    /// Somebody else made a version.
    Foreign {
        /// The routine.
        routine: RoutineName,
        /// The version.
        revision: Revision,
        /// How old it is.
        #[serde(
            rename = "age_s",
            serialize_with = "json::seconds",
            skip_serializing_if = "Option::is_none"
        )]
        age: Option<Duration>,
        /// Which other er-dev made it, if one did.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// A version was put live from here.
    Published {
        /// The routine.
        routine: RoutineName,
        /// The version.
        revision: Revision,
        /// Where it is live now.
        #[serde(serialize_with = "json::text")]
        environment: String,
        /// What was live there before.
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<Revision>,
    },
    /// What is on staging became a version.
    Committed {
        /// The routine.
        routine: RoutineName,
        /// The new version.
        revision: Revision,
        /// The digest of its code.
        sha256: Digest,
        /// API requests it took so far.
        calls: u32,
        /// Versions the routine holds now.
        slots: usize,
        /// Versions it may hold.
        #[serde(skip)]
        cap: usize,
    },
    /// How to reach the nodes that run what is on staging.
    Staging {
        /// The routine.
        routine: RoutineName,
        /// The addresses of the nodes.
        addresses: Vec<IpAddr>,
    },
    /// Somebody else put a version live.
    Republished {
        /// The routine.
        routine: RoutineName,
        /// The version.
        revision: Revision,
        /// Where it is live now.
        #[serde(serialize_with = "json::text")]
        environment: String,
        /// What was live there before.
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<Revision>,
    },
    /// A person pinned a version, or took its pin away.
    Pinned {
        /// The routine.
        routine: RoutineName,
        /// The version.
        revision: Revision,
        /// Whether it is pinned now.
        pinned: bool,
    },
    /// What the vault held of a version is on the service again, as another version.
    Recovered {
        /// The routine.
        routine: RoutineName,
        /// The new version.
        revision: Revision,
        /// The one that was deleted.
        was: Revision,
    },
    /// Rotation that was asked for has ended.
    Pruned {
        /// The routine.
        routine: RoutineName,
        /// How many versions went, or would have gone.
        rotated: usize,
        /// How many are left.
        left: usize,
        /// Whether this was only a plan.
        planned: bool,
        /// Why more are left than were to be; empty if that is not so.
        #[serde(
            serialize_with = "json::text",
            skip_serializing_if = "String::is_empty"
        )]
        stay: String,
    },
    /// An environment points at a version that is there again.
    Mended {
        /// The routine.
        routine: RoutineName,
        /// The environment.
        #[serde(serialize_with = "json::text")]
        environment: String,
    },
    /// Work goes on with less safety than usual.
    Degraded {
        /// What it has to do without.
        safety: Safety,
        /// Why, and what is left out.
        problem: Problem,
    },
    /// The usual safety is back.
    Restored {
        /// What it has again.
        safety: Safety,
        /// What works again.
        #[serde(serialize_with = "json::text")]
        what: String,
    },
    /// Something is wrong on the service that somebody has to look at now.
    Critical {
        /// The routine.
        routine: RoutineName,
        /// The environment that it is about, if it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        environment: Option<String>,
        /// What.
        problem: Problem,
    },
    /// Something that is worth knowing and stops nothing.
    Warning {
        /// The routine, if it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        routine: Option<RoutineName>,
        /// What it is about.
        problem: Problem,
    },
    /// Somebody asked that nothing be started until further notice; changes go on being noticed.
    Paused {
        /// Edits that wait.
        waiting: usize,
    },
    /// Work goes on after a pause that somebody asked for.
    Continued {
        /// Edits that waited.
        waiting: usize,
    },
    /// A sign of life, where nobody sees a terminal, after a time in which something has changed.
    Alive(Totals),
    /// A stop was asked for and running work is waited for.
    Stopping {
        /// Uploads that are running.
        running: usize,
        /// How long they are waited for.
        #[serde(rename = "drain_ms", serialize_with = "json::millis")]
        drain: Duration,
    },
    /// The accounting at the end.
    Done(Totals),
}

/// How a build failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Broken {
    /// Its command.
    #[serde(rename = "build", serialize_with = "json::text")]
    pub command: String,
    /// The routines whose entries it makes.
    pub routines: Vec<RoutineName>,
    /// The exit code, if it ended with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// How long it took.
    #[serde(rename = "ms", serialize_with = "json::millis")]
    pub took: Duration,
    /// What it printed, in lines; the last of them if they are many.
    pub output: Vec<String>,
    /// Lines before them that were not kept.
    pub cut: u64,
    /// Why.
    pub problem: Problem,
}

/// What work can do without for a while, with less safety.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Safety {
    /// Keeping what is deleted, and what is in doubt, in the state directory.
    State,
    /// The permission to delete.
    Permission,
    /// A budget of requests that is shared with other processes.
    Budget,
    /// A clock that agrees with the service's.
    Clock,
    /// Events of the file system.
    Events,
}

/// What happened, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What happened: a lower-case fragment without a full stop.
    #[serde(serialize_with = "json::text")]
    pub what: String,
    /// What to do: a lower-case fragment without a full stop; empty where nothing can be done.
    #[serde(serialize_with = "json::text")]
    pub help: String,
    /// What kind of thing it is.
    pub class: Class,
    /// The operation of the service that it happened in, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<&'static str>,
    /// The service's name for the request, where there was one.
    #[serde(
        serialize_with = "json::some_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub request_id: Option<String>,
    /// The place in a source file.
    #[serde(flatten)]
    pub frame: Option<Box<Frame>>,
}

/// A place in a source file, shown with a caret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// The file as people name it.
    #[serde(serialize_with = "json::text")]
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// How many characters the caret spans, at least 1.
    #[serde(skip)]
    pub width: usize,
    /// The text of the line, without its end; `None` where it must not be shown.
    #[serde(skip)]
    pub text: Option<String>,
    /// How many characters of the line stand before `text`, where only a part of it is kept.
    #[serde(skip)]
    pub cut: usize,
    /// Places where something else is wrong; a few at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Also>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub unshown: usize,
}

/// Something else that is wrong in a source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Also {
    /// What: a lower-case fragment without a full stop.
    #[serde(serialize_with = "json::text")]
    pub what: String,
    /// Where.
    #[serde(flatten)]
    pub frame: Frame,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// How all edits ended. The seven ends, `uploaded` to `planned`, add up to `edits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Changes on disk.
    pub saves: u64,
    /// What debouncing made of them.
    pub edits: u64,
    /// Edits that became a version.
    pub uploaded: u64,
    /// Edits whose bytes an older version held.
    pub reused: u64,
    /// Edits that left the bytes as they were.
    pub unchanged: u64,
    /// Edits a newer one replaced.
    pub superseded: u64,
    /// Edits that ended in an error.
    pub failed: u64,
    /// Edits that a stop left undone.
    pub abandoned: u64,
    /// Edits a dry run only planned.
    pub planned: u64,
    /// Versions deleted to make room.
    pub rotated: u64,
    /// API requests sent.
    pub calls: u64,
    /// The most API requests within one second.
    pub peak: u64,
    /// How long the program ran.
    #[serde(rename = "up_ms", serialize_with = "json::millis")]
    pub up: Duration,
}

impl Totals {
    /// Edits that have ended, in whichever way.
    pub fn ended(&self) -> u64 {
        let well = self.uploaded + self.reused + self.unchanged + self.planned;
        well + self.superseded + self.failed + self.abandoned
    }
}

/// The form events are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// The same fields as `key=value`, one event a line.
    Logfmt,
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColourChoice {
    /// On a terminal, unless `NO_COLOR`, `CLICOLOR` or `TERM` say otherwise.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the place that text goes to can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Escape codes for colours may be written.
    pub colour: bool,
    /// Somebody is looking, so one event may take several lines.
    pub terminal: bool,
    /// How many columns a line has, where that is known.
    pub columns: Option<usize>,
}

impl Look {
    /// The look of a file or a pipe.
    pub const PLAIN: Self = Self {
        colour: false,
        terminal: false,
        columns: None,
    };
}

/// Whether a live line stands on the terminal, and how often a log was written over it. Only the report writes events,
/// yet anything in the program may log.
static LIVE: AtomicBool = AtomicBool::new(false);
static LOGGED: AtomicU64 = AtomicU64::new(0);

/// Where events go. It never fails for its caller: what went wrong is remembered and can be asked for.
pub struct Report {
    format: Format,
    look: Look,
    zone: TimeZone,
    out: Box<dyn Write + Send>,
    outlet: Outlet,
    /// Where events in text go instead, if it is there.
    journal: Option<Journal>,
    standing: Standing,
    /// Who else hears of every event.
    listener: Option<Listener>,
    /// Where somebody looks at a terminal with a live line.
    screen: Option<Screen>,
    /// How often a log was written when that was last looked at.
    logged: u64,
    /// Whether the terminal is being left to other programs.
    suspended: bool,
}

/// Hears of an event and of its time.
pub type Listener = Box<dyn FnMut(&Event, Timestamp) + Send>;

enum Outlet {
    Open,
    /// The reader has gone, as `head` does. Nobody misses what is not written any more.
    Closed,
    /// A write failed, and more may: each event is tried nevertheless, for a full disk may be emptied.
    Broken(io::Error),
}

/// The journal of systemd, by its socket.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal at this path. It need not be there yet.
    ///
    /// # Errors
    ///
    /// The system's, if no socket can be had.
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A journal that hangs must not keep an edit waiting.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
        })
    }

    /// Whether standard error is a stream of the journal, as `JOURNAL_STREAM` tells whoever is started by systemd. A
    /// program started by a service inherits the variable but perhaps not the stream.
    pub fn reads_standard_error() -> bool {
        let Ok(named) = std::env::var("JOURNAL_STREAM") else {
            return false;
        };
        let stat = rustix::fs::fstat(io::stderr());
        stat.is_ok_and(|stat| journal::names(&named, stat.st_dev, stat.st_ino))
    }

    fn send(&self, entry: &[u8]) -> io::Result<()> {
        self.socket.send_to(entry, &self.path).map(drop)
    }
}

impl Event {
    /// The routine an event is about, where it is about one.
    pub fn routine(&self) -> Option<&RoutineName> {
        match self {
            Self::Started { .. }
            | Self::Watching { .. }
            | Self::Budget { .. }
            | Self::Serving { .. }
            | Self::Ready { .. }
            | Self::Offline { .. }
            | Self::Online { .. }
            | Self::Degraded { .. }
            | Self::Restored { .. }
            | Self::Paused { .. }
            | Self::Continued { .. }
            | Self::Alive(_)
            | Self::Building { .. }
            | Self::Built { .. }
            | Self::Broken(_)
            | Self::Looping { .. }
            | Self::Stopping { .. }
            | Self::Done(_) => None,
            Self::Warning { routine, .. } => routine.as_ref(),
            Self::Slots { routine, .. }
            | Self::Uploaded { routine, .. }
            | Self::Reused { routine, .. }
            | Self::Unchanged { routine, .. }
            | Self::Superseded { routine, .. }
            | Self::Failed { routine, .. }
            | Self::Abandoned { routine, .. }
            | Self::Retrying { routine, .. }
            | Self::Throttled { routine, .. }
            | Self::Rotated { routine, .. }
            | Self::Created { routine }
            | Self::Waiting { routine, .. }
            | Self::Halted { routine, .. }
            | Self::Published { routine, .. }
            | Self::Committed { routine, .. }
            | Self::Staging { routine, .. }
            | Self::Republished { routine, .. }
            | Self::Pinned { routine, .. }
            | Self::Mended { routine, .. }
            | Self::Recovered { routine, .. }
            | Self::Pruned { routine, .. }
            | Self::Resumed { routine }
            | Self::Came { routine, .. }
            | Self::Left { routine, .. }
            | Self::Foreign { routine, .. }
            | Self::Critical { routine, .. }
            | Self::Planned { routine, .. } => Some(routine),
        }
    }
}

impl Report {
    /// A report to standard output, in the machine's time zone.
    pub fn stdout(format: Format, colour: ColourChoice) -> Self {
        let out = io::stdout();
        let colour = match colour {
            ColourChoice::Always => true,
            ColourChoice::Never => false,
            ColourChoice::Auto => {
                anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never
            }
        };
        let look = Look {
            colour,
            terminal: out.is_terminal(),
            columns: None,
        };
        Self::new(format, look, TimeZone::system(), Box::new(out))
    }

    /// A report to any place. The zone is that of the time of day in text; JSON is in UTC.
    pub fn new(format: Format, look: Look, zone: TimeZone, out: Box<dyn Write + Send>) -> Self {
        Self {
            format,
            look,
            zone,
            out,
            outlet: Outlet::Open,
            journal: None,
            standing: Standing::default(),
            listener: None,
            screen: None,
            logged: 0,
            suspended: false,
        }
    }

    /// Sends events to this journal from now on, if they are written as text.
    pub fn tell_journal(&mut self, journal: Journal) {
        self.journal = Some(journal).filter(|_| self.format == Format::Text);
    }

    /// Writes one event and flushes it. After the reader has closed the pipe it does nothing.
    pub fn tell(&mut self, event: &Event) {
        let now = Timestamp::now();
        self.standing.see(event, now);
        if let Some(hear) = &mut self.listener {
            hear(event, now);
        }
        if let Some(journal) = &self.journal {
            // What the journal does not take stands where it reads lines, which are its own there as well.
            if journal.send(&journal::entry(event)).is_err() {
                self.write(&journal::prefixed(
                    journal::priority(event),
                    &text::message(event),
                ));
            }
            return;
        }
        let zoned = now.to_zoned(self.zone.clone());
        let text = |event: &Event, times| text::render(event, times, &zoned, self.look);
        let lines = match (self.format, &mut self.screen) {
            (Format::Text, Some(screen)) => screen.event(event, text),
            (Format::Text, None) => text(event, 1),
            (Format::Json, _) => json::render(event, now),
            (Format::Logfmt, _) => logfmt::render(event, now),
        };
        self.write(&lines);
    }

    /// Lets somebody else hear of every event from now on, who must not keep the report waiting.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// Keeps a live line at the bottom of the terminal from now on, if text is written to one that can do that. Returns
    /// whether it does.
    pub fn go_live(&mut self, size: Option<(usize, usize)>) -> bool {
        let size = size.filter(|_| self.look.terminal && self.format == Format::Text);
        self.screen = size.map(|(columns, rows)| Screen::new(columns, rows));
        self.look.columns = size.map(|(columns, _)| columns);
        LIVE.store(self.screen.is_some(), Ordering::Relaxed);
        self.screen.is_some()
    }

    /// Whether there is a live line.
    pub fn is_live(&self) -> bool {
        self.screen.is_some()
    }

    /// Takes note of the size the terminal has now. If something else was on it meanwhile, the live line starts anew.
    pub fn resize(&mut self, columns: usize, rows: usize, other: bool) {
        if let Some(screen) = &mut self.screen {
            if other {
                screen.lost();
                self.suspended = false;
            }
            screen.resize(columns, rows);
            self.look.columns = Some(columns);
        }
    }

    /// Shows how everything stands in the live line, if there is one.
    pub fn glance(&mut self, glance: &Glance) {
        if let Some(screen) = self.screen.as_mut().filter(|_| !self.suspended) {
            let logged = LOGGED.load(Ordering::Relaxed);
            if std::mem::replace(&mut self.logged, logged) != logged {
                screen.lost();
            }
            let line = live::line(glance, screen.columns(), self.look);
            let line = screen.live(line);
            if !line.is_empty() {
                self.write(&line);
            }
        }
    }

    /// Shows a page in place of the one before, on a terminal that went live. Foreign text in it has to be escaped.
    pub fn page(&mut self, lines: &str, size: (usize, usize)) {
        if let Some(screen) = &mut self.screen {
            screen.resize(size.0, size.1);
            let lines = screen.page(lines);
            self.write(&lines);
        }
    }

    /// Takes the live line away until [`Report::resize`] says that the terminal was another program's meanwhile.
    pub fn suspend(&mut self) {
        if let Some(screen) = &mut self.screen {
            self.suspended = true;
            let erased = screen.erased();
            self.write(&erased);
        }
    }

    /// Takes the live line away for good.
    pub fn end_live(&mut self) {
        if let Some(mut screen) = self.screen.take() {
            let erased = screen.erased();
            self.write(&erased);
        }
    }

    /// Writes finished lines that are no event, such as a table, as they are and flushes them. Foreign text in them has
    /// to be escaped already.
    pub fn print(&mut self, lines: &str) {
        match &mut self.screen {
            Some(screen) => {
                let lines = screen.above(lines);
                self.write(&lines);
            }
            None => self.write(lines),
        }
    }

    fn write(&mut self, lines: &str) {
        if matches!(self.outlet, Outlet::Closed) {
            return;
        }
        let written = self.out.write_all(lines.as_bytes());
        match written.and_then(|()| self.out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.outlet = Outlet::Closed,
            Err(error) if matches!(self.outlet, Outlet::Open) => {
                self.outlet = Outlet::Broken(error);
            }
            Err(_) => {}
        }
    }

    /// Shows a line that a build prints, dimly, where somebody is looking. It is no event.
    pub fn stream(&mut self, line: &str) {
        if self.format == Format::Text && self.look.terminal {
            let line = text::printed(line, self.look);
            self.print(&line);
        }
    }

    /// How everything stands by what was told so far.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Takes note of what a version holds that an event named without that. Nothing is written.
    pub fn holds(&mut self, routine: &RoutineName, revision: &Revision, sha256: Digest) {
        self.standing.holds(routine, revision, sha256);
    }

    /// Takes note that a routine's uploads go to staging. Nothing is written.
    pub fn goes_to_staging(&mut self, routine: &RoutineName) {
        self.standing.goes_to_staging(routine);
    }

    /// Takes note that an edit is on its way. Nothing is written.
    pub fn started(&mut self, routine: &RoutineName) {
        self.standing.started(routine);
    }

    /// Takes note that a change that waited has settled. Nothing is written.
    pub fn settled(&mut self, routine: &RoutineName) {
        self.standing.settled(routine);
    }

    /// Takes note of how often file events were lost. Nothing is written.
    pub fn lost(&mut self, times: u32) {
        self.standing.lost(times);
    }

    /// Warns of something about a routine's last edit that stays worth knowing until the next one.
    pub fn remark(&mut self, routine: RoutineName, problem: Problem) {
        self.standing.remark(&routine, &problem);
        let routine = Some(routine);
        self.tell(&Event::Warning { routine, problem });
    }

    /// What text written by [`Report::print`] may use.
    pub fn look(&self) -> Look {
        self.look
    }

    /// The first write that failed other than by a closed pipe, if one did: not everything told has been written.
    pub fn broken(&self) -> Option<&io::Error> {
        match &self.outlet {
            Outlet::Broken(error) => Some(error),
            Outlet::Open | Outlet::Closed => None,
        }
    }
}
