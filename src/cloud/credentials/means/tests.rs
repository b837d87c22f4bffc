//! The promises about what files say: every mode and type, and that nothing of a value is ever repeated.

use super::*;

/// A text that must appear nowhere, made here so that none stands in the tree.
fn canary(name: &str) -> String {
    format!("{name}-{:016x}", fastrand::u64(..))
}

/// A profile of this mode with every field that any mode has, and the values that must not be shown.
fn profile(mode: &str) -> (Value, Vec<String>) {
    let secrets: Vec<String> = ["id", "secret", "token", "refresh", "private"]
        .map(canary)
        .into();
    let profile = serde_json::json!({
        "name": "work",
        "mode": mode,
        "access_key_id": secrets[0],
        "access_key_secret": secrets[1],
        "sts_token": secrets[2],
        "oauth_refresh_token": secrets[3],
        "private_key": secrets[4],
        "ram_role_name": "role",
        "ram_role_arn": "acs:ram::1:role/r",
        "process_command": "get-key --now",
        "credentials_uri": "http://127.0.0.1/key",
        "region_id": "cn-hangzhou",
    });
    (profile, secrets)
}

fn file(profiles: &[Value]) -> String {
    serde_json::json!({"current": "work", "profiles": profiles, "meta_path": ""}).to_string()
}

/// What a profile of this mode says, by the wanted name.
fn of(mode: &str) -> (Result<Found, String>, Vec<String>) {
    let (profile, secrets) = profile(mode);
    (of_cli(&file(&[profile]), None), secrets)
}

fn assert_hidden(error: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(!error.contains(secret), "{error}");
    }
}

#[test]
fn each_mode_that_is_supported_says_where_its_key_comes_from() {
    let means = |mode: &str| {
        let (found, secrets) = of(mode);
        let (name, means) = found.unwrap().unwrap();
        assert_eq!(name, "work");
        (means, secrets)
    };
    let pair = |mode: &str| {
        let (means, secrets) = means(mode);
        let Means::Pair(pair) = means else {
            panic!("{mode}")
        };
        assert!(pair.id.1.as_deref() == Some(&secrets[0]));
        assert!(pair.secret.1.as_deref() == Some(&secrets[1]));
        (pair.token.1, secrets)
    };
    assert!(pair("AK").0.is_none(), "a token of another mode is no part");
    let (token, secrets) = pair("StsToken");
    assert!(token.as_deref() == Some(&secrets[2]));
    assert!(pair("ak").0.is_none() && pair("STSTOKEN").0.is_some());
    let Means::Assumed(pair, role) = means("RamRoleArn").0 else {
        panic!()
    };
    assert!(pair.id.1.is_some() && pair.secret.1.is_some() && pair.token.1.is_some());
    assert_eq!(role.arn, "acs:ram::1:role/r");
    assert_eq!((role.session, role.seconds), (None, None));
    assert!(means("External").0 == Means::Command("get-key --now".into()));
    assert!(means("CredentialsURI").0 == Means::Uri("http://127.0.0.1/key".into()));
    assert!(means("EcsRamRole").0 == Means::Role(Some("role".into())));
}

#[test]
fn every_other_mode_is_named_as_not_supported_with_the_way_out() {
    for mode in [
        "ChainableRamRoleArn",
        "RamRoleArnWithEcs",
        "RsaKeyPair",
        "OIDC",
        "CloudSSO",
        "OAuth",
        "and",
        "nonsense\u{1b}[31m",
    ] {
        let (found, secrets) = of(mode);
        let error = found.err().unwrap();
        let shown: String = mode.chars().filter(|c| !c.is_control()).take(8).collect();
        assert!(error.contains(&shown[..2]), "{error}");
        for words in [
            "does not support",
            "RamRoleArn, External, ",
            "service.profile",
        ] {
            assert!(error.contains(words), "{mode}: {error}");
        }
        assert!(!error.chars().any(char::is_control), "{error:?}");
        assert_hidden(&error, &secrets);
    }
}

#[test]
fn a_field_that_a_mode_needs_and_that_is_not_there_is_named() {
    for (mode, fields) in [
        ("AK", &["access_key_id", "access_key_secret"][..]),
        (
            "StsToken",
            &["access_key_id", "access_key_secret", "sts_token"],
        ),
        (
            "RamRoleArn",
            &["access_key_id", "access_key_secret", "ram_role_arn"],
        ),
        ("External", &["process_command"]),
        ("CredentialsURI", &["credentials_uri"]),
    ] {
        for field in fields {
            for wrong in [Value::from(""), Value::Null, Value::from(7)] {
                let (mut profile, secrets) = profile(mode);
                profile[field] = wrong;
                let error = of_cli(&file(&[profile]), Some("work")).err().unwrap();
                let named = format!("profile `work` of mode {mode} has no `{field}`");
                assert_eq!(error, named);
                assert_hidden(&error, &secrets);
            }
        }
    }
}

#[test]
fn the_wanted_profile_is_taken_before_the_current_one_and_a_missing_one_is_no_other() {
    let (work, _) = profile("AK");
    let mut other = profile("External").0;
    other["name"] = "other".into();
    let text = file(&[work, other]);
    let name = |wanted| of_cli(&text, wanted).unwrap().map(|(name, _)| name);
    assert_eq!(name(None).as_deref(), Some("work"));
    assert_eq!(name(Some("other")).as_deref(), Some("other"));
    assert_eq!(name(Some("third")), None);
    let text = text.replace("\"current\":\"work\"", "\"current\":\"gone\"");
    let error = of_cli(&text, None).err().unwrap();
    assert!(error.contains("`gone`"), "{error}");
}

#[test]
fn a_file_that_was_never_filled_in_is_passed_by() {
    let mut empty = profile("AK").0;
    for field in ["access_key_id", "access_key_secret"] {
        empty[field] = "".into();
    }
    assert!(of_cli(&file(&[empty]), None).unwrap().is_none());
    for text in ["{}", "{\"profiles\":[]}", "{\"profiles\":null}", "[]", "7"] {
        assert!(of_cli(text, None).unwrap().is_none(), "{text}");
    }
}

#[test]
fn what_is_no_json_is_told_by_its_place_alone() {
    let secret = canary("secret");
    for text in [
        String::new(),
        format!("{{\"access_key_secret\": {secret}}}"),
        format!("{{\"access_key_secret\": \"{secret}\n"),
        format!("[default]\naccess_key_secret = {secret}"),
    ] {
        let error = of_cli(&text, None).err().unwrap();
        assert!(error.starts_with("line "), "{error}");
        assert!(!error.contains(&secret), "{error}");
    }
}

/// An INI file with a section of this type, and the values that must not be shown.
fn ini(kind: &str) -> (String, [String; 3]) {
    let secrets = ["id", "secret", "token"].map(canary);
    let text = format!(
        "\u{feff}# a comment\n; another\n\n[other]\ntype = sts\n\n[ default ]\nenable = true\n\
         type = {kind}\naccess_key_id = {}\naccess_key_secret=\"{}\"\r\n  security_token = '{}' \n\
         role_name = role\nrole_arn = acs:ram::1:role/r\n[last]\naccess_key_id = none\n",
        secrets[0], secrets[1], secrets[2]
    );
    (text, secrets)
}

#[test]
fn each_type_of_section_that_is_supported_says_where_its_key_comes_from() {
    for (kind, has_token) in [("access_key", false), ("sts", true)] {
        let (text, secrets) = ini(kind);
        let Some((name, Means::Pair(pair))) = of_ini(&text, None).unwrap() else {
            panic!("{kind}")
        };
        assert_eq!(name, "default");
        assert!(pair.id.1.as_deref() == Some(&secrets[0]));
        assert!(pair.secret.1.as_deref() == Some(&secrets[1]));
        assert!(pair.token.1.as_deref() == has_token.then_some(&secrets[2]));
    }
    let (text, secrets) = ini("ram_role_arn");
    let Means::Assumed(pair, role) = of_ini(&text, None).unwrap().unwrap().1 else {
        panic!()
    };
    assert!(pair.id.1.as_deref() == Some(&secrets[0]) && pair.token.1.is_none());
    assert_eq!(role.arn, "acs:ram::1:role/r");
    let error = of_ini(&text.replace("role_arn = acs", "x = acs"), None).err();
    assert!(error.unwrap().contains("has no `role_arn`"));
    let (text, _) = ini("ecs_ram_role");
    let role = of_ini(&text, None).unwrap().unwrap().1;
    assert!(role == Means::Role(Some("role".into())));
}

#[test]
fn every_other_type_is_named_as_not_supported_with_the_way_out() {
    for kind in ["oidc_role_arn", "rsa_key_pair", "bearer"] {
        let (text, secrets) = ini(kind);
        let error = of_ini(&text, None).err().unwrap();
        for words in [
            kind,
            "does not support",
            "sts, ram_role_arn",
            "section [default]",
        ] {
            assert!(error.contains(words), "{kind}: {error}");
        }
        assert_hidden(&error, &secrets);
    }
}

#[test]
fn a_section_that_is_missing_or_switched_off_is_passed_by_and_half_a_one_is_not() {
    let (text, secrets) = ini("sts");
    assert!(of_ini(&text, Some("third")).unwrap().is_none());
    assert!(of_ini("", None).unwrap().is_none());
    let off = text.replace("enable = true", "enable = false");
    assert!(of_ini(&off, None).unwrap().is_none());
    for (key, value) in [
        ("access_key_id = ", &secrets[0]),
        ("access_key_secret=", &format!("\"{}\"", secrets[1])),
        ("security_token = ", &format!("'{}'", secrets[2])),
    ] {
        let half = text.replace(&format!("{key}{value}"), key);
        let error = of_ini(&half, None).err().unwrap();
        let field = key.trim_end_matches(['=', ' ']);
        assert!(error.contains(&format!("has no `{field}`")), "{error}");
        assert_hidden(&error, &secrets);
    }
    let error = of_ini("[default]\naccess_key_id = x\n", None).err();
    assert!(error.unwrap().contains("has no `type`"));
}

#[test]
fn a_line_that_is_none_is_told_by_its_number_alone() {
    let secret = canary("secret");
    for text in [
        format!("[default]\naccess_key_secret {secret}\n"),
        format!("[default\n{secret} = 1\n"),
        format!("{{\"{secret}\": 1}}"),
    ] {
        let error = of_ini(&text, None).err().unwrap();
        assert!(error.starts_with("line "), "{error}");
        assert!(!error.contains(&secret), "{error}");
    }
}
