//! The secrets that this process knows, so that no text goes out with one of them in it.
//!
//! Nothing shows a secret on purpose: each has a type that prints nothing. This is the last line behind that, for texts
//! that somebody else makes of what er-dev sent or of what it holds: a server's answer, a log line of a library, the
//! message of a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use zeroize::Zeroizing;

/// A text that is overwritten when it is dropped.
pub type Text = Zeroizing<String>;

/// A shorter text is no secret, and would be found all over the place.
const SHORTEST: usize = 4;

/// The most texts that are known. Keys are replaced every hour at the most often, so the oldest one ended long ago.
const MOST: usize = 64;

/// What stands in the place of a secret.
const STARS: &str = "***";

/// The same characters that signing leaves as they are.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

static KNOWN: Mutex<Vec<SecretString>> = Mutex::new(Vec::new());

/// From now on this text is hidden by [`scrub`].
pub fn learn(text: &str) {
    let mut known = known();
    let is_it = |other: &SecretString| other.expose_secret() == text;
    if text.len() < SHORTEST || known.iter().any(is_it) {
        return;
    }
    if known.len() == MOST {
        known.remove(0);
    }
    known.push(text.into());
}

/// A text without the secrets that are known.
pub fn scrub(text: &str) -> String {
    let known = known();
    without(text, known.iter().map(ExposeSecret::expose_secret))
}

/// A text without others, also where it has them percent-encoded once, as in a body, or twice, as in what is signed, or
/// with their quotes escaped.
pub fn without<'a>(text: &str, hidden: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = text.to_owned();
    for hidden in hidden.into_iter().filter(|text| text.len() >= SHORTEST) {
        let once = encoded(hidden);
        let twice = encoded(&once);
        let quoted: Text = Zeroizing::new(hidden.escape_debug().to_string());
        for form in [hidden, &once, &twice, &quoted] {
            if text.contains(form) {
                text = text.replace(form, STARS);
            }
        }
    }
    text
}

/// A server's answer with every text in it changed. In JSON any character can be written in several ways, so what a text
/// means is looked at there, and not how it is written.
pub fn in_answer(answer: &str, change: &dyn Fn(&str) -> String) -> String {
    match serde_json::from_str(answer) {
        Ok(mut value) => {
            each_text(&mut value, change);
            value.to_string()
        }
        Err(_) => change(answer),
    }
}

fn each_text(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(values) => values.iter_mut().for_each(|value| each_text(value, change)),
        Value::Object(fields) => {
            let fields = fields.values_mut();
            fields.for_each(|value| each_text(value, change));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn encoded(text: &str) -> Text {
    Zeroizing::new(utf8_percent_encode(text, RESERVED).to_string())
}

fn known() -> MutexGuard<'static, Vec<SecretString>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_in_every_form_that_it_travels_in() {
        let secret = format!("a+/={:032x}\"~", fastrand::u128(..));
        learn(&secret);
        learn(&secret);
        let once = encoded(&secret);
        let twice = encoded(&once);
        let json = serde_json::to_string(&secret).unwrap();
        let text = format!(
            "{secret} {} {} {json} {secret:?} and the rest",
            *once, *twice
        );
        assert_eq!(scrub(&text), "*** *** *** \"***\" \"***\" and the rest");
    }

    #[test]
    fn what_is_too_short_to_be_a_secret_hides_nothing() {
        assert_eq!(without("a bcd abcd", ["", "a", "bcd"]), "a bcd abcd");
        assert_eq!(without("a bcd abcd", ["abcd"]), "a bcd ***");
    }
}
