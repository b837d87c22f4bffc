//! Completions and the manual: both come from the definition of the command line, and names from the configuration.

use std::process::Stdio;

use clap::CommandFactory as _;
use er_dev::cli::Cli;
use tokio::process::Command;

use crate::common::{Bed, finish, has};

/// A script for a shell, in a file of the bed.
async fn script(bed: &Bed, shell: &str) -> std::path::PathBuf {
    let ended = bed.run(&["completions", shell]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let path = bed.path(&format!("completions.{shell}"));
    std::fs::write(&path, ended.stdout).unwrap();
    path
}

/// What bash offers behind these words, the last of which is being written.
async fn offered(bed: &Bed, words: &[&str]) -> Vec<String> {
    let er_dev = env!("CARGO_BIN_EXE_er-dev");
    let mut command = Command::new("bash");
    let run = r#"
        source completions.bash
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _er_dev_with_names "$1" "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    command
        .args(["--norc", "-c", run, "bash", er_dev])
        .args(words);
    bed.furnish(&mut command);
    let ended = finish(command).await;
    assert_eq!(ended.stderr, "", "{words:?}");
    let lines = ended.stdout.lines().filter(|line| !line.is_empty());
    lines.map(String::from).collect()
}

#[tokio::test]
async fn bash_completes_commands_flags_routines_and_environments() {
    if !has("bash") {
        return;
    }
    let bed = Bed::new(&["hello", "help-desk", "api"]).await;
    script(&bed, "bash").await;
    let table: [(&[&str], &[&str]); 12] = [
        (&["pus"], &["push"]),
        (&["push", "--fo"], &["--force", "--format"]),
        (&["push", "hel"], &["hello", "help-desk"]),
        (
            &["push", "api", "--force", ""],
            &["api", "hello", "help-desk"],
        ),
        (&["pin", "a"], &["api"]),
        (&["pin", "api", ""], &[]),
        (&["watch", "--routine", "hello"], &["hello"]),
        (&["watch", "--routine", "=", "ap"], &["api"]),
        (&["emulator", "--routine", "hel"], &[]),
        (&["publish", "--env", "p"], &["production"]),
        (&["publish", "--env", "staging", "ap"], &["api"]),
        (&["--config", "er-dev.toml", "diff", "api"], &["api"]),
    ];
    for (words, expected) in table {
        let mut offered = offered(&bed, words).await;
        let is_flag = words.last().unwrap().starts_with('-');
        offered.retain(|word| is_flag || !word.starts_with('-'));
        assert_eq!(offered, expected, "{words:?}");
    }
    // Nothing is asked of the service for that.
    assert_eq!(bed.history(), []);
    let all = offered(&bed, &[""]).await;
    assert!(all.iter().any(|word| word == "watch"), "{all:?}");
    let hidden = ["__names", "--api-timeout"];
    assert!(
        !all.iter().any(|word| hidden.contains(&word.as_str())),
        "{all:?}"
    );
}

#[tokio::test]
async fn where_no_configuration_is_found_there_are_no_routines_to_offer() {
    if !has("bash") {
        return;
    }
    let bed = Bed::new(&["hello"]).await;
    script(&bed, "bash").await;
    std::fs::remove_file(bed.path("er-dev.toml")).unwrap();
    assert_eq!(offered(&bed, &["pin", ""]).await, [""; 0]);
    assert_eq!(offered(&bed, &["publish", "--env", "s"]).await, ["staging"]);
}

#[tokio::test]
async fn zsh_and_fish_can_read_their_scripts() {
    let bed = Bed::new(&["hello"]).await;
    for (shell, routines) in [
        ("zsh", "routine -- The routine:_er_dev_routines'"),
        ("fish", "-l routine -x -a '(er-dev __names routines"),
    ] {
        let path = script(&bed, shell).await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(routines), "{shell}");
        if has(shell) {
            let mut command = Command::new(shell);
            command.arg("-n").arg(&path).stdin(Stdio::null());
            let ended = finish(command).await;
            assert_eq!(
                (ended.code, ended.stderr.as_str()),
                (Some(0), ""),
                "{shell}"
            );
        }
    }
}

#[tokio::test]
async fn every_command_has_its_page_of_the_manual() {
    let bed = Bed::new(&["hello"]).await;
    let page = bed.run(&["man"]).await;
    assert!(page.stdout.contains(".TH er-dev 1"), "{}", page.stdout);
    let root = Cli::command();
    for command in root.get_subcommands().filter(|it| !it.is_hide_set()) {
        let name = command.get_name();
        assert!(
            page.stdout.contains(&format!("er\\-dev\\-{name}(1)")),
            "{name}"
        );
        let own = bed.run(&["man", name]).await;
        assert!(
            own.stdout.contains(&format!(".TH er-dev-{name} 1")),
            "{}",
            own.stdout
        );
    }
    assert!(!page.stdout.contains("__names"));
    let deeper = bed.run(&["man", "config", "check"]).await;
    assert!(
        deeper.stdout.contains(".TH er-dev-config-check 1"),
        "{}",
        deeper.stdout
    );
}
