//! What a process leaves behind that ends without having been asked to.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use super::needles::Canary;
use crate::common::{Bed, QUICK, say};

/// A program that may write core files of any size, once it has written a line, or at once if it writes none.
async fn aborted(mut command: Command, speaks: bool) -> (ExitStatus, String) {
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut log = String::new();
    let mut stderr = child.stderr.take().unwrap();
    if speaks {
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(stdout.read_line(&mut line).await.unwrap() > 0, "it ended");
        }
    }
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let status = child.wait().await.unwrap();
    stderr.read_to_string(&mut log).await.unwrap();
    (status, log)
}

fn unlimited(bed: &Bed, script: &str) -> Command {
    let script = format!("ulimit -c unlimited && exec {script}");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_er-dev")]);
    bed.furnish(&mut command);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn f08_an_abort_leaves_no_core_file_whatever_the_limit_is() {
    let bed = Bed::new(&["hello"]).await;
    let canary = Canary::let_into(&bed);
    let keys = canary.put(&bed);
    // Another program would leave one.
    let other = unlimited(&bed, "sh -c 'echo ready; exec sleep 60'");
    let (status, _) = aborted(other, true).await;
    if !status.core_dumped() {
        return say("SKIPPED: this machine writes no core files");
    }
    let cores = || {
        let entries = std::fs::read_dir(bed.path("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.starts_with("core"))
            .collect::<Vec<_>>()
    };
    for core in cores() {
        std::fs::remove_file(bed.path(&core)).unwrap();
    }
    let quick = QUICK.join(" ");
    let mut er_dev = unlimited(&bed, &format!("\"$0\" watch --log trace {quick}"));
    er_dev
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_ID")
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
        .env("CREDENTIALS_DIRECTORY", keys);
    let (status, log) = aborted(er_dev, true).await;
    assert_eq!(status.signal(), Some(6), "{status:?}");
    assert!(!status.core_dumped(), "{status:?}");
    assert_eq!(cores(), [""; 0]);
    canary.assert_not_in("what was logged", log.as_bytes());
    canary.assert_not_below(&bed.path("state"));
}

/// The panic happens in a process of its own, whose words are read like anybody's.
#[test]
fn a_log_line_and_a_panic_are_told_in_their_own_words_without_a_secret() {
    const VARIABLE: &str = "ER_DEV_TEST_CANARY";
    const NAME: &str =
        "canaries::crash::a_log_line_and_a_panic_are_told_in_their_own_words_without_a_secret";
    if let Ok(secret) = std::env::var(VARIABLE) {
        er_dev::process::confine();
        er_dev::secrets::learn(&secret);
        writeln!(er_dev::process::Log, "some library sends {secret} away").unwrap();
        panic!("the \u{1b}[31mkey {secret} broke,\nas did {secret:?}");
    }
    let secret = format!("secret+/=\"{:032x}", fastrand::u128(..));
    for backtrace in ["0", "1"] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(VARIABLE, &secret)
            .env("RUST_BACKTRACE", backtrace)
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{told}");
        let words = "the \\u{1b}[31mkey *** broke,\nas did \"***\"\n";
        assert!(told.contains(words), "{told}");
        assert!(told.contains("crash.rs:"), "{told}");
        let line = "some library sends *** away\n";
        assert!(told.contains(line), "{told}");
        let frames = told.contains("rust_begin_unwind");
        assert_eq!(frames, backtrace == "1", "{told}");
        assert!(
            !told.contains(&secret) && !told.contains('\u{1b}'),
            "{told}"
        );
    }
}
