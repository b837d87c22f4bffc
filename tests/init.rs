//! `er-dev init`: a first configuration that is right, and nothing that was there is touched.

use std::fs;

use serde_json::json;

use crate::common::{Bed, code};

/// A bed without a configuration.
async fn bare(names: &[&str]) -> Bed {
    let bed = Bed::new(names).await;
    fs::remove_file(bed.path("er-dev.toml")).unwrap();
    bed
}

#[tokio::test]
async fn what_init_writes_is_what_config_check_is_content_with() {
    let bed = bare(&["hello", "api"]).await;
    fs::write(bed.path("webpack.config.js"), "module.exports = {};\n").unwrap();
    fs::create_dir_all(bed.path("node_modules/x")).unwrap();
    fs::write(bed.path("node_modules/x/index.js"), code("x", 0)).unwrap();
    fs::write(bed.path(".gitignore"), "out\n").unwrap();
    fs::create_dir(bed.path("out")).unwrap();
    fs::write(bed.path("out/hello.js"), code("x", 0)).unwrap();
    let made = bed.run(&["init", "--yes"]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let object = &made.events()[0];
    assert_eq!(object["made"], json!(["er-dev.toml"]));
    assert_eq!(object["routines"], json!(["api", "hello"]));
    let checked = bed.run(&["config", "check"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert_eq!(checked.events()[0]["routines"], json!(["api", "hello"]));
    assert_eq!(bed.history(), [], "init asks nothing of the service");
}

#[tokio::test]
async fn where_there_is_no_routine_a_sample_is_written_that_goes_up() {
    let bed = bare(&["hello"]).await;
    fs::remove_dir_all(bed.path("src")).unwrap();
    let made = bed.run(&["init", "--yes", "--create"]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(
        made.events()[0]["made"],
        json!(["src/hello.js", "er-dev.toml"])
    );
    let written = fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    assert!(written.contains("create = true"), "{written}");
    let service = format!("[service]\nendpoint = \"{}\"\n", bed.emulator.endpoint());
    fs::write(bed.path("er-dev.toml"), service + &written).unwrap();
    let pushed = bed.run(&["push"]).await;
    assert_eq!(pushed.of("uploaded").len(), 1, "{}", pushed.stdout);
    assert_eq!(pushed.of("warning"), [] as [serde_json::Value; 0]);
}

#[tokio::test]
async fn what_a_build_script_writes_is_the_entry() {
    let bed = bare(&["hello"]).await;
    let package = r#"{"name": "@me/gateway", "scripts": {"build": "esbuild src/hello.js --outfile=dist/index.js"}}"#;
    fs::write(bed.path("package.json"), package).unwrap();
    fs::write(bed.path("pnpm-lock.yaml"), "").unwrap();
    let made = bed.run(&["init", "--yes"]).await;
    assert_eq!(
        made.events()[0]["routines"],
        json!(["gateway"]),
        "{}",
        made.stderr
    );
    let written = fs::read_to_string(bed.path("er-dev.toml")).unwrap();
    assert!(written.contains("entry = \"dist/index.js\""), "{written}");
    assert!(
        written.contains("command = \"pnpm run build\""),
        "{written}"
    );
    assert_eq!(bed.run(&["config", "check"]).await.code, Some(0));
}

#[tokio::test]
async fn nothing_that_is_there_is_overwritten_and_nobody_is_taken_to_have_agreed() {
    let bed = Bed::new(&["hello"]).await;
    let before = fs::read(bed.path("er-dev.toml")).unwrap();
    let refused = bed.run(&["init", "--yes"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("move it away"),
        "{}",
        refused.stderr
    );
    assert_eq!(fs::read(bed.path("er-dev.toml")).unwrap(), before);

    fs::remove_file(bed.path("er-dev.toml")).unwrap();
    let unasked = bed.run(&["init"]).await;
    assert_eq!(unasked.code, Some(2));
    assert!(
        unasked.stderr.contains("give `--yes`"),
        "{}",
        unasked.stderr
    );
    assert!(!bed.path("er-dev.toml").exists());

    // A link that leads nowhere is something, too.
    std::os::unix::fs::symlink("nowhere", bed.path("er-dev.toml")).unwrap();
    assert_eq!(bed.run(&["init", "--yes"]).await.code, Some(1));
    assert!(!bed.path("nowhere").exists());

    fs::remove_file(bed.path("er-dev.toml")).unwrap();
    fs::write(bed.entry("hello"), "// nothing yet\n").unwrap();
    let refused = bed.run(&["init", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert_eq!(fs::read(bed.entry("hello")).unwrap(), b"// nothing yet\n");
    assert!(!bed.path("er-dev.toml").exists());
}
