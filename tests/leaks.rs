//! Code that holds a secret does not go up unless somebody says that it may.

mod common;

use common::{Bed, Ended, QUICK, code};

/// What would be refused is put together here, so that none of it stands in the tree.
fn secrets() -> [String; 2] {
    let random = format!("{:032x}", fastrand::u128(..));
    let pem = ["-----BEG", "IN PRIV", "ATE KEY-----"].concat();
    [format!("LTA{}5t{random}", "I"), format!("{pem}{random}")]
}

#[tokio::test]
async fn f05_code_with_a_secret_is_refused_and_nothing_of_it_is_shown() {
    for secret in secrets() {
        // Also where it does not parse, since such lines are shown.
        for line in [
            format!("const x = \"{secret}\";"),
            format!("const x = \"{secret}\" }};"),
        ] {
            let bed = Bed::new(&["hello"]).await;
            bed.write("hello", &format!("{}{line}\n", code("hello", 0)));
            for arguments in [
                &["push", "--log", "trace"][..],
                &["push", "--format", "text"],
            ] {
                let ended = bed.run(arguments).await;
                let Ended { stdout, stderr, .. } = &ended;
                assert_eq!(ended.code, Some(65), "{stdout}{stderr}");
                assert!(stdout.contains("in line 2"), "{stdout}{stderr}");
                assert!(stdout.contains("--allow-secrets"), "{stdout}{stderr}");
                let end = &secret[secret.len() - 16..];
                assert!(
                    !stdout.contains(end) && !stderr.contains(end),
                    "{stdout}{stderr}"
                );
            }
            assert_eq!(bed.asked("UploadRoutineCode"), 0);
            let ended = bed.run(&["explain", "src/hello.js"]).await;
            assert_eq!(
                ended.events()[0]["entries"][0]["ready"],
                false,
                "{}",
                ended.stdout
            );
        }
    }
}

#[tokio::test]
async fn f05_whoever_starts_er_dev_may_allow_it() {
    let bed = Bed::new(&["hello"]).await;
    let [id, _] = secrets();
    let text = format!("// {id}\n{}", code("hello", 0));
    bed.write("hello", &text);
    let mut watch = bed.watch(QUICK).await;
    let refused = watch
        .seen()
        .find(|event| event["event"] == "error")
        .unwrap();
    assert_eq!(refused["problem"]["class"], "source", "{refused}");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit().await["event"], "uploaded");
    watch.stop().await;
    bed.write("hello", &text);
    let ended = bed.run(&["push", "--allow-secrets"]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(bed.newest("hello"), text.as_bytes());
}
