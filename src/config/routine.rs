//! One `[[routine]]`: its name, where its code lies, and what its versions are called.
//!
//! Whether the entry exists is not asked here: a file may be missing for a moment, and the watcher tells.

use std::ops::{Range, RangeInclusive};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::check::{bad_pattern, period};
use super::error::{Fault, line_of};
use super::raw::{self, suggestion};
use super::{Build, Pattern, Routine, Upload, absolute};
use crate::routine::RoutineName;

const BUILD_TIMEOUT: Duration = Duration::from_secs(60);
/// Shorter, and no tool has even started; longer, and nobody notices that it hangs.
const BUILD_TIMEOUT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

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
    let build = build(raw.build, text)?;
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
        build,
        glob: None,
    })
}

fn name(name: &Spanned<String>) -> Result<RoutineName, Fault> {
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

fn build(raw: Option<Spanned<raw::Build>>, file: &str) -> Result<Option<Build>, Fault> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    let span = raw.span();
    let raw::Build {
        command,
        watch,
        timeout,
    } = raw.into_inner();
    let text = command.get_ref();
    if text.trim().is_empty() || text.contains('\0') {
        return Err(Fault::at(command.span(), "a build has a command")
            .help("for example command = \"npm run build\""));
    }
    if watch.is_empty() {
        return Err(Fault::at(span, "a build says what it reads")
            .help("add watch = [\"src\"]: when something there changes, it runs again"));
    }
    if watch
        .iter()
        .all(|pattern| pattern.get_ref().starts_with('!'))
    {
        return Err(Fault::at(span, "a build says what it reads, and not only what it does not")
            .help("add what it reads before what is taken out again: watch = [\"src\", \"!src/generated\"]"));
    }
    let mut patterns = Vec::new();
    for pattern in watch {
        inputs(&pattern)?;
        patterns.push(Pattern {
            line: line_of(file, pattern.span().start),
            text: pattern.into_inner(),
        });
    }
    Ok(Some(Build {
        command: command.into_inner(),
        watch: patterns,
        timeout: period(&timeout, "timeout", BUILD_TIMEOUT, &BUILD_TIMEOUT_BOUNDS)?,
    }))
}

/// Checks one path or pattern of what a build reads.
fn inputs(pattern: &Spanned<String>) -> Result<(), Fault> {
    let text = pattern.get_ref();
    let text = text.strip_prefix('!').unwrap_or(text);
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        let message = "a build watches files and directories with names";
        return Err(Fault::at(pattern.span(), message));
    }
    globset::Glob::new(text).map_err(|error| bad_pattern(pattern, &error))?;
    Ok(())
}

/// Refuses two builds that differ in their time alone: they would be one command that runs twice at once. Else it is one
/// of the known ones from then on.
pub(super) fn same_time(
    build: Option<&Build>,
    known: &[Build],
    span: Option<Range<usize>>,
) -> Result<Option<Build>, Fault> {
    let (Some(build), Some(span)) = (build, span) else {
        return Ok(None);
    };
    let differs = |known: &&Build| known.is_same(build) && known.timeout != build.timeout;
    match known.iter().find(differs) {
        Some(_) => Err(
            Fault::at(span, "the same build stands above with another `timeout`")
                .help("give both the same one: it runs once for all its routines"),
        ),
        None => Ok(Some(build.clone())),
    }
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
