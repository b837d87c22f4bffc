//! The operations of the API that change something: parameters in, the documented JSON out.
//!
//! What they change is in `world`; those that only tell something are in `describe`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::form;
use super::gateway::Call;
use super::history::{Mark, Record};
use super::reply::{self, Format, Refusal, Reply};
use super::routines::no_such_routine;
use super::switches::MAX_DESCRIPTION;
use super::world::{Now, Visit, World};
use crate::routine::{Revision, RoutineName};

/// The only version of the API.
const VERSION: &str = "2018-01-15";

/// The operation under which a call is recorded that names none the emulator knows.
const UNKNOWN: &str = "Unknown";

/// The longest description of a routine, in characters.
const MAX_ROUTINE_DESCRIPTION: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    CreateRoutine,
    DeleteRoutineCodeRevision,
    DescribeRoutine,
    DescribeRoutineCodeRevision,
    DescribeRoutineUserInfo,
    PublishRoutineCodeRevision,
    UploadRoutineCode,
}

/// One entry of the `EnvConf` a caller may give.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnvironmentWish {
    spec_name: Option<String>,
    allowed_hosts: Option<Vec<String>>,
}

impl World {
    /// Answers one call to the API and records it. A call that could not even be read is handed in as its refusal.
    pub fn call(&mut self, call: Result<&Call, Refusal>, visit: &Visit<'_>) -> Reply {
        self.now = visit.now;
        let read = call.as_ref().ok().copied();
        let operation = read.and_then(Operation::of);
        let mut record = record(read, visit);
        let (op, format) = (record.op, read.map_or(Format::Xml, Call::format));
        let is_delete = operation == Some(Operation::DeleteRoutineCodeRevision);
        let there = self.holds(&record);
        if let (true, Some(name), Some(revision)) = (is_delete, &record.routine, &record.revision) {
            record.live = self.is_live(name, revision);
        }

        let mut outcome = call.and_then(|c| self.execute(c, operation, visit.now));
        record.processed = outcome.is_ok() && (!is_delete || there && !self.holds(&record));
        if let Ok(content) = &mut outcome {
            if let Some(given) = content["CodeRevision"].as_str() {
                record.revision = Some(Revision::new(given));
            }
            self.settings.revision_form.apply(content);
        }
        let refusal = outcome.as_ref().err();
        let status = refusal.map_or(200, |refusal| refusal.status);
        self.enter(record, status, refusal, visit.hit);
        let request_id = self.next_request_id();
        reply::gateway(outcome, op, format, self.host(), request_id)
    }

    /// Whether the version of a record is there.
    fn holds(&self, record: &Record) -> bool {
        let (Some(name), Some(revision)) = (&record.routine, &record.revision) else {
            return false;
        };
        let routine = self.routine(name);
        routine.is_some_and(|routine| routine.version(revision).is_some())
    }

    fn execute(
        &mut self,
        call: &Call,
        operation: Option<Operation>,
        now: Now,
    ) -> Result<Value, Refusal> {
        self.gateway.authenticate(call, now.wall)?;
        if call.need("Version")? != VERSION {
            let message = format!("the only version is {VERSION}");
            return Err(Refusal::new(400, "InvalidVersion", message));
        }
        call.need("Action")?;
        let operation = operation.ok_or_else(|| {
            Refusal::new(
                404,
                "InvalidApi.NotFound",
                "the emulator has no such operation",
            )
        })?;
        let scope = self.settings.rate_scope;
        self.gateway.admit(operation.name(), scope, now.elapsed)?;
        match operation {
            Operation::CreateRoutine => self.create(call, now.wall),
            Operation::DeleteRoutineCodeRevision => self.delete_revision(call),
            Operation::DescribeRoutine => self.describe(call),
            Operation::DescribeRoutineCodeRevision => self.describe_revision(call),
            Operation::DescribeRoutineUserInfo => Ok(self.describe_user()),
            Operation::PublishRoutineCodeRevision => self.publish_revision(call),
            Operation::UploadRoutineCode => self.upload(call, now.wall),
        }
    }

    fn create(&mut self, call: &Call, now: Timestamp) -> Result<Value, Refusal> {
        let name = call.need("Name")?;
        let name = RoutineName::new(name).map_err(Refusal::general)?;
        let description = call.get("Description").unwrap_or_default();
        if description.chars().count() > MAX_ROUTINE_DESCRIPTION {
            let cause = format!("a description has at most {MAX_ROUTINE_DESCRIPTION} characters");
            return Err(Refusal::general(cause));
        }
        let wishes: BTreeMap<String, EnvironmentWish> = call
            .get("EnvConf")
            .map_or_else(|| Ok(BTreeMap::new()), |text| json_of("EnvConf", text))?;
        if let Some(odd) = wishes
            .keys()
            .find(|env| !matches!(env.as_str(), "production" | "staging"))
        {
            let cause = format!("a new routine cannot have a configuration for {odd}");
            return Err(Refusal::general(cause));
        }
        self.create_routine(&name, description, now)?;
        for environment in &mut self.routine_mut(&name)?.environments {
            let Some(wish) = wishes.get(environment.name) else {
                continue;
            };
            if let Some(spec) = &wish.spec_name {
                environment.spec.clone_from(spec);
            }
            if let Some(hosts) = &wish.allowed_hosts {
                environment.allowed_hosts.clone_from(hosts);
            }
        }
        Ok(json!({"Status": "OK"}))
    }

    fn upload(&mut self, call: &Call, now: Timestamp) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let description = call.need("CodeDescription")?;
        if self.settings.short_descriptions && description.chars().count() > MAX_DESCRIPTION {
            let message = format!("CodeDescription has more than {MAX_DESCRIPTION} characters");
            return Err(Refusal::new(400, "InvalidParameter", message));
        }
        let revision = self.begin_upload(&name, description, now)?;
        let life = self.settings.form_life;
        let ticket = form::Ticket {
            origin: &self.origin,
            routine: &name,
            revision: &revision,
            stored_description: &self.store_text(description),
            expires: now.saturating_add(life).unwrap_or(Timestamp::MAX),
        };
        Ok(json!({"CodeRevision": revision, "OssPostConfig": form::issue(&ticket)}))
    }

    fn publish_revision(&mut self, call: &Call) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let revision = selected(call)?;
        let environments: Vec<&str> = json_of("Envs", call.need("Envs")?)?;
        if environments.is_empty() {
            return Err(Refusal::general("Envs names no environment"));
        }
        self.set_live(&name, &revision, &environments)?;
        Ok(json!({"CodeRevision": revision}))
    }

    fn delete_revision(&mut self, call: &Call) -> Result<Value, Refusal> {
        let name = routine_name(call)?;
        let revision = selected(call)?;
        let routine = self
            .routine(&name)
            .ok_or_else(|| no_such_routine(name.as_str()))?;
        if routine.version(&revision).is_some() || !self.settings.delete_unknown_is_ok {
            self.removable(&name, &revision)?;
            if self.settings.delete_works {
                self.remove(&name, &revision)?;
            }
        }
        Ok(json!({"Status": "OK"}))
    }
}

impl Operation {
    const ALL: [Self; 7] = [
        Self::CreateRoutine,
        Self::DeleteRoutineCodeRevision,
        Self::DescribeRoutine,
        Self::DescribeRoutineCodeRevision,
        Self::DescribeRoutineUserInfo,
        Self::PublishRoutineCodeRevision,
        Self::UploadRoutineCode,
    ];

    fn of(call: &Call) -> Option<Self> {
        let action = call.get("Action")?;
        Self::ALL
            .into_iter()
            .find(|operation| operation.name() == action)
    }

    fn name(self) -> &'static str {
        match self {
            Self::CreateRoutine => "CreateRoutine",
            Self::DeleteRoutineCodeRevision => "DeleteRoutineCodeRevision",
            Self::DescribeRoutine => "DescribeRoutine",
            Self::DescribeRoutineCodeRevision => "DescribeRoutineCodeRevision",
            Self::DescribeRoutineUserInfo => "DescribeRoutineUserInfo",
            Self::PublishRoutineCodeRevision => "PublishRoutineCodeRevision",
            Self::UploadRoutineCode => "UploadRoutineCode",
        }
    }
}

/// The names of all operations that are known.
pub(super) fn names() -> Vec<&'static str> {
    Operation::ALL.into_iter().map(Operation::name).collect()
}

/// The name under which a call is recorded.
pub(super) fn name_of(call: Option<&Call>) -> &'static str {
    call.and_then(Operation::of)
        .map_or(UNKNOWN, Operation::name)
}

/// What the record of a call holds whatever becomes of it; nothing is known of one that could not be read.
pub(super) fn record(call: Option<&Call>, visit: &Visit<'_>) -> Record {
    let operation = call.and_then(Operation::of);
    let text = |name: &str| call.and_then(|c| c.get(name));
    let mut record = visit.record(name_of(call));
    record.routine = text("Name").and_then(|name| RoutineName::new(name).ok());
    record.revision = text("SelectCodeRevision").map(Revision::new);
    record.nonce = text("SignatureNonce").map(str::to_owned);
    match operation {
        Some(Operation::UploadRoutineCode) => {
            record.mark = text("CodeDescription").and_then(Mark::read);
        }
        Some(Operation::PublishRoutineCodeRevision) => {
            let environments = text("Envs").and_then(|envs| serde_json::from_str(envs).ok());
            record.environments = environments.unwrap_or_default();
        }
        _ => {}
    }
    record
}

/// A name that no routine can have belongs to none.
pub(super) fn routine_name(call: &Call) -> Result<RoutineName, Refusal> {
    let name = call.need("Name")?;
    RoutineName::new(name).map_err(|_| no_such_routine(name))
}

pub(super) fn selected(call: &Call) -> Result<Revision, Refusal> {
    call.need("SelectCodeRevision").map(Revision::new)
}

fn json_of<'a, T: Deserialize<'a>>(parameter: &str, text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| {
        let message = format!("{parameter} is not the JSON it must be: {error}");
        Refusal::new(400, "InvalidParameter", message)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::super::gateway::tests::signed;
    use super::super::world::Settings;
    use super::*;

    const NOON: &str = "2026-02-03T12:00:00Z";

    /// A world with one routine and calls that each come with a nonce of their own.
    struct Service {
        world: World,
        calls: u64,
        elapsed: Duration,
    }

    impl Service {
        fn new() -> Self {
            let mut world = World::new(Settings::default(), "http://127.0.0.1:9480");
            world.create_routine(&hello(), "greets", noon()).unwrap();
            Self {
                world,
                calls: 0,
                elapsed: Duration::ZERO,
            }
        }

        fn call(&mut self, action: &str, parameters: &[(&str, &str)]) -> Reply {
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

        fn content(&mut self, action: &str, parameters: &[(&str, &str)]) -> Value {
            let reply = self.call(action, parameters);
            assert_eq!(reply.status, 200, "{}", reply.body);
            let mut body: Value = serde_json::from_str(&reply.body).unwrap();
            assert!(body["RequestId"].is_string());
            body["Content"].take()
        }

        fn refusal(&mut self, action: &str, parameters: &[(&str, &str)]) -> (u16, String, String) {
            let reply = self.call(action, parameters);
            let body: Value = serde_json::from_str(&reply.body).unwrap();
            let text = |key: &str| body[key].as_str().unwrap().to_owned();
            assert_eq!(text("HostId"), "127.0.0.1:9480");
            (reply.status, text("Code"), text("Message"))
        }

        fn last(&self) -> Value {
            serde_json::to_value(self.world.history().iter().next_back().unwrap()).unwrap()
        }
    }

    fn noon() -> Timestamp {
        NOON.parse().unwrap()
    }

    fn hello() -> RoutineName {
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
}
