//! Clients that send too much, too slowly, or come in crowds: they are cut off, and nothing else waits for them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;

use super::{LISTEN, STATUS, SYNC, address, ask, get, request, rest, send, send_to, socket};
use crate::common::{Bed, Watch, code};

/// What saves must not take, whatever is done to the socket meanwhile.
const SOON: Duration = Duration::from_secs(20);

/// Saves so many times and waits for each upload.
async fn save(bed: &Bed, watch: &mut Watch, saves: std::ops::Range<usize>) {
    for save in saves {
        let begun = Instant::now();
        bed.write("hello", &code("hello", save));
        assert_eq!(watch.end_of_edit().await["event"], "uploaded");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_cut_off() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let socket = socket(&bed);
    for (bytes, fits) in [(60 << 10, true), (65 << 10, false)] {
        let text = "x".repeat(bytes);
        let request = format!("GET /status HTTP/1.1\r\nhost: er-dev\r\nx-large: {text}\r\n\r\n");
        let answer = ask(&socket, &request).await;
        assert_eq!(
            answer.starts_with("HTTP/1.1 200 "),
            fits,
            "{bytes}: {answer}"
        );
    }
    let large = "x".repeat(1 << 20);
    let head = format!("GET /status HTTP/1.1\r\nhost: er-dev\r\nx-large: {large}\r\n\r\n");
    let line = format!("GET /{large} HTTP/1.1\r\nhost: er-dev\r\n\r\n");
    let body = format!(
        "POST /sync HTTP/1.1\r\nhost: er-dev\r\ncontent-length: {}\r\n\r\n{large}",
        large.len()
    );
    let chunk = format!(
        "POST /sync HTTP/1.1\r\nhost: er-dev\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n{large}\r\n"
    );
    let endless = large.clone();
    for (what, request) in [
        ("head", head),
        ("line", line),
        ("body", body),
        ("text", endless),
    ] {
        let answer = ask(&socket, &request).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
    }
    // No more of this than fits is read, and the rest with the end of the connection is dropped.
    ask(&socket, &chunk).await;
    for odd in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "\0\u{1b}[2J\r\n\r\n",
        "GET /status HTTP/9.9\r\n\r\n",
    ] {
        let answer = ask(&socket, odd).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{odd:?}: {answer}");
    }
    let answer = ask(&socket, "GET /purge HTTP/1.1\r\nhost: er-dev\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let answer = ask(&socket, "GET /sync HTTP/1.1\r\nhost: er-dev\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let answer = ask(&socket, STATUS).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    watch.stop().await;
}

#[tokio::test]
async fn clients_that_stall_hold_up_only_the_next_client_and_that_not_for_long() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    let socket = socket(&bed);
    let mut stalled = Vec::new();
    for text in ["", "G", "GET /status HTTP/1.1\r\nhost:", ""] {
        stalled.push(send(&socket, text).await);
        stalled.push(send(&socket, text).await);
    }
    // All eight places are taken. The next one is answered when one of them has been cut off.
    let next = tokio::spawn({
        let socket = socket.clone();
        async move { ask(&socket, STATUS).await }
    });
    save(&bed, &mut watch, 1..6).await;
    assert!(next.await.unwrap().starts_with("HTTP/1.1 200 "));
    for stream in stalled {
        let answer = rest(stream).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    watch.stop().await;
}

#[tokio::test]
async fn a_thousand_clients_and_fifty_at_once_delay_no_save() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    let socket = socket(&bed);
    let one_by_one = async |socket: PathBuf| {
        for _ in 0..1_000 {
            let answer = ask(&socket, STATUS).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    };
    tokio::join!(one_by_one(socket.clone()), save(&bed, &mut watch, 1..10));
    let mut crowd = JoinSet::new();
    for _ in 0..50 {
        let socket = socket.clone();
        crowd.spawn(async move { ask(&socket, STATUS).await });
    }
    save(&bed, &mut watch, 10..13).await;
    for answer in crowd.join_all().await {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    // And a thousand that go without a word.
    for _ in 0..1_000 {
        drop(send(&socket, "").await);
    }
    save(&bed, &mut watch, 13..15).await;
    assert_eq!(bed.status().await.0, Some(0));
    watch.stop().await;
}

#[tokio::test]
async fn syncs_beyond_the_bound_are_refused_and_leave_room_for_others() {
    let bed = Bed::new(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let socket = socket(&bed);
    bed.fault("UploadRoutineCode:1:delay(60000)");
    bed.write("hello", &code("hello", 1));
    bed.until_asked("UploadRoutineCode", 2).await;
    let mut waiting = Vec::new();
    for _ in 0..er_dev::report::question::MAX_SYNCS {
        waiting.push(send(&socket, SYNC).await);
        // Told in the order of coming, so that the sync is in when this is answered.
        ask(&socket, STATUS).await;
    }
    let refused = ask(&socket, SYNC).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let ended = bed.run(&["sync"]).await;
    assert_eq!(ended.code, Some(75));
    assert!(
        ended.stdout.contains("6 syncs are being waited for"),
        "{}",
        ended.stdout
    );
    assert_eq!(bed.status().await.0, Some(0));
    watch.signal(Signal::TERM);
    for stream in waiting {
        let answer = rest(stream).await;
        assert!(answer.contains("this er-dev is stopping"), "{answer}");
    }
    watch.kill().await;
}

#[tokio::test]
async fn whoever_stalls_or_floods_the_address_of_the_page_holds_up_neither_saves_nor_the_socket() {
    let bed = Bed::with(&["hello"], Default::default(), LISTEN).await;
    let mut watch = bed.watch(&[]).await;
    let (socket, address) = (socket(&bed), address(&watch));
    let mut stalled = Vec::new();
    for text in ["", "G", "GET /events HTTP/1.1\r\nhost:", ""] {
        stalled.push(send_to(address, text).await);
        stalled.push(send_to(address, text).await);
    }
    let answer = ask(&socket, STATUS).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    save(&bed, &mut watch, 1..4).await;
    for stream in stalled {
        assert!(!rest(stream).await.contains("200"));
    }
    // Those who listen and never read, and a crowd beside them.
    let mut deaf = Vec::new();
    for _ in 0..2 * er_dev::control::feed::MAX_LISTENERS {
        deaf.push(send_to(address, &request(address, "GET", "/events", &[])).await);
    }
    let mut crowd = JoinSet::new();
    for path in [
        "/metrics",
        "/status",
        "/versions",
        "/traffic",
        "/healthz",
        "/",
        "/nothing",
    ] {
        for _ in 0..30 {
            crowd.spawn(get(address, path));
        }
    }
    save(&bed, &mut watch, 4..16).await;
    for answer in crowd.join_all().await {
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    }
    for _ in 0..1_000 {
        drop(send_to(address, "").await);
    }
    let large = format!("x-large: {}", "x".repeat(1 << 20));
    let answer = rest(send_to(address, &request(address, "GET", "/status", &[&large])).await).await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    save(&bed, &mut watch, 16..18).await;
    assert_eq!(bed.status().await.0, Some(0));
    let (exit, _) = watch.stop().await;
    assert_eq!(exit, Some(0));
}
