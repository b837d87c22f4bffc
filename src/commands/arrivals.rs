//! Routines that come while a watch runs: their watch locks and sessions.

use std::sync::Arc;

use crate::config::Routine;
use crate::pipeline::guests::{Arrivals, Guest};
use crate::report::Problem;
use crate::report::class::Class;
use crate::revision::deploy::Session;
use crate::revision::lock::{self, LockError};

use super::context::Context;

impl Context {
    /// Lets routines come. `first` are those that are there from the start and could not be locked.
    pub(super) fn arrivals(&self, first: &[Routine]) -> Arrivals<Session> {
        let guest = |routine: &Routine| Guest {
            routine: routine.name.clone(),
            entry: routine.entry.clone(),
            shown: routine.shown.clone(),
            glob: routine.glob,
        };
        let (cloud, settings) = (Arc::clone(&self.cloud), Arc::clone(&self.settings));
        let (state, config) = (self.state.clone(), self.config.clone());
        let arrive = move |guest: &Guest| {
            let named = config.routines.iter().chain(&config.contested);
            let mut named = named.filter(|it| it.glob.is_none());
            let routine = match guest.glob.and_then(|glob| config.globs.get(glob)) {
                Some(glob) => glob.routine(&guest.entry).ok(),
                None => named.find(|it| it.name == guest.routine).cloned(),
            };
            let Some(routine) = routine else {
                return Err(problem(
                    "no routine is known for it",
                    String::new(),
                    Class::Config,
                ));
            };
            let dir = state.routine(&config.service.endpoint, &routine.name);
            let dir =
                dir.map_err(|error| problem(&error.to_string(), error.help(), Class::State))?;
            let lock = match lock::watch(&dir) {
                Ok(lock) => Some(lock),
                Err(error @ LockError::Held(_)) => return Err(held(&error)),
                Err(error) => {
                    tracing::warn!(routine = %routine.name, %error, "no watch lock");
                    None
                }
            };
            let (cloud, settings) = (Arc::clone(&cloud), Arc::clone(&settings));
            let mut session = Session::new(cloud, settings, routine, dir);
            session.keep(lock);
            Ok(session)
        };
        Arrivals {
            first: first.iter().map(guest).collect(),
            arrive: Some(Box::new(arrive)),
        }
    }
}

fn held(error: &LockError) -> Box<Problem> {
    problem(
        &format!("it is being watched already: {error}"),
        "stop that one; the next save of the file is taken then".into(),
        Class::Locked,
    )
}

fn problem(what: &str, help: String, class: Class) -> Box<Problem> {
    Box::new(Problem {
        what: what.into(),
        help,
        class,
        operation: None,
        request_id: None,
        frame: None,
    })
}
