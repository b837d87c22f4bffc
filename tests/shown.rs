//! `er-dev config show`: what is in force, and where each value is from.

use serde_json::Value;

use crate::common::{Bed, Ended, finish};

const MORE: &str = "signature = \"acs3-hmac-sha256\"\n[limits]\nburst = 3\n[watch]\nignore = [\n  \"*.map\",\n  'a \"b\"',\n]\n";

#[track_caller]
fn object(ended: &Ended) -> Value {
    let Ended { stdout, stderr, .. } = ended;
    assert_eq!(ended.code, Some(0), "{stdout}{stderr}");
    serde_json::from_str(stdout).unwrap()
}

#[track_caller]
fn find<'a>(object: &'a Value, list: &str, fields: &[(&str, &str)]) -> &'a Value {
    let is_it = |one: &&Value| fields.iter().all(|(name, value)| one[name] == *value);
    let list = object[list].as_array().unwrap();
    list.iter()
        .find(is_it)
        .unwrap_or_else(|| panic!("{fields:?}: {object:#}"))
}

#[tokio::test]
async fn what_is_printed_is_a_file_that_means_the_same() {
    let bed = Bed::with(&["hello", "other"], Default::default(), MORE).await;
    let values = |object: &Value| {
        let settings = object["settings"].as_array().unwrap();
        let value = |it: &Value| {
            (
                it["table"].clone(),
                it["index"].clone(),
                it["key"].clone(),
                it["value"].clone(),
            )
        };
        settings.iter().map(value).collect::<Vec<_>>()
    };
    let first = object(&bed.run(&["config", "show", "--json"]).await);
    for arguments in [&["config", "show"][..], &["config", "show", "--origin"]] {
        let mut command = bed.command(arguments);
        command.env("ER_DEV_FORMAT", "text");
        let ended = finish(command).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        std::fs::write(bed.path("again.toml"), &ended.stdout).unwrap();
        let again = ["config", "show", "--json", "--config", "again.toml"];
        assert_eq!(values(&object(&bed.run(&again).await)), values(&first));
    }
}

#[tokio::test]
async fn every_value_has_its_origin() {
    let bed = Bed::with(&["hello"], Default::default(), MORE).await;
    let mut command = bed.command(&["config", "show", "--lock-wait", "7s", "--origin"]);
    command.env("ER_DEV_FORMAT", "text");
    let Ended { stdout, .. } = finish(command).await;
    let line = |begin: &str| {
        let found = stdout.lines().find(|line| line.starts_with(begin));
        let words = found
            .unwrap_or_else(|| panic!("{begin}: {stdout}"))
            .split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        line("signature"),
        "signature = \"acs3-hmac-sha256\" # er-dev.toml:3"
    );
    assert_eq!(line("burst"), "burst = 3 # er-dev.toml:5");
    assert_eq!(
        line("ignore"),
        "ignore = [\"*.map\", \"a \\\"b\\\"\"] # er-dev.toml:7"
    );
    assert_eq!(line("debounce"), "debounce = \"100ms\" # default");
    assert!(
        line("name").starts_with("name = \"hello\" # er-dev.toml:"),
        "{stdout}"
    );
    assert_eq!(line("# --lock-wait"), "# --lock-wait 7s flag --lock-wait");
    assert_eq!(
        line("# --format"),
        "# --format text environment ER_DEV_FORMAT"
    );
    assert_eq!(line("# --log"), "# --log warn default");
    let mut command = bed.command(&["config", "show"]);
    command.env("ER_DEV_FORMAT", "text");
    let plain = finish(command).await.stdout;
    assert!(plain.contains("debounce = \"100ms\"\n"), "{plain}");
    assert!(plain.contains("# er-dev.toml:5\n"), "{plain}");
}

#[tokio::test]
async fn it_says_which_key_would_sign_why_no_other_one_and_when_it_ends() {
    let bed = Bed::new(&["hello"]).await;
    let canary = |name: &str| format!("{name}-{:032x}", fastrand::u128(..));
    let (id, secret, token) = (canary("id"), canary("secret"), canary("token"));
    let ends = jiff::Timestamp::now() + std::time::Duration::from_secs(2_700);
    let script = bed.path("print-key");
    let printed = serde_json::json!({
        "mode": "StsToken", "access_key_id": id, "access_key_secret": secret, "sts_token": token,
        "expiration": ends.to_string(),
    });
    std::fs::write(&script, format!("#!/bin/sh\necho '{printed}'\n")).unwrap();
    let config = serde_json::json!({"current": "work", "profiles": [
        {"name": "work", "mode": "External", "process_command": format!("sh {}", script.display())},
    ]});
    let file = bed.path("home/.aliyun/config.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, config.to_string()).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let show = |format: &'static str| {
        let mut command = bed.command(&["config", "show", "--log", "trace"]);
        command
            .env_remove("ALIBABA_CLOUD_ACCESS_KEY_ID")
            .env_remove("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", bed.path("home"))
            .env("ER_DEV_FORMAT", format);
        finish(command)
    };
    let ended = show("json").await;
    let shown = object(&ended);
    assert_eq!(shown["key"]["kind"], "temporary key", "{shown:#}");
    assert_eq!(shown["key"]["source"], "profile work");
    assert_eq!(shown["key"]["ends"], ends.to_string());
    let won = find(&shown, "places", &[("place", &file.display().to_string())]);
    assert_eq!(won["won"], true);
    let before = find(&shown, "places", &[("place", "environment")]);
    assert!(
        before["why"].as_str().unwrap().contains("is set"),
        "{before}"
    );
    let later = find(&shown, "places", &[("place", "credentials URI")]);
    assert_eq!(later["won"], false);
    let text = show("text").await;
    let words = "# temporary key id-";
    assert!(
        text.stdout.contains(words) && text.stdout.contains("ends in 4"),
        "{}",
        text.stdout
    );
    for told in [&ended.stdout, &ended.stderr, &text.stdout, &text.stderr] {
        for part in [&id, &secret, &token] {
            assert!(!told.contains(part.as_str()), "{told}");
        }
    }
}

#[tokio::test]
async fn every_key_of_the_example_is_shown() {
    let bed = Bed::new(&["hello"]).await;
    let shown = object(&bed.run(&["config", "show"]).await);
    let example = include_str!("../config.example.toml");
    let example: toml::Table = example.parse().unwrap();
    for (table, keys) in &example {
        let keys = keys
            .as_table()
            .unwrap_or_else(|| keys[0].as_table().unwrap());
        for key in keys.keys() {
            find(&shown, "settings", &[("table", table), ("key", key)]);
        }
    }
}
