//! `er-dev watch`: the daemon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cli::{self, Common};
use crate::cloud::error::{Class as CloudClass, CloudError};
use crate::config::Upload;
use crate::control::feed::Feed;
use crate::control::server::{About, Control, Service};
use crate::control::status::Budget;
use crate::pipeline::asked::Asked;
use crate::pipeline::daemon::{self, Finished, Rekeyed, Until, Work};
use crate::pipeline::viewer::{Viewer, Vitals};
use crate::report::class::Class;
use crate::report::live::Key;
use crate::report::question::Question;
use crate::report::{Event, Problem, Report, Totals};
use crate::revision::deploy::{Session, age_of};
use crate::routine::{Edit, RoutineName, Sighting};
use crate::watch;

use super::condition::Condition;
use super::context::{Choice, Context};
use super::deploy::{Hint, Manner, carry_out};
use super::signals::Signals;
use super::terminal::{self, Terminal};
use super::{Failure, daemons, deploy as deploying, problem, revisions};

/// How long the first listings may take before watching begins without them.
const FIRST_LISTINGS: Duration = Duration::from_secs(15);

/// How long an entry has to have been left alone before its first edit is taken, since nothing has told of its writer.
const REST_AT_START: Duration = Duration::from_secs(1);

/// Sightings that wait for the loop. When there are more, the watcher waits, and saves pile up as one edit.
const SIGHTINGS: usize = 64;

/// Questions that wait for the loop. When there are more, whoever asks waits.
const QUESTIONS: usize = 8;

/// Runs until a signal, or with `--once` until every routine is up to date.
pub(super) async fn run(
    common: &Common,
    flags: cli::Watch,
    report: &mut Report,
) -> Result<u8, Failure> {
    let begun = Instant::now();
    let choice = Choice {
        routines: &flags.routines,
        emulator: flags.emulator,
        dry_run: flags.dry_run,
        watches: !flags.once,
        ..Choice::default()
    };
    let context = Context::open(common, choice).await?;
    let signals = Signals::listen()?;
    let (stop, abort) = (signals.at(1), signals.at(2));
    let (mut locks, held) = context.watch_locks()?;
    context.tell_start(report);
    let (sender, sightings) = mpsc::channel(SIGHTINGS);
    let (watching, first) = if flags.once {
        drop(sender);
        (
            None,
            deploying::looks(context.config.routines.iter().map(|routine| &routine.name)),
        )
    } else {
        let all = flags.routines.is_empty();
        let (watching, first) = start_watching(&context, all, sender)?;
        report.tell(&Event::Watching {
            routines: context.config.routines.len(),
            files: watching.files,
            directories: watching.directories,
            backend: watching.backend,
        });
        (Some(watching), first)
    };
    let (control, asked) = match &watching {
        Some(watching) => {
            open_control(common, &context, flags.dry_run, watching, begun, report).await
        }
        None => (Served::default(), Asked::nobody()),
    };
    let mut sessions = context.sessions()?;
    sessions.retain(|name, _| !held.iter().any(|routine| routine.name == *name));
    // A routine can leave, and its lock goes with it.
    for (name, session) in &mut sessions {
        session.keep(locks.remove(name));
    }
    let mut stop = std::pin::pin!(stop);
    let listed = tokio::select! {
        listed = list_all(sessions, report) => Some(listed?),
        () = &mut stop => None,
    };
    let Some(sessions) = listed else {
        context.close().await;
        let text = "stopped before the routines were listed, so nothing was uploaded\n= help: start it again when the service can be reached";
        return Err(Failure::new(Class::Locked, text));
    };
    tell_ready(&context, begun, report);
    context.tell_unbuilt(report);

    let until = if flags.once {
        Until::Idle { give_up: None }
    } else {
        Until::Stopped
    };
    let drain = context.config.daemon.drain;
    let manner = Manner {
        force: false,
        demands: context.demands(flags.allow_secrets),
        quiet: (
            context.config.watch.debounce.max(REST_AT_START),
            context.config.watch.max_wait,
        ),
        condition: Condition::new(context.cloud.clone(), context.config.limits),
        hint: Hint::default(),
    };
    let deploy = |job, session, tell| carry_out(job, session, tell, manner.clone());
    let (terminal, keys) = Terminal::open(report)?.unzip();
    let work = Work {
        sessions,
        first,
        builds: context.builds(),
        arrivals: context.arrivals(&held),
        sightings,
        asked,
        holds: Session::holds,
        rekeyed: rekeyed(&context),
        viewer: viewer(&context, terminal.as_ref(), keys, begun),
        until,
        drain,
    };
    let finished = daemon::run(work, deploy, report, stop, abort).await;
    drop(terminal);
    control.stop().await;
    if let Some(watching) = watching {
        watching.stop().map_err(Failure::other)?;
    }
    let finished = finished.map_err(Failure::other)?;
    tell_done(&context, &finished, begun, report);
    context.close().await;
    Ok(exit_code(&finished, flags.once))
}

fn start_watching(
    context: &Context,
    all: bool,
    sender: mpsc::Sender<Sighting>,
) -> Result<(watch::Watching, Vec<Edit>), Failure> {
    let settings = watch::Settings {
        debounce: context.config.watch.debounce,
        max_wait: context.config.watch.max_wait,
        rescan: context.config.watch.rescan,
        backend: context.config.watch.backend,
        poll_interval: context.config.watch.poll_interval,
        ignore: context.config.watch.ignore.clone(),
        private: context.state.path().to_owned(),
    };
    // Where only some routines are watched, no file that comes is one of them.
    let globs = match all {
        true => context.config.globs.clone(),
        false => Vec::new(),
    };
    let help = "see that files can be watched here, or look for changes instead: `backend = \"poll\"` in [watch]";
    watch::start(context.targets(), context.inputs(), globs, settings, sender)
        .map_err(|error| Failure::of_error(Class::Watch, error, help))
}

/// Who looks: somebody at the terminal, if there is one.
fn viewer(
    context: &Context,
    terminal: Option<&Terminal>,
    keys: Option<mpsc::Receiver<Key>>,
    begun: Instant,
) -> Viewer<Session> {
    let nobody = Viewer::<Session>::nobody();
    let suspend = terminal.map(Terminal::suspend);
    let (cloud, held) = (Arc::clone(&context.cloud), Arc::clone(&context.keys));
    let vitals = move || {
        let usage = cloud.usage();
        let ends = held.present().credentials.ends;
        let left = ends.map(|ends| ends.duration_since(Timestamp::now()));
        Vitals {
            calls: usage.calls,
            peak: usage.peak,
            up: begun.elapsed(),
            key_ends: left.map(|left| left.unsigned_abs()),
        }
    };
    Viewer {
        vitals: Box::new(vitals),
        versions: revisions::as_listed,
        objects: revisions::object_as_listed,
        size: Box::new(terminal::size),
        suspend: match suspend {
            Some(suspend) => Box::new(suspend),
            None => nobody.suspend,
        },
        keys: keys.unwrap_or(nobody.keys),
    }
}

/// Looks for another key as long as it is waited for.
fn rekeyed(context: &Context) -> Rekeyed {
    let keys = Arc::clone(&context.keys);
    Rekeyed(Box::new(move || {
        let keys = Arc::clone(&keys);
        Box::pin(async move { keys.replaced().await })
    }))
}

/// What is served while watching goes on.
#[derive(Default)]
struct Served {
    service: Option<Service>,
    controls: Vec<Control>,
}

impl Served {
    async fn stop(self) {
        if let Some(service) = self.service {
            service.stop();
        }
        for control in self.controls {
            control.stop().await;
        }
    }
}

/// Opens the control socket, and the page where the configuration has an address for it. Where one of them is not
/// possible, watching goes on without.
async fn open_control(
    common: &Common,
    context: &Context,
    dry_run: bool,
    watching: &watch::Watching,
    begun: Instant,
    report: &mut Report,
) -> (Served, Asked) {
    let (asked, questions) = mpsc::channel::<Question>(QUESTIONS);
    let feed = Arc::new(Feed::new(Timestamp::now()));
    let service = Service::new(
        about(context, dry_run, watching, begun, Arc::clone(&feed)),
        asked,
    );
    report.listen(Box::new(move |event, now| feed.tell(event, now)));
    let mut controls = Vec::new();
    let at_socket = match daemons::directory(common, Some(context.state.path())) {
        Ok(dir) => {
            let control = service.at_socket(&dir).await;
            control.map_err(|error| (error.to_string(), error.help()))
        }
        Err(failure) => {
            let (what, help) = failure.halves();
            Err((what.to_owned(), help.to_owned()))
        }
    };
    match at_socket {
        Ok(control) => controls.push(control),
        Err((why, help)) => warn(
            report,
            format!("`er-dev status` and `er-dev sync` cannot reach this watch: {why}"),
            help,
        ),
    }
    if let Some(listen) = context.config.daemon.listen {
        match service.at_address(listen).await {
            Ok((control, address)) => {
                controls.push(control);
                let url = format!("http://{address}/");
                report.tell(&Event::Serving { url });
            }
            Err(error) => warn(
                report,
                format!("there is no page and no /metrics, since {listen} cannot be listened at: {error}"),
                "give `daemon.listen` a port that is free and start again; watching goes on without".into(),
            ),
        }
    }
    let sync = watching.sync();
    let asked = Asked {
        questions,
        sync: Box::new(move |number| sync.ask(number)),
    };
    let service = Some(service);
    (Served { service, controls }, asked)
}

fn about(
    context: &Context,
    dry_run: bool,
    watching: &watch::Watching,
    begun: Instant,
    feed: Arc<Feed>,
) -> About {
    let cloud = context.cloud.clone();
    let budget = move || {
        let (state, usage) = (cloud.budget(), cloud.usage());
        Budget {
            requests_per_second: state.rate,
            configured: state.configured,
            calls: usage.calls,
            peak: usage.peak,
        }
    };
    let sync = watching.sync();
    let noticing = move || {
        let noticing = sync.noticing().into_iter();
        noticing
            .map(|(routine, it)| (routine.to_string(), (it.by.to_owned(), it.why)))
            .collect()
    };
    let cloud = context.cloud.clone();
    About {
        version: env!("CARGO_PKG_VERSION"),
        instance: context.state.instance().as_str().to_owned(),
        endpoint: context.config.service.endpoint.host.clone(),
        config: daemons::canonical(&context.config.file),
        dry_run,
        begun,
        started: Timestamp::now() - begun.elapsed(),
        budget: Box::new(budget),
        noticing: Box::new(noticing),
        traffic: Box::new(move || cloud.traffic()),
        feed,
    }
}

/// Tells of something that watching goes on without.
fn warn(report: &mut Report, what: String, help: String) {
    let problem = Problem {
        what,
        help,
        class: Class::State,
        operation: None,
        request_id: None,
        frame: None,
    };
    let routine = None;
    report.tell(&Event::Warning { routine, problem });
}

/// Lists every routine before anything is done, so that a wrong key is told at once and the slots are shown. What does
/// not answer in time is left to its first edit. One listing goes ahead: where it does not get through, no other would.
async fn list_all(
    mut sessions: BTreeMap<RoutineName, Session>,
    report: &mut Report,
) -> Result<BTreeMap<RoutineName, Session>, Failure> {
    let mut listed_first = BTreeMap::new();
    let mut refused = None;
    if let Some((name, mut session)) = sessions.pop_first() {
        match list(&mut session).await {
            Err(error) if error.class == CloudClass::Credentials => refused = Some(error),
            Err(error) if error.class == CloudClass::NotSent => {
                tracing::info!(%error, "nothing is listed at the start");
                sessions.insert(name, session);
                return Ok(sessions);
            }
            Err(error) => tracing::info!(routine = %name, %error, "not listed at the start"),
            Ok(()) => {}
        }
        listed_first.insert(name, session);
    }
    let mut tasks = JoinSet::new();
    for (name, mut session) in sessions {
        tasks.spawn(async move {
            let listed = list(&mut session).await;
            (name, session, listed)
        });
    }
    let mut sessions = listed_first;
    while let Some(joined) = tasks.join_next().await {
        let (name, session, listed) = joined.map_err(Failure::other)?;
        match listed {
            Err(error) if error.class == CloudClass::Credentials => {
                refused = refused.or(Some(error));
            }
            Err(error) => tracing::info!(routine = %name, %error, "not listed at the start"),
            Ok(()) => {}
        }
        sessions.insert(name, session);
    }
    if let Some(error) = refused {
        let problem = problem::of_cloud(&error);
        return Err(Failure::of_problem(&problem));
    }
    for session in sessions.values() {
        if session.routine().upload == Upload::Staging {
            report.goes_to_staging(&session.routine().name);
        }
    }
    for event in sessions.values().filter_map(slots) {
        report.tell(&event);
    }
    Ok(sessions)
}

async fn list(session: &mut Session) -> Result<(), CloudError> {
    match tokio::time::timeout(FIRST_LISTINGS, session.list()).await {
        Ok(listed) => listed.map(|_| ()),
        Err(_) => Err(CloudError::unanswered(
            CloudClass::Ambiguous,
            "DescribeRoutine",
            "no answer in time",
        )),
    }
}

fn slots(session: &Session) -> Option<Event> {
    let listing = session.knowledge().listing()?;
    let next = session
        .policy()
        .victim(listing, session.knowledge().protected())
        .ok()
        .flatten();
    Some(Event::Slots {
        routine: session.routine().name.clone(),
        used: listing.revisions.len(),
        cap: session.policy().cap,
        next: next.map(|listed| {
            (
                listed.revision.clone(),
                age_of(&listed.revision, SystemTime::now()),
            )
        }),
    })
}

fn tell_ready(context: &Context, begun: Instant, report: &mut Report) {
    let limits = context.config.limits;
    report.tell(&Event::Budget {
        requests_per_second: limits.requests_per_second,
        burst: limits.burst,
        in_flight: limits.max_in_flight,
    });
    report.tell(&Event::Ready {
        after: begun.elapsed(),
    });
}

/// Tells how everything ended.
pub(super) fn tell_done(
    context: &Context,
    finished: &Finished,
    begun: Instant,
    report: &mut Report,
) {
    let usage = context.cloud.usage();
    report.tell(&Event::Done(Totals {
        calls: usage.calls,
        peak: usage.peak,
        up: begun.elapsed(),
        ..finished.totals
    }));
}

/// The exit code of a run that came to its end.
pub(super) fn exit_code(finished: &Finished, once: bool) -> u8 {
    if finished.interrupted {
        return 130;
    }
    let mut codes: Vec<u8> = finished
        .failures
        .iter()
        .map(|class| class.exit_code())
        .collect();
    codes.dedup();
    match codes[..] {
        [] if finished.totals.abandoned > 0 => 75,
        [] => 0,
        _ if !once => {
            if finished.totals.abandoned > 0 {
                75
            } else {
                0
            }
        }
        [code] => code,
        _ => 1,
    }
}
