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

use crate::build::{Build, turns};
use crate::report::class::Class;
use crate::report::live::Key;
use crate::report::question::{Order, Question};
use crate::report::words::{is_power_of_ten, plural};
use crate::report::{self, Problem, Report, Safety, Totals};
use crate::routine::{Edit, Revision, RoutineName, Sighting};

use super::asked::{Answers, Asked};
use super::builds::Builds;
use super::guests::{Arrivals, Guest, Guests};
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
    /// The builds, whose numbers are their places here. Each runs once at the start.
    pub builds: Vec<Build>,
    /// Routines that come later.
    pub arrivals: Arrivals<S>,
    /// What the watcher has to say later.
    pub sightings: mpsc::Receiver<Sighting>,
    /// Who asks how it goes.
    pub asked: Asked,
    /// Whether nothing that a session knows speaks against a version that was proven to be there.
    pub holds: fn(&S, &Revision) -> bool,
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
    /// What runs a build panicked.
    #[error("the run of a build ended in a panic, which is a bug in er-dev")]
    BuildPanicked,
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
        builds,
        arrivals,
        mut sightings,
        asked: Asked { questions, sync },
        holds,
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
    let (mut view, mut keys) = View::new(viewer);
    let mut answers = Answers::new(sessions.keys().cloned().collect(), sync);
    let mut questions = Some(questions);
    let (tell, mut tellings) = mpsc::channel(TELLINGS);
    let mut running = Running {
        sessions,
        tasks: JoinSet::new(),
        names: HashMap::new(),
        deploy,
        holds,
        tell,
    };
    let mut schedule = Schedule::new(mode);
    let mut guests = Guests::new(arrivals);
    let mut rotated = 0;
    let mut interrupted = false;
    let mut stopping = false;
    let (mut stop, mut abort) = (pin!(stop), pin!(abort));
    let mut replaced = rekeyed();

    let mut builds = Builds::new(builds, mode);
    builds.begin(report, &mut answers, now());
    running.follow(&mut builds, &mut schedule, report);
    for edit in first {
        let routine = edit.routine.clone();
        match guests.keep(edit) {
            Some(edit) => running.apply(schedule.handle(Event::Edited(edit), now()), report),
            None => running.admit(&routine, &mut guests, &mut answers, &mut schedule, report),
        }
    }
    loop {
        running.follow(&mut builds, &mut schedule, report);
        answers.answer(&schedule, report, now());
        let stop_by = deadline.filter(|_| stopping);
        view.show(&schedule, rotated, answers.routines(), stop_by, report);
        let done = if stopping {
            schedule.running() == 0 && builds.running() == 0
        } else {
            mode == Mode::Once && schedule.is_idle() && builds.running() == 0
        };
        if done {
            break;
        }
        let of_builds = builds.next_deadline().map(Instant::from_std);
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
                let event = running.ended(joined)?;
                // What waits behind it goes by what the service showed meanwhile.
                if let Event::Ended(routine, _) = &event {
                    running.doubt(routine, &mut schedule, report);
                }
                event
            }
            sighting = sightings.recv(), if !stopping && mode == Mode::Daemon => match sighting {
                Some(Sighting::Edit(edit)) => {
                    let routine = edit.routine.clone();
                    report.settled(&routine);
                    running.doubt(&routine, &mut schedule, report);
                    match guests.keep(edit) {
                        Some(edit) => Event::Edited(edit),
                        None => {
                            running.admit(&routine, &mut guests, &mut answers, &mut schedule, report);
                            continue;
                        }
                    }
                }
                Some(Sighting::Came { routine, entry, shown, glob }) => {
                    let guest = Guest { routine, entry, shown, glob };
                    builds.came(&guest);
                    guests.came(guest);
                    continue;
                }
                Some(Sighting::Left { routine, reason }) => {
                    builds.left(&routine);
                    if guests.left(&routine) || !running.has(&routine) {
                        continue;
                    }
                    running.apply(schedule.handle(Event::Halted(routine.clone()), now()), report);
                    if running.sessions.remove(&routine).is_none() {
                        guests.leaves(routine.clone());
                    }
                    answers.left(&routine);
                    report.tell(&report::Event::Left { routine, reason });
                    continue;
                }
                Some(Sighting::Settled(routine)) => {
                    report.settled(&routine);
                    continue;
                }
                Some(Sighting::Synced(number)) => {
                    builds.synced(number, report, &mut answers, now());
                    answers.synced(number, &schedule, report, now());
                    continue;
                }
                Some(Sighting::Inputs { build, paths }) => {
                    let changed = turns::Event::Changed(build, paths);
                    builds.handle(changed, report, &mut answers, now());
                    continue;
                }
                Some(Sighting::Lost { times }) => {
                    report.lost(times);
                    if is_power_of_ten(times) {
                        report.tell(&lost(times));
                    }
                    continue;
                }
                Some(Sighting::Open { routine, what }) => {
                    let help = "see that it is whole; what is written later goes up as well";
                    report.remark(routine, problem(what, help.into(), Class::Source));
                    continue;
                }
                Some(sighting) => {
                    let event = match &sighting {
                        Sighting::Halted { routine, .. } => Some(Event::Halted(routine.clone())),
                        Sighting::Resumed(routine) => Some(Event::Resumed(routine.clone())),
                        _ => None,
                    };
                    if let Some(event) = seen(sighting) {
                        builds.tell(event, report);
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
            news = builds.next() => {
                builds.hear(news?, report, &mut answers, now());
                continue;
            }
            () = at(schedule.next_deadline().map(Instant::from_std)) => Event::Tick,
            key = next_key(&mut keys) => {
                let state = (schedule.is_paused(), schedule.running());
                match view.pressed(key, state, &running.sessions, report) {
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
            () = at(of_builds) => {
                builds.handle(turns::Event::Tick, report, &mut answers, now());
                continue;
            }
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
            builds.handle(turns::Event::Stop, report, &mut answers, now());
            deadline = Some(Instant::now() + drain);
            if schedule.running() > 0 {
                report.tell(&report::Event::Stopping {
                    running: schedule.running(),
                    drain,
                });
            }
        }
        let ended = match &event {
            Event::Ended(routine, _) => Some(routine.clone()),
            _ => None,
        };
        running.apply(schedule.handle(event, now()), report);
        if let Some(routine) = ended.filter(|routine| guests.has_left(routine)) {
            running.sessions.remove(&routine);
            running.admit(&routine, &mut guests, &mut answers, &mut schedule, report);
        }
    }
    report.end_live();
    running.apply(schedule.handle(Event::Stop, now()), report);
    while let Ok(telling) = tellings.try_recv() {
        if let Some(event) = heard(telling, report, &mut rotated) {
            running.apply(schedule.handle(event, now()), report);
        }
    }
    builds.close().await;
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
    holds: fn(&S, &Revision) -> bool,
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

    /// Lets the schedule know how builds fare.
    fn follow(&mut self, builds: &mut Builds, schedule: &mut Schedule, report: &mut Report) {
        for event in builds.take() {
            self.apply(schedule.handle(event, now()), report);
        }
    }

    /// Doubts that a routine's bytes are on the service, if its session knows of a reason to.
    fn doubt(&mut self, routine: &RoutineName, schedule: &mut Schedule, report: &mut Report) {
        let session = self.sessions.get(routine);
        let believed = schedule.believed(routine).zip(session);
        if believed.is_some_and(|(revision, session)| !(self.holds)(session, revision)) {
            let doubted = Event::Doubted(routine.clone());
            self.apply(schedule.handle(doubted, now()), report);
        }
    }

    /// Whether a routine has a session, be it in use.
    fn has(&self, routine: &RoutineName) -> bool {
        self.sessions.contains_key(routine) || self.is_running(routine)
    }

    fn is_running(&self, routine: &RoutineName) -> bool {
        self.names.values().any(|running| running == routine)
    }

    /// Lets a routine that came take part, if it has an edit and its session can be had. One that left while it was
    /// deployed has to give its session back first.
    fn admit(
        &mut self,
        routine: &RoutineName,
        guests: &mut Guests<S>,
        answers: &mut Answers,
        schedule: &mut Schedule,
        report: &mut Report,
    ) {
        if self.is_running(routine) {
            return;
        }
        match guests.admit(routine) {
            None => {}
            Some(Err(problem)) => report.tell(&report::Event::Warning {
                routine: Some(routine.clone()),
                problem: *problem,
            }),
            Some(Ok((guest, session, edit))) => {
                self.sessions.insert(routine.clone(), session);
                answers.came(routine.clone());
                report.tell(&report::Event::Came {
                    routine: routine.clone(),
                    file: guest.shown,
                });
                self.apply(
                    schedule.handle(Event::Resumed(routine.clone()), now()),
                    report,
                );
                self.apply(schedule.handle(Event::Edited(edit), now()), report);
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
        Sighting::Unfit { what, help } => Some(report::Event::Warning {
            routine: None,
            problem: problem(what, help, Class::Config),
        }),
        Sighting::Events(what) => Some(report::Event::Restored {
            safety: Safety::Events,
            what,
        }),
        Sighting::Unheard { routine, what } => {
            let help = "nothing has to be done; `backend = \"poll\"` looks from the start";
            Some(report::Event::Warning {
                routine: Some(routine),
                problem: problem(what, help.into(), Class::Watch),
            })
        }
        Sighting::Edit(_)
        | Sighting::Settled(_)
        | Sighting::Synced(_)
        | Sighting::Inputs { .. }
        | Sighting::Came { .. }
        | Sighting::Left { .. }
        | Sighting::Open { .. }
        | Sighting::Lost { .. } => None,
    }
}

/// What is told of lost events.
fn lost(times: u32) -> report::Event {
    let times = plural(times.into(), "time");
    let what =
        format!("file events were lost ({times} so far), so that everything is looked at again");
    let help = "nothing has to be done; it happens where very many files change at once";
    report::Event::Warning {
        routine: None,
        problem: problem(what, help.into(), Class::Watch),
    }
}

fn problem(what: String, help: String, class: Class) -> Problem {
    Problem {
        what,
        help,
        class,
        operation: None,
        request_id: None,
        frame: None,
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
    use crate::report::standing::Overview;
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
                builds: Vec::new(),
                arrivals: Arrivals::nobody(),
                sightings,
                asked: Asked::nobody(),
                holds: |_, _| true,
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

    /// Asks how everything stands and lets the loop end after that.
    fn ask(work: &mut Work<u32>) -> tokio::sync::oneshot::Receiver<Overview> {
        let (questions, asked) = mpsc::channel(1);
        let (answer, answered) = tokio::sync::oneshot::channel();
        questions.try_send(Question::Status(answer)).unwrap();
        work.asked.questions = asked;
        answered
    }

    #[tokio::test(start_paused = true)]
    async fn lost_events_are_counted_and_told_ever_more_rarely() {
        let (mut work, _) = work(Until::Stopped);
        let (sender, sightings) = mpsc::channel(32);
        work.sightings = sightings;
        for times in 1..=25 {
            sender.try_send(Sighting::Lost { times }).unwrap();
        }
        let mut answered = ask(&mut work);
        let lines = Lines::default();
        let deploy = |job: Job, session: u32, _: Tell| async move { (session, stored(&job)) };
        let stop = tokio::time::sleep(Duration::from_secs(1));
        run(work, deploy, &mut lines.report(), stop, pending())
            .await
            .unwrap();
        assert_eq!(lines.events(), ["warning", "warning"]);
        assert_eq!(answered.try_recv().unwrap().events_lost, 25);
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_file_was_taken_while_it_was_open_is_told_and_stands_until_the_next_edit() {
        for more in [false, true] {
            let (mut work, sender) = work(Until::Stopped);
            sender.try_send(Sighting::Edit(edit("a"))).unwrap();
            let open = Sighting::Open {
                routine: hello(),
                what: "it is open".into(),
            };
            sender.try_send(open).unwrap();
            if more {
                sender.try_send(Sighting::Edit(edit("b"))).unwrap();
            }
            let mut answered = ask(&mut work);
            let lines = Lines::default();
            let deploy = |job: Job, session: u32, _: Tell| async move { (session, stored(&job)) };
            let stop = tokio::time::sleep(Duration::from_secs(1));
            run(work, deploy, &mut lines.report(), stop, pending())
                .await
                .unwrap();
            assert_eq!(lines.events(), ["warning"]);
            let routine = answered.try_recv().unwrap().routines.remove(0);
            let what = routine.reason.map(|reason| reason.what);
            assert_eq!(what.as_deref(), (!more).then_some("it is open"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_edit_that_changes_nothing_is_deployed_only_if_its_session_knows_better() {
        for (holds, deploys) in [(true, 1), (false, 3)] {
            let (mut work, sender) = work(Until::Stopped);
            work.holds = match holds {
                true => |_, _| true,
                false => |_, revision| *revision != Revision::new("1"),
            };
            let lines = Lines::default();
            let count = Arc::new(Mutex::new(0));
            let counted = Arc::clone(&count);
            let deploy = move |job: Job, session: u32, _: Tell| {
                *counted.lock().unwrap() += 1;
                async move { (session, stored(&job)) }
            };
            let edits = async move {
                for _ in 0..3 {
                    sender.send(Sighting::Edit(edit("a"))).await.unwrap();
                    tokio::time::sleep(Duration::from_secs(3_600)).await;
                }
            };
            run(work, deploy, &mut lines.report(), edits, pending())
                .await
                .unwrap();
            assert_eq!(*count.lock().unwrap(), deploys, "{holds}");
        }
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
