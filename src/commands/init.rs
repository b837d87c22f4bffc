//! `er-dev init`: a first configuration, and a first routine where there is none.
//!
//! Nothing that is there is ever overwritten, and nothing is asked of the service: whether a routine is missing there is
//! told by the first upload, which makes it where `create = true` says so.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use ignore::WalkBuilder;
use serde_json::{Value, json};

use crate::cli::{self, Common};
use crate::config::draft::{self, Draft, Drafted, SOURCES};
use crate::config::{self, FILE_NAME};
use crate::report::class::Class;
use crate::report::text::{GOOD, NEWS, fact};
use crate::report::words::{escape, plural};
use crate::report::{Format, Report};

use super::{Failure, one};

/// How deep below the working directory entries are looked for.
const DEPTH: usize = 4;

/// The most files that are looked at.
const MAX_FILES: usize = 5_000;

/// The largest file that is looked at, in bytes: no code may be larger.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The entry of the sample routine.
const SAMPLE: &str = "src/hello.js";

/// The code of the sample routine.
const SAMPLE_CODE: &str = include_str!("../../examples/hello.js");

/// Writes a configuration for what lies in the working directory.
pub(super) fn run(common: &Common, flags: &cli::Init, report: &mut Report) -> Result<u8, Failure> {
    if fs::symlink_metadata(FILE_NAME).is_ok() {
        return Err(there_already(FILE_NAME));
    }
    if !flags.yes && !one::is_attended() {
        return Err(Failure::usage(
            "init asks what to write, and nobody can be asked here\n= help: give `--yes` to take the defaults",
        ));
    }
    let mut routines = found();
    let sample = routines.is_empty();
    if sample {
        let question =
            format!("no JavaScript with a handler of requests was found; write one to {SAMPLE}");
        if !flags.yes && !one::answer(&question, true)? {
            return Err(Failure::refused(format!(
                "there is no routine to write down\n= help: write the code first, or name it in {FILE_NAME} yourself"
            )));
        }
        routines = draft::routines(&[SAMPLE.to_owned()], None, "hello");
    }
    let question = "make routines on the service that are missing there, at their first upload";
    let create = flags.create || (!flags.yes && one::answer(question, false)?);
    let draft = Draft { routines, create };

    let mut made = Vec::new();
    if sample {
        write(SAMPLE, SAMPLE_CODE)?;
        made.push(SAMPLE);
    }
    write(FILE_NAME, &draft.text())?;
    made.push(FILE_NAME);
    config::load(Path::new(FILE_NAME), &common.allow_endpoint).map_err(Failure::other)?;
    match common.format {
        Format::Json => {
            let names: Vec<&str> = draft.routines.iter().map(|it| it.name.as_str()).collect();
            let object = json!({"v": 1, "made": made, "routines": names, "create": create});
            report.print(&format!("{object}\n"));
        }
        Format::Text | Format::Logfmt => report.print(&text(&draft, &made, report)),
    }
    Ok(0)
}

/// The routines of the working directory.
fn found() -> Vec<Drafted> {
    let package: Value = read(Path::new("package.json"))
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let script = draft::script(&package, runner()).filter(|_| Path::new(SOURCES).is_dir());
    let project = match package["name"].as_str() {
        Some(name) => name.to_owned(),
        None => std::env::current_dir()
            .ok()
            .and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_default(),
    };
    draft::routines(&entries(), script.as_ref(), &project)
}

/// The program that runs the scripts of this project, by the lock file it leaves behind.
fn runner() -> &'static str {
    let runners = [
        ("pnpm-lock.yaml", "pnpm"),
        ("yarn.lock", "yarn"),
        ("bun.lock", "bun"),
        ("bun.lockb", "bun"),
    ];
    let used = runners.iter().find(|(file, _)| Path::new(file).exists());
    used.map_or("npm", |(_, runner)| runner)
}

/// JavaScript files with a handler of requests, sorted. What git ignores is not looked at, nor is what was installed.
fn entries() -> Vec<String> {
    let mut walk = WalkBuilder::new(".");
    walk.max_depth(Some(DEPTH))
        .require_git(false)
        .filter_entry(|entry| entry.file_name() != "node_modules");
    let files = walk.build().filter_map(Result::ok).take(MAX_FILES);
    let mut entries: Vec<String> = files
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .filter_map(|entry| {
            let path = entry.path().strip_prefix(".").ok()?.to_str()?.to_owned();
            let is_one = draft::is_plain(&path) && draft::is_entry(&read(entry.path())?);
            is_one.then_some(path)
        })
        .collect();
    entries.sort();
    entries
}

fn read(path: &Path) -> Option<String> {
    // A pipe would keep this waiting.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Writes a file that is not there yet.
fn write(path: &str, text: &str) -> Result<(), Failure> {
    let written = || -> io::Result<()> {
        if let Some(dir) = Path::new(path).parent() {
            fs::create_dir_all(dir)?;
        }
        File::create_new(path)?.write_all(text.as_bytes())
    };
    written().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there_already(path),
        _ => {
            let help = "see that this directory can be written";
            Failure::of_error(Class::Machine, format!("{path}: {error}"), help)
        }
    })
}

fn there_already(path: &str) -> Failure {
    Failure::refused(format!(
        "{path} is there already, and init overwrites nothing\n= help: move it away to begin anew; `er-dev config check` looks at what stands in {FILE_NAME}"
    ))
}

fn text(draft: &Draft, made: &[&str], report: &Report) -> String {
    let look = report.look();
    let mut out = String::new();
    for path in made {
        out.push_str(&fact("Made", GOOD, path, look));
    }
    for routine in &draft.routines {
        let words = format!("{}  {}", routine.name, escape(&routine.entry));
        out.push_str(&fact("Routine", GOOD, &words, look));
        if let Some(command) = &routine.build {
            let words = format!("{} is made by `{command}`", escape(&routine.entry));
            out.push_str(&fact("Build", NEWS, &words, look));
        }
    }
    let count = plural(draft.routines.len() as u64, "routine");
    let create = match draft.create {
        true => format!("{count} made on the service where missing, at the first upload"),
        false => {
            format!("{count} expected on the service; `create = true` makes one that is missing")
        }
    };
    out.push_str(&fact("Create", NEWS, &create, look));
    let next = "`er-dev watch --emulator` tries it without a key; `er-dev watch` uploads";
    out.push_str(&fact("Next", NEWS, next, look));
    out
}
