//! The emulator over real sockets, called by a client that is written here and nowhere else.

mod faults;
mod signed;
mod switches;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Client;
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use sha1::Sha1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::gateway::{KEY_ID, KEY_SECRET};
use super::history::{Decision, POST_OBJECT, busiest_second};
use super::world::Slot;
use super::*;

fn hello() -> RoutineName {
    RoutineName::new("hello").unwrap()
}

async fn emulator(slot: Slot) -> Emulator {
    let options = Options {
        routines: vec![hello()],
        settings: Settings {
            slot,
            ..Settings::default()
        },
        ..Options::default()
    };
    Emulator::start(options).await.unwrap()
}

fn client() -> Client {
    // Another test may have installed it already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Query or body of a signed call. Two calls never share a nonce, as the nonce is the next of a counter.
fn signed(method: &str, action: &str, parameters: &[(&str, &str)]) -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let nonce = NEXT
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        .to_string();
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let mut all = vec![
        ("Action", action),
        ("Version", "2018-01-15"),
        ("Format", "JSON"),
        ("AccessKeyId", KEY_ID),
        ("SignatureNonce", &nonce),
        ("Timestamp", &now),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureVersion", "1.0"),
    ];
    all.extend_from_slice(parameters);
    all.sort_unstable();
    let pairs: Vec<String> = all
        .iter()
        .map(|(k, v)| format!("{}={}", escape(k), escape(v)))
        .collect();
    let query = pairs.join("&");
    let mut mac = Hmac::<Sha1>::new_from_slice(format!("{KEY_SECRET}&").as_bytes()).unwrap();
    mac.update(format!("{method}&%2F&{}", escape(&query)).as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    format!("{query}&Signature={}", escape(&signature))
}

async fn call(
    client: &Client,
    emulator: &Emulator,
    action: &str,
    parameters: &[(&str, &str)],
) -> Value {
    let reply = client
        .post(format!("{}/", emulator.endpoint()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(signed("POST", action, parameters))
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
    reply.json::<Value>().await.unwrap()["Content"].take()
}

/// Asks for a form and gives its address and its fields.
async fn begin(
    client: &Client,
    emulator: &Emulator,
    description: &str,
) -> (String, String, Vec<(String, String)>) {
    let parameters = [("Name", "hello"), ("CodeDescription", description)];
    let content = call(client, emulator, "UploadRoutineCode", &parameters).await;
    let revision = content["CodeRevision"].as_str().unwrap().to_owned();
    let form = content["OssPostConfig"].as_object().unwrap();
    let url = form["Url"].as_str().unwrap().to_owned();
    let fields = form.iter().filter(|(name, _)| *name != "Url");
    let fields = fields.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
    (revision, url, fields.collect())
}

fn file(bytes: &[u8]) -> Part {
    Part::bytes(bytes.to_vec())
        .file_name("code.js")
        .mime_str("application/javascript")
        .unwrap()
}

fn form_of(fields: Vec<(String, String)>) -> Form {
    fields
        .into_iter()
        .fold(Form::new(), |form, (name, value)| form.text(name, value))
}

#[tokio::test]
async fn an_upload_over_the_whole_dance_is_listed_with_its_very_bytes() {
    for slot in [Slot::AtUpload, Slot::AtCallback] {
        let emulator = emulator(slot).await;
        let client = client();
        let mut bytes: Vec<u8> = (0..=u8::MAX).cycle().take(4_194_302).collect();
        bytes.extend(b"\r\n");

        let (revision, url, fields) = begin(&client, &emulator, "dev *~ a+b/c=d & 版本").await;
        let form = form_of(fields).part("file", file(&bytes));
        let reply = client.post(url).multipart(form).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.json::<Value>().await.unwrap()["code"], 200);

        let content = call(&client, &emulator, "DescribeRoutine", &[("Name", "hello")]).await;
        let listed = content["CodeRevs"].as_array().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0]["CodeRevision"], revision.as_str());
        let description = STANDARD
            .decode(listed[0]["CodeDescription"].as_str().unwrap())
            .unwrap();
        assert_eq!(description, "\"dev *~ a+b/c=d & 版本\"".as_bytes());
        let chosen = [("Name", "hello"), ("SelectCodeRevision", revision.as_str())];
        let content = call(&client, &emulator, "DescribeRoutineCodeRevision", &chosen).await;
        assert!(
            STANDARD
                .decode(content["ErCode"].as_str().unwrap())
                .unwrap()
                == bytes
        );

        let history = emulator.history();
        let ops: Vec<&str> = history.iter().map(|record| record.op).collect();
        let expected = [
            "UploadRoutineCode",
            POST_OBJECT,
            "DescribeRoutine",
            "DescribeRoutineCodeRevision",
        ];
        assert_eq!(ops, expected);
        assert!(history.iter().all(|record| record.decision == Decision::Ok));
        assert!(history.windows(2).all(|pair| pair[0].t < pair[1].t));
        assert!((1..=3).contains(&busiest_second(&history)));
        emulator.stop().await;
    }
}

#[tokio::test]
async fn fields_after_the_file_are_not_seen() {
    let emulator = emulator(Slot::AtUpload).await;
    let client = client();
    let (_, url, mut fields) = begin(&client, &emulator, "d").await;
    let at = fields.iter().position(|(name, _)| name == "key").unwrap();
    let (_, key) = fields.remove(at);
    let form = form_of(fields).part("file", file(b"code")).text("key", key);
    let reply = client.post(url).multipart(form).send().await.unwrap();
    assert_eq!(reply.status(), 400);
    assert!(
        reply
            .text()
            .await
            .unwrap()
            .contains("<Code>InvalidArgument</Code>")
    );
    emulator.stop().await;
}

#[tokio::test]
async fn a_post_that_is_no_form_or_too_long_is_refused_in_the_storages_words() {
    let emulator = emulator(Slot::AtUpload).await;
    let client = client();
    let url = format!("{}/oss", emulator.endpoint());
    let ask = |kind: &str, body: Vec<u8>| {
        client
            .post(&url)
            .header("content-type", kind)
            .body(body)
            .send()
    };
    let multipart = "multipart/form-data; boundary=b";
    let head = "--b\r\nContent-Disposition: form-data; name=";
    let long = format!(
        "{head}\"x\"\r\n\r\n{}\r\n--b--\r\n",
        "y".repeat((2 << 20) + 1)
    );
    let cut = format!("{head}\"file\"\r\n\r\nno end");
    for (kind, body, code) in [
        ("text/plain", "x".into(), "RequestIsNotMultiPartContent"),
        (multipart, cut, "MalformedPOSTRequest"),
        (multipart, long, "FieldItemTooLong"),
        (multipart, "no parts".into(), "MalformedPOSTRequest"),
    ] {
        let reply = ask(kind, body.into_bytes()).await.unwrap();
        assert_eq!(reply.status(), 400, "{code}");
        let text = reply.text().await.unwrap();
        assert!(text.contains(&format!("<Code>{code}</Code>")), "{text}");
    }
    emulator.stop().await;
}

/// Sends a head, and no body, and gives the first words of the answer.
async fn answer_to(emulator: &Emulator, head: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(emulator.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut words = vec![0; 4096];
    let length = stream.read(&mut words).await.unwrap();
    words.truncate(length);
    (stream, String::from_utf8(words).unwrap())
}

#[tokio::test]
async fn a_form_without_its_length_or_beyond_all_bounds_is_refused_unread() {
    let emulator = emulator(Slot::AtUpload).await;
    let head = "POST /oss HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n";
    let (_, answer) = answer_to(
        &emulator,
        &format!("{head}Transfer-Encoding: chunked\r\n\r\n"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    assert!(
        answer.contains("<Code>MissingContentLength</Code>"),
        "{answer}"
    );
    let (_, answer) = answer_to(
        &emulator,
        &format!("{head}Content-Length: 99999999\r\n\r\n"),
    )
    .await;
    assert!(answer.contains("<Code>EntityTooLarge</Code>"), "{answer}");
    let history = emulator.history();
    let statuses: Vec<u16> = history.iter().map(|record| record.status).collect();
    assert_eq!(statuses, [411, 400]);
    emulator.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_body_that_never_ends() {
    let emulator = emulator(Slot::AtUpload).await;
    // The server asks for the body once it starts to read it, so the request is known to be in its hands.
    let head =
        "POST /oss HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    let (_stream, answer) = answer_to(&emulator, head).await;
    assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
    tokio::time::timeout(STOP_GRACE * 3 / 4, emulator.stop())
        .await
        .unwrap();
}

#[tokio::test]
async fn whoever_waits_sees_a_request_and_a_deed_of_somebody_else() {
    let emulator = emulator(Slot::AtUpload).await;
    let client = client();
    let versions = |count: usize| {
        let holds = move |world: &World| world.routine(&hello()).unwrap().versions().len() == count;
        tokio::time::timeout(Duration::from_secs(20), emulator.wait_until(holds))
    };
    let (seen, _) = tokio::join!(versions(1), begin(&client, &emulator, "d"));
    seen.unwrap();
    let made = jiff::Timestamp::now();
    let seeding =
        async { emulator.with_world(|world| world.seed(&hello(), Some(b"x"), "other", made)) };
    let (seen, seeded) = tokio::join!(versions(2), seeding);
    seen.unwrap();
    seeded.unwrap();
    versions(2).await.unwrap();
    emulator.stop().await;
}

#[tokio::test]
async fn the_history_file_has_a_line_for_each_request_before_its_reply_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl");
    let options = Options {
        routines: vec![hello(), hello()],
        history: Some(path.clone()),
        ..Options::default()
    };
    let emulator = Emulator::start(options).await.unwrap();
    let client = client();
    begin(&client, &emulator, "d").await;
    client
        .post(format!("{}/", emulator.endpoint()))
        .send()
        .await
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let expected: Vec<Value> = emulator
        .history()
        .iter()
        .map(|record| serde_json::to_value(record).unwrap())
        .collect();
    assert_eq!(lines, expected);
    assert_eq!(lines[1]["decision"], "refused");
    emulator.stop().await;
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let options = Options {
            listen: address.parse().unwrap(),
            ..Options::default()
        };
        let error = Emulator::start(options).await.err().unwrap();
        assert!(matches!(error, StartError::NotLoopback(_)), "{error}");
        assert!(error.to_string().contains("loopback"));
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_a_way_out() {
    let first = emulator(Slot::AtUpload).await;
    let options = Options {
        listen: first.address(),
        ..Options::default()
    };
    let error = Emulator::start(options).await.err().unwrap().to_string();
    assert!(error.contains(&first.address().to_string()), "{error}");
    first.stop().await;
}
