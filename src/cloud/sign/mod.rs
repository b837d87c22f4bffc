//! How a request is signed. Pure: time, nonce and secret are arguments.
//!
//! One file a scheme. The percent-encoding is shared, because both schemes and the request body must agree on it to
//! the letter: a space is `%20`, `*` is `%2A`, `~` stays (the service's rule, which is RFC 3986's).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub mod rpc;

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
