//! An event as one line of `key=value`, for logs that people and programs read. Pure.
//!
//! The fields are those of `json`, the ones that every event has first; fields of an inner object carry its name before
//! a dot, as in `problem.what`. A value with a space, a quote or an equals sign stands in quotes, escaped as in JSON.

use jiff::Timestamp;
use serde_json::Value;

use super::Event;
use super::json;
use super::words::is_hidden;

/// What stands first in a line, in this order.
const FIRST: [&str; 4] = ["v", "ts", "event", "routine"];

/// One event as a finished line. `now` becomes `ts`.
pub fn render(event: &Event, now: Timestamp) -> String {
    let object = json::render(event, now);
    // What was written as JSON just now is JSON.
    let object: Value = serde_json::from_str(&object).unwrap_or_default();
    let mut fields = Vec::new();
    collect("", &object, &mut fields);
    fields.sort_by_key(|field| {
        let name = field.split_once('=').map_or("", |(name, _)| name);
        FIRST
            .iter()
            .position(|first| *first == name)
            .unwrap_or(FIRST.len())
    });
    let mut line = fields.join(" ");
    line.push('\n');
    line
}

fn collect(name: &str, value: &Value, fields: &mut Vec<String>) {
    match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                match name {
                    "" => collect(key, value, fields),
                    name => collect(&format!("{name}.{key}"), value, fields),
                }
            }
        }
        Value::String(text) => fields.push(format!("{name}={}", quoted(text))),
        other => fields.push(format!("{name}={other}")),
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !['"', '=', '\\'].contains(&c) && !is_hidden(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    // The line of JSON is the text with its quotes and an end.
    json::line(&text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Problem;
    use crate::report::class::Class;
    use crate::routine::{Revision, RoutineName};

    #[test]
    fn an_event_is_one_line_with_the_fields_of_json() {
        let now: Timestamp = "2026-03-01T14:02:12.345Z".parse().unwrap();
        let unchanged = Event::Unchanged {
            routine: RoutineName::new("hello").unwrap(),
            revision: Revision::new("1790000000000000001"),
            saves: 2,
        };
        assert_eq!(
            render(&unchanged, now),
            "v=1 ts=2026-03-01T14:02:12.345Z event=unchanged routine=hello revision=1790000000000000001 saves=2\n"
        );
        let warning = Event::Warning {
            routine: None,
            problem: Problem {
                what: "it said \"no\"\nand left".into(),
                help: String::new(),
                class: Class::Service,
                operation: None,
                request_id: None,
                frame: None,
            },
        };
        assert_eq!(
            render(&warning, now),
            "v=1 ts=2026-03-01T14:02:12.345Z event=warning problem.class=service problem.help=\"\" problem.what=\"it said \\\"no\\\"\\nand left\"\n"
        );
    }
}
