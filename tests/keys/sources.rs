//! Every place where a key may be, and what is refused.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use super::handed::{Given, ROLE, Server, command, home, write};
use crate::common::{Bed, Ended, QUICK, finish};

const HOUR: Duration = Duration::from_secs(3_600);

/// Pushes with these variables, with everything logged.
async fn push(bed: &Bed, variables: &[(&str, &str)]) -> Ended {
    let arguments = [&["push", "--timeout", "30s", "--log", "trace"], QUICK].concat();
    let mut command = command(bed, &arguments);
    command.envs(variables.iter().copied());
    finish(command).await
}

/// What keeps a push from its key.
#[track_caller]
fn refusal(ended: &Ended) -> &str {
    let Ended { stdout, stderr, .. } = ended;
    assert_eq!(ended.code, Some(77), "{stdout}{stderr}");
    stderr
}

#[tokio::test]
async fn a_key_is_found_in_every_place_and_shown_in_none() {
    crate::common::each(
        [
            ("systemd", "systemd credential"),
            ("environment", "environment"),
            ("AK", "profile work"),
            ("StsToken", "profile work"),
            ("External", "profile work"),
            ("RamRoleArn", "profile work"),
            ("CredentialsURI", "profile work"),
            ("EcsRamRole", "profile work"),
            ("access_key", "profile default"),
            ("sts", "profile default"),
            ("ram_role_arn", "profile default"),
            ("ecs_ram_role", "profile default"),
            ("metadata", "ECS role"),
            ("uri", "credentials URI"),
        ],
        async |(place, source)| {
            let bed = Bed::new(&["hello"]).await;
            let temporary = !matches!(place, "systemd" | "environment" | "AK" | "access_key");
            let key = if temporary {
                Given::ending(HOUR)
            } else {
                Given::lasting()
            };
            let key = key.let_into(&bed);
            let server = Server::start(&key).await;
            let (uri, keys) = (server.uri(), bed.path("keys").display().to_string());
            let cli = home(&bed).join(".aliyun/config.json");
            let ini = home(&bed).join(".alibabacloud/credentials");
            let mut variables = vec![
                ("ER_DEV_METADATA_ADDRESS", server.address.as_str()),
                ("ER_DEV_STS_ADDRESS", server.address.as_str()),
            ];
            match place {
                "systemd" => {
                    key.put(&bed);
                    variables.push(("CREDENTIALS_DIRECTORY", &keys));
                }
                "environment" => {
                    variables.push(("ALIBABA_CLOUD_ACCESS_KEY_ID", &key.id));
                    variables.push(("ALIBABA_CLOUD_ACCESS_KEY_SECRET", &key.secret));
                }
                "External" => {
                    let script = bed.path("print-key");
                    let answer = key.cli("StsToken", &[]);
                    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
                    let printed = answer["profiles"][0].to_string();
                    write(&script, &format!("#!/bin/sh\necho '{printed}'\n"), 0o700);
                    let script = script.display().to_string();
                    let other = Given::lasting();
                    write(
                        &cli,
                        &other.cli(place, &[("process_command", &script)]),
                        0o600,
                    );
                }
                "CredentialsURI" => {
                    let other = Given::lasting();
                    write(&cli, &other.cli(place, &[("credentials_uri", &uri)]), 0o600);
                }
                "RamRoleArn" => {
                    let role = [("ram_role_arn", ROLE)];
                    write(&cli, &Given::lasting().cli(place, &role), 0o600);
                }
                "EcsRamRole" => write(&cli, &Given::lasting().cli(place, &[]), 0o600),
                "AK" | "StsToken" => write(&cli, &key.cli(place, &[]), 0o600),
                "access_key" | "sts" => write(&ini, &key.ini(place), 0o600),
                "ecs_ram_role" | "ram_role_arn" => write(&ini, &Given::lasting().ini(place), 0o600),
                "metadata" => variables.push(("ALIBABA_CLOUD_ECS_METADATA", "role")),
                "uri" => variables.push(("ALIBABA_CLOUD_CREDENTIALS_URI", &uri)),
                other => panic!("{other}"),
            }
            let ended = push(&bed, &variables).await;
            bed.assert_there_once(place, &ended);
            key.assert_not_in(&ended.stdout);
            key.assert_not_in(&ended.stderr);
            let mut watch = Bed::follow({
                let mut command = command(&bed, &["watch", "--once"]);
                command.envs(variables);
                command
            });
            let started = watch.until("started").await;
            assert_eq!(started["source"], source, "{place}");
            assert_eq!(watch.exit().await, Some(0), "{place}");
        },
    )
    .await;
}

#[tokio::test]
async fn the_profile_is_the_configurations_then_the_environments_then_the_files_own() {
    let profile = |name: &str, key: &Given| {
        serde_json::json!({
            "name": name, "mode": "AK", "access_key_id": key.id, "access_key_secret": key.secret,
        })
    };
    for (configured, variable, expected) in [
        ("", None, "one"),
        ("", Some("two"), "two"),
        ("profile = \"three\"\n", Some("two"), "three"),
    ] {
        let bed = Bed::with(&["hello"], Default::default(), configured).await;
        let key = Given::lasting().let_into(&bed);
        let others = ["one", "two", "three"].map(|name| match name == expected {
            true => profile(name, &key),
            false => profile(name, &Given::lasting()),
        });
        let file = serde_json::json!({"current": "one", "profiles": others});
        let path = bed.path("elsewhere.json");
        write(&path, &file.to_string(), 0o600);
        let path = path.display().to_string();
        let mut variables = vec![("ALIBABA_CLOUD_CONFIG_FILE", path.as_str())];
        variables.extend(variable.map(|name| ("ALIBABA_CLOUD_PROFILE", name)));
        let ended = push(&bed, &variables).await;
        bed.assert_there_once(expected, &ended);
    }
}

#[tokio::test]
async fn a_profile_that_is_nowhere_is_named_and_no_other_key_is_taken() {
    let bed = Bed::with(&["hello"], Default::default(), "profile = \"gone\"\n").await;
    let key = Given::ending(HOUR).let_into(&bed);
    let server = Server::start(&key).await;
    let cli = home(&bed).join(".aliyun/config.json");
    write(&cli, &key.cli("StsToken", &[]), 0o600);
    let uri = server.uri();
    let ended = push(&bed, &[("ALIBABA_CLOUD_CREDENTIALS_URI", &uri)]).await;
    let told = refusal(&ended);
    assert!(told.contains("no profile `gone` in "), "{told}");
    assert!(told.contains("config.json or "), "{told}");
    key.assert_not_in(told);
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_mode_that_is_not_supported_is_named_and_no_later_place_is_tried() {
    let bed = Bed::new(&["hello"]).await;
    let key = Given::ending(HOUR).let_into(&bed);
    let cli = home(&bed).join(".aliyun/config.json");
    write(&cli, &key.cli("OAuth", &[]), 0o600);
    write(
        &home(&bed).join(".alibabacloud/credentials"),
        &key.ini("sts"),
        0o600,
    );
    let ended = push(&bed, &[]).await;
    let told = refusal(&ended);
    assert!(
        told.contains("profile `work` has the mode `OAuth`"),
        "{told}"
    );
    key.assert_not_in(told);
    // Its own switch turns the file off.
    let off = [("ALIBABA_CLOUD_CLI_PROFILE_DISABLED", "true")];
    bed.assert_there_once("off", &push(&bed, &off).await);
}

#[tokio::test]
async fn f03_a_file_of_the_vendor_that_is_no_private_file_is_refused_like_any_other() {
    for (file, text) in [
        (".aliyun/config.json", Given::lasting().cli("AK", &[])),
        (
            ".alibabacloud/credentials",
            Given::lasting().ini("access_key"),
        ),
    ] {
        let bed = Bed::new(&["hello"]).await;
        let path = home(&bed).join(file);
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        for open in [0o644, 0o604, 0o602, 0o666] {
            write(&path, &text, open);
            let ended = push(&bed, &[]).await;
            assert!(refusal(&ended).contains("is open to other users"), "{file}");
        }
        let dir = path.parent().unwrap();
        for open in [0o777, 0o770, 0o722, 0o702] {
            write(&path, &text, 0o600);
            std::fs::set_permissions(dir, mode(open)).unwrap();
            let ended = push(&bed, &[]).await;
            assert!(
                refusal(&ended).contains("can be written by other users"),
                "{file}"
            );
            assert!(refusal(&ended).contains("chmod go-w"), "{file}");
        }
        // Others may look into it, and put what they like beside it where they cannot touch the file.
        for closed in [0o755, 0o700, 0o1777] {
            std::fs::set_permissions(dir, mode(closed)).unwrap();
            let ended = push(&bed, &[]).await;
            assert!(
                !refusal(&ended).contains("other users"),
                "{file}: {}",
                ended.stderr
            );
        }
        std::fs::set_permissions(dir, mode(0o700)).unwrap();
        write(&path.with_extension("real"), &text, 0o600);
        std::fs::remove_file(&path).unwrap();
        symlink(path.with_extension("real"), &path).unwrap();
        assert!(refusal(&push(&bed, &[]).await).contains("not a regular file"));
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        assert!(refusal(&push(&bed, &[]).await).contains("not a regular file"));
        std::fs::remove_file(&path).unwrap();
        write(&path, &text, 0o600);
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            let ended = push(&bed, &[]).await;
            assert!(
                refusal(&ended).contains("belongs to another user"),
                "{file}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(refusal(&push(&bed, &[]).await).contains("not a regular file"));
        std::fs::remove_dir(&path).unwrap();
        let huge = std::fs::File::create(&path).unwrap();
        huge.set_permissions(mode(0o600)).unwrap();
        huge.set_len(1 << 30).unwrap();
        assert!(refusal(&push(&bed, &[]).await).contains("is larger than"));
    }
}

#[tokio::test]
async fn a_file_that_is_named_and_not_there_is_an_error() {
    let bed = Bed::new(&["hello"]).await;
    for variable in [
        "ALIBABA_CLOUD_CONFIG_FILE",
        "ALIBABA_CLOUD_CREDENTIALS_FILE",
    ] {
        let ended = push(&bed, &[(variable, "/nonexistent/key")]).await;
        let told = refusal(&ended);
        assert!(told.contains(&format!("{variable} names it")), "{told}");
    }
}

#[tokio::test]
async fn the_metadata_is_asked_only_where_that_is_asked_for_and_not_switched_off() {
    let bed = Bed::new(&["hello"]).await;
    let key = Given::ending(HOUR).let_into(&bed);
    let server = Server::start(&key).await;
    let address = ("ER_DEV_METADATA_ADDRESS", server.address.as_str());
    let role = ("ALIBABA_CLOUD_ECS_METADATA", "role");
    let off = ("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true");
    refusal(&push(&bed, &[address]).await);
    refusal(&push(&bed, &[address, role, off]).await);
    let cli = home(&bed).join(".aliyun/config.json");
    write(&cli, &key.cli("EcsRamRole", &[]), 0o600);
    let ended = push(&bed, &[address, off]).await;
    let told = refusal(&ended);
    assert!(
        told.contains("ALIBABA_CLOUD_ECS_METADATA_DISABLED"),
        "{told}"
    );
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn the_address_of_the_metadata_can_be_moved_to_this_machine_only() {
    let bed = Bed::new(&["hello"]).await;
    for address in ["192.0.2.1:80", "example.org:80", "127.0.0.1.example.org:80"] {
        let variables = [
            ("ALIBABA_CLOUD_ECS_METADATA", "role"),
            ("ER_DEV_METADATA_ADDRESS", address),
        ];
        let ended = push(&bed, &variables).await;
        assert!(refusal(&ended).contains("not on this machine"), "{address}");
    }
}

#[tokio::test]
async fn a_server_that_gives_no_key_is_told_without_what_it_said() {
    let bed = Bed::new(&["hello"]).await;
    let mut key = Given::ending(HOUR);
    let server = Server::start(&key).await;
    let uri = server.uri();
    let variables = [("ALIBABA_CLOUD_CREDENTIALS_URI", uri.as_str())];
    key.token = None;
    server.hand_out(&key);
    let ended = push(&bed, &variables).await;
    assert!(
        refusal(&ended).contains("`SecurityToken`"),
        "{}",
        ended.stderr
    );
    key.assert_not_in(&ended.stderr);
    server.fail();
    let ended = push(&bed, &variables).await;
    assert!(refusal(&ended).contains("HTTP 503"), "{}", ended.stderr);
    drop(server);
    let ended = push(&bed, &variables).await;
    assert!(
        refusal(&ended).contains("no connection"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn f09_a_command_that_prints_a_key_gets_no_secret_and_can_be_forbidden() {
    let bed = Bed::new(&["hello"]).await;
    let key = Given::lasting().let_into(&bed);
    let (script, seen) = (bed.path("print-key"), bed.path("seen"));
    let text = format!(
        "#!/bin/sh\nenv > '{}'\necho '{{\"access_key_id\":\"{}\",\"access_key_secret\":\"{}\"}}'\n",
        seen.display(),
        key.id,
        key.secret
    );
    write(&script, &text, 0o700);
    let process = script.display().to_string();
    let cli = home(&bed).join(".aliyun/config.json");
    let profile = Given::lasting().cli("External", &[("process_command", &process)]);
    write(&cli, &profile, 0o600);
    let canary = format!("canary-{:032x}", fastrand::u128(..));
    let path = std::env::var("PATH").unwrap();
    let proxy = format!("http://me:{canary}@127.0.0.1:9");
    let mut variables = vec![
        ("PATH", path.as_str()),
        ("LANG", "C"),
        ("ALIBABA_CLOUD_SECURITY_TOKEN", canary.as_str()),
        ("SOME_SECRET", canary.as_str()),
        ("HTTPS_PROXY", proxy.as_str()),
        ("https_proxy", proxy.as_str()),
    ];
    bed.assert_there_once("External", &push(&bed, &variables).await);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(!seen.contains(&canary), "{seen}");
    // The shell itself adds the last three.
    for line in seen.lines() {
        let name = line.split('=').next().unwrap();
        let known = ["PATH", "HOME", "LANG", "PWD", "SHLVL", "_"];
        assert!(known.contains(&name), "{line}");
    }
    variables.push(("ALIBABA_CLOUD_DISABLE_EXTERNAL_PROCESS", "1"));
    let ended = push(&bed, &variables).await;
    let told = refusal(&ended);
    assert!(
        told.contains("ALIBABA_CLOUD_DISABLE_EXTERNAL_PROCESS"),
        "{told}"
    );
    for (script, expected) in [
        ("exit 3", "failed"),
        ("echo no key", "no JSON object"),
        ("head -c 100000 /dev/zero", "more than any key"),
    ] {
        let text = format!("#!/bin/sh\necho {canary} >&2\n{script}\n");
        write(&bed.path("print-key"), &text, 0o700);
        let ended = push(&bed, &[("PATH", path.as_str())]).await;
        let told = refusal(&ended);
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains(&canary), "{told}");
    }
}
