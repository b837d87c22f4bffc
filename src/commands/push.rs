//! `er-dev push`: uploads what differs, once.

use std::time::Instant;

use tokio::sync::mpsc;

use crate::cli::{self, Common};
use crate::pipeline::asked::Asked;
use crate::pipeline::daemon::{self, Rekeyed, Until, Work};
use crate::pipeline::guests::Arrivals;
use crate::pipeline::viewer::Viewer;
use crate::report::Report;
use crate::revision::deploy::Session;

use super::Failure;
use super::condition::Condition;
use super::context::{Choice, Context};
use super::deploy::{Hint, Manner, carry_out, looks};
use super::signals::Signals;
use super::watch::{exit_code, tell_done};

/// Runs until every routine is up to date, has failed, or the time is up.
pub(super) async fn run(
    common: &Common,
    flags: cli::Push,
    report: &mut Report,
) -> Result<u8, Failure> {
    let begun = Instant::now();
    let choice = Choice {
        routines: &flags.routines,
        ..Choice::default()
    };
    let context = Context::open(common, choice).await?;
    let watch = &context.config.watch;
    let manner = Manner {
        force: flags.force,
        demands: context.demands(flags.allow_secrets),
        quiet: (watch.debounce, watch.max_wait),
        condition: Condition::new(context.cloud.clone(), context.config.limits),
        hint: Hint::default(),
    };
    let sessions = context.sessions()?;
    let first = looks(sessions.keys());
    // Nothing comes later: the other end of this channel is closed from the start.
    let (_, sightings) = mpsc::channel(1);
    let until = Until::Idle {
        give_up: Some(tokio::time::Instant::now() + flags.timeout),
    };
    let work = Work {
        sessions,
        first,
        builds: context.builds(),
        arrivals: Arrivals::nobody(),
        sightings,
        asked: Asked::nobody(),
        holds: Session::holds,
        rekeyed: Rekeyed::never(),
        viewer: Viewer::nobody(),
        until,
        drain: context.config.daemon.drain,
    };
    let deploy = |job, session, tell| carry_out(job, session, tell, manner.clone());
    let signals = Signals::listen()?;
    let finished = daemon::run(work, deploy, report, signals.at(1), signals.at(2))
        .await
        .map_err(Failure::other)?;
    tell_done(&context, &finished, begun, report);
    context.close().await;
    Ok(exit_code(&finished, true))
}
