//! What a project must not decide: its configuration names no key and no place that is the user's to name. And a key of
//! the cloud is never sent to this machine.

use crate::common::{Bed, Ended};

/// What looks like the id of a key of the cloud, put together here so that none stands in the tree.
fn key_id() -> String {
    format!("LTA{}5t{:016x}", "I", fastrand::u64(..))
}

#[tokio::test]
async fn f02_a_project_decides_nothing_that_is_its_users_to_decide() {
    let bed = Bed::new(&["hello"]).await;
    let id = &key_id();
    let routine = "[[routine]]\nname = \"hello\"\nentry = \"src/hello.js\"\n";
    for (text, named) in [
        ("access_key_id = 'x'", "`access_key_id`"),
        ("[service]\naccess_key_secret = 'x'", "`access_key_secret`"),
        ("[service]\nsecurity-token = 'x'", "`security-token`"),
        ("[service]\npassword = 'x'", "`password`"),
        ("ca_file = 'x'", "--ca-file"),
        ("[service]\nca_file = 'x'", "--ca-file"),
        ("state_dir = 'x'", "--state-dir"),
        ("allow_endpoint = ['x']", "--allow-endpoint"),
        ("allow_secrets = true", "--allow-secrets"),
        ("proxy = 'http://x'", "HTTPS_PROXY"),
        ("[service]\nhttps_proxy = 'http://x'", "HTTPS_PROXY"),
        ("[service]\nendpoint = 'http://dcdn.aliyuncs.com'", "https"),
        (
            "[service]\nendpoint = 'https://dcdn.example.com'",
            "--allow-endpoint",
        ),
        (
            "[service]\nendpoint = 'https://x.oss-cn-hangzhou.aliyuncs.com'",
            "--allow-endpoint",
        ),
        (
            "[service]\nendpoint = 'https://ecs.aliyuncs.com'",
            "--allow-endpoint",
        ),
        (
            "[service]\nendpoint = 'https://169.254.169.254'",
            "--allow-endpoint",
        ),
        (
            "[service]\nendpoint = 'https://me:word@dcdn.aliyuncs.com'",
            "a user or a password",
        ),
        ("[service]\nverify_tls = false", "unknown key `verify_tls`"),
        (
            format!("[service]\nprofile = '{id}'").as_str(),
            "access key id",
        ),
    ] {
        std::fs::write(bed.path("er-dev.toml"), format!("{text}\n{routine}")).unwrap();
        let ended = bed.run(&["push"]).await;
        let Ended { stdout, stderr, .. } = &ended;
        assert_eq!(ended.code, Some(78), "{text}: {stdout}{stderr}");
        assert!(stderr.contains(named), "{text}: {stderr}");
        assert!(!stderr.contains(id.as_str()), "{text}");
    }
    assert_eq!(bed.history().len(), 0);
}

#[tokio::test]
async fn f10_a_key_of_the_cloud_is_not_sent_to_this_machine() {
    let bed = Bed::new(&["hello"]).await;
    let id = key_id();
    for id in [id.clone(), format!("STS.{id}")] {
        let mut command = bed.command(&["push"]);
        command.env("ALIBABA_CLOUD_ACCESS_KEY_ID", &id);
        let ended = crate::common::finish(command).await;
        assert_eq!(ended.code, Some(77), "{}{}", ended.stdout, ended.stderr);
        assert!(
            ended.stderr.contains("the endpoint is this machine"),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains(&id), "{}", ended.stderr);
    }
    assert_eq!(bed.history().len(), 0);
}
