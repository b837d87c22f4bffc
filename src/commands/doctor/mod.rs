//! `er-dev doctor`: what is right and what is not, one line a check, each with the cure where something is wrong.
//!
//! `machine` looks at this machine, `service` asks the service. Nothing is changed anywhere: what cannot be known without
//! changing something is called unknown. It takes five seconds at most, also where nothing answers.

use std::time::Duration;

use anstyle::Style;
use serde::Serialize;
use serde_json::json;

use crate::cli::{self, Common};
use crate::config::Config;
use crate::report::json::line;
use crate::report::text::{self, BAD, CARE, GOOD, NEWS};
use crate::report::words::{columns, escape, plural};
use crate::report::{Format, Look, Report};

use super::key::{self, Search};
use super::{Failure, context, load};

mod machine;
mod service;

/// How long the places of keys may take, since a program or a server may be asked.
const KEY_PATIENCE: Duration = Duration::from_secs(2);

/// The width of the names of checks.
const NAME: usize = 11;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    check: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<String>,
    verdict: Verdict,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

/// What is to be thought of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It is as it should be.
    Ok,
    /// It is worth knowing, and nothing is wrong.
    Note,
    /// It is wrong.
    Bad,
    /// It cannot be known now, or not without changing something.
    Unknown,
}

impl Check {
    fn new(check: &'static str, verdict: Verdict, reason: impl Into<String>) -> Self {
        Self {
            check,
            about: None,
            verdict,
            reason: reason.into(),
            cure: None,
        }
    }

    fn about(mut self, about: impl Into<String>) -> Self {
        self.about = Some(about.into());
        self
    }

    fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Something wrong, from the text of an error, which has what helps behind a mark or in its second half.
    fn wrong(check: &'static str, text: &str) -> Self {
        let halves = text.split_once("= help: ").or(text.split_once("; "));
        match halves {
            Some((what, help)) => Self::new(check, Verdict::Bad, what.trim_end()).cure(help.trim()),
            None => Self::new(check, Verdict::Bad, text),
        }
    }

    fn line(&self, look: Look) -> String {
        let (label, style) = self.verdict.label();
        let space = " ".repeat(NAME.saturating_sub(columns(self.check)));
        let mut words = format!("{}{space}  ", self.check);
        if let Some(about) = &self.about {
            words.push_str(&format!("{}: ", escape(about)));
        }
        words.push_str(&one_line(&self.reason));
        if let Some(cure) = &self.cure {
            let help = text::paint("= help:", NEWS, look);
            words.push_str(&format!("  {help} {}", one_line(cure)));
        }
        text::fact(label, style, &words, look)
    }
}

impl Verdict {
    fn label(self) -> (&'static str, Style) {
        match self {
            Self::Ok => ("Ok", GOOD),
            Self::Note => ("Note", NEWS),
            Self::Bad => ("Bad", BAD),
            Self::Unknown => ("Unknown", CARE),
        }
    }
}

/// A text of several lines in one, safe to show.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).map(escape).collect();
    lines.join("; ")
}

/// Makes every check.
pub(super) async fn run(
    common: &Common,
    flags: &cli::Doctor,
    report: &mut Report,
) -> Result<u8, Failure> {
    let mut checks = Vec::new();
    let loaded = load(common);
    checks.push(configuration(&loaded));
    let config = loaded.as_ref().ok();
    let authorities = context::authorities(common);
    let trusted = authorities.as_ref().ok().cloned().unwrap_or_default();
    let search = key::search(config, trusted.clone(), KEY_PATIENCE).await;
    checks.extend(credentials(&search));
    if let Some(config) = config {
        checks.extend(service::way(config, common, &authorities));
        let usable = authorities.is_ok().then_some(search.keys.ok()).flatten();
        checks.extend(service::asked(common, config, usable, trusted).await);
    }
    checks.extend(machine::look(common, config).await);
    let wrong = checks.iter().filter(|check| check.verdict == Verdict::Bad);
    let wrong = wrong.count();
    if flags.json || common.format == Format::Json {
        report.print(&line(
            &json!({ "v": 1, "ok": wrong == 0, "checks": checks }),
        ));
    } else {
        let look = report.look();
        let mut lines: String = checks.iter().map(|check| check.line(look)).collect();
        let (label, style, words) = match wrong {
            0 => ("Well", GOOD, "nothing is wrong".to_owned()),
            n => ("Ill", BAD, format!("{} wrong", is_or_are(n))),
        };
        lines.push_str(&text::fact(label, style, &words, look));
        report.print(&lines);
    }
    Ok(u8::from(wrong > 0))
}

fn is_or_are(n: usize) -> String {
    let verb = if n == 1 { "is" } else { "are" };
    format!("{} {verb}", plural(n as u64, "thing"))
}

fn configuration(loaded: &Result<Config, Failure>) -> Check {
    match loaded {
        Ok(config) => {
            let routines = plural(config.routines.len() as u64, "routine");
            let file = config.file.display();
            Check::new("config", Verdict::Ok, format!("{file}: {routines}"))
        }
        Err(failure) => Check::wrong("config", &failure.text),
    }
}

/// The key, and every place that it is not from.
fn credentials(search: &Search) -> Vec<Check> {
    let found = match &search.keys {
        Ok(keys) => {
            let key = &keys.present().credentials;
            let words = key::words(key);
            match key.ends {
                Some(ends) if ends <= jiff::Timestamp::now() => {
                    Check::new("key", Verdict::Bad, words)
                        .cure("see why its source gives one that has ended")
                }
                _ => Check::new("key", Verdict::Ok, words),
            }
        }
        Err(why) if search.late => Check::new("key", Verdict::Unknown, why.clone()),
        Err(why) => Check::wrong("key", why),
    };
    let place = |it: &crate::cloud::credentials::place::Looked| {
        let why = if it.won {
            "the key is from here"
        } else {
            &it.why
        };
        Check::new("place", Verdict::Note, why).about(&it.place)
    };
    let places = search.looked.iter().map(place);
    std::iter::once(found).chain(places).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_whatever_it_says() {
        let check = Check::wrong("config", "f:1:2: no\n  |\n1 | x\u{1b}\n  = help: yes\n");
        assert_eq!(
            check.line(Look::PLAIN),
            "         Bad  config       f:1:2: no; |; 1 | x\\u{1b}  = help: yes\n"
        );
        let check = Check::new("place", Verdict::Note, "none").about("here");
        assert_eq!(
            check.line(Look::PLAIN),
            "        Note  place        here: none\n"
        );
    }
}
