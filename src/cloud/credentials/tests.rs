//! The promises about keys: where they are found, what is refused, and that nothing shows them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use secrecy::ExposeSecret as _;

use crate::cloud::Authorities;

use super::keys::Keys;
use super::place::VARIABLES;
use super::*;

const SECRET: &str = "testsecret-canary";

/// A text that looks like a real id; made here, so that none stands in the tree.
fn real_id() -> String {
    format!("{}{}", "LTAI", "5tAbCdEfGh1234567Qx2")
}

fn find(variables: &[(&str, &str)]) -> Result<Credentials, CredentialsError> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables: HashMap<String, String> = variables.iter().map(own).collect();
    let env = move |name: &str| variables.get(name).cloned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let keys = runtime.block_on(Keys::find(
        Arc::new(env),
        None,
        false,
        Authorities::default(),
    ))?;
    Ok(keys.present().credentials.clone())
}

fn in_directory(files: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    let path = dir.path().display().to_string();
    (dir, path)
}

fn secrets(found: &Credentials) -> (&str, &str, Option<&str>) {
    let token = found.token().map(|token| token.expose_secret());
    (&found.id, found.secret().expose_secret(), token)
}

#[test]
fn the_first_place_that_has_a_key_wins() {
    let (_dir, path) = in_directory(&[
        ("access_key_id", "file-id\n"),
        ("access_key_secret", "file-secret\r\n"),
        ("security_token", "file-token"),
    ]);
    let all = [
        ("CREDENTIALS_DIRECTORY", path.as_str()),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "a-id"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "a-secret"),
        ("ALIBABA_CLOUD_SECURITY_TOKEN", "a-token"),
        ("ALICLOUD_ACCESS_KEY_ID", "b-id"),
        ("ALICLOUD_ACCESS_KEY_SECRET", "b-secret"),
        ("ALICLOUD_ACCESS_KEY", "c-id"),
        ("ALICLOUD_SECRET_KEY", "c-secret"),
    ];
    for (skipped, source, expected) in [
        (
            0,
            Source::SystemdCredential,
            ("file-id", "file-secret", Some("file-token")),
        ),
        (
            1,
            Source::Environment("ALIBABA_CLOUD"),
            ("a-id", "a-secret", Some("a-token")),
        ),
        (
            4,
            Source::Environment("ALICLOUD"),
            ("b-id", "b-secret", None),
        ),
        (
            6,
            Source::Environment("ALICLOUD"),
            ("c-id", "c-secret", None),
        ),
    ] {
        let found = find(&all[skipped..]).unwrap();
        assert_eq!(secrets(&found), expected);
        assert_eq!(found.source, source);
    }
}

#[test]
fn a_credential_directory_without_our_files_is_passed_by() {
    let (_dir, path) = in_directory(&[("tls.key", "x"), ("security_token", "stray")]);
    let found = find(&[
        ("CREDENTIALS_DIRECTORY", &path),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "a-id"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "a-secret"),
    ])
    .unwrap();
    assert_eq!(secrets(&found), ("a-id", "a-secret", None));
    assert!(
        find(&[
            ("CREDENTIALS_DIRECTORY", "/nonexistent"),
            ("ALICLOUD_ACCESS_KEY", "c-id"),
            ("ALICLOUD_SECRET_KEY", "c-secret"),
        ])
        .is_ok()
    );
}

#[test]
fn half_a_pair_names_the_other_half_and_no_later_place_is_tried() {
    let later = [
        ("ALICLOUD_ACCESS_KEY", "c-id"),
        ("ALICLOUD_SECRET_KEY", SECRET),
    ];
    for (present, missing) in [
        (
            "ALIBABA_CLOUD_ACCESS_KEY_ID",
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        ),
        (
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
            "ALIBABA_CLOUD_ACCESS_KEY_ID",
        ),
        ("ALICLOUD_ACCESS_KEY_ID", "ALICLOUD_ACCESS_KEY_SECRET"),
    ] {
        let variables = [&[(present, SECRET), (missing, "")], &later[..]].concat();
        let error = find(&variables).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{present} is set but {missing} is not; set both or neither")
        );
    }
    let (_dir, path) = in_directory(&[("access_key_id", "id"), ("access_key_secret", "\n")]);
    let variables = [&[("CREDENTIALS_DIRECTORY", path.as_str())], &later[..]].concat();
    let error = find(&variables).unwrap_err().to_string();
    assert!(
        error.contains(&format!("{path}/access_key_secret is not")),
        "{error}"
    );
}

#[test]
fn without_any_key_every_place_is_named_and_the_emulator_too() {
    let error = find(&[("ALIBABA_CLOUD_SECURITY_TOKEN", "stray")]).unwrap_err();
    assert!(matches!(error, CredentialsError::NotFound));
    let error = error.to_string();
    for names in &VARIABLES {
        assert!(
            error.contains(names.id) && error.contains(names.secret),
            "{error}"
        );
    }
    for place in [
        "ALIBABA_CLOUD_SECURITY_TOKEN",
        "LoadCredential=access_key_id:",
        "LoadCredential=access_key_secret:",
        "er-dev watch --emulator",
    ] {
        assert!(error.contains(place), "{place}: {error}");
    }
}

#[test]
fn a_value_no_key_can_have_is_refused_by_the_name_of_its_place() {
    for odd in [
        "testsecret x",
        "testsecret\n",
        " testsecret",
        "test\u{7}secret",
        "test\u{201c}secret",
    ] {
        for name in [
            "ALIBABA_CLOUD_ACCESS_KEY_ID",
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
            "ALIBABA_CLOUD_SECURITY_TOKEN",
        ] {
            let error = find(&[
                (
                    "ALIBABA_CLOUD_ACCESS_KEY_ID",
                    if name.ends_with("_ID") { odd } else { "id" },
                ),
                (
                    "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
                    if name.ends_with("_SECRET") { odd } else { "s" },
                ),
                (
                    "ALIBABA_CLOUD_SECURITY_TOKEN",
                    if name.ends_with("_TOKEN") { odd } else { "t" },
                ),
            ])
            .unwrap_err()
            .to_string();
            assert!(
                error.starts_with(&format!("{name} holds ")),
                "{odd:?}: {error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }
    let (_dir, path) = in_directory(&[("access_key_id", "id\n\n"), ("access_key_secret", "s")]);
    let error = find(&[("CREDENTIALS_DIRECTORY", &path)]).unwrap_err();
    assert!(
        error.to_string().contains("access_key_id holds "),
        "{error}"
    );
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let (dir, path) = in_directory(&[("access_key_id", "id"), ("access_key_secret", SECRET)]);
    let file = dir.path().join("access_key_secret");
    for mode in [0o644, 0o404, 0o604, 0o460, 0o402, 0o777] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let error = find(&[("CREDENTIALS_DIRECTORY", &path)])
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("(mode {mode:04o})")), "{error}");
        assert!(
            error.contains("access_key_secret") && !error.contains(SECRET),
            "{error}"
        );
    }
    for mode in [0o400, 0o600] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert!(find(&[("CREDENTIALS_DIRECTORY", &path)]).is_ok());
    }
}

#[test]
fn only_a_regular_file_of_a_sensible_size_is_read() {
    let (dir, path) = in_directory(&[("access_key_secret", SECRET)]);
    let id = dir.path().join("access_key_id");
    let error = || find(&[("CREDENTIALS_DIRECTORY", &path)]).unwrap_err();

    symlink(dir.path().join("access_key_secret"), &id).unwrap();
    assert!(matches!(error(), CredentialsError::NotAFile(_)));
    fs::remove_file(&id).unwrap();

    rustix::fs::mkfifoat(rustix::fs::CWD, &id, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    assert!(matches!(error(), CredentialsError::NotAFile(_)));
    fs::remove_file(&id).unwrap();

    let socket = std::os::unix::net::UnixListener::bind(&id).unwrap();
    assert!(matches!(error(), CredentialsError::NotAFile(_)));
    drop(socket);
    fs::remove_file(&id).unwrap();

    fs::create_dir(&id).unwrap();
    assert!(matches!(error(), CredentialsError::NotAFile(_)));
    fs::remove_dir(&id).unwrap();

    let file = fs::File::create(&id).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    file.set_len(1 << 30).unwrap();
    assert!(matches!(error(), CredentialsError::TooLarge(_)));

    fs::write(&id, b"\xff").unwrap();
    assert!(matches!(error(), CredentialsError::Unreadable { .. }));
}

#[test]
fn a_key_of_the_cloud_is_refused_at_an_endpoint_on_this_machine() {
    let with = |id: &str| Credentials {
        id: id.to_owned(),
        ..Credentials::emulator()
    };
    for id in [real_id(), "STS.Nabcdefgh12345678".to_owned()] {
        let key = with(&id);
        assert!(key.check_endpoint(false).is_ok());
        let error = key.check_endpoint(true).unwrap_err().to_string();
        assert!(
            !error.contains(&id) && error.contains(&key.shown_id()),
            "{error}"
        );
    }
    assert!(Credentials::emulator().check_endpoint(true).is_ok());
    assert!(with("testid").check_endpoint(true).is_ok());
}

#[test]
fn nothing_shows_a_secret_or_a_whole_id() {
    let id = real_id();
    let key = find(&[
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", &id),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", SECRET),
        ("ALIBABA_CLOUD_SECURITY_TOKEN", "testtoken-canary"),
    ])
    .unwrap();
    let shown = format!(
        "{key:?} {key:#?} {} {:?} {:?}",
        key.source,
        key.secret(),
        key.token()
    );
    assert!(!shown.contains("canary") && !shown.contains(&id), "{shown}");
    assert_eq!(key.shown_id(), "LTAI...7Qx2");
    for (id, expected) in [
        ("123456789012", "****"),
        ("1234567890123", "1234...0123"),
        ("", "****"),
    ] {
        let short = Credentials {
            id: id.to_owned(),
            ..Credentials::emulator()
        };
        assert_eq!(short.shown_id(), expected);
    }
}

#[tokio::test]
async fn of_many_who_notice_that_a_file_has_changed_one_asks() {
    let dir = tempfile::tempdir().unwrap();
    let (file, script, asked) = (
        dir.path().join("config.json"),
        dir.path().join("print"),
        dir.path().join("asked"),
    );
    let text = format!(
        "#!/bin/sh\necho x >> '{}'\necho '{{\"access_key_id\":\"id\",\"access_key_secret\":\"{SECRET}\"}}'\n",
        asked.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let touch = |word: &str| {
        let profile = serde_json::json!({
            "name": word, "mode": "External", "process_command": script.display().to_string(),
        });
        let config = serde_json::json!({"current": word, "profiles": [profile]});
        let new = dir.path().join("new");
        fs::write(&new, config.to_string()).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    touch("one");
    let path = file.display().to_string();
    let env = move |name: &str| (name == "ALIBABA_CLOUD_CONFIG_FILE").then(|| path.clone());
    let keys = Arc::new(
        Keys::find(Arc::new(env), None, true, Authorities::default())
            .await
            .unwrap(),
    );
    for round in 2..20 {
        touch(&format!("round{round}"));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let keys = Arc::clone(&keys);
            callers.spawn(async move { keys.refresh().await });
        }
        callers.join_all().await;
        assert_eq!(fs::read_to_string(&asked).unwrap().lines().count(), round);
    }
    // It is the same key each time.
    assert_eq!(keys.present().number, 0);
}
