//! What a running watch says of itself, and that it holds still for nobody who asks.

mod address;
mod browser;
mod events;
mod hostile;
mod socket;
mod status;
mod sync;

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::common::{Bed, LIMIT, Watch};

/// Lets a watch serve a page at a port that nobody uses.
const LISTEN: &str = "[daemon]\nlisten = \"127.0.0.1:0\"\n";

/// The request for how everything stands.
const STATUS: &str = "GET /status HTTP/1.1\r\nhost: er-dev\r\n\r\n";

/// The request to be told when every edit has ended.
const SYNC: &str = "POST /sync HTTP/1.1\r\nhost: er-dev\r\ncontent-length: 0\r\n\r\n";

/// The one socket of a bed.
#[track_caller]
fn socket(bed: &Bed) -> std::path::PathBuf {
    let mut sockets = bed.sockets();
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    sockets.remove(0)
}

/// Connects and sends a text, all of it or as much as is taken.
async fn send(socket: &Path, text: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let _ = stream.write_all(text.as_bytes()).await;
    stream
}

/// Where a watch serves its page.
#[track_caller]
fn address(watch: &Watch) -> SocketAddr {
    let serving = watch.seen().find(|event| event["event"] == "serving");
    let url = serving.expect("no page")["url"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix('/');
    address.unwrap().parse().unwrap()
}

/// A request at an address, with the Host header that belongs there and these others.
fn request(address: SocketAddr, method: &str, path: &str, headers: &[&str]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text + "\r\n"
}

/// Connects to an address and sends a text, all of it or as much as is taken.
async fn send_to(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(text.as_bytes()).await;
    stream
}

/// Asks at an address and reads the answer to the end.
async fn get(address: SocketAddr, path: &str) -> String {
    rest(send_to(address, &request(address, "GET", path, &[])).await).await
}

/// What comes until the connection ends, in whatever way it does.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection is kept open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends a request and reads its answer to the end.
async fn ask(socket: &Path, text: &str) -> String {
    rest(send(socket, text).await).await
}

/// The state of a routine in an answer.
#[track_caller]
fn state<'a>(status: &'a Value, routine: &str) -> &'a str {
    of(status, routine)["state"].as_str().unwrap()
}

/// A routine in an answer.
#[track_caller]
fn of<'a>(status: &'a Value, routine: &str) -> &'a Value {
    let routines = status["routines"].as_array().unwrap();
    let found = routines.iter().find(|one| one["routine"] == routine);
    found.unwrap_or_else(|| panic!("no {routine} in {status}"))
}
