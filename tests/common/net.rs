//! What may stand between er-dev and the emulator: servers that answer in a way of their own, and proxies that spoil
//! the line. They count and collect what they see; what that proves is for the tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::Bed;

/// What a proxy does to the client's bytes on their way.
#[derive(Clone)]
pub(crate) enum Way {
    /// They pass at this rate, in bytes a second.
    Slow(usize),
    /// They pass until the connection is among those that were frozen.
    Freezing,
    /// The connection of the first request that holds these words is reset when so much of its body has passed.
    Cut(&'static str, At),
}

/// A place in a body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    Start,
    First,
    Half,
    LastButOne,
    End,
}

/// A proxy in front of the emulator, for API and object storage alike: the address in a form is changed on its way.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    emulator: SocketAddr,
    way: Way,
    accepted: Arc<AtomicUsize>,
    /// The connections up to this one do not move any more.
    frozen: Arc<AtomicUsize>,
    /// How many requests were cut off.
    cut: Arc<AtomicUsize>,
}

/// How a connection through a proxy ends.
#[derive(PartialEq, Eq)]
enum End {
    Closed,
    /// With a reset for the client, while the emulator waits for more.
    Reset,
    /// With a reset for the client, while the emulator has all it waits for.
    ResetBehind,
}

impl Proxy {
    pub(crate) async fn start(bed: &Bed, way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            emulator: bed.emulator.address(),
            way,
            accepted: Arc::default(),
            frozen: Arc::default(),
            cut: Arc::default(),
        };
        // Both are written with the same number of digits, so that no length changes.
        let digits = |address: SocketAddr| address.to_string().len();
        assert_eq!(digits(proxy.address), digits(proxy.emulator));
        let template = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = template.accepted.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(template.clone().connection(client, number));
            }
        });
        proxy
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Lets nothing pass any more on the connections there are.
    pub(crate) fn freeze(&self) {
        self.frozen.store(self.connections(), Ordering::SeqCst);
    }

    /// How many requests were cut off.
    pub(crate) fn cut(&self) -> usize {
        self.cut.load(Ordering::SeqCst)
    }

    async fn connection(self, mut client: TcpStream, number: usize) {
        let Ok(mut server) = TcpStream::connect(self.emulator).await else {
            return;
        };
        let (from_client, to_client) = client.split();
        let (mut from_server, to_server) = server.split();
        let end = tokio::select! {
            end = self.upwards(from_client, to_server, number) => end,
            end = self.downwards(&mut from_server, to_client) => end,
        };
        if end != End::Closed {
            client.set_zero_linger().unwrap();
            drop(client);
        }
        if end == End::ResetBehind {
            // An emulator whose client has gone might not carry out what it has read.
            let mut answer = Vec::new();
            let _ = server.read_to_end(&mut answer).await;
        }
    }

    async fn upwards(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, number: usize) -> End {
        if let Way::Cut(needle, at) = self.way {
            return self.cutting(from, to, needle, at).await;
        }
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            match self.way {
                Way::Slow(rate) => {
                    tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await;
                }
                _ if number <= self.frozen.load(Ordering::SeqCst) => {
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
            if to.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
        End::Closed
    }

    /// Passes whole requests on, but for the one that is cut.
    async fn cutting(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        needle: &str,
        at: At,
    ) -> End {
        while let Some((head, length)) = head(&mut from).await {
            // What a call of the API is about stands in its body, which comes in one piece with its head.
            let mut body = Vec::new();
            let is_told = String::from_utf8_lossy(&head).starts_with(needle);
            if !is_told && !more(&mut from, &mut body, length).await {
                break;
            }
            let meant = is_told || String::from_utf8_lossy(&body).contains(needle);
            let first = meant && self.cut.fetch_add(1, Ordering::SeqCst) == 0;
            let passed = if first { at.of(length) } else { length };
            if !more(&mut from, &mut body, passed).await {
                break;
            }
            let passes = [&head[..], &body[..passed]].concat();
            if to.write_all(&passes).await.is_err() {
                break;
            }
            if first && passed == length {
                return End::ResetBehind;
            }
            if first {
                return End::Reset;
            }
        }
        End::Closed
    }

    async fn downwards(&self, from: &mut ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        let [there, here] =
            [self.emulator, self.address].map(|address| format!("http://{address}/oss"));
        let mut bytes = vec![0; 1 << 20];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            let text = String::from_utf8_lossy(&bytes[..read]).replace(&there, &here);
            if to.write_all(text.as_bytes()).await.is_err() {
                break;
            }
        }
        End::Closed
    }
}

impl At {
    fn of(self, length: usize) -> usize {
        match self {
            Self::Start => 0,
            Self::First => 1,
            Self::Half => length / 2,
            Self::LastButOne => length - 1,
            Self::End => length,
        }
    }
}

/// The head of the next request of a connection, and the length of its body.
async fn head(from: &mut ReadHalf<'_>) -> Option<(Vec<u8>, usize)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await.ok()?);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    Some((head, length))
}

/// Reads on until there are so many bytes of a body.
async fn more(from: &mut ReadHalf<'_>, body: &mut Vec<u8>, length: usize) -> bool {
    let there = body.len();
    body.resize(length.max(there), 0);
    from.read_exact(&mut body[there..]).await.is_ok()
}

/// A server that answers every connection in its own way, and counts them.
pub(crate) async fn server<F>(
    answer: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(answer(stream));
        }
    });
    (address, connections)
}

/// A server that says the same to every request, whatever it is, and then waits for the client to leave.
pub(crate) async fn stubborn(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer: Arc<[u8]> = answer.into().into();
    let (address, _) = server(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            let _ = stream.read(&mut [0; 8192]).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    address
}

/// An answer of one piece, after which the connection ends.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}
