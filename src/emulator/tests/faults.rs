//! What each fault puts on the wire, and what of it the service carries out.

use std::process::Stdio;
use std::time::Instant;

use tokio::process::Command;

use super::*;

/// How long anything may take before a test calls it a hang.
const LIMIT: Duration = Duration::from_secs(30);

/// Sends a request on a connection of its own and gives all that comes back until its end.
async fn exchange(emulator: &Emulator, request: Vec<u8>) -> io::Result<Vec<u8>> {
    let talk = async {
        let mut stream = TcpStream::connect(emulator.address()).await?;
        stream.write_all(&request).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(LIMIT, talk).await.expect("a hang")
}

fn head(path: &str, kind: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    )
}

fn upload_call() -> Vec<u8> {
    let body = signed(
        "POST",
        "UploadRoutineCode",
        &[("Name", "hello"), ("CodeDescription", "d")],
    );
    let head = head("/", "application/x-www-form-urlencoded", body.len());
    (head + &body).into_bytes()
}

/// A post of the form that an undisturbed upload gives.
async fn form_post(emulator: &Emulator) -> Vec<u8> {
    let (_, _, fields) = begin(&client(), emulator, "d").await;
    let mut body = String::new();
    for (name, value) in fields
        .iter()
        .chain([&("file".to_owned(), "let a;".to_owned())])
    {
        let _ = write!(
            body,
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
    }
    body.push_str("--b--\r\n");
    let head = head("/oss", "multipart/form-data; boundary=b", body.len());
    (head + &body).into_bytes()
}

fn last(emulator: &Emulator) -> Record {
    emulator.history().pop().unwrap()
}

fn versions(world: &World) -> usize {
    world.routine(&hello()).unwrap().versions().len()
}

fn has_code(world: &World) -> bool {
    let routine = world.routine(&hello()).unwrap();
    routine.versions().iter().any(|v| v.code.is_some())
}

/// Head and body of an answer, the body as text where it is some.
fn split(answer: &[u8]) -> (String, String) {
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&answer[..at]), text(&answer[at + 4..]))
}

#[tokio::test]
async fn an_action_that_carries_nothing_out_says_its_own_and_changes_nothing() {
    for (action, status, head, body) in [
        ("drop_before", 0, "", ""),
        ("status(502)", 502, "text/html", "<h1>502</h1>"),
        ("status(204)", 204, "HTTP/1.1 204 ", ""),
        ("answer()", 200, "content-length: 0", ""),
        (
            "answer({\"a\": [1]})",
            200,
            "application/json",
            "{\"a\": [1]}",
        ),
        (
            "redirect(307,http://127.0.0.1:9/else)",
            307,
            "location: http://127.0.0.1:9/else",
            "",
        ),
        ("portal", 200, "text/html", "sign in"),
        (
            "code(Throttling.User,slow, please)",
            400,
            "x-acs-request-id",
            "\"Message\":\"slow, please\"",
        ),
        (
            "code(ServiceUnavailable,words,503)",
            503,
            "HTTP/1.1 503 ",
            "\"Code\":\"ServiceUnavailable\"",
        ),
    ] {
        let emulator = emulator(Slot::AtUpload).await;
        emulator.fault(&format!("api:1:{action}")).unwrap();
        let answer = exchange(&emulator, upload_call()).await.unwrap();
        let record = last(&emulator);
        assert_eq!(record.fault.as_deref(), Some(action));
        assert_eq!(
            (record.decision, record.processed),
            (Decision::Fault, false)
        );
        assert_eq!((record.status, record.op), (status, "UploadRoutineCode"));
        assert!(record.nonce.is_some(), "{action}");
        assert_eq!(emulator.with_world(|world| versions(world)), 0, "{action}");
        if status == 0 {
            assert!(answer.is_empty(), "{action}");
            continue;
        }
        let (given_head, given_body) = split(&answer);
        assert!(
            given_head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{given_head}"
        );
        assert!(given_head.contains(head), "{action}: {given_head}");
        assert!(given_body.contains(body), "{action}: {given_body}");
        // The next request is served as ever.
        begin(&client(), &emulator, "d").await;
        emulator.stop().await;
    }
}

#[tokio::test]
async fn an_action_that_carries_the_request_out_spoils_only_its_answer() {
    type Right = fn(&str, &str) -> bool;
    let actions: [(&str, u16, Right); 11] = [
        ("drop_after", 0, |head, _| head.is_empty()),
        ("delay(1)", 200, |_, body| body.contains("OssPostConfig")),
        ("truncate", 200, |head, body| {
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            body.len() == length / 2 && body.starts_with('{')
        }),
        ("garbage", 200, |_, body| {
            serde_json::from_str::<Value>(body).is_err() && body.len() > 100
        }),
        ("deep_json", 200, |_, body| {
            body.len() == 200_000 && body.starts_with("[[[") && body.ends_with("]]]")
        }),
        ("huge", 200, |head, body| {
            head.contains("content-length: 67108864") && body.len() == 67_108_864
        }),
        ("gzip_bomb", 200, |head, body| {
            head.contains("content-encoding: gzip") && body.len() < 100
        }),
        ("xml_for_json", 200, |head, body| {
            head.contains("text/xml") && body.contains("<UploadRoutineCodeResponse><Content>")
        }),
        ("wrong_content_type", 200, |head, body| {
            head.contains("text/html") && serde_json::from_str::<Value>(body).is_ok()
        }),
        ("date_skew(-315360000)", 200, |head, body| {
            let year = jiff::Timestamp::now().strftime("%Y").to_string();
            !head.contains(&year) && body.contains("OssPostConfig")
        }),
        ("date_skew(0)", 200, |head, _| {
            let year = jiff::Timestamp::now().strftime("%Y").to_string();
            head.contains(&format!(" {year} ")) && head.contains(" GMT")
        }),
    ];
    for (action, status, right) in actions {
        let emulator = emulator(Slot::AtUpload).await;
        emulator
            .fault(&format!("UploadRoutineCode:1:{action}"))
            .unwrap();
        let answer = exchange(&emulator, upload_call()).await.unwrap();
        let record = last(&emulator);
        assert_eq!(record.fault.as_deref(), Some(action));
        assert_eq!((record.decision, record.processed), (Decision::Fault, true));
        assert_eq!((record.status, record.slots), (status, Some(1)), "{action}");
        assert_eq!(emulator.with_world(|world| versions(world)), 1, "{action}");
        let (head, body) = if status == 0 {
            (String::from_utf8(answer).unwrap(), String::new())
        } else {
            split(&answer)
        };
        assert!(right(&head, &body), "{action}: {head}\n{body:.200}");
        emulator.stop().await;
    }
}

#[tokio::test]
async fn the_storage_has_faults_of_its_own_and_says_them_in_xml() {
    for (action, status, words, registered) in [
        ("status(203)", 203, "<Code>CallbackFailed</Code>", false),
        ("status(500)", 500, "<h1>500</h1>", false),
        (
            "code(RequestTimeTooSkewed,off)",
            403,
            "<Message>off</Message>",
            false,
        ),
        ("unregistered", 200, "\"code\":200", false),
        ("callback_lost", 203, "<Code>CallbackFailed</Code>", true),
        ("xml_for_json", 200, "<code>200</code>", true),
        ("drop_after", 0, "", true),
        ("drop_before", 0, "", false),
        ("answer({\"code\":500})", 200, "{\"code\":500}", false),
    ] {
        for slot in [Slot::AtUpload, Slot::AtCallback] {
            let emulator = emulator(slot).await;
            emulator.fault(&format!("oss:1:{action}")).unwrap();
            let post = form_post(&emulator).await;
            let answer = exchange(&emulator, post).await.unwrap();
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.contains(words), "{action}: {answer}");
            let record = last(&emulator);
            assert_eq!(
                (record.op, record.status),
                (POST_OBJECT, status),
                "{action}"
            );
            assert_eq!(record.processed, registered, "{action}");
            assert!(record.sha256.is_some() && record.revision.is_some());
            assert_eq!(emulator.with_world(|world| has_code(world)), registered);
            emulator.stop().await;
        }
    }
}

#[tokio::test]
async fn a_reset_comes_in_the_middle_of_the_body_and_stores_nothing() {
    let emulator = emulator(Slot::AtUpload).await;
    for bytes in ["0", "1", "1000000"] {
        emulator.clear_faults();
        emulator
            .fault(&format!("*:*:rst_mid_body({bytes})"))
            .unwrap();
        let call = exchange(&emulator, upload_call()).await;
        assert_eq!(call.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        emulator.clear_faults();
        let post = form_post(&emulator).await;
        emulator
            .fault(&format!("oss:1:rst_mid_body({bytes})"))
            .unwrap();
        let posted = exchange(&emulator, post).await;
        assert_eq!(posted.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(!last(&emulator).processed);
    }
    // The body need not end: it is cut off before.
    emulator.fault("oss:1:rst_mid_body(10)").unwrap();
    let endless = head("/oss", "multipart/form-data; boundary=b", 5_000_000) + &"x".repeat(5_000);
    let error = exchange(&emulator, endless.into_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(!emulator.with_world(|world| has_code(world)));
    emulator.stop().await;
}

#[tokio::test]
async fn a_dripping_answer_begins_does_not_end_and_does_not_hold_up_a_stop() {
    let emulator = emulator(Slot::AtUpload).await;
    emulator.fault("api:*:drip").unwrap();
    let mut stream = TcpStream::connect(emulator.address()).await.unwrap();
    stream.write_all(&upload_call()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n  ") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let (head, _) = split(&answer);
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(last(&emulator).processed);
    tokio::time::timeout(STOP_GRACE * 3 / 4, emulator.stop())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_delayed_request_is_carried_out_at_once_and_its_record_says_when_the_answer_is_due() {
    let emulator = emulator(Slot::AtUpload).await;
    emulator.fault("api:1:delay(300)").unwrap();
    let begun = Instant::now();
    let carried_out = async {
        emulator.wait_until(|world| versions(world) == 1).await;
        begun.elapsed()
    };
    let (answer, carried_out) = tokio::join!(exchange(&emulator, upload_call()), carried_out);
    let answered = begun.elapsed();
    assert!(!answer.unwrap().is_empty());
    assert!(answered >= Duration::from_millis(300));
    assert!(carried_out < answered);
    let record = last(&emulator);
    assert!(record.ended - record.t >= 300_000_000, "{record:?}");
    emulator.stop().await;
}

#[tokio::test]
async fn a_late_request_is_carried_out_after_its_client_has_gone_and_has_its_place_then() {
    let emulator = emulator(Slot::AtUpload).await;
    emulator
        .fault("UploadRoutineCode:1:process_late(400)")
        .unwrap();
    let mut stream = TcpStream::connect(emulator.address()).await.unwrap();
    stream.write_all(&upload_call()).await.unwrap();
    // Only what the service was asked can tell that the first request has arrived.
    let used = async {
        while emulator.faults()[0].1 == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, used).await.unwrap();
    drop(stream);
    begin(&client(), &emulator, "in between").await;
    let late = emulator.wait_until(|world| versions(world) == 2);
    tokio::time::timeout(LIMIT, late).await.unwrap();
    let record = last(&emulator);
    assert_eq!(record.fault.as_deref(), Some("process_late(400)"));
    assert!(record.processed && record.ended - record.t >= 400_000_000);
    assert_eq!((record.seq, record.status), (1, 0));
    emulator.stop().await;
}

#[tokio::test]
async fn a_stop_comes_before_a_request_that_would_be_carried_out_late() {
    let emulator = emulator(Slot::AtUpload).await;
    emulator.fault("api:1:process_late(86400000)").unwrap();
    let address = emulator.address();
    let (answer, ()) = tokio::join!(
        async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&upload_call()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.map(|_| answer)
        },
        async {
            while emulator.faults()[0].1 == 0 {
                tokio::task::yield_now().await;
            }
            tokio::time::timeout(STOP_GRACE * 3 / 4, emulator.stop())
                .await
                .unwrap();
        }
    );
    assert!(answer.unwrap().is_empty());
}

#[tokio::test]
async fn a_process_is_killed_before_while_after_or_long_before_its_request_is_carried_out() {
    use std::os::unix::process::ExitStatusExt as _;
    for (moment, carried_out, answered) in [
        ("before", false, false),
        ("mid", true, false),
        ("late", true, false),
        ("after", true, true),
    ] {
        let emulator = emulator(Slot::AtUpload).await;
        let mut victim = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let action = format!("api:2:kill({},{moment})", victim.id().unwrap());
        emulator.fault(&action).unwrap();
        begin(&client(), &emulator, "first").await;
        assert!(victim.try_wait().unwrap().is_none(), "killed too early");
        let answer = exchange(&emulator, upload_call()).await.unwrap();
        let status = tokio::time::timeout(LIMIT, victim.wait()).await.unwrap();
        assert_eq!(status.unwrap().signal(), Some(9), "{moment}");
        if carried_out {
            let both = emulator.wait_until(|world| versions(world) == 2);
            tokio::time::timeout(LIMIT, both).await.unwrap();
        }
        assert_eq!(last(&emulator).processed, carried_out, "{moment}");
        assert_eq!(
            emulator.with_world(|world| versions(world)),
            1 + usize::from(carried_out)
        );
        let whole = String::from_utf8(answer).unwrap();
        assert_eq!(whole.contains("OssPostConfig"), answered, "{moment}");
        assert_eq!(whole.is_empty(), !answered, "{moment}");
        emulator.stop().await;
    }
}

#[tokio::test]
async fn a_clock_that_is_off_judges_time_stamps_and_shows_in_the_date() {
    let emulator = emulator(Slot::AtUpload).await;
    let mut settings = emulator.with_world(|world| world.settings().clone());
    settings.set("clock=-7200").unwrap();
    emulator.configure(settings);
    let answer = exchange(&emulator, upload_call()).await.unwrap();
    let (head, body) = split(&answer);
    assert!(body.contains("InvalidTimeStamp.Expired"), "{body}");
    let date = head.split("date: ").nth(1).unwrap();
    let earlier = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(7200);
    let minutes = [0, 1].map(|ago| {
        let then = earlier - jiff::SignedDuration::from_mins(ago);
        then.strftime("%a, %d %b %Y %H:%M:").to_string()
    });
    assert!(
        minutes.iter().any(|minute| date.starts_with(minute)),
        "{head}"
    );
    emulator.stop().await;
}

#[tokio::test]
async fn a_running_emulator_is_controlled_over_loopback_and_that_is_no_request_of_the_service() {
    let emulator = emulator(Slot::AtUpload).await;
    let client = client();
    let url = |path: &str| format!("{}/control/{path}", emulator.endpoint());
    let post = async |path: &str, body: &str| {
        let reply = client.post(url(path)).body(body.to_owned()).send().await;
        let reply = reply.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    };
    let faults = "UploadRoutineCode:2:drop_after\n\noss:*:status(203)\n";
    assert_eq!(post("fault", faults).await.0, 200);
    for (path, body, words) in [
        (
            "fault",
            "oss:*:drip\noss:*:explode",
            "there is no action `explode`",
        ),
        ("fault", "oss:1:kill(4711,after)", "killing"),
        ("world", "cap=3\nalloc=never", "upload|callback"),
        ("actor", "publish hello newest production", "no version"),
    ] {
        let (status, text) = post(path, body).await;
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(post("world", "alloc=callback\nguard=on").await.0, 200);
    let settings = emulator.with_world(|world| world.settings().clone());
    assert_eq!((settings.slot, settings.cap), (Slot::AtCallback, 10));
    let deeds = "upload hello let a;\npublish hello newest staging\n";
    let (_, told) = post("actor", deeds).await;
    let revision = told.lines().next().unwrap();
    assert_eq!(told, format!("{revision}\n{revision}\n"));
    begin(&client, &emulator, "d").await;

    let list: Value = client
        .get(url("fault"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let expected = serde_json::json!([
        {"fault": "UploadRoutineCode:2:drop_after", "used": 0},
        {"fault": "oss:*:status(203)", "used": 0},
    ]);
    assert_eq!(list, expected);
    assert!(exchange(&emulator, upload_call()).await.unwrap().is_empty());
    assert_eq!(emulator.faults()[0].1, 1);
    client.delete(url("fault")).send().await.unwrap();
    assert!(emulator.faults().is_empty());

    let text = client
        .get(url("history"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let ops: Vec<(Value, Value)> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|mut record| (record["actor"].take(), record["op"].take()))
        .collect();
    let pair = |actor: &str, op: &str| (Value::from(actor), Value::from(op));
    let expected = [
        pair("person", "upload"),
        pair("person", "publish"),
        pair("client", "UploadRoutineCode"),
        pair("client", "UploadRoutineCode"),
    ];
    assert_eq!(ops, expected);

    let page = client
        .post(url("fault"))
        .header("origin", "http://a.example");
    assert_eq!(page.body("*:*:drip").send().await.unwrap().status(), 403);
    let rebound = client.get(url("history")).header("host", "a.example");
    assert_eq!(rebound.send().await.unwrap().status(), 403);
    emulator.stop().await;
}

#[tokio::test]
async fn a_fault_can_be_there_from_the_start_and_lands_in_the_history_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl");
    let options = Options {
        routines: vec![hello()],
        history: Some(path.clone()),
        faults: vec![Fault::parse("api:1:drop_before").unwrap()],
        ..Options::default()
    };
    let emulator = Emulator::start(options).await.unwrap();
    assert!(exchange(&emulator, upload_call()).await.unwrap().is_empty());
    emulator.with_world(|world| world.act("upload hello a").unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!((lines.len(), &lines[0]["decision"]), (2, &"fault".into()));
    assert_eq!(lines[0]["fault"], "drop_before");
    assert_eq!(lines[1]["actor"], "person");
    emulator.stop().await;
}
