//! `er-dev prune`: rotation at once, instead of after the next upload.

use crate::cli::{self, Common};
use crate::report::class::Class;
use crate::report::{Event, Report};
use crate::revision::deploy::{DeployError, Happened, Session, Trouble};
use crate::revision::protocol::Blocked;
use crate::revision::rotation::Fate;

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
    let routines: Vec<_> = flags.routine.into_iter().collect();
    let choice = Choice {
        routines: &routines,
        dry_run: flags.dry_run,
        keep: flags.keep,
        ..Choice::default()
    };
    let context = Context::open(common, choice).await?;
    let mut code = 0;
    for mut session in context.sessions()?.into_values() {
        let name = session.routine().name.clone();
        one::list(&mut session).await?;
        let before = session.knowledge().slots();
        let mut rotated = 0;
        let pruned = one::persist(&mut session, flags.timeout, async |session| {
            let mut pass = session.begin().await?;
            let ended = match pass.look().await {
                Ok(()) => pass.trim().await,
                Err(error) => Err(error),
            };
            for happened in pass.happened() {
                rotated += usize::from(matches!(
                    happened,
                    Happened::Rotated { .. } | Happened::Planned("rotate", _)
                ));
                report.tell(&of_happened(&name, 0, happened));
            }
            match ended {
                // That no more may go is what the summary says.
                Ok(_) | Err(DeployError::Blocked(Blocked::AllProtected(_))) => Ok(()),
                Err(error) => Err(error),
            }
        });
        pruned.await?;
        if let Some(trouble) = session.trouble() {
            let (class, help) = match trouble {
                Trouble::State(_) | Trouble::Vault(_) => (Class::State, MAKE_ROOM),
                Trouble::Permission(_) => (Class::Credentials, "let the key delete versions"),
            };
            let text = format!("{name}: not pruned: {trouble}\n= help: {help}");
            return Err(Failure::new(class, text));
        }
        let left = before.saturating_sub(rotated);
        let stay = why_more_stay(&session, left);
        if !stay.is_empty() {
            code = 1;
        }
        report.tell(&Event::Pruned {
            routine: name,
            rotated,
            left,
            planned: flags.dry_run,
            stay,
        });
    }
    context.close().await;
    Ok(code)
}

/// Why more versions stay than were to be left; empty if that is not so.
fn why_more_stay(session: &Session, left: usize) -> String {
    let policy = session.policy();
    let knowledge = session.knowledge();
    let Some(listing) = knowledge.listing().filter(|_| left > policy.at_rest()) else {
        return String::new();
    };
    let fates = match policy.fates(listing, knowledge.protected()) {
        Err(refusal) => return refusal.to_string(),
        Ok(fates) => fates,
    };
    let stay = listing.revisions.iter().zip(fates);
    let stay: Vec<String> = stay
        .filter_map(|(listed, fate)| match fate {
            Fate::Stays(stays) => Some(format!("{} ({stays})", listed.revision.short())),
            Fate::MayGo(_) => None,
        })
        .collect();
    stay.join(", ")
}
