//! The last line of a terminal while a watch runs: how everything stands, at a glance. Pure.
//!
//! The line never takes more than one row: what matters least goes first where a terminal is narrow. It is plain ASCII
//! but for names, so that it can be read in every locale, and its words say what its colours say.

use std::time::{Duration, Instant};

use super::Look;
use super::text::{BAD, CARE, DIM, GOOD, NEWS, paint};
use super::words::{columns, plural, seconds, span};
use anstyle::Style;

/// How many columns a bar takes between its brackets.
const BAR: usize = 10;

/// From how many edits on their progress is worth a bar.
const MANY: usize = 8;

/// How long a key has to be good for to be of no interest.
const KEY_SOON: Duration = Duration::from_secs(3_600);

/// What hot keys do, as they are told when somebody asks.
pub const HELP: &str = "        Keys  h  this help
              p  pause: nothing is uploaded until it is pressed again; edits go on being noticed
              u  upload now what waits for its next try
              r  the versions of every routine, as they were last listed
              q  quit, as Ctrl-C does: what runs is waited for; Ctrl-C twice ends at once
              No key publishes anything: er-dev publish NAME --env ENV
";

/// A key of the terminal that means something, or something else that happened to the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Tell what the keys do.
    Help,
    /// Pause, or continue.
    Pause,
    /// Try now what waits.
    Upload,
    /// Show the versions.
    Revisions,
    /// Stop.
    Quit,
    /// The terminal has another size.
    Resized,
    /// The program is to be suspended, as Ctrl-Z asks.
    Suspend,
    /// The program goes on after it was suspended; other programs have used the terminal.
    Back,
}

impl Key {
    /// What a byte from the terminal means, if it means something.
    pub fn of(byte: u8) -> Option<Self> {
        match byte.to_ascii_lowercase() {
            b'h' | b'?' => Some(Self::Help),
            b'p' => Some(Self::Pause),
            b'u' => Some(Self::Upload),
            b'r' => Some(Self::Revisions),
            b'q' => Some(Self::Quit),
            _ => None,
        }
    }
}

/// How everything stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Glance {
    /// How long the program has run.
    pub up: Duration,
    /// Routines that are watched.
    pub routines: usize,
    /// Those of them with which something is wrong.
    pub troubled: usize,
    /// Edits that wait.
    pub waiting: usize,
    /// Deploys that run.
    pub running: usize,
    /// Whether somebody asked for a pause.
    pub paused: bool,
    /// How long a stop waits for what still runs.
    pub drain: Option<Duration>,
    /// The most requests within one second.
    pub peak: u64,
    /// When the key ends, if it does.
    pub key_ends: Option<Duration>,
    /// Slots taken and slots there are, of each routine where that is known.
    pub slots: Vec<(String, usize, usize)>,
    /// How far a long queue has come.
    pub progress: Option<Progress>,
}

/// How far a long queue has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    done: usize,
    left: usize,
    took: Duration,
}

/// Measures how far a long queue has come, from when it grew long until it is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    begun: Option<(Instant, u64)>,
    ended: u64,
}

impl Meter {
    /// Takes note of how many edits are left, and how many have ended since the program started.
    pub fn see(&mut self, left: usize, ended: u64, now: Instant) {
        self.ended = ended;
        match self.begun {
            None if left >= MANY => self.begun = Some((now, ended)),
            Some(_) if left == 0 => self.begun = None,
            _ => {}
        }
    }

    /// How far it has come; `None` while there is no long queue.
    pub fn progress(&self, left: usize, now: Instant) -> Option<Progress> {
        let (begun, before) = self.begun?;
        let done = self.ended.saturating_sub(before);
        Some(Progress {
            done: usize::try_from(done).unwrap_or(usize::MAX),
            left,
            took: now.saturating_duration_since(begun),
        })
    }
}

impl Progress {
    /// `[####------] 120/300 edits, 78/s, 3s left`.
    fn words(self) -> String {
        let all = self.done + self.left;
        let mut words = format!("{} {}/{all} edits", bar(self.done, all), self.done);
        let secs = self.took.as_secs_f64();
        if self.done > 0 && secs >= 1.0 {
            let rate = self.done as f64 / secs;
            let left = Duration::from_secs_f64(self.left as f64 / rate);
            let rate = match rate {
                rate if rate < 10.0 => format!("{rate:.1}"),
                rate => format!("{rate:.0}"),
            };
            words.push_str(&format!(", {rate}/s, {} left", span(left)));
        }
        words
    }
}

/// The line, of fewer columns than the terminal has, so that no terminal wraps it.
pub fn line(glance: &Glance, width: usize, look: Look) -> String {
    let room = width.saturating_sub(1);
    let mut line = Line {
        text: String::new(),
        column: 0,
        room,
        look,
    };
    let (word, style) = head(glance);
    line.put(&word, style);
    if let Some(progress) = glance.progress {
        line.put(&progress.words(), NEWS);
    } else if glance.running + glance.waiting > 0 {
        let queue = format!("{} running, {} waiting", glance.running, glance.waiting);
        line.put(&queue, NEWS);
    }
    if glance.troubled > 0 {
        let troubled = plural(glance.troubled as u64, "routine");
        line.put(&format!("{troubled} in trouble"), BAD);
    }
    if let Some(left) = glance.key_ends.filter(|left| *left < KEY_SOON) {
        line.put(&format!("key ends in {}", span(left)), CARE);
    }
    if glance.drain.is_none() {
        // Room for the two words at the end, which everybody should see.
        let end = "  h help".len();
        line.room = line.room.saturating_sub(end);
        line.gauges(&glance.slots);
        line.put(&format!("peak {}/s", glance.peak), DIM);
        line.room = room;
        line.put("h help", DIM);
    }
    line.text
}

fn head(glance: &Glance) -> (String, Style) {
    match glance.drain {
        Some(left) => (format!("stopping, at most {} more", seconds(left)), CARE),
        None if glance.paused => ("paused (p continues)".into(), CARE),
        None => {
            let routines = plural(glance.routines as u64, "routine");
            let up = match glance.up.as_secs() {
                0..60 => span(glance.up),
                // The seconds of a longer time are of no interest and would only flicker.
                secs => span(Duration::from_secs(secs / 60 * 60)),
            };
            (format!("watching {routines} for {up}"), GOOD)
        }
    }
}

/// `[#######---]`, full only when all is done.
fn bar(done: usize, all: usize) -> String {
    let filled = (done * BAR).checked_div(all).unwrap_or(0).min(BAR);
    format!("[{}{}]", "#".repeat(filled), "-".repeat(BAR - filled))
}

struct Line {
    text: String,
    column: usize,
    room: usize,
    look: Look,
}

impl Line {
    /// Puts words behind a gap, if they find room. The first ones are cut instead.
    fn put(&mut self, words: &str, style: Style) -> bool {
        let gap = if self.column == 0 { 0 } else { 2 };
        if self.column + gap + columns(words) > self.room {
            if self.column == 0 {
                let cut: String = words.chars().take(self.room).collect();
                self.column = self.room;
                self.text = paint(&cut, style, self.look);
            }
            return false;
        }
        self.text.push_str(&" ".repeat(gap));
        self.text.push_str(&paint(words, style, self.look));
        self.column += gap + columns(words);
        true
    }

    /// As many gauges as find room, and how many there are besides.
    fn gauges(&mut self, slots: &[(String, usize, usize)]) {
        for (index, (name, used, cap)) in slots.iter().enumerate() {
            let left = slots.len() - index - 1;
            let more = if left > 0 { "  +999 more".len() } else { 0 };
            let style = if used >= cap { CARE } else { DIM };
            let room = self.room;
            self.room = room.saturating_sub(more);
            let long = format!("{name} {} {used}/{cap}", bar(*used, *cap));
            let found = self.put(&long, style) || self.put(&format!("{name} {used}/{cap}"), style);
            self.room = room;
            if !found {
                self.put(&format!("+{} more", left + 1), DIM);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glance() -> Glance {
        Glance {
            up: Duration::from_secs(7_893),
            routines: 2,
            peak: 14,
            slots: vec![("hello".into(), 9, 10), ("api-gw".into(), 4, 10)],
            ..Glance::default()
        }
    }

    #[test]
    fn a_wide_terminal_shows_time_gauges_peak_and_where_help_is() {
        assert_eq!(
            line(&glance(), 120, Look::PLAIN),
            "watching 2 routines for 2h 11m  hello [#########-] 9/10  api-gw [####------] 4/10  peak 14/s  h help"
        );
    }

    #[test]
    fn a_narrow_terminal_shows_less_and_never_more_than_one_row() {
        let many = (0..50).map(|n| (format!("routine-{n}"), n % 11, 10));
        let full = Glance {
            running: 16,
            waiting: 250,
            troubled: 3,
            key_ends: Some(Duration::from_secs(600)),
            slots: many.collect(),
            ..glance()
        };
        for glance in [glance(), full] {
            for width in 0..200 {
                let line = line(&glance, width, Look::PLAIN);
                assert!(columns(&line) < width.max(1), "{width}: {line:?}");
                assert!(line.is_ascii(), "{line:?}");
            }
        }
        assert_eq!(
            line(&glance(), 40, Look::PLAIN),
            "watching 2 routines for 2h 11m  h help"
        );
    }

    #[test]
    fn a_long_queue_shows_how_far_it_is_how_fast_and_how_long_it_takes() {
        let begun = Instant::now();
        let mut meter = Meter::default();
        meter.see(3, 10, begun);
        assert_eq!(meter.progress(3, begun), None);
        meter.see(300, 10, begun);
        let now = begun + Duration::from_secs(4);
        meter.see(180, 130, now);
        let progress = meter.progress(180, now).unwrap();
        assert_eq!(
            progress.words(),
            "[####------] 120/300 edits, 30/s, 6s left"
        );
        meter.see(0, 310, now);
        assert_eq!(meter.progress(0, now), None);
    }

    #[test]
    fn trouble_a_pause_and_a_stop_are_said_in_words() {
        let troubled = Glance {
            troubled: 1,
            ..glance()
        };
        assert!(line(&troubled, 120, Look::PLAIN).contains("1 routine in trouble"));
        let paused = Glance {
            paused: true,
            waiting: 3,
            ..glance()
        };
        let paused = line(&paused, 120, Look::PLAIN);
        assert!(
            paused.starts_with("paused (p continues)  0 running, 3 waiting"),
            "{paused}"
        );
        let stopping = Glance {
            drain: Some(Duration::from_secs(7)),
            running: 2,
            ..glance()
        };
        assert_eq!(
            line(&stopping, 120, Look::PLAIN),
            "stopping, at most 7s more  2 running, 0 waiting"
        );
    }

    #[test]
    fn a_key_that_ends_within_the_hour_is_told_and_a_later_end_is_not() {
        for (minutes, told) in [(43, true), (90, false)] {
            let glance = Glance {
                key_ends: Some(Duration::from_secs(minutes * 60)),
                ..glance()
            };
            let line = line(&glance, 120, Look::PLAIN);
            assert_eq!(line.contains("key ends in 43m"), told, "{line}");
        }
    }
}
