//! Both schemes against a second implementation, which is written here from the service's documentation in few lines and
//! shares nothing with the one under test but the hash functions.

use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::*;

/// RFC 3986 by its letter.
fn by_the_letter(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// RFC 2104 by its letter.
fn hmac<D: Digest>(key: &str, text: &str) -> Vec<u8> {
    let mut block = [0; 64];
    if key.len() > block.len() {
        let hashed = D::digest(key);
        block[..hashed.len()].copy_from_slice(&hashed);
    } else {
        block[..key.len()].copy_from_slice(key.as_bytes());
    }
    let inner = D::digest([&block.map(|byte| byte ^ 0x36), text.as_bytes()].concat());
    D::digest([&block.map(|byte| byte ^ 0x5c)[..], &inner].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let all = (0..3).fold(0, |all, at| {
            all << 8 | usize::from(*three.get(at).unwrap_or(&0))
        });
        for at in 0..4 {
            let digit = char::from(DIGITS[all >> (18 - 6 * at) & 63]);
            text.push(if at <= three.len() { digit } else { '=' });
        }
    }
    text
}

fn joined(mut pairs: Vec<(&str, &str)>) -> String {
    pairs.sort_by(|one, other| one.0.as_bytes().cmp(other.0.as_bytes()));
    let written = pairs
        .iter()
        .map(|(key, value)| by_the_letter(key) + "=" + &by_the_letter(value));
    written.collect::<Vec<String>>().join("&")
}

/// The body of a call with the older signature.
fn rpc_by_the_letter(key: &Key<'_>, call: &Call<'_>) -> String {
    let mut pairs = call.arguments.to_vec();
    pairs.extend([
        ("Action", call.operation),
        ("Version", call.version),
        ("Format", "JSON"),
        ("AccessKeyId", key.id),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureVersion", "1.0"),
        ("SignatureNonce", call.nonce),
        ("Timestamp", call.timestamp),
    ]);
    pairs.extend(key.token.map(|token| ("SecurityToken", token)));
    let text = "POST&%2F&".to_owned() + &by_the_letter(&joined(pairs.clone()));
    let signature = base64(&hmac::<Sha1>(&(key.secret.to_owned() + "&"), &text));
    pairs.push(("Signature", &signature));
    joined(pairs)
}

/// The `Authorization` of a call with the newer signature.
fn acs3_by_the_letter(key: &Key<'_>, call: &Call<'_>) -> String {
    let body = joined(call.arguments.to_vec());
    let hash = hex(&Sha256::digest(&body));
    let mut lines = vec![
        format!("host:{}", call.host),
        format!("x-acs-action:{}", call.operation),
        format!("x-acs-content-sha256:{hash}"),
        format!("x-acs-date:{}", call.timestamp),
        format!("x-acs-signature-nonce:{}", call.nonce),
        format!("x-acs-version:{}", call.version),
    ];
    if !call.arguments.is_empty() {
        lines.push("content-type:application/x-www-form-urlencoded".to_owned());
    }
    if let Some(token) = key.token {
        lines.push(format!("x-acs-accesskey-id:{}", key.id));
        lines.push(format!("x-acs-security-token:{token}"));
    }
    lines.sort();
    let names: Vec<&str> = lines
        .iter()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    let (lines, names) = (lines.join("\n"), names.join(";"));
    let request = format!("POST\n/\n\n{lines}\n\n{names}\n{hash}");
    let text = format!("ACS3-HMAC-SHA256\n{}", hex(&Sha256::digest(request)));
    let signature = hex(&hmac::<Sha256>(key.secret, &text));
    let id = key.id;
    format!("ACS3-HMAC-SHA256 Credential={id},SignedHeaders={names},Signature={signature}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn c30_every_text_is_encoded_by_the_letter_of_the_rule(text in ".*") {
        prop_assert_eq!(encode(&text), by_the_letter(&text));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // The key, the time, the nonce and the host travel in headers with one of the schemes, so they have no character
    // that a header cannot have. All else may hold anything.
    #[test]
    fn c30_both_signatures_are_those_of_a_second_implementation_whatever_the_parameters_hold(
        operation in "[!-~]{1,20}",
        version in "[!-~]{1,12}",
        arguments in proptest::collection::btree_map(".{1,8}", "(.{0,40}|[ *~+/=&%:;,\"'\\n\\r版本é😀]{0,12})", 0..6),
        host in "[a-z0-9.:\\[\\]-]{1,30}",
        timestamp in "[!-~]{1,24}",
        nonce in "[!-~]{1,40}",
        id in "[!-~]{1,130}",
        secret in "[!-~]{1,130}",
        token in proptest::option::of("[!-~]{1,300}"),
    ) {
        let arguments: Vec<(&str, &str)> =
            arguments.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let call = Call {
            operation: &operation,
            version: &version,
            arguments: &arguments,
            host: &host,
            timestamp: &timestamp,
            nonce: &nonce,
        };
        let key = Key { id: &id, secret: &secret, token: token.as_deref() };

        let rpc = sign(Signature::HmacSha1, &key, &call);
        prop_assert_eq!(rpc.body, rpc_by_the_letter(&key, &call));

        let acs3 = sign(Signature::Acs3HmacSha256, &key, &call);
        prop_assert_eq!(&acs3.headers["authorization"], &acs3_by_the_letter(&key, &call));
        prop_assert_eq!(acs3.body, joined(arguments));
        for (name, value) in [
            ("x-acs-action", &operation),
            ("x-acs-version", &version),
            ("x-acs-date", &timestamp),
            ("x-acs-signature-nonce", &nonce),
            ("host", &host),
        ] {
            prop_assert_eq!(&acs3.headers[name], value);
        }
        prop_assert_eq!(acs3.headers.get("x-acs-security-token"), token.as_ref());
    }
}
