//! The running watches that a command means: those of its configuration, or all of this user where there is none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use crate::cli::Common;
use crate::config;
use crate::control::client::{self, ClientError};
use crate::control::place::{self, Found, PlaceError};
use crate::control::status::Status;
use crate::report::class::Class;
use crate::routine::RoutineName;
use crate::state::StateDir;

use super::context::state_failure;
use super::{Failure, env};

/// A running watch and what it said, or why it did not.
pub(super) struct Daemon {
    pub(super) found: Found,
    pub(super) status: Result<Status, ClientError>,
}

/// The running watches that are meant.
pub(super) struct Daemons {
    pub(super) list: Vec<Daemon>,
    /// The configuration they are of, if there is one.
    config: Option<String>,
    /// How many others run.
    others: usize,
    directory: PathBuf,
}

/// What a command about several watches writes with `--json`, as a line. `unheld` are the routines of the configuration
/// that none of them holds.
pub(super) fn object<T: Serialize>(daemons: Vec<T>, unheld: &[RoutineName]) -> String {
    #[derive(Serialize)]
    struct Object<'a, T> {
        v: u8,
        daemons: Vec<T>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        unheld: &'a [RoutineName],
    }
    let object = Object {
        v: 1,
        daemons,
        unheld,
    };
    // Only a map with odd keys or a failing writer can fail here, and there is neither.
    let object = serde_json::to_string(&object).unwrap_or_default();
    format!("{object}\n")
}

/// The directory of control sockets. A run with a state directory of its own, as on an emulator, has its socket where
/// `status` looks for it, if there is such a place. Nothing is made.
pub(super) fn directory(common: &Common, own: Option<&Path>) -> Result<PathBuf, Failure> {
    let state = match &common.state_dir {
        Some(given) => Ok(given.clone()),
        None => StateDir::usual(&env),
    };
    let state = match (state, own) {
        (Err(_), Some(own)) => Ok(own.to_owned()),
        (state, _) => state.map(|state| std::path::absolute(&state).unwrap_or(state)),
    };
    let found = place::directory(&env, state.as_deref().ok());
    match (found, state) {
        (Some(found), _) => Ok(found),
        (None, Err(error)) => Err(state_failure(error)),
        (None, Ok(state)) => Ok(state),
    }
}

/// Why the directory of control sockets cannot be used, as the end of a command.
fn place_failure(error: &PlaceError) -> Failure {
    Failure::new(Class::State, format!("{error}\n= help: {}", error.help()))
}

/// Finds the watches and asks each how it stands, which takes `most` at most.
pub(super) async fn find(common: &Common, most: Duration) -> Result<Daemons, Failure> {
    let directory = directory(common, None)?;
    let config = configuration(common)?;
    let found = if directory.exists() {
        place::check(&directory).map_err(|error| place_failure(&error))?;
        let living = place::living(&directory).await;
        living.map_err(|error| place_failure(&error))?
    } else {
        Vec::new()
    };
    let mut asking = JoinSet::new();
    for (at, found) in found.into_iter().enumerate() {
        asking.spawn(async move {
            let status = client::status(&found.socket, most).await;
            (at, Daemon { found, status })
        });
    }
    let mut answered = asking.join_all().await;
    answered.sort_by_key(|(at, _)| *at);
    let all = answered.len();
    let mut list: Vec<Daemon> = answered.into_iter().map(|(_, daemon)| daemon).collect();
    if let Some(config) = &config {
        // One that does not answer may be meant.
        list.retain(|daemon| match &daemon.status {
            Ok(status) => status.config == *config,
            Err(_) => true,
        });
    }
    Ok(Daemons {
        others: all - list.len(),
        list,
        config,
        directory,
    })
}

/// The configuration in its canonical form, as a watch tells it.
pub(super) fn canonical(file: &Path) -> String {
    let canonical = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    canonical.to_string_lossy().into_owned()
}

fn configuration(common: &Common) -> Result<Option<String>, Failure> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    match (
        &common.config,
        config::find(common.config.as_deref(), &here),
    ) {
        (Some(given), _) if !given.exists() => {
            let text = format!("{} does not exist", given.display());
            let help = "name another file with `--config`, or make one with `er-dev init`";
            Err(Failure::of_error(Class::Config, text, help))
        }
        (_, found) => Ok(found.ok().map(|file| canonical(&file))),
    }
}

impl Daemons {
    /// The routines of the configuration that none of these watches holds. Empty where that cannot be told, as when there
    /// is no configuration, or one of the watches does not answer.
    pub(super) fn unheld(&self, common: &Common) -> Vec<RoutineName> {
        let known: Result<Vec<&Status>, _> =
            self.list.iter().map(|it| it.status.as_ref()).collect();
        let (Some(_), Ok(known), Ok(config)) = (&self.config, known, super::load(common)) else {
            return Vec::new();
        };
        let held: BTreeSet<&str> = known
            .into_iter()
            .flat_map(|status| &status.routines)
            .map(|one| one.routine.as_str())
            .collect();
        let all = config.routines.into_iter().map(|routine| routine.name);
        all.filter(|name| !self.list.is_empty() && !held.contains(name.as_str()))
            .collect()
    }

    /// What to say where none of those that are meant runs.
    pub(super) fn none(&self) -> Option<Failure> {
        if !self.list.is_empty() {
            return None;
        }
        let of = match &self.config {
            Some(config) => format!(" for {config}"),
            None => String::new(),
        };
        let others = match self.others {
            0 => String::new(),
            1 => " (one runs for another configuration)".into(),
            n => format!(" ({n} run for other configurations)"),
        };
        let looked = self.directory.display();
        let text = format!(
            "no er-dev watch runs{of}{others}, by the sockets in {looked}\n= help: start one with `er-dev watch`; if one runs, give the `--state-dir`, XDG_RUNTIME_DIR or RUNTIME_DIRECTORY that it has"
        );
        Some(Failure::new(Class::Locked, text))
    }
}
