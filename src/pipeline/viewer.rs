//! Who looks at the loop while it runs: somebody at a terminal, with its live line and keys, or nobody but a log, which
//! gets a sign of life now and then.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::report::live::{Glance, HELP, Key, Meter};
use crate::report::question::Order;
use crate::report::{Event, Look, Report, Totals};
use crate::routine::RoutineName;

use super::schedule::Schedule;

/// The pause between two looks at what changes by itself, as times do.
const TICK: Duration = Duration::from_secs(1);

/// The pause between two signs of life in a log.
const ALIVE: Duration = Duration::from_secs(600);

/// Who looks, and how. `S` is a routine's session.
pub struct Viewer<S> {
    /// The keys that are pressed. When none can come any more, the work goes on.
    pub keys: mpsc::Receiver<Key>,
    /// How many columns and rows the terminal has.
    pub size: Box<dyn Fn() -> Option<(usize, usize)> + Send>,
    /// Gives the terminal back, lets the program be suspended, and takes the terminal again when that is over.
    pub suspend: Box<dyn Fn() + Send>,
    /// What is known of the program besides what the loop knows.
    pub vitals: Box<dyn Fn() -> Vitals + Send>,
    /// The versions of a routine as they were last listed.
    pub versions: fn(&S, Look) -> String,
    /// The same for programs, where they were listed.
    pub objects: fn(&S) -> Option<Value>,
}

/// What is known of the program besides what the loop knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Vitals {
    /// API requests sent.
    pub calls: u64,
    /// The most of them within one second.
    pub peak: u64,
    /// How long the program has run.
    pub up: Duration,
    /// When the key ends, if it does.
    pub key_ends: Option<Duration>,
}

impl<S> Viewer<S> {
    /// Nobody looks.
    pub fn nobody() -> Self {
        Self {
            keys: mpsc::channel(1).1,
            size: Box::new(|| None),
            suspend: Box::new(|| {}),
            vitals: Box::new(Vitals::default),
            versions: |_, _| String::new(),
            objects: |_| None,
        }
    }
}

impl<S> fmt::Debug for Viewer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer").finish_non_exhaustive()
    }
}

/// What the loop does because of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressed {
    /// Nothing.
    Nothing,
    /// What somebody asks for.
    Order(Order),
    /// It stops.
    Quit,
}

/// A viewer, and what was shown so far.
pub(super) struct View<S> {
    viewer: Viewer<S>,
    meter: Meter,
    tick: Instant,
    alive: Instant,
    told: Totals,
}

impl<S> View<S> {
    /// What is shown, and the keys that are pressed.
    pub(super) fn new(mut viewer: Viewer<S>) -> (Self, mpsc::Receiver<Key>) {
        let keys = std::mem::replace(&mut viewer.keys, mpsc::channel(1).1);
        let view = Self {
            viewer,
            meter: Meter::default(),
            tick: Instant::now() + TICK,
            alive: Instant::now() + ALIVE,
            told: Totals::default(),
        };
        (view, keys)
    }

    /// Carries out what a key asks for as far as it is about what is shown.
    pub(super) fn pressed(
        &mut self,
        key: Key,
        (paused, running): (bool, usize),
        sessions: &BTreeMap<RoutineName, S>,
        report: &mut Report,
    ) -> Pressed {
        match key {
            Key::Help => report.print(HELP),
            Key::Pause if paused => return Pressed::Order(Order::Continue),
            Key::Pause => return Pressed::Order(Order::Pause),
            Key::Upload => return Pressed::Order(Order::Flush),
            Key::Quit => return Pressed::Quit,
            Key::Revisions => {
                for session in sessions.values() {
                    let versions = (self.viewer.versions)(session, report.look());
                    report.print(&format!("\n{versions}"));
                }
                if running > 0 {
                    report.print(&format!("{running} more are being uploaded just now\n"));
                }
                report.print("\n");
            }
            Key::Resized => self.resize(report, false),
            Key::Back => self.resize(report, true),
            Key::Suspend => {
                // That it goes on is told as well.
                report.suspend();
                (self.viewer.suspend)();
            }
        }
        Pressed::Nothing
    }

    /// The versions of the routines that nothing is being done for.
    pub(super) fn objects(&self, sessions: &BTreeMap<RoutineName, S>) -> Vec<Value> {
        sessions.values().filter_map(self.viewer.objects).collect()
    }

    fn resize(&self, report: &mut Report, other: bool) {
        if let Some((columns, rows)) = (self.viewer.size)() {
            report.resize(columns, rows, other);
        }
    }

    /// When something is to be shown although nothing happens.
    pub(super) fn next(&self, report: &Report) -> Instant {
        if report.is_live() {
            self.tick
        } else {
            self.alive
        }
    }

    /// Shows how things stand.
    pub(super) fn show(
        &mut self,
        schedule: &Schedule,
        rotated: u64,
        routines: &[RoutineName],
        stop_by: Option<Instant>,
        report: &mut Report,
    ) {
        let now = Instant::now();
        if report.is_live() {
            if self.tick <= now {
                self.tick = now + TICK;
            }
            let glance = self.glance(schedule, routines, stop_by, report, now);
            report.glance(&glance);
        } else if self.alive <= now {
            self.alive = now + ALIVE;
            let totals = Totals {
                rotated,
                ..schedule.totals()
            };
            if totals != self.told {
                self.told = totals;
                let vitals = (self.viewer.vitals)();
                report.tell(&Event::Alive(Totals {
                    calls: vitals.calls,
                    peak: vitals.peak,
                    up: vitals.up,
                    ..totals
                }));
            }
        }
    }

    fn glance(
        &mut self,
        schedule: &Schedule,
        names: &[RoutineName],
        stop_by: Option<Instant>,
        report: &Report,
        now: Instant,
    ) -> Glance {
        let queued = |name| (name, schedule.queued(name, now.into_std()));
        let overview = report.standing().overview(names.iter().map(queued));
        let (waiting, running) = (schedule.waiting(), schedule.running());
        let ended = schedule.totals().ended();
        let left = waiting + running;
        self.meter.see(left, ended, now.into_std());
        let vitals = (self.viewer.vitals)();
        let routines = overview.routines.iter();
        let slots = |routine: &crate::report::standing::Routine| {
            Some((routine.routine.clone(), routine.slots?, routine.cap?))
        };
        Glance {
            up: vitals.up,
            routines: names.len(),
            troubled: routines.clone().filter(|it| !it.state.is_well()).count(),
            waiting,
            running,
            paused: schedule.is_paused(),
            drain: stop_by.map(|by| by.saturating_duration_since(now)),
            peak: vitals.peak,
            key_ends: vitals.key_ends,
            slots: routines.filter_map(slots).collect(),
            progress: self.meter.progress(left, now.into_std()),
        }
    }
}
