//! What makes a build run, what it gets to know, and what goes up of what it makes.

use super::{BUILD, bed, configure, fifo, heard, made, runs, save, until_gone, versions};
use crate::common::{Bed, code};

#[tokio::test]
async fn a_build_runs_before_anything_goes_up_in_every_command_that_uploads() {
    for arguments in [&["push"][..], &["watch", "--once"], &["watch"]] {
        for there in [true, false] {
            let bed = bed(BUILD, "").await;
            if !there {
                std::fs::remove_file(bed.entry("hello")).unwrap();
            }
            if arguments == ["watch"] {
                let mut watch = bed.watch_from_start(&[]);
                watch.until("built").await;
                bed.until_newest_is("hello", &made("first")).await;
                bed.sync().await;
                assert_eq!(watch.stop().await.0, Some(0));
            } else {
                let ended = bed.run(arguments).await;
                assert_eq!(ended.code, Some(0), "{}", ended.stdout);
            }
            assert_eq!((versions(&bed), runs(&bed)), (vec![made("first")], 1));
        }
    }
}

#[tokio::test]
async fn a_change_of_an_input_is_built_and_only_the_whole_output_goes_up() {
    let bed = bed(BUILD, "").await;
    let mut watch = bed.watch_from_start(&[]);
    watch.until("built").await;
    bed.sync().await;
    for text in ["second", "third"] {
        save(&bed, text);
        let building = watch.until("building").await;
        assert_eq!(building["changed"], serde_json::json!(["in/text"]));
        // A sync waits for the build and for what it makes.
        bed.sync().await;
        assert_eq!(bed.newest("hello"), made(text).as_bytes());
    }
    // A build that makes the same again uploads nothing.
    std::fs::write(bed.path("in/more"), "").unwrap();
    watch.until("built").await;
    bed.sync().await;
    assert_eq!(versions(&bed), ["first", "second", "third"].map(made));
    assert_eq!(runs(&bed), 4);
    let (exit, done) = watch.stop().await;
    assert_eq!((exit, &done["failed"]), (Some(0), &0.into()));
    bed.assert_at_rest();
}

#[tokio::test]
async fn the_newest_inputs_win_and_no_two_runs_overlap() {
    // A run that takes for ever, unless it is the last one.
    let script = r#"
trap 'rmdir running' EXIT
trap 'exit 9' TERM
mkdir running || echo overlap >> runs
echo run >> runs
text=$(cat in/text)
(sleep 600; echo "$text") & echo $! > begun
[ "$text" = last ] || wait
echo "// $text" > src/hello.js
"#;
    let bed = bed(script, "").await;
    fifo(&bed, "begun");
    let watch = bed.watch_from_start(&[]);
    for text in ["second", "third", "fourth", "last"] {
        let pid = heard(&bed.path("begun")).await;
        // Another file each time: who saves one file during run after run is another matter.
        std::fs::write(bed.path(&format!("in/{text}")), "").unwrap();
        save(&bed, text);
        until_gone(&pid).await;
    }
    heard(&bed.path("begun")).await;
    bed.until_newest_is("hello", "// last\n").await;
    bed.sync().await;
    assert_eq!((versions(&bed).len(), runs(&bed)), (1, 5));
    watch.stop().await;
}

#[tokio::test]
async fn one_build_of_several_routines_runs_once_for_all_of_them() {
    let bed = Bed::new(&["a", "b", "c"]).await;
    std::fs::create_dir(bed.path("in")).unwrap();
    let script = "echo run >> runs; for name in a b c; do echo \"// $name $(cat in/*)\" > src/$name.js; done";
    std::fs::write(bed.path("build.sh"), script).unwrap();
    configure(&bed, "command = \"sh build.sh\", watch = [\"in\"]");
    save(&bed, "1");
    let mut watch = bed.watch_from_start(&[]);
    let built = watch.until("built").await;
    assert_eq!(built["routines"], serde_json::json!(["a", "b", "c"]));
    save(&bed, "2");
    watch.until("built").await;
    bed.sync().await;
    for name in ["a", "b", "c"] {
        assert_eq!(bed.newest(name), format!("// {name} 2\n").as_bytes());
    }
    assert_eq!(runs(&bed), 2);
    watch.stop().await;
}

#[tokio::test]
async fn a_build_gets_its_place_and_its_programs_and_no_secret() {
    let bed = bed("pwd; tool; env; cat", "").await;
    std::fs::create_dir_all(bed.path("node_modules/.bin")).unwrap();
    let tool = bed.path("node_modules/.bin/tool");
    std::fs::write(&tool, "#!/bin/sh\necho the tool of the project\nexit 0\n").unwrap();
    let run = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&tool, run).unwrap();
    std::fs::write(bed.path("build.sh"), "pwd; tool; env; cat; exit 1").unwrap();
    let secret = format!("canary-{}", fastrand::u64(..));
    let mut command = bed.command(&["push"]);
    for name in [
        "NPM_TOKEN",
        "NODE_AUTH_TOKEN",
        "MY_SECRET",
        "ALIBABA_CLOUD_SECURITY_TOKEN",
    ] {
        command.env(name, &secret);
    }
    command.env("HTTPS_PROXY", format!("http://me:{secret}@127.0.0.1:1"));
    command.env("NODE_ENV", "development");
    let ended = crate::common::finish(command).await;
    let output = ended.of("broken").remove(0)["output"].to_string();
    assert!(!output.contains(&secret), "{output}");
    for name in ["emulator-key", "ALIBABA", "ER_DEV"] {
        assert!(!output.contains(name), "{output}");
    }
    let here = bed.path("").canonicalize().unwrap().display().to_string();
    let here = here.trim_end_matches('/');
    assert!(
        output.starts_with(&format!("[\"{here}\",\"the tool of the project\"")),
        "{output}"
    );
    assert!(
        output.contains(&format!("PATH={here}/node_modules/.bin:")),
        "{output}"
    );
    assert!(output.contains("NODE_ENV=development"), "{output}");
}

#[tokio::test]
async fn a_build_that_clears_its_output_away_first_is_uploaded_once_it_is_done() {
    let script = "rm -rf src; sleep 0.3; mkdir src; echo \"// $(cat in/text)\" > src/hello.js";
    let bed = bed(script, "").await;
    let mut watch = bed.watch_from_start(&[]);
    watch.until("built").await;
    bed.until_newest_is("hello", "// first\n").await;
    for text in ["second", "third"] {
        save(&bed, text);
        watch.until("built").await;
        bed.sync().await;
        assert_eq!(bed.newest("hello"), format!("// {text}\n").as_bytes());
    }
    assert_eq!(versions(&bed).len(), 3);
    // That the place of the entry went away meanwhile is nobody's trouble.
    let told =
        |event: &&serde_json::Value| event["event"] == "halted" || event["event"] == "resumed";
    assert_eq!(watch.seen().find(told), None);
    std::fs::write(bed.path("build.sh"), "rm -rf src").unwrap();
    save(&bed, "fourth");
    watch.until("built").await;
    watch.until("halted").await;
    watch.stop().await;
}

#[tokio::test]
async fn what_a_build_makes_by_a_pattern_waits_for_its_end_from_the_first_file_on() {
    let script = "
mkdir -p out
for file in in/*; do
    name=$(basename $file)
    echo '// half' > out/$name.js
    sleep 0.3
    grep -q bad $file && exit 1
    echo \"// $(cat $file)\" > out/$name.js
done";
    let bed = Bed::new(&["a", "b"]).await;
    std::fs::create_dir(bed.path("in")).unwrap();
    std::fs::write(bed.path("build.sh"), script).unwrap();
    std::fs::write(bed.path("in/a"), "a 1").unwrap();
    let endpoint = bed.emulator.endpoint();
    let routine = "[[routine]]\nname = \"{stem}\"\nentry = \"out/*.js\"\n";
    let build = "build = { command = \"sh build.sh\", watch = [\"in\"] }\n";
    let config = format!("[service]\nendpoint = \"{endpoint}\"\n{routine}{build}");
    std::fs::write(bed.path("er-dev.toml"), config).unwrap();
    let mut watch = bed.watch_from_start(&[]);
    watch.until("built").await;
    bed.until_newest_is("a", "// a 1\n").await;
    std::fs::write(bed.path("in/b"), "bad").unwrap();
    watch.until("broken").await;
    assert_eq!(bed.run(&["sync"]).await.code, Some(1));
    std::fs::write(bed.path("in/b"), "b 1").unwrap();
    watch.until("built").await;
    bed.sync().await;
    for name in ["a", "b"] {
        assert_eq!(bed.codes(name), [format!("// {name} 1\n").into_bytes()]);
    }
    watch.stop().await;
}

#[tokio::test]
async fn an_entry_among_the_inputs_of_its_own_build_is_no_input() {
    let bed = bed(BUILD, "").await;
    configure(&bed, "command = \"sh build.sh\", watch = [\"src\", \"in\"]");
    let mut watch = bed.watch_from_start(&[]);
    watch.until("built").await;
    save(&bed, "second");
    watch.until("built").await;
    bed.sync().await;
    bed.write("hello", &code("hello", 7));
    bed.sync().await;
    assert_eq!(bed.newest("hello"), code("hello", 7).as_bytes());
    assert_eq!(runs(&bed), 2);
    watch.stop().await;
}

#[tokio::test]
async fn a_build_that_changes_what_it_reads_is_named_and_paused_until_somebody_else_changes_something()
 {
    let script = "echo run >> runs; echo run >> in/generated; cp in/text src/hello.js";
    let bed = bed(script, "").await;
    save(&bed, "// first");
    let mut watch = bed.watch_from_start(&[]);
    let looping = watch.until("looping").await;
    assert_eq!(looping["changed"], serde_json::json!(["in/generated"]));
    assert_eq!(looping["problem"]["class"], "build");
    assert_eq!(looping["after_ms"], 2_000);
    assert_eq!(runs(&bed), 6);
    let (exit, status) = bed.status().await;
    assert_eq!(
        (exit, &status["routines"][0]["state"]),
        (Some(1), &"broken".into())
    );
    // What it makes goes up nevertheless, and somebody else's change is built at once.
    save(&bed, "// second");
    watch.until("built").await;
    bed.until_newest_is("hello", "// second").await;
    // Cured by the configuration, it rests.
    watch.stop().await;
    let before = runs(&bed);
    configure(
        &bed,
        "command = \"sh build.sh\", watch = [\"in\", \"!in/generated\"]",
    );
    let mut watch = bed.watch_from_start(&[]);
    watch.until("built").await;
    bed.sync().await;
    assert_eq!(runs(&bed), before + 1);
    assert_eq!(versions(&bed).len(), 2);
    watch.stop().await;
}

#[tokio::test]
async fn a_dry_run_builds_nothing_and_says_so() {
    let bed = bed(BUILD, "").await;
    let ended = bed.run(&["watch", "--once", "--dry-run"]).await;
    let planned = ended.of("planned");
    assert_eq!(planned[0]["action"], "build");
    assert_eq!(planned[1]["action"], "upload");
    assert_eq!((ended.code, runs(&bed)), (Some(0), 0));
}

#[tokio::test]
async fn explain_and_config_check_know_the_build() {
    let bed = bed(BUILD, "").await;
    let ended = bed.run(&["explain", "in/text", "src/hello.js"]).await;
    let told = ended.events();
    assert_eq!(told[0]["verdict"], "input");
    assert_eq!(told[0]["inputs"][0]["build"], "sh build.sh");
    assert_eq!(told[1]["made_by"], serde_json::json!(["sh build.sh"]));
    let checked = bed.run(&["config", "check"]).await.events().remove(0);
    assert_eq!(checked["builds"], serde_json::json!(["sh build.sh"]));
}
