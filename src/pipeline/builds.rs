//! The builds of a loop: carries out what their turns decide, tells of it, and says what it means for the schedule.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::build::Build;
use crate::build::run::{self, Order, Outcome};
use crate::build::turns::{self, Phase, Turns, Verdict};
use crate::report::class::Class;
use crate::report::{self, Problem, Report};
use crate::routine::RoutineName;

use super::asked::Answers;
use super::daemon::DaemonError;
use super::guests::Guest;
use super::schedule::{self, Mode};

/// How many lines runs may have ready before they wait for the loop to show them.
const LINES: usize = 64;

/// Orders that wait for a run: to end, and to end at once.
const ORDERS: usize = 2;

/// How long killed runs are waited for at the end.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The builds and their runs.
pub(super) struct Builds {
    list: Vec<Build>,
    turns: Turns,
    mode: Mode,
    runs: JoinSet<(usize, Outcome)>,
    orders: BTreeMap<usize, mpsc::Sender<Order>>,
    /// The runs that settle, by the number of the sighting that says so.
    settling: BTreeMap<u64, (usize, u64)>,
    /// Why the last run of each build failed.
    problems: BTreeMap<usize, Problem>,
    tell: mpsc::Sender<String>,
    told: mpsc::Receiver<String>,
    /// Places of entries that went away during runs, which may have put them away to make them anew.
    away: BTreeMap<RoutineName, report::Event>,
    /// What the schedule has to know and was not told yet.
    events: Vec<schedule::Event>,
}

/// What runs have brought.
pub(super) enum News {
    /// A line that one printed.
    Line(String),
    /// One is over.
    Over(usize, Outcome),
}

impl Builds {
    pub(super) fn new(list: Vec<Build>, mode: Mode) -> Self {
        let (tell, told) = mpsc::channel(LINES);
        // By the names that changes are told with.
        let turns = list.iter().map(|it| {
            let entries = it.entries.iter().map(|entry| below(it, entry));
            (entries.collect(), it.timeout)
        });
        Self {
            turns: Turns::new(turns),
            list,
            mode,
            runs: JoinSet::new(),
            orders: BTreeMap::new(),
            settling: BTreeMap::new(),
            problems: BTreeMap::new(),
            tell,
            told,
            away: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// What the schedule has to know since this was last asked.
    pub(super) fn take(&mut self) -> Vec<schedule::Event> {
        std::mem::take(&mut self.events)
    }

    /// A file came that is a routine from now on. If a build makes it, it waits for that like any other.
    pub(super) fn came(&mut self, guest: &Guest) {
        let makes = |it: &Build| {
            let by_glob = guest.glob.is_some_and(|glob| it.globs.contains(&glob));
            by_glob || it.routines.contains(&guest.routine)
        };
        let Some(build) = self.list.iter().position(makes) else {
            return;
        };
        if let Some(it) = self.list.get_mut(build) {
            let entry = below(it, &guest.entry);
            self.turns.add_entry(build, entry);
            if !it.routines.contains(&guest.routine) {
                it.routines.push(guest.routine.clone());
            }
        }
        let routine = guest.routine.clone();
        self.events.extend(match self.turns.phase(build) {
            Phase::Runs => Some(schedule::Event::Building(routine)),
            Phase::EndedWell => Some(schedule::Event::Built(routine)),
            Phase::Rests => None,
        });
    }

    /// A routine is none any more.
    pub(super) fn left(&mut self, routine: &RoutineName) {
        for it in &mut self.list {
            it.routines.retain(|other| other != routine);
        }
        self.events.push(schedule::Event::Rested(routine.clone()));
    }

    /// Lets every build run.
    pub(super) fn begin(&mut self, report: &mut Report, answers: &mut Answers, now: Instant) {
        let effects = self.turns.begin(now);
        self.carry_out(effects, report, answers, now);
    }

    /// Takes note of an event.
    pub(super) fn handle(
        &mut self,
        event: turns::Event,
        report: &mut Report,
        answers: &mut Answers,
        now: Instant,
    ) {
        let effects = self.turns.handle(event, now);
        self.carry_out(effects, report, answers, now);
    }

    /// Takes note of what runs have brought.
    pub(super) fn hear(
        &mut self,
        news: News,
        report: &mut Report,
        answers: &mut Answers,
        now: Instant,
    ) {
        let (build, outcome) = match news {
            News::Line(line) => return report.stream(&line),
            News::Over(build, outcome) => (build, outcome),
        };
        self.orders.remove(&build);
        let well = outcome.end.as_ref().is_ok_and(ExitStatus::success);
        let effects = self.turns.handle(turns::Event::Ended(build, well), now);
        if let Some(turns::Effect::Over(_, verdict)) = effects.first() {
            self.over(build, *verdict, outcome, report);
        }
        self.carry_out(effects, report, answers, now);
    }

    /// The watcher has told of everything that was changed before the sync of this number was asked for.
    pub(super) fn synced(
        &mut self,
        number: u64,
        report: &mut Report,
        answers: &mut Answers,
        now: Instant,
    ) {
        if let Some((build, run)) = self.settling.remove(&number) {
            self.handle(turns::Event::Settled(build, run), report, answers, now);
        }
    }

    /// Tells of what was seen. That the place of an entry went away is kept back while its build is about to make it anew.
    pub(super) fn tell(&mut self, event: report::Event, report: &mut Report) {
        match &event {
            report::Event::Halted { routine, .. } if self.is_about(routine) => {
                self.away.insert(routine.clone(), event);
            }
            report::Event::Resumed { routine } if self.away.remove(routine).is_some() => {}
            _ => report.tell(&event),
        }
    }

    /// Whether the build of a routine runs or settles.
    fn is_about(&self, routine: &RoutineName) -> bool {
        let mut builds = self.list.iter().enumerate();
        builds.any(|(build, it)| {
            it.routines.contains(routine) && self.turns.phase(build) != Phase::Rests
        })
    }

    /// Tells what was kept back, now that a build rests.
    fn tell_away(&mut self, build: usize, report: &mut Report) {
        let routines = self.list.get(build).map(|it| it.routines.iter());
        for routine in routines.into_iter().flatten() {
            if let Some(event) = self.away.remove(routine) {
                report.tell(&event);
            }
        }
    }

    /// The next news; never, while nothing runs.
    pub(super) async fn next(&mut self) -> Result<News, DaemonError> {
        tokio::select! {
            biased;
            // What a run printed comes before its end.
            Some(line) = self.told.recv() => Ok(News::Line(line)),
            Some(joined) = self.runs.join_next() => match joined {
                Ok((build, outcome)) => Ok(News::Over(build, outcome)),
                Err(_) => Err(DaemonError::BuildPanicked),
            },
            never = std::future::pending() => never,
        }
    }

    /// When [`Builds::handle`] has something to do without an event.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.turns.next_deadline()
    }

    /// Runs that are not over.
    pub(super) fn running(&self) -> usize {
        self.turns.running()
    }

    /// Kills what still runs.
    pub(super) async fn close(mut self) {
        // Whoever has nobody left to give it orders, or to show its lines, ends at once.
        self.orders.clear();
        self.told.close();
        while self.told.try_recv().is_ok() {}
        let _ = tokio::time::timeout(LAST_WAIT, async {
            while self.runs.join_next().await.is_some() {}
        })
        .await;
    }

    fn carry_out(
        &mut self,
        effects: Vec<turns::Effect>,
        report: &mut Report,
        answers: &mut Answers,
        now: Instant,
    ) {
        for effect in effects {
            match effect {
                turns::Effect::Start {
                    build,
                    changed,
                    early,
                } => self.start(build, &changed, early, report),
                turns::Effect::Terminate(build) => self.order(build, Order::Terminate),
                turns::Effect::Kill(build) => self.order(build, Order::Kill),
                // It was told with its outcome.
                turns::Effect::Over(..) => {}
                turns::Effect::Settle(build, run) if self.mode == Mode::Once => {
                    // Nobody watches what it writes, so there is nothing to wait for.
                    let settled = turns::Event::Settled(build, run);
                    self.handle(settled, report, answers, now);
                }
                turns::Effect::Settle(build, run) => {
                    self.settling.retain(|_, (other, _)| *other != build);
                    self.settling.insert(answers.ask_watcher(), (build, run));
                }
                turns::Effect::Rest(build, true) => {
                    self.tell_away(build, report);
                    self.say(build, schedule::Event::Rested);
                }
                turns::Effect::Rest(build, false) => {
                    self.tell_away(build, report);
                    if let Some(problem) = self.problems.remove(&build) {
                        self.say_broken(build, &problem);
                    }
                }
                turns::Effect::Loop(build, paths, after) => {
                    self.tell_away(build, report);
                    self.looping(build, &paths, after, report);
                }
            }
        }
    }

    fn start(&mut self, build: usize, changed: &[PathBuf], early: bool, report: &mut Report) {
        let Some(it) = self.list.get(build).cloned() else {
            return;
        };
        report.tell(&report::Event::Building {
            command: it.command.clone(),
            routines: it.routines.clone(),
            changed: shown(changed),
            early,
        });
        self.say(build, schedule::Event::Building);
        let (order, orders) = mpsc::channel(ORDERS);
        self.orders.insert(build, order);
        let lines = self.tell.clone();
        self.runs
            .spawn(async move { (build, run::run(it, orders, lines).await) });
    }

    /// Tells how a run ended.
    fn over(&mut self, build: usize, verdict: Verdict, outcome: Outcome, report: &mut Report) {
        let Some(it) = self.list.get(build) else {
            return;
        };
        let (command, routines) = (it.command.clone(), it.routines.clone());
        let Outcome {
            end,
            output,
            cut,
            took,
        } = outcome;
        match verdict {
            Verdict::Ended => {}
            Verdict::Well => {
                report.tell(&report::Event::Built {
                    command,
                    routines,
                    took,
                });
                self.say(build, schedule::Event::Built);
            }
            Verdict::Failed | Verdict::Late => {
                let late = (verdict == Verdict::Late).then_some(it.timeout);
                let problem = problem(&command, &end, late);
                let code = end.ok().and_then(|status| status.code());
                self.problems.insert(build, problem.clone());
                report.tell(&report::Event::Broken(Box::new(report::Broken {
                    command,
                    routines,
                    exit: code.filter(|_| late.is_none()),
                    took,
                    output,
                    cut,
                    problem,
                })));
            }
        }
    }

    fn looping(&mut self, build: usize, paths: &[PathBuf], after: Duration, report: &mut Report) {
        let Some(it) = self.list.get(build) else {
            return;
        };
        let changed = shown(paths);
        let (command, names) = (it.command.clone(), changed.join(", "));
        let problem = Problem {
            what: format!("its build changes what it reads, run after run: `{command}` changes {names}"),
            help: "name less in `watch` of the build, take these files out there with a `!` before them, or ignore them with `ignore` in [watch]; a change by anybody else lets it run at once".into(),
            class: Class::Build,
            operation: None,
            request_id: None,
            frame: None,
        };
        report.tell(&report::Event::Looping {
            command,
            routines: it.routines.clone(),
            changed,
            after,
            problem: problem.clone(),
        });
        self.say_broken(build, &problem);
    }

    fn say_broken(&mut self, build: usize, problem: &Problem) {
        self.say(build, |routine| {
            schedule::Event::Broken(routine, problem.clone())
        });
    }

    /// Lets the schedule know something of all routines of a build.
    fn say(&mut self, build: usize, event: impl Fn(RoutineName) -> schedule::Event) {
        let routines = self.list.get(build).map(|it| it.routines.iter());
        let events = routines.into_iter().flatten().cloned().map(event);
        self.events.extend(events);
    }

    fn order(&self, build: usize, order: Order) {
        if let Some(orders) = self.orders.get(&build) {
            // There is room for both orders, and a run that is over needs none.
            let _ = orders.try_send(order);
        }
    }
}

/// A path as seen from where a build runs.
fn below(build: &Build, path: &Path) -> PathBuf {
    path.strip_prefix(&build.dir).unwrap_or(path).to_owned()
}

fn shown(paths: &[PathBuf]) -> Vec<String> {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect()
}

/// Why a run failed. `late` is the time that it took too much of, if it was that.
fn problem(command: &str, end: &io::Result<ExitStatus>, late: Option<Duration>) -> Problem {
    let fix = "fix it and save again; what it wrote does not go up";
    let (what, help) = match (late, end) {
        (Some(late), _) => (
            format!("took longer than {}", humantime::format_duration(late)),
            "find what it waits for, or raise `timeout` of the build",
        ),
        (None, Err(error)) => (format!("could not be run: {error}"), fix),
        (None, Ok(status)) => match (status.code(), status.signal()) {
            (Some(127), _) => (
                "ended with exit code 127, as for a command that is not found".into(),
                "install it; the project's `node_modules/.bin` and those of its parents are on its path",
            ),
            (Some(code), _) => (format!("ended with exit code {code}"), fix),
            (None, Some(signal)) => (format!("was ended by signal {signal}"), fix),
            (None, None) => (format!("ended oddly ({status})"), fix),
        },
    };
    Problem {
        what: format!("its build failed: `{command}` {what}"),
        help: help.into(),
        class: Class::Build,
        operation: None,
        request_id: None,
        frame: None,
    }
}
