//! What a key may do: the policy that is part of the package, and what is said where a key may not.

use std::collections::BTreeSet;
use std::path::Path;

use er_dev::emulator::fault::Fault;
use serde_json::Value;

use crate::common::{Bed, Ended, code};

/// The operations that the client has the names of, which are those that it can send.
fn sent() -> BTreeSet<String> {
    // Whoever asks for the fault of an operation that is not there is told those that are.
    let names = Fault::parse("Nothing:1:drip").unwrap_err().to_string();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cloud/dcdn.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap();
    let words = names.split([',', ' ']).map(str::trim);
    let sent: BTreeSet<String> = words
        .filter(|name| !name.is_empty() && source.contains(&format!("\"{name}\"")))
        .map(|name| format!("dcdn:{name}"))
        .collect();
    assert!(sent.len() >= 6, "{sent:?}");
    sent
}

fn actions(statement: &Value) -> BTreeSet<String> {
    let actions = statement["Action"].as_array().unwrap().iter();
    actions
        .map(|action| action.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_policy_allows_for_every_operation_that_is_sent_over_a_secure_line_and_for_nothing_else() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/ram-policy.json");
    let policy: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(policy["Version"], "1");
    let statements = policy["Statement"].as_array().unwrap();
    let of = |effect: &'static str| statements.iter().filter(move |it| it["Effect"] == effect);
    let mut allowed = BTreeSet::new();
    for statement in of("Allow") {
        assert_eq!(
            statement["Condition"]["Bool"]["acs:SecureTransport"],
            "true"
        );
        for action in actions(statement) {
            assert!(allowed.insert(action), "twice");
        }
    }
    assert_eq!(allowed, sent());
    // What a watch needs is a statement of its own, so that the other can be left out.
    let watch = [
        "DescribeRoutine",
        "DescribeRoutineCodeRevision",
        "UploadRoutineCode",
        "DeleteRoutineCodeRevision",
    ];
    let watch: BTreeSet<String> = watch.iter().map(|name| format!("dcdn:{name}")).collect();
    assert_eq!(actions(of("Allow").next().unwrap()), watch);
    let denied: BTreeSet<String> = of("Deny").flat_map(actions).collect();
    for action in [
        "DeleteRoutine",
        "EditRoutineConf",
        "DeleteRoutineConfEnvs",
        "SetRoutineSubdomain",
    ] {
        assert!(denied.contains(&format!("dcdn:{action}")), "{action}");
    }
    assert!(denied.is_disjoint(&allowed));
    assert_eq!(of("Allow").count() + of("Deny").count(), statements.len());
    let all = statements.iter().flat_map(actions);
    assert!(all.into_iter().all(|action| !action.contains('*')));
}

#[tokio::test]
async fn c13_whatever_a_key_may_not_do_is_named_by_its_action_at_the_first_refusal() {
    let bed = Bed::new(&["hello"]).await;
    let seeded = bed.seed("hello", 9);
    let refuse = |operation: &str| {
        bed.emulator.clear_faults();
        bed.fault(&format!(
            "{operation}:*:code(Forbidden.RAM,not authorised,403)"
        ));
    };
    let newest = seeded[8].as_str();
    for (operation, arguments, stops) in [
        (
            "PublishRoutineCodeRevision",
            &["publish", "hello", newest, "--env", "staging"][..],
            true,
        ),
        (
            "DeleteRoutineCodeRevision",
            &["prune", "hello", "--keep", "5"],
            true,
        ),
        ("UploadRoutineCode", &["push", "--timeout", "5s"], true),
        // What cannot be deleted is no reason not to upload.
        (
            "DeleteRoutineCodeRevision",
            &["push", "--timeout", "5s"],
            false,
        ),
    ] {
        refuse(operation);
        let before = bed.asked(operation);
        let ended = bed.run(arguments).await;
        let Ended { stdout, stderr, .. } = &ended;
        let action = format!("allow the action `dcdn:{operation}` for this key");
        assert!(
            format!("{stdout}{stderr}").contains(&action),
            "{arguments:?}: {stdout}{stderr}"
        );
        assert_eq!(
            ended.code,
            Some(if stops { 77 } else { 0 }),
            "{arguments:?}: {stdout}{stderr}"
        );
        assert_eq!(bed.asked(operation) - before, 1, "{arguments:?}");
    }
    bed.emulator.clear_faults();
    assert_eq!(bed.newest("hello"), code("hello", 0).into_bytes());
}
