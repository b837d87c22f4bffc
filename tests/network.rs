//! What lies between er-dev and the service, at its worst: the right version comes of it all the same.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Bed, Ended, code, name, resident};
use er_dev::emulator::world::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const QUICK: &[&str] = &[
    "--api-timeout",
    "1s",
    "--post-timeout",
    "1s",
    "--settle-margin",
    "300ms",
];

async fn push(bed: &Bed) -> Ended {
    bed.run(&[&["push", "--timeout", "30s"], QUICK].concat())
        .await
}

#[track_caller]
fn assert_there_once(bed: &Bed, what: &str, ended: &Ended) {
    assert_eq!(
        ended.code,
        Some(0),
        "{what}: {}{}",
        ended.stdout,
        ended.stderr
    );
    assert_eq!(
        bed.codes("hello"),
        [code("hello", 0).into_bytes()],
        "{what}"
    );
}

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

/// What a proxy does to the bytes on their way.
#[derive(Clone)]
enum Way {
    /// The client's bytes pass at this rate, in bytes a second.
    Slow(usize),
    /// Connections that were made before this one do not move any more.
    Frozen(Arc<AtomicUsize>),
}

/// A proxy in front of the emulator, for API and object storage alike: the address in a form is changed on its way.
async fn proxy(bed: &Bed, way: Way) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let there = bed.emulator.address();
    // Both are written with the same number of digits, so that no length changes.
    assert_eq!(here.to_string().len(), there.to_string().len());
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((client, _)) = listener.accept().await {
            count += 1;
            let Ok(server) = TcpStream::connect(there).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(upwards(from_client, to_server, way.clone(), count));
            tokio::spawn(downwards(from_server, to_client, [there, here]));
        }
    });
    here
}

async fn upwards(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Way, number: usize) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        match &way {
            Way::Slow(rate) => {
                let time = Duration::from_secs_f64(read as f64 / *rate as f64);
                tokio::time::sleep(time).await;
            }
            Way::Frozen(before) if number <= before.load(Ordering::SeqCst) => {
                std::future::pending::<()>().await;
            }
            Way::Frozen(_) => {}
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

async fn downwards(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, addresses: [SocketAddr; 2]) {
    let [there, here] = addresses.map(|address| format!("http://{address}/oss"));
    let mut bytes = vec![0; 1 << 20];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let text = String::from_utf8_lossy(&bytes[..read]).replace(&there, &here);
        if to.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A server that answers every connection in its own way, and counts them.
async fn server<F>(
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

#[tokio::test]
async fn c01_a_pause_that_was_asked_for_in_either_unit_is_kept() {
    let cases = [("x-acs-retry-after: 700", 700), ("Retry-After: 1", 1_000)];
    common::each(cases, async |(header, millis)| {
        let (seen, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let body = "{\"RequestId\":\"R\",\"Code\":\"Throttling.User\",\"Message\":\"slow down\"}";
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\n{header}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
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
        assert!(pause >= least && pause < least + Duration::from_secs(3), "{header}: {pause:?}");
    })
    .await;
}

#[tokio::test]
async fn b05_a_reset_anywhere_in_the_body_leaves_one_version() {
    let operations = ["oss", "UploadRoutineCode"];
    let bytes = [0, 1, 100, 700, 1_400];
    let cases = operations.map(|operation| bytes.map(|byte| (operation, byte)));
    common::each(cases.concat(), async |(operation, byte)| {
        let bed = Bed::new(&["hello"]).await;
        bed.fault(&format!("{operation}:1:rst_mid_body({byte})"));
        let ended = push(&bed).await;
        assert_there_once(&bed, operation, &ended);
    })
    .await;
}

#[tokio::test]
async fn b06_a_reply_that_is_lost_after_processing_makes_no_second_version() {
    common::each(
        [
            "DescribeRoutine",
            "UploadRoutineCode",
            "oss",
            "DescribeRoutineCodeRevision",
            "DeleteRoutineCodeRevision",
        ],
        async |operation| {
            let bed = Bed::new(&["hello"]).await;
            bed.seed("hello", 8);
            let mut watch = bed.watch(QUICK).await;
            bed.fault(&format!("{operation}:1:drop_after"));
            bed.write("hello", &code("hello", 1));
            assert_eq!(
                watch.end_of_edit().await["event"],
                "uploaded",
                "{operation}"
            );
            bed.until(operation, |world| at_rest(world, &code("hello", 1)))
                .await;
            watch.stop().await;
            bed.assert_at_rest();
        },
    )
    .await;
}

#[tokio::test]
async fn b07_what_is_processed_after_the_client_gave_up_makes_no_second_version() {
    common::each(["UploadRoutineCode", "oss"], async |operation| {
        let bed = Bed::new(&["hello"]).await;
        bed.fault(&format!("{operation}:1:process_late(1150)"));
        let ended = push(&bed).await;
        assert_there_once(&bed, operation, &ended);
    })
    .await;
}

#[tokio::test]
async fn b08_what_is_processed_after_it_must_have_settled_is_cleared_away_with_the_next_edit() {
    common::each(["UploadRoutineCode", "oss"], async |operation| {
        let bed = Bed::new(&["hello"]).await;
        let mut watch = bed.watch(QUICK).await;
        bed.fault(&format!("{operation}:1:process_late(2500)"));
        bed.write("hello", &code("hello", 1));
        assert_eq!(
            watch.end_of_edit().await["event"],
            "uploaded",
            "{operation}"
        );
        // The late one has come: at most one version too many.
        bed.until(operation, |world| {
            let late = |record: &&er_dev::emulator::history::Record| record.fault.is_some();
            world.history().iter().any(|record| late(&record))
        })
        .await;
        assert!(bed.versions("hello").len() <= 3, "{operation}");
        bed.write("hello", &code("hello", 2));
        assert_eq!(
            watch.end_of_edit().await["event"],
            "uploaded",
            "{operation}"
        );
        bed.until(operation, |world| at_rest(world, &code("hello", 2)))
            .await;
        watch.stop().await;
        bed.assert_at_rest();
    })
    .await;
}

#[tokio::test]
async fn b09_an_answer_that_drips_is_given_up_when_its_time_is_over() {
    let bed = Bed::new(&["hello"]).await;
    bed.fault("DescribeRoutine:1:drip");
    let ended = push(&bed).await;
    assert_there_once(&bed, "drip", &ended);
    let history = bed.history();
    let waited = Duration::from_nanos(history[1].t - history[0].t);
    // The time-out of a second, and the first pause.
    assert!(waited < Duration::from_secs(3), "{waited:?}");
}

#[tokio::test]
async fn b10_a_slow_line_is_given_time_for_a_large_file() {
    let bed = Bed::new(&["hello"]).await;
    let way = proxy(&bed, Way::Slow(64 * 1024)).await;
    bed.configure(&format!("http://{way}"), "");
    let large = format!("// {}\n", "x".repeat(200 * 1024));
    bed.write("hello", &large);
    let ended = push(&bed).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(bed.codes("hello"), [large.into_bytes()]);
    assert_eq!(bed.asked("PostObject"), 1, "the first try had time enough");
}

#[tokio::test]
async fn b11_a_page_of_something_in_between_says_nothing_and_is_shown_in_a_few_words() {
    for fault in [
        "UploadRoutineCode:1:status(500)",
        "UploadRoutineCode:1:status(502)",
    ] {
        let bed = Bed::new(&["hello"]).await;
        bed.fault(fault);
        let ended = push(&bed).await;
        assert_there_once(&bed, fault, &ended);
    }
    let bed = Bed::new(&["hello"]).await;
    bed.fault("DescribeRoutine:*:status(502)");
    let ended = bed
        .run(&[&["push", "--timeout", "1s"], QUICK].concat())
        .await;
    let what = &ended.of("error")[0]["problem"]["what"];
    assert!(what.as_str().unwrap().len() <= 220, "{what}");
}

#[tokio::test]
async fn b12_a_network_that_wants_a_log_in_first_is_as_good_as_none_and_its_time_is_not_taken() {
    let bed = Bed::new(&["hello"]).await;
    bed.fault("api:*:portal");
    let mut watch = bed.watch_from_start(QUICK);
    let told = watch.until("offline").await;
    assert!(
        told["problem"]["help"].as_str().unwrap().contains("log-in"),
        "{told}"
    );
    bed.emulator.clear_faults();
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.until("online").await;
    let clock = watch.seen().any(|event| event["event"] == "degraded");
    assert!(!clock, "the portal's date was believed");
    watch.stop().await;
}

#[tokio::test]
async fn b14_a_redirect_is_not_followed() {
    common::each(
        [
            ("DescribeRoutine", 307),
            ("oss", 302),
            ("UploadRoutineCode", 301),
        ],
        async |(operation, status)| {
            let (elsewhere, connections) = server(|_| std::future::ready(())).await;
            let bed = Bed::new(&["hello"]).await;
            bed.fault(&format!(
                "{operation}:1:redirect({status},http://{elsewhere}/)"
            ));
            let ended = push(&bed).await;
            assert_there_once(&bed, operation, &ended);
            assert_eq!(connections.load(Ordering::SeqCst), 0);
        },
    )
    .await;
}

#[tokio::test]
async fn b17_b18_b19_an_answer_that_cannot_be_read_is_no_answer() {
    common::each(
        [
            "garbage",
            "deep_json",
            "huge",
            "gzip_bomb",
            "truncate",
            "xml_for_json",
            "wrong_content_type",
        ],
        async |answer| {
            for operation in ["DescribeRoutine", "UploadRoutineCode"] {
                let bed = Bed::new(&["hello"]).await;
                bed.fault(&format!("{operation}:1:{answer}"));
                let ended = push(&bed).await;
                assert_there_once(&bed, &format!("{operation} {answer}"), &ended);
            }
        },
    )
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
    assert!(grown < 8 * 1024, "{grown} KiB");
    watch.stop().await;
}

#[tokio::test]
async fn b20_a_server_that_lies_about_its_answer_holds_nobody_up() {
    let floods = || vec!["HTTP/1.1 102 Processing\r\n\r\n".to_owned(); 100_000];
    let header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    common::each(
        [
            (
                "too short",
                vec!["HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{}".to_owned()],
            ),
            (
                "too long",
                vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{}{}{}".to_owned()],
            ),
            (
                "no number",
                vec!["HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}".to_owned()],
            ),
            ("flood", floods()),
            ("header", vec![header]),
            ("silence", Vec::new()),
        ],
        async |(what, parts)| {
            let parts = Arc::new(parts);
            let (address, _) = server(move |mut stream| {
                let parts = Arc::clone(&parts);
                async move {
                    for part in parts.iter() {
                        if stream.write_all(part.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                    // The connection stays open until the client has had enough.
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                }
            })
            .await;
            let bed = Bed::new(&["hello"]).await;
            bed.configure(&format!("http://{address}"), "");
            let begun = Instant::now();
            let ended = bed
                .run(&["push", "--timeout", "2s", "--api-timeout", "500ms"])
                .await;
            assert_eq!(
                ended.code,
                Some(69),
                "{what}: {}{}",
                ended.stdout,
                ended.stderr
            );
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}: it hung");
        },
    )
    .await;
}

#[tokio::test]
async fn b21_connections_that_are_dead_cost_one_try() {
    let bed = Bed::new(&["hello"]).await;
    let frozen = Arc::new(AtomicUsize::new(0));
    let way = proxy(&bed, Way::Frozen(Arc::clone(&frozen))).await;
    bed.configure(&format!("http://{way}"), "");
    let mut watch = bed.watch(QUICK).await;
    frozen.store(usize::MAX / 2, Ordering::SeqCst);
    bed.write("hello", &code("hello", 1));
    // Whatever is connected now stays dead; what comes after the first failure is served.
    watch.until("retrying").await;
    frozen.store(0, Ordering::SeqCst);
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.stop().await;
    assert_eq!(bed.versions("hello").len(), 2);
}

#[tokio::test]
async fn b22_a_proxy_of_the_environment_is_used_and_sees_a_name_and_no_secret() {
    let (seen, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = server(move |mut stream| {
        let seen = seen.clone();
        async move {
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            let _ = seen.send(String::from_utf8_lossy(&bytes[..read]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
        }
    })
    .await;
    let bed = Bed::new(&["hello"]).await;
    bed.configure("https://dcdn.aliyuncs.com", "");
    let mut command = bed.command(&["push", "--timeout", "1s"]);
    command
        .env("HTTPS_PROXY", format!("http://{address}"))
        .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "some-key-id")
        .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "some-key-secret");
    let ended = common::finish(command).await;
    assert_eq!(ended.code, Some(69), "{}{}", ended.stdout, ended.stderr);
    let request = asked.try_recv().unwrap();
    assert!(
        request.starts_with("CONNECT dcdn.aliyuncs.com:443 "),
        "{request}"
    );
    assert!(!request.contains("some-key"), "{request}");
}

#[tokio::test]
async fn b13_a_server_that_does_not_speak_tls_gets_no_request_and_no_storm() {
    let (seen, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (address, connections) = server(move |mut stream| {
        let seen = seen.clone();
        async move {
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            let _ = seen.send(String::from_utf8_lossy(&bytes[..read]).into_owned());
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
        }
    })
    .await;
    let bed = Bed::new(&["hello"]).await;
    bed.configure(&format!("https://{address}"), "");
    let ended = bed.run(&["push", "--timeout", "2s"]).await;
    assert_eq!(ended.code, Some(69), "{}{}", ended.stdout, ended.stderr);
    let problem = &ended.of("error")[0]["problem"];
    assert_eq!(problem["class"], "network");
    assert!(
        problem["help"].as_str().unwrap().contains("certificate"),
        "{problem}"
    );
    assert!(connections.load(Ordering::SeqCst) <= 12);
    while let Ok(text) = heard.try_recv() {
        assert!(
            !text.contains("AccessKeyId"),
            "a request was sent in the clear"
        );
    }
}

/// A TLS server with a certificate of its own in front of the emulator, and the authority that signed it.
async fn encrypted(bed: &Bed) -> (SocketAddr, String) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let emulator = bed.emulator.address();
    let (address, _) = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let (Ok(mut client), Ok(mut server)) = (
                acceptor.accept(stream).await,
                TcpStream::connect(emulator).await,
            ) else {
                return;
            };
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
    })
    .await;
    (address, authority_pem)
}

#[tokio::test]
async fn b13_a_certificate_counts_only_with_an_authority_that_is_trusted() {
    let bed = Bed::new(&["hello"]).await;
    let (address, authority) = encrypted(&bed).await;
    bed.configure(&format!("https://localhost:{}", address.port()), "");
    let refused = bed.run(&["push", "--timeout", "1s"]).await;
    assert_eq!(
        refused.code,
        Some(69),
        "{}{}",
        refused.stdout,
        refused.stderr
    );
    let problem = &refused.of("error")[0]["problem"];
    assert!(
        problem["help"].as_str().unwrap().contains("--ca-file"),
        "{problem}"
    );
    assert_eq!(bed.history().len(), 0, "nothing was sent");
    let file = bed.path("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let file = file.to_str().unwrap();
    let ended = bed.run(&["push", "--ca-file", file]).await;
    assert_there_once(&bed, "trusted", &ended);
    for (path, words) in [
        ("er-dev.toml", "no certificate"),
        ("missing.pem", "cannot be read"),
    ] {
        let ended = bed.run(&["push", "--ca-file", path]).await;
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}
