//! `er-dev commit`: a version of what is on staging.

use crate::cli::{self, Common};
use crate::report::{Event, Format, Report};
use crate::revision::deploy::How;

use super::{Failure, one};

/// Makes the version, and frees a slot for the next one.
pub(super) async fn run(
    common: &Common,
    flags: cli::Commit,
    report: &mut Report,
) -> Result<u8, Failure> {
    let mut json = Report::stdout(Format::Json, common.color);
    let report = if flags.json { &mut json } else { report };
    let mut one = one::open(common, &flags.routine, false).await?;
    let session = &mut one.session;
    let name = session.routine().name.clone();
    let committed = one::persist(session, flags.timeout, async |session| {
        let mut pass = session.begin().await?;
        let committed = pass.commit(&flags.message).await;
        one::tell(&mut pass, &name, report);
        let (stored, sha256) = committed?;
        report.tell(&match stored.how {
            How::Uploaded | How::Planned => Event::Committed {
                routine: name.clone(),
                revision: stored.revision,
                sha256,
                calls: stored.calls,
                slots: stored.slots,
                cap: stored.cap,
            },
            How::Newest | How::Older => Event::Reused {
                routine: name.clone(),
                revision: stored.revision,
                sha256,
                saves: 0,
            },
        });
        // The version is there; whether a slot is free is the next one's concern.
        if let Err(error) = pass.trim().await {
            tracing::warn!("no slot was freed: {error}");
        }
        one::tell(&mut pass, &name, report);
        Ok(())
    });
    committed.await?;
    one.close(0).await
}
