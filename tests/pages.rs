//! README, where it repeats what the program itself says: the reference of its commands.
//!
//! `ER_DEV_UPDATE=1 cargo test pages::` writes it anew.

use std::path::Path;
use std::process::Command;

/// What encloses the generated part of README.
const BEGIN: &str = "<!-- written by `ER_DEV_UPDATE=1 cargo test pages::` -->\n";
const END: &str = "<!-- end -->\n";

/// What the program says about a command, as it says it into a pipe.
fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_er-dev"))
        .env_clear()
        .args(words)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help lists.
fn commands(help: &str) -> Vec<&str> {
    let Some((_, list)) = help.split_once("Commands:\n") else {
        return Vec::new();
    };
    let list = list.lines().take_while(|line| !line.is_empty());
    let entries = list.filter_map(|line| line.strip_prefix("  "));
    let names = entries.filter(|entry| !entry.starts_with(' '));
    let names = names.filter_map(|entry| entry.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

/// A help in parts: what stands before the options, and each option.
fn parts(help: &str) -> (&str, Vec<String>) {
    let Some((head, options)) = help.split_once("\nOptions:\n") else {
        return (help, Vec::new());
    };
    let mut parts: Vec<String> = Vec::new();
    for line in options.lines() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with('-') && indent < 8 || parts.is_empty() {
            parts.push(String::new());
        }
        let last = parts.len() - 1;
        parts[last].push_str(line);
        parts[last].push('\n');
    }
    (head, parts)
}

/// A page a command, those below it included; what every command takes stands once, at the top.
fn reference() -> String {
    let whole = help(&[]);
    let (head, common) = parts(&whole);
    let mut out = page("er-dev", head, &common);
    for name in commands(&whole) {
        let text = help(&[name]);
        let inner = commands(&text);
        for inner in &inner {
            let text = help(&[name, inner]);
            out.push_str(&without(&common, &format!("er-dev {name} {inner}"), &text));
        }
        if inner.is_empty() {
            out.push_str(&without(&common, &format!("er-dev {name}"), &text));
        }
    }
    out
}

fn without(common: &[String], name: &str, help: &str) -> String {
    let (head, mut own) = parts(help);
    own.retain(|option| {
        !common
            .iter()
            .any(|other| other.trim_end() == option.trim_end())
    });
    page(name, head, &own)
}

fn page(name: &str, head: &str, options: &[String]) -> String {
    let mut text = head.trim_end().to_owned();
    if !options.is_empty() {
        text.push_str("\n\nOptions:\n");
        text.push_str(options.concat().trim_end());
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!(
        "<details><summary><code>{name}</code></summary>\n\n```text\n{}\n```\n\n</details>\n\n",
        lines.join("\n")
    )
}

#[test]
fn the_reference_in_readme_is_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("README has a reference");
    let (stands, after) = rest.split_once(END).expect("it has an end");
    let says = format!("\n{}", reference());
    if std::env::var_os("ER_DEV_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{before}{BEGIN}{says}{END}{after}")).unwrap();
        return;
    }
    let differs = stands.lines().zip(says.lines()).find(|(a, b)| a != b);
    assert!(
        stands == says,
        "README is behind: run `ER_DEV_UPDATE=1 cargo test pages::`; the first difference is {differs:?}"
    );
}
