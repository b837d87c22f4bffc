//! The gate in front of the API: who calls, is the signature right, is the call fresh, and does it come too fast.
//!
//! What a call does is left to `operations`. A nonce is remembered last of all, so that a request with a wrong
//! signature cannot use up the nonce of a right one.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::reply::{Format, Refusal};
use super::signature;
use super::switches::RateScope;

/// The id of the one key the emulator knows.
pub const KEY_ID: &str = "emulator-key-id";

/// The secret of the one key the emulator knows. It is public and opens nothing else.
pub const KEY_SECRET: &str = "emulator-key-secret";

/// How far a call's `Timestamp` may be from the emulator's clock, either way.
pub const ALLOWED_SKEW: SignedDuration = SignedDuration::from_mins(15);

/// How many calls of one operation, or of all together, are carried out in any sliding second.
pub const CALLS_PER_SECOND: usize = 100;

/// How many nonces are remembered; beyond it the oldest is forgotten, which lets it be used again.
const MAX_NONCES: usize = 1_000_000;

/// The longest nonce taken, in bytes, so that [`MAX_NONCES`] bounds the memory.
const MAX_NONCE_BYTES: usize = 128;

const SECOND: Duration = Duration::from_secs(1);

/// One call as it arrived: the method, and the parameters of query and form as one set.
#[derive(Debug, Clone)]
pub struct Call {
    method: String,
    parameters: Vec<(String, String)>,
}

/// What the gate remembers of earlier calls.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    nonces: Nonces,
    /// When the calls of the last second came, by operation, with an empty name for all together. There is one key, so
    /// this is also by key.
    recent: HashMap<&'static str, VecDeque<Duration>>,
}

/// Nonces of calls whose timestamp could still be accepted: a replay of an older one is stale anyway.
#[derive(Debug, Default)]
struct Nonces {
    seen: HashSet<Arc<str>>,
    by_time: BTreeSet<(Timestamp, Arc<str>)>,
}

impl Call {
    /// Reads a call from its method, the query of its URL and, for a POST, its form body.
    pub fn new(method: &str, query: &str, form: &str) -> Self {
        let mut parameters = signature::decode_form(query);
        parameters.extend(signature::decode_form(form));
        parameters.sort();
        Self {
            method: method.to_owned(),
            parameters,
        }
    }

    /// The value of a parameter. One without a value counts as missing, as it does at the service.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(given, _)| given == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// The value of a parameter that must be there.
    pub(super) fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| {
            let message = format!("the mandatory parameter \"{name}\" is not supplied");
            Refusal::new(400, "MissingParameter", message)
        })
    }

    /// How the caller wants the reply. XML is what the gateway takes when nothing is said.
    pub(super) fn format(&self) -> Format {
        match self.get("Format") {
            Some(format) if format.eq_ignore_ascii_case("json") => Format::Json,
            _ => Format::Xml,
        }
    }
}

impl Gateway {
    /// Checks everything about a call that does not depend on what it asks for.
    pub(super) fn authenticate(&mut self, call: &Call, now: Timestamp) -> Result<(), Refusal> {
        let key = call.need("AccessKeyId")?;
        check_key(key, call)?;
        check_signature(call)?;
        // A nonce is used up by a call that is throttled or refused later, too: a second try needs a new one.
        let stamp = check_timestamp(call.need("Timestamp")?, now)?;
        self.nonces.take(call.need("SignatureNonce")?, stamp, now)
    }

    /// Lets a call of an operation pass unless [`CALLS_PER_SECOND`] of it came in the second before `now`, or of all
    /// operations together where they share one limit.
    ///
    /// Of the possible readings this is the strict one that a client can still recover from: every call with a right
    /// signature counts, also one that is refused afterwards; only a throttled one does not, since it was not
    /// executed, and counting it would lock out for ever a client that keeps trying. A call counts for one second:
    /// exactly then its place is free again.
    pub(super) fn admit(
        &mut self,
        operation: &'static str,
        scope: RateScope,
        now: Duration,
    ) -> Result<(), Refusal> {
        let counted = match scope {
            RateScope::Operation => operation,
            RateScope::Total => "",
        };
        let recent = self.recent.entry(counted).or_default();
        while recent.front().is_some_and(|then| *then + SECOND <= now) {
            recent.pop_front();
        }
        if recent.len() >= CALLS_PER_SECOND {
            let message = "too many calls by this user in one second";
            return Err(Refusal::new(400, "Throttling.User", message));
        }
        recent.push_back(now);
        Ok(())
    }
}

impl Nonces {
    fn take(&mut self, nonce: &str, stamp: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        let forget = |(then, _): &(Timestamp, Arc<str>)| now.duration_since(*then) > ALLOWED_SKEW;
        while self.by_time.first().is_some_and(forget) || self.seen.len() >= MAX_NONCES {
            if let Some((_, old)) = self.by_time.pop_first() {
                self.seen.remove(&old);
            }
        }
        if nonce.len() > MAX_NONCE_BYTES {
            let message = format!("SignatureNonce is longer than {MAX_NONCE_BYTES} bytes");
            return Err(Refusal::new(400, "InvalidParameter", message));
        }
        let nonce: Arc<str> = nonce.into();
        if !self.seen.insert(Arc::clone(&nonce)) {
            let message = "this nonce was used before";
            return Err(Refusal::new(400, "SignatureNonceUsed", message));
        }
        self.by_time.insert((stamp, nonce));
        Ok(())
    }
}

/// The emulator has a key of its own, so that no real one is ever sent to it; one that is sent all the same gets a
/// plain word, and is not repeated in it.
fn check_key(key: &str, call: &Call) -> Result<(), Refusal> {
    if key.starts_with("LTAI") {
        let message = format!(
            "this is the emulator of er-dev, real access keys do not belong here; use the key id {KEY_ID}"
        );
        return Err(Refusal::new(404, "InvalidAccessKeyId.NotFound", message));
    }
    if key != KEY_ID {
        let message = "there is no such access key";
        return Err(Refusal::new(404, "InvalidAccessKeyId.NotFound", message));
    }
    if call.get("SecurityToken").is_some() {
        let code = "InvalidSecurityToken.MismatchWithAccessKey";
        let message = "the access key of the emulator has no security token";
        return Err(Refusal::new(403, code, message));
    }
    Ok(())
}

fn check_signature(call: &Call) -> Result<(), Refusal> {
    let incomplete = |name: &str| {
        let message = format!("the request does not follow the signature scheme: {name}");
        Refusal::new(400, "IncompleteSignature", message)
    };
    let given = call
        .get("Signature")
        .ok_or_else(|| incomplete("Signature is missing"))?;
    for (name, only) in [
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureVersion", "1.0"),
    ] {
        if call.get(name) != Some(only) {
            return Err(incomplete(&format!("{name} must be {only}")));
        }
    }
    if let Some(pair) = call
        .parameters
        .windows(2)
        .find(|pair| pair[0].0 == pair[1].0)
    {
        let message = format!("the parameter \"{}\" is given twice", pair[0].0);
        return Err(Refusal::new(400, "InvalidParameter", message));
    }
    let text = signature::string_to_sign(&call.method, &call.parameters);
    if signature::sign_rpc(KEY_SECRET, &text) != given {
        let message =
            format!("the signature is not the one we calculate, server string to sign is:{text}");
        return Err(Refusal::new(400, "SignatureDoesNotMatch", message));
    }
    Ok(())
}

fn check_timestamp(text: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
    // Only the one form that is allowed is what its time is written as again.
    let plain = |t: &Timestamp| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() == text;
    let stamp: Option<Timestamp> = text.parse().ok().filter(plain);
    let Some(stamp) = stamp else {
        let message = "the time stamp is not of the form yyyy-MM-ddTHH:mm:ssZ";
        return Err(Refusal::new(400, "InvalidTimeStamp.Format", message));
    };
    if now.duration_since(stamp).abs() > ALLOWED_SKEW {
        let message = "the time stamp is expired";
        return Err(Refusal::new(400, "InvalidTimeStamp.Expired", message));
    }
    Ok(stamp)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A call as a client with the emulator's key would sign it.
    pub(in crate::emulator) fn signed(
        action: &str,
        parameters: &[(&str, &str)],
        nonce: &str,
        stamp: Timestamp,
    ) -> Call {
        let stamp = stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut all = vec![
            ("AccessKeyId", KEY_ID),
            ("Action", action),
            ("Format", "JSON"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureNonce", nonce),
            ("SignatureVersion", "1.0"),
            ("Timestamp", &stamp),
            ("Version", "2018-01-15"),
        ];
        all.extend_from_slice(parameters);
        sign(&all)
    }

    fn sign(parameters: &[(&str, &str)]) -> Call {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut call = Call {
            method: "POST".to_owned(),
            parameters: parameters.iter().map(pair).collect(),
        };
        call.parameters.sort();
        let text = signature::string_to_sign("POST", &call.parameters);
        let signature = signature::sign_rpc(KEY_SECRET, &text);
        call.parameters.push(("Signature".to_owned(), signature));
        call.parameters.sort();
        call
    }

    fn with(mut call: Call, name: &str, value: &str) -> Call {
        call.parameters.retain(|(given, _)| given != name);
        call.parameters.push((name.to_owned(), value.to_owned()));
        call.parameters.sort();
        call
    }

    fn noon() -> Timestamp {
        "2026-02-03T12:00:00Z".parse().unwrap()
    }

    fn code(outcome: Result<(), Refusal>) -> (u16, &'static str) {
        outcome.map_or_else(
            |refusal| match refusal.code {
                std::borrow::Cow::Borrowed(code) => (refusal.status, code),
                std::borrow::Cow::Owned(code) => panic!("{code} is no code of the gate"),
            },
            |()| (200, "OK"),
        )
    }

    #[test]
    fn query_and_form_are_signed_as_one_set() {
        let call = signed("DescribeRoutine", &[("Name", "a b")], "n1", noon());
        let write = |part: &[(String, String)]| {
            let fields = part.iter().map(|(name, value)| {
                format!("{}={}", signature::encode(name), signature::encode(value))
            });
            fields.collect::<Vec<String>>().join("&")
        };
        let (query, form) = call.parameters.split_at(4);
        let arrived = Call::new("POST", &write(query), &write(form));
        assert_eq!(
            code(Gateway::default().authenticate(&arrived, noon())),
            (200, "OK")
        );
        let other_method = Call::new("GET", &write(query), &write(form));
        assert_eq!(
            code(Gateway::default().authenticate(&other_method, noon())).1,
            "SignatureDoesNotMatch"
        );
    }

    #[test]
    fn a_wrong_signature_does_not_use_up_the_nonce() {
        let mut gateway = Gateway::default();
        let right = signed("DescribeRoutine", &[("Name", "hello")], "n1", noon());
        let forged = with(right.clone(), "Name", "other");
        let refusal = gateway.authenticate(&forged, noon()).unwrap_err();
        assert_eq!(
            (refusal.status, refusal.code.as_ref()),
            (400, "SignatureDoesNotMatch")
        );
        assert!(
            refusal
                .message
                .contains("string to sign is:POST&%2F&AccessKeyId%3D"),
            "{refusal}"
        );
        assert_eq!(gateway.authenticate(&right, noon()), Ok(()));
        assert_eq!(
            code(gateway.authenticate(&right, noon())),
            (400, "SignatureNonceUsed")
        );
    }

    #[test]
    fn a_nonce_is_remembered_as_long_as_its_timestamp_is_accepted_and_no_longer() {
        let mut gateway = Gateway::default();
        let early = signed("DescribeRoutine", &[], "n1", noon());
        let last = noon() + ALLOWED_SKEW;
        assert_eq!(gateway.authenticate(&early, noon()), Ok(()));
        assert_eq!(
            code(gateway.authenticate(&early, last)),
            (400, "SignatureNonceUsed")
        );
        let after = last + SignedDuration::from_secs(1);
        assert_eq!(
            code(gateway.authenticate(&early, after)),
            (400, "InvalidTimeStamp.Expired")
        );
        let later = signed("DescribeRoutine", &[], "n2", after);
        assert_eq!(gateway.authenticate(&later, after), Ok(()));
        assert_eq!(
            (gateway.nonces.seen.len(), gateway.nonces.by_time.len()),
            (1, 1)
        );
    }

    #[test]
    fn a_timestamp_may_be_a_quarter_of_an_hour_off_either_way() {
        let second = SignedDuration::from_secs(1);
        for (stamp, expected) in [
            (noon() - ALLOWED_SKEW, "OK"),
            (noon() + ALLOWED_SKEW, "OK"),
            (noon() - ALLOWED_SKEW - second, "InvalidTimeStamp.Expired"),
            (noon() + ALLOWED_SKEW + second, "InvalidTimeStamp.Expired"),
        ] {
            let call = signed("DescribeRoutine", &[], "n", stamp);
            assert_eq!(
                code(Gateway::default().authenticate(&call, noon())).1,
                expected,
                "{stamp}"
            );
        }
    }

    #[test]
    fn only_one_spelling_of_a_timestamp_is_taken() {
        for odd in [
            "2026-02-03T12:00:00.5Z",
            "2026-02-03T12:00:00+00:00",
            "2026-02-03 12:00:00Z",
            "2026-02-03T12:00:00",
            "1770120000",
        ] {
            assert_eq!(
                code(check_timestamp(odd, noon()).map(|_| ())),
                (400, "InvalidTimeStamp.Format"),
                "{odd}"
            );
        }
    }

    #[test]
    fn what_is_missing_or_doubled_is_named() {
        let full = signed("DescribeRoutine", &[("Name", "hello")], "n1", noon());
        for (name, expected) in [
            ("AccessKeyId", "MissingParameter"),
            ("Signature", "IncompleteSignature"),
            ("SignatureMethod", "IncompleteSignature"),
            ("SignatureVersion", "IncompleteSignature"),
        ] {
            let refusal = Gateway::default()
                .authenticate(&with(full.clone(), name, ""), noon())
                .unwrap_err();
            assert_eq!(
                (refusal.status, refusal.code.as_ref()),
                (400, expected),
                "{name}"
            );
            assert!(refusal.message.contains(name), "{refusal}");
        }
        let known = [
            ("AccessKeyId", KEY_ID),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
        ];
        let no_time = sign(&[&known[..], &[("SignatureNonce", "n1")]].concat());
        assert_eq!(
            code(Gateway::default().authenticate(&no_time, noon())).1,
            "MissingParameter"
        );
        let no_nonce = sign(&[&known[..], &[("Timestamp", "2026-02-03T12:00:00Z")]].concat());
        assert_eq!(
            code(Gateway::default().authenticate(&no_nonce, noon())).1,
            "MissingParameter"
        );
        let doubled = signed(
            "DescribeRoutine",
            &[("Name", "a"), ("Name", "b")],
            "n1",
            noon(),
        );
        assert_eq!(
            code(Gateway::default().authenticate(&doubled, noon())).1,
            "InvalidParameter"
        );
    }

    #[test]
    fn only_the_emulators_own_key_is_known_and_a_real_one_is_sent_away() {
        let call = signed("DescribeRoutine", &[], "n1", noon());
        let unknown = with(call.clone(), "AccessKeyId", "somebody");
        assert_eq!(
            code(Gateway::default().authenticate(&unknown, noon())),
            (404, "InvalidAccessKeyId.NotFound")
        );
        let real = format!("LT{}5tExample", "AI");
        let refusal = Gateway::default()
            .authenticate(&with(call, "AccessKeyId", &real), noon())
            .unwrap_err();
        assert!(refusal.message.contains("emulator"), "{refusal}");
        assert!(!refusal.message.contains(&real), "{refusal}");
        let token = signed("DescribeRoutine", &[("SecurityToken", "t")], "n1", noon());
        let expected = (403, "InvalidSecurityToken.MismatchWithAccessKey");
        assert_eq!(
            code(Gateway::default().authenticate(&token, noon())),
            expected
        );
    }

    fn admit(gateway: &mut Gateway, op: &'static str, now: Duration) -> Result<(), Refusal> {
        gateway.admit(op, RateScope::Operation, now)
    }

    #[test]
    fn all_operations_share_one_limit_where_it_is_a_total() {
        let mut gateway = Gateway::default();
        for _ in 0..50 {
            for op in ["DescribeRoutine", "UploadRoutineCode"] {
                assert_eq!(gateway.admit(op, RateScope::Total, SECOND), Ok(()));
            }
        }
        let more = gateway.admit("DeleteRoutineCodeRevision", RateScope::Total, SECOND);
        assert_eq!(code(more), (400, "Throttling.User"));
    }

    #[test]
    fn a_hundred_calls_pass_in_a_second_and_the_next_one_exactly_after_it() {
        let mut gateway = Gateway::default();
        let at = Duration::from_millis;
        for call in 0..100 {
            assert_eq!(
                admit(&mut gateway, "DescribeRoutine", at(500 + call)),
                Ok(())
            );
        }
        let almost = at(1500) - Duration::from_nanos(1);
        assert_eq!(
            code(admit(&mut gateway, "DescribeRoutine", almost)),
            (400, "Throttling.User")
        );
        assert_eq!(
            admit(&mut gateway, "UploadRoutineCode", almost),
            Ok(()),
            "each operation has its own"
        );
        assert_eq!(admit(&mut gateway, "DescribeRoutine", at(1500)), Ok(()));
        assert_eq!(
            code(admit(&mut gateway, "DescribeRoutine", at(1500))).1,
            "Throttling.User",
            "one place was free"
        );
    }
}
