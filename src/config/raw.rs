//! The file as it is written: every key with its type, nothing checked beyond that.
//!
//! Keys whose feature is still to come are here as well, so that they are read like the others and refused with a
//! better sentence than "unknown key". Values keep their place in the file for the checks that follow. The names of keys
//! stand in these structs only; what the parser says about them is turned into er-dev's words here.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Unexpected, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Fault;
use super::{Backend, Kind, Rotate, Signature, Upload, Verify, forbidden};

/// The longest unknown word that is compared with the known ones, since comparing takes memory by its length.
const MAX_GUESSED_BYTES: usize = 64;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) service: Service,
    pub(super) limits: Limits,
    pub(super) watch: Watch,
    pub(super) revisions: Revisions,
    pub(super) daemon: Daemon,
    pub(super) routine: Vec<Routine>,
}

/// `[service]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Service {
    pub(super) kind: Option<Spanned<Kind>>,
    pub(super) endpoint: Option<Spanned<String>>,
    pub(super) signature: Option<Signature>,
    pub(super) profile: Option<Spanned<String>>,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Limits {
    pub(super) requests_per_second: Option<Spanned<i64>>,
    pub(super) burst: Option<Spanned<i64>>,
    pub(super) max_in_flight: Option<Spanned<i64>>,
}

/// `[watch]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Watch {
    pub(super) debounce: Option<Spanned<Period>>,
    pub(super) max_wait: Option<Spanned<Period>>,
    pub(super) rescan: Option<Spanned<Period>>,
    pub(super) backend: Option<Backend>,
    pub(super) poll_interval: Option<Spanned<Period>>,
    pub(super) ignore: Vec<Spanned<String>>,
}

/// `[revisions]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Revisions {
    pub(super) cap: Option<Spanned<i64>>,
    pub(super) reserve: Option<Spanned<i64>>,
    pub(super) keep_newest: Option<Spanned<i64>>,
    pub(super) rotate: Option<Rotate>,
    pub(super) pin: Vec<Spanned<String>>,
    pub(super) verify: Option<Verify>,
}

/// `[daemon]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Daemon {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) drain: Option<Spanned<Period>>,
}

/// `[[routine]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Routine {
    pub(super) name: Spanned<String>,
    pub(super) entry: Spanned<String>,
    pub(super) description: Option<Spanned<String>>,
    pub(super) upload: Option<Spanned<Upload>>,
    #[serde(default)]
    pub(super) publish_to: Vec<Spanned<String>>,
    pub(super) check: Option<bool>,
    pub(super) follow: Option<bool>,
    pub(super) create: Option<bool>,
    pub(super) build: Option<Spanned<Build>>,
}

/// `build` of a routine.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table such as { command = \"npm run build\", watch = [\"src\"] }"
)]
pub(super) struct Build {
    pub(super) command: Spanned<String>,
    #[serde(default)]
    pub(super) watch: Vec<Spanned<String>>,
    pub(super) timeout: Option<Spanned<Period>>,
}

/// A length of time, written like `100ms` or `1m 30s`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Period(pub(super) Duration);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"100ms\" or \"2s\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Period, E> {
                humantime::parse_duration(text)
                    .map(Period)
                    .map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Reads a text. What may not stand in the file at all is reported before anything else.
pub(super) fn read(text: &str) -> Result<File, Fault> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            forbidden::check_broken(text)?;
            let span = error.span().unwrap_or(0..0);
            return Err(Fault::at(span, error.message()));
        }
    };
    forbidden::check(document.get_ref())?;
    toml::from_str(text).map_err(|error| translated(&error, document.get_ref()))
}

/// Says in er-dev's words what the parser said about a key or the type of a value.
fn translated(error: &toml::de::Error, document: &DeTable<'_>) -> Fault {
    let span = error.span().unwrap_or(0..0);
    let message = error.message();
    let (table, key) = owner(document, &span, "");
    let mut quoted = message.split('`').skip(1).step_by(2);

    if message.starts_with("unknown field") {
        let unknown = quoted.next().unwrap_or_default();
        let table = if table.is_empty() {
            "at the top level".into()
        } else {
            format!("in {table}")
        };
        return Fault::at(span, format!("unknown key `{unknown}` {table}")).help(suggestion(
            unknown,
            &quoted.collect::<Vec<_>>(),
            "known are",
        ));
    }
    if message.starts_with("unknown variant") {
        let unknown = quoted.next().unwrap_or_default();
        return Fault::at(span, format!("`{key}` cannot be `{unknown}`")).help(suggestion(
            unknown,
            &quoted.collect::<Vec<_>>(),
            "it can be",
        ));
    }
    if message.starts_with("missing field") {
        let missing = quoted.next().unwrap_or_default();
        return Fault::at(span, format!("a `{key}` has no `{missing}`"))
            .help(format!("add `{missing} = \"...\"` below this line"));
    }
    let expected = match message.rsplit_once(", expected ") {
        Some((_, "i64")) => "a whole number",
        Some((_, "a sequence")) => "a list",
        Some((_, "a boolean")) => "true or false",
        Some((_, "a string")) | None => "a text in quotes",
        Some((_, expected)) => expected,
    };
    let fault = Fault::at(span, format!("`{key}` must be {expected}"));
    if key == "routine" && expected == "a list" {
        return fault.help("write `[[routine]]`, with two brackets on either side");
    }
    fault
}

/// The nearest of the known words, or all of them where none is near.
pub(super) fn suggestion(unknown: &str, known: &[&str], all: &str) -> String {
    let nearest = known
        .iter()
        .filter(|_| unknown.len() <= MAX_GUESSED_BYTES)
        .map(|word| (strsim::damerau_levenshtein(unknown, word), word))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, word)| *distance <= 1.max(word.chars().count() / 3));
    match nearest {
        Some((_, word)) => format!("did you mean `{word}`?"),
        None => format!("{all} `{}`", known.join("`, `")),
    }
}

/// The table, as people write it, and the key that a place in the document belongs to.
fn owner(table: &DeTable<'_>, place: &Range<usize>, path: &str) -> (String, String) {
    let holds = |span: Range<usize>| span.start <= place.start && place.end <= span.end;
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let dotted = match path {
            "" => name.to_owned(),
            _ => format!("{path}.{name}"),
        };
        let mut held = holds(key.span()) || holds(value.span());
        for (inner, title, span) in tables(value, &dotted) {
            let (deeper, found) = owner(inner, place, &dotted);
            if !found.is_empty() {
                return (if deeper.is_empty() { title } else { deeper }, found);
            }
            held |= holds(span);
        }
        if held {
            return (String::new(), name.to_owned());
        }
    }
    (String::new(), String::new())
}

/// The table or the tables that a value is, with their titles and places.
fn tables<'a, 'i>(
    value: &'a Spanned<DeValue<'i>>,
    name: &str,
) -> Vec<(&'a DeTable<'i>, String, Range<usize>)> {
    match value.get_ref() {
        DeValue::Table(table) => vec![(table, format!("[{name}]"), value.span())],
        DeValue::Array(values) => values
            .iter()
            .filter_map(|value| Some((value.get_ref().as_table()?, value.span())))
            .map(|(table, span)| (table, format!("[[{name}]]"), span))
            .collect(),
        _ => Vec::new(),
    }
}
