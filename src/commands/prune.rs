//! `er-dev prune`: rotation at once, instead of after the next upload.

use std::collections::BTreeSet;

use crate::cli::{self, Common};
use crate::cloud::Listing;
use crate::report::class::Class;
use crate::report::{Event, Report};
use crate::revision::deploy::{DeployError, Happened, Pass, Session, Trouble};
use crate::revision::protocol::Blocked;
use crate::revision::rotation::{Fate, Refusal};
use crate::routine::Revision;

use super::condition::MAKE_ROOM;
use super::context::{Choice, Context};
use super::deploy::of_happened;
use super::{Failure, one};

/// Prunes one routine or all.
pub(super) async fn run(
    common: &Common,
    flags: cli::Prune,
    report: &mut Report,
) -> Result<u8, Failure> {
    let routines: Vec<_> = flags.routine.iter().cloned().collect();
    let choice = Choice {
        routines: &routines,
        dry_run: flags.dry_run,
        keep: flags.keep,
        ..Choice::default()
    };
    let context = Context::open(common, choice).await?;
    let mut codes = Vec::new();
    for session in context.sessions()?.into_values() {
        codes.push(prune(session, &flags, report).await);
    }
    context.close().await;
    one::worst(codes)
}

/// Prunes one routine; 1 if more versions are left than were to be.
async fn prune(
    mut session: Session,
    flags: &cli::Prune,
    report: &mut Report,
) -> Result<u8, Failure> {
    let name = session.routine().name.clone();
    one::list(&mut session).await?;
    let mut rotated = 0;
    let pruned = one::persist(&mut session, flags.timeout, async |session| {
        let mut pass = session.begin().await?;
        pass.look().await?;
        let listing = pass.knowledge().listing().cloned();
        let ended = pass.trim().await;
        let mut gone = BTreeSet::new();
        for happened in pass.happened() {
            match &happened {
                Happened::Rotated { .. } => rotated += 1,
                Happened::Planned("rotate", of) => {
                    rotated += 1;
                    gone.extend(of.split(':').next().map(Revision::new));
                }
                _ => {}
            }
            report.tell(&of_happened(&name, 0, happened));
        }
        match ended {
            // That no more may go is what the summary says.
            Ok(_) | Err(DeployError::Blocked(Blocked::AllProtected(_))) => {}
            Err(DeployError::Blocked(Blocked::Refused(why))) if !matches!(why, Refusal::Off(_)) => {
            }
            Err(error) => return Err(error),
        }
        // A plan leaves no listing behind, since it only pretends.
        let listing = match pass.knowledge().listing() {
            Some(listing) => listing.clone(),
            None => match listing {
                Some(mut listing) => {
                    listing.revisions.retain(|it| !gone.contains(&it.revision));
                    listing
                }
                None => return Ok((0, String::new())),
            },
        };
        let stay = why_more_stay(&pass, &listing);
        Ok((listing.revisions.len(), stay))
    });
    let (left, stay) = pruned.await?;
    if let Some(trouble) = session.trouble() {
        let (class, help) = match trouble {
            Trouble::State(_) | Trouble::Vault(_) => (Class::State, MAKE_ROOM.to_owned()),
            Trouble::Permission(error) => (Class::Credentials, error.help()),
        };
        let text = format!("{name}: not pruned: {trouble}\n= help: {help}");
        return Err(Failure::new(class, text));
    }
    let code = u8::from(!stay.is_empty());
    report.tell(&Event::Pruned {
        routine: name,
        rotated,
        left,
        planned: flags.dry_run,
        stay,
    });
    Ok(code)
}

/// Why more versions stay than were to be left; empty if that is not so.
fn why_more_stay(pass: &Pass<'_>, listing: &Listing) -> String {
    let policy = pass.policy();
    if listing.revisions.len() <= policy.at_rest() {
        return String::new();
    }
    let fates = match policy.fates(listing, pass.knowledge().protected()) {
        Err(refusal) => return refusal.to_string(),
        Ok(fates) => fates,
    };
    let mut stay: Vec<_> = listing.revisions.iter().zip(fates).collect();
    stay.sort_by_key(|(listed, _)| listed.revision.number());
    let stay: Vec<String> = stay
        .into_iter()
        .filter_map(|(listed, fate)| match fate {
            Fate::Stays(stays) => Some(format!("{} ({stays})", listed.revision.short())),
            Fate::MayGo(_) => None,
        })
        .collect();
    stay.join(", ")
}
