//! What a call tells the gate, seen from outside. Here is a server, so the clock runs.

use std::fs;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::cloud::credentials::Credentials;
use crate::cloud::credentials::keys::Keys;
use crate::cloud::{Authorities, Cloud, Timeouts};
use crate::config::{Endpoint, Kind, Service, Signature};
use crate::routine::RoutineName;

use super::*;

/// Lists a routine of a server that answers like this, and returns the client.
async fn after_an_answer_of(answer: &'static str, dir: &Path) -> Cloud {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let service = Service {
        kind: Kind::Dcdn,
        endpoint: Endpoint {
            url: format!("http://{host}"),
            host,
            loopback: true,
        },
        signature: Signature::default(),
        profile: None,
    };
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4_096]).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let limits = limits(80, 10, 1);
    let cloud = Cloud::new(
        &service,
        Arc::new(Keys::fixed(Credentials::emulator())),
        limits,
        dir,
        Timeouts::default(),
        Authorities::default(),
    );
    let cloud = cloud.unwrap();
    let routine = RoutineName::new("hello").unwrap();
    let permit = cloud.permit().await;
    cloud.list(permit, &routine).await.unwrap_err();
    server.await.unwrap();
    cloud
}

#[tokio::test]
async fn a_refusal_as_one_request_too_many_halves_the_rate() {
    let dir = TempDir::new().unwrap();
    let answer = "HTTP/1.1 503 S\r\ncontent-length: 26\r\n\r\n{\"Code\":\"Throttling.User\"}";
    let cloud = after_an_answer_of(answer, dir.path()).await;
    assert_eq!(cloud.budget().rate, 40);
    let place = fs::read_to_string(dir.path().join("slot-0")).unwrap();
    assert_eq!(place.trim().parse(), Ok(0));
}

#[tokio::test]
async fn a_broken_connection_leaves_the_place_to_rest() {
    let dir = TempDir::new().unwrap();
    let before = clock::now();
    let cloud = after_an_answer_of("HTTP/1.1 200 O", dir.path()).await;
    assert_eq!(cloud.budget().rate, 80);
    let place = fs::read_to_string(dir.path().join("slot-0")).unwrap();
    let until = Duration::from_nanos(place.trim().parse().unwrap());
    let rest = (before + slots::REST).since_boot()..=(clock::now() + slots::REST).since_boot();
    assert!(rest.contains(&until), "{until:?}");
}
