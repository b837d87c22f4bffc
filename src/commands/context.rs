//! What the commands that talk to the service begin with: configuration, key, client, state directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use tempfile::TempDir;

use crate::cli::Common;
use crate::cloud::credentials::Credentials;
use crate::cloud::credentials::keys::Keys;
use crate::cloud::{Authorities, Cloud, Timeouts};
use crate::config::{Config, Endpoint, Routine};
use crate::emulator::{Emulator, Options};
use crate::report::class::Class;
use crate::report::{Event, Report};
use crate::revision::deploy::{Session, Settings};
use crate::revision::lock::{self, LockError, WatchLock};
use crate::revision::vault::Vaults;
use crate::routine::RoutineName;
use crate::state::{StateDir, StateError};
use crate::watch;
use crate::watch::source::Demands;

use super::{Failure, env, load};

/// Everything a command needs to talk to the service.
pub(super) struct Context {
    pub(super) config: Config,
    pub(super) cloud: Arc<Cloud>,
    pub(super) state: StateDir,
    pub(super) keys: Arc<Keys>,
    settings: Arc<Settings>,
    /// What a run on the emulator takes with it when it ends.
    ground: Option<Ground>,
}

/// An emulator and a state directory for one run.
struct Ground {
    emulator: Emulator,
    _state: TempDir,
}

/// What a command changes about the configuration.
#[derive(Default)]
pub(super) struct Choice<'a> {
    /// The routines to work on; all if there is none.
    pub(super) routines: &'a [RoutineName],
    /// Whether to work on an emulator.
    pub(super) emulator: bool,
    /// Whether to change nothing on the service.
    pub(super) dry_run: bool,
    /// How many versions are left at rest, if not as many as the configuration says.
    pub(super) keep: Option<usize>,
}

impl Context {
    /// Reads the configuration and the key. Makes no request.
    pub(super) async fn open(common: &Common, choice: Choice<'_>) -> Result<Self, Failure> {
        let mut config = load(common)?;
        choose(&mut config, choice.routines)?;
        if let Some(keep) = choice.keep {
            let cap = config.revisions.cap;
            config.revisions.reserve = cap.checked_sub(keep).ok_or_else(|| {
                Failure::usage(format!(
                    "`--keep {keep}`: a routine holds {cap} versions at most"
                ))
            })?;
        }
        let authorities = match &common.ca_file {
            Some(path) => {
                Authorities::read(path).map_err(|e| Failure::new(Class::Config, e.to_string()))?
            }
            None => Authorities::default(),
        };
        let mut ground = None;
        let (keys, state) = if choice.emulator {
            let (emulator, state) = start_emulator(&config).await?;
            config.service.endpoint = endpoint_of(&emulator);
            let dir = StateDir::open(state.path()).map_err(state_failure)?;
            ground = Some(Ground {
                emulator,
                _state: state,
            });
            (Keys::fixed(Credentials::emulator()), dir)
        } else {
            let service = &config.service;
            let (profile, loopback) = (service.profile.clone(), service.endpoint.loopback);
            let keys = Keys::find(Arc::new(env), profile, loopback, authorities.clone())
                .await
                .map_err(|e| Failure::new(Class::Credentials, e.to_string()))?;
            let path = match &common.state_dir {
                Some(path) => path.clone(),
                None => StateDir::usual(&env).map_err(state_failure)?,
            };
            (keys, StateDir::open(&path).map_err(state_failure)?)
        };
        let keys = Arc::new(keys);
        let timeouts = Timeouts {
            api: common.api_timeout,
            post: common.post_timeout,
        };
        let cloud = Cloud::new(
            &config.service,
            Arc::clone(&keys),
            config.limits,
            &state.budget(),
            timeouts,
            authorities,
        )
        .map_err(Failure::other)?;
        let instance = state.instance();
        let mut settings = Settings::new(
            &config.revisions,
            instance,
            common.lock_wait,
            timeouts,
            common.settle_margin,
            Vaults::new(state.path()),
        );
        settings.dry_run = choice.dry_run;
        Ok(Self {
            cloud: Arc::new(cloud),
            state,
            keys,
            settings: Arc::new(settings),
            config,
            ground,
        })
    }

    /// Says what is worked on, with which key.
    pub(super) fn tell_start(&self, report: &mut Report) {
        let key = self.keys.present();
        report.tell(&Event::Started {
            version: env!("CARGO_PKG_VERSION"),
            endpoint: self.config.service.endpoint.host.clone(),
            key: key.credentials.shown_id(),
            source: key.credentials.source.to_string(),
        });
    }

    /// A session for every routine.
    pub(super) fn sessions(&self) -> Result<BTreeMap<RoutineName, Session>, Failure> {
        let session = |routine: &Routine| {
            let dir = self
                .state
                .routine(&self.config.service.endpoint, &routine.name)?;
            let session = Session::new(
                self.cloud.clone(),
                self.settings.clone(),
                routine.clone(),
                dir,
            );
            Ok((routine.name.clone(), session))
        };
        self.config
            .routines
            .iter()
            .map(session)
            .collect::<Result<_, StateError>>()
            .map_err(state_failure)
    }

    /// Takes the watch lock of every routine, or says which one another er-dev watches. Where the state directory does
    /// not allow for locks, watching goes on without.
    pub(super) fn watch_locks(&self) -> Result<Vec<WatchLock>, Failure> {
        let take = |routine: &Routine| {
            let dir = self
                .state
                .routine(&self.config.service.endpoint, &routine.name)
                .map_err(state_failure)?;
            match lock::watch(&dir) {
                Ok(lock) => Ok(Some(lock)),
                Err(error @ LockError::Held(_)) => Err(Failure::new(
                    Class::Locked,
                    format!(
                        "`{}` is being watched already: {error}\n= help: stop that one, or leave the routine out with `--routine`",
                        routine.name
                    ),
                )),
                Err(error @ LockError::Io { .. }) => {
                    tracing::warn!(routine = %routine.name, %error, "no watch lock");
                    Ok(None)
                }
            }
        };
        let locks: Result<Vec<Option<WatchLock>>, Failure> =
            self.config.routines.iter().map(take).collect();
        Ok(locks?.into_iter().flatten().collect())
    }

    /// What the watcher and the reader of sources need to know.
    pub(super) fn targets(&self) -> Vec<watch::Target> {
        self.config.routines.iter().map(target).collect()
    }

    /// What is asked of code that is to go up.
    pub(super) fn demands(&self, secrets: bool) -> Demands {
        Demands {
            service: self.config.service.kind,
            secrets,
        }
    }

    /// Ends what was started for this run alone.
    pub(super) async fn close(self) {
        if let Some(ground) = self.ground {
            ground.emulator.stop().await;
        }
    }
}

/// What the watcher needs to know of a routine.
pub(super) fn target(routine: &Routine) -> watch::Target {
    watch::Target {
        routine: routine.name.clone(),
        entry: routine.entry.clone(),
        root: routine.root.clone(),
        check: routine.check,
        follow: routine.follow,
    }
}

pub(super) fn state_failure(error: StateError) -> Failure {
    Failure::new(Class::State, format!("{error}\n= help: {}", error.help()))
}

/// Keeps only the routines that were asked for.
fn choose(config: &mut Config, asked: &[RoutineName]) -> Result<(), Failure> {
    for name in asked {
        if !config.routines.iter().any(|routine| routine.name == *name) {
            let known: Vec<&str> = config
                .routines
                .iter()
                .map(|routine| routine.name.as_str())
                .collect();
            return Err(Failure::usage(format!(
                "no routine `{name}` in {}\n= help: there are: {}",
                config.file.display(),
                known.join(", ")
            )));
        }
    }
    if !asked.is_empty() {
        config
            .routines
            .retain(|routine| asked.contains(&routine.name));
    }
    Ok(())
}

async fn start_emulator(config: &Config) -> Result<(Emulator, TempDir), Failure> {
    let routines = config
        .routines
        .iter()
        .map(|routine| routine.name.clone())
        .collect();
    let options = Options {
        routines,
        ..Options::default()
    };
    let emulator = Emulator::start(options).await.map_err(Failure::other)?;
    let state = TempDir::with_prefix("er-dev-").map_err(Failure::other)?;
    Ok((emulator, state))
}

fn endpoint_of(emulator: &Emulator) -> Endpoint {
    Endpoint {
        url: emulator.endpoint(),
        host: emulator.address().to_string(),
        loopback: true,
    }
}
