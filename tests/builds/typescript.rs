//! A TypeScript project that esbuild bundles, edited with errors now and then. It takes node, npm and a registry.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use er_dev::emulator::history::{Decision, POST_OBJECT, Record};
use er_dev::routine::Digest;

use super::configure;
use crate::common::{Bed, has, long, say};

/// The bundler, exactly as it is fetched.
const ESBUILD: &str = "esbuild@0.25.12";

/// How long it may take to fetch it.
const FETCH: Duration = Duration::from_secs(60);

/// A bed with the project, or `None`, said aloud, where it cannot be had.
async fn project() -> Option<Bed> {
    if !has("node") || !has("npm") {
        return None;
    }
    let bed = Bed::new(&["hello"]).await;
    let package = r#"{"private":true,"scripts":{"build":"sh build.sh"}}"#;
    std::fs::write(bed.path("package.json"), package).unwrap();
    let mut fetch = tokio::process::Command::new("npm");
    fetch
        .args([
            "install",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            ESBUILD,
        ])
        .current_dir(bed.path(""))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let fetched = tokio::time::timeout(FETCH, fetch.output()).await;
    match fetched {
        Ok(Ok(output)) if output.status.success() => {}
        Ok(Ok(output)) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            say(&format!("SKIPPED: {ESBUILD} cannot be had: {why}"));
            return None;
        }
        _ => {
            say(&format!("SKIPPED: {ESBUILD} cannot be had in time"));
            return None;
        }
    }
    // esbuild is on the path because er-dev puts it there; the runs note when they overlap.
    let script = "trap 'rmdir running' EXIT; trap 'exit 9' TERM
mkdir running || echo overlap >> runs; echo run >> runs
esbuild ts/index.ts --bundle --format=esm --log-level=warning --outfile=src/hello.js";
    std::fs::write(bed.path("build.sh"), script).unwrap();
    std::fs::create_dir(bed.path("ts")).unwrap();
    let part = "export const greet = (name: string): string => `hello ${name}`;\n";
    std::fs::write(bed.path("ts/greet.ts"), part).unwrap();
    configure(&bed, "command = \"sh build.sh\", watch = [\"ts\"]");
    Some(bed)
}

/// One state of the source; every fifth one does not compile.
fn source(edit: usize) -> String {
    let end = if is_good(edit) { "" } else { "const x: = ;" };
    format!(
        "import {{ greet }} from \"./greet\";\nexport default {{ fetch: (): Response => new Response(greet(\"edit {edit}.\")) }};\n{end}\n"
    )
}

fn is_good(edit: usize) -> bool {
    edit % 5 != 4
}

#[tokio::test]
async fn of_a_typescript_project_all_good_outputs_go_up_and_nothing_torn_does() {
    let Some(bed) = project().await else {
        return;
    };
    let edits = if long() { 500 } else { 50 };
    std::fs::write(bed.path("ts/index.ts"), source(0)).unwrap();
    let mut watch = bed.watch_from_start(&[]);
    watch.until("built").await;
    bed.sync().await;
    let first = bed.newest("hello");
    for edit in 1..edits {
        std::fs::write(bed.path("ts/index.ts"), source(edit)).unwrap();
        let ended = bed.run(&["sync"]).await;
        assert_eq!(
            ended.code,
            Some(i32::from(!is_good(edit))),
            "{edit}: {}",
            ended.stdout
        );
    }
    let good: Vec<usize> = (0..edits).filter(|edit| is_good(*edit)).collect();
    assert_eq!(uploaded(&bed, &first, edits), good);
    watch.stop().await;
}

#[tokio::test]
async fn a_typescript_project_that_is_edited_faster_than_it_is_built_ends_with_its_last_state() {
    let Some(bed) = project().await else {
        return;
    };
    std::fs::write(bed.path("ts/index.ts"), source(0)).unwrap();
    let mut watch = bed.watch_from_start(&[]);
    watch.until("built").await;
    bed.sync().await;
    let first = bed.newest("hello");
    let mut random = fastrand::Rng::with_seed(7);
    let edits = if long() { 501 } else { 51 };
    for edit in 1..edits {
        std::fs::write(bed.path("ts/index.ts"), source(edit)).unwrap();
        // No wait for anything: it is the pace of the edits.
        tokio::time::sleep(Duration::from_millis(random.u64(0..250))).await;
    }
    bed.sync().await;
    let uploaded = uploaded(&bed, &first, edits);
    assert_eq!(uploaded.last(), Some(&(edits - 1)));
    watch.stop().await;
}

/// Every upload was the whole output of another good edit, in their order, and no runs overlapped. The edits.
#[track_caller]
fn uploaded(bed: &Bed, first: &[u8], edits: usize) -> Vec<usize> {
    // The number of the edit is all that outputs differ in.
    let first = std::str::from_utf8(first).unwrap();
    assert_eq!(first.matches("edit 0.").count(), 1, "{first}");
    let output = |edit: usize| first.replace("edit 0.", &format!("edit {edit}."));
    let good = (0..edits).filter(|edit| is_good(*edit));
    let outputs: HashMap<Digest, usize> = good
        .map(|edit| (Digest::of(output(edit).as_bytes()), edit))
        .collect();
    let mut history = bed.history();
    history.retain(|record| record.op == POST_OBJECT && record.decision == Decision::Ok);
    let edit = |record: &Record| {
        let output = record.sha256.and_then(|sha256| outputs.get(&sha256));
        *output.unwrap_or_else(|| panic!("torn: {record:?}"))
    };
    let uploaded: Vec<usize> = history.iter().map(edit).collect();
    assert!(
        uploaded.windows(2).all(|two| two[0] < two[1]),
        "{uploaded:?}"
    );
    super::runs(bed);
    uploaded
}
