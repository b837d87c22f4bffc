//! The operations of the API, called as the gateway would hand them on.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::gateway::tests::signed;
use super::super::world::Settings;
use super::*;

const NOON: &str = "2026-02-03T12:00:00Z";

/// A world with one routine and calls that each come with a nonce of their own.
pub(in crate::emulator) struct Service {
    pub(in crate::emulator) world: World,
    calls: u64,
    pub(in crate::emulator) elapsed: Duration,
}

impl Service {
    pub(in crate::emulator) fn new() -> Self {
        let mut world = World::new(Settings::default(), "http://127.0.0.1:9480");
        world.create_routine(&hello(), "greets", noon()).unwrap();
        Self {
            world,
            calls: 0,
            elapsed: Duration::ZERO,
        }
    }

    pub(in crate::emulator) fn call(&mut self, action: &str, parameters: &[(&str, &str)]) -> Reply {
        self.calls += 1;
        let call = signed(action, parameters, &format!("nonce {}", self.calls), noon());
        self.send(&call)
    }

    fn send(&mut self, call: &Call) -> Reply {
        let now = Now {
            wall: noon(),
            elapsed: self.elapsed,
        };
        let visit = Visit {
            arrived: self.elapsed,
            now,
            hit: None,
        };
        self.world.call(Ok(call), &visit)
    }

    pub(in crate::emulator) fn content(
        &mut self,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Value {
        let reply = self.call(action, parameters);
        assert_eq!(reply.status, 200, "{}", reply.body);
        let mut body: Value = serde_json::from_str(&reply.body).unwrap();
        assert!(body["RequestId"].is_string());
        body["Content"].take()
    }

    pub(in crate::emulator) fn refusal(
        &mut self,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> (u16, String, String) {
        let reply = self.call(action, parameters);
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        assert_eq!(text("HostId"), "127.0.0.1:9480");
        (reply.status, text("Code"), text("Message"))
    }

    pub(in crate::emulator) fn last(&self) -> Value {
        serde_json::to_value(self.world.history().iter().next_back().unwrap()).unwrap()
    }
}

pub(in crate::emulator) fn noon() -> Timestamp {
    NOON.parse().unwrap()
}

pub(in crate::emulator) fn hello() -> RoutineName {
    RoutineName::new("hello").unwrap()
}

fn decoded(base64: &Value) -> String {
    String::from_utf8(STANDARD.decode(base64.as_str().unwrap()).unwrap()).unwrap()
}

#[test]
fn an_upload_gives_a_number_and_a_form_bound_to_one_object() {
    let mut service = Service::new();
    let content = service.content(
        "UploadRoutineCode",
        &[("Name", "hello"), ("CodeDescription", "Hello World")],
    );
    assert_eq!(content["CodeRevision"], "1770120000000000000");
    let form = &content["OssPostConfig"];
    let names: Vec<&str> = form
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "OSSAccessKeyId",
        "Signature",
        "Url",
        "callback",
        "key",
        "policy",
        "x:codeDescription",
    ];
    assert_eq!(names, expected);
    assert_eq!(form["Url"], "http://127.0.0.1:9480/oss");
    assert_eq!(form["key"], "hello.1000000000000001.1770120000000000000.js");
    assert_eq!(form["x:codeDescription"], "IkhlbGxvIFdvcmxkIg==");
    let policy: Value = serde_json::from_str(&decoded(&form["policy"])).unwrap();
    assert_eq!(
        policy,
        json!({"expiration": "2026-02-03T12:05:00Z", "conditions": [
            ["eq", "$key", form["key"]],
            ["eq", "$callback", form["callback"]],
            ["eq", "$x:codedescription", "IkhlbGxvIFdvcmxkIg=="],
            ["content-length-range", 1, 4_194_304],
        ]})
    );
    let record = service.last();
    assert_eq!(record["revision"], "1770120000000000000");
    assert_eq!(
        (&record["op"], &record["decision"]),
        (&json!("UploadRoutineCode"), &json!("ok"))
    );
}

#[test]
fn a_routine_is_described_in_the_documented_shape() {
    let mut service = Service::new();
    let made = "2026-02-01T08:00:00.000000042Z".parse().unwrap();
    let live = service
        .world
        .seed(&hello(), Some(b"x"), "Hello World", made)
        .unwrap();
    service
        .world
        .publish(&hello(), &live, &["production"])
        .unwrap();
    let content = service.content("DescribeRoutine", &[("Name", "hello")]);
    let idle = |spec: &str| json!({"SpecName": spec, "CodeRev": "", "AllowedHosts": []});
    assert_eq!(
        content,
        json!({
            "CreationTime": NOON,
            "Description": "ImdyZWV0cyI=",
            "Envs": ["production", "staging", "presetCanaryZhejiang", "presetCanaryHong-Kong", "presetCanaryOverseas"],
            "EnvConf": {
                "production": {"SpecName": "50ms", "CodeRev": "1769932800000000042", "AllowedHosts": []},
                "staging": idle("50ms"),
                "presetCanaryZhejiang": idle("50ms"),
                "presetCanaryHong-Kong": idle("50ms"),
                "presetCanaryOverseas": idle("50ms"),
            },
            "CodeRevs": [{
                "CodeRevision": "1769932800000000042",
                "CreationTime": "2026-02-01T08:00:00Z",
                "CodeDescription": "IkhlbGxvIFdvcmxkIg==",
            }],
        })
    );
}

#[test]
fn versions_are_listed_in_no_order_of_age() {
    let mut service = Service::new();
    for _ in 0..10 {
        service.content(
            "UploadRoutineCode",
            &[("Name", "hello"), ("CodeDescription", "d")],
        );
    }
    let content = service.content("DescribeRoutine", &[("Name", "hello")]);
    let listed: Vec<&str> = content["CodeRevs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rev| rev["CodeRevision"].as_str().unwrap())
        .collect();
    assert_eq!(listed.len(), 10);
    assert!(
        !listed.is_sorted() && !listed.iter().rev().is_sorted(),
        "{listed:?}"
    );
    let refusal = service.refusal(
        "UploadRoutineCode",
        &[("Name", "hello"), ("CodeDescription", "d")],
    );
    assert_eq!(
        (refusal.0, refusal.1.as_str()),
        (400, "EdgeRoutine.GeneralError")
    );
    assert!(refusal.2.contains("you got upper limit of code revisions"));
    assert_eq!(service.last()["decision"], "refused");
}

#[test]
fn code_is_told_byte_for_byte_and_missing_code_as_the_page_of_a_missing_object() {
    let mut service = Service::new();
    let bytes = b"\xef\xbb\xbf\0\r\n\xff";
    let full = service
        .world
        .seed(&hello(), Some(bytes), "full", noon())
        .unwrap();
    let orphan = service
        .world
        .seed(&hello(), None, "orphan", noon())
        .unwrap();
    let mut fetch = |revision: &Revision| {
        let asked = [("Name", "hello"), ("SelectCodeRevision", revision.as_str())];
        service.content("DescribeRoutineCodeRevision", &asked)
    };
    let content = fetch(&full);
    assert_eq!(content["CreationTime"], NOON);
    assert_eq!(
        STANDARD
            .decode(content["ErCode"].as_str().unwrap())
            .unwrap(),
        bytes
    );
    let page = decoded(&fetch(&orphan)["ErCode"]);
    assert!(page.contains("<Error><Code>NoSuchKey</Code>"), "{page}");
    let unknown = [("Name", "hello"), ("SelectCodeRevision", "12")];
    assert_eq!(
        service.refusal("DescribeRoutineCodeRevision", &unknown).1,
        "EdgeRoutine.GeneralError"
    );
}

#[test]
fn a_version_is_published_and_deleted_over_the_api() {
    let mut service = Service::new();
    let revision = service
        .world
        .seed(&hello(), Some(b"x"), "d", noon())
        .unwrap();
    let chosen = [("Name", "hello"), ("SelectCodeRevision", revision.as_str())];
    for odd in ["staging", "[]", "[\"nowhere\"]"] {
        let asked = [&chosen[..], &[("Envs", odd)]].concat();
        assert_eq!(
            service.refusal("PublishRoutineCodeRevision", &asked).0,
            400,
            "{odd}"
        );
    }
    let asked = [&chosen[..], &[("Envs", "[\"staging\"]")]].concat();
    let content = service.content("PublishRoutineCodeRevision", &asked);
    assert_eq!(content, json!({"CodeRevision": revision}));
    assert_eq!(
        service.world.routine(&hello()).unwrap().live("staging"),
        Some(&revision)
    );
    assert_eq!(
        service.content("DeleteRoutineCodeRevision", &chosen),
        json!({"Status": "OK"})
    );
    assert_eq!(service.last()["revision"], json!(revision));
    assert_eq!(
        service.refusal("DeleteRoutineCodeRevision", &chosen).1,
        "EdgeRoutine.GeneralError"
    );
}

#[test]
fn a_routine_is_made_once_and_only_with_what_a_new_one_may_have() {
    let mut service = Service::new();
    let long = "x".repeat(51);
    for odd in [
        [("Name", "hello"), ("Description", "again")],
        [("Name", "a b"), ("Description", "")],
        [("Name", "new"), ("Description", &long)],
        [
            ("Name", "new"),
            ("EnvConf", "{\"presetCanaryZhejiang\":{}}"),
        ],
        [("Name", "new"), ("EnvConf", "[1]")],
    ] {
        assert_eq!(service.refusal("CreateRoutine", &odd).0, 400, "{odd:?}");
    }
    let wish = "{\"staging\":{\"SpecName\":\"5ms\",\"AllowedHosts\":[\"a.example\"]}}";
    let content = service.content("CreateRoutine", &[("Name", "new"), ("EnvConf", wish)]);
    assert_eq!(content, json!({"Status": "OK"}));
    let staging = &service.content("DescribeRoutine", &[("Name", "new")])["EnvConf"]["staging"];
    assert_eq!(
        *staging,
        json!({"SpecName": "5ms", "CodeRev": "", "AllowedHosts": ["a.example"]})
    );
    let account = service.content("DescribeRoutineUserInfo", &[]);
    let names: Vec<&Value> = account["Routines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["RoutineName"])
        .collect();
    assert_eq!(names, ["hello", "new"]);
}

#[test]
fn a_call_that_asks_for_nothing_known_is_refused_in_the_documented_way() {
    let mut service = Service::new();
    assert_eq!(
        service.refusal("DescribeRoutine", &[]).1,
        "MissingParameter"
    );
    assert_eq!(
        service.refusal("DescribeRoutine", &[("Name", "other")]).1,
        "EdgeRoutine.GeneralError"
    );
    assert_eq!(service.refusal("DropEverything", &[]).0, 404);
    assert_eq!(service.last()["op"], "Unknown");
}

#[test]
fn the_hundred_and_first_call_of_an_operation_in_a_second_is_throttled_and_does_nothing() {
    let mut service = Service::new();
    for _ in 0..100 {
        service.content("DescribeRoutine", &[("Name", "hello")]);
    }
    let refusal = service.refusal("DescribeRoutine", &[("Name", "hello")]);
    assert_eq!((refusal.0, refusal.1.as_str()), (400, "Throttling.User"));
    assert_eq!(service.last()["decision"], "throttled");
    service.content(
        "UploadRoutineCode",
        &[("Name", "hello"), ("CodeDescription", "d")],
    );
    service.elapsed = Duration::from_secs(1);
    service.content("DescribeRoutine", &[("Name", "hello")]);
}

#[test]
fn a_caller_who_names_no_format_is_answered_in_xml() {
    let mut service = Service::new();
    let reply = service.send(&Call::new("GET", "Action=DescribeRoutine", ""));
    assert_eq!(
        (reply.status, reply.content_type),
        (400, "text/xml;charset=utf-8")
    );
    assert!(
        reply.body.contains("<Error><Code>MissingParameter</Code>"),
        "{}",
        reply.body
    );
    let unread = Refusal::new(400, "InvalidParameter", "too long");
    let now = Now {
        wall: noon(),
        elapsed: Duration::ZERO,
    };
    let visit = Visit {
        arrived: Duration::ZERO,
        now,
        hit: None,
    };
    assert_eq!(service.world.call(Err(unread), &visit).status, 400);
    assert_eq!(service.last()["op"], "Unknown");
}
