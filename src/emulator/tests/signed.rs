//! Signed calls over real sockets: either scheme, either method, parameters in the query or in the form.

use reqwest::{Method, RequestBuilder, Response};

use super::super::acs3::tests::Draft;
use super::*;

const FORM: &str = "application/x-www-form-urlencoded";

/// A call that is sent as it was signed.
async fn send(request: RequestBuilder) -> (u16, String, String) {
    let reply: Response = request.send().await.unwrap();
    assert!(reply.headers().contains_key("x-acs-request-id"));
    let kind = reply.headers()["content-type"].to_str().unwrap().to_owned();
    (reply.status().as_u16(), kind, reply.text().await.unwrap())
}

/// Signs a call with the newer scheme; parameters go where they are put.
fn draft(emulator: &Emulator, method: &'static str, query: &str, form: &str, nonce: &str) -> Draft {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let mut draft = Draft::new(
        method,
        query,
        form,
        &[
            ("Host", &emulator.address().to_string()),
            ("Accept", "application/json"),
            ("X-ACS-Action", "DescribeRoutine"),
            ("x-acs-version", "2018-01-15"),
            ("x-acs-date", &now.to_string()),
            ("x-acs-signature-nonce", nonce),
        ],
    );
    if !form.is_empty() {
        draft.set("Content-Type", FORM);
    }
    draft.sign(KEY_ID, KEY_SECRET);
    draft
}

fn request(client: &Client, emulator: &Emulator, draft: &Draft) -> RequestBuilder {
    let method: Method = draft.method.parse().unwrap();
    let url = format!("{}/?{}", emulator.endpoint(), draft.query);
    let headers = draft.headers.iter();
    headers
        .fold(client.request(method, url), |request, (name, value)| {
            request.header(name, value)
        })
        .body(draft.body.clone())
}

#[tokio::test]
async fn a_query_is_as_good_as_a_form_and_a_get_as_a_post_with_either_scheme() {
    let emulator = emulator(Slot::AtUpload).await;
    let client = client();
    let url = format!("{}/", emulator.endpoint());
    let name = [("Name", "hello")];
    let (query, form) = (
        signed("GET", "DescribeRoutine", &name),
        signed("POST", "DescribeRoutine", &name),
    );
    let both = signed("POST", "DescribeRoutine", &name);
    let (first, second) = both.split_once('&').unwrap();
    let post = |query: &str, body: &str| {
        let request = client.post(format!("{url}?{query}"));
        request.header("content-type", FORM).body(body.to_owned())
    };
    let with_query = signed("POST", "DescribeRoutine", &name);
    let acs3 = [
        ("GET", "Name=hello", ""),
        ("POST", "Name=hello", ""),
        ("POST", "", "Name=hello"),
    ]
    .map(|(method, query, form)| {
        let draft = draft(&emulator, method, query, form, &format!("{method}{query}"));
        request(&client, &emulator, &draft)
    });
    let calls = [
        client.get(format!("{url}?{query}")),
        post("", &form),
        post(&with_query, ""),
        post(first, second),
    ];
    for call in calls.into_iter().chain(acs3) {
        let (status, kind, body) = send(call).await;
        assert_eq!(
            (status, kind.as_str()),
            (200, "application/json;charset=utf-8"),
            "{body}"
        );
        assert!(body.contains("\"CodeRevs\":[]"), "{body}");
    }
    let history = emulator.history();
    let schemes: Vec<_> = history
        .iter()
        .map(|record| record.scheme.unwrap())
        .collect();
    let expected = [["hmac-sha1"; 4].as_slice(), &["acs3-hmac-sha256"; 3]].concat();
    assert_eq!(schemes, expected);
    emulator.stop().await;
}

#[tokio::test]
async fn a_refusal_comes_in_the_form_that_was_asked_for_with_either_scheme() {
    let emulator = emulator(Slot::AtUpload).await;
    let client = client();
    let used = draft(&emulator, "POST", "", "Name=hello", "n1");
    let again = |accept: &str| {
        let mut draft = used.clone();
        draft.set("Accept", accept);
        draft.sign(KEY_ID, KEY_SECRET);
        request(&client, &emulator, &draft)
    };
    assert_eq!(send(again("application/json")).await.0, 200);
    let (status, _, body) = send(again("application/json")).await;
    assert_eq!(status, 400);
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["Code"], "SignatureNonceUsed");
    assert!(told["RequestId"].is_string() && told["HostId"].is_string());
    let (status, kind, body) = send(again("*/*")).await;
    assert_eq!((status, kind.as_str()), (400, "text/xml;charset=utf-8"));
    assert!(body.contains("<Code>SignatureNonceUsed</Code>"), "{body}");

    let query = signed("GET", "DescribeRoutine", &[("Name", "other")]);
    let call = |query: &str| client.get(format!("{}/?{query}", emulator.endpoint()));
    let (_, _, body) = send(call(&query)).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["Code"], "EdgeRoutine.GeneralError");
    let (status, _, body) = send(call(&query.replace("Format=JSON", "Format=XML"))).await;
    assert_eq!(status, 400);
    assert!(
        body.contains("<Code>SignatureDoesNotMatch</Code>"),
        "{body}"
    );
    emulator.stop().await;
}

#[tokio::test]
async fn what_a_body_holds_is_covered_whatever_its_type_is() {
    let emulator = emulator(Slot::AtUpload).await;
    let client = client();
    let mut sent = draft(&emulator, "POST", "Name=hello", "anything at all", "n1");
    sent.set("Content-Type", "application/octet-stream");
    sent.sign(KEY_ID, KEY_SECRET);
    let mut forged = sent.clone();
    forged.body.push('!');
    let (status, _, body) = send(request(&client, &emulator, &forged)).await;
    assert_eq!(status, 400);
    assert!(body.contains("SignatureDoesNotMatch"), "{body}");
    let (status, _, body) = send(request(&client, &emulator, &sent)).await;
    assert_eq!(status, 200, "{body}");
    emulator.stop().await;
}
