//! One connection of whoever asks, within its bounds: how much may be sent, and how long that and the reading of the
//! answer may take. Waiting for the answer has no bound here, because a sync waits for as long as whoever asked, and an
//! answer without an end may take its time as long as it is read.

use std::future::Future as _;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_util::either::Either;

use super::place;

/// The most clients at a time at each of the doors, those not counted that listen to events. The next ones wait until
/// one of them has gone.
pub(super) const MAX_CLIENTS: usize = 8;

/// The largest request, in bytes. More ends the connection.
pub(super) const MAX_REQUEST: usize = 64 << 10;

/// How long a client may take to send its request, and how long to take the answer. More ends the connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The pause after a connection could not be accepted, as when no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(500);

/// How often it is looked whether the socket is still there. Programs that tidy up may remove it with its directory.
const LOOK: Duration = Duration::from_secs(3);

/// Where clients come from.
pub(super) enum Door {
    /// The control socket, which only its user gets through.
    Socket(Own),
    /// An address of this machine.
    Address(TcpListener),
}

/// The control socket: who it belongs to, and where it has to be.
pub(super) struct Own {
    inner: UnixListener,
    path: PathBuf,
    looks: Interval,
    owner: u32,
}

/// Hands out connections, so many at a time.
pub(super) struct Listener {
    door: Door,
    places: Arc<Semaphore>,
}

/// One connection.
pub(super) struct Line {
    stream: Either<UnixStream, TcpStream>,
    asked: Asked,
    phase: Phase,
    /// When the present phase has to be over, or the client has to read on.
    deadline: Pin<Box<Sleep>>,
    /// Whether the client is being waited for to read on.
    stalled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request is read, of which there may be so many more bytes.
    Request(usize),
    /// The answer is written.
    Answer,
}

/// What the handlers say of the request of a connection.
#[derive(Debug, Clone)]
pub(super) struct Asked(Arc<Said>);

#[derive(Debug)]
struct Said {
    /// Its head is complete, so that no more is waited for.
    whole: AtomicBool,
    /// Its answer has no end.
    endless: AtomicBool,
    /// Its place among [`MAX_CLIENTS`].
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Asked {
    fn new(place: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Said {
            whole: AtomicBool::new(false),
            endless: AtomicBool::new(false),
            place: Mutex::new(Some(place)),
        }))
    }

    /// The head of the request is complete.
    pub(super) fn note(&self) {
        self.0.whole.store(true, Ordering::Relaxed);
    }

    /// The answer goes on for as long as it is read. The client leaves its place to others; whoever answers bounds the
    /// number of such clients.
    pub(super) fn note_endless(&self) {
        self.0.endless.store(true, Ordering::Relaxed);
        let place = self.0.place.lock();
        place.unwrap_or_else(PoisonError::into_inner).take();
    }

    fn is_endless(&self) -> bool {
        self.0.endless.load(Ordering::Relaxed)
    }
}

impl Door {
    /// The control socket of this user, which is at this path, and is made again should it go.
    pub(super) fn socket(inner: UnixListener, path: PathBuf) -> Self {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self::Socket(Own {
            inner,
            path,
            looks,
            owner: rustix::process::geteuid().as_raw(),
        })
    }

    async fn next(&mut self) -> io::Result<Either<UnixStream, TcpStream>> {
        match self {
            Self::Socket(own) => own.next().await.map(Either::Left),
            Self::Address(listener) => Ok(Either::Right(listener.accept().await?.0)),
        }
    }
}

impl Own {
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

impl Listener {
    pub(super) fn new(door: Door) -> Self {
        Self {
            door,
            places: Arc::new(Semaphore::new(MAX_CLIENTS)),
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
            match self.door.next().await {
                Ok(stream) => {
                    let line = Line {
                        stream,
                        asked: Asked::new(place),
                        phase: Phase::Request(MAX_REQUEST),
                        deadline: Box::pin(tokio::time::sleep(PATIENCE)),
                        stalled: false,
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
        if read.is_pending() && !self.asked.0.whole.load(Ordering::Relaxed) {
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
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.stalled = false;
            return written;
        }
        // What has no end is read in time if some of it is.
        if !self.stalled && self.asked.is_endless() {
            self.deadline.as_mut().reset(Instant::now() + PATIENCE);
        }
        self.stalled = true;
        self.hurry(context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A connection of which the answer has begun, and whoever reads it.
    async fn answering() -> (Line, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let places = Arc::new(Semaphore::new(1));
        let line = Line {
            stream: Either::Left(ours),
            asked: Asked::new(places.acquire_owned().await.unwrap()),
            phase: Phase::Request(MAX_REQUEST),
            deadline: Box::pin(tokio::time::sleep(PATIENCE)),
            stalled: false,
        };
        (line, theirs)
    }

    /// Writes until nothing more is taken in time.
    async fn write_on(line: &mut Line) -> io::ErrorKind {
        loop {
            if let Err(error) = line.write_all(&[b'x'; 4096]).await {
                return error.kind();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_an_end_goes_on_as_long_as_it_is_read() {
        for endless in [false, true] {
            let (mut line, theirs) = answering().await;
            if endless {
                line.asked.note_endless();
            }
            let slow = async {
                // A little now and then, for much longer than an answer may take.
                for _ in 0..20 {
                    tokio::time::sleep(PATIENCE / 2).await;
                    let _ = theirs.try_read(&mut vec![0; 1 << 20]);
                }
                theirs
            };
            let begun = Instant::now();
            let (ended, theirs) = tokio::join!(write_on(&mut line), slow);
            assert_eq!(ended, io::ErrorKind::TimedOut);
            assert_eq!(begun.elapsed() > 10 * PATIENCE, endless);
            drop(theirs);
        }
    }

    #[tokio::test]
    async fn an_answer_without_an_end_leaves_its_place_to_others() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let asked = Asked::new(place);
        assert_eq!(places.available_permits(), 0);
        asked.note_endless();
        assert_eq!(places.available_permits(), 1);
    }
}
