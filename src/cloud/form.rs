//! The second step of an upload: the code goes to object storage with the form the service signed.
//!
//! The form is a bearer right to write one object until it ends, so it lives in memory only and nothing of it is ever
//! shown. This request is not a call of the API: it takes no permit, since the limit of 100 a second does not count it.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use reqwest::multipart;
use serde_json::Value;

use crate::routine::Code;
use crate::secrets;

use super::error::{self, Answer, Class, CloudError};
use super::http::{self, Body};

/// The name this request has in messages.
pub const OPERATION: &str = "PostObject";

/// The largest answer of object storage that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// The signed form of one upload.
#[derive(Clone, PartialEq, Eq)]
pub struct Form {
    url: Url,
    fields: Vec<(String, String)>,
}

/// Why the service's answer holds no form that may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A field is missing or has the wrong type.
    #[error("the form has no usable `{0}`")]
    Field(&'static str),
    /// Its address is none of object storage's.
    #[error("the form points at `{0}`, which is no bucket of aliyuncs.com")]
    Address(String),
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form({})", self.url.host_str().unwrap_or(""))
    }
}

impl Form {
    /// Reads an `OssPostConfig`. `loopback` tells whether the API itself is on this machine, in which case, and only
    /// then, the form may point at this machine, too.
    pub fn read(config: &Value, loopback: bool) -> Result<Self, FormError> {
        let config = config
            .as_object()
            .ok_or(FormError::Field("OssPostConfig"))?;
        let url = config
            .get("Url")
            .and_then(Value::as_str)
            .ok_or(FormError::Field("Url"))?;
        let url = address(url, loopback)?;
        let mut fields = Vec::new();
        for (name, value) in config.iter().filter(|(name, _)| *name != "Url") {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(FormError::Field("OssPostConfig")),
            };
            // The successor service names the token of its form by another name than object storage knows it by.
            let name = match name.as_str() {
                "XOssSecurityToken" => "x-oss-security-token",
                other => other,
            };
            fields.push((name.to_owned(), value));
        }
        for needed in ["key", "policy", "Signature"] {
            if !fields.iter().any(|(name, _)| name == needed) {
                return Err(FormError::Field(needed));
            }
        }
        Ok(Self { url, fields })
    }

    /// Sends the code. Success is HTTP 200 with `code` 200 in a JSON body and nothing else.
    pub(super) async fn post(
        &self,
        client: &http::Client,
        code: &Code,
        timeout: Duration,
    ) -> Result<(), CloudError> {
        let mut form = multipart::Form::new();
        for (name, value) in &self.fields {
            form = form.text(name.clone(), value.clone());
        }
        let part = multipart::Part::bytes(code.bytes().to_vec())
            .file_name("index.js")
            .mime_str("application/javascript")
            .map_err(|_| {
                CloudError::unusable(Class::Permanent, OPERATION, "no form could be made")
            })?;
        // What follows the file is ignored by object storage, so it comes last.
        let request = |client: &reqwest::Client| {
            client
                .post(self.url.clone())
                .multipart(form.part("file", part))
                .timeout(timeout)
        };
        let mut answer = client.send(OPERATION, MAX_ANSWER_BYTES, request).await?;
        answer.text = self.scrubbed(&answer.text);
        verdict(&answer)
    }

    /// Object storage's text without what is the right to write, should it repeat that.
    fn scrubbed(&self, text: &str) -> String {
        let secret = |(name, _): &&(String, String)| {
            let name = name.to_ascii_lowercase();
            ["policy", "signature", "accesskeyid", "token"]
                .iter()
                .any(|part| name.contains(part))
        };
        let rights = self.fields.iter().filter(secret);
        let rights: Vec<&str> = rights.map(|(_, value)| value.as_str()).collect();
        secrets::in_answer(text, &|text| {
            let text = secrets::without(text, rights.iter().copied());
            // It was never told a key. Whoever stands in its place may have been.
            secrets::scrub(&text)
        })
    }
}

/// Object storage counts as done only when it says so twice, in the status and in the body of the callback's answer.
fn verdict(answer: &Body) -> Result<(), CloudError> {
    if answer.status == 200 {
        let said = serde_json::from_str::<Value>(&answer.text).ok();
        let code = said.as_ref().and_then(|body| body.get("code"));
        match code {
            Some(Value::Number(number)) if number.as_u64() == Some(200) => return Ok(()),
            Some(Value::String(text)) if text == "200" => return Ok(()),
            _ => {}
        }
    }
    let answer = Answer {
        status: answer.status,
        body: &answer.text,
        retry_after: answer.retry_after,
    };
    Err(error::of_form(OPERATION, answer))
}

/// Checks where a form points, and moves it from http to https: the signature covers neither scheme nor host, so
/// nothing else would notice that the code went elsewhere or in the clear.
fn address(text: &str, loopback: bool) -> Result<Url, FormError> {
    let refused = || FormError::Address(shown(text));
    let mut url = Url::parse(text).map_err(|_| refused())?;
    if !url.username().is_empty()
        || url.password().is_some()
        || url.fragment().is_some()
        || url.query().is_some()
    {
        return Err(refused());
    }
    let host = url.host_str().ok_or_else(refused)?.to_owned();
    if loopback {
        let local = host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        return if local && matches!(url.scheme(), "http" | "https") {
            Ok(url)
        } else {
            Err(refused())
        };
    }
    if !is_bucket(&host) || url.path() != "/" {
        return Err(refused());
    }
    match (url.scheme(), url.port_or_known_default()) {
        ("https", Some(443)) => {}
        ("http", Some(80)) => url.set_scheme("https").map_err(|()| refused())?,
        _ => return Err(refused()),
    }
    Ok(url)
}

/// `<bucket>.oss-<region>.aliyuncs.com`, and not the address inside a cloud network.
fn is_bucket(host: &str) -> bool {
    let Some(rest) = host.strip_suffix(".aliyuncs.com") else {
        return false;
    };
    let Some((bucket, region)) = rest.split_once('.') else {
        return false;
    };
    let plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let edge = |text: &str| !text.starts_with('-') && !text.ends_with('-');
    (3..=63).contains(&bucket.len())
        && plain(bucket)
        && edge(bucket)
        && plain(region)
        && region
            .strip_prefix("oss-")
            .is_some_and(|region| !region.is_empty())
        && !region.ends_with("-internal")
}

/// The host of an address, for a message: the rest of it might be part of the right to write.
fn shown(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) => {
            let host = format!("{}://{}", url.scheme(), url.host_str().unwrap_or(""));
            error::tidy(&host, error::MAX_MESSAGE_CHARS)
        }
        Err(_) => "something that is no address".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_that_repeats_the_right_to_write_is_shown_without_it() {
        let form = json!({
            "Url": "https://abc.oss-cn-beijing.aliyuncs.com",
            "key": "routines/hello",
            "policy": "the-policy",
            "Signature": "the-signature",
            "OSSAccessKeyId": "the-key-id",
            "x-oss-security-token": "the-token",
        });
        let form = Form::read(&form, false).unwrap();
        let text = "<Error><Code>InvalidArgument</Code><Message>not the-key-id, the-token, the-policy and the-signature for routines/hello</Message></Error>";
        let body = Body {
            status: 400,
            text: form.scrubbed(text),
            date: None,
            retry_after: None,
        };
        let told = verdict(&body).unwrap_err().to_string();
        assert!(
            told.contains("not ***, ***, *** and *** for routines/hello"),
            "{told}"
        );
    }

    #[test]
    fn b15_b16_only_a_bucket_over_https_is_written_to() {
        let good = [
            (
                "http://cdn-edgejs.oss-cn-hangzhou.aliyuncs.com",
                "https://cdn-edgejs.oss-cn-hangzhou.aliyuncs.com/",
            ),
            (
                "https://abc.oss-ap-southeast-1.aliyuncs.com/",
                "https://abc.oss-ap-southeast-1.aliyuncs.com/",
            ),
            (
                "https://abc.oss-cn-beijing.aliyuncs.com:443",
                "https://abc.oss-cn-beijing.aliyuncs.com/",
            ),
        ];
        for (given, used) in good {
            assert_eq!(address(given, false).unwrap().as_str(), used);
        }
        let bad = [
            "http://cdn-edgejs.oss-cn-hangzhou-internal.aliyuncs.com",
            "http://cdn-edgejs.oss-cn-hangzhou.aliyuncs.com.example.com",
            "http://oss-cn-hangzhou.aliyuncs.com",
            "http://a.b.oss-cn-hangzhou.aliyuncs.com",
            "http://-ab.oss-cn-hangzhou.aliyuncs.com",
            "http://abc-.oss-cn-hangzhou.aliyuncs.com",
            "http://ab.oss-cn-hangzhou.aliyuncs.com",
            "http://abc.oss-.aliyuncs.com",
            "http://abc.oss-cn-hangzhou-internal.aliyuncs.com:443",
            "http://abc.ecs-cn-hangzhou.aliyuncs.com",
            "http://abc.dcdn.aliyuncs.com",
            "http://abc.oss.aliyuncs.com",
            "http://abc.xoss-cn-hangzhou.aliyuncs.com",
            "http://abc.oss-cn-hangzhou.aliyuncs.com.",
            "http://abc.oss-cn-hangzhou.aliyuncs.com..",
            "http://abc.oss-cn-hangzhou.aliyuncs.co",
            "http://abc.oss-cn-hangzhou.aliyuncs.com.cn",
            "http://abc.oss-cn-hangzhou.aliyuncs-com.example",
            "http://abcoss-cn-hangzhou.aliyuncs.com",
            "http://aliyuncs.com",
            "http://.oss-cn-hangzhou.aliyuncs.com",
            "http://a_c.oss-cn-hangzhou.aliyuncs.com",
            "http://abc.oss-cn_hangzhou.aliyuncs.com",
            "http://abc%2eoss-cn-hangzhou.example.com",
            "http://abc.oss-cn-hangzhou.aliyuncs.com%2eexample.com",
            "http://abc.oss-cn-hangzhou.aliyuncs.com@example.com",
            "http://abc.oss-cn-hangzhou.aliyuncs.com:80@example.com/",
            "http://example.com/abc.oss-cn-hangzhou.aliyuncs.com",
            "http://example.com?abc.oss-cn-hangzhou.aliyuncs.com",
            "http://example.com#abc.oss-cn-hangzhou.aliyuncs.com",
            "http://example.com\\abc.oss-cn-hangzhou.aliyuncs.com",
            "http://user@abc.oss-cn-hangzhou.aliyuncs.com",
            "http://user:word@abc.oss-cn-hangzhou.aliyuncs.com",
            "http://abc.oss-cn-hangzhou.aliyuncs.com:8080",
            "http://abc.oss-cn-hangzhou.aliyuncs.com:22",
            "http://abc.oss-cn-hangzhou.aliyuncs.com:0",
            "http://abc.oss-cn-hangzhou.aliyuncs.com:443",
            "https://abc.oss-cn-hangzhou.aliyuncs.com:80",
            "https://abc.oss-cn-hangzhou.aliyuncs.com:99999",
            "https://abc.oss-cn-hangzhou.aliyuncs.com/other",
            "https://abc.oss-cn-hangzhou.aliyuncs.com//",
            "https://abc.oss-cn-hangzhou.aliyuncs.com/?x=1",
            "https://abc.oss-cn-hangzhou.aliyuncs.com/#x",
            "ftp://abc.oss-cn-hangzhou.aliyuncs.com",
            "ws://abc.oss-cn-hangzhou.aliyuncs.com",
            "gopher://abc.oss-cn-hangzhou.aliyuncs.com",
            "javascript:alert(1)",
            "data:text/plain,x",
            "http://127.0.0.1:9480/oss",
            "http://127.1/",
            "http://0.0.0.0/",
            "http://0x7f.0.0.1/",
            "http://2130706433/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.0.1/",
            "http://169.254.169.254/",
            "http://100.100.100.200/latest/meta-data",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[fe80::1]/",
            "http://localhost/",
            "file:///etc/passwd",
            "//abc.oss-cn-hangzhou.aliyuncs.com",
            "abc.oss-cn-hangzhou.aliyuncs.com",
            "http://",
            " ",
            "",
        ];
        assert!(bad.len() >= 60);
        for given in bad {
            assert!(address(given, false).is_err(), "{given}");
        }
    }

    #[test]
    fn b11_an_address_of_any_length_is_shown_in_a_short_line() {
        let long = "x".repeat(10_000);
        for odd in [format!("{long}:y"), format!("http://{long}/"), long] {
            let told = address(&odd, false).unwrap_err().to_string();
            assert!(told.chars().count() < 250, "{} characters", told.len());
        }
    }

    #[test]
    fn a_form_on_this_machine_needs_an_api_on_this_machine() {
        for local in [
            "http://127.0.0.1:9480/oss",
            "http://[::1]:1/oss",
            "http://localhost:1/oss",
        ] {
            assert_eq!(address(local, true).unwrap().as_str(), local);
        }
        for other in [
            "http://abc.oss-cn-hangzhou.aliyuncs.com",
            "http://10.0.0.1/oss",
            "ftp://127.0.0.1/",
        ] {
            assert!(address(other, true).is_err(), "{other}");
        }
    }

    #[test]
    fn c23_every_field_but_the_address_is_kept_to_the_letter() {
        let config = json!({
            "Url": "http://127.0.0.1:1/oss", "OSSAccessKeyId": "k", "key": "hello.1.2.js", "policy": "cG9saWN5",
            "Signature": "s+/=", "callback": "Y2I=", "x:codeDescription": "IkhlbGxvIFdvcmxkIg==", "new": 7,
        });
        let form = Form::read(&config, true).unwrap();
        let field = |name: &str| {
            form.fields
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(form.fields.len(), 7);
        assert_eq!(field("x:codeDescription"), Some("IkhlbGxvIFdvcmxkIg=="));
        assert_eq!(field("Signature"), Some("s+/="));
        assert_eq!(field("new"), Some("7"));
        assert!(!format!("{form:?}").contains("cG9saWN5"));
    }

    #[test]
    fn c23_a_form_that_lacks_a_part_is_refused_before_anything_is_sent() {
        let whole =
            json!({"Url": "http://127.0.0.1:1/oss", "key": "k", "policy": "p", "Signature": "s"});
        assert!(Form::read(&whole, true).is_ok());
        for missing in ["Url", "key", "policy", "Signature"] {
            let mut part = whole.clone();
            part.as_object_mut().unwrap().remove(missing);
            assert_eq!(Form::read(&part, true), Err(FormError::Field(missing)));
        }
        assert!(Form::read(&json!("text"), true).is_err());
        assert!(Form::read(&json!({"Url": ["x"]}), true).is_err());
    }

    #[test]
    fn only_two_hundred_twice_is_success() {
        let verdict = |status, text: &str| {
            verdict(&Body {
                status,
                text: text.into(),
                retry_after: None,
                date: None,
            })
            .map_err(|e| e.class)
        };
        assert_eq!(verdict(200, r#"{"code":200}"#), Ok(()));
        assert_eq!(verdict(200, r#"{"code":"200","x":[]}"#), Ok(()));
        for (status, text) in [
            (200, ""),
            (200, "ok"),
            (200, r#"{"code":500}"#),
            (200, r#"{"code":200.5}"#),
            (200, r#"[{"code":200}]"#),
            (201, r#"{"code":200}"#),
            (203, r#"{"code":200}"#),
            (204, ""),
        ] {
            assert_eq!(
                verdict(status, text),
                Err(Class::Ambiguous),
                "{status} {text}"
            );
        }
    }
}
