//! The two ways to end: the first signal asks for a stop, the second for an end at once.

use std::future::pending;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Failure;

/// Counts interrupts and terminations together. A task of its own does that, since two signals of which nobody took the
/// first are one to whoever looks later.
pub(super) struct Signals {
    count: watch::Receiver<u32>,
    _task: JoinSet<()>,
}

impl Signals {
    /// Counts from now on.
    pub(super) fn listen() -> Result<Self, Failure> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
        let (counted, count) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                counted.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { count, _task: task })
    }

    /// Resolves when that many signals have come.
    pub(super) fn at(&self, signals: u32) -> impl Future<Output = ()> + use<> {
        let mut count = self.count.clone();
        async move {
            if count.wait_for(|count| *count >= signals).await.is_err() {
                pending::<()>().await;
            }
        }
    }
}
