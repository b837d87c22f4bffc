//! The address of the page: who is answered there, and what is said.

use rustix::process::Signal;
use tokio::net::TcpListener;

use super::{LISTEN, address, ask, get, request, rest, send_to, socket};
use crate::common::{Bed, QUICK, code};

async fn bed(names: &[&str]) -> Bed {
    Bed::with(names, Default::default(), LISTEN).await
}

/// The value of a sample in the text of `/metrics`.
#[track_caller]
fn sample(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn everything_that_the_socket_answers_is_answered_there_to_this_machine() {
    let bed = bed(&["hello"]).await;
    let mut watch = bed.watch(&[]).await;
    let address = address(&watch);
    for (path, part) in [
        ("/status", r#""routine":"hello","state":"ok""#),
        ("/versions", r#""revision":""#),
        ("/traffic", r#""seconds":["#),
        ("/healthz", "\r\n\r\nok\n"),
        ("/metrics", "# TYPE er_dev_edits_total counter"),
        ("/", "<title>er-dev</title>"),
    ] {
        let there = get(address, path).await;
        assert!(there.starts_with("HTTP/1.1 200 "), "{there}");
        assert!(there.contains(part), "{there}");
        let text = format!("GET {path} HTTP/1.1\r\nhost: er-dev\r\n\r\n");
        let at_socket = ask(&socket(&bed), &text).await;
        assert!(at_socket.contains(part), "{at_socket}");
    }
    let page = get(address, "/").await;
    assert!(
        page.contains("content-security-policy: default-src 'none'; "),
        "{page}"
    );
    for (path, event) in [("/pause", "paused"), ("/resume", "continued")] {
        let order = request(address, "POST", path, &["x-er-dev: 1", "content-length: 0"]);
        let answer = rest(send_to(address, &order).await).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        watch.until(event).await;
    }
    watch.stop().await;
}

#[tokio::test]
async fn other_pages_and_names_that_lead_here_are_refused() {
    let bed = bed(&["hello"]).await;
    let watch = bed.watch(&[]).await;
    let address = address(&watch);
    let port = address.port();
    let order = "x-er-dev: 1";
    for (request, why) in [
        (
            format!("GET /status HTTP/1.1\r\nhost: rebound.example:{port}\r\n\r\n"),
            "Host header",
        ),
        ("GET /status HTTP/1.0\r\n\r\n".to_owned(), "Host header"),
        (
            request(address, "GET", "/events", &["sec-fetch-site: cross-site"]),
            "another page",
        ),
        (
            request(
                address,
                "GET",
                "/status",
                &["origin: http://rebound.example"],
            ),
            "another page",
        ),
        (
            request(
                address,
                "POST",
                "/pause",
                &[order, "origin: http://rebound.example"],
            ),
            "another page",
        ),
        (
            request(
                address,
                "POST",
                "/pause",
                &[order, "sec-fetch-site: same-site"],
            ),
            "another page",
        ),
        (
            request(address, "POST", "/pause", &["content-type: text/plain"]),
            "x-er-dev",
        ),
        (request(address, "POST", "/flush", &[]), "x-er-dev"),
    ] {
        let answer = rest(send_to(address, &request).await).await;
        assert!(
            answer.starts_with("HTTP/1.1 403 ") || answer.starts_with("HTTP/1.0 403 "),
            "{request}{answer}"
        );
        assert!(answer.contains(why), "{request}{answer}");
        assert!(!answer.contains("access-control-"), "{answer}");
    }
    let (_, done) = watch.stop().await;
    assert_eq!(done["uploaded"], 1);
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_once_and_stops_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let more = format!("[daemon]\nlisten = \"127.0.0.1:{port}\"\n");
    let bed = Bed::with(&["hello"], Default::default(), &more).await;
    let mut watch = bed.watch(&[]).await;
    let warnings: Vec<_> = watch.seen().filter(|it| it["event"] == "warning").collect();
    assert_eq!(warnings.len(), 1);
    let what = warnings[0]["problem"]["what"].as_str().unwrap();
    assert!(what.contains(&format!("127.0.0.1:{port}")), "{what}");
    assert!(watch.seen().all(|it| it["event"] != "serving"));
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    bed.sync().await;
    watch.stop().await;
}

#[tokio::test]
async fn metrics_tell_what_happened_in_numbers() {
    let bed = bed(&["hello", "other"]).await;
    let mut watch = bed.watch(&[]).await;
    bed.write("hello", &code("hello", 1));
    watch.end_of_edit().await;
    bed.write("other", "let a = ;\n");
    watch.end_of_edit().await;
    bed.fault("oss:1:status(500)");
    bed.write("hello", &code("hello", 2));
    watch.until("uploaded").await;
    bed.run(&["sync"]).await;
    let answer = get(address(&watch), "/metrics").await;
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{answer}"
    );
    let (_, metrics) = answer.split_once("\r\n\r\n").unwrap();
    for (name, value) in [
        ("er_dev_edits_total{end=\"uploaded\"}", 4.0),
        ("er_dev_edits_total{end=\"failed\"}", 1.0),
        ("er_dev_upload_duration_seconds_count", 4.0),
        ("er_dev_upload_duration_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("er_dev_errors_total{class=\"source\"}", 1.0),
        ("er_dev_api_limit_requests_per_second", 80.0),
        ("er_dev_slots_used{routine=\"hello\"}", 3.0),
        ("er_dev_slots_cap{routine=\"hello\"}", 10.0),
        (
            "er_dev_routine_state{routine=\"other\",state=\"refused\"}",
            1.0,
        ),
        ("er_dev_routine_state{routine=\"hello\",state=\"ok\"}", 1.0),
        ("er_dev_queue_edits{state=\"running\"}", 0.0),
        ("er_dev_condition{condition=\"offline\"}", 0.0),
        (
            "er_dev_api_requests_total{operation=\"PostObject\",outcome=\"refused\"}",
            1.0,
        ),
    ] {
        assert_eq!(sample(metrics, name), value, "{name}\n{metrics}");
    }
    // What was measured is what the service saw.
    for operation in ["UploadRoutineCode", "PostObject"] {
        let name =
            format!("er_dev_api_request_duration_seconds_count{{operation=\"{operation}\"}}");
        assert_eq!(
            sample(metrics, &name),
            bed.asked(operation) as f64,
            "{metrics}"
        );
    }
    let sum = sample(metrics, "er_dev_upload_duration_seconds_sum");
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
    let start = sample(metrics, "process_start_time_seconds");
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!((now - start).abs() < 120.0, "{start} {now}");
    watch.stop().await;
}

#[tokio::test]
async fn health_says_why_work_cannot_go_on_and_is_well_with_a_broken_file_or_a_pause() {
    let bed = bed(&["hello"]).await;
    let mut watch = bed.watch(QUICK).await;
    let address = address(&watch);
    bed.write("hello", "let a = ;\n");
    watch.until("error").await;
    let pause = request(address, "POST", "/pause", &["x-er-dev: 1"]);
    rest(send_to(address, &pause).await).await;
    assert!(get(address, "/healthz").await.ends_with("\r\n\r\nok\n"));
    let resume = request(address, "POST", "/resume", &["x-er-dev: 1"]);
    rest(send_to(address, &resume).await).await;
    bed.fault("api:*:portal");
    bed.write("hello", &code("hello", 1));
    watch.until("offline").await;
    let answer = get(address, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\n\r\noffline: "), "{answer}");
    bed.emulator.clear_faults();
    let flush = request(address, "POST", "/flush", &["x-er-dev: 1"]);
    rest(send_to(address, &flush).await).await;
    watch.until("uploaded").await;
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
    watch.signal(Signal::TERM);
    watch.exit().await;
}
