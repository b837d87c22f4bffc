//! One signed call of the API: permit, sign, send, decode. Whether to repeat one is for the caller to decide.
//!
//! A call that is refused because of this machine's clock was not carried out, and from then on the service's time is
//! used. Such a call goes out once more by itself, unless its caller brought the permit: then it may rest on something
//! that is old by now. The same holds for one whose key was refused and has been replaced.

use std::sync::Arc;
use std::time::SystemTime;

use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::credentials::Credentials;
use super::credentials::keys::{Ended, Key, Keys};
use super::error::{self, Answer, Class, CloudError};
use super::gate::{Gate, Permit, State, Usage};
use super::sign;
use super::time::WallClock;
use super::{Timeouts, http};
use crate::clock;
use crate::config::{Service, Signature};
use crate::secrets;

/// The version of the API that is spoken.
const VERSION: &str = "2018-01-15";

/// The largest answer of a call that carries no code, in bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The largest answer that carries code: the largest code in base64, with room for what is around it, in bytes.
const MAX_CODE_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// How much of an answer is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// Words about routines.
    Words,
    /// The code of a version.
    Code,
}

/// The API behind its gate.
pub(super) struct Rpc {
    pub(super) client: http::Client,
    pub(super) timeouts: Timeouts,
    url: String,
    host: String,
    scheme: Signature,
    pub(super) keys: Arc<Keys>,
    gate: Gate,
    pub(super) clock: WallClock,
}

impl Rpc {
    pub(super) fn new(
        client: http::Client,
        service: &Service,
        keys: Arc<Keys>,
        gate: Gate,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            client,
            timeouts,
            url: format!("{}/", service.endpoint.url),
            host: service.endpoint.host.clone(),
            scheme: service.signature,
            keys,
            gate,
            clock: WallClock::default(),
        }
    }

    /// A permit for [`Rpc::send`].
    pub(super) async fn permit(&self) -> Permit<'_> {
        // Before the wait for the permit, so that nobody waits for a key with a permit in hand.
        self.keys.refresh().await;
        self.gate.permit().await
    }

    /// A permit ahead of the line, for [`Rpc::send`].
    pub(super) async fn urgent_permit(&self) -> Permit<'_> {
        self.keys.refresh().await;
        self.gate.urgent_permit().await
    }

    pub(super) fn usage(&self) -> Usage {
        self.gate.usage()
    }

    pub(super) fn budget(&self) -> State {
        self.gate.state()
    }

    /// Sends one call and returns its whole answer.
    pub(super) async fn call(
        &self,
        operation: &'static str,
        arguments: &[(&'static str, &str)],
        size: Size,
    ) -> Result<Value, CloudError> {
        let permit = self.permit().await;
        match self.send(permit, operation, arguments, size).await {
            Err(error) if error.clock_set || error.key_changed => {
                let permit = self.permit().await;
                self.send(permit, operation, arguments, size).await
            }
            done => done,
        }
    }

    /// Sends one call with a permit that the caller waited for.
    pub(super) async fn send(
        &self,
        permit: Permit<'_>,
        operation: &'static str,
        arguments: &[(&'static str, &str)],
        size: Size,
    ) -> Result<Value, CloudError> {
        let key = self.key(operation)?;
        self.send_with(&key, permit, operation, arguments, size)
            .await
    }

    /// The key to sign with.
    pub(super) fn key(&self, operation: &'static str) -> Result<Arc<Key>, CloudError> {
        let none =
            |ended: Ended| CloudError::unusable(Class::Credentials, operation, ended.to_string());
        self.keys.usable().map_err(none)
    }

    /// Sends one call that is signed with this key.
    pub(super) async fn send_with(
        &self,
        key: &Key,
        mut permit: Permit<'_>,
        operation: &'static str,
        arguments: &[(&'static str, &str)],
        size: Size,
    ) -> Result<Value, CloudError> {
        // Time and nonce are taken after the wait for the permit, so that neither is old when it arrives.
        let now = self.clock.now(SystemTime::now(), clock::now());
        let signed_with = self.clock.offset();
        let signed = self.signed(&key.credentials, operation, arguments, now, &nonce());
        let request = |client: &reqwest::Client| {
            let request = client.post(&self.url).timeout(self.timeouts.api);
            let headers = signed.headers.into_iter();
            headers
                .fold(request, |request, (name, value)| {
                    request.header(name, value)
                })
                .body(signed.body)
        };
        let limit = match size {
            Size::Words => MAX_ANSWER_BYTES,
            Size::Code => MAX_CODE_ANSWER_BYTES,
        };
        permit.sending();
        self.client.traffic().sent(clock::now());
        let answer = self.client.send(operation, limit, request).await;
        if !matches!(&answer, Err(lost) if !lost.answered && lost.class != Class::NotSent) {
            permit.answered();
        }
        drop(permit);
        let answer = answer?;
        if answer.status != 200 {
            let told = Answer {
                status: answer.status,
                body: &scrubbed(&key.credentials, &answer.text),
                retry_after: answer.retry_after,
            };
            let mut error = error::of_api(operation, told);
            if let (Some(date), true) = (answer.date, error.request_id.is_some()) {
                self.clock.see(date, SystemTime::now());
            }
            if error.class == Class::Throttled {
                self.gate.throttled().await;
            }
            if error.class == Class::Clock && error.request_id.is_some() {
                let set = |date| self.clock.correct(date, SystemTime::now());
                // Another request may have set it since this one was signed.
                error.clock_set =
                    answer.date.is_some_and(set) || self.clock.offset() != signed_with;
            }
            if error.class == Class::Credentials && !error.is_permission() {
                error.key_changed = self.keys.refused(key).await;
            }
            return Err(error);
        }
        match serde_json::from_str::<Value>(&answer.text) {
            Ok(value) if value.get("RequestId").is_some() => {
                if let Some(date) = answer.date {
                    self.clock.see(date, SystemTime::now());
                }
                Ok(value)
            }
            _ => Err(CloudError::unusable(
                Class::Ambiguous,
                operation,
                error::NOT_THE_SERVICE,
            )),
        }
    }

    fn signed(
        &self,
        credentials: &Credentials,
        operation: &str,
        arguments: &[(&'static str, &str)],
        now: SystemTime,
        nonce: &str,
    ) -> sign::Signed {
        let key = sign::Key {
            id: &credentials.id,
            secret: credentials.secret().expose_secret(),
            token: credentials.token().map(|token| token.expose_secret()),
        };
        let call = sign::Call {
            operation,
            version: VERSION,
            arguments,
            host: &self.host,
            timestamp: &humantime::format_rfc3339_seconds(now).to_string(),
            nonce,
        };
        sign::sign(self.scheme, &key, &call)
    }
}

/// A server's text without what this program must not repeat, should a server repeat it.
pub(super) fn scrubbed(credentials: &Credentials, text: &str) -> String {
    let token = credentials.token();
    let token = token.map_or("", |token| token.expose_secret());
    let secret = credentials.secret().expose_secret();
    secrets::in_answer(text, &|text| {
        secrets::without(text, [secret, token, &credentials.id])
    })
}

/// A random UUID (version 4), fresh for every attempt: the service refuses a nonce it has seen.
pub(super) fn nonce() -> String {
    let random = fastrand::u128(..);
    let marked = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{marked:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_repeat_a_key_in_any_writing_and_it_is_not_repeated_here() {
        let canary = |name: &str| format!("{name}+/={:032x}", fastrand::u128(..));
        let (id, secret, token) = (canary("id"), canary("secret"), canary("token"));
        let env = [
            ("ALICLOUD_ACCESS_KEY_ID", id.clone()),
            ("ALICLOUD_ACCESS_KEY_SECRET", secret.clone()),
            ("ALICLOUD_SECURITY_TOKEN", token.clone()),
        ];
        let env = move |name: &str| {
            let found = env.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone())
        };
        let found = Keys::find(
            Arc::new(env),
            None,
            true,
            super::super::Authorities::default(),
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let key = runtime.block_on(found).unwrap().present();
        for part in [&id, &secret, &token] {
            let once = sign::encode(part);
            let escaped: String = part
                .chars()
                .map(|c| format!("\\u{:04x}", c as u32))
                .collect();
            let slashed = part.replace('/', "\\/");
            let twice = sign::encode(&once);
            for written in [part, &once, &twice, &escaped, &slashed] {
                let body = format!("{{\"Message\":\"you sent {written} to us\"}}");
                let expected = "{\"Message\":\"you sent *** to us\"}";
                assert_eq!(scrubbed(&key.credentials, &body), expected);
            }
            let xml = format!("<Message>{part} {twice}</Message>");
            assert_eq!(
                scrubbed(&key.credentials, &xml),
                "<Message>*** ***</Message>"
            );
        }
    }

    #[test]
    fn a_nonce_is_a_random_uuid_and_never_the_same() {
        let nonces: std::collections::HashSet<String> = (0..10_000).map(|_| nonce()).collect();
        assert_eq!(nonces.len(), 10_000);
        for nonce in nonces {
            assert_eq!(nonce.len(), 36);
            assert_eq!(&nonce[14..15], "4");
            assert!(matches!(&nonce[19..20], "8" | "9" | "a" | "b"), "{nonce}");
        }
    }
}
