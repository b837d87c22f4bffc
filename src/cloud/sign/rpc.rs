//! The RPC signature: HMAC-SHA1 over the sorted parameters of a request.
//!
//! Host and scheme are not signed; what protects the request on its way is TLS.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::{Call, FORM, Key, Signed, encode, form};

/// Query and form parameters as one set, in the order the service sorts them: by the bytes of the key.
pub type Params<'a> = BTreeMap<&'a str, &'a str>;

/// Puts all parameters into the body, so that no address carries a signature.
pub(super) fn sign(key: &Key<'_>, call: &Call<'_>) -> Signed {
    let mut params: Params<'_> = call.arguments.iter().copied().collect();
    params.insert("Action", call.operation);
    params.insert("Version", call.version);
    // The service answers in XML where nothing is said.
    params.insert("Format", "JSON");
    params.insert("AccessKeyId", key.id);
    params.insert("SignatureMethod", "HMAC-SHA1");
    params.insert("SignatureVersion", "1.0");
    params.insert("SignatureNonce", call.nonce);
    params.insert("Timestamp", call.timestamp);
    if let Some(token) = key.token {
        params.insert("SecurityToken", token);
    }
    let signature = signature(key.secret, "POST", &params);
    params.insert("Signature", &signature);
    Signed {
        headers: [("content-type", FORM.to_owned())].into(),
        body: form(params),
    }
}

/// The text that is signed. Its canonical query is what goes into the body, too.
pub fn string_to_sign(method: &str, params: &Params<'_>) -> String {
    let canonical = form(params.iter().map(|(key, value)| (*key, *value)));
    format!("{method}&{}&{}", encode("/"), encode(&canonical))
}

/// The value of the `Signature` parameter.
pub fn signature(secret: &str, method: &str, params: &Params<'_>) -> String {
    let key = Zeroizing::new(format!("{secret}&"));
    // HMAC hashes keys longer than a block, so there is no length that it refuses.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key.as_bytes()) else {
        unreachable!("HMAC takes a key of any length")
    };
    // A session token is part of it.
    let text = Zeroizing::new(string_to_sign(method, params));
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The service's own worked examples, and one with every odd character in a parameter.
    struct Vector {
        method: &'static str,
        id: &'static str,
        secret: &'static str,
        params: &'static [(&'static str, &'static str)],
        to_sign: Option<&'static str>,
        canonical: Option<&'static str>,
        signature: &'static str,
    }

    const VECTORS: &[Vector] = &[
        Vector {
            method: "GET",
            id: "testid",
            secret: "testsecret",
            params: &[
                ("Action", "DescribeRegions"),
                ("Format", "XML"),
                ("Version", "2014-05-26"),
                ("Timestamp", "2016-02-23T12:46:24Z"),
                ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ],
            to_sign: Some(
                "GET&%2F&AccessKeyId%3Dtestid%26Action%3DDescribeRegions%26Format%3DXML%26SignatureMethod%3DHMAC-SHA1%26SignatureNonce%3D3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf%26SignatureVersion%3D1.0%26Timestamp%3D2016-02-23T12%253A46%253A24Z%26Version%3D2014-05-26",
            ),
            canonical: None,
            signature: "OLeaidS1JvxuMvnyHOwuJ+uX5qY=",
        },
        Vector {
            method: "GET",
            id: "testid",
            secret: "testsecret",
            params: &[
                ("Action", "DescribeDedicatedHosts"),
                ("Format", "JSON"),
                ("RegionId", "cn-beijing"),
                ("Version", "2014-05-26"),
                ("Timestamp", "2023-03-13T08:34:30Z"),
                ("SignatureNonce", "edb2b34af0af9a6d14deaf7c1a5315eb"),
            ],
            to_sign: Some(
                "GET&%2F&AccessKeyId%3Dtestid%26Action%3DDescribeDedicatedHosts%26Format%3DJSON%26RegionId%3Dcn-beijing%26SignatureMethod%3DHMAC-SHA1%26SignatureNonce%3Dedb2b34af0af9a6d14deaf7c1a5315eb%26SignatureVersion%3D1.0%26Timestamp%3D2023-03-13T08%253A34%253A30Z%26Version%3D2014-05-26",
            ),
            canonical: None,
            signature: "9NaGiOspFP5UPcwX8Iwt2YJXXuk=",
        },
        Vector {
            method: "GET",
            id: "testId",
            secret: "testSecret",
            params: &[
                ("Action", "SendSms"),
                ("Format", "XML"),
                ("OutId", "123"),
                ("PhoneNumbers", "15300000001"),
                ("RegionId", "cn-hangzhou"),
                ("SignName", "阿里云短信测试专用"),
                ("TemplateCode", "SMS_71390007"),
                ("TemplateParam", "{\"customer\":\"test\"}"),
                ("Version", "2017-05-25"),
                ("Timestamp", "2017-07-12T02:42:19Z"),
                ("SignatureNonce", "45e25e9b-0a6f-4070-8c85-2956eda1b466"),
            ],
            to_sign: None,
            canonical: Some(
                "AccessKeyId=testId&Action=SendSms&Format=XML&OutId=123&PhoneNumbers=15300000001&RegionId=cn-hangzhou&SignName=%E9%98%BF%E9%87%8C%E4%BA%91%E7%9F%AD%E4%BF%A1%E6%B5%8B%E8%AF%95%E4%B8%93%E7%94%A8&SignatureMethod=HMAC-SHA1&SignatureNonce=45e25e9b-0a6f-4070-8c85-2956eda1b466&SignatureVersion=1.0&TemplateCode=SMS_71390007&TemplateParam=%7B%22customer%22%3A%22test%22%7D&Timestamp=2017-07-12T02%3A42%3A19Z&Version=2017-05-25",
            ),
            signature: "zJDF+Lrzhj/ThnlvIToysFRq6t4=",
        },
        Vector {
            method: "POST",
            id: "testid",
            secret: "testsecret",
            params: &[
                ("Action", "UploadStagingRoutineCode"),
                ("Format", "JSON"),
                ("Name", "my-routine"),
                ("CodeDescription", "dev *~ a+b/c=d & 版本"),
                ("SecurityToken", "tok+/="),
                ("Version", "2018-01-15"),
                ("Timestamp", "2025-01-02T03:04:05Z"),
                ("SignatureNonce", "9e030f6b-03a2-40f0-a6ba-157d44532fd0"),
            ],
            to_sign: None,
            canonical: Some(
                "AccessKeyId=testid&Action=UploadStagingRoutineCode&CodeDescription=dev%20%2A~%20a%2Bb%2Fc%3Dd%20%26%20%E7%89%88%E6%9C%AC&Format=JSON&Name=my-routine&SecurityToken=tok%2B%2F%3D&SignatureMethod=HMAC-SHA1&SignatureNonce=9e030f6b-03a2-40f0-a6ba-157d44532fd0&SignatureVersion=1.0&Timestamp=2025-01-02T03%3A04%3A05Z&Version=2018-01-15",
            ),
            signature: "8er1lranKKhFWQ+rliHO0Prl220=",
        },
    ];

    #[test]
    fn every_published_vector_is_met() {
        for vector in VECTORS {
            let mut params: Params<'_> = vector.params.iter().copied().collect();
            params.insert("AccessKeyId", vector.id);
            params.insert("SignatureMethod", "HMAC-SHA1");
            params.insert("SignatureVersion", "1.0");
            if let Some(expected) = vector.to_sign {
                assert_eq!(string_to_sign(vector.method, &params), expected);
            }
            if let Some(expected) = vector.canonical {
                assert_eq!(form(params.iter().map(|(k, v)| (*k, *v))), expected);
            }
            assert_eq!(
                signature(vector.secret, vector.method, &params),
                vector.signature
            );
        }
    }

    #[test]
    fn a_signed_call_carries_all_its_parameters_in_the_body() {
        let key = Key {
            id: "testid",
            secret: "testsecret",
            token: Some("tok+/="),
        };
        let call = Call {
            operation: "UploadStagingRoutineCode",
            version: "2018-01-15",
            arguments: &[
                ("Name", "my-routine"),
                ("CodeDescription", "dev *~ a+b/c=d & 版本"),
            ],
            host: "dcdn.aliyuncs.com",
            timestamp: "2025-01-02T03:04:05Z",
            nonce: "9e030f6b-03a2-40f0-a6ba-157d44532fd0",
        };
        let signed = sign(&key, &call);
        let mut params: Params<'_> = VECTORS[3].params.iter().copied().collect();
        params.insert("AccessKeyId", "testid");
        params.insert("SignatureMethod", "HMAC-SHA1");
        params.insert("SignatureVersion", "1.0");
        params.insert("Signature", VECTORS[3].signature);
        assert_eq!(signed.body, form(params));
        assert_eq!(
            signed.headers,
            [("content-type", FORM.to_owned())].into_iter().collect()
        );
    }
}
