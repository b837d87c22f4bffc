//! What can go wrong with one request, and how that is written. Pure.
//!
//! Which requests meet an action is in `fault`, what it does to their answers in `answer`. Each action says whether the
//! service carries the request out, for that is what decides what a client may do next.

/// The latest a fault may put something off, in milliseconds: a day.
const MAX_MILLIS: u64 = 86_400_000;

/// The furthest a date may be off, in seconds: a thousand years.
const MAX_SKEW: i64 = 31_536_000_000;

/// How each action is written.
const USAGES: [&str; 25] = [
    "drop_before",
    "drop_after",
    "delay(ms)",
    "process_late(ms)",
    "rst_mid_body(bytes)",
    "status(200..599)",
    "code(Code[,message][,status])",
    "answer(body)",
    "redirect(300..399,url)",
    "portal",
    "unregistered",
    "callback_lost",
    "truncate",
    "drip",
    "garbage",
    "deep_json",
    "huge",
    "gzip_bomb",
    "xml_for_json",
    "wrong_content_type",
    "date_skew(seconds)",
    "kill(pid,before)",
    "kill(pid,mid)",
    "kill(pid,late)",
    "kill(pid,after)",
];

/// What goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Not carried out; the connection ends without a byte of answer.
    DropBefore,
    /// Carried out; the connection ends without a byte of answer.
    DropAfter,
    /// Carried out at once and answered this many milliseconds later.
    Delay(u64),
    /// Carried out this many milliseconds later, also when the client has gone; never answered.
    ProcessLate(u64),
    /// Not carried out; the connection is reset once this many bytes of the body have come. What an API call is about
    /// stands in its body, so such a call is reset when its whole body is there.
    RstMidBody(u64),
    /// Not carried out; answered with this status and a page that is not the service's. For object storage 203 is
    /// its own error of a callback that failed.
    Status(u16),
    /// Not carried out; answered with an error in the service's shape.
    Code {
        /// The error code.
        code: String,
        /// What is said about it.
        message: String,
        /// The HTTP status; 400 for the API and 403 for object storage where it is not given.
        status: Option<u16>,
    },
    /// Not carried out; answered 200 with exactly this body.
    Answer(String),
    /// Not carried out; answered with a redirect.
    Redirect {
        /// The HTTP status.
        status: u16,
        /// Where to.
        url: String,
    },
    /// Not carried out; answered with the login page of a network, whose clock is wrong.
    Portal,
    /// Object storage says that the code was registered, and it never is.
    Unregistered,
    /// The code is registered, and object storage says that its callback failed.
    CallbackLost,
    /// Carried out; the body ends halfway through its stated length.
    Truncate,
    /// Carried out; the answer comes so slowly that it never ends in any useful time.
    Drip,
    /// Carried out; the body is random bytes, the status 200.
    Garbage,
    /// Carried out; the body is arrays nested [`JSON_DEPTH`] deep.
    DeepJson,
    /// Carried out; the body has [`HUGE_BODY`] bytes.
    Huge,
    /// Carried out; the body claims to be compressed, though nobody asked for that.
    GzipBomb,
    /// Carried out; answered in XML where JSON was asked for.
    XmlForJson,
    /// Carried out; the right body under the wrong content type.
    WrongContentType,
    /// Carried out; the answer's date is off by this many seconds.
    DateSkew(i64),
    /// A process is killed with SIGKILL.
    Kill {
        /// The process.
        pid: i32,
        /// When.
        moment: Moment,
    },
}

/// The depth of [`Action::DeepJson`].
pub const JSON_DEPTH: usize = 100_000;

/// The length of the body of [`Action::Huge`], in bytes.
pub const HUGE_BODY: usize = 64 << 20;

/// When a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// When the request has come; it is not carried out.
    Before,
    /// When the request has come; it is carried out then.
    Mid,
    /// When the request has come; it is carried out a while after that, when another process may be at work already.
    Late,
    /// When the request was carried out and its whole answer sent.
    After,
}

/// Why a text is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// There is none of this name.
    #[error("there is no action `{0}`; there are: {usages}", usages = USAGES.join(", "))]
    Name(String),
    /// The arguments of the action are missing or out of their range.
    #[error("`{given}` is not how this action is written; write {usage}")]
    Arguments {
        /// What was given.
        given: String,
        /// How the action is written.
        usage: String,
    },
}

impl Action {
    /// Whether the request is carried out all the same.
    pub fn processes(&self) -> bool {
        match self {
            Self::DropBefore
            | Self::RstMidBody(_)
            | Self::Status(_)
            | Self::Code { .. }
            | Self::Answer(_)
            | Self::Redirect { .. }
            | Self::Portal
            | Self::Unregistered => false,
            Self::Kill { moment, .. } => *moment != Moment::Before,
            _ => true,
        }
    }

    /// The status the client gets where the request was carried out and would be answered with this one. 0 stands for
    /// no answer at all.
    pub(super) fn status_after(&self, status: u16) -> u16 {
        match self {
            Self::DropAfter | Self::ProcessLate(_) => 0,
            Self::Kill { moment, .. } if *moment != Moment::After => 0,
            Self::CallbackLost => 203,
            Self::Garbage | Self::DeepJson | Self::Huge => 200,
            _ => status,
        }
    }

    /// Reads an action.
    pub fn parse(text: &str) -> Result<Self, ActionError> {
        let (name, arguments) = match text.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')')),
            None => (text, Some("")),
        };
        let usages: Vec<&str> = USAGES
            .into_iter()
            .filter(|usage| usage.split('(').next() == Some(name))
            .collect();
        let Some(usage) = usages.first() else {
            return Err(ActionError::Name(name.to_owned()));
        };
        let bare = text == name;
        let parsed = arguments
            .filter(|_| bare != usage.contains('('))
            .and_then(|arguments| Self::of(name, arguments));
        parsed.ok_or_else(|| ActionError::Arguments {
            given: text.to_owned(),
            usage: usages.join(" or "),
        })
    }

    fn of(name: &str, arguments: &str) -> Option<Self> {
        let millis = || number(arguments, 0, MAX_MILLIS);
        Some(match name {
            "drop_before" => Self::DropBefore,
            "drop_after" => Self::DropAfter,
            "delay" => Self::Delay(millis()?),
            "process_late" => Self::ProcessLate(millis()?),
            "rst_mid_body" => Self::RstMidBody(number(arguments, 0, u64::MAX)?),
            "status" => Self::Status(number(arguments, 200, 599)?),
            "code" => return Self::code(arguments),
            "answer" => Self::Answer(arguments.to_owned()),
            "redirect" => {
                let (status, url) = arguments.split_once(',')?;
                let url = url.trim();
                let plain = !url.is_empty() && url.bytes().all(|b| b.is_ascii_graphic());
                let status = number(status, 300, 399)?;
                return plain.then(|| Self::Redirect {
                    status,
                    url: url.to_owned(),
                });
            }
            "portal" => Self::Portal,
            "unregistered" => Self::Unregistered,
            "callback_lost" => Self::CallbackLost,
            "truncate" => Self::Truncate,
            "drip" => Self::Drip,
            "garbage" => Self::Garbage,
            "deep_json" => Self::DeepJson,
            "huge" => Self::Huge,
            "gzip_bomb" => Self::GzipBomb,
            "xml_for_json" => Self::XmlForJson,
            "wrong_content_type" => Self::WrongContentType,
            "date_skew" => Self::DateSkew(number(arguments, -MAX_SKEW, MAX_SKEW)?),
            "kill" => {
                let (pid, moment) = arguments.split_once(',')?;
                let moment = match moment.trim() {
                    "before" => Moment::Before,
                    "mid" => Moment::Mid,
                    "late" => Moment::Late,
                    "after" => Moment::After,
                    _ => return None,
                };
                // 0 and the negative numbers would be groups of processes, and 1 is the system's.
                let pid = number(pid, 2, i32::MAX)?;
                Self::Kill { pid, moment }
            }
            _ => return None,
        })
    }

    /// A message may hold commas: what stands behind the last one is a status only if it is the number of one.
    fn code(arguments: &str) -> Option<Self> {
        let (code, rest) = arguments.split_once(',').unwrap_or((arguments, ""));
        let (message, status) = match rest.rsplit_once(',') {
            Some((message, last)) => match number(last, 200, 599) {
                Some(status) => (message, Some(status)),
                None => (rest, None),
            },
            None => (rest, None),
        };
        let code = code.trim();
        (!code.is_empty()).then(|| Self::Code {
            code: code.to_owned(),
            message: message.trim().to_owned(),
            status,
        })
    }
}

/// A number within its bounds.
pub(super) fn number<T: std::str::FromStr + PartialOrd>(
    text: &str,
    least: T,
    most: T,
) -> Option<T> {
    let number: T = text.trim().parse().ok()?;
    (least <= number && number <= most).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_read_as_its_usage_writes_it() {
        let code = |message: &str, status| Action::Code {
            code: "EdgeRoutine.GeneralError".into(),
            message: message.into(),
            status,
        };
        for (text, expected) in [
            ("drop_before", Action::DropBefore),
            ("delay(200)", Action::Delay(200)),
            ("process_late(0)", Action::ProcessLate(0)),
            ("rst_mid_body(17)", Action::RstMidBody(17)),
            ("status(203)", Action::Status(203)),
            ("code(EdgeRoutine.GeneralError)", code("", None)),
            (
                "code(EdgeRoutine.GeneralError,some words,400)",
                code("some words", Some(400)),
            ),
            (
                "code(EdgeRoutine.GeneralError,one, two: (three), and 7)",
                code("one, two: (three), and 7", None),
            ),
            ("answer()", Action::Answer(String::new())),
            (
                "answer({\"a\":[1,(2)]})",
                Action::Answer("{\"a\":[1,(2)]}".into()),
            ),
            (
                "redirect(302,http://127.0.0.1:9/x,y)",
                Action::Redirect {
                    status: 302,
                    url: "http://127.0.0.1:9/x,y".into(),
                },
            ),
            ("date_skew(-86400)", Action::DateSkew(-86_400)),
            (
                "kill(4711,mid)",
                Action::Kill {
                    pid: 4711,
                    moment: Moment::Mid,
                },
            ),
        ] {
            assert_eq!(Action::parse(text).unwrap(), expected, "{text}");
        }
        for usage in USAGES.iter().filter(|usage| !usage.contains('(')) {
            assert!(Action::parse(usage).is_ok(), "{usage}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reading_of_an_action_fail_in_another_way(name in 0..USAGES.len(), text in ".{0,40}") {
            let _ = Action::parse(&text);
            let name = USAGES[name].split('(').next().unwrap();
            let _ = Action::parse(&format!("{name}({text})"));
            let _ = Action::parse(&format!("{name}{text}"));
        }
    }
}
