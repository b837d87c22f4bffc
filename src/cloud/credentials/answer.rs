//! What a program or a server answers that hands out keys. Pure.
//!
//! Nothing of an answer is repeated in what is said about it.

use jiff::Timestamp;
use serde_json::Value;

use super::document::{Document, field};
use crate::secrets::Text;

/// A key as it was handed out.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Handed {
    pub(super) id: Text,
    pub(super) secret: Text,
    pub(super) token: Option<Text>,
    pub(super) ends: Option<Timestamp>,
}

/// The answer of the metadata of an ECS instance, or of a credentials URI, which has the same five fields.
pub(super) fn of_server(text: &str) -> Result<Handed, &'static str> {
    of_five_fields(&object(text)?.0)
}

fn of_five_fields(answer: &Value) -> Result<Handed, &'static str> {
    let code = field(answer, "Code");
    if code.is_some_and(|code| code.as_str() != "Success") {
        return Err("the answer says that there is no key");
    }
    let needed = |key| field(answer, key);
    let (Some(id), Some(secret), Some(token)) = (
        needed("AccessKeyId"),
        needed("AccessKeySecret"),
        needed("SecurityToken"),
    ) else {
        return Err("the answer lacks one of `AccessKeyId`, `AccessKeySecret` and `SecurityToken`");
    };
    let ends = field(answer, "Expiration").ok_or("the answer has no `Expiration`")?;
    Ok(Handed {
        id,
        secret,
        token: Some(token),
        ends: Some(time(&ends)?),
    })
}

/// The answer to a key that takes on a role.
pub(super) fn of_role(text: &str) -> Result<Handed, &'static str> {
    match object(text)?.0.get("Credentials") {
        Some(credentials) if credentials.is_object() => of_five_fields(credentials),
        _ => Err("the answer holds no `Credentials`"),
    }
}

/// What a command of the mode External prints: a profile of the command line tool, perhaps with an `expiration`.
pub(super) fn of_command(text: &str) -> Result<Handed, &'static str> {
    let document = object(text)?;
    let answer = &document.0;
    let (Some(id), Some(secret)) = (
        field(answer, "access_key_id"),
        field(answer, "access_key_secret"),
    ) else {
        return Err("what it printed lacks `access_key_id` or `access_key_secret`");
    };
    let token = field(answer, "sts_token");
    match field(answer, "mode").as_deref().map(String::as_str) {
        Some("AK") | None => {}
        Some("StsToken") if token.is_some() => {}
        Some("StsToken") => {
            return Err("what it printed has the mode StsToken and no `sts_token`");
        }
        Some(_) => return Err("what it printed has another `mode` than AK or StsToken"),
    }
    let ends = field(answer, "expiration");
    Ok(Handed {
        id,
        secret,
        token,
        ends: ends.map(|ends| time(&ends)).transpose()?,
    })
}

fn object(text: &str) -> Result<Document, &'static str> {
    match Document::read(text) {
        Ok(document) if document.0.is_object() => Ok(document),
        _ => Err("the answer is no JSON object"),
    }
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    text.parse()
        .map_err(|_| "the end of the key is no time such as 2026-01-02T03:04:05Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that must appear nowhere, made here so that none stands in the tree.
    fn canary(name: &str) -> String {
        format!("{name}-{:016x}", fastrand::u64(..))
    }

    fn server(change: impl FnOnce(&mut Value)) -> (String, [String; 3]) {
        let parts = ["id", "secret", "token"].map(canary);
        let mut answer = serde_json::json!({
            "Code": "Success",
            "AccessKeyId": parts[0],
            "AccessKeySecret": parts[1],
            "SecurityToken": parts[2],
            "Expiration": "2026-11-27T12:00:00Z",
            "LastUpdated": "2026-11-27T06:00:00Z",
        });
        change(&mut answer);
        (answer.to_string(), parts)
    }

    #[test]
    fn an_answer_of_a_server_is_a_key_and_its_end() {
        let (text, [id, secret, token]) = server(|_| ());
        let handed = of_server(&text).ok().unwrap();
        let given = (handed.id, handed.secret, handed.token);
        let expected = (id.into(), secret.into(), Some(token.into()));
        assert!(given == expected);
        assert_eq!(handed.ends.unwrap().as_second(), 1_795_780_800);
    }

    #[test]
    fn an_answer_to_a_key_that_takes_on_a_role_holds_the_same() {
        let (text, [id, ..]) = server(|_| ());
        let handed = of_role(&format!("{{\"RequestId\":\"R\",\"Credentials\":{text}}}"));
        assert!(*handed.ok().unwrap().id == id);
        for wrong in [&text, "{\"Credentials\":null}", ""] {
            assert!(!of_role(wrong).err().unwrap().contains(&id));
        }
    }

    #[test]
    fn an_answer_that_lacks_something_is_refused_and_nothing_of_it_repeated() {
        for field in [
            "AccessKeyId",
            "AccessKeySecret",
            "SecurityToken",
            "Expiration",
        ] {
            for wrong in [Value::Null, Value::from(7), Value::from("")] {
                let (text, parts) = server(|answer| answer[field] = wrong.clone());
                let error = of_server(&text).err().unwrap();
                assert!(error.contains(field), "{field}: {error}");
                assert!(!parts.iter().any(|part| error.contains(part)));
            }
        }
        let (text, _) = server(|answer| answer["Code"] = "NotFound".into());
        assert!(of_server(&text).is_err());
        let secret = canary("secret");
        for text in [
            &secret,
            "",
            "[]",
            "7",
            &format!("{{\"AccessKeySecret\":{secret}}}"),
        ] {
            let error = of_server(text).err().unwrap();
            assert!(!error.contains(&secret), "{error}");
        }
        let (text, _) = server(|answer| answer["Expiration"] = canary("soon").into());
        assert!(!of_server(&text).err().unwrap().contains("soon-"));
    }

    #[test]
    fn a_command_prints_a_key_of_either_kind_with_an_end_or_none() {
        let parts = ["id", "secret", "token"].map(canary);
        let [id, secret, token] = &parts;
        let pair = format!("\"access_key_id\":\"{id}\",\"access_key_secret\":\"{secret}\"");
        let ak = of_command(&format!("{{\"mode\":\"AK\",{pair}}}\n"))
            .ok()
            .unwrap();
        assert!(*ak.id == *id && *ak.secret == *secret);
        assert!(ak.token.is_none() && ak.ends.is_none());
        let sts = format!(
            "{{\"mode\":\"StsToken\",{pair},\"sts_token\":\"{token}\",\"expiration\":\"2026-11-27T12:00:00Z\"}}"
        );
        let sts = of_command(&sts).ok().unwrap();
        assert!(sts.token.as_deref() == Some(token) && sts.ends.is_some());
        for wrong in [
            format!("{{\"mode\":\"StsToken\",{pair}}}"),
            format!("{{\"mode\":\"OAuth\",{pair}}}"),
            format!("{{\"mode\":\"AK\",{pair},\"expiration\":\"{token}\"}}"),
            format!("{{\"mode\":\"AK\",\"access_key_id\":\"{id}\"}}"),
            format!("{id} {secret}"),
        ] {
            let error = of_command(&wrong).err().unwrap();
            assert!(!parts.iter().any(|part| error.contains(part)), "{error}");
        }
    }
}
