//! What the commands that change one routine have in common: its session, a version a person names, a question, and tries
//! that go on while that makes sense.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::cli::Common;
use crate::cloud::Listing;
use crate::report::Report;
use crate::report::class::Class;
use crate::revision::deploy::{DeployError, Pass, Session};
use crate::revision::naming::{self, Unclear};
use crate::routine::{Revision, RoutineName};

use super::context::{Choice, Context};
use super::deploy::of_happened;
use super::{Failure, problem};
use crate::pipeline::schedule::Again;

/// The first pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One routine that a command works on.
pub(super) struct One {
    pub(super) context: Context,
    pub(super) session: Session,
}

/// Opens a routine of the configuration. Makes no request.
pub(super) async fn open(
    common: &Common,
    routine: &RoutineName,
    dry_run: bool,
) -> Result<One, Failure> {
    let choice = Choice {
        routines: std::slice::from_ref(routine),
        dry_run,
        ..Choice::default()
    };
    let context = Context::open(common, choice).await?;
    let session = context.sessions()?.into_values().next();
    let session = session.ok_or_else(|| Failure::other("the configuration has no routine"))?;
    Ok(One { context, session })
}

/// Lists the versions before anything is done.
pub(super) async fn list(session: &mut Session) -> Result<&Listing, Failure> {
    let name = session.routine().name.clone();
    let failed = |error| Failure::of(&name, problem::of_cloud(&error));
    session.list().await.map_err(failed)
}

/// The listed version that a person named.
pub(super) fn named(session: &Session, text: &str) -> Result<Revision, Failure> {
    let listing = session.knowledge().listing();
    let listed = listing.into_iter().flat_map(|listing| &listing.revisions);
    let found = naming::find(text, listed.map(|listed| &listed.revision));
    let name = &session.routine().name;
    let found = found.cloned();
    found.map_err(|error| {
        let all = listing.into_iter().flat_map(|listing| &listing.revisions);
        let all = all.map(|listed| &listed.revision);
        let help = format!("`er-dev revisions {name}` shows them all");
        unclear(name, &error, all, &help)
    })
}

/// The same for what only a version can have done to it, and the staging slot is none.
pub(super) fn named_version(session: &Session, text: &str) -> Result<Revision, Failure> {
    let revision = named(session, text)?;
    if revision.is_staging() {
        let name = &session.routine().name;
        return Err(Failure::usage(format!(
            "{name}: what is on staging is no version\n= help: `er-dev commit {name} -m TEXT` makes one of it"
        )));
    }
    Ok(revision)
}

/// A text that names none of these versions.
pub(super) fn unclear<'a>(
    routine: &RoutineName,
    error: &Unclear,
    among: impl IntoIterator<Item = &'a Revision>,
    help: &str,
) -> Failure {
    let help = match error {
        Unclear::Several { .. } => "give more of the number".into(),
        Unclear::Nobody(text) => match naming::nearest(text, among) {
            Some(near) => format!("did you mean {near}? {help}"),
            None => help.to_owned(),
        },
        Unclear::NotANumber(_) => help.to_owned(),
    };
    Failure::usage(format!("{routine}: {error}\n= help: {help}"))
}

/// Asks a person, or fails where there is none to ask.
pub(super) fn ask(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !is_attended() {
        return Err(Failure::usage(format!(
            "{question}: nobody can be asked here\n= help: give `--yes` to do it"
        )));
    }
    match answer(question, false)? {
        true => Ok(()),
        false => Err(Failure::refused(
            "nothing was changed, because the answer was not yes\n= help: answer `y` to do it",
        )),
    }
}

/// Whether somebody can be asked.
pub(super) fn is_attended() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// What a person answers; `usual` is what an empty line means.
pub(super) fn answer(question: &str, usual: bool) -> Result<bool, Failure> {
    let ways = if usual { "[Y/n]" } else { "[y/N]" };
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question}? {ways} ")
        .and_then(|()| io::stderr().flush())
        .and_then(|()| io::stdin().read_line(&mut answer));
    let read = asked.map_err(Failure::other)?;
    Ok(match answer.trim() {
        "y" | "Y" | "yes" => true,
        // The end of the input is no answer.
        "" => usual && read > 0,
        _ => false,
    })
}

/// Makes tries as long as another one makes sense and there is time.
pub(super) async fn persist<T>(
    session: &mut Session,
    timeout: Duration,
    mut attempt: impl AsyncFnMut(&mut Session) -> Result<T, DeployError>,
) -> Result<T, Failure> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match attempt(session).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let wait = match problem::again(&error) {
            Again::Soon(at_least) => at_least.max(pause),
            Again::After(wait) => wait,
            Again::FewTimes(_) | Again::Later(_) | Again::Growing(_) | Again::Never => {
                Duration::MAX
            }
        };
        if begun.elapsed().saturating_add(wait) >= timeout {
            let name = session.routine().name.clone();
            return Err(Failure::of(&name, problem::of_deploy(&error, &name)));
        }
        tracing::info!(%error, ?wait, "tried again");
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How a command ends that did its work for several routines, where one that failed keeps no other from its turn: with
/// all failures in one, else with the highest code.
pub(super) fn worst(ended: Vec<Result<u8, Failure>>) -> Result<u8, Failure> {
    let mut code = 0;
    let mut failures: Vec<Failure> = Vec::new();
    for ended in ended {
        match ended {
            Ok(it) => code = code.max(it),
            Err(failure) => failures.push(failure),
        }
    }
    let mut failures = failures.into_iter();
    match failures.next() {
        Some(first) => Err(Failure {
            others: failures.collect(),
            ..first
        }),
        None => Ok(code),
    }
}

/// Tells what a pass did, also when it ended in an error.
pub(super) fn tell(pass: &mut Pass<'_>, routine: &RoutineName, report: &mut Report) {
    for happened in pass.happened() {
        report.tell(&of_happened(routine, 0, happened));
    }
}

impl One {
    /// Ends what was opened.
    pub(super) async fn close(self, code: u8) -> Result<u8, Failure> {
        self.context.close().await;
        Ok(code)
    }
}

impl Failure {
    /// A routine's problem ended a command.
    pub(super) fn of(routine: &RoutineName, problem: crate::report::Problem) -> Self {
        let problem = crate::report::Problem {
            what: format!("{routine}: {}", problem.what),
            ..problem
        };
        Self::of_problem(&problem)
    }

    /// A problem of no routine alone ended a command.
    pub(super) fn of_problem(problem: &crate::report::Problem) -> Self {
        let request = problem.request_id.as_ref();
        let request = request.map(|id| format!(" (request {id})"));
        let text = format!(
            "{}{}\n= help: {}",
            problem.what,
            request.unwrap_or_default(),
            problem.help
        );
        Self::new(problem.class, text)
    }

    /// Something that is not possible now.
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self::new(Class::Refused, text)
    }
}
