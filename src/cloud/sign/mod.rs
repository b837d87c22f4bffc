//! How a request is signed. Pure: time, nonce and secret are arguments.
//!
//! One file a scheme. The percent-encoding is shared, because both schemes and the request body must agree on it to
//! the letter: a space is `%20`, `*` is `%2A`, `~` stays (the service's rule, which is RFC 3986's).

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::Signature;

pub mod acs3;
pub mod rpc;

/// A call of the API before it is signed. It is always sent as a POST to `/`, with its arguments in the body.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// What is asked for.
    pub operation: &'a str,
    /// The version of the API.
    pub version: &'a str,
    /// The parameters of the operation, in any order.
    pub arguments: &'a [(&'a str, &'a str)],
    /// Host and, where it is not the scheme's own, port: the value of the `host` header.
    pub host: &'a str,
    /// The present time in UTC, as in `2025-01-02T03:04:05Z`.
    pub timestamp: &'a str,
    /// A text that was never used before: the service refuses one that it has seen.
    pub nonce: &'a str,
}

/// Who signs. It has no `Debug`, so that no secret is shown.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// The access key id, which is sent along.
    pub id: &'a str,
    /// The secret, which is not.
    pub secret: &'a str,
    /// The session token of a temporary key, which is sent along.
    pub token: Option<&'a str>,
}

/// What to send of a signed call. It has no `Debug`, since whoever has it could send it, too.
pub struct Signed {
    /// The headers by their names in lower case.
    pub headers: BTreeMap<&'static str, String>,
    /// The body.
    pub body: String,
}

/// The type of every body (a fact of the service).
const FORM: &str = "application/x-www-form-urlencoded";

/// Signs a call.
pub fn sign(scheme: Signature, key: &Key<'_>, call: &Call<'_>) -> Signed {
    match scheme {
        Signature::HmacSha1 => rpc::sign(key, call),
        Signature::Acs3HmacSha256 => acs3::sign(key, call),
    }
}

/// Everything but RFC 3986's unreserved characters is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Percent-encodes the UTF-8 bytes of a text with upper-case digits.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Joins parameters, already in order, as `key=value&key=value` with both sides encoded. The same text is signed and
/// sent as the body of the form.
pub fn form<'a>(params: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (key, value) in params {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(&encode(key));
        text.push('=');
        text.push_str(&encode(value));
    }
    text
}

#[cfg(test)]
mod tests;
