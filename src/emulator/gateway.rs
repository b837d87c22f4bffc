//! The gate in front of the API: who calls, is the signature right, is the call fresh, and does it come too fast.
//!
//! What a call does is left to `operations`. A nonce is remembered last of all, so that a request with a wrong
//! signature cannot use up the nonce of a right one.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::acs3::Claim;
use super::keys::Keys;
use super::reply::{Format, Refusal};
use super::signature;
use super::switches::RateScope;

/// The id of the key that the emulator knows from the start.
pub const KEY_ID: &str = "emulator-key-id";

/// The secret of that key. It is public and opens nothing else.
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

/// One call as it arrived: the method, and the parameters of query and form as one set, sorted. Where it is signed in
/// its headers, those that are parameters in the older scheme are among them.
#[derive(Debug, Clone)]
pub struct Call {
    method: String,
    parameters: Vec<(String, String)>,
    scheme: Scheme,
}

/// How a call is signed.
#[derive(Debug, Clone)]
enum Scheme {
    /// In its parameters.
    Rpc,
    /// In its headers.
    Acs3(Claim),
}

/// What the gate remembers of earlier calls.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    pub(super) keys: Keys,
    nonces: Nonces,
    /// When the calls of the last second came, by operation, with an empty name for all together. All keys are
    /// one account's.
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
            scheme: Scheme::Rpc,
        }
    }

    /// The same, signed in its headers. What they say stands above what the parameters do.
    pub(super) fn claiming(mut self, claim: Claim) -> Self {
        let mut common = claim.parameters();
        let said = |name: &str| common.iter().any(|(known, _)| known == name);
        self.parameters.retain(|(name, _)| !said(name));
        if self.get("Format").is_none() && claim.accepts_json() {
            common.push(("Format".to_owned(), "JSON".to_owned()));
        }
        self.parameters.append(&mut common);
        self.parameters.sort();
        self.scheme = Scheme::Acs3(claim);
        self
    }

    /// How the caller says that the call is signed, if at all.
    pub(super) fn scheme(&self) -> Option<&'static str> {
        match self.scheme {
            Scheme::Acs3(_) => Some("acs3-hmac-sha256"),
            Scheme::Rpc => self.get("Signature").map(|_| "hmac-sha1"),
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
        let secret = self.keys.secret(call, now)?;
        match &call.scheme {
            Scheme::Rpc => check_signature(call, secret)?,
            Scheme::Acs3(claim) => claim.check(&call.method, secret)?,
        }
        check_doubled(call)?;
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

fn check_signature(call: &Call, secret: &str) -> Result<(), Refusal> {
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
    let text = signature::string_to_sign(&call.method, &call.parameters);
    if signature::sign_rpc(secret, &text) != given {
        return Err(signature::mismatch(&text));
    }
    Ok(())
}

/// Which of two would count is documented nowhere.
fn check_doubled(call: &Call) -> Result<(), Refusal> {
    let mut pairs = call.parameters.windows(2);
    if let Some(pair) = pairs.find(|pair| pair[0].0 == pair[1].0) {
        let message = format!("the parameter \"{}\" is given twice", pair[0].0);
        return Err(Refusal::new(400, "InvalidParameter", message));
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
pub(super) mod tests;
