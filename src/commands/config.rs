//! `er-dev config`: looks at the configuration without using it.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::cli::{self, Common, Given, Origin};
use crate::config::{self, Config, Routine, Setting, Upload};
use crate::report::class::Class;
use crate::report::json::line;
use crate::report::words::{escape, plural};
use crate::report::{Format, Report};
use crate::state::StateDir;

use super::context::authorities;
use super::key::{self, Search};
use super::{Failure, env, load};

/// How long the places of keys may take, since a program or a server may be asked.
const KEY_PATIENCE: Duration = Duration::from_secs(4);

/// Where a remark begins behind a value that is not longer.
const REMARK: usize = 44;

/// Checks the configuration and says what it holds.
pub(super) fn check(common: &Common, report: &mut Report) -> Result<u8, Failure> {
    let config = load(common)?;
    let to_staging = |routine: &Routine| match routine.upload {
        Upload::Revision => routine.name.to_string(),
        Upload::Staging => format!("{} to staging", routine.name),
    };
    let shown: Vec<String> = config.routines.iter().map(to_staging).collect();
    let names: Vec<&str> = config
        .routines
        .iter()
        .map(|routine| routine.name.as_str())
        .collect();
    let line = match common.format {
        Format::Text | Format::Logfmt => {
            let mut text = format!(
                "{} is fine: {} ({}), {}{}\n",
                config.file.display(),
                plural(names.len() as u64, "routine"),
                shown.join(", "),
                match config.builds().len() {
                    0 => String::new(),
                    builds => format!("{}, ", plural(builds as u64, "build")),
                },
                config.service.endpoint.url,
            );
            for (what, help) in &config.refused {
                text.push_str(&format!("{}\n= help: {}\n", escape(what), escape(help)));
            }
            text
        }
        Format::Json => {
            let refused =
                |(what, help): &(String, String)| serde_json::json!({ "what": what, "help": help });
            let object = serde_json::json!({
                "v": 1,
                "file": config.file.to_string_lossy(),
                "endpoint": config.service.endpoint.url,
                "routines": names,
                "builds": config.builds().iter().map(|made| &made.build.command).collect::<Vec<_>>(),
                "refused": config.refused.iter().map(refused).collect::<Vec<_>>(),
            });
            format!("{object}\n")
        }
    };
    report.print(&line);
    Ok(0)
}

/// Prints what is in force.
pub(super) async fn show(
    common: &Common,
    flags: &cli::Show,
    report: &mut Report,
) -> Result<u8, Failure> {
    let config = load(common)?;
    let settings = config::settings(&config.file);
    let settings = settings.map_err(|error| Failure::new(Class::Config, error.to_string()))?;
    let given = in_force(common, &config);
    let search = key::search(Some(&config), authorities(common)?, KEY_PATIENCE).await;
    let shown = if flags.json || common.format == Format::Json {
        line(&object(&config, &settings, &given, &search))
    } else {
        let mut text = file(&config, &settings, flags.origin);
        text.push_str(&remarks(&given, &search));
        text
    };
    report.print(&shown);
    Ok(0)
}

/// A flag, its value, and where that is from, in words.
type InForce = (Given, String);

/// The flags with what stands in for those that were not given.
fn in_force(common: &Common, config: &Config) -> Vec<InForce> {
    let with_origin = |mut given: Given| {
        let origin = match given.origin {
            Origin::Flag => format!("flag --{}", given.flag),
            Origin::Environment => format!("environment {}", given.variable),
            Origin::Default => match given.flag.as_str() {
                "config" => {
                    given.value = config.file.display().to_string();
                    "found here or above".to_owned()
                }
                "state-dir" => match StateDir::usual_by(&env) {
                    Ok((path, by)) => {
                        given.value = path.display().to_string();
                        format!("environment {by}")
                    }
                    Err(error) => error.to_string(),
                },
                _ => "default".to_owned(),
            },
        };
        (given, origin)
    };
    common.given.iter().cloned().map(with_origin).collect()
}

/// The configuration as a file that means the same. What is no default says where it stands.
fn file(config: &Config, settings: &[Setting], all_origins: bool) -> String {
    let name = config.file.display().to_string();
    let short = config
        .file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let mut out = format!("# {}\n", escape(&name));
    if !all_origins {
        out.push_str("# a value without a remark is a default\n");
    }
    let mut present = None;
    for setting in settings {
        let table = (&setting.table, setting.index);
        if present != Some(table) {
            let header = match setting.index {
                Some(_) => format!("[[{}]]", setting.table),
                None => format!("[{}]", setting.table),
            };
            out.push_str(&format!("\n{header}\n"));
            present = Some(table);
        }
        let value = format!("{} = {}", setting.key, setting.written());
        match setting.line {
            Some(line) => {
                let _ = writeln!(out, "{value:<REMARK$}# {}:{line}", escape(&short));
            }
            None if all_origins => {
                let _ = writeln!(out, "{value:<REMARK$}# default");
            }
            None => {
                let _ = writeln!(out, "{value}");
            }
        }
    }
    out
}

/// What is in force and stands in no file, as remarks of one.
fn remarks(given: &[InForce], search: &Search) -> String {
    let mut out = String::from("\n# flags\n");
    for (given, origin) in given {
        let value = match given.value.as_str() {
            "" => "none",
            value => value,
        };
        let value = format!("--{} {}", given.flag, escape(value));
        let _ = writeln!(out, "# {value:<REMARK$}{}", escape(origin));
    }
    out.push_str("\n# key\n");
    let told = match &search.keys {
        Ok(keys) => key::words(&keys.present().credentials),
        Err(why) => why.clone(),
    };
    for line in told.lines() {
        let _ = writeln!(out, "# {}", escape(line));
    }
    for looked in &search.looked {
        let mark = if looked.won { "*" } else { "-" };
        let why = if looked.won {
            "the key is from here"
        } else {
            &looked.why
        };
        let place = escape(&looked.place);
        let _ = writeln!(out, "# {mark} {place}: {}", escape(why));
    }
    out
}

fn object(
    config: &Config,
    settings: &[Setting],
    given: &[InForce],
    search: &Search,
) -> serde_json::Value {
    let setting = |it: &Setting| {
        json!({
            "table": it.table,
            "index": it.index,
            "key": it.key,
            "value": it.value,
            "origin": if it.line.is_some() { "file" } else { "default" },
            "line": it.line,
        })
    };
    let flag = |(given, origin): &InForce| {
        json!({
            "flag": given.flag,
            "value": given.value,
            "origin": given.origin,
            "by": origin,
        })
    };
    json!({
        "v": 1,
        "file": config.file.to_string_lossy(),
        "settings": settings.iter().map(setting).collect::<Vec<_>>(),
        "flags": given.iter().map(flag).collect::<Vec<_>>(),
        "key": search.keys.as_ref().ok().map(|keys| key::object(&keys.present().credentials)),
        "no_key": search.keys.as_ref().err(),
        "places": key::places(&search.looked),
    })
}
