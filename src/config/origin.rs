//! Every key that is in force, with its value and where that is from: a line of the file, or a default. Pure.
//!
//! The defaults are those of `config.example.toml`, which holds every key there is; a test keeps it equal to what the
//! checks take. So a key that is new there is shown without a word here.

use std::fmt::Write as _;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::line_of;

/// The file of all keys and their defaults.
const EXAMPLE: &str = include_str!("../../config.example.toml");

/// A key that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The table it is in.
    pub table: String,
    /// Which of several tables of that name, counted from 0; `None` where there can be only one.
    pub index: Option<usize>,
    /// Its name.
    pub key: String,
    /// Its value, as the file has it.
    pub value: Value,
    /// The line of the file, counted from 1; `None` for a default.
    pub line: Option<usize>,
}

impl Setting {
    /// The value as it would stand in the file, on one line.
    pub fn written(&self) -> String {
        written(&self.value)
    }
}

/// Every key of a file that was checked, in the order of the example.
pub(super) fn settings(text: &str) -> Vec<Setting> {
    let (Ok(example), Ok(file)) = (DeTable::parse(EXAMPLE), DeTable::parse(text)) else {
        return Vec::new();
    };
    let nothing = DeTable::default();
    let mut settings = Vec::new();
    for (table, default) in in_order(example.get_ref()) {
        let written = file.get_ref().get(table.as_str());
        match default {
            DeValue::Array(defaults) => {
                let default = defaults
                    .first()
                    .and_then(|first| first.get_ref().as_table());
                let tables = written.and_then(|value| value.get_ref().as_array());
                for (index, one) in tables.into_iter().flatten().enumerate() {
                    let one = one.get_ref().as_table().unwrap_or(&nothing);
                    let default = default.unwrap_or(&nothing);
                    merge((&table, Some(index)), default, one, text, &mut settings);
                }
            }
            DeValue::Table(default) => {
                let written = written.and_then(|value| value.get_ref().as_table());
                let written = written.unwrap_or(&nothing);
                merge((&table, None), default, written, text, &mut settings);
            }
            _ => {}
        }
    }
    settings
}

/// The keys of one table: those of the example, and those that only the file has, since their default is to be absent.
fn merge(
    (table, index): (&str, Option<usize>),
    default: &DeTable<'_>,
    written: &DeTable<'_>,
    text: &str,
    settings: &mut Vec<Setting>,
) {
    let mut push = |key: &str, value: &DeValue<'_>, line| {
        settings.push(Setting {
            table: table.to_owned(),
            index,
            key: key.to_owned(),
            value: owned(value),
            line,
        });
    };
    let line_in_file = |key: &str| {
        let (key, value) = written.get_key_value(key)?;
        Some((value.get_ref(), line_of(text, key.span().start)))
    };
    for (key, default) in in_order(default) {
        match line_in_file(&key) {
            Some((value, line)) => push(&key, value, Some(line)),
            None => push(&key, default, None),
        }
    }
    for (key, value) in in_order(written) {
        if default.get(key.as_str()).is_none() {
            push(&key, value, line_in_file(&key).map(|(_, line)| line));
        }
    }
}

/// The keys of a table in the order of their text.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(String, &'a DeValue<'i>)> {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let plain = keys.into_iter();
    plain
        .map(|(key, value)| (key.get_ref().to_string(), value.get_ref()))
        .collect()
}

fn owned(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Integer(number) => {
            let digits = i64::from_str_radix(number.as_str(), number.radix());
            digits.map_or_else(|_| Value::String(number.as_str().into()), Value::Integer)
        }
        DeValue::Array(values) => {
            Value::Array(values.iter().map(|one| owned(one.get_ref())).collect())
        }
        DeValue::Table(table) => {
            let fields = table.iter();
            let fields = fields.map(|(key, one)| (key.get_ref().to_string(), owned(one.get_ref())));
            Value::Table(fields.collect())
        }
        // No key takes these, so no file that was checked has one.
        DeValue::Float(number) => Value::String(number.as_str().into()),
        DeValue::Datetime(time) => Value::Datetime(*time),
    }
}

fn written(value: &Value) -> String {
    let list = |values: Vec<String>| values.join(", ");
    match value {
        Value::String(text) => quoted(text),
        Value::Array(values) => format!("[{}]", list(values.iter().map(written).collect())),
        Value::Table(fields) => {
            let field = |(key, one): (&String, &Value)| format!("{key} = {}", written(one));
            format!("{{ {} }}", list(fields.iter().map(field).collect()))
        }
        Value::Integer(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Datetime(time) => time.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a text does not fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_says_has_its_line_and_everything_else_is_a_default() {
        let text = "daemon.drain = '3s'\n[service]\nprofile = 'wo\"rk\\'\n\n[[routine]]\nname = 'a'\nentry = 'a.js'\n\
                    [[routine]]\nentry = 'b.js'\ncheck = false\nname = 'b'\n";
        let settings = settings(text);
        let find = |table: &str, index, key: &str| {
            let is_it = |it: &&Setting| {
                (it.table.as_str(), it.index, it.key.as_str()) == (table, index, key)
            };
            let found = settings.iter().find(is_it).unwrap();
            (found.written(), found.line)
        };
        let file = |value: &str, line| (value.to_owned(), Some(line));
        let default = |value: &str| (value.to_owned(), None);
        assert_eq!(find("daemon", None, "drain"), file("\"3s\"", 1));
        assert_eq!(find("service", None, "profile"), file(r#""wo\"rk\\""#, 3));
        assert_eq!(find("service", None, "signature"), default("\"hmac-sha1\""));
        assert_eq!(find("limits", None, "burst"), default("10"));
        assert_eq!(find("watch", None, "ignore"), default("[]"));
        assert_eq!(find("routine", Some(0), "name"), file("\"a\"", 6));
        assert_eq!(find("routine", Some(1), "name"), file("\"b\"", 11));
        assert_eq!(find("routine", Some(0), "check"), default("true"));
        assert_eq!(find("routine", Some(1), "check"), file("false", 10));
        let absent = |it: &&Setting| it.key == "listen" || it.key == "build";
        assert_eq!(settings.iter().find(absent), None);
    }

    #[test]
    fn a_value_on_one_line_means_what_it_meant_on_several() {
        let text = "[watch]\nignore = [\n  'a b', # one\n  \"\\u0001\\\"\",\n]\nbuild = { command = 'x', watch = ['a', 'b'] }\n";
        for setting in settings(text) {
            let line = format!("x = {}", setting.written());
            let again: toml::Table = toml::from_str(&line).unwrap();
            assert_eq!(again["x"], setting.value, "{line}");
        }
    }
}
