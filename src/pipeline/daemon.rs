//! The loop: waits for the next thing to happen, hands it to the schedule, and carries out what that decides.
//!
//! Each arm of the `select!` only builds an event. A deploy is a function handed in; it takes a routine's session into
//! its task and gives it back at its end, so that nothing is shared. What a deploy has to tell comes through a channel,
//! because only the loop writes to the report.

use std::collections::{BTreeMap, HashMap};
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::report::class::Class;
use crate::report::live::Key;
use crate::report::question::{Order, Question};
use crate::report::{self, Problem, Report, Safety, Totals};
use crate::routine::{Edit, RoutineName, Sighting};

use super::asked::{Answers, Asked};
use super::schedule::{Effect, Ended, Event, Job, Landed, Mode, Schedule};
use super::viewer::{Pressed, View, Viewer};

/// How many lines deploys may have ready before they wait for the loop to write them.
const TELLINGS: usize = 64;

/// What a running deploy has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Telling {
    /// A line for the user.
    Event(report::Event),
    /// Its bytes are on the service.
    Landed(RoutineName, Landed),
}

/// When the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At a stop.
    Stopped,
    /// When every edit has ended, or at this moment if that comes first.
    Idle {
        /// When whatever still waits is given up.
        give_up: Option<Instant>,
    },
}

/// What the loop works on. `S` is a routine's session: whatever a deploy needs and nobody else touches meanwhile.
#[derive(Debug)]
pub struct Work<S> {
    /// The session of every routine.
    pub sessions: BTreeMap<RoutineName, S>,
    /// Edits that are there from the start.
    pub first: Vec<Edit>,
    /// What the watcher has to say later.
    pub sightings: mpsc::Receiver<Sighting>,
    /// Who asks how it goes.
    pub asked: Asked,
    /// Whether a key that was refused is replaced.
    pub rekeyed: Rekeyed,
    /// Who looks.
    pub viewer: Viewer<S>,
    /// When the loop ends.
    pub until: Until,
    /// How long a stop waits for running deploys.
    pub drain: Duration,
}

/// Waits until a key that was refused is replaced, again and again. It is waited for only while a refused key keeps
/// everything from going on.
pub struct Rekeyed(pub Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>);

impl Rekeyed {
    /// The key stays as it is.
    pub fn never() -> Self {
        Self(Box::new(|| Box::pin(std::future::pending())))
    }
}

impl std::fmt::Debug for Rekeyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rekeyed").finish_non_exhaustive()
    }
}

/// How the loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How all edits ended.
    pub totals: Totals,
    /// The classes of those that failed.
    pub failures: Vec<Class>,
    /// Whether a second signal cut the drain short.
    pub interrupted: bool,
}

/// Why the loop could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A deploy panicked.
    #[error("the deploy of {0} ended in a panic, which is a bug in er-dev")]
    Panicked(RoutineName),
    /// No more edits can come although no stop was asked for.
    #[error("the watcher ended")]
    WatcherEnded,
}

/// Runs until the end that was asked for, a stop, or an error. `stop` is the first signal, `abort` the second.
pub async fn run<S, D, F>(
    work: Work<S>,
    deploy: D,
    report: &mut Report,
    stop: impl Future<Output = ()>,
    abort: impl Future<Output = ()>,
) -> Result<Finished, DaemonError>
where
    S: Send + 'static,
    D: Fn(Job, S, mpsc::Sender<Telling>) -> F,
    F: Future<Output = (S, Ended)> + Send + 'static,
{
    let Work {
        sessions,
        first,
        mut sightings,
        asked: Asked { questions, sync },
        rekeyed: Rekeyed(rekeyed),
        viewer,
        until,
        drain,
    } = work;
    let mode = if until == Until::Stopped {
        Mode::Daemon
    } else {
        Mode::Once
    };
    let mut deadline = match until {
        Until::Stopped => None,
        Until::Idle { give_up } => give_up,
    };
    let names: Vec<RoutineName> = sessions.keys().cloned().collect();
    let (mut view, mut keys) = View::new(viewer, names.clone());
    let mut answers = Answers::new(names, sync);
    let mut questions = Some(questions);
    let (tell, mut tellings) = mpsc::channel(TELLINGS);
    let mut running = Running {
        sessions,
        tasks: JoinSet::new(),
        names: HashMap::new(),
        deploy,
        tell,
    };
    let mut schedule = Schedule::new(mode);
    let mut rotated = 0;
    let mut interrupted = false;
    let mut stopping = false;
    let (mut stop, mut abort) = (pin!(stop), pin!(abort));
    let mut replaced = rekeyed();

    for edit in first {
        running.apply(schedule.handle(Event::Edited(edit), now()), report);
    }
    loop {
        answers.answer(&schedule, report, now());
        view.show(&schedule, deadline.filter(|_| stopping), report);
        let done = if stopping {
            schedule.running() == 0
        } else {
            mode == Mode::Once && schedule.is_idle()
        };
        if done {
            break;
        }
        let event = tokio::select! {
            biased;
            () = &mut abort => {
                interrupted = true;
                break;
            }
            () = &mut stop, if !stopping => Event::Stop,
            () = at(deadline) => break,
            Some(telling) = tellings.recv() => match heard(telling, report, &mut rotated) {
                Some(event) => event,
                None => continue,
            },
            Some(joined) = running.tasks.join_next_with_id() => {
                // What a deploy has to say comes before its end.
                while let Ok(telling) = tellings.try_recv() {
                    if let Some(event) = heard(telling, report, &mut rotated) {
                        running.apply(schedule.handle(event, now()), report);
                    }
                }
                running.ended(joined)?
            }
            sighting = sightings.recv(), if !stopping && mode == Mode::Daemon => match sighting {
                Some(Sighting::Edit(edit)) => {
                    report.settled(&edit.routine);
                    Event::Edited(edit)
                }
                Some(Sighting::Settled(routine)) => {
                    report.settled(&routine);
                    continue;
                }
                Some(Sighting::Synced(number)) => {
                    answers.synced(number, &schedule, report, now());
                    continue;
                }
                Some(sighting) => {
                    let event = match &sighting {
                        Sighting::Halted { routine, .. } => Some(Event::Halted(routine.clone())),
                        Sighting::Resumed(routine) => Some(Event::Resumed(routine.clone())),
                        _ => None,
                    };
                    if let Some(event) = seen(sighting) {
                        report.tell(&event);
                    }
                    match event {
                        Some(event) => event,
                        None => continue,
                    }
                }
                None => return Err(DaemonError::WatcherEnded),
            },
            () = &mut replaced, if schedule.is_refused() => {
                replaced = rekeyed();
                Event::Rekeyed
            }
            () = at(schedule.next_deadline().map(Instant::from_std)) => Event::Tick,
            key = next_key(&mut keys) => {
                match view.pressed(key, schedule.is_paused(), &running.sessions, report) {
                    Pressed::Nothing => continue,
                    Pressed::Order(order) => carried_out(order),
                    Pressed::Quit if stopping => {
                        interrupted = true;
                        break;
                    }
                    Pressed::Quit => Event::Stop,
                }
            }
            () = tokio::time::sleep_until(view.next(report)) => continue,
            // The last one, so that nobody keeps the loop from its work by asking.
            question = next_question(&mut questions) => {
                let versions = || view.objects(&running.sessions);
                match answers.hear(question, &schedule, report, versions, now()) {
                    Some(order) => carried_out(order),
                    None => continue,
                }
            }
        };
        if event == Event::Stop {
            stopping = true;
            answers.stop();
            deadline = Some(Instant::now() + drain);
            if schedule.running() > 0 {
                report.tell(&report::Event::Stopping {
                    running: schedule.running(),
                    drain,
                });
            }
        }
        running.apply(schedule.handle(event, now()), report);
    }
    report.end_live();
    running.apply(schedule.handle(Event::Stop, now()), report);
    while let Ok(telling) = tellings.try_recv() {
        if let Some(event) = heard(telling, report, &mut rotated) {
            running.apply(schedule.handle(event, now()), report);
        }
    }
    running.apply(schedule.close(), report);
    let totals = Totals {
        rotated,
        ..schedule.totals()
    };
    Ok(Finished {
        totals,
        failures: schedule.failures().iter().copied().collect(),
        interrupted,
    })
}

struct Running<S, D> {
    sessions: BTreeMap<RoutineName, S>,
    tasks: JoinSet<(RoutineName, S, Ended)>,
    /// A task that panicked cannot say whose it was.
    names: HashMap<Id, RoutineName>,
    deploy: D,
    tell: mpsc::Sender<Telling>,
}

impl<S, D, F> Running<S, D>
where
    S: Send + 'static,
    D: Fn(Job, S, mpsc::Sender<Telling>) -> F,
    F: Future<Output = (S, Ended)> + Send + 'static,
{
    fn apply(&mut self, effects: Vec<Effect>, report: &mut Report) {
        for effect in effects {
            match effect {
                Effect::Tell(event) => report.tell(&event),
                Effect::Run(job) => {
                    let routine = job.routine().clone();
                    if let Job::Deploy(_) = job {
                        report.started(&routine);
                    }
                    // One job a routine runs at most, so its session is here.
                    let Some(session) = self.sessions.remove(&routine) else {
                        continue;
                    };
                    let deploy = (self.deploy)(job, session, self.tell.clone());
                    let name = routine.clone();
                    let task = self.tasks.spawn(async move {
                        let (session, ended) = deploy.await;
                        (routine, session, ended)
                    });
                    self.names.insert(task.id(), name);
                }
            }
        }
    }

    fn ended(
        &mut self,
        joined: Result<(Id, (RoutineName, S, Ended)), JoinError>,
    ) -> Result<Event, DaemonError> {
        match joined {
            Ok((id, (routine, session, ended))) => {
                self.names.remove(&id);
                self.sessions.insert(routine.clone(), session);
                Ok(Event::Ended(routine, ended))
            }
            Err(error) => {
                let name = self.names.remove(&error.id());
                match name {
                    Some(name) => Err(DaemonError::Panicked(name)),
                    None => Err(DaemonError::WatcherEnded),
                }
            }
        }
    }
}

/// What the schedule has to know of what somebody asks for.
fn carried_out(order: Order) -> Event {
    match order {
        Order::Pause => Event::Pause,
        Order::Continue => Event::Continue,
        Order::Flush => Event::Flush,
    }
}

/// Writes what a deploy has to tell, counts the versions it deleted, and passes on what the schedule has to know.
fn heard(telling: Telling, report: &mut Report, rotated: &mut u64) -> Option<Event> {
    match telling {
        Telling::Event(event) => {
            report.tell(&event);
            *rotated += u64::from(matches!(event, report::Event::Rotated { .. }));
            None
        }
        Telling::Landed(routine, landed) => {
            report.holds(&routine, &landed.revision, landed.digest);
            Some(Event::Landed(routine, landed))
        }
    }
}

/// What is told of a sighting that is no edit.
fn seen(sighting: Sighting) -> Option<report::Event> {
    let problem = |what, help, class| Problem {
        what,
        help,
        class,
        operation: None,
        request_id: None,
        frame: None,
    };
    match sighting {
        Sighting::Waiting { routine, reason } => Some(report::Event::Waiting {
            routine,
            problem: problem(
                reason,
                "it goes up as soon as it is whole and rests".into(),
                Class::Source,
            ),
        }),
        Sighting::Halted {
            routine,
            reason,
            link,
        } => {
            let anew = match link {
                true => ", or start er-dev again to take it as it is",
                false => "",
            };
            let help = format!("put it back{anew}; what is on the service stays as it is");
            Some(report::Event::Halted {
                routine,
                problem: problem(reason, help, Class::Source),
            })
        }
        Sighting::Resumed(routine) => Some(report::Event::Resumed { routine }),
        Sighting::Polling { what, help } => Some(report::Event::Degraded {
            safety: Safety::Events,
            problem: problem(what, help, Class::Watch),
        }),
        Sighting::Events(what) => Some(report::Event::Restored {
            safety: Safety::Events,
            what,
        }),
        Sighting::Edit(_) | Sighting::Settled(_) | Sighting::Synced(_) => None,
    }
}

/// tokio's clock, which a test can pause, in the form that pure code takes.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// The next key. When none can come any more, it never comes.
async fn next_key(keys: &mut mpsc::Receiver<Key>) -> Key {
    match keys.recv().await {
        Some(key) => key,
        None => std::future::pending().await,
    }
}

/// The next question. When nobody is left to ask one, it never comes.
async fn next_question(questions: &mut Option<mpsc::Receiver<Question>>) -> Question {
    while let Some(open) = questions {
        match open.recv().await {
            Some(question) => return question,
            None => *questions = None,
        }
    }
    std::future::pending().await
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use crate::pipeline::schedule::{Again, End, Reach};
    use crate::report::{Format, Look};
    use crate::routine::{Digest, Revision};

    use super::*;

    /// What the report wrote.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn report(&self) -> Report {
            Report::new(
                Format::Json,
                Look::PLAIN,
                jiff::tz::TimeZone::UTC,
                Box::new(self.clone()),
            )
        }

        fn events(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines()
                .map(|line| {
                    serde_json::from_str::<serde_json::Value>(line).unwrap()["event"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
                .collect()
        }
    }

    fn hello() -> RoutineName {
        RoutineName::new("hello").unwrap()
    }

    fn edit(text: &str) -> Edit {
        Edit {
            routine: hello(),
            saves: 1,
            digest: Some(Digest::of(text.as_bytes())),
            settled: now(),
        }
    }

    fn stored(job: &Job) -> Ended {
        let Job::Deploy(edit) = job else {
            panic!("nothing is to be tidied")
        };
        Ended::Stored {
            landed: Landed {
                end: End::Uploaded,
                digest: edit.digest.unwrap(),
                revision: Revision::new("1"),
            },
            tidy: None,
            unpublished: None,
        }
    }

    fn work(until: Until) -> (Work<u32>, mpsc::Sender<Sighting>) {
        let (sender, sightings) = mpsc::channel(8);
        let sessions = BTreeMap::from([(hello(), 0)]);
        (
            Work {
                sessions,
                first: Vec::new(),
                sightings,
                asked: Asked::nobody(),
                rekeyed: Rekeyed::never(),
                viewer: Viewer::nobody(),
                until,
                drain: Duration::from_secs(10),
            },
            sender,
        )
    }

    type Tell = mpsc::Sender<Telling>;

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_edits_during_an_upload_is_one_more_upload() {
        let (work, sender) = work(Until::Stopped);
        let lines = Lines::default();
        let deploy = async |job: Job, runs: u32, _: Tell| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            (runs + 1, stored(&job))
        };
        let stop = async {
            for text in ["a", "b", "c", "d"] {
                sender.send(Sighting::Edit(edit(text))).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        };
        let deploy = |job, session, tell| Box::pin(deploy(job, session, tell));
        let finished = run(work, deploy, &mut lines.report(), stop, pending())
            .await
            .unwrap();
        assert_eq!(
            (
                finished.totals.edits,
                finished.totals.uploaded,
                finished.totals.superseded
            ),
            (4, 2, 2)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_gets_a_sign_of_life_every_ten_minutes_in_which_something_ended() {
        let (mut work, _sender) = work(Until::Stopped);
        work.first.push(edit("a"));
        let deploy = |job: Job, session: u32, _: Tell| async move { (session, stored(&job)) };
        let lines = Lines::default();
        let stop = tokio::time::sleep(Duration::from_secs(3_500));
        run(work, deploy, &mut lines.report(), stop, pending())
            .await
            .unwrap();
        assert_eq!(lines.events(), ["alive"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_the_running_deploy_and_no_longer_than_the_drain() {
        for (takes, uploaded, abandoned, waited) in [(5, 1, 0, 5), (500, 0, 1, 10)] {
            let (mut work, _sender) = work(Until::Stopped);
            work.first.push(edit("a"));
            let lines = Lines::default();
            let deploy = move |job: Job, session: u32, _: Tell| async move {
                tokio::time::sleep(Duration::from_secs(takes)).await;
                (session, stored(&job))
            };
            let begun = Instant::now();
            let finished = run(work, deploy, &mut lines.report(), async {}, pending())
                .await
                .unwrap();
            assert_eq!(begun.elapsed().as_secs(), waited);
            assert_eq!(
                (finished.totals.uploaded, finished.totals.abandoned),
                (uploaded, abandoned)
            );
            assert_eq!(lines.events()[0], "stopping");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_waits_for_nothing() {
        let (mut work, _sender) = work(Until::Stopped);
        work.first.push(edit("a"));
        let deploy = |job: Job, session: u32, _: Tell| async move {
            pending::<()>().await;
            (session, stored(&job))
        };
        let begun = Instant::now();
        let finished = run(
            work,
            deploy,
            &mut Lines::default().report(),
            async {},
            async {},
        )
        .await
        .unwrap();
        assert!(finished.interrupted);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(finished.totals.abandoned, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_a_deploy_ends_the_loop_and_names_the_routine() {
        let (mut work, _sender) = work(Until::Stopped);
        work.first.push(edit("a"));
        let deploy = |job: Job, session: u32, _: Tell| async move {
            assert_eq!(session, 1, "a panic on purpose");
            (session, stored(&job))
        };
        let error = run(
            work,
            deploy,
            &mut Lines::default().report(),
            pending(),
            pending(),
        )
        .await
        .unwrap_err();
        assert!(matches!(error, DaemonError::Panicked(name) if name == hello()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_that_ends_is_an_error() {
        let (work, sender) = work(Until::Stopped);
        drop(sender);
        let deploy = |job: Job, session: u32, _: Tell| async move { (session, stored(&job)) };
        let ended = run(
            work,
            deploy,
            &mut Lines::default().report(),
            pending(),
            pending(),
        )
        .await;
        assert!(matches!(ended, Err(DaemonError::WatcherEnded)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_deploy_is_tried_again_until_it_succeeds_or_the_time_is_up() {
        let problem = || Problem {
            what: "no answer".into(),
            help: String::new(),
            class: Class::Network,
            operation: None,
            request_id: None,
            frame: None,
        };
        for (successes_after, uploaded) in [(3, 1), (u32::MAX, 0)] {
            let (mut work, _sender) = work(Until::Idle {
                give_up: Some(Instant::now() + Duration::from_secs(60)),
            });
            work.first.push(edit("a"));
            let lines = Lines::default();
            let deploy = move |job: Job, tries: u32, _: Tell| async move {
                let ended = match tries {
                    tries if tries >= successes_after => stored(&job),
                    _ => Ended::Failed {
                        problem: problem(),
                        again: Again::Soon(Duration::ZERO),
                        reach: Reach::Silent,
                        jitter: 0.5,
                    },
                };
                (tries + 1, ended)
            };
            let finished = run(work, deploy, &mut lines.report(), pending(), pending())
                .await
                .unwrap();
            assert_eq!(finished.totals.uploaded, uploaded);
            assert_eq!(finished.failures.contains(&Class::Network), uploaded == 0);
            assert_eq!(lines.events()[0], "retrying");
        }
    }
}
