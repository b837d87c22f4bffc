//! The switches of the emulated service: every answer that the real one leaves open, written `key=value`. Pure.
//!
//! What a switch does is in `world`, `operations`, `describe` and `storage`. The defaults are those of
//! [`Settings::default`].

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use super::staging::Staging;
use super::world::{Settings, Slot};

/// The longest description under `desc=max48`, in characters. A longer one is refused with `InvalidParameter`.
pub const MAX_DESCRIPTION: usize = 48;

/// The largest cap, and with it the most versions a routine can have here.
const MAX_CAP: usize = 1_000;

/// The longest lag and the longest life of a form.
const MAX_DURATION: Duration = Duration::from_secs(86_400);

/// The furthest the emulated clock may be off, in seconds: a hundred years.
const MAX_CLOCK: i64 = 3_153_600_000;

/// The switches with what they can be set to.
const SWITCHES: &[(&str, &str)] = &[
    ("alloc", "upload|callback"),
    ("guard", "on|off"),
    ("delete_unknown", "error|ok"),
    ("delete_works", "yes|no"),
    ("desc", "max48|free"),
    ("desc_form", "base64|json_base64|plain"),
    ("desc_mangle", "on|off"),
    ("lag", "a time up to a day, as in 5s"),
    ("form_reuse", "yes|no"),
    ("form_ttl", "a time up to a day, as in 300s"),
    ("envconf", "full|partial|missing|null"),
    ("rate_scope", "operation|total"),
    ("code_bytes", "exact|normalised"),
    ("cap", "a number from 1 to 1000"),
    ("clock", "seconds, as in -1200"),
    ("revision_form", "text|number|rounded"),
    ("content", "normal|missing"),
    ("staging", "overwrite|new"),
    ("staging_name", "unstable|number"),
    ("staging_read", "yes|no"),
    ("commit_form", "map|number"),
    ("seed", "a number"),
];

/// In which form descriptions are stored and told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptionForm {
    /// Base64 of the text.
    Base64,
    /// Base64 of the text as a JSON string, quotes included.
    JsonBase64,
    /// The text itself.
    Plain,
}

/// What of `EnvConf` is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvConf {
    /// Every environment.
    Full,
    /// Every environment but production, which `Envs` still names.
    Partial,
    /// No such field.
    Missing,
    /// The field is null.
    Null,
}

/// What the limit of calls a second is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateScope {
    /// Each operation has its own.
    Operation,
    /// All operations share one.
    Total,
}

/// How the number of a version stands in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevisionForm {
    /// As a JSON string.
    Text,
    /// As a JSON number, exact.
    Number,
    /// As a JSON number that went through a float and is off by some hundreds.
    Rounded,
}

/// Why a text sets no switch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// It is no pair.
    #[error("`{0}` sets nothing; write <switch>=<value>, as in `alloc=callback`")]
    Pair(String),
    /// There is no such switch.
    #[error("there is no switch `{0}`; there are: {names}", names = names())]
    Name(String),
    /// The switch has no such position.
    #[error("`{value}` is nothing `{name}` can be set to; take {allowed}")]
    Value {
        /// The switch.
        name: String,
        /// What it was to be set to.
        value: String,
        /// What it can be set to.
        allowed: &'static str,
    },
}

fn names() -> String {
    let names: Vec<&str> = SWITCHES.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

impl Settings {
    /// Sets one switch, written `key=value`. In an error nothing changes.
    pub fn set(&mut self, text: &str) -> Result<(), SwitchError> {
        let (name, value) = text
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
            .ok_or_else(|| SwitchError::Pair(text.to_owned()))?;
        let Some((_, allowed)) = SWITCHES.iter().find(|(known, _)| *known == name) else {
            return Err(SwitchError::Name(name.to_owned()));
        };
        self.turn(name, value).ok_or_else(|| SwitchError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            allowed,
        })
    }

    fn turn(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "alloc" => {
                self.slot = one_of(
                    value,
                    [("upload", Slot::AtUpload), ("callback", Slot::AtCallback)],
                )?;
            }
            "guard" => self.guard = one_of(value, [("on", true), ("off", false)])?,
            "delete_unknown" => {
                self.delete_unknown_is_ok = one_of(value, [("ok", true), ("error", false)])?;
            }
            "delete_works" => self.delete_works = one_of(value, [("yes", true), ("no", false)])?,
            "desc" => {
                self.short_descriptions = one_of(value, [("max48", true), ("free", false)])?;
            }
            "desc_form" => {
                let forms = [
                    ("base64", DescriptionForm::Base64),
                    ("json_base64", DescriptionForm::JsonBase64),
                    ("plain", DescriptionForm::Plain),
                ];
                self.description_form = one_of(value, forms)?;
            }
            "desc_mangle" => {
                self.mangled_descriptions = one_of(value, [("on", true), ("off", false)])?;
            }
            "lag" => self.lag = duration(value)?,
            "form_reuse" => self.form_reuse = one_of(value, [("yes", true), ("no", false)])?,
            "form_ttl" => self.form_life = duration(value)?,
            "envconf" => {
                let kinds = [
                    ("full", EnvConf::Full),
                    ("partial", EnvConf::Partial),
                    ("missing", EnvConf::Missing),
                    ("null", EnvConf::Null),
                ];
                self.envconf = one_of(value, kinds)?;
            }
            "rate_scope" => {
                let scopes = [
                    ("operation", RateScope::Operation),
                    ("total", RateScope::Total),
                ];
                self.rate_scope = one_of(value, scopes)?;
            }
            "code_bytes" => {
                self.normalised_code = one_of(value, [("normalised", true), ("exact", false)])?;
            }
            "cap" => {
                let cap = value.parse().ok();
                self.cap = cap.filter(|cap| (1..=MAX_CAP).contains(cap))?;
            }
            "clock" => {
                let seconds: i64 = value.parse().ok()?;
                let within = (-MAX_CLOCK..=MAX_CLOCK).contains(&seconds);
                self.clock = within.then(|| SignedDuration::from_secs(seconds))?;
            }
            "revision_form" => {
                let forms = [
                    ("text", RevisionForm::Text),
                    ("number", RevisionForm::Number),
                    ("rounded", RevisionForm::Rounded),
                ];
                self.revision_form = one_of(value, forms)?;
            }
            "content" => {
                self.content_missing = one_of(value, [("missing", true), ("normal", false)])?;
            }
            "staging" => {
                self.staging = one_of(
                    value,
                    [("overwrite", Staging::Overwrite), ("new", Staging::New)],
                )?;
            }
            "staging_name" => {
                self.staging_is_numbered = one_of(value, [("number", true), ("unstable", false)])?;
            }
            "staging_read" => {
                self.staging_is_readable = one_of(value, [("yes", true), ("no", false)])?;
            }
            "commit_form" => {
                self.commit_is_bare = one_of(value, [("number", true), ("map", false)])?;
            }
            "seed" => self.seed = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

impl RevisionForm {
    /// Writes every number of a version in an answer in this form.
    pub(super) fn apply(self, answer: &mut Value) {
        match answer {
            Value::Array(items) => items.iter_mut().for_each(|item| self.apply(item)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field {
                        Value::String(text) if name == "CodeRevision" || name == "CodeRev" => {
                            if let Some(number) = self.number(text) {
                                *field = Value::from(number);
                            }
                        }
                        other => self.apply(other),
                    }
                }
            }
            _ => {}
        }
    }

    fn number(self, text: &str) -> Option<u64> {
        match self {
            Self::Text => None,
            Self::Number => text.parse().ok(),
            // Written without an exponent a float has the digits it needs to be told apart, then zeros.
            Self::Rounded => text.parse::<f64>().ok()?.to_string().parse().ok(),
        }
    }
}

fn one_of<T, const N: usize>(value: &str, choices: [(&str, T); N]) -> Option<T> {
    choices
        .into_iter()
        .find(|(word, _)| *word == value)
        .map(|(_, choice)| choice)
}

fn duration(text: &str) -> Option<Duration> {
    let duration = humantime::parse_duration(text).ok();
    duration.filter(|duration| *duration <= MAX_DURATION)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_switch_can_be_turned_to_each_of_its_positions() {
        for (name, allowed) in SWITCHES {
            let values = match *name {
                "lag" | "form_ttl" => "0s|5s|1h",
                "cap" => "1|1000",
                "clock" => "0|-1200|1200",
                "seed" => "0|7",
                _ => allowed,
            };
            let mut met = Vec::new();
            for value in values.split('|') {
                let mut settings = Settings::default();
                settings.set(&format!("{name}={value}")).unwrap();
                assert!(
                    !met.contains(&settings),
                    "{name}={value} is as another position"
                );
                met.push(settings);
            }
        }
    }

    #[test]
    fn a_wrong_switch_is_told_with_what_there_is_and_changes_nothing() {
        let mut settings = Settings::default();
        for (text, words) in [
            ("alloc", "<switch>=<value>"),
            ("slot=upload", "alloc, guard"),
            ("alloc=never", "upload|callback"),
            ("lag=5", "as in 5s"),
            ("lag=2days", "up to a day"),
            ("cap=0", "1 to 1000"),
            ("clock=late", "-1200"),
            ("desc=max49", "max48|free"),
        ] {
            let error = settings.set(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn a_number_is_told_as_text_exactly_or_as_a_float_would_have_it() {
        let answer = json!({"CodeRevs": [{"CodeRevision": "1620876959997924701"}], "EnvConf": {"production":
            {"CodeRev": "1620876959997924701"}, "staging": {"CodeRev": ""}}, "Other": "12"});
        let told = |form: RevisionForm| {
            let mut told = answer.clone();
            form.apply(&mut told);
            told
        };
        assert_eq!(told(RevisionForm::Text), answer);
        for (form, number) in [
            (RevisionForm::Number, 1_620_876_959_997_924_701_u64),
            (RevisionForm::Rounded, 1_620_876_959_997_924_600),
        ] {
            let told = told(form);
            assert_eq!(told["CodeRevs"][0]["CodeRevision"], json!(number));
            assert_eq!(told["EnvConf"]["production"]["CodeRev"], json!(number));
            assert_eq!(told["EnvConf"]["staging"]["CodeRev"], "");
            assert_eq!(told["Other"], "12");
        }
    }
}
