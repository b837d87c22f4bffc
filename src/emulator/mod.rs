//! A stand-in for the remote service, for the first run, for tests of the whole program, and for trying faults.
//!
//! It answers as the service does: `gateway` checks who calls (with `signature`, and with `acs3` for what is signed in
//! headers), `operations` with `describe` and `storage` are the two things that can be called, `world` and `routines`
//! are what they change (`staging` for the slot where code is tried), `http`, `answer` and `wire` put it on a socket. What the real service leaves open is a switch
//! (`switches`, `lag`), what can go wrong is a `fault` with its `action`, what other people do is in `actors`, and
//! `control` reaches all of that while it runs. `history` tells what happened, and `check` (with `replay`) judges it.
//!
//! It shares no code with the client, so that both cannot be wrong in the same way, and it listens on loopback only,
//! since its key is public.

mod acs3;
pub mod action;
pub mod actors;
mod answer;
pub mod check;
mod control;
mod describe;
pub mod fault;
pub mod form;
pub mod gateway;
pub mod history;
mod http;
mod keys;
mod lag;
mod operations;
mod replay;
pub mod reply;
pub mod routines;
mod signature;
pub mod staging;
pub mod storage;
pub mod switches;
mod wire;
pub mod world;

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use self::fault::{Fault, FaultError};
use self::history::Record;
use self::http::Shared;
use self::wire::{Line, Listener};
use self::world::{Settings, World};
use crate::routine::RoutineName;

/// How long a stop waits for replies that are still on their way; then they are cut off.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How to start an emulator.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on, which must be loopback; port 0 takes an unused one.
    pub listen: SocketAddr,
    /// The routines that are there from the start.
    pub routines: Vec<RoutineName>,
    /// A file for the history, one JSON object a line. What it held before is lost.
    pub history: Option<PathBuf>,
    /// How the emulated service behaves.
    pub settings: Settings,
    /// What goes wrong from the start.
    pub faults: Vec<Fault>,
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is one that other machines could reach.
    #[error(
        "the emulator listens on loopback only, and {0} is not: its key is public; take 127.0.0.1 or [::1]"
    )]
    NotLoopback(SocketAddr),
    /// The address could not be taken.
    #[error(
        "the emulator cannot listen on {address}: {source}; take another port, or 0 for an unused one"
    )]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The history file could not be made.
    #[error("the history file {path} cannot be made: {source}", path = path.display())]
    History {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There are too many faults.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

/// A running emulator. Dropping it tells its server to end; [`Emulator::stop`] also waits for that.
pub struct Emulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<io::Result<()>>,
    stop: DropGuard,
}

impl Default for Options {
    /// An unused port of 127.0.0.1, no routines, no history file, nothing that goes wrong.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            routines: Vec::new(),
            history: None,
            settings: Settings::default(),
            faults: Vec::new(),
        }
    }
}

impl Emulator {
    /// Starts to listen and serves until stopped. Must be called within a tokio runtime.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let address = options.listen;
        if !address.ip().is_loopback() {
            return Err(StartError::NotLoopback(address));
        }
        let listening = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = listening
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        let history_file = match options.history {
            Some(path) => {
                let made = File::create(&path);
                Some(made.map_err(|source| StartError::History { path, source })?)
            }
            None => None,
        };
        let mut world = World::new(options.settings, &format!("http://{address}"));
        for name in &options.routines {
            // A name that is given twice means one routine.
            let _ = world.create_routine(name, "", jiff::Timestamp::now());
        }
        let shared = Arc::new(Shared::new(world, history_file));
        shared.add_faults(options.faults)?;
        let app = http::router(Arc::clone(&shared));
        let listener = Listener {
            inner: listener,
            stop: shared.stop.clone(),
        };
        let serving = axum::serve(listener, app.into_make_service_with_connect_info::<Line>())
            .with_graceful_shutdown(shared.stop.clone().cancelled_owned());
        Ok(Self {
            address,
            server: tokio::spawn(serving.into_future()),
            stop: shared.stop.clone().drop_guard(),
            shared,
        })
    }

    /// Scheme, host and port, such as `http://127.0.0.1:9480`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far and the deeds of other people, in the order of handling.
    pub fn history(&self) -> Vec<Record> {
        self.shared
            .look(|world| world.history().iter().cloned().collect())
    }

    /// Waits until a condition holds. It is looked at now and after every request and every
    /// [`Emulator::with_world`]; a change between two looks is never missed.
    pub async fn wait_until(&self, condition: impl Fn(&World) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        while !self.shared.look(&condition) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// From now on this goes wrong, counted from now: `UploadRoutineCode:2:drop_after` loses the answer to the second
    /// upload. Of two faults that a request meets the one set first counts.
    pub fn fault(&self, spec: &str) -> Result<(), FaultError> {
        self.shared.add_faults(vec![Fault::parse(spec)?])
    }

    /// From now on nothing goes wrong.
    pub fn clear_faults(&self) {
        self.shared.clear_faults();
    }

    /// The faults that are set, as they were written, and how often each was used.
    pub fn faults(&self) -> Vec<(String, u64)> {
        let list = |(fault, used): (&Fault, u64)| (fault.text().to_owned(), used);
        self.shared
            .faults(|faults| faults.list().map(list).collect())
    }

    /// Changes how the service behaves from now on.
    pub fn configure(&self, settings: Settings) {
        self.shared.configure(settings);
    }

    /// Reads or changes what the service holds, as another user of it would. Uploads, publishes and deletes made here
    /// are recorded as a person's.
    pub fn with_world<T>(&self, step: impl FnOnce(&mut World) -> T) -> T {
        self.shared.with_world(step)
    }

    /// Ends the server: no new connection, a short grace for replies on their way, and then the end.
    pub async fn stop(self) {
        let Self {
            mut server,
            stop,
            shared,
            ..
        } = self;
        drop(stop);
        shared.end_late().await;
        let ended = match tokio::time::timeout(STOP_GRACE, &mut server).await {
            Ok(ended) => ended,
            Err(_) => {
                server.abort();
                server.await
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the emulator's server ended with an error"),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => tracing::warn!("the emulator was stopped with connections still open"),
        }
    }
}

#[cfg(test)]
mod tests;
