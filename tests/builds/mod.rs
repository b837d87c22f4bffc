//! Routines whose entries a build makes: what is run when, and that nothing goes up but what a build made that ended well.

mod failures;
mod runs;
mod stops;
mod typescript;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{Bed, LIMIT};

/// A build that makes `src/hello.js` of `in/text`, in two steps with a moment between them. It fails, after the first
/// step, for a text that is bad, and notes that it runs and whether another run is under way.
const BUILD: &str = r#"
trap 'rmdir running' EXIT
trap 'exit 9' TERM
mkdir running || echo overlap >> runs
echo run >> runs
text=$(cat in/text)
echo "building $text"
printf 'addEventListener("fetch", (e) => ' > src/hello.js
sleep 0.15
case "$text" in bad*) echo "no good: $text" >&2; exit 3;; esac
printf 'e.respondWith(new Response("%s")));\n' "$text" >> src/hello.js
"#;

/// What [`BUILD`] makes of a text.
fn made(text: &str) -> String {
    format!("addEventListener(\"fetch\", (e) => e.respondWith(new Response(\"{text}\")));\n")
}

/// A bed with one routine that this script builds, which reads `in`; `keys` are further ones of the build.
async fn bed(script: &str, keys: &str) -> Bed {
    let bed = Bed::new(&["hello"]).await;
    std::fs::create_dir(bed.path("in")).unwrap();
    std::fs::write(bed.path("in/text"), "first").unwrap();
    std::fs::write(bed.path("build.sh"), script).unwrap();
    configure(
        &bed,
        &format!("command = \"sh build.sh\", watch = [\"in\"]{keys}"),
    );
    bed
}

/// Gives every routine of the bed this build.
fn configure(bed: &Bed, build: &str) {
    let mut text = format!("[service]\nendpoint = \"{}\"\n", bed.emulator.endpoint());
    for name in &bed.routines {
        text.push_str(&format!(
            "[[routine]]\nname = \"{name}\"\nentry = \"src/{name}.js\"\nbuild = {{ {build} }}\n"
        ));
    }
    std::fs::write(bed.path("er-dev.toml"), text).unwrap();
}

fn save(bed: &Bed, text: &str) {
    std::fs::write(bed.path("in/text"), text).unwrap();
}

/// The runs so far, none of which overlapped another one.
#[track_caller]
fn runs(bed: &Bed) -> usize {
    let runs = std::fs::read_to_string(bed.path("runs")).unwrap_or_default();
    assert!(!runs.contains("overlap"), "{runs}");
    runs.lines().count()
}

/// What every version so far held, oldest first, as text.
fn versions(bed: &Bed) -> Vec<String> {
    let codes = bed.codes("hello").into_iter();
    codes.map(|code| String::from_utf8(code).unwrap()).collect()
}

/// A pipe with a name, in which a build can say something and wait until it was heard.
fn fifo(bed: &Bed, name: &str) {
    let made = std::process::Command::new("mkfifo")
        .arg(bed.path(name))
        .status();
    assert!(made.unwrap().success());
}

/// What a build says there next.
async fn heard(path: &Path) -> String {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap());
    let read = tokio::time::timeout(LIMIT, read).await;
    read.expect("the build says nothing").unwrap().trim().into()
}

/// Waits until a process has ended. Nothing tells of the end of somebody else's child, so that it is looked at.
async fn until_gone(pid: &str) {
    let stat = format!("/proc/{pid}/stat");
    let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    let begun = Instant::now();
    while !gone() {
        assert!(begun.elapsed() < LIMIT, "{pid} goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
