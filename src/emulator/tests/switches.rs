//! What each switch changes in the answers of the service, called past the socket.

use serde_json::json;

use super::super::operations::tests::{Service, hello, noon};
use super::super::routines::Version;
use super::*;
use crate::routine::Revision;

fn service(switches: &[&str]) -> Service {
    let mut service = Service::new();
    let mut settings = service.world.settings().clone();
    for switch in switches {
        settings.set(switch).unwrap();
    }
    service.world.configure(settings);
    service
}

fn seed(service: &mut Service, code: &[u8]) -> Revision {
    service
        .world
        .seed(&hello(), Some(code), "by hand", noon())
        .unwrap()
}

fn described(service: &mut Service) -> Value {
    service.content("DescribeRoutine", &[("Name", "hello")])
}

fn upload(service: &mut Service, description: &str) -> String {
    let parameters = [("Name", "hello"), ("CodeDescription", description)];
    let content = service.content("UploadRoutineCode", &parameters);
    content["CodeRevision"].as_str().unwrap().to_owned()
}

fn chosen(revision: &Revision) -> [(&str, &str); 2] {
    [("Name", "hello"), ("SelectCodeRevision", revision.as_str())]
}

#[test]
fn the_environments_are_told_in_full_in_part_or_not_at_all() {
    for (kind, right) in [
        ("full", json!({"there": true, "names": 5})),
        ("partial", json!({"there": true, "names": 4})),
        ("missing", json!({"there": false, "names": null})),
        ("null", json!({"there": true, "names": null})),
    ] {
        let content = described(&mut service(&[&format!("envconf={kind}")]));
        let told = content.get("EnvConf");
        let names = told.and_then(Value::as_object).map(serde_json::Map::len);
        assert_eq!(
            json!({"there": told.is_some(), "names": names}),
            right,
            "{kind}"
        );
        assert_eq!(content["Envs"].as_array().unwrap().len(), 5, "{kind}");
    }
    let partial = described(&mut service(&["envconf=partial"]));
    assert!(partial["EnvConf"].get("production").is_none());
}

#[test]
fn a_long_description_is_refused_only_where_descriptions_are_short() {
    let (fits, long) = ("ü".repeat(48), "ü".repeat(49));
    upload(&mut service(&["desc=free"]), &long);
    let mut service = service(&["desc=max48"]);
    upload(&mut service, &fits);
    let parameters = [("Name", "hello"), ("CodeDescription", long.as_str())];
    let refusal = service.refusal("UploadRoutineCode", &parameters);
    assert_eq!((refusal.0, refusal.1.as_str()), (400, "InvalidParameter"));
    assert_eq!(service.last()["slots"], 1, "no slot was taken");
}

#[test]
fn descriptions_are_told_in_the_form_that_was_chosen_whole_or_cut() {
    let text = "words before er1.0123456789abcdef0123456789abcdef.00c0ffee";
    let quoted = format!("\"{text}\"");
    for (form, expected) in [
        ("plain", text.to_owned()),
        ("base64", STANDARD.encode(text)),
        ("json_base64", STANDARD.encode(&quoted)),
    ] {
        let mut service = service(&[&format!("desc_form={form}")]);
        upload(&mut service, text);
        assert_eq!(service.last()["mark"]["instance"], "00c0ffee");
        let told = &described(&mut service)["CodeRevs"][0]["CodeDescription"];
        assert_eq!(told, &json!(expected), "{form}");
    }
    let mut service = service(&["desc_form=plain", "desc_mangle=on"]);
    upload(&mut service, text);
    let told = &described(&mut service)["CodeRevs"][0]["CodeDescription"];
    assert_eq!(told, &text[..20]);
}

#[test]
fn the_describing_operations_lag_and_the_others_do_not() {
    let mut service = service(&["lag=5s"]);
    let seeded = seed(&mut service, b"old");
    let listed = |service: &mut Service| described(service)["CodeRevs"].as_array().unwrap().len();
    assert_eq!(listed(&mut service), 1, "a seed is told at once");
    service.elapsed = Duration::from_secs(1);
    let made = Revision::new(&upload(&mut service, "d"));
    service.elapsed = Duration::from_secs(2);
    service.content("DeleteRoutineCodeRevision", &chosen(&seeded));
    assert_eq!(
        listed(&mut service),
        1,
        "neither the upload nor the delete is told"
    );
    service.content("DescribeRoutineCodeRevision", &chosen(&seeded));
    service.refusal("DescribeRoutineCodeRevision", &chosen(&made));
    let again = service.refusal("DeleteRoutineCodeRevision", &chosen(&seeded));
    assert!(
        again.2.contains("no such code revision"),
        "it is gone: {again:?}"
    );

    service.elapsed = Duration::from_millis(5_999);
    assert_eq!(listed(&mut service), 1);
    service.elapsed = Duration::from_secs(6);
    assert_eq!(listed(&mut service), 2, "the upload is told");
    service.content("DescribeRoutineCodeRevision", &chosen(&made));
    service.elapsed = Duration::from_secs(7);
    assert_eq!(listed(&mut service), 1, "and the delete");
    service.refusal("DescribeRoutineCodeRevision", &chosen(&seeded));
}

#[test]
fn a_change_of_switches_tells_at_once_what_had_lagged() {
    let mut service = service(&["lag=1h"]);
    upload(&mut service, "d");
    assert_eq!(described(&mut service)["CodeRevs"], json!([]));
    let mut settings = service.world.settings().clone();
    settings.set("lag=30m").unwrap();
    service.world.configure(settings);
    assert_eq!(
        described(&mut service)["CodeRevs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn deleting_what_is_not_there_is_an_error_or_ok_and_never_counts_as_done() {
    let unknown = [("Name", "hello"), ("SelectCodeRevision", "17")];
    let mut strict = service(&["delete_unknown=error"]);
    assert_eq!(strict.refusal("DeleteRoutineCodeRevision", &unknown).0, 400);
    let mut lenient = service(&["delete_unknown=ok"]);
    let content = lenient.content("DeleteRoutineCodeRevision", &unknown);
    assert_eq!(content, json!({"Status": "OK"}));
    assert_eq!(lenient.last()["processed"], false);
    let missing = [("Name", "other"), ("SelectCodeRevision", "17")];
    assert_eq!(
        lenient.refusal("DeleteRoutineCodeRevision", &missing).0,
        400
    );
}

#[test]
fn a_delete_that_does_not_work_is_confirmed_and_the_record_knows_better() {
    let mut service = service(&["delete_works=no", "guard=on"]);
    let idle = seed(&mut service, b"a");
    let live = seed(&mut service, b"b");
    service
        .world
        .publish(&hello(), &live, &["staging"])
        .unwrap();
    service.content("DeleteRoutineCodeRevision", &chosen(&idle));
    let told = service.last();
    assert_eq!(
        (&told["decision"], &told["processed"]),
        (&json!("ok"), &json!(false))
    );
    assert_eq!(told["slots"], 2);
    service.refusal("DeleteRoutineCodeRevision", &chosen(&live));
    assert_eq!(service.last()["live"], true);
}

#[test]
fn a_missing_routine_is_described_by_an_error_or_by_nothing() {
    let other = [("Name", "other"), ("SelectCodeRevision", "17")];
    let mut normal = service(&["content=normal"]);
    assert_eq!(normal.refusal("DescribeRoutine", &other).0, 400);
    let mut bare = service(&["content=missing"]);
    for operation in ["DescribeRoutine", "DescribeRoutineCodeRevision"] {
        let reply = bare.call(operation, &other);
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        let fields: Vec<&str> = body
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!((reply.status, fields), (200, vec!["RequestId"]));
    }
    assert!(described(&mut bare)["CodeRevs"].is_array());
}

#[test]
fn numbers_that_are_told_rounded_are_recorded_exactly() {
    let mut service = service(&["revision_form=rounded"]);
    let made = "2026-02-03T11:00:00.123456789Z".parse().unwrap();
    let seeded = service.world.seed(&hello(), Some(b"x"), "d", made).unwrap();
    service
        .world
        .publish(&hello(), &seeded, &["production"])
        .unwrap();
    let content = described(&mut service);
    let told = content["CodeRevs"][0]["CodeRevision"].as_u64().unwrap();
    let exact = seeded.number().unwrap();
    assert!(told != exact && told.abs_diff(exact) < 256, "{told}");
    assert_eq!(content["EnvConf"]["production"]["CodeRev"], json!(told));
    let parameters = [("Name", "hello"), ("CodeDescription", "d")];
    let content = service.content("UploadRoutineCode", &parameters);
    assert!(content["CodeRevision"].is_u64());
    let newest = |versions: Vec<&Version>| versions.last().unwrap().revision.clone();
    let newest = newest(service.world.routine(&hello()).unwrap().versions());
    assert_eq!(service.last()["revision"], json!(newest));
}

#[test]
fn the_limit_of_calls_is_of_each_operation_or_of_all() {
    for (scope, throttled) in [("operation", false), ("total", true)] {
        let mut service = service(&[&format!("rate_scope={scope}")]);
        for _ in 0..100 {
            described(&mut service);
        }
        let reply = service.call("DescribeRoutineUserInfo", &[]);
        assert_eq!(reply.body.contains("Throttling.User"), throttled, "{scope}");
    }
}

#[test]
fn a_record_tells_what_a_publish_was_about() {
    let mut service = service(&[]);
    let seeded = seed(&mut service, b"x");
    let parameters = [
        &chosen(&seeded)[..],
        &[("Envs", "[\"staging\",\"production\"]")],
    ]
    .concat();
    service.content("PublishRoutineCodeRevision", &parameters);
    let told = service.last();
    assert_eq!(told["environments"], json!(["staging", "production"]));
    assert_eq!(
        (&told["actor"], &told["revision"]),
        (&json!("client"), &json!(seeded))
    );
    assert!(told["nonce"].as_str().unwrap().starts_with("nonce"));
}
