//! The two ways to end: the first signal asks for a stop, the second for an end at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// Resolves at the given number of signals, counting interrupts and terminations together from now on.
pub(super) fn at(count: u32) -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    Ok(async move {
        for _ in 0..count {
            next(&mut interrupt, &mut terminate).await;
        }
    })
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
