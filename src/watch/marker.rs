//! A marker: a name that is made and removed in a watched directory, to learn that all earlier events have been heard.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::{Life, Shared};

/// The longest wait for the event of a marker. Without it reading goes on, with the quiet time as the only guard.
const WAIT: Duration = Duration::from_millis(250);

/// What makes markers.
#[derive(Debug)]
pub(super) struct Marker {
    shared: Arc<Shared>,
    /// Where to make them; nowhere as long as no event would tell of them.
    pub(super) directory: Option<PathBuf>,
    made: u64,
}

impl Marker {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            directory: None,
            made: 0,
        }
    }

    /// Waits until every event of what happened before now has been heard.
    pub(super) fn wait(&mut self) {
        let Some(directory) = &self.directory else {
            return;
        };
        self.made += 1;
        let marker = directory.join(format!("seen-{}-{}", std::process::id(), self.made));
        self.shared.inbox().awaited = Some(marker.clone());
        // A link is the cheapest thing to make: it holds no data and nobody opens it.
        let made = std::os::unix::fs::symlink("seen", &marker);
        // If one is left over from a process that was killed, its removal is an event as well.
        if let Err(error) = std::fs::remove_file(&marker) {
            let error = made.err().unwrap_or(error);
            tracing::debug!("no marker in `{}`: {error}", directory.display());
            self.shared.inbox().awaited = None;
            return;
        }
        let until = Instant::now() + WAIT;
        let mut inbox = self.shared.inbox();
        while inbox.awaited.is_some() && inbox.life == Life::Running {
            if until <= Instant::now() {
                tracing::debug!("the event of `{}` did not come", marker.display());
                inbox.awaited = None;
            } else {
                inbox = self.shared.wait(inbox, until);
            }
        }
    }
}
