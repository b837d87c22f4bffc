//! What a running `watch` can be asked, and by whom it is answered: the loop, which alone knows how everything stands.

use serde_json::Value;
use tokio::sync::oneshot;

use super::standing::Overview;

/// The most syncs that wait at a time; one more is refused. Each takes a place of the control socket.
pub const MAX_SYNCS: usize = 6;

/// A question, with the way for its answer. An answer that nobody waits for any more is dropped.
#[derive(Debug)]
pub enum Question {
    /// How does everything stand?
    Status(oneshot::Sender<Overview>),
    /// Something is to be done; the answer is how everything stands after that.
    Order(Order, oneshot::Sender<Overview>),
    /// Which versions are there, as far as they were listed? A routine that is being uploaded just now is left out.
    Versions(oneshot::Sender<Vec<Value>>),
    /// How does everything stand once every edit made until now has ended?
    Sync(oneshot::Sender<Result<Overview, Refusal>>),
}

/// What somebody may ask a running watch to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start nothing until further notice.
    Pause,
    /// Go on after a pause.
    Continue,
    /// Try now what waits for its next try.
    Flush,
}

/// Why a sync is not waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are too many of them.
    #[error("{MAX_SYNCS} syncs are being waited for already; try again when one has ended")]
    TooMany,
    /// The program is about to end.
    #[error(
        "this er-dev is stopping; what it has not uploaded by its end is looked at again when it starts"
    )]
    Stopping,
}
