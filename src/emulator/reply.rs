//! What goes back over the wire: refusals, and replies as the gateway and object storage render them.
//!
//! What is refused, and why, is decided elsewhere. The gateway answers in XML unless a call asks for JSON, so a
//! client that forgets `Format=JSON` meets here what it would meet at the service.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// A request that was not carried out, with the code and text the service would give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} ({status}): {message}")]
pub struct Refusal {
    /// The HTTP status. 203 means that object storage kept the file but its callback failed.
    pub status: u16,
    /// The service's error code.
    pub code: Cow<'static, str>,
    /// What the service says about it, often the only thing that tells two causes apart.
    pub message: String,
}

/// One HTTP reply, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The id of the request, which also stands in every body but that of a callback.
    pub request_id: String,
    /// The body; empty with status 204.
    pub body: String,
}

/// The two renderings of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Xml,
}

/// Where the gateway sends people that met an error, followed by its code.
const RECOMMEND: &str = "https://api.aliyun.com/troubleshoot?q=";

/// The operation that tells the test nodes, the only one that does not wrap its answer.
pub(super) const STAGING_IPS: &str = "DescribeDcdnStagingIp";

const JSON: &str = "application/json;charset=utf-8";
const XML: &str = "text/xml;charset=utf-8";

impl Reply {
    /// The same reply in XML, as the gateway renders it when no other format is asked for. A body that is not JSON
    /// stays as it is.
    pub(super) fn in_xml(mut self, operation: &str) -> Self {
        if let Ok(value) = serde_json::from_str::<Value>(&self.body) {
            let element = match self.status {
                200 => format!("{operation}Response"),
                _ => "Error".to_owned(),
            };
            self.content_type = XML;
            self.body = document(&element, &value);
        }
        self
    }
}

impl Refusal {
    /// A refusal with everything said.
    pub(super) fn new(
        status: u16,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
        }
    }

    /// The one error that all routine operations document; only its text tells the causes apart.
    pub(super) fn general(cause: impl std::fmt::Display) -> Self {
        Self::new(
            400,
            "EdgeRoutine.GeneralError",
            format!("A server error occurred: {cause}"),
        )
    }
}

/// The gateway's reply to a call. Without content, which is JSON's null, only the id of the request is told.
pub(super) fn gateway(
    outcome: Result<Value, Refusal>,
    operation: &str,
    format: Format,
    host: &str,
    request_id: String,
) -> Reply {
    let (status, element, value) = match outcome {
        Ok(content) => {
            let mut value = json!({"RequestId": request_id});
            match content {
                Value::Null => {}
                // It is no operation of a routine, and has no content of its own.
                Value::Object(fields) if operation == STAGING_IPS => {
                    for (name, field) in fields {
                        value[name] = field;
                    }
                }
                content => value["Content"] = content,
            }
            (200, format!("{operation}Response"), value)
        }
        Err(refusal) => {
            let mut value = error_value(&refusal, host, &request_id);
            value["Recommend"] = json!(format!("{RECOMMEND}{}", refusal.code));
            (refusal.status, "Error".to_owned(), value)
        }
    };
    let (content_type, body) = match format {
        Format::Json => (JSON, value.to_string()),
        Format::Xml => (XML, document(&element, &value)),
    };
    Reply {
        status,
        content_type,
        request_id,
        body,
    }
}

/// Object storage's reply to a form post: what the callback answered, nothing when no callback was asked for, or an
/// error, which is always XML.
pub(super) fn storage(
    outcome: Result<Option<Value>, Refusal>,
    host: &str,
    request_id: String,
) -> Reply {
    let (status, content_type, body) = match outcome {
        Ok(Some(answer)) => (200, "application/json", answer.to_string()),
        Ok(None) => (204, "application/xml", String::new()),
        Err(refusal) => {
            let body = storage_error(&refusal, host, &request_id);
            (refusal.status, "application/xml", body)
        }
    };
    Reply {
        status,
        content_type,
        request_id,
        body,
    }
}

/// The error page of object storage.
pub(super) fn storage_error(refusal: &Refusal, host: &str, request_id: &str) -> String {
    document("Error", &error_value(refusal, host, request_id))
}

fn error_value(refusal: &Refusal, host: &str, request_id: &str) -> Value {
    json!({
        "RequestId": request_id,
        "HostId": host,
        "Code": refusal.code,
        "Message": refusal.message,
    })
}

fn document(element: &str, value: &Value) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    push_xml(&mut text, element, value);
    text
}

/// A map becomes nested elements and a list repeats its element.
fn push_xml(text: &mut String, element: &str, value: &Value) {
    if let Value::Array(items) = value {
        for item in items {
            push_xml(text, element, item);
        }
        return;
    }
    let _ = write!(text, "<{element}>");
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                push_xml(text, name, field);
            }
        }
        Value::String(plain) => text.push_str(&escape(plain)),
        other => {
            let _ = write!(text, "{other}");
        }
    }
    let _ = write!(text, "</{element}>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_in_xml_repeats_the_element_of_a_list() {
        let content = json!({"Envs": ["production", "staging"], "Description": "a<b&c"});
        let reply = gateway(
            Ok(content),
            "DescribeRoutine",
            Format::Xml,
            "h",
            "R1".into(),
        );
        assert_eq!(reply.status, 200);
        assert!(reply.body.ends_with(concat!(
            "<DescribeRoutineResponse><Content><Description>a&lt;b&amp;c</Description>",
            "<Envs>production</Envs><Envs>staging</Envs></Content>",
            "<RequestId>R1</RequestId></DescribeRoutineResponse>"
        )));
    }

    #[test]
    fn an_error_names_its_code_text_host_and_request() {
        let refusal = Refusal::general("you got upper limit of code revisions");
        let reply = gateway(
            Err(refusal),
            "UploadRoutineCode",
            Format::Json,
            "h:1",
            "R2".into(),
        );
        assert_eq!(reply.status, 400);
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(
            body,
            json!({
                "RequestId": "R2",
                "HostId": "h:1",
                "Code": "EdgeRoutine.GeneralError",
                "Message": "A server error occurred: you got upper limit of code revisions",
                "Recommend": "https://api.aliyun.com/troubleshoot?q=EdgeRoutine.GeneralError",
            })
        );
    }
}
