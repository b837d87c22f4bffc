//! Errors: each says what happened, why, what to do, and its class; what is nearly right is recognised; and no help names
//! what is not there.

use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory as _, Parser as _};
use er_dev::cli::Cli;
use er_dev::report::class::Class;

use crate::common::{Bed, Ended};

/// Error and help of what a command wrote to standard error; nothing else may stand there.
#[track_caller]
fn parts(ended: &Ended, class: Class) -> (String, String) {
    let text = &ended.stderr;
    let first = text.lines().next().unwrap_or_default();
    let end = format!(" [{}]", class.word());
    assert!(
        first.starts_with("error: ") && first.ends_with(&end),
        "{text}"
    );
    let (_, help) = text
        .split_once("= help: ")
        .unwrap_or_else(|| panic!("no help: {text}"));
    assert!(
        !help.trim().is_empty() && !help.contains("= help"),
        "{text}"
    );
    assert_eq!(ended.code, Some(class.exit_code().into()), "{text}");
    (first.to_owned(), help.trim_end().to_owned())
}

fn is_called(arg: &Arg, value: &str) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().any(|name| name.as_str() == value)
}

/// The words of a command with this as its routine and something in place of all else that it needs; `None` if it takes
/// no routine.
fn with_routine(command: &Command, routine: &str) -> Option<Vec<String>> {
    let mut words = vec![command.get_name().to_owned()];
    let mut takes = false;
    for arg in command.get_arguments() {
        let is_routine = is_called(arg, "NAME");
        if !is_routine && !arg.is_required_set() && !is_called(arg, "REV") {
            continue;
        }
        takes |= is_routine;
        if let Some(long) = arg.get_long() {
            words.push(format!("--{long}"));
        }
        words.push(match arg.get_value_names().unwrap_or_default() {
            [name] if name.as_str() == "REV" => "7712".into(),
            [name] if name.as_str() == "ENV" => "staging".into(),
            _ if is_routine => routine.to_owned(),
            _ => "other".into(),
        });
    }
    takes.then_some(words)
}

#[tokio::test]
async fn every_command_that_takes_a_routine_asks_whether_the_nearest_was_meant() {
    let bed = Bed::new(&["hello", "api"]).await;
    let mut asked = 0;
    for command in Cli::command().get_subcommands() {
        // Its routines are its own.
        if command.get_name() == "emulator" {
            continue;
        }
        let Some(words) = with_routine(command, "helo") else {
            continue;
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (what, help) = parts(&bed.run(&words).await, Class::Usage);
        assert!(what.contains("no routine `helo` in "), "{words:?}: {what}");
        assert_eq!(help, "did you mean `hello`?", "{words:?}");
        asked += 1;
    }
    assert!(asked >= 9, "{asked}");
    assert_eq!(bed.history(), []);
}

#[tokio::test]
async fn a_version_and_an_environment_that_are_nearly_right_are_recognised() {
    let bed = Bed::new(&["hello"]).await;
    bed.push().await;
    let there = bed.versions("hello")[0].clone();
    let mut slip = there.as_str()[there.as_str().len() - 4..].to_owned();
    let last = if slip.ends_with('7') { "8" } else { "7" };
    slip.replace_range(3.., last);
    for command in ["pin", "diff", "publish"] {
        let mut words = vec![command, "hello", &slip];
        if command == "publish" {
            words.extend(["--env", "staging"]);
        }
        let (what, help) = parts(&bed.run(&words).await, Class::Usage);
        assert!(
            what.contains(&format!("no version ends in {slip}")),
            "{what}"
        );
        assert!(
            help.starts_with(&format!("did you mean {there}?")),
            "{help}"
        );
    }
    let ended = bed.run(&["publish", "hello", "--env", "stagin"]).await;
    let (what, help) = parts(&ended, Class::Usage);
    assert!(what.contains("no environment `stagin`"), "{what}");
    assert_eq!(help, "did you mean `staging`?");
}

#[tokio::test]
async fn what_the_service_refused_is_told_with_the_number_of_the_request() {
    let bed = Bed::new(&["hello"]).await;
    bed.fault("DescribeRoutine:1:code(Forbidden.RAM,not authorised,403)");
    let ended = bed.run(&["revisions", "hello"]).await;
    let (what, _) = parts(&ended, Class::Credentials);
    assert!(what.contains(" (request "), "{what}");
}

#[tokio::test]
async fn what_ends_a_command_before_it_begins_has_the_same_shape() {
    let bed = Bed::new(&["hello"]).await;
    parts(&bed.run(&["watch", "--no-such-flag"]).await, Class::Usage);
    parts(&bed.run(&["prune", "--keep", "11"]).await, Class::Usage);
    parts(&bed.run(&["status"]).await, Class::Locked);
    parts(
        &bed.run(&["status", "--config", "none.toml"]).await,
        Class::Config,
    );
    parts(
        &bed.run(&["push", "--config", "none.toml"]).await,
        Class::Config,
    );
    parts(&bed.run(&["push", "--config", "src"]).await, Class::Config);
    parts(
        &bed.run(&["push", "--ca-file", "none.pem"]).await,
        Class::Config,
    );
    parts(
        &bed.run(&["push", "--state-dir", "/proc/none"]).await,
        Class::State,
    );
    parts(&bed.run(&["man", "watsh"]).await, Class::Usage);
    parts(
        &bed.run(&["emulator", "--world", "odd=1"]).await,
        Class::Usage,
    );
    let taken = bed.emulator.address().to_string();
    parts(
        &bed.run(&["emulator", "--listen", &taken]).await,
        Class::Machine,
    );
    let mut no_key = bed.command(&["push"]);
    no_key
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_ID")
        .env_remove("ALIBABA_CLOUD_ACCESS_KEY_SECRET");
    let (what, help) = parts(&crate::common::finish(no_key).await, Class::Credentials);
    assert_eq!(what, "error: no credentials found [credentials]");
    assert!(help.lines().count() > 5, "{help}");
}

/// The sources without tests and comments.
fn sources() -> String {
    let mut left: Vec<PathBuf> = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut text = String::new();
    while let Some(path) = left.pop() {
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && !name.contains("/tests/")
        {
            let source = std::fs::read_to_string(&path).unwrap();
            let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
            let is_code = |line: &&str| !line.trim_start().starts_with("//");
            code.lines().filter(is_code).for_each(|line| {
                text.push_str(line);
                text.push('\n');
            });
        }
    }
    text
}

/// What stands between back quotes behind such a beginning, with something in place of what is filled in.
fn quoted(text: &str, beginning: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&format!("`{beginning}")) {
        let rest = &text[at + 1..];
        let Some((inside, _)) = rest.split_once('`') else {
            continue;
        };
        let words = inside.split_whitespace().filter(|word| *word != "\\");
        let words: Vec<&str> = words
            .map(|word| match word {
                "{before}" | "{revision}" | "REV" => "1790",
                "{environment}" | "ENV" => "staging",
                word if word.starts_with('{') => "hello",
                "NAME" | "DIR" | "FILE" | "TEXT" | "PATH" => "hello",
                word => word,
            })
            .collect();
        found.push(words.join(" "));
    }
    found
}

#[test]
fn every_command_that_a_help_names_is_one() {
    let commands = quoted(&sources(), "er-dev ");
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let command = command.split(['|', '>']).next().unwrap();
        let Err(error) = Cli::try_parse_from(command.split_whitespace()) else {
            continue;
        };
        // A command may be named without what it takes.
        use clap::error::ErrorKind;
        let named_alone = command.split_whitespace().count() == 2
            && error.kind() == ErrorKind::MissingRequiredArgument;
        assert!(named_alone || !error.use_stderr(), "`{command}`: {error}");
    }
}

#[test]
fn every_flag_that_a_help_names_is_one() {
    let root = Cli::command();
    let all = std::iter::once(&root).chain(root.get_subcommands());
    let longs: Vec<String> = all
        .flat_map(Command::get_arguments)
        .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
        .collect();
    let flags = quoted(&sources(), "--");
    assert!(flags.len() > 5, "{flags:?}");
    for flag in flags {
        let flag = flag.split([' ', '=']).next().unwrap();
        assert!(
            flag == "--help" || longs.iter().any(|long| long == flag),
            "`{flag}`"
        );
    }
}
