//! One HTTP client for both steps of an upload, and the only place where a request leaves the program.
//!
//! It follows no redirect (a redirect would carry a signed body to another host), repeats nothing by itself, and
//! bounds every answer in time and size. Errors lose their address, which could hold a signature.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hyper_util::client::proxy::matcher::Matcher;

use crate::clock;
use crate::config::Endpoint;
use crate::traffic::{Outcome, Traffic};

use super::Authorities;
use super::error::{self, Class, CloudError, NO_TLS};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections from before a suspend that lasted longer are taken for dead.
const LONGEST_SUSPEND: Duration = Duration::from_secs(10);

/// An answer that has been read to its end.
pub(super) struct Body {
    pub(super) status: u16,
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
    /// The server's time.
    pub(super) date: Option<SystemTime>,
}

/// The HTTP client. It is made anew where its connections must be taken for dead, since whoever used one would wait for
/// an answer until its time is up: after a suspend, and after an answer that never came. Without the latter a line that
/// broke in silence would cost one time-out for every connection that lay idle.
#[derive(Debug)]
pub(super) struct Client {
    loopback: bool,
    authorities: Authorities,
    present: Mutex<Present>,
    traffic: Mutex<Traffic>,
}

#[derive(Debug)]
struct Present {
    client: reqwest::Client,
    /// How long the machine had been suspended in all when it was made.
    asleep: Duration,
    /// How many there were before it.
    number: u64,
}

impl Client {
    /// A client for an API that is, or is not, on this machine.
    pub(super) fn new(loopback: bool, authorities: Authorities) -> Result<Self, reqwest::Error> {
        let present = Present {
            client: client(loopback, &authorities)?,
            asleep: clock::asleep(),
            number: 0,
        };
        Ok(Self {
            loopback,
            authorities,
            present: Mutex::new(present),
            traffic: Mutex::default(),
        })
    }

    /// Sends one request and reads its answer, at most `limit` bytes of it.
    pub(super) async fn send(
        &self,
        operation: &'static str,
        limit: usize,
        request: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder,
    ) -> Result<Body, CloudError> {
        let (client, number) = self.get();
        let begun = Instant::now();
        let answer = send(operation, request(&client), limit).await;
        let outcome = match &answer {
            Ok(body) if body.status < 300 => Outcome::Done,
            Ok(_) => Outcome::Refused,
            Err(_) => Outcome::Unanswered,
        };
        self.traffic().ended(operation, outcome, begun.elapsed());
        if matches!(&answer, Err(lost) if lost.class == Class::Ambiguous) {
            self.leave(number);
        }
        answer
    }

    /// What has been asked so far.
    pub(super) fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client as it is to be used now, and which one it is.
    fn get(&self) -> (reqwest::Client, u64) {
        let asleep = clock::asleep();
        let mut present = self.present();
        if asleep.saturating_sub(present.asleep) > LONGEST_SUSPEND {
            self.renew(&mut present);
            present.asleep = asleep;
        }
        (present.client.clone(), present.number)
    }

    /// Leaves the connections of a client alone, unless somebody else has done so already.
    fn leave(&self, number: u64) {
        let mut present = self.present();
        if present.number == number {
            self.renew(&mut present);
        }
    }

    fn renew(&self, present: &mut Present) {
        if let Ok(client) = client(self.loopback, &self.authorities) {
            present.client = client;
            present.number += 1;
        }
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The proxy that the client uses for an address, by the code that the client itself uses, without its password.
pub(super) fn proxy_of(endpoint: &Endpoint) -> Option<String> {
    if endpoint.loopback {
        return None;
    }
    let address = endpoint.url.parse().ok()?;
    let proxy = Matcher::from_system().intercept(&address)?;
    let hidden = match proxy.basic_auth().is_some() || proxy.raw_auth().is_some() {
        true => "***@",
        false => "",
    };
    let scheme = proxy.uri().scheme_str().unwrap_or("http");
    let host = proxy.uri().host().unwrap_or_default();
    let port = proxy.uri().port_u16();
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{hidden}{host}{port}"))
}

/// Makes a client. For an API on this machine no proxy and no certificate of the system is looked at, since neither
/// has a part in it.
fn client(loopback: bool, authorities: &Authorities) -> Result<reqwest::Client, reqwest::Error> {
    // A second installation is refused, which is fine: it is the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("er-dev/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT);
    let certificates = authorities.0.iter().cloned();
    builder = if loopback {
        builder.no_proxy().tls_certs_only(certificates)
    } else {
        builder.tls_certs_merge(certificates)
    };
    builder.build()
}

async fn send(
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
    let date = header("date")
        .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
        .map(|date| date.timestamp().into());
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
    // Without a copy, since it may be the answer that hands out a key.
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    Ok(Body {
        status,
        text,
        retry_after,
        date,
    })
}

/// Whether a connection came about and its encryption did not.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    // An error of the system hides the one it was made of from its sources.
    let wrapped = error.downcast_ref::<std::io::Error>();
    let inner = wrapped.and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| is_tls(inner)) || error.source().is_some_and(is_tls)
}

/// Tells a request that never left from one whose fate is open.
fn transport(operation: &'static str, error: reqwest::Error) -> CloudError {
    let class = if error.is_connect() || error.is_builder() {
        Class::NotSent
    } else {
        Class::Ambiguous
    };
    let error = error.without_url();
    let (timed_out, is_tls) = (error.is_timeout(), is_tls(&error));
    // The outer texts only say that sending failed; the innermost one names the reason.
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    // A certificate, for one, may hold whatever its maker likes.
    let reason = error::tidy(&reason.to_string(), error::MAX_MESSAGE_CHARS);
    let what = match class {
        _ if timed_out && class == Class::NotSent => "no connection in time".into(),
        _ if timed_out => "no answer in time".into(),
        Class::NotSent if is_tls => format!("{NO_TLS}: {reason}"),
        Class::NotSent => format!("no connection: {reason}"),
        _ => format!("the connection broke: {reason}"),
    };
    CloudError::unanswered(class, operation, what)
}
