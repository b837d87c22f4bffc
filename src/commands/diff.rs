//! `er-dev diff`: a routine's file against a version of it.

use std::time::Duration;

use similar::{ChangeTag, TextDiff};

use crate::cli::{self, Common};
use crate::cloud::{Environments, Fetched};
use crate::report::Report;
use crate::report::class::Class;
use crate::report::text::paint;
use crate::report::words::is_hidden;
use crate::revision::deploy::{DeployError, Session};
use crate::revision::mark::Mark;
use crate::routine::{Code, Revision};
use crate::watch::{Target, source};

use super::context::target;
use super::{Failure, one, problem};

/// Unchanged lines that are shown around a change.
const CONTEXT: usize = 3;

/// How long a small difference is looked for; after that a larger one will do.
const PATIENCE: Duration = Duration::from_secs(2);

const OLD: anstyle::Style = anstyle::AnsiColor::Red.on_default();
const NEW: anstyle::Style = anstyle::AnsiColor::Green.on_default();
const PLACE: anstyle::Style = anstyle::AnsiColor::Cyan.on_default();
const HEAD: anstyle::Style = anstyle::Style::new().bold();
const PLAIN: anstyle::Style = anstyle::Style::new();

/// Writes a unified diff from the version to the file; 1 if they differ, as diff does. Trouble that has no code of its
/// own is 2 then, as it is there.
pub(super) async fn run(
    common: &Common,
    flags: cli::Diff,
    report: &mut Report,
) -> Result<u8, Failure> {
    compare(common, flags, report)
        .await
        .map_err(|failure| match failure.exit_code() {
            1 => Failure {
                class: Class::Usage,
                ..failure
            },
            _ => failure,
        })
}

async fn compare(common: &Common, flags: cli::Diff, report: &mut Report) -> Result<u8, Failure> {
    let mut one = one::open(common, &flags.routine, false).await?;
    one::list(&mut one.session).await?;
    let session = &one.session;
    let name = &session.routine().name;
    let revision = match &flags.revision {
        Some(text) => one::named(session, text)?,
        None => usual(session)?,
    };
    let shown = &session.routine().shown;
    // What does not parse can be compared all the same.
    let entry = Target {
        check: false,
        ..target(session.routine())
    };
    let local = source::read(&entry)
        .map_err(|error| Failure::of(name, problem::of_source(&error, shown)))?;
    let fetched = session
        .fetch(&revision)
        .await
        .map_err(|error| Failure::of(name, problem::of_deploy(&DeployError::Cloud(error), name)))?;
    let (code, note) = match fetched {
        Fetched::Code(code) => {
            let mark = mark(session, &revision);
            let fits = mark.is_none_or(|mark| mark.fits(&code));
            let note = "its bytes are not those that its mark speaks of";
            (code, (!fits).then_some(note))
        }
        Fetched::Nothing => (
            Code::new(Vec::new()),
            Some("it has no code: its upload never finished"),
        ),
    };
    if let Some(note) = note {
        tracing::warn!("version {revision}: {note}");
    }
    let same = code.digest() == local.digest();
    if !same {
        let titles = (
            format!("{name} {}", describe(session, &revision)),
            shown.clone(),
        );
        report.print(&unified(&code, &local, &titles, report));
    }
    one.close(u8::from(!same)).await
}

/// What is live in production, else the newest version, else what is on staging.
fn usual(session: &Session) -> Result<Revision, Failure> {
    let knowledge = session.knowledge();
    let live = session.live_in("production").ok().flatten();
    let live = live.filter(|live| knowledge.newest_first().any(|it| it.revision == *live));
    let newest = || {
        knowledge
            .newest_first()
            .next()
            .map(|it| it.revision.clone())
    };
    let staged = || knowledge.staging_slot().map(|it| it.revision.clone());
    live.or_else(newest).or_else(staged).ok_or_else(|| {
        let name = &session.routine().name;
        Failure::refused(format!(
            "{name} has no version to compare with\n= help: `er-dev push {name}` makes one"
        ))
    })
}

fn mark(session: &Session, revision: &Revision) -> Option<Mark> {
    let listing = session.knowledge().listing()?;
    let mut listed = listing.revisions.iter();
    let listed = listed.find(|listed| listed.revision == *revision)?;
    Mark::read(&listed.description)
}

/// A version with where it is live.
fn describe(session: &Session, revision: &Revision) -> String {
    let listing = session.knowledge().listing();
    let live: Vec<&str> = match listing.map(|listing| &listing.environments) {
        Some(Environments::Known(live)) => live
            .iter()
            .filter(|(_, live)| live.as_ref() == Some(revision))
            .map(|(environment, _)| environment.as_str())
            .collect(),
        _ => Vec::new(),
    };
    let slot = session.knowledge().staging_slot();
    if revision.is_staging() && slot.is_some_and(|slot| slot.revision == *revision) {
        return format!("{revision} (on staging)");
    }
    match live[..] {
        [] => revision.to_string(),
        _ => format!("{revision} (live in {})", live.join(", ")),
    }
}

fn unified(old: &Code, new: &Code, (from, to): &(String, String), report: &Report) -> String {
    let look = report.look();
    let text = |code: &Code| String::from_utf8_lossy(code.bytes()).into_owned();
    let (old, new) = (text(old), text(new));
    let diff = TextDiff::configure()
        .timeout(PATIENCE)
        .diff_lines(&old, &new);
    let mut out = String::new();
    let mut line = |text: &str, style| {
        // Elsewhere it may be a patch, and is to be exact.
        let text = if look.terminal {
            visible(text)
        } else {
            text.to_owned()
        };
        out.push_str(&paint(&text, style, look));
        out.push('\n');
    };
    line(&format!("--- {from}"), HEAD);
    line(&format!("+++ {to}"), HEAD);
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        line(&hunk.header().to_string(), PLACE);
        for change in hunk.iter_changes() {
            let (sign, style) = match change.tag() {
                ChangeTag::Delete => ('-', OLD),
                ChangeTag::Insert => ('+', NEW),
                ChangeTag::Equal => (' ', PLAIN),
            };
            let value = change.value();
            let value = value.strip_suffix('\n').unwrap_or(value);
            line(&format!("{sign}{value}"), style);
            if change.missing_newline() {
                line("\\ No newline at end of file", PLAIN);
            }
        }
    }
    out
}

/// Code as a terminal may show it: it obeys nothing in it but tabs.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
