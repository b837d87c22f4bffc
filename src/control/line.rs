//! One connection of the control socket, within its bounds: how much may be sent, and how long that and the reading of
//! the answer may take. Waiting for the answer has no bound here, because a sync waits for as long as whoever asked.

use std::future::Future as _;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

use super::place;

/// The most clients at a time. The next ones wait until one of them has gone.
pub(super) const MAX_CLIENTS: usize = 8;

/// The largest request, in bytes. More ends the connection.
pub(super) const MAX_REQUEST: usize = 64 << 10;

/// How long a client may take to send its request, and how long to take the answer. More ends the connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The pause after a connection could not be accepted, as when no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(500);

/// How often it is looked whether the socket is still there. Programs that tidy up may remove it with its directory.
const LOOK: Duration = Duration::from_secs(3);

/// Hands out connections of the own user, so many at a time.
pub(super) struct Listener {
    inner: UnixListener,
    path: PathBuf,
    looks: Interval,
    places: Arc<Semaphore>,
    owner: u32,
}

/// One connection. It holds its place among [`MAX_CLIENTS`].
pub(super) struct Line {
    stream: UnixStream,
    asked: Asked,
    phase: Phase,
    /// When the present phase has to be over.
    deadline: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request is read, of which there may be so many more bytes.
    Request(usize),
    /// The answer is written.
    Answer,
}

/// Whether the head of the request is complete, so that no more is waited for. The handlers say so.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Listener {
    /// Listens at a socket that is at this path, and makes it again should it go.
    pub(super) fn new(inner: UnixListener, path: PathBuf) -> Self {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            inner,
            path,
            looks,
            places: Arc::new(Semaphore::new(MAX_CLIENTS)),
            owner: rustix::process::geteuid().as_raw(),
        }
    }

    async fn next(&mut self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = tokio::select! {
                accepted = self.inner.accept() => accepted?,
                _ = self.looks.tick() => {
                    self.look();
                    continue;
                }
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == self.owner => return Ok(stream),
                Ok(peer) => {
                    tracing::warn!(
                        uid = peer.uid(),
                        "another user was refused at the control socket"
                    );
                }
                Err(error) => tracing::debug!(%error, "nobody is there any more"),
            }
        }
    }

    /// Makes the socket again if it is gone. Where that is not possible, the next look tries again.
    fn look(&mut self) {
        match place::listen_again(&self.path) {
            Ok(None) => {}
            Ok(Some(listener)) => {
                tracing::info!(socket = %self.path.display(), "the control socket was removed and is there again");
                self.inner = listener;
            }
            Err(error) => tracing::debug!(%error, "the control socket is gone"),
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Line;
    type Addr = ();

    async fn accept(&mut self) -> (Line, ()) {
        loop {
            // Never closed, so that a failure would only be another turn.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                continue;
            };
            match self.next().await {
                Ok(stream) => {
                    let line = Line {
                        stream,
                        asked: Asked::default(),
                        phase: Phase::Request(MAX_REQUEST),
                        deadline: Box::pin(tokio::time::sleep(PATIENCE)),
                        _place: place,
                    };
                    return (line, ());
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Connected<IncomingStream<'_, Listener>> for Asked {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().asked.clone()
    }
}

impl Line {
    /// Fails once the present phase has lasted too long.
    fn hurry<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Phase::Request(left) = self.phase else {
            return read;
        };
        let more = buffer.filled().len() - before;
        match left.checked_sub(more) {
            Some(left) => self.phase = Phase::Request(left),
            None => return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into())),
        }
        if read.is_pending() && !self.asked.0.load(Ordering::Relaxed) {
            return self.hurry(context);
        }
        read
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.phase != Phase::Answer {
            self.phase = Phase::Answer;
            self.deadline.as_mut().reset(Instant::now() + PATIENCE);
        }
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.hurry(context),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
