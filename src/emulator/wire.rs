//! The connections under the HTTP server, and what a fault puts on one in place of the server's own words.
//!
//! A broken answer cannot be had from a correct server: one that ends without a byte, in a reset, halfway, or never. So
//! the server writes into a [`Wire`], and a handler that wants the connection to end in such a way leaves a [`Script`]
//! in its [`Line`]; from then on the wire plays that and drops what the server says.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// Hands out connections as [`Wire`]s.
pub(super) struct Listener {
    pub(super) inner: TcpListener,
    /// Ends scripts that would not end by themselves.
    pub(super) stop: CancellationToken,
}

/// One connection.
pub(super) struct Wire {
    stream: TcpStream,
    line: Line,
    script: Option<Script>,
    stop: CancellationToken,
}

/// A handler's hold on the connection that its request came by.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Arc<Mutex<Option<Script>>>);

/// How a connection ends.
pub(super) enum Script {
    /// With these bytes in place of the server's, a pause before each piece but the first.
    Say {
        piece: Bytes,
        pieces: Box<dyn Iterator<Item = Bytes> + Send>,
        pace: Option<Duration>,
        pause: Option<Pin<Box<Sleep>>>,
    },
    /// With a reset.
    Reset,
    /// As the server wants, and when it has ended this process is killed.
    Kill(Pid),
}

impl Script {
    /// Ends without a byte.
    pub(super) fn silence() -> Self {
        Self::say([], None)
    }

    /// Ends after these pieces.
    pub(super) fn say<I>(pieces: I, pace: Option<Duration>) -> Self
    where
        I: IntoIterator<Item = Bytes, IntoIter: Send + 'static>,
    {
        let mut pieces = Box::new(pieces.into_iter());
        Self::Say {
            piece: pieces.next().unwrap_or_default(),
            pieces,
            pace,
            pause: None,
        }
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Say { .. } => "Say",
            Self::Reset => "Reset",
            Self::Kill(_) => "Kill",
        })
    }
}

impl Line {
    /// Decides how the connection ends. It must be called before the answer is given to the server.
    pub(super) fn play(&self, script: Script) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(script);
    }

    fn take(&self) -> Option<Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl axum::serve::Listener for Listener {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.inner).await;
        let wire = Wire {
            stream,
            line: Line::default(),
            script: None,
            stop: self.stop.clone(),
        };
        (wire, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl Connected<IncomingStream<'_, Listener>> for Line {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().line.clone()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.script.is_none() {
            wire.script = wire.line.take();
        }
        match &mut wire.script {
            None | Some(Script::Kill(_)) => Pin::new(&mut wire.stream).poll_write(context, bytes),
            Some(Script::Reset) => {
                // Closing now throws away what is on its way and tells the peer so.
                let _ = wire.stream.set_zero_linger();
                Poll::Ready(Err(ended()))
            }
            Some(script) => {
                ready!(script.poll_say(&mut wire.stream, &wire.stop, context))?;
                Poll::Ready(Err(ended()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(Script::Kill(pid)) = self.script {
            kill(pid);
        }
    }
}

impl Script {
    fn poll_say(
        &mut self,
        stream: &mut TcpStream,
        stop: &CancellationToken,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Self::Say {
            piece,
            pieces,
            pace,
            pause,
        } = self
        else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if let Some(sleep) = pause {
                ready!(sleep.as_mut().poll(context));
                *pause = None;
            }
            if stop.is_cancelled() {
                return Poll::Ready(Ok(()));
            }
            while !piece.is_empty() {
                let written = ready!(Pin::new(&mut *stream).poll_write(context, piece))?;
                let _ = piece.split_to(written);
            }
            let Some(next) = pieces.next() else {
                return Poll::Ready(Ok(()));
            };
            *piece = next;
            *pause = pace.map(|pace| Box::pin(tokio::time::sleep(pace)));
        }
    }
}

/// Kills a process. One that is gone already is as good.
pub(super) fn kill(pid: Pid) {
    if let Err(error) = rustix::process::kill_process(pid, Signal::KILL) {
        tracing::debug!(%error, ?pid, "a fault could not kill");
    }
}

/// What the server hears once a script has been played; it then drops the connection.
fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "a fault ended the connection")
}
