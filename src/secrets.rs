//! The secrets that this process knows, so that no text goes out with one of them in it.
//!
//! Nothing shows a secret on purpose: each has a type that prints nothing. This is the last line behind that, for texts
//! that somebody else makes of what er-dev sent or of what it holds: a server's answer, a log line of a library, the
//! message of a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
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

/// A text without others, also where it has them percent-encoded once, as in a body, or twice, as in what is signed, with
/// their quotes escaped, or in base64, by itself or amid other bytes.
pub fn without<'a>(text: &str, hidden: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = text.to_owned();
    for hidden in hidden.into_iter().filter(|text| text.len() >= SHORTEST) {
        for form in forms(hidden) {
            if form.len() >= SHORTEST && text.contains(form.as_str()) {
                text = text.replace(form.as_str(), STARS);
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

/// The ways in which a secret may be written, the longest first where one begins as another does.
fn forms(hidden: &str) -> Vec<Text> {
    let once = encoded(hidden);
    let twice = encoded(&once);
    let mut forms = vec![
        Zeroizing::new(hidden.to_owned()),
        lower(&once),
        lower(&twice),
        once,
        twice,
        Zeroizing::new(hidden.escape_debug().to_string()),
    ];
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.extend((0..3).map(|before| in_base64(hidden, before, engine)));
    }
    forms
}

/// What base64 makes of a text behind so many bytes of something else, as far as it is the same whatever stands around.
fn in_base64(text: &str, before: usize, engine: &GeneralPurpose) -> Text {
    let bytes = Zeroizing::new([&[0; 2][..before], text.as_bytes()].concat());
    let all = Zeroizing::new(engine.encode(&*bytes));
    // A character stands for six bits, and those at either end may be shared with what stands there.
    let start = (before * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    Zeroizing::new(all.get(start..end).unwrap_or_default().to_owned())
}

/// Percent-encoded text with small letters in its codes, and in those that an encoded percent sign begins.
fn lower(encoded: &str) -> Text {
    let mut lower = Zeroizing::new(encoded.to_owned());
    for (at, _) in encoded.match_indices('%') {
        let digits = match encoded.get(at + 1..at + 3) {
            Some("25") => at + 1..at + 5,
            _ => at + 1..at + 3,
        };
        if let Some(code) = lower.get_mut(digits) {
            code.make_ascii_lowercase();
        }
    }
    lower
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
    fn a_secret_is_hidden_in_small_codes_and_in_base64_amid_other_bytes() {
        use base64::engine::general_purpose::STANDARD;
        let secret = format!("k+/{:024x}/+Zk", fastrand::u128(..) >> 32);
        let core = &secret[3..27];
        let once = encoded(&secret);
        for text in [
            once.replace("%2B", "%2b").replace("%2F", "%2f"),
            encoded(&once)
                .replace("%252B", "%252b")
                .replace("%252F", "%252f"),
        ] {
            assert_eq!(without(&text, [secret.as_str()]), STARS, "{text}");
        }
        for before in ["", "x", "xy", "xyz"] {
            for after in ["", "x", "xy"] {
                let all = STANDARD.encode(format!("{before}{secret}{after}"));
                let left = without(&all, [secret.as_str()]);
                assert!(left.contains(STARS) && left.len() < 16, "{all}: {left}");
                assert!(!left.contains(core));
            }
        }
    }

    #[test]
    fn what_is_too_short_to_be_a_secret_hides_nothing() {
        assert_eq!(without("a bcd abcd", ["", "a", "bcd"]), "a bcd abcd");
        assert_eq!(without("a bcd abcd", ["abcd"]), "a bcd ***");
    }
}
