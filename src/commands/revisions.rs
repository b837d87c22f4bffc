//! `er-dev revisions`: which versions there are, why each one stays, and which goes next.

use std::time::SystemTime;

use serde_json::json;

use crate::cli::{self, Common};
use crate::cloud::{Environments, Listed, Listing};
use crate::report::table::{Align, Table};
use crate::report::words;
use crate::report::{Look, Report};
use crate::revision::deploy::{Session, age_of};
use crate::revision::mark::{Mark, text_of};
use crate::revision::protocol::staging_slot;
use crate::revision::rotation::{Fate, Stays};
use crate::revision::template::Commit;

use super::context::{Choice, Context};
use super::{Failure, one};

/// How much of a note is shown unless all of it is asked for.
const NOTE_CHARS: usize = 40;

/// One version, ready to be shown.
struct Row<'a> {
    listed: &'a Listed,
    fate: Option<Fate>,
    /// Whether a person has pinned it, which need not be the first reason for it to stay.
    pinned: bool,
    live: Vec<&'a str>,
    mark: Option<Mark>,
}

impl Row<'_> {
    fn fate(&self) -> String {
        let also = match &self.fate {
            Some(Fate::Stays(stays)) if self.pinned && *stays != Stays::Pinned => ", pinned",
            _ => "",
        };
        match &self.fate {
            Some(Fate::Stays(stays)) => format!("stays: {stays}{also}"),
            Some(Fate::MayGo(0)) => "goes next".into(),
            Some(Fate::MayGo(_)) => "may go".into(),
            None => String::new(),
        }
    }

    fn commit(&self) -> Option<String> {
        commit(self.mark.as_ref(), self.listed)
    }
}

/// Lists one routine or all.
pub(super) async fn run(
    common: &Common,
    flags: cli::Revisions,
    report: &mut Report,
) -> Result<u8, Failure> {
    let routines: Vec<_> = flags.routine.iter().cloned().collect();
    let context = Context::open(
        common,
        Choice {
            routines: &routines,
            ..Choice::default()
        },
    )
    .await?;
    let json = flags.json || common.format == crate::report::Format::Json;
    let mut ended = Vec::new();
    let mut space = "";
    for mut session in context.sessions()?.into_values() {
        if let Err(failure) = one::list(&mut session).await {
            ended.push(Err(failure));
            continue;
        }
        let Some(listing) = session.knowledge().listing() else {
            continue;
        };
        if json {
            report.print(&format!("{}\n", object(&session, listing)));
        } else {
            let table = table(&session, listing, flags.wide, report.look());
            report.print(&format!("{space}{table}"));
            space = "\n";
        }
    }
    context.close().await;
    one::worst(ended)
}

/// All versions, newest first. The staging slot is none of them.
fn rows<'a>(session: &Session, listing: &'a Listing) -> Vec<Row<'a>> {
    let fates = session
        .policy()
        .fates(listing, session.knowledge().protected())
        .ok();
    let live = |listed: &Listed| match &listing.environments {
        Environments::Known(live) => live
            .iter()
            .filter(|(_, revision)| revision.as_ref() == Some(&listed.revision))
            .map(|(environment, _)| environment.as_str())
            .collect(),
        Environments::Unknown(_) => Vec::new(),
    };
    let pinned = &session.knowledge().protected().pinned;
    let mut rows: Vec<Row<'_>> = listing
        .revisions
        .iter()
        .enumerate()
        .filter(|(_, listed)| !listed.revision.is_staging())
        .map(|(index, listed)| Row {
            fate: fates.as_ref().and_then(|fates| fates.get(index).cloned()),
            live: live(listed),
            pinned: pinned.contains(&listed.revision),
            mark: Mark::read(&listed.description),
            listed,
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.listed.revision.number().unwrap_or(u64::MAX)));
    rows
}

/// The versions of a routine as they were last listed.
pub(super) fn as_listed(session: &Session, look: Look) -> String {
    match session.knowledge().listing() {
        Some(listing) => table(session, listing, false, look),
        None => format!("{}  not listed yet\n", session.routine().name),
    }
}

/// The same for programs, where they were listed.
pub(super) fn object_as_listed(session: &Session) -> Option<serde_json::Value> {
    let listing = session.knowledge().listing()?;
    Some(object(session, listing))
}

fn table(session: &Session, listing: &Listing, wide: bool, look: Look) -> String {
    let mut table = Table::new([
        ("#", Align::Right),
        ("revision", Align::Left),
        ("age", Align::Right),
        ("made", Align::Left),
        ("live in", Align::Left),
        ("fate", Align::Left),
        ("content", Align::Left),
        ("git", Align::Left),
        ("by", Align::Left),
        ("note", Align::Left),
    ]);
    let rows = rows(session, listing);
    for (index, row) in rows.iter().enumerate() {
        let age = age_of(&row.listed.revision, SystemTime::now());
        let made = row.listed.created.filter(|_| wide);
        let note = text_of(&row.listed.description);
        table.row([
            (index + 1).to_string(),
            row.listed.revision.to_string(),
            age.map(words::age).unwrap_or_default(),
            made.map(|made| format!("{made:.0}")).unwrap_or_default(),
            row.live.join(", "),
            row.fate(),
            row.mark
                .as_ref()
                .map(|mark| mark.short().to_owned())
                .unwrap_or_default(),
            row.commit().unwrap_or_default(),
            by(session, row.mark.as_ref()).to_owned(),
            if wide { note.to_owned() } else { cut(note) },
        ]);
    }
    let (name, cap) = (&session.routine().name, session.policy().cap);
    let used = listing.revisions.len();
    let slot = slot(listing);
    let by_staging = slot.map_or("", |_| ", one of them by staging");
    let head = format!("{name}  {used} of {cap} slots taken{by_staging}\n");
    let slot = slot.map(|slot| {
        format!(
            "{}\n",
            words::escape(&staging(session, listing, slot, wide))
        )
    });
    let foot = words::escape(&totals(session, listing, &rows));
    let slot = slot.unwrap_or_default();
    let dangling = listing.dangling().into_iter().map(|(environment, gone)| {
        let (environment, gone) = (words::escape(environment), words::escape(gone.as_str()));
        format!("{environment} points at {gone}, which is not there\n= help: `er-dev publish {name} --env {environment}` puts another version live\n")
    });
    let dangling: String = dangling.collect();
    format!("{head}{}{slot}{foot}\n{dangling}", table.render(look))
}

/// The slot that staging uploads go into, which is no version.
fn slot(listing: &Listing) -> Option<&Listed> {
    let mut all = listing.revisions.iter();
    all.find(|listed| listed.revision.is_staging())
}

/// Whether staging runs what is in the slot, and not a version that was put live there.
fn runs(listing: &Listing, slot: &Listed) -> bool {
    staging_slot(listing).is_some_and(|it| it.revision == slot.revision)
}

fn staging(session: &Session, listing: &Listing, slot: &Listed, wide: bool) -> String {
    let mark = Mark::read(&slot.description);
    let note = text_of(&slot.description);
    let mut parts = vec!["staging".to_owned()];
    if !runs(listing, slot) {
        parts.push("not running".into());
    }
    parts.extend(mark.as_ref().map(|mark| mark.short().to_owned()));
    parts.extend(commit(mark.as_ref(), slot));
    parts.push(by(session, mark.as_ref()).into());
    parts.push(if wide { note.to_owned() } else { cut(note) });
    parts.retain(|part| !part.is_empty());
    parts.join("  ")
}

fn staging_object(listing: &Listing) -> Option<serde_json::Value> {
    let slot = slot(listing)?;
    let mark = Mark::read(&slot.description);
    Some(json!({
        "revision": slot.revision,
        "runs": runs(listing, slot),
        "content": mark.as_ref().map(Mark::short),
        "git": commit(mark.as_ref(), slot),
        "instance": mark.as_ref().map(|mark| mark.instance.as_str()),
        "description": text_of(&slot.description),
    }))
}

/// The commit that er-dev wrote into a description. In other people's words nothing is taken for one.
fn commit(mark: Option<&Mark>, listed: &Listed) -> Option<String> {
    mark?;
    Commit::find(text_of(&listed.description)).map(|commit| commit.to_string())
}

/// The beginning of a note, as much as leaves room for the rest of its line.
fn cut(note: &str) -> String {
    if note.chars().count() <= NOTE_CHARS {
        return note.to_owned();
    }
    let start: String = note.chars().take(NOTE_CHARS - 3).collect();
    format!("{start}...")
}

/// How many versions stay and may go, and when that matters.
fn totals(session: &Session, listing: &Listing, rows: &[Row<'_>]) -> String {
    let policy = session.policy();
    if let Err(refusal) = policy.fates(listing, session.knowledge().protected()) {
        return format!("nothing is rotated: {refusal}");
    }
    let may_go = |row: &&Row<'_>| matches!(row.fate, Some(Fate::MayGo(_)));
    let going = rows.iter().filter(may_go).count();
    let stay = rows.len() - going;
    let next = rows.iter().find(|row| row.fate == Some(Fate::MayGo(0)));
    let next = next.map(|row| format!(", {} next", row.listed.revision.short()));
    let full = match going {
        0 if listing.revisions.len() >= policy.cap => "; no slot can be freed for the next upload",
        _ => "",
    };
    format!(
        "{stay} stay, {going} may go{}{full}",
        next.unwrap_or_default()
    )
}

fn by(session: &Session, mark: Option<&Mark>) -> &'static str {
    match mark {
        Some(mark) if mark.instance == *session.instance() => "this er-dev",
        Some(_) => "another er-dev",
        None => "somebody else",
    }
}

fn object(session: &Session, listing: &Listing) -> serde_json::Value {
    let revisions: Vec<_> = rows(session, listing)
        .into_iter()
        .map(|row| {
            json!({
                "revision": row.listed.revision,
                "created": row.listed.created,
                "age_s": age_of(&row.listed.revision, SystemTime::now()).map(|age| age.as_secs()),
                "live": row.live,
                "stays": match &row.fate { Some(Fate::Stays(stays)) => Some(stays.to_string()), _ => None },
                "pinned": row.pinned,
                "goes": match &row.fate { Some(Fate::MayGo(place)) => Some(place), _ => None },
                "content": row.mark.as_ref().map(Mark::short),
                "git": row.commit(),
                "by": by(session, row.mark.as_ref()),
                "instance": row.mark.as_ref().map(|mark| mark.instance.as_str()),
                "description": text_of(&row.listed.description),
            })
        })
        .collect();
    let refusal = session
        .policy()
        .fates(listing, session.knowledge().protected())
        .err();
    json!({
        "v": 1,
        "routine": session.routine().name,
        "used": listing.revisions.len(),
        "cap": session.policy().cap,
        "environments": listing.environments,
        "rotation_refused": refusal.map(|refusal| refusal.to_string()),
        "revisions": revisions,
        "staging": staging_object(listing),
    })
}
