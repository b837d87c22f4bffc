//! One job's way: reads the source, drives the pass, and tells what came of it.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::clock;
use crate::config::{Routine, Upload};
use crate::pipeline::daemon::Telling;
use crate::pipeline::schedule::{Again, End, Ended, Job, Landed, Reach};
use crate::report::class::Class;
use crate::report::{Event, Problem};
use crate::revision::deploy::{DeployError, Happened, How, Pass, Session, Stored};
use crate::routine::{Code, Digest, Edit, RoutineName};
use crate::watch::source::{self, Demands, Source, SourceError};

use super::condition::Condition;
use super::context::target;
use super::problem;

/// How an edit is deployed.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// Make a new version even of bytes that are there already.
    pub(super) force: bool,
    /// What is asked of code that is to go up.
    pub(super) demands: Demands,
    /// How long an entry that no event told of has to have been quiet, and the longest wait for that.
    pub(super) quiet: (Duration, Duration),
    /// What has been told of the state that all deploys share.
    pub(super) condition: Condition,
    /// How to reach the nodes that run staging.
    pub(super) hint: Hint,
}

/// How to reach the nodes that run staging: asked for and told at the first upload there, once a run, and of so little
/// weight that nothing comes of it where the service does not tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Hint(Arc<AtomicBool>);

impl Hint {
    async fn give(&self, session: &Session, ended: &Ended, tell: &mpsc::Sender<Telling>) {
        let Ended::Stored { landed, .. } = ended else {
            return;
        };
        let staged = landed.end == End::Uploaded && landed.revision.is_staging();
        if !staged || self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        match session.staging_addresses().await {
            Ok(addresses) if !addresses.is_empty() => {
                let routine = session.routine().name.clone();
                tell_all(tell, [Event::Staging { routine, addresses }]).await;
            }
            Ok(_) => tracing::debug!("the service names no nodes that run staging"),
            Err(error) => tracing::debug!(%error, "the nodes that run staging are not told"),
        }
    }
}

/// Carries a job out with a routine's session, and gives the session back.
pub(super) async fn carry_out(
    job: Job,
    session: Session,
    tell: mpsc::Sender<Telling>,
    manner: Manner,
) -> (Session, Ended) {
    let condition = manner.condition.clone();
    let (session, ended) = match job {
        Job::Deploy(edit) => deploy(edit, session, &tell, manner).await,
        Job::Tidy(routine) if session.routine().upload == Upload::Staging => {
            look_at_staging(routine, session, &tell, &condition).await
        }
        Job::Tidy(routine) => tidy(routine, session, &tell, &condition).await,
    };
    tell_all(&tell, condition.changes(&session)).await;
    (session, ended)
}

/// Frees a slot of a routine whose bytes are on the service already.
async fn tidy(
    routine: RoutineName,
    mut session: Session,
    tell: &mpsc::Sender<Telling>,
    condition: &Condition,
) -> (Session, Ended) {
    let begun = match condition.list_again(&mut session).await {
        Ok(()) => session.begin().await,
        Err(error) => Err(error.into()),
    };
    let (again, reach) = match begun {
        Ok(mut pass) => {
            let trimmed = trim(&mut pass, &routine, tell, Told::Already).await;
            (trimmed.again, trimmed.reach)
        }
        Err(error) => (Some(problem::again(&error)), problem::reach(&error)),
    };
    (session, Ended::Tidied { again, reach })
}

/// Looks whether staging still runs what was put there last, and puts it there again if not.
async fn look_at_staging(
    routine: RoutineName,
    mut session: Session,
    tell: &mpsc::Sender<Telling>,
    condition: &Condition,
) -> (Session, Ended) {
    let Some(code) = session.staged() else {
        let (again, reach) = (None, Reach::Unasked);
        return (session, Ended::Tidied { again, reach });
    };
    let begun = match condition.list_again(&mut session).await {
        Ok(()) => session.begin().await,
        Err(error) => Err(error.into()),
    };
    let (again, reach) = match begun {
        Ok(mut pass) => {
            // What was known before is no answer to the question what is there now.
            let looked = pass.look().await;
            let staged = match looked {
                Ok(()) => pass.stage(&code, false).await,
                Err(error) => Err(error),
            };
            tell_happened(&mut pass, &routine, 0, tell).await;
            match staged {
                Ok(stored) => {
                    if stored.how == How::Uploaded {
                        tell_all(tell, [overtaken_on_staging(&routine, &code)]).await;
                    }
                    (pass.settle_staging().map(after), Reach::Answered)
                }
                Err(error) => (Some(problem::again(&error)), problem::reach(&error)),
            }
        }
        Err(error) => (Some(problem::again(&error)), problem::reach(&error)),
    };
    (session, Ended::Tidied { again, reach })
}

fn overtaken_on_staging(routine: &RoutineName, code: &Code) -> Event {
    let digest = code.digest().short();
    let problem = Problem {
        what: format!(
            "an earlier upload without an answer came late and lay over {digest} on staging, which was uploaded again"
        ),
        help: "nothing to do; it is looked at again as long as that can happen".into(),
        class: Class::InDoubt,
        operation: None,
        request_id: None,
        frame: None,
    };
    Event::Warning {
        routine: Some(routine.clone()),
        problem,
    }
}

fn after(moment: clock::Moment) -> Again {
    Again::After(moment.since(clock::now()))
}

async fn deploy(
    edit: Edit,
    mut session: Session,
    tell: &mpsc::Sender<Telling>,
    manner: Manner,
) -> (Session, Ended) {
    let routine = session.routine().clone();
    // No event told of the bytes of a first edit, so nothing but their age tells that a writer is done.
    if edit.saves == 0 {
        let (quiet, most) = manner.quiet;
        rest(&routine, quiet, most).await;
    }
    let begun = match manner.condition.list_again(&mut session).await {
        Ok(()) => session.begin().await,
        Err(error) => Err(error.into()),
    };
    let ended = match begun {
        // Read with the lock in hand: the wait for it may be long, and the newest bytes are what is wanted.
        Ok(mut pass) => match read(&edit, &routine, manner.demands).await {
            Ok(source) => store(&edit, &source, &routine, &mut pass, tell, &manner).await,
            Err(ended) => ended,
        },
        Err(error) => failed(&error, &edit.routine),
    };
    // Nobody has to wait for a hint with the lock in hand.
    manner.hint.give(&session, &ended, tell).await;
    (session, ended)
}

async fn store(
    edit: &Edit,
    source: &Source,
    routine: &Routine,
    pass: &mut Pass<'_>,
    tell: &mpsc::Sender<Telling>,
    manner: &Manner,
) -> Ended {
    let code = &source.code;
    let stored = match routine.upload {
        Upload::Revision => pass.store(code, manner.force).await,
        Upload::Staging => pass.stage(code, manner.force).await,
    };
    tell_happened(pass, &edit.routine, edit.saves, tell).await;
    match stored {
        Ok(stored) => {
            tell_all(tell, of_stored(edit, code, &stored, routine)).await;
            if stored.how == How::Uploaded {
                tell_all(tell, of_cautions(source, routine)).await;
            }
            let landed = landed(code, stored);
            let _ = tell
                .send(Telling::Landed(edit.routine.clone(), landed.clone()))
                .await;
            if routine.upload == Upload::Staging {
                return Ended::Stored {
                    landed,
                    tidy: pass.settle_staging().map(after),
                    unpublished: None,
                };
            }
            let trimmed = trim(pass, &edit.routine, tell, Told::NotYet).await;
            Ended::Stored {
                landed,
                tidy: trimmed.again,
                unpublished: trimmed.unpublished,
            }
        }
        Err(error) => failed(&error, &edit.routine),
    }
}

/// Reads and checks the source off the loop, since parsing a large file takes a while.
///
/// An edit whose entry has changed since it came to rest is overtaken, also by bytes that could not go up: the edit that
/// tells of them is on its way.
async fn read(edit: &Edit, routine: &Routine, demands: Demands) -> Result<Source, Ended> {
    let (target, expected, told) = (target(routine), edit.digest, edit.saves > 0);
    let read = move || {
        let read = source::examine(&target, demands);
        let now = match &read {
            Ok(source) => Ok(source.code.digest()),
            Err(_) => source::digest(&target),
        };
        (read, is_overtaken(expected, told, now))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok((_, true)) => Err(Ended::Overtaken),
        Ok((read, false)) => read.map_err(|error| refused(&error, &routine.shown)),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Whether an entry is no longer what it was when it came to rest. That it cannot be read just now does not say so.
/// Where a watch told of the edit, bytes where there were none are other bytes as well.
fn is_overtaken(expected: Option<Digest>, told: bool, now: Result<Digest, SourceError>) -> bool {
    match (expected, now) {
        (Some(expected), Ok(now)) => now != expected,
        (Some(_), Err(error)) => !is_passing(&error),
        (None, now) => told && now.is_ok(),
    }
}

/// Whether it has been told that a slot could not be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    NotYet,
    Already,
}

/// What came of the work behind an edit.
struct Trimmed {
    /// When another try makes sense.
    again: Option<Again>,
    /// What it says of the service as a whole.
    reach: Reach,
    /// Why the version is not live where it should be, if so.
    unpublished: Option<Class>,
}

/// Puts the edit's version live where that is wanted, and frees a slot. The edit is on the service already, so trouble
/// here is a warning.
async fn trim(
    pass: &mut Pass<'_>,
    routine: &RoutineName,
    tell: &mpsc::Sender<Telling>,
    told: Told,
) -> Trimmed {
    let published = pass.publish_owed().await;
    let trimmed = pass.trim().await;
    tell_happened(pass, routine, 0, tell).await;
    let unpublished = published.as_ref().err();
    let unpublished = unpublished.map(|error| problem::of_deploy(error, routine).class);
    let (undone, error) = match (published, trimmed) {
        (Ok(()), Ok(again)) => {
            return Trimmed {
                again: again.map(|at| Again::After(at.since(clock::now()))),
                reach: Reach::Answered,
                unpublished,
            };
        }
        (Err(error), _) => ("it was not put live", error),
        (Ok(()), Err(error)) => ("no slot was freed", error),
    };
    let (again, reach) = (problem::again(&error), problem::reach(&error));
    // It is looked at again as soon as there is something to see.
    if let DeployError::Unsettled(_) = error {
        return Trimmed {
            again: Some(again),
            reach,
            unpublished,
        };
    }
    // What somebody has to change first waits for the next edit.
    let again = matches!(again, Again::Soon(_)).then_some(again);
    let look = pass.all_come();
    let look = look.map(|at| Again::After(at.since(clock::now())));
    if again.is_none() || told == Told::NotYet {
        let problem = problem::of_deploy(&error, routine);
        let later = again.map_or("", |_| ", which is tried again");
        let what = format!("{undone}{later}: {}", problem.what);
        let problem = Problem { what, ..problem };
        let routine = Some(routine.clone());
        tell_all(tell, [Event::Warning { routine, problem }]).await;
    }
    Trimmed {
        again: again.or(look),
        reach,
        unpublished,
    }
}

async fn tell_happened(
    pass: &mut Pass<'_>,
    routine: &RoutineName,
    saves: u32,
    tell: &mpsc::Sender<Telling>,
) {
    let happened = pass.happened().into_iter();
    tell_all(tell, happened.map(|h| of_happened(routine, saves, h))).await;
}

/// The loop receives as long as deploys run; when it has ended, nobody is left to tell.
async fn tell_all(tell: &mpsc::Sender<Telling>, events: impl IntoIterator<Item = Event>) {
    for event in events {
        let _ = tell.send(Telling::Event(event)).await;
    }
}

pub(super) fn of_stored(
    edit: &Edit,
    code: &Code,
    stored: &Stored,
    routine: &Routine,
) -> Option<Event> {
    let (name, saves, sha256) = (routine.name.clone(), edit.saves, code.digest());
    let revision = stored.revision.clone();
    match stored.how {
        How::Uploaded => Some(Event::Uploaded {
            routine: name,
            revision,
            sha256,
            bytes: code.bytes().len(),
            saves,
            calls: stored.calls,
            took: edit.settled.elapsed(),
            slots: stored.slots,
            cap: stored.cap,
        }),
        How::Newest => Some(Event::Unchanged {
            routine: name,
            revision,
            saves,
        }),
        How::Older => Some(Event::Reused {
            routine: name,
            revision,
            sha256,
            saves,
        }),
        How::Planned => None,
    }
}

/// What there is to say of code that has just gone up.
fn of_cautions(source: &Source, routine: &Routine) -> impl Iterator<Item = Event> {
    source.cautions.iter().map(|caution| Event::Warning {
        routine: Some(routine.name.clone()),
        problem: problem::of_caution(caution, &routine.shown),
    })
}

pub(super) fn of_happened(routine: &RoutineName, saves: u32, happened: Happened) -> Event {
    let routine = routine.clone();
    match happened {
        Happened::Rotated {
            revision,
            age,
            reason,
        } => Event::Rotated {
            routine,
            revision,
            age,
            reason,
        },
        Happened::Created => Event::Created { routine },
        Happened::Planned(action, detail) => {
            let saves = (action == "upload").then_some(saves);
            Event::Planned {
                routine,
                action,
                detail,
                saves,
            }
        }
        Happened::Spared(revision, reason) => Event::Warning {
            routine: Some(routine),
            problem: Problem {
                what: format!("version {} stays: {reason}", revision.short()),
                help: "the next oldest is tried; this one again at the next edit".into(),
                class: Class::Refused,
                operation: None,
                request_id: None,
                frame: None,
            },
        },
        Happened::Foreign { revision, age, by } => Event::Foreign {
            routine,
            revision,
            age,
            by: by.map(|by| by.as_str().to_owned()),
        },
        Happened::OtherBytes(revision) => critical(
            routine,
            None,
            format!("version {revision} does not hold the bytes it was made of"),
            "do not publish it; see what it holds, and delete it if nobody needs it",
        ),
        Happened::Published(published) => Event::Published {
            routine,
            revision: published.revision,
            environment: published.environment,
            before: published.before,
        },
        Happened::Republished {
            revision,
            environment,
            before,
        } => Event::Republished {
            routine,
            revision,
            environment,
            before,
        },
        Happened::LiveAndGone {
            revision,
            environment,
            deleted,
            kept,
        } => {
            let how = if deleted {
                "was published there by somebody else while it was being deleted"
            } else {
                "is not there any more"
            };
            let help = if kept {
                format!(
                    "`er-dev restore {routine} {revision}` makes a new version of its code, and says how to publish that one"
                )
            } else {
                format!(
                    "publish another version there at once: `er-dev publish {routine} REV --env {environment}`"
                )
            };
            let what = format!("{environment} points at version {revision}, which {how}");
            critical(routine, Some(environment), what, &help)
        }
        Happened::Mended(environment) => Event::Mended {
            routine,
            environment,
        },
    }
}

fn critical(routine: RoutineName, environment: Option<String>, what: String, help: &str) -> Event {
    let problem = Problem {
        what,
        help: help.into(),
        class: Class::Service,
        operation: None,
        request_id: None,
        frame: None,
    };
    Event::Critical {
        routine,
        environment,
        problem,
    }
}

fn landed(code: &Code, stored: Stored) -> Landed {
    let end = match stored.how {
        How::Uploaded => End::Uploaded,
        How::Newest => End::Unchanged,
        How::Older => End::Reused,
        How::Planned => End::Planned,
    };
    Landed {
        end,
        digest: code.digest(),
        revision: stored.revision,
    }
}

/// What the system could not read now it may read later; what the file holds changes only when it is saved.
fn is_passing(error: &SourceError) -> bool {
    matches!(error, SourceError::Changing { .. } | SourceError::Io { .. })
}

fn refused(error: &SourceError, shown: &str) -> Ended {
    let again = if is_passing(error) {
        Again::Soon(Duration::ZERO)
    } else {
        Again::Never
    };
    let problem = problem::of_source(error, shown);
    Ended::Failed {
        problem,
        again,
        reach: Reach::Unasked,
        jitter: fastrand::f64(),
    }
}

fn failed(error: &DeployError, routine: &RoutineName) -> Ended {
    Ended::Failed {
        problem: problem::of_deploy(error, routine),
        again: problem::again(error),
        reach: problem::reach(error),
        jitter: fastrand::f64(),
    }
}

/// Waits until nobody has changed the entry for a while.
async fn rest(routine: &Routine, quiet: Duration, most: Duration) {
    let begun = Instant::now();
    while let Some(left) = most
        .checked_sub(begun.elapsed())
        .filter(|left| !left.is_zero())
    {
        let metadata = std::fs::metadata(&routine.entry).ok();
        let age = metadata.and_then(|metadata| {
            let seconds = u64::try_from(metadata.ctime()).ok()?;
            let nanoseconds = u32::try_from(metadata.ctime_nsec()).ok()?;
            let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
            // A file that keeps an old time, as an unpacked one does, has been made all the same.
            let changed = metadata.modified().ok()?.max(changed);
            SystemTime::now().duration_since(changed).ok()
        });
        match age {
            Some(age) if age < quiet => tokio::time::sleep(left.min(quiet - age)).await,
            _ => return,
        }
    }
}

/// The edits of a run without a watcher: one look at every routine.
pub(super) fn looks<'a>(routines: impl IntoIterator<Item = &'a RoutineName>) -> Vec<Edit> {
    let settled = Instant::now();
    let look = |routine: &RoutineName| Edit {
        routine: routine.clone(),
        saves: 0,
        digest: None,
        settled,
    };
    routines.into_iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_cannot_be_read_just_now_is_tried_again_and_not_taken_for_changed() {
        let (before, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let path = || "/p/index.js".into();
        let error = std::io::Error::from_raw_os_error(24);
        let busy = SourceError::Io {
            path: path(),
            error,
        };
        let Ended::Failed { again, .. } = refused(&busy, "index.js") else {
            panic!()
        };
        assert_eq!(again, Again::Soon(Duration::ZERO));
        for (now, overtaken) in [
            (Ok(before), false),
            (Ok(other), true),
            (Err(busy), false),
            (Err(SourceError::Changing { path: path() }), false),
            (Err(SourceError::Missing { path: path() }), true),
        ] {
            assert_eq!(is_overtaken(Some(before), true, now), overtaken);
        }
        assert!(is_overtaken(None, true, Ok(other)));
        assert!(!is_overtaken(None, false, Ok(other)));
        assert!(!is_overtaken(
            None,
            true,
            Err(SourceError::Missing { path: path() })
        ));
    }
}
