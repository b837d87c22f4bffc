//! An event as an entry of systemd's journal: its line as the message, its priority, and the fields of `json`. Pure.
//!
//! An entry is a datagram of fields in journald's native protocol: `NAME=value` and a line's end, or, where the value
//! has such an end itself, `NAME`, a line's end, the value's length in eight bytes and the value. The texts of an event
//! are bounded, so that an entry fits a datagram and never has to be handed over as a file.

use serde_json::Value;

use super::{Event, text};

/// The name under which entries stand in the journal, as `journalctl -t` takes it.
const IDENTIFIER: &str = "er-dev";

/// How much an event matters, from 0 (emergency) to 7 (debug), as syslog counts.
pub fn priority(event: &Event) -> u8 {
    match event {
        Event::Critical { .. } => 2,
        Event::Failed { .. } | Event::Broken(_) => 3,
        Event::Warning { .. }
        | Event::Degraded { .. }
        | Event::Offline { .. }
        | Event::Halted { .. }
        | Event::Looping { .. }
        | Event::Foreign { .. }
        | Event::Republished { .. }
        | Event::Abandoned { .. } => 4,
        Event::Ready { .. }
        | Event::Published { .. }
        | Event::Committed { .. }
        | Event::Rotated { .. } => 5,
        _ => 6,
    }
}

/// One event as a datagram for the journal. The journal knows the time of it.
pub fn entry(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, "MESSAGE", &text::message(event));
    put(&mut out, "PRIORITY", &priority(event).to_string());
    put(&mut out, "SYSLOG_IDENTIFIER", IDENTIFIER);
    // Only a map with odd keys can fail to become JSON, and there is none.
    put_all(
        &mut out,
        "ER_DEV",
        &serde_json::to_value(event).unwrap_or_default(),
    );
    out
}

/// Text for a stream that the journal reads, each line with its priority.
pub fn prefixed(priority: u8, text: &str) -> String {
    text.lines()
        .map(|line| format!("<{priority}>{line}\n"))
        .collect()
}

/// Whether `JOURNAL_STREAM` names this device and inode.
pub fn names(journal_stream: &str, device: u64, inode: u64) -> bool {
    journal_stream == format!("{device}:{inode}")
}

/// The fields of an object, those of a problem beside its own.
fn put_all(out: &mut Vec<u8>, name: &str, value: &Value) {
    match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                let inner = match key.as_str() {
                    "problem" => name.to_owned(),
                    key => format!("{name}_{}", key.to_ascii_uppercase()),
                };
                put_all(out, &inner, value);
            }
        }
        Value::String(text) => put(out, name, text),
        other => put(out, name, &other.to_string()),
    }
}

fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::class::Class;
    use crate::report::{Frame, Problem};
    use crate::routine::{Revision, RoutineName};

    #[test]
    fn an_entry_has_the_line_without_its_time_a_priority_and_the_fields_of_json() {
        let event = Event::Rotated {
            routine: RoutineName::new("hello").unwrap(),
            revision: Revision::new("1790000000000000001"),
            age: None,
            reason: "kept in the vault".into(),
        };
        let expected = "MESSAGE=Rotated  hello  ...0001  kept in the vault\nPRIORITY=5\nSYSLOG_IDENTIFIER=er-dev\n\
            ER_DEV_EVENT=rotated\nER_DEV_REASON=kept in the vault\nER_DEV_REVISION=1790000000000000001\n\
            ER_DEV_ROUTINE=hello\n";
        assert_eq!(String::from_utf8(entry(&event)).unwrap(), expected);
    }

    #[test]
    fn a_value_of_several_lines_carries_its_length_and_cannot_pass_for_another_field() {
        let event = Event::Failed {
            routine: RoutineName::new("hello").unwrap(),
            saves: 1,
            problem: Problem {
                what: "odd\nPRIORITY=0".into(),
                help: String::new(),
                class: Class::Source,
                operation: None,
                request_id: None,
                frame: Some(Box::new(Frame {
                    file: "a.js".into(),
                    line: 4,
                    column: 2,
                    width: 1,
                    text: None,
                    cut: 0,
                    also: Vec::new(),
                    unshown: 0,
                })),
            },
        };
        let entry = entry(&event);
        let long = [
            b"\nER_DEV_WHAT\n".as_slice(),
            &14_u64.to_le_bytes(),
            b"odd\nPRIORITY=0\n",
        ]
        .concat();
        assert!(entry.windows(long.len()).any(|part| part == long));
        for field in [
            "\nPRIORITY=3\n",
            "\nER_DEV_CLASS=source\n",
            "\nER_DEV_LINE=4\n",
            "\nER_DEV_HELP=\n",
        ] {
            let there = entry
                .windows(field.len())
                .any(|part| part == field.as_bytes());
            assert!(there, "{field:?}");
        }
        // The message shows the end of a line and does not hold one.
        assert!(entry.starts_with(b"MESSAGE=Error  hello  a.js:4:2 odd\\u{a}PRIORITY=0 "));
    }

    #[test]
    fn a_stream_is_the_journals_only_by_device_and_inode() {
        assert!(names("9:4711", 9, 4_711));
        for other in ["", "9:4712", "8:4711", "9:4711 ", "4711:9", "9", ":"] {
            assert!(!names(other, 9, 4_711), "{other:?}");
        }
    }

    #[test]
    fn every_line_of_a_text_has_its_priority() {
        assert_eq!(prefixed(3, "a\nb"), "<3>a\n<3>b\n");
    }
}
