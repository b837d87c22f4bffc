//! Servers that hand out keys: the metadata of an ECS instance, and whatever a credentials URI names.
//!
//! The metadata is asked in its second mode only, in which a token has to be fetched first, and never through a proxy.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::cloud::{Authorities, http};
use crate::secrets::Text;

/// Where every ECS instance finds its metadata (a fact of the service).
const METADATA: &str = "http://100.100.100.200";

/// How long the metadata, which is on the same machine, may take for each of its answers.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the server of a credentials URI may take.
const URI_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a token for the metadata lives, in seconds.
const TOKEN_LIFE: &str = "21600";

/// The largest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// What these requests are called in errors.
const OPERATION: &str = "credentials";

/// The answer of the metadata for a role of this instance, or for its only one. `address` stands in for the metadata in
/// a test, and has to be on this machine.
pub(super) async fn metadata(role: Option<&str>, address: Option<&str>) -> Result<Text, String> {
    let base = match address {
        None => METADATA.to_owned(),
        Some(address) => match address.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => format!("http://{address}"),
            _ => return Err("the address of the metadata is not on this machine".into()),
        },
    };
    let client = client(true, &Authorities::default())?;
    let token = send(&client, METADATA_TIMEOUT, |client| {
        client
            .put(format!("{base}/latest/api/token"))
            .header("X-aliyun-ecs-metadata-token-ttl-seconds", TOKEN_LIFE)
    })
    .await?;
    let mut token = HeaderValue::from_str(token.trim())
        .map_err(|_| "the metadata gave a token that no header can hold")?;
    token.set_sensitive(true);
    let get = async |path: &str| {
        let url = format!("{base}/latest/meta-data/ram/security-credentials/{path}");
        send(&client, METADATA_TIMEOUT, |client| {
            client
                .get(url)
                .header("X-aliyun-ecs-metadata-token", token.clone())
        })
        .await
    };
    let role = match role {
        Some(role) => role.to_owned(),
        None => get("")
            .await?
            .lines()
            .next()
            .unwrap_or("")
            .trim()
            .to_owned(),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if role.is_empty() || role.starts_with('.') || !role.chars().all(is_name) {
        return Err("the instance has no role, or one of a name that no role has".into());
    }
    get(&role).await
}

/// The answer of the server that a credentials URI names.
pub(super) async fn uri(uri: &str, authorities: &Authorities) -> Result<Text, String> {
    let url: Url = uri.parse().map_err(|_| "it is no address")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("its address is neither http nor https".into());
    }
    let client = client(url.scheme() == "http", authorities)?;
    send(&client, URI_TIMEOUT, |client| client.get(url)).await
}

/// A client. What is plain http is near, so no proxy has a part in it.
fn client(near: bool, authorities: &Authorities) -> Result<http::Client, String> {
    http::Client::new(near, authorities.clone()).map_err(|_| "no HTTP client could be made".into())
}

async fn send(
    client: &http::Client,
    timeout: Duration,
    request: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder,
) -> Result<Text, String> {
    let request = |client: &reqwest::Client| request(client).timeout(timeout);
    let answer = client.send(OPERATION, MAX_BYTES, request).await;
    match answer {
        Ok(answer) if answer.status == 200 => Ok(answer.text.into()),
        Ok(answer) => Err(format!("it answered with HTTP {}", answer.status)),
        Err(error) => Err(error.what),
    }
}
