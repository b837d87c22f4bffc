//! Asks a running `watch` at its control socket.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use super::status::Status;

/// The largest answer, in bytes: some ten thousand routines.
const MAX_ANSWER: usize = 8 << 20;

/// How long a `watch` may take to say how it stands.
pub const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It took too long.
    #[error("it did not answer within {}", humantime::format_duration(*.0))]
    Late(Duration),
    /// The connection broke, as when the program ended.
    #[error("the connection broke before there was an answer; it may have ended")]
    Broken(#[source] reqwest::Error),
    /// It says why it does not answer.
    #[error("{0}")]
    Refused(String),
    /// It answers in another form.
    #[error("its answer has a form that this er-dev does not know; it may be of another version")]
    Form,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// How everything stands. It may take [`STATUS_PATIENCE`] to answer, or less if `most` is less.
pub async fn status(socket: &Path, most: Duration) -> Result<Status, ClientError> {
    ask(socket, Method::GET, "/status", STATUS_PATIENCE.min(most)).await
}

/// How everything stands once every edit made until now has ended.
pub async fn sync(socket: &Path, timeout: Duration) -> Result<Status, ClientError> {
    ask(socket, Method::POST, "/sync", timeout).await
}

async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    timeout: Duration,
) -> Result<Status, ClientError> {
    let (code, body) = tokio::time::timeout(timeout, exchange(socket, method, path))
        .await
        .map_err(|_| ClientError::Late(timeout))?
        .map_err(ClientError::Broken)?;
    if code == 200 {
        return serde_json::from_slice(&body).map_err(|_| ClientError::Form);
    }
    let refusal: Refusal = serde_json::from_slice(&body).map_err(|_| ClientError::Form)?;
    Err(ClientError::Refused(refusal.error))
}

/// Sends a request and reads the beginning of its answer.
async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
) -> Result<(u16, Vec<u8>), reqwest::Error> {
    // The client cannot be made without, though nothing is encrypted here. A second installation is refused.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .build()?;
    let url = format!("http://er-dev{path}");
    let mut response = client.request(method, url).send().await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_ANSWER {
            break;
        }
    }
    Ok((response.status().as_u16(), body))
}
