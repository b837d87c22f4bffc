//! An event as people read it: time of day, verb, object, details. Pure.
//!
//! On a terminal an event may take several lines, with a source line and a caret or with help below it. Anywhere else
//! the same words stand in one line, so that a log keeps one event a line; only what a failed build printed keeps its
//! lines below that. Colour only repeats what the verb says.
//! Texts that er-dev did not write pass through `words::escape`; routine names and digests cannot hold anything odd.

use anstyle::{AnsiColor, Style};
use jiff::Zoned;

use super::frame::{Excerpt, excerpt};
use super::words::{age, age_in_words, columns, escape, plural, seconds, size, span};
use super::{Also, Event, Frame, Look, Problem, Totals};
use crate::routine::{Revision, RoutineName};

/// How many columns the verb is right-aligned in.
const VERB: usize = 12;
/// Where the bar before source lines and help stands.
const MARGIN: usize = 17;
/// The most characters of foreign text in one line behind the bar.
const BAR_CHARS: usize = 160;
/// Where the class of an error starts below its source line, unless the help is longer.
const CLASS: usize = 76;
/// Where the count of slots ends, unless what stands before it is longer.
const GAUGE: usize = 95;

/// What went well.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What is worth knowing.
pub const NEWS: Style = AnsiColor::Cyan.on_default().bold();
/// What may surprise.
pub const CARE: Style = AnsiColor::Yellow.on_default().bold();
/// What went wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What is only a detail.
pub const DIM: Style = Style::new().dimmed();
const PLAIN: Style = Style::new();

/// One event that happened so many times as finished lines, each with its end. `now` gives the time of day.
pub fn render(event: &Event, times: u32, now: &Zoned, look: Look) -> String {
    let mut page = Page {
        out: String::new(),
        column: 0,
        times,
        look,
    };
    page.lead(event, now);
    page.rest(event)
}

/// One event as a line for a place that knows the time itself and aligns nothing, without an end.
pub fn message(event: &Event) -> String {
    let mut page = Page {
        out: String::new(),
        column: 0,
        times: 1,
        look: Look {
            columns: Some(0),
            ..Look::PLAIN
        },
    };
    page.put(verb(event).0, PLAIN);
    page.gap();
    page.rest(event).trim_end().to_owned()
}

/// One fact as a finished line: its label in the column of verbs, then its words, which have to be escaped already.
pub fn fact(label: &str, style: Style, words: &str, look: Look) -> String {
    let space = " ".repeat(VERB.saturating_sub(columns(label)));
    format!("{space}{}  {words}\n", paint(label, style, look))
}

/// A line that a build prints, as a finished line.
pub fn printed(line: &str, look: Look) -> String {
    bar(line, DIM, look)
}

/// Foreign text behind the bar, in as many lines as it takes.
fn bar(text: &str, style: Style, look: Look) -> String {
    let mut out = String::new();
    let mut rest: Vec<char> = text.chars().collect();
    loop {
        let more = rest.split_off(rest.len().min(BAR_CHARS));
        let piece = escape(&rest.iter().collect::<String>());
        let space = " ".repeat(MARGIN);
        let line = format!(
            "{space}{} {}",
            paint("|", DIM, look),
            paint(&piece, style, look)
        );
        out.push_str(line.trim_end());
        out.push('\n');
        if more.is_empty() {
            return out;
        }
        rest = more;
    }
}

/// Text in a style, or as it is where there is no colour.
pub fn paint(text: &str, style: Style, look: Look) -> String {
    if !look.colour || style == PLAIN || text.is_empty() {
        return text.into();
    }
    format!("{style}{text}{style:#}")
}

fn verb(event: &Event) -> (&'static str, Style) {
    match event {
        Event::Started { .. } => ("er-dev", PLAIN.bold()),
        Event::Watching { .. } => ("Watching", NEWS),
        Event::Slots { .. } => ("Slots", NEWS),
        Event::Budget { .. } => ("Budget", NEWS),
        Event::Serving { .. } => ("Serving", NEWS),
        Event::Ready { .. } => ("Ready", GOOD),
        Event::Uploaded { .. } => ("Uploaded", GOOD),
        Event::Reused { .. } => ("Reused", GOOD),
        Event::Unchanged { .. } => ("Unchanged", NEWS),
        Event::Superseded { .. } => ("Superseded", NEWS),
        Event::Failed { .. } => ("Error", BAD),
        Event::Abandoned { .. } => ("Abandoned", CARE),
        Event::Retrying { .. } => ("Retrying", CARE),
        Event::Throttled { .. } => ("Throttled", CARE),
        Event::Rotated { .. } => ("Rotated", NEWS),
        Event::Created { .. } => ("Created", GOOD),
        Event::Planned { .. } => ("Planned", NEWS),
        Event::Offline { .. } => ("Offline", CARE),
        Event::Online { .. } => ("Online", GOOD),
        Event::Waiting { .. } => ("Waiting", CARE),
        Event::Halted { .. } => ("Halted", CARE),
        Event::Resumed { .. } => ("Resumed", GOOD),
        Event::Building { .. } => ("Building", NEWS),
        Event::Built { .. } => ("Built", GOOD),
        Event::Broken(_) => ("Broken", BAD),
        Event::Looping { .. } => ("Looping", CARE),
        Event::Came { .. } => ("Came", GOOD),
        Event::Left { .. } => ("Left", CARE),
        Event::Foreign { .. } => ("Foreign", CARE),
        Event::Published { .. } => ("Published", GOOD),
        Event::Committed { .. } => ("Committed", GOOD),
        Event::Staging { .. } => ("Staging", NEWS),
        Event::Republished { .. } => ("Foreign", CARE),
        Event::Pinned { pinned: true, .. } => ("Pinned", GOOD),
        Event::Pinned { .. } => ("Unpinned", GOOD),
        Event::Mended { .. } => ("Mended", GOOD),
        Event::Recovered { .. } => ("Recovered", GOOD),
        Event::Pruned { stay, .. } if !stay.is_empty() => ("Pruned", CARE),
        Event::Pruned { .. } => ("Pruned", GOOD),
        Event::Degraded { .. } => ("Degraded", CARE),
        Event::Restored { .. } => ("Restored", GOOD),
        Event::Critical { .. } => ("Critical", BAD),
        Event::Warning { .. } => ("Warning", CARE),
        Event::Paused { .. } => ("Paused", CARE),
        Event::Continued { .. } => ("Continued", GOOD),
        Event::Alive(_) => ("Alive", NEWS),
        Event::Stopping { .. } => ("Stopping", NEWS),
        Event::Done(totals) if totals.failed > 0 => ("Done", BAD),
        Event::Done(totals) if totals.abandoned > 0 => ("Done", CARE),
        Event::Done(_) => ("Done", GOOD),
    }
}

/// What the event is about: the routine where there is one, else a sentence of its own.
fn object(event: &Event) -> String {
    match event {
        Event::Started { version, .. } => (*version).into(),
        Event::Watching {
            routines,
            files,
            directories,
            backend,
        } => format!(
            "{}, {} in {} ({backend})",
            count(*routines, "routine"),
            count(*files, "file"),
            count(*directories, "directory"),
        ),
        Event::Slots {
            routine, used, cap, ..
        } => format!("{routine} {used}/{cap}"),
        Event::Budget {
            requests_per_second: rate,
            burst,
            in_flight,
        } => {
            let most = u64::from(*rate) + u64::from(*burst) + u64::from(*in_flight);
            let at_most = format!("at most {most} in any second (limit 100)");
            format!("{rate}/s + burst {burst}, {in_flight} in flight: {at_most}")
        }
        Event::Serving { url } => escape(url),
        Event::Ready { after } => format!("in {}", seconds(*after)),
        Event::Throttled { operation, .. } => (*operation).into(),
        Event::Stopping { running: 0, .. } => "nothing is running".into(),
        Event::Stopping { running, drain } => {
            let running = count(*running, "running upload");
            format!("waiting up to {} for {running}", seconds(*drain))
        }
        Event::Paused { waiting } => format!(
            "nothing is uploaded until work is continued, {} waiting",
            count(*waiting, "edit")
        ),
        Event::Continued { waiting } => {
            format!("work goes on, {} waiting", count(*waiting, "edit"))
        }
        Event::Alive(totals) => format!("{}; {}", how_edits_ended(totals), what_it_took(totals)),
        Event::Done(totals) => how_edits_ended(totals),
        Event::Online { lasted, waiting } => {
            let waiting = count(*waiting, "edit");
            format!(
                "the service answers again after {}, {waiting} waiting",
                span(*lasted)
            )
        }
        Event::Restored { what, .. } => escape(what),
        Event::Building { command, .. } | Event::Built { command, .. } => escape(command),
        Event::Broken(broken) => names(&broken.routines),
        Event::Looping { routines, .. } => names(routines),
        other => other.routine().map(ToString::to_string).unwrap_or_default(),
    }
}

/// What else is worth knowing, in one line; empty where nothing is.
fn details(event: &Event) -> String {
    match event {
        Event::Started {
            endpoint,
            key,
            source,
            ..
        } => {
            let key = format!("key {} ({})", escape(key), escape(source));
            format!("{}  {key}", escape(endpoint))
        }
        Event::Slots { next, .. } => match next {
            Some((next, Some(old))) => format!("next to rotate {} ({})", short(next), age(*old)),
            Some((next, None)) => format!("next to rotate {}", short(next)),
            None => String::new(),
        },
        Event::Uploaded {
            revision,
            sha256,
            bytes,
            saves,
            calls,
            took,
            ..
        } => {
            let mut parts = vec![place(revision), size(*bytes as u64), sha256.short()];
            parts.extend((*saves > 0).then(|| plural((*saves).into(), "save")));
            parts.extend([plural((*calls).into(), "call"), seconds(*took)]);
            parts.join("  ")
        }
        Event::Reused {
            revision, saves, ..
        } => {
            let what = "these bytes are already there, no version used";
            format!("{}  {what}{}", short(revision), times(*saves))
        }
        Event::Unchanged {
            revision, saves, ..
        } => {
            let times = times(*saves);
            if revision.is_staging() {
                return format!("same bytes as on staging{times}");
            }
            format!("same bytes as {}, no version used{times}", short(revision))
        }
        Event::Superseded { saves, .. } => {
            format!("a newer edit takes its place{}", times(*saves))
        }
        Event::Abandoned { saves, .. } => {
            let what = "not uploaded before the stop; the next start looks again";
            format!("{what}{}", times(*saves))
        }
        Event::Failed { problem, .. }
        | Event::Warning { problem, .. }
        | Event::Degraded { problem, .. }
        | Event::Waiting { problem, .. }
        | Event::Halted { problem, .. }
        | Event::Critical { problem, .. } => sentence(problem),
        Event::Building {
            routines,
            changed,
            early,
            ..
        } => {
            let why = match changed.as_slice() {
                [] => String::new(),
                changed => format!(": {} changed", some(changed)),
            };
            let early = if *early {
                ", a run was ended for it"
            } else {
                ""
            };
            format!("for {}{why}{early}", names(routines))
        }
        Event::Built { routines, took, .. } => {
            format!("for {}  {}", names(routines), seconds(*took))
        }
        Event::Broken(broken) => sentence(&broken.problem),
        Event::Looping { problem, after, .. } => {
            format!("{}, next run in {}", sentence(problem), seconds(*after))
        }
        Event::Came { file, .. } => format!("`{}` is this routine from now on", escape(file)),
        Event::Left { reason, .. } => {
            format!("{}; what is on the service stays as it is", escape(reason))
        }
        Event::Resumed { .. } => "its place is back, and what is there is looked at".into(),
        Event::Foreign {
            revision, age, by, ..
        } => {
            let made = match age {
                Some(age) => format!("made {} ago", age_in_words(*age)),
                None => "made".into(),
            };
            let by = match by {
                Some(by) => format!("by another er-dev ({})", escape(by)),
                None => "not by er-dev".into(),
            };
            format!("{}  {made}, {by}", short(revision))
        }
        Event::Published {
            revision,
            environment,
            before,
            ..
        } => {
            let to = escape(environment);
            let before = before.as_ref().map(|it| format!(" (was {})", short(it)));
            format!(
                "{}  live in {to} now{}",
                short(revision),
                before.unwrap_or_default()
            )
        }
        Event::Committed {
            routine,
            revision,
            sha256,
            calls,
            ..
        } => format!(
            "{}  {}  {}  `er-dev publish {routine} {revision} --env ENV` puts it live",
            short(revision),
            sha256.short(),
            plural((*calls).into(), "call")
        ),
        Event::Staging { addresses, .. } => {
            let Some(first) = addresses.first() else {
                return String::new();
            };
            let more = match &addresses[1..] {
                [] => String::new(),
                more => {
                    let more: Vec<String> = more.iter().map(ToString::to_string).collect();
                    format!("; also {}", more.join(", "))
                }
            };
            format!(
                "try it with `curl --resolve HOST:443:{first} https://HOST/`, HOST being a domain that it serves{more}"
            )
        }
        Event::Republished {
            revision,
            environment,
            before,
            ..
        } => {
            let to = escape(environment);
            let before = before.as_ref().map(|it| format!(" (was {})", short(it)));
            let before = before.unwrap_or_default();
            format!(
                "{}  live in {to} now{before}, not by this er-dev",
                short(revision)
            )
        }
        Event::Pinned {
            revision,
            pinned: true,
            ..
        } => {
            format!("{}  rotation leaves it alone", short(revision))
        }
        Event::Pinned { revision, .. } => format!("{}  rotation may take it", short(revision)),
        Event::Recovered {
            routine,
            revision,
            was,
        } => format!(
            "{revision} holds what {was} held; `er-dev publish {routine} {revision} --env ENV` puts it live"
        ),
        Event::Pruned {
            rotated,
            left,
            planned,
            stay,
            ..
        } => {
            let rotated = plural(*rotated as u64, "version");
            let done = if *planned {
                "would be rotated"
            } else {
                "rotated"
            };
            let more = match stay.as_str() {
                "" => String::new(),
                stay => format!("; more stay than asked for: {}", escape(stay)),
            };
            format!("{rotated} {done}, {left} left{more}")
        }
        Event::Mended { environment, .. } => {
            format!(
                "{} points at no missing version any more",
                escape(environment)
            )
        }
        Event::Offline { after, problem } | Event::Retrying { after, problem, .. } => {
            format!("{}, next try in {}", sentence(problem), seconds(*after))
        }
        Event::Throttled { routine, after, .. } => {
            format!("{routine}, next try in {}", seconds(*after))
        }
        Event::Rotated {
            revision,
            age,
            reason,
            ..
        } => {
            let age = age.map(|age| format!("{} old, ", age_in_words(age)));
            let kept = escape(reason);
            format!("{}  {}{kept}", short(revision), age.unwrap_or_default())
        }
        Event::Created { .. } => "the routine was missing and was made".into(),
        Event::Planned {
            action,
            detail,
            saves,
            ..
        } => {
            let times = times(saves.unwrap_or_default());
            format!("would {action} {}{times}", escape(detail))
        }
        Event::Watching { .. }
        | Event::Budget { .. }
        | Event::Serving { .. }
        | Event::Ready { .. }
        | Event::Paused { .. }
        | Event::Continued { .. }
        | Event::Alive(_)
        | Event::Stopping { .. }
        | Event::Online { .. }
        | Event::Restored { .. }
        | Event::Done(_) => String::new(),
    }
}

fn has_problem(event: &Event) -> bool {
    matches!(
        event,
        Event::Failed { .. }
            | Event::Retrying { .. }
            | Event::Offline { .. }
            | Event::Degraded { .. }
            | Event::Waiting { .. }
            | Event::Halted { .. }
            | Event::Critical { .. }
            | Event::Broken(_)
            | Event::Looping { .. }
            | Event::Warning { .. }
    )
}

/// The lines of one event as far as they are written.
struct Page {
    out: String,
    column: usize,
    times: u32,
    look: Look,
}

impl Page {
    /// Time of day and verb. What is told before the first edit and after the last has no time.
    fn lead(&mut self, event: &Event, now: &Zoned) {
        let (verb, style) = verb(event);
        match event {
            Event::Started { .. } => {
                self.put(verb, style);
                return self.put(" ", PLAIN);
            }
            Event::Done(_) if self.look.terminal => self.end(),
            Event::Watching { .. }
            | Event::Slots { .. }
            | Event::Budget { .. }
            | Event::Serving { .. }
            | Event::Ready { .. }
            | Event::Done(_) => {}
            _ => self.put(&now.strftime("%H:%M:%S").to_string(), DIM),
        }
        self.put(&" ".repeat(VERB.saturating_sub(verb.len())), PLAIN);
        self.put(verb, style);
        self.gap();
    }

    /// What is behind time of day and verb, to the end.
    fn rest(mut self, event: &Event) -> String {
        let (object, details) = (object(event), details(event));
        self.put(&object, PLAIN);
        if !object.is_empty() && !details.is_empty() {
            self.gap();
        }
        let style = if has_problem(event) { PLAIN } else { DIM };
        self.put(&details, style);
        self.tail(event);
        self.out
    }

    /// What stands behind or below the details.
    fn tail(&mut self, event: &Event) {
        match event {
            Event::Uploaded { slots, cap, .. } | Event::Committed { slots, cap, .. } => {
                let gauge = format!("{slots}/{cap}");
                let end = self
                    .look
                    .columns
                    .map_or(GAUGE, |columns| columns.min(GAUGE));
                self.reach(end.saturating_sub(gauge.len()));
                self.put(&gauge, PLAIN);
            }
            Event::Failed { problem, .. } => {
                return self.problem(problem, "not uploaded, no version used");
            }
            Event::Retrying { problem, .. }
            | Event::Offline { problem, .. }
            | Event::Degraded { problem, .. }
            | Event::Waiting { problem, .. }
            | Event::Halted { problem, .. }
            | Event::Critical { problem, .. }
            | Event::Looping { problem, .. }
            | Event::Warning { problem, .. } => {
                return self.problem(problem, "");
            }
            Event::Broken(broken) => {
                self.problem(&broken.problem, "");
                return self.output(&broken.output, broken.cut);
            }
            Event::Done(totals) => {
                self.below(VERB + 2);
                self.put(&what_it_took(totals), DIM);
            }
            Event::Throttled { .. } => self.put(&times(self.times), DIM),
            Event::Ready { .. } if self.look.terminal => self.end(),
            _ => {}
        }
        self.end();
    }

    /// The rest of a problem after its sentence. `note` says at the caret what did not happen.
    fn problem(&mut self, problem: &Problem, note: &str) {
        let request = match &problem.request_id {
            Some(id) => format!(" (request {})", escape(id)),
            None => String::new(),
        };
        let class = format!("[{}]{request}{}", problem.class, times(self.times));
        let framed = problem.frame.as_ref().filter(|_| self.look.terminal);
        let shown = framed.and_then(|frame| Some((frame.line, excerpt(frame)?)));
        let class_below = shown.is_some() && !problem.help.is_empty();
        if !class_below {
            self.put(&format!(" {class}"), DIM);
        }
        match (&shown, &problem.frame) {
            (Some((line, excerpt)), _) => self.source(*line, excerpt, note),
            (None, Some(_)) if !note.is_empty() => self.put(&format!("  {note}"), PLAIN),
            _ => {}
        }
        if let Some(frame) = &problem.frame {
            self.also(frame);
        }
        if !problem.help.is_empty() {
            self.below(MARGIN);
            self.put("= help: ", NEWS);
            self.put(&escape(&problem.help), PLAIN);
        }
        if class_below {
            self.reach(CLASS);
            self.put(&class, DIM);
        }
        self.end();
    }

    /// What a build printed, in full as far as it was kept.
    fn output(&mut self, output: &[String], cut: u64) {
        if cut > 0 {
            let before = format!("({} before this)", plural(cut, "line"));
            self.out.push_str(&bar(&before, DIM, self.look));
        }
        for line in output {
            self.out.push_str(&bar(line, PLAIN, self.look));
        }
    }

    /// What else is wrong in the same file.
    fn also(&mut self, frame: &Frame) {
        for Also { what, frame } in &frame.also {
            self.below(MARGIN);
            self.put("= also: ", NEWS);
            self.put(&at(frame, what), PLAIN);
            if let Some(excerpt) = excerpt(frame).filter(|_| self.look.terminal) {
                self.source(frame.line, &excerpt, "");
            }
        }
        if frame.unshown > 0 {
            self.below(MARGIN);
            self.put(&format!("= and {} more", frame.unshown), NEWS);
        }
    }

    fn source(&mut self, line: usize, shown: &Excerpt, note: &str) {
        self.below(MARGIN);
        self.put("|", NEWS);
        self.end();
        self.put(&format!("{line:>0$} |", MARGIN - 1), NEWS);
        self.put(format!(" {}", shown.source).trim_end(), PLAIN);
        self.below(MARGIN);
        self.put("|", NEWS);
        self.put(&" ".repeat(shown.indent + 1), PLAIN);
        let caret = format!("{} {note}", "^".repeat(shown.width));
        self.put(caret.trim_end(), BAD);
    }

    fn put(&mut self, text: &str, style: Style) {
        self.out.push_str(&paint(text, style, self.look));
        self.column += columns(text);
    }

    fn gap(&mut self) {
        self.put("  ", PLAIN);
    }

    /// Goes on at a column, or after a gap where the line is beyond it.
    fn reach(&mut self, column: usize) {
        let missing = column.saturating_sub(self.column).max(2);
        self.put(&" ".repeat(missing), PLAIN);
    }

    /// Goes on in a line below, or after a gap where one event is one line.
    fn below(&mut self, column: usize) {
        if self.look.terminal {
            self.end();
            self.put(&" ".repeat(column), PLAIN);
        } else {
            self.gap();
        }
    }

    fn end(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }
}

/// What a problem is, with its place in a source file if it has one.
pub fn sentence(problem: &Problem) -> String {
    match &problem.frame {
        Some(frame) => at(frame, &problem.what),
        None => escape(&problem.what),
    }
}

fn at(frame: &Frame, what: &str) -> String {
    let (file, what) = (escape(&frame.file), escape(what));
    format!("{file}:{}:{} {what}", frame.line, frame.column)
}

/// The six ends of edits, and the two that are rare only when they happened.
fn how_edits_ended(totals: &Totals) -> String {
    let mut ends = vec![
        (totals.uploaded, "uploaded"),
        (totals.reused, "reused"),
        (totals.unchanged, "unchanged"),
        (totals.superseded, "superseded"),
        (totals.failed, "failed"),
    ];
    let rare = [(totals.abandoned, "abandoned"), (totals.planned, "planned")];
    ends.extend(rare.into_iter().filter(|(count, _)| *count > 0));
    let ends: Vec<String> = ends.iter().map(|(n, end)| format!("{n} {end}")).collect();
    let (saves, edits) = (plural(totals.saves, "save"), plural(totals.edits, "edit"));
    format!("{saves} -> {edits}: {}", ends.join(", "))
}

fn what_it_took(totals: &Totals) -> String {
    let calls = plural(totals.calls, "API call");
    let (rotated, peak, up) = (totals.rotated, totals.peak, span(totals.up));
    format!("{rotated} rotated, {calls}, peak {peak}/s, up {up}")
}

fn names(routines: &[RoutineName]) -> String {
    let names: Vec<&str> = routines.iter().map(RoutineName::as_str).collect();
    some(&names)
}

/// The first of some foreign texts, and how many more there are.
fn some<T: AsRef<str>>(texts: &[T]) -> String {
    const SHOWN: usize = 3;
    let shown = texts.iter().take(SHOWN).map(|text| escape(text.as_ref()));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match texts.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Where an upload went.
fn place(revision: &Revision) -> String {
    if revision.is_staging() {
        return "to staging".into();
    }
    short(revision)
}

fn short(revision: &Revision) -> String {
    escape(&revision.short())
}

/// How often something happened, such as the saves that one edit was made of, where it was more than once.
fn times(saves: u32) -> String {
    if saves > 1 {
        format!(" (x{saves})")
    } else {
        String::new()
    }
}

fn count(count: usize, noun: &str) -> String {
    plural(count as u64, noun)
}
