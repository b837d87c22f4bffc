//! ACS3-HMAC-SHA256: the signature stands in a header and covers the method, the address, headers and the body.
//!
//! The parameters that all operations share are headers here. Those of the operation stay in the body, which is covered
//! by its hash alone (facts of the service, as is the order of all that is hashed).

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Call, FORM, Key, Signed, form};

/// The name of the scheme.
const NAME: &str = "ACS3-HMAC-SHA256";

/// Headers that are signed, by their names in lower case, in the order the service sorts them: by the bytes of the name.
pub type Headers<'a> = BTreeMap<&'static str, &'a str>;

/// Signs all headers that say something of the call.
pub(super) fn sign(key: &Key<'_>, call: &Call<'_>) -> Signed {
    let arguments: BTreeMap<&str, &str> = call.arguments.iter().copied().collect();
    let body = form(arguments);
    let hash = sha256(&body);
    let mut headers: Headers<'_> = [
        ("host", call.host),
        ("x-acs-action", call.operation),
        ("x-acs-version", call.version),
        ("x-acs-date", call.timestamp),
        ("x-acs-signature-nonce", call.nonce),
        ("x-acs-content-sha256", &hash),
    ]
    .into();
    if !body.is_empty() {
        headers.insert("content-type", FORM);
    }
    if let Some(token) = key.token {
        // The vendor's SDKs send both together, and only then.
        headers.insert("x-acs-accesskey-id", key.id);
        headers.insert("x-acs-security-token", token);
    }
    // A session token is part of it.
    let canonical = Zeroizing::new(canonical_request("POST", "", &headers, &hash));
    let authorization = format!(
        "{NAME} Credential={},SignedHeaders={},Signature={}",
        key.id,
        names(&headers),
        signature(key.secret, &canonical)
    );
    let mut headers: BTreeMap<&'static str, String> = headers
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .collect();
    headers.insert("authorization", authorization);
    headers.insert("accept", "application/json".to_owned());
    Signed { headers, body }
}

/// The text whose hash is signed, of a request to `/`. The query is written as [`form`] writes it, in the order of its
/// keys; `hash` is the [`sha256`] of the body.
pub fn canonical_request(method: &str, query: &str, headers: &Headers<'_>, hash: &str) -> String {
    let mut text = format!("{method}\n/\n{query}\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}:{}\n", value.trim()));
    }
    text.push_str(&format!("\n{}\n{hash}", names(headers)));
    text
}

/// The signature of a canonical request. Other than in the older scheme the key is the bare secret.
pub fn signature(secret: &str, canonical_request: &str) -> String {
    // HMAC hashes keys longer than a block, so there is no length that it refuses.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        unreachable!("HMAC takes a key of any length")
    };
    mac.update(format!("{NAME}\n{}", sha256(canonical_request)).as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// The hash of a text in lower-case digits.
pub fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn names(headers: &Headers<'_>) -> String {
    let names: Vec<&str> = headers.keys().copied().collect();
    names.join(";")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_example_is_met() {
        let hash = sha256("");
        assert_eq!(
            hash,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let query = [
            (
                "ImageId",
                "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
            ),
            ("RegionId", "cn-shanghai"),
        ];
        let headers: Headers<'_> = [
            ("host", "ecs.cn-shanghai.aliyuncs.com"),
            ("x-acs-action", "RunInstances"),
            ("x-acs-version", "2014-05-26"),
            ("x-acs-date", "2023-10-26T10:22:32Z"),
            ("x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703d"),
            ("x-acs-content-sha256", &hash),
        ]
        .into();
        let canonical = canonical_request("POST", &form(query), &headers, &hash);
        let expected = "POST\n/\n\
            ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai\n\
            host:ecs.cn-shanghai.aliyuncs.com\n\
            x-acs-action:RunInstances\n\
            x-acs-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\
            x-acs-date:2023-10-26T10:22:32Z\n\
            x-acs-signature-nonce:3156853299f313e23d1673dc12e1703d\n\
            x-acs-version:2014-05-26\n\
            \n\
            host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version\n\
            e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(canonical, expected);
        assert_eq!(
            sha256(&canonical),
            "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259"
        );
        assert_eq!(
            signature("YourAccessKeySecret", &canonical),
            "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
        );
    }

    fn upload() -> Call<'static> {
        Call {
            operation: "UploadStagingRoutineCode",
            version: "2018-01-15",
            arguments: &[
                ("Name", "my-routine"),
                ("CodeDescription", "dev *~ a+b/c=d & 版本"),
            ],
            host: "dcdn.aliyuncs.com",
            timestamp: "2025-01-02T03:04:05Z",
            nonce: "9e030f6b-03a2-40f0-a6ba-157d44532fd0",
        }
    }

    #[test]
    fn an_upload_with_a_session_token_and_odd_characters_is_signed_to_the_letter() {
        let key = Key {
            id: "testid",
            secret: "testsecret",
            token: Some("tok+/="),
        };
        let signed = sign(&key, &upload());
        assert_eq!(
            signed.body,
            "CodeDescription=dev%20%2A~%20a%2Bb%2Fc%3Dd%20%26%20%E7%89%88%E6%9C%AC&Name=my-routine"
        );
        let headers: Vec<(&str, &str)> = signed
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        #[rustfmt::skip]
        let expected = [
            ("accept", "application/json"),
            ("authorization", "ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=content-type;host;x-acs-accesskey-id;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-security-token;x-acs-signature-nonce;x-acs-version,Signature=d1dcd9f4580de3d89eaab282d7b434a771a27013b96662a3f2ea5782b7db5950"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", "dcdn.aliyuncs.com"),
            ("x-acs-accesskey-id", "testid"),
            ("x-acs-action", "UploadStagingRoutineCode"),
            ("x-acs-content-sha256", "b7df20620bfa95c6511f050f954ab535a4fb9a4ddbf4008b70984ab1c647efbe"),
            ("x-acs-date", "2025-01-02T03:04:05Z"),
            ("x-acs-security-token", "tok+/="),
            ("x-acs-signature-nonce", "9e030f6b-03a2-40f0-a6ba-157d44532fd0"),
            ("x-acs-version", "2018-01-15"),
        ];
        assert_eq!(headers, expected);
        let covered: Headers<'_> = expected[2..].iter().copied().collect();
        let canonical = canonical_request("POST", "", &covered, &sha256(&signed.body));
        assert_eq!(
            sha256(&canonical),
            "db84989e857e85adb6208a1093555e457a1aeb73deb560544827c90bc25526d6"
        );
    }

    #[test]
    fn without_a_token_no_header_tells_of_one_and_without_a_body_none_of_its_type() {
        let key = Key {
            id: "testid",
            secret: "testsecret",
            token: None,
        };
        let call = Call {
            arguments: &[],
            ..upload()
        };
        let signed = sign(&key, &call);
        assert_eq!(signed.body, "");
        let named = "SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,";
        assert!(signed.headers["authorization"].contains(named));
        assert_eq!(signed.headers.len(), 8);
    }
}
