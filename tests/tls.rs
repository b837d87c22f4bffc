//! Secure connections and proxies: a request leaves only over a connection that can be trusted, through the proxy that was
//! named, and what is secret stays inside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::net::server;
use crate::common::{Bed, Ended};
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
    crate::common::each(servers, async |(what, first)| {
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
        crate::common::finish(command).await
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
    let ended = crate::common::finish(command).await;
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
            crate::common::finish(by_variable).await,
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
    let ended = crate::common::finish(command).await;
    assert_eq!(ended.code, Some(69), "{}{}", ended.stdout, ended.stderr);
    let problem = problem(&ended);
    assert_eq!(problem["class"], "network", "{problem}");
    let mut tries = 0;
    // A connection that was given up before anything was said on it is none of the tries.
    while let Ok(request) = asked.try_recv() {
        if request.is_empty() {
            continue;
        }
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
            let refusal = crate::common::net::response("407 Proxy Authentication Required", "", "");
            let _ = stream.write_all(refusal.as_bytes()).await;
        }
    })
    .await;
    let bed = Bed::new(&["hello"]).await;
    bed.configure("https://dcdn.aliyuncs.com", "");
    let mut command = bed.command(&["push", "--timeout", "1s", "--log", "trace"]);
    command.env("HTTPS_PROXY", format!("http://user:{PASSWORD}@{address}"));
    let ended = crate::common::finish(command).await;
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
    let ended = crate::common::finish(command).await;
    bed.assert_there_once("no proxy", &ended);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}
