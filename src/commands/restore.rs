//! `er-dev restore`: a version that rotation deleted, uploaded again.

use std::time::{Instant, SystemTime};

use serde_json::json;

use crate::cli::{self, Common};
use crate::report::class::Class;
use crate::report::table::{Align, Table};
use crate::report::{Event, Format, Report, words};
use crate::revision::deploy::{Session, age_of};
use crate::revision::mark::{restored_text, text_of};
use crate::revision::naming;
use crate::revision::vault::{Kept, VaultError};
use crate::routine::Edit;

use super::deploy::of_stored;
use super::{Failure, one};

/// Shows what the vault holds, or brings one version of it back.
pub(super) async fn run(
    common: &Common,
    flags: cli::Restore,
    report: &mut Report,
) -> Result<u8, Failure> {
    let mut one = one::open(common, &flags.routine, false).await?;
    let session = &mut one.session;
    let kept = session.vault().list().map_err(|error| {
        let dir = session.dir().display();
        Failure::new(
            Class::State,
            format!("{dir}: {error}\n= help: see that the state directory can be read"),
        )
    })?;
    let Some(text) = flags.revision else {
        let kept = gone(session, kept).await;
        if flags.json || common.format == Format::Json {
            for kept in &kept {
                report.print(&format!("{}\n", object(session, kept)));
            }
        } else {
            report.print(&table(session, &kept, report));
        }
        return one.close(0).await;
    };
    let name = session.routine().name.clone();
    let found = naming::find(&text, kept.iter().map(|kept| &kept.revision));
    let revision = found.map_err(|error| {
        let help = format!("`er-dev restore {name} --list` shows what can be restored");
        one::unclear(&name, &error, &help)
    })?;
    let kept = kept.iter().find(|kept| kept.revision == *revision);
    let kept = kept.ok_or_else(|| Failure::other("the vault changed meanwhile"))?;
    let code = session.vault().code(kept).map_err(damaged)?;

    session.describe_as(restored_text(&kept.description, &kept.revision));
    let edit = Edit {
        routine: name.clone(),
        saves: 0,
        digest: Some(code.digest()),
        settled: Instant::now(),
    };
    let routine = session.routine().clone();
    let stored = one::persist(session, flags.timeout, async |session| {
        let mut pass = session.begin().await?;
        let stored = pass.store(&code, false).await;
        one::tell(&mut pass, &name, report);
        let stored = stored?;
        if let Some(event) = of_stored(&edit, &code, &stored, &routine) {
            report.tell(&event);
        }
        // The code is on the service; whether a slot is free is the next upload's concern.
        if let Err(error) = pass.trim().await {
            tracing::warn!("no slot was freed: {error}");
        }
        one::tell(&mut pass, &name, report);
        Ok(stored)
    });
    let revision = stored.await?.revision;
    report.tell(&Event::Recovered {
        routine: name,
        revision,
        was: kept.revision.clone(),
    });
    one.close(0).await
}

/// The kept versions that are not on the service any more. One is saved before it is deleted, and then somebody may have
/// published or pinned it.
async fn gone(session: &mut Session, mut kept: Vec<Kept>) -> Vec<Kept> {
    if kept.is_empty() {
        return kept;
    }
    match session.list().await {
        Ok(_) => kept.retain(|kept| !session.knowledge().is_listed(&kept.revision)),
        Err(error) => tracing::warn!(
            "the service could not be asked, so some of these versions may still be there: {error}"
        ),
    }
    kept
}

fn damaged(error: VaultError) -> Failure {
    let help = match &error {
        VaultError::NoCode(_) => "there is nothing to restore",
        VaultError::Io { .. } | VaultError::Damaged(_) => {
            "it cannot be restored; choose another one"
        }
    };
    Failure::refused(format!("{error}\n= help: {help}"))
}

fn table(session: &Session, kept: &[Kept], report: &Report) -> String {
    let name = &session.routine().name;
    if kept.is_empty() {
        return format!("{name}: the vault is empty, since rotation has deleted nothing\n");
    }
    let mut table = Table::new([
        ("revision", Align::Left),
        ("age", Align::Right),
        ("rotated", Align::Left),
        ("size", Align::Right),
        ("content", Align::Left),
        ("why", Align::Left),
        ("description", Align::Left),
    ]);
    for kept in kept {
        let age = age_of(&kept.revision, SystemTime::now());
        table.row([
            kept.revision.to_string(),
            age.map(words::age).unwrap_or_default(),
            format!("{:.0}", kept.saved),
            words::size(kept.bytes),
            kept.sha256.map(|digest| digest.short()).unwrap_or_default(),
            kept.reason.clone(),
            text_of(&kept.description).to_owned(),
        ]);
    }
    let count = words::plural(kept.len() as u64, "version");
    format!(
        "{name}  {count} in the vault\n{}",
        table.render(report.look())
    )
}

fn object(session: &Session, kept: &Kept) -> serde_json::Value {
    json!({
        "v": 1,
        "routine": session.routine().name,
        "revision": kept.revision,
        "sha256": kept.sha256,
        "bytes": kept.bytes,
        "created": kept.created,
        "description": text_of(&kept.description),
        "environments": kept.environments,
        "reason": kept.reason,
        "rotated": kept.saved,
    })
}
