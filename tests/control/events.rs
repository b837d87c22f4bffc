//! `GET /events`: what is told, as it is told, for several who listen.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpStream, UnixStream};

use super::{LISTEN, STATUS, address, ask, get, request, rest, send_to, socket};
use crate::common::{Bed, LIMIT, code};

/// Somebody who reads events.
struct Reader<S>(Lines<BufReader<S>>);

impl<S: AsyncRead + Unpin> Reader<S> {
    fn new(stream: S) -> Self {
        Self(BufReader::new(stream).lines())
    }

    /// The name and the object of the next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        let mut name = None;
        loop {
            let line = tokio::time::timeout(LIMIT, self.0.next_line()).await;
            let line = line.expect("no event in time").ok()??;
            if let Some(id) = line.strip_prefix("id: ") {
                name = Some(id.to_owned());
            }
            if let Some(object) = line.strip_prefix("data: ") {
                return Some((name?, serde_json::from_str(object).unwrap()));
            }
        }
    }

    async fn until(&mut self, event: &str) -> (String, Value) {
        loop {
            let (name, object) = self.next().await.expect("the stream ended");
            if object["event"] == event {
                return (name, object);
            }
        }
    }
}

async fn listen(address: std::net::SocketAddr, headers: &[&str]) -> Reader<TcpStream> {
    let text = request(address, "GET", "/events", headers);
    Reader::new(send_to(address, &text).await)
}

#[tokio::test]
async fn whoever_listens_hears_what_standard_output_says_and_comes_back_without_a_gap() {
    let bed = Bed::with(&["hello"], Default::default(), LISTEN).await;
    let mut watch = bed.watch(&[]).await;
    let address = address(&watch);
    let mut at_address = listen(address, &[]).await;
    let mut stream = UnixStream::connect(socket(&bed)).await.unwrap();
    stream
        .write_all(b"GET /events HTTP/1.1\r\nhost: er-dev\r\n\r\n")
        .await
        .unwrap();
    let mut at_socket = Reader::new(stream);
    let (first, object) = at_address.until("uploaded").await;
    let told = watch.seen().find(|it| it["event"] == "uploaded").unwrap();
    assert_eq!(object, *told);
    assert_eq!(at_socket.until("uploaded").await, (first.clone(), object));
    for save in 1..4 {
        bed.write("hello", &code("hello", save));
        let told = watch.end_of_edit().await;
        assert_eq!(at_address.until("uploaded").await.1, told);
        assert_eq!(at_socket.until("uploaded").await.1, told);
    }
    // The next one after the last that was seen, and no other.
    let mut back = listen(address, &[&format!("last-event-id: {first}")]).await;
    let (name, object) = back.next().await.unwrap();
    let number = |name: &str| name.split_once('-').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(number(&name), number(&first) + 1);
    assert_eq!(object["event"], "uploaded");
    // Another process's name means nothing here, so that everything is told.
    let mut other = listen(address, &["last-event-id: 7-3"]).await;
    assert_eq!(other.next().await.unwrap().1["event"], "serving");
    // A stop ends the stream and waits for nobody.
    watch.stop().await;
    while at_address.next().await.is_some() {}
    while at_socket.next().await.is_some() {}
}

#[tokio::test]
async fn those_who_listen_are_bounded_and_take_no_place_from_others() {
    let bed = Bed::with(&["hello"], Default::default(), LISTEN).await;
    let watch = bed.watch(&[]).await;
    let address = address(&watch);
    let mut listening = Vec::new();
    for _ in 0..er_dev::control::feed::MAX_LISTENERS {
        let mut reader = listen(address, &[]).await;
        reader.until("uploaded").await;
        listening.push(reader);
    }
    let one_more = get(address, "/events").await;
    assert!(one_more.starts_with("HTTP/1.1 503 "), "{one_more}");
    assert!(get(address, "/status").await.starts_with("HTTP/1.1 200 "));
    assert!(
        ask(&socket(&bed), STATUS)
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    // One that leaves makes room for another.
    drop(listening.pop());
    let again = tokio::time::timeout(LIMIT, async {
        loop {
            let text = request(address, "GET", "/events", &[]);
            let mut reader = Reader::new(send_to(address, &text).await);
            if reader.next().await.is_some() {
                break;
            }
        }
    });
    again.await.expect("the place is never free again");
    watch.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_opened_by_a_wrong_name_is_refused_before_it_takes_a_place() {
    let bed = Bed::with(&["hello"], Default::default(), LISTEN).await;
    let watch = bed.watch(&[]).await;
    let address = address(&watch);
    for _ in 0..2 * er_dev::control::feed::MAX_LISTENERS {
        let text = request(
            address,
            "GET",
            "/events",
            &["origin: http://rebound.example"],
        );
        let answer = rest(send_to(address, &text).await).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    listen(address, &[]).await.until("uploaded").await;
    watch.stop().await;
}
