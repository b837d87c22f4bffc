//! What happens to a request or its answer on the way, at its worst: the right version comes of it all the same, once.
//! Lines and servers that are broken as a whole are in `line` and `tls`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::net::{At, Proxy, Way, response, server, stubborn};
use crate::common::{Bed, Ended, QUICK, code, name, resident};
use er_dev::emulator::history::{POST_OBJECT, Record};
use er_dev::emulator::world::{Settings, World};
use er_dev::routine::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Time-outs that a slow machine keeps, too, and a wait that leaves it time to be late.
const PATIENT: &[&str] = &[
    "--api-timeout",
    "2s",
    "--post-timeout",
    "2s",
    "--settle-margin",
    "1s",
];

/// Whether these bytes are there, each content once, each version with code, and a slot is free.
fn at_rest(world: &World, last: &str) -> bool {
    let versions = world.routine(&name("hello")).unwrap().versions();
    let mut codes: Vec<Option<&[u8]>> = versions.iter().map(|v| v.bytes()).collect();
    let stored = codes.contains(&Some(last.as_bytes()));
    let whole = codes.iter().all(Option::is_some);
    codes.sort();
    codes.dedup();
    stored && whole && codes.len() == versions.len() && versions.len() <= 9
}

/// How many versions hold these bytes.
fn copies(bed: &Bed, text: &str) -> usize {
    let codes = bed.codes("hello");
    codes
        .iter()
        .filter(|code| **code == text.as_bytes())
        .count()
}

/// How often these bytes were posted, whatever became of it.
fn posts(bed: &Bed, text: &str) -> usize {
    let digest = Some(Digest::of(text.as_bytes()));
    let history = bed.history();
    let posted = |r: &&Record| r.op == POST_OBJECT && r.sha256 == digest;
    history.iter().filter(posted).count()
}

#[tokio::test]
async fn b05_a_reset_anywhere_in_a_body_leaves_one_version() {
    let places = [At::Start, At::First, At::Half, At::LastButOne, At::End];
    let requests = ["POST /oss ", "Action=UploadRoutineCode"];
    let cases = requests.map(|request| places.map(|at| (request, at)));
    crate::common::each(cases.concat(), async |(request, at)| {
        let what = format!("{request} {at:?}");
        let bed = Bed::new(&["hello"]).await;
        let proxy = Proxy::start(&bed, Way::Cut(request, at)).await;
        bed.configure(&format!("http://{}", proxy.address), "");
        let ended = bed.push().await;
        bed.assert_there_once(&what, &ended);
        assert!(proxy.cut() >= 1, "{what}: nothing was cut off");
    })
    .await;
}

#[tokio::test]
async fn b05_a_reset_while_much_code_is_still_being_sent_leaves_one_version() {
    // More than what lies between the two ends, and little enough to have settled soon.
    let large = format!("// {}\n", "x".repeat(200 << 10));
    let cases = [At::Start, At::First, At::Half, At::LastButOne].map(|at| (at, large.clone()));
    crate::common::each(cases, async |(at, large)| {
        let bed = Bed::new(&["hello"]).await;
        let proxy = Proxy::start(&bed, Way::Cut("POST /oss ", at)).await;
        bed.configure(&format!("http://{}", proxy.address), "");
        bed.write("hello", &large);
        let ended = bed.push().await;
        let Ended { stdout, stderr, .. } = &ended;
        assert_eq!(ended.code, Some(0), "{at:?}: {stdout}{stderr}");
        assert_eq!(bed.codes("hello"), [large.into_bytes()], "{at:?}");
        assert_eq!(proxy.cut(), 2, "{at:?}: the first post and the next");
        assert_eq!(bed.asked("UploadRoutineCode"), 1, "{at:?}");
    })
    .await;
}

#[tokio::test]
async fn b06_a_lost_reply_makes_no_second_version() {
    // Each with how often the versions are listed before anything else is asked.
    let operations = [
        ("DescribeRoutine", 1),
        ("UploadRoutineCode", 1),
        ("oss", 1),
        ("DescribeRoutineCodeRevision", 0),
        ("DeleteRoutineCodeRevision", 1),
    ];
    crate::common::each(operations, async |(operation, listings)| {
        let bed = Bed::new(&["hello"]).await;
        bed.seed("hello", 8);
        let mut watch = bed.watch(PATIENT).await;
        bed.fault(&format!("{operation}:1:drop_after"));
        bed.write("hello", &code("hello", 1));
        let end = watch.end_of_edit().await;
        assert_eq!(end["event"], "uploaded", "{operation}");
        bed.until(operation, |world| {
            let history: Vec<&Record> = world.history().iter().collect();
            let lost = history.iter().position(|record| record.fault.is_some());
            let settled = lost.is_some_and(|lost| listed_first(&history[lost + 1..]) >= listings);
            settled && at_rest(world, &code("hello", 1))
        })
        .await;
        watch.stop().await;
        bed.assert_at_rest();
        let history = bed.history();
        let lost = history.iter().position(|record| record.fault.is_some());
        let after: Vec<&Record> = history[lost.unwrap() + 1..].iter().collect();
        assert_eq!(listed_first(&after), listings, "{operation}: {after:#?}");
        let posts = posts(&bed, &code("hello", 1));
        assert_eq!(posts, 1, "{operation}: what was there was found");
    })
    .await;
}

/// How often the versions are listed before anything else is asked.
fn listed_first(records: &[&Record]) -> usize {
    let listings = records.iter().take_while(|r| r.op == "DescribeRoutine");
    listings.count()
}

#[tokio::test]
async fn b07_what_is_processed_after_the_client_gave_up_makes_no_second_version() {
    let cases = ["UploadRoutineCode", "oss", "DeleteRoutineCodeRevision"];
    crate::common::each(cases, async |operation| {
        let bed = Bed::new(&["hello"]).await;
        let live = bed.seed("hello", 8).remove(0);
        bed.publish("hello", &live, "production");
        let mut watch = bed.watch(PATIENT).await;
        // Half a second before it must have settled.
        bed.fault(&format!("{operation}:1:process_late(2500)"));
        bed.write("hello", &code("hello", 1));
        let end = watch.end_of_edit().await;
        assert_eq!(end["event"], "uploaded", "{operation}");
        let late = |record: &Record| record.fault.is_some();
        bed.until(operation, |world| {
            let landed = world.history().iter().any(late);
            landed && at_rest(world, &code("hello", 1))
        })
        .await;
        watch.stop().await;
        bed.assert_at_rest();
        assert!(bed.versions("hello").contains(&live), "{operation}");
        assert_eq!(posts(&bed, &code("hello", 1)), 1, "{operation}");
        let history = bed.history();
        let late = history.iter().find(|record| late(record)).unwrap();
        let early = |record: &&Record| record.t > late.t && record.t < late.ended;
        let early: Vec<_> = history.iter().filter(early).collect();
        assert!(early.is_empty(), "{operation}: not settled yet: {early:#?}");
    })
    .await;
}

#[tokio::test]
async fn b07_a_request_that_waited_for_its_permit_can_be_carried_out_late_from_when_it_left() {
    let names: Vec<String> = (0..12).map(|n| format!("r{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let slow = "[limits]\nrequests_per_second = 4\nburst = 1\nmax_in_flight = 2";
    let bed = Bed::with(&names, Settings::default(), slow).await;
    // Whoever is last in the line has waited for some two seconds, and for that much less what it sends had to settle.
    let last = names.len();
    bed.fault(&format!("UploadRoutineCode:{last}:process_late(3500)"));
    let times = ["--api-timeout", "1s", "--settle-margin", "3s"];
    let watch = bed.watch_from_start(&times);
    let late = |record: &Record| record.fault.is_some();
    bed.until("the late request", |world| world.history().iter().any(late))
        .await;
    let history = bed.history();
    let late = history.iter().find(|record| late(record)).unwrap();
    let routine = late.routine.clone().unwrap();
    bed.until_newest_is(routine.as_str(), &code(routine.as_str(), 0))
        .await;
    watch.stop().await;
    let history = bed.history();
    let early = |record: &&Record| {
        record.routine.as_ref() == Some(&routine) && record.t > late.t && record.t < late.ended
    };
    let early: Vec<_> = history.iter().filter(early).collect();
    assert!(early.is_empty(), "not settled yet: {early:#?}");
}

#[tokio::test]
async fn b08_what_is_processed_after_it_must_have_settled_is_cleared_away_with_the_next_edit() {
    crate::common::each(["UploadRoutineCode", "oss"], async |operation| {
        let bed = Bed::new(&["hello"]).await;
        let mut watch = bed.watch(QUICK).await;
        bed.fault(&format!("{operation}:1:process_late(2500)"));
        bed.write("hello", &code("hello", 1));
        let end = watch.end_of_edit().await;
        assert_eq!(end["event"], "uploaded", "{operation}");
        let late = |record: &Record| record.fault.is_some();
        bed.until(operation, |world| world.history().iter().any(late))
            .await;
        assert!(bed.versions("hello").len() <= 3, "{operation}");
        assert!(copies(&bed, &code("hello", 1)) <= 2, "{operation}");
        bed.write("hello", &code("hello", 2));
        let end = watch.end_of_edit().await;
        assert_eq!(end["event"], "uploaded", "{operation}");
        bed.until(operation, |world| at_rest(world, &code("hello", 2)))
            .await;
        watch.stop().await;
        bed.assert_at_rest();
    })
    .await;
}

#[tokio::test]
async fn b11_a_page_of_something_in_between_says_nothing_of_what_was_done() {
    let cases = [
        ("DescribeRoutine", 500),
        ("DescribeRoutine", 502),
        ("UploadRoutineCode", 500),
        ("UploadRoutineCode", 502),
        ("UploadRoutineCode", 503),
        ("UploadRoutineCode", 504),
        ("oss", 500),
        ("oss", 502),
    ];
    crate::common::each(cases, async |(operation, status)| {
        let bed = Bed::new(&["hello"]).await;
        bed.fault(&format!("{operation}:1:status({status})"));
        let ended = bed.push().await;
        bed.assert_there_once(operation, &ended);
    })
    .await;
}

#[tokio::test]
async fn b11_a_long_page_is_shown_in_two_hundred_plain_characters() {
    let escape = "\x1b]0;title\x07\x1b[31m\u{202e}<Message>";
    let page = format!(
        "<html>{escape}{}</Message></html>",
        "\x1b[2J word".repeat(20_000)
    );
    let answer = response("502 Bad Gateway", "Content-Type: text/html\r\n", &page);
    let address = stubborn(answer).await;
    let cases = ["json", "text"].map(|format| (format, address));
    crate::common::each(cases, async |(format, address)| {
        let bed = Bed::new(&["hello"]).await;
        bed.configure(&format!("http://{address}"), "");
        let ended = bed
            .run(&["push", "--timeout", "1s", "--format", format])
            .await;
        assert_eq!(ended.code, Some(69), "{}{}", ended.stdout, ended.stderr);
        for text in [&ended.stdout, &ended.stderr] {
            assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text:?}");
        }
        if format == "json" {
            let what = ended.of("error")[0]["problem"]["what"].clone();
            let what = what.as_str().unwrap().strip_prefix("DescribeRoutine: ");
            // One more for what says that it was cut.
            assert!(what.unwrap().chars().count() <= 201, "{what:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn b12_a_network_that_wants_a_log_in_first_is_as_good_as_none_and_its_time_is_not_taken() {
    let bed = Bed::new(&["hello"]).await;
    bed.fault("api:*:portal");
    let mut watch = bed.watch_from_start(QUICK);
    let told = watch.until("offline").await;
    let help = told["problem"]["help"].as_str().unwrap();
    assert!(help.contains("log-in"), "{told}");
    bed.emulator.clear_faults();
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    let clock = watch.seen().any(|event| event["event"] == "degraded");
    assert!(!clock, "the portal's date was believed");
    watch.stop().await;
    bed.assert_at_rest();
}

#[tokio::test]
async fn b14_a_redirect_is_not_followed() {
    let cases = [
        ("DescribeRoutine", 307),
        ("DescribeRoutine", 308),
        ("UploadRoutineCode", 301),
        ("UploadRoutineCode", 307),
        ("oss", 302),
        ("oss", 303),
        ("oss", 307),
        ("oss", 308),
    ];
    crate::common::each(cases, async |(operation, status)| {
        let (elsewhere, connections) = server(|_| std::future::ready(())).await;
        let bed = Bed::new(&["hello"]).await;
        bed.fault(&format!(
            "{operation}:1:redirect({status},http://{elsewhere}/)"
        ));
        let ended = bed.push().await;
        bed.assert_there_once(operation, &ended);
        assert_eq!(connections.load(Ordering::SeqCst), 0);
    })
    .await;
}

#[tokio::test]
async fn b17_b18_b19_an_answer_that_cannot_be_read_is_no_answer() {
    let answers = [
        "garbage",
        "deep_json",
        "huge",
        "gzip_bomb",
        "truncate",
        "xml_for_json",
        "wrong_content_type",
    ];
    let operations = ["DescribeRoutine", "UploadRoutineCode", "oss"];
    let cases = operations.map(|operation| answers.map(|answer| (operation, answer)));
    crate::common::each(cases.concat(), async |(operation, answer)| {
        let bed = Bed::new(&["hello"]).await;
        bed.fault(&format!("{operation}:1:{answer}"));
        let ended = bed.push().await;
        bed.assert_there_once(&format!("{operation} {answer}"), &ended);
    })
    .await;
}

#[tokio::test]
async fn b17_odd_json_is_no_statement_of_the_service() {
    let odd = [
        "null",
        "true",
        "[]",
        "{}",
        "\"text\"",
        "1e999",
        "{\"RequestId\":\"R\"",
        "{\"RequestId\":\"R\"}{\"RequestId\":\"R\"}",
        "{\"RequestId\":\"\\ud800\"}",
        "{\"Content\":{\"CodeRevs\":[],\"EnvConf\":{}}}",
        "\u{feff}{\"RequestId\":\"R\"}",
        "\0",
    ];
    let operations = ["DescribeRoutine", "UploadRoutineCode"];
    let cases = operations.map(|operation| odd.map(|body| (operation, body)));
    // These would be the statement that there is no such routine.
    let odd_content = [
        ("UploadRoutineCode", "{\"RequestId\":\"R\",\"Content\":[]}"),
        ("UploadRoutineCode", "{\"RequestId\":\"R\",\"Content\":7}"),
    ];
    let cases = [&cases.concat()[..], &odd_content].concat();
    crate::common::each(cases, async |(operation, body)| {
        let bed = Bed::new(&["hello"]).await;
        bed.fault(&format!("{operation}:1:answer({body})"));
        let ended = bed.push().await;
        bed.assert_there_once(&format!("{operation} {body}"), &ended);
    })
    .await;
}

#[tokio::test]
async fn b17_odd_json_for_a_listing_or_for_code_makes_no_second_version_of_what_is_there() {
    let odd = [
        "null",
        "{}",
        "{\"Content\":{\"CodeRevs\":[],\"EnvConf\":{}}}",
        "{\"RequestId\":\"R\",\"Content\":{}}",
        "{\"RequestId\":\"R\",\"Content\":{\"EnvConf\":{}}}",
        "{\"RequestId\":\"R\",\"Content\":{\"CodeRevs\":7,\"EnvConf\":{}}}",
        "{\"RequestId\":\"R\",\"Content\":7}",
    ];
    let operations = ["DescribeRoutine", "DescribeRoutineCodeRevision"];
    let cases = operations.map(|operation| odd.map(|body| (operation, body)));
    crate::common::each(cases.concat(), async |(operation, body)| {
        let what = format!("{operation} {body}");
        let bed = Bed::new(&["hello"]).await;
        bed.push().await;
        // Without its memory it has to read back what is there.
        std::fs::remove_dir_all(bed.path("state")).unwrap();
        bed.fault(&format!("{operation}:1:answer({body})"));
        let ended = bed.push().await;
        bed.assert_there_once(&what, &ended);
        assert_eq!(bed.asked("UploadRoutineCode"), 1, "{what}");
        let history = bed.history();
        assert!(
            history.iter().any(|record| record.fault.is_some()),
            "{what}"
        );
    })
    .await;
}

#[tokio::test]
async fn b17_a_huge_answer_is_not_read_to_its_end() {
    let bed = Bed::new(&["hello"]).await;
    let mut watch = bed.watch(QUICK).await;
    let before = resident(watch.pid(), "VmHWM");
    bed.fault("UploadRoutineCode:1:huge");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    let grown = resident(watch.pid(), "VmHWM") - before;
    // It would have been 64 MiB.
    assert!(grown < 16 * 1024, "{grown} KiB");
    watch.stop().await;
}

/// A gzip of zeros that is a hundred and sixty times as long when it is inflated. It ends without a checksum, which
/// nobody reaches who stops in time.
fn bomb(inflated: usize) -> Vec<u8> {
    // In the fixed code of deflate: a literal zero, then "258 bytes more of the same" over and over.
    const ZERO: (u32, u32) = (0b0011_0000, 8);
    const AGAIN: (u32, u32) = (0b1_1000_1010_0000, 13);
    let codes = std::iter::once(ZERO).chain(std::iter::repeat_n(AGAIN, inflated / 258));
    let bits = codes.flat_map(|(code, length)| (0..length).rev().map(move |bit| code >> bit & 1));
    // The last block, with the fixed code.
    let bits: Vec<u32> = [1, 1, 0].into_iter().chain(bits).collect();
    let byte = |bits: &[u32]| {
        let placed = bits.iter().enumerate().map(|(place, bit)| bit << place);
        u8::try_from(placed.sum::<u32>()).unwrap()
    };
    let head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".iter().copied();
    head.chain(bits.chunks(8).map(byte)).collect()
}

#[tokio::test]
async fn b18_a_compressed_answer_is_refused_and_not_inflated() {
    // Short enough to be read, were it not for what it claims to be.
    let bomb = bomb(64 << 20);
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    );
    let answer: Arc<[u8]> = [head.as_bytes(), &bomb].concat().into();
    // Nothing is answered before the memory has been looked at.
    let (looked, looking) = tokio::sync::watch::channel(false);
    let (address, _) = server(move |mut stream| {
        let (answer, mut looking) = (Arc::clone(&answer), looking.clone());
        async move {
            let _ = stream.read(&mut [0; 8192]).await;
            let _ = looking.wait_for(|looked| *looked).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let bed = Bed::new(&["hello"]).await;
    bed.configure(&format!("http://{address}"), "");
    let mut watch = bed.watch_from_start(&[]);
    watch.until("started").await;
    let before = resident(watch.pid(), "VmHWM");
    looked.send(true).unwrap();
    let told = watch.until("offline").await;
    let grown = resident(watch.pid(), "VmHWM") - before;
    let what = told["problem"]["what"].as_str().unwrap();
    assert!(what.contains("compressed"), "{told}");
    // It would have been 64 MiB.
    assert!(grown < 16 * 1024, "{grown} KiB");
    watch.kill().await;
}

#[tokio::test]
async fn b18_what_claims_to_be_compressed_says_nothing_whatever_it_holds() {
    let body = "{\"RequestId\":\"R\",\"Code\":\"InvalidAccessKeyId.NotFound\",\"Message\":\"no such key\"}";
    let encodings = [("identity", 77), ("gzip", 69), ("br", 69), ("x-odd", 69)];
    crate::common::each(encodings, async |(encoding, exit)| {
        let headers = format!("Content-Encoding: {encoding}\r\n");
        let address = stubborn(response("404 Not Found", &headers, body)).await;
        let bed = Bed::new(&["hello"]).await;
        bed.configure(&format!("http://{address}"), "");
        let ended = bed.run(&["push", "--timeout", "1s"]).await;
        assert_eq!(ended.code, Some(exit), "{encoding}: {}", ended.stdout);
    })
    .await;
}

#[tokio::test]
async fn b19_a_code_counts_in_whichever_form_it_comes_and_half_of_one_does_not() {
    let code = "InvalidAccessKeyId.NotFound";
    let json = format!("{{\"RequestId\":\"R\",\"Code\":\"{code}\",\"Message\":\"no such key\"}}");
    let xml = format!(
        "<?xml version=\"1.0\"?><Error><RequestId>R</RequestId><Code>{code}</Code></Error>"
    );
    let cut = json.split_at(json.len() - 30).0.to_owned();
    let cut_xml = xml.split_once("</Code>").unwrap().0.to_owned();
    crate::common::each(
        [
            ("application/json", json.clone(), 77),
            ("text/html", json, 77),
            ("application/json", xml.clone(), 77),
            ("text/xml", xml, 77),
            ("application/json", cut, 69),
            ("text/xml", cut_xml, 69),
        ],
        async |(kind, body, exit)| {
            let headers = format!("Content-Type: {kind}\r\n");
            let address = stubborn(response("404 Not Found", &headers, &body)).await;
            let bed = Bed::new(&["hello"]).await;
            bed.configure(&format!("http://{address}"), "");
            let ended = bed.run(&["push", "--timeout", "1s"]).await;
            assert_eq!(ended.code, Some(exit), "{body}: {}", ended.stdout);
        },
    )
    .await;
}

#[tokio::test]
async fn b09_a_request_whose_answer_drips_is_carried_out_once() {
    let operations = ["DescribeRoutine", "UploadRoutineCode", "oss"];
    crate::common::each(operations, async |operation| {
        let bed = Bed::new(&["hello"]).await;
        bed.fault(&format!("{operation}:1:drip"));
        let ended = bed.push().await;
        bed.assert_there_once(operation, &ended);
    })
    .await;
}
