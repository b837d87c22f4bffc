//! What an answer of the service, or the lack of one, means for the next try. Pure.
//!
//! The service says almost everything with HTTP 400, so the code in the body is looked at first, then a part of the
//! message, and the status only where there is nothing else.

use std::fmt;
use std::time::{Duration, SystemTime};

/// The longest pause a server may ask for; longer wishes are cut to it.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How a problem with the encryption of a connection begins.
pub(super) const NO_TLS: &str = "no secure connection";

/// What is said of a deletion that was to rest on a listing with another key.
pub const KEY_CHANGED: &str = "the key has changed since the versions were listed";

/// What is said of an answer that the service did not write.
pub(super) const NOT_THE_SERVICE: &str = "the answer is not the service's";

/// How much of a server's message is kept, in characters. With the code it makes 200.
pub(super) const MAX_MESSAGE_CHARS: usize = 136;

/// How much of a server's code, or name for something, is kept, in characters. The longest that is documented has some 40.
pub(super) const MAX_CODE_CHARS: usize = 64;

/// What a failed request means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// No byte of the request reached the service: it may be repeated.
    NotSent,
    /// It is not known whether the request was carried out. A reading request may be repeated, a changing one not:
    /// only a listing tells.
    Ambiguous,
    /// Refused because of too many requests, and not carried out.
    Throttled,
    /// The clocks disagree.
    Clock,
    /// The key is wrong, ended, or not allowed to do this.
    Credentials,
    /// All slots for versions are taken.
    Quota,
    /// The routine, or the version, does not exist.
    Gone,
    /// The signed form ended before the code had arrived.
    FormExpired,
    /// The same request will be refused again.
    Permanent,
    /// A refusal in words that are not known.
    UnknownServer,
}

/// A request that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CloudError {
    /// What it means for the next try.
    pub class: Class,
    /// The operation, by the service's name for it.
    pub operation: &'static str,
    /// The service's code, where it gave one.
    pub code: Option<String>,
    /// Why, in words; free of secrets and control characters.
    pub what: String,
    /// The service's name for the request.
    pub request_id: Option<String>,
    /// The pause the service asked for, at most [`MAX_RETRY_AFTER`].
    pub retry_after: Option<Duration>,
    /// Whether a whole answer came. Without one, the request could still be carried out later.
    pub answered: bool,
    /// Whether the request was refused because of this machine's clock, and the service's time is used from now on.
    pub clock_set: bool,
    /// Whether the request was refused because of its key, and there is another one now.
    pub key_changed: bool,
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl CloudError {
    /// A request without a whole answer.
    pub fn unanswered(class: Class, operation: &'static str, what: impl Into<String>) -> Self {
        Self {
            class,
            operation,
            code: None,
            what: what.into(),
            request_id: None,
            retry_after: None,
            answered: false,
            clock_set: false,
            key_changed: false,
        }
    }

    /// An answer that cannot be used.
    pub fn unusable(class: Class, operation: &'static str, what: impl Into<String>) -> Self {
        Self {
            answered: true,
            ..Self::unanswered(class, operation, what)
        }
    }

    /// What a person can do about it; empty where er-dev's own next try is all there is to do.
    pub fn help(&self) -> String {
        match self.class {
            Class::NotSent if self.what.starts_with(NO_TLS) => {
                "check `endpoint`; nothing was sent. Where a network opens secure connections, trust its certificate authority with `--ca-file FILE`".into()
            }
            Class::NotSent if self.what == KEY_CHANGED => {
                "nothing to do: the versions are listed again with the new key first".into()
            }
            Class::NotSent => {
                "check the network and `endpoint`; the edit is kept and goes up when the service answers".into()
            }
            Class::Ambiguous if self.what == NOT_THE_SERVICE => {
                "see whether this network wants a log-in first, and whether `endpoint` is right; the edit is kept".into()
            }
            Class::Ambiguous => {
                "nothing to do: the versions are listed again before anything else is sent".into()
            }
            Class::Throttled => {
                "nothing to do; if it stays, lower `requests_per_second` or look for another program that uses this account".into()
            }
            Class::Clock => "set this machine's clock, for example with `timedatectl set-ntp true`".into(),
            Class::Credentials if self.is_permission() => format!(
                "allow the action `dcdn:{}` for this key in the RAM console",
                self.operation
            ),
            Class::Credentials if self.code.is_none() => {
                "see why the source of the key gives no new one; the edit is kept and goes up when it does".into()
            }
            Class::Credentials => {
                "check the access key id and secret, and whether the key is active in the RAM console".into()
            }
            Class::Quota => "delete a version that is not needed, or lower `keep_newest`".into(),
            Class::Gone => "make the routine in the console, or set `create = true` for it".into(),
            Class::FormExpired => "nothing to do: a new form is asked for".into(),
            Class::Permanent | Class::UnknownServer => {
                "look the request id up in the console, or try again by saving the file".into()
            }
        }
    }

    /// Whether the words speak of a limit, which is not said in the known ones. Whether all slots are taken is then for
    /// the listing to tell.
    pub fn mentions_limit(&self) -> bool {
        let what = self.what.to_ascii_lowercase();
        self.class == Class::UnknownServer
            && ["limit", "quota", "exceed", "too many", "maximum"]
                .iter()
                .any(|word| what.contains(word))
    }

    /// Whether object storage says that a form was not signed by anybody it knows. A fresh form may be; if that one is
    /// not either, no other will be.
    pub fn is_of_unknown_signer(&self) -> bool {
        let code = self.code.as_deref();
        self.class == Class::FormExpired
            && matches!(code, Some("SignatureDoesNotMatch" | "InvalidAccessKeyId"))
    }

    /// Whether the key is good but may not do this.
    pub fn is_permission(&self) -> bool {
        self.code.as_deref().is_some_and(|code| {
            code.starts_with("Forbidden") || code == "NoPermission" || code == "AccessDenied"
        })
    }
}

/// An answer as far as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The body, perhaps cut.
    pub body: &'a str,
    /// The pause asked for in a header.
    pub retry_after: Option<Duration>,
}

/// Classifies an answer of the API that is not a success.
pub fn of_api(operation: &'static str, answer: Answer<'_>) -> CloudError {
    let told = Told::read(answer.body);
    let class = match &told.code {
        Some(code) => of_api_code(code, told.message.as_deref().unwrap_or("")),
        // What is neither the service's JSON nor its XML was written by something between it and us.
        None if answer.status == 429 => Class::Throttled,
        None => Class::Ambiguous,
    };
    told.into_error(class, operation, answer)
}

fn of_api_code(code: &str, message: &str) -> Class {
    let message = message.to_ascii_lowercase();
    let throttled = code.starts_with("Throttling")
        || code.ends_with(".Throttling")
        || code.contains("FlowControl")
        || matches!(
            code,
            "QPS Limit Exceeded" | "ServiceBusy" | "TooManyRequests" | "ServiceUnavailable"
        );
    if throttled {
        return Class::Throttled;
    }
    match code {
        "SignatureNonceUsed" => return Class::Ambiguous,
        "IllegalTimestamp" | "RequestTimeTooSkewed" => return Class::Clock,
        "SignatureDoesNotMatch" | "NoPermission" => return Class::Credentials,
        "IncompleteSignature" | "InvalidVersion" => return Class::Permanent,
        "InternalError" => return Class::Ambiguous,
        _ => {}
    }
    if code.starts_with("InvalidTimeStamp") {
        return Class::Clock;
    }
    if ["InvalidAccessKeyId", "InvalidSecurityToken", "Forbidden"]
        .iter()
        .any(|prefix| code.starts_with(prefix))
    {
        return Class::Credentials;
    }
    if [
        "Missing",
        "InvalidParameter",
        "InvalidApi",
        "UnsupportedOperation",
    ]
    .iter()
    .any(|prefix| code.starts_with(prefix))
    {
        return Class::Permanent;
    }
    if message.contains("upper limit") {
        return Class::Quota;
    }
    if ["not exist", "notexist", "not found", "no such"]
        .iter()
        .any(|words| message.contains(words))
    {
        return Class::Gone;
    }
    Class::UnknownServer
}

/// Classifies an answer of object storage that is not "200 and `code` 200 in the JSON body".
pub fn of_form(operation: &'static str, answer: Answer<'_>) -> CloudError {
    let told = Told::read(answer.body);
    let message = told.message.as_deref().unwrap_or("").to_ascii_lowercase();
    let class = match (answer.status, told.code.as_deref()) {
        (200..=399 | 500.., _) => Class::Ambiguous,
        (_, Some("AccessDenied")) if message.contains("expired") => Class::FormExpired,
        (_, Some("AccessDenied")) => Class::Permanent,
        // A form that was damaged or whose key was changed: a fresh one is the cure.
        (_, Some("SignatureDoesNotMatch" | "InvalidAccessKeyId")) => Class::FormExpired,
        (_, Some("SecurityTokenExpired" | "InvalidSecurityToken")) => Class::FormExpired,
        (_, Some("RequestTimeTooSkewed")) => Class::Clock,
        (_, Some("RequestTimeout" | "IncompleteBody")) => Class::FormExpired,
        (429, _) => Class::Throttled,
        (_, Some(_)) => Class::Permanent,
        (_, None) => Class::Ambiguous,
    };
    let mut error = told.into_error(class, operation, answer);
    if answer.status == 203 {
        error.what = "stored, but the service was not told of it".into();
    }
    error
}

/// The pause that the headers ask for: `x-acs-retry-after` counts milliseconds, `Retry-After` seconds or names a date.
pub fn retry_after(acs: Option<&str>, plain: Option<&str>, now: SystemTime) -> Option<Duration> {
    let asked = acs
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_millis);
    let asked = asked.or_else(|| {
        let text = plain?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Some(
            SystemTime::from(date)
                .duration_since(now)
                .unwrap_or_default(),
        )
    });
    asked.map(|pause| pause.min(MAX_RETRY_AFTER))
}

/// What a body says of an error, in whichever of the two forms.
#[derive(Default)]
struct Told {
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
}

impl Told {
    fn read(body: &str) -> Self {
        if let Ok(serde_json::Value::Object(map)) = serde_json::from_str(body) {
            let text = |key: &str| match map.get(key) {
                Some(serde_json::Value::String(text)) => Some(text.clone()),
                Some(serde_json::Value::Number(number)) => Some(number.to_string()),
                _ => None,
            };
            return Self {
                code: text("Code").or_else(|| text("code")),
                message: text("Message").or_else(|| text("message")),
                request_id: text("RequestId"),
            };
        }
        Self {
            code: xml_text(body, "Code"),
            message: xml_text(body, "Message"),
            request_id: xml_text(body, "RequestId"),
        }
    }

    fn into_error(self, class: Class, operation: &'static str, answer: Answer<'_>) -> CloudError {
        // The message of this refusal repeats the signed text, and with it the key id and the session token.
        let secretive = self.code.as_deref() == Some("SignatureDoesNotMatch");
        let what = match self.message {
            _ if secretive => "the signature is not the one the service computes: the secret does not belong to the key id".into(),
            Some(message) if !message.trim().is_empty() => tidy(&message, MAX_MESSAGE_CHARS),
            _ => format!("HTTP {} without words", answer.status),
        };
        CloudError {
            class,
            operation,
            code: self.code.map(|code| tidy(&code, MAX_CODE_CHARS)),
            what,
            request_id: self.request_id.map(|id| tidy(&id, MAX_CODE_CHARS)),
            retry_after: answer.retry_after,
            answered: true,
            clock_set: false,
            key_changed: false,
        }
    }
}

/// The text of the first element of that name. The error bodies are flat and short, which is all this reads.
fn xml_text(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.into())
}

/// A server's text on one line, without control characters, and not longer than it has to be.
pub(super) fn tidy(text: &str, most: usize) -> String {
    let mut tidy: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(most)
        .collect();
    if text.chars().count() > most {
        tidy.push('…');
    }
    tidy.trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(status: u16, code: &str, message: &str) -> CloudError {
        let body =
            serde_json::json!({"RequestId": "R1", "HostId": "h", "Code": code, "Message": message});
        let body = body.to_string();
        of_api(
            "DescribeRoutine",
            Answer {
                status,
                body: &body,
                retry_after: None,
            },
        )
    }

    #[test]
    fn the_code_decides_before_the_message_and_the_status_never_does() {
        let general = "EdgeRoutine.GeneralError";
        let table = [
            (400, "Throttling", "", Class::Throttled),
            (
                400,
                "Throttling.User",
                "Request was denied due to user flow control.",
                Class::Throttled,
            ),
            (503, "Throttling.Api", "", Class::Throttled),
            (400, "Dcdn.Throttling", "", Class::Throttled),
            (429, "UserFlowControlled", "", Class::Throttled),
            (400, "User.FlowControl", "", Class::Throttled),
            (400, "ServiceBusy", "", Class::Throttled),
            (503, "ServiceUnavailable", "", Class::Throttled),
            (500, "InternalError", "", Class::Ambiguous),
            (400, "SignatureNonceUsed", "", Class::Ambiguous),
            (400, "InvalidTimeStamp.Expired", "", Class::Clock),
            (400, "InvalidTimeStamp.Format", "", Class::Clock),
            (400, "IllegalTimestamp", "", Class::Clock),
            (404, "InvalidAccessKeyId.NotFound", "", Class::Credentials),
            (400, "InvalidAccessKeyId.Inactive", "", Class::Credentials),
            (400, "SignatureDoesNotMatch", "", Class::Credentials),
            (403, "InvalidSecurityToken.Expired", "", Class::Credentials),
            (403, "Forbidden.RAM", "", Class::Credentials),
            (403, "NoPermission", "", Class::Credentials),
            (400, "MissingParameter", "", Class::Permanent),
            (400, "MissingName", "", Class::Permanent),
            (400, "InvalidParameter", "upper limit", Class::Permanent),
            (404, "InvalidApi.NotFound", "", Class::Permanent),
            (400, "IncompleteSignature", "", Class::Permanent),
            (
                400,
                general,
                "A server error occurred: you got upper limit of code revisions",
                Class::Quota,
            ),
            (400, general, "routine does not exist", Class::Gone),
            (400, general, "the moon is full", Class::UnknownServer),
        ];
        let answered = table.map(|(_, _, _, class)| class);
        for class in [
            Class::Ambiguous,
            Class::Throttled,
            Class::Clock,
            Class::Credentials,
            Class::Quota,
            Class::Gone,
            Class::Permanent,
            Class::UnknownServer,
        ] {
            assert!(answered.contains(&class), "{class:?} is in no row");
        }
        for (status, code, message, class) in table {
            assert_eq!(
                api(status, code, message).class,
                class,
                "{status} {code} {message}"
            );
        }
    }

    #[test]
    fn a_body_that_the_service_did_not_write_leaves_the_outcome_open() {
        for body in [
            "",
            "<html>502 Bad Gateway</html>",
            "{\"cut",
            "[1,2]",
            "{\"a\":1}",
        ] {
            let error = of_api(
                "UploadRoutineCode",
                Answer {
                    status: 502,
                    body,
                    retry_after: None,
                },
            );
            assert_eq!(error.class, Class::Ambiguous, "{body}");
        }
        let error = of_api(
            "UploadRoutineCode",
            Answer {
                status: 429,
                body: "slow down",
                retry_after: None,
            },
        );
        assert_eq!(error.class, Class::Throttled);
    }

    #[test]
    fn a_refused_signature_does_not_repeat_what_was_signed() {
        let error = api(
            400,
            "SignatureDoesNotMatch",
            "server StringToSign is POST&%2F&AccessKeyId%3Dsomekey",
        );
        assert!(!error.to_string().contains("somekey"), "{error}");
    }

    #[test]
    fn every_answer_of_object_storage_has_its_class() {
        let xml = |code: &str, message: &str| {
            format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message><RequestId>R2</RequestId></Error>"
            )
        };
        let table = [
            (200, String::from("{\"code\":500}"), Class::Ambiguous),
            (200, String::new(), Class::Ambiguous),
            (201, String::new(), Class::Ambiguous),
            (
                203,
                xml("CallbackFailed", "Error status : 502."),
                Class::Ambiguous,
            ),
            (204, String::new(), Class::Ambiguous),
            (307, String::new(), Class::Ambiguous),
            (
                403,
                xml(
                    "AccessDenied",
                    "Invalid according to Policy: Policy expired.",
                ),
                Class::FormExpired,
            ),
            (
                403,
                xml(
                    "AccessDenied",
                    "Invalid according to Policy: Policy Condition failed",
                ),
                Class::Permanent,
            ),
            (403, xml("SignatureDoesNotMatch", ""), Class::FormExpired),
            (403, xml("InvalidAccessKeyId", ""), Class::FormExpired),
            (403, xml("SecurityTokenExpired", ""), Class::FormExpired),
            (403, xml("RequestTimeTooSkewed", ""), Class::Clock),
            (400, xml("EntityTooLarge", ""), Class::Permanent),
            (400, xml("EntityTooSmall", ""), Class::Permanent),
            (400, xml("MalformedPOSTRequest", ""), Class::Permanent),
            (
                400,
                xml("IncorrectNumberOfFilesInPOSTRequest", ""),
                Class::Permanent,
            ),
            (400, xml("InvalidPolicyDocument", ""), Class::Permanent),
            (400, xml("RequestTimeout", ""), Class::FormExpired),
            (400, xml("IncompleteBody", ""), Class::FormExpired),
            (500, xml("InternalError", ""), Class::Ambiguous),
            (502, String::from("<html>"), Class::Ambiguous),
        ];
        for (status, body, class) in table {
            let error = of_form(
                "PostObject",
                Answer {
                    status,
                    body: &body,
                    retry_after: None,
                },
            );
            assert_eq!(error.class, class, "{status} {body}");
        }
    }

    #[test]
    fn a_pause_asked_for_is_read_in_its_unit_and_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let asked = |acs, plain| retry_after(acs, plain, now);
        assert_eq!(
            asked(Some("1500"), Some("7")),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(asked(None, Some("7")), Some(Duration::from_secs(7)));
        assert_eq!(
            asked(None, Some("Sun, 06 Nov 1994 08:49:40 GMT")),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            asked(None, Some("Sun, 06 Nov 1994 08:49:00 GMT")),
            Some(Duration::ZERO)
        );
        assert_eq!(asked(None, Some("86400")), Some(MAX_RETRY_AFTER));
        for odd in ["", "-1", "soon", "1e9", "99999999999999999999999"] {
            assert_eq!(asked(Some(odd), Some(odd)), None, "{odd:?}");
        }
    }

    #[test]
    fn b11_at_most_two_hundred_characters_of_a_servers_text_are_shown_and_none_that_does_something()
    {
        let long = format!("a\u{1b}[31m\nb{}", "x".repeat(500));
        let error = api(400, &long, &long);
        assert!(!error.to_string().chars().any(char::is_control));
        let code = error.code.as_deref().unwrap_or_default();
        let shown = code.chars().chain(error.what.chars());
        assert_eq!(shown.filter(|c| *c != '…').count(), 200);
        assert_eq!(error.request_id.as_deref(), Some("R1"));
    }
}
