//! Lines and servers that are broken as a whole: slow, dead, or made by somebody who lies. Nothing hangs, and what can
//! get through does. Secure connections and proxies are in `tls`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::net::{Proxy, Way, server};
use crate::common::{Bed, code};
use er_dev::emulator::history::POST_OBJECT;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::unbounded_channel;

#[tokio::test]
async fn b09_an_answer_that_drips_is_given_up_when_its_time_is_over() {
    // Within a header that does not end, and within the body.
    let heads = [
        "HTTP/1.1 200 OK\r\nX: ",
        "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    ];
    crate::common::each(heads, async |head| {
        let (given_up, mut waits) = unbounded_channel();
        let (address, _) = server(move |mut stream| {
            let given_up = given_up.clone();
            async move {
                let begun = Instant::now();
                // What comes before the request would be refused at once.
                let _ = stream.read(&mut [0; 8192]).await;
                let _ = stream.write_all(head.as_bytes()).await;
                let (mut from, mut to) = stream.split();
                let drip = async {
                    while to.write_all(b"x").await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                let mut rest = Vec::new();
                tokio::select! {
                    () = drip => {}
                    _ = from.read_to_end(&mut rest) => {}
                }
                let _ = given_up.send(begun.elapsed());
            }
        })
        .await;
        let bed = Bed::new(&["hello"]).await;
        bed.configure(&format!("http://{address}"), "");
        let ended = bed
            .run(&["push", "--timeout", "3s", "--api-timeout", "1s"])
            .await;
        assert_eq!(ended.code, Some(69), "{}{}", ended.stdout, ended.stderr);
        let what = ended.of("error")[0]["problem"]["what"].clone();
        assert!(
            what.as_str().unwrap().contains("no answer in time"),
            "{what}"
        );
        // A slow machine may see one of them late, but not each; the last one ends with the program.
        let waits: Vec<Duration> = std::iter::from_fn(|| waits.try_recv().ok()).collect();
        let in_time = Duration::from_millis(800)..=Duration::from_millis(1500);
        assert!(
            waits.iter().any(|wait| in_time.contains(wait)),
            "{head:?}: {waits:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn b10_a_slow_line_is_given_time_for_a_large_file() {
    let bed = Bed::new(&["hello"]).await;
    let proxy = Proxy::start(&bed, Way::Slow(64 * 1024)).await;
    bed.configure(&format!("http://{}", proxy.address), "");
    let large = format!("// {}\n", "x".repeat(200 * 1024));
    bed.write("hello", &large);
    let ended = bed.push().await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(bed.codes("hello"), [large.into_bytes()]);
    let history = bed.history();
    let posts: Vec<_> = history.iter().filter(|r| r.op == POST_OBJECT).collect();
    assert_eq!(posts.len(), 1, "the first try had time enough");
    let took = Duration::from_nanos(posts[0].ended - posts[0].t);
    assert!(took > Duration::from_secs(2), "{took:?}: it was not slow");
}

#[tokio::test]
async fn b20_a_server_that_lies_about_its_answer_holds_nobody_up() {
    const HEADER: usize = 1 << 20;
    // So slowly that a build without optimisation keeps up, or nothing else would have its turn.
    const PACE: Duration = Duration::from_millis(2);
    let forever = usize::MAX;
    let servers = [
        (
            "too short",
            "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{}".to_owned(),
            1,
        ),
        (
            "too long",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{}{}{}".to_owned(),
            1,
        ),
        (
            "no number",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}".to_owned(),
            1,
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}".to_owned(),
            1,
        ),
        (
            "largest length",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{{}}",
                u64::MAX
            ),
            1,
        ),
        (
            "bad chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            1,
        ),
        (
            "endless 102",
            "HTTP/1.1 102 Processing\r\n\r\n".repeat(100),
            forever,
        ),
        (
            "endless head",
            "HTTP/1.1 200 OK\r\nX: ".to_owned() + &"x".repeat(HEADER),
            forever,
        ),
        (
            "a MiB of header",
            format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(HEADER)),
            1,
        ),
        ("silence", String::new(), 0),
    ];
    crate::common::each(servers, async |(what, part, times)| {
        let (ends, mut ended) = unbounded_channel();
        let part: Arc<str> = part.into();
        let (address, _) = server(move |mut stream| {
            let (part, ends) = (Arc::clone(&part), ends.clone());
            async move {
                let begun = Instant::now();
                let _ = stream.read(&mut [0; 8192]).await;
                for _ in 0..times {
                    if stream.write_all(part.as_bytes()).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(PACE).await;
                }
                // The connection stays open until the client has had enough.
                let _ = stream.read_to_end(&mut Vec::new()).await;
                let _ = ends.send(begun.elapsed());
            }
        })
        .await;
        let bed = Bed::new(&["hello"]).await;
        bed.configure(&format!("http://{address}"), "");
        let done = bed
            .run(&["push", "--timeout", "2s", "--api-timeout", "500ms"])
            .await;
        assert_eq!(
            done.code,
            Some(69),
            "{what}: {}{}",
            done.stdout,
            done.stderr
        );
        let times: Vec<Duration> = std::iter::from_fn(|| ended.try_recv().ok()).collect();
        let shortest = times.iter().min().unwrap();
        assert!(*shortest < Duration::from_secs(1), "{what}: {times:?}");
    })
    .await;
}

#[tokio::test]
async fn b21_connections_that_are_dead_cost_one_try_however_many_they_are() {
    const TIMES: &[&str] = &[
        "--api-timeout",
        "2s",
        "--post-timeout",
        "2s",
        "--settle-margin",
        "300ms",
    ];
    let bed = Bed::new(&["hello", "r1", "r2", "r3"]).await;
    let proxy = Proxy::start(&bed, Way::Freezing).await;
    bed.configure(&format!("http://{}", proxy.address), "");
    // All are under way at once, so that several connections are left.
    bed.fault("*:*:delay(150)");
    let mut watch = bed.watch(TIMES).await;
    bed.emulator.clear_faults();
    let dead = proxy.connections();
    assert!(dead >= 3, "{dead} connections");
    watch.forget();
    proxy.freeze();
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    let troubles = watch
        .seen()
        .filter(|event| matches!(event["event"].as_str(), Some("retrying" | "offline")));
    assert_eq!(troubles.count(), 1);
    assert!(proxy.connections() > dead);
    watch.stop().await;
    assert_eq!(bed.versions("hello").len(), 2);
}

#[tokio::test]
async fn c01_a_pause_that_was_asked_for_in_either_unit_is_kept() {
    let cases = [("x-acs-retry-after: 700", 700), ("Retry-After: 1", 1_000)];
    crate::common::each(cases, async |(header, millis)| {
        let (seen, mut asked) = unbounded_channel();
        let body = "{\"RequestId\":\"R\",\"Code\":\"Throttling.User\",\"Message\":\"slow down\"}";
        let headers = format!("{header}\r\n");
        let answer = crate::common::net::response("400 Bad Request", &headers, body);
        let (address, _) = server(move |mut stream| {
            let (seen, answer) = (seen.clone(), answer.clone());
            async move {
                let _ = seen.send(Instant::now());
                let _ = stream.read(&mut [0; 8192]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let bed = Bed::new(&["hello"]).await;
        bed.configure(&format!("http://{address}"), "");
        let ended = bed.run(&["push", "--timeout", "4s"]).await;
        assert_eq!(ended.code, Some(75), "{}{}", ended.stdout, ended.stderr);
        let first = asked.try_recv().unwrap();
        let pause = asked.try_recv().unwrap() - first;
        let least = Duration::from_millis(millis);
        assert!(
            pause >= least && pause < least + Duration::from_secs(3),
            "{header}: {pause:?}"
        );
    })
    .await;
}
