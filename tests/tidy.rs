//! The house rules that a compiler does not check.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files that touch nothing: no file, socket, clock or random number. Time is an argument there.
const PURE: &[&str] = &[
    "routine.rs",
    "nearest.rs",
    "config/draft.rs",
    "environment.rs",
    "build/turns.rs",
    "traffic.rs",
    "watch/select.rs",
    "watch/claims.rs",
    "watch/debounce.rs",
    "watch/looks.rs",
    "watch/runtime.rs",
    "watch/secrets.rs",
    "watch/wanted.rs",
    "pipeline/queue.rs",
    "pipeline/schedule.rs",
    "revision/git/index.rs",
    "revision/mark.rs",
    "revision/rotation.rs",
    "revision/template.rs",
    "revision/protocol/mod.rs",
    "revision/protocol/knowledge.rs",
    "revision/protocol/knowledge/listing.rs",
    "revision/protocol/knowledge/requests.rs",
    "config/origin.rs",
    "environment.rs",
    "revision/protocol/staging.rs",
    "cloud/error.rs",
    "cloud/credentials/answer.rs",
    "cloud/credentials/document.rs",
    "cloud/credentials/looks.rs",
    "cloud/credentials/means.rs",
    "cloud/time.rs",
    "cloud/gate/bucket.rs",
    "cloud/gate/alone.rs",
    "cloud/sign/acs3.rs",
    "cloud/sign/mod.rs",
    "cloud/sign/rpc.rs",
    "report/class.rs",
    "report/frame.rs",
    "report/journal.rs",
    "report/json.rs",
    "report/live.rs",
    "report/logfmt.rs",
    "report/screen.rs",
    "report/standing.rs",
    "report/table.rs",
    "report/text.rs",
    "report/words.rs",
    "control/guard.rs",
    "control/metrics.rs",
    "control/status.rs",
    "emulator/world.rs",
    "emulator/acs3.rs",
    "emulator/action.rs",
    "emulator/actors.rs",
    "emulator/check.rs",
    "emulator/describe.rs",
    "emulator/fault.rs",
    "emulator/history.rs",
    "emulator/keys.rs",
    "emulator/lag.rs",
    "emulator/replay.rs",
    "emulator/switches.rs",
    "emulator/routines.rs",
    "emulator/staging.rs",
    "emulator/gateway.rs",
    "emulator/operations.rs",
    "emulator/form.rs",
    "emulator/storage.rs",
    "emulator/reply.rs",
    "emulator/signature.rs",
];

/// What a pure file may not name.
const WORLD: &[&str] = &[
    "tokio::",
    "notify::",
    "reqwest::",
    "std::fs",
    "std::env",
    "std::net",
    "fastrand",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "clock::now",
    "clock::asleep",
    "boot_id",
];

/// What each room may name of the crate, besides itself. `commands` and what starts it may name everything.
const ROOMS: &[(&str, &[&str])] = &[
    ("routine", &[]),
    ("nearest", &[]),
    ("clock", &[]),
    ("traffic", &["clock"]),
    ("environment", &[]),
    ("secrets", &[]),
    ("process", &["report", "secrets"]),
    ("config", &["routine", "nearest"]),
    ("watch", &["routine", "clock", "config"]),
    ("build", &["routine", "environment"]),
    (
        "pipeline",
        &["routine", "clock", "report", "revision", "build"],
    ),
    (
        "revision",
        &["routine", "nearest", "clock", "cloud", "config"],
    ),
    (
        "cloud",
        &[
            "routine",
            "clock",
            "config",
            "environment",
            "secrets",
            "traffic",
        ],
    ),
    ("report", &["routine"]),
    ("control", &["routine", "clock", "traffic", "report"]),
    ("state", &["routine", "clock", "config", "revision"]),
    ("emulator", &["routine"]),
];

fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = BTreeMap::new();
    let mut left: Vec<PathBuf> = vec![root.clone()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            sources.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    assert!(
        sources.len() > 30,
        "the sources are not where they are looked for"
    );
    sources
}

/// The code of a file without its tests and comments.
fn code(source: &str) -> impl Iterator<Item = &str> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/")
}

#[test]
fn every_file_says_first_what_its_job_is() {
    for (name, source) in sources() {
        assert!(source.starts_with("//! "), "{name} has no header");
    }
}

#[test]
fn pure_files_touch_nothing() {
    let sources = sources();
    for name in PURE {
        let source = sources
            .get(*name)
            .unwrap_or_else(|| panic!("{name} is listed as pure and not there"));
        for line in code(source) {
            let world = WORLD.iter().find(|world| line.contains(*world));
            assert!(world.is_none(), "{name} names {world:?}: {line}");
        }
    }
}

#[test]
fn a_room_names_only_what_lies_to_its_right() {
    for (name, source) in sources().iter().filter(|(name, _)| !is_test(name)) {
        let room = name.split(['/', '.']).next().unwrap();
        let Some((_, allowed)) = ROOMS.iter().find(|(other, _)| *other == room) else {
            continue;
        };
        for line in code(source) {
            for (_, rest) in line
                .match_indices("crate::")
                .map(|(at, _)| line.split_at(at + "crate::".len()))
            {
                let named = rest
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                assert!(
                    named == room || allowed.contains(&named),
                    "{name} names {named}: {line}"
                );
            }
        }
    }
}

#[test]
fn nothing_turns_the_check_of_certificates_off() {
    for (name, source) in sources().iter().filter(|(name, _)| !is_test(name)) {
        for line in code(source) {
            let off = [
                "danger_accept",
                "dangerous()",
                "NoCertificateVerification",
                "insecure",
            ]
            .iter()
            .any(|word| line.contains(word));
            assert!(!off, "{name}: {line}");
        }
    }
}

#[test]
fn nothing_is_written_past_the_report() {
    for (name, source) in sources().iter().filter(|(name, _)| !is_test(name)) {
        for line in code(source) {
            let written = ["println!", "print!(", "eprintln!", "eprint!("]
                .iter()
                .any(|w| line.contains(w));
            assert!(!written, "{name}: {line}");
        }
    }
}

#[test]
fn every_file_of_tests_is_part_of_the_one_program() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = std::fs::read_to_string(tests.join("main.rs")).unwrap();
    let modules: Vec<&str> = main
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    for entry in std::fs::read_dir(tests).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap_or(&name);
        let is_one = !["main", "snapshots"].contains(&module);
        assert!(!is_one || modules.contains(&module), "{name} never runs");
    }
}
