//! What the commands that talk to the service begin with: configuration, key, client, state directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use tempfile::TempDir;

use crate::build::Build;
use crate::cli::Common;
use crate::cloud::credentials::Credentials;
use crate::cloud::credentials::keys::Keys;
use crate::cloud::{Authorities, Cloud, Timeouts};
use crate::config::{Config, Endpoint, Made, Routine};
use crate::emulator::{Emulator, Options};
use crate::environment;
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
    pub(super) settings: Arc<Settings>,
    /// Whether all routines were asked for.
    all: bool,
    /// What a run on the emulator takes with it when it ends.
    ground: Option<Ground>,
}

/// An emulator and a state directory for one run.
struct Ground {
    emulator: Emulator,
    _state: TempDir,
}

/// The watch locks of routines.
pub(super) type WatchLocks = BTreeMap<RoutineName, WatchLock>;

/// What a command changes about the configuration.
#[derive(Default)]
pub(super) struct Choice<'a> {
    /// The routines to work on; all if there is none.
    pub(super) routines: &'a [RoutineName],
    /// Whether to work on an emulator.
    pub(super) emulator: bool,
    /// Whether to change nothing on the service.
    pub(super) dry_run: bool,
    /// Whether files come and go while the command runs, so that it tells itself which of them cannot be routines.
    pub(super) watches: bool,
    /// How many versions are left at rest, if not as many as the configuration says.
    pub(super) keep: Option<usize>,
}

impl Context {
    /// Reads the configuration and the key. Makes no request.
    pub(super) async fn open(common: &Common, choice: Choice<'_>) -> Result<Self, Failure> {
        let mut config = load(common)?;
        if !choice.watches {
            for (what, help) in &config.refused {
                tracing::warn!("{what}; {help}");
            }
        }
        choose(&mut config, choice.routines)?;
        if let Some(keep) = choice.keep {
            let cap = config.revisions.cap;
            config.revisions.reserve = cap.checked_sub(keep).ok_or_else(|| {
                Failure::usage(format!(
                    "`--keep {keep}`: a routine holds {cap} versions at most"
                ))
            })?;
        }
        let authorities = authorities(common)?;
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
            all: choice.routines.is_empty(),
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

    /// Takes the watch lock of every routine, or says which one another er-dev watches. Of those that fit a pattern the
    /// ones that cannot be had are left out and returned. Where the state directory does not allow for locks, watching
    /// goes on without.
    pub(super) fn watch_locks(&self) -> Result<(WatchLocks, Vec<Routine>), Failure> {
        let mut locks = WatchLocks::new();
        let mut held = Vec::new();
        for routine in &self.config.routines {
            let dir = self
                .state
                .routine(&self.config.service.endpoint, &routine.name)
                .map_err(state_failure)?;
            match lock::watch(&dir) {
                Ok(lock) => {
                    locks.insert(routine.name.clone(), lock);
                }
                Err(LockError::Held(_)) if routine.glob.is_some() => held.push(routine.clone()),
                Err(error @ LockError::Held(_)) => {
                    return Err(Failure::new(
                        Class::Locked,
                        format!(
                            "`{}` is being watched already: {error}\n= help: stop that one, or leave the routine out with `--routine`",
                            routine.name
                        ),
                    ));
                }
                Err(error @ LockError::Io { .. }) => {
                    tracing::warn!(routine = %routine.name, %error, "no watch lock");
                }
            }
        }
        Ok((locks, held))
    }

    /// What the watcher and the reader of sources need to know.
    pub(super) fn targets(&self) -> Vec<watch::Target> {
        let routines = self.config.routines.iter();
        let all = routines.chain(&self.config.contested);
        all.map(target).collect()
    }

    /// The builds that are to run; none in a dry run, which changes nothing on the disk either.
    pub(super) fn builds(&self) -> Vec<Build> {
        if self.settings.dry_run {
            return Vec::new();
        }
        let dir = self.config.dir();
        let build = |Made {
                         build,
                         routines,
                         globs,
                     }: Made<'_>| Build {
            command: build.command.clone(),
            dir: dir.to_owned(),
            timeout: build.timeout,
            environment: environment::of_build(dir, env),
            lock: self.state.build_lock(dir, &build.command),
            routines: routines.iter().map(|it| it.name.clone()).collect(),
            entries: routines.iter().map(|it| it.entry.clone()).collect(),
            globs,
        };
        self.made().map(build).collect()
    }

    /// What these builds read.
    pub(super) fn inputs(&self) -> Vec<watch::Inputs> {
        if self.settings.dry_run {
            return Vec::new();
        }
        inputs(&self.config, self.made())
    }

    /// In a dry run says which builds do not run.
    pub(super) fn tell_unbuilt(&self, report: &mut Report) {
        if !self.settings.dry_run {
            return;
        }
        for made in self.made() {
            for routine in made.routines {
                report.tell(&Event::Planned {
                    routine: routine.name.clone(),
                    action: "build",
                    detail: format!(
                        "with `{}`, and takes the entry as it is",
                        made.build.command
                    ),
                    saves: None,
                });
            }
        }
    }

    /// The builds of what was asked for.
    fn made(&self) -> impl Iterator<Item = Made<'_>> {
        let made = self.config.builds().into_iter();
        made.filter(|made| self.all || !made.routines.is_empty())
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
    watch::Target::of(routine)
}

/// What the watcher needs to know of builds.
pub(super) fn inputs<'a>(
    config: &Config,
    made: impl IntoIterator<Item = Made<'a>>,
) -> Vec<watch::Inputs> {
    let inputs = |(number, made): (usize, Made<'_>)| watch::Inputs {
        build: number,
        dir: config.dir().to_owned(),
        patterns: made.build.watch.clone(),
    };
    made.into_iter().enumerate().map(inputs).collect()
}

/// Whom a server is believed by, besides the system's certificate authorities.
pub(super) fn authorities(common: &Common) -> Result<Authorities, Failure> {
    let Some(path) = &common.ca_file else {
        return Ok(Authorities::default());
    };
    Authorities::read(path).map_err(|e| Failure::new(Class::Config, e.to_string()))
}

pub(super) fn state_failure(error: StateError) -> Failure {
    Failure::new(Class::State, format!("{error}\n= help: {}", error.help()))
}

/// Keeps only the routines that were asked for. Then no file that comes later is one of them.
fn choose(config: &mut Config, asked: &[RoutineName]) -> Result<(), Failure> {
    for name in asked {
        if let Some(routine) = config.contested.iter().find(|it| it.name == *name) {
            return Err(Failure::new(
                Class::Config,
                format!(
                    "`{}` is not the only file that would be the routine `{name}`\n= help: rename or remove all but one of them",
                    routine.shown
                ),
            ));
        }
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
        config.contested.clear();
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
