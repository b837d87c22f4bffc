//! One HTTP client for both steps of an upload, and the only place where a request leaves the program.
//!
//! It follows no redirect (a redirect would carry a signed body to another host), repeats nothing by itself, and
//! bounds every answer in time and size. Errors lose their address, which could hold a signature.

use std::time::{Duration, SystemTime};

use super::error::{self, Class, CloudError};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer that has been read to its end.
pub(super) struct Body {
    pub(super) status: u16,
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
}

/// Makes the client. For an API on this machine no proxy and no certificate of the system is looked at, since neither
/// has a part in it.
pub(super) fn client(loopback: bool) -> Result<reqwest::Client, reqwest::Error> {
    // A second installation is refused, which is fine: it is the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("er-dev/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT);
    if loopback {
        builder = builder.no_proxy().tls_certs_only([]);
    }
    builder.build()
}

/// Sends one request and reads its answer, at most `limit` bytes of it.
pub(super) async fn send(
    operation: &'static str,
    request: reqwest::RequestBuilder,
    limit: usize,
) -> Result<Body, CloudError> {
    let broken = |error: reqwest::Error| transport(operation, error);
    let mut response = request
        .header(reqwest::header::ACCEPT_ENCODING, "identity")
        .send()
        .await
        .map_err(broken)?;
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let retry_after = error::retry_after(
        header("x-acs-retry-after"),
        header("retry-after"),
        SystemTime::now(),
    );
    if header("content-encoding").is_some_and(|encoding| encoding != "identity") {
        return Err(CloudError::unanswered(
            Class::Ambiguous,
            operation,
            "the answer is compressed although that was not asked for",
        ));
    }
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if bytes.len() + chunk.len() > limit {
            return Err(CloudError::unanswered(
                Class::Ambiguous,
                operation,
                format!("the answer is longer than {limit} bytes"),
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Body {
        status,
        text,
        retry_after,
    })
}

/// Tells a request that never left from one whose fate is open.
fn transport(operation: &'static str, error: reqwest::Error) -> CloudError {
    let class = if error.is_connect() || error.is_builder() {
        Class::NotSent
    } else {
        Class::Ambiguous
    };
    let error = error.without_url();
    let timed_out = error.is_timeout();
    // The outer texts only say that sending failed; the innermost one names the reason.
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    let what = match class {
        _ if timed_out && class == Class::NotSent => "no connection in time".into(),
        _ if timed_out => "no answer in time".into(),
        Class::NotSent => format!("no connection: {reason}"),
        _ => format!("the connection broke: {reason}"),
    };
    CloudError::unanswered(class, operation, what)
}
