//! What er-dev tells: one [`Event`] a line, as text for people or as JSON for programs.
//!
//! The daemon and the commands hand events in; nothing else in the program writes to standard output. Logs are
//! another matter: they go through `tracing` to standard error.

use std::time::Duration;

use crate::routine::{Digest, Revision, RoutineName};

/// Something worth a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
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
        used: usize,
        /// Versions it may hold.
        cap: usize,
        /// The version that would be rotated out next, with its age.
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
    /// Watching has begun and every routine that answered was listed.
    Ready {
        /// Time since the program started.
        after: Duration,
    },
    /// An edit became a new version.
    Uploaded {
        /// The routine.
        routine: RoutineName,
        /// The new version.
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
        took: Duration,
        /// Versions the routine holds now.
        slots: usize,
        /// Versions it may hold.
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
        after: Duration,
    },
    /// A version was deleted to make room, its code saved first.
    Rotated {
        /// The routine.
        routine: RoutineName,
        /// The version that is gone.
        revision: Revision,
        /// How old it was.
        age: Option<Duration>,
        /// Why this one and not another.
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
        /// One of "upload", "rotate", "create".
        action: &'static str,
        /// To which version, or with which bytes.
        detail: String,
        /// Saves of the edit this plan answers; `None` for a further step of the same edit.
        saves: Option<u32>,
    },
    /// Something that is worth knowing and stops nothing.
    Warning {
        /// The routine, if it is about one.
        routine: Option<RoutineName>,
        /// What it is about.
        problem: Problem,
    },
    /// A stop was asked for and running work is waited for.
    Stopping {
        /// Uploads that are running.
        running: usize,
        /// How long they are waited for.
        drain: Duration,
    },
    /// The accounting at the end.
    Done(Totals),
}

/// What happened, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What happened: a lower-case fragment without a full stop.
    pub what: String,
    /// What to do: a lower-case fragment without a full stop; empty where nothing can be done.
    pub help: String,
    /// The class in one word, as README lists them: `source`, `throttled`, `credentials` and so on.
    pub class: &'static str,
    /// The service's name for the request, where there was one.
    pub request_id: Option<String>,
    /// The place in a source file.
    pub frame: Option<Frame>,
}

/// A place in a source file, shown with a caret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The file as people name it.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// How many characters the caret spans, at least 1.
    pub width: usize,
    /// The text of the line, without its end.
    pub text: String,
}

/// How all edits ended. The six ends add up to `edits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    pub up: Duration,
}
