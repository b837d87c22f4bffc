//! Lines and servers that are broken as a whole: slow, dead, without a certificate, through a proxy, or made by somebody
//! who lies. Nothing hangs, nothing leaks, and what can get through does.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::net::{Proxy, Way, server};
use common::{Bed, Ended, code};
use er_dev::emulator::history::POST_OBJECT;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

/// The only problem a command ended with.
#[track_caller]
fn problem(ended: &Ended) -> Value {
    let Some(error) = ended.of("error").pop() else {
        panic!("no error: {}{}", ended.stdout, ended.stderr);
    };
    error["problem"].clone()
}

#[tokio::test]
async fn b09_an_answer_that_drips_is_given_up_when_its_time_is_over() {
    let heads = ["", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"];
    common::each(heads, async |head| {
        let (given_up, mut waits) = unbounded_channel();
        let (address, _) = server(move |mut stream| {
            let given_up = given_up.clone();
            async move {
                let begun = Instant::now();
                let _ = stream.write_all(head.as_bytes()).await;
                let (mut from, mut to) = stream.split();
                let drip = async {
                    while to.write_all(b" ").await.is_ok() {
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
        // A slow machine may see one of them late, but not each.
        let waits: Vec<Duration> = std::iter::from_fn(|| waits.try_recv().ok()).collect();
        let shortest = waits.iter().min().unwrap();
        assert!(*shortest <= Duration::from_millis(1500), "{waits:?}");
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

/// What a server that speaks TLS 1.0 and nothing newer says first.
fn tls_1_0() -> Vec<u8> {
    let record = [0x16, 3, 1, 0, 42];
    let hello = [2, 0, 0, 38, 3, 1];
    let (random, session, cipher, compression) = ([7; 32], [0], [0, 0x2f], [0]);
    [
        &record[..],
        &hello,
        &random,
        &session,
        &cipher,
        &compression,
    ]
    .concat()
}

#[tokio::test]
async fn b13_a_server_without_today_s_tls_gets_no_request_and_no_storm() {
    let refusal = vec![0x15, 3, 1, 0, 2, 2, 70];
    let servers = [
        ("TLS 1.0", tls_1_0()),
        ("a refusal of the version", refusal),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        (
            "plain HTTP",
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
    ];
    common::each(servers, async |(what, first)| {
        let (seen, mut heard) = unbounded_channel();
        let (address, connections) = server(move |mut stream| {
            let (seen, first) = (seen.clone(), first.clone());
            async move {
                let mut bytes = vec![0; 4096];
                let read = stream.read(&mut bytes).await.unwrap_or(0);
                let _ = stream.write_all(&first).await;
                bytes.truncate(read);
                let _ = stream.read_to_end(&mut bytes).await;
                let _ = seen.send(String::from_utf8_lossy(&bytes).into_owned());
            }
        })
        .await;
        let bed = Bed::new(&["hello"]).await;
        bed.configure(&format!("https://{address}"), "");
        let ended = bed.run(&["push", "--timeout", "2s"]).await;
        assert_eq!(ended.code, Some(69), "{what}: {}", ended.stdout);
        let problem = problem(&ended);
        assert_eq!(problem["class"], "network", "{what}: {problem}");
        let help = problem["help"].as_str().unwrap();
        assert!(help.contains("--ca-file"), "{what}: {problem}");
        let storm = connections.load(Ordering::SeqCst);
        assert!(storm <= 12, "{what}: {storm} connections");
        while let Ok(text) = heard.try_recv() {
            assert!(!text.contains("AccessKeyId"), "{what}: {text}");
        }
    })
    .await;
}

/// A certificate authority and a certificate it signed for this name, with the key.
struct Signed {
    authority: String,
    config: Arc<rustls::ServerConfig>,
}

fn signed_for(name: &str) -> Signed {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
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
    Signed {
        authority: pem,
        config: Arc::new(config),
    }
}

/// A TLS server in front of the emulator.
async fn encrypted(bed: &Bed, signed: &Signed) -> SocketAddr {
    let (config, emulator) = (Arc::clone(&signed.config), bed.emulator.address());
    let (address, _) = server(move |stream| terminate(stream, Arc::clone(&config), emulator)).await;
    address
}

/// Decrypts what comes, and passes it on.
async fn terminate(stream: TcpStream, config: Arc<rustls::ServerConfig>, emulator: SocketAddr) {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let (Ok(mut client), Ok(mut server)) = (
        acceptor.accept(stream).await,
        TcpStream::connect(emulator).await,
    ) else {
        return;
    };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

/// A proxy that opens the secure connections through it, and leads them all to the emulator.
async fn opening(bed: &Bed, signed: &Signed) -> SocketAddr {
    let (config, emulator) = (Arc::clone(&signed.config), bed.emulator.address());
    let (address, _) = server(move |mut stream| {
        let config = Arc::clone(&config);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else {
                    return;
                };
                head.push(byte);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            terminate(stream, config, emulator).await;
        }
    })
    .await;
    address
}

#[tokio::test]
async fn b13_a_certificate_counts_only_with_an_authority_that_is_trusted_and_for_its_name() {
    let bed = Bed::new(&["hello"]).await;
    let (right, other) = (signed_for("localhost"), signed_for("example.test"));
    let file = |signed: &Signed, name: &str| {
        std::fs::write(bed.path(name), &signed.authority).unwrap();
        name.to_owned()
    };
    let (right_file, other_file) = (file(&right, "right.pem"), file(&other, "other.pem"));
    let endpoint = |address: SocketAddr| format!("https://localhost:{}", address.port());
    let good = endpoint(encrypted(&bed, &right).await);
    let wrong_name = endpoint(encrypted(&bed, &other).await);
    for (what, server, trusted) in [
        ("nobody is trusted", &good, &[][..]),
        (
            "somebody else is trusted",
            &good,
            &["--ca-file", &other_file],
        ),
        (
            "the name is another",
            &wrong_name,
            &["--ca-file", &other_file],
        ),
    ] {
        bed.configure(server, "");
        let ended = bed
            .run(&[&["push", "--timeout", "500ms"], trusted].concat())
            .await;
        assert_eq!(ended.code, Some(69), "{what}: {}", ended.stdout);
        let problem = problem(&ended);
        let help = problem["help"].as_str().unwrap();
        assert!(help.contains("--ca-file"), "{what}: {problem}");
        assert_eq!(bed.history().len(), 0, "{what}: something was sent");
    }
    bed.configure(&good, "");
    let ended = bed.run(&["push", "--ca-file", &right_file]).await;
    bed.assert_there_once("trusted", &ended);
}

#[tokio::test]
async fn b13_a_network_that_opens_secure_connections_needs_its_authority() {
    let bed = Bed::new(&["hello"]).await;
    let signed = signed_for("dcdn.aliyuncs.com");
    std::fs::write(bed.path("network.pem"), &signed.authority).unwrap();
    let proxy = format!("http://{}", opening(&bed, &signed).await);
    bed.configure("https://dcdn.aliyuncs.com", "");
    let through = async |arguments: &[&str]| {
        let mut command = bed.command(arguments);
        command.env("HTTPS_PROXY", &proxy);
        common::finish(command).await
    };
    let ended = through(&["push", "--timeout", "1s"]).await;
    assert_eq!(ended.code, Some(69), "{}{}", ended.stdout, ended.stderr);
    let help = problem(&ended)["help"].clone();
    assert!(help.as_str().unwrap().contains("--ca-file"), "{help}");
    assert_eq!(bed.history().len(), 0, "something was sent");
    let ended = through(&["revisions", "--ca-file", "network.pem"]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(bed.asked("DescribeRoutine"), 1);
}

#[tokio::test]
async fn b02_a_form_that_points_at_this_machine_is_not_followed_from_an_endpoint_elsewhere() {
    let bed = Bed::new(&["hello"]).await;
    let signed = signed_for("dcdn.aliyuncs.com");
    std::fs::write(bed.path("network.pem"), &signed.authority).unwrap();
    let proxy = format!("http://{}", opening(&bed, &signed).await);
    bed.configure("https://dcdn.aliyuncs.com", "");
    let mut command = bed.command(&["push", "--timeout", "3s", "--ca-file", "network.pem"]);
    command.env("HTTPS_PROXY", &proxy).env("HTTP_PROXY", &proxy);
    let ended = common::finish(command).await;
    assert_ne!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let what = problem(&ended)["what"].clone();
    assert!(what.as_str().unwrap().contains("127.0.0.1"), "{what}");
    assert!(bed.asked("UploadRoutineCode") >= 1);
    assert_eq!(bed.asked(POST_OBJECT), 0);
}

#[tokio::test]
async fn b13_a_file_without_a_certificate_is_78_and_nothing_is_sent() {
    let bed = Bed::new(&["hello"]).await;
    std::fs::write(bed.path("empty.pem"), "").unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(bed.path("broken.pem"), broken).unwrap();
    for (file, words) in [
        ("missing.pem", "cannot be read"),
        ("src", "cannot be read"),
        ("empty.pem", "no certificate"),
        ("er-dev.toml", "no certificate"),
        ("broken.pem", "broken certificate"),
    ] {
        let mut by_variable = bed.command(&["push"]);
        by_variable.env("ER_DEV_CA_FILE", file);
        for ended in [
            bed.run(&["push", "--ca-file", file]).await,
            common::finish(by_variable).await,
        ] {
            assert_eq!(
                ended.code,
                Some(78),
                "{file}: {}{}",
                ended.stdout,
                ended.stderr
            );
            assert!(ended.stderr.contains(file), "{file}: {}", ended.stderr);
            assert!(ended.stderr.contains(words), "{file}: {}", ended.stderr);
        }
    }
    assert_eq!(bed.history().len(), 0);
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
    common::each(servers, async |(what, part, times)| {
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
async fn b22_a_proxy_of_the_environment_is_used_and_sees_a_name_and_no_secret() {
    let (seen, mut asked) = unbounded_channel();
    let (address, connections) = server(move |mut stream| {
        let seen = seen.clone();
        async move {
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            bytes.truncate(read);
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
            let _ = stream.read_to_end(&mut bytes).await;
            let _ = seen.send(String::from_utf8_lossy(&bytes).into_owned());
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
    let problem = problem(&ended);
    assert_eq!(problem["class"], "network", "{problem}");
    let mut tries = 0;
    while let Ok(request) = asked.try_recv() {
        tries += 1;
        let first = request.starts_with("CONNECT dcdn.aliyuncs.com:443 ");
        assert!(first, "{request}");
        for secret in ["some-key", "Signature", "Action"] {
            assert!(!request.contains(secret), "{request}");
        }
    }
    assert!(tries >= 1);
    assert!(connections.load(Ordering::SeqCst) <= 12, "a storm");
}

#[tokio::test]
async fn b22_the_password_of_a_proxy_goes_to_the_proxy_and_is_told_to_nobody() {
    const PASSWORD: &str = "swordfish-of-the-proxy";
    // The base64 of "user:" and the password.
    const ENCODED: &str = "dXNlcjpzd29yZGZpc2gtb2YtdGhlLXByb3h5";
    let (seen, mut asked) = unbounded_channel();
    let (address, _) = server(move |mut stream| {
        let seen = seen.clone();
        async move {
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            let _ = seen.send(String::from_utf8_lossy(&bytes[..read]).into_owned());
            let refusal = common::net::response("407 Proxy Authentication Required", "", "");
            let _ = stream.write_all(refusal.as_bytes()).await;
        }
    })
    .await;
    let bed = Bed::new(&["hello"]).await;
    bed.configure("https://dcdn.aliyuncs.com", "");
    let mut command = bed.command(&["push", "--timeout", "1s", "--log", "trace"]);
    command.env("HTTPS_PROXY", format!("http://user:{PASSWORD}@{address}"));
    let ended = common::finish(command).await;
    assert_eq!(ended.code, Some(69), "{}{}", ended.stdout, ended.stderr);
    assert!(asked.try_recv().unwrap().contains(ENCODED));
    assert!(ended.stderr.contains("TRACE"), "nothing was logged");
    for told in [&ended.stdout, &ended.stderr] {
        assert!(!told.contains(PASSWORD), "{told}");
        assert!(!told.contains(ENCODED), "{told}");
    }
}

#[tokio::test]
async fn b22_a_proxy_of_the_environment_is_not_asked_for_this_machine() {
    let (address, connections) = server(|_| std::future::ready(())).await;
    let bed = Bed::new(&["hello"]).await;
    let mut command = bed.command(&["push"]);
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env(name, format!("http://{address}"));
    }
    let ended = common::finish(command).await;
    bed.assert_there_once("no proxy", &ended);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn c01_a_pause_that_was_asked_for_in_either_unit_is_kept() {
    let cases = [("x-acs-retry-after: 700", 700), ("Retry-After: 1", 1_000)];
    common::each(cases, async |(header, millis)| {
        let (seen, mut asked) = unbounded_channel();
        let body = "{\"RequestId\":\"R\",\"Code\":\"Throttling.User\",\"Message\":\"slow down\"}";
        let headers = format!("{header}\r\n");
        let answer = common::net::response("400 Bad Request", &headers, body);
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
