//! The scheme by the service's own example, and what a caller may and may not leave out.

use super::super::gateway::KEY_SECRET;
use super::super::signature::{sha256, sign_acs3};
use super::*;

/// A request before it is sent.
#[derive(Clone)]
pub(in crate::emulator) struct Draft {
    pub(in crate::emulator) method: &'static str,
    pub(in crate::emulator) query: String,
    pub(in crate::emulator) headers: Vec<(String, String)>,
    pub(in crate::emulator) body: String,
}

impl Draft {
    /// A call with the common headers, of which only the hash of the body is told by the draft itself.
    pub(in crate::emulator) fn new(
        method: &'static str,
        query: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let mut draft = Self {
            method,
            query: query.to_owned(),
            headers: Vec::new(),
            body: body.to_owned(),
        };
        for (name, value) in headers {
            draft.set(name, value);
        }
        draft.set(HASH, &sha256(body.as_bytes()));
        draft
    }

    pub(in crate::emulator) fn set(&mut self, name: &str, value: &str) {
        self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    pub(in crate::emulator) fn without(&mut self, name: &str) {
        self.headers
            .retain(|(given, _)| !given.eq_ignore_ascii_case(name));
    }

    /// Signs all headers that are there. The query must be written as it is signed.
    pub(in crate::emulator) fn sign(&mut self, id: &str, secret: &str) {
        self.without("authorization");
        let mut lines: Vec<(String, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value.as_str()))
            .collect();
        lines.sort();
        let names: Vec<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let mut text = format!("{}\n/\n{}\n", self.method, self.query);
        for (name, value) in &lines {
            text += &format!("{name}:{value}\n");
        }
        text += &format!("\n{names}\n{}", sha256(self.body.as_bytes()));
        let text = format!("ACS3-HMAC-SHA256\n{}", sha256(text.as_bytes()));
        let signature = sign_acs3(secret, &text);
        self.authorize(id, &names, &signature);
    }

    fn authorize(&mut self, id: &str, names: &str, signature: &str) {
        let value =
            format!("ACS3-HMAC-SHA256 Credential={id},SignedHeaders={names},Signature={signature}");
        self.set("Authorization", &value);
    }

    pub(in crate::emulator) fn claim(&self) -> Claim {
        Claim::read(&self.query, self.headers.clone(), self.body.as_bytes()).unwrap()
    }

    fn code(&self) -> String {
        let checked = self.claim().check(self.method, KEY_SECRET);
        checked.map_or_else(|refusal| refusal.code.into_owned(), |()| "OK".to_owned())
    }
}

fn upload() -> Draft {
    let mut draft = Draft::new(
        "POST",
        "",
        "CodeDescription=dev%20%2A~%20a%2Bb%2Fc%3Dd%20%26%20%E7%89%88%E6%9C%AC&Name=my-routine",
        &[
            ("host", "dcdn.aliyuncs.com"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-acs-action", "UploadStagingRoutineCode"),
            ("x-acs-version", "2018-01-15"),
            ("x-acs-date", "2025-01-02T03:04:05Z"),
            (
                "x-acs-signature-nonce",
                "9e030f6b-03a2-40f0-a6ba-157d44532fd0",
            ),
        ],
    );
    draft.sign("emulator-key-id", KEY_SECRET);
    draft
}

#[test]
fn the_published_example_is_accepted_and_no_other_signature_of_it() {
    let query = "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai";
    let mut draft = Draft::new(
        "POST",
        query,
        "",
        &[
            ("Host", "ecs.cn-shanghai.aliyuncs.com"),
            ("X-Acs-Action", "RunInstances"),
            ("X-ACS-Version", "2014-05-26"),
            ("x-acs-date", "2023-10-26T10:22:32Z"),
            ("x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703d"),
        ],
    );
    let names =
        "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version";
    let signature = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0";
    draft.authorize("YourAccessKeyId", names, signature);
    let claim = draft.claim();
    assert_eq!(claim.check("POST", "YourAccessKeySecret"), Ok(()));
    assert!(claim.check("GET", "YourAccessKeySecret").is_err());
    assert!(claim.check("POST", "YourAccessKeySecre").is_err());
    draft.query = query.replace("cn-shanghai", "cn-beijing");
    assert!(draft.claim().check("POST", "YourAccessKeySecret").is_err());
}

#[test]
fn an_upload_with_a_token_and_odd_characters_has_the_signature_it_must_have() {
    let mut draft = upload();
    draft.set("x-acs-accesskey-id", "testid");
    draft.set("x-acs-security-token", "tok+/=");
    draft.sign("testid", "testsecret");
    let (_, authorization) = draft.headers.last().unwrap();
    let signature = "d1dcd9f4580de3d89eaab282d7b434a771a27013b96662a3f2ea5782b7db5950";
    assert!(authorization.ends_with(signature), "{authorization}");
    assert_eq!(draft.claim().check("POST", "testsecret"), Ok(()));
    let parameters = draft.claim().parameters();
    let token = ("SecurityToken".to_owned(), "tok+/=".to_owned());
    assert!(parameters.contains(&token), "{parameters:?}");
}

#[test]
fn neither_the_order_of_headers_nor_the_case_of_their_names_counts() {
    let mut draft = upload();
    draft.headers.reverse();
    for (name, value) in &mut draft.headers {
        *name = name.to_ascii_uppercase();
        *value = format!(" {value} ");
    }
    assert_eq!(draft.code(), "OK");
    let (_, authorization) = draft.headers.first_mut().unwrap();
    let (before, rest) = authorization.split_once("SignedHeaders=").unwrap();
    let (names, after) = rest.split_once(',').unwrap();
    let mut names: Vec<String> = names.split(';').map(str::to_uppercase).collect();
    names.reverse();
    *authorization = format!("{before}SignedHeaders={}, {after}", names.join(";"));
    assert_eq!(draft.code(), "OK");
}

#[test]
fn headers_that_need_not_be_signed_may_be_or_not() {
    let mut draft = upload();
    draft.set("user-agent", "somebody");
    assert_eq!(draft.code(), "OK");
    draft.sign("emulator-key-id", KEY_SECRET);
    assert_eq!(draft.code(), "OK");
    draft.set("user-agent", "somebody else");
    assert_eq!(draft.code(), "SignatureDoesNotMatch");
}

#[test]
fn whatever_is_changed_after_signing_is_noticed() {
    for name in [
        "host",
        "content-type",
        "x-acs-action",
        "x-acs-version",
        "x-acs-date",
        "x-acs-signature-nonce",
        HASH,
    ] {
        let mut draft = upload();
        draft.set(name, "other");
        assert_eq!(draft.code(), "SignatureDoesNotMatch", "{name}");
    }
    let mut draft = upload();
    draft.body.push('x');
    assert_eq!(draft.code(), "SignatureDoesNotMatch");
    let mut draft = upload();
    draft.query.push('x');
    assert_eq!(draft.code(), "SignatureDoesNotMatch");
    // The signature is right, and the header tells another hash than the body has.
    let mut draft = upload();
    draft.set(HASH, &sha256(b"another body"));
    draft.sign("emulator-key-id", KEY_SECRET);
    assert_eq!(draft.code(), "SignatureDoesNotMatch");
}

#[test]
fn what_is_left_out_is_named() {
    let mut draft = upload();
    draft.without(HASH);
    draft.sign("emulator-key-id", KEY_SECRET);
    assert_eq!(draft.code(), "MissingParameter");
    for (authorization, words) in [
        ("ACS3-HMAC-SHA256", "Authorization must be like"),
        (
            "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host",
            "Authorization must be like",
        ),
        (
            "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=,Signature=0",
            "Authorization must be like",
        ),
        (
            "ACS3-HMAC-SM3 Credential=a,SignedHeaders=host,Signature=0",
            "Authorization must be like",
        ),
        (
            "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host,Signature=0",
            "content-type is not signed",
        ),
        (
            "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=content-type;host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce,Signature=0",
            "x-acs-version is not signed",
        ),
        (
            "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=content-type;host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version;x-acs-no,Signature=0",
            "x-acs-no is not there",
        ),
    ] {
        let mut draft = upload();
        draft.set("authorization", authorization);
        let refusal = draft.claim().check("POST", KEY_SECRET).unwrap_err();
        assert_eq!(
            (refusal.status, refusal.code.as_ref()),
            (400, "IncompleteSignature")
        );
        assert!(refusal.message.contains(words), "{refusal}");
    }
}

#[test]
fn a_refused_signature_is_told_with_what_the_server_would_have_signed() {
    let mut draft = upload();
    draft.sign("emulator-key-id", "another secret");
    let refusal = draft.claim().check("POST", KEY_SECRET).unwrap_err();
    for words in [
        "server string to sign is:ACS3-HMAC-SHA256\n",
        "server canonical request is:POST\n/\n\ncontent-type:application/x-www-form-urlencoded\nhost:dcdn.aliyuncs.com\n",
    ] {
        assert!(refusal.message.contains(words), "{refusal}");
    }
}

#[test]
fn only_the_authorization_makes_a_call_one_of_this_scheme() {
    let mut draft = upload();
    for authorization in ["Bearer x", "acs somebody:x"] {
        draft.set("authorization", authorization);
        assert!(Claim::read("", draft.headers.clone(), b"").is_none());
    }
    draft.without("authorization");
    assert!(Claim::read("", draft.headers, b"").is_none());
}
