//! Who is let through, and who is refused in which words, with either signature.

use super::super::acs3::tests::Draft;
use super::*;

const SCHEMES: [By; 2] = [By::Rpc, By::Acs3];

/// How a call is signed.
#[derive(Debug, Clone, Copy)]
enum By {
    Rpc,
    Acs3,
}

impl By {
    /// A call as a client with the emulator's key would sign it.
    fn signed(
        self,
        action: &str,
        parameters: &[(&str, &str)],
        nonce: &str,
        stamp: Timestamp,
    ) -> Call {
        self.signed_with((KEY_ID, KEY_SECRET), action, parameters, nonce, stamp)
    }

    fn signed_with(
        self,
        (id, secret): (&str, &str),
        action: &str,
        parameters: &[(&str, &str)],
        nonce: &str,
        stamp: Timestamp,
    ) -> Call {
        let stamp = stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        match self {
            Self::Rpc => {
                let mut all = vec![
                    ("AccessKeyId", id),
                    ("Action", action),
                    ("Format", "JSON"),
                    ("SignatureMethod", "HMAC-SHA1"),
                    ("SignatureNonce", nonce),
                    ("SignatureVersion", "1.0"),
                    ("Timestamp", &stamp),
                    ("Version", "2018-01-15"),
                ];
                all.extend_from_slice(parameters);
                sign(&all, secret)
            }
            Self::Acs3 => {
                let fields: Vec<String> = parameters
                    .iter()
                    .map(|(name, value)| format!("{name}={}", signature::encode(value)))
                    .collect();
                let body = fields.join("&");
                let headers = [
                    ("host", "127.0.0.1:9480"),
                    ("accept", "application/json"),
                    ("content-type", "application/x-www-form-urlencoded"),
                    ("x-acs-action", action),
                    ("x-acs-version", "2018-01-15"),
                    ("x-acs-date", &stamp),
                    ("x-acs-signature-nonce", nonce),
                ];
                let mut draft = Draft::new("POST", "", &body, &headers);
                draft.sign(id, secret);
                read(&draft)
            }
        }
    }
}

fn read(draft: &Draft) -> Call {
    Call::new(draft.method, &draft.query, &draft.body).claiming(draft.claim())
}

/// A call as a client with the emulator's key would sign it.
pub(in crate::emulator) fn signed(
    action: &str,
    parameters: &[(&str, &str)],
    nonce: &str,
    stamp: Timestamp,
) -> Call {
    By::Rpc.signed(action, parameters, nonce, stamp)
}

fn sign(parameters: &[(&str, &str)], secret: &str) -> Call {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut call = Call {
        method: "POST".to_owned(),
        parameters: parameters.iter().map(pair).collect(),
        scheme: Scheme::Rpc,
    };
    call.parameters.sort();
    let text = signature::string_to_sign("POST", &call.parameters);
    let signature = signature::sign_rpc(secret, &text);
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
    for by in SCHEMES {
        let mut gateway = Gateway::default();
        let ask = |secret: &str| {
            let name = [("Name", "hello")];
            by.signed_with((KEY_ID, secret), "DescribeRoutine", &name, "n1", noon())
        };
        let refusal = gateway.authenticate(&ask("other"), noon()).unwrap_err();
        assert_eq!(
            (refusal.status, refusal.code.as_ref()),
            (400, "SignatureDoesNotMatch"),
            "{by:?}"
        );
        let told = match by {
            By::Rpc => "string to sign is:POST&%2F&AccessKeyId%3D",
            By::Acs3 => "string to sign is:ACS3-HMAC-SHA256\n",
        };
        assert!(refusal.message.contains(told), "{refusal}");
        let right = ask(KEY_SECRET);
        assert_eq!(gateway.authenticate(&right, noon()), Ok(()), "{by:?}");
        assert_eq!(
            code(gateway.authenticate(&right, noon())),
            (400, "SignatureNonceUsed"),
            "{by:?}"
        );
    }
}

#[test]
fn a_parameter_that_is_changed_after_signing_is_noticed() {
    let right = signed("DescribeRoutine", &[("Name", "hello")], "n1", noon());
    let forged = with(right, "Name", "other");
    let refused = Gateway::default().authenticate(&forged, noon());
    assert_eq!(code(refused), (400, "SignatureDoesNotMatch"));
}

#[test]
fn a_nonce_of_one_scheme_is_used_up_for_the_other_one_too() {
    let mut gateway = Gateway::default();
    let [first, second] = SCHEMES.map(|by| by.signed("DescribeRoutine", &[], "n1", noon()));
    assert_eq!(gateway.authenticate(&first, noon()), Ok(()));
    let again = gateway.authenticate(&second, noon());
    assert_eq!(code(again), (400, "SignatureNonceUsed"));
}

#[test]
fn a_nonce_is_remembered_as_long_as_its_timestamp_is_accepted_and_no_longer() {
    for by in SCHEMES {
        let mut gateway = Gateway::default();
        let early = by.signed("DescribeRoutine", &[], "n1", noon());
        let last = noon() + ALLOWED_SKEW;
        assert_eq!(gateway.authenticate(&early, noon()), Ok(()), "{by:?}");
        assert_eq!(
            code(gateway.authenticate(&early, last)),
            (400, "SignatureNonceUsed"),
            "{by:?}"
        );
        let after = last + SignedDuration::from_secs(1);
        assert_eq!(
            code(gateway.authenticate(&early, after)),
            (400, "InvalidTimeStamp.Expired"),
            "{by:?}"
        );
        let later = by.signed("DescribeRoutine", &[], "n2", after);
        assert_eq!(gateway.authenticate(&later, after), Ok(()), "{by:?}");
        assert_eq!(
            (gateway.nonces.seen.len(), gateway.nonces.by_time.len()),
            (1, 1)
        );
    }
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
        for by in SCHEMES {
            let call = by.signed("DescribeRoutine", &[], "n", stamp);
            assert_eq!(
                code(Gateway::default().authenticate(&call, noon())).1,
                expected,
                "{by:?} {stamp}"
            );
        }
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
    let no_time = sign(
        &[&known[..], &[("SignatureNonce", "n1")]].concat(),
        KEY_SECRET,
    );
    assert_eq!(
        code(Gateway::default().authenticate(&no_time, noon())).1,
        "MissingParameter"
    );
    let no_nonce = sign(
        &[&known[..], &[("Timestamp", "2026-02-03T12:00:00Z")]].concat(),
        KEY_SECRET,
    );
    assert_eq!(
        code(Gateway::default().authenticate(&no_nonce, noon())).1,
        "MissingParameter"
    );
    for by in SCHEMES {
        let twice = [("Name", "a"), ("Name", "b")];
        let doubled = by.signed("DescribeRoutine", &twice, "n1", noon());
        assert_eq!(
            code(Gateway::default().authenticate(&doubled, noon())).1,
            "InvalidParameter",
            "{by:?}"
        );
    }
}

/// A call with these headers besides the host, signed, and answered by a new gate.
fn asked_with(method: &'static str, query: &str, headers: &[(&str, &str)]) -> (Call, &'static str) {
    let mut draft = Draft::new(method, query, "", headers);
    draft.set("host", "127.0.0.1:9480");
    draft.sign(KEY_ID, KEY_SECRET);
    let call = read(&draft);
    let told = code(Gateway::default().authenticate(&call, noon())).1;
    (call, told)
}

#[test]
fn what_is_a_parameter_of_one_scheme_is_a_header_of_the_other() {
    const HEADERS: &[(&str, &str)] = &[
        ("x-acs-action", "DescribeRoutine"),
        ("x-acs-version", "2018-01-15"),
        ("x-acs-date", "2026-02-03T12:00:00Z"),
        ("x-acs-signature-nonce", "n1"),
    ];
    // Those of the older scheme say nothing here, and a query is covered whatever the method is.
    for method in ["GET", "POST"] {
        let query = "Action=CreateRoutine&Name=a%20%2Ab&SignatureNonce=n2";
        let (call, told) = asked_with(method, query, HEADERS);
        assert_eq!(told, "OK");
        assert_eq!(call.scheme(), Some("acs3-hmac-sha256"));
        assert_eq!(call.get("AccessKeyId"), Some(KEY_ID));
        assert_eq!(call.get("Action"), Some("DescribeRoutine"));
        assert_eq!(call.get("Name"), Some("a *b"));
        assert_eq!(call.get("SignatureNonce"), Some("n1"));
        assert_eq!(call.format(), Format::Xml);
    }
    for missing in ["x-acs-date", "x-acs-signature-nonce"] {
        let left: Vec<(&str, &str)> = HEADERS
            .iter()
            .copied()
            .filter(|(name, _)| *name != missing)
            .collect();
        assert_eq!(
            asked_with("POST", "", &left).1,
            "MissingParameter",
            "{missing}"
        );
    }
}

#[test]
fn the_format_is_what_a_parameter_asks_for_and_else_what_the_caller_accepts() {
    let format =
        |query: &str, accept: &str| asked_with("GET", query, &[("Accept", accept)]).0.format();
    assert_eq!(format("", "application/json"), Format::Json);
    assert_eq!(format("", "*/*"), Format::Xml);
    assert_eq!(format("", "text/xml"), Format::Xml);
    assert_eq!(format("Format=json", "*/*"), Format::Json);
    assert_eq!(format("Format=XML", "application/json"), Format::Xml);
    assert_eq!(Call::new("GET", "Format=JSON", "").format(), Format::Json);
    assert_eq!(Call::new("GET", "", "").format(), Format::Xml);
}

#[test]
fn only_the_emulators_own_key_is_known_and_a_real_one_is_sent_away() {
    for by in SCHEMES {
        let ask = |id: &str| {
            let call = by.signed_with((id, KEY_SECRET), "DescribeRoutine", &[], "n1", noon());
            Gateway::default().authenticate(&call, noon())
        };
        assert_eq!(
            code(ask("somebody")),
            (404, "InvalidAccessKeyId.NotFound"),
            "{by:?}"
        );
        let real = format!("LT{}5tExample", "AI");
        let refusal = ask(&real).unwrap_err();
        assert!(refusal.message.contains("emulator"), "{refusal}");
        assert!(!refusal.message.contains(&real), "{refusal}");
    }
    let expected = (403, "InvalidSecurityToken.MismatchWithAccessKey");
    let token = signed("DescribeRoutine", &[("SecurityToken", "t")], "n1", noon());
    assert_eq!(
        code(Gateway::default().authenticate(&token, noon())),
        expected
    );
    let told = asked_with("POST", "", &[("x-acs-security-token", "t")]).1;
    assert_eq!(told, expected.1);
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
