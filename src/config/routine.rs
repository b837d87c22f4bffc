//! One `[[routine]]`: its name, where its code lies, and what its versions are called.
//!
//! Whether the entry exists is not asked here: a file may be missing for a moment, and the watcher tells.

use std::path::{Component, Path, PathBuf};

use toml::Spanned;

use super::check::bad_pattern;
use super::error::{Fault, line_of};
use super::raw::{self, Build, suggestion};
use super::{Routine, Upload, absolute};
use crate::routine::RoutineName;

const DESCRIPTION: &str = "{file}";
/// The longest template of a description, in characters. The service's own limit is not documented.
const MAX_DESCRIPTION_CHARS: usize = 200;

/// What a description may hold in braces.
pub const PLACEHOLDERS: [&str; 6] = ["file", "git", "branch", "user", "host", "time"];

/// Checks one routine of the file with this text. `dir` is the absolute directory of the file, where relative paths
/// begin.
pub(super) fn check(raw: raw::Routine, text: &str, dir: &Path) -> Result<Routine, Fault> {
    let name = name(&raw.name)?;
    let (entry, root) = entry(&raw.entry, dir)?;
    let description = description(raw.description)?;
    let upload = raw.upload.map(Spanned::into_inner).unwrap_or_default();
    if let (Upload::Staging, Some(first)) = (upload, raw.publish_to.first()) {
        let message =
            "`publish_to` puts versions live, and with upload = \"staging\" an upload makes none";
        return Err(Fault::at(first.span(), message)
            .help("leave it out: what is uploaded to staging runs there at once"));
    }
    let publish_to = publish_to(raw.publish_to)?;
    build(raw.build)?;
    Ok(Routine {
        name,
        entry,
        line: line_of(text, raw.entry.span().start),
        shown: raw.entry.into_inner(),
        root,
        description,
        check: raw.check.unwrap_or(true),
        follow: raw.follow.unwrap_or(false),
        create: raw.create.unwrap_or(false),
        upload,
        publish_to,
    })
}

fn name(name: &Spanned<String>) -> Result<RoutineName, Fault> {
    if name.get_ref().contains("{stem}") {
        return Err(
            Fault::at(name.span(), "`{stem}` in a name is not available yet")
                .help("write one [[routine]] for each file"),
        );
    }
    RoutineName::new(name.get_ref()).map_err(|error| {
        Fault::at(name.span(), error.to_string())
            .help("take the name the routine has in the console")
    })
}

/// The entry and the directory it may not leave, both absolute and without `.` and `..`.
///
/// `..` is taken from the text and not from the disk: the watcher compares these paths with those the system reports.
fn entry(entry: &Spanned<String>, dir: &Path) -> Result<(PathBuf, PathBuf), Fault> {
    let text = entry.get_ref();
    let fault = |message: &str| Fault::at(entry.span(), message);
    if text.contains(['*', '?', '[', '{']) {
        globset::Glob::new(text).map_err(|error| bad_pattern(entry, &error))?;
        return Err(fault("a pattern as an entry is not available yet")
            .help("write one [[routine]] for each file"));
    }
    if text.chars().any(char::is_control) {
        return Err(fault("an entry cannot hold control characters"));
    }
    let last = text.rsplit('/').next().unwrap_or_default();
    if matches!(last, "" | "." | "..") {
        return Err(fault("an entry names a file").help("for example entry = \"hello.js\""));
    }
    let path = absolute(Path::new(text), dir);
    match path.parent() {
        Some(root) => Ok((path.clone(), root.to_owned())),
        None => Err(fault("an entry names a file")),
    }
}

fn description(written: Option<Spanned<String>>) -> Result<String, Fault> {
    let Some(template) = written else {
        return Ok(DESCRIPTION.to_owned());
    };
    let fault = |message: String| Fault::at(template.span(), message);
    let text = template.get_ref();
    if text.chars().any(char::is_control) {
        return Err(fault(
            "a description is one line without control characters".into(),
        ));
    }
    if text.chars().count() > MAX_DESCRIPTION_CHARS {
        let message = format!("a description has at most {MAX_DESCRIPTION_CHARS} characters");
        return Err(fault(message));
    }
    let known = PLACEHOLDERS.map(|name| format!("{{{name}}}"));
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    for opened in text.split('{').skip(1) {
        let Some((placeholder, _)) = opened.split_once('}') else {
            let known = known.join("`, `");
            return Err(fault("a `{` in the description has no `}`".into())
                .help(format!("known are `{known}`")));
        };
        if !PLACEHOLDERS.contains(&placeholder) {
            let message = format!("unknown placeholder `{{{placeholder}}}` in the description");
            let help = suggestion(&format!("{{{placeholder}}}"), &known, "known are");
            return Err(fault(message).help(help));
        }
    }
    Ok(template.into_inner())
}

/// Publishing what users see is never automatic.
fn publish_to(environments: Vec<Spanned<String>>) -> Result<Vec<String>, Fault> {
    let live = environments.iter().find(|name| name.get_ref() != "staging");
    if let Some(live) = live {
        let message = format!("er-dev never publishes to `{}` by itself", live.get_ref());
        return Err(Fault::at(live.span(), message)
            .help("what users see is changed by hand only: use publish_to = [\"staging\"] or []"));
    }
    let mut names: Vec<String> = environments.into_iter().map(Spanned::into_inner).collect();
    names.dedup();
    Ok(names)
}

fn build(build: Option<Spanned<Build>>) -> Result<(), Fault> {
    let Some(build) = build else {
        return Ok(());
    };
    let Build { command, watch } = build.get_ref();
    let mut texts = watch.iter().chain([command]);
    if let Some(empty) = texts.find(|text| text.get_ref().trim().is_empty()) {
        let message = "a build has a command and watches directories with names";
        return Err(Fault::at(empty.span(), message));
    }
    Err(Fault::at(build.span(), "`build` is not available yet")
        .help("leave it out, run the build beside er-dev, and let `entry` name its output"))
}

/// An absolute path without `.` and `..`.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}
