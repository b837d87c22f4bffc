//! `er-dev pin` and `er-dev unpin`: what rotation leaves alone.

use crate::cli::{self, Common};
use crate::report::class::Class;
use crate::report::{Event, Report};
use crate::revision::deploy::Session;
use crate::revision::lock::{self, StepLock};
use crate::revision::naming::{self, Unclear};
use crate::routine::Revision;

use super::{Failure, one, problem};

/// Keeps a version out of rotation.
pub(super) async fn pin(
    common: &Common,
    flags: cli::Pin,
    report: &mut Report,
) -> Result<u8, Failure> {
    let mut one = one::open(common, &flags.routine, false).await?;
    // Listed with the lock in hand: somebody may be deleting that very version.
    let _lock = lock(common, &one.session).await?;
    one::list(&mut one.session).await?;
    let revision = one::named_version(&one.session, &flags.revision)?;
    change(&one.session, &revision, true)?;
    report.tell(&Event::Pinned {
        routine: flags.routine,
        revision,
        pinned: true,
    });
    one.close(0).await
}

/// Lets rotation take a pinned version again.
pub(super) async fn unpin(
    common: &Common,
    flags: cli::Pin,
    report: &mut Report,
) -> Result<u8, Failure> {
    let one = one::open(common, &flags.routine, false).await?;
    let (name, pins) = (&flags.routine, one.session.pins());
    let pinned = pins.read().map_err(|error| failed(&one.session, &error))?;
    // What was deleted on the service by hand may be unpinned as well.
    let found = naming::find(&flags.revision, &pinned);
    let revision = found.cloned().map_err(|error| {
        let help = "only what `er-dev pin` pinned can be unpinned; patterns of the configuration stand there under `pin`";
        match error {
            Unclear::Nobody(text) => {
                let near = naming::nearest(&text, &pinned);
                let near = near.map(|near| format!("did you mean {near}? "));
                let near = near.unwrap_or_default();
                Failure::usage(format!(
                    "{name}: no pinned version ends in {text}\n= help: {near}{help}"
                ))
            }
            error => one::unclear(name, &error, &pinned, help),
        }
    })?;
    let _lock = lock(common, &one.session).await?;
    change(&one.session, &revision, false)?;
    report.tell(&Event::Pinned {
        routine: name.clone(),
        revision,
        pinned: false,
    });
    one.close(0).await
}

/// The step lock: whoever rotates next has seen the pin.
async fn lock(common: &Common, session: &Session) -> Result<StepLock, Failure> {
    let lock = lock::step(session.dir(), common.lock_wait).await;
    lock.map_err(|error| {
        let name = &session.routine().name;
        Failure::of(name, problem::of_deploy(&error.into(), name))
    })
}

fn change(session: &Session, revision: &Revision, pinned: bool) -> Result<(), Failure> {
    let pins = session.pins();
    let mut all = pins.read().map_err(|error| failed(session, &error))?;
    if pinned {
        all.insert(revision.clone());
    } else {
        all.remove(revision);
    }
    pins.write(&all).map_err(|error| failed(session, &error))
}

fn failed(session: &Session, error: &std::io::Error) -> Failure {
    let path = session.pins().path().display();
    Failure::new(
        Class::State,
        format!(
            "{path}: {error}\n= help: see that it can be read and written; a damaged file may be removed, which takes all pins away"
        ),
    )
}
