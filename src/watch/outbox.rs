//! What is to be said, handed over in order to a receiver that may be busy or gone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::events::{Life, Shared};
use crate::routine::Sighting;

/// How often the receiver of sightings is tried again while its channel is full. Hints gather meanwhile.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// What is to be said.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    sightings: VecDeque<Sighting>,
    receiver: mpsc::Sender<Sighting>,
}

impl Outbox {
    pub(super) fn new(shared: &Arc<Shared>, receiver: mpsc::Sender<Sighting>) -> Self {
        Self {
            shared: Arc::clone(shared),
            sightings: VecDeque::new(),
            receiver,
        }
    }

    /// Puts sightings last.
    pub(super) fn extend(&mut self, sightings: impl IntoIterator<Item = Sighting>) {
        self.sightings.extend(sightings);
    }

    /// Hands everything over that is to be said. If nobody takes it any more, there is nothing left to do.
    pub(super) fn flush(&mut self) {
        while let Some(sighting) = self.sightings.pop_front() {
            if !self.send(sighting) {
                self.shared.stop();
                return;
            }
        }
    }

    /// Hands a sighting over; false if nobody takes it any more.
    fn send(&self, mut sighting: Sighting) -> bool {
        loop {
            match self.receiver.try_send(sighting) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(back)) => sighting = back,
            }
            let until = Instant::now() + FULL_PAUSE;
            let mut inbox = self.shared.inbox();
            while Instant::now() < until {
                if inbox.life == Life::Stopping {
                    return false;
                }
                inbox = self.shared.wait(inbox, until);
            }
        }
    }
}
