//! `er-dev publish` and `er-dev rollback`: which version users see.

use std::time::{Duration, SystemTime};

use crate::cli::{self, Common};
use crate::cloud::error::Class;
use crate::cloud::{Fetched, Listed};
use crate::config::{Routine, Upload};
use crate::report::Report;
use crate::report::words;
use crate::revision::deploy::{Session, age_of};
use crate::revision::mark::Mark;
use crate::routine::Revision;
use crate::watch::source;

use super::Failure;
use super::context::target;
use super::one::{self, One};
use super::problem;

/// The environment that is there to try things, so that nobody is asked.
const STAGING: &str = "staging";

/// How a version is published.
struct Manner {
    environment: String,
    yes: bool,
    timeout: Duration,
}

/// Puts a version live.
pub(super) async fn publish(
    common: &Common,
    flags: cli::Publish,
    report: &mut Report,
) -> Result<u8, Failure> {
    let mut one = one::open(common, &flags.routine, flags.dry_run).await?;
    one::list(&mut one.session).await?;
    let (revision, why) = match &flags.revision {
        Some(text) => (one::named_version(&one.session, text)?, String::new()),
        None => usual(&one.session).await?,
    };
    let manner = Manner {
        environment: flags.env,
        yes: flags.yes || flags.dry_run,
        timeout: flags.timeout,
    };
    put_live(one, &revision, &why, &manner, report).await
}

/// Puts the version live that was live before.
pub(super) async fn rollback(
    common: &Common,
    flags: cli::Rollback,
    report: &mut Report,
) -> Result<u8, Failure> {
    let mut one = one::open(common, &flags.routine, flags.dry_run).await?;
    one::list(&mut one.session).await?;
    let revision = before(&one.session, &flags.env)?;
    let manner = Manner {
        environment: flags.env,
        yes: flags.yes || flags.dry_run,
        timeout: flags.timeout,
    };
    put_live(one, &revision, ", live there before", &manner, report).await
}

async fn put_live(
    mut one: One,
    revision: &Revision,
    why: &str,
    manner: &Manner,
    report: &mut Report,
) -> Result<u8, Failure> {
    let name = one.session.routine().name.clone();
    let environment = &manner.environment;
    let live = one.session.live_in(environment);
    let live =
        live.map_err(|error| Failure::of(&name, problem::of_deploy(&error.into(), &name)))?;
    if environment != STAGING && live.as_ref() != Some(revision) {
        one::ask(
            &question(&one.session, revision, why, environment, live.as_ref()),
            manner.yes,
        )?;
    }
    let published = one::persist(&mut one.session, manner.timeout, async |session| {
        let mut pass = session.begin().await?;
        let published = pass.publish(revision, environment, live.as_ref()).await;
        one::tell(&mut pass, &name, report);
        published
    });
    published.await?;
    one.close(0).await
}

/// The command that makes a version of the entry.
fn how_to_make_one(routine: &Routine) -> String {
    let name = &routine.name;
    match routine.upload {
        Upload::Revision => format!("`er-dev push {name}`"),
        Upload::Staging => format!("`er-dev commit {name} -m TEXT`, after an upload to staging,"),
    }
}

fn question(
    session: &Session,
    revision: &Revision,
    why: &str,
    environment: &str,
    live: Option<&Revision>,
) -> String {
    let name = &session.routine().name;
    let age = age_of(revision, SystemTime::now());
    let age = age.map(|age| format!(" ({} old{why})", words::age_in_words(age)));
    let place = match live {
        Some(live) => format!("in place of {live}"),
        None => "where nothing is live".into(),
    };
    let age = age.unwrap_or_default();
    format!("publish version {revision}{age} of {name} to {environment}, {place}")
}

/// The version that holds the present bytes of the entry, else the newest; of both only what could be published.
async fn usual(session: &Session) -> Result<(Revision, String), Failure> {
    let (knowledge, routine) = (session.knowledge(), session.routine());
    let there = knowledge.newest_first();
    let there: Vec<&Listed> = there
        .filter(|it| !knowledge.is_doomed(&it.revision))
        .collect();
    let present = source::digest(&target(routine)).ok();
    let is_present = |listed: &&&Listed| {
        let mark = Mark::read(&listed.description);
        present.is_some_and(|digest| mark.is_some_and(|mark| mark.is_for(digest)))
    };
    for listed in there.iter().filter(is_present) {
        if is_publishable(session, listed).await? {
            let why = format!(", the present bytes of {}", routine.shown);
            return Ok((listed.revision.clone(), why));
        }
    }
    let mut which = "the newest";
    for listed in there.iter().filter(|listed| !is_present(listed)) {
        if is_publishable(session, listed).await? {
            let why = format!(
                ", {which}; no version holds the present bytes of {}",
                routine.shown
            );
            return Ok((listed.revision.clone(), why));
        }
        which = "the newest that holds its code";
    }
    Err(Failure::refused(format!(
        "{} has no version that could be published\n= help: {} makes one",
        routine.name,
        how_to_make_one(routine)
    )))
}

/// Whether a version reads back as what its mark says, or as anything if it has none.
async fn is_publishable(session: &Session, listed: &Listed) -> Result<bool, Failure> {
    match session.fetch(&listed.revision).await {
        Ok(Fetched::Code(code)) => {
            let mark = Mark::read(&listed.description);
            Ok(mark.is_none_or(|mark| mark.fits(&code)))
        }
        Ok(Fetched::Nothing) => Ok(false),
        Err(error) => match error.class {
            // It is this version that cannot be read.
            Class::Gone | Class::Permanent | Class::UnknownServer => Ok(false),
            _ => Err(Failure::of(
                &session.routine().name,
                problem::of_cloud(&error),
            )),
        },
    }
}

/// The version that was live in an environment before the present one.
fn before(session: &Session, environment: &str) -> Result<Revision, Failure> {
    let name = &session.routine().name;
    let knowledge = session.knowledge();
    let live = session.live_in(environment);
    live.map_err(|error| Failure::of(name, problem::of_deploy(&error.into(), name)))?;
    let Some(before) = knowledge.protected().was_live.get(environment) else {
        return Err(Failure::refused(format!(
            "{name}: er-dev has not seen what was live in {environment} before the present version\n= help: choose one of `er-dev revisions {name}` and publish it: `er-dev publish {name} REV --env {environment}`"
        )));
    };
    if knowledge
        .newest_first()
        .any(|listed| listed.revision == *before)
    {
        return Ok(before.clone());
    }
    let kept = session.vault().list().unwrap_or_default();
    let help = if kept.iter().any(|kept| kept.revision == *before) {
        format!(
            "`er-dev restore {name} {before}` makes a new version of its code, and says how to publish that one"
        )
    } else {
        format!("choose another one of `er-dev revisions {name}`")
    };
    Err(Failure::refused(format!(
        "{name}: version {before}, which was live in {environment} before, is not there any more\n= help: {help}"
    )))
}
