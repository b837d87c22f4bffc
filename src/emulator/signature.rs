//! How a request is signed, from the server's side: the encoding, the string to sign, hashes and keyed hashes.
//!
//! What a signature must cover and who may use it is decided in `gateway` and `storage`. The client has code for the
//! same job and none of it is used here, so that a mistake made there cannot agree with itself.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::reply::Refusal;

/// All that is escaped: every byte but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Percent-encodes the UTF-8 bytes of a text.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// Reads `application/x-www-form-urlencoded` text, a query or a body, in the order of its fields.
pub(super) fn decode_form(text: &str) -> Vec<(String, String)> {
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    text.split('&')
        .filter(|field| !field.is_empty())
        .map(|field| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Parameters as both schemes write them where they are signed, in the order given.
pub(super) fn canonical(parameters: &[(String, String)]) -> String {
    let written: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    written.join("&")
}

/// The text that an RPC signature covers. `parameters` are sorted by name; `Signature` itself is left out.
pub(super) fn string_to_sign(method: &str, parameters: &[(String, String)]) -> String {
    let signed: Vec<(String, String)> = parameters
        .iter()
        .filter(|(name, _)| name != "Signature")
        .cloned()
        .collect();
    format!("{method}&{}&{}", encode("/"), encode(&canonical(&signed)))
}

/// The refusal of a signature. The vendor's SDKs look for these words, and compare what follows with what they signed.
pub(super) fn mismatch(string_to_sign: &str) -> Refusal {
    let message = format!(
        "Specified signature is not matched with our calculation. server string to sign is:{string_to_sign}"
    );
    Refusal::new(400, "SignatureDoesNotMatch", message)
}

/// The signature of an RPC request: the key is the secret and an ampersand.
pub(super) fn sign_rpc(secret: &str, string_to_sign: &str) -> String {
    hmac_sha1(&format!("{secret}&"), string_to_sign)
}

/// The signature of a form's policy: the key is the secret alone.
pub(super) fn sign_policy(secret: &str, policy: &str) -> String {
    hmac_sha1(secret, policy)
}

/// The signature of an ACS3 request, in hexadecimal: the key is the bare secret.
pub(super) fn sign_acs3(secret: &str, string_to_sign: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of every length"));
    mac.update(string_to_sign.as_bytes());
    hexadecimal(&mac.finalize().into_bytes())
}

/// A SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn hmac_sha1(key: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of every length"));
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(method: &str, secret: &str, parameters: &[(&str, &str)]) -> String {
        let mut all: Vec<(String, String)> = parameters
            .iter()
            .chain(&[
                ("SignatureMethod", "HMAC-SHA1"),
                ("SignatureVersion", "1.0"),
            ])
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        all.sort();
        sign_rpc(secret, &string_to_sign(method, &all))
    }

    #[test]
    fn the_published_signature_of_a_region_listing_comes_out() {
        let parameters = [
            ("AccessKeyId", "testid"),
            ("Action", "DescribeRegions"),
            ("Format", "XML"),
            ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ("Timestamp", "2016-02-23T12:46:24Z"),
            ("Version", "2014-05-26"),
        ];
        assert_eq!(
            signature("GET", "testsecret", &parameters),
            "OLeaidS1JvxuMvnyHOwuJ+uX5qY="
        );
    }

    #[test]
    fn the_published_signature_of_a_host_listing_comes_out() {
        let parameters = [
            ("AccessKeyId", "testid"),
            ("Action", "DescribeDedicatedHosts"),
            ("Format", "JSON"),
            ("RegionId", "cn-beijing"),
            ("SignatureNonce", "edb2b34af0af9a6d14deaf7c1a5315eb"),
            ("Timestamp", "2023-03-13T08:34:30Z"),
            ("Version", "2014-05-26"),
        ];
        assert_eq!(
            signature("GET", "testsecret", &parameters),
            "9NaGiOspFP5UPcwX8Iwt2YJXXuk="
        );
    }

    #[test]
    fn text_beyond_ascii_is_signed_as_its_utf8_bytes() {
        let parameters = [
            ("AccessKeyId", "testId"),
            ("Action", "SendSms"),
            ("Format", "XML"),
            ("OutId", "123"),
            ("PhoneNumbers", "15300000001"),
            ("RegionId", "cn-hangzhou"),
            ("SignName", "阿里云短信测试专用"),
            ("SignatureNonce", "45e25e9b-0a6f-4070-8c85-2956eda1b466"),
            ("TemplateCode", "SMS_71390007"),
            ("TemplateParam", r#"{"customer":"test"}"#),
            ("Timestamp", "2017-07-12T02:42:19Z"),
            ("Version", "2017-05-25"),
        ];
        assert_eq!(
            signature("GET", "testSecret", &parameters),
            "zJDF+Lrzhj/ThnlvIToysFRq6t4="
        );
    }

    #[test]
    fn every_awkward_character_is_escaped_in_the_one_right_way() {
        let parameters = [
            ("AccessKeyId", "testid"),
            ("Action", "UploadStagingRoutineCode"),
            ("CodeDescription", "dev *~ a+b/c=d & 版本"),
            ("Format", "JSON"),
            ("Name", "my-routine"),
            ("SecurityToken", "tok+/="),
            ("SignatureNonce", "9e030f6b-03a2-40f0-a6ba-157d44532fd0"),
            ("Timestamp", "2025-01-02T03:04:05Z"),
            ("Version", "2018-01-15"),
        ];
        assert_eq!(
            signature("POST", "testsecret", &parameters),
            "8er1lranKKhFWQ+rliHO0Prl220="
        );
    }

    #[test]
    fn a_policy_is_signed_with_the_bare_secret() {
        let policy = concat!(
            "eyJleHBpcmF0aW9uIjoiMjAzMC0wMS0wMVQwMDowMDowMFoiLCJjb25kaXRpb25z",
            "IjpbWyJjb250ZW50LWxlbmd0aC1yYW5nZSIsMSw0MTk0MzA0XV19"
        );
        assert_eq!(
            sign_policy("osssecret", policy),
            "Vf0g+awj0yO+lSEauP8/fZpwVdI="
        );
    }

    #[test]
    fn both_spellings_of_a_space_are_read_in_a_form() {
        let read = decode_form("a=x+y%20z&&b=%2B%7E&c&d==");
        let expected = [("a", "x y z"), ("b", "+~"), ("c", ""), ("d", "=")];
        assert_eq!(read.len(), expected.len());
        for ((name, value), (want_name, want_value)) in read.iter().zip(expected) {
            assert_eq!((name.as_str(), value.as_str()), (want_name, want_value));
        }
    }
}
