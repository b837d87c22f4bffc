//! The upload form: the signed right to put one object into object storage, and the check of that right.
//!
//! It carries everything it allows inside itself, so neither side remembers a form that was given out. What a post
//! then does is left to `storage`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::Refusal;
use super::signature;
use crate::routine::{MAX_CODE_BYTES, Revision, RoutineName};

/// The id of the key that signs forms. It is not the caller's.
pub const STORAGE_KEY_ID: &str = "emulator-oss-key-id";

/// The secret of the key that signs forms.
pub const STORAGE_KEY_SECRET: &str = "emulator-oss-key-secret";

/// Where a form is posted to, below the emulator's own address.
pub const STORAGE_PATH: &str = "/oss";

/// Where object storage reports a file, below the emulator's own address. It is called inside the process and does
/// not answer on the network.
pub(super) const CALLBACK_PATH: &str = "/upload_code_oss_callback";

/// The account all routines belong to; it is part of an object's key.
const ACCOUNT: &str = "1000000000000001";

/// What a form is made for.
pub(super) struct Ticket<'a> {
    pub(super) origin: &'a str,
    pub(super) routine: &'a RoutineName,
    pub(super) revision: &'a Revision,
    pub(super) stored_description: &'a str,
    pub(super) expires: Timestamp,
}

/// What the callback of a form says, and what object storage does with it.
#[derive(Debug, Deserialize)]
pub(super) struct Callback {
    #[serde(rename = "callbackUrl")]
    pub(super) url: String,
    #[serde(rename = "callbackBody")]
    pub(super) body: String,
    #[serde(rename = "callbackBodyType")]
    pub(super) body_type: String,
}

/// A form as it was posted: the fields that came before the file, in their order.
#[derive(Debug, Clone, Default)]
pub struct Fields(pub Vec<(String, String)>);

#[derive(Deserialize)]
struct Policy {
    expiration: String,
    conditions: Vec<Value>,
}

/// The `OssPostConfig` of an upload.
pub(super) fn issue(ticket: &Ticket<'_>) -> Value {
    let key = format!("{}.{ACCOUNT}.{}.js", ticket.routine, ticket.revision);
    let callback = STANDARD.encode(
        json!({
            "callbackUrl": format!("{}{CALLBACK_PATH}", ticket.origin),
            "callbackBody": "Object=${object}&CodeDescription=${x:codedescription}",
            "callbackBodyType": "application/x-www-form-urlencoded",
        })
        .to_string(),
    );
    let policy = STANDARD.encode(
        json!({
            "expiration": ticket.expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "conditions": [
                ["eq", "$key", key],
                ["eq", "$callback", callback],
                ["eq", "$x:codedescription", ticket.stored_description],
                ["content-length-range", 1, MAX_CODE_BYTES],
            ],
        })
        .to_string(),
    );
    json!({
        "Url": format!("{}{STORAGE_PATH}", ticket.origin),
        "OSSAccessKeyId": STORAGE_KEY_ID,
        "key": key,
        "Signature": signature::sign_policy(STORAGE_KEY_SECRET, &policy),
        "policy": policy,
        "callback": callback,
        "x:codeDescription": ticket.stored_description,
    })
}

/// The revision that the form in an answer is for.
pub(super) fn issued_for(answer: &Value) -> Option<Revision> {
    let (_, revision) = read_key(answer["OssPostConfig"]["key"].as_str()?)?;
    Some(revision)
}

/// The routine and the revision an object's key names.
pub(super) fn read_key(key: &str) -> Option<(RoutineName, Revision)> {
    let mut parts = key.split('.');
    let (routine, account, revision) = (parts.next()?, parts.next()?, parts.next()?);
    let revision = Revision::new(revision);
    let ours = account == ACCOUNT && parts.next() == Some("js") && parts.next().is_none();
    let named = revision.number().is_some() || revision.is_staging();
    (ours && named).then_some((RoutineName::new(routine).ok()?, revision))
}

impl Fields {
    /// The value of a field. Case does not count in its name, and of two the first is taken.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Checks that the form was signed, still lives at `now`, and allows these fields and a file of this size.
    pub(super) fn check(&self, size: u64, now: Timestamp) -> Result<(), Refusal> {
        let policy = self.signed_policy()?;
        let expires: Timestamp = policy
            .expiration
            .parse()
            .map_err(|_| invalid_policy("its expiration is no time"))?;
        if now > expires {
            return Err(denied("Policy expired."));
        }
        for condition in &policy.conditions {
            self.meets(condition, size)?;
        }
        Ok(())
    }

    /// The form's callback, if it asks for one.
    pub(super) fn callback(&self) -> Result<Option<Callback>, Refusal> {
        let Some(text) = self.get("callback") else {
            return Ok(None);
        };
        let callback = STANDARD
            .decode(text)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok());
        let broken = || {
            Refusal::new(
                400,
                "InvalidArgument",
                "the callback configuration is not json format",
            )
        };
        callback.map(Some).ok_or_else(broken)
    }

    /// The policy, once its signature is found right. The bucket is private: a form without one has no rights.
    fn signed_policy(&self) -> Result<Policy, Refusal> {
        let (Some(id), Some(text), Some(given)) = (
            self.get("OSSAccessKeyId"),
            self.get("policy"),
            self.get("Signature"),
        ) else {
            let message = "OSSAccessKeyId, policy and Signature must stand before the file";
            return Err(Refusal::new(403, "AccessDenied", message));
        };
        if id != STORAGE_KEY_ID {
            let message = "the access key id of the form does not exist";
            return Err(Refusal::new(403, "InvalidAccessKeyId", message));
        }
        if signature::sign_policy(STORAGE_KEY_SECRET, text) != given {
            let message = "the signature of the policy is not the one we calculate";
            return Err(Refusal::new(403, "SignatureDoesNotMatch", message));
        }
        let policy = STANDARD
            .decode(text)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok());
        policy.ok_or_else(|| invalid_policy("it is not base64 of the JSON a policy has"))
    }

    fn meets(&self, condition: &Value, size: u64) -> Result<(), Refusal> {
        let met = match condition.as_array().map(Vec::as_slice) {
            Some([Value::String(kind), low, high]) if kind == "content-length-range" => {
                let (Some(low), Some(high)) = (low.as_u64(), high.as_u64()) else {
                    return Err(invalid_policy("content-length-range needs two numbers"));
                };
                return size_within(size, low, high);
            }
            Some(
                [
                    Value::String(kind),
                    Value::String(field),
                    Value::String(want),
                ],
            ) => {
                let value = field.strip_prefix('$').and_then(|name| self.get(name));
                match kind.as_str() {
                    "eq" => value == Some(want),
                    "starts-with" => value.is_some_and(|value| value.starts_with(want)),
                    _ => return Err(invalid_policy("a condition is of an unknown kind")),
                }
            }
            Some(_) => return Err(invalid_policy("a condition is of an unknown form")),
            None => {
                let Some(pairs) = condition.as_object() else {
                    return Err(invalid_policy("a condition is neither a list nor a map"));
                };
                pairs
                    .iter()
                    .all(|(name, want)| self.get(name).is_some() && self.get(name) == want.as_str())
            }
        };
        if met {
            return Ok(());
        }
        Err(denied(&format!("Policy Condition failed: {condition}")))
    }
}

fn size_within(size: u64, low: u64, high: u64) -> Result<(), Refusal> {
    if size > high {
        let message = format!("the file has {size} bytes, at most {high} are allowed");
        return Err(Refusal::new(400, "EntityTooLarge", message));
    }
    if size < low {
        let message = format!("the file has {size} bytes, at least {low} are asked for");
        return Err(Refusal::new(400, "EntityTooSmall", message));
    }
    Ok(())
}

fn denied(cause: &str) -> Refusal {
    Refusal::new(
        403,
        "AccessDenied",
        format!("Invalid according to Policy: {cause}"),
    )
}

fn invalid_policy(cause: &str) -> Refusal {
    Refusal::new(
        400,
        "InvalidPolicyDocument",
        format!("Invalid Policy: {cause}"),
    )
}
