//! The form of events that README promises, read from its tables, and whether an object has it.
//!
//! README is the one description of the events, so what is checked here is what readers go by.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

const README: &str = include_str!("../../README.md");

/// The most bytes a text has.
const MAX_TEXT: usize = 512;

/// What README tells.
pub(crate) static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::read);

/// The tables of README as far as events are told by them.
pub(crate) struct Schema {
    /// The fields of every event.
    pub(crate) events: BTreeMap<String, Vec<Field>>,
    /// The fields of every kind of inner object.
    objects: BTreeMap<String, Vec<Field>>,
    /// The words of classes, with the exit codes that go with them.
    pub(crate) classes: BTreeMap<String, String>,
}

/// A field as README names it.
#[derive(Debug)]
pub(crate) struct Field {
    name: String,
    optional: bool,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// One of these words.
    OneOf(Vec<String>),
    /// A list of such things.
    List(Box<Kind>),
    /// What a word stands for: a text, a number, an object and so on.
    Named(String),
}

/// Why an event does not have its form, if it has not.
pub(crate) fn misfit(event: &Value) -> Option<String> {
    let found = SCHEMA.event(event).err();
    found.map(|why| format!("{why}: {event}"))
}

impl Schema {
    fn read() -> Self {
        let mut kinds = BTreeMap::new();
        for row in table(&["field", "type"]) {
            let kind = Kind::read(&row[1]);
            for name in spans(&row[0]) {
                let before = kinds.insert(name.to_owned(), kind.clone());
                assert!(before.is_none(), "README tells the type of `{name}` twice");
            }
        }
        let read = |header| {
            let rows = table(header).into_iter().map(|row| {
                let names = spans(&row[0]);
                assert_eq!(names.len(), 1, "one row an event: {row:?}");
                let fields = spans(&row[1]).into_iter();
                let fields = fields.map(|text| Field::read(text, &kinds));
                (names[0].to_owned(), fields.collect())
            });
            rows.collect::<BTreeMap<String, Vec<Field>>>()
        };
        let classes = table(&["class", "exit code"]).into_iter();
        Self {
            events: read(&["event", "fields"]),
            objects: read(&["object", "fields"]),
            classes: classes
                .map(|row| (spans(&row[0])[0].to_owned(), row[1].clone()))
                .collect(),
        }
    }

    fn event(&self, event: &Value) -> Result<(), String> {
        let object = event.as_object().ok_or("it is no object")?;
        if object.get("v") != Some(&Value::from(1)) {
            return Err("`v` is not 1".into());
        }
        let time = object.get("ts").and_then(Value::as_str).unwrap_or_default();
        if time.len() != "2026-11-24T14:02:12.345Z".len()
            || time.parse::<jiff::Timestamp>().is_err()
        {
            return Err("`ts` is no time in UTC with milliseconds".into());
        }
        let name = object.get("event").and_then(Value::as_str);
        let fields = name.and_then(|name| self.events.get(name));
        let fields = fields.ok_or("README does not tell of such an event")?;
        self.fields(fields, object, &["v", "ts", "event"])
    }

    fn fields(
        &self,
        fields: &[Field],
        object: &Map<String, Value>,
        besides: &[&str],
    ) -> Result<(), String> {
        for field in fields {
            let Field { name, kind, .. } = field;
            match object.get(name) {
                Some(value) => self
                    .value(kind, value)
                    .map_err(|why| format!("`{name}` {why}"))?,
                None if field.optional => {}
                None => return Err(format!("`{name}` is missing")),
            }
        }
        let known = |name: &String| {
            besides.contains(&name.as_str()) || fields.iter().any(|field| field.name == *name)
        };
        match object.keys().find(|name| !known(name)) {
            Some(name) => Err(format!("README does not tell of `{name}` there")),
            None => Ok(()),
        }
    }

    fn value(&self, kind: &Kind, value: &Value) -> Result<(), String> {
        let text = value.as_str();
        let fits = match kind {
            Kind::OneOf(words) => text.is_some_and(|text| words.iter().any(|word| word == text)),
            Kind::List(kind) => {
                let items = value.as_array().ok_or("is no list")?;
                return items.iter().try_for_each(|item| self.value(kind, item));
            }
            Kind::Named(kind) => match kind.as_str() {
                "text" => text.is_some_and(|text| text.len() <= MAX_TEXT),
                "line" => text.is_some(),
                "name" => text.is_some_and(is_name),
                "revision" => text.is_some_and(|text| !text.is_empty()),
                "digest" => text.is_some_and(|text| {
                    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
                }),
                "class" => text.is_some_and(|text| self.classes.contains_key(text)),
                "number" => value.is_u64(),
                "flag" => value.is_boolean(),
                object => {
                    let fields = self.objects.get(object);
                    let fields = fields.unwrap_or_else(|| panic!("README has no `{object}`"));
                    let inner = value.as_object().ok_or("is no object")?;
                    return self.fields(fields, inner, &[]);
                }
            },
        };
        fits.then_some(()).ok_or_else(|| format!("is no {kind:?}"))
    }
}

/// Whether this can be the name of a routine.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

impl Field {
    /// `name`, `name?` where it may be missing, `name: type` where it has another type than elsewhere.
    fn read(text: &str, kinds: &BTreeMap<String, Kind>) -> Self {
        let (name, kind) = match text.split_once(": ") {
            Some((name, kind)) => (name, Some(Kind::inline(kind))),
            None => (text, None),
        };
        let (name, optional) = match name.strip_suffix('?') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let kind = kind.or_else(|| kinds.get(name).cloned());
        Self {
            name: name.to_owned(),
            optional,
            kind: kind.unwrap_or_else(|| panic!("README does not tell the type of `{name}`")),
        }
    }
}

impl Kind {
    /// A type that stands beside a name.
    fn inline(text: &str) -> Self {
        match text.strip_prefix("list of ") {
            Some(item) => Self::List(Box::new(Self::Named(item.to_owned()))),
            None => Self::Named(text.to_owned()),
        }
    }

    fn read(cell: &str) -> Self {
        let words: Vec<&str> = spans(cell);
        let quoted: Option<Vec<String>> = words
            .iter()
            .map(|word| Some(word.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
            .collect();
        match (quoted, words.as_slice()) {
            (Some(quoted), _) => Self::OneOf(quoted),
            (None, [one]) if cell.starts_with("list of ") => {
                Self::List(Box::new(Self::Named((*one).to_owned())))
            }
            (None, [one]) => Self::Named((*one).to_owned()),
            (None, _) => panic!("README has an odd type: {cell}"),
        }
    }
}

/// The rows of the table whose header begins with these cells.
fn table(header: &[&str]) -> Vec<Vec<String>> {
    let mut rows = README
        .lines()
        .map(|line| {
            let cells = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
            Some(
                cells
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect(),
            )
        })
        .skip_while(|row: &Option<Vec<String>>| {
            let cells = row.iter().flatten().map(String::as_str);
            !cells.take(header.len()).eq(header.iter().copied())
        });
    assert!(rows.next().is_some(), "README has no table of {header:?}");
    // The line below the header.
    rows.next();
    rows.map_while(|row| row).collect()
}

/// What stands between backticks.
fn spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
