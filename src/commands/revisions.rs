//! `er-dev revisions`: which versions there are, why each one stays, and which goes next.

use std::time::SystemTime;

use serde_json::json;

use crate::cli::{self, Common};
use crate::cloud::{Environments, Listed, Listing};
use crate::report::Report;
use crate::report::table::{Align, Table};
use crate::report::words;
use crate::revision::deploy::{Session, age_of};
use crate::revision::mark::{Mark, text_of};
use crate::revision::rotation::Fate;

use super::context::{Choice, Context};
use super::{Failure, problem};

/// One version, ready to be shown.
struct Row<'a> {
    listed: &'a Listed,
    fate: Option<Fate>,
    live: Vec<&'a str>,
    mark: Option<Mark>,
}

/// Lists one routine or all.
pub(super) async fn run(
    common: &Common,
    flags: cli::Revisions,
    report: &mut Report,
) -> Result<u8, Failure> {
    let routines: Vec<_> = flags.routine.into_iter().collect();
    let context = Context::open(
        common,
        Choice {
            routines: &routines,
            ..Choice::default()
        },
    )
    .await?;
    let json = flags.json || common.format == crate::report::Format::Json;
    for (index, session) in context.sessions()?.into_values().enumerate() {
        let mut session = session;
        if let Err(error) = session.list().await {
            let problem = problem::of_cloud(&error);
            let name = &session.routine().name;
            return Err(Failure::new(
                problem.class,
                format!("{name}: {}\n= help: {}", problem.what, problem.help),
            ));
        }
        let Some(listing) = session.knowledge().listing() else {
            continue;
        };
        if json {
            report.print(&format!("{}\n", object(&session, listing)));
        } else {
            let space = if index > 0 { "\n" } else { "" };
            report.print(&format!("{space}{}", table(&session, listing, report)));
        }
    }
    context.close().await;
    Ok(0)
}

/// All versions, newest first; what has no number stands at the top.
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
    let mut rows: Vec<Row<'_>> = listing
        .revisions
        .iter()
        .enumerate()
        .map(|(index, listed)| Row {
            fate: fates.as_ref().and_then(|fates| fates.get(index).cloned()),
            live: live(listed),
            mark: Mark::read(&listed.description),
            listed,
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.listed.revision.number().unwrap_or(u64::MAX)));
    rows
}

fn table(session: &Session, listing: &Listing, report: &Report) -> String {
    let mut table = Table::new([
        ("revision", Align::Left),
        ("age", Align::Right),
        ("live in", Align::Left),
        ("fate", Align::Left),
        ("content", Align::Left),
        ("by", Align::Left),
        ("description", Align::Left),
    ]);
    for row in rows(session, listing) {
        let age = age_of(&row.listed.revision, SystemTime::now());
        let fate = match &row.fate {
            Some(Fate::Stays(stays)) => format!("stays: {stays}"),
            Some(Fate::MayGo(0)) => "goes next".into(),
            Some(Fate::MayGo(_)) | None => String::new(),
        };
        table.row([
            row.listed.revision.to_string(),
            age.map(words::age).unwrap_or_default(),
            row.live.join(", "),
            fate,
            row.mark
                .as_ref()
                .map(|mark| mark.short().to_owned())
                .unwrap_or_default(),
            by(session, row.mark.as_ref()).to_owned(),
            text_of(&row.listed.description).to_owned(),
        ]);
    }
    let cap = session.policy().cap;
    let used = listing.revisions.len();
    let name = &session.routine().name;
    let head = format!("{name}  {used} of {cap} slots taken\n");
    let refusal = session
        .policy()
        .fates(listing, session.knowledge().protected())
        .err();
    let foot = refusal.map(|refusal| {
        format!(
            "nothing is rotated: {}\n",
            words::escape(&refusal.to_string())
        )
    });
    format!(
        "{head}{}{}",
        table.render(report.look()),
        foot.unwrap_or_default()
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
                "goes": match &row.fate { Some(Fate::MayGo(place)) => Some(place), _ => None },
                "content": row.mark.as_ref().map(Mark::short),
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
    })
}
